//! Alarms and their notices.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows;
use crate::domain::Timestamp;
use crate::store::columns::row_limit;
use crate::store::limits::{RECENT_DOCUMENTS, RETENTION_BATCH};
use crate::store::{
    AlarmChanges, AlarmFilter, AlarmKind, AlarmNotice, AlarmObservation, AlarmRow, Finding,
    NoticeEnd, UnannouncedDocuments,
};

/// The columns that [`read`] reads.
const COLUMNS: &str =
    "id, kind, subject, text, raised_at, seen_at, ended_at, notify_at, attempts, last_error";

/// Reads an alarm; none if only a later version knows its kind.
fn read(row: &Row<'_>) -> rusqlite::Result<Option<AlarmRow>> {
    let Some(kind) = AlarmKind::parse(&row.get::<_, String>(1)?) else {
        return Ok(None);
    };
    Ok(Some(AlarmRow {
        id: row.get(0)?,
        kind,
        subject: row.get(2)?,
        text: row.get(3)?,
        raised_at: rows::timestamp(row, 4)?,
        seen_at: rows::timestamp(row, 5)?,
        ended_at: rows::optional_timestamp(row, 6)?,
        notify_at: rows::optional_timestamp(row, 7)?,
        attempts: row.get(8)?,
        last_error: row.get(9)?,
    }))
}

/// Raises, continues and ends alarms according to `observation`.
pub(super) fn update(
    connection: &Connection,
    observation: &AlarmObservation,
) -> rusqlite::Result<AlarmChanges> {
    let mut changes = AlarmChanges::default();
    for finding in &observation.found {
        changes
            .raised
            .extend(record_finding(connection, observation, finding)?);
    }
    let active = AlarmFilter {
        active: true,
        after: 0,
        limit: usize::MAX,
    };
    for alarm in list(connection, &active)? {
        if observation.ends(alarm.kind, &alarm.subject, alarm.seen_at) {
            changes
                .ended
                .extend(end_alarm(connection, observation, alarm.id)?);
        }
    }
    Ok(changes)
}

/// Records a problem; returns the alarm if this raised it.
fn record_finding(
    connection: &Connection,
    observation: &AlarmObservation,
    finding: &Finding,
) -> rusqlite::Result<Option<AlarmRow>> {
    let now = observation.now.as_millis();
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
    let notify_at = observation.notify.then_some(now);
    connection
        .prepare_cached(&format!(
            "INSERT INTO alarm (kind, subject, text, raised_at, seen_at, notify_at)
             VALUES (?1, ?2, ?3, ?4, ?4, ?5) RETURNING {COLUMNS}"
        ))?
        .query_row(
            params![kind, finding.subject, finding.text, now, notify_at],
            read,
        )
}

fn end_alarm(
    connection: &Connection,
    observation: &AlarmObservation,
    id: i64,
) -> rusqlite::Result<Option<AlarmRow>> {
    let now = observation.now.as_millis();
    // The end is announced only to those who were sent the beginning.
    let ended = connection
        .prepare_cached(&format!(
            "UPDATE alarm SET ended_at = ?2,
                 notify_at = CASE WHEN ?3 AND notified = 1 THEN coalesce(notify_at, ?2) ELSE notify_at END
             WHERE id = ?1 AND ended_at IS NULL RETURNING {COLUMNS}"
        ))?
        .query_row(params![id, now, observation.notify], read)
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

/// Leases the alarm whose notice is due first.
pub(super) fn lease_notice(
    connection: &Connection,
    now: Timestamp,
    lease: Duration,
) -> rusqlite::Result<Option<AlarmNotice>> {
    let leased = connection
        .prepare_cached(&format!(
            "UPDATE alarm SET notify_at = ?2, fence = fence + 1
             WHERE id = (SELECT id FROM alarm WHERE notify_at <= ?1 ORDER BY notify_at, id LIMIT 1)
             RETURNING {COLUMNS}, notified, fence"
        ))?
        .query_row(
            params![now.as_millis(), now.after(lease).as_millis()],
            |row| {
                let (notified, fence): (i64, i64) = (row.get(10)?, row.get(11)?);
                Ok(read(row)?.map(|alarm| AlarmNotice {
                    alarm,
                    over: notified > 0,
                    fence,
                }))
            },
        )
        .optional()?;
    Ok(leased.flatten())
}

/// Records how sending a notice ended; returns false if another process has leased it.
pub(super) fn end_notice(
    connection: &Connection,
    notice: &AlarmNotice,
    end: &NoticeEnd,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let (id, fence) = (notice.alarm.id, notice.fence);
    let changed = match end {
        NoticeEnd::TryAgain { at, error } => connection.execute(
            "UPDATE alarm SET notify_at = ?3, attempts = attempts + 1, last_error = ?4
             WHERE id = ?1 AND fence = ?2",
            params![id, fence, at.as_millis(), error],
        )?,
        NoticeEnd::Sent => finish_notice(connection, id, fence, now, None)?,
        NoticeEnd::GivenUp { error } => finish_notice(connection, id, fence, now, Some(error))?,
    };
    Ok(changed > 0)
}

/// Completes a notice; that of the alarm's end is due at once if it has ended.
fn finish_notice(
    connection: &Connection,
    id: i64,
    fence: i64,
    now: Timestamp,
    error: Option<&str>,
) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE alarm SET notified = notified + 1, attempts = 0, last_error = ?4,
             notify_at = CASE WHEN notified = 0 AND ended_at IS NOT NULL THEN ?3 END
         WHERE id = ?1 AND fence = ?2",
        params![id, fence, now.as_millis(), error],
    )
}

/// Removes alarms that ended before this moment.
pub(super) fn retain(connection: &Connection, before: Timestamp) -> rusqlite::Result<usize> {
    connection.execute(
        "DELETE FROM alarm WHERE id IN (
             SELECT id FROM alarm WHERE ended_at < ?1 ORDER BY id LIMIT ?2)",
        params![before.as_millis(), RETENTION_BATCH],
    )
}

/// Counts documents, stored by `stored_by`, that no notification announced since the last one.
pub(super) fn unannounced_documents(
    connection: &Connection,
    stored_by: Timestamp,
) -> rusqlite::Result<Vec<UnannouncedDocuments>> {
    connection
        .prepare_cached(
            "WITH announced AS (
                 SELECT f.account_id, f.queue, max(coalesce(w.again_at, w.due_at)) AS at
                 FROM feed f LEFT JOIN feed_trigger w ON w.feed_id = f.id AND w.kind = 0
                 GROUP BY f.account_id, f.queue),
             recent AS (SELECT feed_id, version_ms, first_pull, found_by, stored_at
                 FROM document ORDER BY sequence DESC LIMIT ?2)
             SELECT a.name, f.queue, announced.at, count(*)
             FROM recent d JOIN feed f ON f.id = d.feed_id JOIN account a ON a.id = f.account_id
                 JOIN announced ON announced.account_id = f.account_id AND announced.queue = f.queue
             WHERE d.found_by IN (1, 2, 3) AND NOT d.first_pull AND d.stored_at <= ?1
                 AND d.version_ms > coalesce(announced.at, 0)
             GROUP BY a.name, f.queue, announced.at ORDER BY a.name, f.queue",
        )?
        .query_map(params![stored_by.as_millis(), RECENT_DOCUMENTS], |row| {
            Ok(UnannouncedDocuments {
                account: rows::account(row, 0)?,
                queue: rows::queue(row, 1)?,
                notified_at: rows::optional_timestamp(row, 2)?,
                documents: row.get(3)?,
            })
        })?
        .collect()
}
