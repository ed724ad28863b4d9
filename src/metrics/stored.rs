//! What the store knows anyway, read when somebody asks.

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
    DestinationRow, FeedRow, Store, StoreError, SubscriptionRow, Waiting,
};

/// Feeds that get series of their own; more would burden who collects them.
const MAX_FEED_SERIES: usize = 2_000;

/// Hosts that get series of their own: signing certificates of more are not kept.
const MAX_HOST_SERIES: usize = 32;

/// Destinations that get series of their own.
const MAX_DESTINATION_SERIES: usize = 100;

/// The alarms that are on: of each kind there are a hundred at the most.
const ON: AlarmFilter = AlarmFilter {
    active: true,
    after: 0,
    limit: 100 * AlarmKind::ALL.len(),
};

/// What the store knew at one moment.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The moment.
    pub now: Timestamp,
    /// Every feed.
    pub feeds: Vec<FeedRow>,
    /// Every account.
    pub accounts: Vec<AccountRow>,
    /// Every subscription.
    pub subscriptions: Vec<SubscriptionRow>,
    /// The last day of each host's newest signing certificate.
    pub certificates: BTreeMap<String, Timestamp>,
    /// Every destination that was ever known.
    pub destinations: Vec<DestinationRow>,
    /// Alarms that are on.
    pub alarms: Vec<AlarmRow>,
    /// What waits to be written.
    pub waiting: Waiting,
}

impl Stored {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn read(store: &dyn Store, now: Timestamp) -> Result<Self, StoreError> {
        Ok(Self {
            now,
            feeds: store.feeds().await?,
            accounts: store.accounts().await?,
            subscriptions: store.subscriptions().await?,
            certificates: last_days(&store.certificates().await?),
            destinations: store.destinations().await?,
            alarms: store.alarms(ON).await?,
            waiting: store.waiting(),
        })
    }
}

