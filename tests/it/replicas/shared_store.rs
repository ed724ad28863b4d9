//! A PostgreSQL store that replicas share.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use ivesk_webhook::config::StoreUrl;
use ivesk_webhook::domain::{
    Account, Clock, Company, Cursor, DestinationName, DocumentVersion, Event, Feed, Queue,
    Timestamp,
};
use ivesk_webhook::sns::MessageType;
use ivesk_webhook::store::{
    AcceptedMessage, BackupFile, DeliveryLeaseRequest, DeliveryLeased, DestinationChange,
    DestinationFilter, DocumentFilter, Hooks, Insertion, LanePlan, LeaseRequest, PageEnd,
    PageFailure, PageLease, PageOutcome, PageToCommit, PullPlan, SharedStore, Store, StoreError,
    StoreOptions, SubscriptionChange, Trigger, TriggerKind, Triggers,
};

use crate::store::known_messages::open;
use crate::store::messages::Messages;
use crate::support::databases::{
    Cluster, Database, Options, connect, query_sql, run_sql, skip_postgres,
};
use crate::support::process::{Port, within};
use crate::support::sns::{SIGNER, TOPIC, sns_url, unsigned, verifier_at, verify};

const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// The stores of two replicas on one database.
struct Pair {
    stores: [SharedStore; 2],
    clock: Clock,
    _database: Database,
}

impl Pair {
    async fn open(test: &str) -> Option<Self> {
        let database = Database::postgres(test).await?;
        let clock = Clock::manual(START);
        let open = || database.open(Options::at(clock.clone()));
        let stores = [open().await.expect("opens"), open().await.expect("opens")];
        Some(Self {
            stores,
            clock,
            _database: database,
        })
    }

    async fn notify(&self, feeds: impl IntoIterator<Item = Feed>) {
        let triggers = feeds.into_iter().map(|feed| Trigger {
            feed,
            kind: TriggerKind::Notification,
            due_at: self.clock.now(),
            from: None,
        });
        let stored = self.stores[0].trigger(triggers.collect()).await;
        stored.expect("the triggers are stored");
    }

    fn request(&self, requests_per_account: u32) -> LeaseRequest {
        LeaseRequest {
            now: self.clock.now(),
            lease: Duration::from_secs(120),
            requests_per_account,
            lookback: Duration::from_secs(3600),
            min_interval: Duration::ZERO,
            reconcile_every: Duration::from_secs(3600),
            queues: ["default", "one", "two"]
                .map(|name| (account(name), Queue::Exported))
                .to_vec(),
        }
    }

    fn plan(&self) -> PullPlan {
        PullPlan {
            now: self.clock.now(),
            follow_ups: [Duration::from_secs(30), Duration::from_secs(300)],
            reconcile_every: Duration::from_secs(3600),
            lookback: Duration::from_secs(3600),
        }
    }

    /// Leases with `count` workers at once, half of them on each replica.
    async fn lease_at_once(&self, count: usize, requests_per_account: u32) -> Vec<PageLease> {
        let leases = (0..count).map(|worker| {
            let store = Arc::clone(&self.stores[worker % 2]);
            let request = self.request(requests_per_account);
            async move { store.lease_page(request).await.expect("leasing works") }
        });
        let leases = futures_util::future::join_all(leases).await;
        leases.into_iter().flatten().collect()
    }
}

