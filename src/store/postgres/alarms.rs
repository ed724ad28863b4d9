//! Alarms and their telling.

use std::time::Duration;

use tokio_postgres::Row;

use super::connection::Transaction;
use super::rows::{self, keepable};
use crate::domain::Timestamp;
use crate::store::words::{self, LATELY_STORED, RETENTION_STEP, row_limit};
use crate::store::{
    AlarmChanges, AlarmFilter, AlarmKind, AlarmNotice, AlarmObservation, AlarmRow, Finding,
    NoticeEnd, StoreError, UnannouncedDocuments,
};

/// The columns that [`read`] takes.
const COLUMNS: &str =
    "id, kind, subject, text, raised_at, seen_at, ended_at, tell_at, attempts, last_error";

/// An alarm; none where its kind is a later version's, which a replica may run.
fn read(row: &Row) -> Result<Option<AlarmRow>, StoreError> {
    let Some(kind) = AlarmKind::parse(row.try_get(1)?) else {
        return Ok(None);
    };
    Ok(Some(AlarmRow {
        id: row.try_get(0)?,
        kind,
        subject: rows::text(row, 2)?,
        text: rows::text(row, 3)?,
        raised_at: rows::moment(row, 4)?,
        seen_at: rows::moment(row, 5)?,
        ended_at: rows::maybe_moment(row, 6)?,
        tell_at: rows::maybe_moment(row, 7)?,
        attempts: rows::count(row, 8)?,
        last_error: rows::maybe_text(row, 9)?,
    }))
}

/// Begins, goes on with and ends alarms as `look` found things.
pub(super) async fn note(
    transaction: &Transaction<'_>,
    look: &AlarmObservation,
) -> Result<AlarmChanges, StoreError> {
    let mut changes = AlarmChanges::default();
    for finding in &look.found {
        changes
            .raised
            .extend(see(transaction, look, finding).await?);
    }
    let on = AlarmFilter {
        active: true,
        after: 0,
        limit: usize::MAX,
    };
    for alarm in list(transaction, &on).await? {
        if look.ends(alarm.kind, &alarm.subject, alarm.seen_at) {
            changes
                .ended
                .extend(end(transaction, look, alarm.id).await?);
        }
    }
    Ok(changes)
}

/// Notes that something is wrong; gives the alarm where that begins it.
async fn see(
    transaction: &Transaction<'_>,
    look: &AlarmObservation,
    finding: &Finding,
) -> Result<Option<AlarmRow>, StoreError> {
    let now = look.now.as_millis();
    let kind = finding.kind.as_str();
    let subject = keepable(&finding.subject);
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
    let tell_at = look.tell.then_some(now);
    // Another replica may see it in the same moment: one of the two begins it.
    let row = transaction
        .query_opt(
            &format!(
                "INSERT INTO alarm (kind, subject, text, raised_at, seen_at, tell_at)
                 VALUES ($1, $2, $3, $4, $4, $5)
                 ON CONFLICT (kind, subject) WHERE ended_at IS NULL DO NOTHING RETURNING {COLUMNS}"
            ),
            &[&kind, &subject, &keepable(&finding.text), &now, &tell_at],
        )
        .await?;
    row.as_ref().map_or(Ok(None), read)
}

