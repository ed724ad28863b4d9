//! Outcomes of deliveries, and what follows from them.

use super::*;

on_both_stores! {
    equal_attempts_are_counted_in_one_row,
    a_rejected_version_is_retried_only_by_a_person,
    a_skipped_version_unblocks_the_next_one,
    a_version_skipped_in_flight_stays_skipped,
    a_list_has_no_gaps_and_no_version_twice,
    a_program_may_report_an_outcome_later,
    a_destinations_note_is_passed_to_the_next_version,
    retention_removes_bodies_once_all_destinations_are_done,
    retention_passes_bodies_that_a_destination_needs,
}

async fn equal_attempts_are_counted_in_one_row(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1))]).await;
    let first = scene.clock.now();
    for error in ["HTTP 500", "HTTP 500", "timed out"] {
        let lease = scene.lease().await.expect("a lease");
        let now = scene.clock.now();
        scene.fail(lease, error, Some(now.after(HOUR))).await;
        scene.clock.advance(HOUR);
    }
    scene.deliver_all().await;
    let rows = scene.store.deliveries(DeliveryFilter {
        sequence: Some(1),
        limit: 10,
        ..DeliveryFilter::default()
    });
    let rows = rows.await.expect("readable");
    assert_eq!(rows[0].state, DeliveryState::Delivered);
    assert_eq!(rows[0].began_at, first);
    let attempts: Vec<(&str, Option<&str>, u64)> = rows[0]
        .attempts
        .iter()
        .map(|attempt| (&*attempt.result, attempt.detail.as_deref(), attempt.times))
        .collect();
    assert_eq!(
        attempts,
        [
            ("unavailable", Some("HTTP 500"), 2),
            ("unavailable", Some("timed out"), 1),
            ("delivered", None, 1)
        ]
    );
    assert_eq!(rows[0].attempts[0].ended_at, first.after(HOUR));

    // The number of kept attempts has a bound, and the first is always kept.
    scene
        .change(DestinationChange::Retry(DeliverySelection::One(1)))
        .await;
    for round in 0..60 {
        let lease = scene.lease().await.expect("a lease");
        let now = scene.clock.now();
        scene
            .fail(lease, &format!("error {round}"), Some(now))
            .await;
        scene.clock.advance(HOUR);
    }
    let rows = scene.store.deliveries(DeliveryFilter {
        sequence: Some(1),
        limit: 10,
        ..DeliveryFilter::default()
    });
    let attempts = &rows.await.expect("readable")[0].attempts;
    assert!(attempts.len() <= 51, "{}", attempts.len());
    assert_eq!(attempts[0].detail.as_deref(), Some("HTTP 500"));
    let newest = attempts.last().expect("the newest");
    assert_eq!(newest.detail.as_deref(), Some("error 59"));
}

async fn a_rejected_version_is_retried_only_by_a_person(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1)), ("b", &at(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    let attempts = vec![
        scene.attempt(&lease.deliveries[0], rejected("no")),
        scene.attempt(&lease.deliveries[1], DELIVERED),
    ];
    scene.end(lease, attempts).await;
    assert!(scene.due().await.is_empty());
    assert_eq!(scene.destination().await.rejected_now, 1);
    assert_eq!(scene.change(retry_rejected()).await, 1);
    assert_eq!(scene.deliver_all().await, [format!("a@{}", at(1))]);
    assert_eq!(scene.destination().await.rejected_now, 0);
}

async fn a_skipped_version_unblocks_the_next_one(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1)), ("b", &at(2))]).await;
    let lease = scene.lease().await.expect("a lease");
    let until = scene.clock.now().after(HOUR);
    scene.fail(lease, "HTTP 500", Some(until)).await;
    assert_eq!(
        scene
            .change(DestinationChange::Skip(DeliverySelection::One(1)))
            .await,
        1
    );
    assert_eq!(scene.deliver_all().await, [format!("b@{}", at(2))]);
    // A delivered version can't be skipped.
    assert_eq!(
        scene
            .change(DestinationChange::Skip(DeliverySelection::One(2)))
            .await,
        0
    );
    assert_eq!(
        scene
            .change(DestinationChange::Skip(DeliverySelection::One(99)))
            .await,
        0
    );
}

