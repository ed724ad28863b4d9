//! A receiver of documents that keeps its own books: by the key of each document, so
//! that what it was given can be held against what the service believes.

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
use tokio::sync::watch;

use crate::support::process::within;

/// What both sides sign with.
pub(crate) const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// One version of one document as the receiver was told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) queue: String,
    pub(crate) company: String,
    pub(crate) document_id: String,
    pub(crate) version: String,
    pub(crate) sequence: i64,
}

/// How the receiver takes a document.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// It books it, and says so.
    Books,
    /// It books it so much later.
    BooksAfter(Duration),
    /// It books it, and the connection is reset before it has said so.
    BooksUnheard,
    /// The connection is reset before it has read anything.
    Resets,
    /// It reads it and never answers.
    Hangs,
    /// It answers this, and books nothing.
    Answers(u16, Option<(&'static str, String)>, String),
}

impl Manner {
    pub(crate) fn status(status: u16) -> Self {
        Self::Answers(status, None, String::new())
    }

    pub(crate) fn with_header(status: u16, name: &'static str, value: &str) -> Self {
        Self::Answers(status, Some((name, value.to_owned())), String::new())
    }

    /// A refusal with words for the accountant.
    pub(crate) fn rejects(message: &str) -> Self {
        let body = serde_json::json!({ "message": message }).to_string();
        Self::Answers(422, None, body)
    }
}

type Judge = Box<dyn FnMut(&Entry) -> Manner + Send>;

/// The receiver's books.
#[derive(Default)]
struct Books {
    judge: Option<Judge>,
    requests: usize,
    given: Vec<Entry>,
    delivered: Vec<Entry>,
    repeats: usize,
    rejected: Vec<Entry>,
    under_way: BTreeMap<String, usize>,
    most_under_way: usize,
    overlaps: BTreeSet<String>,
}

impl Books {
    fn begin(&mut self, entry: &Entry) -> Manner {
        self.given.push(entry.clone());
        *self.under_way.entry(entry.document_id.clone()).or_default() += 1;
        let all: usize = self.under_way.values().sum();
        self.most_under_way = self.most_under_way.max(all);
        if self.under_way[&entry.document_id] > 1 {
            self.overlaps.insert(entry.document_id.clone());
        }
        let judge = self.judge.as_mut();
        judge.map_or(Manner::Books, |judge| judge(entry))
    }

    fn book(&mut self, entry: &Entry) {
        match self.delivered.iter().any(|known| known.key == entry.key) {
            true => self.repeats += 1,
            false => self.delivered.push(entry.clone()),
        }
    }
}

/// That a document is in the receiver's hands, however that ends.
struct UnderWay {
    ledger: Ledger,
    document_id: String,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut books = self.ledger.books();
        if let Some(count) = books.under_way.get_mut(&self.document_id) {
            *count = count.saturating_sub(1);
        }
    }
}

/// The receiver. It ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Ledger {
    address: SocketAddr,
    books: Arc<Mutex<Books>>,
    changes: watch::Sender<u64>,
}

