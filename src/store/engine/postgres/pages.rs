//! Storing a page with its cursor, and the triggers that follow, in one transaction.
//!
//! A feed and its pulls are only changed under a lock of the feed's row and with its newest
//! fence. Rows are locked in the same order everywhere: feed, account, rows that belong to
//! the feed, and the sequence's counter last.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};

use super::connection::{Parameter, Pool, Transaction};
use super::leases::{last_overlap_read, lock_as_owner, save_position, saved_cursors};
use super::rows::{self, escape_nul, feed_ids};
use crate::domain::{Cursor, DocumentVersion, Feed, Queue, Timestamp};
use crate::store::columns::kind_code;
use crate::store::completion::complete_pull;
use crate::store::limits::MAX_UNREADABLE_ENTRIES;
use crate::store::links::store_links;
use crate::store::pausing::pause_feed;
use crate::store::pulls::{self, is_unannounced};
use crate::store::uploads::link_documents;
use crate::store::{
    COMPANY_FILTER_IGNORED, FeedPauseReason, PageCommitted, PageEnd, PageLease, PageOutcome,
    PageToCommit, PullPlan, StoreError, TriggerKind, UnreadableEntry,
};

/// Stores a page with its cursor, raises the triggers that follow, and releases the lease.
pub(super) async fn commit(
    pool: &Pool,
    lease: &PageLease,
    page: &PageToCommit,
    plan: &PullPlan,
) -> Result<PageOutcome, StoreError> {
    let mut transaction = pool.write().await?;
    let Some(account) = lock_as_owner(&transaction, lease).await? else {
        transaction.roll_back().await?;
        return Err(StoreError::StaleLease);
    };
    // The database's time, not the caller's.
    let plan = PullPlan {
        now: transaction.now(),
        ..plan.clone()
    };
    let stored = StoredVersions::read(&transaction, lease, account, &page.documents).await?;
    if stored.company_filter_ignored(lease, &page.documents) {
        pause_feed(
            &mut transaction,
            lease.feed_id,
            FeedPauseReason::CompanyFilterIgnored,
            None,
            COMPANY_FILTER_IGNORED,
        )
        .await?;
        transaction.commit().await?;
        return Ok(PageOutcome::CompanyFilterIgnored);
    }
    let new = stored.new_of(&page.documents);
    let up_to_date = page.end == PageEnd::UpToDate;
    let notified_at = notified_at(&transaction, lease.feed_id).await?;
    let missed_notifications = new
        .iter()
        .filter(|document| is_unannounced(lease, document, notified_at))
        .count();
    record_page(
        &mut transaction,
        lease,
        page,
        &plan,
        [new.len(), missed_notifications],
    )
    .await?;
    record_success(&transaction, account, &plan).await?;
    let companies = page
        .companies
        .iter()
        .map(|company| Feed::exported(lease.feed.account.clone(), company.clone()));
    feed_ids(&transaction, companies, plan.now).await?;
    move_cursor(&transaction, lease, page, &plan, up_to_date).await?;
    if up_to_date {
        complete_pull(&mut transaction, lease, &plan).await?;
    }
    let outcome = PageOutcome::Committed(PageCommitted {
        new: new.len(),
        known: page.documents.len() - new.len(),
        up_to_date,
        missed_notifications,
    });
    insert_documents(transaction, lease, &new, plan.now).await?;
    Ok(outcome)
}

/// The versions of a page that are stored already.
struct StoredVersions {
    /// (id, version) to (stored for another company of the account, stored here).
    versions: HashMap<(String, String), (bool, bool)>,
}

impl StoredVersions {
    async fn read(
        transaction: &Transaction<'_>,
        lease: &PageLease,
        account: i64,
        documents: &[DocumentVersion],
    ) -> Result<Self, StoreError> {
        let ids: Vec<String> = documents.iter().map(|d| escape_nul(&d.id)).collect();
        let versions: Vec<String> = documents.iter().map(|d| escape_nul(&d.version)).collect();
        let rows = transaction
            .query(
                "SELECT d.document_id, d.version,
                        bool_or(d.feed_id <> $3 AND f.account_id = $4 AND f.queue = 'exported'),
                        bool_or(d.feed_id = $3)
                 FROM unnest($1, $2) AS p (document_id, version)
                 JOIN document d ON d.document_id = p.document_id AND d.version = p.version
                 JOIN feed f ON f.id = d.feed_id
                 GROUP BY d.document_id, d.version",
                &[&ids, &versions, &lease.feed_id, &account],
            )
            .await?;
        let mut versions = HashMap::with_capacity(rows.len());
        for row in rows {
            versions.insert(
                (rows::text(&row, 0)?, rows::text(&row, 1)?),
                (row.try_get(2)?, row.try_get(3)?),
            );
        }
        Ok(Self { versions })
    }

    fn of(&self, document: &DocumentVersion) -> (bool, bool) {
        let key = (document.id.clone(), document.version.clone());
        self.versions.get(&key).copied().unwrap_or_default()
    }

