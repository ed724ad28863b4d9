//! The emulated SNS: two topics, their subscriptions, and what is published to them.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::Url;
use uuid::Uuid;

use crate::delivery::{self, DeliveryRecord, Outcome, Parcel, Tamper};
use crate::domain::Event;
use crate::signer::Unsigned;
use crate::vendor::Vendor;
use sns_messages::MessageType;
use sns_messages::time::Timestamp;

/// The AWS account of the vendor's topics (vendor-api, "Webhook messages").
pub(crate) const TOPIC_OWNER: &str = "007272210889";
/// Their region.
pub(crate) const REGION: &str = "eu-west-1";
/// How long a confirmation token is good (vendor-api, "How SNS delivers").
pub(crate) const TOKEN_LIFETIME: Duration = Duration::from_secs(2 * 24 * 3600);
/// The most bytes that a `Message` to an HTTP subscriber may have (vendor-api, "How SNS delivers").
pub(crate) const MAX_MESSAGE_BYTES: usize = 262_144;

/// The topic of an event.
pub(crate) fn topic_arn(event: Event) -> String {
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

/// One webhook. Target and token are secrets, and are not printed.
#[derive(Clone, Serialize)]
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

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("subscription_arn", &self.subscription_arn)
            .field("event", &self.event)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Subscription {
    pub(crate) fn hears(&self, event: Event, account: Uuid) -> bool {
        self.event == event && self.account == account && self.state == SubscriptionState::Confirmed
    }
}

/// A message to publish: by default an ordinary notification of an account.
#[derive(Clone, Deserialize)]
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

impl std::fmt::Debug for Publication {
    /// Without the API key and the message.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publication")
            .field("event", &self.event)
            .field("company", &self.company)
            .field("copies", &self.copies)
            .field("topic_arn", &self.topic_arn)
            .field("tamper", &self.tamper)
            .finish_non_exhaustive()
    }
}

const fn one() -> usize {
    1
}

impl Publication {
    /// An ordinary notification with this `Message`.
    pub fn new(event: impl Into<Event>, message: impl Into<String>) -> Self {
        Self {
            event: event.into(),
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
pub(crate) fn subscribe(
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
pub(crate) fn confirm(vendor: &Vendor, topic: &str, token: &str) -> Option<String> {
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
pub(crate) fn unsubscribe(vendor: &Arc<Vendor>, arn: &str) -> bool {
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
pub(crate) fn publish(vendor: &Arc<Vendor>, account: Uuid, publication: &Publication) -> String {
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
