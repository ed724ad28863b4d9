//! The orders in which PostgreSQL's rows are locked: each test holds what a second transaction waits
//! for, then asks for what that one must not hold yet.

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::*;
use crate::support::databases::connect;

/// Another transaction of the same database, and a look at those that wait.
struct Other {
    client: Client,
    watcher: Client,
}

impl Other {
    /// Begins one that holds what `sql` locks.
    async fn holding(scene: &Scene, sql: &str) -> Self {
        let url = scene.database.url_text();
        let other = Self {
            client: connect(&url).await.expect("it answers"),
            watcher: connect(&url).await.expect("it answers"),
        };
        other.run("BEGIN").await;
        other.run(sql).await;
        other
    }

    async fn run(&self, sql: &str) {
        let run = self.client.batch_execute(sql).await;
        run.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Locks with `sql` while `task` waits for this transaction, which ends then.
    async fn lock_then_end<T>(self, task: &JoinHandle<T>, sql: &str) {
        const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'";
        loop {
            let waiting = self.watcher.query_one(WAITING, &[]).await;
            if waiting.expect("it answers").get::<_, i64>(0) > 0 {
                break;
            }
            assert!(!task.is_finished(), "it waits for nothing");
            tokio::task::yield_now().await;
        }
        self.run(sql).await;
        self.run("COMMIT").await;
    }
}

impl Scene {
    /// Erases versions in a task of its own.
    fn erasing(&self, sequences: &[i64]) -> JoinHandle<Result<usize, StoreError>> {
        let (store, sequences) = (SharedStore::clone(&self.store), sequences.to_vec());
        tokio::spawn(async move { store.erase_versions(sequences, START).await })
    }
}

/// A worker locks feeds, then the path of an account's import errors.
#[tokio::test]
async fn a_start_locks_feeds_before_paths_of_import_errors() {
    let Some(database) = Database::postgres("locks of a start").await else {
        return;
    };
    let scene = Scene::started(database, &[("a", &at(1))]).await;
    let paused = "UPDATE feed SET paused = 'forbidden';
        INSERT INTO import_error_path (account_id, path, accepted, paused_since, retry_at)
            SELECT id, '/errors', 0, 1, 1 FROM account";
    scene.database.run(paused).await;
    let other = Other::holding(&scene, "SELECT 1 FROM feed FOR NO KEY UPDATE").await;
    let options = StoreOptions {
        url: scene.database.url(),
        queue: 1,
        quarantine_bytes: 1 << 20,
        ask: false,
        clock: scene.clock.clone(),
        hooks: None,
    };
    let opening = tokio::spawn(Store::open(options));
    let paths = "SELECT 1 FROM import_error_path FOR NO KEY UPDATE";
    other.lock_then_end(&opening, paths).await;
    let opened = opening.await.expect("it ends");
    opened.expect("the other replica opens it");
}

/// Retention locks a version, and then its deliveries.
#[tokio::test]
async fn an_erasure_locks_a_version_before_what_was_delivered() {
    let Some(database) = Database::postgres("locks of retention").await else {
        return;
    };
    let scene = Scene::started(database, &[("a", &at(1))]).await;
    assert_eq!(scene.deliver_all().await.len(), 1);
    let document = "SELECT 1 FROM document WHERE sequence = 1 FOR NO KEY UPDATE";
    let other = Other::holding(&scene, document).await;
    let erasing = scene.erasing(&[1]);
    let deliveries = "SELECT 1 FROM delivery WHERE sequence = 1 FOR NO KEY UPDATE";
    other.lock_then_end(&erasing, deliveries).await;
    let erased = erasing.await.expect("it ends");
    assert_eq!(erased.expect("it is erased"), 1);
}

/// A worker that could not send one delays the account's others.
#[tokio::test]
async fn an_erasure_locks_paths_before_import_errors() {
    let Some(database) = Database::postgres("locks of import errors").await else {
        return;
    };
    let scene = Scene::started(database, &[("a", &at(1)), ("b", &at(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    let attempts = lease.deliveries.iter();
    let attempts = attempts
        .map(|delivery| scene.attempt(delivery, rejected("no")))
        .collect();
    scene.end(lease, attempts).await;
    let sent = "SELECT 1 FROM import_error_path FOR NO KEY UPDATE;
        SELECT 1 FROM import_error WHERE id = 2 FOR NO KEY UPDATE";
    let other = Other::holding(&scene, sent).await;
    let erasing = scene.erasing(&[1, 2]);
    let first = "SELECT 1 FROM import_error WHERE id = 1 FOR NO KEY UPDATE";
    other.lock_then_end(&erasing, first).await;
    assert_eq!(erasing.await.expect("it ends").ok(), Some(2));
}

/// A replica that starts registers destinations in this order.
#[tokio::test]
async fn an_erasure_locks_destinations_in_the_order_of_names() {
    let Some(database) = Database::postgres("locks of destinations").await else {
        return;
    };
    let scene = Scene::started(database, &[("a", &at(1))]).await;
    let archive = DestinationName::parse("archive").expect("a valid name");
    let destinations = vec![(archive, scene.filter.clone())];
    let registered = scene.store.register_destinations(destinations, START);
    registered.await.expect("the destination is registered");
    let lock =
        |name: &str| format!("SELECT 1 FROM destination WHERE name = '{name}' FOR NO KEY UPDATE");
    let other = Other::holding(&scene, &lock("archive")).await;
    let erasing = scene.erasing(&[1]);
    other.lock_then_end(&erasing, &lock("books")).await;
    assert_eq!(erasing.await.expect("it ends").ok(), Some(1));
}

/// A page holds its feed, and adds those of companies that it names.
#[tokio::test]
async fn a_backfill_waits_for_no_page_while_it_adds_feeds() {
    let Some(database) = Database::postgres("locks of new feeds").await else {
        return;
    };
    let scene = Scene::started(database, &[("a", &at(1))]).await;
    let page = "SELECT 1 FROM feed FOR NO KEY UPDATE";
    let other = Other::holding(&scene, page).await;
    let triggers = ["1", "2"].map(|code| Trigger {
        feed: company(code),
        kind: TriggerKind::Backfill,
        due_at: START,
        from: None,
    });
    let store = SharedStore::clone(&scene.store);
    let raising = tokio::spawn(async move { store.trigger(triggers.to_vec()).await });
    // Held while feeds are added.
    let adding = format!("SELECT pg_advisory_xact_lock({})", 0x4976_576C);
    other.lock_then_end(&raising, &adding).await;
    let raised = raising.await.expect("it ends");
    raised.expect("the triggers are raised");
    let feeds = scene.store.feeds().await.expect("readable");
    assert_eq!(feeds.len(), 2);
}
