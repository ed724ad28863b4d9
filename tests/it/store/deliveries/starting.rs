//! Which versions a destination gets: history, starts, filters.

use ivesk_webhook::domain::Cursor;
use ivesk_webhook::store::{AcceptedMessage, Triggers};

use super::*;
use crate::store::messages::Messages;

on_both_stores! {
    history_is_held_by_time_until_a_person_starts_it,
    a_worker_is_told_that_what_it_read_is_history,
    an_incomplete_first_pull_lets_no_history_go_out,
    the_first_export_of_a_new_company_is_delivered,
    a_clock_that_is_ahead_changes_nothing,
    a_clock_that_is_behind_changes_nothing,
    a_lane_begins_no_later_than_now,
    a_lane_is_held_until_the_vendors_clock_is_known,
    a_feed_started_at_a_cursor_begins_there,
    a_version_without_a_moment_is_new_after_the_first_pull,
    a_destination_added_later_gets_no_history,
    the_beginning_of_a_lane_can_be_moved,
    a_start_says_first_what_it_would_deliver,
    a_started_feed_can_start_earlier_without_doubles,
    a_mistaken_start_can_be_stopped,
    history_stopped_before_the_clock_is_known_is_counted_once,
    history_that_is_replaced_erased_or_skipped_is_not_held,
    what_a_stop_holds_again_is_counted,
    what_was_in_flight_at_a_stop_is_not_held,
    a_lane_that_delivers_its_history_holds_none,
    history_of_a_removed_lane_is_not_counted,
    deliver_starts_the_history_of_every_lane,
    a_destination_filters_by_queue_and_company,
    newly_matching_companies_bring_no_history_automatically,
    a_feed_filtered_out_is_held_when_it_matches_again,
}

async fn history_is_held_by_time_until_a_person_starts_it(database: Database) {
    let scene = Scene::new(database).await;
    let feed = company("1");
    scene.pull(&feed, &[("a", &at(1)), ("b", &new(2))]).await;
    scene.pull(&feed, &[("late", &at(3)), ("c", &new(3))]).await;
    assert_eq!(
        scene.deliver_all().await,
        [format!("b@{}", new(2)), format!("c@{}", new(3))],
        "whichever pull finds it"
    );
    assert_eq!(scene.destination().await.held, 2);
    assert_eq!(scene.start(StartFrom::All).await, 1);
    assert_eq!(
        scene.deliver_all().await,
        [format!("a@{}", at(1)), format!("late@{}", at(3))]
    );
    assert_eq!(scene.destination().await.held, 0);
}

async fn a_worker_is_told_that_what_it_read_is_history(database: Database) {
    let scene = Scene::new(database).await;
    let is_held = async || {
        let leased = scene.store.lease_deliveries(scene.request()).await;
        match leased.expect("leasing works") {
            DeliveryLeased::Nothing(nothing) => nothing.held,
            other => panic!("{other:?}"),
        }
    };
    scene.pull(&company("1"), &[("a", &at(1))]).await;
    scene.make_lanes().await;
    scene.pull(&company("1"), &[("b", &at(2))]).await;
    assert!(is_held().await, "history came");
    assert!(!is_held().await, "nothing came");
    scene
        .pull(&company("1"), &[("c", &at(3)), ("d", &new(5))])
        .await;
    let due = scene.due().await;
    assert_eq!(due, [format!("d@{}", new(5))], "what is new does not wait");
}

async fn an_incomplete_first_pull_lets_no_history_go_out(database: Database) {
    let scene = Scene::new(database).await;
    let feed = company("1");
    // The key sees nothing yet, and then only a part.
    scene.pull(&feed, &[]).await;
    assert!(scene.due().await.is_empty());
    scene.pull(&feed, &[("a", &at(1))]).await;
    scene.pull(&feed, &[("b", &at(2)), ("c", &new(1))]).await;
    assert_eq!(scene.deliver_all().await, [format!("c@{}", new(1))]);
    assert_eq!(scene.destination().await.held, 2);
}

