//! The errors of the store.

use std::path::PathBuf;

/// A result of the store.
pub(super) type Result<T, E = StoreError> = std::result::Result<T, E>;

/// An error of the store; its text says what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The queue or the pool has no room for another operation.
    #[error(
        "the store is overloaded and its queue is full; retry later, and check the load of the disk or database"
    )]
    QueueFull,
    /// The disk is full.
    #[error("the disk that holds {} is full; free some space, nothing that was acknowledged is lost", path.display())]
    DiskFull {
        /// The database file.
        path: PathBuf,
    },
    /// The open file is no longer the one that the next start would open.
    #[error("{} {detail} while the service runs, so nothing that arrives can be kept; put a renamed file back, or restart the service to use the file that is there now", path.display())]
    NotInPlace {
        /// The file.
        path: PathBuf,
        /// What happened to it.
        detail: String,
    },
    /// The file is damaged or is not a database of this program.
    #[error("{} is damaged or is not a database of ivesk-webhook ({detail}); stop the service and restore the newest backup with `ivesk-webhook store restore` (docs/backup.md)", path.display())]
    Corrupt {
        /// The database file.
        path: PathBuf,
        /// SQLite's error.
        detail: String,
    },
    /// Another process has locked this store.
    #[error("{} is in use by another ivesk-webhook process; stop it first", path.display())]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// A newer version of this program has changed the schema.
    #[error(
        "the store has schema version {found}, but this program supports only versions up to {known}; run the newer ivesk-webhook, or restore a backup made before the upgrade"
    )]
    NewerSchema {
        /// The store's version.
        found: u32,
        /// The newest version that this program supports.
        known: u32,
    },
    /// The lease has expired and another worker may hold it: nothing was written.
    #[error(
        "the lease has expired and another worker may hold it; nothing was written, and the work is retried automatically"
    )]
    StaleLease,
    /// The topic of a message needs a person's approval, and has none any more.
    #[error("the approval of the message's topic was revoked; nothing was stored")]
    TopicNotAllowed,
    /// The file or its folder can't be opened or written.
    #[error("{} can't be opened: {detail}", path.display())]
    NotAccessible {
        /// The database file.
        path: PathBuf,
        /// The system's error, and what to do.
        detail: String,
    },
    /// The store was opened for reading only.
    #[error("cannot write to a store that was opened read-only; open it for writing")]
    ReadOnly,
    /// The store has been closed.
    #[error("the store is closed; if the service is not stopping, restart it")]
    Closed,
    /// The database server can't be reached, or refuses the connection.
    #[error("PostgreSQL is unavailable: {detail}")]
    Unreachable {
        /// The address, and the server's or the system's error.
        detail: String,
    },
    /// The database lacks this version's tables, and reading alone creates none.
    #[error(
        "the database does not have this version's schema; run `ivesk-webhook serve` or `ivesk-webhook pull` once to migrate it"
    )]
    NotPrepared,
    /// The target of a copy is not empty.
    #[error("{target} is not empty; create an empty database and copy into that")]
    NotEmpty {
        /// The database, without its password.
        target: String,
    },
    /// The target of a backup is the store itself.
    #[error("{} is the store itself or one of the files beside it; choose another file for the backup", path.display())]
    BackupOntoItself {
        /// The target of the backup.
        path: PathBuf,
    },
    /// The name of a backup is not that of a file in `store.backup_dir`.
    #[error(
        "{name:?} is not a name for a backup; write the name of a file alone, such as ivesk.db: its folder is `store.backup_dir`"
    )]
    BackupName {
        /// The name.
        name: String,
    },
    /// The file of a backup exists.
    #[error(
        "{} exists already; choose another name, or replace it: `ivesk-webhook store backup {} --force`",
        path.display(),
        path.file_name().unwrap_or_default().display()
    )]
    BackupExists {
        /// The file.
        path: PathBuf,
    },
    /// A file can't be restored.
    #[error("{} can't be restored: {detail}", path.display())]
    NotRestorable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Another backup is being written to the folder.
    #[error("another backup is being written to {}; retry once it is complete", folder.display())]
    BackupRunning {
        /// The folder.
        folder: PathBuf,
    },
    /// PostgreSQL is backed up with its own tools.
    #[error(
        "a PostgreSQL store is backed up with PostgreSQL's own tools; run `pg_dump --format=custom --file=FILE DATABASE` (docs/postgres.md)"
    )]
    BackedUpElsewhere,
    /// The database rejects a value, and would reject it again.
    #[error("the database rejected a value: {0}")]
    Value(String),
    /// Any other error of the database.
    #[error("database error: {0}")]
    Database(String),
}
