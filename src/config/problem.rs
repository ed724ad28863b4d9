//! Effective settings, and problems with settings, as they are shown.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// The origin of a setting's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It is not set.
    Default,
    /// The settings file.
    File {
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { line } => write!(f, "file, line {line}"),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// What is shown of a secret.
pub(super) const HIDDEN: &str = "[set]";

/// One effective setting, safe to show: secrets are `[set]`.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// Its name in the file, with its section.
    pub name: String,
    /// The environment variable that sets it.
    pub variable: String,
    /// The effective value; null if it is not set and has no default.
    pub value: Value,
    /// The value's origin.
    pub origin: Origin,
}

/// One problem with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting or variable, as the user wrote it.
    pub setting: String,
    /// File and line, or variable; empty if the setting or the file is missing.
    pub place: String,
    /// The problem, and what to write instead. Contains no secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.setting.as_str(), self.place.as_str()) {
            ("", "") => f.write_str(&self.message),
            ("", place) => write!(f, "{place}: {}", self.message),
            (setting, "") => write!(f, "`{setting}`: {}", self.message),
            (setting, place) => write!(f, "`{setting}` ({place}): {}", self.message),
        }
    }
}

/// Invalid settings: every problem that was found.
#[derive(Clone, Debug, thiserror::Error)]
pub struct ConfigError {
    /// At least one, in the order in which the settings are read.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            // It is about the file.
            [problem] if problem.setting.is_empty() => problem.fmt(f),
            [problem] => write!(f, "invalid setting: {problem}"),
            problems => {
                write!(f, "{} invalid settings:", problems.len())?;
                problems
                    .iter()
                    .try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}
