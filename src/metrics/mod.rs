//! What the service counts, in one registry that is passed along.
//!
//! Counters on the way of a message are looked up once, at start; everything
//! that the store knows anyway is read from it when somebody asks ([`Stored`]). Labels
//! are bounded: words of this program, configured accounts, and at most so many feeds.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::domain::Event;
use crate::ivesk::{Asked, Observer};
use crate::store::TriggerKind;

mod stored;
mod text;

pub use stored::{Stored, last_days};
pub use text::Form;

use stored::Gauges;

/// What stands in front of every metric's name.
const PREFIX: &str = "ivesk_webhook";

/// Upper edges of the accept time's buckets, in seconds.
const ACCEPT_BUCKETS: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 4.0, 15.0,
];

/// Upper edges of the store's buckets, in seconds.
const STORE_BUCKETS: [f64; 10] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0,
];

/// Upper edges of the buckets of the vendor's answers, in seconds.
const VENDOR_BUCKETS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Which messages a counter counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MessageLabels {
    event: &'static str,
    outcome: &'static str,
    code: &'static str,
}

/// Which event a counter belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    event: &'static str,
}

/// Which way visits of SubscribeURL ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// Which pulled pages a counter counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PullLabels {
    kind: &'static str,
    outcome: &'static str,
}

/// Which of the vendor's answers a counter counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VendorLabels {
    endpoint: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    endpoint: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabels {
    operation: &'static str,
}

/// What the store is asked to do, as its times are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreStep {
    /// A message, until it is on the disk.
    Accept,
    /// A worker asks for a feed to pull.
    Lease,
    /// A page, until it is on the disk.
    Page,
    /// The admin listener or an alarm reads.
    Read,
}

impl StoreStep {
    /// All steps.
    const ALL: [Self; 4] = [Self::Accept, Self::Lease, Self::Page, Self::Read];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Lease => "lease",
            Self::Page => "page",
            Self::Read => "read",
        }
    }
}

/// How asking for a page ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullEnd {
    /// It brought versions that were not there.
    New,
    /// All that it held was there.
    NothingNew,
    /// It could not be had, or could not be used.
    Failed,
    /// Another worker had taken the feed over.
    Stale,
}

impl PullEnd {
    /// Its name in metrics and traces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::NothingNew => "nothing_new",
            Self::Failed => "failed",
            Self::Stale => "stale",
        }
    }
}

/// The counters of one event's accepted messages, ready to be raised.
#[derive(Clone, Debug)]
pub struct AcceptedCounters {
    /// Stored for the first time.
    pub new: Counter,
    /// Stored before.
    pub duplicate: Counter,
}

