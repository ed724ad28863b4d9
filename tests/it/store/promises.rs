//! The store's promises, kept by the database itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use ivesk_webhook::config::SnsConfig;
use ivesk_webhook::domain::{
    Account, Clock, Company, Cursor, DocumentVersion, Event, Feed, Queue, Timestamp,
};
use ivesk_webhook::emulator::signer::{Signer, Unsigned};
use ivesk_webhook::sns::{
    CertificateStore, Envelope, MessageType, SnsHeaders, VerifiedMessage, Verifier,
};
use ivesk_webhook::store::sqlite::{SqliteOptions, SqliteStore};
use ivesk_webhook::store::{
    AcceptedMessage, AlarmFilter, AlarmKind, AlarmObservation, AlarmRow, ApiTokenMade,
    DocumentFilter, DocumentSearch, FeedPauseReason, FeedRow, Finding, HourCount, Insertion,
    LeaseRequest, MAX_API_TOKENS, NewApiToken, NewUpload, NoticeEnd, PageEnd, PageFailure,
    PageLease, PageOutcome, PageToCommit, PullPlan, Quarantined, RefusedCount, Retention, Rights,
    SharedStore, Store, StoreError, SubscriptionChange, SubscriptionState, Trigger, TriggerKind,
    UnreadableEntry, UploadBegun, UploadEnd, UploadFilter, UploadReturn,
};

use crate::support::databases::{Database, Options, on_both_stores};

const HOUR: Duration = Duration::from_secs(3600);
const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const TOPIC: &str = "arn:aws:sns:eu-west-1:007272210889:DPWebHook_onexport";

/// A store of its own, with a clock that the test sets.
struct TestStore {
    store: SharedStore,
    clock: Clock,
    // Last, so that the store is gone before its database.
    database: Database,
}

impl TestStore {
    async fn new(database: Database) -> Self {
        Self::with(database, |_| {}).await
    }

    async fn with(database: Database, change: impl FnOnce(&mut Options)) -> Self {
        let clock = Clock::manual(START);
        let mut options = Options::at(clock.clone());
        change(&mut options);
        Self {
            store: database.open(options).await.expect("a fresh store opens"),
            clock,
            database,
        }
    }

    fn path(&self) -> PathBuf {
        self.database.folder().join("test.db")
    }

    /// Closes and opens again, as after a restart.
    async fn reopened(self) -> Self {
        self.store.close().await.expect("the store closes");
        let store = self.database.open(Options::at(self.clock.clone())).await;
        Self {
            store: store.expect("the store opens again"),
            ..self
        }
    }

    async fn trigger(&self, feed: &Feed, kind: TriggerKind) {
        let trigger = Trigger {
            feed: feed.clone(),
            kind,
            due_at: self.clock.now(),
            from: None,
        };
        self.store
            .trigger(vec![trigger])
            .await
            .expect("a trigger is taken");
    }

    fn request(&self) -> LeaseRequest {
        LeaseRequest {
            now: self.clock.now(),
            lease: Duration::from_secs(120),
            requests_per_account: 1,
            lookback: 24 * HOUR,
            queues: Queue::ALL.map(|queue| (account(), queue)).to_vec(),
        }
    }

    async fn lease(&self) -> Option<PageLease> {
        self.store
            .lease_page(self.request())
            .await
            .expect("leasing works")
    }

    fn plan(&self) -> PullPlan {
        PullPlan {
            now: self.clock.now(),
            follow_ups: [Duration::from_secs(30), Duration::from_secs(300)],
            reconcile_every: HOUR,
            lookback: 24 * HOUR,
        }
    }

    async fn commit(
        &self,
        lease: PageLease,
        page: PageToCommit,
    ) -> Result<PageOutcome, StoreError> {
        self.store.commit_page(lease, page, self.plan()).await
    }

    /// Serves everything that is due with empty last pages, and tells what it was.
    async fn drain(&self) -> Vec<TriggerKind> {
        let mut served = Vec::new();
        while let Some(lease) = self.lease().await {
            served.push(lease.kind);
            self.commit(lease, last_page(&[], None))
                .await
                .expect("an empty page is stored");
        }
        served
    }

    async fn feed(&self, feed: &Feed) -> FeedRow {
        let feeds = self.store.feeds().await.expect("feeds can be read");
        feeds
            .into_iter()
            .find(|row| row.feed == *feed)
            .expect("the feed is known")
    }

    async fn stored(&self) -> Vec<(i64, String, String, bool)> {
        let filter = DocumentFilter {
            limit: 10_000,
            ..DocumentFilter::default()
        };
        let rows = self
            .store
            .documents(filter)
            .await
            .expect("documents can be read");
        rows.into_iter()
            .map(|row| (row.sequence, row.document_id, row.version, row.superseded))
            .collect()
    }
}

fn options(path: &Path) -> SqliteOptions {
    SqliteOptions {
        path: path.to_owned(),
        queue: 4096,
        quarantine_bytes: 64 << 20,
        ask: false,
    }
}

fn account() -> Account {
    Account::parse("default").expect("a valid name")
}

fn company(code: &str) -> Feed {
    Feed::exported(account(), Company::parse(code).expect("a valid code"))
}

