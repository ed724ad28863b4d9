//! Backups of SQLite files: written under load, restored, and kept from being mixed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ivesk_webhook::store::{
    BackupFile, DocumentFilter, RestoredBackup, Store, StoreError, restore_backup,
};

use super::sqlite::open;
use super::test_store::{START, TestStore, company, last_page};
use crate::support::databases::{Database, open_file_for_reading};

/// Returns the ids of all documents of a store, in sequence.
async fn ids(store: &Store) -> Vec<String> {
    let all = DocumentFilter {
        limit: 10_000,
        ..DocumentFilter::default()
    };
    let rows = store.documents(all).await.expect("readable").into_iter();
    rows.map(|row| row.document_id).collect()
}

/// Stores one document.
async fn pull(test: &TestStore, id: &str, cursor: &str) {
    test.pull(&company("1"), last_page(&[(id, "1")], Some(cursor)))
        .await;
}

/// Returns the path of the test's database.
fn path_of(test: &TestStore) -> PathBuf {
    test.database.folder().join("test.db")
}

async fn back_up(test: &TestStore, name: &str) -> PathBuf {
    let file = BackupFile::named(test.database.folder(), name, false).expect("a name");
    test.store.backup(file.clone()).await.expect("backed up");
    file.path()
}

fn restore(test: &TestStore, from: &Path) -> Result<RestoredBackup, StoreError> {
    restore_backup(&path_of(test), from, test.clock.now())
}

/// Returns the names and contents of the files in a folder.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut files: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("text");
            (name, std::fs::read(entry.path()).unwrap_or_default())
        })
        .collect();
    files.sort();
    files
}

/// Copies a database with its log as it is at this moment, as a crash would leave it.
fn crashed(database: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let name = |path: &Path| format!("{}{suffix}", path.display());
        std::fs::copy(name(database), name(to)).expect("copied");
    }
}

#[tokio::test]
async fn a_restored_backup_takes_the_place_and_nothing_is_deleted() {
    let test = TestStore::new(Database::sqlite()).await;
    pull(&test, "a", "1").await;
    let copy = back_up(&test, "copy.db").await;
    let epoch = test.store.sequence().await.expect("readable").epoch;
    pull(&test, "b", "2").await;
    // A crash leaves the newest documents in the log.
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("live.db");
    crashed(&path_of(&test), &database);
    let log = std::fs::read(folder.path().join("live.db-wal")).expect("a log");

    let restored = restore_backup(&database, &copy, START).expect("restored");
    assert_eq!(restored.last, 1);
    let names: Vec<String> = restored
        .moved
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].starts_with("live.db.replaced-") && names[1].ends_with("-wal"));
    assert_eq!(std::fs::read(&restored.moved[1]).expect("kept"), log);
    let mode = database.metadata().expect("it exists").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let store = open(&database).await.expect("it opens");
    assert_eq!(ids(&store).await, ["a"]);
    assert_ne!(store.sequence().await.expect("readable").epoch, epoch);
    store.close().await.expect("it closes");
    // What was there before is whole, under its new name.
    let before = open(&restored.moved[0]).await.expect("it opens");
    assert_eq!(ids(&before).await, ["a", "b"]);
    before.close().await.expect("it closes");
    assert!(copy.exists());

    // Where there was no database, none is kept.
    let fresh = folder.path().join("fresh.db");
    let restored = restore_backup(&fresh, &copy, START).expect("restored");
    assert!(restored.moved.is_empty());
    let store = open(&fresh).await.expect("it opens");
    assert_eq!(ids(&store).await, ["a"]);
    store.close().await.expect("it closes");
}

#[tokio::test]
async fn a_backup_copied_beside_an_old_log_is_not_mixed_with_it() {
    let test = TestStore::new(Database::sqlite()).await;
    pull(&test, "a", "1").await;
    let copy = back_up(&test, "copy.db").await;
    pull(&test, "b", "2").await;
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("live.db");
    crashed(&path_of(&test), &database);
    let log = std::fs::read(folder.path().join("live.db-wal")).expect("a log");
    std::fs::copy(&copy, &database).expect("copied over it");
    // What only reads moves nothing, and reads no mixture.
    let refused = open_file_for_reading(&database).await.err();
    let refused = refused.expect("it is refused").to_string();
    assert!(refused.contains("live.db-wal"), "{refused}");

    let store = open(&database).await.expect("it opens");
    assert_eq!(ids(&store).await, ["a"], "as in the backup");
    let kept = files(folder.path());
    let kept = kept.iter().find(|(name, _)| name.contains("replaced"));
    assert_eq!(kept.expect("the log is kept").1, log);
    // From then on its log is its own: a crash loses nothing.
    let other = TestStore {
        store: Arc::new(store),
        clock: test.clock.clone(),
        database: Database::sqlite(),
    };
    other
        .pull(&company("1"), last_page(&[("c", "1")], Some("3")))
        .await;
    let again = folder.path().join("again.db");
    crashed(&database, &again);
    let store = open(&again).await.expect("it opens");
    assert_eq!(ids(&store).await, ["a", "c"]);
    store.close().await.expect("it closes");
}

