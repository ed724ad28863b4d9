//! Files and folders that only this user may read, reached without following links.
//!
//! Whoever may write in a folder can put a link, a pipe or another folder in the place of what is
//! expected there, also between two looks. So a file is opened once and judged by its descriptor, and
//! what is in a folder is reached from the folder's descriptor, one name at a time ([`Dir`]).
//!
//! rustix makes these calls, and is used already. cap-std offers more than is needed, since it
//! follows links that stay inside, and would bring ten more crates.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, chmod, chownat, fchmod, fstat, openat,
    stat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Permissions of a private file, 0600.
pub const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Permissions of a private folder, 0700.
pub const FOLDER_MODE: Mode = Mode::RWXU;

/// Creating a file, if there is nothing of its name.
const CREATING: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::CLOEXEC);
/// Opening a folder.
const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
/// Reading, without becoming the owner of a terminal and without waiting for a pipe's writer.
const READING: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOCTTY)
    .union(OFlags::NONBLOCK);

/// Opens an existing regular file for reading.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] if it is a link, a folder, a pipe or a device.
pub fn open(path: &Path) -> io::Result<File> {
    regular(openat(CWD, path, READING | OFlags::NOFOLLOW, Mode::empty()))
}

/// Creates a file that does not exist yet.
///
/// # Errors
///
/// [`ErrorKind::AlreadyExists`] if there is anything of that name, also a link to nowhere.
pub fn create_new(path: &Path) -> io::Result<File> {
    Ok(openat(CWD, path, CREATING, FILE_MODE)?.into())
}

/// [`create_new`] for a file that, written by root, the group of its folder may read too, as a service's
/// group does in a folder of its settings. Other users' files stay private, since their group may be
/// everybody's; so do those of root's group, which has nobody in it.
///
/// # Errors
///
/// As [`create_new`], and if this user may not give files to that group.
pub fn create_new_for_group(path: &Path) -> io::Result<File> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let group = std::fs::metadata(folder)?.gid();
    let file = create_new(path)?;
    if group != 0 && geteuid().is_root() {
        rustix::fs::fchown(&file, None, Some(Gid::from_raw(group)))?;
        fchmod(&file, FILE_MODE | Mode::RGRP)?;
    }
    Ok(file)
}

/// Opens a regular file for writing, and creates it if it is missing. An existing one is left as it is.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] if there is something else of that name, such as a link.
pub fn open_or_create(path: &Path) -> io::Result<File> {
    let flags = CREATING.difference(OFlags::EXCL) | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    regular(openat(CWD, path, flags, FILE_MODE))
}

/// Writes a whole file, which is private from then on, also if it existed.
///
/// # Errors
///
/// As [`open_or_create`].
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = open_or_create(path)?;
    fchmod(&file, FILE_MODE)?;
    file.set_len(0)?;
    file.write_all(bytes)
}

/// Creates a folder and those above it that are missing, all with the permissions `mode`. Existing
/// ones are left as they are, and links in the path are followed.
///
/// # Errors
///
/// If one can't be created.
pub fn create_dir_all(path: &Path, mode: Mode) -> io::Result<()> {
    let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    match (create_dir(path, mode), parent) {
        (Err(error), Some(parent)) if is_missing(&error) => {
            if !parent.is_dir() {
                create_dir_all(parent, mode)?;
            }
            // Once: in some folders, such as /proc, none can be created although they exist.
            create_dir(path, mode)
        }
        (created, _) => created,
    }
}

