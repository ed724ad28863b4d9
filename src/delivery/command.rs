//! Delivers to a program: JSON on standard input, the exit code is the response.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::destination::{Destination, DestinationResponse};
use crate::program::{self, Finished, Program, ProgramError};
use crate::store::Delivery;
use crate::visible::foreign;

/// Exit code of a rejection (`sysexits.h`, `EX_DATAERR`).
const REJECTED: i32 = 65;
/// Exit code of a temporary failure (`sysexits.h`, `EX_TEMPFAIL`).
const TEMPORARY_FAILURE: i32 = 75;

/// A destination that is a program.
pub(super) struct Command {
    program: Program,
}

impl Command {
    /// Creates a destination that runs `program` in `folder`, with the variables of the service
    /// that every program receives and those that `passed` names.
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
        let path = whole(program)?;
        let mut environment = program::base_environment(service);
        for name in passed {
            let value = service.get(name).ok_or_else(|| {
                format!("`environment` names {name}, which is not set; set it, or remove it there")
            })?;
            environment.insert(name.clone(), value.clone());
        }
        program::check(&path, &environment)
            .map_err(|reason| format!("`program` {} {reason}", path.display()))?;
        Ok(Self {
            program: Program {
                path,
                arguments: arguments.to_vec(),
                environment,
                folder: Some(folder),
                timeout,
            },
        })
    }
}

#[async_trait]
impl Destination for Command {
    async fn deliver(&self, delivery: &Delivery) -> DestinationResponse {
        let Some(input) = delivery.to_json() else {
            return DestinationResponse::corrupt_document();
        };
        let (key, sequence) = (
            delivery.key(),
            format!("{}:{}", delivery.epoch, delivery.sequence),
        );
        // For scripts that don't read JSON.
        let variables = [
            ("IVESK_KEY", key.as_str()),
            ("IVESK_ACCOUNT", delivery.feed.account.as_str()),
            ("IVESK_QUEUE", delivery.feed.queue.as_str()),
            ("IVESK_COMPANY", delivery.feed.company.as_str()),
            ("IVESK_DOCUMENT_ID", &delivery.document_id),
            ("IVESK_VERSION", &delivery.version),
            ("IVESK_SEQUENCE", &sequence),
        ];
        match self.program.run(input, &variables).await {
            Ok(finished) => classify(&finished),
            Err(error @ (ProgramError::Unrunnable(_) | ProgramError::Start(_))) => {
                DestinationResponse::unavailable(format!("{} {error}", self.program.path.display()))
            }
            Err(ProgramError::Wait(error)) => DestinationResponse::unavailable(format!(
                "failed to wait for the program to exit: {error}"
            )),
            Err(ProgramError::TimedOut(timeout)) => DestinationResponse::unavailable(format!(
                "the program was killed: it did not exit within {timeout:?} (`timeout`)"
            )),
        }
    }

    fn leaves_notes(&self) -> bool {
        false
    }
}

/// Returns the response that a program's end means.
fn classify(finished: &Finished) -> DestinationResponse {
    let exited = match finished.status.code() {
        Some(0) => return DestinationResponse::Accepted { note: None },
        Some(REJECTED) => match message(&finished.stdout) {
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
        None => format!("the program was killed ({})", finished.status),
    };
    let errors = String::from_utf8_lossy(&finished.stderr);
    let mut lines = errors.lines().rev().map(foreign);
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
