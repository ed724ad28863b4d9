//! The public listener, which accepts SNS messages.
//!
//! [`listener`] accepts connections, [`caller`] identifies who sends a request,
//! [`PublicRoutes`] finds the route, [`ingest`] accepts a message step by step, and
//! [`problem`] alone knows the statuses. What reaches no webhook is counted and logged
//! ([`crate::unexpected`]).

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tracing::error;

use crate::refusal::Refusal;
use crate::sns::VerifyError;

pub mod body;
pub mod caller;
pub mod challenge;
pub mod headers;
pub mod health;
pub mod incoming;
pub mod ingest;
pub mod listener;
pub mod log;
pub mod problem;
pub(crate) mod stalled;
mod unreadable;
pub mod webhooks;

use caller::{Caller, Callers, REQUEST_ID};
use ingest::Ingest;
use listener::Unreadable;
use problem::Problem;

/// A response of the public listener.
pub type Answer = Response<Full<Bytes>>;

/// The public listener's routes.
#[derive(Clone)]
pub struct PublicRoutes {
    ingest: Arc<Ingest>,
    callers: Arc<Callers>,
}

impl PublicRoutes {
    /// Creates routes that pass messages to `ingest`.
    pub fn new(ingest: Arc<Ingest>, callers: Arc<Callers>) -> Self {
        Self { ingest, callers }
    }

    /// Answers one request, also if its handler panics, and adds its [`REQUEST_ID`].
    pub async fn answer<B: Body<Data = Bytes>>(
        self,
        request: Request<B>,
    ) -> Result<Answer, Infallible> {
        // Every step may run twice, so a step that was interrupted leaves nothing half done.
        let caller = self.callers.identify(&request);
        // Pinned here: passed by value, it would be copied for each request.
        let route = AssertUnwindSafe(pin!(self.route(&caller, request)));
        let mut answer = route.catch_unwind().await.unwrap_or_else(|_| {
            self.ingest.metrics().panicked();
            error!(
                request.id = caller.request_id.as_str(),
                "request handler panicked; SNS will send the message again"
            );
            Problem::defect().to(&caller.request_id).into_response()
        });
        let id = caller.request_id.to_header();
        answer.headers_mut().insert(REQUEST_ID, id);
        Ok(answer)
    }

    /// Counts and logs what a connection brought in place of a request.
    pub fn unreadable(&self, unreadable: Unreadable) {
        let Unreadable {
            kind,
            from_sns,
            question,
        } = unreadable;
        if question.is_some_and(|question| self.ingest.is_open_challenge(&question)) {
            // `doctor` stalls on purpose.
            return;
        }
        self.ingest.unexpected(kind, from_sns, None);
    }

    async fn route<B: Body<Data = Bytes>>(&self, caller: &Caller, request: Request<B>) -> Answer {
        // On any path, so that `doctor` sees how the proxy changes it.
        if let Some(answer) = self.ingest.challenge_answer(request.headers()) {
            return match self.ingest.echo(answer, request).await {
                Ok(echo) => json(&echo),
                Err(refusal) => refused(&refusal, caller),
            };
        }
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/healthz") => plain(StatusCode::OK, "alive\n"),
            (&Method::GET | &Method::HEAD, "/readyz") => {
                let readiness = self.ingest.readiness().await;
                match readiness {
                    Ok(()) => plain(StatusCode::OK, "ready\n"),
                    Err(refusal) => refused(&refusal, caller),
                }
            }
            _ => self.receive(caller, request).await,
        }
    }

    async fn receive<B: Body<Data = Bytes>>(&self, caller: &Caller, request: Request<B>) -> Answer {
        match self.ingest.receive(caller, request).await {
            Ok(_) => Answer::new(Full::default()),
            Err(refusal) => {
                let mut answer = refused(&refusal, caller);
                if leaves_bytes_unread(&refusal) {
                    answer
                        .headers_mut()
                        .insert(CONNECTION, HeaderValue::from_static("close"));
                }
                answer
            }
        }
    }
}

/// Returns the response to a refused request.
fn refused(refusal: &Refusal, caller: &Caller) -> Answer {
    Problem::from(refusal)
        .to(&caller.request_id)
        .into_response()
}

/// Returns true if the connection can't be used again: the body was not read to its end,
/// or the service is stopping.
fn leaves_bytes_unread(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Unverified(VerifyError::BodyTooLarge { .. })
            | Refusal::BodyIncomplete
            | Refusal::ShuttingDown
    )
}

/// Returns the response to a request of `doctor`.
fn json(echo: &challenge::Echo) -> Answer {
    // Text and numbers always become JSON.
    let body = serde_json::to_vec(echo).unwrap_or_default();
    let mut answer = Answer::new(Full::new(Bytes::from(body)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Answer::new(Full::new(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
