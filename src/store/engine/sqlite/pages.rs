//! Storing a page with its cursor, and the triggers that follow, in one transaction.

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use rusqlite::{Connection, OptionalExtension, params};

use super::error::explain;
use super::leases::{check_fence, last_overlap_read, save_position, saved_cursors};
use super::rows::{self, account_id, feed_id};
use super::tx::{SqliteTx, immediate};
use crate::domain::{Cursor, DocumentVersion, Feed, Queue, Timestamp};
use crate::store::columns::kind_code;
use crate::store::completion::complete_pull;
use crate::store::limits::MAX_UNREADABLE_ENTRIES;
use crate::store::links::store_links;
use crate::store::pausing::pause_feed;
use crate::store::pulls;
use crate::store::uploads::link_documents;
use crate::store::{
    COMPANY_FILTER_IGNORED, FeedPauseReason, PageCommitted, PageEnd, PageLease, PageOutcome,
    PageToCommit, PullPlan, StoreError, TriggerKind, UnreadableEntry,
};

/// Stores a page with its cursor, raises the triggers that follow, and releases the lease.
pub(super) fn commit(
    connection: &mut Connection,
    path: &Path,
    lease: &PageLease,
    page: &PageToCommit,
    plan: &PullPlan,
) -> Result<PageOutcome, StoreError> {
    let explain = |error| explain(path, error);
    check_fence(connection, path, lease)?;
    if company_filter_ignored(connection, lease, &page.documents).map_err(explain)? {
        immediate(pause_feed(
            &mut SqliteTx::new(connection, path),
            lease.feed_id,
            FeedPauseReason::CompanyFilterIgnored,
            None,
            COMPANY_FILTER_IGNORED,
        ))?;
        return Ok(PageOutcome::CompanyFilterIgnored);
    }
    let mut tx = SqliteTx::new(connection, path);
    immediate(async {
        link_documents(&mut tx, &lease.feed.account, &page.uploads).await?;
        store_links(&mut tx, lease.feed_id, &page.links, plan.now).await
    })?;
    let outcome = store_page(connection, lease, page, plan).map_err(explain)?;
    if page.end == PageEnd::UpToDate {
        immediate(complete_pull(
            &mut SqliteTx::new(connection, path),
            lease,
            plan,
        ))?;
    }
    Ok(outcome)
}

fn store_page(
    connection: &Connection,
    lease: &PageLease,
    page: &PageToCommit,
    plan: &PullPlan,
) -> rusqlite::Result<PageOutcome> {
    let mut numbering = Numbering::read(connection)?;
    let notified_at = notified_at(connection, lease.feed_id)?;
    let mut new = 0;
    let mut missed_notifications = 0;
    for document in &page.documents {
        if insert_document(connection, lease, document, plan.now, &mut numbering)? {
            new += 1;
            missed_notifications +=
                usize::from(pulls::is_unannounced(lease, document, notified_at));
        }
    }
    for entry in &page.unreadable {
        store_unreadable(connection, lease.feed_id, entry, plan.now)?;
    }
    for company in &page.companies {
        feed_id(
            connection,
            &Feed::exported(lease.feed.account.clone(), company.clone()),
            plan.now,
        )?;
    }
    let up_to_date = page.end == PageEnd::UpToDate;
    move_cursor(connection, lease, page, plan, up_to_date)?;
    connection
        .prepare_cached(
            "UPDATE feed SET leased_until = NULL, last_page_at = ?2, documents = documents + ?3,
                 missed_notifications = missed_notifications + ?4, gaps = gaps + ?5,
                 paused = CASE WHEN paused = 'by_hand' THEN paused END, waits_until = NULL, failures = 0, last_error = NULL
             WHERE id = ?1",
        )?
        .execute(params![lease.feed_id, plan.now.as_millis(), new, missed_notifications, page.gap])?;
    connection
        .prepare_cached(
            // A wait set since by another request in flight is kept.
            "UPDATE account SET paused = CASE WHEN paused = 'by_hand' THEN paused END,
                 waits_until = CASE WHEN waits_until > ?2 THEN waits_until END, failures = 0, last_error = NULL
             WHERE id = ?1 AND (failures > 0 OR paused IS NOT NULL)",
        )?
        .execute(params![account_id(connection, &lease.feed.account)?, plan.now.as_millis()])?;
    // Written last, so that a visible number is a committed one.
    numbering.write(connection)?;
    Ok(PageOutcome::Committed(PageCommitted {
        new,
        known: page.documents.len() - new,
        up_to_date,
        missed_notifications,
    }))
}

