//! The HTTP destination, against a receiver that checks signatures with the published library.

use std::time::Duration;

use ivesk_webhook::config::DestinationKind;
use ivesk_webhook::delivery::{Destination, DestinationResponse};
use secrecy::SecretString;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::destinations::{
    AMPLE, COMPANY, VENDOR_API, config, delivered, delivery, destination_config, rejected,
    try_open, unavailable,
};
use crate::support::process::within;
use crate::support::stand_in::{Answer, StandIn};

const OLD: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const NEW: &str = "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

fn destination_at(url: &str, timeout: Duration) -> Box<dyn Destination> {
    let kind = DestinationKind::Http {
        url: url.parse().expect("an address"),
        secrets: [NEW, OLD].map(SecretString::from).to_vec(),
    };
    let destination = destination_config(kind, timeout);
    try_open(&destination, &config(VENDOR_API), &[]).expect("a destination")
}

/// Returns the destination's response to this answer of the receiver.
async fn response_to(answer: Answer) -> DestinationResponse {
    let receiver = StandIn::start([answer]).await;
    let destination = destination_at(&receiver.url("/in?key=planted"), AMPLE);
    let response = within(
        "an answer",
        destination.deliver(&delivery("a-1", json!({}))),
    )
    .await;
    assert_eq!(receiver.requests().len(), 1, "{response:?}");
    assert!(!format!("{response:?}").contains("planted"), "{response:?}");
    response
}

#[tokio::test]
async fn a_document_is_posted_with_its_key_and_each_signature() {
    let receiver = StandIn::start([Answer::status(204, "")]).await;
    let destination = destination_at(&receiver.url("/in?a=b"), AMPLE);
    let mut document = delivery("a-1", json!({ "docnum": "Ąž 1" }));
    document.body = br#"{ "id": "a-1",  "total": 1.50, "docnum": "A\u0105" }"#.to_vec();

    assert_eq!(delivered(destination.deliver(&document).await), None);

    let request = receiver.requests().pop().expect("a request");
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        ("POST", "/in?a=b")
    );
    for secret in [OLD, NEW] {
        let webhook = Webhook::new(secret).expect("a secret");
        webhook
            .verify(&request.body, &request.headers)
            .expect("the library accepts it");
        let changed = [&request.body[..], b" "].concat();
        assert!(webhook.verify(&changed, &request.headers).is_err());
    }
    let header = |name: &str| {
        let value = request.header(name).unwrap_or_else(|| panic!("{name}"));
        String::from_utf8(value.to_vec()).expect("text")
    };
    assert_eq!(header("webhook-id"), document.key());
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("ivesk-sequence"), "0af1:7");
    assert!(request.header("x-api-key").is_none());
    // The vendor's JSON, byte for byte.
    let own = std::str::from_utf8(&document.body).expect("text");
    let body = std::str::from_utf8(&request.body).expect("text");
    assert!(body.ends_with(&format!("\"document\":{own}}}}}")), "{body}");
    let posted: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(posted["type"], "document.exported");
    assert_eq!(posted["data"]["key"], document.key());
    assert_eq!(posted["data"]["company"], COMPANY);
    assert_eq!(posted["data"]["document_id"], "a-1");
}

#[tokio::test]
async fn a_repeated_delivery_has_the_same_key() {
    let receiver = StandIn::start([Answer::ok(""), Answer::ok("")]).await;
    let destination = destination_at(&receiver.url("/"), AMPLE);
    let mut document = delivery("a-1", json!({}));
    delivered(destination.deliver(&document).await);
    // A restored store has another epoch.
    document.epoch = "0af2".to_owned();
    document.sequence = 900;
    delivered(destination.deliver(&document).await);
    let requests = receiver.requests();
    assert_eq!(
        requests[0].header("webhook-id"),
        requests[1].header("webhook-id")
    );
    assert_ne!(
        requests[0].header("ivesk-sequence"),
        requests[1].header("ivesk-sequence")
    );
}

