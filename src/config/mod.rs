//! Every setting: name, unit, default, environment variable.
//!
//! Order of precedence: flags, then `IVESK_WEBHOOK_…` variables, then the file,
//! then the defaults here. A misspelt or contradictory setting stops the start
//! and names itself.
//!
//! `load`, `accounts` and `destinations` turn text and variables into these types, `layers`
//! knows where each value came from, `check` says what a value must look like, and
//! `template` is the file that `init` writes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use sns_messages::Settings;
pub use sns_messages::TopicRule;
use url::Url;

use crate::domain::{Account, Company, DestinationName, Event, Queue};
use crate::egress;
use crate::ivesk::upload::{CorrelationKey, UploadOptions};
use crate::store::postgres::Address;
use crate::uploads::parameters;

mod accounts;
mod check;
mod destinations;
mod given;
mod layers;
mod load;
mod problem;
mod template;

pub use check::is_loopback;
pub use problem::{ConfigError, Origin, Problem, Setting};
pub use template::{FreshSettings, fresh_token};

/// The settings file that is looked for where none is named.
pub const DEFAULT_FILE: &str = "ivesk-webhook.toml";

/// What the name of every environment variable of ours begins with.
pub const VARIABLE_PREFIX: &str = "IVESK_WEBHOOK_";

