//! The store on PostgreSQL: one database that any number of replicas share.
//!
//! Nothing is held in a session (no prepared statement, no LISTEN, no session lock), so
//! PgBouncer in transaction mode may stand between. Every decision about what is due and
//! who holds a lease goes by the database's clock.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::connection::{Pool, Transaction};
use self::ingest::{Ingest, Waiting};
use self::quarantine::Offer;
use super::words::{CERTIFICATES, QUARANTINE_QUEUE, RETENTION_STEP};
use super::{
    AcceptedMessage, AccountRow, Activity, AlarmChanges, AlarmFilter, AlarmNotice,
    AlarmObservation, AlarmRow, ApiTokenMade, ApiTokenRow, CertificateRow, DocumentFilter,
    DocumentRow, DocumentSearch, FeedRow, FoundDocuments, Insertion, LeaseRequest, NewApiToken,
    NewUpload, NoticeEnd, NotificationRow, PageFailure, PageLease, PageOutcome, PageToCommit,
    PullPlan, QuarantineRow, Quarantined, Retained, Retention, SequenceRow, Store, StoreError,
    SubscriptionChange, SubscriptionRow, Trigger, UnannouncedDocuments, UploadBegun, UploadEnd,
    UploadFilter, UploadRow,
};
use crate::config::PostgresAddress;
use crate::domain::{Account, Clock, Event, Feed, Timestamp};

pub use self::copy::{Copied, Progress, copy_from_sqlite};

// Above the rooms, which use them too.
/// Reads in one snapshot: `in_reading!(self, reading::feeds())`.
macro_rules! in_reading {
    ($store:expr, $room:ident :: $function:ident ( $($argument:expr),* )) => {{
        let transaction = $store.pool.read().await?;
        let rows = $room::$function(&transaction $(, $argument)*).await?;
        transaction.commit().await?;
        Ok(rows)
    }};
}

/// Changes in one transaction: `in_writing!(self, triggers::trigger(&wishes))`.
macro_rules! in_writing {
    ($store:expr, $room:ident :: $function:ident ( $($argument:expr),* )) => {{
        let transaction = $store.write().await?;
        let outcome = $room::$function(&transaction $(, $argument)*).await?;
        transaction.commit().await?;
        outcome
    }};
}

mod activity;
mod alarms;
mod connection;
mod copy;
mod deliveries;
mod delivery_store;
mod destinations;
mod error;
mod import_errors;
mod ingest;
mod leases;
mod links;
mod pages;
mod pausing;
mod quarantine;
mod reading;
mod retention;
mod rows;
mod schema;
mod search;
mod subscriptions;
mod tokens;
mod triggers;
mod uploads;

/// How long until a worker looks at the rows, as another replica may have raised a wish.
const POLL: Duration = Duration::from_secs(1);

/// How a [`PostgresStore`] is opened.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// The database.
    pub address: PostgresAddress,
    /// Messages that may wait for the next commit.
    pub queue: usize,
    /// Bytes of refused messages that are kept.
    pub quarantine_bytes: u64,
    /// Whether new subscriptions wait for a person's approval.
    pub ask: bool,
    /// This machine's clock, which is set right by the database's; one that is set by
    /// hand is a test's and is followed in its place.
    pub clock: Clock,
}

/// The ways to the tasks that write.
struct Inboxes {
    messages: mpsc::Sender<Waiting>,
    quarantine: mpsc::Sender<Offer>,
}

/// The store on PostgreSQL.
pub struct PostgresStore {
    pool: Arc<Pool>,
    read_only: bool,
    inboxes: Mutex<Option<Inboxes>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    trigger: Arc<Notify>,
    arrivals: watch::Sender<()>,
}

