//! Online backups, and the new epoch of a restored one.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::error::explain;
use crate::store::StoreError;
use crate::store::columns::new_epoch;
use crate::store::error::Result;

/// Suffixes of the database's own files (sqlite.org/fileformat2.html), and of the lock file.
const OWN_SUFFIXES: [&str; 5] = ["", "-wal", "-shm", "-journal", ".lock"];

/// Writes a complete copy of the database at `source` to `to`, which is replaced.
///
/// # Errors
///
/// [`StoreError::BackupOntoItself`] if that would replace the database or a file that
/// belongs to it: a server would continue to write to a deleted file.
pub(super) fn copy(connection: &Connection, source: &Path, to: &Path) -> Result<()> {
    let partial = with_suffix(to, ".partial");
    for target in [to, &partial] {
        if belongs_to(source, target) {
            return Err(StoreError::BackupOntoItself {
                path: to.to_owned(),
            });
        }
    }
    write_copy(connection, &partial, to).map_err(|error| explain(to, error))
}

/// Returns true if `target` is the database at `source` or one of the files beside it.
fn belongs_to(source: &Path, target: &Path) -> bool {
    // SQLite's files are beside the target of a link, the lock file is beside the link.
    let bases = [Some(source.to_owned()), source.canonicalize().ok()];
    bases.into_iter().flatten().any(|base| {
        OWN_SUFFIXES
            .iter()
            .any(|suffix| is_same_file(&with_suffix(&base, suffix), target))
    })
}

/// Returns true if both names lead to the same file, or would if it existed.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| path.metadata().ok().map(|file| (file.dev(), file.ino()));
    let location = |path: &Path| {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        Some(folder.canonicalize().ok()?.join(path.file_name()?))
    };
    let is_shared = |one: Option<_>, other| one.is_some() && one == other;
    is_shared(identity(one), identity(other))
        || location(one).is_some_and(|one| location(other) == Some(one))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Copies with `VACUUM INTO`, which reads one snapshot while writers continue. The copy gets
/// its final name only once it is complete.
fn write_copy(source: &Connection, partial: &Path, to: &Path) -> rusqlite::Result<()> {
    if partial.exists() {
        std::fs::remove_file(partial).map_err(cannot_open)?;
    }
    source.execute("VACUUM INTO ?1", params![partial.to_string_lossy()])?;
    Connection::open(partial)?.execute("UPDATE sequence SET backup = 1", [])?;
    let file = std::fs::File::open(partial).map_err(cannot_open)?;
    file.sync_all().map_err(cannot_open)?;
    std::fs::rename(partial, to).map_err(cannot_open)
}

fn cannot_open(error: std::io::Error) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
        Some(error.to_string()),
    )
}

/// Sets the epoch of the numbering, a new one in a restored backup.
pub(super) fn ensure_epoch(connection: &Connection) -> rusqlite::Result<()> {
    let epoch = new_epoch();
    connection.execute(
        "INSERT INTO sequence (id, epoch, last) VALUES (1, ?1, 0)
         ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, backup = 0 WHERE backup = 1",
        params![epoch],
    )?;
    Ok(())
}