impl Scene {
    /// A notification that was signed at a moment makes a feed known.
    async fn announce(&self, feed: &Feed, signed_at: Timestamp) {
        let message = Messages::at(signed_at).signed_at(signed_at).await;
        let accepted = AcceptedMessage {
            received_at: self.clock.now(),
            triggers: Triggers::Feed(feed.clone()),
            ..message
        };
        let stored = self.store.accept(accepted).await;
        stored.expect("the message is stored");
    }

    /// Stores a page whose answer was dated by the vendor's clock, `offset` ahead of ours.
    async fn pull_dated(&mut self, feed: &Feed, documents: &[(&str, &str)], offset: i64) {
        self.offset = Some(offset);
        self.pull(feed, documents).await;
    }
}

fn key(moment: Timestamp) -> String {
    ivesk_webhook::domain::version_key(&moment.to_string())
}

async fn the_first_export_of_a_new_company_is_delivered(database: Database) {
    let scene = Scene::new(database).await;
    scene.pull(&company("1"), &[]).await;
    scene.clock.advance(40 * HOUR);
    let exported_at = scene.clock.now();
    scene.clock.advance(Duration::from_secs(2));
    scene.announce(&company("2"), scene.clock.now()).await;
    let old = key(exported_at.before(30 * HOUR));
    let export = key(exported_at);
    let documents = [("old", &*old), ("first", &*export)];
    scene.pull(&company("2"), &documents).await;
    assert_eq!(scene.deliver_all().await, [format!("first@{export}")]);
    // Named by a person, only what comes from then on.
    scene.pull(&company("3"), &documents).await;
    assert!(scene.due().await.is_empty());
}

async fn a_clock_that_is_ahead_changes_nothing(database: Database) {
    deliver_first_export(Scene::new(database).await, 48 * 3_600_000).await;
}

async fn a_clock_that_is_behind_changes_nothing(database: Database) {
    deliver_first_export(Scene::new(database).await, -48 * 3_600_000).await;
}

/// Delivers a new company's first export, and none before it, while our clock is ahead.
async fn deliver_first_export(mut scene: Scene, ahead: i64) {
    let vendors = |ours: Timestamp| Timestamp::from_millis(ours.as_millis() - ahead);
    let feed = company("2");
    scene.pull_dated(&company("1"), &[], -ahead).await;
    scene.clock.advance(40 * HOUR);
    let now = vendors(scene.clock.now());
    let (old, export) = (key(now.before(30 * HOUR)), key(now.before(HOUR)));
    scene.announce(&feed, now).await;
    let documents = [("old", &*old), ("first", &*export)];
    scene.pull_dated(&feed, &documents, -ahead).await;
    assert_eq!(scene.deliver_all().await, [format!("first@{export}")]);
    let known = scene.lane(&company("1")).await.begins_at;
    assert_eq!(known, Some(key(vendors(START))), "{ahead}");
}

/// A clock that was ahead when the destination became known holds nothing that is new.
async fn a_lane_begins_no_later_than_now(database: Database) {
    let (mut scene, correction) = Scene::with_correction(database).await;
    correction.set(48 * 3_600_000);
    scene.register_destination().await;
    let feed = company("1");
    correction.set(0);
    scene.pull_dated(&feed, &[], 0).await;
    assert!(scene.due().await.is_empty());
    let now = key(scene.clock.now());
    assert_eq!(scene.lane(&feed).await.begins_at, Some(now));
    scene.clock.advance(HOUR);
    let new = key(scene.clock.now());
    scene.pull_dated(&feed, &[("a", &new)], 0).await;
    assert_eq!(scene.deliver_all().await, [format!("a@{new}")]);
}

async fn a_lane_is_held_until_the_vendors_clock_is_known(database: Database) {
    let mut scene = Scene::new(database).await;
    let feed = company("1");
    scene.offset = None;
    scene.pull(&feed, &[("a", &new(1))]).await;
    assert!(scene.due().await.is_empty());
    assert_eq!(scene.lane(&feed).await.begins_at, None);
    assert_eq!(scene.destination().await.unknown_lanes, 1);
    scene.pull_dated(&feed, &[], 0).await;
    assert_eq!(scene.deliver_all().await, [format!("a@{}", new(1))]);
    assert_eq!(scene.lane(&feed).await.begins_at, Some(key(START)));
    assert_eq!(scene.destination().await.unknown_lanes, 0);
}

