//! `quarantine`

use super::{Exit, Failure, Globals};

/// Arguments of `quarantine`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `quarantine`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let _ = (args, globals);
    Err(Failure::usage(anyhow::anyhow!("not built yet")))
}
