//! Why an operation of the store failed.

use std::path::PathBuf;

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// More messages are waiting than the queue holds.
    #[error("more messages are waiting than the queue holds")]
    QueueFull,
    /// The disk has no room.
    #[error("the disk that holds {} is full; free some space, nothing that was acknowledged is lost", path.display())]
    DiskFull {
        /// The database file.
        path: PathBuf,
    },
    /// The file is damaged or is no database of ours.
    #[error("{} is damaged or is not a SQLite database ({detail}); stop the service and restore the newest backup (docs/operating.md)", path.display())]
    Corrupt {
        /// The database file.
        path: PathBuf,
        /// SQLite's words.
        detail: String,
    },
    /// Another process serves this store.
    #[error("{} is in use by another ivesk-webhook process; stop it first, or let it do the work through its admin address", path.display())]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// A newer version of this program has changed the schema.
    #[error(
        "the store has schema {found}, and this version knows {known}; run the newer ivesk-webhook, or restore a backup made before the upgrade"
    )]
    NewerSchema {
        /// What the store says.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// The lease ran out and another worker may hold the feed: nothing was written.
    #[error("the lease on this feed ran out; nothing was written")]
    StaleLease,
    /// The file or its folder can't be opened or written.
    #[error("{} can't be opened: {detail}", path.display())]
    NotAccessible {
        /// The database file.
        path: PathBuf,
        /// The system's words.
        detail: String,
    },
    /// It was opened for reading only.
    #[error("the store was opened for reading only")]
    ReadOnly,
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// The database server can't be reached, or does not let us in.
    #[error("PostgreSQL can't be used now: {detail}")]
    Unreachable {
        /// What was tried, and the server's or the system's words.
        detail: String,
    },
    /// The database has not this version's tables, and reading alone makes none.
    #[error(
        "the database has not been brought up to this version's schema; run `serve` or `pull` once"
    )]
    NotPrepared,
    /// What is copied goes into an empty database alone.
    #[error(
        "{target} holds rows already; a copy goes into an empty database, so that nothing is mixed"
    )]
    NotEmpty {
        /// The database, without its password.
        target: String,
    },
    /// A backup was to be written over the store itself.
    #[error("{} is the store itself or one of the files beside it; name another file for the copy", path.display())]
    BackupOntoItself {
        /// Where the copy was to go.
        path: PathBuf,
    },
    /// PostgreSQL is backed up with its own tools.
    #[error(
        "a PostgreSQL store is backed up with PostgreSQL's own tools: run `pg_dump --format=custom --file=FILE DATABASE` (docs/postgres.md)"
    )]
    BackedUpElsewhere,
    /// The database refuses a value: the same again would be refused again.
    #[error("the database refused a value: {0}")]
    Value(String),
    /// Anything else that the database said.
    #[error("the database answered: {0}")]
    Database(String),
}
