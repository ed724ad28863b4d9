//! When the workers of a process pull: all at once while feeds are due, and none while nothing is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use super::{PullOutcome, Puller};
use crate::domain::Timestamp;
use crate::store::StoreError;

/// Longest time between two reads of the rows.
const MAX_IDLE: Duration = Duration::from_secs(30);

/// Pause while all of an account's requests are in flight.
const BUSY_ACCOUNT_DELAY: Duration = Duration::from_secs(1);

/// Pause after a store error.
const STORE_ERROR_DELAY: Duration = Duration::from_secs(5);

/// Pulls with [`Puller::workers`] workers until `shutdown`; pages in flight are finished
/// first.
pub async fn run(puller: Arc<Puller>, shutdown: CancellationToken) {
    let tracker = TaskTracker::new();
    let count = puller.workers();
    let workers = Arc::new(Workers {
        puller,
        more: Notify::new(),
        watching: Mutex::default(),
        sooner: Notify::new(),
    });
    for _ in 0..count {
        let (workers, shutdown) = (Arc::clone(&workers), shutdown.clone());
        tracker.spawn(async move { workers.work(&shutdown).await });
    }
    tracker.close();
    tracker.wait().await;
}

/// Makes every feed due for reconciliation, as soon as the store can: versions may have been missed while
/// the service was stopped.
pub async fn reconcile(puller: Arc<Puller>, shutdown: CancellationToken) {
    let mut last = 0;
    while !shutdown.is_cancelled() {
        match puller.reconcile_after(last).await {
            Ok(Some(next)) => last = next,
            Ok(None) => return,
            Err(error) => {
                error!(%error, "feeds could not be made due at the start; retrying in {STORE_ERROR_DELAY:?}: {error}");
                shutdown
                    .run_until_cancelled(tokio::time::sleep(STORE_ERROR_DELAY))
                    .await;
            }
        }
    }
}

/// What the workers of a process share.
struct Workers {
    puller: Arc<Puller>,
    /// Wakes another worker when more feeds are due.
    more: Notify,
    /// Held by the worker that watches: it waits until a feed is due.
    watching: Mutex<()>,
    /// Lets the worker that watches read again when a feed is due.
    sooner: Notify,
}

/// Held by the one idle worker that watches.
type Watching<'w> = MutexGuard<'w, ()>;

impl Workers {
    async fn work(&self, shutdown: &CancellationToken) {
        let mut watching = None;
        while !shutdown.is_cancelled() {
            match self.pull_page(watching.take()).await {
                Ok(true) => {}
                Ok(false) => {
                    watching = shutdown.run_until_cancelled(self.idle()).await.flatten();
                }
                Err(error) => {
                    error!(%error, "pulling failed on a store error; retrying in {STORE_ERROR_DELAY:?}: {error}");
                    shutdown
                        .run_until_cancelled(tokio::time::sleep(STORE_ERROR_DELAY))
                        .await;
                }
            }
        }
    }

    /// Pulls a page; returns false if nothing may be requested now. Another worker may watch once a feed
    /// is leased: before, it would find the same.
    async fn pull_page(&self, watching: Option<Watching<'_>>) -> Result<bool, StoreError> {
        let Some(lease) = self.puller.lease().await? else {
            return Ok(false);
        };
        drop(watching);
        if lease.others_due {
            self.more.notify_one();
        }
        Ok(self.puller.pull(lease).await? != PullOutcome::Nothing)
    }

    /// Waits until a feed may be due. Of the idle workers one watches: it waits for the next moment too,
    /// until it has something to do.
    async fn idle(&self) -> Option<Watching<'_>> {
        let watching = match self.watching.try_lock() {
            Ok(watching) => watching,
            Err(_) => {
                // What this worker did may be due sooner than what that one waits for.
                self.sooner.notify_one();
                tokio::select! {
                    watching = self.watching.lock() => watching,
                    () = self.puller.store.triggered() => return None,
                    () = self.more.notified() => return None,
                }
            }
        };
        loop {
            let now = self.puller.clock.now();
            let pause = match self.puller.next_due().await {
                Ok(next) => pause(next, now),
                Err(_) => STORE_ERROR_DELAY,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => break,
                () = self.puller.store.triggered() => break,
                () = self.more.notified() => break,
                () = self.sooner.notified() => {}
            }
        }
        Some(watching)
    }
}

/// Returns how long an idle worker waits if a feed is due at `next`.
fn pause(next: Option<Timestamp>, now: Timestamp) -> Duration {
    match next {
        // Due but not leased: all of the account's requests are in flight.
        Some(due_at) if due_at <= now => BUSY_ACCOUNT_DELAY,
        Some(due_at) => due_at.since(now).min(MAX_IDLE),
        None => MAX_IDLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_worker_waits_until_a_feed_is_due_and_not_longer() {
        let [second, minute] = [1, 60].map(Duration::from_secs);
        let now = Timestamp::from_millis(1_000_000);
        for (next, expected) in [
            (Some(now.after(second)), second),
            (Some(now.after(minute)), MAX_IDLE),
            (None, MAX_IDLE),
            (Some(now), BUSY_ACCOUNT_DELAY),
            (Some(now.before(minute)), BUSY_ACCOUNT_DELAY),
        ] {
            assert_eq!(pause(next, now), expected, "{next:?}");
        }
    }
}
