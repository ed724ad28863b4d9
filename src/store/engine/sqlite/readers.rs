//! Threads that read, with a connection each.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::schema;
use super::tx::Database;
use crate::store::StoreError;
use crate::store::error::Result;

/// Maximum number of reads that wait.
const MAX_WAITING: usize = 256;

/// Longest time that a read may take.
const MAX_TIME: Duration = Duration::from_secs(30);

/// Number of SQLite's steps between two looks at whether a read is still wanted.
const STEPS: i32 = 1_000;

/// A read of the database.
type Read = Box<dyn FnOnce(&mut Connection) + Send>;

/// Threads that share one queue of reads.
pub(super) struct Readers {
    queue: Arc<Queue>,
}

/// The way to the threads; `None` once they are to end.
type Queue = Mutex<Option<SyncSender<Read>>>;

impl Readers {
    /// Starts `count` threads, and adds them to `threads`.
    pub(super) fn start(
        database: &Database,
        name: &str,
        count: usize,
        threads: &mut Vec<JoinHandle<()>>,
    ) -> Result<Self> {
        let (queue, reads) = sync_channel::<Read>(MAX_WAITING);
        let reads = Arc::new(Mutex::new(reads));
        for _ in 0..count {
            let mut connection = schema::open_for_reading(&database.path)?;
            let reads = Arc::clone(&reads);
            threads.push(spawn(name, &database.path, move || {
                while let Some(read) = next(&reads) {
                    read(&mut connection);
                }
            })?);
        }
        Ok(Self {
            queue: Arc::new(Mutex::new(Some(queue))),
        })
    }

    /// Runs `work` on one of the threads. It is left out, or interrupted, if this future is
    /// dropped, and interrupted if it takes too long.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, outcome) = oneshot::channel();
        // Dropped with this future.
        let waiting = Arc::new(());
        let awaited = Arc::downgrade(&waiting);
        let queue = Arc::clone(&self.queue);
        let read: Read = Box::new(move |connection| {
            // Dropped before `answer`: what follows a panic finds the store closed.
            let _closing = CloseOnPanic(&queue);
            if awaited.strong_count() == 0 {
                return;
            }
            let began = Instant::now();
            let is_over = move || awaited.strong_count() == 0 || began.elapsed() > MAX_TIME;
            // It fails only for a connection that is no longer open.
            let _ = connection.progress_handler(STEPS, Some(is_over));
            let outcome = work(connection);
            let _ = connection.progress_handler(0, None::<fn() -> bool>);
            let _ = answer.send(outcome);
        });
        self.push(read)?;
        let outcome = outcome.await.map_err(|_| StoreError::Closed);
        drop(waiting);
        outcome?
    }

    fn push(&self, read: Read) -> Result<()> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queue.as_ref().ok_or(StoreError::Closed)?;
        queue.try_send(read).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::QueueFull,
            TrySendError::Disconnected(_) => StoreError::Closed,
        })
    }

    /// Fails if the threads have ended: one has panicked.
    pub(super) fn check(&self) -> Result<()> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.as_ref().map(|_| ()).ok_or(StoreError::Closed)
    }

    /// Ends the threads once what is queued is done.
    pub(super) fn close(&self) {
        close(&self.queue);
    }
}

/// Closes the queue if its thread panics.
struct CloseOnPanic<'a>(&'a Queue);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            close(self.0);
            tracing::error!(
                "store reader thread panicked: restart the service and report this as a bug"
            );
        }
    }
}

fn close(queue: &Queue) {
    queue.lock().unwrap_or_else(PoisonError::into_inner).take();
}

/// Starts a thread of the store for the file at `path`.
pub(super) fn spawn(
    name: &str,
    path: &Path,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| StoreError::NotAccessible {
            path: path.to_owned(),
            detail: format!("failed to start a thread: {error}; check the limits of this user"),
        })
}

/// Waits for the next read; `None` once the queue is closed and empty.
fn next(reads: &Mutex<Receiver<Read>>) -> Option<Read> {
    // One thread waits for the queue, and the others for that thread.
    let reads = reads.lock().unwrap_or_else(PoisonError::into_inner);
    reads.recv().ok()
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::OnceLock;
    use std::task::{Context, Wake, Waker};

    use super::*;

    /// Notes whether the readers were closed when the read's future was woken.
    struct Woken {
        readers: Arc<Readers>,
        were_closed: OnceLock<bool>,
    }

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            let _ = self.were_closed.set(self.readers.check().is_err());
        }
    }

    /// Starts two threads that read a fresh file in the folder.
    fn two_readers() -> (tempfile::TempDir, Arc<Readers>, Vec<JoinHandle<()>>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("test.db");
        drop(schema::open_for_writing(&path).expect("a fresh file"));
        let database = Database { path, hooks: None };
        let mut threads = Vec::new();
        let readers = Readers::start(&database, "test", 2, &mut threads).expect("they start");
        (folder, Arc::new(readers), threads)
    }

    #[test]
    fn who_hears_of_a_panic_finds_the_store_closed() {
        let (_folder, readers, threads) = two_readers();
        let woken = Arc::new(Woken {
            readers,
            were_closed: OnceLock::new(),
        });
        let (go, held) = sync_channel::<()>(1);
        let mut read = pin!(woken.readers.run(move |_| -> Result<()> {
            let _ = held.recv();
            panic!("planted");
        }));
        let waker = Waker::from(Arc::clone(&woken));
        let is_waiting = read.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(is_waiting.is_pending());
        go.send(()).expect("it waits");
        let panics = threads.into_iter().map(JoinHandle::join);
        assert_eq!(panics.filter(std::result::Result::is_err).count(), 1);
        assert_eq!(woken.were_closed.get(), Some(&true));
    }

    #[tokio::test]
    async fn abandoned_reads_leave_the_readers_free() {
        let (_folder, readers, threads) = two_readers();
        // None of these ends by itself.
        let endless = "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r";
        let (began, mut begun) = tokio::sync::mpsc::channel(50);
        let reads: Vec<_> = (0..50)
            .map(|_| {
                let (readers, began) = (Arc::clone(&readers), began.clone());
                tokio::spawn(async move {
                    let read = readers.run(move |connection| {
                        let _ = began.try_send(());
                        let counted = connection.query_row(endless, [], |row| row.get::<_, i64>(0));
                        counted.map_err(|error| StoreError::Database(error.to_string()))
                    });
                    read.await
                })
            })
            .collect();
        for _ in 0..2 {
            begun.recv().await.expect("both threads are busy");
        }
        for read in &reads {
            read.abort();
        }
        let read = readers.run(|connection| {
            let one = connection.query_row("SELECT 1", [], |row| row.get::<_, i64>(0));
            one.map_err(|error| StoreError::Database(error.to_string()))
        });
        assert_eq!(read.await.ok(), Some(1));
        readers.close();
        for thread in threads {
            thread.join().expect("it ends well");
        }
        assert!(readers.run(|_| Ok(())).await.is_err(), "it is closed");
    }
}
