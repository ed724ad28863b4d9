//! Explanations of PostgreSQL's errors for the person who runs the service.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use tokio_postgres::error::{DbError, SqlState};

use crate::store::StoreError;
use crate::visible::foreign;

impl From<tokio_postgres::Error> for StoreError {
    /// Converts the error and adds what to do. Of the server's answer only the message is
    /// kept, as its detail may quote rows.
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(answer) => explain(answer),
            None if is_of_connection(&error) => cannot_connect(error),
            // A value that can't be converted, for example.
            None => Self::Database(with_causes(&error)),
        }
    }
}

/// Converts the error of an attempt to connect.
pub(super) fn cannot_connect(error: tokio_postgres::Error) -> StoreError {
    match error.as_db_error() {
        Some(answer) => explain(answer),
        None => StoreError::Unreachable {
            detail: format!(
                "{}; check that the server is running and reachable",
                with_causes(&error)
            ),
        },
    }
}

/// Returns true if the connection has ended or failed.
fn is_of_connection(error: &tokio_postgres::Error) -> bool {
    let io = error
        .source()
        .and_then(|cause| cause.downcast_ref::<io::Error>());
    // A value too large to be sent is an I/O error too, of invalid input.
    error.is_closed() || io.is_some_and(|cause| cause.kind() != io::ErrorKind::InvalidInput)
}

/// Returns the error's text with those of its causes.
fn with_causes(error: &tokio_postgres::Error) -> String {
    let mut detail = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        detail = format!("{detail}: {inner}");
        cause = inner.source();
    }
    detail
}

fn explain(answer: &DbError) -> StoreError {
    let code = answer.code();
    let message = format!("{} ({})", foreign(answer.message()), code.code());
    let class = code.code().get(..2).unwrap_or_default();
    if *code == SqlState::DISK_FULL {
        return StoreError::DiskFull {
            path: PathBuf::from("the PostgreSQL database"),
        };
    }
    // A standby answers the first to a write, and the second to BEGIN READ WRITE.
    if [
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::FEATURE_NOT_SUPPORTED,
    ]
    .contains(code)
    {
        return StoreError::Unreachable {
            detail: format!(
                "{message}; if this server is a standby, name the primary in `store.url`"
            ),
        };
    }
    match class {
        // Connection failures, exhausted resources, a shutdown by an operator, a crash.
        "08" | "53" | "58" => StoreError::Unreachable { detail: message },
        // As long as it is being moved or restored, for example.
        "55" if *code == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => StoreError::Unreachable {
            detail: format!(
                "{message}; let the database accept connections again (ALTER DATABASE … ALLOW_CONNECTIONS true)"
            ),
        },
        "57" if *code != SqlState::QUERY_CANCELED => StoreError::Unreachable { detail: message },
        "28" | "3D" => StoreError::Unreachable {
            detail: format!("{message}; check user, password and database of `store.url`"),
        },
        "42" if *code == SqlState::INSUFFICIENT_PRIVILEGE => StoreError::Database(format!(
            "{message}; the user of `store.url` must own the tables and have the right to create \
             tables in its schema"
        )),
        // Data exceptions, constraints, limits: the value is at fault, not the server.
        "22" | "23" | "54" => StoreError::Value(message),
        _ => StoreError::Database(message),
    }
}