impl PostgresStore {
    /// Opens the database beside any number of other replicas: migrated where needed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unreachable`], [`StoreError::NewerSchema`], and others that say
    /// what to do.
    pub async fn open(options: PostgresOptions) -> Result<Self, StoreError> {
        let pool = Arc::new(Pool::new(options.address, options.clock)?);
        schema::migrate(&pool).await?;
        let transaction = pool.write().await?;
        pausing::start_afresh(&transaction).await?;
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
            inboxes: Mutex::new(Some(Inboxes {
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
            inboxes: Mutex::new(None),
            tasks: Mutex::default(),
            trigger: Arc::new(Notify::new()),
            arrivals: watch::Sender::new(()),
        })
    }

    async fn write(&self) -> Result<Transaction<'_>, StoreError> {
        self.may_write()?;
        self.pool.write().await
    }

    fn may_write(&self) -> Result<(), StoreError> {
        if self.read_only {
            Err(StoreError::ReadOnly)
        } else {
            Ok(())
        }
    }

    fn inboxes<T>(&self, each: impl FnOnce(&Inboxes) -> T) -> Option<T> {
        self.inboxes
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
        let inbox = self.inboxes(|inboxes| inboxes.messages.clone());
        match inbox.as_ref().map(mpsc::Sender::try_reserve) {
            Some(Ok(place)) => place.send(Waiting { incoming, answer }),
            Some(Err(mpsc::error::TrySendError::Full(()))) => return Err(StoreError::QueueFull),
            Some(Err(mpsc::error::TrySendError::Closed(()))) | None => {
                return Err(StoreError::Closed);
            }
        }
        // Kept any longer, it would keep the writer from ending.
        drop(inbox);
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.may_write()?;
        // The task that stores messages must be there to take one.
        if self.inboxes(|inboxes| inboxes.messages.is_closed()) != Some(false) {
            return Err(StoreError::Closed);
        }
        // A server in recovery refuses a transaction that may write; one that a
        // middleman sends elsewhere tells it here.
        let transaction = self.pool.write().await?;
        let row = transaction
            .query_one(
                "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean",
                &[],
            )
            .await?;
        let takes_no_writes: bool = row.try_get(0)?;
        transaction.commit().await?;
        if takes_no_writes {
            return Err(StoreError::Unreachable {
                detail: "the server is a standby, which takes no writes; check `store.url`".into(),
            });
        }
        Ok(())
    }

    fn offer_quarantine(&self, item: Quarantined) -> bool {
        self.inboxes(|inboxes| inboxes.quarantine.try_send(Offer::Refused(item)).is_ok())
            .unwrap_or(false)
    }

    fn waiting(&self) -> super::Waiting {
        let lengths = self.inboxes(|inboxes| super::Waiting {
            messages: in_line(&inboxes.messages),
            refused: in_line(&inboxes.quarantine),
            changes: 0,
        });
        lengths.unwrap_or_default()
    }

    async fn notifications(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<NotificationRow>, StoreError> {
        in_reading!(self, reading::notifications(after, limit))
    }

    async fn register_feeds(&self, feeds: Vec<Feed>, now: Timestamp) -> Result<(), StoreError> {
        let transaction = self.write().await?;
        let now = ingest::not_later(now, &transaction);
        rows::feed_ids(&transaction, feeds, now).await?;
        transaction.commit().await?;
        self.trigger.notify_one();
        Ok(())
    }

    async fn trigger(&self, triggers: Vec<Trigger>) -> Result<(), StoreError> {
        in_writing!(self, triggers::trigger(&triggers));
        self.trigger.notify_one();
        Ok(())
    }

    async fn trigger_reconciliation(&self, due_at: Timestamp) -> Result<usize, StoreError> {
        let feeds = in_writing!(self, triggers::trigger_reconciliation(due_at));
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
        self.may_write()?;
        pausing::fail(&self.pool, &lease, failure, &error).await
    }

    async fn release_page(&self, lease: PageLease) -> Result<(), StoreError> {
        let transaction = self.write().await?;
        transaction
            .execute(
                "UPDATE feed SET leased_until = NULL WHERE id = $1 AND fence = $2",
                &[&lease.feed_id, &lease.fence],
            )
            .await?;
        transaction.commit().await
    }

    async fn next_due(&self, request: LeaseRequest) -> Result<Option<Timestamp>, StoreError> {
        in_reading!(self, leases::next_due(&request))
    }

    async fn triggered(&self) {
        // Another replica's wishes are seen by looking; our own wake at once.
        let _ = tokio::time::timeout(POLL, self.trigger.notified()).await;
    }

    async fn set_paused(
        &self,
        account: Account,
        feed: Option<Feed>,
        paused: bool,
    ) -> Result<usize, StoreError> {
        let changed = in_writing!(self, pausing::set_paused(&account, feed.as_ref(), paused));
        self.trigger.notify_one();
        Ok(changed)
    }

    async fn feeds(&self) -> Result<Vec<FeedRow>, StoreError> {
        in_reading!(self, reading::feeds())
    }

    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        in_reading!(self, reading::accounts())
    }

