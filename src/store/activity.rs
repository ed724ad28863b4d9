//! Counts of what arrived recently, by hour.

use super::engine::{Fragment, Param, Sql, Tx, operations, rows};
use super::error::Result;
use crate::domain::Timestamp;

/// Milliseconds of an hour.
const HOUR_MS: i64 = 60 * 60 * 1000;

/// Number of newest rows of each kind among which are those that are counted.
const MAX_COUNTED_ROWS: i64 = 100_000;

/// The count of one hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HourCount {
    /// The start of the hour.
    pub hour: Timestamp,
    /// The number of rows.
    pub count: u64,
}

/// The number of messages that one hour refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedCount {
    /// The start of the hour.
    pub hour: Timestamp,
    /// [`crate::refusal::Refusal::code`].
    pub reason: String,
    /// The number of messages.
    pub count: u64,
}

/// Counts since a moment, by hours in ascending order; hours without any are left out.
///
/// Counted from rows, so the same after a restart and on every replica. Messages without
/// a row are not counted: duplicates, and refused ones that the quarantine did not keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Accepted messages.
    pub accepted: Vec<HourCount>,
    /// Refused messages in the quarantine.
    pub refused: Vec<RefusedCount>,
    /// Stored versions of documents.
    pub documents: Vec<HourCount>,
}

operations! {
    /// Counts what arrived since a moment, by hour.
    pub read activity(since: Timestamp) -> Activity;
}

rows! {
    HourCount { hour, count }
    RefusedCount { hour, reason, count }
}

/// Counts the rows of a table by hour. They are numbered in the order of time, on
/// PostgreSQL nearly so, and the newest are read first.
const HOURS: &str = "
    SELECT at / $3 * $3, count(*) FROM (SELECT {moment} AS at FROM {table}
        WHERE {number} > (SELECT max({number}) FROM {table}) - $2) AS newest
    WHERE at >= $1 GROUP BY 1 ORDER BY 1";

async fn activity<T: Tx>(tx: &mut T, since: Timestamp) -> Result<Activity> {
    static ACCEPTED: Sql = Sql::with(
        HOURS,
        &[
            ("moment", Fragment::Same("received_at")),
            ("table", Fragment::Same("notification")),
            ("number", Fragment::Same("id")),
        ],
    );
    static REFUSED: Sql = Sql::new(
        "SELECT received_at / $3 * $3, reason, count(*)
         FROM quarantine
         WHERE id > (SELECT max(id) FROM quarantine) - $2 AND received_at >= $1 GROUP BY 1, 2 ORDER BY 1, reason{bytewise}",
    );
    static DOCUMENTS: Sql = Sql::with(
        HOURS,
        &[
            ("moment", Fragment::Same("stored_at")),
            ("table", Fragment::Same("document")),
            ("number", Fragment::Same("sequence")),
        ],
    );
    let params: [&dyn Param; 3] = [&since, &MAX_COUNTED_ROWS, &HOUR_MS];
    Ok(Activity {
        accepted: tx.all(&ACCEPTED, &params).await?,
        refused: tx.all(&REFUSED, &params).await?,
        documents: tx.all(&DOCUMENTS, &params).await?,
    })
}
