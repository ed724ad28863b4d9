//! Giving documents to one sink: a step, and a loop that only decides when.
//!
//! What is to be done stands in rows, so a step may run anywhere, twice, and after a
//! crash: what a sink took and nobody noted comes again under the same key.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, debug, debug_span, error, info, warn};

use super::{Item, Sink, Verdict, texts};
use crate::config::{Config, FirstPull, ReportsConfig, SinkConfig, SinkKind};
use crate::domain::{Clock, Company, Feed, Queue, SinkName, Timestamp};
use crate::egress;
use crate::ivesk;
use crate::store::{
    Afterwards, HandoffLease, HandoffLeased, HandoffOutcome, HandoffRequest, ReportDraft, Settled,
    SharedStore, StoreError, Wants,
};

/// Versions that one lease takes at the most, and the bytes of their JSON.
const BATCH: usize = 32;
const BATCH_BYTES: usize = 8 << 20;

/// Outcomes are noted together for so long: a sink that is faster than a commit does not
/// wait for one at each document.
const TOGETHER: Duration = Duration::from_millis(20);

/// What a lease holds beyond the sink's own time limit, unless [`HandOn::leased_for`] says
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
pub enum Handed {
    /// So many versions were settled.
    Settled(usize),
    /// The sink could take nothing more.
    Waits {
        /// Why; nothing secret.
        error: String,
    },
    /// Nothing was to be handed on among what was looked at; there may be more.
    Passed,
    /// Another worker holds the sink, and what was done here is done anew there.
    Stale,
    /// Nothing may be handed on now.
    Nothing {
        /// When to ask again at the latest, where that is known.
        until: Option<Timestamp>,
    },
}

/// Which documents a sink takes, as its settings say.
pub fn wants(config: &SinkConfig) -> Wants {
    Wants {
        queue: config.queue,
        accounts: config.accounts.clone(),
        companies: config.companies.clone(),
    }
}

/// The sinks of the settings, and which documents each takes.
pub fn known(config: &Config) -> Vec<(SinkName, Wants)> {
    let sinks = config.sinks.iter();
    sinks
        .map(|(name, sink)| (name.clone(), wants(sink)))
        .collect()
}

/// Gives one sink its documents.
pub struct HandOn {
    name: SinkName,
    config: SinkConfig,
    /// None where a program asks for them itself.
    sink: Option<Box<dyn Sink>>,
    reports: ReportsConfig,
    store: SharedStore,
    clock: Clock,
    lease_margin: Duration,
}

impl HandOn {
    /// A worker for the sink `name`; `sink` is none where a program asks for documents
    /// itself, and then they are put into its list.
    pub fn new(
        name: SinkName,
        config: SinkConfig,
        sink: Option<Box<dyn Sink>>,
        reports: ReportsConfig,
        store: SharedStore,
        clock: Clock,
    ) -> Self {
        Self {
            name,
            config,
            sink,
            reports,
            store,
            clock,
            lease_margin: LEASE_MARGIN,
        }
    }

    /// The same worker, whose leases hold for `margin` beyond the sink's own time limit:
    /// so long does a sink wait for a replica that died.
    #[must_use]
    pub fn leased_for(mut self, margin: Duration) -> Self {
        self.lease_margin = margin;
        self
    }

    fn request(&self) -> HandoffRequest {
        HandoffRequest {
            sink: self.name.clone(),
            wants: wants(&self.config),
            start_all: self.config.first_pull == FirstPull::HandOn,
            files: matches!(self.config.kind, SinkKind::Folder { files: true, .. }),
            now: self.clock.now(),
            lease: self.lease(),
            most: BATCH,
            most_bytes: BATCH_BYTES,
        }
    }

    /// Renewed at least after each document, so it has to outlast one.
    fn lease(&self) -> Duration {
        self.config.timeout + self.lease_margin
    }

    /// Leases the sink and gives it the next few documents. Where `stop` is cancelled,
    /// what is in flight is finished and the rest is left.
    ///
    /// # Errors
    ///
    /// Only the store's; the sink's are noted in the rows.
    pub async fn step(&self, stop: &CancellationToken) -> Result<Handed, StoreError> {
        // Before the lease was asked for: it holds from some moment after.
        let asked = Instant::now();
        let lease = match self.store.lease_handoffs(self.request()).await? {
            HandoffLeased::Batch(lease) => lease,
            HandoffLeased::Passed => return Ok(Handed::Passed),
            HandoffLeased::Nothing { until } => return Ok(Handed::Nothing { until }),
        };
        match self.hand_on(lease, asked, stop).await {
            Err(StoreError::StaleLease) => {
                debug!(sink = %self.name, "the lease on sink `{}` was taken over", self.name);
                Ok(Handed::Stale)
            }
            other => other,
        }
    }

