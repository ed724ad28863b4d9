//! Classifies failed requests: who waits, and for how long.

use crate::backoff;
use crate::domain::Timestamp;
use crate::ivesk::ApiError;
use crate::store::{FeedPauseReason, PageFailure, PageLease, TriggerKind};

/// Consecutive failures of an account, over all of its feeds, that concern the whole account.
const ACCOUNT_FAILURES: u32 = 2;

/// Consecutive failures of a feed before a further answer of 400 means that its cursor is refused.
const CURSOR_FAILURES: u32 = 2;

/// Classifies a failed request.
///
/// `jitter` in 0..1 spreads the waits, so that many feeds don't retry at the same time.
pub fn classify(error: &ApiError, lease: &PageLease, now: Timestamp, jitter: f64) -> PageFailure {
    let concerns_account = lease.account_failures >= ACCOUNT_FAILURES;
    let account_waits = || {
        PageFailure::AccountWaits(now.after(backoff::PULL.delay(lease.account_failures, jitter)))
    };
    let feed_waits =
        || PageFailure::FeedWaits(now.after(backoff::PULL.delay(lease.feed_failures, jitter)));
    let retry_at = now.after(backoff::PAUSED);
    match error {
        ApiError::Unreachable(_) => account_waits(),
        ApiError::Status {
            retry_after: Some(wait),
            ..
        } => PageFailure::AccountWaits(now.after((*wait).max(backoff::PULL.first))),
        ApiError::Status { status: 429, .. } => account_waits(),
        // A key may read one company and not another (vendor-api U25), so a single 401
        // pauses its company only. Several failures in a row mean that the key itself is bad,
        // unless the feed is of a company that the key never could read.
        ApiError::Status { status: 401, .. } if concerns_account && lease.key_at_fault => {
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
        // The same request is refused for as long as the cursor stays.
        ApiError::Status { status: 400, .. }
            if lease.position.from.is_some() && lease.feed_failures >= CURSOR_FAILURES =>
        {
            match lease.kind {
                // The stretch of a person has a cursor of its own, which says nothing of other
                // feeds.
                TriggerKind::Backfill => feed_waits(),
                _ => PageFailure::FeedPaused {
                    reason: FeedPauseReason::CursorRefused,
                    retry_at,
                },
            }
        }
        // A retry would transfer as much again; the vendor or the setting must change first.
        ApiError::TooLarge { .. } => PageFailure::FeedWaits(retry_at),
        ApiError::Status { .. } | ApiError::Compressed(_) | ApiError::Malformed(_)
            if concerns_account =>
        {
            account_waits()
        }
        ApiError::Status { .. }
        | ApiError::Compressed(_)
        | ApiError::Malformed(_)
        | ApiError::NotConfigured { .. } => feed_waits(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::Cursor;
    use crate::domain::{Account, Company, Feed};
    use crate::store::Position;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    /// Returns a lease of a feed that failed so often, as did its account.
    pub(in crate::pull) fn lease(feed_failures: u32, account_failures: u32) -> PageLease {
        PageLease {
            feed_id: 1,
            account_id: 1,
            feed: Feed::exported(
                Account::parse("default").unwrap(),
                Company::parse("1").unwrap(),
            ),
            kind: TriggerKind::Notification,
            fence: 1,
            position: Position::default(),
            first_pull: false,
            first_read: false,
            largest_page: None,
            feed_failures,
            account_failures,
            key_at_fault: true,
            others_due: false,
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
                classify(
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
    fn one_error_pauses_its_company_and_repeated_401_the_account() {
        for (code, reason) in [
            (401, FeedPauseReason::Unauthorized),
            (403, FeedPauseReason::Forbidden),
            (404, FeedPauseReason::NotFound),
        ] {
            assert!(matches!(
                classify(&status(code, None), &lease(0, 0), NOW, 0.0),
                PageFailure::FeedPaused { reason: paused, .. } if paused == reason
            ));
        }
        assert!(matches!(
            classify(&status(401, None), &lease(0, 2), NOW, 0.0),
            PageFailure::AccountPaused {
                reason: FeedPauseReason::Unauthorized,
                ..
            }
        ));
    }

    #[test]
    fn a_cursor_that_is_refused_again_and_again_pauses_its_feed() {
        let classified = |failures, from: Option<&str>, kind| {
            let from = from.map(Cursor::new);
            let lease = PageLease {
                kind,
                position: Position {
                    from,
                    ..Position::default()
                },
                ..lease(failures, 2)
            };
            classify(&status(400, None), &lease, NOW, 0.0)
        };
        let retry_at = NOW.after(backoff::PAUSED);
        let reason = FeedPauseReason::CursorRefused;
        assert_eq!(
            classified(2, Some("bogus"), TriggerKind::Notification),
            PageFailure::FeedPaused { reason, retry_at }
        );
        let of_a_stretch = classified(2, Some("bogus"), TriggerKind::Backfill);
        assert!(
            matches!(of_a_stretch, PageFailure::FeedWaits(_)),
            "{of_a_stretch:?}"
        );
        for (failures, from) in [(1, Some("bogus")), (2, None)] {
            let failure = classified(failures, from, TriggerKind::Notification);
            assert!(
                matches!(failure, PageFailure::AccountWaits(_)),
                "{failure:?}"
            );
        }
    }

    #[test]
    fn companies_that_the_key_never_could_read_pause_no_account() {
        let unreadable = PageLease {
            key_at_fault: false,
            ..lease(0, 2)
        };
        assert!(matches!(
            classify(&status(401, None), &unreadable, NOW, 0.0),
            PageFailure::FeedPaused { .. }
        ));
    }

    #[test]
    fn the_backoff_doubles_up_to_ten_minutes_and_is_never_zero() {
        let waits: Vec<_> = (0..12)
            .map(|failures| backoff::PULL.delay(failures, 0.0).as_secs())
            .collect();
        assert_eq!(
            waits,
            [5, 10, 20, 40, 80, 160, 320, 600, 600, 600, 600, 600]
        );
        assert_eq!(backoff::PULL.delay(0, 1.0), Duration::from_secs(6));
        assert_eq!(
            classify(&status(503, Some(Duration::ZERO)), &lease(0, 0), NOW, 0.0),
            PageFailure::AccountWaits(NOW.after(backoff::PULL.first))
        );
    }

    #[test]
    fn a_bad_company_waits_alone_and_a_vendor_outage_stops_all() {
        let error = status(500, None);
        assert!(matches!(
            classify(&error, &lease(4, 0), NOW, 0.0),
            PageFailure::FeedWaits(_)
        ));
        assert!(matches!(
            classify(&error, &lease(0, 2), NOW, 0.0),
            PageFailure::AccountWaits(_)
        ));
    }
}
