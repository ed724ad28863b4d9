//! What a run of pages does with cursors, whatever database keeps them.

use super::{PageLease, PageToCommit, Position, TriggerKind};
use crate::domain::{Cursor, DocumentVersion, Timestamp};

/// Saved cursors are at least so far apart in time, or the newer replaces the older.
const CURSOR_SPACING_MS: i64 = 5 * 60 * 1000;

/// Whose row holds the position: all kinds but a backfill share one during a feed's
/// first pull, when there is nothing yet to overlap with.
pub(super) fn position_holder(kind: TriggerKind, first_pull: bool) -> TriggerKind {
    if first_pull && kind != TriggerKind::Backfill {
        TriggerKind::Notification
    } else {
        kind
    }
}

/// A cursor that overlap reads may start from.
pub(super) struct SavedCursor {
    pub(super) saved_at: Timestamp,
    pub(super) cursor: Cursor,
}

impl SavedCursor {
    fn is_from_before(&self, moment: Timestamp) -> bool {
        self.saved_at <= moment
            || Timestamp::parse(self.cursor.as_str()).is_some_and(|named| named <= moment)
    }
}

/// Where an overlap read starts: the newest of the saved cursors (newest first) that
/// was saved by `old_enough` (`lookback` before the feed was last looked at anew), or is
/// itself the text of a moment as early. `None` is the beginning.
pub(super) fn overlap_start(saved: Vec<SavedCursor>, old_enough: Timestamp) -> Option<Cursor> {
    saved
        .into_iter()
        .find(|saved| saved.is_from_before(old_enough))
        .map(|saved| saved.cursor)
}

/// How saving one more cursor changes the saved ones.
pub(super) struct CursorChange {
    /// The times of those that no overlap read needs any more.
    pub(super) unneeded: Vec<Timestamp>,
    /// The time of the one more.
    pub(super) saved_at: Timestamp,
}

/// Judges the saved cursors (newest first) when one more is saved now; the newest from
/// before `old_enough` is where the next overlap read starts.
pub(super) fn one_more_cursor(
    saved: &[SavedCursor],
    old_enough: Timestamp,
    now: Timestamp,
) -> CursorChange {
    let mut unneeded = Vec::new();
    // The newest makes way where it is nearly as new as this one and the one before
    // it is near as well: at least one stays for each stretch of time.
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
    // Two pages may be stored in one millisecond; the later one counts as later.
    let saved_at = saved.first().map_or(now.as_millis(), |newest| {
        now.as_millis().max(newest.saved_at.as_millis() + 1)
    });
    CursorChange {
        unneeded,
        saved_at: Timestamp::from_millis(saved_at),
    }
}

/// Where a run stands after a page, and where the feed goes on from then.
pub(super) struct Moved {
    /// Whose row holds the position.
    pub(super) holder: TriggerKind,
    /// The run's position.
    pub(super) position: Position,
    /// The feed's new cursor; `None` leaves it as it is.
    pub(super) cursor: Option<Cursor>,
}

/// Judges what a page moves.
pub(super) fn moved(lease: &PageLease, page: &PageToCommit, up_to_date: bool) -> Moved {
    let holder = position_holder(lease.kind, lease.first_pull);
    let position = Position {
        from: page.next_from.clone(),
        previous_next: page
            .cursor
            .clone()
            .or_else(|| lease.position.previous_next.clone()),
        previous_entries: page.documents.len() + page.unreadable.len(),
    };
    let cursor = match holder {
        TriggerKind::Backfill => None,
        TriggerKind::Notification => page.cursor.clone(),
        // An overlap read ends where the queue ends; until then the cursor stays.
        _ if up_to_date => position.previous_next.clone(),
        _ => None,
    };
    Moved {
        holder,
        position,
        cursor,
    }
}

/// Whether no notification told of a new version; `notified_at` is when the newest came.
///
/// One that is older than the newest notification was told of, and only listed late,
/// whoever finds it. One that is newer was not, also where a follow-up of that
/// notification finds it first, as after the service was down.
pub(super) fn is_unannounced(
    lease: &PageLease,
    document: &DocumentVersion,
    notified_at: Option<Timestamp>,
) -> bool {
    let looked_anyway = match lease.kind {
        TriggerKind::FollowUp | TriggerKind::LateFollowUp | TriggerKind::Reconciliation => {
            !lease.first_pull
        }
        TriggerKind::Notification | TriggerKind::Backfill => false,
    };
    looked_anyway
        && match (document.version_time(), notified_at) {
            (Some(version), Some(notified_at)) => version > notified_at,
            (None, _) | (_, None) => lease.kind == TriggerKind::Reconciliation,
        }
}
