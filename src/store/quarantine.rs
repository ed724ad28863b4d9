//! The quarantine of refused messages.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::debug::redacted;
use super::engine::{Column, Columns, Param, Sql, Statement, Tx, operations, rows};
use super::error::Result;
use crate::domain::{Account, Event, Timestamp};
use crate::sns::{Envelope, SnsHeaders};

/// Maximum number of refused messages that wait to be stored in the quarantine.
pub(super) const QUARANTINE_QUEUE: usize = 64;

/// Maximum number of refused messages in each of the quarantine's two shares: those that claim
/// an allowed topic, and all others.
const MAX_QUARANTINED: u64 = 5_000;

/// A refused message for the quarantine.
#[derive(Clone)]
pub struct Quarantined {
    /// When it was received.
    pub received_at: Timestamp,
    /// The account of the webhook that received it.
    pub account: Account,
    /// The event of the webhook that received it.
    pub event: Event,
    /// [`crate::refusal::Refusal::code`].
    pub reason: String,
    /// True if it claims an allowed topic: such messages have a share of their own.
    pub allowed_topic: bool,
    /// The SNS headers, `name: value` lines.
    pub headers: String,
    /// The body as received.
    pub body: Bytes,
}

impl Quarantined {
    /// Returns the values of its row.
    fn columns(&self) -> [&dyn Param; 7] {
        [
            &self.received_at,
            &self.account,
            &self.event,
            &self.reason,
            &self.allowed_topic,
            &self.headers,
            &self.body,
        ]
    }
}

/// A row of the quarantine.
#[derive(Clone, Debug)]
pub struct QuarantineRow {
    /// Ascending in the order of arrival.
    pub id: i64,
    /// When it was received.
    pub received_at: Timestamp,
    /// The account of the webhook that received it.
    pub account: Account,
    /// The event of the webhook that received it.
    pub event: Event,
    /// The reason for the refusal.
    pub reason: String,
    /// Length of the body in bytes.
    pub size_bytes: u64,
    /// The topic that it claims to be of, whether that is true or not; null if it is no SNS
    /// message.
    pub topic_arn: Option<String>,
}

/// A message of the quarantine, whole. Lists have [`QuarantineRow`] alone: a page of large
/// messages would not fit into memory.
#[derive(Clone)]
pub struct QuarantinedMessage {
    /// Its row.
    pub row: QuarantineRow,
    /// The SNS headers, `name: value` lines.
    pub headers: String,
    /// The body as received.
    pub body: Vec<u8>,
}

redacted! {
    Quarantined { received_at, account, event, reason, allowed_topic; headers, body }
    QuarantinedMessage { row; headers, body }
}

operations! {
    /// Lists at most `limit` quarantined messages after row `after`, oldest first.
    pub read_after_flush quarantine(after: i64, limit: usize) -> Vec<QuarantineRow>;

    /// Lists at most `limit` quarantined messages before row `before`, newest first.
    pub read_after_flush newest_quarantined(before: Option<i64>, limit: usize) -> Vec<QuarantineRow>;

    /// Returns a quarantined message with its body; `None` if the row does not exist.
    pub read quarantined(id: i64) -> Option<QuarantinedMessage>;

    /// Removes a quarantined message.
    pub write remove_quarantined(id: i64) -> ();
}

rows! {
    QuarantinedMessage { row, headers, body }
}

impl Column for QuarantineRow {
    /// Reads the columns up to the body, of which nothing but the topic is kept.
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            id: columns.get()?,
            received_at: columns.get()?,
            account: columns.get()?,
            event: columns.get()?,
            reason: columns.get()?,
            size_bytes: columns.get()?,
            topic_arn: claimed_topic(columns.get()?),
        })
    }
}

fn claimed_topic(body: Vec<u8>) -> Option<String> {
    let envelope = Envelope::parse(body.into(), &SnsHeaders::default()).ok()?;
    Some(envelope.topic_arn().to_owned())
}

async fn quarantine<T: Tx>(tx: &T, after: i64, limit: usize) -> Result<Vec<QuarantineRow>> {
    static SQL: Sql = Sql::new(
        "SELECT id, received_at, account, event, reason, length(body), body
         FROM quarantine WHERE id > $1 ORDER BY id LIMIT $2",
    );
    tx.all(&SQL, &[&after, &limit]).await
}