/// Returns the moment when the newest notification of this feed arrived.
fn notified_at(connection: &Connection, feed: i64) -> rusqlite::Result<Option<Timestamp>> {
    connection
        .prepare_cached("SELECT due_at FROM feed_trigger WHERE feed_id = ?1 AND kind = ?2")?
        .query_row(params![feed, kind_code(TriggerKind::Notification)], |row| {
            rows::timestamp(row, 0)
        })
        .optional()
}

/// Selects whether feeds of other companies have a version, and whether this one has.
const OTHER_COMPANIES: &str = "
    SELECT max(d.feed_id <> ?3), max(d.feed_id = ?3) FROM document d JOIN feed f ON f.id = d.feed_id
    WHERE d.document_id = ?1 AND d.version = ?2 AND f.account_id = ?4 AND f.queue = 'exported'";

/// Returns true if every document is stored for another company, and not all for this one.
fn company_filter_ignored(
    connection: &Connection,
    lease: &PageLease,
    documents: &[DocumentVersion],
) -> rusqlite::Result<bool> {
    if lease.feed.queue != Queue::Exported || documents.is_empty() {
        return Ok(false);
    }
    let account = account_id(connection, &lease.feed.account)?;
    let mut elsewhere = connection.prepare_cached(OTHER_COMPANIES)?;
    let mut all_here = true;
    for document in documents {
        let (others, here): (Option<bool>, Option<bool>) = elsewhere.query_row(
            params![document.id, document.version, lease.feed_id, account],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        if others != Some(true) {
            return Ok(false);
        }
        all_here &= here == Some(true);
    }
    Ok(!all_here)
}

/// The counter of the gap-free sequence, read first and written last.
struct Numbering {
    before: i64,
    last: i64,
}

impl Numbering {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let last = connection
            .prepare_cached("SELECT last FROM sequence")?
            .query_row([], |row| row.get(0))?;
        Ok(Self { before: last, last })
    }

    fn next(&self) -> i64 {
        self.last + 1
    }

    fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.last > self.before {
            connection
                .prepare_cached("UPDATE sequence SET last = ?1")?
                .execute(params![self.last])?;
        }
        Ok(())
    }
}

/// Stores one version; returns false if it is stored already.
fn insert_document(
    connection: &Connection,
    lease: &PageLease,
    document: &DocumentVersion,
    now: Timestamp,
    numbering: &mut Numbering,
) -> rusqlite::Result<bool> {
    let version_ms = document.version_time().map(Timestamp::as_millis);
    let inserted = connection
        .prepare_cached(
            "INSERT INTO document (sequence, feed_id, document_id, version, version_ms, superseded, first_pull,
                 found_by, stored_at, body)
             VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7, ?8, ?9)
             ON CONFLICT (document_id, version, feed_id) DO NOTHING",
        )?
        .execute(params![
            numbering.next(),
            lease.feed_id,
            document.id,
            document.version,
            version_ms,
            lease.first_pull,
            kind_code(lease.kind),
            now.as_millis(),
            document.body,
        ])?;
    if inserted == 0 {
        return Ok(false);
    }
    numbering.last = numbering.next();
    supersede(
        connection,
        lease.feed_id,
        document,
        numbering.last,
        version_ms,
    )?;
    Ok(true)
}

/// Selects the document's current version other than the given one. The index is fixed, as
/// SQLite would otherwise scan the whole feed instead of the document's few versions.
const CURRENT_VERSION: &str = "
    SELECT sequence, version_ms FROM document INDEXED BY document_identity
    WHERE document_id = ?1 AND feed_id = ?2 AND superseded = 0 AND sequence <> ?3";

