//! The list that a program asks for, and what it says became of a version.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::destinations::{DestinationChanged, configured, known_destination};
use super::paging::PageOf;
use super::problem::RowId;
use super::{AdminError, Input, Outcome, Params};
use crate::config::DestinationKind;
use crate::delivery::worker::rejection;
use crate::domain::{DestinationName, Feed, Timestamp};
use crate::service::App;
use crate::store::{DeliveryState, DocumentFilter, LateOutcome, ListEntry};

/// The most bytes of documents in one answer of the list that a program asks for.
const MAX_LIST_BYTES: usize = 8 << 20;

/// The most characters of a rejection's message.
const MAX_MESSAGE_CHARS: usize = 4_000;

/// Which part of the list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhichDocuments {
    /// The destination, of kind `list`; may be left out where there is one of them.
    destination: Option<String>,
    /// `next` of the answer before; the beginning without it.
    #[param(max_length = 100)]
    after: Option<String>,
    /// Documents in the answer at the most.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<usize>,
}

/// Documents for the program that asks, and where to go on.
#[derive(Serialize, ToSchema)]
pub(super) struct Documents {
    /// In the order in which they are to be taken.
    documents: Vec<ListedDocument>,
    /// What to send as `after` next time: `<epoch>:<number>`. Keep it in the transaction
    /// that keeps the documents.
    next: String,
    /// Whether there was more than fitted this answer.
    more: bool,
}

/// One version of one document.
#[derive(Serialize, ToSchema)]
struct ListedDocument {
    /// Its place in this list.
    number: i64,
    /// The same for the same version of the same document, whatever is restored, repeated
    /// or renumbered: book each key once.
    key: String,
    /// What became of it.
    state: DeliveryState,
    /// Where it came from.
    #[serde(flatten)]
    feed: Feed,
    /// The vendor's id.
    document_id: String,
    /// The vendor's version text.
    version: String,
    /// The number by which its outcome is told.
    sequence: i64,
    /// When it was stored.
    stored_at: Timestamp,
    /// The vendor's JSON, byte for byte.
    #[schema(value_type = Object)]
    document: Option<Box<RawValue>>,
}

impl From<ListEntry> for ListedDocument {
    fn from(
        ListEntry {
            number,
            state,
            delivery,
        }: ListEntry,
    ) -> Self {
        Self {
            number,
            key: delivery.key(),
            state,
            document_id: delivery.document_id,
            version: delivery.version,
            sequence: delivery.sequence,
            stored_at: delivery.stored_at,
            document: serde_json::from_slice(&delivery.body).ok(),
            feed: delivery.feed,
        }
    }
}

