//! The admin API for subcommands: of the running server, or in this process if none runs.
//!
//! Both serve the same routes, so each subcommand is written once. The running server is
//! reached by its Unix socket, which proves each side to the other: no token is sent.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{Method, Request, Response, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tower::ServiceExt;
use url::form_urlencoded;

use super::outcome::Failure;
use crate::admin::listener::AdminPeer;
use crate::api::status::Status;
use crate::api::{Page, ProblemBody};
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
        let answer = tokio::time::timeout(FIND_TIMEOUT, server.get("/v1/status"));
        let is_ours = match answer.await {
            Ok(Ok(answer)) if answer.status == StatusCode::OK => {
                // Of any version: other fields may be missing.
                answer
                    .json()
                    .is_ok_and(|Service { service }| service == env!("CARGO_PKG_NAME"))
            }
            // It runs, but its store does not respond.
            Ok(Ok(answer)) => {
                let is_store = |problem: ProblemBody| problem.code == "store_unavailable";
                answer.status == StatusCode::SERVICE_UNAVAILABLE
                    && answer.problem().is_some_and(is_store)
            }
            // Another program, or one that hangs; the store's lock shows if a server uses the store.
            Ok(Err(_)) | Err(_) => false,
        };
        Ok(is_ours.then_some(server))
    }

    /// Requests the resource at `path`.
    ///
    /// # Errors
    ///
    /// If there is no response.
    pub async fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.call(Call::get(path)).await
    }

    /// Returns true if the server was started with the settings file as it is now; also if the server
    /// does not tell.
    pub(super) async fn has_settings_of(&self, config: &Config) -> bool {
        let Ok(answer) = self.get("/v1/status").await else {
            return true;
        };
        answer
            .result()
            .map_or(true, |status: Status| is_of(&status, config))
    }

    /// Posts `body` to `path`.
    ///
    /// # Errors
    ///
    /// If there is no response.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Answer, Failure> {
        self.call(Call::post(path, body)?).await
    }

    async fn call(&self, call: Call<'_>) -> Result<Answer, Failure> {
        let answer = match tokio::time::timeout(CALL_TIMEOUT, self.send(call)).await {
            Ok(answer) => answer,
            Err(_) => Err(anyhow!("there was no response within {CALL_TIMEOUT:?}")),
        };
        answer
            .context("the running server did not respond")
            .map_err(Failure::unreachable)
    }

    async fn send(&self, call: Call<'_>) -> Result<Answer, anyhow::Error> {
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let response = async {
            let response = sender.send_request(call.request()?).await?;
            Answer::read(&call, response.map(Body::new)).await
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

/// Returns the path with the fields of a request as its query.
///
/// # Errors
///
/// If the request can't be written as JSON.
pub(super) fn with_query(path: &str, request: &impl Serialize) -> Result<String, Failure> {
    let fields: BTreeMap<String, Value> = serde_json::from_value(serde_json::to_value(request)?)?;
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in &fields {
        match value {
            Value::Null => {}
            Value::String(text) => drop(query.append_pair(name, text)),
            other => drop(query.append_pair(name, &other.to_string())),
        }
    }
    let query = query.finish();
    Ok(format!("{path}?{query}").trim_end_matches('?').to_owned())
}

/// The one field of a status that every version has.
#[derive(serde::Deserialize)]
struct Service {
    service: String,
}

/// A request of the API.
struct Call<'p> {
    method: Method,
    path: &'p str,
    body: String,
}

impl<'p> Call<'p> {
    fn get(path: &'p str) -> Self {
        Self {
            method: Method::GET,
            path,
            body: String::new(),
        }
    }

    fn post(path: &'p str, body: &impl Serialize) -> Result<Self, Failure> {
        Ok(Self {
            method: Method::POST,
            path,
            body: serde_json::to_string(body)?,
        })
    }

    fn request(&self) -> axum::http::Result<Request<Body>> {
        Request::builder()
            .method(self.method.clone())
            .uri(self.path)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(self.body.clone()))
    }
}

/// An answer of the API.
pub struct Answer {
    /// What was requested.
    call: String,
    status: StatusCode,
    body: Bytes,
}

impl Answer {
    async fn read(call: &Call<'_>, response: Response<Body>) -> Result<Self, anyhow::Error> {
        // Without a query, which may name a company.
        let path = call.path.split('?').next().unwrap_or_default();
        Ok(Self {
            call: format!("{} {path}", call.method),
            status: response.status(),
            body: to_bytes(response.into_body(), MAX_ANSWER_BYTES).await?,
        })
    }

    /// Returns what was requested.
    ///
    /// # Errors
    ///
    /// The problem that the server found, or what keeps its answer from being read.
    pub fn result<T: DeserializeOwned>(self) -> Result<T, Failure> {
        if self.status.is_success() {
            return self.json();
        }
        let status = self.status;
        Err(self.problem().map_or_else(
            || anyhow!("the server returned {status} without a reason").into(),
            Failure::problem,
        ))
    }

    /// Returns the problem that the server found; `None` if it returned none.
    pub fn problem(&self) -> Option<ProblemBody> {
        let problem = serde_json::from_slice(&self.body).ok();
        problem.filter(|_| !self.status.is_success())
    }

    fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        // By way of a value, whose errors name fields and not bytes.
        let read = serde_json::from_slice::<Value>(&self.body).and_then(serde_json::from_value);
        read.map_err(|error| {
            anyhow!(
                "the server's answer to `{}` can't be read: {error}. It may be of another version than this command: \
                 restart it, then run this again",
                self.call
            )
            .into()
        })
    }
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
        let store = existing_store(config).await?;
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

    /// Returns the resource at `path`; as [`Value`] the JSON that the server sent.
    ///
    /// # Errors
    ///
    /// If the API returns a problem, nothing, or what can't be read.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Call::get(path)).await?.result()
    }

    /// Posts `body` to `path` and returns the response.
    ///
    /// # Errors
    ///
    /// As [`Api::get`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.call(Call::post(path, body)?).await?.result()
    }

    /// Returns every row of the list at `path`, page by page.
    ///
    /// # Errors
    ///
    /// As [`Api::get`].
    pub async fn rows<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Failure> {
        let mut rows = Vec::new();
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut page = format!("{path}{separator}limit={ROWS}");
        loop {
            let response: Page<T> = self.get(&page).await?;
            rows.extend(response.rows);
            match response.next {
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

    async fn call(&self, call: Call<'_>) -> Result<Answer, Failure> {
        match self {
            Self::Running(server) => server.call(call).await,
            Self::Own { router, .. } => Ok(call_own(router, call).await?),
        }
    }
}

/// The finding that a server was started with other settings, and its fix.
pub(super) const SETTINGS_CHANGED: (&str, &str) = (
    "the settings file has changed since `serve` was started, which still uses the old settings",
    "restart `serve`",
);

/// Returns true if a server with this status was started with the settings file as it is now, as far
/// as it tells.
pub(super) fn is_of(status: &Status, config: &Config) -> bool {
    let digest = status.settings_digest.as_ref();
    digest.is_none_or(|digest| *digest == config.file_digest)
}

/// Opens the store for reading, beside a running server too.
///
/// # Errors
///
/// If it does not exist yet, or can't be opened.
pub(super) async fn existing_store(config: &Config) -> Result<SharedStore, Failure> {
    must_exist(config)?;
    let store = open_store_for_reading(config).await;
    store.map_err(|error| match error {
        error @ StoreError::Unreachable { .. } => Failure::unreachable(error),
        error @ StoreError::NotAccessible { .. } => {
            anyhow!("{error}. This command reads the database itself: run it as root or as the service's user").into()
        }
        other => Failure::from(other),
    })
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

async fn call_own(router: &Router, call: Call<'_>) -> Result<Answer, anyhow::Error> {
    let mut request = call.request()?;
    // Whoever may open the store needs no other proof.
    request.extensions_mut().insert(AdminPeer::this_process());
    // A router responds to everything: its error type has no values.
    let response = router
        .clone()
        .oneshot(request)
        .await
        .unwrap_or_else(|never| match never {});
    Answer::read(&call, response).await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::api::Changed;
    use crate::api::feeds::Gap;
    use crate::api::status::AccountStatus;

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

    fn answer(status: u16, body: &'static str) -> Answer {
        Answer {
            call: "POST /v1/feeds/pause".to_owned(),
            status: StatusCode::from_u16(status).expect("a status"),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn an_answer_of_another_version_is_read_as_far_as_it_can_be() {
        let gap = r#"{"id": 7, "account": "a", "queue": "exported", "company": "302320404", "reason": "group_cut",
            "found_at": "2026-11-23T08:00:00Z", "of_a_newer_version": {"x": [1]}}"#;
        let gap: Gap = answer(200, gap)
            .result()
            .unwrap_or_else(|failure| panic!("{failure:?}"));
        assert_eq!(gap.feed.to_string(), "a/exported/302320404");
        assert_eq!((gap.from, gap.closed_at), (None, None));
    }

    #[test]
    fn an_answer_that_lacks_a_field_says_so() {
        for (body, named) in [
            (r#"{"number": 1}"#, "missing field `changed`"),
            (r#"{"changed": "many"}"#, "invalid type: string \"many\""),
            ("<html>", "expected value"),
        ] {
            let failure = answer(200, body)
                .result::<Changed>()
                .expect_err("no number");
            let message = failure.message();
            assert!(message.contains("`POST /v1/feeds/pause`"), "{message}");
            assert!(message.contains(named), "{message}");
            assert!(message.contains("another version"), "{message}");
        }
        let unknown = r#"{"account": "a", "paused": "tired", "failures": 0}"#;
        let failure = answer(200, unknown)
            .result::<AccountStatus>()
            .expect_err("no reason");
        assert!(
            failure.message().contains("`tired` is none of"),
            "{failure:?}"
        );
    }

    #[test]
    fn a_problem_is_the_error_of_the_command() {
        let problem = r#"{"type": "urn:x", "title": "the feed is removed", "status": 409, "code": "conflict"}"#;
        let failure = answer(409, problem)
            .result::<Changed>()
            .expect_err("a problem");
        assert_eq!(failure.message(), "the feed is removed");
        let failure = answer(502, "<html>")
            .result::<Changed>()
            .expect_err("no reason");
        assert!(failure.message().contains("502"), "{failure:?}");
    }
}
