//! Telling an alarm to the address or the command that the settings name.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::command;
use crate::config::{AlarmCommand, AlarmTarget, AlarmsConfig};
use crate::domain::Timestamp;
use crate::egress;
use crate::store::AlarmNotice;

/// How long the other side may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What the other side is given.
#[derive(Serialize)]
struct Message<'a> {
    service: &'static str,
    /// The alarm's number: its beginning and its end have the same.
    id: i64,
    alarm: &'static str,
    subject: &'a str,
    state: &'static str,
    /// The whole in one sentence, under the name that chat programs read.
    text: String,
    raised_at: Timestamp,
    ended_at: Option<Timestamp>,
}

impl<'a> Message<'a> {
    fn of(notice: &'a AlarmNotice) -> Self {
        let alarm = &notice.alarm;
        let (service, kind) = (env!("CARGO_PKG_NAME"), alarm.kind.as_str());
        let (state, ended_at) = match notice.over {
            false => ("raised", None),
            true => ("over", alarm.ended_at),
        };
        let over = if notice.over { " is over" } else { "" };
        Self {
            service,
            id: alarm.id,
            alarm: kind,
            subject: &alarm.subject,
            state,
            text: format!("{service}: alarm {kind}{over}: {}", alarm.text),
            raised_at: alarm.raised_at,
            ended_at,
        }
    }
}

/// Whom alarms are told.
pub(super) enum Notifier {
    Http {
        client: reqwest::Client,
        url: SecretString,
    },
    Command(AlarmCommand),
}

impl Notifier {
    /// The one that the settings name, if they name one.
    pub(super) fn of(settings: &AlarmsConfig) -> Result<Option<Self>, reqwest::Error> {
        Ok(match &settings.target {
            None => None,
            Some(AlarmTarget::Url(url)) => Some(Self::Http {
                client: egress::client(TIMEOUT)?,
                url: url.clone(),
            }),
            Some(AlarmTarget::Command(command)) => Some(Self::Command(command.clone())),
        })
    }

    /// Tells it once.
    ///
    /// # Errors
    ///
    /// What went wrong, for people; the address, which may be a secret, is not in it.
    pub(super) async fn tell(&self, notice: &AlarmNotice) -> Result<(), String> {
        // Text and numbers alone, which JSON can always say.
        let message = serde_json::to_vec(&Message::of(notice)).unwrap_or_default();
        match self {
            Self::Command(command) => command::run(command, message, TIMEOUT).await,
            Self::Http { client, url } => {
                let sent = client
                    .post(url.expose_secret())
                    .header(CONTENT_TYPE, "application/json")
                    .body(message)
                    .send()
                    .await;
                match sent {
                    Ok(answer) if answer.status().is_success() => Ok(()),
                    Ok(answer) => Err(format!(
                        "`alarms.url` answered {}",
                        answer.status().as_u16()
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
