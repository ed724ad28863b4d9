//! Cursors and positions of pulls, for both databases.

use super::trigger_kind::TriggerKind;
use super::{PageEnd, PageLease, PageToCommit, Position};
use crate::domain::{Cursor, Moment, Timestamp};

/// Minimum distance in time between saved cursors; a closer one replaces the older.
const CURSOR_SPACING_MS: i64 = 5 * 60 * 1000;

/// Returns the kind whose row stores the position of a pull. During a feed's first pull,
/// when there is nothing to overlap with, all kinds but a backfill share one.
pub(crate) fn position_kind(kind: TriggerKind, first_read: bool) -> TriggerKind {
    if first_read && kind != TriggerKind::Backfill {
        TriggerKind::Notification
    } else {
        kind
    }
}

/// A cursor that overlap reads may start from.
pub(crate) struct SavedCursor {
    pub(crate) saved_at: Timestamp,
    pub(crate) cursor: Cursor,
}

impl SavedCursor {
    fn is_from_before(&self, moment: Timestamp) -> bool {
        self.saved_at <= moment
            || Moment::read(self.cursor.as_str())
                .and_then(|named| named.timestamp())
                .is_some_and(|named| named <= moment)
    }
}

/// Returns the cursor from which an overlap read starts: the newest of the saved cursors
/// (newest first) that was saved by `old_enough` (`lookback` before the last overlap
/// read), or is the text of such a moment. `None` is the beginning.
pub(crate) fn overlap_start(saved: Vec<SavedCursor>, old_enough: Timestamp) -> Option<Cursor> {
    saved
        .into_iter()
        .find(|saved| saved.is_from_before(old_enough))
        .map(|saved| saved.cursor)
}

/// The changes of saving a cursor.
pub(crate) struct CursorChange {
    /// The times of the saved cursors that no overlap read needs any more.
    pub(crate) unneeded: Vec<Timestamp>,
    /// The time of the new cursor.
    pub(crate) saved_at: Timestamp,
}

/// Returns the changes of saving another cursor now to the saved ones (newest first). The
/// newest one from before `old_enough` is kept: the next overlap read starts there.
pub(crate) fn plan_cursor_save(
    saved: &[SavedCursor],
    old_enough: Timestamp,
    now: Timestamp,
) -> CursorChange {
    let mut unneeded = Vec::new();
    // The newest is replaced if it and the one before it are both close to the new one:
    // at least one remains for each stretch of time.
    if let [newest, before, ..] = saved
        && now.as_millis() - before.saved_at.as_millis() < CURSOR_SPACING_MS
        && !newest.is_from_before(old_enough)
    {
        unneeded.push(newest.saved_at);
    }
    let kept = saved
        .iter()
        .position(|saved| saved.is_from_before(old_enough));
    let past = saved.iter().skip(kept.map_or(usize::MAX, |kept| kept + 1));
    unneeded.extend(past.map(|saved| saved.saved_at));
    // Two pages may be stored in the same millisecond; the order is kept.
    let saved_at = saved.first().map_or(now.as_millis(), |newest| {
        now.as_millis().max(newest.saved_at.as_millis() + 1)
    });
    CursorChange {
        unneeded,
        saved_at: Timestamp::from_millis(saved_at),
    }
}

/// The position of a pull, and the cursor of its feed, after a page.
pub(crate) struct PageAdvance {
    /// The kind whose row stores the position.
    pub(crate) kind: TriggerKind,
    /// The position of the pull.
    pub(crate) position: Position,
    /// The feed's new cursor; `None` leaves it unchanged.
    pub(crate) cursor: Option<Cursor>,
}

/// Returns the position and cursor after a page.
pub(crate) fn advance(lease: &PageLease, page: &PageToCommit) -> PageAdvance {
    let kind = position_kind(lease.kind, lease.first_read);
    let position = Position {
        from: page.next_from.clone(),
        previous_next: page
            .cursor
            .clone()
            .or_else(|| lease.position.previous_next.clone()),
        progress: page.progress.clone(),
    };
    let cursor = match kind {
        TriggerKind::Backfill => None,
        TriggerKind::Notification => page.cursor.clone(),
        // An overlap read moves the cursor only once it reaches the end of the queue.
        _ if page.end == PageEnd::EndOfQueue => position.previous_next.clone(),
        _ => None,
    };
    PageAdvance {
        kind,
        position,
        cursor,
    }
}

