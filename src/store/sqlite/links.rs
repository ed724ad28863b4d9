//! Fresh links to documents' files.

use rusqlite::{Connection, params};
use secrecy::ExposeSecret;

use super::triggers::raise;
use crate::domain::Timestamp;
use crate::store::columns::kind_code;
use crate::store::{FreshLink, TriggerKind};

/// Stores the links of a page, if fresh links were requested for the feed.
pub(super) fn store(
    connection: &Connection,
    feed: i64,
    links: &[FreshLink],
    now: Timestamp,
) -> rusqlite::Result<()> {
    if !links_requested(connection, feed)? {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(
        "INSERT INTO document_link (sequence, url, listed_at)
         SELECT sequence, ?4, ?5 FROM document WHERE document_id = ?1 AND version = ?2 AND feed_id = ?3
         ON CONFLICT (sequence) DO UPDATE SET url = excluded.url, listed_at = excluded.listed_at",
    )?;
    for link in links {
        statement.execute(params![
            link.document_id,
            link.version,
            feed,
            link.url.expose_secret(),
            now.as_millis()
        ])?;
    }
    Ok(())
}

/// Completes a request for links that was made before this pull began. A request made
/// during the pull triggers another one, due now.
pub(super) fn complete_link_request(
    connection: &Connection,
    feed: i64,
    kind: TriggerKind,
    now: Timestamp,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM fresh_link_request WHERE feed_id = ?1 AND requested_at <=
                 (SELECT started_at FROM feed_pull WHERE feed_id = ?1 AND kind = ?2)",
        )?
        .execute(params![feed, kind_code(kind)])?;
    if links_requested(connection, feed)? {
        raise(connection, feed, TriggerKind::Reconciliation, now)?;
    }
    Ok(())
}

/// Returns true if fresh links were requested for the feed.
fn links_requested(connection: &Connection, feed: i64) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM fresh_link_request WHERE feed_id = ?1)")?
        .query_row(params![feed], |row| row.get(0))
}
