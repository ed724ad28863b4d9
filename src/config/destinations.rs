//! `[destinations.NAME]`: where documents are delivered.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use url::Url;

use super::accounts::{AccountConfig, companies};
use super::check::{shortened, web_url};
use super::environment::{VARIABLE_PREFIX, variable_of};
use super::layers::Layers;
use crate::domain::{Account, Company, DestinationName, Queue};

/// How long a key is that a destination signs with (Standard Webhooks specification).
const WEBHOOK_KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A new one and the old one are two; each makes the header longer.
const MAX_WEBHOOK_SECRETS: usize = 8;

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

/// What every destination has.
const COMMON: [&str; 7] = [
    "kind",
    "queue",
    "accounts",
    "companies",
    "history",
    "max_concurrency",
    "timeout",
];

/// What the destinations of one kind have beside that.
const KINDS: [(&str, &[&str]); 4] = [
    ("http", &["url", "secret_file", SECRET]),
    ("command", &["program", "arguments", "environment"]),
    ("folder", &["path", "layout", "files", "max_file_bytes"]),
    ("api", &[]),
];

/// A variable without a setting beside it.
const SECRET: &str = "secret";

/// The longest that one document may take, so that a destination which hangs is seen to.
const MAX_TIMEOUT_SECONDS: u64 = 60 * 60;

/// `[destinations.NAME]`
pub(super) fn read(
    layers: &mut Layers<'_>,
    accounts: &BTreeMap<Account, AccountConfig>,
) -> BTreeMap<DestinationName, DestinationConfig> {
    let mut destinations = BTreeMap::new();
    let mut variables: BTreeMap<String, DestinationName> = BTreeMap::new();
    let mut folders: BTreeMap<PathBuf, DestinationName> = BTreeMap::new();
    for name in names(layers) {
        if let Some(twin) = variables.insert(variable_of(name.as_str()), name.clone()) {
            layers.contradiction(
                &format!("destinations.{name}"),
                format!("has the same variables as the destination `{twin}`; rename one of them"),
            );
        }
        let Some(destination) = destination(layers, &name, accounts) else {
            continue;
        };
        if let DestinationKind::Folder { path, .. } = &destination.kind
            && let Some(twin) = folders.insert(path.clone(), name.clone())
        {
            layers.contradiction(
                &format!("destinations.{name}.path"),
                format!("is the folder of the destination `{twin}`; give each its own"),
            );
        }
        destinations.insert(name, destination);
    }
    destinations
}

/// The destinations that the file names; where it names none, those of the variables.
fn names(layers: &mut Layers<'_>) -> Vec<DestinationName> {
    let mut names = layers.names_below("destinations");
    if names.is_empty() {
        let own = KINDS.iter().flat_map(|(_, settings)| settings.iter());
        let settings: Vec<&str> = COMMON.iter().chain(own).copied().collect();
        names = layers.names_in_variables("destinations", &settings);
    }
    let mut usable = Vec::new();
    for name in names {
        match DestinationName::parse(&name) {
            Ok(name) => usable.push(name),
            Err(error) => layers.contradiction(&format!("destinations.{name}"), error.to_string()),
        }
    }
    usable
}

