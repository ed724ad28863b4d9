//! What the store promises of delivering documents, kept by the database itself.

use std::time::Duration;

use ivesk_webhook::delivery::Delivery;
use ivesk_webhook::domain::{
    Account, Clock, Company, Cursor, DestinationName, DocumentVersion, Feed, Queue, Timestamp,
};
use ivesk_webhook::store::{
    Attempt, DeliveryFilter, DeliveryLease, DeliveryLeaseRequest, DeliveryLeased, DeliveryOutcome,
    DeliveryState, DestinationChange, DestinationFilter, DestinationPauseReason, DestinationRow,
    DocumentFilter, FreshLink, ImportErrorFilter, ImportErrorOutcome, ImportErrorState,
    LateOutcome, LeaseAction, LeaseRequest, NewImportError, PageEnd, PageToCommit, PullPlan,
    Retention, SharedStore, StartFrom, StoreError, Trigger, TriggerKind,
};
use secrecy::ExposeSecret;

use crate::support::databases::on_both_stores;
use crate::support::databases::{Database, Options};

const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const LEASE: Duration = Duration::from_secs(60);

/// A store with one destination, `books`, that takes the exported queue.
struct Books {
    store: SharedStore,
    clock: Clock,
    filter: DestinationFilter,
    // Last, so that the store is gone before its database.
    database: Database,
}

impl Books {
    async fn new(database: Database) -> Self {
        let books = Self::without_destination(database).await;
        books.register_feeds().await;
        books
    }

    async fn without_destination(database: Database) -> Self {
        let clock = Clock::manual(START);
        let store = database.open(Options::at(clock.clone())).await;
        Self {
            store: store.expect("a fresh store opens"),
            clock,
            filter: DestinationFilter::all_of(Queue::Exported),
            database,
        }
    }

    async fn register_feeds(&self) {
        let known = self
            .store
            .register_destinations(vec![(name(), self.filter.clone())], self.clock.now());
        known.await.expect("the destination is made known");
    }

    async fn reopened(self) -> Self {
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
                .expect("a wish is taken");
        }
        loop {
            let request = LeaseRequest {
                now,
                lease: LEASE,
                requests_per_account: 16,
                lookback: 24 * HOUR,
                queues: Queue::ALL.map(|queue| (account(), queue)).to_vec(),
            };
            let lease = self.store.lease_page(request).await.expect("leasing works");
            let lease = lease.expect("the feed is due");
            let wanted = lease.feed == *feed && lease.kind == kind;
            let page = if wanted {
                page(documents, links)
            } else {
                page(&[], &[])
            };
            let plan = PullPlan {
                now,
                follow_ups: [1000 * HOUR, 2000 * HOUR],
                reconcile_every: 1000 * HOUR,
                lookback: 24 * HOUR,
            };
            self.store
                .commit_page(lease, page, plan)
                .await
                .expect("the page is stored");
            if wanted {
                return;
            }
        }
    }

    fn request(&self) -> DeliveryLeaseRequest {
        DeliveryLeaseRequest {
            destination: name(),
            filter: self.filter.clone(),
            deliver_history: false,
            files: false,
            now: self.clock.now(),
            lease: LEASE,
            limit: 100,
            limit_bytes: 1 << 20,
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
                DeliveryLeased::Nothing { .. } => return None,
            }
        }
    }

    async fn lease(&self) -> Option<DeliveryLease> {
        self.lease_with(|_| {}).await
    }

    /// What would be delivered now, in order; the lease is given back.
    async fn next(&self) -> Vec<String> {
        let Some(lease) = self.lease().await else {
            return Vec::new();
        };
        let next = names(&lease.deliveries);
        self.settle(lease, Vec::new(), LeaseAction::Release)
            .await
            .expect("the lease is given back");
        next
    }

    async fn settle(
        &self,
        lease: DeliveryLease,
        settled: Vec<Attempt>,
        afterwards: LeaseAction,
    ) -> Result<bool, StoreError> {
        self.store
            .settle_deliveries(lease, settled, afterwards, self.clock.now())
            .await
    }

    fn settled(&self, item: &Delivery, outcome: DeliveryOutcome) -> Attempt {
        Attempt {
            sequence: item.sequence,
            began_at: self.clock.now(),
            outcome,
        }
    }

    /// Books everything that is to be delivered, and tells what that was.
    async fn book_all(&self) -> Vec<String> {
        let mut delivered = Vec::new();
        while let Some(lease) = self.lease().await {
            delivered.extend(names(&lease.deliveries));
            let settled = lease
                .deliveries
                .iter()
                .map(|item| self.settled(item, DeliveryOutcome::Delivered { note: None }))
                .collect();
            self.settle(lease, settled, LeaseAction::Release)
                .await
                .expect("it is noted");
        }
        delivered
    }

    async fn change(&self, change: DestinationChange) -> usize {
        let changed = self
            .store
            .change_destination(name(), change, self.clock.now());
        changed
            .await
            .expect("the destination can be changed")
            .expect("there is such a destination")
    }

    async fn start(&self, from: StartFrom) -> usize {
        self.change(DestinationChange::Start {
            filter: self.filter.clone(),
            account: None,
            company: None,
            from,
        })
        .await
    }

    async fn destination(&self) -> DestinationRow {
        let destinations = self
            .store
            .destinations()
            .await
            .expect("destinations can be read");
        let found = destinations.into_iter().find(|row| row.name == name());
        found.expect("the destination is known")
    }

    async fn held(&self) -> Vec<(String, u64, bool)> {
        let held = self.store.held_feeds(name(), self.filter.clone()).await;
        held.expect("held feeds can be read")
            .into_iter()
            .map(|held| (held.feed.to_string(), held.documents, held.complete))
            .collect()
    }
}

fn name() -> DestinationName {
    DestinationName::parse("books").expect("a valid name")
}

fn account() -> Account {
    Account::parse("default").expect("a valid name")
}

fn company(code: &str) -> Feed {
    Feed::exported(account(), Company::parse(code).expect("a valid code"))
}

fn names(items: &[Delivery]) -> Vec<String> {
    items
        .iter()
        .map(|item| format!("{}@{}", item.document_id, item.version))
        .collect()
}

/// `day` of January at noon.
fn at(day: u32) -> String {
    format!("2026-01-{day:02}T12:00:00.000Z")
}

