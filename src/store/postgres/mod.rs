//! The store on PostgreSQL: one database that any number of replicas share.
//!
//! Sessions keep no state (no prepared statement, no LISTEN, no session lock), so that
//! PgBouncer in transaction mode can be used. Due times and leases go by the database's clock.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::connection::{Pool, Transaction};
use self::ingest::{Ingest, PendingMessage};
use self::quarantine::QuarantineCommand;
use super::activity::CountActivity;
use super::alarms::{CountUnannounced, EndNotice, LeaseNotice};
use super::allowed_topics::{IsTopicAllowed, ListAllowedTopics};
use super::certificates::{KeepCertificate, ListCertificates};
use super::documents::ReadSequence;
use super::engine::Operation;
use super::feeds::{ListAccounts, ListFeeds};
use super::limits::QUARANTINE_QUEUE;
use super::messages::ListNotifications;
use super::pausing::{FailPage, ReleasePage, ResumeAtStart, SetPaused};
use super::quarantine::{ListQuarantined, RemoveQuarantined};
use super::subscription_messages::OfferUnknownTopic;
use super::subscriptions::{ChangeSubscription, ListSubscriptions, RecordSubscriptionRequest};
use super::tokens::{FindApiToken, ListApiTokens, RevokeApiToken};
use super::triggers::{TriggerReconciliation, raise_all};
use super::uploads::{EndUpload, ListNewestUploads};
use super::{
    AcceptedMessage, AccountRow, Activity, AlarmChanges, AlarmFilter, AlarmNotice,
    AlarmObservation, AlarmRow, ApiTokenMade, ApiTokenRow, CertificateRow, DocumentFilter,
    DocumentRow, DocumentSearch, FeedRow, FoundDocuments, Insertion, LeaseRequest, NewApiToken,
    NewUpload, NoticeEnd, NotificationRow, PageFailure, PageLease, PageOutcome, PageToCommit,
    PullPlan, QuarantineRow, Quarantined, Retention, RetentionOutcome, SequenceRow, Store,
    StoreError, SubscriptionChange, SubscriptionRow, Trigger, UnannouncedDocuments,
    UnknownTopicOffer, UploadBegun, UploadEnd, UploadFilter, UploadRow,
};
use crate::config::PostgresAddress;
use crate::domain::{Account, Clock, Event, Feed, Timestamp};
use crate::sns::UnknownTopicConfirmation;

pub use self::copy::{Copied, Progress, copy_from_sqlite};

// Defined above the modules, which use them too.
/// Reads in one snapshot: `read_transaction!(self, destinations::list())`.
macro_rules! read_transaction {
    ($store:expr, $module:ident :: $function:ident ( $($argument:expr),* )) => {{
        let transaction = $store.pool.read().await?;
        let rows = $module::$function(&transaction $(, $argument)*).await?;
        transaction.commit().await?;
        Ok(rows)
    }};
}

/// Changes in one transaction: `write_transaction!(self, destinations::register(&destinations))`.
macro_rules! write_transaction {
    ($store:expr, $module:ident :: $function:ident ( $($argument:expr),* )) => {{
        let transaction = $store.begin().await?;
        let outcome = $module::$function(&transaction $(, $argument)*).await?;
        transaction.commit().await?;
        outcome
    }};
}

mod connection;
mod copy;
mod deliveries;
mod delivery_rows;
mod delivery_store;
mod destinations;
mod error;
mod ingest;
mod leases;
mod pages;
mod quarantine;
mod reading;
mod rows;
mod schema;
mod tx;

/// Interval at which a worker checks the rows for triggers of other replicas.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Options of a [`PostgresStore`].
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// The database.
    pub address: PostgresAddress,
    /// Maximum number of messages that wait for the next commit.
    pub queue: usize,
    /// Maximum number of bytes of refused messages.
    pub quarantine_bytes: u64,
    /// True if new subscriptions wait for a person's approval.
    pub ask: bool,
    /// This machine's clock, corrected by the database's; a test's clock, set by hand, is
    /// used instead.
    pub clock: Clock,
}

/// The channels to the tasks that write.
struct Senders {
    messages: mpsc::Sender<PendingMessage>,
    quarantine: mpsc::Sender<QuarantineCommand>,
}

/// The store on PostgreSQL.
pub struct PostgresStore {
    pool: Arc<Pool>,
    read_only: bool,
    senders: Mutex<Option<Senders>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    trigger: Arc<Notify>,
    arrivals: watch::Sender<()>,
}

