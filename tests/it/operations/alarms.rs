//! Alarms: each begins and ends once, whoever checks, and is notified until that succeeds.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ivesk_webhook::alarms::{Alarms, NotifyOutcome};
use ivesk_webhook::config::{
    AlarmCommand, AlarmTarget, Config, DestinationConfig, DestinationKind, HistoryMode,
    default_account,
};
use ivesk_webhook::delivery::Delivery;
use ivesk_webhook::domain::{
    Clock, Cursor, DestinationName, DocumentVersion, Event, Feed, Queue, Timestamp,
};
use ivesk_webhook::emulator::signer::Signer;
use ivesk_webhook::metrics::Metrics;
use ivesk_webhook::service::store_options;
use ivesk_webhook::store::*;
use ivesk_webhook::unexpected::UnexpectedRequest;
use reqwest::Method;
use serde_json::{Value, json};

use crate::store::messages::Messages;
use crate::support::app::TestApp;
use crate::support::databases::Database;
use crate::support::fake_sns::{Confirming, FOREIGN_TOPIC, Message};
use crate::support::faults::Faults;
use crate::support::process::write_program;
use crate::support::puller::{
    COMPANY, NEIGHBOR, digitized, exported, folder, hours, minutes, settings, start_time,
};
use crate::support::stand_in::{Answer, StandIn};

/// A store and its alarms. Only the test stores pages.
struct Scene {
    store: SharedStore,
    faults: Arc<Faults>,
    clock: Clock,
    config: Config,
    metrics: Arc<Metrics>,
    alarms: Alarms,
    dir: tempfile::TempDir,
    _database: Option<Database>,
}

impl Scene {
    async fn new() -> Self {
        Self::with(|_, _| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config, &Path)) -> Self {
        let clock = Clock::manual(start_time());
        let dir = folder();
        let nowhere = "http://127.0.0.1:9";
        let mut config = settings(dir.path(), nowhere, "planted-key", nowhere);
        let database = Database::of_the_suite().await;
        if let Some(database) = &database {
            config.store.url = database.url();
        }
        change(&mut config, dir.path());
        let faults = Faults::none();
        faults.set_free_bytes(1 << 40);
        let options = StoreOptions {
            hooks: Some(faults.clone()),
            ..store_options(&config, &clock)
        };
        let store = Arc::new(Store::open(options).await.expect("the store opens"));
        let metrics = Arc::new(Metrics::new());
        let alarms = alarms(&config, &store, &metrics, &clock);
        Self {
            store,
            faults,
            clock,
            config,
            metrics,
            alarms,
            dir,
            _database: database,
        }
    }

    /// Returns the alarms of another process, such as a replica or this one after a restart.
    fn another_process(&self) -> Alarms {
        alarms(
            &self.config,
            &self.store,
            &Arc::new(Metrics::new()),
            &self.clock,
        )
    }

    /// Checks; returns the alarms that began and those that ended.
    async fn check(&self) -> (Vec<AlarmKind>, Vec<AlarmKind>) {
        check(&self.alarms).await
    }

    async fn active(&self) -> Vec<AlarmRow> {
        let filter = AlarmFilter {
            active: true,
            after: 0,
            limit: 1_000,
        };
        self.store.alarms(filter).await.expect("readable")
    }

    /// Asserts that one check raises `kind`, and no further one does, not even in another
    /// process.
    async fn assert_raised(&self, kind: AlarmKind) -> AlarmRow {
        assert_eq!(self.check().await, (vec![kind], vec![]));
        assert_eq!(self.check().await, (vec![], vec![]), "{kind:?} again");
        let nothing = (vec![], vec![]);
        assert_eq!(
            check(&self.another_process()).await,
            nothing,
            "{kind:?} in another process"
        );
        let mut active = self.active().await;
        assert_eq!(active.len(), 1, "{active:?}");
        active.remove(0)
    }

    /// Asserts that one check ends `kind`, and no further one does.
    async fn assert_ended(&self, kind: AlarmKind) {
        assert_eq!(self.check().await, (vec![], vec![kind]));
        assert_eq!(self.check().await, (vec![], vec![]), "{kind:?} again");
        assert_eq!(check(&self.another_process()).await, (vec![], vec![]));
        assert!(self.active().await.is_empty());
    }

