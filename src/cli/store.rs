//! `store`

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Subcommand;

use super::{Exit, Failure, Globals};
use crate::config::Config;
use crate::service::open_store_for_reading;

/// Arguments of `store`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write a complete copy, also while the service runs
    #[command(after_help = "\
To restore: stop the service, put the copy in the place of `store.url`, remove the files beside it
that end in -wal and -shm, start. Sequence numbers then belong to a new epoch.")]
    Backup {
        /// The file to write
        file: PathBuf,
        /// Replace the file where it exists
        #[arg(long)]
        force: bool,
    },
}

/// Runs `store`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let config = Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
    let Action::Backup { file, force } = args.action;
    if file.exists() && !force {
        return Err(Failure::usage(anyhow!(
            "{} exists; name another file, or add --force",
            file.display()
        )));
    }
    // Reading is enough: the copy is one snapshot, whatever the service does meanwhile.
    let store = open_store_for_reading(&config).await?;
    store.backup(file.clone()).await?;
    let sequence = store.sequence().await?;
    store.close().await?;
    println!(
        "{} holds everything up to document version {} or later.",
        file.display(),
        sequence.last
    );
    Ok(Exit::Done)
}
