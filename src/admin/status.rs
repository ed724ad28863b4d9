//! The service as a whole: health, status, activity, metrics, backup.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use super::alarms::store_alarms;
use super::problem::{AdminError, ApiResult, Input, NoFields};
use crate::alarms;
use crate::api::status::{
    AccountStatus, Activity, BackedUp, BackupRequest, BlockedQueue, NeedsPerson, Status,
    SubscriptionProblem,
};
use crate::app::App;
use crate::metrics::{StoreSnapshot, StoreStep, TextFormat};
use crate::pull::blocked_queues;
use crate::receiver::challenge::Challenge;
use crate::receiver::problem::Problem;
use crate::store::{AlarmKind, BackupFile, StoreError};
use crate::subscriptions::problems;

/// Returns 200 while the process runs
#[utoipa::path(get, path = "/healthz", tag = "service",
    responses((status = OK, description = "The process runs", body = String, content_type = "text/plain")))]
pub(super) async fn alive() -> &'static str {
    "alive\n"
}

/// Returns 200 if a message would be accepted now
#[utoipa::path(get, path = "/readyz", tag = "service",
    responses(
        (status = OK, description = "A message would be accepted", body = String, content_type = "text/plain"),
        (status = SERVICE_UNAVAILABLE, description = "A message would be refused, for this reason",
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

/// Returns what needs a person: faults of the store, then whatever an alarm is about or soon will
/// be, and what is so common at the beginning that it is no alarm.
pub(super) async fn needs_person(
    app: &App,
    problems: &[problems::Problem<'_>],
) -> Result<Vec<NeedsPerson>, StoreError> {
    let item = |kind: &str, subject, text| NeedsPerson {
        kind: kind.to_owned(),
        subject,
        text,
    };
    let mut items: Vec<NeedsPerson> = store_alarms(app)
        .into_iter()
        .map(|alarm| item(alarm.kind.as_str(), alarm.subject, alarm.text))
        .collect();
    let of_problem = |problem: &problems::Problem<'_>| {
        let (account, event) = problem.webhook();
        let text = format!("{problem}. Fix: {}", problem.fix());
        item("subscription", format!("{account}/{event}"), text)
    };
    let needs_deciding =
        |problem: &&problems::Problem<'_>| !matches!(problem, problems::Problem::Missing { .. });
    items.extend(problems.iter().filter(needs_deciding).map(of_problem));
    let blocked = blocked_queues(&app.config);
    items.extend(blocked.iter().map(|row| {
        let subject = format!("{}/{}", row.account, row.queue);
        item(AlarmKind::Blocked.as_str(), subject, row.cause_and_fix())
    }));
    // On this machine SNS can't reach it, and nobody expects it to.
    let is_missing = |problem: &&problems::Problem<'_>| {
        matches!(problem, problems::Problem::Missing { local: false, .. })
    };
    items.extend(problems.iter().filter(is_missing).map(of_problem));
    let now = app.clock.now();
    let found = alarms::current(&app.config, app.store.as_ref(), &app.metrics, now).await?;
    let is_shown = |kind| {
        matches!(
            kind,
            AlarmKind::Blocked
                | AlarmKind::Unsubscribed
                | AlarmKind::Unconfirmed
                | AlarmKind::SwappedTargets
        )
    };
    let found = found
        .into_iter()
        .filter(|finding| !is_shown(finding.kind))
        .map(|finding| item(finding.kind.as_str(), finding.subject, finding.text));
    items.extend(found);
    Ok(items)
}

/// Returns the state of the service
#[utoipa::path(get, path = "/v1/status", tag = "service",
    responses((status = OK, description = "The state", body = Status)))]
