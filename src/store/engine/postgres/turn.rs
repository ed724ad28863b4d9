//! The turns in which tasks store messages.

use tokio::sync::{OwnedMutexGuard, mpsc};

use crate::store::ingest::PendingMessage;

/// The messages that wait to be stored.
pub(super) type Inbox = mpsc::Receiver<PendingMessage>;

/// The turn of one task: until it is dropped, no other takes messages.
///
/// A task drops it once the server is about to commit, so that the next messages are stored while it syncs these.
/// Before, they gather: a large group costs little more than a small one.
pub(super) struct Turn {
    _inbox: OwnedMutexGuard<Inbox>,
}

impl From<OwnedMutexGuard<Inbox>> for Turn {
    fn from(inbox: OwnedMutexGuard<Inbox>) -> Self {
        Self { _inbox: inbox }
    }
}
