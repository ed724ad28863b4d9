//! How the service stands, as a whole.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::subscriptions::NoFields;
use super::{AdminError, Input, Outcome};
use crate::metrics::{Form, StoreStep, Stored};
use crate::pull::{Blocked, blocked};
use crate::receiver::challenge::Challenge;
use crate::service::App;
use crate::store::{AccountRow, SequenceRow, StoreError};

/// The answer to `GET /v1/status`.
#[derive(Serialize)]
pub(super) struct Status {
    service: &'static str,
    version: &'static str,
    ready: bool,
    reason: Option<&'static str>,
    sequence: SequenceRow,
    free_bytes: Option<u64>,
    accounts: Vec<AccountRow>,
    blocked: Vec<Blocked>,
    feeds: usize,
    parked_feeds: usize,
    subscriptions: usize,
}

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
        blocked: blocked(&app.config),
        feeds: feeds.len(),
        parked_feeds: feeds.iter().filter(|row| row.parked.is_some()).count(),
        subscriptions: app.store.subscriptions().await?.len(),
    }))
}

/// Where a backup goes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Backup {
    path: PathBuf,
    #[serde(default)]
    force: bool,
}

#[derive(Serialize)]
pub(super) struct BackedUp {
    path: PathBuf,
}

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

/// A question for the public address, and the answer that only this process gives.
pub(super) async fn challenge(
    State(app): State<Arc<App>>,
    Input(NoFields {}): Input<NoFields>,
) -> Outcome<Challenge> {
    let challenge = app.ingest.challenges().issue(app.clock.now());
    challenge
        .map(Json)
        .map_err(|_| AdminError::Conflict("the system gives no random numbers".into()))
}

pub(super) async fn metrics(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, AdminError> {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let form = Form::accepted(accept);
    let read = Stored::read(app.store.as_ref(), app.clock.now());
    let stored = app.metrics.timed(StoreStep::Read, read).await?;
    let text = app.metrics.render(&stored, form);
    Ok(([(CONTENT_TYPE, form.content_type())], text).into_response())
}
