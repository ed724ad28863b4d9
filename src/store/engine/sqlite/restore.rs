//! Restoring a backup: the file that the store had is moved aside whole, never deleted.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tracing::warn;

use super::backup::{belongs_to, copy, with_suffix};
use super::error::explain;
use super::file::FileLock;
use super::schema::schema_version;
use crate::domain::Timestamp;
use crate::store::StoreError;
use crate::store::backup::{BackupFile, stamp};
use crate::store::error::Result;
use crate::store::migrations::NEWEST;

/// Files that SQLite keeps beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Ending of the copy of a backup where files can't be exchanged.
const NEW: &str = ".new";

/// Most names of earlier databases of one second.
const MAX_REPLACED: u32 = 1_000;

/// A backup that has taken the place of the store.
#[derive(Clone, Debug)]
pub struct RestoredBackup {
    /// The newest sequence number in it.
    pub last: i64,
    /// Where the files that the store had are now; none if it had none.
    pub moved: Vec<PathBuf>,
}

/// Puts a copy of the backup `from` in the place of the database at `path`, and moves the files
/// that were there aside. The service then starts a new epoch.
///
/// # Errors
///
/// [`StoreError::InUse`] if a server runs on the database, [`StoreError::NotRestorable`] if the
/// backup can't be used. Nothing is changed then.
pub fn restore_backup(path: &Path, from: &Path, now: Timestamp) -> Result<RestoredBackup> {
    let lock = FileLock::acquire(path)?;
    let path = lock.database();
    let unusable = |detail: String| StoreError::NotRestorable {
        path: from.to_owned(),
        detail,
    };
    // A link's log is beside what it leads to.
    let source = &from
        .canonicalize()
        .map_err(|error| unusable(error.to_string()))?;
    match source.metadata() {
        Ok(file) if file.is_file() => {}
        Ok(_) => return Err(unusable("it is not a regular file".to_owned())),
        Err(error) => return Err(unusable(error.to_string())),
    }
    if belongs_to(path, source) {
        return Err(unusable("it belongs to the store itself".to_owned()));
    }
    let connection = open_immutable(source).map_err(|error| unusable(error.to_string()))?;
    let last = check(&connection, source)?;
    // The copy has the name that the earlier database gets: the two are exchanged.
    let ending = free_ending(path, now);
    let aside = with_suffix(path, &ending);
    copy(
        &connection,
        source,
        &BackupFile::beside(path, &ending, false),
    )?;
    let failed = |error: io::Error| StoreError::NotAccessible {
        path: path.to_owned(),
        detail: format!("{error}; nothing was deleted, see the files beside it"),
    };
    link_logs(path, &aside);
    let existed = put_in_place(&aside, path).map_err(|error| {
        discard_copy(path, &aside);
        failed(error)
    })?;
    let mut moved: Vec<PathBuf> = existed.then(|| aside.clone()).into_iter().collect();
    moved.extend(move_beside(path, &aside).map_err(failed)?);
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)?;
    Ok(RestoredBackup { last, moved })
}

