//! `serve`

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use url::Url;

use super::globals::Globals;
use super::log_lines::LogLines;
use super::logging::{FINISH_TIMEOUT, ServiceLog};
use super::open::reachable_address;
use super::outcome::{Exit, Failure};
use super::supervisor::Supervisor;
use super::tunnel;
use crate::app::App;
use crate::config::{Config, ConfirmMode, StoreUrl};
use crate::domain::{Clock, Queue, counted};
use crate::heaps;
use crate::pull::blocked_queues;
use crate::service::{Service, StartError};
use crate::store::StoreError;
use crate::tunnel::Kind;

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
SIGTERM and SIGINT stop it gracefully: /readyz fails, no new messages are accepted, and running work is \
finished within `public.drain_timeout`. A second signal ends it at once; no accepted message is lost. SIGHUP, \
SIGUSR1 and SIGUSR2 change nothing.")]
pub struct Args {
    /// Use the public address of a tunnel on this machine, for a first try. Subscribes if
    /// `api.subscribe_path` is set, and unsubscribes at the end
    #[arg(long, value_enum, value_name = "TUNNEL")]
    tunnel: Option<Kind>,
    /// Address of the tunnel's local API, if it is not the usual one
    #[arg(long, value_name = "URL", requires = "tunnel")]
    tunnel_api: Option<Url>,
}

