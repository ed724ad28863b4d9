//! Ingest of verified messages: the row, the trigger, and the subscription.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use rusqlite::{Connection, params};

use super::error::explain;
use super::rows::{account_id, feed_id};
use super::tx::{SqliteTx, immediate};
use crate::domain::{Account, Feed, Timestamp};
use crate::sns::MessageType;
use crate::store::columns::{event_code, kind_code, message_key};
use crate::store::subscription_messages::{HeardTopics, record_confirmation};
use crate::store::{AcceptedMessage, Insertion, StoreError, TriggerKind};

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

/// The ingest of one group: rows are stored at once, triggers and heard topics at the end.
pub(super) struct Ingest<'a> {
    row_ids: &'a mut RowIdCache,
    ask: bool,
    triggers: BTreeMap<i64, (i64, Timestamp)>,
    heard: HeardTopics<'a>,
}

impl<'a> Ingest<'a> {
    pub(super) fn new(row_ids: &'a mut RowIdCache, ask: bool) -> Self {
        Self {
            row_ids,
            ask,
            triggers: BTreeMap::new(),
            heard: HeardTopics::default(),
        }
    }

    /// Clears the cached ids after a savepoint was rolled back.
    pub(super) fn clear_row_ids(&mut self) {
        self.row_ids.clear();
    }

    /// Stores one message; [`Ingest::finish`] raises its trigger.
    pub(super) fn store(
        &mut self,
        connection: &mut Connection,
        path: &Path,
        incoming: &'a AcceptedMessage,
    ) -> Result<Insertion, StoreError> {
        let explain = |error| explain(path, error);
        let account = self
            .row_ids
            .account(connection, &incoming.account)
            .map_err(explain)?;
        if !insert(connection, account, incoming).map_err(explain)? {
            return Ok(Insertion::Duplicate);
        }
        if incoming.message.message_type() == MessageType::Notification {
            if let Some(feed) = &incoming.trigger {
                let feed = self.row_ids.feed(connection, feed, incoming.received_at);
                let raised = self.triggers.entry(feed.map_err(explain)?);
                raised.or_insert((0, incoming.received_at)).0 += 1;
            }
            self.heard.add(account, incoming);
        } else {
            let mut tx = SqliteTx::new(connection, path);
            immediate(record_confirmation(&mut tx, account, incoming, self.ask))?;
        }
        Ok(Insertion::New)
    }

    /// Raises the triggers of the whole group, and records which topics were heard; returns
    /// true if there was any trigger.
    pub(super) fn finish(
        self,
        connection: &mut Connection,
        path: &Path,
    ) -> Result<bool, StoreError> {
        raise_triggers(connection, &self.triggers).map_err(|error| explain(path, error))?;
        immediate(self.heard.record(&mut SqliteTx::new(connection, path)))?;
        Ok(!self.triggers.is_empty())
    }
}

/// Inserts the message's row; returns false if it has one.
fn insert(
    connection: &Connection,
    account: i64,
    incoming: &AcceptedMessage,
) -> rusqlite::Result<bool> {
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
    Ok(inserted > 0)
}

/// Raises each feed's trigger once: its count, and when it is due.
fn raise_triggers(
    connection: &Connection,
    triggers: &BTreeMap<i64, (i64, Timestamp)>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO feed_trigger (feed_id, kind, raised, due_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (feed_id, kind) DO UPDATE SET raised = raised + excluded.raised, due_at = excluded.due_at",
    )?;
    for (feed, (count, due_at)) in triggers {
        statement.execute(params![
            feed,
            kind_code(TriggerKind::Notification),
            count,
            due_at.as_millis()
        ])?;
    }
    Ok(())
}
