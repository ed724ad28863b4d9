//! Proving that a message is from SNS and from a topic that we trust.
//!
//! [`Envelope::parse`] reads the body, [`Verifier::verify`] proves it, and only
//! that makes a [`VerifiedMessage`]. No HTTP server and no SQL here.
//!
//! - [`envelope`]: the body's shape.
//! - [`canonical`]: the text that is signed.
//! - [`policy`]: which topics, URLs and certificate names are trusted.
//! - [`certificate`]: what is checked on a certificate.
//! - [`certificate_cache`]: where certificates come from, and which are held.
//! - [`signature`]: the signature check.
//! - [`verifier`]: all of that in order.
//! - [`confirmation`]: asking SNS to confirm a subscription.

pub mod canonical;
pub mod certificate;
pub mod certificate_cache;
pub mod confirmation;
pub mod envelope;
pub mod policy;
pub mod signature;
pub mod verifier;

pub use certificate::CertificateSummary;
pub use certificate_cache::{CertificateShelf, NoShelf};
pub use confirmation::{ConfirmError, Confirmer};
pub use envelope::Envelope;
pub use verifier::{SavedMessages, VerifiedMessage, Verifier};

/// The largest body that is read, whatever its `Content-Type`: a legal message of
/// 256 KiB can reach 1.6 MB once every character is escaped.
pub const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;

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
    /// All three.
    pub const ALL: [Self; 3] = [
        Self::Notification,
        Self::SubscriptionConfirmation,
        Self::UnsubscribeConfirmation,
    ];

    /// SNS's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Notification => "Notification",
            Self::SubscriptionConfirmation => "SubscriptionConfirmation",
            Self::UnsubscribeConfirmation => "UnsubscribeConfirmation",
        }
    }

    /// Reads SNS's spelling.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}
