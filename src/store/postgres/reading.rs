//! Lists for people and programs.

use tokio_postgres::Row;

use super::connection::Transaction;
use super::rows::{self, escape_nul};
use crate::domain::{Account, Cursor, Feed};
use crate::store::columns::{self, message_id, row_limit, trigger_kinds};
use crate::store::{
    AccountRow, DocumentFilter, DocumentRow, FeedRow, NotificationRow, SequenceRow, StoreError,
};

pub(super) async fn notifications(
    transaction: &Transaction<'_>,
    after: i64,
    limit: usize,
) -> Result<Vec<NotificationRow>, StoreError> {
    let rows = transaction
        .query(
            "SELECT n.id, a.name, n.event, n.kind, n.message_id, n.received_at, n.body
             FROM notification n JOIN account a ON a.id = n.account_id
             WHERE n.id > $1 ORDER BY n.id LIMIT $2",
            &[&after, &row_limit(limit)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(NotificationRow {
                id: row.try_get(0)?,
                account: columns::account(row.try_get(1)?)?,
                event: columns::event(row.try_get(2)?)?,
                kind: row.try_get(3)?,
                message_id: message_id(row.try_get(4)?),
                received_at: rows::timestamp(row, 5)?,
                body: row.try_get(6)?,
            })
        })
        .collect()
}

pub(super) async fn feeds(transaction: &Transaction<'_>) -> Result<Vec<FeedRow>, StoreError> {
    let rows = transaction
        .query(
            "SELECT a.name, f.queue, f.company, f.cursor, f.last_page_at, f.up_to_date_at, f.first_complete_at,
                    f.documents, f.missed_notifications, f.gaps, f.paused, f.waits_until, f.failures, f.last_error,
                    (SELECT count(*) FROM unreadable u WHERE u.feed_id = f.id),
                    (SELECT string_agg(d.kind::text, ',') FROM feed_trigger d
                     LEFT JOIN feed_pull r ON r.feed_id = d.feed_id AND r.kind = d.kind
                     WHERE d.feed_id = f.id AND d.raised > coalesce(r.completed, 0))
             FROM feed f JOIN account a ON a.id = f.account_id
             ORDER BY a.name COLLATE \"C\", f.queue COLLATE \"C\", f.company COLLATE \"C\"",
            &[],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let triggers: Option<&str> = row.try_get(15)?;
            Ok(FeedRow {
                feed: rows::feed(row, 0)?,
                cursor: rows::optional_text(row, 3)?.map(Cursor::new),
                last_page_at: rows::optional_timestamp(row, 4)?,
                up_to_date_at: rows::optional_timestamp(row, 5)?,
                first_complete_at: rows::optional_timestamp(row, 6)?,
                documents: rows::count(row, 7)?,
                missed_notifications: rows::count(row, 8)?,
                gaps: rows::count(row, 9)?,
                paused: columns::feed_pause_reason(row.try_get(10)?)?,
                waits_until: rows::optional_timestamp(row, 11)?,
                failures: rows::count(row, 12)?,
                last_error: rows::optional_text(row, 13)?,
                unreadable: rows::count(row, 14)?,
                triggers: trigger_kinds(triggers.unwrap_or_default()),
            })
        })
        .collect()
}

pub(super) async fn accounts(transaction: &Transaction<'_>) -> Result<Vec<AccountRow>, StoreError> {
    let rows = transaction
        .query(
            "SELECT name, paused, waits_until, failures, last_error FROM account ORDER BY name COLLATE \"C\"",
            &[],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(AccountRow {
                account: columns::account(row.try_get(0)?)?,
                paused: columns::feed_pause_reason(row.try_get(1)?)?,
                waits_until: rows::optional_timestamp(row, 2)?,
                failures: rows::count(row, 3)?,
                last_error: rows::optional_text(row, 4)?,
            })
        })
        .collect()
}

pub(super) async fn documents(
    transaction: &Transaction<'_>,
    filter: &DocumentFilter,
) -> Result<Vec<DocumentRow>, StoreError> {
    let rows = transaction
        .query(
            "SELECT d.sequence, a.name, f.queue, f.company, d.document_id, d.version, d.superseded, d.first_pull,
                    d.found_by, d.stored_at, d.body
             FROM document d JOIN feed f ON f.id = d.feed_id JOIN account a ON a.id = f.account_id
             WHERE d.sequence > $1
               AND ($2 IS NULL OR a.name = $2)
               AND ($3 IS NULL OR f.queue = $3)
               AND ($4 IS NULL OR f.company = $4)
               AND ($5 IS NULL OR d.document_id = $5)
             ORDER BY d.sequence LIMIT $6",
            &[
                &filter.after.unwrap_or(0),
                &filter.account.as_ref().map(Account::as_str),
                &filter.queue.map(|queue| queue.as_str()),
                &filter.company.as_ref().map(|company| company.as_str()),
                &filter.document_id.as_deref().map(escape_nul),
                &row_limit(filter.limit),
            ],
        )
        .await?;
    rows.iter().map(document).collect()
}

/// Reads a version from the columns that [`documents`] selects.
pub(super) fn document(row: &Row) -> Result<DocumentRow, StoreError> {
    Ok(DocumentRow {
        sequence: row.try_get(0)?,
        feed: rows::feed(row, 1)?,
        document_id: rows::text(row, 4)?,
        version: rows::text(row, 5)?,
        superseded: row.try_get(6)?,
        first_pull: row.try_get(7)?,
        found_by: columns::kind(row.try_get(8)?)?,
        stored_at: rows::timestamp(row, 9)?,
        body: row.try_get(10)?,
    })
}

pub(super) async fn known_versions(
    transaction: &Transaction<'_>,
    feed: &Feed,
    versions: &[(String, String)],
) -> Result<Vec<bool>, StoreError> {
    let ids: Vec<String> = versions.iter().map(|(id, _)| escape_nul(id)).collect();
    let texts: Vec<String> = versions.iter().map(|(_, text)| escape_nul(text)).collect();
    let rows = transaction
        .query(
            "SELECT EXISTS (
                 SELECT 1 FROM document d JOIN feed f ON f.id = d.feed_id JOIN account a ON a.id = f.account_id
                 WHERE d.document_id = v.document_id AND d.version = v.version
                   AND a.name = $3 AND f.queue = $4 AND f.company = $5)
             FROM unnest($1, $2) WITH ORDINALITY AS v (document_id, version, number)
             ORDER BY v.number",
            &[
                &ids,
                &texts,
                &feed.account.as_str(),
                &feed.queue.as_str(),
                &feed.company.as_str(),
            ],
        )
        .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

pub(super) async fn sequence(transaction: &Transaction<'_>) -> Result<SequenceRow, StoreError> {
    let row = transaction
        .query_one("SELECT epoch, last FROM sequence", &[])
        .await?;
    Ok(SequenceRow {
        epoch: row.try_get(0)?,
        last: row.try_get(1)?,
    })
}
