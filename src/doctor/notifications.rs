//! Checks what notifications said.

use std::time::Duration;

use super::Check;
use crate::domain::{Timestamp, counted};
use crate::receiver::log::UNCLEAR_FIX;
use crate::store::Store;

/// Time for which notifications whose shape is not understood are reported.
const REPORTED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Checks whether the shape of notifications is understood.
///
/// Returns `None` if the store can't be read, which another check reports.
pub async fn state(store: &Store, now: Timestamp) -> Option<Vec<Check>> {
    let rows = store.unclear_notifications().await.ok()?;
    let recent = rows.iter().filter(|row| now.since(row.last_at) < REPORTED);
    let checks = recent.map(|row| {
        let found = format!(
            "{} of account `{}` named no company in a shape that is understood, the last one at {}",
            counted(row.total, "notification"),
            row.account,
            row.last_at
        );
        Check::note("notification_shape", found)
            .because("they trigger all known exported feeds of the account, at most once in five minutes, and a new company is not found by it")
            .fix(UNCLEAR_FIX)
    });
    Some(checks.collect())
}
