//! Requests that upload a file: query, headers and host.

use bytes::Bytes;
use ivesk_webhook::config::{ApiConfig, CorrelationKey, UploadOptions};
use ivesk_webhook::ivesk::Client;
use ivesk_webhook::ivesk::upload::{UploadError, UploadErrorKind, UploadLocation};
use secrecy::SecretString;
use serde_json::json;

use crate::support::stand_in::{Answer, StandIn};

fn client(server: &StandIn) -> Client {
    let config = ApiConfig::at(server.url("/api/pub").parse().expect("a URL"));
    Client::new(&config, SecretString::from("dp_planted_key")).expect("a client")
}

fn location_at(url: &str) -> Answer {
    Answer::ok(
        json!({
            "url": url,
            "Content-Type": "application/pdf",
            "Content-Disposition": "filename=\"sąskaita.pdf\"",
        })
        .to_string(),
    )
}

async fn location(server: &StandIn, url: &str) -> UploadLocation {
    server.then(location_at(url));
    let location = client(server)
        .upload_location("x.pdf", &UploadOptions::default())
        .await;
    let _ = server.requests();
    location.expect("a location")
}

/// Returns the path and query of the request with these options.
async fn target(filename: &str, options: &UploadOptions) -> String {
    let server = StandIn::start([location_at("https://s3.example/x")]).await;
    let location = client(&server).upload_location(filename, options).await;
    location.expect("a location");
    let mut requests = server.requests();
    assert_eq!(requests.len(), 1);
    let request = requests.remove(0);
    assert_eq!(request.header("x-api-key"), Some(&b"dp_planted_key"[..]));
    request.target
}

#[tokio::test]
async fn every_value_goes_with_its_parameter_name() {
    let correlation = json!({ "order": "ž>?" });
    let mut options = UploadOptions {
        correlation: correlation.as_object().cloned(),
        process_lines: Some(false),
        split_documents: Some(true),
        check_duplicates: Some(true),
        reject_non_invoices: Some(true),
        warehouse: Some("WHS".to_owned()),
        allocation: Some("A&B=C".to_owned()),
        tags: vec!["tag1".to_owned(), "tag 2".to_owned()],
        ..UploadOptions::default()
    };
    // base64 of {"order":"ž>?"}
    let data = "eyJvcmRlciI6IsW%2BPj8ifQ%3D%3D";
    let rest = "processlines=false&splitdocuments=true&checkduplicates=true&rejectnoninvoices=true\
                &warehouse=WHS&allocation=A%26B%3DC&tags=tag1%2Ctag%202";
    for (key, correlation) in [
        (CorrelationKey::Sourcedata, format!("sourcedata={data}")),
        (CorrelationKey::Userdata, format!("userdata={data}")),
        (
            CorrelationKey::Both,
            format!("sourcedata={data}&userdata={data}"),
        ),
    ] {
        options.correlation_key = key;
        assert_eq!(
            target("sąskaita 1/2.pdf", &options).await,
            format!("/api/pub/uploadlocation/s%C4%85skaita%201%2F2.pdf?{correlation}&{rest}")
        );
    }
    assert_eq!(
        target("a.pdf", &UploadOptions::default()).await,
        "/api/pub/uploadlocation/a.pdf"
    );
}

