//! What an outcome writes into a hand-off's row, whatever database keeps it.

use super::handoffs::LINK_WAIT;
use super::{HandoffOutcome, LaterVerdict};
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
    pub(super) fn of(outcome: &'a HandoffOutcome, now: Timestamp) -> Self {
        match outcome {
            HandoffOutcome::Booked { note } => Self {
                note: note.as_deref(),
                ..Self::plain("booked")
            },
            HandoffOutcome::Rejected { message, .. } => Self {
                detail: Some(message),
                ..Self::plain("rejected")
            },
            HandoffOutcome::Offered => Self::plain("offered"),
            HandoffOutcome::NotWanted => Self::plain("not_wanted"),
            HandoffOutcome::LinkExpired => Self {
                result: "link_expired",
                next_try_at: Some(now.after(LINK_WAIT)),
                ..Self::plain("waiting")
            },
        }
    }

    /// The destination could take nothing: now, or until a person resumes it.
    pub(super) fn not_taken(error: &'a str, for_now: bool) -> Self {
        Self {
            result: if for_now { "unavailable" } else { "closed" },
            detail: Some(error),
            ..Self::plain("waiting")
        }
    }

    /// The outcome of what a program says later.
    pub(super) fn later(verdict: &LaterVerdict) -> HandoffOutcome {
        match verdict {
            LaterVerdict::Booked => HandoffOutcome::Booked { note: None },
            LaterVerdict::Rejected { message, report } => HandoffOutcome::Rejected {
                message: message.clone(),
                report: report.clone(),
            },
        }
    }
}
