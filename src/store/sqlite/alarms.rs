//! Alarms and their telling.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows;
use crate::domain::Timestamp;
use crate::store::words::{LATELY_STORED, RETENTION_STEP, row_limit};
use crate::store::{
    AlarmChanges, AlarmFilter, AlarmKind, AlarmNotice, AlarmObservation, AlarmRow, Finding,
    NoticeEnd, UnannouncedDocuments,
};

/// The columns that [`read`] takes.
const COLUMNS: &str =
    "id, kind, subject, text, raised_at, seen_at, ended_at, tell_at, attempts, last_error";

/// An alarm; none where its kind is a later version's.
fn read(row: &Row<'_>) -> rusqlite::Result<Option<AlarmRow>> {
    let Some(kind) = AlarmKind::parse(&row.get::<_, String>(1)?) else {
        return Ok(None);
    };
    Ok(Some(AlarmRow {
        id: row.get(0)?,
        kind,
        subject: row.get(2)?,
        text: row.get(3)?,
        raised_at: rows::moment(row, 4)?,
        seen_at: rows::moment(row, 5)?,
        ended_at: rows::maybe_moment(row, 6)?,
        tell_at: rows::maybe_moment(row, 7)?,
        attempts: row.get(8)?,
        last_error: row.get(9)?,
    }))
}

/// Begins, goes on with and ends alarms as `look` found things.
pub(super) fn note(
    connection: &Connection,
    look: &AlarmObservation,
) -> rusqlite::Result<AlarmChanges> {
    let mut changes = AlarmChanges::default();
    for finding in &look.found {
        changes.raised.extend(see(connection, look, finding)?);
    }
    let on = AlarmFilter {
        active: true,
        after: 0,
        limit: usize::MAX,
    };
    for alarm in list(connection, &on)? {
        if look.ends(alarm.kind, &alarm.subject, alarm.seen_at) {
            changes.ended.extend(end(connection, look, alarm.id)?);
        }
    }
    Ok(changes)
}

/// Notes that something is wrong; gives the alarm where that begins it.
fn see(
    connection: &Connection,
    look: &AlarmObservation,
    finding: &Finding,
) -> rusqlite::Result<Option<AlarmRow>> {
    let now = look.now.as_millis();
    let kind = finding.kind.as_str();
    let known = connection
        .prepare_cached(
            "UPDATE alarm SET seen_at = max(seen_at, ?3)
             WHERE kind = ?1 AND subject = ?2 AND ended_at IS NULL",
        )?
        .execute(params![kind, finding.subject, now])?;
    if known > 0 {
        return Ok(None);
    }
    let tell_at = look.tell.then_some(now);
    connection
        .prepare_cached(&format!(
            "INSERT INTO alarm (kind, subject, text, raised_at, seen_at, tell_at)
             VALUES (?1, ?2, ?3, ?4, ?4, ?5) RETURNING {COLUMNS}"
        ))?
        .query_row(
            params![kind, finding.subject, finding.text, now, tell_at],
            read,
        )
}

fn end(
    connection: &Connection,
    look: &AlarmObservation,
    id: i64,
) -> rusqlite::Result<Option<AlarmRow>> {
    let now = look.now.as_millis();
    // Whoever was not told of its beginning is not told of its end.
    let ended = connection
        .prepare_cached(&format!(
            "UPDATE alarm SET ended_at = ?2,
                 tell_at = CASE WHEN ?3 AND told = 1 THEN coalesce(tell_at, ?2) ELSE tell_at END
             WHERE id = ?1 AND ended_at IS NULL RETURNING {COLUMNS}"
        ))?
        .query_row(params![id, now, look.tell], read)
        .optional()?;
    Ok(ended.flatten())
}

pub(super) fn list(
    connection: &Connection,
    filter: &AlarmFilter,
) -> rusqlite::Result<Vec<AlarmRow>> {
    let rows: rusqlite::Result<Vec<_>> = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM alarm WHERE id > ?1 AND (NOT ?2 OR ended_at IS NULL)
             ORDER BY id LIMIT ?3"
        ))?
        .query_map(
            params![filter.after, filter.active, row_limit(filter.limit)],
            read,
        )?
        .collect();
    Ok(rows?.into_iter().flatten().collect())
}

