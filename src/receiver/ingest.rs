//! Taking a message: token, body, shape, proof, commit, confirmation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Body;
use hyper::header::HeaderMap;
use hyper::{Request, http};
use secrecy::SecretString;
use tokio::sync::{Mutex, OwnedSemaphorePermit};
use tracing::{Instrument as _, error};

use super::body::{self, BodyReader};
use super::caller::{Caller, RequestId};
use super::challenge::{self, Challenges, Echo};
use super::headers::{header_lines, read_header_lines, sns_headers};
use super::health::Health;
use super::report::{self, Tally, Told};
use super::webhooks::{PREFIX, Webhook, Webhooks};
use crate::config::Config;
use crate::domain::{Clock, Event, Feed, Timestamp};
use crate::ivesk::notification;
use crate::metrics::{Metrics, StoreStep};
use crate::refusal::Refusal;
use crate::sns::{Envelope, MessageType, VerifiedMessage, Verifier};
use crate::store::{
    AcceptedMessage, Insertion, QuarantineRow, Quarantined, SharedStore, StoreError,
};
use crate::subscriptions::Confirmations;

/// How long the store may take to commit; SNS itself gives up after 15 s.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the store may take to say that it is there.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A message to one of our webhooks, read whole and not judged yet.
pub struct IncomingMessage<'w> {
    /// Where it came to.
    pub webhook: &'w Webhook,
    /// All its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// When it came.
    pub received_at: Timestamp,
    /// What its request is called; none where it is judged anew.
    pub request_id: Option<RequestId>,
    /// The place of a large body, given back when the message is answered.
    _place: Option<OwnedSemaphorePermit>,
}

/// What has to do with messages, from the first byte to the commit.
pub struct Ingest {
    webhooks: Webhooks,
    body: BodyReader,
    verifier: Arc<Verifier>,
    store: SharedStore,
    confirmations: Arc<Confirmations>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    tally: Tally,
    clock: Clock,
    challenges: Challenges,
    // Anybody may ask whether we are ready, so only one at a time asks the store.
    probing: Mutex<()>,
}

/// What [`Ingest`] works with.
pub struct Parts {
    /// Proves messages.
    pub verifier: Arc<Verifier>,
    /// Keeps them.
    pub store: SharedStore,
    /// Confirms subscriptions.
    pub confirmations: Arc<Confirmations>,
    /// Says whether messages are taken.
    pub health: Arc<Health>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
}

