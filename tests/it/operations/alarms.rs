//! Alarms: each begins once and ends once, whoever looks, and is told until it is taken.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ivesk_webhook::alarms::{Alarms, NotifyOutcome};
use ivesk_webhook::config::{
    AlarmCommand, AlarmTarget, Config, DestinationConfig, DestinationKind, HistoryMode,
    default_account,
};
use ivesk_webhook::domain::{
    Clock, DestinationName, DocumentVersion, Event, Feed, Queue, Timestamp,
};
use ivesk_webhook::emulator::signer::Signer;
use ivesk_webhook::metrics::Metrics;
use ivesk_webhook::service::open_store;
use ivesk_webhook::store::*;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::TestApp;
use crate::support::databases::Database;
use crate::support::fake_sns::Message;
use crate::support::faulty_store::FaultyStore;
use crate::support::puller::{COMPANY, digitized, exported, folder, hours, minutes, settings};
use crate::support::stand_in::{Answer, StandIn};

/// A store, and who looks at it. Nothing is pulled but what the test stores itself.
struct Station {
    store: Arc<FaultyStore>,
    clock: Clock,
    config: Config,
    metrics: Arc<Metrics>,
    alarms: Alarms,
    dir: tempfile::TempDir,
    _database: Option<Database>,
}

fn start_of_time() -> Timestamp {
    Timestamp::parse("2026-11-23T08:00:00.000Z").expect("a valid time")
}

impl Station {
    async fn new() -> Self {
        Self::with(|_, _| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config, &Path)) -> Self {
        let clock = Clock::manual(start_of_time());
        let dir = folder();
        let nowhere = "http://127.0.0.1:9";
        let mut config = settings(dir.path(), nowhere, "planted-key", nowhere);
        let database = Database::of_the_suite().await;
        if let Some(database) = &database {
            config.store.url = database.url();
        }
        change(&mut config, dir.path());
        let store = open_store(&config, &clock).await.expect("the store opens");
        let store = Arc::new(FaultyStore::around(store));
        store.set_free_bytes(1 << 40);
        let metrics = Arc::new(Metrics::new());
        let alarms = alarms(&config, &store, &metrics, &clock);
        Self {
            store,
            clock,
            config,
            metrics,
            alarms,
            dir,
            _database: database,
        }
    }

    /// Another process, which has counted nothing: a replica, or this one after a restart.
    fn another(&self) -> Alarms {
        alarms(
            &self.config,
            &self.store,
            &Arc::new(Metrics::new()),
            &self.clock,
        )
    }

    /// Looks, and tells what began and what is over.
    async fn look(&self) -> (Vec<AlarmKind>, Vec<AlarmKind>) {
        look(&self.alarms).await
    }

    async fn on(&self) -> Vec<AlarmRow> {
        let filter = AlarmFilter {
            active: true,
            after: 0,
            limit: 1_000,
        };
        self.store.alarms(filter).await.expect("readable")
    }

    /// Asserts that `kind` is begun now by one look and by no further one, after a restart
    /// and on another replica neither.
    async fn begins(&self, kind: AlarmKind) -> AlarmRow {
        assert_eq!(self.look().await, (vec![kind], vec![]));
        assert_eq!(self.look().await, (vec![], vec![]), "{kind:?} again");
        let nothing = (vec![], vec![]);
        assert_eq!(look(&self.another()).await, nothing, "{kind:?} elsewhere");
        let mut on = self.on().await;
        assert_eq!(on.len(), 1, "{on:?}");
        on.remove(0)
    }

    /// Asserts that `kind` is over now, by one look and by no further one.
    async fn ends(&self, kind: AlarmKind) {
        assert_eq!(self.look().await, (vec![], vec![kind]));
        assert_eq!(self.look().await, (vec![], vec![]), "{kind:?} again");
        assert_eq!(look(&self.another()).await, (vec![], vec![]));
        assert!(self.on().await.is_empty());
    }

