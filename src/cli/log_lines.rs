//! Writes the log of `serve` on a thread of its own: a log that can't be written delays and
//! fails nothing. The lines that are lost are counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

/// Most lines that wait to be written, and most bytes of them.
const MAX_LINES: usize = 8 * 1024;
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// The lines on their way to the log.
#[derive(Clone)]
pub(super) struct LogLines {
    sender: SyncSender<Job>,
    waiting_bytes: Arc<AtomicUsize>,
    lost: Counter,
}

/// A job of the thread.
enum Job {
    /// Writes a line.
    Line(Vec<u8>),
    /// Is dropped, with the sender in it, once all lines before it are written.
    Finish { _written: SyncSender<()> },
}

impl LogLines {
    /// Starts a thread that writes to `output`.
    ///
    /// # Errors
    ///
    /// If the system starts no more threads.
    pub(super) fn to(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(MAX_LINES);
        let lines = Self {
            sender,
            waiting_bytes: Arc::default(),
            lost: Counter::default(),
        };
        let (waiting, lost) = (Arc::clone(&lines.waiting_bytes), lines.lost.clone());
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&receiver, output, &waiting, &lost))?;
        Ok(lines)
    }

    /// Returns the number of lost lines, which counts on.
    pub(super) fn lost(&self) -> Counter {
        self.lost.clone()
    }

    /// Waits until the lines so far are written, at most for `timeout`.
    pub(super) fn finish(&self, timeout: Duration) {
        let (written, done) = sync_channel(0);
        if self
            .sender
            .try_send(Job::Finish { _written: written })
            .is_ok()
        {
            // Ends with the job, or with the time if the output accepts nothing.
            let (Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) =
                done.recv_timeout(timeout);
        }
    }

    fn push(&self, line: &[u8]) {
        let length = line.len();
        let fits = self.waiting_bytes.fetch_add(length, Ordering::Relaxed) + length <= MAX_BYTES;
        if !fits || self.sender.try_send(Job::Line(line.to_vec())).is_err() {
            self.waiting_bytes.fetch_sub(length, Ordering::Relaxed);
            self.lost.inc();
        }
    }
}

/// Writes lines until every [`LogLines`] is dropped.
fn write_all(
    jobs: &Receiver<Job>,
    mut output: impl Write,
    waiting_bytes: &AtomicUsize,
    lost: &Counter,
) {
    let mut told = 0;
    while let Ok(job) = jobs.recv() {
        let Job::Line(line) = job else {
            continue;
        };
        waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
        if output.write_all(&line).is_err() {
            lost.inc();
            continue;
        }
        let all = lost.get();
        if all > told {
            let lines = all - told;
            told = all;
            // It joins the others: this thread must not wait for itself.
            warn!(
                lines,
                "{lines} log lines were lost: the log could not be written in time"
            );
        }
    }
}

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(self)
    }
}

/// Takes one line, which its only caller writes whole.
pub(super) struct LineWriter<'a>(&'a LogLines);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::Sender;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// An output that accepts a line when the test allows it.
    struct Output {
        allowed: Receiver<bool>,
        written: Arc<Mutex<String>>,
    }

    impl Write for Output {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            if self.allowed.recv() != Ok(true) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let mut written = self.written.lock().expect("never poisoned");
            written.push_str(&String::from_utf8_lossy(line));
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns lines to such an output, its switch, and what it holds.
    #[expect(
        clippy::disallowed_methods,
        reason = "the test itself sends few messages"
    )]
    fn lines() -> (LogLines, Sender<bool>, Arc<Mutex<String>>) {
        let (allow, allowed) = std::sync::mpsc::channel();
        let written = Arc::new(Mutex::new(String::new()));
        let output = Output {
            allowed,
            written: Arc::clone(&written),
        };
        (LogLines::to(output).expect("a thread"), allow, written)
    }

    #[test]
    fn a_stuck_output_delays_nothing_and_its_losses_are_counted() {
        let (lines, allow, written) = lines();
        let many = MAX_LINES + 100;
        for _ in 0..many {
            lines.push(b"a line\n");
        }
        // One more is in the hands of the thread.
        let lost = lines.lost().get();
        assert!((99..=100).contains(&lost), "{lost}");
        lines.finish(Duration::ZERO);

        for _ in 0..many {
            allow.send(true).expect("it is written");
        }
        while !written.lock().expect("never poisoned").contains("a line\n") {}
        lines.finish(LONG);
        let written = written.lock().expect("never poisoned").lines().count();
        assert_eq!(written as u64, many as u64 - lost);
    }

    #[test]
    fn the_bytes_that_wait_are_bounded() {
        let (lines, _allow, _) = lines();
        for _ in 0..40 {
            lines.push(&[b'x'; MAX_BYTES / 16]);
        }
        assert!(lines.lost().get() >= 40 - 17, "{}", lines.lost().get());
    }

    #[test]
    fn a_line_that_a_full_disk_refuses_is_counted() {
        let (lines, allow, written) = lines();
        for accepted in [true, false, true] {
            allow.send(accepted).expect("it is written");
            lines.push(b"a line\n");
        }
        lines.finish(LONG);
        assert_eq!(lines.lost().get(), 1);
        assert_eq!(*written.lock().expect("never poisoned"), "a line\na line\n");
    }
}
