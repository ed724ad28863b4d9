//! Wishes to pull: who raises them, and how several become one.

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::feed_id;
use crate::domain::{Cursor, Timestamp};
use crate::store::words::kind_code;
use crate::store::{Demand, PullKind};

/// Makes feeds known and raises pulls of them.
pub(super) fn demand(connection: &Connection, demands: &[Demand]) -> rusqlite::Result<()> {
    for demand in demands {
        let feed = feed_id(connection, &demand.feed, demand.due_at)?;
        raise(connection, feed, demand.kind, demand.due_at)?;
        if demand.kind == PullKind::Backfill {
            start_backfill(connection, feed, demand.from.as_ref())?;
        }
    }
    Ok(())
}

/// Reads a feed from its beginning, unless an old stretch of it is read already.
pub(super) fn read_from_beginning(
    connection: &Connection,
    feed: i64,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let kind = kind_code(PullKind::Backfill);
    let wanted: Option<i64> = connection
        .prepare_cached("SELECT wanted FROM feed_demand WHERE feed_id = ?1 AND kind = ?2")?
        .query_row(params![feed, kind], |row| row.get(0))
        .optional()?;
    if wanted.unwrap_or(0) > served(connection, feed, PullKind::Backfill)? {
        return Ok(());
    }
    raise(connection, feed, PullKind::Backfill, now)?;
    start_backfill(connection, feed, None)
}

fn start_backfill(
    connection: &Connection,
    feed: i64,
    from: Option<&Cursor>,
) -> rusqlite::Result<()> {
    // A page of an earlier backfill that is under way must not set this one's position.
    connection.execute(
        "UPDATE feed SET fence = fence + 1, leased_until = NULL WHERE id = ?1",
        params![feed],
    )?;
    connection.execute(
        "INSERT INTO feed_run (feed_id, kind, position) VALUES (?1, ?2, ?3)
         ON CONFLICT (feed_id, kind) DO UPDATE SET noted = NULL, position = excluded.position",
        params![
            feed,
            kind_code(PullKind::Backfill),
            from.map(Cursor::as_str)
        ],
    )?;
    Ok(())
}

/// Makes every feed due for reconciliation at `due_at`, if it is not sooner.
pub(super) fn demand_reconciliation(
    connection: &Connection,
    due_at: Timestamp,
) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE feed_demand SET due_at = min(due_at, ?2) WHERE kind = ?1",
        params![kind_code(PullKind::Reconciliation), due_at.as_millis()],
    )
}

/// Raises one wish.
///
/// A hint or a backfill always counts, also while a run is under way: it may speak of
/// something newer. Of the timed kinds one is pending at a time, at the sooner time;
/// a follow-up that is wished for later than that is kept for another run.
pub(super) fn raise(
    connection: &Connection,
    feed: i64,
    kind: PullKind,
    due_at: Timestamp,
) -> rusqlite::Result<()> {
    let on_conflict = match kind {
        PullKind::Hint | PullKind::Backfill => "wanted = wanted + 1, due_at = excluded.due_at",
        PullKind::FollowUp | PullKind::LateFollowUp => {
            "wanted = CASE WHEN wanted > ?4 THEN wanted ELSE wanted + 1 END,
             due_at = CASE WHEN wanted > ?4 THEN min(due_at, excluded.due_at) ELSE excluded.due_at END,
             again_at = CASE WHEN wanted > ?4 THEN max(coalesce(again_at, due_at), excluded.due_at) END"
        }
        PullKind::Reconciliation => {
            "wanted = CASE WHEN wanted > ?4 THEN wanted ELSE wanted + 1 END,
             due_at = CASE WHEN wanted > ?4 THEN min(due_at, excluded.due_at) ELSE excluded.due_at END"
        }
    };
    connection
        .prepare_cached(&format!(
            "INSERT INTO feed_demand (feed_id, kind, wanted, due_at) SELECT ?1, ?2, ?4 + 1, ?3 WHERE true
             ON CONFLICT (feed_id, kind) DO UPDATE SET {on_conflict}"
        ))?
        .execute(params![feed, kind_code(kind), due_at.as_millis(), served(connection, feed, kind)?])?;
    Ok(())
}

fn served(connection: &Connection, feed: i64, kind: PullKind) -> rusqlite::Result<i64> {
    let served = connection
        .prepare_cached("SELECT served FROM feed_run WHERE feed_id = ?1 AND kind = ?2")?
        .query_row(params![feed, kind_code(kind)], |row| row.get(0))
        .optional()?;
    Ok(served.unwrap_or(0))
}
