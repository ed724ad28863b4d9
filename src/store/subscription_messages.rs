//! What messages of SNS say about subscriptions: offered, ended, heard from.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use secrecy::SecretString;

use super::engine::{Fragment, SUBSCRIPTIONS_LOCK, Sql, Tx, operations, params, rows};
use super::error::Result;
use super::messages::AcceptedMessage;
use super::row_ids::account_id;
use super::subscriptions::{SubscriptionState, merge_request};
use crate::domain::{Account, Event, Timestamp};
use crate::sns::{MessageType, UnknownTopicConfirmation};

/// Time for which a topic that was heard is not recorded again, which would write a row.
pub(super) const HEARD_PRECISION: Duration = Duration::from_secs(60);

/// Maximum number of unknown topics that wait for a person at one webhook.
pub const MAX_UNKNOWN_TOPICS: i64 = 20;

/// Longest time for a confirmation within the request that brought its message; SNS gives up after 15 s. For so long
/// the worker leaves it to that request.
pub const IN_REQUEST: Duration = Duration::from_secs(5);

/// Maximum number of ended subscriptions of one webhook.
const MAX_ENDED: i64 = 20;

/// A message about a subscription, addressed to one webhook.
struct Signal<'m> {
    account: i64,
    event: Event,
    topic_arn: &'m str,
    /// Its signed Timestamp.
    sent_at: Timestamp,
    received_at: Timestamp,
    subscribe_url: Option<&'m SecretString>,
    token: Option<&'m SecretString>,
}

impl<'m> Signal<'m> {
    fn of(account: i64, incoming: &'m AcceptedMessage) -> Self {
        let message = &incoming.message;
        Self {
            account,
            event: incoming.event,
            topic_arn: message.topic_arn(),
            sent_at: message.timestamp(),
            received_at: incoming.received_at,
            subscribe_url: message.subscribe_url(),
            token: message.token(),
        }
    }
}

/// Records what a confirmation says about its subscription; a notification says nothing here.
///
/// `ask` makes new subscriptions wait for a person.
pub(super) async fn record_confirmation<T: Tx>(
    tx: &T,
    account: i64,
    incoming: &AcceptedMessage,
    ask: bool,
) -> Result<()> {
    let signal = Signal::of(account, incoming);
    match incoming.message.message_type() {
        MessageType::Notification => Ok(()),
        MessageType::SubscriptionConfirmation => {
            tx.lock(SUBSCRIPTIONS_LOCK).await?;
            let state = if ask {
                SubscriptionState::AwaitingApproval
            } else {
                SubscriptionState::Pending
            };
            offer(tx, &signal, state).await
        }
        MessageType::UnsubscribeConfirmation => {
            tx.lock(SUBSCRIPTIONS_LOCK).await?;
            end(tx, &signal, incoming.message.ended_subscription()).await
        }
    }
}

/// The rows of a topic at a webhook: account $1, event $2, topic $3.
const OF_TOPIC: Fragment = Fragment::Same("account_id = $1 AND event = $2 AND topic_arn = $3");

/// Records that SNS offers a subscription, unless a newer offer of its topic waits already.
///
/// A topic has one subscription that waits at each webhook. A new one answers the oldest
/// request.
async fn offer<T: Tx>(tx: &T, signal: &Signal<'_>, state: SubscriptionState) -> Result<()> {
    let Some((id, last_message_at)) = waiting(tx, signal).await? else {
        return answer(tx, signal, state).await.map(drop);
    };
    if last_message_at > Some(signal.sent_at) {
        return Ok(());
    }
    reflect(tx, id, signal, state).await?;
    merge_request(tx, id).await
}

/// Gives the offer to the oldest request of the webhook, or else to a new row; returns the
/// row's id.
async fn answer<T: Tx>(tx: &T, signal: &Signal<'_>, state: SubscriptionState) -> Result<i64> {
    static REQUESTED: Sql = Sql::new(
        "SELECT id FROM subscription WHERE account_id = $1 AND event = $2 AND state = 'requested' ORDER BY id LIMIT 1",
    );
    let webhook = params! { signal.account, signal.event };
    let id = match tx.first(&REQUESTED, webhook).await? {
        Some(id) => id,
        None => insert(tx, signal, state).await?,
    };
    reflect(tx, id, signal, state).await?;
    Ok(id)
}

/// Returns the subscription of the topic that waits at the webhook, and when SNS sent the
/// message that it reflects.
async fn waiting<T: Tx>(tx: &T, signal: &Signal<'_>) -> Result<Option<(i64, Option<Timestamp>)>> {
    static SQL: Sql = Sql::with(
        "SELECT id, last_message_at FROM subscription
         WHERE {of_topic} AND state IN ('unknown_topic', 'awaiting_approval', 'pending', 'failed')
             AND subscription_arn IS NULL
         ORDER BY id DESC LIMIT 1",
        &[("of_topic", OF_TOPIC)],
    );
    let topic = params! { signal.account, signal.event, signal.topic_arn };
    tx.first(&SQL, topic).await
}

