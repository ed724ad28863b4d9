//! Requests to the vendor's API, byte for byte, and how answers are read.

use std::time::Duration;

use axum::body::Body;
use ivesk_webhook::config::{ApiConfig, ExportedPath};
use ivesk_webhook::domain::{Clock, Company, Cursor, Event, Queue, Timestamp};
use ivesk_webhook::ivesk::{ApiError, Client};
use secrecy::SecretString;

use crate::support::stand_in::{Answer, StandIn};

const KEY: &str = "dp_planted_key";
const EMPTY: &str = r#"{"documents":[]}"#;

fn client_with(server: &StandIn, change: impl FnOnce(&mut ApiConfig)) -> Client {
    let mut config = ApiConfig {
        url: server.url("/api/pub").parse().expect("a URL"),
        exported_path: Some(ExportedPath {
            template: "/exported/{company}".to_owned(),
        }),
        subscribe_path: Some("/webhooks".to_owned()),
        ..ApiConfig::default()
    };
    change(&mut config);
    Client::new(&config, SecretString::from(KEY)).expect("a client")
}

fn client(server: &StandIn) -> Client {
    client_with(server, |_| ())
}

fn company(code: &str) -> Company {
    Company::parse(code).expect("a code")
}

async fn digitized(client: &Client) -> Result<ivesk_webhook::ivesk::Page, ApiError> {
    client.page(Queue::Digitized, &Company::mixed(), None).await
}

/// Returns the client's error for an answer.
async fn failure(answer: Answer) -> ApiError {
    let server = StandIn::start([answer]).await;
    digitized(&client(&server)).await.expect_err("a failure")
}

#[tokio::test]
async fn a_page_is_requested_with_the_key_and_nothing_else() {
    let server = StandIn::start([Answer::ok(EMPTY)]).await;
    digitized(&client(&server)).await.expect("a page");
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].method, "GET");
    assert_eq!(requests[0].target, "/api/pub/digitized");
    let mut names: Vec<_> = requests[0]
        .headers
        .keys()
        .map(|name| name.as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "accept-encoding",
            "host",
            "user-agent",
            "x-api-key"
        ]
    );
    assert_eq!(requests[0].header("x-api-key"), Some(KEY.as_bytes()));
    assert_eq!(requests[0].header("accept"), Some(&b"application/json"[..]));
    assert_eq!(requests[0].header("accept-encoding"), Some(&b"gzip"[..]));
    assert!(requests[0].body.is_empty());
}

#[tokio::test]
async fn the_company_is_where_the_template_says_and_from_once() {
    let server = StandIn::start([]).await;
    let cursor = Cursor::new("2019-11-26T12:30:47.373Z&from=x +š");
    let from = "from=2019-11-26T12%3A30%3A47.373Z%26from%3Dx%20%2B%C5%A1";
    for (template, code, target) in [
        ("/exported/{company}", "302320404", "/exported/302320404?"),
        (
            "/exported?companycode={company}",
            "00 1&a",
            "/exported?companycode=00%201%26a&",
        ),
        (
            "/{company}/exported",
            "a/../b?#%",
            "/a%2F..%2Fb%3F%23%25/exported?",
        ),
        ("/exported", "302320404", "/exported?"),
    ] {
        let client = client_with(&server, |config| {
            config.exported_path = Some(ExportedPath {
                template: template.to_owned(),
            });
        });
        // Twice: the vendor's own client once added a second `from`.
        for _ in 0..2 {
            server.then(Answer::ok(EMPTY));
            let company = company(code);
            let page = client.page(Queue::Exported, &company, Some(&cursor)).await;
            page.expect("a page");
            let requests = server.requests();
            assert_eq!(requests[0].target, format!("/api/pub{target}{from}"));
        }
    }
}

