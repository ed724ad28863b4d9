//! The admin API, and the commands that use it.

use ivesk_webhook::cli::server::{Api, RunningServer};
use ivesk_webhook::config::Config;
use ivesk_webhook::store::{AlarmKind, AlarmObservation, Finding, TriggerKind};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{TestApp, code};
use crate::support::fake_sns::{FOREIGN_TOPIC, Message};
use crate::support::faults::Fault;

#[tokio::test]
async fn status_names_what_is_missing() {
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
async fn an_unknown_exported_path_is_shown_as_blocked() {
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
async fn the_alarms_are_read_to_their_end_with_a_fault_of_the_store() {
    let app = TestApp::spawn().await;
    let found = ["one", "two"].map(|subject| Finding {
        kind: AlarmKind::Silence,
        subject: subject.to_owned(),
        text: String::new(),
    });
    let updated = app.store.update_alarms(AlarmObservation {
        now: app.clock.now(),
        found: found.to_vec(),
        notify: false,
    });
    updated.await.expect("stored");
    app.faults.set(Some(Fault::DiskFull));
    assert_eq!(app.get("/readyz").await, 503);

    let first = app.admin("/v1/alarms?limit=1").await;
    let next = first["next"].as_str().expect("another page");
    let last = app.admin(&format!("/v1/alarms?limit=1&after={next}")).await;
    let subjects = |page: &Value| {
        let rows = page["rows"].as_array().expect("a list").iter();
        rows.map(|row| row["subject"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(subjects(&first), ["store", "one"]);
    assert_eq!(subjects(&last), ["two"]);
    assert_eq!(last["next"], Value::Null);
}

#[tokio::test]
async fn a_foreign_web_page_cannot_post() {
    let app = TestApp::spawn().await;
    let form = app
        .admin_request(Method::POST, "/v1/pull")
        .header("content-type", "text/plain")
        .body("{}");
    assert_eq!(code(form.send().await.unwrap()).await.0, 415);
    let script = app
        .admin_request(Method::POST, "/v1/pull")
        .header("content-type", "application/json")
        .header("origin", "http://localhost:3000")
        .body("{}");
    assert_eq!(code(script.send().await.unwrap()).await.0, 415);
}

#[tokio::test]
async fn lists_are_paged_to_their_end() {
    let app = TestApp::spawn().await;
    for _ in 0..5 {
        app.deliver(&Message::notification(&app.sns)).await;
    }
    let mut rows_read = Vec::new();
    let mut path = "/v1/notifications?limit=2".to_owned();
    let mut pages = 0;
    loop {
        let page = app.admin(&path).await;
        let rows = page["rows"].as_array().unwrap();
        assert!(rows.len() <= 2, "{page}");
        rows_read.extend(rows.iter().map(|row| row["id"].as_i64().unwrap()));
        pages += 1;
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/v1/notifications?limit=2&after={next}");
    }
    assert_eq!((rows_read, pages), (vec![1, 2, 3, 4, 5], 3));

    let first = app.admin("/v1/notifications?limit=1").await;
    let next = first["next"].as_str().unwrap();
    for wrong in [
        format!("/v1/quarantine?after={next}"),
        "/v1/notifications?after=2".to_owned(),
        "/v1/notifications?limit=0".to_owned(),
        "/v1/notifications?limit=501".to_owned(),
        "/v1/notifications?limit=x".to_owned(),
        "/v1/notifications?before=2".to_owned(),
        "/v1/quarantine/x".to_owned(),
    ] {
        let answer = app.admin_request(Method::GET, &wrong).send().await.unwrap();
        assert_eq!(
            code(answer).await,
            (400, "bad_request".to_owned()),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn a_search_finds_documents_newest_first() {
    let app = TestApp::spawn().await;
    let document = |n: usize, seller: &str| {
        json!({"id": format!("id-{n}"), "docnum": format!("AB-{n}"), "sellername": seller,
               "buyercode": "302320404", "date": "2026-11-01", "total": "12.10"})
    };
    let mut documents: Vec<Value> = (1..=2_100).map(|n| document(n, "UAB Kita")).collect();
    documents[4] = document(5, "UAB Šarka");
    app.store_documents(&documents).await;
    let sequences = |page: &Value| -> Vec<i64> {
        let rows = page["rows"].as_array().unwrap();
        rows.iter()
            .map(|row| row["sequence"].as_i64().unwrap())
            .collect()
    };

    let newest = app.admin("/v1/documents/search?limit=2").await;
    assert_eq!(sequences(&newest), [2_100, 2_099]);
    assert_eq!(newest["rows"][0]["view"]["number"], "AB-2100");
    let next = newest["next"].as_str().unwrap();
    let rest = app
        .admin(&format!("/v1/documents/search?limit=2&after={next}"))
        .await;
    assert_eq!(sequences(&rest), [2_098, 2_097]);

    for (query, expected) in [
        ("q=id-7", vec![7]),
        ("q=7", vec![7]),
        ("q=ab-1234", vec![1_234]),
        ("q=id-7&company=1", vec![7]),
        ("q=id-7&company=2", vec![]),
        ("q=7&queue=digitized", vec![]),
        ("sequence=7", vec![7]),
        ("sequence=7&company=1", vec![7]),
        ("sequence=7&company=2", vec![]),
        ("sequence=2101", vec![]),
        ("q=nothing%20like%20it&company=2", vec![]),
        ("company=1&limit=1", vec![2_100]),
    ] {
        let page = app.admin(&format!("/v1/documents/search?{query}")).await;
        assert_eq!(sequences(&page), expected, "{query}");
    }
    // However old it is.
    let page = app.admin("/v1/documents/search?q=%C5%A1arka").await;
    assert_eq!((sequences(&page), &page["next"]), (vec![5], &Value::Null));
    assert!(!page.to_string().contains("buyercode"), "{page}");

    let long = "x".repeat(101);
    for wrong in [
        format!("q={long}"),
        "account=nobody".to_owned(),
        "queue=x".to_owned(),
    ] {
        let path = format!("/v1/documents/search?{wrong}");
        let answer = app.admin_request(Method::GET, &path).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{wrong}");
    }
}

#[tokio::test]
async fn activity_is_counted_by_the_hour() {
    let app = TestApp::spawn().await;
    for _ in 0..2 {
        app.deliver(&Message::notification(&app.sns)).await;
    }
    app.deliver(&Message::notification(&app.sns).of_topic(FOREIGN_TOPIC))
        .await;
    app.quarantine().await;
    app.clock.advance(std::time::Duration::from_secs(23 * 3600));
    app.deliver(&Message::notification(&app.sns).published_at(app.clock.now()))
        .await;
    let hour = |hour: &str, count: u64| json!({"hour": format!("2026-11-{hour}:00:00.000Z"), "count": count});
    let activity = app.admin("/v1/activity").await;
    assert_eq!(
        activity["accepted"],
        json!([hour("23T08", 2), hour("24T07", 1)])
    );
    let mut refused = hour("23T08", 1);
    refused["reason"] = json!("topic_not_allowed");
    assert_eq!(activity["refused"], json!([refused]));
    app.clock.advance(std::time::Duration::from_secs(3600));
    let activity = app.admin("/v1/activity").await;
    assert_eq!(activity["accepted"], json!([hour("24T07", 1)]));
}

#[tokio::test]
async fn feeds_are_paged_in_the_order_of_their_names() {
    let app = TestApp::spawn().await;
    for company in ["7", "10", "a/b", "9"] {
        app.admin_post("/v1/pull", &json!({"company": company, "new": true}))
            .await;
    }
    app.admin_post("/v1/pull", &json!({"queue": "digitized"}))
        .await;
    let all = app.admin("/v1/feeds").await;
    let mut rows_read = Vec::new();
    let mut path = "/v1/feeds?limit=1".to_owned();
    loop {
        let page = app.admin(&path).await;
        rows_read.extend(page["rows"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/feeds?limit=1&after={next}"),
            None => break,
        }
    }
    assert_eq!(rows_read.len(), 5);
    assert_eq!(Value::Array(rows_read), all["rows"]);
}

#[tokio::test]
async fn a_wrong_method_or_a_large_body_is_answered_with_a_problem() {
    let app = TestApp::spawn().await;
    let answer = app.admin_request(Method::DELETE, "/v1/status").send().await;
    let answer = answer.unwrap();
    assert_eq!(answer.headers()["allow"], "GET,HEAD");
    assert_eq!(code(answer).await, (405, "unknown_method".to_owned()));
    let large = json!({"company": "x".repeat(100_000)});
    let (status, problem) = app.admin_post("/v1/pull", &large).await;
    assert_eq!(
        (status.as_u16(), &problem["code"]),
        (413, &json!("too_large"))
    );
}

#[tokio::test]
async fn a_pull_triggers_the_feeds_it_names() {
    let app = TestApp::spawn().await;
    let (status, answer) = app
        .admin_post("/v1/pull", &json!({"company": "00302320404", "new": true}))
        .await;
    assert_eq!(status, 200);
    let feed = json!({"account": "default", "queue": "exported", "company": "00302320404"});
    let warning = "company code `00302320404` has 11 digits; a company's code has nine, an older one seven; did you mean \
                   `302320404`?";
    assert_eq!(answer["feeds"], json!([feed]));
    assert_eq!(answer["warnings"], json!([warning]));
    // The account has no key.
    assert_eq!(answer["not_pulled"][0]["company"], "00302320404");
    let feeds = app.admin("/v1/feeds").await;
    let triggers = feeds["rows"][0]["triggers"].as_array().unwrap();
    assert!(triggers.contains(&json!("notification")), "{triggers:?}");

    let backfill = json!({"queue": "digitized", "from": "2020-01-01T00:00:00.000Z"});
    app.admin_post("/v1/pull", &backfill).await;
    let feeds = app.store.feeds().await.unwrap();
    let digitized = feeds
        .iter()
        .find(|row| row.feed.to_string() == "default/digitized");
    let triggers = &digitized.unwrap().triggers;
    assert!(triggers.contains(&TriggerKind::Backfill), "{triggers:?}");

    let second = json!({"from": "2024-01-01T00:00:00.000Z"});
    let (status, problem) = app.admin_post("/v1/pull", &second).await;
    assert_eq!(status, 409, "the first is not cut off: {problem}");
    let title = problem["title"].as_str().unwrap();
    assert!(title.contains("default/digitized"), "{title}");
    let feeds = app.store.feeds().await.unwrap();
    let company = feeds
        .iter()
        .find(|row| row.feed.to_string() == "default/exported/00302320404");
    let triggers = &company.unwrap().triggers;
    assert!(!triggers.contains(&TriggerKind::Backfill), "all or nothing");
    let elsewhere = json!({"company": "00302320404", "from": "2024-01-01T00:00:00.000Z"});
    assert_eq!(app.admin_post("/v1/pull", &elsewhere).await.0, 200);
    let plain = json!({"queue": "digitized"});
    assert_eq!(app.admin_post("/v1/pull", &plain).await.0, 200);

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
async fn feeds_are_paused_and_resumed_by_name() {
    let app = TestApp::spawn().await;
    app.deliver(&Message::notification(&app.sns)).await;
    let feed = json!({"account": "default", "company": "302320404"});

    let (_, answer) = app.admin_post("/v1/feeds/pause", &feed).await;
    assert_eq!(answer, json!({"changed": 1}));
    assert_eq!(app.admin("/v1/feeds").await["rows"][0]["paused"], "by_hand");

    app.admin_post("/v1/feeds/resume", &feed).await;
    assert_eq!(
        app.admin("/v1/feeds").await["rows"][0]["paused"],
        Value::Null
    );
}

#[tokio::test]
async fn a_backup_is_written_while_it_runs() {
    let app = TestApp::spawn().await;
    app.deliver(&Message::notification(&app.sns)).await;
    let folder = &app.config().store.backup_dir;

    let name = json!({"name": "backup.db"});
    let (status, answer) = app.admin_post("/v1/backup", &name).await;
    assert_eq!(status, 200, "{answer}");
    let path = folder.join("backup.db");
    assert_eq!(answer["path"], json!(path));
    assert!(path.metadata().unwrap().len() > 0);

    let (status, answer) = app.admin_post("/v1/backup", &name).await;
    assert_eq!(status, 409, "it replaces no file: {answer}");
}

#[tokio::test]
async fn a_backup_by_the_api_leaves_its_folder_in_no_way() {
    let app = TestApp::spawn().await;
    let before = listed(app.dir());
    for body in [
        json!({"path": app.dir().join("drop/invoice.pdf")}),
        json!({"path": app.dir().join("test.db"), "force": true}),
        json!({"name": "test.db", "force": true}),
        json!({"name": app.dir().join("invoice.pdf")}),
        json!({"name": "../test.db"}),
        json!({"name": "../drop/invoice.pdf"}),
        json!({"name": "."}),
        json!({"name": ".lock"}),
        json!({"name": "a\u{0}b"}),
        json!({"name": ""}),
    ] {
        let (status, answer) = app.admin_post("/v1/backup", &body).await;
        assert_eq!(status, 400, "{body}: {answer}");
    }
    assert_eq!(listed(app.dir()), before);
}

fn listed(folder: &std::path::Path) -> std::collections::BTreeSet<std::ffi::OsString> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name()).collect()
}

#[tokio::test]
async fn a_quarantined_message_is_verified_as_of_its_receipt() {
    let app = TestApp::spawn().await;
    app.sns.set_certificate_down(true);
    let message = Message::notification(&app.sns);
    assert_eq!(app.deliver(&message).await.status(), 503);
    let row = app.quarantine().await.remove(0);
    assert_eq!(row.reason, "certificate_unavailable");
    let kept = app.store.quarantined(row.id).await.unwrap().unwrap();
    assert!(!kept.headers.contains("host"), "{}", kept.headers);

    // A day later, the message is too old to arrive, but not to be retried.
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

async fn open_api(config: &Config) -> Api {
    let opened = Api::open(config).await;
    opened.unwrap_or_else(|failure| panic!("{failure:?}"))
}

#[tokio::test]
async fn commands_find_the_running_server_and_work_without_one() {
    let mut app = TestApp::spawn().await;
    let message = Message::notification(&app.sns);
    app.deliver(&message).await;
    let config = app.config();

    let api = open_api(&config).await;
    assert!(api.is_running_server());
    let over_http: Vec<Value> = api.rows("/v1/notifications").await.ok().unwrap();
    assert_eq!(over_http.len(), 1);

    assert!(app.stop().await);
    assert!(RunningServer::find(&config).await.ok().unwrap().is_none());
    let api = open_api(&config).await;
    assert!(!api.is_running_server());
    let directly: Vec<Value> = api.rows("/v1/notifications").await.ok().unwrap();
    assert_eq!(directly, over_http);
    assert!(api.close().await.is_ok());
}

#[tokio::test]
async fn a_locked_store_without_a_server_is_reported() {
    let app = TestApp::spawn().await;
    let mut config = app.config();
    config.admin.socket = app.dir().join("another.sock");

    let failure = Api::open(&config).await.err().expect("the store is locked");

    let text = format!("{failure:?}");
    assert!(text.contains("admin.socket"), "{text}");
}
