//! Upload locations, uploads and files of documents.

use std::convert::Infallible;

use axum::http::header::HeaderValue;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

const FILE: &[u8] = b"%PDF-1.4 a file";

struct Location {
    url: String,
    content_type: String,
    disposition: String,
}

async fn locate(bench: &Bench, name_and_query: &str) -> Location {
    let answer = bench
        .get(&format!("/uploadlocation/{name_and_query}"))
        .await;
    assert_eq!(answer.status, 200);
    let json = answer.json();
    let text = |name: &str| json[name].as_str().expect("text").to_owned();
    Location {
        url: text("url"),
        content_type: text("Content-Type"),
        disposition: text("Content-Disposition"),
    }
}

impl Location {
    /// Returns a PUT with exactly the headers of the location.
    fn put(&self, bench: &Bench) -> reqwest::RequestBuilder {
        let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).expect("a value");
        bench
            .http
            .put(&self.url)
            .header("content-type", value(&self.content_type))
            .header("content-disposition", value(&self.disposition))
    }
}

fn xml_code(answer: &Answer) -> String {
    let text = answer.text();
    let start = text.find("<Code>").expect("a code") + "<Code>".len();
    let end = text.find("</Code>").expect("its end");
    text[start..end].to_owned()
}

#[tokio::test]
async fn an_upload_becomes_a_document_with_file_and_correlation_data() {
    let bench = Bench::start("").await;
    let location = locate(
        &bench,
        "s%C4%85skaita%201.pdf?sourcedata=eyJpZCI6MX0%3D&tags=a,b",
    )
    .await;
    assert_eq!(location.disposition, "filename=\"sąskaita 1.pdf\"");
    assert_eq!(location.content_type, "application/pdf");
    assert_eq!(read(location.put(&bench).body(FILE)).await.status, 200);

    let page = bench.get("/digitized").await.json();
    let document = &page["documents"][0];
    assert_eq!(document["sourcedata"], "eyJpZCI6MX0=");
    assert_eq!(document["filename"], "sąskaita 1.pdf");
    let file = read(bench.http.get(document["url"].as_str().expect("a link"))).await;
    assert_eq!((file.status, file.body.as_slice()), (200, FILE));

    let upload = bench.control.uploads().remove(0);
    assert_eq!(upload.bytes, Some(FILE.len()));
    assert_eq!(upload.document_id.as_deref(), document["id"].as_str());
    assert_eq!(upload.parameters["tags"], "a,b");

    // S3 accepts a second PUT, which makes no second document.
    assert_eq!(read(location.put(&bench).body(FILE)).await.status, 200);
    assert_eq!(bench.control.document_count(), 1);
}

#[tokio::test]
async fn the_query_of_the_vendors_own_example_is_accepted() {
    let bench = Bench::start("").await;
    let query = "eyJpZCI6InVuaXF1ZSJ9&processlines=false&splitdocuments=true&tags=tag1,tag2,tag3";
    let location = locate(&bench, &format!("x.pdf?{query}")).await;
    assert_eq!(read(location.put(&bench).body(FILE)).await.status, 200);
    let document = &bench.get("/digitized").await.json()["documents"][0];
    assert_eq!(
        document.get("sourcedata"),
        None,
        "a value without a name is no correlation data"
    );
}

#[tokio::test]
async fn header_keys_are_spelled_with_a_dash_or_without() {
    let bench = Bench::start("header_keys=camel").await;
    let answer = bench.get("/uploadlocation/x.pdf").await.json();
    assert_eq!(answer["ContentType"], "application/pdf");
    assert_eq!(answer["ContentDisposition"], "filename=\"x.pdf\"");
    assert_eq!(answer.get("Content-Type"), None);
}

#[tokio::test]
async fn the_disposition_carries_the_name_as_its_switch_says() {
    let bench = Bench::start("").await;
    for (position, name, disposition) in [
        ("raw", "s%C4%85skaita.pdf", "filename=\"sąskaita.pdf\""),
        (
            "rfc5987",
            "s%C4%85skaita.pdf",
            "filename*=UTF-8''s%C4%85skaita.pdf",
        ),
        ("rfc5987", "plain%201.pdf", "filename=\"plain 1.pdf\""),
        ("ascii", "s%C4%85skaita.pdf", "filename=\"s_skaita.pdf\""),
    ] {
        let switch = format!("disposition={position}");
        bench.switch(&switch);
        let location = locate(&bench, name).await;
        assert_eq!(location.disposition, disposition);
        assert_eq!(read(location.put(&bench).body(FILE)).await.status, 200);
    }
    let names: Vec<String> = bench
        .control
        .uploads()
        .into_iter()
        .map(|upload| upload.file_name)
        .collect();
    assert_eq!(
        names.iter().filter(|name| *name == "sąskaita.pdf").count(),
        3
    );
}

