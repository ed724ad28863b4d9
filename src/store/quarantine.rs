//! The quarantine of refused messages.

use bytes::Bytes;
use serde::Serialize;

use super::debug::redacted;
use super::engine::{Sql, Tx, operations, params, rows};
use super::error::Result;
use super::retention::RETENTION_BATCH;
use crate::domain::{Account, Event, Timestamp};

/// Maximum number of refused messages that wait to be stored in the quarantine.
pub(super) const QUARANTINE_QUEUE: usize = 64;

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

/// A row of the quarantine.
#[derive(Clone, Serialize, utoipa::ToSchema)]
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
    /// The SNS headers, `name: value` lines.
    #[serde(skip)]
    pub headers: String,
    /// Length of the body in bytes.
    pub size_bytes: u64,
    /// The body as received.
    #[serde(skip)]
    pub body: Vec<u8>,
}

redacted! {
    Quarantined { received_at, account, event, reason, allowed_topic; headers, body }
    QuarantineRow { id, received_at, account, event, reason, size_bytes; headers, body }
}

operations! {
    /// Lists at most `limit` quarantined messages after row `after`, oldest first.
    pub read_after_flush quarantine(after: i64, limit: usize) -> Vec<QuarantineRow>;

    /// Removes a quarantined message.
    pub write remove_quarantined(id: i64) -> ();
}

rows! { QuarantineRow { id, received_at, account, event, reason, headers, size_bytes, body } }

async fn quarantine<T: Tx>(tx: &mut T, after: i64, limit: usize) -> Result<Vec<QuarantineRow>> {
    static SQL: Sql = Sql::new(
        "SELECT id, received_at, account, event, reason, headers, length(body), body
         FROM quarantine WHERE id > $1 ORDER BY id LIMIT $2",
    );
    tx.all(&SQL, &[&after, &limit]).await
}

async fn remove_quarantined<T: Tx>(tx: &mut T, id: i64) -> Result<()> {
    static SQL: Sql = Sql::new("DELETE FROM quarantine WHERE id = $1");
    tx.run(&SQL, &[&id]).await
}

/// Removes a batch of the messages that were received before this moment; returns their
/// number.
pub(super) async fn remove_old_quarantined<T: Tx>(tx: &mut T, before: Timestamp) -> Result<usize> {
    static SQL: Sql = Sql::new(
        "DELETE FROM quarantine WHERE id IN (
             SELECT id FROM quarantine WHERE received_at < $1 ORDER BY received_at LIMIT $2{skip_locked})",
    );
    tx.execute(&SQL, &[&before, &RETENTION_BATCH]).await
}

/// The bytes of quarantined messages: of those that claim no allowed topic, and of those that
/// do. One half of the bound is for each.
pub(super) type QuarantinedBytes = [u64; 2];

/// Counts what is stored.
async fn quarantined_bytes<T: Tx>(tx: &mut T) -> Result<QuarantinedBytes> {
    static SQL: Sql = Sql::new(
        "SELECT allowed_topic, CAST(sum(length(body) + octet_length(headers)) AS BIGINT)
         FROM quarantine GROUP BY 1",
    );
    let mut stored = QuarantinedBytes::default();
    for (allowed_topic, bytes) in tx.all::<(bool, u64)>(&SQL, &[]).await? {
        stored[usize::from(allowed_topic)] = bytes;
    }
    Ok(stored)
}

/// Stores the messages that fit the bound, and drops the others; returns what is stored now.
/// `known` is what was stored, if that is known.
pub(super) async fn store_quarantined<T: Tx>(
    tx: &mut T,
    limit_bytes: u64,
    known: Option<QuarantinedBytes>,
    items: &[Quarantined],
) -> Result<QuarantinedBytes> {
    static SQL: Sql = Sql::new(
        "INSERT INTO quarantine (received_at, account, event, reason, allowed_topic, headers, body)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    );
    let share = |item: &Quarantined| usize::from(item.allowed_topic);
    let size = |item: &Quarantined| (item.body.len() + item.headers.len()) as u64;
    let all_fit = |stored: &QuarantinedBytes| {
        let mut stored = *stored;
        items.iter().all(|item| {
            stored[share(item)] += size(item);
            stored[share(item)] <= limit_bytes / 2
        })
    };
    let mut stored = match known.filter(all_fit) {
        Some(known) => known,
        // Retention or a retry may have made room.
        None => quarantined_bytes(tx).await?,
    };
    for item in items {
        let after = stored[share(item)] + size(item);
        if after > limit_bytes / 2 {
            continue;
        }
        let params = params! {
            item.received_at, item.account, item.event, item.reason, item.allowed_topic,
            item.headers, item.body.as_ref(),
        };
        tx.run(&SQL, params).await?;
        stored[share(item)] = after;
    }
    Ok(stored)
}
