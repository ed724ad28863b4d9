//! Delivers one message to one subscriber: attempts, waits, outcome.
//!
//! The waits are the vendor's: [`RETRIES`] retries, from [`FIRST_WAIT`] growing
//! geometrically to [`LAST_WAIT`]. Only a status of 500 and above, a timeout or
//! a failed connection is a failed attempt; anything else counts as delivered,
//! even a refusal (vendor-api, "How SNS delivers").

use std::sync::Arc;
use std::time::Duration;

use crate::delivery_record::Outcome;
use crate::publication::Tamper;
use crate::signer::{Signer, Unsigned};
use crate::vendor::Vendor;
use sns_messages::MessageType;
use sns_messages::http;

/// Attempts after the first one.
pub const RETRIES: u32 = 10;
/// The wait before the first retry.
pub const FIRST_WAIT: Duration = Duration::from_secs(20);
/// The wait before the last retry.
pub const LAST_WAIT: Duration = Duration::from_secs(600);

/// Returns the wait before retry number `retry`, which starts at 1.
pub fn wait_before_retry(retry: u32) -> Duration {
    let steps = f64::from(RETRIES - 1);
    let growth = (LAST_WAIT.as_secs_f64() / FIRST_WAIT.as_secs_f64()).powf(1.0 / steps);
    let exponent = f64::from(retry.clamp(1, RETRIES) - 1);
    FIRST_WAIT.mul_f64(growth.powf(exponent))
}

/// One message on its way to one subscriber.
pub(crate) struct Delivery {
    pub(crate) number: u64,
    pub(crate) target: String,
    pub(crate) unsigned: Unsigned,
    pub(crate) subscription_arn: Option<String>,
    pub(crate) signer: Arc<Signer>,
    pub(crate) signature_version: u8,
    pub(crate) tamper: Tamper,
    pub(crate) raw: bool,
}

/// Delivers `delivery` in the background.
pub(crate) fn send(vendor: &Arc<Vendor>, delivery: Delivery) {
    let task_vendor = Arc::clone(vendor);
    let pending = vendor.ledger.pending();
    let task = async move {
        let _pending = pending;
        let stopping = task_vendor.stopping.clone();
        stopping
            .run_until_cancelled(deliver(&task_vendor, delivery))
            .await;
    };
    vendor.tasks.spawn_on(task, &vendor.runtime);
}

async fn deliver(vendor: &Arc<Vendor>, delivery: Delivery) {
    // The first permit covers signing too, so that a burst does not start a thread for
    // each of its messages.
    let Ok(mut permit) = vendor.ledger.permit().await else {
        return;
    };
    let url = format!("{}{}", vendor.origin, delivery.signer.certificate_path());
    let Ok((delivery, body)) = tokio::task::spawn_blocking(move || {
        let body = body(&delivery, &url);
        (delivery, body)
    })
    .await
    else {
        return;
    };
    for attempt in 1..=RETRIES + 1 {
        let status = attempt_once(vendor, &delivery, &body).await;
        drop(permit);
        let outcome = match status {
            Some(200..=299) => Outcome::Acknowledged,
            Some(status) if status < 500 => Outcome::Refused,
            _ if attempt > RETRIES => Outcome::GivenUp,
            _ => Outcome::Pending,
        };
        vendor.ledger.attempted(delivery.number, status, outcome);
        if outcome != Outcome::Pending {
            return;
        }
        wait(vendor, attempt).await;
        permit = match vendor.ledger.permit().await {
            Ok(permit) => permit,
            Err(_) => return,
        };
    }
}

async fn wait(vendor: &Vendor, retry: u32) {
    let mut retry_now = vendor.ledger.retry_now.subscribe();
    let scale = vendor.switches().time_scale.get();
    tokio::select! {
        () = tokio::time::sleep(wait_before_retry(retry).mul_f64(scale)) => {}
        _ = retry_now.changed() => {}
    }
}

/// Posts the message once; returns the target's status, if it answered in time.
async fn attempt_once(vendor: &Vendor, delivery: &Delivery, body: &str) -> Option<u16> {
    let message = &delivery.unsigned;
    let timeout = Duration::from_millis(vendor.switches().delivery_timeout_ms);
    let mut request = vendor
        .ledger
        .client
        .post(&delivery.target)
        .timeout(timeout)
        .header("content-type", "text/plain; charset=UTF-8")
        .header("user-agent", "Amazon Simple Notification Service Agent")
        .header("x-amz-sns-message-type", message.message_type.as_str())
        .header("x-amz-sns-message-id", &message.message_id)
        .header("x-amz-sns-topic-arn", &message.topic_arn);
    if let Some(arn) = &delivery.subscription_arn {
        request = request.header("x-amz-sns-subscription-arn", arn);
    }
    if delivery.raw {
        request = request.header("x-amz-sns-rawdelivery", "true");
    }
    match request.body(body.to_owned()).send().await {
        Ok(response) => Some(response.status().as_u16()),
        Err(error) => {
            let message_id = &message.message_id;
            let error = http::describe(error);
            tracing::debug!(sns.message_id = %message_id, %error, "delivery of `{message_id}` failed: {error}");
            None
        }
    }
}

/// Returns the body of every attempt.
fn body(delivery: &Delivery, certificate_url: &str) -> String {
    if delivery.raw && delivery.unsigned.message_type == MessageType::Notification {
        return delivery.unsigned.message.clone();
    }
    let signed = delivery.signer.sign(
        &delivery.unsigned,
        delivery.signature_version,
        certificate_url,
    );
    match delivery.tamper {
        Tamper::Nothing => signed,
        Tamper::Signature => changed(&signed, "Signature", |signature| {
            // Another base64 text of the same length.
            let other = |c| if c == 'A' { 'B' } else { 'A' };
            let letters = signature.chars().enumerate();
            letters
                .map(|(index, c)| if index == 9 { other(c) } else { c })
                .collect()
        }),
        Tamper::Message => changed(&signed, "Message", |message| format!("{message} ")),
    }
}

fn changed(body: &str, field: &str, change: impl Fn(&str) -> String) -> String {
    let Ok(mut value) = serde_json::from_str::<serde_json::Value>(body) else {
        return body.to_owned();
    };
    if let Some(text) = value[field].as_str().map(change) {
        value[field] = text.into();
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_retries_grow_geometrically_and_take_half_an_hour() {
        let waits: Vec<Duration> = (1..=RETRIES).map(wait_before_retry).collect();
        assert_eq!(waits[0].as_secs(), 20);
        assert_eq!(waits[9].as_secs_f64().round(), 600.0);
        for pair in waits.windows(3) {
            let (first, second) = (
                pair[1].as_secs_f64() / pair[0].as_secs_f64(),
                pair[2].as_secs_f64() / pair[1].as_secs_f64(),
            );
            assert!((first - second).abs() < 1e-6, "not geometric");
        }
        let sum: Duration = waits.iter().sum();
        assert!((30 * 60..32 * 60).contains(&sum.as_secs()), "{sum:?}");
    }
}
