//! Counts of what arrived in the last hours, from the newest rows.

use rusqlite::{Connection, Row, params};

use crate::domain::Timestamp;
use crate::store::activity::{HOUR_MS, MAX_COUNTED_ROWS};
use crate::store::{Activity, HourCount, RefusedCount};

pub(super) fn since(connection: &Connection, moment: Timestamp) -> rusqlite::Result<Activity> {
    Ok(Activity {
        accepted: hours(connection, "notification", "received_at", "id", moment)?,
        refused: refused(connection, moment)?,
        documents: hours(connection, "document", "stored_at", "sequence", moment)?,
    })
}

fn hour(row: &Row<'_>) -> rusqlite::Result<Timestamp> {
    let hours: i64 = row.get(0)?;
    Ok(Timestamp::from_millis(hours.saturating_mul(HOUR_MS)))
}

/// Counts rows by hour. Rows are numbered in the order of time, so the newest are at the
/// end of the table.
fn hours(
    connection: &Connection,
    table: &str,
    moment: &str,
    number: &str,
    since: Timestamp,
) -> rusqlite::Result<Vec<HourCount>> {
    connection
        .prepare_cached(&format!(
            "SELECT at / ?3, count(*) FROM (SELECT {moment} AS at FROM {table} ORDER BY {number} DESC LIMIT ?2)
             WHERE at >= ?1 GROUP BY 1 ORDER BY 1"
        ))?
        .query_map(params![since.as_millis(), MAX_COUNTED_ROWS, HOUR_MS], |row| {
            Ok(HourCount {
                hour: hour(row)?,
                count: row.get(1)?,
            })
        })?
        .collect()
}

fn refused(connection: &Connection, since: Timestamp) -> rusqlite::Result<Vec<RefusedCount>> {
    connection
        .prepare_cached(
            "SELECT received_at / ?3, reason, count(*)
             FROM (SELECT received_at, reason FROM quarantine ORDER BY id DESC LIMIT ?2)
             WHERE received_at >= ?1 GROUP BY 1, 2 ORDER BY 1, 2",
        )?
        .query_map(
            params![since.as_millis(), MAX_COUNTED_ROWS, HOUR_MS],
            |row| {
                Ok(RefusedCount {
                    hour: hour(row)?,
                    reason: row.get(1)?,
                    count: row.get(2)?,
                })
            },
        )?
        .collect()
}
