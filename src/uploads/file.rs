//! One file: its hash, and its bytes as a stream that fails if the file changes.
//!
//! It is opened once. What is sent is what was hashed, whatever its name leads to by then.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Bytes, BytesMut};
use futures_util::stream;

use super::report::Progress;
use crate::hex::hex;
use crate::private_files;

/// Bytes in memory at once, for each upload in progress.
const CHUNK_BYTES: usize = 128 * 1024;

/// A file can't be uploaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It has no content.
    #[error("the file is empty")]
    Empty,
    /// It can't be opened or read, or is no regular file.
    #[error("the file can't be read: {0}")]
    Unreadable(String),
    /// It was written to meanwhile.
    #[error("the file changed during the upload; upload it again once it is complete")]
    Changed,
}

impl From<std::io::Error> for FileError {
    fn from(error: std::io::Error) -> Self {
        Self::Unreadable(error.to_string())
    }
}

/// A file with the hash of its content.
#[derive(Debug)]
pub struct OpenFile {
    file: Arc<File>,
    size_bytes: u64,
    sha256: String,
}

/// The error of a file that was read as a request's body, for the code that sees the request
/// fail.
#[derive(Clone, Debug, Default)]
pub struct Fault(Arc<Mutex<Option<FileError>>>);

impl Fault {
    /// Removes and returns the error, if there is one.
    pub fn take(&self) -> Option<FileError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, error: FileError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

impl OpenFile {
    /// Opens a file and reads all of it for its length and hash. Links are not followed.
    ///
    /// # Errors
    ///
    /// If it is empty, can't be read, or is not a regular file.
    pub async fn read(path: &Path) -> Result<Self, FileError> {
        let path = path.to_owned();
        let file = Arc::new(on_disk(move || private_files::open(&path)).await?);
        let mut hash = Context::new(&SHA256);
        let mut size_bytes: u64 = 0;
        loop {
            let chunk = read_at(&file, size_bytes, CHUNK_BYTES).await?;
            if chunk.is_empty() {
                break;
            }
            hash.update(&chunk);
            size_bytes += chunk.len() as u64;
        }
        if size_bytes == 0 {
            return Err(FileError::Empty);
        }
        Ok(Self {
            file,
            size_bytes,
            sha256: hex(hash.finish().as_ref()),
        })
    }

    /// Returns the length in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Returns the SHA-256 of the content in lower-case hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Returns the bytes, read as they are sent. The last chunk is sent only if the content still
    /// has the hash that was read first. Otherwise the request is aborted, so that the storage
    /// keeps nothing, and the fault has the error.
    pub fn stream(&self, progress: Arc<dyn Progress>) -> (reqwest::Body, Fault) {
        let fault = Fault::default();
        let reading = Reading {
            file: Arc::clone(&self.file),
            read_bytes: 0,
            size_bytes: self.size_bytes,
            hash: Some(Context::new(&SHA256)),
            sha256: self.sha256.clone(),
            fault: fault.clone(),
            progress,
        };
        let chunks = stream::unfold(reading, |mut reading| async move {
            let chunk = reading.next().await?;
            Some((chunk, reading))
        });
        (reqwest::Body::wrap_stream(chunks), fault)
    }
}

/// A file that is being read as a request's body.
struct Reading {
    file: Arc<File>,
    read_bytes: u64,
    size_bytes: u64,
    /// None once reading has ended or failed.
    hash: Option<Context>,
    sha256: String,
    fault: Fault,
    progress: Arc<dyn Progress>,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Bytes, FileError>> {
        self.hash.as_ref()?;
        if self.read_bytes == self.size_bytes {
            return None;
        }
        let chunk = self.chunk().await;
        match &chunk {
            Ok(chunk) => self.progress.sent(chunk.len() as u64),
            Err(error) => {
                self.hash = None;
                self.fault.set(error.clone());
            }
        }
        Some(chunk)
    }

    async fn chunk(&mut self) -> Result<Bytes, FileError> {
        let length = usize::try_from(self.size_bytes - self.read_bytes)
            .unwrap_or(usize::MAX)
            .min(CHUNK_BYTES);
        let chunk = read_at(&self.file, self.read_bytes, length).await?;
        if chunk.is_empty() {
            return Err(FileError::Changed);
        }
        self.read_bytes += chunk.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(&chunk);
            if self.read_bytes == self.size_bytes
                && hex(hash.clone().finish().as_ref()) != self.sha256
            {
                return Err(FileError::Changed);
            }
        }
        Ok(chunk)
    }
}

/// Reads at most `length` bytes at `offset`; none at the end of the file.
async fn read_at(file: &Arc<File>, offset: u64, length: usize) -> std::io::Result<Bytes> {
    let file = Arc::clone(file);
    on_disk(move || {
        let mut chunk = BytesMut::zeroed(length);
        let length = file.read_at(&mut chunk, offset)?;
        chunk.truncate(length);
        Ok(chunk.freeze())
    })
    .await
}

/// Runs `work` on a thread that may block.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)?
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the rules are for the service")]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;
    use crate::uploads::NoProgress;

    async fn sent(file: &OpenFile) -> (Result<Vec<u8>, ()>, Option<FileError>) {
        let (body, fault) = file.stream(Arc::new(NoProgress));
        let response = reqwest::Response::from(hyper::Response::new(body));
        let mut whole = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => whole.extend_from_slice(&chunk),
                Err(_) => return (Err(()), fault.take()),
            }
        }
        (Ok(whole), fault.take())
    }

    #[tokio::test]
    async fn a_file_is_streamed_unchanged_and_aborted_if_it_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.pdf");
        let content: Vec<u8> = (0..CHUNK_BYTES * 2 + 7)
            .map(|at| u8::try_from(at % 251).expect("below 251"))
            .collect();
        std::fs::write(&path, &content).expect("written");
        let file = OpenFile::read(&path).await.expect("it can be read");
        assert_eq!(file.size_bytes(), content.len() as u64);
        assert_eq!(sent(&file).await, (Ok(content.clone()), None));

        let mut other = content.clone();
        other[5] ^= 1;
        for changed in [&other[..], &content[..content.len() - 1], &[]] {
            std::fs::write(&path, changed).expect("written");
            assert_eq!(sent(&file).await, (Err(()), Some(FileError::Changed)));
        }
        // Bytes that were appended are not sent.
        let longer = [&content[..], b"more"].concat();
        std::fs::write(&path, longer).expect("written");
        assert_eq!(sent(&file).await, (Ok(content), None));
    }

    #[tokio::test]
    async fn what_was_hashed_is_sent_wherever_its_name_leads_by_then() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.pdf");
        let secret = folder.path().join("secret");
        std::fs::write(&path, "invoice").expect("written");
        std::fs::write(&secret, "secret!").expect("written");
        let file = OpenFile::read(&path).await.expect("it can be read");
        std::fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink(&secret, &path).expect("linked");
        assert_eq!(sent(&file).await, (Ok(b"invoice".to_vec()), None));
    }

    #[tokio::test]
    async fn an_empty_or_missing_file_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.pdf");
        let missing = OpenFile::read(&path).await;
        assert!(matches!(missing, Err(FileError::Unreadable(_))));
        std::fs::write(&path, "").expect("written");
        assert_eq!(OpenFile::read(&path).await.err(), Some(FileError::Empty));
    }
}
