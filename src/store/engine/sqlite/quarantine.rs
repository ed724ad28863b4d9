//! The quarantine of refused messages: bounded; once it is full, messages are dropped.

use rusqlite::{Connection, params};

use crate::store::Quarantined;

/// Stores refused messages and counts their bytes, so that a flood costs no query.
pub(super) struct QuarantineWriter {
    /// Maximum bytes of each of the two shares: allowed topics, and all others.
    share_bytes: u64,
    stored_bytes: [u64; 2],
}

impl QuarantineWriter {
    /// Counts what is stored. One half of `limit_bytes` is for messages that claim an
    /// allowed topic.
    pub(super) fn open(connection: &Connection, limit_bytes: u64) -> rusqlite::Result<Self> {
        let mut writer = Self {
            share_bytes: limit_bytes / 2,
            stored_bytes: [0; 2],
        };
        writer.count(connection)?;
        Ok(writer)
    }

    fn count(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        for (share, stored) in self.stored_bytes.iter_mut().enumerate() {
            *stored = connection.query_row(
                "SELECT coalesce(sum(length(body) + length(headers)), 0) FROM quarantine WHERE allowed_topic = ?1",
                params![share == 1],
                |row| row.get(0),
            )?;
        }
        Ok(())
    }

    /// Stores what fits; the rest is dropped.
    pub(super) fn store(
        &mut self,
        connection: &mut Connection,
        items: Vec<Quarantined>,
    ) -> rusqlite::Result<()> {
        let fits = |writer: &Self, item: &Quarantined| {
            writer.stored_bytes[usize::from(item.allowed_topic)] + size(item) <= writer.share_bytes
        };
        if !items.iter().all(|item| fits(self, item)) {
            // Retention or a retry may have made room since the last count.
            self.count(connection)?;
        }
        let transaction = connection.transaction()?;
        for item in items.iter() {
            if fits(self, item) {
                insert(&transaction, item)?;
                self.stored_bytes[usize::from(item.allowed_topic)] += size(item);
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
