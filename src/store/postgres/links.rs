//! Fresh links to documents' files.

use secrecy::ExposeSecret;

use super::connection::Transaction;
use super::rows::escape_nul;
use super::triggers::raise;
use crate::domain::Timestamp;
use crate::store::columns::kind_code;
use crate::store::{FreshLink, StoreError, TriggerKind};

/// Stores the links of a page, if fresh links were requested for the feed.
pub(super) async fn store(
    transaction: &Transaction<'_>,
    feed: i64,
    links: &[FreshLink],
    now: Timestamp,
) -> Result<(), StoreError> {
    if links.is_empty() || !links_requested(transaction, feed).await? {
        return Ok(());
    }
    let ids: Vec<String> = links.iter().map(|l| escape_nul(&l.document_id)).collect();
    let versions: Vec<String> = links.iter().map(|l| escape_nul(&l.version)).collect();
    let urls: Vec<String> = links
        .iter()
        .map(|l| escape_nul(l.url.expose_secret()))
        .collect();
    transaction
        .execute(
            "INSERT INTO document_link (sequence, url, listed_at)
             SELECT DISTINCT ON (d.sequence) d.sequence, p.url, $5
             FROM unnest($1, $2, $3) WITH ORDINALITY AS p (document_id, version, url, place)
             JOIN document d ON d.document_id = p.document_id AND d.version = p.version AND d.feed_id = $4
             ORDER BY d.sequence, p.place DESC
             ON CONFLICT (sequence) DO UPDATE SET url = excluded.url, listed_at = excluded.listed_at",
            &[&ids, &versions, &urls, &feed, &now.as_millis()],
        )
        .await?;
    Ok(())
}

/// Completes a request for links that was made before this pull began. A request made
/// during the pull triggers another one, due now.
pub(super) async fn complete_link_request(
    transaction: &Transaction<'_>,
    feed: i64,
    kind: TriggerKind,
) -> Result<(), StoreError> {
    transaction
        .execute(
            "DELETE FROM fresh_link_request WHERE feed_id = $1 AND requested_at <=
                 (SELECT started_at FROM feed_pull WHERE feed_id = $1 AND kind = $2)",
            &[&feed, &kind_code(kind)],
        )
        .await?;
    if links_requested(transaction, feed).await? {
        let now = transaction.now();
        raise(transaction, feed, TriggerKind::Reconciliation, now).await?;
    }
    Ok(())
}

/// Returns true if fresh links were requested for the feed.
async fn links_requested(transaction: &Transaction<'_>, feed: i64) -> Result<bool, StoreError> {
    let row = transaction
        .query_opt(
            "SELECT 1 FROM fresh_link_request WHERE feed_id = $1",
            &[&feed],
        )
        .await?;
    Ok(row.is_some())
}
