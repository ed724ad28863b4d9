//! The schema of both databases: its migrations, each written once.

use super::engine::{Fragment, Sql, differs};

/// A step from one version of the schema to the next.
pub(super) struct Migration {
    pub(super) sql: Sql,
    /// The oldest schema version whose programs work with the database after this.
    pub(super) works_from: u32,
}

/// What the databases say differently in a schema.
const TYPES: &[(&str, Fragment)] = &[
    // The row's number, given by the database.
    (
        "id",
        differs(
            "INTEGER PRIMARY KEY",
            "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        ),
    ),
    // The same, never used twice even if its row was removed.
    (
        "new_id",
        differs(
            "INTEGER PRIMARY KEY AUTOINCREMENT",
            "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        ),
    ),
    ("integer", differs("INTEGER", "BIGINT")),
    ("boolean", differs("INTEGER", "BOOLEAN")),
    ("bytes", differs("BLOB", "BYTEA")),
    // SQLite checks the types of columns.
    ("strict", differs(" STRICT", "")),
    // The same, and keeps the rows in the primary key.
    ("by_key", differs(" STRICT, WITHOUT ROWID", "")),
];

const FIRST: &str = include_str!("migrations/0001_first.sql");

/// The migrations in order; the schema's version is the number of those applied. Append only
/// after the first release, and each must leave a schema that the previous release works with.
pub(super) static MIGRATIONS: [Migration; 1] = [Migration {
    sql: Sql::with(FIRST, TYPES),
    works_from: 1,
}];

/// The newest schema version that this program supports.
#[expect(
    clippy::cast_possible_truncation,
    reason = "`try_from` is no const, and there are few migrations"
)]
pub(super) const NEWEST: u32 = MIGRATIONS.len() as u32;

/// Returns the tables in the order in which they are created: each after those that it refers to.
pub(super) fn tables() -> impl Iterator<Item = &'static str> {
    let created = FIRST.split("CREATE TABLE ").skip(1);
    created.filter_map(|table| table.split(' ').next())
}
