//! All SQL. One trait; the types that go in and out of it.
//!
//! Times are given by the caller's [`Clock`], so that a
//! test can set them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use secrecy::SecretString;
use serde::Serialize;

use crate::domain::{
    Account, Clock, Company, Cursor, DocumentVersion, Event, Feed, Queue, Timestamp,
};
use crate::sns::VerifiedMessage;

mod debug;
pub mod postgres;
mod runs;
pub mod sqlite;
mod words;

/// A handle to the store that everything shares.
pub type SharedStore = Arc<dyn Store>;

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// More deliveries are waiting than the queue holds.
    #[error("more deliveries are waiting than the queue holds")]
    QueueFull,
    /// The disk has no room.
    #[error("the disk that holds {} is full; free some space, nothing that was acknowledged is lost", path.display())]
    DiskFull {
        /// The database file.
        path: PathBuf,
    },
    /// The file is damaged or is no database of ours.
    #[error("{} is damaged or is not a SQLite database ({detail}); stop the service and restore the newest backup (docs/operating.md)", path.display())]
    Corrupt {
        /// The database file.
        path: PathBuf,
        /// SQLite's words.
        detail: String,
    },
    /// Another process serves this store.
    #[error("{} is in use by another ivesk-webhook process; stop it first, or let it do the work through its private address", path.display())]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// A newer version of this program has changed the schema.
    #[error(
        "the store has schema {found}, and this version knows {known}; run the newer ivesk-webhook, or restore a backup made before the upgrade"
    )]
    NewerSchema {
        /// What the store says.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// The lease ran out and another worker may hold the feed: nothing was written.
    #[error("the lease on this feed ran out; nothing was written")]
    StaleLease,
    /// The file or its folder can't be opened or written.
    #[error("{} can't be opened: {detail}", path.display())]
    NotAccessible {
        /// The database file.
        path: PathBuf,
        /// The system's words.
        detail: String,
    },
    /// It was opened for reading only.
    #[error("the store was opened for reading only")]
    ReadOnly,
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// The database server can't be reached, or does not let us in.
    #[error("PostgreSQL can't be used now: {detail}")]
    Unreachable {
        /// What was tried, and the server's or the system's words.
        detail: String,
    },
    /// The database has not this version's tables, and reading alone makes none.
    #[error(
        "the database has not been brought up to this version's schema; run `serve` or `pull` once"
    )]
    NotPrepared,
    /// What is copied goes into an empty database alone.
    #[error(
        "{target} holds rows already; a copy goes into an empty database, so that nothing is mixed"
    )]
    NotEmpty {
        /// The database, without its password.
        target: String,
    },
    /// A backup was to be written over the store itself.
    #[error("{} is the store itself or one of the files beside it; name another file for the copy", path.display())]
    BackupOntoItself {
        /// Where the copy was to go.
        path: PathBuf,
    },
    /// PostgreSQL is backed up with its own tools.
    #[error(
        "a PostgreSQL store is backed up with PostgreSQL's own tools: run `pg_dump --format=custom --file=FILE DATABASE` (docs/postgres.md)"
    )]
    BackedUpElsewhere,
    /// The database refuses a value: the same again would be refused again.
    #[error("the database refused a value: {0}")]
    Value(String),
    /// Anything else that the database said.
    #[error("the database answered: {0}")]
    Database(String),
}

/// A verified delivery on its way into the store.
#[derive(Debug)]
pub struct Accepted {
    /// Whose webhook it came to; proven by the path's token.
    pub account: Account,
    /// Which event's webhook it came to; proven by the path's token.
    pub event: Event,
    /// The message; only [`crate::sns::Verifier`] can make one.
    pub message: VerifiedMessage,
    /// When it came.
    pub received_at: Timestamp,
    /// The feed that it wants pulled, where it says one.
    pub hint: Option<Feed>,
}

/// What became of something that may come twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// It was not there before.
    New,
    /// It was there already; nothing changed.
    Duplicate,
}

