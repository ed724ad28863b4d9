//! Gaps: stretches of feeds in which versions may be missing.
//!
//! A feed is incomplete while it has an open gap. A later pull that reads over the stretch and
//! does not find the gap again closes it, or a person does.

use std::time::Duration;

use super::columns::{named, named_columns};
use super::engine::{Fragment, Param, Sql, Tx, operations, rows};
use super::error::Result;
use crate::domain::{Cursor, Feed, Moment, Timestamp};

/// Maximum number of open gaps of a feed; further ones extend one of them.
const MAX_OPEN_GAPS: usize = 50;

/// Number of closed gaps that are kept for each feed.
const KEPT_CLOSED_GAPS: i64 = 100;

/// Time for which a gap that only an unknown page size causes is a notice, and no alarm.
pub const PAGE_SIZE_NOTICE: Duration = Duration::from_secs(24 * 60 * 60);

named! {
    /// The reason why a feed is incomplete.
    pub enum IncompleteReason {
        /// A group of documents with equal moments fills a page, and may have been cut.
        GroupCut = "group_cut",
        /// `next` did not move although the queue continues.
        NextStuck = "next_stuck",
        /// `next` moved back.
        NextBack = "next_back",
        /// The cursors come round again.
        CursorCycle = "cursor_cycle",
        /// Many empty pages in a row led on to others.
        EmptyPages = "empty_pages",
        /// An entry of a page could not be read.
        UnreadableEntry = "unreadable_entry",
        /// A person set the cursor with `feeds start-at`.
        StartAt = "start_at",
        /// A page ended with a group of equal moments, and no larger page was ever seen: it
        /// may have been cut.
        PageSizeUnknown = "page_size_unknown",
    }
}

named_columns! { IncompleteReason: "reason of a gap", name => Self::parse(&name); }

impl IncompleteReason {
    /// Returns true if a group of equal moments may have been cut.
    pub(super) const fn is_of_a_group(self) -> bool {
        matches!(self, Self::GroupCut | Self::PageSizeUnknown)
    }

    /// Returns the cause and what to do, for people.
    pub const fn cause_and_fix(self) -> (&'static str, &'static str) {
        const REPORT: &str = "report it to Įvesk.lt; then run `ivesk-webhook pull --company CODE --from CURSOR` (or \
            `--from beginning`) over the stretch, or dismiss it with `ivesk-webhook feeds gaps --dismiss ID`";
        match self {
            Self::GroupCut => (
                "a group of documents with the same moment is as large as a page, so the rest of it can't be listed",
                "compare the stretch with Įvesk.lt, export what is missing again there, then run `ivesk-webhook feeds gaps --dismiss ID`",
            ),
            Self::NextStuck => (
                "Įvesk.lt's `next` does not move although documents follow",
                REPORT,
            ),
            Self::NextBack => ("Įvesk.lt's `next` moves back", REPORT),
            Self::CursorCycle => ("Įvesk.lt's `next` repeats earlier cursors", REPORT),
            Self::EmptyPages => (
                "Įvesk.lt returned many empty pages in a row, each with a `next`",
                REPORT,
            ),
            Self::UnreadableEntry => (
                "an entry of Įvesk.lt's list could not be read",
                "report it to Įvesk.lt, or run `ivesk-webhook feeds gaps --dismiss ID`",
            ),
            Self::StartAt => (
                "the feed was set to start at a later place",
                "run `ivesk-webhook pull --company CODE --from CURSOR` (or `--from beginning`) over the stretch, or dismiss it with `ivesk-webhook feeds gaps --dismiss ID`",
            ),
            Self::PageSizeUnknown => (
                "a page ended with documents of one moment, and it is not known how many documents a page holds",
                "compare the stretch with Įvesk.lt, then run `ivesk-webhook feeds gaps --dismiss ID`; a larger page settles it too",
            ),
        }
    }
}

/// A stretch of a feed in which versions may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundGap {
    /// The cursor after which it begins; `None` is the beginning of the queue.
    pub from: Option<Cursor>,
    /// The cursor at which it ends; `None` is not known.
    pub to: Option<Cursor>,
    /// The reason.
    pub reason: IncompleteReason,
    /// Entries of the page that may have been cut; 0 for other reasons.
    pub entries: usize,
}

