//! Refusals: reason, status, quarantine.

use std::time::Duration;

use ivesk_webhook::domain::Event;
use ivesk_webhook::store::CertificateRow;

use crate::support::app::{PATH_TOKEN, TestApp, code, json_of};
use crate::support::fake_sns::{FOREIGN_TOPIC, MISNAMED, Message, SIGNER, STRANGER, start_time};
use crate::support::faults::Fault;

const AWS_CERTIFICATE: &str = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem";

/// Sends a message that is refused; returns status and code.
async fn refused(app: &TestApp, message: &Message) -> (u16, String) {
    code(app.deliver(message).await).await
}

/// Sends a body that is refused; returns status and code.
async fn refused_body(app: &TestApp, body: &str) -> (u16, String) {
    let path = app.webhook(Event::OnExported);
    code(app.post(&path, body.to_owned(), &[]).await).await
}

fn answer(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn a_wrong_token_is_not_found_and_leaves_no_trace() {
    let app = TestApp::spawn().await;
    let message = Message::notification(&app.sns);

    for path in [
        "/webhooks/default/on_exported/wrong".to_owned(),
        "/webhooks/default/on_exported".to_owned(),
        "/webhooks/default/on_exported/".to_owned(),
    ] {
        let response = app.deliver_to(&path, &message).await;
        assert_eq!(code(response).await, answer(404, "unknown_token"), "{path}");
    }

    assert!(app.stored_ids().await.is_empty());
    assert!(app.quarantine().await.is_empty());
}

#[tokio::test]
async fn a_token_is_valid_for_its_own_account_and_event_only() {
    let app = TestApp::with(|config| {
        let account = config.accounts.values_mut().next().unwrap();
        let token = "for-digitized-only".to_owned();
        account
            .tokens
            .insert(Event::OnDigitized, vec![token.into()]);
    })
    .await;
    let message = Message::notification(&app.sns);

    let crossed = format!("/webhooks/default/on_digitized/{PATH_TOKEN}");
    let response = app.deliver_to(&crossed, &message).await;
    assert_eq!(code(response).await, answer(404, "unknown_token"));

    let right = "/webhooks/default/on_digitized/for-digitized-only";
    assert_eq!(app.deliver_to(right, &message).await.status(), 200);
}

#[tokio::test]
async fn everything_but_webhooks_and_health_is_not_found() {
    let app = TestApp::spawn().await;
    let token = PATH_TOKEN;
    for path in [
        "/".to_owned(),
        "/metrics".to_owned(),
        "/v1/status".to_owned(),
        "/webhooks".to_owned(),
        format!("/webhooks/other/on_exported/{token}"),
        format!("/webhooks/default/on_paid/{token}"),
        format!("/webhooks/default/on_exported/{token}/"),
        format!("/webhooks/default/on_exported/{token}/more"),
        format!("//webhooks/default/on_exported/{token}"),
    ] {
        let response = app.post(&path, "{}", &[]).await;
        assert_eq!(code(response).await, answer(404, "unknown_path"), "{path}");
    }
    assert_eq!(app.get(&app.webhook(Event::OnExported)).await, 404);
    assert_eq!(app.get("/healthz").await, 200);
    assert_eq!(app.get("/readyz").await, 200);
}

#[tokio::test]
async fn on_loopback_the_token_may_be_missing() {
    let app = TestApp::with(|config| {
        config.public.url = "http://127.0.0.1/".parse().unwrap();
    })
    .await;
    let message = Message::notification(&app.sns);

    let response = app
        .deliver_to("/webhooks/default/on_exported", &message)
        .await;

    assert_eq!(response.status(), 200);
    let wrong = app.deliver_to("/webhooks/default/on_exported/wrong", &message);
    assert_eq!(code(wrong.await).await, answer(404, "unknown_token"));
}

#[tokio::test]
async fn malformed_bodies_are_400_with_a_reason_each_and_quarantined() {
    let app = TestApp::spawn().await;
    let valid = Message::notification(&app.sns).body();
    let without = |field: &str| {
        let mut value: serde_json::Value = serde_json::from_str(&valid).unwrap();
        value.as_object_mut().unwrap().remove(field);
        value.to_string()
    };
    let with = |field: &str, text: &str| {
        let mut value: serde_json::Value = serde_json::from_str(&valid).unwrap();
        value[field] = text.into();
        value.to_string()
    };
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let table = [
        ("\"text\"".to_owned(), "malformed_json"),
        ("[1, 2]".to_owned(), "malformed_json"),
        ("null".to_owned(), "malformed_json"),
        (nested, "malformed_json"),
        (String::new(), "malformed_json"),
        (
            valid.replacen('{', r#"{"Type":"Notification","#, 1),
            "repeated_key",
        ),
        (without("Signature"), "missing_field"),
        (with("Timestamp", "yesterday"), "malformed_field"),
        (with("MessageId", "a\nb"), "control_character"),
        (with("Type", "Advertisement"), "unsupported_type"),
        (with("Signature", "§"), "malformed_signature"),
    ];
    for (body, reason) in &table {
        assert_eq!(
            refused_body(&app, body).await,
            answer(400, reason),
            "{body:.80}"
        );
    }
    let path = app.webhook(Event::OnExported);
    let disagrees = app.post(&path, valid, &[("x-amz-sns-message-id", "another")]);
    assert_eq!(code(disagrees.await).await, answer(400, "header_mismatch"));

    let kept: Vec<String> = app
        .quarantine()
        .await
        .into_iter()
        .map(|row| row.reason)
        .collect();
    let reasons = table.iter().map(|(_, reason)| *reason);
    let expected: Vec<&str> = reasons.chain(["header_mismatch"]).collect();
    assert_eq!(kept, expected);
    assert!(app.stored_ids().await.is_empty());
}

#[tokio::test]
async fn refusals_that_no_setting_can_change_are_403() {
    let app = TestApp::spawn().await;
    let sns = &app.sns;
    let notification = || Message::notification(sns);

    let table = [
        (notification().signed_by(&STRANGER), "signature_mismatch"),
        (notification().of_topic(FOREIGN_TOPIC), "topic_not_allowed"),
        (
            notification().with_certificate_at(
                "https://sns.s3-eu-west-1.amazonaws.com/SimpleNotificationService-00.pem",
            ),
            "untrusted_certificate_url",
        ),
        (
            Message::confirmation(sns)
                .with_subscribe_url("http://169.254.169.254/latest/meta-data"),
            "untrusted_subscribe_url",
        ),
        (
            notification().published_at(start_time().before(Duration::from_secs(9 * 3_600))),
            "too_old",
        ),
    ];
    for (message, reason) in &table {
        assert_eq!(refused(&app, message).await, answer(403, reason));
    }
    let path = app.webhook(Event::OnExported);
    let raw = app.post(
        &path,
        "{\"companyCode\":\"1\"}",
        &[("x-amz-sns-rawdelivery", "true")],
    );
    assert_eq!(code(raw.await).await, answer(403, "raw_delivery"));

    assert!(app.stored_ids().await.is_empty());
    assert_eq!(app.quarantine().await.len(), table.len() + 1);
    assert_eq!(app.sns.visits(), 0);
}

#[tokio::test]
async fn refusals_that_can_pass_later_are_503_with_retry_after() {
    let app = TestApp::spawn().await;
    app.sns.set_certificate_down(true);
    let outcome = refused(&app, &Message::notification(&app.sns)).await;
    assert_eq!(outcome, answer(503, "certificate_unavailable"));
    app.sns.set_certificate_down(false);
    app.clock.advance(Duration::from_secs(300));

    let future = Message::notification(&app.sns)
        .published_at(start_time().after(Duration::from_secs(3 * 3_600)));
    let response = app.deliver(&future).await;
    assert_eq!(response.headers()["retry-after"], "20");
    assert_eq!(code(response).await, answer(503, "from_the_future"));

    let valid = Message::notification(&app.sns).body();
    let newer = valid.replace(r#""SignatureVersion":"1""#, r#""SignatureVersion":"3""#);
    let newer = newer.replace(r#""SignatureVersion" : "1""#, r#""SignatureVersion" : "3""#);
    let outcome = refused_body(&app, &newer).await;
    assert_eq!(outcome, answer(503, "unsupported_signature_version"));
}

#[tokio::test]
async fn a_refused_certificate_of_the_pinned_host_is_503() {
    let app = TestApp::spawn().await;
    let misnamed = AWS_CERTIFICATE.replace("0123", "aaaa");
    for (url, signer) in [(AWS_CERTIFICATE, &*SIGNER), (misnamed.as_str(), &*MISNAMED)] {
        let row = CertificateRow {
            url: url.to_owned(),
            pem: signer.certificate_pem().as_bytes().to_vec(),
            fetched_at: start_time(),
        };
        app.store.keep_certificate(row).await.unwrap();
    }
    let good = Message::notification(&app.sns).with_certificate_at(AWS_CERTIFICATE);
    assert_eq!(app.deliver(&good).await.status(), 200);

    app.clock.advance(Duration::from_secs(40 * 86_400));
    let late = Message::notification(&app.sns)
        .with_certificate_at(AWS_CERTIFICATE)
        .published_at(app.clock.now());
    assert_eq!(refused(&app, &late).await, answer(503, "certificate_dates"));
}

#[tokio::test]
async fn a_failing_store_is_503_and_quarantines_nothing() {
    let app = TestApp::spawn().await;
    for (fault, reason) in [
        (Fault::Down, "store_unavailable"),
        (Fault::QueueFull, "queue_full"),
        (Fault::DiskFull, "disk_nearly_full"),
        (Fault::Closed, "store_unavailable"),
        (Fault::AnswerLost, "store_unavailable"),
    ] {
        app.faults.set(Some(fault));
        let response = app.deliver(&Message::notification(&app.sns)).await;
        assert!(response.headers().contains_key("retry-after"));
        assert_eq!(code(response).await, answer(503, reason), "{fault:?}");
    }
    app.faults.set(None);
    assert!(app.quarantine().await.is_empty());
}

#[tokio::test]
async fn a_nearly_full_disk_refuses_messages_until_there_is_room() {
    let app = TestApp::spawn().await;
    let shared = app.service().app();
    app.faults.set_free_bytes(1_000);
    ivesk_webhook::service::housekeeping::check_disk(shared).await;

    let outcome = refused(&app, &Message::notification(&app.sns)).await;
    assert_eq!(outcome, answer(503, "disk_nearly_full"));
    assert_eq!(app.get("/readyz").await, 503);
    assert_eq!(app.get("/healthz").await, 200);
    assert_eq!(app.faults.accepts(), 0);

    app.faults.set_free_bytes(u64::MAX);
    ivesk_webhook::service::housekeeping::check_disk(shared).await;
    let response = app.deliver(&Message::notification(&app.sns)).await;
    assert_eq!(response.status(), 200);
    assert_eq!(app.get("/readyz").await, 200);
}

#[tokio::test]
async fn a_body_over_two_mebibytes_is_413_whatever_its_type() {
    let app = TestApp::spawn().await;
    let path = app.webhook(Event::OnExported);
    let large = "x".repeat(ivesk_webhook::sns::MAX_BODY_BYTES + 1);

    let response = app
        .post(&path, large, &[("x-amz-sns-message-type", "Notification")])
        .await;
    assert_eq!(code(response).await, answer(413, "body_too_large"));
    assert!(app.quarantine().await.is_empty());
}

#[tokio::test]
async fn a_legal_message_of_256_kib_full_of_quotes_is_accepted() {
    let app = TestApp::spawn().await;
    let message = Message::notification(&app.sns).saying(&"\"".repeat(256 * 1024));

    assert_eq!(app.deliver(&message).await.status(), 200);
}

#[tokio::test]
async fn any_content_type_and_none_is_read() {
    let app = TestApp::spawn().await;
    let url = format!("http://{}{}", app.public(), app.webhook(Event::OnExported));
    let client = reqwest::Client::new();
    for kind in [
        Some("application/json"),
        Some("text/plain; charset=UTF-8"),
        Some("a"),
        None,
    ] {
        let message = Message::notification(&app.sns).saying("ąčęėįšųūž 🧾 \u{161}");
        let mut request = client.post(&url).body(message.body());
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        assert_eq!(request.send().await.unwrap().status(), 200, "{kind:?}");
    }
    assert_eq!(app.stored_ids().await.len(), 4);
}

#[tokio::test]
async fn a_refusal_shows_its_code_and_nothing_internal() {
    let app = TestApp::spawn().await;
    let response = app
        .deliver(&Message::notification(&app.sns).signed_by(&STRANGER))
        .await;
    let id = response.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let (_, problem) = json_of(response).await;
    let expected = serde_json::json!({
        "type": "urn:ivesk-webhook:refusal:signature_mismatch",
        "title": "The signature does not match the message.",
        "status": 403,
        "code": "signature_mismatch",
        "request_id": id,
    });
    assert_eq!(problem, expected);
}

#[tokio::test]
async fn refusals_are_counted_by_event_and_code() {
    let app = TestApp::spawn().await;
    app.deliver(&Message::notification(&app.sns).signed_by(&STRANGER))
        .await;
    app.deliver(&Message::notification(&app.sns)).await;
    app.deliver_to("/webhooks/nobody", &Message::notification(&app.sns))
        .await;

    let metrics = app.metrics().await;
    for line in [
        r#"ivesk_webhook_messages_total{event="on_exported",outcome="refused",code="signature_mismatch"} 1"#,
        r#"ivesk_webhook_messages_total{event="on_exported",outcome="accepted",code=""} 1"#,
        r#"ivesk_webhook_messages_total{event="",outcome="refused",code="unknown_path"} 1"#,
        "ivesk_webhook_accept_duration_seconds_count 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn unsigned_attributes_and_headers_change_nothing() {
    let app = TestApp::spawn().await;
    let message = Message::notification(&app.sns).with_attribute("account", "somebody-else");
    assert_eq!(app.deliver(&message).await.status(), 200);

    let feeds = app.store.feeds().await.unwrap();
    let names: Vec<String> = feeds.iter().map(|row| row.feed.to_string()).collect();
    assert_eq!(names, ["default/exported/302320404"]);

    // The header names our topic, the signed body another one.
    let foreign = Message::notification(&app.sns).of_topic(FOREIGN_TOPIC);
    let path = app.webhook(Event::OnExported);
    let headers = [("x-amz-sns-topic-arn", crate::support::fake_sns::TOPIC)];
    let response = app.post(&path, foreign.body(), &headers).await;
    assert_eq!(code(response).await, answer(400, "header_mismatch"));
}