/// A stored notification, for listing and export.
#[derive(Clone, Serialize)]
pub struct NotificationRow {
    /// Ascending in the order of arrival.
    pub id: i64,
    /// Whose webhook it came to.
    pub account: Account,
    /// Which event's webhook it came to.
    pub event: Event,
    /// `Notification`, `SubscriptionConfirmation` or `UnsubscribeConfirmation`.
    pub kind: String,
    /// SNS's id.
    pub message_id: String,
    /// When it came.
    pub received_at: Timestamp,
    /// The body as it came; `None` once retention removed it.
    #[serde(skip)]
    pub body: Option<Vec<u8>>,
}

/// Why pages are asked for, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PullKind {
    /// A notification, or a person who asked.
    Hint,
    /// The first of the two looks back after a hint.
    FollowUp,
    /// The second of them.
    LateFollowUp,
    /// At start and every hour.
    Reconciliation,
    /// A person's wish to read an old stretch again.
    Backfill,
}

impl PullKind {
    /// All kinds, most urgent first.
    pub const ALL: [Self; 5] = [
        Self::Hint,
        Self::FollowUp,
        Self::LateFollowUp,
        Self::Reconciliation,
        Self::Backfill,
    ];

    /// The kind's name in the store and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hint => "hint",
            Self::FollowUp => "follow_up",
            Self::LateFollowUp => "late_follow_up",
            Self::Reconciliation => "reconciliation",
            Self::Backfill => "backfill",
        }
    }

    /// Whether it starts from an older cursor and keeps a position of its own.
    pub const fn overlaps(self) -> bool {
        !matches!(self, Self::Hint)
    }
}

/// A wish to have a feed pulled.
#[derive(Clone, Debug)]
pub struct Demand {
    /// What to pull; made known to the store where it is new.
    pub feed: Feed,
    /// Why.
    pub kind: PullKind,
    /// Not before this moment.
    pub due_at: Timestamp,
    /// Where a backfill starts; `None` is the beginning. Other kinds have none.
    pub from: Option<Cursor>,
}

/// What a worker says when it asks for something to do.
#[derive(Clone, Debug)]
pub struct LeaseRequest {
    /// The present moment.
    pub now: Timestamp,
    /// How long the lease holds.
    pub lease: Duration,
    /// Requests in flight at once for one account.
    pub requests_per_account: u32,
    /// How far overlap reads go back.
    pub lookback: Duration,
    /// (account, queue) pairs that this process can ask for: it has a key and knows the
    /// path. Wishes for others are kept, for when it can or for a replica that can.
    pub askable: Vec<(Account, Queue)>,
}

/// The right to ask for one page of one feed and to store it.
#[derive(Clone, Debug)]
pub struct PageLease {
    /// The feed's row.
    pub feed_id: i64,
    /// The feed.
    pub feed: Feed,
    /// Why it is pulled.
    pub kind: PullKind,
    /// Rises with every lease of the feed; a stale owner's is refused.
    pub fence: i64,
    /// Where the run stands.
    pub position: Position,
    /// Whether no run of this feed has come to its end yet.
    pub first_pull: bool,
    /// Failures of this feed since its last success.
    pub feed_failures: u32,
    /// Failures of its account since its last success.
    pub account_failures: u32,
    /// Whether a 401 here speaks of the key: this feed has given pages before, or no feed
    /// of its account ever has.
    pub speaks_of_key: bool,
}

/// Where a run of pages stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// What to send as `from`; `None` is the beginning of the queue.
    pub from: Option<Cursor>,
    /// The newest `next` that the vendor gave in this run.
    pub previous_next: Option<Cursor>,
    /// How many entries the run's page before this one held; 0 where there was none.
    pub previous_entries: usize,
}

/// A page on its way into the store.
#[derive(Clone, Debug, Default)]
pub struct PageToCommit {
    /// Its documents, in the vendor's order.
    pub documents: Vec<DocumentVersion>,
    /// Entries without a usable `id`, set aside.
    pub unidentified: Vec<SetAside>,
    /// The vendor's `next`, or what stands for it; becomes the feed's cursor as
    /// the kind of pull demands. `None` leaves the cursor as it is.
    pub cursor: Option<Cursor>,
    /// What the run sends as `from` next.
    pub next_from: Option<Cursor>,
    /// What the caller concluded about the run's end.
    pub end: PageEnd,
    /// Companies seen in a page of the digitized queue: their exported feeds are
    /// made known and reconciled.
    pub companies: Vec<Company>,
    /// The vendor's paging may have left documents out here (vendor-api U14, U15).
    pub possible_gap: bool,
    /// Documents that say which of our uploads they were made of.
    pub uploads: Vec<UploadReturn>,
}

