//! Pulling: who is next, and a page with its cursor in one transaction.

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::error::explain;
use super::rows::{self, account_id, feed_id, kind_code};
use super::uploads;
use crate::domain::{Cursor, DocumentVersion, Feed, Queue, Timestamp};
use crate::store::{
    COMPANY_FILTER_IGNORED, Demand, LeaseRequest, PageCommitted, PageEnd, PageFailure, PageLease,
    PageOutcome, PageToCommit, ParkReason, Position, PullKind, PullPlan, StoreError,
};

/// Entries without an id kept for one feed at the most.
const UNIDENTIFIED: i64 = 1000;

/// Saved cursors are at least so far apart in time, or the newer replaces the older.
const CURSOR_SPACING_MS: i64 = 5 * 60 * 1000;

/// Makes feeds known and raises pulls of them.
pub(super) fn demand(connection: &Connection, demands: &[Demand]) -> rusqlite::Result<()> {
    for demand in demands {
        let feed = feed_id(connection, &demand.feed, demand.due_at)?;
        raise(connection, feed, demand.kind, demand.due_at)?;
        if demand.kind == PullKind::Backfill {
            // A page of an earlier backfill that is under way must not set this one's position.
            connection.execute(
                "UPDATE feed SET fence = fence + 1, leased_until = NULL WHERE id = ?1",
                params![feed],
            )?;
            connection.execute(
                "INSERT INTO feed_run (feed_id, kind, position) VALUES (?1, ?2, ?3)
                 ON CONFLICT (feed_id, kind) DO UPDATE SET noted = NULL, position = excluded.position",
                params![feed, kind_code(PullKind::Backfill), demand.from.as_ref().map(Cursor::as_str)],
            )?;
        }
    }
    Ok(())
}

/// Makes every feed due for reconciliation at `due_at`, if it is not sooner.
pub(super) fn demand_reconciliation(
    connection: &Connection,
    due_at: Timestamp,
) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE feed_demand SET due_at = min(due_at, ?2) WHERE kind = ?1",
        params![kind_code(PullKind::Reconciliation), due_at.as_millis()],
    )
}

/// Raises one wish.
///
/// A hint or a backfill always counts, also while a run is under way: it may speak of
/// something newer. Of the timed kinds one is pending at a time, at the sooner time;
/// a follow-up that is wished for later than that is kept for another run.
fn raise(
    connection: &Connection,
    feed: i64,
    kind: PullKind,
    due_at: Timestamp,
) -> rusqlite::Result<()> {
    let on_conflict = match kind {
        PullKind::Hint | PullKind::Backfill => "wanted = wanted + 1, due_at = excluded.due_at",
        PullKind::FollowUp | PullKind::LateFollowUp => {
            "wanted = CASE WHEN wanted > ?4 THEN wanted ELSE wanted + 1 END,
             due_at = CASE WHEN wanted > ?4 THEN min(due_at, excluded.due_at) ELSE excluded.due_at END,
             again_at = CASE WHEN wanted > ?4 THEN max(coalesce(again_at, due_at), excluded.due_at) END"
        }
        PullKind::Reconciliation => {
            "wanted = CASE WHEN wanted > ?4 THEN wanted ELSE wanted + 1 END,
             due_at = CASE WHEN wanted > ?4 THEN min(due_at, excluded.due_at) ELSE excluded.due_at END"
        }
    };
    connection
        .prepare_cached(&format!(
            "INSERT INTO feed_demand (feed_id, kind, wanted, due_at) SELECT ?1, ?2, ?4 + 1, ?3 WHERE true
             ON CONFLICT (feed_id, kind) DO UPDATE SET {on_conflict}"
        ))?
        .execute(params![feed, kind_code(kind), due_at.as_millis(), served(connection, feed, kind)?])?;
    Ok(())
}

fn served(connection: &Connection, feed: i64, kind: PullKind) -> rusqlite::Result<i64> {
    let served = connection
        .prepare_cached("SELECT served FROM feed_run WHERE feed_id = ?1 AND kind = ?2")?
        .query_row(params![feed, kind_code(kind)], |row| row.get(0))
        .optional()?;
    Ok(served.unwrap_or(0))
}

