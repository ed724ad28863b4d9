//! Counts of what arrived recently, by hour.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::Timestamp;

/// Milliseconds of an hour.
pub(super) const HOUR_MS: i64 = 60 * 60 * 1000;

/// Maximum number of rows of each kind that are counted, newest first.
pub(super) const MAX_COUNTED_ROWS: i64 = 100_000;

/// The count of one hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct HourCount {
    /// The start of the hour.
    pub hour: Timestamp,
    /// The number of rows.
    pub count: u64,
}

/// The number of messages that one hour refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RefusedCount {
    /// The start of the hour.
    pub hour: Timestamp,
    /// [`crate::refusal::Refusal::code`].
    pub reason: String,
    /// The number of messages.
    pub count: u64,
}

/// Counts since a moment, by hours in ascending order; hours without any are left out.
///
/// Counted from rows, so the same after a restart and on every replica. Messages without
/// a row are not counted: duplicates, and refused ones that the quarantine did not keep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Activity {
    /// Accepted messages.
    pub accepted: Vec<HourCount>,
    /// Refused messages in the quarantine.
    pub refused: Vec<RefusedCount>,
    /// Stored versions of documents.
    pub documents: Vec<HourCount>,
}
