//! Storing a page with its cursor, and the triggers that follow, in one transaction.
//!
//! A feed and its pulls are only changed under a lock of the feed's row and with its newest
//! fence. Rows are locked in the same order everywhere: feed, account, rows that belong to
//! the feed, and the sequence's counter last.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::future::{try_join, try_join3, try_join4, try_join5};

use super::Store;
use super::completion::complete_pull;
use super::documents::VERSIONS;
use super::engine::{Fragment, Param, Sql, Tx, operations, params};
use super::erasure::erased_versions;
use super::error::{Result, StoreError};
use super::feeds::{
    COMPANY_FILTER_IGNORED, CURSOR_LEADS_NOWHERE, FeedPauseReason, PageCommitted, PageEnd,
    PageLease, PageOutcome, PageToCommit, PullPlan, PullStart, UnreadableEntry,
};
use super::gaps::{self, IncompleteReason, Recorded};
use super::held;
use super::lanes::{mark_due, shifted};
use super::leases::{
    last_overlap_read, lock_as_owner, lock_if_owner, pull_beginnings, save_position, saved_cursors,
};
use super::links::store_links;
use super::pausing::pause_feed;
use super::pulls::{CursorChange, PageAdvance, advance, is_unannounced, plan_cursor_save};
use super::row_ids::{NewFeed, feed_ids};
use super::tallies::{Tally, count, count_by_hour};
use super::trigger_kind::TriggerKind;
use super::uploads::link_documents;
use crate::backoff;
use crate::domain::{Cursor, DocumentVersion, Feed, Moment, Queue, Timestamp};
use crate::ivesk::Entry;

/// Maximum number of unreadable entries kept per feed.
const MAX_UNREADABLE_ENTRIES: i64 = 1000;

/// Smallest change of the vendor's clock against ours that is recorded, in milliseconds: its
/// answers tell whole seconds.
const CLOCK_TOLERANCE_MS: i64 = 2_000;

operations! {
    write store_page(lease: PageLease, page: PageToCommit, plan: PullPlan) -> PageOutcome;

    /// Pauses a feed for which the vendor ignored the company, and releases its lease.
    pub write pause_for_ignored_company(lease: PageLease) -> ();
}

impl Store {
    /// Stores a page with its cursor, raises the triggers that follow, and releases the
    /// lease.
    ///
    /// A pull that ends raises `follow_ups` if a notification triggered it, and the next
    /// reconciliation `reconcile_every` later if it was one.
    pub async fn commit_page(
        &self,
        lease: PageLease,
        page: PageToCommit,
        plan: PullPlan,
    ) -> Result<PageOutcome> {
        // The end of a pull that overlaps lets documents be tried again that waited for fresh links.
        let may_deliver = page.entries() > 0 || lease.kind.overlaps();
        let outcome = self.store_page(lease, page, plan).await?;
        if may_deliver {
            self.wake_deliveries();
        }
        Ok(outcome)
    }
}

