//! Sends notices of alarms by e-mail, as plain text.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::address::Envelope;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use secrecy::ExposeSecret as _;
use tracing::warn;

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

/// Answers that refuse the login, which another recipient would not change.
const LOGIN_REFUSALS: [&str; 4] = ["530", "534", "535", "538"];

/// Sends one message over a connection of its own. If the server refuses it for good, each recipient
/// is tried alone: one that is wrong must not keep the others from knowing.
///
/// # Errors
///
/// Returns the problem if no recipient's message was taken. The server's answer is part of it, the
/// password is not.
pub(super) async fn send(settings: &AlarmEmail, subject: &str, text: &str) -> Result<(), String> {
    let message = message(settings, subject, text)?;
    let transport = transport(settings)?;
    let failed = |error: String| {
        let (host, port) = (&settings.host, settings.port);
        let error = without_password(settings, &error);
        format!("`alarms.email.server` {host}:{port}: {}", foreign(&error))
    };
    let (envelope, bytes) = (message.envelope().clone(), message.formatted());
    let mut taken = false;
    let sending = async {
        let refused = match transport.send_raw(&envelope, &bytes).await {
            Ok(_) => return Ok(()),
            Err(error) if envelope.to().len() > 1 && refuses_message(&error) => error,
            Err(error) => return Err(error),
        };
        for to in envelope.to() {
            let Ok(one) = Envelope::new(envelope.from().cloned(), vec![to.clone()]) else {
                continue;
            };
            match transport.send_raw(&one, &bytes).await {
                Ok(_) => taken = true,
                Err(error) => warn!(
                    "failed to send an alarm to {to}: {}. Fix: correct `alarms.email.to`",
                    failed(described(&error))
                ),
            }
        }
        Err(refused)
    };
    let sent = tokio::time::timeout(TOTAL_TIMEOUT, sending).await;
    match sent {
        _ if taken => Ok(()),
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(failed(described(&error))),
        Err(_) => Err(failed(format!("no answer within {TOTAL_TIMEOUT:?}"))),
    }
}

/// Returns true if the server refuses the message or a recipient for good.
fn refuses_message(error: &lettre::transport::smtp::Error) -> bool {
    let code = error.status().map(|code| code.to_string());
    error.is_permanent() && code.is_some_and(|code| !LOGIN_REFUSALS.contains(&code.as_str()))
}

/// Removes the password from a server's answer, which may repeat what was sent.
fn without_password(settings: &AlarmEmail, text: &str) -> String {
    let Some((username, password)) = &settings.login else {
        return text.to_owned();
    };
    let password = password.expose_secret();
    let forms = [
        STANDARD.encode(format!("\0{username}\0{password}")),
        STANDARD.encode(password),
        password.to_owned(),
    ];
    let mut text = text.to_owned();
    for form in forms.iter().filter(|form| !form.is_empty()) {
        text = text.replace(form, "[password]");
    }
    text
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
