//! `store`

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Subcommand;
use secrecy::SecretString;
use serde_json::json;

use super::globals::Globals;
use super::outcome::{Exit, Failure};
use super::server::existing_store;
use crate::config::{Config, StoreUrl};
use crate::domain::Clock;
use crate::store::{BackupFile, Progress, StoreError, copy_from_sqlite, restore_backup};

/// Arguments of `store`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write a complete copy of the store, also while the service runs
    #[command(after_help = "\
The file is written to the folder `store.backup_dir`, by default `backups` beside the store.
To restore it: stop the service, run `ivesk-webhook store restore`, and start the service.")]
    Backup {
        /// Name of the file to write, without a folder
        name: String,
        /// Replace an existing file, but never the store itself
        #[arg(long)]
        force: bool,
    },
    /// Put a backup in the place of the store
    #[command(after_help = "\
Stop the service first. The backup is checked and copied; the files that the store had are renamed, and \
nothing is deleted. What arrived after the backup is pulled from Įvesk.lt again, and delivered again under \
the same keys. Sequence numbers then belong to a new epoch (docs/backup.md).")]
    Restore {
        /// The backup: a path, or the name of a file in `store.backup_dir`
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Copy everything from a SQLite file to an empty PostgreSQL database
    #[command(after_help = "\
Stop the service first. The file is not changed; keep it until the service works with PostgreSQL. Then set \
`store.url` to the new address and start one or more replicas. Pass the password in \
IVESK_WEBHOOK_STORE_PASSWORD: in --to, other users of this machine could read it.")]
    Copy {
        /// Store to copy: sqlite://PATH
        #[arg(long, value_name = "URL")]
        from: String,
        /// Database to fill: postgres://USER@HOST/DATABASE
        #[arg(long, value_name = "URL")]
        to: String,
    },
}

/// Runs `store`.
pub async fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    match args.action {
        Action::Backup { name, force } => {
            let config =
                Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
            back_up(&config, &name, force).await
        }
        Action::Restore { file, json } => {
            let config =
                Config::load(&globals.config, &globals.environment).map_err(Failure::usage)?;
            restore(&config, &file, json)
        }
        Action::Copy { from, to } => copy(&from, &to, globals).await,
    }
}

async fn back_up(config: &Config, name: &str, force: bool) -> Result<Exit, Failure> {
    let file = BackupFile::named(&config.store.backup_dir, name, force).map_err(Failure::usage)?;
    // The copy is one snapshot, so the service may keep writing.
    let store = existing_store(config).await?;
    store
        .backup(file.clone())
        .await
        .map_err(|error| match error {
            StoreError::BackupOntoItself { .. } | StoreError::BackupExists { .. } => {
                Failure::usage(error)
            }
            other => Failure::from(other),
        })?;
    let sequence = store.sequence().await?;
    store.close().await?;
    result!(
        json!({"path": file.path(), "last_sequence": sequence.last}),
        "Wrote {}, with all documents up to sequence number {} or later.",
        file.path().display(),
        sequence.last
    );
    Ok(Exit::Done)
}

fn restore(config: &Config, file: &Path, json: bool) -> Result<Exit, Failure> {
    let StoreUrl::Sqlite(store) = &config.store.url else {
        return Err(Failure::usage(anyhow!(
            "a PostgreSQL store is restored with pg_restore; see docs/postgres.md for the new epoch that it needs"
        )));
    };
    let in_dir = config.store.backup_dir.join(file);
    let is_name = file.components().count() == 1;
    let file = if is_name && in_dir.exists() {
        &in_dir
    } else {
        file
    };
    if !file.exists() {
        return Err(Failure::usage(anyhow!(
            "there is no file {}, nor one of this name in {} (`store.backup_dir`); name a file of `ivesk-webhook store backup`",
            file.display(),
            config.store.backup_dir.display()
        )));
    }
    let restored = restore_backup(store, file, Clock::system().now()).map_err(Failure::usage)?;
    if json {
        let moved: Vec<_> = restored.moved.iter().map(|path| json!(path)).collect();
        println!(
            "{}",
            json!({ "store": store, "last": restored.last, "moved": moved })
        );
        return Ok(Exit::Done);
    }
    println!(
        "Restored {} from {}, with all documents up to sequence number {}.",
        store.display(),
        file.display(),
        restored.last
    );
    for path in &restored.moved {
        println!("Kept: {}", path.display());
    }
    println!(
        "\nStart the service. Then\n\
         - Įvesk.lt is read again from where the backup was, so later documents are stored again;\n\
         - destinations receive again, under the same keys, what they accepted after the backup;\n\
         - programs that read a `list` are answered 409 once, and start over without `after`;\n\
         - erase again what was erased after the backup, revoke again the tokens that were revoked (`tokens list`), and look \
         through `subscriptions list`, `feeds list` and `destinations list`."
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
    let target = to.to_string();
    let mut bar = Bar::new();
    let copied = copy_from_sqlite(from, to, |progress| bar.show(progress)).await;
    bar.clear();
    let copied = copied.map_err(|error| match error {
        unreachable @ StoreError::Unreachable { .. } => Failure::unreachable(unreachable),
        other => Failure::from(other),
    })?;
    result!(
        json!({"rows": copied.rows, "last_sequence": copied.last, "store": target}),
        "Copied all {} rows, up to sequence number {}. Set `store.url` to {target} and start the service.",
        copied.rows,
        copied.last
    );
    Ok(Exit::Done)
}

/// A progress bar on standard error, if that is a terminal.
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
