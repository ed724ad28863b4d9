//! Counts that many transactions raise.
//!
//! On PostgreSQL a count has several rows, one of which a transaction raises: those of other
//! connections seldom wait for it. Their sum is the count.

use std::collections::BTreeMap;

use super::engine::{Column, Fragment, Sql, Tx, params, scalars};
use super::error::Result;
use crate::domain::Timestamp;

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tally {
    /// Accepted messages, by hour.
    Accepted,
    /// Stored versions, by hour.
    Documents,
    /// Feeds that were ever added.
    Feeds,
    /// Versions that no notification announced.
    MissedNotifications,
}

impl Tally {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Documents => "documents",
            Self::Feeds => "feeds",
            Self::MissedNotifications => "missed_notifications",
        }
    }
}

scalars! { Tally: Text, what => what.as_str(); }

/// The `hour` of a count in all.
const IN_ALL: i64 = 0;

/// The row of a count that this transaction raises.
pub(super) const PART: Fragment = Fragment::Differs("0", "pg_backend_pid() % 16");

/// Adds to a count `t` that has a row.
pub(super) const ADD: Fragment =
    Fragment::Same("ON CONFLICT (what, hour, part) DO UPDATE SET count = t.count + excluded.count");

/// Raises a count: what $1, hour $2, by $3.
pub(super) static RAISE: Sql = Sql::with(
    "INSERT INTO tally AS t (what, hour, part, count) VALUES ($1, $2, {part}, $3) {add}",
    &[("part", PART), ("add", ADD)],
);

async fn raise<T: Tx>(tx: &T, what: Tally, hour: i64, count: usize) -> Result<()> {
    match count {
        0 => Ok(()),
        _ => tx.run(&RAISE, params! { what, hour, count }).await,
    }
}

/// Raises a count in all.
pub(super) async fn count<T: Tx>(tx: &T, what: Tally, more: usize) -> Result<()> {
    raise(tx, what, IN_ALL, more).await
}

/// Raises the counts of the hours of these moments. It must be among the last statements: other
/// transactions may wait from here on.
pub(super) async fn count_by_hour<T: Tx>(
    tx: &T,
    what: Tally,
    moments: impl IntoIterator<Item = Timestamp> + Send,
) -> Result<()> {
    // In their order, which prevents deadlocks.
    for (hour, count) in by_hour(moments) {
        raise(tx, what, hour, count).await?;
    }
    Ok(())
}

/// Returns how many of these moments are in each hour.
pub(super) fn by_hour(moments: impl IntoIterator<Item = Timestamp>) -> BTreeMap<i64, usize> {
    let mut hours = BTreeMap::new();
    for moment in moments {
        *hours.entry(moment.hour().as_millis()).or_default() += 1;
    }
    hours
}

/// Returns a count in all.
pub(super) async fn counted<T: Tx>(tx: &T, what: Tally) -> Result<u64> {
    static SQL: Sql = Sql::new(
        "SELECT coalesce(CAST(sum(count) AS BIGINT), 0) FROM tally WHERE what = $1 AND hour = $2",
    );
    tx.one(&SQL, &[&what, &IN_ALL]).await
}

/// Returns the counts of hours that begin at `since` or later.
pub(super) async fn counted_by_hour<T: Tx, C: Column + Send>(
    tx: &T,
    what: Tally,
    since: Timestamp,
) -> Result<Vec<C>> {
    static SQL: Sql = Sql::new(
        "SELECT hour, CAST(sum(count) AS BIGINT) FROM tally WHERE what = $1 AND hour >= $2 AND hour > 0
         GROUP BY hour ORDER BY hour",
    );
    tx.all(&SQL, &[&what, &since]).await
}

/// Removes the counts of hours before `before`.
pub(super) async fn remove_old_tallies<T: Tx>(tx: &T, before: Timestamp) -> Result<()> {
    static SQL: Sql =
        Sql::new("DELETE FROM tally WHERE what IN ($1, $2) AND hour > 0 AND hour < $3");
    tx.run(&SQL, params! { Tally::Accepted, Tally::Documents, before })
        .await
}
