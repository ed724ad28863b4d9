//! What became of one document: from its upload or first sight until it was delivered.

use serde::Serialize;

use crate::domain::{Account, DestinationName, Queue, Timestamp};
use crate::ivesk;
use crate::ivesk::view::View;
use crate::store::{
    DeliveryFilter, DeliveryRow, DocumentFilter, DocumentRow, DocumentSearch, ImportErrorFilter,
    ImportErrorRow, ImportErrorState, Store, StoreError, UploadFilter, UploadRow,
};

/// Versions that are read at once.
const STEP: u16 = 250;

/// How many versions are looked through for a number or for userdata, the newest first.
const LOOKED_THROUGH: usize = 20_000;

/// Documents that are told of at the most, where a number stands on several.
const DOCUMENTS: usize = 20;

/// Rows of uploads, deliveries and reports that are read at once.
const ROWS: usize = 500;

/// The story of one document.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Trace {
    /// Whose it is.
    pub account: Account,
    /// The vendor's id; none where the document has not come back from its upload yet.
    pub document_id: Option<String>,
    /// What people know it by, as its newest version has it.
    pub view: View,
    /// The story in a few words, in order: `rejected`, `reported`, `re_exported`, `booked`.
    pub story: Vec<Step>,
    /// Everything that is known, oldest first.
    pub events: Vec<TraceEvent>,
}

/// A step of a document's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A file was given to the vendor.
    Uploaded,
    /// A version of the digitized queue was stored.
    Digitized,
    /// The first version of the exported queue was stored.
    Exported,
    /// A later version of the exported queue was stored.
    ReExported,
    /// It is in the list that a program asks for.
    Listed,
    /// A destination was given it and could not take it, or its file could not be had.
    Tried,
    /// A destination has it.
    Delivered,
    /// A destination does not want it.
    Rejected,
    /// The accountant was told why.
    Reported,
    /// The accountant could not be told yet.
    ImportErrorPending,
    /// The vendor does not take the report.
    ImportErrorRefused,
    /// A person left it out, or it is of a company that the destination doesn't take.
    LeftOut,
}

impl Step {
    /// The step's name in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uploaded => "uploaded",
            Self::Digitized => "digitized",
            Self::Exported => "exported",
            Self::ReExported => "re_exported",
            Self::Listed => "listed",
            Self::Tried => "tried",
            Self::Delivered => "delivered",
            Self::Rejected => "rejected",
            Self::Reported => "reported",
            Self::ImportErrorPending => "import_error_pending",
            Self::ImportErrorRefused => "import_error_refused",
            Self::LeftOut => "left_out",
        }
    }

    /// Whether it stands in the story in a few words.
    const fn is_a_turn(self) -> bool {
        !matches!(self, Self::Tried | Self::ImportErrorPending | Self::LeftOut)
    }
}

/// Something that happened to a document.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct TraceEvent {
    /// When; where it happened several times, when first.
    pub at: Timestamp,
    /// When last, where it happened several times.
    pub until: Option<Timestamp>,
    /// How many times.
    pub times: u64,
    /// What.
    pub step: Step,
    /// The version's number; none before there was one.
    pub sequence: Option<i64>,
    /// At which destination.
    pub destination: Option<DestinationName>,
    /// More of it, for people: a file's name, a version, what a destination said.
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

/// The stories of the documents that `wanted` names: by the vendor's id, by our sequence
/// number, by the correlation data of an upload, or by the document's own number.
///
/// For the last two the newest 20,000 versions are looked through.
///
/// # Errors
///
/// The store's.
pub async fn find(store: &dyn Store, wanted: &str) -> Result<Vec<Trace>, StoreError> {
    let wanted = wanted.trim();
    let mut traces = Vec::new();
    for (account, id) in identities(store, wanted).await? {
        traces.push(of_document(store, account, id).await?);
    }
    if traces.is_empty() {
        let uploads = uploads(store, |row| row.correlation == wanted).await?;
        traces.extend(uploads.iter().map(of_upload));
    }
    Ok(traces)
}

