//! Links of files, and the pulls that renew them.

use super::*;

on_both_stores! {
    an_expired_link_triggers_a_pull_and_the_version_returns,
    a_link_request_during_a_pull_is_served_by_the_next_one,
    an_unreadable_feed_delivers_without_files_after_a_day,
    no_link_is_requested_for_a_version_replaced_in_flight,
}

async fn an_expired_link_triggers_a_pull_and_the_version_returns(database: Database) {
    let scene = Scene::new(database).await;
    let feed = company("1");
    let (one, two) = (at(1), at(2));
    let documents = [("a", &*one), ("b", &*two)];
    scene.pull(&feed, &documents).await;
    // Links that no destination needs are not stored.
    scene
        .pull_as(
            &feed,
            TriggerKind::Notification,
            &[],
            &[("b", &two, "https://x/unwanted")],
        )
        .await;
    scene.start(StartFrom::All).await;
    let lease = scene.lease().await.expect("a lease");
    assert!(lease.deliveries[1].link.is_none());
    scene.end_with(lease, DeliveryOutcome::LinkExpired).await;
    // Until the next pull that document waits, and no other.
    assert_eq!(scene.deliver_all().await, [format!("b@{two}")]);
    let row = scene.destination().await;
    assert_eq!((row.waiting_file, row.waiting), (1, 0));

    let fresh = [("a", &*one, "https://x/fresh")];
    scene.clock.advance(Duration::from_secs(1));
    scene
        .pull_as(&feed, TriggerKind::Reconciliation, &documents, &fresh)
        .await;
    let lease = scene.lease().await.expect("a lease");
    assert_eq!(names(&lease.deliveries), [format!("a@{one}")]);
    let link = lease.deliveries[0]
        .link
        .as_ref()
        .map(ExposeSecret::expose_secret);
    assert_eq!(link, Some("https://x/fresh"));
    assert_eq!(lease.deliveries[0].link_tries, 1);

    // If the lookback finds no link, the feed is pulled from its beginning.
    scene.end_with(lease, DeliveryOutcome::LinkExpired).await;
    scene.clock.advance(Duration::from_secs(1));
    let fresh = [("a", &*one, "https://x/fresher")];
    scene
        .pull_as(&feed, TriggerKind::Backfill, &documents, &fresh)
        .await;
    let lease = scene.lease().await.expect("a lease");
    let link = lease.deliveries[0]
        .link
        .as_ref()
        .map(ExposeSecret::expose_secret);
    assert_eq!(link, Some("https://x/fresher"));
}

async fn no_link_is_requested_for_a_version_replaced_in_flight(database: Database) {
    let scene = Scene::new(database).await;
    let feed = company("1");
    scene.pull(&feed, &[("a", &new(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    scene.pull(&feed, &[("a", &new(2))]).await;
    scene.end_with(lease, DeliveryOutcome::LinkExpired).await;
    scene.clock.advance(Duration::from_secs(1));
    // Links are stored only for a feed for which fresh ones were requested.
    let fresh = [("a", &*new(2), "https://x/unwanted")];
    scene
        .pull_as(&feed, TriggerKind::Notification, &[], &fresh)
        .await;
    let lease = scene.lease().await.expect("a lease");
    assert_eq!(names(&lease.deliveries), [format!("a@{}", new(2))]);
    assert!(lease.deliveries[0].link.is_none());
}

async fn a_link_request_during_a_pull_is_served_by_the_next_one(database: Database) {
    let scene = Scene::new(database).await;
    let feed = company("1");
    let one = at(1);
    scene.pull(&feed, &[("a", &one)]).await;
    scene.start(StartFrom::All).await;
    let lease = scene.lease().await.expect("a lease");
    // A reconciliation runs that has already passed the document.
    let now = scene.clock.now();
    let request = LeaseRequest {
        now,
        lease: LEASE,
        requests_per_account: 16,
        lookback: 24 * HOUR,
        min_interval: Duration::ZERO,
        reconcile_every: 1000 * HOUR,
        queues: vec![(account(), Queue::Exported)],
    };
    scene
        .store
        .trigger_reconciliation(now, 0)
        .await
        .expect("it is due");
    let running = scene.store.lease_page(request).await;
    let running = running.expect("leasing works").expect("it is due");
    scene.clock.advance(Duration::from_secs(1));
    scene.end_with(lease, DeliveryOutcome::LinkExpired).await;
    let plan = PullPlan {
        now: scene.clock.now(),
        follow_ups: [HOUR, HOUR],
        reconcile_every: 1000 * HOUR,
        lookback: 24 * HOUR,
    };
    scene
        .store
        .commit_page(running, page(&[], &[]), plan)
        .await
        .expect("the page is stored");
    assert!(scene.lease().await.is_none());
    scene.clock.advance(Duration::from_secs(1));
    let fresh = [("a", &*one, "https://x/fresh")];
    scene
        .pull_as(&feed, TriggerKind::Reconciliation, &[("a", &one)], &fresh)
        .await;
    let lease = scene.lease().await.expect("the version is due again");
    assert!(lease.deliveries[0].link.is_some());
}

async fn an_unreadable_feed_delivers_without_files_after_a_day(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1)), ("b", &at(1))]).await;
    for _ in 0..2 {
        let lease = scene.lease().await.expect("a lease");
        scene.end_with(lease, DeliveryOutcome::LinkExpired).await;
    }
    scene.clock.advance(2 * HOUR);
    let leased = scene.store.lease_deliveries(scene.request()).await;
    let DeliveryLeased::Nothing(nothing) = leased.expect("works") else {
        panic!("both wait");
    };
    let in_time = nothing.until.is_none_or(|until| until > scene.clock.now());
    assert!(in_time, "the next lease would find nothing either");
    scene.clock.advance(23 * HOUR);
    let lease = scene.lease().await.expect("a day was enough");
    let ids: Vec<&str> = lease
        .deliveries
        .iter()
        .map(|delivery| &*delivery.document_id)
        .collect();
    assert_eq!(ids, ["a", "b"]);
    let timed_out = |delivery: &Delivery| delivery.link_timed_out;
    assert!(lease.deliveries.iter().all(timed_out));
}
