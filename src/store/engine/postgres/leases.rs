//! Leasing feeds: the most urgent one, to one worker of all replicas at a time.

use super::connection::{Pool, Transaction};
use super::rows;
use crate::domain::{Cursor, Timestamp};
use crate::store::columns::{self, kind_code};
use crate::store::pulls::{self, SavedCursor, position_kind};
use crate::store::{LeaseRequest, PageLease, Position, StoreError, TriggerKind};

/// Number of attempts of a worker that others overtake before it gives up for now.
const MAX_LEASE_ATTEMPTS: usize = 4;

/// Pending triggers of feeds that this process can pull (`$1`). Paused feeds and accounts
/// are retried when their wait is over, except those that need a person.
const PENDING: &str = "
    FROM feed_trigger d
    JOIN feed f ON f.id = d.feed_id
    JOIN account a ON a.id = f.account_id
    LEFT JOIN feed_pull r ON r.feed_id = d.feed_id AND r.kind = d.kind
    WHERE d.raised > coalesce(r.completed, 0)
      AND coalesce(f.paused, '') NOT IN ('by_hand', 'company_filter_ignored')
      AND coalesce(a.paused, '') <> 'by_hand'
      AND a.name || '/' || f.queue = ANY ($1)";

/// Restricts them to those that may be pulled at `$2`, with fewer than `$3` requests of the
/// account in flight.
const DUE: &str = "
      AND d.due_at <= $2
      AND coalesce(f.leased_until, 0) <= $2
      AND coalesce(f.waits_until, 0) <= $2
      AND coalesce(a.waits_until, 0) <= $2
      AND (SELECT count(*) FROM feed busy WHERE busy.account_id = a.id AND busy.leased_until > $2) < $3";

fn pullable(request: &LeaseRequest) -> Vec<String> {
    request
        .queues
        .iter()
        .map(|(account, queue)| format!("{account}/{queue}"))
        .collect()
}

/// Returns the moment when the next trigger is due; `None` if none is pending.
pub(super) async fn next_due(
    transaction: &Transaction<'_>,
    request: &LeaseRequest,
) -> Result<Option<Timestamp>, StoreError> {
    let sql = format!(
        "SELECT min(greatest(d.due_at, f.waits_until, a.waits_until, f.leased_until)) {PENDING}"
    );
    let row = transaction.query_one(&sql, &[&pullable(request)]).await?;
    rows::optional_timestamp(&row, 0)
}

/// Leases the most urgent feed that may be pulled now; its pull starts or continues.
pub(super) async fn lease(
    pool: &Pool,
    request: &LeaseRequest,
) -> Result<Option<PageLease>, StoreError> {
    for _ in 0..MAX_LEASE_ATTEMPTS {
        let transaction = pool.write().await?;
        let Some(feed) = choose(&transaction, request).await? else {
            transaction.roll_back().await?;
            return Ok(None);
        };
        match check_candidate(&transaction, request, feed).await? {
            Some(candidate) => {
                let lease = grant(&transaction, request, candidate).await?;
                transaction.commit().await?;
                return Ok(Some(lease));
            }
            // Another replica pulled it, or used the account's last request.
            None => transaction.roll_back().await?,
        }
    }
    Ok(None)
}

/// Locks the most urgent feed that no other replica has locked, then its account.
///
/// The locks are those of an UPDATE that does not change the key, so that ingest, whose
/// rows refer to these, never waits for them.
async fn choose(
    transaction: &Transaction<'_>,
    request: &LeaseRequest,
) -> Result<Option<i64>, StoreError> {
    let sql = format!(
        "SELECT f.id, f.account_id {PENDING} {DUE}
         ORDER BY d.kind, f.last_leased_at NULLS FIRST, f.id LIMIT 1
         FOR NO KEY UPDATE OF f SKIP LOCKED"
    );
    let row = transaction
        .query_opt(
            &sql,
            &[
                &pullable(request),
                &transaction.now().as_millis(),
                &i64::from(request.requests_per_account),
            ],
        )
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    // The lock serializes the counting of requests in flight.
    transaction
        .query(
            "SELECT 1 FROM account WHERE id = $1 FOR NO KEY UPDATE",
            &[&row.try_get::<_, i64>(1)?],
        )
        .await?;
    Ok(Some(row.try_get(0)?))
}

