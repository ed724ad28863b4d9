//! The steps of a worker: the deliveries under one lease, and the loop that decides when to take one.
//!
//! A step keeps its lease as long as there is something to deliver, and asks for more versions
//! while others are in flight. All state is in rows, so a step may run on any replica, twice, and
//! after a crash: a version that a destination accepted without our storing it is delivered again
//! under the same key.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, error};

use super::worker::DestinationWorker;
use crate::backoff;
use crate::domain::{Feed, Timestamp};
use crate::store::{
    Attempt, Continued, Delivery, DeliveryLease, DeliveryLeased, DeliveryOutcome, LeaseAction,
    NothingDue, StoreError,
};

/// Limits of the versions that are read ahead, and of the outcomes that are stored together:
/// their number, and the bytes of their JSON.
const MAX_BATCH: usize = 1024;
const MAX_BATCH_BYTES: usize = 8 << 20;

/// Fewest versions that are read ahead.
const MIN_BATCH: usize = 8;

/// Time for which versions are read ahead. After it they are chosen again, so that a new lane
/// begins at once.
const READ_AHEAD: Duration = Duration::from_millis(500);

/// Longest time that an outcome waits for others to be stored with it, so that a fast
/// destination does not wait for a commit at each document.
const MAX_BATCH_DELAY: Duration = Duration::from_millis(20);

/// Time after the last outcomes in which rows are read again, which others may have changed.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Longest time between two reads of the rows.
const MAX_IDLE: Duration = Duration::from_secs(30);

/// Time for which history gathers that is held: a first pull stores page after page of it.
const HISTORY_PAUSE: Duration = Duration::from_millis(100);

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
    Nothing(NothingDue),
}

impl DestinationWorker {
    /// Leases the destination and delivers until nothing more is due. Once `stop` is canceled,
    /// deliveries in flight are finished and no further one is started.
    ///
    /// While the store fails, no further one is started either, and outcomes are kept until they are
    /// stored.
    ///
    /// # Errors
    ///
    /// Fails only if the store does before anything is leased, or once `stop` is canceled; the
    /// destination's errors are stored in its row.
    pub async fn step(&self, stop: &CancellationToken) -> Result<StepOutcome, StoreError> {
        let (outcome, _) = self.deliver_all(&mut self.store.arrivals(), stop).await?;
        Ok(outcome)
    }

    /// Delivers as [`DestinationWorker::step`]; returns also what is known of the next step, if nothing
    /// can be delivered any more. Marks the arrivals that it has looked at.
    async fn deliver_all(
        &self,
        arrivals: &mut Arrivals,
        stop: &CancellationToken,
    ) -> Result<(StepOutcome, Option<NothingDue>), StoreError> {
        // Measured before the request, since the lease begins some time after it.
        let requested_at = self.present();
        arrivals.mark_unchanged();
        let lease = match self
            .store
            .lease_deliveries(self.request(MIN_BATCH.max(2 * self.places()), MAX_BATCH_BYTES))
            .await?
        {
            DeliveryLeased::Batch(lease) => lease,
            DeliveryLeased::Advanced => return Ok((StepOutcome::Passed, None)),
            DeliveryLeased::Nothing(nothing) => {
                return Ok((StepOutcome::Nothing(nothing), Some(nothing)));
            }
        };
        let session = Session::new(self, lease, arrivals, requested_at);
        match session.run(stop).await {
            Err(StoreError::StaleLease) => {
                let destination = &self.name;
                debug!(%destination, "another worker took over the lease on destination `{destination}`");
                Ok((StepOutcome::Stale, None))
            }
            other => other,
        }
    }

    fn present(&self) -> Present {
        Present {
            instant: Instant::now(),
            time: self.clock.now(),
        }
    }

    async fn idle(
        &self,
        until: Option<Timestamp>,
        arrivals: &mut Arrivals,
        shutdown: &CancellationToken,
    ) {
        let until = until.map(|until| until.since(self.clock.now()));
        tokio::select! {
            () = tokio::time::sleep(until.unwrap_or(MAX_IDLE).min(MAX_IDLE)) => {}
            _ = arrivals.changed() => {}
            () = shutdown.cancelled() => {}
        }
    }
}

