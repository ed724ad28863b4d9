//! `[accounts.NAME]`: API keys at the vendor, their companies and tokens.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

use super::check::{MIN_TOKEN_CHARS, is_loopback};
use super::environment::{VARIABLE_PREFIX, variable_of};
use super::layers::Layers;
use super::problem::HIDDEN;
use super::public::PublicConfig;
use super::value::ConfigValue;
use crate::domain::{Account, Company, Event};

/// The settings of an account.
const ACCOUNT_SETTINGS: [&str; 5] = [
    "tokens.on_exported",
    "tokens.on_digitized",
    "api_key_file",
    "companies",
    "digitized",
];

/// The API key of a single account; `_<NAME>` is appended for one of several.
const API_KEY_VARIABLE: &str = "IVESK_WEBHOOK_API_KEY";

/// The greatest length of a token: it is a segment of a URL.
const MAX_TOKEN_CHARS: usize = 200;

/// One API key at the vendor.
#[derive(Clone, Debug)]
pub struct AccountConfig {
    /// `api_key_file`, or `IVESK_WEBHOOK_API_KEY_<NAME>` (`IVESK_WEBHOOK_API_KEY` for a single
    /// account). `None`: notifications are kept, and nothing is pulled.
    pub api_key: Option<SecretString>,
    /// `companies`: codes whose exported queue is read from the start.
    pub companies: Vec<Company>,
    /// `tokens.on_exported` and `tokens.on_digitized`: the accepted secret segments of the
    /// webhook's path; the first is used for new subscriptions.
    pub tokens: BTreeMap<Event, Vec<SecretString>>,
    /// `digitized`, default true: true if the digitized queue is reconciled without
    /// notifications.
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

/// Returns the name of an account that needs no other: `default`.
pub fn default_account() -> Account {
    Account::parse("default").expect("a constant name is valid")
}

/// Reads `[accounts.NAME]`.
pub(super) fn read(
    layers: &mut Layers<'_>,
    public: Option<&PublicConfig>,
) -> BTreeMap<Account, AccountConfig> {
    let names = account_names(layers);
    let mut key_variables: BTreeMap<String, Account> = BTreeMap::new();
    let mut accounts = BTreeMap::new();
    for name in &names {
        let own = format!("{API_KEY_VARIABLE}_{}", environment_name(name));
        if let Some(twin) = key_variables.insert(own.clone(), name.clone()) {
            layers.report(
                &format!("accounts.{name}"),
                format!("has the same variables as the account `{twin}`; rename one of them"),
            );
        }
        let is_only_key = names.len() == 1 && layers.has_variable(API_KEY_VARIABLE);
        let key_variable = if is_only_key {
            API_KEY_VARIABLE.to_owned()
        } else {
            own
        };
        accounts.insert(name.clone(), account(layers, name, &key_variable));
    }
    if names.len() > 1 && layers.has_variable(API_KEY_VARIABLE) {
        layers.report(
            API_KEY_VARIABLE,
            format!(
                "is ambiguous, since there are {} accounts; use {API_KEY_VARIABLE}_<NAME>, with the \
                 account's name in capitals",
                names.len()
            ),
        );
    }
    let needs_tokens = public.is_some_and(|public| !is_loopback(&public.url));
    check_tokens(layers, &accounts, needs_tokens);
    accounts
}

/// Returns the accounts of the file, or else those of the variables, or else `default`.
fn account_names(layers: &mut Layers<'_>) -> Vec<Account> {
    let mut names = Vec::new();
    for name in layers.names_below("accounts") {
        match Account::parse(&name) {
            Ok(account) => names.push(account),
            Err(error) => layers.report(&format!("accounts.{name}"), error.to_string()),
        }
    }
    if names.is_empty() {
        names = layers
            .names_in_variables("accounts", &ACCOUNT_SETTINGS)
            .iter()
            .filter_map(|name| Account::parse(name).ok())
            .collect();
    }
    if names.is_empty() {
        names.push(default_account());
    }
    names
}

/// Returns an account's name as variables spell it.
fn environment_name(account: &Account) -> String {
    let variable = variable_of(account.as_str());
    variable.trim_start_matches(VARIABLE_PREFIX).to_owned()
}

fn account(layers: &mut Layers<'_>, name: &Account, key_variable: &str) -> AccountConfig {
    let setting = |leaf: &str| format!("accounts.{name}.{leaf}");
    let tokens = Event::ALL.into_iter().map(|event| {
        let tokens = layers.list(
            &setting(&format!("tokens.{event}")),
            Vec::new(),
            token,
            |_: &SecretString| HIDDEN.into(),
        );
        (event, tokens)
    });
    let tokens = tokens.filter(|(_, tokens)| !tokens.is_empty()).collect();
    let default = AccountConfig::default();
    AccountConfig {
        api_key: layers.secret(&setting("api_key_file"), key_variable, api_key),
        companies: companies(layers, &setting("companies")),
        tokens,
        digitized: layers.read(
            &setting("digitized"),
            default.digitized,
            |value, _| value.switch(),
            |switch| (*switch).into(),
        ),
    }
}

/// Reads a list of company codes without duplicates.
pub(super) fn companies(layers: &mut Layers<'_>, name: &str) -> Vec<Company> {
    let parse = |value: &ConfigValue, _: &Layers<'_>| {
        let mut companies = Vec::new();
        for code in value.list()? {
            let company = Company::parse(&code).map_err(|error| error.to_string())?;
            if companies.contains(&company) {
                return Err(format!("contains `{company}` twice; write it once"));
            }
            companies.push(company);
        }
        Ok(companies)
    };
    layers.read(name, Vec::new(), parse, |companies| {
        companies
            .iter()
            .map(Company::as_str)
            .collect::<Vec<_>>()
            .into()
    })
}

