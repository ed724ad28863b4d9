//! The store on SQLite: one file, one writer thread, several reader threads.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{Notify, oneshot};

pub(super) use self::error::explain;
pub(super) use self::file::FileLock;
use self::file::OpenFiles;
use self::readers::{Readers, spawn};
pub use self::restore::{RestoredBackup, restore_backup};
use self::tx::{Begin, Database, SqliteTx, immediate, in_transaction};
use self::writer::{Inbox, Writer};
use super::Operation;
use crate::heaps;
use crate::store::error::Result;
use crate::store::messages::rehearse_messages;
use crate::store::start::{release_all_leases, resume_at_start};
use crate::store::{
    AcceptedMessage, BackupFile, Insertion, Quarantined, QueueLengths, StoreError, StoreOptions,
};

mod backup;
mod error;
mod file;
mod integrity;
mod readers;
mod restore;
mod schema;
mod tx;
mod writer;

/// Number of threads that read for people and programs.
const READERS: usize = 3;

/// The store on SQLite.
pub(in crate::store) struct SqliteEngine {
    database: Arc<Database>,
    /// `None` if it was opened for reading only.
    inbox: Option<Arc<Inbox>>,
    /// The writer's, which keeps them locked until it ends.
    files: Option<Weak<OpenFiles>>,
    readers: Readers,
    /// For the service's own work, which never waits for people's reads; `None` if it was opened
    /// for reading only.
    own_reader: Option<Readers>,
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
        let lock = FileLock::acquire(path)?;
        let path = &lock.database().to_owned();
        schema::refuse_empty(path)?;
        restore::set_stale_log_aside(path, options.clock.now())?;
        let mut connection = schema::open_for_writing(path)?;
        if backup::ensure_epoch(&connection).map_err(|error| explain(path, error))? {
            restore::settle_epoch(&connection, path)?;
        }
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
        let files = Arc::new(lock.opened()?);
        let looked_at = Arc::downgrade(&files);
        let writer = Writer {
            connection,
            database: Arc::clone(&database),
            inbox: Arc::clone(&inbox),
            triggers,
            ask: options.ask,
            quarantine_bytes: options.quarantine_bytes,
            quarantined: None,
            files,
        };
        let thread = spawn("store-writer", path, move || writer.run())?;
        Self::with_reader(database, Some((inbox, looked_at)), vec![thread])
    }

    /// Opens the file for reading, even while another process writes to it.
    pub(in crate::store) fn open_for_reading(path: &Path) -> Result<Self> {
        schema::refuse_empty(path)?;
        restore::refuse_stale_log(path)?;
        let database = Database {
            path: path.to_owned(),
            hooks: None,
        };
        Self::with_reader(Arc::new(database), None, Vec::new())
    }

    fn with_reader(
        database: Arc<Database>,
        writer: Option<(Arc<Inbox>, Weak<OpenFiles>)>,
        mut threads: Vec<JoinHandle<()>>,
    ) -> Result<Self> {
        let own_reader = match writer {
            Some(_) => Some(Readers::start(
                &database,
                "store-own-reader",
                1,
                &mut threads,
            )?),
            None => None,
        };
        let readers = Readers::start(&database, "store-reader", READERS, &mut threads)?;
        let (inbox, files) = writer.unzip();
        Ok(Self {
            database,
            inbox,
            files,
            readers,
            own_reader,
            threads: Mutex::new(threads),
        })
    }

    fn inbox(&self) -> Result<&Inbox> {
        self.inbox.as_deref().ok_or(StoreError::ReadOnly)
    }

    /// Runs an operation on the writer thread, in a transaction of its own.
    pub(in crate::store) async fn write<O: Operation>(&self, operation: O) -> Result<O::Output> {
        self.on_writer(Begin::Writing, |tx| immediate(operation.run(tx)))
            .await
    }

    /// Runs work on the writer thread, in a transaction of its own. A rehearsal also checks that
    /// the disk has room.
    async fn on_writer<T: Send + 'static>(
        &self,
        begin: Begin,
        work: impl FnOnce(&SqliteTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, outcome) = oneshot::channel();
        let database = Arc::clone(&self.database);
        let work = move |connection: &mut Connection, files: &OpenFiles| {
            let outcome = files
                .check()
                .and_then(|()| in_transaction(connection, &database, begin, work))
                .and_then(|done| match begin {
                    Begin::Rehearsing => files.check_room().map(|()| done),
                    Begin::Writing | Begin::Reading => Ok(done),
                });
            // The receiver is gone if the caller was dropped; the change is kept.
            let _ = answer.send(outcome);
        };
        self.inbox()?.enqueue_task(Box::new(work))?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs an operation on a reader thread, in one snapshot.
    pub(in crate::store) async fn read<O: Operation>(&self, operation: O) -> Result<O::Output> {
        self.read_with(&self.readers, operation).await
    }

    /// Runs an operation of the service's own work on a reader thread, in one snapshot.
    pub(in crate::store) async fn read_own<O: Operation>(&self, operation: O) -> Result<O::Output> {
        let readers = self.own_reader.as_ref().unwrap_or(&self.readers);
        self.read_with(readers, operation).await
    }

    async fn read_with<O: Operation>(&self, readers: &Readers, operation: O) -> Result<O::Output> {
        let database = Arc::clone(&self.database);
        let files = self.files.clone();
        let work = move |connection: &mut Connection| {
            let read = |tx: &SqliteTx<'_>| immediate(operation.run(tx));
            let outcome = in_transaction(connection, &database, Begin::Reading, read);
            match (&outcome, files.and_then(|files| files.upgrade())) {
                // What looks like damage may be another file, or what was left of this one.
                (Err(StoreError::Corrupt { .. }), Some(files)) => files.check().and(outcome),
                _ => outcome,
            }
        };
        readers.run(work).await
    }

    /// Stores a message with the next group.
    pub(in crate::store) async fn accept(&self, incoming: AcceptedMessage) -> Result<Insertion> {
        self.inbox()?
            .enqueue_message(incoming)?
            .await
            .map_err(|_| StoreError::Closed)?
    }

    /// Checks that a message could be stored, on the writer thread.
    pub(in crate::store) async fn probe(&self) -> Result<()> {
        self.readers.check()?;
        self.on_writer(Begin::Rehearsing, |tx| {
            immediate(rehearse_messages(tx, &[&[]]))
        })
        .await
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
            let _ = self.on_writer(Begin::Writing, |_| Ok(())).await;
        }
    }

    /// Returns the lengths of the writer's queues.
    pub(in crate::store) fn queue_lengths(&self) -> QueueLengths {
        self.inbox().map(Inbox::queue_lengths).unwrap_or_default()
    }

    /// Copies the database on a thread of its own, so that reads continue meanwhile.
    pub(in crate::store) async fn backup(&self, to: BackupFile) -> Result<()> {
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

    /// Checks the whole file for damage, on a thread of its own.
    pub(in crate::store) async fn check_integrity(&self) -> Result<()> {
        let (answer, outcome) = oneshot::channel();
        let path = self.database.path.clone();
        // Dropped with this future, which ends the check.
        let waiting = Arc::new(());
        let awaited = Arc::downgrade(&waiting);
        let thread = spawn("store-check", &self.database.path, move || {
            let checked = schema::open_for_reading(&path)
                .and_then(|mut connection| integrity::check(&mut connection, &path, awaited));
            heaps::release_freed();
            let _ = answer.send(checked);
        })?;
        drop(thread);
        let outcome = outcome.await.map_err(|_| StoreError::Closed);
        drop(waiting);
        outcome?
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
        self.readers.close();
        if let Some(own) = &self.own_reader {
            own.close();
        }
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

/// Opens the file for reading and locks it against servers, until the returned lock is
/// dropped.
pub(super) fn open_locked_for_reading(path: &Path) -> Result<(Connection, FileLock)> {
    restore::refuse_stale_log(path)?;
    // Opened first, so that no lock file is created beside a missing file.
    drop(schema::open_for_reading(path)?);
    let lock = FileLock::acquire(path)?;
    Ok((schema::open_for_reading(path)?, lock))
}
