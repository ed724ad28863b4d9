//! The emulated SNS: two topics, their subscriptions, and what is published to them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, watch};
use url::Url;
use uuid::Uuid;

use super::delivery::{self, DeliveryRecord, Outcome, Parcel, Tamper};
use super::signer::{Signer, Unsigned};
use super::vendor::Vendor;
use crate::domain::{Event, Timestamp};
use crate::egress;
use crate::sns::MessageType;

/// The AWS account of the vendor's topics (vendor-api §3).
pub(super) const TOPIC_OWNER: &str = "007272210889";
/// Their region.
pub(super) const REGION: &str = "eu-west-1";
/// How long a confirmation token is good (failure-stories F12).
pub(super) const TOKEN_LIFETIME: Duration = Duration::from_secs(2 * 24 * 3600);
/// The most bytes that a `Message` to an HTTP subscriber may have (failure-stories F10).
pub(super) const MAX_MESSAGE_BYTES: usize = 262_144;
/// Deliveries that are remembered.
const RECORDS: usize = 200_000;

/// The topic of an event.
pub(super) fn topic_arn(event: Event) -> String {
    let name = match event {
        Event::OnExported => "DPWebHook_onexport",
        Event::OnDigitized => "DPWebHook_ondigitize",
    };
    format!("arn:aws:sns:{REGION}:{TOPIC_OWNER}:{name}")
}

/// Where a subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// Waits for a visit to its SubscribeURL.
    Pending,
    /// Gets notifications.
    Confirmed,
    /// Has been ended; its last SubscribeURL brings it back.
    Ended,
}

/// One webhook.
#[derive(Clone, Debug, Serialize)]
pub struct Subscription {
    /// Its ARN, which the subscriber learns when it confirms.
    pub subscription_arn: String,
    /// The name that the subscriber gave.
    pub name: String,
    /// What it wants to hear of.
    pub event: Event,
    /// Where deliveries go.
    #[serde(skip)]
    pub target: String,
    /// Whose documents it is about.
    pub account: Uuid,
    /// Where it stands.
    pub state: SubscriptionState,
    #[serde(skip)]
    token: String,
    #[serde(skip)]
    token_made_at: Timestamp,
}

impl Subscription {
    fn hears(&self, event: Event, account: Uuid) -> bool {
        self.event == event && self.account == account && self.state == SubscriptionState::Confirmed
    }
}

/// A message to publish: by default an ordinary notification of an account.
#[derive(Clone, Debug, Deserialize)]
pub struct Publication {
    /// To whose subscribers.
    pub event: Event,
    /// `Message`.
    pub message: String,
    /// Whose subscribers, by API key; the first account's unless said.
    #[serde(default)]
    pub account: Option<String>,
    /// The company that the delivery's record names.
    #[serde(default)]
    pub company: Option<String>,
    /// So many copies at once, all with one MessageId.
    #[serde(default = "one")]
    pub copies: usize,
    /// Another TopicArn than the event's, signed as such.
    #[serde(default)]
    pub topic_arn: Option<String>,
    /// Another Timestamp than the present moment, signed as such.
    #[serde(default)]
    pub timestamp: Option<String>,
    /// A certain MessageId.
    #[serde(default)]
    pub message_id: Option<String>,
    /// `Subject`.
    #[serde(default)]
    pub subject: Option<String>,
    /// How it is spoilt after it was signed.
    #[serde(default)]
    pub tamper: Tamper,
    /// Without envelope and signature, as with raw message delivery.
    #[serde(default)]
    pub raw: bool,
    /// Another signature version than the switch says.
    #[serde(default)]
    pub signature_version: Option<u8>,
}

const fn one() -> usize {
    1
}

impl Publication {
    /// An ordinary notification with this `Message`.
    pub fn new(event: Event, message: impl Into<String>) -> Self {
        Self {
            event,
            message: message.into(),
            account: None,
            company: None,
            copies: 1,
            topic_arn: None,
            timestamp: None,
            message_id: None,
            subject: None,
            tamper: Tamper::Nothing,
            raw: false,
            signature_version: None,
        }
    }

    /// What an export of `company` publishes, though nothing was exported.
    pub fn exported(company: &str) -> Self {
        let message = json!({ "companyCode": company }).to_string();
        Self {
            company: Some(company.to_owned()),
            ..Self::new(Event::OnExported, message)
        }
    }
}