/// A gap of a feed.
#[derive(Clone, Debug)]
pub struct GapRow {
    /// Ascending in the order in which gaps were found.
    pub id: i64,
    /// The feed.
    pub feed: Feed,
    /// The cursor after which it begins; `None` is the beginning of the queue.
    pub from: Option<Cursor>,
    /// The cursor at which it ends; `None` if that is not known.
    pub to: Option<Cursor>,
    /// The reason.
    pub reason: IncompleteReason,
    /// When it was found.
    pub found_at: Timestamp,
    /// When it was closed; `None` while it is open.
    pub closed_at: Option<Timestamp>,
    /// The person who dismissed it; `None` if a pull closed it.
    pub dismissed_by: Option<String>,
}

/// Selects gaps to list.
#[derive(Clone, Debug)]
pub struct GapFilter {
    /// Closed gaps too.
    pub closed: bool,
    /// Only rows after this one.
    pub after: i64,
    /// Maximum number of rows.
    pub limit: usize,
}

operations! {
    /// Lists gaps in the order in which they were found.
    pub read gaps(filter: GapFilter) -> Vec<GapRow>;
}

/// The result of recording a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// It is a new one.
    New,
    /// It is open already.
    Known,
    /// A person dismissed it.
    Dismissed,
}

/// An open or a dismissed gap.
#[derive(Clone, Debug)]
pub(crate) struct StoredGap {
    pub(crate) id: i64,
    pub(crate) gap: FoundGap,
    pub(crate) seen_fence: i64,
    /// The largest page that was known when it was last found.
    pub(crate) tried_page: usize,
}

rows! {
    GapRow { id, feed, from, to, reason, found_at, closed_at, dismissed_by }
    FoundGap { from, to, reason, entries }
    StoredGap { id, gap, seen_fence, tried_page }
}

/// The largest page that the queue of the feed `f` has shown.
const LARGEST_PAGE: Fragment = Fragment::Same(
    "coalesce((SELECT q.largest_page FROM account_queue q
                   WHERE q.account_id = f.account_id AND q.queue = f.queue), 0)",
);

const STORED: Fragment = Fragment::Same(
    "SELECT id, from_cursor, to_cursor, reason, entries, seen_fence, tried_page FROM gap WHERE feed_id = $1",
);

async fn gaps<T: Tx>(tx: &T, filter: GapFilter) -> Result<Vec<GapRow>> {
    static SQL: Sql = Sql::new(
        "SELECT g.id, a.name, f.queue, f.company, g.from_cursor, g.to_cursor, g.reason, g.found_at, g.closed_at,
                g.dismissed_by
         FROM gap g {then_join} feed f ON f.id = g.feed_id {then_join} account a ON a.id = f.account_id
         WHERE g.id > $1 AND ($2 OR g.closed_at IS NULL) ORDER BY g.id LIMIT $3",
    );
    tx.all(&SQL, &[&filter.after, &filter.closed, &filter.limit])
        .await
}

/// Records a gap from one cursor to another, for reasons other than a group.
pub(super) async fn record_gap<T: Tx>(
    tx: &T,
    feed: i64,
    from: Option<&Cursor>,
    to: Option<&Cursor>,
    reason: IncompleteReason,
    now: Timestamp,
) -> Result<Recorded> {
    let gap = FoundGap {
        from: from.cloned(),
        to: to.cloned(),
        reason,
        entries: 0,
    };
    record(tx, feed, &gap, now).await
}

