//! The answer to a request that is not accepted (RFC 9457).
//!
//! Its status and title are those of [`Refusal::REASONS`].

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::caller::RequestId;
use crate::refusal::{Reason, Refusal};

/// `Retry-After` of a 503, in seconds; SNS retries on its own schedule.
pub const RETRY_AFTER_SECONDS: u16 = 20;

/// The code of an answer to a request that failed through a bug in this program.
pub const DEFECT_CODE: &str = "internal";

/// The answer to a request that is not accepted (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    title: &'static str,
    code: &'static str,
    request_id: Option<RequestId>,
}

#[derive(Serialize)]
struct Body<'p> {
    r#type: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'p str>,
}

impl Problem {
    /// Returns the answer to a request that failed through a bug in this program: the
    /// message may not be stored, so SNS must send it again.
    pub const fn defect() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            title: "The request could not be handled.",
            code: DEFECT_CODE,
            request_id: None,
        }
    }

    /// Returns the same answer for the request `id`.
    #[must_use]
    pub fn to(self, id: &RequestId) -> Self {
        Self {
            request_id: Some(id.clone()),
            ..self
        }
    }

    /// Returns the status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the response, which contains only the code, its fixed title and the request's id.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let body = Body {
            r#type: format!("urn:ivesk-webhook:refusal:{}", self.code),
            title: self.title,
            status: self.status.as_u16(),
            code: self.code,
            request_id: self.request_id.as_ref().map(RequestId::as_str),
        };
        // Plain fields always become JSON.
        let json = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = Response::new(Full::new(Bytes::from(json)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        response
    }
}

impl From<&Refusal> for Problem {
    fn from(refusal: &Refusal) -> Self {
        refusal.reason().into()
    }
}

impl From<Reason> for Problem {
    fn from(reason: Reason) -> Self {
        Self {
            status: reason.status,
            title: reason.title,
            code: reason.code,
            request_id: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_503_and_nothing_else_names_a_time_to_retry() {
        for reason in Refusal::REASONS {
            let response = Problem::from(*reason).into_response();
            assert_eq!(response.status(), reason.status);
            let retry_after = response.headers().contains_key(RETRY_AFTER);
            let unavailable = reason.status == StatusCode::SERVICE_UNAVAILABLE;
            assert_eq!(retry_after, unavailable, "{reason:?}");
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        }
    }
}
