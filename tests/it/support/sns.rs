//! Messages, signers and servers for the tests of `sns`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ivesk_webhook::config::SnsConfig;
use ivesk_webhook::domain::{Clock, Timestamp};
use ivesk_webhook::emulator::signer::{SNS_NAME, Signer, Unsigned};
use ivesk_webhook::sns::{
    CertificateStore, Envelope, MessageType, NoCertificateStore, SnsHeaders, VerifiedMessage,
    Verifier, VerifyError,
};

pub(crate) const TOPIC: &str = "arn:aws:sns:eu-west-1:007272210889:DPWebHook_onexport";
/// A topic of the same name in another account.
pub(crate) const STRANGERS_TOPIC: &str = "arn:aws:sns:eu-west-1:111122223333:DPWebHook_onexport";
pub(crate) const TOKEN: &str = "2336412f37fb687f5d51e6e2425929f52e8e353134fe72d5";
pub(crate) const NOW: &str = "2026-11-23T08:00:00.000Z";

/// Signs with a certificate that is valid in 2026, for the name that SNS uses in Ireland.
pub(crate) static SIGNER: LazyLock<Signer> = LazyLock::new(|| signer_named(SNS_NAME));
/// Signs as [`SIGNER`] does, with another key.
pub(crate) static OTHER_SIGNER: LazyLock<Signer> = LazyLock::new(|| signer_named(SNS_NAME));

pub(crate) fn signer_named(name: &str) -> Signer {
    Signer::generate(
        name,
        time("2026-01-01T00:00:00Z"),
        time("2026-12-31T23:59:59Z"),
    )
    .unwrap()
}

pub(crate) fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

pub(crate) fn clock() -> Clock {
    Clock::manual(time(NOW))
}

/// Returns the URL at SNS of the signer's certificate.
pub(crate) fn sns_url(signer: &Signer) -> String {
    format!(
        "https://sns.eu-west-1.amazonaws.com{}",
        signer.certificate_path()
    )
}

pub(crate) fn subscribe_url(origin: &str) -> String {
    format!("{origin}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={TOKEN}")
}

/// Returns a message as the vendor's topic sends it, published at [`NOW`].
pub(crate) fn unsigned(message_type: MessageType) -> Unsigned {
    let confirmation = message_type != MessageType::Notification;
    let attributes = serde_json::json!({
        "account" : {"Type" : "String", "Value" : "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"}
    });
    Unsigned {
        message_type,
        message_id: "165545c9-2a5c-472c-8df2-7ff2be2b3b1b".to_owned(),
        topic_arn: TOPIC.to_owned(),
        subject: None,
        message: "{\"companyCode\":\"302320404\"}".to_owned(),
        timestamp: NOW.to_owned(),
        token: confirmation.then(|| TOKEN.to_owned()),
        subscribe_url: confirmation.then(|| subscribe_url("https://sns.eu-west-1.amazonaws.com")),
        unsubscribe_url: (!confirmation)
            .then(|| "https://sns.eu-west-1.amazonaws.com/?Action=Unsubscribe".to_owned()),
        attributes: attributes.as_object().cloned().unwrap(),
    }
}

pub(crate) fn notification() -> Unsigned {
    unsigned(MessageType::Notification)
}

/// Signs a message with [`SIGNER`] and SHA-1, as the vendor's sample is signed.
pub(crate) fn signed(message: &Unsigned) -> String {
    SIGNER.sign(message, 1, &sns_url(&SIGNER))
}

pub(crate) fn parse(body: &str) -> Result<Envelope, VerifyError> {
    parse_with(body, &SnsHeaders::default())
}

pub(crate) fn parse_with(body: &str, headers: &SnsHeaders) -> Result<Envelope, VerifyError> {
    Envelope::parse(Bytes::copy_from_slice(body.as_bytes()), headers)
}

/// Certificates in memory; counts how often they are loaded.
pub(crate) struct MemoryCertificates {
    pub(crate) saved: Mutex<Vec<(String, Vec<u8>)>>,
    pub(crate) loads: AtomicUsize,
}

