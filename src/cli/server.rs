//! The admin API for subcommands: of the running server, or in this process if none runs.
//!
//! Both serve the same routes, so each subcommand is written once. The running server is
//! reached by its Unix socket, which proves each side to the other: no token is sent.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{Method, Request, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tower::ServiceExt;

use super::outcome::Failure;
use crate::admin::listener::AdminPeer;
use crate::app::App;
use crate::config::{Config, StoreUrl};
use crate::domain::Clock;
use crate::service::{open_store, open_store_for_reading};
use crate::store::{SharedStore, StoreError};

/// Time to wait for the server's first response.
const FIND_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit of a call; the backup of a large store is the slowest.
const CALL_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Rows requested in one call.
const ROWS: usize = 500;

/// Bytes of a response that are read at most.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// A running server of this program, found by its socket.
#[derive(Debug)]
pub struct RunningServer {
    socket: PathBuf,
}

impl RunningServer {
    /// Finds the server that listens on `admin.socket`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If a server runs but this user may not use its socket, or may not trust it.
    pub async fn find(config: &Config) -> Result<Option<Self>, Failure> {
        Self::find_at(&config.admin.socket).await
    }

    /// Finds the server that listens on `socket`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`RunningServer::find`].
    pub async fn find_at(socket: &Path) -> Result<Option<Self>, Failure> {
        let server = Self {
            socket: socket.to_owned(),
        };
        match server.connect().await {
            Ok(stream) => drop(stream),
            Err(ConnectError::NobodyListens) => return Ok(None),
            Err(error) => return Err(Failure::usage(error)),
        }
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
            // Another program, or one that hangs; the store's lock shows if a server uses the store.
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
        let call = self.send(method, path, body);
        tokio::time::timeout(CALL_TIMEOUT, call)
            .await
            .map_err(|_| anyhow!("there was no response within {CALL_TIMEOUT:?}"))?
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), anyhow::Error> {
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let response = async {
            let response = sender.send_request(request(method, path, body)?).await?;
            let status = response.status();
            let body = to_bytes(Body::new(response.into_body()), MAX_ANSWER_BYTES).await?;
            Ok::<_, anyhow::Error>((status, serde_json::from_slice(&body).unwrap_or_default()))
        };
        // The connection ends only after the response, or with an error that the response has too.
        let mut response = std::pin::pin!(response);
        tokio::select! {
            answered = &mut response => answered,
            _ = connection => response.await,
        }
    }

    /// Connects to the server's socket.
    async fn connect(&self) -> Result<UnixStream, ConnectError> {
        let path = self.socket.clone();
        let stream = match UnixStream::connect(&path).await {
            Ok(stream) => stream,
            Err(error) => {
                return Err(match error.kind() {
                    io::ErrorKind::NotFound
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::ConnectionRefused => ConnectError::NobodyListens,
                    io::ErrorKind::PermissionDenied => ConnectError::NotAllowed { path },
                    _ => ConnectError::Unusable { path, error },
                });
            }
        };
        let server = stream.peer_cred().map(|server| server.uid());
        match server {
            Ok(server) if may_trust(&path, server) => Ok(stream),
            Ok(server) => Err(ConnectError::Stranger { path, server }),
            Err(error) => Err(ConnectError::Unusable { path, error }),
        }
    }
}

/// The reason why a server's socket can't be used.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("no server listens on the socket")]
    NobodyListens,
    #[error(
        "this user may not use the server's socket {}; run this as root, as the user that the server runs as \
         (`sudo -u USER`), or add this user to its group", path.display()
    )]
    NotAllowed { path: PathBuf },
    #[error(
        "the socket {} belongs to user {server}, in a folder that everybody may write to; set `admin.socket` to a \
         path in a folder of the server's user", path.display()
    )]
    Stranger { path: PathBuf, server: u32 },
    #[error("the server's socket {} can't be used: {error}", path.display())]
    Unusable { path: PathBuf, error: io::Error },
}

/// Returns true if a server that runs as this user may be believed: root and this user
/// themselves, and anybody in a folder that not everybody may write to.
fn may_trust(socket: &Path, server: u32) -> bool {
    /// The permission of others to write.
    const OTHERS_WRITE: u32 = 0o002;
    let this = rustix::process::geteuid().as_raw();
    let folder = match socket.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let is_private = || {
        let folder = std::fs::metadata(folder);
        folder.is_ok_and(|folder| folder.mode() & OTHERS_WRITE == 0)
    };
    server == 0 || server == this || is_private()
}

