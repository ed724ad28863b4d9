//! One file for each subcommand: wiring and printing only.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use comfy_table::{Table, presets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::config::{DEFAULT_FILE, LogConfig, LogFormat, VARIABLE_PREFIX};
use crate::otlp::Traces;

pub mod completions;
pub mod config;
pub mod deliveries;
pub mod demo;
pub mod doctor;
pub mod documents;
pub mod emulator;
pub mod import_errors;
pub mod init;
pub mod man;
pub mod notifications;
pub mod pull;
pub mod quarantine;
pub mod replay;
mod resign;
mod saved;
pub mod serve;
pub mod server;
pub mod store;
pub mod subscribe;
pub mod subscriptions;
pub mod tokens;
mod tunnel;
pub mod upload;
pub mod uploads;
pub mod verify;

/// Receives Įvesk.lt webhooks, proves that they are genuine, and pulls every document exactly once.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLES_AND_EXIT_CODES)]
pub struct Cli {
    /// The settings file
    #[arg(
        long,
        short = 'c',
        global = true,
        value_name = "FILE",
        env = "IVESK_WEBHOOK_CONFIG",
        default_value = DEFAULT_FILE
    )]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES_AND_EXIT_CODES: &str = "\
Examples:
  ivesk-webhook demo --once                                   the whole loop on this machine
  ivesk-webhook init --public-url https://hooks.example.lt    a settings file with fresh tokens
  ivesk-webhook config check                                  every mistake in it, before starting
  ivesk-webhook doctor                                        what is wrong, and how to fix it
  ivesk-webhook serve                                         receive and pull until stopped
  ivesk-webhook subscribe --print                             what to give to Įvesk.lt
  ivesk-webhook upload invoice.pdf scans/                     give files to Įvesk.lt
  ivesk-webhook documents list                                what has come
  ivesk-webhook documents trace SF-00017                      what became of one document
  ivesk-webhook destinations list                                how far each destination has come

Results go to standard output, logs to standard error.
Exit codes: 0 done, 1 the answer is no, 2 wrong use or bad configuration, 3 a service could not be reached";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a shell's completions to standard output
    Completions(completions::Args),
    /// Show the settings in force, or check them
    Config(config::Args),
    /// Show the whole loop on this machine, with an emulated Įvesk.lt
    Demo(demo::Args),
    /// Find out what keeps this installation from working, and how to fix it
    Doctor(doctor::Args),
    /// List, show or export stored documents
    Documents(documents::Args),
    /// Run an emulated Įvesk.lt, SNS and S3
    Emulator(emulator::Args),
    /// See, start, pause or retry delivering documents
    Deliveries(deliveries::Args),
    /// Write a commented settings file with fresh tokens
    Init(init::Args),
    /// Write man pages to a folder
    Man(man::Args),
    /// List stored notifications, or export them to files
    Notifications(notifications::Args),
    /// Pull documents now, once (for cron), or read an old stretch again
    Pull(pull::Args),
    /// List, export or retry refused messages
    Quarantine(quarantine::Args),
    /// Send saved messages to a webhook
    Replay(replay::Args),
    /// List or retry import errors that the accountant is told of
    ImportErrors(import_errors::Args),
    /// Receive webhooks and pull documents until stopped
    Serve(serve::Args),
    /// Back up the store
    Store(store::Args),
    /// Ask Įvesk.lt for a subscription, or print how to
    Subscribe(subscribe::Args),
    /// List, approve or restore subscriptions
    Subscriptions(subscriptions::Args),
    /// Make, list or withdraw tokens of the admin listener
    Tokens(tokens::Args),
    /// Give files to Įvesk.lt, each content once; or watch a folder
    Upload(upload::Args),
    /// List uploads, and which documents were made of them
    Uploads(uploads::Args),
    /// Judge saved messages, offline if you like
    Verify(verify::Args),
}

/// What every subcommand may need of its surroundings, passed in so that tests can differ.
pub struct Globals {
    /// The settings file, which need not exist.
    pub config: PathBuf,
    /// The process environment.
    pub environment: BTreeMap<String, String>,
}

impl fmt::Debug for Globals {
    /// Without the environment, which holds secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Globals")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// How a subcommand ended well enough to say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: the answer is no.
    No,
    /// 2: wrong use or bad configuration.
    Usage,
    /// 3: a service could not be reached.
    Unreachable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::No => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
        })
    }
}

/// A subcommand that could not do its work: what to print, and the exit code.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: anyhow::Error,
}

impl Failure {
    /// Wrong use or bad configuration.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit: Exit::Usage,
            error: error.into(),
        }
    }

    /// A service could not be reached.
    pub fn unreachable(error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit: Exit::Unreachable,
            error: error.into(),
        }
    }
}

impl Failure {
    /// What to print.
    fn words(&self) -> String {
        format!("{:#}", self.error)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            exit: Exit::No,
            error: error.into(),
        }
    }
}

/// Runs the subcommand and gives the process's exit code.
pub fn run(cli: Cli) -> ExitCode {
    end_quietly_when_nobody_reads();
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment, for `config`"
    )]
    let variables = std::env::vars_os();
    let environment = match environment(variables) {
        Ok(environment) => environment,
        Err(name) => {
            eprintln!("error: the environment variable {name} does not hold UTF-8 text");
            return Exit::Usage.into();
        }
    };
    let globals = Globals {
        config: cli.config,
        environment,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime could not be started: {error}");
            return Exit::No.into();
        }
    };
    match runtime.block_on(dispatch(cli.command, &globals)) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("error: {}", failure.words());
            failure.exit.into()
        }
    }
}

