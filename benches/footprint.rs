//! Footprint on a small machine: time to start, the first message, memory and processor time when
//! idle, and memory and speed while a backlog is pulled.
//!
//! Runs the program's `emulator` and `serve` as processes and reads `/proc`, so it needs
//! Linux. The emulator shares the machine with the service. The starts are measured on a new store
//! and on a filled one; the backlog is always pulled into SQLite.
//!
//! `SNSBENCH_SKETCH` may name the ceiling of this machine (`support/ceiling.rs`): it is measured on a new
//! store too, and compared.
//!
//! `cargo bench --bench footprint -- --documents 200000`, and with
//! `--postgres postgres://USER@HOST/postgres` on a server whose user may create databases.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark plays the neighbors of the service, and prints its results"
)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use ivesk_webhook::domain::Clock;
use serde_json::{Value, json};

use support::ceiling::{self, Ceiling, Mode};
use support::fill::{Scale, fill};
use support::load::{Mix, Sns, median, requests, send};
use support::{
    NewStore, Process, TIMEOUT, Vendor, mebibytes, per_second, request, stored, with_new_store,
    write_json, write_settings,
};

mod support;

/// The measurements.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// Documents in the backlog; 0 skips it
    #[arg(long, default_value_t = 200_000)]
    documents: usize,
    /// Number of starts
    #[arg(long, default_value_t = 10)]
    starts: usize,
    /// Divide the million documents of the filled store by this
    #[arg(long, default_value_t = 1)]
    divide: i64,
    /// Seconds for which a server is idle
    #[arg(long, default_value_t = 30)]
    idle_seconds: u64,
    /// Milliseconds between samples of the backlog
    #[arg(long, default_value_t = 20)]
    sample_every_ms: u64,
    #[command(flatten)]
    ceiling: Ceiling,
    /// URL of a PostgreSQL server whose user may create databases, for the starts; without it, SQLite
    #[arg(long)]
    postgres: Option<String>,
    /// Write the results to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Ignored; passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

const COMPANIES: [&str; 2] = ["302320404", "304567894"];

/// Time after a start in which a server comes to rest.
const SETTLE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let sns = Sns::start().await?;
    println!(
        "store         ready ms   first message ms   idle: resident MiB   anonymous MiB   CPU ms a second"
    );
    let new = start_up(&arguments, &sns, None).await?;
    let ceiling = start_ceiling(&arguments, &sns).await?;
    let ratio = ceiling
        .as_ref()
        .map(|ceiling| of_ceiling(&new, ceiling))
        .transpose()?;
    let filled = start_up(&arguments, &sns, Some(Scale::divided(arguments.divide))).await?;
    let mut rows = vec![new, filled];
    rows.extend(ceiling.into_iter().chain(ratio));
    if arguments.documents > 0 {
        let backlog = arguments.clone();
        rows.extend(tokio::task::spawn_blocking(move || pull_backlog(&backlog)).await??);
    }
    write_json(arguments.json.as_deref(), &json!({ "rows": rows }))
}

/// Measures the time until `/readyz` answers 200 and the first message after that, on a new store or
/// on one that is filled first, and what an idle server needs.
async fn start_up(
    arguments: &Arguments,
    sns: &Sns,
    filled: Option<Scale>,
) -> anyhow::Result<Value> {
    let folder = tempfile::tempdir()?;
    let server = arguments.postgres.as_deref();
    with_new_store(server, folder.path(), async |store| {
        if let Some(scale) = filled {
            fill(&store.url, scale, Clock::system().now()).await?;
        }
        starts(arguments, sns, folder.path(), store, filled.is_some()).await
    })
    .await
}

/// Starts the service on this store again and again.
async fn starts(
    arguments: &Arguments,
    sns: &Sns,
    folder: &Path,
    store: &NewStore,
    is_filled: bool,
) -> anyhow::Result<Value> {
    let sections = format!(
        "[store]\nurl = \"{}\"\n[sns]\nlocal_origins = [\"{}\"]\n[accounts.default]\n",
        store.setting, sns.origin
    );
    let (public, _) = write_settings(folder, &sections)?;
    let mix = Mix::genuine_only(arguments.starts);
    let bodies = sns.sign(&mix, 1)?;
    let (mut ready, mut first) = (Vec::new(), Vec::new());
    let mut idle = json!({});
    for message in requests(&mix, &bodies, "/webhooks/default/on_exported") {
        let started = Instant::now();
        // Without a key nothing is pulled.
        let server = Process::start_without_key(folder, &["serve"])?;
        while request(public, "GET", "/readyz", "").is_err() {
            ensure!(
                started.elapsed() < TIMEOUT,
                "the server did not become ready"
            );
        }
        ready.push(started.elapsed().as_secs_f64() * 1e3);
        let answers = send(&[public], 1, Arc::new(vec![message])).await?;
        ensure!(answers.accepted == 1, "the first message was refused");
        first.push(answers.at(1.0));
        if ready.len() == arguments.starts {
            idle = rest(arguments, &server).await?;
        }
    }
    let name = if is_filled { "filled" } else { "new" };
    Ok(line(name, median(ready), median(first), &idle))
}