async fn a_feed_started_at_a_cursor_begins_there(database: Database) {
    let scene = Scene::new(database).await;
    let (known, fresh) = (company("1"), company("2"));
    scene.pull(&known, &[]).await;
    assert!(scene.due().await.is_empty());
    for (feed, id) in [(&known, "b"), (&fresh, "c")] {
        let cursor = Cursor::new(new(5));
        let started = scene
            .store
            .start_feed_at(feed.clone(), cursor, scene.clock.now());
        started.await.expect("it starts there");
        let documents = [("a", &*new(4)), (id, &*new(5))];
        let reconciled = TriggerKind::Reconciliation;
        scene.pull_as(feed, reconciled, &documents, &[]).await;
        assert_eq!(scene.deliver_all().await, [format!("{id}@{}", new(5))]);
        assert_eq!(scene.lane(feed).await.begins_at, Some(new(5)));
    }
}

async fn a_version_without_a_moment_is_new_after_the_first_pull(database: Database) {
    let scene = Scene::new(database).await;
    let feed = company("1");
    scene.pull(&feed, &[("a", "third")]).await;
    scene.pull(&feed, &[("b", "fourth")]).await;
    assert_eq!(scene.deliver_all().await, ["b@fourth"]);
    scene.start(since(&at(1))).await;
    assert!(scene.due().await.is_empty());
    scene.start(StartFrom::All).await;
    assert_eq!(scene.deliver_all().await, ["a@third"]);
}

async fn a_destination_added_later_gets_no_history(database: Database) {
    let scene = Scene::without_destination(database).await;
    let feed = company("1");
    scene.pull(&feed, &[]).await;
    scene.pull(&feed, &[("a", &key(START))]).await;
    scene.clock.advance(HOUR);
    scene.register_destination().await;
    scene.pull(&feed, &[("b", &new(2))]).await;
    assert_eq!(scene.deliver_all().await, [format!("b@{}", new(2))]);
    assert_eq!(scene.lane(&feed).await.held, 1);
}

async fn the_beginning_of_a_lane_can_be_moved(database: Database) {
    let scene = Scene::new(database).await;
    let feed = company("1");
    let documents = [("a", at(1)), ("b", at(2)), ("c", new(3)), ("d", new(4))];
    let documents: Vec<(&str, &str)> = documents.iter().map(|(id, v)| (*id, &**v)).collect();
    scene.pull(&feed, &documents).await;
    // A later one holds what was to be delivered.
    scene.start(since(&new(4))).await;
    assert_eq!(scene.lane(&feed).await.begins_at, Some(new(4)));
    assert_eq!(scene.deliver_all().await, [format!("d@{}", new(4))]);
    scene.start(since(&at(2))).await;
    assert_eq!(scene.lane(&feed).await.history_from, Some(at(2)));
    assert_eq!(
        scene.deliver_all().await,
        [format!("b@{}", at(2)), format!("c@{}", new(3))]
    );
}

async fn a_start_says_first_what_it_would_deliver(database: Database) {
    let scene = Scene::new(database).await;
    let (one, two) = (company("1"), company("2"));
    let documents = [("a", at(1)), ("b", at(2)), ("c", at(3)), ("d", new(1))];
    let documents: Vec<(&str, &str)> = documents.iter().map(|(id, v)| (*id, &**v)).collect();
    scene.pull(&one, &documents).await;
    scene.pull(&two, &[("e", &at(1))]).await;
    scene.pull(&one, &[("c", &at(4))]).await;
    scene.deliver_all().await;
    let preview = async |lanes: LaneSelection, from: StartFrom| {
        let preview = scene.store.preview_start(name(), lanes, from).await;
        let preview = preview.expect("readable").into_iter();
        preview
            .map(|one| {
                (
                    one.feed.company.to_string(),
                    one.documents,
                    one.oldest,
                    one.newest,
                )
            })
            .collect::<Vec<_>>()
    };
    let all = LaneSelection::default();
    let of = |company: &str, documents, oldest, newest| {
        (
            company.to_owned(),
            documents,
            Some(at(oldest)),
            Some(at(newest)),
        )
    };
    assert_eq!(
        preview(all.clone(), StartFrom::All).await,
        [of("1", 3, 1, 4), of("2", 1, 1, 1)]
    );
    let one = LaneSelection {
        company: Company::parse("1").ok(),
        ..LaneSelection::default()
    };
    assert_eq!(preview(one, since(&at(2))).await, [of("1", 2, 2, 4)]);
    scene.start(StartFrom::All).await;
    assert_eq!(scene.deliver_all().await.len(), 4, "as it said");
    assert!(preview(all, StartFrom::All).await.is_empty());
}

