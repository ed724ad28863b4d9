//! `[accounts.NAME]`: which accounts there are, their keys and tokens.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

use super::check::{MIN_TOKEN_CHARS, is_loopback};
use super::environment::{VARIABLE_PREFIX, variable_of};
use super::given::Given;
use super::layers::Layers;
use super::public::PublicConfig;
use crate::domain::{Account, Company, Event};

/// The most characters of a token, so that the path stays a path.
const MAX_TOKEN_CHARS: usize = 200;

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

/// The account's name where there is no reason for another: `default`.
pub fn default_account() -> Account {
    Account::parse("default").expect("a constant name is valid")
}

/// An account's settings.
const ACCOUNT_SETTINGS: [&str; 5] = [
    "tokens.on_exported",
    "tokens.on_digitized",
    "api_key_file",
    "companies",
    "digitized",
];

/// The API key of the only account; `_<NAME>` is added for one of several.
const API_KEY_VARIABLE: &str = "IVESK_WEBHOOK_API_KEY";

/// `[accounts.NAME]`
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
            layers.contradiction(
                &format!("accounts.{name}"),
                format!("has the same variables as the account `{twin}`; rename one of them"),
            );
        }
        let sole = names.len() == 1 && layers.has_variable(API_KEY_VARIABLE);
        let key_variable = if sole {
            API_KEY_VARIABLE.to_owned()
        } else {
            own
        };
        accounts.insert(name.clone(), account(layers, name, &key_variable));
    }
    if names.len() > 1 && layers.has_variable(API_KEY_VARIABLE) {
        layers.contradiction(
            API_KEY_VARIABLE,
            format!(
                "does not say whose key it is, and there are {} accounts; use \
                 {API_KEY_VARIABLE}_<NAME>, with the account's name in capitals",
                names.len()
            ),
        );
    }
    let needs_tokens = public.is_some_and(|public| !is_loopback(&public.url));
    check_tokens(layers, &accounts, needs_tokens);
    accounts
}

/// The accounts that the file names; where it names none, those of the variables;
/// where they name none either, `default`.
fn account_names(layers: &mut Layers<'_>) -> Vec<Account> {
    let mut names = Vec::new();
    for name in layers.names_below("accounts") {
        match Account::parse(&name) {
            Ok(account) => names.push(account),
            Err(error) => layers.contradiction(&format!("accounts.{name}"), error.to_string()),
        }
    }
    if names.is_empty() {
        let named = layers.names_in_variables("accounts", &ACCOUNT_SETTINGS);
        names = named
            .iter()
            .filter_map(|name| Account::parse(name).ok())
            .collect();
    }
    if names.is_empty() {
        names.push(default_account());
    }
    names
}

/// An account's name as variables spell it.
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
            |_: &SecretString| "[set]".into(),
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
            |given, _| given.switch(),
            |switch| (*switch).into(),
        ),
    }
}

/// A list of company codes, each once.
pub(super) fn companies(layers: &mut Layers<'_>, name: &str) -> Vec<Company> {
    let check = |given: &Given, _: &Layers<'_>| {
        let mut companies = Vec::new();
        for code in given.list()? {
            let company = Company::parse(&code).map_err(|error| error.to_string())?;
            if companies.contains(&company) {
                return Err(format!("names `{company}` twice; write it once"));
            }
            companies.push(company);
        }
        Ok(companies)
    };
    layers.read(name, Vec::new(), check, |all| {
        all.iter().map(Company::as_str).collect::<Vec<_>>().into()
    })
}

/// Each token once only, since it proves the account and the event; and each event
/// with one, unless only this machine can reach us.
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
            if needed && tokens.is_empty() && !layers.has_failed(&name) {
                layers.contradiction(
                    &name,
                    format!(
                        "holds no token, and `public.url` can be reached from elsewhere; write \
                         [\"…\"] with the output of `openssl rand -hex 32`, or set {}",
                        variable_of(&name)
                    ),
                );
            }
            for token in tokens {
                if let Some(other) = seen.insert(token.expose_secret(), name.clone()) {
                    layers.contradiction(
                        &name,
                        format!("holds a token that `{other}` holds too; give each its own"),
                    );
                }
            }
        }
    }
}

/// A secret segment of the webhook's path. Never repeated in advice.
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

/// An API key: anything that stands in a header. Never repeated in advice.
fn api_key(text: &str) -> Result<SecretString, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            "the API key holds white space or letters that no header can hold; copy it again from \
             app.ivesk.lt/settings/general, alone on one line"
                .to_owned(),
        );
    }
    Ok(text.into())
}
