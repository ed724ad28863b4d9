//! The files of the database: their lock, and the checks that they are still in place and
//! that their disk has room.

use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::private_files::{give_to_owner_of_folder, open_or_create};
use crate::store::StoreError;

/// Number of bytes that the disk must have room for: a commit of a few messages.
const ROOM_BYTES: u64 = 64 * 1024;

/// Largest number of links that are followed.
const MAX_LINKS: usize = 16;

/// A file on the disk, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// The lock of the only process that may write, until it is dropped.
///
/// It is beside the file that a link leads to, so that two names of one file have one lock.
#[derive(Debug)]
pub(in crate::store) struct FileLock {
    /// The path that the settings name.
    named: PathBuf,
    /// The file that it leads to.
    database: PathBuf,
    file: File,
}

impl FileLock {
    /// Locks the database at `path`, which need not exist.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] if another process has the lock; [`StoreError::NotAccessible`]
    /// if the lock can't be written, or the database has several names: SQLite would keep a
    /// log for each, and lose one (sqlite.org/howtocorrupt.html, "Multiple links to the same
    /// file").
    pub(super) fn acquire(path: &Path) -> Result<Self, StoreError> {
        let not_accessible = |detail: String| StoreError::NotAccessible {
            path: path.to_owned(),
            detail,
        };
        let denied = |error: io::Error| {
            not_accessible(format!(
                "{error}; check that its folder exists and that this user may write there"
            ))
        };
        let database = follow_links(path).map_err(denied)?;
        let metadata = database.metadata().ok();
        if metadata.as_ref().is_some_and(Metadata::is_dir) {
            return Err(not_accessible(
                "it is a folder; name the file in `store.url`, such as sqlite://ivesk-webhook.db"
                    .to_owned(),
            ));
        }
        if let Some(metadata) = metadata.filter(|metadata| metadata.nlink() > 1) {
            return Err(not_accessible(format!(
                "the file has {} names (hard links), and a server on each would destroy it; remove the other names, \
                 which `find / -xdev -samefile {}` shows",
                metadata.nlink(),
                database.display()
            )));
        }
        let lock = beside(&database, ".lock");
        let file = open_or_create(&lock).map_err(denied)?;
        give_to_owner_of_folder(&lock).map_err(denied)?;
        match file.try_lock() {
            Ok(()) => Ok(Self {
                named: path.to_owned(),
                database,
                file,
            }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(error)) => Err(denied(error)),
        }
    }

    /// Returns the path of the database, without links.
    pub(super) fn database(&self) -> &Path {
        &self.database
    }

    /// Returns the files as they are now, once the database is open.
    ///
    /// # Errors
    ///
    /// If one of them is missing.
    pub(super) fn opened(self) -> Result<OpenFiles, StoreError> {
        let files = [
            self.database.clone(),
            beside(&self.database, "-wal"),
            beside(&self.database, ".lock"),
        ];
        let mut expected = Vec::with_capacity(files.len());
        for path in files {
            match path.metadata() {
                Ok(metadata) => expected.push((path, Identity::of(&metadata))),
                Err(error) => return Err(missing(path, &error)),
            }
        }
        // The name of the settings, which may be a link that is changed.
        let identity = expected[0].1;
        expected[0] = (self.named.clone(), identity);
        Ok(OpenFiles {
            lock: self,
            expected,
            length: AtomicU64::new(0),
        })
    }
}

/// The files of an open database.
#[derive(Debug)]
pub(super) struct OpenFiles {
    lock: FileLock,
    /// The names, and the files that they had when the database was opened. The first is the
    /// database itself.
    expected: Vec<(PathBuf, Identity)>,
    /// The greatest length of the database so far, which never shrinks.
    length: AtomicU64,
}

impl OpenFiles {
    /// Checks that the next start would open the same files.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotInPlace`] if one was renamed, replaced, deleted or truncated.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        for (number, (path, expected)) in self.expected.iter().enumerate() {
            let metadata = path
                .metadata()
                .map_err(|error| missing(path.clone(), &error))?;
            if Identity::of(&metadata) != *expected {
                return Err(not_in_place(path.clone(), "was replaced by another file"));
            }
            if number == 0
                && metadata.len() < self.length.fetch_max(metadata.len(), Ordering::Relaxed)
            {
                // For good: what is written to it now is another database.
                self.length.store(u64::MAX, Ordering::Relaxed);
                return Err(not_in_place(path.clone(), "was truncated"));
            }
        }
        Ok(())
    }

    /// Returns true if a check has found the database truncated: what it holds since is not ours.
    pub(super) fn was_truncated(&self) -> bool {
        self.length.load(Ordering::Relaxed) == u64::MAX
    }

    /// Checks that the disk has room for a commit, by reserving it and freeing it again.
    ///
    /// # Errors
    ///
    /// [`StoreError::DiskFull`], or [`StoreError::NotAccessible`] if the disk can't be written.
    pub(super) fn check_room(&self) -> Result<(), StoreError> {
        let reserved =
            rustix::fs::fallocate(&self.lock.file, FallocateFlags::empty(), 0, ROOM_BYTES);
        // Nothing is in the file: it is only locked.
        let freed = self.lock.file.set_len(0);
        let path = self.lock.named.clone();
        match reserved {
            // Some file systems can't reserve room; there only a commit shows that it is full.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => {
                freed.map_err(|error| StoreError::NotAccessible {
                    path,
                    detail: error.to_string(),
                })
            }
            Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Err(StoreError::DiskFull { path }),
            Err(error) => Err(StoreError::NotAccessible {
                path,
                detail: format!("{error}; check that its disk can be written"),
            }),
        }
    }
}

