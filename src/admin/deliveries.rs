//! Deliveries that came: refused ones in the quarantine, and stored ones.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::subscriptions::NoFields;
use super::{AdminError, Input, Outcome};
use crate::service::App;
use crate::store::{Insertion, NotificationRow, QuarantineRow};

/// Rows in one answer, unless the request asks for fewer.
const MAX_ROWS: usize = 500;

/// Which rows: those after `after`, at most `limit`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageOf {
    #[serde(default)]
    after: i64,
    #[serde(default = "max_rows")]
    limit: usize,
}

fn max_rows() -> usize {
    MAX_ROWS
}

/// A row with what came.
#[derive(Serialize)]
pub(super) struct WithBody<R> {
    #[serde(flatten)]
    row: R,
    headers: String,
    /// Base64: a refused body need not be text.
    body: Option<String>,
}

pub(super) async fn quarantine(
    State(app): State<Arc<App>>,
    Query(page): Query<PageOf>,
) -> Outcome<Vec<QuarantineRow>> {
    let limit = page.limit.min(MAX_ROWS);
    Ok(Json(app.store.quarantine(page.after, limit).await?))
}

pub(super) async fn quarantined(
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
) -> Outcome<WithBody<QuarantineRow>> {
    let row = quarantine_row(&app, id).await?;
    Ok(Json(WithBody {
        headers: row.headers.clone(),
        body: Some(STANDARD.encode(&row.body)),
        row,
    }))
}

async fn quarantine_row(app: &App, id: i64) -> Result<QuarantineRow, AdminError> {
    let rows = app.store.quarantine(id.saturating_sub(1), 1).await?;
    rows.into_iter()
        .find(|row| row.id == id)
        .ok_or(AdminError::UnknownRow)
}

/// What came of judging a quarantined delivery anew.
#[derive(Serialize)]
pub(super) struct Retried {
    accepted: bool,
    duplicate: bool,
    code: Option<&'static str>,
    reason: Option<String>,
}

pub(super) async fn retry(
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
    Input(NoFields {}): Input<NoFields>,
) -> Outcome<Retried> {
    let row = quarantine_row(&app, id).await?;
    Ok(Json(match app.ingest.retry(row).await {
        Ok(insertion) => Retried {
            accepted: true,
            duplicate: insertion == Insertion::Duplicate,
            code: None,
            reason: None,
        },
        Err(refusal) => Retried {
            accepted: false,
            duplicate: false,
            code: Some(refusal.code()),
            reason: Some(refusal.to_string()),
        },
    }))
}

pub(super) async fn notifications(
    State(app): State<Arc<App>>,
    Query(page): Query<PageOf>,
) -> Outcome<Vec<NotificationRow>> {
    let limit = page.limit.min(MAX_ROWS);
    Ok(Json(app.store.notifications(page.after, limit).await?))
}

pub(super) async fn notification(
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
) -> Outcome<WithBody<NotificationRow>> {
    let rows = app.store.notifications(id.saturating_sub(1), 1).await?;
    let row = rows
        .into_iter()
        .find(|row| row.id == id)
        .ok_or(AdminError::UnknownRow)?;
    Ok(Json(WithBody {
        headers: String::new(),
        body: row.body.as_ref().map(|body| STANDARD.encode(body)),
        row,
    }))
}