async fn a_version_skipped_in_flight_stays_skipped(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1)), ("b", &at(2))]).await;
    for expired in [false, true] {
        let lease = scene.lease_with(|request| request.limit = 1).await;
        let lease = lease.expect("a lease");
        let sequence = lease.deliveries[0].sequence;
        // The version has no row yet: it gets one with its first attempt.
        let now = scene.clock.now();
        let attempt = match expired {
            true => scene.attempt(&lease.deliveries[0], DeliveryOutcome::LinkExpired),
            false => scene.failed(&lease.deliveries[0], "HTTP 500", Some(now)),
        };
        assert_eq!(
            scene
                .change(DestinationChange::Skip(DeliverySelection::One(sequence)))
                .await,
            1
        );
        scene.end(lease, vec![attempt]).await;
        let destination = scene.destination().await;
        assert_eq!(
            (destination.stuck_at, destination.waits_until),
            (None, None)
        );
    }
    assert!(scene.due().await.is_empty());
}

async fn a_list_has_no_gaps_and_no_version_twice(database: Database) {
    let scene = Scene::new(database).await;
    let (one, two) = (company("1"), company("2"));
    scene.pull(&one, &[("a", &at(1))]).await;
    scene.pull(&two, &[]).await;
    scene.pull(&two, &[("b", &new(2)), ("c", &new(3))]).await;
    let list_all = async || {
        while let Some(lease) = scene.lease().await {
            let attempts = lease
                .deliveries
                .iter()
                .map(|delivery| scene.attempt(delivery, DeliveryOutcome::Listed))
                .collect();
            scene.end(lease, attempts).await;
        }
    };
    let listed = async |after: i64| {
        let listed = scene.store.listed(name(), after, 100, 1 << 20).await;
        listed
            .expect("readable")
            .into_iter()
            .map(|listed| (listed.number, listed.delivery.document_id))
            .collect::<Vec<_>>()
    };
    list_all().await;
    assert_eq!(listed(0).await, [(1, "b".to_owned()), (2, "c".to_owned())]);
    // History that is started later follows, whatever their sequence numbers.
    scene.start(StartFrom::All).await;
    list_all().await;
    assert_eq!(listed(2).await, [(3, "a".to_owned())]);
    // So does a version that is retried.
    scene
        .change(DestinationChange::Retry(DeliverySelection::One(2)))
        .await;
    list_all().await;
    assert_eq!(listed(3).await, [(4, "b".to_owned())]);
    let limited = scene.store.listed(name(), 0, 100, 1).await;
    assert_eq!(limited.expect("readable").len(), 1);
}

async fn a_program_may_report_an_outcome_later(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1))]).await;
    let report = async |outcome: LateOutcome| {
        let now = scene.clock.now();
        let recorded = scene.store.record_outcome(name(), 1, outcome, now);
        recorded.await.expect("the store answers")
    };
    assert!(!report(LateOutcome::Delivered).await, "it was never listed");
    let lease = scene.lease().await.expect("a lease");
    scene.end_with(lease, DeliveryOutcome::Listed).await;
    let rejected = LateOutcome::Rejected {
        message: "no".to_owned(),
        import_error: NewImportError {
            company: None,
            message: "no".to_owned(),
        },
    };
    for _ in 0..2 {
        assert!(report(rejected.clone()).await);
    }
    assert_eq!(scene.destination().await.rejected, 1);
    // Without a company the import error can't be sent, and says so.
    let errors = scene.import_errors().await;
    assert_eq!(errors[0].state, ImportErrorState::Refused);
    assert!(errors[0].last_error.is_some());
    assert!(report(LateOutcome::Delivered).await);
    let destination = scene.destination().await;
    assert_eq!((destination.delivered, destination.rejected_now), (1, 0));
}

