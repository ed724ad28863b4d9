//! Waits that are stored, under clocks that were wrong; and whose turn is next among many feeds.

use std::time::{Duration, Instant};

use ivesk_webhook::domain::{Correction, Feed};
use ivesk_webhook::store::{
    FeedPauseReason, LeaseRequest, PageFailure, PageLease, PauseChange, PullPlan, Trigger,
    TriggerKind,
};

use super::test_store::{HOUR, START, TestStore, company, last_page};
use crate::support::databases::{Database, on_both_stores};

on_both_stores! {
    a_wait_that_began_in_the_future_is_over,
    a_wait_of_the_future_is_over_after_a_restart,
    a_lease_of_the_future_is_over,
    a_reconciliation_of_the_future_is_due,
    a_read_of_the_future_is_not_the_last_one,
    reads_of_the_future_alone_are_not_the_last_ones,
    a_reconciliation_may_wait_longer_than_a_failure,
    a_clock_that_was_behind_shortens_a_wait_at_most,
    requests_in_flight_together_count_as_one_failure,
    pulls_of_one_feed_keep_their_distance,
    a_fresh_notification_overtakes_ten_thousand_feeds,
    paused_feeds_lose_no_trigger_and_cost_nothing,
}

const DAYS: Duration = Duration::from_secs(2 * 86_400);

fn set_ahead(correction: &Correction, ahead: Duration) {
    correction.set(i64::try_from(ahead.as_millis()).expect("a short time"));
}

impl TestStore {
    async fn fail_now(&self, lease: PageLease, failure: PageFailure) {
        let now = self.clock.now();
        let failed = self.store.fail_page(lease, failure, "500".to_owned(), now);
        failed.await.expect("the failure is recorded");
    }

    async fn lease_within(&self, requests_per_account: u32) -> Option<PageLease> {
        let request = LeaseRequest {
            requests_per_account,
            ..self.request()
        };
        self.lease_as(request).await
    }

    async fn account_failures(&self) -> u32 {
        let accounts = self.store.accounts().await.expect("readable");
        accounts[0].failures
    }

    /// Lets `feed` fail while the clock is ahead, and sets the clock right again.
    async fn fail_ahead(&self, feed: &Feed, correction: &Correction, ahead: Duration, paused: u8) {
        set_ahead(correction, ahead);
        self.trigger(feed, TriggerKind::Notification).await;
        let lease = self.lease().await.expect("the feed is due");
        let until = self.clock.now().after(Duration::from_secs(5));
        let failure = match paused {
            0 => PageFailure::FeedWaits(until),
            1 => PageFailure::AccountWaits(until),
            2 => PageFailure::FeedPaused {
                reason: FeedPauseReason::Forbidden,
                retry_at: self.clock.now().after(HOUR),
            },
            _ => PageFailure::AccountPaused {
                reason: FeedPauseReason::Unauthorized,
                retry_at: self.clock.now().after(HOUR),
            },
        };
        self.fail_now(lease, failure).await;
        assert!(self.lease().await.is_none(), "it waits");
        set_ahead(correction, Duration::ZERO);
    }
}

async fn a_wait_that_began_in_the_future_is_over(database: Database) {
    let (test, correction) = TestStore::with_correction(database).await;
    let feed = company("1");
    for ahead in [3 * HOUR, DAYS] {
        for paused in 0..4 {
            test.fail_ahead(&feed, &correction, ahead, paused).await;
            let lease = test.lease().await;
            let lease = lease.unwrap_or_else(|| panic!("{ahead:?}, {paused}"));
            assert_eq!(lease.kind, TriggerKind::Notification);
            test.commit(lease, last_page(&[], None))
                .await
                .expect("stored");
            test.drain().await;
        }
    }
}

async fn a_wait_of_the_future_is_over_after_a_restart(database: Database) {
    let (test, correction) = TestStore::with_correction(database).await;
    let feed = company("1");
    test.fail_ahead(&feed, &correction, DAYS, 1).await;
    let test = test.reopen().await;
    assert!(test.lease().await.is_some());
}

async fn a_lease_of_the_future_is_over(database: Database) {
    let (test, correction) = TestStore::with_correction(database).await;
    set_ahead(&correction, DAYS);
    test.trigger(&company("1"), TriggerKind::Notification).await;
    let stale = test.lease().await.expect("the feed is due");
    assert!(test.lease().await.is_none(), "it is leased");
    set_ahead(&correction, Duration::ZERO);
    let lease = test.lease().await.expect("the lease is over");
    assert!(lease.fence > stale.fence);
}

