//! Who pulls what: the most urgent feed, to one worker of all replicas at a time.

use super::connection::{Pool, Transaction};
use super::rows;
use crate::domain::{Cursor, Timestamp};
use crate::store::pulls::{self, SavedCursor, position_holder};
use crate::store::words::{self, kind_code};
use crate::store::{LeaseRequest, PageLease, Position, StoreError, TriggerKind};

/// How often a worker that was overtaken looks again before it leaves the rest to others.
const TRIES: usize = 4;

/// What may be pulled, and what it waits for. `paused` feeds and accounts are tried
/// again when their wait is over, but for those that need a person. `$1` holds what
/// can't be pulled for want of a setting.
const PENDING: &str = "
    FROM feed_trigger d
    JOIN feed f ON f.id = d.feed_id
    JOIN account a ON a.id = f.account_id
    LEFT JOIN feed_pull r ON r.feed_id = d.feed_id AND r.kind = d.kind
    WHERE d.raised > coalesce(r.completed, 0)
      AND coalesce(f.paused, '') NOT IN ('by_hand', 'company_filter_ignored')
      AND coalesce(a.paused, '') <> 'by_hand'
      AND a.name || '/' || f.queue = ANY ($1)";

/// What may be pulled now (`$2`), with a request of the account's to spare (`$3`).
const DUE: &str = "
      AND d.due_at <= $2
      AND coalesce(f.leased_until, 0) <= $2
      AND coalesce(f.waits_until, 0) <= $2
      AND coalesce(a.waits_until, 0) <= $2
      AND (SELECT count(*) FROM feed busy WHERE busy.account_id = a.id AND busy.leased_until > $2) < $3";

fn askable(request: &LeaseRequest) -> Vec<String> {
    request
        .askable
        .iter()
        .map(|(account, queue)| format!("{account}/{queue}"))
        .collect()
}

/// When something is next due; `None` where nothing is pending.
pub(super) async fn next_due(
    transaction: &Transaction<'_>,
    request: &LeaseRequest,
) -> Result<Option<Timestamp>, StoreError> {
    let sql = format!(
        "SELECT min(greatest(d.due_at, f.waits_until, a.waits_until, f.leased_until)) {PENDING}"
    );
    let row = transaction.query_one(&sql, &[&askable(request)]).await?;
    rows::maybe_moment(&row, 0)
}

/// Leases the most urgent feed that may be asked for now; its run starts or goes on.
pub(super) async fn lease(
    pool: &Pool,
    request: &LeaseRequest,
) -> Result<Option<PageLease>, StoreError> {
    for _ in 0..TRIES {
        let transaction = pool.write().await?;
        let Some(feed) = choose(&transaction, request).await? else {
            transaction.roll_back().await?;
            return Ok(None);
        };
        match candidate(&transaction, request, feed).await? {
            Some(candidate) => {
                let lease = take(&transaction, request, candidate).await?;
                transaction.commit().await?;
                return Ok(Some(lease));
            }
            // Another replica pulled it, or took the account's last request.
            None => transaction.roll_back().await?,
        }
    }
    Ok(None)
}

/// Locks the most urgent feed that nobody else is at, and its account, in this order.
///
/// The locks are those of an UPDATE that leaves the key alone, so ingest, whose rows
/// refer to these, never waits for them.
async fn choose(
    transaction: &Transaction<'_>,
    request: &LeaseRequest,
) -> Result<Option<i64>, StoreError> {
    let sql = format!(
        "SELECT f.id, f.account_id {PENDING} {DUE}
         ORDER BY d.kind, f.asked_at NULLS FIRST, f.id LIMIT 1
         FOR NO KEY UPDATE OF f SKIP LOCKED"
    );
    let row = transaction
        .query_opt(
            &sql,
            &[
                &askable(request),
                &transaction.now().as_millis(),
                &i64::from(request.requests_per_account),
            ],
        )
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    // Requests in flight are counted by one at a time.
    transaction
        .query(
            "SELECT 1 FROM account WHERE id = $1 FOR NO KEY UPDATE",
            &[&row.try_get::<_, i64>(1)?],
        )
        .await?;
    Ok(Some(row.try_get(0)?))
}

