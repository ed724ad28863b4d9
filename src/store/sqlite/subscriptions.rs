//! Subscriptions: requests, confirmations and their states.

use rusqlite::{Connection, OptionalExtension, Row, params};
use secrecy::SecretString;

use super::rows::{self, account_id};
use crate::domain::{Account, Event, Timestamp};
use crate::store::{SubscriptionChange, SubscriptionRow, SubscriptionState};

const COLUMNS: &str =
    "s.id, a.name, s.event, s.name, s.topic_arn, s.subscription_arn, s.state, s.created_at,
    s.changed_at, s.next_try_at, s.attempts, s.last_error, s.subscribe_url, s.token
    FROM subscription s JOIN account a ON a.id = s.account_id";

fn read(row: &Row<'_>) -> rusqlite::Result<SubscriptionRow> {
    Ok(SubscriptionRow {
        id: row.get(0)?,
        account: rows::account(row, 1)?,
        event: rows::event_name(row, 2)?,
        name: row.get(3)?,
        topic_arn: row.get(4)?,
        subscription_arn: row.get(5)?,
        state: rows::subscription_state(row, 6)?,
        created_at: rows::timestamp(row, 7)?,
        changed_at: rows::timestamp(row, 8)?,
        next_try_at: rows::optional_timestamp(row, 9)?,
        attempts: row.get(10)?,
        last_error: row.get(11)?,
        subscribe_url: row.get::<_, Option<String>>(12)?.map(SecretString::from),
        token: row.get::<_, Option<String>>(13)?.map(SecretString::from),
    })
}

pub(super) fn list(connection: &Connection) -> rusqlite::Result<Vec<SubscriptionRow>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} ORDER BY s.id"))?
        .query_map([], read)?
        .collect()
}

/// Records a request to the vendor; repeated requests are one row until a message of SNS
/// arrives.
pub(super) fn requested(
    connection: &Connection,
    account: &Account,
    event: Event,
    name: &str,
    now: Timestamp,
) -> rusqlite::Result<i64> {
    let account = account_id(connection, account)?;
    let waiting: Option<i64> = connection
        .query_row(
            "SELECT id FROM subscription WHERE account_id = ?1 AND event = ?2 AND name = ?3 AND state = 'requested'",
            params![account, event.as_str(), name],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(id) = waiting {
        return Ok(id);
    }
    connection.execute(
        "INSERT INTO subscription (account_id, event, name, state, created_at, changed_at)
         VALUES (?1, ?2, ?3, 'requested', ?4, ?4)",
        params![account, event.as_str(), name, now.as_millis()],
    )?;
    Ok(connection.last_insert_rowid())
}

/// Changes a subscription; `None` if it does not exist or its state does not allow the change.
pub(super) fn change(
    connection: &Connection,
    id: i64,
    change: &SubscriptionChange,
    now: Timestamp,
) -> rusqlite::Result<Option<SubscriptionRow>> {
    let set_state = "UPDATE subscription SET state = ?2, changed_at = ?3, next_try_at = ?4, attempts = 0, last_error = NULL";
    let now_ms = now.as_millis();
    let pending = SubscriptionState::Pending.as_str();
    let changed = match change {
        SubscriptionChange::Approved => connection.execute(
            &format!("{set_state} WHERE id = ?1 AND state = 'awaiting_approval'"),
            params![id, pending, now_ms, now_ms],
        )?,
        // Also retries by hand a pending subscription whose visits failed.
        SubscriptionChange::Restored => connection.execute(
            &format!("{set_state} WHERE id = ?1 AND state IN ('unsubscribed', 'pending') AND subscribe_url IS NOT NULL"),
            params![id, pending, now_ms, now_ms],
        )?,
        SubscriptionChange::Confirmed { subscription_arn } => connection.execute(
            &format!("{set_state}, subscription_arn = ?5, subscribe_url = NULL, token = NULL WHERE id = ?1 AND state = 'pending'"),
            params![id, SubscriptionState::Confirmed.as_str(), now_ms, None::<i64>, subscription_arn],
        )?,
        SubscriptionChange::AttemptFailed { error, next_try_at } => connection.execute(
            "UPDATE subscription SET attempts = attempts + 1, last_error = ?2, next_try_at = ?3 WHERE id = ?1 AND state = 'pending'",
            params![id, error, next_try_at.map(Timestamp::as_millis)],
        )?,
    };
    if changed == 0 {
        return Ok(None);
    }
    connection
        .query_row(
            &format!("SELECT {COLUMNS} WHERE s.id = ?1"),
            params![id],
            read,
        )
        .optional()
}
