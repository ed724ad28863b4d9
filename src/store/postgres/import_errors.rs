//! Import errors for the vendor's accountant.

use std::time::Duration;

use tokio_postgres::Row;

use super::connection::Transaction;
use super::rows::{self, escape_nul};
use crate::domain::{Account, Timestamp};
use crate::store::columns::{self, row_limit};
use crate::store::{
    ImportErrorFilter, ImportErrorLease, ImportErrorOutcome, ImportErrorRow, StoreError,
};

/// Returns the query for rows that meet `condition`, which may use $1 and following.
fn select(condition: &str) -> String {
    format!(
        "SELECT r.id, a.name, r.sequence, d.document_id, r.company, r.message, r.state, r.attempts,
                r.created_at, r.sent_at, r.next_try_at, r.last_error
         FROM import_error r
         JOIN account a ON a.id = r.account_id
         JOIN document d ON d.sequence = r.sequence
         WHERE {condition}"
    )
}

fn read(row: &Row) -> Result<ImportErrorRow, StoreError> {
    Ok(ImportErrorRow {
        id: row.try_get(0)?,
        account: columns::account(row.try_get(1)?)?,
        sequence: row.try_get(2)?,
        document_id: rows::text(row, 3)?,
        company: columns::optional_company(row.try_get(4)?)?,
        message: rows::text(row, 5)?,
        state: columns::import_error_state(row.try_get(6)?)?,
        attempts: rows::count(row, 7)?,
        created_at: rows::timestamp(row, 8)?,
        sent_at: rows::optional_timestamp(row, 9)?,
        next_try_at: rows::optional_timestamp(row, 10)?,
        last_error: rows::optional_text(row, 11)?,
    })
}

pub(super) async fn lease(
    transaction: &Transaction<'_>,
    accounts: &[Account],
    lease: Duration,
) -> Result<Option<ImportErrorLease>, StoreError> {
    let now = transaction.now();
    let names: Vec<&str> = accounts.iter().map(Account::as_str).collect();
    let sql = select(
        "r.state = 'pending' AND r.next_try_at <= $1 AND coalesce(r.leased_until, 0) <= $1 AND a.name = ANY ($2)
         ORDER BY r.attempts, r.next_try_at, r.id LIMIT 1 FOR NO KEY UPDATE OF r SKIP LOCKED",
    );
    let row = transaction
        .query_opt(&sql, &[&now.as_millis(), &names])
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let mut row = read(&row)?;
    let leased = transaction
        .query_one(
            "UPDATE import_error SET fence = fence + 1, attempts = attempts + 1, leased_until = $2 WHERE id = $1
             RETURNING fence",
            &[&row.id, &now.after(lease).as_millis()],
        )
        .await?;
    row.attempts += 1;
    Ok(Some(ImportErrorLease {
        row,
        fence: leased.try_get(0)?,
    }))
}

/// Records the result of sending; returns false to a stale owner.
pub(super) async fn end(
    transaction: &Transaction<'_>,
    lease: &ImportErrorLease,
    end: &ImportErrorOutcome,
) -> Result<bool, StoreError> {
    let (state, error, next_try_at) = match end {
        ImportErrorOutcome::Sent => ("sent", None, None),
        ImportErrorOutcome::Failed {
            error, next_try_at, ..
        } => ("pending", Some(error), Some(*next_try_at)),
        ImportErrorOutcome::Refused { error } => ("refused", Some(error), None),
    };
    let changed = transaction
        .execute(
            "UPDATE import_error SET state = $3, last_error = $4, next_try_at = $5, leased_until = NULL,
                 sent_at = CASE WHEN $3 = 'sent' THEN $6 ELSE sent_at END
             WHERE id = $1 AND fence = $2",
            &[
                &lease.row.id,
                &lease.fence,
                &state,
                &error.map(|error| escape_nul(error)),
                &next_try_at.map(Timestamp::as_millis),
                &transaction.now().as_millis(),
            ],
        )
        .await?;
    if let (
        true,
        ImportErrorOutcome::Failed {
            others_wait_until, ..
        },
    ) = (changed > 0, end)
    {
        // The account's others would fail alike.
        transaction
            .execute(
                "WITH others AS (
                     SELECT id FROM import_error
                     WHERE state = 'pending' AND next_try_at < $2
                       AND account_id = (SELECT account_id FROM import_error WHERE id = $1)
                     ORDER BY id FOR NO KEY UPDATE)
                 UPDATE import_error r SET next_try_at = $2 FROM others WHERE r.id = others.id",
                &[&lease.row.id, &others_wait_until.as_millis()],
            )
            .await?;
    }
    Ok(changed > 0)
}

pub(super) async fn retry(transaction: &Transaction<'_>, id: i64) -> Result<bool, StoreError> {
    let changed = transaction
        .execute(
            "UPDATE import_error SET state = 'pending', next_try_at = $2
             WHERE id = $1 AND state <> 'sent' AND company IS NOT NULL",
            &[&id, &transaction.now().as_millis()],
        )
        .await?;
    Ok(changed > 0)
}

pub(super) async fn list(
    transaction: &Transaction<'_>,
    filter: &ImportErrorFilter,
) -> Result<Vec<ImportErrorRow>, StoreError> {
    let found = transaction
        .query(
            &select(
                "r.id > $1 AND ($2 IS NULL OR r.sequence = $2) AND ($3 IS NULL OR r.state = $3)
                 ORDER BY r.id LIMIT $4",
            ),
            &[
                &filter.after,
                &filter.sequence,
                &filter.state.map(|state| state.as_str()),
                &row_limit(filter.limit),
            ],
        )
        .await?;
    found.iter().map(read).collect()
}
