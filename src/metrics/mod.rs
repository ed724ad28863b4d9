//! Counts what the service does, in one registry without statics.
//!
//! Counters on a message's path are looked up once, at start; what the store knows is read
//! from it at each scrape ([`StoreSnapshot`]). Labels are bounded: constants, configured
//! accounts, and a limited number of feeds and destinations.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::domain::{Event, Timestamp};
use crate::ivesk::{CompletedRequest, Observer};
use crate::store::TriggerKind;
use crate::unexpected::UnexpectedRequest;

mod stored;
mod text;
mod unexpected;

pub use stored::{StoreSnapshot, certificate_expiry};
pub use text::TextFormat;
pub use unexpected::UnexpectedCount;

use stored::Gauges;
use unexpected::UnexpectedCounts;

/// Prefix of every metric's name.
const PREFIX: &str = "ivesk_webhook";

/// Upper bounds of the buckets of accept times, in seconds.
const ACCEPT_BUCKETS: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 4.0, 15.0,
];

/// Upper bounds of the buckets of store times, in seconds.
const STORE_BUCKETS: [f64; 10] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0,
];

/// Upper bounds of the buckets of the vendor's response times, in seconds.
const VENDOR_BUCKETS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Labels of messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MessageLabels {
    event: &'static str,
    outcome: &'static str,
    code: &'static str,
}

/// Labels of unexpected requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UnexpectedLabels {
    kind: &'static str,
    sns: &'static str,
}

/// The label of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    event: &'static str,
}

/// The label of confirmations of subscriptions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// Labels of requested pages.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PageLabels {
    kind: &'static str,
    outcome: &'static str,
}

/// Labels of requests to the vendor.
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

/// A timed operation of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreStep {
    /// Storing a message, up to the commit.
    Accept,
    /// Leasing a feed to pull.
    Lease,
    /// Storing a page, up to the commit.
    Page,
    /// Reading for the admin listener or the alarms.
    Read,
}

impl StoreStep {
    /// All operations.
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

/// The result of requesting a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageResult {
    /// The page contained new versions.
    New,
    /// All versions of the page were stored before.
    NothingNew,
    /// The request failed, or the page was refused.
    Failed,
    /// Another worker has acquired the lease.
    Stale,
}

impl PageResult {
    /// Returns the result's name in metrics and traces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::NothingNew => "nothing_new",
            Self::Failed => "failed",
            Self::Stale => "stale",
        }
    }
}

/// The counters of one event's accepted messages.
#[derive(Clone, Debug)]
pub struct AcceptedCounters {
    /// Messages stored for the first time.
    pub new: Counter,
    /// Messages that were stored before.
    pub duplicate: Counter,
}