/// One destination; none where its kind, or what it can't do without, is missing or wrong.
fn destination(
    layers: &mut Layers<'_>,
    name: &DestinationName,
    accounts: &BTreeMap<Account, AccountConfig>,
) -> Option<DestinationConfig> {
    let setting = |leaf: &str| format!("destinations.{name}.{leaf}");
    let kind_name = kind_name(layers, &setting("kind"));
    let kind = kind_name.and_then(|kind| match kind {
        "http" => http(layers, name),
        "command" => command(layers, name),
        "folder" => folder(layers, name),
        _ => Some(DestinationKind::Api),
    });
    refuse_other_kinds(layers, name, kind_name);
    // The stand-in lets the other settings of the section be judged all the same.
    let default = DestinationConfig::of(kind.clone().unwrap_or(DestinationKind::Api));
    let read = DestinationConfig {
        queue: layers.text(
            &setting("queue"),
            default.queue,
            |text| {
                Queue::parse(text).ok_or_else(|| {
                    "is neither \"exported\" nor \"digitized\"; write one".to_owned()
                })
            },
            |queue| queue.as_str().into(),
        ),
        accounts: layers.list(
            &setting("accounts"),
            default.accounts,
            |text| known_account(text, accounts),
            |account| account.as_str().into(),
        ),
        companies: companies(layers, &setting("companies")),
        history: layers.text(
            &setting("history"),
            default.history,
            |text| match text {
                "hold" => Ok(HistoryMode::Hold),
                "deliver" => Ok(HistoryMode::Deliver),
                _ => Err("is neither \"hold\" nor \"deliver\"; write one of them".to_owned()),
            },
            |history| match history {
                HistoryMode::Hold => "hold".into(),
                HistoryMode::Deliver => "deliver".into(),
            },
        ),
        max_concurrency: layers.number(
            &setting("max_concurrency"),
            default.max_concurrency,
            1..=16,
        ),
        timeout: layers.duration(&setting("timeout"), default.timeout),
        kind: default.kind,
    };
    if read.timeout.as_secs() > MAX_TIMEOUT_SECONDS {
        layers.contradiction(
            &setting("timeout"),
            "is more than an hour, for which a destination that hangs would keep a document waiting; \
             write a shorter one",
        );
    }
    kind.map(|_| read)
}

fn known_account(
    text: &str,
    accounts: &BTreeMap<Account, AccountConfig>,
) -> Result<Account, String> {
    let account = Account::parse(text).map_err(|error| error.to_string())?;
    if accounts.contains_key(&account) {
        Ok(account)
    } else {
        Err(format!(
            "names `{account}`, and there is no [accounts.{account}]"
        ))
    }
}