    async fn documents(&self, filter: DocumentFilter) -> Result<Vec<DocumentRow>, StoreError> {
        in_reading!(self, reading::documents(&filter))
    }

    async fn search_documents(&self, look: DocumentSearch) -> Result<FoundDocuments, StoreError> {
        in_reading!(self, search::search_documents(&look))
    }

    async fn known_versions(
        &self,
        feed: Feed,
        versions: Vec<(String, String)>,
    ) -> Result<Vec<bool>, StoreError> {
        in_reading!(self, reading::known_versions(&feed, &versions))
    }

    async fn sequence(&self) -> Result<SequenceRow, StoreError> {
        in_reading!(self, reading::sequence())
    }

    async fn subscription_requested(
        &self,
        account: Account,
        event: Event,
        name: String,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        Ok(in_writing!(
            self,
            subscriptions::requested(&account, event, &name, now)
        ))
    }

    async fn subscriptions(&self) -> Result<Vec<SubscriptionRow>, StoreError> {
        in_reading!(self, subscriptions::list())
    }

    async fn change_subscription(
        &self,
        id: i64,
        change: SubscriptionChange,
        now: Timestamp,
    ) -> Result<Option<SubscriptionRow>, StoreError> {
        Ok(in_writing!(self, subscriptions::change(id, &change, now)))
    }

    async fn quarantine(&self, after: i64, limit: usize) -> Result<Vec<QuarantineRow>, StoreError> {
        // What this process was offered before is to be seen.
        if let Some(inbox) = self.inboxes(|inboxes| inboxes.quarantine.clone()) {
            let (looker, kept) = oneshot::channel();
            if inbox.send(Offer::Look(looker)).await.is_ok() {
                let _ = kept.await;
            }
        }
        in_reading!(self, quarantine::list(after, limit))
    }

    async fn remove_quarantined(&self, id: i64) -> Result<(), StoreError> {
        let transaction = self.write().await?;
        transaction
            .execute("DELETE FROM quarantine WHERE id = $1", &[&id])
            .await?;
        transaction.commit().await
    }

    async fn activity(&self, since: Timestamp) -> Result<Activity, StoreError> {
        in_reading!(self, activity::since(since))
    }

    async fn certificates(&self) -> Result<Vec<CertificateRow>, StoreError> {
        in_reading!(self, reading::certificates())
    }

    async fn keep_certificate(&self, certificate: CertificateRow) -> Result<(), StoreError> {
        let transaction = self.write().await?;
        transaction
            .execute(
                "INSERT INTO certificate (url, pem, fetched_at) VALUES ($1, $2, $3)
                 ON CONFLICT (url) DO UPDATE SET pem = excluded.pem, fetched_at = excluded.fetched_at",
                &[
                    &certificate.url,
                    &certificate.pem,
                    &certificate.fetched_at.as_millis(),
                ],
            )
            .await?;
        transaction
            .execute(
                "DELETE FROM certificate WHERE url NOT IN
                     (SELECT url FROM certificate ORDER BY fetched_at DESC, url LIMIT $1)",
                &[&CERTIFICATES],
            )
            .await?;
        transaction.commit().await
    }