    async fn lease(&self) -> Option<PageLease> {
        let request = LeaseRequest {
            now: self.clock.now(),
            lease: minutes(2),
            requests_per_account: 16,
            lookback: hours(24),
            min_interval: Duration::ZERO,
            reconcile_every: Duration::from_secs(3600),
            queues: Queue::ALL.map(|queue| (default_account(), queue)).to_vec(),
        };
        self.store.lease_page(request).await.expect("leasing works")
    }

    /// Serves everything that is due, each with a last page of these documents.
    async fn pull(&self, documents: &[(&str, Timestamp)], uploads: &[&str]) {
        while let Some(lease) = self.lease().await {
            let version = |(id, version): &(&str, Timestamp)| DocumentVersion {
                id: (*id).to_owned(),
                version: version.to_string(),
                body: "{}".into(),
            };
            let returned = |correlation: &&str| UploadReturn {
                correlation: (*correlation).to_owned(),
                document_id: "d".to_owned(),
            };
            let page = PageToCommit {
                documents: documents.iter().map(version).collect(),
                uploads: uploads.iter().map(returned).collect(),
                end: PageEnd::EndOfQueue,
                ..PageToCommit::default()
            };
            let stored = self.store.commit_page(lease, page, self.plan()).await;
            stored.expect("stored");
        }
    }

    fn plan(&self) -> PullPlan {
        PullPlan {
            now: self.clock.now(),
            follow_ups: [hours(1_000), hours(2_000)],
            reconcile_every: hours(1),
            lookback: hours(24),
        }
    }

    /// Accepts notification `number` of a feed.
    async fn accept_notification(&self, number: u32, feed: Feed) {
        let message = Messages::announcement(number, feed, self.clock.now()).await;
        self.store.accept(message).await.expect("stored");
    }

    async fn notify(&self, feed: Feed) {
        let trigger = Trigger {
            feed,
            kind: TriggerKind::Notification,
            due_at: self.clock.now(),
            from: None,
        };
        self.store.trigger(vec![trigger]).await.expect("stored");
    }
}

fn alarms(config: &Config, store: &SharedStore, metrics: &Arc<Metrics>, clock: &Clock) -> Alarms {
    let (store, metrics) = (Arc::clone(store), Arc::clone(metrics));
    Alarms::new(config, store, metrics, Arc::default(), clock.clone()).expect("a client")
}

async fn check(alarms: &Alarms) -> (Vec<AlarmKind>, Vec<AlarmKind>) {
    let changes = alarms.check().await.expect("the store works");
    let kinds = |rows: Vec<AlarmRow>| rows.into_iter().map(|row| row.kind).collect();
    (kinds(changes.raised), kinds(changes.ended))
}

#[tokio::test]
async fn silence_begins_with_missed_notifications_and_ends_with_one() {
    let scene = Scene::new().await;
    scene.accept_notification(1, exported(COMPANY)).await;
    scene.pull(&[], &[]).await;
    scene.clock.advance(hours(1));
    scene.pull(&[("a", scene.clock.now())], &[]).await;
    assert_eq!(
        scene.check().await,
        (vec![], vec![]),
        "a notification may still arrive"
    );

    scene.clock.advance(minutes(15));
    let alarm = scene.assert_raised(AlarmKind::Silence).await;
    assert_eq!(alarm.subject, "default/exported");
    assert!(
        alarm.text.contains("2026-11-23T08:00:00.000Z"),
        "{}",
        alarm.text
    );

    scene.accept_notification(2, exported(COMPANY)).await;
    scene.assert_ended(AlarmKind::Silence).await;
}

#[tokio::test]
async fn paused_feeds_and_accounts_alarm_unless_a_person_did_it() {
    let scene = Scene::new().await;
    scene.notify(exported(COMPANY)).await;
    let failure = PageFailure::FeedPaused {
        reason: FeedPauseReason::NotFound,
        retry_at: scene.clock.now().after(hours(1)),
    };
    let lease = scene.lease().await.expect("due");
    let failed = scene
        .store
        .fail_page(lease, failure, "404".to_owned(), scene.clock.now())
        .await;
    failed.expect("stored");
    let alarm = scene.assert_raised(AlarmKind::Paused).await;
    assert_eq!(alarm.subject, "default/exported/302320404");
    assert!(alarm.text.contains("feeds remove"), "{}", alarm.text);

    let paused = |paused| {
        let change = match paused {
            true => PauseChange::Pause,
            false => PauseChange::Resume { accept: false },
        };
        scene.store.set_paused(default_account(), None, change)
    };
    paused(true).await.expect("paused by hand");
    scene.assert_ended(AlarmKind::Paused).await;

    paused(false).await.expect("resumed");
    scene.notify(exported(COMPANY)).await;
    let failure = PageFailure::AccountPaused {
        reason: FeedPauseReason::Unauthorized,
        retry_at: scene.clock.now().after(hours(1)),
    };
    let lease = scene.lease().await.expect("due");
    let failed = scene
        .store
        .fail_page(lease, failure, "401".to_owned(), scene.clock.now())
        .await;
    failed.expect("stored");
    assert_eq!(
        scene.assert_raised(AlarmKind::Paused).await.subject,
        "default"
    );
    paused(false).await.expect("resumed");
    scene.assert_ended(AlarmKind::Paused).await;
}

