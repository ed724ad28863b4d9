//! Alarms and their notices.

use std::time::Duration;

use tokio_postgres::Row;

use super::connection::Transaction;
use super::rows::{self, escape_nul};
use crate::domain::Timestamp;
use crate::store::columns::{self, row_limit};
use crate::store::limits::{RECENT_DOCUMENTS, RETENTION_BATCH};
use crate::store::{
    AlarmChanges, AlarmFilter, AlarmKind, AlarmNotice, AlarmObservation, AlarmRow, Finding,
    NoticeEnd, StoreError, UnannouncedDocuments,
};

/// The columns that [`read`] reads.
const COLUMNS: &str =
    "id, kind, subject, text, raised_at, seen_at, ended_at, notify_at, attempts, last_error";

/// Reads an alarm; none if only a later version, which a replica may run, knows its kind.
fn read(row: &Row) -> Result<Option<AlarmRow>, StoreError> {
    let Some(kind) = AlarmKind::parse(row.try_get(1)?) else {
        return Ok(None);
    };
    Ok(Some(AlarmRow {
        id: row.try_get(0)?,
        kind,
        subject: rows::text(row, 2)?,
        text: rows::text(row, 3)?,
        raised_at: rows::timestamp(row, 4)?,
        seen_at: rows::timestamp(row, 5)?,
        ended_at: rows::optional_timestamp(row, 6)?,
        notify_at: rows::optional_timestamp(row, 7)?,
        attempts: rows::count(row, 8)?,
        last_error: rows::optional_text(row, 9)?,
    }))
}

/// Raises, continues and ends alarms according to `observation`.
pub(super) async fn update(
    transaction: &Transaction<'_>,
    observation: &AlarmObservation,
) -> Result<AlarmChanges, StoreError> {
    let mut changes = AlarmChanges::default();
    for finding in &observation.found {
        changes
            .raised
            .extend(record_finding(transaction, observation, finding).await?);
    }
    let active = AlarmFilter {
        active: true,
        after: 0,
        limit: usize::MAX,
    };
    for alarm in list(transaction, &active).await? {
        if observation.ends(alarm.kind, &alarm.subject, alarm.seen_at) {
            changes
                .ended
                .extend(end_alarm(transaction, observation, alarm.id).await?);
        }
    }
    Ok(changes)
}

/// Records a problem; returns the alarm if this raised it.
async fn record_finding(
    transaction: &Transaction<'_>,
    observation: &AlarmObservation,
    finding: &Finding,
) -> Result<Option<AlarmRow>, StoreError> {
    let now = observation.now.as_millis();
    let kind = finding.kind.as_str();
    let subject = escape_nul(&finding.subject);
    let known = transaction
        .execute(
            "UPDATE alarm SET seen_at = greatest(seen_at, $3)
             WHERE kind = $1 AND subject = $2 AND ended_at IS NULL",
            &[&kind, &subject, &now],
        )
        .await?;
    if known > 0 {
        return Ok(None);
    }
    let notify_at = observation.notify.then_some(now);
    // Another replica may find it at the same moment: only one of the two raises it.
    let row = transaction
        .query_opt(
            &format!(
                "INSERT INTO alarm (kind, subject, text, raised_at, seen_at, notify_at)
                 VALUES ($1, $2, $3, $4, $4, $5)
                 ON CONFLICT (kind, subject) WHERE ended_at IS NULL DO NOTHING RETURNING {COLUMNS}"
            ),
            &[
                &kind,
                &subject,
                &escape_nul(&finding.text),
                &now,
                &notify_at,
            ],
        )
        .await?;
    row.as_ref().map_or(Ok(None), read)
}

async fn end_alarm(
    transaction: &Transaction<'_>,
    observation: &AlarmObservation,
    id: i64,
) -> Result<Option<AlarmRow>, StoreError> {
    let now = observation.now.as_millis();
    // The end is announced only to those who were sent the beginning. Another replica may
    // have seen the alarm since, or have ended it.
    let row = transaction
        .query_opt(
            &format!(
                "UPDATE alarm SET ended_at = $2,
                     notify_at = CASE WHEN $3 AND notified = 1 THEN coalesce(notify_at, $2) ELSE notify_at END
                 WHERE id = $1 AND ended_at IS NULL RETURNING {COLUMNS}"
            ),
            &[&id, &now, &observation.notify],
        )
        .await?;
    row.as_ref().map_or(Ok(None), read)
}

pub(super) async fn list(
    transaction: &Transaction<'_>,
    filter: &AlarmFilter,
) -> Result<Vec<AlarmRow>, StoreError> {
    let found = transaction
        .query(
            &format!(
                "SELECT {COLUMNS} FROM alarm WHERE id > $1 AND (NOT $2 OR ended_at IS NULL)
                 ORDER BY id LIMIT $3"
            ),
            &[&filter.after, &filter.active, &row_limit(filter.limit)],
        )
        .await?;
    let read: Result<Vec<_>, _> = found.iter().map(read).collect();
    Ok(read?.into_iter().flatten().collect())
}

