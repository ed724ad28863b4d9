//! Alarms: those that are on, and those that were.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;

use super::Outcome;
use crate::service::App;
use crate::store::{AlarmFilter, AlarmRow};

/// Rows in one answer.
const PAGE: usize = 500;

/// Which alarms.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    #[serde(default)]
    active: bool,
    #[serde(default)]
    after: i64,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Query(which): Query<Which>,
) -> Outcome<Vec<AlarmRow>> {
    let filter = AlarmFilter {
        active: which.active,
        after: which.after,
        limit: which.limit.unwrap_or(PAGE).min(PAGE),
    };
    Ok(Json(app.store.alarms(filter).await?))
}
