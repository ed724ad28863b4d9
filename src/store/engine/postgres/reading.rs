//! Which versions of a page are stored already.

use super::connection::Transaction;
use super::rows::escape_nul;
use crate::domain::Feed;
use crate::store::StoreError;

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
