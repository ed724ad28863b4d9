//! `[store]`: the database.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::check;
use super::layers::{Layers, show};
use super::postgres::PostgresAddress;

/// The shortest `store.backup_every`.
const SHORTEST_BACKUP_EVERY: Duration = Duration::from_secs(60);

/// Settings of the database.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// `store.url`, default `sqlite://ivesk-webhook.db`, relative to the settings file;
    /// or `postgres://USER@HOST/DATABASE`, which several replicas may share.
    pub url: StoreUrl,
    /// `store.backup_dir`, default `backups` in the folder of a SQLite file: the one folder that
    /// backups are written to. Relative to the settings file.
    pub backup_dir: PathBuf,
    /// `store.backup_every`, not set by default: a backup of a SQLite file is written to
    /// `store.backup_dir` this often.
    pub backup_every: Option<Duration>,
    /// `store.backup_keep`, default 7: the number of these backups that are kept.
    pub backup_keep: usize,
    /// `store.min_free_bytes`, default 256 MiB: with less free disk space messages are answered
    /// 503, SNS sends them again, and nothing is pulled.
    pub min_free_bytes: u64,
}

impl StoreConfig {
    /// Returns the free disk space below which the alarm `disk` is on: twice
    /// [`StoreConfig::min_free_bytes`], so that it warns before messages are refused.
    pub fn alarm_free_bytes(&self) -> u64 {
        self.min_free_bytes.saturating_mul(2)
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: StoreUrl::Sqlite(PathBuf::from("ivesk-webhook.db")),
            backup_dir: PathBuf::from("backups"),
            backup_every: None,
            backup_keep: 7,
            min_free_bytes: 256 * 1024 * 1024,
        }
    }
}

/// A database's kind and address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// `sqlite://PATH`
    Sqlite(PathBuf),
    /// `postgres://USER@HOST/DATABASE`, its password from the URL, from
    /// `store.password_file` or from `IVESK_WEBHOOK_STORE_PASSWORD`.
    Postgres(PostgresAddress),
}

impl StoreUrl {
    /// Parses the value of the flag `name`, by the rules of `store.url`.
    ///
    /// # Errors
    ///
    /// Returns the problem, without the password.
    pub fn parse(text: &str, name: &str) -> Result<Self, anyhow::Error> {
        store_url(text).map_err(|problem| anyhow::anyhow!("{name} {problem}"))
    }
}

impl fmt::Display for StoreUrl {
    /// Prints the URL without its password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(address) => address.fmt(f),
        }
    }
}

/// Reads `[store]`.
pub(super) fn read(layers: &mut Layers<'_>) -> StoreConfig {
    let default = StoreConfig::default();
    let default_url = match default.url {
        StoreUrl::Sqlite(file) => StoreUrl::Sqlite(layers.path(&file.to_string_lossy())),
        url @ StoreUrl::Postgres(_) => url,
    };
    let url = layers.read(
        "store.url",
        default_url,
        |value, layers| {
            store_url(value.text()?).map(|url| match url {
                StoreUrl::Sqlite(path) => StoreUrl::Sqlite(layers.path(&path.to_string_lossy())),
                url @ StoreUrl::Postgres(_) => url,
            })
        },
        show,
    );
    let password = layers.secret(
        "store.password_file",
        "IVESK_WEBHOOK_STORE_PASSWORD",
        |text| Ok(text.into()),
    );
    let url = match (url, password) {
        (StoreUrl::Postgres(address), Some(_)) if address.has_password() => {
            layers.report(
                "store.password_file",
                "is set, and `store.url` contains a password too; keep one of the two",
            );
            StoreUrl::Postgres(address)
        }
        (StoreUrl::Postgres(address), Some(password)) => {
            StoreUrl::Postgres(address.with_password(&password))
        }
        (url, None) => url,
        (url @ StoreUrl::Sqlite(_), Some(_)) => {
            if !layers.is_invalid("store.url") {
                layers.report(
                    "store.password_file",
                    "is set, and `store.url` is a SQLite file, which has no password; remove it",
                );
            }
            url
        }
    };
    let default_dir = match &url {
        StoreUrl::Sqlite(file) => file.with_file_name(default.backup_dir),
        StoreUrl::Postgres(_) => layers.path(&default.backup_dir.to_string_lossy()),
    };
    let backup_every = layers.read(
        "store.backup_every",
        default.backup_every,
        |value, _| check::duration(value.text()?).map(Some),
        |every| json!(every.map(check::show_duration)),
    );
    if backup_every.is_some_and(|every| every < SHORTEST_BACKUP_EVERY) {
        layers.report(
            "store.backup_every",
            "is shorter than a minute; a backup reads the whole database",
        );
    }
    if backup_every.is_some() && matches!(url, StoreUrl::Postgres(_)) {
        layers.report(
            "store.backup_every",
            "is for a SQLite file, and `store.url` is a PostgreSQL database; remove it, and back the database up with pg_dump (docs/postgres.md)",
        );
    }
    StoreConfig {
        url,
        backup_every,
        backup_keep: usize::try_from(layers.number("store.backup_keep", 7_u64, 1..=1_000))
            .unwrap_or(default.backup_keep),
        backup_dir: layers.read(
            "store.backup_dir",
            default_dir,
            |value, layers| Ok(layers.path(value.text()?)),
            |dir| json!(dir),
        ),
        min_free_bytes: layers.number("store.min_free_bytes", default.min_free_bytes, 0..=1 << 50),
    }
}

/// Parses `store.url`: a SQLite file, or a PostgreSQL database.
fn store_url(text: &str) -> Result<StoreUrl, String> {
    let Some((scheme, path)) = text.split_once("://") else {
        return Err(
            "is not a database URL; write sqlite:// and a path, such as sqlite://ivesk-webhook.db"
                .to_owned(),
        );
    };
    match scheme {
        "sqlite" => {}
        "postgres" | "postgresql" => return PostgresAddress::parse(text).map(StoreUrl::Postgres),
        _ => {
            return Err(
                "is an unknown kind of database; write sqlite:// and a path, or \
                 postgres://USER@HOST/DATABASE"
                    .to_owned(),
            );
        }
    }
    if path.is_empty() || path.ends_with('/') {
        return Err("has no file name; write a path, such as sqlite://ivesk-webhook.db".to_owned());
    }
    if path == ":memory:" {
        return Err(
            "would lose everything: acknowledged notifications must be on a disk; write a path"
                .to_owned(),
        );
    }
    if path.contains(['?', '#']) {
        return Err("contains ? or #; write the path alone, options are not supported".to_owned());
    }
    Ok(StoreUrl::Sqlite(PathBuf::from(path)))
}