#[tokio::test]
async fn what_can_not_be_restored_changes_nothing() {
    let test = TestStore::new(Database::sqlite()).await;
    pull(&test, "a", "1").await;
    let copy = back_up(&test, "copy.db").await;
    let refused = restore(&test, &copy);
    assert!(matches!(refused, Err(StoreError::InUse { .. })), "it runs");

    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let run_sql = |name: &str, sql: &str| {
        let connection = rusqlite::Connection::open(path(name)).expect("it opens");
        connection.execute_batch(sql).expect("it runs");
    };
    std::fs::write(path("text.db"), "no database ".repeat(1_000)).expect("written");
    std::fs::write(path("empty.db"), "").expect("written");
    run_sql("foreign.db", "CREATE TABLE other (x)");
    std::fs::copy(&copy, path("newer.db")).expect("copied");
    run_sql("newer.db", "PRAGMA user_version = 999");
    let whole = std::fs::read(&copy).expect("readable");
    std::fs::write(path("half.db"), &whole[..whole.len() / 2]).expect("written");
    // The pages of some table or index, but not the first ones.
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 16 * 1024].fill(0x5a);
    std::fs::write(path("damaged.db"), damaged).expect("written");
    // The file of a server that runs, without its log.
    crashed(&path_of(&test), &path("running.db"));

    let database = path("live.db");
    std::fs::copy(&copy, &database).expect("copied");
    std::fs::create_dir(path("folder.db")).expect("created");
    // Names of that one beside which its log is not.
    std::os::unix::fs::symlink("running.db", path("link.db")).expect("linked");
    crashed(&path_of(&test), &path("several.db"));
    std::fs::rename(path("several.db-wal"), path("aside-wal")).expect("renamed");
    std::fs::hard_link(path("several.db"), path("hard.db")).expect("linked");
    std::fs::write(path("live.db.lock"), "").expect("written");
    let before = files(folder.path());
    for name in [
        "text.db",
        "empty.db",
        "foreign.db",
        "newer.db",
        "half.db",
        "damaged.db",
        "running.db",
        "link.db",
        "hard.db",
        "missing.db",
        "folder.db",
        "live.db",
    ] {
        let error = restore_backup(&database, &path(name), START);
        let error = error.err().unwrap_or_else(|| panic!("{name} is restored"));
        assert!(
            matches!(
                error,
                StoreError::NotRestorable { .. }
                    | StoreError::NewerSchema { .. }
                    | StoreError::Corrupt { .. }
            ),
            "{name}: {error}"
        );
        assert!(files(folder.path()) == before, "{name} changed a file");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_one_moment() {
    let test = Arc::new(TestStore::new(Database::sqlite()).await);
    let stop = Arc::new(AtomicBool::new(false));
    let (writer, stopped) = (Arc::clone(&test), Arc::clone(&stop));
    let writing = tokio::spawn(async move {
        let mut pages = 0;
        while !stopped.load(Ordering::SeqCst) {
            pages += 1;
            let names = [format!("{pages}-1"), format!("{pages}-2")];
            let documents = [(names[0].as_str(), "1"), (names[1].as_str(), "1")];
            let page = last_page(&documents, Some(&pages.to_string()));
            writer.pull(&company("1"), page).await;
        }
        pages
    });
    let mut last = 0;
    for number in 0..6 {
        let copy = back_up(&test, &format!("copy-{number}.db")).await;
        let store = open(&copy).await.expect("it opens");
        store.check_integrity().await.expect("it is whole");
        let stored = store.sequence().await.expect("readable").last;
        assert!(stored >= last, "{stored} after {last}");
        last = stored;
        // Documents, their numbers and the cursor are of one moment.
        assert_eq!(ids(&store).await.len() as i64, stored);
        let feeds = store.feeds().await.expect("readable");
        let documents = feeds.first().map_or(0, |feed| feed.documents);
        assert_eq!(documents as i64, stored);
        store.close().await.expect("it closes");
    }
    stop.store(true, Ordering::SeqCst);
    let pages: i64 = writing.await.expect("it ends");
    let stored = test.store.sequence().await.expect("readable").last;
    assert_eq!(stored, pages * 2, "no page waited for a backup in vain");
}
