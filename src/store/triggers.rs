//! Raising triggers, and merging several into one.

use super::engine::{Fragment, Sql, Tx, operations, params};
use super::error::Result;
use super::row_ids::feed_ids;
use super::trigger_kind::TriggerKind;
use crate::domain::{Cursor, Feed, Timestamp};

operations! {
    /// Adds feeds that are not known yet, due for reconciliation at `now`.
    pub write register_feeds(feeds: Vec<Feed>, now: Timestamp) -> (), then wake_pullers;

    /// Makes feeds due for reconciliation at `due_at`, unless they are due sooner: a batch of those with
    /// an id above `after`. Returns the last one's id; `None` if there is none.
    pub write trigger_reconciliation(due_at: Timestamp, after: i64) -> Option<i64>, then wake_pullers;
}

/// Maximum number of feeds that are made due in one transaction: on SQLite messages wait for it.
const MAX_DUE: i64 = 1_000;

async fn register_feeds<T: Tx>(tx: &T, feeds: Vec<Feed>, now: Timestamp) -> Result<()> {
    // A future moment of a caller's clock would delay work.
    let due_at = now.min(tx.now_or(now));
    feed_ids(tx, feeds, due_at).await.map(drop)
}

/// Triggers a backfill from the feed's beginning, unless a backfill is pending already.
pub(super) async fn backfill_from_beginning<T: Tx>(
    tx: &T,
    feed: i64,
    now: Timestamp,
) -> Result<()> {
    static PENDING: Sql = Sql::new(
        "SELECT 1 FROM feed_trigger d LEFT JOIN feed_pull r ON r.feed_id = d.feed_id AND r.kind = d.kind
         WHERE d.feed_id = $1 AND d.kind = $2 AND d.raised > coalesce(r.completed, 0)",
    );
    let kind = TriggerKind::Backfill;
    let pending: Option<()> = tx.first(&PENDING, &[&feed, &kind]).await?;
    if pending.is_some() {
        return Ok(());
    }
    start_backfill(tx, feed, None).await?;
    raise(tx, feed, kind, now).await
}

/// Lets the next backfill of a feed start at a cursor.
pub(super) async fn start_backfill<T: Tx>(tx: &T, feed: i64, from: Option<Cursor>) -> Result<()> {
    // A page in flight of an earlier backfill must not set this one's position.
    static TAKE_LEASE: Sql =
        Sql::new("UPDATE feed SET fence = fence + 1, leased_until = NULL WHERE id = $1");
    static SET_POSITION: Sql = Sql::new(
        "INSERT INTO feed_pull (feed_id, kind, position) VALUES ($1, $2, $3)
         ON CONFLICT (feed_id, kind) DO UPDATE SET target = NULL, position = excluded.position,
             previous_next = NULL, progress = NULL",
    );
    tx.run(&TAKE_LEASE, &[&feed]).await?;
    tx.run(&SET_POSITION, &[&feed, &TriggerKind::Backfill, &from])
        .await
}

async fn trigger_reconciliation<T: Tx>(
    tx: &T,
    due_at: Timestamp,
    after: i64,
) -> Result<Option<i64>> {
    static LAST: Sql = Sql::new(
        "SELECT max(feed_id) FROM (SELECT feed_id FROM feed_trigger WHERE kind = $1 AND feed_id > $2
                                   ORDER BY feed_id LIMIT $3) AS batch",
    );
    // Replicas that start together run this together, so the rows are locked in order.
    static SOONER: Sql = Sql::new(
        "WITH later AS (
             SELECT feed_id FROM feed_trigger
             WHERE kind = $1 AND feed_id > $3 AND feed_id <= $4 AND due_at > $2
             ORDER BY feed_id{lock_rows})
         UPDATE feed_trigger AS d SET due_at = $2, next_at = $2 FROM later WHERE d.feed_id = later.feed_id AND d.kind = $1",
    );
    let kind = TriggerKind::Reconciliation;
    let last: Option<i64> = tx.one(&LAST, params! { kind, after, MAX_DUE }).await?;
    if let Some(last) = last {
        tx.run(&SOONER, params! { kind, due_at, after, last })
            .await?;
    }
    Ok(last)
}

/// Looks at the pending triggers of feeds again, which may be pulled sooner than before.
pub(super) async fn reconsider<T: Tx>(tx: &T, feeds: &[i64]) -> Result<()> {
    // The same order everywhere prevents deadlocks.
    static SQL: Sql = Sql::new(
        "WITH chosen AS (
             SELECT t.feed_id, t.kind FROM feed_trigger t WHERE t.feed_id IN ({elements}($1))
                 AND t.raised > coalesce(
                     (SELECT r.completed FROM feed_pull r WHERE r.feed_id = t.feed_id AND r.kind = t.kind), 0)
             ORDER BY t.feed_id, t.kind{lock_rows})
         UPDATE feed_trigger AS d SET next_at = d.due_at FROM chosen
         WHERE d.feed_id = chosen.feed_id AND d.kind = chosen.kind",
    );
    tx.run(&SQL, &[&feeds]).await
}

/// Raises one trigger.
///
/// A notification or a backfill always counts, even during a pull, as it may announce
/// something newer. Of the other kinds one is pending at a time, at the sooner time; a
/// follow-up requested for a later time is kept for another pull.
pub(super) async fn raise<T: Tx>(
    tx: &T,
    feed: i64,
    kind: TriggerKind,
    due_at: Timestamp,
) -> Result<()> {
    // `excluded.raised` is one more than was completed: from there on a trigger is pending.
    const INSERT: Fragment = Fragment::Same(
        "INSERT INTO feed_trigger AS d (feed_id, kind, raised, due_at, account_id, queue, next_at)
         SELECT id, $2, 1 + coalesce((SELECT completed FROM feed_pull WHERE feed_id = $1 AND kind = $2), 0), $3,
             account_id, queue, $3 FROM feed WHERE id = $1
         ON CONFLICT (feed_id, kind) DO UPDATE SET",
    );
    // A pending one is looked at again when it was to be, or sooner.
    const SOONER: Fragment = Fragment::Same(
        "due_at = CASE WHEN d.raised >= excluded.raised
                 THEN {least}(d.due_at, excluded.due_at) ELSE excluded.due_at END,
             next_at = CASE WHEN d.raised >= excluded.raised
                 THEN {least}(coalesce(d.next_at, excluded.due_at), excluded.due_at) ELSE excluded.due_at END",
    );
    static ALWAYS: Sql = Sql::with(
        "{insert} raised = d.raised + 1, due_at = excluded.due_at,
             next_at = coalesce(d.next_at, excluded.next_at)",
        &[("insert", INSERT)],
    );
    static ONCE: Sql = Sql::with(
        "{insert} raised = {greatest}(d.raised, excluded.raised), {sooner}",
        &[("insert", INSERT), ("sooner", SOONER)],
    );
    static AGAIN: Sql = Sql::with(
        "{insert} raised = {greatest}(d.raised, excluded.raised), {sooner},
             again_at = CASE WHEN d.raised >= excluded.raised
                 THEN {greatest}(coalesce(d.again_at, d.due_at), excluded.due_at) END",
        &[("insert", INSERT), ("sooner", SOONER)],
    );
    let sql = match kind {
        TriggerKind::Notification | TriggerKind::Backfill => &ALWAYS,
        TriggerKind::FollowUp | TriggerKind::LateFollowUp => &AGAIN,
        TriggerKind::Reconciliation => &ONCE,
    };
    tx.run(sql, &[&feed, &kind, &due_at]).await
}
