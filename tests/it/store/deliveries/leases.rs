//! Leases of deliveries: order, bounds, owners, pauses.

use super::*;

on_both_stores! {
    versions_are_leased_in_sequence_and_once,
    an_older_version_is_never_leased_once_a_newer_one_exists,
    a_stale_owner_of_a_destination_records_nothing,
    an_expired_lease_returns_its_versions,
    an_unavailable_destination_resumes_at_the_same_version,
    a_destinations_wait_of_the_future_is_over,
    a_closed_destination_waits_for_a_person,
    a_pause_leaves_the_lease_to_the_worker_in_flight,
    a_batch_is_bounded_in_number_and_in_bytes,
    a_window_full_of_other_feeds_is_skipped,
    everything_survives_a_restart,
}

async fn versions_are_leased_in_sequence_and_once(database: Database) {
    let scene = Scene::new(database).await;
    let (one, two) = (company("1"), company("2"));
    scene.pull(&one, &[("a", &at(9))]).await;
    scene.pull(&two, &[("b", &at(1))]).await;
    scene.start(StartFrom::All).await;
    scene.pull(&one, &[("c", &at(3)), ("d", &at(2))]).await;
    let expected = ["a", "b", "c", "d"];
    let delivered = scene.deliver_all().await;
    let ids: Vec<&str> = delivered.iter().map(|name| &name[..1]).collect();
    assert_eq!(ids, expected);
    assert!(scene.due().await.is_empty());
    let destination = scene.destination().await;
    assert_eq!(
        (
            destination.delivered,
            destination.behind,
            destination.position
        ),
        (4, 0, 4)
    );
    assert_eq!(destination.waiting_since, None);
}

async fn an_older_version_is_never_leased_once_a_newer_one_exists(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1)), ("b", &at(1))]).await;
    let feed = company("1");
    scene.pull(&feed, &[("a", &at(3))]).await;
    // An older version that arrives late is not leased.
    scene.pull(&feed, &[("a", &at(2))]).await;
    assert_eq!(
        scene.deliver_all().await,
        [format!("b@{}", at(1)), format!("a@{}", at(3))]
    );
    // Nor is one that an operator retries.
    scene.pull(&feed, &[("b", &at(5))]).await;
    assert_eq!(scene.deliver_all().await, [format!("b@{}", at(5))]);
    assert_eq!(
        scene
            .change(DestinationChange::Retry { sequence: Some(2) })
            .await,
        0
    );
    assert!(scene.due().await.is_empty());
}

async fn a_stale_owner_of_a_destination_records_nothing(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1))]).await;
    let stale = scene.lease().await.expect("a lease");
    scene.clock.advance(LEASE + Duration::from_secs(1));
    let fresh = scene.lease().await.expect("the lease has expired");
    let attempts = vec![scene.attempt(&stale.deliveries[0], rejected("stale"))];
    let refused = scene.settle(stale, attempts, LeaseAction::Release).await;
    assert!(matches!(refused, Err(StoreError::StaleLease)));
    let all = scene.store.deliveries(DeliveryFilter {
        limit: 10,
        ..DeliveryFilter::default()
    });
    assert!(all.await.expect("readable").is_empty());
    scene.end_with(fresh, DELIVERED).await;
}

async fn an_expired_lease_returns_its_versions(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    assert!(scene.lease().await.is_none(), "it is leased");
    scene
        .settle(lease, Vec::new(), LeaseAction::Keep(2 * LEASE))
        .await
        .expect("it is renewed");
    scene.clock.advance(LEASE + Duration::from_secs(1));
    assert!(scene.lease().await.is_none(), "it was renewed");
    scene.clock.advance(LEASE);
    assert_eq!(scene.due().await, [format!("a@{}", at(1))]);
}

async fn an_unavailable_destination_resumes_at_the_same_version(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1)), ("b", &at(2))]).await;
    let lease = scene.lease().await.expect("a lease");
    let until = scene.clock.now().after(HOUR);
    scene.fail(lease, "HTTP 500", Some(until)).await;
    assert!(scene.lease().await.is_none());
    let destination = scene.destination().await;
    assert_eq!(destination.waits_until, Some(until));
    assert_eq!(destination.failing_since, Some(scene.clock.now()));
    assert_eq!((destination.failures, destination.stuck_at), (1, Some(1)));
    assert_eq!(destination.last_error.as_deref(), Some("HTTP 500"));
    assert_eq!(destination.waiting_since, Some(START));

    // An operator may end the wait.
    assert_eq!(scene.change(DestinationChange::Resume).await, 1);
    let lease = scene.lease().await.expect("a lease");
    assert_eq!(lease.failures, 1);
    assert_eq!(lease.deliveries.len(), 2);
    scene.end_with(lease, DELIVERED).await;
    let destination = scene.destination().await;
    assert_eq!((destination.failures, destination.failing_since), (0, None));
    assert_eq!(scene.due().await, [format!("b@{}", at(2))]);
}

