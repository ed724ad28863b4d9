//! Ingest of verified messages: the row, the trigger, and the subscription.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension, params};
use secrecy::ExposeSecret;

use super::rows::{account_id, feed_id};
use crate::domain::{Account, Feed, Timestamp};
use crate::sns::{MessageType, VerifiedMessage};
use crate::store::columns::{event_code, kind_code, message_key};
use crate::store::{AcceptedMessage, Insertion, SubscriptionState, TriggerKind};

/// Number of cached feeds at which the cache is cleared.
const MAX_CACHED_FEEDS: usize = 100_000;

/// Cached ids of rows.
#[derive(Default)]
pub(super) struct RowIdCache {
    accounts: HashMap<Account, i64>,
    feeds: HashMap<Feed, i64>,
}

impl RowIdCache {
    /// Clears the cache, as rows may have been rolled back.
    pub(super) fn clear(&mut self) {
        self.accounts.clear();
        self.feeds.clear();
    }

    fn account(&mut self, connection: &Connection, account: &Account) -> rusqlite::Result<i64> {
        if let Some(id) = self.accounts.get(account) {
            return Ok(*id);
        }
        let id = account_id(connection, account)?;
        self.accounts.insert(account.clone(), id);
        Ok(id)
    }

    fn feed(
        &mut self,
        connection: &Connection,
        feed: &Feed,
        now: Timestamp,
    ) -> rusqlite::Result<i64> {
        if let Some(id) = self.feeds.get(feed) {
            return Ok(*id);
        }
        if self.feeds.len() >= MAX_CACHED_FEEDS {
            self.feeds.clear();
        }
        let id = feed_id(connection, feed, now)?;
        self.feeds.insert(feed.clone(), id);
        Ok(id)
    }
}

/// The ingest of one group: rows are stored at once, triggers at the end.
pub(super) struct Ingest<'a> {
    row_ids: &'a mut RowIdCache,
    ask: bool,
    triggers: BTreeMap<i64, (i64, Timestamp)>,
}

impl<'a> Ingest<'a> {
    pub(super) fn new(row_ids: &'a mut RowIdCache, ask: bool) -> Self {
        Self {
            row_ids,
            ask,
            triggers: BTreeMap::new(),
        }
    }

    /// Clears the cached ids after a savepoint was rolled back.
    pub(super) fn clear_row_ids(&mut self) {
        self.row_ids.clear();
    }

    /// Stores one message; its trigger is raised by [`Ingest::raise_triggers`].
    pub(super) fn store(
        &mut self,
        connection: &Connection,
        incoming: &AcceptedMessage,
    ) -> rusqlite::Result<Insertion> {
        let account = self.row_ids.account(connection, &incoming.account)?;
        let message = &incoming.message;
        let inserted = connection
            .prepare_cached(
                "INSERT INTO notification (account_id, event, message_id, kind, received_at, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (message_id, account_id, event) DO NOTHING",
            )?
            .execute(params![
                account,
                event_code(incoming.event),
                message_key(message.message_id()),
                message.message_type().as_str(),
                incoming.received_at.as_millis(),
                message.body().as_ref(),
            ])?;
        if inserted == 0 {
            return Ok(Insertion::Duplicate);
        }
        match message.message_type() {
            MessageType::Notification => {
                if let Some(feed) = &incoming.trigger {
                    let feed = self.row_ids.feed(connection, feed, incoming.received_at)?;
                    self.triggers
                        .entry(feed)
                        .or_insert((0, incoming.received_at))
                        .0 += 1;
                }
            }
            MessageType::SubscriptionConfirmation => {
                let state = if self.ask {
                    SubscriptionState::AwaitingApproval
                } else {
                    SubscriptionState::Pending
                };
                record_subscription(connection, account, incoming, state)?;
            }
            MessageType::UnsubscribeConfirmation => {
                record_subscription(
                    connection,
                    account,
                    incoming,
                    SubscriptionState::Unsubscribed,
                )?;
            }
        }
        Ok(Insertion::New)
    }

    /// Raises each feed's trigger once for the whole group; returns true if there was any.
    pub(super) fn raise_triggers(self, connection: &Connection) -> rusqlite::Result<bool> {
        let mut statement = connection.prepare_cached(
            "INSERT INTO feed_trigger (feed_id, kind, raised, due_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (feed_id, kind) DO UPDATE SET raised = raised + excluded.raised, due_at = excluded.due_at",
        )?;
        for (feed, (count, due_at)) in &self.triggers {
            statement.execute(params![
                feed,
                kind_code(TriggerKind::Notification),
                count,
                due_at.as_millis()
            ])?;
        }
        Ok(!self.triggers.is_empty())
    }
}

/// Sets the state of the topic's subscription, unless it reflects a newer message.
///
/// A requested subscription has no topic until the first message of SNS arrives. If its
/// topic has a row already, as after subscribing again, the request is merged into that row.
fn record_subscription(
    connection: &Connection,
    account: i64,
    incoming: &AcceptedMessage,
    state: SubscriptionState,
) -> rusqlite::Result<()> {
    let message: &VerifiedMessage = &incoming.message;
    let event = incoming.event.as_str();
    let row: Option<(i64, Option<i64>, bool)> = connection
        .query_row(
            "SELECT id, last_message_at, topic_arn IS NOT NULL FROM subscription
             WHERE account_id = ?1 AND event = ?2 AND (topic_arn = ?3 OR (topic_arn IS NULL AND state = 'requested'))
             ORDER BY topic_arn IS NULL, id DESC LIMIT 1",
            params![account, event, message.topic_arn()],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let message_at = message.timestamp().as_millis();
    let now = incoming.received_at.as_millis();
    let id = match row {
        Some((_, Some(newer), _)) if newer > message_at => return Ok(()),
        Some((id, _, of_this_topic)) => {
            if of_this_topic && message.message_type() == MessageType::SubscriptionConfirmation {
                merge_request(connection, id, account, event)?;
            }
            id
        }
        None => {
            connection.execute(
                "INSERT INTO subscription (account_id, event, state, created_at, changed_at) VALUES (?1, ?2, ?3, ?4, ?4)",
                params![account, event, state.as_str(), now],
            )?;
            connection.last_insert_rowid()
        }
    };
    let next_try_at = (state == SubscriptionState::Pending).then_some(now);
    connection.execute(
        "UPDATE subscription SET topic_arn = ?2, state = ?3, changed_at = ?4, last_message_at = ?5, next_try_at = ?6,
             attempts = 0, last_error = NULL, subscribe_url = ?7, token = ?8
         WHERE id = ?1",
        params![
            id,
            message.topic_arn(),
            state.as_str(),
            now,
            message_at,
            next_try_at,
            message.subscribe_url().map(ExposeSecret::expose_secret),
            message.token().map(ExposeSecret::expose_secret),
        ],
    )?;
    Ok(())
}

/// Merges the oldest unanswered request into subscription `id`, which takes its name.
fn merge_request(
    connection: &Connection,
    id: i64,
    account: i64,
    event: &str,
) -> rusqlite::Result<()> {
    let request: Option<(i64, Option<String>)> = connection
        .query_row(
            "SELECT id, name FROM subscription
             WHERE account_id = ?1 AND event = ?2 AND topic_arn IS NULL AND state = 'requested'
             ORDER BY id LIMIT 1",
            params![account, event],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    if let Some((request, name)) = request {
        connection.execute("DELETE FROM subscription WHERE id = ?1", params![request])?;
        connection.execute(
            "UPDATE subscription SET name = coalesce(?2, name) WHERE id = ?1",
            params![id, name],
        )?;
    }
    Ok(())
}
