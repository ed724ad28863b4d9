//! Ingest of verified messages: many per commit, with their triggers summed up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::try_join;
use tokio::sync::oneshot;

use super::allowed_topics::check_approvals;
use super::columns::{event_code, message_key};
use super::engine::{Fragment, NewNotification, Param, Sql, Statement, Tx};
use super::error::Result;
use super::row_ids::{NewFeed, account_id, feed_ids};
use super::subscription_messages::{HeardTopics, record_confirmation};
use super::tallies::{RAISE, Tally, by_hour};
use super::trigger_kind::TriggerKind;
use super::{AcceptedMessage, Insertion, StoreError, Triggers, UNCLEAR_INTERVAL};
use crate::domain::{Account, Feed, Queue, Timestamp};
use crate::sns::MessageType;

/// Maximum number of messages that share one commit.
pub(super) const MAX_GROUP: usize = 1024;

/// Number of cached feeds at which the cache is cleared.
const MAX_CACHED_FEEDS: usize = 100_000;

/// Maximum number of bytes of messages that wait for a commit, including those whose request has
/// timed out.
pub(super) const MAX_WAITING_BYTES: usize = 64 << 20;

/// A message that waits to be stored, and the channel for its answer.
pub(super) struct PendingMessage {
    pub(super) incoming: AcceptedMessage,
    pub(super) answer: oneshot::Sender<Result<Insertion>>,
    /// Its share of [`MAX_WAITING_BYTES`], where nothing else counts them.
    pub(super) _room: Option<Room>,
}

/// A share of [`MAX_WAITING_BYTES`], until it is dropped.
pub(super) struct Room {
    waiting: Arc<AtomicUsize>,
    bytes: usize,
}

impl Room {
    /// Adds to the bytes that are `waiting`; `None` if there is no room for them.
    pub(super) fn take(waiting: &Arc<AtomicUsize>, bytes: usize) -> Option<Self> {
        let more = |waiting: usize| Some(waiting + bytes).filter(|sum| *sum <= MAX_WAITING_BYTES);
        waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Self {
            waiting: Arc::clone(waiting),
            bytes,
        })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Messages that share one commit.
pub(super) struct Group {
    messages: Vec<AcceptedMessage>,
    answers: Vec<oneshot::Sender<Result<Insertion>>>,
}

impl Group {
    pub(super) fn new(pending: Vec<PendingMessage>) -> Self {
        let pending = pending.into_iter();
        let (messages, answers) = pending.map(|one| (one.incoming, one.answer)).unzip();
        Self { messages, answers }
    }

    /// Returns the messages.
    pub(super) fn messages(&self) -> &[AcceptedMessage] {
        &self.messages
    }

