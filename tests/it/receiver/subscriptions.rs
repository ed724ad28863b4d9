//! Confirming, approving, ending and restoring subscriptions.

use std::time::Duration;

use futures_util::future::join_all;
use ivesk_webhook::config::ConfirmMode;
use ivesk_webhook::metrics::{StoreSnapshot, TextFormat};
use ivesk_webhook::service::{Service, open_store};
use ivesk_webhook::store::SubscriptionState;
use ivesk_webhook::subscriptions::{ConfirmOutcome, TOKEN_LIFE};
use serde_json::json;
use tracing::Level;
use tracing::instrument::WithSubscriber as _;

use crate::support::app::{TestApp, code};
use crate::support::captured_log::CapturedLog;
use crate::support::fake_sns::{Confirming, FOREIGN_TOPIC, Message, TOPIC};

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
        (SubscriptionState::Pending, None)
    );
    let error = row.last_error.unwrap();
    assert!(error.contains("InvalidParameter"), "{error}");
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
    let mut app = TestApp::spawn().await;
    app.deliver(&Message::confirmation(&app.sns)).await;
    app.clock.advance(Duration::from_secs(60));
    let ended = Message::ended(&app.sns).published_at(app.clock.now());
    app.deliver(&ended).await;
    let mut config = app.config();
    config.public.listen.set_port(0);
    config.admin.listen.set_port(0);
    assert!(app.stop().await);

    let captured = CapturedLog::default();
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

#[tokio::test]
async fn a_confirmation_of_a_strangers_topic_visits_nothing() {
    let app = TestApp::spawn().await;

    let foreign = Message::confirmation(&app.sns).of_topic(FOREIGN_TOPIC);
    let answer = code(app.deliver(&foreign).await).await;

    assert_eq!(answer, (403, "topic_not_allowed".to_owned()));
    assert_eq!(app.sns.visits(), 0);
    assert!(app.store.subscriptions().await.unwrap().is_empty());
}