impl PostgresStore {
    /// Opens the database, which other replicas may use too, and migrates it as needed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unreachable`], [`StoreError::NewerSchema`], and other errors of the
    /// database.
    pub async fn open(options: PostgresOptions) -> Result<Self, StoreError> {
        let pool = Arc::new(Pool::new(options.address, options.clock)?);
        schema::migrate(&pool).await?;
        let mut transaction = pool.write().await?;
        ResumeAtStart.run(&mut transaction).await?;
        transaction.commit().await?;
        let trigger = Arc::new(Notify::new());
        let (messages, arriving) = mpsc::channel(options.queue.max(1));
        let (quarantine, refused) = mpsc::channel(QUARANTINE_QUEUE);
        let ingest = Ingest {
            pool: Arc::clone(&pool),
            trigger: Arc::clone(&trigger),
            ask: options.ask,
        };
        let tasks = vec![
            tokio::spawn(ingest.run(arriving)),
            tokio::spawn(quarantine::run(
                Arc::clone(&pool),
                options.quarantine_bytes,
                refused,
            )),
        ];
        Ok(Self {
            pool,
            read_only: false,
            senders: Mutex::new(Some(Senders {
                messages,
                quarantine,
            })),
            tasks: Mutex::new(tasks),
            trigger,
            arrivals: watch::Sender::new(()),
        })
    }

    /// Opens the database for reading.
    ///
    /// # Errors
    ///
    /// As [`PostgresStore::open`], and [`StoreError::NotPrepared`].
    pub async fn open_for_reading(address: PostgresAddress) -> Result<Self, StoreError> {
        let pool = Arc::new(Pool::new(address, Clock::system())?);
        schema::check(&pool).await?;
        Ok(Self {
            pool,
            read_only: true,
            senders: Mutex::new(None),
            tasks: Mutex::default(),
            trigger: Arc::new(Notify::new()),
            arrivals: watch::Sender::new(()),
        })
    }