#[derive(Debug, Default)]
struct Book {
    subscriptions: Vec<Subscription>,
    records: VecDeque<DeliveryRecord>,
    /// Number of the oldest record.
    first: u64,
    lose_next: usize,
}

/// How attempts ended, from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AttemptTotals {
    /// Attempts answered with a 2xx.
    pub acknowledged: u64,
    /// Attempts answered with a 5xx.
    pub failed: u64,
    /// Attempts that nobody answered in time.
    pub unanswered: u64,
    /// Attempts answered with a 3xx or 4xx, which SNS takes for delivered.
    pub refused: u64,
    /// Messages given up after their last attempt.
    pub given_up: u64,
}

impl AttemptTotals {
    fn count(&mut self, status: Option<u16>, outcome: Outcome) {
        match status {
            Some(200..=299) => self.acknowledged += 1,
            Some(500..) => self.failed += 1,
            Some(_) => self.refused += 1,
            None => self.unanswered += 1,
        }
        if outcome == Outcome::GivenUp {
            self.given_up += 1;
        }
    }
}

/// Topics, subscriptions and deliveries.
pub(super) struct Sns {
    signers: Mutex<Vec<Arc<Signer>>>,
    book: Mutex<Book>,
    pending: watch::Sender<usize>,
    /// Raised after the attempt's record was changed.
    pub(super) totals: watch::Sender<AttemptTotals>,
    permits: Arc<Semaphore>,
    /// Raised to have every waiting delivery tried at once.
    pub(super) hurry: watch::Sender<u64>,
    pub(super) client: reqwest::Client,
}

/// One delivery that has not settled; counted until it is dropped.
pub(super) struct Pending(watch::Sender<usize>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.send_modify(|pending| *pending -= 1);
    }
}

impl Sns {
    pub(super) fn new(signer: Arc<Signer>, concurrency: usize) -> Result<Self, reqwest::Error> {
        Ok(Self {
            signers: Mutex::new(vec![signer]),
            book: Mutex::default(),
            pending: watch::Sender::new(0),
            totals: watch::Sender::new(AttemptTotals::default()),
            permits: Arc::new(Semaphore::new(concurrency.clamp(1, 10_000))),
            hurry: watch::Sender::new(0),
            // Each request sets its own time limit.
            client: egress::client(Duration::from_secs(3600))?,
        })
    }

    pub(super) fn pending(&self) -> Pending {
        self.pending.send_modify(|pending| *pending += 1);
        Pending(self.pending.clone())
    }

    pub(super) async fn permit(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        Arc::clone(&self.permits).acquire_owned().await
    }

    /// Waits until no delivery is pending.
    pub(super) async fn idle(&self) {
        // An error would mean that the sender is gone, and it is ours.
        let _ = self
            .pending
            .subscribe()
            .wait_for(|pending| *pending == 0)
            .await;
    }

    /// Signs with `signer` from now on; older certificates are served as before.
    pub(super) fn rotate(&self, signer: Arc<Signer>) {
        self.signers().push(signer);
    }

    fn signer(&self) -> Arc<Signer> {
        let signers = self.signers();
        Arc::clone(signers.last().expect("made with one, never emptied"))
    }

    /// The certificate that is served at `path`.
    pub(super) fn certificate(&self, path: &str) -> Option<String> {
        let signers = self.signers();
        let signer = signers.iter().find(|s| s.certificate_path() == path)?;
        Some(signer.certificate_pem().to_owned())
    }

    /// The path of the certificate in use.
    pub(super) fn certificate_path(&self) -> String {
        self.signer().certificate_path()
    }

    pub(super) fn subscriptions(&self) -> Vec<Subscription> {
        self.book().subscriptions.clone()
    }

    pub(super) fn has_subscribers(&self, event: Event, account: Uuid) -> bool {
        self.book()
            .subscriptions
            .iter()
            .any(|subscription| subscription.hears(event, account))
    }

    pub(super) fn records(&self) -> Vec<DeliveryRecord> {
        self.book().records.iter().cloned().collect()
    }

    pub(super) fn forget_records(&self) {
        let mut book = self.book();
        book.first += book.records.len() as u64;
        book.records.clear();
    }

    pub(super) fn lose_next(&self, count: usize) {
        self.book().lose_next = count;
    }