async fn store_page<T: Tx>(
    tx: &T,
    lease: PageLease,
    mut page: PageToCommit,
    plan: PullPlan,
) -> Result<PageOutcome> {
    let plan = PullPlan {
        now: tx.now_or(plan.now),
        ..plan
    };
    page.progress.began.get_or_insert_with(|| PullStart {
        from: lease.position.from.clone(),
        fence: lease.fence,
    });
    let versions: Vec<Version<'_>> = page.documents.iter().map(Version::of).collect();
    let keys = versions
        .iter()
        .map(|one| (one.document.id.as_str(), one.key.as_str()));
    let keys: Vec<(&str, &str)> = keys.collect();
    let advance = advance(&lease, &page);
    // The feed is locked when the others run.
    let (is_owner, stored, erased, notified_at, saved_cursors) = try_join5(
        lock_if_owner(tx, &lease),
        stored_versions(tx, &lease, &keys),
        erased_versions(tx, &lease, &keys),
        notified_at(tx, lease.feed_id),
        cursors_beside(tx, lease.feed_id, advance.cursor.as_ref(), &plan),
    )
    .await?;
    if !is_owner {
        return Err(StoreError::StaleLease);
    }
    let stored = stored.iter().zip(erased);
    let stored: Vec<(bool, bool)> = stored
        .map(|(stored, erased)| (stored.0 || erased.0, stored.1 || erased.1))
        .collect();
    if !page.company_checked
        && is_doubtful(&lease, &stored)
        && !is_vouched(tx, lease.feed_id).await?
    {
        drop(versions);
        return Ok(PageOutcome::CompanyDoubted(Box::new(page)));
    }
    // Each once. None is added before COMMIT: only the owner of the feed's lock inserts any.
    let mut seen = HashSet::new();
    let new: Vec<&Version<'_>> = versions
        .iter()
        .zip(&stored)
        .filter(|(one, (_, here))| !here && seen.insert((&one.document.id, &one.key)))
        .map(|(version, _)| version)
        .collect();
    let missed_notifications = new
        .iter()
        .filter(|version| is_unannounced(&lease, version.time, notified_at))
        .count();
    let counts = [new.len(), missed_notifications];
    let gaps = async {
        let new = record_gaps(tx, &lease, &page, plan.now).await?;
        let open = match page.end {
            PageEnd::More => Vec::new(),
            PageEnd::EndOfQueue | PageEnd::Stopped { .. } => {
                gaps::open_gaps(tx, lease.feed_id).await?
            }
        };
        Ok((new, open))
    };
    // They begin in this order: a gap is recorded once the size of the page is.
    let ((), (), (), (new_gaps, open_gaps), superseded) = try_join5(
        record_page(tx, &lease, &page, plan.now, counts),
        record_answer(tx, &lease, &page, plan.now),
        move_cursor(tx, lease.feed_id, &advance, saved_cursors),
        gaps,
        Superseded::by(tx, lease.feed_id, &new),
    )
    .await?;
    let companies = page.companies.iter();
    // What they had before the page is history, but for what no notification has announced yet.
    let announced_at = page.clock_offset.map(|offset| shifted(plan.now, offset));
    let of_companies = companies.map(|company| NewFeed {
        feed: Feed::exported(lease.feed.account.clone(), company.clone()),
        announced_at,
    });
    feed_ids(tx, of_companies, plan.now).await?;
    let ended = match page.end {
        PageEnd::More => None,
        PageEnd::EndOfQueue | PageEnd::Stopped { .. } => {
            Some(complete_pull(tx, &lease, &page, open_gaps, &plan).await?)
        }
    };
    if page.end == (PageEnd::Stopped { failing: true }) {
        fail_feed(tx, lease.feed_id).await?;
    }
    let outcome = PageOutcome::Committed(PageCommitted {
        new: new.len(),
        known: page.documents.len() - new.len(),
        ended,
        new_gaps,
        missed_notifications,
    });
    if new.is_empty() {
        forget_trigger(tx, &lease).await?;
    } else {
        insert(tx, &lease, &new, superseded, missed_notifications, plan.now).await?;
    }
    Ok(outcome)
}

/// Forgets a trigger that is complete, so that no lease looks at it again. It is the last statement of
/// a page, since ingest waits for its lock until the commit. After a page with new documents a lease
/// forgets it instead: their counts are locked too, and ingest and the page could wait for each other.
async fn forget_trigger<T: Tx>(tx: &T, lease: &PageLease) -> Result<()> {
    static SQL: Sql = Sql::new(
        "UPDATE feed_trigger SET next_at = NULL
         WHERE feed_id = $1 AND kind = $2 AND next_at IS NOT NULL AND raised <= (
             SELECT completed FROM feed_pull WHERE feed_id = $1 AND kind = $2)",
    );
    let params = params! { lease.feed_id, lease.kind };
    tx.last(&[(&SQL, params)], &mut |_| Ok(ControlFlow::Continue(())))
        .await
}

async fn pause_for_ignored_company<T: Tx>(tx: &T, lease: PageLease) -> Result<()> {
    lock_as_owner(tx, &lease).await?;
    let reason = FeedPauseReason::CompanyFilterIgnored;
    pause_feed(tx, lease.feed_id, reason, None, COMPANY_FILTER_IGNORED).await
}

/// A document's version, as the store identifies it.
struct Version<'a> {
    document: &'a DocumentVersion,
    key: String,
    time: Option<Timestamp>,
}

impl<'a> Version<'a> {
    fn of(document: &'a DocumentVersion) -> Self {
        let moment = document.moment();
        Self {
            document,
            time: moment.as_ref().and_then(Moment::timestamp),
            key: moment.map_or_else(|| document.version.clone(), |moment| moment.to_string()),
        }
    }
}

