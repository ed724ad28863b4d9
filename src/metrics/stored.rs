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
    AccountRow, AlarmFilter, AlarmKind, AlarmRow, CertificateRow, FeedRow, PauseReason, SinkRow,
    Store, StoreError, SubscriptionRow, Waiting,
};

/// Feeds that get series of their own; more would burden who collects them.
const MAX_FEED_SERIES: usize = 2_000;

/// Hosts that get series of their own: signing certificates of more are not kept.
const MAX_HOST_SERIES: usize = 32;

/// Sinks that get series of their own.
const MAX_SINK_SERIES: usize = 100;

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
    /// Every sink that was ever known.
    pub sinks: Vec<SinkRow>,
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
            sinks: store.sinks().await?,
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HostLabels {
    host: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LineLabels {
    line: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SinkLabels {
    sink: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PauseLabels {
    sink: String,
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
    feed_lost_hints: Family<FeedLabels, Gauge>,
    feed_possible_gaps: Family<FeedLabels, Gauge>,
    feed_failures: Family<FeedLabels, Gauge>,
    feed_up_to_date: Family<FeedLabels, Gauge>,
    feed_age: Family<FeedLabels, Gauge>,
    parked: Family<ParkedLabels, Gauge>,
    subscriptions: Family<SubscriptionLabels, Gauge>,
    certificate_left: Family<HostLabels, Gauge>,
    waiting: Family<LineLabels, Gauge>,
    sink_behind: Family<SinkLabels, Gauge>,
    sink_waiting: Family<SinkLabels, Gauge>,
    sink_booked: Family<SinkLabels, Gauge>,
    sink_rejected: Family<SinkLabels, Gauge>,
    sink_rejected_now: Family<SinkLabels, Gauge>,
    sink_failing: Family<SinkLabels, Gauge>,
    sink_last_success: Family<SinkLabels, Gauge>,
    sink_paused: Family<PauseLabels, Gauge>,
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
            "feed_age_seconds",
            "How long ago a feed was last known to be up to date",
            self.feed_age.clone(),
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
        registry.register(
            "certificate_left_seconds",
            "How long the newest signing certificate of a host is still valid",
            self.certificate_left.clone(),
        );
        registry.register(
            "waiting",
            "What waits to be written, by line: deliveries, refused ones, other changes",
            self.waiting.clone(),
        );
        self.register_sinks(registry);
        registry.register(
            "alarms",
            "Alarms that are on, by kind: docs/alarms.md says what to do",
            self.alarms.clone(),
        );
    }

    fn register_sinks(&self, registry: &mut Registry) {
        for (name, help, family) in [
            (
                "sink_behind",
                "Document versions that a sink has not been given yet",
                &self.sink_behind,
            ),
            (
                "sink_waiting_seconds",
                "For how long the oldest version that a sink has not been given has waited; 0 where none does",
                &self.sink_waiting,
            ),
            (
                "sink_booked",
                "Versions that a sink has taken since the store began",
                &self.sink_booked,
            ),
            (
                "sink_rejected",
                "Versions that a sink has rejected since the store began",
                &self.sink_rejected,
            ),
            (
                "sink_rejected_now",
                "Versions that stand rejected now",
                &self.sink_rejected_now,
            ),
            (
                "sink_failing_seconds",
                "For how long a sink has failed without a success; 0 where it works",
                &self.sink_failing,
            ),
            (
                "sink_last_success_timestamp_seconds",
                "When a sink last took something, in Unix seconds",
                &self.sink_last_success,
            ),
        ] {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "sink_paused",
            "Sinks that are given nothing until a person resumes them, by reason",
            self.sink_paused.clone(),
        );
    }

    fn set_sinks(&self, stored: &Stored) {
        for family in [
            &self.sink_behind,
            &self.sink_waiting,
            &self.sink_booked,
            &self.sink_rejected,
            &self.sink_rejected_now,
            &self.sink_failing,
            &self.sink_last_success,
        ] {
            family.clear();
        }
        self.sink_paused.clear();
        for row in stored.sinks.iter().take(MAX_SINK_SERIES) {
            let sink = row.name.to_string();
            let labels = SinkLabels { sink: sink.clone() };
            let set = |family: &Family<SinkLabels, Gauge>, value: i64| {
                family.get_or_create(&labels).set(value);
            };
            let failing = row.failing_since.map(|since| stored.now.since(since));
            set(&self.sink_behind, row.behind);
            let waiting = row.waiting_since.map(|since| stored.now.since(since));
            set(&self.sink_waiting, waiting.map_or(0, seconds));
            set(&self.sink_booked, gauge(row.booked));
            set(&self.sink_rejected, gauge(row.rejected));
            set(&self.sink_rejected_now, gauge(row.rejected_now));
            set(&self.sink_failing, failing.map_or(0, seconds));
            if let Some(moment) = row.last_success_at {
                set(&self.sink_last_success, moment.as_millis() / 1_000);
            }
            for reason in PauseReason::ALL {
                let labels = PauseLabels {
                    sink: sink.clone(),
                    reason: reason.as_str(),
                };
                let paused = row.paused == Some(reason);
                self.sink_paused.get_or_create(&labels).set(paused.into());
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
        self.set_parked(stored);
        self.set_sinks(stored);
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
            deliveries,
            refused,
            changes,
        } = stored.waiting;
        for (line, length) in [
            ("deliveries", deliveries),
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
            &self.feed_lost_hints,
            &self.feed_possible_gaps,
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
            set(&self.feed_lost_hints, gauge(row.lost_hints));
            set(&self.feed_possible_gaps, gauge(row.possible_gaps));
            set(&self.feed_failures, i64::from(row.failures));
            if let Some(moment) = row.up_to_date_at {
                set(&self.feed_up_to_date, moment.as_millis() / 1_000);
                set(&self.feed_age, seconds(stored.now.since(moment)));
            }
        }
    }

    fn set_parked(&self, stored: &Stored) {
        self.parked.clear();
        let feeds = stored.feeds.iter();
        let parked_feeds =
            feeds.filter_map(|row| row.parked.map(|reason| (&row.feed.account, "feed", reason)));
        let accounts = stored.accounts.iter();
        let parked_accounts =
            accounts.filter_map(|row| row.parked.map(|reason| (&row.account, "account", reason)));
        for (account, scope, reason) in parked_feeds.chain(parked_accounts) {
            let labels = ParkedLabels {
                account: account.to_string(),
                scope,
                reason: reason.as_str(),
            };
            self.parked.get_or_create(&labels).inc();
        }
    }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn seconds(span: Duration) -> i64 {
    gauge(span.as_secs())
}
