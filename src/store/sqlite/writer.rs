//! The one thread that writes: messages in groups, everything else in between.

use std::collections::VecDeque;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{Notify, oneshot};

use super::error::explain;
use super::ingest::{Ingest, Known};
use super::quarantine::Shelf;
use crate::store::words::{GROUP, QUARANTINE_QUEUE};
use crate::store::{self, AcceptedMessage, Insertion, Quarantined, StoreError};

/// Changes, other than messages, that may wait.
const TASKS: usize = 1024;

/// Bytes of messages that may wait for the next commit: those whose sender was answered
/// in the meantime still lie here.
const LANE_BYTES: usize = 64 << 20;

/// A change of the database, run inside a transaction of its own.
type Task = Box<dyn FnOnce(&mut Connection) + Send>;

/// A message and who waits for it.
struct Waiting {
    incoming: AcceptedMessage,
    answer: oneshot::Sender<Result<Insertion, StoreError>>,
}

/// A line with a bound on what stands in it, in number and in bytes.
struct Line<T> {
    waiting: VecDeque<(usize, T)>,
    bytes: usize,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<T> Line<T> {
    /// Puts `item` of so many `bytes` at the end, if there is room for it.
    fn push(&mut self, item: T, bytes: usize, capacity: usize) -> Result<(), StoreError> {
        if self.waiting.len() >= capacity || self.bytes + bytes > LANE_BYTES {
            return Err(StoreError::QueueFull);
        }
        self.bytes += bytes;
        self.waiting.push_back((bytes, item));
        Ok(())
    }

    /// The first `count`, or as many as there are.
    fn take(&mut self, count: usize) -> Vec<T> {
        let count = count.min(self.waiting.len());
        let taken = self.waiting.drain(..count);
        taken
            .map(|(bytes, item)| {
                self.bytes -= bytes;
                item
            })
            .collect()
    }
}

#[derive(Default)]
struct Lanes {
    messages: Line<Waiting>,
    tasks: VecDeque<Task>,
    quarantine: VecDeque<Quarantined>,
    closing: bool,
}

/// The way to the writer, with a bound for each lane.
pub(super) struct Inbox {
    lanes: Mutex<Lanes>,
    filled: Condvar,
    capacity: usize,
}

impl Inbox {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            lanes: Mutex::default(),
            filled: Condvar::new(),
            capacity,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        // The lanes are whole whenever the lock is free, also after a panic.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message in line for the next commit.
    pub(super) fn deliver(
        &self,
        incoming: AcceptedMessage,
    ) -> Result<oneshot::Receiver<Result<Insertion, StoreError>>, StoreError> {
        let (answer, receiver) = oneshot::channel();
        let mut lanes = self.lock();
        if lanes.closing {
            return Err(StoreError::Closed);
        }
        let bytes = incoming.message.body().len();
        lanes
            .messages
            .push(Waiting { incoming, answer }, bytes, self.capacity)?;
        drop(lanes);
        self.filled.notify_one();
        Ok(receiver)
    }

    /// Puts a change in line.
    pub(super) fn submit(&self, task: Task) -> Result<(), StoreError> {
        let mut lanes = self.lock();
        if lanes.closing {
            return Err(StoreError::Closed);
        }
        if lanes.tasks.len() >= TASKS {
            return Err(StoreError::QueueFull);
        }
        lanes.tasks.push_back(task);
        drop(lanes);
        self.filled.notify_one();
        Ok(())
    }

    /// Puts a refused message in line, or drops it.
    pub(super) fn offer(&self, item: Quarantined) -> bool {
        let mut lanes = self.lock();
        if lanes.closing || lanes.quarantine.len() >= QUARANTINE_QUEUE {
            return false;
        }
        lanes.quarantine.push_back(item);
        drop(lanes);
        self.filled.notify_one();
        true
    }

    /// How many stand in each line.
    pub(super) fn waiting(&self) -> store::Waiting {
        let lanes = self.lock();
        store::Waiting {
            messages: lanes.messages.waiting.len(),
            refused: lanes.quarantine.len(),
            changes: lanes.tasks.len(),
        }
    }

