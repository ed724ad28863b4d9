//! A disk that can be filled.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system, unmounted when this is dropped.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts one of this many mebibytes; returns `None` if this user may not mount.
    pub(crate) fn mount(mebibytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(folder.path())
            .output()
            .ok()?;
        mount.status.success().then(|| Self(folder))
    }

    /// Returns the folder that it is mounted on.
    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    /// Uses up the remaining room; returns the file that holds it.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.folder().join("ballast");
        let mut file = std::fs::File::create(&path).expect("a file");
        while file.write_all(&[0; 512]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A process that is still ending may hold it: a lazy unmount waits for that.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
