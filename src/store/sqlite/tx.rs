//! Transactions of one connection, and the operations that run in them.

use std::borrow::Cow;
use std::future::ready;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use rusqlite::types::{ToSqlOutput, Value as OwnedValue, ValueRef};
use rusqlite::{CachedStatement, Connection};

use super::error::explain;
use crate::domain::Timestamp;
use crate::store::StoreError;
use crate::store::engine::{Operation, Param, ReadRow, Row, Sql, Tx, Value};

/// A transaction in progress on a connection.
pub(super) struct SqliteTx<'c> {
    connection: &'c mut Connection,
    /// Names the database in errors.
    path: &'c Path,
}

/// The statement that begins a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Begin {
    /// Writes; waits for no other writer later on.
    Writing,
    /// Reads one snapshot.
    Reading,
}

impl Begin {
    const fn sql(self) -> &'static str {
        match self {
            Self::Writing => "BEGIN IMMEDIATE",
            Self::Reading => "BEGIN DEFERRED",
        }
    }
}

/// Runs `work` in a transaction, which is committed if it succeeds and rolled back if not.
pub(super) fn in_transaction<T>(
    connection: &mut Connection,
    path: &Path,
    begin: Begin,
    work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    control(connection, path, begin.sql())?;
    let outcome = work(connection).and_then(|value| {
        control(connection, path, "COMMIT")?;
        Ok(value)
    });
    // SQLite itself rolls back after some errors, such as a full disk.
    if outcome.is_err()
        && !connection.is_autocommit()
        && let Err(error) = control(connection, path, "ROLLBACK")
    {
        tracing::debug!(%error, "failed to roll back");
    }
    outcome
}

/// Runs a statement that begins or ends a transaction or a savepoint.
pub(super) fn control(connection: &Connection, path: &Path, sql: &str) -> Result<(), StoreError> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute([]))
        .map(drop)
        .map_err(|error| explain(path, error))
}

/// Runs an operation in the transaction in progress.
pub(super) fn run<O: Operation>(
    operation: O,
    connection: &mut Connection,
    path: &Path,
) -> Result<O::Output, StoreError> {
    immediate(operation.run(&mut SqliteTx::new(connection, path)))
}

/// Returns the result of work that awaits nothing but a [`SqliteTx`].
pub(super) fn immediate<T>(
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => Err(StoreError::Database(
            "an operation waited for something other than its transaction; report this as a bug"
                .to_owned(),
        )),
    }
}

impl<'c> SqliteTx<'c> {
    pub(super) fn new(connection: &'c mut Connection, path: &'c Path) -> Self {
        Self { connection, path }
    }

    /// Returns the prepared statement with its values.
    fn bind(&self, sql: &Sql, params: &[&dyn Param]) -> rusqlite::Result<CachedStatement<'_>> {
        let mut statement = self.connection.prepare_cached(sql.sqlite())?;
        for (number, param) in (1..).zip(params) {
            statement.raw_bind_parameter(number, bound(param.value()))?;
        }
        Ok(statement)
    }

    fn read_each(
        &self,
        sql: &Sql,
        params: &[&dyn Param],
        row: ReadRow<'_>,
    ) -> Result<(), StoreError> {
        let explain = |error| explain(self.path, error);
        let mut statement = self.bind(sql, params).map_err(explain)?;
        let mut rows = statement.raw_query();
        while let Some(found) = rows.next().map_err(explain)? {
            if row(found)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Tx for SqliteTx<'_> {
    fn now_or(&self, local: Timestamp) -> Timestamp {
        local
    }

    fn lock(&mut self, _number: i64) -> impl Future<Output = Result<(), StoreError>> + Send {
        // There is one writer.
        ready(Ok(()))
    }

    fn each(
        &mut self,
        sql: &'static Sql,
        params: &[&dyn Param],
        row: ReadRow<'_>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        ready(self.read_each(sql, params, row))
    }

    fn execute(
        &mut self,
        sql: &'static Sql,
        params: &[&dyn Param],
    ) -> impl Future<Output = Result<usize, StoreError>> + Send {
        ready(
            self.bind(sql, params)
                .and_then(|mut statement| statement.raw_execute())
                .map_err(|error| explain(self.path, error)),
        )
    }
}

fn bound(value: Value<'_>) -> ToSqlOutput<'_> {
    let borrowed = match value {
        Value::Integer(Some(number)) => ValueRef::Integer(number),
        Value::Boolean(Some(yes)) => ValueRef::Integer(yes.into()),
        Value::Text(Some(text)) => ValueRef::Text(text.as_bytes()),
        Value::Bytes(Some(bytes)) => ValueRef::Blob(bytes),
        Value::Texts(texts) => return json(serde_json::json!(texts)),
        Value::Integers(numbers) => return json(serde_json::json!(numbers)),
        Value::Integer(None) | Value::Boolean(None) | Value::Text(None) | Value::Bytes(None) => {
            ValueRef::Null
        }
    };
    ToSqlOutput::Borrowed(borrowed)
}

fn json(list: serde_json::Value) -> ToSqlOutput<'static> {
    ToSqlOutput::Owned(OwnedValue::Text(list.to_string()))
}

impl Row for rusqlite::Row<'_> {
    fn is_null(&self, column: usize) -> Result<bool, StoreError> {
        let value = self.get_ref(column).map_err(unreadable)?;
        Ok(matches!(value, ValueRef::Null))
    }

    fn integer(&self, column: usize) -> Result<i64, StoreError> {
        self.get(column).map_err(unreadable)
    }

    fn boolean(&self, column: usize) -> Result<bool, StoreError> {
        self.get(column).map_err(unreadable)
    }

    fn text(&self, column: usize) -> Result<Cow<'_, str>, StoreError> {
        let value = self.get_ref(column).map_err(unreadable)?;
        value
            .as_str()
            .map(Cow::Borrowed)
            .map_err(|error| unreadable(error.into()))
    }

    fn bytes(&self, column: usize) -> Result<&[u8], StoreError> {
        let value = self.get_ref(column).map_err(unreadable)?;
        value.as_blob().map_err(|error| unreadable(error.into()))
    }

    fn texts(&self, column: usize) -> Result<Vec<String>, StoreError> {
        let json = self.text(column)?;
        serde_json::from_str(&json).map_err(|error| {
            StoreError::Database(format!("column {column} is no list of texts: {error}"))
        })
    }
}