#[tokio::test]
async fn a_blocked_queue_alarms_once_something_waits_for_it() {
    let mut scene = Scene::with(|config, _| config.api.exported_path = None).await;
    assert_eq!(scene.check().await, (vec![], vec![]), "nothing waits");
    scene.notify(exported(COMPANY)).await;
    let alarm = scene.assert_raised(AlarmKind::Blocked).await;
    assert!(alarm.text.contains("`api.exported_path`"), "{}", alarm.text);

    scene.config.api.exported_path = settings(
        scene.dir.path(),
        "http://127.0.0.1:9",
        "planted-key",
        "http://127.0.0.1:9",
    )
    .api
    .exported_path;
    scene.alarms = scene.another_process();
    assert_eq!(
        scene.check().await,
        (vec![], vec![]),
        "another process may still see it"
    );
    scene.clock.advance(minutes(10));
    scene.assert_ended(AlarmKind::Blocked).await;
}

#[tokio::test]
async fn a_feed_that_stays_behind_alarms_unless_nothing_ran() {
    let scene = Scene::new().await;
    scene.notify(exported(COMPANY)).await;
    scene.pull(&[], &[]).await;
    scene.clock.advance(hours(3) + minutes(1));
    let alarm = scene.assert_raised(AlarmKind::Behind).await;
    assert_eq!(alarm.subject, "default/exported/302320404");
    scene.pull(&[], &[]).await;
    scene.assert_ended(AlarmKind::Behind).await;

    scene.clock.advance(hours(24));
    let restarted = scene.another_process();
    assert_eq!(
        check(&restarted).await,
        (vec![], vec![]),
        "it has just started"
    );
    scene.clock.advance(minutes(16));
    assert_eq!(check(&restarted).await, (vec![AlarmKind::Behind], vec![]));
}

#[tokio::test]
async fn a_feed_that_was_never_pulled_to_its_end_is_behind() {
    for has_pages in [false, true] {
        let scene = Scene::new().await;
        scene.notify(exported(COMPANY)).await;
        if has_pages {
            // Pages arrive, and no end.
            let lease = scene.lease().await.expect("due");
            let page = PageToCommit {
                next_from: Some(Cursor::new("1")),
                ..PageToCommit::default()
            };
            let plan = scene.plan();
            let stored = scene.store.commit_page(lease, page, plan).await;
            stored.expect("stored");
        }
        scene.clock.advance(hours(3));
        assert_eq!(scene.check().await, (vec![], vec![]), "{has_pages}");
        scene.clock.advance(minutes(1));
        let alarm = scene.assert_raised(AlarmKind::Behind).await;
        assert_eq!(alarm.subject, "default/exported/302320404");
        scene.pull(&[], &[]).await;
        scene.assert_ended(AlarmKind::Behind).await;
    }
}

#[tokio::test]
async fn an_incomplete_feed_alarms_an_unknown_page_size_after_a_day() {
    use IncompleteReason::PageSizeUnknown;
    for reason in IncompleteReason::ALL {
        let scene = Scene::new().await;
        scene.notify(exported(COMPANY)).await;
        let lease = scene.lease().await.expect("due");
        let gap = FoundGap {
            from: None,
            to: None,
            reason,
            entries: 30,
        };
        let page = PageToCommit {
            gaps: vec![gap],
            end: PageEnd::EndOfQueue,
            ..PageToCommit::default()
        };
        let plan = PullPlan {
            now: scene.clock.now(),
            follow_ups: [hours(1_000), hours(2_000)],
            reconcile_every: hours(1_000),
            lookback: hours(24),
        };
        let stored = scene.store.commit_page(lease, page, plan).await;
        stored.expect("stored");
        if reason == PageSizeUnknown {
            assert_eq!(scene.check().await, (vec![], vec![]), "it is a notice");
            let moment = Duration::from_millis(1);
            for (time, is_alarm) in [(hours(24) - moment, false), (moment, true)] {
                scene.clock.advance(time);
                let raised = scene.check().await.0;
                assert_eq!(raised.contains(&AlarmKind::Incomplete), is_alarm);
            }
        } else {
            let alarm = scene.assert_raised(AlarmKind::Incomplete).await;
            assert_eq!(alarm.subject, "default/exported/302320404");
            assert!(alarm.text.contains("feeds gaps"), "{}", alarm.text);
        }
        // A pull that finds it no more closes it.
        scene.notify(exported(COMPANY)).await;
        scene.pull(&[], &[]).await;
        let ended = scene.check().await.1;
        assert!(ended.contains(&AlarmKind::Incomplete), "{ended:?}");
    }
}

