//! Time from a notification to the stored document, and to an HTTP destination that answers at once.
//!
//! A vendor with 200 companies exports 200 documents a second, one in a notification. The clock of
//! each begins with the export; it is stored when another process can read it. `pull.min_interval` is
//! 100 ms: a company has a notification each second, which would wait for the default of one second. The emulator, the
//! receiver and this measurement share the machine with the service.
//!
//! `SNSBENCH_SKETCH` may name the ceiling of this machine (`support/ceiling.rs`): it answers as many
//! notifications at the same rate. The ratio is the time until a document is stored, less the vendor's
//! median answer time, divided by the ceiling's answer time.
//!
//! `cargo bench --bench latency`, and with `--postgres postgres://USER@HOST/postgres` on a server
//! whose user may create databases.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark plays the neighbors of the service, and prints its results"
)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use clap::Parser;
use ivesk_webhook::domain::Event;
use ivesk_webhook::emulator::{AccountSettings, DEFAULT_KEY, Emulator, EmulatorSettings, Switches};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use support::ceiling::{self, Ceiling, Mode};
use support::load::{Mix, Sns, count, percentile, requests, send};
use support::stored::{Arrivals, Moments, Watch, export};
use support::{NewStore, Process, TIMEOUT, request, with_new_store, write_json, write_settings};

mod support;

/// The measurements.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// Notifications in a second
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Companies that they are spread over; at most 500
    #[arg(long, default_value_t = 200)]
    companies: usize,
    /// Notifications in all
    #[arg(long, default_value_t = 4_000)]
    messages: usize,
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

/// Notifications before the measured ones, which warm everything up.
const WARM_UP: usize = 400;

/// Requests that tell how long the vendor takes to answer.
const ANSWERS: usize = 200;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let companies: Vec<String> = (0..arguments.companies)
        .map(|n| (300_000_000 + n).to_string())
        .collect();
    let settings = EmulatorSettings {
        switches: Switches::parse("signature_version=2,page_size=100")?,
        accounts: vec![AccountSettings {
            key: DEFAULT_KEY.to_owned(),
            companies: companies.clone(),
        }],
        ..EmulatorSettings::default()
    };
    let emulator = Emulator::start(settings, ([127, 0, 0, 1], 0).into()).await?;
    let folder = tempfile::tempdir()?;
    let server = arguments.postgres.as_deref();
    let measured = with_new_store(server, folder.path(), async |store| {
        measure(&arguments, &emulator, &companies, folder.path(), store).await
    });
    write_json(arguments.json.as_deref(), &measured.await?)
}

