//! Retention: removing old rows and bodies, a bounded number at a time.

use super::alarms::remove_old_alarms;
use super::engine::{Fragment, Sql, Tx, operations, params, rows};
use super::error::Result;
use super::quarantine::remove_old_quarantined;
use super::search::remove_terms;
use super::tallies::remove_old_tallies;
use super::uploads::remove_upload_locations;
use crate::domain::{DestinationName, Timestamp};

/// Maximum number of notifications, quarantined messages, alarms, links and locations of uploads, each, that
/// a retention step changes, so that ingest never waits long.
const RETENTION_BATCH: usize = 500;

/// Maximum number of deliveries that one step looks at, to remove their documents' bodies with the terms by
/// which they were found.
const DOCUMENT_BATCH: usize = 100;

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
    /// True if there may be more to remove: the next step should follow soon.
    pub more: bool,
    /// True if there may be old deliveries after those that were looked at.
    pub goes_on: bool,
}

operations! {
    /// Removes a bounded number of the rows and bodies that `retention` names.
    pub write retain(retention: Retention) -> RetentionOutcome;
}

/// The progress of retention.
struct Progress {
    notification: i64,
    changed_at: Timestamp,
    sequence: i64,
}

rows! { Progress { notification, changed_at, sequence } }

async fn retain<T: Tx>(tx: &T, retention: Retention) -> Result<RetentionOutcome> {
    // None while another replica does the same.
    static DONE: Sql =
        Sql::new("SELECT notification_id, changed_at, sequence FROM retention{skip_locked}");
    let Some(done) = tx.first::<Progress>(&DONE, &[]).await? else {
        return Ok(RetentionOutcome::default());
    };
    let (notification_bodies, is_cut) =
        remove_notification_bodies(tx, retention.notifications_before, done.notification).await?;
    let (document_bodies, goes_on) = remove_document_bodies(tx, &retention, &done).await?;
    let quarantined =
        remove_old_quarantined(tx, retention.quarantine_before, RETENTION_BATCH).await?;
    let alarms = remove_old_alarms(tx, retention.alarms_before, RETENTION_BATCH).await?;
    remove_old_tallies(tx, retention.tallies_before).await?;
    let links = remove_links(tx, retention.links_before).await?;
    let locations = remove_upload_locations(tx, retention.links_before, RETENTION_BATCH).await?;
    let most = quarantined.max(alarms).max(links).max(locations);
    Ok(RetentionOutcome {
        notification_bodies,
        document_bodies,
        quarantined,
        alarms,
        more: is_cut || most == RETENTION_BATCH || (goes_on && document_bodies > 0),
        goes_on,
    })
}

/// Removes the bodies of a batch of old notifications, continuing after `done`. Returns their number, and
/// whether there may be more.
async fn remove_notification_bodies<T: Tx>(
    tx: &T,
    before: Timestamp,
    done: i64,
) -> Result<(usize, bool)> {
    static NEWEST: Sql = Sql::new(
        "SELECT count(*), max(id) FROM (
             SELECT id, received_at FROM notification WHERE id > $3 ORDER BY id LIMIT $2) AS step
         WHERE received_at < $1",
    );
    static REMOVE: Sql = Sql::new(
        "UPDATE notification SET body = NULL WHERE id > $1 AND id <= $2 AND body IS NOT NULL",
    );
    static CONTINUE: Sql = Sql::new("UPDATE retention SET notification_id = $1");
    let params = params! { before, RETENTION_BATCH, done };
    let (count, newest): (usize, Option<i64>) = tx.one(&NEWEST, params).await?;
    let Some(newest) = newest else {
        return Ok((0, false));
    };
    let removed = tx.execute(&REMOVE, &[&done, &newest]).await?;
    tx.run(&CONTINUE, &[&newest]).await?;
    Ok((removed, count == RETENTION_BATCH))
}

/// Looks at a batch of old deliveries, the earliest first, continuing where the last step ended, and after
/// the last one from the beginning. Removes the bodies of those documents that no configured destination has
/// yet to receive. Returns their number, and whether there may be deliveries after them.
async fn remove_document_bodies<T: Tx>(
    tx: &T,
    retention: &Retention,
    done: &Progress,
) -> Result<(usize, bool)> {
    static DELIVERED: Sql = Sql::new(
        "SELECT changed_at, sequence FROM delivery
         WHERE state = 'delivered' AND NOT body_removed AND changed_at < $1 AND (changed_at, sequence) > ($2, $3)
         ORDER BY changed_at, sequence LIMIT $4",
    );
    // Documents that another transaction has locked are left for later.
    static REMOVABLE: Sql = Sql::with(
        "SELECT d.sequence FROM document d {then_join} feed f ON f.id = d.feed_id
         WHERE d.sequence IN ({elements}($3))
           AND NOT EXISTS (SELECT 1 FROM delivery o WHERE o.sequence = d.sequence
               AND (o.state IN ('pending', 'deferred', 'waiting_file', 'held', 'rejected') OR o.changed_at >= $1))
           AND NOT EXISTS (SELECT 1 FROM destination s WHERE s.name IN ({elements}($2))
               AND {filter} ->> 'queue' = f.queue
               AND (s.lanes_to < f.id OR EXISTS (
                   SELECT 1 FROM lane l WHERE l.destination_id = s.id AND l.feed_id = f.id AND l.removed_at IS NULL
                     AND (l.position < d.sequence OR NOT d.superseded AND NOT EXISTS (
                         SELECT 1 FROM delivery p WHERE p.destination_id = s.id AND p.sequence = d.sequence)))))
         ORDER BY d.sequence{skip_locked_documents}",
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
    static CONTINUE: Sql = Sql::new("UPDATE retention SET changed_at = $1, sequence = $2");
    let (before, destinations) = (&retention.documents_before, &retention.destinations);
    let params = params! { before, done.changed_at, done.sequence, DOCUMENT_BATCH };
    let delivered: Vec<(Timestamp, i64)> = tx.all(&DELIVERED, params).await?;
    let goes_on = delivered.len() == DOCUMENT_BATCH;
    let last = delivered.last().filter(|_| goes_on).copied();
    let (changed_at, sequence) = last.unwrap_or((Timestamp::from_millis(0), 0));
    if (changed_at, sequence) != (done.changed_at, done.sequence) {
        tx.run(&CONTINUE, params! { changed_at, sequence }).await?;
    }
    let looked_at: Vec<i64> = delivered
        .into_iter()
        .map(|(_, sequence)| sequence)
        .collect();
    if looked_at.is_empty() {
        return Ok((0, goes_on));
    }
    let params = params! { before, destinations, looked_at };
    let removable: Vec<i64> = tx.all(&REMOVABLE, params).await?;
    if !removable.is_empty() {
        tx.run(&REMOVE, &[&removable]).await?;
        remove_terms(tx, &removable).await?;
        tx.run(&RECORD, &[&removable]).await?;
    }
    Ok((removable.len(), goes_on))
}

/// Removes a batch of old links; returns their number.
async fn remove_links<T: Tx>(tx: &T, before: Timestamp) -> Result<usize> {
    static SQL: Sql = Sql::new(
        "DELETE FROM document_link WHERE sequence IN (
             SELECT sequence FROM document_link WHERE listed_at < $1 ORDER BY listed_at LIMIT $2{skip_locked})",
    );
    tx.execute(&SQL, &[&before, &RETENTION_BATCH]).await
}
