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
    Accepted, AccountRow, Activity, Afterwards, AlarmChanges, AlarmFilter, AlarmLook, AlarmNotice,
    AlarmRow, ApiTokenMade, ApiTokenRow, CertificateRow, Demand, DocumentFilter, DocumentLook,
    DocumentRow, FeedRow, HandoffFilter, HandoffLease, HandoffLeased, HandoffOutcome,
    HandoffRequest, HandoffRow, HandoffStore, HeldFeed, Insertion, LaterVerdict, LeaseRequest,
    LookedBack, NewApiToken, NewUpload, NoticeEnd, NotificationRow, Offered, PageFailure,
    PageLease, PageOutcome, PageToCommit, PullPlan, QuarantineRow, Quarantined, ReportEnd,
    ReportFilter, ReportLease, ReportRow, Retained, Retention, SequenceRow, Settled, SinkChange,
    SinkRow, Store, StoreError, SubscriptionChange, SubscriptionRow, Untold, UploadBegun,
    UploadEnd, UploadFilter, UploadRow, Wants,
};
use crate::domain::{Account, Clock, Event, Feed, SinkName, Timestamp};

pub use self::address::Address;
pub use self::copy::{Copied, Progress, copy_from_sqlite};

mod activity;
mod address;
mod alarms;
mod connection;
mod copy;
mod demands;
mod error;
mod handoffs;
mod ingest;
mod leases;
mod links;
mod looking;
mod pages;
mod quarantine;
mod reading;
mod reports;
mod rows;
mod schema;
mod sinks;
mod subscriptions;
mod tokens;
mod uploads;

/// How long until a worker looks at the rows, as another replica may have raised a wish.
const POLL: Duration = Duration::from_secs(1);

/// How a [`PostgresStore`] is opened.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// The database.
    pub address: Address,
    /// Deliveries that may wait for the next commit.
    pub queue: usize,
    /// Bytes of refused deliveries that are kept.
    pub quarantine_bytes: u64,
    /// Whether new subscriptions wait for a person's approval.
    pub ask: bool,
    /// This machine's clock, which is set right by the database's; one that is set by
    /// hand is a test's and is followed in its place.
    pub clock: Clock,
}

/// The ways to the tasks that write.
struct Inboxes {
    deliveries: mpsc::Sender<Waiting>,
    quarantine: mpsc::Sender<Offer>,
}

