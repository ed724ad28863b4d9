//! The kinds of triggers.

use super::columns::{UnknownValue, named};
use super::engine::{Column, Columns, scalars};
use super::error::Result;

named! {
    /// The kind of a trigger, most urgent first.
    pub enum TriggerKind {
        /// A notification, or a person's request.
        Notification = "notification",
        /// The first of the two overlap reads after a notification.
        FollowUp = "follow_up",
        /// The second of them.
        LateFollowUp = "late_follow_up",
        /// The overlap read at start and every hour.
        Reconciliation = "reconciliation",
        /// A person's request to read an old stretch again.
        Backfill = "backfill",
    }
}

impl TriggerKind {
    /// Returns true if its pull starts from an older cursor and has a position of its own.
    pub const fn overlaps(self) -> bool {
        !matches!(self, Self::Notification)
    }
}

impl Column for TriggerKind {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        let code: i64 = columns.get()?;
        let known = Self::ALL.into_iter().find(|kind| kind_code(*kind) == code);
        Ok(known.ok_or(UnknownValue("kind of trigger"))?)
    }
}

impl Column for Vec<TriggerKind> {
    /// Reads a list of codes, such as `0,3`; NULL is empty.
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        let codes: Option<String> = columns.get()?;
        let codes: Vec<&str> = codes.iter().flat_map(|codes| codes.split(',')).collect();
        let is_listed = |kind: &TriggerKind| codes.contains(&&*kind_code(*kind).to_string());
        Ok(TriggerKind::ALL.into_iter().filter(is_listed).collect())
    }
}

scalars! { TriggerKind: Integer, kind => kind_code(*kind); }

/// Returns the kind's code, which orders kinds by urgency.
const fn kind_code(kind: TriggerKind) -> i64 {
    match kind {
        TriggerKind::Notification => 0,
        TriggerKind::FollowUp => 1,
        TriggerKind::LateFollowUp => 2,
        TriggerKind::Reconciliation => 3,
        TriggerKind::Backfill => 4,
    }
}