/// Leases the alarm whose notice is due first.
pub(super) async fn lease_notice(
    transaction: &Transaction<'_>,
    now: Timestamp,
    lease: Duration,
) -> Result<Option<AlarmNotice>, StoreError> {
    let row = transaction
        .query_opt(
            &format!(
                "UPDATE alarm SET notify_at = $2, fence = fence + 1
                 WHERE id = (SELECT id FROM alarm WHERE notify_at <= $1 ORDER BY notify_at, id LIMIT 1
                     FOR UPDATE SKIP LOCKED)
                 RETURNING {COLUMNS}, notified, fence"
            ),
            &[&now.as_millis(), &now.after(lease).as_millis()],
        )
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let (notified, fence): (i64, i64) = (row.try_get(10)?, row.try_get(11)?);
    Ok(read(&row)?.map(|alarm| AlarmNotice {
        alarm,
        over: notified > 0,
        fence,
    }))
}

/// Records how sending a notice ended; returns false if another process has leased it.
pub(super) async fn end_notice(
    transaction: &Transaction<'_>,
    notice: &AlarmNotice,
    end: &NoticeEnd,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let (id, fence) = (notice.alarm.id, notice.fence);
    let changed = match end {
        NoticeEnd::TryAgain { at, error } => {
            transaction
                .execute(
                    "UPDATE alarm SET notify_at = $3, attempts = attempts + 1, last_error = $4
                     WHERE id = $1 AND fence = $2",
                    &[&id, &fence, &at.as_millis(), &escape_nul(error)],
                )
                .await?
        }
        NoticeEnd::Sent => finish_notice(transaction, id, fence, now, None).await?,
        NoticeEnd::GivenUp { error } => {
            finish_notice(transaction, id, fence, now, Some(escape_nul(error))).await?
        }
    };
    Ok(changed > 0)
}

/// Completes a notice; that of the alarm's end is due at once if it has ended.
async fn finish_notice(
    transaction: &Transaction<'_>,
    id: i64,
    fence: i64,
    now: Timestamp,
    error: Option<String>,
) -> Result<usize, StoreError> {
    transaction
        .execute(
            "UPDATE alarm SET notified = notified + 1, attempts = 0, last_error = $4,
                 notify_at = CASE WHEN notified = 0 AND ended_at IS NOT NULL THEN $3 END
             WHERE id = $1 AND fence = $2",
            &[&id, &fence, &now.as_millis(), &error],
        )
        .await
}

/// Removes alarms that ended before this moment.
pub(super) async fn retain(
    transaction: &Transaction<'_>,
    before: Timestamp,
) -> Result<usize, StoreError> {
    transaction
        .execute(
            "DELETE FROM alarm WHERE id IN (
                 SELECT id FROM alarm WHERE ended_at < $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)",
            &[&before.as_millis(), &RETENTION_BATCH],
        )
        .await
}

/// Counts documents, stored by `stored_by`, that no notification announced since the last one.
pub(super) async fn unannounced_documents(
    transaction: &Transaction<'_>,
    stored_by: Timestamp,
) -> Result<Vec<UnannouncedDocuments>, StoreError> {
    let found = transaction
        .query(
            "WITH announced AS (
                 SELECT f.account_id, f.queue, max(coalesce(w.again_at, w.due_at)) AS at
                 FROM feed f LEFT JOIN feed_trigger w ON w.feed_id = f.id AND w.kind = 0
                 GROUP BY f.account_id, f.queue),
             recent AS (SELECT feed_id, version_ms, first_pull, found_by, stored_at
                 FROM document ORDER BY sequence DESC LIMIT $2)
             SELECT a.name, f.queue, announced.at, count(*)
             FROM recent d JOIN feed f ON f.id = d.feed_id JOIN account a ON a.id = f.account_id
                 JOIN announced ON announced.account_id = f.account_id AND announced.queue = f.queue
             WHERE d.found_by IN (1, 2, 3) AND NOT d.first_pull AND d.stored_at <= $1
                 AND d.version_ms > coalesce(announced.at, 0)
             GROUP BY a.name, f.queue, announced.at ORDER BY a.name, f.queue",
            &[&stored_by.as_millis(), &RECENT_DOCUMENTS],
        )
        .await?;
    let read = |row: &Row| {
        Ok(UnannouncedDocuments {
            account: columns::account(row.try_get(0)?)?,
            queue: columns::queue(row.try_get(1)?)?,
            notified_at: rows::optional_timestamp(row, 2)?,
            documents: rows::count(row, 3)?,
        })
    };
    found.iter().map(read).collect()
}
