//! SQLite files: one server, backups, and files that are no stores.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};

use ivesk_webhook::config::StoreUrl;
use ivesk_webhook::domain::Clock;
use ivesk_webhook::store::{DocumentFilter, Hooks, Store, StoreError, StoreOptions, TriggerKind};

use super::test_store::{START, TestStore, company, last_page};
use crate::support::databases::{Database, open_file_for_reading};

impl TestStore {
    fn path(&self) -> PathBuf {
        self.database.folder().join("test.db")
    }
}

async fn open(path: &Path) -> Result<Store, StoreError> {
    open_with(path, None).await
}

async fn open_with(path: &Path, hooks: Option<Arc<dyn Hooks>>) -> Result<Store, StoreError> {
    Store::open(StoreOptions {
        url: StoreUrl::Sqlite(path.to_owned()),
        queue: 4096,
        quarantine_bytes: 64 << 20,
        ask: false,
        clock: Clock::manual(START),
        hooks,
    })
    .await
}

/// Runs SQL on a file, as another program would.
fn run_sql(path: &Path, sql: &str) {
    let connection = rusqlite::Connection::open(path).expect("it opens");
    connection.execute_batch(sql).expect("it runs");
}

#[tokio::test]
async fn a_second_process_is_refused_and_may_read() {
    let test = TestStore::new(Database::sqlite()).await;
    let Err(error) = open(&test.path()).await else {
        panic!("the file is not locked")
    };
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    let reader = open_file_for_reading(&test.path())
        .await
        .expect("reading is allowed");
    let documents = reader.documents(DocumentFilter {
        limit: 1,
        ..DocumentFilter::default()
    });
    assert!(documents.await.is_ok());
    let triggered = reader.trigger(Vec::new()).await;
    assert!(matches!(triggered, Err(StoreError::ReadOnly)));
}

#[tokio::test]
async fn a_backup_is_whole_and_opens_with_a_new_epoch() {
    let test = TestStore::new(Database::sqlite()).await;
    test.pull(&company("1"), last_page(&[("a", "1")], Some("1")))
        .await;
    let copy = test.database.folder().join("copy.db");
    test.store.backup(copy.clone()).await.expect("backed up");
    let original = test.store.sequence().await.expect("readable");
    let restored = open(&copy).await.expect("the copy opens");
    let sequence = restored.sequence().await.expect("readable");
    assert_eq!(sequence.last, 1);
    assert_ne!(sequence.epoch, original.epoch);
    restored.close().await.expect("it closes");
    let again = open(&copy).await.expect("it opens again");
    assert_eq!(
        again.sequence().await.expect("readable"),
        sequence,
        "the epoch is kept"
    );
}

#[tokio::test]
async fn a_backup_never_replaces_the_store_or_its_files() {
    let test = TestStore::new(Database::sqlite()).await;
    let folder = test.database.folder().to_owned();
    let link = folder.join("link.db");
    std::os::unix::fs::symlink(test.path(), &link).expect("a link");
    let hard_link = folder.join("hard.db");
    std::fs::hard_link(test.path(), &hard_link).expect("a link");
    std::fs::hard_link(test.path(), folder.join("other.partial")).expect("a link");
    let beside = |suffix: &str| folder.join(format!("test.db{suffix}"));
    let roundabout = folder.join("..").join(folder.file_name().expect("a name"));

    for target in [
        test.path(),
        roundabout.join("test.db"),
        beside("-wal"),
        beside("-shm"),
        beside("-journal"),
        beside(".lock"),
        link,
        hard_link,
        folder.join("other"),
    ] {
        let error = test.store.backup(target.clone()).await.err();
        assert!(
            matches!(error, Some(StoreError::BackupOntoItself { .. })),
            "{}: {error:?}",
            target.display()
        );
    }
    // The open store still writes to the file of that name.
    test.trigger(&company("1"), TriggerKind::Notification).await;
    let reader = open_file_for_reading(&test.path()).await.expect("it opens");
    assert_eq!(reader.feeds().await.expect("readable").len(), 1);
}

#[tokio::test]
async fn files_that_are_not_ours_are_refused_with_a_fix() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let assert_refused = async |name: &str, fix: &str| {
        let error = open(&path(name)).await.err().expect("it is refused");
        assert!(error.to_string().contains(fix), "{error}");
    };
    let text = "this is not a database, it is only long enough".repeat(100);
    std::fs::write(path("text.db"), text).expect("written");
    assert_refused("text.db", "restore the newest backup").await;

    run_sql(&path("foreign.db"), "CREATE TABLE other (x)");
    assert_refused("foreign.db", "another program").await;

    let newer = open(&path("newer.db")).await.expect("a fresh store opens");
    newer.close().await.expect("it closes");
    drop(newer);
    run_sql(&path("newer.db"), "PRAGMA user_version = 999");
    assert_refused("newer.db", "schema version 999").await;

    assert_refused("no/such/folder.db", "folder exists").await;
}

/// A panic of one of the store's threads at its next statement, once the other side of the
/// channel says so.
struct PlantedPanic {
    thread: &'static str,
    held: Mutex<Option<Receiver<()>>>,
}

impl Hooks for PlantedPanic {
    fn statement(&self, _sql: &str, _types: &[&str]) {
        if std::thread::current().name() == Some(self.thread)
            && let Some(held) = self.held.lock().expect("never poisoned").take()
        {
            let _ = held.recv();
            panic!("planted");
        }
    }
}

#[tokio::test]
async fn a_panic_of_the_writer_answers_all_and_fails_the_probe() {
    let folder = tempfile::tempdir().expect("a folder");
    let hooks = Arc::new(PlantedPanic {
        thread: "store-writer",
        held: Mutex::default(),
    });
    let store = open_with(&folder.path().join("test.db"), Some(hooks.clone())).await;
    let store = store.expect("it opens");
    store.probe().await.expect("the store accepts writes");
    let (go, held) = sync_channel(1);
    *hooks.held.lock().expect("never poisoned") = Some(held);

    let panicking = store.trigger_reconciliation(START);
    let queued = store.trigger_reconciliation(START);
    let release = async { go.send(()) };
    let (panicked, queued, released) = tokio::join!(panicking, queued, release);

    released.expect("the writer waited");
    for outcome in [panicked.map(drop), queued.map(drop), store.probe().await] {
        assert!(matches!(outcome, Err(StoreError::Closed)), "{outcome:?}");
    }
    assert!(store.sequence().await.is_ok(), "reading still works");
    assert!(store.close().await.is_err(), "the panic is reported");
}

#[tokio::test]
async fn a_panic_of_the_reader_fails_the_probe() {
    let folder = tempfile::tempdir().expect("a folder");
    let (go, held) = sync_channel(1);
    go.send(()).expect("there is room");
    let hooks = Arc::new(PlantedPanic {
        thread: "store-reader",
        held: Mutex::new(Some(held)),
    });
    let store = open_with(&folder.path().join("test.db"), Some(hooks)).await;
    let store = store.expect("it opens");

    let panicked = store.sequence().await;

    assert!(matches!(panicked, Err(StoreError::Closed)), "{panicked:?}");
    let probed = store.probe().await;
    assert!(matches!(probed, Err(StoreError::Closed)), "{probed:?}");
}
