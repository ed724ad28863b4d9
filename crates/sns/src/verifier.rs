//! The verdict: from an envelope to a message that may be acted on.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use secrecy::SecretString;

use super::MessageType;
use super::canonical::CanonicalText;
use super::certificate::{Certificate, CertificateSummary};
use super::certificate_cache::{
    CERTIFICATE_TIMEOUT, CertificateShelf, Certificates, NoShelf, Source,
};
use super::envelope::{Contents, Envelope};
use super::policy::{CertificateOrigin, Policy, TopicArn};
use super::signature::Signature;
use crate::config::SnsConfig;
use crate::domain::{Clock, Timestamp};
use crate::egress;
use crate::refusal::Refusal;

/// How far SNS's clock may be ahead of this machine's.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// A message whose signature, topic and certificate were checked.
///
/// Only [`Verifier`] makes one, so whatever asks for one can't be given anything
/// unproven. Every field comes from the text that the signature covers.
///
/// ```compile_fail
/// let forged = ivesk_webhook::sns::VerifiedMessage {};
/// ```
pub struct VerifiedMessage {
    body: Bytes,
    message_type: MessageType,
    text: CanonicalText,
    timestamp: Timestamp,
    token: Option<SecretString>,
    subscribe_url: Option<SecretString>,
    certificate: Arc<Certificate>,
}

impl VerifiedMessage {
    /// The body as it came.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Which of the three types it is.
    pub fn message_type(&self) -> MessageType {
        self.message_type
    }

    /// `MessageId`.
    pub fn message_id(&self) -> &str {
        self.text.message_id()
    }

    /// `TopicArn`.
    pub fn topic_arn(&self) -> &str {
        self.text.topic_arn()
    }

    /// `Timestamp`: when it was published.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// `Subject`, which only notifications sign.
    pub fn subject(&self) -> Option<&str> {
        self.text.subject()
    }

    /// `Message`, unescaped.
    pub fn message(&self) -> &str {
        self.text.message()
    }

    /// `Token`; the two confirmation types have one.
    pub fn token(&self) -> Option<&SecretString> {
        self.token.as_ref()
    }

    /// `SubscribeURL`; the two confirmation types have one, and policy has agreed to it.
    pub fn subscribe_url(&self) -> Option<&SecretString> {
        self.subscribe_url.as_ref()
    }

    /// The certificate that proved it.
    pub fn certificate(&self) -> &CertificateSummary {
        self.certificate.summary()
    }
}

impl fmt::Debug for VerifiedMessage {
    /// Without body, message, token and URLs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedMessage")
            .field("message_type", &self.message_type)
            .field("message_id", &self.message_id())
            .field("topic_arn", &self.topic_arn())
            .field("timestamp", &self.timestamp)
            .finish_non_exhaustive()
    }
}

/// How saved messages are judged, long after they came.
#[derive(Clone, Debug, Default)]
pub struct SavedMessages {
    /// The folder that holds the certificates, by the last path segment of their URL;
    /// `None` fetches them.
    pub certificates: Option<PathBuf>,
    /// Whether the allowlist is lifted.
    pub any_topic: bool,
}

/// Checks messages against the trust policy.
pub struct Verifier {
    policy: Arc<Policy>,
    certificates: Arc<Certificates>,
    clock: Clock,
    /// `None` leaves the age aside.
    max_age: Option<Duration>,
}

impl Verifier {
    /// A verifier for messages as they come. Warns loudly where `config` names local origins.
    ///
    /// # Errors
    ///
    /// Where no HTTPS client can be made, such as without CA certificates.
    pub fn new(
        config: &SnsConfig,
        shelf: Arc<dyn CertificateShelf>,
        clock: Clock,
    ) -> Result<Self, reqwest::Error> {
        let source = Source::Network(egress::client(CERTIFICATE_TIMEOUT)?);
        let policy = Policy::new(config);
        for origin in policy.local_origins() {
            tracing::warn!(
                %origin,
                "`sns.local_origins` trusts whoever answers at {origin}: \
                 never set it where real invoices arrive"
            );
        }
        Ok(Self::with(
            policy,
            source,
            shelf,
            clock,
            Some(config.max_age),
        ))
    }

    /// A verifier for saved messages, which leaves their age aside.
    ///
    /// # Errors
    ///
    /// As [`Verifier::new`], where certificates are to be fetched.
    pub fn for_saved(
        config: &SnsConfig,
        saved: SavedMessages,
        clock: Clock,
    ) -> Result<Self, reqwest::Error> {
        let source = match saved.certificates {
            Some(folder) => Source::Folder(folder),
            None => Source::Network(egress::client(CERTIFICATE_TIMEOUT)?),
        };
        let policy = if saved.any_topic {
            Policy::new(config).with_any_topic()
        } else {
            Policy::new(config)
        };
        Ok(Self::with(policy, source, Arc::new(NoShelf), clock, None))
    }

