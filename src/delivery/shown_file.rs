//! Fetches a document's file for a person who looks at it, with the checks of deliveries.

use std::fs::File;
use std::time::Duration;

use secrecy::SecretString;
use tokio::task::spawn_blocking;

use super::destination::DestinationResponse;
use super::files::{Fetched, Files};
use crate::config::ApiConfig;
use crate::domain::{Clock, Timestamp};
use crate::hex::hex;
use crate::private_files;

/// The largest file that is fetched: that of folders, unless they say otherwise.
const MAX_BYTES: u64 = 64 << 20;

/// The time in which it must arrive.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Why a document's file can't be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The link has expired; a pull brings another one.
    #[error("the link to the file has expired")]
    Expired,
    /// There is no file; the reason.
    #[error("{0}")]
    Missing(String),
    /// It is not available now; the reason.
    #[error("{0}")]
    Unavailable(String),
}

/// Returns a document's PDF, whole and checked, as a temporary file without a name.
///
/// `listed_at` is the time when the vendor listed the link, if a pull was made for it.
///
/// # Errors
///
/// A [`FileError`] if there is no such file, or it can't be fetched or kept now.
pub async fn fetch(
    api: &ApiConfig,
    clock: Clock,
    link: Option<&SecretString>,
    listed_at: Option<Timestamp>,
) -> Result<File, FileError> {
    let files = Files::new(api, MAX_BYTES, TIMEOUT, clock).map_err(FileError::Unavailable)?;
    let (written, read) = spawn_blocking(temporary)
        .await
        .map_err(std::io::Error::other)
        .flatten()
        .map_err(|error| {
            FileError::Unavailable(format!("failed to make a temporary file: {error}"))
        })?;
    match files.fetch(link, listed_at, written.into()).await {
        Fetched::Pdf(_) => Ok(read),
        Fetched::Missing(reason) | Fetched::Cut(reason) => Err(FileError::Missing(reason)),
        Fetched::Failed(DestinationResponse::LinkExpired) => Err(FileError::Expired),
        Fetched::Failed(DestinationResponse::Unavailable { error, .. }) => {
            Err(FileError::Unavailable(error))
        }
        Fetched::Failed(_) => Err(FileError::Unavailable(
            "the file could not be fetched".to_owned(),
        )),
        Fetched::Disk(error) => Err(FileError::Unavailable(format!(
            "failed to write a temporary file: {error}"
        ))),
    }
}

/// Creates a file, opened for writing and for reading, and removes its name.
fn temporary() -> std::io::Result<(File, File)> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    let path = std::env::temp_dir().join(format!("ivesk-webhook-{}.pdf", hex(&bytes)));
    let written = private_files::create_new(&path)?;
    let read = private_files::open(&path);
    std::fs::remove_file(&path)?;
    Ok((written, read?))
}
