//! Confirms a subscription by a request to its SubscribeURL.

use std::time::Duration;

use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::error::VerifyError;
use crate::http;
use crate::policy::{Policy, TopicArn, is_subscription_to};
use crate::region;
use crate::settings::Settings;

/// Longest time for a confirmation: SNS itself waits 15 s for the answer to its message.
pub const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(4);
/// The largest answer that is read; SNS's has about 400 bytes.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Why a subscription was not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmError {
    /// The topic, which is this one, is not on the allowlist: no request was made.
    #[error("the topic {0} is not allowed")]
    TopicNotAllowed(String),
    /// [`VerifyError::UntrustedSubscribeUrl`]: no request was made.
    #[error("{}", VerifyError::UntrustedSubscribeUrl)]
    Untrusted,
    /// SNS was unreachable, throttled the request, or something between answered for it: a
    /// later retry could succeed.
    #[error("failed to ask SNS for the confirmation: {0}")]
    Unavailable(String),
    /// SNS rejected the confirmation, and will again: the token has expired (after two
    /// days) or was never valid.
    #[error("SNS rejected the confirmation ({status}, {code}); subscribe again for a new token")]
    Rejected {
        /// The HTTP status, 400 to 499.
        status: u16,
        /// SNS's `Code`, such as `InvalidParameter`.
        code: String,
    },
}

/// Asks SNS to confirm subscriptions.
pub struct Confirmer {
    client: reqwest::Client,
    policy: Policy,
}

impl Confirmer {
    /// Creates a confirmer that makes requests only where `settings` allow.
    ///
    /// # Errors
    ///
    /// If no HTTPS client can be created, for instance without CA certificates.
    pub fn new(settings: &Settings) -> Result<Self, http::SetupError> {
        Ok(Self {
            client: http::client(
                &settings.user_agent,
                settings.proxy.as_ref(),
                CONFIRMATION_TIMEOUT,
            )?,
            policy: Policy::new(settings),
        })
    }

    /// Requests `subscribe_url` and returns the `SubscriptionArn` in the answer.
    ///
    /// The URL is checked again, so a stored one may be confirmed later. Redirects are
    /// not followed. Confirming twice is harmless: SNS answers with the same ARN. Only
    /// SNS's own error document rejects a confirmation; a web filter's page does not.
    ///
    /// # Errors
    ///
    /// See [`ConfirmError`].
    pub async fn confirm(
        &self,
        topic_arn: &str,
        subscribe_url: &SecretString,
        token: &SecretString,
    ) -> Result<String, ConfirmError> {
        let url = subscribe_url.expose_secret();
        if !self.policy.allows(topic_arn) {
            return Err(ConfirmError::TopicNotAllowed(topic_arn.to_owned()));
        }
        self.policy
            .check_subscribe_url(url, topic_arn, token.expose_secret())
            .map_err(|_| ConfirmError::Untrusted)?;
        let response = self
            .client
            .get(url)
            .send()
            .await
            .map_err(|error| ConfirmError::Unavailable(http::describe(error)))?;
        let status = response.status();
        let body = http::read_body(response, MAX_ANSWER_BYTES)
            .await
            .map_err(|error| ConfirmError::Unavailable(error.to_string()))?;
        let answer = String::from_utf8_lossy(&body);
        if status == StatusCode::OK {
            return subscription_arn(&answer, topic_arn).ok_or_else(|| {
                ConfirmError::Unavailable(
                    "the answer contains no SubscriptionArn of the topic, so it is not from SNS"
                        .to_owned(),
                )
            });
        }
        Err(classify_failure(status, error_code(&answer)))
    }

    /// Ends a subscription that was confirmed by [`Confirmer::confirm`].
    ///
    /// Anybody who knows its ARN can end a subscription that was confirmed by a plain GET
    /// (AWS, ConfirmSubscription, `AuthenticateOnUnsubscribe`), so no AWS credentials are
    /// needed. The URL is built from the topic's region: `UnsubscribeURL` is not signed.
    /// Ending it twice is harmless.
    ///
    /// # Errors
    ///
    /// See [`ConfirmError`].
    pub async fn unsubscribe(
        &self,
        topic_arn: &str,
        subscription_arn: &str,
    ) -> Result<(), ConfirmError> {
        let topic = TopicArn::parse(topic_arn).ok_or(ConfirmError::Untrusted)?;
        let origin = match self.policy.local_origins().next() {
            Some(local) => local.to_owned(),
            None => region::endpoint(topic.region).ok_or(ConfirmError::Untrusted)?,
        };
        let mut url = Url::parse(&origin).map_err(|_| ConfirmError::Untrusted)?;
        url.query_pairs_mut()
            .append_pair("Action", "Unsubscribe")
            .append_pair("SubscriptionArn", subscription_arn);
        let response = self
            .client
            .get(url)
            .send()
            .await
            .map_err(|error| ConfirmError::Unavailable(http::describe(error)))?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(());
        }
        let body = http::read_body(response, MAX_ANSWER_BYTES).await;
        let body = body.unwrap_or_default();
        Err(classify_failure(
            status,
            error_code(&String::from_utf8_lossy(&body)),
        ))
    }
}