/// A document that carries the correlation data of a file that we uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadReturn {
    /// [`UploadRow::correlation`].
    pub correlation: String,
    /// The vendor's id of the document.
    pub document_id: String,
}

/// An entry that has no usable `id`.
#[derive(Clone, PartialEq, Eq)]
pub struct SetAside {
    /// What stays the same whenever the vendor lists it: an entry like it is kept once.
    pub likeness: Vec<u8>,
    /// The entry, byte for byte.
    pub body: Vec<u8>,
}

/// Whether a page is its run's last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageEnd {
    /// More pages follow.
    #[default]
    More,
    /// The feed is up to date.
    UpToDate,
}

/// What storing a page did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCommitted {
    /// Versions that were not there before.
    pub new: usize,
    /// Versions that were.
    pub known: usize,
    /// Whether the run has come to its end.
    pub up_to_date: bool,
    /// New versions that this feed should have been told of, and was not.
    pub lost_hints: usize,
}

/// What people are told of a feed whose company the vendor ignored: what happened, and
/// what to do.
pub const COMPANY_FILTER_IGNORED: &str = "Įvesk.lt gave another company's documents: it ignored the company in the \
     request. Check `api.exported_path`, then run `ivesk-webhook pull --resume`";

/// What storing a page came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageOutcome {
    /// It is stored.
    Committed(PageCommitted),
    /// Every document belongs to another company already: the vendor ignored the
    /// company filter. Nothing was stored, and the feed is parked.
    CompanyFilterIgnored,
}

/// What a failed request means for the work that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFailure {
    /// The whole account waits until then.
    AccountWaits(Timestamp),
    /// This feed alone waits until then.
    FeedWaits(Timestamp),
    /// A person should look at this feed; it is tried once more at `retry_at`.
    FeedParked {
        /// Why.
        reason: ParkReason,
        /// When it is tried again.
        retry_at: Timestamp,
    },
    /// A person should look at the whole account; it is tried once more at `retry_at`.
    AccountParked {
        /// Why.
        reason: ParkReason,
        /// When it is tried again.
        retry_at: Timestamp,
    },
}

/// Why a feed or an account is not pulled any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ParkReason {
    /// The vendor answered 401: the key is wrong or withdrawn.
    Unauthorized,
    /// The vendor answered 403: the key may not read this.
    Forbidden,
    /// The vendor answered 404: no such company, or `api.exported_path` is wrong.
    NotFound,
    /// The vendor gave one company's documents for another.
    CompanyFilterIgnored,
    /// A person parked it.
    ByHand,
}

impl ParkReason {
    /// All reasons.
    pub const ALL: [Self; 5] = [
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::CompanyFilterIgnored,
        Self::ByHand,
    ];

    /// The reason's name in the store, in logs and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::CompanyFilterIgnored => "company_filter_ignored",
            Self::ByHand => "by_hand",
        }
    }
}

/// A feed as people see it.
#[derive(Clone, Debug, Serialize)]
pub struct FeedRow {
    /// The feed.
    #[serde(flatten)]
    pub feed: Feed,
    /// Its cursor.
    pub cursor: Option<Cursor>,
    /// When a page of it was last stored.
    pub last_page_at: Option<Timestamp>,
    /// When it was last known to be up to date.
    pub up_to_date_at: Option<Timestamp>,
    /// When its first pull came to its end.
    pub first_complete_at: Option<Timestamp>,
    /// Versions stored.
    pub documents: u64,
    /// Versions that no notification told of: newer than the last one, and found when
    /// the feed was looked at anyway.
    pub lost_hints: u64,
    /// Pages whose edge may have hidden documents.
    pub possible_gaps: u64,
    /// Entries of its pages that have no usable `id`, set aside.
    pub unidentified: u64,
    /// Why it is not pulled.
    pub parked: Option<ParkReason>,
    /// Not pulled before this moment.
    pub waits_until: Option<Timestamp>,
    /// Failures since the last success.
    pub failures: u32,
    /// What the last failure was.
    pub last_error: Option<String>,
    /// Kinds of pull that are due or under way.
    pub wanted: Vec<PullKind>,
}

