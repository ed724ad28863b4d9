//! Ingest of verified messages: many per commit, with their triggers summed up.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot};

use super::connection::{Pool, Transaction};
use super::rows::{account_id, feed_ids};
use crate::domain::{Account, Feed, Timestamp};
use crate::sns::MessageType;
use crate::store::columns::{event_code, kind_code, message_key};
use crate::store::limits::MAX_GROUP;
use crate::store::subscription_messages::{HeardTopics, record_confirmation};
use crate::store::{AcceptedMessage, Insertion, StoreError, TriggerKind};

/// Maximum number of bytes of messages that share one commit, which bounds the memory of a
/// group.
const MAX_GROUP_BYTES: usize = 16 << 20;

/// Number of cached feeds at which the cache is cleared.
const MAX_CACHED_FEEDS: usize = 100_000;

/// A message that waits to be stored, and the channel for its answer.
pub(super) struct PendingMessage {
    pub(super) incoming: AcceptedMessage,
    pub(super) answer: oneshot::Sender<Result<Insertion, StoreError>>,
}

/// Cached ids of rows, which are never removed.
#[derive(Default)]
struct RowIdCache {
    accounts: HashMap<Account, i64>,
    feeds: HashMap<Feed, i64>,
}

/// The task that stores messages; one per process.
pub(super) struct Ingest {
    pub(super) pool: Arc<Pool>,
    pub(super) trigger: Arc<Notify>,
    pub(super) ask: bool,
}

impl Ingest {
    /// Stores messages until all senders are gone.
    pub(super) async fn run(self, mut inbox: mpsc::Receiver<PendingMessage>) {
        let mut row_ids = RowIdCache::default();
        let mut arrived = Vec::with_capacity(MAX_GROUP);
        while inbox.recv_many(&mut arrived, MAX_GROUP).await > 0 {
            while !arrived.is_empty() {
                let group = take_group(&mut arrived);
                self.commit_group(group, &mut row_ids).await;
            }
        }
    }