/// Checks that a backup is whole and of this program; returns its newest sequence number.
fn check(connection: &Connection, from: &Path) -> Result<i64> {
    let unusable = |detail: String| StoreError::NotRestorable {
        path: from.to_owned(),
        detail,
    };
    let of_sqlite = |error: rusqlite::Error| unusable(error.to_string());
    let found = schema_version(connection, from).map_err(|error| match error {
        StoreError::Corrupt { detail, .. } => unusable(detail),
        other => unusable(other.to_string()),
    })?;
    if found > NEWEST {
        return Err(StoreError::NewerSchema {
            found,
            known: NEWEST,
        });
    }
    if found == 0 {
        return Err(unusable("it is not a database of ivesk-webhook".to_owned()));
    }
    let verdict: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(of_sqlite)?;
    if verdict != "ok" {
        return Err(unusable(format!("it is damaged: {verdict}")));
    }
    let (last, marked): (i64, bool) = connection
        .query_row("SELECT last, backup FROM sequence", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .map_err(of_sqlite)?;
    let names = from.metadata().map_or(1, |file| file.nlink());
    if !marked && names > 1 {
        return Err(unusable(format!(
            "it is the file of a service and has {names} names, so a part of it may be in a log beside another name; \
             write a backup with `ivesk-webhook store backup`"
        )));
    }
    let log = with_suffix(from, "-wal");
    if !marked && log.metadata().is_ok_and(|file| file.len() > 0) {
        return Err(unusable(format!(
            "a part of it is in {}; stop the service that uses it, or write a backup with `ivesk-webhook store backup`",
            log.display()
        )));
    }
    Ok(last)
}

/// Opens a file as it is, without what may be beside it, and creates nothing there.
fn open_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let path = path
        .to_str()
        .ok_or_else(|| rusqlite::Error::InvalidPath(path.to_owned()))?;
    let escaped = path
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    // A path that begins with two slashes would be a host.
    let uri = format!("file:{}?immutable=1", escaped.replace("//", "/"));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(uri, flags)
}

/// Returns the ending of a name beside the database that nothing has yet, nor a file beside that name.
fn free_ending(database: &Path, now: Timestamp) -> String {
    let first = format!(".replaced-{}", stamp(now));
    let is_free = |ending: &String| {
        let aside = with_suffix(database, ending);
        let mut suffixes = ["", NEW].iter().chain(&BESIDE);
        suffixes.all(|suffix| with_suffix(&aside, suffix).symlink_metadata().is_err())
    };
    let others = (2..MAX_REPLACED).map(|number| format!("{first}-{number}"));
    let mut endings = std::iter::once(first.clone()).chain(others);
    endings.find(is_free).unwrap_or(first)
}

/// Gives the log of a database a second name beside `aside`, so that the database has its log
/// under either name, whenever a crash comes.
fn link_logs(database: &Path, aside: &Path) {
    for suffix in BESIDE {
        // Where there are no links, it is moved later.
        let _ = std::fs::hard_link(with_suffix(database, suffix), with_suffix(aside, suffix));
    }
}

/// Puts the file `restored` in the place of the database, which gets the name `restored`; returns
/// true if there was one. At no moment there is none.
fn put_in_place(restored: &Path, database: &Path) -> io::Result<bool> {
    match renameat_with(CWD, restored, CWD, database, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => rename_new(restored, database).map(|()| false),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => replace_by_link(restored, database),
        Err(error) => Err(error.into()),
    }
}

/// Does the same on a file system that can't exchange files.
fn replace_by_link(restored: &Path, database: &Path) -> io::Result<bool> {
    let new = with_suffix(restored, NEW);
    rename_new(restored, &new)?;
    let replaced = match std::fs::hard_link(database, restored) {
        Ok(()) => std::fs::rename(&new, database).map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            rename_new(&new, database).map(|()| false)
        }
        Err(error) => Err(io::Error::other(format!(
            "{error}: this file system can neither exchange nor link files; move the database and the files beside it \
             away, and restore again"
        ))),
    };
    if replaced.is_err() {
        // It is a copy of the backup.
        let _ = std::fs::remove_file(&new);
    }
    replaced
}

/// Removes the copy of a backup that could not be put in place, and second names of logs.
fn discard_copy(database: &Path, aside: &Path) {
    for suffix in BESIDE {
        let second = with_suffix(aside, suffix);
        if is_linked(&with_suffix(database, suffix), &second) {
            let _ = std::fs::remove_file(second);
        }
    }
    let _ = std::fs::remove_file(aside);
}