fn documents(ids: &[(&str, &str)]) -> Vec<DocumentVersion> {
    ids.iter()
        .map(|(id, version)| DocumentVersion {
            id: (*id).to_owned(),
            version: (*version).to_owned(),
            body: format!(r#"{{"id":"{id}","exportedat":"{version}"}}"#).into_bytes(),
        })
        .collect()
}

fn page(ids: &[(&str, &str)], next: &str) -> PageToCommit {
    PageToCommit {
        documents: documents(ids),
        cursor: Some(Cursor::new(next)),
        next_from: Some(Cursor::new(next)),
        end: PageEnd::More,
        ..PageToCommit::default()
    }
}

fn nameless(dedup_key: &str, body: &str) -> UnreadableEntry {
    UnreadableEntry {
        dedup_key: dedup_key.into(),
        body: body.into(),
    }
}

fn last_page(ids: &[(&str, &str)], cursor: Option<&str>) -> PageToCommit {
    PageToCommit {
        documents: documents(ids),
        cursor: cursor.map(Cursor::new),
        end: PageEnd::UpToDate,
        ..PageToCommit::default()
    }
}

/// Signs messages and proves them, without any network.
struct Messages {
    signer: Signer,
    verifier: Verifier,
}

const CERTIFICATE_HOST: &str = "https://sns.eu-west-1.amazonaws.com";

struct OneCertificate(String, Vec<u8>);

#[async_trait]
impl CertificateStore for OneCertificate {
    async fn load(&self) -> Vec<(String, Vec<u8>)> {
        vec![(self.0.clone(), self.1.clone())]
    }
    async fn save(&self, _: &str, _: &[u8]) {}
}

impl Messages {
    fn new() -> Self {
        let signer = Signer::generate(
            "sns.amazonaws.com",
            START.before(HOUR),
            START.after(24 * HOUR),
        )
        .expect("a signer");
        let url = format!("{CERTIFICATE_HOST}{}", signer.certificate_path());
        let certificates = OneCertificate(url, signer.certificate_pem().as_bytes().to_vec());
        let verifier = Verifier::new(
            &SnsConfig::default().settings(),
            Arc::new(certificates),
            Clock::manual(START),
        )
        .expect("a verifier");
        Self { signer, verifier }
    }

    async fn verified(
        &self,
        id: &str,
        message_type: MessageType,
        published: Timestamp,
    ) -> VerifiedMessage {
        let confirms = message_type != MessageType::Notification;
        let unsigned = Unsigned {
            message_type,
            message_id: id.to_owned(),
            topic_arn: TOPIC.to_owned(),
            subject: None,
            message: r#"{"companyCode":"302320404"}"#.to_owned(),
            timestamp: published.to_string(),
            token: confirms.then(|| "2336412f37".to_owned()),
            subscribe_url: confirms.then(|| {
                format!("{CERTIFICATE_HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336412f37")
            }),
            unsubscribe_url: None,
            attributes: serde_json::Map::new(),
        };
        let url = format!("{CERTIFICATE_HOST}{}", self.signer.certificate_path());
        let body = Bytes::from(self.signer.sign(&unsigned, 2, &url));
        let envelope =
            Envelope::parse(body, &SnsHeaders::default()).expect("a well-formed message");
        self.verifier
            .verify(envelope)
            .await
            .expect("a genuine message")
    }

    async fn accepted(&self, id: &str, trigger: Option<Feed>) -> AcceptedMessage {
        AcceptedMessage {
            account: account(),
            event: Event::OnExported,
            message: self.verified(id, MessageType::Notification, START).await,
            received_at: START,
            trigger,
        }
    }

    async fn confirmation(
        &self,
        id: &str,
        message_type: MessageType,
        published: Timestamp,
    ) -> AcceptedMessage {
        AcceptedMessage {
            account: account(),
            event: Event::OnExported,
            message: self.verified(id, message_type, published).await,
            received_at: START,
            trigger: None,
        }
    }
}

on_both_stores! {
    one_message_sent_eight_times_is_one_row_and_one_pull,
    ten_thousand_triggers_of_one_feed_are_one_pull,
    a_trigger_during_a_pull_is_served_by_another_pull,
    a_stale_owner_writes_nothing,
    a_page_stored_twice_is_stored_once,
    an_overlap_read_moves_the_cursor_with_its_last_page_only,
    a_trigger_does_not_restart_a_first_pull,
    versions_that_reconciliation_finds_count_as_missed,
    a_served_trigger_has_two_follow_ups_that_stay_due,
    follow_ups_survive_a_restart,
    notifications_go_first_and_companies_take_turns,
    an_accounts_requests_in_flight_are_bounded,
    a_newer_version_supersedes_in_whichever_order_they_arrive,
    a_page_of_another_company_pauses_the_feed,
    a_paused_feed_is_retried_later_and_freed_by_success,
    an_accounts_wait_holds_back_all_its_feeds,
    a_blocked_queue_keeps_its_triggers,
    a_feed_knows_if_its_401_is_about_the_key,
    an_account_that_this_process_does_not_know_is_left_alone,
    a_backfill_has_its_own_position_and_leaves_the_cursor,
    companies_of_the_digitized_queue_become_feeds,
    a_confirmation_is_pending_and_then_confirmed_once,
    subscribing_again_reuses_the_topics_row,
    in_ask_mode_a_confirmation_waits_for_approval,
    an_unsubscription_older_than_the_confirmation_is_ignored,
    the_quarantine_is_bounded_with_a_share_for_allowed_topics,
    retention_removes_bodies_and_never_identities,
    one_content_is_claimed_by_one_process_unless_forced,
    a_document_is_matched_to_its_upload_once,
    a_token_is_found_by_its_hash_until_it_is_revoked,
    tokens_are_few_and_their_names_differ,
    activity_is_counted_by_the_hour,
    a_search_reads_a_bounded_part_and_continues_to_the_end,
    an_alarm_begins_once_and_ends_once_whoever_checks,
    an_alarm_seen_by_one_process_lingers_for_a_while,
    alarms_are_notified_in_order_by_one_process_at_a_time,
    alarms_without_a_target_are_not_notified_later,
    ended_alarms_are_forgotten_and_active_ones_are_not,
    documents_since_the_last_notification_are_unannounced,
    a_full_queue_answers_at_once_and_loses_nothing_queued,
    a_closed_store_says_so_and_has_stored_what_it_accepted,
}

fn uuid(n: u32) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

async fn one_message_sent_eight_times_is_one_row_and_one_pull(on: Database) {
    let test = TestStore::new(on).await;
    let messages = Messages::new();
    let feed = company("302320404");
    let mut copies = Vec::new();
    for _ in 0..8 {
        copies.push(messages.accepted(&uuid(1), Some(feed.clone())).await);
    }
    let outcomes =
        futures_util::future::join_all(copies.into_iter().map(|copy| test.store.accept(copy)))
            .await;
    let new = outcomes
        .into_iter()
        .filter(|outcome| matches!(outcome, Ok(Insertion::New)))
        .count();
    assert_eq!(new, 1);
    assert_eq!(
        test.store
            .notifications(0, 10)
            .await
            .expect("readable")
            .len(),
        1
    );
    let hints = test
        .drain()
        .await
        .into_iter()
        .filter(|kind| *kind == TriggerKind::Notification)
        .count();
    assert_eq!(hints, 1);
}

async fn ten_thousand_triggers_of_one_feed_are_one_pull(on: Database) {
    let test = TestStore::with(on, |options| options.queue = 20_000).await;
    let messages = Messages::new();
    let feed = company("302320404");
    // One signature serves as many ids as there are accounts and events; here hints
    // come from the same call that ingest makes for each.
    let first = messages.accepted(&uuid(1), Some(feed.clone())).await;
    test.store.accept(first).await.expect("accepted");
    for _ in 0..100 {
        let triggers = (0..100)
            .map(|_| Trigger {
                feed: feed.clone(),
                kind: TriggerKind::Notification,
                due_at: START,
                from: None,
            })
            .collect();
        test.store.trigger(triggers).await.expect("triggered");
    }
    assert_eq!(
        test.drain().await,
        [TriggerKind::Notification, TriggerKind::Reconciliation]
    );
}

async fn a_trigger_during_a_pull_is_served_by_another_pull(on: Database) {
    let test = TestStore::new(on).await;
    let feed = company("1");
    test.trigger(&feed, TriggerKind::Notification).await;
    let lease = test.lease().await.expect("the hint is due");
    test.trigger(&feed, TriggerKind::Notification).await;
    assert!(test.lease().await.is_none(), "one pull for a feed");
    test.commit(lease, last_page(&[], None))
        .await
        .expect("committed");
    assert_eq!(
        test.lease().await.expect("the later hint is due").kind,
        TriggerKind::Notification
    );
}

async fn a_stale_owner_writes_nothing(on: Database) {
    let test = TestStore::new(on).await;
    let feed = company("1");
    test.trigger(&feed, TriggerKind::Notification).await;
    let stale = test.lease().await.expect("leased");
    test.clock.advance(Duration::from_secs(121));
    let owner = test
        .lease()
        .await
        .expect("the lease ran out, so another worker has it");
    assert!(matches!(
        test.commit(stale.clone(), page(&[("a", "1")], "1")).await,
        Err(StoreError::StaleLease)
    ));
    let failure = PageFailure::FeedWaits(test.clock.now().after(HOUR));
    assert!(matches!(
        test.store
            .fail_page(stale.clone(), failure, "late".to_owned())
            .await,
        Err(StoreError::StaleLease)
    ));
    test.store
        .release_page(stale)
        .await
        .expect("giving back what one has lost changes nothing");
    assert!(test.lease().await.is_none(), "the owner still holds it");
    test.commit(owner, last_page(&[("a", "1")], Some("1")))
        .await
        .expect("the owner may write");
    assert_eq!(test.stored().await.len(), 1);
}

async fn a_page_stored_twice_is_stored_once(on: Database) {
    let test = TestStore::new(on).await;
    let feed = company("1");
    for _ in 0..2 {
        test.trigger(&feed, TriggerKind::Notification).await;
        let lease = test.lease().await.expect("leased");
        test.commit(lease, last_page(&[("a", "1"), ("b", "2")], Some("2")))
            .await
            .expect("committed");
    }
    let expected = [
        (1, "a".to_owned(), "1".to_owned(), false),
        (2, "b".to_owned(), "2".to_owned(), false),
    ];
    assert_eq!(test.stored().await, expected);
    assert_eq!(test.feed(&feed).await.documents, 2);
    assert_eq!(test.store.sequence().await.expect("readable").last, 2);
}

async fn an_overlap_read_moves_the_cursor_with_its_last_page_only(on: Database) {
    let test = TestStore::new(on).await;
    let feed = company("1");
    test.trigger(&feed, TriggerKind::Notification).await;
    let lease = test.lease().await.expect("leased");
    test.commit(
        lease,
        last_page(
            &[("a", "2026-09-20T00:00:00.000Z")],
            Some("2026-09-20T00:00:00.000Z"),
        ),
    )
    .await
    .expect("ok");
    test.clock.advance(25 * HOUR);
    test.trigger(&feed, TriggerKind::Notification).await;
    let lease = test.lease().await.expect("leased");
    assert_eq!(
        lease.position.from,
        Some(Cursor::new("2026-09-20T00:00:00.000Z"))
    );
    test.commit(lease, last_page(&[("b", "5")], Some("5")))
        .await
        .expect("ok");

    let overlap = test
        .lease()
        .await
        .expect("a follow-up or the reconciliation is due");
    assert!(overlap.kind.overlaps());
    assert_eq!(
        overlap.position.from,
        Some(Cursor::new("2026-09-20T00:00:00.000Z")),
        "the newest that is old enough"
    );
    let kind = overlap.kind;
    test.commit(overlap, page(&[("late", "3")], "3"))
        .await
        .expect("ok");
    assert_eq!(
        test.feed(&feed).await.cursor,
        Some(Cursor::new("5")),
        "its first page leaves the cursor"
    );

    let test = test.reopened().await;
    let overlap = test.lease().await.expect("it goes on after a restart");
    assert_eq!(
        (overlap.kind, overlap.position.from.clone()),
        (kind, Some(Cursor::new("3")))
    );
    test.commit(overlap, last_page(&[("b", "5")], Some("6")))
        .await
        .expect("ok");
    assert_eq!(test.feed(&feed).await.cursor, Some(Cursor::new("6")));
    assert_eq!(test.stored().await.len(), 3);
}

async fn a_trigger_does_not_restart_a_first_pull(on: Database) {
    let test = TestStore::new(on).await;
    let feed = company("1");
    test.trigger(&feed, TriggerKind::Reconciliation).await;
    let lease = test.lease().await.expect("leased");
    assert!(lease.first_pull);
    test.commit(lease, page(&[("a", "1")], "1"))
        .await
        .expect("ok");
    test.trigger(&feed, TriggerKind::Notification).await;
    let hint = test.lease().await.expect("the hint goes first");
    assert_eq!(
        (hint.kind, hint.position.from.clone()),
        (TriggerKind::Notification, Some(Cursor::new("1")))
    );
    test.commit(hint, last_page(&[("b", "2")], Some("2")))
        .await
        .expect("ok");
    let row = test.feed(&feed).await;
    assert!(row.first_complete_at.is_some());
    assert_eq!((row.documents, row.missed_notifications), (2, 0));
}

async fn versions_that_reconciliation_finds_count_as_missed(on: Database) {
    let test = TestStore::new(on).await;
    let feed = company("1");
    test.trigger(&feed, TriggerKind::Notification).await;
    test.drain().await;
    test.clock.advance(2 * HOUR);
    test.drain().await;
    test.clock.advance(2 * HOUR);
    let lease = test.lease().await.expect("an hour has passed");
    assert_eq!(lease.kind, TriggerKind::Reconciliation);
    let outcome = test
        .commit(lease, last_page(&[("a", "1"), ("b", "1")], Some("1")))
        .await
        .expect("ok");
    assert!(
        matches!(outcome, PageOutcome::Committed(committed) if committed.missed_notifications == 2)
    );
    assert_eq!(test.feed(&feed).await.missed_notifications, 2);
}

async fn a_served_trigger_has_two_follow_ups_that_stay_due(on: Database) {
    let test = TestStore::new(on).await;
    let feed = company("1");
    test.trigger(&feed, TriggerKind::Notification).await;
    assert_eq!(
        test.drain().await,
        [TriggerKind::Notification, TriggerKind::Reconciliation]
    );
    test.clock.advance(Duration::from_secs(20));
    test.trigger(&feed, TriggerKind::Notification).await;
    assert_eq!(test.drain().await, [TriggerKind::Notification]);
    test.clock.advance(Duration::from_secs(10));
    assert_eq!(
        test.drain().await,
        [TriggerKind::FollowUp],
        "30 s after the first hint"
    );
    test.clock.advance(Duration::from_secs(20));
    assert_eq!(
        test.drain().await,
        [TriggerKind::FollowUp],
        "30 s after the second"
    );
    test.clock.advance(Duration::from_secs(250));
    assert_eq!(test.drain().await, [TriggerKind::LateFollowUp]);
    test.clock.advance(Duration::from_secs(20));
    assert_eq!(test.drain().await, [TriggerKind::LateFollowUp]);
    test.clock.advance(Duration::from_secs(600));
    assert!(test.drain().await.is_empty());
}

async fn follow_ups_survive_a_restart(on: Database) {
    let test = TestStore::new(on).await;
    test.trigger(&company("1"), TriggerKind::Notification).await;
    test.drain().await;
    let test = test.reopened().await;
    test.clock.advance(Duration::from_secs(300));
    assert_eq!(
        test.drain().await,
        [TriggerKind::FollowUp, TriggerKind::LateFollowUp]
    );
}

async fn notifications_go_first_and_companies_take_turns(on: Database) {
    let test = TestStore::new(on).await;
    let (a, b) = (company("a"), company("b"));
    test.trigger(&a, TriggerKind::Backfill).await;
    test.trigger(&b, TriggerKind::Notification).await;
    test.trigger(&a, TriggerKind::Notification).await;
    let mut order = Vec::new();
    for _ in 0..4 {
        let lease = test.lease().await.expect("leased");
        order.push((lease.kind, lease.feed.company.to_string()));
        test.clock.advance(Duration::from_millis(1));
        test.commit(lease, page(&[], "x")).await.expect("ok");
    }
    let companies: Vec<_> = order.iter().map(|(_, company)| company.as_str()).collect();
    assert!(
        order
            .iter()
            .all(|(kind, _)| *kind == TriggerKind::Notification),
        "{order:?}"
    );
    assert!(
        companies == ["a", "b", "a", "b"] || companies == ["b", "a", "b", "a"],
        "{order:?}"
    );
}

async fn an_accounts_requests_in_flight_are_bounded(on: Database) {
    let test = TestStore::new(on).await;
    for n in 0..10 {
        test.trigger(&company(&n.to_string()), TriggerKind::Notification)
            .await;
    }
    let request = LeaseRequest {
        requests_per_account: 3,
        ..test.request()
    };
    let mut leased = Vec::new();
    while let Some(lease) = test
        .store
        .lease_page(request.clone())
        .await
        .expect("leasing works")
    {
        leased.push(lease);
    }
    assert_eq!(leased.len(), 3);
}

async fn a_newer_version_supersedes_in_whichever_order_they_arrive(on: Database) {
    let test = TestStore::new(on).await;
    let feed = company("1");
    let versions = [
        "2026-01-02T00:00:00.000Z",
        "2026-01-03T00:00:00.000Z",
        "2026-01-01T00:00:00.000Z",
    ];
    for version in versions {
        test.trigger(&feed, TriggerKind::Notification).await;
        let lease = test.lease().await.expect("leased");
        test.commit(lease, last_page(&[("a", version)], None))
            .await
            .expect("ok");
    }
    let current: Vec<_> = test
        .stored()
        .await
        .into_iter()
        .map(|(_, _, version, superseded)| (version, superseded))
        .collect();
    assert_eq!(
        current,
        [
            (versions[0].to_owned(), true),
            (versions[1].to_owned(), false),
            (versions[2].to_owned(), true)
        ]
    );
}

async fn a_page_of_another_company_pauses_the_feed(on: Database) {
    let test = TestStore::new(on).await;
    let (a, b) = (company("a"), company("b"));
    test.trigger(&a, TriggerKind::Notification).await;
    let lease = test.lease().await.expect("leased");
    test.commit(lease, last_page(&[("x", "1"), ("y", "2")], Some("2")))
        .await
        .expect("ok");
    test.drain().await;
    test.trigger(&b, TriggerKind::Notification).await;
    let lease = test.lease().await.expect("leased");
    let outcome = test
        .commit(lease, last_page(&[("x", "1"), ("y", "2")], Some("2")))
        .await
        .expect("answered");
    assert_eq!(outcome, PageOutcome::CompanyFilterIgnored);
    let row = test.feed(&b).await;
    assert_eq!(
        (row.paused, row.documents, row.cursor),
        (Some(FeedPauseReason::CompanyFilterIgnored), 0, None)
    );
    test.trigger(&b, TriggerKind::Notification).await;
    assert!(test.lease().await.is_none(), "it waits for a person");
    assert_eq!(
        test.store
            .set_paused(account(), Some(b.clone()), false)
            .await
            .expect("freed"),
        1
    );
    assert_eq!(test.lease().await.expect("a person freed it").feed, b);
}

async fn a_paused_feed_is_retried_later_and_freed_by_success(on: Database) {
    let test = TestStore::new(on).await;
    let feed = company("1");
    test.trigger(&feed, TriggerKind::Notification).await;
    let lease = test.lease().await.expect("leased");
    let failure = PageFailure::FeedPaused {
        reason: FeedPauseReason::Forbidden,
        retry_at: START.after(HOUR),
    };
    test.store
        .fail_page(lease, failure, "403".to_owned())
        .await
        .expect("noted");
    assert_eq!(
        test.feed(&feed).await.paused,
        Some(FeedPauseReason::Forbidden)
    );
    assert!(test.lease().await.is_none());
    assert_eq!(
        test.store.next_due(test.request()).await.expect("known"),
        Some(START.after(HOUR))
    );
    test.clock.advance(HOUR);
    let lease = test.lease().await.expect("tried again");
    test.commit(lease, last_page(&[("a", "1")], Some("1")))
        .await
        .expect("ok");
    let row = test.feed(&feed).await;
    assert_eq!((row.paused, row.failures, row.last_error), (None, 0, None));
}

async fn an_accounts_wait_holds_back_all_its_feeds(on: Database) {
    let test = TestStore::new(on).await;
    test.trigger(&company("1"), TriggerKind::Notification).await;
    test.trigger(&company("2"), TriggerKind::Notification).await;
    let lease = test.lease().await.expect("leased");
    let until = START.after(Duration::from_secs(77));
    test.store
        .fail_page(lease, PageFailure::AccountWaits(until), "429".to_owned())
        .await
        .expect("noted");
    assert!(test.lease().await.is_none());
    test.clock.advance(Duration::from_secs(77));
    assert!(test.lease().await.is_some());
}

async fn a_blocked_queue_keeps_its_triggers(on: Database) {
    let test = TestStore::new(on).await;
    test.trigger(&company("1"), TriggerKind::Notification).await;
    let blocked = LeaseRequest {
        queues: vec![(account(), Queue::Digitized)],
        ..test.request()
    };
    assert!(
        test.store
            .lease_page(blocked.clone())
            .await
            .expect("answered")
            .is_none()
    );
    assert_eq!(test.store.next_due(blocked).await.expect("answered"), None);
    assert_eq!(
        test.lease()
            .await
            .expect("once it is no longer blocked")
            .kind,
        TriggerKind::Notification
    );
}

async fn an_account_that_this_process_does_not_know_is_left_alone(on: Database) {
    let test = TestStore::new(on).await;
    let other = Feed::digitized(Account::parse("other").expect("a valid name"));
    test.trigger(&other, TriggerKind::Notification).await;
    assert!(test.lease().await.is_none());
    let knows_it = LeaseRequest {
        queues: vec![(other.account.clone(), Queue::Digitized)],
        ..test.request()
    };
    let lease = test.store.lease_page(knows_it).await.expect("answered");
    assert_eq!(lease.expect("its wish was kept").feed, other);
    let nothing = LeaseRequest {
        queues: Vec::new(),
        ..test.request()
    };
    test.trigger(&company("1"), TriggerKind::Notification).await;
    assert!(
        test.store
            .lease_page(nothing)
            .await
            .expect("answered")
            .is_none()
    );
}

async fn a_feed_knows_if_its_401_is_about_the_key(on: Database) {
    let test = TestStore::new(on).await;
    test.trigger(&company("1"), TriggerKind::Notification).await;
    let first = test.lease().await.expect("leased");
    assert!(first.key_at_fault, "the key never worked yet");
    test.commit(first, last_page(&[], None)).await.expect("ok");
    test.drain().await;
    test.trigger(&company("2"), TriggerKind::Notification).await;
    let unread = test.lease().await.expect("leased");
    assert!(!unread.key_at_fault, "the key works for another company");
    test.store.release_page(unread).await.expect("given back");
    test.trigger(&company("1"), TriggerKind::Notification).await;
    let request = LeaseRequest {
        requests_per_account: 2,
        ..test.request()
    };
    let mut leases = Vec::new();
    while let Some(lease) = test
        .store
        .lease_page(request.clone())
        .await
        .expect("answered")
    {
        leases.push(lease);
    }
    let known = leases.into_iter().find(|lease| lease.feed == company("1"));
    assert!(
        known.expect("leased").key_at_fault,
        "it worked for this very company"
    );
}

async fn a_backfill_has_its_own_position_and_leaves_the_cursor(on: Database) {
    let test = TestStore::new(on).await;
    let feed = company("1");
    test.trigger(&feed, TriggerKind::Notification).await;
    let lease = test.lease().await.expect("leased");
    test.commit(lease, last_page(&[("a", "9")], Some("9")))
        .await
        .expect("ok");
    test.drain().await;
    let trigger = Trigger {
        feed: feed.clone(),
        kind: TriggerKind::Backfill,
        due_at: START,
        from: Some(Cursor::new("3")),
    };
    test.store.trigger(vec![trigger]).await.expect("triggered");
    let lease = test.lease().await.expect("leased");
    assert_eq!(
        (lease.kind, lease.position.from.clone()),
        (TriggerKind::Backfill, Some(Cursor::new("3")))
    );
    test.commit(lease, page(&[("b", "4")], "4"))
        .await
        .expect("ok");
    let lease = test.lease().await.expect("leased");
    assert_eq!(lease.position.from, Some(Cursor::new("4")));
    test.commit(lease, last_page(&[("a", "9")], Some("9.5")))
        .await
        .expect("ok");
    let row = test.feed(&feed).await;
    assert_eq!((row.cursor, row.documents), (Some(Cursor::new("9")), 2));
}

async fn companies_of_the_digitized_queue_become_feeds(on: Database) {
    let test = TestStore::new(on).await;
    let digitized = Feed::digitized(account());
    test.trigger(&digitized, TriggerKind::Notification).await;
    let lease = test.lease().await.expect("leased");
    let page = PageToCommit {
        companies: vec![Company::parse("302320404").expect("a code")],
        unreadable: vec![nameless("{}", "1"), nameless("{}", "2")],
        ..last_page(&[("a", "1")], None)
    };
    test.commit(lease, page).await.expect("ok");
    assert!(test.drain().await.contains(&TriggerKind::Reconciliation));
    assert_eq!(test.feed(&company("302320404")).await.documents, 0);
    assert_eq!(
        test.feed(&digitized).await.unreadable,
        1,
        "entries that are alike are set aside once"
    );
}

async fn a_confirmation_is_pending_and_then_confirmed_once(on: Database) {
    let test = TestStore::new(on).await;
    let messages = Messages::new();
    test.store
        .subscription_requested(account(), Event::OnExported, "hook".to_owned(), START)
        .await
        .expect("noted");
    for _ in 0..2 {
        let delivery = messages
            .confirmation(&uuid(1), MessageType::SubscriptionConfirmation, START)
            .await;
        test.store.accept(delivery).await.expect("accepted");
    }
    let rows = test.store.subscriptions().await.expect("readable");
    assert_eq!(rows.len(), 1, "the row that we asked for");
    assert_eq!(
        (rows[0].state, rows[0].name.as_deref()),
        (SubscriptionState::Pending, Some("hook"))
    );
    assert_eq!(rows[0].next_try_at, Some(START));
    let confirmed = SubscriptionChange::Confirmed {
        subscription_arn: format!("{TOPIC}:1"),
    };
    let row = test
        .store
        .change_subscription(rows[0].id, confirmed, START)
        .await
        .expect("changed")
        .expect("allowed");
    assert_eq!(
        (row.state, row.subscribe_url.is_none()),
        (SubscriptionState::Confirmed, true)
    );
}

async fn subscribing_again_reuses_the_topics_row(on: Database) {
    let test = TestStore::new(on).await;
    let messages = Messages::new();
    let second = |n: u32| START.after(Duration::from_secs(n.into()));
    let confirmation = MessageType::SubscriptionConfirmation;
    let request = async |name: &str| {
        test.store
            .subscription_requested(account(), Event::OnExported, name.to_owned(), START)
            .await
            .expect("noted");
    };
    let speak = async |n: u32, message_type: MessageType| {
        let delivery = messages
            .confirmation(&uuid(n), message_type, second(n))
            .await;
        test.store.accept(delivery).await.expect("accepted");
    };
    let rows = async || -> Vec<(SubscriptionState, Option<String>)> {
        let rows = test.store.subscriptions().await.expect("readable");
        rows.into_iter().map(|row| (row.state, row.name)).collect()
    };
    let named = |state, name: &str| (state, Some(name.to_owned()));
    request("first").await;
    speak(1, confirmation).await;
    request("second").await;
    request("third").await;
    speak(2, MessageType::UnsubscribeConfirmation).await;
    assert_eq!(
        rows().await,
        [
            named(SubscriptionState::Unsubscribed, "first"),
            named(SubscriptionState::Requested, "second"),
            named(SubscriptionState::Requested, "third"),
        ],
        "that the old one ended answers no request"
    );
    speak(3, confirmation).await;
    assert_eq!(
        rows().await,
        [
            named(SubscriptionState::Pending, "second"),
            named(SubscriptionState::Requested, "third"),
        ]
    );
    speak(4, confirmation).await;
    assert_eq!(
        rows().await,
        [named(SubscriptionState::Pending, "third")],
        "each confirmation answers one request"
    );
}

async fn in_ask_mode_a_confirmation_waits_for_approval(on: Database) {
    let test = TestStore::with(on, |options| options.ask = true).await;
    let messages = Messages::new();
    let delivery = messages
        .confirmation(&uuid(1), MessageType::SubscriptionConfirmation, START)
        .await;
    test.store.accept(delivery).await.expect("accepted");
    let row = test
        .store
        .subscriptions()
        .await
        .expect("readable")
        .remove(0);
    assert_eq!(
        (row.state, row.next_try_at),
        (SubscriptionState::AwaitingApproval, None)
    );
    let row = test
        .store
        .change_subscription(row.id, SubscriptionChange::Approved, START)
        .await
        .expect("ok")
        .expect("allowed");
    assert_eq!(
        (row.state, row.next_try_at),
        (SubscriptionState::Pending, Some(START))
    );
}

async fn an_unsubscription_older_than_the_confirmation_is_ignored(on: Database) {
    let test = TestStore::new(on).await;
    let messages = Messages::new();
    let later = START.after(Duration::from_secs(60));
    for (n, message_type, published) in [
        (1, MessageType::SubscriptionConfirmation, later),
        (2, MessageType::UnsubscribeConfirmation, START),
    ] {
        test.store
            .accept(
                messages
                    .confirmation(&uuid(n), message_type, published)
                    .await,
            )
            .await
            .expect("accepted");
    }
    assert_eq!(
        test.store.subscriptions().await.expect("readable")[0].state,
        SubscriptionState::Pending
    );
    let newest = messages
        .confirmation(
            &uuid(3),
            MessageType::UnsubscribeConfirmation,
            later.after(HOUR / 60),
        )
        .await;
    test.store.accept(newest).await.expect("accepted");
    assert_eq!(
        test.store.subscriptions().await.expect("readable")[0].state,
        SubscriptionState::Unsubscribed
    );
}

async fn the_quarantine_is_bounded_with_a_share_for_allowed_topics(on: Database) {
    let test = TestStore::with(on, |options| options.quarantine_bytes = 4000).await;
    let refused = |allowed_topic| Quarantined {
        received_at: START,
        account: account(),
        event: Event::OnExported,
        reason: "signature_mismatch".to_owned(),
        allowed_topic,
        headers: String::new(),
        body: Bytes::from(vec![b'x'; 900]),
    };
    for _ in 0..20 {
        test.store.offer_quarantine(refused(false));
    }
    for _ in 0..2 {
        test.store.offer_quarantine(refused(true));
    }
    // A change goes behind what was offered before it, or with it.
    while test.store.quarantine(0, 100).await.expect("readable").len() < 4 {
        test.store
            .trigger(Vec::new())
            .await
            .expect("the writer answers");
    }
    assert_eq!(
        test.store.quarantine(0, 100).await.expect("readable").len(),
        4
    );
    let old = Retention {
        notifications_before: START,
        documents_before: START,
        destinations: Vec::new(),
        links_before: START,
        quarantine_before: START.after(HOUR),
        alarms_before: START,
    };
    assert_eq!(
        test.store.retain(old).await.expect("retained").quarantined,
        4
    );
    assert!(test.store.offer_quarantine(refused(false)));
    while test
        .store
        .quarantine(0, 100)
        .await
        .expect("readable")
        .is_empty()
    {
        test.store
            .trigger(Vec::new())
            .await
            .expect("the writer answers");
    }
}

async fn retention_removes_bodies_and_never_identities(on: Database) {
    let test = TestStore::new(on).await;
    let messages = Messages::new();
    for n in 0..3 {
        test.store
            .accept(messages.accepted(&uuid(n), None).await)
            .await
            .expect("accepted");
    }
    let retention = Retention {
        notifications_before: START.after(HOUR),
        documents_before: START,
        destinations: Vec::new(),
        links_before: START,
        quarantine_before: START,
        alarms_before: START,
    };
    assert_eq!(
        test.store
            .retain(retention.clone())
            .await
            .expect("retained")
            .notification_bodies,
        3
    );
    assert_eq!(
        test.store
            .retain(retention)
            .await
            .expect("retained")
            .notification_bodies,
        0
    );
    let rows = test.store.notifications(0, 10).await.expect("readable");
    assert!(rows.iter().all(|row| row.body.is_none()));
    assert_eq!(rows[2].message_id, uuid(2));
    let again = messages.accepted(&uuid(1), None).await;
    assert_eq!(
        test.store.accept(again).await.expect("answered"),
        Insertion::Duplicate
    );
}

#[tokio::test]
async fn a_second_process_is_refused_and_may_read() {
    let test = TestStore::new(Database::sqlite()).await;
    let Err(error) = SqliteStore::open(options(&test.path())) else {
        panic!("the lock was not held")
    };
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    let reader = SqliteStore::open_for_reading(&test.path()).expect("reading is allowed");
    assert!(
        reader
            .documents(DocumentFilter {
                limit: 1,
                ..DocumentFilter::default()
            })
            .await
            .is_ok()
    );
    assert!(matches!(
        reader.trigger(Vec::new()).await,
        Err(StoreError::ReadOnly)
    ));
}

#[tokio::test]
async fn a_backup_is_whole_and_opens_with_a_new_epoch() {
    let test = TestStore::new(Database::sqlite()).await;
    let feed = company("1");
    test.trigger(&feed, TriggerKind::Notification).await;
    let lease = test.lease().await.expect("leased");
    test.commit(lease, last_page(&[("a", "1")], Some("1")))
        .await
        .expect("ok");
    let copy = test.database.folder().join("copy.db");
    test.store.backup(copy.clone()).await.expect("backed up");
    let before = test.store.sequence().await.expect("readable");
    let restored = SqliteStore::open(options(&copy)).expect("the copy opens");
    let after = restored.sequence().await.expect("readable");
    assert_eq!((after.last, after.epoch == before.epoch), (1, false));
    restored.close().await.expect("closes");
    let again = SqliteStore::open(options(&copy)).expect("opens again");
    assert_eq!(
        again.sequence().await.expect("readable"),
        after,
        "the new epoch stays"
    );
}

#[tokio::test]
async fn a_backup_never_replaces_the_store_or_its_files() {
    let test = TestStore::new(Database::sqlite()).await;
    let folder = test.database.folder().to_owned();
    let link = folder.join("link.db");
    std::os::unix::fs::symlink(test.path(), &link).expect("a link");
    let hard_link = folder.join("hard.db");
    std::fs::hard_link(test.path(), &hard_link).expect("a link");
    std::fs::hard_link(test.path(), folder.join("other.partial")).expect("a link");
    let beside = |suffix: &str| folder.join(format!("test.db{suffix}"));
    let roundabout = folder.join("..").join(folder.file_name().expect("a name"));

    for target in [
        test.path(),
        roundabout.join("test.db"),
        beside("-wal"),
        beside("-shm"),
        beside("-journal"),
        beside(".lock"),
        link,
        hard_link,
        folder.join("other"),
    ] {
        let error = test.store.backup(target.clone()).await.err();
        assert!(
            matches!(error, Some(StoreError::BackupOntoItself { .. })),
            "{}: {error:?}",
            target.display()
        );
    }
    // What is written now is in the file that has the name.
    test.trigger(&company("1"), TriggerKind::Notification).await;
    let reader = SqliteStore::open_for_reading(&test.path()).expect("it opens");
    assert_eq!(reader.feeds().await.expect("readable").len(), 1);
}

#[tokio::test]
async fn files_that_are_not_ours_are_refused_with_a_fix() {
    let folder = tempfile::tempdir().expect("a folder");
    let advice = |name: &str| match SqliteStore::open(options(&folder.path().join(name))) {
        Ok(_) => panic!("{name} was opened"),
        Err(error) => error.to_string(),
    };
    std::fs::write(
        folder.path().join("text.db"),
        "this is not a database, it only is long enough".repeat(100),
    )
    .expect("written");
    assert!(
        advice("text.db").contains("restore the newest backup"),
        "{}",
        advice("text.db")
    );

    let foreign = rusqlite_file(&folder.path().join("foreign.db"), "CREATE TABLE other (x)");
    drop(foreign);
    assert!(advice("foreign.db").contains("another program"));

    drop(SqliteStore::open(options(&folder.path().join("newer.db"))).expect("a fresh store"));
    let newer = loop {
        // The writer's lock ends with its thread.
        match SqliteStore::open(options(&folder.path().join("newer.db"))) {
            Ok(store) => break store,
            Err(StoreError::InUse { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    newer.close().await.expect("closes");
    drop(rusqlite_file(
        &folder.path().join("newer.db"),
        "PRAGMA user_version = 999",
    ));
    assert!(advice("newer.db").contains("schema version 999"));

    assert!(advice("no/such/folder.db").contains("folder exists"));
}

fn rusqlite_file(path: &Path, sql: &str) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(path).expect("opens");
    connection.execute_batch(sql).expect("runs");
    connection
}

async fn a_full_queue_answers_at_once_and_loses_nothing_queued(on: Database) {
    let test = TestStore::with(on, |options| options.queue = 1).await;
    let messages = Messages::new();
    let mut deliveries = Vec::new();
    for n in 0..50 {
        deliveries.push(messages.accepted(&uuid(n), None).await);
    }
    let outcomes = futures_util::future::join_all(
        deliveries
            .into_iter()
            .map(|delivery| test.store.accept(delivery)),
    )
    .await;
    let taken = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Ok(Insertion::New)))
        .count();
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Ok(_) | Err(StoreError::QueueFull)))
    );
    assert_eq!(
        test.store
            .notifications(0, 100)
            .await
            .expect("readable")
            .len(),
        taken
    );
    assert!(taken >= 1);
}