/// What may be pulled at `:now`, and what it waits for. `parked` feeds and accounts
/// are tried again when their wait is over, but for those that need a person.
const PENDING: &str = "
    FROM feed_demand d
    JOIN feed f ON f.id = d.feed_id
    JOIN account a ON a.id = f.account_id
    LEFT JOIN feed_run r ON r.feed_id = d.feed_id AND r.kind = d.kind
    WHERE d.wanted > coalesce(r.served, 0)
      AND coalesce(f.parked, '') NOT IN ('by_hand', 'company_filter_ignored')
      AND coalesce(a.parked, '') <> 'by_hand'";

/// Leaves out what can't be pulled for want of a setting. The names are ours: account
/// names hold no quotes.
fn without_blocked(request: &LeaseRequest) -> String {
    request
        .blocked
        .iter()
        .map(|(account, queue)| format!(" AND NOT (a.name = '{account}' AND f.queue = '{queue}')"))
        .collect()
}

struct Candidate {
    feed_id: i64,
    feed: Feed,
    kind: PullKind,
    wanted: i64,
    under_way: bool,
    cursor: Option<Cursor>,
    first_pull: bool,
    feed_failures: u32,
    account_failures: u32,
}

/// Leases the most urgent feed that may be asked for now; its run starts or goes on.
pub(super) fn lease(
    connection: &Connection,
    request: &LeaseRequest,
) -> rusqlite::Result<Option<PageLease>> {
    let Some(candidate) = most_urgent(connection, request)? else {
        return Ok(None);
    };
    let position = start_or_resume(connection, request, &candidate)?;
    let fence: i64 = connection
        .prepare_cached(
            "UPDATE feed SET fence = fence + 1, leased_until = ?2, asked_at = ?3 WHERE id = ?1 RETURNING fence",
        )?
        .query_row(
            params![
                candidate.feed_id,
                request.now.after(request.lease).as_millis(),
                request.now.as_millis()
            ],
            |row| row.get(0),
        )?;
    Ok(Some(PageLease {
        feed_id: candidate.feed_id,
        feed: candidate.feed,
        kind: candidate.kind,
        fence,
        position,
        first_pull: candidate.first_pull,
        feed_failures: candidate.feed_failures,
        account_failures: candidate.account_failures,
    }))
}

fn most_urgent(
    connection: &Connection,
    request: &LeaseRequest,
) -> rusqlite::Result<Option<Candidate>> {
    let sql = format!(
        "SELECT f.id, a.name, f.queue, f.company, d.kind, d.wanted, r.noted IS NOT NULL, f.cursor,
                f.first_complete_at IS NULL, f.failures, a.failures
         {PENDING} {}
           AND d.due_at <= ?1
           AND coalesce(f.leased_until, 0) <= ?1
           AND coalesce(f.waits_until, 0) <= ?1
           AND coalesce(a.waits_until, 0) <= ?1
           AND (SELECT count(*) FROM feed busy WHERE busy.account_id = a.id AND busy.leased_until > ?1) < ?2
         ORDER BY d.kind, f.asked_at, f.id
         LIMIT 1",
        without_blocked(request)
    );
    connection
        .prepare_cached(&sql)?
        .query_row(
            params![request.now.as_millis(), request.requests_per_account],
            |row| {
                Ok(Candidate {
                    feed_id: row.get(0)?,
                    feed: rows::feed(row, 1)?,
                    kind: rows::kind(row, 4)?,
                    wanted: row.get(5)?,
                    under_way: row.get(6)?,
                    cursor: row.get::<_, Option<String>>(7)?.map(Cursor::new),
                    first_pull: row.get(8)?,
                    feed_failures: row.get(9)?,
                    account_failures: row.get(10)?,
                })
            },
        )
        .optional()
}

