//! Subscriptions: requests, confirmations and their states.

use secrecy::SecretString;
use tokio_postgres::Row;

use super::connection::Transaction;
use super::rows::{self, account_id, escape_nul};
use crate::domain::{Account, Event, Timestamp};
use crate::store::columns;
use crate::store::engine::SUBSCRIPTIONS_LOCK;
use crate::store::{StoreError, SubscriptionChange, SubscriptionRow, SubscriptionState};

const COLUMNS: &str =
    "s.id, a.name, s.event, s.name, s.topic_arn, s.subscription_arn, s.state, s.created_at,
    s.changed_at, s.next_try_at, s.attempts, s.last_error, s.subscribe_url, s.token
    FROM subscription s JOIN account a ON a.id = s.account_id";

fn read(row: &Row) -> Result<SubscriptionRow, StoreError> {
    Ok(SubscriptionRow {
        id: row.try_get(0)?,
        account: columns::account(row.try_get(1)?)?,
        event: columns::event_name(row.try_get(2)?)?,
        name: rows::optional_text(row, 3)?,
        topic_arn: row.try_get(4)?,
        subscription_arn: rows::optional_text(row, 5)?,
        state: columns::subscription_state(row.try_get(6)?)?,
        created_at: rows::timestamp(row, 7)?,
        changed_at: rows::timestamp(row, 8)?,
        next_try_at: rows::optional_timestamp(row, 9)?,
        attempts: rows::count(row, 10)?,
        last_error: rows::optional_text(row, 11)?,
        subscribe_url: row
            .try_get::<_, Option<String>>(12)?
            .map(SecretString::from),
        token: row
            .try_get::<_, Option<String>>(13)?
            .map(SecretString::from),
    })
}

/// Serializes changes of subscriptions: they are few, and two replicas may receive messages
/// about the same one at once.
async fn lock(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    transaction
        .query("SELECT pg_advisory_xact_lock($1)", &[&SUBSCRIPTIONS_LOCK])
        .await?;
    Ok(())
}

pub(super) async fn list(
    transaction: &Transaction<'_>,
) -> Result<Vec<SubscriptionRow>, StoreError> {
    let rows = transaction
        .query(&format!("SELECT {COLUMNS} ORDER BY s.id"), &[])
        .await?;
    rows.iter().map(read).collect()
}

/// Records a request to the vendor; repeated requests are one row until a message of SNS
/// arrives.
pub(super) async fn requested(
    transaction: &Transaction<'_>,
    account: &Account,
    event: Event,
    name: &str,
    now: Timestamp,
) -> Result<i64, StoreError> {
    lock(transaction).await?;
    let account = account_id(transaction, account).await?;
    let name = escape_nul(name);
    let waiting = transaction
        .query_opt(
            "SELECT id FROM subscription WHERE account_id = $1 AND event = $2 AND name = $3 AND state = 'requested'",
            &[&account, &event.as_str(), &name],
        )
        .await?;
    if let Some(row) = waiting {
        return Ok(row.try_get(0)?);
    }
    let row = transaction
        .query_one(
            "INSERT INTO subscription (account_id, event, name, state, created_at, changed_at)
             VALUES ($1, $2, $3, 'requested', $4, $4) RETURNING id",
            &[&account, &event.as_str(), &name, &now.as_millis()],
        )
        .await?;
    Ok(row.try_get(0)?)
}

/// Changes a subscription; `None` if it does not exist or its state does not allow the change.
pub(super) async fn change(
    transaction: &Transaction<'_>,
    id: i64,
    change: &SubscriptionChange,
    now: Timestamp,
) -> Result<Option<SubscriptionRow>, StoreError> {
    lock(transaction).await?;
    let set_state = "UPDATE subscription SET state = $2, changed_at = $3, next_try_at = $4, attempts = 0, last_error = NULL";
    let now_ms = now.as_millis();
    let pending = SubscriptionState::Pending.as_str();
    let changed = match change {
        SubscriptionChange::Approved => {
            transaction
                .execute(
                    &format!("{set_state} WHERE id = $1 AND state = 'awaiting_approval'"),
                    &[&id, &pending, &now_ms, &now_ms],
                )
                .await?
        }
        // Also retries by hand a pending subscription whose visits failed.
        SubscriptionChange::Restored => {
            transaction
                .execute(
                    &format!("{set_state} WHERE id = $1 AND state IN ('unsubscribed', 'pending') AND subscribe_url IS NOT NULL"),
                    &[&id, &pending, &now_ms, &now_ms],
                )
                .await?
        }
        SubscriptionChange::Confirmed { subscription_arn } => {
            transaction
                .execute(
                    &format!("{set_state}, subscription_arn = $5, subscribe_url = NULL, token = NULL WHERE id = $1 AND state = 'pending'"),
                    &[
                        &id,
                        &SubscriptionState::Confirmed.as_str(),
                        &now_ms,
                        &None::<i64>,
                        &escape_nul(subscription_arn),
                    ],
                )
                .await?
        }
        SubscriptionChange::AttemptFailed { error, next_try_at } => {
            transaction
                .execute(
                    "UPDATE subscription SET attempts = attempts + 1, last_error = $2, next_try_at = $3 WHERE id = $1 AND state = 'pending'",
                    &[&id, &escape_nul(error), &next_try_at.map(Timestamp::as_millis)],
                )
                .await?
        }
    };
    if changed == 0 {
        return Ok(None);
    }
    let row = transaction
        .query_opt(&format!("SELECT {COLUMNS} WHERE s.id = $1"), &[&id])
        .await?;
    row.as_ref().map(read).transpose()
}