async fn a_closed_store_says_so_and_has_stored_what_it_accepted(on: Database) {
    let test = TestStore::new(on).await;
    test.trigger(&company("1"), TriggerKind::Notification).await;
    test.store.close().await.expect("closes");
    assert!(matches!(
        test.store.trigger(Vec::new()).await,
        Err(StoreError::Closed)
    ));
    assert!(matches!(test.store.feeds().await, Err(StoreError::Closed)));
    let test = TestStore {
        store: test
            .database
            .open(Options::at(test.clock.clone()))
            .await
            .expect("opens again"),
        ..test
    };
    assert_eq!(test.store.feeds().await.expect("readable").len(), 1);
}

fn token(name: &str, hash: u8) -> NewApiToken {
    NewApiToken {
        name: name.to_owned(),
        rights: Rights::Read,
        hash: [hash; 32],
        now: START,
    }
}

async fn a_token_is_found_by_its_hash_until_it_is_revoked(on: Database) {
    let test = TestStore::new(on).await;
    let make = |wish| test.store.make_api_token(wish);
    let ApiTokenMade::Row(id) = make(token("one", 1)).await.expect("made") else {
        panic!("it is the first");
    };
    let found = test.store.api_token([1; 32]).await.expect("readable");
    let found = found.expect("it is there");
    assert_eq!((found.id, found.name.as_str()), (id, "one"));
    assert_eq!((found.rights, found.created_at), (Rights::Read, START));
    assert!(
        test.store
            .api_token([2; 32])
            .await
            .expect("readable")
            .is_none()
    );

    assert!(test.store.revoke_api_token(id).await.expect("revoked"));
    assert!(!test.store.revoke_api_token(id).await.expect("answered"));
    assert!(
        test.store
            .api_token([1; 32])
            .await
            .expect("readable")
            .is_none()
    );
    let again = make(token("one", 1)).await.expect("made");
    assert!(
        matches!(again, ApiTokenMade::Row(new) if new > id),
        "{again:?}"
    );
}

