//! A drop folder: its files are uploaded and moved to another folder.
//!
//! [`Watcher::scan`] is the one step; [`run`] decides when to call it. The store knows the content
//! that was sent, so a scan may stop anywhere.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::journal::JournalError;
use super::{FileReport, NoProgress, UploadOutcome, UploadReport, Uploader, ending, walk, writers};
use crate::backoff;
use crate::domain::Timestamp;
use crate::file_names;
use crate::private_files::Dir;
use crate::visible::visible;

/// Ending of the name of a note, which follows the refused file's name.
const NOTE: &str = ".txt";

/// Folder for files that were sent.
pub const SENT: &str = "sent";

/// Folder for files that Įvesk.lt refused.
pub const REFUSED: &str = "refused";

/// Interval of scans. A file is complete if it did not change for the quiet time of the settings,
/// and between two scans, and no program is known to write to it.
pub const SCAN_INTERVAL: Duration = Duration::from_secs(3);

/// Time for which a PDF without its last line must not change: its writer may still be at work.
/// After that it is sent as it is, since some programs write such files.
pub const UNFINISHED_WAIT: Duration = Duration::from_secs(5 * 60);

/// Time for which a file that was moved to [`SENT`] is watched, in case its writer goes on.
const SENT_WATCH: Duration = Duration::from_secs(60 * 60);

/// Most files in [`SENT`] that are watched.
const MAX_SENT_WATCHED: usize = 10_000;

/// Attempts at a file for whose name the vendor gives no location, before it is refused: once it has
/// given one for another name meanwhile.
const MAX_WITHOUT_LOCATION: u32 = 3;

/// Uploads at once.
const MAX_CONCURRENCY: usize = 4;

/// Pause of the folder after a failure that a person must fix.
const STOPPED_PAUSE: Duration = Duration::from_secs(5 * 60);

/// Time for uploads in progress to complete once the watcher is stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// An error of a scan.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The folder or a file in it can't be used.
    #[error("{}: {reason}; check that it exists and that this user may read, write and rename there", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// The system's error; part of the message, so not a source that would be printed again.
        reason: io::Error,
    },
    /// A row can't be stored.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Size and time of a file, which change while it is written. Not its number: some network file
/// systems give a file another number at each look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    size_bytes: u64,
    modified: Option<SystemTime>,
}

impl FileStamp {
    /// Returns the stamp of what has this name, also of a link.
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::symlink_metadata(path)?;
        Ok(Self {
            size_bytes: metadata.len(),
            modified: metadata.modified().ok(),
        })
    }
}

/// The state of a file between two scans.
#[derive(Clone, Copy, Debug)]
struct WatchedFile {
    stamp: FileStamp,
    /// When a scan first found it with this stamp.
    since: Timestamp,
    failures: u32,
    without_location: NameFailures,
    wait: Option<Wait>,
    /// True once the log says why it waits.
    logged_wait: bool,
}

/// Attempts at a file for whose name the vendor gave no location.
#[derive(Clone, Copy, Debug, Default)]
struct NameFailures {
    count: u32,
    /// How many locations the vendor had given before the first one.
    given_before: u64,
}

impl NameFailures {
    /// Counts one; returns true if it is the name: others got a location meanwhile. `given` is how
    /// many locations the vendor has given.
    fn add(&mut self, given: u64) -> bool {
        if self.count == 0 {
            self.given_before = given;
        }
        self.count += 1;
        self.count >= MAX_WITHOUT_LOCATION && given > self.given_before
    }
}

/// A wait from one moment to another.
#[derive(Clone, Copy, Debug)]
struct Wait {
    since: Timestamp,
    until: Timestamp,
}

impl Wait {
    /// Returns true unless the wait is over, or began while the clock was ahead.
    fn lasts(self, now: Timestamp) -> bool {
        backoff::rest_since(Some(self.since), Some(self.until), now).is_some()
    }
}

/// A file that was moved to [`SENT`].
#[derive(Clone, Copy, Debug)]
struct SentFile {
    stamp: FileStamp,
    until: Timestamp,
}

