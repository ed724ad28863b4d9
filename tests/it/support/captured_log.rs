//! A log that a test reads.

use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing::{Dispatch, Level};

/// Collects the lines of a subscriber.
#[derive(Clone, Default)]
pub(crate) struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl CapturedLog {
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
