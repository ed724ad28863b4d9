//! What the private listener promises, and the subcommands that use it.

use ivesk_webhook::cli::server::{Api, RunningServer};
use ivesk_webhook::config::Config;
use ivesk_webhook::store::{PullKind, Store};
use reqwest::Method;
use serde_json::{Value, json};

use crate::receiver::app::{TestApp, code};
use crate::receiver::fake_sns::{FOREIGN_TOPIC, Message};

#[tokio::test]
async fn status_tells_what_is_missing() {
    let app = TestApp::with(|config| config.api.exported_path = None).await;

    let status = app.admin("/v1/status").await;

    assert_eq!(status["service"], "ivesk-webhook");
    assert_eq!(status["ready"], true);
    let missing = json!([
        {"account": "default", "queue": "exported", "missing": "api_key"},
        {"account": "default", "queue": "digitized", "missing": "api_key"},
    ]);
    assert_eq!(status["blocked"], missing);
}

#[tokio::test]
async fn an_unknown_exported_path_is_told_as_blocked() {
    let app = TestApp::with(|config| {
        config.api.exported_path = None;
        let account = config.accounts.values_mut().next().unwrap();
        account.api_key = Some("planted-api-key".to_owned().into());
    })
    .await;

    let status = app.admin("/v1/status").await;

    let blocked = json!([{"account": "default", "queue": "exported", "missing": "exported_path"}]);
    assert_eq!(status["blocked"], blocked);
    assert!(!status.to_string().contains("planted"));
}

