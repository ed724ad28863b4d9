//! Plans of the store's statements: each statement that a test runs is explained once, on the
//! test's own database, and must read tables that grow by an index.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ivesk_webhook::store::Hooks;
use serde_json::Value;

/// Tables that grow with the messages, documents and companies.
const GROWING: [&str; 22] = [
    "alarm",
    "audit",
    "delivery",
    "delivery_attempt",
    "document",
    "document_link",
    "erased_file",
    "feed",
    "feed_cursor",
    "feed_pull",
    "feed_trigger",
    "gap",
    "import_error",
    "lane",
    "list_place",
    "notification",
    "quarantine",
    "search_term",
    "tombstone",
    "unreadable",
    "upload",
    "upload_document",
];

/// A part of statements that may read all of a table, the table, and the reason.
type Exception = (&'static str, &'static str, &'static str);

const EXCEPTIONS: &[Exception] = &[
    // A feed is a company, of which there are thousands at most.
    (
        "a.id = f.account_id\n         ORDER BY a.name",
        "feed",
        "all feeds, which a person changes or pulls",
    ),
    (
        "f.company = '' OR",
        "feed",
        "all feeds that a destination takes",
    ),
    // For its real parameters, which it knows when it plans, PostgreSQL reads them by their ids.
    (
        "FROM document d JOIN feed f",
        "feed",
        "few beside the documents",
    ),
    ("f.id FROM account a", "feed", "all feeds of an erasure"),
    (
        "FROM erased_file e WHERE e.destination_id = s.id",
        "erased_file",
        "it has those only that are still to be removed",
    ),
    (
        "l.removed_at IS NULL AND EXISTS (",
        "lane",
        "all lanes whose history a person starts or stops",
    ),
    (
        "SET removed_at = ",
        "lane",
        "all lanes, when the settings of their destination have changed",
    ),
    ("paused IN ('unauthorized'", "feed", "once, at the start"),
    ("AND (company = '')", "feed", "once, at the start"),
    (
        "WHERE leased_until IS NOT NULL",
        "feed",
        "its index has leased ones only",
    ),
    (
        "count(*) FROM feed WHERE removed_at IS NOT NULL",
        "feed",
        "its index has removed ones only",
    ),
    (
        "paused IS NOT NULL AND removed_at IS NULL",
        "feed",
        "its index has paused ones only, of which it reads a limited number",
    ),
    (
        "failures > 0 AND removed_at IS NULL",
        "feed",
        "its index has failing ones only, of which it reads a limited number",
    ),
    (
        "DISTINCT feed_id FROM gap",
        "gap",
        "its index has open ones only, of which it reads a limited number",
    ),
    (
        "ended_at IS NULL AND kind IN",
        "alarm",
        "its index has active ones only, at most a hundred of a kind",
    ),
    // SQLite looks for rows that refer to an added account only while there are rows without theirs.
    ("INSERT INTO account (", "notification", "it is never run"),
    ("INSERT INTO account (", "import_error", "it is never run"),
    // SQLite looks for rows that refer to a deleted feed, and none is ever deleted.
    ("INSERT INTO feed (", "gap", "it is never run"),
    (
        "FROM quarantine GROUP BY 1",
        "quarantine",
        "bounded by its size",
    ),
];

/// The statements that the stores of one database ran, with the types of their parameters.
#[derive(Default)]
pub(crate) struct Statements {
    seen: Mutex<BTreeMap<String, Vec<String>>>,
    /// True if they are explained although other tests have explained them.
    again: AtomicBool,
}

impl Hooks for Statements {
    fn statement(&self, sql: &str, types: &[&str]) {
        let mut seen = self.seen.lock().expect("never poisoned");
        if !seen.contains_key(sql) {
            let types = types.iter().map(|name| (*name).to_owned()).collect();
            seen.insert(sql.to_owned(), types);
        }
    }
}

impl Statements {
    /// Lets the statements be explained although other tests have explained them: this database is
    /// another one.
    pub(crate) fn explain_again(&self) {
        self.again.store(true, Ordering::Relaxed);
    }

    /// Returns the number of statements that are not explained yet.
    pub(crate) fn count(&self) -> usize {
        self.seen.lock().expect("never poisoned").len()
    }

    /// Returns those that no test has explained yet in this kind of database.
    fn take_new(&self, kind: &'static str) -> BTreeMap<String, Vec<String>> {
        static EXPLAINED: Mutex<Option<HashSet<(&str, String)>>> = Mutex::new(None);
        let mut explained = EXPLAINED.lock().expect("never poisoned");
        let explained = explained.get_or_insert_default();
        let mut seen = self.seen.lock().expect("never poisoned");
        let mut new = std::mem::take(&mut *seen);
        if !self.again.load(Ordering::Relaxed) {
            new.retain(|sql, _| explained.insert((kind, sql.clone())));
        }
        new
    }

    /// Explains the new ones in a SQLite file; returns those that read a whole table.
    pub(crate) fn explain_in_file(&self, path: &Path) -> Vec<String> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let Ok(connection) = rusqlite::Connection::open_with_flags(path, flags) else {
            return Vec::new();
        };
        let tables: rusqlite::Result<i64> =
            connection.query_row("SELECT count(*) FROM document", [], |row| row.get(0));
        if tables.is_err() {
            // The test has damaged it.
            return Vec::new();
        }
        let mut found = Vec::new();
        for sql in self.take_new("SQLite").into_keys() {
            let plan = plan_in_file(&connection, &sql);
            let whole = plan.iter().filter_map(|step| {
                let of_destination = || {
                    step.strip_prefix("SEARCH ")
                        .filter(|_| is_whole(step, &sql))
                };
                step.strip_prefix("SCAN ").or_else(of_destination)
            });
            let names = whole.filter_map(|rest| rest.split(' ').next());
            let tables = names.flat_map(|name| tables_named(&sql, name));
            found.extend(complaint(&sql, tables.collect(), &plan.join("\n")));
        }
        found
    }

    /// Returns the plans in a SQLite file of those statements that contain `part`.
    pub(crate) fn plans_in_file(&self, path: &Path, part: &str) -> Vec<String> {
        let connection = rusqlite::Connection::open(path).expect("it opens");
        let seen = self.seen.lock().expect("never poisoned");
        seen.keys()
            .filter(|sql| sql.contains(part))
            .map(|sql| plan_in_file(&connection, sql).join("\n"))
            .collect()
    }

    /// Explains the new ones in a PostgreSQL database; returns those that read a whole table.
    pub(crate) async fn explain_with(&self, client: &tokio_postgres::Client) -> Vec<String> {
        let settings = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off";
        let mut found = Vec::new();
        if client.batch_execute(settings).await.is_err() {
            // The test has stopped the server.
            return found;
        }
        if self.again.load(Ordering::Relaxed) {
            // A generic plan does not know that few rows are asked for: in a large table it would
            // read all for a join. With the real number it follows the indexes.
            let settings =
                "SET enable_mergejoin = off; SET enable_hashjoin = off; SET enable_material = off";
            client.batch_execute(settings).await.expect("they are set");
        }
        for (sql, types) in self.take_new("PostgreSQL") {
            let values = vec!["NULL"; types.len()].join(", ");
            let (types, values) = match types.is_empty() {
                true => (String::new(), String::new()),
                false => (format!("({})", types.join(", ")), format!("({values})")),
            };
            let prepare = format!("PREPARE explained{types} AS {sql}");
            if client.batch_execute(&prepare).await.is_err() {
                // Statements of migrations have no plan.
                continue;
            }
            let explain = async |options: &str| {
                let explain = format!("EXPLAIN ({options}) EXECUTE explained{values}");
                let rows = client.simple_query(&explain).await;
                let rows = rows.unwrap_or_else(|error| panic!("{error}: {sql}"));
                let lines = rows.iter().filter_map(|row| match row {
                    tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
                    _ => None,
                });
                lines.collect::<Vec<_>>().join("\n")
            };
            let tree: Value = serde_json::from_str(&explain("FORMAT JSON").await).expect("a plan");
            let mut scanned = BTreeSet::new();
            find_scans(&tree[0]["Plan"], &Value::Null, &mut scanned);
            found.extend(complaint(&sql, scanned, &explain("COSTS OFF").await));
            let _ = client.batch_execute("DEALLOCATE explained").await;
        }
        found
    }
}

