//! Finding or adding the rows of accounts and feeds.

use rusqlite::{Connection, OptionalExtension, params};

use crate::domain::{Account, Feed, Timestamp};
use crate::store::TriggerKind;
use crate::store::columns::kind_code;

/// Returns the account's id; adds the account if it is new.
pub(super) fn account_id(connection: &Connection, account: &Account) -> rusqlite::Result<i64> {
    let found = connection
        .prepare_cached("SELECT id FROM account WHERE name = ?1")?
        .query_row(params![account.as_str()], |row| row.get(0))
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    connection.execute(
        "INSERT INTO account (name) VALUES (?1)",
        params![account.as_str()],
    )?;
    Ok(connection.last_insert_rowid())
}

/// Returns the feed's id; a new feed is added, due for reconciliation at once.
pub(super) fn feed_id(
    connection: &Connection,
    feed: &Feed,
    now: Timestamp,
) -> rusqlite::Result<i64> {
    let account = account_id(connection, &feed.account)?;
    let found = connection
        .prepare_cached(
            "SELECT id FROM feed WHERE account_id = ?1 AND queue = ?2 AND company = ?3",
        )?
        .query_row(
            params![account, feed.queue.as_str(), feed.company.as_str()],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    connection.execute(
        "INSERT INTO feed (account_id, queue, company) VALUES (?1, ?2, ?3)",
        params![account, feed.queue.as_str(), feed.company.as_str()],
    )?;
    let id = connection.last_insert_rowid();
    connection.execute(
        "INSERT INTO feed_trigger (feed_id, kind, raised, due_at) VALUES (?1, ?2, 1, ?3)",
        params![id, kind_code(TriggerKind::Reconciliation), now.as_millis()],
    )?;
    Ok(id)
}