/// Exports documents, and prints and returns when they were stored and delivered.
async fn measure(
    arguments: &Arguments,
    emulator: &Emulator,
    companies: &[String],
    folder: &Path,
    store: &NewStore,
) -> anyhow::Result<Value> {
    let received = Arrivals::default();
    let receiver = receive(received.clone()).await?;
    let secret = folder.join("secret");
    std::fs::write(
        &secret,
        "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    )?;
    let sections = format!(
        "[store]\nurl = \"{}\"\n[sns]\nlocal_origins = [\"{}\"]\n\
         [api]\nurl = \"{}\"\nexported_path = \"path\"\n[pull]\nmin_interval = \"100ms\"\n\
         [accounts.default]\ndigitized = false\ncompanies = {companies:?}\n\
         [destinations.books]\nkind = \"http\"\nmax_concurrency = 16\nurl = \"http://{receiver}/\"\nsecret_file = {secret:?}\n",
        store.setting,
        emulator.origin(),
        emulator.api_url(),
    );
    let (public, admin) = write_settings(folder, &sections)?;
    let server = Process::start_with_key(folder, &["serve"], DEFAULT_KEY)?;
    wait_for_pulls(admin, companies.len()).await?;
    let control = emulator.control();
    let target = format!("http://{public}/webhooks/default/{}", Event::OnExported);
    control.subscribe(Event::OnExported, &target)?;
    control.idle().await;
    let answer = vendor_answers(emulator, companies).await?;

    let watching = Watch::start(&store.url).await?;
    let mut exported = Moments::new();
    let mut turns = tokio::time::interval(Duration::from_secs(1) / arguments.rate);
    let mut used = Duration::ZERO;
    for n in 0..WARM_UP + arguments.messages {
        turns.tick().await;
        if n == WARM_UP {
            used = server.processor_time()?;
        }
        let documents = export(&control, &companies[n % companies.len()])?;
        if n >= WARM_UP {
            exported.extend(documents);
        }
    }
    let used = server.processor_time()?.saturating_sub(used);
    let delivered = received.times_since(&exported).await?;
    let stored = watching.finish(&exported).await?;
    drop(server);

    let cpu = used.as_secs_f64() * 1e6 / count(arguments.messages);
    let ceiling = ceiling_answers(arguments, folder).await?;
    println!("milliseconds                          p50      p99");
    for (what, times) in [
        ("the vendor's answer", &answer),
        ("export to stored document", &stored),
        ("export to HTTP destination", &delivered),
    ] {
        let (half, most) = (percentile(times, 0.5), percentile(times, 0.99));
        println!("{what:<32} {half:>8.2} {most:>8.2}");
    }
    println!("CPU time of the service: {cpu:.0} µs for each document");
    let own = |share| percentile(&stored, share) - percentile(&answer, 0.5);
    let ratio =
        ceiling.map(|times| [0.5, 0.99].map(|share| own(share) / percentile(&times, share)));
    if let Some([half, most]) = ratio {
        println!("of the ceiling's answer          {half:>8.2} {most:>8.2}");
    }
    let row = |times: &[f64]| json!({ "p50_ms": percentile(times, 0.5), "p99_ms": percentile(times, 0.99) });
    Ok(json!({
        "vendor": row(&answer), "stored": row(&stored), "delivered": row(&delivered), "cpu_us": cpu,
        "ratio": ratio,
    }))
}

/// Returns how long the ceiling takes to answer in milliseconds, ascending, at the same rate; `None` if none
/// is named.
async fn ceiling_answers(arguments: &Arguments, folder: &Path) -> anyhow::Result<Option<Vec<f64>>> {
    let mode = Mode::of(arguments.postgres.as_deref());
    let Some((_process, address)) = arguments.ceiling.start(mode, folder)? else {
        return Ok(None);
    };
    ceiling::wait_for(address).await?;
    let mix = Mix::genuine_only(WARM_UP + arguments.messages);
    let sns = Sns::start().await?;
    let bodies = sns.sign(&mix, 2)?;
    let mut turns = tokio::time::interval(Duration::from_secs(1) / arguments.rate);
    let mut times = Vec::new();
    for request in requests(&mix, &bodies, ceiling::PATH) {
        turns.tick().await;
        times.push(send(&[address], 1, Arc::new(vec![request])).await?.at(1.0));
    }
    let mut times = times.split_off(WARM_UP.min(times.len()));
    times.sort_by(f64::total_cmp);
    Ok(Some(times))
}

/// Starts a destination that remembers when each document came.
async fn receive(received: Arrivals) -> anyhow::Result<SocketAddr> {
    async fn accept(State(received): State<Arrivals>, body: Bytes) -> StatusCode {
        let now = Instant::now();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if let Some(id) = body["data"]["document"]["id"].as_str() {
            received.add(id.to_owned(), now);
        }
        StatusCode::NO_CONTENT
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let routes = axum::Router::new()
        .route("/", post(accept))
        .with_state(received);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(address)
}

/// Waits until every company was pulled once.
async fn wait_for_pulls(admin: SocketAddr, companies: usize) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        // The server may not listen yet.
        let feeds = request(admin, "GET", "/v1/feeds?limit=500", "").unwrap_or_default();
        let feeds: Value = serde_json::from_str(&feeds).unwrap_or_default();
        let rows = feeds["rows"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let pulled = rows.iter().filter(|feed| feed["pulled_at"].is_string());
        if pulled.count() >= companies {
            return Ok(());
        }
        ensure!(started.elapsed() < TIMEOUT, "the companies were not pulled");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Returns how long the vendor takes to answer with a page, in milliseconds, ascending.
async fn vendor_answers(emulator: &Emulator, companies: &[String]) -> anyhow::Result<Vec<f64>> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut times = Vec::new();
    for company in companies.iter().cycle().take(ANSWERS) {
        let url = format!("{}/exported/{company}", emulator.api_url());
        let began = Instant::now();
        let answer = client
            .get(url)
            .header("x-api-key", DEFAULT_KEY)
            .send()
            .await?;
        answer.error_for_status()?.bytes().await?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}
