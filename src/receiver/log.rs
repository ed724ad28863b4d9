//! What the log says of messages: identifiers and reasons, never a path's
//! token, a signature or a body; an address only where `log.client_addresses` wants it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tracing::field::{Empty, display};
use tracing::{Span, debug, debug_span, error, info, warn};

use super::caller::{Caller, RequestId};
use super::incoming::IncomingMessage;
use super::webhooks::{ROUTE_TEMPLATE, Webhook};
use crate::domain::Feed;
use crate::refusal::Refusal;
use crate::store::{Insertion, StoreError};

/// Lines about refused messages within one second, and as many about accepted ones;
/// further ones are only counted.
const LINES_A_SECOND: u64 = 20;

/// What an accepted message is followed by, from here to the documents that it announced.
pub(super) struct Told {
    pub(super) message_id: String,
    /// The feed that it wants pulled.
    pub(super) trigger: Option<Feed>,
}

/// The span of a message that is judged; `outcome` and what it says are recorded later.
pub(super) fn span(incoming: &IncomingMessage<'_>) -> Span {
    let Webhook { account, event, .. } = incoming.webhook;
    debug_span!(
        "message",
        %account,
        %event,
        request.id = incoming.request_id.as_ref().map(RequestId::as_str),
        sns.message_id = Empty,
        feed = Empty,
        outcome = Empty,
    )
}

/// AcceptedMessage messages since they were last told, and how much was told lately.
///
/// One line for each of thousands a second would cost more than their signature checks.
#[derive(Default)]
pub struct Tally {
    new: AtomicU64,
    duplicate: AtomicU64,
    accepted: Lines,
    refused: Lines,
}

/// Lines of the log, so many a second.
struct Lines {
    started: Instant,
    // The second in the upper half, its lines in the lower.
    told: AtomicU64,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            told: AtomicU64::new(0),
        }
    }
}

impl Lines {
    fn may_tell(&self) -> bool {
        let second = self.started.elapsed().as_secs() << 32;
        let told = self
            .told
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |lines| {
                let this_second = lines & !0xffff_ffff == second;
                Some(if this_second { lines + 1 } else { second | 1 })
            });
        let lines = told.unwrap_or(0);
        lines & !0xffff_ffff != second || lines & 0xffff_ffff < LINES_A_SECOND
    }
}

impl Tally {
    /// Counts an accepted message and tells it, at level `debug` where many were told
    /// within this second. One that is judged anew belongs to no request.
    pub(super) fn accepted(
        &self,
        webhook: &Webhook,
        insertion: Insertion,
        told: &Told,
        request: Option<&RequestId>,
    ) {
        let (total, lately) = match insertion {
            Insertion::New => (&webhook.accepted.new, &self.new),
            Insertion::Duplicate => (&webhook.accepted.duplicate, &self.duplicate),
        };
        total.inc();
        lately.fetch_add(1, Ordering::Relaxed);
        let (account, event, id) = (&webhook.account, webhook.event, &told.message_id);
        let request = request.map(RequestId::as_str);
        let feed = told.trigger.as_ref().map(display);
        let outcome = match insertion {
            Insertion::New => "new",
            Insertion::Duplicate => "duplicate",
        };
        let span = Span::current();
        span.record("sns.message_id", id.as_str());
        span.record("outcome", outcome);
        if let Some(feed) = &feed {
            span.record("feed", feed);
        }
        if self.accepted.may_tell() {
            info!(%account, %event, request.id = request, sns.message_id = %id, feed, outcome, "accepted message `{id}` of {account}/{event}");
        } else {
            debug!(%account, %event, request.id = request, sns.message_id = %id, feed, outcome, "accepted message `{id}` of {account}/{event}");
        }
    }

    /// Tells a refused message, unless too many were told within this second.
    pub(super) fn refused(&self, webhook: Option<&Webhook>, refusal: &Refusal, caller: &Caller) {
        if !self.refused.may_tell() {
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
                "refused a message: {refusal}"
            ),
            Some(Webhook { account, event, .. }) => warn!(
                code,
                %account,
                %event,
                request.id = request,
                client.address = client,
                route = ROUTE_TEMPLATE,
                "refused a message of {account}/{event}: {refusal} ({code})"
            ),
        }
    }

    /// One line on the messages accepted since the last one, if there were any.
    pub fn tell(&self) {
        let new = self.new.swap(0, Ordering::Relaxed);
        let duplicate = self.duplicate.swap(0, Ordering::Relaxed);
        if new + duplicate > 0 {
            info!(
                new,
                duplicate, "accepted {new} messages and {duplicate} repeated ones"
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

/// Tells why the store did not take a message.
pub(super) fn store_failed(error: &StoreError) {
    error!("a message could not be stored and was answered 503: {error}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_writes_a_bounded_number_of_lines() {
        let lines = Lines::default();
        let told = (0..10_000).filter(|_| lines.may_tell()).count() as u64;
        // The loop may straddle a few seconds on a slow machine.
        let seconds = lines.started.elapsed().as_secs() + 1;
        assert!(told >= LINES_A_SECOND, "{told}");
        assert!(told <= LINES_A_SECOND * seconds, "{told} in {seconds} s");
    }
}
