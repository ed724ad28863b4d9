//! SNS: confirmations, notifications, retries.

use std::collections::BTreeSet;

use ivesk_webhook::config::{ConfirmMode, SnsConfig, TopicRule};
use ivesk_webhook::domain::Clock;
use ivesk_webhook::emulator::{Endpoint, Outcome, Publication, SubscriptionState, Tamper};
use ivesk_webhook::sns::{
    Envelope, MessageType, NoCertificateStore, SnsHeaders, VerifiedMessage, Verifier, VerifyError,
};
use serde_json::json;

use super::*;

/// Verifies a delivery as the receiver does.
async fn verify(bench: &Bench, delivery: &Delivery) -> Result<VerifiedMessage, VerifyError> {
    let config = SnsConfig {
        topics: vec![TopicRule {
            account: "007272210889".to_owned(),
            region: "eu-west-1".to_owned(),
            name_prefix: "DPWebHook_".to_owned(),
        }],
        certificate_names: BTreeMap::new(),
        confirm: ConfirmMode::Auto,
        max_age: Duration::from_secs(8 * 3600),
        local_origins: vec![bench.emulator.origin()],
        proxy: None,
    };
    let clock = Clock::manual(bench.control.now());
    let verifier =
        Verifier::new(&config.settings(), Arc::new(NoCertificateStore), clock).expect("a verifier");
    let header = |name: &str| delivery.headers.get(name).cloned();
    let headers = SnsHeaders {
        message_type: header("x-amz-sns-message-type"),
        message_id: header("x-amz-sns-message-id"),
        topic_arn: header("x-amz-sns-topic-arn"),
        subscription_arn: header("x-amz-sns-subscription-arn"),
        raw_delivery: header("x-amz-sns-rawdelivery").is_some(),
    };
    verifier
        .verify(Envelope::parse(delivery.body.clone(), &headers)?)
        .await
}

fn outcomes(bench: &Bench) -> Vec<(Outcome, u32, Option<u16>)> {
    let notifications = bench.control.deliveries().into_iter();
    notifications
        .filter(|record| record.message_type == "Notification")
        .map(|record| (record.outcome, record.attempts, record.last_status))
        .collect()
}

#[tokio::test]
async fn all_three_types_verify_in_both_signature_versions() {
    for version in ["1", "2"] {
        let bench = Bench::start(&format!("signature_version={version}")).await;
        let webhook = Webhook::start().await;
        let arn = bench
            .control
            .subscribe(Event::OnExported, &webhook.url)
            .expect("good");
        bench.control.idle().await;
        let confirmation = webhook.take().remove(0);
        read(bench.http.get(confirmation.field("SubscribeURL"))).await;
        bench.export(1);
        bench.control.idle().await;
        let notification = webhook.take().remove(0);
        assert!(bench.control.unsubscribe(&arn));
        bench.control.idle().await;
        let goodbye = webhook.take().remove(0);

        for (delivery, expected, has_arn) in [
            (confirmation, MessageType::SubscriptionConfirmation, false),
            (notification, MessageType::Notification, true),
            (goodbye, MessageType::UnsubscribeConfirmation, true),
        ] {
            let verified = verify(&bench, &delivery).await.expect("genuine");
            assert_eq!(verified.message_type(), expected);
            assert_eq!(verified.topic_arn(), bench.emulator.exported_topic_arn());
            assert_eq!(delivery.field("SignatureVersion"), version);
            let headers = &delivery.headers;
            assert_eq!(headers["content-type"], "text/plain; charset=UTF-8");
            assert_eq!(headers["x-amz-sns-message-type"], expected.as_str());
            assert_eq!(headers["x-amz-sns-message-id"], delivery.field("MessageId"));
            assert_eq!(headers["x-amz-sns-topic-arn"], delivery.field("TopicArn"));
            let sent_arn = headers.get("x-amz-sns-subscription-arn");
            assert_eq!(sent_arn, has_arn.then_some(&arn));
        }
    }
}

