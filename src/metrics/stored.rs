//! Gauges read from the store at each scrape.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use url::Url;

use crate::domain::Timestamp;
use crate::sns::CertificateSummary;
use crate::store::{
    AccountRow, AlarmFilter, AlarmKind, AlarmRow, CertificateRow, DestinationPauseReason,
    DestinationRow, FeedCounts, FeedRow, ImportErrorPathRow, PausedFeeds, QueueLengths, Store,
    StoreError, SubscriptionRow,
};

/// Largest number of feeds with series of their own.
const MAX_FEED_SERIES: usize = 2_000;

/// Largest number of hosts with series of their own; certificates of more are not stored.
const MAX_HOST_SERIES: usize = 32;

/// Largest number of destinations with series of their own.
const MAX_DESTINATION_SERIES: usize = 100;

/// Active alarms: at most a hundred of each kind.
const ACTIVE_ALARMS: AlarmFilter = AlarmFilter {
    active: true,
    after: 0,
    limit: 100 * AlarmKind::ALL.len(),
};

/// The state of the store at one moment.
#[derive(Clone, Debug)]
pub struct StoreSnapshot {
    /// The moment.
    pub now: Timestamp,
    /// The first 2,000 feeds by name, without removed ones; none if it was read without.
    pub feeds: Vec<FeedRow>,
    /// Numbers of feeds.
    pub feed_counts: FeedCounts,
    /// Paused feeds.
    pub paused_feeds: Vec<PausedFeeds>,
    /// Every account.
    pub accounts: Vec<AccountRow>,
    /// Every subscription.
    pub subscriptions: Vec<SubscriptionRow>,
    /// Expiry of each host's newest signing certificate.
    pub certificates: BTreeMap<String, Timestamp>,
    /// Every destination that was ever configured.
    pub destinations: Vec<DestinationRow>,
    /// Paths of import errors that are paused.
    pub import_error_paths: Vec<ImportErrorPathRow>,
    /// Active alarms.
    pub alarms: Vec<AlarmRow>,
    /// Writes waiting in this process.
    pub waiting: QueueLengths,
}

/// Returns the first feeds but removed ones.
async fn known_feeds(store: &Store) -> Result<Vec<FeedRow>, StoreError> {
    let mut feeds = store.feed_page(None, MAX_FEED_SERIES).await?;
    feeds.retain(FeedRow::is_known);
    Ok(feeds)
}

impl StoreSnapshot {
    /// Reads the state of the store.
    ///
    /// # Errors
    ///
    /// Fails if the store does.
    pub async fn read(store: &Store, now: Timestamp) -> Result<Self, StoreError> {
        Ok(Self {
            feeds: known_feeds(store).await?,
            ..Self::read_without_feeds(store, now).await?
        })
    }

    /// Reads the state of the store, but single feeds.
    ///
    /// # Errors
    ///
    /// Fails if the store does.
    pub async fn read_without_feeds(store: &Store, now: Timestamp) -> Result<Self, StoreError> {
        Ok(Self {
            now,
            feeds: Vec::new(),
            feed_counts: store.feed_counts().await?,
            paused_feeds: store.paused_feeds().await?,
            accounts: store.accounts().await?,
            subscriptions: store.subscriptions().await?,
            certificates: certificate_expiry(&store.certificates().await?),
            destinations: store.destinations().await?,
            import_error_paths: store.paused_import_error_paths().await?,
            alarms: store.alarms(ACTIVE_ALARMS).await?,
            waiting: store.queue_lengths(),
        })
    }
}