/// Records a gap that a pull found; one that overlaps an open one of the same reason extends it.
/// The caller has locked the feed.
pub(super) async fn record<T: Tx>(
    tx: &T,
    feed: i64,
    found: &FoundGap,
    now: Timestamp,
) -> Result<Recorded> {
    static INSERT: Sql = Sql::with(
        "INSERT INTO gap (feed_id, from_cursor, to_cursor, reason, entries, found_at, seen_fence, tried_page)
         SELECT $1, $2, $3, $4, $5, $6, f.fence, {largest_page} FROM feed f WHERE f.id = $1",
        &[("largest_page", LARGEST_PAGE)],
    );
    static EXTEND: Sql = Sql::with(
        "UPDATE gap SET from_cursor = $2, to_cursor = $3, entries = $4, seen_fence = f.fence, tried_page = {largest_page}
         FROM feed f WHERE gap.id = $1 AND f.id = gap.feed_id",
        &[("largest_page", LARGEST_PAGE)],
    );
    static REMOVE: Sql = Sql::new("DELETE FROM gap WHERE id IN ({elements}($1))");
    // The newest closed ones are kept.
    static FORGET: Sql = Sql::new(
        "DELETE FROM gap WHERE feed_id = $1 AND closed_at IS NOT NULL AND id <=
             (SELECT id FROM gap WHERE feed_id = $1 AND closed_at IS NOT NULL
              ORDER BY id DESC LIMIT 1 OFFSET $2)",
    );
    let open = open_gaps(tx, feed).await?;
    let dismissed = dismissed_gaps(tx, feed).await?;
    match plan_record(&open, &dismissed, found) {
        RecordPlan::Dismissed => Ok(Recorded::Dismissed),
        RecordPlan::Insert => {
            let FoundGap {
                from,
                to,
                reason,
                entries,
            } = found;
            let params: [&dyn Param; 6] = [&feed, from, to, reason, entries, &now];
            tx.run(&INSERT, &params).await?;
            tx.run(&FORGET, &[&feed, &KEPT_CLOSED_GAPS]).await?;
            Ok(Recorded::New)
        }
        RecordPlan::Extend { id, gap, merged } => {
            tx.run(&EXTEND, &[&id, &gap.from, &gap.to, &gap.entries])
                .await?;
            if !merged.is_empty() {
                tx.run(&REMOVE, &[&merged]).await?;
            }
            Ok(Recorded::Known)
        }
    }
}

/// Marks the open gaps of unreadable entries as found again.
pub(super) async fn see_unreadable_again<T: Tx>(tx: &T, feed: i64) -> Result<()> {
    static SQL: Sql = Sql::new(
        "UPDATE gap SET seen_fence = (SELECT fence FROM feed WHERE id = $1)
         WHERE feed_id = $1 AND closed_at IS NULL AND reason = $2",
    );
    tx.run(&SQL, &[&feed, &IncompleteReason::UnreadableEntry])
        .await
}

/// Closes those of a feed's `open` gaps that a pull has proved to be none: it reached the end of the queue, and began at the
/// cursor and with the fence of `proof`, if there is one. Returns the reason why the feed is incomplete:
/// that of its oldest open gap, the page size last.
pub(super) async fn settle_gaps<T: Tx>(
    tx: &T,
    open: Vec<StoredGap>,
    proof: Option<(Option<&Cursor>, i64)>,
    now: Timestamp,
) -> Result<Option<IncompleteReason>> {
    static CLOSE: Sql = Sql::new("UPDATE gap SET closed_at = $2 WHERE id IN ({elements}($1))");
    let is_proven =
        |gap: &StoredGap| proof.is_some_and(|(start, fence)| is_proven(gap, start, fence));
    let (proven, open): (Vec<StoredGap>, Vec<StoredGap>) = open.into_iter().partition(is_proven);
    if !proven.is_empty() {
        let proven: Vec<i64> = proven.iter().map(|gap| gap.id).collect();
        tx.run(&CLOSE, &[&proven, &now]).await?;
    }
    let reasons = open.iter().map(|gap| gap.gap.reason);
    Ok(reasons.min_by_key(|reason| *reason == IncompleteReason::PageSizeUnknown))
}

/// Returns the open gaps of a feed, oldest first.
pub(super) async fn open_gaps<T: Tx>(tx: &T, feed: i64) -> Result<Vec<StoredGap>> {
    static SQL: Sql = Sql::with(
        "{stored} AND closed_at IS NULL ORDER BY id",
        &[("stored", STORED)],
    );
    tx.all(&SQL, &[&feed]).await
}

