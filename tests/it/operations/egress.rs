//! The way of requests to other hosts: through the proxy that the settings name, and no other.

use std::sync::{Arc, Mutex};

use ivesk_webhook::delivery::Destination;
use ivesk_webhook::domain::Event;
use ivesk_webhook::egress::Proxy;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::destinations::{
    AMPLE, VENDOR_API, config, delivery, destination_config, try_open, unavailable,
};
use crate::support::process::{Installation, Server, client, within};

/// A proxy that refuses everything, and the heads of the requests that it got.
struct RefusingProxy {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl RefusingProxy {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match connection.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => break,
                        }
                    }
                    let head = String::from_utf8_lossy(&head).into_owned();
                    kept.lock().expect("never poisoned").push(head);
                    let answer = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
                    let _ = connection.write_all(answer).await;
                });
            }
        });
        Self { port, heads }
    }

    fn url(&self) -> String {
        format!("http://user:planted@127.0.0.1:{}", self.port)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("never poisoned").clone()
    }

    fn has(&self, line: &str) -> bool {
        self.heads().iter().any(|head| head.starts_with(line))
    }

    /// Waits until a tunnel to this host was requested.
    async fn asked_for(&self, host: &str) {
        let line = format!("CONNECT {host}:443 HTTP/1.1\r\n");
        within(host, async {
            while !self.has(&line) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// Returns a message whose certificate is at SNS itself.
fn message() -> String {
    let certificate = format!("SimpleNotificationService-{}.pem", "0".repeat(32));
    json!({
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": "arn:aws:sns:eu-west-1:007272210889:DPWebHook_onexport",
        "Message": "{\"companyCode\":\"302320404\"}",
        "Timestamp": "2026-11-28T08:00:00.000Z",
        "SignatureVersion": "1",
        "Signature": "A".repeat(342) + "==",
        "SigningCertURL": format!("https://sns.eu-west-1.amazonaws.com/{certificate}"),
        "UnsubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=Unsubscribe",
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_through_the_proxy_of_the_settings_alone() {
    let proxy = RefusingProxy::start().await;
    let canary = RefusingProxy::start().await;
    let sections = format!(
        "[egress]\nproxy = \"{}\"\n[log]\notlp_url = \"https://traces.example.lt\"",
        proxy.url()
    );
    let installation = Installation::with_key(&sections);
    let mut command = installation.command(&["serve"]);
    for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(variable, canary.url());
        command.env(variable.to_lowercase(), canary.url());
    }
    let mut server = Server::spawn(command);
    server.ready().await;
    let answer = client()
        .post(installation.webhook(Event::OnExported))
        .header("x-amz-sns-message-type", "Notification")
        .body(message())
        .send();
    let answer = answer.await.expect("an answer");
    assert_eq!(answer.status(), 503, "{:?}", answer.text().await);
    for host in [
        "app.ivesk.lt",
        "sns.eu-west-1.amazonaws.com",
        "traces.example.lt",
    ] {
        proxy.asked_for(host).await;
    }
    let (_, doctor, _) = installation.run(&["doctor", "--quick"]).await;
    let (_, shown, _) = installation.run(&["config", "show"]).await;
    assert!(shown.contains("http://user:[set]@127.0.0.1"), "{shown}");
    server.terminate();
    let (_, log) = server.exited().await;
    assert!(canary.heads().is_empty(), "{:?}", canary.heads());
    for text in [log, doctor, shown] {
        assert!(!text.contains("planted"), "{text}");
    }
    let authorized = "proxy-authorization: basic dxnlcjpwbgfudgvk";
    for head in proxy.heads() {
        assert!(head.to_lowercase().contains(authorized), "{head}");
    }
}

#[tokio::test]
async fn without_a_proxy_in_the_settings_none_is_used() {
    let canary = RefusingProxy::start().await;
    let installation = Installation::with_key("");
    let url = canary.url();
    let variables = [
        ("HTTPS_PROXY", url.as_str()),
        ("https_proxy", &url),
        ("ALL_PROXY", &url),
    ];
    let (_, report, _) = installation
        .run_with(&["doctor", "--quick"], &variables)
        .await;
    assert!(
        report.contains("app.ivesk.lt") || report.contains("sns."),
        "{report}"
    );
    assert!(canary.heads().is_empty(), "{:?}", canary.heads());
}

#[tokio::test]
async fn destinations_use_the_proxy_unless_they_are_named_as_direct() {
    let proxy = RefusingProxy::start().await;
    let mut config = config(VENDOR_API);
    let url = proxy.url().parse().expect("an address");
    config.egress.proxy = Some(Proxy::new(url, vec!["inside.example".to_owned()]));
    let open = |url: &str| -> Box<dyn Destination> {
        let kind = ivesk_webhook::config::DestinationKind::Http {
            url: url.parse().expect("an address"),
            secrets: vec!["whsec_cGxhbnRlZHBsYW50ZWRwbGFudGVkcGxhbnRlZA==".into()],
        };
        try_open(&destination_config(kind, AMPLE), &config, &[]).expect("a destination")
    };
    let document = delivery("a-1", json!({}));
    for url in [
        "https://books.example/in",
        "https://notinside.example/in",
        "https://books.inside.example/in",
        "http://127.0.0.1:9/in",
        "http://localhost:9/in",
    ] {
        unavailable(open(url).deliver(&document).await);
    }
    let hosts: Vec<String> = proxy
        .heads()
        .iter()
        .filter_map(|head| Some(head.split(' ').nth(1)?.to_owned()))
        .collect();
    assert_eq!(hosts, ["books.example:443", "notinside.example:443"]);
}
