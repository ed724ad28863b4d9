//! A store that years of use have filled, at a hundredth of the size of `cargo bench --bench scale`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ivesk_webhook::config::{
    Config, DestinationConfig, DestinationKind, Loopback, default_account,
};
use ivesk_webhook::domain::{Clock, Company, DestinationName, Feed, Queue};
use ivesk_webhook::service::{Service, housekeeping};
use ivesk_webhook::store::LeaseRequest;

use super::messages::Messages;
use super::test_store::START;
use crate::support::app::ADMIN_TOKEN;
use crate::support::databases::{Database, Options, on_both_stores};
use crate::support::fill::{DESTINATIONS, Scale, fill};

on_both_stores! {
    nothing_scans_a_store_that_years_of_use_have_filled,
}

async fn nothing_scans_a_store_that_years_of_use_have_filled(database: Database) {
    let scale = Scale::divided(100);
    let filled = fill(&database.url(), scale, START).await;
    filled.expect("it is filled");
    let clock = Clock::manual(START);
    let store = database.open(Options::at(clock.clone())).await;
    let store = store.expect("the filled store opens");
    let statements = database.statements();
    statements.explain_again();

    let folder = tempfile::tempdir().expect("a folder");
    let mut config = Config::for_loopback(Loopback {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        store: folder.path().join("unused.db"),
        api_url: "http://127.0.0.1:9/".parse().expect("a URL"),
        api_key: "planted-api-key".to_owned().into(),
        local_origins: Vec::new(),
        companies: vec![Company::parse("300000001").expect("a code")],
    });
    config.store.url = database.url();
    config.admin.token = Some(ADMIN_TOKEN.to_owned().into());
    for name in DESTINATIONS {
        let name = DestinationName::parse(name).expect("a name");
        let destination = DestinationConfig::of(DestinationKind::List);
        config.destinations.insert(name, destination);
    }
    let service = Service::start_with(config, Arc::clone(&store), clock.clone()).await;
    let service = service.expect("the service starts");

    let middle = scale.documents / 2;
    let (id, company) = (Scale::document_id(middle), Scale::company(scale.feeds / 2));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for path in [
        "/",
        "/metrics",
        "/feeds",
        "/destinations",
        "/deliveries",
        "/documents",
        "/uploads",
        "/alarms",
        "/import-errors",
        "/quarantine",
        "/v1/status",
        "/v1/activity",
        "/v1/alarms?active=true",
        "/v1/feeds",
        "/v1/feeds/gaps",
        "/v1/destinations",
        "/v1/destinations/archive/lanes",
        "/v1/deliveries?state=rejected",
        "/v1/deliveries?state=delivered",
        "/v1/import-errors",
        "/v1/notifications",
        "/v1/uploads",
        "/v1/documents?destination=books",
        "/v1/documents/search?limit=50",
        &format!("/v1/deliveries?company={company}"),
        &format!("/v1/deliveries?state=skipped&company={company}"),
        &format!("/v1/documents/search?q={id}"),
        &format!("/v1/documents/search?company={company}"),
        &format!("/v1/documents/search?q=SF-{middle}"),
        "/v1/documents/search?q=pirk%20%C5%A1altinis%2020.10",
        &format!("/v1/documents/search?q=pirk%C4%97jas&company={company}"),
        &format!("/v1/documents/search?sequence={middle}"),
        &format!("/v1/documents/trace?q=SF-{middle}"),
        "/documents?q=pirk",
        &format!("/v1/documents/trace?q={id}"),
        &format!("/documents/{middle}"),
    ] {
        let url = format!("http://{}{path}", service.admin_address());
        let answer = client
            .get(url)
            .bearer_auth(ADMIN_TOKEN)
            .send()
            .await
            .unwrap();
        let status = answer.status();
        assert!(
            status == 200,
            "{path}: {status} {}",
            answer.text().await.unwrap()
        );
    }
    housekeeping::retain(service.app()).await;
    housekeeping::check_uploads(service.app()).await;
    store.probe().await.expect("messages could be stored");
    let feed = Feed::exported(
        default_account(),
        Company::parse("300000001").expect("a code"),
    );
    // The second finds the trigger pending. On PostgreSQL the third is the first whose feed and topic its task knows.
    for number in 1..4 {
        let message = Messages::announcement(number, feed.clone(), START).await;
        store.accept(message).await.expect("accepted");
    }
    let request = LeaseRequest {
        now: START,
        lease: Duration::from_secs(120),
        requests_per_account: 4,
        lookback: Duration::from_secs(3600),
        min_interval: Duration::from_secs(1),
        reconcile_every: Duration::from_secs(3600),
        queues: vec![(default_account(), Queue::Exported)],
    };
    store.next_due(request.clone()).await.expect("readable");
    store.lease_page(request).await.expect("leasing works");
    let known = store.these_feeds(vec![feed]).await.expect("readable");
    assert_eq!(known.len(), 1);
    service.stop().await;

    assert!(
        statements.count() > 80,
        "only {} statements",
        statements.count()
    );
    let found = database.explain().await;
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}