async fn dismissed_gaps<T: Tx>(tx: &T, feed: i64) -> Result<Vec<StoredGap>> {
    static SQL: Sql = Sql::with(
        "{stored} AND dismissed_by IS NOT NULL ORDER BY id",
        &[("stored", STORED)],
    );
    tx.all(&SQL, &[&feed]).await
}

/// What recording a gap does.
pub(crate) enum RecordPlan {
    /// A new row.
    Insert,
    /// The open gap `id` becomes `gap`; `merged` are removed.
    Extend {
        id: i64,
        gap: FoundGap,
        merged: Vec<i64>,
    },
    /// Nothing: a person has dismissed it.
    Dismissed,
}

/// Decides how a gap is recorded beside the open ones of its feed and those that were dismissed.
pub(crate) fn plan_record(
    open: &[StoredGap],
    dismissed: &[StoredGap],
    found: &FoundGap,
) -> RecordPlan {
    if dismissed.iter().any(|stored| vouches(&stored.gap, found)) {
        return RecordPlan::Dismissed;
    }
    let of_reason = open
        .iter()
        .filter(|stored| stored.gap.reason == found.reason);
    let mut gap = found.clone();
    let mut ids = Vec::new();
    for stored in of_reason {
        if overlap(&stored.gap, &gap) {
            gap = hull(&stored.gap, &gap);
            ids.push(stored.id);
        }
    }
    if ids.is_empty() && open.len() >= MAX_OPEN_GAPS {
        let same = |stored: &&StoredGap| stored.gap.reason == found.reason;
        let last = open.iter().rev().find(same).or(open.last());
        if let Some(stored) = last {
            gap = hull(&stored.gap, &gap);
            ids.push(stored.id);
        }
    }
    if ids.is_empty() {
        return RecordPlan::Insert;
    }
    let merged = ids.split_off(1);
    RecordPlan::Extend {
        id: ids[0],
        gap,
        merged,
    }
}

/// Returns true if a pull that began at `start` with the fence `began_fence`, and reached the end
/// of the queue, proves that the gap is none.
pub(crate) fn is_proven(gap: &StoredGap, start: Option<&Cursor>, began_fence: i64) -> bool {
    gap.seen_fence < began_fence
        && match (start, &gap.gap.from) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(start), Some(from)) => is_at_or_before(start, from),
        }
}

/// Returns where a pull must begin to prove the gaps of groups with fewer entries than
/// `largest_page`, unless they were found again when such a page was known.
pub(crate) fn earliest_provable(open: &[StoredGap], largest_page: usize) -> Option<Option<Cursor>> {
    let provable = open.iter().filter(|stored| {
        stored.gap.reason.is_of_a_group()
            && stored.gap.entries.max(stored.tried_page) < largest_page
    });
    provable
        .map(|stored| stored.gap.from.clone())
        .reduce(|a, b| earlier(a.as_ref(), b.as_ref()).cloned())
}

/// Returns the earlier of two starts; `None` is the beginning.
pub(crate) fn earlier<'a>(a: Option<&'a Cursor>, b: Option<&'a Cursor>) -> Option<&'a Cursor> {
    match (a, b) {
        (Some(a), Some(b)) if is_at_or_before(a, b) => Some(a),
        (Some(a), Some(b)) if is_at_or_before(b, a) => Some(b),
        // Which comes first is not known.
        _ => None,
    }
}

/// Returns true if two cursors are equal, or name moments in this order.
fn is_at_or_before(a: &Cursor, b: &Cursor) -> bool {
    a == b
        || Moment::read(a.as_str())
            .zip(Moment::read(b.as_str()))
            .is_some_and(|(a, b)| a <= b)
}

/// Returns true if a person who dismissed `dismissed` has vouched for `found` too: the same group,
/// of no more entries. Other reasons concern what follows, so they are found again.
fn vouches(dismissed: &FoundGap, found: &FoundGap) -> bool {
    let (Some(found_to), Some(dismissed_to)) = (&found.to, &dismissed.to) else {
        return false;
    };
    let after = dismissed
        .from
        .as_ref()
        .is_none_or(|from| !is_at_or_before(found_to, from));
    dismissed.reason.is_of_a_group()
        && found.reason.is_of_a_group()
        && found.entries <= dismissed.entries
        && after
        && is_at_or_before(found_to, dismissed_to)
}

