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
use super::api::ApiConfig;
use super::check::{self, excerpt, web_url};
use super::environment::{VARIABLE_PREFIX, variable_of};
use super::layers::{Layers, show};
use super::problem::HIDDEN;
use crate::domain::{Account, Company, DestinationName, Queue};

/// The settings of every destination.
const COMMON: [&str; 9] = [
    "kind",
    "queue",
    "accounts",
    "companies",
    "company_names",
    "document_types",
    "history",
    "max_concurrency",
    "timeout",
];

/// The further settings of each kind.
const KINDS: [(&str, &[&str]); 4] = [
    ("http", &["url", "secret_file", SECRET]),
    ("command", &["program", "arguments", "environment"]),
    (
        "folder",
        &["path", "layout", "files", "max_file_bytes", "file_mode"],
    ),
    ("list", &[]),
];

/// The variable of a secret that is never in the file.
const SECRET: &str = "secret";

/// Returns the most deliveries at once.
const fn most_at_once(kind: &DestinationKind) -> u8 {
    match kind {
        // The file system syncs together what several write at once.
        DestinationKind::Folder { files: false, .. } => 64,
        _ => 16,
    }
}

/// The greatest timeout: a hung destination is noticed within an hour.
const MAX_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Length of the key that a destination signs with (Standard Webhooks specification).
const WEBHOOK_KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Longest name of a company, and longest type of a document, in bytes.
const MAX_WORDS_BYTES: usize = 200;

/// The most secrets of one destination. A change needs two; each makes the header longer.
const MAX_WEBHOOK_SECRETS: usize = 8;

/// A place where documents are delivered.
#[derive(Clone, Debug)]
pub struct DestinationConfig {
    /// `queue`, default `exported`.
    pub queue: Queue,
    /// `accounts`: delivers only the documents of these; all if it is empty.
    pub accounts: Vec<Account>,
    /// `companies`: delivers only the documents of these; all if it is empty.
    pub companies: Vec<Company>,
    /// `company_names`: the names of these companies in the digitized queue, for documents that
    /// have no codes.
    pub company_names: Vec<String>,
    /// `document_types`: delivers only documents of these types; all if it is empty.
    pub document_types: Vec<String>,
    /// `history`: how the documents of a feed's first pull are treated.
    pub history: HistoryMode,
    /// `max_concurrency`: deliveries at once, 1 to 16. With 1, the default, they are made in order.
    /// For a folder without files it is 1 to 64, and 64 by default.
    pub max_concurrency: usize,
    /// `timeout`, default 30 s: how long the destination may take for one document.
    pub timeout: Duration,
    /// `kind` and the settings that belong to it.
    pub kind: DestinationKind,
}

impl DestinationConfig {
    /// Returns the defaults for a destination of this kind.
    pub fn of(kind: DestinationKind) -> Self {
        let max_concurrency = match kind {
            DestinationKind::Folder { files: false, .. } => most_at_once(&kind).into(),
            _ => 1,
        };
        Self {
            queue: Queue::Exported,
            accounts: Vec::new(),
            companies: Vec::new(),
            company_names: Vec::new(),
            document_types: Vec::new(),
            history: HistoryMode::default(),
            max_concurrency,
            timeout: Duration::from_secs(30),
            kind,
        }
    }

    /// Returns true if the documents themselves tell which of them it receives: lanes are made for
    /// feeds, and the digitized queue, or the only exported feed of a key, mixes companies.
    pub fn excludes_documents(&self, api: &ApiConfig) -> bool {
        let is_mixed = self.queue == Queue::Digitized || api.has_one_exported_feed();
        !self.document_types.is_empty() || (is_mixed && !self.companies.is_empty())
    }
}

/// The treatment of documents from before a lane begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HistoryMode {
    /// `hold`: they wait for `destinations start`, so that years of booked invoices are not booked
    /// again.
    #[default]
    Hold,
    /// `deliver`: everything is delivered.
    Deliver,
}

