//! The store on PostgreSQL: one database that any number of replicas share.
//!
//! No result depends on the state of a session (no LISTEN, no session lock), so that PgBouncer in
//! transaction mode can be used. Due times and leases go by the database's clock.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use self::connection::{INGEST_TASKS, Pool, Use};
use self::tasks::{Ingest, QuarantineCommand, run_quarantine};
use super::Operation;
use crate::config::PostgresAddress;
use crate::domain::Clock;
use crate::store::error::Result;
use crate::store::ingest::{PendingMessage, Room};
use crate::store::messages::rehearse_messages;
use crate::store::quarantine::QUARANTINE_QUEUE;
use crate::store::start::resume_at_start;
use crate::store::{
    AcceptedMessage, Insertion, Quarantined, QueueLengths, StoreError, StoreOptions,
};

mod beginning;
mod clock;
mod connection;
mod copy;
mod error;
mod known;
mod schema;
mod session;
mod tasks;
mod tls;
mod turn;
mod tx;
mod types;

pub use self::copy::{Copied, Progress, copy_from_sqlite};

/// The channels to the tasks that write.
struct Senders {
    messages: mpsc::Sender<PendingMessage>,
    quarantine: mpsc::Sender<QuarantineCommand>,
}

/// Bodies with which the probe looks for room: one that stays in its row, and SNS's largest, which is
/// kept beside it.
const SMALL_BODY: usize = 1_900;
const LARGE_BODY: usize = 256 * 1024;

/// The store on PostgreSQL.
pub(in crate::store) struct PostgresEngine {
    pool: Arc<Pool>,
    read_only: bool,
    senders: Mutex<Option<Senders>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Bytes of messages that wait for a commit.
    waiting: Arc<AtomicUsize>,
    /// True if a message found no room, until the probe finds some.
    no_room: AtomicBool,
}

impl PostgresEngine {
    /// Opens the database, which other replicas may use too, and migrates it as needed.
    pub(in crate::store) async fn open(
        address: PostgresAddress,
        options: &StoreOptions,
        triggers: Arc<Notify>,
    ) -> Result<Self> {
        let hooks = options.hooks.clone();
        let pool = Arc::new(Pool::new(address, options.clock.clone(), hooks)?);
        schema::migrate(&pool).await?;
        let transaction = pool.write().await?;
        resume_at_start(&transaction).await?;
        transaction.commit().await?;
        let (messages, arriving) = mpsc::channel(options.queue.max(1));
        let (quarantine, refused) = mpsc::channel(QUARANTINE_QUEUE);
        let inbox = Arc::new(tokio::sync::Mutex::new(arriving));
        let ingest = (0..INGEST_TASKS).map(|_| Ingest {
            inbox: Arc::clone(&inbox),
            pool: Arc::clone(&pool),
            triggers: Arc::clone(&triggers),
            ask: options.ask,
        });
        let mut tasks: Vec<_> = ingest.map(|one| tokio::spawn(one.run())).collect();
        let quarantining = run_quarantine(Arc::clone(&pool), options.quarantine_bytes, refused);
        tasks.push(tokio::spawn(quarantining));
        Ok(Self {
            pool,
            read_only: false,
            senders: Mutex::new(Some(Senders {
                messages,
                quarantine,
            })),
            tasks: Mutex::new(tasks),
            waiting: Arc::default(),
            no_room: AtomicBool::new(false),
        })
    }

    /// Opens the database for reading.
    pub(in crate::store) async fn open_for_reading(address: PostgresAddress) -> Result<Self> {
        let pool = Arc::new(Pool::new(address, Clock::system(), None)?);
        schema::check(&pool).await?;
        Ok(Self {
            pool,
            read_only: true,
            senders: Mutex::new(None),
            tasks: Mutex::default(),
            waiting: Arc::default(),
            no_room: AtomicBool::new(false),
        })
    }

    /// Returns the clock that all processes on this database share.
    pub(in crate::store) fn clock(&self) -> Clock {
        self.pool.time.clock()
    }

