//! What the service costs on a small machine: time to start, memory when idle, and memory
//! and speed while a backlog drains.
//!
//! Runs the program's own `emulator` and `serve` as processes and reads `/proc`, so it
//! works on Linux only. The emulator shares the machine with the service.
//!
//! `cargo bench --bench footprint -- --documents 200000`

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use clap::Parser;
use serde_json::{Value, json};

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

const PROGRAM: &str = env!("CARGO_BIN_EXE_ivesk-webhook");
const KEY: &str = "footprint-key";
const COMPANIES: [&str; 2] = ["302320404", "304567890"];

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long an idle server is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);

fn main() -> anyhow::Result<()> {
    let wish = Wish::parse();
    start_up(&wish)?;
    drain(&wish)
}

/// A process of ours, ended when it is dropped.
struct Process {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(folder: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new(PROGRAM)
            .env_clear()
            .env("IVESK_WEBHOOK_API_KEY", KEY)
            .current_dir(folder)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting the program")?;
        let stdout = child.stdout.take().context("it is piped")?;
        let stdout = BufReader::new(stdout).lines();
        Ok(Self { child, stdout })
    }

    /// The rest of the first printed line that holds `mark`.
    fn line_with(&mut self, mark: &str) -> anyhow::Result<String> {
        for line in &mut self.stdout {
            if let Some((_, rest)) = line?.split_once(mark) {
                return Ok(rest.to_owned());
            }
        }
        Err(anyhow!("the program ended before it printed `{mark}`"))
    }

    /// A value of `/proc/<pid>/status`, in KiB.
    fn memory_kib(&self, name: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .context("reading /proc; this bench works on Linux")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let value =
            line.and_then(|line| line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().ok());
        value.with_context(|| format!("/proc has no {name}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request without a client library, whose own start would be measured too.
fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(
        answer.starts_with("HTTP/1.1 200"),
        "{path}: {}",
        answer.lines().next().unwrap_or_default()
    );
    Ok(answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .unwrap_or_default())
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

fn write_settings(folder: &Path, sections: &str) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let (public, private) = (free_address()?, free_address()?);
    let settings = format!(
        "[public]\nurl = \"http://{public}\"\nlisten = \"{public}\"\n[private]\nlisten = \"{private}\"\n{sections}"
    );
    std::fs::write(folder.join("ivesk-webhook.toml"), settings)?;
    Ok((public, private))
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

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn mebibytes(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// Lets a fresh server read a backlog of exported documents.
fn drain(wish: &Wish) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut arguments = vec!["emulator", "--listen", "127.0.0.1:0", "--key", KEY];
    for company in COMPANIES {
        arguments.extend(["--company", company]);
    }
    let mut emulator = Process::start(folder.path(), &arguments)?;
    let api = emulator.line_with("API       ")?;
    let api = api.split_whitespace().next().context("an address")?;
    let control: SocketAddr = api
        .trim_start_matches("http://")
        .split('/')
        .next()
        .context("an address")?
        .parse()?;
    let (first, second) = (wish.documents / 2, wish.documents - wish.documents / 2);
    for (company, count) in COMPANIES.into_iter().zip([first, second]) {
        let body = json!({ "key": KEY, "company": company, "count": count }).to_string();
        ask(control, "POST", "/control/load", &body)?;
    }
    let sections = format!(
        "[api]\nurl = \"{api}\"\nexported_path = \"path\"\n[accounts.default]\ndigitized = false\ncompanies = {COMPANIES:?}\n"
    );
    let (_, private) = write_settings(folder.path(), &sections)?;
    let server = Process::start(folder.path(), &["serve"])?;
    watch(wish, &server, private)
}

fn stored(private: SocketAddr) -> anyhow::Result<u64> {
    let feeds: Value = serde_json::from_str(&ask(private, "GET", "/v1/feeds", "")?)?;
    let feeds = feeds["rows"].as_array().context("a list of feeds")?;
    Ok(feeds
        .iter()
        .filter_map(|feed| feed["documents"].as_u64())
        .sum())
}

/// Prints a line at each of the marks, and one at the end.
fn watch(wish: &Wish, server: &Process, private: SocketAddr) -> anyhow::Result<()> {
    let total = wish.documents as u64;
    let mut marks = [total / 10, total / 2, total].into_iter().peekable();
    let started = Instant::now();
    println!("documents   seconds   a second   resident MiB   peak MiB");
    while let Some(mark) = marks.peek().copied() {
        ensure!(started.elapsed() < PATIENCE, "the backlog did not drain");
        std::thread::sleep(Duration::from_millis(wish.look_every_ms));
        // It may not listen yet.
        let count = stored(private).unwrap_or_default();
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

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}
