//! What the service counts, in one registry that is passed along.
//!
//! Counters on the way of a delivery are looked up once, at start; everything
//! that the store knows anyway is read from it when somebody asks.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::domain::Event;
use crate::store::{AccountRow, FeedRow, SubscriptionRow};

/// What stands in front of every metric's name.
const PREFIX: &str = "ivesk_webhook";

/// Feeds that get series of their own; more would burden who collects them.
const MAX_FEED_SERIES: usize = 2_000;

/// Upper edges of the accept time's buckets, in seconds.
const ACCEPT_BUCKETS: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 4.0, 15.0,
];

/// Which deliveries a counter counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryLabels {
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FeedLabels {
    account: String,
    queue: &'static str,
    company: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ParkedLabels {
    account: String,
    scope: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SubscriptionLabels {
    account: String,
    event: &'static str,
    state: &'static str,
}

/// The counters of one event's accepted deliveries, ready to be raised.
#[derive(Clone, Debug)]
pub struct AcceptedCounters {
    /// Stored for the first time.
    pub new: Counter,
    /// Stored before.
    pub duplicate: Counter,
}

/// Every metric of the service.
pub struct Metrics {
    registry: Mutex<Registry>,
    deliveries: Family<DeliveryLabels, Counter>,
    accept_seconds: Histogram,
    quarantine_dropped: Counter,
    panics: Counter,
    unsubscribed: Family<EventLabels, Counter>,
    confirmations: Family<OutcomeLabels, Counter>,
    free_bytes: Gauge,
    uploads_late: Gauge,
    feed_documents: Family<FeedLabels, Gauge>,
    feed_lost_hints: Family<FeedLabels, Gauge>,
    feed_possible_gaps: Family<FeedLabels, Gauge>,
    feed_failures: Family<FeedLabels, Gauge>,
    feed_up_to_date: Family<FeedLabels, Gauge>,
    parked: Family<ParkedLabels, Gauge>,
    subscriptions: Family<SubscriptionLabels, Gauge>,
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
            deliveries: Family::default(),
            accept_seconds: Histogram::new(ACCEPT_BUCKETS),
            quarantine_dropped: Counter::default(),
            panics: Counter::default(),
            unsubscribed: Family::default(),
            confirmations: Family::default(),
            free_bytes: Gauge::default(),
            uploads_late: Gauge::default(),
            feed_documents: Family::default(),
            feed_lost_hints: Family::default(),
            feed_possible_gaps: Family::default(),
            feed_failures: Family::default(),
            feed_up_to_date: Family::default(),
            parked: Family::default(),
            subscriptions: Family::default(),
        };
        metrics.register(|registry| metrics.register_own(registry));
        metrics
    }

    /// Adds another room's metrics to the registry.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn register_own(&self, registry: &mut Registry) {
        registry.register(
            "deliveries",
            "Deliveries by event, outcome and refusal code",
            self.deliveries.clone(),
        );
        registry.register(
            "accept_seconds",
            "From the end of a delivery's headers until it is committed, in seconds",
            self.accept_seconds.clone(),
        );
        registry.register(
            "quarantine_dropped",
            "Refused deliveries that the quarantine had no room for",
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
            "feed_documents",
            "Document versions stored, by feed",
            self.feed_documents.clone(),
        );
        registry.register(
            "feed_lost_hints",
            "Versions that reconciliation found before any notification, by feed",
            self.feed_lost_hints.clone(),
        );
        registry.register(
            "feed_possible_gaps",
            "Pages whose edge may have hidden documents, by feed",
            self.feed_possible_gaps.clone(),
        );
        registry.register(
            "feed_failures",
            "Failed requests since the last success, by feed",
            self.feed_failures.clone(),
        );
        registry.register(
            "feed_up_to_date_timestamp_seconds",
            "When a feed was last known to be up to date, in Unix seconds",
            self.feed_up_to_date.clone(),
        );
        registry.register(
            "parked",
            "What waits for a person, by account, scope and reason",
            self.parked.clone(),
        );
        registry.register(
            "subscriptions",
            "Subscriptions by state, as stored: an unsubscribed one needs a person",
            self.subscriptions.clone(),
        );
    }

    /// The counters of `event`'s accepted deliveries, to be kept by who raises them often.
    pub fn accepted(&self, event: Event) -> AcceptedCounters {
        let counter = |outcome| {
            self.deliveries
                .get_or_create(&DeliveryLabels {
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
        self.deliveries
            .get_or_create(&DeliveryLabels {
                event: event.map_or("", Event::as_str),
                outcome: "refused",
                code,
            })
            .inc();
    }

    /// Notes how long a delivery took until it was committed.
    pub fn accept_took(&self, duration: Duration) {
        self.accept_seconds.observe(duration.as_secs_f64());
    }

    /// Counts a refused delivery that the quarantine had no room for.
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

    /// Notes how many uploads are late; whether that is more than before.
    pub fn uploads_late(&self, count: usize) -> bool {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.uploads_late.set(count) < count
    }

    /// All metrics in the OpenMetrics text format, with what the store knows of
    /// feeds, accounts and subscriptions.
    pub fn render(
        &self,
        feeds: &[FeedRow],
        accounts: &[AccountRow],
        subscriptions: &[SubscriptionRow],
    ) -> String {
        // Held throughout, so that two who ask at once don't count rows twice.
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.observe_feeds(feeds);
        self.observe_parked(feeds, accounts);
        self.subscriptions.clear();
        for row in subscriptions {
            self.subscriptions
                .get_or_create(&SubscriptionLabels {
                    account: row.account.to_string(),
                    event: row.event.as_str(),
                    state: row.state.as_str(),
                })
                .inc();
        }
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &registry);
        text
    }

    fn observe_feeds(&self, feeds: &[FeedRow]) {
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for family in [
            &self.feed_documents,
            &self.feed_lost_hints,
            &self.feed_possible_gaps,
            &self.feed_failures,
            &self.feed_up_to_date,
        ] {
            family.clear();
        }
        for row in feeds.iter().take(MAX_FEED_SERIES) {
            let labels = FeedLabels {
                account: row.feed.account.to_string(),
                queue: row.feed.queue.as_str(),
                company: row.feed.company.to_string(),
            };
            let set = |family: &Family<FeedLabels, Gauge>, value: i64| {
                family.get_or_create(&labels).set(value);
            };
            set(&self.feed_documents, gauge(row.documents));
            set(&self.feed_lost_hints, gauge(row.lost_hints));
            set(&self.feed_possible_gaps, gauge(row.possible_gaps));
            set(&self.feed_failures, i64::from(row.failures));
            if let Some(moment) = row.up_to_date_at {
                set(&self.feed_up_to_date, moment.as_millis() / 1_000);
            }
        }
    }

    fn observe_parked(&self, feeds: &[FeedRow], accounts: &[AccountRow]) {
        self.parked.clear();
        let parked_feeds = feeds
            .iter()
            .filter_map(|row| row.parked.map(|reason| (&row.feed.account, "feed", reason)));
        let parked_accounts = accounts
            .iter()
            .filter_map(|row| row.parked.map(|reason| (&row.account, "account", reason)));
        for (account, scope, reason) in parked_feeds.chain(parked_accounts) {
            self.parked
                .get_or_create(&ParkedLabels {
                    account: account.to_string(),
                    scope,
                    reason: reason.as_str(),
                })
                .inc();
        }
    }
}
