//! Documents per second delivered to each kind of destination, and the cost of a held destination
//! while a backlog is pulled.
//!
//! Runs the program's `emulator` and `serve` as processes and reads `/proc`, so it needs
//! Linux. The emulator and the receiver share the machine with the service, and with PostgreSQL,
//! whose processor time is not in the figures.
//!
//! `SNSBENCH_SKETCH` may name the ceiling of this machine (`support/ceiling.rs`): deliveries over HTTP are
//! compared with as many posts of this program, which stores nothing, to it, which only answers.
//!
//! `cargo bench --bench delivery -- --documents 20000 --backlog 200000`, and with
//! `--postgres postgres://USER@HOST/postgres` on a server whose user may create databases.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark plays the neighbors of the service, and prints its results"
)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use axum::body::Body;
use axum::http::Response;
use clap::Parser;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use support::ceiling::{self, Ceiling, Mode};
use support::load::{median, send};
use support::{
    Process, TIMEOUT, Vendor, database_of, mebibytes, per_second, request, sql, stored, write_json,
    write_settings,
};

mod support;

/// The measurements.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// Documents for each kind of destination; `command` gets a tenth; 0 skips this part
    #[arg(long, default_value_t = 20_000)]
    documents: usize,
    /// Documents for the held and the unavailable destination; 0 skips this part
    #[arg(long, default_value_t = 200_000)]
    backlog: usize,
    /// Pulls of the backlog without and with a held destination, in turn
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Concurrent deliveries to the destination with the backlog
    #[arg(long, default_value_t = 1)]
    max_concurrency: usize,
    #[command(flatten)]
    ceiling: Ceiling,
    /// URL of a PostgreSQL server whose user may create databases; without it, SQLite
    #[arg(long)]
    postgres: Option<String>,
    /// Write the results to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Ignored; passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

const COMPANY: &str = "302320404";
const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Size of a delivered document, about as the emulator makes them.
const DOCUMENT_BYTES: usize = 1_700;

/// Time between requests for progress.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let receiver = Receiver::open().await?;
    // The measurements block; the receiver runs on other threads.
    tokio::task::spawn_blocking(move || {
        let mut rows = Vec::new();
        if arguments.documents > 0 {
            kinds(&arguments, &receiver, &mut rows)?;
        }
        if arguments.backlog > 0 {
            backlog(&arguments, &receiver, &mut rows)?;
        }
        write_json(arguments.json.as_deref(), &json!({ "rows": rows }))
    })
    .await?
}

/// A receiver that counts the documents it accepts.
struct Receiver {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    available: Arc<AtomicBool>,
}

