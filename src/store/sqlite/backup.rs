//! Online copies, and the new epoch of a restored one.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::error::explain;
use crate::store::StoreError;
use crate::store::columns::new_epoch;

/// What follows the database's name in the names of the files that belong to it
/// (sqlite.org/fileformat2.html), and in the name of our lock.
const OWN_SUFFIXES: [&str; 5] = ["", "-wal", "-shm", "-journal", ".lock"];

/// Writes a complete copy of the database at `source` to `to`, which is replaced.
///
/// # Errors
///
/// [`StoreError::BackupOntoItself`] where that would replace the database or a file that
/// belongs to it: a server would go on writing to a file without a name.
pub(super) fn copy(connection: &Connection, source: &Path, to: &Path) -> Result<(), StoreError> {
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

/// Whether `target` is the database at `source` or one of the files beside it.
fn belongs_to(source: &Path, target: &Path) -> bool {
    // SQLite puts its files beside the file that a link leads to, we our lock beside the link.
    let bases = [Some(source.to_owned()), source.canonicalize().ok()];
    bases.into_iter().flatten().any(|base| {
        OWN_SUFFIXES
            .iter()
            .any(|suffix| is_same_file(&with_suffix(&base, suffix), target))
    })
}

/// Whether both names lead to one file, or would where it isn't there yet.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| path.metadata().ok().map(|file| (file.dev(), file.ino()));
    let place = |path: &Path| {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        Some(folder.canonicalize().ok()?.join(path.file_name()?))
    };
    let is_shared = |one: Option<_>, other| one.is_some() && one == other;
    is_shared(identity(one), identity(other))
        || place(one).is_some_and(|one| place(other) == Some(one))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// `VACUUM INTO` reads one snapshot, so writers go on meanwhile. The copy is made
/// beside its place first: one that broke off never has the name.
fn write_copy(source: &Connection, partial: &Path, to: &Path) -> rusqlite::Result<()> {
    if partial.exists() {
        std::fs::remove_file(partial).map_err(unusable)?;
    }
    source.execute("VACUUM INTO ?1", params![partial.to_string_lossy()])?;
    Connection::open(partial)?.execute("UPDATE sequence SET backup = 1", [])?;
    let file = std::fs::File::open(partial).map_err(unusable)?;
    file.sync_all().map_err(unusable)?;
    std::fs::rename(partial, to).map_err(unusable)
}

fn unusable(error: std::io::Error) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
        Some(error.to_string()),
    )
}

/// Makes sure that the numbering has an epoch, a new one in a restored copy.
pub(super) fn settle_epoch(connection: &Connection) -> rusqlite::Result<()> {
    let epoch = new_epoch();
    connection.execute(
        "INSERT INTO sequence (id, epoch, last) VALUES (1, ?1, 0)
         ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, backup = 0 WHERE backup = 1",
        params![epoch],
    )?;
    Ok(())
}
