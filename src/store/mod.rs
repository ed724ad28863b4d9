//! All SQL: the [`Store`], and the types that go in and out of it.
//!
//! Each operation is a function over a transaction of either database, in the file of its
//! subject, and `operations!` makes it a method of the store. What the two databases do in
//! ways of their own is in `engine`.
//!
//! Callers pass the time from their [`Clock`], so that tests can set it.

use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::{Notify, watch};

use self::engine::{Operation, PostgresEngine, SqliteEngine};
use crate::config::StoreUrl;
use crate::domain::Clock;

mod activity;
mod alarms;
mod allowed_topics;
mod attempts;
mod audit;
mod backup;
mod certificates;
mod columns;
mod completion;
mod debug;
mod deliveries;
mod delivery_counts;
mod delivery_leases;
mod delivery_lists;
mod destinations;
mod dismissals;
mod document_lists;
mod documents;
mod due;
mod engine;
mod erasure;
mod error;
mod feed_changes;
mod feed_lists;
mod feeds;
mod gaps;
mod held;
mod hooks;
mod import_error_decisions;
mod import_errors;
mod ingest;
mod lanes;
mod leases;
mod links;
mod list_places;
mod messages;
mod migrations;
mod options;
mod pages;
mod pausing;
mod pulls;
mod quarantine;
mod raising;
mod retention;
mod rights;
mod row_ids;
mod run_state;
mod search;
mod sessions;
mod start;
mod subscription_messages;
mod subscriptions;
mod tallies;
mod tokens;
mod trigger_kind;
mod triggers;
mod uploads;

pub use activity::*;
pub use alarms::*;
pub use allowed_topics::AllowedTopic;
pub use audit::*;
pub use backup::*;
pub use certificates::*;
pub use columns::UnknownName;
pub use deliveries::*;
pub use destinations::*;
pub use document_lists::*;
pub use documents::*;
pub use engine::{Copied, Progress, RestoredBackup, copy_from_sqlite, restore_backup};
pub use erasure::{ErasableVersion, ErasedFile, LeftFiles};
pub use error::*;
pub use feed_changes::*;
pub use feed_lists::*;
pub use feeds::*;
pub use gaps::{FoundGap, GapFilter, GapRow, IncompleteReason, PAGE_SIZE_NOTICE};
#[cfg(test)]
pub(crate) use gaps::{RecordPlan, StoredGap, earlier, earliest_provable, is_proven, plan_record};
pub use hooks::*;
pub use import_error_decisions::*;
pub use import_errors::*;
pub use messages::*;
pub use options::*;
pub use pausing::PauseChange;
#[cfg(test)]
pub(crate) use pulls::{SavedCursor, advance, overlap_start, plan_cursor_save, position_kind};
pub use quarantine::*;
pub use retention::*;
pub use rights::*;
pub use run_state::*;
pub use search::{Place, TextMatches, TextSearch};
pub use sessions::*;
pub use subscription_messages::{IN_REQUEST, MAX_UNKNOWN_TOPICS, UnknownTopicOffer};
pub use subscriptions::*;
pub use tokens::*;
pub use trigger_kind::*;
pub use uploads::*;

/// A shared handle to the store.
pub type SharedStore = Arc<Store>;

/// The store. Every method may be called twice with the same effect.
pub struct Store {
    engine: Engine,
    hooks: Option<Arc<dyn Hooks>>,
    /// Notified when a trigger may have been raised.
    triggers: Arc<Notify>,
    /// Changed when documents may have been stored, or a destination changed.
    arrivals: watch::Sender<()>,
    /// Notified when an import error may have become due.
    import_errors: Notify,
}

/// The database. Only the methods of [`Store`] in this file tell the two apart.
enum Engine {
    Sqlite(SqliteEngine),
    Postgres(PostgresEngine),
}

