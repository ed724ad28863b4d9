//! The quarantine of refused messages: bounded; once it is full, messages are dropped.

use rusqlite::{Connection, params};

use crate::store::Quarantined;
use crate::store::limits::MAX_QUARANTINED;

/// Stores refused messages and counts them, so that a flood costs no query.
pub(super) struct QuarantineWriter {
    /// Maximum bytes of each of the two shares: allowed topics, and all others.
    share_bytes: u64,
    stored: [Share; 2],
}

/// What a share of the quarantine holds.
#[derive(Clone, Copy, Default)]
struct Share {
    messages: u64,
    bytes: u64,
}

impl QuarantineWriter {
    /// Counts what is stored. One half of `limit_bytes` is for messages that claim an
    /// allowed topic.
    pub(super) fn open(connection: &Connection, limit_bytes: u64) -> rusqlite::Result<Self> {
        let mut writer = Self {
            share_bytes: limit_bytes / 2,
            stored: [Share::default(); 2],
        };
        writer.count(connection)?;
        Ok(writer)
    }

    fn count(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        for (share, stored) in self.stored.iter_mut().enumerate() {
            *stored = connection.query_row(
                "SELECT count(*), coalesce(sum(length(body) + length(headers)), 0) FROM quarantine WHERE allowed_topic = ?1",
                params![share == 1],
                |row| Ok(Share { messages: row.get(0)?, bytes: row.get(1)? }),
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
            let stored = writer.stored[usize::from(item.allowed_topic)];
            stored.messages < MAX_QUARANTINED && stored.bytes + size(item) <= writer.share_bytes
        };
        if !items.iter().all(|item| fits(self, item)) {
            // Retention or a retry may have made room since the last count.
            self.count(connection)?;
        }
        let transaction = connection.transaction()?;
        for item in items.iter() {
            if fits(self, item) {
                insert(&transaction, item)?;
                let stored = &mut self.stored[usize::from(item.allowed_topic)];
                stored.messages += 1;
                stored.bytes += size(item);
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
