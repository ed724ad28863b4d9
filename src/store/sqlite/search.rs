//! Searching documents from the newest one backwards, a bounded number at a time.

use rusqlite::{Connection, params};

use super::reading::{document, sequence};
use crate::domain::{Account, Company, Queue};
use crate::store::{DocumentSearch, FoundDocuments};

const COLUMNS: &str = "
    SELECT d.sequence, a.name, f.queue, f.company, d.document_id, d.version, d.superseded, d.first_pull,
        d.found_by, d.stored_at, d.body";

const JOINED: &str = "JOIN feed f ON f.id = d.feed_id JOIN account a ON a.id = f.account_id
    WHERE (?2 IS NULL OR a.name = ?2) AND (?3 IS NULL OR f.queue = ?3) AND (?4 IS NULL OR f.company = ?4)";

pub(super) fn search_documents(
    connection: &Connection,
    search: &DocumentSearch,
) -> rusqlite::Result<FoundDocuments> {
    let newest = sequence(connection)?.last;
    let before = search
        .before
        .unwrap_or(i64::MAX)
        .min(newest.saturating_add(1));
    let first = before.saturating_sub(i64::from(search.versions)).max(1);
    // The indexes prevent the first two from scanning the whole sequence.
    let sql = if search.document_id.is_some() {
        format!(
            "{COLUMNS} FROM document d INDEXED BY document_identity {JOINED}
                 AND d.document_id = ?5 AND d.sequence < ?1 ORDER BY d.sequence DESC LIMIT ?6"
        )
    } else if search.company.is_some() {
        format!(
            "{COLUMNS} FROM document d {JOINED} AND d.sequence IN (
                 SELECT one.sequence FROM document one INDEXED BY document_feed
                 WHERE one.sequence < ?1 AND one.feed_id IN (
                     SELECT f.id FROM feed f JOIN account a ON a.id = f.account_id
                     WHERE f.company = ?4 AND (?2 IS NULL OR a.name = ?2) AND (?3 IS NULL OR f.queue = ?3))
                 ORDER BY one.sequence DESC LIMIT ?6)
             ORDER BY d.sequence DESC"
        )
    } else {
        format!(
            "{COLUMNS} FROM document d {JOINED}
                 AND d.sequence >= ?7 AND d.sequence < ?1 ORDER BY d.sequence DESC LIMIT ?6"
        )
    };
    let mut statement = connection.prepare_cached(&sql)?;
    let all = params![
        before,
        search.account.as_ref().map(Account::as_str),
        search.queue.map(Queue::as_str),
        search.company.as_ref().map(Company::as_str),
        search.document_id,
        search.versions,
        first,
    ];
    let used = &all[..statement.parameter_count()];
    let rows = statement
        .query_map(used, document)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(
        if search.document_id.is_some() || search.company.is_some() {
            FoundDocuments::matching(rows, search.versions)
        } else {
            FoundDocuments::from(rows, first)
        },
    )
}
