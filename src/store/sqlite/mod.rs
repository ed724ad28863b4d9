//! The store on SQLite: one file, one writer thread, one reader thread.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{Notify, oneshot, watch};

pub(super) use self::error::explain;
use self::tx::{Begin, SqliteTx, immediate, in_transaction};
use self::writer::{Inbox, Writer};
use super::activity::CountActivity;
use super::alarms::{CountUnannounced, EndNotice, LeaseNotice};
use super::allowed_topics::{IsTopicAllowed, ListAllowedTopics};
use super::certificates::{KeepCertificate, ListCertificates};
use super::documents::ReadSequence;
use super::engine::Operation;
use super::feeds::{ListAccounts, ListFeeds};
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
    PullPlan, QuarantineRow, Quarantined, QueueLengths, Retention, RetentionOutcome, SequenceRow,
    Store, StoreError, SubscriptionChange, SubscriptionRow, Trigger, UnannouncedDocuments,
    UnknownTopicOffer, UploadBegun, UploadEnd, UploadFilter, UploadRow,
};
use crate::domain::{Account, Event, Feed, Timestamp};
use crate::sns::UnknownTopicConfirmation;

mod backup;
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
mod writer;

/// Options of a [`SqliteStore`].
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// The database file; created if it does not exist.
    pub path: PathBuf,
    /// Maximum number of messages that wait for the next commit.
    pub queue: usize,
    /// Maximum number of bytes of refused messages.
    pub quarantine_bytes: u64,
    /// True if new subscriptions wait for a person's approval.
    pub ask: bool,
}

/// A read of the database.
type Read = Box<dyn FnOnce(&mut Connection) + Send>;

/// The store on SQLite.
pub struct SqliteStore {
    path: PathBuf,
    /// `None` if it was opened for reading only.
    inbox: Option<Arc<Inbox>>,
    reads: Mutex<Option<mpsc::SyncSender<Read>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    trigger: Arc<Notify>,
    arrivals: watch::Sender<()>,
}

impl SqliteStore {
    /// Creates the file if needed, locks it for this process, and migrates it.
    ///
    /// Blocks for a few milliseconds, longer if a migration runs.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`], [`StoreError::NotAccessible`], [`StoreError::NewerSchema`],
    /// and other errors of the database.
    pub fn open(options: SqliteOptions) -> Result<Self, StoreError> {
        let path = options.path;
        let lock = lock_file(&path)?;
        let mut connection = schema::open_for_writing(&path)?;
        let explain_here = |error| explain(&path, error);
        backup::ensure_epoch(&connection).map_err(explain_here)?;
        leases::release_all(&connection).map_err(explain_here)?;
        destinations::release_leases(&connection).map_err(explain_here)?;
        in_transaction(&mut connection, &path, Begin::Writing, |connection| {
            tx::run(ResumeAtStart, connection, &path)
        })?;
        let quarantine = quarantine::QuarantineWriter::open(&connection, options.quarantine_bytes)
            .map_err(explain_here)?;
        let inbox = Arc::new(Inbox::new(options.queue));
        let trigger = Arc::new(Notify::new());
        let writer = Writer {
            connection,
            path: path.clone(),
            inbox: Arc::clone(&inbox),
            trigger: Arc::clone(&trigger),
            ask: options.ask,
            quarantine,
            _lock: lock,
        };
        let thread = spawn("store-writer", &path, move || writer.run())?;
        let store = Self::with_reader(path, Some(inbox), trigger)?;
        store
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(thread);
        Ok(store)
    }

    /// Opens the file for reading, even while another process writes to it.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotAccessible`], [`StoreError::NewerSchema`], and other errors of the
    /// database.
    pub fn open_for_reading(path: &Path) -> Result<Self, StoreError> {
        Self::with_reader(path.to_owned(), None, Arc::new(Notify::new()))
    }

