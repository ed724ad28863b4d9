//! SQLite files: one server, backups, and files that are no stores.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};

use ivesk_webhook::config::StoreUrl;
use ivesk_webhook::domain::Clock;
use ivesk_webhook::store::{
    BackupFile, DocumentFilter, Hooks, Store, StoreError, StoreOptions, TriggerKind,
};
use rustix::fs::Mode;

use super::test_store::{START, TestStore, company, last_page};
use crate::support::databases::{Database, open_file_for_reading};

impl TestStore {
    fn path(&self) -> PathBuf {
        self.database.folder().join("test.db")
    }
}

pub(super) async fn open(path: &Path) -> Result<Store, StoreError> {
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

/// Returns a file of a backup; an existing one may be replaced.
fn backup_file(folder: &Path, name: &str) -> BackupFile {
    BackupFile::named(folder, name, true).expect("a name")
}

fn mode_of(path: &Path) -> u32 {
    let about = path.symlink_metadata().expect("it exists");
    about.permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("allowed");
}

#[tokio::test]
async fn a_backup_is_whole_and_opens_with_a_new_epoch() {
    let test = TestStore::new(Database::sqlite()).await;
    test.pull(&company("1"), last_page(&[("a", "1")], Some("1")))
        .await;
    let copy = backup_file(test.database.folder(), "copy.db");
    test.store.backup(copy.clone()).await.expect("backed up");
    let original = test.store.sequence().await.expect("readable");
    let restored = open(&copy.path()).await.expect("the copy opens");
    let sequence = restored.sequence().await.expect("readable");
    assert_eq!(sequence.last, 1);
    assert_ne!(sequence.epoch, original.epoch);
    restored.close().await.expect("it closes");
    let again = open(&copy.path()).await.expect("it opens again");
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
    std::os::unix::fs::symlink(test.path(), folder.join("link.db")).expect("a link");
    std::fs::hard_link(test.path(), folder.join("hard.db")).expect("a link");
    let roundabout = folder.join("..").join(folder.file_name().expect("a name"));

    for (folder, name) in [
        (&folder, "test.db"),
        (&roundabout, "test.db"),
        (&folder, "test.db-wal"),
        (&folder, "test.db-shm"),
        (&folder, "test.db-journal"),
        (&folder, "test.db.lock"),
        (&folder, "link.db"),
        (&folder, "hard.db"),
    ] {
        let error = test.store.backup(backup_file(folder, name)).await.err();
        assert!(
            matches!(error, Some(StoreError::BackupOntoItself { .. })),
            "{name}: {error:?}"
        );
    }
    // The open store still writes to the file of that name.
    test.trigger(&company("1"), TriggerKind::Notification).await;
    let reader = open_file_for_reading(&test.path()).await.expect("it opens");
    assert_eq!(reader.feeds().await.expect("readable").len(), 1);
}

#[test]
fn a_backup_has_the_name_of_a_visible_file_and_no_path() {
    let long = "x".repeat(250);
    for name in [
        "",
        ".",
        "..",
        "../copy.db",
        "/etc/passwd",
        "folder/copy.db",
        "folder\\copy.db",
        "copy.db/",
        ".hidden",
        "-force",
        "copy\n.db",
        "copy\0.db",
        "copy\u{202e}.db",
        "copy.db ",
        "nul",
        &long,
    ] {
        let refused = BackupFile::named(Path::new("/backups"), name, true);
        assert!(
            matches!(refused, Err(StoreError::BackupName { .. })),
            "{name:?}"
        );
    }
    let file = backup_file(Path::new("/backups"), "ivesk 2026-11-28.db");
    assert_eq!(file.path(), Path::new("/backups/ivesk 2026-11-28.db"));
}

#[tokio::test]
async fn a_backup_goes_through_no_link_and_replaces_only_files() {
    let test = TestStore::new(Database::sqlite()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("victim"), "victim").expect("written");
    std::os::unix::fs::symlink(at("victim"), at("link")).expect("a link");
    std::os::unix::fs::symlink(at("nowhere"), at("dangling")).expect("a link");
    std::fs::create_dir(at("folder")).expect("a folder");
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), fifo, Mode::RWXU, 0).expect("a FIFO");

    for name in ["link", "dangling", "folder", "fifo"] {
        let replaced = test.store.backup(backup_file(folder.path(), name)).await;
        let error = replaced.expect_err("refused").to_string();
        assert!(error.contains("not a regular file"), "{name}: {error}");
        let new = BackupFile::named(folder.path(), name, false).expect("a name");
        let error = test.store.backup(new).await.err();
        assert!(
            matches!(error, Some(StoreError::BackupExists { .. })),
            "{name}: {error:?}"
        );
    }
    assert!(!at("nowhere").exists());
    assert_eq!(std::fs::read(at("victim")).expect("readable"), b"victim");
    // A hard link is replaced like any file: what else has that content keeps it.
    std::fs::hard_link(at("victim"), at("hard")).expect("a link");
    let hard = backup_file(folder.path(), "hard");
    test.store.backup(hard).await.expect("backed up");
    assert_eq!(std::fs::read(at("victim")).expect("readable"), b"victim");
}