/// Returns true if every document is stored for another company, and not all for this one: the
/// vendor may have ignored the company, unless they are documents between the two.
fn is_doubtful(lease: &PageLease, stored: &[(bool, bool)]) -> bool {
    lease.feed.queue == Queue::Exported
        && !lease.feed.company.as_str().is_empty()
        && stored.iter().all(|(elsewhere, _)| *elsewhere)
        && !stored.iter().all(|(_, here)| *here)
}

/// Returns true if a person vouched that the vendor obeys the company in requests for the feed.
async fn is_vouched<T: Tx>(tx: &T, feed: i64) -> Result<bool> {
    static SQL: Sql = Sql::new("SELECT company_vouched FROM feed WHERE id = $1");
    tx.one(&SQL, &[&feed]).await
}

/// Returns for each document whether its version is stored for another company of the account,
/// and whether it is stored here.
async fn stored_versions<T: Tx>(
    tx: &T,
    lease: &PageLease,
    versions: &[(&str, &str)],
) -> Result<Vec<(bool, bool)>> {
    // PostgreSQL may answer EXISTS from a hash of all documents.
    static SQL: Sql = Sql::with(
        "SELECT (SELECT 1 FROM document d JOIN feed f ON f.id = d.feed_id{no_index}
                WHERE d.document_id = v.document_id AND d.version = v.version AND d.feed_id <> $3
                  AND f.account_id = $4 AND f.queue = 'exported' LIMIT 1) IS NOT NULL,
             (SELECT 1 FROM document d
                WHERE d.document_id = v.document_id AND d.version = v.version AND d.feed_id{no_index} = $3
                LIMIT 1) IS NOT NULL
         FROM {versions} ORDER BY v.number",
        &[("versions", VERSIONS)],
    );
    let (ids, keys): (Vec<&str>, Vec<&str>) = versions.iter().copied().unzip();
    let params = params! { ids, keys, lease.feed_id, lease.account_id };
    tx.all(&SQL, params).await
}

/// Returns the moment when the newest notification of this feed arrived.
async fn notified_at<T: Tx>(tx: &T, feed: i64) -> Result<Option<Timestamp>> {
    static SQL: Sql = Sql::new("SELECT due_at FROM feed_trigger WHERE feed_id = $1 AND kind = $2");
    tx.first(&SQL, &[&feed, &TriggerKind::Notification]).await
}

/// Updates the feed, and stores what came with the documents.
async fn record_page<T: Tx>(
    tx: &T,
    lease: &PageLease,
    page: &PageToCommit,
    now: Timestamp,
    [new, missed_notifications]: [usize; 2],
) -> Result<()> {
    static SQL: Sql = Sql::new(
        "UPDATE feed SET leased_until = NULL, last_page_at = $2, documents = documents + $3,
             missed_notifications = missed_notifications + $4,
             paused = CASE WHEN paused = 'by_hand' THEN paused END, waits_until = NULL, failures = 0, last_error = NULL
         WHERE id = $1",
    );
    let feed = lease.feed_id;
    let params: [&dyn Param; 4] = [&feed, &now, &new, &missed_notifications];
    tx.run(&SQL, &params).await?;
    link_documents(tx, &lease.feed.account, &page.uploads).await?;
    store_links(tx, feed, &page.links, now).await
}

/// Records what the answer shows of its account.
async fn record_answer<T: Tx>(
    tx: &T,
    lease: &PageLease,
    page: &PageToCommit,
    now: Timestamp,
) -> Result<()> {
    try_join3(
        record_success(tx, lease.account_id, now),
        record_page_size(tx, lease, page.entries()),
        record_clock(tx, lease.account_id, page.clock_offset),
    )
    .await
    .map(drop)
}

async fn record_success<T: Tx>(tx: &T, account: i64, now: Timestamp) -> Result<()> {
    // A wait set since by another request in flight is kept.
    static SQL: Sql = Sql::new(
        "UPDATE account SET paused = NULL,
             waits_until = CASE WHEN waits_until > $2 AND waits_since <= $3 THEN waits_until END,
             failures = 0, last_error = NULL
         WHERE id = $1 AND (failures > 0 OR paused IS NOT NULL)",
    );
    let present = backoff::latest_present(now);
    tx.run(&SQL, &[&account, &now, &present]).await
}

