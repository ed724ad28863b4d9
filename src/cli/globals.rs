//! The settings file and the environment of a subcommand.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

pub use crate::config::SYSTEM_FILE;
use crate::config::{DEFAULT_FILE, VARIABLE_PREFIX};

/// The settings file and the environment, passed in so that tests can set them.
pub struct Globals {
    /// The settings file; it may be missing.
    pub config: PathBuf,
    /// True if a person named it.
    pub config_is_named: bool,
    /// The process environment.
    pub environment: BTreeMap<String, String>,
}

impl fmt::Debug for Globals {
    /// Leaves out the environment, which holds secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Globals")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Returns the settings file if nobody names one: [`DEFAULT_FILE`] in the working folder, or `system`
/// if only that exists.
pub(super) fn found_config(system: &Path) -> PathBuf {
    let default = PathBuf::from(DEFAULT_FILE);
    // A file that this user may not even look for is there all the same: reading it says why.
    if !default.exists() && system.try_exists().unwrap_or(true) {
        return system.to_owned();
    }
    default
}

/// Returns the variables that are valid UTF-8, and leaves out others.
///
/// # Errors
///
/// The name of a variable of this program that is not valid UTF-8.
pub(super) fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<String, String>, String> {
    let mut environment = BTreeMap::new();
    for (name, value) in variables {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => {
                environment.insert(name, value);
            }
            (name, _) => {
                let name = name.unwrap_or_else(|name| name.to_string_lossy().into_owned());
                if name.starts_with(VARIABLE_PREFIX) {
                    return Err(name);
                }
            }
        }
    }
    Ok(environment)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_here_the_systems_is_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let system = folder.path().join("ivesk-webhook.toml");
        assert_eq!(found_config(&system), PathBuf::from(DEFAULT_FILE));
        crate::private_files::write(&system, b"").expect("written");
        assert_eq!(found_config(&system), system);
    }

    #[test]
    fn a_variable_that_is_not_utf8_is_an_error_only_if_it_is_ours() {
        use std::os::unix::ffi::OsStringExt as _;

        let bad = || OsString::from_vec(vec![0xff]);
        let foreign = [("LANG".into(), bad()), ("HOME".into(), "/root".into())];
        let read = environment(foreign.into_iter()).expect("foreign variables don't matter");
        assert_eq!(read.into_keys().collect::<Vec<_>>(), ["HOME"]);

        let ours = [("IVESK_WEBHOOK_API_KEY".into(), bad())];
        assert_eq!(
            environment(ours.into_iter()),
            Err("IVESK_WEBHOOK_API_KEY".to_owned())
        );
    }
}