async fn a_started_feed_can_start_earlier_without_doubles(database: Database) {
    let scene = Scene::new(database).await;
    let feed = company("1");
    let documents = [("a", at(1)), ("b", at(2)), ("c", new(3))];
    let documents: Vec<(&str, &str)> = documents.iter().map(|(id, v)| (*id, &**v)).collect();
    scene.pull(&feed, &documents).await;
    assert_eq!(scene.deliver_all().await, [format!("c@{}", new(3))]);
    scene.start(since(&at(2))).await;
    assert_eq!(scene.deliver_all().await, [format!("b@{}", at(2))]);
    scene.start(StartFrom::All).await;
    assert_eq!(scene.deliver_all().await, [format!("a@{}", at(1))]);
}

async fn a_mistaken_start_can_be_stopped(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1)), ("b", &at(2)), ("c", &new(1))]).await;
    let lease = scene.lease().await.expect("a lease");
    let until = scene.clock.now().after(HOUR);
    scene.fail(lease, "HTTP 500", Some(until)).await;
    let lanes = LaneSelection::default();
    let stop = DestinationChange::Stop { lanes };
    assert_eq!(scene.change(stop.clone()).await, 1);
    assert_eq!(scene.change(stop).await, 0);
    scene.change(DestinationChange::Resume).await;
    assert_eq!(scene.deliver_all().await, [format!("c@{}", new(1))]);
    assert_eq!(scene.destination().await.held, 2);
    scene.start(StartFrom::All).await;
    assert_eq!(
        scene.deliver_all().await,
        [format!("a@{}", at(1)), format!("b@{}", at(2))]
    );
}

async fn history_stopped_before_the_clock_is_known_is_counted_once(database: Database) {
    let mut scene = Scene::new(database).await;
    let feed = company("1");
    scene.offset = None;
    let documents = [("a", at(1)), ("b", at(2)), ("c", at(3))];
    let documents: Vec<(&str, &str)> = documents.iter().map(|(id, v)| (*id, &**v)).collect();
    scene.pull(&feed, &documents).await;
    scene.start(since(&at(3))).await;
    assert_eq!(scene.lane(&feed).await.begins_at, None);
    assert_eq!(scene.deliver_all().await, [format!("c@{}", at(3))]);
    assert_eq!(scene.destination().await.held, 2);
    let lanes = LaneSelection::default();
    assert_eq!(scene.change(DestinationChange::Stop { lanes }).await, 1);
    scene.pull_dated(&feed, &[], 0).await;
    assert!(scene.deliver_all().await.is_empty());
    assert_eq!(scene.lane(&feed).await.held, 2);
    assert_eq!(scene.destination().await.held, 2);
}

impl Scene {
    /// Returns the number of versions that the lane of company 1, and that the destination holds.
    async fn held(&self) -> (u64, u64) {
        let lane = self.lane(&company("1")).await;
        (lane.held, self.destination().await.held)
    }
}