#[tokio::test]
async fn without_a_token_only_names_of_this_machine_are_answered() {
    let app = TestApp::spawn().await;
    for path in ["/v1/status", "/metrics", "/v1/nothing"] {
        let request = app
            .private(Method::GET, path)
            .header("host", "rebound.example:8081");
        let answer = code(request.send().await.unwrap()).await;
        assert_eq!(answer, (403, "foreign_host".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn a_web_page_can_t_post() {
    let app = TestApp::spawn().await;
    let form = app
        .private(Method::POST, "/v1/pull")
        .header("content-type", "text/plain")
        .body("{}");
    assert_eq!(code(form.send().await.unwrap()).await.0, 415);
    let script = app
        .private(Method::POST, "/v1/pull")
        .header("content-type", "application/json")
        .header("origin", "http://localhost:3000")
        .body("{}");
    assert_eq!(code(script.send().await.unwrap()).await.0, 415);
}

#[tokio::test]
async fn with_a_token_nothing_but_health_is_told_without_it() {
    let app = TestApp::with(|config| {
        config.private.token = Some("private-token".to_owned().into());
    })
    .await;
    for path in ["/v1/status", "/metrics", "/v1/feeds", "/v1/quarantine"] {
        let bare = app.private(Method::GET, path).send().await.unwrap();
        assert_eq!(code(bare).await, (401, "unauthorized".to_owned()), "{path}");
        let wrong = app.private(Method::GET, path).bearer_auth("private-tokem");
        assert_eq!(wrong.send().await.unwrap().status(), 401, "{path}");
        let right = app.private(Method::GET, path).bearer_auth("private-token");
        assert_eq!(right.send().await.unwrap().status(), 200, "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        let bare = app.private(Method::GET, path).send().await.unwrap();
        assert_eq!(bare.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn a_pull_raises_the_feeds_it_names() {
    let app = TestApp::spawn().await;
    let (status, answer) = app
        .admin_post("/v1/pull", &json!({"company": "00302320404"}))
        .await;
    assert_eq!(status, 200);
    let feed = json!({"account": "default", "queue": "exported", "company": "00302320404"});
    assert_eq!(answer, json!({"feeds": [feed]}));
    let feeds = app.admin("/v1/feeds").await;
    let wanted = feeds[0]["wanted"].as_array().unwrap();
    assert!(wanted.contains(&json!("hint")), "{wanted:?}");

    let backfill = json!({"queue": "digitized", "from": "2020-01-01T00:00:00.000Z"});
    app.admin_post("/v1/pull", &backfill).await;
    let feeds = app.store.feeds().await.unwrap();
    let digitized = feeds
        .iter()
        .find(|row| row.feed.to_string() == "default/digitized");
    let wanted = &digitized.unwrap().wanted;
    assert!(wanted.contains(&PullKind::Backfill), "{wanted:?}");

    let second = json!({"from": "2024-01-01T00:00:00.000Z"});
    let (status, problem) = app.admin_post("/v1/pull", &second).await;
    assert_eq!(status, 409, "the first is not cut short: {problem}");
    let title = problem["title"].as_str().unwrap();
    assert!(title.contains("default/digitized"), "{title}");
    let feeds = app.store.feeds().await.unwrap();
    let company = feeds
        .iter()
        .find(|row| row.feed.to_string() == "default/exported/00302320404");
    let wanted = &company.unwrap().wanted;
    assert!(!wanted.contains(&PullKind::Backfill), "all or nothing");
    let elsewhere = json!({"company": "00302320404", "from": "2024-01-01T00:00:00.000Z"});
    assert_eq!(app.admin_post("/v1/pull", &elsewhere).await.0, 200);
    let hint = json!({"queue": "digitized"});
    assert_eq!(app.admin_post("/v1/pull", &hint).await.0, 200);

    for wrong in [
        json!({"account": "nobody"}),
        json!({"queue": "imported"}),
        json!({"compnay": "1"}),
        json!([]),
    ] {
        let (status, problem) = app.admin_post("/v1/pull", &wrong).await;
        assert_eq!(
            (status.as_u16(), &problem["code"]),
            (400, &json!("bad_request")),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn feeds_are_parked_and_resumed_by_name() {
    let app = TestApp::spawn().await;
    app.deliver(&Message::notification(&app.sns)).await;
    let feed = json!({"account": "default", "company": "302320404"});

    let (_, answer) = app.admin_post("/v1/feeds/park", &feed).await;
    assert_eq!(answer, json!({"changed": 1}));
    assert_eq!(app.admin("/v1/feeds").await[0]["parked"], "by_hand");

    app.admin_post("/v1/feeds/resume", &feed).await;
    assert_eq!(app.admin("/v1/feeds").await[0]["parked"], Value::Null);
}

#[tokio::test]
async fn a_backup_is_written_while_it_runs() {
    let app = TestApp::spawn().await;
    app.deliver(&Message::notification(&app.sns)).await;
    let path = app.dir().join("backup.db");

    let (status, answer) = app.admin_post("/v1/backup", &json!({"path": path})).await;
    assert_eq!(status, 200, "{answer}");
    assert!(path.metadata().unwrap().len() > 0);

    let (status, answer) = app.admin_post("/v1/backup", &json!({"path": path})).await;
    assert_eq!(status, 409, "it never replaces a file unasked: {answer}");
    let forced = json!({"path": path, "force": true});
    assert_eq!(app.admin_post("/v1/backup", &forced).await.0, 200);
    let live = json!({"path": app.dir().join("test.db"), "force": true});
    let (status, answer) = app.admin_post("/v1/backup", &live).await;
    assert_eq!(status, 400, "{answer}");

    let (status, _) = app
        .admin_post("/v1/backup", &json!({"path": "relative.db"}))
        .await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn a_quarantined_delivery_is_judged_anew_as_of_its_receipt() {
    let app = TestApp::spawn().await;
    app.sns.set_certificate_down(true);
    let message = Message::notification(&app.sns);
    assert_eq!(app.deliver(&message).await.status(), 503);
    let row = app.quarantine().await.remove(0);
    assert_eq!(row.reason, "certificate_unavailable");
    assert!(!row.headers.contains("host"), "{}", row.headers);

    // A day later the message is too old to be delivered, not to be retried.
    app.clock.advance(std::time::Duration::from_secs(86_400));
    assert_eq!(app.deliver(&message).await.status(), 503);
    app.sns.set_certificate_down(false);
    app.clock.advance(std::time::Duration::from_secs(300));
    let path = format!("/v1/quarantine/{}/retry", row.id);
    let (_, outcome) = app.admin_post(&path, &json!({})).await;

    assert_eq!(outcome["accepted"], true, "{outcome}");
    assert_eq!(app.stored_ids().await, [message.id()]);
    assert_eq!(
        app.admin_post(&path, &json!({})).await.0,
        404,
        "it left the quarantine"
    );
}

#[tokio::test]
async fn a_retry_that_is_refused_again_says_why_and_keeps_the_row() {
    let app = TestApp::spawn().await;
    app.deliver(&Message::notification(&app.sns).of_topic(FOREIGN_TOPIC))
        .await;
    let row = app.quarantine().await.remove(0);

    let path = format!("/v1/quarantine/{}/retry", row.id);
    let (status, outcome) = app.admin_post(&path, &json!({})).await;

    assert_eq!(status, 200);
    assert_eq!(outcome["code"], "topic_not_allowed");
    assert_eq!(app.quarantine().await.len(), 1);
}

async fn opened(config: &Config) -> Api {
    let opened = Api::open(config).await;
    opened.unwrap_or_else(|failure| panic!("{failure:?}"))
}

#[tokio::test]
async fn commands_find_the_running_server_and_work_without_one() {
    let mut app = TestApp::spawn().await;
    let message = Message::notification(&app.sns);
    app.deliver(&message).await;
    let config = app.config();

    let api = opened(&config).await;
    assert!(api.is_running_server());
    let over_http = api.rows("/v1/notifications").await.ok().unwrap();
    assert_eq!(over_http.len(), 1);

    assert!(app.stop().await);
    assert!(RunningServer::find(&config).await.ok().unwrap().is_none());
    let api = opened(&config).await;
    assert!(!api.is_running_server());
    let here = api.rows("/v1/notifications").await.ok().unwrap();
    assert_eq!(here, over_http);
    assert!(api.close().await.is_ok());
}

#[tokio::test]
async fn a_store_that_is_held_while_no_server_answers_is_told() {
    let app = TestApp::spawn().await;
    let mut config = app.config();
    config.private.listen = ([127, 0, 0, 1], 9).into();

    let failure = Api::open(&config).await.err().expect("the store is held");

    let text = format!("{failure:?}");
    assert!(text.contains("private.listen"), "{text}");
}