/// Refused messages of our webhooks since the start, by event and code.
pub type Refusals = BTreeMap<(Event, &'static str), u64>;

/// Every metric of the service.
pub struct Metrics {
    registry: Mutex<Registry>,
    messages: Family<MessageLabels, Counter>,
    unexpected: Family<UnexpectedLabels, Counter>,
    accept_seconds: Histogram,
    quarantine_dropped: Counter,
    panics: Counter,
    unsubscribed: Family<EventLabels, Counter>,
    confirmations: Family<OutcomeLabels, Counter>,
    free_bytes: Gauge,
    uploads_late: Gauge,
    unclear_notifications: Counter,
    pages: Family<PageLabels, Counter>,
    vendor_requests: Family<VendorLabels, Counter>,
    vendor_seconds: Family<EndpointLabels, Histogram, fn() -> Histogram>,
    store_seconds: Family<StoreLabels, Histogram, fn() -> Histogram>,
    gauges: Gauges,
    /// Counted separately, since a [`Family`] can't be enumerated.
    refusals: Mutex<Refusals>,
    unexpected_counts: Mutex<UnexpectedCounts>,
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
    /// Creates all metrics, at zero.
    pub fn new() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix(PREFIX)),
            messages: Family::default(),
            unexpected: Family::default(),
            accept_seconds: Histogram::new(ACCEPT_BUCKETS),
            quarantine_dropped: Counter::default(),
            panics: Counter::default(),
            unsubscribed: Family::default(),
            confirmations: Family::default(),
            free_bytes: Gauge::default(),
            uploads_late: Gauge::default(),
            unclear_notifications: Counter::default(),
            pages: Family::default(),
            vendor_requests: Family::default(),
            vendor_seconds: Family::new_with_constructor(|| Histogram::new(VENDOR_BUCKETS)),
            store_seconds: Family::new_with_constructor(|| Histogram::new(STORE_BUCKETS)),
            gauges: Gauges::default(),
            refusals: Mutex::default(),
            unexpected_counts: Mutex::default(),
        };
        // Created before the first operation, so that a rate has a starting point.
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
            "Messages received from SNS, by event, outcome and refusal code",
            self.messages.clone(),
        );
        registry.register(
            "unexpected_requests",
            "Requests to the public listener that reached no webhook, by kind, and by whether SNS sent them",
            self.unexpected.clone(),
        );
        registry.register(
            "accept_duration_seconds",
            "Time from the end of a message's headers to its commit, in seconds",
            self.accept_seconds.clone(),
        );
        registry.register(
            "quarantine_dropped",
            "Refused messages dropped because the quarantine was full",
            self.quarantine_dropped.clone(),
        );
        registry.register(
            "panics",
            "Requests whose handler panicked",
            self.panics.clone(),
        );
        registry.register(
            "unsubscribe_confirmations",
            "UnsubscribeConfirmation messages: subscriptions that have ended",
            self.unsubscribed.clone(),
        );
        registry.register(
            "subscription_confirmations",
            "Visits of SubscribeURL, by outcome",
            self.confirmations.clone(),
        );
        registry.register(
            "disk_free_bytes",
            "Free bytes on the store's disk",
            self.free_bytes.clone(),
        );
        registry.register(
            "uploads_late",
            "Uploads that are late: sent longer than upload.late_after of working time ago, without a document",
            self.uploads_late.clone(),
        );
        registry.register(
            "unclear_notifications",
            "Notifications whose shape is not understood, which trigger all known exported feeds of their account, at most once in five minutes",
            self.unclear_notifications.clone(),
        );
        registry.register(
            "pull_pages",
            "Pages requested from the vendor, by kind of trigger and outcome",
            self.pages.clone(),
        );
        registry.register(
            "vendor_requests",
            "Requests to the vendor, by endpoint and class of the response status",
            self.vendor_requests.clone(),
        );
        registry.register(
            "vendor_request_duration_seconds",
            "Time of a request to the vendor until its response was read, in seconds",
            self.vendor_seconds.clone(),
        );
        registry.register(
            "store_operation_duration_seconds",
            "Time of a store operation, including the wait for the store, in seconds",
            self.store_seconds.clone(),
        );
        self.gauges.register(registry);
    }

    /// Returns the counters of `event`'s accepted messages, for callers that keep them.
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

    /// Counts a refused message of one of our webhooks.
    pub fn refused(&self, event: Event, code: &'static str) {
        self.messages
            .get_or_create(&MessageLabels {
                event: event.as_str(),
                outcome: "refused",
                code,
            })
            .inc();
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        *refusals.entry((event, code)).or_default() += 1;
    }

    /// Counts a request that reached no webhook.
    pub fn unexpected(&self, kind: UnexpectedRequest, from_sns: bool, now: Timestamp) {
        self.unexpected
            .get_or_create(&UnexpectedLabels {
                kind: kind.code(),
                sns: if from_sns { "yes" } else { "no" },
            })
            .inc();
        self.unexpected_counts().add(kind, from_sns, now);
    }

    /// Returns the kinds of unexpected requests of the last day.
    pub fn unexpected_requests(&self, now: Timestamp) -> Vec<UnexpectedCount> {
        self.unexpected_counts().recent(now)
    }

    /// Records that a message was accepted.
    pub fn accepted_at(&self, now: Timestamp) {
        self.unexpected_counts().message_accepted(now);
    }

    fn unexpected_counts(&self) -> MutexGuard<'_, UnexpectedCounts> {
        self.unexpected_counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the refused messages of our webhooks since the start.
    pub fn refusals(&self) -> Refusals {
        self.refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Records the time that a message took until its commit.
    pub fn accept_took(&self, duration: Duration) {
        self.accept_seconds.observe(duration.as_secs_f64());
    }

    /// Counts a refused message dropped because the quarantine was full.
    pub fn quarantine_dropped(&self) {
        self.quarantine_dropped.inc();
    }

    /// Counts a request whose handler panicked.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// Counts an UnsubscribeConfirmation.
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

    /// Sets the free bytes on the store's disk.
    pub fn free_bytes(&self, bytes: u64) {
        self.free_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Sets the number of late uploads.
    pub fn uploads_late(&self, count: usize) {
        self.uploads_late
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts a notification whose shape is not understood.
    pub fn unclear_notification(&self) {
        self.unclear_notifications.inc();
    }

    /// Counts a requested page.
    pub fn count_page(&self, kind: TriggerKind, result: PageResult) {
        self.pages
            .get_or_create(&PageLabels {
                kind: kind.as_str(),
                outcome: result.as_str(),
            })
            .inc();
    }

    fn store_histogram(&self, step: StoreStep) -> Histogram {
        let labels = StoreLabels {
            operation: step.as_str(),
        };
        self.store_seconds.get_or_create(&labels).clone()
    }

    /// Awaits an operation of the store, and records its time.
    pub async fn timed<T>(&self, step: StoreStep, operation: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let output = operation.await;
        self.store_histogram(step)
            .observe(started.elapsed().as_secs_f64());
        output
    }

    /// Returns all metrics as text, with those of the store's `snapshot`.
    pub fn render(&self, snapshot: &StoreSnapshot, format: TextFormat) -> String {
        // Held throughout, so that two scrapes at once don't mix their gauges.
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.gauges.set(snapshot);
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &registry);
        format.convert(text)
    }
}

impl Observer for Metrics {
    fn request_completed(&self, request: CompletedRequest) {
        let endpoint = request.endpoint.as_str();
        self.vendor_requests
            .get_or_create(&VendorLabels {
                endpoint,
                status: status_class(request.status),
            })
            .inc();
        self.vendor_seconds
            .get_or_create(&EndpointLabels { endpoint })
            .observe(request.duration.as_secs_f64());
    }
}

/// Returns the class of a status; `none` if there was no response.
const fn status_class(status: Option<u16>) -> &'static str {
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
