//! Request ids and client addresses.

use std::collections::HashSet;

use ivesk_webhook::domain::Event;
use reqwest::Response;

use crate::support::app::{TestApp, json_of};
use crate::support::fake_sns::{Message, STRANGER};
use crate::support::process::{Installation, request_id};

#[tokio::test]
async fn every_answer_has_a_request_id_and_refusals_repeat_it() {
    let app = TestApp::spawn().await;
    let accepted = app.deliver(&Message::notification(&app.sns)).await;
    let mut ids = vec![request_id(accepted.headers())];
    for path in ["/webhooks/nobody", "/nothing/here"] {
        let refused = app.post(path, "{}", &[]).await;
        ids.push(request_id(refused.headers()));
        let (_, problem) = json_of(refused).await;
        assert_eq!(problem["request_id"], *ids.last().unwrap(), "{path}");
    }
    let health = format!("http://{}/healthz", app.public());
    let health = reqwest::get(health).await.unwrap();
    ids.push(request_id(health.headers()));

    let distinct: HashSet<&String> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "{ids:?}");
}

#[tokio::test]
async fn only_a_trusted_proxy_sets_the_request_id() {
    let send = async |app: &TestApp| {
        let message = Message::notification(&app.sns).signed_by(&STRANGER);
        let headers = [("x-request-id", "from-the-proxy-7")];
        let path = app.webhook(Event::OnExported);
        let answer: Response = app.post(&path, message.body(), &headers).await;
        let id = request_id(answer.headers());
        assert_eq!(json_of(answer).await.1["request_id"], id);
        id
    };
    let app = TestApp::spawn().await;
    assert_eq!(send(&app).await, "from-the-proxy-7");

    let untrusting = TestApp::with(|config| config.public.trusted_proxies.clear()).await;
    assert_ne!(send(&untrusting).await, "from-the-proxy-7");
}

#[tokio::test]
async fn a_refusal_logs_the_request_and_if_set_the_client() {
    for log_clients in [false, true] {
        let installation = Installation::alone(&format!(
            "[log]\nformat = \"json\"\nclient_addresses = {log_clients}\n"
        ));
        let server = installation.start().await;
        let url = format!("{}/wrong", installation.webhook(Event::OnExported));
        let client = reqwest::Client::new();
        let request = client.post(url).header("x-forwarded-for", "198.51.100.7");
        let answer = request.send().await.unwrap();

        let line = server.line_about(&answer).await;
        assert_eq!(line["fields"]["code"], "unknown_token");
        if log_clients {
            assert_eq!(line["fields"]["client.address"], "198.51.100.7");
        } else {
            assert!(!server.log().contains("198.51.100.7"), "{}", server.log());
        }
    }
}