    async fn begin(&self) -> Result<Transaction<'_>, StoreError> {
        self.may_write()?;
        self.pool.write().await
    }

    /// Runs an operation that writes.
    async fn write<O: Operation>(&self, operation: O) -> Result<O::Output, StoreError> {
        let mut transaction = self.begin().await?;
        match operation.run(&mut transaction).await {
            Ok(outcome) => {
                transaction.commit().await?;
                Ok(outcome)
            }
            Err(StoreError::StaleLease) => {
                transaction.roll_back().await?;
                Err(StoreError::StaleLease)
            }
            // Its connection is closed, and the server rolls it back.
            Err(error) => Err(error),
        }
    }

    /// Runs an operation that reads one snapshot.
    async fn read<O: Operation>(&self, operation: O) -> Result<O::Output, StoreError> {
        let mut transaction = self.pool.read().await?;
        let outcome = operation.run(&mut transaction).await?;
        transaction.commit().await?;
        Ok(outcome)
    }

    fn may_write(&self) -> Result<(), StoreError> {
        if self.read_only {
            Err(StoreError::ReadOnly)
        } else {
            Ok(())
        }
    }

    fn senders<T>(&self, each: impl FnOnce(&Senders) -> T) -> Option<T> {
        self.senders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(each)
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn clock(&self) -> Option<Clock> {
        Some(self.pool.time.clock())
    }

    async fn accept(&self, incoming: AcceptedMessage) -> Result<Insertion, StoreError> {
        self.may_write()?;
        let (answer, outcome) = oneshot::channel();
        let inbox = self.senders(|senders| senders.messages.clone());
        match inbox.as_ref().map(mpsc::Sender::try_reserve) {
            Some(Ok(place)) => place.send(PendingMessage { incoming, answer }),
            Some(Err(mpsc::error::TrySendError::Full(()))) => return Err(StoreError::QueueFull),
            Some(Err(mpsc::error::TrySendError::Closed(()))) | None => {
                return Err(StoreError::Closed);
            }
        }
        // Kept until the answer, it would prevent the writer from ending.
        drop(inbox);
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.may_write()?;
        // The task that stores messages must be running.
        if self.senders(|senders| senders.messages.is_closed()) != Some(false) {
            return Err(StoreError::Closed);
        }
        // A server in recovery refuses a transaction that may write; if a pooler routes it
        // elsewhere, this query detects that.
        let transaction = self.pool.write().await?;
        let row = transaction
            .query_one(
                "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean",
                &[],
            )
            .await?;
        let is_read_only: bool = row.try_get(0)?;
        transaction.commit().await?;
        if is_read_only {
            return Err(StoreError::Unreachable {
                detail: "the server is a read-only standby; name the primary in `store.url`".into(),
            });
        }
        Ok(())
    }

    fn offer_quarantine(&self, item: Quarantined) -> bool {
        self.senders(|senders| {
            senders
                .quarantine
                .try_send(QuarantineCommand::Store(item))
                .is_ok()
        })
        .unwrap_or(false)
    }

    fn queue_lengths(&self) -> super::QueueLengths {
        let lengths = self.senders(|senders| super::QueueLengths {
            messages: queue_length(&senders.messages),
            refused: queue_length(&senders.quarantine),
            changes: 0,
        });
        lengths.unwrap_or_default()
    }

    async fn notifications(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<NotificationRow>, StoreError> {
        self.read(ListNotifications { after, limit }).await
    }

    async fn register_feeds(&self, feeds: Vec<Feed>, now: Timestamp) -> Result<(), StoreError> {
        let transaction = self.begin().await?;
        let now = ingest::clamp_to_now(now, &transaction);
        rows::feed_ids(&transaction, feeds, now).await?;
        transaction.commit().await?;
        self.trigger.notify_one();
        Ok(())
    }

    async fn trigger(&self, triggers: Vec<Trigger>) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let feeds = triggers.iter().map(|trigger| trigger.feed.clone());
        let ids = rows::feed_ids(&transaction, feeds, transaction.now()).await?;
        let with_ids = triggers
            .into_iter()
            .filter_map(|trigger| Some((*ids.get(&trigger.feed)?, trigger)))
            .collect();
        raise_all(&mut transaction, with_ids).await?;
        transaction.commit().await?;
        self.trigger.notify_one();
        Ok(())
    }

    async fn trigger_reconciliation(&self, due_at: Timestamp) -> Result<usize, StoreError> {
        let feeds = self.write(TriggerReconciliation(due_at)).await?;
        self.trigger.notify_one();
        Ok(feeds)
    }

    async fn lease_page(&self, request: LeaseRequest) -> Result<Option<PageLease>, StoreError> {
        self.may_write()?;
        leases::lease(&self.pool, &request).await
    }

    async fn commit_page(
        &self,
        lease: PageLease,
        page: PageToCommit,
        plan: PullPlan,
    ) -> Result<PageOutcome, StoreError> {
        self.may_write()?;
        let outcome = pages::commit(&self.pool, &lease, &page, &plan).await?;
        self.arrivals.send_replace(());
        Ok(outcome)
    }

    async fn fail_page(
        &self,
        lease: PageLease,
        failure: PageFailure,
        error: String,
    ) -> Result<(), StoreError> {
        self.write(FailPage {
            lease,
            failure,
            error,
        })
        .await
    }

    async fn release_page(&self, lease: PageLease) -> Result<(), StoreError> {
        self.write(ReleasePage(lease)).await
    }

    async fn next_due(&self, request: LeaseRequest) -> Result<Option<Timestamp>, StoreError> {
        read_transaction!(self, leases::next_due(&request))
    }

    async fn triggered(&self) {
        // Triggers of other replicas are found by polling; this process's wake at once.
        let _ = tokio::time::timeout(POLL_INTERVAL, self.trigger.notified()).await;
    }

    async fn set_paused(
        &self,
        account: Account,
        feed: Option<Feed>,
        paused: bool,
    ) -> Result<usize, StoreError> {
        let changed = self
            .write(SetPaused {
                account,
                feed,
                paused,
            })
            .await?;
        self.trigger.notify_one();
        Ok(changed)
    }

    async fn feeds(&self) -> Result<Vec<FeedRow>, StoreError> {
        self.read(ListFeeds).await
    }

    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        self.read(ListAccounts).await
    }

    async fn documents(&self, filter: DocumentFilter) -> Result<Vec<DocumentRow>, StoreError> {
        self.read(filter).await
    }

    async fn search_documents(&self, search: DocumentSearch) -> Result<FoundDocuments, StoreError> {
        self.read(search).await
    }

    async fn known_versions(
        &self,
        feed: Feed,
        versions: Vec<(String, String)>,
    ) -> Result<Vec<bool>, StoreError> {
        read_transaction!(self, reading::known_versions(&feed, &versions))
    }

    async fn sequence(&self) -> Result<SequenceRow, StoreError> {
        self.read(ReadSequence).await
    }

    async fn subscription_requested(
        &self,
        account: Account,
        event: Event,
        name: String,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        self.write(RecordSubscriptionRequest {
            account,
            event,
            name,
            now,
        })
        .await
    }

    async fn subscriptions(&self) -> Result<Vec<SubscriptionRow>, StoreError> {
        self.read(ListSubscriptions).await
    }

    async fn offer_unknown_topic(
        &self,
        account: Account,
        event: Event,
        confirmation: Arc<UnknownTopicConfirmation>,
        received_at: Timestamp,
        valid_since: Timestamp,
    ) -> Result<UnknownTopicOffer, StoreError> {
        self.write(OfferUnknownTopic {
            account,
            event,
            confirmation,
            received_at,
            valid_since,
        })
        .await
    }

    async fn allowed_topics(&self, limit: usize) -> Result<Vec<String>, StoreError> {
        self.read(ListAllowedTopics { limit }).await
    }

    async fn is_topic_allowed(&self, topic_arn: String) -> Result<bool, StoreError> {
        self.read(IsTopicAllowed(topic_arn)).await
    }

    async fn change_subscription(
        &self,
        id: i64,
        change: SubscriptionChange,
        now: Timestamp,
    ) -> Result<Option<SubscriptionRow>, StoreError> {
        self.write(ChangeSubscription { id, change, now }).await
    }

    async fn quarantine(&self, after: i64, limit: usize) -> Result<Vec<QuarantineRow>, StoreError> {
        // Messages that this process was offered before are listed too.
        if let Some(inbox) = self.senders(|senders| senders.quarantine.clone()) {
            let (done, flushed) = oneshot::channel();
            if inbox.send(QuarantineCommand::Flush(done)).await.is_ok() {
                let _ = flushed.await;
            }
        }
        self.read(ListQuarantined { after, limit }).await
    }

    async fn remove_quarantined(&self, id: i64) -> Result<(), StoreError> {
        self.write(RemoveQuarantined(id)).await
    }

    async fn activity(&self, since: Timestamp) -> Result<Activity, StoreError> {
        self.read(CountActivity(since)).await
    }

    async fn certificates(&self) -> Result<Vec<CertificateRow>, StoreError> {
        self.read(ListCertificates).await
    }

    async fn keep_certificate(&self, certificate: CertificateRow) -> Result<(), StoreError> {
        self.write(KeepCertificate(certificate)).await
    }

    async fn make_api_token(&self, token: NewApiToken) -> Result<ApiTokenMade, StoreError> {
        self.write(token).await
    }

    async fn api_tokens(&self) -> Result<Vec<ApiTokenRow>, StoreError> {
        self.read(ListApiTokens).await
    }

    async fn api_token(&self, hash: [u8; 32]) -> Result<Option<ApiTokenRow>, StoreError> {
        self.read(FindApiToken(hash)).await
    }

    async fn revoke_api_token(&self, id: i64) -> Result<bool, StoreError> {
        self.write(RevokeApiToken(id)).await
    }

    async fn begin_upload(&self, upload: NewUpload) -> Result<UploadBegun, StoreError> {
        self.write(upload).await
    }

    async fn end_upload(
        &self,
        id: i64,
        owner: String,
        end: UploadEnd,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(EndUpload {
            id,
            owner,
            end,
            now,
        })
        .await
    }

    async fn newest_uploads(
        &self,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<UploadRow>, StoreError> {
        self.read(ListNewestUploads { before, limit }).await
    }

    async fn uploads(&self, filter: UploadFilter) -> Result<Vec<UploadRow>, StoreError> {
        self.read(filter).await
    }

    async fn update_alarms(
        &self,
        observation: AlarmObservation,
    ) -> Result<AlarmChanges, StoreError> {
        self.write(observation).await
    }

    async fn alarms(&self, filter: AlarmFilter) -> Result<Vec<AlarmRow>, StoreError> {
        self.read(filter).await
    }

    async fn lease_notice(
        &self,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<AlarmNotice>, StoreError> {
        self.write(LeaseNotice { now, lease }).await
    }

    async fn end_notice(
        &self,
        notice: AlarmNotice,
        end: NoticeEnd,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(EndNotice { notice, end, now }).await
    }

    async fn unannounced_documents(
        &self,
        stored_by: Timestamp,
    ) -> Result<Vec<UnannouncedDocuments>, StoreError> {
        self.read(CountUnannounced(stored_by)).await
    }

    async fn retain(&self, retention: Retention) -> Result<RetentionOutcome, StoreError> {
        self.write(retention).await
    }

    async fn backup(&self, _to: PathBuf) -> Result<(), StoreError> {
        Err(StoreError::BackedUpElsewhere)
    }

    async fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.senders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let mut all_ended_well = true;
        for task in tasks {
            // They end once what is queued has been stored and answered.
            all_ended_well &= task.await.is_ok();
        }
        self.pool.close();
        if all_ended_well {
            Ok(())
        } else {
            Err(StoreError::Database(
                "a task of the store panicked; restart the service and report this as a bug"
                    .to_owned(),
            ))
        }
    }
}

/// Returns the number of queued items.
fn queue_length<T>(queue: &mpsc::Sender<T>) -> usize {
    queue.max_capacity() - queue.capacity()
}
