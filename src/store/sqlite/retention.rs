//! Retention: removing old rows and bodies, a bounded number at a time.

use rusqlite::{Connection, params};

use crate::domain::{DestinationName, Timestamp};
use crate::store::Retention;
use crate::store::limits::RETENTION_BATCH;

/// Removes batches of bodies and of links; returns the numbers of notifications and of
/// documents whose body was removed.
pub(super) fn remove_bodies_and_links(
    connection: &Connection,
    retention: &Retention,
) -> rusqlite::Result<(usize, usize)> {
    remove_links(connection, retention.links_before)?;
    Ok((
        remove_notification_bodies(connection, retention.notifications_before)?,
        remove_document_bodies(connection, retention)?,
    ))
}

/// Removes the bodies of a batch of old notifications, continuing where the last step ended.
fn remove_notification_bodies(
    connection: &Connection,
    before: Timestamp,
) -> rusqlite::Result<usize> {
    let newest: Option<i64> = connection.query_row(
        "SELECT max(id) FROM (
             SELECT id, received_at FROM notification
             WHERE id > (SELECT notification_id FROM retention) ORDER BY id LIMIT ?2)
         WHERE received_at < ?1",
        params![before.as_millis(), RETENTION_BATCH],
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

/// Removes the bodies of a batch of documents that were delivered long ago and that no
/// configured destination has yet to receive, the earliest first.
fn remove_document_bodies(
    connection: &Connection,
    retention: &Retention,
) -> rusqlite::Result<usize> {
    let destinations: Vec<&str> = retention
        .destinations
        .iter()
        .map(DestinationName::as_str)
        .collect();
    let destinations = serde_json::json!(destinations).to_string();
    let removable: Vec<i64> = connection
        .prepare_cached(
            "SELECT h.sequence FROM delivery h
             JOIN document d ON d.sequence = h.sequence
             JOIN feed f ON f.id = d.feed_id
             WHERE h.state = 'delivered' AND h.body_removed = 0 AND h.changed_at < ?1
               AND NOT EXISTS (SELECT 1 FROM delivery o WHERE o.sequence = h.sequence
                   AND (o.state IN ('pending', 'listed', 'rejected') OR o.changed_at >= ?1))
               AND NOT EXISTS (SELECT 1 FROM destination s WHERE s.name IN (SELECT value FROM json_each(?2))
                   AND json_extract(s.filter, '$.queue') = f.queue
                   AND (s.position < h.sequence OR NOT EXISTS (
                       SELECT 1 FROM destination_feed b WHERE b.destination_id = s.id AND b.feed_id = f.id)))
             ORDER BY h.changed_at LIMIT ?3",
        )?
        .query_map(
            params![retention.documents_before.as_millis(), destinations, RETENTION_BATCH],
            |row| row.get(0),
        )?
        .collect::<rusqlite::Result<_>>()?;
    let mut remove_body =
        connection.prepare_cached("UPDATE document SET body = NULL WHERE sequence = ?1")?;
    let mut record =
        connection.prepare_cached("UPDATE delivery SET body_removed = 1 WHERE sequence = ?1")?;
    for sequence in &removable {
        remove_body.execute(params![sequence])?;
        record.execute(params![sequence])?;
    }
    Ok(removable.len())
}

/// Removes old links.
fn remove_links(connection: &Connection, before: Timestamp) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM document_link WHERE sequence IN
             (SELECT sequence FROM document_link WHERE listed_at < ?1 LIMIT ?2)",
        params![before.as_millis(), RETENTION_BATCH],
    )?;
    Ok(())
}
