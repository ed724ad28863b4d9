//! Fresh links to documents' files.

use secrecy::ExposeSecret;

use super::deliveries::FreshLink;
use super::engine::{Fragment, Param, Sql, Tx};
use super::error::Result;
use super::trigger_kind::TriggerKind;
use super::triggers::{backfill_from_beginning, raise};
use crate::domain::{Timestamp, version_key};

/// Stores the links of a page, if fresh links were requested for the feed.
pub(super) async fn store_links<T: Tx>(
    tx: &T,
    feed: i64,
    links: &[FreshLink],
    now: Timestamp,
) -> Result<()> {
    static SQL: Sql = Sql::new(
        "INSERT INTO document_link (sequence, url, listed_at)
         SELECT sequence, $4, $5 FROM document WHERE document_id = $1 AND version = $2 AND feed_id = $3
         ON CONFLICT (sequence) DO UPDATE SET url = excluded.url, listed_at = excluded.listed_at RETURNING sequence",
    );
    if links.is_empty() || !links_requested(tx, feed).await? {
        return Ok(());
    }
    // Their documents need not wait any longer. In the order in which workers change them, which prevents
    // deadlocks.
    static DUE: Sql = Sql::new(
        "WITH chosen AS (
             SELECT destination_id, sequence FROM delivery
             WHERE sequence IN ({elements}($1)) AND state = 'waiting_file'
             ORDER BY destination_id, sequence{lock_rows})
         UPDATE delivery AS h SET next_try_at = $2
         FROM chosen AS c WHERE h.destination_id = c.destination_id AND h.sequence = c.sequence",
    );
    let mut fresh: Vec<i64> = Vec::new();
    for link in links {
        let url = link.url.expose_secret();
        let version = version_key(&link.version);
        let params: [&dyn Param; 5] = [&link.document_id, &version, &feed, &url, &now];
        fresh.extend(tx.all::<i64>(&SQL, &params).await?);
    }
    fresh.sort_unstable();
    tx.run(&DUE, &[&fresh, &now]).await
}

/// Requests a fresh link to the file of a version that `destination` is to receive: first by
/// an overlap read, then, if that brought none, by reading the feed from its beginning.
pub(super) async fn request_fresh_link<T: Tx>(
    tx: &T,
    destination: i64,
    sequence: i64,
    now: Timestamp,
) -> Result<()> {
    static COUNT: Sql = Sql::new(
        "UPDATE delivery SET link_tries = link_tries + 1 WHERE destination_id = $1 AND sequence = $2
         RETURNING link_tries",
    );
    static FEED: Sql = Sql::new("SELECT feed_id FROM document WHERE sequence = $1");
    static REQUEST: Sql = Sql::new(
        "INSERT INTO fresh_link_request (feed_id, requested_at) VALUES ($1, $2) ON CONFLICT (feed_id) DO NOTHING",
    );
    let tries: i64 = tx.one(&COUNT, &[&destination, &sequence]).await?;
    let feed: i64 = tx.one(&FEED, &[&sequence]).await?;
    tx.run(&REQUEST, &[&feed, &now]).await?;
    if tries == 1 {
        raise(tx, feed, TriggerKind::Reconciliation, now).await
    } else {
        backfill_from_beginning(tx, feed, now).await
    }
}

/// Completes a request for links that was made before this pull began. A request made
/// during the pull triggers another one, due now.
pub(super) async fn complete_link_request<T: Tx>(
    tx: &T,
    feed: i64,
    kind: TriggerKind,
    now: Timestamp,
) -> Result<()> {
    static COMPLETE: Sql = Sql::new(
        "DELETE FROM fresh_link_request WHERE feed_id = $1 AND requested_at <=
             (SELECT started_at FROM feed_pull WHERE feed_id = $1 AND kind = $2)",
    );
    // What it brought no link for is attempted once more, and reads the feed from its beginning.
    static DUE: Sql = Sql::with(
        "UPDATE delivery SET next_try_at = $2 WHERE (destination_id, sequence) IN (
             SELECT h.destination_id, h.sequence FROM destination s
             {then_join} delivery h{by_state} ON h.destination_id = s.id AND h.state = 'waiting_file' AND h.state <> 'delivered'
             {then_join} document d ON d.sequence = h.sequence AND d.feed_id = $1{lock_in_order})",
        &[(
            "lock_in_order",
            Fragment::Differs(
                "",
                " ORDER BY h.destination_id, h.sequence FOR NO KEY UPDATE OF h",
            ),
        )],
    );
    if tx.execute(&COMPLETE, &[&feed, &kind]).await? > 0 {
        tx.run(&DUE, &[&feed, &now]).await?;
    }
    if links_requested(tx, feed).await? {
        raise(tx, feed, TriggerKind::Reconciliation, now).await?;
    }
    Ok(())
}

/// Returns true if fresh links were requested for the feed.
async fn links_requested<T: Tx>(tx: &T, feed: i64) -> Result<bool> {
    static SQL: Sql = Sql::new("SELECT 1 FROM fresh_link_request WHERE feed_id = $1");
    Ok(tx.first::<()>(&SQL, &[&feed]).await?.is_some())
}
