//! Footprint on a small machine: time to start, memory when idle, and memory and speed
//! while a backlog is pulled.
//!
//! Runs the program's `emulator` and `serve` as processes and reads `/proc`, so it needs
//! Linux. The emulator shares the machine with the service.
//!
//! `cargo bench --bench footprint -- --documents 200000`

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark plays the neighbors of the service, and prints its results"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Parser;

use support::{Process, TIMEOUT, Vendor, mebibytes, per_second, request, stored, write_settings};

mod support;

/// The measurements.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// Documents in the backlog
    #[arg(long, default_value_t = 200_000)]
    documents: usize,
    /// Number of starts
    #[arg(long, default_value_t = 10)]
    starts: usize,
    /// Milliseconds between samples of the backlog
    #[arg(long, default_value_t = 20)]
    sample_every_ms: u64,
    /// Ignored; passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

const COMPANIES: [&str; 2] = ["302320404", "304567894"];

/// Duration for which a server is idle before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    start_up(&arguments)?;
    pull_backlog(&arguments)
}

/// Measures the time until `/readyz` answers 200, and memory when idle.
fn start_up(arguments: &Arguments) -> anyhow::Result<()> {
    let mut fresh = Vec::new();
    let mut again = Vec::new();
    let mut idle = 0;
    for _ in 0..arguments.starts {
        let folder = tempfile::tempdir()?;
        let (public, _) = write_settings(folder.path(), "")?;
        for times in [&mut fresh, &mut again] {
            let started = Instant::now();
            let server = Process::start(folder.path(), &["serve"])?;
            while request(public, "GET", "/readyz", "").is_err() {
                ensure!(
                    started.elapsed() < TIMEOUT,
                    "the server did not become ready"
                );
            }
            times.push(started.elapsed());
            if times.len() == arguments.starts {
                std::thread::sleep(SETTLE);
                idle = server.status("VmRSS")?;
            }
        }
    }
    println!(
        "start until /readyz answers, median of {}: {:.0?} with a new store, {:.0?} with an existing one",
        arguments.starts,
        median(&mut fresh),
        median(&mut again)
    );
    println!("memory when idle: {:.1} MiB", mebibytes(idle));
    Ok(())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Pulls a backlog of exported documents into a new store.
fn pull_backlog(arguments: &Arguments) -> anyhow::Result<()> {
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

/// Prints a line at 10, 50 and 100 % of the backlog.
fn watch(arguments: &Arguments, server: &Process, admin: SocketAddr) -> anyhow::Result<()> {
    let total = arguments.documents as u64;
    let mut marks = [total / 10, total / 2, total].into_iter().peekable();
    let started = Instant::now();
    println!("documents   seconds  per second   resident MiB   peak MiB");
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
        println!(
            "{count:>9} {elapsed:>9.1} {:>11.0} {:>14.1} {:>10.1}",
            per_second(count, elapsed),
            mebibytes(server.status("VmRSS")?),
            mebibytes(server.status("VmHWM")?),
        );
    }
    Ok(())
}