/// Holds the store's probe in the middle of its transaction.
struct HeldProbe {
    reached: tokio::sync::Semaphore,
    gate: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Hooks for HeldProbe {
    fn statement(&self, sql: &str, _types: &[&str]) {
        if sql.contains("INSERT INTO subscription") {
            self.reached.add_permits(1);
            // Ends when the test drops the other half.
            let _ = self.gate.lock().expect("never poisoned").recv();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_suspended_replicas_probe_delays_no_other() {
    let Some(database) = Database::postgres("a suspended probe").await else {
        return;
    };
    let clock = Clock::manual(START);
    let other = database.open(Options::at(clock.clone())).await;
    let other = other.expect("opens");
    let (release, gate) = std::sync::mpsc::channel();
    let held = Arc::new(HeldProbe {
        reached: tokio::sync::Semaphore::new(0),
        gate: std::sync::Mutex::new(gate),
    });
    let suspended = Store::open(StoreOptions {
        url: database.url(),
        queue: 16,
        quarantine_bytes: 1024,
        ask: false,
        clock,
        hooks: Some(held.clone()),
    });
    let suspended = Arc::new(suspended.await.expect("opens"));

    let probing = {
        let store = Arc::clone(&suspended);
        tokio::spawn(async move { store.probe().await })
    };
    held.reached
        .acquire()
        .await
        .expect("it is in its transaction")
        .forget();
    // The wait for a row that the other holds would end with an error.
    other.probe().await.expect("it does not wait");
    drop(release);
    probing.await.expect("no panic").expect("it was only slow");
}

fn account(name: &str) -> Account {
    Account::parse(name).expect("a name")
}

fn feed(account_name: &str, company: usize) -> Feed {
    let company = Company::parse(&company.to_string()).expect("a code");
    Feed::exported(account(account_name), company)
}

fn page(feed: &Feed, number: usize, versions: usize, end: PageEnd) -> PageToCommit {
    PageToCommit {
        documents: (0..versions)
            .map(|n| DocumentVersion {
                id: format!("{feed}-{number}-{n}"),
                version: "2026-09-20T00:00:00.000Z".to_owned(),
                body: "{}".into(),
            })
            .collect(),
        cursor: Some(Cursor::new(number.to_string())),
        next_from: Some(Cursor::new(number.to_string())),
        end,
        ..PageToCommit::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_beside_writers_sees_sequences_without_gaps() {
    const FEEDS: usize = 8;
    const PAGES: usize = 12;
    let Some(pair) = Pair::open("a reader beside many writers").await else {
        return;
    };
    let pair = Arc::new(pair);
    pair.notify((0..FEEDS).map(|company| feed("default", company)))
        .await;
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (store, done) = (Arc::clone(&pair.stores[0]), Arc::clone(&done));
        async move {
            let (mut last, mut reads) = (0_i64, 0);
            loop {
                let is_last_read = done.load(Ordering::SeqCst);
                let filter = DocumentFilter {
                    after: Some(last),
                    limit: 10_000,
                    ..DocumentFilter::default()
                };
                for row in store.documents(filter).await.expect("readable") {
                    assert_eq!(row.sequence, last + 1, "a sequence appeared too early");
                    last = row.sequence;
                }
                reads += 1;
                if is_last_read {
                    return (last, reads);
                }
            }
        }
    });
    let workers = (0..6).map(|worker| {
        let pair = Arc::clone(&pair);
        tokio::spawn(async move {
            let store = &pair.stores[worker % 2];
            let mut number = 0;
            while let Some(lease) = store
                .lease_page(pair.request(16))
                .await
                .expect("leasing works")
            {
                number += 1;
                let end = match lease.position.previous_next.as_ref() {
                    Some(next) if next.as_str().len() >= PAGES => PageEnd::EndOfQueue,
                    _ => PageEnd::More,
                };
                let mut page = page(&lease.feed, worker * 1000 + number, 1 + number % 5, end);
                // The cursor's length counts the pages of the pull.
                let pages = lease
                    .position
                    .previous_next
                    .as_ref()
                    .map_or(1, |next| next.as_str().len() + 1);
                page.cursor = Some(Cursor::new("x".repeat(pages)));
                page.next_from = page.cursor.clone();
                store
                    .commit_page(lease, page, pair.plan())
                    .await
                    .expect("its lease holds");
            }
        })
    });
    for worker in futures_util::future::join_all(workers).await {
        worker.expect("it succeeds");
    }
    done.store(true, Ordering::SeqCst);
    let (last, reads) = reader.await.expect("it finds no gap");
    assert_eq!(
        pair.stores[1].sequence().await.expect("readable").last,
        last
    );
    assert!(
        last >= (FEEDS * PAGES) as i64 && reads > 3,
        "{last} {reads}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_replicas_together_respect_an_accounts_limit() {
    let Some(pair) = Pair::open("an account's requests").await else {
        return;
    };
    let feeds = (0..12).flat_map(|company| [feed("one", company), feed("two", company)]);
    pair.notify(feeds).await;
    for _ in 0..4 {
        let leases = pair.lease_at_once(16, 3).await;
        for name in ["one", "two"] {
            let leased: Vec<_> = leases
                .iter()
                .filter(|lease| lease.feed.account == account(name))
                .collect();
            assert!(
                (1..=3).contains(&leased.len()),
                "{name}: {} at once",
                leased.len()
            );
            let feeds: BTreeSet<_> = leased.iter().map(|lease| lease.feed_id).collect();
            assert_eq!(feeds.len(), leased.len(), "one pull for a feed");
        }
        for lease in leases {
            let page = page(&lease.feed, 1, 0, PageEnd::EndOfQueue);
            let stored = pair.stores[1].commit_page(lease, page, pair.plan()).await;
            stored.expect("any replica may store it");
        }
    }
}

#[tokio::test]
async fn companies_take_turns_whichever_replica_asks() {
    let Some(pair) = Pair::open("companies take turns").await else {
        return;
    };
    pair.notify((0..4).map(|company| feed("default", company)))
        .await;
    let mut turns = Vec::new();
    for turn in 0..12 {
        pair.clock.advance(Duration::from_millis(10));
        let store = &pair.stores[turn % 2];
        let lease = store.lease_page(pair.request(1)).await.expect("answered");
        let lease = lease.expect("there is always more of each");
        turns.push(lease.feed.company.as_str().to_owned());
        let page = page(&lease.feed, turn, 1, PageEnd::More);
        let stored = store.commit_page(lease, page, pair.plan()).await;
        stored.expect("stored");
    }
    for round in turns.chunks(4) {
        let companies: BTreeSet<_> = round.iter().collect();
        assert_eq!(companies.len(), 4, "{turns:?}");
    }
}

#[tokio::test]
async fn a_look_finds_what_another_replica_left_and_nothing_else() {
    let Some(pair) = Pair::open("a look for work").await else {
        return;
    };
    let [own, other] = &pair.stores;
    let books = DestinationName::parse("books").expect("a name");
    let plan = LanePlan {
        filter: DestinationFilter::all_of(Queue::Exported),
        deliver_history: true,
        lookback: Duration::ZERO,
    };
    let destinations = vec![(books.clone(), plan.filter.clone())];
    other
        .register_destinations(destinations, START)
        .await
        .expect("registered");
    let mut arrivals = own.arrivals();
    // Whether pullers and deliveries are woken.
    let mut look = async || {
        let looked = own
            .look_for_work(pair.request(1), vec![books.clone()])
            .await;
        looked.expect("readable");
        let pulls = own.triggered().now_or_never().is_some();
        let deliveries = arrivals.has_changed().expect("the store is open");
        arrivals.mark_unchanged();
        (pulls, deliveries)
    };
    assert_eq!(look().await, (false, false));
    pair.notify([feed("default", 1)]).await;
    // The destination has no lane for the feed yet.
    let _ = own.triggered().now_or_never();
    assert_eq!(look().await, (true, true));
    while other
        .make_lanes(books.clone(), plan.clone(), START)
        .await
        .expect("made")
    {}
    assert_eq!(look().await, (true, true), "a new lane has its first turn");
    let request = || DeliveryLeaseRequest {
        destination: books.clone(),
        lanes: plan.clone(),
        now: pair.clock.now(),
        lease: Duration::from_secs(60),
        limit: 10,
        limit_bytes: 1 << 20,
        earlier_notes: true,
    };
    let leased = other.lease_deliveries(request()).await;
    assert!(matches!(leased, Ok(DeliveryLeased::Nothing(_))));
    assert_eq!(look().await, (true, false));

    let page_lease = other.lease_page(pair.request(1)).await.expect("answered");
    let page_lease = page_lease.expect("due");
    assert_eq!(look().await, (false, false), "it is leased");
    let stored = page(&page_lease.feed, 1, 1, PageEnd::EndOfQueue);
    let stored = other.commit_page(page_lease, stored, pair.plan()).await;
    stored.expect("stored");
    assert!(look().await.1, "a version was stored");
    let leased = other.lease_deliveries(request()).await;
    assert!(matches!(leased, Ok(DeliveryLeased::Batch(_))));
    assert!(!look().await.1, "the destination is leased");
    // The other replica has died.
    pair.clock.advance(Duration::from_secs(61));
    assert!(look().await.1);
    let paused = other.change_destination(books.clone(), DestinationChange::Pause, START);
    paused.await.expect("paused");
    assert!(!look().await.1);
}

#[tokio::test]
async fn a_retry_after_of_one_replica_holds_for_all() {
    let Some(pair) = Pair::open("a shared wait").await else {
        return;
    };
    pair.notify([feed("default", 1), feed("default", 2)]).await;
    let lease = pair.stores[0].lease_page(pair.request(1)).await;
    let lease = lease.expect("answered").expect("due");
    let until = START.after(Duration::from_secs(60));
    pair.stores[0]
        .fail_page(
            lease,
            PageFailure::AccountWaits(until),
            "429".to_owned(),
            START,
        )
        .await
        .expect("stored");
    assert!(pair.lease_at_once(8, 4).await.is_empty());
    pair.clock.advance(Duration::from_secs(60));
    assert_eq!(pair.lease_at_once(8, 1).await.len(), 1);
}

#[tokio::test]
async fn a_replica_cannot_write_a_lease_that_another_took_over() {
    let Some(pair) = Pair::open("a lease that is taken over").await else {
        return;
    };
    pair.notify([feed("default", 1)]).await;
    let request = pair.request(1);
    let stale = pair.stores[0].lease_page(request).await;
    let stale = stale.expect("answered").expect("due");
    pair.clock.advance(Duration::from_secs(121));
    let owner = pair.stores[1].lease_page(pair.request(1)).await;
    let owner = owner.expect("answered").expect("the lease ran out");
    let written = page(&stale.feed, 1, 3, PageEnd::More);
    assert!(matches!(
        pair.stores[0]
            .commit_page(stale, written.clone(), pair.plan())
            .await,
        Err(StoreError::StaleLease)
    ));
    let stored = pair.stores[1]
        .commit_page(owner, written, pair.plan())
        .await;
    assert!(matches!(stored, Ok(PageOutcome::Committed(done)) if done.new == 3));
}

/// Only the database's clock counts, which all replicas share.
#[tokio::test]
async fn the_clock_of_a_caller_moves_no_trigger_and_no_feed() {
    let Some(pair) = Pair::open("the clock of a caller").await else {
        return;
    };
    let day = Duration::from_secs(86_400);
    let [store, _] = &pair.stores;
    let triggers = [TriggerKind::Notification, TriggerKind::Backfill].map(|kind| Trigger {
        feed: feed("default", 1),
        kind,
        // Soon, as if the caller's clock were a little ahead: what is a day off is taken as due.
        due_at: START.after(Duration::from_secs(60)),
        from: None,
    });
    store.trigger(triggers.to_vec()).await.expect("stored");
    let request = || LeaseRequest {
        now: START.before(day),
        ..pair.request(1)
    };
    let mut served = Vec::new();
    for _ in 0..10 {
        let leased = store.lease_page(request()).await.expect("answered");
        let Some(lease) = leased else { break };
        served.push(lease.kind);
        let plan = PullPlan {
            now: START.after(day),
            ..pair.plan()
        };
        let last = page(&lease.feed, 0, 1, PageEnd::EndOfQueue);
        let stored = store.commit_page(lease, last, plan).await;
        stored.expect("stored");
    }
    for trigger in triggers {
        assert!(served.contains(&trigger.kind), "{served:?}");
    }
    let rows = store.feeds().await.expect("readable");
    let pulled_at: Vec<_> = rows.iter().map(|row| row.pulled_at).collect();
    assert_eq!(pulled_at, [Some(START)]);
}

#[tokio::test]
async fn a_newer_schema_is_used_while_compatible_and_then_refused() {
    let Some(database) = Database::postgres("a newer schema").await else {
        return;
    };
    let open = || database.open(Options::at(Clock::manual(START)));
    let first = open().await.expect("a fresh store opens");
    let url = database.url_text();
    run_sql(&url, "UPDATE ivesk_webhook_schema SET version = 99").await;
    let beside = open()
        .await
        .expect("an expanded schema still works with ours");
    assert_eq!(beside.feeds().await.expect("readable").len(), 0);
    run_sql(&url, "UPDATE ivesk_webhook_schema SET works_from = 99").await;
    let Err(error) = open().await else {
        panic!("it opened a schema that it does not know")
    };
    assert!(
        matches!(error, StoreError::NewerSchema { found: 99, .. }),
        "{error}"
    );
    drop(first);
}

#[tokio::test]
async fn a_value_that_cannot_be_read_is_no_unreachable_server() {
    let Some(database) = Database::postgres("an unreadable value").await else {
        return;
    };
    let store = database.open(Options::at(Clock::manual(START))).await;
    let store = store.expect("a fresh store opens");
    let damage = "ALTER TABLE sequence ALTER COLUMN epoch TYPE bytea USING epoch::bytea";
    database.run(damage).await;
    let read = store.sequence().await;
    assert!(matches!(read, Err(StoreError::Database(_))), "{read:?}");
}

/// Returns the trigger of a notification of one feed.
fn notified() -> Trigger {
    Trigger {
        feed: feed("default", 1),
        kind: TriggerKind::Notification,
        due_at: START,
        from: None,
    }
}

/// Notes what a commit promises in each transaction that raises a trigger.
const LOOK: &str = "CREATE TABLE seen (setting TEXT);
    CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
    CREATE TRIGGER look AFTER INSERT OR UPDATE ON feed_trigger EXECUTE FUNCTION look()";

#[tokio::test]
async fn a_commit_is_on_disk_whatever_the_server_was_set_to() {
    let Some(database) = Database::postgres("a commit is on disk").await else {
        return;
    };
    let clock = Clock::manual(START);
    drop(database.open(Options::at(clock.clone())).await);
    database.run(LOOK).await;
    let url = database.url_text();
    let name = url.rsplit('/').next().expect("a name");
    let sets = [
        ("off", "on"),
        ("local", "on"),
        ("remote_write", "on"),
        ("on", "on"),
        ("remote_apply", "remote_apply"),
    ];
    for (number, (set, used)) in (0_u32..).step_by(4).zip(sets) {
        let alter = format!("ALTER DATABASE {name} SET synchronous_commit = '{set}'");
        database.run(&format!("DELETE FROM seen; {alter}")).await;
        let store = database.open(Options::at(clock.clone())).await;
        let store = store.expect("opens");
        // The last is of a feed and a topic that each task knows that stores messages.
        for number in number..number + 4 {
            let message = Messages::announcement(number, feed("default", 1), START).await;
            let stored = store.accept(message).await;
            assert_eq!(stored.expect("it is stored"), Insertion::New);
        }
        let stored = store.trigger(vec![notified()]).await;
        stored.expect("it is stored");
        let seen = query_sql(&url, "SELECT DISTINCT setting FROM seen").await;
        assert_eq!(seen, [[Some(used.to_owned())]], "{set}");
    }
}

#[tokio::test]
async fn commits_are_on_disk_when_the_server_is_set_otherwise() {
    let cluster = Cluster::start();
    let Ok(cluster) =
        cluster.inspect_err(|why| skip_postgres("synchronous_commit is changed", why))
    else {
        return;
    };
    let database = Database::on(&cluster.url()).await;
    let (store, ways) = open(database.url(), Clock::manual(START)).await;
    let mut numbers = 0..;
    let mut accept = async || {
        let number = numbers.next().expect("there are more");
        let message = Messages::announcement(number, feed("default", 1), START).await;
        let stored = store.accept(message).await;
        assert_eq!(stored.expect("it is stored"), Insertion::New);
        ways.taken()
    };
    // Each of the tasks that store messages learns of the feed.
    for _ in 0..4 {
        accept().await;
    }
    database.run(LOOK).await;

    for (set, expected) in [("off", (0, 1)), ("on", (1, 0)), ("local", (0, 1))] {
        let alter = format!("ALTER SYSTEM SET synchronous_commit = '{set}'");
        database.run(&alter).await;
        database.run("SELECT pg_reload_conf()").await;
        within("the new setting", async {
            while accept().await != expected {
                store.trigger(vec![notified()]).await.expect("it is stored");
            }
        })
        .await;
    }
    let seen = query_sql(&database.url_text(), "SELECT DISTINCT setting FROM seen").await;
    assert_eq!(seen, [[Some("on".to_owned())]]);
}

/// A canceled commit would not wait for a standby.
#[tokio::test]
async fn a_commit_that_nobody_waits_for_is_not_canceled() {
    let Some(database) = Database::postgres("a commit is not canceled").await else {
        return;
    };
    let store = database.open(Options::at(Clock::manual(START))).await;
    let store = store.expect("opens");
    database
        .run(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM pg_advisory_xact_lock(77); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON feed_trigger DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION wait()",
        )
        .await;
    let holder = connect(&database.url_text()).await.expect("it answers");
    let lock = "SELECT pg_advisory_lock(77)";
    holder.batch_execute(lock).await.expect("it runs");
    let triggering = tokio::spawn(async move { store.trigger(vec![notified()]).await });
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    within("the commit to wait", async {
        while database.count(waiting).await == 0 {}
    })
    .await;

    triggering.abort();
    assert!(triggering.await.is_err(), "it was given up");
    // A cancel would arrive in this time.
    for _ in 0..50 {
        assert_eq!(database.count(waiting).await, 1, "it goes on");
    }
    let unlock = "SELECT pg_advisory_unlock(77)";
    holder.batch_execute(unlock).await.expect("it runs");
    let stored = "SELECT count(*) FROM feed_trigger WHERE kind = 0";
    within("the commit", async {
        while database.count(stored).await == 0 {}
    })
    .await;
}

#[tokio::test]
async fn a_restored_database_gets_a_new_epoch_once() {
    let Some(database) = Database::postgres("a restored database").await else {
        return;
    };
    let open = || database.open(Options::at(Clock::manual(START)));
    let before = open().await.expect("opens").sequence().await;
    run_sql(&database.url_text(), "UPDATE sequence SET backup = true").await;
    let after = open().await.expect("opens").sequence().await;
    let again = open().await.expect("opens").sequence().await;
    let epochs = [before, after, again].map(|row| row.expect("readable").epoch);
    assert_ne!(epochs[0], epochs[1]);
    assert_eq!(epochs[1], epochs[2]);
}

#[tokio::test]
async fn replicas_that_start_on_an_empty_database_create_it_once() {
    let Some(database) = Database::postgres("two first starts").await else {
        return;
    };
    let open = || database.open(Options::at(Clock::manual(START)));
    let stores = futures_util::future::join_all((0..4).map(|_| open())).await;
    for store in stores {
        store.expect("it opens");
    }
    let rows = query_sql(
        &database.url_text(),
        "SELECT version, (SELECT count(*) FROM sequence) FROM ivesk_webhook_schema",
    )
    .await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0][1].as_deref(), Some("1"));
}

#[tokio::test]
async fn a_reader_creates_no_tables_and_backups_are_pg_dumps() {
    let Some(database) = Database::postgres("a reader").await else {
        return;
    };
    let url = database.url();
    assert!(matches!(
        Store::open_for_reading(&url).await.err(),
        Some(StoreError::NotPrepared)
    ));
    let store = database.open(Options::at(Clock::manual(START))).await;
    let store = store.expect("it opens");
    let file = BackupFile::named(std::path::Path::new("/"), "x", false).expect("a name");
    let error = store.backup(file).await.expect_err("not here");
    assert!(error.to_string().contains("pg_dump"), "{error}");
    let reader = Store::open_for_reading(&url).await;
    let reader = reader.expect("the store is readable");
    store.probe().await.expect("a write would succeed");
    assert!(matches!(reader.probe().await, Err(StoreError::ReadOnly)));
    assert!(matches!(
        reader.trigger(Vec::new()).await,
        Err(StoreError::ReadOnly)
    ));
}

/// Returns a self-signed certificate for `name` and its key.
fn certificate(name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let certificate = parameters.self_signed(&key).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

/// Connects; returns the error, or `None` if it succeeds.
async fn refusal(url: &str) -> Option<String> {
    let address = ivesk_webhook::config::PostgresAddress::parse(url).expect("an address");
    let opened = Store::open_for_reading(&StoreUrl::Postgres(address)).await;
    match opened.err() {
        None | Some(StoreError::NotPrepared) => None,
        Some(error) => Some(error.to_string()),
    }
}

#[tokio::test]
async fn an_encrypted_connection_requires_the_right_certificate() {
    let cluster = match Cluster::start() {
        Ok(cluster) => cluster,
        Err(why) => return skip_postgres("encrypted connections", &why),
    };
    let (pem, key) = certificate("localhost");
    let data = cluster.folder().join("data");
    let trusted = cluster.folder().join("trusted.pem");
    std::fs::write(data.join("server.crt"), &pem).expect("a file");
    std::fs::write(data.join("server.key"), key).expect("a file");
    std::fs::write(&trusted, &pem).expect("a file");
    let others = cluster.folder().join("others.pem");
    std::fs::write(&others, certificate("localhost").0).expect("a file");
    cluster
        .own(&data.join("server.key"))
        .expect("it is the server's");
    cluster.crash().expect("it stops");
    let port = Port::reserve().number;
    let resumed = cluster.resume_with(&format!(
        "-c ssl=on -c listen_addresses=127.0.0.1 -c port={port}"
    ));
    resumed.expect("it starts again");
    let url = |host: &str, authorities: &std::path::Path| {
        let authorities = authorities.display();
        format!(
            "postgres://postgres@{host}:{port}/postgres?sslmode=verify-full&sslrootcert={authorities}"
        )
    };
    assert_eq!(refusal(&url("localhost", &trusted)).await, None);
    for (url, why) in [
        (url("localhost", &others), "UnknownIssuer"),
        (url("127.0.0.1", &trusted), "NotValidForName"),
        (
            url("localhost", &cluster.folder().join("none.pem")),
            "sslrootcert",
        ),
    ] {
        let error = refusal(&url).await.expect("it is refused");
        assert!(
            error.contains(why) || error.contains("certificate"),
            "{why}: {error}"
        );
    }
    cluster.crash().expect("it stops");
    let plain = format!("-c ssl=off -c listen_addresses=127.0.0.1 -c port={port}");
    cluster.resume_with(&plain).expect("it starts again");
    let error = refusal(&url("localhost", &trusted)).await;
    error.expect("a server without TLS is refused");
}

/// Offers, ends, notifications and people at once: every change is made, and none waits for
/// another that waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_change_subscriptions_at_once_without_deadlock() {
    let Some(pair) = Pair::open("subscriptions changed at once").await else {
        return;
    };
    let verifier = verifier_at(Clock::manual(START));
    let mut accepts = Vec::new();
    for number in 0..60_u32 {
        for (place, message_type) in MessageType::ALL.into_iter().enumerate() {
            let mut message = unsigned(message_type);
            message.message_id = format!("00000000-0000-4000-8000-{number:011}{place}");
            message.timestamp = START.after(Duration::from_secs(number.into())).to_string();
            if message_type == MessageType::UnsubscribeConfirmation {
                message.message = format!("deactivate subscription {TOPIC}:{}.", number % 7);
            }
            let body = SIGNER.sign(&message, 2, &sns_url(&SIGNER));
            // Each arrives at both replicas.
            for store in &pair.stores {
                let accepted = AcceptedMessage {
                    account: account("default"),
                    event: Event::OnExported,
                    message: verify(&verifier, &body).await.expect("genuine"),
                    received_at: START,
                    triggers: Triggers::Feed(feed("default", 1)),
                    needs_approval: false,
                };
                accepts.push((Arc::clone(store), accepted));
            }
        }
    }
    let accepts = accepts
        .into_iter()
        .map(|(store, message)| async move { store.accept(message).await.map(drop) });
    let changes = (0..60).map(|number| {
        let store = Arc::clone(&pair.stores[number % 2]);
        async move {
            let name = format!("hook{number}");
            let event = Event::OnExported;
            let requested = store.subscription_requested(account("default"), event, name, START);
            requested.await?;
            for row in store.subscriptions().await? {
                let change = match row.token {
                    Some(token) if number % 3 > 0 => SubscriptionChange::Confirmed {
                        token,
                        subscription_arn: format!("{TOPIC}:{}", number % 7),
                    },
                    _ => SubscriptionChange::Restored,
                };
                store.change_subscription(row.id, change, START).await?;
            }
            Ok::<(), StoreError>(())
        }
    });
    let (accepted, changed) = futures_util::future::join(
        futures_util::future::join_all(accepts),
        futures_util::future::join_all(changes),
    )
    .await;
    for outcome in accepted.into_iter().chain(changed) {
        outcome.expect("no deadlock, and no ARN twice");
    }
    let rows = pair.stores[0].subscriptions().await.expect("readable");
    let arns: Vec<_> = rows
        .iter()
        .filter_map(|row| row.subscription_arn.as_ref())
        .collect();
    let distinct: BTreeSet<_> = arns.iter().collect();
    assert_eq!(arns.len(), distinct.len(), "{arns:?}");
    let notifications = pair.stores[1].notifications(0, 1_000).await;
    assert_eq!(notifications.expect("readable").len(), 180);
}
