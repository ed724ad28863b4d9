//! The one place which knows the statuses that we answer.
//!
//! SNS takes any 4xx as delivered and drops the message, so 4xx is for what no
//! later attempt could make right, and 429 is never answered.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::caller::RequestId;
use crate::refusal::Refusal;

/// What a 503 says about when to come back, in seconds; SNS keeps its own ladder.
pub const RETRY_AFTER_SECONDS: u16 = 20;

/// The code of an answer to a request that ended in a defect of this program.
pub const DEFECT_CODE: &str = "internal";

/// What is answered to a request that is not accepted (RFC 9457).
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
    /// The answer to a request that ended in a defect of this program: nothing
    /// is known to be stored, so SNS is to send it again.
    pub const fn defect() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            title: "The request could not be handled.",
            code: DEFECT_CODE,
            request_id: None,
        }
    }

    /// The same, as the answer to the request that goes by `id`.
    #[must_use]
    pub fn to(self, id: &RequestId) -> Self {
        Self {
            request_id: Some(id.clone()),
            ..self
        }
    }

    /// The status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer, which holds no more than the code, its fixed title and the request's id.
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
        let (status, title) = match refusal {
            Refusal::UnknownPath => (StatusCode::NOT_FOUND, "There is nothing here."),
            Refusal::UnknownToken => (StatusCode::NOT_FOUND, "The path's token is not known."),

            Refusal::BodyTooLarge { .. } => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "The body is larger than an SNS message can be.",
            ),
            // A slow network is at fault as often as the sender, and the next
            // attempt may arrive whole; a 4xx would lose the message.
            Refusal::BodyIncomplete => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The body did not arrive whole in time.",
            ),

            Refusal::MalformedJson(_) => {
                (StatusCode::BAD_REQUEST, "The body is not one JSON object.")
            }
            Refusal::RepeatedKey(_) => (StatusCode::BAD_REQUEST, "A key stands twice."),
            Refusal::MissingField(_) => (StatusCode::BAD_REQUEST, "A field is missing."),
            Refusal::MalformedField { .. } => (
                StatusCode::BAD_REQUEST,
                "A field has another form than SNS gives it.",
            ),
            Refusal::ControlCharacter(_) => (
                StatusCode::BAD_REQUEST,
                "A signed field holds a control character.",
            ),
            Refusal::HeaderMismatch(_) => {
                (StatusCode::BAD_REQUEST, "A header disagrees with the body.")
            }
            Refusal::UnsupportedType => (
                StatusCode::BAD_REQUEST,
                "The message type is not one that SNS sends.",
            ),
            Refusal::MalformedSignature => {
                (StatusCode::BAD_REQUEST, "The signature is not base64.")
            }

            Refusal::RawDelivery => (
                StatusCode::FORBIDDEN,
                "Raw message message carries no signature.",
            ),
            Refusal::TopicNotAllowed => {
                (StatusCode::FORBIDDEN, "The topic is not on the allowlist.")
            }
            Refusal::UntrustedCertificateUrl => (
                StatusCode::FORBIDDEN,
                "The certificate's URL is not an SNS address.",
            ),
            Refusal::UntrustedSubscribeUrl => (
                StatusCode::FORBIDDEN,
                "SubscribeURL is not an SNS address for this topic.",
            ),
            Refusal::SignatureMismatch => (
                StatusCode::FORBIDDEN,
                "The signature does not match the message.",
            ),
            Refusal::TooOld => (
                StatusCode::FORBIDDEN,
                "The message was published too long ago.",
            ),

            // A new SignatureVersion is for an update of this program to learn.
            Refusal::UnsupportedSignatureVersion => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The signature version is not known yet.",
            ),
            Refusal::CertificateUnavailable(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The signing certificate could not be had.",
            ),
            // From the pinned host: a setting, an update or the clock can make
            // these right while SNS still tries.
            Refusal::MalformedCertificate
            | Refusal::CertificateName
            | Refusal::CertificateDates { .. }
            | Refusal::CertificateKey => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The signing certificate is not acceptable.",
            ),
            Refusal::FromTheFuture => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The message says that it was published in the future.",
            ),
            Refusal::ConfirmationUnavailable(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "SNS could not be asked to confirm.",
            ),
            Refusal::StoreUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The message could not be stored.",
            ),
            Refusal::DiskNearlyFull => (
                StatusCode::SERVICE_UNAVAILABLE,
                "There is no room to store.",
            ),
            Refusal::QueueFull => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many messages are waiting.",
            ),
            Refusal::ShuttingDown => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The service is shutting down.",
            ),
        };
        Self {
            status,
            title,
            code: refusal.code(),
            request_id: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// One of every reason, with the status that docs/refusals.md's table gives it.
    fn table() -> Vec<(Refusal, u16)> {
        let text = || "x".to_owned();
        vec![
            (Refusal::UnknownPath, 404),
            (Refusal::UnknownToken, 404),
            (Refusal::BodyTooLarge { limit_bytes: 1 }, 413),
            (Refusal::BodyIncomplete, 503),
            (Refusal::RawDelivery, 403),
            (Refusal::MalformedJson(text()), 400),
            (Refusal::RepeatedKey(text()), 400),
            (Refusal::MissingField("Type"), 400),
            (
                Refusal::MalformedField {
                    field: "Type",
                    expected: "x",
                },
                400,
            ),
            (Refusal::ControlCharacter("Type"), 400),
            (Refusal::HeaderMismatch("x"), 400),
            (Refusal::UnsupportedType, 400),
            (Refusal::UnsupportedSignatureVersion, 503),
            (Refusal::TopicNotAllowed, 403),
            (Refusal::UntrustedCertificateUrl, 403),
            (Refusal::UntrustedSubscribeUrl, 403),
            (Refusal::CertificateUnavailable(text()), 503),
            (Refusal::MalformedCertificate, 503),
            (Refusal::CertificateName, 503),
            (
                Refusal::CertificateDates {
                    not_before: text(),
                    not_after: text(),
                },
                503,
            ),
            (Refusal::CertificateKey, 503),
            (Refusal::MalformedSignature, 400),
            (Refusal::SignatureMismatch, 403),
            (Refusal::TooOld, 403),
            (Refusal::FromTheFuture, 503),
            (Refusal::ConfirmationUnavailable(text()), 503),
            (Refusal::StoreUnavailable, 503),
            (Refusal::DiskNearlyFull, 503),
            (Refusal::QueueFull, 503),
            (Refusal::ShuttingDown, 503),
        ]
    }

    #[test]
    fn every_reason_has_the_status_of_the_table_and_never_429() {
        let codes: BTreeSet<&str> = table().iter().map(|(refusal, _)| refusal.code()).collect();
        assert_eq!(codes, BTreeSet::from(Refusal::CODES));
        for (refusal, status) in table() {
            let response = Problem::from(&refusal).into_response();
            assert_eq!(response.status().as_u16(), status, "{refusal:?}");
            let retry_after = response.headers().contains_key(RETRY_AFTER);
            assert_eq!(retry_after, status == 503, "{refusal:?}");
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        }
    }
}
