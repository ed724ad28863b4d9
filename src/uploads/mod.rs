//! Giving files to the vendor: each content once, with a row that tells how it went.
//!
//! [`Uploader::upload`] is the one step, for one file. `cli::upload` calls it for the
//! files that a person names, [`watch::Watcher`] for those that lie in a drop folder.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::{Account, Clock, Timestamp};
use crate::ivesk::Client;
use crate::ivesk::document::UPLOAD_MARK;
use crate::ivesk::upload::{UploadError, UploadOptions, Verdict};
use crate::store::{NewUpload, UploadEnd};

pub mod file;
pub mod journal;
pub mod parameters;
pub mod walk;
pub mod watch;
mod writers;

use file::{FileError, OpenFile};
use journal::{Begun, Journal, JournalError};

/// Attempts at one file before it counts as failed for now.
pub const ATTEMPTS: u32 = 4;

/// The pause after the first failed attempt; each later one is three times as long.
pub const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// How much longer than an attempt may take its claim holds.
const CLAIM_SLACK: Duration = Duration::from_secs(60);

/// Who hears how a file comes along.
pub trait Progress: Send + Sync {
    /// An attempt begins, at byte 0 of `size_bytes`.
    fn began(&self, size_bytes: u64);
    /// So many more bytes were handed to the network.
    fn sent(&self, bytes: u64);
}

/// Nobody listens.
pub struct Unheard;

impl Progress for Unheard {
    fn began(&self, _: u64) {}
    fn sent(&self, _: u64) {}
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The vendor's storage has it.
    Sent {
        /// Its row.
        id: i64,
    },
    /// This content was sent before, as this row.
    AlreadySent {
        /// The row.
        id: i64,
    },
    /// Another process sends it, or did and was cut off.
    Busy {
        /// When its claim ends.
        until: Timestamp,
    },
    /// The vendor does not want it, or it is no file that can be sent.
    Refused {
        /// Why, and what to do.
        why: String,
    },
    /// It did not get there; a later attempt may pass.
    Failed {
        /// What the last attempt ended with.
        why: String,
        /// Whether nobody answered.
        unreachable: bool,
    },
    /// No file will pass until a person has put something right.
    Stopped {
        /// What to put right.
        why: String,
    },
}

/// What was found out about a file, and what became of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// What became of it.
    pub outcome: Outcome,
    /// Its length in bytes; none where it could not be read.
    pub size_bytes: Option<u64>,
    /// Its content's SHA-256 in hexadecimal digits; none where it could not be read.
    pub sha256: Option<String>,
}

/// How files are sent.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Whose key sends them.
    pub account: Account,
    /// What goes with each; [`UPLOAD_MARK`] is added to the correlation data.
    pub options: UploadOptions,
    /// Whether content that was sent before is sent again.
    pub force: bool,
    /// The pause after the first failed attempt.
    pub first_pause: Duration,
}

