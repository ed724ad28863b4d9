//! The account that a subcommand works for.

use anyhow::anyhow;

use super::outcome::Failure;
use crate::config::Config;
use crate::domain::Account;

/// Returns the account that `name` names, or the only one where nothing is named.
///
/// # Errors
///
/// If the settings have no such account, or several and none is named.
pub(super) fn chosen_account(name: Option<&str>, config: &Config) -> Result<Account, Failure> {
    let Some(name) = name else {
        let mut accounts = config.accounts.keys();
        return match (accounts.next(), accounts.next()) {
            (Some(only), None) => Ok(only.clone()),
            _ => Err(Failure::usage(anyhow!(
                "several accounts are configured: name one with --account"
            ))),
        };
    };
    let account = Account::parse(name).map_err(Failure::usage)?;
    if config.accounts.contains_key(&account) {
        Ok(account)
    } else {
        Err(Failure::usage(anyhow!(
            "the settings name no account `{account}`"
        )))
    }
}