async fn history_that_is_replaced_erased_or_skipped_is_not_held(database: Database) {
    let scene = Scene::new(database).await;
    let (feed, day) = (company("1"), at(1));
    let documents = ["a", "b", "c", "d", "e"].map(|id| (id, day.as_str()));
    scene.pull(&feed, &documents).await;
    assert!(scene.deliver_all().await.is_empty());
    assert_eq!(scene.held().await, (5, 5));
    scene.pull(&feed, &[("a", &at(2))]).await;
    assert_eq!(scene.held().await, (4, 4), "the newer one is still to pass");
    assert!(scene.deliver_all().await.is_empty());
    assert_eq!(scene.held().await, (5, 5));
    let erased = scene.store.erase_versions(vec![1, 2, 3], START).await;
    assert_eq!(erased.ok(), Some(3), "of which one was replaced");
    assert_eq!(scene.held().await, (3, 3));
    let skip = DestinationChange::Skip(DeliverySelection::One(4));
    for _ in 0..2 {
        scene.change(skip.clone()).await;
        assert_eq!(scene.held().await, (2, 2));
    }
    scene.start(StartFrom::All).await;
    assert_eq!(
        scene.deliver_all().await,
        [format!("e@{day}"), format!("a@{}", at(2))]
    );
    assert_eq!(scene.held().await, (0, 0));
}

async fn what_a_stop_holds_again_is_counted(database: Database) {
    let day = at(1);
    let documents = ["a", "b", "c", "d"].map(|id| (id, day.as_str()));
    let scene = Scene::started(database, &documents).await;
    let lease = scene.lease().await.expect("a lease");
    let expired = |delivery| scene.attempt(delivery, DeliveryOutcome::LinkExpired);
    let attempts = lease.deliveries.iter().map(expired).collect();
    scene.end(lease, attempts).await;
    assert!(scene.due().await.is_empty());
    let lanes = LaneSelection::default();
    let stop = DestinationChange::Stop { lanes };
    assert_eq!(scene.change(stop).await, 1);
    assert_eq!(scene.held().await, (4, 4));
    scene.pull(&company("1"), &[("a", &new(1))]).await;
    assert_eq!(scene.held().await, (3, 3), "replaced");
    let retry = DestinationChange::Retry(DeliverySelection::One(2));
    for _ in 0..2 {
        assert_eq!(scene.change(retry.clone()).await, 1);
        assert_eq!(scene.held().await, (2, 2));
    }
    let (state, company) = (DeliveryState::Held, None);
    let rest = DeliverySelection::InState { state, company };
    assert_eq!(scene.change(DestinationChange::Skip(rest)).await, 2);
    assert_eq!(scene.held().await, (0, 0));
}

async fn what_was_in_flight_at_a_stop_is_not_held(database: Database) {
    let scene = Scene::started(database, &[("a", &at(1)), ("b", &at(1)), ("c", &at(1))]).await;
    let lease = scene.lease_with(|request| request.limit = 2).await;
    let lease = lease.expect("a lease");
    let lanes = LaneSelection::default();
    assert_eq!(scene.change(DestinationChange::Stop { lanes }).await, 1);
    let attempts = lease.deliveries.iter();
    let attempts = attempts.map(|delivery| scene.attempt(delivery, DELIVERED));
    let attempts: Vec<Attempt> = attempts.collect();
    let taken = lease.deliveries.iter().map(|one| one.sequence).collect();
    let (store, request) = (&scene.store, scene.request());
    let continued = store.continue_deliveries(lease.clone(), Vec::new(), taken, request);
    let continued = continued.await.expect("the owner may write");
    assert!(continued.deliveries.is_empty());
    scene.end(lease, attempts).await;
    assert_eq!(scene.held().await, (1, 1));
}

async fn a_lane_that_delivers_its_history_holds_none(database: Database) {
    let scene = Scene::new(database).await;
    scene.pull(&company("1"), &[("a", &at(1))]).await;
    assert!(scene.due().await.is_empty());
    assert_eq!(scene.held().await, (1, 1));
    scene.register_destination().await;
    let deliver = |request: &mut DeliveryLeaseRequest| request.lanes.deliver_history = true;
    let lease = scene.lease_with(deliver).await.expect("a lease");
    scene.end_with(lease, DELIVERED).await;
    assert_eq!(scene.held().await, (0, 0));
}

