//! Subscriptions: lists, records, approves and restores them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::feeds::known_account;
use super::paging::{List, Page, PageQuery};
use super::problem::{AdminError, ApiResult, Input, NoFields, Params, RowId};
use crate::app::App;
use crate::domain::{Event, Timestamp};
use crate::store::{SubscriptionChange, SubscriptionRow};
use crate::subscriptions::ConfirmOutcome;

/// Lists subscriptions with their state
#[utoipa::path(get, path = "/v1/subscriptions", tag = "subscriptions", params(PageQuery),
    responses((status = OK, description = "Subscriptions", body = Page<SubscriptionRow>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(page): Params<PageQuery>,
) -> ApiResult<Page<SubscriptionRow>> {
    let (limit, after) = (page.limit()?, page.row(List::SUBSCRIPTIONS)?);
    let mut rows = app.store.subscriptions().await?;
    rows.retain(|row| row.id > after);
    Ok(Json(Page::of(List::SUBSCRIPTIONS, rows, limit, |row| {
        row.id
    })))
}

/// A subscription that was requested from Įvesk.lt.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestedSubscription {
    /// The webhook's account.
    #[schema(pattern = "^[a-z0-9_-]{1,40}$", examples("default"))]
    account: String,
    /// The webhook's event.
    event: Event,
    /// The name that was sent to Įvesk.lt.
    name: String,
}

/// The subscription's row.
#[derive(Serialize, ToSchema)]
pub(super) struct SubscriptionId {
    /// Its id.
    id: i64,
}

/// Records that a subscription was requested from Įvesk.lt
#[utoipa::path(post, path = "/v1/subscriptions/requested", tag = "subscriptions", request_body = RequestedSubscription,
    responses((status = OK, description = "It is recorded", body = SubscriptionId)))]
pub(super) async fn requested(
    State(app): State<Arc<App>>,
    Input(request): Input<RequestedSubscription>,
) -> ApiResult<SubscriptionId> {
    let account = known_account(&app, &request.account)?;
    let now = app.clock.now();
    let id = app
        .store
        .subscription_requested(account, request.event, request.name, now)
        .await?;
    Ok(Json(SubscriptionId { id }))
}

/// The result of visiting SubscribeURL.
#[derive(Serialize, ToSchema)]
pub(super) struct ConfirmResult {
    /// True if the subscription is confirmed.
    pub(super) confirmed: bool,
    /// The error if it is not.
    pub(super) error: Option<String>,
    /// The time of the next attempt; null if there is none.
    pub(super) next_try_at: Option<Timestamp>,
}

/// Approves a subscription, and confirms it
#[utoipa::path(post, path = "/v1/subscriptions/{id}/approve", tag = "subscriptions", request_body = NoFields,
    params(("id" = i64, Path, description = "The subscription's row")),
    responses(
        (status = OK, description = "The result", body = ConfirmResult),
        (status = CONFLICT, description = "`conflict`: it does not await approval",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn approve(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
    Input(NoFields {}): Input<NoFields>,
) -> ApiResult<ConfirmResult> {
    change(&app, id, SubscriptionChange::Approved)
        .await
        .map(Json)
}

/// Restores a subscription that has ended
#[utoipa::path(post, path = "/v1/subscriptions/{id}/restore", tag = "subscriptions", request_body = NoFields,
    params(("id" = i64, Path, description = "The subscription's row")),
    responses(
        (status = OK, description = "The result", body = ConfirmResult),
        (status = CONFLICT, description = "`conflict`: it has not ended",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn restore(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
    Input(NoFields {}): Input<NoFields>,
) -> ApiResult<ConfirmResult> {
    change(&app, id, SubscriptionChange::Restored)
        .await
        .map(Json)
}

/// Approves or restores a subscription, and returns the result of visiting SubscribeURL.
pub(super) async fn change(
    app: &App,
    id: i64,
    change: SubscriptionChange,
) -> Result<ConfirmResult, AdminError> {
    let conflict = match change {
        SubscriptionChange::Approved => {
            "the subscription does not await approval; `subscriptions list` shows the state of each"
        }
        _ => "the subscription has not ended; `subscriptions list` shows the state of each",
    };
    let rows = app.store.subscriptions().await?;
    if !rows.iter().any(|row| row.id == id) {
        return Err(AdminError::UnknownRow);
    }
    let outcome = app
        .confirmations
        .change(id, change)
        .await?
        .ok_or(AdminError::Conflict(conflict.into()))?;
    Ok(match outcome {
        ConfirmOutcome::Confirmed { .. } | ConfirmOutcome::Idle => ConfirmResult {
            confirmed: true,
            error: None,
            next_try_at: None,
        },
        ConfirmOutcome::Failed {
            error, next_try_at, ..
        } => ConfirmResult {
            confirmed: false,
            error: Some(error.to_string()),
            next_try_at,
        },
    })
}
