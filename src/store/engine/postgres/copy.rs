//! Copying a SQLite file to an empty PostgreSQL database.

use std::path::{Path, PathBuf};

use rusqlite::types::Value as SqliteValue;
use rusqlite::{Connection, OptionalExtension as _};
use tokio::sync::mpsc;

use super::connection::{Pool, Transaction};
use super::schema;
use crate::config::PostgresAddress;
use crate::domain::Clock;
use crate::store::StoreError;
use crate::store::engine::{Kind, Param, Value, sqlite};
use crate::store::migrations::tables;

/// Maximum number of rows per statement.
const BATCH_ROWS: usize = 500;

/// Number of bytes at which a batch is full.
const BATCH_BYTES: usize = 4 << 20;

/// The result of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Number of rows of all tables.
    pub rows: u64,
    /// The newest sequence number.
    pub last: i64,
}

/// The progress of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Number of rows copied.
    pub done: u64,
    /// Number of rows of all tables.
    pub total: u64,
}

/// Copies the file at `from` to the database at `to`, with sequence, epoch and cursors. It is
/// one transaction: if it fails, the target is unchanged.
///
/// # Errors
///
/// [`StoreError::InUse`] if a server has the file, [`StoreError::NotEmpty`] if the target
/// holds any row, and the errors of either database.
pub async fn copy_from_sqlite(
    from: PathBuf,
    to: PostgresAddress,
    mut progress: impl FnMut(Progress),
) -> Result<Copied, StoreError> {
    let target = to.to_string();
    // Locked until the end, so that no server starts on the file meanwhile.
    let (connection, lock) = sqlite::open_locked_for_reading(&from)?;
    let pool = Pool::new(to, Clock::system(), None)?;
    schema::migrate(&pool).await?;
    let transaction = pool.write().await?;
    let names = tables().collect::<Vec<_>>().join(", ");
    transaction
        .script(&format!(
            "LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE NOWAIT"
        ))
        .await?;
    if !is_empty(&transaction).await? {
        transaction.roll_back().await?;
        return Err(StoreError::NotEmpty { target });
    }
    transaction
        .script("DELETE FROM sequence; DELETE FROM retention")
        .await?;
    let tables = read_tables(&transaction).await?;
    let (sender, mut batches) = mpsc::channel(2);
    let reading = {
        let tables = tables.clone();
        tokio::task::spawn_blocking(move || read_all(&connection, &from, &tables, &sender))
    };
    let mut done = 0;
    while let Some(batch) = batches.recv().await {
        let total = batch.total;
        done += batch.insert(&transaction, &tables).await?;
        progress(Progress { done, total });
    }
    reading.await.map_err(|_| {
        StoreError::Database(
            "the thread that reads the file panicked; report this as a bug".to_owned(),
        )
    })??;
    finish_copy(&transaction, &tables).await?;
    let row = transaction
        .query_one("SELECT last FROM sequence", &[])
        .await?;
    let last = row.try_get(0)?;
    transaction.commit().await?;
    pool.close();
    drop(lock);
    Ok(Copied { rows: done, last })
}

/// Returns true if no table holds rows that a service has stored.
async fn is_empty(transaction: &Transaction<'_>) -> Result<bool, StoreError> {
    let filled: Vec<String> = tables()
        .filter(|table| *table != "retention")
        .map(|table| match table {
            "sequence" => "EXISTS (SELECT 1 FROM sequence WHERE last > 0)".to_owned(),
            _ => format!("EXISTS (SELECT 1 FROM {table})"),
        })
        .collect();
    let sql = format!("SELECT NOT ({})", filled.join(" OR "));
    Ok(transaction.query_one(&sql, &[]).await?.try_get(0)?)
}

/// Completes the copy: leases are released, and ids continue after the highest.
async fn finish_copy(transaction: &Transaction<'_>, tables: &[Table]) -> Result<(), StoreError> {
    for Table { name, columns } in tables {
        if columns.iter().any(|column| column.name == "leased_until") {
            transaction
                .script(&format!(
                    "UPDATE {name} SET leased_until = NULL WHERE leased_until IS NOT NULL"
                ))
                .await?;
        }
        if columns.iter().any(|column| column.numbered) {
            transaction
                .script(&format!(
                    "SELECT setval(pg_get_serial_sequence('{name}', 'id'), greatest(max(id), 1), max(id) IS NOT NULL) FROM {name}"
                ))
                .await?;
        }
    }
    Ok(())
}

/// A column of the target.
#[derive(Clone, Debug)]
struct Column {
    name: String,
    kind: Kind,
    /// True if the database gives the numbers of new rows.
    numbered: bool,
}

#[derive(Clone, Debug)]
struct Table {
    name: &'static str,
    columns: Vec<Column>,
}

impl Table {
    /// Returns the names of its columns, separated by commas.
    fn names(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|one| one.name.as_str()).collect();
        names.join(", ")
    }
}

