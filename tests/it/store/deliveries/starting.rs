//! Which versions a destination gets: history, starts, filters.

use super::*;

on_both_stores! {
    a_first_pull_is_held_until_a_person_starts_the_feed,
    a_feed_with_an_empty_first_pull_starts_automatically,
    a_destination_added_later_gets_no_history,
    from_now_skips_the_first_pull_even_while_it_runs,
    exports_during_a_first_pull_follow_a_start_from_now,
    since_delivers_versions_from_that_moment,
    a_started_feed_can_start_earlier_without_doubles,
    a_destination_filters_by_queue_and_company,
    newly_matching_companies_bring_no_history_automatically,
    a_feed_filtered_out_is_held_when_it_matches_again,
}

async fn a_first_pull_is_held_until_a_person_starts_the_feed(database: Database) {
    let scene = Scene::new(database).await;
    let feed = company("1");
    scene.pull(&feed, &[("a", &at(1)), ("b", &at(2))]).await;
    scene.pull(&feed, &[("c", &at(3))]).await;
    assert!(scene.due().await.is_empty());
    assert_eq!(
        scene.held().await,
        [("default/exported/1".to_owned(), 3, true)]
    );

    assert_eq!(scene.start(StartFrom::All).await, 1);
    assert_eq!(
        scene.deliver_all().await,
        [
            format!("a@{}", at(1)),
            format!("b@{}", at(2)),
            format!("c@{}", at(3))
        ]
    );
    assert!(scene.held().await.is_empty());
}

async fn a_feed_with_an_empty_first_pull_starts_automatically(database: Database) {
    let scene = Scene::new(database).await;
    let feed = company("1");
    scene.pull(&feed, &[]).await;
    scene.pull(&feed, &[("a", &at(1))]).await;
    assert_eq!(scene.deliver_all().await, [format!("a@{}", at(1))]);
}

async fn a_destination_added_later_gets_no_history(database: Database) {
    let scene = Scene::without_destination(database).await;
    let feed = company("1");
    scene.pull(&feed, &[]).await;
    scene.pull(&feed, &[("a", &at(1))]).await;
    scene.register_destination().await;
    scene.pull(&feed, &[("b", &at(2))]).await;
    assert!(scene.due().await.is_empty());
    assert_eq!(
        scene.held().await,
        [("default/exported/1".to_owned(), 2, true)]
    );
}

async fn from_now_skips_the_first_pull_even_while_it_runs(database: Database) {
    let scene = Scene::new(database).await;
    let (pulled, running) = (company("1"), company("2"));
    scene.pull(&pulled, &[("a", &at(1))]).await;
    let triggered = scene.store.trigger(vec![Trigger {
        feed: running.clone(),
        kind: TriggerKind::Reconciliation,
        due_at: scene.clock.now(),
        from: None,
    }]);
    triggered.await.expect("the feed is triggered");
    assert_eq!(scene.start(StartFrom::Now).await, 2);
    scene.pull(&running, &[("old", &at(1))]).await;
    scene.pull(&running, &[("new", &at(4))]).await;
    scene.pull(&pulled, &[("b", &at(5))]).await;
    assert_eq!(
        scene.deliver_all().await,
        [format!("new@{}", at(4)), format!("b@{}", at(5))]
    );
}

async fn exports_during_a_first_pull_follow_a_start_from_now(database: Database) {
    let scene = Scene::new(database).await;
    let feed = company("1");
    scene
        .store
        .register_feeds(vec![feed.clone()], scene.clock.now())
        .await
        .expect("the feed is registered");
    scene.start(StartFrom::Now).await;
    let later = scene.clock.now().after(Duration::from_secs(300));
    let later = version_key(&later.to_string());
    scene
        .pull_as(
            &feed,
            TriggerKind::Reconciliation,
            &[("old", &at(1)), ("new", &later)],
            &[],
        )
        .await;
    assert_eq!(scene.deliver_all().await, [format!("new@{later}")]);
}

async fn since_delivers_versions_from_that_moment(database: Database) {
    let scene = Scene::new(database).await;
    let feed = company("1");
    let documents = [("a", at(1)), ("b", at(2)), ("c", at(3))];
    let documents: Vec<(&str, &str)> = documents
        .iter()
        .map(|(id, version)| (*id, &**version))
        .collect();
    scene.pull(&feed, &documents).await;
    let since = Timestamp::parse(&format!("{}Z", at(2))).expect("a moment");
    scene.start(StartFrom::Since(since)).await;
    scene.pull(&feed, &[("d", &at(4))]).await;
    assert_eq!(
        scene.deliver_all().await,
        [
            format!("b@{}", at(2)),
            format!("c@{}", at(3)),
            format!("d@{}", at(4))
        ]
    );
}

async fn a_started_feed_can_start_earlier_without_doubles(database: Database) {
    let scene = Scene::new(database).await;
    let feed = company("1");
    scene.pull(&feed, &[("a", &at(1)), ("b", &at(2))]).await;
    scene.start(StartFrom::Now).await;
    scene.pull(&feed, &[("c", &at(3))]).await;
    assert_eq!(scene.deliver_all().await, [format!("c@{}", at(3))]);
    let since = Timestamp::parse(&format!("{}Z", at(2))).expect("a moment");
    scene.start(StartFrom::Since(since)).await;
    assert_eq!(scene.deliver_all().await, [format!("b@{}", at(2))]);
    scene.start(StartFrom::All).await;
    assert_eq!(scene.deliver_all().await, [format!("a@{}", at(1))]);
}

async fn a_destination_filters_by_queue_and_company(database: Database) {
    let mut scene = Scene::new(database).await;
    scene.filter.companies = vec![Company::parse("1").expect("a code")];
    let digitized = Feed::digitized(account());
    for feed in [&company("1"), &company("2"), &digitized] {
        scene.pull(feed, &[("a", &at(1))]).await;
    }
    assert_eq!(
        scene.held().await,
        [("default/exported/1".to_owned(), 1, true)]
    );
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
    scene.pull(&other, &[]).await;
    scene.pull(&other, &[("a", &at(1))]).await;
    assert!(scene.due().await.is_empty());
    scene
        .filter
        .companies
        .push(Company::parse("2").expect("a code"));
    scene.register_destination().await;
    assert!(scene.due().await.is_empty());
    assert_eq!(
        scene.held().await,
        [("default/exported/2".to_owned(), 1, true)]
    );
}

async fn a_feed_filtered_out_is_held_when_it_matches_again(database: Database) {
    let mut scene = Scene::new(database).await;
    let (one, two) = (company("1"), company("2"));
    for feed in [&one, &two] {
        scene.pull(feed, &[]).await;
    }
    scene.pull(&two, &[("a", &at(1))]).await;
    assert_eq!(scene.deliver_all().await, [format!("a@{}", at(1))]);
    scene.filter.companies = vec![Company::parse("1").expect("a code")];
    scene.register_destination().await;
    scene.pull(&two, &[("missed", &at(2))]).await;
    scene.pull(&one, &[("b", &at(2))]).await;
    assert_eq!(scene.deliver_all().await, [format!("b@{}", at(2))]);
    scene.filter.companies = Vec::new();
    scene.register_destination().await;
    assert!(scene.due().await.is_empty());
    assert_eq!(
        scene.held().await,
        [("default/exported/2".to_owned(), 2, true)]
    );
    scene.start(StartFrom::All).await;
    assert_eq!(scene.deliver_all().await, [format!("missed@{}", at(2))]);
}
