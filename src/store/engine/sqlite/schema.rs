//! Opening the file: pragmas, migrations, and the check that it is a database of this program.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::backup::with_suffix;
use super::error::explain;
use crate::private_files::{create_new, give_to_owner_of_folder};
use crate::store::StoreError;
use crate::store::backup::BackupFile;
use crate::store::error::Result;
use crate::store::migrations::{MIGRATIONS, NEWEST};

/// `PRAGMA application_id` of this program's files: "IvWh".
const APPLICATION_ID: i32 = 0x4976_5768;

/// Number of pages in the write-ahead log after which they are moved into the database.
/// SQLite's default of 1,000 would sync twice as often as the commits do.
const WAL_AUTOCHECKPOINT_PAGES: u32 = 16_384;

/// Number of prepared statements that a connection keeps.
const CACHED_STATEMENTS: usize = 128;

/// Opens the file for its only writer; creates and migrates it as needed.
///
/// A file with an older schema is copied beside itself first.
pub(super) fn open_for_writing(path: &Path) -> Result<Connection> {
    if path.symlink_metadata().is_err() {
        create(path)?;
    }
    let mut connection = Connection::open(path).map_err(|error| explain(path, error))?;
    prepare_for_writing(&connection).map_err(|error| explain(path, error))?;
    let found = schema_version(&connection, path)?;
    if found > NEWEST {
        return Err(StoreError::NewerSchema {
            found,
            known: NEWEST,
        });
    }
    if (1..NEWEST).contains(&found) {
        let copy = BackupFile::beside(path, &format!(".schema-{found}.backup"), true);
        super::backup::copy(&connection, path, &copy)?;
    }
    migrate(&mut connection, found).map_err(|error| explain(path, error))?;
    Ok(connection)
}

/// Creates the file. It gets its name once it is a database, so that one of 0 bytes was never made here.
///
/// SQLite would create it for everybody to read; the files beside it get its permissions.
fn create(path: &Path) -> Result<()> {
    let unfinished = with_suffix(path, ".unfinished");
    let failed = |error: io::Error| StoreError::NotAccessible {
        path: path.to_owned(),
        detail: error.to_string(),
    };
    // It is left where a start was killed.
    let _ = std::fs::remove_file(&unfinished);
    match create_new(&unfinished) {
        // Who may not give it away keeps it.
        Ok(_) => {
            let _ = give_to_owner_of_folder(&unfinished);
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(failed(error)),
        // SQLite can create no file there either, and opening it explains why.
        Err(_) => return Ok(()),
    }
    let connection = Connection::open(&unfinished).map_err(|error| explain(path, error))?;
    connection
        .pragma_update(None, "application_id", APPLICATION_ID)
        .map_err(|error| explain(path, error))?;
    drop(connection);
    std::fs::rename(&unfinished, path).map_err(failed)
}

/// Refuses a file that something has emptied: SQLite would take it for a new database.
pub(super) fn refuse_empty(path: &Path) -> Result<()> {
    match path.metadata() {
        Ok(file) if file.is_file() && file.len() == 0 => Err(StoreError::Corrupt {
            path: path.to_owned(),
            detail: "it has 0 bytes; if nothing was ever stored here, remove it".to_owned(),
        }),
        // Opening it explains any error.
        _ => Ok(()),
    }
}

/// Opens the file for reading, with or without a writer in another process.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|error| explain(path, error))?;
    prepare_statements(&connection).map_err(|error| explain(path, error))?;
    match schema_version(&connection, path)? {
        NEWEST => Ok(connection),
        found if found > NEWEST => Err(StoreError::NewerSchema {
            found,
            known: NEWEST,
        }),
        _ => Err(StoreError::NotAccessible {
            path: path.to_owned(),
            detail: "it does not have this version's schema; run `ivesk-webhook serve` or \
                     `ivesk-webhook pull` once to migrate it"
                .to_owned(),
        }),
    }
}

fn prepare_for_writing(connection: &Connection) -> rusqlite::Result<()> {
    prepare_statements(connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL syncs the log at every commit: an answer of 200 means that it is on disk.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_AUTOCHECKPOINT_PAGES)?;
    // Once moved, the log is truncated to this many bytes.
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    // 16 MiB hold what messages change, and the upper levels of the index of terms.
    connection.pragma_update(None, "cache_size", -16_384)
}

/// Sets how long statements wait for another process, and keeps them prepared.
fn prepare_statements(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    // A plan follows from the statement alone. Otherwise a statement whose plan could depend on a
    // value is prepared again each time that the value changes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    Ok(())
}

/// Returns the schema's version, 0 for a new file. Fails for another program's database.
pub(super) fn schema_version(connection: &Connection, path: &Path) -> Result<u32> {
    let read =
        |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let application = read("application_id").map_err(|error| explain(path, error))?;
    let version = read("user_version").map_err(|error| explain(path, error))?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|error| explain(path, error))?;
    if application != APPLICATION_ID && tables > 0 {
        return Err(StoreError::Corrupt {
            path: path.to_owned(),
            detail: "it belongs to another program".to_owned(),
        });
    }
    Ok(u32::try_from(version).unwrap_or(0))
}

fn migrate(connection: &mut Connection, found: u32) -> rusqlite::Result<()> {
    if found == NEWEST {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for migration in &MIGRATIONS[found as usize..] {
        transaction.execute_batch(migration.sql.sqlite())?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", NEWEST)?;
    transaction.commit()
}
