//! Messages that came: refused ones in the quarantine, and stored ones.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::ToSchema;

use super::paging::{List, Page, PageOf};
use super::problem::{AdminError, Input, NoFields, Outcome, Params, RowId};
use crate::app::App;
use crate::store::{Insertion, NotificationRow, QuarantineRow};

/// A row with what came.
#[derive(Serialize, ToSchema)]
pub(super) struct WithBody<R> {
    #[serde(flatten)]
    row: R,
    /// The SNS headers, `name: value` lines; empty where they are not kept.
    headers: String,
    /// The body in base64, since a refused one need not be text; null once retention
    /// removed it.
    body: Option<String>,
}

/// Refused messages, oldest first
#[utoipa::path(get, path = "/v1/quarantine", tag = "messages", params(PageOf),
    responses((status = OK, description = "Refused messages", body = Page<QuarantineRow>)))]
pub(super) async fn quarantine(
    State(app): State<Arc<App>>,
    Params(page): Params<PageOf>,
) -> Outcome<Page<QuarantineRow>> {
    let (limit, after) = (page.limit()?, page.row(List::QUARANTINE)?);
    let rows = app.store.quarantine(after, limit + 1).await?;
    Ok(Json(Page::of(List::QUARANTINE, rows, limit, |row| row.id)))
}

/// A refused message with its body
#[utoipa::path(get, path = "/v1/quarantine/{id}", tag = "messages",
    params(("id" = i64, Path, description = "The row")),
    responses((status = OK, description = "The message", body = WithBody<QuarantineRow>)))]
pub(super) async fn quarantined(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
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

/// What came of judging a quarantined message anew.
#[derive(Serialize, ToSchema)]
pub(super) struct Retried {
    /// Whether it is accepted now, and has left the quarantine.
    pub(super) accepted: bool,
    /// Whether it had been accepted before.
    duplicate: bool,
    /// The code of the refusal, where it is refused again.
    code: Option<&'static str>,
    /// The refusal in words.
    reason: Option<String>,
}

/// Judge a refused message anew, as of the time it came
#[utoipa::path(post, path = "/v1/quarantine/{id}/retry", tag = "messages", request_body = NoFields,
    params(("id" = i64, Path, description = "The row")),
    responses((status = OK, description = "What came of it", body = Retried)))]
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
    Input(NoFields {}): Input<NoFields>,
) -> Outcome<Retried> {
    judge_anew(&app, id).await.map(Json)
}

/// Judges a row of the quarantine anew.
pub(super) async fn judge_anew(app: &App, id: i64) -> Result<Retried, AdminError> {
    let row = quarantine_row(app, id).await?;
    Ok(match app.ingest.retry(row).await {
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
    })
}

/// Stored notifications, oldest first
#[utoipa::path(get, path = "/v1/notifications", tag = "messages", params(PageOf),
    responses((status = OK, description = "Notifications", body = Page<NotificationRow>)))]
pub(super) async fn notifications(
    State(app): State<Arc<App>>,
    Params(page): Params<PageOf>,
) -> Outcome<Page<NotificationRow>> {
    let (limit, after) = (page.limit()?, page.row(List::NOTIFICATIONS)?);
    let rows = app.store.notifications(after, limit + 1).await?;
    Ok(Json(Page::of(List::NOTIFICATIONS, rows, limit, |row| {
        row.id
    })))
}

/// A notification with its body
#[utoipa::path(get, path = "/v1/notifications/{id}", tag = "messages",
    params(("id" = i64, Path, description = "The row")),
    responses((status = OK, description = "The notification", body = WithBody<NotificationRow>)))]
pub(super) async fn notification(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
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