    /// Returns true if every document is stored for another company, and not all for this
    /// one.
    fn company_filter_ignored(&self, lease: &PageLease, documents: &[DocumentVersion]) -> bool {
        lease.feed.queue == Queue::Exported
            && !documents.is_empty()
            && documents.iter().all(|document| self.of(document).0)
            && !documents.iter().all(|document| self.of(document).1)
    }

    /// Returns the versions that are not stored yet, each once. None is added before
    /// COMMIT: only the owner of the feed's lock inserts any.
    fn new_of<'d>(&self, documents: &'d [DocumentVersion]) -> Vec<&'d DocumentVersion> {
        let mut seen = std::collections::HashSet::new();
        documents
            .iter()
            .filter(|document| {
                !self.of(document).1 && seen.insert((&document.id, &document.version))
            })
            .collect()
    }
}

/// Returns the moment when the newest notification of this feed arrived.
async fn notified_at(
    transaction: &Transaction<'_>,
    feed: i64,
) -> Result<Option<Timestamp>, StoreError> {
    let row = transaction
        .query_opt(
            "SELECT due_at FROM feed_trigger WHERE feed_id = $1 AND kind = $2",
            &[&feed, &kind_code(TriggerKind::Notification)],
        )
        .await?;
    row.map(|row| rows::timestamp(&row, 0)).transpose()
}

async fn record_page(
    transaction: &mut Transaction<'_>,
    lease: &PageLease,
    page: &PageToCommit,
    plan: &PullPlan,
    [new, missed_notifications]: [usize; 2],
) -> Result<(), StoreError> {
    transaction
        .execute(
            "UPDATE feed SET leased_until = NULL, last_page_at = $2, documents = documents + $3,
                 missed_notifications = missed_notifications + $4, gaps = gaps + $5,
                 paused = CASE WHEN paused = 'by_hand' THEN paused END, waits_until = NULL, failures = 0, last_error = NULL
             WHERE id = $1",
            &[
                &lease.feed_id,
                &plan.now.as_millis(),
                &signed(new),
                &signed(missed_notifications),
                &i64::from(page.gap),
            ],
        )
        .await?;
    for entry in &page.unreadable {
        store_unreadable(transaction, lease.feed_id, entry, plan.now).await?;
    }
    link_documents(transaction, &lease.feed.account, &page.uploads).await?;
    store_links(transaction, lease.feed_id, &page.links, plan.now).await
}