/// All settings, checked against each other.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[public]`
    pub public: PublicConfig,
    /// `[admin]`
    pub admin: AdminConfig,
    /// `[store]`
    pub store: StoreConfig,
    /// `[sns]`
    pub sns: SnsConfig,
    /// `[api]`
    pub api: ApiConfig,
    /// `[pull]`
    pub pull: PullConfig,
    /// `[upload]`
    pub upload: UploadConfig,
    /// `[destinations.NAME]`: where documents are delivered; none by default.
    pub destinations: BTreeMap<DestinationName, DestinationConfig>,
    /// `[import_errors]`
    pub import_errors: ImportErrorsConfig,
    /// `[retention]`
    pub retention: RetentionConfig,
    /// `[alarms]`
    pub alarms: AlarmsConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[accounts.NAME]`, at least one.
    pub accounts: BTreeMap<Account, AccountConfig>,
    /// What programs of destinations may be given of the service's own variables.
    pub environment: Environment,
}

/// Variables of the process, without those of ours, which hold secrets.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// What of `all` may be passed on.
    fn of(all: &BTreeMap<String, String>) -> Self {
        let others = all
            .iter()
            .filter(|(name, _)| !name.starts_with(VARIABLE_PREFIX));
        Self(
            others
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        )
    }

    /// The variables by name.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl fmt::Debug for Environment {
    /// Without names and values: others' secrets stand there too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} variables]", self.0.len())
    }
}

/// The account's name where there is no reason for another: `default`.
pub fn default_account() -> Account {
    Account::parse("default").expect("a constant name is valid")
}

/// What differs between one machine's demo or test and another's.
#[derive(Clone, Debug)]
pub struct Loopback {
    /// Where SNS, emulated, reaches us. `public.url` is made from it, so a caller
    /// that lets the system choose the port sets [`PublicConfig::url`] afterwards.
    pub listen: SocketAddr,
    /// The database file.
    pub store: PathBuf,
    /// The emulated vendor's API.
    pub api_url: Url,
    /// The emulated vendor's key.
    pub api_key: SecretString,
    /// Origins of the emulated SNS.
    pub local_origins: Vec<String>,
    /// Companies whose exported queue is read from the start.
    pub companies: Vec<Company>,
}

impl Config {
    /// Settings for a demo or a test on one machine: one account `default` without
    /// tokens, admin listener on a port that the system chooses, the exported
    /// queue at `/exported/{company}`, all else at its default.
    pub fn for_loopback(setup: Loopback) -> Self {
        let mut public_url = Url::parse("http://127.0.0.1/").expect("a constant URL is valid");
        // Neither can fail: the URL has a host, and the address is one.
        let _ = public_url.set_ip_host(setup.listen.ip());
        let _ = public_url.set_port(Some(setup.listen.port()));
        let account = AccountConfig {
            api_key: Some(setup.api_key),
            companies: setup.companies,
            ..AccountConfig::default()
        };
        let api = ApiConfig {
            exported_path: Some(ExportedPath {
                template: "/exported/{company}".to_owned(),
            }),
            ..ApiConfig::at(setup.api_url)
        };
        Self {
            public: PublicConfig {
                listen: setup.listen,
                ..PublicConfig::at(public_url)
            },
            admin: AdminConfig {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                ..AdminConfig::default()
            },
            store: StoreConfig {
                url: StoreUrl::Sqlite(setup.store),
                ..StoreConfig::default()
            },
            sns: SnsConfig {
                local_origins: setup.local_origins,
                ..SnsConfig::default()
            },
            api,
            pull: PullConfig::default(),
            upload: UploadConfig::default(),
            destinations: BTreeMap::new(),
            import_errors: ImportErrorsConfig::default(),
            retention: RetentionConfig::default(),
            alarms: AlarmsConfig::default(),
            log: LogConfig::default(),
            accounts: BTreeMap::from([(default_account(), account)]),
            environment: Environment::default(),
        }
    }

    /// The account that the files of [`UploadConfig::watch`] go with.
    pub fn upload_account(&self) -> Option<(&Account, &AccountConfig)> {
        match &self.upload.account {
            Some(name) => self.accounts.get_key_value(name),
            None => self.accounts.first_key_value(),
        }
    }

    /// Where SNS is to deliver an account's event: the address to give to the vendor.
    ///
    /// A secret, since it holds the path's token: the first of the event's, or none
    /// where `public.url` is a loopback address and no token is set. `None` where
    /// there is no such account, or it has no token and needs one.
    pub fn webhook_target(&self, account: &Account, event: Event) -> Option<SecretString> {
        let settings = self.accounts.get(account)?;
        let base = self.public.url.as_str().trim_end_matches('/');
        let path = format!("{base}/webhooks/{account}/{event}");
        match settings
            .tokens
            .get(&event)
            .and_then(|tokens| tokens.first())
        {
            Some(token) => Some(format!("{path}/{}", token.expose_secret()).into()),
            None if is_loopback(&self.public.url) => Some(path.into()),
            None => None,
        }
    }
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
    /// `public.trusted_proxies`, default this machine: whose word on a request's id
    /// and on the address that it came from is believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl PublicConfig {
    /// The defaults, reached under `url`.
    pub fn at(url: Url) -> Self {
        Self {
            url,
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            max_connections: 2048,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(20),
            trusted_proxies: vec![
                IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
                IpNet::new_assert(Ipv6Addr::LOCALHOST.into(), 128),
            ],
        }
    }
}

/// The listener for people and programs of the house.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// `admin.listen`, default `127.0.0.1:8081`.
    pub listen: SocketAddr,
    /// `admin.token_file`, or `IVESK_WEBHOOK_ADMIN_TOKEN`: required where
    /// [`AdminConfig::listen`] is not a loopback address.
    pub token: Option<SecretString>,
    /// `admin.requests_per_second`, default 100: what one token, or this machine
    /// without one, may ask for; ten seconds' worth may come at once.
    pub requests_per_second: u32,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            token: None,
            requests_per_second: 100,
        }
    }
}

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
    Postgres(Address),
}

impl StoreUrl {
    /// Reads what the flag `name` gives, as `store.url` is read.
    ///
    /// # Errors
    ///
    /// What is wrong, for people; nothing of a password.
    pub fn parse(text: &str, name: &str) -> Result<Self, anyhow::Error> {
        check::store_url(text).map_err(|problem| anyhow::anyhow!("{name} {problem}"))
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

/// Trusted topics, and the confirmation of subscriptions.
#[derive(Clone, Debug)]
pub struct SnsConfig {
    /// `sns.topics`: trusted topics, default [`vendor_topic`]; never empty.
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

impl Default for SnsConfig {
    fn default() -> Self {
        Self {
            topics: vec![vendor_topic()],
            certificate_names: BTreeMap::new(),
            confirm: ConfirmMode::Auto,
            max_age: Settings::MAX_AGE,
            local_origins: Vec::new(),
        }
    }
}

impl SnsConfig {
    /// Returns the settings of verification and confirmation.
    pub fn settings(&self) -> Settings {
        Settings {
            topics: self.topics.clone(),
            certificate_names: self.certificate_names.clone(),
            max_age: self.max_age,
            local_origins: self.local_origins.clone(),
            user_agent: egress::USER_AGENT.to_owned(),
        }
    }
}

/// Returns the rule for the vendor's topics, as its published sample names one
/// (vendor-api U10).
pub fn vendor_topic() -> TopicRule {
    TopicRule {
        account: "007272210889".to_owned(),
        region: "eu-west-1".to_owned(),
        name_prefix: "DPWebHook_".to_owned(),
    }
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
    /// `api.subscribe_path` (U2): `None` until set; `subscriptions create --print` helps meanwhile.
    pub subscribe_path: Option<String>,
    /// `api.import_error_path` (U2): `None` until set; import errors are kept meanwhile.
    pub import_error_path: Option<String>,
    /// `api.import_error_type` (U7), default `application/json`: the Content-Type of an
    /// error report.
    pub import_error_type: String,
    /// `api.timeout`, default 30 s for one request, body included.
    pub timeout: Duration,
    /// `api.max_page_bytes`, default 32 MiB.
    pub max_page_bytes: usize,
    /// `api.file_hosts`: from where documents' files may be fetched, these hosts and
    /// those below them. Default the API's own and `amazonaws.com`, where S3 is.
    pub file_hosts: Vec<String>,
}

impl ApiConfig {
    /// The defaults, at another address.
    pub fn at(url: Url) -> Self {
        let own = url.host_str().map(str::to_owned);
        Self {
            file_hosts: own
                .into_iter()
                .chain(["amazonaws.com".to_owned()])
                .collect(),
            url,
            exported_path: None,
            subscribe_path: None,
            import_error_path: None,
            import_error_type: "application/json".to_owned(),
            timeout: Duration::from_secs(30),
            max_page_bytes: 32 * 1024 * 1024,
        }
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self::at(Url::parse("https://app.ivesk.lt/api/pub").expect("a constant URL is valid"))
    }
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
    /// `pull.lease`, default 2 min; longer than `api.timeout`. Destinations are leased for so long
    /// beyond their own `timeout`.
    pub lease: Duration,
}

impl Default for PullConfig {
    fn default() -> Self {
        Self {
            lookback: Duration::from_secs(24 * 60 * 60),
            follow_ups: [Duration::from_secs(30), Duration::from_secs(5 * 60)],
            reconcile_every: Duration::from_secs(60 * 60),
            requests_per_account: 1,
            lease: Duration::from_secs(2 * 60),
        }
    }
}

/// What `serve` uploads by itself, and what goes with every upload.
#[derive(Clone, Debug, Default)]
pub struct UploadConfig {
    /// `upload.watch`: a folder whose files `serve` uploads; none by default. Relative
    /// to the settings file.
    pub watch: Option<PathBuf>,
    /// `upload.account`: whose key the folder's files go with; needed where there are
    /// several accounts.
    pub account: Option<Account>,
    /// `upload.correlation_key`: under which name correlation data goes (vendor-api U4).
    pub correlation_key: CorrelationKey,
    /// `upload.parameters`: `name=value` pairs that go with every upload, where a flag
    /// does not say otherwise.
    pub parameters: Vec<String>,
}

impl UploadConfig {
    /// What goes with an upload that has nothing of its own.
    pub fn options(&self) -> UploadOptions {
        let mut options = UploadOptions {
            correlation_key: self.correlation_key,
            ..UploadOptions::default()
        };
        for parameter in &self.parameters {
            // Each was read once, when the settings were checked.
            let _ = parameters::add(&mut options, parameter);
        }
        options
    }
}

/// A place where documents are delivered.
#[derive(Clone, Debug)]
pub struct DestinationConfig {
    /// `queue`, default `exported`.
    pub queue: Queue,
    /// `accounts`: only documents of these; all where it is empty.
    pub accounts: Vec<Account>,
    /// `companies`: only documents of these; all where it is empty.
    pub companies: Vec<Company>,
    /// `history`: what becomes of what a feed's first pull brings.
    pub history: HistoryMode,
    /// `max_concurrency`, default 1, at most 16: documents that the destination is given side by side.
    /// With 1 they come in the order of their numbers.
    pub max_concurrency: usize,
    /// `timeout`, default 30 s: how long the destination may take for one document.
    pub timeout: Duration,
    /// `kind` and the settings that belong to it.
    pub kind: DestinationKind,
}

impl DestinationConfig {
    /// The defaults, for a destination of this kind.
    pub fn of(kind: DestinationKind) -> Self {
        Self {
            queue: Queue::Exported,
            accounts: Vec::new(),
            companies: Vec::new(),
            history: HistoryMode::default(),
            max_concurrency: 1,
            timeout: Duration::from_secs(30),
            kind,
        }
    }
}

/// What becomes of the documents of a feed until a person decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HistoryMode {
    /// `hold`: they wait for `destinations start`, or years of booked invoices would be booked
    /// again.
    #[default]
    Hold,
    /// `deliver`: everything is delivered, from each feed's beginning.
    Deliver,
}

/// What a destination is.
#[derive(Clone)]
pub enum DestinationKind {
    /// `http`: a POST, signed after the Standard Webhooks specification.
    Http {
        /// `url`: https; `http` on loopback only. What follows its `?` may be a secret.
        url: Url,
        /// `secret_file` or `IVESK_WEBHOOK_DESTINATIONS_<NAME>_SECRET`: `whsec_` and base64, a
        /// line each; every one signs, so that they can be changed without a pause.
        secrets: Vec<SecretString>,
    },
    /// `command`: a program that reads JSON from its standard input.
    Command {
        /// `program`: an absolute path, or one relative to the settings file.
        program: PathBuf,
        /// `arguments`
        arguments: Vec<String>,
        /// `environment`: names of the variables that it is given beside the few that
        /// every program is.
        environment: Vec<String>,
        /// Where it runs: the folder of the settings file.
        folder: PathBuf,
    },
    /// `folder`: JSON and PDF files.
    Folder {
        /// `path`, relative to the settings file.
        path: PathBuf,
        /// `layout`
        layout: FolderLayout,
        /// `files`, default true: whether the documents' PDFs are fetched.
        files: bool,
        /// `max_file_bytes`, default 64 MiB: a larger PDF is left out.
        max_file_bytes: u64,
    },
    /// `api`: a program asks for them, `GET /v1/documents?after=`.
    Api,
}

impl DestinationKind {
    /// The kind's name in the settings.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
            Self::Command { .. } => "command",
            Self::Folder { .. } => "folder",
            Self::Api => "api",
        }
    }
}

impl fmt::Debug for DestinationKind {
    /// The kind and its place, without secrets, arguments and the query of an address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct(self.as_str());
        match self {
            Self::Http { url, .. } => shown.field("url", &without_query(url)),
            Self::Command { program, .. } => shown.field("program", program),
            Self::Folder { path, layout, .. } => shown.field("path", path).field("layout", layout),
            Self::Api => return shown.finish(),
        };
        shown.finish_non_exhaustive()
    }
}

/// An address as it may be shown: what follows its `?` may be a secret.
fn without_query(url: &Url) -> String {
    let mut shown = url.clone();
    if shown.query().is_some() {
        shown.set_query(Some("[set]"));
    }
    shown.into()
}

/// How a folder destination lays out its files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FolderLayout {
    /// `company`: `<company>/`
    #[default]
    Company,
    /// `archiver`: `<company>/<YYYY-MM>/<Pirkimai|Pardavimai>/`, as the vendor's own
    /// archiver lays them out.
    Archiver,
}

/// How the vendor's accountant is told of what a destination rejected.
#[derive(Clone, Debug, Default)]
pub struct ImportErrorsConfig {
    /// `import_errors.language`, default `lt`.
    pub language: ImportErrorLanguage,
    /// `import_errors.template`: a text of one's own with `{message}` in it, in place of the
    /// language's.
    pub template: Option<String>,
}

/// The language of the texts for the accountant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImportErrorLanguage {
    /// `lt`
    #[default]
    Lithuanian,
    /// `en`
    English,
}

/// How long bodies are kept; identities are kept for ever.
#[derive(Clone, Debug)]
pub struct RetentionConfig {
    /// `retention.notifications`, default 30 d.
    pub notifications: Duration,
    /// `retention.documents`, default 400 d after a destination booked it; kept for ever where no
    /// destination does, or one still waits for it.
    pub documents: Duration,
    /// `retention.quarantine`, default 7 d.
    pub quarantine: Duration,
    /// `retention.quarantine_bytes`, default 64 MiB.
    pub quarantine_bytes: u64,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            notifications: 30 * DAY,
            documents: 400 * DAY,
            quarantine: 7 * DAY,
            quarantine_bytes: 64 * 1024 * 1024,
        }
    }
}

/// When something counts as wrong, and who is told.
#[derive(Clone, Debug)]
pub struct AlarmsConfig {
    /// `alarms.url` or `alarms.command`, one of them; none by default: then alarms are
    /// in the log and on the admin listener alone.
    pub target: Option<AlarmTarget>,
    /// `alarms.silence_after`, default 15 min: documents have been there so long, and no
    /// notification has come.
    pub silence_after: Duration,
    /// `alarms.behind_after`, default 2 h: a feed has not been up to date for so much
    /// longer than [`PullConfig::reconcile_every`].
    pub behind_after: Duration,
    /// `alarms.destination_after`, default 30 min: a destination has failed so long.
    pub destination_after: Duration,
    /// `alarms.refusals`, default 20: messages of one event refused within ten minutes.
    pub refusals: u64,
    /// `alarms.certificate_left`, default 7 d: a signing certificate ends sooner.
    pub certificate_left: Duration,
    /// `alarms.free_bytes`, default 1 GiB: the disk has less room.
    pub free_bytes: u64,
}

impl Default for AlarmsConfig {
    fn default() -> Self {
        Self {
            target: None,
            silence_after: Duration::from_secs(15 * 60),
            behind_after: Duration::from_secs(2 * 60 * 60),
            destination_after: Duration::from_secs(30 * 60),
            refusals: 20,
            certificate_left: Duration::from_secs(7 * 24 * 60 * 60),
            free_bytes: 1024 * 1024 * 1024,
        }
    }
}

/// Who is told of alarms.
#[derive(Clone, Debug)]
pub enum AlarmTarget {
    /// A POST goes to this address: https; `http` on loopback only. A secret, since
    /// chat programs give out addresses that anybody who knows them may post to.
    Url(SecretString),
    /// A program is run.
    Command(AlarmCommand),
}

/// A program that is given an alarm as JSON on its standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlarmCommand {
    /// An absolute path, or one relative to the settings file.
    pub program: PathBuf,
    /// What it is started with.
    pub arguments: Vec<String>,
}

/// What is written to standard error.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `log.format`: `"text"` (default) or `"json"`.
    pub format: LogFormat,
    /// `log.level`, default `info`; a `tracing` filter such as `info,ivesk_webhook::pull=debug`.
    pub level: String,
    /// `log.client_addresses`, default false: whether the line of a refused message
    /// names the address that it came from.
    pub client_addresses: bool,
    /// `log.otlp_url`: the collector that `serve` sends traces to; none by default. An
    /// address without a path means `/v1/traces` there.
    pub otlp_url: Option<Url>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
            client_addresses: false,
            otlp_url: None,
        }
    }
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

impl Default for AccountConfig {
    fn default() -> Self {
        Self {
            api_key: None,
            companies: Vec::new(),
            tokens: BTreeMap::new(),
            digitized: true,
        }
    }
}