/// Adds a row for the webhook; returns its id.
async fn insert<T: Tx>(tx: &T, signal: &Signal<'_>, state: SubscriptionState) -> Result<i64> {
    static SQL: Sql = Sql::new(
        "INSERT INTO subscription (account_id, event, topic_arn, state, created_at, changed_at)
         VALUES ($1, $2, $3, $4, $5, $5) RETURNING id",
    );
    let params = params! {
        signal.account, signal.event, signal.topic_arn, state, signal.received_at,
    };
    tx.one(&SQL, params).await
}

/// Gives a row the state that a message brings, with the token that confirms or restores it.
async fn reflect<T: Tx>(
    tx: &T,
    id: i64,
    signal: &Signal<'_>,
    state: SubscriptionState,
) -> Result<()> {
    static SQL: Sql = Sql::new(
        "UPDATE subscription SET topic_arn = $2, state = $3, changed_at = $4, last_message_at = $5, next_try_at = $6,
             attempts = 0, last_error = NULL, subscribe_url = $7, token = $8
         WHERE id = $1",
    );
    let due = tx.now_or(signal.received_at).after(IN_REQUEST);
    let due = (state == SubscriptionState::Pending).then_some(due);
    let params = params! {
        id, signal.topic_arn, state, signal.received_at, signal.sent_at, due,
        signal.subscribe_url, signal.token,
    };
    tx.run(&SQL, params).await
}

/// Records the end of the subscription that the message names, and of no other.
async fn end<T: Tx>(tx: &T, signal: &Signal<'_>, subscription_arn: Option<&str>) -> Result<()> {
    static SET_ARN: Sql = Sql::new(
        "UPDATE subscription SET subscription_arn = coalesce($2, subscription_arn) WHERE id = $1",
    );
    static REMOVE_OLDEST: Sql = Sql::new(
        "DELETE FROM subscription WHERE account_id = $1 AND event = $2 AND state = 'unsubscribed' AND id NOT IN (
             SELECT id FROM subscription WHERE account_id = $1 AND event = $2 AND state = 'unsubscribed'
             ORDER BY changed_at DESC, id DESC LIMIT $3)",
    );
    let rows = of_topic(tx, signal.account, signal.event, signal.topic_arn).await?;
    let named = match subscription_arn {
        Some(arn) => by_arn(tx, arn).await?,
        None => None,
    };
    let id = match named.as_ref().or_else(|| unnamed(&rows, subscription_arn)) {
        Some(row) if row.outlives(signal.sent_at, &rows) => return Ok(()),
        Some(row) => row.id,
        None => insert(tx, signal, SubscriptionState::Unsubscribed).await?,
    };
    reflect(tx, id, signal, SubscriptionState::Unsubscribed).await?;
    tx.run(&SET_ARN, &[&id, &subscription_arn]).await?;
    let params = params! { signal.account, signal.event, MAX_ENDED };
    tx.run(&REMOVE_OLDEST, params).await
}

/// A subscription, as far as messages change it.
struct Known {
    id: i64,
    state: SubscriptionState,
    has_arn: bool,
    last_message_at: Option<Timestamp>,
    last_heard_at: Option<Timestamp>,
}

const KNOWN: Fragment = Fragment::Same(
    "SELECT id, state, subscription_arn IS NOT NULL, last_message_at, last_heard_at FROM subscription",
);

rows! { Known { id, state, has_arn, last_message_at, last_heard_at } }

impl Known {
    /// Returns true if it reflects a newer message than an end that SNS sent at `ended_at`, or
    /// a notification proves that it lived on. `rows` are those of its topic.
    fn outlives(&self, ended_at: Timestamp, rows: &[Self]) -> bool {
        let is_only_source = rows
            .iter()
            .all(|row| row.id == self.id || row.state != SubscriptionState::Confirmed);
        let was_heard = self.state == SubscriptionState::Confirmed
            && self.last_heard_at > Some(ended_at)
            && is_only_source;
        self.last_message_at > Some(ended_at) || was_heard
    }
}

async fn of_topic<T: Tx>(
    tx: &T,
    account: i64,
    event: Event,
    topic_arn: &str,
) -> Result<Vec<Known>> {
    static SQL: Sql = Sql::with(
        "{known} WHERE {of_topic} ORDER BY id",
        &[("known", KNOWN), ("of_topic", OF_TOPIC)],
    );
    tx.all(&SQL, &[&account, &event, &topic_arn]).await
}

