//! Searching documents from the newest one backwards, a bounded number at a time.

use super::connection::Transaction;
use super::reading::{document, sequence};
use super::rows::escape_nul;
use crate::domain::{Account, Company, Queue};
use crate::store::{DocumentSearch, FoundDocuments, StoreError};

const COLUMNS: &str = "
    SELECT d.sequence, a.name, f.queue, f.company, d.document_id, d.version, d.superseded, d.first_pull,
        d.found_by, d.stored_at, d.body";

const JOINED: &str = "
    FROM document d JOIN feed f ON f.id = d.feed_id JOIN account a ON a.id = f.account_id
    WHERE ($2 IS NULL OR a.name = $2) AND ($3 IS NULL OR f.queue = $3) AND ($4 IS NULL OR f.company = $4)
      AND ($5 IS NULL OR d.document_id = $5) AND d.sequence < $1 AND d.sequence >= $7";

pub(super) async fn search_documents(
    transaction: &Transaction<'_>,
    search: &DocumentSearch,
) -> Result<FoundDocuments, StoreError> {
    let newest = sequence(transaction).await?.last;
    let before = search
        .before
        .unwrap_or(i64::MAX)
        .min(newest.saturating_add(1));
    let by_index = search.document_id.is_some() || search.company.is_some();
    let first = if by_index {
        1
    } else {
        before.saturating_sub(i64::from(search.versions)).max(1)
    };
    // `+ 0` prevents the first two from scanning the whole sequence for its order.
    let sql = if search.document_id.is_some() {
        format!("{COLUMNS} {JOINED} AND d.document_id = $5 ORDER BY d.sequence + 0 DESC LIMIT $6")
    } else if search.company.is_some() {
        format!(
            "{COLUMNS} {JOINED} AND d.sequence IN (
                 SELECT one.sequence FROM document one
                 WHERE one.sequence < $1 AND one.feed_id IN (
                     SELECT f.id FROM feed f JOIN account a ON a.id = f.account_id
                     WHERE f.company = $4 AND ($2 IS NULL OR a.name = $2) AND ($3 IS NULL OR f.queue = $3))
                 ORDER BY one.sequence + 0 DESC LIMIT $6)
             ORDER BY d.sequence DESC"
        )
    } else {
        format!("{COLUMNS} {JOINED} ORDER BY d.sequence DESC LIMIT $6")
    };
    let rows = transaction
        .query(
            &sql,
            &[
                &before,
                &search.account.as_ref().map(Account::as_str),
                &search.queue.map(Queue::as_str),
                &search.company.as_ref().map(Company::as_str),
                &search.document_id.as_deref().map(escape_nul),
                &i64::from(search.versions),
                &first,
            ],
        )
        .await?;
    let rows = rows.iter().map(document).collect::<Result<Vec<_>, _>>()?;
    Ok(if by_index {
        FoundDocuments::matching(rows, search.versions)
    } else {
        FoundDocuments::from(rows, first)
    })
}
