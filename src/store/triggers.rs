//! Raising triggers, and merging several into one.

use super::StoreError;
use super::columns::kind_code;
use super::engine::{Fragment, Operation, Sql, Tx};
use super::feeds::{Trigger, TriggerKind};
use crate::domain::{Cursor, Timestamp};

/// Raises triggers of the feeds with these ids.
pub(super) async fn raise_all<T: Tx>(
    tx: &mut T,
    mut triggers: Vec<(i64, Trigger)>,
) -> Result<(), StoreError> {
    // The same order everywhere prevents deadlocks.
    triggers.sort_by_key(|(feed, trigger)| (*feed, trigger.kind));
    for (feed, trigger) in triggers {
        // A future moment of a caller's clock would delay work.
        let due_at = match trigger.kind {
            TriggerKind::Notification | TriggerKind::Backfill => {
                trigger.due_at.min(tx.now_or(trigger.due_at))
            }
            _ => trigger.due_at,
        };
        if trigger.kind == TriggerKind::Backfill {
            start_backfill(tx, feed, trigger.from.as_ref()).await?;
        }
        raise(tx, feed, trigger.kind, due_at).await?;
    }
    Ok(())
}

/// Triggers a backfill from the feed's beginning, unless a backfill is pending already.
pub(super) async fn backfill_from_beginning<T: Tx>(
    tx: &mut T,
    feed: i64,
    now: Timestamp,
) -> Result<(), StoreError> {
    static PENDING: Sql = Sql::new(
        "SELECT 1 FROM feed_trigger d LEFT JOIN feed_pull r ON r.feed_id = d.feed_id AND r.kind = d.kind
         WHERE d.feed_id = $1 AND d.kind = $2 AND d.raised > coalesce(r.completed, 0)",
    );
    let kind = kind_code(TriggerKind::Backfill);
    let pending = tx.first(&PENDING, &[&feed, &kind], |_| Ok(())).await?;
    if pending.is_some() {
        return Ok(());
    }
    start_backfill(tx, feed, None).await?;
    raise(tx, feed, TriggerKind::Backfill, now).await
}

async fn start_backfill<T: Tx>(
    tx: &mut T,
    feed: i64,
    from: Option<&Cursor>,
) -> Result<(), StoreError> {
    // A page in flight of an earlier backfill must not set this one's position.
    static TAKE_LEASE: Sql =
        Sql::new("UPDATE feed SET fence = fence + 1, leased_until = NULL WHERE id = $1");
    static SET_POSITION: Sql = Sql::new(
        "INSERT INTO feed_pull (feed_id, kind, position) VALUES ($1, $2, $3)
         ON CONFLICT (feed_id, kind) DO UPDATE SET target = NULL, position = excluded.position",
    );
    tx.execute(&TAKE_LEASE, &[&feed]).await?;
    let kind = kind_code(TriggerKind::Backfill);
    tx.execute(&SET_POSITION, &[&feed, &kind, &from.map(Cursor::as_str)])
        .await?;
    Ok(())
}

/// Makes every feed due for reconciliation at this moment, unless it is due sooner; returns
/// the number of feeds.
pub(super) struct TriggerReconciliation(pub(super) Timestamp);

impl Operation for TriggerReconciliation {
    type Output = usize;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<usize, StoreError> {
        // Replicas that start together run this together, so the rows are locked in order.
        static SOONER: Sql = Sql::new(
            "WITH later AS (
                 SELECT feed_id FROM feed_trigger WHERE kind = $1 AND due_at > $2
                 ORDER BY feed_id{lock_rows})
             UPDATE feed_trigger AS d SET due_at = $2 FROM later WHERE d.feed_id = later.feed_id AND d.kind = $1",
        );
        static COUNT: Sql = Sql::new("SELECT count(*) FROM feed_trigger WHERE kind = $1");
        let kind = kind_code(TriggerKind::Reconciliation);
        tx.execute(&SOONER, &[&kind, &self.0]).await?;
        let feeds: u64 = tx.one(&COUNT, &[&kind], |row| row.get(0)).await?;
        Ok(usize::try_from(feeds).unwrap_or(usize::MAX))
    }
}

/// Raises one trigger.
///
/// A notification or a backfill always counts, even during a pull, as it may announce
/// something newer. Of the other kinds one is pending at a time, at the sooner time; a
/// follow-up requested for a later time is kept for another pull.
pub(super) async fn raise<T: Tx>(
    tx: &mut T,
    feed: i64,
    kind: TriggerKind,
    due_at: Timestamp,
) -> Result<(), StoreError> {
    // `excluded.raised` is one more than was completed: from there on a trigger is pending.
    const INSERT: Fragment = Fragment::Same(
        "INSERT INTO feed_trigger AS d (feed_id, kind, raised, due_at)
         VALUES ($1, $2, 1 + coalesce((SELECT completed FROM feed_pull WHERE feed_id = $1 AND kind = $2), 0), $3)
         ON CONFLICT (feed_id, kind) DO UPDATE SET",
    );
    static ALWAYS: Sql = Sql::with(
        "{insert} raised = d.raised + 1, due_at = excluded.due_at",
        &[("insert", INSERT)],
    );
    static ONCE: Sql = Sql::with(
        "{insert} raised = {greatest}(d.raised, excluded.raised),
             due_at = CASE WHEN d.raised >= excluded.raised
                 THEN {least}(d.due_at, excluded.due_at) ELSE excluded.due_at END",
        &[("insert", INSERT)],
    );
    static AGAIN: Sql = Sql::with(
        "{insert} raised = {greatest}(d.raised, excluded.raised),
             due_at = CASE WHEN d.raised >= excluded.raised
                 THEN {least}(d.due_at, excluded.due_at) ELSE excluded.due_at END,
             again_at = CASE WHEN d.raised >= excluded.raised
                 THEN {greatest}(coalesce(d.again_at, d.due_at), excluded.due_at) END",
        &[("insert", INSERT)],
    );
    let sql = match kind {
        TriggerKind::Notification | TriggerKind::Backfill => &ALWAYS,
        TriggerKind::FollowUp | TriggerKind::LateFollowUp => &AGAIN,
        TriggerKind::Reconciliation => &ONCE,
    };
    tx.execute(sql, &[&feed, &kind_code(kind), &due_at]).await?;
    Ok(())
}
