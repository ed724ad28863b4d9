//! Wishes to pull: who raises them, and how several become one.

use super::connection::Transaction;
use super::ingest::clamp_to_now;
use super::rows::{escape_nul, feed_ids};
use crate::domain::{Cursor, Timestamp};
use crate::store::columns::kind_code;
use crate::store::{StoreError, Trigger, TriggerKind};

/// Makes feeds known and raises pulls of them.
pub(super) async fn trigger(
    transaction: &Transaction<'_>,
    triggers: &[Trigger],
) -> Result<(), StoreError> {
    let feeds = triggers.iter().map(|trigger| trigger.feed.clone());
    let ids = feed_ids(transaction, feeds, transaction.now()).await?;
    let mut wishes: Vec<(i64, &Trigger)> = triggers
        .iter()
        .filter_map(|trigger| Some((*ids.get(&trigger.feed)?, trigger)))
        .collect();
    // In one order everywhere, so that no two transactions wait for each other.
    wishes.sort_by_key(|(feed, trigger)| (*feed, trigger.kind));
    for (feed, trigger) in wishes {
        let due_at = match trigger.kind {
            TriggerKind::Notification | TriggerKind::Backfill => {
                clamp_to_now(trigger.due_at, transaction)
            }
            _ => trigger.due_at,
        };
        if trigger.kind == TriggerKind::Backfill {
            start_backfill(transaction, feed, trigger.from.as_ref()).await?;
        }
        raise(transaction, feed, trigger.kind, due_at).await?;
    }
    Ok(())
}

/// Reads a feed from its beginning, unless an old stretch of it is read already.
pub(super) async fn backfill_from_beginning(
    transaction: &Transaction<'_>,
    feed: i64,
) -> Result<(), StoreError> {
    let under_way = transaction
        .query_opt(
            "SELECT 1 FROM feed_trigger d LEFT JOIN feed_pull r ON r.feed_id = d.feed_id AND r.kind = d.kind
             WHERE d.feed_id = $1 AND d.kind = $2 AND d.raised > coalesce(r.completed, 0)",
            &[&feed, &kind_code(TriggerKind::Backfill)],
        )
        .await?;
    if under_way.is_some() {
        return Ok(());
    }
    start_backfill(transaction, feed, None).await?;
    raise(transaction, feed, TriggerKind::Backfill, transaction.now()).await
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
            "INSERT INTO feed_pull (feed_id, kind, position) VALUES ($1, $2, $3)
             ON CONFLICT (feed_id, kind) DO UPDATE SET target = NULL, position = excluded.position",
            &[
                &feed,
                &kind_code(TriggerKind::Backfill),
                &from.map(|cursor| escape_nul(cursor.as_str())),
            ],
        )
        .await?;
    Ok(())
}

/// Makes every feed due for reconciliation at `due_at`, if it is not sooner.
pub(super) async fn trigger_reconciliation(
    transaction: &Transaction<'_>,
    due_at: Timestamp,
) -> Result<usize, StoreError> {
    let kind = kind_code(TriggerKind::Reconciliation);
    // Replicas that start together do this together, so the rows are locked in order.
    transaction
        .execute(
            "WITH later AS (
                 SELECT feed_id FROM feed_trigger WHERE kind = $1 AND due_at > $2
                 ORDER BY feed_id FOR NO KEY UPDATE)
             UPDATE feed_trigger d SET due_at = $2 FROM later WHERE d.feed_id = later.feed_id AND d.kind = $1",
            &[&kind, &due_at.as_millis()],
        )
        .await?;
    let row = transaction
        .query_one(
            "SELECT count(*) FROM feed_trigger WHERE kind = $1",
            &[&kind],
        )
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
    kind: TriggerKind,
    due_at: Timestamp,
) -> Result<(), StoreError> {
    // `excluded.raised` is one more than was completed: a wish is pending from there on.
    let on_conflict = match kind {
        TriggerKind::Notification | TriggerKind::Backfill => "raised = d.raised + 1, due_at = excluded.due_at",
        TriggerKind::FollowUp | TriggerKind::LateFollowUp => {
            "raised = greatest(d.raised, excluded.raised),
             due_at = CASE WHEN d.raised >= excluded.raised THEN least(d.due_at, excluded.due_at) ELSE excluded.due_at END,
             again_at = CASE WHEN d.raised >= excluded.raised
                 THEN greatest(coalesce(d.again_at, d.due_at), excluded.due_at) END"
        }
        TriggerKind::Reconciliation => {
            "raised = greatest(d.raised, excluded.raised),
             due_at = CASE WHEN d.raised >= excluded.raised THEN least(d.due_at, excluded.due_at) ELSE excluded.due_at END"
        }
    };
    transaction
        .execute(
            &format!(
                "INSERT INTO feed_trigger AS d (feed_id, kind, raised, due_at)
                 VALUES ($1, $2, 1 + coalesce((SELECT completed FROM feed_pull WHERE feed_id = $1 AND kind = $2), 0), $3)
                 ON CONFLICT (feed_id, kind) DO UPDATE SET {on_conflict}"
            ),
            &[&feed, &kind_code(kind), &due_at.as_millis()],
        )
        .await?;
    Ok(())
}
