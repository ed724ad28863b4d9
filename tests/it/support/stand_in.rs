//! A server on loopback that records requests and returns prepared answers.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Method, Response, StatusCode, Uri};
use tokio::net::TcpListener;

/// One request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Path and query, byte for byte.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    /// Returns a header's only value; none if it is absent or repeated.
    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?;
        values.next().is_none().then(|| value.as_bytes())
    }
}

/// A prepared answer.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    headers: Vec<(HeaderName, String)>,
    body: Body,
}

impl Answer {
    pub(crate) fn ok(body: impl Into<Body>) -> Self {
        Self::status(200, body)
    }

    pub(crate) fn status(status: u16, body: impl Into<Body>) -> Self {
        Self {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: Vec::new(),
            body: body.into(),
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        let name = HeaderName::from_static(name);
        self.headers.push((name, value.to_owned()));
        self
    }
}

#[derive(Debug, Default)]
struct Script {
    answers: VecDeque<Answer>,
    requests: Vec<Request>,
}

/// The server, which ends with the test's runtime.
#[derive(Debug)]
pub(crate) struct StandIn {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl StandIn {
    /// Starts a server that returns `answers` in turn, then 599.
    pub(crate) async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let script = Arc::new(Mutex::new(Script {
            answers: answers.into_iter().collect(),
            requests: Vec::new(),
        }));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(answer).with_state(script.clone());
        tokio::spawn(async move { axum_serve(listener, router).await });
        Self { address, script }
    }

    /// Returns `http://127.0.0.1:PORT` and `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Adds an answer after the others.
    pub(crate) fn then(&self, answer: Answer) {
        self.script
            .lock()
            .expect("unpoisoned")
            .answers
            .push_back(answer);
    }

    /// Returns the requests since the last call.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.script.lock().expect("unpoisoned").requests)
    }
}

async fn answer(
    State(script): State<Arc<Mutex<Script>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let mut script = script.lock().expect("unpoisoned");
    script.requests.push(Request {
        method,
        target: uri.to_string(),
        headers,
        body,
    });
    let answer = script.answers.pop_front();
    let answer = answer.unwrap_or_else(|| Answer::status(599, "no answer is left"));
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(answer.body).expect("a response")
}

/// `axum::serve`, whose feature the crate does not enable.
pub(crate) async fn axum_serve(listener: TcpListener, router: Router) {
    use hyper_util::rt::TokioIo;
    use hyper_util::service::TowerToHyperService;

    while let Ok((connection, _)) = listener.accept().await {
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let connection = TokioIo::new(connection);
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(connection, service).await;
        });
    }
}
