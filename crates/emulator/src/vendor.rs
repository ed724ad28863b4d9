//! What all parts of the emulator share.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::faults::Faults;
use super::ledger::Sns;
use super::meter::Meter;
use super::s3::S3;
use super::switches::Switches;
use super::world::World;
use crate::domain::{Clock, Timestamp};

/// An import error that a client reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorReport {
    /// The account whose key was used.
    pub account: Uuid,
    /// As sent.
    pub documentid: String,
    /// As sent.
    pub companycode: String,
    /// As sent: what the accountant would see.
    pub message: String,
    /// The request's Content-Type.
    pub content_type: Option<String>,
}

/// The emulated vendor.
pub(super) struct Vendor {
    pub(super) origin: String,
    pub(super) allow_remote: bool,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) tasks: TaskTracker,
    pub(super) stopping: CancellationToken,
    pub(super) faults: Faults,
    pub(super) meter: Meter,
    pub(super) sns: Sns,
    pub(super) s3: S3,
    pub(super) reports: Mutex<Vec<ErrorReport>>,
    /// Raised when switches or faults change, so that hanging requests look again.
    pub(super) changes: watch::Sender<u64>,
    pub(super) clock: Clock,
    pub(super) clock_offset_ms: AtomicI64,
    pub(super) positions: RwLock<Arc<Switches>>,
    pub(super) world: Mutex<World>,
}

impl Vendor {
    /// The emulator's time: the clock it was given, and what the control API added.
    pub(super) fn now(&self) -> Timestamp {
        let offset = self.clock_offset_ms.load(Ordering::SeqCst);
        Timestamp::from_millis(self.clock.now().as_millis().saturating_add(offset))
    }

    /// Moves the emulator's time, and nobody else's.
    pub(super) fn advance(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.clock_offset_ms.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets the emulator's time, and nobody else's.
    pub(super) fn set_clock(&self, to: Timestamp) {
        let offset = to.as_millis().saturating_sub(self.clock.now().as_millis());
        self.clock_offset_ms.store(offset, Ordering::SeqCst);
    }

    /// The switches as they stand.
    pub(super) fn switches(&self) -> Arc<Switches> {
        let positions = self.positions.read();
        Arc::clone(&positions.unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reports(&self) -> MutexGuard<'_, Vec<ErrorReport>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has hanging requests look again at switches and faults.
    pub(super) fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    pub(super) fn uuid(&self) -> Uuid {
        self.world().uuid()
    }

    /// A confirmation token: as SNS's, a long line of hexadecimal digits.
    pub(super) fn token(&self) -> String {
        let mut world = self.world();
        (0..8).map(|_| world.uuid().simple().to_string()).collect()
    }
}
