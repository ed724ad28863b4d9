//! Several replicas on one PostgreSQL, under load and with faults: afterwards, the checker
//! compares what was sent, acknowledged and stored.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ivesk_webhook::config::{Config, Loopback, PostgresAddress, StoreUrl, default_account};
use ivesk_webhook::domain::{Clock, Company, Feed, Timestamp};
use ivesk_webhook::emulator::{
    Control, DEFAULT_COMPANIES, DEFAULT_KEY, Emulator, Publication, Selection,
};
use ivesk_webhook::service::Service;
use ivesk_webhook::store::{Insertion, Store, StoreOptions, Trigger, TriggerKind};
use rustix::process::{Signal, kill_process};

use crate::store::known_messages::open;
use crate::store::messages::Messages;
use crate::support::checker::{Sent, Stored, broken_promises, differences};
use crate::support::databases::{
    Cluster, Database, Options, as_user, connect, query_sql, skip_postgres,
};
use crate::support::emulator::emulator;
use crate::support::load::{Load, Rng, kills, seed};
use crate::support::process::{Installation, Server, within};
use crate::support::replicas::{LEASE, open_reader, sections, spawn_replica, subscribe_at};
use crate::support::wires::{Balancer, BreakingWire};

/// Shortens the half hour of SNS's retries to seconds.
const SWITCHES: &str = "time_scale=0.004,page_size=7,delivery_timeout_ms=3000";

/// Replicas behind a load balancer, a vendor, and one database.
struct Scene {
    emulator: Emulator,
    control: Control,
    database: Database,
    replicas: Vec<Installation>,
    servers: Vec<Option<Server>>,
    balancer: Balancer,
    rng: Rng,
    seed: u64,
}

impl Scene {
    /// Starts two replicas, which reach `database` at one of `urls` each.
    async fn of(database: Database, urls: [String; 2]) -> Self {
        let seed = seed();
        let emulator = emulator(SWITCHES).await;
        let replicas: Vec<Installation> = urls
            .iter()
            .map(|url| Installation::beside(&emulator, "", &sections(url)))
            .collect();
        let ports = replicas.iter().map(Installation::public_port).collect();
        let mut scene = Self {
            control: emulator.control(),
            emulator,
            database,
            servers: replicas.iter().map(|_| None).collect(),
            replicas,
            balancer: Balancer::before(ports).await,
            rng: Rng(seed),
            seed,
        };
        for replica in 0..scene.replicas.len() {
            scene.start(replica).await;
        }
        subscribe_at(&scene.control, scene.balancer.address()).await;
        scene
    }

    /// Starts two replicas on a database of the shared server; skips `test` if there is none.
    async fn on_shared_server(test: &str) -> Option<Self> {
        let database = Database::postgres(test).await?;
        let url = database.url_text();
        Some(Self::of(database, [url.clone(), url]).await)
    }

    fn spawn(&self, replica: usize) -> Server {
        spawn_replica(&self.replicas[replica])
    }

    async fn start(&mut self, replica: usize) {
        let mut server = self.spawn(replica);
        server.ready().await;
        self.servers[replica] = Some(server);
    }

    async fn kill(&mut self, replica: usize) -> String {
        let server = self.servers[replica].take().expect("it runs");
        server.kill().await
    }

    fn signal(&self, replica: usize, signal: Signal) {
        let server = self.servers[replica].as_ref().expect("it runs");
        kill_process(server.pid(), signal).expect("it can be signaled");
    }

    /// Waits for a random time, so that the next fault happens at a random moment.
    async fn random_delay(&mut self, below_ms: u64) {
        let delay = Duration::from_micros(self.rng.below(below_ms * 1000));
        tokio::time::sleep(delay).await;
    }

    /// Asserts what holds at any moment.
    async fn check_promises(&self, forged: &BTreeSet<String>, after: &str) {
        let messages = Sent::messages(&self.control);
        let stored = Stored::all(&open_reader(&self.database).await).await;
        let broken = broken_promises(&messages, forged, &stored);
        assert!(
            broken.is_empty(),
            "seed {}, after {after}: {broken:#?}",
            self.seed
        );
    }

