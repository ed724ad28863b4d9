//! A message to publish, with all that a test may want to change about it.

use serde::Deserialize;
use serde_json::json;

use crate::domain::Event;

/// The most bytes that a `Message` to an HTTP subscriber may have (vendor-api, "How SNS delivers").
pub(crate) const MAX_MESSAGE_BYTES: usize = 262_144;

/// How a message is spoilt after it was signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tamper {
    /// Not at all.
    #[default]
    Nothing,
    /// The signature is of the right length and wrong.
    Signature,
    /// The message was changed after it was signed.
    Message,
}

/// A message to publish: by default an ordinary notification of an account.
#[derive(Clone, Deserialize)]
pub struct Publication {
    /// To whose subscribers.
    pub event: Event,
    /// `Message`.
    pub message: String,
    /// Whose subscribers, by API key; the first account's unless said.
    #[serde(default)]
    pub account: Option<String>,
    /// The company that the delivery's record names.
    #[serde(default)]
    pub company: Option<String>,
    /// So many copies at once, all with one MessageId.
    #[serde(default = "one")]
    pub copies: usize,
    /// Another TopicArn than the event's, signed as such.
    #[serde(default)]
    pub topic_arn: Option<String>,
    /// Another Timestamp than the present moment, signed as such.
    #[serde(default)]
    pub timestamp: Option<String>,
    /// A certain MessageId.
    #[serde(default)]
    pub message_id: Option<String>,
    /// `Subject`.
    #[serde(default)]
    pub subject: Option<String>,
    /// How it is spoilt after it was signed.
    #[serde(default)]
    pub tamper: Tamper,
    /// Without envelope and signature, as with raw message delivery.
    #[serde(default)]
    pub raw: bool,
    /// Another signature version than the switch says.
    #[serde(default)]
    pub signature_version: Option<u8>,
}

impl std::fmt::Debug for Publication {
    /// Without the API key and the message.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publication")
            .field("event", &self.event)
            .field("company", &self.company)
            .field("copies", &self.copies)
            .field("topic_arn", &self.topic_arn)
            .field("tamper", &self.tamper)
            .finish_non_exhaustive()
    }
}

const fn one() -> usize {
    1
}

impl Publication {
    /// An ordinary notification with this `Message`.
    pub fn new(event: impl Into<Event>, message: impl Into<String>) -> Self {
        Self {
            event: event.into(),
            message: message.into(),
            account: None,
            company: None,
            copies: 1,
            topic_arn: None,
            timestamp: None,
            message_id: None,
            subject: None,
            tamper: Tamper::Nothing,
            raw: false,
            signature_version: None,
        }
    }

    /// What an export of `company` publishes, though nothing was exported.
    pub fn exported(company: &str) -> Self {
        let message = json!({ "companyCode": company }).to_string();
        Self {
            company: Some(company.to_owned()),
            ..Self::new(Event::OnExported, message)
        }
    }
}
