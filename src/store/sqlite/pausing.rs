//! Failed requests: waiting, pausing and resuming feeds and accounts.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::error::explain;
use super::leases::check_fence;
use super::rows::account_id;
use crate::domain::{Account, Feed, Timestamp};
use crate::store::{FeedPauseReason, PageFailure, PageLease, StoreError};

/// Records a failed request and releases the lease.
pub(super) fn fail(
    connection: &Connection,
    path: &Path,
    lease: &PageLease,
    failure: PageFailure,
    error: &str,
) -> Result<(), StoreError> {
    check_fence(connection, path, lease)?;
    record_failure(connection, lease, failure, error).map_err(|error| explain(path, error))
}

fn record_failure(
    connection: &Connection,
    lease: &PageLease,
    failure: PageFailure,
    error: &str,
) -> rusqlite::Result<()> {
    let account = account_id(connection, &lease.feed.account)?;
    connection.execute(
        "UPDATE feed SET leased_until = NULL, failures = failures + 1, last_error = ?2 WHERE id = ?1",
        params![lease.feed_id, error],
    )?;
    connection.execute(
        "UPDATE account SET failures = failures + 1, last_error = ?2 WHERE id = ?1",
        params![account, error],
    )?;
    match failure {
        PageFailure::FeedWaits(until) => connection
            .execute(
                "UPDATE feed SET waits_until = ?2 WHERE id = ?1",
                params![lease.feed_id, until.as_millis()],
            )
            .map(drop),
        PageFailure::AccountWaits(until) => connection
            .execute(
                // A longer wait set by another request in flight is kept.
                "UPDATE account SET waits_until = max(coalesce(waits_until, 0), ?2) WHERE id = ?1",
                params![account, until.as_millis()],
            )
            .map(drop),
        PageFailure::FeedPaused { reason, retry_at } => {
            pause_feed(connection, lease.feed_id, reason, Some(retry_at), error)
        }
        PageFailure::AccountPaused { reason, retry_at } => connection
            .execute(
                "UPDATE account SET paused = ?2, waits_until = ?3 WHERE id = ?1",
                params![account, reason.as_str(), retry_at.as_millis()],
            )
            .map(drop),
    }
}

pub(super) fn pause_feed(
    connection: &Connection,
    feed: i64,
    reason: FeedPauseReason,
    retry_at: Option<Timestamp>,
    error: &str,
) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE feed SET leased_until = NULL, paused = ?2, waits_until = ?3, last_error = ?4 WHERE id = ?1",
        params![feed, reason.as_str(), retry_at.map(Timestamp::as_millis), error],
    )?;
    Ok(())
}

/// Pauses by hand, or resumes what was paused or waiting; returns the number of feeds changed.
pub(super) fn set_paused(
    connection: &Connection,
    account: &Account,
    feed: Option<&Feed>,
    paused: bool,
) -> rusqlite::Result<usize> {
    let account = account_id(connection, account)?;
    let reason = paused.then_some(FeedPauseReason::ByHand.as_str());
    let feed_row: Option<i64> = match feed {
        None => None,
        Some(feed) => {
            let found = connection
                .query_row(
                    "SELECT id FROM feed WHERE account_id = ?1 AND queue = ?2 AND company = ?3",
                    params![account, feed.queue.as_str(), feed.company.as_str()],
                    |row| row.get(0),
                )
                .optional()?;
            match found {
                None => return Ok(0),
                found => found,
            }
        }
    };
    if feed_row.is_none() && !paused {
        connection.execute(
            "UPDATE account SET paused = NULL, waits_until = NULL, failures = 0, last_error = NULL WHERE id = ?1",
            params![account],
        )?;
    }
    connection.execute(
        "UPDATE feed SET paused = ?3, waits_until = NULL, failures = 0,
             last_error = CASE WHEN ?3 IS NULL THEN NULL ELSE last_error END
         WHERE account_id = ?1 AND (?2 IS NULL OR id = ?2)
           AND (?3 IS NOT NULL OR paused IS NOT NULL OR waits_until IS NOT NULL)",
        params![account, feed_row, reason],
    )
}

/// Releases at start the leases of a killed process, and resumes what was paused for a
/// person, as a restart often fixes it.
pub(super) fn recover_at_start(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE feed SET leased_until = NULL WHERE leased_until IS NOT NULL",
        [],
    )?;
    connection.execute(
        "UPDATE feed SET paused = NULL, waits_until = NULL WHERE paused IN ('unauthorized', 'forbidden', 'not_found')",
        [],
    )?;
    connection.execute("UPDATE account SET paused = NULL, waits_until = NULL WHERE paused IS NOT NULL AND paused <> 'by_hand'", [])?;
    Ok(())
}
