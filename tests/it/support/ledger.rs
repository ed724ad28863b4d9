//! A receiver of documents with a ledger of its own, to compare with what the service stores.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ivesk_webhook::config::{DestinationConfig, DestinationKind, HistoryMode};
use secrecy::SecretString;
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use crate::support::process::within;

/// Secret of both sides' signatures.
pub(crate) const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// One version of a document as the receiver got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) queue: String,
    pub(crate) company: String,
    pub(crate) document_id: String,
    pub(crate) version: String,
    pub(crate) sequence: i64,
}

/// The receiver's reaction to a document.
#[derive(Clone, Debug)]
pub(crate) enum Reaction {
    /// Accepts it.
    Accepts,
    /// Accepts it after this time.
    AcceptsAfter(Duration),
    /// Accepts it once this is notified.
    AcceptsOnce(Arc<Notify>),
    /// Accepts it, but resets the connection instead of answering.
    AcceptsUnheard,
    /// Resets the connection without accepting it.
    Resets,
    /// Never answers.
    Hangs,
    /// Answers with this status, header and body, and does not accept it.
    Answers(u16, Option<(&'static str, String)>, String),
}

impl Reaction {
    pub(crate) fn status(status: u16) -> Self {
        Self::Answers(status, None, String::new())
    }

    pub(crate) fn with_header(status: u16, name: &'static str, value: &str) -> Self {
        Self::Answers(status, Some((name, value.to_owned())), String::new())
    }

    /// Returns a rejection with a message for the accountant.
    pub(crate) fn rejects(message: &str) -> Self {
        let body = serde_json::json!({ "message": message }).to_string();
        Self::Answers(422, None, body)
    }
}

type Policy = Box<dyn FnMut(&Entry) -> Reaction + Send>;

/// The receiver's ledger.
#[derive(Default)]
struct Records {
    policy: Option<Policy>,
    requests: usize,
    received: Vec<Entry>,
    accepted: Vec<Entry>,
    repeats: usize,
    rejected: Vec<Entry>,
    in_flight: BTreeMap<String, usize>,
    most_in_flight: usize,
    overlaps: BTreeSet<String>,
}

impl Records {
    fn begin(&mut self, entry: &Entry) -> Reaction {
        self.received.push(entry.clone());
        *self.in_flight.entry(entry.document_id.clone()).or_default() += 1;
        let all: usize = self.in_flight.values().sum();
        self.most_in_flight = self.most_in_flight.max(all);
        if self.in_flight[&entry.document_id] > 1 {
            self.overlaps.insert(entry.document_id.clone());
        }
        let policy = self.policy.as_mut();
        policy.map_or(Reaction::Accepts, |react| react(entry))
    }

    fn accept(&mut self, entry: &Entry) {
        match self.accepted.iter().any(|known| known.key == entry.key) {
            true => self.repeats += 1,
            false => self.accepted.push(entry.clone()),
        }
    }
}

/// A document in flight, until this is dropped.
struct InFlight {
    ledger: Ledger,
    document_id: String,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut records = self.ledger.records();
        if let Some(count) = records.in_flight.get_mut(&self.document_id) {
            *count = count.saturating_sub(1);
        }
    }
}

/// The receiver, which ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Ledger {
    address: SocketAddr,
    records: Arc<Mutex<Records>>,
    changes: watch::Sender<u64>,
}

