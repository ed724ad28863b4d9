//! The errors of the admin API as problems (RFC 9457), and extractors whose rejections are
//! such problems.

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

/// Largest body of a request to this listener.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;

/// A reason for which the admin listener refuses a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    #[error("unknown path")]
    UnknownPath,
    #[error("this path does not support this method")]
    UnknownMethod,
    #[error(
        "this request needs `Authorization: Bearer` with the token of `admin.token_file`, or one of \
         `ivesk-webhook tokens create`"
    )]
    Unauthorized,
    #[error("this token may only read; changes need a token with the right `operate`")]
    ReadOnlyToken,
    #[error("without an admin token, only requests to 127.0.0.1, ::1 or localhost are answered")]
    ForeignHost,
    #[error("a POST needs `Content-Type: application/json` and must not come from a web page")]
    NotJson,
    #[error("this form is too old or from another page; go back, reload the page and try again")]
    NotOurForm,
    #[error("{0}")]
    BadRequest(String),
    #[error("the body is larger than {} bytes", MAX_BODY_BYTES)]
    TooLarge,
    #[error("nothing here has this name or number; list what exists, and try again")]
    UnknownRow,
    #[error("{0}")]
    Conflict(Cow<'static, str>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AdminError {
    /// Returns the status and the code. No other place decides statuses of this listener.
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
    /// `urn:ivesk-webhook:error:` followed by the code.
    r#type: String,
    /// The error and what to do, for people.
    title: String,
    /// The response's status.
    status: u16,
    /// The error, for programs.
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

/// The result of an API handler.
pub(super) type ApiResult<T> = Result<axum::Json<T>, AdminError>;

/// A body that is a JSON object.
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

/// An empty JSON object.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoFields {}