/// An account's state as people see it.
#[derive(Clone, Debug, Serialize)]
pub struct AccountRow {
    /// Its name.
    pub account: Account,
    /// Why nothing of it is pulled.
    pub parked: Option<ParkReason>,
    /// Nothing of it is asked for before this moment.
    pub waits_until: Option<Timestamp>,
    /// Failures since the last success.
    pub failures: u32,
    /// What the last failure was.
    pub last_error: Option<String>,
}

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
#[derive(Clone, Serialize)]
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
    pub found_by: PullKind,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// The JSON as the vendor sent it. The schema allows none; nothing removes it in this
    /// version.
    #[serde(skip)]
    pub body: Option<Vec<u8>>,
}

/// A refused delivery, kept for a while.
#[derive(Clone)]
pub struct Quarantined {
    /// When it came.
    pub received_at: Timestamp,
    /// Whose webhook it came to.
    pub account: Account,
    /// Which event's webhook it came to.
    pub event: Event,
    /// [`crate::refusal::Refusal::code`].
    pub reason: String,
    /// Whether it claims to be from an allowed topic: those have a share of their own.
    pub allowed_topic: bool,
    /// The SNS headers, `name: value` lines.
    pub headers: String,
    /// The body as it came.
    pub body: Bytes,
}

/// A row of the quarantine.
#[derive(Clone, Serialize)]
pub struct QuarantineRow {
    /// Ascending in the order of arrival.
    pub id: i64,
    /// When it came.
    pub received_at: Timestamp,
    /// Whose webhook it came to.
    pub account: Account,
    /// Which event's webhook it came to.
    pub event: Event,
    /// Why it was refused.
    pub reason: String,
    /// The SNS headers, `name: value` lines.
    #[serde(skip)]
    pub headers: String,
    /// Length of the body in bytes.
    pub size_bytes: u64,
    /// The body as it came.
    #[serde(skip)]
    pub body: Vec<u8>,
}

/// Where a subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// The vendor was asked; SNS has not spoken yet.
    Requested,
    /// SNS asked, and a person must approve.
    AwaitingApproval,
    /// SNS asked, and `SubscribeURL` is to be visited.
    Pending,
    /// `SubscribeURL` was visited and SNS gave the subscription's ARN.
    Confirmed,
    /// SNS says that it has ended.
    Unsubscribed,
}

impl SubscriptionState {
    /// All states.
    pub const ALL: [Self; 5] = [
        Self::Requested,
        Self::AwaitingApproval,
        Self::Pending,
        Self::Confirmed,
        Self::Unsubscribed,
    ];

    /// The state's name in the store and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
            Self::Unsubscribed => "unsubscribed",
        }
    }
}

/// A subscription as the store knows it.
#[derive(Clone, Debug, Serialize)]
pub struct SubscriptionRow {
    /// The row.
    pub id: i64,
    /// Whose webhook.
    pub account: Account,
    /// Which event's webhook.
    pub event: Event,
    /// The name given to the vendor, where we asked.
    pub name: Option<String>,
    /// The topic, once SNS has spoken.
    pub topic_arn: Option<String>,
    /// The subscription's ARN, once confirmed.
    pub subscription_arn: Option<String>,
    /// Where it stands.
    pub state: SubscriptionState,
    /// When the row was made.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub changed_at: Timestamp,
    /// When `SubscribeURL` is to be visited (again).
    pub next_try_at: Option<Timestamp>,
    /// Visits of `SubscribeURL` that failed.
    pub attempts: u32,
    /// What the last failure was.
    pub last_error: Option<String>,
    /// The signed `SubscribeURL`; a secret.
    #[serde(skip)]
    pub subscribe_url: Option<SecretString>,
    /// The signed `Token`; a secret.
    #[serde(skip)]
    pub token: Option<SecretString>,
}

