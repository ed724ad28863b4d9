//! Shutdown of the public listener.

use ivesk_webhook::domain::Event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::support::app::{TestApp, code};
use crate::support::fake_sns::Message;

#[tokio::test]
async fn shutdown_finishes_requests_in_flight_and_accepts_no_more() {
    let mut app = TestApp::spawn().await;
    let message = Message::notification(&app.sns);
    let service = app.take_service();
    let shared = std::sync::Arc::clone(service.app());
    app.faults.hold();
    let (stop, stopped) = oneshot::channel::<()>();
    let service = tokio::spawn(service.run_until(async {
        let _ = stopped.await;
    }));

    let request = app.deliver(&message);
    tokio::pin!(request);
    tokio::select! {
        _ = &mut request => panic!("answered before the commit"),
        () = app.faults.until_waiting(1) => {}
    }
    stop.send(()).unwrap();
    // Until the listener is closed.
    while TcpStream::connect(app.public()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        shared.ingest.readiness().await.unwrap_err().code(),
        "shutting_down"
    );
    let ready = app
        .admin_request(reqwest::Method::GET, "/readyz")
        .send()
        .await
        .unwrap();
    assert_eq!(code(ready).await, (503, "shutting_down".to_owned()));
    app.faults.release();

    assert_eq!(request.await.status(), 200);
    assert!(service.await.unwrap(), "it stops cleanly");
    let reopened = ivesk_webhook::service::open_store(&app.config(), &app.clock)
        .await
        .unwrap();
    let rows = reopened.notifications(0, 10).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].message_id, message.id());
}

#[tokio::test]
async fn a_request_on_an_open_connection_while_stopping_is_503() {
    let mut app = TestApp::spawn().await;
    let path = app.webhook(Event::OnExported);
    let body = Message::notification(&app.sns).body();
    // The shutdown begins before the head is complete.
    let mut stream = TcpStream::connect(app.public()).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    app.get("/healthz").await;
    app.service().app().health.drain();

    stream
        .write_all(format!("\r\n{body}").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();

    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("shutting_down"), "{answer}");
    assert!(app.stored_ids().await.is_empty());
    assert!(app.stop().await);
}

#[tokio::test]
async fn idle_connections_do_not_delay_shutdown() {
    let mut app = TestApp::spawn().await;
    let mut idle = TcpStream::connect(app.public()).await.unwrap();
    app.get("/healthz").await;

    assert!(app.stop().await);

    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0);
}
