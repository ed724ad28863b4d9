//! A destination and its response to one delivery.

use std::time::Duration;

use async_trait::async_trait;

use crate::store::Delivery;

/// Longest message of a rejection, in bytes.
const MAX_MESSAGE_BYTES: usize = 4 * 1024;

/// A place where documents are delivered.
#[async_trait]
pub trait Destination: Send + Sync {
    /// Delivers one document version, within the destination's own timeout.
    async fn deliver(&self, delivery: &Delivery) -> DestinationResponse;

    /// Returns true if it leaves notes with the versions that it accepts.
    fn leaves_notes(&self) -> bool;
}

/// A destination's response to one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DestinationResponse {
    /// The destination has the version. The same one may be delivered again and must be
    /// accepted again.
    Accepted {
        /// Text to return to the destination with a later version of the document
        /// ([`Delivery::earlier_note`]): a folder's paths, for instance.
        note: Option<String>,
    },
    /// The destination will never accept this version; the accountant is notified.
    Rejected {
        /// The destination's reason, as received.
        message: String,
    },
    /// The destination can't accept anything now: it is retried later with the same version.
    Unavailable {
        /// The problem and, where a person can act, the fix. Contains no secrets.
        error: String,
        /// Delay that the destination asked for.
        retry_after: Option<Duration>,
    },
    /// The destination accepts nothing until a person resumes it (HTTP 410).
    Closed {
        /// The destination's reason. Contains no secrets.
        error: String,
    },
    /// The link to the document's file has expired: the version is delivered once a pull
    /// has brought a new link.
    LinkExpired,
}

impl DestinationResponse {
    /// Returns a rejection with at most 4 KiB of `message`.
    pub(super) fn rejected(message: &str) -> Self {
        let mut end = message.len().min(MAX_MESSAGE_BYTES);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        Self::Rejected {
            message: message[..end].to_owned(),
        }
    }

    /// Returns an [`DestinationResponse::Unavailable`] without a delay of its own.
    pub(super) fn unavailable(error: String) -> Self {
        Self::Unavailable {
            error,
            retry_after: None,
        }
    }

    /// Returns the response for a version whose stored body is not JSON.
    pub(super) fn corrupt_document() -> Self {
        Self::unavailable(
            "the stored document is not valid JSON; check the disk, and that no other program \
             writes to the store"
                .to_owned(),
        )
    }
}
