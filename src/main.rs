//! Parses the arguments and runs one subcommand.

use std::process::ExitCode;

use clap::Parser;
use ivesk_webhook::cli::Cli;

fn main() -> ExitCode {
    ivesk_webhook::cli::run(Cli::parse())
}
