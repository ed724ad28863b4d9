//! Pages that were not stored: waiting, pausing and resuming feeds and accounts.

use super::StoreError;
use super::engine::{Operation, Sql, Tx};
use super::feeds::{FeedPauseReason, PageFailure, PageLease};
use super::leases::lock_as_owner;
use super::row_ids::account_id;
use crate::domain::{Account, Feed, Timestamp};

/// Records a failed request and releases the lease. Fails with [`StoreError::StaleLease`] if
/// another process has leased the feed since.
pub(super) struct FailPage {
    pub(super) lease: PageLease,
    pub(super) failure: PageFailure,
    pub(super) error: String,
}

impl Operation for FailPage {
    type Output = ();

    async fn run<T: Tx>(self, tx: &mut T) -> Result<(), StoreError> {
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
        let Self {
            lease,
            failure,
            error,
        } = self;
        let feed = lease.feed_id;
        let account = lock_as_owner(tx, &lease).await?;
        tx.execute(&FAIL_FEED, &[&feed, &error]).await?;
        match failure {
            PageFailure::FeedWaits(until) => {
                tx.execute(&FEED_WAITS, &[&feed, &until]).await?;
            }
            PageFailure::FeedPaused { reason, retry_at } => {
                pause_feed(tx, feed, reason, Some(retry_at), &error).await?;
            }
            PageFailure::AccountWaits(_) | PageFailure::AccountPaused { .. } => {}
        }
        // Feeds are locked before accounts.
        tx.execute(&FAIL_ACCOUNT, &[&account, &error]).await?;
        match failure {
            PageFailure::AccountWaits(until) => {
                tx.execute(&ACCOUNT_WAITS, &[&account, &until]).await?;
            }
            PageFailure::AccountPaused { reason, retry_at } => {
                tx.execute(&PAUSE_ACCOUNT, &[&account, &reason.as_str(), &retry_at])
                    .await?;
            }
            PageFailure::FeedWaits(_) | PageFailure::FeedPaused { .. } => {}
        }
        Ok(())
    }
}

/// Releases a lease without a result, unless another process has leased the feed since.
pub(super) struct ReleasePage(pub(super) PageLease);

impl Operation for ReleasePage {
    type Output = ();

    async fn run<T: Tx>(self, tx: &mut T) -> Result<(), StoreError> {
        static SQL: Sql =
            Sql::new("UPDATE feed SET leased_until = NULL WHERE id = $1 AND fence = $2");
        tx.execute(&SQL, &[&self.0.feed_id, &self.0.fence]).await?;
        Ok(())
    }
}

/// Pauses a feed until a person resumes it, and releases its lease.
pub(super) async fn pause_feed<T: Tx>(
    tx: &mut T,
    feed: i64,
    reason: FeedPauseReason,
    retry_at: Option<Timestamp>,
    error: &str,
) -> Result<(), StoreError> {
    static SQL: Sql = Sql::new(
        "UPDATE feed SET leased_until = NULL, paused = $2, waits_until = $3, last_error = $4 WHERE id = $1",
    );
    tx.execute(&SQL, &[&feed, &reason.as_str(), &retry_at, &error])
        .await?;
    Ok(())
}

/// Pauses by hand, or resumes what was paused or waiting: one feed, or all of the account;
/// returns the number of feeds changed.
pub(super) struct SetPaused {
    pub(super) account: Account,
    pub(super) feed: Option<Feed>,
    pub(super) paused: bool,
}

impl Operation for SetPaused {
    type Output = usize;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<usize, StoreError> {
        static FEEDS: Sql = Sql::new(
            "WITH chosen AS (
                 SELECT id FROM feed
                 WHERE account_id = $1 AND ($2 OR (queue = $3 AND company = $4))
                   AND ($5 IS NOT NULL OR paused IS NOT NULL OR waits_until IS NOT NULL)
                 ORDER BY id{lock_rows})
             UPDATE feed AS f SET paused = $5, waits_until = NULL, failures = 0,
                 last_error = CASE WHEN $5 IS NULL THEN NULL ELSE last_error END
             FROM chosen WHERE f.id = chosen.id",
        );
        static RESUME_ACCOUNT: Sql = Sql::new(
            "UPDATE account SET paused = NULL, waits_until = NULL, failures = 0, last_error = NULL WHERE id = $1",
        );
        let account = account_id(tx, &self.account).await?;
        let reason = self.paused.then_some(FeedPauseReason::ByHand.as_str());
        let feed = self.feed.as_ref();
        let changed = tx
            .execute(
                &FEEDS,
                &[
                    &account,
                    &feed.is_none(),
                    &feed.map(|feed| feed.queue.as_str()),
                    &feed.map(|feed| feed.company.as_str()),
                    &reason,
                ],
            )
            .await?;
        if feed.is_none() && !self.paused {
            tx.execute(&RESUME_ACCOUNT, &[&account]).await?;
        }
        Ok(changed)
    }
}

/// Resumes at the start of a process what was paused for a person, as a restart often fixes
/// it.
pub(super) struct ResumeAtStart;

impl Operation for ResumeAtStart {
    type Output = ();

    async fn run<T: Tx>(self, tx: &mut T) -> Result<(), StoreError> {
        static FEEDS: Sql = Sql::new(
            "WITH chosen AS (
                 SELECT id FROM feed WHERE paused IN ('unauthorized', 'forbidden', 'not_found')
                 ORDER BY id{lock_rows})
             UPDATE feed AS f SET paused = NULL, waits_until = NULL FROM chosen WHERE f.id = chosen.id",
        );
        static ACCOUNTS: Sql = Sql::new(
            "UPDATE account SET paused = NULL, waits_until = NULL WHERE paused IS NOT NULL AND paused <> 'by_hand'",
        );
        tx.execute(&FEEDS, &[]).await?;
        tx.execute(&ACCOUNTS, &[]).await?;
        Ok(())
    }
}
