//! Leases of deliveries: order, bounds, owners, pauses.

use super::*;
use crate::support::databases::connect;

on_both_stores! {
    versions_are_leased_in_sequence_and_once,
    an_older_version_is_never_leased_once_a_newer_one_exists,
    a_stale_owner_of_a_destination_records_nothing,
    the_last_outcome_ends_the_lease,
    a_lease_tells_whether_there_is_more,
    an_expired_lease_returns_its_versions,
    an_unavailable_destination_resumes_at_the_same_version,
    a_lease_longer_than_ones_own_is_not_taken,
    a_destinations_wait_of_the_future_is_over,
    waits_of_the_future_end_though_they_fail_again,
    a_failure_seen_in_the_future_began_now_at_the_latest,
    a_company_that_is_taken_out_stays_out_and_is_no_trouble,
    a_retry_of_the_future_is_due,
    a_closed_destination_waits_for_a_person,
    a_pause_leaves_the_lease_to_the_worker_in_flight,
    a_batch_is_bounded_in_number_and_in_bytes,
    much_history_is_passed_in_steps,
    lanes_take_turns_and_new_ones_begin_at_once,
    a_thousand_feeds_get_lanes_and_forty_due_ones_a_turn_each,
    a_page_stored_while_versions_are_chosen_is_delivered,
    lanes_have_turns_beside_failing_retries,
    a_failure_of_a_version_replaced_in_flight_is_not_kept,
    a_lane_that_fails_leaves_the_others_alone,
    a_document_that_keeps_failing_is_deferred,
    two_documents_that_fail_alike_make_the_destination_fail,
    equal_rejections_pause_a_lane_then_the_destination,
    everything_survives_a_restart,
}

async fn versions_are_leased_in_sequence_and_once(database: Database) {
    let scene = Scene::new(database).await;
    let (one, two) = (company("1"), company("2"));
    scene.pull(&one, &[("a", &at(9))]).await;
    scene.pull(&two, &[("b", &at(1))]).await;
    scene.start(StartFrom::All).await;
    scene.pull(&one, &[("c", &at(3)), ("d", &at(2))]).await;
    assert_eq!(scene.destination().await.waiting, 4);
    let mut delivered = scene.deliver_all().await;
    let of_one: Vec<&str> = delivered.iter().map(|name| &name[..1]).collect();
    let of_one: Vec<&str> = of_one.into_iter().filter(|id| *id != "b").collect();
    assert_eq!(of_one, ["a", "c", "d"], "a lane's are in order");
    delivered.sort();
    delivered.dedup();
    assert_eq!(delivered.len(), 4);
    assert!(scene.due().await.is_empty());
    let destination = scene.destination().await;
    assert_eq!((destination.delivered, destination.waiting), (4, 0));
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
            .change(DestinationChange::Retry(DeliverySelection::One(2)))
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
    assert_eq!(lease.deliveries.len(), 1, "a lane that fails tries one");
    scene.end_with(lease, DELIVERED).await;
    let destination = scene.destination().await;
    assert_eq!((destination.failures, destination.failing_since), (0, None));
    assert_eq!(scene.due().await, [format!("b@{}", at(2))]);
}

/// Milliseconds by which a clock is ahead.
const AHEAD: i64 = 48 * 3_600_000;

/// The settings of two replicas differ for a while.
async fn a_lease_longer_than_ones_own_is_not_taken(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1))]).await;
    let lease = scene.lease_with(|request| request.lease = 5 * LEASE).await;
    let lease = lease.expect("a lease");
    assert!(scene.lease().await.is_none(), "it is leased");
    scene.clock.advance(LEASE);
    scene
        .settle(lease, Vec::new(), LeaseAction::Keep(5 * LEASE))
        .await
        .expect("it is renewed");
    scene.clock.advance(3 * LEASE);
    assert!(scene.lease().await.is_none(), "it was renewed");
    scene.clock.advance(2 * LEASE);
    assert_eq!(scene.due().await, [format!("a@{}", at(1))]);
}

