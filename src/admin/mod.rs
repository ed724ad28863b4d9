//! The private listener: the API for people and programs of the house, metrics,
//! health. Subcommands use the same API, also where no server runs.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;

use crate::receiver::problem::Problem;
use crate::service::App;
use crate::store::StoreError;

mod alarms;
mod deliveries;
mod feeds;
mod guard;
mod status;
mod subscriptions;
pub(crate) mod uploads;

/// The most that a request to this listener may hold.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The private listener's routes.
pub fn router(app: Arc<App>) -> Router {
    let guarded = Router::new()
        .route("/v1/status", get(status::status))
        .route("/v1/alarms", get(alarms::list))
        .route("/v1/feeds", get(feeds::list))
        .route("/v1/feeds/park", post(feeds::park))
        .route("/v1/feeds/resume", post(feeds::resume))
        .route("/v1/pull", post(feeds::pull))
        .route("/v1/subscriptions", get(subscriptions::list))
        .route(
            "/v1/subscriptions/requested",
            post(subscriptions::requested),
        )
        .route(
            "/v1/subscriptions/{id}/approve",
            post(subscriptions::approve),
        )
        .route(
            "/v1/subscriptions/{id}/restore",
            post(subscriptions::restore),
        )
        .route("/v1/quarantine", get(deliveries::quarantine))
        .route("/v1/quarantine/{id}", get(deliveries::quarantined))
        .route("/v1/quarantine/{id}/retry", post(deliveries::retry))
        .route("/v1/notifications", get(deliveries::notifications))
        .route("/v1/notifications/{id}", get(deliveries::notification))
        .route("/v1/uploads", get(uploads::list).post(uploads::begin))
        .route("/v1/uploads/{id}/end", post(uploads::end))
        .route("/v1/challenge", post(status::challenge))
        .route("/v1/backup", post(status::backup))
        .route("/metrics", get(status::metrics))
        .fallback(|| async { AdminError::UnknownPath })
        .layer(from_fn_with_state(Arc::clone(&app), guard::guard))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
    // Whoever asks only whether we are alive has no token.
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .merge(guarded)
        .with_state(app)
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    match app.ingest.readiness().await {
        Ok(()) => "ready\n".into_response(),
        Err(refusal) => Problem::from(&refusal)
            .into_response()
            .map(axum::body::Body::new),
    }
}

/// Why the private listener did not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum AdminError {
    #[error("there is nothing at this path")]
    UnknownPath,
    #[error("this needs `Authorization: Bearer` with the token of `private.token_file`")]
    Unauthorized,
    #[error("without a private token, only requests to 127.0.0.1, ::1 or localhost are answered")]
    ForeignHost,
    #[error("a POST needs `Content-Type: application/json` and must not come from a web page")]
    NotJson,
    #[error("{0}")]
    BadRequest(String),
    #[error("there is no such row")]
    UnknownRow,
    #[error("{0}")]
    Conflict(Cow<'static, str>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AdminError {
    /// The status and the code: statuses of this listener are decided here alone.
    fn answer(&self) -> (StatusCode, &'static str) {
        match self {
            Self::UnknownPath => (StatusCode::NOT_FOUND, "unknown_path"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::ForeignHost => (StatusCode::FORBIDDEN, "foreign_host"),
            Self::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json"),
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::UnknownRow => (StatusCode::NOT_FOUND, "unknown_row"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            Self::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
        }
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let (status, code) = self.answer();
        let body = json!({
            "type": format!("urn:ivesk-webhook:error:{code}"),
            "title": self.to_string(),
            "status": status.as_u16(),
            "code": code,
        });
        let mut response = (status, body.to_string()).into_response();
        response.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        response
    }
}

/// What a handler of this listener gives.
type Outcome<T> = Result<axum::Json<T>, AdminError>;

/// A JSON body, whose faults are told as ours are.
struct Input<T>(T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> axum::extract::FromRequest<S> for Input<T> {
    type Rejection = AdminError;

    async fn from_request(
        request: axum::extract::Request,
        state: &S,
    ) -> Result<Self, Self::Rejection> {
        axum::Json::from_request(request, state)
            .await
            .map(|axum::Json(value)| Self(value))
            .map_err(|rejection| AdminError::BadRequest(rejection.body_text()))
    }
}