    async fn make_api_token(&self, token: NewApiToken) -> Result<ApiTokenMade, StoreError> {
        Ok(in_writing!(self, tokens::make(&token)))
    }

    async fn api_tokens(&self) -> Result<Vec<ApiTokenRow>, StoreError> {
        in_reading!(self, tokens::list())
    }

    async fn api_token(&self, hash: [u8; 32]) -> Result<Option<ApiTokenRow>, StoreError> {
        in_reading!(self, tokens::find(&hash))
    }

    async fn revoke_api_token(&self, id: i64) -> Result<bool, StoreError> {
        Ok(in_writing!(self, tokens::revoke(id)))
    }

    async fn begin_upload(&self, upload: NewUpload) -> Result<UploadBegun, StoreError> {
        Ok(in_writing!(self, uploads::begin(&upload)))
    }

    async fn end_upload(
        &self,
        id: i64,
        owner: String,
        end: UploadEnd,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        Ok(in_writing!(self, uploads::end(id, &owner, &end, now)))
    }

    async fn newest_uploads(
        &self,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<UploadRow>, StoreError> {
        in_reading!(self, uploads::newest_first(before, limit))
    }

    async fn uploads(&self, filter: UploadFilter) -> Result<Vec<UploadRow>, StoreError> {
        in_reading!(self, uploads::list(&filter))
    }

    async fn update_alarms(&self, look: AlarmObservation) -> Result<AlarmChanges, StoreError> {
        Ok(in_writing!(self, alarms::note(&look)))
    }

    async fn alarms(&self, filter: AlarmFilter) -> Result<Vec<AlarmRow>, StoreError> {
        in_reading!(self, alarms::list(&filter))
    }

    async fn lease_notice(
        &self,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<AlarmNotice>, StoreError> {
        Ok(in_writing!(self, alarms::lease_notice(now, lease)))
    }

    async fn end_notice(
        &self,
        notice: AlarmNotice,
        end: NoticeEnd,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        Ok(in_writing!(self, alarms::end_notice(&notice, &end, now)))
    }

    async fn unannounced_documents(
        &self,
        stored_by: Timestamp,
    ) -> Result<Vec<UnannouncedDocuments>, StoreError> {
        in_reading!(self, alarms::unannounced_documents(stored_by))
    }

    async fn retain(&self, retention: Retention) -> Result<Retained, StoreError> {
        let transaction = self.write().await?;
        let notification_bodies =
            retention::remove_notification_bodies(&transaction, retention.notifications_before)
                .await?;
        let document_bodies = retention::remove_document_bodies(&transaction, &retention).await?;
        retention::remove_links(&transaction, retention.links_before).await?;
        let quarantined = transaction
            .execute(
                "DELETE FROM quarantine WHERE id IN (
                     SELECT id FROM quarantine WHERE received_at < $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)",
                &[&retention.quarantine_before.as_millis(), &RETENTION_STEP],
            )
            .await?;
        let alarms = alarms::retain(&transaction, retention.alarms_before).await?;
        transaction.commit().await?;
        Ok(Retained {
            notification_bodies,
            document_bodies,
            quarantined,
            alarms,
        })
    }

    async fn backup(&self, _to: PathBuf) -> Result<(), StoreError> {
        Err(StoreError::BackedUpElsewhere)
    }

    async fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let mut well = true;
        for task in tasks {
            // They end once what is in line has been stored and answered.
            well &= task.await.is_ok();
        }
        self.pool.close();
        if well {
            Ok(())
        } else {
            Err(StoreError::Database(
                "a task of the store ended early".to_owned(),
            ))
        }
    }
}

/// How many stand in a line.
fn in_line<T>(line: &mpsc::Sender<T>) -> usize {
    line.max_capacity() - line.capacity()
}