    fn with_reader(
        path: PathBuf,
        inbox: Option<Arc<Inbox>>,
        trigger: Arc<Notify>,
    ) -> Result<Self, StoreError> {
        let mut connection = schema::open_for_reading(&path)?;
        let (reads, inbox_of_reader) = mpsc::sync_channel::<Read>(256);
        let thread = spawn("store-reader", &path, move || {
            let reading = AssertUnwindSafe(move || {
                for read in inbox_of_reader {
                    read(&mut connection);
                }
            });
            if let Err(panic) = catch_unwind(reading) {
                // Its channel is closed with it: later reads return that the store is closed.
                tracing::error!(
                    "store reader thread panicked: restart the service and report this as a bug"
                );
                resume_unwind(panic);
            }
        })?;
        Ok(Self {
            path,
            inbox,
            reads: Mutex::new(Some(reads)),
            threads: Mutex::new(vec![thread]),
            trigger,
            arrivals: watch::Sender::new(()),
        })
    }

    /// Runs an operation on the writer thread, in a transaction of its own.
    async fn write<O: Operation>(&self, operation: O) -> Result<O::Output, StoreError> {
        self.transact(move |connection, path| tx::run(operation, connection, path))
            .await
    }

    /// Runs an operation on the reader thread, in one snapshot.
    async fn read<O: Operation>(&self, operation: O) -> Result<O::Output, StoreError> {
        self.on_reader(move |connection, path| {
            in_transaction(connection, path, Begin::Reading, |connection| {
                tx::run(operation, connection, path)
            })
        })
        .await
    }

    /// Runs `change` on the writer thread, in a transaction of its own.
    async fn transact<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Connection, &Path) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inbox = self.inbox.as_ref().ok_or(StoreError::ReadOnly)?;
        let (answer, outcome) = oneshot::channel();
        let path = self.path.clone();
        inbox.enqueue_task(Box::new(move |connection| {
            let outcome = in_transaction(connection, &path, Begin::Writing, |connection| {
                change(connection, &path)
            });
            // The receiver is gone if the caller was dropped; the change is kept.
            let _ = answer.send(outcome);
        }))?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// [`SqliteStore::transact`] for changes whose only errors are SQLite's.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.transact(|connection, path| change(connection).map_err(|error| explain(path, error)))
            .await
    }

    /// Runs `read` on the reader thread.
    async fn on_reader<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Connection, &Path) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, outcome) = oneshot::channel();
        let path = self.path.clone();
        let task: Read = Box::new(move |connection| {
            let _ = answer.send(read(connection, &path));
        });
        let reads = self
            .reads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        reads
            .ok_or(StoreError::Closed)?
            .try_send(task)
            .map_err(|error| match error {
                mpsc::TrySendError::Full(_) => StoreError::QueueFull,
                mpsc::TrySendError::Disconnected(_) => StoreError::Closed,
            })?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// [`SqliteStore::on_reader`] for reads whose only errors are SQLite's.
    async fn query<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.on_reader(|connection, path| read(connection).map_err(|error| explain(path, error)))
            .await
    }
}

/// Opens the file for reading and locks it against servers, until the returned lock file is
/// dropped.
pub(super) fn open_locked_for_reading(path: &Path) -> Result<(Connection, File), StoreError> {
    // Opened first, so that no lock file is created beside a missing file.
    drop(schema::open_for_reading(path)?);
    let lock = lock_file(path)?;
    Ok((schema::open_for_reading(path)?, lock))
}

/// Acquires the lock of the only process that may write; it is released when the process ends.
fn lock_file(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let not_accessible = |error: std::io::Error| StoreError::NotAccessible {
        path: path.to_owned(),
        detail: format!("{error}; check that its folder exists and that this user may write there"),
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&name)
        .map_err(not_accessible)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::InUse {
            path: path.to_owned(),
        }),
        Err(std::fs::TryLockError::Error(error)) => Err(not_accessible(error)),
    }
}

fn spawn(
    name: &str,
    path: &Path,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| StoreError::NotAccessible {
            path: path.to_owned(),
            detail: format!("failed to start a thread: {error}; check the limits of this user"),
        })
}