    async fn lease(&self) -> Option<PageLease> {
        let request = LeaseRequest {
            now: self.clock.now(),
            lease: minutes(2),
            requests_per_account: 16,
            lookback: hours(24),
            queues: Queue::ALL.map(|queue| (default_account(), queue)).to_vec(),
        };
        self.store.lease_page(request).await.expect("leasing works")
    }

    /// Serves everything that is due, each time with a last page of these documents.
    async fn pull(&self, documents: &[(&str, Timestamp)], uploads: &[&str]) {
        while let Some(lease) = self.lease().await {
            let version = |(id, version): &(&str, Timestamp)| DocumentVersion {
                id: (*id).to_owned(),
                version: version.to_string(),
                body: b"{}".to_vec(),
            };
            let returned = |correlation: &&str| UploadReturn {
                correlation: (*correlation).to_owned(),
                document_id: "d".to_owned(),
            };
            let page = PageToCommit {
                documents: documents.iter().map(version).collect(),
                uploads: uploads.iter().map(returned).collect(),
                end: PageEnd::UpToDate,
                ..PageToCommit::default()
            };
            let plan = PullPlan {
                now: self.clock.now(),
                follow_ups: [hours(1_000), hours(2_000)],
                reconcile_every: hours(1),
                lookback: hours(24),
            };
            let stored = self.store.commit_page(lease, page, plan).await;
            stored.expect("stored");
        }
    }

    async fn hint(&self, feed: Feed) {
        let trigger = Trigger {
            feed,
            kind: TriggerKind::Notification,
            due_at: self.clock.now(),
            from: None,
        };
        self.store.trigger(vec![trigger]).await.expect("raised");
    }
}

fn alarms(
    config: &Config,
    store: &Arc<FaultyStore>,
    metrics: &Arc<Metrics>,
    clock: &Clock,
) -> Alarms {
    let (store, metrics) = (Arc::clone(store) as SharedStore, Arc::clone(metrics));
    Alarms::new(config, store, metrics, clock.clone()).expect("a client")
}

async fn look(alarms: &Alarms) -> (Vec<AlarmKind>, Vec<AlarmKind>) {
    let changes = alarms.check().await.expect("the store works");
    let kinds = |rows: Vec<AlarmRow>| rows.into_iter().map(|row| row.kind).collect();
    (kinds(changes.raised), kinds(changes.ended))
}

#[tokio::test]
async fn silence_begins_with_missed_notifications_and_ends_with_one() {
    let station = Station::new().await;
    station.hint(exported(COMPANY)).await;
    station.pull(&[], &[]).await;
    station.clock.advance(hours(1));
    station.pull(&[("a", station.clock.now())], &[]).await;
    assert_eq!(station.look().await, (vec![], vec![]), "one may still come");

    station.clock.advance(minutes(15));
    let alarm = station.begins(AlarmKind::Silence).await;
    assert_eq!(alarm.subject, "default/exported");
    assert!(
        alarm.text.contains("2026-11-23T08:00:00.000Z"),
        "{}",
        alarm.text
    );

    station.hint(exported(COMPANY)).await;
    station.ends(AlarmKind::Silence).await;
}

#[tokio::test]
async fn paused_feeds_and_accounts_alarm_unless_a_person_did_it() {
    let station = Station::new().await;
    station.hint(exported(COMPANY)).await;
    let failure = PageFailure::FeedPaused {
        reason: FeedPauseReason::NotFound,
        retry_at: station.clock.now().after(hours(1)),
    };
    let lease = station.lease().await.expect("due");
    let failed = station
        .store
        .fail_page(lease, failure, "404".to_owned())
        .await;
    failed.expect("noted");
    let alarm = station.begins(AlarmKind::Paused).await;
    assert_eq!(alarm.subject, "default/exported/302320404");
    assert!(alarm.text.contains("feeds resume"), "{}", alarm.text);

    let paused = |paused| station.store.set_paused(default_account(), None, paused);
    paused(true).await.expect("paused by hand");
    station.ends(AlarmKind::Paused).await;

    paused(false).await.expect("freed");
    station.hint(exported(COMPANY)).await;
    let failure = PageFailure::AccountPaused {
        reason: FeedPauseReason::Unauthorized,
        retry_at: station.clock.now().after(hours(1)),
    };
    let lease = station.lease().await.expect("due");
    let failed = station
        .store
        .fail_page(lease, failure, "401".to_owned())
        .await;
    failed.expect("noted");
    assert_eq!(station.begins(AlarmKind::Paused).await.subject, "default");
    paused(false).await.expect("freed");
    station.ends(AlarmKind::Paused).await;
}

