//! Stored documents.

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
