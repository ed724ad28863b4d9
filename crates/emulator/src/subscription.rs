//! A subscription to one of the two topics.

use serde::Serialize;
use sns_messages::time::Timestamp;
use uuid::Uuid;

use crate::domain::Event;

/// State of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// Waits for a request to its SubscribeURL.
    Pending,
    /// Gets notifications.
    Confirmed,
    /// Was ended; its last SubscribeURL restores it.
    Ended,
}

/// One webhook. Target and token are secrets, and are not printed.
#[derive(Clone, Serialize)]
pub struct Subscription {
    /// Its ARN, which the subscriber learns when it confirms.
    pub subscription_arn: String,
    /// The topic that it belongs to.
    pub topic_arn: String,
    /// The subscriber's name for it.
    pub name: String,
    /// The event of its notifications.
    pub event: Event,
    /// URL of deliveries.
    #[serde(skip)]
    pub target: String,
    /// The account whose documents it is about.
    pub account: Uuid,
    /// Its state.
    pub state: SubscriptionState,
    #[serde(skip)]
    pub(crate) token: String,
    #[serde(skip)]
    pub(crate) token_made_at: Timestamp,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("subscription_arn", &self.subscription_arn)
            .field("event", &self.event)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Subscription {
    pub(crate) fn receives(&self, topic_arn: &str, account: Uuid) -> bool {
        self.topic_arn == topic_arn
            && self.account == account
            && self.state == SubscriptionState::Confirmed
    }
}