async fn a_reconciliation_of_the_future_is_due(database: Database) {
    let (test, correction) = TestStore::with_correction(database).await;
    set_ahead(&correction, DAYS);
    test.trigger(&company("1"), TriggerKind::Notification).await;
    test.drain().await;
    set_ahead(&correction, Duration::ZERO);
    assert_eq!(
        test.drain().await,
        [
            TriggerKind::FollowUp,
            TriggerKind::LateFollowUp,
            TriggerKind::Reconciliation
        ]
    );
}

async fn a_read_of_the_future_is_not_the_last_one(database: Database) {
    let (test, correction) = TestStore::with_correction(database).await;
    test.pull(&company("1"), last_page(&[], Some("a"))).await;
    test.drain().await;
    assert_future_reads_are_forgotten(test, correction).await;
}

async fn reads_of_the_future_alone_are_not_the_last_ones(database: Database) {
    let (test, correction) = TestStore::with_correction(database).await;
    assert_future_reads_are_forgotten(test, correction).await;
}

async fn assert_future_reads_are_forgotten(test: TestStore, correction: Correction) {
    let feed = company("1");
    // Reads of every kind.
    set_ahead(&correction, DAYS);
    test.pull(&feed, last_page(&[], None)).await;
    test.clock.advance(HOUR);
    test.drain().await;
    set_ahead(&correction, Duration::ZERO);
    let lease = test.lease().await.expect("a reconciliation is due");
    assert!(lease.kind.overlaps());
    assert_eq!(lease.position.from, None, "it is not known since when");
    test.commit(lease, last_page(&[], Some("b")))
        .await
        .expect("stored");
    // By then the right time has passed what the clock showed.
    test.clock.advance(DAYS + 24 * HOUR);
    let lease = test.lease().await.expect("an overlap read is due");
    assert!(lease.kind.overlaps());
    assert_eq!(lease.position.from, None, "it skips what was listed late");
}

async fn a_clock_that_was_behind_shortens_a_wait_at_most(database: Database) {
    let (test, correction) = TestStore::with_correction(database).await;
    let feed = company("1");
    test.trigger(&feed, TriggerKind::Notification).await;
    test.drain().await;
    correction.set(-2 * 86_400 * 1000);
    test.trigger(&feed, TriggerKind::Notification).await;
    let lease = test.lease().await.expect("the feed is due");
    let until = test.clock.now().after(Duration::from_secs(5));
    test.fail_now(lease, PageFailure::AccountWaits(until)).await;
    // It stands still.
    assert!(test.lease().await.is_none());
    correction.set(0);
    assert!(test.lease().await.is_some());
}

async fn requests_in_flight_together_count_as_one_failure(database: Database) {
    let test = TestStore::new(database).await;
    for episode in 1..=3 {
        let mut leases = Vec::new();
        for number in 0..8 {
            test.trigger(&company(&number.to_string()), TriggerKind::Notification)
                .await;
            leases.push(test.lease_within(8).await.expect("a feed is due"));
        }
        for lease in leases {
            let until = test.clock.now().after(Duration::from_secs(5));
            test.fail_now(lease, PageFailure::AccountWaits(until)).await;
        }
        assert_eq!(test.account_failures().await, episode);
        test.clock.advance(Duration::from_secs(5));
    }
    // A success in between begins a new episode.
    let [late, early] = [
        test.lease_within(2).await.expect("due"),
        test.lease_within(2).await.expect("due"),
    ];
    test.commit(early, last_page(&[], None))
        .await
        .expect("stored");
    assert_eq!(test.account_failures().await, 0);
    let until = test.clock.now().after(Duration::from_secs(5));
    test.fail_now(late, PageFailure::AccountWaits(until)).await;
    assert_eq!(test.account_failures().await, 1);
}

