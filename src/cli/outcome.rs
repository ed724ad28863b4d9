//! The ends of a subcommand, and its exit codes.

use std::process::ExitCode;

/// How a subcommand ended well enough to say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: the answer is no.
    No,
    /// 2: wrong use or bad configuration.
    Usage,
    /// 3: a service could not be reached.
    Unreachable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::No => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
        })
    }
}

/// A subcommand that could not do its work: what to print, and the exit code.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: anyhow::Error,
}

impl Failure {
    /// Wrong use or bad configuration.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit: Exit::Usage,
            error: error.into(),
        }
    }

    /// A service could not be reached.
    pub fn unreachable(error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit: Exit::Unreachable,
            error: error.into(),
        }
    }
}

impl Failure {
    /// Returns the exit code.
    pub(super) const fn exit(&self) -> Exit {
        self.exit
    }

    /// What to print.
    pub(super) fn message(&self) -> String {
        format!("{:#}", self.error)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            exit: Exit::No,
            error: error.into(),
        }
    }
}
