//! Observes every request to the vendor, for metrics.

use std::fmt;
use std::time::Duration;

use crate::domain::Queue;

/// The purpose of a request, without its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A page of the exported queue.
    Exported,
    /// A page of the digitized queue.
    Digitized,
    /// The location for a file.
    UploadLocation,
    /// A file, at the storage.
    File,
    /// A subscription.
    Subscribe,
    /// An import error.
    ImportError,
}

impl Endpoint {
    /// Returns the name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Digitized => "digitized",
            Self::UploadLocation => "upload_location",
            Self::File => "file",
            Self::Subscribe => "subscribe",
            Self::ImportError => "import_error",
        }
    }
}

impl From<Queue> for Endpoint {
    fn from(queue: Queue) -> Self {
        match queue {
            Queue::Exported => Self::Exported,
            Queue::Digitized => Self::Digitized,
        }
    }
}

/// A request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct CompletedRequest {
    /// Its purpose.
    pub endpoint: Endpoint,
    /// The answer's status; `None` if there was no answer.
    pub status: Option<u16>,
    /// Its duration, the answer's body included.
    pub duration: Duration,
}

/// Receives every request that has ended.
pub trait Observer: fmt::Debug + Send + Sync {
    /// Records a request.
    fn request_completed(&self, request: CompletedRequest);
}

/// Ignores requests.
#[derive(Debug)]
pub(super) struct Unobserved;

impl Observer for Unobserved {
    fn request_completed(&self, _: CompletedRequest) {}
}
