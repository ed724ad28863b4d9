//! Refused messages in the quarantine, and stored notifications.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::paging::{List, Page, PageQuery};
use super::problem::{AdminError, ApiResult, Input, NoFields, Params, RowId};
use crate::api::messages::{Notification, QuarantinedMessage, RetryResult, WithBody};
use crate::app::App;
use crate::store::Insertion;

/// Lists refused messages, oldest first
#[utoipa::path(get, path = "/v1/quarantine", tag = "messages", params(PageQuery),
    responses((status = OK, description = "Refused messages", body = Page<QuarantinedMessage>)))]
pub(super) async fn quarantine(
    State(app): State<Arc<App>>,
    Params(page): Params<PageQuery>,
) -> ApiResult<Page<QuarantinedMessage>> {
    let (limit, after) = (page.limit()?, page.row(List::QUARANTINE)?);
    let rows = app.store.quarantine(after, limit + 1).await?;
    let page = Page::of(List::QUARANTINE, rows, limit, |row| row.id);
    Ok(Json(page.map(QuarantinedMessage::from)))
}

/// Returns a refused message with its body
#[utoipa::path(get, path = "/v1/quarantine/{id}", tag = "messages",
    params(("id" = i64, Path, description = "The row")),
    responses((status = OK, description = "The message", body = WithBody<QuarantinedMessage>)))]
pub(super) async fn quarantined(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
) -> ApiResult<WithBody<QuarantinedMessage>> {
    let message = app.store.quarantined(id).await?;
    let message = message.ok_or_else(|| {
        AdminError::no_row("refused message", id, "`ivesk-webhook quarantine list`")
    })?;
    Ok(Json(message.into()))
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
    let message = app.store.quarantined(id).await?;
    let message = message.ok_or_else(|| {
        AdminError::no_row("refused message", id, "`ivesk-webhook quarantine list`")
    })?;
    Ok(match app.ingest.retry(message).await {
        Ok(insertion) => RetryResult {
            accepted: true,
            duplicate: insertion == Insertion::Duplicate,
            code: None,
            reason: None,
        },
        Err(refusal) => RetryResult {
            accepted: false,
            duplicate: false,
            code: Some(refusal.code().to_owned()),
            reason: Some(refusal.to_string()),
        },
    })
}

/// Lists stored notifications, oldest first
#[utoipa::path(get, path = "/v1/notifications", tag = "messages", params(PageQuery),
    responses((status = OK, description = "Notifications", body = Page<Notification>)))]
pub(super) async fn notifications(
    State(app): State<Arc<App>>,
    Params(page): Params<PageQuery>,
) -> ApiResult<Page<Notification>> {
    let (limit, after) = (page.limit()?, page.row(List::NOTIFICATIONS)?);
    let rows = app.store.notifications(after, limit + 1).await?;
    let page = Page::of(List::NOTIFICATIONS, rows, limit, |row| row.id);
    Ok(Json(page.map(Notification::from)))
}

/// Returns a notification with its body
#[utoipa::path(get, path = "/v1/notifications/{id}", tag = "messages",
    params(("id" = i64, Path, description = "The row")),
    responses((status = OK, description = "The notification", body = WithBody<Notification>)))]
pub(super) async fn notification(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
) -> ApiResult<WithBody<Notification>> {
    let notification = app.store.notification(id).await?;
    let notification = notification.ok_or_else(|| {
        AdminError::no_row("notification", id, "`ivesk-webhook notifications list`")
    })?;
    Ok(Json(notification.into()))
}