    async fn hand_on(
        &self,
        mut lease: HandoffLease,
        asked: Instant,
        stop: &CancellationToken,
    ) -> Result<Handed, StoreError> {
        let items = std::mem::take(&mut lease.items);
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
        let in_flight = self.config.in_flight.max(1);
        let verdicts = next
            .map(|item| {
                let span = self.span(&item);
                self.give(item).instrument(span)
            })
            .buffered(in_flight);
        let mut verdicts = std::pin::pin!(verdicts);
        while let Some(given) = verdicts.next().await {
            // What others in flight say still counts, but nothing more is begun.
            if !batch.take(given).await? {
                halt.cancel();
            }
        }
        batch.end().await
    }

    fn span(&self, item: &Item) -> Span {
        debug_span!(
            "handoff",
            sink = %self.name,
            feed = %item.feed,
            document.id = %item.document_id,
            sequence = item.sequence,
        )
    }

    /// Gives the sink one document.
    async fn give(&self, item: Item) -> Given {
        let began_at = self.clock.now();
        let answer = if !self.wants_company(&item) {
            Answer::NotAsked(HandoffOutcome::NotWanted)
        } else if let Some(sink) = &self.sink {
            Answer::Said(sink.hand_on(&item).await)
        } else {
            Answer::NotAsked(HandoffOutcome::Offered)
        };
        Given {
            item,
            began_at,
            answer,
        }
    }

    /// Whether the document is of a company that the sink takes. The digitized queue
    /// mixes companies, so there the document itself says so.
    fn wants_company(&self, item: &Item) -> bool {
        self.config.companies.is_empty()
            || item.feed.queue == Queue::Exported
            || ivesk::document::companies(&item.body)
                .iter()
                .any(|company| self.config.companies.contains(company))
    }

