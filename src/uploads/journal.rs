//! The rows of uploads: in the store, or in the server that holds it.

use async_trait::async_trait;
use secrecy::SecretString;

use crate::domain::Timestamp;
use crate::store::{NewUpload, SharedStore, StoreError, UploadBegun, UploadEnd};

/// A row could not be stored.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct JournalError(pub String);

impl From<StoreError> for JournalError {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

/// The result of claiming a content.
#[derive(Clone, Debug)]
pub enum Claim {
    /// The content is to be sent.
    Send {
        /// Its row.
        id: i64,
        /// The mark that is sent with it and comes back with the document.
        correlation: String,
        /// The location that an earlier attempt used, which may have the file already.
        location: Option<SecretString>,
    },
    /// The same content was sent before.
    AlreadySent {
        /// The row of that upload.
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
    /// Claims a file's content, unless it was sent before or is being sent.
    async fn begin(&self, upload: NewUpload) -> Result<Claim, JournalError>;

    /// Keeps the location to which the file is about to be sent, or forgets it.
    async fn keep_location(
        &self,
        id: i64,
        owner: String,
        location: Option<SecretString>,
    ) -> Result<(), JournalError>;

    /// Records how an attempt ended.
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
    async fn begin(&self, upload: NewUpload) -> Result<Claim, JournalError> {
        Ok(match self.begin_upload(upload).await? {
            UploadBegun::Send { row, location } => Claim::Send {
                id: row.id,
                correlation: row.correlation,
                location,
            },
            UploadBegun::Already(row) => Claim::AlreadySent { id: row.id },
            UploadBegun::Busy { until } => Claim::Busy { until },
        })
    }

    async fn keep_location(
        &self,
        id: i64,
        owner: String,
        location: Option<SecretString>,
    ) -> Result<(), JournalError> {
        Ok(self.keep_upload_location(id, owner, location).await?)
    }

    async fn end(
        &self,
        id: i64,
        owner: String,
        end: UploadEnd,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        // If another owner has the file now, that one records its end.
        self.end_upload(id, owner, end, now).await?;
        Ok(())
    }
}