async fn tokens_are_few_and_their_names_differ(on: Database) {
    let test = TestStore::new(on).await;
    for number in 0..MAX_API_TOKENS {
        let wish = token(&format!("{number}"), u8::try_from(number).expect("a few"));
        let made = test.store.make_api_token(wish).await.expect("answered");
        assert!(matches!(made, ApiTokenMade::Row(_)), "{made:?}");
    }
    let taken = test.store.make_api_token(token("7", 200)).await;
    assert_eq!(taken.expect("answered"), ApiTokenMade::NameTaken);
    let more = test.store.make_api_token(token("more", 201)).await;
    assert_eq!(more.expect("answered"), ApiTokenMade::TooMany);
    let rows = test.store.api_tokens().await.expect("readable");
    assert_eq!(rows.len() as i64, MAX_API_TOKENS);
    assert!(rows.windows(2).all(|pair| pair[0].id < pair[1].id));
}

async fn activity_is_counted_by_the_hour(on: Database) {
    let test = TestStore::new(on).await;
    let messages = Messages::new();
    let hour = |back: u32| {
        let at = START.before(back * HOUR).as_millis();
        Timestamp::from_millis(at - at.rem_euclid(3_600_000))
    };
    for (n, back) in [(1, 3), (2, 1), (3, 1), (4, 30)] {
        let mut delivery = messages.accepted(&uuid(n), None).await;
        delivery.received_at = START.before(back * HOUR);
        test.store.accept(delivery).await.expect("stored");
    }
    for (reason, back) in [("too_old", 2), ("too_old", 2), ("raw_delivery", 2)] {
        assert!(test.store.offer_quarantine(Quarantined {
            received_at: START.before(back * HOUR),
            account: account(),
            event: Event::OnExported,
            reason: reason.to_owned(),
            allowed_topic: false,
            headers: String::new(),
            body: Bytes::from_static(b"{}"),
        }));
        test.store
            .trigger(Vec::new())
            .await
            .expect("the writer's next round");
        test.store.quarantine(0, 10).await.expect("readable");
    }
    test.trigger(&company("1"), TriggerKind::Notification).await;
    let lease = test.lease().await.expect("due");
    let page = last_page(&[("a", "2026-01-01"), ("b", "2026-01-01")], Some("x"));
    test.commit(lease, page).await.expect("stored");

    let activity = test.store.activity(START.before(24 * HOUR)).await;
    let activity = activity.expect("readable");
    let count = |back, count| HourCount {
        hour: hour(back),
        count,
    };
    assert_eq!(activity.accepted, [count(3, 1), count(1, 2)]);
    assert_eq!(activity.documents, [count(0, 2)]);
    let refused = |reason: &str, count| RefusedCount {
        hour: hour(2),
        reason: reason.to_owned(),
        count,
    };
    assert_eq!(
        activity.refused,
        [refused("raw_delivery", 1), refused("too_old", 2)]
    );
}