async fn end(
    transaction: &Transaction<'_>,
    look: &AlarmObservation,
    id: i64,
) -> Result<Option<AlarmRow>, StoreError> {
    let now = look.now.as_millis();
    // Whoever was not told of its beginning is not told of its end. Another replica may
    // have seen it since, or have ended it.
    let row = transaction
        .query_opt(
            &format!(
                "UPDATE alarm SET ended_at = $2,
                     tell_at = CASE WHEN $3 AND told = 1 THEN coalesce(tell_at, $2) ELSE tell_at END
                 WHERE id = $1 AND ended_at IS NULL RETURNING {COLUMNS}"
            ),
            &[&id, &now, &look.tell],
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

/// Takes the alarm that is to be told first, for so long.
pub(super) async fn lease_notice(
    transaction: &Transaction<'_>,
    now: Timestamp,
    lease: Duration,
) -> Result<Option<AlarmNotice>, StoreError> {
    let row = transaction
        .query_opt(
            &format!(
                "UPDATE alarm SET tell_at = $2, fence = fence + 1
                 WHERE id = (SELECT id FROM alarm WHERE tell_at <= $1 ORDER BY tell_at, id LIMIT 1
                     FOR UPDATE SKIP LOCKED)
                 RETURNING {COLUMNS}, told, fence"
            ),
            &[&now.as_millis(), &now.after(lease).as_millis()],
        )
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let (told, fence): (i64, i64) = (row.try_get(10)?, row.try_get(11)?);
    Ok(read(&row)?.map(|alarm| AlarmNotice {
        alarm,
        over: told > 0,
        fence,
    }))
}

/// Notes how telling ended; false where another process has taken it over.
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
                    "UPDATE alarm SET tell_at = $3, attempts = attempts + 1, last_error = $4
                     WHERE id = $1 AND fence = $2",
                    &[&id, &fence, &at.as_millis(), &keepable(error)],
                )
                .await?
        }
        NoticeEnd::Told => told(transaction, id, fence, now, None).await?,
        NoticeEnd::GivenUp { error } => {
            told(transaction, id, fence, now, Some(keepable(error))).await?
        }
    };
    Ok(changed > 0)
}

/// Goes on from its beginning to its end, if that has come.
async fn told(
    transaction: &Transaction<'_>,
    id: i64,
    fence: i64,
    now: Timestamp,
    error: Option<String>,
) -> Result<usize, StoreError> {
    transaction
        .execute(
            "UPDATE alarm SET told = told + 1, attempts = 0, last_error = $4,
                 tell_at = CASE WHEN told = 0 AND ended_at IS NOT NULL THEN $3 END
             WHERE id = $1 AND fence = $2",
            &[&id, &fence, &now.as_millis(), &error],
        )
        .await
}

/// Removes alarms that were over before this moment.
pub(super) async fn retain(
    transaction: &Transaction<'_>,
    before: Timestamp,
) -> Result<usize, StoreError> {
    transaction
        .execute(
            "DELETE FROM alarm WHERE id IN (
                 SELECT id FROM alarm WHERE ended_at < $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)",
            &[&before.as_millis(), &RETENTION_STEP],
        )
        .await
}

/// Documents, stored by `stored_by`, that no notification has told of since the last one.
pub(super) async fn unannounced_documents(
    transaction: &Transaction<'_>,
    stored_by: Timestamp,
) -> Result<Vec<UnannouncedDocuments>, StoreError> {
    let found = transaction
        .query(
            "WITH told AS (
                 SELECT f.account_id, f.queue, max(coalesce(w.again_at, w.due_at)) AS at
                 FROM feed f LEFT JOIN feed_trigger w ON w.feed_id = f.id AND w.kind = 0
                 GROUP BY f.account_id, f.queue),
             lately AS (SELECT feed_id, version_ms, first_pull, found_by, stored_at
                 FROM document ORDER BY sequence DESC LIMIT $2)
             SELECT a.name, f.queue, told.at, count(*)
             FROM lately d JOIN feed f ON f.id = d.feed_id JOIN account a ON a.id = f.account_id
                 JOIN told ON told.account_id = f.account_id AND told.queue = f.queue
             WHERE d.found_by IN (1, 2, 3) AND NOT d.first_pull AND d.stored_at <= $1
                 AND d.version_ms > coalesce(told.at, 0)
             GROUP BY a.name, f.queue, told.at ORDER BY a.name, f.queue",
            &[&stored_by.as_millis(), &LATELY_STORED],
        )
        .await?;
    let read = |row: &Row| {
        Ok(UnannouncedDocuments {
            account: words::account(row.try_get(0)?)?,
            queue: words::queue(row.try_get(1)?)?,
            notified_at: rows::maybe_moment(row, 2)?,
            documents: rows::count(row, 3)?,
        })
    };
    found.iter().map(read).collect()
}
