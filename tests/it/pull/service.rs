//! From the signed notification to the stored document, through the whole service.

use std::sync::Arc;

use ivesk_webhook::config::Config;
use ivesk_webhook::domain::Event;
use ivesk_webhook::emulator::{DEFAULT_KEY, Endpoint, Publication};
use ivesk_webhook::pull::blocked_queues;
use ivesk_webhook::service::{Service, open_store_for_reading};
use ivesk_webhook::store::TriggerKind;

use crate::support::process::{ADMIN_TOKEN, subscribe};
use crate::support::puller::{
    Bench, COMPANY, NEIGHBOR, account_settings, digitized, documents, exported, hours, minutes,
    set_exported_path, stored, tally, truth,
};

/// Starts the service on the bench's store, subscribed to an event. It has no API key: the
/// bench pulls.
async fn receiving_service(bench: &Bench, event: Event) -> Service {
    let mut config = bench.config.clone();
    account_settings(&mut config).api_key = None;
    service(bench, config, event).await
}

/// Starts the service on the bench's store, subscribed to an event.
async fn service(bench: &Bench, mut config: Config, event: Event) -> Service {
    config.admin.token = Some(ADMIN_TOKEN.to_owned().into());
    let store = Arc::clone(bench.store());
    let service = Service::start_with(config, store, bench.clock.clone()).await;
    let service = service.expect("the service starts");
    let address = service.public_address();
    let target = format!("http://{address}/webhooks/default/{event}");
    subscribe(&bench.control, [(event, target)]).await;
    service
}

fn no_companies(config: &mut Config) {
    account_settings(config).companies.clear();
}

#[tokio::test]
async fn an_export_is_pulled_after_every_form_of_the_message() {
    for (code, key) in [("text", "camel"), ("number", "lower")] {
        let switches = format!("company_code={code},company_code_key={key},signature_version=2");
        let bench = Bench::with(&switches, no_companies).await;
        let service = receiving_service(&bench, Event::OnExported).await;
        bench.export_unannounced(COMPANY, 3);
        bench.control.idle().await;
        bench.settle().await;
        bench.assert_complete(&exported(COMPANY)).await;
        let rows = bench.documents().await;
        assert_eq!(rows.len(), 3);
        assert!(
            rows.iter()
                .all(|row| row.found_by == TriggerKind::Notification)
        );
        assert!(service.stop().await);
    }
}

#[tokio::test]
async fn a_missed_notification_is_found_within_the_hour_and_counted() {
    let bench = Bench::with("signature_version=2", no_companies).await;
    let service = receiving_service(&bench, Event::OnExported).await;
    bench.export_unannounced(COMPANY, 1);
    bench.control.idle().await;
    bench.run_for(minutes(10)).await;
    bench.control.lose_next_notifications(1);
    bench.export_unannounced(COMPANY, 2);
    bench.control.idle().await;
    assert_eq!(tally(&bench.settle().await), (0, 0));
    bench.run_for(hours(1)).await;
    bench.assert_complete(&exported(COMPANY)).await;
    assert_eq!(bench.feed(&exported(COMPANY)).await.missed_notifications, 2);
    assert!(service.stop().await);
}

#[tokio::test]
async fn a_digitized_document_triggers_its_queue_for_all_companies() {
    for message in ["document", "id", "text"] {
        let switches = format!("digitized_message={message},signature_version=2");
        let bench = Bench::with(&switches, no_companies).await;
        let service = receiving_service(&bench, Event::OnDigitized).await;
        for code in [COMPANY, NEIGHBOR] {
            bench
                .control
                .digitize(DEFAULT_KEY, code, 2)
                .expect("digitized");
        }
        bench.control.idle().await;
        bench.settle().await;
        bench.assert_complete(&digitized()).await;
        let rows = bench.documents().await;
        assert_eq!(rows.len(), 4, "{message}");
        assert!(
            rows.iter()
                .all(|row| row.found_by == TriggerKind::Notification)
        );
        let counters = bench.control.requests();
        for record in counters.log.iter() {
            if record.endpoint == Endpoint::Digitized {
                assert_eq!(record.path, "/api/pub/digitized");
                assert!(!record.query.contains("compan"), "{}", record.query);
            }
        }
        assert!(service.stop().await);
    }
}

#[tokio::test]
async fn thousands_of_notifications_are_a_handful_of_pulls() {
    const NOTIFICATIONS: usize = 2_000;
    let bench = Bench::with("signature_version=2", no_companies).await;
    let service = receiving_service(&bench, Event::OnExported).await;
    bench.export_unannounced(COMPANY, 50);
    for _ in 1..NOTIFICATIONS {
        let sent = bench.control.notify(&Publication::exported(COMPANY));
        sent.expect("published");
    }
    bench.control.idle().await;
    let stored = bench.store().notifications(0, NOTIFICATIONS * 2).await;
    let mut ids: Vec<_> = stored
        .expect("notifications")
        .into_iter()
        .filter(|row| row.kind == "Notification")
        .map(|row| row.message_id)
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), NOTIFICATIONS);
    bench.settle().await;
    bench.assert_complete(&exported(COMPANY)).await;
    assert!(bench.requests() <= 6, "{}", bench.requests());
    bench.run_for(minutes(30)).await;
    assert!(bench.requests() <= 12, "{}", bench.requests());
    assert!(service.stop().await);
}

#[tokio::test]
async fn an_unknown_path_keeps_triggers_and_shows_blocked() {
    let mut bench = Bench::with("signature_version=2", |config| {
        no_companies(config);
        config.api.exported_path = None;
    })
    .await;
    let config = bench.config.clone();
    let service = service(&bench, config, Event::OnExported).await;
    bench.export_unannounced(COMPANY, 2);
    bench.control.idle().await;
    let http = ivesk_webhook::egress::client(None, minutes(1)).expect("a client");
    let url = format!("http://{}/v1/status", service.admin_address());
    let request = http.get(url).bearer_auth(ADMIN_TOKEN);
    let answer = request.send().await.expect("an answer");
    let answer = answer.text().await.expect("text");
    let status: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(status["blocked"][0]["missing"], "exported_path");
    assert_eq!(blocked_queues(&service.app().config).len(), 1);
    assert_eq!(bench.requests(), 0);
    assert!(service.stop().await);

    bench
        .restart_with(|config| set_exported_path(config, "path"))
        .await;
    bench.settle().await;
    bench.assert_complete(&exported(COMPANY)).await;
    assert_eq!(bench.documents().await.len(), 2);
}

#[tokio::test]
async fn the_service_pulls_and_finishes_its_page_when_stopped() {
    let bench = Bench::with("signature_version=2", no_companies).await;
    let config = bench.config.clone();
    let service = service(&bench, config, Event::OnExported).await;
    bench.export_unannounced(COMPANY, 5);
    bench.control.requests_reached(Endpoint::Exported, 1).await;
    assert!(service.stop().await);
    let store = open_store_for_reading(&bench.config).await;
    let store = store.expect("a store");
    let rows = documents(&store).await;
    assert_eq!(
        stored(&rows, &exported(COMPANY)),
        truth(&bench.control, &exported(COMPANY))
    );
    assert_eq!(rows.len(), 5);
}
