//! What an outcome writes into a delivery's row, whatever database keeps it.

use super::deliveries::LINK_WAIT;
use super::{DeliveryOutcome, LateOutcome};
use crate::domain::Timestamp;

/// A row's columns as an outcome sets them.
pub(super) struct Outcome<'a> {
    pub(super) state: &'static str,
    pub(super) result: &'static str,
    pub(super) note: Option<&'a str>,
    pub(super) detail: Option<&'a str>,
    pub(super) next_try_at: Option<Timestamp>,
}

impl<'a> Outcome<'a> {
    fn plain(state: &'static str) -> Self {
        Self {
            state,
            result: state,
            note: None,
            detail: None,
            next_try_at: None,
        }
    }

    /// What an outcome sets.
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
                next_try_at: Some(now.after(LINK_WAIT)),
                ..Self::plain("pending")
            },
        }
    }

    /// The destination could take nothing: now, or until a person resumes it.
    pub(super) fn not_taken(error: &'a str, for_now: bool) -> Self {
        Self {
            result: if for_now { "unavailable" } else { "closed" },
            detail: Some(error),
            ..Self::plain("pending")
        }
    }

    /// The outcome of what a program says later.
    pub(super) fn later(verdict: &LateOutcome) -> DeliveryOutcome {
        match verdict {
            LateOutcome::Delivered => DeliveryOutcome::Delivered { note: None },
            LateOutcome::Rejected { message, report } => DeliveryOutcome::Rejected {
                message: message.clone(),
                report: report.clone(),
            },
        }
    }
}
