//! Delivers documents to one destination: one step, and a loop that decides when to run it.
//!
//! All state is in rows, so a step may run on any replica, twice, and after a crash: a
//! version that a destination accepted without our storing it is delivered again under the
//! same key.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, debug, debug_span, error, info, warn};

use super::destination::{Destination, DestinationResponse};
use super::texts;
use crate::backoff;
use crate::config::{Config, DestinationConfig, DestinationKind, HistoryMode, ImportErrorsConfig};
use crate::domain::{Clock, Company, DestinationName, Feed, Queue, Timestamp};
use crate::ivesk::Entry;
use crate::store::{
    Attempt, Delivery, DeliveryLease, DeliveryLeaseRequest, DeliveryLeased, DeliveryOutcome,
    DestinationFilter, LeaseAction, NewImportError, SharedStore, StoreError,
};

/// Limits of one lease: versions, and bytes of their JSON.
const MAX_BATCH: usize = 32;
const MAX_BATCH_BYTES: usize = 8 << 20;

/// Longest time that an outcome waits for others to be stored with it, so that a fast
/// destination does not wait for a commit at each document.
const MAX_BATCH_DELAY: Duration = Duration::from_millis(20);

/// Interval at which replicas read rows that others may have changed.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Longest time between two reads of the rows.
const MAX_IDLE: Duration = Duration::from_secs(30);

/// Pause after a store error.
const STORE_ERROR_DELAY: Duration = Duration::from_secs(5);

/// The result of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// This number of versions was settled.
    Settled(usize),
    /// The destination is unavailable or closed.
    Waiting {
        /// The error. Contains no secrets.
        error: String,
    },
    /// No version that was read is for this destination; there may be more.
    Passed,
    /// Another worker holds the lease; it repeats what was not stored here.
    Stale,
    /// Nothing may be delivered now.
    Nothing {
        /// Latest time of the next step, if known.
        until: Option<Timestamp>,
    },
}

/// Returns the filter that a destination's settings describe.
pub fn filter(config: &DestinationConfig) -> DestinationFilter {
    DestinationFilter {
        queue: config.queue,
        accounts: config.accounts.clone(),
        companies: config.companies.clone(),
    }
}

/// Returns the configured destinations with their filters.
pub fn configured_destinations(config: &Config) -> Vec<(DestinationName, DestinationFilter)> {
    let destinations = config.destinations.iter();
    destinations
        .map(|(name, destination)| (name.clone(), filter(destination)))
        .collect()
}

/// Delivers documents to one destination.
pub struct DestinationWorker {
    name: DestinationName,
    config: DestinationConfig,
    /// `None` if a program fetches the documents itself.
    destination: Option<Box<dyn Destination>>,
    import_errors: ImportErrorsConfig,
    store: SharedStore,
    clock: Clock,
    lease_margin: Duration,
}

impl DestinationWorker {
    /// Creates a worker for the destination `name`.
    ///
    /// `destination` is `None` if a program fetches the documents itself: the worker then
    /// appends them to its list. `lease_margin` is the time that leases hold beyond the
    /// destination's timeout: a destination waits at most this long for a replica that died.
    pub fn new(
        name: DestinationName,
        config: DestinationConfig,
        destination: Option<Box<dyn Destination>>,
        import_errors: ImportErrorsConfig,
        store: SharedStore,
        clock: Clock,
        lease_margin: Duration,
    ) -> Self {
        Self {
            name,
            config,
            destination,
            import_errors,
            store,
            clock,
            lease_margin,
        }
    }

    fn request(&self) -> DeliveryLeaseRequest {
        DeliveryLeaseRequest {
            destination: self.name.clone(),
            filter: filter(&self.config),
            deliver_history: self.config.history == HistoryMode::Deliver,
            files: matches!(
                self.config.kind,
                DestinationKind::Folder { files: true, .. }
            ),
            now: self.clock.now(),
            lease: self.lease(),
            limit: MAX_BATCH,
            limit_bytes: MAX_BATCH_BYTES,
        }
    }

