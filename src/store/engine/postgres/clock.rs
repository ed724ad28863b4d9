//! The clock of the database.

use crate::domain::{Clock, Correction, Timestamp};

/// The time by the database's clock, or by a clock that a test sets by hand.
pub(super) struct DatabaseClock {
    /// The clock of this machine.
    pub(super) base: Clock,
    /// The same, corrected by what the database last said.
    pub(super) corrected: Clock,
    correction: Correction,
}

impl DatabaseClock {
    pub(super) fn new(base: Clock) -> Self {
        let (corrected, correction) = base.corrected();
        Self {
            base,
            corrected,
            correction,
        }
    }

    /// Returns the clock that all processes on this database share.
    pub(super) fn clock(&self) -> Clock {
        self.corrected.clone()
    }

    /// Returns the moment that a test set by hand.
    pub(super) fn manual(&self) -> Option<Timestamp> {
        self.base.is_manual().then(|| self.base.now())
    }

    /// Corrects the clock by the database's time, which was requested at `before`.
    pub(super) fn synchronize(&self, before: Timestamp, database: Timestamp) -> Timestamp {
        if self.base.is_manual() {
            return self.base.now();
        }
        let after = self.base.now();
        let took = after.as_millis() - before.as_millis();
        // If the process was suspended or its clock was set meanwhile, the next one corrects.
        if (0..1000).contains(&took) {
            self.correction
                .set(database.as_millis() - before.as_millis() - took / 2);
        }
        database
    }
}
