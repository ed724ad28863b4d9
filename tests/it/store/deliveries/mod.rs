//! Deliveries in the store.

use std::time::Duration;

use ivesk_webhook::delivery::Delivery;
use ivesk_webhook::domain::{
    Clock, Company, Correction, DestinationName, Feed, Moment, Queue, Timestamp,
};
use ivesk_webhook::store::{
    Attempt, DeliveryFilter, DeliveryLease, DeliveryLeaseRequest, DeliveryLeased, DeliveryOutcome,
    DeliverySelection, DeliveryState, DestinationChange, DestinationFilter, DestinationPauseReason,
    DestinationRow, DocumentFilter, FreshLink, ImportErrorFilter, ImportErrorOutcome,
    ImportErrorRow, ImportErrorState, LanePlan, LaneRow, LaneSelection, LateOutcome, LeaseAction,
    LeaseRequest, NewImportError, NothingDue, PageToCommit, PullPlan, Retention, SharedStore,
    StartFrom, Store, StoreError, StoreOptions, Trigger, TriggerKind,
};
use secrecy::ExposeSecret;

use super::test_store::{HOUR, START, account, company, last_page, retention};
use crate::support::databases::{Database, Options, on_both_stores};

mod erasing;
mod growth;
mod histories;
mod import_errors;
mod leases;
mod links;
mod locks;
mod looking;
mod outcomes;
mod starting;

const LEASE: Duration = Duration::from_secs(60);
const DELIVERED: DeliveryOutcome = DeliveryOutcome::Delivered { note: None };

/// A store with one destination, `books`, for exported documents.
struct Scene {
    store: SharedStore,
    clock: Clock,
    filter: DestinationFilter,
    /// How far the vendor's clock is ahead of ours, as its answers say.
    offset: Option<i64>,
    // Last, so that the store is gone before its database.
    database: Database,
}

impl Scene {
    async fn new(database: Database) -> Self {
        let scene = Self::without_destination(database).await;
        scene.register_destination().await;
        scene
    }

    /// Stores versions of company 1 and starts the destination from the beginning.
    async fn started(database: Database, documents: &[(&str, &str)]) -> Self {
        let scene = Self::new(database).await;
        scene.pull(&company("1"), documents).await;
        scene.start(StartFrom::All).await;
        scene
    }

    async fn without_destination(database: Database) -> Self {
        Self::at(database, Clock::manual(START)).await
    }

    /// Opens a store with a clock that may be wrong.
    async fn with_correction(database: Database) -> (Self, Correction) {
        let (clock, correction) = Clock::manual(START).corrected();
        (Self::at(database, clock).await, correction)
    }

    async fn at(database: Database, clock: Clock) -> Self {
        let store = database.open(Options::at(clock.clone())).await;
        Self {
            store: store.expect("a fresh store opens"),
            clock,
            filter: DestinationFilter::all_of(Queue::Exported),
            offset: Some(0),
            database,
        }
    }

    async fn register_destination(&self) {
        let registered = self
            .store
            .register_destinations(vec![(name(), self.filter.clone())], self.clock.now());
        registered.await.expect("the destination is registered");
    }

    async fn reopen(self) -> Self {
        self.store.close().await.expect("the store closes");
        let store = self.database.open(Options::at(self.clock.clone())).await;
        Self {
            store: store.expect("the store opens again"),
            ..self
        }
    }

    /// Stores versions as one page that ends a pull.
    async fn pull(&self, feed: &Feed, documents: &[(&str, &str)]) {
        self.pull_as(feed, TriggerKind::Notification, documents, &[])
            .await;
    }

