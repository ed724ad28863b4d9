//! What each step costs in a store of a million documents, a million notifications and 100,000
//! feeds, with three destinations of which one is held.
//!
//! Fills a store by itself, runs the service on it, and calls the operations and requests that the
//! service and people use. Prints processor time (this process, and PostgreSQL's) and the elapsed
//! time of each step beside its aim. At the end it sends notifications to the program on the filled store.
//!
//! `SNSBENCH_SKETCH` may name the ceiling of this machine (`support/ceiling.rs`): it is sent the same
//! notifications, and compared.
//!
//! `cargo bench --bench scale -- --divide 100`; with `--postgres postgres://USER@HOST/postgres` on
//! that server too, on this machine; its user may create databases, which are dropped at the end.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    reason = "a benchmark plays the neighbors of the service, and prints its results"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use ivesk_webhook::config::{
    Config, DestinationConfig, DestinationKind, Loopback, StoreUrl, default_account,
};
use ivesk_webhook::domain::{Clock, DestinationName, Queue, Timestamp};
use ivesk_webhook::service::{Service, housekeeping, open_store};
use ivesk_webhook::store::{LeaseRequest, Retention, SharedStore};
use serde_json::json;

use support::ceiling::{self, Ceiling, Mode};
use support::fill::{DESTINATIONS, Scale, fill};
use support::load::{Mix, Sns, requests, send};
use support::{Process, TIMEOUT, own_processor_time, with_new_store, write_json, write_settings};

mod support;

/// The measurements.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// URL of a PostgreSQL server of this machine whose user may create databases
    #[arg(long, env = "IVESK_WEBHOOK_TEST_POSTGRES")]
    postgres: Option<String>,
    /// Divide all numbers of rows by this
    #[arg(long, default_value_t = 1)]
    divide: i64,
    /// Repetitions of each step
    #[arg(long, default_value_t = 10)]
    repeat: u32,
    /// Seconds for which the service is idle
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// Messages that are sent to the filled store
    #[arg(long, default_value_t = 10_000)]
    messages: usize,
    #[command(flatten)]
    ceiling: Ceiling,
    /// Leave SQLite out
    #[arg(long)]
    without_sqlite: bool,
    /// Write the results to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Ignored; passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// The configured token of the measured service.
const ADMIN_TOKEN: &str = "private-token-of-the-benches-0123456789";

/// The number of connections that send messages.
const CONNECTIONS: usize = 32;

/// The number of measured rounds of the workers' steps.
const ROUNDS: u32 = 10;

/// The cost of a step.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// Processor time of this process and of PostgreSQL's.
    cpu_ms: f64,
    elapsed_ms: f64,
}

/// A step, its aim and its cost.
struct Row {
    step: &'static str,
    aim_ms: f64,
    cost: Cost,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut results = Vec::new();
    let folder = tempfile::tempdir()?;
    let sqlite = (!arguments.without_sqlite).then_some(("SQLite", None));
    let postgres = arguments.postgres.as_deref();
    let postgres = postgres.map(|server| ("PostgreSQL", Some(server)));
    for (name, server) in sqlite.into_iter().chain(postgres) {
        let measured = with_new_store(server, folder.path(), async |store| {
            let steps = measure(&arguments, &store.url, server).await?;
            Ok((steps, accept(&arguments, &store.setting, server).await?))
        });
        results.push((name, measured.await?));
    }
    let rows = |rows: &[Row]| -> Vec<_> {
        let row = |row: &Row| json!({"step": row.step, "cpu_ms": row.cost.cpu_ms, "elapsed_ms": row.cost.elapsed_ms, "aim_ms": row.aim_ms});
        rows.iter().map(row).collect()
    };
    let engines: serde_json::Map<_, _> = results
        .iter()
        .map(|(name, (steps, _))| ((*name).to_owned(), json!(rows(steps))))
        .collect();
    let accept: serde_json::Map<_, _> = results
        .into_iter()
        .map(|(name, (_, accept))| (name.to_owned(), accept))
        .collect();
    let report = json!({"divide": arguments.divide, "engines": engines, "accept": accept});
    write_json(arguments.json.as_deref(), &report)
}

