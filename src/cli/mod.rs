//! One file for each subcommand: wiring and printing only.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use self::globals::{Globals, environment};
use self::outcome::{Exit, Failure};
use crate::config::DEFAULT_FILE;

mod account;
pub mod completions;
pub mod config;
pub mod deliveries;
pub mod demo;
pub mod doctor;
pub mod documents;
pub mod emulator;
pub mod globals;
pub mod import_errors;
pub mod init;
mod logging;
pub mod man;
pub mod notifications;
pub mod outcome;
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
mod table;
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

/// Runs the subcommand and gives the process's exit code.
pub fn run(cli: Cli) -> ExitCode {
    end_quietly_when_nobody_reads();
    let environment = match environment(std::env::vars_os()) {
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
            eprintln!("error: {}", failure.message());
            failure.exit().into()
        }
    }
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
            std::process::exit(ENDED_BY_SIGPIPE);
        }
        report(panic);
    }));
}

async fn dispatch(command: Command, globals: &Globals) -> Result<Exit, Failure> {
    match command {
        Command::Completions(args) => completions::run(args, Cli::command()).await,
        Command::Config(args) => config::run(args, globals).await,
        Command::Demo(args) => demo::run(args, globals).await,
        Command::Doctor(args) => doctor::run(args, globals).await,
        Command::Documents(args) => documents::run(args, globals).await,
        Command::Emulator(args) => emulator::run(args, globals).await,
        Command::Deliveries(args) => deliveries::run(args, globals).await,
        Command::Init(args) => init::run(args, globals).await,
        Command::Man(args) => man::run(args, Cli::command()).await,
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
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
