//! States of feeds, which depend on their account.

use ivesk_webhook::domain::{Account, Feed, Timestamp};
use ivesk_webhook::store::{AccountRow, FeedPauseReason, FeedRow, RunState};

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
        known_at: Timestamp::from_millis(0),
        cursor: None,
        last_page_at: None,
        pulled_at: None,
        up_to_date_at: None,
        first_complete_at: None,
        incomplete: None,
        incomplete_since: None,
        documents: 0,
        missed_notifications: 0,
        gaps: 0,
        unreadable: 0,
        paused: None,
        waits_until: None,
        failures: 0,
        last_error: None,
        triggers: Vec::new(),
        removed_at: None,
        pending_notifications: 0,
    }
}

#[test]
fn a_wait_that_began_under_a_clock_ahead_is_not_shown() {
    let now = Timestamp::parse("2026-11-28T08:00:00Z").expect("a moment");
    let in_minutes = |minutes: u64| now.after(std::time::Duration::from_secs(60 * minutes));
    let (mut feed, mut account) = (feed(), account());
    for (minutes, rests) in [(5, true), (2 * 24 * 60, false)] {
        let until = in_minutes(minutes);
        feed.waits_until = Some(until);
        account.waits_until = Some(until);
        let rest = rests.then_some(until);
        assert_eq!((feed.rest(now), account.rest(now)), (rest, rest));
        let state = rest.map_or(RunState::Active, |until| RunState::Waiting { until });
        assert_eq!(feed.state(Some(&account), now), state);
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
    feed.removed_at = Some(now);
    let removed = RunState::Removed { since: now };
    assert_eq!(feed.state(Some(&account), now), removed);
}