async fn a_search_reads_a_bounded_part_and_continues_to_the_end(on: Database) {
    let test = TestStore::new(on).await;
    // Sequences 1 to 4 are one company's, 5 and 6 another's, and 6 is 5 anew.
    for (code, ids) in [
        (
            "1",
            &[
                ("a", "2026-01-01"),
                ("b", "2026-01-01"),
                ("c", "2026-01-01"),
                ("d", "2026-01-01"),
            ][..],
        ),
        ("2", &[("e", "2026-01-01"), ("e", "2026-01-02")][..]),
    ] {
        test.trigger(&company(code), TriggerKind::Notification)
            .await;
        let lease = test.lease().await.expect("due");
        test.commit(lease, last_page(ids, Some("x")))
            .await
            .expect("stored");
    }
    let look = |versions| DocumentSearch {
        versions,
        ..DocumentSearch::default()
    };
    let sequences = |look| async {
        let looked = test.store.search_documents(look).await.expect("readable");
        let sequences: Vec<i64> = looked.rows.iter().map(|row| row.sequence).collect();
        (sequences, looked.next)
    };
    assert_eq!(sequences(look(4)).await, (vec![6, 5, 4, 3], Some(3)));
    let rest = DocumentSearch {
        before: Some(3),
        ..look(4)
    };
    assert_eq!(sequences(rest).await, (vec![2, 1], None));

    let of_one = DocumentSearch {
        company: Some(Company::parse("1").expect("a code")),
        ..look(3)
    };
    assert_eq!(sequences(of_one.clone()).await, (vec![4, 3, 2], Some(2)));
    let rest = DocumentSearch {
        before: Some(2),
        ..of_one
    };
    assert_eq!(sequences(rest).await, (vec![1], None));

    let by_id = DocumentSearch {
        document_id: Some("e".to_owned()),
        ..look(10)
    };
    assert_eq!(sequences(by_id).await, (vec![6, 5], None));
    // A stretch without any wanted one still leads on.
    let elsewhere = DocumentSearch {
        queue: Some(Queue::Digitized),
        ..look(4)
    };
    assert_eq!(sequences(elsewhere).await, (vec![], Some(3)));
    let nobody = DocumentSearch {
        account: Some(Account::parse("nobody").expect("a name")),
        document_id: Some("e".to_owned()),
        ..look(10)
    };
    assert_eq!(sequences(nobody).await, (vec![], None));
}