/// The kind of a destination, with its settings.
#[derive(Clone)]
pub enum DestinationKind {
    /// `http`: a POST, signed according to the Standard Webhooks specification.
    Http {
        /// `url`: https; `http` on loopback only. Its query may be a secret.
        url: Url,
        /// `secret_file` or `IVESK_WEBHOOK_DESTINATIONS_<NAME>_SECRET`: `whsec_` and base64, one
        /// a line; each signs, so that a secret is changed without a pause.
        secrets: Vec<SecretString>,
    },
    /// `command`: a program that reads JSON from its standard input.
    Command {
        /// `program`: an absolute path, or one relative to the settings file.
        program: PathBuf,
        /// `arguments`
        arguments: Vec<String>,
        /// `environment`: names of the variables that it receives beside the few of every program.
        environment: Vec<String>,
        /// Its working folder: that of the settings file.
        folder: PathBuf,
    },
    /// `folder`: JSON and PDF files.
    Folder {
        /// `path`, relative to the settings file.
        path: PathBuf,
        /// `layout`
        layout: FolderLayout,
        /// `files`, default true: true if the documents' PDFs are fetched.
        files: bool,
        /// `max_file_bytes`, default 64 MiB: a larger PDF is left out.
        max_file_bytes: u64,
        /// `file_mode`, default 0600: the permissions of the files.
        file_mode: FileMode,
    },
    /// `list`: a program requests them, `GET /v1/documents?after=`.
    List,
}

impl DestinationKind {
    /// Returns the kind's name in the settings.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
            Self::Command { .. } => "command",
            Self::Folder { .. } => "folder",
            Self::List => "list",
        }
    }
}

impl fmt::Debug for DestinationKind {
    /// Prints the kind and its place, without secrets, arguments and a URL's query.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct(self.as_str());
        match self {
            Self::Http { url, .. } => shown.field("url", &without_query(url)),
            Self::Command { program, .. } => shown.field("program", program),
            Self::Folder { path, layout, .. } => shown.field("path", path).field("layout", layout),
            Self::List => return shown.finish(),
        };
        shown.finish_non_exhaustive()
    }
}

/// Formats a URL without its query, which may be a secret.
fn without_query(url: &Url) -> String {
    let mut shown = url.clone();
    if shown.query().is_some() {
        shown.set_query(Some(HIDDEN));
    }
    shown.into()
}

/// Permissions of a folder destination's files; those who may read them may enter its folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(u16);

impl Default for FileMode {
    fn default() -> Self {
        Self(0o600)
    }
}

impl FileMode {
    /// Parses `0600`, `0640`, `0644` and similar: the owner may always read and write, nobody may
    /// run a file, and only the owner and the group may change one.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('0').unwrap_or(text);
        let is_octal =
            digits.len() == 3 && digits.bytes().all(|digit| (b'0'..b'8').contains(&digit));
        let mode = u16::from_str_radix(digits, 8).ok().filter(|_| is_octal)?;
        (mode & !0o664 == 0 && mode & 0o600 == 0o600).then_some(Self(mode))
    }

    /// Returns the permissions of files, as chmod(2) has them.
    pub fn of_files(self) -> u16 {
        self.0
    }

    /// Returns the permissions of the folders they are in.
    pub fn of_folders(self) -> u16 {
        self.0 | 0o100 | (self.0 & 0o044) >> 2
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// The layout of a folder destination's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FolderLayout {
    /// `company`: `<company>/`
    #[default]
    Company,
    /// `archiver`: `<company>/<YYYY-MM>/<Pirkimai|Pardavimai>/`, as the vendor's own
    /// archiver lays them out.
    Archiver,
    /// `archiver-names`: the same with exactly the archiver's names.
    ArchiverNames,
}

/// Reads `[destinations.NAME]`.
pub(super) fn read(
    layers: &mut Layers<'_>,
    accounts: &BTreeMap<Account, AccountConfig>,
) -> BTreeMap<DestinationName, DestinationConfig> {
    let mut destinations = BTreeMap::new();
    let mut variables: BTreeMap<String, DestinationName> = BTreeMap::new();
    let mut folders: BTreeMap<PathBuf, DestinationName> = BTreeMap::new();
    for name in names(layers) {
        if let Some(twin) = variables.insert(variable_of(name.as_str()), name.clone()) {
            layers.report(
                &format!("destinations.{name}"),
                format!("has the same variables as the destination `{twin}`; rename one of them"),
            );
        }
        let Some(destination) = destination(layers, &name, accounts) else {
            continue;
        };
        if let DestinationKind::Folder { path, .. } = &destination.kind
            && let Some(twin) = folders.insert(check::normalized(path), name.clone())
        {
            layers.report(
                &format!("destinations.{name}.path"),
                format!("is the folder of the destination `{twin}`; use different folders"),
            );
        }
        destinations.insert(name, destination);
    }
    destinations
}

