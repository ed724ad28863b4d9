//! A page with its cursor in one transaction, and what follows from it.
//!
//! Every change of a feed and its runs is made by whoever has locked the feed's row and
//! holds its newest fence. Rows are locked in one order everywhere: feed, account, what
//! belongs to the feed, and the sequence's counter last.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};

use super::connection::{Parameter, Pool, Transaction};
use super::leases::{last_look, lock_as_owner, save_position, saved_cursors};
use super::pausing::pause_feed;
use super::rows::{self, feed_ids, keepable};
use super::triggers::raise;
use super::{links, uploads};
use crate::domain::{Cursor, DocumentVersion, Feed, Queue, Timestamp};
use crate::store::pulls::{self, is_unannounced, position_holder};
use crate::store::words::{UNREADABLE, kind_code};
use crate::store::{
    COMPANY_FILTER_IGNORED, FeedPauseReason, PageCommitted, PageEnd, PageLease, PageOutcome,
    PageToCommit, PullPlan, StoreError, TriggerKind, UnreadableEntry,
};

/// Stores a page, its cursor and what follows from it, and gives the lease back.
pub(super) async fn commit(
    pool: &Pool,
    lease: &PageLease,
    page: &PageToCommit,
    plan: &PullPlan,
) -> Result<PageOutcome, StoreError> {
    let transaction = pool.write().await?;
    let Some(account) = lock_as_owner(&transaction, lease).await? else {
        transaction.roll_back().await?;
        return Err(StoreError::StaleLease);
    };
    // The database's time, whatever the caller's clock says.
    let plan = PullPlan {
        now: transaction.now(),
        ..plan.clone()
    };
    let stored = Stored::read(&transaction, lease, account, &page.documents).await?;
    if stored.company_filter_ignored(lease, &page.documents) {
        pause_feed(
            &transaction,
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
    note_page(
        &transaction,
        lease,
        page,
        &plan,
        [new.len(), missed_notifications],
    )
    .await?;
    note_success(&transaction, account, &plan).await?;
    let companies = page
        .companies
        .iter()
        .map(|company| Feed::exported(lease.feed.account.clone(), company.clone()));
    feed_ids(&transaction, companies, plan.now).await?;
    move_cursor(&transaction, lease, page, &plan, up_to_date).await?;
    if up_to_date {
        end_run(&transaction, lease, &plan).await?;
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

/// What is stored of a page's versions already.
struct Stored {
    /// (id, version) to (stored for another company of the account, stored here).
    versions: HashMap<(String, String), (bool, bool)>,
}

impl Stored {
    async fn read(
        transaction: &Transaction<'_>,
        lease: &PageLease,
        account: i64,
        documents: &[DocumentVersion],
    ) -> Result<Self, StoreError> {
        let ids: Vec<String> = documents.iter().map(|d| keepable(&d.id)).collect();
        let versions: Vec<String> = documents.iter().map(|d| keepable(&d.version)).collect();
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

    /// Whether every document is stored for another company, and not all for this one.
    fn company_filter_ignored(&self, lease: &PageLease, documents: &[DocumentVersion]) -> bool {
        lease.feed.queue == Queue::Exported
            && !documents.is_empty()
            && documents.iter().all(|document| self.of(document).0)
            && !documents.iter().all(|document| self.of(document).1)
    }

    /// The versions that are not here yet, each once. They stay so until COMMIT: only
    /// who has locked the feed inserts any.
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

/// When the newest notification of this feed came.
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
    row.map(|row| rows::moment(&row, 0)).transpose()
}

async fn note_page(
    transaction: &Transaction<'_>,
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
        set_aside(transaction, lease.feed_id, entry, plan.now).await?;
    }
    uploads::tie(transaction, &lease.feed.account, &page.uploads).await?;
    links::keep(transaction, lease.feed_id, &page.links, plan.now).await
}

async fn note_success(
    transaction: &Transaction<'_>,
    account: i64,
    plan: &PullPlan,
) -> Result<(), StoreError> {
    transaction
        .execute(
            // A wait that another request in flight has set since still stands.
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

/// Which versions are not their document's newest: the later by its time is, else by its
/// number.
#[derive(Default)]
struct Superseded {
    /// For each new version, in order.
    new: Vec<bool>,
    /// Sequence numbers of stored ones that were the newest until now.
    stored: Vec<i64>,
}

impl Superseded {
    async fn judge(
        transaction: &Transaction<'_>,
        feed: i64,
        new: &[&DocumentVersion],
    ) -> Result<Self, StoreError> {
        enum Newest {
            Stored(i64),
            New(usize),
        }
        let ids: Vec<String> = new.iter().map(|document| keepable(&document.id)).collect();
        let rows = transaction
            .query(
                "SELECT document_id, sequence, version_ms FROM document
                 WHERE document_id = ANY ($2) AND feed_id = $1 AND NOT superseded",
                &[&feed, &ids],
            )
            .await?;
        let mut newest: HashMap<String, (Newest, Option<i64>)> = HashMap::new();
        for row in rows {
            newest.insert(
                rows::text(&row, 0)?,
                (Newest::Stored(row.try_get(1)?), row.try_get(2)?),
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
            match newest.insert(document.id.clone(), (Newest::New(index), time)) {
                Some((Newest::Stored(sequence), _)) => superseded.stored.push(sequence),
                Some((Newest::New(earlier), _)) => superseded.new[earlier] = true,
                None => {}
            }
        }
        Ok(superseded)
    }
}

/// Stores the new versions under the next numbers, and commits.
///
/// The counter is taken in the last statement, which goes to the server together with
/// COMMIT: until then nobody waits for it, and a number that is seen is a number that is
/// committed, as are all before it.
async fn insert_documents(
    transaction: Transaction<'_>,
    lease: &PageLease,
    new: &[&DocumentVersion],
    now: Timestamp,
) -> Result<(), StoreError> {
    if new.is_empty() {
        return transaction.commit().await;
    }
    let superseded = Superseded::judge(&transaction, lease.feed_id, new).await?;
    if !superseded.stored.is_empty() {
        transaction
            .execute(
                "UPDATE document SET superseded = true WHERE sequence = ANY ($1)",
                &[&superseded.stored],
            )
            .await?;
    }
    let ids: Vec<String> = new.iter().map(|document| keepable(&document.id)).collect();
    let versions: Vec<String> = new.iter().map(|d| keepable(&d.version)).collect();
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

/// Keeps an entry that has no usable id, once.
async fn set_aside(
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
                &UNREADABLE,
            ],
        )
        .await?;
    Ok(())
}

/// Moves the run's position, and the feed's cursor where this kind of pull may.
async fn move_cursor(
    transaction: &Transaction<'_>,
    lease: &PageLease,
    page: &PageToCommit,
    plan: &PullPlan,
    up_to_date: bool,
) -> Result<(), StoreError> {
    let moved = pulls::moved(lease, page, up_to_date);
    save_position(transaction, lease.feed_id, moved.holder, &moved.position).await?;
    let Some(cursor) = moved.cursor else {
        return Ok(());
    };
    transaction
        .execute(
            "UPDATE feed SET cursor = $2 WHERE id = $1",
            &[&lease.feed_id, &keepable(cursor.as_str())],
        )
        .await?;
    save_cursor(transaction, lease.feed_id, &cursor, plan).await
}

/// Adds a cursor to the saved ones, and drops those that no overlap read needs.
async fn save_cursor(
    transaction: &Transaction<'_>,
    feed: i64,
    cursor: &Cursor,
    plan: &PullPlan,
) -> Result<(), StoreError> {
    let old_enough = last_look(transaction, feed).await?.before(plan.lookback);
    let saved = saved_cursors(transaction, feed).await?;
    let change = pulls::one_more_cursor(&saved, old_enough, plan.now);
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
                &keepable(cursor.as_str()),
            ],
        )
        .await?;
    Ok(())
}

/// Notes that the run has served its wish, and raises what follows from it.
async fn end_run(
    transaction: &Transaction<'_>,
    lease: &PageLease,
    plan: &PullPlan,
) -> Result<(), StoreError> {
    let (feed, kind) = (lease.feed_id, kind_code(lease.kind));
    transaction
        .execute(
            "UPDATE feed SET up_to_date_at = $2,
                 first_complete_at = CASE WHEN $3 THEN first_complete_at ELSE coalesce(first_complete_at, $2) END
             WHERE id = $1",
            &[&feed, &plan.now.as_millis(), &(lease.kind == TriggerKind::Backfill)],
        )
        .await?;
    let holder = kind_code(position_holder(lease.kind, lease.first_pull));
    transaction
        .execute(
            "UPDATE feed_pull SET position = NULL, previous_next = NULL, previous_entries = 0
             WHERE feed_id = $1 AND kind IN ($2, $3)",
            &[&feed, &kind, &holder],
        )
        .await?;
    if matches!(
        lease.kind,
        TriggerKind::FollowUp | TriggerKind::LateFollowUp
    ) {
        // Its wish came again while one was pending: once more at that time, if the run
        // began before it. Only these kinds have that, so a hint's row, which ingest
        // writes, is never touched here.
        transaction
            .execute(
                "UPDATE feed_trigger d
                 SET due_at = CASE WHEN d.again_at > r.started_at THEN d.again_at ELSE d.due_at END,
                     raised = CASE WHEN d.again_at > r.started_at THEN d.raised + 1 ELSE d.raised END,
                     again_at = NULL
                 FROM feed_pull r
                 WHERE d.feed_id = $1 AND d.kind = $2 AND r.feed_id = $1 AND r.kind = $2 AND d.again_at IS NOT NULL",
                &[&feed, &kind],
            )
            .await?;
    }
    transaction
        .execute(
            "UPDATE feed_pull SET completed = coalesce(target, completed), target = NULL WHERE feed_id = $1 AND kind = $2",
            &[&feed, &kind],
        )
        .await?;
    if lease.first_pull && lease.kind != TriggerKind::Backfill {
        // It has read everything: for what follows, as a reconciliation that began with it.
        transaction
            .execute(
                "INSERT INTO feed_pull (feed_id, kind, started_at)
                 SELECT $1, $2, min(started_at) FROM feed_pull WHERE feed_id = $1 AND kind <> $3
                 ON CONFLICT (feed_id, kind) DO UPDATE SET started_at = excluded.started_at",
                &[
                    &feed,
                    &kind_code(TriggerKind::Reconciliation),
                    &kind_code(TriggerKind::Backfill),
                ],
            )
            .await?;
        // Runs of other kinds began at the beginning too; they now start as overlap reads.
        transaction
            .execute(
                "UPDATE feed_pull SET target = NULL, position = NULL WHERE feed_id = $1 AND kind <> $2",
                &[&feed, &kind_code(TriggerKind::Backfill)],
            )
            .await?;
    }
    match lease.kind {
        TriggerKind::Notification => {
            let [soon, late] = plan.follow_ups;
            raise(
                transaction,
                feed,
                TriggerKind::FollowUp,
                plan.now.after(soon),
            )
            .await?;
            raise(
                transaction,
                feed,
                TriggerKind::LateFollowUp,
                plan.now.after(late),
            )
            .await?;
        }
        TriggerKind::Reconciliation => {
            let next = plan.now.after(plan.reconcile_every);
            raise(transaction, feed, TriggerKind::Reconciliation, next).await?;
        }
        TriggerKind::FollowUp | TriggerKind::LateFollowUp | TriggerKind::Backfill => {}
    }
    if lease.kind.overlaps() {
        links::end_wish(transaction, feed, lease.kind).await?;
    }
    Ok(())
}
