//! The writer thread: commits messages in groups, and runs other changes in between.

use std::collections::VecDeque;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tokio::sync::{Notify, oneshot};

use super::error::explain;
use super::ingest::{Ingest, RowIdCache};
use super::quarantine::QuarantineWriter;
use super::tx::{Begin, control, in_transaction};
use crate::store::limits::{MAX_GROUP, QUARANTINE_QUEUE};
use crate::store::{self, AcceptedMessage, Insertion, Quarantined, StoreError};

/// Maximum number of queued changes other than messages.
const MAX_TASKS: usize = 1024;

/// Maximum number of bytes of queued messages, including those whose request has timed out.
const MAX_QUEUED_BYTES: usize = 64 << 20;

/// A change of the database, run in a transaction of its own.
type Task = Box<dyn FnOnce(&mut Connection) + Send>;

/// A message that waits to be stored, and the channel for its answer.
struct PendingMessage {
    incoming: AcceptedMessage,
    answer: oneshot::Sender<Result<Insertion, StoreError>>,
}

/// A queue that is bounded in number and in bytes.
struct BoundedQueue<T> {
    items: VecDeque<(usize, T)>,
    bytes: usize,
}

impl<T> Default for BoundedQueue<T> {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<T> BoundedQueue<T> {
    /// Appends `item`, which counts as `bytes`, if there is room for it.
    fn push(&mut self, item: T, bytes: usize, capacity: usize) -> Result<(), StoreError> {
        if self.items.len() >= capacity || self.bytes + bytes > MAX_QUEUED_BYTES {
            return Err(StoreError::QueueFull);
        }
        self.bytes += bytes;
        self.items.push_back((bytes, item));
        Ok(())
    }

    /// Removes and returns the first `count` items, or fewer if the queue is shorter.
    fn take(&mut self, count: usize) -> Vec<T> {
        let count = count.min(self.items.len());
        let taken = self.items.drain(..count);
        taken
            .map(|(bytes, item)| {
                self.bytes -= bytes;
                item
            })
            .collect()
    }
}

#[derive(Default)]
struct Queues {
    messages: BoundedQueue<PendingMessage>,
    tasks: VecDeque<Task>,
    refused: VecDeque<Quarantined>,
    closing: bool,
}

/// The bounded queues of the writer.
pub(super) struct Inbox {
    queues: Mutex<Queues>,
    filled: Condvar,
    capacity: usize,
}

impl Inbox {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            queues: Mutex::default(),
            filled: Condvar::new(),
            capacity,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        // The queues are consistent whenever the lock is free, even after a panic.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message for the next commit.
    pub(super) fn enqueue_message(
        &self,
        incoming: AcceptedMessage,
    ) -> Result<oneshot::Receiver<Result<Insertion, StoreError>>, StoreError> {
        let (answer, receiver) = oneshot::channel();
        let mut queues = self.lock();
        if queues.closing {
            return Err(StoreError::Closed);
        }
        let bytes = incoming.message.body().len();
        queues
            .messages
            .push(PendingMessage { incoming, answer }, bytes, self.capacity)?;
        drop(queues);
        self.filled.notify_one();
        Ok(receiver)
    }

    /// Queues a change.
    pub(super) fn enqueue_task(&self, task: Task) -> Result<(), StoreError> {
        let mut queues = self.lock();
        if queues.closing {
            return Err(StoreError::Closed);
        }
        if queues.tasks.len() >= MAX_TASKS {
            return Err(StoreError::QueueFull);
        }
        queues.tasks.push_back(task);
        drop(queues);
        self.filled.notify_one();
        Ok(())
    }

    /// Queues a refused message; returns false if it was dropped.
    pub(super) fn offer_quarantined(&self, item: Quarantined) -> bool {
        let mut queues = self.lock();
        if queues.closing || queues.refused.len() >= QUARANTINE_QUEUE {
            return false;
        }
        queues.refused.push_back(item);
        drop(queues);
        self.filled.notify_one();
        true
    }

    /// Returns the length of each queue.
    pub(super) fn queue_lengths(&self) -> store::QueueLengths {
        let queues = self.lock();
        store::QueueLengths {
            messages: queues.messages.items.len(),
            refused: queues.refused.len(),
            changes: queues.tasks.len(),
        }
    }