/// A drop folder, and the state of its files.
pub struct Watcher {
    folder: PathBuf,
    quiet: Duration,
    uploader: Uploader,
    files: HashMap<PathBuf, WatchedFile>,
    sent: BTreeMap<OsString, SentFile>,
    /// Nothing is sent for this time: a person must fix something first.
    stopped: Option<Wait>,
}

impl Watcher {
    /// Creates a watcher for `folder`, with the folders [`SENT`] and [`REFUSED`] in it. They have
    /// the permissions of `folder`, since who puts files there should see how they ended. A file
    /// is sent once it did not change for `quiet`.
    ///
    /// # Errors
    ///
    /// If the folder is missing or not writable.
    pub fn open(folder: &Path, quiet: Duration, uploader: Uploader) -> Result<Self, WatchError> {
        let failed = |reason| WatchError::Folder {
            path: folder.to_owned(),
            reason,
        };
        let opened = Dir::open(folder).map_err(failed)?;
        for name in [SENT, REFUSED] {
            made_inside(&opened, name).map_err(failed)?;
        }
        Ok(Self {
            folder: folder.to_owned(),
            quiet,
            uploader,
            files: HashMap::new(),
            sent: BTreeMap::new(),
            stopped: None,
        })
    }

    /// Uploads the files that are complete, moves those that are done, and returns a report for
    /// each file that was tried.
    ///
    /// # Errors
    ///
    /// If the folder can't be read, a file can't be moved, or a row can't be stored.
    pub async fn scan(&mut self) -> Result<Vec<FileReport>, WatchError> {
        self.bring_back_changed()?;
        let complete = self.complete_files()?;
        if self.is_stopped(self.now()) {
            return Ok(Vec::new());
        }
        let complete = self.without_unfinished(complete).await;
        let uploader = &self.uploader;
        let results: Vec<(PathBuf, Result<UploadReport, JournalError>)> = stream::iter(complete)
            .map(|path| async move {
                let report = uploader.upload(&path, Arc::new(NoProgress)).await;
                (path, report)
            })
            .buffer_unordered(MAX_CONCURRENCY)
            .collect()
            .await;
        let mut reports = Vec::new();
        // All are settled, also those after a failure: they were sent all the same.
        let mut failure = None;
        for (path, result) in results {
            let settled = match result {
                Ok(report) => {
                    let settled = self.settle(&path, &report.outcome);
                    reports.push(FileReport { path, report });
                    settled
                }
                Err(error) => Err(error.into()),
            };
            failure = failure.or(settled.err());
        }
        failure.map_or(Ok(reports), Err)
    }

    fn now(&self) -> Timestamp {
        self.uploader.clock().now()
    }

    fn is_stopped(&self, now: Timestamp) -> bool {
        self.stopped.is_some_and(|wait| wait.lasts(now))
    }

    /// Returns the files that are complete and due, oldest first.
    fn complete_files(&mut self) -> Result<Vec<PathBuf>, WatchError> {
        let now = self.now();
        let mut files = HashMap::new();
        let mut complete = Vec::new();
        for path in self.list()? {
            // A file that is gone again was never complete.
            let Ok(stamp) = FileStamp::of(&path) else {
                continue;
            };
            let before = self.files.get(&path).filter(|file| file.stamp == stamp);
            let due = before.is_some_and(|file| {
                now.since(file.since) >= self.quiet
                    && !file.wait.is_some_and(|wait| wait.lasts(now))
            });
            // Programs create a file first and fill it later.
            if due && stamp.size_bytes > 0 {
                complete.push((stamp.modified, path.clone()));
            }
            let file = before.copied().unwrap_or(WatchedFile {
                stamp,
                since: now,
                failures: 0,
                without_location: NameFailures::default(),
                wait: None,
                logged_wait: false,
            });
            // A clock that was ahead delays nothing.
            let since = file.since.min(now);
            files.insert(path, WatchedFile { since, ..file });
        }
        self.files = files;
        complete.sort();
        Ok(complete.into_iter().map(|(_, path)| path).collect())
    }

