//! The conditions under which no message is accepted.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::refusal::Refusal;

/// Conditions that keep the service from accepting messages, known without any I/O.
#[derive(Debug, Default)]
pub struct Health {
    draining: AtomicBool,
    disk_nearly_full: AtomicBool,
}

impl Health {
    /// Refuses new messages from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Returns true if the service is stopping.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Records whether the disk has less than `store.min_free_bytes`; returns true if that
    /// has changed.
    pub fn set_disk_nearly_full(&self, nearly_full: bool) -> bool {
        self.disk_nearly_full.swap(nearly_full, Ordering::AcqRel) != nearly_full
    }

    /// Checks that a message may be accepted.
    ///
    /// # Errors
    ///
    /// [`Refusal::ShuttingDown`] or [`Refusal::DiskNearlyFull`].
    pub fn admit(&self) -> Result<(), Refusal> {
        if self.draining.load(Ordering::Acquire) {
            return Err(Refusal::ShuttingDown);
        }
        if self.disk_nearly_full.load(Ordering::Acquire) {
            return Err(Refusal::DiskNearlyFull);
        }
        Ok(())
    }
}