/// Does the same with either engine.
macro_rules! with_engine {
    ($store:expr, $engine:ident => $work:expr) => {
        match &$store.engine {
            Engine::Sqlite($engine) => $work,
            Engine::Postgres($engine) => $work,
        }
    };
}

impl Store {
    /// Opens the store for reading and writing.
    ///
    /// Returns after a few milliseconds, later if a migration runs.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] if another process has the file open,
    /// [`StoreError::Unreachable`] if the server can't be reached, and others, each with what
    /// to do.
    pub async fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let triggers = Arc::new(Notify::new());
        let engine = match &options.url {
            StoreUrl::Sqlite(path) => {
                Engine::Sqlite(SqliteEngine::open(path, &options, Arc::clone(&triggers))?)
            }
            StoreUrl::Postgres(address) => Engine::Postgres(
                PostgresEngine::open(address.clone(), &options, Arc::clone(&triggers)).await?,
            ),
        };
        Ok(Self {
            engine,
            hooks: options.hooks,
            triggers,
            arrivals: watch::Sender::new(()),
            import_errors: Notify::new(),
        })
    }

    /// Opens the store for reading, even while another process writes to it.
    ///
    /// # Errors
    ///
    /// If there is no store with this version's schema, or it can't be opened or reached.
    pub async fn open_for_reading(url: &StoreUrl) -> Result<Self, StoreError> {
        let engine = match url {
            StoreUrl::Sqlite(path) => Engine::Sqlite(SqliteEngine::open_for_reading(path)?),
            StoreUrl::Postgres(address) => {
                Engine::Postgres(PostgresEngine::open_for_reading(address.clone()).await?)
            }
        };
        Ok(Self {
            engine,
            hooks: None,
            triggers: Arc::default(),
            arrivals: watch::Sender::new(()),
            import_errors: Notify::new(),
        })
    }

    async fn before(&self, step: Step) -> Result<(), StoreError> {
        match &self.hooks {
            Some(hooks) => hooks.before(step).await,
            None => Ok(()),
        }
    }

    /// Runs an operation in one snapshot.
    async fn read<O: Operation>(&self, operation: O) -> Result<O::Output, StoreError> {
        self.before(Step::Read).await?;
        with_engine!(self, engine => engine.read(operation).boxed().await)
    }

    /// Runs an operation of the service's own work in one snapshot. It never waits for what people
    /// and programs read.
    async fn read_own<O: Operation>(&self, operation: O) -> Result<O::Output, StoreError> {
        self.before(Step::Read).await?;
        with_engine!(self, engine => engine.read_own(operation).boxed().await)
    }

    /// Reads the quarantine, with the messages that this process was offered before.
    async fn read_after_flush<O: Operation>(&self, operation: O) -> Result<O::Output, StoreError> {
        with_engine!(self, engine => engine.flush_quarantine().await);
        self.read(operation).await
    }

    /// Runs an operation in a transaction that is synced to disk when this returns.
    ///
    /// Boxed and without its type, like reads: callers' futures don't hold those of both engines,
    /// and the compiler doesn't prove for each caller again that they may move between threads.
    async fn write<O: Operation>(&self, operation: O) -> Result<O::Output, StoreError> {
        self.before(Step::Write).await?;
        let written = with_engine!(self, engine => engine.write(operation).boxed().await)?;
        self.before(Step::Written).await?;
        Ok(written)
    }

    fn wake_pullers(&self) {
        self.triggers.notify_one();
    }

    fn wake_deliveries(&self) {
        self.arrivals.send_replace(());
    }

    fn wake_import_errors(&self) {
        self.import_errors.notify_one();
    }

    /// Stores a verified message and raises its trigger, in one transaction that is
    /// synced to disk when this returns.
    ///
    /// A SubscriptionConfirmation also adds a pending subscription, which awaits a
    /// person's approval if the store was opened so; an UnsubscribeConfirmation ends one.
    pub async fn accept(&self, incoming: AcceptedMessage) -> Result<Insertion, StoreError> {
        self.before(Step::Accept).await?;
        let insertion = with_engine!(self, engine => engine.accept(incoming).await)?;
        self.before(Step::Accepted).await?;
        Ok(insertion)
    }

    /// Checks that a message could be stored now, on the path that messages take.
    ///
    /// # Errors
    ///
    /// The error that storing a message would return.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.before(Step::Probe).await?;
        match &self.engine {
            Engine::Sqlite(engine) => {
                engine.probe().await?;
                // Without its reader the puller gets no answers.
                self.probe_reading().await
            }
            Engine::Postgres(engine) => Box::pin(engine.probe()).await,
        }
    }

    /// Offers a refused message to the quarantine; returns false if it was dropped
    /// because the queue is full. Never waits.
    pub fn offer_quarantine(&self, item: Quarantined) -> bool {
        with_engine!(self, engine => engine.offer_quarantine(item))
    }

    /// Returns the lengths of this process's write queues. Never waits.
    pub fn queue_lengths(&self) -> QueueLengths {
        with_engine!(self, engine => engine.queue_lengths())
    }

    /// Waits until this process may have raised a trigger since the last call. The rows decide
    /// what is due.
    pub async fn triggered(&self) {
        self.triggers.notified().await;
    }

    /// Returns true if other processes may share the store.
    pub fn is_shared(&self) -> bool {
        matches!(self.engine, Engine::Postgres(_))
    }

    /// Returns a watch that changes when this process may have stored documents or
    /// changed a destination. The rows decide what is to be delivered.
    pub fn arrivals(&self) -> watch::Receiver<()> {
        self.arrivals.subscribe()
    }

    /// Waits until this process may have made an import error due since the last call. The rows
    /// decide what is due.
    pub async fn import_error_due(&self) {
        self.import_errors.notified().await;
    }

    /// Returns the clock that all processes on this store share; `None` if no other
    /// process shares it and the machine's own clock will do.
    pub fn clock(&self) -> Option<Clock> {
        match &self.engine {
            Engine::Sqlite(_) => None,
            Engine::Postgres(engine) => Some(engine.clock()),
        }
    }

    /// Writes a complete copy to `to` while the service runs.
    ///
    /// # Errors
    ///
    /// [`StoreError::BackupOntoItself`] if `to` is the store or one of its files,
    /// [`StoreError::BackupExists`], [`StoreError::BackupRunning`];
    /// [`StoreError::BackedUpElsewhere`] on PostgreSQL.
    pub async fn backup(&self, to: BackupFile) -> Result<(), StoreError> {
        match &self.engine {
            Engine::Sqlite(engine) => engine.backup(to).await,
            Engine::Postgres(_) => Err(StoreError::BackedUpElsewhere),
        }
    }

    /// Reads the whole database and checks it for damage, without hurry; PostgreSQL checks
    /// its own.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if it is damaged.
    pub async fn check_integrity(&self) -> Result<(), StoreError> {
        match &self.engine {
            Engine::Sqlite(engine) => engine.check_integrity().await,
            Engine::Postgres(_) => Ok(()),
        }
    }

    /// Returns the free bytes of the store's disk; `None` if the store is not on a disk
    /// of this machine.
    ///
    /// # Errors
    ///
    /// If the system does not answer.
    pub async fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        let planted = self.hooks.as_ref().and_then(|hooks| hooks.free_bytes());
        match &self.engine {
            _ if planted.is_some() => Ok(planted),
            Engine::Sqlite(engine) => engine.free_bytes().map(Some),
            Engine::Postgres(_) => Ok(None),
        }
    }

    /// Finishes queued work and closes the store; later calls return
    /// [`StoreError::Closed`].
    ///
    /// # Errors
    ///
    /// If a part of the store has panicked.
    pub async fn close(&self) -> Result<(), StoreError> {
        with_engine!(self, engine => engine.close().await)
    }
}
