//! A drop folder: what is put there is sent, and moved out of the way.
//!
//! [`Watcher::look_once`] is the one step; [`run`] only decides when to call it. What
//! was sent is known by its content in the store, so a look may break off anywhere.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::journal::JournalError;
use super::{Outcome, Report, Told, Unheard, Uploader, walk, writers};
use crate::backoff;
use crate::domain::Timestamp;

/// Where a folder's files go once they were sent.
pub const SENT: &str = "sent";

/// Where those go that Įvesk.lt does not want.
pub const REFUSED: &str = "refused";

/// How long after one look the next one comes. A file is complete when two looks in
/// a row find it unchanged and nobody is seen to write to it.
pub const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Files on their way at once.
const PARALLEL: usize = 4;

/// How long nothing is sent after a failure that a person must fix.
const STOPPED_REST: Duration = Duration::from_secs(5 * 60);

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The folder or what lies in it can't be used.
    #[error("{}: {reason}; check that it exists and that this user may read, write and rename there", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// The system's words; part of the message, so not a source that would be told again.
        reason: io::Error,
    },
    /// Rows can't be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// What a file looked like, by which it is known to be complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    size_bytes: u64,
    modified: Option<SystemTime>,
}

impl Shape {
    fn of(path: &Path) -> io::Result<Self> {
        let about = std::fs::metadata(path)?;
        Ok(Self {
            size_bytes: about.len(),
            modified: about.modified().ok(),
        })
    }
}

/// What is remembered of a file between two looks.
#[derive(Clone, Copy, Debug)]
struct Seen {
    shape: Shape,
    failures: u32,
    not_before: Option<Timestamp>,
    /// Whether it was told that another program still writes to it.
    told_open: bool,
}

/// A drop folder and what was seen in it.
pub struct Watcher {
    folder: PathBuf,
    uploader: Uploader,
    seen: HashMap<PathBuf, Seen>,
    /// Nothing is sent before this moment: a person must fix something first.
    stopped_until: Option<Timestamp>,
}

