//! Gaps: lists and dismisses them.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};

use super::identity::Identity;
use super::paging::{List, Page, PageQuery};
use super::problem::{AdminError, ApiResult, Input, NoFields, Params, RowId};
use crate::api::Changed;
use crate::api::feeds::{Gap, GapQuery};
use crate::app::App;
use crate::store::GapFilter;

/// Lists gaps: stretches of feeds in which document versions may be missing
#[utoipa::path(get, path = "/v1/feeds/gaps", tag = "feeds", params(GapQuery),
    responses((status = OK, description = "Gaps, oldest first", body = Page<Gap>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(query): Params<GapQuery>,
) -> ApiResult<Page<Gap>> {
    let page = PageQuery {
        after: query.after,
        limit: query.limit,
    };
    let limit = page.limit()?;
    let filter = GapFilter {
        closed: query.closed,
        after: page.row(List::GAPS)?,
        limit: limit + 1,
    };
    let rows = app.store.gaps(filter).await?;
    let page = Page::of(List::GAPS, rows, limit, |row| row.id);
    Ok(Json(page.map(Gap::from)))
}

/// Dismisses a gap that was compared with Įvesk.lt
///
/// By that a person vouches that its page was not cut. The feed is pulled again at once.
#[utoipa::path(post, path = "/v1/feeds/gaps/{id}/dismiss", tag = "feeds", request_body = NoFields,
    params(("id" = i64, Path, description = "The gap's row")),
    responses(
        (status = OK, description = "The gap is closed", body = Changed),
        (status = CONFLICT, description = "`conflict`: the gap does not exist or is closed",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn dismiss(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    RowId(id): RowId,
    Input(NoFields {}): Input<NoFields>,
) -> ApiResult<Changed> {
    let dismissed = app
        .store
        .dismiss_gap(id, identity.owner, app.clock.now())
        .await?;
    if dismissed {
        Ok(Json(Changed { changed: 1 }))
    } else {
        Err(AdminError::Conflict(
            "this gap can't be dismissed: it does not exist, or is closed already; `ivesk-webhook feeds gaps` lists the open ones"
                .into(),
        ))
    }
}