impl Receiver {
    async fn open() -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let receiver = Self {
            address: listener.local_addr()?,
            accepted: Arc::default(),
            available: Arc::new(AtomicBool::new(true)),
        };
        let (accepted, available) = (
            Arc::clone(&receiver.accepted),
            Arc::clone(&receiver.available),
        );
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let _ = connection.set_nodelay(true);
                let (accepted, available) = (Arc::clone(&accepted), Arc::clone(&available));
                let answer = hyper::service::service_fn(move |request: hyper::Request<_>| {
                    let (accepted, available) = (Arc::clone(&accepted), Arc::clone(&available));
                    async move {
                        let body = Body::new::<hyper::body::Incoming>(request.into_body());
                        let _ = axum::body::to_bytes(body, usize::MAX).await;
                        let mut response = Response::new(Body::empty());
                        *response.status_mut() = if available.load(Ordering::SeqCst) {
                            accepted.fetch_add(1, Ordering::SeqCst);
                            hyper::StatusCode::NO_CONTENT
                        } else {
                            hyper::StatusCode::SERVICE_UNAVAILABLE
                        };
                        Ok::<_, Infallible>(response)
                    }
                });
                tokio::spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http
                        .serve_connection(TokioIo::new(connection), answer)
                        .await;
                });
            }
        });
        Ok(receiver)
    }

    /// Resets the count, and accepts or refuses from now on.
    fn reset(&self, available: bool) {
        self.accepted.store(0, Ordering::SeqCst);
        self.available.store(available, Ordering::SeqCst);
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Waits until it has accepted `count` documents.
    fn wait_for(&self, count: usize) -> anyhow::Result<()> {
        let started = Instant::now();
        while self.accepted() < count {
            ensure!(started.elapsed() < TIMEOUT, "not all were delivered");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Returns the settings of a destination that posts to it.
    fn section(&self, folder: &Path, max_concurrency: usize) -> anyhow::Result<String> {
        let secret = folder.join("secret");
        std::fs::write(&secret, SECRET)?;
        Ok(format!(
            "kind = \"http\"\nmax_concurrency = {max_concurrency}\nurl = \"http://{}/\"\nsecret_file = {secret:?}\n",
            self.address
        ))
    }
}

/// `serve` beside an emulator, with one destination.
struct Scene {
    server: Process,
    admin: SocketAddr,
    _vendor: Vendor,
    _folder: tempfile::TempDir,
    database: Option<Database>,
}

/// A database of one scene on a PostgreSQL server.
struct Database {
    server: String,
    name: String,
}

impl Database {
    fn create(server: &str) -> anyhow::Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let name = format!("delivery_{}_{number}", std::process::id());
        let database = Self {
            server: server.to_owned(),
            name,
        };
        database.run(&format!("CREATE DATABASE {}", database.name))?;
        Ok(database)
    }

    fn run(&self, statements: &str) -> anyhow::Result<()> {
        tokio::runtime::Handle::current().block_on(sql(&self.server, statements))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(database) = self.database.take() {
            // The server's connections are closed with it.
            let _ = database.run(&format!("DROP DATABASE {} WITH (FORCE)", database.name));
        }
    }
}

impl Scene {
    /// Starts it with a destination `one` of these settings, or without if they are empty.
    fn start(
        arguments: &Arguments,
        count: usize,
        destination: impl FnOnce(&Path) -> anyhow::Result<String>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let vendor = Vendor::start(folder.path(), &[COMPANY])?;
        vendor.load(COMPANY, count)?;
        // The vendor's clock is known to a second, and all of these are to be history.
        std::thread::sleep(Duration::from_secs(2));
        let destination = match destination(folder.path())? {
            none if none.is_empty() => none,
            destination => format!("[destinations.one]\n{destination}"),
        };
        let database = arguments.postgres.as_deref().map(Database::create);
        let database = database.transpose()?;
        let store = match &database {
            Some(database) => format!(
                "[store]\nurl = \"{}\"\n",
                database_of(&database.server, &database.name)?
            ),
            None => String::new(),
        };
        let sections = format!(
            "{store}[api]\nurl = \"{}\"\nexported_path = \"path\"\n\
             [accounts.default]\ndigitized = false\ncompanies = [\"{COMPANY}\"]\n{destination}",
            vendor.api
        );
        let (_, admin) = write_settings(folder.path(), &sections)?;
        Ok(Self {
            server: Process::start(folder.path(), &["serve"])?,
            admin,
            _vendor: vendor,
            _folder: folder,
            database,
        })
    }

    /// Waits until `poll` returns something.
    fn until<T>(&self, what: &str, mut poll: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
        let started = Instant::now();
        loop {
            if let Some(found) = poll() {
                return Ok(found);
            }
            ensure!(
                started.elapsed() < TIMEOUT,
                "{what}: not within {TIMEOUT:?}"
            );
            std::thread::sleep(SAMPLE_EVERY);
        }
    }

    /// Waits until `count` documents are stored; returns the duration.
    fn pulled(&self, count: usize) -> anyhow::Result<Duration> {
        let started = Instant::now();
        // The server may not listen yet.
        self.until("the last document", || {
            (stored(self.admin).ok()? >= count as u64).then_some(())
        })?;
        Ok(started.elapsed())
    }

    fn destination(&self) -> anyhow::Result<Value> {
        let destinations = request(self.admin, "GET", "/v1/destinations", "")?;
        let destinations: Value = serde_json::from_str(&destinations)?;
        Ok(destinations["rows"][0].clone())
    }

    /// Waits until `count` documents are held.
    fn held(&self, count: usize) -> anyhow::Result<()> {
        self.until("the last document held", || {
            (self.destination().ok()?["held"] == count).then_some(())
        })
    }

    /// Waits until everything is delivered; returns the duration. What a receiver counts takes no
    /// processor time from the service, as its own counts would.
    fn delivered(&self, to: Option<(&Receiver, usize)>) -> anyhow::Result<Duration> {
        let started = Instant::now();
        if let Some((receiver, count)) = to {
            receiver.wait_for(count)?;
        }
        self.until("the last delivery", || {
            let destination = self.destination().ok()?;
            (destination["waiting"] == 0).then_some(())
        })?;
        Ok(started.elapsed())
    }

    fn post(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        request(self.admin, "POST", path, &body.to_string()).map(drop)
    }
}

/// Measures the delivery of pulled documents to each kind of destination.
fn kinds(arguments: &Arguments, receiver: &Receiver, rows: &mut Vec<Value>) -> anyhow::Result<()> {
    println!(
        "destination              documents   seconds  per second  CPU seconds   resident MiB"
    );
    let http = |max_concurrency| move |folder: &Path| receiver.section(folder, max_concurrency);
    let all = arguments.documents;
    for (name, at_once) in [
        ("http, max_concurrency 1", 1),
        ("http, max_concurrency 16", 16),
    ] {
        receiver.reset(true);
        let to = Some((receiver, all));
        kind(arguments, name, all, rows, to, http(at_once))?;
        let Some(ceiling) = posts_a_second(arguments, all, at_once)? else {
            continue;
        };
        let ours = rows.last().and_then(|row| row["per_second"].as_f64());
        let ratio = ours.context("a figure")? / ceiling;
        println!("{:<24} {ratio:>31.2} of {ceiling:.0}", "  of the ceiling");
        rows.push(json!({ "what": name, "ceiling_per_second": ceiling, "ratio": ratio }));
    }
    kind(
        arguments,
        "command, /bin/true",
        all / 10,
        rows,
        None,
        |_| Ok("kind = \"command\"\nprogram = \"/bin/true\"\n".to_owned()),
    )?;
    kind(arguments, "folder, no files", all, rows, None, |folder| {
        let path = folder.join("archive");
        Ok(format!(
            "kind = \"folder\"\nfiles = false\npath = {path:?}\n"
        ))
    })?;
    let list = kind(arguments, "list, appended", all, rows, None, |_| {
        Ok("kind = \"list\"\n".to_owned())
    })?;
    let started = Instant::now();
    let before = list.server.processor_time()?.as_secs_f64();
    let read = read_list(list.admin)?;
    ensure!(read == all, "the list has {read}");
    rows.push(line("list, read", all, (started.elapsed(), before), &list)?);
    Ok(())
}

/// Returns how many documents of an ordinary size this program posts in a second to the ceiling over
/// this many connections, if one is named.
fn posts_a_second(
    arguments: &Arguments,
    documents: usize,
    connections: usize,
) -> anyhow::Result<Option<f64>> {
    let folder = tempfile::tempdir()?;
    let Some((_process, address)) = arguments.ceiling.start(Mode::Answer, folder.path())? else {
        return Ok(None);
    };
    let body = "x".repeat(DOCUMENT_BYTES);
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {DOCUMENT_BYTES}\r\n\r\n{body}",
        ceiling::PATH
    );
    let requests = Arc::new(vec![request.into_bytes(); documents]);
    tokio::runtime::Handle::current().block_on(async {
        ceiling::wait_for(address).await?;
        let answers = send(&[address], connections, requests).await?;
        ensure!(answers.accepted == documents, "some were refused");
        Ok(Some(answers.rate()))
    })
}