/// Reports tokens that are used twice, since a token proves the account and the event. If tokens
/// are `needed`, also reports events without one.
fn check_tokens(
    layers: &mut Layers<'_>,
    accounts: &BTreeMap<Account, AccountConfig>,
    needed: bool,
) {
    let mut seen: BTreeMap<&str, String> = BTreeMap::new();
    for (account, settings) in accounts {
        for event in Event::ALL {
            let name = format!("accounts.{account}.tokens.{event}");
            let tokens = settings.tokens.get(&event).map_or(&[][..], Vec::as_slice);
            if needed && tokens.is_empty() && !layers.is_invalid(&name) {
                layers.report(
                    &name,
                    format!(
                        "is not set, and `public.url` is not a loopback address; write [\"…\"] with \
                         the output of `openssl rand -hex 32`, or set {}",
                        variable_of(&name)
                    ),
                );
            }
            for token in tokens {
                if let Some(other) = seen.insert(token.expose_secret(), name.clone()) {
                    layers.report(
                        &name,
                        format!("contains a token of `{other}`; use different tokens"),
                    );
                }
            }
        }
    }
}

/// Parses a secret segment of the webhook's path, without repeating it in messages.
fn token(text: &str) -> Result<SecretString, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !(MIN_TOKEN_CHARS..=MAX_TOKEN_CHARS).contains(&text.len()) || !text.chars().all(allowed) {
        return Err(format!(
            "a token is not {MIN_TOKEN_CHARS} to {MAX_TOKEN_CHARS} characters of A-Z, a-z, 0-9, - \
             and _; make one with `openssl rand -hex 32`"
        ));
    }
    Ok(text.into())
}

/// Parses an API key, which is sent in a header, without repeating it in messages.
fn api_key(text: &str) -> Result<SecretString, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            "the API key contains white space or characters beyond ASCII; copy it again from \
             app.ivesk.lt/settings/general, alone on one line"
                .to_owned(),
        );
    }
    Ok(text.into())
}
