//! `[alarms]`: when an alarm is on, and who is notified.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use lettre::message::Mailbox;
use secrecy::SecretString;
use serde_json::{Value, json};
use url::Url;

use super::check::{excerpt, is_loopback};
use super::layers::Layers;
use super::problem::HIDDEN;

/// When an alarm is on, and who is notified.
#[derive(Clone, Debug)]
pub struct AlarmsConfig {
    /// `alarms.url`, `alarms.command` or `alarms.email`, one of them; none by default: then alarms
    /// are only in the log and on the admin listener.
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
    /// Mailboxes, by a mail server.
    Email(AlarmEmail),
}

/// Mailboxes that receive alarms, and the server that takes the messages.
#[derive(Clone, Debug)]
pub struct AlarmEmail {
    /// The host of `alarms.email.server`.
    pub host: String,
    /// Its port; by default that of `alarms.email.tls`.
    pub port: u16,
    /// `alarms.email.tls`, default `starttls`.
    pub tls: EmailTls,
    /// `alarms.email.from`.
    pub from: Mailbox,
    /// `alarms.email.to`; at least one.
    pub to: Vec<Mailbox>,
    /// `alarms.email.username`, and the password of `alarms.email.password_file`.
    pub login: Option<(String, SecretString)>,
}

/// How the connection to a mail server is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmailTls {
    /// `starttls`: from the first command on, or nothing is sent.
    #[default]
    StartTls,
    /// `tls`: from the first byte on.
    Implicit,
    /// `none`: not at all, on loopback only.
    None,
}

impl EmailTls {
    const fn as_str(self) -> &'static str {
        match self {
            Self::StartTls => "starttls",
            Self::Implicit => "tls",
            Self::None => "none",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::StartTls => 587,
            Self::Implicit => 465,
            Self::None => 25,
        }
    }
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
        |url| url.as_ref().map_or(Value::Null, |_: &Url| HIDDEN.into()),
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
    let email = email(layers);
    if email.is_some() && (url.is_some() || command.is_some()) {
        layers.report(
            "alarms.email.server",
            "is set, and `alarms.url` or `alarms.command` too; keep one of them",
        );
    }
    let url = url.map(|url| AlarmTarget::Url(String::from(url).into()));
    AlarmsConfig {
        target: url
            .or(command.map(AlarmTarget::Command))
            .or(email.map(AlarmTarget::Email)),
        behind_after: layers.duration("alarms.behind_after", default.behind_after),
        destination_after: layers.duration("alarms.destination_after", default.destination_after),
    }
}

/// Reads `[alarms.email]`; `None` if it names no server.
fn email(layers: &mut Layers<'_>) -> Option<AlarmEmail> {
    let server = layers.text(
        "alarms.email.server",
        None,
        |text| mail_server(text).map(Some),
        |server| {
            server
                .as_ref()
                .map_or(Value::Null, |(host, port)| match port {
                    Some(port) => format!("{host}:{port}").into(),
                    None => host.as_str().into(),
                })
        },
    );
    let tls = layers.text(
        "alarms.email.tls",
        EmailTls::default(),
        |text| {
            let all = [EmailTls::StartTls, EmailTls::Implicit, EmailTls::None];
            all.into_iter()
                .find(|tls| tls.as_str() == text)
                .ok_or_else(|| {
                    format!(
                        "`{}` is none of \"starttls\", \"tls\" and \"none\"; write one of them",
                        excerpt(text)
                    )
                })
        },
        |tls| tls.as_str().into(),
    );
    let from = layers.text(
        "alarms.email.from",
        None,
        |text| mailbox(text).map(Some),
        |from| json!(from.as_ref().map(Mailbox::to_string)),
    );
    let to = layers.list("alarms.email.to", Vec::new(), mailbox, |to| {
        to.to_string().into()
    });
    let username = layers.text(
        "alarms.email.username",
        None,
        |text| Ok(Some(text.to_owned())),
        |username| json!(username),
    );
    let password = layers.secret(
        "alarms.email.password_file",
        "IVESK_WEBHOOK_ALARMS_EMAIL_PASSWORD",
        |text| Ok(text.into()),
    );
    let Some((host, port)) = server else {
        let is_set = [
            ("alarms.email.from", from.is_some()),
            ("alarms.email.to", !to.is_empty()),
            ("alarms.email.username", username.is_some()),
            ("alarms.email.password_file", password.is_some()),
        ];
        for (name, _) in is_set.into_iter().filter(|(_, is_set)| *is_set) {
            if !layers.is_invalid("alarms.email.server") {
                layers.report(
                    name,
                    "is set, and `alarms.email.server` is not; set that too, or remove this",
                );
            }
        }
        return None;
    };
    if tls == EmailTls::None && !is_loopback_host(&host) {
        layers.report(
            "alarms.email.tls",
            "is \"none\", which is for a server on this machine only; write \"starttls\" or \"tls\"",
        );
    }
    if from.is_none() && !layers.is_invalid("alarms.email.from") {
        layers.report(
            "alarms.email.from",
            "is missing; write the address that alarms come from",
        );
    }
    if to.is_empty() && !layers.is_invalid("alarms.email.to") {
        layers.report(
            "alarms.email.to",
            "is missing; write the addresses that alarms are sent to, such as [\"ops@example.lt\"]",
        );
    }
    if to.len() > MAX_RECIPIENTS {
        layers.report(
            "alarms.email.to",
            format!("has more than {MAX_RECIPIENTS} addresses; write that of a mailing list"),
        );
    }
    let login = match (username, password) {
        (Some(username), Some(password)) => Some((username, password)),
        (None, None) => None,
        (Some(_), None) => {
            layers.report(
                "alarms.email.username",
                "is set, and no password is; set `alarms.email.password_file` or IVESK_WEBHOOK_ALARMS_EMAIL_PASSWORD",
            );
            None
        }
        (None, Some(_)) => {
            layers.report(
                "alarms.email.password_file",
                "is set, and `alarms.email.username` is not; set both or neither",
            );
            None
        }
    };
    Some(AlarmEmail {
        host,
        port: port.unwrap_or(tls.default_port()),
        tls,
        from: from?,
        to,
        login,
    })
}

/// Most addresses of `alarms.email.to`.
const MAX_RECIPIENTS: usize = 20;

/// Parses `alarms.email.server`: a host, and a port if it is not the usual one.
fn mail_server(text: &str) -> Result<(String, Option<u16>), String> {
    let invalid = || {
        format!(
            "`{}` is not a host with or without a port; write one such as smtp.example.lt or smtp.example.lt:2525",
            excerpt(text)
        )
    };
    // What a URL allows as a host.
    let url = Url::parse(&format!("https://{text}")).map_err(|_| invalid())?;
    let host = url.host_str().filter(|host| !host.is_empty());
    let bare = match url.port() {
        Some(port) => format!("{}:{port}", host.unwrap_or_default()),
        None => host.unwrap_or_default().to_owned(),
    };
    match host {
        Some(host) if bare.eq_ignore_ascii_case(text) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Ok((host.to_owned(), url.port()))
        }
        _ => Err(invalid()),
    }
}

/// Returns true for a name or an address of this machine.
fn is_loopback_host(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Parses an address, with or without a name.
fn mailbox(text: &str) -> Result<Mailbox, String> {
    text.parse().map_err(|_| {
        format!(
            "`{}` is not an e-mail address; write one such as ops@example.lt or \"Ops <ops@example.lt>\"",
            excerpt(text)
        )
    })
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
