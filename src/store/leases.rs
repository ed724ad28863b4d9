//! Leasing feeds: the most urgent one, and the position of its pull.

use std::ops::ControlFlow;

use super::StoreError;
use super::columns::kind_code;
use super::engine::{Fragment, Operation, Param, Sql, Tx};
use super::feeds::{LeaseRequest, PageLease, Position, TriggerKind};
use super::pulls::{SavedCursor, overlap_start, position_kind};
use crate::domain::{Cursor, Timestamp};

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

/// Returns the moment when the next trigger is due; `None` if none is pending.
pub(super) struct NextDue(pub(super) LeaseRequest);

impl Operation for NextDue {
    type Output = Option<Timestamp>;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        static SQL: Sql = Sql::with(
            "SELECT min({greatest}(d.due_at, coalesce(f.waits_until, 0), coalesce(a.waits_until, 0),
                                   coalesce(f.leased_until, 0)))
             {pending}",
            &[("pending", PENDING)],
        );
        tx.one(&SQL, &[&self.0.pullable()], |row| row.get(0)).await
    }
}

/// Number of attempts to lease a feed while other replicas lease those that were chosen.
pub(super) const MAX_LEASE_ATTEMPTS: usize = 4;

impl Operation for LeaseRequest {
    type Output = ControlFlow<Option<PageLease>>;

    /// Leases the most urgent feed that may be pulled now; its pull starts or continues.
    /// Returns [`ControlFlow::Continue`], with nothing changed, if another replica pulled
    /// it, or used the account's last request.
    ///
    /// The locks are those of an UPDATE that does not change the key, so that ingest, whose
    /// rows refer to these, never waits for them.
    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
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
        static LEASE: Sql = Sql::new(
            "UPDATE feed SET fence = fence + 1, leased_until = $2, last_leased_at = $3 WHERE id = $1
             RETURNING fence",
        );
        let now = tx.now_or(self.now);
        let pullable = self.pullable();
        let params: [&dyn Param; 3] = [&pullable, &now, &self.requests_per_account];
        let chosen: Option<(i64, i64)> = tx
            .first(&CHOOSE, &params, |row| Ok((row.get(0)?, row.get(1)?)))
            .await?;
        let Some((feed, account)) = chosen else {
            return Ok(ControlFlow::Break(None));
        };
        tx.first(&LOCK_ACCOUNT, &[&account], |_| Ok(())).await?;
        let params: [&dyn Param; 4] = [&pullable, &now, &self.requests_per_account, &feed];
        let Some(candidate) = check(tx, feed, &params).await? else {
            return Ok(ControlFlow::Continue(()));
        };
        let position = start_or_resume(tx, &self, &candidate, now).await?;
        let fence = tx
            .one(&LEASE, &[&feed, &now.after(self.lease), &now], |row| {
                row.get(0)
            })
            .await?;
        Ok(ControlFlow::Break(Some(PageLease {
            fence,
            position,
            ..candidate.lease
        })))
    }
}

struct Candidate {
    raised: i64,
    in_progress: bool,
    cursor: Option<Cursor>,
    /// Without fence and position.
    lease: PageLease,
}

/// Reads the locked feed again: others may have committed between the choice, which saw an
/// older snapshot, and the lock.
async fn check<T: Tx>(
    tx: &mut T,
    feed_id: i64,
    params: &[&dyn Param],
) -> Result<Option<Candidate>, StoreError> {
    static SQL: Sql = Sql::with(
        "SELECT a.name, f.queue, f.company, d.kind, d.raised, r.target IS NOT NULL, f.cursor,
                f.first_complete_at IS NULL, f.failures, a.failures,
                (f.last_page_at IS NOT NULL OR NOT EXISTS
                     (SELECT 1 FROM feed w WHERE w.account_id = a.id AND w.last_page_at IS NOT NULL))
         {pending} AND {due} AND f.id = $4 ORDER BY d.kind LIMIT 1",
        &[("pending", PENDING), ("due", DUE)],
    );
    tx.first(&SQL, params, |row| {
        Ok(Candidate {
            raised: row.get(4)?,
            in_progress: row.get(5)?,
            cursor: row.get(6)?,
            lease: PageLease {
                feed_id,
                feed: row.get(0)?,
                kind: row.get(3)?,
                fence: 0,
                position: Position::default(),
                first_pull: row.get(7)?,
                feed_failures: row.get(8)?,
                account_failures: row.get(9)?,
                key_at_fault: row.get(10)?,
            },
        })
    })
    .await
}

