//! Log lines about messages: identifiers and reasons, never a path's token, a signature
//! or a body; an address only if `log.client_addresses` is on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Empty, display};
use tracing::{Span, debug, debug_span, error, info, warn};

use super::caller::{Caller, RequestId};
use super::incoming::IncomingMessage;
use super::webhooks::{ROUTE_TEMPLATE, Webhook};
use crate::domain::Account;
use crate::refusal::Refusal;
use crate::sns::UnknownTopicConfirmation;
use crate::store::{Insertion, StoreError, Triggers};
use crate::unexpected::UnexpectedRequest;

/// Lines about refused messages within one second, and as many about accepted ones;
/// further ones are only counted.
const MAX_LINES_PER_SECOND: u64 = 20;

/// Lines within one second about requests that reached no webhook, which anybody can send.
const MAX_UNEXPECTED_LINES_PER_SECOND: u64 = 2;

/// Time between two explanations of the same problem.
const EXPLAIN_EVERY: Duration = Duration::from_secs(10 * 60);

/// What to do about notifications whose shape is not understood.
pub const UNCLEAR_FIX: &str = "name all companies in `accounts.NAME.companies`, since a new one is not found by such a \
    notification, and report the shape with a message of `ivesk-webhook notifications export`";

/// Identifiers by which a message can be followed to the documents that it announced.
pub(super) struct MessageIds {
    pub(super) message_id: String,
    /// The feeds that it triggers.
    pub(super) triggers: Triggers,
}

/// Returns the span of a message; its empty fields are recorded later.
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

/// Writes a bounded number of lines about messages, and a summary of the accepted ones.
///
/// One line for each of thousands a second would cost more than their signature checks.
#[derive(Default)]
pub struct MessageLog {
    // Since the last summary.
    new: AtomicU64,
    duplicate: AtomicU64,
    accepted: LineLimit,
    refused: LineLimit,
    unexpected: LineLimit,
    explained: Mutex<BTreeMap<Problem, Explained>>,
}

/// A problem that many requests may have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Problem {
    /// The request reached no webhook; true if SNS sent it.
    Unexpected(UnexpectedRequest, bool),
    /// The shape of the account's notifications is not understood.
    Unclear(Account),
}

/// The last explanation of a problem.
struct Explained {
    at: Instant,
    /// Requests since then.
    more: u64,
}

/// A limit of lines within one second.
struct LineLimit {
    started: Instant,
    // The second in the upper half, its lines in the lower.
    lines: AtomicU64,
}

impl Default for LineLimit {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            lines: AtomicU64::new(0),
        }
    }
}

impl LineLimit {
    /// Counts a line; returns true if it may be written, as one of the first `most` of its second.
    fn allows(&self, most: u64) -> bool {
        let second = self.started.elapsed().as_secs() << 32;
        let before = self
            .lines
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |lines| {
                let this_second = lines & !0xffff_ffff == second;
                Some(if this_second { lines + 1 } else { second | 1 })
            });
        let lines = before.unwrap_or(0);
        lines & !0xffff_ffff != second || lines & 0xffff_ffff < most
    }
}

impl MessageLog {
    /// Counts and logs an accepted message, at level `debug` above the limit. A message
    /// retried from the quarantine has no request.
    pub(super) fn accepted(
        &self,
        webhook: &Webhook,
        insertion: Insertion,
        ids: &MessageIds,
        request: Option<&RequestId>,
    ) {
        let (total, recent) = match insertion {
            Insertion::New => (&webhook.accepted.new, &self.new),
            Insertion::Duplicate => (&webhook.accepted.duplicate, &self.duplicate),
        };
        total.inc();
        recent.fetch_add(1, Ordering::Relaxed);
        let (account, event, id) = (&webhook.account, webhook.event, &ids.message_id);
        let request = request.map(RequestId::as_str);
        let feed = ids.triggers.feed().map(display);
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
        if insertion == Insertion::New
            && ids.triggers == Triggers::AllFeeds
            && let Some(more) = self.explains(Problem::Unclear(account.clone()))
        {
            warn!(
                %account,
                %event,
                request.id = request,
                sns.message_id = %id,
                more,
                "the notification `{id}` of {account}/{event} names no company in a shape that is understood, so it triggers \
                 all known exported feeds of the account, at most once in five minutes ({more} more since the last such line). Fix: {UNCLEAR_FIX}"
            );
        }
        if self.accepted.allows(MAX_LINES_PER_SECOND) {
            info!(%account, %event, request.id = request, sns.message_id = %id, feed, outcome, "accepted message `{id}` of {account}/{event}");
        } else {
            debug!(%account, %event, request.id = request, sns.message_id = %id, feed, outcome, "accepted message `{id}` of {account}/{event}");
        }
    }

    /// Logs a refused message, up to the limit.
    pub(super) fn refused(&self, webhook: &Webhook, refusal: &Refusal, caller: &Caller) {
        if !self.refused.allows(MAX_LINES_PER_SECOND) {
            return;
        }
        let code = refusal.code();
        let Webhook { account, event, .. } = webhook;
        warn!(
            code,
            %account,
            %event,
            request.id = caller.request_id.as_str(),
            client.address = caller.address.map(display),
            route = ROUTE_TEMPLATE,
            "refused a message of {account}/{event}: {refusal} ({code})"
        );
    }

