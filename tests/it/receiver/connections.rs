//! Slow, large and broken requests.

use std::time::Duration;

use ivesk_webhook::domain::Event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::app::TestApp;
use crate::support::fake_sns::Message;

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // The connection may be reset after the answer.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn connect(app: &TestApp, first_bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(app.public()).await.unwrap();
    stream.write_all(first_bytes.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn two_hundred_slow_connections_do_not_block_others() {
    let app = TestApp::spawn().await;
    let path = app.webhook(Event::OnExported);
    let slow_body = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{{");
    let mut slow = Vec::new();
    for _ in 0..100 {
        slow.push(connect(&app, "POST /webho").await);
        slow.push(connect(&app, &slow_body).await);
    }

    for _ in 0..10 {
        let answer = app.deliver(&Message::notification(&app.sns)).await;
        assert_eq!(answer.status(), 200);
    }
    // Each can still send another byte.
    for stream in &mut slow {
        stream.write_all(b"x").await.unwrap();
    }
    assert_eq!(
        app.deliver(&Message::notification(&app.sns)).await.status(),
        200
    );
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off_and_frees_its_place() {
    let app = TestApp::with(|config| {
        config.public.max_connections = 1;
        config.public.header_timeout = Duration::from_millis(50);
    })
    .await;
    let mut slow = connect(&app, "POST /webhooks/default/on_exp").await;

    // The only slot is in use, so this is answered once the slow request is cut off.
    let answer = app.deliver(&Message::notification(&app.sns)).await;

    assert_eq!(answer.status(), 200);
    let rest = read_to_end(&mut slow).await;
    assert!(!rest.contains(" 200 "), "{rest}");
}

#[tokio::test]
async fn a_body_that_never_ends_is_503_so_that_sns_retries() {
    let app = TestApp::with(|config| {
        config.public.body_timeout = Duration::from_millis(50);
    })
    .await;
    let path = app.webhook(Event::OnExported);
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{{\"");
    let mut slow = connect(&app, &head).await;

    let answer = read_to_end(&mut slow).await;

    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(answer.contains(r#""code":"body_incomplete""#), "{answer}");
}

#[tokio::test]
async fn a_body_that_announces_too_much_is_refused_before_it_is_sent() {
    let app = TestApp::spawn().await;
    let path = app.webhook(Event::OnExported);
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n");
    let mut stream = connect(&app, &head).await;

    let answer = read_to_end(&mut stream).await;

    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_chunked_body_is_limited_while_it_is_read() {
    let app = TestApp::spawn().await;
    let path = app.webhook(Event::OnExported);
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    let (mut reader, mut writer) = connect(&app, &head).await.into_split();
    let flood = tokio::spawn(async move {
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        // Ends when the server closes the connection.
        while writer.write_all(chunk.as_bytes()).await.is_ok() {}
    });

    let mut answer = vec![0; 12];
    reader.read_exact(&mut answer).await.unwrap();

    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 413");
    drop(reader);
    flood.await.unwrap();
}

#[tokio::test]
async fn one_connection_carries_many_messages() {
    let app = TestApp::spawn().await;
    let path = app.webhook(Event::OnExported);
    let mut stream = TcpStream::connect(app.public()).await.unwrap();
    for _ in 0..5 {
        let body = Message::notification(&app.sns).body();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-length: 0\r\n"), "{answer}");
    }
    assert_eq!(app.stored_ids().await.len(), 5);
}

#[tokio::test]
async fn garbage_does_not_crash_the_server() {
    let app = TestApp::spawn().await;
    for bytes in [
        "\u{0}\u{0}\u{0}\r\n\r\n",
        "GET\r\n\r\n",
        "\u{16}\u{3}\u{1} not tls\r\n\r\n",
    ] {
        let mut stream = connect(&app, bytes).await;
        let answer = read_to_end(&mut stream).await;
        assert!(!answer.contains(" 200 "), "{answer}");
    }
    assert_eq!(
        app.deliver(&Message::notification(&app.sns)).await.status(),
        200
    );
}
