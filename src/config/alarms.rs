//! `[alarms]`: when something counts as wrong, and who is told.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};
use url::Url;

use super::check::{is_loopback, shortened};
use super::layers::Layers;

/// When something counts as wrong, and who is told.
#[derive(Clone, Debug)]
pub struct AlarmsConfig {
    /// `alarms.url` or `alarms.command`, one of them; none by default: then alarms are
    /// in the log and on the admin listener alone.
    pub target: Option<AlarmTarget>,
    /// `alarms.silence_after`, default 15 min: documents have been there so long, and no
    /// notification has come.
    pub silence_after: Duration,
    /// `alarms.behind_after`, default 2 h: a feed has not been up to date for so much
    /// longer than [`PullConfig::reconcile_every`].
    pub behind_after: Duration,
    /// `alarms.destination_after`, default 30 min: a destination has failed so long.
    pub destination_after: Duration,
    /// `alarms.refusals`, default 20: messages of one event refused within ten minutes.
    pub refusals: u64,
    /// `alarms.certificate_left`, default 7 d: a signing certificate ends sooner.
    pub certificate_left: Duration,
    /// `alarms.free_bytes`, default 1 GiB: the disk has less room.
    pub free_bytes: u64,
}

impl Default for AlarmsConfig {
    fn default() -> Self {
        Self {
            target: None,
            silence_after: Duration::from_secs(15 * 60),
            behind_after: Duration::from_secs(2 * 60 * 60),
            destination_after: Duration::from_secs(30 * 60),
            refusals: 20,
            certificate_left: Duration::from_secs(7 * 24 * 60 * 60),
            free_bytes: 1024 * 1024 * 1024,
        }
    }
}

/// Who is told of alarms.
#[derive(Clone, Debug)]
pub enum AlarmTarget {
    /// A POST goes to this address: https; `http` on loopback only. A secret, since
    /// chat programs give out addresses that anybody who knows them may post to.
    Url(SecretString),
    /// A program is run.
    Command(AlarmCommand),
}

/// A program that is given an alarm as JSON on its standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlarmCommand {
    /// An absolute path, or one relative to the settings file.
    pub program: PathBuf,
    /// What it is started with.
    pub arguments: Vec<String>,
}

/// `[alarms]`
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
        |given, layers| {
            let words = given.list()?;
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
        layers.contradiction(
            "alarms.command",
            "is set, and `alarms.url` too; keep one of the two: the command can send to several",
        );
    }
    let url = url.map(|url| AlarmTarget::Url(String::from(url).into()));
    AlarmsConfig {
        target: url.or(command.map(AlarmTarget::Command)),
        silence_after: layers.duration("alarms.silence_after", default.silence_after),
        behind_after: layers.duration("alarms.behind_after", default.behind_after),
        destination_after: layers.duration("alarms.destination_after", default.destination_after),
        refusals: layers.number("alarms.refusals", default.refusals, 1..=1_000_000),
        certificate_left: layers.duration("alarms.certificate_left", default.certificate_left),
        free_bytes: layers.number("alarms.free_bytes", default.free_bytes, 0..=1 << 50),
    }
}

/// `alarms.url`
fn alarm_url(text: &str) -> Result<Url, String> {
    // What is wrong is told without the address, which may be a secret.
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

/// A program and its arguments.
fn command(words: &[String]) -> Result<(&str, &[String]), String> {
    match words {
        [program, arguments @ ..] if program.contains('/') => Ok((program, arguments)),
        [] => Err("is empty; write a program and its arguments, or remove it".to_owned()),
        [program, ..] => Err(format!(
            "names the program `{}` without its folder, and no shell looks for it; write its \
             whole path, or one relative to the settings file with a /",
            shortened(program)
        )),
    }
}