/// A clock that was ahead wrote the wait, and the lease.
async fn a_destinations_wait_of_the_future_is_over(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    scene
        .settle(lease, Vec::new(), LeaseAction::Keep(48 * HOUR))
        .await
        .expect("it is renewed");
    let lease = scene.lease().await.expect("the lease is over");
    let until = scene.clock.now().after(48 * HOUR);
    scene.fail(lease, "HTTP 500", Some(until)).await;
    assert!(scene.lease().await.is_some());
}

async fn a_closed_destination_waits_for_a_person(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    scene.fail(lease, "HTTP 410", None).await;
    scene.clock.advance(1000 * HOUR);
    assert!(scene.lease().await.is_none());
    assert_eq!(
        scene.destination().await.paused,
        Some(DestinationPauseReason::Closed)
    );
    assert_eq!(scene.change(DestinationChange::Resume).await, 1);
    assert_eq!(scene.due().await, [format!("a@{}", at(1))]);
    let lease = scene.lease().await.expect("a lease");
    assert_eq!(scene.change(DestinationChange::Pause).await, 1);
    assert_eq!(scene.change(DestinationChange::Pause).await, 0);
    let kept = scene.settle(lease, Vec::new(), LeaseAction::Keep(LEASE));
    assert!(
        !kept.await.expect("the owner may write"),
        "it was paused meanwhile"
    );
    assert!(scene.lease().await.is_none());
    assert_eq!(
        scene.destination().await.paused,
        Some(DestinationPauseReason::ByHand)
    );
}

async fn a_pause_leaves_the_lease_to_the_worker_in_flight(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1)), ("b", &at(2))]).await;
    let lease = scene.lease().await.expect("a lease");
    let [a, b] = [0, 1].map(|index| scene.attempt(&lease.deliveries[index], DELIVERED));
    scene.change(DestinationChange::Pause).await;
    let kept = scene.settle(lease.clone(), vec![a], LeaseAction::Keep(LEASE));
    assert!(!kept.await.expect("the owner may write"));
    // Resumed while `b` is still in flight: no other worker may lease it.
    scene.change(DestinationChange::Resume).await;
    assert!(scene.lease().await.is_none());
    let ended = scene.settle(lease, vec![b], LeaseAction::Release);
    assert!(!ended.await.expect("the lease is not stale"));
    assert!(scene.lease().await.is_none(), "both are delivered");
    assert_eq!(scene.destination().await.delivered, 2);
}

async fn a_batch_is_bounded_in_number_and_in_bytes(database: Database) {
    let scene = Scene::new(database).await;
    let feed = company("1");
    let version = at(1);
    let documents: Vec<(&str, &str)> = ["a", "b", "c", "d"].map(|id| (id, &*version)).to_vec();
    scene.pull(&feed, &documents).await;
    scene.start(StartFrom::All).await;
    let by_number = scene.lease_with(|request| request.limit = 3).await;
    let by_number = by_number.expect("a lease");
    assert_eq!(by_number.deliveries.len(), 3);
    scene.end(by_number, Vec::new()).await;
    // A batch holds at least one version, however large.
    let by_bytes = scene.lease_with(|request| request.limit_bytes = 1).await;
    assert_eq!(by_bytes.expect("a lease").deliveries.len(), 1);
}

async fn a_window_full_of_other_feeds_is_skipped(database: Database) {
    let scene = Scene::new(database).await;
    let ids: Vec<String> = (0..2500).map(|number| format!("x{number:04}")).collect();
    let version = at(1);
    let documents: Vec<(&str, &str)> = ids.iter().map(|id| (&**id, &*version)).collect();
    scene.pull(&company("1"), &[]).await;
    assert!(scene.due().await.is_empty(), "the feed has started");
    scene.pull(&Feed::digitized(account()), &documents).await;
    scene.pull(&company("1"), &[("a", &version)]).await;
    let request = scene.request();
    let leased = scene.store.lease_deliveries(request.clone()).await;
    assert!(matches!(leased, Ok(DeliveryLeased::Advanced)));
    assert_eq!(scene.deliver_all().await, [format!("a@{version}")]);
}

async fn everything_survives_a_restart(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1)), ("b", &at(2))]).await;
    let lease = scene.lease_with(|request| request.limit = 1).await;
    let lease = lease.expect("a lease");
    let attempts = vec![scene.attempt(&lease.deliveries[0], rejected("no"))];
    scene
        .settle(lease, attempts, LeaseAction::Keep(LEASE))
        .await
        .expect("the owner may write");
    let scene = scene.reopen().await;
    // On SQLite leases end with their process; on PostgreSQL only with time.
    scene.clock.advance(LEASE + Duration::from_secs(1));
    assert_eq!(scene.due().await, [format!("b@{}", at(2))]);
    assert_eq!(scene.destination().await.rejected_now, 1);
    scene.register_destination().await;
    assert_eq!(scene.destination().await.rejected_now, 1);
}
