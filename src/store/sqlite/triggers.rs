//! Raising triggers, and merging several into one.

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::feed_id;
use crate::domain::{Cursor, Timestamp};
use crate::store::columns::kind_code;
use crate::store::{Trigger, TriggerKind};

/// Raises triggers, adding feeds that are not known yet.
pub(super) fn trigger(connection: &Connection, triggers: &[Trigger]) -> rusqlite::Result<()> {
    for trigger in triggers {
        let feed = feed_id(connection, &trigger.feed, trigger.due_at)?;
        raise(connection, feed, trigger.kind, trigger.due_at)?;
        if trigger.kind == TriggerKind::Backfill {
            start_backfill(connection, feed, trigger.from.as_ref())?;
        }
    }
    Ok(())
}

/// Triggers a backfill from the feed's beginning, unless a backfill is pending already.
pub(super) fn backfill_from_beginning(
    connection: &Connection,
    feed: i64,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let kind = kind_code(TriggerKind::Backfill);
    let raised: Option<i64> = connection
        .prepare_cached("SELECT raised FROM feed_trigger WHERE feed_id = ?1 AND kind = ?2")?
        .query_row(params![feed, kind], |row| row.get(0))
        .optional()?;
    if raised.unwrap_or(0) > completed(connection, feed, TriggerKind::Backfill)? {
        return Ok(());
    }
    raise(connection, feed, TriggerKind::Backfill, now)?;
    start_backfill(connection, feed, None)
}

fn start_backfill(
    connection: &Connection,
    feed: i64,
    from: Option<&Cursor>,
) -> rusqlite::Result<()> {
    // A page in flight of an earlier backfill must not set this one's position.
    connection.execute(
        "UPDATE feed SET fence = fence + 1, leased_until = NULL WHERE id = ?1",
        params![feed],
    )?;
    connection.execute(
        "INSERT INTO feed_pull (feed_id, kind, position) VALUES (?1, ?2, ?3)
         ON CONFLICT (feed_id, kind) DO UPDATE SET target = NULL, position = excluded.position",
        params![
            feed,
            kind_code(TriggerKind::Backfill),
            from.map(Cursor::as_str)
        ],
    )?;
    Ok(())
}

/// Makes every feed due for reconciliation at `due_at`, unless it is due sooner.
pub(super) fn trigger_reconciliation(
    connection: &Connection,
    due_at: Timestamp,
) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE feed_trigger SET due_at = min(due_at, ?2) WHERE kind = ?1",
        params![kind_code(TriggerKind::Reconciliation), due_at.as_millis()],
    )
}

/// Raises one trigger.
///
/// A notification or a backfill always counts, even during a pull, as it may announce
/// something newer. Of the other kinds one is pending at a time, at the sooner time; a
/// follow-up requested for a later time is kept for another pull.
pub(super) fn raise(
    connection: &Connection,
    feed: i64,
    kind: TriggerKind,
    due_at: Timestamp,
) -> rusqlite::Result<()> {
    let on_conflict = match kind {
        TriggerKind::Notification | TriggerKind::Backfill => "raised = raised + 1, due_at = excluded.due_at",
        TriggerKind::FollowUp | TriggerKind::LateFollowUp => {
            "raised = CASE WHEN raised > ?4 THEN raised ELSE raised + 1 END,
             due_at = CASE WHEN raised > ?4 THEN min(due_at, excluded.due_at) ELSE excluded.due_at END,
             again_at = CASE WHEN raised > ?4 THEN max(coalesce(again_at, due_at), excluded.due_at) END"
        }
        TriggerKind::Reconciliation => {
            "raised = CASE WHEN raised > ?4 THEN raised ELSE raised + 1 END,
             due_at = CASE WHEN raised > ?4 THEN min(due_at, excluded.due_at) ELSE excluded.due_at END"
        }
    };
    connection
        .prepare_cached(&format!(
            "INSERT INTO feed_trigger (feed_id, kind, raised, due_at) SELECT ?1, ?2, ?4 + 1, ?3 WHERE true
             ON CONFLICT (feed_id, kind) DO UPDATE SET {on_conflict}"
        ))?
        .execute(params![feed, kind_code(kind), due_at.as_millis(), completed(connection, feed, kind)?])?;
    Ok(())
}

fn completed(connection: &Connection, feed: i64, kind: TriggerKind) -> rusqlite::Result<i64> {
    let completed = connection
        .prepare_cached("SELECT completed FROM feed_pull WHERE feed_id = ?1 AND kind = ?2")?
        .query_row(params![feed, kind_code(kind)], |row| row.get(0))
        .optional()?;
    Ok(completed.unwrap_or(0))
}
