//! Subscribes, confirms and publishes, as SNS does.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use url::Url;
use uuid::Uuid;

use crate::delivery::{self, Delivery};
use crate::delivery_record::{DeliveryRecord, Outcome};
use crate::domain::Event;
use crate::publication::{Publication, Tamper};
use crate::signer::Unsigned;
use crate::subscription::{Subscription, SubscriptionState};
use crate::vendor::Vendor;
use sns_messages::MessageType;
use sns_messages::http::is_loopback;

/// Lifetime of a confirmation token (vendor-api, "How SNS delivers").
pub(crate) const TOKEN_LIFETIME: Duration = Duration::from_secs(2 * 24 * 3600);

/// Why a target was refused.
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
    if url.host().is_none() {
        return Err(TargetError::NotAUrl);
    }
    if is_loopback(&url) || vendor.allow_remote {
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
    let topic_arn = vendor.topic_arn(event);
    let fresh = Subscription {
        subscription_arn: format!("{topic_arn}:{}", vendor.uuid()),
        topic_arn: topic_arn.clone(),
        name: name.to_owned(),
        event,
        target: target.to_owned(),
        account,
        state: SubscriptionState::Pending,
        token: vendor.token(),
        token_made_at: now,
    };
    let subscription = {
        let mut book = vendor.ledger.book();
        let same = |s: &&mut Subscription| {
            s.topic_arn == topic_arn && s.account == account && s.target == target
        };
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

/// Confirms the subscription of `topic` that has `token`, and returns its ARN.
pub(crate) fn confirm(vendor: &Vendor, topic: &str, token: &str) -> Option<String> {
    let now = vendor.now();
    let mut book = vendor.ledger.book();
    let subscription = book
        .subscriptions
        .iter_mut()
        .find(|subscription| subscription.token == token && subscription.topic_arn == topic)?;
    if now.since(subscription.token_made_at) > TOKEN_LIFETIME {
        return None;
    }
    subscription.state = SubscriptionState::Confirmed;
    Some(subscription.subscription_arn.clone())
}

/// Ends a subscription and notifies the subscriber; returns false if there was none.
pub(crate) fn unsubscribe(vendor: &Arc<Vendor>, arn: &str) -> bool {
    let token = vendor.token();
    let subscription = {
        let mut book = vendor.ledger.book();
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
    let topic = &to.topic_arn;
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
        topic_arn: topic.clone(),
    };
    let number = vendor.ledger.record(DeliveryRecord {
        message_id: unsigned.message_id.clone(),
        message_type: message_type.as_str(),
        event: to.event,
        company: None,
        subscription_arn: arn.clone(),
        attempts: 0,
        last_status: None,
        outcome: Outcome::Pending,
    });
    let delivery = Delivery {
        number,
        target: to.target.clone(),
        unsigned,
        subscription_arn: arn,
        signer: vendor.ledger.signer(),
        signature_version: vendor.switches().signature_version.number(),
        tamper: Tamper::Nothing,
        raw: false,
    };
    delivery::send(vendor, delivery);
}

/// Publishes to the confirmed subscribers of an account; returns the MessageId.
pub(crate) fn publish(vendor: &Arc<Vendor>, account: Uuid, publication: &Publication) -> String {
    let topic_arn = vendor.topic_arn(publication.event);
    let unsigned = Unsigned {
        message_type: MessageType::Notification,
        message_id: publication
            .message_id
            .clone()
            .unwrap_or_else(|| vendor.uuid().to_string()),
        topic_arn: publication
            .topic_arn
            .clone()
            .unwrap_or_else(|| topic_arn.clone()),
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
        let mut book = vendor.ledger.book();
        let lost = book.lose_next > 0;
        book.lose_next = book.lose_next.saturating_sub(1);
        let subscribers: Vec<Subscription> = book
            .subscriptions
            .iter()
            .filter(|subscription| subscription.receives(&topic_arn, account))
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
    let number = vendor.ledger.record(DeliveryRecord {
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
    let delivery = Delivery {
        number,
        target: to.target.clone(),
        unsigned: Unsigned {
            unsubscribe_url: Some(unsubscribe_url),
            ..unsigned.clone()
        },
        subscription_arn: Some(arn.clone()),
        signer: vendor.ledger.signer(),
        signature_version: publication.signature_version.unwrap_or(version),
        tamper: publication.tamper,
        raw: publication.raw,
    };
    delivery::send(vendor, delivery);
}

fn attributes(account: Uuid) -> Map<String, Value> {
    let mut attributes = Map::new();
    attributes.insert(
        "account".to_owned(),
        json!({ "Type": "String", "Value": account.to_string() }),
    );
    attributes
}
