//! The conditions under which no message is accepted.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::domain::Timestamp;
use crate::refusal::Refusal;
use crate::store::{AlarmKind, AlarmRow};

/// A fault of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFault {
    /// When it was first found.
    pub since: Timestamp,
    /// The fault and what to do, for people; nothing secret.
    pub text: String,
}

/// The faults of the store. Alarms about them are kept here, since the store itself may not
/// be able to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreFaults {
    /// No message can be stored.
    pub unavailable: Option<StoreFault>,
    /// A part of the database is damaged; messages may still be stored.
    pub damaged: Option<StoreFault>,
}

impl StoreFaults {
    /// Returns the alarms about them, each with the number 0.
    pub fn alarms(&self) -> Vec<AlarmRow> {
        let unavailable = self.unavailable.as_ref().map(|fault| {
            let text = &fault.text;
            let text = format!("no message can be stored; all are answered 503. Fix: {text}");
            alarm(AlarmKind::Store, text, fault.since)
        });
        let damaged = self
            .damaged
            .as_ref()
            .map(|fault| alarm(AlarmKind::Damaged, fault.text.clone(), fault.since));
        unavailable.into_iter().chain(damaged).collect()
    }
}

fn alarm(kind: AlarmKind, text: String, since: Timestamp) -> AlarmRow {
    AlarmRow {
        id: 0,
        kind,
        subject: "store".to_owned(),
        text,
        raised_at: since,
        seen_at: since,
        ended_at: None,
        notify_at: None,
        attempts: 0,
        last_error: None,
    }
}

/// Conditions that keep the service from accepting messages, known without any I/O.
#[derive(Debug, Default)]
pub struct Health {
    draining: AtomicBool,
    disk_nearly_full: AtomicBool,
    store: watch::Sender<StoreFaults>,
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

    /// Records the result of a check that a message could be stored: what keeps it from that,
    /// or `None`. Returns true if a fault has begun or ended.
    pub fn set_unavailable(&self, text: Option<String>, now: Timestamp) -> bool {
        self.set_fault(|faults| &mut faults.unavailable, text, now)
    }

    /// Records the result of a check for damage: what is damaged, or `None`. Returns true if
    /// a fault has begun or ended.
    pub fn set_damaged(&self, text: Option<String>, now: Timestamp) -> bool {
        self.set_fault(|faults| &mut faults.damaged, text, now)
    }

    fn set_fault(
        &self,
        choose: fn(&mut StoreFaults) -> &mut Option<StoreFault>,
        text: Option<String>,
        now: Timestamp,
    ) -> bool {
        let mut began_or_ended = false;
        self.store.send_if_modified(|faults| {
            let fault = choose(faults);
            began_or_ended = fault.is_some() != text.is_some();
            let since = fault.as_ref().map_or(now, |fault| fault.since);
            let found = text.map(|text| StoreFault { since, text });
            let changed = *fault != found;
            *fault = found;
            changed
        });
        began_or_ended
    }

    /// Returns the faults of the store.
    pub fn store_faults(&self) -> StoreFaults {
        self.store.borrow().clone()
    }

    /// Returns a receiver that is told when the store's faults change.
    pub fn watch_store(&self) -> watch::Receiver<StoreFaults> {
        self.store.subscribe()
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