    /// Logs what reached no webhook: a line for each request, up to the limit, and a warning
    /// with the fix for each kind, rarely.
    pub(super) fn unexpected(
        &self,
        kind: UnexpectedRequest,
        from_sns: bool,
        caller: Option<&Caller>,
    ) {
        let row = kind.explanation();
        let (code, found, fix) = (row.code, row.found, row.fix);
        if let Some(caller) = caller
            && self.unexpected.allows(MAX_UNEXPECTED_LINES_PER_SECOND)
        {
            // Anybody can send requests for any path.
            info!(
                code,
                request.id = caller.request_id.as_str(),
                client.address = caller.address.map(display),
                route = ROUTE_TEMPLATE,
                "no webhook received a request: {found} ({code})"
            );
        }
        if !from_sns && !kind.is_misconfiguration() {
            return;
        }
        let Some(more) = self.explains(Problem::Unexpected(kind, from_sns)) else {
            return;
        };
        let more = match more {
            0 => String::new(),
            more => format!(" ({more} more since the last such line)"),
        };
        if from_sns && caller.is_some() {
            warn!(
                code,
                "SNS called a path that is no webhook; does the proxy change the path? {found}{more}. Fix: {fix}"
            );
        } else if from_sns {
            warn!(
                code,
                "a request of SNS could not be read: {found}{more}. Fix: {fix}"
            );
        } else {
            warn!(code, "{found}{more}. Fix: {fix}");
        }
    }

    /// Returns the number of requests since the last explanation of their problem if it is
    /// time for another one.
    fn explains(&self, problem: Problem) -> Option<u64> {
        let now = Instant::now();
        let mut explained = self
            .explained
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match explained.get_mut(&problem) {
            Some(last) if now.duration_since(last.at) < EXPLAIN_EVERY => {
                last.more += 1;
                None
            }
            last => {
                let more = last.map_or(0, |last| last.more);
                explained.insert(problem, Explained { at: now, more: 0 });
                Some(more)
            }
        }
    }

    /// Logs how many messages were accepted since the last summary, if there were any.
    pub fn summarize(&self) {
        let new = self.new.swap(0, Ordering::Relaxed);
        let duplicate = self.duplicate.swap(0, Ordering::Relaxed);
        if new + duplicate > 0 {
            info!(
                new,
                duplicate, "accepted {new} new messages and {duplicate} duplicates"
            );
        }
    }
}

/// Logs that SNS reports the end of a subscription.
pub(super) fn unsubscribed(webhook: &Webhook, topic_arn: &str, subscription_arn: Option<&str>) {
    let Webhook { account, event, .. } = webhook;
    let name = subscription_arn.unwrap_or("of an unknown ARN");
    error!(
        %account,
        %event,
        sns.topic_arn = topic_arn,
        sns.subscription_arn = subscription_arn,
        "SNS reports that the subscription {name} of {account}/{event} has ended. If this was not intended, \
         `ivesk-webhook subscriptions list` shows how to restore it"
    );
}

/// Logs that a genuine confirmation of an unknown topic waits for a person.
pub(super) fn unknown_topic(
    webhook: &Webhook,
    confirmation: &UnknownTopicConfirmation,
    id: i64,
    request: Option<&RequestId>,
) {
    let Webhook { account, event, .. } = webhook;
    let (topic_arn, owner) = (confirmation.topic_arn(), confirmation.aws_account());
    error!(
        %account,
        %event,
        request.id = request.map(RequestId::as_str),
        sns.message_id = confirmation.message_id(),
        sns.topic_arn = topic_arn,
        "SNS offers a subscription of {account}/{event} to a topic that `sns.topics` does not allow: {topic_arn}, of AWS \
         account {owner}. It waits as subscription {id}. If Įvesk.lt owns that account, run \
         `ivesk-webhook subscriptions approve {id}`"
    );
}

/// Logs a fault of the store that began, or, if `fault` is none, ended.
pub(super) fn store_fault(fault: Option<&str>) {
    match fault {
        Some(fault) => error!("no message can be stored; all are answered 503: {fault}"),
        None => info!("messages can be stored again"),
    }
}

/// Logs that the store did not commit a message.
pub(super) fn store_failed(error: &StoreError) {
    error!("failed to store a message, which was answered 503: {error}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_writes_a_bounded_number_of_lines() {
        let limit = LineLimit::default();
        let lines = (0..10_000)
            .filter(|_| limit.allows(MAX_LINES_PER_SECOND))
            .count() as u64;
        // The loop may span a few seconds on a slow machine.
        let seconds = limit.started.elapsed().as_secs() + 1;
        assert!(lines >= MAX_LINES_PER_SECOND, "{lines}");
        assert!(
            lines <= MAX_LINES_PER_SECOND * seconds,
            "{lines} in {seconds} s"
        );
    }
}
