//! All SQL: the [`Store`] trait, and the types that go in and out of it.
//!
//! Callers pass the time from their [`Clock`], so that tests can set it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::{Account, Clock, Event, Feed, Timestamp};
use crate::sns::UnknownTopicConfirmation;

mod accounts;
mod activity;
mod alarms;
mod allowed_topics;
mod certificates;
mod columns;
mod completion;
mod debug;
mod deliveries;
mod delivery_lists;
mod documents;
mod engine;
mod error;
mod feeds;
mod import_errors;
mod limits;
mod links;
mod messages;
mod migrations;
mod outcomes;
mod pausing;
pub mod postgres;
mod pulls;
mod quarantine;
mod retention;
mod run_state;
pub mod sqlite;
mod subscription_messages;
mod subscriptions;
mod tokens;
mod triggers;
mod uploads;

pub use activity::*;
pub use alarms::*;
pub use certificates::*;
pub use deliveries::*;
pub use documents::*;
pub use error::*;
pub use feeds::*;
pub use import_errors::*;
pub use messages::*;
pub use quarantine::*;
pub use retention::*;
pub use run_state::*;
pub use subscription_messages::{MAX_UNKNOWN_TOPICS, UnknownTopicOffer};
pub use subscriptions::*;
pub use tokens::*;
pub use uploads::*;

/// A shared handle to the store.
pub type SharedStore = Arc<dyn Store>;

/// The store, apart from deliveries. Every method may be called twice with the same effect.
#[async_trait]
pub trait Store: DeliveryStore {
    /// Returns the clock that all processes on this store share; `None` if no other
    /// process shares it and the machine's own clock will do.
    fn clock(&self) -> Option<Clock> {
        None
    }

    /// Stores a verified message and raises its trigger, in one transaction that is
    /// synced to disk when this returns.
    ///
    /// A SubscriptionConfirmation also adds a pending subscription, which awaits a
    /// person's approval if the store was opened so; an UnsubscribeConfirmation ends one.
    async fn accept(&self, incoming: AcceptedMessage) -> Result<Insertion, StoreError>;

    /// Checks that a message could be stored now, on the path that messages take.
    ///
    /// # Errors
    ///
    /// The error that storing a message would return.
    async fn probe(&self) -> Result<(), StoreError>;

    /// Offers a refused message to the quarantine; returns false if it was dropped
    /// because the queue is full. Never waits.
    fn offer_quarantine(&self, item: Quarantined) -> bool;

    /// Returns the lengths of this process's write queues. Never waits.
    fn queue_lengths(&self) -> QueueLengths;

