//! Delivers by a POST, signed after the Standard Webhooks specification.

use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use url::Url;

use super::destination::{Destination, DestinationResponse};
use crate::backoff;
use crate::domain::Clock;
use crate::egress::{self, Proxy};
use crate::store::Delivery;

/// Headers of the specification: the key, the time in seconds, and the signatures.
const HEADER_ID: HeaderName = HeaderName::from_static("webhook-id");
const HEADER_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const HEADER_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// Header with the epoch and the version's sequence number.
const HEADER_SEQUENCE: HeaderName = HeaderName::from_static("ivesk-sequence");
/// Longest body that is read of a response.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Time for reading the body of a success, so that the connection can be reused.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// A destination that receives POST requests.
pub(super) struct Http {
    client: reqwest::Client,
    url: Url,
    keys: Vec<hmac::Key>,
    clock: Clock,
}

impl Http {
    /// Creates a destination at `url`; requests carry one signature for each of `secrets`.
    ///
    /// # Errors
    ///
    /// Fails if a secret is malformed or the machine has no TLS roots.
    pub(super) fn new(
        url: &Url,
        secrets: &[SecretString],
        proxy: Option<&Proxy>,
        timeout: Duration,
        clock: Clock,
    ) -> Result<Self, String> {
        let client = egress::client(proxy, timeout).map_err(|error| error.to_string())?;
        let keys = secrets
            .iter()
            .map(|secret| signing_key(secret.expose_secret()))
            .collect::<Option<_>>()
            .ok_or_else(|| "a secret is not `whsec_` followed by base64".to_owned())?;
        Ok(Self {
            client,
            url: url.clone(),
            keys,
            clock,
        })
    }

    /// Returns the headers of the specification, with a signature by each key.
    fn headers(&self, delivery: &Delivery, body: &[u8]) -> Option<HeaderMap> {
        let id = delivery.key();
        let seconds = self.clock.now().as_millis().div_euclid(1000).to_string();
        let signatures = self.keys.iter().map(|key| sign(key, &id, &seconds, body));
        let signatures = Vec::from_iter(signatures).join(" ");
        let sequence = format!("{}:{}", delivery.epoch, delivery.sequence);
        let headers = [
            (HEADER_ID, id),
            (HEADER_TIMESTAMP, seconds),
            (HEADER_SIGNATURE, signatures),
            (HEADER_SEQUENCE, sequence),
        ];
        let mut headers: HeaderMap = headers
            .into_iter()
            .map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?)))
            .collect::<Option<_>>()?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Some(headers)
    }

    async fn classify(&self, response: Response) -> DestinationResponse {
        let status = response.status();
        if status.is_success() {
            // The status decides, even if the body can't be read.
            let body = egress::read_body(response, MAX_BODY_BYTES);
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, body).await;
            return DestinationResponse::Accepted { note: None };
        }
        if status == StatusCode::GONE {
            return DestinationResponse::Closed {
                error: "`url` answered 410 (Gone): it accepts no more documents".to_owned(),
            };
        }
        let retry_after = egress::retry_after(
            response.headers(),
            self.clock.now(),
            backoff::LONGEST_RETRY_AFTER,
        );
        let is_about_document = is_about_document(status);
        if is_about_document {
            // Frameworks answer 400 with problem details of their own to what they can't read.
            let is_problem = status != StatusCode::BAD_REQUEST && is_problem(response.headers());
            let body = egress::read_body(response, MAX_BODY_BYTES).await;
            if let Some(message) = body.ok().and_then(|body| message(&body, is_problem)) {
                return DestinationResponse::rejected(&message);
            }
        }
        DestinationResponse::Unavailable {
            error: format!(
                "`url` answered {}: {}",
                status.as_u16(),
                explain(status, is_about_document)
            ),
            retry_after,
        }
    }
}

#[async_trait]
impl Destination for Http {
    async fn deliver(&self, delivery: &Delivery) -> DestinationResponse {
        let Some(body) = delivery.to_json() else {
            return DestinationResponse::corrupt_document();
        };
        let Some(headers) = self.headers(delivery, &body) else {
            return DestinationResponse::corrupt_document();
        };
        let request = self.client.post(self.url.clone()).headers(headers);
        match request.body(body).send().await {
            Ok(response) => self.classify(response).await,
            Err(error) => DestinationResponse::unavailable(format!(
                "`url` could not be reached: {}",
                egress::describe(error)
            )),
        }
    }

    fn leaves_notes(&self) -> bool {
        false
    }
}

/// Returns the key that a secret holds: base64 after `whsec_`.
fn signing_key(secret: &str) -> Option<hmac::Key> {
    let secret = secret.strip_prefix("whsec_").unwrap_or(secret);
    let secret = STANDARD.decode(secret).ok()?;
    Some(hmac::Key::new(HMAC_SHA256, &secret))
}

/// Returns the signature of a message (Standard Webhooks, "Signature scheme").
fn sign(key: &hmac::Key, id: &str, seconds: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    for part in [id, ".", seconds, "."] {
        context.update(part.as_bytes());
    }
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign()))
}

/// Returns true if an error with this status may be about the document. With any other the
/// destination is in trouble itself, or its framework refuses the form of the request.
fn is_about_document(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 409 | 422)
}

/// Returns true if the body is declared as problem details (RFC 9457).
fn is_problem(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/problem+json")
    })
}

/// Returns the message of a rejection: `message` of a JSON object, or a problem's `detail` or
/// `title`.
fn message(body: &[u8], is_problem: bool) -> Option<String> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let body: Value = serde_json::from_slice(body).ok()?;
    let names: &[&str] = if is_problem {
        &["message", "detail", "title"]
    } else {
        &["message"]
    };
    let texts = names.iter().filter_map(|name| body.get(name)?.as_str());
    texts
        .map(str::trim)
        .find(|text| !text.is_empty())
        .map(str::to_owned)
}

/// Explains a status that neither accepts nor rejects the document, with the fix.
fn explain(status: StatusCode, is_about_document: bool) -> &'static str {
    match status.as_u16() {
        300..=399 => "redirects are not followed; set `url` to the final address",
        401 | 403 | 407 => {
            "access is denied; check the secret (`secret_file`) and the proxy in front of the receiver"
        }
        404 | 405 | 421 | 426 => "nothing accepts documents there; check `url`",
        408 | 425 | 429 => "the receiver asks to be retried later",
        500..=599 => "the receiver has failed; check its log",
        _ if is_about_document => {
            "a rejection needs a JSON body with a `message` for the accountant, so this counts as a \
             fault of the receiver"
        }
        411 | 413 | 415 | 417 | 431 => {
            "the receiver, or a proxy before it, refuses the form of the request; allow larger bodies, \
             `application/json` and larger headers there"
        }
        _ => "no receiver of documents answers with this status; check `url`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_message_is_read_from_json_or_from_a_problem_s_detail() {
        let read = |body: &str, is_problem| message(body.as_bytes(), is_problem);
        let expected = Some("no such account".to_owned());
        assert_eq!(read(r#"{"message":" no such account\n"}"#, false), expected);
        let problem = r#"{"title":"Bad","detail":"no such account","status":422}"#;
        assert_eq!(read(problem, true), expected);
        assert_eq!(read(problem, false), None);
        assert_eq!(read(r#"{"title":"no such account"}"#, true), expected);
        for none in [
            "",
            "<html>",
            "[]",
            "7",
            "{}",
            r#"{"message":7}"#,
            r#"{"message":" "}"#,
        ] {
            assert_eq!(read(none, true), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = message(&body, true);
        }
    }
}
