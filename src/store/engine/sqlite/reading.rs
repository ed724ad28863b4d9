//! Which versions of a page are stored already.

use rusqlite::{Connection, params};

use crate::domain::Feed;

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