#[tokio::test]
async fn no_alarm_ends_because_others_began() {
    let scene = Scene::new().await;
    let pause = async |code: String| {
        let feed = exported(&code);
        scene.notify(feed.clone()).await;
        let failure = PageFailure::FeedPaused {
            reason: FeedPauseReason::NotFound,
            retry_at: scene.clock.now().after(hours(1_000)),
        };
        let lease = scene.lease().await.expect("due");
        let failed = scene
            .store
            .fail_page(lease, failure, "404".to_owned(), scene.clock.now())
            .await;
        failed.expect("stored");
    };
    for number in 0..100 {
        pause(format!("5{number:08}")).await;
    }
    assert_eq!(scene.check().await.0.len(), 100);
    // Feeds that are listed before them.
    for number in 0..50 {
        pause(format!("1{number:08}")).await;
    }
    assert_eq!(scene.check().await, (vec![], vec![]));
    let active = scene.active().await;
    assert_eq!(active.len(), 100);
    assert!(
        active.iter().all(|alarm| alarm.subject.contains("/5")),
        "{active:?}"
    );
}

#[tokio::test]
async fn a_storm_of_refusals_alarms_until_it_has_been_calm() {
    let scene = Scene::new().await;
    let refuse = |count: usize| {
        for _ in 0..count {
            scene
                .metrics
                .refused(Event::OnExported, "signature_mismatch");
            // Anybody can request any path.
            let now = scene.clock.now();
            let kind = UnexpectedRequest::UnknownPath;
            scene.metrics.unexpected(kind, false, now);
        }
    };
    refuse(19);
    assert_eq!(scene.check().await, (vec![], vec![]));
    refuse(1);
    let alarm = scene.assert_raised(AlarmKind::RefusedStorm).await;
    assert!(
        alarm.text.contains("`signature_mismatch`"),
        "{}",
        alarm.text
    );
    scene.clock.advance(minutes(9));
    assert_eq!(scene.check().await, (vec![], vec![]));
    scene.clock.advance(minutes(10));
    scene.assert_ended(AlarmKind::RefusedStorm).await;
}

#[tokio::test]
async fn lost_requests_of_sns_alarm_until_a_message_arrives() {
    let scene = Scene::new().await;
    let lose = || {
        let kind = UnexpectedRequest::PathCut;
        scene.metrics.unexpected(kind, true, scene.clock.now());
    };
    lose();
    let alarm = scene.assert_raised(AlarmKind::UnexpectedRequests).await;
    assert_eq!(alarm.subject, "path_cut");
    assert!(alarm.text.contains("proxy_pass"), "{}", alarm.text);
    // Messages of the other event arrive, but this one's still do not.
    scene.clock.advance(minutes(5));
    scene.metrics.accepted_at(scene.clock.now());
    assert_eq!(scene.check().await, (vec![], vec![]));
    lose();
    scene.clock.advance(hours(2));
    assert_eq!(scene.check().await, (vec![], vec![]));

    scene.metrics.accepted_at(scene.clock.now());
    scene.clock.advance(minutes(10));
    scene.assert_ended(AlarmKind::UnexpectedRequests).await;
}

#[tokio::test]
async fn a_certificate_near_expiry_alarms_until_it_is_renewed() {
    let scene = Scene::new().await;
    let now = scene.clock.now();
    let keep = |name: &str, days: u64| {
        let signer = Signer::generate("sns.amazonaws.com", now, now.after(hours(24 * days)));
        let row = CertificateRow {
            url: format!("https://sns.eu-west-1.amazonaws.com/{name}.pem"),
            pem: signer.expect("made").certificate_pem().as_bytes().to_vec(),
            fetched_at: now,
        };
        scene.store.keep_certificate(row)
    };
    keep("one", 8).await.expect("stored");
    assert_eq!(scene.check().await, (vec![], vec![]));
    scene.clock.advance(hours(25));
    let alarm = scene.assert_raised(AlarmKind::Certificate).await;
    assert_eq!(alarm.subject, "sns.eu-west-1.amazonaws.com");
    keep("two", 400).await.expect("stored");
    scene.assert_ended(AlarmKind::Certificate).await;
}

