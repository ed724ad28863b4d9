//! One file for each subcommand: wiring and printing only.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod config;
pub mod demo;
pub mod documents;
pub mod emulator;
pub mod init;
pub mod notifications;
pub mod pull;
pub mod quarantine;
pub mod replay;
mod saved;
pub mod serve;
pub mod server;
pub mod store;
pub mod subscribe;
pub mod subscriptions;
pub mod verify;

/// Receives Įvesk.lt webhooks, proves that they are genuine, and pulls every document exactly once.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// The settings file
    #[arg(
        long,
        short = 'c',
        global = true,
        value_name = "FILE",
        env = "IVESK_WEBHOOK_CONFIG",
        default_value = "ivesk-webhook.toml"
    )]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 the answer is no, 2 wrong use or bad configuration, 3 a service could not be reached";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the settings in force, or check them
    Config(config::Args),
    /// Show the whole loop on this machine, with an emulated Įvesk.lt
    Demo(demo::Args),
    /// List, show or export stored documents
    Documents(documents::Args),
    /// Run an emulated Įvesk.lt, SNS and S3
    Emulator(emulator::Args),
    /// Write a commented settings file with fresh tokens
    Init(init::Args),
    /// List stored notifications, or export them to files
    Notifications(notifications::Args),
    /// Pull documents now, once (for cron), or read an old stretch again
    Pull(pull::Args),
    /// List, export or retry refused deliveries
    Quarantine(quarantine::Args),
    /// Send saved messages to a webhook
    Replay(replay::Args),
    /// Receive webhooks and pull documents until stopped
    Serve(serve::Args),
    /// Back up the store
    Store(store::Args),
    /// Ask Įvesk.lt for a subscription, or print how to
    Subscribe(subscribe::Args),
    /// List, approve or restore subscriptions
    Subscriptions(subscriptions::Args),
    /// Judge saved messages, offline if you like
    Verify(verify::Args),
}

/// What every subcommand may need of its surroundings, passed in so that tests can differ.
#[derive(Debug)]
pub struct Globals {
    /// The settings file, which need not exist.
    pub config: PathBuf,
    /// The process environment.
    pub environment: BTreeMap<String, String>,
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
    let globals = Globals {
        config: cli.config,
        environment: std::env::vars().collect(),
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
            eprintln!("error: {:#}", failure.error);
            failure.exit.into()
        }
    }
}

/// A JSON value as a table shows it: text without quotes, nothing for `null`.
fn cell(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

async fn dispatch(command: Command, globals: &Globals) -> Result<Exit, Failure> {
    match command {
        Command::Config(args) => config::run(args, globals).await,
        Command::Demo(args) => demo::run(args, globals).await,
        Command::Documents(args) => documents::run(args, globals).await,
        Command::Emulator(args) => emulator::run(args, globals).await,
        Command::Init(args) => init::run(args, globals).await,
        Command::Notifications(args) => notifications::run(args, globals).await,
        Command::Pull(args) => pull::run(args, globals).await,
        Command::Quarantine(args) => quarantine::run(args, globals).await,
        Command::Replay(args) => replay::run(args, globals).await,
        Command::Serve(args) => serve::run(args, globals).await,
        Command::Store(args) => store::run(args, globals).await,
        Command::Subscribe(args) => subscribe::run(args, globals).await,
        Command::Subscriptions(args) => subscriptions::run(args, globals).await,
        Command::Verify(args) => verify::run(args, globals).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