fn overlap(a: &FoundGap, b: &FoundGap) -> bool {
    let is_ordered = |cursor: &Option<Cursor>| {
        cursor
            .as_ref()
            .is_none_or(|cursor| Moment::read(cursor.as_str()).is_some())
    };
    if ![&a.from, &a.to, &b.from, &b.to].into_iter().all(is_ordered) {
        return a.from == b.from;
    }
    let begins_before = |from: &Option<Cursor>, to: &Option<Cursor>| match (from, to) {
        (Some(from), Some(to)) => is_at_or_before(from, to),
        _ => true,
    };
    begins_before(&a.from, &b.to) && begins_before(&b.from, &a.to)
}

/// Returns the stretch that holds both; an end that is not comparable is left open.
fn hull(stored: &FoundGap, found: &FoundGap) -> FoundGap {
    let to = match (&stored.to, &found.to) {
        (Some(a), Some(b)) if is_at_or_before(a, b) => Some(b.clone()),
        (Some(a), Some(b)) if is_at_or_before(b, a) => Some(a.clone()),
        _ => None,
    };
    FoundGap {
        from: earlier(stored.from.as_ref(), found.from.as_ref()).cloned(),
        to,
        reason: stored.reason,
        entries: stored.entries.max(found.entries),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(from: &str, to: &str, reason: IncompleteReason, entries: usize) -> FoundGap {
        let cursor = |text: &str| (!text.is_empty()).then(|| Cursor::new(text));
        FoundGap {
            from: cursor(from),
            to: cursor(to),
            reason,
            entries,
        }
    }

    fn stored(id: i64, gap: FoundGap) -> StoredGap {
        StoredGap {
            id,
            gap,
            seen_fence: id,
            tried_page: 0,
        }
    }

    const T1: &str = "2026-01-01T00:00:01Z";
    const T2: &str = "2026-01-01T00:00:02.000Z";
    const T3: &str = "2026-01-01T00:00:03Z";
    const T4: &str = "2026-01-01T02:00:04+02:00";

    #[test]
    fn each_reason_tells_its_cause_and_how_a_person_ends_it() {
        let mut causes = std::collections::BTreeSet::new();
        for reason in IncompleteReason::ALL {
            let (cause, fix) = reason.cause_and_fix();
            assert!(cause.len() > 20 && causes.insert(cause), "{reason:?}");
            assert!(fix.contains("feeds gaps --dismiss ID"), "{reason:?}");
        }
    }

    #[test]
    fn overlapping_gaps_of_one_reason_become_one() {
        use IncompleteReason::{GroupCut, NextStuck};
        let open = [
            stored(1, gap(T1, T2, GroupCut, 10)),
            stored(2, gap(T1, T2, NextStuck, 0)),
            stored(3, gap(T3, T4, GroupCut, 12)),
        ];
        let plan = plan_record(&open, &[], &gap(T2, T3, GroupCut, 11));
        let RecordPlan::Extend {
            id,
            gap: whole,
            merged,
        } = plan
        else {
            panic!("it is merged");
        };
        assert_eq!((id, merged), (1, vec![3]));
        assert_eq!(whole, gap(T1, T4, GroupCut, 12));
        assert!(matches!(
            plan_record(&open[..1], &[], &gap(T3, T4, GroupCut, 11)),
            RecordPlan::Insert
        ));
        assert!(matches!(
            plan_record(&open, &[], &gap("b2s=", "", GroupCut, 0)),
            RecordPlan::Insert
        ));
    }

    #[test]
    fn the_number_of_open_gaps_is_bounded() {
        let text = |n: usize| format!("2026-01-01T00:{:02}:00Z", n);
        let one = |n: usize| gap(&text(n), &text(n), IncompleteReason::GroupCut, 1);
        let mut open: Vec<_> = (0..MAX_OPEN_GAPS)
            .map(|n| stored(i64::try_from(n).expect("few"), one(n)))
            .collect();
        let newest = &mut open[MAX_OPEN_GAPS - 1].gap;
        newest.reason = IncompleteReason::StartAt;
        let extended = |found: FoundGap| match plan_record(&open, &[], &found) {
            RecordPlan::Extend { gap, .. } => (gap.from, gap.to),
            _ => panic!("it extends another"),
        };
        let stretch = |from| (Some(Cursor::new(text(from))), Some(Cursor::new(text(58))));
        assert_eq!(extended(one(58)), stretch(MAX_OPEN_GAPS - 2));
        // There is none of its reason.
        let other = gap(&text(58), &text(58), IncompleteReason::NextStuck, 0);
        assert_eq!(extended(other), stretch(MAX_OPEN_GAPS - 1));
    }

    #[test]
    fn a_dismissed_group_stays_dismissed_unless_it_grows() {
        use IncompleteReason::{GroupCut, NextStuck, PageSizeUnknown};
        let dismissed = [stored(1, gap(T1, T3, PageSizeUnknown, 30))];
        let again =
            |found: FoundGap| matches!(plan_record(&[], &dismissed, &found), RecordPlan::Dismissed);
        assert!(again(gap(T2, T3, PageSizeUnknown, 30)));
        assert!(again(gap("", T3, GroupCut, 29)));
        assert!(!again(gap(T2, T3, PageSizeUnknown, 31)));
        assert!(!again(gap(T2, T4, PageSizeUnknown, 30)));
        assert!(!again(gap("", T1, PageSizeUnknown, 30)));
        assert!(!again(gap(T1, T3, NextStuck, 0)));
    }

    #[test]
    fn of_cursors_that_are_no_moments_none_is_earlier() {
        let [opaque, another, early, late] = ["b2s=", "b2x=", T2, T3].map(Cursor::new);
        assert_eq!(earlier(Some(&opaque), Some(&another)), None);
        assert_eq!(earlier(Some(&opaque), Some(&opaque)), Some(&opaque));
        assert_eq!(earlier(Some(&late), Some(&early)), Some(&early));
        assert_eq!(earlier(Some(&early), Some(&late)), Some(&early));
        assert_eq!(earlier(None, Some(&late)), None);
        let to = |a: &str, b: &str| {
            let [a, b] = [a, b].map(|to| gap("", to, IncompleteReason::StartAt, 0));
            hull(&a, &b).to
        };
        assert_eq!(to("b2s=", "b2x="), None);
        assert_eq!(to(T3, T2), Some(late.clone()));
        assert_eq!(to(T2, T3), Some(late));
        assert_eq!(to(T2, ""), None);
    }

    #[test]
    fn only_a_pull_over_the_whole_stretch_proves_a_gap() {
        let found = stored(5, gap(T2, T3, IncompleteReason::GroupCut, 10));
        let proven =
            |start: Option<&str>, fence| is_proven(&found, start.map(Cursor::new).as_ref(), fence);
        assert!(proven(None, 6));
        assert!(proven(Some(T1), 6));
        assert!(proven(Some("2026-01-01T00:00:02Z"), 6));
        assert!(!proven(Some(T3), 6), "it began after the gap");
        assert!(!proven(Some("b2s="), 6), "its order is not known");
        assert!(!proven(None, 5), "the pull found it itself");
    }

    #[test]
    fn a_larger_page_lets_a_pull_begin_before_the_gap() {
        use IncompleteReason::{GroupCut, NextStuck, PageSizeUnknown};
        let open = [
            stored(1, gap(T3, T4, GroupCut, 10)),
            stored(2, gap(T2, T4, PageSizeUnknown, 12)),
            stored(3, gap(T1, T4, NextStuck, 0)),
        ];
        assert_eq!(earliest_provable(&open, 10), None);
        assert_eq!(earliest_provable(&open, 11), Some(Some(Cursor::new(T3))));
        assert_eq!(earliest_provable(&open, 13), Some(Some(Cursor::new(T2))));
        // Found again when pages of 13 were known, they wait for a larger one.
        let tried = open.map(|gap| StoredGap {
            tried_page: 13,
            ..gap
        });
        assert_eq!(earliest_provable(&tried, 13), None);
        assert_eq!(earliest_provable(&tried, 14), Some(Some(Cursor::new(T2))));
    }
}
