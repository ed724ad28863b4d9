//! Lists the files of folders.

use std::io;
use std::path::{Path, PathBuf};

/// Endings of the names of unfinished files.
const UNFINISHED_ENDS: [&str; 9] = [
    "~",
    ".tmp",
    ".temp",
    ".part",
    ".partial",
    ".filepart",
    ".crdownload",
    ".download",
    ".swp",
];

/// Files that operating systems create in folders.
const SYSTEM_NAMES: [&str; 2] = ["thumbs.db", "desktop.ini"];

/// Returns true if a name is that of a hidden, unfinished or system file.
pub fn is_ignored(name: &str) -> bool {
    let lower = name.to_lowercase();
    lower.starts_with(['.', '~'])
        || UNFINISHED_ENDS.iter().any(|end| lower.ends_with(end))
        || SYSTEM_NAMES.contains(&lower.as_str())
}

/// Returns the files of `paths`, each once: a file itself, and all files below a folder, ordered by
/// name, except those that are [ignored](is_ignored). Links to folders are not followed, so that a
/// walk ends.
///
/// # Errors
///
/// The first path that can't be read, and why.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let mut files = Vec::new();
    for path in paths {
        let about = std::fs::metadata(path).map_err(|error| (path.clone(), error))?;
        if about.is_dir() {
            walk(path, &mut files)?;
        } else {
            files.push(path.clone());
        }
    }
    let mut seen = std::collections::HashSet::new();
    files.retain(|file| seen.insert(file.clone()));
    Ok(files)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), (PathBuf, io::Error)> {
    let failed = |error| (folder.to_owned(), error);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        entries.push(entry.map_err(failed)?);
    }
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        if is_ignored(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let kind = entry.file_type().map_err(failed)?;
        let path = entry.path();
        if kind.is_dir() {
            walk(&path, files)?;
        } else if kind.is_file() || std::fs::metadata(&path).is_ok_and(|about| about.is_file()) {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the rules are for the service")]
mod tests {
    use super::*;

    #[test]
    fn a_folder_yields_its_finished_files_in_order_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("b/c")).expect("made");
        std::fs::create_dir_all(at(".git")).expect("made");
        for name in [
            "z.pdf",
            "a.pdf",
            "b/c/1.pdf",
            "b/2.PDF.part",
            ".hidden",
            "~$x.doc",
            ".git/x",
            "x~",
            "Thumbs.db",
            "y.TMP",
        ] {
            std::fs::write(at(name), "x").expect("written");
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path(), at("loop")).expect("linked");
        let found = files(&[folder.path().to_owned(), at("a.pdf"), at(".hidden")]);
        assert_eq!(
            found.expect("readable"),
            [at("a.pdf"), at("b/c/1.pdf"), at("z.pdf"), at(".hidden")]
        );
        let missing = files(&[at("none")]).expect_err("no such file");
        assert_eq!(missing.0, at("none"));
    }
}