    /// Returns the length of a lease. It is renewed at least after each document, so it must
    /// outlast one.
    fn lease(&self) -> Duration {
        self.config.timeout + self.lease_margin
    }

    /// Leases the destination and delivers the next batch. Once `stop` is canceled, deliveries in
    /// flight are finished and no further one is started.
    ///
    /// # Errors
    ///
    /// Fails only if the store does; the destination's errors are stored in its row.
    pub async fn step(&self, stop: &CancellationToken) -> Result<StepOutcome, StoreError> {
        // Measured before the request, since the lease begins some time after it.
        let requested_at = Instant::now();
        let lease = match self.store.lease_deliveries(self.request()).await? {
            DeliveryLeased::Batch(lease) => lease,
            DeliveryLeased::Advanced => return Ok(StepOutcome::Passed),
            DeliveryLeased::Nothing { until } => return Ok(StepOutcome::Nothing { until }),
        };
        match self.deliver(lease, requested_at, stop).await {
            Err(StoreError::StaleLease) => {
                let destination = &self.name;
                debug!(%destination, "another worker took over the lease on destination `{destination}`");
                Ok(StepOutcome::Stale)
            }
            other => other,
        }
    }

    async fn deliver(
        &self,
        mut lease: DeliveryLease,
        requested_at: Instant,
        stop: &CancellationToken,
    ) -> Result<StepOutcome, StoreError> {
        let deliveries = std::mem::take(&mut lease.deliveries);
        let mut batch = Batch::new(self, lease, requested_at);
        let (stop, halt) = (stop.clone(), CancellationToken::new());
        let (halted, safe_until) = (halt.clone(), Arc::clone(&batch.safe_until));
        let to_start = futures_util::stream::iter(deliveries).take_while(move |_| {
            // This process may have been suspended and replaced: an older version must not
            // follow a newer one that another worker has delivered since.
            let in_time =
                Instant::now() < *safe_until.lock().unwrap_or_else(PoisonError::into_inner);
            std::future::ready(in_time && !stop.is_cancelled() && !halted.is_cancelled())
        });
        let max_concurrency = self.config.max_concurrency.max(1);
        let results = to_start
            .map(|delivery| {
                let span = self.span(&delivery);
                self.attempt(delivery).instrument(span)
            })
            .buffered(max_concurrency);
        let mut results = std::pin::pin!(results);
        while let Some(result) = results.next().await {
            // Deliveries in flight are still recorded, but no further one is started.
            if !batch.record(result).await? {
                halt.cancel();
            }
        }
        batch.finish().await
    }

    fn span(&self, delivery: &Delivery) -> Span {
        debug_span!(
            "delivery",
            destination = %self.name,
            feed = %delivery.feed,
            document.id = %delivery.document_id,
            sequence = delivery.sequence,
        )
    }

    /// Delivers one document.
    async fn attempt(&self, delivery: Delivery) -> Result<Attempt, FailedAttempt> {
        let (sequence, began_at) = (delivery.sequence, self.clock.now());
        let failed = |error, retry_after, closed| FailedAttempt {
            sequence,
            began_at,
            error,
            retry_after,
            closed,
        };
        let outcome = if !self.includes_company(&delivery) {
            DeliveryOutcome::Filtered
        } else if let Some(destination) = &self.destination {
            match destination.deliver(&delivery).await {
                DestinationResponse::Accepted { note } => DeliveryOutcome::Delivered { note },
                DestinationResponse::Rejected { message } => {
                    let (message, import_error) = rejection(
                        &self.import_errors,
                        &delivery.feed,
                        &delivery.body,
                        &message,
                    );
                    DeliveryOutcome::Rejected {
                        message,
                        import_error,
                    }
                }
                DestinationResponse::LinkExpired => DeliveryOutcome::LinkExpired,
                DestinationResponse::Unavailable { error, retry_after } => {
                    return Err(failed(error, retry_after, false));
                }
                DestinationResponse::Closed { error } => return Err(failed(error, None, true)),
            }
        } else {
            DeliveryOutcome::Listed
        };
        self.log(&delivery, &outcome);
        Ok(Attempt {
            sequence,
            began_at,
            outcome,
        })
    }

