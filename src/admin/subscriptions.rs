//! Subscriptions: how they stand, approving and restoring them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::feeds::known_account;
use super::paging::{List, Page, PageOf};
use super::problem::{AdminError, Input, NoFields, Outcome, Params, RowId};
use crate::app::App;
use crate::domain::{Event, Timestamp};
use crate::store::{SubscriptionChange, SubscriptionRow};
use crate::subscriptions::Outcome as Visit;

/// Every subscription and how it stands
#[utoipa::path(get, path = "/v1/subscriptions", tag = "subscriptions", params(PageOf),
    responses((status = OK, description = "Subscriptions", body = Page<SubscriptionRow>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(page): Params<PageOf>,
) -> Outcome<Page<SubscriptionRow>> {
    let (limit, after) = (page.limit()?, page.row(List::SUBSCRIPTIONS)?);
    let mut rows = app.store.subscriptions().await?;
    rows.retain(|row| row.id > after);
    Ok(Json(Page::of(List::SUBSCRIPTIONS, rows, limit, |row| {
        row.id
    })))
}

/// A subscription that the vendor was asked for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Requested {
    /// Whose webhook.
    #[schema(pattern = "^[a-z0-9_-]{1,40}$", examples("default"))]
    account: String,
    /// Which event's webhook.
    event: Event,
    /// The name that the vendor was given.
    name: String,
}

/// The subscription's row.
#[derive(Serialize, ToSchema)]
pub(super) struct SubscriptionId {
    /// Its number.
    id: i64,
}

/// Note that the vendor was asked for a subscription by hand
#[utoipa::path(post, path = "/v1/subscriptions/requested", tag = "subscriptions", request_body = Requested,
    responses((status = OK, description = "It is noted", body = SubscriptionId)))]
pub(super) async fn requested(
    State(app): State<Arc<App>>,
    Input(request): Input<Requested>,
) -> Outcome<SubscriptionId> {
    let account = known_account(&app, &request.account)?;
    let now = app.clock.now();
    let id = app
        .store
        .subscription_requested(account, request.event, request.name, now)
        .await?;
    Ok(Json(SubscriptionId { id }))
}

/// What came of visiting SubscribeURL.
#[derive(Serialize, ToSchema)]
pub(super) struct Visited {
    /// Whether the subscription is confirmed.
    pub(super) confirmed: bool,
    /// Why not.
    pub(super) error: Option<String>,
    /// When it is tried again; null where it is not.
    pub(super) next_try_at: Option<Timestamp>,
}

/// Confirm a subscription that awaits approval
#[utoipa::path(post, path = "/v1/subscriptions/{id}/approve", tag = "subscriptions", request_body = NoFields,
    params(("id" = i64, Path, description = "The subscription's row")),
    responses(
        (status = OK, description = "What came of it", body = Visited),
        (status = CONFLICT, description = "`conflict`: it does not await approval",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn approve(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
    Input(NoFields {}): Input<NoFields>,
) -> Outcome<Visited> {
    change(&app, id, SubscriptionChange::Approved)
        .await
        .map(Json)
}

/// Bring back a subscription that has ended
#[utoipa::path(post, path = "/v1/subscriptions/{id}/restore", tag = "subscriptions", request_body = NoFields,
    params(("id" = i64, Path, description = "The subscription's row")),
    responses(
        (status = OK, description = "What came of it", body = Visited),
        (status = CONFLICT, description = "`conflict`: it has not ended",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn restore(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
    Input(NoFields {}): Input<NoFields>,
) -> Outcome<Visited> {
    change(&app, id, SubscriptionChange::Restored)
        .await
        .map(Json)
}

/// Approves or restores a subscription, and tells what came of the visit that follows.
pub(super) async fn change(
    app: &App,
    id: i64,
    change: SubscriptionChange,
) -> Result<Visited, AdminError> {
    let why_not = match change {
        SubscriptionChange::Approved => {
            "it does not await approval; `subscriptions list` shows how each one stands"
        }
        _ => "it has not ended; `subscriptions list` shows how each one stands",
    };
    let rows = app.store.subscriptions().await?;
    if !rows.iter().any(|row| row.id == id) {
        return Err(AdminError::UnknownRow);
    }
    let visit = app
        .confirmations
        .change(id, change)
        .await?
        .ok_or(AdminError::Conflict(why_not.into()))?;
    Ok(match visit {
        Visit::Confirmed { .. } | Visit::Idle => Visited {
            confirmed: true,
            error: None,
            next_try_at: None,
        },
        Visit::Failed {
            error, next_try_at, ..
        } => Visited {
            confirmed: false,
            error: Some(error.to_string()),
            next_try_at,
        },
    })
}