#[tokio::test]
async fn a_blocked_queue_alarms_once_something_waits_for_it() {
    let mut station = Station::with(|config, _| config.api.exported_path = None).await;
    assert_eq!(station.look().await, (vec![], vec![]), "nothing waits");
    station.hint(exported(COMPANY)).await;
    let alarm = station.begins(AlarmKind::Blocked).await;
    assert!(alarm.text.contains("`api.exported_path`"), "{}", alarm.text);

    station.config.api.exported_path = settings(
        station.dir.path(),
        "http://127.0.0.1:9",
        "planted-key",
        "http://127.0.0.1:9",
    )
    .api
    .exported_path;
    station.alarms = station.another();
    assert_eq!(
        station.look().await,
        (vec![], vec![]),
        "another may not know it yet"
    );
    station.clock.advance(minutes(10));
    station.ends(AlarmKind::Blocked).await;
}

#[tokio::test]
async fn a_feed_that_stays_behind_alarms_unless_nothing_ran() {
    let station = Station::new().await;
    station.hint(exported(COMPANY)).await;
    station.pull(&[], &[]).await;
    station.clock.advance(hours(3) + minutes(1));
    let alarm = station.begins(AlarmKind::Behind).await;
    assert_eq!(alarm.subject, "default/exported/302320404");
    station.pull(&[], &[]).await;
    station.ends(AlarmKind::Behind).await;

    station.clock.advance(hours(24));
    let restarted = station.another();
    assert_eq!(look(&restarted).await, (vec![], vec![]), "it just started");
    station.clock.advance(minutes(16));
    assert_eq!(look(&restarted).await, (vec![AlarmKind::Behind], vec![]));
}

#[tokio::test]
async fn a_storm_of_refusals_alarms_until_it_has_been_calm() {
    let station = Station::new().await;
    let refuse = |count: usize| {
        for _ in 0..count {
            station
                .metrics
                .refused(Some(Event::OnExported), "signature_mismatch");
            // Anybody can ask for any path.
            station.metrics.refused(None, "unknown_path");
        }
    };
    refuse(19);
    assert_eq!(station.look().await, (vec![], vec![]));
    refuse(1);
    let alarm = station.begins(AlarmKind::RefusedStorm).await;
    assert!(
        alarm.text.contains("`signature_mismatch`"),
        "{}",
        alarm.text
    );
    station.clock.advance(minutes(9));
    assert_eq!(station.look().await, (vec![], vec![]));
    station.clock.advance(minutes(10));
    station.ends(AlarmKind::RefusedStorm).await;
}

#[tokio::test]
async fn a_certificate_near_expiry_alarms_until_it_is_renewed() {
    let station = Station::new().await;
    let now = station.clock.now();
    let keep = |name: &str, days: u64| {
        let signer = Signer::generate("sns.amazonaws.com", now, now.after(hours(24 * days)));
        let row = CertificateRow {
            url: format!("https://sns.eu-west-1.amazonaws.com/{name}.pem"),
            pem: signer.expect("made").certificate_pem().as_bytes().to_vec(),
            fetched_at: now,
        };
        station.store.keep_certificate(row)
    };
    keep("one", 8).await.expect("kept");
    assert_eq!(station.look().await, (vec![], vec![]));
    station.clock.advance(hours(25));
    let alarm = station.begins(AlarmKind::Certificate).await;
    assert_eq!(alarm.subject, "sns.eu-west-1.amazonaws.com");
    keep("two", 400).await.expect("kept");
    station.ends(AlarmKind::Certificate).await;
}

