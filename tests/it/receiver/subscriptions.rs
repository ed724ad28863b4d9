//! Confirming, approving, ending and restoring subscriptions.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ivesk_webhook::app::App;
use ivesk_webhook::config::ConfirmMode;
use ivesk_webhook::domain::Event;
use ivesk_webhook::metrics::{StoreSnapshot, TextFormat};
use ivesk_webhook::service::{Service, open_store, store_options};
use ivesk_webhook::store::{
    CertificateRow, IN_REQUEST, MAX_UNKNOWN_TOPICS, Store, StoreOptions, SubscriptionChange,
    SubscriptionRow, SubscriptionState,
};
use ivesk_webhook::subscriptions::{ConfirmOutcome, TOKEN_LIFE};
use serde_json::json;
use tracing::Level;
use tracing::instrument::WithSubscriber as _;

use crate::support::app::{TestApp, code};
use crate::support::captured_log::{CapturedLog, in_own_process};
use crate::support::fake_sns::{Confirming, FOREIGN_TOPIC, Message, SIGNER, STRANGER, TOPIC};
use crate::support::faults::{Fault, Faults};

/// The metric of a subscription that has ended.
const ENDED: &str =
    r#"ivesk_webhook_subscriptions{account="default",event="on_exported",state="unsubscribed"} 1"#;

#[tokio::test]
async fn a_confirmation_is_confirmed_within_its_request() {
    let app = TestApp::spawn().await;

    let answer = app.deliver(&Message::confirmation(&app.sns)).await;

    assert_eq!(answer.status(), 200);
    let row = app.subscription().await;
    assert_eq!(row.state, SubscriptionState::Confirmed);
    assert_eq!(row.topic_arn.as_deref(), Some(TOPIC));
    assert_eq!(row.subscription_arn, Some(format!("{TOPIC}:0f0e")));
    assert_eq!(app.sns.visits(), 1);
}

#[tokio::test]
async fn copies_of_a_confirmation_confirm_once() {
    let app = TestApp::spawn().await;
    let message = Message::confirmation(&app.sns);

    let answers = join_all((0..8).map(|_| app.deliver(&message))).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!(app.deliver(&message).await.status(), 200);

    assert_eq!(app.subscription().await.state, SubscriptionState::Confirmed);
    assert_eq!(app.sns.visits(), 1);
}

#[tokio::test]
async fn an_unreachable_sns_is_503_and_the_worker_retries() {
    let app = TestApp::spawn().await;
    let confirmations = &app.service().app().confirmations;
    let message = Message::confirmation(&app.sns);
    app.sns.set_confirming(Confirming::Fails);

    let answer = code(app.deliver(&message).await).await;
    assert_eq!(answer, (503, "confirmation_unavailable".to_owned()));
    let row = app.subscription().await;
    assert_eq!(row.state, SubscriptionState::Pending);
    assert_eq!(row.attempts, 1);
    assert!(app.quarantine().await.is_empty());
    // Not due yet.
    assert_eq!(
        confirmations.confirm_next().await.unwrap(),
        ConfirmOutcome::Idle
    );

    app.sns.set_confirming(Confirming::Succeeds);
    app.clock.advance(Duration::from_secs(20));
    let outcome = confirmations.confirm_next().await.unwrap();
    assert_eq!(outcome, ConfirmOutcome::Confirmed { id: row.id });
    assert_eq!(app.deliver(&message).await.status(), 200);
    assert_eq!(app.sns.visits(), 2);
}

#[tokio::test]
async fn the_worker_confirms_what_its_request_did_not() {
    let app = TestApp::spawn().await;
    let confirmations = &app.service().app().confirmations;
    app.faults.set(Some(Fault::AnswerLost));
    let message = Message::confirmation(&app.sns);
    assert_eq!(app.deliver(&message).await.status(), 503);
    app.faults.set(None);
    assert_eq!(app.subscription().await.state, SubscriptionState::Pending);
    // It may still be the request's.
    let outcome = confirmations.confirm_next().await.unwrap();
    assert_eq!(outcome, ConfirmOutcome::Idle);
    assert_eq!(app.sns.visits(), 0);

    app.clock.advance(IN_REQUEST);
    confirmations.confirm_next().await.unwrap();
    assert_eq!(app.subscription().await.state, SubscriptionState::Confirmed);
    assert_eq!(app.sns.visits(), 1);
}

