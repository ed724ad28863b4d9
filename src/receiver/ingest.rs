//! Accepts messages: token, body, envelope, signature, commit, confirmation.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Body;
use hyper::header::HeaderMap;
use hyper::{Request, http};
use secrecy::SecretString;
use tokio::sync::Mutex;
use tracing::{Instrument as _, error};

use super::body::{self, BodyReader};
use super::caller::Caller;
use super::challenge::{self, Challenges, Echo};
use super::headers::{header_lines, read_header_lines, sns_headers};
use super::health::Health;
use super::incoming::IncomingMessage;
use super::log::{self, MessageIds, MessageLog};
use super::unreadable;
use super::webhooks::{Webhook, Webhooks};
use crate::config::{ApiConfig, Config};
use crate::domain::{Clock, Event, Feed, Timestamp};
use crate::ivesk::notification::Announcement;
use crate::metrics::{Metrics, StoreStep};
use crate::refusal::Refusal;
use crate::sns::{
    Envelope, Genuine, MessageType, UnknownTopicConfirmation, VerifiedMessage, Verifier,
    VerifyError,
};
use crate::store::{
    AcceptedMessage, Insertion, Quarantined, QuarantinedMessage, SharedStore, StoreError, Triggers,
    UnknownTopicOffer,
};
use crate::subscriptions::topics::ApprovedTopics;
use crate::subscriptions::{Confirmations, TOKEN_LIFE};
use crate::unexpected::UnexpectedRequest;

/// Longest time for a commit; SNS itself gives up after 15 s.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time for the store's probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Accepts SNS messages, from the first byte to the commit.
pub struct Ingest {
    webhooks: Webhooks,
    api: ApiConfig,
    body: BodyReader,
    verifier: Arc<Verifier>,
    store: SharedStore,
    topics: Arc<ApprovedTopics>,
    confirmations: Arc<Confirmations>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    log: MessageLog,
    clock: Clock,
    challenges: Challenges,
    /// The last probe of the store. Anybody may request `/readyz`, so one request at a time probes, and those
    /// that wait meanwhile share the result of the next.
    probe: Mutex<Option<Probe>>,
}

/// A probe of the store.
struct Probe {
    began: Instant,
    result: Result<(), Refusal>,
}

/// The collaborators of [`Ingest`].
pub struct Parts {
    /// Verifies messages.
    pub verifier: Arc<Verifier>,
    /// Stores them.
    pub store: SharedStore,
    /// Topics that a person approved.
    pub topics: Arc<ApprovedTopics>,
    /// Confirms subscriptions.
    pub confirmations: Arc<Confirmations>,
    /// Refuses messages while the service stops or the disk is nearly full.
    pub health: Arc<Health>,
    /// Counts them.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: Clock,
}

impl Ingest {
    /// Creates the ingest of `config`'s webhooks.
    pub fn new(config: &Config, parts: Parts) -> Self {
        Self {
            webhooks: Webhooks::new(config, &parts.metrics),
            api: config.api.clone(),
            body: BodyReader::new(config.public.body_timeout),
            verifier: parts.verifier,
            store: parts.store,
            topics: parts.topics,
            confirmations: parts.confirmations,
            health: parts.health,
            metrics: parts.metrics,
            log: MessageLog::default(),
            clock: parts.clock,
            challenges: Challenges::default(),
            probe: Mutex::new(None),
        }
    }

    /// Returns the service's metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns the log of messages.
    pub fn log(&self) -> &MessageLog {
        &self.log
    }

    /// Returns the open challenges of `doctor`.
    pub fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// Returns the answer to a request's challenge; `None` if it carries no open one.
    pub fn challenge_answer(&self, headers: &HeaderMap) -> Option<String> {
        let question = headers.get(challenge::HEADER)?;
        self.challenges
            .answer(question.as_bytes(), self.clock.now())
    }

    /// Returns true if `doctor` has asked this process this question.
    pub(super) fn is_open_challenge(&self, question: &[u8]) -> bool {
        self.challenges.answer(question, self.clock.now()).is_some()
    }

    /// Reads a request that carries a challenge, and describes what arrived. Nothing is
    /// stored.
    ///
    /// # Errors
    ///
    /// If the body is too large or too slow.
    pub async fn echo<B: Body<Data = Bytes>>(
        &self,
        answer: String,
        request: Request<B>,
    ) -> Result<Echo, Refusal> {
        let (head, body) = request.into_parts();
        let webhook = self.webhooks.find(&head.method, head.uri.path());
        let webhook = webhook.map(|webhook| format!("{}/{}", webhook.account, webhook.event));
        let body = self.body.read(body).await?;
        Ok(Echo::of(answer, webhook, &body.bytes))
    }