/// Measures the ceiling as a service on a new store is; returns nothing if none is named.
async fn start_ceiling(arguments: &Arguments, sns: &Sns) -> anyhow::Result<Option<Value>> {
    let mode = Mode::of(arguments.postgres.as_deref());
    let mix = Mix::genuine_only(arguments.starts);
    let bodies = sns.sign(&mix, 1)?;
    let (mut ready, mut first) = (Vec::new(), Vec::new());
    let mut idle = json!({});
    for message in requests(&mix, &bodies, ceiling::PATH) {
        let folder = tempfile::tempdir()?;
        let started = Instant::now();
        let Some((server, address)) = arguments.ceiling.start(mode, folder.path())? else {
            return Ok(None);
        };
        ceiling::wait_for(address).await?;
        ready.push(started.elapsed().as_secs_f64() * 1e3);
        let answers = send(&[address], 1, Arc::new(vec![message])).await?;
        ensure!(answers.accepted == 1, "the first message was refused");
        first.push(answers.at(1.0));
        if ready.len() == arguments.starts {
            idle = rest(arguments, &server).await?;
        }
    }
    Ok(Some(line("ceiling", median(ready), median(first), &idle)))
}

/// Returns how many times as much the service needs as the ceiling, which has nothing to do when idle.
fn of_ceiling(service: &Value, ceiling: &Value) -> anyhow::Result<Value> {
    let ratio = |path: &str| -> anyhow::Result<f64> {
        let number = |row: &Value| row.pointer(path).and_then(Value::as_f64);
        let (ours, theirs) = (number(service), number(ceiling));
        Ok(ours.context("a figure")? / theirs.context("a figure")?)
    };
    let idle = json!({
        "resident_mib": ratio("/idle/resident_mib")?,
        "anonymous_mib": ratio("/idle/anonymous_mib")?,
    });
    let (ready, first) = (ratio("/ready_ms")?, ratio("/first_message_ms")?);
    Ok(line("ratio", ready, first, &idle))
}

/// Prints a line of the table; returns it.
fn line(name: &str, ready: f64, first: f64, idle: &Value) -> Value {
    let figure = |name: &str| {
        let figure = idle[name].as_f64();
        figure.map_or("-".to_owned(), |figure| format!("{figure:.1}"))
    };
    println!(
        "{name:<12} {ready:>9.1} {first:>18.1} {:>20} {:>15} {:>17}",
        figure("resident_mib"),
        figure("anonymous_mib"),
        figure("cpu_ms_a_second")
    );
    json!({ "store": name, "ready_ms": ready, "first_message_ms": first, "idle": idle })
}

/// Returns what an idle server needs.
async fn rest(arguments: &Arguments, server: &Process) -> anyhow::Result<Value> {
    tokio::time::sleep(SETTLE).await;
    let before = server.processor_time()?;
    let seconds = arguments.idle_seconds.max(1);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let used = server.processor_time()?.saturating_sub(before);
    let seconds = Duration::from_secs(seconds).as_secs_f64();
    Ok(json!({
        "resident_mib": mebibytes(server.status("VmRSS")?),
        "anonymous_mib": mebibytes(server.status("RssAnon")?),
        "cpu_ms_a_second": used.as_secs_f64() * 1e3 / seconds,
    }))
}

/// Pulls a backlog of exported documents into a new store.
fn pull_backlog(arguments: &Arguments) -> anyhow::Result<Vec<Value>> {
    let folder = tempfile::tempdir()?;
    let emulator = Vendor::start(folder.path(), &COMPANIES)?;
    let (first, second) = (
        arguments.documents / 2,
        arguments.documents - arguments.documents / 2,
    );
    for (company, count) in COMPANIES.into_iter().zip([first, second]) {
        emulator.load(company, count)?;
    }
    let sections = format!(
        "[api]\nurl = \"{}\"\nexported_path = \"path\"\n[accounts.default]\ndigitized = false\ncompanies = {COMPANIES:?}\n",
        emulator.api
    );
    let (_, admin) = write_settings(folder.path(), &sections)?;
    let server = Process::start(folder.path(), &["serve"])?;
    watch(arguments, &server, admin)
}

/// Prints a line at 10, 50 and 100 % of the backlog; returns them.
fn watch(arguments: &Arguments, server: &Process, admin: SocketAddr) -> anyhow::Result<Vec<Value>> {
    let total = arguments.documents as u64;
    let mut marks = [total / 10, total / 2, total].into_iter().peekable();
    let mut rows = Vec::new();
    let started = Instant::now();
    println!("\ndocuments   seconds  per second   resident MiB   peak MiB");
    while let Some(mark) = marks.peek().copied() {
        ensure!(started.elapsed() < TIMEOUT, "the backlog was not pulled");
        std::thread::sleep(Duration::from_millis(arguments.sample_every_ms));
        // The server may not listen yet.
        let count = stored(admin).unwrap_or_default();
        if count < mark {
            continue;
        }
        marks.next();
        let elapsed = started.elapsed().as_secs_f64();
        let rate = per_second(count, elapsed);
        let memory = [server.status("VmRSS")?, server.status("VmHWM")?].map(mebibytes);
        println!(
            "{count:>9} {elapsed:>9.1} {rate:>11.0} {:>14.1} {:>10.1}",
            memory[0], memory[1]
        );
        rows.push(json!({
            "documents": count, "per_second": rate, "resident_mib": memory[0], "peak_mib": memory[1],
        }));
    }
    Ok(rows)
}