    /// Waits until everything is stored, and compares it with what the vendor lists.
    async fn finish(mut self, forged: &BTreeSet<String>) {
        self.control.retry_now();
        within("the end of deliveries", self.control.idle()).await;
        settle(&self.control, &self.database).await;
        let mut logs = String::new();
        for server in self.servers.iter_mut().filter_map(Option::take) {
            server.terminate();
            let (_, log) = server.exited().await;
            logs.push_str(&log);
        }
        compare(&self.control, forged, &self.database, self.seed, &logs).await;
        drop(self.emulator);
    }
}

/// Waits until everything that the vendor lists is stored.
async fn settle(control: &Control, database: &Database) {
    let expected = Sent::of(control, &BTreeSet::new()).versions();
    let store = open_reader(database).await;
    within("the last document", async {
        loop {
            let feeds = store.feeds().await.expect("feeds are readable");
            let stored: u64 = feeds.iter().map(|feed| feed.documents).sum();
            if stored >= expected as u64 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    store.close().await.expect("it closes");
}

async fn compare(
    control: &Control,
    forged: &BTreeSet<String>,
    database: &Database,
    seed: u64,
    logs: &str,
) {
    let sent = Sent::of(control, forged);
    let store = open_reader(database).await;
    let stored = Stored::all(&store).await;
    let sequence = store.sequence().await.expect("it is readable");
    eprintln!(
        "seed {seed}: {} messages sent, {} acknowledged, {} stored; {} versions stored; {:?}",
        sent.messages.len(),
        sent.acknowledged(),
        stored.notifications.len(),
        stored.documents.len(),
        control.attempts(),
    );
    let broken = differences(&sent, &stored);
    assert!(broken.is_empty(), "seed {seed}: {broken:#?}\n{logs}");
    assert_eq!(sequence.last, stored.documents.len() as i64);
    assert!(!logs.contains("panicked"), "seed {seed}: {logs}");
    assert!(sent.acknowledged() > 0 && !stored.documents.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_killed_in_turn_lose_and_double_nothing() {
    let Some(mut scene) = Scene::on_shared_server("replicas that are killed").await else {
        return;
    };
    let mut load = Load::new(scene.control.clone());
    for kill in 0..kills(8) {
        load.burst(&mut scene.rng);
        scene.random_delay(150).await;
        let victim = kill % 2;
        let log = scene.kill(victim).await;
        assert!(!log.contains("panicked"), "{log}");
        scene
            .check_promises(&load.forged, &format!("kill {kill}"))
            .await;
        let server = scene.spawn(victim);
        scene.servers[victim] = Some(server);
    }
    scene.finish(&load.forged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_stopped_past_its_lease_writes_nothing_stale() {
    let Some(mut scene) = Scene::on_shared_server("a replica that is stopped").await else {
        return;
    };
    let mut load = Load::new(scene.control.clone());
    for round in 0..3 {
        load.burst(&mut scene.rng);
        scene.random_delay(60).await;
        scene.signal(round % 2, Signal::STOP);
        load.burst(&mut scene.rng);
        // The replica must be stopped for longer than its lease.
        tokio::time::sleep(LEASE + Duration::from_millis(500)).await;
        scene.check_promises(&load.forged, "a stop").await;
        scene.signal(round % 2, Signal::CONT);
    }
    scene.finish(&load.forged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_crash_under_load_loses_and_doubles_nothing() {
    let cluster = match Cluster::start() {
        Ok(cluster) => cluster,
        Err(why) => return skip_postgres("a PostgreSQL crash", &why),
    };
    let database = Database::on(&cluster.url()).await;
    let url = database.url_text();
    let mut scene = Scene::of(database, [url.clone(), url]).await;
    let mut load = Load::new(scene.control.clone());
    for _ in 0..3 {
        load.burst(&mut scene.rng);
        scene.random_delay(80).await;
        cluster.crash().expect("it stops");
        load.burst(&mut scene.rng);
        scene.random_delay(80).await;
        cluster.resume().expect("it starts again");
        scene.check_promises(&load.forged, "a crash").await;
    }
    scene.finish(&load.forged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_after_commit_loses_and_doubles_nothing() {
    let cluster = match Cluster::start() {
        Ok(cluster) => cluster,
        Err(why) => return skip_postgres("a connection that is cut", &why),
    };
    let database = Database::on(&cluster.url()).await;
    // Fewer than that are sent before the service is ready: it does not start without its database.
    let wire = BreakingWire::to(cluster.folder().join(".s.PGSQL.5432"), 17).await;
    let direct = url::Url::parse(&database.url_text()).expect("a URL");
    let through = format!("postgres://postgres@{}{}", wire.address(), direct.path());
    let mut scene = Scene::of(database, [through, direct.into()]).await;
    let mut load = Load::new(scene.control.clone());
    for _ in 0..6 {
        load.burst(&mut scene.rng);
        scene.random_delay(300).await;
    }
    scene.finish(&load.forged).await;
    assert!(wire.cuts() > 0, "nothing was cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbouncer_in_transaction_mode_changes_nothing() {
    // Fewer sessions than the replicas have connections.
    let Some(pooled) = Pooled::start("PgBouncer in transaction mode", 4).await else {
        return;
    };
    let Pooled {
        bouncer,
        cluster: _cluster,
        database,
        through,
    } = pooled;
    let mut scene = Scene::of(database, [through.clone(), through]).await;
    let mut load = Load::new(scene.control.clone());
    for _ in 0..5 {
        load.burst(&mut scene.rng);
        scene.random_delay(200).await;
    }
    let log = scene.kill(0).await;
    assert!(!log.contains("prepared statement"), "{log}");
    scene.start(0).await;
    scene.finish(&load.forged).await;
    drop(bouncer);
}

#[tokio::test]
async fn in_a_pooled_session_one_connection_prepares_statements() {
    let Some(pooled) = Pooled::start("statements prepared behind PgBouncer", 1).await else {
        return;
    };
    let through = &pooled.through;
    let replica = async || {
        let address = PostgresAddress::parse(through).expect("a URL");
        let options = StoreOptions {
            url: StoreUrl::Postgres(address),
            queue: 16,
            quarantine_bytes: 1 << 20,
            ask: false,
            clock: Clock::system(),
            hooks: None,
        };
        Store::open(options).await.expect("it opens")
    };
    let prepared = async || {
        let rows = query_sql(through, "SELECT statement FROM pg_prepared_statements").await;
        rows.into_iter()
            .flatten()
            .flatten()
            .collect::<BTreeSet<_>>()
    };
    let disallow = async |store: &Store| {
        let found = store.disallow_topic("arn:unknown".to_owned()).await;
        assert_eq!(found.expect("it runs"), None);
    };
    let is_disallowing = |sql: &String| sql.starts_with("DELETE FROM allowed_topic");
    let (first, second) = (replica().await, replica().await);

    disallow(&second).await;
    let before = prepared().await;
    assert!(!before.iter().any(is_disallowing), "{before:?}");

    disallow(&first).await;
    disallow(&second).await;
    let after = prepared().await;
    assert!(after.iter().any(is_disallowing), "{after:?}");

    // The first one's connections are gone, and their time is over.
    drop((first, second));
    let aged = "SELECT set_config('ivesk_webhook.session',
        regexp_replace(current_setting('ivesk_webhook.session'), '[0-9]+$', '0'), false)";
    query_sql(through, aged).await;
    let third = replica().await;
    let renewed = prepared().await;
    assert!(!renewed.iter().any(is_disallowing), "{renewed:?}");
    disallow(&third).await;
    let renewed = prepared().await;
    assert!(renewed.iter().any(is_disallowing), "{renewed:?}");
}

#[tokio::test]
async fn a_transaction_in_another_session_begins_again_there() {
    let Some(pooled) = Pooled::start("a transaction in a session of another", 2).await else {
        return;
    };
    for writes in [true, false] {
        let address = PostgresAddress::parse(&pooled.through).expect("a URL");
        let (store, _) = open(StoreUrl::Postgres(address), Clock::system()).await;
        let transaction = async || match writes {
            true => store
                .disallow_topic("arn:unknown".to_owned())
                .await
                .map(drop),
            false => store.accounts().await.map(drop),
        };
        transaction().await.expect("it runs in the marked session");
        let other = connect(&pooled.through).await.expect("PgBouncer answers");
        other.batch_execute("BEGIN").await.expect("it runs");
        let failed = || {
            let log = std::fs::read_to_string(pooled.cluster.folder().join("log")).expect("a log");
            log.matches("prepared statement \"ivesk_webhook_").count()
        };
        let before = failed();
        for _ in 0..2 {
            transaction().await.expect("it runs in another");
        }
        assert_eq!(failed(), before + 1, "asked once: {writes}");
    }
}

#[tokio::test]
async fn a_known_message_in_another_session_is_stored_once() {
    let Some(pooled) = Pooled::start("a session of another", 2).await else {
        return;
    };
    let address = PostgresAddress::parse(&pooled.through).expect("a URL");
    let (store, ways) = open(StoreUrl::Postgres(address), Clock::system()).await;
    let now = Clock::system().now();
    let company = Company::parse("302320404").expect("a valid code");
    let feed = Feed::exported(default_account(), company);
    let accept = async |number| {
        let message = Messages::announcement(number, feed.clone(), now).await;
        store.accept(message).await.expect("it is stored")
    };
    // Each of the tasks that store messages learns of the feed.
    for number in 0..4 {
        assert_eq!(accept(number).await, Insertion::New);
    }
    assert!(matches!(ways.taken(), (1.., ..4)), "the last one is known");

    // Holds the session that was used last, which the store has marked.
    let other = connect(&pooled.through).await.expect("PgBouncer answers");
    other.batch_execute("BEGIN").await.expect("it runs");
    assert_eq!(accept(4).await, Insertion::New);
    assert_eq!(ways.taken(), (1, 1), "it was tried");
    assert_eq!(accept(4).await, Insertion::Duplicate);
    assert_eq!(ways.taken(), (0, 1), "it is not tried again");

    let raised = "SELECT raised FROM feed_trigger WHERE kind = 0";
    assert_eq!(pooled.database.count(raised).await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_message_sent_eight_times_to_two_replicas_is_one_row() {
    let Some(scene) = Scene::on_shared_server("one message, eight times").await else {
        return;
    };
    for company in DEFAULT_COMPANIES.iter().cycle().take(20) {
        scene
            .control
            .export(company, Selection::Next(1))
            .expect("a known company");
        let copies = Publication {
            copies: 8,
            ..Publication::exported(company)
        };
        scene.control.notify(&copies).expect("the account exists");
    }
    scene.finish(&BTreeSet::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replicas_clock_that_is_a_day_off_does_no_harm() {
    let Some(database) = Database::postgres("a clock that is a day off").await else {
        return;
    };
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    let emulator = emulator(SWITCHES).await;
    let control = emulator.control();
    let mut services = Vec::new();
    for off_by in [0, DAY_MS, -DAY_MS] {
        let (clock, correction) = Clock::system().corrected();
        correction.set(off_by);
        let config = in_process(&emulator, &database);
        let service = Service::start(config, clock).await.expect("it starts");
        services.push(service);
    }
    let ports = services.iter().map(|s| s.public_address().port()).collect();
    let balancer = Balancer::before(ports).await;
    subscribe_at(&control, balancer.address()).await;
    let mut load = Load::new(control.clone());
    let mut rng = Rng(1);
    for _ in 0..6 {
        load.burst(&mut rng);
        tokio::time::sleep(Duration::from_millis(rng.below(200))).await;
    }
    within("the end of deliveries", control.idle()).await;
    settle(&control, &database).await;
    for service in services {
        assert!(service.stop().await, "it stops cleanly");
    }
    compare(&control, &load.forged, &database, 1, "").await;
    // No message was refused for its age, or answered with 503.
    let totals = control.attempts();
    assert_eq!(totals.refused, load.forged.len() as u64, "{totals:?}");
    assert_eq!(totals.failed, 0, "{totals:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_replica_leaves_another_does_soon() {
    let Some(database) = Database::postgres("work that is left").await else {
        return;
    };
    let emulator = emulator(SWITCHES).await;
    let mut config = in_process(&emulator, &database);
    config.pull.reconcile_every = Duration::from_secs(3600);
    let service = Service::start(config, Clock::system()).await;
    let service = service.expect("it starts");
    let reader = open_reader(&database).await;
    let pulled = async || {
        let feeds = reader.feeds().await.expect("readable");
        feeds.iter().all(|feed| feed.pulled_at.is_some())
    };
    within("the first pull", async {
        while !pulled().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Another process stores a trigger, and ends.
    let other = database.open(Options::at(Clock::system())).await;
    let other = other.expect("opens");
    let control = emulator.control();
    let company = DEFAULT_COMPANIES[0];
    control.export(company, 1).expect("the company exists");
    let triggers = vec![Trigger {
        feed: Feed::exported(default_account(), Company::parse(company).expect("a code")),
        kind: TriggerKind::Notification,
        due_at: Timestamp::from_millis(0),
        from: None,
    }];
    other.trigger(triggers).await.expect("stored");
    other.close().await.expect("closed");
    // Sooner than an idle worker reads the rows again by itself.
    let found = tokio::time::timeout(Duration::from_secs(25), async {
        while reader.sequence().await.expect("readable").last == 0 {
            tokio::task::yield_now().await;
        }
    });
    found.await.expect("it was pulled");
    assert!(service.stop().await, "it stops cleanly");
}

fn in_process(emulator: &Emulator, database: &Database) -> Config {
    let mut config = Config::for_loopback(Loopback {
        listen: ([127, 0, 0, 1], 0).into(),
        store: PathBuf::from("unused.db"),
        api_url: emulator.api_url().parse().expect("a URL"),
        api_key: DEFAULT_KEY.to_owned().into(),
        local_origins: vec![emulator.origin()],
        companies: DEFAULT_COMPANIES
            .iter()
            .map(|code| Company::parse(code).expect("a code"))
            .collect(),
    });
    config.store.url = database.url();
    config.pull.reconcile_every = Duration::from_secs(2);
    config
}

/// A database behind a PgBouncer, on a server of its own. The fields are dropped in this order.
struct Pooled {
    bouncer: PgBouncer,
    database: Database,
    /// The database's URL through the PgBouncer.
    through: String,
    cluster: Cluster,
}

impl Pooled {
    /// Starts both, or skips `test` and returns `None` if a program is missing.
    async fn start(test: &str, sessions: u32) -> Option<Self> {
        let cluster = Cluster::start()
            .inspect_err(|why| skip_postgres(test, why))
            .ok()?;
        let Some(binary) = pgbouncer() else {
            skip_postgres(test, "this machine has no pgbouncer");
            return None;
        };
        let database = Database::on(&cluster.url()).await;
        let bouncer = PgBouncer::start(&binary, &cluster, sessions).await;
        let direct = url::Url::parse(&database.url_text()).expect("a URL");
        let through = bouncer.url(direct.path());
        Some(Self {
            bouncer,
            database,
            through,
            cluster,
        })
    }
}

/// Returns the pgbouncer of `PATH` or of Debian.
fn pgbouncer() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join("pgbouncer"))
        .find(|file| file.exists())
}

/// A PgBouncer in transaction mode, with so many sessions of the server.
struct PgBouncer {
    child: Child,
    folder: PathBuf,
}

impl PgBouncer {
    async fn start(binary: &Path, cluster: &Cluster, sessions: u32) -> Self {
        let folder = cluster.folder().join("bouncer");
        std::fs::create_dir(&folder).expect("a folder");
        let (server, own) = (cluster.folder().display(), folder.display());
        let settings = format!(
            "[databases]\n* = host={server}\n[pgbouncer]\nlisten_addr =\nunix_socket_dir = {own}\n\
             auth_type = any\nauth_file = {own}/users\npool_mode = transaction\ndefault_pool_size = {sessions}\n\
             max_client_conn = 200\nadmin_users = postgres\n"
        );
        // With `any`, every client gets the server's user.
        let settings = settings.replace(
            &format!("host={server}"),
            &format!("host={server} user=postgres"),
        );
        std::fs::write(folder.join("users"), "\"postgres\" \"\"\n").expect("a file");
        std::fs::write(folder.join("settings.ini"), settings).expect("a file");
        if let Some(user) = cluster.user() {
            let status = Command::new("chown")
                .arg("-R")
                .arg(user)
                .arg(&folder)
                .status();
            assert!(status.is_ok_and(|status| status.success()));
        }
        let mut command = Command::new(binary);
        command
            .arg("-q")
            .arg(folder.join("settings.ini"))
            .current_dir(&folder);
        let mut command = as_user(command, cluster.user());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pgbouncer starts");
        let bouncer = Self { child, folder };
        let socket = bouncer.folder.join(".s.PGSQL.6432");
        within("pgbouncer", async {
            while tokio::net::UnixStream::connect(&socket).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        bouncer
    }

    fn url(&self, database: &str) -> String {
        let host = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{host}:6432{database}")
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_address_parses_the_tests_urls() {
    let bouncer = "postgres://postgres@%2Ftmp%2Fx:6432/db";
    assert!(PostgresAddress::parse(bouncer).is_ok());
}
