//! Leasing feeds: the most urgent one, and the position of its pull.

use std::ops::ControlFlow;

use super::columns::UnknownValue;
use super::engine::{Column, Columns, Fragment, Param, Sql, Tx, operations, params, rows};
use super::error::Result;
use super::feeds::{LeaseRequest, PageLease, Position, PullProgress};
use super::gaps::{earlier, provable_start};
use super::pulls::{SavedCursor, overlap_start, position_kind};
use super::trigger_kind::TriggerKind;
use super::{Store, StoreError};
use crate::domain::{Cursor, Feed, Timestamp};

/// Pending triggers of feeds that a process can pull ($1). Paused feeds and accounts are
/// retried when their wait is over, except those that need a person.
const PENDING: Fragment = Fragment::Same(
    "FROM feed_trigger d
         JOIN feed f ON f.id = d.feed_id
         JOIN account a ON a.id = f.account_id
         LEFT JOIN feed_pull r ON r.feed_id = d.feed_id AND r.kind = d.kind
         WHERE d.raised > coalesce(r.completed, 0)
           AND coalesce(f.paused, '') NOT IN ('by_hand', 'company_filter_ignored')
           AND coalesce(a.paused, '') <> 'by_hand'
           AND a.name || '/' || f.queue IN ({elements}($1))",
);

/// Restricts them to those that may be pulled at $2, with fewer than $3 requests of the
/// account in flight.
const DUE: Fragment = Fragment::Same(
    "d.due_at <= $2
           AND coalesce(f.leased_until, 0) <= $2
           AND coalesce(f.waits_until, 0) <= $2
           AND coalesce(a.waits_until, 0) <= $2
           AND (SELECT count(*) FROM feed busy WHERE busy.account_id = a.id AND busy.leased_until > $2) < $3",
);

impl LeaseRequest {
    /// Returns `account/queue` of the feeds that the process can pull.
    fn pullable(&self) -> Vec<String> {
        let queues = self.queues.iter();
        queues
            .map(|(account, queue)| format!("{account}/{queue}"))
            .collect()
    }
}

operations! {
    /// Leases the most urgent feed that may be pulled now; its pull starts or continues.
    /// Returns [`ControlFlow::Continue`], with nothing changed, if another replica pulled
    /// it, or used the account's last request.
    write try_lease(request: LeaseRequest) -> ControlFlow<Option<PageLease>>;

    /// Returns the moment when the next trigger is due; `None` if there is none.
    pub read next_due(request: LeaseRequest) -> Option<Timestamp>;
}

/// Number of attempts to lease a feed while other replicas lease those that were chosen.
const MAX_LEASE_ATTEMPTS: usize = 4;

impl Store {
    /// Leases the most urgent feed that may be requested now.
    pub async fn lease_page(&self, request: LeaseRequest) -> Result<Option<PageLease>> {
        for _ in 0..MAX_LEASE_ATTEMPTS {
            if let ControlFlow::Break(lease) = self.try_lease(request.clone()).await? {
                return Ok(lease);
            }
        }
        Ok(None)
    }
}

async fn next_due<T: Tx>(tx: &mut T, request: LeaseRequest) -> Result<Option<Timestamp>> {
    static SQL: Sql = Sql::with(
        "SELECT min({greatest}(d.due_at, coalesce(f.waits_until, 0), coalesce(a.waits_until, 0),
                               coalesce(f.leased_until, 0)))
         {pending}",
        &[("pending", PENDING)],
    );
    tx.one(&SQL, &[&request.pullable()]).await
}

