//! Failed requests: waiting, pausing and resuming feeds and accounts.

use super::connection::{Pool, Transaction};
use super::leases::lock_as_owner;
use super::rows::{account_id, escape_nul};
use crate::domain::{Account, Feed, Timestamp};
use crate::store::{FeedPauseReason, PageFailure, PageLease, StoreError};

/// Records a failed request and releases the lease.
pub(super) async fn fail(
    pool: &Pool,
    lease: &PageLease,
    failure: PageFailure,
    error: &str,
) -> Result<(), StoreError> {
    let transaction = pool.write().await?;
    let Some(account) = lock_as_owner(&transaction, lease).await? else {
        transaction.roll_back().await?;
        return Err(StoreError::StaleLease);
    };
    let error = escape_nul(error);
    transaction
        .execute(
            "UPDATE feed SET leased_until = NULL, failures = failures + 1, last_error = $2 WHERE id = $1",
            &[&lease.feed_id, &error],
        )
        .await?;
    match failure {
        PageFailure::FeedWaits(until) => {
            transaction
                .execute(
                    "UPDATE feed SET waits_until = $2 WHERE id = $1",
                    &[&lease.feed_id, &until.as_millis()],
                )
                .await?;
        }
        PageFailure::FeedPaused { reason, retry_at } => {
            pause_feed(&transaction, lease.feed_id, reason, Some(retry_at), &error).await?;
        }
        PageFailure::AccountWaits(_) | PageFailure::AccountPaused { .. } => {}
    }
    transaction
        .execute(
            "UPDATE account SET failures = failures + 1, last_error = $2 WHERE id = $1",
            &[&account, &error],
        )
        .await?;
    match failure {
        PageFailure::AccountWaits(until) => {
            transaction
                .execute(
                    // A longer wait set by another request in flight is kept.
                    "UPDATE account SET waits_until = greatest(waits_until, $2) WHERE id = $1",
                    &[&account, &until.as_millis()],
                )
                .await?;
        }
        PageFailure::AccountPaused { reason, retry_at } => {
            transaction
                .execute(
                    "UPDATE account SET paused = $2, waits_until = $3 WHERE id = $1",
                    &[&account, &reason.as_str(), &retry_at.as_millis()],
                )
                .await?;
        }
        PageFailure::FeedWaits(_) | PageFailure::FeedPaused { .. } => {}
    }
    transaction.commit().await
}

pub(super) async fn pause_feed(
    transaction: &Transaction<'_>,
    feed: i64,
    reason: FeedPauseReason,
    retry_at: Option<Timestamp>,
    error: &str,
) -> Result<(), StoreError> {
    transaction
        .execute(
            "UPDATE feed SET leased_until = NULL, paused = $2, waits_until = $3, last_error = $4 WHERE id = $1",
            &[
                &feed,
                &reason.as_str(),
                &retry_at.map(Timestamp::as_millis),
                &error,
            ],
        )
        .await?;
    Ok(())
}

/// Pauses by hand, or resumes what was paused or waiting; returns the number of feeds changed.
pub(super) async fn set_paused(
    transaction: &Transaction<'_>,
    account: &Account,
    feed: Option<&Feed>,
    paused: bool,
) -> Result<usize, StoreError> {
    let account = account_id(transaction, account).await?;
    let reason = paused.then_some(FeedPauseReason::ByHand.as_str());
    let changed = transaction
        .execute(
            "WITH chosen AS (
                 SELECT id FROM feed
                 WHERE account_id = $1 AND ($2 OR (queue = $3 AND company = $4))
                   AND ($5 IS NOT NULL OR paused IS NOT NULL OR waits_until IS NOT NULL)
                 ORDER BY id FOR NO KEY UPDATE)
             UPDATE feed f SET paused = $5, waits_until = NULL, failures = 0,
                 last_error = CASE WHEN $5 IS NULL THEN NULL ELSE last_error END
             FROM chosen WHERE f.id = chosen.id",
            &[
                &account,
                &feed.is_none(),
                &feed.map_or("", |feed| feed.queue.as_str()),
                &feed.map_or("", |feed| feed.company.as_str()),
                &reason,
            ],
        )
        .await?;
    if feed.is_none() && !paused {
        transaction
            .execute(
                "UPDATE account SET paused = NULL, waits_until = NULL, failures = 0, last_error = NULL WHERE id = $1",
                &[&account],
            )
            .await?;
    }
    Ok(changed)
}

/// Resumes at a replica's start what was paused for a person, as a restart often fixes it.
/// Leases of others are kept; those of a killed replica expire.
pub(super) async fn recover_at_start(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    transaction
        .execute(
            "WITH chosen AS (
                 SELECT id FROM feed WHERE paused IN ('unauthorized', 'forbidden', 'not_found')
                 ORDER BY id FOR NO KEY UPDATE)
             UPDATE feed f SET paused = NULL, waits_until = NULL FROM chosen WHERE f.id = chosen.id",
            &[],
        )
        .await?;
    transaction
        .execute(
            "UPDATE account SET paused = NULL, waits_until = NULL WHERE paused IS NOT NULL AND paused <> 'by_hand'",
            &[],
        )
        .await?;
    Ok(())
}
