//! Pages that were not stored: waiting, pausing and resuming feeds and accounts.

use super::engine::{Param, Sql, Tx, operations};
use super::error::Result;
use super::feeds::{FeedPauseReason, PageFailure, PageLease};
use super::leases::lock_as_owner;
use super::row_ids::account_id;
use super::triggers::reconsider;
use crate::backoff;
use crate::domain::{Account, Feed, Timestamp};

/// A change that a person makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseChange {
    /// Pauses by hand.
    Pause,
    /// Resumes what was paused or waiting.
    Resume {
        /// True if the person vouches that the vendor obeys the company in requests for the one
        /// feed that is named, or else for the feeds that are paused because it seemed not to.
        accept: bool,
    },
}

operations! {
    /// Records a failed request and releases the lease.
    ///
    /// # Errors
    ///
    /// [`StoreError::StaleLease`](super::StoreError::StaleLease) if another worker has leased the feed since.
    pub write fail_page(lease: PageLease, failure: PageFailure, error: String, now: Timestamp) -> ();

    /// Releases a lease without a result, as when the service stops, unless another worker
    /// has leased the feed since.
    pub write release_page(lease: PageLease) -> ();

    /// Pauses by hand, or resumes what was paused or waiting: one feed, or all feeds of the
    /// account if `feed` is none; returns the number of feeds that changed. A removed feed is
    /// brought back if it is the one to be resumed, and otherwise stays as it is.
    pub write set_paused(account: Account, feed: Option<Feed>, change: PauseChange) -> usize,
        then wake_pullers;
}

async fn fail_page<T: Tx>(
    tx: &T,
    lease: PageLease,
    failure: PageFailure,
    error: String,
    now: Timestamp,
) -> Result<()> {
    static FAIL_FEED: Sql = Sql::new(
        "UPDATE feed SET leased_until = NULL, failures = failures + 1, last_error = $2 WHERE id = $1",
    );
    static FEED_WAITS: Sql =
        Sql::new("UPDATE feed SET waits_since = $2, waits_until = $3 WHERE id = $1");
    // Counted once for all requests that were in flight together: of those the first one to fail
    // finds the number that it was leased with.
    static FAIL_ACCOUNT: Sql = Sql::new(
        "UPDATE account SET last_error = $2,
             failures = CASE WHEN failures = $3 THEN failures + 1 ELSE {greatest}(failures, 1) END
         WHERE id = $1",
    );
    // A longer wait set by another request in flight is kept, unless its clock was ahead.
    static ACCOUNT_WAITS: Sql = Sql::new(
        "UPDATE account SET waits_since = $2,
             waits_until = CASE WHEN waits_until > $3 AND waits_since <= $4 THEN waits_until ELSE $3 END
         WHERE id = $1",
    );
    static PAUSE_ACCOUNT: Sql = Sql::new(
        "UPDATE account SET paused = $2, waits_since = $3, waits_until = $4 WHERE id = $1",
    );
    let now = tx.now_or(now);
    let feed = lease.feed_id;
    // Feeds are locked before accounts.
    lock_as_owner(tx, &lease).await?;
    let account = lease.account_id;
    tx.run(&FAIL_FEED, &[&feed, &error]).await?;
    tx.run(&FAIL_ACCOUNT, &[&account, &error, &lease.account_failures])
        .await?;
    match failure {
        PageFailure::FeedWaits(until) => tx.run(&FEED_WAITS, &[&feed, &now, &until]).await,
        PageFailure::FeedPaused { reason, retry_at } => {
            pause_feed(tx, feed, reason, Some(retry_at), &error).await?;
            tx.run(&FEED_WAITS, &[&feed, &now, &retry_at]).await
        }
        PageFailure::AccountWaits(until) => {
            let present = backoff::latest_present(now);
            tx.run(&ACCOUNT_WAITS, &[&account, &now, &until, &present])
                .await
        }
        PageFailure::AccountPaused { reason, retry_at } => {
            tx.run(&PAUSE_ACCOUNT, &[&account, &reason, &now, &retry_at])
                .await
        }
    }
}

async fn release_page<T: Tx>(tx: &T, lease: PageLease) -> Result<()> {
    static SQL: Sql = Sql::new("UPDATE feed SET leased_until = NULL WHERE id = $1 AND fence = $2");
    tx.run(&SQL, &[&lease.feed_id, &lease.fence]).await
}

/// Pauses a feed until a person resumes it, and releases its lease.
pub(super) async fn pause_feed<T: Tx>(
    tx: &T,
    feed: i64,
    reason: FeedPauseReason,
    retry_at: Option<Timestamp>,
    error: &str,
) -> Result<()> {
    static SQL: Sql = Sql::new(
        "UPDATE feed SET leased_until = NULL, paused = CASE WHEN paused = 'by_hand' THEN paused ELSE $2 END, waits_until = $3, last_error = $4 WHERE id = $1",
    );
    tx.run(&SQL, &[&feed, &reason, &retry_at, &error]).await
}

async fn set_paused<T: Tx>(
    tx: &T,
    account: Account,
    feed: Option<Feed>,
    change: PauseChange,
) -> Result<usize> {
    static FEEDS: Sql = Sql::new(
        "SELECT id FROM feed
         WHERE account_id = $1 AND ($2 OR (queue = $3 AND company = $4))
           AND ($5 IS NOT NULL OR $6 OR paused IS NOT NULL OR waits_until IS NOT NULL OR removed_at IS NOT NULL)
           AND (removed_at IS NULL OR ($5 IS NULL AND NOT $2)){lock_in_order}",
    );
    static SET: Sql = Sql::new(
        "UPDATE feed SET paused = $2, removed_at = NULL, unfit = false, waits_until = NULL, failures = 0,
             company_vouched = company_vouched OR $4 OR ($3 AND coalesce(paused, '') = 'company_filter_ignored'),
             last_error = CASE WHEN $2 IS NULL THEN NULL ELSE last_error END
         WHERE id IN ({elements}($1))",
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
    let accept_one = accept && !all;
    let params: [&dyn Param; 6] = [&account, &all, &queue, &company, &reason, &accept_one];
    let changed: Vec<i64> = tx.all(&FEEDS, &params).await?;
    tx.run(&SET, &[&changed, &reason, &accept, &accept_one])
        .await?;
    if !paused {
        reconsider(tx, &changed).await?;
    }
    if all && !paused {
        tx.run(&RESUME_ACCOUNT, &[&account]).await?;
    }
    Ok(changed.len())
}
