//! Sends notices of alarms by e-mail, as plain text.

use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use secrecy::ExposeSecret as _;

use crate::config::{AlarmEmail, EmailTls};
use crate::visible::foreign;

/// Time limit of each step of a connection.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Time limit of the whole message: a server that answers each step slowly must not hold a notice
/// for longer than its lease.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest subject and text, in characters.
const MAX_SUBJECT_CHARS: usize = 150;
const MAX_TEXT_CHARS: usize = 10_000;

/// Sends one message over a connection of its own.
///
/// # Errors
///
/// Returns the problem. The server's answer is part of it, the password is not.
pub(super) async fn send(settings: &AlarmEmail, subject: &str, text: &str) -> Result<(), String> {
    let message = message(settings, subject, text)?;
    let transport = transport(settings)?;
    let failed = |error: String| {
        let (host, port) = (&settings.host, settings.port);
        format!("`alarms.email.server` {host}:{port}: {}", foreign(&error))
    };
    match tokio::time::timeout(TOTAL_TIMEOUT, transport.send(message)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(failed(described(&error))),
        Err(_) => Err(failed(format!("no answer within {TOTAL_TIMEOUT:?}"))),
    }
}

/// Returns an error with its causes.
fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn message(settings: &AlarmEmail, subject: &str, text: &str) -> Result<Message, String> {
    // A line break would begin another header.
    let subject: String = subject
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_SUBJECT_CHARS)
        .collect();
    let text: String = text.chars().take(MAX_TEXT_CHARS).collect();
    let mut builder = Message::builder()
        .from(settings.from.clone())
        .subject(subject)
        .header(ContentType::TEXT_PLAIN)
        .message_id(None);
    for to in &settings.to {
        builder = builder.to(to.clone());
    }
    builder
        .body(text)
        .map_err(|error| format!("the message could not be written: {error}"))
}

fn transport(settings: &AlarmEmail) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    let parameters = || {
        TlsParameters::new(settings.host.clone())
            .map_err(|error| format!("TLS can't be set up: {}", described(&error)))
    };
    let tls = match settings.tls {
        // Without STARTTLS nothing is sent.
        EmailTls::StartTls => Tls::Required(parameters()?),
        EmailTls::Implicit => Tls::Wrapper(parameters()?),
        EmailTls::None => Tls::None,
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&settings.host)
        .port(settings.port)
        .tls(tls)
        .hello_name(ClientId::Domain(settings.from.email.domain().to_owned()))
        .timeout(Some(TIMEOUT));
    if let Some((username, password)) = &settings.login {
        builder = builder.credentials(Credentials::new(
            username.clone(),
            password.expose_secret().to_owned(),
        ));
    }
    Ok(builder.build())
}
