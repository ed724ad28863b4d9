//! Removing feeds, and setting where they start.

use std::time::Duration;

use ivesk_webhook::domain::{Company, Cursor, Feed, Timestamp};
use ivesk_webhook::store::{
    DocumentFilter, FeedStartedAt, GapFilter, GapRow, PauseChange, RunState, StoreError,
    TriggerKind, Triggers,
};

use super::messages::Messages;
use super::test_store::{HOUR, TestStore, account, company, last_page};
use crate::support::databases::{Database, on_both_stores};

on_both_stores! {
    a_removed_feed_is_not_pulled_until_it_is_resumed,
    a_page_in_flight_of_a_removed_feed_is_refused,
    a_feed_continues_at_a_cursor_and_leaves_a_gap,
    an_earlier_cursor_leaves_no_gap,
    feeds_that_do_not_fit_are_removed_and_come_back,
    what_lies_before_the_start_is_history_when_it_is_found,
    the_newest_pull_is_known_also_of_a_paused_feed,
}

async fn the_newest_pull_is_known_also_of_a_paused_feed(database: Database) {
    let test = TestStore::new(database).await;
    let last = async || test.store.last_pull().await.expect("readable");
    assert_eq!(last().await, None);
    let (feed, other) = (company("999999999"), company("302320404"));
    test.pull(&feed, last_page(&[("d-1", "1")], Some("c-1")))
        .await;
    let first = test.feed(&feed).await.pulled_at;
    assert!(first.is_some());
    assert_eq!(last().await, first);
    test.clock.advance(HOUR);
    // Known, and not pulled yet.
    let known = vec![company("110053842")];
    let added = test.store.register_feeds(known, test.clock.now());
    added.await.expect("stored");
    assert_eq!(last().await, first);
    test.pull(&other, last_page(&[("d-2", "1")], Some("c-1")))
        .await;
    let newest = test.feed(&other).await.pulled_at;
    assert!(newest > first);
    assert_eq!(last().await, newest);
    let paused = test
        .store
        .set_paused(account(), Some(other), PauseChange::Pause);
    assert_eq!(paused.await.expect("stored"), 1);
    assert_eq!(last().await, newest);
    assert!(remove(&test, "302320404").await);
    assert_eq!(last().await, first);
}

async fn remove(test: &TestStore, code: &str) -> bool {
    let removed = test.store.remove_feed(company(code), test.clock.now());
    removed.await.expect("stored")
}

async fn start_at(test: &TestStore, code: &str, cursor: &str) -> FeedStartedAt {
    let started = test
        .store
        .start_feed_at(company(code), Cursor::new(cursor), test.clock.now());
    started.await.expect("stored")
}

async fn gaps(test: &TestStore) -> Vec<GapRow> {
    let filter = GapFilter {
        closed: false,
        after: 0,
        limit: 10,
    };
    test.store.gaps(filter).await.expect("readable")
}

async fn a_removed_feed_is_not_pulled_until_it_is_resumed(database: Database) {
    let test = TestStore::new(database).await;
    let (feed, other) = (company("999999999"), company("302320404"));
    test.pull(&feed, last_page(&[("d-1", "1")], Some("c-1")))
        .await;
    test.pull(&other, last_page(&[("d-2", "1")], Some("c-1")))
        .await;
    test.drain().await;

    assert!(remove(&test, "999999999").await);
    assert!(!remove(&test, "999999999").await, "a second time");
    assert!(!remove(&test, "110053842").await, "it is not known");
    assert!(test.feed(&other).await.is_known());
    let row = test.feed(&feed).await;
    assert!(!row.is_known());
    assert!(matches!(
        row.state(None, test.clock.now()),
        RunState::Removed { .. }
    ));

    // A message for it is accepted and counted, and pulls nothing.
    let messages = Messages::new();
    for number in 1..=2 {
        let mut message = messages.notification(number).await;
        message.triggers = Triggers::Feed(feed.clone());
        test.store.accept(message).await.expect("accepted");
    }
    test.trigger(&feed, TriggerKind::Backfill).await;
    let registered = test
        .store
        .register_feeds(vec![feed.clone()], test.clock.now());
    registered.await.expect("stored");
    test.clock.advance(24 * HOUR);
    while let Some(lease) = test.lease().await {
        assert_eq!(lease.feed, other);
        let stored = test.commit(lease, last_page(&[], None)).await;
        stored.expect("an empty page is stored");
    }
    let row = test.feed(&feed).await;
    assert_eq!(row.pending_notifications, 2);
    assert_eq!(row.documents, 1, "its documents stay");
    // Neither does a pause or the resuming of its whole account bring it back.
    let resume = PauseChange::Resume { accept: false };
    for change in [PauseChange::Pause, resume] {
        let changed = test.store.set_paused(account(), None, change).await;
        assert_eq!(changed.expect("stored"), 1, "the other one");
    }
    assert!(test.feed(&feed).await.removed_at.is_some());

    let changed = test.store.set_paused(account(), Some(feed.clone()), resume);
    assert_eq!(changed.await.expect("stored"), 1);
    assert!(test.drain().await.contains(&TriggerKind::Notification));
    let row = test.feed(&feed).await;
    assert_eq!((row.removed_at, row.pending_notifications), (None, 0));
    assert_eq!(row.cursor, Some(Cursor::new("c-1")), "it continues there");
}

