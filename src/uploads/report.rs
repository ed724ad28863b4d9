//! Progress and results of uploads.

use std::path::PathBuf;
use std::time::Duration;

use crate::domain::Timestamp;

/// Receives the progress of an upload.
pub trait Progress: Send + Sync {
    /// An attempt begins, at byte 0 of `size_bytes`.
    fn began(&self, size_bytes: u64);
    /// Another part of the file was written to the network.
    fn sent(&self, bytes: u64);
}

/// Ignores the progress.
pub struct NoProgress;

impl Progress for NoProgress {
    fn began(&self, _: u64) {}
    fn sent(&self, _: u64) {}
}

/// The result for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadOutcome {
    /// The vendor's storage has accepted it.
    Sent {
        /// Its row.
        id: i64,
    },
    /// The same content was sent before.
    AlreadySent {
        /// The row of that upload.
        id: i64,
    },
    /// Another process sends it, or began to and was stopped.
    Busy {
        /// When its claim ends.
        until: Timestamp,
    },
    /// The vendor refuses the file, or it can't be sent.
    Refused {
        /// The error, and what to do.
        error: String,
    },
    /// The vendor gives no location for its name; for the name before it, it did.
    NoLocation {
        /// The error, and what to do.
        error: String,
    },
    /// The upload failed; a later attempt may succeed.
    Failed {
        /// The last attempt's error.
        error: String,
        /// True if there was no answer.
        unreachable: bool,
        /// The wait that the vendor asked for, if it is longer than those between attempts.
        retry_after: Option<Duration>,
    },
    /// No upload succeeds until a person has fixed something.
    Stopped {
        /// The error, and what to fix.
        error: String,
        /// True if the vendor gives no location, neither for its name nor for the one before it.
        without_location: bool,
    },
}

/// A file's properties, and the result for it.
#[derive(Clone, Debug)]
pub struct UploadReport {
    /// The result.
    pub outcome: UploadOutcome,
    /// Length in bytes; none if the file could not be read.
    pub size_bytes: Option<u64>,
    /// SHA-256 of the content in hexadecimal digits; none if the file could not be read.
    pub sha256: Option<String>,
}

/// The report of one file.
#[derive(Clone, Debug)]
pub struct FileReport {
    /// The file.
    pub path: PathBuf,
    /// Its report.
    pub report: UploadReport,
}
