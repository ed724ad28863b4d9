//! The waits between retries: the first and the longest of each kind.

use std::time::Duration;

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

/// A destination that is unavailable.
pub const DELIVERY: Backoff = Backoff::seconds(2, 5 * 60);

/// An import error that the vendor did not accept.
pub const IMPORT_ERROR: Backoff = Backoff::seconds(10, 60 * 60);

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
    fn jitter_adds_up_to_a_fifth() {
        assert_eq!(PULL.delay(0, 1.0), Duration::from_secs(6));
        assert!((0.0..=1.0).contains(&jitter()));
    }
}