#[tokio::test]
async fn a_backup_is_private_and_leaves_nothing_unfinished() {
    let test = TestStore::new(Database::sqlite()).await;
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("a").join("backups");
    let file = BackupFile::named(&folder, "copy.db", false).expect("a name");
    test.store.backup(file.clone()).await.expect("backed up");
    assert_eq!(mode_of(&folder), 0o700);
    assert_eq!(mode_of(&file.path()), 0o600);

    // A crash has left these behind; the next backup removes them.
    for left in [".0123456789abcdef.partial", ".0.partial-journal"] {
        std::fs::write(folder.join(left), "x").expect("written");
    }
    // An existing file that others may read is not written to, but replaced.
    set_mode(&file.path(), 0o644);
    let again = backup_file(&folder, "copy.db");
    test.store.backup(again).await.expect("backed up");
    assert_eq!(mode_of(&file.path()), 0o600);
    let names: Vec<_> = std::fs::read_dir(&folder)
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name())
        .collect();
    assert_eq!(names, ["copy.db"]);
}

#[tokio::test]
async fn no_backup_is_written_where_everybody_may_write() {
    let test = TestStore::new(Database::sqlite()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = backup_file(folder.path(), "copy.db");
    set_mode(folder.path(), 0o777);
    let error = test.store.backup(file.clone()).await.expect_err("refused");
    assert!(error.to_string().contains("chmod o-w"), "{error}");
    assert!(!file.path().exists());
    // As /tmp: others can't replace files of this user there.
    set_mode(folder.path(), 0o1777);
    test.store.backup(file).await.expect("backed up");
}

#[tokio::test]
async fn one_backup_at_a_time_is_written_to_a_folder() {
    let test = TestStore::new(Database::sqlite()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let other = std::fs::File::open(folder.path()).expect("readable");
    other.try_lock().expect("not locked");
    let file = backup_file(folder.path(), "copy.db");
    let error = test.store.backup(file.clone()).await.err();
    assert!(
        matches!(error, Some(StoreError::BackupRunning { .. })),
        "{error:?}"
    );
    drop(other);
    test.store.backup(file).await.expect("backed up");
}

#[tokio::test]
async fn an_emptied_database_is_never_taken_for_a_new_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("emptied.db");
    let store = open(&path).await.expect("a new one");
    store.close().await.expect("it closes");
    assert_eq!(mode_of(&path), 0o600);
    let beside = |ending: &str| folder.path().join(format!("emptied.db{ending}"));
    assert!(!beside(".unfinished").exists());
    std::fs::write(&path, "").expect("emptied");
    let reader = open_file_for_reading(&path).await.map(drop);
    for opened in [open(&path).await.map(drop), reader] {
        let error = opened.expect_err("it is empty").to_string();
        assert!(error.contains("has 0 bytes"), "{error}");
        assert!(error.contains("store restore"), "{error}");
    }
    assert_eq!(path.metadata().expect("a file").len(), 0, "left as it is");
    // A start that was killed before the first had its name leaves nothing that matters.
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(beside(".unfinished"), "x").expect("written");
    let store = open(&path).await.expect("a new one");
    store.close().await.expect("it closes");
    assert!(!beside(".unfinished").exists());
}

#[tokio::test]
async fn a_database_that_cannot_be_made_leaves_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("new.db");
    let in_the_way = folder.path().join("new.db.unfinished");
    std::fs::create_dir(&in_the_way).expect("created");
    let refused = open(&path).await.map(drop);
    let error = refused.expect_err("it can't be written").to_string();
    assert!(error.contains("new.db"), "{error}");
    assert!(!path.exists(), "the next start would find it empty");
    std::fs::remove_dir(&in_the_way).expect("removed");
    let store = open(&path).await.expect("a new one");
    store.close().await.expect("it closes");
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

    let panicking = store.trigger_reconciliation(START, 0);
    let queued = store.trigger_reconciliation(START, 0);
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