/// Where the run stands; a run that begins is noted first.
fn start_or_resume(
    connection: &Connection,
    request: &LeaseRequest,
    candidate: &Candidate,
) -> rusqlite::Result<Position> {
    let holder = position_holder(candidate.kind, candidate.first_pull);
    let stored = position(connection, candidate.feed_id, holder)?;
    if candidate.under_way {
        return Ok(stored);
    }
    let start = match candidate.kind {
        // Set when it was asked for.
        PullKind::Backfill => stored.from,
        // Another kind may have begun the first pull.
        _ if candidate.first_pull => stored.from.or_else(|| candidate.cursor.clone()),
        kind if kind.overlaps() => overlap_start(connection, candidate.feed_id, request)?,
        _ => candidate.cursor.clone(),
    };
    let position = Position {
        from: start,
        ..Position::default()
    };
    connection
        .prepare_cached(
            "INSERT INTO feed_run (feed_id, kind, noted, started_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (feed_id, kind) DO UPDATE SET noted = excluded.noted, started_at = excluded.started_at",
        )?
        .execute(params![
            candidate.feed_id,
            kind_code(candidate.kind),
            candidate.wanted,
            request.now.as_millis(),
        ])?;
    save_position(connection, candidate.feed_id, holder, &position)?;
    Ok(position)
}

/// Whose row holds the position: all kinds but a backfill share one during a feed's
/// first pull, when there is nothing yet to overlap with.
fn position_holder(kind: PullKind, first_pull: bool) -> PullKind {
    if first_pull && kind != PullKind::Backfill {
        PullKind::Hint
    } else {
        kind
    }
}

fn position(connection: &Connection, feed: i64, kind: PullKind) -> rusqlite::Result<Position> {
    let stored = connection
        .prepare_cached(
            "SELECT position, previous_next, previous_entries FROM feed_run WHERE feed_id = ?1 AND kind = ?2",
        )?
        .query_row(params![feed, kind_code(kind)], |row| {
            Ok(Position {
                from: row.get::<_, Option<String>>(0)?.map(Cursor::new),
                previous_next: row.get::<_, Option<String>>(1)?.map(Cursor::new),
                previous_entries: row.get(2)?,
            })
        })
        .optional()?;
    Ok(stored.unwrap_or_default())
}

fn save_position(
    connection: &Connection,
    feed: i64,
    kind: PullKind,
    position: &Position,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO feed_run (feed_id, kind, position, previous_next, previous_entries) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (feed_id, kind) DO UPDATE SET position = excluded.position,
                 previous_next = excluded.previous_next, previous_entries = excluded.previous_entries",
        )?
        .execute(params![
            feed,
            kind_code(kind),
            position.from.as_ref().map(Cursor::as_str),
            position.previous_next.as_ref().map(Cursor::as_str),
            position.previous_entries,
        ])?;
    Ok(())
}

/// The newest saved cursor that is old enough: saved at least `lookback` ago, or
/// itself the text of a moment at least `lookback` ago. `None` is the beginning.
fn overlap_start(
    connection: &Connection,
    feed: i64,
    request: &LeaseRequest,
) -> rusqlite::Result<Option<Cursor>> {
    let old_enough = request.now.before(request.lookback);
    Ok(saved_cursors(connection, feed)?
        .into_iter()
        .find(|saved| saved.is_from_before(old_enough))
        .map(|saved| saved.cursor))
}

struct SavedCursor {
    saved_at: Timestamp,
    cursor: Cursor,
}

impl SavedCursor {
    fn is_from_before(&self, moment: Timestamp) -> bool {
        self.saved_at <= moment
            || Timestamp::parse(self.cursor.as_str()).is_some_and(|named| named <= moment)
    }
}

/// Newest first.
fn saved_cursors(connection: &Connection, feed: i64) -> rusqlite::Result<Vec<SavedCursor>> {
    connection
        .prepare_cached(
            "SELECT saved_at, cursor FROM feed_cursor WHERE feed_id = ?1 ORDER BY saved_at DESC",
        )?
        .query_map(params![feed], |row| {
            Ok(SavedCursor {
                saved_at: rows::moment(row, 0)?,
                cursor: Cursor::new(row.get::<_, String>(1)?),
            })
        })?
        .collect()
}

/// When something is next due; `None` where nothing is pending.
pub(super) fn next_due(
    connection: &Connection,
    request: &LeaseRequest,
) -> rusqlite::Result<Option<Timestamp>> {
    let sql = format!(
        "SELECT min(max(d.due_at, coalesce(f.waits_until, 0), coalesce(a.waits_until, 0), coalesce(f.leased_until, 0)))
         {PENDING} {}",
        without_blocked(request)
    );
    connection
        .prepare_cached(&sql)?
        .query_row([], |row| rows::maybe_moment(row, 0))
}

