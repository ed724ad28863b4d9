//! Pages that were not stored: waiting, pausing and resuming feeds and accounts.

use super::engine::{Param, Sql, Tx, operations};
use super::error::Result;
use super::feeds::{FeedPauseReason, PageFailure, PageLease};
use super::leases::lock_as_owner;
use super::row_ids::account_id;
use crate::domain::{Account, Feed, Timestamp};

/// A change that a person makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseChange {
    /// Pauses by hand.
    Pause,
    /// Resumes what was paused or waiting.
    Resume {
        /// True if the person vouches that the vendor obeyed the company in requests for the
        /// feeds that are paused because it seemed not to.
        accept: bool,
    },
}

operations! {
    /// Records a failed request and releases the lease.
    ///
    /// # Errors
    ///
    /// [`StoreError::StaleLease`](super::StoreError::StaleLease) if another worker has leased the feed since.
    pub write fail_page(lease: PageLease, failure: PageFailure, error: String) -> ();

    /// Releases a lease without a result, as when the service stops, unless another worker
    /// has leased the feed since.
    pub write release_page(lease: PageLease) -> ();

    /// Pauses by hand, or resumes what was paused or waiting: one feed, or all feeds of the
    /// account if `feed` is none; returns the number of feeds that changed.
    pub write set_paused(account: Account, feed: Option<Feed>, change: PauseChange) -> usize,
        then wake_pullers;
}

async fn fail_page<T: Tx>(
    tx: &mut T,
    lease: PageLease,
    failure: PageFailure,
    error: String,
) -> Result<()> {
    static FAIL_FEED: Sql = Sql::new(
        "UPDATE feed SET leased_until = NULL, failures = failures + 1, last_error = $2 WHERE id = $1",
    );
    static FEED_WAITS: Sql = Sql::new("UPDATE feed SET waits_until = $2 WHERE id = $1");
    static FAIL_ACCOUNT: Sql =
        Sql::new("UPDATE account SET failures = failures + 1, last_error = $2 WHERE id = $1");
    // A longer wait set by another request in flight is kept.
    static ACCOUNT_WAITS: Sql = Sql::new(
        "UPDATE account SET waits_until = {greatest}(coalesce(waits_until, 0), $2) WHERE id = $1",
    );
    static PAUSE_ACCOUNT: Sql =
        Sql::new("UPDATE account SET paused = $2, waits_until = $3 WHERE id = $1");
    let feed = lease.feed_id;
    // Feeds are locked before accounts.
    let account = lock_as_owner(tx, &lease).await?;
    tx.run(&FAIL_FEED, &[&feed, &error]).await?;
    tx.run(&FAIL_ACCOUNT, &[&account, &error]).await?;
    match failure {
        PageFailure::FeedWaits(until) => tx.run(&FEED_WAITS, &[&feed, &until]).await,
        PageFailure::FeedPaused { reason, retry_at } => {
            pause_feed(tx, feed, reason, Some(retry_at), &error).await
        }
        PageFailure::AccountWaits(until) => tx.run(&ACCOUNT_WAITS, &[&account, &until]).await,
        PageFailure::AccountPaused { reason, retry_at } => {
            tx.run(&PAUSE_ACCOUNT, &[&account, &reason, &retry_at])
                .await
        }
    }
}

async fn release_page<T: Tx>(tx: &mut T, lease: PageLease) -> Result<()> {
    static SQL: Sql = Sql::new("UPDATE feed SET leased_until = NULL WHERE id = $1 AND fence = $2");
    tx.run(&SQL, &[&lease.feed_id, &lease.fence]).await
}

/// Pauses a feed until a person resumes it, and releases its lease.
pub(super) async fn pause_feed<T: Tx>(
    tx: &mut T,
    feed: i64,
    reason: FeedPauseReason,
    retry_at: Option<Timestamp>,
    error: &str,
) -> Result<()> {
    static SQL: Sql = Sql::new(
        "UPDATE feed SET leased_until = NULL, paused = $2, waits_until = $3, last_error = $4 WHERE id = $1",
    );
    tx.run(&SQL, &[&feed, &reason, &retry_at, &error]).await
}

async fn set_paused<T: Tx>(
    tx: &mut T,
    account: Account,
    feed: Option<Feed>,
    change: PauseChange,
) -> Result<usize> {
    static FEEDS: Sql = Sql::new(
        "WITH chosen AS (
             SELECT id FROM feed
             WHERE account_id = $1 AND ($2 OR (queue = $3 AND company = $4))
               AND ($5 IS NOT NULL OR paused IS NOT NULL OR waits_until IS NOT NULL){lock_in_order})
         UPDATE feed AS f SET paused = $5, waits_until = NULL, failures = 0,
             company_vouched = company_vouched OR ($6 AND coalesce(paused, '') = 'company_filter_ignored'),
             last_error = CASE WHEN $5 IS NULL THEN NULL ELSE last_error END
         FROM chosen WHERE f.id = chosen.id",
    );
    static RESUME_ACCOUNT: Sql = Sql::new(
        "UPDATE account SET paused = NULL, waits_until = NULL, failures = 0, last_error = NULL WHERE id = $1",
    );
    let account = account_id(tx, &account).await?;
    let paused = change == PauseChange::Pause;
    let accept = change == (PauseChange::Resume { accept: true });
    let reason = paused.then_some(FeedPauseReason::ByHand);
    let all = feed.is_none();
    let (queue, company) = feed.map(|feed| (feed.queue, feed.company)).unzip();
    let params: [&dyn Param; 6] = [&account, &all, &queue, &company, &reason, &accept];
    let changed = tx.execute(&FEEDS, &params).await?;
    if all && !paused {
        tx.run(&RESUME_ACCOUNT, &[&account]).await?;
    }
    Ok(changed)
}
