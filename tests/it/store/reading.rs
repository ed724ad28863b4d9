//! Reading beside other work: what nobody waits for any more ends.

use std::sync::Arc;

use ivesk_webhook::domain::Clock;
use ivesk_webhook::store::{DocumentFilter, Insertion};

use super::messages::Messages;
use super::test_store::START;
use crate::support::databases::{Database, Options, connect};

/// Connections of one process to PostgreSQL.
const MOST: i64 = 12;

/// Those of them in which people and programs read.
const READING: i64 = 4;

#[tokio::test]
async fn abandoned_reads_are_canceled_and_hold_nothing_back() {
    let Some(database) = Database::postgres("abandoned reads").await else {
        return;
    };
    let options = Options::at(Clock::manual(START));
    let store = database.open(options).await.expect("a fresh store opens");
    let other = connect(&database.url_text()).await.expect("it answers");
    let watcher = connect(&database.url_text()).await.expect("it answers");
    let count = async |condition: &str| -> i64 {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND backend_type = 'client backend' AND pid NOT IN (pg_backend_pid(), {other})
                 AND ({condition})",
            other = other
                .query_one("SELECT pg_backend_pid()", &[])
                .await
                .unwrap()
                .get::<_, i32>(0)
        );
        watcher.query_one(&sql, &[]).await.unwrap().get(0)
    };
    // Every read of documents waits for this lock.
    other
        .batch_execute("BEGIN; LOCK TABLE document")
        .await
        .unwrap();
    let messages = Messages::new();
    for round in 0..3 {
        let searches: Vec<_> = (0..50)
            .map(|_| {
                let store = Arc::clone(&store);
                let filter = DocumentFilter {
                    limit: 1,
                    ..DocumentFilter::default()
                };
                tokio::spawn(async move { store.documents(filter).await.map(drop) })
            })
            .collect();
        while count("wait_event_type = 'Lock'").await < READING {
            tokio::task::yield_now().await;
        }
        store.probe().await.expect("messages could be stored");
        let message = messages.notification(round).await;
        assert_eq!(store.accept(message).await.ok(), Some(Insertion::New));
        let connections = count("true").await;
        assert!(connections <= MOST, "{connections} connections");
        for search in &searches {
            search.abort();
        }
        // The lock is still held: what waits for it has been canceled.
        while count("wait_event_type = 'Lock'").await > 0 {
            tokio::task::yield_now().await;
        }
        let connections = count("true").await;
        assert!(connections <= MOST, "{connections} connections");
    }
    other.batch_execute("ROLLBACK").await.unwrap();
    let filter = DocumentFilter {
        limit: 1,
        ..DocumentFilter::default()
    };
    assert!(
        store
            .documents(filter)
            .await
            .is_ok_and(|rows| rows.is_empty())
    );
}
