//! States of what runs on its own: accounts, feeds and destinations.

use super::{AccountRow, DestinationRow, FeedRow};
use crate::backoff;
use crate::domain::Timestamp;

/// The state of a feed or a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunState {
    /// It runs.
    Active,
    /// It is not tried before a moment.
    Waiting {
        /// The moment.
        until: Timestamp,
    },
    /// Its last attempt failed; it is retried automatically.
    Failing {
        /// The first failure since its last success, if it is recorded.
        since: Option<Timestamp>,
    },
    /// It needs a person.
    Paused {
        /// The reason's name.
        reason: &'static str,
    },
    /// A person removed it.
    Removed {
        /// When.
        since: Timestamp,
    },
}

impl AccountRow {
    /// Returns until when the account waits, if its wait is not over.
    pub fn rest(&self, now: Timestamp) -> Option<Timestamp> {
        let longest = backoff::LONGEST_VENDOR_RETRY_AFTER;
        backoff::rest_within(self.waits_until, longest, now)
    }

    /// Returns the account's state at `now`.
    pub fn state(&self, now: Timestamp) -> RunState {
        match (self.paused, self.rest(now)) {
            (Some(reason), _) => RunState::Paused {
                reason: reason.as_str(),
            },
            (None, Some(until)) => RunState::Waiting { until },
            (None, None) => RunState::Active,
        }
    }
}

impl FeedRow {
    /// Returns the feed's account among `accounts`.
    pub fn account<'a>(&self, accounts: &'a [AccountRow]) -> Option<&'a AccountRow> {
        accounts
            .iter()
            .find(|account| account.account == self.feed.account)
    }

    /// Returns until when the feed waits, apart from its account, if its wait is not over.
    pub fn rest(&self, now: Timestamp) -> Option<Timestamp> {
        backoff::rest_within(self.waits_until, backoff::PAUSED, now)
    }

    /// Returns the feed's state at `now`: a feed can't run while its `account` is paused or waits.
    pub fn state(&self, account: Option<&AccountRow>, now: Timestamp) -> RunState {
        if let Some(since) = self.removed_at {
            return RunState::Removed { since };
        }
        let of_account = account.map_or(RunState::Active, |row| row.state(now));
        match (self.paused, of_account, self.rest(now)) {
            (Some(reason), _, _) => RunState::Paused {
                reason: reason.as_str(),
            },
            (None, paused @ RunState::Paused { .. }, _) => paused,
            (None, _, _) if self.failures > 0 => RunState::Failing { since: None },
            (None, RunState::Waiting { until }, own) => RunState::Waiting {
                until: own.map_or(until, |own| own.max(until)),
            },
            (None, _, Some(until)) => RunState::Waiting { until },
            (None, _, None) => RunState::Active,
        }
    }
}

impl DestinationRow {
    /// Returns the destination's state at `now`.
    pub fn state(&self, now: Timestamp) -> RunState {
        let longest = backoff::DELIVERY.longest_wait(backoff::LONGEST_RETRY_AFTER);
        let waits_until = backoff::rest_within(self.waits_until, longest, now);
        match (self.paused, self.failing_since, waits_until) {
            (Some(reason), _, _) => RunState::Paused {
                reason: reason.as_str(),
            },
            (None, Some(since), _) => RunState::Failing { since: Some(since) },
            (None, None, Some(until)) => RunState::Waiting { until },
            (None, None, None) => RunState::Active,
        }
    }
}