    /// Takes nothing more; what is in line is still done.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.filled.notify_one();
    }

    /// Takes nothing more and drops what is in line, so that whoever waits is told.
    fn abandon(&self) {
        let dropped = {
            let mut lanes = self.lock();
            std::mem::replace(
                &mut *lanes,
                Lanes {
                    closing: true,
                    ..Lanes::default()
                },
            )
        };
        // Not while the lock is held: a task's end may run code of its own.
        drop(dropped);
    }

    /// What to do next: all messages that fit one commit, and one other change, so
    /// that neither starves the other. `None` once closed and empty.
    fn next(&self) -> Option<(Vec<Waiting>, Option<Task>, Vec<Quarantined>)> {
        let mut lanes = self.lock();
        loop {
            let messages = lanes.messages.take(GROUP);
            let task = lanes.tasks.pop_front();
            let quarantine: Vec<_> = if messages.is_empty() {
                lanes.quarantine.drain(..).collect()
            } else {
                Vec::new()
            };
            if !messages.is_empty() || task.is_some() || !quarantine.is_empty() {
                return Some((messages, task, quarantine));
            }
            if lanes.closing {
                return None;
            }
            lanes = self
                .filled
                .wait(lanes)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What the writer thread owns.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) inbox: Arc<Inbox>,
    /// Told when a trigger may have been raised.
    pub(super) trigger: Arc<Notify>,
    pub(super) ask: bool,
    pub(super) shelf: Shelf,
    /// The lock of the one process that may write, held until the last change is done.
    pub(super) _lock: File,
}

impl Writer {
    /// Works until the inbox is closed and empty. A defect on the way closes the inbox
    /// and answers everyone [`StoreError::Closed`]; the thread then ends by it.
    pub(super) fn run_to_its_end(self) {
        let inbox = Arc::clone(&self.inbox);
        // Nothing of the writer is used after a defect, so nothing half-done is seen.
        if let Err(defect) = catch_unwind(AssertUnwindSafe(move || self.run())) {
            inbox.abandon();
            tracing::error!(
                "the store's writing thread ended by a defect: nothing is stored any more, and \
                 messages are answered 503; restart the service, and please report it"
            );
            resume_unwind(defect);
        }
    }

    fn run(mut self) {
        let mut known = Known::default();
        while let Some((messages, task, quarantine)) = self.inbox.next() {
            if !messages.is_empty() {
                self.commit_group(messages, &mut known);
            }
            if let Some(task) = task {
                task(&mut self.connection);
            }
            if !quarantine.is_empty()
                && let Err(error) = self.shelf.keep(&mut self.connection, quarantine)
            {
                let error = explain(&self.path, error);
                tracing::warn!(%error, "refused messages could not be kept in the quarantine");
            }
        }
        // Moves the log into the database, so that a copy of the one file is whole.
        if let Err(error) = self
            .connection
            .pragma_update(None, "wal_checkpoint", "TRUNCATE")
        {
            tracing::debug!(%error, "the write-ahead log was left for the next start");
        }
    }

