//! Fresh links to documents' files.

use rusqlite::{Connection, params};
use secrecy::ExposeSecret;

use super::triggers::raise;
use crate::domain::Timestamp;
use crate::store::words::kind_code;
use crate::store::{FreshLink, TriggerKind};

/// Keeps the links of a page, where the feed is read for their sake.
pub(super) fn keep(
    connection: &Connection,
    feed: i64,
    links: &[FreshLink],
    now: Timestamp,
) -> rusqlite::Result<()> {
    if !is_wished(connection, feed)? {
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

/// Ends the wish that a run has served: one that began after it. A wish that came while
/// the run was under way is served by another one, now.
pub(super) fn end_wish(
    connection: &Connection,
    feed: i64,
    kind: TriggerKind,
    now: Timestamp,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM fresh_link_request WHERE feed_id = ?1 AND asked_at <=
                 (SELECT started_at FROM feed_pull WHERE feed_id = ?1 AND kind = ?2)",
        )?
        .execute(params![feed, kind_code(kind)])?;
    if is_wished(connection, feed)? {
        raise(connection, feed, TriggerKind::Reconciliation, now)?;
    }
    Ok(())
}

/// Whether the feed is read for the sake of links.
fn is_wished(connection: &Connection, feed: i64) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM fresh_link_request WHERE feed_id = ?1)")?
        .query_row(params![feed], |row| row.get(0))
}
