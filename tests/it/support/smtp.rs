//! A mail server with STARTTLS, whose certificate is of a CA of its own.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::support::process::within;

pub(crate) const USER: &str = "ivesk@example.lt";
pub(crate) const PASSWORD: &str = "planted-password";

/// How connections to the server begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Plain text, and STARTTLS.
    StartTls,
    /// Plain text for ever.
    Plain,
    /// TLS.
    Tls,
}

/// A message that the server took.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    /// Head and body, as sent.
    pub(crate) data: String,
    pub(crate) encrypted: bool,
    /// True if [`USER`] had logged in with [`PASSWORD`].
    pub(crate) logged_in: bool,
}

impl Mail {
    /// Returns the value of a header, unfolded.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let head = self.data.split("\r\n\r\n").next()?.replace("\r\n ", " ");
        let prefix = format!("{name}: ");
        head.lines()
            .find_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
    }

    /// Returns the decoded body.
    pub(crate) fn body(&self) -> String {
        let (_, body) = self.data.split_once("\r\n\r\n").expect("a body");
        match self.header("Content-Transfer-Encoding").as_deref() {
            Some("base64") => {
                let joined: String = body.split_whitespace().collect();
                let bytes = STANDARD.decode(joined).expect("base64");
                String::from_utf8(bytes).expect("text")
            }
            Some("quoted-printable") => {
                let joined = body.replace("=\r\n", "");
                let mut bytes = Vec::new();
                let mut rest = joined.as_bytes();
                while let Some((&first, after)) = rest.split_first() {
                    let code = after
                        .get(..2)
                        .and_then(|code| std::str::from_utf8(code).ok());
                    match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
                        Some(byte) if first == b'=' => {
                            bytes.push(byte);
                            rest = &after[2..];
                        }
                        _ => {
                            bytes.push(first);
                            rest = after;
                        }
                    }
                }
                String::from_utf8(bytes).expect("text")
            }
            _ => body.to_owned(),
        }
    }
}

#[derive(Default)]
struct Taken {
    mails: Vec<Mail>,
    /// Answers to the next messages, in place of 250.
    refusals: VecDeque<&'static str>,
    /// Recipients that the server does not know.
    unknown: Vec<&'static str>,
    /// True if QUIT is never answered.
    stays: bool,
    /// Every command but DATA's content, as received.
    commands: Vec<String>,
}

pub(crate) struct SmtpServer {
    pub(crate) port: u16,
    /// The CA's certificate.
    pub(crate) ca_pem: String,
    taken: Arc<Mutex<Taken>>,
    changes: watch::Sender<usize>,
}

impl SmtpServer {
    pub(crate) async fn start(offer: Offer) -> Self {
        let (acceptor, ca_pem) = certificate();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let server = Self {
            port: listener.local_addr().expect("an address").port(),
            ca_pem,
            taken: Arc::default(),
            changes: watch::Sender::new(0),
        };
        let (taken, changes) = (Arc::clone(&server.taken), server.changes.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let session = Session {
                    offer,
                    encrypted: false,
                    taken: Arc::clone(&taken),
                    changes: changes.clone(),
                };
                let acceptor = acceptor.clone();
                // A client that leaves in the middle is of no interest.
                tokio::spawn(async move { session.serve(stream, acceptor).await });
            }
        });
        server
    }

    /// Refuses the next message with this answer.
    pub(crate) fn refuse(&self, answer: &'static str) {
        self.taken.lock().unwrap().refusals.push_back(answer);
    }

    /// Refuses this recipient from now on.
    pub(crate) fn refuse_recipient(&self, address: &'static str) {
        self.taken.lock().unwrap().unknown.push(address);
    }

    /// Never answers QUIT from now on.
    pub(crate) fn stay(&self) {
        self.taken.lock().unwrap().stays = true;
    }

    pub(crate) fn mails(&self) -> Vec<Mail> {
        self.taken.lock().unwrap().mails.clone()
    }

    pub(crate) fn commands(&self) -> String {
        self.taken.lock().unwrap().commands.join("\n")
    }

    /// Waits until the server has taken `count` messages.
    pub(crate) async fn until_taken(&self, count: usize) -> Vec<Mail> {
        let mut changes = self.changes.subscribe();
        let reached = changes.wait_for(|taken| *taken >= count);
        within("a message", reached).await.expect("it runs");
        self.mails()
    }
}

