//! All SQL. One trait; the types that go in and out of it.
//!
//! Times are given by the caller's [`Clock`], so that a
//! test can set them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use crate::domain::{Account, Clock, DestinationName, Event, Feed, Timestamp};

mod activity;
mod alarms;
mod debug;
mod deliveries;
mod documents;
mod feeds;
mod messages;
mod outcomes;
pub mod postgres;
mod pulls;
mod run_state;
pub mod sqlite;
mod tokens;
mod words;

pub use activity::*;
pub use alarms::*;
pub use deliveries::*;
pub use documents::*;
pub use feeds::*;
pub use messages::*;
pub use run_state::*;
pub use tokens::*;

/// A handle to the store that everything shares.
pub type SharedStore = Arc<dyn Store>;

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// More messages are waiting than the queue holds.
    #[error("more messages are waiting than the queue holds")]
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
    #[error("{} is in use by another ivesk-webhook process; stop it first, or let it do the work through its admin address", path.display())]
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

/// How long things are kept.
#[derive(Clone, Debug)]
pub struct Retention {
    /// Bodies of notifications older than this go.
    pub notifications_before: Timestamp,
    /// Bodies of documents go that a destination booked before this, and that none of
    /// [`Retention::destinations`] has still to be given.
    pub documents_before: Timestamp,
    /// The destinations of the settings.
    pub destinations: Vec<DestinationName>,
    /// Links to files that were listed before this go.
    pub links_before: Timestamp,
    /// Quarantined messages older than this go.
    pub quarantine_before: Timestamp,
    /// Alarms that were over before this go.
    pub alarms_before: Timestamp,
}

/// What a retention step removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Retained {
    /// Bodies of notifications.
    pub notification_bodies: usize,
    /// Bodies of documents.
    pub document_bodies: usize,
    /// Quarantined messages.
    pub quarantined: usize,
    /// Alarms.
    pub alarms: usize,
}

/// Where the store stands in its numbering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct SequenceRow {
    /// Changes whenever a backup is restored.
    pub epoch: String,
    /// The newest sequence number; 0 where nothing is stored.
    pub last: i64,
}

/// What is kept, and every change of it. All methods may be called twice.
#[async_trait]
pub trait Store: DeliveryStore {
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
    async fn accept(&self, incoming: AcceptedMessage) -> Result<Insertion, StoreError>;

    /// Whether a message would be stored now; it goes the way of one, and stores nothing.
    ///
    /// # Errors
    ///
    /// What the message would be answered.
    async fn probe(&self) -> Result<(), StoreError>;

    /// Offers a refused message to the quarantine; false where it was dropped
    /// because the way there is full. Never waits.
    fn offer_quarantine(&self, item: Quarantined) -> bool;

    /// What waits in this process to be written. Never waits itself.
    fn waiting(&self) -> Waiting;

    /// Stored notifications after row `after`, oldest first, at most `limit`.
    async fn notifications(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<NotificationRow>, StoreError>;

    /// Makes feeds known; new ones are due for reconciliation at `now`.
    async fn register_feeds(&self, feeds: Vec<Feed>, now: Timestamp) -> Result<(), StoreError>;

    /// Makes feeds known and raises pulls of them.
    async fn trigger(&self, triggers: Vec<Trigger>) -> Result<(), StoreError>;

    /// Makes every known feed due for reconciliation at `due_at`, if it is not sooner.
    async fn trigger_reconciliation(&self, due_at: Timestamp) -> Result<usize, StoreError>;

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

    /// Returns when a trigger may have been raised since the last call: a hint to
    /// look at the rows, never the work itself.
    async fn triggered(&self);

    /// Pauses feeds by hand, or frees them; all of an account's where `feed` is none.
    /// Gives how many changed.
    async fn set_paused(
        &self,
        account: Account,
        feed: Option<Feed>,
        paused: bool,
    ) -> Result<usize, StoreError>;

    /// Every feed.
    async fn feeds(&self) -> Result<Vec<FeedRow>, StoreError>;

    /// Every account.
    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError>;

    /// Documents in ascending sequence.
    async fn documents(&self, filter: DocumentFilter) -> Result<Vec<DocumentRow>, StoreError>;

    /// A bounded look at documents in descending sequence: through one document's or one
    /// company's by an index, else through a stretch of the sequence.
    async fn search_documents(&self, look: DocumentSearch) -> Result<FoundDocuments, StoreError>;

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

    /// Quarantined messages after row `after`, oldest first, at most `limit`.
    async fn quarantine(&self, after: i64, limit: usize) -> Result<Vec<QuarantineRow>, StoreError>;

    /// Removes one quarantined message.
    async fn remove_quarantined(&self, id: i64) -> Result<(), StoreError>;

    /// What came since a moment, hour by hour.
    async fn activity(&self, since: Timestamp) -> Result<Activity, StoreError>;

    /// Certificates that have verified a message, newest first.
    async fn certificates(&self) -> Result<Vec<CertificateRow>, StoreError>;

    /// Keeps a certificate that has verified a message; the oldest of more than 32 go.
    async fn keep_certificate(&self, certificate: CertificateRow) -> Result<(), StoreError>;

    /// Makes a token of the admin listener known.
    async fn make_api_token(&self, token: NewApiToken) -> Result<ApiTokenMade, StoreError>;

    /// Every token of the admin listener, in the order in which they were made.
    async fn api_tokens(&self) -> Result<Vec<ApiTokenRow>, StoreError>;

    /// The token whose SHA-256 this is.
    async fn api_token(&self, hash: [u8; 32]) -> Result<Option<ApiTokenRow>, StoreError>;

    /// Forgets a token; false where there is none of this number.
    async fn revoke_api_token(&self, id: i64) -> Result<bool, StoreError>;

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

    /// Uploads in descending order of their rows, those before row `before` where there
    /// is one.
    async fn newest_uploads(
        &self,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<UploadRow>, StoreError>;

    /// Uploads in ascending order of their rows.
    async fn uploads(&self, filter: UploadFilter) -> Result<Vec<UploadRow>, StoreError>;

    /// Begins, goes on with and ends alarms as a look found things. What it gives was
    /// changed by this call and by no other, on whichever replica.
    async fn update_alarms(&self, look: AlarmObservation) -> Result<AlarmChanges, StoreError>;

    /// Alarms in the order in which they began.
    async fn alarms(&self, filter: AlarmFilter) -> Result<Vec<AlarmRow>, StoreError>;

    /// Takes the alarm that is to be told first; nobody else tells it for so long.
    async fn lease_notice(
        &self,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<AlarmNotice>, StoreError>;

    /// Notes how telling ended; false where another process has taken it over, and
    /// nothing was changed then.
    async fn end_notice(
        &self,
        notice: AlarmNotice,
        end: NoticeEnd,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Documents, stored by `stored_by`, that no notification has told of since the last
    /// one of their queue; among the newest thousand documents.
    async fn unannounced_documents(
        &self,
        stored_by: Timestamp,
    ) -> Result<Vec<UnannouncedDocuments>, StoreError>;

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
