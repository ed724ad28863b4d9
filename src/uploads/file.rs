//! One file: its hash, and its bytes as a stream that fails if the file changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use super::report::Progress;

/// Bytes in memory at once, for each upload in progress.
const CHUNK_BYTES: usize = 128 * 1024;

/// A file can't be uploaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It has no content.
    #[error("the file is empty")]
    Empty,
    /// It can't be opened or read.
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
    path: PathBuf,
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
    /// Reads a whole file for its length and hash.
    ///
    /// # Errors
    ///
    /// If it is empty or can't be read.
    pub async fn read(path: &Path) -> Result<Self, FileError> {
        let mut file = File::open(path).await?;
        let mut hash = Context::new(&SHA256);
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut size_bytes: u64 = 0;
        loop {
            let length = file.read(&mut chunk).await?;
            if length == 0 {
                break;
            }
            hash.update(&chunk[..length]);
            size_bytes += length as u64;
        }
        if size_bytes == 0 {
            return Err(FileError::Empty);
        }
        Ok(Self {
            path: path.to_owned(),
            size_bytes,
            sha256: digits(hash),
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
    ///
    /// # Errors
    ///
    /// If the file can't be opened any more.
    pub async fn stream(
        &self,
        progress: Arc<dyn Progress>,
    ) -> Result<(reqwest::Body, Fault), FileError> {
        let fault = Fault::default();
        let reading = Reading {
            file: File::open(&self.path).await?,
            left_bytes: self.size_bytes,
            hash: Some(Context::new(&SHA256)),
            sha256: self.sha256.clone(),
            fault: fault.clone(),
            progress,
        };
        let chunks = stream::unfold(reading, |mut reading| async move {
            let chunk = reading.next().await?;
            Some((chunk, reading))
        });
        Ok((reqwest::Body::wrap_stream(chunks), fault))
    }
}

/// A file that is being read as a request's body.
struct Reading {
    file: File,
    left_bytes: u64,
    /// None once reading has ended or failed.
    hash: Option<Context>,
    sha256: String,
    fault: Fault,
    progress: Arc<dyn Progress>,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Bytes, FileError>> {
        self.hash.as_ref()?;
        if self.left_bytes == 0 {
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
        let length = usize::try_from(self.left_bytes)
            .unwrap_or(usize::MAX)
            .min(CHUNK_BYTES);
        let mut chunk = BytesMut::zeroed(length);
        match self.file.read_exact(&mut chunk).await {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(FileError::Changed);
            }
            Err(error) => return Err(error.into()),
        }
        self.left_bytes -= length as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(&chunk);
            if self.left_bytes == 0 && digits(hash.clone()) != self.sha256 {
                return Err(FileError::Changed);
            }
        }
        Ok(chunk.freeze())
    }
}

fn digits(hash: Context) -> String {
    use std::fmt::Write as _;
    let digest = hash.finish();
    digest
        .as_ref()
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a String can't fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;
    use crate::uploads::NoProgress;

    async fn sent(file: &OpenFile) -> (Result<Vec<u8>, ()>, Option<FileError>) {
        let (body, fault) = file
            .stream(Arc::new(NoProgress))
            .await
            .expect("the file opens");
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
    async fn an_empty_or_missing_file_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.pdf");
        let missing = OpenFile::read(&path).await;
        assert!(matches!(missing, Err(FileError::Unreadable(_))));
        std::fs::write(&path, "").expect("written");
        assert_eq!(OpenFile::read(&path).await.err(), Some(FileError::Empty));
    }
}