/// Returns the destinations of the file, or else those of the variables.
fn names(layers: &mut Layers<'_>) -> Vec<DestinationName> {
    let mut names = layers.names_below("destinations");
    if names.is_empty() {
        let of_kinds = KINDS.iter().flat_map(|(_, settings)| settings.iter());
        let settings: Vec<&str> = COMMON.iter().chain(of_kinds).copied().collect();
        names = layers.names_in_variables("destinations", &settings);
    }
    let mut valid = Vec::new();
    for name in names {
        match DestinationName::parse(&name) {
            Ok(name) => valid.push(name),
            Err(error) => layers.report(&format!("destinations.{name}"), error.to_string()),
        }
    }
    valid
}

/// Reads one destination; none if its kind, or a required setting, is missing or invalid.
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
        _ => Some(DestinationKind::List),
    });
    reject_other_kinds(layers, name, kind_name);
    // Without a valid kind the section's other settings are still checked.
    let is_valid = kind.is_some();
    let default = DestinationConfig::of(kind.unwrap_or(DestinationKind::List));
    let config = DestinationConfig {
        queue: layers.text(
            &setting("queue"),
            default.queue,
            |text| {
                Queue::parse(text).ok_or_else(|| {
                    "is neither \"exported\" nor \"digitized\"; write one of them".to_owned()
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
        company_names: words(layers, &setting("company_names"), "the name of a company"),
        document_types: words(layers, &setting("document_types"), "the type of a document"),
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
            1..=most_at_once(&default.kind).into(),
        ),
        timeout: layers.duration(&setting("timeout"), default.timeout),
        kind: default.kind,
    };
    if config.timeout > MAX_TIMEOUT {
        layers.report(
            &setting("timeout"),
            "is longer than an hour, during which a hung destination would block a document; write \
             a shorter time span",
        );
    }
    if !config.company_names.is_empty()
        && (config.companies.is_empty() || config.queue != Queue::Digitized)
    {
        layers.report(
            &setting("company_names"),
            "names the companies of `companies` where documents of the digitized queue have no codes; \
             set `companies` and `queue = \"digitized\"` too, or remove it",
        );
    }
    is_valid.then_some(config)
}

/// Reads a list of texts, each of which is `what`.
fn words(layers: &mut Layers<'_>, setting: &str, what: &str) -> Vec<String> {
    let parse = |text: &str| {
        let text = text.trim();
        match text.chars().any(char::is_alphanumeric) && text.len() <= MAX_WORDS_BYTES {
            true => Ok(text.to_owned()),
            false => Err(format!(
                "`{}` is not {what}: write it as Įvesk.lt does, in at most {MAX_WORDS_BYTES} bytes",
                excerpt(text)
            )),
        }
    };
    layers.list(setting, Vec::new(), parse, |text| text.as_str().into())
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
            "contains `{account}`, and there is no [accounts.{account}]"
        ))
    }
}