    async fn pull_as(
        &self,
        feed: &Feed,
        kind: TriggerKind,
        documents: &[(&str, &str)],
        links: &[(&str, &str, &str)],
    ) {
        let now = self.clock.now();
        if kind == TriggerKind::Notification {
            let trigger = Trigger {
                feed: feed.clone(),
                kind,
                due_at: now,
                from: None,
            };
            self.store
                .trigger(vec![trigger])
                .await
                .expect("the trigger is stored");
        }
        loop {
            let leased = self.store.lease_page(self.page_request()).await;
            let lease = leased.expect("leasing works");
            let lease = lease.expect("the feed is due");
            let matches = lease.feed == *feed && lease.kind == kind;
            let page = PageToCommit {
                clock_offset: self.offset,
                ..match matches {
                    true => page(documents, links),
                    false => page(&[], &[]),
                }
            };
            let plan = PullPlan {
                now,
                follow_ups: [HOUR, HOUR],
                reconcile_every: 1000 * HOUR,
                lookback: 24 * HOUR,
            };
            self.store
                .commit_page(lease, page, plan)
                .await
                .expect("the page is stored");
            if matches {
                return;
            }
        }
    }

    fn page_request(&self) -> LeaseRequest {
        LeaseRequest {
            now: self.clock.now(),
            lease: LEASE,
            requests_per_account: 16,
            lookback: 24 * HOUR,
            min_interval: Duration::ZERO,
            reconcile_every: 1000 * HOUR,
            queues: Queue::ALL.map(|queue| (account(), queue)).to_vec(),
        }
    }

    /// Returns true if a look for work wakes the workers of destinations.
    async fn wakes_deliveries(&self) -> bool {
        let mut arrivals = self.store.arrivals();
        arrivals.mark_unchanged();
        let looked = self.store.look_for_work(self.page_request(), vec![name()]);
        looked.await.expect("readable");
        arrivals.has_changed().expect("the store is open")
    }

    fn plan(&self) -> LanePlan {
        LanePlan {
            filter: self.filter.clone(),
            deliver_history: false,
            lookback: 24 * HOUR,
        }
    }

    fn request(&self) -> DeliveryLeaseRequest {
        DeliveryLeaseRequest {
            destination: name(),
            lanes: self.plan(),
            now: self.clock.now(),
            lease: LEASE,
            limit: 100,
            limit_bytes: 1 << 20,
            earlier_notes: true,
        }
    }

    async fn lease_with(
        &self,
        change: impl FnOnce(&mut DeliveryLeaseRequest),
    ) -> Option<DeliveryLease> {
        let mut request = self.request();
        change(&mut request);
        loop {
            let leased = self.store.lease_deliveries(request.clone()).await;
            match leased.expect("leasing works") {
                DeliveryLeased::Batch(lease) => return Some(lease),
                DeliveryLeased::Advanced => {}
                DeliveryLeased::Nothing(_) => return None,
            }
        }
    }

    async fn lease(&self) -> Option<DeliveryLease> {
        self.lease_with(|_| {}).await
    }

    /// Returns the versions that are due, in order, and releases their lease.
    async fn due(&self) -> Vec<String> {
        let Some(lease) = self.lease().await else {
            return Vec::new();
        };
        let due = names(&lease.deliveries);
        self.end(lease, Vec::new()).await;
        due
    }

    async fn settle(
        &self,
        lease: DeliveryLease,
        attempts: Vec<Attempt>,
        action: LeaseAction,
    ) -> Result<bool, StoreError> {
        self.store
            .settle_deliveries(lease, attempts, action, self.clock.now())
            .await
    }

    /// Records attempts and releases the lease.
    async fn end(&self, lease: DeliveryLease, attempts: Vec<Attempt>) {
        let ended = self.settle(lease, attempts, LeaseAction::Release).await;
        ended.expect("the owner may write");
    }

    /// Records an outcome for the first delivery and releases the lease.
    async fn end_with(&self, lease: DeliveryLease, outcome: DeliveryOutcome) {
        let attempts = vec![self.attempt(&lease.deliveries[0], outcome)];
        self.end(lease, attempts).await;
    }

    /// Records that the destination was unavailable for the first delivery.
    async fn fail(&self, lease: DeliveryLease, error: &str, until: Option<Timestamp>) {
        let failed = self.failed(&lease.deliveries[0], error, until);
        self.end(lease, vec![failed]).await;
    }

