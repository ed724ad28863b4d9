//! Checks whether documents of feeds may be missing.

use super::Check;
use crate::domain::{Timestamp, counted};
use crate::store::{FeedRow, IncompleteReason, PAGE_SIZE_NOTICE, Store};

/// Checks every feed; one check for each that is incomplete.
///
/// Returns `None` if the store can't be read, which another check reports.
pub async fn state(store: &Store, now: Timestamp) -> Option<Vec<Check>> {
    let rows = store.feeds().await.ok()?;
    let known = rows.iter().filter(|row| row.is_known());
    Some(known.filter_map(|row| incomplete(row, now)).collect())
}

fn incomplete(row: &FeedRow, now: Timestamp) -> Option<Check> {
    const CHECK: &str = "incomplete";
    let (reason, since) = (row.incomplete?, row.incomplete_since?);
    let (cause, fix) = reason.cause_and_fix();
    let gaps = counted(row.gaps, "gap");
    let found = format!(
        "documents of `{}` may be missing ({gaps} since {since}): {cause}",
        row.feed
    );
    let is_notice =
        reason == IncompleteReason::PageSizeUnknown && now.since(since) < PAGE_SIZE_NOTICE;
    let check = match is_notice {
        true => Check::note(CHECK, found),
        false => Check::fail(CHECK, found),
    };
    let check = check.because("Įvesk.lt's pages do not prove that every document was listed");
    Some(check.fix(format!(
        "list the gaps with `ivesk-webhook feeds gaps`; {fix}"
    )))
}