/// What changes in a subscription.
#[derive(Clone, Debug)]
pub enum SubscriptionChange {
    /// A person approved it: [`SubscriptionState::Pending`], due now.
    Approved,
    /// SNS confirmed it under this ARN.
    Confirmed {
        /// The subscription's ARN.
        subscription_arn: String,
    },
    /// Visiting `SubscribeURL` failed.
    TryFailed {
        /// What went wrong, without the URL.
        error: String,
        /// When to try again; `None` gives up.
        next_try_at: Option<Timestamp>,
    },
    /// A person wants an ended subscription back: its `SubscribeURL` is due now.
    Restored,
}

/// A signing certificate that has verified a message.
#[derive(Clone, Debug)]
pub struct CertificateRow {
    /// Its `SigningCertURL`.
    pub url: String,
    /// PEM as served.
    pub pem: Vec<u8>,
    /// When it was fetched.
    pub fetched_at: Timestamp,
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
    /// Send it, then say how that ended ([`Store::end_upload`]).
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, Serialize)]
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

/// How long a document may take to come back. No source says how long digitisation
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

/// How long things are kept.
#[derive(Clone, Debug)]
pub struct Retention {
    /// Bodies of notifications older than this go.
    pub notifications_before: Timestamp,
    /// Quarantined deliveries older than this go.
    pub quarantine_before: Timestamp,
}

/// What a retention step removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Retained {
    /// Bodies of notifications.
    pub notification_bodies: usize,
    /// Quarantined deliveries.
    pub quarantined: usize,
}

/// Where the store stands in its numbering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SequenceRow {
    /// Changes whenever a backup is restored.
    pub epoch: String,
    /// The newest sequence number; 0 where nothing is stored.
    pub last: i64,
}