#[tokio::test]
async fn a_filling_disk_alarms_before_messages_are_refused() {
    let station = Station::new().await;
    station.store.set_free_bytes((1 << 29) - 1);
    station.begins(AlarmKind::Disk).await;
    station.store.set_free_bytes(1 << 29);
    station.clock.advance(minutes(10));
    station.ends(AlarmKind::Disk).await;
}

#[tokio::test]
async fn late_uploads_alarm_until_their_documents_arrive() {
    let station = Station::new().await;
    let upload = NewUpload {
        account: default_account(),
        sha256: "00".repeat(32),
        size_bytes: 1,
        file_name: "a.pdf".to_owned(),
        correlation: "mark".to_owned(),
        force: false,
        owner: "me".to_owned(),
        now: station.clock.now(),
        claim: minutes(1),
    };
    let begun = station.store.begin_upload(upload).await.expect("claimed");
    let UploadBegun::Send(row) = begun else {
        panic!("{begun:?}");
    };
    let (id, now) = (row.id, station.clock.now());
    let sent = station
        .store
        .end_upload(id, "me".to_owned(), UploadEnd::Sent, now);
    assert!(sent.await.expect("noted"));
    assert_eq!(station.look().await, (vec![], vec![]));
    station.clock.advance(hours(12) + minutes(1));
    station.begins(AlarmKind::UploadsLate).await;
    station.hint(digitized()).await;
    station.pull(&[], &["mark"]).await;
    station.ends(AlarmKind::UploadsLate).await;
}

#[tokio::test]
async fn a_failing_destination_alarms_until_it_accepts_a_document() {
    let name = DestinationName::parse("books").expect("a name");
    let station = Station::with(|config, _| {
        let destination = DestinationConfig {
            queue: Queue::Exported,
            accounts: Vec::new(),
            companies: Vec::new(),
            history: HistoryMode::Deliver,
            max_concurrency: 1,
            timeout: minutes(1),
            kind: DestinationKind::List,
        };
        config.destinations.insert(
            DestinationName::parse("books").expect("a name"),
            destination,
        );
    })
    .await;
    let now = || station.clock.now();
    let known = station.store.register_destinations(
        vec![(name.clone(), DestinationFilter::all_of(Queue::Exported))],
        now(),
    );
    known.await.expect("known");
    station.hint(exported(COMPANY)).await;
    station.pull(&[("a", now())], &[]).await;
    let lease = || async {
        loop {
            let request = DeliveryLeaseRequest {
                destination: name.clone(),
                filter: DestinationFilter::all_of(Queue::Exported),
                deliver_history: true,
                files: false,
                now: now(),
                lease: minutes(1),
                limit: 10,
                limit_bytes: 1 << 20,
            };
            match station
                .store
                .lease_deliveries(request)
                .await
                .expect("works")
            {
                DeliveryLeased::Batch(lease) => return lease,
                DeliveryLeased::Advanced => {}
                DeliveryLeased::Nothing { .. } => panic!("a version waits"),
            }
        }
    };
    let fails = LeaseAction::Wait {
        sequence: 1,
        began_at: now(),
        error: "answered 500".to_owned(),
        until: Some(now()),
    };
    let settled = station
        .store
        .settle_deliveries(lease().await, vec![], fails, now());
    settled.await.expect("noted");
    station.clock.advance(minutes(29));
    assert_eq!(station.look().await, (vec![], vec![]));
    station.clock.advance(minutes(2));
    let alarm = station.begins(AlarmKind::Destination).await;
    assert!(alarm.text.contains("answered 500"), "{}", alarm.text);

    let delivered = Attempt {
        sequence: 1,
        began_at: now(),
        outcome: DeliveryOutcome::Delivered { note: None },
    };
    let settled = station.store.settle_deliveries(
        lease().await,
        vec![delivered],
        LeaseAction::Release,
        now(),
    );
    settled.await.expect("noted");
    station.ends(AlarmKind::Destination).await;
}