/// The locks are those of an UPDATE that does not change the key, so that ingest, whose rows
/// refer to these, never waits for them.
async fn try_lease<T: Tx>(
    tx: &mut T,
    request: LeaseRequest,
) -> Result<ControlFlow<Option<PageLease>>> {
    // A feed that no other replica has locked.
    static CHOOSE: Sql = Sql::with(
        "SELECT f.id, f.account_id {pending} AND {due}
         ORDER BY d.kind, f.last_leased_at NULLS FIRST, f.id LIMIT 1{skip_leased}",
        &[
            ("pending", PENDING),
            ("due", DUE),
            (
                "skip_leased",
                Fragment::Differs("", " FOR NO KEY UPDATE OF f SKIP LOCKED"),
            ),
        ],
    );
    // Serializes the counting of requests in flight.
    static LOCK_ACCOUNT: Sql = Sql::new("SELECT 1 FROM account WHERE id = $1{lock_rows}");
    // Read again: others may have committed between the choice, which saw an older snapshot,
    // and the lock.
    static CHECK: Sql = Sql::with(
        "SELECT a.name, f.queue, f.company, d.kind, d.raised, r.target IS NOT NULL, f.cursor,
                f.first_complete_at IS NULL, f.pulled_at IS NULL, f.failures, a.failures,
                (f.last_page_at IS NOT NULL OR NOT EXISTS
                     (SELECT 1 FROM feed w WHERE w.account_id = a.id AND w.last_page_at IS NOT NULL)),
                coalesce((SELECT q.largest_page FROM account_queue q
                          WHERE q.account_id = a.id AND q.queue = f.queue), 0)
         {pending} AND {due} AND f.id = $4 ORDER BY d.kind LIMIT 1",
        &[("pending", PENDING), ("due", DUE)],
    );
    static LEASE: Sql = Sql::new(
        "UPDATE feed SET fence = fence + 1, leased_until = $2, last_leased_at = $3 WHERE id = $1
         RETURNING fence",
    );
    let now = tx.now_or(request.now);
    let pullable = request.pullable();
    let params: [&dyn Param; 3] = [&pullable, &now, &request.requests_per_account];
    let chosen: Option<(i64, i64)> = tx.first(&CHOOSE, &params).await?;
    let Some((feed_id, account)) = chosen else {
        return Ok(ControlFlow::Break(None));
    };
    tx.first::<()>(&LOCK_ACCOUNT, &[&account]).await?;
    let params = [&params[..], &[&feed_id as &dyn Param]].concat();
    let Some(candidate) = tx.first::<Candidate>(&CHECK, &params).await? else {
        return Ok(ControlFlow::Continue(()));
    };
    let position = start_or_resume(tx, &request, feed_id, &candidate, now).await?;
    let fence = tx
        .one(&LEASE, &[&feed_id, &now.after(request.lease), &now])
        .await?;
    Ok(ControlFlow::Break(Some(PageLease {
        feed_id,
        feed: candidate.feed,
        kind: candidate.kind,
        fence,
        position,
        first_pull: candidate.first_pull,
        first_read: candidate.first_read,
        largest_page: candidate.largest_page,
        feed_failures: candidate.feed_failures,
        account_failures: candidate.account_failures,
        key_at_fault: candidate.key_at_fault,
    })))
}

/// A feed that may be leased.
struct Candidate {
    feed: Feed,
    kind: TriggerKind,
    raised: i64,
    in_progress: bool,
    cursor: Option<Cursor>,
    first_pull: bool,
    first_read: bool,
    feed_failures: u32,
    account_failures: u32,
    key_at_fault: bool,
    largest_page: usize,
}

rows! {
    Candidate {
        feed, kind, raised, in_progress, cursor, first_pull, first_read, feed_failures,
        account_failures, key_at_fault, largest_page,
    }
    Position { from, previous_next, progress }
    SavedCursor { saved_at, cursor }
}

impl PullProgress {
    /// Returns the text of its column.
    fn to_json(&self) -> Option<String> {
        // It has nothing that JSON can't hold.
        (*self != Self::default()).then(|| serde_json::to_string(self).ok())?
    }
}

impl Column for PullProgress {
    /// NULL is the progress of a pull that has not begun.
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        let Some(json) = columns.get::<Option<String>>()? else {
            return Ok(Self::default());
        };
        let read = serde_json::from_str(&json);
        Ok(read.map_err(|_| UnknownValue("progress of a pull"))?)
    }
}