impl Ledger {
    /// Starts a receiver that accepts everything.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let ledger = Self {
            address: listener.local_addr().expect("an address"),
            records: Arc::default(),
            changes: watch::Sender::new(0),
        };
        tokio::spawn(ledger.clone().listen(listener));
        ledger
    }

    async fn listen(self, listener: TcpListener) {
        while let Ok((connection, _)) = listener.accept().await {
            // A connection that is closed without an answer is reset.
            connection.set_zero_linger().expect("a socket option");
            let ledger = self.clone();
            tokio::spawn(async move {
                let answer = hyper::service::service_fn(move |request| {
                    let ledger = ledger.clone();
                    async move { ledger.receive(request).await }
                });
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http
                    .serve_connection(TokioIo::new(connection), answer)
                    .await;
            });
        }
    }

    async fn receive(&self, request: hyper::Request<Incoming>) -> Result<Response<Body>, HungUp> {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(Body::new(body), 8 << 20).await;
        let body = body.map_err(|_| HungUp)?;
        let entry = entry(&head.headers, &body);
        let reaction = {
            let mut records = self.records();
            records.requests += 1;
            records.begin(&entry)
        };
        let in_flight = InFlight {
            ledger: self.clone(),
            document_id: entry.document_id.clone(),
        };
        self.changed();
        let answer = self.answer(&entry, reaction).await;
        drop(in_flight);
        self.changed();
        answer
    }

    async fn answer(&self, entry: &Entry, reaction: Reaction) -> Result<Response<Body>, HungUp> {
        let accepted = || {
            self.records().accept(entry);
            let answer = Response::builder().status(204).body(Body::empty());
            answer.expect("an answer")
        };
        match reaction {
            Reaction::Accepts => Ok(accepted()),
            Reaction::AcceptsAfter(pause) => {
                tokio::time::sleep(pause).await;
                Ok(accepted())
            }
            Reaction::AcceptsOnce(notify) => {
                notify.notified().await;
                Ok(accepted())
            }
            Reaction::AcceptsUnheard => {
                self.records().accept(entry);
                Err(HungUp)
            }
            Reaction::Resets => Err(HungUp),
            Reaction::Hangs => std::future::pending::<Result<_, Infallible>>()
                .await
                .map_err(|never| match never {}),
            Reaction::Answers(status, header, body) => {
                if status == 422 {
                    self.records().rejected.push(entry.clone());
                }
                let mut answer = Response::builder().status(status);
                if let Some((name, value)) = header {
                    answer = answer.header(name, value);
                }
                Ok(answer.body(Body::from(body)).expect("an answer"))
            }
        }
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().expect("never poisoned")
    }

    fn changed(&self) {
        self.changes.send_modify(|number| *number += 1);
    }

    /// Returns the URL that documents are posted to.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/documents", self.address)
    }

    /// Returns a destination that posts everything to it, history included.
    pub(crate) fn destination(&self) -> DestinationConfig {
        DestinationConfig {
            history: HistoryMode::Deliver,
            ..DestinationConfig::of(DestinationKind::Http {
                url: self.url().parse().expect("an address"),
                secrets: vec![SecretString::from(SECRET)],
            })
        }
    }

    /// Sets its reaction to later documents.
    pub(crate) fn react(&self, policy: impl FnMut(&Entry) -> Reaction + Send + 'static) {
        self.records().policy = Some(Box::new(policy));
    }

    /// Sets one reaction for all later documents.
    pub(crate) fn always(&self, reaction: Reaction) {
        self.react(move |_| reaction.clone());
    }

    /// Returns the number of requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.records().requests
    }

    /// Returns every version that it received, accepted or not, in order.
    pub(crate) fn received(&self) -> Vec<Entry> {
        self.records().received.clone()
    }

    /// Returns the versions that it accepted: each key once, in the order of their arrival.
    pub(crate) fn accepted(&self) -> Vec<Entry> {
        self.records().accepted.clone()
    }

    /// Returns id and version of [`Ledger::accepted`].
    pub(crate) fn versions(&self) -> Vec<(String, String)> {
        let accepted = self.accepted().into_iter();
        accepted
            .map(|entry| (entry.document_id, entry.version))
            .collect()
    }

    /// Returns how often it got a version that it had accepted already.
    pub(crate) fn repeats(&self) -> usize {
        self.records().repeats
    }

    /// Returns the versions that it rejected.
    pub(crate) fn rejected(&self) -> Vec<Entry> {
        self.records().rejected.clone()
    }

    /// Returns the most documents that were in flight at once, and the documents of which
    /// two versions were.
    pub(crate) fn concurrency(&self) -> (usize, BTreeSet<String>) {
        let records = self.records();
        (records.most_in_flight, records.overlaps.clone())
    }

    /// Waits until `condition` is true.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let mut changes = self.changes.subscribe();
        within(what, async {
            loop {
                changes.borrow_and_update();
                if condition(self) {
                    return;
                }
                changes.changed().await.expect("the ledger is there");
            }
        })
        .await;
    }
}

/// Closes the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("hung up")]
struct HungUp;

fn entry(headers: &HeaderMap, body: &Bytes) -> Entry {
    let webhook = Webhook::new(SECRET).expect("a secret");
    let signed = headers.get("webhook-signature").expect("it is signed");
    let id = headers.get("webhook-id").expect("it has an id");
    let at = headers.get("webhook-timestamp").expect("it has a time");
    let (id, at) = (id.to_str().expect("text"), at.to_str().expect("text"));
    // The library's own check requires today's date, which a test's clock does not have.
    let expected = webhook.sign(id, at.parse().expect("seconds"), body);
    assert_eq!(signed.to_str().ok(), expected.ok().as_deref());
    let body: Value = serde_json::from_slice(body).expect("JSON");
    let text = |name: &str| {
        let text = body["data"][name].as_str();
        text.unwrap_or_else(|| panic!("no {name}: {body}"))
            .to_owned()
    };
    let entry = Entry {
        key: text("key"),
        queue: text("queue"),
        company: text("company"),
        document_id: text("document_id"),
        version: text("version"),
        sequence: body["data"]["sequence"].as_i64().expect("a number"),
    };
    assert_eq!(entry.key, id);
    entry
}