impl Ingest {
    /// The ingest of `config`'s webhooks.
    pub fn new(config: &Config, parts: Parts) -> Self {
        Self {
            webhooks: Webhooks::new(config, &parts.metrics),
            body: BodyReader::new(config.public.body_timeout),
            verifier: parts.verifier,
            store: parts.store,
            confirmations: parts.confirmations,
            health: parts.health,
            metrics: parts.metrics,
            tally: Tally::default(),
            clock: parts.clock,
            challenges: Challenges::default(),
            probing: Mutex::new(()),
        }
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// AcceptedMessage messages since they were last told.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The questions that `doctor` may ask.
    pub fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// The answer to the question that a request carries, where it is an open one.
    pub fn challenged(&self, headers: &HeaderMap) -> Option<String> {
        let question = headers.get(challenge::HEADER)?;
        self.challenges
            .answer(question.as_bytes(), self.clock.now())
    }

    /// Reads such a request and tells what arrived; nothing of it is kept.
    ///
    /// # Errors
    ///
    /// Where the body is too large or too slow.
    pub async fn echo<B: Body<Data = Bytes>>(
        &self,
        answer: String,
        request: Request<B>,
    ) -> Result<Echo, Refusal> {
        let (head, body) = request.into_parts();
        let webhook = self.webhooks.find(webhook_path(&head)).ok();
        let webhook = webhook.map(|webhook| format!("{}/{}", webhook.account, webhook.event));
        let body = self.body.read(body).await?;
        Ok(Echo::of(answer, webhook, &body.bytes))
    }

    /// Takes one POST to a webhook: `Ok` means that it is committed, and a
    /// subscription confirmed where it asks for that.
    ///
    /// # Errors
    ///
    /// Why it was not taken; told, counted and quarantined already.
    pub async fn receive<B: Body<Data = Bytes>>(
        &self,
        caller: &Caller,
        request: Request<B>,
    ) -> Result<Insertion, Refusal> {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let webhook = self
            .webhooks
            .find(webhook_path(&head))
            .inspect_err(|refusal| self.turned_away(None, caller, refusal))?;
        let incoming = self
            .read(webhook, caller, head, body)
            .await
            .inspect_err(|refusal| self.turned_away(Some(webhook), caller, refusal))?;
        let span = report::span(&incoming);
        let outcome = self
            .judge(&incoming)
            .instrument(span.clone())
            .await
            .inspect_err(|refusal| {
                span.record("outcome", refusal.code());
                self.set_aside(&incoming, caller, refusal);
            })?;
        self.metrics.accept_took(started.elapsed());
        Ok(outcome)
    }

    async fn read<'w, B: Body<Data = Bytes>>(
        &self,
        webhook: &'w Webhook,
        caller: &Caller,
        head: http::request::Parts,
        body: B,
    ) -> Result<IncomingMessage<'w>, Refusal> {
        self.health.admit()?;
        let received_at = self.clock.now();
        let body::Body { bytes, place } = self.body.read(body).await?;
        Ok(IncomingMessage {
            webhook,
            headers: head.headers,
            body: bytes,
            received_at,
            request_id: Some(caller.request_id.clone()),
            _place: place,
        })
    }

    /// Proves a message as of its receipt, commits it, and confirms where it
    /// asks for that. Doing it twice does no more than doing it once.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub async fn judge(&self, incoming: &IncomingMessage<'_>) -> Result<Insertion, Refusal> {
        let webhook = incoming.webhook;
        let headers = sns_headers(&incoming.headers);
        let envelope = Envelope::parse(incoming.body.clone(), &headers)?;
        let message = self
            .verifier
            .verify_at(envelope, incoming.received_at)
            .await?;
        let meaning = Meaning::of(&message);
        let told = Told {
            message_id: message.message_id().to_owned(),
            trigger: trigger_of(webhook, &message),
        };

        // SNS may deliver a message twice, so a duplicate is a success.
        let trigger = told.trigger.clone();
        let insertion = self
            .commit(webhook, message, trigger, incoming.received_at)
            .await?;
        self.tally
            .accepted(webhook, insertion, &told, incoming.request_id.as_ref());
        self.act(webhook, meaning, insertion).await?;
        Ok(insertion)
    }

    /// Judges a quarantined message anew, as of its receipt, and takes it out of
    /// the quarantine where it is committed now.
    ///
    /// # Errors
    ///
    /// Why it is refused still; it stays in the quarantine.
    pub async fn retry(&self, row: QuarantineRow) -> Result<Insertion, Refusal> {
        let webhook = self
            .webhooks
            .get(&row.account, row.event)
            .ok_or(Refusal::UnknownPath)?;
        let incoming = IncomingMessage {
            webhook,
            headers: read_header_lines(&row.headers),
            body: Bytes::from(row.body),
            received_at: row.received_at,
            request_id: None,
            _place: None,
        };
        let insertion = self.judge(&incoming).await?;
        // Should this fail, the next retry finds a duplicate, which is a success too.
        self.store
            .remove_quarantined(row.id)
            .await
            .map_err(|error| self.refused_by_store(&error))?;
        Ok(insertion)
    }

    async fn commit(
        &self,
        webhook: &Webhook,
        message: VerifiedMessage,
        trigger: Option<Feed>,
        received_at: Timestamp,
    ) -> Result<Insertion, Refusal> {
        let incoming = AcceptedMessage {
            account: webhook.account.clone(),
            event: webhook.event,
            trigger,
            message,
            received_at,
        };
        let accepted = self
            .metrics
            .timed(StoreStep::Accept, self.store.accept(incoming));
        match tokio::time::timeout(COMMIT_TIMEOUT, accepted).await {
            Ok(Ok(insertion)) => Ok(insertion),
            Ok(Err(error)) => Err(self.refused_by_store(&error)),
            Err(_) => {
                error!("the store did not answer within {COMMIT_TIMEOUT:?}");
                Err(Refusal::StoreUnavailable)
            }
        }
    }

    /// Does what a committed message asks for, besides the pull that its hint raised.
    async fn act(
        &self,
        webhook: &Webhook,
        meaning: Meaning,
        insertion: Insertion,
    ) -> Result<(), Refusal> {
        match meaning {
            Meaning::Notification => Ok(()),
            Meaning::Confirm { topic_arn, token } => {
                self.confirmations
                    .confirm_message(&webhook.account, webhook.event, &topic_arn, &token)
                    .await
            }
            Meaning::Ended { topic_arn } => {
                if insertion == Insertion::New {
                    self.metrics.unsubscribed(webhook.event);
                    report::unsubscribed(webhook, &topic_arn);
                }
                Ok(())
            }
        }
    }

    /// Tells and counts a message that was refused before it was read whole.
    fn turned_away(&self, webhook: Option<&Webhook>, caller: &Caller, refusal: &Refusal) {
        self.metrics
            .refused(webhook.map(|webhook| webhook.event), refusal.code());
        self.tally.refused(webhook, refusal, caller);
    }

    /// Tells, counts and keeps a message that was refused.
    fn set_aside(&self, incoming: &IncomingMessage<'_>, caller: &Caller, refusal: &Refusal) {
        self.turned_away(Some(incoming.webhook), caller, refusal);
        if !refusal.reason().kept {
            return;
        }
        let headers = sns_headers(&incoming.headers);
        let allowed_topic = Envelope::parse(incoming.body.clone(), &headers)
            .is_ok_and(|envelope| self.verifier.allows_topic(envelope.topic_arn()));
        let kept = self.store.offer_quarantine(Quarantined {
            received_at: incoming.received_at,
            account: incoming.webhook.account.clone(),
            event: incoming.webhook.event,
            reason: refusal.code().to_owned(),
            allowed_topic,
            headers: header_lines(&incoming.headers),
            body: incoming.body.clone(),
        });
        if !kept {
            self.metrics.quarantine_dropped();
        }
    }

    /// What a failed commit means for the message.
    fn refused_by_store(&self, error: &StoreError) -> Refusal {
        // Closed by itself it is a defect, not the end of the service.
        if matches!(error, StoreError::Closed) && !self.health.is_draining() {
            report::store_failed(error);
            return Refusal::StoreUnavailable;
        }
        refused_by_store(error)
    }

    /// Whether a message would be taken now.
    ///
    /// # Errors
    ///
    /// Why it would not be.
    pub async fn readiness(&self) -> Result<(), Refusal> {
        self.health.admit()?;
        let probe = async {
            let _turn = self.probing.lock().await;
            self.store.probe().await
        };
        match tokio::time::timeout(PROBE_TIMEOUT, probe).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.refused_by_store(&error)),
            Err(_) => Err(Refusal::StoreUnavailable),
        }
    }
}

