//! Stored documents: found, erased, and listed for a program.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::from_rows;
use crate::domain::{DestinationName, Feed, Queue, Timestamp};
use crate::erasure;
use crate::export::cells::{Decimal, Encoding};
use crate::export::columns::Per;
use crate::export::table::{Format, Separator};
use crate::ivesk::view::View;
use crate::store::{DeliveryState, DocumentRow, ListEntry, TriggerKind};

/// One stored version of a document.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Document {
    /// The sequence number: gap-free, in the order of commits.
    pub sequence: i64,
    /// The feed that listed it.
    #[serde(flatten)]
    pub feed: Feed,
    /// Įvesk.lt's id.
    pub document_id: String,
    /// Its version: the moment in UTC, without a zone; Įvesk.lt's text if it is no moment.
    pub version: String,
    /// True if a newer version of the document is stored.
    pub superseded: bool,
    /// True if its feed's first pull found it.
    pub first_pull: bool,
    /// The kind of trigger whose pull found it.
    pub found_by: TriggerKind,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// When a person erased it: its id and its contents are gone since then.
    pub erased_at: Option<Timestamp>,
}

from_rows! {
    Document of DocumentRow {
        sequence, feed, document_id, version, superseded, first_pull, found_by, stored_at, erased_at,
    }
}

/// A version of a document, with the fields by which people know it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FoundDocument {
    /// The version.
    #[serde(flatten)]
    pub row: Document,
    /// Fields of the document; empty once retention has removed its body.
    pub view: View,
}

impl From<DocumentRow> for FoundDocument {
    fn from(row: DocumentRow) -> Self {
        Self {
            view: row.body.as_deref().map(View::read).unwrap_or_default(),
            row: row.into(),
        }
    }
}

/// One page of found documents.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FoundDocuments {
    /// The rows.
    pub rows: Vec<FoundDocument>,
    /// The value of `after` for the next page, which may be empty; null on the last page.
    pub next: Option<String>,
    /// True if more words begin with a word of `q` than were looked at: more of its letters find
    /// more.
    pub incomplete: bool,
}

/// The documents to erase: those of a company, or one document.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EraseRequest {
    /// Only those of this account.
    pub account: Option<String>,
    /// The company's code: all its documents.
    #[schema(max_length = 64)]
    pub company: Option<String>,
    /// A document's id at Įvesk.lt: all its versions.
    #[schema(min_length = 1)]
    pub document: Option<String>,
    /// `next` of the previous response; absent to begin.
    #[schema(minimum = 0)]
    pub after: Option<i64>,
}

/// What was erased.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Erased {
    /// Versions whose contents were removed from the store.
    pub versions: u64,
    /// Unreadable entries that were removed.
    pub unreadable_entries: u64,
    /// Digitized versions that name other companies of yours too: they were kept, and can be
    /// erased as single documents.
    pub shared: u64,
    /// Files that were removed from folders of destinations.
    pub files: u64,
    /// Files that could not be removed now.
    pub files_left: Vec<FilesLeft>,
    /// There is more to do: send it as `after`; null if everything is erased.
    pub next: Option<i64>,
}

/// Files of erased documents that could not be removed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FilesLeft {
    /// The destination that is a folder.
    pub destination: DestinationName,
    /// Their number, a JSON file with its PDF counting as one.
    pub files: u64,
    /// The problem and its fix; the service tries again by itself.
    pub problem: String,
}

impl From<erasure::Erased> for Erased {
    fn from(erased: erasure::Erased) -> Self {
        let files_left = erased.files_left.into_iter();
        Self {
            versions: erased.versions,
            unreadable_entries: erased.unreadable_entries,
            shared: erased.shared,
            files: erased.files,
            files_left: files_left
                .map(|left| FilesLeft {
                    destination: left.destination,
                    files: left.files,
                    problem: left.problem,
                })
                .collect(),
            next: erased.next,
        }
    }
}

/// A part of the list that a program reads.
#[derive(Serialize, ToSchema)]
pub struct Documents {
    /// Documents in the order in which they are to be processed.
    pub documents: Vec<ListedDocument>,
    /// The value of `after` for the next request: `<epoch>:<number>:<check>`. Store it in the same
    /// transaction as the documents.
    pub next: String,
    /// True if there are more documents.
    pub more: bool,
}

