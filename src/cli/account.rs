//! The account that a subcommand works for.

use anyhow::anyhow;

use super::outcome::Failure;
use crate::config::{Config, did_you_mean};
use crate::domain::Account;

/// Returns the account `name`, or the only configured one if no name is given.
///
/// # Errors
///
/// If `name` is not configured, or no name is given and several accounts are configured.
pub(super) fn chosen_account(name: Option<&str>, config: &Config) -> Result<Account, Failure> {
    let Some(name) = name else {
        let mut accounts = config.accounts.keys();
        return match (accounts.next(), accounts.next()) {
            (Some(only), None) => Ok(only.clone()),
            _ => Err(Failure::usage(anyhow!(
                "several accounts are configured; choose one with --account"
            ))),
        };
    };
    let account = Account::parse(name).map_err(Failure::usage)?;
    if config.accounts.contains_key(&account) {
        Ok(account)
    } else {
        Err(Failure::usage(anyhow!(
            "account `{account}` is not in the settings{}",
            did_you_mean(
                account.as_str(),
                config.accounts.keys().map(Account::as_str)
            )
        )))
    }
}

/// Returns the error for an account without an API key.
pub(super) fn no_api_key(account: &Account) -> Failure {
    Failure::usage(anyhow!(
        "account `{account}` has no API key; set IVESK_WEBHOOK_API_KEY or `accounts.{account}.api_key_file`"
    ))
}