    /// Counts and logs what reached no webhook. `caller` is `None` if it was no request at all.
    pub fn unexpected(&self, kind: UnexpectedRequest, from_sns: bool, caller: Option<&Caller>) {
        self.metrics.unexpected(kind, from_sns, self.clock.now());
        self.log.unexpected(kind, from_sns, caller);
    }

    /// Accepts one request with a message: `Ok` means that the message is committed, and that
    /// the subscription of a confirmation is confirmed.
    ///
    /// # Errors
    ///
    /// The reason of the refusal, which is logged, counted and quarantined already.
    pub async fn receive<B: Body<Data = Bytes>>(
        &self,
        caller: &Caller,
        request: Request<B>,
    ) -> Result<Insertion, Refusal> {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let webhook = match self.webhooks.find(&head.method, head.uri.path()) {
            Ok(webhook) => webhook,
            Err(kind) => {
                let from_sns = unreadable::headers_are_from_sns(&head.headers);
                self.unexpected(kind, from_sns, Some(caller));
                // One answer for all, which tells a stranger nothing.
                return Err(Refusal::UnknownPath);
            }
        };
        let incoming = self
            .read(webhook, caller, head, body)
            .await
            .inspect_err(|refusal| self.record_refusal(webhook, caller, refusal))?;
        let span = log::span(&incoming);
        let insertion = self
            .accept(&incoming)
            .instrument(span.clone())
            .await
            .inspect_err(|refusal| {
                span.record("outcome", refusal.code());
                self.quarantine(&incoming, caller, refusal);
            })?;
        self.metrics.accept_took(started.elapsed());
        Ok(insertion)
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

    /// Verifies a message as of its receipt, commits it, and confirms the subscription of
    /// a confirmation, or keeps it for a person if its topic is not known. A second call
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// The reason of the refusal.
    pub async fn accept(&self, incoming: &IncomingMessage<'_>) -> Result<Insertion, Refusal> {
        let webhook = incoming.webhook;
        let headers = sns_headers(&incoming.headers);
        let envelope = Envelope::parse(incoming.body.clone(), &headers)?;
        // A person may have approved it on another replica.
        self.topics
            .learn_if_needed(&self.verifier, envelope.topic_arn())
            .await
            .map_err(|error| self.store_refusal(&error))?;
        let genuine = self
            .verifier
            .classify_at(envelope, incoming.received_at)
            .await?;
        let message = match genuine {
            Genuine::Message(message) => message,
            Genuine::UnknownTopic(confirmation) => {
                return self.keep_unknown_topic(incoming, confirmation).await;
            }
        };
        let action = Action::of(&message);
        let ids = MessageIds {
            message_id: message.message_id().to_owned(),
            triggers: triggers(&self.api, webhook, &message),
        };

        // SNS may deliver a message twice, so a duplicate is a success.
        let triggers = ids.triggers.clone();
        let insertion = self
            .commit(webhook, message, triggers, incoming.received_at)
            .await?;
        self.metrics.accepted_at(self.clock.now());
        if insertion == Insertion::New && ids.triggers == Triggers::AllFeeds {
            self.metrics.unclear_notification();
        }
        self.log
            .accepted(webhook, insertion, &ids, incoming.request_id.as_ref());
        self.perform(webhook, action, insertion).await?;
        Ok(insertion)
    }

    /// Keeps a confirmation of an unknown topic for a person, who may approve the topic.
    async fn keep_unknown_topic(
        &self,
        incoming: &IncomingMessage<'_>,
        confirmation: UnknownTopicConfirmation,
    ) -> Result<Insertion, Refusal> {
        let webhook = incoming.webhook;
        let request = incoming.request_id.as_ref();
        let confirmation = Arc::new(confirmation);
        let offer = pin!(self.store.offer_unknown_topic(
            webhook.account.clone(),
            webhook.event,
            Arc::clone(&confirmation),
            incoming.received_at,
            self.clock.now().before(TOKEN_LIFE),
        ));
        match self.within_commit_timeout(offer).await? {
            UnknownTopicOffer::New(id) => {
                log::unknown_topic(webhook, &confirmation, id, request);
                Ok(Insertion::New)
            }
            UnknownTopicOffer::Known(_) => Ok(Insertion::Duplicate),
            UnknownTopicOffer::TooMany => {
                Err(VerifyError::TopicNotAllowed(confirmation.topic_arn().to_owned()).into())
            }
        }
    }

    /// Verifies a quarantined message again, as of its receipt, and removes it from the
    /// quarantine once it is committed.
    ///
    /// # Errors
    ///
    /// The reason of the refusal; the message stays in the quarantine.
    pub async fn retry(&self, message: QuarantinedMessage) -> Result<Insertion, Refusal> {
        let QuarantinedMessage { row, headers, body } = message;
        let webhook = self
            .webhooks
            .get(&row.account, row.event)
            .ok_or(Refusal::UnknownPath)?;
        let incoming = IncomingMessage {
            webhook,
            headers: read_header_lines(&headers),
            body: Bytes::from(body),
            received_at: row.received_at,
            request_id: None,
            _place: None,
        };
        let insertion = self.accept(&incoming).await?;
        // If this fails, the next retry finds a duplicate, which is a success too.
        self.store
            .remove_quarantined(row.id)
            .await
            .map_err(|error| self.store_refusal(&error))?;
        Ok(insertion)
    }

    async fn commit(
        &self,
        webhook: &Webhook,
        message: VerifiedMessage,
        triggers: Triggers,
        received_at: Timestamp,
    ) -> Result<Insertion, Refusal> {
        let accepted = AcceptedMessage {
            account: webhook.account.clone(),
            event: webhook.event,
            triggers,
            needs_approval: self.verifier.needs_approval(message.topic_arn()),
            message,
            received_at,
        };
        let topic_arn = accepted.message.topic_arn().to_owned();
        // Pinned here: passed by value, each would be part of the next one twice.
        let accept = pin!(self.store.accept(accepted));
        let commit = pin!(async {
            match self.metrics.timed(StoreStep::Accept, accept).await {
                // A person has revoked its approval, perhaps on another replica.
                Err(StoreError::TopicNotAllowed) => Ok(None),
                other => other.map(Some),
            }
        });
        self.within_commit_timeout(commit).await?.ok_or_else(|| {
            self.topics.forget(&topic_arn);
            VerifyError::TopicNotAllowed(topic_arn).into()
        })
    }

    async fn within_commit_timeout<T>(
        &self,
        commit: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Refusal> {
        match tokio::time::timeout(COMMIT_TIMEOUT, commit).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(error)) => Err(self.store_refusal(&error)),
            Err(_) => {
                error!("the store did not commit a message within {COMMIT_TIMEOUT:?}");
                Err(Refusal::StoreUnavailable)
            }
        }
    }

