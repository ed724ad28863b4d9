//! Finds files that a program has open for writing, as far as this user may see.
//!
//! Linux lists the open files of each process below `/proc`. A lease (`F_SETLEASE`) would ask the
//! kernel itself, but only a file's owner may take one, and rustix does not offer it. Not found
//! are processes of other users, unless this user is root; writers on other machines, if the folder
//! is shared; and files that are only mapped into memory. So this complements a file's size and
//! time, and does not replace them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Folder where Linux lists processes; other systems have none like it.
const PROCESSES: &str = "/proc";

/// Returns the files of `files` that a process has open for writing.
pub(super) fn open_for_writing(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let candidates: Vec<Candidate<'_>> = files.iter().filter_map(Candidate::of).collect();
    let mut open = BTreeSet::new();
    for process in entries(Path::new(PROCESSES)).filter(|path| is_process(path)) {
        // A process that ends meanwhile, or that this user may not inspect, has no entries.
        for descriptor in entries(&process.join("fd")) {
            let file = candidates.iter().find(|file| file.is_open_at(&descriptor));
            let Some(file) = file else {
                continue;
            };
            if is_writable(&process, &descriptor).unwrap_or(false) {
                open.insert(file.path.to_owned());
            }
        }
    }
    open
}

/// A file that may be open.
struct Candidate<'f> {
    path: &'f Path,
    name: &'f OsStr,
    identity: (u64, u64),
}

impl<'f> Candidate<'f> {
    fn of(path: &'f PathBuf) -> Option<Self> {
        let identity = identity(path).ok()?;
        let name = path.file_name()?;
        Some(Self {
            path,
            name,
            identity,
        })
    }

    /// Returns true if a process's descriptor refers to this file.
    ///
    /// Compares the name first: reading the identity of every open file could block on an
    /// unavailable network share.
    fn is_open_at(&self, descriptor: &Path) -> bool {
        let link = fs::read_link(descriptor);
        link.is_ok_and(|link| link.file_name() == Some(self.name))
            && identity(descriptor).is_ok_and(|identity| identity == self.identity)
    }
}

/// Returns the numbers that identify a file.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let about = fs::metadata(path)?;
    Ok((about.dev(), about.ino()))
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}

fn is_process(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str);
    name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns true if a descriptor was opened for writing: the last two bits of `flags` in its
/// `fdinfo`, in octal digits, are 0 for reading alone (proc_pid_fdinfo(5)).
fn is_writable(process: &Path, descriptor: &Path) -> Option<bool> {
    let about = process.join("fdinfo").join(descriptor.file_name()?);
    let about = fs::read_to_string(about).ok()?;
    let mut lines = about.lines();
    let flags = lines.find_map(|line| line.strip_prefix("flags:"))?;
    let flags = u32::from_str_radix(flags.trim(), 8).ok()?;
    Some(flags & 0b11 != 0)
}

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "the rules are for the service")]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_file_open_for_writing_is_busy_and_one_for_reading_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("other")).expect("made");
        for name in ["appended", "changed", "read", "other/read"] {
            std::fs::write(at(name), "x").expect("written");
        }
        let files = [at("appended"), at("changed"), at("read"), at("missing")];

        let appended = File::options().append(true).open(at("appended"));
        let changed = File::options().read(true).write(true).open(at("changed"));
        let _read = File::open(at("read")).expect("opened");
        // Another file of the same name.
        let _namesake = File::create(at("other/read")).expect("opened");
        let expected = BTreeSet::from([at("appended"), at("changed")]);
        assert_eq!(open_for_writing(&files), expected);

        drop((appended, changed));
        assert_eq!(open_for_writing(&files), BTreeSet::new());
    }
}