/// Creates a certificate for `localhost`, and the CA that signed it.
fn certificate() -> (TlsAcceptor, String) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).expect("a certificate");
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().expect("a key");
    let names = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let signed = names.signed_by(&key, &issuer).expect("a certificate");
    let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![signed.der().clone()], private)
        .expect("a configuration");
    (TlsAcceptor::from(Arc::new(config)), ca_certificate.pem())
}

/// What ends a conversation.
enum End {
    StartTls,
    Closed,
}

struct Session {
    offer: Offer,
    encrypted: bool,
    taken: Arc<Mutex<Taken>>,
    changes: watch::Sender<usize>,
}

impl Session {
    async fn serve(mut self, stream: TcpStream, acceptor: TlsAcceptor) -> std::io::Result<()> {
        if self.offer == Offer::Tls {
            self.encrypted = true;
            let mut stream = BufReader::new(acceptor.accept(stream).await?);
            stream.write_all(b"220 test\r\n").await?;
            self.talk(&mut stream).await?;
            return Ok(());
        }
        let mut plain = BufReader::new(stream);
        plain.write_all(b"220 test\r\n").await?;
        if let End::StartTls = self.talk(&mut plain).await? {
            self.encrypted = true;
            let stream = acceptor.accept(plain.into_inner()).await?;
            self.talk(&mut BufReader::new(stream)).await?;
        }
        Ok(())
    }

    async fn talk<S>(&self, stream: &mut BufReader<S>) -> std::io::Result<End>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut mail = Mail {
            from: String::new(),
            to: Vec::new(),
            data: String::new(),
            encrypted: self.encrypted,
            logged_in: false,
        };
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(End::Closed);
            }
            let line = line.trim_end();
            self.taken.lock().unwrap().commands.push(line.to_owned());
            let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
            let answer = match command.to_ascii_uppercase().as_str() {
                "EHLO" => {
                    let starttls = match self.offer == Offer::StartTls && !self.encrypted {
                        true => "250-STARTTLS\r\n",
                        false => "",
                    };
                    format!("250-test\r\n{starttls}250-AUTH PLAIN\r\n250 8BITMIME")
                }
                "STARTTLS" => {
                    stream.write_all(b"220 go\r\n").await?;
                    return Ok(End::StartTls);
                }
                "AUTH" => {
                    let given = rest.strip_prefix("PLAIN ").unwrap_or_default();
                    let expected = STANDARD.encode(format!("\0{USER}\0{PASSWORD}"));
                    mail.logged_in = given == expected;
                    match mail.logged_in {
                        true => "235 welcome".to_owned(),
                        // Some servers repeat what they refuse.
                        false => format!("535 wrong password in {rest}"),
                    }
                }
                "MAIL" => {
                    rest.clone_into(&mut mail.from);
                    "250 ok".to_owned()
                }
                "RCPT" => {
                    let taken = self.taken.lock().unwrap();
                    match taken.unknown.iter().any(|name| rest.contains(name)) {
                        true => "550 5.1.1 no such mailbox".to_owned(),
                        false => {
                            mail.to.push(rest.to_owned());
                            "250 ok".to_owned()
                        }
                    }
                }
                "DATA" => {
                    stream.write_all(b"354 go on\r\n").await?;
                    let mut data = Vec::new();
                    while !data.ends_with(b"\r\n.\r\n") {
                        data.push(stream.read_u8().await?);
                    }
                    data.truncate(data.len() - 5);
                    mail.data = String::from_utf8(data).expect("text");
                    self.take(&mail)
                }
                "QUIT" if self.taken.lock().unwrap().stays => {
                    // Until the client leaves.
                    stream.read_line(&mut String::new()).await?;
                    return Ok(End::Closed);
                }
                "QUIT" => {
                    stream.write_all(b"221 bye\r\n").await?;
                    return Ok(End::Closed);
                }
                _ => "250 ok".to_owned(),
            };
            stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
        }
    }

    fn take(&self, mail: &Mail) -> String {
        let mut taken = self.taken.lock().unwrap();
        if let Some(refusal) = taken.refusals.pop_front() {
            return refusal.to_owned();
        }
        taken.mails.push(mail.clone());
        self.changes.send_replace(taken.mails.len());
        "250 taken".to_owned()
    }
}