impl MemoryCertificates {
    /// Returns these signers' certificates under their URLs at SNS.
    pub(crate) fn with(signers: &[&Signer]) -> Arc<Self> {
        let saved = signers
            .iter()
            .map(|signer| (sns_url(signer), signer.certificate_pem().into()))
            .collect();
        Arc::new(Self {
            saved: Mutex::new(saved),
            loads: AtomicUsize::new(0),
        })
    }
}

#[async_trait]
impl CertificateStore for MemoryCertificates {
    async fn load(&self) -> Vec<(String, Vec<u8>)> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.saved.lock().unwrap().clone()
    }
    async fn save(&self, url: &str, pem: &[u8]) {
        self.saved
            .lock()
            .unwrap()
            .push((url.to_owned(), pem.to_vec()));
    }
}

/// Returns a verifier with the default policy that knows the certificate of [`SIGNER`].
pub(crate) fn verifier() -> Verifier {
    verifier_at(clock())
}

/// Returns [`verifier`] with another clock.
pub(crate) fn verifier_at(clock: Clock) -> Verifier {
    let certificates = MemoryCertificates::with(&[&SIGNER]);
    verifier_with(&SnsConfig::default(), certificates, clock)
}

/// Returns a verifier that has no certificate yet.
pub(crate) fn verifier_without_certificates(config: &SnsConfig, clock: Clock) -> Verifier {
    verifier_with(config, Arc::new(NoCertificateStore), clock)
}

pub(crate) fn verifier_with(
    config: &SnsConfig,
    certificates: Arc<dyn CertificateStore>,
    clock: Clock,
) -> Verifier {
    Verifier::new(&config.settings(), certificates, clock).unwrap()
}

/// Returns an origin that refuses connections, and settings that trust it.
pub(crate) async fn closed_origin() -> (String, SnsConfig) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let config = SnsConfig {
        local_origins: vec![origin.clone()],
        ..SnsConfig::default()
    };
    (origin, config)
}

/// Parses and verifies a message.
pub(crate) async fn verify(
    verifier: &Verifier,
    body: &str,
) -> Result<VerifiedMessage, VerifyError> {
    verifier.verify(parse(body)?).await
}

/// Verifies a message; returns the code of the refusal, or `valid`.
pub(crate) async fn code(verifier: &Verifier, body: &str) -> &'static str {
    match verify(verifier, body).await {
        Ok(_) => "valid",
        Err(refusal) => refusal.code(),
    }
}

/// Answer of the [`Server`] at a path.
#[derive(Clone)]
pub(crate) enum Answer {
    Body(Vec<u8>),
    Status(u16, &'static str),
    RedirectTo(String),
    Never,
}

/// A server on loopback that counts its requests and answers 404 on unknown paths.
#[derive(Clone, Default)]
pub(crate) struct Server {
    pub(crate) origin: String,
    answers: Arc<Mutex<HashMap<String, Answer>>>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            origin: format!("http://{}", listener.local_addr().unwrap()),
            ..Self::default()
        };
        let router = axum::Router::new()
            .fallback(Self::handle)
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    pub(crate) fn answer(&self, path: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// Serves the signer's certificate; returns its URL.
    pub(crate) fn serve(&self, path: &str, signer: &Signer) -> String {
        self.answer(path, Answer::Body(signer.certificate_pem().into()));
        format!("{}{path}", self.origin)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Returns the default policy with this server as a local origin.
    pub(crate) fn config(&self) -> SnsConfig {
        SnsConfig {
            local_origins: vec![self.origin.clone()],
            ..SnsConfig::default()
        }
    }

    async fn handle(State(server): State<Self>, uri: Uri) -> Response {
        server.requests.fetch_add(1, Ordering::SeqCst);
        let answer = server.answers.lock().unwrap().get(uri.path()).cloned();
        match answer {
            Some(Answer::Body(body)) => body.into_response(),
            Some(Answer::Status(status, body)) => {
                (StatusCode::from_u16(status).unwrap(), body).into_response()
            }
            Some(Answer::RedirectTo(url)) => {
                (StatusCode::FOUND, [("location", url)]).into_response()
            }
            Some(Answer::Never) => std::future::pending().await,
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }
}
