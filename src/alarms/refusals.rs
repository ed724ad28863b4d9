//! Counts the refused messages of the last minutes.

use std::collections::VecDeque;
use std::time::Duration;

use crate::domain::Timestamp;
use crate::metrics::Refusals;

/// Time within which refused messages are counted together.
pub(super) const STORM_WINDOW: Duration = Duration::from_secs(10 * 60);

/// Refusals as counted at each check of the last [`STORM_WINDOW`].
pub(super) struct RefusalWindow {
    counts: VecDeque<(Timestamp, Refusals)>,
}

impl RefusalWindow {
    pub(super) fn starting_from(refusals: Refusals, now: Timestamp) -> Self {
        Self {
            counts: VecDeque::from([(now, refusals)]),
        }
    }

    /// Returns the refusals within the window; `refusals` are all up to `now`.
    pub(super) fn count(&mut self, refusals: Refusals, now: Timestamp) -> Refusals {
        self.forget_future(now);
        let start = now.before(STORM_WINDOW);
        // The newest count from before the window is its baseline.
        while self.counts.len() > 1 && self.counts[1].0 <= start {
            self.counts.pop_front();
        }
        let baseline = self.counts.front().map(|(_, counts)| counts);
        let recent = refusals.iter().map(|(key, count)| {
            let before = baseline.and_then(|counts| counts.get(key)).unwrap_or(&0);
            (*key, count - before)
        });
        let recent = recent.filter(|(_, count)| *count > 0).collect();
        self.counts.push_back((now, refusals));
        recent
    }

    /// Removes the counts of a clock that was ahead: none would leave the window until that moment. If there
    /// are no others, the newest is the baseline from now on.
    fn forget_future(&mut self, now: Timestamp) {
        let newest = self.counts.pop_back();
        self.counts.retain(|(at, _)| *at <= now);
        if let Some((at, counts)) = newest
            && (at <= now || self.counts.is_empty())
        {
            self.counts.push_back((at.min(now), counts));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Event;

    #[test]
    fn refusals_leave_the_window_after_its_length() {
        let key = (Event::OnExported, "signature_mismatch");
        let counted = |count: u64| Refusals::from([(key, count)]);
        let minute = |n: u64| Timestamp::from_millis(0).after(Duration::from_secs(60 * n));
        let mut window = RefusalWindow::starting_from(Refusals::new(), minute(0));
        assert_eq!(window.count(counted(5), minute(1)), counted(5));
        assert_eq!(window.count(counted(8), minute(9)), counted(8));
        assert_eq!(window.count(counted(8), minute(12)), counted(3));
        assert_eq!(window.count(counted(8), minute(20)), Refusals::new());
    }

    #[test]
    fn a_clock_that_was_ahead_makes_the_window_no_longer() {
        let key = (Event::OnExported, "signature_mismatch");
        let counted = |count: u64| Refusals::from([(key, count)]);
        let minute = |n: u64| Timestamp::from_millis(0).after(Duration::from_secs(60 * n));
        let ahead = 2 * 24 * 60;
        let mut window = RefusalWindow::starting_from(Refusals::new(), minute(0));
        window.count(counted(1), minute(1));
        assert_eq!(window.count(counted(2), minute(2 + ahead)), counted(1));
        for check in 3..600 {
            let recent = window.count(counted(check), minute(check));
            // Without the count that the clock made in the future.
            assert!(recent[&key] <= 11, "{check}: {recent:?}");
            assert!(window.counts.len() <= 12, "{}", window.counts.len());
        }
        assert_eq!(window.count(counted(600), minute(600)), counted(10));

        // All counts are of the clock that was ahead.
        let mut window = RefusalWindow::starting_from(Refusals::new(), minute(ahead));
        window.count(counted(5), minute(ahead + 1));
        assert_eq!(window.count(counted(8), minute(2)), counted(3));
        assert_eq!(window.count(counted(9), minute(11)), counted(4));
        assert_eq!(window.count(counted(9), minute(12)), counted(1));
    }
}