/// What a message asks for once it is committed.
enum Meaning {
    /// A pull, which its hint raises.
    Notification,
    /// That its topic's subscription be confirmed.
    Confirm {
        topic_arn: String,
        token: SecretString,
    },
    /// Nothing: it tells that its topic's subscription has ended.
    Ended { topic_arn: String },
}

impl Meaning {
    fn of(message: &VerifiedMessage) -> Self {
        let topic_arn = || message.topic_arn().to_owned();
        match message.message_type() {
            MessageType::Notification => Self::Notification,
            MessageType::SubscriptionConfirmation => Self::Confirm {
                topic_arn: topic_arn(),
                // The envelope refuses a confirmation without one.
                token: message.token().cloned().unwrap_or_default(),
            },
            MessageType::UnsubscribeConfirmation => Self::Ended {
                topic_arn: topic_arn(),
            },
        }
    }
}

/// The feed that a notification wants pulled.
///
/// The webhook's account and event decide, being proven by the token; of the
/// message only the company is believed, since it is signed.
fn trigger_of(webhook: &Webhook, message: &VerifiedMessage) -> Option<Feed> {
    if message.message_type() != MessageType::Notification {
        return None;
    }
    match webhook.event {
        Event::OnExported => notification::company(message.message())
            .map(|company| Feed::exported(webhook.account.clone(), company)),
        Event::OnDigitized => Some(Feed::digitized(webhook.account.clone())),
    }
}

/// What a failed commit means for the message.
fn refused_by_store(error: &StoreError) -> Refusal {
    match error {
        StoreError::QueueFull => Refusal::QueueFull,
        StoreError::Closed => Refusal::ShuttingDown,
        StoreError::DiskFull { .. } => {
            report::store_failed(error);
            Refusal::DiskNearlyFull
        }
        _ => {
            report::store_failed(error);
            Refusal::StoreUnavailable
        }
    }
}

/// What follows the webhooks' prefix in the request's path.
fn webhook_path(head: &http::request::Parts) -> &str {
    head.uri.path().strip_prefix(PREFIX).unwrap_or_default()
}