/// Fills the store at `url`, and measures every step.
async fn measure(
    arguments: &Arguments,
    url: &StoreUrl,
    server: Option<&str>,
) -> anyhow::Result<Vec<Row>> {
    let scale = Scale::divided(arguments.divide);
    let name = if server.is_some() {
        "PostgreSQL"
    } else {
        "SQLite"
    };
    let began = Instant::now();
    fill(url, scale, Clock::system().now()).await?;
    println!(
        "{name}: {} documents, {} notifications, {} feeds, filled in {:.0} s; {} processors",
        scale.documents,
        scale.notifications,
        scale.feeds,
        began.elapsed().as_secs_f64(),
        std::thread::available_parallelism()?
    );
    println!(
        "{:<36} {:>10} {:>12} {:>8}",
        "step", "CPU ms", "elapsed ms", "aim ms"
    );
    let postmaster = match server {
        Some(server) => Some(postmaster(server).await?),
        None => None,
    };
    let folder = tempfile::tempdir()?;
    let config = config(folder.path().join("unused.db"), url)?;
    let service = Service::start(config.clone(), Clock::system()).await?;
    let mut bench = Bench {
        repeat: arguments.repeat,
        url: url.clone(),
        store: service.app().store.clone(),
        client: reqwest::Client::builder().no_proxy().build()?,
        admin: service.admin_address(),
        postmaster,
        rows: Vec::new(),
    };
    bench.settle().await?;
    bench.idle(arguments.idle_seconds).await?;
    bench.pages(scale).await?;
    let app = service.app().clone();
    bench
        .step("a retention step", 50.0, async || {
            housekeeping::retain(&app).await;
            Ok(())
        })
        .await?;
    ensure!(service.stop().await, "the service did not stop cleanly");
    // Without the service, whose workers would take what is due.
    bench.store = open_store(&config, &Clock::system()).await?;
    bench.leases(scale).await?;
    bench.removing(scale).await?;
    bench.store.close().await?;
    Ok(bench.rows)
}

/// Sends notifications to the program on the filled store, and to the ceiling on a new one; prints how many
/// are accepted in a second.
async fn accept(
    arguments: &Arguments,
    store: &str,
    server: Option<&str>,
) -> anyhow::Result<serde_json::Value> {
    let folder = tempfile::tempdir()?;
    let sns = Sns::start().await?;
    let mix = Mix::genuine_only(arguments.messages);
    let bodies = sns.sign(&mix, 2)?;
    let sections = format!(
        "[store]\nurl = \"{store}\"\n[sns]\nlocal_origins = [\"{}\"]\n[accounts.default]\n",
        sns.origin
    );
    let (public, _) = write_settings(folder.path(), &sections)?;
    let process = Process::start_without_key(folder.path(), &["serve"])?;
    ceiling::wait_for(public).await?;
    // SQLite's file is checked for damage after a start.
    let (began, mut calm) = (Instant::now(), 0);
    while calm < 3 {
        ensure!(
            began.elapsed() < TIMEOUT,
            "the service did not come to rest"
        );
        let before = process.processor_time()?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let used = process.processor_time()?.saturating_sub(before);
        calm = if used < Duration::from_millis(30) {
            calm + 1
        } else {
            0
        };
    }
    let ours = rate(
        public,
        requests(&mix, &bodies, "/webhooks/default/on_exported"),
    )
    .await?;
    drop(process);
    let ceiling = arguments.ceiling.start(Mode::of(server), folder.path())?;
    let ceiling = match ceiling {
        Some((_process, address)) => {
            ceiling::wait_for(address).await?;
            Some(rate(address, requests(&mix, &bodies, ceiling::PATH)).await?)
        }
        None => None,
    };
    let ratio = ceiling.map(|ceiling| ours / ceiling);
    println!("messages accepted, each second       {ours:>10.0}");
    if let (Some(ceiling), Some(ratio)) = (ceiling, ratio) {
        println!("  of the ceiling                     {ratio:>10.2} of {ceiling:.0}");
    }
    Ok(json!({ "per_second": ours, "ceiling_per_second": ceiling, "ratio": ratio }))
}

