//! SNS's signing certificates that have verified a message.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::paging::{List, Page, PageOf};
use super::problem::{Outcome, Params};
use crate::app::App;
use crate::domain::Timestamp;
use crate::sns::CertificateSummary;
use crate::sns::certificate::Certificate;
use crate::store::CertificateRow;

/// A certificate as people see it.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct ShownCertificate {
    /// Its `SigningCertURL`.
    pub(super) url: String,
    /// When it was fetched.
    pub(super) fetched_at: Timestamp,
    /// Its subject and dates; null where it can't be read any more.
    pub(super) certificate: Option<CertificateSummary>,
}

impl From<CertificateRow> for ShownCertificate {
    fn from(row: CertificateRow) -> Self {
        let certificate = Certificate::parse(&row.pem, None).ok();
        Self {
            url: row.url,
            fetched_at: row.fetched_at,
            certificate: certificate.map(|certificate| certificate.summary().clone()),
        }
    }
}

/// Signing certificates that have verified a message, and how long they are valid
#[utoipa::path(get, path = "/v1/certificates", tag = "subscriptions", params(PageOf),
    responses((status = OK, description = "Certificates by their URL", body = Page<ShownCertificate>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(page): Params<PageOf>,
) -> Outcome<Page<ShownCertificate>> {
    let limit = page.limit()?;
    let place = page.place(List::CERTIFICATES)?;
    // The store keeps a few at the most.
    let mut rows = app.store.certificates().await?;
    rows.sort_by(|one, other| one.url.cmp(&other.url));
    rows.retain(|row| place.as_ref().is_none_or(|place| row.url > *place));
    let page = Page::of(List::CERTIFICATES, rows, limit, |row| row.url.clone());
    Ok(Json(page.map(ShownCertificate::from)))
}
