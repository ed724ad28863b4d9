//! The tasks that write what is queued: messages, and refused messages.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::connection::Pool;
use super::known::KnownGroup;
use super::turn::{Inbox, Turn};
use crate::store::error::Result;
use crate::store::ingest::{Group, MAX_GROUP, RowIds, store_group};
use crate::store::quarantine::{QUARANTINE_QUEUE, store_quarantined};
use crate::store::{AcceptedMessage, Insertion, Quarantined};

/// Maximum number of bytes of messages that share one commit, which bounds the memory of a
/// group.
const MAX_GROUP_BYTES: usize = 16 << 20;

/// From this many messages on, the turn of a group ends before it is committed.
const LARGE_GROUP: usize = 64;

/// After a failed attempt that took longer, a group is not stored in another way: requests wait for 10 seconds.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(3);

/// Time from storing refused messages until more of them are stored. Each in a transaction of its own would
/// slow down the messages that are accepted; a crash loses those that gather.
const GATHERING: Duration = Duration::from_millis(100);

/// One of the tasks that store messages, in turns.
pub(super) struct Ingest {
    /// The messages, which the tasks share.
    pub(super) inbox: Arc<Mutex<Inbox>>,
    pub(super) pool: Arc<Pool>,
    /// Notified when a trigger may have become pending.
    pub(super) triggers: Arc<Notify>,
    pub(super) ask: bool,
}

impl Ingest {
    /// Stores messages until all senders are gone.
    pub(super) async fn run(self) {
        let mut row_ids = RowIds::default();
        let mut arrived = Vec::with_capacity(MAX_GROUP);
        loop {
            let mut inbox = Arc::clone(&self.inbox).lock_owned().await;
            if inbox.recv_many(&mut arrived, MAX_GROUP).await == 0 {
                return;
            }
            let mut turn = Some(Turn::from(inbox));
            while !arrived.is_empty() {
                let group = take_group(&mut arrived, |one| one.incoming.message.body().len());
                let mut groups = vec![Group::new(group)];
                while let Some(group) = groups.pop() {
                    let storing = self.store_group(group.messages(), &mut row_ids, turn.take());
                    let outcomes = storing.await;
                    groups.extend(group.answer(outcomes));
                }
            }
        }
    }

    /// Stores a group in one transaction, which is committed when this returns.
    async fn store_group(
        &self,
        messages: &[AcceptedMessage],
        row_ids: &mut RowIds,
        mut turn: Option<Turn>,
    ) -> Result<Vec<Insertion>> {
        if let Some(group) = KnownGroup::of(messages, row_ids)
            && let Some(outcomes) = self.store_known(&group, &mut turn).await?
        {
            return Ok(outcomes);
        }
        let transaction = self.pool.ingest(turn).await?;
        let stored = store_group(&transaction, messages, row_ids, self.ask).await?;
        transaction.commit().await?;
        // Only committed rows are cached.
        row_ids.extend(stored.row_ids);
        if stored.raised {
            self.triggers.notify_one();
        }
        Ok(stored.outcomes)
    }

    /// Stores a group of known messages at once; `None` if it is to be stored in the other way.
    async fn store_known(
        &self,
        group: &KnownGroup<'_>,
        turn: &mut Option<Turn>,
    ) -> Result<Option<Vec<Insertion>>> {
        let began = Instant::now();
        let mut ending = turn.take_if(|_| group.len() >= LARGE_GROUP);
        let Some((transaction, beginning)) = self.pool.at_once(&mut ending).await? else {
            *turn = turn.take().or(ending);
            return Ok(None);
        };
        let storing = join(
            transaction.begun(beginning),
            group.store(&transaction, self.pool.time.manual()),
        );
        let (begun, stored) = Turn::hold(turn.take(), storing).await;
        match begun.and(stored) {
            Ok(stored) => {
                transaction.commit().await?;
                let Some(stored) = stored else {
                    return Ok(None);
                };
                if stored.raised {
                    self.triggers.notify_one();
                }
                Ok(Some(stored.outcomes))
            }
            Err(error) if began.elapsed() > LONGEST_ATTEMPT => Err(error),
            Err(error) => {
                // If its commit was not answered, another attempt waits for it and finds the messages.
                tracing::debug!(%error, "failed to store a group of known messages at once");
                Ok(None)
            }
        }
    }
}

/// Removes and returns the messages that share the next commit; at least one. `size` returns a message's
/// bytes.
fn take_group<M>(arrived: &mut Vec<M>, size: impl Fn(&M) -> usize) -> Vec<M> {
    let mut bytes = 0;
    let fits = arrived
        .iter()
        .take_while(|one| {
            bytes += size(one);
            bytes <= MAX_GROUP_BYTES
        })
        .count();
    arrived.drain(..fits.max(1)).collect()
}

/// A command for the task that stores refused messages.
pub(super) enum QuarantineCommand {
    /// Stores a refused message.
    Store(Quarantined),
    /// Answers once all messages before this were stored or dropped.
    Flush(oneshot::Sender<()>),
}

