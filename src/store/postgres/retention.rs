//! Retention: removing old rows and bodies, a bounded number at a time.

use super::connection::Transaction;
use crate::domain::{DestinationName, Timestamp};
use crate::store::limits::RETENTION_BATCH;
use crate::store::{Retention, StoreError};

/// Removes the bodies of a batch of old notifications, continuing where the last step ended;
/// none while another replica does so.
pub(super) async fn remove_notification_bodies(
    transaction: &Transaction<'_>,
    before: Timestamp,
) -> Result<usize, StoreError> {
    let row = transaction
        .query_opt(
            "SELECT notification_id FROM retention FOR UPDATE SKIP LOCKED",
            &[],
        )
        .await?;
    let Some(row) = row else {
        return Ok(0);
    };
    let done: i64 = row.try_get(0)?;
    let row = transaction
        .query_one(
            "SELECT max(id) FROM (
                 SELECT id, received_at FROM notification WHERE id > $3 ORDER BY id LIMIT $2) AS step
             WHERE received_at < $1",
            &[&before.as_millis(), &RETENTION_BATCH, &done],
        )
        .await?;
    let Some(newest) = row.try_get::<_, Option<i64>>(0)? else {
        return Ok(0);
    };
    let removed = transaction
        .execute(
            "UPDATE notification SET body = NULL WHERE id > $1 AND id <= $2 AND body IS NOT NULL",
            &[&done, &newest],
        )
        .await?;
    transaction
        .execute("UPDATE retention SET notification_id = $1", &[&newest])
        .await?;
    Ok(removed)
}

/// Removes the bodies of a batch of documents that were delivered long ago and that no
/// configured destination has yet to receive, the earliest first.
pub(super) async fn remove_document_bodies(
    transaction: &Transaction<'_>,
    retention: &Retention,
) -> Result<usize, StoreError> {
    let destinations: Vec<&str> = retention
        .destinations
        .iter()
        .map(DestinationName::as_str)
        .collect();
    // Rows that another replica has locked are left to it.
    let removable = transaction
        .query(
            "SELECT h.sequence FROM delivery h
             JOIN document d ON d.sequence = h.sequence
             JOIN feed f ON f.id = d.feed_id
             WHERE h.state = 'delivered' AND NOT h.body_removed AND h.changed_at < $1
               AND NOT EXISTS (SELECT 1 FROM delivery o WHERE o.sequence = h.sequence
                   AND (o.state IN ('pending', 'listed', 'rejected') OR o.changed_at >= $1))
               AND NOT EXISTS (SELECT 1 FROM destination s WHERE s.name = ANY ($2)
                   AND s.filter::json ->> 'queue' = f.queue
                   AND (s.position < h.sequence OR NOT EXISTS (
                       SELECT 1 FROM destination_feed b WHERE b.destination_id = s.id AND b.feed_id = f.id)))
             ORDER BY h.changed_at LIMIT $3 FOR NO KEY UPDATE OF d SKIP LOCKED",
            &[
                &retention.documents_before.as_millis(),
                &destinations,
                &RETENTION_BATCH,
            ],
        )
        .await?;
    let removable = removable
        .iter()
        .map(|row| Ok(row.try_get(0)?))
        .collect::<Result<Vec<i64>, StoreError>>()?;
    transaction
        .execute(
            "UPDATE document SET body = NULL WHERE sequence = ANY ($1)",
            &[&removable],
        )
        .await?;
    transaction
        .execute(
            "UPDATE delivery SET body_removed = true WHERE sequence = ANY ($1)",
            &[&removable],
        )
        .await?;
    Ok(removable.len())
}

/// Removes old links.
pub(super) async fn remove_links(
    transaction: &Transaction<'_>,
    before: Timestamp,
) -> Result<(), StoreError> {
    transaction
        .execute(
            "DELETE FROM document_link WHERE sequence IN (
                 SELECT sequence FROM document_link WHERE listed_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
            &[&before.as_millis(), &RETENTION_BATCH],
        )
        .await?;
    Ok(())
}