/// A clock that was ahead wrote when to try again.
#[tokio::test]
async fn a_confirmation_that_waits_for_the_future_is_retried() {
    let app = TestApp::spawn().await;
    let confirmations = &app.service().app().confirmations;
    app.sns.set_confirming(Confirming::Fails);
    app.deliver(&Message::confirmation(&app.sns)).await;
    let row = app.subscription().await;
    let failed = SubscriptionChange::AttemptFailed {
        token: row.token,
        error: "HTTP 503".to_owned(),
        next_try_at: Some(app.clock.now().after(TOKEN_LIFE)),
    };
    let now = app.clock.now();
    let changed = app.store.change_subscription(row.id, failed, now).await;
    changed.unwrap();
    app.sns.set_confirming(Confirming::Succeeds);
    let outcome = confirmations.confirm_next().await.unwrap();
    assert_eq!(outcome, ConfirmOutcome::Confirmed { id: row.id });
}

#[tokio::test]
async fn the_worker_gives_up_when_the_token_has_run_out() {
    let app = TestApp::spawn().await;
    let confirmations = &app.service().app().confirmations;
    app.sns.set_confirming(Confirming::Fails);
    app.deliver(&Message::confirmation(&app.sns)).await;

    app.clock.advance(TOKEN_LIFE);
    let outcome = confirmations.confirm_next().await.unwrap();
    assert!(
        matches!(
            outcome,
            ConfirmOutcome::Failed {
                next_try_at: None,
                ..
            }
        ),
        "{outcome:?}"
    );

    app.clock.advance(TOKEN_LIFE);
    assert_eq!(
        confirmations.confirm_next().await.unwrap(),
        ConfirmOutcome::Idle
    );
    assert_eq!(app.sns.visits(), 2);
    let row = app.subscription().await;
    assert_eq!(row.state, SubscriptionState::Failed);
    let error = row.last_error.unwrap();
    assert!(error.contains("expired after two days"), "{error}");
}

#[tokio::test]
async fn a_final_refusal_of_sns_is_not_retried() {
    let app = TestApp::spawn().await;
    app.sns.set_confirming(Confirming::IsRefused);

    assert_eq!(
        app.deliver(&Message::confirmation(&app.sns)).await.status(),
        200
    );

    let row = app.subscription().await;
    assert_eq!(
        (row.state, row.next_try_at),
        (SubscriptionState::Failed, None)
    );
    let error = row.last_error.unwrap();
    assert!(error.contains("InvalidParameter"), "{error}");
    app.clock.advance(TOKEN_LIFE);
    let confirmations = &app.service().app().confirmations;
    let outcome = confirmations.confirm_next().await.unwrap();
    assert_eq!(outcome, ConfirmOutcome::Idle);
    assert_eq!(app.sns.visits(), 1);
    let failed =
        r#"ivesk_webhook_subscriptions{account="default",event="on_exported",state="failed"} 1"#;
    assert!(app.metrics().await.contains(failed));

    // The way out.
    app.sns.set_confirming(Confirming::Succeeds);
    let path = format!("/v1/subscriptions/{}/restore", row.id);
    let (_, outcome) = app.admin_post(&path, &json!({})).await;
    assert_eq!(outcome["confirmed"], true, "{outcome}");
}

#[tokio::test]
async fn a_web_filters_answer_is_retried_until_sns_answers() {
    let app = TestApp::spawn().await;
    let confirmations = &app.service().app().confirmations;
    app.sns.set_confirming(Confirming::IsFiltered);
    let message = Message::confirmation(&app.sns);

    let answer = code(app.deliver(&message).await).await;
    assert_eq!(answer, (503, "confirmation_unavailable".to_owned()));
    let row = app.subscription().await;
    assert_eq!((row.state, row.attempts), (SubscriptionState::Pending, 1));
    let error = row.last_error.unwrap();
    assert!(
        error.contains("403") && error.contains("web filter"),
        "{error}"
    );

    app.sns.set_confirming(Confirming::Succeeds);
    app.clock.advance(Duration::from_secs(20));
    let outcome = confirmations.confirm_next().await.unwrap();
    assert_eq!(outcome, ConfirmOutcome::Confirmed { id: row.id });
}

