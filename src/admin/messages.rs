//! Refused messages in the quarantine, and stored notifications.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::paging::{List, Page, PageQuery};
use super::problem::{AdminError, ApiResult, Input, NoFields, Params, RowId};
use crate::app::App;
use crate::sns::{Envelope, SnsHeaders};
use crate::store::{Insertion, NotificationRow, QuarantineRow};

/// A row with the message's headers and body.
#[derive(Serialize, ToSchema)]
pub(super) struct WithBody<R> {
    #[serde(flatten)]
    row: R,
    /// The SNS headers as `name: value` lines; empty if they are not stored.
    headers: String,
    /// The body in base64, since a refused message need not be text; null once retention
    /// has removed it.
    body: Option<String>,
}

/// A refused message, and the topic that it claims.
#[derive(Serialize, ToSchema)]
pub(super) struct RefusedMessage {
    /// The message.
    #[serde(flatten)]
    row: QuarantineRow,
    /// The topic that it claims to be of; null if it is no SNS message.
    topic_arn: Option<String>,
}

impl From<QuarantineRow> for RefusedMessage {
    fn from(row: QuarantineRow) -> Self {
        Self {
            topic_arn: claimed_topic(&row.body),
            row,
        }
    }
}

/// Returns the topic that a message claims to be of, whether that is true or not.
pub(super) fn claimed_topic(body: &[u8]) -> Option<String> {
    let envelope = Envelope::parse(Bytes::copy_from_slice(body), &SnsHeaders::default()).ok()?;
    Some(envelope.topic_arn().to_owned())
}

/// Lists refused messages, oldest first
#[utoipa::path(get, path = "/v1/quarantine", tag = "messages", params(PageQuery),
    responses((status = OK, description = "Refused messages", body = Page<RefusedMessage>)))]
pub(super) async fn quarantine(
    State(app): State<Arc<App>>,
    Params(page): Params<PageQuery>,
) -> ApiResult<Page<RefusedMessage>> {
    let (limit, after) = (page.limit()?, page.row(List::QUARANTINE)?);
    let rows = app.store.quarantine(after, limit + 1).await?;
    let rows: Vec<RefusedMessage> = rows.into_iter().map(RefusedMessage::from).collect();
    Ok(Json(Page::of(List::QUARANTINE, rows, limit, |refused| {
        refused.row.id
    })))
}

/// Returns a refused message with its body
#[utoipa::path(get, path = "/v1/quarantine/{id}", tag = "messages",
    params(("id" = i64, Path, description = "The row")),
    responses((status = OK, description = "The message", body = WithBody<RefusedMessage>)))]
pub(super) async fn quarantined(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
) -> ApiResult<WithBody<RefusedMessage>> {
    let row = quarantine_row(&app, id).await?;
    Ok(Json(WithBody {
        headers: row.headers.clone(),
        body: Some(STANDARD.encode(&row.body)),
        row: row.into(),
    }))
}

async fn quarantine_row(app: &App, id: i64) -> Result<QuarantineRow, AdminError> {
    let rows = app.store.quarantine(id.saturating_sub(1), 1).await?;
    rows.into_iter()
        .find(|row| row.id == id)
        .ok_or(AdminError::UnknownRow)
}

/// The result of verifying a quarantined message again.
#[derive(Serialize, ToSchema)]
pub(super) struct RetryResult {
    /// True if it was accepted, and removed from the quarantine.
    pub(super) accepted: bool,
    /// True if it had been accepted before.
    duplicate: bool,
    /// The code of the refusal; null if it was accepted.
    code: Option<&'static str>,
    /// The refusal in words; null if it was accepted.
    reason: Option<String>,
}

/// Verifies a refused message again, as of its receipt
#[utoipa::path(post, path = "/v1/quarantine/{id}/retry", tag = "messages", request_body = NoFields,
    params(("id" = i64, Path, description = "The row")),
    responses((status = OK, description = "The result", body = RetryResult)))]
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
    Input(NoFields {}): Input<NoFields>,
) -> ApiResult<RetryResult> {
    retry_quarantined(&app, id).await.map(Json)
}

/// Verifies a row of the quarantine again.
pub(super) async fn retry_quarantined(app: &App, id: i64) -> Result<RetryResult, AdminError> {
    let row = quarantine_row(app, id).await?;
    Ok(match app.ingest.retry(row).await {
        Ok(insertion) => RetryResult {
            accepted: true,
            duplicate: insertion == Insertion::Duplicate,
            code: None,
            reason: None,
        },
        Err(refusal) => RetryResult {
            accepted: false,
            duplicate: false,
            code: Some(refusal.code()),
            reason: Some(refusal.to_string()),
        },
    })
}

/// Lists stored notifications, oldest first
#[utoipa::path(get, path = "/v1/notifications", tag = "messages", params(PageQuery),
    responses((status = OK, description = "Notifications", body = Page<NotificationRow>)))]
pub(super) async fn notifications(
    State(app): State<Arc<App>>,
    Params(page): Params<PageQuery>,
) -> ApiResult<Page<NotificationRow>> {
    let (limit, after) = (page.limit()?, page.row(List::NOTIFICATIONS)?);
    let rows = app.store.notifications(after, limit + 1).await?;
    Ok(Json(Page::of(List::NOTIFICATIONS, rows, limit, |row| {
        row.id
    })))
}

/// Returns a notification with its body
#[utoipa::path(get, path = "/v1/notifications/{id}", tag = "messages",
    params(("id" = i64, Path, description = "The row")),
    responses((status = OK, description = "The notification", body = WithBody<NotificationRow>)))]
pub(super) async fn notification(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
) -> ApiResult<WithBody<NotificationRow>> {
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
