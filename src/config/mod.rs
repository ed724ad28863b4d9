//! Every setting: name, unit, default, environment variable.
//!
//! Order of precedence: flags, then `IVESK_WEBHOOK_…` variables, then the file,
//! then the defaults here. A misspelt or contradictory setting stops the start
//! and names itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::domain::{Account, Company, Event};

/// All settings, checked against each other.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[public]`
    pub public: PublicConfig,
    /// `[private]`
    pub private: PrivateConfig,
    /// `[store]`
    pub store: StoreConfig,
    /// `[sns]`
    pub sns: SnsConfig,
    /// `[api]`
    pub api: ApiConfig,
    /// `[pull]`
    pub pull: PullConfig,
    /// `[retention]`
    pub retention: RetentionConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[accounts.NAME]`, at least one.
    pub accounts: BTreeMap<Account, AccountConfig>,
}

/// The listener that SNS reaches.
#[derive(Clone, Debug)]
pub struct PublicConfig {
    /// `public.url`: the HTTPS address under which the proxy is reached, without
    /// the webhook's path. Only a loopback address may be `http`.
    pub url: Url,
    /// `public.listen`, default `0.0.0.0:8080`.
    pub listen: SocketAddr,
    /// `public.max_connections`, default 2048. The next one waits to be accepted.
    pub max_connections: usize,
    /// `public.header_timeout`, default 10 s.
    pub header_timeout: Duration,
    /// `public.body_timeout`, default 10 s; SNS itself gives up after 15 s.
    pub body_timeout: Duration,
    /// `public.drain_timeout`, default 20 s: how long open requests may finish after SIGTERM.
    pub drain_timeout: Duration,
}

/// The listener for people and programs of the house.
#[derive(Clone, Debug)]
pub struct PrivateConfig {
    /// `private.listen`, default `127.0.0.1:8081`.
    pub listen: SocketAddr,
    /// `private.token_file`, or `IVESK_WEBHOOK_PRIVATE_TOKEN`: required where
    /// [`PrivateConfig::listen`] is not a loopback address.
    pub token: Option<SecretString>,
}

/// Where everything is kept.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// `store.url`, default `sqlite://ivesk-webhook.db`, relative to the settings file.
    pub url: StoreUrl,
    /// `store.min_free_bytes`, default 256 MiB: with less room on the disk,
    /// deliveries are answered 503 and SNS sends them again.
    pub min_free_bytes: u64,
    /// `store.queue`, default 4096: deliveries that may wait for the next commit.
    pub queue: usize,
}

/// Which database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// `sqlite://PATH`
    Sqlite(PathBuf),
}

/// Whom to believe.
#[derive(Clone, Debug)]
pub struct SnsConfig {
    /// `sns.topics`: whose topics may speak to us; never empty.
    pub topics: Vec<TopicRule>,
    /// `sns.certificate_names`: region to certificate name, over the built-in table.
    pub certificate_names: BTreeMap<String, String>,
    /// `sns.confirm`: `"auto"` (default) or `"ask"`.
    pub confirm: ConfirmMode,
    /// `sns.max_age`, default 8 h.
    pub max_age: Duration,
    /// `sns.local_origins`: origins such as `http://127.0.0.1:4566` for which the
    /// rules on https, host, path and certificate name give way. For tests alone.
    pub local_origins: Vec<String>,
}

/// One entry of the topic allowlist; all parts must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRule {
    /// Twelve digits, default `007272210889`.
    pub account: String,
    /// Default `eu-west-1`.
    pub region: String,
    /// What the topic's name begins with, default `DPWebHook_`.
    pub name_prefix: String,
}

/// Who decides that a subscription is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfirmMode {
    /// A verified confirmation of an allowed topic is confirmed at once.
    Auto,
    /// It waits for `subscriptions approve`.
    Ask,
}

/// The vendor's API.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// `api.url`, default `https://app.ivesk.lt/api/pub`. Plain `http` on loopback only.
    pub url: Url,
    /// `api.exported_path`: how a company's exported queue is asked for. Not known
    /// (vendor-api U1): `None` until set, and pulling that queue is blocked.
    pub exported_path: Option<ExportedPath>,
    /// `api.subscribe_path` (U2): `None` until set; `subscribe --print` helps meanwhile.
    pub subscribe_path: Option<String>,
    /// `api.timeout`, default 30 s for one request, body included.
    pub timeout: Duration,
    /// `api.max_page_bytes`, default 32 MiB.
    pub max_page_bytes: usize,
}

/// Where the company stands in the exported queue's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedPath {
    /// Path and query after `api.url`, holding `{company}` at most once, such as
    /// `/exported/{company}`. `from` is added as a query parameter.
    ///
    /// The settings also take the presets `path` (`/exported/{company}`), `query`
    /// (`/exported?companycode={company}`), `prefix` (`/{company}/exported`) and
    /// `none` (`/exported`).
    pub template: String,
}

/// How the queues are read.
#[derive(Clone, Debug)]
pub struct PullConfig {
    /// `pull.lookback`, default 24 h: how far follow-ups and reconciliation go back.
    pub lookback: Duration,
    /// `pull.follow_ups`, default 30 s and 5 min after a hint was served.
    pub follow_ups: [Duration; 2],
    /// `pull.reconcile_every`, default 1 h.
    pub reconcile_every: Duration,
    /// `pull.requests_per_account`, default 1, at most 16: requests in flight at once.
    pub requests_per_account: u32,
    /// `pull.lease`, default 2 min; longer than `api.timeout`.
    pub lease: Duration,
}

/// How long bodies are kept; identities are kept for ever.
#[derive(Clone, Debug)]
pub struct RetentionConfig {
    /// `retention.notifications`, default 30 d.
    pub notifications: Duration,
    /// `retention.documents`, default 400 d after hand-off.
    pub documents: Duration,
    /// `retention.quarantine`, default 7 d.
    pub quarantine: Duration,
    /// `retention.quarantine_bytes`, default 64 MiB.
    pub quarantine_bytes: u64,
}

/// What is written to standard error.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `log.format`: `"text"` (default) or `"json"`.
    pub format: LogFormat,
    /// `log.level`, default `info`; a `tracing` filter such as `info,ivesk_webhook::pull=debug`.
    pub level: String,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// One API key at the vendor.
#[derive(Clone, Debug)]
pub struct AccountConfig {
    /// `api_key_file`, or `IVESK_WEBHOOK_API_KEY_<NAME>` (`IVESK_WEBHOOK_API_KEY`
    /// where there is one account). `None`: receive and keep hints, pull nothing.
    pub api_key: Option<SecretString>,
    /// `companies`: codes whose exported queue is read from the start.
    pub companies: Vec<Company>,
    /// `tokens.on_exported` and `tokens.on_digitized`: the secret path segments that
    /// are accepted, the first one in use for new subscriptions.
    pub tokens: BTreeMap<Event, Vec<SecretString>>,
    /// `digitized`, default true: whether the digitized queue is reconciled without hints.
    pub digitized: bool,
}