/// The last moment of each host's signing certificate.
///
/// Of several, the one that lasts longest counts: SNS changes to a new one and leaves
/// the old one to its end.
pub fn last_days(certificates: &[CertificateRow]) -> BTreeMap<String, Timestamp> {
    let mut hosts: BTreeMap<String, Timestamp> = BTreeMap::new();
    for row in certificates {
        let host = Url::parse(&row.url).ok();
        let host = host.and_then(|url| url.host_str().map(str::to_owned));
        let (Some(host), Ok(certificate)) = (host, CertificateSummary::parse(&row.pem)) else {
            continue;
        };
        let last = certificate.not_after;
        hosts
            .entry(host)
            .and_modify(|known| *known = last.max(*known))
            .or_insert(last);
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
struct LineLabels {
    line: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DestinationLabels {
    destination: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PauseLabels {
    destination: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlarmLabels {
    kind: &'static str,
}

/// The gauges that are set anew from [`Stored`] whenever somebody asks.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    feeds: Gauge,
    feed_documents: Family<FeedLabels, Gauge>,
    feed_missed_notifications: Family<FeedLabels, Gauge>,
    feed_gaps: Family<FeedLabels, Gauge>,
    feed_failures: Family<FeedLabels, Gauge>,
    feed_up_to_date: Family<FeedLabels, Gauge>,
    feed_age: Family<FeedLabels, Gauge>,
    paused: Family<PausedLabels, Gauge>,
    subscriptions: Family<SubscriptionLabels, Gauge>,
    certificate_left: Family<HostLabels, Gauge>,
    waiting: Family<LineLabels, Gauge>,
    destination_behind: Family<DestinationLabels, Gauge>,
    destination_waiting: Family<DestinationLabels, Gauge>,
    destination_delivered: Family<DestinationLabels, Gauge>,
    destination_rejected: Family<DestinationLabels, Gauge>,
    destination_rejected_now: Family<DestinationLabels, Gauge>,
    destination_failing: Family<DestinationLabels, Gauge>,
    destination_last_success: Family<DestinationLabels, Gauge>,
    destination_paused: Family<PauseLabels, Gauge>,
    alarms: Family<AlarmLabels, Gauge>,
}

impl Gauges {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("feeds", "Feeds that are known", self.feeds.clone());
        registry.register(
            "feed_documents",
            "Document versions stored, by feed",
            self.feed_documents.clone(),
        );
        registry.register(
            "feed_missed_notifications",
            "Versions that reconciliation found before any notification, by feed",
            self.feed_missed_notifications.clone(),
        );
        registry.register(
            "feed_gaps",
            "Pages whose edge may have hidden documents, by feed",
            self.feed_gaps.clone(),
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
            "feed_age_seconds",
            "How long ago a feed was last known to be up to date",
            self.feed_age.clone(),
        );
        registry.register(
            "paused",
            "What waits for a person, by account, scope and reason",
            self.paused.clone(),
        );
        registry.register(
            "subscriptions",
            "Subscriptions by state, as stored: an unsubscribed one needs a person",
            self.subscriptions.clone(),
        );
        registry.register(
            "certificate_left_seconds",
            "How long the newest signing certificate of a host is still valid",
            self.certificate_left.clone(),
        );
        registry.register(
            "waiting",
            "What waits to be written, by line: messages, refused ones, other changes",
            self.waiting.clone(),
        );
        self.register_destinations(registry);
        registry.register(
            "alarms",
            "Alarms that are on, by kind: docs/alarms.md says what to do",
            self.alarms.clone(),
        );
    }

    fn register_destinations(&self, registry: &mut Registry) {
        for (name, help, family) in [
            (
                "destination_behind",
                "Document versions that a destination has not been given yet",
                &self.destination_behind,
            ),
            (
                "destination_waiting_seconds",
                "For how long the oldest version that a destination has not been given has waited; 0 where none does",
                &self.destination_waiting,
            ),
            (
                "destination_delivered",
                "Versions that a destination has taken since the store began",
                &self.destination_delivered,
            ),
            (
                "destination_rejected",
                "Versions that a destination has rejected since the store began",
                &self.destination_rejected,
            ),
            (
                "destination_rejected_now",
                "Versions that stand rejected now",
                &self.destination_rejected_now,
            ),
            (
                "destination_failing_seconds",
                "For how long a destination has failed without a success; 0 where it works",
                &self.destination_failing,
            ),
            (
                "destination_last_success_timestamp_seconds",
                "When a destination last took something, in Unix seconds",
                &self.destination_last_success,
            ),
        ] {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "destination_paused",
            "Destinations that are given nothing until a person resumes them, by reason",
            self.destination_paused.clone(),
        );
    }

    fn set_destinations(&self, stored: &Stored) {
        for family in [
            &self.destination_behind,
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
        for row in stored.destinations.iter().take(MAX_DESTINATION_SERIES) {
            let destination = row.name.to_string();
            let labels = DestinationLabels {
                destination: destination.clone(),
            };
            let set = |family: &Family<DestinationLabels, Gauge>, value: i64| {
                family.get_or_create(&labels).set(value);
            };
            let failing = row.failing_since.map(|since| stored.now.since(since));
            set(&self.destination_behind, row.behind);
            let waiting = row.waiting_since.map(|since| stored.now.since(since));
            set(&self.destination_waiting, waiting.map_or(0, seconds));
            set(&self.destination_delivered, gauge(row.delivered));
            set(&self.destination_rejected, gauge(row.rejected));
            set(&self.destination_rejected_now, gauge(row.rejected_now));
            set(&self.destination_failing, failing.map_or(0, seconds));
            if let Some(moment) = row.last_success_at {
                set(&self.destination_last_success, moment.as_millis() / 1_000);
            }
            for reason in DestinationPauseReason::ALL {
                let labels = PauseLabels {
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

    fn set_alarms(&self, stored: &Stored) {
        for kind in AlarmKind::ALL {
            let on = stored.alarms.iter().filter(|alarm| alarm.kind == kind);
            let labels = AlarmLabels {
                kind: kind.as_str(),
            };
            self.alarms
                .get_or_create(&labels)
                .set(gauge(on.count() as u64));
        }
    }

    pub(super) fn set(&self, stored: &Stored) {
        self.set_feeds(stored);
        self.set_paused(stored);
        self.set_destinations(stored);
        self.set_alarms(stored);
        self.subscriptions.clear();
        for row in &stored.subscriptions {
            let labels = SubscriptionLabels {
                account: row.account.to_string(),
                event: row.event.as_str(),
                state: row.state.as_str(),
            };
            self.subscriptions.get_or_create(&labels).inc();
        }
        self.certificate_left.clear();
        for (host, last) in stored.certificates.iter().take(MAX_HOST_SERIES) {
            let labels = HostLabels { host: host.clone() };
            self.certificate_left
                .get_or_create(&labels)
                .set(seconds(last.since(stored.now)));
        }
        let Waiting {
            messages,
            refused,
            changes,
        } = stored.waiting;
        for (line, length) in [
            ("messages", messages),
            ("refused", refused),
            ("changes", changes),
        ] {
            self.waiting
                .get_or_create(&LineLabels { line })
                .set(gauge(length as u64));
        }
    }

    fn set_feeds(&self, stored: &Stored) {
        self.feeds.set(gauge(stored.feeds.len() as u64));
        for family in [
            &self.feed_documents,
            &self.feed_missed_notifications,
            &self.feed_gaps,
            &self.feed_failures,
            &self.feed_up_to_date,
            &self.feed_age,
        ] {
            family.clear();
        }
        for row in stored.feeds.iter().take(MAX_FEED_SERIES) {
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
            set(&self.feed_failures, i64::from(row.failures));
            if let Some(moment) = row.up_to_date_at {
                set(&self.feed_up_to_date, moment.as_millis() / 1_000);
                set(&self.feed_age, seconds(stored.now.since(moment)));
            }
        }
    }

    fn set_paused(&self, stored: &Stored) {
        self.paused.clear();
        let feeds = stored.feeds.iter();
        let paused_feeds =
            feeds.filter_map(|row| row.paused.map(|reason| (&row.feed.account, "feed", reason)));
        let accounts = stored.accounts.iter();
        let paused_accounts =
            accounts.filter_map(|row| row.paused.map(|reason| (&row.account, "account", reason)));
        for (account, scope, reason) in paused_feeds.chain(paused_accounts) {
            let labels = PausedLabels {
                account: account.to_string(),
                scope,
                reason: reason.as_str(),
            };
            self.paused.get_or_create(&labels).inc();
        }
    }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn seconds(span: Duration) -> i64 {
    gauge(span.as_secs())
}