/// Records how far the vendor's clock is ahead of ours, if that was not known or has changed.
async fn record_clock<T: Tx>(tx: &T, account: i64, offset: Option<i64>) -> Result<()> {
    static SQL: Sql = Sql::new(
        "UPDATE account SET clock_offset = $2
         WHERE id = $1 AND (clock_offset IS NULL OR abs(clock_offset - $2) > $3)",
    );
    match offset {
        Some(offset) => {
            tx.run(&SQL, &[&account, &offset, &CLOCK_TOLERANCE_MS])
                .await
        }
        None => Ok(()),
    }
}

/// Raises the size of the largest page of the account's queue, which has none before its first page.
/// The account's feeds are pulled at the same time, so the larger one stays.
async fn record_page_size<T: Tx>(tx: &T, lease: &PageLease, entries: usize) -> Result<()> {
    static SQL: Sql = Sql::new(
        "INSERT INTO account_queue AS q (account_id, queue, largest_page) VALUES ($1, $2, $3)
         ON CONFLICT (account_id, queue) DO UPDATE
             SET largest_page = {greatest}(q.largest_page, excluded.largest_page)",
    );
    if Some(entries) <= lease.largest_page {
        return Ok(());
    }
    let params = params! { lease.account_id, lease.feed.queue, entries };
    tx.run(&SQL, params).await
}

/// Stores the unreadable entries, and records the page's gaps; returns the number of new gaps.
async fn record_gaps<T: Tx>(
    tx: &T,
    lease: &PageLease,
    page: &PageToCommit,
    now: Timestamp,
) -> Result<usize> {
    let feed = lease.feed_id;
    let mut news = false;
    for entry in &page.unreadable {
        news |= store_unreadable(tx, feed, entry, now).await?;
    }
    let mut recorded = Vec::new();
    for gap in &page.gaps {
        recorded.push(gaps::record(tx, feed, gap, now).await?);
    }
    if news {
        let (from, to) = (lease.position.from.as_ref(), page.cursor.as_ref());
        let reason = IncompleteReason::UnreadableEntry;
        recorded.push(gaps::record_gap(tx, feed, from, to, reason, now).await?);
    } else if !page.unreadable.is_empty() {
        gaps::see_unreadable_again(tx, feed).await?;
    }
    let new = recorded.iter().filter(|one| **one == Recorded::New).count();
    Ok(new)
}

/// Marks a feed as failing although its page was stored.
async fn fail_feed<T: Tx>(tx: &T, feed: i64) -> Result<()> {
    static SQL: Sql =
        Sql::new("UPDATE feed SET failures = failures + 1, last_error = $2 WHERE id = $1");
    tx.run(&SQL, &[&feed, &CURSOR_LEADS_NOWHERE]).await
}

/// Stores an entry without a usable id, once, unless a person has erased it; returns true if it is new, even if
/// there is no room for it.
async fn store_unreadable<T: Tx>(
    tx: &T,
    feed: i64,
    entry: &UnreadableEntry,
    now: Timestamp,
) -> Result<bool> {
    static SQL: Sql = Sql::new(
        "INSERT INTO unreadable (feed_id, digest, seen_at, body)
         SELECT $1, $2, $3, $4 WHERE (SELECT count(*) FROM unreadable WHERE feed_id = $1) < $5
             AND NOT EXISTS (SELECT 1 FROM tombstone WHERE feed_id = $1 AND document_digest = $2 AND version = '')
         ON CONFLICT (feed_id, digest) DO NOTHING",
    );
    static KNOWN: Sql = Sql::new(
        "SELECT 1 FROM unreadable WHERE feed_id = $1 AND digest = $2
         UNION ALL SELECT 1 FROM tombstone WHERE feed_id = $1 AND document_digest = $2 AND version = '' LIMIT 1",
    );
    let digest = digest(&SHA256, &entry.dedup_key);
    let params = params! { feed, digest.as_ref(), now, entry.body, MAX_UNREADABLE_ENTRIES };
    if tx.execute(&SQL, params).await? > 0 {
        return Ok(true);
    }
    let known: Option<()> = tx.first(&KNOWN, &[&feed, &digest.as_ref()]).await?;
    Ok(known.is_none())
}

