//! `subscriptions`

use super::{Exit, Failure, Globals};

/// Arguments of `subscriptions`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `subscriptions`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let _ = (args, globals);
    Err(Failure::usage(anyhow::anyhow!("not built yet")))
}
