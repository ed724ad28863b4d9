//! Subscriptions: how they stand, approving and restoring them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};

use super::feeds::known_account;
use super::{AdminError, Input, Outcome};
use crate::domain::{Event, Timestamp};
use crate::service::App;
use crate::store::{SubscriptionChange, SubscriptionRow};
use crate::subscriptions::Outcome as Visit;

pub(super) async fn list(State(app): State<Arc<App>>) -> Outcome<Vec<SubscriptionRow>> {
    Ok(Json(app.store.subscriptions().await?))
}

/// A subscription that the vendor was asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Requested {
    account: String,
    event: Event,
    name: String,
}

#[derive(Serialize)]
pub(super) struct Row {
    id: i64,
}

pub(super) async fn requested(
    State(app): State<Arc<App>>,
    Input(request): Input<Requested>,
) -> Outcome<Row> {
    let account = known_account(&app, &request.account)?;
    let now = app.clock.now();
    let id = app
        .store
        .subscription_requested(account, request.event, request.name, now)
        .await?;
    Ok(Json(Row { id }))
}

/// What came of visiting SubscribeURL.
#[derive(Serialize)]
pub(super) struct Visited {
    confirmed: bool,
    error: Option<String>,
    next_try_at: Option<Timestamp>,
}

pub(super) async fn approve(
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
    Input(NoFields {}): Input<NoFields>,
) -> Outcome<Visited> {
    let why_not = "it does not await approval; `subscriptions list` shows how each one stands";
    change(&app, id, SubscriptionChange::Approved, why_not).await
}

pub(super) async fn restore(
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
    Input(NoFields {}): Input<NoFields>,
) -> Outcome<Visited> {
    let why_not = "it has not ended; `subscriptions list` shows how each one stands";
    change(&app, id, SubscriptionChange::Restored, why_not).await
}

/// An empty JSON object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoFields {}

async fn change(
    app: &App,
    id: i64,
    change: SubscriptionChange,
    why_not: &'static str,
) -> Outcome<Visited> {
    let rows = app.store.subscriptions().await?;
    if !rows.iter().any(|row| row.id == id) {
        return Err(AdminError::UnknownRow);
    }
    let visit = app
        .confirmations
        .change(id, change)
        .await?
        .ok_or(AdminError::Conflict(why_not.into()))?;
    Ok(Json(match visit {
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
    }))
}
