//! Deliveries: destinations and their lanes, the state of each version, and the import errors
//! sent to the vendor.
//!
//! A destination has a *lane* for each feed that it takes, and a lane a *position*: every version
//! at or below it is finished, waits for a time of its own, or is history. A version is finished
//! when it was delivered, rejected, listed, skipped, or superseded by a newer one. A paused
//! destination therefore costs nothing, however many versions wait for it.

use std::time::Duration;

use secrecy::SecretString;
use serde::Serialize;

use super::columns::{named, named_columns};
use super::debug::redacted;
use super::import_errors::NewImportError;
use crate::backoff;
use crate::domain::{Account, Company, DestinationName, Feed, Queue, Timestamp};

/// Time that deliveries wait for a feed to be pulled again for fresh links. After that its
/// documents are delivered without their files.
pub(super) const LINK_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Time between the attempts of a document that failed while others were accepted.
pub(super) const DEFERRED_RETRY: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns until when a destination or a lane waits, unless the wait is over.
pub(super) fn rest(until: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    backoff::rest_within(until, longest_wait(), now)
}

/// Returns the longest wait of a destination or a lane.
pub(super) fn longest_wait() -> Duration {
    backoff::DELIVERY.longest_wait(backoff::LONGEST_RETRY_AFTER)
}

/// Selects the documents that a destination receives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DestinationFilter {
    /// Documents of this queue.
    pub queue: Queue,
    /// Documents of these accounts; of all accounts if empty.
    pub accounts: Vec<Account>,
    /// Documents of these companies; of all companies if empty. The store ignores this
    /// for the digitized queue, which mixes companies.
    pub companies: Vec<Company>,
}

impl DestinationFilter {
    /// Selects every document of a queue.
    pub fn all_of(queue: Queue) -> Self {
        Self {
            queue,
            accounts: Vec::new(),
            companies: Vec::new(),
        }
    }

    /// Returns the text of its column.
    pub(super) fn to_json(&self) -> String {
        serde_json::json!(self).to_string()
    }
}

/// How a destination's lanes are made.
#[derive(Clone, Debug)]
pub struct LanePlan {
    /// The documents that the destination receives.
    pub filter: DestinationFilter,
    /// True if the history of every lane is started.
    pub deliver_history: bool,
    /// How long before the notification that made a feed known its lane begins.
    pub lookback: Duration,
}

named! {
    /// The reason why a destination is paused until a person resumes it.
    pub enum DestinationPauseReason {
        /// A person paused it.
        ByHand = "by_hand",
        /// It answered that it accepts nothing any more.
        Closed = "closed",
        /// It gave the same rejection again and again, for several companies.
        Rejections = "rejections",
    }
}

named_columns! { DestinationPauseReason: "pause reason", name => Self::parse(&name); }

named! {
    /// The reason why a lane is paused until a person resumes it.
    pub enum LanePauseReason {
        /// The destination gave the same rejection again and again.
        Rejections = "rejections",
    }
}

named_columns! { LanePauseReason: "pause reason", name => Self::parse(&name); }

/// A worker's request for versions to deliver.
#[derive(Clone, Debug)]
pub struct DeliveryLeaseRequest {
    /// The destination.
    pub destination: DestinationName,
    /// How its lanes are made.
    pub lanes: LanePlan,
    /// The present moment.
    pub now: Timestamp,
    /// Duration of the lease unless it is renewed.
    pub lease: Duration,
    /// Maximum number of versions.
    pub limit: usize,
    /// Number of bytes after which no more versions are added.
    pub limit_bytes: usize,
    /// True if the notes on earlier versions are read too.
    pub earlier_notes: bool,
}

/// The result of a [`DeliveryLeaseRequest`].
#[derive(Clone, Debug)]
pub enum DeliveryLeased {
    /// These versions are to be delivered.
    Batch(DeliveryLease),
    /// None of the versions read is to be delivered, but there are more to read: ask again.
    Advanced,
    /// Nothing can be delivered now.
    Nothing(NothingDue),
}

/// What is known when nothing can be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NothingDue {
    /// When to ask again at the latest, if known.
    pub until: Option<Timestamp>,
    /// True if versions were passed that are held as history.
    pub held: bool,
}

