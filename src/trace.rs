//! Traces one document from its upload or first pull to its deliveries.

use serde::Serialize;

use crate::domain::{Account, DestinationName, Queue, Timestamp};
use crate::ivesk::view::View;
use crate::store::{
    DeliveryFilter, DeliveryRow, DocumentFilter, DocumentRow, ImportErrorFilter, ImportErrorRow,
    ImportErrorState, Store, StoreError, TextSearch, UploadRow,
};

/// Largest number of documents in a result, if several have the same number.
const MAX_DOCUMENTS: usize = 20;

/// Versions of them that are looked at.
const MAX_VERSIONS: usize = 200;

/// Rows of versions, deliveries and import errors in one read.
const MAX_ROWS: usize = 500;

/// The trace of one document.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Trace {
    /// The account that the document belongs to.
    pub account: Account,
    /// The vendor's id; `null` for an upload without a document yet.
    pub document_id: Option<String>,
    /// The fields that people know the document by, from its newest version.
    pub view: View,
    /// The main steps in order: `rejected`, `import_error_sent`, `re_exported`, `delivered`.
    pub story: Vec<Step>,
    /// All events, oldest first.
    pub events: Vec<TraceEvent>,
}

/// A main step of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A file was uploaded to the vendor.
    Uploaded,
    /// A version of the digitized queue was stored.
    Digitized,
    /// The first version of the exported queue was stored.
    Exported,
    /// A later version of the exported queue was stored.
    ReExported,
    /// A version was added to the list that a program fetches.
    Listed,
    /// An upload or a delivery failed; it is retried.
    Failed,
    /// A destination accepted a version.
    Delivered,
    /// A destination rejected a version.
    Rejected,
    /// An import error was sent to the accountant.
    ImportErrorSent,
    /// An import error waits to be sent.
    ImportErrorPending,
    /// The vendor refused an import error.
    ImportErrorRefused,
    /// An import error was not sent: the document was no longer rejected, or a person decided so.
    ImportErrorDiscarded,
    /// A person skipped a version, or the destination's settings exclude it.
    Skipped,
}

impl Step {
    /// Returns the step's name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uploaded => "uploaded",
            Self::Digitized => "digitized",
            Self::Exported => "exported",
            Self::ReExported => "re_exported",
            Self::Listed => "listed",
            Self::Failed => "failed",
            Self::Delivered => "delivered",
            Self::Rejected => "rejected",
            Self::ImportErrorSent => "import_error_sent",
            Self::ImportErrorPending => "import_error_pending",
            Self::ImportErrorRefused => "import_error_refused",
            Self::ImportErrorDiscarded => "import_error_discarded",
            Self::Skipped => "skipped",
        }
    }

    /// Returns true if the step is part of [`Trace::story`].
    const fn is_main(self) -> bool {
        !matches!(
            self,
            Self::Failed | Self::ImportErrorPending | Self::ImportErrorDiscarded | Self::Skipped
        )
    }
}

/// An event of a document; equal ones in a row are one.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct TraceEvent {
    /// Time of the event, or of the first of several.
    pub at: Timestamp,
    /// Time of the last of several events.
    pub until: Option<Timestamp>,
    /// Number of events.
    pub times: u64,
    /// The step.
    pub step: Step,
    /// Sequence number of the version; `null` before the first one was stored.
    pub sequence: Option<i64>,
    /// The destination.
    pub destination: Option<DestinationName>,
    /// Details for people: a file name, a version, a destination's message.
    pub detail: Option<String>,
}

impl TraceEvent {
    fn once(at: Timestamp, step: Step, detail: Option<String>) -> Self {
        Self {
            at,
            until: None,
            times: 1,
            step,
            sequence: None,
            destination: None,
            detail,
        }
    }
}

/// Returns the traces of the documents that `query` names: by the vendor's id, by the document's own
/// number, or by the userdata or the file of an upload.
///
/// # Errors
///
/// Fails if the store does.
pub async fn find(store: &Store, query: &str) -> Result<Vec<Trace>, StoreError> {
    let found = store.find_documents(TextSearch::named(query, MAX_VERSIONS));
    let rows = found.await?.rows.into_iter().map(|(_, row)| row);
    let mut traces = Vec::new();
    for (account, id) in identities(rows) {
        traces.push(of_document(store, account, id).await?);
    }
    if traces.is_empty() {
        let uploads = store.uploads_named(query.trim().to_owned(), MAX_DOCUMENTS);
        traces.extend(uploads.await?.iter().map(trace_upload));
    }
    Ok(traces)
}

/// Returns the trace of the document whose version has this sequence number.
///
/// # Errors
///
/// Fails if the store does.
pub async fn of_version(store: &Store, sequence: i64) -> Result<Option<Trace>, StoreError> {
    match store.document(sequence).await? {
        Some(row) => {
            let trace = of_document(store, row.feed.account, row.document_id);
            trace.await.map(Some)
        }
        None => Ok(None),
    }
}

/// Returns the documents of these versions as (account, vendor's id), each once.
fn identities(rows: impl Iterator<Item = DocumentRow>) -> Vec<(Account, String)> {
    let mut identities: Vec<(Account, String)> = Vec::new();
    for row in rows {
        let identity = (row.feed.account, row.document_id);
        if identities.len() < MAX_DOCUMENTS && !identities.contains(&identity) {
            identities.push(identity);
        }
    }
    identities
}