    /// Returns the files of `complete` that no program is known to write to, and that are no PDF
    /// without its end. Logs once for each other file that it waits, since its program may never
    /// close it.
    async fn without_unfinished(&mut self, complete: Vec<PathBuf>) -> Vec<PathBuf> {
        if complete.is_empty() {
            return complete;
        }
        let now = self.now();
        let waited = |file: &WatchedFile| now.since(file.since) >= UNFINISHED_WAIT;
        let young: Vec<PathBuf> = complete
            .iter()
            .filter(|path| self.files.get(*path).is_some_and(|file| !waited(file)))
            .cloned()
            .collect();
        let check = tokio::task::spawn_blocking(move || {
            let open = writers::open_for_writing(&complete);
            let cut: Vec<PathBuf> = young
                .into_iter()
                .filter(|path| ending::is_cut_pdf(path))
                .collect();
            (complete, open, cut)
        });
        // If the check fails, the next scan repeats it.
        let (mut complete, open, cut) = check.await.unwrap_or_default();
        complete.retain(|path| !open.contains(path) && !cut.contains(path));
        for path in open {
            if self.logs_wait(&path) {
                let name = shown(&path);
                info!("`{name}` waits until the program that has it open for writing closes it");
            }
        }
        for path in cut {
            if self.logs_wait(&path) {
                let name = shown(&path);
                info!(
                    "`{name}` waits: a PDF ends with %%EOF, and this one does not. It is sent as it is if it does not \
                     change for {UNFINISHED_WAIT:?}"
                );
            }
        }
        complete
    }

    /// Returns true the first time that a file waits.
    fn logs_wait(&mut self, path: &Path) -> bool {
        let file = self.files.get_mut(path);
        file.is_some_and(|file| !std::mem::replace(&mut file.logged_wait, true))
    }

