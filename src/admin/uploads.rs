//! Uploads: lists them, and claims and ends those that another process sends.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;

use super::feeds::known_account;
use super::paging::{List, Page, PageQuery};
use super::problem::{AdminError, ApiResult, Input, Params, RowId};
use crate::api::uploads::{
    ClaimResult, LocationKept, ResultRecorded, SettleReason, Upload, UploadClaim, UploadPlace,
    UploadResult, UploadSettled,
};
use crate::app::App;
use crate::store::{NewUpload, Settling, UploadEnd, UploadFilter};
use crate::visible::foreign;

/// Longest claim: a 2 GB file on a slow line.
const MAX_CLAIM_SECONDS: u64 = 48 * 60 * 60;

/// Longest reason for settling an upload.
const MAX_REASON_CHARS: usize = 500;

/// Lists uploads with their progress, oldest first
#[utoipa::path(get, path = "/v1/uploads", tag = "uploads", params(PageQuery),
    responses((status = OK, description = "Uploads", body = Page<Upload>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(page): Params<PageQuery>,
) -> ApiResult<Page<Upload>> {
    let limit = page.limit()?;
    let filter = UploadFilter {
        after: page.row(List::UPLOADS)?,
        missing_since: None,
        limit: limit + 1,
    };
    let late_before = app.config.upload.late_before(app.clock.now());
    let rows = app.store.uploads(filter).await?;
    let page = Page::of(List::UPLOADS, rows, limit, |row| row.id);
    Ok(Json(page.map(|row| Upload::of(row, late_before))))
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
    Ok(Json(begun.into()))
}

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
        Settling::Unknown => Err(AdminError::no_row(
            "upload",
            id,
            "`ivesk-webhook uploads list`",
        )),
        Settling::NotWaiting(row) => Err(AdminError::Conflict(
            format!(
                "upload {id} is `{}`; only one that was sent and has no document can be settled",
                row.status(app.config.upload.late_before(now))
            )
            .into(),
        )),
    }
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
