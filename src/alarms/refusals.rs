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
}