    /// Performs the action of a committed message; a pull was triggered with the commit.
    async fn perform(
        &self,
        webhook: &Webhook,
        action: Action,
        insertion: Insertion,
    ) -> Result<(), Refusal> {
        match action {
            Action::None => Ok(()),
            Action::Confirm { topic_arn, token } => {
                self.confirmations
                    .confirm_message(&webhook.account, webhook.event, &topic_arn, &token)
                    .await
            }
            Action::ReportEnd {
                topic_arn,
                subscription_arn,
            } => {
                if insertion == Insertion::New {
                    self.metrics.unsubscribed(webhook.event);
                    log::unsubscribed(webhook, &topic_arn, subscription_arn.as_deref());
                }
                Ok(())
            }
        }
    }

    /// Counts and logs a refused message.
    fn record_refusal(&self, webhook: &Webhook, caller: &Caller, refusal: &Refusal) {
        self.metrics.refused(webhook.event, refusal.code());
        self.log.refused(webhook, refusal, caller);
    }

    /// Counts and logs a refused message, and stores it if a retry could succeed.
    fn quarantine(&self, incoming: &IncomingMessage<'_>, caller: &Caller, refusal: &Refusal) {
        self.record_refusal(incoming.webhook, caller, refusal);
        if !refusal.reason().kept {
            return;
        }
        let headers = sns_headers(&incoming.headers);
        let allowed_topic = Envelope::parse(incoming.body.clone(), &headers)
            .is_ok_and(|envelope| self.verifier.allows_topic(envelope.topic_arn()));
        let stored = self.store.offer_quarantine(Quarantined {
            received_at: incoming.received_at,
            account: incoming.webhook.account.clone(),
            event: incoming.webhook.event,
            reason: refusal.code().to_owned(),
            allowed_topic,
            headers: header_lines(&incoming.headers),
            body: incoming.body.clone(),
        });
        if !stored {
            self.metrics.quarantine_dropped();
        }
    }

    /// Returns the refusal that follows from an error of the store.
    fn store_refusal(&self, error: &StoreError) -> Refusal {
        // A store that is closed while the service runs is a bug.
        if matches!(error, StoreError::Closed) && !self.health.is_draining() {
            log::store_failed(error);
            return Refusal::StoreUnavailable;
        }
        store_refusal(error)
    }

