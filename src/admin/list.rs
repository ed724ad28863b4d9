//! The document list that a program reads, and the outcomes that it reports.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};

use super::destinations::{configured_destination, parse_destination};
use super::identity::Identity;
use super::paging::PageQuery;
use super::problem::{AdminError, ApiResult, Input, Params, RowId};
use super::rules::Needs;
use crate::api::Changed;
use crate::api::documents::{Documents, ListQuery, ListedDocument, OutcomeReport, ReportedOutcome};
use crate::app::App;
use crate::config::DestinationKind;
use crate::delivery::worker::rejection;
use crate::domain::{DestinationName, Feed};
use crate::store::{DocumentFilter, LateOutcome, Rights};

/// Most bytes of documents in one response.
const MAX_LIST_BYTES: usize = 8 << 20;

/// Longest message of a rejection, in characters.
const MAX_MESSAGE_CHARS: usize = 4_000;

/// Lists documents for a program
///
/// The list only grows at its end, where also feeds started later and versions that are
/// retried are appended, so `next` never has to go back.
#[utoipa::path(get, path = "/v1/documents", tag = "delivery", params(ListQuery),
    responses(
        (status = OK, description = "Documents after `after`", body = Documents),
        (status = CONFLICT, description = "`conflict`: `after` is no place of this list: an older state of the \
            database, such as a backup, was put back since. Start without `after`; `key` shows which documents were \
            processed already",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn documents(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Params(query): Params<ListQuery>,
) -> ApiResult<Documents> {
    let destination = list_of(&app, permitted(&identity, query.destination.as_deref())?)?;
    let page = PageQuery {
        after: None,
        limit: query.limit,
    };
    let limit = page.limit()?;
    let epoch = app.store.sequence().await?.epoch;
    let after = match query.after.as_deref() {
        None => 0,
        Some(text) => proven_place(&app, &destination, &epoch, text).await?,
    };
    let listed = app
        .store
        .listed(destination.clone(), after, limit + 1, MAX_LIST_BYTES)
        .await?;
    let bytes: usize = listed.iter().map(|row| row.delivery.body.len()).sum();
    // The limit of bytes may have been reached before the limit of rows.
    let more = listed.len() > limit || bytes >= MAX_LIST_BYTES;
    let documents: Vec<ListedDocument> = listed
        .into_iter()
        .take(limit)
        .map(ListedDocument::from)
        .collect();
    let last = documents.last().map_or(after, |document| document.number);
    let check = app.store.list_check(destination, last).await?;
    let check = check.ok_or_else(|| AdminError::Conflict(OTHER_HISTORY.into()))?;
    Ok(Json(Documents {
        more,
        next: format!("{epoch}:{last}:{check}"),
        documents,
    }))
}

/// What to do about a place that this list does not have.
const OTHER_HISTORY: &str = "`after` is no place of this list: an older state of the database, such as a backup or \
    a snapshot, was put back since. Start without `after`; `key` shows which documents were processed already";

/// Parses a place in the list, `<epoch>:<number>:<check>`, and checks that it is one.
async fn proven_place(
    app: &App,
    destination: &DestinationName,
    epoch: &str,
    text: &str,
) -> Result<i64, AdminError> {
    let mut parts = text.splitn(3, ':');
    let (own_epoch, number, check) = (parts.next(), parts.next(), parts.next());
    let number = number.and_then(|number| number.parse().ok());
    let number = number.filter(|number: &i64| *number >= 0);
    let (Some(own_epoch), Some(number), Some(check)) = (own_epoch, number, check) else {
        return Err(AdminError::BadRequest(
            "`after` is not a `next` of this list; start without it".to_owned(),
        ));
    };
    let found = app.store.list_check(destination.clone(), number).await?;
    if own_epoch == epoch && found.as_deref() == Some(check) {
        Ok(number)
    } else {
        Err(AdminError::Conflict(OTHER_HISTORY.into()))
    }
}

/// Returns the destination that a request names, or that its token is for; `None` if neither
/// names one.
///
/// # Errors
///
/// If the token is for another destination.
fn permitted<'r>(
    identity: &'r Identity,
    named: Option<&'r str>,
) -> Result<Option<&'r str>, AdminError> {
    match (&identity.rights, named) {
        (Rights::Destination(own), Some(named)) if own.as_str() != named => {
            Err(AdminError::MissingRight {
                needs: Needs::List.as_str(),
                has: identity.rights.to_string(),
            })
        }
        (Rights::Destination(own), _) => Ok(Some(own.as_str())),
        (_, named) => Ok(named),
    }
}

