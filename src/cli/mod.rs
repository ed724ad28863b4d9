//! The command line: one file for each subcommand, with wiring and printing only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};

use self::globals::{Globals, SYSTEM_FILE, environment, found_config};
use self::outcome::{Exit, Failure};
use self::style::OutputOptions;

#[macro_use]
mod printing;

mod account;
mod as_sent;
pub mod audit;
pub mod completions;
pub mod config;
pub mod deliveries;
pub mod demo;
pub mod destinations;
pub mod doctor;
pub mod documents;
pub mod emulator;
mod erase;
mod export;
mod feed_gaps;
pub mod feeds;
mod fields;
pub mod globals;
pub mod import_errors;
pub mod init;
mod log_lines;
mod logging;
pub mod man;
mod moments;
pub mod notifications;
mod of_feeds;
pub mod open;
pub mod outcome;
pub mod pull;
pub mod quarantine;
mod question;
pub mod replay;
mod resign;
mod row_id;
mod saved;
pub mod serve;
pub mod server;
pub mod status;
pub mod store;
mod style;
pub mod subscriptions;
mod supervisor;
mod table;
pub mod tokens;
mod tunnel;
pub mod upload;
pub mod uploads;
pub mod verify;
mod visible_lines;

/// Receives Įvesk.lt webhooks, verifies them, pulls every document exactly once, and delivers it.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLES_AND_EXIT_CODES)]
pub struct Cli {
    /// Settings file [default: ivesk-webhook.toml, or else /etc/ivesk-webhook/ivesk-webhook.toml]
    #[arg(
        long,
        short = 'c',
        global = true,
        help_heading = COMMON, display_order = 900,
        value_name = "FILE",
        env = "IVESK_WEBHOOK_CONFIG"
    )]
    pub config: Option<PathBuf>,
    /// Log at level `debug`
    #[arg(
        long,
        short = 'v',
        global = true,
        help_heading = COMMON, display_order = 901,
        conflicts_with = "quiet"
    )]
    pub verbose: bool,
    /// Print results and errors only
    #[arg(long, short = 'q', global = true, help_heading = COMMON, display_order = 902)]
    pub quiet: bool,
    /// Cut nothing off in tables to make them fit the terminal
    #[arg(long, global = true, help_heading = COMMON, display_order = 903)]
    pub wide: bool,
    /// Print the result as JSON, each on one line, and an error too
    #[arg(long, global = true, help_heading = COMMON, display_order = 904)]
    pub json: bool,
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// Variable of `log.level`.
const LOG_LEVEL: &str = "IVESK_WEBHOOK_LOG_LEVEL";

const EXAMPLES_AND_EXIT_CODES: &str = "\
Examples:
  ivesk-webhook demo --once                                   emulate everything on this machine
  ivesk-webhook init                                          ask a few questions, and write a settings file
  ivesk-webhook config check                                  find mistakes in the settings
  ivesk-webhook serve                                         receive and pull until stopped
  ivesk-webhook open                                          print a link to the status page
  ivesk-webhook status                                        show what runs and what needs a person
  ivesk-webhook doctor                                        find problems, with their fixes
  ivesk-webhook subscriptions create --print                  print the requests to send by hand
  ivesk-webhook feeds list                                    show the state of each feed
  ivesk-webhook documents list                                list received documents
  ivesk-webhook documents search Šarka 1 210,00               find documents by what is known of them
  ivesk-webhook documents trace SF-00017                      show what happened to a document
  ivesk-webhook destinations list                             show the state of each destination
  ivesk-webhook upload invoice.pdf scans/                     upload files to Įvesk.lt

Results are written to standard output, logs to standard error. The files of docs/ that messages name are in \
/usr/share/doc/ivesk-webhook, if this was installed as a package.

Exit codes: 0 done, 1 refused, not found, or a check failed, 2 wrong use or configuration, 3 a service could not be reached";

/// The heading of the options that every command has.
const COMMON: &str = "Options of every command";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a commented settings file with fresh tokens
    Init(init::Args),
    /// Receive webhooks, pull and deliver documents until stopped
    Serve(serve::Args),
    /// Show on one screen whether messages are accepted, and what needs a person
    Status(status::Args),
    /// Find problems of this installation and how to fix them
    Doctor(doctor::Args),
    /// Print a link that lets your browser into the status page
    Open(open::Args),
    /// Create, list, approve, revoke or restore subscriptions
    Subscriptions(subscriptions::Args),
    /// List, pause, resume or remove feeds, set where they start, or show their gaps
    Feeds(feeds::Args),
    /// Pull documents now (for cron), or read an earlier stretch again
    Pull(pull::Args),
    /// List, show, trace, export or erase stored documents, or show their fields
    Documents(documents::Args),
    /// List, start, stop, pause or resume destinations
    Destinations(destinations::Args),
    /// List, retry or skip deliveries
    Deliveries(deliveries::Args),
    /// List, retry or discard import errors for the accountant
    ImportErrors(import_errors::Args),
    /// Upload files to Įvesk.lt, each content once, or watch a folder
    Upload(upload::Args),
    /// List uploads and the documents made from them, or settle one
    Uploads(uploads::Args),
    /// List or export stored notifications
    Notifications(notifications::Args),
    /// List, export or retry refused messages
    Quarantine(quarantine::Args),
    /// Create, list or revoke tokens of the admin API
    Tokens(tokens::Args),
    /// List what people and programs did
    Audit(audit::Args),
    /// Back up, restore or copy the store
    Store(store::Args),
    /// Check or show the settings
    Config(config::Args),
    /// Run everything on this machine, with an emulated Įvesk.lt
    Demo(demo::Args),
    /// Run an emulated Įvesk.lt, SNS and S3
    Emulator(emulator::Args),
    /// Verify saved messages, also offline
    Verify(verify::Args),
    /// Send saved messages to a webhook
    Replay(replay::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Write man pages to a folder
    Man(man::Args),
}