/// Returns a request of the API.
fn request(method: Method, path: &str, body: Option<&Value>) -> axum::http::Result<Request<Body>> {
    let body = body.map(Value::to_string).unwrap_or_default();
    Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(body))
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
    },
}

impl Api {
    /// Finds the running server, or opens the store, which must exist.
    ///
    /// # Errors
    ///
    /// If this user may not use the server's socket, or the store can't be opened.
    pub async fn open(config: &Config) -> Result<Self, Failure> {
        if let Some(server) = RunningServer::find(config).await? {
            return Ok(Self::Running(server));
        }
        must_exist(config)?;
        Self::own(config).await
    }

    /// Finds the running server, or opens the store, which is created if it is missing: for what
    /// people do before the first start of `serve`.
    ///
    /// # Errors
    ///
    /// As [`Api::open`].
    pub async fn open_or_create(config: &Config) -> Result<Self, Failure> {
        if let Some(server) = RunningServer::find(config).await? {
            return Ok(Self::Running(server));
        }
        Self::own(config).await
    }

    /// Finds the running server, or opens the store for reading: nothing in it is changed, and
    /// another command may use it at the same time.
    ///
    /// # Errors
    ///
    /// As [`Api::open`].
    pub async fn open_for_reading(config: &Config) -> Result<Self, Failure> {
        if let Some(server) = RunningServer::find(config).await? {
            return Ok(Self::Running(server));
        }
        must_exist(config)?;
        let store = open_store_for_reading(config).await;
        let store = store.map_err(|error| match error {
            error @ StoreError::Unreachable { .. } => Failure::unreachable(error),
            other => Failure::from(other),
        })?;
        Self::with_store(config, store, Clock::system())
    }

    async fn own(config: &Config) -> Result<Self, Failure> {
        let clock = Clock::system();
        let store = open_store(config, &clock)
            .await
            .map_err(|error| match error {
                StoreError::InUse { path } => Failure::unreachable(anyhow!(
                    "{} is in use by another process, but no server responds on the socket {}. If another command such \
                     as `pull` is running, wait until it has ended; if `serve` is, set `admin.socket` as it was started with",
                    path.display(),
                    config.admin.socket.display()
                )),
                unreachable @ StoreError::Unreachable { .. } => Failure::unreachable(unreachable),
                other => Failure::from(other),
            })?;
        Self::with_store(config, store, clock)
    }

    fn with_store(config: &Config, store: SharedStore, clock: Clock) -> Result<Self, Failure> {
        let app = App::assemble(config.clone(), store.clone(), clock)?;
        Ok(Self::Own {
            router: crate::admin::router(app),
            store,
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
            Self::Own { router, .. } => call_own(router, method, path, body).await?,
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

/// Returns an error if the store is a file that is missing.
fn must_exist(config: &Config) -> Result<(), Failure> {
    match &config.store.url {
        StoreUrl::Sqlite(path) if no_file(path) => Err(anyhow!(
            "there is no database yet: {} is missing. `ivesk-webhook serve` creates it at its first start; if there was \
             one, look at `store.url`, or restore a backup (docs/operating.md)",
            path.display()
        )
        .into()),
        _ => Ok(()),
    }
}

/// Returns true if the file is missing. One that can't be looked for is reported by opening it.
pub(super) fn no_file(path: &Path) -> bool {
    path.try_exists().is_ok_and(|exists| !exists)
}

async fn call_own(
    router: &Router,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<(StatusCode, Value), anyhow::Error> {
    let mut request = request(method, path, body)?;
    // Whoever may open the store needs no other proof.
    request.extensions_mut().insert(AdminPeer::this_process());
    // A router responds to everything: its error type has no values.
    let response = router
        .clone()
        .oneshot(request)
        .await
        .unwrap_or_else(|never| match never {});
    let status = response.status();
    let bytes = to_bytes(response.into_body(), MAX_ANSWER_BYTES).await?;
    Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_strangers_socket_in_an_open_folder_is_not_believed() {
        const STRANGER: u32 = 54_321;
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("admin.sock");
        let this = rustix::process::geteuid().as_raw();
        for (mode, believed) in [
            (0o755, true),
            (0o770, true),
            (0o777, false),
            (0o1777, false),
        ] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(folder.path(), permissions).expect("changed");
            assert_eq!(may_trust(&socket, STRANGER), believed, "{mode:o}");
            assert!(
                may_trust(&socket, 0) && may_trust(&socket, this),
                "{mode:o}"
            );
        }
    }
}
