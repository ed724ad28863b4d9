//! What delivering costs: documents a second through each kind of destination, and what a destination
//! costs that takes nothing while a backlog grows.
//!
//! Runs the program's own `emulator` and `serve` as processes and reads `/proc`, so it
//! works on Linux only. The emulator and the receiver share the machine with the service.
//!
//! `cargo bench --bench delivery -- --documents 10000 --backlog 200000`

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark plays the neighbors of the service, and prints what it measures"
)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use axum::body::Body;
use axum::http::Response;
use clap::Parser;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use support::{PATIENCE, Process, Vendor, ask, mebibytes, per_second, stored, write_settings};

mod support;

/// What to measure.
#[derive(Clone, Debug, Parser)]
struct Wish {
    /// Documents for each kind of destination; a program gets a tenth
    #[arg(long, default_value_t = 10_000)]
    documents: usize,
    /// Documents that wait for the destination that takes nothing; 0 leaves that out
    #[arg(long, default_value_t = 200_000)]
    backlog: usize,
    /// Documents that the destination with the backlog is given side by side
    #[arg(long, default_value_t = 1)]
    max_concurrency: usize,
    /// Ignored: `cargo bench` gives it
    #[arg(long, hide = true)]
    bench: bool,
}

const COMPANY: &str = "302320404";
const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// How often the service is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let wish = Wish::parse();
    let receiver = Receiver::open().await?;
    // What follows blocks; the receiver has threads of its own.
    tokio::task::spawn_blocking(move || {
        kinds(&wish, &receiver)?;
        match wish.backlog {
            0 => Ok(()),
            _ => backlog(&wish, &receiver),
        }
    })
    .await?
}

/// A receiver that reads what it is given and keeps nothing.
struct Receiver {
    address: SocketAddr,
    taken: Arc<AtomicUsize>,
    takes: Arc<AtomicBool>,
}

