//! Stored documents, and uploaded files from which documents are made.

use std::time::Duration;

use serde::Serialize;

use super::TriggerKind;
use crate::domain::{Account, Company, Feed, Queue, Timestamp};

/// Selects documents to list.
#[derive(Clone, Debug, Default)]
pub struct DocumentFilter {
    /// Only this account's.
    pub account: Option<Account>,
    /// Only this queue's.
    pub queue: Option<Queue>,
    /// Only this company's.
    pub company: Option<Company>,
    /// Only this vendor's id.
    pub document_id: Option<String>,
    /// Only those after this sequence number.
    pub after: Option<i64>,
    /// Maximum number of rows, in ascending sequence.
    pub limit: usize,
}

/// One stored version of a document.
#[derive(Clone, Serialize, utoipa::ToSchema)]
pub struct DocumentRow {
    /// The sequence number: gap-free, in the order of commits.
    pub sequence: i64,
    /// The feed that listed it.
    #[serde(flatten)]
    pub feed: Feed,
    /// The vendor's id.
    pub document_id: String,
    /// The vendor's version text.
    pub version: String,
    /// True if a newer version of the document is stored.
    pub superseded: bool,
    /// True if its feed's first pull found it.
    pub first_pull: bool,
    /// The kind of trigger whose pull found it.
    pub found_by: TriggerKind,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// The JSON as the vendor sent it; none once retention removed it.
    #[serde(skip)]
    pub body: Option<Vec<u8>>,
}

/// A search for documents, newest first.
#[derive(Clone, Debug, Default)]
pub struct DocumentSearch {
    /// Only this account's.
    pub account: Option<Account>,
    /// Only this queue's.
    pub queue: Option<Queue>,
    /// Only this company's.
    pub company: Option<Company>,
    /// Only this vendor's id.
    pub document_id: Option<String>,
    /// Only those before this sequence number.
    pub before: Option<i64>,
    /// Maximum number of versions to read, matching or not.
    pub versions: u16,
}

/// The result of a [`DocumentSearch`].
#[derive(Clone, Debug)]
pub struct FoundDocuments {
    /// The matching versions, in descending sequence.
    pub rows: Vec<DocumentRow>,
    /// The `before` of the search that continues this one; none if nothing older is left.
    pub next: Option<i64>,
}

impl FoundDocuments {
    /// Returns the result of a search that read matching versions only: if it read as many
    /// as it may, there may be more.
    pub(super) fn matching(rows: Vec<DocumentRow>, versions: u16) -> Self {
        let full = rows.len() >= usize::from(versions);
        Self {
            next: rows.last().map(|row| row.sequence).filter(|_| full),
            rows,
        }
    }

    /// Returns the result of a search that read all versions from `first` on.
    pub(super) fn from(rows: Vec<DocumentRow>, first: i64) -> Self {
        Self {
            rows,
            // Sequence numbers begin at 1.
            next: (first > 1).then_some(first),
        }
    }
}

/// A file that is about to be sent.
#[derive(Clone, Debug)]
pub struct NewUpload {
    /// The account whose key sends it.
    pub account: Account,
    /// SHA-256 of its content in lower-case hexadecimal digits, which identifies the file.
    pub sha256: String,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Its name, without folders.
    pub file_name: String,
    /// The [`UploadRow::correlation`] of a new row; unique.
    pub correlation: String,
    /// True if content that was sent before is sent again, as a row of its own.
    pub force: bool,
    /// The process that sends it; its own claim does not block it.
    pub owner: String,
    /// The present moment.
    pub now: Timestamp,
    /// Duration for which other processes leave the file to this one.
    pub claim: Duration,
}

/// The answer to a [`NewUpload`].
#[derive(Clone, Debug)]
pub enum UploadBegun {
    /// Send it, then record the result with [`end_upload`](super::Store::end_upload).
    Send(UploadRow),
    /// This content was sent before.
    Already(UploadRow),
    /// Another process is sending it, or was interrupted: ask again after its claim.
    Busy {
        /// When its claim ends.
        until: Timestamp,
    },
}

/// The result of an attempt to send a file.
#[derive(Clone, Debug)]
pub enum UploadEnd {
    /// The vendor's storage accepted it.
    Sent,
    /// The vendor refused this file, for this reason.
    Refused(String),
    /// Sending failed, for this reason; it may be retried.
    Failed(String),
}

/// The state of an upload, as far as sending goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UploadState {
    /// It is being sent, or its sender was interrupted.
    Sending,
    /// The vendor's storage accepted it.
    Sent,
    /// The vendor refused it.
    Refused,
    /// Sending failed.
    Failed,
}

impl UploadState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Sending, Self::Sent, Self::Refused, Self::Failed];

    /// Returns the state's name in the store and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Selects uploads to list.
#[derive(Clone, Debug, Default)]
pub struct UploadFilter {
    /// Only rows after this one.
    pub after: i64,
    /// Only those sent before this moment of which no document has arrived.
    pub missing_since: Option<Timestamp>,
    /// Maximum number of rows, oldest first.
    pub limit: usize,
}

/// A file that was sent to the vendor, or was to be.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct UploadRow {
    /// The row.
    pub id: i64,
    /// The account whose key sent it.
    pub account: Account,
    /// Its name, without folders.
    pub file_name: String,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// SHA-256 of its content in lower-case hexadecimal digits.
    pub sha256: String,
    /// Data sent with it, which the vendor returns in its documents.
    pub correlation: String,
    /// Its state.
    pub state: UploadState,
    /// The number of attempts to send it.
    pub attempts: u32,
    /// When the first attempt began.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub changed_at: Timestamp,
    /// When the vendor's storage accepted it.
    pub sent_at: Option<Timestamp>,
    /// The last failure.
    pub last_error: Option<String>,
    /// The vendor's ids of the documents made of it.
    pub documents: Vec<String>,
}

/// Time after which a sent file without a document is late. No source says how long
/// digitization takes; half a day lets a night pass without an alarm.
pub const LATE_AFTER: Duration = Duration::from_secs(12 * 60 * 60);

impl UploadRow {
    /// Returns one word for its status at `now`: its state, `returned` once a document of
    /// it has arrived, or `late` if none has within [`LATE_AFTER`].
    pub fn status(&self, now: Timestamp) -> &'static str {
        if !self.documents.is_empty() {
            return "returned";
        }
        match (self.state, self.sent_at) {
            (UploadState::Sent, Some(sent_at)) if sent_at.after(LATE_AFTER) < now => "late",
            (state, _) => state.as_str(),
        }
    }
}
