//! Proving that a message is from SNS and from a topic that we trust.
//!
//! [`Envelope::parse`] reads the body, [`Verifier::verify`] proves it, and only
//! that makes a [`VerifiedMessage`]. No HTTP server and no SQL here.

use bytes::Bytes;
use secrecy::SecretString;

use crate::config::SnsConfig;
use crate::domain::{Clock, Timestamp};
use crate::refusal::Refusal;

/// The SNS headers of a delivery: unsigned, so they may only disagree, never decide.
#[derive(Clone, Debug, Default)]
pub struct SnsHeaders {
    /// `x-amz-sns-message-type`
    pub message_type: Option<String>,
    /// `x-amz-sns-message-id`
    pub message_id: Option<String>,
    /// `x-amz-sns-topic-arn`
    pub topic_arn: Option<String>,
    /// `x-amz-sns-rawdelivery: true`
    pub raw_delivery: bool,
}

/// The three types of message that SNS sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// Something was published.
    Notification,
    /// SNS asks whether we want the topic.
    SubscriptionConfirmation,
    /// The subscription has ended.
    UnsubscribeConfirmation,
}

impl MessageType {
    /// SNS's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Notification => "Notification",
            Self::SubscriptionConfirmation => "SubscriptionConfirmation",
            Self::UnsubscribeConfirmation => "UnsubscribeConfirmation",
        }
    }
}

/// A message as it came: shape checked, nothing proven.
#[derive(Debug)]
pub struct Envelope {
    body: Bytes,
}

impl Envelope {
    /// Reads one SNS message and checks its shape, and that `headers` do not disagree.
    pub fn parse(body: Bytes, headers: &SnsHeaders) -> Result<Self, Refusal> {
        let _ = headers;
        Ok(Self { body })
    }

    /// `TopicArn` as claimed.
    pub fn topic_arn(&self) -> &str {
        ""
    }
}

/// A message whose signature, topic and certificate were checked.
///
/// Only [`Verifier`] makes one, so whatever asks for one can't be given anything
/// unproven.
#[derive(Debug)]
pub struct VerifiedMessage {
    body: Bytes,
    message_type: MessageType,
    message_id: String,
    topic_arn: String,
    timestamp: Timestamp,
    message: String,
    token: Option<SecretString>,
    subscribe_url: Option<SecretString>,
}

impl VerifiedMessage {
    /// The body as it came.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
    /// Which of the three types it is.
    pub fn message_type(&self) -> MessageType {
        self.message_type
    }
    /// `MessageId`.
    pub fn message_id(&self) -> &str {
        &self.message_id
    }
    /// `TopicArn`.
    pub fn topic_arn(&self) -> &str {
        &self.topic_arn
    }
    /// `Timestamp`: when it was published.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }
    /// `Message`, unescaped.
    pub fn message(&self) -> &str {
        &self.message
    }
    /// `Token`; the two confirmation types have one.
    pub fn token(&self) -> Option<&SecretString> {
        self.token.as_ref()
    }
    /// `SubscribeURL`; the two confirmation types have one.
    pub fn subscribe_url(&self) -> Option<&SecretString> {
        self.subscribe_url.as_ref()
    }
}

/// Checks messages against the trust policy.
pub struct Verifier {}

impl Verifier {
    /// A verifier for `config`.
    pub fn new(config: &SnsConfig, clock: Clock) -> Result<Self, reqwest::Error> {
        let _ = (config, clock);
        Ok(Self {})
    }

    /// Verifies `envelope` and gives the message that it carries.
    pub async fn verify(&self, envelope: Envelope) -> Result<VerifiedMessage, Refusal> {
        let _ = envelope;
        Err(Refusal::SignatureMismatch)
    }
}