#[tokio::test]
async fn an_impossible_file_name_is_refused_before_any_request() {
    let server = StandIn::start([]).await;
    for name in ["", ".", "..", "a\nb", &"a".repeat(256)] {
        let error = client(&server)
            .upload_location(name, &UploadOptions::default())
            .await;
        assert!(matches!(error, Err(UploadError::FileName)), "{name}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_file_is_put_with_headers_and_length_but_no_key() {
    let server = StandIn::start([]).await;
    let location = location(
        &server,
        &server.url("/public/1?AWSAccessKeyId=ASIA&Signature=a%2Bb%3D"),
    )
    .await;
    server.then(Answer::ok(""));
    let file = Bytes::from_static(b"%PDF-1.7 \xff\x00");
    client(&server)
        .put_file(&location, file.clone())
        .await
        .expect("accepted");

    let requests = server.requests();
    let request = &requests[0];
    assert_eq!(request.method, "PUT");
    assert_eq!(
        request.target,
        "/public/1?AWSAccessKeyId=ASIA&Signature=a%2Bb%3D"
    );
    let mut names: Vec<_> = request.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    // S3 does not sign `accept` and `user-agent`, which the HTTP client adds.
    assert_eq!(
        names,
        [
            "accept",
            "content-disposition",
            "content-length",
            "content-type",
            "host",
            "user-agent"
        ]
    );
    assert_eq!(
        request.header("content-type"),
        Some(&b"application/pdf"[..])
    );
    assert_eq!(
        request.header("content-disposition"),
        Some("filename=\"sąskaita.pdf\"".as_bytes())
    );
    assert_eq!(request.header("content-length"), Some(&b"11"[..]));
    assert_eq!(request.body, file);
}

#[tokio::test]
async fn an_empty_file_has_a_length_too() {
    let server = StandIn::start([]).await;
    let location = location(&server, &server.url("/public/1")).await;
    server.then(Answer::ok(""));
    client(&server)
        .put_file(&location, Bytes::new())
        .await
        .expect("accepted");
    let requests = server.requests();
    assert_eq!(requests[0].header("content-length"), Some(&b"0"[..]));
    assert_eq!(requests[0].header("transfer-encoding"), None);
}

#[tokio::test]
async fn a_storage_error_is_plain_and_holds_no_link() {
    let xml = |code: &str| {
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>")
    };
    let server = StandIn::start([]).await;
    let location = location(&server, &server.url("/public/1?Signature=planted")).await;
    for (answer, part, again) in [
        (
            Answer::status(403, xml("AccessDenied")),
            "403 (AccessDenied): the upload link has expired",
            true,
        ),
        (
            Answer::status(403, xml("SignatureDoesNotMatch")),
            "other headers",
            true,
        ),
        (
            Answer::status(400, xml("ExpiredToken")),
            "400 (ExpiredToken): the upload link has expired",
            true,
        ),
        (
            Answer::status(400, xml("TokenRefreshRequired")),
            "the upload link has expired",
            true,
        ),
        (
            Answer::status(400, xml("EntityTooLarge")),
            "too large",
            false,
        ),
        (Answer::status(503, xml("SlowDown")), "retry later", false),
        (
            Answer::status(500, "<html>"),
            "500: the storage has an error",
            false,
        ),
        (Answer::status(201, ""), "201: the storage refused", false),
        (
            Answer::status(307, "").with("location", "http://127.0.0.1:1/"),
            "not followed",
            false,
        ),
    ] {
        server.then(answer);
        let file = Bytes::from_static(b"x");
        let put = client(&server).put_file(&location, file).await;
        let error = put.expect_err(part);
        let text = format!("{error} {error:?}");
        assert!(text.contains(part), "{text}");
        assert!(!text.contains("planted"), "{text}");
        assert_eq!(error.asks_for_new_location(), again, "{text}");
    }
}

#[tokio::test]
async fn a_file_goes_only_to_hosts_that_the_settings_name() {
    let server = StandIn::start([]).await;
    let put = async |client: &Client, url: &str| {
        let location = location(&server, url).await;
        client.put_file(&location, Bytes::from_static(b"x")).await
    };
    let local = client(&server);
    let remote = Client::new(&ApiConfig::default(), SecretString::from("key")).expect("a client");
    let loopback = server.url("/public/1");
    for url in [
        "http://s3.example/x",
        "http://169.254.169.254/latest",
        "https://169.254.169.254/latest",
        "https://collector.example/x",
        "https://app.ivesk.lt.collector.example/x",
        "https://user@s3.example/x",
        "ftp://s3.example/x",
        "file:///etc/passwd",
        "/public/1",
        "",
    ] {
        let refused = put(&local, url).await;
        let is_forbidden = matches!(refused, Err(UploadError::ForbiddenLocation(_)));
        assert!(is_forbidden, "{url}: {refused:?}");
    }
    for url in [
        &loopback,
        "https://evilamazonaws.com/x",
        "https://files.ivesk.lt/x",
    ] {
        let refused = put(&remote, url).await.expect_err(url);
        assert!(
            matches!(refused, UploadError::ForbiddenLocation(_)),
            "{url}"
        );
        assert_eq!(refused.kind(), UploadErrorKind::NeedsPerson);
    }
    let refused = put(&remote, "https://files.ivesk.lt/x?Signature=planted").await;
    let text = refused.expect_err("not named").to_string();
    assert!(
        text.contains("files.ivesk.lt") && text.contains("`api.file_hosts`"),
        "{text}"
    );
    assert!(!text.contains("planted"), "{text}");
    assert!(server.requests().is_empty());
}
