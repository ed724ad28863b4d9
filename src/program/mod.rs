//! Runs programs that the settings name: destinations, and the receiver of alarms.
//!
//! No shell, a JSON line on standard input, a small environment, bounded output, and a limit of
//! time after which the program and everything that it started are killed. What a service that was
//! killed itself could not end any more, its next start ends ([`leftovers`]).

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

pub use self::runnable::{Unrunnable, check};

pub mod leftovers;
mod runnable;

/// Variables of the service that every program receives.
const PASSED_VARIABLES: [&str; 5] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ"];

/// `PATH` of the program if the service has none.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Bytes that are kept of each output; the rest is read and discarded.
const MAX_OUTPUT_BYTES: usize = 64 * 1024;

/// Time that processes which the program left behind may hold its pipes open.
const LINGER: Duration = Duration::from_secs(1);

/// A program with its arguments and environment.
#[derive(Clone)]
pub struct Program {
    /// The program's path.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its whole environment, made from [`base_environment`].
    pub environment: BTreeMap<String, String>,
    /// Its working folder; the service's own if none is set.
    pub folder: Option<PathBuf>,
    /// Time after which it is killed.
    pub timeout: Duration,
}

/// The end of a program that ran within its time.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// The beginning of its standard output.
    pub stdout: Vec<u8>,
    /// The end of its standard error.
    pub stderr: Vec<u8>,
}

/// A program has no exit status.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It can't be run, for a reason that is known.
    #[error(transparent)]
    Unrunnable(Unrunnable),
    /// The program could not be started.
    #[error("can't be started: {0}")]
    Start(io::Error),
    /// Its exit status could not be read.
    #[error("has an unknown exit status: {0}")]
    Wait(io::Error),
    /// It was killed after its [`Program::timeout`].
    #[error("was killed: it had not finished after {0:?}")]
    TimedOut(Duration),
}

/// Returns the variables of the service that every program receives.
pub fn base_environment(service: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned())]);
    for name in PASSED_VARIABLES {
        let value = service.get(name).filter(|value| !value.is_empty());
        environment.extend(value.map(|value| (name.to_owned(), value.clone())));
    }
    environment
}

impl Program {
    /// Runs the program with `input`, and a line feed, on its standard input, and the further
    /// `variables`.
    ///
    /// If this future is dropped, the program and its children are killed.
    ///
    /// # Errors
    ///
    /// Returns a [`ProgramError`] if the program could not be started, or did not finish in time.
    pub async fn run(
        &self,
        mut input: Vec<u8>,
        variables: &[(&str, &str)],
    ) -> Result<Finished, ProgramError> {
        input.push(b'\n');
        let run = tokio::time::timeout(self.timeout, self.run_to_end(&input, variables));
        run.await
            .unwrap_or(Err(ProgramError::TimedOut(self.timeout)))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "its environment is cleared, and it ends with its time"
    )]
    fn start(&self, variables: &[(&str, &str)]) -> io::Result<Child> {
        let mut command = Command::new(&self.path);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .envs(variables.iter().copied())
            .envs(leftovers::mark().map(|mark| (leftovers::MARK, mark)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that its children are killed with it.
            .process_group(0)
            .kill_on_drop(true);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command.spawn()
    }

    async fn run_to_end(
        &self,
        input: &[u8],
        variables: &[(&str, &str)],
    ) -> Result<Finished, ProgramError> {
        let mut child = self.start(variables).map_err(|error| {
            let reason = runnable::explain(&error, &self.path, &self.environment);
            reason.map_or(ProgramError::Start(error), ProgramError::Unrunnable)
        })?;
        let mut group = ProcessGroup::of(&child);
        let stdin = child.stdin.take();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut output = Vec::new();
        let mut errors = Vec::new();
        let status = {
            let write = async {
                if let Some(mut stdin) = stdin {
                    // A program need not read its input to the end.
                    let _ = stdin.write_all(input).await;
                }
            };
            let pipes = async {
                tokio::join!(
                    write,
                    keep(stdout, &mut output, Kept::First),
                    keep(stderr, &mut errors, Kept::Last)
                );
            };
            let mut pipes = pin!(pipes);
            let status = tokio::select! {
                status = child.wait() => {
                    // Background processes must not hold the pipes open.
                    group.kill();
                    let _ = tokio::time::timeout(LINGER, &mut pipes).await;
                    status
                }
                () = &mut pipes => child.wait().await,
            };
            status
        };
        Ok(Finished {
            status: status.map_err(ProgramError::Wait)?,
            stdout: output,
            stderr: errors,
        })
    }
}

/// The process group of a program; killed when this is dropped.
struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    fn kill(&mut self) {
        // An error means that the group is empty. No other group has its number yet: the system
        // assigns numbers in turn.
        let group = self.0.take();
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The part of a long output that is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    First,
    Last,
}

/// Reads a pipe to its end, so that the program never blocks, and keeps a part.
async fn keep(pipe: Option<impl AsyncRead + Unpin>, output: &mut Vec<u8>, kept: Kept) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        match kept {
            Kept::First => {
                let room = MAX_OUTPUT_BYTES - output.len();
                output.extend_from_slice(&chunk[..count.min(room)]);
            }
            Kept::Last => {
                output.extend_from_slice(&chunk[..count]);
                let excess = output.len().saturating_sub(MAX_OUTPUT_BYTES);
                output.drain(..excess);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Duration) -> Program {
        Program {
            path: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            environment: base_environment(&BTreeMap::new()),
            folder: None,
            timeout,
        }
    }

    #[tokio::test]
    async fn a_program_reads_a_line_and_its_variables() {
        let program = shell("read -r line; echo \"$line $KEY\"", Duration::from_secs(20));
        let finished = program.run(b"{}".to_vec(), &[("KEY", "k")]).await;
        let finished = finished.expect("it finishes");
        assert!(finished.status.success());
        assert_eq!(finished.stdout, b"{} k\n");
    }

    #[tokio::test]
    async fn a_program_is_killed_with_its_children_at_the_limit() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("late");
        let script = format!("(sleep 1; touch {}) & wait", file.display());
        let program = shell(&script, Duration::from_millis(100));
        let error = program.run(Vec::new(), &[]).await.expect_err("too late");
        assert!(matches!(error, ProgramError::TimedOut(_)), "{error}");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(!file.exists());
    }

    #[test]
    fn a_program_gets_the_few_variables_that_are_set() {
        let service = [("HOME", "/h"), ("TZ", ""), ("SECRET", "s")];
        let service = service.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = base_environment(&BTreeMap::from(service));
        let names: Vec<_> = environment.keys().map(String::as_str).collect();
        assert_eq!(names, ["HOME", "PATH"]);
    }
}
