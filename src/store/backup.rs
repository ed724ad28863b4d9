//! The file of a backup: a name in one folder, where nobody else can get in between.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::StoreError;
use crate::config::{StoreConfig, StoreUrl};
use crate::domain::Timestamp;
use crate::file_names::component;
use crate::private_files::{FOLDER_MODE, create_dir_all, create_new, give_to_owner_of_folder};

/// Longest name of a backup, in bytes: its temporary name is longer.
const MAX_NAME_BYTES: usize = 200;
/// Ending of an unfinished backup; its name begins with a dot, as no backup's does.
const PARTIAL: &str = ".partial";
/// Begin and end of the names of automatic backups; between them are the database's name and the moment.
const AUTOMATIC: &str = "auto-";
const ENDING: &str = ".db";
/// Longest name of a database in the names of its backups, in bytes.
const MAX_DATABASE_BYTES: usize = 100;
/// Time after a backup within which older ones may still be removed.
const REMOVING: Duration = Duration::from_secs(10 * 60);
/// Others may write there, and nothing keeps them from replacing files of this user.
const WRITABLE_BY_OTHERS: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Where a backup is written.
#[derive(Clone, Debug)]
pub struct BackupFile {
    folder: PathBuf,
    name: OsString,
    replace: bool,
    /// True if it is beside the store: who may write there can replace the store itself.
    is_beside_store: bool,
}

impl BackupFile {
    /// Returns the file `name` in `folder`, which is created if it is missing. With `replace` an
    /// existing file is replaced.
    ///
    /// # Errors
    ///
    /// [`StoreError::BackupName`] if `name` is not the name of a visible file: a path, for
    /// example.
    pub fn named(folder: &Path, name: &str, replace: bool) -> Result<Self, StoreError> {
        if component(name, MAX_NAME_BYTES) != name {
            return Err(StoreError::BackupName {
                name: name.to_owned(),
            });
        }
        Ok(Self {
            folder: folder.to_owned(),
            name: name.into(),
            replace,
            is_beside_store: false,
        })
    }

    /// Returns the file beside the database at `database` whose name has `ending` added. With
    /// `replace` an existing one is replaced.
    pub(super) fn beside(database: &Path, ending: &str, replace: bool) -> Self {
        let mut name = database.file_name().unwrap_or_default().to_owned();
        name.push(ending);
        let folder = match database.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        Self {
            folder: folder.to_owned(),
            name,
            replace,
            is_beside_store: true,
        }
    }

    /// Returns the file's path.
    pub fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    /// Creates an unfinished file that only this user may read, or the owner of its folder if this
    /// is root.
    ///
    /// # Errors
    ///
    /// [`StoreError::BackupExists`], [`StoreError::BackupRunning`], or
    /// [`StoreError::NotAccessible`] if the folder or the file to replace is not safe to use.
    pub(super) fn create(&self) -> Result<Partial, StoreError> {
        let failed = |error: io::Error| not_accessible(&self.folder, &error.to_string());
        create_folder(&self.folder).map_err(failed)?;
        let path = self.folder.canonicalize().map_err(failed)?;
        let folder = File::open(&path).map_err(failed)?;
        let mode = folder.metadata().map_err(failed)?.mode();
        if !self.is_beside_store && mode & WRITABLE_BY_OTHERS != 0 && mode & STICKY == 0 {
            return Err(not_accessible(
                &self.folder,
                "every user of this machine may write there, and could replace a backup while it \
                 is written; remove that permission (chmod o-w), or name another folder in \
                 `store.backup_dir`",
            ));
        }
        let to = path.join(&self.name);
        match to.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(not_accessible(&to, &error.to_string())),
            Ok(_) if !self.replace => return Err(StoreError::BackupExists { path: to }),
            Ok(existing) if existing.is_file() => {}
            Ok(_) => {
                return Err(not_accessible(
                    &to,
                    "it is not a regular file, and only such are replaced; choose another name",
                ));
            }
        }
        match folder.try_lock() {
            // What is unfinished there, a crash has left behind.
            Ok(()) => remove_partials(&path).map_err(failed)?,
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::BackupRunning { folder: path });
            }
            // Some network file systems can't lock folders.
            Err(TryLockError::Error(_)) => {}
        }
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| failed(io::Error::other(error)))?;
        let random = u64::from_ne_bytes(random);
        let partial = path.join(format!(".{random:016x}{PARTIAL}"));
        let file = create_new(&partial).map_err(failed)?;
        // Removed again if it can't be given away.
        let created = Partial {
            file,
            path: partial,
            to,
            folder,
        };
        give_to_owner_of_folder(&created.path).map_err(failed)?;
        Ok(created)
    }
}

/// An unfinished backup, removed on drop. Its folder is locked against other backups.
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    to: PathBuf,
    folder: File,
}