/// Converts the error of a column whose value has another type.
fn unreadable(error: rusqlite::Error) -> StoreError {
    StoreError::Database(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;

    static CREATE: Sql = Sql::new(
        "CREATE TABLE t (number INTEGER, yes INTEGER, text TEXT, bytes BLOB, moment INTEGER) STRICT",
    );
    static INSERT: Sql = Sql::new("INSERT INTO t VALUES ($1, $2, $3, $4, $5)");
    static LIST: Sql = Sql::new("SELECT number, yes, text, bytes, moment FROM t ORDER BY rowid");

    fn with_tx<T>(work: impl FnOnce(&mut SqliteTx<'_>) -> T) -> T {
        let mut connection = Connection::open_in_memory().expect("opened a database");
        work(&mut SqliteTx::new(&mut connection, Path::new(":memory:")))
    }

    /// Returns the result of a statement.
    fn now<T>(statement: impl Future<Output = Result<T, StoreError>>) -> T {
        immediate(statement).expect("the statement succeeded")
    }

    #[test]
    fn values_of_every_type_are_stored_and_read() {
        type All = (
            Option<i64>,
            Option<bool>,
            Option<String>,
            Option<Vec<u8>>,
            Option<Timestamp>,
        );
        let moment = Timestamp::from_millis(7);
        let rows: Vec<All> = with_tx(|tx| {
            now(tx.execute(&CREATE, &[]));
            let full: [&dyn Param; 5] = [&1_i64, &true, &"a\0b", &&b"c"[..], &moment];
            assert_eq!(now(tx.execute(&INSERT, &full)), 1);
            let empty: [&dyn Param; 5] = [
                &None::<i64>,
                &None::<i64>,
                &None::<&str>,
                &None::<&[u8]>,
                &None::<Timestamp>,
            ];
            assert_eq!(now(tx.execute(&INSERT, &empty)), 1);
            now(tx.all(&LIST, &[], |row| {
                Ok((
                    row.get(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    row.get(4)?,
                ))
            }))
        });
        assert_eq!(
            rows,
            [
                (
                    Some(1),
                    Some(true),
                    Some("a\0b".to_owned()),
                    Some(b"c".to_vec()),
                    Some(moment)
                ),
                (None, None, None, None, None)
            ]
        );
    }

    #[test]
    fn a_list_is_one_parameter() {
        static SQL: Sql = Sql::new("SELECT 'ą' IN ({elements}($1)), 'b' IN ({elements}($1))");
        static JSON: Sql = Sql::new("SELECT json_array('ą', 'b')");
        let (found, list): ((bool, bool), Vec<String>) = with_tx(|tx| {
            (
                now(tx.one(&SQL, &[&vec!["ą", "c"]], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })),
                now(tx.one(&JSON, &[], |row| row.get(0))),
            )
        });
        assert_eq!(found, (true, false));
        static SUM: Sql = Sql::new("SELECT sum(value) FROM ({elements}($1))");
        let sum: i64 = with_tx(|tx| now(tx.one(&SUM, &[&vec![3_i64, 4]], |row| row.get(0))));
        assert_eq!(sum, 7);
        assert_eq!(list, ["ą", "b"]);
    }

    #[test]
    fn reading_ends_early() {
        static NUMBERS: Sql = Sql::new("SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3");
        let mut read: Vec<i64> = Vec::new();
        with_tx(|tx| {
            now(tx.each(&NUMBERS, &[], &mut |row| {
                read.push(row.get(0)?);
                Ok(if read.len() == 2 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                })
            }));
            assert_eq!(
                now(tx.first(&NUMBERS, &[], |row| row.get::<i64>(0))),
                Some(1)
            );
        });
        assert_eq!(read, [1, 2]);
    }

    #[test]
    fn a_failed_operation_leaves_nothing_behind() {
        struct Fails;
        impl Operation for Fails {
            type Output = ();
            async fn run<T: Tx>(self, tx: &mut T) -> Result<(), StoreError> {
                tx.execute(&CREATE, &[]).await?;
                Err(StoreError::StaleLease)
            }
        }
        static TABLES: Sql = Sql::new("SELECT count(*) FROM sqlite_schema");
        let mut connection = Connection::open_in_memory().expect("opened a database");
        let path = Path::new(":memory:");
        let failed = in_transaction(&mut connection, path, Begin::Writing, |connection| {
            run(Fails, connection, path)
        });
        assert!(matches!(failed, Err(StoreError::StaleLease)), "{failed:?}");
        assert!(connection.is_autocommit());
        let mut tx = SqliteTx::new(&mut connection, path);
        assert_eq!(now(tx.one(&TABLES, &[], |row| row.get::<i64>(0))), 0);
    }
}
