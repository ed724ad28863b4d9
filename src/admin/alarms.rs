//! Alarms: those that are on, and those that were.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::paging::{List, Page, PageOf};
use super::problem::{Outcome, Params};
use crate::app::App;
use crate::store::{AlarmFilter, AlarmRow};

/// Which alarms.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only those that are on.
    #[serde(default)]
    active: bool,
    /// `next` of the page before; the first page without it.
    #[param(max_length = 400)]
    after: Option<String>,
    /// Rows in the answer at the most.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<usize>,
}

/// Alarms, oldest first
#[utoipa::path(get, path = "/v1/alarms", tag = "alarms", params(Which),
    responses((status = OK, description = "Alarms in ascending order", body = Page<AlarmRow>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(which): Params<Which>,
) -> Outcome<Page<AlarmRow>> {
    let page = PageOf {
        after: which.after,
        limit: which.limit,
    };
    let limit = page.limit()?;
    let filter = AlarmFilter {
        active: which.active,
        after: page.row(List::ALARMS)?,
        limit: limit + 1,
    };
    let rows = app.store.alarms(filter).await?;
    Ok(Json(Page::of(List::ALARMS, rows, limit, |row| row.id)))
}
