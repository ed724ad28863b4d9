//! Exit codes and failures of subcommands.

use std::process::ExitCode;

use anyhow::anyhow;
use serde_json::{Value, json};

use super::style::{BAD, is_json, styled_error};
use crate::api::ProblemBody;
use crate::visible::visible_lines;

/// The exit codes of a command that names no others.
pub(super) const EXIT_CODES: &str = "0 done, 1 refused, not found, or a check failed, 2 wrong use or configuration, 3 a service could \
    not be reached";

/// The end of a subcommand that has printed its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// 0: done.
    Done = 0,
    /// 1: the check failed.
    Failed = 1,
    /// 2: wrong use or configuration.
    Usage = 2,
    /// 3: a service could not be reached.
    Unreachable = 3,
}

/// Refuses `--json` for a command whose output is for people alone.
///
/// # Errors
///
/// If results are to be printed as JSON.
pub(super) fn refuse_json(command: &str) -> Result<(), Failure> {
    match is_json() {
        false => Ok(()),
        true => Err(Failure::usage(anyhow!(
            "`{command}` prints text for people and no JSON; leave `--json` out"
        ))),
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that ends a subcommand, with its exit code.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: anyhow::Error,
    /// The code of the server's problem.
    code: Option<String>,
}

impl Failure {
    /// Creates a failure for wrong use or configuration.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit: Exit::Usage,
            error: error.into(),
            code: None,
        }
    }

    /// Creates a failure for a service that could not be reached.
    pub fn unreachable(error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit: Exit::Unreachable,
            error: error.into(),
            code: None,
        }
    }

    /// Creates the failure of a problem that the server found.
    pub(super) fn problem(problem: ProblemBody) -> Self {
        Self {
            exit: Exit::Failed,
            error: anyhow!(problem.title),
            code: Some(problem.code),
        }
    }

    /// Returns the exit code.
    pub(super) const fn exit(&self) -> Exit {
        self.exit
    }

    /// Returns the text to print, sources included.
    pub(super) fn message(&self) -> String {
        format!("{:#}", self.error)
    }

    /// Prints it on standard error, as JSON or in words.
    pub(super) fn print(&self, as_json: bool) {
        if as_json {
            eprintln!("{}", self.to_json());
        } else {
            let label = styled_error(BAD, "error:");
            eprintln!("{label} {}", visible_lines(&self.message()));
        }
    }

    /// Returns the code for programs: that of the server's problem, or else one of this program's end.
    fn code(&self) -> &str {
        match (&self.code, self.exit) {
            (Some(code), _) => code,
            (None, Exit::Done | Exit::Failed) => "failed",
            (None, Exit::Usage) => "usage",
            (None, Exit::Unreachable) => "unreachable",
        }
    }

    /// Returns the failure as a problem in JSON, in the shape of the API's problems.
    fn to_json(&self) -> Value {
        let code = self.code();
        json!({
            "type": format!("urn:ivesk-webhook:error:{code}"),
            "title": self.message(),
            "code": code,
            "exit_code": self.exit as u8,
        })
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            exit: Exit::Failed,
            error: error.into(),
            code: None,
        }
    }
}