fn file(owner: &str, correlation: &str, now: Timestamp) -> NewUpload {
    NewUpload {
        account: account(),
        sha256: "ab".repeat(32),
        size_bytes: 7,
        file_name: "a.pdf".to_owned(),
        correlation: correlation.to_owned(),
        force: false,
        owner: owner.to_owned(),
        now,
        claim: HOUR,
    }
}

async fn one_content_is_claimed_by_one_process_unless_forced(on: Database) {
    let test = TestStore::new(on).await;
    let begin = async |upload| test.store.begin_upload(upload).await.expect("begun");
    let end = async |owner: &str, how| {
        let ended = test.store.end_upload(1, owner.to_owned(), how, START);
        ended.await.expect("ended")
    };
    // Two at once: one of them sends.
    let (one, other) = tokio::join!(
        begin(file("a", "c-1", START)),
        begin(file("b", "c-2", START))
    );
    let (owner, late) = match (&one, &other) {
        (UploadBegun::Send(_), UploadBegun::Busy { .. }) => ("a", "b"),
        (UploadBegun::Busy { .. }, UploadBegun::Send(_)) => ("b", "a"),
        both => panic!("{both:?}"),
    };
    let again = begin(file(owner, "c-3", START)).await;
    assert!(matches!(again, UploadBegun::Send(row) if row.id == 1 && row.attempts == 2));
    assert!(!end(late, UploadEnd::Sent).await, "it is not its own");

    // The owner was cut off, and its claim ended: the other goes on with the same row.
    let taken = begin(file(late, "c-4", START.after(HOUR))).await;
    assert!(matches!(taken, UploadBegun::Send(row) if row.id == 1));
    assert!(
        !end(owner, UploadEnd::Sent).await,
        "it is not its own any more"
    );
    assert!(end(late, UploadEnd::Failed("why".to_owned())).await);
    let tried = begin(file(owner, "c-5", START.after(HOUR))).await;
    assert!(matches!(tried, UploadBegun::Send(row) if row.last_error.as_deref() == Some("why")));
    assert!(end(owner, UploadEnd::Sent).await);
    let sent = begin(file(late, "c-6", START.after(HOUR))).await;
    assert!(matches!(sent, UploadBegun::Already(row) if row.id == 1 && row.last_error.is_none()));
    let mut forced = file(late, "c-7", START);
    forced.force = true;
    let forced = begin(forced).await;
    assert!(matches!(forced, UploadBegun::Send(row) if row.id == 2 && row.correlation == "c-7"));
}