/// Stores refused messages until all senders are gone. Replicas that do this at the same moment
/// may together exceed the bound by one batch each.
pub(super) async fn run_quarantine(
    pool: Arc<Pool>,
    limit_bytes: u64,
    mut inbox: mpsc::Receiver<QuarantineCommand>,
) {
    let mut arrived = Vec::new();
    let mut until = Instant::now();
    while gather(&mut inbox, &mut arrived, until).await {
        let (mut refused, mut flushes) = (Vec::new(), Vec::new());
        for offer in arrived.drain(..) {
            match offer {
                QuarantineCommand::Store(item) => refused.push(item),
                QuarantineCommand::Flush(done) => flushes.push(done),
            }
        }
        while !refused.is_empty() {
            let group = take_group(&mut refused, |one| one.body.len());
            let storing = async {
                let transaction = pool.write().await?;
                store_quarantined(&transaction, limit_bytes, None, &group).await?;
                transaction.commit().await
            };
            if let Err(error) = storing.await {
                tracing::warn!(%error, "failed to store refused messages in the quarantine");
            }
        }
        for done in flushes {
            // The receiver may be gone.
            let _ = done.send(());
        }
        until = Instant::now() + GATHERING;
    }
}

/// Waits for refused messages, and for more of them until this moment, unless somebody waits for them or no
/// more fit the queue. Returns false if there are none and all senders are gone.
async fn gather(
    inbox: &mut mpsc::Receiver<QuarantineCommand>,
    arrived: &mut Vec<QuarantineCommand>,
    until: Instant,
) -> bool {
    let is_store = |command: &QuarantineCommand| matches!(command, QuarantineCommand::Store(_));
    inbox.recv_many(arrived, QUARANTINE_QUEUE).await;
    while arrived.len() < QUARANTINE_QUEUE && arrived.iter().all(is_store) {
        let room = QUARANTINE_QUEUE - arrived.len();
        match timeout_at(until, inbox.recv_many(arrived, room)).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    !arrived.is_empty()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::config::default_account;
    use crate::domain::{Event, Timestamp};

    fn refused() -> QuarantineCommand {
        QuarantineCommand::Store(Quarantined {
            received_at: Timestamp::from_millis(0),
            account: default_account(),
            event: Event::OnExported,
            reason: "signature_mismatch".to_owned(),
            allowed_topic: false,
            headers: String::new(),
            body: Bytes::new(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn refused_messages_gather_unless_somebody_waits() {
        let (sender, mut inbox) = mpsc::channel(QUARANTINE_QUEUE);
        let send = async |command| sender.send(command).await.map_err(drop).expect("room");
        let mut arrived = Vec::new();
        send(refused()).await;
        let began = Instant::now();
        assert!(gather(&mut inbox, &mut arrived, began).await);
        assert_eq!((arrived.len(), began.elapsed()), (1, Duration::ZERO));

        arrived.clear();
        let until = began + GATHERING;
        let later = async {
            for _ in 0..3 {
                send(refused()).await;
                tokio::time::sleep(GATHERING / 4).await;
            }
        };
        let (some, ()) = tokio::join!(gather(&mut inbox, &mut arrived, until), later);
        assert!(some);
        assert_eq!((arrived.len(), began.elapsed()), (3, GATHERING));

        arrived.clear();
        let began = Instant::now();
        let until = began + GATHERING;
        send(refused()).await;
        send(QuarantineCommand::Flush(oneshot::channel().0)).await;
        assert!(gather(&mut inbox, &mut arrived, until).await);
        assert_eq!((arrived.len(), began.elapsed()), (2, Duration::ZERO));

        arrived.clear();
        let later = async {
            send(refused()).await;
            tokio::time::sleep(GATHERING / 4).await;
            send(QuarantineCommand::Flush(oneshot::channel().0)).await;
        };
        let (some, ()) = tokio::join!(gather(&mut inbox, &mut arrived, until), later);
        assert!(some);
        assert_eq!((arrived.len(), began.elapsed()), (2, GATHERING / 4));

        arrived.clear();
        let later = async {
            for _ in 0..=QUARANTINE_QUEUE {
                send(refused()).await;
                tokio::task::yield_now().await;
            }
        };
        let (some, ()) = tokio::join!(gather(&mut inbox, &mut arrived, until), later);
        assert!(some);
        assert_eq!((arrived.len(), inbox.len()), (QUARANTINE_QUEUE, 1));
        assert_eq!(began.elapsed(), GATHERING / 4);

        arrived.clear();
        let later = async {
            tokio::time::sleep(GATHERING / 4).await;
            drop(sender);
        };
        let (some, ()) = tokio::join!(gather(&mut inbox, &mut arrived, until), later);
        assert!(some);
        assert_eq!((arrived.len(), began.elapsed()), (1, GATHERING / 2));
        arrived.clear();
        assert!(!gather(&mut inbox, &mut arrived, until).await);
    }
}
