//! Whether a program still has a file open for writing, as far as this user may see.
//!
//! Linux lists the open files of each process below `/proc`. A lease (`F_SETLEASE`) would ask
//! the kernel itself, but only a file's owner may take one, and rustix does not offer it.
//! What is not seen here: processes of other users, unless this is root; writers on other
//! machines, where the folder is shared; and a file that is only mapped into memory. So
//! this comes on top of a file's size and time, never instead of them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where Linux lists processes; on other systems there is no such folder, or none like it.
const PROCESSES: &str = "/proc";

/// Those of `files` that some process has open for writing.
pub(super) fn being_written(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let wanted: Vec<Wanted<'_>> = files.iter().filter_map(Wanted::of).collect();
    let mut written = BTreeSet::new();
    for process in entries(Path::new(PROCESSES)).filter(|path| is_process(path)) {
        // One that ends meanwhile, or that this user may not look into, shows nothing.
        for descriptor in entries(&process.join("fd")) {
            let file = wanted.iter().find(|wanted| wanted.is_open_at(&descriptor));
            let Some(file) = file else {
                continue;
            };
            if writes(&process, &descriptor).unwrap_or(false) {
                written.insert(file.path.to_owned());
            }
        }
    }
    written
}

/// A file that is looked for among the open ones.
struct Wanted<'f> {
    path: &'f Path,
    name: &'f OsStr,
    identity: (u64, u64),
}

impl<'f> Wanted<'f> {
    fn of(path: &'f PathBuf) -> Option<Self> {
        let identity = identity(path).ok()?;
        let name = path.file_name()?;
        Some(Self {
            path,
            name,
            identity,
        })
    }

    /// Whether a process's descriptor is open at this very file.
    ///
    /// The name comes first: asking for the identity of every file that anybody has open
    /// could wait for a network share that is away.
    fn is_open_at(&self, descriptor: &Path) -> bool {
        let link = fs::read_link(descriptor);
        link.is_ok_and(|link| link.file_name() == Some(self.name))
            && identity(descriptor).is_ok_and(|identity| identity == self.identity)
    }
}

/// By which one file is told from every other.
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

/// Whether a descriptor was opened for writing: `flags` in its `fdinfo`, in octal digits
/// (proc_pid_fdinfo(5)), whose last two bits are 0 for reading alone.
fn writes(process: &Path, descriptor: &Path) -> Option<bool> {
    let about = process.join("fdinfo").join(descriptor.file_name()?);
    let about = fs::read_to_string(about).ok()?;
    let mut lines = about.lines();
    let flags = lines.find_map(|line| line.strip_prefix("flags:"))?;
    let flags = u32::from_str_radix(flags.trim(), 8).ok()?;
    Some(flags & 0b11 != 0)
}

#[cfg(all(test, target_os = "linux"))]
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
        // Of the same name, and another file.
        let _namesake = File::create(at("other/read")).expect("opened");
        let expected = BTreeSet::from([at("appended"), at("changed")]);
        assert_eq!(being_written(&files), expected);

        drop((appended, changed));
        assert_eq!(being_written(&files), BTreeSet::new());
    }
}
