//! A log that a test reads.
//!
//! Whether a line's place in the code is worth asking is decided once for the whole process, and
//! while one subscriber is alive, `tracing` asks only that of the thread that comes by first: if
//! that is another test's, which has none, the line is never written. So a test that reads its log
//! has a process of its own, in which subscribers for every level are alive from the start.

use std::io::Write;
use std::process::Command;
use std::sync::{Arc, Mutex};

use tracing::{Dispatch, Level};

/// Names the test that has this process for itself.
const ALONE: &str = "IVESK_WEBHOOK_TEST_ALONE";

/// Runs a test in a process of its own: there it goes on; here it ends with that one's result.
macro_rules! in_own_process {
    ($test:ident) => {
        let path = concat!(module_path!(), "::", stringify!($test));
        if !$crate::support::captured_log::is_alone(path) {
            return;
        }
    };
}
pub(crate) use in_own_process;

/// Returns true in the process that the test at `path` has for itself; runs that process
/// otherwise, and panics if the test fails there.
pub(crate) fn is_alone(path: &str) -> bool {
    let (_, test) = path.split_once("::").expect("a crate and a test");
    if std::env::var(ALONE).is_ok_and(|alone| alone == test) {
        // Two: with one alive, only its own thread would be asked.
        for _ in 0..2 {
            let log = CapturedLog(Arc::default());
            std::mem::forget(log.subscriber(Level::TRACE));
        }
        return true;
    }
    let this = std::env::current_exe().expect("the tests' program");
    let run = Command::new(this)
        .args([test, "--exact", "--nocapture"])
        .env(ALONE, test)
        .output()
        .expect("it runs");
    let [out, errors] =
        [run.stdout, run.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    let has_run = out.contains("1 passed");
    assert!(run.status.success() && has_run, "{test}:\n{out}\n{errors}");
    false
}

/// Collects the lines of a subscriber.
#[derive(Clone)]
pub(crate) struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl CapturedLog {
    /// Returns an empty log; only for a test [`in_own_process`].
    pub(crate) fn new() -> Self {
        assert!(std::env::var_os(ALONE).is_some(), "it shares its process");
        Self(Arc::default())
    }

    /// Returns a subscriber that writes here, down to this level.
    pub(crate) fn subscriber(&self, level: Level) -> Dispatch {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(move || log.clone())
            .finish();
        Dispatch::new(subscriber)
    }

    /// Returns the log so far.
    pub(crate) fn text(&self) -> String {
        let bytes = self.0.lock().expect("never poisoned");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for CapturedLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut log = self.0.lock().expect("never poisoned");
        log.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
