//! What SQLite's errors mean to the person who runs the service.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::store::StoreError;

/// Turns SQLite's error about the file at `path` into one that says what to do.
pub(in crate::store) fn explain(path: &Path, error: rusqlite::Error) -> StoreError {
    let path = PathBuf::from(path);
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::DiskFull { path },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt {
            path,
            detail: error.to_string(),
        },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::InUse { path },
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            StoreError::NotAccessible {
                path,
                detail: error.to_string(),
            }
        }
        // EIO, EFBIG and their like; SQLite keeps the system's own word for itself.
        Some(ErrorCode::SystemIoFailure) => StoreError::Database(format!(
            "{error}: the system could not read or write {} or the files beside it; look at the \
             system's log, the disk's health, and limits on file sizes",
            path.display()
        )),
        _ => StoreError::Database(error.to_string()),
    }
}
