//! Giving documents to one destination: a step, and a loop that only decides when.
//!
//! What is to be done stands in rows, so a step may run anywhere, twice, and after a
//! crash: what a destination took and nobody noted comes again under the same key.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, debug, debug_span, error, info, warn};

use super::{Delivery, Destination, Verdict, texts};
use crate::config::{Config, DestinationConfig, DestinationKind, HistoryMode, ImportErrorsConfig};
use crate::domain::{Clock, Company, DestinationName, Feed, Queue, Timestamp};
use crate::egress;
use crate::ivesk;
use crate::store::{
    Attempt, DeliveryLease, DeliveryLeaseRequest, DeliveryLeased, DeliveryOutcome,
    DestinationFilter, LeaseAction, NewImportError, SharedStore, StoreError,
};

/// Versions that one lease takes at the most, and the bytes of their JSON.
const BATCH: usize = 32;
const BATCH_BYTES: usize = 8 << 20;

/// Outcomes are noted together for so long: a destination that is faster than a commit does not
/// wait for one at each document.
const TOGETHER: Duration = Duration::from_millis(20);

/// What a lease holds beyond the destination's own time limit, unless [`DestinationWorker::leased_for`] says
/// otherwise.
const LEASE_MARGIN: Duration = Duration::from_secs(60);

/// The wait after a first failure, and the longest one.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);

/// How often replicas look at rows that others may have changed.
const POLL: Duration = Duration::from_secs(1);

/// The longest that a worker sleeps without looking at the rows.
const IDLE: Duration = Duration::from_secs(30);

/// The pause after the store failed.
const AFTER_STORE_ERROR: Duration = Duration::from_secs(5);

/// What one step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// So many versions were settled.
    Settled(usize),
    /// The destination could take nothing more.
    Waits {
        /// Why; nothing secret.
        error: String,
    },
    /// Nothing was to be delivered among what was looked at; there may be more.
    Passed,
    /// Another worker holds the destination, and what was done here is done anew there.
    Stale,
    /// Nothing may be delivered now.
    Nothing {
        /// When to ask again at the latest, where that is known.
        until: Option<Timestamp>,
    },
}

/// Which documents a destination takes, as its settings say.
pub fn filter(config: &DestinationConfig) -> DestinationFilter {
    DestinationFilter {
        queue: config.queue,
        accounts: config.accounts.clone(),
        companies: config.companies.clone(),
    }
}

/// The destinations of the settings, and which documents each takes.
pub fn known(config: &Config) -> Vec<(DestinationName, DestinationFilter)> {
    let destinations = config.destinations.iter();
    destinations
        .map(|(name, destination)| (name.clone(), filter(destination)))
        .collect()
}

/// Gives one destination its documents.
pub struct DestinationWorker {
    name: DestinationName,
    config: DestinationConfig,
    /// None where a program asks for them itself.
    destination: Option<Box<dyn Destination>>,
    import_errors: ImportErrorsConfig,
    store: SharedStore,
    clock: Clock,
    lease_margin: Duration,
}

impl DestinationWorker {
    /// A worker for the destination `name`; `destination` is none where a program asks for documents
    /// itself, and then they are put into its list.
    pub fn new(
        name: DestinationName,
        config: DestinationConfig,
        destination: Option<Box<dyn Destination>>,
        import_errors: ImportErrorsConfig,
        store: SharedStore,
        clock: Clock,
    ) -> Self {
        Self {
            name,
            config,
            destination,
            import_errors,
            store,
            clock,
            lease_margin: LEASE_MARGIN,
        }
    }

