//! The errors of the admin API as problems (RFC 9457), and extractors whose rejections are
//! such problems.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::de::DeserializeOwned;

pub(super) use crate::api::{NoFields, ProblemBody};
use crate::store::StoreError;

/// Largest body of a request to this listener.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;

/// Longest time for the body of a request to arrive.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a body whole.
///
/// # Errors
///
/// [`AdminError::TooLarge`] and [`AdminError::BodyIncomplete`].
pub(super) async fn read_body(body: Body) -> Result<Bytes, AdminError> {
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(AdminError::TooLarge);
    }
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_large(&error) => Err(AdminError::TooLarge),
        Ok(Err(_)) | Err(_) => Err(AdminError::BodyIncomplete),
    }
}

/// Returns true if the body was longer than allowed, rather than broken off.
fn is_too_large(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error);
    source.is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

/// The scheme by which a request proves who sent it (RFC 6750).
const CHALLENGE: &str = "Bearer realm=\"ivesk-webhook\"";

/// A reason for which the admin listener refuses a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    #[error("there is nothing at this address")]
    UnknownPath,
    #[error("this path does not support this method")]
    UnknownMethod,
    #[error(
        "this request needs `Authorization: Bearer` with a token of `ivesk-webhook tokens create`, or \
         that of `admin.token_file`"
    )]
    Unauthorized,
    #[error("this token has expired; create another one with `ivesk-webhook tokens create`")]
    TokenExpired,
    #[error("too many wrong tokens from this address; wait {} s, or send a right one", .0.as_secs())]
    TooManyAttempts(Duration),
    #[error(
        "this needs the right `{needs}`, and yours is `{has}`; `ivesk-webhook tokens create` creates another token"
    )]
    MissingRight { needs: &'static str, has: String },
    #[error(
        "only requests to 127.0.0.1, ::1 or localhost are answered; to use another name, set `admin.token_file`"
    )]
    ForeignHost,
    #[error("a POST needs `Content-Type: application/json` and must not come from a web page")]
    NotJson,
    #[error("this form is too old or from another page; go back, reload the page and try again")]
    NotOurForm,
    #[error("{0}")]
    BadRequest(String),
    #[error("the body is larger than {} bytes", MAX_BODY_BYTES)]
    TooLarge,
    #[error("the body did not arrive within {} seconds", BODY_TIMEOUT.as_secs())]
    BodyIncomplete,
    #[error("the request took too long; part of it may be done: look at the state, then try again")]
    TookTooLong,
    #[error("nothing here has this name or number; list what exists, and try again")]
    UnknownRow,
    #[error("{0}")]
    Unknown(String),
    #[error("{0}")]
    Conflict(Cow<'static, str>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AdminError {
    /// Returns that there is no row of this number, and the command that lists them.
    pub(super) fn no_row(noun: &str, id: i64, command: &str) -> Self {
        Self::Unknown(format!("there is no {noun} {id}; {command} lists them"))
    }

    /// Returns the status and the code. No other place decides statuses of this listener.
    pub(super) fn answer(&self) -> (StatusCode, &'static str) {
        match self {
            Self::UnknownPath => (StatusCode::NOT_FOUND, "unknown_path"),
            Self::UnknownMethod => (StatusCode::METHOD_NOT_ALLOWED, "unknown_method"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::TokenExpired => (StatusCode::UNAUTHORIZED, "token_expired"),
            Self::TooManyAttempts(_) => (StatusCode::TOO_MANY_REQUESTS, "too_many_attempts"),
            Self::MissingRight { .. } => (StatusCode::FORBIDDEN, "missing_right"),
            Self::ForeignHost => (StatusCode::FORBIDDEN, "foreign_host"),
            Self::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json"),
            Self::NotOurForm => (StatusCode::FORBIDDEN, "not_our_form"),
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::BodyIncomplete => (StatusCode::REQUEST_TIMEOUT, "body_incomplete"),
            Self::TookTooLong => (StatusCode::SERVICE_UNAVAILABLE, "took_too_long"),
            Self::UnknownRow | Self::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_row"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            Self::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
        }
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let (status, code) = self.answer();
        let wait = match &self {
            Self::TooManyAttempts(wait) => Some(wait.as_secs().max(1)),
            _ => None,
        };
        let body = axum::Json(ProblemBody {
            r#type: format!("urn:ivesk-webhook:error:{code}"),
            title: self.to_string(),
            status: status.as_u16(),
            code: code.to_owned(),
        });
        let mut response = (status, body).into_response();
        response.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
        }
        if let Some(wait) = wait {
            headers.insert(RETRY_AFTER, wait.into());
        }
        response
    }
}

/// The result of an API handler.
pub(super) type ApiResult<T> = Result<axum::Json<T>, AdminError>;

/// A body that is a JSON object.
pub(super) struct Input<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = AdminError;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        // The guard has read it already, within its bounds.
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| AdminError::BadRequest(rejection.body_text()))?;
        // Serde would accept an array of the fields' values as well.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(AdminError::BadRequest(
                "the body is not a JSON object".to_owned(),
            ));
        }
        axum::Json::from_bytes(&body)
            .map(|axum::Json(value)| Self(value))
            .map_err(|rejection| AdminError::BadRequest(rejection.body_text()))
    }
}

/// The parameters of a query.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        Query::from_request_parts(parts, state)
            .await
            .map(|Query(value)| Self(value))
            .map_err(|rejection: QueryRejection| AdminError::BadRequest(rejection.body_text()))
    }
}

/// The id of a row in a path.
pub(super) struct RowId(pub(super) i64);

impl<S: Send + Sync> FromRequestParts<S> for RowId {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        Path::from_request_parts(parts, state)
            .await
            .map(|Path(id)| Self(id))
            .map_err(|rejection: PathRejection| AdminError::BadRequest(rejection.body_text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_given_up_after_its_deadline() {
        let started = tokio::time::Instant::now();
        let stalled =
            Body::from_stream(futures_util::stream::pending::<Result<Bytes, axum::Error>>());
        let error = read_body(stalled).await.expect_err("it never ends");
        assert!(matches!(error, AdminError::BodyIncomplete), "{error}");
        assert_eq!(started.elapsed(), BODY_TIMEOUT);
    }

    #[tokio::test]
    async fn a_body_is_limited_while_it_is_read() {
        let part = || Ok::<_, axum::Error>(Bytes::from(vec![b'x'; MAX_BODY_BYTES]));
        let endless = Body::from_stream(futures_util::stream::repeat_with(part));
        let error = read_body(endless).await.expect_err("it is too large");
        assert!(matches!(error, AdminError::TooLarge), "{error}");
    }
}
