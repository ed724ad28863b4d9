//! Transactions of one connection, and the operations that run in them.

use std::borrow::Cow;
use std::future::ready;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use rusqlite::types::{ToSqlOutput, Value as OwnedValue, ValueRef};
use rusqlite::{CachedStatement, Connection};

use super::error::explain;
use crate::domain::Timestamp;
use crate::store::engine::{
    NewNotification, Param, ReadRow, Row, Sql, Statement, TermsOf, Tx, Value, params,
};
use crate::store::error::Result;
use crate::store::{Hooks, StoreError};

/// The database, as its errors name it and tests see it.
pub(super) struct Database {
    pub(super) path: PathBuf,
    pub(super) hooks: Option<Arc<dyn Hooks>>,
}

/// A transaction in progress on a connection.
pub(super) struct SqliteTx<'c>(Mutex<Open<'c>>);

/// The connection, which runs one statement after the other.
struct Open<'c> {
    connection: &'c mut Connection,
    database: &'c Database,
}

/// The kind of a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Begin {
    /// Writes; waits for no other writer later on.
    Writing,
    /// Reads one snapshot.
    Reading,
    /// Writes, and is rolled back.
    Rehearsing,
}

impl Begin {
    const fn sql(self) -> &'static str {
        match self {
            Self::Writing | Self::Rehearsing => "BEGIN IMMEDIATE",
            Self::Reading => "BEGIN DEFERRED",
        }
    }

    /// Returns the statement that ends the transaction if its work succeeds.
    const fn end(self) -> &'static str {
        match self {
            Self::Writing | Self::Reading => "COMMIT",
            Self::Rehearsing => "ROLLBACK",
        }
    }
}

/// Runs `work` in a transaction, which is committed if it succeeds and rolled back if not,
/// or if it is a rehearsal.
pub(super) fn in_transaction<T>(
    connection: &mut Connection,
    database: &Database,
    begin: Begin,
    work: impl FnOnce(&SqliteTx<'_>) -> Result<T>,
) -> Result<T> {
    let control = |connection: &Connection, sql: &str| {
        connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([]))
            .map_err(|error| explain(&database.path, error))
    };
    control(connection, begin.sql())?;
    let open = Mutex::new(Open {
        connection: &mut *connection,
        database,
    });
    let outcome = work(&SqliteTx(open)).and_then(|value| {
        control(connection, begin.end())?;
        Ok(value)
    });
    // SQLite itself rolls back after some errors, such as a full disk.
    if outcome.is_err()
        && !connection.is_autocommit()
        && let Err(error) = control(connection, "ROLLBACK")
    {
        tracing::debug!(%error, "failed to roll back");
    }
    outcome
}

/// Returns the result of work that awaits nothing but a [`SqliteTx`].
pub(super) fn immediate<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => Err(StoreError::Database(
            "an operation waited for something other than its transaction; report this as a bug"
                .to_owned(),
        )),
    }
}

