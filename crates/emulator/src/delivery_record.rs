//! Records of deliveries, and their totals.

use serde::Serialize;

use crate::domain::Event;

/// The outcome of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// More attempts follow.
    Pending,
    /// Answered with a 2xx.
    Acknowledged,
    /// Answered with a 3xx or 4xx: SNS treats it as delivered and drops the message.
    Refused,
    /// Every attempt failed.
    GivenUp,
    /// Lost on request of the control API.
    Lost,
}

/// One message for one subscriber.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeliveryRecord {
    /// SNS's id, the same for each attempt.
    pub message_id: String,
    /// `Notification`, `SubscriptionConfirmation` or `UnsubscribeConfirmation`.
    pub message_type: &'static str,
    /// The subscription's event.
    pub event: Event,
    /// The company that the message names, if any.
    pub company: Option<String>,
    /// The subscription; `None` while it is not confirmed.
    pub subscription_arn: Option<String>,
    /// Attempts so far.
    pub attempts: u32,
    /// The newest attempt's status; `None` if there was no answer.
    pub last_status: Option<u16>,
    /// Its outcome.
    pub outcome: Outcome,
}

/// Totals of attempts since the start, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AttemptTotals {
    /// Attempts answered with a 2xx.
    pub acknowledged: u64,
    /// Attempts answered with a 5xx.
    pub failed: u64,
    /// Attempts without an answer in time.
    pub unanswered: u64,
    /// Attempts answered with a 3xx or 4xx, which SNS treats as delivered.
    pub refused: u64,
    /// Messages given up after their last attempt.
    pub given_up: u64,
}

impl AttemptTotals {
    pub(crate) fn count(&mut self, status: Option<u16>, outcome: Outcome) {
        match status {
            Some(200..=299) => self.acknowledged += 1,
            Some(500..) => self.failed += 1,
            Some(_) => self.refused += 1,
            None => self.unanswered += 1,
        }
        if outcome == Outcome::GivenUp {
            self.given_up += 1;
        }
    }
}
