//! Restoring a backup: the file that the store had is moved aside whole, never deleted.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tracing::warn;

use super::backup::{belongs_to, copy, with_suffix};
use super::error::explain;
use super::file::FileLock;
use super::schema::schema_version;
use crate::domain::Timestamp;
use crate::store::StoreError;
use crate::store::backup::{BackupFile, stamp};
use crate::store::error::Result;
use crate::store::migrations::NEWEST;

/// Files that SQLite keeps beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// A backup that has taken the place of the store.
#[derive(Clone, Debug)]
pub struct RestoredBackup {
    /// The newest sequence number in it.
    pub last: i64,
    /// Where the files that the store had are now; none if it had none.
    pub moved: Vec<PathBuf>,
}

/// Puts a copy of the backup `from` in the place of the database at `path`, and moves the files
/// that were there aside. The service then starts a new epoch.
///
/// # Errors
///
/// [`StoreError::InUse`] if a server runs on the database, [`StoreError::NotRestorable`] if the
/// backup can't be used. Nothing is changed then.
pub fn restore_backup(path: &Path, from: &Path, now: Timestamp) -> Result<RestoredBackup> {
    let lock = FileLock::acquire(path)?;
    let path = lock.database();
    let unusable = |detail: String| StoreError::NotRestorable {
        path: from.to_owned(),
        detail,
    };
    match from.metadata() {
        Ok(file) if file.is_file() => {}
        Ok(_) => return Err(unusable("it is not a regular file".to_owned())),
        Err(error) => return Err(unusable(error.to_string())),
    }
    if belongs_to(path, from) {
        return Err(unusable("it belongs to the store itself".to_owned()));
    }
    let connection = open_immutable(from).map_err(|error| unusable(error.to_string()))?;
    let last = check(&connection, from)?;
    let restored = BackupFile::beside(path, ".restored");
    copy(&connection, from, &restored)?;
    let restored = restored.path();
    let failed = |error: io::Error| StoreError::NotAccessible {
        path: path.to_owned(),
        detail: format!("{error}; nothing was deleted, see the files beside it"),
    };
    take_owner(&restored, path).map_err(failed)?;
    let aside = with_suffix(path, &format!(".replaced-{}", stamp(now)));
    let moved = put_in_place(&restored, path, &aside).map_err(failed)?;
    Ok(RestoredBackup { last, moved })
}

/// Checks that a backup is whole and of this program; returns its newest sequence number.
fn check(connection: &Connection, from: &Path) -> Result<i64> {
    let unusable = |detail: String| StoreError::NotRestorable {
        path: from.to_owned(),
        detail,
    };
    let of_sqlite = |error: rusqlite::Error| unusable(error.to_string());
    let found = schema_version(connection, from)?;
    if found > NEWEST {
        return Err(StoreError::NewerSchema {
            found,
            known: NEWEST,
        });
    }
    if found == 0 {
        return Err(unusable("it is not a database of ivesk-webhook".to_owned()));
    }
    let verdict: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(of_sqlite)?;
    if verdict != "ok" {
        return Err(unusable(format!("it is damaged: {verdict}")));
    }
    let (last, marked): (i64, bool) = connection
        .query_row("SELECT last, backup FROM sequence", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .map_err(of_sqlite)?;
    let log = with_suffix(from, "-wal");
    if !marked && log.metadata().is_ok_and(|file| file.len() > 0) {
        return Err(unusable(format!(
            "a part of it is in {}; stop the service that uses it, or write a backup with `ivesk-webhook store backup`",
            log.display()
        )));
    }
    Ok(last)
}

/// Opens a file as it is, without what may be beside it, and creates nothing there.
fn open_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let path = path
        .to_str()
        .ok_or_else(|| rusqlite::Error::InvalidPath(path.to_owned()))?;
    let escaped = path
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    // A path that begins with two slashes would be a host.
    let uri = format!("file:{}?immutable=1", escaped.replace("//", "/"));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(uri, flags)
}

/// Gives a file the owner of the database, or of its folder, so that the service can use what
/// root has restored.
fn take_owner(restored: &Path, database: &Path) -> io::Result<()> {
    let folder = restored.parent().unwrap_or(Path::new("."));
    let owner = database.metadata().or_else(|_| folder.metadata())?;
    let own = restored.metadata()?;
    if (own.uid(), own.gid()) != (owner.uid(), owner.gid()) {
        chown(restored, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

/// Exchanges two files at once, so that there is never none, then moves what belonged to the
/// earlier one aside: a log that a crash leaves behind is moved at the next start.
fn put_in_place(restored: &Path, database: &Path, aside: &Path) -> io::Result<Vec<PathBuf>> {
    let mut moved = Vec::new();
    match renameat_with(CWD, restored, CWD, database, RenameFlags::EXCHANGE) {
        Ok(()) => {
            std::fs::rename(restored, aside)?;
            moved.push(aside.to_owned());
        }
        // There was no database.
        Err(Errno::NOENT) => std::fs::rename(restored, database)?,
        // The file system can't exchange files.
        Err(_) => {
            std::fs::rename(database, aside)?;
            moved.push(aside.to_owned());
            std::fs::rename(restored, database)?;
        }
    }
    moved.extend(move_beside(database, aside)?);
    let folder = database.parent().unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok(moved)
}

/// Moves the files beside a database to beside `aside`; returns where they are.
fn move_beside(database: &Path, aside: &Path) -> io::Result<Vec<PathBuf>> {
    let mut moved = Vec::new();
    for suffix in BESIDE {
        let to = with_suffix(aside, suffix);
        match std::fs::rename(with_suffix(database, suffix), &to) {
            Ok(()) => moved.push(to),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(moved)
}

/// Moves a log aside that belongs to another file: a backup was copied into the place of the
/// database, and SQLite would read the log of the earlier one into it.
pub(super) fn set_stale_log_aside(database: &Path, now: Timestamp) -> Result<()> {
    let log = with_suffix(database, "-wal");
    if !log.metadata().is_ok_and(|file| file.len() > 0) || !is_marked(database) {
        return Ok(());
    }
    let aside = with_suffix(database, &format!(".replaced-{}", stamp(now)));
    let moved = move_beside(database, &aside).map_err(|error| StoreError::NotAccessible {
        path: log.clone(),
        detail: format!("{error}; it is of another database, and must be moved away"),
    })?;
    let names: Vec<String> = moved
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    warn!(
        "{} is a backup, and the files beside it were those of another database: moved to {}. Next time, restore with `ivesk-webhook store restore`",
        database.display(),
        names.join(" and ")
    );
    Ok(())
}

/// Returns true if the file itself, without its log, is a backup that was never started.
fn is_marked(database: &Path) -> bool {
    let read = |connection: Connection| {
        connection.query_row("SELECT backup FROM sequence", [], |row| row.get(0))
    };
    open_immutable(database).and_then(read).unwrap_or(false)
}

/// Moves a new epoch from the log into the database itself, before anything else is stored: from
/// then on its log is its own.
pub(super) fn settle_epoch(connection: &Connection, database: &Path) -> Result<()> {
    let busy: bool = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .map_err(|error| explain(database, error))?;
    if busy {
        return Err(StoreError::NotAccessible {
            path: database.to_owned(),
            detail: "it is a backup that is started for the first time, and another program reads it; end that one first"
                .to_owned(),
        });
    }
    Ok(())
}
