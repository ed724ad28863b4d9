//! Delivers to a program: JSON on standard input, the exit code is the response.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::{Access, access};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command as Process};

use super::destination::{Destination, DestinationResponse};
use crate::egress;
use crate::store::Delivery;

/// Exit code of a rejection (`sysexits.h`, `EX_DATAERR`).
const REJECTED: i32 = 65;
/// Exit code of a temporary failure (`sysexits.h`, `EX_TEMPFAIL`).
const TEMPORARY_FAILURE: i32 = 75;
/// Variables of the service that every program receives.
const PASSED: [&str; 5] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ"];
/// `PATH` of the program if the service has none.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Bytes that are kept of each output; the rest is read and discarded.
const MAX_OUTPUT_BYTES: usize = 64 * 1024;
/// Time that processes which the program left behind may hold its pipes open.
const LINGER: Duration = Duration::from_secs(1);

/// A destination that is a program.
pub(super) struct Command {
    program: PathBuf,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    folder: PathBuf,
    timeout: Duration,
}

impl Command {
    /// Creates a destination that runs `program` in `folder`, with the variables of the
    /// service that [`PASSED`] and `passed` name.
    ///
    /// # Errors
    ///
    /// Fails if the program can't be run, or a variable is not set.
    pub(super) fn new(
        program: &Path,
        arguments: &[String],
        passed: &[String],
        service: &BTreeMap<String, String>,
        folder: &Path,
        timeout: Duration,
    ) -> Result<Self, String> {
        let whole = |path: &Path| {
            std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        // An empty path is the folder that the service was started in.
        let folder = whole(&Path::new(".").join(folder))?;
        let program = whole(program)?;
        check(&program)?;
        let mut environment = BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned())]);
        for name in PASSED {
            let value = service.get(name).filter(|value| !value.is_empty());
            environment.extend(value.map(|value| (name.to_owned(), value.clone())));
        }
        for name in passed {
            let value = service.get(name).ok_or_else(|| {
                format!("`environment` names {name}, which is not set; set it, or remove it there")
            })?;
            environment.insert(name.clone(), value.clone());
        }
        Ok(Self {
            program,
            arguments: arguments.to_vec(),
            environment,
            folder,
            timeout,
        })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "its environment is cleared, and it ends with its time"
    )]
    fn start(&self, delivery: &Delivery) -> std::io::Result<Child> {
        let sequence = format!("{}:{}", delivery.epoch, delivery.sequence);
        Process::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            // For scripts that don't read JSON.
            .env("IVESK_KEY", delivery.key())
            .env("IVESK_ACCOUNT", delivery.feed.account.as_str())
            .env("IVESK_QUEUE", delivery.feed.queue.as_str())
            .env("IVESK_COMPANY", delivery.feed.company.as_str())
            .env("IVESK_DOCUMENT_ID", &delivery.document_id)
            .env("IVESK_VERSION", &delivery.version)
            .env("IVESK_SEQUENCE", sequence)
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that its children are killed with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Runs the program until it exits. If this future is dropped, the program and its
    /// children are killed.
    async fn run(&self, delivery: &Delivery, mut input: Vec<u8>) -> DestinationResponse {
        input.push(b'\n');
        let mut child = match self.start(delivery) {
            Ok(child) => child,
            Err(error) => {
                return DestinationResponse::unavailable(format!(
                    "{} can't be started: {error}",
                    self.program.display()
                ));
            }
        };
        let mut group = Group::of(&child);
        let stdin = child.stdin.take();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut output = Vec::new();
        let mut errors = Vec::new();
        let exited = {
            let write = async {
                if let Some(mut stdin) = stdin {
                    // A program need not read its input to the end.
                    let _ = stdin.write_all(&input).await;
                }
            };
            let read = async {
                tokio::join!(
                    write,
                    keep(stdout, &mut output, Kept::First),
                    keep(stderr, &mut errors, Kept::Last)
                );
            };
            let mut read = pin!(read);
            let exited = tokio::select! {
                exited = child.wait() => {
                    // Background processes must not hold the pipes open.
                    group.kill();
                    let _ = tokio::time::timeout(LINGER, &mut read).await;
                    exited
                }
                () = &mut read => child.wait().await,
            };
            exited
        };
        match exited {
            Ok(status) => classify(status, &output, &errors),
            Err(error) => DestinationResponse::unavailable(format!(
                "failed to wait for the program to exit: {error}"
            )),
        }
    }
}