/// Returns the destination whose list is requested.
fn list_of(app: &App, name: Option<&str>) -> Result<DestinationName, AdminError> {
    let mut lists = app
        .config
        .destinations
        .iter()
        .filter(|(_, destination)| matches!(destination.kind, DestinationKind::List))
        .map(|(name, _)| name);
    let missing = || {
        AdminError::BadRequest(
            "no such destination of the kind `list`, or several: add `[destinations.NAME]` with \
             `kind = \"list\"` to the settings, or name one with `destination`"
                .to_owned(),
        )
    };
    match name {
        Some(name) => {
            let name = parse_destination(name)?;
            lists
                .find(|list| **list == name)
                .cloned()
                .ok_or_else(missing)
        }
        None => match (lists.next(), lists.next()) {
            (Some(only), None) => Ok(only.clone()),
            _ => Err(missing()),
        },
    }
}

/// Reports the outcome of a version
///
/// Possible for every kind of destination that the version was delivered to: a receiver may
/// accept a document first and reject it later. A rejection becomes an import error.
#[utoipa::path(post, path = "/v1/documents/{id}/outcome", tag = "delivery", request_body = OutcomeReport,
    params(("id" = i64, Path, description = "`sequence` of the version")),
    responses(
        (status = OK, description = "The outcome is recorded; reporting it twice changes nothing", body = Changed),
        (status = CONFLICT, description = "`conflict`: the version was not delivered to this destination",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn outcome(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    RowId(sequence): RowId,
    Input(report): Input<OutcomeReport>,
) -> ApiResult<Changed> {
    let destination = match permitted(&identity, report.destination.as_deref())? {
        Some(name) => configured_destination(&app, name)?.0,
        None => list_of(&app, None)?,
    };
    let message = report.message.unwrap_or_default();
    if message.chars().count() > MAX_MESSAGE_CHARS {
        return Err(AdminError::BadRequest(format!(
            "`message` is longer than {MAX_MESSAGE_CHARS} characters"
        )));
    }
    let outcome = match report.outcome {
        ReportedOutcome::Delivered => LateOutcome::Delivered,
        ReportedOutcome::Rejected if message.trim().is_empty() => {
            return Err(AdminError::BadRequest(
                "a rejection needs a `message`, which the accountant will read".to_owned(),
            ));
        }
        ReportedOutcome::Rejected => {
            let (feed, body) = version(&app, sequence).await?;
            let (message, import_error) =
                rejection(&app.config.import_errors, &feed, &body, &message);
            LateOutcome::Rejected {
                message,
                import_error,
            }
        }
    };
    let recorded = app
        .store
        .record_outcome(destination, sequence, outcome, app.clock.now())
        .await?;
    if recorded {
        Ok(Json(Changed { changed: 1 }))
    } else {
        Err(AdminError::Conflict(
            "this version was not delivered to the destination; `GET /v1/deliveries` lists its deliveries"
                .into(),
        ))
    }
}

/// Returns the feed and the JSON of a version.
async fn version(app: &App, sequence: i64) -> Result<(Feed, Vec<u8>), AdminError> {
    let filter = DocumentFilter {
        after: Some(sequence.saturating_sub(1)),
        limit: 1,
        ..DocumentFilter::default()
    };
    let rows = app.store.documents(filter).await?;
    let row = rows.into_iter().find(|row| row.sequence == sequence);
    let row = row
        .ok_or_else(|| AdminError::no_row("version", sequence, "`ivesk-webhook documents list`"))?;
    Ok((row.feed, row.body.unwrap_or_default()))
}
