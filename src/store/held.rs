//! The numbers of versions that lanes hold as history.
//!
//! A worker counts what its lane passes. What ends that is taken off here: a newer version, an
//! erasure, and what a person decides about it. What a person stops is added.

use super::engine::{Sql, Tx};
use super::error::Result;

/// Takes versions off the numbers that lanes hold as history, those of one destination or of all: to be
/// called before their deliveries or documents change. Locks the deliveries that are not settled, and then the lanes.
#[expect(
    clippy::ptr_arg,
    reason = "only a type with a size is a value of a statement"
)]
pub(super) async fn lower<T: Tx>(
    tx: &T,
    destination: Option<i64>,
    versions: &Vec<i64>,
) -> Result<()> {
    // Those that a worker or a person may change to or from `held`. Retention locks the others, after their
    // document.
    static DELIVERIES: Sql = Sql::new(
        "SELECT 1 FROM delivery WHERE sequence IN ({elements}($1)) AND ($2 IS NULL OR destination_id = $2)
             AND state IN ('pending', 'deferred', 'waiting_file', 'held', 'rejected')
         ORDER BY destination_id, sequence{lock_rows}",
    );
    static LANES: Sql = Sql::new(
        "SELECT 1 FROM lane WHERE ($2 IS NULL OR destination_id = $2)
             AND feed_id IN (SELECT feed_id FROM document WHERE sequence IN ({elements}($1)))
         ORDER BY destination_id, feed_id{lock_rows}",
    );
    static LOWER: Sql = Sql::new(
        "UPDATE lane AS l SET held = {greatest}(l.held - c.versions, 0) FROM (
             SELECT p.destination_id, p.feed_id, count(*) AS versions
             FROM document d {then_join} lane p ON p.feed_id = d.feed_id AND p.position >= d.sequence
             LEFT JOIN delivery h ON h.destination_id = p.destination_id AND h.sequence = d.sequence
             WHERE d.sequence IN ({elements}($1)) AND ($2 IS NULL OR p.destination_id = $2)
                 AND NOT d.superseded AND d.body IS NOT NULL AND coalesce(h.state, 'held') = 'held'
             GROUP BY p.destination_id, p.feed_id) AS c
         WHERE l.destination_id = c.destination_id AND l.feed_id = c.feed_id",
    );
    if versions.is_empty() {
        return Ok(());
    }
    tx.all::<()>(&DELIVERIES, &[versions, &destination]).await?;
    tx.all::<()>(&LANES, &[versions, &destination]).await?;
    tx.run(&LOWER, &[versions, &destination]).await
}

/// Adds versions whose deliveries are held from now on to the numbers of the lanes of a destination that
/// have passed them.
#[expect(
    clippy::ptr_arg,
    reason = "only a type with a size is a value of a statement"
)]
pub(super) async fn raise<T: Tx>(tx: &T, destination: i64, versions: &Vec<i64>) -> Result<()> {
    static SQL: Sql = Sql::new(
        "UPDATE lane AS l SET held = l.held + c.versions FROM (
             SELECT p.destination_id, p.feed_id, count(*) AS versions
             FROM document d {then_join} lane p ON p.destination_id = $1 AND p.feed_id = d.feed_id
                 AND p.position >= d.sequence
             WHERE d.sequence IN ({elements}($2)) AND NOT d.superseded AND d.body IS NOT NULL
             GROUP BY p.destination_id, p.feed_id) AS c
         WHERE l.destination_id = c.destination_id AND l.feed_id = c.feed_id",
    );
    match versions.is_empty() {
        true => Ok(()),
        false => tx.run(&SQL, &[&destination, versions]).await,
    }
}
