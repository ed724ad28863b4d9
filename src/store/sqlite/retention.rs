//! Forgetting what is too old, a bounded part at a time.

use rusqlite::{Connection, params};

use crate::domain::Timestamp;
use crate::store::words::RETENTION_STEP;

/// Removes the bodies of a step's worth of old notifications, from where the last step ended.
pub(super) fn remove_notification_bodies(
    connection: &Connection,
    before: Timestamp,
) -> rusqlite::Result<usize> {
    let newest: Option<i64> = connection.query_row(
        "SELECT max(id) FROM (
             SELECT id, received_at FROM notification
             WHERE id > (SELECT notification_id FROM retention) ORDER BY id LIMIT ?2)
         WHERE received_at < ?1",
        params![before.as_millis(), RETENTION_STEP],
        |row| row.get(0),
    )?;
    let Some(newest) = newest else {
        return Ok(0);
    };
    let removed = connection.execute(
        "UPDATE notification SET body = NULL
         WHERE id > (SELECT notification_id FROM retention) AND id <= ?1 AND body IS NOT NULL",
        params![newest],
    )?;
    connection.execute("UPDATE retention SET notification_id = ?1", params![newest])?;
    Ok(removed)
}

/// Removes the bodies of a step's worth of documents that were booked before a moment and
/// that no sink waits for, in the order of booking, from where the last step ended.
pub(super) fn remove_document_bodies(
    connection: &Connection,
    before: Timestamp,
) -> rusqlite::Result<usize> {
    let until: Option<i64> = connection.query_row(
        "SELECT max(changed_at) FROM (
             SELECT changed_at FROM handoff
             WHERE state = 'booked' AND changed_at > (SELECT booked_until FROM retention) AND changed_at < ?1
             ORDER BY changed_at LIMIT ?2)",
        params![before.as_millis(), RETENTION_STEP],
        |row| row.get(0),
    )?;
    let Some(until) = until else {
        return Ok(0);
    };
    let removed = connection.execute(
        "UPDATE document SET body = NULL WHERE body IS NOT NULL AND sequence IN (
             SELECT h.sequence FROM handoff h
             WHERE h.state = 'booked' AND h.changed_at > (SELECT booked_until FROM retention) AND h.changed_at <= ?1
               AND h.sequence <= (SELECT min(position) FROM sink)
               AND NOT EXISTS (SELECT 1 FROM handoff o WHERE o.sequence = h.sequence
                   AND (o.state IN ('waiting', 'offered', 'rejected') OR o.changed_at > ?1)))",
        params![until],
    )?;
    connection.execute("UPDATE retention SET booked_until = ?1", params![until])?;
    Ok(removed)
}
