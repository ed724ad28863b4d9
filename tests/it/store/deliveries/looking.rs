//! Documents as people look at them, and what they decide about one of them.

use ivesk_webhook::store::{PlaceRow, SiblingRow};

use super::*;

on_both_stores! {
    a_version_has_a_state_at_each_destination,
    one_held_version_is_delivered_and_held_no_longer,
    versions_of_one_document_know_each_other,
    the_accountant_is_told_on_a_persons_word,
}

impl Scene {
    async fn states_of(&self, sequences: &[i64]) -> Vec<(i64, DeliveryState)> {
        let places = self.store.places(sequences.to_vec()).await;
        let state = |place: PlaceRow| (place.sequence, place.state);
        places.expect("readable").into_iter().map(state).collect()
    }

    async fn versions_in(&self, state: DeliveryState, code: Option<&str>) -> Vec<i64> {
        let code = code.map(|code| Company::parse(code).expect("a code"));
        let found = self
            .store
            .documents_in_state(name(), state, code, i64::MAX, 10);
        let found = found.await.expect("readable").into_iter();
        found.map(|row| row.sequence).collect()
    }

    async fn deliver_now(&self, sequence: i64) -> bool {
        let now = self.clock.now();
        let delivered = self.store.deliver_version(name(), sequence, now).await;
        delivered.expect("stored")
    }
}

async fn a_version_has_a_state_at_each_destination(database: Database) {
    use DeliveryState::{Delivered, Held, Pending, Rejected, Superseded};
    let scene = Scene::new(database).await;
    let versions = [("a", &*at(1)), ("b", &new(5)), ("c", &new(6))];
    scene.pull(&company("1"), &versions).await;
    scene.make_lanes().await;
    let states = scene.states_of(&[1, 2, 3]).await;
    assert_eq!(states, [(1, Held), (2, Pending), (3, Pending)]);
    let lease = scene.lease().await.expect("a lease");
    let attempts = vec![
        scene.attempt(&lease.deliveries[0], DELIVERED),
        scene.attempt(&lease.deliveries[1], rejected("planted")),
    ];
    scene.end(lease, attempts).await;
    let states = scene.states_of(&[1, 2, 3]).await;
    assert_eq!(states, [(1, Held), (2, Delivered), (3, Rejected)]);
    assert_eq!(scene.versions_in(Rejected, None).await, [3]);
    assert_eq!(scene.versions_in(Rejected, Some("1")).await, [3]);
    assert_eq!(scene.versions_in(Rejected, Some("2")).await, [0; 0]);
    // A newer version: the rejected one is of the past.
    scene.pull(&company("1"), &[("c", &new(7))]).await;
    let states = scene.states_of(&[3, 4]).await;
    assert_eq!(states, [(3, Superseded), (4, Pending)]);
    assert_eq!(scene.versions_in(Rejected, None).await, [0; 0]);
    assert!(
        scene
            .store
            .newest_quarantined(None, 10)
            .await
            .expect("readable")
            .is_empty()
    );
}

async fn one_held_version_is_delivered_and_held_no_longer(database: Database) {
    let scene = Scene::new(database).await;
    let versions = [("a", &*at(1)), ("b", &at(2)), ("c", &new(5))];
    scene.pull(&company("1"), &versions).await;
    scene.make_lanes().await;
    assert_eq!(scene.deliver_all().await, [format!("c@{}", new(5))]);
    assert_eq!(scene.destination().await.held, 2);
    assert!(scene.deliver_now(1).await);
    // Pressed twice.
    assert!(scene.deliver_now(1).await);
    assert_eq!(scene.destination().await.held, 1);
    assert_eq!(scene.lane(&company("1")).await.held, 1);
    assert_eq!(scene.deliver_all().await, [format!("a@{}", at(1))]);
    assert!(!scene.deliver_now(99).await);
    scene.start(StartFrom::All).await;
    assert_eq!(scene.deliver_all().await, [format!("b@{}", at(2))]);
    assert_eq!(scene.destination().await.held, 0);
}

async fn versions_of_one_document_know_each_other(database: Database) {
    let scene = Scene::new(database).await;
    scene
        .pull(&company("1"), &[("a", &new(5)), ("b", &new(5))])
        .await;
    let digitized = Feed::digitized(account());
    scene.pull(&digitized, &[("a", &new(4))]).await;
    let siblings = scene.store.siblings(vec![1, 2, 3]).await;
    let pairs: Vec<(i64, i64, Queue)> = siblings
        .expect("readable")
        .into_iter()
        .map(|row: SiblingRow| (row.of, row.sequence, row.queue))
        .collect();
    assert_eq!(pairs.len(), 2, "{pairs:?}");
    assert!(pairs.contains(&(1, 3, Queue::Digitized)), "{pairs:?}");
    assert!(pairs.contains(&(3, 1, Queue::Exported)), "{pairs:?}");
    let newest = scene
        .store
        .newest_documents(vec!["1".to_owned(), "2".to_owned()])
        .await;
    let newest = newest.expect("readable");
    assert_eq!(newest.len(), 1);
    assert_eq!(newest[0].company.as_str(), "1");
    assert!(newest[0].body.is_some());
    let now = scene.clock.now();
    scene.store.request_link(1, now).await.expect("stored");
    assert!(
        scene
            .store
            .listed_link(1)
            .await
            .expect("readable")
            .is_none()
    );
    // The pull that follows brings it.
    let link = [("a", &*new(5), "https://files.example/planted")];
    let kind = TriggerKind::Reconciliation;
    scene
        .pull_as(&company("1"), kind, &[("a", &new(5))], &link)
        .await;
    let listed = scene
        .store
        .listed_link(1)
        .await
        .expect("readable")
        .expect("a link");
    assert!(listed.url.expose_secret().ends_with("planted"));
}

async fn the_accountant_is_told_on_a_persons_word(database: Database) {
    let scene = Scene::new(database).await;
    scene.pull(&company("1"), &[("a", &new(5))]).await;
    let report = async |sequence: i64, message: &str| {
        let import_error = NewImportError {
            company: Some(Company::parse("1").expect("a code")),
            message: message.to_owned(),
        };
        let now = scene.clock.now();
        let reported = scene
            .store
            .report_document(sequence, import_error, now)
            .await;
        reported.expect("stored")
    };
    assert!(report(1, "no VAT code").await);
    assert!(report(1, "no VAT code").await);
    assert!(!report(99, "no VAT code").await);
    let rows = scene.import_errors().await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].state, ImportErrorState::Pending);
    assert_eq!(rows[0].message, "no VAT code");
}