    /// Checks that a message would be accepted now.
    ///
    /// # Errors
    ///
    /// The reason for which it would be refused.
    pub async fn readiness(&self) -> Result<(), Refusal> {
        // The store is checked even if messages are refused for another reason, so that its
        // faults begin and end as they do.
        let stored = match self.health.is_draining() {
            true => Ok(()),
            false => self.check_store().await,
        };
        self.health.admit()?;
        stored
    }

    async fn check_store(&self) -> Result<(), Refusal> {
        let asked = Instant::now();
        let mut last = self.probe.lock().await;
        if let Some(probe) = last.as_ref().filter(|probe| probe.began >= asked) {
            return probe.result.clone();
        }
        let began = Instant::now();
        let result = self.probe_store().await;
        *last = Some(Probe {
            began,
            result: result.clone(),
        });
        result
    }

    async fn probe_store(&self) -> Result<(), Refusal> {
        let probe = self.store.probe();
        let (refusal, fault) = match tokio::time::timeout(PROBE_TIMEOUT, probe).await {
            Ok(Ok(())) => {
                self.record_store_fault(None);
                return Ok(());
            }
            // A command that only reads accepts no messages, and has found no fault.
            Ok(Err(StoreError::ReadOnly)) => return Err(Refusal::ShuttingDown),
            // An overload is no fault: messages that are queued are stored.
            Ok(Err(StoreError::QueueFull)) => return Err(Refusal::QueueFull),
            Ok(Err(StoreError::Closed)) if self.health.is_draining() => {
                return Err(Refusal::ShuttingDown);
            }
            Ok(Err(error @ StoreError::DiskFull { .. })) => {
                (Refusal::DiskNearlyFull, error.to_string())
            }
            Ok(Err(error)) => (Refusal::StoreUnavailable, error.to_string()),
            Err(_) => (
                Refusal::StoreUnavailable,
                format!(
                    "the store did not answer within {} s; check the load of its disk or database",
                    PROBE_TIMEOUT.as_secs()
                ),
            ),
        };
        self.record_store_fault(Some(fault));
        Err(refusal)
    }

    /// Records and logs the result of a check that a message could be stored.
    fn record_store_fault(&self, fault: Option<String>) {
        let text = fault.clone();
        if self.health.set_unavailable(fault, self.clock.now()) {
            log::store_fault(text.as_deref());
        }
    }
}

/// The action that follows the commit of a message.
enum Action {
    /// Nothing more: a notification's trigger is part of the commit.
    None,
    /// Confirm the subscription of this topic.
    Confirm {
        topic_arn: String,
        token: SecretString,
    },
    /// Report that a subscription of this topic has ended.
    ReportEnd {
        topic_arn: String,
        subscription_arn: Option<String>,
    },
}

impl Action {
    fn of(message: &VerifiedMessage) -> Self {
        let topic_arn = || message.topic_arn().to_owned();
        match message.message_type() {
            MessageType::Notification => Self::None,
            MessageType::SubscriptionConfirmation => Self::Confirm {
                topic_arn: topic_arn(),
                // The envelope refuses a confirmation without one.
                token: message.token().cloned().unwrap_or_default(),
            },
            MessageType::UnsubscribeConfirmation => Self::ReportEnd {
                topic_arn: topic_arn(),
                subscription_arn: message.ended_subscription().map(str::to_owned),
            },
        }
    }
}

/// Returns the feeds that a message triggers.
///
/// Account and event are the webhook's, since the path's token proves them; only the
/// company is taken from the signed message. What `on_digitized` says is not known (vendor-api
/// U9), and it has one feed.
fn triggers(api: &ApiConfig, webhook: &Webhook, message: &VerifiedMessage) -> Triggers {
    if message.message_type() != MessageType::Notification {
        return Triggers::Nothing;
    }
    let account = webhook.account.clone();
    match webhook.event {
        Event::OnExported => match Announcement::read(message.message()) {
            Announcement::Company(company) => Triggers::Feed(api.exported_feed(account, company)),
            Announcement::Unclear => Triggers::AllFeeds,
            Announcement::Nothing => Triggers::Nothing,
        },
        Event::OnDigitized => Triggers::Feed(Feed::digitized(account)),
    }
}

/// Returns the refusal that follows from an error of the store, and logs those that need
/// a person.
fn store_refusal(error: &StoreError) -> Refusal {
    match error {
        StoreError::QueueFull => Refusal::QueueFull,
        StoreError::Closed => Refusal::ShuttingDown,
        StoreError::DiskFull { .. } => {
            log::store_failed(error);
            Refusal::DiskNearlyFull
        }
        _ => {
            log::store_failed(error);
            Refusal::StoreUnavailable
        }
    }
}