/// Returns how many of these requests a receiver answers in a second, after one that fetches the
/// certificate.
async fn rate(address: SocketAddr, mut requests: Vec<Vec<u8>>) -> anyhow::Result<f64> {
    let first = requests.split_off(requests.len().saturating_sub(1));
    let first = send(&[address], 1, Arc::new(first)).await?;
    let rest = send(&[address], CONNECTIONS, Arc::new(requests)).await?;
    for answers in [&first, &rest] {
        let all = answers.latencies.len();
        ensure!(
            answers.accepted == all,
            "{} of {all} were accepted",
            answers.accepted
        );
    }
    Ok(rest.rate())
}

fn config(unused: PathBuf, url: &StoreUrl) -> anyhow::Result<Config> {
    let mut config = Config::for_loopback(Loopback {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        store: unused,
        // Nobody listens there.
        api_url: "http://127.0.0.1:9/".parse()?,
        api_key: "bench-key".to_owned().into(),
        local_origins: Vec::new(),
        companies: Vec::new(),
    });
    config.store.url = url.clone();
    config.store.backup_every = None;
    config.admin.token = Some(ADMIN_TOKEN.to_owned().into());
    let account = config.accounts.get_mut(&default_account());
    account.context("the account")?.digitized = false;
    for name in DESTINATIONS {
        let name = DestinationName::parse(name).map_err(anyhow::Error::msg)?;
        let destination = DestinationConfig::of(DestinationKind::List);
        config.destinations.insert(name, destination);
    }
    Ok(config)
}

/// A service on a filled store.
struct Bench {
    repeat: u32,
    url: StoreUrl,
    store: SharedStore,
    client: reqwest::Client,
    admin: SocketAddr,
    /// The main process of PostgreSQL.
    postmaster: Option<i32>,
    rows: Vec<Row>,
}

impl Bench {
    /// Runs a step several times, and prints what one costs.
    async fn step(
        &mut self,
        step: &'static str,
        aim_ms: f64,
        mut work: impl AsyncFnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        // The first fills caches.
        work().await?;
        let (cpu, began) = (self.cpu_ms()?, Instant::now());
        for _ in 0..self.repeat {
            work().await?;
        }
        let times = f64::from(self.repeat);
        let cost = Cost {
            elapsed_ms: began.elapsed().as_secs_f64() * 1e3 / times,
            cpu_ms: (self.cpu_ms()? - cpu) / times,
        };
        self.report(step, aim_ms, cost);
        Ok(())
    }

