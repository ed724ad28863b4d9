//! Delivers to a folder: JSON files, each with its PDF beside it.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tracing::warn;

use super::destination::{Destination, DestinationResponse};
use super::disk::{Attachment, BusyGuard, Disk, Filing, JSON};
use super::files::{Fetched, Files};
use super::layout::Plan;
use crate::config::{Config, DestinationConfig, DestinationKind};
use crate::domain::{Clock, DestinationName};
use crate::ivesk::Entry;
use crate::store::Delivery;

/// Pulls for a new link before a document is filed without its PDF.
const MAX_LINK_TRIES: u32 = 5;

/// A destination that is a folder.
pub(super) struct Folder {
    name: DestinationName,
    disk: Arc<Disk>,
    plan: Plan,
    files: Option<Files>,
    timeout: Duration,
    busy: Arc<Mutex<HashSet<String>>>,
}

impl Folder {
    /// Opens the folder of `destination`, and creates it if it is missing.
    ///
    /// # Errors
    ///
    /// Fails if the folder can't be created or written to.
    pub(super) fn new(
        name: &DestinationName,
        destination: &DestinationConfig,
        config: &Config,
        clock: &Clock,
    ) -> Result<Self, String> {
        let DestinationKind::Folder {
            path,
            layout,
            files,
            max_file_bytes,
            file_mode,
        } = &destination.kind
        else {
            return Err("its kind is not `folder`".to_owned());
        };
        let files = files
            .then(|| {
                Files::new(
                    &config.api,
                    *max_file_bytes,
                    destination.timeout,
                    clock.clone(),
                )
            })
            .transpose()?;
        let accounts = match destination.accounts.len() {
            0 => config.accounts.len(),
            named => named,
        };
        Ok(Self {
            name: name.clone(),
            disk: Arc::new(Disk::open(path, *file_mode)?),
            plan: Plan {
                layout: *layout,
                by_account: accounts > 1,
            },
            files,
            timeout: destination.timeout,
            busy: Arc::default(),
        })
    }

    async fn file(&self, delivery: &Delivery) -> DestinationResponse {
        let Some(busy) = BusyGuard::acquire(&self.busy, delivery) else {
            return DestinationResponse::unavailable(
                "an earlier attempt is still writing this document; the disk is slow".to_owned(),
            );
        };
        let filing = Filing {
            document_id: delivery.document_id.clone(),
            paths: self.plan.file_paths(delivery),
            body: delivery.body.clone(),
            earlier: delivery.earlier_note.clone(),
            with_pdf: self.files.is_some(),
            _busy: busy,
        };
        let Some(files) = &self.files else {
            let file = |disk: &Disk, filing: &Filing| match disk.finish_if_filed(filing)? {
                Some(paths) => Ok(paths),
                None => disk.file(filing, &Attachment::Disabled),
            };
            return self.filed(self.on_disk(filing, file).await);
        };
        let filing = match self.on_disk(filing, Disk::finish_if_filed).await {
            Ok((filing, None)) => filing,
            Ok((_, Some(paths))) => return accepted(&paths),
            Err(response) => return response,
        };
        let attachment = match self.fetch(files, delivery).await {
            Ok(attachment) => attachment,
            Err(response) => return response,
        };
        if let Attachment::Missing(reason) = &attachment {
            warn!(
                destination = %self.name, document.id = %delivery.document_id,
                "filing document `{}` without its PDF: {reason}", delivery.document_id
            );
        }
        let file = move |disk: &Disk, filing: &Filing| disk.file(filing, &attachment);
        self.filed(self.on_disk(filing, file).await)
    }

    /// Returns the response for a document that was filed at these paths, or was not.
    fn filed(
        &self,
        filed: Result<(Filing, Vec<String>), DestinationResponse>,
    ) -> DestinationResponse {
        match filed {
            Ok((filing, paths)) => {
                self.warn_of_other_names(&filing, &paths);
                accepted(&paths)
            }
            Err(response) => response,
        }
    }

    /// Tells which files could not have the names that they should.
    fn warn_of_other_names(&self, filing: &Filing, paths: &[String]) {
        for (path, chosen) in filing.paths.iter().zip(paths) {
            if *chosen != path.preferred {
                warn!(
                    destination = %self.name, document.id = %filing.document_id,
                    "document `{}` is filed with its id in its name: another file has the name that the archiver \
                     would give it",
                    filing.document_id
                );
            }
        }
    }

    /// Fetches the document's PDF into a temporary file.
    async fn fetch(
        &self,
        files: &Files,
        delivery: &Delivery,
    ) -> Result<Attachment, DestinationResponse> {
        let own = Entry::parse(&delivery.body).and_then(|entry| entry.link());
        let link = delivery.link.as_ref().or(own.as_ref());
        let disk = Arc::clone(&self.disk);
        let created = tokio::task::spawn_blocking(move || disk.temporary()).await;
        let created = created.map_err(io::Error::other).flatten();
        let (file, open) = created.map_err(|error| self.disk.unavailable(&error))?;
        match files
            .fetch(link, delivery.link_listed_at, open.into())
            .await
        {
            Fetched::Pdf(hash) => Ok(Attachment::Pdf { file, hash }),
            Fetched::Missing(reason) => Ok(Attachment::Missing(reason)),
            // The JSON must not wait forever.
            Fetched::Failed(DestinationResponse::LinkExpired)
                if delivery.link_timed_out || delivery.link_tries >= MAX_LINK_TRIES =>
            {
                let reason = "its link has expired, and pulling the document again brought no \
                              working one";
                Ok(Attachment::Missing(reason.to_owned()))
            }
            // A new link may lead to the whole file; one that does not is no reason to read the feed from
            // its beginning.
            Fetched::Cut(reason) if delivery.link_timed_out || delivery.link_tries > 0 => {
                Ok(Attachment::Missing(reason))
            }
            Fetched::Cut(_) => Err(DestinationResponse::LinkExpired),
            Fetched::Failed(response) => Err(response),
            Fetched::Disk(error) => Err(self.disk.unavailable(&error)),
        }
    }

    /// Runs `work` on a thread that may block. The work runs to its end even if this future
    /// is dropped.
    async fn on_disk<T: Send + 'static>(
        &self,
        filing: Filing,
        work: impl FnOnce(&Disk, &Filing) -> io::Result<T> + Send + 'static,
    ) -> Result<(Filing, T), DestinationResponse> {
        let disk = Arc::clone(&self.disk);
        let worked = tokio::task::spawn_blocking(move || {
            let done = work(&disk, &filing);
            (filing, done)
        });
        match worked.await {
            Ok((filing, Ok(done))) => Ok((filing, done)),
            Ok((_, Err(error))) => Err(self.disk.unavailable(&error)),
            Err(error) => Err(self.disk.unavailable(&io::Error::other(error))),
        }
    }
}

#[async_trait]
impl Destination for Folder {
    async fn deliver(&self, delivery: &Delivery) -> DestinationResponse {
        let filed = tokio::time::timeout(self.timeout, self.file(delivery));
        filed.await.unwrap_or_else(|_| {
            DestinationResponse::unavailable(format!(
                "the document was not filed within {:?} (`timeout`); fetching its file or the disk \
                 is slow",
                self.timeout
            ))
        })
    }

    fn leaves_notes(&self) -> bool {
        true
    }
}

fn accepted(paths: &[String]) -> DestinationResponse {
    let files: Vec<String> = paths.iter().map(|path| format!("{path}{JSON}")).collect();
    DestinationResponse::Accepted {
        note: Some(files.join("\n")),
    }
}
