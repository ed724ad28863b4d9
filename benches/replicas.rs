//! One replica on SQLite against 1, 2 and 4 on one PostgreSQL.
//!
//! Prints for each how many signed notifications per second are answered 200 (stored and
//! synced), and the time from an export at the vendor until its document is stored.
//! Replicas, vendor and load share this process and this machine: with few processors more
//! replicas can't be faster, and the result is the cost of sharing.
//!
//! `cargo bench --bench replicas -- --postgres postgres://USER@HOST/postgres`; its user may
//! create databases, which are dropped at the end.

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

use anyhow::{Context as _, ensure};
use clap::Parser;
use ivesk_webhook::config::PostgresAddress;
use ivesk_webhook::config::{Config, Loopback, StoreUrl};
use ivesk_webhook::domain::{Clock, Company, Event, Timestamp};
use ivesk_webhook::emulator::signer::{Signer, Unsigned};
use ivesk_webhook::emulator::{
    DEFAULT_COMPANIES, DEFAULT_KEY, Emulator, EmulatorSettings, Selection, Switches,
};
use ivesk_webhook::service::{Service, open_store_for_reading};
use ivesk_webhook::sns::MessageType;
use ivesk_webhook::store::{DocumentFilter, SharedStore};

/// The load.
#[derive(Clone, Debug, Parser)]
struct Load {
    /// URL of a PostgreSQL server whose user may create databases
    #[arg(long, env = "IVESK_WEBHOOK_TEST_POSTGRES")]
    postgres: String,
    /// Notifications for each configuration
    #[arg(long, default_value_t = 6_000)]
    messages: usize,
    /// Concurrent connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Exports for each configuration
    #[arg(long, default_value_t = 200)]
    exports: usize,
    /// Ignored; passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

const TOPIC: &str = "arn:aws:sns:eu-west-1:007272210889:DPWebHook_onexport";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let load = Load::parse();
    println!(
        "{} notifications over {} connections, then {} exports; {} processors",
        load.messages,
        load.connections,
        load.exports,
        std::thread::available_parallelism()?
    );
    println!("                    accepted/s   p50 ms   p99 ms | stored after ms: p50      p99");
    for (name, replicas) in [
        ("SQLite", 1),
        ("PostgreSQL", 1),
        ("PostgreSQL", 2),
        ("PostgreSQL", 4),
    ] {
        let folder = tempfile::tempdir()?;
        let database = format!("ivesk_bench_{}_{replicas}", std::process::id());
        let url = if name == "SQLite" {
            StoreUrl::Sqlite(folder.path().join("bench.db"))
        } else {
            sql(&load.postgres, &format!("CREATE DATABASE {database}")).await?;
            let server = PostgresAddress::parse(&load.postgres).map_err(anyhow::Error::msg)?;
            StoreUrl::Postgres(server.with_database(&database))
        };
        let outcome = measure(&load, &url, replicas).await;
        if name != "SQLite" {
            sql(
                &load.postgres,
                &format!("DROP DATABASE {database} WITH (FORCE)"),
            )
            .await?;
        }
        let (accepting, storing) = outcome?;
        let rate = load.messages as f64 / accepting.elapsed.as_secs_f64();
        println!(
            "{replicas} on {name:<12} {rate:>14.0} {:>8.1} {:>8.1} | {:>20.0} {:>8.0}",
            accepting.at(0.5),
            accepting.at(0.99),
            storing.at(0.5),
            storing.at(0.99)
        );
    }
    Ok(())
}

async fn sql(url: &str, statement: &str) -> anyhow::Result<()> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client.batch_execute(statement).await?)
}

/// Latencies of equal steps, sorted.
struct Times {
    elapsed: Duration,
    ms: Vec<f64>,
}

impl Times {
    fn new(elapsed: Duration, mut ms: Vec<f64>) -> Self {
        ms.sort_by(f64::total_cmp);
        Self { elapsed, ms }
    }

    /// Returns the latency that `share` of the steps do not exceed.
    fn at(&self, share: f64) -> f64 {
        let index = ((self.ms.len() as f64 * share) as usize).min(self.ms.len() - 1);
        self.ms[index]
    }
}

async fn measure(load: &Load, url: &StoreUrl, replicas: usize) -> anyhow::Result<(Times, Times)> {
    let now = Clock::system().now();
    let hour = Duration::from_secs(3600);
    let signer = Arc::new(Signer::generate(
        "sns.amazonaws.com",
        now.before(hour),
        now.after(24 * hour),
    )?);
    let settings = EmulatorSettings {
        switches: Switches::parse("signature_version=2,page_size=100")?,
        signer: Some(Arc::clone(&signer)),
        ..EmulatorSettings::default()
    };
    let emulator = Emulator::start(settings, ([127, 0, 0, 1], 0).into()).await?;
    let mut services = Vec::new();
    for _ in 0..replicas {
        services.push(Service::start(config(&emulator, url)?, Clock::system()).await?);
    }
    let targets: Vec<SocketAddr> = services.iter().map(Service::public_address).collect();
    let accepting = accept(
        load,
        &emulator.control().certificate_url(),
        &signer,
        &targets,
    )
    .await?;
    let storing = store(load, &emulator, &services, &targets).await?;
    for service in services {
        ensure!(service.stop().await, "a replica did not stop cleanly");
    }
    Ok((accepting, storing))
}

