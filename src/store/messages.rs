//! Messages on their way in, accepted or refused, and what they leave.

use bytes::Bytes;
use secrecy::SecretString;
use serde::Serialize;

use crate::domain::{Account, Event, Feed, Timestamp};
use crate::sns::VerifiedMessage;

/// A verified message on its way into the store.
#[derive(Debug)]
pub struct AcceptedMessage {
    /// Whose webhook it came to; proven by the path's token.
    pub account: Account,
    /// Which event's webhook it came to; proven by the path's token.
    pub event: Event,
    /// The message; only [`crate::sns::Verifier`] can make one.
    pub message: VerifiedMessage,
    /// When it came.
    pub received_at: Timestamp,
    /// The feed that it filter pulled, where it says one.
    pub trigger: Option<Feed>,
}

/// What waits in this process to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Messages that nobody was answered yet.
    pub messages: usize,
    /// Refused messages on their way to the quarantine.
    pub refused: usize,
    /// Other changes; PostgreSQL has no such line.
    pub changes: usize,
}

/// What became of something that may come twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// It was not there before.
    New,
    /// It was there already; nothing changed.
    Duplicate,
}

/// A stored notification, for listing and export.
#[derive(Clone, Serialize, utoipa::ToSchema)]
pub struct NotificationRow {
    /// Ascending in the order of arrival.
    pub id: i64,
    /// Whose webhook it came to.
    pub account: Account,
    /// Which event's webhook it came to.
    pub event: Event,
    /// `Notification`, `SubscriptionConfirmation` or `UnsubscribeConfirmation`.
    pub kind: String,
    /// SNS's id.
    pub message_id: String,
    /// When it came.
    pub received_at: Timestamp,
    /// The body as it came; `None` once retention removed it.
    #[serde(skip)]
    pub body: Option<Vec<u8>>,
}

/// A refused message, kept for a while.
#[derive(Clone)]
pub struct Quarantined {
    /// When it came.
    pub received_at: Timestamp,
    /// Whose webhook it came to.
    pub account: Account,
    /// Which event's webhook it came to.
    pub event: Event,
    /// [`crate::refusal::Refusal::code`].
    pub reason: String,
    /// Whether it claims to be from an allowed topic: those have a share of their own.
    pub allowed_topic: bool,
    /// The SNS headers, `name: value` lines.
    pub headers: String,
    /// The body as it came.
    pub body: Bytes,
}

/// A row of the quarantine.
#[derive(Clone, Serialize, utoipa::ToSchema)]
pub struct QuarantineRow {
    /// Ascending in the order of arrival.
    pub id: i64,
    /// When it came.
    pub received_at: Timestamp,
    /// Whose webhook it came to.
    pub account: Account,
    /// Which event's webhook it came to.
    pub event: Event,
    /// Why it was refused.
    pub reason: String,
    /// The SNS headers, `name: value` lines.
    #[serde(skip)]
    pub headers: String,
    /// Length of the body in bytes.
    pub size_bytes: u64,
    /// The body as it came.
    #[serde(skip)]
    pub body: Vec<u8>,
}

/// Where a subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// The vendor was asked; SNS has not spoken yet.
    Requested,
    /// SNS asked, and a person must approve.
    AwaitingApproval,
    /// SNS asked, and `SubscribeURL` is to be visited.
    Pending,
    /// `SubscribeURL` was visited and SNS gave the subscription's ARN.
    Confirmed,
    /// SNS says that it has ended.
    Unsubscribed,
}

impl SubscriptionState {
    /// All states.
    pub const ALL: [Self; 5] = [
        Self::Requested,
        Self::AwaitingApproval,
        Self::Pending,
        Self::Confirmed,
        Self::Unsubscribed,
    ];

    /// The state's name in the store and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
            Self::Unsubscribed => "unsubscribed",
        }
    }
}

/// A subscription as the store knows it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct SubscriptionRow {
    /// The row.
    pub id: i64,
    /// Whose webhook.
    pub account: Account,
    /// Which event's webhook.
    pub event: Event,
    /// The name given to the vendor, where we asked.
    pub name: Option<String>,
    /// The topic, once SNS has spoken.
    pub topic_arn: Option<String>,
    /// The subscription's ARN, once confirmed.
    pub subscription_arn: Option<String>,
    /// Where it stands.
    pub state: SubscriptionState,
    /// When the row was made.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub changed_at: Timestamp,
    /// When `SubscribeURL` is to be visited (again).
    pub next_try_at: Option<Timestamp>,
    /// Visits of `SubscribeURL` that failed.
    pub attempts: u32,
    /// What the last failure was.
    pub last_error: Option<String>,
    /// The signed `SubscribeURL`; a secret.
    #[serde(skip)]
    pub subscribe_url: Option<SecretString>,
    /// The signed `Token`; a secret.
    #[serde(skip)]
    pub token: Option<SecretString>,
}

/// What changes in a subscription.
#[derive(Clone, Debug)]
pub enum SubscriptionChange {
    /// A person approved it: [`SubscriptionState::Pending`], due now.
    Approved,
    /// SNS confirmed it under this ARN.
    Confirmed {
        /// The subscription's ARN.
        subscription_arn: String,
    },
    /// Visiting `SubscribeURL` failed.
    TryFailed {
        /// What went wrong, without the URL.
        error: String,
        /// When to try again; `None` gives up.
        next_try_at: Option<Timestamp>,
    },
    /// A person filter an ended subscription back: its `SubscribeURL` is due now.
    Restored,
}

/// A signing certificate that has verified a message.
#[derive(Clone, Debug)]
pub struct CertificateRow {
    /// Its `SigningCertURL`.
    pub url: String,
    /// PEM as served.
    pub pem: Vec<u8>,
    /// When it was fetched.
    pub fetched_at: Timestamp,
}