fn not_in_place(path: PathBuf, detail: &str) -> StoreError {
    StoreError::NotInPlace {
        path,
        detail: detail.to_owned(),
    }
}

fn missing(path: PathBuf, error: &io::Error) -> StoreError {
    if error.kind() == io::ErrorKind::NotFound {
        not_in_place(path, "was renamed or deleted")
    } else {
        not_in_place(path, &format!("can't be found: {error}"))
    }
}

/// Returns the path of a file beside the database.
fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Returns the path that `path` leads to, which need not exist.
fn follow_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = std::path::absolute(path)?;
    for _ in 0..MAX_LINKS {
        let folder = path.parent().unwrap_or(Path::new("/")).canonicalize()?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let file = folder.join(name);
        match file.read_link() {
            Ok(target) => path = folder.join(target),
            // It is no link, or does not exist.
            Err(_) => return Ok(file),
        }
    }
    Err(io::Error::other("too many links"))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the rules are for the service")]
mod tests {
    use std::fs;

    use super::*;

    fn opened(folder: &Path) -> OpenFiles {
        for name in ["test.db", "test.db-wal"] {
            fs::write(folder.join(name), name).expect("wrote a file");
        }
        let lock = FileLock::acquire(&folder.join("test.db")).expect("locked");
        lock.opened().expect("all files are there")
    }

    #[test]
    fn files_that_changed_their_place_are_noticed() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 6] = [
            ("was renamed or deleted", |folder| {
                fs::rename(folder.join("test.db"), folder.join("old.db")).expect("renamed");
            }),
            ("was renamed or deleted", |folder| {
                fs::remove_file(folder.join("test.db-wal")).expect("deleted");
            }),
            ("was renamed or deleted", |folder| {
                fs::remove_file(folder.join("test.db.lock")).expect("deleted");
            }),
            ("was replaced by another file", |folder| {
                fs::write(folder.join("new.db"), "test.db").expect("wrote a file");
                fs::rename(folder.join("new.db"), folder.join("test.db")).expect("renamed");
            }),
            ("was truncated", |folder| {
                fs::write(folder.join("test.db"), "").expect("truncated");
            }),
            ("can't be found", |folder| {
                fs::remove_file(folder.join("test.db")).expect("deleted");
                std::os::unix::fs::symlink("test.db", folder.join("test.db")).expect("linked");
            }),
        ];
        for (expected, change) in changes {
            let folder = tempfile::tempdir().expect("created a folder");
            let files = opened(folder.path());
            files.check().expect("nothing has changed");
            change(folder.path());
            let error = files.check().expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_put_back_is_in_place_again() {
        let folder = tempfile::tempdir().expect("created a folder");
        let files = opened(folder.path());
        let (name, other) = (folder.path().join("test.db"), folder.path().join("other"));
        fs::rename(&name, &other).expect("renamed");
        files.check().expect_err("it was renamed");
        fs::rename(&other, &name).expect("renamed");
        files.check().expect("it was put back");
        files.check_room().expect("the disk has room");
    }

    #[test]
    fn two_names_of_one_file_have_one_lock() {
        let folder = tempfile::tempdir().expect("created a folder");
        let file = folder.path().join("test.db");
        let (link, linked) = (folder.path().join("link.db"), folder.path().join("hard.db"));
        std::os::unix::fs::symlink("test.db", &link).expect("linked");
        let lock = FileLock::acquire(&link).expect("locked, though it does not exist");
        assert!(matches!(
            FileLock::acquire(&file),
            Err(StoreError::InUse { .. })
        ));
        drop(lock);
        fs::write(&file, "").expect("wrote a file");
        fs::hard_link(&file, &linked).expect("linked");
        for name in [&file, &linked, &link] {
            let refused = FileLock::acquire(name).expect_err("it has two names");
            assert!(refused.to_string().contains("2 names"), "{refused}");
        }
    }
}