/// Returns true if a step of a plan reads all that a destination has, though the statement asks for
/// what an index of its own has, or the row of each lane that holds documents, though it asks for their sum.
fn is_whole(step: &str, sql: &str) -> bool {
    step.contains("USING PRIMARY KEY (destination_id=?)")
        || step.contains("USING INDEX lane_held")
        || (step.contains("USING PRIMARY KEY (destination_id=? AND sequence>?)")
            && sql.contains("state <> 'delivered'"))
}

fn plan_in_file(connection: &rusqlite::Connection, sql: &str) -> Vec<String> {
    let mut statement = connection
        .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
        .unwrap_or_else(|error| panic!("{error}: {sql}"));
    let values = vec![rusqlite::types::Null; statement.parameter_count()];
    statement
        .query_map(rusqlite::params_from_iter(values), |row| row.get(3))
        .and_then(Iterator::collect)
        .unwrap_or_else(|error| panic!("{error}: {sql}"))
}

/// Returns the growing tables that a statement calls `name`.
fn tables_named(sql: &str, name: &str) -> Vec<String> {
    let words: Vec<&str> = sql
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .collect();
    let is_of = |table: &&str| {
        name == *table
            || words.windows(3).any(|three| {
                three[0] == *table && (three[1] == name || (three[1] == "AS" && three[2] == name))
            })
    };
    let tables = GROWING.iter().filter(|table| is_of(table));
    tables.map(|table| (*table).to_owned()).collect()
}

/// Collects the tables that a plan reads without a condition of an index.
fn find_scans(node: &Value, parent: &Value, scanned: &mut BTreeSet<String>) {
    let is_scan = match node["Node Type"].as_str() {
        Some("Seq Scan") => true,
        Some("Index Scan" | "Index Only Scan" | "Bitmap Index Scan") => {
            node["Index Cond"].is_null()
        }
        _ => false,
    };
    let table = [node, parent].map(|node| node["Relation Name"].as_str());
    if is_scan && let Some(table) = table[0].or(table[1]) {
        scanned.insert(table.to_owned());
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        find_scans(child, node, scanned);
    }
}

/// Returns what is wrong if a growing table is among `scanned`, unless it is an exception.
fn complaint(sql: &str, mut scanned: BTreeSet<String>, plan: &str) -> Option<String> {
    scanned.retain(|table| GROWING.contains(&table.as_str()));
    scanned.retain(|table| {
        let mut exceptions = EXCEPTIONS.iter();
        !exceptions.any(|(part, of, _)| of == table && sql.contains(part))
    });
    (!scanned.is_empty()).then(|| format!("{sql}\nreads all of {scanned:?}:\n{plan}"))
}
