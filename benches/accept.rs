//! The accept path under load: messages are verified, stored and answered.
//!
//! Starts the whole service on a fresh SQLite file, sends distinct signed notifications
//! over keep-alive connections, among them duplicates and tampered ones, and prints
//! throughput, latencies and the number of stored rows. The load generator shares the
//! machine with the service.
//!
//! `cargo bench --bench accept -- --messages 100000 --connections 64`

#![expect(
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    reason = "a benchmark plays the neighbors of the service, and prints its results"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use axum::routing::get;
use clap::Parser;
use ivesk_webhook::config::StoreUrl;
use ivesk_webhook::config::{Config, Loopback};
use ivesk_webhook::domain::{Clock, Event};
use ivesk_webhook::emulator::signer::{Signer, Unsigned};
use ivesk_webhook::service::Service;
use ivesk_webhook::sns::MessageType;
use ivesk_webhook::store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The load.
#[derive(Clone, Debug, Parser)]
struct Load {
    /// Distinct notifications
    #[arg(long, default_value_t = 40_000)]
    messages: usize,
    /// Concurrent connections
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Send one of this many messages twice
    #[arg(long, default_value_t = 20)]
    duplicate_every: usize,
    /// Tamper with one of this many messages
    #[arg(long, default_value_t = 50)]
    tampered_every: usize,
    /// Number of companies in the notifications
    #[arg(long, default_value_t = 100)]
    companies: usize,
    /// 1 is SHA-1, 2 is SHA-256; 1 takes minutes to prepare
    #[arg(long, default_value_t = 2)]
    signature_version: u8,
    /// Folder of the database; default: a temporary folder
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Ignored; passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

const TOKEN: &str = "bench-token-bench-token-bench-token-bench";
const TOPIC: &str = "arn:aws:sns:eu-west-1:007272210889:DPWebHook_onexport";

fn main() -> anyhow::Result<()> {
    let load = Load::parse();
    let service_runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let client_runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("load")
        .enable_all()
        .build()?;

    let folder = tempfile::tempdir()?;
    let store = load
        .dir
        .clone()
        .unwrap_or_else(|| folder.path().to_owned())
        .join("bench.db");
    let signer = Arc::new(new_signer()?);
    let origin = service_runtime.block_on(serve_certificate(&signer))?;
    let mut config = Config::for_loopback(Loopback {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        store: store.clone(),
        api_url: "http://127.0.0.1:9/".parse()?,
        api_key: "unused".into(),
        local_origins: vec![origin.clone()],
        companies: Vec::new(),
    });
    for account in config.accounts.values_mut() {
        account.tokens.insert(Event::OnExported, vec![TOKEN.into()]);
        // Without a key nothing is pulled, so the accept path is measured alone.
        account.api_key = None;
    }

    println!("signing {} notifications", load.messages);
    let requests = Arc::new(requests(&load, &signer, &origin)?);
    let service = service_runtime.block_on(Service::start(config, Clock::system()))?;
    let address = service.public_address();
    let run = client_runtime.block_on(send(&load, address, requests))?;
    ensure!(
        service_runtime.block_on(service.stop()),
        "the service did not stop cleanly"
    );
    let rows = service_runtime.block_on(count(&store))?;
    report(&load, run, rows)
}

fn new_signer() -> anyhow::Result<Signer> {
    let now = Clock::system().now();
    Signer::generate(
        "sns.amazonaws.com",
        now.before(Duration::from_secs(3600)),
        now.after(Duration::from_secs(86_400)),
    )
}

async fn serve_certificate(signer: &Arc<Signer>) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?);
    let pem = signer.certificate_pem().to_owned();
    let routes =
        axum::Router::new().route(&signer.certificate_path(), get(move || async move { pem }));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(origin)
}