/// Creates a folder with the permissions `mode`, if it does not exist.
fn create_dir(path: &Path, mode: Mode) -> io::Result<()> {
    match rustix::fs::mkdir(path, FOLDER_MODE) {
        Ok(()) if mode == FOLDER_MODE => Ok(()),
        Ok(()) => Ok(chmod(path, mode)?),
        Err(_) if path.is_dir() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// As root, gives a file or folder to the owner of the folder that it is in, so that a command of root leaves
/// nothing that the service's own user can't use. Does nothing for other users.
///
/// # Errors
///
/// If the owner can't be read or changed.
pub fn give_to_owner_of_folder(path: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let about = stat(folder)?;
    let (owner, group) = (Uid::from_raw(about.st_uid), Gid::from_raw(about.st_gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(chownat(CWD, path, Some(owner), Some(group), flags)?)
}

/// Returns an opened file, if it is a regular one.
fn regular(opened: rustix::io::Result<OwnedFd>) -> io::Result<File> {
    let file = match opened {
        Ok(file) => file,
        // A link, a folder to write to, a pipe without a reader.
        Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(not_regular()),
        Err(error) => return Err(error.into()),
    };
    if is_file(&fstat(&file)?) {
        Ok(file.into())
    } else {
        Err(not_regular())
    }
}

fn not_regular() -> io::Error {
    io::Error::new(
        ErrorKind::InvalidInput,
        "it is not a regular file, but a link, a folder, a pipe or a device",
    )
}

/// Returns true for a regular file.
fn is_file(about: &Stat) -> bool {
    FileType::from_raw_mode(about.st_mode).is_file()
}

/// An open folder. Names are those of what is directly in it, and no link is followed.
#[derive(Debug)]
pub struct Dir(OwnedFd);

impl Dir {
    /// Opens the folder at `path`. The settings name it, so links in the path are followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, path, FOLDER, Mode::empty())?))
    }

    /// Opens the folder `name` in this one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if it is something else, such as a link to a folder.
    pub fn child(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = name.as_ref();
        match openat(&self.0, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(folder) => Ok(Self(folder)),
            Err(Errno::LOOP | Errno::NOTDIR) => Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "`{}` is not a folder, and no link is followed there",
                    name.display()
                ),
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the folder `name`, and creates it with the permissions `mode` if it is missing; returns
    /// true if it did. A new folder keeps the bit that gives its files the group of this one.
    pub fn make_child(&self, name: impl AsRef<OsStr>, mode: Mode) -> io::Result<(Self, bool)> {
        let name = name.as_ref();
        match self.child(name) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            existing => return Ok((existing?, false)),
        }
        match rustix::fs::mkdirat(&self.0, name, FOLDER_MODE) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok((self.child(name)?, false)),
            Err(error) => return Err(error.into()),
        }
        let child = self.child(name)?;
        let set_group = Mode::from_raw_mode(fstat(&child.0)?.st_mode) & Mode::SGID;
        fchmod(&child.0, mode | set_group)?;
        Ok((child, true))
    }

    /// Opens the regular file `name` for reading; [`open`].
    pub fn open_file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        let flags = READING | OFlags::NOFOLLOW;
        regular(openat(&self.0, name.as_ref(), flags, Mode::empty()))
    }

    /// Creates the file `name`; [`create_new`].
    pub fn create_new(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        Ok(openat(&self.0, name.as_ref(), CREATING, FILE_MODE)?.into())
    }

    /// Returns the properties of `name` itself, also of a link; none if there is no such name.
    pub fn about(&self, name: impl AsRef<OsStr>) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.0, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(about) => Ok(Some(about)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns true if `name` is a regular file.
    pub fn has_file(&self, name: impl AsRef<OsStr>) -> io::Result<bool> {
        Ok(self.about(name)?.is_some_and(|about| is_file(&about)))
    }

    /// Lets those read `file` that may read `name`.
    pub fn copy_mode(&self, name: impl AsRef<OsStr>, file: &File) -> io::Result<()> {
        let about = self.about(name)?.ok_or(ErrorKind::NotFound)?;
        let readers = Mode::from_raw_mode(about.st_mode) & (Mode::RGRP | Mode::ROTH);
        Ok(fchmod(file, FILE_MODE | readers)?)
    }

    /// Returns the permissions of this folder.
    pub fn mode(&self) -> io::Result<Mode> {
        Ok(Mode::from_raw_mode(fstat(&self.0)?.st_mode) & (Mode::RWXU | Mode::RWXG | Mode::RWXO))
    }

    /// Renames `name` to `new` in the folder `to`, and replaces what is there, also a link.
    pub fn rename(
        &self,
        name: impl AsRef<OsStr>,
        to: &Self,
        new: impl AsRef<OsStr>,
    ) -> io::Result<()> {
        Ok(rustix::fs::renameat(
            &self.0,
            name.as_ref(),
            &to.0,
            new.as_ref(),
        )?)
    }

    /// Gives the file `name` a second name, `new` in the folder `to`.
    pub fn link(
        &self,
        name: impl AsRef<OsStr>,
        to: &Self,
        new: impl AsRef<OsStr>,
    ) -> io::Result<()> {
        let flags = AtFlags::empty();
        Ok(rustix::fs::linkat(
            &self.0,
            name.as_ref(),
            &to.0,
            new.as_ref(),
            flags,
        )?)
    }

    /// Removes the file or link `name`, if there is one.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.0, name.as_ref(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Syncs the names in this folder to the disk.
    pub fn sync(&self) -> io::Result<()> {
        match rustix::fs::fsync(&self.0) {
            // Some network file systems can't sync folders.
            Ok(()) | Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the rules are for the service")]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        let about = path.symlink_metadata().expect("it exists");
        about.permissions().mode() & 0o7777
    }

    #[test]
    fn a_folder_that_no_file_system_can_hold_is_an_error() {
        let path = Path::new("/proc/none/of/these");
        let error = create_dir_all(path, FOLDER_MODE).expect_err("not in /proc");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn only_a_regular_file_is_opened_or_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "kept").expect("written");
        symlink(at("file"), at("link")).expect("linked");
        symlink(at("nowhere"), at("dangling")).expect("linked");
        std::fs::create_dir(at("folder")).expect("made");
        let made = std::process::Command::new("mkfifo")
            .arg(at("pipe"))
            .status();
        assert!(made.expect("mkfifo is installed").success());
        for name in ["link", "dangling", "folder", "pipe"] {
            let kinds = [
                open(&at(name)).map(drop).expect_err(name).kind(),
                write(&at(name), b"x").expect_err(name).kind(),
            ];
            assert_eq!(kinds, [ErrorKind::InvalidInput; 2], "{name}");
            let created = create_new(&at(name)).expect_err(name).kind();
            assert_eq!(created, ErrorKind::AlreadyExists, "{name}");
        }
        let device = open(Path::new("/dev/null")).expect_err("a device").kind();
        assert_eq!(device, ErrorKind::InvalidInput);
        assert!(!at("nowhere").exists());
        assert_eq!(std::fs::read(at("file")).expect("readable"), b"kept");
        open(&at("file")).expect("a regular file");
    }

    #[test]
    fn what_is_written_is_private_also_over_a_public_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "long and public").expect("written");
        let public = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&file, public).expect("allowed");
        write(&file, b"short").expect("written");
        assert_eq!(mode_of(&file), 0o600);
        assert_eq!(std::fs::read(&file).expect("readable"), b"short");

        let deep = folder.path().join("a/b");
        create_dir_all(&deep, FOLDER_MODE).expect("made");
        create_dir_all(&deep, FOLDER_MODE).expect("there already");
        assert_eq!(
            (mode_of(&deep), mode_of(&folder.path().join("a"))),
            (0o700, 0o700)
        );
        let shared = folder.path().join("c/d");
        create_dir_all(&shared, FOLDER_MODE | Mode::RWXG).expect("made");
        assert_eq!(mode_of(&shared), 0o770);
    }

    #[test]
    fn no_link_is_followed_below_an_open_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let outside = tempfile::tempdir().expect("a folder");
        std::fs::write(outside.path().join("file"), "kept").expect("written");
        symlink(outside.path(), folder.path().join("link")).expect("linked");
        let dir = Dir::open(folder.path()).expect("a folder");
        for opened in [
            dir.child("link"),
            dir.make_child("link", FOLDER_MODE).map(|it| it.0),
        ] {
            let error = opened.expect_err("a link");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("`link`"), "{error}");
        }
        dir.remove("link").expect("the link itself");
        assert!(outside.path().join("file").exists());

        // A folder whose new files belong to its group passes that on.
        let set_group = std::fs::Permissions::from_mode(0o2750);
        std::fs::set_permissions(folder.path(), set_group).expect("allowed");
        let (_, created) = dir
            .make_child("new", Mode::RWXU | Mode::RGRP)
            .expect("made");
        assert!(created);
        assert_eq!(mode_of(&folder.path().join("new")), 0o2740);
    }
}