/// A watch that changes when there may be more to deliver.
type Arrivals = watch::Receiver<()>;

/// A moment by both clocks. The one that is never set stands still while the machine is suspended.
#[derive(Clone, Copy)]
struct Present {
    instant: Instant,
    time: Timestamp,
}

impl Present {
    /// Returns the time since an earlier moment, by the clock that shows more.
    fn since(self, earlier: Self) -> Duration {
        let by_instant = self.instant.duration_since(earlier.instant);
        by_instant.max(self.time.since(earlier.time))
    }
}

/// An attempt in flight.
type InFlight<'w> = Pin<Box<dyn Future<Output = Attempt> + Send + 'w>>;

/// A change of the store under way.
type Storing<'w> = Pin<Box<dyn Future<Output = Result<Continued, StoreError>> + Send + 'w>>;

/// What identifies a document.
type DocumentKey = (Feed, String);

fn key_of(delivery: &Delivery) -> DocumentKey {
    (delivery.feed.clone(), delivery.document_id.clone())
}

fn is_version_of(delivery: &Delivery, (feed, document_id): &DocumentKey) -> bool {
    delivery.document_id == *document_id && delivery.feed == *feed
}

/// The deliveries under one lease.
struct Session<'w> {
    worker: &'w DestinationWorker,
    lease: DeliveryLease,
    /// Changed since the rows were last read, if they are to be read again.
    arrivals: &'w mut Arrivals,
    /// Versions that may be started, in order, until [`Session::choose_after`].
    ready: VecDeque<Delivery>,
    in_flight: FuturesUnordered<InFlight<'w>>,
    /// The documents in flight, by the version's sequence number.
    documents: HashMap<i64, DocumentKey>,
    /// Those whose attempts ended since the change of the store under way began: what it chooses
    /// of them does not know how they ended.
    ended: HashSet<DocumentKey>,
    /// Feeds of which ready versions were dropped since then: what it chooses would overtake them, or its
    /// lane may be paused.
    dropped: HashSet<Feed>,
    /// Attempts that are not stored, nor being stored.
    attempts: Vec<Attempt>,
    /// Those that are being stored, as far as they are kept until then, and the number of all.
    being_stored: Vec<Attempt>,
    taken: usize,
    storing: Option<Storing<'w>>,
    /// The number of changes of the store that have failed in a row, and when it is tried again.
    store_errors: u32,
    store_again_at: Instant,
    last_stored_at: Instant,
    /// When the versions that were read ahead are chosen again.
    choose_after: Instant,
    /// True if those that are chosen now come after the ready ones, else instead of them.
    adds: bool,
    /// Attempts stored in all, and since versions were last chosen.
    stored: usize,
    since_chosen: usize,
    /// True if there may be more to deliver than was read.
    more: bool,
    /// False once a person has paused the destination, or an attempt found it closed.
    may_continue: bool,
    /// True if an attempt has failed since a change of the store began: what that chooses may
    /// not be started.
    has_failed: bool,
    /// True if a version was rejected since then: its outcome is stored before its lane goes on.
    is_rejected: bool,
    /// The error of the last attempt, if it failed.
    error: Option<String>,
    /// When the lease was last seen to be ours, or a little earlier.
    owned_at: Present,
    /// When the change of the store under way was requested.
    requested_at: Present,
}

impl<'w> Session<'w> {
    fn new(
        worker: &'w DestinationWorker,
        mut lease: DeliveryLease,
        arrivals: &'w mut Arrivals,
        requested_at: Present,
    ) -> Self {
        let ready = VecDeque::from(std::mem::take(&mut lease.deliveries));
        let more = lease.more;
        Self {
            worker,
            lease,
            arrivals,
            ready,
            in_flight: FuturesUnordered::new(),
            documents: HashMap::new(),
            ended: HashSet::new(),
            dropped: HashSet::new(),
            attempts: Vec::new(),
            being_stored: Vec::new(),
            taken: 0,
            storing: None,
            store_errors: 0,
            store_again_at: requested_at.instant,
            last_stored_at: requested_at.instant,
            choose_after: Instant::now() + READ_AHEAD,
            adds: false,
            stored: 0,
            since_chosen: 0,
            more,
            may_continue: true,
            has_failed: false,
            is_rejected: false,
            error: None,
            owned_at: requested_at,
            requested_at,
        }
    }

