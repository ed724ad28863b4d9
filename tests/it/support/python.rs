//! Python programs that tests run, each with a virtual environment of its own in `target/`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The Python of `target/python-<purpose>`, in which the packages of a `requirements.txt`
/// are installed.
///
/// None, and says so, where there is no Python, no `venv`, or no registry; then the test is
/// left out. Fails instead where `IVESK_WEBHOOK_TEST_REQUIRE_PYTHON` is set, as `.ci/run`
/// sets it.
pub(crate) fn python_with(purpose: &str, requirements: &Path) -> Option<PathBuf> {
    let required = std::env::var_os("IVESK_WEBHOOK_TEST_REQUIRE_PYTHON").is_some();
    match installed(purpose, requirements) {
        Ok(python) => Some(python),
        Err(why) => {
            assert!(!required, "{why}");
            eprintln!("left out: {why}");
            None
        }
    }
}

fn installed(purpose: &str, requirements: &Path) -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let folder = target.join(format!("python-{purpose}"));
    // Tests of several processes may want it at once.
    let lock = File::create(target.join(format!("python-{purpose}.lock")));
    let lock = lock.map_err(|error| format!("no lock in target/: {error}"))?;
    lock.lock()
        .map_err(|error| format!("no lock in target/: {error}"))?;

    let wanted = std::fs::read_to_string(requirements).expect("requirements");
    let mark = folder.join("installed.txt");
    let python = folder.join("bin/python");
    if std::fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let made = Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&folder)
        .output();
    done("`python3 -m venv` (Debian: python3-venv)", made)?;
    let brought = Command::new(&python)
        .args(["-m", "pip", "install", "--disable-pip-version-check"])
        .args(["--quiet", "--no-input", "--requirement"])
        .arg(requirements)
        .output();
    done("`pip install`", brought)?;
    std::fs::write(mark, wanted).expect("written");
    Ok(python)
}

fn done(what: &str, output: std::io::Result<Output>) -> Result<(), String> {
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "{what} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => Err(format!("{what} can't be run: {error}")),
    }
}
