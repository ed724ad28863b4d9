//! Messages whose accounts, feeds and topics are known, which PostgreSQL stores in one statement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use ivesk_webhook::config::StoreUrl;
use ivesk_webhook::domain::{Clock, Feed};
use ivesk_webhook::sns::MessageType;
use ivesk_webhook::store::{
    AcceptedMessage, Hooks, Insertion, SharedStore, Store, StoreError, StoreOptions, TriggerKind,
    Triggers,
};

use super::messages::Messages;
use super::test_store::{HOUR, START, TestStore, company, last_page};
use crate::support::databases::{Database, on_both_stores};
use crate::support::load::Rng;

on_both_stores! {
    groups_of_known_messages_store_each_once_and_raise_its_feed,
    copies_of_a_known_message_raise_its_feed_once,
    a_known_message_that_the_database_rejects_stops_only_itself,
}

/// Counts the groups that are stored in one statement, and those that are not.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    at_once: AtomicUsize,
    other: AtomicUsize,
}

impl Hooks for Ways {
    fn statement(&self, sql: &str, _types: &[&str]) {
        if sql.starts_with("WITH heard AS") {
            self.at_once.fetch_add(1, Ordering::SeqCst);
        } else if sql.starts_with("INSERT INTO notification ") {
            self.other.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Ways {
    /// Returns how many groups were to be stored at once since the last call, and how many in the other way: these include
    /// those of the first that were not stored.
    pub(crate) fn taken(&self) -> (usize, usize) {
        let [at_once, other] =
            [&self.at_once, &self.other].map(|one| one.swap(0, Ordering::SeqCst));
        (at_once, other)
    }
}

/// Opens a store whose groups are counted.
pub(crate) async fn open(url: StoreUrl, clock: Clock) -> (SharedStore, Arc<Ways>) {
    let ways = Arc::new(Ways::default());
    let store = Store::open(StoreOptions {
        url,
        queue: 4096,
        quarantine_bytes: 1 << 20,
        ask: false,
        clock,
        hooks: Some(ways.clone()),
    });
    (Arc::new(store.await.expect("it opens")), ways)
}

/// The feed of message `number`; every seventh triggers nothing.
fn feed_of(number: u32) -> Option<Feed> {
    (!number.is_multiple_of(7)).then(|| company(&format!("30000000{}", number % 5)))
}

async fn message(messages: &Messages, number: u32) -> AcceptedMessage {
    let published = START.after(Duration::from_millis(number.into()));
    let message = messages
        .message(number, MessageType::Notification, published)
        .await;
    AcceptedMessage {
        received_at: START.before(HOUR * (5 - number / 100)),
        triggers: feed_of(number).map_or(Triggers::Nothing, Triggers::Feed),
        ..message
    }
}

/// Accepts messages together; returns the outcome of each.
async fn accept(store: &Store, group: Vec<AcceptedMessage>) -> Vec<Result<Insertion, StoreError>> {
    join_all(group.into_iter().map(|one| store.accept(one))).await
}

async fn groups_of_known_messages_store_each_once_and_raise_its_feed(database: Database) {
    let (store, ways) = open(database.url(), Clock::manual(START)).await;
    let mut test = TestStore {
        store,
        clock: Clock::manual(START),
        database,
    };
    let messages = Messages::new();
    let mut stored: BTreeSet<u32> = BTreeSet::new();
    let mut rng = Rng(42);
    for round in 0..60 {
        let number = |rng: &mut Rng| u32::try_from(rng.below(600)).expect("small");
        let numbers: Vec<u32> = (0..=rng.below(40)).map(|_| number(&mut rng)).collect();
        let mut group = Vec::new();
        for number in &numbers {
            group.push(message(&messages, *number).await);
        }
        let outcomes = accept(&test.store, group).await;

        let mut new: BTreeMap<u32, usize> = numbers.iter().map(|number| (*number, 0)).collect();
        for (number, outcome) in numbers.iter().zip(outcomes) {
            let is_new = outcome.expect("stored") == Insertion::New;
            *new.get_mut(number).expect("counted") += usize::from(is_new);
        }
        for (number, count) in &new {
            let expected = usize::from(!stored.contains(number));
            assert_eq!(*count, expected, "message {number} in round {round}");
        }
        let raised = new.keys().filter(|number| !stored.contains(number));
        let raised: BTreeSet<Feed> = raised.filter_map(|number| feed_of(*number)).collect();
        stored.extend(new.keys());
        assert_eq!(served(&test).await, raised, "in round {round}");
    }
    let rows = test.store.notifications(0, 1000).await.expect("readable");
    assert_eq!(rows.len(), stored.len());
    let activity = test.store.activity(START.before(6 * HOUR)).await;
    let in_hour = |hour| {
        stored
            .iter()
            .filter(|number| **number / 100 == hour)
            .count()
    };
    let counts: Vec<u64> = (0..6).map(|hour| in_hour(hour) as u64).collect();
    let accepted = activity.expect("readable").accepted;
    let accepted: Vec<u64> = accepted.iter().map(|hour| hour.count).collect();
    assert_eq!(accepted, counts);
    match &test.database {
        Database::Sqlite(_) => assert_eq!(ways.taken().0, 0),
        // The first ones make the feeds and the topic known.
        Database::Postgres(_) => {
            let (at_once, other) = ways.taken();
            assert!(at_once > 40 && other < 20, "{at_once}, {other}");
        }
    }
    test = test.reopen().await;
    assert_eq!(served(&test).await, BTreeSet::new());
}

/// Pulls the feeds that notifications triggered, and returns them.
async fn served(test: &TestStore) -> BTreeSet<Feed> {
    let mut feeds = BTreeSet::new();
    while let Some(lease) = test.lease().await {
        let (kind, feed) = (lease.kind, lease.feed.clone());
        let ended = test.commit(lease, last_page(&[], None)).await;
        ended.expect("an empty page is stored");
        if kind == TriggerKind::Notification {
            assert!(feeds.insert(feed.clone()), "{feed:?} was pulled twice");
        }
    }
    feeds
}

async fn copies_of_a_known_message_raise_its_feed_once(database: Database) {
    let (store, ways) = open(database.url(), Clock::manual(START)).await;
    let messages = Messages::new();
    for number in [1, 6, 11] {
        accept(&store, vec![message(&messages, number).await]).await;
    }
    ways.taken();
    let mut group = Vec::new();
    for number in [16, 26, 16, 16, 26, 1] {
        group.push(message(&messages, number).await);
    }

    accept(&store, group).await;

    let raised = database.count("SELECT raised FROM feed_trigger WHERE kind = 0");
    assert_eq!(raised.await, 5);
    if let Database::Postgres(_) = database {
        assert!(matches!(ways.taken(), (1.., 0)));
    }
}

async fn a_known_message_that_the_database_rejects_stops_only_itself(database: Database) {
    let (store, ways) = open(database.url(), Clock::manual(START)).await;
    let messages = Messages::new();
    for number in [1, 6, 11] {
        let known = store.accept(message(&messages, number).await).await;
        assert_eq!(known.expect("stored"), Insertion::New);
    }
    let once = "CREATE UNIQUE INDEX planted ON notification (received_at) WHERE received_at > 1800000000000";
    database.run(once).await;
    ways.taken();
    // All are of the feed of the first ones.
    let numbers = (3..60)
        .map(|index| 1 + 5 * index)
        .filter(|number| number % 7 != 0);
    let mut group = Vec::new();
    for (place, number) in numbers.enumerate() {
        let mut one = message(&messages, number).await;
        if [20, 40].contains(&place) {
            one.received_at = START.after(100_000 * HOUR);
        }
        group.push(one);
    }
    let count = group.len();

    let mut outcomes = accept(&store, group).await;

    let rejected = outcomes.remove(40);
    assert!(
        matches!(rejected, Err(StoreError::Value(_))),
        "{rejected:?}"
    );
    let is_new = |outcome: &Result<Insertion, StoreError>| matches!(outcome, Ok(Insertion::New));
    assert!(outcomes.iter().all(is_new), "{outcomes:?}");
    let rows = store.notifications(0, 100).await.expect("readable");
    assert_eq!(rows.len(), 3 + count - 1);
    if let Database::Postgres(_) = database {
        // Each of the group alone, too; in the other way the group and the one that is rejected.
        let (at_once, other) = ways.taken();
        assert!(
            at_once > count / 2 && (2..8).contains(&other),
            "{at_once}, {other}"
        );
    }
}

#[tokio::test]
async fn a_known_message_is_due_by_the_servers_clock() {
    let Some(database) = Database::postgres("a known message is due").await else {
        return;
    };
    let (clock, correction) = Clock::system().corrected();
    let (store, ways) = open(database.url(), clock).await;
    let messages = Messages::new();
    let accept = async |number| {
        let stored = store.accept(message(&messages, number).await).await;
        assert_eq!(stored.expect("stored"), Insertion::New);
    };
    // Each of the tasks that store messages learns of the feed.
    for number in [1, 6, 11] {
        accept(number).await;
    }
    ways.taken();
    for (number, ahead_hours) in [(16, 5), (26, -5)] {
        correction.set(ahead_hours * 3_600_000);

        accept(number).await;

        assert_eq!(ways.taken(), (1, 0));
        let late = "SELECT max(abs(due_at / 1000 - date_part('epoch', now())))::bigint FROM feed_trigger WHERE kind = 0";
        let seconds = database.count(late).await;
        assert!(seconds < 60, "{seconds} s");
    }
}
