//! Verifies an envelope, and returns a message that may be acted on.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use secrecy::SecretString;

use crate::canonical::CanonicalText;
use crate::certificate::{Certificate, CertificateSummary};
use crate::certificate_cache::{
    CERTIFICATE_TIMEOUT, CertificateCache, CertificateStore, Claim, NoCertificateStore, Source,
};
use crate::envelope::{Contents, Envelope};
use crate::error::VerifyError;
use crate::http;
use crate::message::MessageType;
use crate::policy::{
    CertificateOrigin, Policy, TopicArn, find_subscription_arn, is_subscription_to,
};
use crate::settings::Settings;
use crate::signature::Signature;
use crate::time::{Clock, Timestamp};

/// Largest time by which SNS's clock may be ahead of this machine's.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// A message whose signature, topic and certificate were checked.
///
/// Only [`Verifier`] creates one, so a function that takes one can't be called with
/// anything unverified. Every field is part of the text that the signature covers.
///
/// ```compile_fail
/// let forged = sns_messages::VerifiedMessage {};
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
    /// Returns the body as it arrived.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Returns which of the three types it is.
    pub fn message_type(&self) -> MessageType {
        self.message_type
    }

    /// Returns `MessageId`.
    pub fn message_id(&self) -> &str {
        self.text.message_id()
    }

    /// Returns `TopicArn`.
    pub fn topic_arn(&self) -> &str {
        self.text.topic_arn()
    }

    /// Returns `Timestamp`: when it was published.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// Returns `Subject`, which only notifications have.
    pub fn subject(&self) -> Option<&str> {
        self.text.subject()
    }

    /// Returns `Message`, unescaped.
    pub fn message(&self) -> &str {
        self.text.message()
    }

    /// Returns the ARN of the subscription that an UnsubscribeConfirmation ends: the one in its
    /// signed `Message` that belongs to its topic. `None` for the other types, and if there is
    /// none.
    pub fn ended_subscription(&self) -> Option<&str> {
        if self.message_type != MessageType::UnsubscribeConfirmation {
            return None;
        }
        find_subscription_arn(self.message(), self.topic_arn())
    }

    /// Returns `Token`; the two confirmation types have one.
    pub fn token(&self) -> Option<&SecretString> {
        self.token.as_ref()
    }

    /// Returns `SubscribeURL`, which policy allows; the two confirmation types have one.
    pub fn subscribe_url(&self) -> Option<&SecretString> {
        self.subscribe_url.as_ref()
    }

    /// Returns the certificate that its signature was verified with.
    pub fn certificate(&self) -> &CertificateSummary {
        self.certificate.summary()
    }
}

impl fmt::Debug for VerifiedMessage {
    /// Leaves out body, message, token and URLs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedMessage")
            .field("message_type", &self.message_type)
            .field("message_id", &self.message_id())
            .field("topic_arn", &self.topic_arn())
            .field("timestamp", &self.timestamp)
            .finish_non_exhaustive()
    }
}

/// A genuine SubscriptionConfirmation of a topic that is not allowed.
///
/// It is good for one thing: being shown to a person, who may approve the topic. It can't be
/// stored as a message, and [`Confirmer::confirm`](crate::Confirmer::confirm) makes no request
/// until its topic is allowed.
///
/// ```compile_fail
/// # fn accept(_: sns_messages::VerifiedMessage) {}
/// # fn shown(unknown: sns_messages::UnknownTopicConfirmation) {
/// accept(unknown);
/// # }
/// ```
pub struct UnknownTopicConfirmation(VerifiedMessage);

impl UnknownTopicConfirmation {
    /// Returns `MessageId`.
    pub fn message_id(&self) -> &str {
        self.0.message_id()
    }

    /// Returns `TopicArn`.
    pub fn topic_arn(&self) -> &str {
        self.0.topic_arn()
    }

    /// Returns the AWS account that owns the topic: twelve digits.
    pub fn aws_account(&self) -> &str {
        TopicArn::parse(self.topic_arn()).map_or("", |topic| topic.account)
    }

    /// Returns `Timestamp`: when SNS sent it.
    pub fn timestamp(&self) -> Timestamp {
        self.0.timestamp()
    }

    /// Returns `Token`, to be kept until a person decides.
    pub fn token(&self) -> Option<&SecretString> {
        self.0.token()
    }

    /// Returns `SubscribeURL`, to be kept until a person decides.
    pub fn subscribe_url(&self) -> Option<&SecretString> {
        self.0.subscribe_url()
    }
}

impl fmt::Debug for UnknownTopicConfirmation {
    /// Leaves out body, token and URLs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UnknownTopicConfirmation")
            .field(&self.0)
            .finish()
    }
}

fn not_allowed(envelope: &Envelope) -> VerifyError {
    VerifyError::TopicNotAllowed(envelope.topic_arn().to_owned())
}

