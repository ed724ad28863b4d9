//! Retention: removing old rows and bodies, a bounded number at a time.

use super::alarms::remove_old_alarms;
use super::engine::{Fragment, Sql, Tx, operations, params};
use super::error::Result;
use super::quarantine::remove_old_quarantined;
use super::search::remove_terms;
use super::tallies::remove_old_tallies;
use super::uploads::remove_upload_locations;
use crate::domain::{DestinationName, Timestamp};

/// Maximum number of rows that one retention step changes, so that ingest never waits long.
const RETENTION_BATCH: i64 = 1_500;

/// Maximum number of documents' bodies that one step removes, with the terms by which they were found.
const DOCUMENT_BATCH: i64 = 400;

/// The moments before which rows are removed.
#[derive(Clone, Debug)]
pub struct Retention {
    /// Bodies of notifications older than this are removed.
    pub notifications_before: Timestamp,
    /// Bodies of documents are removed that a destination accepted before this, unless one
    /// of [`Retention::destinations`] has yet to receive them.
    pub documents_before: Timestamp,
    /// The configured destinations.
    pub destinations: Vec<DestinationName>,
    /// Links to files that were listed, and locations of uploads that were used, before this
    /// are removed.
    pub links_before: Timestamp,
    /// Quarantined messages older than this are removed.
    pub quarantine_before: Timestamp,
    /// Alarms that ended before this are removed.
    pub alarms_before: Timestamp,
    /// Counts of hours before this are removed.
    pub tallies_before: Timestamp,
}

/// Number of rows or bodies that a retention step removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionOutcome {
    /// Bodies of notifications.
    pub notification_bodies: usize,
    /// Bodies of documents.
    pub document_bodies: usize,
    /// Quarantined messages.
    pub quarantined: usize,
    /// Alarms.
    pub alarms: usize,
}

operations! {
    /// Removes a bounded number of the rows and bodies that `retention` names.
    pub write retain(retention: Retention) -> RetentionOutcome;
}

async fn retain<T: Tx>(tx: &T, retention: Retention) -> Result<RetentionOutcome> {
    let outcome = RetentionOutcome {
        notification_bodies: remove_notification_bodies(tx, retention.notifications_before).await?,
        document_bodies: remove_document_bodies(tx, &retention).await?,
        quarantined: remove_old_quarantined(tx, retention.quarantine_before, RETENTION_BATCH)
            .await?,
        alarms: remove_old_alarms(tx, retention.alarms_before, RETENTION_BATCH).await?,
    };
    remove_old_tallies(tx, retention.tallies_before).await?;
    remove_links(tx, retention.links_before).await?;
    remove_upload_locations(tx, retention.links_before, RETENTION_BATCH).await?;
    Ok(outcome)
}

/// Removes the bodies of a batch of old notifications, continuing where the last step ended;
/// none while another replica does so.
async fn remove_notification_bodies<T: Tx>(tx: &T, before: Timestamp) -> Result<usize> {
    static DONE: Sql = Sql::new("SELECT notification_id FROM retention{skip_locked}");
    static NEWEST: Sql = Sql::new(
        "SELECT max(id) FROM (
             SELECT id, received_at FROM notification WHERE id > $3 ORDER BY id LIMIT $2) AS step
         WHERE received_at < $1",
    );
    static REMOVE: Sql = Sql::new(
        "UPDATE notification SET body = NULL WHERE id > $1 AND id <= $2 AND body IS NOT NULL",
    );
    static CONTINUE: Sql = Sql::new("UPDATE retention SET notification_id = $1");
    let done: Option<i64> = tx.first(&DONE, &[]).await?;
    let Some(done) = done else {
        return Ok(0);
    };
    let newest: Option<i64> = tx.one(&NEWEST, &[&before, &RETENTION_BATCH, &done]).await?;
    let Some(newest) = newest else {
        return Ok(0);
    };
    let removed = tx.execute(&REMOVE, &[&done, &newest]).await?;
    tx.run(&CONTINUE, &[&newest]).await?;
    Ok(removed)
}

/// Removes the bodies of a batch of documents that were delivered long ago and that no
/// configured destination has yet to receive, the earliest first.
async fn remove_document_bodies<T: Tx>(tx: &T, retention: &Retention) -> Result<usize> {
    // Rows that another replica has locked are left to it.
    static REMOVABLE: Sql = Sql::with(
        "SELECT h.sequence FROM delivery h
         JOIN document d ON d.sequence = h.sequence
         JOIN feed f ON f.id = d.feed_id
         WHERE h.state = 'delivered' AND NOT h.body_removed AND h.changed_at < $1
           AND NOT EXISTS (SELECT 1 FROM delivery o WHERE o.sequence = h.sequence
               AND (o.state IN ('pending', 'deferred', 'waiting_file', 'held', 'rejected') OR o.changed_at >= $1))
           AND NOT EXISTS (SELECT 1 FROM destination s WHERE s.name IN ({elements}($2))
               AND {filter} ->> 'queue' = f.queue
               AND (s.lanes_to < f.id OR EXISTS (
                   SELECT 1 FROM lane l WHERE l.destination_id = s.id AND l.feed_id = f.id AND l.removed_at IS NULL
                     AND (l.position < h.sequence OR NOT d.superseded AND NOT EXISTS (
                         SELECT 1 FROM delivery p WHERE p.destination_id = s.id AND p.sequence = h.sequence)))))
         ORDER BY h.changed_at LIMIT $3{skip_locked_documents}",
        &[
            (
                "filter",
                Fragment::Differs("s.filter", "s.filter::json"),
            ),
            (
                "skip_locked_documents",
                Fragment::Differs("", " FOR NO KEY UPDATE OF d SKIP LOCKED"),
            ),
        ],
    );
    static REMOVE: Sql =
        Sql::new("UPDATE document SET body = NULL WHERE sequence IN ({elements}($1))");
    static RECORD: Sql =
        Sql::new("UPDATE delivery SET body_removed = true WHERE sequence IN ({elements}($1))");
    let (before, destinations) = (&retention.documents_before, &retention.destinations);
    let params = params! { before, destinations, DOCUMENT_BATCH };
    let removable: Vec<i64> = tx.all(&REMOVABLE, params).await?;
    tx.run(&REMOVE, &[&removable]).await?;
    remove_terms(tx, &removable).await?;
    tx.run(&RECORD, &[&removable]).await?;
    Ok(removable.len())
}

/// Removes a batch of old links.
async fn remove_links<T: Tx>(tx: &T, before: Timestamp) -> Result<()> {
    static SQL: Sql = Sql::new(
        "DELETE FROM document_link WHERE sequence IN (
             SELECT sequence FROM document_link WHERE listed_at < $1 ORDER BY listed_at LIMIT $2{skip_locked})",
    );
    tx.run(&SQL, &[&before, &RETENTION_BATCH]).await
}
