//! Exit codes and failures of subcommands.

use std::process::ExitCode;

/// The exit codes of a command that names no others.
pub(super) const EXIT_CODES: &str = "0 done, 1 refused, not found, or a check failed, 2 wrong use or configuration, 3 a service could \
    not be reached";

/// The end of a subcommand that has printed its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: the check failed.
    Failed,
    /// 2: wrong use or configuration.
    Usage,
    /// 3: a service could not be reached.
    Unreachable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
        })
    }
}

/// An error that ends a subcommand, with its exit code.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: anyhow::Error,
}

impl Failure {
    /// Creates a failure for wrong use or configuration.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit: Exit::Usage,
            error: error.into(),
        }
    }

    /// Creates a failure for a service that could not be reached.
    pub fn unreachable(error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit: Exit::Unreachable,
            error: error.into(),
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
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            exit: Exit::Failed,
            error: error.into(),
        }
    }
}
