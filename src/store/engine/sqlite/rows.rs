//! Reading columns, and finding or adding the rows of accounts and feeds.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::domain::{Account, Feed, Timestamp};
use crate::store::columns::{self, kind_code};
use crate::store::{DeliveryState, TriggerKind};

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

/// Converts the error of a column with an unknown value.
fn unknown_value(column: usize) -> impl FnOnce(columns::UnknownValue) -> rusqlite::Error {
    move |what| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, what.into())
}

/// Reads a kind of trigger.
pub(super) fn kind(row: &Row<'_>, column: usize) -> rusqlite::Result<TriggerKind> {
    columns::kind(row.get(column)?).map_err(unknown_value(column))
}

/// Reads a timestamp.
pub(super) fn timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Ok(Timestamp::from_millis(row.get(column)?))
}

/// Reads a timestamp that may be absent.
pub(super) fn optional_timestamp(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row
        .get::<_, Option<i64>>(column)?
        .map(Timestamp::from_millis))
}

/// Reads the state of a delivery.
pub(super) fn delivery_state(row: &Row<'_>, column: usize) -> rusqlite::Result<DeliveryState> {
    columns::delivery_state(&row.get::<_, String>(column)?).map_err(unknown_value(column))
}

/// Reads a feed from three columns: account name, queue, company.
pub(super) fn feed(row: &Row<'_>, first: usize) -> rusqlite::Result<Feed> {
    let name: String = row.get(first)?;
    let queue: String = row.get(first + 1)?;
    let company: String = row.get(first + 2)?;
    columns::feed(&name, &queue, &company).map_err(unknown_value(first))
}