    /// Stores a group in one transaction and answers each when it is on the disk.
    fn commit_group(&mut self, group: Vec<Waiting>, known: &mut Known) {
        let (messages, answers): (Vec<_>, Vec<_>) = group
            .into_iter()
            .map(|waiting| (waiting.incoming, waiting.answer))
            .unzip();
        match self.store_group(messages, known) {
            Ok((outcomes, raised)) => {
                if raised {
                    self.trigger.notify_waiters();
                    self.trigger.notify_one();
                }
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    let outcome = outcome.map_err(|error| explain(&self.path, error));
                    // Nobody waits any more where the connection was dropped.
                    let _ = answer.send(outcome);
                }
            }
            Err(error) => {
                // Rows that the rollback took must not be remembered.
                known.forget();
                let error = explain(&self.path, error);
                tracing::error!(%error, "a group of {} messages could not be stored", answers.len());
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }
    fn store_group(
        &mut self,
        messages: Vec<AcceptedMessage>,
        known: &mut Known,
    ) -> rusqlite::Result<(Vec<rusqlite::Result<Insertion>>, bool)> {
        let mut transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut ingest = Ingest::new(known, self.ask);
        let mut outcomes = Vec::with_capacity(messages.len());
        for incoming in messages {
            // One message that fails leaves the others of its group alone.
            let savepoint = transaction.savepoint()?;
            match ingest.store(&savepoint, &incoming) {
                Ok(insertion) => {
                    savepoint.commit()?;
                    outcomes.push(Ok(insertion));
                }
                Err(error) if transaction_is_gone(&error) => return Err(error),
                Err(error) => {
                    drop(savepoint);
                    ingest.forget();
                    outcomes.push(Err(error));
                }
            }
        }
        let raised = ingest.raise_triggers(&transaction)?;
        transaction.commit()?;
        Ok((outcomes, raised))
    }
}

/// Whether SQLite rolls the whole transaction back on this error
/// (sqlite.org/lang_transaction.html, "Response To Errors Within A Transaction").
fn transaction_is_gone(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, OutOfMemory, SystemIoFailure};
    matches!(
        error.sqlite_error_code(),
        Some(DiskFull | SystemIoFailure | OutOfMemory | DatabaseCorrupt)
    )
}

#[cfg(test)]
mod tests {
    use super::{LANE_BYTES, Line};
    use crate::store::sqlite::{SqliteOptions, SqliteStore};
    use crate::store::{Store as _, StoreError};

    fn store(folder: &tempfile::TempDir) -> SqliteStore {
        let options = SqliteOptions {
            path: folder.path().join("test.db"),
            queue: 8,
            quarantine_bytes: 1024,
            ask: false,
        };
        SqliteStore::open(options).expect("a fresh store opens")
    }

    #[test]
    fn a_queue_is_bounded_in_number_and_bytes_and_drains() {
        let mut line = Line::default();
        let full = |outcome| matches!(outcome, Err(StoreError::QueueFull));
        line.push('a', LANE_BYTES - 1, 3).expect("there is room");
        assert!(full(line.push('x', 2, 3)), "too many bytes");
        line.push('b', 1, 3).expect("the last byte");
        line.push('c', 0, 3).expect("the last place");
        assert!(full(line.push('x', 0, 3)), "too many");

        assert_eq!(line.take(1), ['a']);
        line.push('d', LANE_BYTES - 1, 3).expect("room again");
        assert_eq!(line.take(9), ['b', 'c', 'd']);
        line.push('e', LANE_BYTES, 3).expect("all of it again");
    }

    #[tokio::test]
    async fn a_panicked_writer_answers_everyone_and_fails_the_probe() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(&folder);
        store.probe().await.expect("a write would be taken");
        let (go, held) = std::sync::mpsc::sync_channel::<()>(1);

        let defect = store.change(move |_| -> rusqlite::Result<()> {
            let _ = held.recv();
            panic!("planted")
        });
        let in_line = store.change(|_| Ok(()));
        let release = async { go.send(()) };
        let (defect, in_line, released) = tokio::join!(defect, in_line, release);

        released.expect("the writer waited");
        for outcome in [defect, in_line, store.probe().await] {
            assert!(matches!(outcome, Err(StoreError::Closed)), "{outcome:?}");
        }
        assert!(store.sequence().await.is_ok(), "reading goes on");
        assert!(store.close().await.is_err(), "the early end is told");
    }

    #[tokio::test]
    async fn a_panicked_reader_fails_the_probe() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(&folder);

        let defect = store
            .read(|_| -> rusqlite::Result<()> { panic!("planted") })
            .await;

        assert!(matches!(defect, Err(StoreError::Closed)), "{defect:?}");
        let probed = store.probe().await;
        assert!(matches!(probed, Err(StoreError::Closed)), "{probed:?}");
    }
}