    /// Closes the queues; what is queued is still processed.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.filled.notify_one();
    }

    /// Closes the queues and drops what is queued, so that waiting callers get an answer.
    fn abandon(&self) {
        let dropped = {
            let mut queues = self.lock();
            std::mem::replace(
                &mut *queues,
                Queues {
                    closing: true,
                    ..Queues::default()
                },
            )
        };
        // Dropped without the lock, as dropping a task may run other code.
        drop(dropped);
    }

    /// Returns the next work: all messages that fit one commit, and one other change, so
    /// that neither starves the other. `None` once closed and empty.
    fn next(&self) -> Option<(Vec<PendingMessage>, Option<Task>, Vec<Quarantined>)> {
        let mut queues = self.lock();
        loop {
            let messages = queues.messages.take(MAX_GROUP);
            let task = queues.tasks.pop_front();
            let refused: Vec<_> = if messages.is_empty() {
                queues.refused.drain(..).collect()
            } else {
                Vec::new()
            };
            if !messages.is_empty() || task.is_some() || !refused.is_empty() {
                return Some((messages, task, refused));
            }
            if queues.closing {
                return None;
            }
            queues = self
                .filled
                .wait(queues)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The state of the writer thread.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) inbox: Arc<Inbox>,
    /// Notified when a trigger may have been raised.
    pub(super) trigger: Arc<Notify>,
    pub(super) ask: bool,
    pub(super) quarantine: QuarantineWriter,
    /// The lock of the only process that may write, held until the last change is done.
    pub(super) _lock: File,
}

impl Writer {
    /// Processes the queues until they are closed and empty. If that panics, the queues
    /// are closed, all waiting callers get [`StoreError::Closed`], and the panic resumes.
    pub(super) fn run(self) {
        let inbox = Arc::clone(&self.inbox);
        // The writer is not used after a panic, so no broken state is visible.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(move || self.process_queues())) {
            inbox.abandon();
            tracing::error!(
                "store writer thread panicked; messages are answered 503 and nothing is stored: \
                 restart the service and report this as a bug"
            );
            resume_unwind(panic);
        }
    }

    fn process_queues(mut self) {
        let mut row_ids = RowIdCache::default();
        while let Some((messages, task, refused)) = self.inbox.next() {
            if !messages.is_empty() {
                self.commit_group(messages, &mut row_ids);
            }
            if let Some(task) = task {
                task(&mut self.connection);
            }
            if !refused.is_empty()
                && let Err(error) = self.quarantine.store(&mut self.connection, refused)
            {
                let error = explain(&self.path, error);
                tracing::warn!(%error, "failed to store refused messages in the quarantine");
            }
        }
        // Moves the log into the database, so that a copy of this one file is complete.
        if let Err(error) = self
            .connection
            .pragma_update(None, "wal_checkpoint", "TRUNCATE")
        {
            tracing::debug!(%error, "failed to checkpoint the write-ahead log; the next start does it");
        }
    }

