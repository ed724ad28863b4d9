//! Forgetting what is too old, a bounded part at a time.

use super::connection::Transaction;
use crate::domain::Timestamp;
use crate::store::StoreError;
use crate::store::words::RETENTION_STEP;

/// Removes the bodies of a step's worth of old notifications, from where the last step
/// ended; nothing while another replica is at it.
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
            &[&before.as_millis(), &RETENTION_STEP, &done],
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

/// Removes the bodies of a step's worth of documents that were booked before a moment and
/// that no sink waits for, in the order of booking, from where the last step ended;
/// nothing while another replica is at it.
pub(super) async fn remove_document_bodies(
    transaction: &Transaction<'_>,
    before: Timestamp,
) -> Result<usize, StoreError> {
    let row = transaction
        .query_opt(
            "SELECT booked_until FROM retention FOR UPDATE SKIP LOCKED",
            &[],
        )
        .await?;
    let Some(row) = row else {
        return Ok(0);
    };
    let done: i64 = row.try_get(0)?;
    let row = transaction
        .query_one(
            "SELECT max(changed_at) FROM (
                 SELECT changed_at FROM handoff WHERE state = 'booked' AND changed_at > $3 AND changed_at < $1
                 ORDER BY changed_at LIMIT $2) AS step",
            &[&before.as_millis(), &RETENTION_STEP, &done],
        )
        .await?;
    let Some(until) = row.try_get::<_, Option<i64>>(0)? else {
        return Ok(0);
    };
    let removed = transaction
        .execute(
            "UPDATE document SET body = NULL WHERE body IS NOT NULL AND sequence IN (
                 SELECT h.sequence FROM handoff h
                 WHERE h.state = 'booked' AND h.changed_at > $1 AND h.changed_at <= $2
                   AND h.sequence <= (SELECT min(position) FROM sink)
                   AND NOT EXISTS (SELECT 1 FROM handoff o WHERE o.sequence = h.sequence
                       AND (o.state IN ('waiting', 'offered', 'rejected') OR o.changed_at > $2)))",
            &[&done, &until],
        )
        .await?;
    transaction
        .execute("UPDATE retention SET booked_until = $1", &[&until])
        .await?;
    Ok(removed)
}