    /// The same worker, whose leases hold for `margin` beyond the destination's own time limit:
    /// so long does a destination wait for a replica that died.
    #[must_use]
    pub fn leased_for(mut self, margin: Duration) -> Self {
        self.lease_margin = margin;
        self
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
            limit: BATCH,
            limit_bytes: BATCH_BYTES,
        }
    }

    /// Renewed at least after each document, so it has to outlast one.
    fn lease(&self) -> Duration {
        self.config.timeout + self.lease_margin
    }

    /// Leases the destination and gives it the next few documents. Where `stop` is canceled,
    /// what is in flight is finished and the rest is left.
    ///
    /// # Errors
    ///
    /// Only the store's; the destination's are noted in the rows.
    pub async fn step(&self, stop: &CancellationToken) -> Result<StepOutcome, StoreError> {
        // Before the lease was asked for: it holds from some moment after.
        let asked = Instant::now();
        let lease = match self.store.lease_deliveries(self.request()).await? {
            DeliveryLeased::Batch(lease) => lease,
            DeliveryLeased::Advanced => return Ok(StepOutcome::Passed),
            DeliveryLeased::Nothing { until } => return Ok(StepOutcome::Nothing { until }),
        };
        match self.deliver(lease, asked, stop).await {
            Err(StoreError::StaleLease) => {
                debug!(destination = %self.name, "the lease on destination `{}` was taken over", self.name);
                Ok(StepOutcome::Stale)
            }
            other => other,
        }
    }

    async fn deliver(
        &self,
        mut lease: DeliveryLease,
        asked: Instant,
        stop: &CancellationToken,
    ) -> Result<StepOutcome, StoreError> {
        let items = std::mem::take(&mut lease.deliveries);
        let mut batch = Batch::new(self, lease, asked);
        let (going_on, halt) = (stop.clone(), CancellationToken::new());
        let (halted, safe_until) = (halt.clone(), Arc::clone(&batch.safe_until));
        let next = futures_util::stream::iter(items).take_while(move |_| {
            // A process that was stopped for a while may have been replaced: what another
            // worker has given in the meantime must not be followed by what is older.
            let in_time =
                Instant::now() < *safe_until.lock().unwrap_or_else(PoisonError::into_inner);
            std::future::ready(in_time && !going_on.is_cancelled() && !halted.is_cancelled())
        });
        let max_concurrency = self.config.max_concurrency.max(1);
        let verdicts = next
            .map(|item| {
                let span = self.span(&item);
                self.give(item).instrument(span)
            })
            .buffered(max_concurrency);
        let mut verdicts = std::pin::pin!(verdicts);
        while let Some(given) = verdicts.next().await {
            // What others in flight say still counts, but nothing more is begun.
            if !batch.take(given).await? {
                halt.cancel();
            }
        }
        batch.end().await
    }

    fn span(&self, item: &Delivery) -> Span {
        debug_span!(
            "delivery",
            destination = %self.name,
            feed = %item.feed,
            document.id = %item.document_id,
            sequence = item.sequence,
        )
    }

    /// Gives the destination one document.
    async fn give(&self, item: Delivery) -> Given {
        let began_at = self.clock.now();
        let answer = if !self.wants_company(&item) {
            Answer::NotAsked(DeliveryOutcome::Filtered)
        } else if let Some(destination) = &self.destination {
            Answer::Said(destination.deliver(&item).await)
        } else {
            Answer::NotAsked(DeliveryOutcome::Listed)
        };
        Given {
            item,
            began_at,
            answer,
        }
    }

    /// Whether the document is of a company that the destination takes. The digitized queue
    /// mixes companies, so there the document itself says so.
    fn wants_company(&self, item: &Delivery) -> bool {
        self.config.companies.is_empty()
            || item.feed.queue == Queue::Exported
            || ivesk::document::companies(&item.body)
                .iter()
                .any(|company| self.config.companies.contains(company))
    }

    fn outcome(&self, item: &Delivery, answer: Answer) -> Result<DeliveryOutcome, Refusal> {
        match answer {
            Answer::NotAsked(outcome) => Ok(outcome),
            Answer::Said(Verdict::Delivered { note }) => Ok(DeliveryOutcome::Delivered { note }),
            Answer::Said(Verdict::Rejected { message }) => {
                let (message, report) =
                    rejection(&self.import_errors, &item.feed, &item.body, &message);
                Ok(DeliveryOutcome::Rejected {
                    message,
                    import_error: report,
                })
            }
            Answer::Said(Verdict::LinkExpired) => Ok(DeliveryOutcome::LinkExpired),
            Answer::Said(Verdict::Unavailable { error, retry_after }) => Err(Refusal {
                error,
                retry_after,
                for_now: true,
            }),
            Answer::Said(Verdict::Closed { error }) => Err(Refusal {
                error,
                retry_after: None,
                for_now: false,
            }),
        }
    }

    fn tell(&self, item: &Delivery, outcome: &DeliveryOutcome) {
        let Delivery {
            document_id,
            sequence,
            feed,
            ..
        } = item;
        let destination = &self.name;
        match outcome {
            DeliveryOutcome::Delivered { .. } => {
                info!(%destination, %feed, document_id, sequence, "destination `{destination}` took document `{document_id}` of `{feed}`");
            }
            DeliveryOutcome::Rejected { message, .. } => {
                warn!(%destination, %feed, document_id, sequence, "destination `{destination}` rejected document `{document_id}` of `{feed}`: {message}");
            }
            DeliveryOutcome::Listed => {
                debug!(%destination, %feed, document_id, sequence, "document `{document_id}` of `{feed}` is in the list of `{destination}`");
            }
            DeliveryOutcome::Filtered => {
                debug!(%destination, %feed, document_id, sequence, "document `{document_id}` is of no company that `{destination}` takes");
            }
            DeliveryOutcome::LinkExpired => {
                info!(%destination, %feed, document_id, sequence, "the link to the file of document `{document_id}` has expired; `{feed}` is read again for a fresh one");
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
            POLL
        } else {
            IDLE
        };
        let pause = until.map_or(longest, |until| until.since(self.clock.now()).min(longest));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = arrivals.changed() => {}
            () = shutdown.cancelled() => {}
        }
    }
}

