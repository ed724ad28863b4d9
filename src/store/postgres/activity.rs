//! Counts of what arrived in the last hours, from the newest rows.

use tokio_postgres::Row;

use super::connection::Transaction;
use super::rows;
use crate::domain::Timestamp;
use crate::store::activity::{HOUR_MS, MAX_COUNTED_ROWS};
use crate::store::{Activity, HourCount, RefusedCount, StoreError};

pub(super) async fn since(
    transaction: &Transaction<'_>,
    moment: Timestamp,
) -> Result<Activity, StoreError> {
    Ok(Activity {
        accepted: hours(transaction, "notification", "received_at", "id", moment).await?,
        refused: refused(transaction, moment).await?,
        documents: hours(transaction, "document", "stored_at", "sequence", moment).await?,
    })
}

fn hour(row: &Row) -> Result<Timestamp, StoreError> {
    let hours: i64 = row.try_get(0)?;
    Ok(Timestamp::from_millis(hours.saturating_mul(HOUR_MS)))
}

/// Counts rows by hour. Rows are numbered nearly in the order of time, so the newest are at
/// the end of the index.
async fn hours(
    transaction: &Transaction<'_>,
    table: &str,
    moment: &str,
    number: &str,
    since: Timestamp,
) -> Result<Vec<HourCount>, StoreError> {
    let sql = format!(
        "SELECT at / $3, count(*)
         FROM (SELECT {moment} AS at FROM {table} ORDER BY {number} DESC LIMIT $2) AS newest
         WHERE at >= $1 GROUP BY 1 ORDER BY 1"
    );
    let rows = transaction
        .query(&sql, &[&since.as_millis(), &MAX_COUNTED_ROWS, &HOUR_MS])
        .await?;
    rows.iter()
        .map(|row| {
            Ok(HourCount {
                hour: hour(row)?,
                count: rows::count(row, 1)?,
            })
        })
        .collect()
}

async fn refused(
    transaction: &Transaction<'_>,
    since: Timestamp,
) -> Result<Vec<RefusedCount>, StoreError> {
    let rows = transaction
        .query(
            "SELECT received_at / $3, reason, count(*)
             FROM (SELECT received_at, reason FROM quarantine ORDER BY id DESC LIMIT $2) AS newest
             WHERE received_at >= $1 GROUP BY 1, 2 ORDER BY 1, reason COLLATE \"C\"",
            &[&since.as_millis(), &MAX_COUNTED_ROWS, &HOUR_MS],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(RefusedCount {
                hour: hour(row)?,
                reason: row.try_get(1)?,
                count: rows::count(row, 2)?,
            })
        })
        .collect()
}
