//! Wishes of people and of the schedule, and what is parked.

use super::connection::Transaction;
use super::ingest::not_later;
use super::pages::raise;
use super::rows::{account_id, feed_ids, keepable};
use crate::domain::{Account, Cursor, Feed, Timestamp};
use crate::store::words::kind_code;
use crate::store::{Demand, ParkReason, PullKind, StoreError};

/// Makes feeds known and raises pulls of them.
pub(super) async fn demand(
    transaction: &Transaction<'_>,
    demands: &[Demand],
) -> Result<(), StoreError> {
    let feeds = demands.iter().map(|demand| demand.feed.clone());
    let ids = feed_ids(transaction, feeds, transaction.now()).await?;
    let mut wishes: Vec<(i64, &Demand)> = demands
        .iter()
        .filter_map(|demand| Some((*ids.get(&demand.feed)?, demand)))
        .collect();
    // In one order everywhere, so that no two transactions wait for each other.
    wishes.sort_by_key(|(feed, demand)| (*feed, demand.kind));
    for (feed, demand) in wishes {
        let due_at = match demand.kind {
            PullKind::Hint | PullKind::Backfill => not_later(demand.due_at, transaction),
            _ => demand.due_at,
        };
        if demand.kind == PullKind::Backfill {
            start_backfill(transaction, feed, demand.from.as_ref()).await?;
        }
        raise(transaction, feed, demand.kind, due_at).await?;
    }
    Ok(())
}

/// Reads a feed from its beginning, unless an old stretch of it is read already.
pub(super) async fn read_from_beginning(
    transaction: &Transaction<'_>,
    feed: i64,
) -> Result<(), StoreError> {
    let under_way = transaction
        .query_opt(
            "SELECT 1 FROM feed_demand d LEFT JOIN feed_run r ON r.feed_id = d.feed_id AND r.kind = d.kind
             WHERE d.feed_id = $1 AND d.kind = $2 AND d.wanted > coalesce(r.served, 0)",
            &[&feed, &kind_code(PullKind::Backfill)],
        )
        .await?;
    if under_way.is_some() {
        return Ok(());
    }
    start_backfill(transaction, feed, None).await?;
    raise(transaction, feed, PullKind::Backfill, transaction.now()).await
}

async fn start_backfill(
    transaction: &Transaction<'_>,
    feed: i64,
    from: Option<&Cursor>,
) -> Result<(), StoreError> {
    // A page of an earlier backfill that is under way must not set this one's position.
    transaction
        .execute(
            "UPDATE feed SET fence = fence + 1, leased_until = NULL WHERE id = $1",
            &[&feed],
        )
        .await?;
    transaction
        .execute(
            "INSERT INTO feed_run (feed_id, kind, position) VALUES ($1, $2, $3)
             ON CONFLICT (feed_id, kind) DO UPDATE SET noted = NULL, position = excluded.position",
            &[
                &feed,
                &kind_code(PullKind::Backfill),
                &from.map(|cursor| keepable(cursor.as_str())),
            ],
        )
        .await?;
    Ok(())
}

/// Makes every feed due for reconciliation at `due_at`, if it is not sooner.
pub(super) async fn demand_reconciliation(
    transaction: &Transaction<'_>,
    due_at: Timestamp,
) -> Result<usize, StoreError> {
    let kind = kind_code(PullKind::Reconciliation);
    // Replicas that start together do this together, so the rows are locked in order.
    transaction
        .execute(
            "WITH later AS (
                 SELECT feed_id FROM feed_demand WHERE kind = $1 AND due_at > $2
                 ORDER BY feed_id FOR NO KEY UPDATE)
             UPDATE feed_demand d SET due_at = $2 FROM later WHERE d.feed_id = later.feed_id AND d.kind = $1",
            &[&kind, &due_at.as_millis()],
        )
        .await?;
    let row = transaction
        .query_one("SELECT count(*) FROM feed_demand WHERE kind = $1", &[&kind])
        .await?;
    super::rows::count(&row, 0)
}

/// Parks by hand, or frees whatever was parked or waiting; gives how many changed.
pub(super) async fn set_parked(
    transaction: &Transaction<'_>,
    account: &Account,
    feed: Option<&Feed>,
    parked: bool,
) -> Result<usize, StoreError> {
    let account = account_id(transaction, account).await?;
    let reason = parked.then_some(ParkReason::ByHand.as_str());
    let changed = transaction
        .execute(
            "WITH chosen AS (
                 SELECT id FROM feed
                 WHERE account_id = $1 AND ($2 OR (queue = $3 AND company = $4))
                   AND ($5 IS NOT NULL OR parked IS NOT NULL OR waits_until IS NOT NULL)
                 ORDER BY id FOR NO KEY UPDATE)
             UPDATE feed f SET parked = $5, waits_until = NULL, failures = 0,
                 last_error = CASE WHEN $5 IS NULL THEN NULL ELSE last_error END
             FROM chosen WHERE f.id = chosen.id",
            &[
                &account,
                &feed.is_none(),
                &feed.map_or("", |feed| feed.queue.as_str()),
                &feed.map_or("", |feed| feed.company.as_str()),
                &reason,
            ],
        )
        .await?;
    if feed.is_none() && !parked {
        transaction
            .execute(
                "UPDATE account SET parked = NULL, waits_until = NULL, failures = 0, last_error = NULL WHERE id = $1",
                &[&account],
            )
            .await?;
    }
    Ok(changed)
}

/// At a replica's start, what waited for a person is tried again, as a restart often
/// mends it. Leases of others stand; those of a replica that was killed run out.
pub(super) async fn start_afresh(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    transaction
        .execute(
            "WITH chosen AS (
                 SELECT id FROM feed WHERE parked IN ('unauthorized', 'forbidden', 'not_found')
                 ORDER BY id FOR NO KEY UPDATE)
             UPDATE feed f SET parked = NULL, waits_until = NULL FROM chosen WHERE f.id = chosen.id",
            &[],
        )
        .await?;
    transaction
        .execute(
            "UPDATE account SET parked = NULL, waits_until = NULL WHERE parked IS NOT NULL AND parked <> 'by_hand'",
            &[],
        )
        .await?;
    Ok(())
}