struct FeedCandidate {
    feed_id: i64,
    raised: i64,
    in_progress: bool,
    cursor: Option<Cursor>,
    lease: PageLease,
}

/// Reads the locked feed again: others may have committed between the choice, which saw an
/// older snapshot, and the lock.
async fn check_candidate(
    transaction: &Transaction<'_>,
    request: &LeaseRequest,
    feed_id: i64,
) -> Result<Option<FeedCandidate>, StoreError> {
    let sql = format!(
        "SELECT a.name, f.queue, f.company, d.kind, d.raised, r.target IS NOT NULL, f.cursor,
                f.first_complete_at IS NULL, f.failures, a.failures, f.fence,
                (f.last_page_at IS NOT NULL OR NOT EXISTS
                     (SELECT 1 FROM feed w WHERE w.account_id = a.id AND w.last_page_at IS NOT NULL))
         {PENDING} {DUE} AND f.id = $4 ORDER BY d.kind LIMIT 1"
    );
    let row = transaction
        .query_opt(
            &sql,
            &[
                &pullable(request),
                &transaction.now().as_millis(),
                &i64::from(request.requests_per_account),
                &feed_id,
            ],
        )
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    Ok(Some(FeedCandidate {
        feed_id,
        raised: row.try_get(4)?,
        in_progress: row.try_get(5)?,
        cursor: rows::optional_text(&row, 6)?.map(Cursor::new),
        lease: PageLease {
            feed_id,
            feed: rows::feed(&row, 0)?,
            kind: columns::kind(row.try_get(3)?)?,
            fence: row.try_get::<_, i64>(10)? + 1,
            position: Position::default(),
            first_pull: row.try_get(7)?,
            feed_failures: rows::count(&row, 8)?,
            account_failures: rows::count(&row, 9)?,
            key_at_fault: row.try_get(11)?,
        },
    }))
}

async fn grant(
    transaction: &Transaction<'_>,
    request: &LeaseRequest,
    candidate: FeedCandidate,
) -> Result<PageLease, StoreError> {
    let position = start_or_resume(transaction, request, &candidate).await?;
    let now = transaction.now();
    transaction
        .execute(
            "UPDATE feed SET fence = $2, leased_until = $3, last_leased_at = $4 WHERE id = $1",
            &[
                &candidate.feed_id,
                &candidate.lease.fence,
                &now.after(request.lease).as_millis(),
                &now.as_millis(),
            ],
        )
        .await?;
    Ok(PageLease {
        position,
        ..candidate.lease
    })
}

/// Returns the position of the pull; a new pull is recorded first.
async fn start_or_resume(
    transaction: &Transaction<'_>,
    request: &LeaseRequest,
    candidate: &FeedCandidate,
) -> Result<Position, StoreError> {
    let (feed, kind) = (candidate.feed_id, candidate.lease.kind);
    let first_pull = candidate.lease.first_pull;
    let position_kind = position_kind(kind, first_pull);
    let stored = position(transaction, feed, position_kind).await?;
    if candidate.in_progress {
        return Ok(stored);
    }
    let start = match kind {
        // Set when it was requested.
        TriggerKind::Backfill => stored.from,
        // Another kind may have begun the first pull.
        _ if first_pull => stored.from.or_else(|| candidate.cursor.clone()),
        kind if kind.overlaps() => pulls::overlap_start(
            saved_cursors(transaction, feed).await?,
            last_overlap_read(transaction, feed)
                .await?
                .before(request.lookback),
        ),
        _ => candidate.cursor.clone(),
    };
    let position = Position {
        from: start,
        ..Position::default()
    };
    transaction
        .execute(
            "INSERT INTO feed_pull (feed_id, kind, target, started_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (feed_id, kind) DO UPDATE SET target = excluded.target, started_at = excluded.started_at",
            &[
                &feed,
                &kind_code(kind),
                &candidate.raised,
                &transaction.now().as_millis(),
            ],
        )
        .await?;
    save_position(transaction, feed, position_kind, &position).await?;
    Ok(position)
}