/// Returns how the feed's saved cursors change when this one is saved; `None` if there is none to save.
async fn cursors_beside<T: Tx>(
    tx: &T,
    feed: i64,
    cursor: Option<&Cursor>,
    plan: &PullPlan,
) -> Result<Option<CursorChange>> {
    if cursor.is_none() {
        return Ok(None);
    }
    let (pulls, saved) = try_join(pull_beginnings(tx, feed), saved_cursors(tx, feed)).await?;
    let last = last_overlap_read(pulls.iter(), plan.now);
    let change = plan_cursor_save(&saved, last.before(plan.lookback), plan.now);
    Ok(Some(change))
}

/// Saves the position of the pull. If this kind of pull moves the feed's cursor, saves that too, also among the cursors
/// that overlap reads may start from, and removes those of them that are not needed any more.
async fn move_cursor<T: Tx>(
    tx: &T,
    feed: i64,
    advance: &PageAdvance,
    change: Option<CursorChange>,
) -> Result<()> {
    static MOVE: Sql = Sql::new("UPDATE feed SET cursor = $2 WHERE id = $1");
    static REMOVE: Sql =
        Sql::new("DELETE FROM feed_cursor WHERE feed_id = $1 AND saved_at IN ({elements}($2))");
    static SAVE: Sql =
        Sql::new("INSERT INTO feed_cursor (feed_id, saved_at, cursor) VALUES ($1, $2, $3)");
    let save_position = save_position(tx, feed, advance.kind, &advance.position);
    let (Some(cursor), Some(change)) = (&advance.cursor, change) else {
        return save_position.await;
    };
    let remove = async {
        match change.unneeded.is_empty() {
            true => Ok(()),
            false => tx.run(&REMOVE, &[&feed, &change.unneeded]).await,
        }
    };
    try_join4(
        save_position,
        tx.run(&MOVE, &[&feed, cursor]),
        remove,
        tx.run(&SAVE, &[&feed, &change.saved_at, cursor]),
    )
    .await
    .map(drop)
}

/// What new versions supersede, and where their feed begins.
struct Superseded {
    /// The sequence numbers of stored versions.
    stored: Vec<i64>,
    /// For each new version, whether it is superseded.
    new: Vec<bool>,
    /// Where a person let the feed start.
    begins_at: Option<String>,
}

impl Superseded {
    /// Returns what leaves one version of each document current: the latest by its moment, or else by its
    /// sequence number.
    async fn by<T: Tx>(tx: &T, feed: i64, new: &[&Version<'_>]) -> Result<Self> {
        static CURRENT: Sql = Sql::new(
            "SELECT document_id, sequence, version, version_ms IS NOT NULL FROM document{by_identity}
             WHERE document_id IN ({elements}($2)) AND feed_id{no_index} = $1 AND NOT superseded",
        );
        static BEGINS_AT: Sql = Sql::new("SELECT begins_at FROM feed WHERE id = $1");
        if new.is_empty() {
            return Ok(Self {
                stored: Vec::new(),
                new: Vec::new(),
                begins_at: None,
            });
        }
        let ids: Vec<&str> = new.iter().map(|one| one.document.id.as_str()).collect();
        let (current, begins_at) = try_join(
            tx.all(&CURRENT, params! { feed, ids }),
            tx.one(&BEGINS_AT, params! { feed }),
        )
        .await?;
        let (stored, of_new) = superseded(new, current);
        Ok(Self {
            stored,
            new: of_new,
            begins_at,
        })
    }
}

/// Stores new versions, and marks what they supersede. Counts them, of which some were `missed_notifications`.
async fn insert<T: Tx>(
    tx: &T,
    lease: &PageLease,
    new: &[&Version<'_>],
    superseded: Superseded,
    missed_notifications: usize,
    now: Timestamp,
) -> Result<()> {
    static SUPERSEDE: Sql =
        Sql::new("UPDATE document SET superseded = true WHERE sequence IN ({elements}($1))");
    // A newer version takes the place of one that was not delivered. The rows are locked in the order in which
    // the worker of their destination changes them, which prevents deadlocks.
    static NOT_DELIVERED: Sql = Sql::new(
        "WITH chosen AS (
             SELECT destination_id, sequence FROM delivery WHERE sequence IN ({elements}($1))
                 AND state IN ('pending', 'deferred', 'waiting_file', 'held', 'rejected')
             ORDER BY destination_id, sequence{lock_rows})
         UPDATE delivery AS h SET state = 'superseded', next_try_at = NULL
         FROM chosen AS c WHERE h.destination_id = c.destination_id AND h.sequence = c.sequence",
    );
    let Superseded {
        stored,
        new: of_new,
        begins_at,
    } = superseded;
    if !stored.is_empty() {
        held::lower(tx, None, &stored).await?;
        tx.run(&SUPERSEDE, &[&stored]).await?;
        tx.run(&NOT_DELIVERED, &[&stored]).await?;
    }
    // Where a person let the feed start, all before is history, whichever pull finds it.
    let is_history = |one: &&Version<'_>| match &begins_at {
        Some(begins_at) if one.time.is_some() => one.key < *begins_at,
        _ => lease.first_pull,
    };
    let history: Vec<bool> = new.iter().map(is_history).collect();
    let row = |index: usize| -> Vec<&dyn Param> {
        let (one, superseded) = (new[index], &of_new[index]);
        let document = one.document;
        let of_document: [&dyn Param; 5] = [
            &document.id,
            &one.key,
            &one.time,
            superseded,
            &document.body,
        ];
        let of_pull: [&dyn Param; 4] = [&lease.feed_id, &history[index], &lease.kind, &now];
        [&of_document[..], &of_pull].concat()
    };
    let rows: Vec<Vec<&dyn Param>> = (0..new.len()).map(row).collect();
    let terms = |index: usize| {
        let entry = Entry::parse(&new[index].document.body);
        entry
            .map(|entry| entry.terms(&lease.feed.company))
            .unwrap_or_default()
    };
    // The counts are the last that other transactions may wait for, but for the counter. Each is one statement, of one
    // hour: another would come after the commit.
    try_join4(
        mark_due(tx, lease.feed_id, now),
        count(tx, Tally::MissedNotifications, missed_notifications),
        count_by_hour(tx, Tally::Documents, std::iter::repeat_n(now, new.len())),
        tx.insert_numbered(&INSERT, &rows, &terms),
    )
    .await
    .map(drop)
}

