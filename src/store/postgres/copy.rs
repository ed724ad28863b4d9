//! Copying a SQLite file to an empty PostgreSQL database.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use tokio::sync::mpsc;

use super::connection::{Parameter, Pool, Transaction};
use super::rows::escape_nul;
use super::schema;
use crate::config::PostgresAddress;
use crate::domain::Clock;
use crate::store::migrations::tables;
use crate::store::{StoreError, sqlite};

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
    let pool = Pool::new(to, Clock::system())?;
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
    for table in tables() {
        if table == "retention" {
            continue;
        }
        let condition = if table == "sequence" {
            "WHERE last > 0"
        } else {
            ""
        };
        let row = transaction
            .query_one(
                &format!("SELECT EXISTS (SELECT 1 FROM {table} {condition})"),
                &[],
            )
            .await?;
        if row.try_get(0)? {
            return Ok(false);
        }
    }
    Ok(true)
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
    kind: ColumnKind,
    /// True if the database gives the numbers of new rows.
    numbered: bool,
}

#[derive(Clone, Copy, Debug)]
enum ColumnKind {
    Number,
    Text,
    Bytes,
    Boolean,
}

#[derive(Clone, Debug)]
struct Table {
    name: &'static str,
    columns: Vec<Column>,
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
                "bigint" => ColumnKind::Number,
                "text" => ColumnKind::Text,
                "bytea" => ColumnKind::Bytes,
                "boolean" => ColumnKind::Boolean,
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
enum Values {
    Numbers(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
    Booleans(Vec<Option<bool>>),
}

impl Values {
    fn of(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Number => Self::Numbers(Vec::new()),
            ColumnKind::Text => Self::Texts(Vec::new()),
            ColumnKind::Bytes => Self::Bytes(Vec::new()),
            ColumnKind::Boolean => Self::Booleans(Vec::new()),
        }
    }

    /// Adds SQLite's value and returns its size.
    fn push(&mut self, value: ValueRef<'_>) -> Result<usize, rusqlite::types::FromSqlError> {
        let size = match value {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        };
        match self {
            Self::Numbers(values) => values.push(value.as_i64_or_null()?),
            Self::Texts(values) => values.push(value.as_str_or_null()?.map(escape_nul)),
            Self::Bytes(values) => values.push(value.as_blob_or_null()?.map(<[u8]>::to_vec)),
            Self::Booleans(values) => {
                values.push(value.as_i64_or_null()?.map(|number| number != 0));
            }
        }
        Ok(size)
    }

    fn parameter(&self) -> &dyn Parameter {
        match self {
            Self::Numbers(values) => values,
            Self::Texts(values) => values,
            Self::Bytes(values) => values,
            Self::Booleans(values) => values,
        }
    }
}

/// Rows of one table to be inserted together.
struct Batch {
    table: usize,
    rows: u64,
    values: Vec<Values>,
    total: u64,
}

impl Batch {
    async fn insert(
        &self,
        transaction: &Transaction<'_>,
        tables: &[Table],
    ) -> Result<u64, StoreError> {
        let Table { name, columns } = &tables[self.table];
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let places: Vec<String> = (1..=columns.len()).map(|n| format!("${n}")).collect();
        let sql = format!(
            "INSERT INTO {name} ({}) OVERRIDING SYSTEM VALUE SELECT * FROM unnest({})",
            names.join(", "),
            places.join(", ")
        );
        let values: Vec<&dyn Parameter> = self.values.iter().map(Values::parameter).collect();
        transaction.execute(&sql, &values).await?;
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
    refuse_unknown_tables(connection).map_err(explain)??;
    let mut total = 0;
    for Table { name, .. } in tables {
        total += connection
            .query_row(&format!("SELECT count(*) FROM {name}"), [], |row| {
                row.get::<_, u64>(0)
            })
            .map_err(explain)?;
    }
    for (index, table) in tables.iter().enumerate() {
        read_table(connection, table, |values, rows| {
            let batch = Batch {
                table: index,
                rows,
                values,
                total,
            };
            // The receiver is gone if the other side failed, which returns the error.
            sender.blocking_send(batch).is_ok()
        })
        .map_err(explain)?;
    }
    Ok(())
}

/// Fails if the file has a table that is not in the list and would be left behind.
fn refuse_unknown_tables(connection: &Connection) -> rusqlite::Result<Result<(), StoreError>> {
    let mut statement = connection.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
    )?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    for name in names {
        let name = name?;
        if !tables().any(|known| known == name) {
            return Ok(Err(StoreError::Database(format!(
                "cannot copy table `{name}`, which this version does not know; run the \
                 version of ivesk-webhook that created it"
            ))));
        }
    }
    Ok(Ok(()))
}

/// Passes each batch of a table to `send`, until that returns false.
fn read_table(
    connection: &Connection,
    table: &Table,
    mut send: impl FnMut(Vec<Values>, u64) -> bool,
) -> rusqlite::Result<()> {
    let names: Vec<&str> = table
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    let mut statement =
        connection.prepare(&format!("SELECT {} FROM {}", names.join(", "), table.name))?;
    let mut rows = statement.query([])?;
    let empty = || -> Vec<Values> {
        let kinds = table.columns.iter().map(|column| column.kind);
        kinds.map(Values::of).collect()
    };
    let (mut values, mut count, mut bytes) = (empty(), 0, 0);
    while let Some(row) = rows.next()? {
        for (index, column) in values.iter_mut().enumerate() {
            bytes += column.push(row.get_ref(index)?)?;
        }
        count += 1;
        if count >= BATCH_ROWS || bytes >= BATCH_BYTES {
            if !send(std::mem::replace(&mut values, empty()), count as u64) {
                return Ok(());
            }
            (count, bytes) = (0, 0);
        }
    }
    if count > 0 {
        send(values, count as u64);
    }
    Ok(())
}