#[tokio::test]
async fn a_filling_disk_alarms_before_messages_are_refused() {
    let scene = Scene::new().await;
    scene.faults.set_free_bytes((1 << 29) - 1);
    scene.assert_raised(AlarmKind::Disk).await;
    scene.faults.set_free_bytes(1 << 29);
    scene.clock.advance(minutes(10));
    scene.assert_ended(AlarmKind::Disk).await;
}

#[tokio::test]
async fn late_uploads_alarm_until_their_documents_arrive() {
    let scene = Scene::new().await;
    let upload = NewUpload {
        account: default_account(),
        sha256: "00".repeat(32),
        size_bytes: 1,
        file_name: "a.pdf".to_owned(),
        correlation: "mark".to_owned(),
        force: false,
        owner: "me".to_owned(),
        now: scene.clock.now(),
        claim: minutes(1),
    };
    let begun = scene.store.begin_upload(upload).await.expect("claimed");
    let UploadBegun::Send { row, .. } = begun else {
        panic!("{begun:?}");
    };
    let (id, now) = (row.id, scene.clock.now());
    let sent = scene
        .store
        .end_upload(id, "me".to_owned(), UploadEnd::Sent, now);
    assert!(sent.await.expect("stored"));
    assert_eq!(scene.check().await, (vec![], vec![]));
    // Twelve working hours are over by then, whatever the day.
    scene.clock.advance(hours(5 * 24));
    scene.assert_raised(AlarmKind::UploadsLate).await;
    scene.notify(digitized()).await;
    scene.pull(&[], &["mark"]).await;
    scene.assert_ended(AlarmKind::UploadsLate).await;
}

/// A destination, `books`, whose outcomes the test decides.
struct Books {
    scene: Scene,
    name: DestinationName,
}

impl Books {
    async fn new() -> Self {
        let name = DestinationName::parse("books").expect("a name");
        let scene = Scene::with(|config, _| {
            let destination = DestinationConfig {
                history: HistoryMode::Deliver,
                ..DestinationConfig::of(DestinationKind::List)
            };
            let name = DestinationName::parse("books").expect("a name");
            config.destinations.insert(name, destination);
        })
        .await;
        let filter = DestinationFilter::all_of(Queue::Exported);
        let registered = vec![(name.clone(), filter)];
        let registered = scene
            .store
            .register_destinations(registered, scene.clock.now());
        registered.await.expect("registered");
        Self { scene, name }
    }

    /// Stores a version of a document in a company's feed.
    async fn export(&self, code: &str, id: &str) {
        self.scene.notify(exported(code)).await;
        self.scene.pull(&[(id, self.scene.clock.now())], &[]).await;
    }

    /// Attempts the deliveries that are due: the document `wrong` fails, the others are accepted.
    async fn deliver(&self, wrong: &str) {
        let now = self.scene.clock.now();
        let lease = loop {
            let request = DeliveryLeaseRequest {
                destination: self.name.clone(),
                lanes: LanePlan {
                    filter: DestinationFilter::all_of(Queue::Exported),
                    deliver_history: true,
                    lookback: hours(24),
                },
                now,
                lease: minutes(1),
                limit: 10,
                limit_bytes: 1 << 20,
                earlier_notes: true,
            };
            let leased = self.scene.store.lease_deliveries(request).await;
            match leased.expect("works") {
                DeliveryLeased::Batch(lease) => break lease,
                DeliveryLeased::Advanced => {}
                DeliveryLeased::Nothing(_) => return,
            }
        };
        let attempt = |delivery: &Delivery| Attempt {
            sequence: delivery.sequence,
            began_at: now,
            outcome: match delivery.document_id == wrong {
                true => DeliveryOutcome::Unavailable {
                    error: "answered 500".to_owned(),
                    retry_after: None,
                },
                false => DeliveryOutcome::Delivered { note: None },
            },
        };
        let mut attempts: Vec<Attempt> = lease.deliveries.iter().map(attempt).collect();
        attempts.sort_by_key(|one| matches!(one.outcome, DeliveryOutcome::Delivered { .. }));
        let settled =
            self.scene
                .store
                .settle_deliveries(lease, attempts, LeaseAction::Release, now);
        settled.await.expect("stored");
    }
}