async fn history_of_a_removed_lane_is_not_counted(database: Database) {
    let mut scene = Scene::new(database).await;
    scene.pull(&company("1"), &[("a", &at(1))]).await;
    assert!(scene.due().await.is_empty());
    scene.filter.companies = vec![Company::parse("2").expect("a code")];
    scene.register_destination().await;
    assert_eq!(scene.destination().await.held, 0);
    scene.filter.companies = Vec::new();
    scene.register_destination().await;
    assert!(scene.due().await.is_empty());
    assert_eq!(scene.held().await, (1, 1));
}

async fn deliver_starts_the_history_of_every_lane(database: Database) {
    let mut scene = Scene::new(database).await;
    scene.offset = None;
    scene.pull(&company("1"), &[("a", &at(1))]).await;
    let deliver = |request: &mut DeliveryLeaseRequest| request.lanes.deliver_history = true;
    let lease = scene.lease_with(deliver).await.expect("a lease");
    assert_eq!(names(&lease.deliveries), [format!("a@{}", at(1))]);
    scene.end_with(lease, DELIVERED).await;
    // A person may stop it all the same.
    scene.pull(&company("1"), &[("b", &at(2))]).await;
    let lanes = LaneSelection::default();
    assert_eq!(scene.change(DestinationChange::Stop { lanes }).await, 1);
    assert!(scene.lease_with(deliver).await.is_none());
}

async fn a_destination_filters_by_queue_and_company(database: Database) {
    let mut scene = Scene::without_destination(database).await;
    scene.filter.companies = vec![Company::parse("1").expect("a code")];
    scene.register_destination().await;
    let digitized = Feed::digitized(account());
    for feed in [&company("1"), &company("2"), &digitized] {
        scene.pull(feed, &[("a", &at(1))]).await;
    }
    assert_eq!(scene.start(StartFrom::All).await, 1);
    let lease = scene.lease().await.expect("something to deliver");
    let feeds: Vec<String> = lease
        .deliveries
        .iter()
        .map(|delivery| delivery.feed.to_string())
        .collect();
    assert_eq!(feeds, ["default/exported/1"]);
}

async fn newly_matching_companies_bring_no_history_automatically(database: Database) {
    let mut scene = Scene::without_destination(database).await;
    scene.filter.companies = vec![Company::parse("1").expect("a code")];
    scene.register_destination().await;
    let other = company("2");
    let stored = key(scene.clock.now().after(HOUR));
    scene.pull(&other, &[("a", &stored)]).await;
    assert!(scene.due().await.is_empty());
    scene.clock.advance(2 * HOUR);
    scene
        .filter
        .companies
        .push(Company::parse("2").expect("a code"));
    scene.register_destination().await;
    assert!(scene.due().await.is_empty());
    assert_eq!(scene.lane(&other).await.held, 1);
    scene.pull(&other, &[("b", &new(1))]).await;
    assert_eq!(scene.deliver_all().await, [format!("b@{}", new(1))]);
}

async fn a_feed_filtered_out_is_held_when_it_matches_again(database: Database) {
    let mut scene = Scene::new(database).await;
    let (one, two) = (company("1"), company("2"));
    for feed in [&one, &two] {
        scene.pull(feed, &[]).await;
    }
    scene.pull(&two, &[("a", &new(1))]).await;
    assert_eq!(scene.deliver_all().await, [format!("a@{}", new(1))]);
    scene.filter.companies = vec![Company::parse("1").expect("a code")];
    scene.register_destination().await;
    let missed = key(scene.clock.now().after(HOUR));
    scene.pull(&two, &[("missed", &missed)]).await;
    scene.pull(&one, &[("b", &new(2))]).await;
    assert_eq!(scene.deliver_all().await, [format!("b@{}", new(2))]);
    scene.clock.advance(2 * HOUR);
    scene.filter.companies = Vec::new();
    scene.register_destination().await;
    assert!(scene.due().await.is_empty());
    assert_eq!(scene.lane(&two).await.held, 1);
    scene.start(StartFrom::All).await;
    assert_eq!(scene.deliver_all().await, [format!("missed@{missed}")]);
}