fn kind_name(layers: &mut Layers<'_>, setting: &str) -> Option<&'static str> {
    const HOW: &str = "write \"http\", \"command\", \"folder\" or \"list\"";
    let kind = layers.text(
        setting,
        None,
        |text| {
            let known = KINDS.iter().find(|(name, _)| *name == text);
            known
                .map(|(name, _)| Some(*name))
                .ok_or_else(|| format!("is an unknown kind; {HOW}"))
        },
        |kind| json!(kind),
    );
    if kind.is_none() && !layers.is_invalid(setting) {
        layers.report(setting, format!("is not set; {HOW}"));
    }
    kind
}

/// Reports settings that belong to destinations of another kind.
fn reject_other_kinds(layers: &mut Layers<'_>, name: &DestinationName, kind: Option<&str>) {
    for (other, settings) in KINDS {
        for leaf in settings {
            let setting = format!("destinations.{name}.{leaf}");
            match kind {
                Some(kind) if kind == other => {}
                Some(kind) => layers.reject_if_set(&setting, || {
                    format!(
                        "belongs to destinations of kind `{other}`, and this is of kind `{kind}`; \
                         remove it"
                    )
                }),
                // The kind is what is wrong; which settings belong to it is unknown.
                None => layers.ignore(&setting),
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
    if secrets.is_none() && !layers.is_invalid(&setting) {
        layers.report(
            &setting,
            format!(
                "is not set, and requests must be signed; write whsec_ followed by the output of \
                 `openssl rand -base64 32` into a file and name it here, or set {variable}"
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
    let arguments = layers.list(
        &format!("destinations.{name}.arguments"),
        Vec::new(),
        |text| Ok(text.to_owned()),
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
            "archiver-names" => Ok(FolderLayout::ArchiverNames),
            _ => Err(
                "is not \"company\", \"archiver\" or \"archiver-names\"; write one of them"
                    .to_owned(),
            ),
        },
        |layout| match layout {
            FolderLayout::Company => "company".into(),
            FolderLayout::Archiver => "archiver".into(),
            FolderLayout::ArchiverNames => "archiver-names".into(),
        },
    );
    let files = layers.read(
        &format!("destinations.{name}.files"),
        true,
        |value, _| value.switch(),
        |switch| (*switch).into(),
    );
    let max_file_bytes = layers.number(
        &format!("destinations.{name}.max_file_bytes"),
        64 * 1024 * 1024_u64,
        1024..=1 << 32,
    );
    let file_mode = layers.text(
        &format!("destinations.{name}.file_mode"),
        FileMode::default(),
        |text| {
            FileMode::parse(text).ok_or_else(|| {
                "is not a file's permissions in octal digits; write \"0600\" for the service's user \
                 alone, \"0640\" if its group may read, or \"0644\" if everybody may"
                    .to_owned()
            })
        },
        show,
    );
    Some(DestinationKind::Folder {
        path: path?,
        layout,
        files,
        max_file_bytes,
        file_mode,
    })
}

/// Reads a required text; `how` is the advice if it is missing.
fn required<T>(
    layers: &mut Layers<'_>,
    setting: &str,
    how: &str,
    parse: impl FnOnce(&str, &Layers<'_>) -> Result<T, String>,
    show: impl Fn(&T) -> Value,
) -> Option<T> {
    let value = layers.read(
        setting,
        None,
        |value, layers| parse(value.text()?, layers).map(Some),
        |value| value.as_ref().map_or(Value::Null, show),
    );
    if value.is_none() && !layers.is_invalid(setting) {
        layers.report(setting, format!("is not set; {how}"));
    }
    value
}

/// Parses `destinations.NAME.url`.
fn destination_url(text: &str) -> Result<Url, String> {
    let url = web_url(text, "write one such as https://books.example.lt/ivesk")?;
    if url.fragment().is_some() {
        return Err("contains #; remove it and what follows".to_owned());
    }
    Ok(url)
}

/// Checks the secrets that sign, separated by white space (Standard Webhooks specification,
/// "Signature scheme"), without repeating them in messages.
fn webhook_secrets(text: &str) -> Result<SecretString, String> {
    let is_secret = |word: &str| {
        let key = word.strip_prefix("whsec_").map(|key| STANDARD.decode(key));
        matches!(key, Some(Ok(key)) if WEBHOOK_KEY_BYTES.contains(&key.len()))
    };
    let count = text.split_whitespace().count();
    if !(1..=MAX_WEBHOOK_SECRETS).contains(&count) || !text.split_whitespace().all(is_secret) {
        return Err(format!(
            "a secret is not whsec_ followed by {} to {} bytes in base64, or there are more than \
             {MAX_WEBHOOK_SECRETS}; write whsec_ followed by the output of `openssl rand -base64 \
             32`, one secret a line",
            WEBHOOK_KEY_BYTES.start(),
            WEBHOOK_KEY_BYTES.end()
        ));
    }
    Ok(text.into())
}

/// Checks the name of a variable that a program receives.
fn passed_variable(text: &str) -> Result<String, String> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.is_empty()
        || !text.chars().all(in_name)
        || text.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err(format!(
            "`{}` is not the name of a variable (A-Z, a-z, 0-9 and _); write the name alone",
            excerpt(text)
        ));
    }
    if text.starts_with(VARIABLE_PREFIX) {
        return Err(format!(
            "contains {text}, and {VARIABLE_PREFIX}… variables contain this service's own secrets; \
             use another variable for the program"
        ));
    }
    Ok(text.to_owned())
}
