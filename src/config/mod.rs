//! Every setting: name, unit, default, environment variable.
//!
//! Precedence: flags, then `IVESK_WEBHOOK_…` variables, then the file, then the defaults here. A
//! misspelled or contradictory setting stops the start with a message that names it.
//!
//! One file for each section contains its type, its defaults and how it is read. `layers` combines
//! file and variables, `check` checks single values, and `template` is the file that `init` writes.
//! A new setting needs four places: the section's type and `read` function, `template`, and
//! `docs/settings.md`; a test compares them.
//!
//! Imports [`crate::domain`] only, constants of [`crate::egress`], and types of
//! [`crate::sns`].

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::domain::{Account, Company, DestinationName, Event};

mod accounts;
mod admin;
mod alarms;
mod api;
mod check;
mod destinations;
mod egress;
mod environment;
mod import_errors;
mod layers;
mod load;
mod log;
mod pages;
mod postgres;
mod problem;
mod public;
mod pull;
mod retention;
mod sns;
mod store;
mod template;
mod upload;
mod value;

pub use accounts::{AccountConfig, default_account};
pub use admin::AdminConfig;
pub use alarms::{AlarmCommand, AlarmEmail, AlarmTarget, AlarmsConfig, EmailTls};
pub use api::{ApiConfig, ExportedPath, ForbiddenLink};
pub use check::did_you_mean;
pub use destinations::{DestinationConfig, DestinationKind, FileMode, FolderLayout, HistoryMode};
pub use egress::EgressConfig;
pub use environment::{Environment, VARIABLE_PREFIX};
pub use import_errors::{ImportErrorLanguage, ImportErrorsConfig};
pub use log::{LogConfig, LogFormat};
pub use pages::PagesConfig;
pub use postgres::{Encryption, PostgresAddress};
pub use problem::{ConfigError, Origin, Problem, Setting};
pub use public::PublicConfig;
pub use pull::PullConfig;
pub use retention::RetentionConfig;
pub use sns::{ConfirmMode, SnsConfig, vendor_topic, vendor_topics};
pub use sns_messages::TopicRule;
pub use sns_messages::http::is_loopback;
pub use store::{StoreConfig, StoreUrl};
pub use template::{FreshSettings, fresh_token};
pub use upload::{CorrelationKey, UploadConfig, UploadOptions};

/// The settings file that is read if none is named.
pub const DEFAULT_FILE: &str = "ivesk-webhook.toml";

/// The settings file of a service of this system, which is used where the working folder has none.
pub const SYSTEM_FILE: &str = "/etc/ivesk-webhook/ivesk-webhook.toml";

/// All settings, checked against each other.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[public]`
    pub public: PublicConfig,
    /// `[admin]`
    pub admin: AdminConfig,
    /// `[pages]`
    pub pages: PagesConfig,
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
    /// `[egress]`
    pub egress: EgressConfig,
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
    /// The service's own variables, for programs of destinations that name some.
    pub environment: Environment,
    /// Files that secrets were read from, and what each holds; the settings among them if they hold some.
    pub secret_files: Vec<(PathBuf, String)>,
    /// Digest of what the settings file sets, in hexadecimal digits, so that two processes can tell
    /// whether they were started with the same.
    pub file_digest: String,
}

/// The parts of [`Config::for_loopback`] that differ between demos and tests.
#[derive(Clone, Debug)]
pub struct Loopback {
    /// The address where the emulated SNS reaches the service. `public.url` is made from it, so a
    /// caller that lets the system choose the port sets [`PublicConfig::url`] afterwards.
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
    /// Returns the time without the end of a pull after which a feed is behind.
    pub fn behind_after(&self) -> Duration {
        self.pull.reconcile_every + self.alarms.behind_after
    }

    /// Returns settings for a demo or a test on one machine: one account `default` without
    /// tokens, the admin listener on a port that the system chooses, the exported queue at
    /// `/exported/{company}`, everything else at its default.
    pub fn for_loopback(setup: Loopback) -> Self {
        let mut public_url = Url::parse("http://127.0.0.1/").expect("a constant URL is valid");
        // Neither can fail: the URL has a host, and the address is valid.
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
                socket: admin::default_socket(&setup.store),
                ..AdminConfig::default()
            },
            pages: PagesConfig::default(),
            store: StoreConfig {
                backup_dir: setup.store.with_file_name("backups"),
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
            egress: EgressConfig::default(),
            retention: RetentionConfig::default(),
            alarms: AlarmsConfig::default(),
            log: LogConfig::default(),
            accounts: BTreeMap::from([(default_account(), account)]),
            environment: Environment::default(),
            secret_files: Vec::new(),
            file_digest: String::new(),
        }
    }

    /// Returns what is probably wrong with the codes of companies.
    pub fn doubted_companies(&self) -> Vec<String> {
        let accounts = self.accounts.iter();
        accounts
            .flat_map(|(name, account)| {
                account.companies.iter().map(move |company| (name, company))
            })
            .filter_map(|(name, company)| {
                Some(format!("`accounts.{name}.companies`: {}", company.doubt()?))
            })
            .collect()
    }

    /// Returns the account that uploads the files of [`UploadConfig::watch`].
    pub fn upload_account(&self) -> Option<(&Account, &AccountConfig)> {
        match &self.upload.account {
            Some(name) => self.accounts.get_key_value(name),
            None => self.accounts.first_key_value(),
        }
    }

    /// Returns the URL to which SNS posts an account's event, as the vendor needs it.
    ///
    /// A secret, since it contains a token: the event's first, or none if `public.url` is a
    /// loopback address and no token is set. `None` if there is no such account, or it has no
    /// token and needs one.
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