/// Refused messages of our webhooks since the start, by event and code.
pub type Refusals = BTreeMap<(Event, &'static str), u64>;

/// Every metric of the service.
pub struct Metrics {
    registry: Mutex<Registry>,
    messages: Family<MessageLabels, Counter>,
    accept_seconds: Histogram,
    quarantine_dropped: Counter,
    panics: Counter,
    unsubscribed: Family<EventLabels, Counter>,
    confirmations: Family<OutcomeLabels, Counter>,
    free_bytes: Gauge,
    uploads_late: Gauge,
    pulls: Family<PullLabels, Counter>,
    vendor_requests: Family<VendorLabels, Counter>,
    vendor_seconds: Family<EndpointLabels, Histogram, fn() -> Histogram>,
    store_seconds: Family<StoreLabels, Histogram, fn() -> Histogram>,
    gauges: Gauges,
    /// Counted apart: the family of [`Metrics::messages`] can't be read.
    refusals: Mutex<Refusals>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix(PREFIX)),
            messages: Family::default(),
            accept_seconds: Histogram::new(ACCEPT_BUCKETS),
            quarantine_dropped: Counter::default(),
            panics: Counter::default(),
            unsubscribed: Family::default(),
            confirmations: Family::default(),
            free_bytes: Gauge::default(),
            uploads_late: Gauge::default(),
            pulls: Family::default(),
            vendor_requests: Family::default(),
            vendor_seconds: Family::new_with_constructor(|| Histogram::new(VENDOR_BUCKETS)),
            store_seconds: Family::new_with_constructor(|| Histogram::new(STORE_BUCKETS)),
            gauges: Gauges::default(),
            refusals: Mutex::default(),
        };
        // There before the first of each kind, so that a rate has something to start from.
        for step in StoreStep::ALL {
            drop(metrics.store_histogram(step));
        }
        metrics.register(|registry| metrics.register_own(registry));
        metrics
    }

    /// Adds another room's metrics to the registry.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn register_own(&self, registry: &mut Registry) {
        registry.register(
            "messages",
            "Messages by event, outcome and refusal code",
            self.messages.clone(),
        );
        registry.register(
            "accept_seconds",
            "From the end of a message's headers until it is committed, in seconds",
            self.accept_seconds.clone(),
        );
        registry.register(
            "quarantine_dropped",
            "Refused messages that the quarantine had no room for",
            self.quarantine_dropped.clone(),
        );
        registry.register(
            "panics",
            "Requests that ended in a defect of this program",
            self.panics.clone(),
        );
        registry.register(
            "unsubscribe_confirmations",
            "Subscriptions that SNS says have ended: a person should look",
            self.unsubscribed.clone(),
        );
        registry.register(
            "confirmation_visits",
            "Visits of SubscribeURL by outcome",
            self.confirmations.clone(),
        );
        registry.register(
            "disk_free_bytes",
            "Free bytes on the disk of the store",
            self.free_bytes.clone(),
        );
        registry.register(
            "uploads_late",
            "Uploads of which no document has come for half a day",
            self.uploads_late.clone(),
        );
        registry.register(
            "pulls",
            "Pages asked for, by kind of pull and outcome",
            self.pulls.clone(),
        );
        registry.register(
            "vendor_requests",
            "Requests to the vendor, by endpoint and class of the answer's status",
            self.vendor_requests.clone(),
        );
        registry.register(
            "vendor_seconds",
            "How long the vendor took until its answer was read, in seconds",
            self.vendor_seconds.clone(),
        );
        registry.register(
            "store_seconds",
            "How long the store took, waiting included, in seconds",
            self.store_seconds.clone(),
        );
        self.gauges.register(registry);
    }

    /// The counters of `event`'s accepted messages, to be kept by who raises them often.
    pub fn accepted(&self, event: Event) -> AcceptedCounters {
        let counter = |outcome| {
            self.messages
                .get_or_create(&MessageLabels {
                    event: event.as_str(),
                    outcome,
                    code: "",
                })
                .clone()
        };
        AcceptedCounters {
            new: counter("accepted"),
            duplicate: counter("duplicate"),
        }
    }

    /// Counts a refusal; `event` is none where no webhook has the path.
    pub fn refused(&self, event: Option<Event>, code: &'static str) {
        self.messages
            .get_or_create(&MessageLabels {
                event: event.map_or("", Event::as_str),
                outcome: "refused",
                code,
            })
            .inc();
        if let Some(event) = event {
            let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            *refusals.entry((event, code)).or_default() += 1;
        }
    }

    /// Refused messages of our webhooks since the start.
    pub fn refusals(&self) -> Refusals {
        self.refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes how long a message took until it was committed.
    pub fn accept_took(&self, duration: Duration) {
        self.accept_seconds.observe(duration.as_secs_f64());
    }

    /// Counts a refused message that the quarantine had no room for.
    pub fn quarantine_dropped(&self) {
        self.quarantine_dropped.inc();
    }

    /// Counts a request that ended in a defect of this program.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// Counts a subscription that SNS says has ended.
    pub fn unsubscribed(&self, event: Event) {
        self.unsubscribed
            .get_or_create(&EventLabels {
                event: event.as_str(),
            })
            .inc();
    }

    /// Counts a visit of SubscribeURL.
    pub fn confirmation_visit(&self, confirmed: bool) {
        let outcome = if confirmed { "confirmed" } else { "failed" };
        self.confirmations
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }

    /// Notes how many bytes are free on the disk of the store.
    pub fn free_bytes(&self, bytes: u64) {
        self.free_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Notes how many uploads are late.
    pub fn uploads_late(&self, count: usize) {
        self.uploads_late
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts an asked page.
    pub fn pulled(&self, kind: TriggerKind, end: PullEnd) {
        self.pulls
            .get_or_create(&PullLabels {
                kind: kind.as_str(),
                outcome: end.as_str(),
            })
            .inc();
    }

    fn store_histogram(&self, step: StoreStep) -> Histogram {
        let labels = StoreLabels {
            operation: step.as_str(),
        };
        self.store_seconds.get_or_create(&labels).clone()
    }

    /// Waits for the store's answer, and notes how long that took.
    pub async fn timed<T>(&self, step: StoreStep, answer: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let answer = answer.await;
        self.store_histogram(step)
            .observe(started.elapsed().as_secs_f64());
        answer
    }

    /// All metrics, with what the store knows.
    pub fn render(&self, stored: &Stored, form: Form) -> String {
        // Held throughout, so that two who ask at once don't count rows twice.
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.gauges.set(stored);
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &registry);
        form.written(text)
    }
}

impl Observer for Metrics {
    fn asked(&self, asked: Asked) {
        let endpoint = asked.endpoint.as_str();
        self.vendor_requests
            .get_or_create(&VendorLabels {
                endpoint,
                status: class_of(asked.status),
            })
            .inc();
        self.vendor_seconds
            .get_or_create(&EndpointLabels { endpoint })
            .observe(asked.took.as_secs_f64());
    }
}

/// The class of a status; `none` where there was no answer.
const fn class_of(status: Option<u16>) -> &'static str {
    match status {
        None => "none",
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(429) => "429",
        Some(400..=499) => "4xx",
        Some(500..=599) => "5xx",
        Some(_) => "other",
    }
}
