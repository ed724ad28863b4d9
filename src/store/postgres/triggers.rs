//! Raising triggers, and merging several into one.

use super::connection::Transaction;
use super::ingest::clamp_to_now;
use super::rows::{escape_nul, feed_ids};
use crate::domain::{Cursor, Timestamp};
use crate::store::columns::kind_code;
use crate::store::{StoreError, Trigger, TriggerKind};

/// Raises triggers, adding feeds that are not known yet.
pub(super) async fn trigger(
    transaction: &Transaction<'_>,
    triggers: &[Trigger],
) -> Result<(), StoreError> {
    let feeds = triggers.iter().map(|trigger| trigger.feed.clone());
    let ids = feed_ids(transaction, feeds, transaction.now()).await?;
    let mut raised: Vec<(i64, &Trigger)> = triggers
        .iter()
        .filter_map(|trigger| Some((*ids.get(&trigger.feed)?, trigger)))
        .collect();
    // The same order everywhere prevents deadlocks.
    raised.sort_by_key(|(feed, trigger)| (*feed, trigger.kind));
    for (feed, trigger) in raised {
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

/// Triggers a backfill from the feed's beginning, unless a backfill is pending already.
pub(super) async fn backfill_from_beginning(
    transaction: &Transaction<'_>,
    feed: i64,
) -> Result<(), StoreError> {
    let pending = transaction
        .query_opt(
            "SELECT 1 FROM feed_trigger d LEFT JOIN feed_pull r ON r.feed_id = d.feed_id AND r.kind = d.kind
             WHERE d.feed_id = $1 AND d.kind = $2 AND d.raised > coalesce(r.completed, 0)",
            &[&feed, &kind_code(TriggerKind::Backfill)],
        )
        .await?;
    if pending.is_some() {
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
    // A page in flight of an earlier backfill must not set this one's position.
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

/// Makes every feed due for reconciliation at `due_at`, unless it is due sooner.
pub(super) async fn trigger_reconciliation(
    transaction: &Transaction<'_>,
    due_at: Timestamp,
) -> Result<usize, StoreError> {
    let kind = kind_code(TriggerKind::Reconciliation);
    // Replicas that start together run this together, so the rows are locked in order.
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

/// Raises one trigger.
///
/// A notification or a backfill always counts, even during a pull, as it may announce
/// something newer. Of the other kinds one is pending at a time, at the sooner time; a
/// follow-up requested for a later time is kept for another pull.
pub(super) async fn raise(
    transaction: &Transaction<'_>,
    feed: i64,
    kind: TriggerKind,
    due_at: Timestamp,
) -> Result<(), StoreError> {
    // `excluded.raised` is one more than was completed: from there on a trigger is pending.
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
