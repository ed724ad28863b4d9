//! Who is told of every request to the vendor.

use std::fmt;
use std::time::Duration;

use crate::domain::Queue;

/// What a request was for. A word of ours, never an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A page of the exported queue.
    Exported,
    /// A page of the digitized queue.
    Digitized,
    /// Where a file may be put.
    UploadLocation,
    /// The file itself, at the storage.
    File,
    /// A subscription.
    Subscribe,
    /// An import error.
    ErrorReport,
}

impl Endpoint {
    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Digitized => "digitized",
            Self::UploadLocation => "upload_location",
            Self::File => "file",
            Self::Subscribe => "subscribe",
            Self::ErrorReport => "import_error",
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

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// What it was for.
    pub endpoint: Endpoint,
    /// The answer's status; `None` where there was no answer.
    pub status: Option<u16>,
    /// How long it took, the answer's body included.
    pub took: Duration,
}

/// Is told of every request.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A request ended.
    fn asked(&self, asked: Asked);
}

/// Nobody.
#[derive(Debug)]
pub(super) struct Unobserved;

impl Observer for Unobserved {
    fn asked(&self, _: Asked) {}
}
