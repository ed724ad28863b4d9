//! Fresh links to documents' files.

use secrecy::ExposeSecret;

use super::connection::Transaction;
use super::rows::keepable;
use super::triggers::raise;
use crate::domain::Timestamp;
use crate::store::words::kind_code;
use crate::store::{FreshLink, StoreError, TriggerKind};

/// Keeps the links of a page, where the feed is read for their sake.
pub(super) async fn keep(
    transaction: &Transaction<'_>,
    feed: i64,
    links: &[FreshLink],
    now: Timestamp,
) -> Result<(), StoreError> {
    if links.is_empty() || !is_wished(transaction, feed).await? {
        return Ok(());
    }
    let ids: Vec<String> = links.iter().map(|l| keepable(&l.document_id)).collect();
    let versions: Vec<String> = links.iter().map(|l| keepable(&l.version)).collect();
    let urls: Vec<String> = links
        .iter()
        .map(|l| keepable(l.url.expose_secret()))
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

/// Ends the wish that a run has served: one that began after it. A wish that came while
/// the run was under way is served by another one, now.
pub(super) async fn end_wish(
    transaction: &Transaction<'_>,
    feed: i64,
    kind: TriggerKind,
) -> Result<(), StoreError> {
    transaction
        .execute(
            "DELETE FROM fresh_link_request WHERE feed_id = $1 AND asked_at <=
                 (SELECT started_at FROM feed_pull WHERE feed_id = $1 AND kind = $2)",
            &[&feed, &kind_code(kind)],
        )
        .await?;
    if is_wished(transaction, feed).await? {
        let now = transaction.now();
        raise(transaction, feed, TriggerKind::Reconciliation, now).await?;
    }
    Ok(())
}

/// Whether the feed is read for the sake of links.
async fn is_wished(transaction: &Transaction<'_>, feed: i64) -> Result<bool, StoreError> {
    let row = transaction
        .query_opt(
            "SELECT 1 FROM fresh_link_request WHERE feed_id = $1",
            &[&feed],
        )
        .await?;
    Ok(row.is_some())
}
