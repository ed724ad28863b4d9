//! What keeps an installation from working, and how to fix it.
//!
//! [`inside`] looks at the settings, the store and the ways out; [`outside`] comes back
//! in through the public address as SNS does; [`probe`] finds the exported queue's path;
//! [`destinations`] looks where documents are delivered.

use serde::Serialize;

pub mod destinations;
pub mod inside;
pub mod outside;
pub mod probe;
mod stall;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and a person should know.
    Note,
    /// It could not be checked.
    Skipped,
    /// Something does not answer.
    Unreachable,
    /// It is wrong.
    Wrong,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at; the same word for the same check, for programs.
    pub check: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// Why it matters; none where it is as it should be.
    pub why: Option<&'static str>,
    /// How to fix it; none where there is nothing to fix.
    pub fix: Option<String>,
}

impl Finding {
    fn new(check: &'static str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self {
            check,
            verdict,
            found: found.into(),
            why: None,
            fix: None,
        }
    }

    /// As it should be.
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, found)
    }

    /// It works, and a person should know.
    pub fn note(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Note, found)
    }

    /// It could not be checked.
    pub fn skipped(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Skipped, found)
    }

    /// Something does not answer.
    pub fn unreachable(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Unreachable, found)
    }

    /// It is wrong.
    pub fn wrong(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Wrong, found)
    }

    /// Why it matters.
    #[must_use]
    pub fn because(self, why: &'static str) -> Self {
        Self {
            why: Some(why),
            ..self
        }
    }

    /// How to fix it.
    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self {
            fix: Some(fix.into()),
            ..self
        }
    }
}