#[tokio::test]
async fn a_failing_destination_alarms_until_it_accepts_a_document() {
    let books = Books::new().await;
    let scene = &books.scene;
    books.export(COMPANY, "a").await;
    books.deliver("a").await;
    scene.clock.advance(minutes(29));
    assert_eq!(scene.check().await, (vec![], vec![]));
    scene.clock.advance(minutes(2));
    let alarm = scene.assert_raised(AlarmKind::Destination).await;
    assert!(alarm.text.contains("answered 500"), "{}", alarm.text);
    books.deliver("").await;
    scene.assert_ended(AlarmKind::Destination).await;
}

#[tokio::test]
async fn a_feed_that_fails_alarms_although_others_are_accepted() {
    let books = Books::new().await;
    let scene = &books.scene;
    books.export(COMPANY, "a").await;
    books.deliver("a").await;
    books.export(NEIGHBOR, "b").await;
    books.deliver("a").await;
    scene.clock.advance(minutes(29));
    assert_eq!(scene.check().await, (vec![], vec![]));
    scene.clock.advance(minutes(2));
    let alarm = scene.assert_raised(AlarmKind::Destination).await;
    assert!(
        alarm.text.contains("none of 1 feed since"),
        "{}",
        alarm.text
    );
    books.deliver("").await;
    scene.assert_ended(AlarmKind::Destination).await;
}

#[tokio::test]
async fn a_deferred_document_alarms_until_it_is_accepted() {
    let books = Books::new().await;
    let scene = &books.scene;
    books.export(COMPANY, "a").await;
    for minute in 0..60 {
        books.deliver("a").await;
        scene.clock.advance(minutes(1));
        if minute == 40 {
            books.export(COMPANY, "c").await;
        }
    }
    let alarm = scene.assert_raised(AlarmKind::Destination).await;
    assert_eq!(alarm.subject, "books/deferred");
    assert!(alarm.text.contains("--state deferred"), "{}", alarm.text);
    scene.clock.advance(hours(24));
    // Hours without a pull have alarms of their own.
    books.export(COMPANY, "c").await;
    books.deliver("").await;
    scene.assert_ended(AlarmKind::Destination).await;
}

#[tokio::test]
async fn an_ended_subscription_alarms_until_it_is_restored() {
    let app = TestApp::spawn().await;
    app.deliver(&Message::confirmation(&app.sns)).await;
    app.clock.advance(minutes(1));
    let ended = Message::ended(&app.sns).published_at(app.clock.now());
    app.deliver(&ended).await;
    let alarms = Alarms::new(
        &app.config(),
        app.store.clone(),
        Arc::new(Metrics::new()),
        Arc::default(),
        app.clock.clone(),
    )
    .expect("a client");
    assert_eq!(check(&alarms).await.0, [AlarmKind::Unsubscribed]);

    let listed = app.admin("/v1/alarms?active=true").await;
    assert_eq!(listed["rows"][0]["kind"], "unsubscribed", "{listed}");
    assert_eq!(listed["rows"][0]["ended_at"], Value::Null);
    let active = r#"ivesk_webhook_alarms{kind="unsubscribed"} 1"#;
    assert!(app.metrics().await.contains(active));
    let id = app.subscription().await.id;
    app.admin_post(&format!("/v1/subscriptions/{id}/restore"), &json!({}))
        .await;
    assert_eq!(check(&alarms).await.1, [AlarmKind::Unsubscribed]);
    assert_eq!(app.admin("/v1/alarms?active=true").await["rows"], json!([]));
    let all = app.admin("/v1/alarms").await;
    assert_eq!(
        all["rows"][0]["ended_at"],
        app.clock.now().to_string(),
        "{all}"
    );
    let beyond = app
        .admin_request(Method::GET, "/v1/alarms?before=1")
        .send()
        .await;
    assert_eq!(beyond.expect("an answer").status(), 400);
}