impl Ledger {
    /// One that books whatever it is given.
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let ledger = Self {
            address: listener.local_addr().expect("an address"),
            books: Arc::default(),
            changes: watch::Sender::new(0),
        };
        tokio::spawn(ledger.clone().listen(listener));
        ledger
    }

    async fn listen(self, listener: TcpListener) {
        while let Ok((connection, _)) = listener.accept().await {
            // Whoever hangs up without an answer resets the connection.
            connection.set_zero_linger().expect("an option of sockets");
            let ledger = self.clone();
            tokio::spawn(async move {
                let answer = hyper::service::service_fn(move |request| {
                    let ledger = ledger.clone();
                    async move { ledger.take(request).await }
                });
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http
                    .serve_connection(TokioIo::new(connection), answer)
                    .await;
            });
        }
    }

    async fn take(&self, request: hyper::Request<Incoming>) -> Result<Response<Body>, HungUp> {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(Body::new(body), 8 << 20).await;
        let body = body.map_err(|_| HungUp)?;
        let entry = entry(&head.headers, &body);
        let manner = {
            let mut books = self.books();
            books.requests += 1;
            books.begin(&entry)
        };
        let under_way = UnderWay {
            ledger: self.clone(),
            document_id: entry.document_id.clone(),
        };
        self.changed();
        let answer = self.answer(&entry, manner).await;
        drop(under_way);
        self.changed();
        answer
    }

    async fn answer(&self, entry: &Entry, manner: Manner) -> Result<Response<Body>, HungUp> {
        let delivered = |status: u16| {
            let answer = Response::builder().status(status).body(Body::empty());
            Ok(answer.expect("an answer"))
        };
        match manner {
            Manner::Books => {
                self.books().book(entry);
                delivered(204)
            }
            Manner::BooksAfter(pause) => {
                tokio::time::sleep(pause).await;
                self.books().book(entry);
                delivered(204)
            }
            Manner::BooksUnheard => {
                self.books().book(entry);
                Err(HungUp)
            }
            Manner::Resets => Err(HungUp),
            Manner::Hangs => std::future::pending::<Result<_, Infallible>>()
                .await
                .map_err(|never| match never {}),
            Manner::Answers(status, header, body) => {
                if status == 422 {
                    self.books().rejected.push(entry.clone());
                }
                let mut answer = Response::builder().status(status);
                if let Some((name, value)) = header {
                    answer = answer.header(name, value);
                }
                Ok(answer.body(Body::from(body)).expect("an answer"))
            }
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("never poisoned")
    }

    fn changed(&self) {
        self.changes.send_modify(|number| *number += 1);
    }

    /// Where documents are posted to.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/documents", self.address)
    }

    /// The destination that posts to it: it is given everything, from each feed's beginning.
    pub(crate) fn destination(&self) -> DestinationConfig {
        DestinationConfig {
            history: HistoryMode::Deliver,
            ..DestinationConfig::of(DestinationKind::Http {
                url: self.url().parse().expect("an address"),
                secrets: vec![SecretString::from(SECRET)],
            })
        }
    }

    /// How it takes what comes from now on.
    pub(crate) fn takes(&self, judge: impl FnMut(&Entry) -> Manner + Send + 'static) {
        self.books().judge = Some(Box::new(judge));
    }

    /// Takes everything in this manner from now on.
    pub(crate) fn always(&self, manner: Manner) {
        self.takes(move |_| manner.clone());
    }

    /// Requests that it has read, since it was opened.
    pub(crate) fn requests(&self) -> usize {
        self.books().requests
    }

    /// What it has read, in the order in which that came, with what it did not take.
    pub(crate) fn given(&self) -> Vec<Entry> {
        self.books().given.clone()
    }

    /// What it has delivered: each key once, in the order in which they first came.
    pub(crate) fn delivered(&self) -> Vec<Entry> {
        self.books().delivered.clone()
    }

    /// Id and version of what it has delivered.
    pub(crate) fn versions(&self) -> Vec<(String, String)> {
        let delivered = self.delivered().into_iter();
        delivered
            .map(|entry| (entry.document_id, entry.version))
            .collect()
    }

    /// How often it was given what it had booked already.
    pub(crate) fn repeats(&self) -> usize {
        self.books().repeats
    }

    /// What it has rejected.
    pub(crate) fn rejected(&self) -> Vec<Entry> {
        self.books().rejected.clone()
    }

    /// The most documents that were in its hands at once, and those of which two
    /// versions were.
    pub(crate) fn side_by_side(&self) -> (usize, BTreeSet<String>) {
        let books = self.books();
        (books.most_under_way, books.overlaps.clone())
    }

    /// Waits until `is` holds of it.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let mut changes = self.changes.subscribe();
        within(what, async {
            loop {
                changes.borrow_and_update();
                if is(self) {
                    return;
                }
                changes.changed().await.expect("the ledger is there");
            }
        })
        .await;
    }
}

/// That the connection ends here.
#[derive(Debug, thiserror::Error)]
#[error("hung up")]
struct HungUp;

fn entry(headers: &HeaderMap, body: &Bytes) -> Entry {
    let webhook = Webhook::new(SECRET).expect("a secret");
    let signed = headers.get("webhook-signature").expect("it is signed");
    let id = headers.get("webhook-id").expect("it has an id");
    let at = headers.get("webhook-timestamp").expect("it has a time");
    let (id, at) = (id.to_str().expect("text"), at.to_str().expect("text"));
    // The library's own check filter today's date, which a test's clock does not have.
    let expected = webhook.sign(id, at.parse().expect("seconds"), body);
    assert_eq!(signed.to_str().ok(), expected.ok().as_deref());
    let told: Value = serde_json::from_slice(body).expect("JSON");
    let text = |name: &str| {
        let text = told["data"][name].as_str();
        text.unwrap_or_else(|| panic!("no {name}: {told}"))
            .to_owned()
    };
    let entry = Entry {
        key: text("key"),
        queue: text("queue"),
        company: text("company"),
        document_id: text("document_id"),
        version: text("version"),
        sequence: told["data"]["sequence"].as_i64().expect("a number"),
    };
    assert_eq!(entry.key, id);
    entry
}
