//! Where the rows of uploads are kept: the store, or the server that holds it.

use async_trait::async_trait;

use crate::domain::Timestamp;
use crate::store::{NewUpload, SharedStore, StoreError, UploadBegun, UploadEnd};

/// Why a row could not be kept, in words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct JournalError(pub String);

impl From<StoreError> for JournalError {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

/// Whether a file is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Send it under this mark.
    Send {
        /// Its row.
        id: i64,
        /// What goes with it and comes back.
        correlation: String,
    },
    /// This content was sent before.
    Already {
        /// The row.
        id: i64,
    },
    /// Another process sends it.
    Busy {
        /// When its claim ends.
        until: Timestamp,
    },
}

/// The rows of uploads.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Claims a file's content for sending, or tells that this is not to be done.
    async fn begin(&self, upload: NewUpload) -> Result<Begun, JournalError>;

    /// Notes how an attempt ended.
    async fn end(
        &self,
        id: i64,
        owner: String,
        end: UploadEnd,
        now: Timestamp,
    ) -> Result<(), JournalError>;
}

#[async_trait]
impl Journal for SharedStore {
    async fn begin(&self, upload: NewUpload) -> Result<Begun, JournalError> {
        Ok(match self.begin_upload(upload).await? {
            UploadBegun::Send(row) => Begun::Send {
                id: row.id,
                correlation: row.correlation,
            },
            UploadBegun::Already(row) => Begun::Already { id: row.id },
            UploadBegun::Busy { until } => Begun::Busy { until },
        })
    }

    async fn end(
        &self,
        id: i64,
        owner: String,
        end: UploadEnd,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        // Whoever took the file over notes how that ended.
        self.end_upload(id, owner, end, now).await?;
        Ok(())
    }
}