    /// Returns true if the destination's filter includes the document's company. The digitized
    /// queue mixes companies, so there the document itself names them.
    fn includes_company(&self, delivery: &Delivery) -> bool {
        self.config.companies.is_empty()
            || delivery.feed.queue == Queue::Exported
            || companies(&delivery.body)
                .iter()
                .any(|company| self.config.companies.contains(company))
    }

    fn log(&self, delivery: &Delivery, outcome: &DeliveryOutcome) {
        let Delivery {
            document_id,
            sequence,
            feed,
            ..
        } = delivery;
        let destination = &self.name;
        match outcome {
            DeliveryOutcome::Delivered { .. } => {
                info!(%destination, %feed, document_id, sequence, "destination `{destination}` accepted document `{document_id}` of `{feed}`");
            }
            DeliveryOutcome::Rejected { message, .. } => {
                warn!(%destination, %feed, document_id, sequence, "destination `{destination}` rejected document `{document_id}` of `{feed}`: {message}");
            }
            DeliveryOutcome::Listed => {
                debug!(%destination, %feed, document_id, sequence, "listed document `{document_id}` of `{feed}` for destination `{destination}`");
            }
            DeliveryOutcome::Filtered => {
                debug!(%destination, %feed, document_id, sequence, "skipped document `{document_id}` of `{feed}`: destination `{destination}` includes none of its companies");
            }
            DeliveryOutcome::LinkExpired => {
                info!(%destination, %feed, document_id, sequence, "the link to the file of document `{document_id}` has expired; `{feed}` is pulled again for a new one");
            }
        }
    }

    async fn idle(
        &self,
        until: Option<Timestamp>,
        arrivals: &mut watch::Receiver<()>,
        shutdown: &CancellationToken,
    ) {
        let longest = if self.store.clock().is_some() {
            POLL_INTERVAL
        } else {
            MAX_IDLE
        };
        let pause = until.map_or(longest, |until| until.since(self.clock.now()).min(longest));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = arrivals.changed() => {}
            () = shutdown.cancelled() => {}
        }
    }
}

/// Returns the message to store for a rejected document of `feed`, and the import error to
/// send to the accountant.
pub fn rejection(
    import_errors: &ImportErrorsConfig,
    feed: &Feed,
    body: &[u8],
    message: &str,
) -> (String, NewImportError) {
    let import_error = NewImportError {
        company: company(feed, body),
        message: texts::import_error(import_errors, message),
    };
    (texts::sanitize(message), import_error)
}

/// Returns the company that a document belongs to.
fn company(feed: &Feed, body: &[u8]) -> Option<Company> {
    match feed.queue {
        Queue::Exported => Some(feed.company.clone()),
        Queue::Digitized => companies(body).into_iter().next(),
    }
}

fn companies(body: &[u8]) -> Vec<Company> {
    Entry::parse(body)
        .map(|entry| entry.companies())
        .unwrap_or_default()
}

/// An attempt that the destination was unavailable or closed for.
struct FailedAttempt {
    sequence: i64,
    began_at: Timestamp,
    error: String,
    retry_after: Option<Duration>,
    /// True if nothing is retried until a person resumes the destination.
    closed: bool,
}

impl FailedAttempt {
    fn log(&self, destination: &DestinationName, failures: u32, wait: Duration) {
        let Self {
            sequence, error, ..
        } = self;
        if self.closed {
            error!(%destination, sequence, "destination `{destination}` is closed; delivery paused at document {sequence}: {error}. Fix: run `ivesk-webhook destinations resume {destination}` once the destination accepts documents again");
        } else if failures == 0 {
            warn!(%destination, sequence, "destination `{destination}` is unavailable; delivery paused at document {sequence}, next attempt in {wait:?}: {error}");
        } else {
            debug!(%destination, sequence, failures, "destination `{destination}` is still unavailable, next attempt in {wait:?}: {error}");
        }
    }
}

