//! The start of a process that uses the database.

use super::engine::{Sql, Tx};
use super::error::Result;
use super::triggers::reconsider;

/// Releases all leases: at the start of the only process, those of a process that ended.
pub(super) async fn release_all_leases<T: Tx>(tx: &T) -> Result<()> {
    static FEEDS: Sql =
        Sql::new("UPDATE feed SET leased_until = NULL WHERE leased_until IS NOT NULL");
    static DESTINATIONS: Sql = Sql::new("UPDATE destination SET leased_until = NULL");
    static IMPORT_ERRORS: Sql = Sql::new(
        "UPDATE import_error SET leased_until = NULL
         WHERE state = 'pending' AND next_try_at > 0 AND leased_until IS NOT NULL",
    );
    tx.run(&FEEDS, &[]).await?;
    tx.run(&DESTINATIONS, &[]).await?;
    tx.run(&IMPORT_ERRORS, &[]).await
}

/// Resumes at the start of a process what was paused for a person, as a restart often fixes
/// it.
pub(super) async fn resume_at_start<T: Tx>(tx: &T) -> Result<()> {
    static FEEDS: Sql = Sql::new(
        "SELECT id FROM feed WHERE paused IN ('unauthorized', 'forbidden', 'not_found'){lock_in_order}",
    );
    static RESUME: Sql =
        Sql::new("UPDATE feed SET paused = NULL, waits_until = NULL WHERE id IN ({elements}($1))");
    static ACCOUNTS: Sql =
        Sql::new("UPDATE account SET paused = NULL, waits_until = NULL WHERE paused IS NOT NULL");
    static IMPORT_ERRORS: Sql = Sql::new(
        "UPDATE import_error_path SET paused_since = NULL, retry_at = NULL WHERE paused_since IS NOT NULL",
    );
    let resumed: Vec<i64> = tx.all(&FEEDS, &[]).await?;
    tx.run(&RESUME, &[&resumed]).await?;
    reconsider(tx, &resumed).await?;
    tx.run(&ACCOUNTS, &[]).await?;
    // Workers lock feeds before the paths of import errors.
    tx.run(&IMPORT_ERRORS, &[]).await
}
