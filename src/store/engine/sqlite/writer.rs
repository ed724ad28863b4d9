//! The writer thread: commits messages in groups, and runs other changes in between.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::{Notify, oneshot};

use super::file::OpenFiles;
use super::tx::{Begin, Database, immediate, in_transaction};
use crate::store::error::Result;
use crate::store::ingest::{
    Group, MAX_GROUP, MAX_WAITING_BYTES, PendingMessage, RowIds, store_group,
};
use crate::store::quarantine::{QUARANTINE_QUEUE, Shares, store_quarantined};
use crate::store::{AcceptedMessage, Insertion, Quarantined, QueueLengths, StoreError};

/// Maximum number of queued changes other than messages.
const MAX_TASKS: usize = 1024;

/// A change of the database, run in a transaction of its own.
type Task = Box<dyn FnOnce(&mut Connection, &OpenFiles) + Send>;

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
    fn push(&mut self, item: T, bytes: usize, capacity: usize) -> Result<()> {
        if self.items.len() >= capacity || self.bytes + bytes > MAX_WAITING_BYTES {
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
    ) -> Result<oneshot::Receiver<Result<Insertion>>> {
        let (answer, receiver) = oneshot::channel();
        let mut queues = self.lock();
        if queues.closing {
            return Err(StoreError::Closed);
        }
        let bytes = incoming.message.body().len();
        let pending = PendingMessage {
            incoming,
            answer,
            _room: None,
        };
        queues.messages.push(pending, bytes, self.capacity)?;
        drop(queues);
        self.filled.notify_one();
        Ok(receiver)
    }

    /// Queues a change.
    pub(super) fn enqueue_task(&self, task: Task) -> Result<()> {
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
    pub(super) fn queue_lengths(&self) -> QueueLengths {
        let queues = self.lock();
        QueueLengths {
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
    pub(super) database: Arc<Database>,
    pub(super) inbox: Arc<Inbox>,
    /// Notified when a trigger may have become pending.
    pub(super) triggers: Arc<Notify>,
    pub(super) ask: bool,
    pub(super) quarantine_bytes: u64,
    /// What the quarantine holds, so that a flood costs no query; `None` if unknown.
    pub(super) quarantined: Option<Shares>,
    /// The database's files, locked until the last change is done.
    pub(super) files: Arc<OpenFiles>,
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
        let mut row_ids = RowIds::default();
        while let Some((messages, task, refused)) = self.inbox.next() {
            if !messages.is_empty() {
                let mut groups = vec![Group::new(messages)];
                while let Some(group) = groups.pop() {
                    let outcomes = self.store_group(group.messages(), &mut row_ids);
                    groups.extend(group.answer(outcomes));
                }
            }
            if let Some(task) = task {
                task(&mut self.connection, &self.files);
            }
            if !refused.is_empty()
                && let Err(error) = self.store_quarantined(&refused)
            {
                tracing::warn!(%error, "failed to store refused messages in the quarantine");
            }
        }
        if self.files.check().is_err() && self.files.was_truncated() {
            // The log belongs to what was in the file before: in other content it would do damage.
            tracing::warn!(
                "the write-ahead log is left as it is, since the database was truncated"
            );
            let left = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            if let Err(error) = self.connection.set_db_config(left, true) {
                tracing::warn!(%error, "failed to leave the write-ahead log as it is");
            }
            return;
        }
        // Moves the log into the database, so that a copy of this one file is complete.
        if let Err(error) = self
            .connection
            .pragma_update(None, "wal_checkpoint", "TRUNCATE")
        {
            tracing::debug!(%error, "failed to checkpoint the write-ahead log; the next start does it");
        }
    }

    /// Stores a group in one transaction, which is on disk when this returns.
    fn store_group(
        &mut self,
        messages: &[AcceptedMessage],
        row_ids: &mut RowIds,
    ) -> Result<Vec<Insertion>> {
        let (connection, database) = (&mut self.connection, &self.database);
        let stored = in_transaction(connection, database, Begin::Writing, |tx| {
            immediate(store_group(tx, messages, row_ids, self.ask))
        })?;
        // A commit to a file that the next start doesn't open keeps nothing.
        self.files.check()?;
        // Rows that were rolled back must not be cached.
        row_ids.extend(stored.row_ids);
        if stored.raised {
            self.triggers.notify_one();
        }
        Ok(stored.outcomes)
    }

    fn store_quarantined(&mut self, refused: &[Quarantined]) -> Result<()> {
        let (connection, database) = (&mut self.connection, &self.database);
        let (limit, known) = (self.quarantine_bytes, self.quarantined.take());
        let stored = in_transaction(connection, database, Begin::Writing, |tx| {
            immediate(store_quarantined(tx, limit, known, refused))
        })?;
        self.quarantined = Some(stored);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{BoundedQueue, MAX_WAITING_BYTES};
    use crate::store::StoreError;

    #[test]
    fn a_queue_is_bounded_in_number_and_in_bytes() {
        let mut queue = BoundedQueue::default();
        let full = |outcome| matches!(outcome, Err(StoreError::QueueFull));
        queue
            .push('a', MAX_WAITING_BYTES - 1, 3)
            .expect("there is room");
        assert!(full(queue.push('x', 2, 3)), "too many bytes");
        queue.push('b', 1, 3).expect("the last byte");
        queue.push('c', 0, 3).expect("the last place");
        assert!(full(queue.push('x', 0, 3)), "too many");

        assert_eq!(queue.take(1), ['a']);
        queue
            .push('d', MAX_WAITING_BYTES - 1, 3)
            .expect("room again");
        assert_eq!(queue.take(9), ['b', 'c', 'd']);
        queue
            .push('e', MAX_WAITING_BYTES, 3)
            .expect("all the room again");
    }
}
