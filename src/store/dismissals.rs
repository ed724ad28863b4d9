//! Dismissing gaps on a person's word.

use super::engine::{Sql, Tx, operations};
use super::error::Result;
use super::gaps::IncompleteReason;
use super::trigger_kind::TriggerKind;
use super::triggers::raise;
use crate::domain::Timestamp;

operations! {
    /// Closes an open gap on behalf of a person, who by that vouches that its page was not
    /// cut; the feed is pulled again now. Returns false if there is no such open gap.
    pub write dismiss_gap(id: i64, by: String, now: Timestamp) -> bool, then wake_pullers;
}

async fn dismiss_gap<T: Tx>(tx: &T, id: i64, by: String, now: Timestamp) -> Result<bool> {
    static FEED: Sql = Sql::new("SELECT feed_id FROM gap WHERE id = $1 AND closed_at IS NULL");
    static LOCK: Sql = Sql::new("SELECT 1 FROM feed WHERE id = $1{lock_rows}");
    static DISMISS: Sql = Sql::new(
        "UPDATE gap SET closed_at = $2, dismissed_by = $3 WHERE id = $1 AND closed_at IS NULL",
    );
    // A page of the queue has room for more entries than this one had.
    static VOUCH: Sql = Sql::new(
        "UPDATE account_queue AS q SET largest_page = {greatest}(q.largest_page, g.entries + 1)
         FROM gap g JOIN feed f ON f.id = g.feed_id
         WHERE g.id = $1 AND g.reason = $2 AND q.account_id = f.account_id AND q.queue = f.queue",
    );
    let Some(feed) = tx.first::<i64>(&FEED, &[&id]).await? else {
        return Ok(false);
    };
    let now = tx.now_or(now);
    // Feeds are locked before what belongs to them.
    tx.first::<()>(&LOCK, &[&feed]).await?;
    if tx.execute(&DISMISS, &[&id, &now, &by]).await? == 0 {
        return Ok(false);
    }
    tx.run(&VOUCH, &[&id, &IncompleteReason::PageSizeUnknown])
        .await?;
    raise(tx, feed, TriggerKind::Reconciliation, now).await?;
    Ok(true)
}
