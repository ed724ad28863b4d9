//! A message to publish, with everything that a test may change about it.

use serde::Deserialize;
use serde_json::json;

use crate::domain::Event;

/// The most bytes that a `Message` to an HTTP subscriber may have (vendor-api, "How SNS delivers").
pub(crate) const MAX_MESSAGE_BYTES: usize = 262_144;

/// A change to a message after it was signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tamper {
    /// None.
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
    /// The event whose topic it is published to.
    pub event: Event,
    /// `Message`.
    pub message: String,
    /// API key of the account whose subscribers get it; default the first account's.
    #[serde(default)]
    pub account: Option<String>,
    /// The company that the delivery's record names.
    #[serde(default)]
    pub company: Option<String>,
    /// Number of copies at once, all with one MessageId.
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
    /// A change after it was signed.
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
    /// Leaves out the API key and the message.
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
    /// Creates an ordinary notification with this `Message`.
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

    /// Creates the notification of an export of `company`, though nothing was exported.
    pub fn exported(company: &str) -> Self {
        let message = json!({ "companyCode": company }).to_string();
        Self {
            company: Some(company.to_owned()),
            ..Self::new(Event::OnExported, message)
        }
    }
}