fn config(emulator: &Emulator, url: &StoreUrl) -> anyhow::Result<Config> {
    let mut config = Config::for_loopback(Loopback {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        store: PathBuf::from("unused.db"),
        api_url: emulator.api_url().parse()?,
        api_key: DEFAULT_KEY.into(),
        local_origins: vec![emulator.origin()],
        companies: DEFAULT_COMPANIES
            .iter()
            .map(|code| Company::parse(code))
            .collect::<Result<_, _>>()?,
    });
    config.store.url = url.clone();
    Ok(config)
}

/// Sends signed notifications over connections that are spread over the replicas.
async fn accept(
    load: &Load,
    certificate_url: &str,
    signer: &Signer,
    targets: &[SocketAddr],
) -> anyhow::Result<Times> {
    let now = Clock::system().now().to_string();
    let bodies: Vec<String> = (0..load.messages)
        .map(|n| {
            let unsigned = Unsigned {
                message_type: MessageType::Notification,
                message_id: format!("{n:08x}-0000-4000-8000-{n:012x}"),
                topic_arn: TOPIC.to_owned(),
                subject: None,
                message: format!(r#"{{"companyCode":"{}"}}"#, 300_000_000 + n % 100),
                timestamp: now.clone(),
                token: None,
                subscribe_url: None,
                unsubscribe_url: None,
                attributes: serde_json::Map::new(),
            };
            signer.sign(&unsigned, 2, certificate_url)
        })
        .collect();
    let (bodies, next) = (Arc::new(bodies), Arc::new(AtomicUsize::new(0)));
    let started = Instant::now();
    let mut connections = tokio::task::JoinSet::new();
    for connection in 0..load.connections {
        let target = targets[connection % targets.len()];
        let (bodies, next) = (Arc::clone(&bodies), Arc::clone(&next));
        connections.spawn(async move {
            let client = reqwest::Client::builder().no_proxy().build()?;
            let url = format!("http://{target}/webhooks/default/on_exported");
            let mut ms = Vec::new();
            while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                let sent = Instant::now();
                let request = client
                    .post(&url)
                    .header("content-type", "text/plain; charset=UTF-8")
                    .header("x-amz-sns-message-type", "Notification")
                    .body(body.clone());
                let status = request.send().await?.status();
                ensure!(status == 200, "a notification was answered {status}");
                ms.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            Ok(ms)
        });
    }
    let mut ms = Vec::with_capacity(load.messages);
    while let Some(part) = connections.join_next().await {
        ms.extend(part??);
    }
    Ok(Times::new(started.elapsed(), ms))
}

/// Exports documents one after the other; returns how long after its `exportedat` each was
/// stored.
async fn store(
    load: &Load,
    emulator: &Emulator,
    services: &[Service],
    targets: &[SocketAddr],
) -> anyhow::Result<Times> {
    let control = emulator.control();
    for target in targets.iter().take(1) {
        let target = format!("http://{target}/webhooks/default/{}", Event::OnExported);
        control.subscribe(Event::OnExported, &target)?;
    }
    control.idle().await;
    let reader = open_store_for_reading(&services[0].app().config).await?;
    let before = documents(&reader, 0).await?.len();
    let started = Instant::now();
    for n in 0..load.exports {
        let company = DEFAULT_COMPANIES[n % DEFAULT_COMPANIES.len()];
        control.export(company, Selection::Next(1))?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let stored = loop {
        let rows = documents(&reader, 0).await?;
        if rows.len() >= before + load.exports {
            break rows;
        }
        ensure!(
            started.elapsed() < Duration::from_secs(120),
            "exports were not stored"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    reader.close().await?;
    let ms = stored[before..]
        .iter()
        .map(|(version, stored_at)| {
            let exported = Timestamp::parse(version).context("exportedat is a moment")?;
            Ok((stored_at.as_millis() - exported.as_millis()).max(0) as f64)
        })
        .collect::<anyhow::Result<Vec<f64>>>()?;
    Ok(Times::new(started.elapsed(), ms))
}

async fn documents(store: &SharedStore, after: i64) -> anyhow::Result<Vec<(String, Timestamp)>> {
    let filter = DocumentFilter {
        after: Some(after),
        limit: 100_000,
        ..DocumentFilter::default()
    };
    let rows = store.documents(filter).await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.version, row.stored_at))
        .collect())
}
