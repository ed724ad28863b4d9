//! Triggers and leases of pages: which feed is pulled next, and when.

use std::time::Duration;

use futures_util::FutureExt as _;
use ivesk_webhook::domain::{Account, Cursor, Feed, Queue, Timestamp};
use ivesk_webhook::store::{
    FeedPauseReason, LeaseRequest, PageFailure, PageLease, PageOutcome, PauseChange, Trigger,
    TriggerKind,
};

use super::messages::Messages;
use super::test_store::{HOUR, START, TestStore, account, company, last_page, page};
use crate::support::databases::{Database, on_both_stores};

on_both_stores! {
    ten_thousand_triggers_of_one_feed_are_one_pull,
    a_trigger_during_a_pull_is_served_by_another_pull,
    a_message_during_a_pull_is_served_by_another_pull,
    a_message_wakes_pullers_if_a_feed_became_due,
    a_trigger_does_not_restart_a_first_pull,
    versions_that_reconciliation_finds_count_as_missed,
    a_served_trigger_has_two_follow_ups_that_stay_due,
    follow_ups_survive_a_restart,
    notifications_go_first_and_companies_take_turns,
    a_notification_costs_its_feed_no_other_turn,
    a_released_lease_is_free_at_once,
    an_ended_pull_is_not_looked_at_again,
    only_resuming_a_whole_account_ends_its_wait,
    an_accounts_requests_in_flight_are_bounded,
    a_paused_feed_is_retried_later_and_freed_by_success,
    an_accounts_wait_holds_back_all_its_feeds,
    a_blocked_queue_keeps_its_triggers,
    a_feed_knows_if_its_401_is_about_the_key,
    an_account_that_this_process_does_not_know_is_left_alone,
    all_feeds_are_made_due_batch_by_batch,
}

impl TestStore {
    async fn notify(&self, feed: &Feed) {
        self.trigger(feed, TriggerKind::Notification).await;
    }

    /// Leases pages until no more may be requested.
    async fn lease_all(&self, requests_per_account: u32) -> Vec<PageLease> {
        let mut leases = Vec::new();
        while let Some(lease) = self
            .lease_as(LeaseRequest {
                requests_per_account,
                ..self.request()
            })
            .await
        {
            leases.push(lease);
        }
        leases
    }

    async fn fail(&self, lease: PageLease, failure: PageFailure, error: &str) {
        let failed = self
            .store
            .fail_page(lease, failure, error.to_owned(), self.clock.now())
            .await;
        failed.expect("the failure is recorded");
    }

    async fn advance_and_drain(&self, seconds: u64) -> Vec<TriggerKind> {
        self.clock.advance(Duration::from_secs(seconds));
        self.drain().await
    }
}

async fn ten_thousand_triggers_of_one_feed_are_one_pull(database: Database) {
    let test = TestStore::with(database, |options| options.queue = 20_000).await;
    let trigger = Trigger {
        feed: company("302320404"),
        kind: TriggerKind::Notification,
        due_at: START,
        from: None,
    };
    for _ in 0..100 {
        let triggers = vec![trigger.clone(); 100];
        test.store.trigger(triggers).await.expect("stored");
    }
    assert_eq!(
        test.drain().await,
        [TriggerKind::Notification, TriggerKind::Reconciliation]
    );
}

async fn a_trigger_during_a_pull_is_served_by_another_pull(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    test.notify(&feed).await;
    let lease = test.lease().await.expect("the feed is due");
    test.notify(&feed).await;
    assert!(test.lease().await.is_none(), "one pull at a time");
    test.commit(lease, last_page(&[], None))
        .await
        .expect("the page is stored");
    let lease = test.lease().await.expect("the feed is due again");
    assert_eq!(lease.kind, TriggerKind::Notification);
}