#[tokio::test]
async fn one_export_or_digitized_document_is_one_notification() {
    let bench = Bench::start("").await;
    let (exports, digitized) = (Webhook::start().await, Webhook::start().await);
    exports.subscribe(&bench, Event::OnExported).await;
    digitized.subscribe(&bench, Event::OnDigitized).await;

    let ids = bench.digitize(3);
    bench
        .control
        .export(COMPANY, ids.clone())
        .expect("exported");
    bench.control.export(STRANGER, 1).expect("exported");
    bench.control.idle().await;

    let notifications: Vec<Delivery> = exports.take();
    assert_eq!(notifications.len(), 1, "one export of our own");
    assert_eq!(
        notifications[0].field("Message"),
        format!("{{\"companyCode\":\"{COMPANY}\"}}")
    );
    let account = bench
        .control
        .account_id(DEFAULT_KEY)
        .expect("known")
        .to_string();
    assert_eq!(
        notifications[0].json()["MessageAttributes"]["account"]["Value"],
        account.as_str()
    );
    let announced: BTreeSet<String> = digitized
        .take()
        .iter()
        .map(|delivery| {
            let document: Value = serde_json::from_str(&delivery.field("Message")).expect("JSON");
            document["id"].as_str().expect("an id").to_owned()
        })
        .collect();
    assert_eq!(announced, ids.into_iter().collect());
}

#[tokio::test]
async fn export_events_sends_one_notification_for_each_document() {
    let (bench, webhook) = Bench::with_webhook("export_events=document", Event::OnExported).await;
    bench.export(4);
    bench.control.idle().await;
    let ids: BTreeSet<String> = webhook
        .take()
        .iter()
        .map(|d| d.field("MessageId"))
        .collect();
    assert_eq!(ids.len(), 4);
}

#[tokio::test]
async fn the_company_code_is_spelled_and_typed_as_switches_say() {
    let (bench, webhook) = Bench::with_webhook("", Event::OnExported).await;
    for (switches, message) in [
        (
            "company_code=number",
            format!("{{\"companyCode\":{COMPANY}}}"),
        ),
        (
            "company_code_key=lower",
            format!("{{\"companycode\":{COMPANY}}}"),
        ),
        (
            "company_code=text",
            format!("{{\"companycode\":\"{COMPANY}\"}}"),
        ),
    ] {
        bench.switch(switches);
        bench.export(1);
        bench.control.idle().await;
        assert_eq!(webhook.take()[0].field("Message"), message);
    }
}

#[tokio::test]
async fn a_digitized_message_holds_the_document_its_id_or_text() {
    let (bench, webhook) = Bench::with_webhook("digitized_message=id", Event::OnDigitized).await;
    let id = bench.digitize(1).remove(0);
    bench.control.idle().await;
    assert_eq!(
        webhook.take()[0].field("Message"),
        json!({ "id": id }).to_string()
    );

    bench.switch("digitized_message=text");
    bench.digitize(1);
    bench.control.idle().await;
    let message = webhook.take()[0].field("Message");
    assert!(
        serde_json::from_str::<Value>(&message).is_err(),
        "{message}"
    );
}

#[tokio::test]
async fn a_huge_message_is_as_long_as_sns_allows_and_genuine() {
    let (bench, webhook) = Bench::with_webhook("huge_message=on", Event::OnDigitized).await;
    bench.digitize(1);
    bench.control.idle().await;
    let delivery = webhook.take().remove(0);
    let verified = verify(&bench, &delivery).await.expect("genuine");
    assert_eq!(verified.message().len(), 262_144);
    assert!(delivery.body.len() > 500_000, "escaping must make it grow");
}

#[tokio::test]
async fn a_delivery_is_tried_eleven_times_with_one_message_id() {
    let (bench, webhook) = Bench::with_webhook("time_scale=0", Event::OnExported).await;
    webhook.will_answer(&[503; 20]);
    bench.export(1);
    bench.control.idle().await;
    let attempts = webhook.take();
    assert_eq!(attempts.len(), 11);
    let bodies: BTreeSet<&Bytes> = attempts.iter().map(|attempt| &attempt.body).collect();
    assert_eq!(bodies.len(), 1, "every attempt is the same message");
    assert_eq!(outcomes(&bench), [(Outcome::GivenUp, 11, Some(503))]);
}

