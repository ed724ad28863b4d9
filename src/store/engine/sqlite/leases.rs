//! Leasing feeds: the most urgent one, and the position of its pull.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::error::explain;
use super::rows;
use crate::domain::{Cursor, Feed, Timestamp};
use crate::store::columns::kind_code;
use crate::store::pulls::{self, SavedCursor, position_kind};
use crate::store::{LeaseRequest, PageLease, Position, StoreError, TriggerKind};

/// Pending triggers. Paused feeds and accounts are retried when their wait is over, except
/// those that need a person.
const PENDING: &str = "
    FROM feed_trigger d
    JOIN feed f ON f.id = d.feed_id
    JOIN account a ON a.id = f.account_id
    LEFT JOIN feed_pull r ON r.feed_id = d.feed_id AND r.kind = d.kind
    WHERE d.raised > coalesce(r.completed, 0)
      AND coalesce(f.paused, '') NOT IN ('by_hand', 'company_filter_ignored')
      AND coalesce(a.paused, '') <> 'by_hand'";

/// Returns the condition for feeds that this process can pull. Quoting is not needed:
/// account names hold no quotes.
fn pullable(request: &LeaseRequest) -> String {
    let queues: Vec<String> = request
        .queues
        .iter()
        .map(|(account, queue)| format!("('{account}', '{queue}')"))
        .collect();
    format!(
        " AND (a.name, f.queue) IN (VALUES {})",
        match queues.is_empty() {
            true => "(NULL, NULL)".to_owned(),
            false => queues.join(", "),
        }
    )
}

struct FeedCandidate {
    feed_id: i64,
    feed: Feed,
    kind: TriggerKind,
    raised: i64,
    in_progress: bool,
    cursor: Option<Cursor>,
    first_pull: bool,
    feed_failures: u32,
    account_failures: u32,
    key_at_fault: bool,
}

/// Leases the most urgent feed that may be pulled now; its pull starts or continues.
pub(super) fn lease(
    connection: &Connection,
    request: &LeaseRequest,
) -> rusqlite::Result<Option<PageLease>> {
    let Some(candidate) = most_urgent(connection, request)? else {
        return Ok(None);
    };
    let position = start_or_resume(connection, request, &candidate)?;
    let fence: i64 = connection
        .prepare_cached(
            "UPDATE feed SET fence = fence + 1, leased_until = ?2, last_leased_at = ?3 WHERE id = ?1 RETURNING fence",
        )?
        .query_row(
            params![
                candidate.feed_id,
                request.now.after(request.lease).as_millis(),
                request.now.as_millis()
            ],
            |row| row.get(0),
        )?;
    Ok(Some(PageLease {
        feed_id: candidate.feed_id,
        feed: candidate.feed,
        kind: candidate.kind,
        fence,
        position,
        first_pull: candidate.first_pull,
        feed_failures: candidate.feed_failures,
        account_failures: candidate.account_failures,
        key_at_fault: candidate.key_at_fault,
    }))
}

fn most_urgent(
    connection: &Connection,
    request: &LeaseRequest,
) -> rusqlite::Result<Option<FeedCandidate>> {
    let sql = format!(
        "SELECT f.id, a.name, f.queue, f.company, d.kind, d.raised, r.target IS NOT NULL, f.cursor,
                f.first_complete_at IS NULL, f.failures, a.failures,
                (f.last_page_at IS NOT NULL OR NOT EXISTS
                     (SELECT 1 FROM feed w WHERE w.account_id = a.id AND w.last_page_at IS NOT NULL))
         {PENDING} {}
           AND d.due_at <= ?1
           AND coalesce(f.leased_until, 0) <= ?1
           AND coalesce(f.waits_until, 0) <= ?1
           AND coalesce(a.waits_until, 0) <= ?1
           AND (SELECT count(*) FROM feed busy WHERE busy.account_id = a.id AND busy.leased_until > ?1) < ?2
         ORDER BY d.kind, f.last_leased_at, f.id
         LIMIT 1",
        pullable(request)
    );
    connection
        .prepare_cached(&sql)?
        .query_row(
            params![request.now.as_millis(), request.requests_per_account],
            |row| {
                Ok(FeedCandidate {
                    feed_id: row.get(0)?,
                    feed: rows::feed(row, 1)?,
                    kind: rows::kind(row, 4)?,
                    raised: row.get(5)?,
                    in_progress: row.get(6)?,
                    cursor: row.get::<_, Option<String>>(7)?.map(Cursor::new),
                    first_pull: row.get(8)?,
                    feed_failures: row.get(9)?,
                    account_failures: row.get(10)?,
                    key_at_fault: row.get(11)?,
                })
            },
        )
        .optional()
}

