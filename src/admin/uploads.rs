//! Uploads: how they stand, and the rows of those that another process sends.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::feeds::known_account;
use super::paging::{List, Page, PageOf};
use super::{AdminError, Input, Outcome, Params, RowId};
use crate::domain::Timestamp;
use crate::service::App;
use crate::store::{NewUpload, UploadBegun, UploadEnd, UploadFilter, UploadRow};

/// The longest claim: a 2 GB file on a slow line.
const LONGEST_CLAIM_SECONDS: u64 = 48 * 60 * 60;

/// An upload with the one word for where it stands.
#[derive(Serialize, ToSchema)]
pub(super) struct ShownUpload {
    /// Its state, `returned` once a document of it has come, or `late` where none has for long.
    standing: &'static str,
    #[serde(flatten)]
    row: UploadRow,
}

/// Uploads and where each stands, oldest first
#[utoipa::path(get, path = "/v1/uploads", tag = "uploads", params(PageOf),
    responses((status = OK, description = "Uploads", body = Page<ShownUpload>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(page): Params<PageOf>,
) -> Outcome<Page<ShownUpload>> {
    let limit = page.limit()?;
    let filter = UploadFilter {
        after: page.row(List::UPLOADS)?,
        missing_since: None,
        limit: limit + 1,
    };
    let now = app.clock.now();
    let rows = app.store.uploads(filter).await?;
    let page = Page::of(List::UPLOADS, rows, limit, |row| row.id);
    Ok(Json(page.map(|row| ShownUpload {
        standing: row.status(now),
        row,
    })))
}

/// A file that another process is about to send.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Beginning {
    /// Whose key sends it.
    #[schema(pattern = "^[a-z0-9_-]{1,40}$", examples("default"))]
    pub(crate) account: String,
    /// SHA-256 of its content, 64 hexadecimal digits.
    #[schema(pattern = "^[0-9a-fA-F]{64}$")]
    pub(crate) sha256: String,
    /// Its length in bytes.
    #[schema(maximum = 9_223_372_036_854_775_807_i64)]
    pub(crate) size_bytes: u64,
    /// Its name, without folders.
    pub(crate) file_name: String,
    /// What goes with it and comes back with its documents; unique.
    pub(crate) correlation: String,
    /// Whether content that was sent before is sent again.
    pub(crate) force: bool,
    /// Which process sends it.
    pub(crate) owner: String,
    /// For how many seconds other processes leave the file to this one; two days at most.
    pub(crate) claim_seconds: u64,
}

/// Whether it is to be sent.
#[derive(Serialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(super) enum Begun {
    /// Send it, with this correlation.
    Send { id: i64, correlation: String },
    /// This content was sent before.
    Already { id: i64 },
    /// Another process sends it: ask again then.
    Busy { until: Timestamp },
}

/// Claim a file's content for sending
#[utoipa::path(post, path = "/v1/uploads", tag = "uploads", request_body = Beginning,
    responses((status = OK, description = "Whether it is to be sent", body = Begun)))]
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
    // The database and most programs count in signed numbers.
    if [beginning.size_bytes, beginning.claim_seconds]
        .into_iter()
        .any(|number| i64::try_from(number).is_err())
    {
        return Err(AdminError::BadRequest(
            "`size_bytes` or `claim_seconds` is larger than any file or wait".to_owned(),
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
#[derive(Deserialize, Serialize, ToSchema)]
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
#[derive(Serialize, ToSchema)]
pub(super) struct Ended {
    /// False where another process has taken the file over, or there is no such row.
    changed: bool,
}

/// Note how an attempt to send a file ended
#[utoipa::path(post, path = "/v1/uploads/{id}/end", tag = "uploads", request_body = Ending,
    params(("id" = i64, Path, description = "The upload's row")),
    responses((status = OK, description = "It is noted", body = Ended)))]
pub(super) async fn end(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
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
