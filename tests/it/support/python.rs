//! Python for tests: virtual environments in `target/`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::skip::skip;

/// Returns the Python of `target/python-<purpose>`, with the packages of a `requirements.txt`.
///
/// Without Python, `venv` or a registry, skips the test and returns `None`.
pub(crate) fn python_with(purpose: &str, requirements: &Path) -> Option<PathBuf> {
    match install(purpose, requirements) {
        Ok(python) => Some(python),
        Err(why) => {
            skip(purpose, "IVESK_WEBHOOK_TEST_REQUIRE_PYTHON", &why);
            None
        }
    }
}

fn install(purpose: &str, requirements: &Path) -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let folder = target.join(format!("python-{purpose}"));
    // Several test processes may install at once.
    let lock = File::create(target.join(format!("python-{purpose}.lock")));
    let lock = lock.map_err(|error| format!("no lock in target/: {error}"))?;
    lock.lock()
        .map_err(|error| format!("no lock in target/: {error}"))?;

    let required = std::fs::read_to_string(requirements).expect("requirements");
    let mark = folder.join("installed.txt");
    let python = folder.join("bin/python");
    if std::fs::read_to_string(&mark).is_ok_and(|installed| installed == required) {
        return Ok(python);
    }
    let created = Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&folder)
        .output();
    check("`python3 -m venv` (Debian: python3-venv)", created)?;
    let packages = Command::new(&python)
        .args(["-m", "pip", "install", "--disable-pip-version-check"])
        .args(["--quiet", "--no-input", "--requirement"])
        .arg(requirements)
        .output();
    check("`pip install`", packages)?;
    std::fs::write(mark, required).expect("written");
    Ok(python)
}

fn check(what: &str, output: std::io::Result<Output>) -> Result<(), String> {
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "{what} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => Err(format!("failed to run {what}: {error}")),
    }
}
