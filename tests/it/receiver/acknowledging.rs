//! Acknowledgments: 200 means committed.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use ivesk_webhook::domain::Event;

use crate::support::app::{TestApp, code};
use crate::support::fake_sns::Message;
use crate::support::faults::Fault;

#[tokio::test]
async fn eight_copies_at_once_are_one_row() {
    let app = TestApp::spawn().await;
    let message = Message::notification(&app.sns);
    app.faults.hold();

    let copies = join_all((0..8).map(|_| app.deliver(&message)));
    let release = async {
        // All eight are verified and wait for their insert.
        app.faults.until_waiting(8).await;
        app.faults.release();
    };
    let (answers, ()) = tokio::join!(copies, release);

    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!(app.stored_ids().await, [message.id()]);
    let metrics = app.metrics().await;
    let duplicates =
        r#"ivesk_webhook_messages_total{event="on_exported",outcome="duplicate",code=""} 7"#;
    assert!(metrics.contains(duplicates), "{metrics}");
}

#[tokio::test]
async fn a_message_during_an_outage_is_stored_when_sns_retries() {
    let app = TestApp::spawn().await;
    let message = Message::notification(&app.sns);

    app.faults.set(Some(Fault::Down));
    assert_eq!(app.deliver(&message).await.status(), 503);
    assert_eq!(app.get("/readyz").await, 503);

    app.faults.set(None);
    assert!(app.stored_ids().await.is_empty());
    assert_eq!(app.deliver(&message).await.status(), 200);
    assert_eq!(app.get("/readyz").await, 200);
    assert_eq!(app.stored_ids().await, [message.id()]);
}

#[tokio::test]
async fn it_is_not_ready_while_only_reads_work() {
    let app = TestApp::spawn().await;
    for fault in [Fault::DiskFull, Fault::Closed] {
        app.faults.set(Some(fault));
        assert!(app.store.sequence().await.is_ok());
        assert_eq!(app.get("/readyz").await, 503, "{fault:?}");
    }
    app.faults.set(None);
    assert_eq!(app.get("/readyz").await, 200);
}

#[tokio::test]
async fn those_who_ask_while_the_store_is_probed_share_the_next_probe() {
    let app = TestApp::spawn().await;
    let ingest = Arc::clone(&app.service().app().ingest);
    app.faults.hold_probes();
    let before = app.faults.probes();
    let mut asking: FuturesUnordered<_> = (0..300).map(|_| ingest.readiness()).collect();
    assert_eq!(asking.next().now_or_never(), None, "answered by no probe");
    app.faults.release_probes();
    while let Some(ready) = asking.next().await {
        ready.expect("the store works");
    }
    let probes = app.faults.probes() - before;
    // One that was under way may be the service's own.
    assert!((1..=3).contains(&probes), "{probes} probes");
    app.faults.set(Some(Fault::DiskFull));
    ingest.readiness().await.expect_err("it looks again");
}

#[tokio::test]
async fn a_fault_of_the_store_ends_while_the_disk_is_nearly_full() {
    let app = TestApp::spawn().await;
    let health = Arc::clone(&app.service().app().health);
    app.faults.set(Some(Fault::DiskFull));
    assert_eq!(app.get("/readyz").await, 503);
    assert!(health.store_faults().unavailable.is_some());

    health.set_disk_nearly_full(true);
    app.faults.set(None);
    assert_eq!(app.get("/readyz").await, 503);
    assert_eq!(health.store_faults().unavailable, None);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_a_duplicate_next_time() {
    let app = TestApp::spawn().await;
    let message = Message::notification(&app.sns);

    app.faults.set(Some(Fault::AnswerLost));
    assert_eq!(app.deliver(&message).await.status(), 503);
    app.faults.set(None);
    assert_eq!(app.deliver(&message).await.status(), 200);

    assert_eq!(app.stored_ids().await, [message.id()]);
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_committed() {
    let app = Arc::new(TestApp::spawn().await);
    let message = Message::notification(&app.sns);
    app.faults.hold();

    let request = app.deliver(&message);
    tokio::pin!(request);
    tokio::select! {
        answer = &mut request => panic!("answered {} before the commit", answer.status()),
        () = app.faults.until_waiting(1) => {}
    }
    assert!(app.stored_ids().await.is_empty());
    app.faults.release();

    assert_eq!(request.await.status(), 200);
    assert_eq!(app.stored_ids().await, [message.id()]);
}

#[tokio::test]
async fn a_panic_is_answered_503_and_the_next_request_is_served() {
    let app = TestApp::spawn().await;
    let message = Message::notification(&app.sns);

    app.faults.set(Some(Fault::Panic));
    let response = app.deliver(&message).await;
    assert_eq!(code(response).await, (503, "internal".to_owned()));
    app.faults.set(None);

    assert_eq!(app.deliver(&message).await.status(), 200);
    assert!(app.metrics().await.contains("ivesk_webhook_panics_total 1"));
}

#[tokio::test]
async fn a_notification_triggers_its_own_feed() {
    let app = TestApp::spawn().await;
    let exported = Message::notification(&app.sns);
    let digitized = Message::notification(&app.sns).saying(r#"{"id":"x","buyercode":"1"}"#);
    app.deliver(&exported).await;
    app.deliver_to(&app.webhook(Event::OnDigitized), &digitized)
        .await;

    let feeds = app.store.feeds().await.unwrap();
    let mut names: Vec<String> = feeds.iter().map(|row| row.feed.to_string()).collect();
    names.sort();
    assert_eq!(names, ["default/digitized", "default/exported/302320404"]);
}

#[tokio::test]
async fn plain_text_is_stored_and_answered_200() {
    let app = TestApp::spawn().await;
    let message = Message::notification(&app.sns).saying("You have been subscribed. Hello!");

    assert_eq!(app.deliver(&message).await.status(), 200);

    assert_eq!(app.stored_ids().await, [message.id()]);
    assert!(app.store.feeds().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_retry_forty_minutes_late_is_accepted() {
    let app = TestApp::spawn().await;
    let message = Message::notification(&app.sns);
    app.clock.advance(std::time::Duration::from_secs(40 * 60));

    assert_eq!(app.deliver(&message).await.status(), 200);
}
