//! The settings file and the environment of a subcommand.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use crate::config::VARIABLE_PREFIX;

/// The settings file and the environment, passed in so that tests can set them.
pub struct Globals {
    /// The settings file; it may be missing.
    pub config: PathBuf,
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