/// Sends files, each content once.
pub struct Uploader {
    client: Client,
    journal: Arc<dyn Journal>,
    manner: Manner,
    clock: Clock,
    owner: String,
    stop: CancellationToken,
    /// Rows of files on their way.
    under_way: Mutex<BTreeSet<i64>>,
    /// One lock for each content under way, so that two files with the same one are sent once.
    contents: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Uploader {
    /// Sends with `client` and keeps its rows in `journal`. Once `stop` is canceled,
    /// no further attempt begins.
    pub fn new(
        client: Client,
        journal: Arc<dyn Journal>,
        manner: Manner,
        clock: Clock,
        stop: CancellationToken,
    ) -> Result<Self, getrandom::Error> {
        Ok(Self {
            client,
            journal,
            manner,
            clock,
            owner: random_id()?,
            stop,
            under_way: Mutex::default(),
            contents: Mutex::default(),
        })
    }

    /// The time that this uploader goes by.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Sends one file, unless its content was sent before.
    ///
    /// # Errors
    ///
    /// Where its row can't be kept; nothing is sent without one.
    pub async fn upload(
        &self,
        path: &Path,
        progress: Arc<dyn Progress>,
    ) -> Result<Report, JournalError> {
        let file = match OpenFile::read(path).await {
            Ok(file) => file,
            Err(error) => return Ok(unreadable(&error)),
        };
        let report = |outcome| Report {
            outcome,
            size_bytes: Some(file.size_bytes()),
            sha256: Some(file.sha256().to_owned()),
        };
        let Some(name) = file_name(path) else {
            let why = UploadError::FileName.to_string();
            return Ok(report(Outcome::Refused { why }));
        };
        let content = self.content(file.sha256());
        let alone = content.lock().await;
        let outcome = self.send(&file, &name, &progress).await;
        drop(alone);
        self.forget(file.sha256(), content);
        Ok(report(outcome?))
    }

    /// Gives up what is on its way, once nobody waits for it any more: another process
    /// may send it at once.
    ///
    /// # Errors
    ///
    /// Where a row can't be kept; its claim ends by itself then.
    pub async fn abandon(&self) -> Result<(), JournalError> {
        let abandoned = std::mem::take(&mut *self.under_way());
        for id in abandoned {
            let why = "stopped before it was through".to_owned();
            self.end(id, UploadEnd::Failed(why)).await?;
        }
        Ok(())
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeSet<i64>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn content(&self, sha256: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(contents.entry(sha256.to_owned()).or_default())
    }

    /// Takes a content's lock out of the map where nobody else holds or awaits it.
    fn forget(&self, sha256: &str, content: Arc<tokio::sync::Mutex<()>>) {
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
    ) -> Result<Outcome, JournalError> {
        let mut force = self.manner.force;
        let mut pause = self.manner.first_pause;
        for attempt in 1.. {
            let begun = self.begin(file, name, force).await?;
            // The row is there now: further attempts go on with it.
            force = false;
            let (id, correlation) = match begun {
                Begun::Send { id, correlation } => (id, correlation),
                Begun::Already { id } => return Ok(Outcome::AlreadySent { id }),
                Begun::Busy { until } => return Ok(Outcome::Busy { until }),
            };
            self.under_way().insert(id);
            let error = match self.attempt(file, name, &correlation, progress).await {
                Ok(()) => {
                    self.end(id, UploadEnd::Sent).await?;
                    return Ok(Outcome::Sent { id });
                }
                Err(error) => error,
            };
            let why = error.to_string();
            let (outcome, wait) = judge(&error, why.clone());
            let end = match outcome {
                Outcome::Refused { .. } => UploadEnd::Refused(why),
                _ => UploadEnd::Failed(why),
            };
            self.end(id, end).await?;
            let Some(asked) = wait.filter(|_| attempt < ATTEMPTS) else {
                return Ok(outcome);
            };
            let rest = tokio::time::sleep(asked.unwrap_or(pause));
            pause *= 3;
            if self.stop.run_until_cancelled(rest).await.is_none() {
                return Ok(outcome);
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn begin(&self, file: &OpenFile, name: &str, force: bool) -> Result<Begun, JournalError> {
        let correlation = random_id().map_err(|error| JournalError(error.to_string()))?;
        // Asking for the location, then putting the file.
        let longest = self.client.put_deadline(0) + self.client.put_deadline(file.size_bytes());
        self.journal
            .begin(NewUpload {
                account: self.manner.account.clone(),
                sha256: file.sha256().to_owned(),
                size_bytes: file.size_bytes(),
                file_name: name.to_owned(),
                correlation,
                force,
                owner: self.owner.clone(),
                now: self.clock.now(),
                claim: longest + CLAIM_SLACK,
            })
            .await
    }

    async fn end(&self, id: i64, end: UploadEnd) -> Result<(), JournalError> {
        self.journal
            .end(id, self.owner.clone(), end, self.clock.now())
            .await?;
        self.under_way().remove(&id);
        Ok(())
    }

    /// One attempt: a fresh location, then the file.
    async fn attempt(
        &self,
        file: &OpenFile,
        name: &str,
        correlation: &str,
        progress: &Arc<dyn Progress>,
    ) -> Result<(), AttemptError> {
        let mut options = self.manner.options.clone();
        let mut data: Map<String, Value> = options.correlation.take().unwrap_or_default();
        data.insert(UPLOAD_MARK.to_owned(), correlation.into());
        options.correlation = Some(data);
        let location = self.client.upload_location(name, &options).await?;
        progress.began(file.size_bytes());
        let (body, fault) = file.stream(Arc::clone(progress)).await?;
        let put = self.client.put_stream(&location, file.size_bytes(), body);
        put.await.map_err(|error| match fault.take() {
            // What broke the request off was the file, not the network.
            Some(fault) => AttemptError::File(fault),
            None => AttemptError::Upload(error),
        })
    }
}

#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Upload(#[from] UploadError),
    #[error(transparent)]
    File(#[from] FileError),
}

/// What an attempt's end means, and whether and when to try again.
fn judge(error: &AttemptError, why: String) -> (Outcome, Option<Option<Duration>>) {
    let error = match error {
        AttemptError::Upload(error) => error,
        AttemptError::File(_) => {
            let unreachable = false;
            return (Outcome::Failed { why, unreachable }, None);
        }
    };
    let unreachable = error.is_unreachable();
    match error.verdict() {
        Verdict::TryAgain(asked) => (Outcome::Failed { why, unreachable }, Some(asked)),
        Verdict::FileRefused => (Outcome::Refused { why }, None),
        Verdict::NoneWillPass => (Outcome::Stopped { why }, None),
    }
}

fn unreadable(error: &FileError) -> Report {
    let why = error.to_string();
    let outcome = match error {
        FileError::Empty => Outcome::Refused { why },
        FileError::Unreadable(_) | FileError::Changed => Outcome::Failed {
            why,
            unreachable: false,
        },
    };
    Report {
        outcome,
        size_bytes: None,
        sha256: None,
    }
}

fn file_name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

/// An id that nobody else has.
fn random_id() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(Uuid::from_bytes(bytes).hyphenated().to_string())
}

/// A file that a person or a folder named, with what became of it.
#[derive(Clone, Debug)]
pub struct Told {
    /// The file.
    pub path: PathBuf,
    /// What became of it.
    pub report: Report,
}