/// Stores a page, its cursor and what follows from it, and gives the lease back.
pub(super) fn commit(
    transaction: &Transaction<'_>,
    path: &Path,
    lease: &PageLease,
    page: &PageToCommit,
    plan: &PullPlan,
) -> Result<PageOutcome, StoreError> {
    check_fence(transaction, path, lease)?;
    store_page(transaction, lease, page, plan).map_err(|error| explain(path, error))
}

/// Refuses a stale owner: somebody leased the feed after it.
fn check_fence(connection: &Connection, path: &Path, lease: &PageLease) -> Result<(), StoreError> {
    let fence: Option<i64> = connection
        .prepare_cached("SELECT fence FROM feed WHERE id = ?1")
        .and_then(|mut statement| {
            statement
                .query_row(params![lease.feed_id], |row| row.get(0))
                .optional()
        })
        .map_err(|error| explain(path, error))?;
    if fence == Some(lease.fence) {
        Ok(())
    } else {
        Err(StoreError::StaleLease)
    }
}

fn store_page(
    connection: &Connection,
    lease: &PageLease,
    page: &PageToCommit,
    plan: &PullPlan,
) -> rusqlite::Result<PageOutcome> {
    if company_filter_ignored(connection, lease, &page.documents)? {
        park_feed(
            connection,
            lease.feed_id,
            ParkReason::CompanyFilterIgnored,
            None,
            COMPANY_FILTER_IGNORED,
        )?;
        return Ok(PageOutcome::CompanyFilterIgnored);
    }
    let mut numbering = Numbering::read(connection)?;
    let told_at = told_at(connection, lease.feed_id)?;
    let mut new = 0;
    let mut lost_hints = 0;
    for document in &page.documents {
        if insert_document(connection, lease, document, plan.now, &mut numbering)? {
            new += 1;
            lost_hints += usize::from(was_not_told(lease, document, told_at));
        }
    }
    for body in &page.unidentified {
        set_aside(connection, lease.feed_id, body, plan.now)?;
    }
    for company in &page.companies {
        feed_id(
            connection,
            &Feed::exported(lease.feed.account.clone(), company.clone()),
            plan.now,
        )?;
    }
    uploads::tie(connection, &lease.feed.account, &page.uploads)?;
    let up_to_date = page.end == PageEnd::UpToDate;
    move_cursor(connection, lease, page, plan, up_to_date)?;
    connection
        .prepare_cached(
            "UPDATE feed SET leased_until = NULL, last_page_at = ?2, documents = documents + ?3,
                 lost_hints = lost_hints + ?4, possible_gaps = possible_gaps + ?5,
                 parked = CASE WHEN parked = 'by_hand' THEN parked END, waits_until = NULL, failures = 0, last_error = NULL
             WHERE id = ?1",
        )?
        .execute(params![lease.feed_id, plan.now.as_millis(), new, lost_hints, page.possible_gap])?;
    connection
        .prepare_cached(
            // A wait that another request in flight has set since still stands.
            "UPDATE account SET parked = CASE WHEN parked = 'by_hand' THEN parked END,
                 waits_until = CASE WHEN waits_until > ?2 THEN waits_until END, failures = 0, last_error = NULL
             WHERE id = ?1 AND (failures > 0 OR parked IS NOT NULL)",
        )?
        .execute(params![account_id(connection, &lease.feed.account)?, plan.now.as_millis()])?;
    if up_to_date {
        end_run(connection, lease, plan)?;
    }
    // Last of all, so that a number that is seen is a number that is committed.
    numbering.write(connection)?;
    Ok(PageOutcome::Committed(PageCommitted {
        new,
        known: page.documents.len() - new,
        up_to_date,
        lost_hints,
    }))
}

/// When the newest notification of this feed came.
fn told_at(connection: &Connection, feed: i64) -> rusqlite::Result<Option<Timestamp>> {
    connection
        .prepare_cached("SELECT due_at FROM feed_demand WHERE feed_id = ?1 AND kind = ?2")?
        .query_row(params![feed, kind_code(PullKind::Hint)], |row| {
            rows::moment(row, 0)
        })
        .optional()
}