    /// Runs an operation that writes.
    pub(in crate::store) async fn write<O: Operation>(&self, operation: O) -> Result<O::Output> {
        self.may_write()?;
        let transaction = self.pool.write().await?;
        match operation.run(&transaction).await {
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
    pub(in crate::store) async fn read<O: Operation>(&self, operation: O) -> Result<O::Output> {
        self.read_for(Use::People, operation).await
    }

    /// Runs an operation of the service's own work that reads one snapshot.
    pub(in crate::store) async fn read_own<O: Operation>(&self, operation: O) -> Result<O::Output> {
        self.read_for(Use::Work, operation).await
    }

    async fn read_for<O: Operation>(&self, used_for: Use, operation: O) -> Result<O::Output> {
        let transaction = self.pool.read(used_for).await?;
        let outcome = operation.run(&transaction).await?;
        transaction.commit().await?;
        Ok(outcome)
    }

    fn may_write(&self) -> Result<()> {
        match self.read_only {
            true => Err(StoreError::ReadOnly),
            false => Ok(()),
        }
    }

    fn senders<T>(&self, each: impl FnOnce(&Senders) -> T) -> Option<T> {
        self.senders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(each)
    }

    /// Stores a message with the next group.
    pub(in crate::store) async fn accept(&self, incoming: AcceptedMessage) -> Result<Insertion> {
        self.may_write()?;
        let (answer, outcome) = oneshot::channel();
        let bytes = incoming.message.body().len();
        let room = Room::take(&self.waiting, bytes).ok_or(StoreError::QueueFull)?;
        let pending = PendingMessage {
            incoming,
            answer,
            _room: Some(room),
        };
        let queued = self.senders(|senders| {
            let sent = senders.messages.try_send(pending);
            sent.map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => StoreError::QueueFull,
                mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
            })
        });
        queued.unwrap_or(Err(StoreError::Closed))?;
        let stored = outcome.await.map_err(|_| StoreError::Closed)?;
        if let Err(StoreError::DiskFull { .. }) = stored {
            self.no_room.store(true, Ordering::Relaxed);
        }
        stored
    }

    /// Checks that a message could be stored, on the primary.
    pub(in crate::store) async fn probe(&self) -> Result<()> {
        self.may_write()?;
        // Until `close` a task ends only by a panic, and all must be running.
        if self.has_ended() || self.senders(|senders| senders.messages.is_closed()) != Some(false) {
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
        if is_read_only {
            transaction.roll_back().await?;
            return Err(StoreError::Unreachable {
                detail: "the server is a read-only standby; name the primary in `store.url`".into(),
            });
        }
        // The disk is the server's own. Once it was full, pages that are there already may have
        // room for some messages, but not for every one.
        let (mut small, mut large) = ([0; SMALL_BODY], Vec::new());
        let mut bodies: Vec<&[u8]> = vec![&[]];
        if self.no_room.load(Ordering::Relaxed) {
            large.resize(LARGE_BODY, 0);
            // The server compresses what it can. On supported systems the random source never
            // fails once it has started.
            getrandom::fill(&mut small).expect("the system provides random bytes");
            getrandom::fill(&mut large).expect("the system provides random bytes");
            bodies.extend([small.as_slice(), large.as_slice()]);
        }
        rehearse_messages(&transaction, &bodies).await?;
        transaction.roll_back().await?;
        self.no_room.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Returns true if one of the tasks that write has ended.
    fn has_ended(&self) -> bool {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().any(JoinHandle::is_finished)
    }

    /// Queues a refused message for the quarantine; returns false if it was dropped.
    pub(in crate::store) fn offer_quarantine(&self, item: Quarantined) -> bool {
        let command = QuarantineCommand::Store(item);
        self.senders(|senders| senders.quarantine.try_send(command).is_ok())
            .unwrap_or(false)
    }

    /// Waits for the messages that were offered to the quarantine before.
    pub(in crate::store) async fn flush_quarantine(&self) {
        if let Some(inbox) = self.senders(|senders| senders.quarantine.clone()) {
            let (done, flushed) = oneshot::channel();
            if inbox.send(QuarantineCommand::Flush(done)).await.is_ok() {
                let _ = flushed.await;
            }
        }
    }

    /// Returns the lengths of the queues of the tasks that write.
    pub(in crate::store) fn queue_lengths(&self) -> QueueLengths {
        let lengths = self.senders(|senders| QueueLengths {
            messages: queue_length(&senders.messages),
            refused: queue_length(&senders.quarantine),
            changes: 0,
        });
        lengths.unwrap_or_default()
    }

    /// Ends the tasks once what is queued has been stored and answered.
    pub(in crate::store) async fn close(&self) -> Result<()> {
        self.senders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let mut all_ended_well = true;
        for task in tasks {
            all_ended_well &= task.await.is_ok();
        }
        self.pool.close();
        match all_ended_well {
            true => Ok(()),
            false => Err(StoreError::Database(
                "a task of the store panicked; restart the service and report this as a bug"
                    .to_owned(),
            )),
        }
    }
}

/// Returns the number of queued items.
fn queue_length<T>(queue: &mpsc::Sender<T>) -> usize {
    queue.max_capacity() - queue.capacity()
}
