//! Uploads: lists them, and claims and ends those that another process sends.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::feeds::known_account;
use super::paging::{List, Page, PageQuery};
use super::problem::{AdminError, ApiResult, Input, Params, RowId};
use crate::app::App;
use crate::domain::Timestamp;
use crate::store::{NewUpload, Settling, UploadBegun, UploadEnd, UploadFilter, UploadRow};
use crate::visible::foreign;

/// Longest claim: a 2 GB file on a slow line.
const MAX_CLAIM_SECONDS: u64 = 48 * 60 * 60;

/// Longest reason for settling an upload.
const MAX_REASON_CHARS: usize = 500;

/// An upload and its progress.
#[derive(Serialize, ToSchema)]
pub(super) struct UploadStatus {
    /// Its state, or `returned` once a document of it was pulled, `settled` if a person expects
    /// none, or `late` if none was pulled for longer than `upload.late_after`.
    status: &'static str,
    #[serde(flatten)]
    row: UploadRow,
}

/// Lists uploads with their progress, oldest first
#[utoipa::path(get, path = "/v1/uploads", tag = "uploads", params(PageQuery),
    responses((status = OK, description = "Uploads", body = Page<UploadStatus>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(page): Params<PageQuery>,
) -> ApiResult<Page<UploadStatus>> {
    let limit = page.limit()?;
    let filter = UploadFilter {
        after: page.row(List::UPLOADS)?,
        missing_since: None,
        limit: limit + 1,
    };
    let late_before = app.config.upload.late_before(app.clock.now());
    let rows = app.store.uploads(filter).await?;
    let page = Page::of(List::UPLOADS, rows, limit, |row| row.id);
    Ok(Json(page.map(|row| UploadStatus {
        status: row.status(late_before),
        row,
    })))
}

/// A claim to send a file.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UploadClaim {
    /// The account whose API key sends it.
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
    /// The correlation that is sent with it and returned with its documents; unique.
    pub(crate) correlation: String,
    /// True to send content again that was sent before.
    pub(crate) force: bool,
    /// The process that sends it.
    pub(crate) owner: String,
    /// The claim's duration in seconds, during which no other process sends the file; two days
    /// at most.
    pub(crate) claim_seconds: u64,
}

/// The answer to a claim.
#[derive(Serialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(super) enum ClaimResult {
    /// Send the file, with this correlation; first to the location of an earlier attempt, if
    /// there is one.
    Send {
        id: i64,
        correlation: String,
        location: Option<String>,
    },
    /// This content was sent before.
    Already { id: i64 },
    /// Another process sends it: claim it again at this time.
    Busy { until: Timestamp },
}

/// Claims a file's content for sending
#[utoipa::path(post, path = "/v1/uploads", tag = "uploads", request_body = UploadClaim,
    responses((status = OK, description = "The answer", body = ClaimResult)))]
pub(super) async fn begin(
    State(app): State<Arc<App>>,
    Input(request): Input<UploadClaim>,
) -> ApiResult<ClaimResult> {
    let account = known_account(&app, &request.account)?;
    let hex = request.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    if request.sha256.len() != 64 || !hex {
        return Err(AdminError::BadRequest(
            "`sha256` must have 64 hexadecimal digits".to_owned(),
        ));
    }
    // The database stores signed numbers.
    if [request.size_bytes, request.claim_seconds]
        .into_iter()
        .any(|number| i64::try_from(number).is_err())
    {
        return Err(AdminError::BadRequest(
            "`size_bytes` or `claim_seconds` is too large".to_owned(),
        ));
    }
    let claim = request.claim_seconds.min(MAX_CLAIM_SECONDS);
    let begun = app
        .store
        .begin_upload(NewUpload {
            account,
            sha256: request.sha256.to_ascii_lowercase(),
            size_bytes: request.size_bytes,
            file_name: request.file_name,
            correlation: request.correlation,
            force: request.force,
            owner: request.owner,
            now: app.clock.now(),
            claim: Duration::from_secs(claim),
        })
        .await?;
    Ok(Json(match begun {
        UploadBegun::Send { row, location } => ClaimResult::Send {
            id: row.id,
            correlation: row.correlation,
            // Only for the right `operate`: it permits sending a file to this place.
            location: location.map(|location| location.expose_secret().to_owned()),
        },
        UploadBegun::Already(row) => ClaimResult::Already { id: row.id },
        UploadBegun::Busy { until } => ClaimResult::Busy { until },
    }))
}

