//! One replica on SQLite against 1, 2 and 4 on one PostgreSQL.
//!
//! Prints for each how many signed notifications per second are answered 200 (stored and
//! synced), and the time from an export at the vendor until its document is stored, where
//! a document is exported every 20 ms, of 50 companies in turn. Each has one a second, so `pull.min_interval` is 100 ms
//! instead of its default of one second.
//! Replicas, vendor and load share this process and this machine: with few processors more
//! replicas can't be faster, and the result is the cost of sharing.
//!
//! `SNSBENCH_SKETCH` may name the ceiling of this machine (`support/ceiling.rs`): its rate is
//! compared, measured after the single replica on SQLite and on PostgreSQL.
//!
//! `cargo bench --bench replicas -- --postgres postgres://USER@HOST/postgres`; its user may
//! create databases, which are dropped at the end.

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
use clap::Parser;
use ivesk_webhook::config::{Config, Loopback, StoreUrl};
use ivesk_webhook::domain::{Clock, Company, Event};
use ivesk_webhook::emulator::{AccountSettings, DEFAULT_KEY, Emulator, EmulatorSettings, Switches};
use ivesk_webhook::service::Service;
use ivesk_webhook::store::SharedStore;
use serde_json::json;

use support::ceiling::{self, Ceiling, Mode};
use support::load::{self, Answers, Sns, percentile, requests, send};
use support::stored::{Moments, Watch, export};
use support::{TIMEOUT, stored_messages, with_new_store, write_json};

mod support;