#[tokio::test]
async fn a_company_that_would_escape_the_path_is_never_requested() {
    let server = StandIn::start([]).await;
    for code in [".", ".."] {
        let page = client(&server)
            .page(Queue::Exported, &company(code), None)
            .await;
        assert!(matches!(page, Err(ApiError::Malformed(_))), "{code}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_page_keeps_documents_and_cursor_byte_for_byte() {
    let body = "\u{feff}{\"documents\": [{\"id\":\"1\",\"total\":1.50}, {}], \"next\": \"2019-11-26T12:30:47.370Z\"}";
    let server = StandIn::start([Answer::ok(body)]).await;
    let page = digitized(&client(&server)).await.expect("a page");
    assert_eq!(
        page.documents,
        [&b"{\"id\":\"1\",\"total\":1.50}"[..], b"{}"]
    );
    assert_eq!(page.next, Some(Cursor::new("2019-11-26T12:30:47.370Z")));
}

#[tokio::test]
async fn a_redirect_is_a_refusal_and_the_key_stays_here() {
    let elsewhere = StandIn::start([Answer::ok(EMPTY)]).await;
    for status in [301, 302, 307, 308] {
        let answer =
            Answer::status(status, "").with("location", &elsewhere.url("/api/pub/digitized"));
        let error = failure(answer).await;
        assert!(
            matches!(error, ApiError::Status { status: s, .. } if s == status),
            "{error}"
        );
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn an_error_has_its_status_message_and_retry_after() {
    let body = r#"{"message":"Too many requests with dp_planted_key, see https://x/?k=1"}"#;
    let error = failure(Answer::status(429, body).with("retry-after", "17")).await;
    let ApiError::Status {
        status,
        message,
        retry_after,
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(*status, 429);
    assert_eq!(
        message.as_deref(),
        Some("Too many requests with [secret], see [address]")
    );
    assert_eq!(*retry_after, Some(Duration::from_secs(17)));

    for body in ["", "<html>500</html>", "null"] {
        let error = failure(Answer::status(500, body)).await;
        assert_eq!(error.to_string(), "Įvesk.lt answered 500");
    }
}

#[tokio::test]
async fn a_retry_after_date_is_read_by_our_own_clock() {
    let now = Timestamp::parse("2026-11-23T08:00:00Z").expect("a time");
    let answer = Answer::status(503, "").with("retry-after", "Mon, 23 Nov 2026 08:00:40 GMT");
    let server = StandIn::start([answer]).await;
    let client = client(&server).with_clock(Clock::manual(now));
    let error = digitized(&client).await.expect_err("a failure");
    assert!(
        matches!(error, ApiError::Status { retry_after: Some(wait), .. } if wait.as_secs() == 40),
        "{error}"
    );
}

#[tokio::test]
async fn a_page_larger_than_the_limit_is_not_read_to_its_end() {
    let limit = 1000;
    let filler = "x".repeat(limit);
    let announced = Answer::ok(format!(r#"{{"documents":["{filler}"]}}"#));
    // An endless stream: only a reader that stops returns.
    let chunk = || Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b' '; 4096]));
    let endless = futures_util::stream::repeat_with(chunk);
    let endless = Answer::ok(Body::from_stream(endless));
    let server = StandIn::start([announced, endless]).await;
    let client = client_with(&server, |config| config.max_page_bytes = limit);
    for _ in 0..2 {
        let error = digitized(&client).await.expect_err("too large");
        assert!(
            matches!(error, ApiError::TooLarge { limit_bytes } if limit_bytes == limit),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_success_that_is_no_page_is_malformed_and_not_empty() {
    for body in [
        "",
        "<!DOCTYPE html><title>Sign in</title>",
        r#"{"message":"not now"}"#,
        r#"{"documents":{}}"#,
        r#"{"documents":[{"id":1}"#,
        "[]",
    ] {
        let error = failure(Answer::ok(body)).await;
        assert!(matches!(error, ApiError::Malformed(_)), "{body}: {error}");
    }
    let error = failure(Answer::ok("<html>")).await.to_string();
    assert!(error.contains("not JSON"), "{error}");
}

#[tokio::test]
async fn a_server_that_breaks_off_or_is_absent_is_unreachable() {
    let cut = futures_util::stream::iter([
        Ok(bytes::Bytes::from_static(b"{\"documents\":[")),
        Err(std::io::Error::other("gone")),
    ]);
    let error = failure(Answer::ok(Body::from_stream(cut))).await;
    assert!(matches!(error, ApiError::Unreachable(_)), "{error}");

    // Bound and dropped, so that nothing listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/planted", port.local_addr().expect("an address"));
    drop(port);
    let server = StandIn::start([]).await;
    let client = client_with(&server, |config| config.url = url.parse().expect("a URL"));
    let error = digitized(&client).await.expect_err("nothing listens");
    assert!(matches!(error, ApiError::Unreachable(_)), "{error}");
    let text = format!("{error} {error:?}");
    assert!(!text.contains("planted"), "{text}");
}

#[tokio::test]
async fn a_missing_setting_is_named_and_nothing_is_requested() {
    let server = StandIn::start([]).await;
    let client = client_with(&server, |config| {
        config.exported_path = None;
        config.subscribe_path = None;
    });
    let error = client.page(Queue::Exported, &company("1"), None).await;
    assert!(
        matches!(
            error,
            Err(ApiError::NotConfigured {
                setting: "api.exported_path",
                ..
            })
        ),
        "{error:?}"
    );
    let target = SecretString::from("https://hooks.example.lt/webhooks/default/on_exported/t");
    let error = client.subscribe("x", Event::OnExported, &target).await;
    assert!(
        matches!(
            error,
            Err(ApiError::NotConfigured {
                setting: "api.subscribe_path",
                ..
            })
        ),
        "{error:?}"
    );
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_subscription_is_posted_as_documented_and_stays_secret() {
    let target =
        SecretString::from("https://hooks.example.lt/webhooks/default/on_exported/planted-token");
    let quoting = r#"{"message":"no such target: planted https://hooks.example.lt/webhooks/default/on_exported/planted-token"}"#;
    let server = StandIn::start([Answer::status(201, ""), Answer::status(400, quoting)]).await;
    let client = client(&server);
    let subscribe = || client.subscribe("Sąskaitos", Event::OnExported, &target);

    subscribe().await.expect("a subscription");
    let requests = server.requests();
    assert_eq!(requests[0].method, "POST");
    assert_eq!(requests[0].target, "/api/pub/webhooks");
    assert_eq!(
        requests[0].header("content-type"),
        Some(&b"application/json"[..])
    );
    assert_eq!(requests[0].header("x-api-key"), Some(KEY.as_bytes()));
    assert_eq!(
        String::from_utf8_lossy(&requests[0].body),
        r#"{"name":"Sąskaitos","eventType":"on_exported","target":"https://hooks.example.lt/webhooks/default/on_exported/planted-token"}"#
    );

    let error = subscribe().await.expect_err("a refusal");
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("no such target") && !text.contains("planted-token"),
        "{text}"
    );
}

#[tokio::test]
async fn neither_client_nor_error_prints_the_key() {
    let server = StandIn::start([Answer::status(401, format!(r#"{{"message":"{KEY}"}}"#))]).await;
    let client = client(&server);
    let error = digitized(&client).await.expect_err("a refusal");
    let text = format!("{client:?} {error} {error:?}");
    assert!(!text.contains(KEY), "{text}");
}
