//! `store copy`: from a SQLite file to a PostgreSQL database.

use std::path::Path;
use std::process::Stdio;

use ivesk_webhook::domain::{Clock, Cursor, Feed};
use ivesk_webhook::store::{DocumentFilter, SharedStore, TriggerKind};

use super::test_store::{START, TestStore, company, page};
use crate::support::databases::{Database, Options, query_sql};
use crate::support::process::program;

fn feed() -> Feed {
    company("302320404")
}

/// Stores 1,200 versions of the feed, whose pull is not finished.
async fn fill(test: &TestStore) {
    test.trigger(&feed(), TriggerKind::Notification).await;
    for number in 0..12 {
        let lease = test.lease().await.expect("the feed is due");
        let ids: Vec<String> = (0..100).map(|n| format!("{number}-{n}")).collect();
        let versions: Vec<(&str, &str)> = ids
            .iter()
            .map(|id| (&**id, "2026-09-20T00:00:00.000Z"))
            .collect();
        // The vendor's cursor is opaque, and JSON may hold any character.
        let page = page(&versions, &format!("ą\0{number}"));
        test.commit(lease, page).await.expect("the page is stored");
    }
}

async fn contents(store: &SharedStore) -> String {
    let documents = store
        .documents(DocumentFilter {
            limit: 10_000,
            ..DocumentFilter::default()
        })
        .await
        .expect("readable");
    let feeds = store.feeds().await.expect("readable");
    let sequence = store.sequence().await.expect("readable");
    format!("{documents:?}{feeds:?}{sequence:?}")
}

/// Runs `store copy`; returns its exit code and all it printed.
async fn copy(folder: &Path, from: &str, to: &str) -> (Option<i32>, String) {
    let output = program()
        .current_dir(folder)
        .args(["store", "copy", "--from", from, "--to", to])
        .stdin(Stdio::null())
        .output()
        .await
        .expect("the program runs");
    let printed = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&printed).into_owned(),
    )
}

#[tokio::test]
async fn a_copied_store_is_equal_and_continues_where_it_stopped() {
    let Some(shared) = Database::postgres("store copy").await else {
        return;
    };
    let test = TestStore::new(Database::sqlite()).await;
    fill(&test).await;
    let (from, to) = (test.database.url_text(), shared.url_text());
    let folder = test.database.folder();

    let (exit, printed) = copy(folder, &from, &to).await;
    assert_ne!(exit, Some(0), "a server has the file open");
    assert!(printed.contains("in use"), "{printed}");

    let original = contents(&test.store).await;
    test.store.close().await.expect("it closes");
    let (exit, printed) = copy(folder, &from, &to).await;
    assert_eq!(exit, Some(0), "{printed}");
    assert!(printed.contains("up to sequence number 1200"), "{printed}");
    assert!(
        !printed.contains('\r'),
        "no progress bar without a terminal: {printed}"
    );

    let options = Options::at(Clock::manual(START));
    let store = shared.open(options).await.expect("it opens");
    assert_eq!(contents(&store).await, original);
    let lease = store.lease_page(test.request()).await;
    let lease = lease.expect("leasing works").expect("the pull continues");
    assert_eq!(lease.position.from, Some(Cursor::new("ą\u{0}11")));
    let registered = store.register_feeds(vec![company("1")], START).await;
    registered.expect("ids of new rows don't collide");

    let (exit, printed) = copy(folder, &from, &to).await;
    assert_eq!(exit, Some(1), "{printed}");
    assert!(
        printed.contains("is not empty; create an empty database"),
        "{printed}"
    );
}

/// The tables of a SQLite file, each with the names and types of its columns.
type Tables = Vec<(String, Vec<(String, String)>)>;