/// The load.
#[derive(Clone, Debug, Parser)]
struct Load {
    /// URL of a PostgreSQL server whose user may create databases
    #[arg(long, env = "IVESK_WEBHOOK_TEST_POSTGRES")]
    postgres: String,
    #[command(flatten)]
    mix: load::Mix,
    /// Concurrent connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    #[command(flatten)]
    ceiling: Ceiling,
    /// Exports for each configuration
    #[arg(long, default_value_t = 200)]
    exports: usize,
    /// Write the results to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Ignored; passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// Companies whose documents are exported.
const COMPANIES: usize = 50;

/// Returns the code of the `n`th company, which the load's notifications don't name.
fn company(n: usize) -> String {
    (400_000_000 + n).to_string()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let load = Load::parse();
    println!(
        "{} notifications over {} connections, then {} exports; {} processors",
        load.mix.messages,
        load.connections,
        load.exports,
        std::thread::available_parallelism()?
    );
    let sns = Sns::start().await?;
    let bodies = sns.sign(&load.mix, 2)?;
    let mut rows = Vec::new();
    println!(
        "                    accepted/s   p50 ms   p99 ms | stored after ms: p50      p99 | of the ceiling"
    );
    let mut ceiling = None;
    for (name, replicas) in [
        ("SQLite", 1),
        ("PostgreSQL", 1),
        ("PostgreSQL", 2),
        ("PostgreSQL", 4),
    ] {
        let folder = tempfile::tempdir()?;
        let server = (name == "PostgreSQL").then_some(load.postgres.as_str());
        let measured = with_new_store(server, folder.path(), async |store| {
            measure(&load, &sns, &bodies, &store.url, replicas).await
        });
        let (accepting, storing) = measured.await?;
        let rate = accepting.rate();
        if replicas == 1 {
            ceiling = ceiling_rate(&load, &bodies, server, folder.path()).await?;
        }
        let ratio = ceiling.map(|ceiling| rate / ceiling);
        let accepted = [0.5, 0.99].map(|share| accepting.at(share));
        let stored = [0.5, 0.99].map(|share| percentile(&storing, share));
        println!(
            "{replicas} on {name:<12} {rate:>14.0} {:>8.1} {:>8.1} | {:>20.0} {:>8.0} | {}",
            accepted[0],
            accepted[1],
            stored[0],
            stored[1],
            ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
        );
        rows.push(json!({
            "store": name, "replicas": replicas, "per_second": rate, "accepted_ms": accepted, "stored_ms": stored,
            "ratio": ratio,
        }));
    }
    write_json(load.json.as_deref(), &json!({ "rows": rows }))
}

/// Returns how many of the same notifications the ceiling answers in a second, if one is named.
async fn ceiling_rate(
    load: &Load,
    bodies: &[String],
    server: Option<&str>,
    folder: &Path,
) -> anyhow::Result<Option<f64>> {
    let Some((_process, address)) = load.ceiling.start(Mode::of(server), folder)? else {
        return Ok(None);
    };
    ceiling::wait_for(address).await?;
    let requests = Arc::new(requests(&load.mix, bodies, ceiling::PATH));
    let answers = send(&[address], load.connections, requests).await?;
    ensure!(answers.other == 0, "some were neither stored nor refused");
    Ok(Some(answers.rate()))
}

/// Returns the answers to the notifications, and the sorted times in milliseconds until exported
/// documents were stored.
async fn measure(
    load: &Load,
    sns: &Sns,
    bodies: &[String],
    url: &StoreUrl,
    replicas: usize,
) -> anyhow::Result<(Answers, Vec<f64>)> {
    let settings = EmulatorSettings {
        switches: Switches::parse("signature_version=2,page_size=100")?,
        accounts: vec![AccountSettings {
            key: DEFAULT_KEY.to_owned(),
            companies: (0..COMPANIES).map(company).collect(),
        }],
        ..EmulatorSettings::default()
    };
    let emulator = Emulator::start(settings, ([127, 0, 0, 1], 0).into()).await?;
    let mut services = Vec::new();
    for _ in 0..replicas {
        let config = config(&emulator, sns, url)?;
        services.push(Service::start(config, Clock::system()).await?);
    }
    let targets: Vec<SocketAddr> = services.iter().map(Service::public_address).collect();
    let path = format!("/webhooks/default/{}", Event::OnExported);
    // Before the load: its tampered messages use up the fetches of certificates, and the one of a new subscription would
    // be fetched a minute later.
    let control = emulator.control();
    control.subscribe(Event::OnExported, &format!("http://{}{path}", targets[0]))?;
    control.idle().await;
    wait_for_pulls(&services[0].app().store).await?;
    let requests = Arc::new(requests(&load.mix, bodies, &path));
    let accepting = send(&targets, load.connections, requests).await?;
    ensure!(accepting.other == 0, "some were neither stored nor refused");
    let stored = stored_messages(&services[0].app().store).await?;
    // One more is the confirmation of the subscription.
    ensure!(
        stored == load.mix.genuine() + 1,
        "{stored} messages are stored"
    );
    let storing = store(load, &emulator, url).await?;
    for service in services {
        ensure!(service.stop().await, "a replica did not stop cleanly");
    }
    Ok((accepting, storing))
}

fn config(emulator: &Emulator, sns: &Sns, url: &StoreUrl) -> anyhow::Result<Config> {
    let mut config = Config::for_loopback(Loopback {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        store: PathBuf::from("unused.db"),
        api_url: emulator.api_url().parse()?,
        api_key: DEFAULT_KEY.into(),
        local_origins: vec![emulator.origin(), sns.origin.clone()],
        companies: (0..COMPANIES)
            .map(|n| Company::parse(&company(n)))
            .collect::<Result<_, _>>()?,
    });
    config.store.url = url.clone();
    config.pull.min_interval = Duration::from_millis(100);
    for account in config.accounts.values_mut() {
        account.digitized = false;
    }
    Ok(config)
}

/// Waits until every company was pulled once.
async fn wait_for_pulls(store: &SharedStore) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let feeds = store.feeds().await?;
        let pulled = feeds.iter().filter(|feed| feed.pulled_at.is_some());
        if pulled.count() >= COMPANIES {
            return Ok(());
        }
        ensure!(started.elapsed() < TIMEOUT, "the companies were not pulled");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Exports a document every 20 ms, one of each company before those that are measured; returns the sorted times in
/// milliseconds until each was stored.
async fn store(load: &Load, emulator: &Emulator, store: &StoreUrl) -> anyhow::Result<Vec<f64>> {
    let watching = Watch::start(store).await?;
    let control = emulator.control();
    let mut exported = Moments::new();
    let mut turns = tokio::time::interval(Duration::from_millis(20));
    for n in 0..COMPANIES + load.exports {
        turns.tick().await;
        let documents = export(&control, &company(n % COMPANIES))?;
        if n >= COMPANIES {
            exported.extend(documents);
        }
    }
    watching.finish(&exported).await
}
