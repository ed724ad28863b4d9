//! Subscriptions, and the certificates that sign their messages.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{Account, Event, Timestamp};
use crate::sns::CertificateSummary;
use crate::sns::certificate::Certificate;
use crate::store::{CertificateRow, SubscriptionRow, SubscriptionState};

/// A subscription, and what a person should do about it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Subscription {
    /// The row.
    pub id: i64,
    /// The webhook's account.
    pub account: Account,
    /// The webhook's event.
    pub event: Event,
    /// The name sent to Įvesk.lt, if this program requested it.
    pub name: Option<String>,
    /// The topic, once a message of SNS has arrived.
    pub topic_arn: Option<String>,
    /// The subscription's ARN, once it is known.
    pub subscription_arn: Option<String>,
    /// Its state.
    pub state: SubscriptionState,
    /// When the row was added.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub changed_at: Timestamp,
    /// When SNS sent the message that the row reflects.
    pub last_message_at: Option<Timestamp>,
    /// When its topic last sent a notification; exact to a minute.
    pub last_heard_at: Option<Timestamp>,
    /// When the worker visits `SubscribeURL` next.
    pub next_try_at: Option<Timestamp>,
    /// Failed visits of `SubscribeURL`.
    pub attempts: u32,
    /// The last failure.
    pub last_error: Option<String>,
    /// What is to be said about it.
    #[serde(flatten)]
    pub notes: SubscriptionNotes,
}

/// What is to be said about a subscription.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionNotes {
    /// The AWS account that owns the topic, once a message of SNS has arrived.
    pub aws_account: Option<String>,
    /// Who approved the topic; null if the settings allow it, or nobody does.
    pub topic_approved_by: Option<String>,
    /// What a person should know or decide; null if there is nothing.
    pub problem: Option<String>,
    /// What a person should do; null if nothing is to be done.
    pub fix: Option<String>,
}

impl From<(SubscriptionRow, SubscriptionNotes)> for Subscription {
    fn from((row, notes): (SubscriptionRow, SubscriptionNotes)) -> Self {
        Self {
            id: row.id,
            account: row.account,
            event: row.event,
            name: row.name,
            topic_arn: row.topic_arn,
            subscription_arn: row.subscription_arn,
            state: row.state,
            created_at: row.created_at,
            changed_at: row.changed_at,
            last_message_at: row.last_message_at,
            last_heard_at: row.last_heard_at,
            next_try_at: row.next_try_at,
            attempts: row.attempts,
            last_error: row.last_error,
            notes,
        }
    }
}

/// A subscription that was requested from Įvesk.lt.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestedSubscription {
    /// The webhook's account.
    #[schema(pattern = "^[a-z0-9_-]{1,40}$", examples("default"))]
    pub account: String,
    /// The webhook's event.
    pub event: Event,
    /// The name that was sent to Įvesk.lt.
    pub name: String,
}

/// The subscription's row.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionId {
    /// Its id.
    pub id: i64,
}

/// The result of visiting SubscribeURL.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConfirmResult {
    /// True if the subscription is confirmed.
    pub confirmed: bool,
    /// The error if it is not.
    pub error: Option<String>,
    /// The time of the next attempt; null if there is none.
    pub next_try_at: Option<Timestamp>,
}

/// The topic that is no longer approved.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// Its whole ARN.
    #[schema(max_length = 2000)]
    pub topic_arn: String,
}

/// The result of revoking an approval.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct RevokeResult {
    /// Subscriptions to the topic, which were removed from the list.
    pub subscriptions: usize,
}

/// A stored certificate.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ShownCertificate {
    /// Its `SigningCertURL`.
    pub url: String,
    /// The time at which it was fetched.
    pub fetched_at: Timestamp,
    /// Its subject and dates; null if it can't be parsed.
    pub certificate: Option<CertificateSummary>,
}

impl From<CertificateRow> for ShownCertificate {
    fn from(row: CertificateRow) -> Self {
        let certificate = Certificate::parse(&row.pem, None).ok();
        Self {
            url: row.url,
            fetched_at: row.fetched_at,
            certificate: certificate.map(|certificate| certificate.summary().clone()),
        }
    }
}