#[async_trait]
impl Store for SqliteStore {
    async fn accept(&self, incoming: AcceptedMessage) -> Result<Insertion, StoreError> {
        let inbox = self.inbox.as_ref().ok_or(StoreError::ReadOnly)?;
        inbox
            .enqueue_message(incoming)?
            .await
            .map_err(|_| StoreError::Closed)?
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let inbox = self.inbox.as_ref().ok_or(StoreError::ReadOnly)?;
        let (answer, outcome) = oneshot::channel();
        let path = self.path.clone();
        inbox.enqueue_task(Box::new(move |connection| {
            let begun = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .and_then(rusqlite::Transaction::rollback)
                .map_err(|error| explain(&path, error));
            let _ = answer.send(begun);
        }))?;
        outcome.await.map_err(|_| StoreError::Closed)??;
        // Without the reader thread the puller and the admin API get no answers.
        self.sequence().await.map(drop)
    }

    fn offer_quarantine(&self, item: Quarantined) -> bool {
        self.inbox
            .as_ref()
            .is_some_and(|inbox| inbox.offer_quarantined(item))
    }

    fn queue_lengths(&self) -> QueueLengths {
        self.inbox
            .as_ref()
            .map(|inbox| inbox.queue_lengths())
            .unwrap_or_default()
    }

    async fn notifications(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<NotificationRow>, StoreError> {
        self.read(ListNotifications { after, limit }).await
    }

    async fn register_feeds(&self, feeds: Vec<Feed>, now: Timestamp) -> Result<(), StoreError> {
        self.change(move |connection| {
            feeds
                .iter()
                .try_for_each(|feed| rows::feed_id(connection, feed, now).map(drop))
        })
        .await?;
        self.trigger.notify_one();
        Ok(())
    }

    async fn trigger(&self, triggers: Vec<Trigger>) -> Result<(), StoreError> {
        self.transact(move |connection, path| {
            let with_ids: rusqlite::Result<Vec<(i64, Trigger)>> = triggers
                .into_iter()
                .map(|trigger| {
                    let id = rows::feed_id(connection, &trigger.feed, trigger.due_at)?;
                    Ok((id, trigger))
                })
                .collect();
            let with_ids = with_ids.map_err(|error| explain(path, error))?;
            immediate(raise_all(&mut SqliteTx::new(connection, path), with_ids))
        })
        .await?;
        self.trigger.notify_one();
        Ok(())
    }

    async fn trigger_reconciliation(&self, due_at: Timestamp) -> Result<usize, StoreError> {
        let feeds = self.write(TriggerReconciliation(due_at)).await?;
        self.trigger.notify_one();
        Ok(feeds)
    }

    async fn lease_page(&self, request: LeaseRequest) -> Result<Option<PageLease>, StoreError> {
        self.change(move |connection| leases::lease(connection, &request))
            .await
    }

    async fn commit_page(
        &self,
        lease: PageLease,
        page: PageToCommit,
        plan: PullPlan,
    ) -> Result<PageOutcome, StoreError> {
        let outcome = self
            .transact(move |transaction, path| {
                pages::commit(transaction, path, &lease, &page, &plan)
            })
            .await?;
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
        self.query(move |connection| leases::next_due(connection, &request))
            .await
    }

    async fn triggered(&self) {
        self.trigger.notified().await;
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
        self.query(move |connection| reading::known_versions(connection, &feed, &versions))
            .await
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

    async fn backup(&self, to: PathBuf) -> Result<(), StoreError> {
        let (answer, outcome) = oneshot::channel();
        let source = self.path.clone();
        // On a thread of its own, so that other reads continue during a long copy.
        let thread = spawn("store-backup", &self.path, move || {
            let copied = schema::open_for_reading(&source)
                .and_then(|connection| backup::copy(&connection, &source, &to));
            let _ = answer.send(copied);
        })?;
        drop(thread);
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    async fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let numbers = rustix::fs::statvfs(folder).map_err(|error| StoreError::NotAccessible {
            path: self.path.clone(),
            detail: error.to_string(),
        })?;
        Ok(Some(numbers.f_bavail.saturating_mul(numbers.f_frsize)))
    }

    async fn close(&self) -> Result<(), StoreError> {
        if let Some(inbox) = &self.inbox {
            inbox.close();
        }
        self.reads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().all(|thread| thread.join().is_ok())
        })
        .await;
        match joined {
            Ok(true) => Ok(()),
            _ => Err(StoreError::Database(
                "a thread of the store panicked; restart the service and report this as a bug"
                    .to_owned(),
            )),
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        if let Some(inbox) = &self.inbox {
            inbox.close();
        }
    }
}
