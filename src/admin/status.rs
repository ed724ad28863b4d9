//! How the service stands, as a whole.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AdminError, Input, NoFields, Outcome};
use crate::metrics::{StoreSnapshot, StoreStep, TextFormat};
use crate::pull::{BlockedQueue, blocked_queues};
use crate::receiver::challenge::Challenge;
use crate::receiver::problem::Problem;
use crate::service::App;
use crate::store::{AccountRow, Activity, SequenceRow, StoreError};

/// How the service stands.
#[derive(Serialize, ToSchema)]
pub(super) struct Status {
    /// The program's name.
    service: &'static str,
    /// The program's version.
    version: &'static str,
    /// Whether a message would be stored now.
    ready: bool,
    /// Why not.
    reason: Option<&'static str>,
    /// Where the numbering of documents stands.
    sequence: SequenceRow,
    /// Bytes that are free on the store's disk; null where it is not ours to know.
    free_bytes: Option<u64>,
    /// Every account.
    accounts: Vec<AccountRow>,
    /// Queues that can't be asked for until something is set.
    blocked: Vec<BlockedQueue>,
    /// How many feeds are known.
    feeds: usize,
    /// How many of them are paused.
    paused_feeds: usize,
    /// How many subscriptions there are.
    subscriptions: usize,
}

/// Whether the process runs
#[utoipa::path(get, path = "/healthz", tag = "service",
    responses((status = OK, description = "It runs", body = String, content_type = "text/plain")))]
pub(super) async fn alive() -> &'static str {
    "alive\n"
}

/// Whether a message would be stored now
#[utoipa::path(get, path = "/readyz", tag = "service",
    responses(
        (status = OK, description = "It would", body = String, content_type = "text/plain"),
        (status = SERVICE_UNAVAILABLE, description = "It would not, and why",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    match app.ingest.readiness().await {
        Ok(()) => "ready\n".into_response(),
        Err(refusal) => Problem::from(&refusal)
            .into_response()
            .map(axum::body::Body::new),
    }
}

/// How the service stands as a whole
#[utoipa::path(get, path = "/v1/status", tag = "service",
    responses((status = OK, description = "How it stands", body = Status)))]
pub(super) async fn status(State(app): State<Arc<App>>) -> Outcome<Status> {
    let feeds = app.store.feeds().await?;
    let reason = app.ingest.readiness().await.err();
    Ok(Json(Status {
        service: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        ready: reason.is_none(),
        reason: reason.map(|refusal| refusal.code()),
        sequence: app.store.sequence().await?,
        free_bytes: app.store.free_bytes().await?,
        accounts: app.store.accounts().await?,
        blocked: blocked_queues(&app.config),
        feeds: feeds.len(),
        paused_feeds: feeds.iter().filter(|row| row.paused.is_some()).count(),
        subscriptions: app.store.subscriptions().await?.len(),
    }))
}

/// Hours of which `GET /v1/activity` tells, beside the present one.
const ACTIVITY: Duration = Duration::from_secs(23 * 60 * 60);

/// What came in the last 24 hours, hour by hour
///
/// Counted from what is stored, so repeated messages are left out, and refused ones that
/// the quarantine does not keep.
#[utoipa::path(get, path = "/v1/activity", tag = "service",
    responses((status = OK, description = "Counts; hours with none are left out", body = Activity)))]
pub(super) async fn activity(State(app): State<Arc<App>>) -> Outcome<Activity> {
    let first = app.clock.now().before(ACTIVITY).hour();
    Ok(Json(app.store.activity(first).await?))
}

/// Where a backup goes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Backup {
    /// An absolute path on the server's machine.
    #[schema(value_type = String, min_length = 1)]
    path: PathBuf,
    /// Whether a file that is there is replaced.
    #[serde(default)]
    force: bool,
}

/// Where a backup is.
#[derive(Serialize, ToSchema)]
pub(super) struct BackedUp {
    /// The file.
    #[schema(value_type = String)]
    path: PathBuf,
}

/// Write a complete copy of the store to a file of the server's machine
#[utoipa::path(post, path = "/v1/backup", tag = "service", request_body = Backup,
    responses(
        (status = OK, description = "It is written", body = BackedUp),
        (status = CONFLICT, description = "`conflict`: a file is there already",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn backup(
    State(app): State<Arc<App>>,
    Input(Backup { path, force }): Input<Backup>,
) -> Outcome<BackedUp> {
    if !path.is_absolute() {
        return Err(AdminError::BadRequest(
            "`path` must be absolute: the server runs in a folder of its own".to_owned(),
        ));
    }
    if !force && path.symlink_metadata().is_ok() {
        return Err(AdminError::Conflict(
            "a file is there already; name another `path`, or add `\"force\": true`".into(),
        ));
    }
    app.store
        .backup(path.clone())
        .await
        .map_err(|error| match error {
            StoreError::BackupOntoItself { .. } => AdminError::BadRequest(error.to_string()),
            other => AdminError::Store(other),
        })?;
    Ok(Json(BackedUp { path }))
}

/// A question for the public address, and the answer that only this process gives to it
#[utoipa::path(post, path = "/v1/challenge", tag = "service", request_body = NoFields,
    responses(
        (status = OK, description = "Question and answer", body = Challenge),
        (status = CONFLICT, description = "`conflict`: the system gives no random numbers",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn challenge(
    State(app): State<Arc<App>>,
    Input(NoFields {}): Input<NoFields>,
) -> Outcome<Challenge> {
    let challenge = app.ingest.challenges().issue(app.clock.now());
    challenge
        .map(Json)
        .map_err(|_| AdminError::Conflict("the system gives no random numbers".into()))
}

/// What is counted, as text for Prometheus
///
/// In the OpenMetrics form where the request accepts that, else in Prometheus' own.
#[utoipa::path(get, path = "/metrics", tag = "service",
    responses((status = OK, description = "Metrics", content(
        (String = "application/openmetrics-text"), (String = "text/plain")))))]
pub(super) async fn metrics(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, AdminError> {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let format = TextFormat::negotiate(accept);
    let read = StoreSnapshot::read(app.store.as_ref(), app.clock.now());
    let snapshot = app.metrics.timed(StoreStep::Read, read).await?;
    let text = app.metrics.render(&snapshot, format);
    Ok(([(CONTENT_TYPE, format.content_type())], text).into_response())
}