/// A clock that was ahead wrote the wait, and the lease.
async fn a_destinations_wait_of_the_future_is_over(database: Database) {
    let (scene, correction) = Scene::with_correction(database).await;
    scene.register_destination().await;
    scene.pull(&company("1"), &[("a", &new(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    correction.set(AHEAD);
    scene
        .settle(lease, Vec::new(), LeaseAction::Keep(LEASE))
        .await
        .expect("it is renewed");
    correction.set(0);
    let lease = scene.lease().await.expect("the lease is over");
    let until = scene.clock.now().after(48 * HOUR);
    scene.fail(lease, "HTTP 500", Some(until)).await;
    // A failure under the right clock begins a wait of its own.
    let lease = scene.lease().await.expect("the wait is over");
    scene.end_with(lease, unavailable()).await;
    assert!(scene.lease().await.is_none());
    scene.clock.advance(HOUR);
    assert!(scene.lease().await.is_some());
}

async fn a_failure_seen_in_the_future_began_now_at_the_latest(database: Database) {
    let (scene, correction) = Scene::with_correction(database).await;
    scene.register_destination().await;
    let feed = company("1");
    scene.pull(&feed, &[("a", &new(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    correction.set(AHEAD);
    scene.end_with(lease, unavailable()).await;
    correction.set(0);
    scene.change(DestinationChange::Resume).await;
    let lease = scene.lease().await.expect("it is tried again");
    scene.end_with(lease, unavailable()).await;
    let now = scene.clock.now();
    let (row, lane) = (scene.destination().await, scene.lane(&feed).await);
    assert!(
        row.failures > 1 && row.failing_since.is_some_and(|at| at <= now),
        "{row:?}"
    );
    assert!(lane.failing_since.is_none_or(|at| at <= now), "{lane:?}");
}

/// Replicas are restarted one after another with settings that leave out a company.
async fn a_company_that_is_taken_out_stays_out_and_is_no_trouble(database: Database) {
    let mut scene = Scene::new(database).await;
    let (one, two) = (company("1"), company("2"));
    scene.pull(&one, &[("a", &new(1))]).await;
    scene.pull(&two, &[("b", &new(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    let failing = lease
        .deliveries
        .iter()
        .find(|delivery| delivery.document_id == "a");
    let attempt = scene.attempt(failing.expect("it is due"), unavailable());
    scene.end(lease, vec![attempt]).await;
    assert_eq!(scene.destination().await.failing_lanes, 1);
    let old = scene.filter.clone();
    scene.filter.companies = vec![two.company.clone()];
    scene.register_destination().await;
    let lanes = async |scene: &Scene| {
        let lanes = scene.store.lanes(name(), 0, 1_000).await.expect("readable");
        lanes
            .into_iter()
            .map(|(_, lane)| lane.feed)
            .collect::<Vec<_>>()
    };
    // A replica with the settings of before makes its lanes at last.
    let new_filter = std::mem::replace(&mut scene.filter, old);
    scene.make_lanes().await;
    assert_eq!(lanes(&scene).await, std::slice::from_ref(&two));
    // One that an earlier release brought back: the next start removes it.
    scene.filter = new_filter;
    let brought_back = "UPDATE lane SET removed_at = NULL, failures = 1, failing_since = 1 WHERE removed_at IS NOT NULL";
    scene.database.run(brought_back).await;
    assert_eq!(scene.destination().await.failing_lanes, 1);
    scene.register_destination().await;
    scene.make_lanes().await;
    assert_eq!(lanes(&scene).await, [two]);
    scene.change(DestinationChange::Resume).await;
    let row = scene.destination().await;
    assert_eq!((row.failing_lanes, row.paused_lanes), (0, 0));
    assert_eq!(scene.due().await, [format!("b@{}", new(1))]);
}

/// A clock that was ahead wrote when a lane, and when a deferred document, is tried again.
async fn waits_of_the_future_end_though_they_fail_again(database: Database) {
    let (scene, correction) = Scene::with_correction(database).await;
    scene.register_destination().await;
    let feed = company("1");
    let documents = ["a", "b", "c"].map(|id| (id, new(1)));
    let documents: Vec<(&str, &str)> = documents.iter().map(|(id, v)| (*id, &**v)).collect();
    scene.pull(&feed, &documents).await;
    let lease = scene.lease().await.expect("a lease");
    correction.set(AHEAD);
    scene.end_with(lease, unavailable()).await;
    correction.set(0);
    let lease = scene.lease().await.expect("the lane's wait is over");
    scene.end_with(lease, unavailable()).await;
    assert!(scene.lease().await.is_none(), "the lane waits");
    assert_eq!(scene.lane(&feed).await.failures, 2);

    correction.set(AHEAD);
    fail_for_long(&scene).await;
    assert_eq!(scene.destination().await.deferred, 1);
    correction.set(0);
    scene.clock.advance(24 * HOUR);
    assert_eq!(scene.due().await, [format!("a@{}", new(1))], "tried daily");
}

/// A clock that was ahead wrote when a version is tried again apart from the others of its lane.
async fn a_retry_of_the_future_is_due(database: Database) {
    let (scene, correction) = Scene::with_correction(database).await;
    scene.register_destination().await;
    scene.pull(&company("1"), &[("a", &new(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    scene.end_with(lease, rejected("no")).await;
    assert!(scene.lease().await.is_none());
    assert!(!scene.wakes_deliveries().await);

    let ahead = 10 * 3_600_000;
    correction.set(ahead);
    assert_eq!(scene.change(retry_rejected()).await, 1);
    let lease = scene.lease().await.expect("it is due at once");
    assert_eq!(scene.change(retry_rejected()).await, 0);
    scene.end(lease, Vec::new()).await;
    correction.set(0);
    assert!(scene.wakes_deliveries().await);
    let lease = scene.lease().await.expect("it is due, as it was");

    correction.set(ahead);
    scene.end_with(lease, unavailable()).await;
    correction.set(0);
    let lease = scene.lease().await.expect("its wait is over");
    scene.end_with(lease, unavailable()).await;
    assert!(
        scene.lease().await.is_none(),
        "it waits under a right clock"
    );
    assert!(!scene.wakes_deliveries().await);
    scene.clock.advance(HOUR);
    assert_eq!(scene.due().await, [format!("a@{}", new(1))]);
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

async fn much_history_is_passed_in_steps(database: Database) {
    let scene = Scene::new(database).await;
    let ids: Vec<String> = (0..2500).map(|number| format!("x{number:04}")).collect();
    let (old, fresh) = (at(1), new(1));
    let mut documents: Vec<(&str, &str)> = ids.iter().map(|id| (&**id, &*old)).collect();
    documents.push(("a", &fresh));
    scene.pull(&company("1"), &documents).await;
    let leased = scene.store.lease_deliveries(scene.request()).await;
    assert!(matches!(leased, Ok(DeliveryLeased::Advanced)));
    assert_eq!(scene.deliver_all().await, [format!("a@{fresh}")]);
    assert_eq!(scene.destination().await.held, 2500);
    assert_eq!(scene.lane(&company("1")).await.held, 2500);
    // Read once more from the beginning, they are not counted twice.
    scene.start(since(&new(2))).await;
    assert!(scene.due().await.is_empty());
    assert_eq!(scene.destination().await.held, 2500);
}

/// Continues a lease with nothing recorded; returns what comes next.
async fn next(scene: &Scene, lease: &DeliveryLease, limit: usize) -> Vec<String> {
    let mut request = scene.request();
    request.limit = limit;
    let continued = scene
        .store
        .continue_deliveries(lease.clone(), Vec::new(), Vec::new(), request);
    names(&continued.await.expect("the owner may go on").deliveries)
}

async fn the_last_outcome_ends_the_lease(database: Database) {
    let scene = Scene::new(database).await;
    let feed = company("1");
    scene.pull(&feed, &[("a", &new(1)), ("b", &new(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    let [first, second] = &lease.deliveries[..] else {
        panic!("{:?}", lease.deliveries);
    };
    let delivered = |version: &Delivery| {
        vec![scene.attempt(version, DeliveryOutcome::Delivered { note: None })]
    };
    let proceed = async |attempts, taken, limit| {
        let mut request = scene.request();
        request.limit = limit;
        let store = &scene.store;
        let proceeded = store.continue_deliveries(lease.clone(), attempts, taken, request);
        proceeded.await.expect("the owner may go on")
    };
    let in_flight = vec![second.sequence];
    let ended = proceed(delivered(first), in_flight, 10).await.ended;
    assert_eq!(ended, None, "one is in flight");
    assert_eq!(
        proceed(Vec::new(), Vec::new(), 0).await.ended,
        None,
        "not looked"
    );
    let next = proceed(Vec::new(), Vec::new(), 10).await;
    assert_eq!(names(&next.deliveries), [format!("b@{}", new(1))]);
    assert_eq!(next.ended, None);
    let ended = proceed(delivered(second), Vec::new(), 10).await.ended;
    let nothing = NothingDue {
        until: None,
        held: false,
    };
    assert_eq!(ended, Some(nothing));
    // Another worker need not wait.
    scene.pull(&feed, &[("c", &new(1))]).await;
    let other = scene.lease().await.expect("the lease has ended");
    assert_eq!(names(&other.deliveries), [format!("c@{}", new(1))]);
    let stale = scene.settle(lease, Vec::new(), LeaseAction::Release).await;
    assert!(matches!(stale, Err(StoreError::StaleLease)));
}

async fn a_lease_tells_whether_there_is_more(database: Database) {
    let scene = Scene::new(database).await;
    let version = new(1);
    let ids: Vec<String> = (0..40).map(|number| format!("a{number:02}")).collect();
    let documents: Vec<(&str, &str)> = ids.iter().map(|id| (&**id, &*version)).collect();
    scene.pull(&company("1"), &documents).await;
    scene.pull(&company("2"), &[("b", &version)]).await;
    for (limit, bytes, count, more) in [
        (1, 1 << 20, 1, true),
        // Half of them are of a lane that has one.
        (40, 1 << 20, 21, true),
        (41, 1 << 20, 22, true),
        (41, 1, 1, true),
        (80, 1 << 20, 41, true),
        (100, 1 << 20, 41, false),
    ] {
        let lease = scene
            .lease_with(|request| {
                request.limit = limit;
                request.limit_bytes = bytes;
            })
            .await
            .expect("a lease");
        let found = (lease.deliveries.len(), lease.more);
        assert_eq!(found, (count, more), "at most {limit} of {bytes} bytes");
        scene.end(lease, Vec::new()).await;
    }
}

async fn lanes_take_turns_and_new_ones_begin_at_once(database: Database) {
    let scene = Scene::new(database).await;
    let version = new(1);
    for feed in 1..=3 {
        let ids: Vec<String> = (0..20)
            .map(|number| format!("{feed}-{number:02}"))
            .collect();
        let documents: Vec<(&str, &str)> = ids.iter().map(|id| (&**id, &*version)).collect();
        scene.pull(&company(&feed.to_string()), &documents).await;
    }
    let lease = scene.lease_with(|request| request.limit = 1).await;
    let lease = lease.expect("a lease");
    let mut turns = names(&lease.deliveries);
    for _ in 0..5 {
        turns.extend(next(&scene, &lease, 1).await);
    }
    let lanes: std::collections::BTreeSet<&str> = turns.iter().map(|name| &name[..1]).collect();
    assert_eq!(lanes.len(), 3, "{turns:?}");
    // A company that nobody knew before.
    scene.pull(&company("9"), &[("9-new", &version)]).await;
    let mut turns = Vec::new();
    for _ in 0..3 {
        turns.extend(next(&scene, &lease, 1).await);
    }
    assert!(turns.iter().any(|name| name.starts_with("9-")), "{turns:?}");
}

async fn a_thousand_feeds_get_lanes_and_forty_due_ones_a_turn_each(database: Database) {
    const LANES: usize = 1_000;
    let scene = Scene::new(database).await;
    // The vendor's clock becomes known.
    scene.pull(&company("1"), &[]).await;
    let feeds: Vec<Feed> = (0..LANES)
        .map(|code| company(&format!("1{code}")))
        .collect();
    let registered = scene.store.register_feeds(feeds.clone(), scene.clock.now());
    registered.await.expect("feeds are registered");
    let calls = async || {
        let (plan, now) = (scene.plan(), scene.clock.now());
        let made = scene.store.make_lanes(name(), plan, now).await;
        made.expect("lanes can be made")
    };
    assert!(calls().await && calls().await, "500 each");
    while calls().await {}
    assert!(scene.due().await.is_empty(), "idle lanes cost nothing");
    for number in 0..40 {
        let ids = [format!("x{number}"), format!("y{number}")];
        let documents = [(&*ids[0], &*new(1)), (&*ids[1], &*new(1))];
        scene
            .pull(&company(&format!("2{number}")), &documents)
            .await;
    }
    let lease = scene.lease_with(|request| request.limit = 10).await;
    let lease = lease.expect("a lease");
    let mut turns = vec![names(&lease.deliveries)];
    for _ in 0..12 {
        turns.push(next(&scene, &lease, 10).await);
    }
    let served: std::collections::BTreeSet<&String> = turns.iter().flatten().collect();
    assert_eq!(served.len(), 40, "each lane had its turn: {turns:?}");
}

async fn a_page_stored_while_versions_are_chosen_is_delivered(database: Database) {
    let scene = Scene::new(database).await;
    let feed = company("1");
    scene.pull(&feed, &[("first", &new(1))]).await;
    scene.deliver_all().await;
    for number in 0..60 {
        let id = format!("x{number}");
        let is_stored = std::cell::Cell::new(false);
        let pulling = async {
            scene.pull(&feed, &[(&id, &new(1))]).await;
            is_stored.set(true);
        };
        let delivering = async {
            let mut delivered = Vec::new();
            while !is_stored.get() {
                delivered.extend(scene.deliver_all().await);
            }
            delivered
        };
        let ((), mut delivered) = tokio::join!(pulling, delivering);
        delivered.extend(scene.deliver_all().await);
        assert_eq!(delivered, [format!("{id}@{}", new(1))]);
    }
}

fn unavailable() -> DeliveryOutcome {
    DeliveryOutcome::Unavailable {
        error: "HTTP 500".to_owned(),
        retry_after: None,
    }
}

async fn lanes_have_turns_beside_failing_retries(database: Database) {
    let scene = Scene::new(database).await;
    let one = company("1");
    scene.pull(&one, &[("a", &new(1)), ("b", &new(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    let attempts = lease.deliveries.iter();
    let attempts = attempts.map(|one| scene.attempt(one, rejected("no")));
    let attempts = attempts.collect();
    scene.end(lease, attempts).await;
    assert_eq!(scene.change(retry_rejected()).await, 2);
    scene.pull(&company("2"), &[("c", &new(1))]).await;
    let mut tried = Vec::new();
    for _ in 0..12 {
        // Longer than any wait.
        scene.clock.advance(Duration::from_secs(15 * 60));
        let lease = scene.lease().await.expect("a lease");
        tried.extend(names(&lease.deliveries[..1]));
        scene.end_with(lease, unavailable()).await;
    }
    let later = &tried[4..];
    let of = |id: &str| later.iter().filter(|name| name.starts_with(id)).count();
    assert!(of("a") > 0 && of("b") > 0 && of("c") > 0, "{tried:?}");
}

async fn a_failure_of_a_version_replaced_in_flight_is_not_kept(database: Database) {
    let outcomes = [unavailable(), rejected("no"), DeliveryOutcome::LinkExpired];
    let scene = Scene::new(database).await;
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let (feed, id) = (company(&number.to_string()), format!("x{number}"));
        scene.pull(&feed, &[(&id, &new(1))]).await;
        let lease = scene.lease().await.expect("a lease");
        let sequence = lease.deliveries[0].sequence;
        scene.pull(&feed, &[(&id, &new(2))]).await;
        scene.end_with(lease, outcome).await;
        let rows = scene.store.deliveries(DeliveryFilter {
            sequence: Some(sequence),
            limit: 10,
            ..DeliveryFilter::default()
        });
        let rows = rows.await.expect("readable");
        assert_eq!(rows[0].state, DeliveryState::Superseded);
        scene.clock.advance(Duration::from_secs(15 * 60));
        assert_eq!(scene.deliver_all().await, [format!("{id}@{}", new(2))]);
    }
}

async fn a_lane_that_fails_leaves_the_others_alone(database: Database) {
    let scene = Scene::new(database).await;
    let (one, two) = (company("1"), company("2"));
    scene.pull(&one, &[("a", &new(1)), ("b", &new(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    scene.end_with(lease, unavailable()).await;
    assert!(scene.lease().await.is_none(), "the lane waits");
    scene.pull(&two, &[("c", &new(1))]).await;
    assert_eq!(scene.deliver_all().await, [format!("c@{}", new(1))]);
    let lane = scene.lane(&one).await;
    assert_eq!((lane.failures, lane.failing_since), (1, Some(START)));
    assert_eq!(scene.destination().await.failing_lanes, 1);
    assert_eq!(scene.destination().await.failing_since, None);
    scene.clock.advance(Duration::from_secs(3));
    assert_eq!(scene.due().await, [format!("a@{}", new(1))]);
}

/// Fails `a` whenever it is due, for an hour.
async fn fail_for_long(scene: &Scene) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..60 {
        scene.clock.advance(Duration::from_secs(60));
        let Some(lease) = scene.lease().await else {
            continue;
        };
        let name = names(&lease.deliveries).remove(0);
        let outcome = match name.starts_with('a') {
            true => unavailable(),
            false => DELIVERED,
        };
        scene.end_with(lease, outcome).await;
        seen.push(name);
    }
    seen
}

async fn a_document_that_keeps_failing_is_deferred(database: Database) {
    let scene = Scene::new(database).await;
    let feed = company("1");
    let documents = ["a", "b", "c"].map(|id| (id, new(1)));
    let documents: Vec<(&str, &str)> = documents.iter().map(|(id, v)| (*id, &**v)).collect();
    scene.pull(&feed, &documents).await;
    let seen = fail_for_long(&scene).await;
    assert!(
        seen[..8].iter().all(|name| name.starts_with('a')),
        "{seen:?}"
    );
    assert_eq!(seen.iter().filter(|name| name.starts_with('b')).count(), 1);
    assert_eq!(seen.iter().filter(|name| name.starts_with('c')).count(), 1);
    let row = scene.destination().await;
    assert_eq!((row.deferred, row.delivered, row.failing_lanes), (1, 2, 0));
    assert!(scene.due().await.is_empty());
    scene.clock.advance(24 * HOUR);
    assert_eq!(scene.due().await, [format!("a@{}", new(1))], "tried daily");
    // A newer version takes its place.
    scene.pull(&feed, &[("a", &new(2))]).await;
    assert_eq!(scene.deliver_all().await, [format!("a@{}", new(2))]);
    scene.clock.advance(48 * HOUR);
    assert!(scene.due().await.is_empty(), "never the older one after it");
    assert_eq!(scene.destination().await.deferred, 0);
}

async fn two_documents_that_fail_alike_make_the_destination_fail(database: Database) {
    let scene = Scene::new(database).await;
    for code in ["1", "2", "3"] {
        scene.pull(&company(code), &[(code, &new(1))]).await;
    }
    let lease = scene.lease().await.expect("a lease");
    assert_eq!(lease.deliveries.len(), 3);
    let failed = |delivery: &Delivery| {
        let error = "HTTP 500".to_owned();
        let retry_after = None;
        scene.attempt(
            delivery,
            DeliveryOutcome::Unavailable { error, retry_after },
        )
    };
    let attempts = lease.deliveries[..2].iter().map(failed).collect();
    scene.end(lease, attempts).await;
    assert!(scene.lease().await.is_none(), "all of it waits");
    let row = scene.destination().await;
    assert!(row.waits_until.is_some() && row.failing_since.is_some());
    scene.clock.advance(Duration::from_secs(10));
    let lease = scene.lease().await.expect("a probe");
    assert_eq!(lease.deliveries.len(), 1, "one at a time");
    scene.end_with(lease, DELIVERED).await;
    assert_eq!(scene.destination().await.failing_since, None);
    assert_eq!(scene.deliver_all().await.len(), 2);
}

async fn equal_rejections_pause_a_lane_then_the_destination(database: Database) {
    let scene = Scene::new(database).await;
    let ids: Vec<String> = (0..100).map(|number| format!("{number:02}")).collect();
    let version = new(1);
    let documents: Vec<(&str, &str)> = ids.iter().map(|id| (&**id, &*version)).collect();
    let (one, two) = (company("1"), company("2"));
    scene.pull(&one, &documents[..50]).await;
    let reject = async |count: usize, words: &str| {
        for _ in 0..count {
            let lease = scene.lease_with(|request| request.limit = 1).await;
            scene
                .end_with(lease.expect("a lease"), rejected(words))
                .await;
        }
    };
    // The very first answers.
    reject(5, "no such account").await;
    assert!(scene.lease().await.is_none());
    let row = scene.destination().await;
    assert_eq!((row.paused_lanes, row.paused), (1, None));
    assert_eq!(
        (row.waiting, row.rejected, row.last_success_at),
        (45, 5, None)
    );
    assert_eq!(scene.change(DestinationChange::Resume).await, 1);
    // Later on it takes more of them, in a row.
    reject(10, "no such account").await;
    reject(1, "another").await;
    assert_eq!(scene.destination().await.paused_lanes, 0);
    reject(5, "no such account").await;
    assert_eq!(scene.destination().await.paused_lanes, 0);
    // A second lane that agrees with a paused one pauses the destination.
    scene.pull(&two, &documents[50..]).await;
    let lease = scene.lease_with(|request| request.limit = 200).await;
    let lease = lease.expect("a lease");
    let attempts = lease.deliveries.iter();
    let attempts = attempts.map(|one| scene.attempt(one, rejected("no such account")));
    let attempts = attempts.collect();
    scene.end(lease, attempts).await;
    let row = scene.destination().await;
    assert_eq!(row.paused, Some(DestinationPauseReason::Rejections));
    assert_eq!(row.paused_lanes, 2);
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

/// It could wait for a page that waits for the destination.
#[tokio::test]
async fn a_stale_owner_waits_for_no_feed() {
    let Some(database) = Database::postgres("stale owners").await else {
        return;
    };
    let url = database.url_text();
    let scene = Scene::started(database, &[("a", &at(1))]).await;
    let stale = scene.lease().await.expect("a lease");
    scene.clock.advance(LEASE + Duration::from_secs(1));
    let _fresh = scene.lease().await.expect("the lease has expired");
    // Its owner would lock a feed that has no lane yet.
    scene.pull(&company("2"), &[("b", &at(2))]).await;
    let other = connect(&url).await.expect("it answers");
    let locked = other.batch_execute("BEGIN; SELECT 1 FROM feed FOR UPDATE");
    locked.await.expect("they are locked");
    let attempts = vec![scene.attempt(&stale.deliveries[0], rejected("stale"))];
    let (store, request) = (&scene.store, scene.request());
    let continued = store.continue_deliveries(stale, attempts, Vec::new(), request);
    let refused = continued.await.err();
    assert!(
        matches!(refused, Some(StoreError::StaleLease)),
        "{refused:?}"
    );
}
