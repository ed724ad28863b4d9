//! `store`

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::Subcommand;
use secrecy::SecretString;

use super::{Exit, Failure, Globals};
use crate::config::{Config, StoreUrl};
use crate::service::open_store_for_reading;
use crate::store::StoreError;
use crate::store::postgres::{Progress, copy_from_sqlite};

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
        /// Replace the file where it exists; never the store itself
        #[arg(long)]
        force: bool,
    },
    /// Move everything from a SQLite file to an empty PostgreSQL database
    #[command(after_help = "\
Stop the service first, and keep the file until all is well: it is left as it is. Then set
`store.url` to the new address and start any number of replicas. A password that is not part of
--to is taken from IVESK_WEBHOOK_STORE_PASSWORD; in --to, other users of this machine could read it.")]
    Copy {
        /// What to copy: sqlite://PATH
        #[arg(long, value_name = "URL")]
        from: String,
        /// Where to: postgres://USER@HOST/DATABASE
        #[arg(long, value_name = "URL")]
        to: String,
    },
}

/// Runs `store`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    match args.action {
        Action::Backup { file, force } => {
            let config =
                Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
            back_up(&config, file, force).await
        }
        Action::Copy { from, to } => copy(&from, &to, globals).await,
    }
}

async fn back_up(config: &Config, file: PathBuf, force: bool) -> Result<Exit, Failure> {
    if file.exists() && !force {
        return Err(Failure::usage(anyhow!(
            "{} exists; name another file, or add --force",
            file.display()
        )));
    }
    // Reading is enough: the copy is one snapshot, whatever the service does meanwhile.
    let store = open_store_for_reading(config).await?;
    store
        .backup(file.clone())
        .await
        .map_err(|error| match error {
            ours @ StoreError::BackupOntoItself { .. } => Failure::usage(ours),
            other => Failure::from(other),
        })?;
    let sequence = store.sequence().await?;
    store.close().await?;
    println!(
        "{} holds everything up to document version {} or later.",
        file.display(),
        sequence.last
    );
    Ok(Exit::Done)
}

async fn copy(from: &str, to: &str, globals: &Globals) -> Result<Exit, Failure> {
    let StoreUrl::Sqlite(from) = StoreUrl::parse(from, "--from").map_err(Failure::usage)? else {
        return Err(Failure::usage(anyhow!("--from must be sqlite://PATH")));
    };
    let StoreUrl::Postgres(mut to) = StoreUrl::parse(to, "--to").map_err(Failure::usage)? else {
        return Err(Failure::usage(anyhow!(
            "--to must be postgres://USER@HOST/DATABASE"
        )));
    };
    if !to.has_password()
        && let Some(password) = globals.environment.get("IVESK_WEBHOOK_STORE_PASSWORD")
    {
        to = to.with_password(&SecretString::from(password.as_str()));
    }
    let shown = to.to_string();
    let mut bar = Bar::new();
    let copied = copy_from_sqlite(from, to, |progress| bar.show(progress)).await;
    bar.clear();
    let copied = copied.map_err(|error| match error {
        unreachable @ StoreError::Unreachable { .. } => Failure::unreachable(unreachable),
        other => Failure::from(other),
    })?;
    println!(
        "{shown} holds all {} rows, up to document version {}. Set `store.url` to it and start.",
        copied.rows, copied.last
    );
    Ok(Exit::Done)
}

/// How far it is, on a terminal alone.
struct Bar {
    visible: bool,
}

impl Bar {
    fn new() -> Self {
        Self {
            visible: std::io::stderr().is_terminal(),
        }
    }

    fn show(&mut self, progress: Progress) {
        const WIDTH: usize = 40;
        if !self.visible {
            return;
        }
        let total = progress.total.max(1);
        let filled = usize::try_from(progress.done * WIDTH as u64 / total)
            .map_or(WIDTH, |filled| filled.min(WIDTH));
        eprint!(
            "\r[{:WIDTH$}] {} of {} rows",
            "#".repeat(filled),
            progress.done,
            progress.total
        );
    }

    fn clear(&mut self) {
        if self.visible {
            eprint!("\r\x1b[K");
        }
    }
}
