//! What a person changes about a feed: removing it, and where it starts.

use super::engine::{Sql, Tx, operations};
use super::error::Result;
use super::gaps::{IncompleteReason, record_gap};
use super::row_ids::{account_id, feed_ids};
use super::trigger_kind::TriggerKind;
use super::triggers::{raise, reconsider};
use crate::domain::{Cursor, Feed, Moment, Timestamp};

operations! {
    /// Removes a feed: it is not pulled until a person resumes it, and keeps its documents and its
    /// cursor. Returns false if it is not known, or removed already.
    pub write remove_feed(feed: Feed, now: Timestamp) -> bool;

    /// Removes the exported feeds that do not fit the settings, and brings back those that fit them
    /// again: each account has one if `one_for_each_account` is true, and otherwise each company.
    pub write fit_feeds(one_for_each_account: bool, now: Timestamp) -> (), then wake_pullers;

    /// Lets a feed continue at `cursor`, where another program has stopped. The feed is added if
    /// it is new. What lies between its old and its new cursor is a gap.
    pub write start_feed_at(feed: Feed, cursor: Cursor, now: Timestamp) -> FeedStartedAt,
        then wake_pullers;
}

/// The effect of setting a feed's cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedStartedAt {
    /// The old cursor.
    pub previous: Option<Cursor>,
    /// True if a gap was recorded: the new cursor is not known to be the earlier one.
    pub gap: bool,
}

async fn remove_feed<T: Tx>(tx: &T, feed: Feed, now: Timestamp) -> Result<bool> {
    // A page in flight is refused, since its fence is old.
    static SQL: Sql = Sql::new(
        "UPDATE feed SET removed_at = $4, leased_until = NULL, fence = fence + 1
         WHERE account_id = $1 AND queue = $2 AND company = $3 AND removed_at IS NULL",
    );
    let account = account_id(tx, &feed.account).await?;
    let now = tx.now_or(now);
    Ok(tx
        .execute(&SQL, &[&account, &feed.queue, &feed.company, &now])
        .await?
        > 0)
}

async fn fit_feeds<T: Tx>(tx: &T, one_for_each_account: bool, now: Timestamp) -> Result<()> {
    // Replicas that start together run this together, so the rows are locked in order.
    static REMOVE: Sql = Sql::new(
        "WITH chosen AS (
             SELECT id FROM feed
             WHERE queue = 'exported' AND removed_at IS NULL AND (company = '') <> $1{lock_in_order})
         UPDATE feed AS f SET removed_at = $2, unfit = true, leased_until = NULL, fence = fence + 1
         FROM chosen WHERE f.id = chosen.id",
    );
    static FIND: Sql =
        Sql::new("SELECT id FROM feed WHERE unfit AND (company = '') = $1{lock_in_order}");
    static RESTORE: Sql =
        Sql::new("UPDATE feed SET removed_at = NULL, unfit = false WHERE id IN ({elements}($1))");
    let now = tx.now_or(now);
    tx.run(&REMOVE, &[&one_for_each_account, &now]).await?;
    let fit: Vec<i64> = tx.all(&FIND, &[&one_for_each_account]).await?;
    if fit.is_empty() {
        return Ok(());
    }
    tx.run(&RESTORE, &[&fit]).await?;
    reconsider(tx, &fit).await
}

async fn start_feed_at<T: Tx>(
    tx: &T,
    feed: Feed,
    cursor: Cursor,
    now: Timestamp,
) -> Result<FeedStartedAt> {
    static LOCK: Sql = Sql::new("SELECT cursor FROM feed WHERE id = $1{lock_rows}");
    // A page in flight must not set the cursor back.
    // The cursor that was refused is gone, and its failures with it.
    static SET: Sql = Sql::new(
        "UPDATE feed SET cursor = $2, begins_at = coalesce($3, begins_at), leased_until = NULL,
             fence = fence + 1, failures = 0,
             waits_until = CASE WHEN coalesce(paused, 'cursor_refused') = 'cursor_refused' THEN NULL ELSE waits_until END,
             paused = CASE WHEN paused = 'cursor_refused' THEN NULL ELSE paused END
         WHERE id = $1",
    );
    static BEGIN_LATER: Sql = Sql::new(
        "WITH chosen AS (
             SELECT destination_id FROM lane WHERE feed_id = $1 AND begins_at{bytewise} < $2
             ORDER BY destination_id{lock_rows})
         UPDATE lane AS l SET begins_at = $2 FROM chosen
         WHERE l.destination_id = chosen.destination_id AND l.feed_id = $1",
    );
    // An earlier stretch that a person requested goes on.
    static RESTART: Sql = Sql::new(
        "UPDATE feed_pull SET target = NULL, position = NULL, previous_next = NULL, progress = NULL
         WHERE feed_id = $1 AND kind <> $2",
    );
    static FORGET: Sql = Sql::new("DELETE FROM feed_cursor WHERE feed_id = $1");
    // From long ago, so that no overlap read starts before it.
    static SAVE: Sql =
        Sql::new("INSERT INTO feed_cursor (feed_id, saved_at, cursor) VALUES ($1, 0, $2)");
    let now = tx.now_or(now);
    let ids = feed_ids(tx, [feed.clone()], now).await?;
    let Some(id) = ids.get(&feed).copied() else {
        return Ok(FeedStartedAt::default());
    };
    let previous: Option<Cursor> = tx.one(&LOCK, &[&id]).await?;
    // What the other program has is history.
    let begins_at = Moment::read(cursor.as_str()).map(|moment| moment.as_str().to_owned());
    tx.run(&SET, &[&id, &cursor, &begins_at]).await?;
    tx.run(&BEGIN_LATER, &[&id, &begins_at]).await?;
    tx.run(&RESTART, &[&id, &TriggerKind::Backfill]).await?;
    tx.run(&FORGET, &[&id]).await?;
    tx.run(&SAVE, &[&id, &cursor]).await?;
    let gap = !is_at_or_after(previous.as_ref(), &cursor);
    if gap {
        let reason = IncompleteReason::StartAt;
        record_gap(tx, id, previous.as_ref(), Some(&cursor), reason, now).await?;
    }
    reconsider(tx, &[id]).await?;
    raise(tx, id, TriggerKind::Reconciliation, now).await?;
    Ok(FeedStartedAt { previous, gap })
}

/// Returns true if the old cursor is the new one, or names its moment or a later one: nothing is
/// left out.
fn is_at_or_after(old: Option<&Cursor>, new: &Cursor) -> bool {
    let moment = |cursor: &Cursor| Moment::read(cursor.as_str());
    old.is_some_and(|old| {
        old == new
            || moment(old)
                .zip(moment(new))
                .is_some_and(|(old, new)| old >= new)
    })
}
