//! Runs the command that the settings name.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::config::AlarmCommand;

/// `PATH` of the command.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs the command with `input` on its standard input, without a shell and without this
/// process's environment, which holds secrets.
///
/// # Errors
///
/// Fails if the command can't be started, takes longer than `limit`, or exits with another
/// status than 0.
pub(super) async fn run(
    command: &AlarmCommand,
    input: Vec<u8>,
    limit: Duration,
) -> Result<(), String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "its environment is cleared, and it ends with its time"
    )]
    let mut child = Command::new(&command.program)
        .args(&command.arguments)
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::piped())
        // Its output may contain anything, so none of it goes to our log.
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("`alarms.command` can't be started: {error}"))?;
    let stdin = child.stdin.take();
    let work = async {
        if let Some(mut stdin) = stdin {
            // A command need not read its input: its exit status decides.
            let _ = stdin.write_all(&input).await;
        }
        child.wait().await
    };
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("`alarms.command` failed with {status}")),
        Ok(Err(error)) => Err(format!("failed to wait for `alarms.command`: {error}")),
        Err(_) => Err(format!(
            "`alarms.command` took longer than {} s and was killed",
            limit.as_secs()
        )),
    }
}