/// Runs `serve`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = match args.tunnel {
        Some(kind) => tunnel::settings(kind, args.tunnel_api.as_ref(), globals).await?,
        None => Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?,
    };
    let log = ServiceLog::start(&config.log, config.egress.proxy.as_ref())?;
    // Installed before anything runs, so that no signal is missed.
    let mut signals = Signals::listen(log.lines().clone())?;
    ignore_other_signals()?;
    raise_file_limit(config.public.max_connections);

    let service = Service::start(config, Clock::system())
        .await
        .map_err(explain)?;
    service.app().metrics.register(|registry| {
        let help = "Log lines that could not be written in time";
        registry.register("log_lines_lost", help, log.lines().lost());
    });
    let mut lines = summary(&service);
    lines.extend(held(service.app()).await);
    print_lines(&lines);
    let supervisor = Supervisor::of(&globals.environment);
    heaps::release_freed();
    supervisor.ready();

    let app = Arc::clone(service.app());
    let stop = async {
        if args.tunnel.is_none() {
            signals.first().await;
            return supervisor.stopping();
        }
        let subscribed = tunnel::subscribe(&app).await;
        signals.first().await;
        supervisor.stopping();
        subscribed.unsubscribe(&app).await;
    };
    let stopped_cleanly = service.run_until(stop).await;
    log.finish().await;
    Ok(if stopped_cleanly {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn explain(error: StartError) -> Failure {
    match error {
        StartError::Listen(_)
        | StartError::Socket(_)
        | StartError::Api(_)
        | StartError::Watch(_)
        | StartError::Destination(_) => Failure::usage(error),
        StartError::Store(StoreError::InUse { .. }) => Failure::usage(error),
        StartError::Store(StoreError::Unreachable { .. }) => Failure::unreachable(error),
        StartError::Store(StoreError::NotAccessible { .. }) => Failure::usage(anyhow!(
            "{error}. `ivesk-webhook doctor`, run as the same user, finds the cause"
        )),
        StartError::Store(_) | StartError::Client(_) | StartError::Random(_) => {
            Failure::from(error)
        }
    }
}

/// Time after the first signal in which further ones count as repetitions.
const REPETITION: Duration = Duration::from_millis(500);

/// The signals that stop the service.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    log: LogLines,
}

impl Signals {
    fn listen(log: LogLines) -> Result<Self, anyhow::Error> {
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            log,
        })
    }

    /// Waits for the first signal. From then on another one ends the process at once.
    async fn first(&mut self) {
        self.next().await;
        // Separate streams, since `self` is dropped with the caller's future.
        if let Ok(mut again) = Self::listen(self.log.clone()) {
            tokio::spawn(async move {
                // `timeout` and others signal both the process and its group: that is one
                // request, not two.
                let repeats = async {
                    loop {
                        again.next().await
                    }
                };
                let _ = tokio::time::timeout(REPETITION, repeats).await;
                again.next().await;
                warn!("stopped at once by a second signal");
                again.log.finish(FINISH_TIMEOUT);
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

fn listen(kind: SignalKind) -> Result<tokio::signal::unix::Signal, anyhow::Error> {
    signal(kind).context("failed to install a signal handler")
}

/// Logs the signals that would end the process by default: a closed terminal or a tool that
/// rotates logs sends them.
fn ignore_other_signals() -> Result<(), anyhow::Error> {
    for (kind, name) in [
        (SignalKind::hangup(), "SIGHUP"),
        (SignalKind::user_defined1(), "SIGUSR1"),
        (SignalKind::user_defined2(), "SIGUSR2"),
    ] {
        let mut signals = listen(kind)?;
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                info!(
                    "received {name}, which changes nothing: settings are read at the start, and the log goes to \
                     standard error. SIGTERM stops the service"
                );
            }
        });
    }
    Ok(())
}

/// Most files that the process may have open: connections, the store, and requests of its own.
const MAX_FILES: u64 = 65_536;

/// Files besides the connections of the public listener.
const OTHER_FILES: u64 = 512;

/// Raises the soft limit of open files, which is often lower than the number of connections.
fn raise_file_limit(max_connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    // No limit is the highest one.
    let hard = limit.maximum.unwrap_or(u64::MAX).min(MAX_FILES);
    if limit.current.is_some_and(|soft| soft < hard) {
        let raised = Rlimit {
            current: Some(hard),
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            warn!("failed to raise the limit of open files to {hard}: {error}");
        }
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = max_connections as u64 + OTHER_FILES;
    if files < needed {
        warn!(
            "this process may open only {files} files, and {max_connections} connections need {needed}: raise the \
             hard limit (`LimitNOFILE` in systemd, `ulimit -Hn`, `--ulimit nofile` in Docker)"
        );
    }
}

/// Returns the lines that are printed at start.
fn summary(service: &Service) -> Vec<String> {
    let config = &service.app().config;
    let mut lines = vec![format!(
        "ivesk-webhook {} receives at {}; status page and admin API at http://{}",
        env!("CARGO_PKG_VERSION"),
        service.public_address(),
        reachable_address(service.admin_address()),
    )];
    lines.push(
        "  open        `ivesk-webhook open` prints a link to the status page for your browser"
            .to_owned(),
    );
    lines.push(format!(
        "  webhooks    {}webhooks/{{account}}/{{event}}/… (`ivesk-webhook subscriptions create --print` prints them in full)",
        config.public.url
    ));
    lines.push(format!("  trusts      {}", trusted_topics(config)));
    lines.push(match &config.store.url {
        StoreUrl::Sqlite(path) => format!("  store       {}", path.display()),
        StoreUrl::Postgres(address) => format!("  store       {address}"),
    });
    if let Some(folder) = &config.upload.watch {
        lines.push(format!("  uploads     files from {}", folder.display()));
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
    lines.extend(missing_settings(config));
    if !config.sns.local_origins.is_empty() {
        lines.push(format!(
            "  WARNING     `sns.local_origins` trusts messages signed at {}: whoever controls these addresses can \
             forge any message. Use it for tests only; remove it before you subscribe at Įvesk.lt",
            config.sns.local_origins.join(", ")
        ));
    }
    lines
}

fn trusted_topics(config: &Config) -> String {
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
        ConfirmMode::Auto => "confirms subscriptions automatically",
        ConfirmMode::Ask => "confirms subscriptions after `ivesk-webhook subscriptions approve`",
    };
    format!("{}; {confirm}", topics.join(", "))
}

/// Returns a line for each setting without which something is not pulled or not sent.
fn missing_settings(config: &Config) -> Vec<String> {
    let mut lines: Vec<String> = blocked_queues(config)
        .iter()
        .map(|row| {
            let (account, queue) = (&row.account, row.queue);
            match row.missing {
                "api_key" => format!(
                    "  missing     API key of account {account}: notifications are stored, but nothing is pulled. Set \
                     IVESK_WEBHOOK_API_KEY or `accounts.{account}.api_key_file`"
                ),
                setting => format!(
                    "  missing     `api.{setting}`: notifications are stored, but the {queue} queue of account {account} is \
                     not pulled. `ivesk-webhook doctor --company CODE` finds the setting"
                ),
            }
        })
        .chain(import_errors_wait(config))
        .collect();
    // An account without a key has a line for each queue.
    lines.dedup();
    lines
}

fn import_errors_wait(config: &Config) -> Option<String> {
    let wait = !config.destinations.is_empty() && config.api.import_error_path.is_none();
    wait.then(|| {
        "  missing     `api.import_error_path`: import errors are stored, but not sent to the accountant".to_owned()
    })
}

/// Returns a line for each destination that holds history.
async fn held(app: &App) -> Vec<String> {
    // A store that can't be read is reported by the workers.
    let rows = app.store.destinations().await.unwrap_or_default();
    rows.iter()
        .filter(|row| row.held > 0 && app.config.destinations.contains_key(&row.name))
        .map(|row| {
            let name = &row.name;
            format!(
                "  held        {} from before `{name}` was known; `ivesk-webhook destinations start {name}` delivers them",
                counted(row.held, "document"),
            )
        })
        .collect()
}

/// Prints the lines. A closed standard output does not stop the service.
fn print_lines(lines: &[String]) {
    let mut stdout = std::io::stdout().lock();
    for line in lines {
        if writeln!(stdout, "{line}").is_err() {
            return;
        }
    }
    let _ = stdout.flush();
}
