//! Documents that are stored, and the files that were uploaded to become some.

use std::time::Duration;

use serde::Serialize;

use super::TriggerKind;
use crate::domain::{Account, Company, Feed, Queue, Timestamp};

/// Which documents to list.
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
    /// At most so many, in ascending sequence.
    pub limit: usize,
}

/// One stored version of a document.
#[derive(Clone, Serialize, utoipa::ToSchema)]
pub struct DocumentRow {
    /// Our number: gap-free, in the order of commits.
    pub sequence: i64,
    /// Where it came from.
    #[serde(flatten)]
    pub feed: Feed,
    /// The vendor's id.
    pub document_id: String,
    /// The vendor's version text.
    pub version: String,
    /// Whether a newer version was there first, or has come since.
    pub superseded: bool,
    /// Whether it came in its feed's first pull.
    pub first_pull: bool,
    /// What found it.
    pub found_by: TriggerKind,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// The JSON as the vendor sent it; none once retention has taken it.
    #[serde(skip)]
    pub body: Option<Vec<u8>>,
}

/// Where to look for documents, the newest first.
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
    /// How many versions are read at the most, whether they are wanted or not.
    pub versions: u16,
}

/// What was found there.
#[derive(Clone, Debug)]
pub struct FoundDocuments {
    /// The versions that are wanted, in descending sequence.
    pub rows: Vec<DocumentRow>,
    /// The `before` of the look that goes on from here; none where nothing older is left.
    pub next: Option<i64>,
}

impl FoundDocuments {
    /// What a look gave that reads wanted versions only: where it is full, there may be more.
    pub(super) fn wanted(rows: Vec<DocumentRow>, versions: u16) -> Self {
        let full = rows.len() >= usize::from(versions);
        Self {
            next: rows.last().map(|row| row.sequence).filter(|_| full),
            rows,
        }
    }

    /// What a look gave at all versions from `first` on.
    pub(super) fn from(rows: Vec<DocumentRow>, first: i64) -> Self {
        Self {
            rows,
            // Numbers begin at 1.
            next: (first > 1).then_some(first),
        }
    }
}

/// A file that is about to be sent.
#[derive(Clone, Debug)]
pub struct NewUpload {
    /// Whose key sends it.
    pub account: Account,
    /// SHA-256 of its content in lower-case hexadecimal digits: what makes it the same file.
    pub sha256: String,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Its name, without folders.
    pub file_name: String,
    /// What a new row carries as [`UploadRow::correlation`]; unique.
    pub correlation: String,
    /// Whether content that was sent before is sent again, as a row of its own.
    pub force: bool,
    /// Which process sends it: its own claim does not hold it up.
    pub owner: String,
    /// The present moment.
    pub now: Timestamp,
    /// How long other processes leave the file to this one.
    pub claim: Duration,
}

/// Whether a file is to be sent.
#[derive(Clone, Debug)]
pub enum UploadBegun {
    /// Send it, then say how that ended ([`end_upload`](super::Store::end_upload)).
    Send(UploadRow),
    /// This content was sent before.
    Already(UploadRow),
    /// Another process sends it, or did and was cut off: ask again then.
    Busy {
        /// When its claim ends.
        until: Timestamp,
    },
}

/// How an attempt to send a file ended.
#[derive(Clone, Debug)]
pub enum UploadEnd {
    /// The vendor's storage has it.
    Sent,
    /// The vendor does not want this file, and why.
    Refused(String),
    /// It did not get there, and why; it may be tried again.
    Failed(String),
}

/// Where an upload stands, as far as sending goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UploadState {
    /// It is being sent, or its sender was cut off.
    Sending,
    /// The vendor's storage has it.
    Sent,
    /// The vendor does not want it.
    Refused,
    /// It did not get there.
    Failed,
}

impl UploadState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Sending, Self::Sent, Self::Refused, Self::Failed];

    /// The state's name in the store and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Which uploads to list.
#[derive(Clone, Debug, Default)]
pub struct UploadFilter {
    /// Only those after this row.
    pub after: i64,
    /// Only those sent before this moment of which no document has come.
    pub missing_since: Option<Timestamp>,
    /// At most so many, oldest first.
    pub limit: usize,
}

/// A file that was given to the vendor, or was to be.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct UploadRow {
    /// The row.
    pub id: i64,
    /// Whose key sent it.
    pub account: Account,
    /// Its name, without folders.
    pub file_name: String,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// SHA-256 of its content in lower-case hexadecimal digits.
    pub sha256: String,
    /// What went with it and comes back with its documents.
    pub correlation: String,
    /// Where sending stands.
    pub state: UploadState,
    /// How often sending was begun.
    pub attempts: u32,
    /// When it was first begun.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub changed_at: Timestamp,
    /// When the storage took it.
    pub sent_at: Option<Timestamp>,
    /// What the last failure was.
    pub last_error: Option<String>,
    /// The vendor's ids of the documents made of it.
    pub documents: Vec<String>,
}

/// How long a document may take to come back. No source says how long digitization
/// takes; half a day lets a night pass without an alarm.
pub const LATE_AFTER: Duration = Duration::from_secs(12 * 60 * 60);

impl UploadRow {
    /// One word for where it stands at `now`: its state, `returned` once a document of
    /// it has come, or `late` where none has within [`LATE_AFTER`].
    pub fn standing(&self, now: Timestamp) -> &'static str {
        if !self.documents.is_empty() {
            return "returned";
        }
        match (self.state, self.sent_at) {
            (UploadState::Sent, Some(sent_at)) if sent_at.after(LATE_AFTER) < now => "late",
            (state, _) => state.as_str(),
        }
    }
}
