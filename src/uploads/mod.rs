//! Uploads files to the vendor, each content once, and records how each upload ended.
//!
//! [`Uploader::upload`] is the one step, for one file. `cli::upload` calls it for the files that a
//! person names, [`watch::Watcher`] for those of a drop folder.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::config::UploadOptions;
use crate::domain::{Account, Clock};
use crate::ivesk::Client;
use crate::ivesk::document::UPLOAD_MARK;
use crate::ivesk::upload::{UploadError, UploadErrorKind, UploadLocation};
use crate::store::{NewUpload, UploadEnd};

mod ending;
pub mod file;
pub mod journal;
mod report;
pub mod walk;
pub mod watch;
mod writers;

pub use report::{FileReport, NoProgress, Progress, UploadOutcome, UploadReport};

use file::{FileError, OpenFile};
use journal::{Claim, Journal, JournalError};

/// Attempts at one file before it counts as failed for now.
pub const ATTEMPTS: u32 = 4;

/// Time that a claim lasts beyond the longest attempt.
const CLAIM_MARGIN: Duration = Duration::from_secs(60);

/// The most files that were sent, and are remembered until their rows say so.
const MAX_UNRECORDED: usize = 1_000;

/// Settings of uploads.
#[derive(Clone, Debug)]
pub struct UploadSettings {
    /// The account whose key uploads them.
    pub account: Account,
    /// Parameters of each upload; [`UPLOAD_MARK`] is added to the correlation data.
    pub options: UploadOptions,
    /// True if content that was sent before is sent again.
    pub force: bool,
    /// Waits between attempts.
    pub backoff: Backoff,
}