async fn by_arn<T: Tx>(tx: &T, subscription_arn: &str) -> Result<Option<Known>> {
    static SQL: Sql = Sql::with("{known} WHERE subscription_arn = $1", &[("known", KNOWN)]);
    tx.first(&SQL, &[&subscription_arn]).await
}

/// Returns the row of the topic that an end without a known ARN is about, if only one can be.
fn unnamed<'r>(rows: &'r [Known], subscription_arn: Option<&str>) -> Option<&'r Known> {
    let could_be = |row: &&Known| match subscription_arn {
        // Of another ARN is another subscription.
        Some(_) => row.state == SubscriptionState::Confirmed && !row.has_arn,
        None => !matches!(
            row.state,
            SubscriptionState::Unsubscribed | SubscriptionState::UnknownTopic
        ),
    };
    let mut candidates = rows.iter().filter(could_be);
    match (candidates.next(), candidates.next()) {
        (Some(only), None) => Some(only),
        (None, _) if subscription_arn.is_none() => rows
            .iter()
            .rfind(|row| row.state == SubscriptionState::Unsubscribed),
        _ => None,
    }
}

/// The topics that the notifications of a group came from.
pub(super) struct HeardTopics<'m>(Vec<Heard<'m>>);

/// A topic that was heard at one webhook.
struct Heard<'m> {
    account: i64,
    event: Event,
    topic_arn: &'m str,
    /// Its subscriptions.
    known: Vec<Known>,
    /// When SNS sent the newest of the new notifications; `None` if none is new.
    sent_at: Option<Timestamp>,
    received_at: Timestamp,
}

impl<'m> HeardTopics<'m> {
    /// Returns the topics of notifications, none of which is new yet; each is beside its account.
    pub(super) fn of(notifications: impl Iterator<Item = (i64, &'m AcceptedMessage)>) -> Self {
        let mut topics: Vec<Heard<'m>> = Vec::new();
        for (account, incoming) in notifications {
            if !topics.iter().any(|topic| topic.is_of(account, incoming)) {
                topics.push(Heard {
                    account,
                    event: incoming.event,
                    topic_arn: incoming.message.topic_arn(),
                    known: Vec::new(),
                    sent_at: None,
                    received_at: incoming.received_at,
                });
            }
        }
        Self(topics)
    }

    /// Reads the subscriptions of the topics.
    pub(super) async fn read<T: Tx>(&mut self, tx: &T) -> Result<()> {
        let known = self.0.iter().map(|topic| topic.subscriptions(tx));
        let known = try_join_all(known).await?;
        for (topic, known) in self.0.iter_mut().zip(known) {
            topic.known = known;
        }
        Ok(())
    }

    /// Adds a new notification of one of the topics.
    pub(super) fn add(&mut self, account: i64, incoming: &AcceptedMessage) {
        let mut topics = self.0.iter_mut();
        if let Some(heard) = topics.find(|topic| topic.is_of(account, incoming)) {
            heard.sent_at = heard.sent_at.max(Some(incoming.message.timestamp()));
        }
    }

    /// Records which topics were heard. Writes at most once a minute for each, unless a
    /// subscription turns out to live: reading is cheap, and a row is not.
    pub(super) async fn record<T: Tx>(self, tx: &T) -> Result<()> {
        for heard in &self.0 {
            let Some(sent_at) = heard.sent_at else {
                continue;
            };
            if change_of(&heard.known, sent_at).is_none() {
                continue;
            }
            tx.lock(SUBSCRIPTIONS_LOCK).await?;
            // Another replica may have been faster.
            if let Some(change) = change_of(&heard.subscriptions(tx).await?, sent_at) {
                heard.record(tx, change, sent_at).await?;
            }
        }
        Ok(())
    }
}

/// What a notification changes.
enum HeardChange {
    /// These rows were heard.
    Heard(Vec<i64>),
    /// This one is alive, whatever its state says.
    Lives(i64),
    /// Its subscription was made without this store.
    New,
}

/// Returns what a notification that was sent at `sent_at` changes in the subscriptions of its topic.
fn change_of(rows: &[Known], sent_at: Timestamp) -> Option<HeardChange> {
    if rows.is_empty() {
        return Some(HeardChange::New);
    }
    let is_due = |row: &&Known| {
        row.last_heard_at
            .is_none_or(|last| last.after(HEARD_PRECISION) <= sent_at)
    };
    let due = |states: &[SubscriptionState]| {
        let of_states = rows.iter().filter(|row| states.contains(&row.state));
        let ids: Vec<i64> = of_states.filter(is_due).map(|row| row.id).collect();
        (!ids.is_empty()).then_some(HeardChange::Heard(ids))
    };
    let confirmed = SubscriptionState::Confirmed;
    if rows.iter().any(|row| row.state == confirmed) {
        return due(&[confirmed]);
    }
    let ended = rows.iter().filter(|row| {
        let ended = matches!(
            row.state,
            SubscriptionState::Unsubscribed | SubscriptionState::Failed
        );
        ended && row.last_message_at < Some(sent_at)
    });
    match ended.max_by_key(|row| row.last_message_at) {
        Some(row) => Some(HeardChange::Lives(row.id)),
        None => due(&[
            SubscriptionState::Pending,
            SubscriptionState::AwaitingApproval,
        ]),
    }
}

impl Heard<'_> {
    fn is_of(&self, account: i64, incoming: &AcceptedMessage) -> bool {
        self.account == account
            && self.event == incoming.event
            && self.topic_arn == incoming.message.topic_arn()
    }

