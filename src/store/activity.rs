//! What came in the last hours, hour by hour.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::Timestamp;

/// Milliseconds of an hour.
pub(super) const HOUR_MS: i64 = 60 * 60 * 1000;

/// Rows of each kind that are counted at the most, the newest ones.
pub(super) const COUNTED: i64 = 100_000;

/// What came in one hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct HourCount {
    /// The hour's beginning.
    pub hour: Timestamp,
    /// How many.
    pub count: u64,
}

/// How often one reason made messages be refused in one hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RefusedCount {
    /// The hour's beginning.
    pub hour: Timestamp,
    /// [`crate::refusal::Refusal::code`].
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// What came since a moment, by hours in ascending order; those without any are left out.
///
/// Counted from rows, so it is the same after a restart and at every replica. What leaves
/// no row is not in it: repeated messages, and refused ones that the quarantine does not
/// keep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Activity {
    /// Messages that were accepted.
    pub accepted: Vec<HourCount>,
    /// Messages that stand refused.
    pub refused: Vec<RefusedCount>,
    /// Versions of documents that were stored.
    pub documents: Vec<HourCount>,
}
