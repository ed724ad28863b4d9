//! Refused messages: kept within a bound, dropped when it is reached.

use rusqlite::{Connection, params};

use super::rows;
use crate::store::words::row_limit;
use crate::store::{QuarantineRow, Quarantined};

/// Counts the bytes kept, so that a flood costs no look at the table.
pub(super) struct Shelf {
    /// Bytes for each of the two shares: allowed topics, and all others.
    share_bytes: u64,
    kept_bytes: [u64; 2],
}

impl Shelf {
    /// Half of `limit_bytes` is for messages that claim an allowed topic.
    pub(super) fn open(connection: &Connection, limit_bytes: u64) -> rusqlite::Result<Self> {
        let mut shelf = Self {
            share_bytes: limit_bytes / 2,
            kept_bytes: [0; 2],
        };
        shelf.count(connection)?;
        Ok(shelf)
    }

    fn count(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        for (share, kept) in self.kept_bytes.iter_mut().enumerate() {
            *kept = connection.query_row(
                "SELECT coalesce(sum(length(body) + length(headers)), 0) FROM quarantine WHERE allowed_topic = ?1",
                params![share == 1],
                |row| row.get(0),
            )?;
        }
        Ok(())
    }

    /// Stores what fits; the rest is dropped.
    pub(super) fn keep(
        &mut self,
        connection: &mut Connection,
        items: Vec<Quarantined>,
    ) -> rusqlite::Result<()> {
        let fits = |shelf: &Self, item: &Quarantined| {
            shelf.kept_bytes[usize::from(item.allowed_topic)] + size(item) <= shelf.share_bytes
        };
        if !items.iter().all(|item| fits(self, item)) {
            // Retention or a retry may have made room since the last count.
            self.count(connection)?;
        }
        let transaction = connection.transaction()?;
        for item in items.iter() {
            if fits(self, item) {
                insert(&transaction, item)?;
                self.kept_bytes[usize::from(item.allowed_topic)] += size(item);
            }
        }
        transaction.commit()
    }
}

fn size(item: &Quarantined) -> u64 {
    (item.body.len() + item.headers.len()) as u64
}

fn insert(connection: &Connection, item: &Quarantined) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "INSERT INTO quarantine (received_at, account, event, reason, allowed_topic, headers, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            item.received_at.as_millis(),
            item.account.as_str(),
            item.event.as_str(),
            item.reason,
            item.allowed_topic,
            item.headers,
            item.body.as_ref(),
        ])
}

pub(super) fn list(
    connection: &Connection,
    after: i64,
    limit: usize,
) -> rusqlite::Result<Vec<QuarantineRow>> {
    connection
        .prepare_cached(
            "SELECT id, received_at, account, event, reason, headers, length(body), body
             FROM quarantine WHERE id > ?1 ORDER BY id LIMIT ?2",
        )?
        .query_map(params![after, row_limit(limit)], |row| {
            Ok(QuarantineRow {
                id: row.get(0)?,
                received_at: rows::moment(row, 1)?,
                account: rows::account(row, 2)?,
                event: rows::event_name(row, 3)?,
                reason: row.get(4)?,
                headers: row.get(5)?,
                size_bytes: row.get(6)?,
                body: row.get(7)?,
            })
        })?
        .collect()
}
