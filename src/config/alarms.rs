//! `[alarms]`: when an alarm is on, and who is notified.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};
use url::Url;

use super::check::{excerpt, is_loopback};
use super::layers::Layers;

/// When an alarm is on, and who is notified.
#[derive(Clone, Debug)]
pub struct AlarmsConfig {
    /// `alarms.url` or `alarms.command`, one of them; none by default: then alarms are only in
    /// the log and on the admin listener.
    pub target: Option<AlarmTarget>,
    /// `alarms.behind_after`, default 2 h: how much longer than
    /// [`reconcile_every`](super::PullConfig::reconcile_every) ago the last pull of a feed may
    /// have ended, complete or not.
    pub behind_after: Duration,
    /// `alarms.destination_after`, default 30 min: how long a destination may fail.
    pub destination_after: Duration,
}

impl Default for AlarmsConfig {
    fn default() -> Self {
        Self {
            target: None,
            behind_after: Duration::from_secs(2 * 60 * 60),
            destination_after: Duration::from_secs(30 * 60),
        }
    }
}

/// The receiver of alarms.
#[derive(Clone, Debug)]
pub enum AlarmTarget {
    /// An address that receives a POST: https; `http` on loopback only. A secret, since anybody
    /// who knows the address of a chat's webhook may post there.
    Url(SecretString),
    /// A program that is run.
    Command(AlarmCommand),
}

/// A program that receives an alarm as JSON on its standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlarmCommand {
    /// An absolute path, or one relative to the settings file.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// Reads `[alarms]`.
pub(super) fn read(layers: &mut Layers<'_>) -> AlarmsConfig {
    let default = AlarmsConfig::default();
    let url = layers.text(
        "alarms.url",
        None,
        |text| alarm_url(text).map(Some),
        |url| url.as_ref().map_or(Value::Null, |_: &Url| "[set]".into()),
    );
    let command = layers.read(
        "alarms.command",
        None,
        |value, layers| {
            let words = value.list()?;
            let (program, arguments) = command(&words)?;
            Ok(Some(AlarmCommand {
                program: layers.path(program),
                arguments: arguments.to_vec(),
            }))
        },
        |command| {
            command
                .as_ref()
                .map_or(Value::Null, |command: &AlarmCommand| json!(command.program))
        },
    );
    if url.is_some() && command.is_some() {
        layers.report(
            "alarms.command",
            "is set, and `alarms.url` too; keep one of the two: a command can notify several \
             receivers",
        );
    }
    let url = url.map(|url| AlarmTarget::Url(String::from(url).into()));
    AlarmsConfig {
        target: url.or(command.map(AlarmTarget::Command)),
        behind_after: layers.duration("alarms.behind_after", default.behind_after),
        destination_after: layers.duration("alarms.destination_after", default.destination_after),
    }
}

/// Parses `alarms.url`, without repeating it in messages: it may be a secret.
fn alarm_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|_| {
        "is not a URL; write one such as https://chat.example.lt/hooks/…".to_owned()
    })?;
    match url.scheme() {
        "https" if url.host().is_some() => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => Err(
            "does not begin with https://; only a loopback address may begin with http://"
                .to_owned(),
        ),
    }
}

/// Splits a command into the program and its arguments.
fn command(words: &[String]) -> Result<(&str, &[String]), String> {
    match words {
        [program, arguments @ ..] if program.contains('/') => Ok((program, arguments)),
        [] => Err("is empty; write a program and its arguments, or remove it".to_owned()),
        [program, ..] => Err(format!(
            "`{}` is not a path, and programs are not searched for; write the whole path, or one \
             relative to the settings file with a / in it",
            excerpt(program)
        )),
    }
}