    /// Returns an attempt that asks to be repeated at a moment; without one it is closed.
    fn failed(&self, delivery: &Delivery, error: &str, until: Option<Timestamp>) -> Attempt {
        let error = error.to_owned();
        let outcome = match until {
            Some(until) => DeliveryOutcome::Unavailable {
                error,
                retry_after: Some(until.since(self.clock.now())),
            },
            None => DeliveryOutcome::Closed { error },
        };
        self.attempt(delivery, outcome)
    }

    fn attempt(&self, delivery: &Delivery, outcome: DeliveryOutcome) -> Attempt {
        Attempt {
            sequence: delivery.sequence,
            began_at: self.clock.now(),
            outcome,
        }
    }

    /// Delivers everything that is due; returns the versions.
    async fn deliver_all(&self) -> Vec<String> {
        let mut delivered = Vec::new();
        while let Some(lease) = self.lease().await {
            delivered.extend(names(&lease.deliveries));
            let attempts = lease
                .deliveries
                .iter()
                .map(|delivery| self.attempt(delivery, DELIVERED))
                .collect();
            self.end(lease, attempts).await;
        }
        delivered
    }

    async fn import_errors(&self) -> Vec<ImportErrorRow> {
        let all = ImportErrorFilter {
            limit: 10,
            ..ImportErrorFilter::default()
        };
        self.store.import_errors(all).await.expect("readable")
    }

    async fn change(&self, change: DestinationChange) -> usize {
        let changed = self
            .store
            .change_destination(name(), change, self.clock.now());
        changed
            .await
            .expect("the destination can be changed")
            .expect("the destination is known")
    }

    async fn make_lanes(&self) {
        let (plan, now) = (self.plan(), self.clock.now());
        let make = || self.store.make_lanes(name(), plan.clone(), now);
        while make().await.expect("lanes can be made") {}
    }

    async fn start(&self, from: StartFrom) -> usize {
        self.make_lanes().await;
        let lanes = LaneSelection::default();
        self.change(DestinationChange::Start { lanes, from }).await
    }

    async fn lane(&self, feed: &Feed) -> LaneRow {
        let lanes = self.store.lanes(name(), 0, 1_000).await;
        let mut lanes = lanes.expect("readable").into_iter();
        let found = lanes.find(|(_, lane)| lane.feed == *feed);
        found.expect("the feed has a lane").1
    }

    async fn destination(&self) -> DestinationRow {
        let destinations = self.store.destinations().await.expect("readable");
        let found = destinations.into_iter().find(|row| row.name == name());
        found.expect("the destination is known")
    }
}

fn name() -> DestinationName {
    DestinationName::parse("books").expect("a valid name")
}

fn names(deliveries: &[Delivery]) -> Vec<String> {
    deliveries
        .iter()
        .map(|delivery| format!("{}@{}", delivery.document_id, delivery.version))
        .collect()
}

/// Returns noon of a day in January.
fn at(day: u32) -> String {
    format!("2026-01-{day:02}T12:00:00")
}

/// Returns noon of a day in October, after the tests' clocks start.
fn new(day: u32) -> String {
    format!("2026-10-{day:02}T12:00:00")
}

fn retry_rejected() -> DestinationChange {
    let (state, company) = (DeliveryState::Rejected, None);
    DestinationChange::Retry(DeliverySelection::InState { state, company })
}

/// Returns the point at a version's moment.
fn since(version: &str) -> StartFrom {
    StartFrom::Since(Moment::read(version).expect("a moment"))
}

fn page(documents: &[(&str, &str)], links: &[(&str, &str, &str)]) -> PageToCommit {
    PageToCommit {
        links: links
            .iter()
            .map(|(id, version, url)| FreshLink {
                document_id: (*id).to_owned(),
                version: (*version).to_owned(),
                url: (*url).to_owned().into(),
            })
            .collect(),
        ..last_page(documents, Some("c"))
    }
}

fn rejected(message: &str) -> DeliveryOutcome {
    DeliveryOutcome::Rejected {
        message: message.to_owned(),
        import_error: NewImportError {
            company: Company::parse("1").ok(),
            message: format!("The document was not imported: {message}"),
        },
    }
}
