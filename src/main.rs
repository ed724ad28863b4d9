//! Parses the arguments and runs one subcommand.

use std::process::ExitCode;

use clap::Parser;
use ivesk_webhook::cli::{self, Cli};
use ivesk_webhook::heaps;

fn main() -> ExitCode {
    heaps::limit();
    match Cli::try_parse() {
        Ok(arguments) => cli::run(arguments),
        Err(error) => cli::end_of_arguments(&error),
    }
}