/// Whether no notification told of a new version.
///
/// One that is older than the newest notification was told of, and only listed late,
/// whoever finds it. One that is newer was not, also where a follow-up of that
/// notification finds it first, as after the service was down.
fn was_not_told(lease: &PageLease, document: &DocumentVersion, told_at: Option<Timestamp>) -> bool {
    let looked_anyway = match lease.kind {
        PullKind::FollowUp | PullKind::LateFollowUp | PullKind::Reconciliation => !lease.first_pull,
        PullKind::Hint | PullKind::Backfill => false,
    };
    looked_anyway
        && match (document.version_time(), told_at) {
            (Some(version), Some(told_at)) => version > told_at,
            (None, _) | (_, None) => lease.kind == PullKind::Reconciliation,
        }
}

/// Whether every document is stored for another company, and not all for this one.
fn company_filter_ignored(
    connection: &Connection,
    lease: &PageLease,
    documents: &[DocumentVersion],
) -> rusqlite::Result<bool> {
    if lease.feed.queue != Queue::Exported || documents.is_empty() {
        return Ok(false);
    }
    let account = account_id(connection, &lease.feed.account)?;
    let mut elsewhere = connection.prepare_cached(
        "SELECT max(d.feed_id <> ?3), max(d.feed_id = ?3) FROM document d JOIN feed f ON f.id = d.feed_id
         WHERE d.document_id = ?1 AND d.version = ?2 AND f.account_id = ?4 AND f.queue = 'exported'",
    )?;
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

/// Stores one version; false where it is there already.
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

/// Leaves one version of the document current: the later by its time, else by its number.
fn supersede(
    connection: &Connection,
    feed: i64,
    document: &DocumentVersion,
    sequence: i64,
    version_ms: Option<i64>,
) -> rusqlite::Result<()> {
    let current: Option<(i64, Option<i64>)> = connection
        .prepare_cached(
            "SELECT sequence, version_ms FROM document
             WHERE document_id = ?1 AND feed_id = ?2 AND superseded = 0 AND sequence <> ?3",
        )?
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

/// Keeps an entry that has no usable id, once.
fn set_aside(
    connection: &Connection,
    feed: i64,
    body: &[u8],
    now: Timestamp,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO unidentified (feed_id, digest, seen_at, body)
             SELECT ?1, ?2, ?3, ?4 WHERE (SELECT count(*) FROM unidentified WHERE feed_id = ?1) < ?5
             ON CONFLICT (feed_id, digest) DO NOTHING",
        )?
        .execute(params![
            feed,
            digest(&SHA256, body).as_ref(),
            now.as_millis(),
            body,
            UNIDENTIFIED
        ])?;
    Ok(())
}

/// Moves the run's position, and the feed's cursor where this kind of pull may.
fn move_cursor(
    connection: &Connection,
    lease: &PageLease,
    page: &PageToCommit,
    plan: &PullPlan,
    up_to_date: bool,
) -> rusqlite::Result<()> {
    let holder = position_holder(lease.kind, lease.first_pull);
    let position = Position {
        from: page.next_from.clone(),
        previous_next: page
            .cursor
            .clone()
            .or_else(|| lease.position.previous_next.clone()),
        previous_entries: page.documents.len() + page.unidentified.len(),
    };
    save_position(connection, lease.feed_id, holder, &position)?;
    let cursor = match holder {
        PullKind::Backfill => None,
        PullKind::Hint => page.cursor.as_ref(),
        // An overlap read ends where the queue ends; until then the cursor stays.
        _ if up_to_date => position.previous_next.as_ref(),
        _ => None,
    };
    let Some(cursor) = cursor else {
        return Ok(());
    };
    connection
        .prepare_cached("UPDATE feed SET cursor = ?2 WHERE id = ?1")?
        .execute(params![lease.feed_id, cursor.as_str()])?;
    save_cursor(connection, lease.feed_id, cursor, plan)
}

/// Adds a cursor to the saved ones, and drops those that no overlap read needs.
fn save_cursor(
    connection: &Connection,
    feed: i64,
    cursor: &Cursor,
    plan: &PullPlan,
) -> rusqlite::Result<()> {
    let saved = saved_cursors(connection, feed)?;
    let old_enough = plan.now.before(plan.lookback);
    let mut delete = connection
        .prepare_cached("DELETE FROM feed_cursor WHERE feed_id = ?1 AND saved_at = ?2")?;
    // The newest makes way where it is nearly as new as this one and the one before
    // it is near as well: at least one stays for each stretch of time.
    if let [newest, before, ..] = &saved[..]
        && plan.now.as_millis() - before.saved_at.as_millis() < CURSOR_SPACING_MS
        && !newest.is_from_before(old_enough)
    {
        delete.execute(params![feed, newest.saved_at.as_millis()])?;
    }
    let kept = saved
        .iter()
        .position(|saved| saved.is_from_before(old_enough));
    for unneeded in saved.iter().skip(kept.map_or(usize::MAX, |kept| kept + 1)) {
        delete.execute(params![feed, unneeded.saved_at.as_millis()])?;
    }
    // Two pages may be stored in one millisecond; the later one counts as later.
    let saved_at = saved.first().map_or(plan.now.as_millis(), |newest| {
        plan.now.as_millis().max(newest.saved_at.as_millis() + 1)
    });
    connection
        .prepare_cached("INSERT INTO feed_cursor (feed_id, saved_at, cursor) VALUES (?1, ?2, ?3)")?
        .execute(params![feed, saved_at, cursor.as_str()])?;
    Ok(())
}

/// Notes that the run has served its wish, and raises what follows from it.
fn end_run(connection: &Connection, lease: &PageLease, plan: &PullPlan) -> rusqlite::Result<()> {
    let kind = kind_code(lease.kind);
    connection
        .prepare_cached(
            "UPDATE feed SET up_to_date_at = ?2,
                 first_complete_at = CASE WHEN ?3 THEN first_complete_at ELSE coalesce(first_complete_at, ?2) END
             WHERE id = ?1",
        )?
        .execute(params![lease.feed_id, plan.now.as_millis(), lease.kind == PullKind::Backfill])?;
    connection
        .prepare_cached(
            "UPDATE feed_run SET position = NULL, previous_next = NULL, previous_entries = 0
             WHERE feed_id = ?1 AND kind IN (?2, ?3)",
        )?
        .execute(params![
            lease.feed_id,
            kind,
            kind_code(position_holder(lease.kind, lease.first_pull)),
        ])?;
    // Its wish came again while one was pending: once more at that time, if the run
    // began before it.
    connection
        .prepare_cached(
            "UPDATE feed_demand SET due_at = again_at, wanted = wanted + 1
             WHERE feed_id = ?1 AND kind = ?2
               AND again_at > (SELECT started_at FROM feed_run r WHERE r.feed_id = ?1 AND r.kind = ?2)",
        )?
        .execute(params![lease.feed_id, kind])?;
    connection
        .prepare_cached("UPDATE feed_demand SET again_at = NULL WHERE feed_id = ?1 AND kind = ?2")?
        .execute(params![lease.feed_id, kind])?;
    connection
        .prepare_cached("UPDATE feed_run SET served = coalesce(noted, served), noted = NULL WHERE feed_id = ?1 AND kind = ?2")?
        .execute(params![lease.feed_id, kind])?;
    if lease.first_pull && lease.kind != PullKind::Backfill {
        // Runs of other kinds began at the beginning too; they now start as overlap reads.
        connection
            .prepare_cached("UPDATE feed_run SET noted = NULL, position = NULL WHERE feed_id = ?1 AND kind <> ?2")?
            .execute(params![lease.feed_id, kind_code(PullKind::Backfill)])?;
    }
    match lease.kind {
        PullKind::Hint => {
            raise(
                connection,
                lease.feed_id,
                PullKind::FollowUp,
                plan.now.after(plan.follow_ups[0]),
            )?;
            raise(
                connection,
                lease.feed_id,
                PullKind::LateFollowUp,
                plan.now.after(plan.follow_ups[1]),
            )
        }
        PullKind::Reconciliation => raise(
            connection,
            lease.feed_id,
            PullKind::Reconciliation,
            plan.now.after(plan.reconcile_every),
        ),
        PullKind::FollowUp | PullKind::LateFollowUp | PullKind::Backfill => Ok(()),
    }
}

/// Notes a failed request and gives the lease back.
pub(super) fn fail(
    connection: &Connection,
    path: &Path,
    lease: &PageLease,
    failure: PageFailure,
    error: &str,
) -> Result<(), StoreError> {
    check_fence(connection, path, lease)?;
    note_failure(connection, lease, failure, error).map_err(|error| explain(path, error))
}

fn note_failure(
    connection: &Connection,
    lease: &PageLease,
    failure: PageFailure,
    error: &str,
) -> rusqlite::Result<()> {
    let account = account_id(connection, &lease.feed.account)?;
    connection.execute(
        "UPDATE feed SET leased_until = NULL, failures = failures + 1, last_error = ?2 WHERE id = ?1",
        params![lease.feed_id, error],
    )?;
    connection.execute(
        "UPDATE account SET failures = failures + 1, last_error = ?2 WHERE id = ?1",
        params![account, error],
    )?;
    match failure {
        PageFailure::FeedWaits(until) => connection
            .execute(
                "UPDATE feed SET waits_until = ?2 WHERE id = ?1",
                params![lease.feed_id, until.as_millis()],
            )
            .map(drop),
        PageFailure::AccountWaits(until) => connection
            .execute(
                // A longer wait that another request in flight has set still stands.
                "UPDATE account SET waits_until = max(coalesce(waits_until, 0), ?2) WHERE id = ?1",
                params![account, until.as_millis()],
            )
            .map(drop),
        PageFailure::FeedParked { reason, retry_at } => {
            park_feed(connection, lease.feed_id, reason, Some(retry_at), error)
        }
        PageFailure::AccountParked { reason, retry_at } => connection
            .execute(
                "UPDATE account SET parked = ?2, waits_until = ?3 WHERE id = ?1",
                params![account, reason.as_str(), retry_at.as_millis()],
            )
            .map(drop),
    }
}

fn park_feed(
    connection: &Connection,
    feed: i64,
    reason: ParkReason,
    retry_at: Option<Timestamp>,
    error: &str,
) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE feed SET leased_until = NULL, parked = ?2, waits_until = ?3, last_error = ?4 WHERE id = ?1",
        params![feed, reason.as_str(), retry_at.map(Timestamp::as_millis), error],
    )?;
    Ok(())
}