#[tokio::test]
async fn correlation_data_returns_under_the_switch_s_key() {
    let bench = Bench::start("").await;
    for sent in ["sourcedata", "userdata"] {
        let location = locate(&bench, &format!("{sent}.pdf?{sent}=plain")).await;
        assert_eq!(read(location.put(&bench).body(FILE)).await.status, 200);
    }
    for (position, source, user) in [
        ("sourcedata", true, false),
        ("userdata", false, true),
        ("both", true, true),
    ] {
        let switch = format!("correlation_key={position}");
        bench.switch(&switch);
        let page = bench.get("/digitized").await.json();
        for document in page["documents"].as_array().expect("documents") {
            assert_eq!(document["sourcedata"] == "plain", source, "{position}");
            assert_eq!(document["userdata"] == "plain", user, "{position}");
        }
    }
}

#[tokio::test]
async fn both_upload_hosts_accept_exactly_what_they_signed() {
    for (position, begins, signed_by) in [
        ("own", "/public/", "AWSAccessKeyId=ASIA"),
        ("s3", "/ivesk-emulator-uploads/", "X-Amz-Algorithm="),
    ] {
        let bench = Bench::start(&format!("upload_host={position}")).await;
        let location = locate(&bench, "x.pdf").await;
        let path = location
            .url
            .strip_prefix(&bench.emulator.origin())
            .expect("here");
        assert!(
            path.starts_with(begins) && path.contains(signed_by),
            "{path}"
        );

        let refused = [
            location.put(&bench).header("x-amz-acl", "public-read"),
            location.put(&bench).header("content-md5", "x"),
            location
                .put(&bench)
                .header("content-type", "application/pdf"),
            bench.http.put(&location.url),
            bench
                .http
                .put(&location.url)
                .header("content-type", "application/pdf; charset=utf-8")
                .header("content-disposition", &location.disposition),
            bench
                .http
                .put(&location.url)
                .header("content-type", &location.content_type)
                .header("content-disposition", "filename=\"y.pdf\""),
            bench
                .http
                .put(location.url.replace("Expires=", "Expires=9"))
                .header("content-type", &location.content_type)
                .header("content-disposition", &location.disposition),
        ];
        for (number, request) in refused.into_iter().enumerate() {
            let answer = read(request.body(FILE)).await;
            assert_eq!(answer.status, 403, "{position} {number}");
            assert_eq!(
                xml_code(&answer),
                "SignatureDoesNotMatch",
                "{position} {number}"
            );
        }
        assert_eq!(bench.control.uploads()[0].bytes, None);
        assert_eq!(read(location.put(&bench).body(FILE)).await.status, 200);

        let document = &bench.get("/digitized").await.json()["documents"][0];
        let link = document["url"].as_str().expect("a link");
        assert!(link.contains(begins));
        assert_eq!(read(bench.http.get(link)).await.body, FILE);
    }
}

#[tokio::test]
async fn a_chunked_upload_and_one_without_a_length_are_refused() {
    let bench = Bench::start("").await;
    let location = locate(&bench, "x.pdf").await;
    let chunks = futures_util::stream::iter([Ok::<_, Infallible>(FILE)]);
    let chunked = location
        .put(&bench)
        .body(reqwest::Body::wrap_stream(chunks));
    let answer = read(chunked).await;
    assert_eq!(answer.status, 501);
    assert_eq!(xml_code(&answer), "NotImplemented");

    // The client always sends a length, so this request is written by hand.
    let path = location.url.strip_prefix(&bench.emulator.origin());
    let head = format!(
        "PUT {} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-type: {}\r\ncontent-disposition: {}\r\n\r\n",
        path.expect("here"),
        location.content_type,
        location.disposition
    );
    let address = bench.emulator.origin().replace("http://", "");
    let mut connection = TcpStream::connect(address).await.expect("it listens");
    connection.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("read");
    assert!(answer.starts_with("HTTP/1.1 411 "), "{answer}");
    assert!(answer.contains("<Code>MissingContentLength</Code>"));
    assert_eq!(bench.control.uploads()[0].bytes, None);
}