    fn with(
        policy: Policy,
        source: Source,
        shelf: Arc<dyn CertificateShelf>,
        clock: Clock,
        max_age: Option<Duration>,
    ) -> Self {
        let policy = Arc::new(policy);
        let certificates = Certificates::new(source, Arc::clone(&policy), clock.clone(), shelf);
        Self {
            policy,
            certificates: Arc::new(certificates),
            clock,
            max_age,
        }
    }

    /// Whether messages of this topic may speak to us.
    pub fn allows_topic(&self, topic_arn: &str) -> bool {
        TopicArn::parse(topic_arn).is_some_and(|topic| self.policy.allows(&topic))
    }

    /// The certificate at `url`, if a message brought it here.
    pub fn known_certificate(&self, url: &str) -> Option<CertificateSummary> {
        let certificate = self.certificates.held(url)?;
        Some(certificate.summary().clone())
    }

    /// Verifies `envelope` as of now and gives the message that it carries.
    ///
    /// Waits for nothing where the certificate is known; else for at most
    /// [`CERTIFICATE_TIMEOUT`].
    ///
    /// # Errors
    ///
    /// From [`Refusal::TopicNotAllowed`] to [`Refusal::FromTheFuture`] in the order of
    /// [`Refusal::CODES`], one for each reason.
    pub async fn verify(&self, envelope: Envelope) -> Result<VerifiedMessage, Refusal> {
        let now = self.clock.now();
        self.verify_at(envelope, now).await
    }

    /// Verifies `envelope` as of `received_at`: dates and age are judged at that moment.
    ///
    /// # Errors
    ///
    /// As [`Verifier::verify`].
    pub async fn verify_at(
        &self,
        envelope: Envelope,
        received_at: Timestamp,
    ) -> Result<VerifiedMessage, Refusal> {
        let Envelope { body, contents } = envelope;
        let (origin, signature) = self.judge_claims(&contents)?;
        let certificate = self
            .prove(&contents, &origin, &signature, received_at)
            .await?;
        self.judge_age(contents.timestamp, received_at)?;
        let secret = |text: &str| SecretString::from(text.to_owned());
        Ok(VerifiedMessage {
            body,
            message_type: contents.message_type,
            token: contents.text.token().map(secret),
            subscribe_url: contents.text.subscribe_url().map(secret),
            timestamp: contents.timestamp,
            text: contents.text,
            certificate,
        })
    }

    /// What can be judged without a certificate, before anything is asked for.
    fn judge_claims<'a>(
        &self,
        contents: &'a Contents,
    ) -> Result<(CertificateOrigin<'a>, Signature), Refusal> {
        let text = &contents.text;
        let topic = TopicArn::parse(text.topic_arn())
            .filter(|topic| self.policy.allows(topic))
            .ok_or(Refusal::TopicNotAllowed)?;
        let origin = self
            .policy
            .certificate_origin(&contents.certificate_url, &topic)?;
        if let (Some(url), Some(token)) = (text.subscribe_url(), text.token()) {
            self.policy
                .judge_subscribe_url(url, text.topic_arn(), token)?;
        }
        let signature = Signature::decode(&contents.signature)?;
        Ok((origin, signature))
    }

    async fn prove(
        &self,
        contents: &Contents,
        origin: &CertificateOrigin<'_>,
        signature: &Signature,
        at: Timestamp,
    ) -> Result<Arc<Certificate>, Refusal> {
        let url = &contents.certificate_url;
        let check = |certificate: &Certificate| {
            certificate.judge_dates(at)?;
            certificate.verify(contents.version, contents.text.as_bytes(), signature)
        };
        let mut certificate = self.certificates.get(url, origin).await?;
        if let Err(refusal) = check(&certificate) {
            // An emulator that was started anew may sign with another key under the
            // same URL; SNS names a new certificate by a new URL.
            let may_be_stale =
                *origin == CertificateOrigin::Local && refusal == Refusal::SignatureMismatch;
            if !may_be_stale {
                return Err(refusal);
            }
            certificate = self
                .certificates
                .newer(url, origin, &certificate)
                .await
                .ok_or(refusal)?;
            check(&certificate)?;
        }
        self.certificates.proven(url, origin, &certificate).await;
        Ok(certificate)
    }

    /// `Timestamp` is when the message was published, and SNS retries for up to an
    /// hour, so the limit is generous. Judged last: before the signature is proven
    /// the time is just a claim.
    fn judge_age(&self, published_at: Timestamp, at: Timestamp) -> Result<(), Refusal> {
        let Some(max_age) = self.max_age else {
            return Ok(());
        };
        if published_at.since(at) > CLOCK_TOLERANCE {
            return Err(Refusal::FromTheFuture);
        }
        if at.since(published_at) > max_age {
            return Err(Refusal::TooOld);
        }
        Ok(())
    }
}