/// Reads the target's columns, so that only the migrations list them.
async fn read_tables(transaction: &Transaction<'_>) -> Result<Vec<Table>, StoreError> {
    let mut found = Vec::new();
    for name in tables() {
        let rows = transaction
            .query(
                "SELECT attname::text, format_type(atttypid, NULL), attidentity <> '' FROM pg_attribute
                 WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
                &[&name],
            )
            .await?;
        let mut columns = Vec::with_capacity(rows.len());
        for row in rows {
            let kind = match row.try_get(1)? {
                "bigint" => Kind::Integer,
                "text" => Kind::Text,
                "bytea" => Kind::Bytes,
                "boolean" => Kind::Boolean,
                other => {
                    return Err(StoreError::Database(format!(
                        "cannot copy table `{name}`: column type {other} is not supported; \
                         report this as a bug"
                    )));
                }
            };
            columns.push(Column {
                name: row.try_get(0)?,
                kind,
                numbered: row.try_get(2)?,
            });
        }
        found.push(Table { name, columns });
    }
    Ok(found)
}

/// The values of one column of a batch.
struct Values(Kind, Vec<SqliteValue>);

impl Param for Values {
    fn value(&self) -> Value<'_> {
        let value = |value| match value {
            &SqliteValue::Integer(number) if self.0 == Kind::Boolean => Value::Boolean(number != 0),
            SqliteValue::Integer(number) => Value::Integer(*number),
            SqliteValue::Text(text) => Value::Text(text),
            SqliteValue::Blob(bytes) => Value::Bytes(bytes),
            // No column holds floating point numbers.
            SqliteValue::Null | SqliteValue::Real(_) => Value::Null(self.0),
        };
        Value::List(self.0, self.1.iter().map(value).collect())
    }
}

/// Rows of one table to be inserted together.
struct Batch {
    table: usize,
    rows: u64,
    columns: Vec<Values>,
    total: u64,
}

impl Batch {
    async fn insert(
        &self,
        transaction: &Transaction<'_>,
        tables: &[Table],
    ) -> Result<u64, StoreError> {
        let table = &tables[self.table];
        let places: Vec<String> = (1..=self.columns.len()).map(|n| format!("${n}")).collect();
        let sql = format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT * FROM unnest({})",
            table.name,
            table.names(),
            places.join(", ")
        );
        let columns: Vec<&dyn Param> = self.columns.iter().map(|one| one as &dyn Param).collect();
        transaction.query(&sql, &columns).await?;
        Ok(self.rows)
    }
}

/// Sends every row of the file, in batches.
fn read_all(
    connection: &Connection,
    path: &Path,
    tables: &[Table],
    sender: &mpsc::Sender<Batch>,
) -> Result<(), StoreError> {
    let explain = |error| sqlite::explain(path, error);
    if let Some(name) = unknown_table(connection).map_err(explain)? {
        return Err(StoreError::Database(format!(
            "cannot copy table `{name}`, which this version does not know; run the version of \
             ivesk-webhook that created it"
        )));
    }
    let mut total = 0;
    for Table { name, .. } in tables {
        total += connection
            .query_row(&format!("SELECT count(*) FROM {name}"), [], |row| {
                row.get::<_, u64>(0)
            })
            .map_err(explain)?;
    }
    for (index, table) in tables.iter().enumerate() {
        read_table(connection, table, |columns, rows| {
            let batch = Batch {
                table: index,
                rows,
                columns,
                total,
            };
            // The receiver is gone if the other side failed, which returns the error.
            sender.blocking_send(batch).is_ok()
        })
        .map_err(explain)?;
    }
    Ok(())
}

/// Returns a table of the file that is not in the list and would be left behind.
fn unknown_table(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let known: Vec<String> = tables().map(|name| format!("'{name}'")).collect();
    let sql = format!(
        "SELECT name FROM sqlite_schema
         WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT IN ({})",
        known.join(", ")
    );
    connection.query_row(&sql, [], |row| row.get(0)).optional()
}

/// Passes each batch of a table to `send`, until that returns false.
fn read_table(
    connection: &Connection,
    table: &Table,
    mut send: impl FnMut(Vec<Values>, u64) -> bool,
) -> rusqlite::Result<()> {
    let sql = format!("SELECT {} FROM {}", table.names(), table.name);
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let empty = || -> Vec<Values> {
        let columns = table.columns.iter();
        columns.map(|one| Values(one.kind, Vec::new())).collect()
    };
    let (mut columns, mut count, mut bytes) = (empty(), 0, 0);
    while let Some(row) = rows.next()? {
        for (index, column) in columns.iter_mut().enumerate() {
            let value = row.get(index)?;
            bytes += match &value {
                SqliteValue::Text(text) => text.len(),
                SqliteValue::Blob(bytes) => bytes.len(),
                _ => 8,
            };
            column.1.push(value);
        }
        count += 1;
        if count >= BATCH_ROWS || bytes >= BATCH_BYTES {
            if !send(std::mem::replace(&mut columns, empty()), count as u64) {
                return Ok(());
            }
            (count, bytes) = (0, 0);
        }
    }
    if count > 0 {
        send(columns, count as u64);
    }
    Ok(())
}