fn page(documents: &[(&str, &str)], links: &[(&str, &str, &str)]) -> PageToCommit {
    PageToCommit {
        documents: documents
            .iter()
            .map(|(id, version)| DocumentVersion {
                id: (*id).to_owned(),
                version: (*version).to_owned(),
                body: format!(r#"{{"id":"{id}","exportedat":"{version}"}}"#).into_bytes(),
            })
            .collect(),
        links: links
            .iter()
            .map(|(id, version, url)| FreshLink {
                document_id: (*id).to_owned(),
                version: (*version).to_owned(),
                url: (*url).to_owned().into(),
            })
            .collect(),
        cursor: Some(Cursor::new("c")),
        end: PageEnd::UpToDate,
        ..PageToCommit::default()
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

fn wait(item: &Delivery, at: Timestamp, error: &str, until: Option<Timestamp>) -> LeaseAction {
    LeaseAction::Wait {
        sequence: item.sequence,
        began_at: at,
        error: error.to_owned(),
        until,
    }
}

on_both_stores! {
    a_pause_leaves_the_lease_to_the_worker_in_flight,
    a_first_pull_is_held_until_a_person_starts_the_feed,
    a_feed_with_an_empty_first_pull_starts_automatically,
    a_destination_added_later_gets_no_history,
    from_now_skips_the_first_pull_even_while_it_runs,
    since_delivers_versions_from_that_moment,
    a_started_feed_can_start_earlier_without_doubles,
    versions_are_leased_in_sequence_and_once,
    an_older_version_is_never_leased_once_a_newer_one_exists,
    a_destination_filters_by_queue_and_company,
    a_stale_owner_of_a_destination_records_nothing,
    an_expired_lease_returns_its_versions,
    an_unavailable_destination_resumes_at_the_same_version,
    a_closed_destination_waits_for_a_person,
    equal_attempts_are_counted_in_one_row,
    a_rejection_is_one_import_error_for_each_text,
    a_rejected_version_is_retried_only_by_a_person,
    a_skipped_version_unblocks_the_next_one,
    a_batch_is_bounded_in_number_and_in_bytes,
    a_window_full_of_other_feeds_is_skipped,
    a_list_has_no_gaps_and_no_version_twice,
    a_program_may_report_an_outcome_later,
    an_expired_link_triggers_a_pull_and_the_version_returns,
    a_destinations_note_is_passed_to_the_next_version,
    import_errors_are_leased_sent_and_retried,
    retention_removes_bodies_once_all_destinations_are_done,
    a_version_skipped_in_flight_stays_skipped,
    exports_during_a_first_pull_follow_a_start_from_now,
    newly_matching_companies_bring_no_history_automatically,
    a_feed_filtered_out_is_held_when_it_matches_again,
    a_link_request_during_a_pull_is_served_by_the_next_one,
    an_unreadable_feed_delivers_without_files_after_a_day,
    one_failed_import_error_delays_the_accounts_others,
    everything_survives_a_restart,
}

async fn a_first_pull_is_held_until_a_person_starts_the_feed(database: Database) {
    let books = Books::new(database).await;
    let feed = company("1");
    books.pull(&feed, &[("a", &at(1)), ("b", &at(2))]).await;
    books.pull(&feed, &[("c", &at(3))]).await;
    assert!(books.next().await.is_empty());
    assert_eq!(
        books.held().await,
        [("default/exported/1".to_owned(), 3, true)]
    );

    assert_eq!(books.start(StartFrom::All).await, 1);
    assert_eq!(
        books.book_all().await,
        [
            format!("a@{}", at(1)),
            format!("b@{}", at(2)),
            format!("c@{}", at(3))
        ]
    );
    assert!(books.held().await.is_empty());
}

async fn a_feed_with_an_empty_first_pull_starts_automatically(database: Database) {
    let books = Books::new(database).await;
    let feed = company("1");
    books.pull(&feed, &[]).await;
    books.pull(&feed, &[("a", &at(1))]).await;
    assert_eq!(books.book_all().await, [format!("a@{}", at(1))]);
}

async fn a_destination_added_later_gets_no_history(database: Database) {
    let books = Books::without_destination(database).await;
    let feed = company("1");
    books.pull(&feed, &[]).await;
    books.pull(&feed, &[("a", &at(1))]).await;
    books.register_feeds().await;
    books.pull(&feed, &[("b", &at(2))]).await;
    assert!(books.next().await.is_empty());
    assert_eq!(
        books.held().await,
        [("default/exported/1".to_owned(), 2, true)]
    );
}

async fn from_now_skips_the_first_pull_even_while_it_runs(database: Database) {
    let books = Books::new(database).await;
    let (done, under_way) = (company("1"), company("2"));
    books.pull(&done, &[("a", &at(1))]).await;
    let triggered = books.store.trigger(vec![Trigger {
        feed: under_way.clone(),
        kind: TriggerKind::Reconciliation,
        due_at: books.clock.now(),
        from: None,
    }]);
    triggered.await.expect("the feed is made known");
    assert_eq!(books.start(StartFrom::Now).await, 2);
    books.pull(&under_way, &[("old", &at(1))]).await;
    books.pull(&under_way, &[("new", &at(4))]).await;
    books.pull(&done, &[("b", &at(5))]).await;
    assert_eq!(
        books.book_all().await,
        [format!("new@{}", at(4)), format!("b@{}", at(5))]
    );
}

async fn since_delivers_versions_from_that_moment(database: Database) {
    let books = Books::new(database).await;
    let feed = company("1");
    let documents = [("a", at(1)), ("b", at(2)), ("c", at(3))];
    let documents: Vec<(&str, &str)> = documents.iter().map(|(id, v)| (*id, &**v)).collect();
    books.pull(&feed, &documents).await;
    let since = Timestamp::parse(&at(2)).expect("a moment");
    books.start(StartFrom::Since(since)).await;
    books.pull(&feed, &[("d", &at(4))]).await;
    assert_eq!(
        books.book_all().await,
        [
            format!("b@{}", at(2)),
            format!("c@{}", at(3)),
            format!("d@{}", at(4))
        ]
    );
}

async fn a_started_feed_can_start_earlier_without_doubles(database: Database) {
    let books = Books::new(database).await;
    let feed = company("1");
    books.pull(&feed, &[("a", &at(1)), ("b", &at(2))]).await;
    books.start(StartFrom::Now).await;
    books.pull(&feed, &[("c", &at(3))]).await;
    assert_eq!(books.book_all().await, [format!("c@{}", at(3))]);
    let since = Timestamp::parse(&at(2)).expect("a moment");
    books.start(StartFrom::Since(since)).await;
    assert_eq!(books.book_all().await, [format!("b@{}", at(2))]);
    books.start(StartFrom::All).await;
    assert_eq!(books.book_all().await, [format!("a@{}", at(1))]);
}

async fn versions_are_leased_in_sequence_and_once(database: Database) {
    let books = Books::new(database).await;
    let (one, two) = (company("1"), company("2"));
    books.pull(&one, &[("a", &at(9))]).await;
    books.pull(&two, &[("b", &at(1))]).await;
    books.start(StartFrom::All).await;
    books.pull(&one, &[("c", &at(3)), ("d", &at(2))]).await;
    let expected = ["a", "b", "c", "d"];
    let handed_on = books.book_all().await;
    let ids: Vec<&str> = handed_on.iter().map(|name| &name[..1]).collect();
    assert_eq!(ids, expected);
    assert!(books.next().await.is_empty());
    let destination = books.destination().await;
    assert_eq!(
        (
            destination.delivered,
            destination.behind,
            destination.position
        ),
        (4, 0, 4)
    );
    assert_eq!(destination.waiting_since, None);
}

async fn an_older_version_is_never_leased_once_a_newer_one_exists(database: Database) {
    let books = Books::new(database).await;
    let feed = company("1");
    books.pull(&feed, &[("a", &at(1)), ("b", &at(1))]).await;
    books.start(StartFrom::All).await;
    books.pull(&feed, &[("a", &at(3))]).await;
    // One that comes late is older than what is there.
    books.pull(&feed, &[("a", &at(2))]).await;
    assert_eq!(
        books.book_all().await,
        [format!("b@{}", at(1)), format!("a@{}", at(3))]
    );
    // Nor when somebody tries an older one again.
    books.pull(&feed, &[("b", &at(5))]).await;
    assert_eq!(books.book_all().await, [format!("b@{}", at(5))]);
    assert_eq!(
        books
            .change(DestinationChange::Retry { sequence: Some(2) })
            .await,
        0
    );
    assert!(books.next().await.is_empty());
}

async fn a_destination_filters_by_queue_and_company(database: Database) {
    let mut books = Books::new(database).await;
    books.filter.companies = vec![Company::parse("1").expect("a code")];
    let digitized = Feed::digitized(account());
    for feed in [&company("1"), &company("2"), &digitized] {
        books.pull(feed, &[("a", &at(1))]).await;
    }
    assert_eq!(
        books.held().await,
        [("default/exported/1".to_owned(), 1, true)]
    );
    assert_eq!(books.start(StartFrom::All).await, 1);
    let lease = books.lease().await.expect("something to deliver");
    let feeds: Vec<String> = lease
        .deliveries
        .iter()
        .map(|i| i.feed.to_string())
        .collect();
    assert_eq!(feeds, ["default/exported/1"]);
}

async fn a_stale_owner_of_a_destination_records_nothing(database: Database) {
    let books = Books::new(database).await;
    books.pull(&company("1"), &[("a", &at(1))]).await;
    books.start(StartFrom::All).await;
    let stale = books.lease().await.expect("a lease");
    books.clock.advance(LEASE + Duration::from_secs(1));
    let fresh = books.lease().await.expect("the lease has run out");
    let settled = vec![books.settled(&stale.deliveries[0], rejected("stale"))];
    let refused = books.settle(stale, settled, LeaseAction::Release).await;
    assert!(matches!(refused, Err(StoreError::StaleLease)));
    let all = books.store.deliveries(DeliveryFilter {
        limit: 10,
        ..DeliveryFilter::default()
    });
    assert!(all.await.expect("readable").is_empty());
    let settled = vec![books.settled(
        &fresh.deliveries[0],
        DeliveryOutcome::Delivered { note: None },
    )];
    books
        .settle(fresh, settled, LeaseAction::Release)
        .await
        .expect("the owner notes it");
}

async fn an_expired_lease_returns_its_versions(database: Database) {
    let books = Books::new(database).await;
    books.pull(&company("1"), &[("a", &at(1))]).await;
    books.start(StartFrom::All).await;
    let lease = books.lease().await.expect("a lease");
    assert!(books.lease().await.is_none(), "it is in somebody's hands");
    books
        .settle(lease, Vec::new(), LeaseAction::Keep(2 * LEASE))
        .await
        .expect("it is renewed");
    books.clock.advance(LEASE + Duration::from_secs(1));
    assert!(books.lease().await.is_none(), "it was renewed");
    books.clock.advance(LEASE);
    assert_eq!(books.next().await, [format!("a@{}", at(1))]);
}

async fn an_unavailable_destination_resumes_at_the_same_version(database: Database) {
    let books = Books::new(database).await;
    let feed = company("1");
    books.pull(&feed, &[("a", &at(1)), ("b", &at(2))]).await;
    books.start(StartFrom::All).await;
    let lease = books.lease().await.expect("a lease");
    let until = books.clock.now().after(HOUR);
    let afterwards = wait(
        &lease.deliveries[0],
        books.clock.now(),
        "HTTP 500",
        Some(until),
    );
    books
        .settle(lease, Vec::new(), afterwards)
        .await
        .expect("it is noted");
    assert!(books.lease().await.is_none());
    let destination = books.destination().await;
    assert_eq!(destination.waits_until, Some(until));
    assert_eq!(destination.failing_since, Some(books.clock.now()));
    assert_eq!((destination.failures, destination.stuck_at), (1, Some(1)));
    assert_eq!(destination.last_error.as_deref(), Some("HTTP 500"));
    assert_eq!(destination.waiting_since, Some(START));

    // A person need not wait that long.
    assert_eq!(books.change(DestinationChange::Resume).await, 1);
    let lease = books.lease().await.expect("a lease");
    assert_eq!(lease.failures, 1);
    assert_eq!(lease.deliveries.len(), 2);
    let settled = vec![books.settled(
        &lease.deliveries[0],
        DeliveryOutcome::Delivered { note: None },
    )];
    books
        .settle(lease, settled, LeaseAction::Release)
        .await
        .expect("it is noted");
    let destination = books.destination().await;
    assert_eq!((destination.failures, destination.failing_since), (0, None));
    assert_eq!(books.next().await, [format!("b@{}", at(2))]);
}

async fn a_closed_destination_waits_for_a_person(database: Database) {
    let books = Books::new(database).await;
    books.pull(&company("1"), &[("a", &at(1))]).await;
    books.start(StartFrom::All).await;
    let lease = books.lease().await.expect("a lease");
    let afterwards = wait(&lease.deliveries[0], books.clock.now(), "HTTP 410", None);
    books
        .settle(lease, Vec::new(), afterwards)
        .await
        .expect("it is noted");
    books.clock.advance(1000 * HOUR);
    assert!(books.lease().await.is_none());
    assert_eq!(
        books.destination().await.paused,
        Some(DestinationPauseReason::Closed)
    );
    assert_eq!(books.change(DestinationChange::Resume).await, 1);
    assert_eq!(books.next().await, [format!("a@{}", at(1))]);
    let lease = books.lease().await.expect("a lease");
    assert_eq!(books.change(DestinationChange::Pause).await, 1);
    assert_eq!(books.change(DestinationChange::Pause).await, 0);
    let kept = books.settle(lease, Vec::new(), LeaseAction::Keep(LEASE));
    assert!(!kept.await.expect("it is noted"), "it was paused meanwhile");
    assert!(books.lease().await.is_none());
    assert_eq!(
        books.destination().await.paused,
        Some(DestinationPauseReason::ByHand)
    );
}

async fn a_pause_leaves_the_lease_to_the_worker_in_flight(database: Database) {
    let books = Books::new(database).await;
    books
        .pull(&company("1"), &[("a", &at(1)), ("b", &at(2))])
        .await;
    books.start(StartFrom::All).await;
    let lease = books.lease().await.expect("a lease");
    let [a, b] = [0, 1].map(|at| {
        let delivered = DeliveryOutcome::Delivered { note: None };
        books.settled(&lease.deliveries[at], delivered)
    });
    books.change(DestinationChange::Pause).await;
    let kept = books.settle(lease.clone(), vec![a], LeaseAction::Keep(LEASE));
    assert!(!kept.await.expect("it is noted"));
    // Resumed at once, while `b` is still in flight: nobody else may begin it.
    books.change(DestinationChange::Resume).await;
    assert!(books.lease().await.is_none());
    let ended = books.settle(lease, vec![b], LeaseAction::Release);
    assert!(
        !ended
            .await
            .expect("it is noted, and the lease is not stale")
    );
    assert!(books.lease().await.is_none(), "both are delivered");
    assert_eq!(books.destination().await.delivered, 2);
}

async fn equal_attempts_are_counted_in_one_row(database: Database) {
    let books = Books::new(database).await;
    books.pull(&company("1"), &[("a", &at(1))]).await;
    books.start(StartFrom::All).await;
    let first = books.clock.now();
    for (round, error) in ["HTTP 500", "HTTP 500", "timed out"].iter().enumerate() {
        let lease = books.lease().await.expect("a lease");
        let now = books.clock.now();
        let afterwards = wait(&lease.deliveries[0], now, error, Some(now.after(HOUR)));
        books
            .settle(lease, Vec::new(), afterwards)
            .await
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        books.clock.advance(HOUR);
    }
    books.book_all().await;
    let rows = books.store.deliveries(DeliveryFilter {
        sequence: Some(1),
        limit: 10,
        ..DeliveryFilter::default()
    });
    let rows = rows.await.expect("readable");
    assert_eq!(rows[0].state, DeliveryState::Delivered);
    assert_eq!(rows[0].began_at, first);
    let attempts: Vec<(&str, Option<&str>, u64)> = rows[0]
        .attempts
        .iter()
        .map(|one| (&*one.result, one.detail.as_deref(), one.times))
        .collect();
    assert_eq!(
        attempts,
        [
            ("unavailable", Some("HTTP 500"), 2),
            ("unavailable", Some("timed out"), 1),
            ("delivered", None, 1)
        ]
    );
    assert_eq!(rows[0].attempts[0].ended_at, first.after(HOUR));

    // However long it goes on, what is kept has a bound, and the first stays.
    books
        .change(DestinationChange::Retry { sequence: Some(1) })
        .await;
    for round in 0..60 {
        let lease = books.lease().await.expect("a lease");
        let now = books.clock.now();
        let afterwards = wait(
            &lease.deliveries[0],
            now,
            &format!("error {round}"),
            Some(now),
        );
        books
            .settle(lease, Vec::new(), afterwards)
            .await
            .expect("it is noted");
    }
    let rows = books.store.deliveries(DeliveryFilter {
        sequence: Some(1),
        limit: 10,
        ..DeliveryFilter::default()
    });
    let attempts = &rows.await.expect("readable")[0].attempts;
    assert!(attempts.len() <= 51, "{}", attempts.len());
    assert_eq!(attempts[0].detail.as_deref(), Some("HTTP 500"));
    let newest = attempts.last().expect("the newest");
    assert_eq!(newest.detail.as_deref(), Some("error 59"));
}

async fn a_rejection_is_one_import_error_for_each_text(database: Database) {
    let books = Books::new(database).await;
    let feed = company("1");
    books.pull(&feed, &[("a", &at(1))]).await;
    books.start(StartFrom::All).await;
    for message in ["no such VAT code", "no such VAT code", "no such account"] {
        let lease = books.lease().await.expect("a lease");
        let settled = vec![books.settled(&lease.deliveries[0], rejected(message))];
        books
            .settle(lease, settled, LeaseAction::Release)
            .await
            .expect("it is noted");
        assert_eq!(
            books
                .change(DestinationChange::Retry { sequence: None })
                .await,
            1
        );
    }
    let reports = books.store.import_errors(ImportErrorFilter {
        limit: 10,
        ..ImportErrorFilter::default()
    });
    let texts: Vec<String> = reports
        .await
        .expect("readable")
        .into_iter()
        .map(|row| row.message)
        .collect();
    assert_eq!(
        texts,
        [
            "The document was not imported: no such VAT code",
            "The document was not imported: no such account"
        ]
    );
    assert_eq!(books.destination().await.rejected, 3);
}

async fn a_rejected_version_is_retried_only_by_a_person(database: Database) {
    let books = Books::new(database).await;
    let feed = company("1");
    books.pull(&feed, &[("a", &at(1)), ("b", &at(1))]).await;
    books.start(StartFrom::All).await;
    let lease = books.lease().await.expect("a lease");
    let settled = vec![
        books.settled(&lease.deliveries[0], rejected("no")),
        books.settled(
            &lease.deliveries[1],
            DeliveryOutcome::Delivered { note: None },
        ),
    ];
    books
        .settle(lease, settled, LeaseAction::Release)
        .await
        .expect("it is noted");
    assert!(books.next().await.is_empty());
    assert_eq!(books.destination().await.rejected_now, 1);
    assert_eq!(
        books
            .change(DestinationChange::Retry { sequence: None })
            .await,
        1
    );
    assert_eq!(books.book_all().await, [format!("a@{}", at(1))]);
    assert_eq!(books.destination().await.rejected_now, 0);
}

async fn a_skipped_version_unblocks_the_next_one(database: Database) {
    let books = Books::new(database).await;
    let feed = company("1");
    books.pull(&feed, &[("a", &at(1)), ("b", &at(2))]).await;
    books.start(StartFrom::All).await;
    let lease = books.lease().await.expect("a lease");
    let until = books.clock.now().after(HOUR);
    let afterwards = wait(
        &lease.deliveries[0],
        books.clock.now(),
        "HTTP 500",
        Some(until),
    );
    books
        .settle(lease, Vec::new(), afterwards)
        .await
        .expect("it is noted");
    assert_eq!(
        books.change(DestinationChange::Skip { sequence: 1 }).await,
        1
    );
    assert_eq!(books.book_all().await, [format!("b@{}", at(2))]);
    // What is delivered can't be left out any more.
    assert_eq!(
        books.change(DestinationChange::Skip { sequence: 2 }).await,
        0
    );
    assert_eq!(
        books.change(DestinationChange::Skip { sequence: 99 }).await,
        0
    );
}

async fn a_batch_is_bounded_in_number_and_in_bytes(database: Database) {
    let books = Books::new(database).await;
    let feed = company("1");
    let version = at(1);
    let documents: Vec<(&str, &str)> = ["a", "b", "c", "d"].map(|id| (id, &*version)).to_vec();
    books.pull(&feed, &documents).await;
    books.start(StartFrom::All).await;
    let by_number = books.lease_with(|request| request.limit = 3).await;
    let by_number = by_number.expect("a lease");
    assert_eq!(by_number.deliveries.len(), 3);
    books
        .settle(by_number, Vec::new(), LeaseAction::Release)
        .await
        .expect("it is given back");
    // One is always given, however large it is.
    let by_bytes = books.lease_with(|request| request.limit_bytes = 1).await;
    assert_eq!(by_bytes.expect("a lease").deliveries.len(), 1);
}

async fn a_window_full_of_other_feeds_is_skipped(database: Database) {
    let books = Books::new(database).await;
    let ids: Vec<String> = (0..2500).map(|number| format!("x{number:04}")).collect();
    let version = at(1);
    let documents: Vec<(&str, &str)> = ids.iter().map(|id| (&**id, &*version)).collect();
    books.pull(&company("1"), &[]).await;
    assert!(
        books.next().await.is_empty(),
        "both have begun by themselves"
    );
    books.pull(&Feed::digitized(account()), &documents).await;
    books.pull(&company("1"), &[("a", &version)]).await;
    let request = books.request();
    let passed = books.store.lease_deliveries(request.clone()).await;
    assert!(matches!(passed, Ok(DeliveryLeased::Advanced)));
    assert_eq!(books.book_all().await, [format!("a@{version}")]);
}

async fn a_list_has_no_gaps_and_no_version_twice(database: Database) {
    let books = Books::new(database).await;
    let (one, two) = (company("1"), company("2"));
    books.pull(&one, &[("a", &at(1))]).await;
    books.pull(&two, &[]).await;
    books.pull(&two, &[("b", &at(2)), ("c", &at(3))]).await;
    let offer = async || {
        while let Some(lease) = books.lease().await {
            let offered = lease.deliveries.iter();
            let settled = offered
                .map(|item| books.settled(item, DeliveryOutcome::Listed))
                .collect();
            books
                .settle(lease, settled, LeaseAction::Release)
                .await
                .expect("it is noted");
        }
    };
    let list = async |after: i64| {
        let offered = books.store.listed(name(), after, 100, 1 << 20).await;
        offered
            .expect("readable")
            .into_iter()
            .map(|one| (one.number, one.delivery.document_id))
            .collect::<Vec<_>>()
    };
    offer().await;
    assert_eq!(list(0).await, [(1, "b".to_owned()), (2, "c".to_owned())]);
    // A feed that begins later comes after what was listed, whatever its numbers are.
    books.start(StartFrom::All).await;
    offer().await;
    assert_eq!(list(2).await, [(3, "a".to_owned())]);
    // So does a version that is tried again.
    books
        .change(DestinationChange::Retry { sequence: Some(2) })
        .await;
    offer().await;
    assert_eq!(list(3).await, [(4, "b".to_owned())]);
    let limited = books.store.listed(name(), 0, 100, 1).await;
    assert_eq!(limited.expect("readable").len(), 1);
}

async fn a_program_may_report_an_outcome_later(database: Database) {
    let books = Books::new(database).await;
    books.pull(&company("1"), &[("a", &at(1))]).await;
    books.start(StartFrom::All).await;
    let say = async |sequence: i64, verdict: LateOutcome| {
        let now = books.clock.now();
        let noted = books.store.record_outcome(name(), sequence, verdict, now);
        noted.await.expect("it can be noted")
    };
    assert!(!say(1, LateOutcome::Delivered).await, "it was never given");
    let lease = books.lease().await.expect("a lease");
    let settled = vec![books.settled(&lease.deliveries[0], DeliveryOutcome::Listed)];
    books
        .settle(lease, settled, LeaseAction::Release)
        .await
        .expect("it is noted");
    let no = LateOutcome::Rejected {
        message: "no".to_owned(),
        import_error: NewImportError {
            company: None,
            message: "no".to_owned(),
        },
    };
    for _ in 0..2 {
        assert!(say(1, no.clone()).await);
    }
    assert_eq!(books.destination().await.rejected, 1);
    // Nothing says whose document it is, so nobody can be told, and that is said.
    let reports = books.store.import_errors(ImportErrorFilter {
        limit: 10,
        ..ImportErrorFilter::default()
    });
    let reports = reports.await.expect("readable");
    assert_eq!(reports[0].state, ImportErrorState::Refused);
    assert!(reports[0].last_error.is_some());
    assert!(say(1, LateOutcome::Delivered).await);
    let destination = books.destination().await;
    assert_eq!((destination.delivered, destination.rejected_now), (1, 0));
}

async fn an_expired_link_triggers_a_pull_and_the_version_returns(database: Database) {
    let books = Books::new(database).await;
    let feed = company("1");
    let (one, two) = (at(1), at(2));
    let documents = [("a", &*one), ("b", &*two)];
    books.pull(&feed, &documents).await;
    // A page that nobody filter links of leaves none.
    books
        .pull_as(
            &feed,
            TriggerKind::Notification,
            &[],
            &[("b", &two, "https://x/unwanted")],
        )
        .await;
    books.start(StartFrom::All).await;
    let files = |request: &mut DeliveryLeaseRequest| request.files = true;
    let lease = books.lease_with(files).await.expect("a lease");
    assert!(lease.deliveries[1].link.is_none());
    let settled = vec![books.settled(&lease.deliveries[0], DeliveryOutcome::LinkExpired)];
    books
        .settle(lease, settled, LeaseAction::Release)
        .await
        .expect("it is noted");
    // Until the feed was read again, nothing of it comes to a destination that fetches files,
    // and all of it to one that doesn't.
    assert!(books.lease_with(files).await.is_none());
    assert_eq!(books.next().await, [format!("b@{two}")]);

    let fresh = [("a", &*one, "https://x/fresh")];
    books.clock.advance(Duration::from_secs(1));
    books
        .pull_as(&feed, TriggerKind::Reconciliation, &documents, &fresh)
        .await;
    let lease = books.lease_with(files).await.expect("a lease");
    assert_eq!(
        names(&lease.deliveries),
        [format!("a@{one}"), format!("b@{two}")]
    );
    let link = lease.deliveries[0]
        .link
        .as_ref()
        .map(ExposeSecret::expose_secret);
    assert_eq!(link, Some("https://x/fresh"));
    assert_eq!(lease.deliveries[0].link_tries, 1);

    // Where the reading that looks back brings none, the feed is read from its beginning.
    let settled = vec![books.settled(&lease.deliveries[0], DeliveryOutcome::LinkExpired)];
    books
        .settle(lease, settled, LeaseAction::Release)
        .await
        .expect("it is noted");
    books.clock.advance(Duration::from_secs(1));
    let fresh = [("a", &*one, "https://x/fresher")];
    books
        .pull_as(&feed, TriggerKind::Backfill, &documents, &fresh)
        .await;
    let lease = books.lease_with(files).await.expect("a lease");
    let link = lease.deliveries[0]
        .link
        .as_ref()
        .map(ExposeSecret::expose_secret);
    assert_eq!(link, Some("https://x/fresher"));
}

async fn a_destinations_note_is_passed_to_the_next_version(database: Database) {
    let books = Books::new(database).await;
    let feed = company("1");
    books.pull(&feed, &[]).await;
    books.pull(&feed, &[("a", &at(1))]).await;
    let lease = books.lease().await.expect("a lease");
    assert_eq!(lease.deliveries[0].earlier_note, None);
    let note = Some("1/a.json".to_owned());
    let settled = vec![books.settled(&lease.deliveries[0], DeliveryOutcome::Delivered { note })];
    books
        .settle(lease, settled, LeaseAction::Release)
        .await
        .expect("it is noted");
    books.pull(&feed, &[("a", &at(2)), ("b", &at(2))]).await;
    let lease = books.lease().await.expect("a lease");
    let notes: Vec<Option<&str>> = lease
        .deliveries
        .iter()
        .map(|item| item.earlier_note.as_deref())
        .collect();
    assert_eq!(notes, [Some("1/a.json"), None]);
}

async fn import_errors_are_leased_sent_and_retried(database: Database) {
    let books = Books::new(database).await;
    books.pull(&company("1"), &[("a", &at(1))]).await;
    books.start(StartFrom::All).await;
    let lease = books.lease().await.expect("a lease");
    let settled = vec![books.settled(&lease.deliveries[0], rejected("no"))];
    books
        .settle(lease, settled, LeaseAction::Release)
        .await
        .expect("it is noted");
    let take = async |account: Account| {
        let now = books.clock.now();
        let leased = books.store.lease_import_error(vec![account], now, LEASE);
        leased.await.expect("leasing works")
    };
    let other = Account::parse("other").expect("a name");
    assert!(take(other).await.is_none(), "another account's key");
    let stale = take(account()).await.expect("a report");
    assert_eq!(stale.row.document_id, "a");
    assert_eq!(stale.row.company.as_ref().map(Company::as_str), Some("1"));
    assert!(take(account()).await.is_none(), "it is in somebody's hands");
    books.clock.advance(LEASE + Duration::from_secs(1));
    let lease = take(account()).await.expect("the lease has run out");
    assert_eq!(lease.row.attempts, 2);
    let end = async |lease, end| {
        books
            .store
            .end_import_error(lease, end, books.clock.now())
            .await
    };
    let refused = end(stale, ImportErrorOutcome::Sent).await;
    assert!(matches!(refused, Err(StoreError::StaleLease)));
    let next_try_at = books.clock.now().after(HOUR);
    let failed = ImportErrorOutcome::Failed {
        error: "timed out".to_owned(),
        next_try_at,
        others_wait_until: books.clock.now(),
    };
    end(lease, failed).await.expect("it is noted");
    assert!(take(account()).await.is_none(), "not before its time");
    let retried = books.store.retry_import_error(1, books.clock.now()).await;
    assert!(retried.expect("it can be retried"));
    let lease = take(account()).await.expect("a report");
    end(lease, ImportErrorOutcome::Sent)
        .await
        .expect("it is noted");
    let retried = books.store.retry_import_error(1, books.clock.now()).await;
    assert!(!retried.expect("answered"), "what was sent stays sent");
    let sent = books.store.import_errors(ImportErrorFilter {
        state: Some(ImportErrorState::Sent),
        limit: 10,
        ..ImportErrorFilter::default()
    });
    let sent = sent.await.expect("readable");
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].sent_at, Some(books.clock.now()));
}

async fn retention_removes_bodies_once_all_destinations_are_done(database: Database) {
    let books = Books::new(database).await;
    let feed = company("1");
    let version = at(1);
    let ids = ["delivered", "rejected", "held"].map(|id| (id, &*version));
    books.pull(&feed, &ids[..2]).await;
    books.start(StartFrom::All).await;
    books.pull(&company("2"), &ids[2..]).await;
    let lease = books.lease().await.expect("a lease");
    let settled = vec![
        books.settled(
            &lease.deliveries[0],
            DeliveryOutcome::Delivered { note: None },
        ),
        books.settled(&lease.deliveries[1], rejected("no")),
    ];
    books
        .settle(lease, settled, LeaseAction::Release)
        .await
        .expect("it is noted");
    assert!(books.next().await.is_empty());
    let retain = async |before: Timestamp, destinations: &[DestinationName]| {
        let destinations = destinations.to_vec();
        let retention = Retention {
            notifications_before: START,
            documents_before: before,
            destinations: destinations.clone(),
            links_before: START,
            quarantine_before: START,
            alarms_before: START,
        };
        let removed = books.store.retain(retention).await.expect("retained");
        removed.document_bodies
    };
    assert_eq!(
        retain(books.clock.now(), &[name()]).await,
        0,
        "it was booked just now"
    );
    let later = books.clock.now().after(HOUR);
    assert_eq!(retain(later, &[name()]).await, 1);
    assert_eq!(retain(later, &[name()]).await, 0);
    let rows = books.store.documents(DocumentFilter {
        limit: 10,
        ..DocumentFilter::default()
    });
    let kept: Vec<String> = rows
        .await
        .expect("readable")
        .into_iter()
        .filter(|row| row.body.is_some())
        .map(|row| row.document_id)
        .collect();
    assert_eq!(kept, ["rejected", "held"]);
    // What is gone can't be delivered again; what was rejected can.
    assert_eq!(
        books
            .change(DestinationChange::Retry { sequence: Some(1) })
            .await,
        0
    );
    assert_eq!(
        books
            .change(DestinationChange::Retry { sequence: Some(2) })
            .await,
        1
    );

    // While a destination of the settings has not come so far, everything waits for it; for one
    // that they do not name any more nothing does.
    books.clock.advance(Duration::from_secs(1));
    books.book_all().await;
    let other = DestinationName::parse("behind").expect("a name");
    books
        .store
        .register_destinations(
            vec![(other.clone(), books.filter.clone())],
            books.clock.now(),
        )
        .await
        .expect("known");
    assert_eq!(retain(later, &[name(), other]).await, 0, "held there");
    assert_eq!(
        retain(later, &[name()]).await,
        1,
        "`rejected`, booked since"
    );
}

async fn a_version_skipped_in_flight_stays_skipped(database: Database) {
    let books = Books::new(database).await;
    let feed = company("1");
    books.pull(&feed, &[("a", &at(1)), ("b", &at(2))]).await;
    books.start(StartFrom::All).await;
    for expired in [false, true] {
        let lease = books.lease_with(|request| request.limit = 1).await;
        let lease = lease.expect("a lease");
        let sequence = lease.deliveries[0].sequence;
        // It is in the rows only once something has become of it.
        let now = books.clock.now();
        let wait = wait(&lease.deliveries[0], now, "HTTP 500", Some(now));
        let keep = LeaseAction::Keep(LEASE);
        let settled = match expired {
            true => vec![books.settled(&lease.deliveries[0], DeliveryOutcome::LinkExpired)],
            false => Vec::new(),
        };
        assert_eq!(books.change(DestinationChange::Skip { sequence }).await, 1);
        let afterwards = if expired { keep } else { wait };
        books
            .settle(lease.clone(), settled, afterwards)
            .await
            .expect("it is noted");
        if expired {
            books
                .settle(lease, Vec::new(), LeaseAction::Release)
                .await
                .expect("it is given back");
        }
        let destination = books.destination().await;
        assert_eq!(
            (destination.stuck_at, destination.waits_until),
            (None, None)
        );
    }
    assert!(books.next().await.is_empty());
}

async fn exports_during_a_first_pull_follow_a_start_from_now(database: Database) {
    let books = Books::new(database).await;
    let feed = company("1");
    books
        .store
        .register_feeds(vec![feed.clone()], books.clock.now())
        .await
        .expect("the feed is known");
    books.start(StartFrom::Now).await;
    let later = books
        .clock
        .now()
        .after(Duration::from_secs(300))
        .to_string();
    books
        .pull_as(
            &feed,
            TriggerKind::Reconciliation,
            &[("old", &at(1)), ("new", &later)],
            &[],
        )
        .await;
    assert_eq!(books.book_all().await, [format!("new@{later}")]);
}

async fn newly_matching_companies_bring_no_history_automatically(database: Database) {
    let mut books = Books::without_destination(database).await;
    books.filter.companies = vec![Company::parse("1").expect("a code")];
    books.register_feeds().await;
    let other = company("2");
    books.pull(&other, &[]).await;
    books.pull(&other, &[("delivered", &at(1))]).await;
    assert!(books.next().await.is_empty());
    books
        .filter
        .companies
        .push(Company::parse("2").expect("a code"));
    books.register_feeds().await;
    assert!(books.next().await.is_empty());
    assert_eq!(
        books.held().await,
        [("default/exported/2".to_owned(), 1, true)]
    );
}

async fn a_feed_filtered_out_is_held_when_it_matches_again(database: Database) {
    let mut books = Books::new(database).await;
    let (one, two) = (company("1"), company("2"));
    for feed in [&one, &two] {
        books.pull(feed, &[]).await;
    }
    books.pull(&two, &[("a", &at(1))]).await;
    assert_eq!(books.book_all().await, [format!("a@{}", at(1))]);
    books.filter.companies = vec![Company::parse("1").expect("a code")];
    books.register_feeds().await;
    books.pull(&two, &[("missed", &at(2))]).await;
    books.pull(&one, &[("b", &at(2))]).await;
    assert_eq!(books.book_all().await, [format!("b@{}", at(2))]);
    books.filter.companies = Vec::new();
    books.register_feeds().await;
    assert!(books.next().await.is_empty());
    assert_eq!(
        books.held().await,
        [("default/exported/2".to_owned(), 2, true)]
    );
    books.start(StartFrom::All).await;
    assert_eq!(books.book_all().await, [format!("missed@{}", at(2))]);
}

async fn a_link_request_during_a_pull_is_served_by_the_next_one(database: Database) {
    let books = Books::new(database).await;
    let feed = company("1");
    let one = at(1);
    books.pull(&feed, &[("a", &one)]).await;
    books.start(StartFrom::All).await;
    let files = |request: &mut DeliveryLeaseRequest| request.files = true;
    let lease = books.lease_with(files).await.expect("a lease");
    // A reconciliation is under way: it has given the page that held the document already.
    let now = books.clock.now();
    let request = LeaseRequest {
        now,
        lease: LEASE,
        requests_per_account: 16,
        lookback: 24 * HOUR,
        queues: vec![(account(), Queue::Exported)],
    };
    books
        .store
        .trigger_reconciliation(now)
        .await
        .expect("it is due");
    let under_way = books.store.lease_page(request.clone()).await;
    let under_way = under_way.expect("leasing works").expect("it is due");
    books.clock.advance(Duration::from_secs(1));
    let settled = vec![books.settled(&lease.deliveries[0], DeliveryOutcome::LinkExpired)];
    books
        .settle(lease, settled, LeaseAction::Release)
        .await
        .expect("it is noted");
    let plan = PullPlan {
        now: books.clock.now(),
        follow_ups: [1000 * HOUR, 2000 * HOUR],
        reconcile_every: 1000 * HOUR,
        lookback: 24 * HOUR,
    };
    books
        .store
        .commit_page(under_way, page(&[], &[]), plan)
        .await
        .expect("it ends");
    assert!(books.lease_with(files).await.is_none());
    books.clock.advance(Duration::from_secs(1));
    let fresh = [("a", &*one, "https://x/fresh")];
    books
        .pull_as(&feed, TriggerKind::Reconciliation, &[("a", &one)], &fresh)
        .await;
    let lease = books.lease_with(files).await.expect("it comes again");
    assert!(lease.deliveries[0].link.is_some());
}

async fn an_unreadable_feed_delivers_without_files_after_a_day(database: Database) {
    let books = Books::new(database).await;
    let feed = company("1");
    books.pull(&feed, &[("a", &at(1)), ("b", &at(1))]).await;
    books.start(StartFrom::All).await;
    let files = |request: &mut DeliveryLeaseRequest| request.files = true;
    let lease = books.lease_with(files).await.expect("a lease");
    let settled = vec![books.settled(&lease.deliveries[0], DeliveryOutcome::LinkExpired)];
    books
        .settle(lease, settled, LeaseAction::Release)
        .await
        .expect("it is noted");
    books.clock.advance(2 * HOUR);
    let mut request = books.request();
    request.files = true;
    let leased = books.store.lease_deliveries(request).await.expect("works");
    let DeliveryLeased::Nothing { until } = leased else {
        panic!("{leased:?}");
    };
    let in_time = until.is_none_or(|until| until > books.clock.now());
    assert!(in_time, "asking again at once would be of no use");
    books.clock.advance(23 * HOUR);
    let lease = books.lease_with(files).await.expect("a day was enough");
    let ids: Vec<&str> = lease.deliveries.iter().map(|i| &*i.document_id).collect();
    assert_eq!(ids, ["a", "b"]);
    assert!(lease.deliveries.iter().all(|item| item.link_tries > 100));
}

async fn one_failed_import_error_delays_the_accounts_others(database: Database) {
    let books = Books::new(database).await;
    let feed = company("1");
    books.pull(&feed, &[("a", &at(1)), ("b", &at(1))]).await;
    books.start(StartFrom::All).await;
    let lease = books.lease().await.expect("a lease");
    let settled = vec![
        books.settled(&lease.deliveries[0], rejected("no")),
        books.settled(&lease.deliveries[1], rejected("no")),
    ];
    books
        .settle(lease, settled, LeaseAction::Release)
        .await
        .expect("it is noted");
    let take = async || {
        let now = books.clock.now();
        let leased = books
            .store
            .lease_import_error(vec![account()], now, LEASE)
            .await;
        leased.expect("leasing works")
    };
    let first = take().await.expect("a report");
    let now = books.clock.now();
    let failed = ImportErrorOutcome::Failed {
        error: "HTTP 503".to_owned(),
        next_try_at: now.after(10 * HOUR),
        others_wait_until: now.after(HOUR),
    };
    let id = first.row.id;
    books
        .store
        .end_import_error(first, failed, now)
        .await
        .expect("it is noted");
    assert!(take().await.is_none());
    books.clock.advance(HOUR);
    let second = take().await.expect("the other one");
    assert_ne!(second.row.id, id);
}

async fn everything_survives_a_restart(database: Database) {
    let books = Books::new(database).await;
    let feed = company("1");
    books.pull(&feed, &[("a", &at(1)), ("b", &at(2))]).await;
    books.start(StartFrom::All).await;
    let lease = books.lease_with(|request| request.limit = 1).await;
    let lease = lease.expect("a lease");
    let settled = vec![books.settled(&lease.deliveries[0], rejected("no"))];
    books
        .settle(lease, settled, LeaseAction::Keep(LEASE))
        .await
        .expect("it is noted");
    let books = books.reopened().await;
    // A file has one server, so its leases end with it; a database may have others.
    books.clock.advance(LEASE + Duration::from_secs(1));
    assert_eq!(books.next().await, [format!("b@{}", at(2))]);
    assert_eq!(books.destination().await.rejected_now, 1);
    books.register_feeds().await;
    assert_eq!(books.destination().await.rejected_now, 1);
}