/// Which documents are meant: (account, vendor's id), each once.
async fn identities(store: &dyn Store, wanted: &str) -> Result<Vec<(Account, String)>, StoreError> {
    let by_id = store.documents(DocumentFilter {
        document_id: Some(wanted.to_owned()),
        limit: DOCUMENTS,
        ..DocumentFilter::default()
    });
    let mut found = identities_of(&by_id.await?);
    for upload in uploads(store, |row| row.correlation == wanted).await? {
        let ids = upload.documents.into_iter();
        found.extend(ids.map(|id| (upload.account.clone(), id)));
    }
    if !found.is_empty() {
        return Ok(unique(found));
    }
    let mentioned = mentioned(store, wanted).await?;
    if !mentioned.is_empty() {
        return Ok(mentioned);
    }
    // A number of ours last: the number on a document is what people have before them.
    let Ok(sequence) = wanted.parse::<i64>() else {
        return Ok(Vec::new());
    };
    let by_number = store.documents(DocumentFilter {
        after: Some(sequence.saturating_sub(1)),
        limit: 1,
        ..DocumentFilter::default()
    });
    let mut rows = by_number.await?;
    rows.retain(|row| row.sequence == sequence);
    Ok(identities_of(&rows))
}

fn identities_of(rows: &[DocumentRow]) -> Vec<(Account, String)> {
    let named = rows
        .iter()
        .map(|row| (row.feed.account.clone(), row.document_id.clone()));
    unique(named.collect())
}

fn unique(mut identities: Vec<(Account, String)>) -> Vec<(Account, String)> {
    let mut seen = std::collections::BTreeSet::new();
    identities.retain(|identity| seen.insert(identity.clone()));
    identities.truncate(DOCUMENTS);
    identities
}

/// Documents whose number is `wanted`, or whose userdata holds it.
async fn mentioned(store: &dyn Store, wanted: &str) -> Result<Vec<(Account, String)>, StoreError> {
    let mut look = DocumentSearch {
        versions: STEP,
        ..DocumentSearch::default()
    };
    let mut found = Vec::new();
    for _ in 0..LOOKED_THROUGH / usize::from(STEP) {
        let looked = store.search_documents(look.clone()).await?;
        let named = looked.rows.iter().filter(|row| mentions(row, wanted));
        found.extend(named.map(|row| (row.feed.account.clone(), row.document_id.clone())));
        look.before = looked.next;
        if look.before.is_none() {
            break;
        }
    }
    Ok(unique(found))
}

fn mentions(row: &DocumentRow, wanted: &str) -> bool {
    let Some(body) = row.body.as_deref() else {
        return false;
    };
    View::read(body).number.as_deref() == Some(wanted)
        || ivesk::document::userdata(body).is_some_and(|data| data.contains(wanted))
}

/// Every upload that `is_wanted`.
async fn uploads(
    store: &dyn Store,
    is_wanted: impl Fn(&UploadRow) -> bool,
) -> Result<Vec<UploadRow>, StoreError> {
    let mut wanted = Vec::new();
    let mut after = 0;
    loop {
        let rows = store.uploads(UploadFilter {
            after,
            missing_since: None,
            limit: ROWS,
        });
        let rows = rows.await?;
        let Some(last) = rows.last() else {
            return Ok(wanted);
        };
        after = last.id;
        wanted.extend(rows.into_iter().filter(|row| is_wanted(row)));
    }
}