async fn position(
    transaction: &Transaction<'_>,
    feed: i64,
    kind: TriggerKind,
) -> Result<Position, StoreError> {
    let row = transaction
        .query_opt(
            "SELECT position, previous_next, previous_entries FROM feed_pull WHERE feed_id = $1 AND kind = $2",
            &[&feed, &kind_code(kind)],
        )
        .await?;
    let Some(row) = row else {
        return Ok(Position::default());
    };
    Ok(Position {
        from: rows::optional_text(&row, 0)?.map(Cursor::new),
        previous_next: rows::optional_text(&row, 1)?.map(Cursor::new),
        previous_entries: rows::count(&row, 2)?,
    })
}

/// Saves the position of a pull.
pub(super) async fn save_position(
    transaction: &Transaction<'_>,
    feed: i64,
    kind: TriggerKind,
    position: &Position,
) -> Result<(), StoreError> {
    let text = |cursor: &Option<Cursor>| {
        cursor
            .as_ref()
            .map(|cursor| rows::escape_nul(cursor.as_str()))
    };
    transaction
        .execute(
            "INSERT INTO feed_pull (feed_id, kind, position, previous_next, previous_entries) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (feed_id, kind) DO UPDATE SET position = excluded.position,
                 previous_next = excluded.previous_next, previous_entries = excluded.previous_entries",
            &[
                &feed,
                &kind_code(kind),
                &text(&position.from),
                &text(&position.previous_next),
                &columns::row_limit(position.previous_entries),
            ],
        )
        .await?;
    Ok(())
}

/// Returns the moment when the newest complete overlap read began; the first pull counts
/// as one.
///
/// Overlap reads go back from this moment, not from the present: versions may have been
/// listed late while the service was down.
pub(super) async fn last_overlap_read(
    transaction: &Transaction<'_>,
    feed: i64,
) -> Result<Timestamp, StoreError> {
    let row = transaction
        .query_one(
            "SELECT coalesce(
                 (SELECT max(started_at) FROM feed_pull
                  WHERE feed_id = $1 AND kind IN ($2, $3, $4) AND target IS NULL),
                 (SELECT min(started_at) FROM feed_pull WHERE feed_id = $1 AND kind <> $5))",
            &[
                &feed,
                &kind_code(TriggerKind::FollowUp),
                &kind_code(TriggerKind::LateFollowUp),
                &kind_code(TriggerKind::Reconciliation),
                &kind_code(TriggerKind::Backfill),
            ],
        )
        .await?;
    let now = transaction.now();
    Ok(rows::optional_timestamp(&row, 0)?.unwrap_or(now).min(now))
}

/// Returns the feed's saved cursors, newest first.
pub(super) async fn saved_cursors(
    transaction: &Transaction<'_>,
    feed: i64,
) -> Result<Vec<SavedCursor>, StoreError> {
    let rows = transaction
        .query(
            "SELECT saved_at, cursor FROM feed_cursor WHERE feed_id = $1 ORDER BY saved_at DESC",
            &[&feed],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(SavedCursor {
                saved_at: rows::timestamp(row, 0)?,
                cursor: Cursor::new(rows::text(row, 1)?),
            })
        })
        .collect()
}

/// Locks the lease's feed and returns the id of its account; `None` to a stale owner, after
/// another worker leased the feed.
pub(super) async fn lock_as_owner(
    transaction: &Transaction<'_>,
    lease: &PageLease,
) -> Result<Option<i64>, StoreError> {
    let row = transaction
        .query_opt(
            "SELECT account_id FROM feed WHERE id = $1 AND fence = $2 FOR NO KEY UPDATE",
            &[&lease.feed_id, &lease.fence],
        )
        .await?;
    row.map(|row| Ok(row.try_get(0)?)).transpose()
}
