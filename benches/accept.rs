//! The accept path under load: messages are verified, stored and answered.
//!
//! Starts `serve` on a fresh store, sends distinct signed notifications over keep-alive
//! connections, among them duplicates and tampered ones, and prints throughput, latencies and
//! processor time. The load generator shares the machine with the service.
//!
//! `SNSBENCH_SKETCH` may name the ceiling of this machine (`support/ceiling.rs`). Then both run in turn,
//! and the ratio of each pair counts.
//!
//! `cargo bench --bench accept`, and with `--postgres postgres://USER@HOST/postgres` on a server
//! whose user may create databases.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark plays the neighbors of the service, and prints its results"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::ensure;
use clap::Parser;
use ivesk_webhook::store::Store;
use serde_json::json;

use support::ceiling::{self, Ceiling, Mode};
use support::load::{Answers, Mix, Sns, count, median, requests, send};
use support::{Process, stored_messages, with_new_store, write_json, write_settings};

mod support;

/// The measurements.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    mix: Mix,
    /// Concurrent connections, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = [32, 256])]
    connections: Vec<usize>,
    /// 1 is SHA-1, 2 is SHA-256
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    signature_versions: Vec<u8>,
    /// Runs of each
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// URL of a PostgreSQL server whose user may create databases; without it, SQLite
    #[arg(long)]
    postgres: Option<String>,
    #[command(flatten)]
    ceiling: Ceiling,
    /// Write the results to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Ignored; passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// Number of requests that warm a receiver up.
const WARM_UP: usize = 1_000;

/// A figure of a run.
type Figure = fn(&Run) -> f64;

/// One run of a receiver.
struct Run {
    answers: Answers,
    /// Processor time of the receiver for each request, in microseconds.
    micros: f64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // One thread, so that the receivers have the rest of the machine.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(measure(&arguments))
}

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let sns = Sns::start().await?;
    let mut results = Vec::new();
    println!("                        a second           p50 ms          p99 ms      CPU µs each");
    for version in arguments.signature_versions.iter().copied() {
        let bodies = sns.sign(&arguments.mix, version)?;
        for connections in arguments.connections.iter().copied() {
            let (mut ours, mut ceiling) = (Vec::new(), Vec::new());
            for _ in 0..arguments.runs {
                ours.push(run_service(arguments, &sns, &bodies, connections).await?);
                ceiling.extend(run_ceiling(arguments, &bodies, connections).await?);
            }
            results.push(report(version, connections, &ours, &ceiling));
        }
    }
    write_json(arguments.json.as_deref(), &json!({ "rows": results }))
}

/// Prints medians, and of pairs the median of their ratios.
fn report(version: u8, connections: usize, ours: &[Run], ceiling: &[Run]) -> serde_json::Value {
    let figures: [(&str, Figure); 4] = [
        ("per_second", |run| run.answers.rate()),
        ("p50_ms", |run| run.answers.at(0.5)),
        ("p99_ms", |run| run.answers.at(0.99)),
        ("cpu_us", |run| run.micros),
    ];
    let mut row = json!({ "version": version, "connections": connections, "runs": ours.len() });
    let mut lines = [String::new(), String::new(), String::new()];
    for (name, figure) in figures {
        let values = [
            median(ours.iter().map(figure)),
            median(ceiling.iter().map(figure)),
            median(ours.iter().zip(ceiling).map(|(a, b)| figure(a) / figure(b))),
        ];
        row[name] = json!({ "ours": values[0], "ceiling": values[1], "ratio": values[2] });
        for (line, value) in lines.iter_mut().zip(values) {
            line.push_str(&format!("{value:>16.2}"));
        }
    }
    println!(
        "version {version}, {connections} connections, {} runs",
        ours.len()
    );
    println!("  service{}", lines[0]);
    if !ceiling.is_empty() {
        println!("  ceiling{}", lines[1]);
        println!("  ratio  {}", lines[2]);
    }
    row
}

async fn run_service(
    arguments: &Arguments,
    sns: &Sns,
    bodies: &[String],
    connections: usize,
) -> anyhow::Result<Run> {
    let folder = tempfile::tempdir()?;
    let server = arguments.postgres.as_deref();
    with_new_store(server, folder.path(), async |store| {
        let sections = format!(
            "[store]\nurl = \"{}\"\n[sns]\nlocal_origins = [\"{}\"]\n[accounts.default]\n",
            store.setting, sns.origin
        );
        let (public, _) = write_settings(folder.path(), &sections)?;
        // Without a key nothing is pulled, so the accept path is measured alone.
        let server = Process::start_without_key(folder.path(), &["serve"])?;
        let path = "/webhooks/default/on_exported";
        let run = load(arguments, &server, public, path, bodies, connections).await?;
        drop(server);
        let store = Store::open_for_reading(&store.url).await?;
        let rows = stored_messages(&store).await?;
        store.close().await?;
        ensure!(rows == arguments.mix.genuine(), "{rows} rows are stored");
        Ok(run)
    })
    .await
}

async fn run_ceiling(
    arguments: &Arguments,
    bodies: &[String],
    connections: usize,
) -> anyhow::Result<Option<Run>> {
    let folder = tempfile::tempdir()?;
    let mode = Mode::of(arguments.postgres.as_deref());
    let Some((server, address)) = arguments.ceiling.start(mode, folder.path())? else {
        return Ok(None);
    };
    let path = ceiling::PATH;
    load(arguments, &server, address, path, bodies, connections)
        .await
        .map(Some)
}

/// Sends the messages to a receiver that has just been started.
async fn load(
    arguments: &Arguments,
    server: &Process,
    address: SocketAddr,
    path: &str,
    bodies: &[String],
    connections: usize,
) -> anyhow::Result<Run> {
    ceiling::wait_for(address).await?;
    let mut warm_up = requests(&arguments.mix, bodies, path);
    let measured = Arc::new(warm_up.split_off(WARM_UP.min(warm_up.len())));
    // The first one alone, which fetches the certificate.
    let first = Arc::new(warm_up.drain(..1).collect());
    let mut answers = vec![send(&[address], 1, first).await?];
    answers.push(send(&[address], connections, Arc::new(warm_up)).await?);
    let before = server.processor_time()?;
    let run = send(&[address], connections, measured).await?;
    let used = server.processor_time()?.saturating_sub(before);
    let micros = used.as_secs_f64() * 1e6 / count(run.latencies.len());
    let other: usize = answers.iter().chain([&run]).map(|one| one.other).sum();
    let refused: usize = answers.iter().chain([&run]).map(|one| one.refused).sum();
    ensure!(other == 0, "{other} answers were neither 200 nor 403");
    let tampered = arguments.mix.messages - arguments.mix.genuine();
    ensure!(refused >= tampered, "{refused} of {tampered} were refused");
    ensure!(run.accepted > run.refused, "most were refused");
    Ok(Run {
        answers: run,
        micros,
    })
}
