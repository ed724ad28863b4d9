//! Import errors: lists and retries them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::destinations::DestinationChanged;
use super::paging::{List, Page, PageQuery};
use super::problem::{AdminError, ApiResult, Input, NoFields, Params, RowId};
use crate::app::App;
use crate::store::{ImportErrorFilter, ImportErrorRow, ImportErrorState};

/// The import errors that are requested.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ImportErrorQuery {
    /// Only in this state.
    #[param(inline)]
    state: Option<ImportErrorState>,
    /// `next` of the previous page; absent for the first page.
    #[param(max_length = 400)]
    after: Option<String>,
    /// Most rows on the page.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<usize>,
}

/// Lists import errors, oldest first
#[utoipa::path(get, path = "/v1/import-errors", tag = "delivery", params(ImportErrorQuery),
    responses((status = OK, description = "Import errors", body = Page<ImportErrorRow>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(query): Params<ImportErrorQuery>,
) -> ApiResult<Page<ImportErrorRow>> {
    let page = PageQuery {
        after: query.after,
        limit: query.limit,
    };
    let limit = page.limit()?;
    let filter = ImportErrorFilter {
        after: page.row(List::IMPORT_ERRORS)?,
        sequence: None,
        state: query.state,
        limit: limit + 1,
    };
    let rows = app.store.import_errors(filter).await?;
    Ok(Json(Page::of(List::IMPORT_ERRORS, rows, limit, |row| {
        row.id
    })))
}

/// Sends a pending or refused import error now
#[utoipa::path(post, path = "/v1/import-errors/{id}/retry", tag = "delivery", request_body = NoFields,
    params(("id" = i64, Path, description = "The import error's row")),
    responses(
        (status = OK, description = "The import error is due", body = DestinationChanged),
        (status = CONFLICT, description = "`conflict`: the import error can't be sent",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
    Input(NoFields {}): Input<NoFields>,
) -> ApiResult<DestinationChanged> {
    if app.store.retry_import_error(id, app.clock.now()).await? {
        Ok(Json(DestinationChanged { changed: 1 }))
    } else {
        Err(AdminError::Conflict(
            "this import error can't be sent: it does not exist, was sent already, or has no company"
                .into(),
        ))
    }
}
