//! A POST, signed after the Standard Webhooks specification.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use standardwebhooks::{
    HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook,
};
use url::Url;

use super::{Delivery, Destination, Verdict, rejection, unreadable};
use crate::domain::Clock;
use crate::egress;

/// The header with the epoch and our number of the version.
const HEADER_SEQUENCE: &str = "ivesk-sequence";
/// The most that is read of an answer.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// How long the rest of a success may take, which is read to use the connection again.
const REST_OF_A_SUCCESS: Duration = Duration::from_secs(1);

/// A destination that is posted to.
pub(super) struct Http {
    client: reqwest::Client,
    url: Url,
    keys: Vec<Webhook>,
    clock: Clock,
}

impl Http {
    /// A destination at `url` for which every one of `secrets` signs.
    ///
    /// # Errors
    ///
    /// What keeps it from being posted to.
    pub(super) fn new(
        url: &Url,
        secrets: &[SecretString],
        timeout: Duration,
        clock: Clock,
    ) -> Result<Self, String> {
        let client = egress::client(timeout)
            .map_err(|error| format!("no HTTP client: {}", egress::describe(error)))?;
        let keys = secrets
            .iter()
            .map(|secret| Webhook::new(secret.expose_secret()))
            .collect::<Result<_, _>>()
            .map_err(|_| "a secret is not whsec_ and base64".to_owned())?;
        Ok(Self {
            client,
            url: url.clone(),
            keys,
            clock,
        })
    }

    /// The headers of the specification, with a signature of each key.
    fn headers(&self, item: &Delivery, body: &[u8]) -> Option<HeaderMap> {
        let key = item.key();
        let seconds = self.clock.now().as_millis().div_euclid(1000);
        let signatures: Vec<String> = self
            .keys
            .iter()
            .map(|signer| signer.sign(&key, seconds, body))
            .collect::<Result<_, _>>()
            .ok()?;
        let sequence = format!("{}:{}", item.epoch, item.sequence);
        let headers = [
            (HEADER_WEBHOOK_ID, key),
            (HEADER_WEBHOOK_TIMESTAMP, seconds.to_string()),
            (HEADER_WEBHOOK_SIGNATURE, signatures.join(" ")),
            (HEADER_SEQUENCE, sequence),
            (CONTENT_TYPE.as_str(), "application/json".to_owned()),
        ];
        headers
            .into_iter()
            .map(|(name, value)| {
                let value = HeaderValue::from_str(&value).ok()?;
                Some((HeaderName::from_static(name), value))
            })
            .collect()
    }

    async fn verdict(&self, response: Response) -> Verdict {
        let status = response.status();
        if status.is_success() {
            // It has it, whatever becomes of the rest of its answer.
            let rest = egress::read_body(response, MAX_ANSWER_BYTES);
            let _ = tokio::time::timeout(REST_OF_A_SUCCESS, rest).await;
            return Verdict::Delivered { note: None };
        }
        if status == StatusCode::GONE {
            return Verdict::Closed {
                error: "the address answered 410 (Gone): it wants no more documents".to_owned(),
            };
        }
        let retry_after = egress::retry_after(response.headers(), self.clock.now());
        let is_problem = is_problem(response.headers());
        let judges_the_document = judges_the_document(status);
        if judges_the_document {
            let body = egress::read_body(response, MAX_ANSWER_BYTES).await;
            if let Some(message) = body.ok().and_then(|body| message(&body, is_problem)) {
                return rejection(&message);
            }
        }
        Verdict::Unavailable {
            error: format!(
                "the address answered {}: {}",
                status.as_u16(),
                meaning(status, judges_the_document)
            ),
            retry_after,
        }
    }
}

#[async_trait]
impl Destination for Http {
    async fn deliver(&self, item: &Delivery) -> Verdict {
        let Some(body) = item.to_json() else {
            return unreadable();
        };
        let Some(headers) = self.headers(item, &body) else {
            return unreadable();
        };
        let request = self.client.post(self.url.clone()).headers(headers);
        match request.body(body).send().await {
            Ok(response) => self.verdict(response).await,
            Err(error) => Verdict::Unavailable {
                error: format!(
                    "the address could not be reached: {}",
                    egress::describe(error)
                ),
                retry_after: None,
            },
        }
    }
}

/// Whether a refusal with this status is about the document, rather than about the
/// address, our right to use it, or the moment.
fn judges_the_document(status: StatusCode) -> bool {
    status.is_client_error()
        && !matches!(
            status.as_u16(),
            401 | 403 | 404 | 405 | 407 | 408 | 410 | 421 | 425 | 426 | 429
        )
}

/// Whether the body is said to be that of RFC 9457.
fn is_problem(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/problem+json")
    })
}

/// The words of a refusal: `message` of a JSON object, or a problem's `detail` or `title`.
fn message(body: &[u8], is_problem: bool) -> Option<String> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let answer: Value = serde_json::from_slice(body).ok()?;
    let names: &[&str] = if is_problem {
        &["message", "detail", "title"]
    } else {
        &["message"]
    };
    let texts = names.iter().filter_map(|name| answer.get(name)?.as_str());
    texts
        .map(str::trim)
        .find(|text| !text.is_empty())
        .map(str::to_owned)
}

/// What an answer that is no verdict on the document means, and what to do.
fn meaning(status: StatusCode, judges_the_document: bool) -> &'static str {
    match status.as_u16() {
        300..=399 => "redirects are not followed; write the address that it points to into `url`",
        401 | 403 | 407 => {
            "it does not let us in; look at its secret (`secret_file`) and at what stands before it"
        }
        404 | 405 | 421 | 426 => "nothing takes documents there; look at `url`",
        408 | 425 | 429 => "it wants to be asked later",
        500..=599 => "it is in trouble; look at its own log",
        _ if judges_the_document => {
            "without a `message` in JSON nobody can be told why, so it counts as a mistake of the \
             receiver's"
        }
        _ => "no receiver of documents answers so; look at `url`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_rejection_message_is_plain_text_or_a_problems_detail() {
        let read = |body: &str, is_problem| message(body.as_bytes(), is_problem);
        let words = Some("no such account".to_owned());
        assert_eq!(read(r#"{"message":" no such account\n"}"#, false), words);
        let problem = r#"{"title":"Bad","detail":"no such account","status":422}"#;
        assert_eq!(read(problem, true), words);
        assert_eq!(read(problem, false), None);
        assert_eq!(read(r#"{"title":"no such account"}"#, true), words);
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