    /// Lists at most `limit` stored notifications after row `after`, oldest first.
    async fn notifications(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<NotificationRow>, StoreError>;

    /// Adds feeds that are not known yet, due for reconciliation at `now`.
    async fn register_feeds(&self, feeds: Vec<Feed>, now: Timestamp) -> Result<(), StoreError>;

    /// Raises triggers, adding feeds that are not known yet.
    async fn trigger(&self, triggers: Vec<Trigger>) -> Result<(), StoreError>;

    /// Makes every known feed due for reconciliation at `due_at`, unless it is due sooner;
    /// returns the number of feeds.
    async fn trigger_reconciliation(&self, due_at: Timestamp) -> Result<usize, StoreError>;

    /// Leases the most urgent feed that may be requested now.
    async fn lease_page(&self, request: LeaseRequest) -> Result<Option<PageLease>, StoreError>;

    /// Stores a page with its cursor, raises the triggers that follow, and releases the
    /// lease.
    ///
    /// A pull that ends raises `follow_ups` if a notification triggered it, and the next
    /// reconciliation `reconcile_every` later if it was one.
    async fn commit_page(
        &self,
        lease: PageLease,
        page: PageToCommit,
        plan: PullPlan,
    ) -> Result<PageOutcome, StoreError>;

    /// Records a failed request and releases the lease.
    async fn fail_page(
        &self,
        lease: PageLease,
        failure: PageFailure,
        error: String,
    ) -> Result<(), StoreError>;

    /// Releases a lease without a result, as when the service stops.
    async fn release_page(&self, lease: PageLease) -> Result<(), StoreError>;

    /// Returns the moment when the next trigger is due; `None` if there is none.
    async fn next_due(&self, request: LeaseRequest) -> Result<Option<Timestamp>, StoreError>;

    /// Waits until a trigger may have been raised since the last call. The rows decide
    /// what is due.
    async fn triggered(&self);

    /// Pauses or resumes one feed, or all feeds of the account if `feed` is none; returns
    /// the number of feeds that changed.
    async fn set_paused(
        &self,
        account: Account,
        feed: Option<Feed>,
        paused: bool,
    ) -> Result<usize, StoreError>;

    /// Lists all feeds.
    async fn feeds(&self) -> Result<Vec<FeedRow>, StoreError>;

    /// Lists all accounts.
    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError>;

    /// Lists documents in ascending sequence.
    async fn documents(&self, filter: DocumentFilter) -> Result<Vec<DocumentRow>, StoreError>;

    /// Searches documents in descending sequence, a bounded number per call: one document's
    /// or one company's versions by index, otherwise a stretch of the sequence.
    async fn search_documents(&self, search: DocumentSearch) -> Result<FoundDocuments, StoreError>;

    /// Returns for each of these (id, version) pairs whether `feed` has it already.
    async fn known_versions(
        &self,
        feed: Feed,
        versions: Vec<(String, String)>,
    ) -> Result<Vec<bool>, StoreError>;

    /// Returns the state of the numbering.
    async fn sequence(&self) -> Result<SequenceRow, StoreError>;

    /// Records that a subscription was requested from the vendor; returns its row.
    async fn subscription_requested(
        &self,
        account: Account,
        event: Event,
        name: String,
        now: Timestamp,
    ) -> Result<i64, StoreError>;

    /// Lists all subscriptions.
    async fn subscriptions(&self) -> Result<Vec<SubscriptionRow>, StoreError>;

    /// Keeps a confirmation of a topic that is not allowed for a person. `valid_since` is when
    /// the oldest token that is still valid was sent.
    async fn offer_unknown_topic(
        &self,
        account: Account,
        event: Event,
        confirmation: Arc<UnknownTopicConfirmation>,
        received_at: Timestamp,
        valid_since: Timestamp,
    ) -> Result<UnknownTopicOffer, StoreError>;

    /// Lists at most `limit` topics that a person allowed.
    async fn allowed_topics(&self, limit: usize) -> Result<Vec<String>, StoreError>;

    /// Returns true if a person allowed this topic.
    async fn is_topic_allowed(&self, topic_arn: String) -> Result<bool, StoreError>;

    /// Changes a subscription; `None` if the row does not exist or its state does not
    /// allow the change.
    async fn change_subscription(
        &self,
        id: i64,
        change: SubscriptionChange,
        now: Timestamp,
    ) -> Result<Option<SubscriptionRow>, StoreError>;

    /// Lists at most `limit` quarantined messages after row `after`, oldest first.
    async fn quarantine(&self, after: i64, limit: usize) -> Result<Vec<QuarantineRow>, StoreError>;

    /// Removes a quarantined message.
    async fn remove_quarantined(&self, id: i64) -> Result<(), StoreError>;

    /// Counts what arrived since a moment, by hour.
    async fn activity(&self, since: Timestamp) -> Result<Activity, StoreError>;

    /// Lists certificates that have verified a message, newest first.
    async fn certificates(&self) -> Result<Vec<CertificateRow>, StoreError>;

    /// Stores a certificate that has verified a message; only the newest are kept.
    async fn keep_certificate(&self, certificate: CertificateRow) -> Result<(), StoreError>;

    /// Stores a token of the admin listener.
    async fn make_api_token(&self, token: NewApiToken) -> Result<ApiTokenMade, StoreError>;

    /// Lists the tokens of the admin listener, oldest first.
    async fn api_tokens(&self) -> Result<Vec<ApiTokenRow>, StoreError>;

    /// Returns the token with this SHA-256 digest.
    async fn api_token(&self, hash: [u8; 32]) -> Result<Option<ApiTokenRow>, StoreError>;

    /// Removes a token; returns false if it does not exist.
    async fn revoke_api_token(&self, id: i64) -> Result<bool, StoreError>;

    /// Claims a file's content for sending, or returns why it is not to be sent.
    async fn begin_upload(&self, upload: NewUpload) -> Result<UploadBegun, StoreError>;

    /// Records how `owner`'s attempt ended; returns false, with nothing changed, if it no
    /// longer owns the upload.
    async fn end_upload(
        &self,
        id: i64,
        owner: String,
        end: UploadEnd,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Lists at most `limit` uploads, newest first, from row `before` downwards if given.
    async fn newest_uploads(
        &self,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<UploadRow>, StoreError>;

    /// Lists uploads, oldest first.
    async fn uploads(&self, filter: UploadFilter) -> Result<Vec<UploadRow>, StoreError>;

    /// Raises, continues and ends alarms according to an observation. Each change is
    /// returned by exactly one call, on whichever replica.
    async fn update_alarms(
        &self,
        observation: AlarmObservation,
    ) -> Result<AlarmChanges, StoreError>;

    /// Lists alarms in the order in which they were raised.
    async fn alarms(&self, filter: AlarmFilter) -> Result<Vec<AlarmRow>, StoreError>;

    /// Leases the alarm whose notice is due first; nobody else sends it until the lease
    /// expires.
    async fn lease_notice(
        &self,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<AlarmNotice>, StoreError>;

    /// Records how sending a notice ended; returns false, with nothing changed, if another
    /// process has leased it since.
    async fn end_notice(
        &self,
        notice: AlarmNotice,
        end: NoticeEnd,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Counts, per queue, documents stored by `stored_by` that no notification announced
    /// since the queue's last one; among the newest thousand documents.
    async fn unannounced_documents(
        &self,
        stored_by: Timestamp,
    ) -> Result<Vec<UnannouncedDocuments>, StoreError>;

    /// Removes a bounded number of the rows and bodies that `retention` names.
    async fn retain(&self, retention: Retention) -> Result<RetentionOutcome, StoreError>;

    /// Writes a complete copy to `to` while the service runs; an existing file is
    /// replaced.
    ///
    /// # Errors
    ///
    /// [`StoreError::BackupOntoItself`] if `to` is the store or one of its files.
    async fn backup(&self, to: PathBuf) -> Result<(), StoreError>;

    /// Returns the free bytes of the store's disk; `None` if the store is not on a disk
    /// of this machine.
    async fn free_bytes(&self) -> Result<Option<u64>, StoreError>;

    /// Finishes queued work and closes the store; later calls return
    /// [`StoreError::Closed`].
    async fn close(&self) -> Result<(), StoreError>;
}
