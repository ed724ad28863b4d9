//! Uploads: how they stand, and the rows of those that another process sends.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};

use super::feeds::known_account;
use super::{AdminError, Input, Outcome};
use crate::domain::Timestamp;
use crate::service::App;
use crate::store::{NewUpload, UploadBegun, UploadEnd, UploadFilter, UploadRow};

/// Rows in one answer.
const PAGE: usize = 500;

/// The longest claim: a 2 GB file on a slow line.
const LONGEST_CLAIM_SECONDS: u64 = 48 * 60 * 60;

/// Which uploads.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    #[serde(default)]
    after: i64,
    limit: Option<usize>,
}

/// An upload with the one word for where it stands.
#[derive(Serialize)]
pub(super) struct Shown {
    standing: &'static str,
    #[serde(flatten)]
    row: UploadRow,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Query(which): Query<Which>,
) -> Outcome<Vec<Shown>> {
    let filter = UploadFilter {
        after: which.after,
        missing_since: None,
        limit: which.limit.unwrap_or(PAGE).min(PAGE),
    };
    let now = app.clock.now();
    let rows = app.store.uploads(filter).await?;
    let shown = rows.into_iter().map(|row| Shown {
        standing: row.standing(now),
        row,
    });
    Ok(Json(shown.collect()))
}

/// A file that another process is about to send.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Beginning {
    /// Whose key sends it.
    pub(crate) account: String,
    /// As in [`NewUpload`].
    pub(crate) sha256: String,
    /// As in [`NewUpload`].
    pub(crate) size_bytes: u64,
    /// As in [`NewUpload`].
    pub(crate) file_name: String,
    /// As in [`NewUpload`].
    pub(crate) correlation: String,
    /// As in [`NewUpload`].
    pub(crate) force: bool,
    /// As in [`NewUpload`].
    pub(crate) owner: String,
    /// [`NewUpload::claim`] in whole seconds.
    pub(crate) claim_seconds: u64,
}

/// Whether it is to be sent.
#[derive(Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(super) enum Begun {
    Send { id: i64, correlation: String },
    Already { id: i64 },
    Busy { until: Timestamp },
}

pub(super) async fn begin(
    State(app): State<Arc<App>>,
    Input(beginning): Input<Beginning>,
) -> Outcome<Begun> {
    let account = known_account(&app, &beginning.account)?;
    let hex = beginning
        .sha256
        .bytes()
        .all(|byte| byte.is_ascii_hexdigit());
    if beginning.sha256.len() != 64 || !hex {
        return Err(AdminError::BadRequest(
            "`sha256` is not 64 hexadecimal digits".to_owned(),
        ));
    }
    let claim = beginning.claim_seconds.min(LONGEST_CLAIM_SECONDS);
    let begun = app
        .store
        .begin_upload(NewUpload {
            account,
            sha256: beginning.sha256.to_ascii_lowercase(),
            size_bytes: beginning.size_bytes,
            file_name: beginning.file_name,
            correlation: beginning.correlation,
            force: beginning.force,
            owner: beginning.owner,
            now: app.clock.now(),
            claim: Duration::from_secs(claim),
        })
        .await?;
    Ok(Json(match begun {
        UploadBegun::Send(row) => Begun::Send {
            id: row.id,
            correlation: row.correlation,
        },
        UploadBegun::Already(row) => Begun::Already { id: row.id },
        UploadBegun::Busy { until } => Begun::Busy { until },
    }))
}

/// How an attempt ended: `error` is why, and `refused` that the vendor does not want it.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ending {
    /// Who tried.
    pub(crate) owner: String,
    /// Why it did not get there; none where it did.
    pub(crate) error: Option<String>,
    /// Whether the vendor does not want it.
    pub(crate) refused: bool,
}

/// Whether the row was the sender's own to change.
#[derive(Serialize)]
pub(super) struct Ended {
    changed: bool,
}

pub(super) async fn end(
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
    Input(ending): Input<Ending>,
) -> Outcome<Ended> {
    let end = match (ending.error, ending.refused) {
        (None, _) => UploadEnd::Sent,
        (Some(error), true) => UploadEnd::Refused(error),
        (Some(error), false) => UploadEnd::Failed(error),
    };
    let now = app.clock.now();
    let changed = app.store.end_upload(id, ending.owner, end, now).await?;
    Ok(Json(Ended { changed }))
}
