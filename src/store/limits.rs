//! Bounds that both databases keep.

/// Maximum number of rows that one retention step changes, so that ingest never waits long.
pub(super) const RETENTION_BATCH: i64 = 2_000;

/// Maximum number of unreadable entries kept per feed.
pub(super) const MAX_UNREADABLE_ENTRIES: i64 = 1000;

/// Number of newest documents among which unannounced ones are counted.
pub(super) const RECENT_DOCUMENTS: i64 = 1_000;

/// Maximum number of messages that share one commit.
pub(super) const MAX_GROUP: usize = 1024;

/// Maximum number of refused messages in each of the quarantine's two shares: those that claim
/// an allowed topic, and all others.
pub(super) const MAX_QUARANTINED: u64 = 5_000;

/// Maximum number of refused messages that wait to be stored in the quarantine.
pub(super) const QUARANTINE_QUEUE: usize = 64;
