//! A program that reads JSON from its standard input, and whose exit code is its answer.

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

use super::{Delivery, Destination, Verdict, rejection, unreadable};
use crate::egress;

/// The exit code of a document that the program does not want (`sysexits.h`, `EX_DATAERR`).
const REJECTED: i32 = 65;
/// The exit code of "not now" (`sysexits.h`, `EX_TEMPFAIL`).
const NOT_NOW: i32 = 75;
/// The variables that every program is given, where the service has them.
const PASSED: [&str; 5] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ"];
/// Where programs are looked for, where the service has no `PATH` itself.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// The most that is kept of what it writes; the rest is read and thrown away.
const MAX_OUTPUT_BYTES: usize = 64 * 1024;
/// How long what it left behind may hold its pipes open.
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
    /// A destination that runs `program` in `folder`, with the variables of `ours` that every
    /// program is given and those that `wanted` names.
    ///
    /// # Errors
    ///
    /// A program that can't be run, or a variable that is not set.
    pub(super) fn new(
        program: &Path,
        arguments: &[String],
        wanted: &[String],
        ours: &BTreeMap<String, String>,
        folder: &Path,
        timeout: Duration,
    ) -> Result<Self, String> {
        let whole = |path: &Path| {
            std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        // An empty path is the folder where the service was started.
        let folder = whole(&Path::new(".").join(folder))?;
        let program = whole(program)?;
        check(&program)?;
        let mut environment = BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned())]);
        for name in PASSED {
            let value = ours.get(name).filter(|value| !value.is_empty());
            environment.extend(value.map(|value| (name.to_owned(), value.clone())));
        }
        for name in wanted {
            let value = ours.get(name).ok_or_else(|| {
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
    fn start(&self, item: &Delivery) -> std::io::Result<Child> {
        let sequence = format!("{}:{}", item.epoch, item.sequence);
        Process::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            // So that a script can do without reading JSON.
            .env("IVESK_KEY", item.key())
            .env("IVESK_ACCOUNT", item.feed.account.as_str())
            .env("IVESK_QUEUE", item.feed.queue.as_str())
            .env("IVESK_COMPANY", item.feed.company.as_str())
            .env("IVESK_DOCUMENT_ID", &item.document_id)
            .env("IVESK_VERSION", &item.version)
            .env("IVESK_SEQUENCE", sequence)
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: what it starts ends with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Runs it to its end. Dropped before, the program and all that it started are killed.
    async fn run(&self, item: &Delivery, mut input: Vec<u8>) -> Verdict {
        input.push(b'\n');
        let mut child = match self.start(item) {
            Ok(child) => child,
            Err(error) => {
                let program = self.program.display();
                return unavailable(format!("{program} can't be started: {error}"));
            }
        };
        let mut group = Group::of(&child);
        let stdin = child.stdin.take();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut said = Vec::new();
        let mut complained = Vec::new();
        let ended = {
            let write = async {
                if let Some(mut stdin) = stdin {
                    // A program that does not read to the end has not failed by that.
                    let _ = stdin.write_all(&input).await;
                }
            };
            let read = async {
                tokio::join!(
                    write,
                    keep(stdout, &mut said, Kept::First),
                    keep(stderr, &mut complained, Kept::Last)
                );
            };
            let mut read = pin!(read);
            let ended = tokio::select! {
                ended = child.wait() => {
                    // What it left in the background must not hold the pipes open.
                    group.kill();
                    let _ = tokio::time::timeout(LINGER, &mut read).await;
                    ended
                }
                () = &mut read => child.wait().await,
            };
            ended
        };
        match ended {
            Ok(status) => verdict(status, &said, &complained),
            Err(error) => unavailable(format!("the program's end was not seen: {error}")),
        }
    }
}

#[async_trait]
impl Destination for Command {
    async fn deliver(&self, item: &Delivery) -> Verdict {
        let Some(input) = item.to_json() else {
            return unreadable();
        };
        let run = tokio::time::timeout(self.timeout, self.run(item, input));
        run.await.unwrap_or_else(|_| {
            unavailable(format!(
                "the program was ended: it had not finished after {:?} (`timeout`)",
                self.timeout
            ))
        })
    }
}

/// Whether there is such a program and we may run it.
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

/// The process group of a program; killed when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    fn kill(&mut self) {
        // Fails where the group is empty, which is what is wanted. No other group can have
        // its number so soon: the system gives numbers in turn.
        let group = self.0.take();
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Which part of a long text is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    First,
    Last,
}

/// Reads a pipe to its end, so that the program never waits for us, and keeps a part.
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

/// What an end means. `said` and `complained` are what was written to the two outputs.
fn verdict(status: ExitStatus, said: &[u8], complained: &[u8]) -> Verdict {
    let ended = match status.code() {
        Some(0) => return Verdict::Delivered { note: None },
        Some(REJECTED) => match message(said) {
            Some(message) => return rejection(&message),
            None => format!(
                "it ended with {REJECTED}, a rejection, and wrote no message to its standard output"
            ),
        },
        Some(NOT_NOW) => format!("it ended with {NOT_NOW}: not now"),
        Some(code) => format!("it ended with {code}, which is no answer"),
        // Its Display names the signal.
        None => format!("it was ended from outside ({status})"),
    };
    let last = String::from_utf8_lossy(complained);
    let last = last.lines().rev().map(egress::sanitize_for_log);
    match last.into_iter().find(|line| !line.is_empty()) {
        Some(line) => unavailable(format!("the program did not take it: {ended}; {line}")),
        None => unavailable(format!("the program did not take it: {ended}")),
    }
}

/// The words of a rejection: `message` of a JSON object, or the text itself.
fn message(said: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(said);
    let text = text.trim_start_matches('\u{feff}').trim();
    let text = match serde_json::from_str::<Value>(text) {
        Ok(answer) if answer.is_object() => answer.get("message")?.as_str()?.trim().to_owned(),
        _ => text.to_owned(),
    };
    (!text.is_empty()).then_some(text)
}

fn unavailable(error: String) -> Verdict {
    Verdict::Unavailable {
        error,
        retry_after: None,
    }
}