/// Returns the trace of a document.
///
/// # Errors
///
/// Fails if the store does.
pub async fn of_document(
    store: &Store,
    account: Account,
    document_id: String,
) -> Result<Trace, StoreError> {
    let rows = store.documents(DocumentFilter {
        account: Some(account.clone()),
        document_id: Some(document_id.clone()),
        limit: MAX_ROWS,
        ..DocumentFilter::default()
    });
    let rows = rows.await?;
    let uploads = store.uploads_of_document(account.clone(), document_id.clone());
    let mut events: Vec<TraceEvent> = uploads.await?.iter().flat_map(upload_events).collect();
    let mut exported = false;
    for row in &rows {
        events.push(version_event(row, &mut exported));
        let deliveries = store.deliveries(DeliveryFilter {
            sequence: Some(row.sequence),
            limit: MAX_ROWS,
            ..DeliveryFilter::default()
        });
        events.extend(deliveries.await?.iter().flat_map(delivery_events));
        let import_errors = store.import_errors(ImportErrorFilter {
            sequence: Some(row.sequence),
            limit: MAX_ROWS,
            ..ImportErrorFilter::default()
        });
        events.extend(import_errors.await?.iter().map(import_error_event));
    }
    // A stable sort: events of one moment stay in the order of their causes.
    events.sort_by_key(|event| event.at);
    let newest = rows.iter().rev().find(|row| !row.superseded);
    let view = newest
        .and_then(|row| row.body.as_deref())
        .map(View::read)
        .unwrap_or_default();
    Ok(Trace {
        account,
        document_id: Some(document_id),
        view,
        story: story(&events),
        events,
    })
}

fn trace_upload(row: &UploadRow) -> Trace {
    let events: Vec<TraceEvent> = upload_events(row).collect();
    Trace {
        account: row.account.clone(),
        document_id: None,
        view: View::default(),
        story: story(&events),
        events,
    }
}

/// Returns the main steps, without repetitions.
fn story(events: &[TraceEvent]) -> Vec<Step> {
    let mut story: Vec<Step> = events
        .iter()
        .map(|event| event.step)
        .filter(|step| step.is_main())
        .collect();
    story.dedup();
    story
}

fn upload_events(row: &UploadRow) -> impl Iterator<Item = TraceEvent> {
    let failure = (row.sent_at.is_none()).then(|| {
        let error = row.last_error.as_deref().unwrap_or_default();
        let detail = format!("{} has not been sent yet: {error}", row.file_name);
        TraceEvent::once(row.created_at, Step::Failed, Some(detail))
    });
    let sent = row.sent_at.map(|at| {
        let detail = format!("{}, {} bytes", row.file_name, row.size_bytes);
        TraceEvent::once(at, Step::Uploaded, Some(detail))
    });
    failure.into_iter().chain(sent)
}

fn version_event(row: &DocumentRow, exported: &mut bool) -> TraceEvent {
    let step = match row.feed.queue {
        Queue::Digitized => Step::Digitized,
        Queue::Exported if std::mem::replace(exported, true) => Step::ReExported,
        Queue::Exported => Step::Exported,
    };
    let superseded = if row.superseded {
        "; superseded by a newer version"
    } else {
        ""
    };
    let detail = format!(
        "version {} of {}, found by {}{superseded}",
        row.version,
        row.feed,
        row.found_by.as_str()
    );
    TraceEvent {
        sequence: Some(row.sequence),
        ..TraceEvent::once(row.stored_at, step, Some(detail))
    }
}

fn delivery_events(row: &DeliveryRow) -> Vec<TraceEvent> {
    let event = |at: Timestamp, step: Step, detail: Option<String>| TraceEvent {
        sequence: Some(row.sequence),
        destination: Some(row.destination.clone()),
        ..TraceEvent::once(at, step, detail)
    };
    if row.attempts.is_empty() {
        let state = row.state.as_str();
        let detail = row.detail.clone().unwrap_or_else(|| state.to_owned());
        return vec![event(row.changed_at, Step::Skipped, Some(detail))];
    }
    let attempts = row.attempts.iter().map(|attempt| {
        let step = match attempt.result.as_str() {
            "delivered" => Step::Delivered,
            "rejected" => Step::Rejected,
            "listed" => Step::Listed,
            "skipped" => Step::Skipped,
            _ => Step::Failed,
        };
        let detail = match (attempt.result.as_str(), &attempt.detail) {
            ("link_expired", None) => {
                Some("the link to its file had expired; a new one was requested".to_owned())
            }
            (_, detail) => detail.clone(),
        };
        let repeated = attempt.times > 1;
        TraceEvent {
            until: repeated.then_some(attempt.ended_at),
            times: attempt.times,
            ..event(
                // Repeated attempts span from the start of the first to the end of the last.
                if repeated {
                    attempt.began_at
                } else {
                    attempt.ended_at
                },
                step,
                detail,
            )
        }
    });
    attempts.collect()
}

fn import_error_event(row: &ImportErrorRow) -> TraceEvent {
    let (at, step, detail) = match row.state {
        ImportErrorState::Sent => (
            row.sent_at.unwrap_or(row.created_at),
            Step::ImportErrorSent,
            row.message.clone(),
        ),
        ImportErrorState::Pending => (
            row.created_at,
            Step::ImportErrorPending,
            match &row.last_error {
                Some(error) => format!("{} ({error})", row.message),
                None => row.message.clone(),
            },
        ),
        ImportErrorState::Refused => (
            row.ended_at.unwrap_or(row.created_at),
            Step::ImportErrorRefused,
            row.last_error.clone().unwrap_or_default(),
        ),
        ImportErrorState::Withdrawn | ImportErrorState::Discarded => (
            row.ended_at.unwrap_or(row.created_at),
            Step::ImportErrorDiscarded,
            row.message.clone(),
        ),
    };
    TraceEvent {
        sequence: Some(row.sequence),
        ..TraceEvent::once(at, step, Some(detail))
    }
}