async fn newest_quarantined<T: Tx>(
    tx: &T,
    before: Option<i64>,
    limit: usize,
) -> Result<Vec<QuarantineRow>> {
    static SQL: Sql = Sql::new(
        "SELECT id, received_at, account, event, reason, length(body), body
         FROM quarantine WHERE id < $1 ORDER BY id DESC LIMIT $2",
    );
    tx.all(&SQL, &[&before.unwrap_or(i64::MAX), &limit]).await
}

async fn quarantined<T: Tx>(tx: &T, id: i64) -> Result<Option<QuarantinedMessage>> {
    static SQL: Sql = Sql::new(
        "SELECT id, received_at, account, event, reason, length(body), body, headers, body
         FROM quarantine WHERE id = $1",
    );
    tx.first(&SQL, &[&id]).await
}

async fn remove_quarantined<T: Tx>(tx: &T, id: i64) -> Result<()> {
    static SQL: Sql = Sql::new("DELETE FROM quarantine WHERE id = $1");
    tx.run(&SQL, &[&id]).await
}

/// Removes a batch of the messages that were received before this moment; returns their
/// number.
pub(super) async fn remove_old_quarantined<T: Tx>(
    tx: &T,
    before: Timestamp,
    limit: usize,
) -> Result<usize> {
    static SQL: Sql = Sql::new(
        "DELETE FROM quarantine WHERE id IN (
             SELECT id FROM quarantine WHERE received_at < $1 ORDER BY received_at LIMIT $2{skip_locked})",
    );
    tx.execute(&SQL, &[&before, &limit]).await
}

/// What the quarantine holds in each of its two shares: of messages that claim no allowed topic,
/// and of those that do. One half of the bound in bytes is for each.
pub(super) type Shares = [Share; 2];

/// What a share of the quarantine holds.
#[derive(Clone, Copy, Default)]
pub(super) struct Share {
    messages: u64,
    bytes: u64,
}

impl Share {
    /// Returns the share with one more message; `None` if there is no room for it.
    fn with(self, item: &Quarantined, limit_bytes: u64) -> Option<Self> {
        let after = Self {
            messages: self.messages + 1,
            bytes: self.bytes + (item.body.len() + item.headers.len()) as u64,
        };
        let fits = after.messages <= MAX_QUARANTINED && after.bytes <= limit_bytes / 2;
        fits.then_some(after)
    }
}

/// Counts what is stored.
async fn stored_shares<T: Tx>(tx: &T) -> Result<Shares> {
    static SQL: Sql = Sql::new(
        "SELECT allowed_topic, count(*), CAST(sum(length(body) + octet_length(headers)) AS BIGINT)
         FROM quarantine GROUP BY 1",
    );
    let mut stored = Shares::default();
    for (allowed_topic, messages, bytes) in tx.all::<(bool, u64, u64)>(&SQL, &[]).await? {
        stored[usize::from(allowed_topic)] = Share { messages, bytes };
    }
    Ok(stored)
}

/// Stores the messages that fit the bound, and drops the others; returns what is stored now.
/// `known` is what was stored, if that is known.
pub(super) async fn store_quarantined<T: Tx>(
    tx: &T,
    limit_bytes: u64,
    known: Option<Shares>,
    items: &[Quarantined],
) -> Result<Shares> {
    static SQL: Sql = Sql::new(
        "INSERT INTO quarantine (received_at, account, event, reason, allowed_topic, headers, body)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    );
    let add = |stored: &mut Shares, item: &Quarantined| {
        let share = &mut stored[usize::from(item.allowed_topic)];
        let after = share.with(item, limit_bytes);
        *share = after.unwrap_or(*share);
        after.is_some()
    };
    let all_fit = |stored: &Shares| {
        let mut stored = *stored;
        items.iter().all(|item| add(&mut stored, item))
    };
    let mut stored = match known.filter(all_fit) {
        Some(known) => known,
        // Retention or a retry may have made room.
        None => stored_shares(tx).await?,
    };
    let fitting = items.iter().filter(|item| add(&mut stored, item));
    let rows: Vec<[&dyn Param; 7]> = fitting.map(Quarantined::columns).collect();
    let rows: Vec<Statement<'_>> = rows.iter().map(|row| (&SQL, row.as_slice())).collect();
    tx.last(&rows, &mut |_| Ok(ControlFlow::Continue(())))
        .await?;
    Ok(stored)
}
