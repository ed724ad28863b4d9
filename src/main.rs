//! Parses the arguments and runs one subcommand.

use std::process::ExitCode;

use clap::Parser;
use ivesk_webhook::cli::{self, Cli};

fn main() -> ExitCode {
    cli::heaps::limit();
    match Cli::try_parse() {
        Ok(arguments) => cli::run(arguments),
        Err(error) => cli::end_of_arguments(&error),
    }
}