struct Candidate {
    feed_id: i64,
    raised: i64,
    under_way: bool,
    cursor: Option<Cursor>,
    lease: PageLease,
}

/// The locked feed as it is now: between the choice and the lock others may have
/// committed, and the choice saw a snapshot from before.
async fn candidate(
    transaction: &Transaction<'_>,
    request: &LeaseRequest,
    feed_id: i64,
) -> Result<Option<Candidate>, StoreError> {
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
                &askable(request),
                &transaction.now().as_millis(),
                &i64::from(request.requests_per_account),
                &feed_id,
            ],
        )
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    Ok(Some(Candidate {
        feed_id,
        raised: row.try_get(4)?,
        under_way: row.try_get(5)?,
        cursor: rows::maybe_text(&row, 6)?.map(Cursor::new),
        lease: PageLease {
            feed_id,
            feed: rows::feed(&row, 0)?,
            kind: words::kind(row.try_get(3)?)?,
            fence: row.try_get::<_, i64>(10)? + 1,
            position: Position::default(),
            first_pull: row.try_get(7)?,
            feed_failures: rows::count(&row, 8)?,
            account_failures: rows::count(&row, 9)?,
            speaks_of_key: row.try_get(11)?,
        },
    }))
}

async fn take(
    transaction: &Transaction<'_>,
    request: &LeaseRequest,
    candidate: Candidate,
) -> Result<PageLease, StoreError> {
    let position = start_or_resume(transaction, request, &candidate).await?;
    let now = transaction.now();
    transaction
        .execute(
            "UPDATE feed SET fence = $2, leased_until = $3, asked_at = $4 WHERE id = $1",
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

/// Where the run stands; a run that begins is noted first.
async fn start_or_resume(
    transaction: &Transaction<'_>,
    request: &LeaseRequest,
    candidate: &Candidate,
) -> Result<Position, StoreError> {
    let (feed, kind) = (candidate.feed_id, candidate.lease.kind);
    let first_pull = candidate.lease.first_pull;
    let holder = position_holder(kind, first_pull);
    let stored = position(transaction, feed, holder).await?;
    if candidate.under_way {
        return Ok(stored);
    }
    let start = match kind {
        // Set when it was asked for.
        TriggerKind::Backfill => stored.from,
        // Another kind may have begun the first pull.
        _ if first_pull => stored.from.or_else(|| candidate.cursor.clone()),
        kind if kind.overlaps() => pulls::overlap_start(
            saved_cursors(transaction, feed).await?,
            last_look(transaction, feed).await?.before(request.lookback),
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
    save_position(transaction, feed, holder, &position).await?;
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
        from: rows::maybe_text(&row, 0)?.map(Cursor::new),
        previous_next: rows::maybe_text(&row, 1)?.map(Cursor::new),
        previous_entries: rows::count(&row, 2)?,
    })
}

/// Notes where a run stands.
pub(super) async fn save_position(
    transaction: &Transaction<'_>,
    feed: i64,
    kind: TriggerKind,
    position: &Position,
) -> Result<(), StoreError> {
    let text = |cursor: &Option<Cursor>| {
        cursor
            .as_ref()
            .map(|cursor| rows::keepable(cursor.as_str()))
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
                &words::row_limit(position.previous_entries),
            ],
        )
        .await?;
    Ok(())
}

/// When the newest overlap read began that has come to its end; the first pull counts
/// as one, and is the first.
///
/// What is listed late is looked for from before this, not from before the present:
/// while the service was down nobody looked.
pub(super) async fn last_look(
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
    Ok(rows::maybe_moment(&row, 0)?.unwrap_or(now).min(now))
}

/// The feed's saved cursors, newest first.
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
                saved_at: rows::moment(row, 0)?,
                cursor: Cursor::new(rows::text(row, 1)?),
            })
        })
        .collect()
}

/// Locks the lease's feed and gives its account's row; `None` for a stale owner:
/// somebody leased the feed after it.
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
