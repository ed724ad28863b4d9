//! Signing certificates that have verified a message.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::paging::{List, Page, PageQuery};
use super::problem::{ApiResult, Params};
use crate::api::subscriptions::ShownCertificate;
use crate::app::App;

/// Lists signing certificates that have verified a message, with their dates
///
/// Those of `sns.local_origins` are not kept.
#[utoipa::path(get, path = "/v1/certificates", tag = "subscriptions", params(PageQuery),
    responses((status = OK, description = "Certificates by URL", body = Page<ShownCertificate>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(page): Params<PageQuery>,
) -> ApiResult<Page<ShownCertificate>> {
    let limit = page.limit()?;
    let place = page.place(List::CERTIFICATES)?;
    // There are never more than a few.
    let mut rows = app.store.certificates().await?;
    rows.sort_by(|left, right| left.url.cmp(&right.url));
    rows.retain(|row| place.as_ref().is_none_or(|place| row.url > *place));
    let page = Page::of(List::CERTIFICATES, rows, limit, |row| row.url.clone());
    Ok(Json(page.map(ShownCertificate::from)))
}
