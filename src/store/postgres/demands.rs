//! Wishes to pull: who raises them, and how several become one.

use super::connection::Transaction;
use super::ingest::not_later;
use super::rows::{feed_ids, keepable};
use crate::domain::{Cursor, Timestamp};
use crate::store::words::kind_code;
use crate::store::{Demand, PullKind, StoreError};

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

/// Raises one wish.
///
/// A hint or a backfill always counts, also while a run is under way: it may speak of
/// something newer. Of the timed kinds one is pending at a time, at the sooner time;
/// a follow-up that is wished for later than that is kept for another run.
pub(super) async fn raise(
    transaction: &Transaction<'_>,
    feed: i64,
    kind: PullKind,
    due_at: Timestamp,
) -> Result<(), StoreError> {
    // `excluded.wanted` is one more than was served: a wish is pending from there on.
    let on_conflict = match kind {
        PullKind::Hint | PullKind::Backfill => "wanted = d.wanted + 1, due_at = excluded.due_at",
        PullKind::FollowUp | PullKind::LateFollowUp => {
            "wanted = greatest(d.wanted, excluded.wanted),
             due_at = CASE WHEN d.wanted >= excluded.wanted THEN least(d.due_at, excluded.due_at) ELSE excluded.due_at END,
             again_at = CASE WHEN d.wanted >= excluded.wanted
                 THEN greatest(coalesce(d.again_at, d.due_at), excluded.due_at) END"
        }
        PullKind::Reconciliation => {
            "wanted = greatest(d.wanted, excluded.wanted),
             due_at = CASE WHEN d.wanted >= excluded.wanted THEN least(d.due_at, excluded.due_at) ELSE excluded.due_at END"
        }
    };
    transaction
        .execute(
            &format!(
                "INSERT INTO feed_demand AS d (feed_id, kind, wanted, due_at)
                 VALUES ($1, $2, 1 + coalesce((SELECT served FROM feed_run WHERE feed_id = $1 AND kind = $2), 0), $3)
                 ON CONFLICT (feed_id, kind) DO UPDATE SET {on_conflict}"
            ),
            &[&feed, &kind_code(kind), &due_at.as_millis()],
        )
        .await?;
    Ok(())
}
