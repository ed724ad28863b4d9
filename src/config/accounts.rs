//! `[accounts.NAME]`: which accounts there are, their keys and tokens.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

use super::given::Given;
use super::layers::{Layers, variable_of};
use super::{AccountConfig, PublicConfig, VARIABLE_PREFIX, check, default_account, is_loopback};
use crate::domain::{Account, Company, Event};

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
            check::token,
            |_: &SecretString| "[set]".into(),
        );
        (event, tokens)
    });
    let tokens = tokens.filter(|(_, tokens)| !tokens.is_empty()).collect();
    let default = AccountConfig::default();
    AccountConfig {
        api_key: layers.secret(&setting("api_key_file"), key_variable, check::api_key),
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
