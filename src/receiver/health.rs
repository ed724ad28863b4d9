//! Whether messages are taken just now.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::refusal::Refusal;

/// What keeps the service from taking messages, known without asking anybody.
#[derive(Debug, Default)]
pub struct Health {
    draining: AtomicBool,
    disk_nearly_full: AtomicBool,
}

impl Health {
    /// Nothing new is taken from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the service is stopping.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Notes whether the disk has less room than the settings ask for; true
    /// where that is news.
    pub fn set_disk_nearly_full(&self, nearly_full: bool) -> bool {
        self.disk_nearly_full.swap(nearly_full, Ordering::AcqRel) != nearly_full
    }

    /// Whether a message may be taken.
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