/// Returns whole HTTP requests in the order in which they are sent.
fn requests(load: &Load, signer: &Signer, origin: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let url = format!("{origin}{}", signer.certificate_path());
    let now = Clock::system().now().to_string();
    let sign = |n: usize| {
        let unsigned = Unsigned {
            message_type: MessageType::Notification,
            message_id: format!(
                "{:08x}-0000-4000-8000-{n:012x}",
                n.wrapping_mul(0x9E37_79B9) as u32
            ),
            topic_arn: TOPIC.to_owned(),
            subject: None,
            message: format!(
                r#"{{"companyCode":"{}"}}"#,
                300_000_000 + n % load.companies
            ),
            timestamp: now.clone(),
            token: None,
            subscribe_url: None,
            unsubscribe_url: Some(format!(
                "{origin}/?Action=Unsubscribe&SubscriptionArn={TOPIC}:{n}"
            )),
            attributes: serde_json::Map::new(),
        };
        signer.sign(&unsigned, load.signature_version, &url)
    };
    let half = load.messages / 2;
    let halves = std::thread::scope(|scope| {
        let first = scope.spawn(|| (0..half).map(sign).collect::<Vec<_>>());
        let second = (half..load.messages).map(sign).collect::<Vec<_>>();
        first.join().map(|first| [first, second].concat())
    });
    let bodies = halves.map_err(|_| anyhow::anyhow!("signing failed"))?;
    let mut requests = Vec::with_capacity(bodies.len());
    for (n, body) in bodies.into_iter().enumerate() {
        let copies = if n % load.duplicate_every == 0 { 2 } else { 1 };
        let body = if n % load.tampered_every == 1 {
            body.replacen("companyCode", "companyCodf", 1)
        } else {
            body
        };
        let request = format!(
            "POST /webhooks/default/on_exported/{TOKEN} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain; charset=UTF-8\r\nx-amz-sns-message-type: Notification\r\nx-amz-sns-topic-arn: {TOPIC}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        requests.extend(std::iter::repeat_n(request.into_bytes(), copies));
    }
    Ok(requests)
}

/// Results of a run.
struct Run {
    elapsed: Duration,
    /// CPU time of the process on all cores: service and load generator.
    processor: Duration,
    latencies: Vec<Duration>,
    accepted: usize,
    refused: usize,
    other: usize,
}

async fn send(
    load: &Load,
    address: SocketAddr,
    requests: Arc<Vec<Vec<u8>>>,
) -> anyhow::Result<Run> {
    let next = Arc::new(AtomicUsize::new(0));
    let (started, processor) = (Instant::now(), processor_time());
    let mut connections = tokio::task::JoinSet::new();
    for _ in 0..load.connections {
        connections.spawn(one_connection(
            address,
            Arc::clone(&requests),
            Arc::clone(&next),
        ));
    }
    let mut run = Run {
        elapsed: Duration::ZERO,
        processor: Duration::ZERO,
        latencies: Vec::new(),
        accepted: 0,
        refused: 0,
        other: 0,
    };
    while let Some(part) = connections.join_next().await {
        for (latency, status) in part?? {
            run.latencies.push(latency);
            match status {
                200 => run.accepted += 1,
                403 => run.refused += 1,
                _ => run.other += 1,
            }
        }
    }
    run.elapsed = started.elapsed();
    run.processor = processor_time().saturating_sub(processor);
    run.latencies.sort();
    Ok(run)
}

/// Returns the CPU time of this process, on which other work of the machine has little effect.
fn processor_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        used.tv_sec.unsigned_abs(),
        u32::try_from(used.tv_nsec).unwrap_or(0),
    )
}

async fn one_connection(
    address: SocketAddr,
    requests: Arc<Vec<Vec<u8>>>,
    next: Arc<AtomicUsize>,
) -> anyhow::Result<Vec<(Duration, u16)>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut answers = Vec::new();
    let mut buffer = Vec::with_capacity(4096);
    while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
        let sent = Instant::now();
        stream.write_all(request).await?;
        let status = read_answer(&mut stream, &mut buffer).await?;
        answers.push((sent.elapsed(), status));
    }
    Ok(answers)
}

/// Reads one answer with its body; returns its status.
async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<u16> {
    buffer.clear();
    loop {
        ensure!(
            stream.read_buf(buffer).await? > 0,
            "the service closed the connection"
        );
        let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let text = std::str::from_utf8(&buffer[..head])?.to_ascii_lowercase();
        let length: usize = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(Ok(0), str::parse)?;
        if buffer.len() >= head + 4 + length {
            return text
                .get(9..12)
                .context("a status line")?
                .parse()
                .context("a status");
        }
    }
}

async fn count(store: &std::path::Path) -> anyhow::Result<usize> {
    let store = Store::open_for_reading(&StoreUrl::Sqlite(store.to_owned())).await?;
    let mut rows = 0;
    let mut after = 0;
    loop {
        let page = store.notifications(after, 1000).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        rows += page.len();
    }
    store.close().await?;
    Ok(rows)
}

fn report(load: &Load, run: Run, rows: usize) -> anyhow::Result<()> {
    let total = run.latencies.len();
    let at = |share: f64| {
        run.latencies[((total as f64 * share) as usize).min(total - 1)].as_secs_f64() * 1e3
    };
    println!(
        "{total} requests over {} connections in {:.2} s: {:.0} per second",
        load.connections,
        run.elapsed.as_secs_f64(),
        total as f64 / run.elapsed.as_secs_f64()
    );
    println!(
        "CPU time: {:.1} µs per request, load generator included",
        run.processor.as_secs_f64() * 1e6 / total as f64
    );
    println!(
        "latency ms: p50 {:.2}  p90 {:.2}  p99 {:.2}  max {:.2}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
    println!(
        "answers: 200 {}  403 {}  other {}",
        run.accepted, run.refused, run.other
    );
    println!("rows stored: {rows}");
    let tampered = (0..load.messages)
        .filter(|n| n % load.tampered_every == 1)
        .count();
    ensure!(
        rows == load.messages - tampered,
        "{} rows should be stored",
        load.messages - tampered
    );
    ensure!(
        run.other == 0,
        "{} answers were neither 200 nor 403",
        run.other
    );
    Ok(())
}
