//! Alarms that are on, and past ones.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::paging::{List, Page, PageQuery};
use super::problem::{ApiResult, Params};
use crate::api::alarms::{Alarm, AlarmQuery};
use crate::app::App;
use crate::store::{AlarmFilter, AlarmRow, StoreError};

/// Lists alarms, oldest first
#[utoipa::path(get, path = "/v1/alarms", tag = "alarms", params(AlarmQuery),
    responses((status = OK, description = "Alarms", body = Page<Alarm>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(query): Params<AlarmQuery>,
) -> ApiResult<Page<Alarm>> {
    let page = PageQuery {
        after: query.after,
        limit: query.limit,
    };
    let limit = page.limit()?;
    let filter = AlarmFilter {
        active: query.active,
        after: page.row(List::ALARMS)?,
        limit: limit + 1,
    };
    let is_first = filter.after == 0;
    let rows = app.store.alarms(filter).await?;
    let mut page = Page::of(List::ALARMS, rows, limit, |row| row.id);
    if is_first {
        // Beyond the limit, since no cursor can lead to them.
        page.rows.splice(0..0, store_alarms(&app));
    }
    Ok(Json(page.map(Alarm::from)))
}

/// Lists at most `limit` active alarms, and first those that the store can't keep.
pub(super) async fn active_alarms(app: &App, limit: usize) -> Result<Vec<AlarmRow>, StoreError> {
    let stored = app.store.alarms(AlarmFilter {
        active: true,
        after: 0,
        limit,
    });
    let mut rows = stored.await?;
    rows.splice(0..0, store_alarms(app));
    Ok(rows)
}

/// Returns the alarms about the store itself.
pub(super) fn store_alarms(app: &App) -> Vec<AlarmRow> {
    app.health.store_faults().alarms()
}
