//! SNS's types of message, its headers, and the largest body.

/// The largest body that is read, whatever its `Content-Type`: a legal message of
/// 256 KiB can reach 1.6 MB once every character is escaped.
pub const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;

/// The SNS headers of a request: unsigned, so they may contradict, but never decide.
#[derive(Clone, Debug, Default)]
pub struct SnsHeaders {
    /// `x-amz-sns-message-type`
    pub message_type: Option<String>,
    /// `x-amz-sns-message-id`
    pub message_id: Option<String>,
    /// `x-amz-sns-topic-arn`
    pub topic_arn: Option<String>,
    /// `x-amz-sns-subscription-arn`
    pub subscription_arn: Option<String>,
    /// `x-amz-sns-rawdelivery: true`
    pub raw_delivery: bool,
}

/// The three types of message that SNS sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// A message that was published to the topic.
    Notification,
    /// SNS asks the subscriber to confirm the subscription.
    SubscriptionConfirmation,
    /// The subscription has ended.
    UnsubscribeConfirmation,
}

impl MessageType {
    /// All three types.
    pub const ALL: [Self; 3] = [
        Self::Notification,
        Self::SubscriptionConfirmation,
        Self::UnsubscribeConfirmation,
    ];

    /// Returns SNS's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Notification => "Notification",
            Self::SubscriptionConfirmation => "SubscriptionConfirmation",
            Self::UnsubscribeConfirmation => "UnsubscribeConfirmation",
        }
    }

    /// Parses SNS's spelling.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}