impl Watcher {
    /// Watches `folder`, and makes `sent` and `refused` in it.
    ///
    /// # Errors
    ///
    /// Where the folder is missing or can't be written to.
    pub fn open(folder: &Path, uploader: Uploader) -> Result<Self, WatchError> {
        for name in [SENT, REFUSED] {
            let path = folder.join(name);
            let made = match std::fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                made => made,
            };
            made.map_err(|reason| WatchError::Folder { path, reason })?;
        }
        Ok(Self {
            folder: folder.to_owned(),
            uploader,
            seen: HashMap::new(),
            stopped_until: None,
        })
    }

    /// Looks once: sends the files that did not change since the last look, and moves
    /// those that are dealt with. Gives what became of each that was tried.
    ///
    /// # Errors
    ///
    /// Where the folder can't be read, a file can't be moved, or rows can't be kept.
    pub async fn look_once(&mut self) -> Result<Vec<Told>, WatchError> {
        let complete = self.complete()?;
        if self.stopped_until.is_some_and(|until| until > self.now()) {
            return Ok(Vec::new());
        }
        let complete = self.let_go(complete).await;
        let uploader = &self.uploader;
        let reports: Vec<(PathBuf, Result<Report, JournalError>)> = stream::iter(complete)
            .map(|path| async move {
                let report = uploader.upload(&path, Arc::new(Unheard)).await;
                (path, report)
            })
            .buffer_unordered(PARALLEL)
            .collect()
            .await;
        let mut told = Vec::new();
        // Each is dealt with, also after one that can't be: it was sent all the same.
        let mut failure = None;
        for (path, report) in reports {
            let settled = match report {
                Ok(report) => {
                    let settled = self.settle(&path, &report.outcome);
                    told.push(Told { path, report });
                    settled
                }
                Err(error) => Err(error.into()),
            };
            failure = failure.or(settled.err());
        }
        failure.map_or(Ok(told), Err)
    }

    fn now(&self) -> Timestamp {
        self.uploader.clock().now()
    }

    /// The files that are complete and due, oldest first.
    fn complete(&mut self) -> Result<Vec<PathBuf>, WatchError> {
        let now = self.now();
        let mut here = HashMap::new();
        let mut complete = Vec::new();
        for path in self.files()? {
            // What is gone again was never complete.
            let Ok(shape) = Shape::of(&path) else {
                continue;
            };
            let before = self.seen.get(&path).filter(|seen| seen.shape == shape);
            let due = before.is_some_and(|seen| seen.not_before.is_none_or(|at| at <= now));
            // Programs make a file first and fill it later.
            if due && shape.size_bytes > 0 {
                complete.push((shape.modified, path.clone()));
            }
            let seen = before.copied().unwrap_or(Seen {
                shape,
                failures: 0,
                not_before: None,
                told_open: false,
            });
            here.insert(path, seen);
        }
        self.seen = here;
        complete.sort();
        Ok(complete.into_iter().map(|(_, path)| path).collect())
    }

    /// Those of `complete` that no program is seen to write to any more. Says once of
    /// each other one that it waits, since its program may never let it go.
    async fn let_go(&mut self, complete: Vec<PathBuf>) -> Vec<PathBuf> {
        if complete.is_empty() {
            return complete;
        }
        let looking = tokio::task::spawn_blocking(move || {
            let written = writers::being_written(&complete);
            (complete, written)
        });
        // Where looking breaks off, the next look tries again.
        let (mut complete, written) = looking.await.unwrap_or_default();
        complete.retain(|path| !written.contains(path));
        for path in written {
            if let Some(seen) = self.seen.get_mut(&path)
                && !std::mem::replace(&mut seen.told_open, true)
            {
                let name = shown(&path);
                info!("`{name}` waits until the program that has it open for writing closes it");
            }
        }
        complete
    }

    fn files(&self) -> Result<Vec<PathBuf>, WatchError> {
        let failed = |reason| WatchError::Folder {
            path: self.folder.clone(),
            reason,
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if is_file && !walk::is_passed_over(&entry.file_name().to_string_lossy()) {
                files.push(entry.path());
            }
        }
        Ok(files)
    }

    fn settle(&mut self, path: &Path, outcome: &Outcome) -> Result<(), WatchError> {
        let now = self.now();
        match outcome {
            Outcome::Sent { id } | Outcome::AlreadySent { id } => {
                self.put_away(path, SENT, None)?;
                let name = shown(path);
                info!(upload = id, "`{name}` was sent as upload {id}");
            }
            Outcome::Refused { why } => {
                self.put_away(path, REFUSED, Some(why))?;
                let name = shown(path);
                warn!("`{name}` was refused and lies in `{REFUSED}` with a note beside it: {why}");
            }
            Outcome::Failed { why, .. } => {
                let rest = self.rest(path, now);
                let name = shown(path);
                warn!("`{name}` did not get there and is tried again in {rest:?}: {why}");
            }
            Outcome::Busy { until } => {
                if let Some(seen) = self.seen.get_mut(path) {
                    seen.not_before = Some(*until);
                }
            }
            Outcome::Stopped { why } => {
                // Several files at once find out the same.
                if self.stopped_until.is_none_or(|until| until <= now) {
                    error!(
                        "nothing is uploaded from {} for {STOPPED_REST:?}: {why}",
                        self.folder.display()
                    );
                }
                self.stopped_until = Some(now.after(STOPPED_REST));
            }
        }
        Ok(())
    }

    fn rest(&mut self, path: &Path, now: Timestamp) -> Duration {
        let Some(seen) = self.seen.get_mut(path) else {
            return backoff::DROP_FOLDER.first;
        };
        let rest = backoff::DROP_FOLDER.delay(seen.failures, 0.0);
        seen.failures += 1;
        seen.not_before = Some(now.after(rest));
        rest
    }

    /// Moves a file into a folder beside it, under a name that is free there; a note
    /// goes first, so that no file lies there without one.
    fn put_away(&mut self, path: &Path, to: &str, note: Option<&str>) -> Result<(), WatchError> {
        let failed = |path: &Path, reason| WatchError::Folder {
            path: path.to_owned(),
            reason,
        };
        let shape = Shape::of(path).map_err(|reason| failed(path, reason))?;
        if self.seen.get(path).is_none_or(|seen| seen.shape != shape) {
            // Somebody put another file there meanwhile: that one is looked at anew.
            self.seen.remove(path);
            return Ok(());
        }
        let target = free_name(&self.folder.join(to), path);
        if let Some(note) = note {
            let beside = note_path(&target);
            let text = format!(
                "{}\n\nTried at {}. Put the file back into the folder above to try again.\n",
                note,
                self.now()
            );
            std::fs::write(&beside, text).map_err(|reason| failed(&beside, reason))?;
        }
        std::fs::rename(path, &target).map_err(|reason| failed(path, reason))?;
        self.seen.remove(path);
        Ok(())
    }
}

fn shown(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn note_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".txt");
    PathBuf::from(name)
}

/// `name.pdf`, or `name-2.pdf` and so on where that is taken.
fn free_name(folder: &Path, path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let first = folder.join(name);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let end = path
        .extension()
        .map(|end| format!(".{}", end.to_string_lossy()))
        .unwrap_or_default();
    let taken = |path: &PathBuf| path.exists() || note_path(path).exists();
    if !taken(&first) {
        return first;
    }
    (2u64..)
        .map(|number| folder.join(format!("{stem}-{number}{end}")))
        .find(|path| !taken(path))
        .unwrap_or(first)
}

/// How long a file on its way may still take once it is time to stop.
const LAST_CALL: Duration = Duration::from_secs(5);

/// Looks every `every` until `stop` is canceled; files on their way have a few seconds
/// then, and what does not get through is sent anew after the next start. `tell` hears of
/// each look.
pub async fn run(
    mut watcher: Watcher,
    every: Duration,
    stop: CancellationToken,
    mut tell: impl FnMut(Vec<Told>) + Send,
) {
    let mut in_trouble = false;
    while !stop.is_cancelled() {
        let last_call = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST_CALL).await;
        };
        let look = tokio::select! {
            look = watcher.look_once() => look,
            () = last_call => break,
        };
        match look {
            Ok(told) => {
                in_trouble = false;
                tell(told);
            }
            Err(error) if !in_trouble => {
                in_trouble = true;
                error!("the drop folder can't be worked on: {error}");
            }
            // Told already.
            Err(_) => {}
        }
        stop.run_until_cancelled(tokio::time::sleep(every)).await;
    }
    if let Err(error) = watcher.uploader.abandon().await {
        warn!("an upload that was cut off is tried again only when its claim ends: {error}");
    }
}
