//! The state that all requests share.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::domain::Event;
use crate::error_report::ErrorReport;
use crate::faults::Faults;
use crate::ledger::Ledger;
use crate::meter::Meter;
use crate::switches::Switches;
use crate::topics::topic_arn;
use crate::uploads::Uploads;
use crate::world::World;
use sns_messages::time::{Clock, Timestamp};

/// The emulated vendor.
pub(crate) struct Vendor {
    pub(crate) origin: String,
    pub(crate) allow_remote: bool,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
    pub(crate) faults: Faults,
    pub(crate) meter: Meter,
    pub(crate) ledger: Ledger,
    pub(crate) uploads: Uploads,
    pub(crate) reports: Mutex<Vec<ErrorReport>>,
    /// Raised when switches or faults change, so that hanging requests check them again.
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) clock: Clock,
    pub(crate) clock_offset_ms: AtomicI64,
    pub(crate) positions: RwLock<Arc<Switches>>,
    pub(crate) world: Mutex<World>,
}

impl Vendor {
    /// Returns the emulator's time: its clock, plus the offset of the control API.
    pub(crate) fn now(&self) -> Timestamp {
        let offset = self.clock_offset_ms.load(Ordering::SeqCst);
        Timestamp::from_millis(self.clock.now().as_millis().saturating_add(offset))
    }

    /// Moves the emulator's time only.
    pub(crate) fn advance(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.clock_offset_ms.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets the emulator's time only.
    pub(crate) fn set_clock(&self, to: Timestamp) {
        let offset = to.as_millis().saturating_sub(self.clock.now().as_millis());
        self.clock_offset_ms.store(offset, Ordering::SeqCst);
    }

    /// Returns the present switches.
    pub(crate) fn switches(&self) -> Arc<Switches> {
        let positions = self.positions.read();
        Arc::clone(&positions.unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the ARN of an event's topic as the switches are now.
    pub(crate) fn topic_arn(&self, event: Event) -> String {
        topic_arn(self.switches().topic_owner.as_str(), event)
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reports(&self) -> MutexGuard<'_, Vec<ErrorReport>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes hanging requests to check switches and faults again.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    pub(crate) fn uuid(&self) -> Uuid {
        self.world().uuid()
    }

    /// Returns a confirmation token: like SNS's, a long line of hexadecimal digits.
    pub(crate) fn token(&self) -> String {
        let mut world = self.world();
        (0..8).map(|_| world.uuid().simple().to_string()).collect()
    }
}