fn kind(
    arguments: &Arguments,
    name: &str,
    count: usize,
    rows: &mut Vec<Value>,
    to: Option<(&Receiver, usize)>,
    destination: impl FnOnce(&Path) -> anyhow::Result<String>,
) -> anyhow::Result<Scene> {
    let scene = Scene::start(arguments, count, destination)?;
    scene.pulled(count)?;
    // The documents of a first pull are held until the destination is started.
    scene.held(count)?;
    let before = scene.server.processor_time()?.as_secs_f64();
    scene.post("/v1/destinations/one/start", &json!({ "from": "all" }))?;
    let elapsed = scene.delivered(to)?;
    rows.push(line(name, count, (elapsed, before), &scene)?);
    Ok(scene)
}

/// Prints the duration, and the processor time of `serve` beyond what it was before; returns them.
fn line(
    name: &str,
    count: usize,
    (elapsed, before): (Duration, f64),
    scene: &Scene,
) -> anyhow::Result<Value> {
    let seconds = elapsed.as_secs_f64();
    let rate = per_second(count as u64, seconds);
    let processor = scene.server.processor_time()?.as_secs_f64() - before;
    println!(
        "{name:<24} {count:>9} {seconds:>9.1} {rate:>11.0} {processor:>12.1} {:>14.1}",
        mebibytes(scene.server.status("VmRSS")?)
    );
    Ok(json!({ "what": name, "per_second": rate, "cpu_seconds": processor }))
}

