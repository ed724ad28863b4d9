//! Options that choose feeds.

use anyhow::anyhow;

use super::outcome::Failure;
use crate::config::{Config, did_you_mean};
use crate::domain::{Account, Company, Queue};
use crate::store::Store;

/// The feeds whose documents are meant; all if none of these is given.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct OfFeeds {
    /// Only documents of this account
    #[arg(long, value_parser = Account::parse)]
    pub(super) account: Option<Account>,
    /// Only documents of this queue
    #[arg(long, value_enum)]
    pub(super) queue: Option<Queue>,
    /// Only documents of this company
    #[arg(long, value_name = "CODE", value_parser = Company::parse)]
    pub(super) company: Option<Company>,
}

impl OfFeeds {
    /// Checks that the account is in the settings or in the store: documents stay when an account is
    /// removed from the settings.
    ///
    /// # Errors
    ///
    /// If it is in neither, or the store can't be read.
    pub(super) async fn check(&self, config: &Config, store: &Store) -> Result<(), Failure> {
        let Some(account) = &self.account else {
            return Ok(());
        };
        let stored = store.accounts().await?;
        let stored = stored.iter().map(|row| &row.account);
        let known: Vec<&Account> = config.accounts.keys().chain(stored).collect();
        if known.contains(&account) {
            return Ok(());
        }
        let known = known.into_iter().map(Account::as_str);
        Err(Failure::usage(anyhow!(
            "account `{account}` is neither in the settings nor in the store{}",
            did_you_mean(account.as_str(), known)
        )))
    }
}
