//! What reaches the public listener and no webhook: each kind sent over a socket.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ivesk_webhook::alarms::Alarms;
use ivesk_webhook::domain::Event;
use ivesk_webhook::store::{AlarmFilter, AlarmKind, SharedStore};
use ivesk_webhook::unexpected::UnexpectedRequest::{self, *};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::app::{PATH_TOKEN, TestApp};
use crate::support::doctor::Report;
use crate::support::fake_sns::Message;
use crate::support::process::{Installation, within};

const SNS_HEADERS: &str = "host: x\r\nuser-agent: Amazon Simple Notification Service Agent\r\n\
                           x-amz-sns-message-type: Notification\r\ncontent-length: 2\r\n";

/// The signature of the PROXY protocol's version 2, and an address.
const PROXY_V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x48\x15\xd9\x50\x0a\0\0\x01\x12\x67\x01\xbb";

/// One request: what is sent, its kind, the beginning of the answer, and whether it shows that
/// SNS sent it.
struct Case {
    sent: Vec<u8>,
    kind: UnexpectedRequest,
    answer: &'static str,
    from_sns: bool,
}

fn case(sent: impl Into<Vec<u8>>, kind: UnexpectedRequest, answer: &'static str) -> Case {
    let sent = sent.into();
    let from_sns = sent.windows(9).any(|window| window == b"x-amz-sns");
    Case {
        sent,
        kind,
        answer,
        from_sns,
    }
}

fn post(path: &str, headers: &str) -> String {
    format!("POST {path} HTTP/1.1\r\n{SNS_HEADERS}{headers}\r\n{{}}")
}

/// Returns one request of each kind and more, for a webhook at `path`.
fn cases(path: &str) -> Vec<Case> {
    let closed = "";
    let whole = post(path, "");
    let rest = path.strip_prefix("/webhooks").expect("a webhook's path");
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let huge = format!("cookie: {}\r\n", "x".repeat(128 * 1024));
    let proxy_v1 = format!("PROXY TCP4 72.21.217.80 10.0.0.1 4711 443\r\n{whole}");
    let hello = b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03";
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let head = &whole[..whole.len() - 6];
    let scanner = "POST /wp-login.php HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    vec![
        case(proxy_v1, ProxyProtocol, closed),
        case([PROXY_V2, whole.as_bytes()].concat(), ProxyProtocol, closed),
        case(hello, Tls, closed),
        case(http2, Http2, closed),
        case(post(path, &many), HeadTooLarge, "HTTP/1.1 431 "),
        case(post(path, &huge), HeadTooLarge, "HTTP/1.1 431 "),
        case(
            post(path, "x-a: 1,\r\n 2\r\n"),
            FoldedHeader,
            "HTTP/1.1 400 ",
        ),
        case("\u{0}\u{0}\r\n\r\n", MalformedHead, "HTTP/1.1 400 "),
        case(head, CutOff, closed),
        case(post(rest, ""), PathCut, "HTTP/1.1 404 "),
        case(
            post(&format!("/ivesk{path}"), ""),
            PathPrefix,
            "HTTP/1.1 404 ",
        ),
        case(post(&format!("/{path}"), ""), PathSlash, "HTTP/1.1 404 "),
        case(post(&format!("{path}/"), ""), PathSlash, "HTTP/1.1 404 "),
        case(
            post("/webhooks/nobody/x/y", ""),
            UnknownPath,
            "HTTP/1.1 404 ",
        ),
        case(scanner, UnknownPath, "HTTP/1.1 404 "),
        case(
            post("/webhooks/default/on_exported/wrong", ""),
            UnknownToken,
            "HTTP/1.1 404 ",
        ),
        case(whole.replace("POST", "PUT"), WrongMethod, "HTTP/1.1 404 "),
    ]
}

/// Sends bytes and the end of the stream; returns the answer, once the other side has ended too.
async fn send(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    // The other side may end the connection before it has read everything.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = within("the end of the connection", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn each_kind_is_answered_counted_and_alarms_if_sns_s() {
    let app = TestApp::spawn().await;
    let cases = cases(&app.webhook(Event::OnExported));
    let sent: BTreeSet<_> = cases.iter().map(|case| case.kind).collect();
    assert_eq!(sent, UnexpectedRequest::ALL.iter().copied().collect());
    for case in &cases {
        let kind = case.kind.code();
        let answer = send(app.public(), &case.sent).await;
        assert!(answer.starts_with(case.answer), "{kind}: {answer}");
        assert_eq!(
            answer.is_empty(),
            case.answer.is_empty(),
            "{kind}: {answer}"
        );
    }

    for case in &cases {
        let alike = |other: &&Case| other.kind == case.kind && other.from_sns == case.from_sns;
        let (count, kind) = (cases.iter().filter(alike).count(), case.kind.code());
        let sns = if case.from_sns { "yes" } else { "no" };
        let series = format!(
            "ivesk_webhook_unexpected_requests_total{{kind=\"{kind}\",sns=\"{sns}\"}} {count}\n"
        );
        // A connection's end is seen before it is counted.
        within(&series, async {
            while !app.metrics().await.contains(&series) {}
        })
        .await;
    }
    let shared = app.service().app();
    let store: SharedStore = app.store.clone();
    let alarms = Alarms::new(
        &shared.config,
        store,
        Arc::clone(&shared.metrics),
        Arc::default(),
        app.clock.clone(),
    );
    // The service's own check may have raised some.
    let checked = alarms.expect("a client").check().await;
    checked.expect("a check");
    let active = app.store.alarms(AlarmFilter {
        active: true,
        after: 0,
        limit: 100,
    });
    let active = active.await.expect("readable").into_iter();
    let subjects = active
        .filter(|alarm| alarm.kind == AlarmKind::UnexpectedRequests)
        .map(|alarm| alarm.subject);
    let expected = cases.iter().filter(|case| case.from_sns);
    let expected: BTreeSet<String> = expected.map(|case| case.kind.code().to_owned()).collect();
    assert_eq!(subjects.collect::<BTreeSet<_>>(), expected);
    assert!(app.stored_ids().await.is_empty());
}