/// Moves the files beside a database to beside `aside`; returns where they are.
fn move_beside(database: &Path, aside: &Path) -> io::Result<Vec<PathBuf>> {
    let mut moved = Vec::new();
    for suffix in BESIDE {
        let (from, to) = (with_suffix(database, suffix), with_suffix(aside, suffix));
        let result = if is_linked(&from, &to) {
            std::fs::remove_file(&from)
        } else {
            rename_new(&from, &to)
        };
        match result {
            Ok(()) => moved.push(to),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(moved)
}

/// Returns true if both are names of one file.
fn is_linked(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| {
        let about = path.symlink_metadata().ok()?;
        Some((about.dev(), about.ino()))
    };
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// Renames a file, and replaces nothing.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if to.symlink_metadata().is_err() => {
            std::fs::rename(from, to)
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Err(ErrorKind::AlreadyExists.into()),
        renamed => Ok(renamed?),
    }
}

/// Returns true if the log beside a database is of another one: a backup was copied into its
/// place, and SQLite would read the log of the earlier one into it.
fn has_stale_log(database: &Path) -> bool {
    let log = with_suffix(database, "-wal");
    log.metadata().is_ok_and(|file| file.len() > 0) && is_marked(database)
}

/// Refuses to read a backup beside the log of another database.
pub(super) fn refuse_stale_log(path: &Path) -> Result<()> {
    // The log is beside what a link leads to; what does not exist is refused elsewhere.
    match path.canonicalize() {
        Ok(database) if has_stale_log(&database) => Err(StoreError::NotAccessible {
            path: database.clone(),
            detail: format!(
                "it is a backup, and {} is of the database that was there before; start the service, which moves that \
                 away, or restore with `ivesk-webhook store restore`",
                with_suffix(&database, "-wal").display()
            ),
        }),
        _ => Ok(()),
    }
}

/// Moves such a log aside.
pub(super) fn set_stale_log_aside(database: &Path, now: Timestamp) -> Result<()> {
    if !has_stale_log(database) {
        return Ok(());
    }
    let aside = with_suffix(database, &free_ending(database, now));
    let moved = move_beside(database, &aside).map_err(|error| StoreError::NotAccessible {
        path: with_suffix(database, "-wal"),
        detail: format!("{error}; it is of another database, and must be moved away"),
    })?;
    let names: Vec<String> = moved
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    warn!(
        "{} is a backup, and the files beside it were those of another database: moved to {}. Next time, restore with `ivesk-webhook store restore`",
        database.display(),
        names.join(" and ")
    );
    Ok(())
}

/// Returns true if the file itself, without its log, is a backup that was never started.
fn is_marked(database: &Path) -> bool {
    let read = |connection: Connection| {
        connection.query_row("SELECT backup FROM sequence", [], |row| row.get(0))
    };
    open_immutable(database).and_then(read).unwrap_or(false)
}

/// Moves a new epoch from the log into the database itself, before anything else is stored: from
/// then on its log is its own.
pub(super) fn settle_epoch(connection: &Connection, database: &Path) -> Result<()> {
    let busy: bool = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .map_err(|error| explain(database, error))?;
    if busy {
        return Err(StoreError::NotAccessible {
            path: database.to_owned(),
            detail: "it is a backup that is started for the first time, and another program reads it; end that one first"
                .to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the rules are for the service")]
mod tests {
    use super::super::schema::open_for_writing;
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

    /// A database whose newest sequence number is 7, with a log of its own, and a backup with 3.
    struct Scene {
        folder: tempfile::TempDir,
    }

    impl Scene {
        fn new() -> Self {
            let scene = Self {
                folder: tempfile::tempdir().expect("a folder"),
            };
            scene.write("backup.db", 3, true);
            scene.write("live.db", 7, false);
            std::fs::write(scene.path("live.db-wal"), "log of 7").expect("written");
            scene
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str, last: i64, backup: bool) {
            let connection = open_for_writing(&self.path(name)).expect("created");
            connection
                .execute(
                    "INSERT INTO sequence (id, epoch, last, backup) VALUES (1, 'e', ?1, ?2)",
                    (last, backup),
                )
                .expect("written");
            connection
                .pragma_update(None, "journal_mode", "DELETE")
                .expect("one file");
        }

        /// Writes the copy that is to take the place; returns the name of the earlier database.
        fn copied(&self) -> PathBuf {
            let ending = free_ending(&self.path("live.db"), NOW);
            let from = open_immutable(&self.path("backup.db")).expect("it opens");
            let to = BackupFile::beside(&self.path("live.db"), &ending, false);
            copy(&from, &self.path("backup.db"), &to).expect("copied");
            with_suffix(&self.path("live.db"), &ending)
        }

        /// Returns the names of the files with this newest sequence number.
        fn with_last(&self, last: i64) -> Vec<PathBuf> {
            let entries = std::fs::read_dir(self.folder.path()).expect("a folder");
            let paths = entries.map(|entry| entry.expect("an entry").path());
            let mut found: Vec<PathBuf> = paths
                .filter(|path| {
                    open_immutable(path)
                        .and_then(|connection| {
                            connection.query_row("SELECT last FROM sequence", [], |row| row.get(0))
                        })
                        .is_ok_and(|found: i64| found == last)
                })
                .collect();
            found.sort();
            found
        }

        /// Asserts that the earlier database exists under some name, with its log beside it.
        fn assert_kept(&self, step: usize) {
            let kept = self.with_last(7);
            let whole = kept.iter().any(|path| {
                std::fs::read(with_suffix(path, "-wal")).is_ok_and(|log| log == b"log of 7")
            });
            assert!(whole, "step {step}: {kept:?}");
        }
    }

    #[test]
    fn a_crash_while_restoring_loses_neither_database() {
        for exchange in [true, false] {
            for crash_at in 0..5 {
                let scene = Scene::new();
                let live = scene.path("live.db");
                let aside = scene.copied();
                let mut step = 0;
                let mut goes_on = || {
                    step += 1;
                    step <= crash_at
                };
                if goes_on() {
                    link_logs(&live, &aside);
                }
                if goes_on() {
                    let placed = match exchange {
                        true => put_in_place(&aside, &live),
                        false => replace_by_link(&aside, &live),
                    };
                    assert!(placed.expect("it takes the place"));
                }
                if goes_on() {
                    let moved = move_beside(&live, &aside).expect("moved");
                    assert_eq!(moved, [with_suffix(&aside, "-wal")]);
                }
                scene.assert_kept(crash_at);
                assert!(live.exists());
                // A second one, in the same second, overwrites nothing either.
                let restored = restore_backup(&live, &scene.path("backup.db"), NOW);
                let restored = restored.unwrap_or_else(|error| panic!("step {crash_at}: {error}"));
                assert_eq!(restored.last, 3);
                scene.assert_kept(crash_at);
                assert!(scene.with_last(3).contains(&live));
                assert!(!with_suffix(&live, "-wal").exists());
            }
        }
    }

    #[test]
    fn a_crash_between_link_and_rename_keeps_both() {
        let scene = Scene::new();
        let live = scene.path("live.db");
        let aside = scene.copied();
        link_logs(&live, &aside);
        let new = with_suffix(&aside, NEW);
        rename_new(&aside, &new).expect("renamed");
        std::fs::hard_link(&live, &aside).expect("linked");
        scene.assert_kept(0);
        // Neither a server nor another restore continues before a person has looked.
        let refused = restore_backup(&live, &scene.path("backup.db"), NOW).expect_err("two names");
        assert!(refused.to_string().contains("2 names"), "{refused}");
        std::fs::remove_file(&aside).expect("as it says");
        restore_backup(&live, &scene.path("backup.db"), NOW).expect("restored");
        scene.assert_kept(1);
    }

    #[test]
    fn what_can_not_take_the_place_is_removed_again() {
        let scene = Scene::new();
        let live = scene.path("live.db");
        let aside = scene.copied();
        link_logs(&live, &aside);
        discard_copy(&live, &aside);
        assert_eq!(scene.with_last(3), [scene.path("backup.db")]);
        assert!(!with_suffix(&aside, "-wal").exists());
        scene.assert_kept(0);
        std::fs::write(scene.path("taken"), "kept").expect("written");
        let error = rename_new(&live, &scene.path("taken")).expect_err("it exists");
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    }
}