    /// Runs a step of the service's workers in several rounds, in a task as they do, and prints what one
    /// costs. All leases end before each round: in the service only a few feeds are leased at a time.
    async fn step_of_workers<F: Future<Output = anyhow::Result<()>> + Send + 'static>(
        &mut self,
        step: &'static str,
        work: impl Fn(SharedStore) -> F + Copy + Send + 'static,
    ) -> anyhow::Result<()> {
        let mut cost = Cost::default();
        // The first fills caches.
        for round in 0..=ROUNDS {
            self.run("UPDATE feed SET leased_until = NULL WHERE leased_until IS NOT NULL")
                .await?;
            let (store, repeat) = (self.store.clone(), self.repeat);
            let (cpu, began) = (self.cpu_ms()?, Instant::now());
            let task = tokio::spawn(async move {
                for _ in 0..repeat {
                    work(store.clone()).await?;
                }
                anyhow::Ok(())
            });
            task.await??;
            if round > 0 {
                let times = f64::from(self.repeat * ROUNDS);
                cost.elapsed_ms += began.elapsed().as_secs_f64() * 1e3 / times;
                cost.cpu_ms += (self.cpu_ms()? - cpu) / times;
            }
        }
        self.report(step, 1.0, cost);
        Ok(())
    }

    fn report(&mut self, step: &'static str, aim_ms: f64, cost: Cost) {
        let missed = if cost.cpu_ms > aim_ms { "  missed" } else { "" };
        println!(
            "{step:<36} {:>10.1} {:>12.1} {aim_ms:>8}{missed}",
            cost.cpu_ms, cost.elapsed_ms
        );
        self.rows.push(Row { step, aim_ms, cost });
    }

    /// Returns the processor time of this process and of PostgreSQL's.
    fn cpu_ms(&self) -> anyhow::Result<f64> {
        let own = own_processor_time()?;
        let server = self.postmaster.map_or(Ok(0.0), server_cpu_ms)?;
        Ok(own.as_secs_f64() * 1e3 + server)
    }

    /// Runs statements, as another program would, each by itself: the service locks the same rows.
    async fn run(&self, statements: &str) -> anyhow::Result<()> {
        match &self.url {
            StoreUrl::Sqlite(path) => {
                let file = rusqlite::Connection::open(path)?;
                file.busy_timeout(Duration::from_secs(60))?;
                Ok(file.execute_batch(statements)?)
            }
            StoreUrl::Postgres(address) => {
                let settings = address.settings();
                let (client, connection) = settings.connect(tokio_postgres::NoTls).await?;
                tokio::spawn(connection);
                for statement in statements.split(';') {
                    client.batch_execute(statement).await?;
                }
                Ok(())
            }
        }
    }

    /// Waits until the start is over, and makes nothing due.
    async fn settle(&self) -> anyhow::Result<()> {
        let hour = Clock::system()
            .now()
            .after(Duration::from_secs(3600))
            .as_millis();
        self.run(&format!(
            "UPDATE feed_trigger SET due_at = {hour} + feed_id, next_at = {hour} + feed_id WHERE kind = 3;
             UPDATE feed SET leased_until = NULL, failures = 0, waits_until = NULL WHERE leased_until IS NOT NULL OR waits_until IS NOT NULL;
             UPDATE account SET failures = 0, waits_since = NULL, waits_until = NULL, last_error = NULL"
        ))
        .await?;
        self.tidy().await?;
        // A request that was in flight may have let the account wait since.
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.run("UPDATE account SET failures = 0, waits_since = NULL, waits_until = NULL")
            .await?;
        let mut last = self.cpu_ms()?;
        let mut calm = 0;
        for _ in 0..300 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let now = self.cpu_ms()?;
            // The lanes are looked at once more after a start. One calm moment proves nothing on a
            // busy machine.
            calm = if now - last < 60.0 { calm + 1 } else { 0 };
            if calm == 3 {
                return Ok(());
            }
            last = now;
        }
        anyhow::bail!("the service did not come to rest")
    }

    /// Removes what a change of all feeds has left, as autovacuum does within minutes.
    async fn tidy(&self) -> anyhow::Result<()> {
        match self.postmaster {
            Some(_) => {
                self.run("VACUUM ANALYZE feed; VACUUM ANALYZE feed_trigger")
                    .await
            }
            None => Ok(()),
        }
    }

    async fn idle(&mut self, seconds: u64) -> anyhow::Result<()> {
        let cpu = self.cpu_ms()?;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let per_second = (self.cpu_ms()? - cpu) / f64::from(u32::try_from(seconds.max(1))?);
        let cost = Cost {
            cpu_ms: per_second,
            elapsed_ms: 1_000.0,
        };
        self.report("one idle replica, each second", 10.0, cost);
        Ok(())
    }

    async fn leases(&mut self, scale: Scale) -> anyhow::Result<()> {
        // What was due meanwhile has failed, which made the account wait.
        let later = Clock::system().now().after(Duration::from_secs(3600));
        self.run(&format!(
            "UPDATE feed_trigger SET due_at = {later}, next_at = {later} WHERE next_at IS NOT NULL;
             UPDATE feed SET leased_until = NULL, failures = 0, waits_until = NULL WHERE leased_until IS NOT NULL OR waits_until IS NOT NULL;
             UPDATE account SET failures = 0, waits_since = NULL, waits_until = NULL",
            later = later.as_millis()
        ))
        .await?;
        self.tidy().await?;
        self.step_of_workers("lease, nothing due", |store| async move {
            let lease = store.lease_page(lease_request()).await?;
            ensure!(lease.is_none(), "nothing is due");
            Ok(())
        })
        .await?;
        self.step_of_workers("next due", |store| async move {
            let next = store.next_due(lease_request()).await?;
            ensure!(next.is_some(), "something is due later");
            Ok(())
        })
        .await?;
        let now: Timestamp = Clock::system().now();
        self.run(&format!(
            "UPDATE feed_trigger SET due_at = {at}, next_at = {at} WHERE kind = 3",
            at = now.as_millis() - 1_000
        ))
        .await?;
        self.tidy().await?;
        self.step_of_workers("lease, all due", move |store| async move {
            let lease = store.lease_page(lease_request()).await?;
            ensure!(lease.is_some() || scale.feeds < 1_000, "all are due");
            Ok(())
        })
        .await
    }

    /// Measures retention steps that remove 500 bodies of notifications and 100 of documents: everything is
    /// old, and the first half of the documents, some of which have open deliveries, is behind.
    async fn removing(&mut self, scale: Scale) -> anyhow::Result<()> {
        self.run(&format!(
            "UPDATE retention SET (changed_at, sequence) = (
                 SELECT changed_at, sequence FROM delivery WHERE destination_id = 1 AND sequence = {})",
            scale.documents / 2
        ))
        .await?;
        let later = Clock::system().now().after(Duration::from_secs(86_400));
        let name = DestinationName::parse(DESTINATIONS[0]).map_err(anyhow::Error::msg)?;
        let retention = Retention {
            notifications_before: later,
            documents_before: later,
            destinations: vec![name],
            links_before: later,
            quarantine_before: later,
            alarms_before: later,
            tallies_before: later,
        };
        let store = self.store.clone();
        let is_small = scale.notifications < 500 * i64::from(self.repeat + 1);
        self.step("a retention step that removes", 50.0, async || {
            let removed = store.retain(retention.clone()).await?;
            let bodies = (removed.notification_bodies, removed.document_bodies);
            ensure!(bodies == (500, 100) || is_small, "{removed:?}");
            Ok(())
        })
        .await
    }

    async fn get(&self, path: &str) -> anyhow::Result<()> {
        let request = self.client.get(format!("http://{}{path}", self.admin));
        let answer = request.bearer_auth(ADMIN_TOKEN).send().await?;
        let status = answer.status();
        let body = answer.text().await?;
        ensure!(status == 200, "{path}: {status} {body}");
        Ok(())
    }

    async fn pages(&mut self, scale: Scale) -> anyhow::Result<()> {
        let middle = scale.documents / 2 / 50 * 50;
        let (id, company) = (Scale::document_id(middle), Scale::company(scale.feeds / 2));
        let steps = [
            ("overview page", 100.0, "/".to_owned()),
            ("/metrics", 100.0, "/metrics".to_owned()),
            ("status", 100.0, "/v1/status".to_owned()),
            ("a page of feeds", 20.0, "/v1/feeds".to_owned()),
            ("destinations", 20.0, "/v1/destinations".to_owned()),
            (
                "deliveries: rejected",
                20.0,
                "/v1/deliveries?state=rejected".to_owned(),
            ),
            (
                "deliveries: delivered",
                20.0,
                "/v1/deliveries?state=delivered".to_owned(),
            ),
            (
                "deliveries: skipped, of a company",
                20.0,
                format!("/v1/deliveries?state=skipped&company={company}"),
            ),
            (
                "documents: newest 50",
                20.0,
                "/v1/documents/search?limit=50".to_owned(),
            ),
            (
                "documents: by id",
                20.0,
                format!("/v1/documents/search?q={id}"),
            ),
            (
                "documents: by number",
                50.0,
                format!("/v1/documents/search?q=SF-{middle}"),
            ),
            (
                "documents: by a part of numbers",
                50.0,
                format!("/v1/documents/search?q={}", middle / 100),
            ),
            (
                "documents: by a common word",
                50.0,
                "/v1/documents/search?limit=50&q=pirk%C4%97jas".to_owned(),
            ),
            (
                "documents: by common words and a sum",
                50.0,
                format!(
                    "/v1/documents/search?q=uab%20pirk%20%C5%A1altin%20{},10",
                    middle % 100_000
                ),
            ),
            (
                "documents: by a seller of a company",
                50.0,
                format!("/v1/documents/search?q=302000001&company={company}"),
            ),
            (
                "documents: page of a search",
                50.0,
                format!("/documents?q=SF-{middle}"),
            ),
            (
                "documents: trace by number",
                20.0,
                format!("/v1/documents/trace?q=SF-{middle}"),
            ),
            (
                "documents: by company",
                20.0,
                format!("/v1/documents/search?limit=50&company={company}"),
            ),
            (
                "documents: trace by id",
                20.0,
                format!("/v1/documents/trace?q={id}"),
            ),
            (
                "documents: page of one",
                20.0,
                format!("/documents/{middle}"),
            ),
        ];
        for (step, aim_ms, path) in steps {
            let (client, admin) = (self.client.clone(), self.admin);
            let own = Self {
                client,
                admin,
                url: self.url.clone(),
                store: self.store.clone(),
                rows: Vec::new(),
                ..*self
            };
            self.step(step, aim_ms, async || own.get(&path).await)
                .await?;
        }
        Ok(())
    }
}

