//! What a failed request means for the work that follows.

use std::time::Duration;

use crate::domain::Timestamp;
use crate::egress;
use crate::ivesk::ApiError;
use crate::store::{FeedPauseReason, PageFailure, PageLease};

/// The wait after a first failure.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// The longest wait between two tries, but for what the vendor itself asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// The longest `Retry-After` that is obeyed.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(6 * 3600);

/// How long something waits for a person before it is tried once more.
const PARKED: Duration = Duration::from_secs(3600);

/// Failures of an account in a row, over whatever feeds, that concern the account.
const ACCOUNT_CONCERNED: u32 = 2;

/// Decides who waits, and for how long.
///
/// `chance` in 0..1 spreads the waits, so that many feeds don't come back at once.
pub fn judge(error: &ApiError, lease: &PageLease, now: Timestamp, chance: f64) -> PageFailure {
    let account_concerned = lease.account_failures >= ACCOUNT_CONCERNED;
    let account_waits =
        || PageFailure::AccountWaits(now.after(backoff(lease.account_failures, chance)));
    let feed_waits = || PageFailure::FeedWaits(now.after(backoff(lease.feed_failures, chance)));
    let retry_at = now.after(PARKED);
    match error {
        ApiError::Unreachable(_) => account_waits(),
        ApiError::Status {
            retry_after: Some(wait),
            ..
        } => PageFailure::AccountWaits(now.after((*wait).clamp(FIRST_WAIT, LONGEST_RETRY_AFTER))),
        ApiError::Status { status: 429, .. } => account_waits(),
        // A key may read one company and not another (vendor-api U25), so one company's
        // 401 pauses that company. Several failures in a row say that the key itself is bad,
        // but not where companies that it never could read come one after another.
        ApiError::Status { status: 401, .. } if account_concerned && lease.speaks_of_key => {
            PageFailure::AccountPaused {
                reason: FeedPauseReason::Unauthorized,
                retry_at,
            }
        }
        ApiError::Status { status: 401, .. } => PageFailure::FeedPaused {
            reason: FeedPauseReason::Unauthorized,
            retry_at,
        },
        ApiError::Status { status: 403, .. } => PageFailure::FeedPaused {
            reason: FeedPauseReason::Forbidden,
            retry_at,
        },
        ApiError::Status { status: 404, .. } => PageFailure::FeedPaused {
            reason: FeedPauseReason::NotFound,
            retry_at,
        },
        // It would cost the same again; the vendor or the setting has to change first.
        ApiError::TooLarge { .. } => PageFailure::FeedWaits(retry_at),
        ApiError::Status { .. } | ApiError::Malformed(_) if account_concerned => account_waits(),
        ApiError::Status { .. } | ApiError::Malformed(_) | ApiError::NotConfigured { .. } => {
            feed_waits()
        }
    }
}

fn backoff(failures: u32, chance: f64) -> Duration {
    egress::backoff(FIRST_WAIT, LONGEST_WAIT, failures, chance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Account, Company, Feed};
    use crate::store::{Position, TriggerKind};

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn lease(feed_failures: u32, account_failures: u32) -> PageLease {
        PageLease {
            feed_id: 1,
            feed: Feed::exported(
                Account::parse("default").unwrap(),
                Company::parse("1").unwrap(),
            ),
            kind: TriggerKind::Notification,
            fence: 1,
            position: Position::default(),
            first_pull: false,
            feed_failures,
            account_failures,
            speaks_of_key: true,
        }
    }

    fn status(status: u16, retry_after: Option<Duration>) -> ApiError {
        ApiError::Status {
            status,
            message: None,
            retry_after,
        }
    }

    #[test]
    fn the_whole_account_obeys_retry_after() {
        for code in [429, 503] {
            assert_eq!(
                judge(
                    &status(code, Some(Duration::from_secs(77))),
                    &lease(0, 0),
                    NOW,
                    0.9
                ),
                PageFailure::AccountWaits(NOW.after(Duration::from_secs(77)))
            );
        }
    }

    #[test]
    fn one_refusal_pauses_a_feed_and_several_401_the_account() {
        for (code, reason) in [
            (401, FeedPauseReason::Unauthorized),
            (403, FeedPauseReason::Forbidden),
            (404, FeedPauseReason::NotFound),
        ] {
            assert!(matches!(
                judge(&status(code, None), &lease(0, 0), NOW, 0.0),
                PageFailure::FeedPaused { reason: paused, .. } if paused == reason
            ));
        }
        assert!(matches!(
            judge(&status(401, None), &lease(0, 2), NOW, 0.0),
            PageFailure::AccountPaused {
                reason: FeedPauseReason::Unauthorized,
                ..
            }
        ));
    }

    #[test]
    fn companies_the_key_never_read_do_not_pause_the_account() {
        let unread = PageLease {
            speaks_of_key: false,
            ..lease(0, 2)
        };
        assert!(matches!(
            judge(&status(401, None), &unread, NOW, 0.0),
            PageFailure::FeedPaused { .. }
        ));
    }

    #[test]
    fn the_backoff_doubles_up_to_ten_minutes_and_is_never_zero() {
        let waits: Vec<_> = (0..12)
            .map(|failures| backoff(failures, 0.0).as_secs())
            .collect();
        assert_eq!(
            waits,
            [5, 10, 20, 40, 80, 160, 320, 600, 600, 600, 600, 600]
        );
        assert_eq!(backoff(0, 1.0), Duration::from_secs(6));
        assert_eq!(
            judge(&status(503, Some(Duration::ZERO)), &lease(0, 0), NOW, 0.0),
            PageFailure::AccountWaits(NOW.after(FIRST_WAIT))
        );
    }

    #[test]
    fn one_bad_company_delays_only_itself_unless_the_vendor_is_down() {
        let error = status(500, None);
        assert!(matches!(
            judge(&error, &lease(4, 0), NOW, 0.0),
            PageFailure::FeedWaits(_)
        ));
        assert!(matches!(
            judge(&error, &lease(0, 2), NOW, 0.0),
            PageFailure::AccountWaits(_)
        ));
    }
}
