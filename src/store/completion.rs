//! The end of a pull: what it completes, and the triggers that follow.

use futures_util::future::{try_join, try_join5};

use super::engine::{Param, Sql, Tx};
use super::error::Result;
use super::feeds::{PageEnd, PageLease, PageToCommit, PullEnd, PullPlan};
use super::gaps::{StoredGap, settle_gaps};
use super::links::complete_link_request;
use super::pulls::position_kind;
use super::trigger_kind::TriggerKind;
use super::triggers::raise;

/// Completes the triggers of the pull, and raises those that follow; `open` are the feed's open gaps.
/// Returns how it ended: complete only if no gap stays open.
pub(super) async fn complete_pull<T: Tx>(
    tx: &T,
    lease: &PageLease,
    page: &PageToCommit,
    open: Vec<StoredGap>,
    plan: &PullPlan,
) -> Result<PullEnd> {
    static ENDED: Sql = Sql::new(
        "UPDATE feed SET pulled_at = CASE WHEN $3 THEN $2 ELSE pulled_at END,
             up_to_date_at = CASE WHEN $3 AND $4 THEN $2 ELSE up_to_date_at END,
             first_complete_at = CASE WHEN $3 AND $4 THEN coalesce(first_complete_at, $2) ELSE first_complete_at END
         WHERE id = $1",
    );
    static CLEAR_POSITION: Sql = Sql::new(
        "UPDATE feed_pull SET position = NULL, previous_next = NULL, progress = NULL
         WHERE feed_id = $1 AND kind IN ($2, $3)",
    );
    // It was triggered again while pending: due once more at that time, if the pull began
    // before it.
    static AGAIN: Sql = Sql::new(
        "UPDATE feed_trigger AS d
         SET due_at = CASE WHEN d.again_at > r.started_at THEN d.again_at ELSE d.due_at END,
             next_at = CASE WHEN d.again_at > r.started_at THEN d.again_at ELSE d.next_at END,
             raised = CASE WHEN d.again_at > r.started_at THEN d.raised + 1 ELSE d.raised END,
             again_at = NULL
         FROM feed_pull r
         WHERE d.feed_id = $1 AND d.kind = $2 AND r.feed_id = $1 AND r.kind = $2 AND d.again_at IS NOT NULL",
    );
    static COMPLETE: Sql = Sql::new(
        "UPDATE feed_pull SET completed = coalesce(target, completed), target = NULL
         WHERE feed_id = $1 AND kind = $2",
    );
    let (feed, kind) = (lease.feed_id, lease.kind);
    let is_backfill = kind == TriggerKind::Backfill;
    let position_kind = position_kind(kind, lease.first_read);
    let began = page.progress.began.as_ref();
    let proof = began.filter(|_| page.end == PageEnd::EndOfQueue);
    let proof = proof.map(|began| (began.from.as_ref(), began.fence));
    let end = match settle_gaps(tx, open, proof, plan.now).await? {
        Some(reason) => PullEnd::Incomplete(reason),
        None => PullEnd::Complete,
    };
    let is_complete = end == PullEnd::Complete;
    // A backfill leaves the rest of the feed unread.
    let params: [&dyn Param; 4] = [&feed, &plan.now, &!is_backfill, &is_complete];
    // Only these kinds repeat, so that the row of notifications, which ingest writes, is
    // never touched here.
    let again = async {
        match kind {
            TriggerKind::FollowUp | TriggerKind::LateFollowUp => {
                tx.run(&AGAIN, &[&feed, &kind]).await
            }
            _ => Ok(()),
        }
    };
    let follow_up = async {
        match kind {
            TriggerKind::Notification => {
                let [soon, late] = plan.follow_ups.map(|delay| plan.now.after(delay));
                try_join(
                    raise(tx, feed, TriggerKind::FollowUp, soon),
                    raise(tx, feed, TriggerKind::LateFollowUp, late),
                )
                .await
                .map(drop)
            }
            TriggerKind::Reconciliation => {
                let next = plan.now.after(plan.reconcile_every);
                raise(tx, feed, TriggerKind::Reconciliation, next).await
            }
            TriggerKind::FollowUp | TriggerKind::LateFollowUp | TriggerKind::Backfill => Ok(()),
        }
    };
    let end_first_read = async {
        match lease.first_read && !is_backfill {
            true => end_first_read(tx, feed).await,
            false => Ok(()),
        }
    };
    // They take effect in this order.
    try_join5(
        tx.run(&ENDED, &params),
        tx.run(&CLEAR_POSITION, &[&feed, &kind, &position_kind]),
        again,
        tx.run(&COMPLETE, &[&feed, &kind]),
        try_join(end_first_read, follow_up),
    )
    .await?;
    if kind.overlaps() {
        complete_link_request(tx, feed, kind, plan.now).await?;
    }
    Ok(end)
}

async fn end_first_read<T: Tx>(tx: &T, feed: i64) -> Result<()> {
    // It has read everything, so it counts as a reconciliation that began with it.
    static RECONCILED: Sql = Sql::new(
        "INSERT INTO feed_pull (feed_id, kind, started_at)
         SELECT $1, $2, min(started_at) FROM feed_pull WHERE feed_id = $1 AND kind <> $3
         ON CONFLICT (feed_id, kind) DO UPDATE SET started_at = excluded.started_at",
    );
    // Pulls of other kinds went on with it; they restart as overlap reads. None counts as a read
    // that began when it joined: the pages before were read earlier.
    static RESTART_OTHERS: Sql = Sql::new(
        "UPDATE feed_pull SET target = NULL, position = NULL, previous_next = NULL, progress = NULL,
             started_at = (SELECT r.started_at FROM feed_pull r WHERE r.feed_id = $1 AND r.kind = $3)
         WHERE feed_id = $1 AND kind <> $2",
    );
    let (reconciliation, backfill) = (TriggerKind::Reconciliation, TriggerKind::Backfill);
    try_join(
        tx.run(&RECONCILED, &[&feed, &reconciliation, &backfill]),
        tx.run(&RESTART_OTHERS, &[&feed, &backfill, &reconciliation]),
    )
    .await
    .map(drop)
}