#[tokio::test]
async fn in_ask_mode_a_person_approves() {
    let app = TestApp::with(|config| config.sns.confirm = ConfirmMode::Ask).await;

    assert_eq!(
        app.deliver(&Message::confirmation(&app.sns)).await.status(),
        200
    );
    let row = app.subscription().await;
    assert_eq!(row.state, SubscriptionState::AwaitingApproval);
    assert_eq!(app.sns.visits(), 0);

    let path = format!("/v1/subscriptions/{}/approve", row.id);
    let (status, outcome) = app.admin_post(&path, &json!({})).await;
    assert_eq!(status, 200);
    assert_eq!(outcome["confirmed"], true);
    assert_eq!(app.subscription().await.state, SubscriptionState::Confirmed);

    let (status, problem) = app.admin_post(&path, &json!({})).await;
    assert_eq!(
        (status.as_u16(), problem["code"].as_str()),
        (409, Some("conflict"))
    );
    let (status, _) = app
        .admin_post("/v1/subscriptions/999/approve", &json!({}))
        .await;
    assert_eq!(status, 404);
    assert_eq!(app.sns.visits(), 1);
}

#[tokio::test]
async fn an_ended_subscription_raises_the_alarm_and_can_be_restored() {
    let app = TestApp::spawn().await;
    app.deliver(&Message::confirmation(&app.sns)).await;
    app.clock.advance(Duration::from_secs(60));
    let ended = Message::ended(&app.sns).published_at(app.clock.now());

    assert_eq!(app.deliver(&ended).await.status(), 200);
    assert_eq!(app.deliver(&ended).await.status(), 200);

    let row = app.subscription().await;
    assert_eq!(row.state, SubscriptionState::Unsubscribed);
    let alarm = r#"ivesk_webhook_unsubscribe_confirmations_total{event="on_exported"} 1"#;
    let metrics = app.metrics().await;
    assert!(metrics.contains(alarm), "{metrics}");
    assert!(metrics.contains(ENDED), "{metrics}");
    assert_eq!(app.sns.visits(), 1, "nothing is requested automatically");

    let path = format!("/v1/subscriptions/{}/restore", row.id);
    let (_, outcome) = app.admin_post(&path, &json!({})).await;
    assert_eq!(outcome["confirmed"], true);
    assert_eq!(app.subscription().await.state, SubscriptionState::Confirmed);
    assert_eq!(app.sns.visits(), 2);
    assert!(!app.metrics().await.contains(ENDED), "the alarm is over");
}