#[async_trait]
impl Destination for Command {
    async fn deliver(&self, delivery: &Delivery) -> DestinationResponse {
        let Some(input) = delivery.to_json() else {
            return DestinationResponse::corrupt_document();
        };
        let run = tokio::time::timeout(self.timeout, self.run(delivery, input));
        run.await.unwrap_or_else(|_| {
            DestinationResponse::unavailable(format!(
                "the program was killed: it did not exit within {:?} (`timeout`)",
                self.timeout
            ))
        })
    }
}

/// Checks that the program exists and is executable for the service's user.
fn check(program: &Path) -> Result<(), String> {
    let shown = program.display();
    let about = std::fs::metadata(program)
        .map_err(|error| format!("`program` {shown} can't be found: {error}"))?;
    if !about.is_file() {
        return Err(format!("`program` {shown} is not a file"));
    }
    access(program, Access::EXEC_OK).map_err(|_| {
        format!("`program` {shown} can't be run; make it executable for the service's user")
    })
}

/// The process group of a program, killed on drop.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    fn kill(&mut self) {
        // Fails if the group has already ended. The system assigns numbers in turn, so no
        // other group has this one yet.
        let group = self.0.take();
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
    }
}

impl Drop for Group {
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

/// Reads a pipe to its end, so that the program never blocks on it, and keeps a part.
async fn keep(pipe: Option<impl AsyncRead + Unpin>, text: &mut Vec<u8>, kept: Kept) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        match kept {
            Kept::First => {
                let room = MAX_OUTPUT_BYTES - text.len();
                text.extend_from_slice(&chunk[..count.min(room)]);
            }
            Kept::Last => {
                text.extend_from_slice(&chunk[..count]);
                let excess = text.len().saturating_sub(MAX_OUTPUT_BYTES);
                text.drain(..excess);
            }
        }
    }
}

/// Returns the response that an exit status means; `output` and `errors` are the program's
/// standard output and standard error.
fn classify(status: ExitStatus, output: &[u8], errors: &[u8]) -> DestinationResponse {
    let exited = match status.code() {
        Some(0) => return DestinationResponse::Accepted { note: None },
        Some(REJECTED) => match message(output) {
            Some(message) => return DestinationResponse::rejected(&message),
            None => format!(
                "the program exited with {REJECTED} (rejected) without a message on its standard output"
            ),
        },
        Some(TEMPORARY_FAILURE) => {
            format!("the program exited with {TEMPORARY_FAILURE} (temporary failure)")
        }
        Some(code) => format!("the program exited with {code}"),
        // Display of the status names the signal.
        None => format!("the program was killed ({status})"),
    };
    let errors = String::from_utf8_lossy(errors);
    let mut lines = errors.lines().rev().map(egress::sanitize_for_log);
    DestinationResponse::unavailable(match lines.find(|line| !line.is_empty()) {
        Some(line) => format!("{exited}: {line}"),
        None => exited,
    })
}

/// Returns the message of a rejection: `message` of a JSON object, or the text itself.
fn message(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    let text = text.trim_start_matches('\u{feff}').trim();
    let text = match serde_json::from_str::<Value>(text) {
        Ok(object) if object.is_object() => object.get("message")?.as_str()?.trim().to_owned(),
        _ => text.to_owned(),
    };
    (!text.is_empty()).then_some(text)
}
