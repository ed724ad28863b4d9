//! Refused messages in the quarantine, and stored notifications.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::from_rows;
use crate::domain::{Account, Event, Timestamp};
use crate::store::{self, NotificationRow, QuarantineRow, StoredNotification};

/// A refused message in the quarantine.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct QuarantinedMessage {
    /// Ascending in the order of arrival.
    pub id: i64,
    /// When it was received.
    pub received_at: Timestamp,
    /// The account of the webhook that received it.
    pub account: Account,
    /// The event of the webhook that received it.
    pub event: Event,
    /// The reason for the refusal.
    pub reason: String,
    /// Length of the body in bytes.
    pub size_bytes: u64,
    /// The topic that it claims to be of, whether that is true or not; null if it is no SNS
    /// message.
    pub topic_arn: Option<String>,
}

/// A stored notification.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Notification {
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
}

from_rows! {
    QuarantinedMessage of QuarantineRow {
        id, received_at, account, event, reason, size_bytes, topic_arn,
    }
    Notification of NotificationRow { id, account, event, kind, message_id, received_at }
}

/// A row with the message's headers and body, which may hold tokens: not for logs.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct WithBody<R> {
    /// The row.
    #[serde(flatten)]
    pub row: R,
    /// The SNS headers as `name: value` lines; empty if they are not stored.
    pub headers: String,
    /// The body in base64, since a refused message need not be text; null once retention
    /// has removed it.
    pub body: Option<String>,
}

impl<R> WithBody<R> {
    /// Returns the body's bytes; `None` if retention has removed it.
    ///
    /// # Errors
    ///
    /// If it is not base64.
    pub fn bytes(&self) -> Result<Option<Vec<u8>>, base64::DecodeError> {
        let body = self.body.as_deref();
        body.map(|body| STANDARD.decode(body)).transpose()
    }
}

impl From<store::QuarantinedMessage> for WithBody<QuarantinedMessage> {
    fn from(message: store::QuarantinedMessage) -> Self {
        Self {
            headers: message.headers,
            body: Some(STANDARD.encode(&message.body)),
            row: message.row.into(),
        }
    }
}

impl From<StoredNotification> for WithBody<Notification> {
    fn from(notification: StoredNotification) -> Self {
        Self {
            headers: String::new(),
            body: notification.body.map(|body| STANDARD.encode(body)),
            row: notification.row.into(),
        }
    }
}

/// The result of verifying a quarantined message again.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RetryResult {
    /// True if it was accepted, and removed from the quarantine.
    pub accepted: bool,
    /// True if it had been accepted before.
    pub duplicate: bool,
    /// The code of the refusal; null if it was accepted.
    pub code: Option<String>,
    /// The refusal in words; null if it was accepted.
    pub reason: Option<String>,
}
