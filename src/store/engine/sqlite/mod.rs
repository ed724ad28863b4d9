//! The store on SQLite: one file, one writer thread, one reader thread.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{Notify, oneshot};

pub(super) use self::error::explain;
use self::tx::{Begin, Database, SqliteTx, immediate, in_transaction};
use self::writer::{Inbox, Writer};
use super::Operation;
use crate::store::error::Result;
use crate::store::leases::release_all_leases;
use crate::store::pausing::resume_at_start;
use crate::store::{
    AcceptedMessage, Insertion, Quarantined, QueueLengths, StoreError, StoreOptions,
};

mod backup;
mod error;
mod schema;
mod tx;
mod writer;

/// A read of the database.
type Read = Box<dyn FnOnce(&mut Connection) + Send>;

/// The store on SQLite.
pub(in crate::store) struct SqliteEngine {
    database: Arc<Database>,
    /// `None` if it was opened for reading only.
    inbox: Option<Arc<Inbox>>,
    reads: Mutex<Option<mpsc::SyncSender<Read>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl SqliteEngine {
    /// Creates the file if needed, locks it for this process, and migrates it. Blocks for a
    /// few milliseconds, longer if a migration runs.
    pub(in crate::store) fn open(
        path: &Path,
        options: &StoreOptions,
        triggers: Arc<Notify>,
    ) -> Result<Self> {
        let lock = lock_file(path)?;
        let mut connection = schema::open_for_writing(path)?;
        backup::ensure_epoch(&connection).map_err(|error| explain(path, error))?;
        let database = Arc::new(Database {
            path: path.to_owned(),
            hooks: options.hooks.clone(),
        });
        in_transaction(&mut connection, &database, Begin::Writing, |tx| {
            immediate(async {
                release_all_leases(tx).await?;
                resume_at_start(tx).await
            })
        })?;
        let inbox = Arc::new(Inbox::new(options.queue));
        let writer = Writer {
            connection,
            database: Arc::clone(&database),
            inbox: Arc::clone(&inbox),
            triggers,
            ask: options.ask,
            quarantine_bytes: options.quarantine_bytes,
            quarantined: None,
            _lock: lock,
        };
        let thread = spawn("store-writer", path, move || writer.run())?;
        Self::with_reader(database, Some(inbox), vec![thread])
    }

    /// Opens the file for reading, even while another process writes to it.
    pub(in crate::store) fn open_for_reading(path: &Path) -> Result<Self> {
        let database = Database {
            path: path.to_owned(),
            hooks: None,
        };
        Self::with_reader(Arc::new(database), None, Vec::new())
    }

    fn with_reader(
        database: Arc<Database>,
        inbox: Option<Arc<Inbox>>,
        mut threads: Vec<JoinHandle<()>>,
    ) -> Result<Self> {
        let mut connection = schema::open_for_reading(&database.path)?;
        let (reads, inbox_of_reader) = mpsc::sync_channel::<Read>(256);
        threads.push(spawn("store-reader", &database.path, move || {
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
        })?);
        Ok(Self {
            database,
            inbox,
            reads: Mutex::new(Some(reads)),
            threads: Mutex::new(threads),
        })
    }

    fn inbox(&self) -> Result<&Inbox> {
        self.inbox.as_deref().ok_or(StoreError::ReadOnly)
    }

    /// Runs an operation on the writer thread, in a transaction of its own.
    pub(in crate::store) async fn write<O: Operation>(&self, operation: O) -> Result<O::Output> {
        self.on_writer(|tx| immediate(operation.run(tx))).await
    }

    async fn on_writer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SqliteTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, outcome) = oneshot::channel();
        let database = Arc::clone(&self.database);
        self.inbox()?.enqueue_task(Box::new(move |connection| {
            // The receiver is gone if the caller was dropped; the change is kept.
            let _ = answer.send(in_transaction(connection, &database, Begin::Writing, work));
        }))?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs an operation on the reader thread, in one snapshot.
    pub(in crate::store) async fn read<O: Operation>(&self, operation: O) -> Result<O::Output> {
        let (answer, outcome) = oneshot::channel();
        let database = Arc::clone(&self.database);
        let task: Read = Box::new(move |connection| {
            let read = |tx: &mut SqliteTx<'_>| immediate(operation.run(tx));
            let _ = answer.send(in_transaction(connection, &database, Begin::Reading, read));
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

    /// Stores a message with the next group.
    pub(in crate::store) async fn accept(&self, incoming: AcceptedMessage) -> Result<Insertion> {
        self.inbox()?
            .enqueue_message(incoming)?
            .await
            .map_err(|_| StoreError::Closed)?
    }

    /// Begins a transaction on the writer thread, which changes nothing.
    pub(in crate::store) async fn probe(&self) -> Result<()> {
        self.on_writer(|_| Ok(())).await
    }

    /// Queues a refused message for the quarantine; returns false if it was dropped.
    pub(in crate::store) fn offer_quarantine(&self, item: Quarantined) -> bool {
        self.inbox()
            .is_ok_and(|inbox| inbox.offer_quarantined(item))
    }

    /// Waits for the messages that were offered to the quarantine before.
    pub(in crate::store) async fn flush_quarantine(&self) {
        // Each round of the writer runs one task, then stores what was offered.
        for _ in 0..2 {
            let _ = self.probe().await;
        }
    }

    /// Returns the lengths of the writer's queues.
    pub(in crate::store) fn queue_lengths(&self) -> QueueLengths {
        self.inbox().map(Inbox::queue_lengths).unwrap_or_default()
    }

    /// Copies the database on a thread of its own, so that reads continue meanwhile.
    pub(in crate::store) async fn backup(&self, to: PathBuf) -> Result<()> {
        let (answer, outcome) = oneshot::channel();
        let source = self.database.path.clone();
        let thread = spawn("store-backup", &self.database.path, move || {
            let copied = schema::open_for_reading(&source)
                .and_then(|connection| backup::copy(&connection, &source, &to));
            let _ = answer.send(copied);
        })?;
        drop(thread);
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// Returns the free bytes of the file's disk.
    pub(in crate::store) fn free_bytes(&self) -> Result<u64> {
        let path = &self.database.path;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let numbers = rustix::fs::statvfs(folder).map_err(|error| StoreError::NotAccessible {
            path: path.clone(),
            detail: error.to_string(),
        })?;
        Ok(numbers.f_bavail.saturating_mul(numbers.f_frsize))
    }

    /// Ends the threads once what is queued is done.
    pub(in crate::store) async fn close(&self) -> Result<()> {
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

impl Drop for SqliteEngine {
    fn drop(&mut self) {
        if let Some(inbox) = &self.inbox {
            inbox.close();
        }
    }
}

/// Opens the file for reading and locks it against servers, until the returned lock file is
/// dropped.
pub(super) fn open_locked_for_reading(path: &Path) -> Result<(Connection, File)> {
    // Opened first, so that no lock file is created beside a missing file.
    drop(schema::open_for_reading(path)?);
    let lock = lock_file(path)?;
    Ok((schema::open_for_reading(path)?, lock))
}

/// Acquires the lock of the only process that may write; it is released when the process ends.
fn lock_file(path: &Path) -> Result<File> {
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

fn spawn(name: &str, path: &Path, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| StoreError::NotAccessible {
            path: path.to_owned(),
            detail: format!("failed to start a thread: {error}; check the limits of this user"),
        })
}