/// A table with these columns, as every subcommand prints one: no lines, so that a
/// row stays one line that `grep` finds.
fn table(columns: impl IntoIterator<Item = &'static str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns);
    table
}

/// A JSON value as a table shows it: text without quotes, nothing for `null`.
fn cell(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The variables that are text. Those that are not are left out, unless they are ours:
/// then the error is the variable's name.
fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<String, String>, String> {
    let mut environment = BTreeMap::new();
    for (name, value) in variables {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => {
                environment.insert(name, value);
            }
            (name, _) => {
                let name = name.unwrap_or_else(|name| name.to_string_lossy().into_owned());
                if name.starts_with(VARIABLE_PREFIX) {
                    return Err(name);
                }
            }
        }
    }
    Ok(environment)
}

/// How a shell sees a program that SIGPIPE ended. Not 0: `verify … | head` has not
/// said that all is valid.
const ENDED_BY_SIGPIPE: i32 = 128 + 13;

/// Ends the process when whoever read our standard output has gone (`… | head`).
///
/// `println!` panics then, from whichever subcommand; and SIGPIPE's default, which
/// would end us quietly, would also end `serve` at the first client that hangs up.
fn end_quietly_when_nobody_reads() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // The standard library gives nothing but this text to know it by.
        let message = panic.payload_as_str().unwrap_or_default();
        if message.starts_with("failed printing to stdout") && message.contains("Broken pipe") {
            #[expect(
                clippy::disallowed_methods,
                reason = "as SIGPIPE's default would end it"
            )]
            std::process::exit(ENDED_BY_SIGPIPE);
        }
        report(panic);
    }));
}

/// Starts logging to standard error, as `[log]` says. A second call changes nothing.
///
/// # Errors
///
/// Where `log.level` is no filter, which [`crate::config`] has refused before.
pub fn start_logging(log: &LogConfig) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&log.level).map_err(Failure::usage)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
        LogFormat::Json => builder.json().with_ansi(false).try_init(),
    };
    // It fails where logging has been started before, by a test for instance.
    drop(started);
    Ok(())
}

/// Starts logging as [`start_logging`] does, and traces where `log.otlp_url` names a collector.
///
/// # Errors
///
/// As [`start_logging`], and where no client for the collector can be made.
pub fn start_logging_and_traces(log: &LogConfig) -> Result<Option<Traces>, Failure> {
    let Some(url) = &log.otlp_url else {
        return start_logging(log).map(|()| None);
    };
    let filter = EnvFilter::try_new(&log.level).map_err(Failure::usage)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().with_ansi(false).boxed(),
    };
    let traces = Traces::to(url)?;
    let started = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(traces.layer())
        .try_init();
    // As in `start_logging`.
    drop(started);
    Ok(Some(traces))
}

async fn dispatch(command: Command, globals: &Globals) -> Result<Exit, Failure> {
    match command {
        Command::Completions(args) => completions::run(args, globals).await,
        Command::Config(args) => config::run(args, globals).await,
        Command::Demo(args) => demo::run(args, globals).await,
        Command::Doctor(args) => doctor::run(args, globals).await,
        Command::Documents(args) => documents::run(args, globals).await,
        Command::Emulator(args) => emulator::run(args, globals).await,
        Command::Deliveries(args) => deliveries::run(args, globals).await,
        Command::Init(args) => init::run(args, globals).await,
        Command::Man(args) => man::run(args, globals).await,
        Command::Notifications(args) => notifications::run(args, globals).await,
        Command::Pull(args) => pull::run(args, globals).await,
        Command::Quarantine(args) => quarantine::run(args, globals).await,
        Command::Replay(args) => replay::run(args, globals).await,
        Command::ImportErrors(args) => import_errors::run(args, globals).await,
        Command::Serve(args) => serve::run(args, globals).await,
        Command::Store(args) => store::run(args, globals).await,
        Command::Subscribe(args) => subscribe::run(args, globals).await,
        Command::Subscriptions(args) => subscriptions::run(args, globals).await,
        Command::Tokens(args) => tokens::run(args, globals).await,
        Command::Upload(args) => upload::run(args, globals).await,
        Command::Uploads(args) => uploads::run(args, globals).await,
        Command::Verify(args) => verify::run(args, globals).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_not_text_is_skipped_unless_it_is_ours() {
        use std::os::unix::ffi::OsStringExt as _;

        let bad = || OsString::from_vec(vec![0xff]);
        let foreign = [("LANG".into(), bad()), ("HOME".into(), "/root".into())];
        let read = environment(foreign.into_iter()).expect("foreign variables don't matter");
        assert_eq!(read.into_keys().collect::<Vec<_>>(), ["HOME"]);

        let ours = [("IVESK_WEBHOOK_API_KEY".into(), bad())];
        assert_eq!(
            environment(ours.into_iter()),
            Err("IVESK_WEBHOOK_API_KEY".to_owned())
        );
    }
}
