//! One line of the report.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckResult {
    /// The check passed.
    Pass,
    /// The check passed, with something that a person should know.
    Note,
    /// The check could not be made.
    Skipped,
    /// A host does not answer.
    Unreachable,
    /// The check failed.
    Fail,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// Name of the check, stable for programs.
    pub check: Cow<'static, str>,
    /// The result.
    pub result: CheckResult,
    /// Description of what was found.
    pub found: String,
    /// Consequence of the problem; `None` if the check passed.
    pub why: Option<Cow<'static, str>>,
    /// Instruction for fixing the problem; `None` if there is nothing to fix.
    pub fix: Option<String>,
}

impl Check {
    fn new(check: &'static str, result: CheckResult, found: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            result,
            found: found.into(),
            why: None,
            fix: None,
        }
    }

    /// Returns a check that passed.
    pub fn pass(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, CheckResult::Pass, found)
    }

    /// Returns a check that passed, with something that a person should know.
    pub fn note(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, CheckResult::Note, found)
    }

    /// Returns a check that could not be made.
    pub fn skipped(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, CheckResult::Skipped, found)
    }

    /// Returns a check of a host that does not answer.
    pub fn unreachable(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, CheckResult::Unreachable, found)
    }

    /// Returns a check that failed.
    pub fn fail(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, CheckResult::Fail, found)
    }

    /// Adds the consequence of the problem.
    #[must_use]
    pub fn because(self, why: &'static str) -> Self {
        Self {
            why: Some(why.into()),
            ..self
        }
    }

    /// Adds an instruction for fixing the problem.
    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self {
            fix: Some(fix.into()),
            ..self
        }
    }
}
