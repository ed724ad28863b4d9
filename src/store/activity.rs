//! Counts of what arrived recently, by hour.

use super::engine::{Sql, Tx, operations, rows};
use super::error::Result;
use super::tallies::{Tally, counted_by_hour};
use crate::domain::Timestamp;

/// Milliseconds of an hour.
const HOUR_MS: i64 = 60 * 60 * 1000;

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
/// Counted with what is stored, so the same after a restart and on every replica. Messages that are
/// not stored are not counted: duplicates, and refused ones that the quarantine did not keep.
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

async fn activity<T: Tx>(tx: &T, since: Timestamp) -> Result<Activity> {
    static REFUSED: Sql = Sql::new(
        "SELECT received_at / $2 * $2, reason, count(*)
         FROM quarantine WHERE received_at >= $1 GROUP BY 1, 2 ORDER BY 1, reason{bytewise}",
    );
    Ok(Activity {
        accepted: counted_by_hour(tx, Tally::Accepted, since).await?,
        refused: tx.all(&REFUSED, &[&since, &HOUR_MS]).await?,
        documents: counted_by_hour(tx, Tally::Documents, since).await?,
    })
}