/// Runs the subcommand and returns the process's exit code.
pub fn run(cli: Cli) -> ExitCode {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment, for `config`"
    )]
    let variables = std::env::vars_os();
    let environment = match environment(variables) {
        Ok(environment) => environment,
        Err(name) => {
            let error = anyhow!("environment variable {name} is not valid UTF-8");
            return end(&Failure::usage(error), cli.json);
        }
    };
    style::set(OutputOptions {
        wide: cli.wide,
        quiet: cli.quiet,
        json: cli.json,
        time_zone: environment.get("TZ").cloned(),
    });
    let globals = Globals {
        config_is_named: cli.config.is_some(),
        config: cli
            .config
            .unwrap_or_else(|| found_config(Path::new(SYSTEM_FILE))),
        environment: with_log_level(environment, cli.verbose, cli.quiet),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = anyhow!("failed to start the async runtime: {error}");
            return end(&error.into(), cli.json);
        }
    };
    match runtime.block_on(dispatch(cli.command, &globals)) {
        Ok(exit) => exit.into(),
        Err(failure) => end(&failure, cli.json),
    }
}

/// Prints why the subcommand ended, and returns the exit code.
fn end(failure: &Failure, as_json: bool) -> ExitCode {
    failure.print(as_json);
    failure.exit().into()
}

/// Prints what is wrong with the arguments, or the help or version that they ask for, and returns the
/// exit code.
pub fn end_of_arguments(error: &clap::Error) -> ExitCode {
    let wants_json = || std::env::args_os().any(|argument| argument == "--json");
    let is_help = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if error.use_stderr() && !is_help && wants_json() {
        let text = error.render().to_string();
        let text = text.trim().trim_start_matches("error: ").to_owned();
        return end(&Failure::usage(anyhow!(text)), true);
    }
    // There is no place left to report that it can't be printed.
    let _ = error.print();
    match error.use_stderr() {
        true => Exit::Usage.into(),
        false => Exit::Done.into(),
    }
}

/// Returns the environment with the log's level that the arguments ask for.
fn with_log_level(
    mut environment: BTreeMap<String, String>,
    verbose: bool,
    quiet: bool,
) -> BTreeMap<String, String> {
    let level = match (verbose, quiet) {
        (true, _) => "info,ivesk_webhook=debug,sns_messages=debug",
        (_, true) => "error",
        _ => return environment,
    };
    environment.insert(LOG_LEVEL.to_owned(), level.to_owned());
    environment
}

async fn dispatch(command: Command, globals: &Globals) -> Result<Exit, Failure> {
    match command {
        Command::Audit(args) => audit::run(args, globals).await,
        Command::Completions(args) => completions::run(args, Cli::command()).await,
        Command::Config(args) => config::run(args, globals).await,
        Command::Deliveries(args) => deliveries::run(args, globals).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Destinations(args) => destinations::run(args, globals).await,
        Command::Doctor(args) => doctor::run(args, globals).await,
        Command::Documents(args) => documents::run(args, globals).await,
        Command::Emulator(args) => emulator::run(args).await,
        Command::Feeds(args) => feeds::run(args, globals).await,
        Command::ImportErrors(args) => import_errors::run(args, globals).await,
        Command::Init(args) => init::run(args, globals).await,
        Command::Man(args) => man::run(args, Cli::command()).await,
        Command::Notifications(args) => notifications::run(args, globals).await,
        Command::Open(args) => open::run(args, globals).await,
        Command::Pull(args) => pull::run(args, globals).await,
        Command::Quarantine(args) => quarantine::run(args, globals).await,
        Command::Replay(args) => replay::run(args).await,
        Command::Serve(args) => serve::run(args, globals).await,
        Command::Status(args) => status::run(args, globals).await,
        Command::Store(args) => store::run(args, globals).await,
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

    /// The contract with the server is `crate::api`: a field that is renamed there must not leave a
    /// command that shows nothing.
    #[test]
    fn no_command_picks_json_apart_by_name() {
        let accessors = [
            ".pointer(",
            ".as_array()",
            ".as_object()",
            ".as_bool()",
            ".as_i64()",
            ".as_u64()",
            ".as_f64()",
            "Value::as_",
        ];
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli");
        let mut files = 0;
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let source = std::fs::read_to_string(&path).expect("a source file");
            let code = source.split("#[cfg(test)]").next().unwrap_or_default();
            for line in code.lines() {
                let indexes = line.match_indices("[\"").any(|(at, _)| {
                    line[..at].ends_with(|c: char| c.is_alphanumeric() || "_)]?".contains(c))
                });
                let gets = line
                    .split(".get(\"")
                    .skip(1)
                    // Variables of the environment are in capitals.
                    .any(|name| name.starts_with(|c: char| c.is_lowercase()));
                let accessed = accessors.iter().any(|accessor| line.contains(accessor));
                assert!(
                    !indexes && !gets && !accessed,
                    "{}: decode it into a type of `crate::api`: {line}",
                    path.display()
                );
            }
            files += 1;
        }
        assert!(files > 40, "{files} files");
    }
}
