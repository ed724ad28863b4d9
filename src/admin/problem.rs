//! What is answered to a request of the admin listener that is not done, and the
//! reading of requests whose faults are told that way.

use std::borrow::Cow;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::StoreError;

/// The most that a request to this listener may hold.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;

/// Why the admin listener did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    #[error("there is nothing at this path")]
    UnknownPath,
    #[error("this path knows no such method")]
    UnknownMethod,
    #[error(
        "this needs `Authorization: Bearer` with the token of `admin.token_file`, or one of \
         `ivesk-webhook tokens create`"
    )]
    Unauthorized,
    #[error("this token may only read; a change needs one with the right `operate`")]
    ReadOnlyToken,
    #[error("without a admin token, only requests to 127.0.0.1, ::1 or localhost are answered")]
    ForeignHost,
    #[error("a POST needs `Content-Type: application/json` and must not come from a web page")]
    NotJson,
    #[error(
        "this form is not one of ours, or too old; go back, load the page anew and try once more"
    )]
    NotOurForm,
    #[error("{0}")]
    BadRequest(String),
    #[error("the body is larger than this listener takes")]
    TooLarge,
    #[error("there is no such row")]
    UnknownRow,
    #[error("{0}")]
    Conflict(Cow<'static, str>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AdminError {
    /// The status and the code: statuses of this listener are decided here alone.
    pub(super) fn answer(&self) -> (StatusCode, &'static str) {
        match self {
            Self::UnknownPath => (StatusCode::NOT_FOUND, "unknown_path"),
            Self::UnknownMethod => (StatusCode::METHOD_NOT_ALLOWED, "unknown_method"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::ReadOnlyToken => (StatusCode::FORBIDDEN, "read_only_token"),
            Self::ForeignHost => (StatusCode::FORBIDDEN, "foreign_host"),
            Self::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json"),
            Self::NotOurForm => (StatusCode::FORBIDDEN, "not_our_form"),
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::UnknownRow => (StatusCode::NOT_FOUND, "unknown_row"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            Self::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
        }
    }
}

/// A problem (RFC 9457).
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    /// `urn:ivesk-webhook:error:` and the code.
    r#type: String,
    /// What was wrong and what to do, for people.
    title: String,
    /// The answer's status.
    status: u16,
    /// What was wrong, for programs.
    code: &'static str,
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let (status, code) = self.answer();
        let body = axum::Json(ProblemBody {
            r#type: format!("urn:ivesk-webhook:error:{code}"),
            title: self.to_string(),
            status: status.as_u16(),
            code,
        });
        let mut response = (status, body).into_response();
        response.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        response
    }
}

/// What a handler of this listener gives.
pub(super) type Outcome<T> = Result<axum::Json<T>, AdminError>;

/// A JSON object as body, whose faults are told as ours are.
pub(super) struct Input<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = AdminError;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let body =
            Bytes::from_request(request, state)
                .await
                .map_err(|rejection| match rejection.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => AdminError::TooLarge,
                    _ => AdminError::BadRequest(rejection.body_text()),
                })?;
        // Serde would take an array of the fields' values as well.
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

/// The parameters of a query, whose faults are told as ours are.
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

/// The number of a row in a path, whose faults are told as ours are.
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

/// An empty JSON object.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoFields {}