/// One version of one document. Only programs decode it: the bytes of its JSON count.
#[derive(Serialize, ToSchema)]
pub struct ListedDocument {
    /// Its place in this list.
    pub number: i64,
    /// The same for the same version of the same document, also after a restore, a repetition
    /// or a new numbering: process each key once.
    pub key: String,
    /// The state of its delivery.
    pub state: DeliveryState,
    /// The feed that it was pulled from.
    #[serde(flatten)]
    pub feed: Feed,
    /// The vendor's id.
    pub document_id: String,
    /// Its version: the moment in UTC, without a zone; the vendor's text if it is no moment.
    pub version: String,
    /// Its sequence number, with which its outcome is reported.
    pub sequence: i64,
    /// The time at which it was stored.
    pub stored_at: Timestamp,
    /// The vendor's JSON, byte for byte.
    #[schema(value_type = Object)]
    pub document: Option<Box<RawValue>>,
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

/// The outcome that a program reports for a version.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OutcomeReport {
    /// The destination; may be omitted if there is only one of the kind `list`.
    pub destination: Option<String>,
    /// The outcome.
    pub outcome: ReportedOutcome,
    /// The reason of a rejection, in words that the accountant understands.
    #[schema(max_length = 4000)]
    pub message: Option<String>,
}

/// The outcomes that can be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReportedOutcome {
    /// It was accepted.
    Delivered,
    /// It was rejected.
    Rejected,
}

/// The part of the list that is requested.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// The destination, of the kind `list`; may be omitted if there is only one.
    pub destination: Option<String>,
    /// `next` of the previous response; absent for the start of the list.
    #[param(max_length = 100)]
    pub after: Option<String>,
    /// Most documents in the response.
    #[param(minimum = 1, maximum = 500, default = 100)]
    pub limit: Option<usize>,
}

/// The documents that are searched for.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SearchQuery {
    /// What documents are found by: the number, the name or a code of the seller or buyer, the total,
    /// the date, the id, or the userdata or file name of an upload. All words count, whole or from
    /// their beginning, in letters of either case, with or without accents, `UAB` and quotation marks.
    #[param(max_length = 100)]
    pub q: Option<String>,
    /// Only the version with this sequence number.
    #[param(minimum = 1)]
    pub sequence: Option<i64>,
    /// Only those of this account.
    pub account: Option<String>,
    /// Only those of this queue.
    #[param(inline)]
    pub queue: Option<Queue>,
    /// Only those of this company.
    #[param(max_length = 64)]
    pub company: Option<String>,
    /// `next` of the previous page; absent for the newest documents.
    #[param(max_length = 400)]
    pub after: Option<String>,
    /// Most rows on the page.
    #[param(minimum = 1, maximum = 500, default = 100)]
    pub limit: Option<usize>,
}

/// The document that is traced.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TraceQuery {
    /// A document's number or id, or the userdata or file name of an upload, as a whole. Either this
    /// or `sequence`.
    #[param(min_length = 1, max_length = 200)]
    pub q: Option<String>,
    /// The sequence number of a version of the document.
    #[param(minimum = 1)]
    pub sequence: Option<i64>,
}

/// What is exported, and how.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// `csv` or `json`: a table for spreadsheets, or one JSON object a line.
    #[param(inline)]
    pub format: Option<Format>,
    /// What a row is: a document, or a line of one.
    #[param(inline)]
    pub per: Option<Per>,
    /// Names of columns, separated by commas, or `all`; the usual ones if absent. `field:NAME` is any other
    /// field of the JSON, which may be a link: it needs the right `operate`.
    #[param(max_length = 1000)]
    pub columns: Option<String>,
    /// What separates cells of CSV.
    #[param(inline)]
    pub separator: Option<Separator>,
    /// The sign before decimals in CSV.
    #[param(inline)]
    pub decimal: Option<Decimal>,
    /// The encoding of CSV. A character that Windows-1257 does not have becomes `?`; the column `replaced`
    /// counts them.
    #[param(inline)]
    pub encoding: Option<Encoding>,
    /// As of the search.
    #[param(max_length = 100)]
    pub q: Option<String>,
    /// Only those of this account.
    pub account: Option<String>,
    /// Only those of this queue.
    #[param(inline)]
    pub queue: Option<Queue>,
    /// Only those of this company.
    #[param(max_length = 64)]
    pub company: Option<String>,
    /// Only versions that were exported or digitized at this moment or later: a date, from midnight in UTC,
    /// or a date and time.
    #[param(max_length = 100)]
    pub since: Option<String>,
    /// Only versions from before this moment.
    #[param(max_length = 100)]
    pub until: Option<String>,
    /// Only versions after this sequence number.
    #[param(minimum = 0)]
    pub after: Option<i64>,
    /// Also versions that a newer one has replaced.
    pub superseded: Option<bool>,
}

/// The documents whose fields are counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FieldsQuery {
    /// Only those of this account.
    pub account: Option<String>,
    /// Only those of this queue.
    #[param(inline)]
    pub queue: Option<Queue>,
    /// Only those of this company.
    #[param(max_length = 64)]
    pub company: Option<String>,
    /// How many versions are read at most, the newest first.
    #[param(minimum = 1, maximum = 100_000, default = 10_000)]
    pub newest: Option<u64>,
}