/// Returns the position of the pull; a new pull is recorded first.
fn start_or_resume(
    connection: &Connection,
    request: &LeaseRequest,
    candidate: &FeedCandidate,
) -> rusqlite::Result<Position> {
    let position_kind = position_kind(candidate.kind, candidate.first_pull);
    let stored = position(connection, candidate.feed_id, position_kind)?;
    if candidate.in_progress {
        return Ok(stored);
    }
    let start = match candidate.kind {
        // Set when it was requested.
        TriggerKind::Backfill => stored.from,
        // Another kind may have begun the first pull.
        _ if candidate.first_pull => stored.from.or_else(|| candidate.cursor.clone()),
        kind if kind.overlaps() => pulls::overlap_start(
            saved_cursors(connection, candidate.feed_id)?,
            last_overlap_read(connection, candidate.feed_id, request.now)?.before(request.lookback),
        ),
        _ => candidate.cursor.clone(),
    };
    let position = Position {
        from: start,
        ..Position::default()
    };
    connection
        .prepare_cached(
            "INSERT INTO feed_pull (feed_id, kind, target, started_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (feed_id, kind) DO UPDATE SET target = excluded.target, started_at = excluded.started_at",
        )?
        .execute(params![
            candidate.feed_id,
            kind_code(candidate.kind),
            candidate.raised,
            request.now.as_millis(),
        ])?;
    save_position(connection, candidate.feed_id, position_kind, &position)?;
    Ok(position)
}

fn position(connection: &Connection, feed: i64, kind: TriggerKind) -> rusqlite::Result<Position> {
    let stored = connection
        .prepare_cached(
            "SELECT position, previous_next, previous_entries FROM feed_pull WHERE feed_id = ?1 AND kind = ?2",
        )?
        .query_row(params![feed, kind_code(kind)], |row| {
            Ok(Position {
                from: row.get::<_, Option<String>>(0)?.map(Cursor::new),
                previous_next: row.get::<_, Option<String>>(1)?.map(Cursor::new),
                previous_entries: row.get(2)?,
            })
        })
        .optional()?;
    Ok(stored.unwrap_or_default())
}

pub(super) fn save_position(
    connection: &Connection,
    feed: i64,
    kind: TriggerKind,
    position: &Position,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO feed_pull (feed_id, kind, position, previous_next, previous_entries) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (feed_id, kind) DO UPDATE SET position = excluded.position,
                 previous_next = excluded.previous_next, previous_entries = excluded.previous_entries",
        )?
        .execute(params![
            feed,
            kind_code(kind),
            position.from.as_ref().map(Cursor::as_str),
            position.previous_next.as_ref().map(Cursor::as_str),
            position.previous_entries,
        ])?;
    Ok(())
}

/// Returns the moment when the newest complete overlap read began; the first pull counts
/// as one.
///
/// Overlap reads go back from this moment, not from the present: versions may have been
/// listed late while the service was down.
pub(super) fn last_overlap_read(
    connection: &Connection,
    feed: i64,
    now: Timestamp,
) -> rusqlite::Result<Timestamp> {
    let began_at = connection
        .prepare_cached(
            "SELECT coalesce(
                 (SELECT max(started_at) FROM feed_pull
                  WHERE feed_id = ?1 AND kind IN (?2, ?3, ?4) AND target IS NULL),
                 (SELECT min(started_at) FROM feed_pull WHERE feed_id = ?1 AND kind <> ?5))",
        )?
        .query_row(
            params![
                feed,
                kind_code(TriggerKind::FollowUp),
                kind_code(TriggerKind::LateFollowUp),
                kind_code(TriggerKind::Reconciliation),
                kind_code(TriggerKind::Backfill),
            ],
            |row| rows::optional_timestamp(row, 0),
        )?;
    Ok(began_at.unwrap_or(now).min(now))
}

/// Returns the feed's saved cursors, newest first.
pub(super) fn saved_cursors(
    connection: &Connection,
    feed: i64,
) -> rusqlite::Result<Vec<SavedCursor>> {
    connection
        .prepare_cached(
            "SELECT saved_at, cursor FROM feed_cursor WHERE feed_id = ?1 ORDER BY saved_at DESC",
        )?
        .query_map(params![feed], |row| {
            Ok(SavedCursor {
                saved_at: rows::timestamp(row, 0)?,
                cursor: Cursor::new(row.get::<_, String>(1)?),
            })
        })?
        .collect()
}

/// Returns the moment when the next trigger is due; `None` if none is pending.
pub(super) fn next_due(
    connection: &Connection,
    request: &LeaseRequest,
) -> rusqlite::Result<Option<Timestamp>> {
    let sql = format!(
        "SELECT min(max(d.due_at, coalesce(f.waits_until, 0), coalesce(a.waits_until, 0), coalesce(f.leased_until, 0)))
         {PENDING} {}",
        pullable(request)
    );
    connection
        .prepare_cached(&sql)?
        .query_row([], |row| rows::optional_timestamp(row, 0))
}

/// Fails for a stale owner, after another worker leased the feed.
pub(super) fn check_fence(
    connection: &Connection,
    path: &Path,
    lease: &PageLease,
) -> Result<(), StoreError> {
    let fence: Option<i64> = connection
        .prepare_cached("SELECT fence FROM feed WHERE id = ?1")
        .and_then(|mut statement| {
            statement
                .query_row(params![lease.feed_id], |row| row.get(0))
                .optional()
        })
        .map_err(|error| explain(path, error))?;
    if fence == Some(lease.fence) {
        Ok(())
    } else {
        Err(StoreError::StaleLease)
    }
}

/// Releases at start the leases of a killed process.
pub(super) fn release_all(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE feed SET leased_until = NULL WHERE leased_until IS NOT NULL",
        [],
    )?;
    Ok(())
}
