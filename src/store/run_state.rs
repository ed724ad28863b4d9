//! States of what runs on its own: accounts, feeds and destinations.

use serde::Serialize;

use super::{AccountRow, DestinationRow, FeedRow};
use crate::domain::Timestamp;

/// The state of a feed or a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
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
}

impl AccountRow {
    /// Returns the account's state at `now`.
    pub fn state(&self, now: Timestamp) -> RunState {
        match (self.paused, self.waits_until) {
            (Some(reason), _) => RunState::Paused {
                reason: reason.as_str(),
            },
            (None, Some(until)) if until > now => RunState::Waiting { until },
            (None, _) => RunState::Active,
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

    /// Returns the feed's state at `now`: a feed can't run while its `account` is paused or waits.
    pub fn state(&self, account: Option<&AccountRow>, now: Timestamp) -> RunState {
        let of_account = account.map_or(RunState::Active, |row| row.state(now));
        match (self.paused, of_account, self.waits_until) {
            (Some(reason), _, _) => RunState::Paused {
                reason: reason.as_str(),
            },
            (None, paused @ RunState::Paused { .. }, _) => paused,
            (None, _, _) if self.failures > 0 => RunState::Failing { since: None },
            (None, RunState::Waiting { until }, own) => RunState::Waiting {
                until: own.map_or(until, |own| own.max(until)),
            },
            (None, _, Some(until)) if until > now => RunState::Waiting { until },
            (None, _, _) => RunState::Active,
        }
    }
}

impl DestinationRow {
    /// Returns the destination's state at `now`.
    pub fn state(&self, now: Timestamp) -> RunState {
        match (self.paused, self.failing_since, self.waits_until) {
            (Some(reason), _, _) => RunState::Paused {
                reason: reason.as_str(),
            },
            (None, Some(since), _) => RunState::Failing { since: Some(since) },
            (None, None, Some(until)) if until > now => RunState::Waiting { until },
            (None, None, _) => RunState::Active,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Account, Feed};
    use crate::store::FeedPauseReason;

    fn account() -> AccountRow {
        AccountRow {
            account: Account::parse("default").expect("a name"),
            paused: None,
            waits_until: None,
            failures: 0,
            last_error: None,
        }
    }

    fn feed() -> FeedRow {
        FeedRow {
            feed: Feed::digitized(account().account),
            cursor: None,
            last_page_at: None,
            up_to_date_at: None,
            first_complete_at: None,
            documents: 0,
            missed_notifications: 0,
            gaps: 0,
            unreadable: 0,
            paused: None,
            waits_until: None,
            failures: 0,
            last_error: None,
            triggers: Vec::new(),
        }
    }

    #[test]
    fn a_feed_fails_until_it_succeeds_and_waits_for_its_account() {
        let now = Timestamp::parse("2026-11-28T08:00:00Z").expect("a moment");
        let later = now.after(std::time::Duration::from_secs(60));
        let mut feed = feed();
        let mut account = account();
        assert_eq!(feed.state(Some(&account), now), RunState::Active);
        account.waits_until = Some(later);
        let waiting = RunState::Waiting { until: later };
        assert_eq!(feed.state(Some(&account), now), waiting);
        assert_eq!(feed.state(Some(&account), later), RunState::Active);
        feed.failures = 1;
        let failing = RunState::Failing { since: None };
        assert_eq!(feed.state(Some(&account), now), failing);
        account.paused = Some(FeedPauseReason::Unauthorized);
        let reason = "unauthorized";
        let paused = RunState::Paused { reason };
        assert_eq!(feed.state(Some(&account), now), paused);
    }
}