/// What is kept, and every change of it. All methods may be called twice.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The clock that all who share this store live by; `None` where nobody else does,
    /// and the machine's own is as good.
    fn clock(&self) -> Option<Clock> {
        None
    }

    /// Stores a verified message and raises its hint, in one transaction that is
    /// synced to disk when this returns.
    ///
    /// A SubscriptionConfirmation also becomes a pending subscription, awaiting
    /// approval where `ask` was set at opening; an UnsubscribeConfirmation ends one.
    async fn accept(&self, delivery: Accepted) -> Result<Insertion, StoreError>;

    /// Whether a delivery would be stored now; it goes the way of one, and stores nothing.
    ///
    /// # Errors
    ///
    /// What the delivery would be answered.
    async fn probe(&self) -> Result<(), StoreError>;

    /// Offers a refused delivery to the quarantine; false where it was dropped
    /// because the way there is full. Never waits.
    fn offer_quarantine(&self, item: Quarantined) -> bool;

    /// Stored notifications after row `after`, oldest first, at most `limit`.
    async fn notifications(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<NotificationRow>, StoreError>;

    /// Makes feeds known; new ones are due for reconciliation at `now`.
    async fn make_known(&self, feeds: Vec<Feed>, now: Timestamp) -> Result<(), StoreError>;

    /// Makes feeds known and raises pulls of them.
    async fn demand(&self, demands: Vec<Demand>) -> Result<(), StoreError>;

    /// Makes every known feed due for reconciliation at `due_at`, if it is not sooner.
    async fn demand_reconciliation(&self, due_at: Timestamp) -> Result<usize, StoreError>;

    /// Leases the most urgent feed that may be asked for now.
    async fn lease_page(&self, request: LeaseRequest) -> Result<Option<PageLease>, StoreError>;

    /// Stores a page, its cursor and what follows from it, and gives the lease back.
    ///
    /// `follow_ups` are raised when a run that served a hint ends, and
    /// `reconcile_every` later the next reconciliation when one ends.
    async fn commit_page(
        &self,
        lease: PageLease,
        page: PageToCommit,
        plan: PullPlan,
    ) -> Result<PageOutcome, StoreError>;

    /// Notes a failed request and gives the lease back.
    async fn fail_page(
        &self,
        lease: PageLease,
        failure: PageFailure,
        error: String,
    ) -> Result<(), StoreError>;

    /// Gives a lease back with nothing done: the service is stopping.
    async fn release_page(&self, lease: PageLease) -> Result<(), StoreError>;

    /// When something is next due; `None` where nothing ever is.
    async fn next_due(&self, request: LeaseRequest) -> Result<Option<Timestamp>, StoreError>;

    /// Returns when a demand may have been raised since the last call: a hint to
    /// look at the rows, never the work itself.
    async fn demand_raised(&self);

    /// Parks feeds by hand, or frees them; all of an account's where `feed` is none.
    /// Gives how many changed.
    async fn set_parked(
        &self,
        account: Account,
        feed: Option<Feed>,
        parked: bool,
    ) -> Result<usize, StoreError>;

    /// Every feed.
    async fn feeds(&self) -> Result<Vec<FeedRow>, StoreError>;

    /// Every account.
    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError>;

    /// Documents in ascending sequence.
    async fn documents(&self, filter: DocumentFilter) -> Result<Vec<DocumentRow>, StoreError>;

    /// Which of these versions of `feed` are stored already.
    async fn known_versions(
        &self,
        feed: Feed,
        versions: Vec<(String, String)>,
    ) -> Result<Vec<bool>, StoreError>;

    /// Where the numbering stands.
    async fn sequence(&self) -> Result<SequenceRow, StoreError>;

    /// Notes that the vendor was asked for a subscription.
    async fn subscription_requested(
        &self,
        account: Account,
        event: Event,
        name: String,
        now: Timestamp,
    ) -> Result<i64, StoreError>;

    /// Every subscription.
    async fn subscriptions(&self) -> Result<Vec<SubscriptionRow>, StoreError>;

    /// Changes one; `None` where there is no such row or its state does not allow it.
    async fn change_subscription(
        &self,
        id: i64,
        change: SubscriptionChange,
        now: Timestamp,
    ) -> Result<Option<SubscriptionRow>, StoreError>;

    /// Quarantined deliveries after row `after`, oldest first, at most `limit`.
    async fn quarantine(&self, after: i64, limit: usize) -> Result<Vec<QuarantineRow>, StoreError>;

    /// Removes one quarantined delivery.
    async fn remove_quarantined(&self, id: i64) -> Result<(), StoreError>;

    /// Certificates that have verified a message, newest first.
    async fn certificates(&self) -> Result<Vec<CertificateRow>, StoreError>;

    /// Keeps a certificate that has verified a message; the oldest of more than 32 go.
    async fn keep_certificate(&self, certificate: CertificateRow) -> Result<(), StoreError>;

    /// Claims a file's content for sending, or tells that this is not to be done.
    async fn begin_upload(&self, upload: NewUpload) -> Result<UploadBegun, StoreError>;

    /// Notes how `owner`'s attempt ended; false where it is not its own any more, and
    /// nothing was changed then.
    async fn end_upload(
        &self,
        id: i64,
        owner: String,
        end: UploadEnd,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Uploads in ascending order of their rows.
    async fn uploads(&self, filter: UploadFilter) -> Result<Vec<UploadRow>, StoreError>;

    /// Removes what is older than `retention` says, a bounded part of it at a time.
    async fn retain(&self, retention: Retention) -> Result<Retained, StoreError>;

    /// Writes a complete copy to `to` while the service runs; a file that is there is
    /// replaced, but for the store's own ([`StoreError::BackupOntoItself`]).
    async fn backup(&self, to: PathBuf) -> Result<(), StoreError>;

    /// Bytes that are free on the disk of the store; `None` where it isn't ours to know.
    async fn free_bytes(&self) -> Result<Option<u64>, StoreError>;

    /// Finishes what was taken on and closes; later calls answer [`StoreError::Closed`].
    async fn close(&self) -> Result<(), StoreError>;
}

/// What follows a page that ends its run.
#[derive(Clone, Debug)]
pub struct PullPlan {
    /// The present moment.
    pub now: Timestamp,
    /// How long after a served hint the feed is looked at again.
    pub follow_ups: [Duration; 2],
    /// How long after a reconciliation the next one is due.
    pub reconcile_every: Duration,
    /// Cursors older than this are kept only as far as an overlap read needs one.
    pub lookback: Duration,
}