fn classify_failure(status: StatusCode, code: Option<String>) -> ConfirmError {
    let number = status.as_u16();
    let Some(code) = code else {
        return ConfirmError::Unavailable(format!(
            "it answered {number} without an error of SNS; does a proxy or web filter answer for it?"
        ));
    };
    // AWS also throttles with 400 and a code, such as `Throttling`.
    let throttled = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
    ) || code.contains("Throttl")
        || code == "RequestLimitExceeded";
    if status.is_client_error() && !throttled {
        return ConfirmError::Rejected {
            status: number,
            code,
        };
    }
    ConfirmError::Unavailable(format!("it answered {number} ({code})"))
}

/// Returns the text of the first `<name>` in SNS's answer, which has neither attributes
/// nor entities in the elements that are read.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.trim())
}

/// Returns `SubscriptionArn`, if it belongs to a subscription to this topic.
fn subscription_arn(xml: &str, topic_arn: &str) -> Option<String> {
    element(xml, "SubscriptionArn")
        .filter(|arn| is_subscription_to(arn, topic_arn))
        .map(str::to_owned)
}

/// Returns `Code` of SNS's error document (AWS, "Common Error Types"); `None` for any other
/// answer.
fn error_code(xml: &str) -> Option<String> {
    let text = xml.trim_start_matches('\u{feff}').trim_start();
    let root = match text.strip_prefix("<?xml") {
        Some(declaration) => declaration.split_once("?>")?.1.trim_start(),
        None => text,
    };
    root.strip_prefix("<ErrorResponse")
        .filter(|rest| rest.starts_with(['>', ' ', '\t', '\r', '\n']))
        .and_then(|document| element(document, "Error"))
        .and_then(|error| element(error, "Code"))
        .filter(|code| {
            (1..=64).contains(&code.len())
                && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:orders_shipped";

    #[test]
    fn the_subscription_arn_is_read_from_snss_own_answer() {
        let answer = format!(
            "<ConfirmSubscriptionResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\">\n  \
             <ConfirmSubscriptionResult>\n    <SubscriptionArn>{TOPIC}:6b0e71bd-7e97-4d97-80ce-4a0994e55286\
             </SubscriptionArn>\n  </ConfirmSubscriptionResult>\n  <ResponseMetadata>\n    \
             <RequestId>075ecce8</RequestId>\n  </ResponseMetadata>\n</ConfirmSubscriptionResponse>"
        );

        assert_eq!(
            subscription_arn(&answer, TOPIC),
            Some(format!("{TOPIC}:6b0e71bd-7e97-4d97-80ce-4a0994e55286"))
        );
    }

    #[test]
    fn an_arn_of_another_topic_is_not_accepted() {
        for text in [
            "",
            "pending confirmation",
            TOPIC,
            "arn:aws:sns:eu-west-1:111122223333:other:6b0e71bd",
            &format!("{TOPIC}:"),
            &format!("{TOPIC}:<b>"),
            &format!("{TOPIC}:a&amp;b"),
            &format!("{TOPIC}:{}", "a".repeat(101)),
        ] {
            let answer = format!("<SubscriptionArn>{text}</SubscriptionArn>");
            assert_eq!(subscription_arn(&answer, TOPIC), None, "{text}");
        }
        assert_eq!(subscription_arn("<SubscriptionArn>arn", TOPIC), None);
    }

    #[test]
    fn throttling_is_retried_and_an_expired_token_is_final() {
        let classify = |status: u16, code: Option<&str>| {
            classify_failure(
                StatusCode::from_u16(status).unwrap(),
                code.map(str::to_owned),
            )
        };
        for (status, code) in [
            (429, None),
            (408, None),
            (400, None),
            (403, None),
            (404, None),
            (400, Some("Throttling")),
            (403, Some("ThrottlingException")),
            (400, Some("Throttled")),
            (429, Some("AnyOther")),
            (500, None),
            (500, Some("InternalFailure")),
            (503, Some("ServiceUnavailable")),
            (302, None),
        ] {
            let error = classify(status, code);
            assert!(matches!(error, ConfirmError::Unavailable(_)), "{status}");
        }
        for (status, code) in [
            (400, "InvalidParameter"),
            (403, "AuthorizationError"),
            (404, "NotFound"),
        ] {
            let error = classify(status, Some(code));
            assert!(
                matches!(error, ConfirmError::Rejected { .. }),
                "{status} {error}"
            );
        }
    }

    #[test]
    fn only_snss_own_error_document_has_a_code() {
        let code = "<Error><Type>Sender</Type><Code>NotFound</Code></Error>";
        for document in [
            format!("<ErrorResponse>{code}</ErrorResponse>"),
            format!(
                "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\">\n  {code}\n</ErrorResponse>"
            ),
            format!("<?xml version=\"1.0\"?>\n<ErrorResponse\n>{code}</ErrorResponse>"),
        ] {
            assert_eq!(
                error_code(&document).as_deref(),
                Some("NotFound"),
                "{document}"
            );
        }
        for other in [
            String::new(),
            "<html><head><title>Access denied</title></head><body>web filter</body></html>".into(),
            // S3's error, and a filter's page that quotes SNS's.
            code.to_owned(),
            format!("<html><ErrorResponse>{code}</ErrorResponse></html>"),
            format!("<ErrorResponses>{code}</ErrorResponses>"),
            "<ErrorResponse><Code>NotFound</Code></ErrorResponse>".to_owned(),
            "<ErrorResponse><Error><Code></Code></Error></ErrorResponse>".to_owned(),
            "<ErrorResponse><Error><Code>not a code</Code></Error></ErrorResponse>".to_owned(),
            "{\"Error\":{\"Code\":\"NotFound\"}}".to_owned(),
        ] {
            assert_eq!(error_code(&other), None, "{other}");
        }
    }
}