#[tokio::test]
async fn only_a_5xx_is_retried() {
    let (bench, webhook) = Bench::with_webhook("time_scale=0", Event::OnExported).await;
    for (status, outcome, attempts) in [
        (200, Outcome::Acknowledged, 1),
        (204, Outcome::Acknowledged, 1),
        (302, Outcome::Refused, 1),
        (400, Outcome::Refused, 1),
        (403, Outcome::Refused, 1),
        (429, Outcome::Refused, 1),
        (500, Outcome::Acknowledged, 2),
        (503, Outcome::Acknowledged, 2),
    ] {
        bench.control.forget_deliveries();
        webhook.will_answer(&[status]);
        bench.export(1);
        bench.control.idle().await;
        let last = if attempts == 2 { 200 } else { status };
        assert_eq!(
            outcomes(&bench),
            [(outcome, attempts, Some(last))],
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_webhook_that_is_down_or_silent_is_retried() {
    let bench = Bench::start("time_scale=0,delivery_timeout_ms=20").await;
    // A port that accepts connections but never answers, and is closed later.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let url = format!("http://{}/", silent.local_addr().expect("an address"));
    bench
        .control
        .subscribe(Event::OnDigitized, &url)
        .expect("good");
    bench.control.idle().await;
    let confirmation = bench.control.deliveries().pop().expect("a record");
    assert_eq!(confirmation.outcome, Outcome::GivenUp);
    assert_eq!(
        (confirmation.attempts, confirmation.last_status),
        (11, None)
    );

    drop(silent);
    bench.control.forget_deliveries();
    bench
        .control
        .subscribe(Event::OnDigitized, &url)
        .expect("good");
    bench.control.idle().await;
    assert_eq!(bench.control.deliveries()[0].outcome, Outcome::GivenUp);
}

#[tokio::test]
async fn a_long_wait_ends_when_the_control_api_says_so() {
    let (bench, webhook) = Bench::with_webhook("time_scale=1000", Event::OnExported).await;
    webhook.will_answer(&[500]);
    bench.export(1);
    while outcomes(&bench) != [(Outcome::Pending, 1, Some(500))] {
        tokio::task::yield_now().await;
    }
    let idle = bench.control.idle();
    tokio::pin!(idle);
    loop {
        bench.control.retry_now();
        tokio::select! {
            biased;
            () = &mut idle => break,
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(outcomes(&bench), [(Outcome::Acknowledged, 2, Some(200))]);
}

#[tokio::test]
async fn a_confirmation_needs_its_own_topic_and_a_fresh_token() {
    let bench = Bench::start("").await;
    let webhook = Webhook::start().await;
    let arn = bench
        .control
        .subscribe(Event::OnExported, &webhook.url)
        .expect("good");
    bench.control.idle().await;
    let url = webhook.take().remove(0).field("SubscribeURL");
    let state = || bench.control.subscriptions()[0].state;

    let other_topic = url.replace("onexport", "ondigitize");
    let no_topic = url.replace("onexport", "other");
    let bad_token = format!("{url}0");
    for (url, status, code) in [
        (&other_topic, 400, "InvalidParameter"),
        (&no_topic, 404, "NotFound"),
        (&bad_token, 400, "InvalidParameter"),
    ] {
        let answer = read(bench.http.get(url)).await;
        assert_eq!(answer.status, status);
        assert!(answer.text().contains(&format!("<Code>{code}</Code>")));
    }
    bench.control.advance(Duration::from_secs(2 * 86_400 + 1));
    assert_eq!(
        read(bench.http.get(&url)).await.status,
        400,
        "after two days"
    );
    assert_eq!(state(), SubscriptionState::Pending);

    bench.control.set_clock(start_time());
    let answer = read(bench.http.get(&url)).await;
    assert_eq!(answer.status, 200);
    let text = answer.text();
    assert!(text.starts_with("<ConfirmSubscriptionResponse "));
    assert!(text.contains(&format!("<SubscriptionArn>{arn}</SubscriptionArn>")));
    assert_eq!(state(), SubscriptionState::Confirmed);
    assert_eq!(bench.control.requests().count(Endpoint::Confirm), 5);
}

#[tokio::test]
async fn nothing_is_published_to_a_subscription_that_is_not_confirmed() {
    let bench = Bench::start("").await;
    let webhook = Webhook::start().await;
    bench
        .control
        .subscribe(Event::OnExported, &webhook.url)
        .expect("good");
    bench.export(1);
    bench.control.idle().await;
    assert_eq!(webhook.take().len(), 1, "only the confirmation");
}

#[tokio::test]
async fn an_ended_subscription_gets_nothing_until_it_is_restored() {
    let (bench, webhook) = Bench::with_webhook("", Event::OnExported).await;
    bench.export(1);
    bench.control.idle().await;
    let unsubscribe = webhook.take().remove(0).field("UnsubscribeURL");
    assert_eq!(read(bench.http.get(&unsubscribe)).await.status, 200);
    bench.export(1);
    bench.control.idle().await;
    let goodbye = webhook.take();
    assert_eq!(goodbye.len(), 1);
    assert_eq!(goodbye[0].field("Type"), "UnsubscribeConfirmation");

    assert_eq!(
        read(bench.http.get(goodbye[0].field("SubscribeURL")))
            .await
            .status,
        200
    );
    bench.export(1);
    bench.control.idle().await;
    assert_eq!(webhook.take()[0].field("Type"), "Notification");
    assert!(!bench.control.unsubscribe("arn:aws:sns:eu-west-1:1:none"));
}

#[tokio::test]
async fn topics_of_another_owner_have_subscriptions_of_their_own() {
    let bench = Bench::start("").await;
    let (old, new) = (Webhook::start().await, Webhook::start().await);
    old.subscribe(&bench, Event::OnExported).await;
    let old_topic = bench.emulator.exported_topic_arn();

    bench.switch("topic_owner=007268210879");
    let topic = "arn:aws:sns:eu-west-1:007268210879:DPWebHook_onexport";
    let arn = new.subscribe(&bench, Event::OnExported).await;
    bench.export(1);
    bench.control.idle().await;

    assert!(arn.starts_with(topic), "{arn}");
    assert_eq!(bench.emulator.exported_topic_arn(), topic);
    let deliveries = new.take();
    assert_eq!(deliveries.len(), 1);
    assert_eq!(deliveries[0].field("TopicArn"), topic);
    let error = verify(&bench, &deliveries[0]).await.unwrap_err();
    assert_eq!(error.code(), "topic_not_allowed");
    assert!(old.take().is_empty());

    let back = format!(
        "topic_owner={}",
        old_topic.split(':').nth(4).expect("an account")
    );
    bench.switch(&back);
    bench.export(1);
    bench.control.idle().await;
    let deliveries = old.take();
    assert_eq!(deliveries[0].field("TopicArn"), old_topic);
    verify(&bench, &deliveries[0]).await.expect("genuine");
}

#[tokio::test]
async fn copies_share_a_message_id_and_lost_messages_never_arrive() {
    let (bench, webhook) = Bench::with_webhook("", Event::OnExported).await;
    let publication = Publication {
        copies: 8,
        ..Publication::exported(COMPANY)
    };
    let id = bench.publish(&publication).await;
    let copies = webhook.take();
    assert_eq!(copies.len(), 8);
    assert!(copies.iter().all(|copy| copy.field("MessageId") == id));

    bench.control.forget_deliveries();
    bench.control.lose_next_notifications(1);
    bench.export(1);
    bench.export(1);
    bench.control.idle().await;
    assert_eq!(webhook.take().len(), 1);
    let last: Vec<Outcome> = outcomes(&bench)
        .into_iter()
        .map(|(outcome, _, _)| outcome)
        .collect();
    assert_eq!(last, [Outcome::Lost, Outcome::Acknowledged]);
}

#[tokio::test]
async fn tampered_foreign_and_stale_messages_are_refused_as_such() {
    let (bench, webhook) = Bench::with_webhook("", Event::OnExported).await;
    let ordinary = Publication::exported(COMPANY);
    let foreign = "arn:aws:sns:eu-west-1:111122223333:DPWebHook_onexport".to_owned();
    let yesterday = bench
        .control
        .now()
        .before(Duration::from_secs(86_400))
        .to_string();
    for (publication, code) in [
        (
            Publication {
                tamper: Tamper::Signature,
                ..ordinary.clone()
            },
            "signature_mismatch",
        ),
        (
            Publication {
                tamper: Tamper::Message,
                ..ordinary.clone()
            },
            "signature_mismatch",
        ),
        (
            Publication {
                topic_arn: Some(foreign),
                ..ordinary.clone()
            },
            "topic_not_allowed",
        ),
        (
            Publication {
                timestamp: Some(yesterday),
                ..ordinary.clone()
            },
            "too_old",
        ),
        (
            Publication {
                raw: true,
                ..ordinary.clone()
            },
            "raw_delivery",
        ),
    ] {
        bench.publish(&publication).await;
        let delivery = webhook.take().remove(0);
        let refusal = verify(&bench, &delivery).await.expect_err(code);
        assert_eq!(refusal.code(), code);
    }
    let subject = Publication {
        subject: Some("Sąskaita".to_owned()),
        ..ordinary
    };
    bench.publish(&subject).await;
    let verified = verify(&bench, &webhook.take()[0]).await.expect("genuine");
    assert_eq!(verified.subject(), Some("Sąskaita"));
}

#[tokio::test]
async fn after_a_rotation_old_and_new_messages_verify() {
    let (bench, webhook) = Bench::with_webhook("", Event::OnExported).await;
    bench.export(1);
    bench.control.idle().await;
    bench.control.rotate_certificate().expect("a certificate");
    bench.export(1);
    bench.control.idle().await;
    let deliveries = webhook.take();
    let urls: BTreeSet<String> = deliveries
        .iter()
        .map(|d| d.field("SigningCertURL"))
        .collect();
    assert_eq!(urls.len(), 2);
    assert!(urls.contains(&bench.control.certificate_url()));
    for delivery in &deliveries {
        verify(&bench, delivery).await.expect("genuine");
    }
    assert_eq!(bench.control.requests().count(Endpoint::Certificate), 2);
}

#[tokio::test]
async fn a_subscription_through_the_api_is_asked_to_confirm_once() {
    let bench = Bench::start("").await;
    let webhook = Webhook::start().await;
    let body = json!({ "name": "ours", "eventType": "on_digitized", "target": webhook.url });
    assert_eq!(bench.post("/subscriptions", &body).await.status, 200);
    bench.control.idle().await;
    let confirmation = webhook.take().remove(0);
    assert_eq!(
        confirmation.field("TopicArn"),
        bench.emulator.digitized_topic_arn()
    );
    read(bench.http.get(confirmation.field("SubscribeURL"))).await;
    assert_eq!(bench.post("/subscriptions", &body).await.status, 200);
    bench.control.idle().await;
    assert!(webhook.take().is_empty(), "it is subscribed already");
    assert_eq!(bench.control.subscriptions().len(), 1);
}

#[tokio::test]
async fn a_thousand_notifications_are_all_delivered() {
    let (bench, webhook) = Bench::with_webhook("", Event::OnExported).await;
    for _ in 0..1000 {
        bench
            .control
            .notify(&Publication::exported(COMPANY))
            .expect("published");
    }
    bench.control.idle().await;
    let ids: BTreeSet<String> = webhook
        .take()
        .iter()
        .map(|delivery| delivery.headers["x-amz-sns-message-id"].clone())
        .collect();
    assert_eq!(ids.len(), 1000);
    assert!(
        outcomes(&bench)
            .iter()
            .all(|o| *o == (Outcome::Acknowledged, 1, Some(200)))
    );
}

#[tokio::test]
async fn deliveries_run_in_parallel_up_to_the_bound() {
    let bench = Bench::start_with("", 2).await;
    // Each delivery waits for another one, so with a bound of one none would end.
    let pair = Arc::new(tokio::sync::Barrier::new(2));
    let counts = Arc::new(Mutex::new((0_usize, 0_usize)));
    let counted = Arc::clone(&counts);
    let handler = async move || {
        {
            let mut counts = counted.lock().expect("not poisoned");
            counts.0 += 1;
            counts.1 = counts.1.max(counts.0);
        }
        pair.wait().await;
        counted.lock().expect("not poisoned").0 -= 1;
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let router = Router::new().fallback(handler);
    tokio::spawn(axum::serve(listener, router).into_future());

    for number in 0..20 {
        let target = format!("{url}{number}");
        bench
            .control
            .subscribe(Event::OnDigitized, &target)
            .expect("good");
    }
    bench.control.idle().await;
    assert_eq!(counts.lock().expect("not poisoned").1, 2);
}

#[tokio::test]
async fn no_secret_is_printed() {
    let bench = Bench::start("").await;
    let webhook = Webhook::start().await;
    bench
        .control
        .subscribe(Event::OnExported, &webhook.url)
        .expect("good");
    bench.control.idle().await;
    let token = webhook.take()[0].field("Token");
    let settings = EmulatorSettings::default();
    let printed = format!(
        "{:?} {:?} {:?} {settings:?} {:?} {} {}",
        bench.control.subscriptions(),
        bench.control.deliveries(),
        bench.emulator,
        settings.accounts,
        json!(bench.control.subscriptions()),
        json!(bench.control.deliveries()),
    );
    for secret in [token.as_str(), webhook.url.as_str(), DEFAULT_KEY] {
        assert!(!printed.contains(secret));
    }
}

#[tokio::test]
async fn a_stopped_emulator_leaves_nothing_running() {
    let (bench, webhook) = Bench::with_webhook("", Event::OnExported).await;
    webhook.will_answer(&[500]);
    bench.export(1);
    let origin = bench.emulator.origin();
    bench.emulator.stop().await;
    bench.control.idle().await;
    assert!(bench.http.get(origin).send().await.is_err());
}
