//! What the service costs on a small machine: time to start, memory when idle, and memory
//! and speed while a backlog drains.
//!
//! Runs the program's own `emulator` and `serve` as processes and reads `/proc`, so it
//! works on Linux only. The emulator shares the machine with the service.
//!
//! `cargo bench --bench footprint -- --documents 200000`

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark plays the neighbors of the service, and prints what it measures"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Parser;

use support::{PATIENCE, Process, Vendor, ask, mebibytes, per_second, stored, write_settings};

mod support;

/// What to measure.
#[derive(Clone, Debug, Parser)]
struct Wish {
    /// Documents that wait at the vendor
    #[arg(long, default_value_t = 200_000)]
    documents: usize,
    /// Starts, of which the median is told
    #[arg(long, default_value_t = 10)]
    starts: usize,
    /// Leave the time between looks at the memory so many milliseconds
    #[arg(long, default_value_t = 20)]
    look_every_ms: u64,
    /// Ignored: `cargo bench` gives it
    #[arg(long, hide = true)]
    bench: bool,
}

const COMPANIES: [&str; 2] = ["302320404", "304567890"];

/// How long an idle server is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);

fn main() -> anyhow::Result<()> {
    let wish = Wish::parse();
    start_up(&wish)?;
    drain(&wish)
}

/// From the start of the process to the first 200 of `/readyz`, and memory when idle.
fn start_up(wish: &Wish) -> anyhow::Result<()> {
    let mut fresh = Vec::new();
    let mut again = Vec::new();
    let mut idle = 0;
    for _ in 0..wish.starts {
        let folder = tempfile::tempdir()?;
        let (public, _) = write_settings(folder.path(), "")?;
        for times in [&mut fresh, &mut again] {
            let started = Instant::now();
            let server = Process::start(folder.path(), &["serve"])?;
            while ask(public, "GET", "/readyz", "").is_err() {
                ensure!(
                    started.elapsed() < PATIENCE,
                    "the server never became ready"
                );
            }
            times.push(started.elapsed());
            if times.len() == wish.starts {
                std::thread::sleep(SETTLE);
                idle = server.memory_kib("VmRSS")?;
            }
        }
    }
    println!(
        "start until /readyz answers, median of {}: {:.0?} with a new store, {:.0?} with an old one",
        wish.starts,
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

/// Lets a fresh server read a backlog of exported documents.
fn drain(wish: &Wish) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let emulator = Vendor::start(folder.path(), &COMPANIES)?;
    let (first, second) = (wish.documents / 2, wish.documents - wish.documents / 2);
    for (company, count) in COMPANIES.into_iter().zip([first, second]) {
        emulator.load(company, count)?;
    }
    let sections = format!(
        "[api]\nurl = \"{}\"\nexported_path = \"path\"\n[accounts.default]\ndigitized = false\ncompanies = {COMPANIES:?}\n",
        emulator.api
    );
    let (_, admin) = write_settings(folder.path(), &sections)?;
    let server = Process::start(folder.path(), &["serve"])?;
    watch(wish, &server, admin)
}

/// Prints a line at each of the marks, and one at the end.
fn watch(wish: &Wish, server: &Process, admin: SocketAddr) -> anyhow::Result<()> {
    let total = wish.documents as u64;
    let mut marks = [total / 10, total / 2, total].into_iter().peekable();
    let started = Instant::now();
    println!("documents   seconds   a second   resident MiB   peak MiB");
    while let Some(mark) = marks.peek().copied() {
        ensure!(started.elapsed() < PATIENCE, "the backlog did not drain");
        std::thread::sleep(Duration::from_millis(wish.look_every_ms));
        // It may not listen yet.
        let count = stored(admin).unwrap_or_default();
        if count < mark {
            continue;
        }
        marks.next();
        let elapsed = started.elapsed().as_secs_f64();
        println!(
            "{count:>9} {elapsed:>9.1} {:>10.0} {:>14.1} {:>10.1}",
            per_second(count, elapsed),
            mebibytes(server.memory_kib("VmRSS")?),
            mebibytes(server.memory_kib("VmHWM")?),
        );
    }
    Ok(())
}
