//! The turns in which tasks store messages.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::time::timeout;

use crate::store::ingest::PendingMessage;

/// The messages that wait to be stored.
pub(super) type Inbox = mpsc::Receiver<PendingMessage>;

/// The turn of one task: until it is dropped, no other takes messages.
///
/// The turn of a large group ends once the server is about to commit, so that the next messages are stored while it
/// syncs these. Before, and while a small group is committed, they gather: a large group costs little more than a small
/// one.
pub(super) struct Turn {
    _inbox: OwnedMutexGuard<Inbox>,
}

/// Longest turn after the last statements were sent: a lock that another replica holds must not stop both tasks.
const LONGEST: Duration = Duration::from_millis(100);

impl Turn {
    /// Waits for `work`, and ends the turn with it or after [`LONGEST`].
    pub(super) async fn hold<T>(turn: Option<Self>, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let soon = timeout(LONGEST, &mut work).await;
        drop(turn);
        match soon {
            Ok(done) => done,
            Err(_) => work.await,
        }
    }
}

impl From<OwnedMutexGuard<Inbox>> for Turn {
    fn from(inbox: OwnedMutexGuard<Inbox>) -> Self {
        Self { _inbox: inbox }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Mutex;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turn_ends_with_its_work_or_soon() {
        let (_sender, inbox) = mpsc::channel(1);
        let inbox = Arc::new(Mutex::new(inbox));
        let turn = async || Some(Turn::from(Arc::clone(&inbox).lock_owned().await));
        let is_over = || inbox.try_lock().is_ok();

        let quick = async { (is_over(), sleep(LONGEST / 2).await, is_over()) };
        assert_eq!(Turn::hold(turn().await, quick).await, (false, (), false));
        assert!(is_over());

        let slow = async {
            sleep(LONGEST * 2).await;
            is_over()
        };
        assert!(Turn::hold(turn().await, slow).await);
    }
}
