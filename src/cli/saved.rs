//! Files that hold the body of one message each, for `replay` and `verify`.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::domain::{Event, Timestamp};
use crate::private_files::{FOLDER_MODE, create_dir_all, write};

/// A folder for exported messages.
pub(super) struct ExportDir(PathBuf);

impl ExportDir {
    /// Opens the folder `path`, and creates it if it is missing.
    ///
    /// # Errors
    ///
    /// If it can't be created.
    pub(super) fn open(path: &Path) -> Result<Self, anyhow::Error> {
        create_dir_all(path, FOLDER_MODE)
            .with_context(|| format!("failed to create {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }

    /// Writes `body` to `<received_at>-<event>-<id>.json` and returns the file's path.
    ///
    /// Only the owner can read the file: a body may hold the token of a confirmation. An
    /// existing file is replaced.
    ///
    /// # Errors
    ///
    /// If the file can't be written.
    pub(super) fn write(
        &self,
        received_at: Timestamp,
        event: Event,
        id: &str,
        body: &[u8],
    ) -> Result<PathBuf, anyhow::Error> {
        let path = self.0.join(file_name(received_at, event, id));
        write(&path, body).with_context(|| format!("failed to write {}", path.display()))?;
        Ok(path)
    }
}

/// Returns a name that is safe as one path component on every system.
fn file_name(received_at: Timestamp, event: Event, id: &str) -> String {
    let plain = |text: &str| -> String {
        text.chars()
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
            .take(80)
            .collect()
    };
    let received_at = plain(&received_at.to_string());
    format!("{received_at}-{event}-{}.json", plain(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_stays_in_its_folder() {
        let name = file_name(
            Timestamp::parse("2026-11-23T08:00:00.000Z").expect("a moment"),
            Event::OnExported,
            "../../etc/passwd",
        );
        assert_eq!(
            name,
            "2026-11-23T080000.000Z-on_exported-....etcpasswd.json"
        );
    }
}