/// The store on PostgreSQL.
pub struct PostgresStore {
    pool: Arc<Pool>,
    read_only: bool,
    inboxes: Mutex<Option<Inboxes>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    demand: Arc<Notify>,
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
        demands::start_afresh(&transaction).await?;
        transaction.commit().await?;
        let demand = Arc::new(Notify::new());
        let (deliveries, arriving) = mpsc::channel(options.queue.max(1));
        let (quarantine, refused) = mpsc::channel(QUARANTINE_QUEUE);
        let ingest = Ingest {
            pool: Arc::clone(&pool),
            demand: Arc::clone(&demand),
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
                deliveries,
                quarantine,
            })),
            tasks: Mutex::new(tasks),
            demand,
            arrivals: watch::Sender::new(()),
        })
    }

    /// Opens the database for reading.
    ///
    /// # Errors
    ///
    /// As [`PostgresStore::open`], and [`StoreError::NotPrepared`].
    pub async fn open_for_reading(address: Address) -> Result<Self, StoreError> {
        let pool = Arc::new(Pool::new(address, Clock::system())?);
        schema::check(&pool).await?;
        Ok(Self {
            pool,
            read_only: true,
            inboxes: Mutex::new(None),
            tasks: Mutex::default(),
            demand: Arc::new(Notify::new()),
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

/// Reads in one snapshot: `read!(self, reading::feeds())`.
macro_rules! read {
    ($store:expr, $room:ident :: $function:ident ( $($argument:expr),* )) => {{
        let transaction = $store.pool.read().await?;
        let rows = $room::$function(&transaction $(, $argument)*).await?;
        transaction.commit().await?;
        Ok(rows)
    }};
}

/// Changes in one transaction: `write!(self, demands::demand(&wishes))`.
macro_rules! write {
    ($store:expr, $room:ident :: $function:ident ( $($argument:expr),* )) => {{
        let transaction = $store.write().await?;
        let outcome = $room::$function(&transaction $(, $argument)*).await?;
        transaction.commit().await?;
        outcome
    }};
}

#[async_trait]
impl Store for PostgresStore {
    fn clock(&self) -> Option<Clock> {
        Some(self.pool.time.clock())
    }

    async fn accept(&self, delivery: Accepted) -> Result<Insertion, StoreError> {
        self.may_write()?;
        let (answer, outcome) = oneshot::channel();
        let inbox = self.inboxes(|inboxes| inboxes.deliveries.clone());
        match inbox.as_ref().map(mpsc::Sender::try_reserve) {
            Some(Ok(place)) => place.send(Waiting { delivery, answer }),
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
        // The task that stores deliveries must be there to take one.
        if self.inboxes(|inboxes| inboxes.deliveries.is_closed()) != Some(false) {
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
            deliveries: in_line(&inboxes.deliveries),
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
        read!(self, reading::notifications(after, limit))
    }

    async fn make_known(&self, feeds: Vec<Feed>, now: Timestamp) -> Result<(), StoreError> {
        let transaction = self.write().await?;
        let now = ingest::not_later(now, &transaction);
        rows::feed_ids(&transaction, feeds, now).await?;
        transaction.commit().await?;
        self.demand.notify_one();
        Ok(())
    }

    async fn demand(&self, demands: Vec<Demand>) -> Result<(), StoreError> {
        write!(self, demands::demand(&demands));
        self.demand.notify_one();
        Ok(())
    }

    async fn demand_reconciliation(&self, due_at: Timestamp) -> Result<usize, StoreError> {
        let feeds = write!(self, demands::demand_reconciliation(due_at));
        self.demand.notify_one();
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
        pages::fail(&self.pool, &lease, failure, &error).await
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
        read!(self, leases::next_due(&request))
    }

    async fn demand_raised(&self) {
        // Another replica's wishes are seen by looking; our own wake at once.
        let _ = tokio::time::timeout(POLL, self.demand.notified()).await;
    }

    async fn set_parked(
        &self,
        account: Account,
        feed: Option<Feed>,
        parked: bool,
    ) -> Result<usize, StoreError> {
        let changed = write!(self, demands::set_parked(&account, feed.as_ref(), parked));
        self.demand.notify_one();
        Ok(changed)
    }

    async fn feeds(&self) -> Result<Vec<FeedRow>, StoreError> {
        read!(self, reading::feeds())
    }

    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        read!(self, reading::accounts())
    }

    async fn documents(&self, filter: DocumentFilter) -> Result<Vec<DocumentRow>, StoreError> {
        read!(self, reading::documents(&filter))
    }

    async fn look_back(&self, look: DocumentLook) -> Result<LookedBack, StoreError> {
        read!(self, looking::look_back(&look))
    }

    async fn known_versions(
        &self,
        feed: Feed,
        versions: Vec<(String, String)>,
    ) -> Result<Vec<bool>, StoreError> {
        read!(self, reading::known_versions(&feed, &versions))
    }

    async fn sequence(&self) -> Result<SequenceRow, StoreError> {
        read!(self, reading::sequence())
    }

    async fn subscription_requested(
        &self,
        account: Account,
        event: Event,
        name: String,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        Ok(write!(
            self,
            subscriptions::requested(&account, event, &name, now)
        ))
    }

    async fn subscriptions(&self) -> Result<Vec<SubscriptionRow>, StoreError> {
        read!(self, subscriptions::list())
    }

    async fn change_subscription(
        &self,
        id: i64,
        change: SubscriptionChange,
        now: Timestamp,
    ) -> Result<Option<SubscriptionRow>, StoreError> {
        Ok(write!(self, subscriptions::change(id, &change, now)))
    }

    async fn quarantine(&self, after: i64, limit: usize) -> Result<Vec<QuarantineRow>, StoreError> {
        // What this process was offered before is to be seen.
        if let Some(inbox) = self.inboxes(|inboxes| inboxes.quarantine.clone()) {
            let (looker, kept) = oneshot::channel();
            if inbox.send(Offer::Look(looker)).await.is_ok() {
                let _ = kept.await;
            }
        }
        read!(self, quarantine::list(after, limit))
    }

    async fn remove_quarantined(&self, id: i64) -> Result<(), StoreError> {
        let transaction = self.write().await?;
        transaction
            .execute("DELETE FROM quarantine WHERE id = $1", &[&id])
            .await?;
        transaction.commit().await
    }

    async fn activity(&self, since: Timestamp) -> Result<Activity, StoreError> {
        read!(self, activity::since(since))
    }

    async fn certificates(&self) -> Result<Vec<CertificateRow>, StoreError> {
        read!(self, reading::certificates())
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
        Ok(write!(self, tokens::make(&token)))
    }

    async fn api_tokens(&self) -> Result<Vec<ApiTokenRow>, StoreError> {
        read!(self, tokens::list())
    }

    async fn api_token(&self, hash: [u8; 32]) -> Result<Option<ApiTokenRow>, StoreError> {
        read!(self, tokens::find(&hash))
    }

    async fn revoke_api_token(&self, id: i64) -> Result<bool, StoreError> {
        Ok(write!(self, tokens::revoke(id)))
    }

    async fn begin_upload(&self, upload: NewUpload) -> Result<UploadBegun, StoreError> {
        Ok(write!(self, uploads::begin(&upload)))
    }

    async fn end_upload(
        &self,
        id: i64,
        owner: String,
        end: UploadEnd,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        Ok(write!(self, uploads::end(id, &owner, &end, now)))
    }

    async fn newest_uploads(
        &self,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<UploadRow>, StoreError> {
        read!(self, uploads::newest_first(before, limit))
    }

    async fn uploads(&self, filter: UploadFilter) -> Result<Vec<UploadRow>, StoreError> {
        read!(self, uploads::list(&filter))
    }

    async fn note_alarms(&self, look: AlarmLook) -> Result<AlarmChanges, StoreError> {
        Ok(write!(self, alarms::note(&look)))
    }

    async fn alarms(&self, filter: AlarmFilter) -> Result<Vec<AlarmRow>, StoreError> {
        read!(self, alarms::list(&filter))
    }

    async fn lease_notice(
        &self,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<AlarmNotice>, StoreError> {
        Ok(write!(self, alarms::lease_notice(now, lease)))
    }

    async fn end_notice(
        &self,
        notice: AlarmNotice,
        end: NoticeEnd,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        Ok(write!(self, alarms::end_notice(&notice, &end, now)))
    }

    async fn untold(&self, stored_by: Timestamp) -> Result<Vec<Untold>, StoreError> {
        read!(self, alarms::untold(stored_by))
    }

    async fn retain(&self, retention: Retention) -> Result<Retained, StoreError> {
        let transaction = self.write().await?;
        let notification_bodies =
            remove_notification_bodies(&transaction, retention.notifications_before).await?;
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

/// Removes the bodies of a step's worth of old notifications, from where the last step
/// ended; nothing while another replica is at it.
async fn remove_notification_bodies(
    transaction: &Transaction<'_>,
    before: Timestamp,
) -> Result<usize, StoreError> {
    let row = transaction
        .query_opt(
            "SELECT notification_id FROM retention FOR UPDATE SKIP LOCKED",
            &[],
        )
        .await?;
    let Some(row) = row else {
        return Ok(0);
    };
    let done: i64 = row.try_get(0)?;
    let row = transaction
        .query_one(
            "SELECT max(id) FROM (
                 SELECT id, received_at FROM notification WHERE id > $3 ORDER BY id LIMIT $2) AS step
             WHERE received_at < $1",
            &[&before.as_millis(), &RETENTION_STEP, &done],
        )
        .await?;
    let Some(newest) = row.try_get::<_, Option<i64>>(0)? else {
        return Ok(0);
    };
    let removed = transaction
        .execute(
            "UPDATE notification SET body = NULL WHERE id > $1 AND id <= $2 AND body IS NOT NULL",
            &[&done, &newest],
        )
        .await?;
    transaction
        .execute("UPDATE retention SET notification_id = $1", &[&newest])
        .await?;
    Ok(removed)
}

#[async_trait]
impl HandoffStore for PostgresStore {
    fn arrivals(&self) -> watch::Receiver<()> {
        self.arrivals.subscribe()
    }

    async fn make_sinks_known(
        &self,
        sinks: Vec<SinkName>,
        _now: Timestamp,
    ) -> Result<(), StoreError> {
        write!(self, sinks::make_known(&sinks));
        Ok(())
    }

    async fn lease_handoffs(&self, request: HandoffRequest) -> Result<HandoffLeased, StoreError> {
        self.may_write()?;
        handoffs::lease(&self.pool, &request).await
    }

    async fn settle_handoffs(
        &self,
        lease: HandoffLease,
        settled: Vec<Settled>,
        afterwards: Afterwards,
        _now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.may_write()?;
        let holds = handoffs::settle(&self.pool, &lease, &settled, &afterwards).await?;
        let pulls = |one: &Settled| matches!(one.outcome, HandoffOutcome::LinkExpired);
        let rejected = settled
            .iter()
            .any(|one| matches!(one.outcome, HandoffOutcome::Rejected { .. }));
        if settled.iter().any(pulls) {
            self.demand.notify_one();
        }
        if rejected {
            self.arrivals.send_replace(());
        }
        Ok(holds)
    }

    async fn change_sink(
        &self,
        sink: SinkName,
        change: SinkChange,
        _now: Timestamp,
    ) -> Result<Option<usize>, StoreError> {
        let changed = write!(self, sinks::change(&sink, &change));
        self.arrivals.send_replace(());
        Ok(changed)
    }

    async fn note_verdict(
        &self,
        sink: SinkName,
        sequence: i64,
        verdict: LaterVerdict,
        _now: Timestamp,
    ) -> Result<bool, StoreError> {
        let noted = write!(
            self,
            handoffs::note_verdict(sink.as_str(), sequence, &verdict)
        );
        self.arrivals.send_replace(());
        Ok(noted)
    }

    async fn sinks(&self) -> Result<Vec<SinkRow>, StoreError> {
        read!(self, sinks::list())
    }

    async fn held_feeds(&self, sink: SinkName, wants: Wants) -> Result<Vec<HeldFeed>, StoreError> {
        read!(self, sinks::held_feeds(&sink, &wants))
    }

    async fn handoffs(&self, filter: HandoffFilter) -> Result<Vec<HandoffRow>, StoreError> {
        read!(self, sinks::handoffs(&filter))
    }

    async fn offered(
        &self,
        sink: SinkName,
        after: i64,
        limit: usize,
        most_bytes: usize,
    ) -> Result<Vec<Offered>, StoreError> {
        read!(self, sinks::offered(&sink, after, limit, most_bytes))
    }

    async fn lease_report(
        &self,
        accounts: Vec<Account>,
        _now: Timestamp,
        lease: Duration,
    ) -> Result<Option<ReportLease>, StoreError> {
        Ok(write!(self, reports::lease(&accounts, lease)))
    }

    async fn end_report(
        &self,
        lease: ReportLease,
        end: ReportEnd,
        _now: Timestamp,
    ) -> Result<(), StoreError> {
        if write!(self, reports::end(&lease, &end)) {
            Ok(())
        } else {
            Err(StoreError::StaleLease)
        }
    }

    async fn retry_report(&self, id: i64, _now: Timestamp) -> Result<bool, StoreError> {
        let found = write!(self, reports::retry(id));
        self.arrivals.send_replace(());
        Ok(found)
    }

    async fn reports(&self, filter: ReportFilter) -> Result<Vec<ReportRow>, StoreError> {
        read!(self, reports::list(&filter))
    }
}