/// Gives a lease back with nothing done.
pub(super) fn release(connection: &Connection, lease: &PageLease) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE feed SET leased_until = NULL WHERE id = ?1 AND fence = ?2",
        params![lease.feed_id, lease.fence],
    )?;
    Ok(())
}

/// Parks by hand, or frees whatever was parked or waiting; gives how many changed.
pub(super) fn set_parked(
    connection: &Connection,
    account: &crate::domain::Account,
    feed: Option<&Feed>,
    parked: bool,
) -> rusqlite::Result<usize> {
    let account = account_id(connection, account)?;
    let reason = parked.then_some(ParkReason::ByHand.as_str());
    let feed_row: Option<i64> = match feed {
        None => None,
        Some(feed) => {
            let found = connection
                .query_row(
                    "SELECT id FROM feed WHERE account_id = ?1 AND queue = ?2 AND company = ?3",
                    params![account, feed.queue.as_str(), feed.company.as_str()],
                    |row| row.get(0),
                )
                .optional()?;
            match found {
                None => return Ok(0),
                found => found,
            }
        }
    };
    if feed_row.is_none() && !parked {
        connection.execute(
            "UPDATE account SET parked = NULL, waits_until = NULL, failures = 0, last_error = NULL WHERE id = ?1",
            params![account],
        )?;
    }
    connection.execute(
        "UPDATE feed SET parked = ?3, waits_until = NULL, failures = 0,
             last_error = CASE WHEN ?3 IS NULL THEN NULL ELSE last_error END
         WHERE account_id = ?1 AND (?2 IS NULL OR id = ?2)
           AND (?3 IS NOT NULL OR parked IS NOT NULL OR waits_until IS NOT NULL)",
        params![account, feed_row, reason],
    )
}

/// At start nobody of this process holds a lease: those of one that was killed end,
/// and what waited for a person is tried again, as a restart often mends it.
pub(super) fn start_afresh(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE feed SET leased_until = NULL WHERE leased_until IS NOT NULL",
        [],
    )?;
    connection.execute(
        "UPDATE feed SET parked = NULL, waits_until = NULL WHERE parked IN ('unauthorized', 'forbidden', 'not_found')",
        [],
    )?;
    connection.execute("UPDATE account SET parked = NULL, waits_until = NULL WHERE parked IS NOT NULL AND parked <> 'by_hand'", [])?;
    Ok(())
}