/// Reads the list to its end, as a program does; returns the number of documents.
fn read_list(admin: SocketAddr) -> anyhow::Result<usize> {
    let mut count = 0;
    let mut path = "/v1/documents?limit=500".to_owned();
    loop {
        let page: Value = serde_json::from_str(&request(admin, "GET", &path, "")?)?;
        count += page["documents"].as_array().context("a list")?.len();
        if page["more"] == false {
            return Ok(count);
        }
        let next = page["next"].as_str().context("a position")?;
        path = format!("/v1/documents?limit=500&after={next}");
    }
}

/// Pulls a backlog without a destination, with a held one, and with an unavailable one, which then
/// resumes.
fn backlog(
    arguments: &Arguments,
    receiver: &Receiver,
    rows: &mut Vec<Value>,
) -> anyhow::Result<()> {
    let count = arguments.backlog;
    println!(
        "\n{count:>7} documents pulled        seconds  per second  CPU seconds   resident MiB   peak MiB"
    );
    let pull = |destination: &str| -> anyhow::Result<(Scene, Duration)> {
        let scene = Scene::start(arguments, count, |folder| {
            let section = receiver.section(folder, arguments.max_concurrency)?;
            Ok(match destination {
                "" => String::new(),
                history => format!("history = \"{history}\"\n{section}"),
            })
        })?;
        let elapsed = scene.pulled(count)?;
        Ok((scene, elapsed))
    };
    // In turn, since other processes slow a machine down for a while.
    let mut costs = Vec::new();
    for _ in 0..arguments.pairs {
        let (alone, elapsed) = pull("")?;
        let without = stage("without a destination", count, elapsed, &alone)?;
        drop(alone);
        let (scene, elapsed) = pull("hold")?;
        scene.held(count)?;
        let with = stage("with a held one", count, elapsed, &scene)?;
        ensure!(scene.destination()?["delivered"] == 0, "it was delivered");
        costs.push((
            ratio(&without, &with, "per_second"),
            ratio(&with, &without, "cpu_seconds"),
        ));
        rows.extend([without, with]);
    }
    let (time, processor): (Vec<f64>, Vec<f64>) = costs.into_iter().unzip();
    let (time, processor) = (median(time), median(processor));
    println!(
        "with a held destination a page takes {time:.2} times as long, and {processor:.2} times the processor time"
    );
    rows.push(json!({ "what": "held", "time_ratio": time, "processor_time_ratio": processor }));

    receiver.reset(false);
    let (scene, elapsed) = pull("deliver")?;
    rows.push(stage("with an unavailable one", count, elapsed, &scene)?);
    ensure!(scene.destination()?["delivered"] == 0, "it was delivered");

    receiver.reset(true);
    let resumed = Instant::now();
    scene.post("/v1/destinations/one/resume", &json!({}))?;
    let first = loop {
        if receiver.accepted() > 0 {
            break resumed.elapsed();
        }
        ensure!(resumed.elapsed() < TIMEOUT, "no document was delivered");
        std::thread::sleep(Duration::from_micros(200));
    };
    println!("resumed: first delivery after {first:.1?}");
    let drained = scene.delivered(Some((receiver, count)))?;
    ensure!(
        receiver.accepted() == count,
        "{} were delivered",
        receiver.accepted()
    );
    rows.push(stage("delivered", count, drained, &scene)?);
    Ok(())
}

/// Returns how many times as large `what` is in one row as in another.
fn ratio(one: &Value, other: &Value, what: &str) -> f64 {
    let number = |row: &Value| row[what].as_f64().unwrap_or(f64::NAN);
    number(one) / number(other)
}

fn stage(name: &str, count: usize, elapsed: Duration, scene: &Scene) -> anyhow::Result<Value> {
    let seconds = elapsed.as_secs_f64();
    let rate = per_second(count as u64, seconds);
    let processor = scene.server.processor_time()?.as_secs_f64();
    println!(
        "{name:<24} {seconds:>14.1} {rate:>11.0} {processor:>12.1} {:>14.1} {:>10.1}",
        mebibytes(scene.server.status("VmRSS")?),
        mebibytes(scene.server.status("VmHWM")?)
    );
    Ok(json!({ "what": name, "per_second": rate, "cpu_seconds": processor }))
}