async fn a_document_is_matched_to_its_upload_once(on: Database) {
    let test = TestStore::new(on).await;
    let begun = test.store.begin_upload(file("a", "c-1", START)).await;
    begun.expect("begun");
    let ended = test
        .store
        .end_upload(1, "a".to_owned(), UploadEnd::Sent, START);
    assert!(ended.await.expect("ended"));
    let uploads = async |missing_since| {
        let filter = UploadFilter {
            missing_since,
            limit: 10,
            after: 0,
        };
        test.store.uploads(filter).await.expect("rows")
    };
    let later = Some(START.after(HOUR));
    assert_eq!(uploads(later).await.len(), 1);
    assert_eq!(
        uploads(Some(START)).await.len(),
        0,
        "it was sent at that moment"
    );

    let feed = company("1");
    for _ in 0..2 {
        test.trigger(&feed, TriggerKind::Notification).await;
        let lease = test.lease().await.expect("a lease");
        let mut page = last_page(&[("d-1", "1"), ("d-2", "1")], Some("c"));
        page.uploads = ["d-1", "d-2"]
            .map(|id| UploadReturn {
                correlation: "c-1".to_owned(),
                document_id: id.to_owned(),
            })
            .to_vec();
        page.uploads.push(UploadReturn {
            correlation: "somebody else's".to_owned(),
            document_id: "d-3".to_owned(),
        });
        let plan = test.plan();
        let stored = test.store.commit_page(lease, page, plan).await;
        assert!(
            matches!(stored, Ok(PageOutcome::Committed(_))),
            "{stored:?}"
        );
    }
    let rows = uploads(None).await;
    assert_eq!(rows[0].documents, ["d-1", "d-2"]);
    assert_eq!(rows[0].status(START), "returned");
    assert!(uploads(later).await.is_empty());
}