/// The location of a file that is about to be sent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UploadPlace {
    /// The process that sends it.
    owner: String,
    /// Įvesk.lt's answer with the location; null to forget it.
    #[schema(value_type = Option<String>)]
    location: Option<SecretString>,
}

/// An empty answer.
#[derive(Serialize, ToSchema)]
pub(super) struct LocationKept {}

/// Keeps the location to which a file is about to be sent, or forgets it
///
/// A later attempt sends the file to the same location: if only the answer was lost, it is one
/// file to Įvesk.lt. The location is forgotten once the file is sent or refused, and after a day.
#[utoipa::path(post, path = "/v1/uploads/{id}/location", tag = "uploads", request_body = UploadPlace,
    params(("id" = i64, Path, description = "The upload's row")),
    responses((status = OK, description = "It is kept, unless another process has taken over the claim", body = LocationKept)))]
pub(super) async fn keep_location(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
    Input(place): Input<UploadPlace>,
) -> ApiResult<LocationKept> {
    app.store
        .keep_upload_location(id, place.owner, place.location)
        .await?;
    Ok(Json(LocationKept {}))
}

/// Why no document of an upload is expected.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SettleReason {
    /// The reason, in a person's words.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// An empty answer.
#[derive(Serialize, ToSchema)]
pub(super) struct UploadSettled {}

/// Settles an upload: no document of it is expected any longer
///
/// For a file that Įvesk.lt rejected after it was sent: no invoice, a duplicate, or unreadable. It
/// is not late any longer. If a document of it arrives all the same, it is shown as returned.
#[utoipa::path(post, path = "/v1/uploads/{id}/settle", tag = "uploads", request_body = SettleReason,
    params(("id" = i64, Path, description = "The upload's row")),
    responses(
        (status = OK, description = "It is settled", body = UploadSettled),
        (status = CONFLICT, description = "`conflict`: it was not sent, has a document, or is settled",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn settle(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
    Input(request): Input<SettleReason>,
) -> ApiResult<UploadSettled> {
    settle_upload(&app, id, &request.reason).await?;
    Ok(Json(UploadSettled {}))
}

/// Settles an upload.
///
/// # Errors
///
/// If the reason is empty or too long, or the upload is not waiting for a document.
pub(super) async fn settle_upload(app: &App, id: i64, reason: &str) -> Result<(), AdminError> {
    let reason = reason.trim();
    if !(1..=MAX_REASON_CHARS).contains(&reason.chars().count()) {
        return Err(AdminError::BadRequest(format!(
            "`reason` must have 1 to {MAX_REASON_CHARS} characters"
        )));
    }
    let now = app.clock.now();
    match app.store.settle_upload(id, foreign(reason), now).await? {
        Settling::Settled => Ok(()),
        Settling::Unknown => Err(AdminError::UnknownRow),
        Settling::NotWaiting(row) => Err(AdminError::Conflict(
            format!(
                "upload {id} is `{}`; only one that was sent and has no document can be settled",
                row.status(app.config.upload.late_before(now))
            )
            .into(),
        )),
    }
}

/// The result of an attempt to send a file.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UploadResult {
    /// The process that sent it.
    pub(crate) owner: String,
    /// The error; absent if the file was sent.
    pub(crate) error: Option<String>,
    /// True if Įvesk.lt refused the file.
    pub(crate) refused: bool,
}

/// The effect of recording a result.
#[derive(Serialize, ToSchema)]
pub(super) struct ResultRecorded {
    /// False if another process has taken over the claim, or there is no such row.
    changed: bool,
}

/// Records the result of an attempt to send a file
#[utoipa::path(post, path = "/v1/uploads/{id}/end", tag = "uploads", request_body = UploadResult,
    params(("id" = i64, Path, description = "The upload's row")),
    responses((status = OK, description = "The effect", body = ResultRecorded)))]
pub(super) async fn end(
    State(app): State<Arc<App>>,
    RowId(id): RowId,
    Input(result): Input<UploadResult>,
) -> ApiResult<ResultRecorded> {
    let error = result.error.map(|error| foreign(&error));
    let end = match (error, result.refused) {
        (None, _) => UploadEnd::Sent,
        (Some(error), true) => UploadEnd::Refused(error),
        (Some(error), false) => UploadEnd::Failed(error),
    };
    let now = app.clock.now();
    let changed = app.store.end_upload(id, result.owner, end, now).await?;
    Ok(Json(ResultRecorded { changed }))
}