    /// Answers each message with the outcome of the commit. Returns the groups that are to be
    /// committed instead, the last first, so that a message that can't be stored does not
    /// affect the others.
    pub(super) fn answer(self, outcomes: Result<Vec<Insertion>>) -> Vec<Self> {
        // The receiver of an answer is gone if the connection was dropped.
        match outcomes {
            Ok(outcomes) => {
                for (answer, outcome) in self.answers.into_iter().zip(outcomes) {
                    let _ = answer.send(Ok(outcome));
                }
            }
            Err(StoreError::Value(_) | StoreError::TopicNotAllowed) if self.messages.len() > 1 => {
                let pending = self.messages.into_iter().zip(self.answers);
                let one = |(incoming, answer)| {
                    Self::new(vec![PendingMessage {
                        incoming,
                        answer,
                        _room: None,
                    }])
                };
                return pending.rev().map(one).collect();
            }
            Err(error) => {
                // The refusal of a topic is logged as such.
                if !matches!(error, StoreError::TopicNotAllowed) {
                    tracing::error!(%error, "failed to store a group of {} messages", self.answers.len());
                }
                for answer in self.answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
        Vec::new()
    }
}

/// Ids of rows, which are never removed.
#[derive(Default)]
pub(super) struct RowIds {
    accounts: HashMap<Account, i64>,
    feeds: HashMap<Feed, i64>,
}

impl RowIds {
    /// Returns the id of an account.
    pub(super) fn account(&self, account: &Account) -> Option<i64> {
        self.accounts.get(account).copied()
    }

    /// Returns the id of a feed.
    pub(super) fn feed(&self, feed: &Feed) -> Option<i64> {
        self.feeds.get(feed).copied()
    }

    /// Adds ids of committed rows.
    pub(super) fn extend(&mut self, committed: Self) {
        self.accounts.extend(committed.accounts);
        if self.feeds.len() >= MAX_CACHED_FEEDS {
            self.feeds.clear();
        }
        self.feeds.extend(committed.feeds);
    }
}

/// A group that was stored; the engine commits it unless its last statements did.
pub(super) struct StoredGroup {
    /// The outcome for each message.
    pub(super) outcomes: Vec<Insertion>,
    /// Ids of rows that may be cached once they are committed.
    pub(super) row_ids: RowIds,
    /// True if a trigger is pending that was not pending before.
    pub(super) raised: bool,
}

/// Stores messages with their triggers and subscriptions. A new subscription waits for a
/// person's approval if `ask` is true.
pub(super) async fn store_group<T: Tx>(
    tx: &T,
    messages: &[AcceptedMessage],
    known: &RowIds,
    ask: bool,
) -> Result<StoredGroup> {
    check_approvals(tx, messages).await?;
    let mut row_ids = RowIds::default();
    // In the order of names, as everywhere, which prevents deadlocks.
    let accounts: BTreeSet<&Account> = messages.iter().map(|one| &one.account).collect();
    for account in accounts {
        let id = match known.account(account) {
            Some(id) => id,
            None => account_id(tx, account).await?,
        };
        row_ids.accounts.insert(account.clone(), id);
    }
    let of_account = |incoming: &AcceptedMessage| row_ids.accounts[&incoming.account];
    let notifications = messages
        .iter()
        .filter(|incoming| incoming.message.message_type() == MessageType::Notification)
        .map(|incoming| (of_account(incoming), incoming));
    let mut heard = HeardTopics::of(notifications);
    let accounts: Vec<i64> = messages.iter().map(of_account).collect();
    let inserting = insert(tx, messages, &accounts);
    let (outcomes, ()) = try_join(inserting, heard.read(tx)).await?;
    let new: Vec<&AcceptedMessage> = messages
        .iter()
        .zip(&outcomes)
        .filter(|(_, outcome)| **outcome == Insertion::New)
        .map(|(incoming, _)| incoming)
        .collect();
    let mut confirmed = false;
    for incoming in &new {
        let account = of_account(incoming);
        if incoming.message.message_type() == MessageType::Notification {
            heard.add(account, incoming);
        } else {
            record_confirmation(tx, account, incoming, ask).await?;
            confirmed = true;
        }
    }
    if confirmed {
        heard.read(tx).await?;
    }
    heard.record(tx).await?;
    let triggers = triggers(tx, &new, known, &mut row_ids).await?;
    let hours = by_hour(new.iter().map(|incoming| incoming.received_at));
    let hours: Vec<(i64, usize)> = hours.into_iter().collect();
    // Last, since tasks whose messages are of the same feeds wait for each other from here on, on this
    // replica and on others.
    let raised = raise(tx, triggers.as_ref(), &hours).await?;
    Ok(StoredGroup {
        outcomes,
        row_ids,
        raised,
    })
}

/// Stores the messages that are not stored yet; each is beside its account.
async fn insert<T: Tx>(
    tx: &T,
    messages: &[AcceptedMessage],
    accounts: &[i64],
) -> Result<Vec<Insertion>> {
    let (places, rows) = in_order(messages, accounts);
    let is_new = tx.insert_notifications(&rows).await?;
    Ok(outcomes(&places, is_new))
}

/// Returns the rows of messages, each of which is beside its account, in the order of their identity, and the place of
/// each among the messages.
///
/// The order is the same everywhere: replicas that receive the same messages may wait for each other, but never
/// deadlock. Of several copies in one group the first stays first.
pub(super) fn in_order<'m>(
    messages: &'m [AcceptedMessage],
    accounts: &[i64],
) -> (Vec<usize>, Vec<NewNotification<'m>>) {
    let mut rows: Vec<(usize, NewNotification<'m>)> = messages
        .iter()
        .zip(accounts)
        .map(|(incoming, account)| NewNotification {
            published_at: match incoming.message.message_type() {
                MessageType::Notification => incoming.message.timestamp(),
                _ => Timestamp::from_millis(0),
            },
            message_id: message_key(incoming.message.message_id()),
            account: *account,
            event: event_code(incoming.event),
            kind: incoming.message.message_type().as_str(),
            received_at: incoming.received_at,
            body: incoming.message.body(),
        })
        .enumerate()
        .collect();
    rows.sort_by(|(_, one), (_, other)| one.identity().cmp(&other.identity()));
    rows.into_iter().unzip()
}

/// Returns the outcome for each message, from the places of the rows and whether each was new.
pub(super) fn outcomes(places: &[usize], is_new: Vec<bool>) -> Vec<Insertion> {
    let mut outcomes = vec![Insertion::Duplicate; places.len()];
    for (place, is_new) in places.iter().zip(is_new) {
        if is_new {
            outcomes[*place] = Insertion::New;
        }
    }
    outcomes
}

/// The triggers of a group.
struct GroupTriggers {
    /// Their feeds, ascending.
    feeds: Vec<i64>,
    /// How often each is raised.
    counts: Vec<i64>,
    due_at: Timestamp,
}

/// Returns the triggers of new messages; adds feeds that are new. `None` if there are none.
async fn triggers<T: Tx>(
    tx: &T,
    new: &[&AcceptedMessage],
    known: &RowIds,
    row_ids: &mut RowIds,
) -> Result<Option<GroupTriggers>> {
    let triggering = || {
        let triggering = |incoming: &&&AcceptedMessage| incoming.triggers != Triggers::Nothing;
        new.iter().filter(triggering)
    };
    let Some(received_at) = triggering().map(|incoming| incoming.received_at).max() else {
        return Ok(None);
    };
    // A replica whose clock is ahead can't delay it.
    let due_at = tx.now_or(received_at);
    let feeds = || triggering().filter_map(|incoming| incoming.triggers.feed());
    let unknown = triggering().filter_map(|incoming| {
        let feed = incoming.triggers.feed()?;
        (!known.feeds.contains_key(feed)).then(|| NewFeed {
            feed: feed.clone(),
            announced_at: Some(incoming.message.timestamp()),
        })
    });
    let unknown: Vec<NewFeed> = unknown.collect();
    row_ids.feeds = feed_ids(tx, unknown, due_at).await?;
    let mut triggers: BTreeMap<i64, i64> = BTreeMap::new();
    for feed in feeds() {
        if let Some(id) = known.feed(feed).or_else(|| row_ids.feed(feed)) {
            *triggers.entry(id).or_default() += 1;
        }
    }
    for id in triggered_by_unclear(tx, new, &row_ids.accounts, due_at).await? {
        *triggers.entry(id).or_default() += 1;
    }
    let (feeds, counts): (Vec<i64>, Vec<i64>) = triggers.into_iter().unzip();
    Ok((!feeds.is_empty()).then_some(GroupTriggers {
        feeds,
        counts,
        due_at,
    }))
}

/// Raises a trigger `d` that has a row.
pub(super) const RAISE_AGAIN: Fragment = Fragment::Same(
    "ON CONFLICT (feed_id, kind) DO UPDATE
     SET raised = d.raised + excluded.raised, due_at = excluded.due_at,
         next_at = coalesce(d.next_at, excluded.next_at)",
);

/// Raises each trigger once for the whole group, and the counts of accepted messages by hour. Returns
/// true if a trigger is pending that was not pending before: of the others the pullers know when to
/// look at them.
async fn raise<T: Tx>(
    tx: &T,
    triggers: Option<&GroupTriggers>,
    hours: &[(i64, usize)],
) -> Result<bool> {
    // For PostgreSQL alone.
    static ALL: Sql = Sql::with(
        "INSERT INTO feed_trigger AS d (feed_id, kind, raised, due_at, account_id, queue, next_at)
         SELECT v.feed_id, $3, v.triggers, $4, f.account_id, f.queue, $4
         FROM unnest($1, $2) AS v (feed_id, triggers) JOIN feed f ON f.id = v.feed_id ORDER BY v.feed_id
         {raise_again} RETURNING next_at = due_at",
        &[("raise_again", RAISE_AGAIN)],
    );
    let (triggers, mut is_new) = match triggers {
        Some(triggers) if T::IN_PROCESS => (None, raise_each(tx, triggers).await?),
        triggers => (triggers, false),
    };
    let raised = triggers.map(|triggers| -> [&dyn Param; 4] {
        let kind = &TriggerKind::Notification;
        [&triggers.feeds, &triggers.counts, kind, &triggers.due_at]
    });
    let counted: Vec<[&dyn Param; 3]> = hours
        .iter()
        .map(|(hour, count)| -> [&dyn Param; 3] { [&Tally::Accepted, hour, count] })
        .collect();
    let raised = raised.iter().map(|values| (&ALL, values.as_slice()));
    let counted = counted.iter().map(|values| (&RAISE, values.as_slice()));
    let last: Vec<Statement<'_>> = raised.chain(counted).collect();
    if !last.is_empty() {
        tx.last(&last, &mut |row| {
            is_new |= row.boolean(0)?;
            Ok(ControlFlow::Continue(()))
        })
        .await?;
    }
    Ok(is_new)
}

/// Raises triggers one by one, for a database in this process. Most are pending already, which have a `next_at`:
/// it stays, and so does the index that contains it.
async fn raise_each<T: Tx>(tx: &T, triggers: &GroupTriggers) -> Result<bool> {
    static PENDING: Sql = Sql::new(
        "UPDATE feed_trigger SET raised = raised + $3, due_at = $4
         WHERE feed_id = $1 AND kind = $2 AND next_at IS NOT NULL",
    );
    static NEW: Sql = Sql::new(
        "INSERT INTO feed_trigger AS d (feed_id, kind, raised, due_at, account_id, queue, next_at)
         SELECT id, $2, $3, $4, account_id, queue, $4 FROM feed WHERE id = $1
         ON CONFLICT (feed_id, kind) DO UPDATE
         SET raised = d.raised + excluded.raised, due_at = excluded.due_at, next_at = excluded.next_at",
    );
    let mut is_new = false;
    for (feed, count) in triggers.feeds.iter().zip(&triggers.counts) {
        let values: [&dyn Param; 4] = [feed, &TriggerKind::Notification, count, &triggers.due_at];
        if tx.execute(&PENDING, &values).await? == 0 {
            tx.run(&NEW, &values).await?;
            is_new = true;
        }
    }
    Ok(is_new)
}

/// Counts notifications whose shape is not understood, and returns the feeds that they trigger.
async fn triggered_by_unclear<T: Tx>(
    tx: &T,
    new: &[&AcceptedMessage],
    accounts: &HashMap<Account, i64>,
    now: Timestamp,
) -> Result<Vec<i64>> {
    static COUNT: Sql = Sql::new(
        "INSERT INTO unclear_notification AS u (account_id, total, last_at) VALUES ($1, $2, $3)
         ON CONFLICT (account_id) DO UPDATE
         SET total = u.total + excluded.total, last_at = excluded.last_at",
    );
    // A moment in the future comes from a clock that was ahead.
    static TRIGGER: Sql = Sql::new(
        "UPDATE unclear_notification SET triggered_at = $2
         WHERE account_id = $1 AND (triggered_at IS NULL OR triggered_at <= $3 OR triggered_at > $2)",
    );
    static FEEDS: Sql =
        Sql::new("SELECT id FROM feed WHERE account_id = $1 AND queue = $2 AND removed_at IS NULL");
    let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
    for incoming in new {
        if incoming.triggers == Triggers::AllFeeds {
            *counts.entry(accounts[&incoming.account]).or_default() += 1;
        }
    }
    let mut feeds = Vec::new();
    // In the order of accounts, which prevents deadlocks.
    for (account, count) in counts {
        tx.run(&COUNT, &[&account, &count, &now]).await?;
        let since = now.before(UNCLEAR_INTERVAL);
        if tx.execute(&TRIGGER, &[&account, &now, &since]).await? > 0 {
            feeds.extend(tx.all::<i64>(&FEEDS, &[&account, &Queue::Exported]).await?);
        }
    }
    Ok(feeds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_messages_are_bounded_in_bytes() {
        let waiting = Arc::default();
        let most = Room::take(&waiting, MAX_WAITING_BYTES - 1).expect("there is room");
        assert!(Room::take(&waiting, 2).is_none(), "too many bytes");
        let last = Room::take(&waiting, 1).expect("the last byte");
        assert!(Room::take(&waiting, 1).is_none(), "too many bytes");
        drop(most);
        let again = Room::take(&waiting, MAX_WAITING_BYTES - 1).expect("room again");
        drop((last, again));
        assert_eq!(waiting.load(Ordering::Relaxed), 0);
    }
}
