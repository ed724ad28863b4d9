//! Delivers stored documents to destinations.
//!
//! A [`Destination`] receives one [`Delivery`] at a time and answers with a
//! [`DestinationResponse`]. The modules of its kinds:
//!
//! - `http`: a signed POST.
//! - `command`: a program.
//! - `folder`: JSON files, each with its PDF, which `files` fetches; `layout` names them, and `disk`
//!   writes them.
//!
//! `filter` tells which documents a destination does not receive.
//!
//! A program that reads the kind `list` uses the admin listener. The workers:
//!
//! - [`worker`] attempts the deliveries of one destination; in [`steps`] it leases them and stores the outcomes.
//! - [`import_errors`] sends rejections to the accountant, worded by [`texts`].
//!
//! `docs/destinations.md` is the contract for receivers.

use std::collections::BTreeMap;

use crate::config::{Config, DestinationConfig, DestinationKind};
use crate::domain::{Clock, DestinationName};
pub use crate::store::Delivery;
use crate::store::ErasedFile;

mod command;
mod destination;
mod disk;
mod files;
mod filter;
mod folder;
mod http;
pub mod import_errors;
mod layout;
mod payload;
pub mod shown_file;
pub mod steps;
pub mod texts;
pub mod worker;

pub use destination::{Destination, DestinationResponse};
pub use disk::RemovedFiles;

/// A destination that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("destination `{name}` can't be used: {problem}")]
pub struct OpenError {
    /// The destination.
    pub name: DestinationName,
    /// The problem and its fix.
    pub problem: String,
}

/// Opens a destination: checks that its program can be run, or its folder written to.
///
/// `environment` holds the service's own variables. Returns `None` for a destination of the
/// kind `list`, whose program fetches documents itself.
///
/// # Errors
///
/// Fails if the destination can't be used at all: its program or folder is missing or not
/// accessible, or the machine has no TLS roots.
pub fn open(
    name: &DestinationName,
    destination: &DestinationConfig,
    config: &Config,
    environment: &BTreeMap<String, String>,
    clock: &Clock,
) -> Result<Option<Box<dyn Destination>>, OpenError> {
    let timeout = destination.timeout;
    let opened: Result<Box<dyn Destination>, String> = match &destination.kind {
        DestinationKind::Http { url, secrets } => http::Http::new(
            url,
            secrets,
            config.egress.proxy.as_ref(),
            timeout,
            clock.clone(),
        )
        .map(|destination| Box::new(destination) as _),
        DestinationKind::Command {
            program,
            arguments,
            environment: passed,
            folder,
        } => command::Command::new(program, arguments, passed, environment, folder, timeout)
            .map(|destination| Box::new(destination) as _),
        DestinationKind::Folder { .. } => folder::Folder::new(name, destination, config, clock)
            .map(|destination| Box::new(destination) as _),
        DestinationKind::List => return Ok(None),
    };
    opened.map(Some).map_err(|problem| OpenError {
        name: name.clone(),
        problem,
    })
}

/// Removes files of erased documents from the folder of a destination. `None` if its kind is not
/// `folder`.
///
/// `is_last` is true for the last files of several calls.
pub async fn remove_files(
    destination: &DestinationConfig,
    files: Vec<ErasedFile>,
    is_last: bool,
) -> Option<RemovedFiles> {
    let DestinationKind::Folder {
        path, file_mode, ..
    } = &destination.kind
    else {
        return None;
    };
    let (path, mode) = (path.clone(), *file_mode);
    let removed =
        tokio::task::spawn_blocking(move || disk::remove_filed(&path, mode, files, is_last));
    // A panic is a bug, and leaves the files for another time.
    Some(removed.await.unwrap_or_else(|error| RemovedFiles {
        problem: Some(error.to_string()),
        ..RemovedFiles::default()
    }))
}