impl Receiver {
    async fn open() -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let receiver = Self {
            address: listener.local_addr()?,
            taken: Arc::default(),
            takes: Arc::new(AtomicBool::new(true)),
        };
        let (taken, takes) = (Arc::clone(&receiver.taken), Arc::clone(&receiver.takes));
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let _ = connection.set_nodelay(true);
                let (taken, takes) = (Arc::clone(&taken), Arc::clone(&takes));
                let answer = hyper::service::service_fn(move |request: hyper::Request<_>| {
                    let (taken, takes) = (Arc::clone(&taken), Arc::clone(&takes));
                    async move {
                        let body = Body::new::<hyper::body::Incoming>(request.into_body());
                        let _ = axum::body::to_bytes(body, usize::MAX).await;
                        let mut response = Response::new(Body::empty());
                        *response.status_mut() = if takes.load(Ordering::SeqCst) {
                            taken.fetch_add(1, Ordering::SeqCst);
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

    /// Forgets what it was given, and takes something from now on or nothing.
    fn begin(&self, takes: bool) {
        self.taken.store(0, Ordering::SeqCst);
        self.takes.store(takes, Ordering::SeqCst);
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// The settings of a destination that posts to it.
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
}

impl Scene {
    /// With the destination `one` of these settings; none where they are empty.
    fn start(
        count: usize,
        destination: impl FnOnce(&Path) -> anyhow::Result<String>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let vendor = Vendor::start(folder.path(), &[COMPANY])?;
        vendor.load(COMPANY, count)?;
        let destination = match destination(folder.path())? {
            none if none.is_empty() => none,
            destination => format!("[destinations.one]\n{destination}"),
        };
        let sections = format!(
            "[api]\nurl = \"{}\"\nexported_path = \"path\"\n\
             [accounts.default]\ndigitized = false\ncompanies = [\"{COMPANY}\"]\n{destination}",
            vendor.api
        );
        let (_, admin) = write_settings(folder.path(), &sections)?;
        Ok(Self {
            server: Process::start(folder.path(), &["serve"])?,
            admin,
            _vendor: vendor,
            _folder: folder,
        })
    }

    /// Waits until `is` gives something.
    fn until<T>(&self, what: &str, mut is: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
        let started = Instant::now();
        loop {
            if let Some(found) = is() {
                return Ok(found);
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "{what}: not within {PATIENCE:?}"
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until so many documents are stored; how long that took.
    fn pulled(&self, count: usize) -> anyhow::Result<Duration> {
        let started = Instant::now();
        // It may not listen yet.
        self.until("the last document", || {
            (stored(self.admin).ok()? >= count as u64).then_some(())
        })?;
        Ok(started.elapsed())
    }

    fn destination(&self) -> anyhow::Result<Value> {
        let destinations = ask(self.admin, "GET", "/v1/destinations", "")?;
        let destinations: Value = serde_json::from_str(&destinations)?;
        Ok(destinations["rows"][0].clone())
    }

    /// Waits until nothing is left for the destination; how long that took.
    fn handed_on(&self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        self.until("the end of delivering", || {
            let destination = self.destination().ok()?;
            (destination["behind"] == 0).then_some(())
        })?;
        Ok(started.elapsed())
    }

    fn post(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        ask(self.admin, "POST", path, &body.to_string()).map(drop)
    }
}

/// Documents a second through each kind of destination, the pulling over.
fn kinds(wish: &Wish, receiver: &Receiver) -> anyhow::Result<()> {
    println!("destination                     documents   seconds   a second   resident MiB");
    let http = |max_concurrency| move |folder: &Path| receiver.section(folder, max_concurrency);
    let all = wish.documents;
    receiver.begin(true);
    kind("http, max_concurrency 1", all, http(1))?;
    kind("http, max_concurrency 16", all, http(16))?;
    kind("command, /bin/true", all / 10, |_| {
        Ok("kind = \"command\"\nprogram = \"/bin/true\"\n".to_owned())
    })?;
    kind("folder, no files", all, |folder| {
        let path = folder.join("archive");
        Ok(format!(
            "kind = \"folder\"\nfiles = false\npath = {path:?}\n"
        ))
    })?;
    let list = kind("api, into the list", all, |_| {
        Ok("kind = \"list\"\n".to_owned())
    })?;
    let started = Instant::now();
    let read = read_list(list.admin)?;
    ensure!(read == all, "the list has {read}");
    line("api, out of the list", all, started.elapsed(), &list)
}

fn kind(
    name: &str,
    count: usize,
    destination: impl FnOnce(&Path) -> anyhow::Result<String>,
) -> anyhow::Result<Scene> {
    let scene = Scene::start(count, destination)?;
    scene.pulled(count)?;
    // The first pull is held until somebody says so.
    scene.post("/v1/destinations/one/start", &json!({ "from": "all" }))?;
    let elapsed = scene.handed_on()?;
    line(name, count, elapsed, &scene)?;
    Ok(scene)
}

fn line(name: &str, count: usize, elapsed: Duration, scene: &Scene) -> anyhow::Result<()> {
    let seconds = elapsed.as_secs_f64();
    println!(
        "{name:<24} {count:>9} {seconds:>9.1} {:>10.0} {:>14.1}",
        per_second(count as u64, seconds),
        mebibytes(scene.server.memory_kib("VmRSS")?)
    );
    Ok(())
}

/// Reads the list to its end as a program does; how many that were.
fn read_list(admin: SocketAddr) -> anyhow::Result<usize> {
    let mut count = 0;
    let mut path = "/v1/documents?limit=500".to_owned();
    loop {
        let page: Value = serde_json::from_str(&ask(admin, "GET", &path, "")?)?;
        count += page["documents"].as_array().context("a list")?.len();
        if page["more"] == false {
            return Ok(count);
        }
        let next = page["next"].as_str().context("a place")?;
        path = format!("/v1/documents?limit=500&after={next}");
    }
}

/// Pulls a backlog without a destination, then beside one that takes nothing, then lets that go on.
fn backlog(wish: &Wish, receiver: &Receiver) -> anyhow::Result<()> {
    let count = wish.backlog;
    println!("\n{count} documents pulled       seconds   a second   resident MiB   peak MiB");
    let alone = Scene::start(count, |_| Ok(String::new()))?;
    let without = alone.pulled(count)?;
    stage("without a destination", count, without, &alone)?;
    drop(alone);

    receiver.begin(false);
    let scene = Scene::start(count, |folder| {
        let section = receiver.section(folder, wish.max_concurrency)?;
        Ok(format!("history = \"deliver\"\n{section}"))
    })?;
    let with = scene.pulled(count)?;
    stage("beside one that waits", count, with, &scene)?;
    println!(
        "the destination costs {:.1} % of the pulling speed",
        (1.0 - without.as_secs_f64() / with.as_secs_f64()) * 100.0
    );
    let destination = scene.destination()?;
    ensure!(
        destination["delivered"] == 0 && destination["behind"].as_u64() >= Some(count as u64 - 1)
    );

    receiver.begin(true);
    let resumed = Instant::now();
    scene.post("/v1/destinations/one/resume", &json!({}))?;
    let first = loop {
        if receiver.taken() > 0 {
            break resumed.elapsed();
        }
        ensure!(resumed.elapsed() < PATIENCE, "nothing came");
        std::thread::sleep(Duration::from_micros(200));
    };
    println!("resumed: the first document came after {first:.1?}");
    let drained = scene.handed_on()?;
    ensure!(
        receiver.taken() == count,
        "it was given {}",
        receiver.taken()
    );
    stage("delivered", count, drained, &scene)
}

fn stage(name: &str, count: usize, elapsed: Duration, scene: &Scene) -> anyhow::Result<()> {
    let seconds = elapsed.as_secs_f64();
    println!(
        "{name:<28} {seconds:>9.1} {:>10.0} {:>14.1} {:>10.1}",
        per_second(count as u64, seconds),
        mebibytes(scene.server.memory_kib("VmRSS")?),
        mebibytes(scene.server.memory_kib("VmHWM")?)
    );
    Ok(())
}
