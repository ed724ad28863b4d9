//! Running the command that the settings name.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::config::AlarmCommand;

/// Where the command finds the programs that it runs itself.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs it, without a shell and without this process's environment, which holds
/// secrets; gives it `input` and waits for its end.
///
/// # Errors
///
/// What went wrong, for people: that it can't be started, that it took longer than
/// `limit`, or how it ended where that is not with 0.
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
        // What it says may hold anything: it is for its own log, not for ours.
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("`alarms.command` can't be started: {error}"))?;
    let stdin = child.stdin.take();
    let work = async {
        if let Some(mut stdin) = stdin {
            // A command that does not read is no failure: its exit status decides.
            let _ = stdin.write_all(&input).await;
        }
        child.wait().await
    };
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("`alarms.command` ended with {status}")),
        Ok(Err(error)) => Err(format!("`alarms.command` can't be waited for: {error}")),
        Err(_) => Err(format!(
            "`alarms.command` took longer than {} s and was ended",
            limit.as_secs()
        )),
    }
}
