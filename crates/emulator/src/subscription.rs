//! A subscription to one of the two topics.

use serde::Serialize;
use sns_messages::time::Timestamp;
use uuid::Uuid;

use crate::domain::Event;

/// Where a subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// Waits for a visit to its SubscribeURL.
    Pending,
    /// Gets notifications.
    Confirmed,
    /// Has been ended; its last SubscribeURL brings it back.
    Ended,
}

/// One webhook. Target and token are secrets, and are not printed.
#[derive(Clone, Serialize)]
pub struct Subscription {
    /// Its ARN, which the subscriber learns when it confirms.
    pub subscription_arn: String,
    /// The name that the subscriber gave.
    pub name: String,
    /// What it wants to hear of.
    pub event: Event,
    /// Where deliveries go.
    #[serde(skip)]
    pub target: String,
    /// Whose documents it is about.
    pub account: Uuid,
    /// Where it stands.
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
    pub(crate) fn hears(&self, event: Event, account: Uuid) -> bool {
        self.event == event && self.account == account && self.state == SubscriptionState::Confirmed
    }
}