#[tokio::test]
async fn a_subscription_that_needs_a_person_alarms() {
    let app = TestApp::spawn().await;
    let alarms = Alarms::new(
        &app.config(),
        app.store.clone(),
        Arc::new(Metrics::new()),
        Arc::default(),
        app.clock.clone(),
    )
    .expect("a client");
    // SNS rejects the token.
    app.sns.set_confirming(Confirming::IsRefused);
    app.deliver(&Message::confirmation(&app.sns)).await;
    assert_eq!(check(&alarms).await.0, [AlarmKind::Unconfirmed]);
    let listed = app.admin("/v1/alarms?active=true").await;
    let words = listed["rows"][0]["text"].as_str();
    let words = words.unwrap_or_else(|| panic!("{listed}"));
    assert!(words.contains("InvalidParameter"), "{words}");
    assert!(words.contains("subscriptions create"), "{words}");
    // The next token is good.
    app.sns.set_confirming(Confirming::Succeeds);
    app.clock.advance(minutes(1));
    let again = Message::confirmation(&app.sns).published_at(app.clock.now());
    app.deliver(&again).await;
    assert_eq!(check(&alarms).await.1, [AlarmKind::Unconfirmed]);

    let foreign = Message::confirmation(&app.sns).of_topic(FOREIGN_TOPIC);
    app.deliver(&foreign).await;
    assert_eq!(check(&alarms).await.0, [AlarmKind::Unconfirmed]);
    let listed = app.admin("/v1/alarms?active=true").await;
    let words = listed["rows"][0]["text"].as_str().expect("text");
    assert!(words.contains(FOREIGN_TOPIC), "{words}");
    let rows = app.store.subscriptions().await.expect("readable");
    let id = rows.last().expect("it is kept").id;
    let path = format!("/v1/subscriptions/{id}/approve");
    app.admin_post(&path, &json!({})).await;
    assert_eq!(check(&alarms).await.1, [AlarmKind::Unconfirmed]);
}

/// Pauses the feed as after a refusal of the vendor.
async fn pause(scene: &Scene) {
    scene.notify(exported(COMPANY)).await;
    let failure = PageFailure::FeedPaused {
        reason: FeedPauseReason::Forbidden,
        retry_at: scene.clock.now().after(hours(1)),
    };
    let lease = scene.lease().await.expect("due");
    let failed = scene
        .store
        .fail_page(lease, failure, "403".to_owned(), scene.clock.now())
        .await;
    failed.expect("stored");
}

async fn notify(alarms: &Alarms) -> NotifyOutcome {
    alarms.notify().await.expect("the store works")
}

#[tokio::test]
async fn an_unreachable_address_is_notified_in_order_afterwards() {
    let stand_in = StandIn::start([]).await;
    let url = stand_in.url("/hooks/planted-secret");
    let scene = Scene::with(|config, _| {
        config.alarms.target = Some(AlarmTarget::Url(url.clone().into()));
    })
    .await;
    assert_eq!(notify(&scene.alarms).await, NotifyOutcome::Nothing);
    pause(&scene).await;
    scene.assert_raised(AlarmKind::Paused).await;

    stand_in.then(Answer::status(503, ""));
    stand_in.then(Answer::status(302, "").with("location", "http://127.0.0.1:9/"));
    assert_eq!(notify(&scene.alarms).await, NotifyOutcome::Failed);
    assert_eq!(
        notify(&scene.alarms).await,
        NotifyOutcome::Nothing,
        "not at once"
    );
    scene.clock.advance(minutes(1));
    assert_eq!(
        notify(&scene.another_process()).await,
        NotifyOutcome::Failed,
        "no redirects"
    );
    let row = scene.active().await.remove(0);
    assert_eq!((row.attempts, row.notify_at.is_some()), (2, true));
    let error = row.last_error.expect("it failed");
    assert_eq!(error, "`alarms.url` answered 302");

    // It ends before its beginning could be notified.
    let resumed = scene
        .store
        .set_paused(
            default_account(),
            None,
            PauseChange::Resume { accept: false },
        )
        .await;
    resumed.expect("resumed");
    scene.assert_ended(AlarmKind::Paused).await;
    scene.clock.advance(minutes(20));
    stand_in.requests();
    stand_in.then(Answer::ok(""));
    stand_in.then(Answer::ok(""));
    assert_eq!(
        notify(&scene.another_process()).await,
        NotifyOutcome::Sent,
        "a restart"
    );
    assert_eq!(
        notify(&scene.alarms).await,
        NotifyOutcome::Sent,
        "another replica"
    );
    assert_eq!(
        notify(&scene.alarms).await,
        NotifyOutcome::Nothing,
        "each once"
    );

    let requests = stand_in.requests();
    let messages: Vec<Value> = requests
        .iter()
        .map(|request| serde_json::from_slice(&request.body).expect("JSON"))
        .collect();
    let states: Vec<_> = messages.iter().map(|message| &message["state"]).collect();
    assert_eq!(states, ["raised", "ended"]);
    assert_eq!(messages[0]["id"], messages[1]["id"]);
    assert_eq!(messages[0]["alarm"], "paused");
    assert_eq!(messages[0]["subject"], "default/exported/302320404");
    assert_eq!(messages[0]["ended_at"], Value::Null);
    let text = messages[0]["text"].as_str().expect("text");
    assert!(text.starts_with("ivesk-webhook: alarm paused: "), "{text}");
    assert_eq!(requests[0].target, "/hooks/planted-secret");
    assert_eq!(
        requests[0].header("content-type"),
        Some(&b"application/json"[..])
    );
}

