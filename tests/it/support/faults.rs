//! Faults that tests plant in a store.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ivesk_webhook::store::{Hooks, Step, StoreError};
use tokio::sync::Semaphore;

/// Fault of the next steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Every step fails.
    Down,
    /// The queue is full.
    QueueFull,
    /// The disk is full: reads work.
    DiskFull,
    /// The writer has ended: reads work.
    Closed,
    /// Commits work, but their answers are lost.
    AnswerLost,
    /// Storing a message panics.
    Panic,
    /// Reads are not answered.
    ReadsHang,
}

/// Holds messages and lets steps fail.
pub(crate) struct Faults {
    fault: Mutex<Option<Fault>>,
    free_bytes: Mutex<Option<u64>>,
    gate: Semaphore,
    waiting: Semaphore,
    probe_gate: Semaphore,
    write_gate: Semaphore,
    accepts: AtomicUsize,
    probes: AtomicUsize,
    writes: AtomicUsize,
}

const OPEN: usize = 1 << 20;

impl Faults {
    pub(crate) fn none() -> Arc<Self> {
        Arc::new(Self {
            fault: Mutex::new(None),
            free_bytes: Mutex::new(None),
            gate: Semaphore::new(OPEN),
            waiting: Semaphore::new(0),
            probe_gate: Semaphore::new(OPEN),
            write_gate: Semaphore::new(OPEN),
            accepts: AtomicUsize::new(0),
            probes: AtomicUsize::new(0),
            writes: AtomicUsize::new(0),
        })
    }

    pub(crate) fn set(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
    }

    pub(crate) fn set_free_bytes(&self, bytes: u64) {
        *self.free_bytes.lock().unwrap() = Some(bytes);
    }

    /// Holds messages before their commit until [`Faults::release`].
    pub(crate) fn hold(&self) {
        self.gate.forget_permits(OPEN);
    }

    pub(crate) fn release(&self) {
        self.gate.add_permits(OPEN);
    }

    /// Waits until `count` messages are held.
    pub(crate) async fn until_waiting(&self, count: u32) {
        self.waiting.acquire_many(count).await.unwrap().forget();
    }

    /// Holds probes until [`Faults::release_probes`].
    pub(crate) fn hold_probes(&self) {
        self.probe_gate.forget_permits(OPEN);
    }

    pub(crate) fn release_probes(&self) {
        self.probe_gate.add_permits(OPEN);
    }

    /// Holds operations that write, apart from messages, until [`Faults::release_writes`].
    pub(crate) fn hold_writes(&self) {
        self.write_gate.forget_permits(OPEN);
    }

    pub(crate) fn release_writes(&self) {
        self.write_gate.add_permits(OPEN);
    }

    /// Returns the number of probes.
    pub(crate) fn probes(&self) -> usize {
        self.probes.load(Ordering::SeqCst)
    }

    /// Returns the number of messages that reached the store.
    pub(crate) fn accepts(&self) -> usize {
        self.accepts.load(Ordering::SeqCst)
    }

    /// Returns the number of operations that write, apart from messages.
    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    fn outcome(&self, step: Step) -> Result<(), StoreError> {
        let fault = *self.fault.lock().unwrap();
        let planted = |what: &str| Err(StoreError::Database(format!("planted: {what}")));
        match (fault, step) {
            (Some(Fault::Down), _) => planted("down"),
            (Some(Fault::AnswerLost), Step::Accepted | Step::Written) => planted("answer lost"),
            (Some(Fault::QueueFull), Step::Accept) => Err(StoreError::QueueFull),
            (Some(Fault::Panic), Step::Accept) => panic!("planted"),
            (Some(Fault::Closed), Step::Accept | Step::Probe) => Err(StoreError::Closed),
            (Some(Fault::DiskFull), Step::Accept | Step::Probe) => Err(StoreError::DiskFull {
                path: PathBuf::from("planted.db"),
            }),
            _ => Ok(()),
        }
    }
}

impl Hooks for Faults {
    fn before(
        &self,
        step: Step,
    ) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + '_>> {
        Box::pin(async move {
            if step == Step::Accept {
                self.accepts.fetch_add(1, Ordering::SeqCst);
                self.waiting.add_permits(1);
                let _pass = self.gate.acquire().await.unwrap();
            }
            if step == Step::Probe {
                self.probes.fetch_add(1, Ordering::SeqCst);
                let _pass = self.probe_gate.acquire().await.unwrap();
            }
            if step == Step::Write {
                self.writes.fetch_add(1, Ordering::SeqCst);
                let _pass = self.write_gate.acquire().await.unwrap();
            }
            let fault = *self.fault.lock().unwrap();
            if (fault, step) == (Some(Fault::ReadsHang), Step::Read) {
                std::future::pending::<()>().await;
            }
            self.outcome(step)
        })
    }

    fn free_bytes(&self) -> Option<u64> {
        *self.free_bytes.lock().unwrap()
    }
}
