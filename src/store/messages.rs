//! Accepted messages, and the subscriptions that follow from them.

use secrecy::SecretString;
use serde::Serialize;

use crate::domain::{Account, Event, Feed, Timestamp};
use crate::sns::VerifiedMessage;

/// A verified message to be stored.
#[derive(Debug)]
pub struct AcceptedMessage {
    /// The account of the webhook that received it; proven by the path's token.
    pub account: Account,
    /// The event of the webhook that received it; proven by the path's token.
    pub event: Event,
    /// The message; only [`crate::sns::Verifier`] can make one.
    pub message: VerifiedMessage,
    /// When it was received.
    pub received_at: Timestamp,
    /// The feed that it triggers, if any.
    pub trigger: Option<Feed>,
}

/// Lengths of a process's write queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLengths {
    /// Messages that are not answered yet.
    pub messages: usize,
    /// Refused messages to be stored in the quarantine.
    pub refused: usize,
    /// Other changes; always 0 on PostgreSQL, which has no such queue.
    pub changes: usize,
}

/// The result of storing something that may arrive twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// It was stored.
    New,
    /// It was stored before; nothing changed.
    Duplicate,
}

/// A stored notification, for listing and export.
#[derive(Clone, Serialize, utoipa::ToSchema)]
pub struct NotificationRow {
    /// Ascending in the order of arrival.
    pub id: i64,
    /// The account of the webhook that received it.
    pub account: Account,
    /// The event of the webhook that received it.
    pub event: Event,
    /// `Notification`, `SubscriptionConfirmation` or `UnsubscribeConfirmation`.
    pub kind: String,
    /// SNS's id.
    pub message_id: String,
    /// When it was received.
    pub received_at: Timestamp,
    /// The body as received; `None` once retention removed it.
    #[serde(skip)]
    pub body: Option<Vec<u8>>,
}

/// The state of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// It was requested from the vendor; no message of SNS has arrived yet.
    Requested,
    /// SNS sent a confirmation request, which a person must approve.
    AwaitingApproval,
    /// SNS sent a confirmation request; `SubscribeURL` is to be visited.
    Pending,
    /// `SubscribeURL` was visited and SNS returned the subscription's ARN.
    Confirmed,
    /// SNS announced its end.
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

    /// Returns the state's name in the store and in the API.
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

/// A subscription.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct SubscriptionRow {
    /// The row.
    pub id: i64,
    /// The webhook's account.
    pub account: Account,
    /// The webhook's event.
    pub event: Event,
    /// The name sent to the vendor, if this program requested it.
    pub name: Option<String>,
    /// The topic, once a message of SNS has arrived.
    pub topic_arn: Option<String>,
    /// The subscription's ARN, once confirmed.
    pub subscription_arn: Option<String>,
    /// Its state.
    pub state: SubscriptionState,
    /// When the row was added.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub changed_at: Timestamp,
    /// When `SubscribeURL` is visited next.
    pub next_try_at: Option<Timestamp>,
    /// Failed visits of `SubscribeURL`.
    pub attempts: u32,
    /// The last failure.
    pub last_error: Option<String>,
    /// The signed `SubscribeURL`; a secret.
    #[serde(skip)]
    pub subscribe_url: Option<SecretString>,
    /// The signed `Token`; a secret.
    #[serde(skip)]
    pub token: Option<SecretString>,
}

/// A change of a subscription.
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
    AttemptFailed {
        /// The failure, without the URL.
        error: String,
        /// When it is retried; `None` if it is not.
        next_try_at: Option<Timestamp>,
    },
    /// A person restored an ended subscription: its `SubscribeURL` is due now.
    Restored,
}
