//! The columns of a delivery that an outcome sets, for both databases.

use super::deliveries::LINK_RETRY_DELAY;
use super::{DeliveryOutcome, LateOutcome};
use crate::domain::Timestamp;

/// The columns of a delivery, and of its attempt, as an outcome sets them.
pub(super) struct DeliveryUpdate<'a> {
    pub(super) state: &'static str,
    pub(super) result: &'static str,
    pub(super) note: Option<&'a str>,
    pub(super) detail: Option<&'a str>,
    pub(super) next_try_at: Option<Timestamp>,
}

impl<'a> DeliveryUpdate<'a> {
    fn plain(state: &'static str) -> Self {
        Self {
            state,
            result: state,
            note: None,
            detail: None,
            next_try_at: None,
        }
    }

    /// Returns the columns of an outcome.
    pub(super) fn of(outcome: &'a DeliveryOutcome, now: Timestamp) -> Self {
        match outcome {
            DeliveryOutcome::Delivered { note } => Self {
                note: note.as_deref(),
                ..Self::plain("delivered")
            },
            DeliveryOutcome::Rejected { message, .. } => Self {
                detail: Some(message),
                ..Self::plain("rejected")
            },
            DeliveryOutcome::Listed => Self::plain("listed"),
            DeliveryOutcome::Filtered => Self::plain("filtered"),
            DeliveryOutcome::LinkExpired => Self {
                result: "link_expired",
                next_try_at: Some(now.after(LINK_RETRY_DELAY)),
                ..Self::plain("pending")
            },
        }
    }

    /// Returns the columns of an attempt that found the destination unavailable, or closed
    /// if it is not retried.
    pub(super) fn unavailable(error: &'a str, is_retried: bool) -> Self {
        Self {
            result: if is_retried { "unavailable" } else { "closed" },
            detail: Some(error),
            ..Self::plain("pending")
        }
    }
}

impl From<&LateOutcome> for DeliveryOutcome {
    fn from(outcome: &LateOutcome) -> Self {
        match outcome {
            LateOutcome::Delivered => Self::Delivered { note: None },
            LateOutcome::Rejected {
                message,
                import_error,
            } => Self::Rejected {
                message: message.clone(),
                import_error: import_error.clone(),
            },
        }
    }
}