fn kind_name(layers: &mut Layers<'_>, setting: &str) -> Option<&'static str> {
    const HOW: &str = "write \"http\", \"command\", \"folder\" or \"api\"";
    let kind = layers.text(
        setting,
        None,
        |text| {
            let known = KINDS.iter().find(|(name, _)| *name == text);
            known
                .map(|(name, _)| Some(*name))
                .ok_or_else(|| format!("names a kind that is not known; {HOW}"))
        },
        |kind| json!(kind),
    );
    if kind.is_none() && !layers.has_failed(setting) {
        layers.contradiction(setting, format!("is not set; {HOW}"));
    }
    kind
}

/// Notes what was given and belongs to destinations of another kind.
fn refuse_other_kinds(layers: &mut Layers<'_>, name: &DestinationName, kind: Option<&str>) {
    for (other, settings) in KINDS {
        for leaf in settings {
            let setting = format!("destinations.{name}.{leaf}");
            match kind {
                Some(kind) if kind == other => {}
                Some(kind) => layers.out_of_place(&setting, || {
                    format!(
                        "belongs to destinations of the kind `{other}`, and this is `{kind}`; remove it"
                    )
                }),
                // What is wrong is the kind; what was meant is not known.
                None => layers.leave_unjudged(&setting),
            }
        }
    }
}

fn http(layers: &mut Layers<'_>, name: &DestinationName) -> Option<DestinationKind> {
    let url = required(
        layers,
        &format!("destinations.{name}.url"),
        "write the https address to which documents are posted",
        |text, _| destination_url(text),
        |url: &Url| without_query(url).into(),
    );
    let setting = format!("destinations.{name}.secret_file");
    let variable = variable_of(&format!("destinations.{name}.{SECRET}"));
    let secrets = layers.secret(&setting, &variable, webhook_secrets);
    if secrets.is_none() && !layers.has_failed(&setting) {
        layers.contradiction(
            &setting,
            format!(
                "is not set, and what is posted must be signed; write whsec_ and the output of \
                 `openssl rand -base64 32` behind it into a file and name that, or set {variable}"
            ),
        );
    }
    let secrets = secrets?;
    let secrets = secrets.expose_secret().split_whitespace();
    Some(DestinationKind::Http {
        secrets: secrets.map(SecretString::from).collect(),
        url: url?,
    })
}

fn command(layers: &mut Layers<'_>, name: &DestinationName) -> Option<DestinationKind> {
    let program = required(
        layers,
        &format!("destinations.{name}.program"),
        "write the program's path",
        |text, layers| Ok(layers.path(text)),
        |program: &PathBuf| json!(program),
    );
    let text = |text: &str| Ok(text.to_owned());
    let arguments = layers.list(
        &format!("destinations.{name}.arguments"),
        Vec::new(),
        text,
        |argument| argument.as_str().into(),
    );
    let environment = layers.list(
        &format!("destinations.{name}.environment"),
        Vec::new(),
        passed_variable,
        |variable| variable.as_str().into(),
    );
    Some(DestinationKind::Command {
        program: program?,
        arguments,
        environment,
        folder: layers.path(""),
    })
}

fn folder(layers: &mut Layers<'_>, name: &DestinationName) -> Option<DestinationKind> {
    let path = required(
        layers,
        &format!("destinations.{name}.path"),
        "write the folder's path",
        |text, layers| Ok(layers.path(text)),
        |path: &PathBuf| json!(path),
    );
    let layout = layers.text(
        &format!("destinations.{name}.layout"),
        FolderLayout::default(),
        |text| match text {
            "company" => Ok(FolderLayout::Company),
            "archiver" => Ok(FolderLayout::Archiver),
            _ => Err("is neither \"company\" nor \"archiver\"; write one of them".to_owned()),
        },
        |layout| match layout {
            FolderLayout::Company => "company".into(),
            FolderLayout::Archiver => "archiver".into(),
        },
    );
    let files = layers.read(
        &format!("destinations.{name}.files"),
        true,
        |given, _| given.switch(),
        |switch| (*switch).into(),
    );
    let max_file_bytes = layers.number(
        &format!("destinations.{name}.max_file_bytes"),
        64 * 1024 * 1024_u64,
        1024..=1 << 32,
    );
    Some(DestinationKind::Folder {
        path: path?,
        layout,
        files,
        max_file_bytes,
    })
}

/// A text without which the destination can't be; `how` is the advice where it is missing.
fn required<T>(
    layers: &mut Layers<'_>,
    setting: &str,
    how: &str,
    check: impl FnOnce(&str, &Layers<'_>) -> Result<T, String>,
    show: impl Fn(&T) -> Value,
) -> Option<T> {
    let value = layers.read(
        setting,
        None,
        |given, layers| check(given.text()?, layers).map(Some),
        |value| value.as_ref().map_or(Value::Null, show),
    );
    if value.is_none() && !layers.has_failed(setting) {
        layers.contradiction(setting, format!("is not set; {how}"));
    }
    value
}

/// `destinations.NAME.url`
fn destination_url(text: &str) -> Result<Url, String> {
    let url = web_url(
        text,
        "write an address such as https://books.example.lt/ivesk",
    )?;
    if url.fragment().is_some() {
        return Err("holds a #, which no server is sent; remove it and what follows".to_owned());
    }
    Ok(url)
}

/// The secrets that a destination signs with, white space between them (Standard Webhooks
/// specification, "Signature scheme"). Never repeated in advice.
fn webhook_secrets(text: &str) -> Result<SecretString, String> {
    let is_secret = |word: &str| {
        let key = word.strip_prefix("whsec_").map(|key| STANDARD.decode(key));
        matches!(key, Some(Ok(key)) if WEBHOOK_KEY_BYTES.contains(&key.len()))
    };
    let count = text.split_whitespace().count();
    if !(1..=MAX_WEBHOOK_SECRETS).contains(&count) || !text.split_whitespace().all(is_secret) {
        return Err(format!(
            "a secret is not whsec_ with the base64 of {} to {} bytes behind it, or there are more \
             than {MAX_WEBHOOK_SECRETS}; write whsec_ and the output of `openssl rand -base64 32` \
             behind it, each secret on a line of its own",
            WEBHOOK_KEY_BYTES.start(),
            WEBHOOK_KEY_BYTES.end()
        ));
    }
    Ok(text.into())
}

/// The name of a variable that a program is to be given.
fn passed_variable(text: &str) -> Result<String, String> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.is_empty()
        || !text.chars().all(in_name)
        || text.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err(format!(
            "`{}` is not the name of a variable (A-Z, a-z, 0-9 and _); write the name alone",
            shortened(text)
        ));
    }
    if text.starts_with(VARIABLE_PREFIX) {
        return Err(format!(
            "names {text}, and {VARIABLE_PREFIX}… variables hold this service's own secrets; give \
             the program a variable of its own"
        ));
    }
    Ok(text.to_owned())
}