/// Attempts made under one lease, and those that are not stored yet.
struct Batch<'w> {
    worker: &'w DestinationWorker,
    lease: DeliveryLease,
    attempts: Vec<Attempt>,
    stored: usize,
    last_stored_at: Instant,
    /// The first attempt that failed.
    failed: Option<FailedAttempt>,
    /// False once the lease is released or a person has paused the destination.
    may_continue: bool,
    /// Latest time to start a delivery, so that its timeout ends before the lease does.
    safe_until: Arc<Mutex<Instant>>,
}

impl<'w> Batch<'w> {
    fn new(worker: &'w DestinationWorker, lease: DeliveryLease, requested_at: Instant) -> Self {
        Self {
            worker,
            lease,
            attempts: Vec::new(),
            stored: 0,
            last_stored_at: Instant::now(),
            failed: None,
            may_continue: true,
            safe_until: Arc::new(Mutex::new(requested_at + worker.lease_margin)),
        }
    }

    /// Records one result; returns false if no further delivery may be started.
    async fn record(&mut self, result: Result<Attempt, FailedAttempt>) -> Result<bool, StoreError> {
        match result {
            Ok(attempt) => self.attempts.push(attempt),
            Err(failed) => {
                self.failed.get_or_insert(failed);
            }
        }
        let may_wait =
            self.last_stored_at.elapsed() < MAX_BATCH_DELAY && self.attempts.len() < MAX_BATCH;
        if self.failed.is_none() && !may_wait {
            let keep = LeaseAction::Keep(self.worker.lease());
            self.may_continue = self.store(keep).await?;
        }
        Ok(self.failed.is_none() && self.may_continue)
    }

    async fn store(&mut self, action: LeaseAction) -> Result<bool, StoreError> {
        let attempts = std::mem::take(&mut self.attempts);
        self.stored += attempts.len();
        let requested_at = Instant::now();
        self.last_stored_at = requested_at;
        let worker = self.worker;
        let may_continue = worker
            .store
            .settle_deliveries(self.lease.clone(), attempts, action, worker.clock.now())
            .await?;
        *self
            .safe_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = requested_at + worker.lease_margin;
        Ok(may_continue)
    }

    /// Stores the remaining attempts and releases the lease.
    async fn finish(mut self) -> Result<StepOutcome, StoreError> {
        let Some(failed) = self.failed.take() else {
            self.store(LeaseAction::Release).await?;
            return Ok(StepOutcome::Settled(self.stored));
        };
        let failures = if self.stored + self.attempts.len() > 0 {
            0
        } else {
            self.lease.failures
        };
        let backoff = backoff::DELIVERY.delay(failures, backoff::jitter());
        let wait = failed.retry_after.unwrap_or_default().max(backoff);
        failed.log(&self.worker.name, failures, wait);
        let until = (!failed.closed).then(|| self.worker.clock.now().after(wait));
        let error = failed.error.clone();
        self.store(LeaseAction::Wait {
            sequence: failed.sequence,
            began_at: failed.began_at,
            error: failed.error,
            until,
        })
        .await?;
        Ok(StepOutcome::Waiting { error })
    }
}

/// Delivers documents to the destination until `shutdown`; deliveries in flight are finished first.
pub async fn run(worker: Arc<DestinationWorker>, shutdown: CancellationToken) {
    // Subscribed before the first step, so that no arrival is missed.
    let mut arrivals = worker.store.arrivals();
    while !shutdown.is_cancelled() {
        match worker.step(&shutdown).await {
            Ok(StepOutcome::Nothing { until }) => {
                worker.idle(until, &mut arrivals, &shutdown).await;
            }
            // The next step reads from the row how long to wait.
            Ok(StepOutcome::Waiting { .. } | StepOutcome::Stale) => {}
            Ok(StepOutcome::Settled(_) | StepOutcome::Passed) => {}
            Err(error) => {
                let destination = &worker.name;
                error!(%destination, %error, "delivery to destination `{destination}` failed on a store error; retrying in {STORE_ERROR_DELAY:?}: {error}");
                shutdown
                    .run_until_cancelled(tokio::time::sleep(STORE_ERROR_DELAY))
                    .await;
            }
        }
    }
}