/// Uploads files, each content once.
pub struct Uploader {
    client: Client,
    journal: Arc<dyn Journal>,
    settings: UploadSettings,
    clock: Clock,
    owner: String,
    stop: CancellationToken,
    /// Rows of the uploads in progress.
    in_progress: Mutex<BTreeSet<i64>>,
    /// Rows, with their correlation, of files that the vendor has, and that the journal could not record
    /// as sent: sending one again after its location has expired would make a second document of it.
    unrecorded: Mutex<BTreeMap<i64, String>>,
    locations: Mutex<Locations>,
    /// One lock for each content in progress, so that two files with the same one are sent once.
    contents: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Uploader {
    /// Creates an uploader that sends with `client` and keeps its rows in `journal`. Once `stop`
    /// is canceled, no further attempt begins.
    ///
    /// # Errors
    ///
    /// If the system's random number generator fails.
    pub fn new(
        client: Client,
        journal: Arc<dyn Journal>,
        settings: UploadSettings,
        clock: Clock,
        stop: CancellationToken,
    ) -> Result<Self, getrandom::Error> {
        Ok(Self {
            client,
            journal,
            settings,
            clock,
            owner: random_id()?,
            stop,
            in_progress: Mutex::default(),
            unrecorded: Mutex::default(),
            locations: Mutex::default(),
            contents: Mutex::default(),
        })
    }

    /// Returns the uploader's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Uploads one file, unless its content was sent before.
    ///
    /// # Errors
    ///
    /// If its row can't be stored; nothing is sent without one.
    pub async fn upload(
        &self,
        path: &Path,
        progress: Arc<dyn Progress>,
    ) -> Result<UploadReport, JournalError> {
        let file = match OpenFile::read(path).await {
            Ok(file) => file,
            Err(error) => return Ok(unreadable(&error)),
        };
        let report = |outcome| UploadReport {
            outcome,
            size_bytes: Some(file.size_bytes()),
            sha256: Some(file.sha256().to_owned()),
        };
        let Some(name) = file_name(path) else {
            let error = "the file name is not UTF-8 text; rename the file".to_owned();
            return Ok(report(UploadOutcome::Refused { error }));
        };
        let content = self.content_lock(file.sha256());
        let guard = content.lock().await;
        let outcome = self.send(&file, &name, &progress).await;
        drop(guard);
        self.forget_content(file.sha256(), content);
        Ok(report(outcome?))
    }

    /// Releases the uploads in progress, which nothing waits for any longer, so that another
    /// process may send their files at once.
    ///
    /// # Errors
    ///
    /// If a row can't be stored; its claim then lasts until it ends.
    pub async fn abandon(&self) -> Result<(), JournalError> {
        let abandoned = std::mem::take(&mut *self.in_progress());
        for id in abandoned {
            let end = match self.unrecorded().contains_key(&id) {
                true => UploadEnd::Sent,
                false => UploadEnd::Failed("stopped before the upload was complete".to_owned()),
            };
            self.end(id, end).await?;
        }
        Ok(())
    }

    fn in_progress(&self) -> MutexGuard<'_, BTreeSet<i64>> {
        self.in_progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn unrecorded(&self) -> MutexGuard<'_, BTreeMap<i64, String>> {
        self.unrecorded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn content_lock(&self, sha256: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(contents.entry(sha256.to_owned()).or_default())
    }

    /// Removes a content's lock from the map, unless others hold or await it.
    fn forget_content(&self, sha256: &str, content: Arc<tokio::sync::Mutex<()>>) {
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        drop(content);
        if contents
            .get(sha256)
            .is_some_and(|lock| Arc::strong_count(lock) == 1)
        {
            contents.remove(sha256);
        }
    }

    async fn send(
        &self,
        file: &OpenFile,
        name: &str,
        progress: &Arc<dyn Progress>,
    ) -> Result<UploadOutcome, JournalError> {
        let mut force = self.settings.force;
        for attempt in 1.. {
            let claim = self.begin(file, name, force).await?;
            // The row exists now: further attempts use it.
            force = false;
            let (id, correlation, location) = match claim {
                Claim::Send {
                    id,
                    correlation,
                    location,
                } => (id, correlation, location),
                Claim::AlreadySent { id } => return Ok(UploadOutcome::AlreadySent { id }),
                Claim::Busy { until } => return Ok(UploadOutcome::Busy { until }),
            };
            self.in_progress().insert(id);
            if self.unrecorded().get(&id) == Some(&correlation) {
                return self.record_sent(id, &correlation).await;
            }
            let file = FileToSend {
                id,
                file,
                name,
                correlation: &correlation,
                progress,
            };
            let kept = location.as_ref().and_then(UploadLocation::from_answer);
            let error = match self.attempt(&file, kept).await? {
                Ok(()) => return self.record_sent(id, &correlation).await,
                Err(error) => error,
            };
            let (outcome, retry) = self.classify(name, &error);
            let error = error.to_string();
            let end = match outcome {
                UploadOutcome::Refused { .. } => UploadEnd::Refused(error),
                _ => UploadEnd::Failed(error),
            };
            self.end(id, end).await?;
            let Some(retry) = retry.filter(|_| attempt < ATTEMPTS) else {
                return Ok(outcome);
            };
            let wait = retry
                .after
                .unwrap_or_else(|| self.settings.backoff.delay(attempt - 1, 0.0));
            let wait = tokio::time::sleep(wait);
            if self.stop.run_until_cancelled(wait).await.is_none() {
                return Ok(outcome);
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Records that the vendor has the file of a row; remembers it until that succeeds.
    async fn record_sent(&self, id: i64, correlation: &str) -> Result<UploadOutcome, JournalError> {
        {
            let mut unrecorded = self.unrecorded();
            unrecorded.insert(id, correlation.to_owned());
            if unrecorded.len() > MAX_UNRECORDED {
                unrecorded.pop_first();
            }
        }
        self.end(id, UploadEnd::Sent).await?;
        self.unrecorded().remove(&id);
        Ok(UploadOutcome::Sent { id })
    }

    async fn begin(&self, file: &OpenFile, name: &str, force: bool) -> Result<Claim, JournalError> {
        let correlation = random_id().map_err(|error| JournalError(error.to_string()))?;
        // One request for the location, and two for the file: a kept location may have expired.
        let longest = self.client.put_deadline(0) + 2 * self.client.put_deadline(file.size_bytes());
        self.journal
            .begin(NewUpload {
                account: self.settings.account.clone(),
                sha256: file.sha256().to_owned(),
                size_bytes: file.size_bytes(),
                file_name: name.to_owned(),
                correlation,
                force,
                owner: self.owner.clone(),
                now: self.clock.now(),
                claim: longest + CLAIM_MARGIN,
            })
            .await
    }

    async fn end(&self, id: i64, end: UploadEnd) -> Result<(), JournalError> {
        self.journal
            .end(id, self.owner.clone(), end, self.clock.now())
            .await?;
        self.in_progress().remove(&id);
        Ok(())
    }

    /// Sends a file to the location `kept` from an earlier attempt, whose answer was lost: what
    /// is put there twice is one file to the vendor. If that has expired, or there is none, a new
    /// one is requested, and kept before the file is on its way.
    async fn attempt(
        &self,
        file: &FileToSend<'_>,
        kept: Option<UploadLocation>,
    ) -> Result<Result<(), AttemptError>, JournalError> {
        if let Some(location) = kept {
            match self.put(file, &location).await {
                Err(AttemptError::Upload(error)) if error.asks_for_new_location() => {}
                done => return self.keep_or_forget(file, done).await,
            }
        }
        let location = match self.new_location(file).await {
            Ok(location) => location,
            Err(error) => return self.keep_or_forget(file, Err(error.into())).await,
        };
        self.keep(file.id, Some(&location)).await?;
        let done = self.put(file, &location).await;
        self.keep_or_forget(file, done).await
    }

    /// Forgets the location of a failed attempt, unless it can be used again. The end of an
    /// upload forgets it too.
    async fn keep_or_forget(
        &self,
        file: &FileToSend<'_>,
        done: Result<(), AttemptError>,
    ) -> Result<Result<(), AttemptError>, JournalError> {
        let forgets = match &done {
            Ok(()) => false,
            Err(AttemptError::Upload(error)) => !error.leaves_location_usable(),
            Err(AttemptError::File(_)) => true,
        };
        if forgets {
            self.keep(file.id, None).await?;
        }
        Ok(done)
    }

    async fn keep(&self, id: i64, location: Option<&UploadLocation>) -> Result<(), JournalError> {
        let location = location.map(|location| location.answer().clone());
        self.journal
            .keep_location(id, self.owner.clone(), location)
            .await
    }

    async fn new_location(&self, file: &FileToSend<'_>) -> Result<UploadLocation, UploadError> {
        let mut options = self.settings.options.clone();
        let mut data: Map<String, Value> = options.correlation.take().unwrap_or_default();
        data.insert(UPLOAD_MARK.to_owned(), file.correlation.into());
        options.correlation = Some(data);
        let location = self.client.upload_location(file.name, &options).await?;
        let mut locations = self.locations();
        locations.given += 1;
        locations.refused_name = None;
        drop(locations);
        Ok(location)
    }

    async fn put(
        &self,
        file: &FileToSend<'_>,
        location: &UploadLocation,
    ) -> Result<(), AttemptError> {
        let size_bytes = file.file.size_bytes();
        file.progress.began(size_bytes);
        let (body, fault) = file.file.stream(Arc::clone(file.progress));
        let put = self.client.put_stream(location, size_bytes, body);
        put.await.map_err(|error| match fault.take() {
            // The file broke the request, not the network.
            Some(fault) => AttemptError::File(fault),
            None => AttemptError::Upload(error),
        })
    }

    fn locations(&self) -> MutexGuard<'_, Locations> {
        self.locations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many locations the vendor has given so far.
    fn locations_given(&self) -> u64 {
        self.locations().given
    }

    /// Classifies a failed attempt at a file of this name.
    fn classify(&self, name: &str, error: &AttemptError) -> (UploadOutcome, Option<Retry>) {
        let text = error.to_string();
        let error = match error {
            AttemptError::Upload(error) => error,
            AttemptError::File(_) => {
                let outcome = UploadOutcome::Failed {
                    error: text,
                    unreachable: false,
                    retry_after: None,
                };
                return (outcome, None);
            }
        };
        match error.kind() {
            UploadErrorKind::Temporary { retry_after } => {
                // Other files don't wait as long for this one.
                let longest = self.settings.backoff.longest;
                let long = retry_after.filter(|wait| *wait > longest);
                let error_text = match long {
                    Some(wait) => {
                        let wait = humantime::format_duration(wait);
                        format!("{text}; Įvesk.lt asks to retry in {wait}")
                    }
                    None => text,
                };
                let outcome = UploadOutcome::Failed {
                    error: error_text,
                    unreachable: error.is_unreachable(),
                    retry_after: long,
                };
                let retry = long.is_none().then_some(Retry { after: retry_after });
                (outcome, retry)
            }
            UploadErrorKind::FileRefused => (UploadOutcome::Refused { error: text }, None),
            UploadErrorKind::NoLocation => (self.no_location(name, text), None),
            UploadErrorKind::NeedsPerson => {
                let outcome = UploadOutcome::Stopped {
                    error: text,
                    without_location: false,
                };
                (outcome, None)
            }
        }
    }

    /// Returns the outcome for a name without a location: if the name before it has none either,
    /// it is probably not the name.
    fn no_location(&self, name: &str, error: String) -> UploadOutcome {
        let before = self.locations().refused_name.replace(name.to_owned());
        if before.is_some_and(|before| before != name) {
            UploadOutcome::Stopped {
                error,
                without_location: true,
            }
        } else {
            UploadOutcome::NoLocation { error }
        }
    }
}

/// What the vendor answered when it was asked for locations.
#[derive(Default)]
struct Locations {
    /// How many it gave.
    given: u64,
    /// The last name for which it gave none, unless it gave one for a name since.
    refused_name: Option<String>,
}

/// A file with the row of its upload.
struct FileToSend<'f> {
    id: i64,
    file: &'f OpenFile,
    name: &'f str,
    correlation: &'f str,
    progress: &'f Arc<dyn Progress>,
}

#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Upload(#[from] UploadError),
    #[error(transparent)]
    File(#[from] FileError),
}

/// Another attempt that may succeed.
struct Retry {
    /// The wait that the vendor asked for.
    after: Option<Duration>,
}

fn unreadable(error: &FileError) -> UploadReport {
    let text = error.to_string();
    let outcome = match error {
        FileError::Empty => UploadOutcome::Refused { error: text },
        FileError::Unreadable(_) | FileError::Changed => UploadOutcome::Failed {
            error: text,
            unreachable: false,
            retry_after: None,
        },
    };
    UploadReport {
        outcome,
        size_bytes: None,
        sha256: None,
    }
}

fn file_name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

/// Returns a random UUID.
fn random_id() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(Uuid::from_bytes(bytes).hyphenated().to_string())
}
