//! Options that choose feeds.

use crate::domain::{Account, Company, Queue};

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