    fn outcome(&self, item: &Item, answer: Answer) -> Result<HandoffOutcome, Refusal> {
        match answer {
            Answer::NotAsked(outcome) => Ok(outcome),
            Answer::Said(Verdict::Booked { note }) => Ok(HandoffOutcome::Booked { note }),
            Answer::Said(Verdict::Rejected { message }) => {
                let (message, report) = rejection(&self.reports, &item.feed, &item.body, &message);
                Ok(HandoffOutcome::Rejected { message, report })
            }
            Answer::Said(Verdict::LinkExpired) => Ok(HandoffOutcome::LinkExpired),
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

    fn tell(&self, item: &Item, outcome: &HandoffOutcome) {
        let Item {
            document_id,
            sequence,
            feed,
            ..
        } = item;
        let sink = &self.name;
        match outcome {
            HandoffOutcome::Booked { .. } => {
                info!(%sink, %feed, document_id, sequence, "sink `{sink}` took document `{document_id}` of `{feed}`");
            }
            HandoffOutcome::Rejected { message, .. } => {
                warn!(%sink, %feed, document_id, sequence, "sink `{sink}` rejected document `{document_id}` of `{feed}`: {message}");
            }
            HandoffOutcome::Offered => {
                debug!(%sink, %feed, document_id, sequence, "document `{document_id}` of `{feed}` is in the list of `{sink}`");
            }
            HandoffOutcome::NotWanted => {
                debug!(%sink, %feed, document_id, sequence, "document `{document_id}` is of no company that `{sink}` takes");
            }
            HandoffOutcome::LinkExpired => {
                info!(%sink, %feed, document_id, sequence, "the link to the file of document `{document_id}` has expired; `{feed}` is read again for a fresh one");
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
    reports: &ReportsConfig,
    feed: &Feed,
    body: &[u8],
    message: &str,
) -> (String, ReportDraft) {
    let draft = ReportDraft {
        company: company(feed, body),
        message: texts::report(reports, message),
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
    item: Item,
    began_at: Timestamp,
    answer: Answer,
}

/// What the sink said, or why it was not asked.
enum Answer {
    Said(Verdict),
    NotAsked(HandoffOutcome),
}

/// A sink that could take nothing.
struct Refusal {
    error: String,
    retry_after: Option<Duration>,
    /// Whether it is tried again by itself.
    for_now: bool,
}

/// Outcomes on their way into the store.
struct Batch<'h> {
    hand_on: &'h HandOn,
    lease: HandoffLease,
    settled: Vec<Settled>,
    noted: usize,
    last_noted: Instant,
    /// The first that the sink could not take.
    refused: Option<(i64, Timestamp, Refusal)>,
    /// Whether more may be begun: nobody has paused the sink.
    goes_on: bool,
    /// Until when a document may be begun: its time limit ends before the lease does then.
    safe_until: Arc<Mutex<Instant>>,
}

impl<'h> Batch<'h> {
    fn new(hand_on: &'h HandOn, lease: HandoffLease, asked: Instant) -> Self {
        Self {
            hand_on,
            lease,
            settled: Vec::new(),
            noted: 0,
            last_noted: Instant::now(),
            refused: None,
            goes_on: true,
            safe_until: Arc::new(Mutex::new(asked + hand_on.lease_margin)),
        }
    }

    /// Takes what a sink said; false where nothing more is to be begun.
    async fn take(&mut self, given: Given) -> Result<bool, StoreError> {
        match self.hand_on.outcome(&given.item, given.answer) {
            Ok(outcome) => {
                self.hand_on.tell(&given.item, &outcome);
                self.settled.push(Settled {
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
            let keep = Afterwards::Keep(self.hand_on.lease());
            self.goes_on = self.note(keep).await?;
        }
        Ok(self.refused.is_none() && self.goes_on)
    }

    async fn note(&mut self, afterwards: Afterwards) -> Result<bool, StoreError> {
        let settled = std::mem::take(&mut self.settled);
        self.noted += settled.len();
        let asked = Instant::now();
        self.last_noted = asked;
        let hand_on = self.hand_on;
        let holds = hand_on
            .store
            .settle_handoffs(self.lease.clone(), settled, afterwards, hand_on.clock.now())
            .await?;
        *self
            .safe_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = asked + hand_on.lease_margin;
        Ok(holds)
    }

    /// Notes the rest and gives the lease back.
    async fn end(mut self) -> Result<Handed, StoreError> {
        let Some((sequence, began_at, refusal)) = self.refused.take() else {
            self.note(Afterwards::Release).await?;
            return Ok(Handed::Settled(self.noted));
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
            .then(|| self.hand_on.clock.now().after(wait));
        report(&self.hand_on.name, sequence, &refusal, failures, wait);
        let error = refusal.error.clone();
        self.note(Afterwards::Wait {
            sequence,
            began_at,
            error: refusal.error,
            until,
        })
        .await?;
        Ok(Handed::Waits { error })
    }
}

fn report(sink: &SinkName, sequence: i64, refusal: &Refusal, failures: u32, wait: Duration) {
    let error = &refusal.error;
    if !refusal.for_now {
        error!(%sink, sequence, "sink `{sink}` wants nothing any more: {error}. `ivesk-webhook handoff resume {sink}` goes on");
    } else if failures == 0 {
        warn!(%sink, sequence, "sink `{sink}` takes nothing now, and document {sequence} waits with all after it: {error}; next try in {wait:?}");
    } else {
        debug!(%sink, sequence, failures, "sink `{sink}` still takes nothing: {error}; next try in {wait:?}");
    }
}

/// Gives documents to the sink until `shutdown`; what is in flight is finished first.
pub async fn run(hand_on: Arc<HandOn>, shutdown: CancellationToken) {
    // Had before the rows are looked at, so that nothing comes unseen in between.
    let mut arrivals = hand_on.store.arrivals();
    while !shutdown.is_cancelled() {
        match hand_on.step(&shutdown).await {
            Ok(Handed::Nothing { until }) => {
                hand_on.idle(until, &mut arrivals, &shutdown).await;
            }
            Ok(Handed::Waits { .. } | Handed::Stale) => {
                // The row says until when; asking it is the next step's work.
            }
            Ok(Handed::Settled(_) | Handed::Passed) => {}
            Err(error) => {
                let sink = &hand_on.name;
                error!(%sink, %error, "handing on to `{sink}` pauses for {AFTER_STORE_ERROR:?}: {error}");
                shutdown
                    .run_until_cancelled(tokio::time::sleep(AFTER_STORE_ERROR))
                    .await;
            }
        }
    }
}
