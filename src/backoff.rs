//! The waits between retries: the first and the longest of each kind, and when one is over.
//!
//! A clock may be ahead for a moment, and a wait that begins then seems to last until the right time
//! catches up. So a stored wait is over too if it began in the future, or if more of it is left than
//! a wait of its kind ever lasts.

use std::time::Duration;

use crate::domain::Timestamp;

/// Waits that double with each failure in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

/// A feed or an account whose page could not be fetched.
pub const PULL: Backoff = Backoff::seconds(5, 10 * 60);

/// A feed or an account that is paused by an error.
pub const PAUSED: Duration = Duration::from_secs(60 * 60);

/// The longest `Retry-After` of the vendor that is obeyed: a date that is wrong by a year must not
/// stop anything for a year.
pub const LONGEST_VENDOR_RETRY_AFTER: Duration = Duration::from_secs(6 * 60 * 60);

/// A destination that is unavailable.
pub const DELIVERY: Backoff = Backoff::seconds(2, 5 * 60);

/// The longest `Retry-After` of a destination or a file host that is obeyed.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// A store that could not record what a destination has answered.
pub const STORE: Backoff = Backoff {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(5),
};

/// An import error that the vendor did not accept.
pub const IMPORT_ERROR: Backoff = Backoff::seconds(10, 60 * 60);

/// An automatic backup that could not be written.
pub const BACKUP: Backoff = Backoff::seconds(60, 60 * 60);

/// A subscription that could not be confirmed.
pub const CONFIRMATION: Backoff = Backoff::seconds(20, 30 * 60);

/// An alarm whose receiver could not be notified.
pub const ALARM: Backoff = Backoff::seconds(15, 15 * 60);

/// A file whose upload failed, between its few attempts.
pub const UPLOAD: Backoff = Backoff::seconds(4, 16);

/// A file of the drop folder whose attempts all failed.
pub const DROP_FOLDER: Backoff = Backoff::seconds(30, 15 * 60);

impl Backoff {
    const fn seconds(first: u64, longest: u64) -> Self {
        Self {
            first: Duration::from_secs(first),
            longest: Duration::from_secs(longest),
        }
    }

    /// Returns the longest wait with jitter, also if `Retry-After` asks for up to `retry_after`.
    pub fn longest_wait(self, retry_after: Duration) -> Duration {
        self.delay(u32::MAX, 1.0).max(retry_after)
    }

    /// Returns the wait after one more failure than `failures`: `first`, doubled with each up to
    /// `longest`.
    ///
    /// Up to a fifth is added by `jitter` in 0..1, so that many do not retry at once; 0 if the
    /// wait must be the same each time it is computed.
    pub fn delay(self, failures: u32, jitter: f64) -> Duration {
        let wait = self
            .first
            .saturating_mul(1 << failures.min(16))
            .min(self.longest);
        wait.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 5.0)
    }
}

/// The time by which a clock may be behind the one that set a moment, as those of two transactions
/// that overlap.
const TOLERANCE: Duration = Duration::from_secs(10);

/// Returns the latest moment that a clock which shows `now` may find set as the present one.
pub fn latest_present(now: Timestamp) -> Timestamp {
    now.after(TOLERANCE)
}

/// Returns the latest moment until which a wait of a kind that lasts `longest` may go on.
pub fn latest_end(now: Timestamp, longest: Duration) -> Timestamp {
    latest_present(now).after(longest)
}

/// Returns `until` if the wait that began at `since` is not over.
pub fn rest_since(
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    let is_of_future = since.is_some_and(|since| since > latest_present(now));
    until.filter(|until| *until > now && !is_of_future)
}

/// Returns `until` if the wait, of a kind that lasts `longest`, is not over.
pub fn rest_within(
    until: Option<Timestamp>,
    longest: Duration,
    now: Timestamp,
) -> Option<Timestamp> {
    until.filter(|until| *until > now && *until <= latest_end(now, longest))
}

/// Returns a random number in 0..1, for [`Backoff::delay`].
pub fn jitter() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_doubles_up_to_the_longest() {
        let seconds = |failures| PULL.delay(failures, 0.0).as_secs();
        assert_eq!(
            [0, 1, 2, 6, 7, u32::MAX].map(seconds),
            [5, 10, 20, 320, 600, 600]
        );
    }

    #[test]
    fn a_wait_of_a_clock_that_was_ahead_is_over() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let now = at(1_000_000);
        let rest = |since, until| rest_since(Some(at(since)), Some(at(until)), now);
        assert_eq!(rest(999_990, 1_000_005), Some(at(1_000_005)));
        assert_eq!(rest(999_990, 1_000_000), None);
        // The clocks of two transactions.
        assert_eq!(rest(1_000_005, 1_000_010), Some(at(1_000_010)));
        for ahead in [60, 3 * 3600, 2 * 86_400] {
            assert_eq!(rest(1_000_000 + ahead, 1_000_005 + ahead), None);
            let until = Some(at(1_000_005 + ahead));
            assert_eq!(rest_within(until, Duration::from_secs(10), now), None);
        }
        let until = Some(at(1_000_005));
        assert_eq!(rest_within(until, Duration::from_secs(10), now), until);
        assert_eq!(
            rest_within(until, Duration::from_secs(10), at(1_000_005)),
            None
        );
        assert_eq!(rest_since(None, until, now), until);
        // A clock that was behind, or stood still.
        assert_eq!(rest(500_000, 500_005), None);
    }

    #[test]
    fn jitter_adds_up_to_a_fifth() {
        assert_eq!(PULL.delay(0, 1.0), Duration::from_secs(6));
        assert!((0.0..=1.0).contains(&jitter()));
    }
}