/// What is kept of the rejection of a document of `feed`, and what the accountant is told.
pub fn rejection(
    import_errors: &ImportErrorsConfig,
    feed: &Feed,
    body: &[u8],
    message: &str,
) -> (String, NewImportError) {
    let draft = NewImportError {
        company: company(feed, body),
        message: texts::report(import_errors, message),
    };
    (texts::plain(message), draft)
}

/// Whose document it is.
fn company(feed: &Feed, body: &[u8]) -> Option<Company> {
    match feed.queue {
        Queue::Exported => Some(feed.company.clone()),
        Queue::Digitized => ivesk::document::companies(body).into_iter().next(),
    }
}

/// A document and what became of it.
struct Given {
    item: Delivery,
    began_at: Timestamp,
    answer: Answer,
}

/// What the destination said, or why it was not asked.
enum Answer {
    Said(Verdict),
    NotAsked(DeliveryOutcome),
}

/// A destination that could take nothing.
struct Refusal {
    error: String,
    retry_after: Option<Duration>,
    /// Whether it is tried again by itself.
    for_now: bool,
}

/// Outcomes on their way into the store.
struct Batch<'h> {
    deliver: &'h DestinationWorker,
    lease: DeliveryLease,
    settled: Vec<Attempt>,
    noted: usize,
    last_noted: Instant,
    /// The first that the destination could not take.
    refused: Option<(i64, Timestamp, Refusal)>,
    /// Whether more may be begun: nobody has paused the destination.
    goes_on: bool,
    /// Until when a document may be begun: its time limit ends before the lease does then.
    safe_until: Arc<Mutex<Instant>>,
}

impl<'h> Batch<'h> {
    fn new(deliver: &'h DestinationWorker, lease: DeliveryLease, asked: Instant) -> Self {
        Self {
            deliver,
            lease,
            settled: Vec::new(),
            noted: 0,
            last_noted: Instant::now(),
            refused: None,
            goes_on: true,
            safe_until: Arc::new(Mutex::new(asked + deliver.lease_margin)),
        }
    }