async fn a_message_during_a_pull_is_served_by_another_pull(database: Database) {
    let test = TestStore::new(database).await;
    let announce = async |number| {
        let message = Messages::announcement(number, company("1"), test.clock.now()).await;
        test.store.accept(message).await.expect("stored");
    };
    let raised = async |times: i64, next_at: Timestamp| {
        let (due_at, next_at) = (test.clock.now().as_millis(), next_at.as_millis());
        let rows = format!(
            "SELECT count(*) FROM feed_trigger
             WHERE kind = 0 AND raised = {times} AND due_at = {due_at} AND next_at = {next_at}"
        );
        assert_eq!(test.database.count(&rows).await, 1, "{times}");
    };
    announce(1).await;
    raised(1, START).await;
    let lease = test.lease().await.expect("the feed is due");
    test.clock.advance(Duration::from_secs(1));
    announce(2).await;
    raised(2, START).await;
    test.commit(lease, last_page(&[], None))
        .await
        .expect("the page is stored");
    let lease = test.lease().await.expect("the feed is due again");
    assert_eq!(lease.kind, TriggerKind::Notification);
    test.commit(lease, last_page(&[], None))
        .await
        .expect("the page is stored");
    test.clock.advance(Duration::from_secs(1));
    announce(3).await;
    raised(3, test.clock.now()).await;
}

async fn a_message_wakes_pullers_if_a_feed_became_due(database: Database) {
    let test = TestStore::new(database).await;
    let announce = async |number, feed| {
        test.clock.advance(Duration::from_secs(1));
        let message = Messages::announcement(number, feed, test.clock.now()).await;
        test.store.accept(message).await.expect("stored");
    };
    let were_woken = || test.store.triggered().now_or_never().is_some();
    announce(1, company("1")).await;
    assert!(were_woken());
    announce(2, company("1")).await;
    assert!(!were_woken(), "it is due already");
    announce(3, company("2")).await;
    assert!(were_woken());
    test.drain().await;
    were_woken();
    announce(4, company("1")).await;
    assert!(were_woken(), "it was pulled meanwhile");
}

async fn a_trigger_does_not_restart_a_first_pull(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    test.trigger(&feed, TriggerKind::Reconciliation).await;
    let lease = test.lease().await.expect("the feed is due");
    assert!(lease.first_pull);
    test.commit(lease, page(&[("a", "1")], "1"))
        .await
        .expect("the page is stored");
    test.notify(&feed).await;
    let lease = test.lease().await.expect("the notification is served");
    assert_eq!(lease.kind, TriggerKind::Notification);
    assert_eq!(lease.position.from, Some(Cursor::new("1")));
    test.commit(lease, last_page(&[("b", "2")], Some("2")))
        .await
        .expect("the page is stored");
    let row = test.feed(&feed).await;
    assert!(row.first_complete_at.is_some());
    assert_eq!((row.documents, row.missed_notifications), (2, 0));
}

async fn versions_that_reconciliation_finds_count_as_missed(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    test.notify(&feed).await;
    test.drain().await;
    test.clock.advance(2 * HOUR);
    test.drain().await;
    test.clock.advance(2 * HOUR);
    let lease = test.lease().await.expect("an hour has passed");
    assert_eq!(lease.kind, TriggerKind::Reconciliation);
    let outcome = test
        .commit(lease, last_page(&[("a", "1"), ("b", "1")], Some("1")))
        .await
        .expect("the page is stored");
    assert!(
        matches!(outcome, PageOutcome::Committed(committed) if committed.missed_notifications == 2)
    );
    assert_eq!(test.feed(&feed).await.missed_notifications, 2);
}

async fn a_served_trigger_has_two_follow_ups_that_stay_due(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    test.notify(&feed).await;
    assert_eq!(
        test.drain().await,
        [TriggerKind::Notification, TriggerKind::Reconciliation]
    );
    test.clock.advance(Duration::from_secs(20));
    test.notify(&feed).await;
    assert_eq!(test.drain().await, [TriggerKind::Notification]);
    for (seconds, expected) in [
        (10, TriggerKind::FollowUp),
        (20, TriggerKind::FollowUp),
        (250, TriggerKind::LateFollowUp),
        (20, TriggerKind::LateFollowUp),
    ] {
        assert_eq!(test.advance_and_drain(seconds).await, [expected]);
    }
    assert!(test.advance_and_drain(600).await.is_empty());
}

async fn follow_ups_survive_a_restart(database: Database) {
    let test = TestStore::new(database).await;
    test.notify(&company("1")).await;
    test.drain().await;
    let test = test.reopen().await;
    assert_eq!(
        test.advance_and_drain(300).await,
        [TriggerKind::FollowUp, TriggerKind::LateFollowUp]
    );
}