/// Returns the position of the pull; a new pull is recorded first.
async fn start_or_resume<T: Tx>(
    tx: &mut T,
    request: &LeaseRequest,
    candidate: &Candidate,
    now: Timestamp,
) -> Result<Position, StoreError> {
    static START: Sql = Sql::new(
        "INSERT INTO feed_pull (feed_id, kind, target, started_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (feed_id, kind) DO UPDATE SET target = excluded.target, started_at = excluded.started_at",
    );
    let PageLease {
        feed_id,
        kind,
        first_pull,
        ..
    } = candidate.lease;
    let position_kind = position_kind(kind, first_pull);
    let stored = position(tx, feed_id, position_kind).await?;
    if candidate.in_progress {
        return Ok(stored);
    }
    let start = match kind {
        // Set when it was requested.
        TriggerKind::Backfill => stored.from,
        // Another kind may have begun the first pull.
        _ if first_pull => stored.from.or_else(|| candidate.cursor.clone()),
        kind if kind.overlaps() => {
            let saved = saved_cursors(tx, feed_id).await?;
            let last = last_overlap_read(tx, feed_id, now).await?;
            overlap_start(saved, last.before(request.lookback))
        }
        _ => candidate.cursor.clone(),
    };
    let position = Position {
        from: start,
        ..Position::default()
    };
    tx.execute(
        &START,
        &[&feed_id, &kind_code(kind), &candidate.raised, &now],
    )
    .await?;
    save_position(tx, feed_id, position_kind, &position).await?;
    Ok(position)
}

async fn position<T: Tx>(tx: &mut T, feed: i64, kind: TriggerKind) -> Result<Position, StoreError> {
    static SQL: Sql = Sql::new(
        "SELECT position, previous_next, previous_entries FROM feed_pull WHERE feed_id = $1 AND kind = $2",
    );
    let stored = tx
        .first(&SQL, &[&feed, &kind_code(kind)], |row| {
            Ok(Position {
                from: row.get(0)?,
                previous_next: row.get(1)?,
                previous_entries: row.get(2)?,
            })
        })
        .await?;
    Ok(stored.unwrap_or_default())
}

/// Saves the position of a pull.
pub(super) async fn save_position<T: Tx>(
    tx: &mut T,
    feed: i64,
    kind: TriggerKind,
    position: &Position,
) -> Result<(), StoreError> {
    static SQL: Sql = Sql::new(
        "INSERT INTO feed_pull (feed_id, kind, position, previous_next, previous_entries) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (feed_id, kind) DO UPDATE SET position = excluded.position,
             previous_next = excluded.previous_next, previous_entries = excluded.previous_entries",
    );
    let params: [&dyn Param; 5] = [
        &feed,
        &kind_code(kind),
        &position.from.as_ref().map(Cursor::as_str),
        &position.previous_next.as_ref().map(Cursor::as_str),
        &position.previous_entries,
    ];
    tx.execute(&SQL, &params).await?;
    Ok(())
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
) -> Result<Timestamp, StoreError> {
    static SQL: Sql = Sql::new(
        "SELECT coalesce(
             (SELECT max(started_at) FROM feed_pull
              WHERE feed_id = $1 AND kind IN ($2, $3, $4) AND target IS NULL),
             (SELECT min(started_at) FROM feed_pull WHERE feed_id = $1 AND kind <> $5))",
    );
    let params: [&dyn Param; 5] = [
        &feed,
        &kind_code(TriggerKind::FollowUp),
        &kind_code(TriggerKind::LateFollowUp),
        &kind_code(TriggerKind::Reconciliation),
        &kind_code(TriggerKind::Backfill),
    ];
    let began_at: Option<Timestamp> = tx.one(&SQL, &params, |row| row.get(0)).await?;
    Ok(began_at.unwrap_or(now).min(now))
}

/// Returns the feed's saved cursors, newest first.
pub(super) async fn saved_cursors<T: Tx>(
    tx: &mut T,
    feed: i64,
) -> Result<Vec<SavedCursor>, StoreError> {
    static SQL: Sql = Sql::new(
        "SELECT saved_at, cursor FROM feed_cursor WHERE feed_id = $1 ORDER BY saved_at DESC",
    );
    tx.all(&SQL, &[&feed], |row| {
        Ok(SavedCursor {
            saved_at: row.get(0)?,
            cursor: row.get(1)?,
        })
    })
    .await
}

/// Locks the lease's feed and returns the row of its account. Fails with
/// [`StoreError::StaleLease`] if another worker has leased the feed since.
pub(super) async fn lock_as_owner<T: Tx>(tx: &mut T, lease: &PageLease) -> Result<i64, StoreError> {
    static SQL: Sql =
        Sql::new("SELECT account_id FROM feed WHERE id = $1 AND fence = $2{lock_rows}");
    tx.first(&SQL, &[&lease.feed_id, &lease.fence], |row| row.get(0))
        .await?
        .ok_or(StoreError::StaleLease)
}

/// Releases all leases: at the start of the only process, those of a process that ended.
pub(super) struct ReleaseAllLeases;

impl Operation for ReleaseAllLeases {
    type Output = ();

    async fn run<T: Tx>(self, tx: &mut T) -> Result<(), StoreError> {
        static FEEDS: Sql =
            Sql::new("UPDATE feed SET leased_until = NULL WHERE leased_until IS NOT NULL");
        static DESTINATIONS: Sql = Sql::new("UPDATE destination SET leased_until = NULL");
        static IMPORT_ERRORS: Sql = Sql::new("UPDATE import_error SET leased_until = NULL");
        tx.execute(&FEEDS, &[]).await?;
        tx.execute(&DESTINATIONS, &[]).await?;
        tx.execute(&IMPORT_ERRORS, &[]).await?;
        Ok(())
    }
}
