//! Tests that this machine cannot run.

use std::io::Write as _;

/// Reports that `test` is skipped, and why.
///
/// # Panics
///
/// When the variable `required` is set, as `.ci/run` sets it: there, nothing may be skipped.
pub(crate) fn skip(test: &str, required: &str, why: &str) {
    assert!(
        std::env::var_os(required).is_none(),
        "{required} is set, but {why}"
    );
    // Straight to standard error, so that `cargo test` shows it for tests that pass.
    let line = format!("skipped: {test}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
