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