/// Takes the alarm that is to be told first, for so long.
pub(super) fn lease_notice(
    connection: &Connection,
    now: Timestamp,
    lease: Duration,
) -> rusqlite::Result<Option<AlarmNotice>> {
    let leased = connection
        .prepare_cached(&format!(
            "UPDATE alarm SET tell_at = ?2, fence = fence + 1
             WHERE id = (SELECT id FROM alarm WHERE tell_at <= ?1 ORDER BY tell_at, id LIMIT 1)
             RETURNING {COLUMNS}, told, fence"
        ))?
        .query_row(
            params![now.as_millis(), now.after(lease).as_millis()],
            |row| {
                let (told, fence): (i64, i64) = (row.get(10)?, row.get(11)?);
                Ok(read(row)?.map(|alarm| AlarmNotice {
                    alarm,
                    over: told > 0,
                    fence,
                }))
            },
        )
        .optional()?;
    Ok(leased.flatten())
}

/// Notes how telling ended; false where another process has taken it over.
pub(super) fn end_notice(
    connection: &Connection,
    notice: &AlarmNotice,
    end: &NoticeEnd,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let (id, fence) = (notice.alarm.id, notice.fence);
    let changed = match end {
        NoticeEnd::TryAgain { at, error } => connection.execute(
            "UPDATE alarm SET tell_at = ?3, attempts = attempts + 1, last_error = ?4
             WHERE id = ?1 AND fence = ?2",
            params![id, fence, at.as_millis(), error],
        )?,
        NoticeEnd::Told => told(connection, id, fence, now, None)?,
        NoticeEnd::GivenUp { error } => told(connection, id, fence, now, Some(error))?,
    };
    Ok(changed > 0)
}

/// Goes on from its beginning to its end, if that has come.
fn told(
    connection: &Connection,
    id: i64,
    fence: i64,
    now: Timestamp,
    error: Option<&str>,
) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE alarm SET told = told + 1, attempts = 0, last_error = ?4,
             tell_at = CASE WHEN told = 0 AND ended_at IS NOT NULL THEN ?3 END
         WHERE id = ?1 AND fence = ?2",
        params![id, fence, now.as_millis(), error],
    )
}

/// Removes alarms that were over before this moment.
pub(super) fn retain(connection: &Connection, before: Timestamp) -> rusqlite::Result<usize> {
    connection.execute(
        "DELETE FROM alarm WHERE id IN (
             SELECT id FROM alarm WHERE ended_at < ?1 ORDER BY id LIMIT ?2)",
        params![before.as_millis(), RETENTION_STEP],
    )
}

/// Documents, stored by `stored_by`, that no notification has told of since the last one.
pub(super) fn unannounced_documents(
    connection: &Connection,
    stored_by: Timestamp,
) -> rusqlite::Result<Vec<UnannouncedDocuments>> {
    connection
        .prepare_cached(
            "WITH told AS (
                 SELECT f.account_id, f.queue, max(coalesce(w.again_at, w.due_at)) AS at
                 FROM feed f LEFT JOIN feed_trigger w ON w.feed_id = f.id AND w.kind = 0
                 GROUP BY f.account_id, f.queue),
             lately AS (SELECT feed_id, version_ms, first_pull, found_by, stored_at
                 FROM document ORDER BY sequence DESC LIMIT ?2)
             SELECT a.name, f.queue, told.at, count(*)
             FROM lately d JOIN feed f ON f.id = d.feed_id JOIN account a ON a.id = f.account_id
                 JOIN told ON told.account_id = f.account_id AND told.queue = f.queue
             WHERE d.found_by IN (1, 2, 3) AND NOT d.first_pull AND d.stored_at <= ?1
                 AND d.version_ms > coalesce(told.at, 0)
             GROUP BY a.name, f.queue, told.at ORDER BY a.name, f.queue",
        )?
        .query_map(params![stored_by.as_millis(), LATELY_STORED], |row| {
            Ok(UnannouncedDocuments {
                account: rows::account(row, 0)?,
                queue: rows::queue(row, 1)?,
                notified_at: rows::maybe_moment(row, 2)?,
                documents: row.get(3)?,
            })
        })?
        .collect()
}
