//! The emulator's switches and faults, through real HTTP.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use ivesk_webhook::domain::{Clock, Event};
use ivesk_webhook::emulator::{
    AccountSettings, Control, DEFAULT_KEY, Emulator, EmulatorSettings, Publication, Switches,
};
use serde_json::Value;

use crate::support::emulator::emulator_with;
use crate::support::puller::{signer, start_time};

mod deliveries;
mod faults;
mod files;
mod guard;
mod posts;
mod queues;

/// The company of most tests.
const COMPANY: &str = "302320404";
/// Another company of the same key.
const NEIGHBOR: &str = "304567894";
/// Another key.
const STRANGER_KEY: &str = "another-key";
/// The company of the other key.
const STRANGER: &str = "110000001";

/// An emulator with a manual clock, and a client.
struct Bench {
    emulator: Emulator,
    control: Control,
    http: reqwest::Client,
}

/// An answer with its whole body.
struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the answer is JSON")
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("the answer is text")
    }

    fn message(&self) -> String {
        let json = self.json();
        json["message"].as_str().expect("a message").to_owned()
    }
}

impl Bench {
    async fn start(switches: &str) -> Self {
        Self::start_with(switches, 64).await
    }

    async fn start_with(switches: &str, concurrent_deliveries: usize) -> Self {
        let account = |key: &str, companies: &[&str]| AccountSettings {
            key: key.to_owned(),
            companies: companies.iter().map(|c| (*c).to_owned()).collect(),
        };
        let settings = EmulatorSettings {
            accounts: vec![
                account(DEFAULT_KEY, &[COMPANY, NEIGHBOR]),
                account(STRANGER_KEY, &[STRANGER]),
            ],
            switches: Switches::parse(switches).expect("switches that exist"),
            clock: Clock::manual(start_time()),
            signer: Some(signer()),
            concurrent_deliveries,
            ..EmulatorSettings::default()
        };
        let emulator = emulator_with(settings).await;
        Self {
            control: emulator.control(),
            emulator,
            http: ivesk_webhook::egress::client(None, Duration::from_secs(60)).expect("a client"),
        }
    }

    /// Starts an emulator and a webhook that is subscribed to `event`.
    async fn with_webhook(switches: &str, event: Event) -> (Self, Webhook) {
        let bench = Self::start(switches).await;
        let webhook = Webhook::start().await;
        webhook.subscribe(&bench, event).await;
        (bench, webhook)
    }

    fn switch(&self, switches: &str) {
        let set = self.control.set_switches(switches);
        set.expect("switches that exist");
    }

    /// Digitizes documents of [`COMPANY`]; returns their ids.
    fn digitize(&self, count: usize) -> Vec<String> {
        let digitized = self.control.digitize(DEFAULT_KEY, COMPANY, count);
        digitized.expect("a known company")
    }

    /// Exports documents of [`COMPANY`]; returns their ids and versions.
    fn export(&self, count: usize) -> Vec<(String, String)> {
        let exported = self.control.export(COMPANY, count);
        exported.expect("a known company")
    }

    /// Publishes a message and waits for its deliveries; returns its id.
    async fn publish(&self, publication: &Publication) -> String {
        let id = self.control.notify(publication).expect("published");
        self.control.idle().await;
        id
    }

    /// Sends a request to the API with the default key.
    async fn api(&self, method: &str, path: &str) -> Answer {
        self.api_as(DEFAULT_KEY, method, path, None).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.api("GET", path).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.api_as(DEFAULT_KEY, "POST", path, Some(body)).await
    }

    async fn api_as(&self, key: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let url = format!("{}{path}", self.emulator.api_url());
        let method = method.parse().expect("a method");
        let mut request = self.http.request(method, url).header("x-api-key", key);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        read(request).await
    }

    /// Reads all pages of a queue; returns ids and versions.
    async fn read_queue(&self, path: &str, version_field: &str) -> Vec<(String, String)> {
        let mut documents = Vec::new();
        let mut from: Option<String> = None;
        loop {
            let mark = if path.contains('?') { '&' } else { '?' };
            let query = from.map_or_else(String::new, |from| format!("{mark}from={from}"));
            let answer = self.get(&format!("{path}{query}")).await;
            assert_eq!(answer.status, 200);
            let page = answer.json();
            documents.extend(listed(&page, version_field));
            match page["next"].as_str() {
                None => return documents,
                Some(next) => from = Some(next.to_owned()),
            }
        }
    }

    async fn exported(&self) -> Vec<(String, String)> {
        let path = format!("/exported/{COMPANY}");
        self.read_queue(&path, "exportedat").await
    }
}

async fn read(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = response.bytes().await.expect("a whole body").to_vec();
    Answer {
        status,
        headers,
        body,
    }
}

fn listed(page: &Value, version_field: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    page["documents"]
        .as_array()
        .expect("documents")
        .iter()
        .map(|document| (text(&document["id"]), text(&document[version_field])))
        .collect()
}

/// A delivery as it arrived.
#[derive(Clone, Debug)]
struct Delivery {
    headers: BTreeMap<String, String>,
    body: Bytes,
}

impl Delivery {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("an envelope")
    }

    fn field(&self, name: &str) -> String {
        self.json()[name].as_str().expect("text").to_owned()
    }
}

/// A webhook that records deliveries and answers with prepared statuses.
#[derive(Clone)]
struct Webhook {
    url: String,
    received: Arc<Mutex<Vec<Delivery>>>,
    statuses: Arc<Mutex<VecDeque<u16>>>,
}

impl Webhook {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("an address");
        let webhook = Self {
            url: format!("http://{address}/hook"),
            received: Arc::default(),
            statuses: Arc::default(),
        };
        let router = Router::new()
            .fallback(Self::receive)
            .layer(axum::extract::DefaultBodyLimit::max(4 * 1024 * 1024))
            .with_state(webhook.clone());
        tokio::spawn(axum::serve(listener, router).into_future());
        webhook
    }

    async fn receive(State(webhook): State<Self>, headers: HeaderMap, body: Bytes) -> StatusCode {
        let headers = headers
            .iter()
            .map(|(name, value)| {
                let value = value.to_str().expect("ASCII").to_owned();
                (name.to_string(), value)
            })
            .collect();
        let mut received = webhook.received.lock().expect("not poisoned");
        received.push(Delivery { headers, body });
        let status = webhook.statuses.lock().expect("not poisoned").pop_front();
        StatusCode::from_u16(status.unwrap_or(200)).expect("a status")
    }

    /// Sets the next statuses; 200 follows them.
    fn will_answer(&self, statuses: &[u16]) {
        let mut next = self.statuses.lock().expect("not poisoned");
        next.extend(statuses);
    }

    /// Returns the deliveries since the last call.
    fn take(&self) -> Vec<Delivery> {
        std::mem::take(&mut *self.received.lock().expect("not poisoned"))
    }

    /// Subscribes to `event` and confirms; returns the subscription's ARN.
    async fn subscribe(&self, bench: &Bench, event: Event) -> String {
        let arn = bench
            .control
            .subscribe(event, &self.url)
            .expect("a good target");
        bench.control.idle().await;
        let confirmation = self.take().pop().expect("a confirmation");
        let answer = read(bench.http.get(confirmation.field("SubscribeURL"))).await;
        assert_eq!(answer.status, 200);
        arn
    }
}