/// Returns the tables in the order of their creation.
fn tables(connection: &rusqlite::Connection) -> Tables {
    let mut statement = connection
        .prepare(
            "SELECT t.name, c.name, c.type FROM sqlite_schema t JOIN pragma_table_info(t.name) c
             WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' ORDER BY t.rowid, c.cid",
        )
        .expect("it is SQL");
    let mut rows = statement.query([]).expect("it runs");
    let mut tables = Tables::new();
    while let Some(row) = rows.next().expect("it runs") {
        let text = |column| row.get::<_, String>(column).expect("a text");
        if tables.last().is_none_or(|(name, _)| *name != text(0)) {
            tables.push((text(0), Vec::new()));
        }
        let (_, columns) = tables.last_mut().expect("just added");
        columns.push((text(1), text(2)));
    }
    tables
}

/// Adds a row to each empty table.
fn fill_every_table(connection: &rusqlite::Connection) {
    for (table, columns) in tables(connection) {
        // One value for all columns of a type, as rows refer to row 1.
        let values: Vec<&str> = columns
            .iter()
            .map(|(_, kind)| match kind.as_str() {
                "INTEGER" => "1",
                "TEXT" => "'ą' || char(0)",
                "BLOB" => "x'00ff'",
                other => panic!("{table} has a column of type {other}"),
            })
            .collect();
        let insert = format!(
            "INSERT INTO {table} SELECT {} WHERE NOT EXISTS (SELECT 1 FROM {table})",
            values.join(", ")
        );
        connection.execute(&insert, []).expect("the row fits");
    }
}

#[tokio::test]
async fn every_column_of_every_table_is_copied() {
    let Some(shared) = Database::postgres("store copy").await else {
        return;
    };
    let test = TestStore::new(Database::sqlite()).await;
    let folder = test.database.folder();
    test.store.close().await.expect("it closes");
    let connection = rusqlite::Connection::open(folder.join("test.db")).expect("it opens");
    fill_every_table(&connection);

    let (exit, printed) = copy(folder, &test.database.url_text(), &shared.url_text()).await;

    assert_eq!(exit, Some(0), "{printed}");
    for (table, columns) in tables(&connection) {
        let select = |bytes: fn(&str) -> String, ended_lease: &str| {
            let columns: Vec<String> = columns
                .iter()
                .map(|(name, kind)| match (name.as_str(), kind.as_str()) {
                    ("leased_until", _) => ended_lease.to_owned(),
                    (name, "BLOB") => bytes(name),
                    (name, _) => format!("CAST({name} AS TEXT)"),
                })
                .collect();
            format!("SELECT {} FROM {table}", columns.join(", "))
        };
        // The copy releases all leases.
        let ours = select(|name| format!("lower(hex({name}))"), "NULL");
        let theirs = select(|name| format!("encode({name}, 'hex')"), "leased_until");
        let expected: Vec<Option<String>> = connection
            .query_row(&ours, [], |row| {
                (0..columns.len()).map(|column| row.get(column)).collect()
            })
            .expect("it has one row");
        let copied = query_sql(&shared.url_text(), &theirs).await.concat();
        let copied: Vec<Option<String>> = copied
            .into_iter()
            .map(|value| match value.as_deref() {
                Some("true") => Some("1".to_owned()),
                Some("false") => Some("0".to_owned()),
                // A NUL, which PostgreSQL can't store.
                Some(text) => Some(text.replace("\u{ffff}0", "\0")),
                None => None,
            })
            .collect();
        assert_eq!(copied, expected, "{table}");
    }
}

#[tokio::test]
async fn a_copy_without_a_store_or_a_server_is_refused() {
    let file = Database::sqlite();
    let to = "postgres://nobody:s3cret@127.0.0.1:9/none";
    let (exit, printed) = copy(file.folder(), "sqlite://missing.db", to).await;
    assert_eq!(exit, Some(1), "{printed}");
    assert!(!file.folder().join("missing.db.lock").exists());
    let store = file.open(Options::at(Clock::manual(START))).await;
    let store = store.expect("it opens");
    store.close().await.expect("it closes");
    let (exit, printed) = copy(file.folder(), "sqlite://test.db", to).await;
    assert_eq!(exit, Some(3), "{printed}");
    assert!(!printed.contains("s3cret"), "{printed}");
    let (exit, printed) = copy(file.folder(), to, "sqlite://test.db").await;
    assert_eq!(exit, Some(2), "{printed}");
}