async fn notifications_go_first_and_companies_take_turns(database: Database) {
    let test = TestStore::new(database).await;
    let (a, b) = (company("a"), company("b"));
    test.trigger(&a, TriggerKind::Backfill).await;
    test.notify(&b).await;
    test.notify(&a).await;
    let mut order = Vec::new();
    test.clock.advance(Duration::from_millis(1));
    for _ in 0..4 {
        let lease = test.lease().await.expect("a feed is due");
        assert_eq!(lease.kind, TriggerKind::Notification);
        order.push(lease.feed.company.to_string());
        test.clock.advance(Duration::from_millis(1));
        test.commit(lease, page(&[], "x"))
            .await
            .expect("the page is stored");
    }
    assert!(
        order == ["a", "b", "a", "b"] || order == ["b", "a", "b", "a"],
        "{order:?}"
    );
}

async fn an_accounts_requests_in_flight_are_bounded(database: Database) {
    let test = TestStore::new(database).await;
    for number in 0..10 {
        test.notify(&company(&number.to_string())).await;
    }
    assert_eq!(test.lease_all(3).await.len(), 3);
}

async fn a_paused_feed_is_retried_later_and_freed_by_success(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    test.notify(&feed).await;
    let lease = test.lease().await.expect("the feed is due");
    let failure = PageFailure::FeedPaused {
        reason: FeedPauseReason::Forbidden,
        retry_at: START.after(HOUR),
    };
    test.fail(lease, failure, "403").await;
    assert_eq!(
        test.feed(&feed).await.paused,
        Some(FeedPauseReason::Forbidden)
    );
    assert!(test.lease().await.is_none());
    let next_due = test.store.next_due(test.request()).await;
    assert_eq!(next_due.expect("answered"), Some(START.after(HOUR)));
    test.clock.advance(HOUR);
    let lease = test.lease().await.expect("it is retried");
    test.commit(lease, last_page(&[("a", "1")], Some("1")))
        .await
        .expect("the page is stored");
    let row = test.feed(&feed).await;
    assert_eq!((row.paused, row.failures, row.last_error), (None, 0, None));
}

async fn an_ended_pull_is_not_looked_at_again(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    test.notify(&feed).await;
    // A lease that finds nothing has looked at all that is left.
    test.drain().await;
    // Each time a second later, so that the follow-ups stay away.
    for announced_meanwhile in [false, true] {
        test.clock.advance(Duration::from_secs(1));
        let now = test.clock.now();
        test.notify(&feed).await;
        let lease = test.lease().await.expect("announced");
        assert!(!lease.others_due);
        if announced_meanwhile {
            test.notify(&feed).await;
        }
        let stored = test.commit(lease, last_page(&[], None)).await;
        stored.expect("the page is stored");
        let next_due = test.store.next_due(test.request()).await;
        let next_due = next_due.expect("answered").expect("follow-ups");
        assert_eq!(next_due <= now, announced_meanwhile);
    }
    let again = test.lease().await.expect("announced meanwhile");
    assert_eq!(again.kind, TriggerKind::Notification);
}

async fn an_accounts_wait_holds_back_all_its_feeds(database: Database) {
    let test = TestStore::new(database).await;
    test.notify(&company("1")).await;
    test.notify(&company("2")).await;
    let lease = test.lease().await.expect("a feed is due");
    let wait = Duration::from_secs(77);
    let failure = PageFailure::AccountWaits(START.after(wait));
    test.fail(lease, failure, "429").await;
    assert!(test.lease().await.is_none());
    test.clock.advance(wait);
    assert!(test.lease().await.is_some());
}

async fn a_blocked_queue_keeps_its_triggers(database: Database) {
    let test = TestStore::new(database).await;
    test.notify(&company("1")).await;
    let blocked = LeaseRequest {
        queues: vec![(account(), Queue::Digitized)],
        ..test.request()
    };
    assert!(test.lease_as(blocked.clone()).await.is_none());
    let next_due = test.store.next_due(blocked).await;
    assert_eq!(next_due.expect("answered"), None);
    let lease = test.lease().await.expect("it is no longer blocked");
    assert_eq!(lease.kind, TriggerKind::Notification);
}