/// Writes a shell script and returns a command that runs it.
fn script(dir: &Path, text: &str) -> AlarmCommand {
    let program = dir.join("notify");
    write_program(&program, &format!("#!/bin/sh\n{text}\n"));
    AlarmCommand {
        program,
        arguments: vec!["two words; $HOME".to_owned()],
    }
}

#[tokio::test]
async fn a_command_gets_the_alarm_without_shell_or_environment() {
    let scene = Scene::with(|config, dir| {
        let to = dir.display();
        let text = format!("cat > {to}/input\nenv > {to}/env\nprintf %s \"$1\" > {to}/argument");
        config.alarms.target = Some(AlarmTarget::Command(script(dir, &text)));
    })
    .await;
    pause(&scene).await;
    scene.assert_raised(AlarmKind::Paused).await;

    assert_eq!(notify(&scene.alarms).await, NotifyOutcome::Sent);

    let file = |name: &str| std::fs::read_to_string(scene.dir.path().join(name));
    let input: Value = serde_json::from_str(&file("input").expect("it ran")).expect("JSON");
    assert_eq!(
        (&input["alarm"], &input["state"]),
        (&json!("paused"), &json!("raised"))
    );
    assert_eq!(file("argument").expect("it ran"), "two words; $HOME");
    let environment = file("env").expect("it ran");
    let names = environment
        .lines()
        .filter_map(|line| line.split('=').next());
    // Without the shell's own.
    let ours: Vec<_> = names
        .filter(|name| !matches!(*name, "PWD" | "SHLVL" | "_" | "OLDPWD"))
        .collect();
    // By the second one the next start recognizes what a killed service left behind.
    assert_eq!(ours, ["PATH", "IVESK_SERVICE"], "{environment}");
}

#[tokio::test]
async fn a_command_that_fails_is_retried_later() {
    let scene = Scene::with(|config, dir| {
        config.alarms.target = Some(AlarmTarget::Command(script(dir, "exit 3")));
    })
    .await;
    pause(&scene).await;
    scene.assert_raised(AlarmKind::Paused).await;
    assert_eq!(notify(&scene.alarms).await, NotifyOutcome::Failed);
    let row = scene.active().await.remove(0);
    let error = row.last_error.expect("it failed");
    assert_eq!(error, "`alarms.command` failed with exit status: 3");
    scene.clock.advance(minutes(1));
    assert_eq!(notify(&scene.alarms).await, NotifyOutcome::Failed);
}

#[tokio::test]
async fn notifying_ends_after_a_day_of_failures() {
    let scene = Scene::with(|config, dir| {
        let command = script(dir, "exit 3");
        config.alarms.target = Some(AlarmTarget::Command(AlarmCommand {
            program: "/nowhere/at/all".into(),
            ..command
        }));
    })
    .await;
    pause(&scene).await;
    scene.assert_raised(AlarmKind::Paused).await;
    let started = scene.clock.now();
    let mut attempts = 0;
    while let Some(due) = scene.active().await.remove(0).notify_at {
        scene.clock.advance(due.since(scene.clock.now()));
        assert_eq!(notify(&scene.alarms).await, NotifyOutcome::Failed);
        attempts += 1;
    }
    assert_eq!(attempts, 100);
    let elapsed = scene.clock.now().since(started);
    assert!((hours(20)..hours(30)).contains(&elapsed), "{elapsed:?}");
    scene.clock.advance(Duration::from_secs(1));
    assert_eq!(notify(&scene.alarms).await, NotifyOutcome::Nothing);
}

#[test]
fn the_docs_explain_every_alarm_once() {
    let page = include_str!("../../../docs/alarms.md");
    for kind in AlarmKind::ALL {
        let row = format!("\n| `{}` | ", kind.as_str());
        assert_eq!(page.matches(&row).count(), 1, "{row}");
    }
}