/// A look that found these kinds, each of subject `s`.
fn look(now: Timestamp, kinds: &[AlarmKind]) -> AlarmObservation {
    let finding = |kind: &AlarmKind| Finding {
        kind: *kind,
        subject: "s".to_owned(),
        text: "it is wrong; fix it".to_owned(),
    };
    AlarmObservation {
        now,
        found: kinds.iter().map(finding).collect(),
        notify: true,
    }
}

impl TestStore {
    /// Looks; how many alarms began and how many ended.
    async fn look(&self, kinds: &[AlarmKind]) -> (usize, usize) {
        let noted = self
            .store
            .update_alarms(look(self.clock.now(), kinds))
            .await;
        let changes = noted.expect("noted");
        (changes.raised.len(), changes.ended.len())
    }

    async fn alarms(&self, active: bool) -> Vec<AlarmRow> {
        let filter = AlarmFilter {
            active,
            after: 0,
            limit: 100,
        };
        self.store.alarms(filter).await.expect("readable")
    }
}

async fn an_alarm_begins_once_and_ends_once_whoever_checks(on: Database) {
    let test = TestStore::new(on).await;
    let found = [AlarmKind::Paused, AlarmKind::Silence];
    let looks = (0..4).map(|_| test.look(&found));
    let began: usize = join_all(looks).await.iter().map(|(began, _)| began).sum();
    assert_eq!(began, 2);

    let test = test.reopened().await;
    assert_eq!(test.look(&found).await, (0, 0), "a restart begins nothing");
    let looks = (0..4).map(|_| test.look(&[AlarmKind::Silence]));
    let ended: usize = join_all(looks).await.iter().map(|(_, ended)| ended).sum();
    assert_eq!(ended, 1);

    test.clock.advance(HOUR);
    assert_eq!(test.look(&found).await, (1, 0), "it is wrong anew");
    let rows = test.alarms(false).await;
    let kinds: Vec<_> = rows.iter().map(|row| row.kind).collect();
    assert_eq!(kinds, [found[0], found[1], found[0]]);
    assert_eq!(rows[0].ended_at, Some(START));
    assert_eq!(
        (rows[2].raised_at, rows[2].ended_at),
        (START.after(HOUR), None)
    );
    assert_eq!(rows[1].seen_at, START.after(HOUR));
    assert_eq!(test.alarms(true).await.len(), 2);
}

async fn an_alarm_seen_by_one_process_lingers_for_a_while(on: Database) {
    let test = TestStore::new(on).await;
    let minute = Duration::from_secs(60);
    assert_eq!(test.look(&[AlarmKind::RefusedStorm]).await, (1, 0));
    test.clock.advance(9 * minute);
    assert_eq!(
        test.look(&[]).await,
        (0, 0),
        "another replica sees nothing of it"
    );
    assert_eq!(test.look(&[AlarmKind::RefusedStorm]).await, (0, 0));
    test.clock.advance(9 * minute);
    assert_eq!(test.look(&[]).await, (0, 0));
    test.clock.advance(minute);
    assert_eq!(test.look(&[]).await, (0, 1));
}

async fn alarms_are_notified_in_order_by_one_process_at_a_time(on: Database) {
    let test = TestStore::new(on).await;
    let minute = Duration::from_secs(60);
    let lease = || test.store.lease_notice(test.clock.now(), minute);
    test.look(&[AlarmKind::Paused]).await;
    test.clock.advance(minute);
    test.look(&[]).await;

    let first = lease().await.expect("answered").expect("due");
    assert!(!first.over, "its beginning comes first");
    assert!(lease().await.expect("answered").is_none(), "it is taken");

    // Whoever had it is gone; another one takes it, and the first one's word is late.
    test.clock.advance(minute);
    let second = lease().await.expect("answered").expect("due again");
    let again = NoticeEnd::TryAgain {
        at: test.clock.now().after(minute),
        error: "answered 500".to_owned(),
    };
    let now = test.clock.now();
    let late = test.store.end_notice(first, NoticeEnd::Sent, now).await;
    assert!(!late.expect("answered"));
    let noted = test.store.end_notice(second, again, now).await;
    assert!(noted.expect("answered"));

    assert!(lease().await.expect("answered").is_none(), "not yet");
    let test = test.reopened().await;
    let lease = || test.store.lease_notice(test.clock.now(), minute);
    test.clock.advance(minute);
    let third = lease()
        .await
        .expect("answered")
        .expect("a restart keeps it");
    assert!(!third.over);
    assert_eq!(third.alarm.attempts, 1);
    assert_eq!(third.alarm.last_error.as_deref(), Some("answered 500"));
    let now = test.clock.now();
    let told = test.store.end_notice(third, NoticeEnd::Sent, now).await;
    assert!(told.expect("answered"));

    let end = lease().await.expect("answered").expect("its end follows");
    assert!(end.over);
    assert_eq!(
        (end.alarm.attempts, end.alarm.last_error.clone()),
        (0, None)
    );
    let error = "answered 410".to_owned();
    let given_up = NoticeEnd::GivenUp { error };
    test.store.end_notice(end, given_up, now).await.expect("ok");
    test.clock.advance(HOUR);
    assert!(lease().await.expect("answered").is_none(), "all is told");
    let row = test.alarms(false).await.remove(0);
    assert_eq!(row.last_error.as_deref(), Some("answered 410"));
}

async fn alarms_without_a_target_are_not_notified_later(on: Database) {
    let test = TestStore::new(on).await;
    let unannounced_documents = AlarmObservation {
        notify: false,
        ..look(START, &[AlarmKind::Paused])
    };
    test.store
        .update_alarms(unannounced_documents)
        .await
        .expect("noted");
    assert_eq!(test.look(&[]).await, (0, 1));
    let due = test.store.lease_notice(START.after(HOUR), HOUR).await;
    assert!(due.expect("answered").is_none());
}

async fn ended_alarms_are_forgotten_and_active_ones_are_not(on: Database) {
    let test = TestStore::new(on).await;
    test.look(&[AlarmKind::Paused, AlarmKind::Silence]).await;
    test.look(&[AlarmKind::Silence]).await;
    let before = |alarms_before| Retention {
        notifications_before: START,
        documents_before: START,
        destinations: Vec::new(),
        links_before: START,
        quarantine_before: START,
        alarms_before,
    };
    let removed = test.store.retain(before(START)).await.expect("retained");
    assert_eq!(removed.alarms, 0);
    let later = START.after(HOUR);
    let removed = test.store.retain(before(later)).await.expect("retained");
    assert_eq!(removed.alarms, 1);
    let kinds: Vec<_> = test
        .alarms(false)
        .await
        .iter()
        .map(|row| row.kind)
        .collect();
    assert_eq!(kinds, [AlarmKind::Silence]);
}

async fn documents_since_the_last_notification_are_unannounced(on: Database) {
    let test = TestStore::new(on).await;
    let feed = company("1");
    let unannounced_documents = || async {
        let rows = test.store.unannounced_documents(test.clock.now()).await;
        let rows = rows.expect("readable").into_iter();
        rows.map(|row| (row.queue, row.documents))
            .collect::<Vec<_>>()
    };
    test.trigger(&feed, TriggerKind::Notification).await;
    test.drain().await;
    test.clock.advance(2 * HOUR);
    test.drain().await;
    test.clock.advance(HOUR);
    let version = test.clock.now().to_string();
    let before = START.before(HOUR).to_string();
    test.clock.advance(HOUR);
    let lease = test.lease().await.expect("an hour has passed");
    let told_of = ("c", before.as_str());
    let page = last_page(&[("a", &version), ("b", &version), told_of], Some("1"));
    test.commit(lease, page).await.expect("stored");
    assert_eq!(unannounced_documents().await, [(Queue::Exported, 2)]);
    let earlier = test.clock.now().before(HOUR);
    let rows = test
        .store
        .unannounced_documents(earlier)
        .await
        .expect("readable");
    assert_eq!(rows, [], "they were not stored then");

    // A notification, of whichever company, says that the queue is told of.
    test.trigger(&company("2"), TriggerKind::Notification).await;
    assert_eq!(unannounced_documents().await, []);
}
