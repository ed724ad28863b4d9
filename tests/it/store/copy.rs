//! `store copy`: from a file to a database that replicas share.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ivesk_webhook::domain::{
    Account, Clock, Company, Cursor, DocumentVersion, Feed, Queue, Timestamp,
};
use ivesk_webhook::store::{
    DocumentFilter, LeaseRequest, PageEnd, PageToCommit, PullPlan, SharedStore, Trigger,
    TriggerKind,
};

use crate::support::databases::{Database, Options};
use crate::support::process::program;

const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn feed() -> Feed {
    let account = Account::parse("default").expect("a name");
    Feed::exported(account, Company::parse("302320404").expect("a code"))
}

fn request() -> LeaseRequest {
    LeaseRequest {
        now: START,
        lease: Duration::from_secs(120),
        requests_per_account: 1,
        lookback: Duration::from_secs(3600),
        queues: Queue::ALL.map(|queue| (feed().account, queue)).to_vec(),
    }
}

/// Stores 1,200 versions of the feed, of which the last page is still to come.
async fn fill(store: &SharedStore) {
    let trigger = Trigger {
        feed: feed(),
        kind: TriggerKind::Notification,
        due_at: START,
        from: None,
    };
    store.trigger(vec![trigger]).await.expect("raised");
    for number in 0..12 {
        let lease = store.lease_page(request()).await.expect("answered");
        let page = PageToCommit {
            documents: (0..100)
                .map(|n| DocumentVersion {
                    id: format!("{number}-{n}"),
                    version: "2026-09-20T00:00:00.000Z".to_owned(),
                    body: format!("{{\"id\":\"{number}-{n}\"}}").into_bytes(),
                })
                .collect(),
            // JSON may hold any character, and the vendor's cursor is never read.
            cursor: Some(Cursor::new(format!("ą\0{number}"))),
            next_from: Some(Cursor::new(format!("ą\0{number}"))),
            end: PageEnd::More,
            ..PageToCommit::default()
        };
        let plan = PullPlan {
            now: START,
            follow_ups: [Duration::from_secs(30), Duration::from_secs(300)],
            reconcile_every: Duration::from_secs(3600),
            lookback: Duration::from_secs(3600),
        };
        let stored = store.commit_page(lease.expect("due"), page, plan).await;
        stored.expect("stored");
    }
}

async fn everything(store: &SharedStore) -> String {
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

async fn copy(folder: &Path, from: &str, to: &str) -> (Option<i32>, String) {
    let output = program()
        .current_dir(folder)
        .args(["store", "copy", "--from", from, "--to", to])
        .stdin(Stdio::null())
        .output()
        .await
        .expect("the program runs");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[tokio::test]
async fn a_copied_store_is_equal_and_continues_where_it_stopped() {
    let Some(shared) = Database::postgres("store copy").await else {
        return;
    };
    let file = Database::sqlite();
    let options = || Options::at(Clock::manual(START));
    let store = file.open(options()).await.expect("opens");
    fill(&store).await;
    let (from, to) = (file.url_text(), shared.url_text());

    let (exit, said) = copy(file.folder(), &from, &to).await;
    assert_ne!(exit, Some(0), "a server has the file");
    assert!(said.contains("in use"), "{said}");

    let before = everything(&store).await;
    store.close().await.expect("closes");
    let (exit, said) = copy(file.folder(), &from, &to).await;
    assert_eq!(exit, Some(0), "{said}");
    assert!(said.contains("up to sequence number 1200"), "{said}");
    assert!(
        !said.contains('\r'),
        "no bar where there is no terminal: {said}"
    );

    let store = shared.open(options()).await.expect("opens");
    assert_eq!(everything(&store).await, before);
    let lease = store.lease_page(request()).await.expect("answered");
    let lease = lease.expect("the run goes on");
    assert_eq!(lease.position.from, Some(Cursor::new("ą\u{0}11")));
    let another = Feed::exported(feed().account, Company::parse("1").expect("a code"));
    let made = store.register_feeds(vec![another], START).await;
    made.expect("numbers of new rows don't collide");

    let (exit, said) = copy(file.folder(), &from, &to).await;
    assert_eq!(exit, Some(1), "{said}");
    assert!(
        said.contains("is not empty; create an empty database"),
        "{said}"
    );
}

#[tokio::test]
async fn a_copy_without_a_store_or_a_server_is_refused() {
    let file = Database::sqlite();
    let to = "postgres://nobody:s3cret@127.0.0.1:9/none";
    let (exit, said) = copy(file.folder(), "sqlite://missing.db", to).await;
    assert_eq!(exit, Some(1), "{said}");
    assert!(!file.folder().join("missing.db.lock").exists());
    let store = file.open(Options::at(Clock::manual(START))).await;
    store.expect("opens").close().await.expect("closes");
    let (exit, said) = copy(file.folder(), "sqlite://test.db", to).await;
    assert_eq!(exit, Some(3), "{said}");
    assert!(!said.contains("s3cret"), "{said}");
    let (exit, said) = copy(file.folder(), to, "sqlite://test.db").await;
    assert_eq!(exit, Some(2), "{said}");
}