    async fn run(
        mut self,
        stop: &CancellationToken,
    ) -> Result<(StepOutcome, Option<NothingDue>), StoreError> {
        loop {
            let may_start = self.may_continue && !stop.is_cancelled() && self.store_errors == 0;
            if !may_start {
                self.ready.clear();
            } else if Instant::now() < self.choose_after {
                self.start();
            } else if self.storing.is_none() && !self.ready.is_empty() {
                // A person may have erased or skipped them since, or paused the destination.
                self.ready.clear();
                self.more = true;
            }
            if self.storing.is_none() && self.should_store(may_start) {
                self.begin_storing();
            }
            let is_waiting = self.waits_for_store() && !stop.is_cancelled();
            if self.storing.is_none() && self.in_flight.is_empty() && !is_waiting {
                match self.release().await {
                    Err(error) if Self::keeps(&error) && !stop.is_cancelled() => {
                        self.put_back(&error);
                        continue;
                    }
                    released => return released.map(|()| (self.outcome(), None)),
                }
            }
            let renewal = self.last_stored_at + self.worker.lease_margin / 2;
            let has_place = may_start && self.in_flight.len() < self.worker.places();
            let next_look = if self.waits_for_store() {
                self.store_again_at
            } else if !self.attempts.is_empty() {
                self.last_stored_at + MAX_BATCH_DELAY
            } else if has_place {
                renewal.min(self.choose_after.max(self.last_stored_at + READ_AGAIN))
            } else {
                renewal
            };
            tokio::select! {
                Some(attempt) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    self.record(attempt);
                }
                continued = poll(&mut self.storing), if self.storing.is_some() => {
                    self.storing = None;
                    let continued = match continued {
                        Err(error) if Self::keeps(&error) => {
                            self.put_back(&error);
                            continue;
                        }
                        continued => continued?,
                    };
                    self.store_errors = 0;
                    self.stored += self.taken;
                    if continued.ended.is_some() {
                        // Something may have arrived meanwhile.
                        return Ok((self.outcome(), continued.ended.filter(|_| !self.more)));
                    }
                    self.apply(continued);
                }
                () = tokio::time::sleep_until(next_look), if self.storing.is_none() => {
                    self.more |= has_place;
                }
                Ok(()) = self.arrivals.changed(), if has_place => self.more = true,
                () = stop.cancelled(), if !stop.is_cancelled() => {}
            }
        }
    }

    /// Returns true if the outcomes are still to be stored after this error of the store.
    fn keeps(error: &StoreError) -> bool {
        !matches!(error, StoreError::StaleLease | StoreError::Closed)
    }

    /// Returns true if the store has failed, and is not to be tried again yet.
    fn waits_for_store(&self) -> bool {
        self.store_errors > 0 && Instant::now() < self.store_again_at
    }

    /// Takes back the attempts that could not be stored. Those without an answer that counts are chosen
    /// again.
    fn put_back(&mut self, error: &StoreError) {
        let pause = backoff::STORE.delay(self.store_errors, backoff::jitter());
        self.store_errors += 1;
        self.store_again_at = Instant::now() + pause;
        let destination = &self.worker.name;
        error!(%destination, %error, "delivery to destination `{destination}` failed on a store error; retrying in {pause:.1?}: {error}");
        let mut attempts = std::mem::take(&mut self.being_stored);
        attempts.append(&mut self.attempts);
        self.attempts = attempts;
        self.ready.clear();
        self.more = true;
    }

    /// Takes the attempts to store them. A copy is kept of those with an answer of the destination: if it is only
    /// the store's answer that is lost, what was listed would be listed twice, and a link requested twice.
    fn take_attempts(&mut self) -> Vec<Attempt> {
        let attempts = std::mem::take(&mut self.attempts);
        let is_answer = |one: &&Attempt| {
            !matches!(
                one.outcome,
                DeliveryOutcome::Listed
                    | DeliveryOutcome::Filtered { .. }
                    | DeliveryOutcome::LinkExpired
            )
        };
        self.being_stored = attempts.iter().filter(is_answer).cloned().collect();
        self.taken = attempts.len();
        attempts
    }

    /// Returns true if a delivery that starts now reaches its timeout before the lease ends: this
    /// process, or its machine, may have been suspended and replaced.
    fn is_safe(&self) -> bool {
        self.worker.present().since(self.owned_at) < self.worker.lease_margin
    }

    /// Starts versions while there are places. One whose document is in flight waits.
    fn start(&mut self) {
        let places = self.worker.places();
        let mut index = 0;
        while self.in_flight.len() < places && index < self.ready.len() {
            if !self.is_safe() {
                return;
            }
            let delivery = &self.ready[index];
            let key = key_of(delivery);
            if self.documents.values().any(|one| *one == key) {
                index += 1;
                continue;
            }
            let Some(delivery) = self.ready.remove(index) else {
                return;
            };
            self.documents.insert(delivery.sequence, key);
            let span = self.worker.span(&delivery);
            let attempt = self.worker.attempt(delivery).instrument(span);
            self.in_flight.push(Box::pin(attempt));
        }
    }

    fn record(&mut self, attempt: Attempt) {
        let key = self.documents.remove(&attempt.sequence);
        let feed = key.as_ref().map(|(feed, _)| feed.clone());
        if let Some(key) = key {
            // A later version was chosen without the note that this attempt may have left. It is chosen
            // again, and with it what follows in its feed.
            let mut drops = false;
            self.ready.retain(|one| {
                drops |= is_version_of(one, &key);
                !drops || one.feed != key.0
            });
            if drops {
                self.more = true;
                self.dropped.insert(key.0.clone());
            }
            self.ended.insert(key);
        }
        self.error = None;
        match &attempt.outcome {
            DeliveryOutcome::Unavailable { error, .. } | DeliveryOutcome::Closed { error } => {
                self.error = Some(error.clone());
                self.has_failed = true;
                // The store decides what may go on.
                self.ready.clear();
                self.more = true;
            }
            // The store decides whether its lane is paused.
            DeliveryOutcome::Rejected { .. } => {
                self.is_rejected = true;
                if let Some(feed) = feed {
                    self.ready.retain(|one| one.feed != feed);
                    self.dropped.insert(feed);
                    self.more = true;
                }
            }
            _ => {}
        }
        self.attempts.push(attempt);
    }

    /// Returns true if outcomes are to be stored, or versions to be chosen, now.
    fn should_store(&self, may_start: bool) -> bool {
        if self.store_errors > 0 {
            return !self.waits_for_store();
        }
        let now = Instant::now();
        let has_waited = now >= self.last_stored_at + MAX_BATCH_DELAY;
        let stores = !self.attempts.is_empty()
            && (self.has_failed
                || self.is_rejected
                || has_waited
                || self.attempts.len() >= MAX_BATCH
                || self.in_flight.is_empty());
        let has_place = self.in_flight.len() < self.worker.places();
        let is_old = now >= self.choose_after;
        let renews = now >= self.last_stored_at + self.worker.lease_margin / 2 || !self.is_safe();
        let chooses = may_start && has_place && self.more && (self.ready.is_empty() || is_old);
        stores || chooses || (renews && !self.in_flight.is_empty())
    }

    /// Stores the outcomes and chooses what comes next: in place of the ready ones if they are old, else
    /// after them, unless more than half of what is read ahead is still ready.
    fn begin_storing(&mut self) {
        let attempts = self.take_attempts();
        self.since_chosen += self.taken;
        self.has_failed = false;
        self.is_rejected = false;
        self.ended.clear();
        self.dropped.clear();
        let worker = self.worker;
        let least = MIN_BATCH.max(2 * worker.places());
        let mut limit = (4 * self.since_chosen).clamp(least, MAX_BATCH.max(least));
        let mut taken: Vec<i64> = self.documents.keys().copied().collect();
        self.requested_at = worker.present();
        self.last_stored_at = self.requested_at.instant;
        self.adds = !self.ready.is_empty() && self.requested_at.instant < self.choose_after;
        if taken.is_empty() && !self.adds {
            // They are chosen again, and must not start under a lease that ends if there are none.
            self.ready.clear();
        }
        let mut bytes = 0;
        if self.adds {
            taken.extend(self.ready.iter().map(|one| one.sequence));
            bytes = self.ready.iter().map(|one| one.body.len()).sum();
            let is_enough = self.ready.len() > limit / 2 || bytes > MAX_BATCH_BYTES / 2;
            limit = if is_enough {
                0
            } else {
                limit - self.ready.len()
            };
        }
        if limit > 0 {
            self.arrivals.mark_unchanged();
            self.more = false;
            self.since_chosen = 0;
        }
        let (lease, request) = (
            self.lease.clone(),
            worker.request(limit, MAX_BATCH_BYTES.saturating_sub(bytes)),
        );
        self.storing = Some(Box::pin(async move {
            let store = &worker.store;
            store
                .continue_deliveries(lease, attempts, taken, request)
                .await
        }));
    }

    fn apply(&mut self, continued: Continued) {
        self.owned_at = self.requested_at;
        self.may_continue = continued.may_continue;
        self.more |= continued.more;
        if self.has_failed {
            return;
        }
        // Meanwhile some may have been started, or even ended.
        let known: HashSet<i64> = self
            .documents
            .keys()
            .copied()
            .chain(self.attempts.iter().map(|one| one.sequence))
            .collect();
        if !self.adds {
            self.ready.clear();
            self.choose_after = Instant::now() + READ_AHEAD;
        }
        for one in continued.deliveries {
            if known.contains(&one.sequence) {
                continue;
            }
            if self.ended.contains(&key_of(&one)) {
                self.dropped.insert(one.feed.clone());
            }
            if !self.dropped.contains(&one.feed) {
                self.ready.push_back(one);
            }
        }
    }

    /// Stores the outcomes and releases the lease.
    async fn release(&mut self) -> Result<(), StoreError> {
        let attempts = self.take_attempts();
        let (store, now) = (&self.worker.store, self.worker.clock.now());
        store
            .settle_deliveries(self.lease.clone(), attempts, LeaseAction::Release, now)
            .await?;
        self.stored += self.taken;
        Ok(())
    }

    /// Returns the result of the step.
    fn outcome(&self) -> StepOutcome {
        match &self.error {
            Some(error) => StepOutcome::Waiting {
                error: error.clone(),
            },
            None => StepOutcome::Settled(self.stored),
        }
    }
}

