//! Sends notices of alarms by e-mail, as plain text.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::Message;
use lettre::address::Envelope;
use lettre::message::header::ContentType;
use lettre::transport::smtp;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use secrecy::ExposeSecret as _;
use tracing::warn;

use crate::config::{AlarmEmail, EmailTls};
use crate::visible::foreign;

/// Time limit of connecting.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Time that a server has to say goodbye after it has taken a message.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Time limit of the whole message: a server that never answers, or answers each step slowly, must not
/// hold a notice for longer than its lease.
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
    let server = MailServer::new(settings)?;
    let failed = |error: String| {
        let (host, port) = (&settings.host, settings.port);
        let error = without_password(settings, &error);
        format!("`alarms.email.server` {host}:{port}: {}", foreign(&error))
    };
    let (envelope, bytes) = (message.envelope().clone(), message.formatted());
    let mut taken = false;
    let sending = async {
        let refused = match server.send(&envelope, &bytes, &mut taken).await {
            Ok(()) => return Ok(()),
            Err(error) if envelope.to().len() > 1 && refuses_message(&error) => error,
            Err(error) => return Err(error),
        };
        for to in envelope.to() {
            let Ok(one) = Envelope::new(envelope.from().cloned(), vec![to.clone()]) else {
                continue;
            };
            if let Err(error) = server.send(&one, &bytes, &mut taken).await {
                warn!(
                    "failed to send an alarm to {to}: {}. Fix: correct `alarms.email.to`",
                    failed(described(&error))
                );
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
fn refuses_message(error: &smtp::Error) -> bool {
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

/// How the mail server is reached.
struct MailServer<'a> {
    settings: &'a AlarmEmail,
    hello: ClientId,
    tls: TlsParameters,
}

impl<'a> MailServer<'a> {
    fn new(settings: &'a AlarmEmail) -> Result<Self, String> {
        let tls = TlsParameters::new(settings.host.clone());
        Ok(Self {
            settings,
            hello: ClientId::Domain(settings.from.email.domain().to_owned()),
            tls: tls.map_err(|error| format!("TLS can't be set up: {}", described(&error)))?,
        })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "to `alarms.email.server` alone, with the encryption of the settings"
    )]
    async fn connect(&self) -> Result<AsyncSmtpConnection, smtp::Error> {
        let Self {
            settings, hello, ..
        } = self;
        let server = (settings.host.as_str(), settings.port);
        let tls = (settings.tls == EmailTls::Implicit).then(|| self.tls.clone());
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(server, Some(TIMEOUT), hello, tls, None).await?;
        if settings.tls == EmailTls::StartTls {
            // Without STARTTLS nothing is sent.
            connection.starttls(self.tls.clone(), hello).await?;
        }
        if let Some((username, password)) = &settings.login {
            let password = password.expose_secret().to_owned();
            let credentials = Credentials::new(username.clone(), password);
            connection.auth(DEFAULT_MECHANISMS, &credentials).await?;
        }
        Ok(connection)
    }

    /// Sends a message, and sets `taken` once the server has taken it. Whatever becomes of the goodbye
    /// after it, it must not be sent again.
    async fn send(
        &self,
        envelope: &Envelope,
        bytes: &[u8],
        taken: &mut bool,
    ) -> Result<(), smtp::Error> {
        let mut connection = self.connect().await?;
        connection.send(envelope, bytes).await?;
        *taken = true;
        // The library's own way to send waits for it without end.
        let _ = tokio::time::timeout(QUIT_TIMEOUT, connection.abort()).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{Instant, sleep};

    use super::*;

    /// A mail server that waits before each answer, and never answers a command.
    struct Slow {
        wait: Duration,
        silent_at: &'static str,
        taken: Arc<AtomicUsize>,
    }

    impl Slow {
        async fn serve(self, listener: TcpListener) {
            while let Ok((stream, _)) = listener.accept().await {
                // The client leaves when it likes.
                let _ = self.talk(stream).await;
            }
        }

        async fn talk(&self, stream: TcpStream) -> std::io::Result<()> {
            let mut stream = BufReader::new(stream);
            let mut command = String::from("HELLO");
            let mut in_data = false;
            loop {
                if command.starts_with(self.silent_at) {
                    // It holds the connection.
                    std::future::pending::<()>().await;
                }
                let answer = match command.trim_end() {
                    "." => {
                        in_data = false;
                        self.taken.fetch_add(1, Ordering::SeqCst);
                        "250 taken"
                    }
                    _ if in_data => "",
                    "HELLO" => "220 test",
                    "DATA" => {
                        in_data = true;
                        "354 go on"
                    }
                    _ => "250 ok",
                };
                if !answer.is_empty() {
                    sleep(self.wait).await;
                    stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
                }
                command.clear();
                if stream.read_line(&mut command).await? == 0 {
                    return Ok(());
                }
            }
        }
    }

    /// Sends a message to a slow server; returns the result, the time and how many it has taken.
    async fn send_to(
        wait: Duration,
        silent_at: &'static str,
    ) -> (Result<(), String>, Duration, usize) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let taken = Arc::new(AtomicUsize::new(0));
        let server = Slow {
            wait,
            silent_at,
            taken: Arc::clone(&taken),
        };
        let serving = tokio::spawn(server.serve(listener));
        let settings = AlarmEmail {
            host: "127.0.0.1".to_owned(),
            port,
            tls: EmailTls::None,
            from: "ivesk@example.lt".parse().expect("an address"),
            to: vec!["ops@example.lt".parse().expect("an address")],
            login: None,
        };
        let began = Instant::now();
        let sent = send(&settings, "subject", "text").await;
        serving.abort();
        (sent, began.elapsed(), taken.load(Ordering::SeqCst))
    }

    #[tokio::test(start_paused = true)]
    async fn a_mail_server_that_never_answers_is_given_up() {
        for silent_at in ["HELLO", "EHLO", "RCPT", "DATA", "."] {
            let (sent, elapsed, taken) = send_to(Duration::ZERO, silent_at).await;
            let error = sent.expect_err("it never answers");
            assert!(error.contains("no answer within 60s"), "{error}");
            assert!(
                elapsed <= TOTAL_TIMEOUT + Duration::from_secs(1),
                "{elapsed:?}"
            );
            assert_eq!(taken, 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_mail_server_that_answers_slowly_is_given_up() {
        let (sent, elapsed, _) = send_to(Duration::from_secs(25), "never").await;
        let error = sent.expect_err("each step is too slow");
        assert!(error.contains("no answer within 60s"), "{error}");
        assert!(
            elapsed <= TOTAL_TIMEOUT + Duration::from_secs(1),
            "{elapsed:?}"
        );
    }
}
