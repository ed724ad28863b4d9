//! `serve`

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::signal::unix::{SignalKind, signal};

use url::Url;

use super::{Exit, Failure, Globals, tunnel};
use crate::config::{Config, ConfirmMode, StoreUrl};
use crate::delivery::worker::filter;
use crate::domain::{Clock, Queue, counted};
use crate::pull::blocked_queues;
use crate::service::{App, Service, StartError};
use crate::store::StoreError;
use crate::tunnel::Kind;

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
SIGTERM and SIGINT stop it in order: /readyz fails, nothing new is taken, what is under way is
finished (`public.drain_timeout`). A second signal ends it at once; nothing acknowledged is lost.")]
pub struct Args {
    /// Take the public address from a tunnel that runs on this machine; subscribe where that can be done, and
    /// take the subscription back at the end. For trying it out
    #[arg(long, value_enum, value_name = "TUNNEL")]
    tunnel: Option<Kind>,
    /// Where the tunnel's local API answers, if not at its usual place
    #[arg(long, value_name = "URL", requires = "tunnel")]
    tunnel_api: Option<Url>,
}

/// Runs `serve`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = match args.tunnel {
        Some(kind) => tunnel::settings(kind, args.tunnel_api.as_ref(), globals).await?,
        None => Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?,
    };
    let traces = super::start_logging_and_traces(&config.log)?;
    // Before anything runs, so that no signal finds nobody listening.
    let mut signals = Signals::listen()?;

    let service = Service::start(config, Clock::system())
        .await
        .map_err(explain)?;
    let mut lines = introduction(&service);
    lines.extend(held(service.app()).await);
    print_lines(&lines);

    let app = Arc::clone(service.app());
    let stop = async {
        if args.tunnel.is_none() {
            return signals.first().await;
        }
        let subscribed = tunnel::subscribe(&app).await;
        signals.first().await;
        subscribed.take_back(&app).await;
    };
    let stopped_well = service.run_until(stop).await;
    if let Some(traces) = traces {
        traces.finish().await;
    }
    Ok(if stopped_well { Exit::Done } else { Exit::No })
}

fn explain(error: StartError) -> Failure {
    match error {
        StartError::Listen(_)
        | StartError::Api(_)
        | StartError::Watch(_)
        | StartError::Destination(_) => Failure::usage(error),
        StartError::Store(StoreError::Unreachable { .. }) => Failure::unreachable(error),
        StartError::Store(StoreError::NotAccessible { .. }) => Failure::usage(anyhow!(
            "{error}. `ivesk-webhook doctor`, run as the same user, says what to look at"
        )),
        StartError::Store(_) | StartError::Client(_) | StartError::Random(_) => {
            Failure::from(error)
        }
    }
}

/// Signals that come so soon after the first one repeat it.
const ONE_WISH: Duration = Duration::from_millis(500);

/// The two signals that ask a process to stop.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self, anyhow::Error> {
        let listen = |kind| signal(kind).context("signals can't be listened to");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Returns at the first signal; from then on another one ends the process at once.
    async fn first(&mut self) {
        self.next().await;
        // Streams of their own: the ones here end with the future that holds them.
        if let Ok(mut again) = Self::listen() {
            tokio::spawn(async move {
                // Some senders, `timeout` among them, signal the process and its group:
                // that is one wish, not two.
                let repeats = async {
                    loop {
                        again.next().await
                    }
                };
                let _ = tokio::time::timeout(ONE_WISH, repeats).await;
                again.next().await;
                eprintln!("stopped at once by a second signal");
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the second signal asks for exactly that"
                )]
                std::process::exit(1);
            });
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What a person wants to know at start, a line each.
fn introduction(service: &Service) -> Vec<String> {
    let config = &service.app().config;
    let mut lines = vec![format!(
        "ivesk-webhook {} receives at {} and is administered at http://{}",
        env!("CARGO_PKG_VERSION"),
        service.public_address(),
        service.admin_address(),
    )];
    lines.push(format!(
        "  register    {}webhooks/{{account}}/{{event}}/… (`ivesk-webhook subscribe --print` shows it whole)",
        config.public.url
    ));
    lines.push(format!("  trusts      {}", trusted(config)));
    lines.push(match &config.store.url {
        StoreUrl::Sqlite(path) => format!("  stores      {}", path.display()),
        StoreUrl::Postgres(address) => format!("  shares      {address}"),
    });
    if let Some(folder) = &config.upload.watch {
        lines.push(format!(
            "  uploads     what is put into {}",
            folder.display()
        ));
    }
    for (name, destination) in &config.destinations {
        lines.push(format!(
            "  delivers    {} to {name}",
            match destination.queue {
                Queue::Exported => "exported documents",
                Queue::Digitized => "digitized documents",
            }
        ));
    }
    lines.extend(missing(config));
    if !config.sns.local_origins.is_empty() {
        lines.push(format!(
            "  WARNING     `sns.local_origins` trusts messages signed at {}: whoever controls these can \
             forge any message. For tests alone; remove it before Įvesk.lt is subscribed",
            config.sns.local_origins.join(", ")
        ));
    }
    lines
}

fn trusted(config: &Config) -> String {
    let topics: Vec<String> = config
        .sns
        .topics
        .iter()
        .map(|topic| {
            format!(
                "topics {}* of AWS account {} in {}",
                topic.name_prefix, topic.account, topic.region
            )
        })
        .collect();
    let confirm = match config.sns.confirm {
        ConfirmMode::Auto => "subscriptions are confirmed at once",
        ConfirmMode::Ask => "subscriptions wait for `subscriptions approve`",
    };
    format!("{}; {confirm}", topics.join(", "))
}

fn missing(config: &Config) -> Vec<String> {
    blocked_queues(config)
        .iter()
        .map(|row| {
            let (account, queue) = (&row.account, row.queue);
            match row.missing {
                "api_key" => format!(
                    "  missing     no API key for account {account}: hints for its {queue} queue are kept, nothing is pulled until \
                     IVESK_WEBHOOK_API_KEY or `accounts.{account}.api_key_file` is set"
                ),
                setting => format!(
                    "  blocked     {setting}: the {queue} queue of account {account} is not pulled until `api.{setting}` is set; hints are \
                     kept. `ivesk-webhook doctor --company CODE` finds it"
                ),
            }
        })
        .chain(reports_wait(config))
        .collect()
}

fn reports_wait(config: &Config) -> Option<String> {
    let waits = !config.destinations.is_empty() && config.api.import_error_path.is_none();
    waits.then(|| {
        "  blocked     import_error_path: what a destination rejects is not told to the accountant until \
         `api.import_error_path` is set; it is kept"
            .to_owned()
    })
}

/// What waits for a person at each destination.
async fn held(app: &App) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, destination) in &app.config.destinations {
        // What can't be read is told by whoever needs it.
        let held = app
            .store
            .held_feeds(name.clone(), filter(destination))
            .await;
        let held = held.unwrap_or_default();
        let documents: u64 = held.iter().map(|feed| feed.documents).sum();
        if documents > 0 {
            lines.push(format!(
                "  held        {} of {} until `ivesk-webhook destinations start {name}` says from where to begin",
                counted(documents, "document"),
                counted(held.len() as u64, "feed")
            ));
        }
    }
    lines
}

/// Prints without minding whether anybody reads.
fn print_lines(lines: &[String]) {
    let mut stdout = std::io::stdout().lock();
    for line in lines {
        if writeln!(stdout, "{line}").is_err() {
            return;
        }
    }
    let _ = stdout.flush();
}
