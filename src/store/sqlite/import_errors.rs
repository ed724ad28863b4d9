//! Import errors for the vendor's accountant.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::error::explain;
use super::rows;
use crate::domain::{Account, Timestamp};
use crate::store::columns::row_limit;
use crate::store::{
    ImportErrorFilter, ImportErrorLease, ImportErrorOutcome, ImportErrorRow, StoreError,
};

/// Returns the query for rows that meet `condition`, which may use ?1 and following.
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

fn read(row: &Row<'_>) -> rusqlite::Result<ImportErrorRow> {
    Ok(ImportErrorRow {
        id: row.get(0)?,
        account: rows::account(row, 1)?,
        sequence: row.get(2)?,
        document_id: row.get(3)?,
        company: rows::optional_company(row, 4)?,
        message: row.get(5)?,
        state: rows::import_error_state(row, 6)?,
        attempts: row.get(7)?,
        created_at: rows::timestamp(row, 8)?,
        sent_at: rows::optional_timestamp(row, 9)?,
        next_try_at: rows::optional_timestamp(row, 10)?,
        last_error: row.get(11)?,
    })
}

pub(super) fn lease(
    connection: &Connection,
    accounts: &[Account],
    now: Timestamp,
    lease: Duration,
) -> rusqlite::Result<Option<ImportErrorLease>> {
    let names: Vec<&str> = accounts.iter().map(Account::as_str).collect();
    let row = connection
        .prepare_cached(&select(
            "r.state = 'pending' AND r.next_try_at <= ?1 AND coalesce(r.leased_until, 0) <= ?1
               AND a.name IN (SELECT value FROM json_each(?2))
             ORDER BY r.attempts, r.next_try_at, r.id LIMIT 1",
        ))?
        .query_row(
            params![now.as_millis(), serde_json::json!(names).to_string()],
            read,
        )
        .optional()?;
    let Some(mut row) = row else {
        return Ok(None);
    };
    let fence = connection.query_row(
        "UPDATE import_error SET fence = fence + 1, attempts = attempts + 1, leased_until = ?2 WHERE id = ?1
         RETURNING fence",
        params![row.id, now.after(lease).as_millis()],
        |row| row.get(0),
    )?;
    row.attempts += 1;
    Ok(Some(ImportErrorLease { row, fence }))
}

pub(super) fn end(
    transaction: &Connection,
    path: &Path,
    lease: &ImportErrorLease,
    end: &ImportErrorOutcome,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (state, error, next_try_at) = match end {
        ImportErrorOutcome::Sent => ("sent", None, None),
        ImportErrorOutcome::Failed {
            error, next_try_at, ..
        } => ("pending", Some(error), Some(*next_try_at)),
        ImportErrorOutcome::Refused { error } => ("refused", Some(error), None),
    };
    let changed = transaction
        .execute(
            "UPDATE import_error SET state = ?3, last_error = ?4, next_try_at = ?5, leased_until = NULL,
                 sent_at = CASE WHEN ?3 = 'sent' THEN ?6 ELSE sent_at END
             WHERE id = ?1 AND fence = ?2",
            params![
                lease.row.id,
                lease.fence,
                state,
                error,
                next_try_at.map(Timestamp::as_millis),
                now.as_millis()
            ],
        )
        .map_err(|error| explain(path, error))?;
    if changed == 0 {
        return Err(StoreError::StaleLease);
    }
    if let ImportErrorOutcome::Failed {
        others_wait_until, ..
    } = end
    {
        // The account's others would fail alike.
        transaction
            .execute(
                "UPDATE import_error SET next_try_at = max(next_try_at, ?2)
                 WHERE state = 'pending' AND account_id = (SELECT account_id FROM import_error WHERE id = ?1)",
                params![lease.row.id, others_wait_until.as_millis()],
            )
            .map_err(|error| explain(path, error))?;
    }
    Ok(())
}

pub(super) fn retry(connection: &Connection, id: i64, now: Timestamp) -> rusqlite::Result<bool> {
    let changed = connection.execute(
        "UPDATE import_error SET state = 'pending', next_try_at = ?2
         WHERE id = ?1 AND state <> 'sent' AND company IS NOT NULL",
        params![id, now.as_millis()],
    )?;
    Ok(changed > 0)
}

pub(super) fn list(
    connection: &Connection,
    filter: &ImportErrorFilter,
) -> rusqlite::Result<Vec<ImportErrorRow>> {
    // Each kind of query has an index of its own.
    let place = match filter.sequence {
        Some(_) => "r.sequence = ?2 AND r.id > ?1",
        None => "r.id > ?1 AND ?2 IS NULL",
    };
    connection
        .prepare_cached(&select(&format!(
            "{place} AND (?3 IS NULL OR r.state = ?3) ORDER BY r.id LIMIT ?4"
        )))?
        .query_map(
            params![
                filter.after,
                filter.sequence,
                filter.state.map(|state| state.as_str()),
                row_limit(filter.limit)
            ],
            read,
        )?
        .collect()
}
