//! Lists for people and programs.

use rusqlite::{Connection, Row, params};

use super::rows;
use crate::domain::{Account, Cursor, Feed};
use crate::store::columns::{message_id, row_limit, trigger_kinds};
use crate::store::{
    AccountRow, DocumentFilter, DocumentRow, FeedRow, NotificationRow, SequenceRow,
};

pub(super) fn notifications(
    connection: &Connection,
    after: i64,
    limit: usize,
) -> rusqlite::Result<Vec<NotificationRow>> {
    connection
        .prepare_cached(
            "SELECT n.id, a.name, n.event, n.kind, n.message_id, n.received_at, n.body
             FROM notification n JOIN account a ON a.id = n.account_id
             WHERE n.id > ?1 ORDER BY n.id LIMIT ?2",
        )?
        .query_map(params![after, row_limit(limit)], |row| {
            Ok(NotificationRow {
                id: row.get(0)?,
                account: rows::account(row, 1)?,
                event: rows::event(row, 2)?,
                kind: row.get(3)?,
                message_id: message_id(&row.get::<_, Vec<u8>>(4)?),
                received_at: rows::timestamp(row, 5)?,
                body: row.get(6)?,
            })
        })?
        .collect()
}

pub(super) fn feeds(connection: &Connection) -> rusqlite::Result<Vec<FeedRow>> {
    connection
        .prepare_cached(
            "SELECT a.name, f.queue, f.company, f.cursor, f.last_page_at, f.up_to_date_at, f.first_complete_at,
                    f.documents, f.missed_notifications, f.gaps, f.paused, f.waits_until, f.failures, f.last_error,
                    (SELECT count(*) FROM unreadable u WHERE u.feed_id = f.id),
                    (SELECT group_concat(d.kind) FROM feed_trigger d
                     LEFT JOIN feed_pull r ON r.feed_id = d.feed_id AND r.kind = d.kind
                     WHERE d.feed_id = f.id AND d.raised > coalesce(r.completed, 0))
             FROM feed f JOIN account a ON a.id = f.account_id
             ORDER BY a.name, f.queue, f.company",
        )?
        .query_map([], |row| {
            let triggers: Option<String> = row.get(15)?;
            Ok(FeedRow {
                feed: rows::feed(row, 0)?,
                cursor: row.get::<_, Option<String>>(3)?.map(Cursor::new),
                last_page_at: rows::optional_timestamp(row, 4)?,
                up_to_date_at: rows::optional_timestamp(row, 5)?,
                first_complete_at: rows::optional_timestamp(row, 6)?,
                documents: row.get(7)?,
                missed_notifications: row.get(8)?,
                gaps: row.get(9)?,
                paused: rows::feed_pause_reason(row, 10)?,
                waits_until: rows::optional_timestamp(row, 11)?,
                failures: row.get(12)?,
                last_error: row.get(13)?,
                unreadable: row.get(14)?,
                triggers: trigger_kinds(triggers.as_deref().unwrap_or_default()),
            })
        })?
        .collect()
}

pub(super) fn accounts(connection: &Connection) -> rusqlite::Result<Vec<AccountRow>> {
    connection
        .prepare_cached(
            "SELECT name, paused, waits_until, failures, last_error FROM account ORDER BY name",
        )?
        .query_map([], |row| {
            Ok(AccountRow {
                account: rows::account(row, 0)?,
                paused: rows::feed_pause_reason(row, 1)?,
                waits_until: rows::optional_timestamp(row, 2)?,
                failures: row.get(3)?,
                last_error: row.get(4)?,
            })
        })?
        .collect()
}

pub(super) fn documents(
    connection: &Connection,
    filter: &DocumentFilter,
) -> rusqlite::Result<Vec<DocumentRow>> {
    connection
        .prepare_cached(
            "SELECT d.sequence, a.name, f.queue, f.company, d.document_id, d.version, d.superseded, d.first_pull,
                    d.found_by, d.stored_at, d.body
             FROM document d JOIN feed f ON f.id = d.feed_id JOIN account a ON a.id = f.account_id
             WHERE d.sequence > ?1
               AND (?2 IS NULL OR a.name = ?2)
               AND (?3 IS NULL OR f.queue = ?3)
               AND (?4 IS NULL OR f.company = ?4)
               AND (?5 IS NULL OR d.document_id = ?5)
             ORDER BY d.sequence LIMIT ?6",
        )?
        .query_map(
            params![
                filter.after.unwrap_or(0),
                filter.account.as_ref().map(Account::as_str),
                filter.queue.map(|queue| queue.as_str()),
                filter.company.as_ref().map(|company| company.as_str()),
                filter.document_id,
                row_limit(filter.limit),
            ],
            document,
        )?
        .collect()
}

/// Reads a version from the columns that [`documents`] selects.
pub(super) fn document(row: &Row<'_>) -> rusqlite::Result<DocumentRow> {
    Ok(DocumentRow {
        sequence: row.get(0)?,
        feed: rows::feed(row, 1)?,
        document_id: row.get(4)?,
        version: row.get(5)?,
        superseded: row.get(6)?,
        first_pull: row.get(7)?,
        found_by: rows::kind(row, 8)?,
        stored_at: rows::timestamp(row, 9)?,
        body: row.get(10)?,
    })
}

pub(super) fn known_versions(
    connection: &Connection,
    feed: &Feed,
    versions: &[(String, String)],
) -> rusqlite::Result<Vec<bool>> {
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM document d JOIN feed f ON f.id = d.feed_id JOIN account a ON a.id = f.account_id
             WHERE d.document_id = ?1 AND d.version = ?2 AND a.name = ?3 AND f.queue = ?4 AND f.company = ?5)",
    )?;
    versions
        .iter()
        .map(|(id, version)| {
            statement.query_row(
                params![
                    id,
                    version,
                    feed.account.as_str(),
                    feed.queue.as_str(),
                    feed.company.as_str()
                ],
                |row| row.get(0),
            )
        })
        .collect()
}

pub(super) fn sequence(connection: &Connection) -> rusqlite::Result<SequenceRow> {
    connection.query_row("SELECT epoch, last FROM sequence", [], |row| {
        Ok(SequenceRow {
            epoch: row.get(0)?,
            last: row.get(1)?,
        })
    })
}
