//! Finds files with secrets that every user of this machine can read.

use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::{Config, StoreUrl};

/// Most backups that are looked at.
const MAX_BACKUPS: usize = 1000;
/// Reading a file, and entering a folder, for users who are neither its owner nor in its group.
const READ_BY_OTHERS: u32 = 0o004;
const ENTERED_BY_OTHERS: u32 = 0o001;

/// A file that every user of this machine can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// The file.
    pub path: PathBuf,
    /// The secrets in it.
    pub holds: String,
}

impl Exposed {
    /// Describes what was found.
    pub fn found(&self) -> String {
        format!(
            "every user of this machine can read {}, which holds {}",
            self.path.display(),
            self.holds
        )
    }

    /// Returns the instruction that fixes it.
    pub fn fix(&self) -> String {
        format!("chmod o= '{}'", self.path.display())
    }
}

/// Returns the files of `config` that every user can read: the settings, the files of secrets, the
/// store and its backups. Those that its group can read are not among them, since a group is how
/// the service is let in.
pub fn files(config: &Config) -> Vec<Exposed> {
    let mut files: Vec<(PathBuf, String)> = config.secret_files.clone();
    if let StoreUrl::Sqlite(store) = &config.store.url {
        if !store.is_dir() {
            files.push((store.clone(), "all messages and documents".to_owned()));
        }
        let backups = std::fs::read_dir(&config.store.backup_dir);
        let backups = backups.into_iter().flatten().take(MAX_BACKUPS);
        let backups = backups.filter_map(|entry| Some(entry.ok()?.path()));
        files.extend(backups.map(|path| (path, "a copy of the store".to_owned())));
    }
    files
        .into_iter()
        .filter(|(path, _)| is_readable_by_all(path))
        .map(|(path, holds)| Exposed { path, holds })
        .collect()
}

/// Returns true if the file's permissions, and those of every folder above it, let everybody read.
fn is_readable_by_all(path: &Path) -> bool {
    let allows = |about: std::io::Result<Metadata>, bit: u32| {
        about.is_ok_and(|about| about.permissions().mode() & bit != 0)
    };
    let Ok(path) = path.canonicalize() else {
        return false;
    };
    let mut folders = path.ancestors().skip(1);
    allows(path.metadata(), READ_BY_OTHERS)
        && folders.all(|folder| allows(folder.metadata(), ENTERED_BY_OTHERS))
}
