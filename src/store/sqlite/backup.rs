//! Online copies, and the new epoch of a restored one.

use std::path::Path;

use rusqlite::{Connection, params};

use crate::store::words::new_epoch;

/// Writes a complete copy of the database to `to`, which is replaced.
///
/// `VACUUM INTO` reads one snapshot, so writers go on meanwhile. The copy is made
/// beside its place first: one that broke off never has the name.
pub(super) fn copy(source: &Connection, to: &Path) -> rusqlite::Result<()> {
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
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