async fn of_document(
    store: &dyn Store,
    account: Account,
    document_id: String,
) -> Result<Trace, StoreError> {
    let rows = store.documents(DocumentFilter {
        account: Some(account.clone()),
        document_id: Some(document_id.clone()),
        limit: ROWS,
        ..DocumentFilter::default()
    });
    let rows = rows.await?;
    let made_of = uploads(store, |row| {
        row.account == account && row.documents.contains(&document_id)
    });
    let mut events: Vec<TraceEvent> = made_of.await?.iter().flat_map(upload_events).collect();
    let mut exported = false;
    for row in &rows {
        events.push(stored(row, &mut exported));
        let deliveries = store.deliveries(DeliveryFilter {
            sequence: Some(row.sequence),
            limit: ROWS,
            ..DeliveryFilter::default()
        });
        events.extend(deliveries.await?.iter().flat_map(handed_on));
        let reports = store.import_errors(ImportErrorFilter {
            sequence: Some(row.sequence),
            limit: ROWS,
            ..ImportErrorFilter::default()
        });
        events.extend(reports.await?.iter().map(reported));
    }
    // Stable, so that what happened in one moment stays in the order of its causes.
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

fn of_upload(row: &UploadRow) -> Trace {
    let events: Vec<TraceEvent> = upload_events(row).collect();
    Trace {
        account: row.account.clone(),
        document_id: None,
        view: View::default(),
        story: story(&events),
        events,
    }
}

/// The turns of the story, what repeats told once.
fn story(events: &[TraceEvent]) -> Vec<Step> {
    let mut story: Vec<Step> = events
        .iter()
        .map(|event| event.step)
        .filter(|step| step.is_a_turn())
        .collect();
    story.dedup();
    story
}

fn upload_events(row: &UploadRow) -> impl Iterator<Item = TraceEvent> {
    let failure = (row.sent_at.is_none()).then(|| {
        let why = row.last_error.clone().unwrap_or_default();
        let detail = format!("{} is not sent yet: {why}", row.file_name);
        TraceEvent::once(row.created_at, Step::Tried, Some(detail))
    });
    let sent = row.sent_at.map(|at| {
        let detail = format!("{}, {} bytes", row.file_name, row.size_bytes);
        TraceEvent::once(at, Step::Uploaded, Some(detail))
    });
    failure.into_iter().chain(sent)
}

fn stored(row: &DocumentRow, exported: &mut bool) -> TraceEvent {
    let step = match row.feed.queue {
        Queue::Digitized => Step::Digitized,
        Queue::Exported if std::mem::replace(exported, true) => Step::ReExported,
        Queue::Exported => Step::Exported,
    };
    let superseded = if row.superseded {
        "; a newer version took its place"
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

fn handed_on(row: &DeliveryRow) -> Vec<TraceEvent> {
    let event = |at: Timestamp, step: Step, detail: Option<String>| TraceEvent {
        sequence: Some(row.sequence),
        destination: Some(row.destination.clone()),
        ..TraceEvent::once(at, step, detail)
    };
    if row.attempts.is_empty() {
        let detail = format!("left out: {}", row.state.as_str());
        return vec![event(row.changed_at, Step::LeftOut, Some(detail))];
    }
    let attempts = row.attempts.iter().map(|attempt| {
        let step = match attempt.result.as_str() {
            "delivered" => Step::Delivered,
            "rejected" => Step::Rejected,
            "listed" => Step::Listed,
            "filtered" => Step::LeftOut,
            _ => Step::Tried,
        };
        let told = match (attempt.result.as_str(), &attempt.detail) {
            ("link_expired", None) => {
                Some("the link to its file had expired; a fresh one was asked for".to_owned())
            }
            (_, detail) => detail.clone(),
        };
        let repeated = attempt.times > 1;
        TraceEvent {
            // What was decided counts from its end, what went wrong from its beginning.
            until: repeated.then_some(attempt.ended_at),
            times: attempt.times,
            ..event(
                if repeated {
                    attempt.began_at
                } else {
                    attempt.ended_at
                },
                step,
                told,
            )
        }
    });
    attempts.collect()
}

fn reported(row: &ImportErrorRow) -> TraceEvent {
    let (at, step, detail) = match row.state {
        ImportErrorState::Sent => (
            row.sent_at.unwrap_or(row.created_at),
            Step::Reported,
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
            row.created_at,
            Step::ImportErrorRefused,
            row.last_error.clone().unwrap_or_default(),
        ),
    };
    TraceEvent {
        sequence: Some(row.sequence),
        ..TraceEvent::once(at, step, Some(detail))
    }
}