#[tokio::test]
async fn an_upload_location_expires() {
    for host in ["own", "s3"] {
        let bench = Bench::start(&format!("upload_expires_ms=5000,upload_host={host}")).await;
        let location = locate(&bench, "x.pdf").await;
        bench.control.advance(Duration::from_secs(5));
        assert_eq!(read(location.put(&bench).body(FILE)).await.status, 200);
        bench.control.advance(Duration::from_secs(1));
        let answer = read(location.put(&bench).body(FILE)).await;
        assert_eq!(answer.status, 403);
        assert_eq!(xml_code(&answer), "AccessDenied");
    }
}

#[tokio::test]
async fn a_manual_upload_waits_for_the_control_api() {
    let bench = Bench::start("digitize_uploads=manual").await;
    let location = locate(&bench, "x.pdf").await;
    let upload = bench.control.uploads()[0].id;
    assert!(
        bench.control.digitize_upload(upload, None).is_err(),
        "not received yet"
    );
    assert_eq!(read(location.put(&bench).body(FILE)).await.status, 200);
    assert_eq!(bench.control.document_count(), 0);

    let id = bench
        .control
        .digitize_upload(upload, Some(NEIGHBOR))
        .expect("received");
    assert!(
        bench.control.digitize_upload(upload, None).is_err(),
        "a document already"
    );
    let exported = bench
        .control
        .export(NEIGHBOR, vec![id.clone()])
        .expect("exported");
    assert_eq!(exported[0].0, id);
}

async fn file_link(bench: &Bench) -> String {
    let page = bench.get("/digitized").await.json();
    page["documents"][0]["url"]
        .as_str()
        .expect("a link")
        .to_owned()
}

#[tokio::test]
async fn a_file_link_returns_the_file_an_xml_error_or_half_of_it() {
    let bench = Bench::start("").await;
    bench.digitize(1);
    let link = file_link(&bench).await;
    let ok = read(bench.http.get(&link)).await;
    assert_eq!(
        (ok.status, &ok.headers["content-type"]),
        (200, &HeaderValue::from_static("application/pdf"))
    );
    assert!(ok.body.starts_with(b"%PDF-") && ok.body.ends_with(b"%%EOF\n"));

    bench.switch("pdf=xml_error");
    let error = read(bench.http.get(&link)).await;
    assert_eq!(
        (error.status, xml_code(&error).as_str()),
        (403, "AccessDenied")
    );

    bench.switch("pdf=truncated");
    let response = bench.http.get(&link).send().await.expect("a head");
    assert_eq!(response.status(), 200);
    assert_eq!(response.content_length(), Some(ok.body.len() as u64));
    assert!(response.bytes().await.is_err(), "the file must break off");
}

#[tokio::test]
async fn a_file_link_expires_and_cannot_be_forged() {
    let bench = Bench::start("pdf_expires_ms=5000").await;
    bench.digitize(2);
    let page = bench.get("/digitized").await.json();
    let link = file_link(&bench).await;
    let (first, second) = (&page["documents"][0]["id"], &page["documents"][1]["id"]);
    let (first, second) = (first.as_str().expect("id"), second.as_str().expect("id"));
    let forged = read(bench.http.get(link.replace(first, second))).await;
    assert_eq!(
        (forged.status, xml_code(&forged).as_str()),
        (403, "SignatureDoesNotMatch")
    );

    bench.control.advance(Duration::from_secs(6));
    let stale = read(bench.http.get(&link)).await;
    assert_eq!(
        (stale.status, xml_code(&stale).as_str()),
        (403, "AccessDenied")
    );
}

#[tokio::test]
async fn links_and_their_signatures_are_not_in_the_request_log() {
    let bench = Bench::start("").await;
    let location = locate(&bench, "x.pdf").await;
    read(location.put(&bench).body(FILE)).await;
    let link = file_link(&bench).await;
    read(bench.http.get(&link)).await;
    let log = json!(bench.control.requests()).to_string();
    for url in [location.url, link] {
        let signature = url.rsplit('=').next().expect("a signature");
        assert!(!log.contains(signature));
    }
}
