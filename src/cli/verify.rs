//! `verify`

use super::{Exit, Failure, Globals};

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `verify`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let _ = (args, globals);
    Err(Failure::usage(anyhow::anyhow!("not built yet")))
}