#[tokio::test]
async fn held_documents_alarm_until_their_feed_is_started() {
    let name = DestinationName::parse("books").expect("a name");
    let station = Station::with(|config, _| {
        let name = DestinationName::parse("books").expect("a name");
        config
            .destinations
            .insert(name, DestinationConfig::of(DestinationKind::List));
    })
    .await;
    let now = || station.clock.now();
    let known = station.store.register_destinations(
        vec![(name.clone(), DestinationFilter::all_of(Queue::Exported))],
        now(),
    );
    known.await.expect("known");
    station.hint(exported(COMPANY)).await;
    assert_eq!(
        station.look().await,
        (vec![], vec![]),
        "nothing has come yet"
    );
    station.pull(&[("a", now()), ("b", now())], &[]).await;
    let alarm = station.begins(AlarmKind::Held).await;
    assert_eq!(alarm.subject, "books");
    assert!(
        alarm.text.contains("2 documents of 1 feed held"),
        "{}",
        alarm.text
    );
    let start = DestinationChange::Start {
        filter: DestinationFilter::all_of(Queue::Exported),
        account: None,
        company: None,
        from: StartFrom::Now,
    };
    let started = station.store.change_destination(name, start, now()).await;
    assert_eq!(started.expect("started"), Some(1));
    station.ends(AlarmKind::Held).await;
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
        app.clock.clone(),
    )
    .expect("a client");
    assert_eq!(look(&alarms).await.0, [AlarmKind::Unsubscribed]);

    let listed = app.admin("/v1/alarms?active=true").await;
    assert_eq!(listed["rows"][0]["kind"], "unsubscribed", "{listed}");
    assert_eq!(listed["rows"][0]["ended_at"], Value::Null);
    let on = r#"ivesk_webhook_alarms{kind="unsubscribed"} 1"#;
    assert!(app.metrics().await.contains(on));
    let id = app.subscription().await.id;
    app.admin_post(&format!("/v1/subscriptions/{id}/restore"), &json!({}))
        .await;
    assert_eq!(look(&alarms).await.1, [AlarmKind::Unsubscribed]);
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

/// Pauses the feed by the vendor's word.
async fn pause(station: &Station) {
    station.hint(exported(COMPANY)).await;
    let failure = PageFailure::FeedPaused {
        reason: FeedPauseReason::Forbidden,
        retry_at: station.clock.now().after(hours(1)),
    };
    let lease = station.lease().await.expect("due");
    let failed = station
        .store
        .fail_page(lease, failure, "403".to_owned())
        .await;
    failed.expect("noted");
}

async fn told(alarms: &Alarms) -> NotifyOutcome {
    alarms.notify().await.expect("the store works")
}

