//! The log of the receiver.

use ivesk_webhook::domain::Event;
use tracing::Level;

use crate::support::app::{PATH_TOKEN, TestApp};
use crate::support::captured_log::{CapturedLog, in_own_process};
use crate::support::fake_sns::{Confirming, Message, PLANTED_TOKEN, STRANGER};
use crate::support::faults::Fault;

/// Sends one message for each outcome; returns their signatures.
async fn send_one_of_each() -> Vec<String> {
    let app = TestApp::spawn().await;
    let mut signatures = Vec::new();
    let messages = [
        Message::notification(&app.sns),
        Message::notification(&app.sns).signed_by(&STRANGER),
        Message::confirmation(&app.sns),
        Message::ended(&app.sns),
        Message::confirmation(&app.sns).with_subscribe_url("https://evil.example/?planted5e7url"),
    ];
    for message in &messages {
        let body: serde_json::Value = serde_json::from_str(&message.body()).unwrap();
        signatures.push(body["Signature"].as_str().unwrap().to_owned());
        app.deliver(message).await;
    }
    app.sns.set_confirming(Confirming::Fails);
    app.deliver(&Message::confirmation(&app.sns)).await;
    app.faults.set(Some(Fault::Down));
    app.deliver(&Message::notification(&app.sns)).await;
    app.faults.set(None);
    let wrong = format!("/webhooks/default/on_exported/{PATH_TOKEN}x");
    app.deliver_to(&wrong, &messages[0]).await;
    app.get(&app.webhook(Event::OnExported)).await;
    signatures
}

// The service's tasks do not inherit a thread's subscriber, so this one is global.
#[tokio::test]
async fn no_log_line_holds_a_secret_at_any_level() {
    in_own_process!(no_log_line_holds_a_secret_at_any_level);
    let captured = CapturedLog::new();
    let subscriber = captured.subscriber(Level::TRACE);
    tracing::dispatcher::set_global_default(subscriber).expect("the first one");

    let signatures = send_one_of_each().await;

    let log = captured.text();
    assert!(log.contains("signature_mismatch"), "the log was captured");
    assert!(log.contains("/webhooks/{account}/{event}/{token}"), "{log}");
    for secret in [
        PATH_TOKEN,
        PLANTED_TOKEN,
        "planted5e7url",
        "planted-api-key",
        "Action=Confirm",
    ] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "holds {secret}");
    }
    for signature in signatures {
        assert!(!log.contains(&signature));
    }
}
