//! Import errors on their way to the vendor's accountant.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::destinations::DestinationChanged;
use super::paging::{List, Page, PageOf};
use super::problem::{AdminError, Input, NoFields, Outcome, Params, RowId};
use crate::app::App;
use crate::store::{ImportErrorFilter, ImportErrorRow, ImportErrorState};

/// Which import errors.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ImportErrorQuery {
    /// Only in this state.
    #[param(inline)]
    state: Option<ImportErrorState>,
    /// `next` of the page before; the first page without it.
    #[param(max_length = 400)]
    after: Option<String>,
    /// Rows in the answer at the most.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<usize>,
}

/// Import errors on their way to the accountant
#[utoipa::path(get, path = "/v1/import-errors", tag = "delivery", params(ImportErrorQuery),
    responses((status = OK, description = "Reports, oldest first", body = Page<ImportErrorRow>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(which): Params<ImportErrorQuery>,
) -> Outcome<Page<ImportErrorRow>> {
    let page = PageOf {
        after: which.after,
        limit: which.limit,
    };
    let limit = page.limit()?;
    let filter = ImportErrorFilter {
        after: page.row(List::IMPORT_ERRORS)?,
        sequence: None,
        state: which.state,
        limit: limit + 1,
    };
    let rows = app.store.import_errors(filter).await?;
    Ok(Json(Page::of(List::IMPORT_ERRORS, rows, limit, |row| {
        row.id
    })))
}

/// Report an import error now that was refused or waits
#[utoipa::path(post, path = "/v1/import-errors/{id}/retry", tag = "delivery", request_body = NoFields,
    params(("id" = i64, Path, description = "The report's row")),
    responses(
        (status = OK, description = "It is due", body = DestinationChanged),
        (status = CONFLICT, description = "`conflict`: there is none that could be sent",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
    Input(NoFields {}): Input<NoFields>,
) -> Outcome<DestinationChanged> {
    if app.store.retry_import_error(id, app.clock.now()).await? {
        Ok(Json(DestinationChanged { changed: 1 }))
    } else {
        Err(AdminError::Conflict(
            "there is no such report that could be sent: it was sent already, or names no company"
                .into(),
        ))
    }
}