/// The versions of a page; see [`Tx::insert_numbered`].
static INSERT: Sql = Sql::with(
    "{counter} INSERT INTO document (sequence, {columns}) {values}",
    &[
        (
            "counter",
            Fragment::Differs(
                "",
                "WITH counter AS (UPDATE sequence SET last = last + $1 RETURNING last - $1 AS before),
                 terms AS (INSERT INTO search_term (term, sequence)
                     SELECT t.term, counter.before + t.place FROM counter, unnest($11, $12) AS t (place, term))",
            ),
        ),
        (
            "values",
            Fragment::Differs(
                "VALUES ($1, {params})",
                "SELECT counter.before + n.number, {columns}
                 FROM counter, unnest({params}) WITH ORDINALITY AS n ({columns}, number)",
            ),
        ),
        (
            "params",
            Fragment::Same("$2, $3, $4, $5, $6, $7, $8, $9, $10"),
        ),
        (
            "columns",
            Fragment::Same(
                "document_id, version, version_ms, superseded, body, feed_id, first_pull, found_by, stored_at",
            ),
        ),
    ],
);

/// Returns the sequence numbers of the stored current versions (id, sequence number, version,
/// whether that is a moment) that new ones supersede, and for each new one whether it is
/// superseded.
fn superseded(
    new: &[&Version<'_>],
    current: Vec<(String, i64, String, bool)>,
) -> (Vec<i64>, Vec<bool>) {
    /// The sequence number of a stored version, or the index of a new one.
    type Place = std::result::Result<i64, usize>;
    let current = current
        .into_iter()
        .map(|(id, sequence, version, is_moment)| {
            (id, (Ok(sequence), is_moment.then_some(version)))
        });
    // Moments in their canonical text are ordered like the text.
    let mut current: HashMap<String, (Place, Option<String>)> = current.collect();
    let (mut of_stored, mut of_new) = (Vec::new(), vec![false; new.len()]);
    for (index, version) in new.iter().enumerate() {
        let id = &version.document.id;
        let moment = version.time.is_some().then_some(&version.key);
        let before = current.get(id).and_then(|(_, moment)| moment.as_ref());
        if matches!((moment, before), (Some(moment), Some(before)) if moment < before) {
            of_new[index] = true;
            continue;
        }
        match current.insert(id.clone(), (Err(index), moment.cloned())) {
            Some((Ok(sequence), _)) => of_stored.push(sequence),
            Some((Err(earlier), _)) => of_new[earlier] = true,
            None => {}
        }
    }
    (of_stored, of_new)
}
