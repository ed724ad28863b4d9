//! `store copy`: from a SQLite file to a PostgreSQL database.

use std::path::Path;
use std::process::Stdio;

use ivesk_webhook::domain::{Clock, Cursor, Feed};
use ivesk_webhook::store::{DocumentFilter, SharedStore, TriggerKind};

use super::test_store::{START, TestStore, company, page};
use crate::support::databases::{Database, Options};
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