/// A genuine message, of a topic that is allowed or not.
#[derive(Debug)]
pub enum Genuine {
    /// Its topic is allowed.
    Message(VerifiedMessage),
    /// It asks to confirm a subscription to a topic that is not allowed.
    UnknownTopic(UnknownTopicConfirmation),
}

/// Options for verifying saved messages, long after they arrived.
#[derive(Clone, Debug, Default)]
pub struct SavedMessages {
    /// The folder with the certificates, named by the last path segment of their URL;
    /// `None` fetches them.
    pub certificates: Option<PathBuf>,
    /// True accepts messages of any topic.
    pub any_topic: bool,
}

/// Returns the source that fetches certificates.
fn network(settings: &Settings) -> Result<Source, http::SetupError> {
    let proxy = settings.proxy.as_ref();
    let client = http::client(&settings.user_agent, proxy, CERTIFICATE_TIMEOUT)?;
    Ok(Source::Network(client))
}

/// Checks messages against the trust policy.
pub struct Verifier {
    policy: Arc<Policy>,
    certificates: Arc<CertificateCache>,
    clock: Clock,
    /// `None` skips the check of the age.
    max_age: Option<Duration>,
}

impl Verifier {
    /// Creates a verifier for messages as they arrive. Logs a warning if `settings`
    /// name local origins.
    ///
    /// # Errors
    ///
    /// If no HTTPS client can be created, for instance without CA certificates.
    pub fn new(
        settings: &Settings,
        store: Arc<dyn CertificateStore>,
        clock: Clock,
    ) -> Result<Self, http::SetupError> {
        let source = network(settings)?;
        let policy = Policy::new(settings);
        for origin in policy.local_origins() {
            tracing::warn!(
                target: "sns_messages::local_origins",
                %origin,
                "the local origin {origin} is trusted: whoever answers there can forge \
                 messages; set local origins for tests only"
            );
        }
        Ok(Self::with(
            policy,
            source,
            store,
            clock,
            Some(settings.max_age),
        ))
    }

    /// Creates a verifier for saved messages, which skips the check of their age.
    ///
    /// # Errors
    ///
    /// As [`Verifier::new`], where certificates are to be fetched.
    pub fn for_saved(
        settings: &Settings,
        saved: SavedMessages,
        clock: Clock,
    ) -> Result<Self, http::SetupError> {
        let source = match saved.certificates {
            Some(folder) => Source::Folder(folder),
            None => network(settings)?,
        };
        let policy = if saved.any_topic {
            Policy::new(settings).with_any_topic()
        } else {
            Policy::new(settings)
        };
        Ok(Self::with(
            policy,
            source,
            Arc::new(NoCertificateStore),
            clock,
            None,
        ))
    }

    fn with(
        policy: Policy,
        source: Source,
        store: Arc<dyn CertificateStore>,
        clock: Clock,
        max_age: Option<Duration>,
    ) -> Self {
        let policy = Arc::new(policy);
        let certificates = CertificateCache::new(source, Arc::clone(&policy), clock.clone(), store);
        Self {
            policy,
            certificates: Arc::new(certificates),
            clock,
            max_age,
        }
    }

    /// Returns true if messages of this topic are accepted.
    pub fn allows_topic(&self, topic_arn: &str) -> bool {
        self.policy.allows(topic_arn)
    }

    /// Returns true if no rule of the settings allows this topic: its messages are accepted
    /// only as long as a person approves it.
    pub fn needs_approval(&self, topic_arn: &str) -> bool {
        self.policy.needs_approval(topic_arn)
    }

    /// Loads the stored certificates. Call it before the first message, which otherwise waits
    /// for that.
    pub async fn load_certificates(&self) {
        self.certificates.load().await;
    }

    /// Returns the certificate at `url`, if a message caused it to be fetched.
    pub fn known_certificate(&self, url: &str) -> Option<CertificateSummary> {
        let certificate = self.certificates.cached(url)?;
        Some(certificate.summary().clone())
    }

    /// Verifies `envelope` as of now and returns the message that it carries.
    ///
    /// Makes no request if the certificate is cached; else at most one, bounded by
    /// [`CERTIFICATE_TIMEOUT`].
    ///
    /// # Errors
    ///
    /// [`VerifyError::TopicNotAllowed`] to [`VerifyError::FromTheFuture`] in the order of the
    /// variants, one for each reason.
    pub async fn verify(&self, envelope: Envelope) -> Result<VerifiedMessage, VerifyError> {
        let now = self.clock.now();
        self.verify_at(envelope, now).await
    }

    /// Verifies `envelope` as of `received_at`: dates and age are checked at that moment.
    ///
    /// # Errors
    ///
    /// As [`Verifier::verify`].
    pub async fn verify_at(
        &self,
        envelope: Envelope,
        received_at: Timestamp,
    ) -> Result<VerifiedMessage, VerifyError> {
        if !self.policy.allows(envelope.topic_arn()) {
            return Err(not_allowed(&envelope));
        }
        self.verify_signed(envelope, received_at).await
    }