    /// Moves files that were written to after they were sent from [`SENT`] back to the folder:
    /// only a part of them was sent.
    fn bring_back_changed(&mut self) -> Result<(), WatchError> {
        let now = self.now();
        self.sent.retain(|_, file| file.until > now);
        let sent = self.folder.join(SENT);
        let changed: Vec<OsString> = self
            .sent
            .iter()
            // A file that somebody removed is no longer watched once its time is over.
            .filter(|(name, file)| {
                FileStamp::of(&sent.join(name)).is_ok_and(|stamp| stamp != file.stamp)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in changed {
            self.sent.remove(&name);
            let path = sent.join(&name);
            let failed = |reason| WatchError::Folder {
                path: path.clone(),
                reason,
            };
            Dir::open(&self.folder)
                .and_then(|folder| move_to(&folder.child(SENT)?, &name, &folder, None))
                .map_err(failed)?;
            let name = shown(&path);
            warn!(
                "`{name}` was written to after it was uploaded, so only a part of it was. It is back in the folder, and \
                 uploaded again once it is complete. Check that Įvesk.lt does not keep both; a longer \
                 `upload.quiet_time` prevents this"
            );
        }
        Ok(())
    }

    fn list(&self) -> Result<Vec<PathBuf>, WatchError> {
        let failed = |reason| WatchError::Folder {
            path: self.folder.clone(),
            reason,
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if is_file && !walk::is_ignored(&entry.file_name().to_string_lossy()) {
                files.push(entry.path());
            }
        }
        Ok(files)
    }

    fn settle(&mut self, path: &Path, outcome: &UploadOutcome) -> Result<(), WatchError> {
        let now = self.now();
        match outcome {
            UploadOutcome::Sent { id } | UploadOutcome::AlreadySent { id } => {
                if let Some((name, stamp)) = self.move_away(path, SENT, None)?
                    && self.sent.len() < MAX_SENT_WATCHED
                {
                    let until = now.after(SENT_WATCH);
                    self.sent.insert(name, SentFile { stamp, until });
                }
                let name = shown(path);
                info!(upload = id, "`{name}` was sent as upload {id}");
            }
            UploadOutcome::Refused { error } => {
                self.move_away(path, REFUSED, Some(error))?;
                let name = shown(path);
                warn!(
                    "`{name}` was refused and moved to `{REFUSED}` with a note beside it: {error}"
                );
            }
            UploadOutcome::NoLocation { error } => {
                if !self.refuse_name(path, error)? {
                    let wait = self.wait(path, now, None);
                    let name = shown(path);
                    warn!("failed to upload `{name}`; it is retried in {wait:?}: {error}");
                }
            }
            UploadOutcome::Failed {
                error, retry_after, ..
            } => {
                let wait = self.wait(path, now, *retry_after);
                let name = shown(path);
                warn!("failed to upload `{name}`; it is retried in {wait:?}: {error}");
            }
            UploadOutcome::Busy { until } => {
                if let Some(file) = self.files.get_mut(path) {
                    let (since, until) = (now, *until);
                    file.wait = Some(Wait { since, until });
                }
            }
            UploadOutcome::Stopped {
                error,
                without_location,
            } => {
                if *without_location && self.refuse_name(path, error)? {
                    return Ok(());
                }
                // Several files may fail at once for the same reason.
                if !self.is_stopped(now) {
                    error!(
                        "uploads from {} are paused for {STOPPED_PAUSE:?}: {error}",
                        self.folder.display()
                    );
                }
                let (since, until) = (now, now.after(STOPPED_PAUSE));
                self.stopped = Some(Wait { since, until });
            }
        }
        Ok(())
    }

    /// Counts an attempt at a file for whose name the vendor gives no location. If others got one
    /// meanwhile, and it was tried often enough, the file is refused; returns true then.
    fn refuse_name(&mut self, path: &Path, error: &str) -> Result<bool, WatchError> {
        let given = self.uploader.locations_given();
        let file = self.files.get_mut(path);
        if !file.is_some_and(|file| file.without_location.add(given)) {
            return Ok(false);
        }
        let note = format!(
            "Įvesk.lt gives no upload location for this name, and does for others; rename the file: {error}"
        );
        self.move_away(path, REFUSED, Some(&note))?;
        let name = shown(path);
        warn!("`{name}` was refused and moved to `{REFUSED}` with a note beside it: {note}");
        Ok(true)
    }

    /// Counts a failure of a file, and returns the wait before its next attempt: at least
    /// `retry_after`.
    fn wait(&mut self, path: &Path, now: Timestamp, retry_after: Option<Duration>) -> Duration {
        let Some(file) = self.files.get_mut(path) else {
            return backoff::DROP_FOLDER.first;
        };
        let wait = backoff::DROP_FOLDER.delay(file.failures, 0.0);
        let wait = wait.max(retry_after.unwrap_or_default());
        file.failures += 1;
        let (since, until) = (now, now.after(wait));
        file.wait = Some(Wait { since, until });
        wait
    }

    /// Moves a file to the folder `to`, under a name that is free there; returns that name and the
    /// stamp with which it was tried. A note is written first, so that no file is there without one.
    fn move_away(
        &mut self,
        path: &Path,
        to: &str,
        note: Option<&str>,
    ) -> Result<Option<(OsString, FileStamp)>, WatchError> {
        let failed = |reason| WatchError::Folder {
            path: path.to_owned(),
            reason,
        };
        let stamp = FileStamp::of(path).map_err(failed)?;
        if self.files.get(path).is_none_or(|file| file.stamp != stamp) {
            // Another file has replaced it: that one is new.
            self.files.remove(path);
            return Ok(None);
        }
        let note = note.map(|note| {
            format!(
                "{note}\n\nTried at {}. To try again, move the file back to the folder above.\n",
                self.now()
            )
        });
        let name = path.file_name().unwrap_or_default();
        let moved = Dir::open(&self.folder).and_then(|folder| {
            let target = made_inside(&folder, to)?;
            move_to(&folder, name, &target, note.as_deref())
        });
        let moved = moved.map_err(failed)?;
        self.files.remove(path);
        Ok(Some((moved, stamp)))
    }
}

/// Returns a file's name for a log or a message.
fn shown(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    visible(&name).into_owned()
}

/// Opens the folder `name` in the drop folder, and makes it again if somebody has removed it. It is
/// never a link: that could lead to files of the service.
fn made_inside(folder: &Dir, name: &str) -> io::Result<Dir> {
    let (made, _) = folder.make_child(OsStr::new(name), folder.mode()?)?;
    Ok(made)
}

/// Moves the file `name` to the folder `target` under the first free name, its note first; returns
/// that name.
fn move_to(folder: &Dir, name: &OsStr, target: &Dir, note: Option<&str>) -> io::Result<OsString> {
    for number in 1_u64.. {
        let new = numbered(name, number);
        let note_name = note_name(&new);
        if target.about(&new)?.is_some() || target.about(&note_name)?.is_some() {
            continue;
        }
        let Some(note) = note else {
            return folder.rename(name, target, &new).map(|()| new);
        };
        let mut file = match target.create_new(&note_name) {
            Ok(file) => file,
            // Somebody was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        };
        let moved = file
            .write_all(note.as_bytes())
            // Who may read the refused file may read why.
            .and_then(|()| folder.copy_mode(name, &file))
            .and_then(|()| folder.rename(name, target, &new));
        if moved.is_err() {
            // Only the first error is reported.
            let _ = target.remove(&note_name);
        }
        return moved.map(|()| new);
    }
    unreachable!("a folder has fewer files than there are numbers")
}

/// Returns `name.pdf` for the first, then `name-2.pdf` and so on.
fn numbered(name: &OsStr, number: u64) -> OsString {
    if number == 1 {
        return name.to_owned();
    }
    let path = Path::new(name);
    let mut end = OsString::from(format!("-{number}"));
    if let Some(extension) = path.extension() {
        end.push(".");
        end.push(extension);
    }
    with_ending(path.file_stem().unwrap_or_default(), &end)
}

/// Returns the name of a file's note.
fn note_name(name: &OsStr) -> OsString {
    with_ending(name, OsStr::new(NOTE))
}

/// Returns `name` and then `ending`, with `name` cut so that the file system accepts it.
fn with_ending(name: &OsStr, ending: &OsStr) -> OsString {
    let bytes = name.as_bytes();
    let mut room = file_names::MAX_BYTES
        .saturating_sub(ending.len())
        .min(bytes.len());
    // Not within a character of UTF-8.
    while room > 0 && bytes.get(room).is_some_and(|byte| byte & 0xc0 == 0x80) {
        room -= 1;
    }
    let mut whole = OsStr::from_bytes(&bytes[..room]).to_owned();
    whole.push(ending);
    whole
}

/// Scans every `interval` until `stop` is canceled. Uploads in progress then have a few seconds;
/// those that do not complete are sent again after the next start. `report` receives the result of
/// each scan.
pub async fn run(
    mut watcher: Watcher,
    interval: Duration,
    stop: CancellationToken,
    mut report: impl FnMut(Vec<FileReport>) + Send,
) {
    let mut is_failing = false;
    while !stop.is_cancelled() {
        let stopped = async {
            stop.cancelled().await;
            tokio::time::sleep(STOP_TIMEOUT).await;
        };
        let scan = tokio::select! {
            scan = watcher.scan() => scan,
            () = stopped => break,
        };
        match scan {
            Ok(reports) => {
                is_failing = false;
                report(reports);
            }
            Err(error) if !is_failing => {
                is_failing = true;
                error!("failed to scan the folder of `upload.watch`: {error}");
            }
            // Logged already.
            Err(_) => {}
        }
        stop.run_until_cancelled(tokio::time::sleep(interval)).await;
    }
    if let Err(error) = watcher.uploader.abandon().await {
        warn!("failed to release an upload; its file is retried when its claim ends: {error}");
    }
}