/// Returns the expiry of each host's signing certificate.
///
/// Of several, the latest counts: SNS changes to a new certificate before the old one expires.
pub fn certificate_expiry(certificates: &[CertificateRow]) -> BTreeMap<String, Timestamp> {
    let mut hosts: BTreeMap<String, Timestamp> = BTreeMap::new();
    for row in certificates {
        let host = Url::parse(&row.url).ok();
        let host = host.and_then(|url| url.host_str().map(str::to_owned));
        let (Some(host), Ok(certificate)) = (host, CertificateSummary::parse(&row.pem)) else {
            continue;
        };
        let expiry = certificate.not_after;
        hosts
            .entry(host)
            .and_modify(|latest| *latest = expiry.max(*latest))
            .or_insert(expiry);
    }
    hosts
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FeedLabels {
    account: String,
    queue: &'static str,
    company: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PausedLabels {
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HostLabels {
    host: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DestinationLabels {
    destination: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DestinationPauseLabels {
    destination: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlarmLabels {
    kind: &'static str,
}

/// The gauges that are set from a [`StoreSnapshot`] at each scrape.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    feeds: Gauge,
    feed_documents: Family<FeedLabels, Gauge>,
    feed_missed_notifications: Family<FeedLabels, Gauge>,
    feed_gaps: Family<FeedLabels, Gauge>,
    feed_incomplete: Family<FeedLabels, Gauge>,
    feed_failures: Family<FeedLabels, Gauge>,
    feed_up_to_date: Family<FeedLabels, Gauge>,
    feed_age: Family<FeedLabels, Gauge>,
    paused: Family<PausedLabels, Gauge>,
    subscriptions: Family<SubscriptionLabels, Gauge>,
    certificate_expiry: Family<HostLabels, Gauge>,
    queue_length: Family<QueueLabels, Gauge>,
    destination_waiting_versions: Family<DestinationLabels, Gauge>,
    destination_waiting: Family<DestinationLabels, Gauge>,
    destination_delivered: Family<DestinationLabels, Gauge>,
    destination_rejected: Family<DestinationLabels, Gauge>,
    destination_rejected_now: Family<DestinationLabels, Gauge>,
    destination_failing: Family<DestinationLabels, Gauge>,
    destination_last_success: Family<DestinationLabels, Gauge>,
    destination_paused: Family<DestinationPauseLabels, Gauge>,
    alarms: Family<AlarmLabels, Gauge>,
}

impl Gauges {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("feeds", "Known feeds", self.feeds.clone());
        registry.register(
            "feed_documents",
            "Stored document versions, by feed",
            self.feed_documents.clone(),
        );
        registry.register(
            "feed_missed_notifications",
            "Document versions that no notification announced, by feed",
            self.feed_missed_notifications.clone(),
        );
        registry.register(
            "feed_gaps",
            "Open gaps: stretches in which document versions may be missing, by feed",
            self.feed_gaps.clone(),
        );
        registry.register(
            "feed_incomplete",
            "1 if document versions of a feed may be missing, else 0",
            self.feed_incomplete.clone(),
        );
        registry.register(
            "feed_failures",
            "Failed requests since the last success, by feed",
            self.feed_failures.clone(),
        );
        registry.register(
            "feed_up_to_date_timestamp_seconds",
            "Time at which a feed was last up to date, in Unix seconds",
            self.feed_up_to_date.clone(),
        );
        registry.register(
            "feed_age_seconds",
            "Time since a feed was last up to date, in seconds",
            self.feed_age.clone(),
        );
        registry.register(
            "paused",
            "Paused feeds and accounts, by account, scope and reason",
            self.paused.clone(),
        );
        registry.register(
            "subscriptions",
            "Subscriptions, by account, event and state",
            self.subscriptions.clone(),
        );
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "Expiry of a host's newest signing certificate, as a Unix timestamp",
            self.certificate_expiry.clone(),
        );
        registry.register(
            "store_queue_length",
            "Writes waiting for the store in this process: messages, refused messages, other changes",
            self.queue_length.clone(),
        );
        self.register_destinations(registry);
        registry.register(
            "alarms",
            "Active alarms, by kind (see docs/alarms.md)",
            self.alarms.clone(),
        );
    }

    fn register_destinations(&self, registry: &mut Registry) {
        for (name, help, family) in [
            (
                "destination_waiting_versions",
                "Document versions that wait for a destination, up to 1,000",
                &self.destination_waiting_versions,
            ),
            (
                "destination_waiting_seconds",
                "Age of the oldest version that waits for a destination, in seconds; 0 if none waits",
                &self.destination_waiting,
            ),
            (
                "destination_delivered",
                "Document versions that a destination has accepted since the store was created",
                &self.destination_delivered,
            ),
            (
                "destination_rejected",
                "Document versions that a destination has rejected since the store was created",
                &self.destination_rejected,
            ),
            (
                "destination_rejected_now",
                "Document versions whose state is `rejected` now, up to 1,000",
                &self.destination_rejected_now,
            ),
            (
                "destination_failing_seconds",
                "Time since which a destination has failed without a success, in seconds; 0 if it works",
                &self.destination_failing,
            ),
            (
                "destination_last_success_timestamp_seconds",
                "Time at which a destination last accepted a document, in Unix seconds",
                &self.destination_last_success,
            ),
        ] {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "destination_paused",
            "Paused destinations, by reason: delivery stops until a person resumes it",
            self.destination_paused.clone(),
        );
    }

    fn set_destinations(&self, snapshot: &StoreSnapshot) {
        for family in [
            &self.destination_waiting_versions,
            &self.destination_waiting,
            &self.destination_delivered,
            &self.destination_rejected,
            &self.destination_rejected_now,
            &self.destination_failing,
            &self.destination_last_success,
        ] {
            family.clear();
        }
        self.destination_paused.clear();
        for row in snapshot.destinations.iter().take(MAX_DESTINATION_SERIES) {
            let destination = row.name.to_string();
            let labels = DestinationLabels {
                destination: destination.clone(),
            };
            let set = |family: &Family<DestinationLabels, Gauge>, value: i64| {
                family.get_or_create(&labels).set(value);
            };
            let failing = row.failing_since.map(|since| snapshot.now.since(since));
            set(&self.destination_waiting_versions, gauge(row.waiting));
            let waiting = row.waiting_since.map(|since| snapshot.now.since(since));
            set(&self.destination_waiting, waiting.map_or(0, seconds));
            set(&self.destination_delivered, gauge(row.delivered));
            set(&self.destination_rejected, gauge(row.rejected));
            set(&self.destination_rejected_now, gauge(row.rejected_now));
            set(&self.destination_failing, failing.map_or(0, seconds));
            if let Some(moment) = row.last_success_at {
                set(&self.destination_last_success, moment.as_millis() / 1_000);
            }
            for reason in DestinationPauseReason::ALL {
                let labels = DestinationPauseLabels {
                    destination: destination.clone(),
                    reason: reason.as_str(),
                };
                let paused = row.paused == Some(reason);
                self.destination_paused
                    .get_or_create(&labels)
                    .set(paused.into());
            }
        }
    }

    fn set_alarms(&self, snapshot: &StoreSnapshot) {
        for kind in AlarmKind::ALL {
            let active = snapshot.alarms.iter().filter(|alarm| alarm.kind == kind);
            let labels = AlarmLabels {
                kind: kind.as_str(),
            };
            self.alarms
                .get_or_create(&labels)
                .set(gauge(active.count() as u64));
        }
    }

    pub(super) fn set(&self, snapshot: &StoreSnapshot) {
        self.set_feeds(snapshot);
        self.set_paused(snapshot);
        self.set_destinations(snapshot);
        self.set_alarms(snapshot);
        self.subscriptions.clear();
        for row in &snapshot.subscriptions {
            let labels = SubscriptionLabels {
                account: row.account.to_string(),
                event: row.event.as_str(),
                state: row.state.as_str(),
            };
            self.subscriptions.get_or_create(&labels).inc();
        }
        self.certificate_expiry.clear();
        for (host, expiry) in snapshot.certificates.iter().take(MAX_HOST_SERIES) {
            let labels = HostLabels { host: host.clone() };
            self.certificate_expiry
                .get_or_create(&labels)
                .set(expiry.as_millis() / 1000);
        }
        let QueueLengths {
            messages,
            refused,
            changes,
        } = snapshot.waiting;
        for (kind, length) in [
            ("messages", messages),
            ("refused", refused),
            ("changes", changes),
        ] {
            self.queue_length
                .get_or_create(&QueueLabels { kind })
                .set(gauge(length as u64));
        }
    }

    fn set_feeds(&self, snapshot: &StoreSnapshot) {
        self.feeds.set(gauge(snapshot.feed_counts.known));
        for family in [
            &self.feed_documents,
            &self.feed_missed_notifications,
            &self.feed_gaps,
            &self.feed_incomplete,
            &self.feed_failures,
            &self.feed_up_to_date,
            &self.feed_age,
        ] {
            family.clear();
        }
        for row in &snapshot.feeds {
            let labels = FeedLabels {
                account: row.feed.account.to_string(),
                queue: row.feed.queue.as_str(),
                company: row.feed.company.to_string(),
            };
            let set = |family: &Family<FeedLabels, Gauge>, value: i64| {
                family.get_or_create(&labels).set(value);
            };
            set(&self.feed_documents, gauge(row.documents));
            set(
                &self.feed_missed_notifications,
                gauge(row.missed_notifications),
            );
            set(&self.feed_gaps, gauge(row.gaps));
            set(&self.feed_incomplete, i64::from(row.incomplete.is_some()));
            set(&self.feed_failures, i64::from(row.failures));
            if let Some(moment) = row.up_to_date_at {
                set(&self.feed_up_to_date, moment.as_millis() / 1_000);
                set(&self.feed_age, seconds(snapshot.now.since(moment)));
            }
        }
    }

    fn set_paused(&self, snapshot: &StoreSnapshot) {
        self.paused.clear();
        let feeds = snapshot.paused_feeds.iter();
        let feeds = feeds.map(|row| (&row.account, "feed", row.reason, row.feeds));
        let accounts = snapshot.accounts.iter();
        let accounts = accounts.filter_map(|row| Some((&row.account, "account", row.paused?, 1)));
        for (account, scope, reason, count) in feeds.chain(accounts) {
            let labels = PausedLabels {
                account: account.to_string(),
                scope,
                reason: reason.as_str(),
            };
            self.paused.get_or_create(&labels).set(gauge(count));
        }
    }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn seconds(span: Duration) -> i64 {
    gauge(span.as_secs())
}