#[tokio::test]
async fn an_unreachable_address_is_notified_in_order_afterwards() {
    let stand_in = StandIn::start([]).await;
    let url = stand_in.url("/hooks/planted-secret");
    let station = Station::with(|config, _| {
        config.alarms.target = Some(AlarmTarget::Url(url.clone().into()));
    })
    .await;
    assert_eq!(told(&station.alarms).await, NotifyOutcome::Nothing);
    pause(&station).await;
    station.begins(AlarmKind::Paused).await;

    stand_in.then(Answer::status(503, ""));
    stand_in.then(Answer::status(302, "").with("location", "http://127.0.0.1:9/"));
    assert_eq!(told(&station.alarms).await, NotifyOutcome::Failed);
    assert_eq!(
        told(&station.alarms).await,
        NotifyOutcome::Nothing,
        "not at once"
    );
    station.clock.advance(minutes(1));
    assert_eq!(
        told(&station.another()).await,
        NotifyOutcome::Failed,
        "no redirects"
    );
    let row = station.on().await.remove(0);
    assert_eq!((row.attempts, row.notify_at.is_some()), (2, true));
    let error = row.last_error.expect("it failed");
    assert_eq!(error, "`alarms.url` answered 302");

    // It is over before anybody could be told that it began.
    let freed = station
        .store
        .set_paused(default_account(), None, false)
        .await;
    freed.expect("freed");
    station.ends(AlarmKind::Paused).await;
    station.clock.advance(minutes(20));
    stand_in.requests();
    stand_in.then(Answer::ok(""));
    stand_in.then(Answer::ok(""));
    assert_eq!(
        told(&station.another()).await,
        NotifyOutcome::Sent,
        "a restart"
    );
    assert_eq!(
        told(&station.alarms).await,
        NotifyOutcome::Sent,
        "another replica"
    );
    assert_eq!(
        told(&station.alarms).await,
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

/// A shell script in `dir` that can be run.
fn script(dir: &Path, text: &str) -> AlarmCommand {
    let program = dir.join("tell");
    std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).expect("written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("it can be run");
    AlarmCommand {
        program,
        arguments: vec!["two words; $HOME".to_owned()],
    }
}

#[tokio::test]
async fn a_command_gets_the_alarm_without_shell_or_environment() {
    let station = Station::with(|config, dir| {
        let to = dir.display();
        let text = format!("cat > {to}/given\nenv > {to}/env\nprintf %s \"$1\" > {to}/argument");
        config.alarms.target = Some(AlarmTarget::Command(script(dir, &text)));
    })
    .await;
    pause(&station).await;
    station.begins(AlarmKind::Paused).await;

    assert_eq!(told(&station.alarms).await, NotifyOutcome::Sent);

    let file = |name: &str| std::fs::read_to_string(station.dir.path().join(name));
    let given: Value = serde_json::from_str(&file("given").expect("it ran")).expect("JSON");
    assert_eq!(
        (&given["alarm"], &given["state"]),
        (&json!("paused"), &json!("raised"))
    );
    assert_eq!(file("argument").expect("it ran"), "two words; $HOME");
    let environment = file("env").expect("it ran");
    let names = environment
        .lines()
        .filter_map(|line| line.split('=').next());
    // What the shell of the script sets by itself.
    let ours: Vec<_> = names
        .filter(|name| !matches!(*name, "PWD" | "SHLVL" | "_" | "OLDPWD"))
        .collect();
    assert_eq!(ours, ["PATH"], "{environment}");
}

#[tokio::test]
async fn a_command_that_fails_is_retried_later() {
    let station = Station::with(|config, dir| {
        config.alarms.target = Some(AlarmTarget::Command(script(dir, "exit 3")));
    })
    .await;
    pause(&station).await;
    station.begins(AlarmKind::Paused).await;
    assert_eq!(told(&station.alarms).await, NotifyOutcome::Failed);
    let row = station.on().await.remove(0);
    let error = row.last_error.expect("it failed");
    assert_eq!(error, "`alarms.command` failed with exit status: 3");
    station.clock.advance(minutes(1));
    assert_eq!(told(&station.alarms).await, NotifyOutcome::Failed);
}

#[tokio::test]
async fn notifying_ends_after_a_day_of_failures() {
    let station = Station::with(|config, dir| {
        let command = script(dir, "exit 3");
        config.alarms.target = Some(AlarmTarget::Command(AlarmCommand {
            program: "/nowhere/at/all".into(),
            ..command
        }));
    })
    .await;
    pause(&station).await;
    station.begins(AlarmKind::Paused).await;
    let begun = station.clock.now();
    let mut attempts = 0;
    while let Some(due) = station.on().await.remove(0).notify_at {
        station.clock.advance(due.since(station.clock.now()));
        assert_eq!(told(&station.alarms).await, NotifyOutcome::Failed);
        attempts += 1;
    }
    assert_eq!(attempts, 100);
    let took = station.clock.now().since(begun);
    assert!((hours(20)..hours(30)).contains(&took), "{took:?}");
    station.clock.advance(Duration::from_secs(1));
    assert_eq!(told(&station.alarms).await, NotifyOutcome::Nothing);
}

#[test]
fn the_docs_explain_every_alarm_once() {
    let page = include_str!("../../../docs/alarms.md");
    for kind in AlarmKind::ALL {
        let row = format!("\n| `{}` | ", kind.as_str());
        assert_eq!(page.matches(&row).count(), 1, "{row}");
    }
}
