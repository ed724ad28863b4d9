//! Settings: defaults, sources, and mistakes with their messages.

use std::collections::BTreeMap;
use std::path::Path;

use ivesk_webhook::config::{Config, ConfigError};
use ivesk_webhook::domain::Account;

mod destinations;
mod settings;

const TOKEN_A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const TOKEN_B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// Returns the fewest settings that can be served under a public address.
fn public(more: &str) -> String {
    format!(
        "public.url = 'https://hooks.example.lt'\n\
         [accounts.default]\n\
         tokens.on_exported = ['{TOKEN_A}']\n\
         tokens.on_digitized = ['{TOKEN_B}']\n\
         {more}"
    )
}

/// Returns the fewest settings that can be served on loopback.
fn local(more: &str) -> String {
    format!("public.url = 'http://127.0.0.1:8080'\n{more}")
}

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    parse_with(text, &[])
}

fn parse_with(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/ivesk"), &variables(environment))
}

fn valid(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("{error}\n---\n{text}"))
}

fn refused(text: &str) -> String {
    refused_with(text, &[])
}

fn refused_with(text: &str, environment: &[(&str, &str)]) -> String {
    match parse_with(text, environment) {
        Ok(_) => panic!("these settings are valid:\n{text}\n{environment:?}"),
        Err(error) => error.to_string(),
    }
}

/// Returns the settings that the mistakes name.
fn names(text: &str) -> Vec<String> {
    let error = parse(text).expect_err("a mistake");
    error.problems.into_iter().map(|p| p.setting).collect()
}

fn account(name: &str) -> Account {
    Account::parse(name).expect("a valid name")
}