/// Returns true if no notification announced a new version of this moment; `notified_at` is when the
/// newest notification arrived.
///
/// A version older than the newest notification was announced and only listed late,
/// whichever pull finds it. A newer one was not, even if a follow-up of that notification
/// finds it first, as after downtime of the service.
pub(crate) fn is_unannounced(
    lease: &PageLease,
    version: Option<Timestamp>,
    notified_at: Option<Timestamp>,
) -> bool {
    let is_overlap_read = match lease.kind {
        TriggerKind::FollowUp | TriggerKind::LateFollowUp | TriggerKind::Reconciliation => {
            !lease.first_read
        }
        TriggerKind::Notification | TriggerKind::Backfill => false,
    };
    is_overlap_read
        && match (version, notified_at) {
            (Some(version), Some(notified_at)) => version > notified_at,
            (None, _) | (_, None) => lease.kind == TriggerKind::Reconciliation,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000_000_000;
    const MINUTE: i64 = 60_000;

    /// A cursor that was saved so long before now, and is no moment.
    fn saved(millis_ago: i64) -> SavedCursor {
        SavedCursor {
            saved_at: Timestamp::from_millis(NOW - millis_ago),
            cursor: Cursor::new(format!("opaque-{millis_ago}")),
        }
    }

    /// Returns how long ago the cursors were saved that are unneeded once another is saved now.
    fn unneeded(saved_ago: &[i64], old_enough_ago: i64) -> Vec<i64> {
        let rows: Vec<_> = saved_ago.iter().copied().map(saved).collect();
        let old_enough = Timestamp::from_millis(NOW - old_enough_ago);
        let change = plan_cursor_save(&rows, old_enough, Timestamp::from_millis(NOW));
        let unneeded = change.unneeded.iter();
        unneeded.map(|at| NOW - at.as_millis()).collect()
    }

    #[test]
    fn cursors_are_kept_for_each_five_minutes() {
        let day = 24 * 60 * MINUTE;
        assert!(unneeded(&[], day).is_empty());
        assert!(unneeded(&[MINUTE], day).is_empty());
        assert_eq!(unneeded(&[MINUTE, 5 * MINUTE - 1], day), [MINUTE]);
        assert!(unneeded(&[MINUTE, 5 * MINUTE], day).is_empty());
        assert!(unneeded(&[MINUTE, 2 * day], day).is_empty());
    }

    #[test]
    fn the_newest_cursor_that_is_old_enough_is_kept() {
        let saved = [MINUTE, 10 * MINUTE, 20 * MINUTE, 30 * MINUTE];
        assert_eq!(unneeded(&saved, 10 * MINUTE), saved[2..]);
        assert!(unneeded(&saved, 31 * MINUTE).is_empty());
        // Also if it is close to the new one.
        assert_eq!(unneeded(&[MINUTE, 2 * MINUTE], MINUTE), [2 * MINUTE]);
    }

    #[test]
    fn cursors_of_one_millisecond_stay_in_order() {
        let (now, before) = (Timestamp::from_millis(NOW), Timestamp::from_millis(0));
        for (ago, expected) in [(0, NOW + 1), (1, NOW), (-7, NOW + 8)] {
            let change = plan_cursor_save(&[saved(ago)], before, now);
            assert_eq!(change.saved_at.as_millis(), expected);
        }
    }

    #[test]
    fn an_overlap_read_starts_at_the_newest_old_cursor() {
        let start = |rows: Vec<SavedCursor>| {
            let old_enough = Timestamp::from_millis(NOW - 10 * MINUTE);
            overlap_start(rows, old_enough).map(|cursor| cursor.to_string())
        };
        assert_eq!(start(vec![saved(0), saved(MINUTE)]), None);
        let rows = vec![saved(MINUTE), saved(10 * MINUTE), saved(20 * MINUTE)];
        assert_eq!(start(rows).as_deref(), Some("opaque-600000"));
        // One that was saved since, but names a moment from before.
        let named = |millis: i64| SavedCursor {
            cursor: Cursor::new((NOW - millis).to_string()),
            ..saved(MINUTE)
        };
        let (late, old) = (named(10 * MINUTE - 1), named(10 * MINUTE));
        let expected = old.cursor.to_string();
        assert_eq!(start(vec![late, old, saved(20 * MINUTE)]), Some(expected));
    }

    #[test]
    fn pulls_of_a_first_read_share_a_position() {
        use TriggerKind::{Backfill, Notification, Reconciliation};
        for (kind, first_read, expected) in [
            (Reconciliation, true, Notification),
            (Reconciliation, false, Reconciliation),
            (Backfill, true, Backfill),
            (Backfill, false, Backfill),
        ] {
            assert_eq!(position_kind(kind, first_read), expected);
        }
    }
}