#[tokio::test]
async fn an_ended_subscription_is_reported_at_each_start() {
    in_own_process!(an_ended_subscription_is_reported_at_each_start);
    let mut app = TestApp::spawn().await;
    app.deliver(&Message::confirmation(&app.sns)).await;
    app.clock.advance(Duration::from_secs(60));
    let ended = Message::ended(&app.sns).published_at(app.clock.now());
    app.deliver(&ended).await;
    let mut config = app.config();
    config.public.listen.set_port(0);
    config.admin.listen.set_port(0);
    assert!(app.stop().await);

    let captured = CapturedLog::new();
    let store = open_store(&config, &app.clock).await.unwrap();
    // The first process's counters are lost; its rows are not.
    let service = Service::start_with(config, store, app.clock.clone())
        .with_subscriber(captured.subscriber(Level::INFO))
        .await
        .unwrap();

    let log = captured.text();
    let line = log.lines().find(|line| line.contains("has ended"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("ERROR"), "{line}");
    assert!(line.contains("default/on_exported"), "{line}");
    let rows = service.app().store.subscriptions().await.unwrap();
    assert_eq!(rows.len(), 1);
    let stored = StoreSnapshot::read(service.app().store.as_ref(), app.clock.now()).await;
    let metrics = service
        .app()
        .metrics
        .render(&stored.unwrap(), TextFormat::Prometheus);
    assert!(metrics.contains(ENDED), "{metrics}");
    assert!(service.stop().await);
}

/// Returns handles that no worker uses, on the same store.
fn other_handles(app: &TestApp) -> Arc<App> {
    App::assemble(app.config(), app.store.clone(), app.clock.clone()).unwrap()
}

/// Returns the lines that are logged now about subscriptions.
async fn problems(app: &TestApp, handles: &App) -> Vec<String> {
    let captured = CapturedLog::new();
    let config = app.config();
    let logged = handles.confirmations.log_problems(&config);
    let subscriber = captured.subscriber(Level::INFO);
    logged.with_subscriber(subscriber).await.unwrap();
    let log = captured.text();
    log.lines().map(str::to_owned).collect()
}

/// Accepts a confirmation of a topic whose owner is not known; returns its row.
async fn offer_unknown(app: &TestApp) -> SubscriptionRow {
    let foreign = Message::confirmation(&app.sns).of_topic(FOREIGN_TOPIC);
    assert_eq!(app.deliver(&foreign).await.status(), 200);
    app.subscription().await
}

fn notification_of(app: &TestApp, topic_arn: &str) -> Message {
    Message::notification(&app.sns).of_topic(topic_arn)
}

#[tokio::test]
async fn a_confirmation_of_an_unknown_topic_waits_for_a_person() {
    in_own_process!(a_confirmation_of_an_unknown_topic_waits_for_a_person);
    let app = TestApp::spawn().await;
    let foreign = Message::confirmation(&app.sns).of_topic(FOREIGN_TOPIC);
    for _ in 0..3 {
        assert_eq!(app.deliver(&foreign).await.status(), 200);
    }

    let row = app.subscription().await;
    assert_eq!(row.state, SubscriptionState::UnknownTopic);
    assert_eq!(row.topic_arn.as_deref(), Some(FOREIGN_TOPIC));
    assert_eq!(app.sns.visits(), 0, "nothing is requested");
    assert!(app.stored_ids().await.is_empty(), "it is no message");
    assert!(app.quarantine().await.is_empty());
    let rows = app.admin("/v1/subscriptions").await;
    let shown = &rows["rows"][0];
    assert_eq!(shown["aws_account"], "123456789012", "{shown}");
    let fix = shown["fix"].as_str().unwrap();
    assert!(fix.contains(&format!("approve {}", row.id)), "{fix}");

    let log = problems(&app, &other_handles(&app)).await.join("\n");
    let line = log.lines().find(|line| line.contains(FOREIGN_TOPIC));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    assert!(
        line.contains("ERROR") && line.contains("123456789012"),
        "{line}"
    );
}

#[tokio::test]
async fn notifications_of_an_unknown_topic_stay_refused_by_name() {
    let app = TestApp::spawn().await;
    offer_unknown(&app).await;

    let answer = app.deliver(&notification_of(&app, FOREIGN_TOPIC)).await;

    let answer = code(answer).await;
    assert_eq!(answer, (403, "topic_not_allowed".to_owned()));
    app.quarantine().await;
    let quarantined = app.admin("/v1/quarantine").await;
    assert_eq!(quarantined["rows"][0]["topic_arn"], FOREIGN_TOPIC);
    assert!(app.stored_ids().await.is_empty());
}

#[tokio::test]
async fn an_approved_topic_is_confirmed_and_accepted_at_once() {
    let app = TestApp::spawn().await;
    let row = offer_unknown(&app).await;
    assert_eq!(
        app.deliver(&notification_of(&app, FOREIGN_TOPIC))
            .await
            .status(),
        403
    );

    let path = format!("/v1/subscriptions/{}/approve", row.id);
    let (status, outcome) = app.admin_post(&path, &json!({})).await;
    assert_eq!(status, 200, "{outcome}");
    assert_eq!(outcome["confirmed"], true, "{outcome}");
    assert_eq!(app.sns.visits(), 1);
    let row = app.subscription().await;
    assert_eq!(row.state, SubscriptionState::Confirmed);
    assert_eq!(row.subscription_arn, Some(format!("{FOREIGN_TOPIC}:0f0e")));

    let accepted = app.deliver(&notification_of(&app, FOREIGN_TOPIC)).await;
    assert_eq!(accepted.status(), 200);
    for other in [
        format!("{FOREIGN_TOPIC}2"),
        FOREIGN_TOPIC.replace("eu-west-1", "eu-north-1"),
        FOREIGN_TOPIC.replace("123456789012", "123456789013"),
    ] {
        let refused = app.deliver(&notification_of(&app, &other)).await;
        assert_eq!(refused.status(), 403, "{other}");
    }
    let (status, _) = app.admin_post(&path, &json!({})).await;
    assert_eq!(status, 409, "it waits no more");

    // What was refused before the approval is recovered.
    let id = app.quarantine().await[0].id;
    let path = format!("/v1/quarantine/{id}/retry");
    let (_, retried) = app.admin_post(&path, &json!({})).await;
    assert_eq!(retried["accepted"], true, "{retried}");
}

/// The approval is in the store: other replicas and the next start know it.
#[tokio::test]
async fn an_approval_is_known_to_replicas_and_after_a_restart() {
    let mut app = TestApp::spawn().await;
    let row = offer_unknown(&app).await;
    let mut config = app.config();
    config.public.listen.set_port(0);
    config.admin.listen.set_port(0);
    let replica = Service::start_with(config.clone(), app.store.clone(), app.clock.clone())
        .await
        .unwrap();
    let path = app.webhook(Event::OnExported);
    let deliver = async |service: &Service, message: &Message| {
        let url = format!("http://{}{path}", service.public_address());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.post(url).body(message.body()).send().await;
        answer.unwrap().status().as_u16()
    };
    let refused = deliver(&replica, &notification_of(&app, FOREIGN_TOPIC)).await;
    assert_eq!(refused, 403);

    let approve = format!("/v1/subscriptions/{}/approve", row.id);
    app.admin_post(&approve, &json!({})).await;

    let accepted = deliver(&replica, &notification_of(&app, FOREIGN_TOPIC)).await;
    assert_eq!(accepted, 200, "the other replica has not been told");
    let message = notification_of(&app, FOREIGN_TOPIC);
    drop(replica);
    assert!(app.stop().await);
    let store = open_store(&config, &app.clock).await.unwrap();
    let restarted = Service::start_with(config, store, app.clock.clone())
        .await
        .unwrap();
    assert_eq!(deliver(&restarted, &message).await, 200);
    assert!(restarted.stop().await);
}

/// A replica that knows the approval is not told that it was revoked: the store says so.
#[tokio::test]
async fn a_revoked_topic_is_refused_at_once_by_every_replica() {
    let app = TestApp::spawn().await;
    let row = offer_unknown(&app).await;
    let mut config = app.config();
    config.public.listen.set_port(0);
    config.admin.listen.set_port(0);
    let approve = format!("/v1/subscriptions/{}/approve", row.id);
    app.admin_post(&approve, &json!({})).await;
    let replica = Service::start_with(config, app.store.clone(), app.clock.clone())
        .await
        .unwrap();
    let path = app.webhook(Event::OnExported);
    let deliver = async |message: Message| {
        let url = format!("http://{}{path}", replica.public_address());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.post(url).body(message.body()).send().await;
        answer.unwrap().status().as_u16()
    };
    assert_eq!(deliver(notification_of(&app, FOREIGN_TOPIC)).await, 200);
    let listed = app.admin("/v1/subscriptions").await;
    let approver = listed["rows"][0]["topic_approved_by"].as_str().unwrap();
    assert!(approver.starts_with("token"), "{approver}");

    let topic = json!({ "topic_arn": FOREIGN_TOPIC });
    let (status, revoked) = app.admin_post("/v1/subscriptions/revoke", &topic).await;
    assert_eq!(
        (status.as_u16(), revoked),
        (200, json!({ "subscriptions": 1 }))
    );

    assert_eq!(deliver(notification_of(&app, FOREIGN_TOPIC)).await, 403);
    let here = code(app.deliver(&notification_of(&app, FOREIGN_TOPIC)).await).await;
    assert_eq!(here, (403, "topic_not_allowed".to_owned()));
    // Its confirmations wait for a person again, and are not visited.
    let visits = app.sns.visits();
    let again = Message::confirmation(&app.sns)
        .of_topic(FOREIGN_TOPIC)
        .published_at(app.clock.now());
    assert_eq!(deliver(again).await, 200);
    assert_eq!(app.sns.visits(), visits);
    assert_eq!(
        app.subscription().await.state,
        SubscriptionState::UnknownTopic
    );
    let audit = app.admin("/v1/audit").await;
    let row = &audit["rows"][0];
    assert_eq!(row["action"], "subscriptions revoke", "{audit}");
    assert!(row["subject"].as_str().unwrap().contains(FOREIGN_TOPIC));

    for (topic, expected) in [(FOREIGN_TOPIC, 404), (TOPIC, 409)] {
        let topic = json!({ "topic_arn": topic });
        let (status, _) = app.admin_post("/v1/subscriptions/revoke", &topic).await;
        assert_eq!(status, expected);
    }
}

#[tokio::test]
async fn a_store_that_cannot_say_what_is_approved_is_503() {
    let app = TestApp::spawn().await;
    let message = notification_of(&app, FOREIGN_TOPIC);
    app.faults.set(Some(Fault::Down));
    let answer = code(app.deliver(&message).await).await;
    assert_eq!(answer, (503, "store_unavailable".to_owned()));
    let foreign = Message::confirmation(&app.sns).of_topic(FOREIGN_TOPIC);
    let answer = code(app.deliver(&foreign).await).await;
    assert_eq!(answer.0, 503);

    app.faults.set(None);
    assert_eq!(app.deliver(&message).await.status(), 403);
    assert_eq!(app.deliver(&foreign).await.status(), 200);
}

#[tokio::test]
async fn a_forged_confirmation_of_an_unknown_topic_is_not_kept() {
    let app = TestApp::spawn().await;
    let foreign = || Message::confirmation(&app.sns).of_topic(FOREIGN_TOPIC);
    let forged = foreign().signed_by(&STRANGER);
    let elsewhere = foreign().with_subscribe_url("http://169.254.169.254/latest/meta-data/");
    for (message, expected) in [
        (forged, "signature_mismatch"),
        (elsewhere, "untrusted_subscribe_url"),
    ] {
        let answer = code(app.deliver(&message).await).await;
        assert_eq!(answer, (403, expected.to_owned()));
    }
    let wrong_path = format!("{}x", app.webhook(Event::OnExported));
    let answer = app.deliver_to(&wrong_path, &foreign()).await;
    assert_eq!(answer.status(), 404);
    assert!(app.store.subscriptions().await.unwrap().is_empty());
    assert_eq!(app.sns.visits(), 0);
}

#[tokio::test]
async fn more_unknown_topics_than_a_person_can_judge_are_refused() {
    let app = TestApp::spawn().await;
    for number in 0..MAX_UNKNOWN_TOPICS + 5 {
        let topic = format!("{FOREIGN_TOPIC}{number}");
        let message = Message::confirmation(&app.sns).of_topic(&topic);
        let expected = if number < MAX_UNKNOWN_TOPICS {
            200
        } else {
            403
        };
        assert_eq!(app.deliver(&message).await.status(), expected, "{number}");
    }
    assert_eq!(app.quarantine().await.len(), 5);
    // Topics that are allowed have their own place.
    let ours = Message::confirmation(&app.sns);
    assert_eq!(app.deliver(&ours).await.status(), 200);
    assert_eq!(app.sns.visits(), 1);
}

#[tokio::test]
async fn a_topic_approved_after_two_days_must_be_subscribed_again() {
    let app = TestApp::spawn().await;
    let row = offer_unknown(&app).await;
    app.clock.advance(TOKEN_LIFE + Duration::from_secs(1));

    let path = format!("/v1/subscriptions/{}/approve", row.id);
    let (status, outcome) = app.admin_post(&path, &json!({})).await;
    assert_eq!(
        (status.as_u16(), &outcome["confirmed"]),
        (200, &json!(false))
    );
    let error = outcome["error"].as_str().unwrap();
    assert!(error.contains("subscribe again"), "{error}");
    assert_eq!(app.sns.visits(), 0);
    assert_eq!(app.subscription().await.state, SubscriptionState::Failed);

    // The topic is allowed: the next confirmation is confirmed at once.
    let again = Message::confirmation(&app.sns)
        .of_topic(FOREIGN_TOPIC)
        .published_at(app.clock.now());
    assert_eq!(app.deliver(&again).await.status(), 200);
    assert_eq!(app.subscription().await.state, SubscriptionState::Confirmed);
}

/// The older subscription of two ends; the signed text names it.
#[tokio::test]
async fn the_end_of_an_older_subscription_leaves_the_live_one() {
    let app = TestApp::spawn().await;
    app.deliver(&Message::confirmation(&app.sns)).await;
    app.clock.advance(Duration::from_secs(60));
    let old = format!("{TOPIC}:01d5");
    let ended = Message::ended(&app.sns)
        .of_subscription(&old)
        .published_at(app.clock.now());

    assert_eq!(app.deliver(&ended).await.status(), 200);

    let rows = app.store.subscriptions().await.unwrap();
    let states: Vec<_> = rows
        .iter()
        .map(|row| (row.state, row.subscription_arn.clone()))
        .collect();
    assert_eq!(
        states,
        [
            (SubscriptionState::Confirmed, Some(format!("{TOPIC}:0f0e"))),
            (SubscriptionState::Unsubscribed, Some(old)),
        ]
    );
    let listed = app.admin("/v1/subscriptions").await;
    for row in listed["rows"].as_array().unwrap() {
        assert_eq!(row["fix"], json!(null), "{row}");
    }
    assert_eq!(app.sns.visits(), 1);
}

#[tokio::test]
async fn a_missing_subscription_is_loud_and_rarely_repeated() {
    in_own_process!(a_missing_subscription_is_loud_and_rarely_repeated);
    let app = TestApp::spawn().await;
    let handles = other_handles(&app);
    let lines = async || problems(&app, &handles).await;
    assert_eq!(lines().await.len(), 1);
    assert!(lines().await.is_empty(), "not again at once");
    app.clock.advance(Duration::from_secs(6 * 3600));
    let repeated = lines().await;
    assert_eq!(repeated.len(), 1, "{repeated:?}");
    assert!(repeated[0].contains("default/on_exported has no subscription"));
    assert!(repeated[0].contains("subscriptions create"), "{repeated:?}");
    assert!(lines().await.is_empty(), "not twice");

    let (_, requested) = app
        .admin_post(
            "/v1/subscriptions/requested",
            &json!({"account": "default", "event": "on_exported", "name": "hook"}),
        )
        .await;
    assert!(requested["id"].is_number(), "{requested}");
    assert!(lines().await.is_empty(), "SNS may take a while");
    app.clock.advance(Duration::from_secs(120));
    let waiting = lines().await;
    assert!(waiting[0].contains("SNS has not asked"), "{waiting:?}");
    assert!(waiting[0].contains("doctor"), "{waiting:?}");

    let message = Message::confirmation(&app.sns).published_at(app.clock.now());
    app.deliver(&message).await;
    app.clock.advance(Duration::from_secs(24 * 3600));
    assert!(lines().await.is_empty(), "it is confirmed");
}

#[tokio::test]
async fn the_first_message_after_a_restart_waits_for_no_read() {
    let mut app = TestApp::spawn().await;
    let url = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123.pem";
    let row = CertificateRow {
        url: url.to_owned(),
        pem: SIGNER.certificate_pem().as_bytes().to_vec(),
        fetched_at: app.clock.now(),
    };
    app.store.keep_certificate(row).await.unwrap();
    let message = Message::notification(&app.sns).with_certificate_at(url);
    let path = app.webhook(Event::OnExported);
    let mut config = app.config();
    config.public.listen.set_port(0);
    config.admin.listen.set_port(0);
    assert!(app.stop().await);

    let faults = Faults::none();
    let options = StoreOptions {
        hooks: Some(faults.clone()),
        ..store_options(&config, &app.clock)
    };
    let store = Arc::new(Store::open(options).await.unwrap());
    let service = Service::start_with(config, store, app.clock.clone())
        .await
        .unwrap();
    faults.set(Some(Fault::ReadsHang));

    let address = format!("http://{}{path}", service.public_address());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.post(address).body(message.body()).send().await;
    assert_eq!(answer.unwrap().status(), 200);
}