#[tokio::test]
async fn log_and_doctor_explain_what_reached_no_webhook() {
    let installation = Installation::alone("");
    let server = installation.start().await;
    let address = SocketAddr::from(([127, 0, 0, 1], installation.public_port()));
    let cases = cases("/webhooks/default/on_exported");
    for _ in 0..2 {
        for case in &cases {
            send(address, &case.sent).await;
        }
    }
    // Its line is the last.
    let explains = |kind: UnexpectedRequest| format!("Fix: {}", kind.explanation().fix);
    within("the last line", async {
        while !server.log().contains(&explains(WrongMethod)) {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let log = server.log();
    for case in cases.iter().filter(|case| case.kind != MalformedHead) {
        let warnings = log.lines().filter(|line| line.contains(" WARN "));
        let times = warnings
            .filter(|line| line.contains(&explains(case.kind)))
            .count();
        assert_eq!(times, 1, "{}\n{log}", case.kind.code());
    }
    assert!(log.contains("SNS called a path that is no webhook; does the proxy change the path?"));
    assert!(
        !log.contains(&explains(MalformedHead)),
        "a scanner's: {log}"
    );

    let report = Report::of(&installation, &["--quick"]).await;
    let words = report.words("unexpected_requests");
    for case in &cases {
        let explained = words.contains(case.kind.explanation().found);
        assert_eq!(explained, case.kind != MalformedHead, "{words}");
    }
    assert_eq!(report.code, Some(1));
    report.assert_explained();
}

const CUT_OFF: &str = "ivesk_webhook_unexpected_requests_total{kind=\"cut_off\",sns=\"yes\"} ";

#[tokio::test]
async fn a_head_that_stalls_is_counted_and_silence_is_not() {
    let app = TestApp::with(|config| {
        config.public.header_timeout = Duration::from_millis(300);
    })
    .await;
    let webhook = app.webhook(Event::OnExported);
    let head = format!("POST {webhook} HTTP/1.1\r\n{SNS_HEADERS}");
    for sent in [head.as_bytes(), b""] {
        let mut stream = TcpStream::connect(app.public()).await.expect("it listens");
        stream.write_all(sent).await.expect("sent");
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        within("the end of the connection", end)
            .await
            .expect("no error");
        assert!(answer.is_empty());
    }
    let counted = format!("{CUT_OFF}1\n");
    within("the count", async {
        while !app.metrics().await.contains(&counted) {}
    })
    .await;
}

#[tokio::test]
async fn a_head_that_a_reset_cuts_off_is_counted() {
    let app = TestApp::spawn().await;
    let webhook = app.webhook(Event::OnExported);
    let head = format!("POST {webhook} HTTP/1.1\r\n{SNS_HEADERS}");
    within("the count", async {
        // A reset may overtake the bytes before it.
        while !app.metrics().await.contains(CUT_OFF) {
            let mut stream = TcpStream::connect(app.public()).await.expect("it listens");
            stream.set_zero_linger().expect("a socket option");
            stream.write_all(head.as_bytes()).await.expect("sent");
            app.get("/healthz").await;
        }
    })
    .await;
}

#[tokio::test]
async fn large_but_legal_heads_are_accepted() {
    let app = TestApp::spawn().await;
    let path = app.webhook(Event::OnExported);
    let cookies = format!("cookie: {}\r\n", "x".repeat(127 * 1024));
    let many: String = (0..98).map(|n| format!("x-{n}: 1\r\n")).collect();
    for headers in [cookies, many] {
        let body = Message::notification(&app.sns).body();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        let answer = send(app.public(), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_eq!(app.stored_ids().await.len(), 2);
}

#[tokio::test]
async fn a_half_closed_connection_is_answered_after_the_commit() {
    let app = TestApp::spawn().await;
    let (path, body) = (
        app.webhook(Event::OnExported),
        Message::notification(&app.sns).body(),
    );
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    app.faults.hold();
    let address = app.public();
    let answer = tokio::spawn(async move { send(address, request.as_bytes()).await });
    app.faults.until_waiting(1).await;
    app.faults.release();

    let answer = answer.await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(app.stored_ids().await.len(), 1);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_unexpected_request() {
    let app = TestApp::spawn().await;
    let path = app.webhook(Event::OnExported);
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{{");

    let answer = send(app.public(), head.as_bytes()).await;

    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let metrics = app.metrics().await;
    assert!(!metrics.contains("unexpected_requests_total{"), "{metrics}");
    assert!(!metrics.contains(PATH_TOKEN));
}
