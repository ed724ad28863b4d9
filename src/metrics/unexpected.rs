//! Requests that reached no webhook, with the times that decide whether they still matter.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::unexpected::UnexpectedRequest;

/// Time for which a kind is remembered after its last request.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// Time after a request of SNS in which an accepted message does not show that all is well.
const SETTLED: Duration = Duration::from_secs(10 * 60);

/// The requests of one kind since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UnexpectedCount {
    /// The kind.
    pub kind: UnexpectedRequest,
    /// All of them.
    pub total: u64,
    /// Those that show that SNS sent them.
    pub from_sns: u64,
    /// The time of the last one.
    pub last_at: Timestamp,
    /// The time of the last one of SNS.
    pub last_from_sns_at: Option<Timestamp>,
    /// True if messages of SNS are lost that way: one came within ten minutes, or within a day
    /// and no message has been accepted since.
    pub loses_messages: bool,
}

/// Counts by kind.
#[derive(Debug, Default)]
pub(super) struct UnexpectedCounts {
    kinds: BTreeMap<UnexpectedRequest, UnexpectedCount>,
    accepted_at: Option<Timestamp>,
}

impl UnexpectedCounts {
    pub(super) fn add(&mut self, kind: UnexpectedRequest, from_sns: bool, now: Timestamp) {
        let count = self.kinds.entry(kind).or_insert(UnexpectedCount {
            kind,
            total: 0,
            from_sns: 0,
            last_at: now,
            last_from_sns_at: None,
            loses_messages: false,
        });
        count.total += 1;
        count.last_at = now;
        if from_sns {
            count.from_sns += 1;
            count.last_from_sns_at = Some(now);
        }
    }

    pub(super) fn message_accepted(&mut self, now: Timestamp) {
        self.accepted_at = Some(now);
    }

    /// Returns the kinds that occurred within the last day.
    pub(super) fn recent(&self, now: Timestamp) -> Vec<UnexpectedCount> {
        let recent = self
            .kinds
            .values()
            .filter(|count| now.since(count.last_at) < REMEMBERED);
        recent
            .map(|count| UnexpectedCount {
                loses_messages: count
                    .last_from_sns_at
                    .is_some_and(|last| self.loses_messages(last, now)),
                ..count.clone()
            })
            .collect()
    }

    fn loses_messages(&self, last: Timestamp, now: Timestamp) -> bool {
        let age = now.since(last);
        let accepted_since = self.accepted_at.is_some_and(|at| at > last);
        age < SETTLED || (age < REMEMBERED && !accepted_since)
    }
}