/// One version of one document on its way to a destination.
#[derive(Clone)]
pub struct Delivery {
    /// The feed that listed it.
    pub feed: Feed,
    /// The vendor's id of the document.
    pub document_id: String,
    /// Its version: the moment in UTC, without a zone; the vendor's text if it is no moment.
    pub version: String,
    /// The store's epoch: numbers of different epochs don't compare.
    pub epoch: String,
    /// The version's sequence number within the epoch.
    pub sequence: i64,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// The JSON as the vendor sent it.
    pub body: Vec<u8>,
    /// A link to the document's file that is newer than the one in [`Delivery::body`].
    pub link: Option<SecretString>,
    /// When the vendor listed [`Delivery::link`].
    pub link_listed_at: Option<Timestamp>,
    /// Number of requests for a fresh link that brought none: a destination that has
    /// waited long enough continues without the file.
    pub link_tries: u32,
    /// True if its feed could not be pulled for a fresh link for a day: it is delivered
    /// without its file if its link has expired.
    pub link_timed_out: bool,
    /// The note that this destination left when it accepted an earlier version of the
    /// document ([`DeliveryOutcome::Delivered`]); `None` unless [`DeliveryLeaseRequest::earlier_notes`] is set.
    pub earlier_note: Option<String>,
}

redacted! { Delivery { feed, document_id, version, sequence; body } }

/// A lease on a destination, with versions to deliver.
#[derive(Clone, Debug)]
pub struct DeliveryLease {
    /// The destination's row.
    pub destination_id: i64,
    /// The destination.
    pub destination: DestinationName,
    /// Rises with every lease of the destination; a stale owner's is refused.
    pub fence: i64,
    /// True if there is more to read than was read now: ask again.
    pub more: bool,
    /// The versions to deliver, those of a lane in ascending sequence.
    pub deliveries: Vec<Delivery>,
}

/// What comes next under a lease.
#[derive(Clone, Debug)]
pub struct Continued {
    /// False once a person has paused the destination.
    pub may_continue: bool,
    /// True if there is more to read than was read now: ask again.
    pub more: bool,
    /// The versions to deliver, those of a lane in ascending sequence.
    pub deliveries: Vec<Delivery>,
    /// Present if there was nothing to deliver, and no version was taken: the lease is released.
    pub ended: Option<NothingDue>,
}

/// One attempt to deliver a version.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The version's sequence number.
    pub sequence: i64,
    /// When it began.
    pub began_at: Timestamp,
    /// Its outcome.
    pub outcome: DeliveryOutcome,
}

/// The outcome of an attempt to deliver a version.
#[derive(Clone, Debug)]
pub enum DeliveryOutcome {
    /// The destination accepted it.
    Delivered {
        /// A note that the destination receives with later versions of the document.
        note: Option<String>,
    },
    /// The destination rejected it.
    Rejected {
        /// The reason, as far as it may be stored and shown.
        message: String,
        /// The import error for the accountant.
        import_error: NewImportError,
    },
    /// It was added to the list that a program reads.
    Listed,
    /// The destination does not receive it, by its settings.
    Filtered {
        /// The reason; nothing secret.
        reason: String,
    },
    /// The link to its file has expired; a pull for a fresh one is triggered.
    LinkExpired,
    /// The destination can't accept it now; it is retried.
    Unavailable {
        /// The reason; nothing secret.
        error: String,
        /// The time that the destination asked for.
        retry_after: Option<Duration>,
    },
    /// The destination accepts nothing until a person resumes it.
    Closed {
        /// The reason; nothing secret.
        error: String,
    },
}

/// The change of a lease once its attempts are recorded.
#[derive(Clone, Debug)]
pub enum LeaseAction {
    /// Renews the lease for this duration.
    Keep(Duration),
    /// Releases the lease.
    Release,
}

/// An outcome that arrives later: for a listed version from the program that read it, or
/// for a delivered one from its destination.
#[derive(Clone, Debug)]
pub enum LateOutcome {
    /// It is delivered.
    Delivered,
    /// It is rejected.
    Rejected {
        /// The reason.
        message: String,
        /// The import error for the accountant.
        import_error: NewImportError,
    },
}

named! {
    /// The state of one version at one destination.
    pub enum DeliveryState {
        /// It was attempted and will be retried, is in the list that a program reads, or was
        /// reset by a person.
        Pending = "pending",
        /// It failed again and again while others were accepted; it is retried daily.
        Deferred = "deferred",
        /// The link to its file has expired; it waits for a fresh one.
        WaitingFile = "waiting_file",
        /// The destination accepted it.
        Delivered = "delivered",
        /// The destination rejected it.
        Rejected = "rejected",
        /// A person skipped it, or the destination's settings exclude it.
        Skipped = "skipped",
        /// A newer version of the document replaced it before it was delivered.
        Superseded = "superseded",
        /// It is history, whose delivery a person stopped.
        Held = "held",
    }
}

