//! Re-signs saved messages, with a certificate served on this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::Router;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::outcome::Failure;
use crate::domain::Clock;
use crate::emulator::signer::{SNS_NAME, Signer, Unsigned};
use crate::sns::MessageType;

/// Validity of the certificate, before and after now. A receiver verifies a message as of
/// the time of its arrival, so no more is needed.
const VALIDITY: Duration = Duration::from_secs(24 * 60 * 60);

/// Options of re-signing.
#[derive(Clone, Copy, Debug)]
pub(super) struct SignOptions {
    /// Port that serves the certificate; 0 for any free port.
    pub(super) port: u16,
    /// Uses a new MessageId and Timestamp for each message.
    pub(super) fresh: bool,
}

/// Re-signs messages, and serves the certificate until dropped.
pub(super) struct Resigner {
    signer: Signer,
    address: SocketAddr,
    fresh: bool,
    clock: Clock,
    _server: AbortOnDropHandle<()>,
}

impl Resigner {
    /// Creates a key and starts serving its certificate.
    ///
    /// # Errors
    ///
    /// If no key can be created, or the port can't be listened on.
    pub(super) async fn start(options: SignOptions) -> Result<Self, Failure> {
        let clock = Clock::system();
        let now = clock.now();
        let signer = Signer::generate(SNS_NAME, now.before(VALIDITY), now.after(VALIDITY))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port))
            .await
            .with_context(|| format!("failed to listen on --sign-port {}", options.port))
            .map_err(Failure::usage)?;
        let address = listener.local_addr()?;
        let pem = signer.certificate_pem().to_owned();
        let routes = Router::new().route(
            &signer.certificate_path(),
            get(move || std::future::ready(pem.clone())),
        );
        let server = tokio::spawn(async move {
            // Serves until this command ends; a client that fails fails for itself.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self {
            signer,
            address,
            fresh: options.fresh,
            clock,
            _server: AbortOnDropHandle::new(server),
        })
    }

    /// Returns the origin that the receiver's `sns.local_origins` must contain.
    pub(super) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the saved message with a new signature of the same SignatureVersion.
    ///
    /// # Errors
    ///
    /// If `saved` is no SNS message.
    pub(super) fn sign(&self, saved: &[u8]) -> Result<Vec<u8>, anyhow::Error> {
        let (mut message, version) = read(saved)?;
        if self.fresh {
            message.message_id = fresh_id()?;
            message.timestamp = self.clock.now().to_string();
        }
        let url = format!("{}{}", self.origin(), self.signer.certificate_path());
        Ok(self.signer.sign(&message, version, &url).into_bytes())
    }
}

/// A saved message of SNS.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    #[serde(rename = "Type")]
    message_type: String,
    message_id: String,
    topic_arn: String,
    subject: Option<String>,
    message: String,
    timestamp: String,
    token: Option<String>,
    #[serde(rename = "SubscribeURL")]
    subscribe_url: Option<String>,
    #[serde(rename = "UnsubscribeURL")]
    unsubscribe_url: Option<String>,
    signature_version: Option<String>,
    message_attributes: Option<Map<String, Value>>,
}

fn read(saved: &[u8]) -> Result<(Unsigned, u8), anyhow::Error> {
    let saved: Saved = serde_json::from_slice(saved).context("not an SNS message")?;
    let message_type = MessageType::parse(&saved.message_type)
        .ok_or_else(|| anyhow!("`Type` is not a type that SNS sends"))?;
    let version = match saved.signature_version.as_deref() {
        Some("2") => 2,
        _ => 1,
    };
    let unsigned = Unsigned {
        message_type,
        message_id: saved.message_id,
        topic_arn: saved.topic_arn,
        subject: saved.subject,
        message: saved.message,
        timestamp: saved.timestamp,
        token: saved.token,
        subscribe_url: saved.subscribe_url,
        unsubscribe_url: saved.unsubscribe_url,
        attributes: saved.message_attributes.unwrap_or_default(),
    };
    Ok((unsigned, version))
}

/// Returns a random UUID, the form of SNS's message ids.
fn fresh_id() -> Result<String, anyhow::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("failed to get random bytes: {error}"))?;
    Ok(uuid::Builder::from_random_bytes(bytes)
        .into_uuid()
        .to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::config::SnsConfig;
    use crate::sns::{Envelope, NoCertificateStore, SnsHeaders, Verifier};

    const SAVED: &[u8] = br#"{"Type":"Notification","MessageId":"22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn":"arn:aws:sns:eu-west-1:007272210889:DPWebHook_onexport","Subject":"x\u0161",
        "Message":"{\"companyCode\":\"302320404\"}","Timestamp":"2012-05-02T00:54:06.000Z",
        "SignatureVersion":"2","Signature":"eA==","SigningCertURL":"https://sns.eu-west-1.amazonaws.com/x.pem"}"#;

    async fn resigner(fresh: bool) -> Resigner {
        let options = SignOptions { port: 0, fresh };
        let started = Resigner::start(options).await;
        started.unwrap_or_else(|failure| panic!("{failure:?}"))
    }

    #[tokio::test]
    async fn a_receiver_that_trusts_the_origin_accepts_a_message() {
        let resigner = resigner(true).await;
        let config = SnsConfig {
            local_origins: vec![resigner.origin()],
            ..SnsConfig::default()
        };
        let clock = Clock::system();
        let verifier = Verifier::new(&config.settings(), Arc::new(NoCertificateStore), clock)
            .expect("a client can be made");

        let body = resigner.sign(SAVED).expect("a message that can be signed");
        let again = resigner.sign(SAVED).expect("a message that can be signed");
        assert_ne!(body, again, "each has its own id");

        let envelope = Envelope::parse(Bytes::from(body), &SnsHeaders::default());
        let message = verifier
            .verify(envelope.expect("the shape of an SNS message"))
            .await;
        let message = message.expect("genuine for this receiver");
        assert_eq!(message.message(), r#"{"companyCode":"302320404"}"#);
    }

    #[tokio::test]
    async fn without_fresh_only_the_signature_changes() {
        let resigner = resigner(false).await;
        let body = resigner.sign(SAVED).expect("a message that can be signed");
        let before: Value = serde_json::from_slice(SAVED).expect("JSON");
        let after: Value = serde_json::from_slice(&body).expect("JSON");
        for field in [
            "Type",
            "MessageId",
            "TopicArn",
            "Subject",
            "Message",
            "Timestamp",
            "SignatureVersion",
        ] {
            assert_eq!(before[field], after[field], "{field}");
        }
        assert_ne!(before["Signature"], after["Signature"]);
    }

    #[tokio::test]
    async fn other_files_than_sns_messages_are_errors() {
        let resigner = resigner(false).await;
        for saved in [&b"not json"[..], b"{}", br#"{"Type":"Advert"}"#] {
            assert!(resigner.sign(saved).is_err());
        }
    }
}
