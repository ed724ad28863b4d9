//! The admin API for subcommands: of the running server, or in this process if none runs.
//!
//! Both serve the same routes, so each subcommand is written once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::Router;
use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tower::ServiceExt;

use super::outcome::Failure;
use crate::app::App;
use crate::config::Config;
use crate::domain::Clock;
use crate::egress;
use crate::service::open_store;
use crate::store::{SharedStore, StoreError};

/// Time to wait for the server's first response.
const FIND_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit of a call; the backup of a large store is the slowest.
const CALL_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Rows requested in one call.
const ROWS: usize = 500;

/// Bytes of a response that are read at most.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// A running server of this program with the same settings.
#[derive(Debug)]
pub struct RunningServer {
    client: reqwest::Client,
    address: SocketAddr,
    token: Option<SecretString>,
}

impl RunningServer {
    /// Finds the server that responds at `admin.listen`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If a server runs but refuses our token.
    pub async fn find(config: &Config) -> Result<Option<Self>, Failure> {
        let server = Self {
            client: egress::client(None, CALL_TIMEOUT)?,
            address: reachable_address(config.admin.listen),
            token: config.admin.token.clone(),
        };
        let status = server.call(Method::GET, "/v1/status", None);
        match tokio::time::timeout(FIND_TIMEOUT, status).await {
            Ok(Ok((StatusCode::OK, status))) if status["service"] == env!("CARGO_PKG_NAME") => {
                Ok(Some(server))
            }
            // It runs, but its store does not respond.
            Ok(Ok((StatusCode::SERVICE_UNAVAILABLE, problem)))
                if problem["code"] == "store_unavailable" =>
            {
                Ok(Some(server))
            }
            Ok(Ok((StatusCode::UNAUTHORIZED, _))) => Err(Failure::usage(anyhow!(
                "the server at {} refused the token; set `admin.token_file` or IVESK_WEBHOOK_ADMIN_TOKEN \
                 to the token that it was started with",
                server.address
            ))),
            // Another program, or none; the store's lock shows if a server uses the store.
            Ok(Ok(_) | Err(_)) | Err(_) => Ok(None),
        }
    }

    /// Calls the API and returns the status and the body, [`Value::Null`] if it is not JSON.
    ///
    /// # Errors
    ///
    /// If there is no response.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), anyhow::Error> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        let body = egress::read_body(response, MAX_ANSWER_BYTES).await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<reqwest::Response, anyhow::Error> {
        let url = format!("http://{}{path}", self.address);
        let mut request = self.client.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret());
        }
        if let Some(body) = body {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        request
            .send()
            .await
            .map_err(|error| anyhow!(egress::describe(error)))
    }
}

/// Returns the address at which this machine reaches a listener, which may listen on all.
fn reachable_address(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The admin API.
pub enum Api {
    /// Served by a running server.
    Running(RunningServer),
    /// Served by this process, which holds the store open.
    Own {
        /// The routes.
        router: Router,
        /// The store that they use.
        store: SharedStore,
        /// The token that they require.
        token: Option<SecretString>,
    },
}

impl Api {
    /// Finds the running server, or opens the store.
    ///
    /// # Errors
    ///
    /// If a server refuses our token, or the store can't be opened.
    pub async fn open(config: &Config) -> Result<Self, Failure> {
        if let Some(server) = RunningServer::find(config).await? {
            return Ok(Self::Running(server));
        }
        let clock = Clock::system();
        let store = open_store(config, &clock)
            .await
            .map_err(|error| match error {
                StoreError::InUse { path } => Failure::unreachable(anyhow!(
                    "{} is in use by another process, but no server responds at {}; set `admin.listen` to the \
                     address that the server was started with",
                    path.display(),
                    config.admin.listen
                )),
                unreachable @ StoreError::Unreachable { .. } => Failure::unreachable(unreachable),
                other => Failure::from(other),
            })?;
        let token = config.admin.token.clone();
        let app = App::assemble(config.clone(), store.clone(), clock)?;
        Ok(Self::Own {
            router: crate::admin::router(app),
            store,
            token,
        })
    }

    /// Returns the store that this process opened; `None` if a server runs.
    pub fn own_store(&self) -> Option<SharedStore> {
        match self {
            Self::Running(_) => None,
            Self::Own { store, .. } => Some(SharedStore::clone(store)),
        }
    }

    /// Returns true if a server runs.
    pub fn is_running_server(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    /// Returns the resource at `path`.
    ///
    /// # Errors
    ///
    /// If the API returns a problem or nothing.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, None).await
    }

    /// Posts `body` to `path` and returns the response.
    ///
    /// # Errors
    ///
    /// As [`Api::get`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Returns every row of the list at `path`, page by page.
    ///
    /// # Errors
    ///
    /// As [`Api::get`].
    pub async fn rows(&self, path: &str) -> Result<Vec<Value>, Failure> {
        let mut rows = Vec::new();
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut page = format!("{path}{separator}limit={ROWS}");
        loop {
            let mut response = self.get(&page).await?;
            if let Value::Array(more) = response["rows"].take() {
                rows.extend(more);
            }
            match response["next"].as_str() {
                // Cursors are base64url, which needs no escaping in a query.
                Some(next) => page = format!("{path}{separator}limit={ROWS}&after={next}"),
                None => return Ok(rows),
            }
        }
    }

    /// Closes the store if this process opened it.
    ///
    /// # Errors
    ///
    /// If the store can't be closed cleanly.
    pub async fn close(self) -> Result<(), Failure> {
        match self {
            Self::Running(_) => Ok(()),
            Self::Own { store, .. } => Ok(store.close().await?),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let (status, response) = match self {
            Self::Running(server) => server
                .call(method, path, body)
                .await
                .context("the running server did not respond")
                .map_err(Failure::unreachable)?,
            Self::Own { router, token, .. } => {
                call_own(router, token.as_ref(), method, path, body).await?
            }
        };
        if status.is_success() {
            return Ok(response);
        }
        let title = response["title"].as_str().map(str::to_owned);
        let title =
            title.unwrap_or_else(|| format!("the server returned {status} without a reason"));
        Err(anyhow!(title).into())
    }
}

async fn call_own(
    router: &Router,
    token: Option<&SecretString>,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<(StatusCode, Value), anyhow::Error> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    // A router responds to everything: its error type has no values.
    let response = router
        .clone()
        .oneshot(request.body(Body::from(body))?)
        .await
        .unwrap_or_else(|never| match never {});
    let status = response.status();
    #[expect(
        clippy::disallowed_methods,
        reason = "the answer of this process's own handlers, which bound it"
    )]
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
}