#[tokio::test]
async fn only_words_about_the_document_are_a_rejection() {
    let rejection = r#"{"message":"Nėra tokio kliento 305123456"}"#;
    for status in [400, 409, 422] {
        let message = rejected(response_to(Answer::status(status, rejection)).await);
        assert_eq!(message, "Nėra tokio kliento 305123456", "{status}");
        let (error, _) = unavailable(response_to(Answer::status(status, "no such client")).await);
        assert!(error.contains(&status.to_string()), "{error}");
        assert!(error.contains("`message`"), "{error}");
        assert!(!error.contains("client"), "{error}");
    }
    let problem = Answer::status(422, r#"{"title":"Bad","detail":"No such client"}"#)
        .with("content-type", "application/problem+json; charset=utf-8");
    assert_eq!(rejected(response_to(problem).await), "No such client");
    let plain = Answer::status(422, r#"{"title":"Bad","detail":"No such client"}"#);
    unavailable(response_to(plain).await);
    // What a framework says of a request that it can't read.
    let framework = Answer::status(
        400,
        r#"{"title":"One or more validation errors occurred."}"#,
    )
    .with("content-type", "application/problem+json; charset=utf-8");
    unavailable(response_to(framework).await);
    for status in [402, 406, 411, 413, 415, 417, 418, 431, 451] {
        let (error, _) = unavailable(response_to(Answer::status(status, rejection)).await);
        assert!(error.contains(&status.to_string()), "{error}");
    }
    let long = json!({ "message": "ž".repeat(10_000) }).to_string();
    let message = rejected(response_to(Answer::status(422, long)).await);
    assert_eq!(message.len(), 4096);
    let too_long = json!({ "message": "x".repeat(100_000) }).to_string();
    unavailable(response_to(Answer::status(422, too_long)).await);
}

#[tokio::test]
async fn statuses_about_address_or_load_are_never_rejections() {
    let body = r#"{"message":"planted"}"#;
    for (status, advice) in [
        (301, "redirects are not followed"),
        (302, "redirects are not followed"),
        (304, "redirects are not followed"),
        (401, "secret_file"),
        (403, "secret_file"),
        (404, "`url`"),
        (405, "`url`"),
        (407, "secret_file"),
        (408, "later"),
        (421, "`url`"),
        (425, "later"),
        (426, "`url`"),
        (429, "later"),
        (500, "its log"),
        (502, "its log"),
        (503, "its log"),
        (599, "its log"),
    ] {
        let answer = Answer::status(status, body).with("location", "/?key=planted");
        let (error, retry_after) = unavailable(response_to(answer).await);
        assert!(error.contains(&status.to_string()), "{error}");
        assert!(error.contains(advice), "{error}");
        assert_eq!(retry_after, None);
    }
}

#[tokio::test]
async fn retry_after_is_obeyed_up_to_an_hour() {
    for (status, header, seconds) in [
        (429, "7", 7),
        (503, "120", 120),
        (429, "99999999", 3600),
        (500, "Sat, 06 Nov 2094 08:48:00 GMT", 3600),
        (429, "Sun, 06 Nov 1994 08:48:00 GMT", 0),
    ] {
        let answer = Answer::status(status, "").with("retry-after", header);
        let (_, retry_after) = unavailable(response_to(answer).await);
        assert_eq!(
            retry_after,
            Some(Duration::from_secs(seconds)),
            "{status} {header}"
        );
    }
}

#[tokio::test]
async fn gone_closes_the_destination() {
    let response = response_to(Answer::status(410, "planted")).await;
    assert!(
        matches!(response, DestinationResponse::Closed { .. }),
        "{response:?}"
    );
}

/// Starts a server that handles each connection with `answer`; returns its URL.
async fn server<F: Future<Output = ()> + Send + 'static>(
    answer: impl Fn(TcpStream) -> F + Send + 'static,
) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(answer(connection));
        }
    });
    format!("http://{address}/in?key=planted")
}

async fn response_of(url: &str, timeout: Duration) -> DestinationResponse {
    let destination = destination_at(url, timeout);
    let response = within(
        "a response",
        destination.deliver(&delivery("a-1", json!({}))),
    )
    .await;
    assert!(!format!("{response:?}").contains("planted"), "{response:?}");
    response
}

/// Reads the head of a request.
async fn read_request(connection: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        if connection.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

#[tokio::test]
async fn a_receiver_that_hangs_resets_or_is_absent_is_unavailable() {
    let short = Duration::from_millis(300);
    let hangs = server(|mut connection| async move {
        read_request(&mut connection).await;
        std::future::pending::<()>().await;
    });
    let (error, _) = unavailable(response_of(&hangs.await, short).await);
    assert!(error.contains("timed out"), "{error}");

    // A rejection needs its message.
    let stalls = server(|mut connection| async move {
        read_request(&mut connection).await;
        let begun = b"HTTP/1.1 422 X\r\ncontent-length: 40\r\n\r\n{\"message\":\"";
        let _ = connection.write_all(begun).await;
        std::future::pending::<()>().await;
    });
    unavailable(response_of(&stalls.await, short).await);

    let resets = server(|mut connection| async move {
        read_request(&mut connection).await;
        let _ = connection.set_zero_linger();
    });
    unavailable(response_of(&resets.await, AMPLE).await);

    let babbles = server(|mut connection| async move {
        read_request(&mut connection).await;
        let _ = connection.write_all(b"SMTP ready\r\n\r\n").await;
    });
    unavailable(response_of(&babbles.await, AMPLE).await);

    let gone = {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        listener.local_addr().expect("an address")
    };
    let (error, _) = unavailable(response_of(&format!("http://{gone}/"), AMPLE).await);
    assert!(error.contains("could not be reached"), "{error}");
}

#[tokio::test]
async fn a_success_status_counts_whatever_follows() {
    let endless = server(|mut connection| async move {
        read_request(&mut connection).await;
        let _ = connection
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\nx")
            .await;
        std::future::pending::<()>().await;
    });
    delivered(response_of(&endless.await, AMPLE).await);
    let broken = server(|mut connection| async move {
        read_request(&mut connection).await;
        let _ = connection
            .write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 10\r\n\r\nx")
            .await;
    });
    delivered(response_of(&broken.await, AMPLE).await);
}