/// Returns the position of the pull; a new pull is recorded first.
async fn start_or_resume<T: Tx>(
    tx: &mut T,
    request: &LeaseRequest,
    feed_id: i64,
    candidate: &Candidate,
    now: Timestamp,
) -> Result<Position> {
    static POSITION: Sql = Sql::new(
        "SELECT position, previous_next, progress FROM feed_pull WHERE feed_id = $1 AND kind = $2",
    );
    static START: Sql = Sql::new(
        "INSERT INTO feed_pull (feed_id, kind, target, started_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (feed_id, kind) DO UPDATE SET target = excluded.target, started_at = excluded.started_at",
    );
    let (kind, first_read) = (candidate.kind, candidate.first_read);
    let position_kind = position_kind(kind, first_read);
    let stored: Option<Position> = tx.first(&POSITION, &[&feed_id, &position_kind]).await?;
    let stored = stored.unwrap_or_default();
    if candidate.in_progress {
        return Ok(stored);
    }
    let start = match kind {
        // Set when it was requested.
        TriggerKind::Backfill => stored.from,
        // Another kind may have begun the first pull.
        _ if first_read => stored.from.or_else(|| candidate.cursor.clone()),
        kind if kind.overlaps() => {
            let saved = saved_cursors(tx, feed_id).await?;
            let last = last_overlap_read(tx, feed_id, now).await?;
            let start = overlap_start(saved, last.before(request.lookback));
            match provable_start(tx, feed_id, candidate.largest_page).await? {
                Some(gap) => earlier(start.as_ref(), gap.as_ref()).cloned(),
                None => start,
            }
        }
        _ => candidate.cursor.clone(),
    };
    let position = Position {
        from: start,
        ..Position::default()
    };
    tx.run(&START, &[&feed_id, &kind, &candidate.raised, &now])
        .await?;
    save_position(tx, feed_id, position_kind, &position).await?;
    Ok(position)
}

/// Saves the position of a pull.
pub(super) async fn save_position<T: Tx>(
    tx: &mut T,
    feed: i64,
    kind: TriggerKind,
    position: &Position,
) -> Result<()> {
    static SQL: Sql = Sql::new(
        "INSERT INTO feed_pull (feed_id, kind, position, previous_next, progress) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (feed_id, kind) DO UPDATE SET position = excluded.position,
             previous_next = excluded.previous_next, progress = excluded.progress",
    );
    let Position {
        from,
        previous_next,
        progress,
    } = position;
    let progress = progress.to_json();
    tx.run(&SQL, &[&feed, &kind, from, previous_next, &progress])
        .await
}

/// Returns the moment when the newest complete overlap read began; the first pull counts
/// as one.
///
/// Overlap reads go back from this moment, not from the present: versions may have been
/// listed late while the service was down.
pub(super) async fn last_overlap_read<T: Tx>(
    tx: &mut T,
    feed: i64,
    now: Timestamp,
) -> Result<Timestamp> {
    static SQL: Sql = Sql::new(
        "SELECT coalesce(
             (SELECT max(started_at) FROM feed_pull
              WHERE feed_id = $1 AND kind IN ($2, $3, $4) AND target IS NULL),
             (SELECT min(started_at) FROM feed_pull WHERE feed_id = $1 AND kind <> $5))",
    );
    let params = params! {
        feed, TriggerKind::FollowUp, TriggerKind::LateFollowUp, TriggerKind::Reconciliation,
        TriggerKind::Backfill,
    };
    let began_at: Option<Timestamp> = tx.one(&SQL, params).await?;
    Ok(began_at.unwrap_or(now).min(now))
}

/// Returns the feed's saved cursors, newest first.
pub(super) async fn saved_cursors<T: Tx>(tx: &mut T, feed: i64) -> Result<Vec<SavedCursor>> {
    static SQL: Sql = Sql::new(
        "SELECT saved_at, cursor FROM feed_cursor WHERE feed_id = $1 ORDER BY saved_at DESC",
    );
    tx.all(&SQL, &[&feed]).await
}

/// Locks the lease's feed and returns the row of its account. Fails with
/// [`StoreError::StaleLease`] if another worker has leased the feed since.
pub(super) async fn lock_as_owner<T: Tx>(tx: &mut T, lease: &PageLease) -> Result<i64> {
    static SQL: Sql =
        Sql::new("SELECT account_id FROM feed WHERE id = $1 AND fence = $2{lock_rows}");
    tx.first(&SQL, &[&lease.feed_id, &lease.fence])
        .await?
        .ok_or(StoreError::StaleLease)
}