    /// Stores a group in one transaction, and answers each message once it is on disk.
    fn commit_group(&mut self, group: Vec<PendingMessage>, row_ids: &mut RowIdCache) {
        let (messages, answers): (Vec<_>, Vec<_>) = group
            .into_iter()
            .map(|pending| (pending.incoming, pending.answer))
            .unzip();
        match self.store_group(&messages, row_ids) {
            Ok((outcomes, raised)) => {
                if raised {
                    self.trigger.notify_waiters();
                    self.trigger.notify_one();
                }
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    // The receiver is gone if the connection was dropped.
                    let _ = answer.send(outcome);
                }
            }
            Err(error) => {
                // Rows that were rolled back must not be cached.
                row_ids.clear();
                tracing::error!(%error, "failed to store a group of {} messages", answers.len());
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    fn store_group(
        &mut self,
        messages: &[AcceptedMessage],
        row_ids: &mut RowIdCache,
    ) -> Result<(Vec<Result<Insertion, StoreError>>, bool), StoreError> {
        let (path, ask) = (&self.path, self.ask);
        in_transaction(&mut self.connection, path, Begin::Writing, |connection| {
            let mut ingest = Ingest::new(row_ids, ask);
            let mut outcomes = Vec::with_capacity(messages.len());
            for incoming in messages {
                // A message that fails does not affect the others of its group.
                control(connection, path, "SAVEPOINT message")?;
                let outcome = ingest.store(connection, path, incoming);
                match &outcome {
                    Ok(_) => {}
                    Err(error) if ends_transaction(error, connection) => {
                        return Err(error.clone());
                    }
                    Err(_) => {
                        control(connection, path, "ROLLBACK TO message")?;
                        ingest.clear_row_ids();
                    }
                }
                control(connection, path, "RELEASE message")?;
                outcomes.push(outcome);
            }
            let raised = ingest.finish(connection, path)?;
            Ok((outcomes, raised))
        })
    }
}

/// Returns true if the transaction can't go on: SQLite rolls it back on some errors
/// (sqlite.org/lang_transaction.html, "Response To Errors Within A Transaction"), and others
/// concern every message.
fn ends_transaction(error: &StoreError, connection: &Connection) -> bool {
    connection.is_autocommit()
        || matches!(
            error,
            StoreError::DiskFull { .. } | StoreError::Corrupt { .. }
        )
}

#[cfg(test)]
mod tests {
    use super::{BoundedQueue, MAX_QUEUED_BYTES};
    use crate::store::sqlite::{SqliteOptions, SqliteStore};
    use crate::store::{Store as _, StoreError};

    fn store(folder: &tempfile::TempDir) -> SqliteStore {
        let options = SqliteOptions {
            path: folder.path().join("test.db"),
            queue: 8,
            quarantine_bytes: 1024,
            ask: false,
        };
        SqliteStore::open(options).expect("opened a new store")
    }

    #[test]
    fn a_queue_is_bounded_in_number_and_in_bytes() {
        let mut queue = BoundedQueue::default();
        let full = |outcome| matches!(outcome, Err(StoreError::QueueFull));
        queue
            .push('a', MAX_QUEUED_BYTES - 1, 3)
            .expect("there is room");
        assert!(full(queue.push('x', 2, 3)), "too many bytes");
        queue.push('b', 1, 3).expect("the last byte");
        queue.push('c', 0, 3).expect("the last place");
        assert!(full(queue.push('x', 0, 3)), "too many");

        assert_eq!(queue.take(1), ['a']);
        queue
            .push('d', MAX_QUEUED_BYTES - 1, 3)
            .expect("room again");
        assert_eq!(queue.take(9), ['b', 'c', 'd']);
        queue
            .push('e', MAX_QUEUED_BYTES, 3)
            .expect("all the room again");
    }

    #[tokio::test]
    async fn a_panic_of_the_writer_answers_all_and_fails_the_probe() {
        let folder = tempfile::tempdir().expect("created a folder");
        let store = store(&folder);
        store.probe().await.expect("the store accepts writes");
        let (go, held) = std::sync::mpsc::sync_channel::<()>(1);

        let panicking = store.change(move |_| -> rusqlite::Result<()> {
            let _ = held.recv();
            panic!("planted")
        });
        let queued = store.change(|_| Ok(()));
        let release = async { go.send(()) };
        let (panicked, queued, released) = tokio::join!(panicking, queued, release);

        released.expect("the writer waited");
        for outcome in [panicked, queued, store.probe().await] {
            assert!(matches!(outcome, Err(StoreError::Closed)), "{outcome:?}");
        }
        assert!(store.sequence().await.is_ok(), "reading still works");
        assert!(store.close().await.is_err(), "the panic is reported");
    }

    #[tokio::test]
    async fn a_panic_of_the_reader_fails_the_probe() {
        let folder = tempfile::tempdir().expect("created a folder");
        let store = store(&folder);

        let panicked = store
            .query(|_| -> rusqlite::Result<()> { panic!("planted") })
            .await;

        assert!(matches!(panicked, Err(StoreError::Closed)), "{panicked:?}");
        let probed = store.probe().await;
        assert!(matches!(probed, Err(StoreError::Closed)), "{probed:?}");
    }
}
