//! Explanations of SQLite's errors for the person who runs the service.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::store::StoreError;

/// Converts SQLite's error about the file at `path` to one that says what to do.
pub(in crate::store::engine) fn explain(path: &Path, error: rusqlite::Error) -> StoreError {
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
                detail: format!("{error}; check that it exists and that this user may access it"),
            }
        }
        // EIO, EFBIG and similar; SQLite does not pass the system's error on.
        Some(ErrorCode::SystemIoFailure) => StoreError::Database(format!(
            "{error}: failed to read or write {} or the files beside it; check the system's log, \
             the disk's health, and limits on file sizes",
            path.display()
        )),
        Some(ErrorCode::OperationInterrupted) => StoreError::Database(
            "the query took too long, and was ended; ask for less at once".to_owned(),
        ),
        // The value is at fault, not the database.
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
            StoreError::Value(error.to_string())
        }
        _ => StoreError::Database(error.to_string()),
    }
}