async fn pulls_of_one_feed_keep_their_distance(database: Database) {
    let test = TestStore::new(database).await;
    let request = || LeaseRequest {
        min_interval: Duration::from_secs(1),
        ..test.request()
    };
    let feed = company("1");
    for _ in 0..3 {
        test.trigger(&feed, TriggerKind::Notification).await;
        let lease = test.lease_as(request()).await.expect("the feed is due");
        // Its pages follow each other at once.
        let page = super::test_store::page(&[], "x");
        test.commit(lease, page).await.expect("stored");
        let lease = test.lease_as(request()).await.expect("the pull goes on");
        test.trigger(&feed, TriggerKind::Notification).await;
        test.commit(lease, last_page(&[], None))
            .await
            .expect("stored");
        assert!(test.lease_as(request()).await.is_none(), "too early");
        let due = test.store.next_due(request()).await.expect("answered");
        assert_eq!(due, Some(test.clock.now().after(Duration::from_secs(1))));
        test.clock.advance(Duration::from_secs(1));
        let lease = test.lease_as(request()).await.expect("it was kept");
        assert_eq!(lease.kind, TriggerKind::Notification);
        test.commit(lease, last_page(&[], None))
            .await
            .expect("stored");
        test.clock.advance(Duration::from_secs(1));
    }
}

async fn a_fresh_notification_overtakes_ten_thousand_feeds(database: Database) {
    let test = TestStore::new(database).await;
    let feeds: Vec<Feed> = (0..10_000).map(|n| company(&format!("7{n:08}"))).collect();
    test.store
        .register_feeds(feeds, START)
        .await
        .expect("stored");
    let fresh = company("1");
    let began = Instant::now();
    for _ in 0..20 {
        test.clock.advance(Duration::from_millis(10));
        let other = test.lease().await.expect("a feed is due");
        assert_ne!(other.feed, fresh);
        test.trigger(&fresh, TriggerKind::Notification).await;
        test.commit(other, last_page(&[], None))
            .await
            .expect("stored");
        let lease = test.lease().await.expect("the feed is due");
        assert_eq!(
            (lease.feed.clone(), lease.kind),
            (fresh.clone(), TriggerKind::Notification)
        );
        test.commit(lease, last_page(&[], None))
            .await
            .expect("stored");
        let due = test.store.next_due(test.request()).await.expect("answered");
        assert!(due.is_some_and(|due| due <= test.clock.now()));
    }
    let took = began.elapsed() / 20;
    eprintln!("two leases, two pages and a trigger among 10,000 feeds: {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

async fn paused_feeds_lose_no_trigger_and_cost_nothing(database: Database) {
    let test = TestStore::new(database).await;
    let feeds: Vec<Feed> = (0..500).map(|n| company(&format!("7{n:08}"))).collect();
    let triggers = feeds.iter().map(|feed| Trigger {
        feed: feed.clone(),
        kind: TriggerKind::Notification,
        due_at: START,
        from: None,
    });
    let triggers: Vec<Trigger> = triggers.collect();
    test.store.trigger(triggers.clone()).await.expect("stored");
    let account = super::test_store::account();
    for feed in &feeds[..400] {
        let paused = test
            .store
            .set_paused(account.clone(), Some(feed.clone()), PauseChange::Pause);
        assert_eq!(paused.await.expect("stored"), 1);
    }
    assert_eq!(test.drain().await.len(), 200, "both kinds of 100 feeds");
    test.store.trigger(triggers).await.expect("stored");
    assert_eq!(test.drain().await.len(), 100);
    let resume = PauseChange::Resume { accept: false };
    let resumed = test.store.set_paused(account, None, resume).await;
    assert_eq!(resumed.expect("stored"), 400);
    assert_eq!(test.drain().await.len(), 800, "nothing was dropped");
}

async fn a_reconciliation_may_wait_longer_than_a_failure(database: Database) {
    let test = TestStore::new(database).await;
    let request = || LeaseRequest {
        reconcile_every: 6 * HOUR,
        ..test.request()
    };
    let registered = test.store.register_feeds(vec![company("1")], START);
    registered.await.expect("stored");
    for _ in 0..2 {
        let lease = test.lease_as(request()).await.expect("due");
        assert_eq!(lease.kind, TriggerKind::Reconciliation);
        let plan = PullPlan {
            reconcile_every: 6 * HOUR,
            ..test.plan()
        };
        let stored = test.store.commit_page(lease, last_page(&[], None), plan);
        stored.await.expect("stored");
        for _ in 0..6 {
            assert!(test.lease_as(request()).await.is_none(), "too early");
            test.clock.advance(HOUR);
        }
    }
}
