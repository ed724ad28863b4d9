//! How the store is opened.

use std::sync::Arc;

use super::hooks::Hooks;
use crate::config::StoreUrl;
use crate::domain::Clock;

/// Options of a [`Store`](super::Store) that is opened for writing.
#[derive(Clone)]
pub struct StoreOptions {
    /// The database: a SQLite file for this process alone, or a PostgreSQL database that
    /// other replicas may use too. It is created and migrated as needed.
    pub url: StoreUrl,
    /// Maximum number of messages that wait for the next commit.
    pub queue: usize,
    /// Maximum number of bytes of refused messages.
    pub quarantine_bytes: u64,
    /// True if new subscriptions wait for a person's approval.
    pub ask: bool,
    /// This machine's clock. A shared database corrects it ([`Store::clock`](super::Store::clock)), unless a test
    /// sets it by hand.
    pub clock: Clock,
    /// What a test does to the store.
    pub hooks: Option<Arc<dyn Hooks>>,
}
