use std::io::Write;
use std::sync::{Arc, Mutex};

use ivesk_webhook::domain::Event;
use tracing::instrument::WithSubscriber;

use crate::support::app::{PATH_TOKEN, TestApp};
use crate::support::fake_sns::{Confirming, Message, PLANTED_TOKEN, STRANGER};
use crate::support::faulty_store::Fault;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Sends one delivery of each fate, and gives every body's signature.
async fn everything_that_can_happen() -> Vec<String> {
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
    app.store.set_fault(Some(Fault::Down));
    app.deliver(&Message::notification(&app.sns)).await;
    app.store.set_fault(None);
    let wrong = format!("/webhooks/default/on_exported/{PATH_TOKEN}x");
    app.deliver_to(&wrong, &messages[0]).await;
    app.get(&app.webhook(Event::OnExported)).await;
    signatures
}

// The service's tasks inherit no subscriber of one thread, so this one is for the
// whole process: every other test's lines are searched as well.
#[tokio::test]
async fn no_log_line_holds_a_secret_at_any_level() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let dispatch = tracing::Dispatch::new(subscriber);
    // Where another test was first, this test's own task is still captured below.
    let _ = tracing::dispatcher::set_global_default(dispatch.clone());

    let signatures = everything_that_can_happen().with_subscriber(dispatch).await;

    let log = String::from_utf8_lossy(&captured.0.lock().unwrap()).into_owned();
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
