//! Online backups, and the new epoch of a restored one.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, params};

use super::error::explain;
use crate::store::StoreError;
use crate::store::backup::BackupFile;
use crate::store::columns::random_hex;
use crate::store::error::Result;

/// Suffixes of the database's own files (sqlite.org/fileformat2.html), and of the lock file.
const OWN_SUFFIXES: [&str; 5] = ["", "-wal", "-shm", "-journal", ".lock"];

/// Writes a complete copy of the database at `source` to `target`.
///
/// # Errors
///
/// [`StoreError::BackupOntoItself`] if that would replace the database or a file that
/// belongs to it: a server would continue to write to a deleted file.
pub(super) fn copy(connection: &Connection, source: &Path, target: &BackupFile) -> Result<()> {
    let to = target.path();
    if belongs_to(source, &to) {
        return Err(StoreError::BackupOntoItself { path: to });
    }
    let partial = target.create()?;
    write_copy(connection, partial.path()).map_err(|error| explain(&to, error))?;
    partial.finish()
}

/// Returns true if `target` is the database at `source` or one of the files beside it.
pub(super) fn belongs_to(source: &Path, target: &Path) -> bool {
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

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Copies with `VACUUM INTO`, which reads one snapshot while writers continue, and which
/// writes to no file that has content.
fn write_copy(source: &Connection, to: &Path) -> rusqlite::Result<()> {
    let text = to
        .to_str()
        .ok_or_else(|| rusqlite::Error::InvalidPath(to.to_owned()))?;
    source.execute("VACUUM INTO ?1", params![text])?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    Connection::open_with_flags(to, flags)?.execute("UPDATE sequence SET backup = 1", [])?;
    Ok(())
}

/// Sets the epoch of the numbering, a new one in a restored backup; returns true if it is new.
pub(super) fn ensure_epoch(connection: &Connection) -> rusqlite::Result<bool> {
    let epoch = random_hex();
    let changed = connection.execute(
        "INSERT INTO sequence (id, epoch, last) VALUES (1, ?1, 0)
         ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, backup = 0 WHERE backup = 1",
        params![epoch],
    )?;
    Ok(changed > 0)
}
