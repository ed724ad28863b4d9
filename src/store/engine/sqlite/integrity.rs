//! The check of the whole file for damage.

use std::path::Path;
use std::sync::Weak;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::error::explain;
use crate::store::StoreError;

/// Number of SQLite's steps between two pauses.
const STEP: i32 = 20_000;

/// The pause is this many times as long as the step before it.
const PAUSE_FACTOR: u32 = 3;

/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_millis(200);

/// Reads all of the database and checks its structure. It pauses in between, so that it takes
/// a quarter of one processor, and ends early if nobody holds `waiting` any more.
///
/// # Errors
///
/// [`StoreError::Corrupt`] if a page is damaged.
#[expect(
    clippy::disallowed_methods,
    reason = "it has a thread of its own, which nothing else uses"
)]
pub(super) fn check(
    connection: &mut Connection,
    path: &Path,
    waiting: Weak<()>,
) -> Result<(), StoreError> {
    let explain = |error| explain(path, error);
    let mut since = Instant::now();
    let pause = move || {
        std::thread::sleep((since.elapsed() * PAUSE_FACTOR).min(MAX_PAUSE));
        since = Instant::now();
        waiting.strong_count() == 0
    };
    connection
        .progress_handler(STEP, Some(pause))
        .map_err(explain)?;
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(explain)?;
    if found == "ok" {
        Ok(())
    } else {
        Err(StoreError::Corrupt {
            path: path.to_owned(),
            detail: found,
        })
    }
}
