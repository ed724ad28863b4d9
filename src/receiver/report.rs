//! What the log says of deliveries: identifiers and reasons, never a path's
//! token, a signature or a body; an address only where `log.client_addresses` wants it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tracing::field::display;
use tracing::{debug, error, info, warn};

use super::caller::{Caller, RequestId};
use super::webhooks::{ROUTE_TEMPLATE, Webhook};
use crate::refusal::Refusal;
use crate::store::{Insertion, StoreError};

/// Lines about refused deliveries within one second; further ones are only counted.
const LINES_A_SECOND: u64 = 20;

/// Accepted deliveries since they were last told, and how much was told lately.
///
/// One line for each accepted delivery would cost more than its signature check.
pub struct Tally {
    new: AtomicU64,
    duplicate: AtomicU64,
    started: Instant,
    // The second in the upper half, its lines in the lower.
    lines: AtomicU64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            new: AtomicU64::new(0),
            duplicate: AtomicU64::new(0),
            started: Instant::now(),
            lines: AtomicU64::new(0),
        }
    }
}

impl Tally {
    /// Counts an accepted delivery; at level `debug` it has a line of its own. One that
    /// is judged anew belongs to no request.
    pub(super) fn accepted(
        &self,
        webhook: &Webhook,
        insertion: Insertion,
        request: Option<&RequestId>,
    ) {
        let (total, lately) = match insertion {
            Insertion::New => (&webhook.accepted.new, &self.new),
            Insertion::Duplicate => (&webhook.accepted.duplicate, &self.duplicate),
        };
        total.inc();
        lately.fetch_add(1, Ordering::Relaxed);
        debug!(
            account = %webhook.account,
            event = %webhook.event,
            request.id = request.map(RequestId::as_str),
            ?insertion,
            "accepted a delivery"
        );
    }

    /// Tells a refused delivery, unless too many were told within this second.
    pub(super) fn refused(&self, webhook: Option<&Webhook>, refusal: &Refusal, caller: &Caller) {
        if !self.may_tell() {
            return;
        }
        let code = refusal.code();
        let request = caller.request_id.as_str();
        let client = caller.address.map(display);
        match webhook {
            // Anybody can ask for any path.
            None => info!(
                code,
                request.id = request,
                client.address = client,
                route = ROUTE_TEMPLATE,
                "refused a delivery: {refusal}"
            ),
            Some(Webhook { account, event, .. }) => warn!(
                code,
                %account,
                %event,
                request.id = request,
                client.address = client,
                route = ROUTE_TEMPLATE,
                "refused a delivery of {account}/{event}: {refusal} ({code})"
            ),
        }
    }

    fn may_tell(&self) -> bool {
        let second = self.started.elapsed().as_secs() << 32;
        let told = self
            .lines
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |lines| {
                let this_second = lines & !0xffff_ffff == second;
                Some(if this_second { lines + 1 } else { second | 1 })
            });
        let lines = told.unwrap_or(0);
        lines & !0xffff_ffff != second || lines & 0xffff_ffff < LINES_A_SECOND
    }

    /// One line on the deliveries accepted since the last one, if there were any.
    pub fn tell(&self) {
        let new = self.new.swap(0, Ordering::Relaxed);
        let duplicate = self.duplicate.swap(0, Ordering::Relaxed);
        if new + duplicate > 0 {
            info!(
                new,
                duplicate, "accepted {new} deliveries and {duplicate} repeated ones"
            );
        }
    }
}

/// Raises the alarm over a subscription that SNS says has ended.
pub(super) fn unsubscribed(webhook: &Webhook, topic_arn: &str) {
    let Webhook { account, event, .. } = webhook;
    error!(
        %account,
        %event,
        sns.topic_arn = topic_arn,
        "SNS says that the subscription of {account}/{event} has ended: no more notifications come. \
         If nobody here wanted that, `ivesk-webhook subscriptions restore` brings it back"
    );
}

/// Tells why the store did not take a delivery.
pub(super) fn store_failed(error: &StoreError) {
    error!("a delivery could not be stored and was answered 503: {error}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_writes_a_bounded_number_of_lines() {
        let tally = Tally::default();
        let told = (0..10_000).filter(|_| tally.may_tell()).count() as u64;
        // The loop may straddle a few seconds on a slow machine.
        let seconds = tally.started.elapsed().as_secs() + 1;
        assert!(told >= LINES_A_SECOND, "{told}");
        assert!(told <= LINES_A_SECOND * seconds, "{told} in {seconds} s");
    }
}