    /// Stores a group, and answers each message once it is committed.
    async fn commit_group(&self, group: Vec<PendingMessage>, row_ids: &mut RowIdCache) {
        let (messages, answers): (Vec<_>, Vec<_>) = group
            .into_iter()
            .map(|pending| (pending.incoming, pending.answer))
            .unzip();
        match self.store_group(&messages, row_ids).await {
            Ok(outcomes) => {
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    // The receiver is gone if the connection was dropped.
                    let _ = answer.send(Ok(outcome));
                }
            }
            Err(StoreError::Value(_)) if messages.len() > 1 => {
                // A message that can't be stored does not affect the others of its group.
                for (incoming, answer) in messages.iter().zip(answers) {
                    let outcome = self
                        .store_group(std::slice::from_ref(incoming), row_ids)
                        .await
                        .map(|outcomes| outcomes[0]);
                    let _ = answer.send(outcome);
                }
            }
            Err(error) => {
                tracing::error!(%error, "failed to store a group of {} messages", answers.len());
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    async fn store_group(
        &self,
        messages: &[AcceptedMessage],
        row_ids: &mut RowIdCache,
    ) -> Result<Vec<Insertion>, StoreError> {
        let mut transaction = self.pool.write().await?;
        let mut accounts = HashMap::new();
        // In the order of names, as everywhere, which prevents deadlocks.
        for account in messages
            .iter()
            .map(|incoming| (incoming.account.as_str(), &incoming.account))
            .collect::<BTreeMap<_, _>>()
            .into_values()
        {
            let id = match row_ids.accounts.get(account) {
                Some(id) => *id,
                None => account_id(&transaction, account).await?,
            };
            accounts.insert(account.clone(), id);
        }
        let outcomes = insert_notifications(&transaction, messages, &accounts).await?;
        let new = || {
            messages
                .iter()
                .zip(&outcomes)
                .filter(|(_, outcome)| **outcome == Insertion::New)
                .map(|(incoming, _)| incoming)
        };
        let (feeds, raised) = raise_triggers(&transaction, new(), row_ids).await?;
        let mut heard = HeardTopics::default();
        for incoming in new() {
            let account = accounts[&incoming.account];
            if incoming.message.message_type() == MessageType::Notification {
                heard.add(account, incoming);
            } else {
                record_confirmation(&mut transaction, account, incoming, self.ask).await?;
            }
        }
        heard.record(&mut transaction).await?;
        transaction.commit().await?;
        // Only committed rows are cached.
        row_ids.accounts.extend(accounts);
        if row_ids.feeds.len() >= MAX_CACHED_FEEDS {
            row_ids.feeds.clear();
        }
        row_ids.feeds.extend(feeds);
        if raised {
            self.trigger.notify_waiters();
            self.trigger.notify_one();
        }
        Ok(outcomes)
    }
}

/// Removes and returns the messages that share the next commit; at least one.
fn take_group(arrived: &mut Vec<PendingMessage>) -> Vec<PendingMessage> {
    let mut bytes = 0;
    let fits = arrived
        .iter()
        .take_while(|pending| {
            bytes += pending.incoming.message.body().len();
            bytes <= MAX_GROUP_BYTES
        })
        .count();
    arrived.drain(..fits.max(1)).collect()
}

type Key = (Vec<u8>, i64, i64);

/// Inserts a row for each message that has none, and returns which were new.
async fn insert_notifications(
    transaction: &Transaction<'_>,
    messages: &[AcceptedMessage],
    accounts: &HashMap<Account, i64>,
) -> Result<Vec<Insertion>, StoreError> {
    let key = |incoming: &AcceptedMessage| -> Key {
        (
            message_key(incoming.message.message_id()),
            accounts[&incoming.account],
            event_code(incoming.event),
        )
    };
    // The same order everywhere: replicas that receive the same messages may wait for each
    // other, but never deadlock.
    let mut sorted: Vec<(Key, &AcceptedMessage)> = messages
        .iter()
        .map(|incoming| (key(incoming), incoming))
        .collect();
    sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
    let keys: Vec<&[u8]> = sorted.iter().map(|((id, ..), _)| id.as_slice()).collect();
    let account_ids: Vec<i64> = sorted.iter().map(|((_, id, _), _)| *id).collect();
    let events: Vec<i64> = sorted.iter().map(|((_, _, event), _)| *event).collect();
    let kinds: Vec<&str> = sorted
        .iter()
        .map(|(_, incoming)| incoming.message.message_type().as_str())
        .collect();
    let times: Vec<i64> = sorted
        .iter()
        .map(|(_, incoming)| incoming.received_at.as_millis())
        .collect();
    let bodies: Vec<&[u8]> = sorted
        .iter()
        .map(|(_, incoming)| incoming.message.body().as_ref())
        .collect();
    let rows = transaction
        .query(
            "INSERT INTO notification (account_id, event, message_id, kind, received_at, body)
             SELECT * FROM unnest($1, $2, $3, $4, $5, $6)
             ON CONFLICT (message_id, account_id, event) DO NOTHING
             RETURNING message_id, account_id, event",
            &[&account_ids, &events, &keys, &kinds, &times, &bodies],
        )
        .await?;
    let mut inserted = HashSet::with_capacity(rows.len());
    for row in rows {
        inserted.insert((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
    }
    Ok(messages
        .iter()
        .map(|incoming| {
            // Of several copies in one group the first is new.
            if inserted.remove(&key(incoming)) {
                Insertion::New
            } else {
                Insertion::Duplicate
            }
        })
        .collect())
}

/// Raises each feed's trigger once for the whole group; returns the feeds' ids, and true if
/// there was any trigger.
async fn raise_triggers(
    transaction: &Transaction<'_>,
    new: impl Iterator<Item = &AcceptedMessage>,
    row_ids: &RowIdCache,
) -> Result<(HashMap<Feed, i64>, bool), StoreError> {
    let mut triggers: HashMap<&Feed, i64> = HashMap::new();
    for incoming in new {
        if let Some(feed) = &incoming.trigger {
            *triggers.entry(feed).or_default() += 1;
        }
    }
    if triggers.is_empty() {
        return Ok((HashMap::new(), false));
    }
    let unknown = triggers
        .keys()
        .filter(|feed| !row_ids.feeds.contains_key(**feed))
        .map(|feed| (*feed).clone());
    let added = feed_ids(transaction, unknown, transaction.now()).await?;
    let by_row: BTreeMap<i64, i64> = triggers
        .into_iter()
        .filter_map(|(feed, count)| {
            let id = row_ids.feeds.get(feed).or_else(|| added.get(feed))?;
            Some((*id, count))
        })
        .collect();
    let rows: Vec<i64> = by_row.keys().copied().collect();
    let counts: Vec<i64> = by_row.values().copied().collect();
    transaction
        .execute(
            "INSERT INTO feed_trigger AS d (feed_id, kind, raised, due_at)
             SELECT feed_id, $3, triggers, $4 FROM unnest($1, $2) AS raised (feed_id, triggers)
             ON CONFLICT (feed_id, kind) DO UPDATE
             SET raised = d.raised + excluded.raised, due_at = excluded.due_at",
            &[
                &rows,
                &counts,
                &kind_code(TriggerKind::Notification),
                // By the database's clock, so that a replica whose clock is ahead can't delay it.
                &transaction.now().as_millis(),
            ],
        )
        .await?;
    Ok((added, true))
}

/// Returns a moment from a caller's clock, but no later than the database's present: a
/// future moment would delay work.
pub(super) fn clamp_to_now(moment: Timestamp, transaction: &Transaction<'_>) -> Timestamp {
    moment.min(transaction.now())
}