/// Leaves one version of the document current: the latest by its moment, or else by its
/// sequence number.
fn supersede(
    connection: &Connection,
    feed: i64,
    document: &DocumentVersion,
    sequence: i64,
    version_ms: Option<i64>,
) -> rusqlite::Result<()> {
    let current: Option<(i64, Option<i64>)> = connection
        .prepare_cached(CURRENT_VERSION)?
        .query_row(params![document.id, feed, sequence], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let Some((current, current_ms)) = current else {
        return Ok(());
    };
    let arrived_late = matches!((version_ms, current_ms), (Some(new), Some(old)) if new < old);
    let older = if arrived_late { sequence } else { current };
    connection
        .prepare_cached("UPDATE document SET superseded = 1 WHERE sequence = ?1")?
        .execute(params![older])?;
    Ok(())
}

/// Stores an entry without a usable id, once.
fn store_unreadable(
    connection: &Connection,
    feed: i64,
    entry: &UnreadableEntry,
    now: Timestamp,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO unreadable (feed_id, digest, seen_at, body)
             SELECT ?1, ?2, ?3, ?4 WHERE (SELECT count(*) FROM unreadable WHERE feed_id = ?1) < ?5
             ON CONFLICT (feed_id, digest) DO NOTHING",
        )?
        .execute(params![
            feed,
            digest(&SHA256, &entry.dedup_key).as_ref(),
            now.as_millis(),
            entry.body,
            MAX_UNREADABLE_ENTRIES
        ])?;
    Ok(())
}

/// Saves the position of the pull, and the feed's cursor if this kind of pull moves it.
fn move_cursor(
    connection: &Connection,
    lease: &PageLease,
    page: &PageToCommit,
    plan: &PullPlan,
    up_to_date: bool,
) -> rusqlite::Result<()> {
    let advance = pulls::advance(lease, page, up_to_date);
    save_position(connection, lease.feed_id, advance.kind, &advance.position)?;
    let Some(cursor) = advance.cursor else {
        return Ok(());
    };
    connection
        .prepare_cached("UPDATE feed SET cursor = ?2 WHERE id = ?1")?
        .execute(params![lease.feed_id, cursor.as_str()])?;
    save_cursor(connection, lease.feed_id, &cursor, plan)
}

/// Saves a cursor, and removes those that no overlap read needs any more.
fn save_cursor(
    connection: &Connection,
    feed: i64,
    cursor: &Cursor,
    plan: &PullPlan,
) -> rusqlite::Result<()> {
    let old_enough = last_overlap_read(connection, feed, plan.now)?.before(plan.lookback);
    let saved = saved_cursors(connection, feed)?;
    let change = pulls::plan_cursor_save(&saved, old_enough, plan.now);
    let mut delete = connection
        .prepare_cached("DELETE FROM feed_cursor WHERE feed_id = ?1 AND saved_at = ?2")?;
    for unneeded in change.unneeded {
        delete.execute(params![feed, unneeded.as_millis()])?;
    }
    connection
        .prepare_cached("INSERT INTO feed_cursor (feed_id, saved_at, cursor) VALUES (?1, ?2, ?3)")?
        .execute(params![feed, change.saved_at.as_millis(), cursor.as_str()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_for_each_document_never_scan_its_feed() {
        let folder = tempfile::tempdir().expect("created a folder");
        let path = folder.path().join("plan.db");
        let connection = super::super::schema::open_for_writing(&path).expect("created a store");
        for sql in [CURRENT_VERSION, OTHER_COMPANIES] {
            let plan: Vec<String> = connection
                .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
                .and_then(|mut statement| {
                    let parameters = vec![1; statement.parameter_count()];
                    statement
                        .query_map(rusqlite::params_from_iter(parameters), |row| row.get(3))?
                        .collect()
                })
                .expect("explained the query");
            let plan = plan.join("; ");
            assert!(
                plan.contains("INDEX document_identity (document_id=?"),
                "{sql}: {plan}"
            );
        }
    }
}