async fn record_success(
    transaction: &Transaction<'_>,
    account: i64,
    plan: &PullPlan,
) -> Result<(), StoreError> {
    transaction
        .execute(
            // A wait set since by another request in flight is kept.
            "UPDATE account SET paused = CASE WHEN paused = 'by_hand' THEN paused END,
                 waits_until = CASE WHEN waits_until > $2 THEN waits_until END, failures = 0, last_error = NULL
             WHERE id = $1 AND (failures > 0 OR paused IS NOT NULL)",
            &[&account, &plan.now.as_millis()],
        )
        .await?;
    Ok(())
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Versions that are not their document's newest: the newest is the latest by its moment, or
/// else by its sequence number.
#[derive(Default)]
struct Superseded {
    /// For each new version, in order.
    new: Vec<bool>,
    /// Sequence numbers of stored versions that were the newest until now.
    stored: Vec<i64>,
}

impl Superseded {
    async fn determine(
        transaction: &Transaction<'_>,
        feed: i64,
        new: &[&DocumentVersion],
    ) -> Result<Self, StoreError> {
        enum NewestVersion {
            Stored(i64),
            New(usize),
        }
        let ids: Vec<String> = new
            .iter()
            .map(|document| escape_nul(&document.id))
            .collect();
        let rows = transaction
            .query(
                "SELECT document_id, sequence, version_ms FROM document
                 WHERE document_id = ANY ($2) AND feed_id = $1 AND NOT superseded",
                &[&feed, &ids],
            )
            .await?;
        let mut newest: HashMap<String, (NewestVersion, Option<i64>)> = HashMap::new();
        for row in rows {
            newest.insert(
                rows::text(&row, 0)?,
                (NewestVersion::Stored(row.try_get(1)?), row.try_get(2)?),
            );
        }
        let mut superseded = Self {
            new: vec![false; new.len()],
            stored: Vec::new(),
        };
        for (index, document) in new.iter().enumerate() {
            let time = document.version_time().map(Timestamp::as_millis);
            let before = newest.get(&document.id);
            let arrived_late = before.is_some_and(
                |(_, before)| matches!((time, before), (Some(time), Some(before)) if time < *before),
            );
            if arrived_late {
                superseded.new[index] = true;
                continue;
            }
            match newest.insert(document.id.clone(), (NewestVersion::New(index), time)) {
                Some((NewestVersion::Stored(sequence), _)) => superseded.stored.push(sequence),
                Some((NewestVersion::New(earlier), _)) => superseded.new[earlier] = true,
                None => {}
            }
        }
        Ok(superseded)
    }
}

/// Stores the new versions under the next numbers, and commits.
///
/// The counter is locked by the last statement, which is sent together with COMMIT: until
/// then nobody waits for it, and a visible number is committed, as are all before it.
async fn insert_documents(
    transaction: Transaction<'_>,
    lease: &PageLease,
    new: &[&DocumentVersion],
    now: Timestamp,
) -> Result<(), StoreError> {
    if new.is_empty() {
        return transaction.commit().await;
    }
    let superseded = Superseded::determine(&transaction, lease.feed_id, new).await?;
    if !superseded.stored.is_empty() {
        transaction
            .execute(
                "UPDATE document SET superseded = true WHERE sequence = ANY ($1)",
                &[&superseded.stored],
            )
            .await?;
    }
    let ids: Vec<String> = new
        .iter()
        .map(|document| escape_nul(&document.id))
        .collect();
    let versions: Vec<String> = new.iter().map(|d| escape_nul(&d.version)).collect();
    let times: Vec<Option<i64>> = new
        .iter()
        .map(|document| document.version_time().map(Timestamp::as_millis))
        .collect();
    let bodies: Vec<&[u8]> = new.iter().map(|d| d.body.as_slice()).collect();
    let values: [&dyn Parameter; 10] = [
        &signed(new.len()),
        &ids,
        &versions,
        &times,
        &superseded.new,
        &bodies,
        &lease.feed_id,
        &lease.first_pull,
        &kind_code(lease.kind),
        &now.as_millis(),
    ];
    let inserted = transaction
        .execute_and_commit(
            "WITH counter AS (UPDATE sequence SET last = last + $1 RETURNING last - $1 AS before)
             INSERT INTO document (sequence, feed_id, document_id, version, version_ms, superseded, first_pull,
                 found_by, stored_at, body)
             SELECT counter.before + n.number, $7, n.document_id, n.version, n.version_ms, n.superseded, $8, $9, $10, n.body
             FROM counter, unnest($2, $3, $4, $5, $6) WITH ORDINALITY
                 AS n (document_id, version, version_ms, superseded, body, number)",
            &values,
        )
        .await?;
    debug_assert_eq!(inserted, new.len());
    Ok(())
}

/// Stores an entry without a usable id, once.
async fn store_unreadable(
    transaction: &Transaction<'_>,
    feed: i64,
    entry: &UnreadableEntry,
    now: Timestamp,
) -> Result<(), StoreError> {
    transaction
        .execute(
            "INSERT INTO unreadable (feed_id, digest, seen_at, body)
             SELECT $1, $2, $3, $4 WHERE (SELECT count(*) FROM unreadable WHERE feed_id = $1) < $5
             ON CONFLICT (feed_id, digest) DO NOTHING",
            &[
                &feed,
                &digest(&SHA256, &entry.dedup_key).as_ref(),
                &now.as_millis(),
                &entry.body,
                &MAX_UNREADABLE_ENTRIES,
            ],
        )
        .await?;
    Ok(())
}

/// Saves the position of the pull, and the feed's cursor if this kind of pull moves it.
async fn move_cursor(
    transaction: &Transaction<'_>,
    lease: &PageLease,
    page: &PageToCommit,
    plan: &PullPlan,
    up_to_date: bool,
) -> Result<(), StoreError> {
    let advance = pulls::advance(lease, page, up_to_date);
    save_position(transaction, lease.feed_id, advance.kind, &advance.position).await?;
    let Some(cursor) = advance.cursor else {
        return Ok(());
    };
    transaction
        .execute(
            "UPDATE feed SET cursor = $2 WHERE id = $1",
            &[&lease.feed_id, &escape_nul(cursor.as_str())],
        )
        .await?;
    save_cursor(transaction, lease.feed_id, &cursor, plan).await
}

/// Saves a cursor, and removes those that no overlap read needs any more.
async fn save_cursor(
    transaction: &Transaction<'_>,
    feed: i64,
    cursor: &Cursor,
    plan: &PullPlan,
) -> Result<(), StoreError> {
    let old_enough = last_overlap_read(transaction, feed)
        .await?
        .before(plan.lookback);
    let saved = saved_cursors(transaction, feed).await?;
    let change = pulls::plan_cursor_save(&saved, old_enough, plan.now);
    if !change.unneeded.is_empty() {
        let unneeded: Vec<i64> = change.unneeded.iter().map(|at| at.as_millis()).collect();
        transaction
            .execute(
                "DELETE FROM feed_cursor WHERE feed_id = $1 AND saved_at = ANY ($2)",
                &[&feed, &unneeded],
            )
            .await?;
    }
    transaction
        .execute(
            "INSERT INTO feed_cursor (feed_id, saved_at, cursor) VALUES ($1, $2, $3)",
            &[
                &feed,
                &change.saved_at.as_millis(),
                &escape_nul(cursor.as_str()),
            ],
        )
        .await?;
    Ok(())
}
