//! Sends notices of alarms to the URL, the command or the mailbox that the settings name.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::email;
use crate::config::{AlarmEmail, AlarmTarget, Config};
use crate::domain::Timestamp;
use crate::egress;
use crate::program::{self, Program};
use crate::store::AlarmNotice;

/// Time limit of one notice.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A notice as the target receives it.
#[derive(Serialize)]
struct Payload<'a> {
    service: &'static str,
    /// The alarm's number, the same when it is raised and when it ends.
    id: i64,
    alarm: &'static str,
    subject: &'a str,
    state: &'static str,
    /// A full sentence, under the name that chat programs read.
    text: String,
    raised_at: Timestamp,
    ended_at: Option<Timestamp>,
}

impl<'a> Payload<'a> {
    fn new(notice: &'a AlarmNotice) -> Self {
        let alarm = &notice.alarm;
        let (service, kind) = (env!("CARGO_PKG_NAME"), alarm.kind.as_str());
        let (state, ended_at) = match notice.over {
            false => ("raised", None),
            true => ("ended", alarm.ended_at),
        };
        let ended = if notice.over { " has ended" } else { "" };
        Self {
            service,
            id: alarm.id,
            alarm: kind,
            subject: &alarm.subject,
            state,
            text: format!("{service}: alarm {kind}{ended}: {}", alarm.text),
            raised_at: alarm.raised_at,
            ended_at,
        }
    }
}

/// The target of notices.
pub(super) enum Notifier {
    Http {
        client: reqwest::Client,
        url: SecretString,
    },
    Command(Program),
    Email(Box<AlarmEmail>),
}

impl Notifier {
    /// Returns the target that the settings name, if any.
    pub(super) fn from_settings(config: &Config) -> Result<Option<Self>, egress::SetupError> {
        Ok(match &config.alarms.target {
            None => None,
            Some(AlarmTarget::Url(url)) => Some(Self::Http {
                client: egress::client(config.egress.proxy.as_ref(), TIMEOUT)?,
                url: url.clone(),
            }),
            Some(AlarmTarget::Email(email)) => Some(Self::Email(Box::new(email.clone()))),
            Some(AlarmTarget::Command(command)) => Some(Self::Command(Program {
                path: command.program.clone(),
                arguments: command.arguments.clone(),
                environment: program::base_environment(config.environment.variables()),
                folder: None,
                timeout: TIMEOUT,
            })),
        })
    }

    /// Returns true if notices say how many alarms are active.
    pub(super) fn tells_active(&self) -> bool {
        matches!(self, Self::Email(_))
    }

    /// Sends a notice once; `active` is the number of active alarms, if it is known.
    ///
    /// # Errors
    ///
    /// Returns the problem; the URL, which may be a secret, is not part of it.
    pub(super) async fn send(
        &self,
        notice: &AlarmNotice,
        active: Option<usize>,
    ) -> Result<(), String> {
        // Texts and numbers always serialize.
        let payload = serde_json::to_vec(&Payload::new(notice)).unwrap_or_default();
        match self {
            Self::Email(settings) => {
                let (subject, text) = letter(notice, active);
                email::send(settings, &subject, &text).await
            }
            Self::Command(program) => {
                let finished = program.run(payload, &[]).await;
                let finished = finished.map_err(|error| format!("`alarms.command` {error}"))?;
                // Its output may contain anything, so none of it goes to our log.
                if finished.status.success() {
                    Ok(())
                } else {
                    Err(format!("`alarms.command` failed with {}", finished.status))
                }
            }
            Self::Http { client, url } => {
                let sent = client
                    .post(url.expose_secret())
                    .header(CONTENT_TYPE, "application/json")
                    .body(payload)
                    .send()
                    .await;
                match sent {
                    Ok(response) if response.status().is_success() => Ok(()),
                    Ok(response) => Err(format!(
                        "`alarms.url` answered {}",
                        response.status().as_u16()
                    )),
                    Err(error) => Err(format!(
                        "`alarms.url` could not be reached: {}",
                        egress::describe(error)
                    )),
                }
            }
        }
    }
}

/// Returns the subject and the text of an e-mail.
fn letter(notice: &AlarmNotice, active: Option<usize>) -> (String, String) {
    let Payload {
        service,
        state,
        alarm,
        subject,
        text,
        raised_at,
        ended_at,
        id,
    } = Payload::new(notice);
    let count = active.map_or_else(String::new, |active| format!(" ({active} active)"));
    let title = format!("[{service}] {state}: {alarm} {subject}{count}");
    let mut lines = format!("{text}\n\nAlarm {id}, raised at {raised_at}");
    if let Some(at) = ended_at {
        lines.push_str(&format!(", ended at {at}"));
    }
    lines.push_str(".\n");
    if let Some(active) = active {
        lines.push_str(&format!(
            "Active alarms now: {active}. `{service} open` prints a link to the page that lists them.\n"
        ));
    }
    (title, lines)
}