async fn a_feed_knows_if_its_401_is_about_the_key(database: Database) {
    let test = TestStore::new(database).await;
    test.notify(&company("1")).await;
    let first = test.lease().await.expect("the feed is due");
    assert!(first.key_at_fault, "the key has not worked yet");
    test.commit(first, last_page(&[], None))
        .await
        .expect("the page is stored");
    test.drain().await;
    test.notify(&company("2")).await;
    let other = test.lease().await.expect("the feed is due");
    assert!(!other.key_at_fault, "the key works for another company");
    let released = test.store.release_page(other).await;
    released.expect("the lease is released");
    test.notify(&company("1")).await;
    let leases = test.lease_all(2).await;
    let known = leases.into_iter().find(|lease| lease.feed == company("1"));
    assert!(
        known.expect("the feed is due").key_at_fault,
        "the key worked for this very company"
    );
}

async fn an_account_that_this_process_does_not_know_is_left_alone(database: Database) {
    let test = TestStore::new(database).await;
    let other = Feed::digitized(Account::parse("other").expect("a valid name"));
    test.notify(&other).await;
    assert!(test.lease().await.is_none());
    let knows_it = LeaseRequest {
        queues: vec![(other.account.clone(), Queue::Digitized)],
        ..test.request()
    };
    let lease = test.lease_as(knows_it).await.expect("its trigger was kept");
    assert_eq!(lease.feed, other);
    let knows_none = LeaseRequest {
        queues: Vec::new(),
        ..test.request()
    };
    test.notify(&company("1")).await;
    assert!(test.lease_as(knows_none).await.is_none());
}

async fn a_notification_costs_its_feed_no_other_turn(database: Database) {
    let test = TestStore::new(database).await;
    let feeds = [company("1"), company("2")];
    for feed in &feeds {
        let now = test.clock.now();
        let registered = test.store.register_feeds(vec![feed.clone()], now);
        registered.await.expect("stored");
        test.clock.advance(Duration::from_millis(1));
    }
    // It is pulled before its reconciliation, which keeps its place.
    test.pull(&feeds[0], last_page(&[], None)).await;
    for feed in feeds {
        let lease = test.lease().await.expect("a reconciliation is due");
        assert_eq!(
            (lease.kind, &lease.feed),
            (TriggerKind::Reconciliation, &feed)
        );
        let stored = test.commit(lease, last_page(&[], None)).await;
        stored.expect("stored");
    }
}

async fn a_released_lease_is_free_at_once(database: Database) {
    let test = TestStore::new(database).await;
    test.notify(&company("1")).await;
    let lease = test.lease().await.expect("the feed is due");
    assert!(test.lease().await.is_none());
    let released = test.store.release_page(lease).await;
    released.expect("the lease is released");
    assert!(test.lease().await.is_some());
}

async fn only_resuming_a_whole_account_ends_its_wait(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    test.notify(&feed).await;
    let lease = test.lease().await.expect("the feed is due");
    let failure = PageFailure::AccountWaits(START.after(HOUR));
    test.fail(lease, failure, "429").await;
    let resume = PauseChange::Resume { accept: false };
    for (feed, change, ended) in [
        (Some(feed), resume, false),
        (None, PauseChange::Pause, false),
        (None, resume, true),
    ] {
        let changed = test.store.set_paused(account(), feed, change);
        changed.await.expect("stored");
        let accounts = test.store.accounts().await.expect("readable");
        let row = &accounts[0];
        let is_over = (row.waits_until, row.failures, &row.last_error) == (None, 0, &None);
        assert_eq!(is_over, ended, "{change:?}: {row:?}");
    }
}

async fn all_feeds_are_made_due_batch_by_batch(database: Database) {
    let test = TestStore::new(database).await;
    let feeds = (0..2_500).map(|n| company(&format!("7{n:08}"))).collect();
    let registered = test.store.register_feeds(feeds, START);
    registered.await.expect("stored");
    let later = START.after(HOUR).as_millis();
    test.database
        .run(&format!(
            "UPDATE feed_trigger SET due_at = {later}, next_at = {later}"
        ))
        .await;
    let (mut last, mut due) = (0, Vec::new());
    loop {
        let next = test.store.trigger_reconciliation(START, last).await;
        let count = "SELECT count(*) FROM feed_trigger WHERE due_at = next_at AND due_at";
        let count = format!("{count} = {}", START.as_millis());
        due.push(test.database.count(&count).await);
        match next.expect("stored") {
            Some(next) => last = next,
            None => break,
        }
    }
    assert_eq!(due, [1_000, 2_000, 2_500, 2_500]);
}