/// Documents for a program that asks
///
/// They come in a list that grows at its end alone: a feed that is started later, and a
/// version that is tried again, come there, so `next` never has to go back.
#[utoipa::path(get, path = "/v1/documents", tag = "delivery", params(WhichDocuments),
    responses(
        (status = OK, description = "What came after `after`", body = Documents),
        (status = CONFLICT, description = "`conflict`: `after` is of another epoch: a backup was restored since. \
            Begin without `after`; keys tell what was booked",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn documents(
    State(app): State<Arc<App>>,
    Params(which): Params<WhichDocuments>,
) -> Outcome<Documents> {
    let destination = list_of(&app, which.destination.as_deref())?;
    let limit = PageOf {
        after: None,
        limit: which.limit,
    };
    let limit = limit.limit()?;
    let epoch = app.store.sequence().await?.epoch;
    let after = match which.after.as_deref() {
        None => 0,
        Some(place) => place_of(place, &epoch)?,
    };
    let offered = app
        .store
        .listed(destination, after, limit + 1, MAX_LIST_BYTES)
        .await?;
    let bytes: usize = offered.iter().map(|one| one.delivery.body.len()).sum();
    // The bytes may have ended it before the rows did.
    let more = offered.len() > limit || bytes >= MAX_LIST_BYTES;
    let documents: Vec<ListedDocument> = offered
        .into_iter()
        .take(limit)
        .map(ListedDocument::from)
        .collect();
    let last = documents.last().map_or(after, |document| document.number);
    Ok(Json(Documents {
        more,
        next: format!("{epoch}:{last}"),
        documents,
    }))
}

/// The place in the list that `<epoch>:<number>` stands for.
fn place_of(text: &str, epoch: &str) -> Result<i64, AdminError> {
    let (of, number) = text.split_once(':').unwrap_or((text, ""));
    let number = number.parse().ok().filter(|number: &i64| *number >= 0);
    match number {
        Some(_) if of != epoch => Err(AdminError::Conflict(
            "`after` is of another epoch: a backup was restored since it was given. Begin without it; \
             `key` tells which documents were booked already"
                .into(),
        )),
        Some(number) => Ok(number),
        None => Err(AdminError::BadRequest(
            "`after` is no `next` of this list; begin without it".to_owned(),
        )),
    }
}

/// The destination whose list is asked for.
fn list_of(app: &App, name: Option<&str>) -> Result<DestinationName, AdminError> {
    let mut lists = app
        .config
        .destinations
        .iter()
        .filter(|(_, destination)| matches!(destination.kind, DestinationKind::List))
        .map(|(name, _)| name);
    let missing = || {
        AdminError::BadRequest(
            "the settings name no destination of kind `list` that this could mean: add \
             `[destinations.NAME]` with `kind = \"list\"`, or name it with `destination`"
                .to_owned(),
        )
    };
    match name {
        Some(name) => {
            let name = known_destination(name)?;
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

/// What became of a version, as the program that took it says.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SaidOutcome {
    /// The destination; may be left out where there is one of kind `list`.
    destination: Option<String>,
    /// What became of it.
    outcome: SaidWord,
    /// Why it is rejected: for the accountant, so in words and without a stack trace.
    #[schema(max_length = 4000)]
    message: Option<String>,
}

/// The two things that may become of a version.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SaidWord {
    Delivered,
    Rejected,
}

/// Say what became of a version
///
/// For a destination of any kind that was given it: a receiver may take a document first and
/// reject it later. A rejection becomes an import error.
#[utoipa::path(post, path = "/v1/documents/{id}/outcome", tag = "delivery", request_body = SaidOutcome,
    params(("id" = i64, Path, description = "`sequence` of the version")),
    responses(
        (status = OK, description = "It is noted; saying it twice changes nothing", body = DestinationChanged),
        (status = CONFLICT, description = "`conflict`: the destination was not given this version",
            body = inline(super::problem::ProblemBody), content_type = "application/problem+json"),
    ))]
pub(super) async fn outcome(
    State(app): State<Arc<App>>,
    RowId(sequence): RowId,
    Input(said): Input<SaidOutcome>,
) -> Outcome<DestinationChanged> {
    let destination = match said.destination.as_deref() {
        Some(name) => configured(&app, name)?.0,
        None => list_of(&app, None)?,
    };
    let message = said.message.unwrap_or_default();
    if message.chars().count() > MAX_MESSAGE_CHARS {
        return Err(AdminError::BadRequest(format!(
            "`message` is longer than {MAX_MESSAGE_CHARS} characters"
        )));
    }
    let verdict = match said.outcome {
        SaidWord::Delivered => LateOutcome::Delivered,
        SaidWord::Rejected if message.trim().is_empty() => {
            return Err(AdminError::BadRequest(
                "a rejection needs a `message`: the accountant is to know why".to_owned(),
            ));
        }
        SaidWord::Rejected => {
            let item = given(&app, sequence).await?;
            let (message, report) =
                rejection(&app.config.import_errors, &item.0, &item.1, &message);
            LateOutcome::Rejected {
                message,
                import_error: report,
            }
        }
    };
    let noted = app
        .store
        .record_outcome(destination, sequence, verdict, app.clock.now())
        .await?;
    if noted {
        Ok(Json(DestinationChanged { changed: 1 }))
    } else {
        Err(AdminError::Conflict(
            "the destination was not given this version; `GET /v1/deliveries` tells what it was given"
                .into(),
        ))
    }
}

/// The feed and the JSON of a version.
async fn given(app: &App, sequence: i64) -> Result<(Feed, Vec<u8>), AdminError> {
    let filter = DocumentFilter {
        after: Some(sequence.saturating_sub(1)),
        limit: 1,
        ..DocumentFilter::default()
    };
    let rows = app.store.documents(filter).await?;
    let row = rows.into_iter().find(|row| row.sequence == sequence);
    let row = row.ok_or(AdminError::UnknownRow)?;
    Ok((row.feed, row.body.unwrap_or_default()))
}
