//! The state of the emulated SNS: certificates, subscriptions, deliveries.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, watch};
use uuid::Uuid;

use crate::delivery_record::{AttemptTotals, DeliveryRecord, Outcome};
use crate::signer::Signer;
use crate::subscription::Subscription;
use sns_messages::http;

/// `User-Agent` of requests; deliveries carry SNS's own.
const USER_AGENT: &str = concat!("ivesk-emulator/", env!("CARGO_PKG_VERSION"));
/// Number of deliveries that are remembered.
const RECORDS: usize = 200_000;

#[derive(Default)]
pub(crate) struct Book {
    pub(crate) subscriptions: Vec<Subscription>,
    records: VecDeque<DeliveryRecord>,
    /// Number of the oldest record.
    first: u64,
    pub(crate) lose_next: usize,
}

/// Topics, subscriptions and deliveries.
pub(crate) struct Ledger {
    signers: Mutex<Vec<Arc<Signer>>>,
    book: Mutex<Book>,
    pending: watch::Sender<usize>,
    /// Raised after the attempt's record was changed.
    pub(crate) totals: watch::Sender<AttemptTotals>,
    permits: Arc<Semaphore>,
    /// Raised to retry every waiting delivery at once.
    pub(crate) retry_now: watch::Sender<u64>,
    pub(crate) client: reqwest::Client,
}

/// One delivery that has not settled; counted until it is dropped.
pub(crate) struct Pending(watch::Sender<usize>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.send_modify(|pending| *pending -= 1);
    }
}

impl Ledger {
    pub(crate) fn new(signer: Arc<Signer>, concurrency: usize) -> Result<Self, http::SetupError> {
        Ok(Self {
            signers: Mutex::new(vec![signer]),
            book: Mutex::default(),
            pending: watch::Sender::new(0),
            totals: watch::Sender::new(AttemptTotals::default()),
            permits: Arc::new(Semaphore::new(concurrency.clamp(1, 10_000))),
            retry_now: watch::Sender::new(0),
            // Each request sets its own time limit.
            client: http::client(USER_AGENT, None, Duration::from_secs(3600))?,
        })
    }

    pub(crate) fn pending(&self) -> Pending {
        self.pending.send_modify(|pending| *pending += 1);
        Pending(self.pending.clone())
    }

    pub(crate) async fn permit(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        Arc::clone(&self.permits).acquire_owned().await
    }

    /// Waits until no delivery is pending.
    pub(crate) async fn idle(&self) {
        // An error would mean that the sender is gone, and it is ours.
        let _ = self
            .pending
            .subscribe()
            .wait_for(|pending| *pending == 0)
            .await;
    }

    /// Signs with `signer` from now on; older certificates are served as before.
    pub(crate) fn rotate(&self, signer: Arc<Signer>) {
        self.signers().push(signer);
    }

    pub(crate) fn signer(&self) -> Arc<Signer> {
        let signers = self.signers();
        Arc::clone(signers.last().expect("made with one, never emptied"))
    }

    /// Returns the certificate that is served at `path`.
    pub(crate) fn certificate(&self, path: &str) -> Option<String> {
        let signers = self.signers();
        let signer = signers.iter().find(|s| s.certificate_path() == path)?;
        Some(signer.certificate_pem().to_owned())
    }

    /// Returns the path of the present certificate.
    pub(crate) fn certificate_path(&self) -> String {
        self.signer().certificate_path()
    }

    pub(crate) fn subscriptions(&self) -> Vec<Subscription> {
        self.book().subscriptions.clone()
    }

    pub(crate) fn has_subscribers(&self, topic_arn: &str, account: Uuid) -> bool {
        self.book()
            .subscriptions
            .iter()
            .any(|subscription| subscription.receives(topic_arn, account))
    }

    pub(crate) fn records(&self) -> Vec<DeliveryRecord> {
        self.book().records.iter().cloned().collect()
    }

    pub(crate) fn forget_records(&self) {
        let mut book = self.book();
        book.first += book.records.len() as u64;
        book.records.clear();
    }

    pub(crate) fn lose_next(&self, count: usize) {
        self.book().lose_next = count;
    }

    /// Records an attempt's outcome.
    pub(crate) fn attempted(&self, number: u64, status: Option<u16>, outcome: Outcome) {
        let mut book = self.book();
        let index = number.checked_sub(book.first);
        let index = index.and_then(|index| usize::try_from(index).ok());
        if let Some(record) = index.and_then(|index| book.records.get_mut(index)) {
            record.attempts += 1;
            record.last_status = status;
            record.outcome = outcome;
        }
        drop(book);
        self.totals
            .send_modify(|totals| totals.count(status, outcome));
    }

    pub(crate) fn record(&self, record: DeliveryRecord) -> u64 {
        let mut book = self.book();
        if book.records.len() == RECORDS {
            book.records.pop_front();
            book.first += 1;
        }
        book.records.push_back(record);
        book.first + book.records.len() as u64 - 1
    }

    fn signers(&self) -> MutexGuard<'_, Vec<Arc<Signer>>> {
        self.signers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