/// Waits for a change of the store; forever if there is none.
async fn poll(storing: &mut Option<Storing<'_>>) -> Result<Continued, StoreError> {
    match storing {
        Some(storing) => storing.await,
        None => std::future::pending().await,
    }
}

/// Delivers documents to the destination until `shutdown`; deliveries in flight are finished first.
pub async fn run(worker: Arc<DestinationWorker>, shutdown: CancellationToken) {
    // Subscribed before the first step, so that no arrival is missed.
    let mut arrivals = worker.store.arrivals();
    while !shutdown.is_cancelled() {
        match worker.deliver_all(&mut arrivals, &shutdown).await {
            Ok((_, Some(NothingDue { until, held }))) => {
                if held {
                    shutdown
                        .run_until_cancelled(tokio::time::sleep(HISTORY_PAUSE))
                        .await;
                }
                worker.idle(until, &mut arrivals, &shutdown).await;
            }
            // The next step may read from the row how long to wait.
            Ok((_, None)) => {}
            Err(error) => {
                let destination = &worker.name;
                let pause = backoff::STORE.longest;
                error!(%destination, %error, "delivery to destination `{destination}` failed on a store error; retrying in {pause:?}: {error}");
                shutdown
                    .run_until_cancelled(tokio::time::sleep(pause))
                    .await;
            }
        }
    }
}