async fn a_destinations_note_is_passed_to_the_next_version(database: Database) {
    let scene = Scene::new(database).await;
    let feed = company("1");
    scene.pull(&feed, &[]).await;
    scene.pull(&feed, &[("a", &new(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    assert_eq!(lease.deliveries[0].earlier_note, None);
    let note = Some("1/a.json".to_owned());
    scene
        .end_with(lease, DeliveryOutcome::Delivered { note })
        .await;
    scene.pull(&feed, &[("a", &new(2)), ("b", &new(2))]).await;
    let lease = scene.lease().await.expect("a lease");
    let notes: Vec<Option<&str>> = lease
        .deliveries
        .iter()
        .map(|delivery| delivery.earlier_note.as_deref())
        .collect();
    assert_eq!(notes, [Some("1/a.json"), None]);
}

async fn retention_removes_bodies_once_all_destinations_are_done(database: Database) {
    let scene = Scene::new(database).await;
    let feed = company("1");
    let version = at(1);
    let ids = ["delivered", "rejected", "held"].map(|id| (id, &*version));
    scene.pull(&feed, &ids[..2]).await;
    scene.start(StartFrom::All).await;
    scene.pull(&company("2"), &ids[2..]).await;
    let lease = scene.lease().await.expect("a lease");
    let attempts = vec![
        scene.attempt(&lease.deliveries[0], DELIVERED),
        scene.attempt(&lease.deliveries[1], rejected("no")),
    ];
    scene.end(lease, attempts).await;
    assert!(scene.due().await.is_empty());
    let retain = async |before: Timestamp, destinations: &[DestinationName]| {
        let retention = Retention {
            documents_before: before,
            destinations: destinations.to_vec(),
            ..retention()
        };
        let removed = scene.store.retain(retention).await.expect("retained");
        removed.document_bodies
    };
    let now = scene.clock.now();
    assert_eq!(retain(now, &[name()]).await, 0, "it was delivered just now");
    let later = scene.clock.now().after(HOUR);
    assert_eq!(retain(later, &[name()]).await, 1);
    assert_eq!(retain(later, &[name()]).await, 0);
    let rows = scene.store.documents(DocumentFilter {
        limit: 10,
        ..DocumentFilter::default()
    });
    let kept: Vec<String> = rows
        .await
        .expect("readable")
        .into_iter()
        .filter(|row| row.body.is_some())
        .map(|row| row.document_id)
        .collect();
    assert_eq!(kept, ["rejected", "held"]);
    // A version without its body can't be retried; a rejected one can.
    assert_eq!(
        scene
            .change(DestinationChange::Retry(DeliverySelection::One(1)))
            .await,
        0
    );
    assert_eq!(
        scene
            .change(DestinationChange::Retry(DeliverySelection::One(2)))
            .await,
        1
    );

    // Bodies are kept for every destination in the settings, and for no other.
    scene.clock.advance(Duration::from_secs(1));
    scene.deliver_all().await;
    let other = DestinationName::parse("behind").expect("a name");
    scene
        .store
        .register_destinations(
            vec![(other.clone(), scene.filter.clone())],
            scene.clock.now(),
        )
        .await
        .expect("known");
    assert_eq!(retain(later, &[name(), other]).await, 0, "held there");
    assert_eq!(retain(later, &[name()]).await, 1, "`rejected`, retried");
}

async fn retention_passes_bodies_that_a_destination_needs(database: Database) {
    let scene = Scene::new(database).await;
    let version = at(1);
    let ids: Vec<String> = (0..180).map(|n| format!("d{n}")).collect();
    let ids: Vec<(&str, &str)> = ids.iter().map(|id| (&**id, &*version)).collect();
    let (needed, others) = ids.split_at(150);
    scene.pull(&company("1"), needed).await;
    scene.start(StartFrom::All).await;
    assert_eq!(scene.deliver_all().await.len(), 150);
    scene.clock.advance(Duration::from_secs(1));
    scene.pull(&company("2"), others).await;
    scene.start(StartFrom::All).await;
    assert_eq!(scene.deliver_all().await.len(), 30);

    let behind = DestinationName::parse("behind").expect("a name");
    let filter = DestinationFilter {
        companies: vec![company("1").company],
        ..scene.filter.clone()
    };
    let (store, now) = (&scene.store, scene.clock.now());
    let known = store.register_destinations(vec![(behind.clone(), filter.clone())], now);
    known.await.expect("known");
    let plan = LanePlan {
        filter,
        deliver_history: true,
        lookback: HOUR,
    };
    let made = store.make_lanes(behind.clone(), plan, now).await;
    assert_eq!(made.ok(), Some(true));
    let step = async |destinations: &[DestinationName]| {
        let retention = Retention {
            documents_before: now.after(HOUR),
            destinations: destinations.to_vec(),
            ..retention()
        };
        let removed = store.retain(retention).await.expect("retained");
        (removed.document_bodies, removed.goes_on, removed.more)
    };
    let mut steps = Vec::new();
    for _ in 0..4 {
        steps.push(step(&[name(), behind.clone()]).await);
    }
    // Each looks at a hundred; after one that reaches the last delivery the next begins with the first.
    let passed = (0, true, false);
    assert_eq!(
        steps,
        [passed, (30, false, false), passed, (0, false, false)]
    );
    // Nobody needs them any more.
    assert_eq!(step(&[name()]).await, (100, true, true));
    assert_eq!(step(&[name()]).await, (50, false, false));
}