named_columns! { DeliveryState: "delivery state", name => Self::parse(&name); }

/// The state of a destination. Lanes, deferred versions and those that wait for a file are counted
/// up to 10,000 of each.
#[derive(Clone, Debug)]
pub struct DestinationRow {
    /// Its name.
    pub name: DestinationName,
    /// Versions that are to be delivered, up to 1,000; more are not counted.
    pub waiting: u64,
    /// When the oldest of them was stored.
    pub waiting_since: Option<Timestamp>,
    /// Versions that are held as history until a person starts it, counted in up to 100,000 lanes.
    pub held: u64,
    /// Versions that failed while others were accepted, and are retried daily.
    pub deferred: u64,
    /// Versions that wait for a fresh link to their file.
    pub waiting_file: u64,
    /// Lanes whose last attempt failed.
    pub failing_lanes: u64,
    /// Since when the one of them fails that has failed for the longest.
    pub failing_lanes_since: Option<Timestamp>,
    /// Lanes that are paused until a person resumes the destination.
    pub paused_lanes: u64,
    /// Lanes whose history a person, or the settings, started.
    pub started_lanes: u64,
    /// Lanes that wait for the vendor's clock: no answer of their account has shown it.
    pub unknown_lanes: u64,
    /// Versions that it accepted, since the store was created.
    pub delivered: u64,
    /// Versions that it rejected, since the store was created.
    pub rejected: u64,
    /// Versions that are rejected now, up to 1,000; those that a newer one has superseded are left
    /// out.
    pub rejected_now: u64,
    /// The reason why it is paused.
    pub paused: Option<DestinationPauseReason>,
    /// Nothing is delivered before this moment.
    pub waits_until: Option<Timestamp>,
    /// When the current series of failures began.
    pub failing_since: Option<Timestamp>,
    /// Failures since the last success.
    pub failures: u32,
    /// The last failure.
    pub last_error: Option<String>,
    /// The version whose delivery failed.
    pub stuck_at: Option<i64>,
    /// When it last accepted a version.
    pub last_success_at: Option<Timestamp>,
}

/// Attempts to deliver a version; consecutive attempts with the same result are one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRow {
    /// When the first of them began.
    pub began_at: Timestamp,
    /// When the last of them ended.
    pub ended_at: Timestamp,
    /// Their result: a state's name, or `unavailable`, `closed` or `link_expired`.
    pub result: String,
    /// The destination's answer.
    pub detail: Option<String>,
    /// The number of attempts.
    pub times: u64,
}

/// The delivery of one version to one destination.
#[derive(Clone, Debug)]
pub struct DeliveryRow {
    /// The destination.
    pub destination: DestinationName,
    /// The version's sequence number.
    pub sequence: i64,
    /// The feed that it was pulled from.
    pub feed: Feed,
    /// The vendor's id of the document.
    pub document_id: String,
    /// Its state.
    pub state: DeliveryState,
    /// Its place in the list that a program reads.
    pub number: Option<i64>,
    /// When it is tried again, apart from the order of its lane.
    pub next_try_at: Option<Timestamp>,
    /// When it was first attempted.
    pub began_at: Timestamp,
    /// When its state last changed.
    pub changed_at: Timestamp,
    /// The destination's answer or note.
    pub detail: Option<String>,
    /// Attempts, oldest first.
    pub attempts: Vec<AttemptRow>,
}

/// Selects deliveries to list.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    /// Only this destination's.
    pub destination: Option<DestinationName>,
    /// Only in this state.
    pub state: Option<DeliveryState>,
    /// Only of this company; ignored with a version.
    pub company: Option<Company>,
    /// Only of this version.
    pub sequence: Option<i64>,
    /// Only of versions after this sequence number.
    pub after: i64,
    /// Maximum number of rows, in ascending sequence.
    pub limit: usize,
}

/// A version in the list that a program reads.
#[derive(Clone, Debug)]
pub struct ListEntry {
    /// Its place in the destination's list; never used twice.
    pub number: i64,
    /// Its state.
    pub state: DeliveryState,
    /// The version.
    pub delivery: Delivery,
}

/// A link to a document's file, newer than the one that is stored with the document.
#[derive(Clone, Debug)]
pub struct FreshLink {
    /// The vendor's id of the document.
    pub document_id: String,
    /// Its version: the moment in UTC, without a zone; the vendor's text if it is no moment.
    pub version: String,
    /// The link; a secret.
    pub url: SecretString,
}