impl Partial {
    /// Returns the path to write to: an empty file, whose folder's path has no links.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs the file and gives it its name.
    pub(super) fn finish(self) -> Result<(), StoreError> {
        let finished = self
            .file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.path, &self.to))
            .and_then(|()| self.folder.sync_all());
        finished.map_err(|error| not_accessible(&self.to, &error.to_string()))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Once it is finished there is no such file.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Creates a folder of backups; what root creates belongs to the owner of the folder that it is in.
fn create_folder(path: &Path) -> io::Result<()> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    create_dir_all(path, FOLDER_MODE)?;
    missing
        .into_iter()
        .rev()
        .try_for_each(give_to_owner_of_folder)
}

/// Returns a moment as it is in names of files, such as `20261128T174200Z`.
pub(super) fn stamp(moment: Timestamp) -> String {
    let text = moment.to_string();
    let seconds = text.get(..19).unwrap_or(&text);
    let digits = seconds.chars().filter(|c| !matches!(c, '-' | ':'));
    digits.chain(['Z']).collect()
}

/// The automatic backups of one database. Their names hold that of its file, so that databases whose
/// backups are in one folder do not count and remove each other's.
#[derive(Clone, Debug)]
pub struct AutomaticBackups {
    folder: PathBuf,
    /// What their names begin with.
    prefix: String,
}

impl AutomaticBackups {
    /// Returns those that the settings describe.
    pub fn of(settings: &StoreConfig) -> Self {
        let database = match &settings.url {
            StoreUrl::Sqlite(file) => file.file_stem().unwrap_or_default().to_string_lossy(),
            // Its own tools back it up.
            StoreUrl::Postgres(_) => "postgres".into(),
        };
        let database = component(&database, MAX_DATABASE_BYTES);
        Self {
            folder: settings.backup_dir.clone(),
            prefix: format!("{AUTOMATIC}{database}-"),
        }
    }

    /// Returns the file of the backup of this moment.
    pub fn file(&self, now: Timestamp) -> BackupFile {
        BackupFile {
            folder: self.folder.clone(),
            name: format!("{}{}{ENDING}", self.prefix, stamp(now)).into(),
            replace: false,
            is_beside_store: false,
        }
    }

    /// Returns the newest one with its moment; `None` if there is none. One whose moment is after
    /// `now` is of a clock that was wrong, and does not count.
    ///
    /// # Errors
    ///
    /// If the folder can't be read.
    pub fn newest(&self, now: Timestamp) -> io::Result<Option<(Timestamp, PathBuf)>> {
        let mut backups = self.all()?;
        backups.retain(|(at, _)| *at <= now);
        Ok(backups.pop())
    }

    /// Returns how many there are beyond `keep`, though the newest was written a while ago: old ones
    /// can't be removed.
    ///
    /// # Errors
    ///
    /// If the folder can't be read.
    pub fn not_removed(&self, keep: usize, now: Timestamp) -> io::Result<usize> {
        let mut backups = self.all()?;
        backups.retain(|(at, _)| *at <= now);
        let settled = backups
            .last()
            .is_some_and(|(at, _)| now.since(*at) > REMOVING);
        Ok(match settled {
            true => backups.len().saturating_sub(keep),
            false => 0,
        })
    }

    /// Removes all but the newest `keep`, and never `written`, the newest one that was written at or
    /// before `now`. Those of a later moment are the first to go: a clock was wrong.
    ///
    /// # Errors
    ///
    /// If the folder can't be read, or one can't be removed; the others are removed all the same.
    pub fn remove_old(&self, keep: usize, written: &Path, now: Timestamp) -> io::Result<usize> {
        let mut backups = self.all()?;
        backups.retain(|(_, path)| path.file_name() != written.file_name());
        backups.sort_by_key(|(at, _)| *at <= now);
        let old = backups.len().saturating_sub(keep.saturating_sub(1));
        let mut removed = 0;
        let mut failure = None;
        for (_, path) in backups.drain(..old) {
            match std::fs::remove_file(&path) {
                Ok(()) => removed += 1,
                Err(error) => {
                    let named = format!("{}: {error}", path.display());
                    failure.get_or_insert(io::Error::new(error.kind(), named));
                }
            }
        }
        failure.map_or(Ok(removed), Err)
    }

    /// Returns all with their moments, oldest first; none if the folder does not exist.
    fn all(&self) -> io::Result<Vec<(Timestamp, PathBuf)>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let moment = name.to_str().and_then(|name| self.moment_of(name));
            if let Some(moment) =
                moment.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_file()))
            {
                found.push((moment, entry.path()));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Returns the moment in the name of one; `None` for any other name.
    fn moment_of(&self, name: &str) -> Option<Timestamp> {
        let text = name.strip_prefix(&self.prefix)?.strip_suffix(ENDING)?;
        let part = |range| text.get(range);
        let moment = Timestamp::parse(&format!(
            "{}-{}-{}T{}:{}:{}Z",
            part(0..4)?,
            part(4..6)?,
            part(6..8)?,
            part(9..11)?,
            part(11..13)?,
            part(13..15)?
        ))?;
        (stamp(moment) == text).then_some(moment)
    }
}