pub(super) async fn status(State(app): State<Arc<App>>) -> ApiResult<Status> {
    let feeds = app.store.feed_counts().await?;
    let subscriptions = app.store.subscriptions().await?;
    let now = app.clock.now();
    let problems = problems::all(&app.config, &subscriptions, now);
    let reason = app.ingest.readiness().await.err();
    let faults = app.health.store_faults();
    let accounts = app.store.accounts().await?;
    let blocked = blocked_queues(&app.config);
    Ok(Json(Status {
        service: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        public_url: Some(app.config.public.url.to_string()),
        settings_digest: Some(app.config.file_digest.clone()),
        ready: reason.is_none(),
        reason: reason.map(|refusal| refusal.code().to_owned()),
        store_fault: faults.unavailable.map(|fault| fault.text),
        damage: faults.damaged.map(|fault| fault.text),
        sequence: app.store.sequence().await?.into(),
        free_bytes: app.store.free_bytes().await?,
        accounts: accounts.into_iter().map(AccountStatus::from).collect(),
        blocked: blocked.into_iter().map(BlockedQueue::from).collect(),
        feeds: feeds.known,
        removed_feeds: feeds.removed,
        paused_feeds: feeds.paused,
        incomplete_feeds: feeds.incomplete,
        subscriptions: subscriptions.len(),
        subscription_problems: problems.iter().map(SubscriptionProblem::from).collect(),
        unexpected_requests: app.metrics.unexpected_requests(now),
        needs_person: needs_person(&app, &problems).await?,
    }))
}

/// The time that `GET /v1/activity` covers, beside the current hour.
const ACTIVITY_PERIOD: Duration = Duration::from_secs(23 * 60 * 60);

/// Returns the activity of the last 24 hours, hour by hour
///
/// Counts stored rows, so duplicates are left out, and refused messages that the quarantine
/// does not keep.
#[utoipa::path(get, path = "/v1/activity", tag = "service",
    responses((status = OK, description = "Counts; hours without any are left out", body = Activity)))]
pub(super) async fn activity(State(app): State<Arc<App>>) -> ApiResult<Activity> {
    let first = app.clock.now().before(ACTIVITY_PERIOD).hour();
    Ok(Json(app.store.activity(first).await?.into()))
}

/// Writes a backup of the store to the folder `store.backup_dir` on the server's machine
///
/// Existing files are never replaced.
#[utoipa::path(post, path = "/v1/backup", tag = "service", request_body = BackupRequest,
    responses(
        (status = OK, description = "The backup is written", body = BackedUp),
        (status = CONFLICT, description = "`conflict`: the file exists, or another backup is being written",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn backup(
    State(app): State<Arc<App>>,
    Input(BackupRequest { name }): Input<BackupRequest>,
) -> ApiResult<BackedUp> {
    let answer = |error: StoreError| match error {
        StoreError::BackupName { .. } | StoreError::BackupOntoItself { .. } => {
            AdminError::BadRequest(error.to_string())
        }
        StoreError::BackupExists { .. } | StoreError::BackupRunning { .. } => {
            AdminError::Conflict(error.to_string().into())
        }
        other => AdminError::Store(other),
    };
    let file = BackupFile::named(&app.config.store.backup_dir, &name, false).map_err(answer)?;
    app.store.backup(file.clone()).await.map_err(answer)?;
    Ok(Json(BackedUp { path: file.path() }))
}

/// Issues a challenge for the public address, which only this process can answer
#[utoipa::path(post, path = "/v1/challenge", tag = "service", request_body = NoFields,
    responses(
        (status = OK, description = "Question and answer", body = Challenge),
        (status = CONFLICT, description = "`conflict`: the system provides no random numbers",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn challenge(
    State(app): State<Arc<App>>,
    Input(NoFields {}): Input<NoFields>,
) -> ApiResult<Challenge> {
    let challenge = app.ingest.challenges().issue(app.clock.now());
    challenge
        .map(Json)
        .map_err(|_| AdminError::Conflict("the system provides no random numbers".into()))
}

/// Returns metrics as text for Prometheus
///
/// In the OpenMetrics format if the request accepts it, else in Prometheus' own.
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
    let mut snapshot = app.metrics.timed(StoreStep::Read, read).await?;
    snapshot.alarms.extend(store_alarms(&app));
    let text = app.metrics.render(&snapshot, format);
    Ok(([(CONTENT_TYPE, format.content_type())], text).into_response())
}