    /// Notes an attempt's outcome.
    pub(super) fn attempted(&self, number: u64, status: Option<u16>, outcome: Outcome) {
        let mut book = self.book();
        let index = number.checked_sub(book.first);
        let index = index.and_then(|index| usize::try_from(index).ok());
        if let Some(record) = index.and_then(|index| book.records.get_mut(index)) {
            record.attempts += 1;
            record.last_status = status;
            record.outcome = outcome;
        }
        drop(book);
        self.totals
            .send_modify(|totals| totals.count(status, outcome));
    }

    fn record(&self, record: DeliveryRecord) -> u64 {
        let mut book = self.book();
        if book.records.len() == RECORDS {
            book.records.pop_front();
            book.first += 1;
        }
        book.records.push_back(record);
        book.first + book.records.len() as u64 - 1
    }

    fn signers(&self) -> MutexGuard<'_, Vec<Arc<Signer>>> {
        self.signers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a target is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not an address.
    #[error("the target is not an http or https URL")]
    NotAUrl,
    /// On another machine.
    #[error(
        "the target is not on this machine; start the emulator with --allow-remote to send there"
    )]
    Remote,
}

/// Checks that `target` is a URL and, unless the settings allow others, on this machine.
fn check_target(vendor: &Vendor, target: &str) -> Result<(), TargetError> {
    let url = Url::parse(target).map_err(|_| TargetError::NotAUrl)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(TargetError::NotAUrl);
    }
    let local = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => return Err(TargetError::NotAUrl),
    };
    if local || vendor.allow_remote {
        Ok(())
    } else {
        Err(TargetError::Remote)
    }
}

/// Subscribes `target`, and asks it to confirm.
///
/// A target that is subscribed already is not asked again, as with SNS.
pub(super) fn subscribe(
    vendor: &Arc<Vendor>,
    account: Uuid,
    name: &str,
    event: Event,
    target: &str,
) -> Result<Subscription, TargetError> {
    check_target(vendor, target)?;
    let now = vendor.now();
    let fresh = Subscription {
        subscription_arn: format!("{}:{}", topic_arn(event), vendor.uuid()),
        name: name.to_owned(),
        event,
        target: target.to_owned(),
        account,
        state: SubscriptionState::Pending,
        token: vendor.token(),
        token_made_at: now,
    };
    let subscription = {
        let mut book = vendor.sns.book();
        let same =
            |s: &&mut Subscription| s.event == event && s.account == account && s.target == target;
        match book.subscriptions.iter_mut().find(same) {
            Some(old) if old.state == SubscriptionState::Confirmed => return Ok(old.clone()),
            Some(old) => {
                old.state = SubscriptionState::Pending;
                old.token = fresh.token;
                old.token_made_at = now;
                old.clone()
            }
            None => {
                book.subscriptions.push(fresh.clone());
                fresh
            }
        }
    };
    ask(
        vendor,
        &subscription,
        MessageType::SubscriptionConfirmation,
        None,
    );
    Ok(subscription)
}

/// Confirms the subscription of `topic` that was given `token`, and gives its ARN.
pub(super) fn confirm(vendor: &Vendor, topic: &str, token: &str) -> Option<String> {
    let now = vendor.now();
    let mut book = vendor.sns.book();
    let subscription = book.subscriptions.iter_mut().find(|subscription| {
        subscription.token == token && topic_arn(subscription.event) == topic
    })?;
    if now.since(subscription.token_made_at) > TOKEN_LIFETIME {
        return None;
    }
    subscription.state = SubscriptionState::Confirmed;
    Some(subscription.subscription_arn.clone())
}

/// Ends a subscription and tells the subscriber; whether there was one.
pub(super) fn unsubscribe(vendor: &Arc<Vendor>, arn: &str) -> bool {
    let token = vendor.token();
    let subscription = {
        let mut book = vendor.sns.book();
        let found = book
            .subscriptions
            .iter_mut()
            .find(|subscription| subscription.subscription_arn == arn);
        let Some(subscription) = found else {
            return false;
        };
        if subscription.state != SubscriptionState::Confirmed {
            return true;
        }
        subscription.state = SubscriptionState::Ended;
        subscription.token = token;
        subscription.token_made_at = vendor.now();
        subscription.clone()
    };
    let arn = Some(subscription.subscription_arn.clone());
    ask(
        vendor,
        &subscription,
        MessageType::UnsubscribeConfirmation,
        arn,
    );
    true
}