async fn a_page_in_flight_of_a_removed_feed_is_refused(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("302320404");
    test.trigger(&feed, TriggerKind::Notification).await;
    let lease = test.lease().await.expect("it is due");
    assert!(remove(&test, "302320404").await);
    let stored = test
        .commit(lease, last_page(&[("d-1", "1")], Some("c-1")))
        .await;
    assert!(matches!(stored, Err(StoreError::StaleLease)), "{stored:?}");
    assert!(test.documents().await.is_empty());
}

async fn a_feed_continues_at_a_cursor_and_leaves_a_gap(database: Database) {
    let test = TestStore::new(database).await;
    // A new feed: another program has everything up to there.
    let feed = company("302320404");
    let cursor = "2026-11-23T08:00:00.000Z";
    let started = start_at(&test, "302320404", cursor).await;
    assert_eq!(
        started,
        FeedStartedAt {
            previous: None,
            gap: true
        }
    );
    let lease = test.lease().await.expect("it is due at once");
    assert_eq!(lease.position.from, Some(Cursor::new(cursor)));
    let page = last_page(
        &[("d-1", "2026-11-23T09:00:00Z")],
        Some("2026-11-23T09:00:00Z"),
    );
    test.commit(lease, page).await.expect("stored");
    // No overlap read starts before it.
    test.drain().await;
    test.clock.advance(Duration::from_secs(60));
    test.trigger(&feed, TriggerKind::Reconciliation).await;
    let lease = test.lease().await.expect("it is due");
    let from = lease.position.from.as_ref().map(Cursor::as_str);
    assert!(from.is_some_and(|from| from >= cursor), "{from:?}");

    // In the middle of a pull.
    let later = "2026-11-24T00:00:00.000Z";
    let started = start_at(&test, "302320404", later).await;
    assert_eq!(started.previous, Some(Cursor::new("2026-11-23T09:00:00Z")));
    let stored = test
        .commit(lease, last_page(&[], Some("2026-11-23T10:00:00Z")))
        .await;
    assert!(matches!(stored, Err(StoreError::StaleLease)), "{stored:?}");
    assert_eq!(test.feed(&feed).await.cursor, Some(Cursor::new(later)));
    test.clock.advance(HOUR);
    let lease = test.lease().await.expect("it is due");
    assert_eq!(lease.position.from, Some(Cursor::new(later)));

    let stretches: Vec<_> = gaps(&test)
        .await
        .into_iter()
        .map(|gap| (gap.feed.to_string(), gap.from, gap.to))
        .collect();
    let name = || "default/exported/302320404".to_owned();
    let expected = [
        (name(), None, Some(Cursor::new(cursor))),
        (
            name(),
            Some(Cursor::new("2026-11-23T09:00:00Z")),
            Some(Cursor::new(later)),
        ),
    ];
    assert_eq!(stretches, expected);
}

async fn an_earlier_cursor_leaves_no_gap(database: Database) {
    let test = TestStore::new(database).await;
    let now = Timestamp::parse("2026-11-23T08:00:00Z").expect("a moment");
    let page = last_page(&[("d-1", "1")], Some(&now.to_string()));
    test.pull(&company("302320404"), page).await;
    let earlier = now.before(HOUR).to_string();
    for (cursor, gap) in [
        (now.to_string(), false),
        (earlier, false),
        // The same moment.
        ("2026-11-23T09:00:00+02:00".to_owned(), false),
        ("2026-11-23T10:00:00+02:00".to_owned(), true),
        // Which comes first is not known.
        ("b3BhcXVl".to_owned(), true),
    ] {
        let started = start_at(&test, "302320404", &cursor).await;
        assert_eq!(started.gap, gap, "{cursor}");
    }
    assert_eq!(gaps(&test).await.len(), 2);
}

/// The preset of `api.exported_path` was changed, and changed back.
async fn feeds_that_do_not_fit_are_removed_and_come_back(database: Database) {
    let test = TestStore::new(database).await;
    let of_company = company("302320404");
    let only = Feed::exported(account(), Company::mixed());
    let feeds = vec![of_company.clone(), only.clone()];
    let registered = test.store.register_feeds(feeds, test.clock.now());
    registered.await.expect("stored");
    for (one_for_each_account, fit, unfit) in [
        (true, &only, &of_company),
        (false, &of_company, &only),
        (true, &only, &of_company),
    ] {
        let changed = test.store.fit_feeds(one_for_each_account, test.clock.now());
        changed.await.expect("stored");
        assert_eq!(test.feed(fit).await.removed_at, None, "{fit}");
        assert!(test.feed(unfit).await.removed_at.is_some(), "{unfit}");
        test.clock.advance(24 * HOUR);
        let lease = test.lease().await.expect("due");
        assert_eq!(lease.feed, *fit);
        let stored = test.commit(lease, last_page(&[], None)).await;
        stored.expect("an empty page is stored");
        test.drain().await;
    }
}

async fn what_lies_before_the_start_is_history_when_it_is_found(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("302320404");
    start_at(&test, "302320404", "2026-09-21T14:00:05Z").await;
    let documents = [
        ("old", "2026-09-21T14:00:04.999Z"),
        ("new", "2026-09-21T14:00:05.000Z"),
        // No moment: found before the feed was ever complete.
        ("odd", "r5"),
    ];
    test.pull(&feed, last_page(&documents, None)).await;
    let filter = DocumentFilter {
        limit: 10,
        ..DocumentFilter::default()
    };
    let rows = test.store.documents(filter).await.expect("readable");
    let first: Vec<_> = rows
        .iter()
        .map(|row| (row.document_id.as_str(), row.first_pull))
        .collect();
    assert_eq!(first, [("old", true), ("new", false), ("odd", true)]);
}
