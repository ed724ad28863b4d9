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