    async fn subscriptions<T: Tx>(&self, tx: &T) -> Result<Vec<Known>> {
        of_topic(tx, self.account, self.event, self.topic_arn).await
    }

    async fn record<T: Tx>(&self, tx: &T, change: HeardChange, sent_at: Timestamp) -> Result<()> {
        static HEARD: Sql =
            Sql::new("UPDATE subscription SET last_heard_at = $2 WHERE id IN ({elements}($1))");
        static LIVES: Sql = Sql::new(
            "UPDATE subscription SET state = 'confirmed', changed_at = $2, last_heard_at = $3, next_try_at = NULL,
                 attempts = 0, last_error = NULL, subscribe_url = NULL, token = NULL
             WHERE id = $1",
        );
        static INSERT: Sql = Sql::new(
            "INSERT INTO subscription (account_id, event, topic_arn, state, created_at, changed_at, last_heard_at)
             VALUES ($1, $2, $3, 'confirmed', $4, $4, $5)",
        );
        let (sent_at, received_at) = (&sent_at, &self.received_at);
        match change {
            HeardChange::Heard(ids) => tx.run(&HEARD, &[&ids, sent_at]).await,
            HeardChange::Lives(id) => tx.run(&LIVES, &[&id, received_at, sent_at]).await,
            HeardChange::New => {
                let params = params! {
                    self.account, self.event, self.topic_arn, received_at, sent_at,
                };
                tx.run(&INSERT, params).await
            }
        }
    }
}

operations! {
    /// Keeps a confirmation of a topic that is not allowed for a person, of at most
    /// [`MAX_UNKNOWN_TOPICS`] topics. `valid_since` is when the oldest token that is still valid
    /// was sent.
    pub write offer_unknown_topic(
        account: Account,
        event: Event,
        confirmation: Arc<UnknownTopicConfirmation>,
        received_at: Timestamp,
        valid_since: Timestamp,
    ) -> UnknownTopicOffer;
}

/// What became of a confirmation of an unknown topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownTopicOffer {
    /// It waits for a person as this subscription.
    New(i64),
    /// Its topic waits already, as this subscription.
    Known(i64),
    /// As many topics as are kept wait already.
    TooMany,
}

async fn offer_unknown_topic<T: Tx>(
    tx: &T,
    account: Account,
    event: Event,
    confirmation: Arc<UnknownTopicConfirmation>,
    received_at: Timestamp,
    valid_since: Timestamp,
) -> Result<UnknownTopicOffer> {
    static COUNT: Sql = Sql::new(
        "SELECT count(*) FROM subscription WHERE account_id = $1 AND event = $2 AND state = 'unknown_topic'",
    );
    static REMOVE_EXPIRED: Sql = Sql::new(
        "DELETE FROM subscription WHERE account_id = $1 AND event = $2 AND state = 'unknown_topic'
             AND last_message_at < $3",
    );
    let account = account_id(tx, &account).await?;
    tx.lock(SUBSCRIPTIONS_LOCK).await?;
    let signal = Signal {
        account,
        event,
        topic_arn: confirmation.topic_arn(),
        sent_at: confirmation.timestamp(),
        received_at,
        subscribe_url: confirmation.subscribe_url(),
        token: confirmation.token(),
    };
    let state = SubscriptionState::UnknownTopic;
    if let Some((id, last_message_at)) = waiting(tx, &signal).await? {
        if last_message_at < Some(signal.sent_at) {
            reflect(tx, id, &signal, state).await?;
        }
        return Ok(UnknownTopicOffer::Known(id));
    }
    let count: i64 = tx.one(&COUNT, &[&account, &event]).await?;
    if count >= MAX_UNKNOWN_TOPICS {
        let expired = params! { account, event, valid_since };
        if tx.execute(&REMOVE_EXPIRED, expired).await? == 0 {
            return Ok(UnknownTopicOffer::TooMany);
        }
    }
    let id = answer(tx, &signal, state).await?;
    Ok(UnknownTopicOffer::New(id))
}
