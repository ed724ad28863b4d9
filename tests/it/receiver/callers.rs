use std::collections::HashSet;

use ivesk_webhook::domain::Event;
use reqwest::Response;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::support::app::{TestApp, json};
use crate::support::fake_sns::{Message, STRANGER};
use crate::support::process::{Installation, Server, within};

fn id(headers: &HeaderMap) -> String {
    let mut values = headers.get_all("x-request-id").iter();
    let value = values.next().expect("each answer has an id");
    assert!(values.next().is_none(), "and no second one");
    value.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_refusals_repeat_it() {
    let app = TestApp::spawn().await;
    let accepted = app.deliver(&Message::notification(&app.sns)).await;
    let mut ids = vec![id(accepted.headers())];
    for path in ["/webhooks/nobody", "/nothing/here"] {
        let refused = app.post(path, "{}", &[]).await;
        ids.push(id(refused.headers()));
        let (_, problem) = json(refused).await;
        assert_eq!(problem["request_id"], *ids.last().unwrap(), "{path}");
    }
    let health = format!("http://{}/healthz", app.public());
    let health = reqwest::get(health).await.unwrap();
    ids.push(id(health.headers()));

    let distinct: HashSet<&String> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "{ids:?}");
}

#[tokio::test]
async fn only_a_trusted_proxy_sets_the_request_id() {
    let ask = async |app: &TestApp| {
        let message = Message::notification(&app.sns).signed_by(&STRANGER);
        let headers = [("x-request-id", "from-the-proxy-7")];
        let path = app.webhook(Event::OnExported);
        let answer: Response = app.post(&path, message.body(), &headers).await;
        let id = id(answer.headers());
        assert_eq!(json(answer).await.1["request_id"], id);
        id
    };
    let app = TestApp::spawn().await;
    assert_eq!(ask(&app).await, "from-the-proxy-7");

    let alone = TestApp::with(|config| config.public.trusted_proxies.clear()).await;
    assert_ne!(ask(&alone).await, "from-the-proxy-7");
}

/// The log's line about the request of this answer, once it is written.
pub(crate) async fn line_about(server: &Server, answer: &Response) -> Value {
    let id = id(answer.headers());
    let line = async {
        loop {
            let log = server.log();
            let mut lines = log.lines().filter_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                (line["fields"]["request.id"] == id).then_some(line)
            });
            if let Some(line) = lines.next() {
                return line;
            }
            tokio::task::yield_now().await;
        }
    };
    within("the line of a refused delivery", line).await
}

#[tokio::test]
async fn a_refusal_logs_the_request_and_if_set_the_client() {
    for wanted in [false, true] {
        let here = Installation::alone(&format!(
            "[log]\nformat = \"json\"\nclient_addresses = {wanted}\n"
        ));
        let server = here.start().await;
        let url = format!("{}/wrong", here.webhook(Event::OnExported));
        let client = reqwest::Client::new();
        let asked = client.post(url).header("x-forwarded-for", "198.51.100.7");
        let answer = asked.send().await.unwrap();

        let line = line_about(&server, &answer).await;
        assert_eq!(line["fields"]["code"], "unknown_token");
        if wanted {
            assert_eq!(line["fields"]["client.address"], "198.51.100.7");
        } else {
            assert!(!server.log().contains("198.51.100.7"), "{}", server.log());
        }
    }
}
