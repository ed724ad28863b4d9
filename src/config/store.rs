//! `[store]`: where everything is kept.

use std::fmt;
use std::path::PathBuf;

use super::layers::{Layers, show};
use super::postgres::PostgresAddress;

/// Where everything is kept.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// `store.url`, default `sqlite://ivesk-webhook.db`, relative to the settings file;
    /// or `postgres://USER@HOST/DATABASE`, which several replicas may share.
    pub url: StoreUrl,
    /// `store.min_free_bytes`, default 256 MiB: with less room on the disk,
    /// messages are answered 503 and SNS sends them again.
    pub min_free_bytes: u64,
    /// `store.queue`, default 4096: messages that may wait for the next commit.
    pub queue: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: StoreUrl::Sqlite(PathBuf::from("ivesk-webhook.db")),
            min_free_bytes: 256 * 1024 * 1024,
            queue: 4096,
        }
    }
}

/// Which database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// `sqlite://PATH`
    Sqlite(PathBuf),
    /// `postgres://USER@HOST/DATABASE`, its password from the URL, from
    /// `store.password_file` or from `IVESK_WEBHOOK_STORE_PASSWORD`.
    Postgres(PostgresAddress),
}

impl StoreUrl {
    /// Reads what the flag `name` gives, as `store.url` is read.
    ///
    /// # Errors
    ///
    /// What is wrong, for people; nothing of a password.
    pub fn parse(text: &str, name: &str) -> Result<Self, anyhow::Error> {
        store_url(text).map_err(|problem| anyhow::anyhow!("{name} {problem}"))
    }
}

impl fmt::Display for StoreUrl {
    /// The URL without a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(address) => address.fmt(f),
        }
    }
}

/// `[store]`
pub(super) fn read(layers: &mut Layers<'_>) -> StoreConfig {
    let default = StoreConfig::default();
    let beside_settings = match default.url {
        StoreUrl::Sqlite(file) => StoreUrl::Sqlite(layers.path(&file.to_string_lossy())),
        shared => shared,
    };
    let url = layers.read(
        "store.url",
        beside_settings,
        |given, layers| {
            store_url(given.text()?).map(|url| match url {
                StoreUrl::Sqlite(path) => StoreUrl::Sqlite(layers.path(&path.to_string_lossy())),
                shared => shared,
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
            layers.contradiction(
                "store.password_file",
                "is set, and `store.url` holds a password too; keep one of the two",
            );
            StoreUrl::Postgres(address)
        }
        (StoreUrl::Postgres(address), Some(password)) => {
            StoreUrl::Postgres(address.with_password(&password))
        }
        (url, None) => url,
        (url @ StoreUrl::Sqlite(_), Some(_)) => {
            if !layers.has_failed("store.url") {
                layers.contradiction(
                    "store.password_file",
                    "is set, and `store.url` names a file, which has no password; remove it",
                );
            }
            url
        }
    };
    StoreConfig {
        url,
        min_free_bytes: layers.number("store.min_free_bytes", default.min_free_bytes, 0..=1 << 50),
        queue: layers.number("store.queue", default.queue, 1..=1_000_000),
    }
}

/// `store.url`: a file, or a database that replicas share.
fn store_url(text: &str) -> Result<StoreUrl, String> {
    let Some((scheme, path)) = text.split_once("://") else {
        return Err(
            "is not a database address; write sqlite:// and a path, such as \
                    sqlite://ivesk-webhook.db"
                .to_owned(),
        );
    };
    match scheme {
        "sqlite" => {}
        "postgres" | "postgresql" => return PostgresAddress::parse(text).map(StoreUrl::Postgres),
        _ => {
            return Err(
                "names a database that is not known; write sqlite:// and a path, or \
                        postgres://USER@HOST/DATABASE"
                    .to_owned(),
            );
        }
    }
    if path.is_empty() || path.ends_with('/') {
        return Err("names no file; write a path, such as sqlite://ivesk-webhook.db".to_owned());
    }
    if path == ":memory:" {
        return Err(
            "would keep nothing: acknowledged notifications must be on a disk; write a path"
                .to_owned(),
        );
    }
    if path.contains(['?', '#']) {
        return Err("holds a ? or a #; write the path alone, it takes no options".to_owned());
    }
    Ok(StoreUrl::Sqlite(PathBuf::from(path)))
}