    /// Takes what a destination said; false where nothing more is to be begun.
    async fn take(&mut self, given: Given) -> Result<bool, StoreError> {
        match self.deliver.outcome(&given.item, given.answer) {
            Ok(outcome) => {
                self.deliver.tell(&given.item, &outcome);
                self.settled.push(Attempt {
                    sequence: given.item.sequence,
                    began_at: given.began_at,
                    outcome,
                });
            }
            Err(refusal) => {
                self.refused
                    .get_or_insert((given.item.sequence, given.began_at, refusal));
            }
        }
        let in_time = self.last_noted.elapsed() < TOGETHER && self.settled.len() < BATCH;
        if self.refused.is_none() && !in_time {
            let keep = LeaseAction::Keep(self.deliver.lease());
            self.goes_on = self.note(keep).await?;
        }
        Ok(self.refused.is_none() && self.goes_on)
    }

    async fn note(&mut self, afterwards: LeaseAction) -> Result<bool, StoreError> {
        let settled = std::mem::take(&mut self.settled);
        self.noted += settled.len();
        let asked = Instant::now();
        self.last_noted = asked;
        let deliver = self.deliver;
        let holds = deliver
            .store
            .settle_deliveries(self.lease.clone(), settled, afterwards, deliver.clock.now())
            .await?;
        *self
            .safe_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = asked + deliver.lease_margin;
        Ok(holds)
    }

    /// Notes the rest and gives the lease back.
    async fn end(mut self) -> Result<StepOutcome, StoreError> {
        let Some((sequence, began_at, refusal)) = self.refused.take() else {
            self.note(LeaseAction::Release).await?;
            return Ok(StepOutcome::Settled(self.noted));
        };
        let failures = if self.noted + self.settled.len() > 0 {
            0
        } else {
            self.lease.failures
        };
        let backoff = egress::backoff(FIRST_WAIT, LONGEST_WAIT, failures, egress::jitter());
        let wait = refusal.retry_after.unwrap_or_default().max(backoff);
        let until = refusal
            .for_now
            .then(|| self.deliver.clock.now().after(wait));
        report(&self.deliver.name, sequence, &refusal, failures, wait);
        let error = refusal.error.clone();
        self.note(LeaseAction::Wait {
            sequence,
            began_at,
            error: refusal.error,
            until,
        })
        .await?;
        Ok(StepOutcome::Waits { error })
    }
}

fn report(
    destination: &DestinationName,
    sequence: i64,
    refusal: &Refusal,
    failures: u32,
    wait: Duration,
) {
    let error = &refusal.error;
    if !refusal.for_now {
        error!(%destination, sequence, "destination `{destination}` wants nothing any more: {error}. `ivesk-webhook destinations resume {destination}` goes on");
    } else if failures == 0 {
        warn!(%destination, sequence, "destination `{destination}` takes nothing now, and document {sequence} waits with all after it: {error}; next try in {wait:?}");
    } else {
        debug!(%destination, sequence, failures, "destination `{destination}` still takes nothing: {error}; next try in {wait:?}");
    }
}

/// Gives documents to the destination until `shutdown`; what is in flight is finished first.
pub async fn run(deliver: Arc<DestinationWorker>, shutdown: CancellationToken) {
    // Had before the rows are looked at, so that nothing comes unseen in between.
    let mut arrivals = deliver.store.arrivals();
    while !shutdown.is_cancelled() {
        match deliver.step(&shutdown).await {
            Ok(StepOutcome::Nothing { until }) => {
                deliver.idle(until, &mut arrivals, &shutdown).await;
            }
            Ok(StepOutcome::Waits { .. } | StepOutcome::Stale) => {
                // The row says until when; asking it is the next step's work.
            }
            Ok(StepOutcome::Settled(_) | StepOutcome::Passed) => {}
            Err(error) => {
                let destination = &deliver.name;
                error!(%destination, %error, "delivering to `{destination}` pauses for {AFTER_STORE_ERROR:?}: {error}");
                shutdown
                    .run_until_cancelled(tokio::time::sleep(AFTER_STORE_ERROR))
                    .await;
            }
        }
    }
}