/// Checks that the disk of `folder` has room for a backup of the database at `path`, and that enough
/// stays free for the database itself, which may be on the same disk.
///
/// # Errors
///
/// If it has not.
pub fn check_room_for_backup(path: &Path, folder: &Path, min_free: u64) -> Result<(), StoreError> {
    let length = |path: PathBuf| path.metadata().map_or(0, |file| file.len());
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let size = length(path.to_owned()).saturating_add(length(log.into()));
    let needed = size.saturating_add(min_free.saturating_mul(2));
    let here = Path::new(".");
    let existing = folder.ancestors().find(|folder| folder.exists());
    let disk = rustix::fs::statvfs(existing.unwrap_or(here))
        .map_err(|error| not_accessible(folder, &error.to_string()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= needed {
        return Ok(());
    }
    let mib = |bytes: u64| bytes >> 20;
    Err(not_accessible(
        folder,
        &format!(
            "its disk has {} MiB free, and an automatic backup needs {} MiB: the size of the database, and twice \
             `store.min_free_bytes`; free some space, or name another disk in `store.backup_dir`",
            mib(free),
            mib(needed).saturating_add(1)
        ),
    ))
}

/// Removes unfinished backups, and what SQLite put beside them.
fn remove_partials(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.contains(PARTIAL) && entry.file_type()?.is_file() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn not_accessible(path: &Path, detail: &str) -> StoreError {
    StoreError::NotAccessible {
        path: path.to_owned(),
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backups(folder: &Path, database: &str) -> AutomaticBackups {
        AutomaticBackups::of(&StoreConfig {
            url: StoreUrl::Sqlite(Path::new("/srv").join(database)),
            backup_dir: folder.to_owned(),
            ..StoreConfig::default()
        })
    }

    #[test]
    fn the_moment_of_an_automatic_backup_is_in_its_name() {
        let moment = Timestamp::parse("2026-11-28T17:42:05Z").expect("a moment");
        let of = backups(Path::new("backups"), "ivesk.db");
        assert_eq!(
            of.file(moment).path(),
            Path::new("backups/auto-ivesk-20261128T174205Z.db")
        );
        assert_eq!(of.moment_of("auto-ivesk-20261128T174205Z.db"), Some(moment));
        for other in [
            "auto-ivesk-.db",
            "auto-20261128T174205Z.db",
            "auto-other-20261128T174205Z.db",
            "auto-ivesk-2-20261128T174205Z.db",
            "auto-ivesk-20261128T174205Z.db.old",
            "ivesk.db",
            "auto-ivesk-20269928T174205Z.db",
            "auto-ivesk-ąąąąąąąąąąąąąąąą.db",
        ] {
            assert_eq!(of.moment_of(other), None, "{other}");
        }
    }

    #[test]
    fn pruning_keeps_what_was_just_written_and_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let now = Timestamp::parse("2026-11-28T17:42:05Z").expect("a moment");
        let names = [
            "auto-ivesk-20261126T000000Z.db",
            "auto-ivesk-20261127T000000Z.db",
            "auto-ivesk-20271127T000000Z.db",
            "auto-ivesk-20281127T000000Z.db",
            // Of another service.
            "auto-ivesk-2-20261126T000000Z.db",
        ];
        for name in names {
            drop(create_new(&path(name)).expect("created"));
        }
        let of = backups(folder.path(), "ivesk.db");
        let written = of.file(now).path();
        drop(create_new(&written).expect("created"));
        let newest = of.newest(now).expect("readable");
        assert_eq!(newest.expect("there is one").1, written);
        let removed = of.remove_old(2, &written, now).expect("removed");
        assert_eq!(removed, 3, "the two of the future, and the oldest");
        assert!(written.exists() && path(names[1]).exists() && path(names[4]).exists());
        let removed = of.remove_old(1, &written, now).expect("removed");
        assert_eq!((removed, written.exists()), (1, true));
        assert!(path(names[4]).exists());
    }

    #[test]
    fn backups_that_stay_are_counted_after_a_while() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = backups(folder.path(), "ivesk.db");
        let first = Timestamp::parse("2026-11-28T17:42:05Z").expect("a moment");
        for minutes in 0..3_u64 {
            let at = first.after(Duration::from_secs(60 * minutes));
            drop(create_new(&of.file(at).path()).expect("created"));
        }
        let count = |keep, minutes: u64| {
            let now = first.after(Duration::from_secs(60 * minutes));
            of.not_removed(keep, now).expect("readable")
        };
        assert_eq!(
            [count(2, 3), count(2, 13), count(3, 13)],
            [0, 1, 0],
            "soon after the newest one, they may still be removed"
        );
    }
}