/// Sends one of the two confirmations.
fn ask(vendor: &Arc<Vendor>, to: &Subscription, message_type: MessageType, arn: Option<String>) {
    let topic = topic_arn(to.event);
    // SNS's own words.
    let message = if message_type == MessageType::UnsubscribeConfirmation {
        format!(
            "You have chosen to deactivate subscription {}.\nTo cancel this operation and restore the subscription, visit the SubscribeURL included in this message.",
            to.subscription_arn
        )
    } else {
        format!(
            "You have chosen to subscribe to the topic {topic}.\nTo confirm the subscription, visit the SubscribeURL included in this message."
        )
    };
    let unsigned = Unsigned {
        message_type,
        message_id: vendor.uuid().to_string(),
        subject: None,
        message,
        timestamp: vendor.now().to_string(),
        token: Some(to.token.clone()),
        subscribe_url: Some(format!(
            "{}/?Action=ConfirmSubscription&TopicArn={topic}&Token={}",
            vendor.origin, to.token
        )),
        unsubscribe_url: None,
        attributes: Map::new(),
        topic_arn: topic,
    };
    let number = vendor.sns.record(DeliveryRecord {
        message_id: unsigned.message_id.clone(),
        message_type: message_type.as_str(),
        event: to.event,
        company: None,
        subscription_arn: arn.clone(),
        attempts: 0,
        last_status: None,
        outcome: Outcome::Pending,
    });
    let parcel = Parcel {
        number,
        target: to.target.clone(),
        unsigned,
        subscription_arn: arn,
        signer: vendor.sns.signer(),
        signature_version: vendor.switches().signature_version.number(),
        tamper: Tamper::Nothing,
        raw: false,
    };
    delivery::send(vendor, parcel);
}

/// Publishes to the confirmed subscribers of an account; gives the MessageId.
pub(super) fn publish(vendor: &Arc<Vendor>, account: Uuid, publication: &Publication) -> String {
    let unsigned = Unsigned {
        message_type: MessageType::Notification,
        message_id: publication
            .message_id
            .clone()
            .unwrap_or_else(|| vendor.uuid().to_string()),
        topic_arn: publication
            .topic_arn
            .clone()
            .unwrap_or_else(|| topic_arn(publication.event)),
        subject: publication.subject.clone(),
        message: publication.message.clone(),
        timestamp: publication
            .timestamp
            .clone()
            .unwrap_or_else(|| vendor.now().to_string()),
        token: None,
        subscribe_url: None,
        unsubscribe_url: None,
        attributes: attributes(account),
    };
    let (subscribers, lost) = {
        let mut book = vendor.sns.book();
        let lost = book.lose_next > 0;
        book.lose_next = book.lose_next.saturating_sub(1);
        let subscribers: Vec<Subscription> = book
            .subscriptions
            .iter()
            .filter(|subscription| subscription.hears(publication.event, account))
            .cloned()
            .collect();
        (subscribers, lost)
    };
    for subscriber in subscribers {
        for _ in 0..publication.copies.max(1) {
            post(vendor, &subscriber, &unsigned, publication, lost);
        }
    }
    unsigned.message_id
}

fn post(
    vendor: &Arc<Vendor>,
    to: &Subscription,
    unsigned: &Unsigned,
    publication: &Publication,
    lost: bool,
) {
    let arn = &to.subscription_arn;
    let outcome = if lost {
        Outcome::Lost
    } else {
        Outcome::Pending
    };
    let number = vendor.sns.record(DeliveryRecord {
        message_id: unsigned.message_id.clone(),
        message_type: unsigned.message_type.as_str(),
        event: to.event,
        company: publication.company.clone(),
        subscription_arn: Some(arn.clone()),
        attempts: 0,
        last_status: None,
        outcome,
    });
    if lost {
        return;
    }
    let unsubscribe_url = format!(
        "{}/?Action=Unsubscribe&SubscriptionArn={arn}",
        vendor.origin
    );
    let version = vendor.switches().signature_version.number();
    let parcel = Parcel {
        number,
        target: to.target.clone(),
        unsigned: Unsigned {
            unsubscribe_url: Some(unsubscribe_url),
            ..unsigned.clone()
        },
        subscription_arn: Some(arn.clone()),
        signer: vendor.sns.signer(),
        signature_version: publication.signature_version.unwrap_or(version),
        tamper: publication.tamper,
        raw: publication.raw,
    };
    delivery::send(vendor, parcel);
}

fn attributes(account: Uuid) -> Map<String, Value> {
    let mut attributes = Map::new();
    attributes.insert(
        "account".to_owned(),
        json!({ "Type": "String", "Value": account.to_string() }),
    );
    attributes
}