impl<'c> SqliteTx<'c> {
    fn open(&self) -> MutexGuard<'_, Open<'c>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open<'_> {
    /// Returns the prepared statement, without values.
    fn prepare(&self, sql: &Sql) -> Result<CachedStatement<'_>> {
        if let Some(hooks) = &self.database.hooks {
            hooks.statement(sql.sqlite(), &[]);
        }
        let prepared = self.connection.prepare_cached(sql.sqlite());
        prepared.map_err(|error| explain(&self.database.path, error))
    }

    /// Returns the prepared statement with its values.
    fn bind(&self, sql: &Sql, params: &[&dyn Param]) -> Result<CachedStatement<'_>> {
        let mut statement = self.prepare(sql)?;
        bind_all(&mut statement, params).map_err(|error| explain(&self.database.path, error))?;
        Ok(statement)
    }

    fn execute(&self, sql: &Sql, params: &[&dyn Param]) -> Result<usize> {
        let mut statement = self.bind(sql, params)?;
        let changed = statement.raw_execute();
        changed.map_err(|error| explain(&self.database.path, error))
    }

    /// Executes a prepared statement with these values; returns the number of rows that it
    /// changed.
    fn execute_prepared(
        &self,
        statement: &mut CachedStatement<'_>,
        params: &[&dyn Param],
    ) -> Result<usize> {
        bind_all(statement, params)
            .and_then(|()| statement.raw_execute())
            .map_err(|error| explain(&self.database.path, error))
    }

    fn insert_each(&self, notifications: &[NewNotification<'_>]) -> Result<Vec<bool>> {
        static SQL: Sql = Sql::new(
            "INSERT INTO notification (account_id, event, published_at, message_id, kind, received_at, body)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (published_at, message_id, account_id, event) DO NOTHING",
        );
        let mut statement = self.prepare(&SQL)?;
        let mut insert = |new: &NewNotification<'_>| {
            let values = params! {
                new.account, new.event, new.published_at, new.message_id, new.kind, new.received_at,
                new.body,
            };
            Ok(self.execute_prepared(&mut statement, values)? > 0)
        };
        notifications.iter().map(&mut insert).collect()
    }

    /// Inserts rows with the sequence numbers after `last`, and their terms; returns the last number.
    fn insert_after(
        &self,
        mut last: i64,
        sql: &Sql,
        rows: &[Vec<&dyn Param>],
        terms: TermsOf<'_>,
    ) -> Result<i64> {
        static TERM: Sql = Sql::new("INSERT INTO search_term (term, sequence) VALUES ($1, $2)");
        let (mut row_statement, mut term_statement) = (self.prepare(sql)?, self.prepare(&TERM)?);
        for (index, row) in rows.iter().enumerate() {
            last += 1;
            let values = [&[&last as &dyn Param], row.as_slice()].concat();
            self.execute_prepared(&mut row_statement, &values)?;
            for term in terms(index) {
                self.execute_prepared(&mut term_statement, &[&term, &last])?;
            }
        }
        Ok(last)
    }

    fn read_each(&self, sql: &Sql, params: &[&dyn Param], row: ReadRow<'_>) -> Result<()> {
        let mut statement = self.bind(sql, params)?;
        let mut rows = statement.raw_query();
        while let Some(found) = rows
            .next()
            .map_err(|error| explain(&self.database.path, error))?
        {
            if row(found)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Tx for SqliteTx<'_> {
    const IN_PROCESS: bool = true;

    fn now_or(&self, local: Timestamp) -> Timestamp {
        local
    }

    fn lock(&self, _number: i64) -> impl Future<Output = Result<()>> + Send {
        // There is one writer.
        ready(Ok(()))
    }

    fn each(
        &self,
        sql: &'static Sql,
        params: &[&dyn Param],
        row: ReadRow<'_>,
    ) -> impl Future<Output = Result<()>> + Send {
        ready(self.open().read_each(sql, params, row))
    }

    fn execute(
        &self,
        sql: &'static Sql,
        params: &[&dyn Param],
    ) -> impl Future<Output = Result<usize>> + Send {
        ready(self.open().execute(sql, params))
    }

    fn insert_notifications(
        &self,
        notifications: &[NewNotification<'_>],
    ) -> impl Future<Output = Result<Vec<bool>>> + Send {
        ready(self.open().insert_each(notifications))
    }

    async fn last(&self, statements: &[Statement<'_>], row: ReadRow<'_>) -> Result<()> {
        for (sql, params) in statements {
            self.each(sql, params, row).await?;
        }
        Ok(())
    }

    async fn insert_numbered(
        &self,
        sql: &'static Sql,
        rows: &[Vec<&dyn Param>],
        terms: TermsOf<'_>,
    ) -> Result<()> {
        static LAST: Sql = Sql::new("SELECT last FROM sequence");
        static SET_LAST: Sql = Sql::new("UPDATE sequence SET last = $1");
        let last: i64 = self.one(&LAST, &[]).await?;
        let last = self.open().insert_after(last, sql, rows, terms)?;
        self.run(&SET_LAST, &[&last]).await
    }
}

/// Gives a statement its values.
fn bind_all(statement: &mut CachedStatement<'_>, params: &[&dyn Param]) -> rusqlite::Result<()> {
    for (number, param) in (1..).zip(params) {
        statement.raw_bind_parameter(number, bound(param.value()))?;
    }
    Ok(())
}

fn bound(value: Value<'_>) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(match value {
        Value::Null(_) => ValueRef::Null,
        Value::Integer(number) => ValueRef::Integer(number),
        Value::Boolean(yes) => ValueRef::Integer(yes.into()),
        Value::Text(text) => ValueRef::Text(text.as_bytes()),
        Value::Bytes(bytes) => ValueRef::Blob(bytes),
        Value::List(_, values) => {
            let list: serde_json::Value = values.iter().map(json).collect();
            return ToSqlOutput::Owned(OwnedValue::Text(list.to_string()));
        }
    })
}

/// Returns an element of a list: JSON holds no bytes, and no statement has a list of them.
fn json(value: &Value<'_>) -> serde_json::Value {
    match value {
        Value::Integer(number) => (*number).into(),
        Value::Boolean(yes) => i64::from(*yes).into(),
        Value::Text(text) => (*text).into(),
        Value::Null(_) | Value::Bytes(_) | Value::List(..) => serde_json::Value::Null,
    }
}

impl Row for rusqlite::Row<'_> {
    fn is_null(&self, column: usize) -> Result<bool> {
        let value = self.get_ref(column).map_err(unreadable)?;
        Ok(matches!(value, ValueRef::Null))
    }

    fn integer(&self, column: usize) -> Result<i64> {
        self.get(column).map_err(unreadable)
    }

    fn boolean(&self, column: usize) -> Result<bool> {
        self.get(column).map_err(unreadable)
    }

    fn text(&self, column: usize) -> Result<Cow<'_, str>> {
        let value = self.get_ref(column).map_err(unreadable)?;
        value
            .as_str()
            .map(Cow::Borrowed)
            .map_err(|error| unreadable(error.into()))
    }

    fn bytes(&self, column: usize) -> Result<&[u8]> {
        let value = self.get_ref(column).map_err(unreadable)?;
        value.as_blob().map_err(|error| unreadable(error.into()))
    }

    fn texts(&self, column: usize) -> Result<Vec<String>> {
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
    use super::*;
    use crate::store::engine::Column;

    static CREATE: Sql = Sql::new(
        "CREATE TABLE t (number INTEGER, yes INTEGER, text TEXT, bytes BLOB, moment INTEGER) STRICT",
    );

    fn database() -> Database {
        Database {
            path: ":memory:".into(),
            hooks: None,
        }
    }

    fn with_tx<T>(work: impl AsyncFnOnce(&SqliteTx<'_>) -> Result<T>) -> Result<T> {
        let mut connection = Connection::open_in_memory().expect("opened a database");
        in_transaction(&mut connection, &database(), Begin::Writing, |tx| {
            immediate(work(tx))
        })
    }

    /// Returns the rows of a statement.
    fn rows<C: Column + Send>(sql: &'static Sql, params: &[&dyn Param]) -> Vec<C> {
        with_tx(async |tx| tx.all(sql, params).await).expect("the statement succeeded")
    }

    #[test]
    fn values_of_every_type_are_stored_and_read() {
        static INSERT: Sql = Sql::new("INSERT INTO t VALUES ($1, $2, $3, $4, $5)");
        static LIST: Sql =
            Sql::new("SELECT number, yes, text, bytes, moment FROM t ORDER BY rowid");
        type Numbers = (Option<i64>, Option<bool>);
        type Others = (Option<String>, Option<Vec<u8>>, Option<Timestamp>);
        let moment = Timestamp::from_millis(7);
        let rows: Vec<(Numbers, Others)> = with_tx(async |tx| {
            tx.run(&CREATE, &[]).await?;
            let full: [&dyn Param; 5] = [&1_i64, &true, &"a\0b", &&b"c"[..], &moment];
            assert_eq!(tx.execute(&INSERT, &full).await?, 1);
            let empty: [&dyn Param; 5] = [
                &None::<i64>,
                &None::<bool>,
                &None::<&str>,
                &None::<&[u8]>,
                &None::<Timestamp>,
            ];
            assert_eq!(tx.execute(&INSERT, &empty).await?, 1);
            tx.all(&LIST, &[]).await
        })
        .expect("the statements succeeded");
        let text = Some("a\0b".to_owned());
        let full = (
            (Some(1), Some(true)),
            (text, Some(b"c".to_vec()), Some(moment)),
        );
        assert_eq!(rows, [full, ((None, None), (None, None, None))]);
    }

    #[test]
    fn a_list_is_one_parameter() {
        static SQL: Sql = Sql::new("SELECT 'ą' IN ({elements}($1)), 'b' IN ({elements}($1))");
        assert_eq!(
            rows::<(bool, bool)>(&SQL, &[&vec!["ą", "c"]]),
            [(true, false)]
        );
        static SUM: Sql = Sql::new("SELECT sum(value) FROM ({elements}($1))");
        assert_eq!(rows::<i64>(&SUM, &[&vec![3_i64, 4]]), [7]);
        static JSON: Sql = Sql::new("SELECT json_array('ą', 'b')");
        assert_eq!(rows::<Vec<String>>(&JSON, &[]), [["ą", "b"]]);
    }

    #[test]
    fn reading_ends_early() {
        static ROWS: Sql = Sql::new("SELECT 1 UNION ALL SELECT json('not JSON')");
        let first: Option<i64> =
            with_tx(async |tx| tx.first(&ROWS, &[]).await).expect("the second row is not reached");
        assert_eq!(first, Some(1));
    }

    #[test]
    fn a_failed_operation_leaves_nothing_behind() {
        static TABLES: Sql = Sql::new("SELECT count(*) FROM sqlite_schema");
        let mut connection = Connection::open_in_memory().expect("opened a database");
        let mut run = |work: fn(&SqliteTx<'_>) -> Result<i64>| {
            let database = database();
            in_transaction(&mut connection, &database, Begin::Writing, work)
        };
        let failed = run(|tx| {
            immediate(tx.run(&CREATE, &[]))?;
            Err(StoreError::StaleLease)
        });
        assert!(matches!(failed, Err(StoreError::StaleLease)), "{failed:?}");
        let tables = run(|tx| immediate(tx.one(&TABLES, &[])));
        assert_eq!(tables.expect("a transaction begins"), 0);
    }
}