/// What a worker asks for.
fn lease_request() -> LeaseRequest {
    LeaseRequest {
        now: Clock::system().now(),
        lease: Duration::from_secs(120),
        requests_per_account: u32::MAX,
        lookback: Duration::from_secs(24 * 3600),
        min_interval: Duration::from_secs(1),
        reconcile_every: Duration::from_secs(3600),
        queues: vec![(default_account(), Queue::Exported)],
    }
}

/// Returns the main process of a PostgreSQL server of this machine.
async fn postmaster(url: &str) -> anyhow::Result<i32> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    let backend: i32 = client
        .query_one("SELECT pg_backend_pid()", &[])
        .await?
        .get(0);
    let fields = stat(backend).context("its PostgreSQL must run on this machine")?;
    Ok(fields[1].parse()?)
}

/// Returns the fields of `/proc/<pid>/stat` after the name.
fn stat(pid: i32) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(") ").context("a name in brackets")?;
    Ok(fields.split(' ').map(str::to_owned).collect())
}

/// Returns the processor time of a PostgreSQL server: its main process, those that run, and those that
/// have ended.
fn server_cpu_ms(postmaster: i32) -> anyhow::Result<f64> {
    let children =
        std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"))?;
    let running = children.split_ascii_whitespace();
    let own = postmaster.to_string();
    // One may have ended.
    let times = running
        .chain([own.as_str()])
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/schedstat")).ok());
    // The first is the time on a processor in nanoseconds.
    let times = times.filter_map(|times| times.split(' ').next()?.parse::<f64>().ok());
    // cutime and cstime, in hundredths of a second.
    let ended = stat(postmaster)?;
    let ended = ended.get(13..15).unwrap_or_default().iter();
    let ended: f64 = ended.filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Ok(times.sum::<f64>() / 1e6 + ended * 10.0)
}