    /// Verifies `envelope` as [`Verifier::verify_at`] does, and returns a genuine
    /// SubscriptionConfirmation of a topic that is not allowed as what it is.
    ///
    /// # Errors
    ///
    /// As [`Verifier::verify`]; [`VerifyError::TopicNotAllowed`] for the other types of message.
    pub async fn classify_at(
        &self,
        envelope: Envelope,
        received_at: Timestamp,
    ) -> Result<Genuine, VerifyError> {
        let allowed = self.policy.allows(envelope.topic_arn());
        if !allowed && envelope.message_type() != MessageType::SubscriptionConfirmation {
            return Err(not_allowed(&envelope));
        }
        let message = self.verify_signed(envelope, received_at).await?;
        Ok(if allowed {
            Genuine::Message(message)
        } else {
            Genuine::UnknownTopic(UnknownTopicConfirmation(message))
        })
    }

    /// Verifies everything but the topic.
    async fn verify_signed(
        &self,
        envelope: Envelope,
        received_at: Timestamp,
    ) -> Result<VerifiedMessage, VerifyError> {
        let Envelope { body, contents } = envelope;
        let (origin, signature) = self.check_claims(&contents)?;
        let certificate = self
            .verify_signature(&contents, &origin, &signature, received_at)
            .await?;
        self.check_age(contents.timestamp, received_at)?;
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

    /// Checks what needs no certificate, before any request is made.
    fn check_claims<'a>(
        &self,
        contents: &'a Contents,
    ) -> Result<(CertificateOrigin<'a>, Signature), VerifyError> {
        let text = &contents.text;
        // The envelope refuses any other.
        let topic = TopicArn::parse(text.topic_arn())
            .ok_or_else(|| VerifyError::TopicNotAllowed(text.topic_arn().to_owned()))?;
        let origin = self
            .policy
            .certificate_origin(&contents.certificate_url, &topic)?;
        if let (Some(url), Some(token)) = (text.subscribe_url(), text.token()) {
            self.policy
                .check_subscribe_url(url, text.topic_arn(), token)?;
        }
        let signature = Signature::decode(&contents.signature)?;
        Ok((origin, signature))
    }

    /// Returns what the message claims, which is unproven while its certificate is fetched.
    fn claim(&self, contents: &Contents) -> Claim {
        let topic_arn = contents.text.topic_arn();
        if !self.policy.allows(topic_arn) {
            return Claim::UnknownTopic;
        }
        let known = self.policy.known();
        match &contents.subscription_arn {
            Some(arn) if is_subscription_to(arn, topic_arn) && known.is_subscription(arn) => {
                Claim::OwnSubscription
            }
            _ => Claim::AllowedTopic,
        }
    }

    async fn verify_signature(
        &self,
        contents: &Contents,
        origin: &CertificateOrigin<'_>,
        signature: &Signature,
        at: Timestamp,
    ) -> Result<Arc<Certificate>, VerifyError> {
        let url = &contents.certificate_url;
        let claim = self.claim(contents);
        let check = |certificate: &Certificate| {
            certificate.check_dates(at)?;
            certificate.verify(contents.version, contents.text.as_bytes(), signature)
        };
        let mut certificate = self.certificates.get(url, origin, claim).await?;
        if let Err(error) = check(&certificate) {
            let may_be_stale = match error {
                // A local stand-in that was restarted may sign with another key under the
                // same URL; SNS gives a new certificate a new URL.
                VerifyError::SignatureMismatch => *origin == CertificateOrigin::Local,
                // One that was renewed under the same URL could fit. One whose time has not
                // come fits later by itself.
                VerifyError::CertificateDates { .. } => {
                    certificate.has_expired(at) && self.certificates.may_refresh(url)
                }
                _ => false,
            };
            if !may_be_stale {
                return Err(error);
            }
            certificate = self
                .certificates
                .newer(url, origin, claim, &certificate)
                .await
                .ok_or(error)?;
            check(&certificate)?;
        }
        self.certificates
            .mark_proven(url, origin, &certificate)
            .await;
        Ok(certificate)
    }

    /// Checks the age: `Timestamp` is when the message was published, and SNS retries for
    /// up to an hour. Checked last: before the signature is verified the time is only a
    /// claim.
    fn check_age(&self, published_at: Timestamp, at: Timestamp) -> Result<(), VerifyError> {
        let Some(max_age) = self.max_age else {
            return Ok(());
        };
        if published_at.since(at) > CLOCK_TOLERANCE {
            return Err(VerifyError::FromTheFuture);
        }
        if at.since(published_at) > max_age {
            return Err(VerifyError::TooOld);
        }
        Ok(())
    }
}
