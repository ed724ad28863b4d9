//! Determines the next step of a pull from a page: the next request, or the end.
//!
//! The vendor documents two stop rules, and leaves open whether `from` is inclusive, whether
//! the last page has a `next`, and how documents with one timestamp are cut
//! (vendor-api U11, U13 to U15). The rules here are right in every case, or find a gap.
//!
//! Where `next` names the moment of the page's last documents, their group is whole only if a
//! page shows it: one that lists the group and something later. So the next request is from
//! before the group, then from `next` itself. If neither shows it, the page may have been cut
//! in the group if it was as large as others were. Where `next` is written finer or coarser than
//! the versions, documents are of its group if they may be of its moment.

use std::cmp::Ordering::{self, Equal, Greater, Less};

use crate::domain::moment::{self, Moment};
use crate::domain::{Cursor, DocumentVersion};
use crate::store::{
    CycleSearch, FoundGap, Group, IncompleteReason, PageEnd, Position, PullProgress,
};

/// Fewest entries of a page that may have been cut, unless smaller pages are shown to be.
const MIN_CUT_PAGE: usize = 10;

/// Empty pages in a row whose `next` is followed.
const MAX_EMPTY_PAGES: usize = 20;

/// The step that follows a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextStep {
    /// The feed's new cursor, if this kind of pull may move it.
    pub cursor: Option<Cursor>,
    /// `from` of the next request.
    pub next_from: Option<Cursor>,
    /// What the pages of the pull have shown so far.
    pub progress: PullProgress,
    /// The end of the pull, or more pages.
    pub end: PageEnd,
    /// Stretches in which the vendor's paging may have left documents out.
    pub gaps: Vec<FoundGap>,
}

/// Returns the step that follows the page requested at `position`.
///
/// `largest_page` is the number of entries of the largest page that the account's queue has
/// ever shown; `entries` counts all entries of the page, `documents` are the readable ones.
pub fn next_step(
    position: &Position,
    largest_page: usize,
    entries: usize,
    documents: &[DocumentVersion],
    next: Option<Cursor>,
) -> NextStep {
    let mut page = Page::new(position, largest_page, entries, documents);
    let group = page.settle_group();
    match next {
        None => page.without_next(group),
        Some(next) if entries == 0 => page.empty(group, next),
        Some(next) => page.with_next(group, next),
    }
}

/// A page, and what is known of its pull.
struct Page<'a> {
    position: &'a Position,
    entries: usize,
    /// The documents' versions that name moments, and these.
    moments: Vec<(Moment, &'a str)>,
    /// Entries of the largest page that was ever seen, with this one.
    largest_ever: usize,
    progress: PullProgress,
    gaps: Vec<FoundGap>,
}

impl<'a> Page<'a> {
    fn new(
        position: &'a Position,
        largest_page: usize,
        entries: usize,
        documents: &'a [DocumentVersion],
    ) -> Self {
        let mut progress = position.progress.clone();
        progress.largest_page = progress.largest_page.max(entries);
        Self {
            position,
            entries,
            moments: documents
                .iter()
                .filter_map(|document| Some((document.moment()?, document.version.as_str())))
                .collect(),
            largest_ever: largest_page.max(progress.largest_page),
            progress,
            gaps: Vec::new(),
        }
    }

    /// Returns the newest version of the page.
    fn newest(&self) -> Option<&'a str> {
        let newest = self.moments.iter().max_by(|(a, _), (b, _)| a.cmp(b));
        newest.map(|(_, version)| *version)
    }

    /// Returns true if the page lists a document of just the moment of `at`, in the form of `at`.
    fn lists(&self, at: &Cursor) -> bool {
        let (wanted, form) = (read(at), moment::form(at.as_str()));
        self.moments.iter().any(|(moment, _)| {
            let moment = form.and_then(|form| moment.written_as(form));
            moment.and_then(|moment| Moment::read(&moment)) == wanted
        })
    }

    /// Returns true if the newest document of the page may be of the moment of `at`.
    fn ends_at(&self, at: &Cursor) -> bool {
        let newest = self.newest();
        newest.is_some_and(|newest| compare(newest, at) == Some(Equal))
    }

    /// Returns true if the page lists a document that is surely later than `at`.
    fn lists_later_than(&self, at: &Cursor) -> bool {
        let mut versions = self.moments.iter().map(|(_, version)| *version);
        versions.any(|version| compare(version, at) == Some(Greater))
    }

    /// Returns true if a page with this many entries may have been cut.
    fn may_be_cut(&self, entries: usize) -> bool {
        entries >= MIN_CUT_PAGE && entries >= self.largest_ever
    }

    /// Returns true if a page with this many entries was probably cut, given that more followed
    /// it. Pages may have become smaller than they once were, so those of this pull decide.
    fn was_cut(&self, entries: usize) -> bool {
        entries >= self.progress.largest_page
            && (entries >= MIN_CUT_PAGE || entries >= self.largest_ever)
    }

    fn found(&mut self, reason: IncompleteReason, from: Option<Cursor>, to: Option<Cursor>) {
        self.found_of(reason, from, to, 0);
    }

    fn found_of(
        &mut self,
        reason: IncompleteReason,
        from: Option<Cursor>,
        to: Option<Cursor>,
        entries: usize,
    ) {
        self.gaps.push(FoundGap {
            from,
            to,
            reason,
            entries,
        });
    }

    /// Returns the group at the end of an earlier page unless this page shows that it is whole, or
    /// that it was cut.
    fn settle_group(&mut self) -> Option<Group> {
        let group = self.progress.group.take()?;
        if self.progress.stepped {
            if self.entries == 0 {
                return Some(group);
            }
            // The page before the step ended at the group although these follow.
            self.progress.stepped = false;
            if self.was_cut(group.entries) {
                let to = self.position.from.clone();
                self.found_of(IncompleteReason::GroupCut, group.before, to, group.entries);
            }
            return None;
        }
        let has_group = self.lists(&group.at);
        if !self.lists_later_than(&group.at) {
            return Some(Group {
                entries: if has_group {
                    self.entries
                } else {
                    group.entries
                },
                ..group
            });
        }
        let skipped = !has_group && self.position.from.as_ref() == Some(&group.at);
        if skipped && self.was_cut(group.entries) {
            let Group {
                at,
                before,
                entries,
            } = group;
            self.found_of(IncompleteReason::GroupCut, before, Some(at), entries);
        }
        None
    }

    /// Returns true if the page was requested from before the group.
    fn is_before(&self, group: Option<&Group>) -> bool {
        let is_before = |group: &Group| self.position.from.as_ref() != Some(&group.at);
        group.is_some_and(is_before) && !self.progress.stepped
    }

    /// The step after a page without `next`: nothing follows it.
    fn without_next(mut self, group: Option<Group>) -> NextStep {
        if self.entries == 0 {
            return match group {
                // Its documents were there before.
                Some(group) if self.is_before(Some(&group)) => self.request_group(group),
                group => self.end_of_queue(group, None),
            };
        }
        // The version of the last document replaces it, if cursors are such texts.
        let last = self.newest();
        let known = self.position.from.as_ref();
        let last = last
            .zip(known)
            .and_then(|(last, known)| moment::in_form_of(last, known.as_str()))
            .map(Cursor::new);
        let previous = self.position.previous_next.as_ref();
        let cursor = match last {
            Some(last) if previous.is_some_and(|previous| is_before(&last, previous)) => None,
            last => last,
        };
        self.progress.group = None;
        self.end(PageEnd::EndOfQueue, cursor)
    }

    /// The step after an empty page.
    fn empty(mut self, group: Option<Group>, next: Cursor) -> NextStep {
        if let Some(group) = group.clone().filter(|group| self.is_before(Some(group))) {
            return self.request_group(group);
        }
        let moves = match &self.position.from {
            None => true,
            Some(from) if read(from).is_some() && read(&next).is_some() => is_before(from, &next),
            Some(from) => *from != next,
        };
        if !moves {
            let is_same = self.position.from.as_ref() == Some(&next) && !self.progress.stepped;
            return self.end_of_queue(group, is_same.then_some(next));
        }
        self.progress.empty_pages += 1;
        if self.progress.empty_pages > MAX_EMPTY_PAGES {
            self.found(IncompleteReason::EmptyPages, Some(next.clone()), None);
            return self.end(PageEnd::Stopped { failing: false }, Some(next));
        }
        self.progress.group = group;
        self.request(next.clone(), Some(next))
    }

    /// The step after a page with entries and a `next`.
    fn with_next(mut self, group: Option<Group>, next: Cursor) -> NextStep {
        self.progress.empty_pages = 0;
        let newest = self.newest();
        let newest = newest.and_then(|newest| moment::in_form_of(newest, next.as_str()));
        match (read(&next), newest) {
            (Some(at), Some(newest)) => self.at_moment(group, next, at, Cursor::new(newest)),
            _ => self.at_opaque(group, next),
        }
    }

    /// The step after a page whose `next` names no moment of the documents' kind.
    fn at_opaque(mut self, group: Option<Group>, next: Cursor) -> NextStep {
        self.settle_by_size(group);
        if self.position.from.as_ref() != Some(&next) {
            return self.request(next.clone(), Some(next));
        }
        // Entries were listed after it, so it should have moved.
        self.found(IncompleteReason::NextStuck, Some(next), None);
        self.end(PageEnd::Stopped { failing: true }, None)
    }

    /// The step after a page whose `next` names the moment `at`; `newest` is the newest version.
    fn at_moment(
        mut self,
        group: Option<Group>,
        next: Cursor,
        at: Moment,
        newest: Cursor,
    ) -> NextStep {
        let from = self.position.from.clone();
        let from_moment = from.as_ref().and_then(read);
        let mut target = next;
        if let (Some(from), Some(moment)) = (&from, &from_moment)
            && at <= *moment
        {
            let is_same = at == *moment;
            let follow = compare(newest.as_str(), from) == Some(Greater);
            if !follow && self.is_before(group.as_ref()) {
                // The group before fills the page.
                if let Some(group) = group {
                    return self.request_group(group);
                }
            }
            let reason = match is_same {
                true => IncompleteReason::NextStuck,
                false => IncompleteReason::NextBack,
            };
            if follow {
                self.found(reason, Some(from.clone()), Some(newest.clone()));
                target = newest.clone();
            } else if !is_same {
                self.found(reason, Some(from.clone()), None);
                target = from.clone();
            }
        }
        let target_moment = read(&target);
        if target_moment == from_moment {
            return self.at_same_moment(group, target);
        }
        let cursor = match &self.position.previous_next {
            Some(previous) if is_before(&target, previous) => previous.clone(),
            _ => target.clone(),
        };
        if let Some(group) = group.as_ref().filter(|group| !self.is_before(Some(group)))
            && self.was_cut(group.entries)
        {
            // What followed at its moment can't be told from what may be missing.
            let Group {
                at,
                before,
                entries,
            } = group.clone();
            self.found_of(IncompleteReason::GroupCut, before, Some(at), entries);
        }
        if !self.ends_at(&target) {
            return self.request(target, Some(cursor));
        }
        let again =
            group.filter(|group| self.is_before(Some(group)) && read(&group.at) == target_moment);
        if let Some(group) = again {
            let at = target.clone();
            self.progress.group = Some(Group { at, ..group });
            return self.request(target, Some(cursor));
        }
        let boundary = self.boundary(&target, from.as_ref());
        self.progress.group = Some(Group {
            at: target.clone(),
            before: boundary.clone().or(from),
            entries: self.entries,
        });
        self.request(boundary.unwrap_or(target), Some(cursor))
    }

    /// The step after a page that has nothing later than the moment that it was requested from.
    fn at_same_moment(mut self, group: Option<Group>, target: Cursor) -> NextStep {
        let group = group.unwrap_or_else(|| Group {
            at: target.clone(),
            before: self.position.from.clone(),
            entries: self.entries,
        });
        if let Some(step) = self.coarse_step(&target) {
            let from = Some(target.clone());
            self.found(IncompleteReason::NextStuck, from, Some(step.clone()));
            self.progress.group = None;
            return self.request(step, Some(target));
        }
        let Some(step) = moment::step_after(target.as_str()) else {
            self.found(IncompleteReason::NextStuck, Some(target), None);
            return self.end(PageEnd::Stopped { failing: true }, None);
        };
        // Only a request from after it shows whether the queue ends here.
        self.progress.group = Some(group);
        self.progress.stepped = true;
        self.request(Cursor::new(step), Some(target))
    }

    /// Returns the moment after the versions of a page that a step has not moved on from: where
    /// cursors are finer than versions, thousands of steps may lead to the same page.
    fn coarse_step(&self, target: &Cursor) -> Option<Cursor> {
        let newest = self.newest().filter(|_| self.ends_at(target))?;
        let step = moment::in_form_of(&moment::step_after(newest)?, target.as_str())?;
        let step = Cursor::new(step);
        let is_again = self.position.progress.stepped && is_before(target, &step);
        is_again.then_some(step)
    }

    /// Returns the newest version of the page that is before the group at `target`, if it is after
    /// the moment that the page was requested from: a request from there lists the whole group.
    fn boundary(&self, target: &Cursor, from: Option<&Cursor>) -> Option<Cursor> {
        let from = from.filter(|from| read(from).is_some());
        let is_between = |version: &str| {
            compare(version, target) == Some(Less)
                && from.is_none_or(|from| compare(version, from) == Some(Greater))
        };
        let before = self.moments.iter();
        let before = before.filter(|(_, version)| is_between(version));
        let (_, version) = before.max_by(|(a, _), (b, _)| a.cmp(b))?;
        moment::in_form_of(version, target.as_str()).map(Cursor::new)
    }

    /// Requests the group's moment itself.
    fn request_group(mut self, group: Group) -> NextStep {
        let at = group.at.clone();
        self.progress.group = Some(group);
        self.request(at, None)
    }

    /// Records a gap if the page that ended with the group may have been cut.
    fn settle_by_size(&mut self, group: Option<Group>) {
        let Some(group) = group.filter(|group| self.may_be_cut(group.entries)) else {
            return;
        };
        let to = match self.progress.stepped {
            true => self.position.from.clone(),
            false => Some(group.at),
        };
        let reason = IncompleteReason::PageSizeUnknown;
        self.found_of(reason, group.before, to, group.entries);
    }

    fn end_of_queue(mut self, group: Option<Group>, cursor: Option<Cursor>) -> NextStep {
        self.settle_by_size(group);
        self.end(PageEnd::EndOfQueue, cursor)
    }

    fn end(self, end: PageEnd, cursor: Option<Cursor>) -> NextStep {
        NextStep {
            cursor,
            next_from: None,
            progress: self.progress,
            end,
            gaps: self.gaps,
        }
    }

    fn request(mut self, from: Cursor, cursor: Option<Cursor>) -> NextStep {
        if self.comes_round(&from) {
            self.found(IncompleteReason::CursorCycle, Some(from), None);
            return self.end(PageEnd::Stopped { failing: true }, None);
        }
        NextStep {
            cursor,
            next_from: Some(from),
            progress: self.progress,
            end: PageEnd::More,
            gaps: self.gaps,
        }
    }

    /// Returns true if the pull has requested from this cursor before: at the latest when it has
    /// come round three times.
    fn comes_round(&mut self, from: &Cursor) -> bool {
        let search = self.progress.cycle.get_or_insert_with(|| CycleSearch {
            anchor: self
                .position
                .from
                .clone()
                .unwrap_or_else(|| Cursor::new("")),
            steps: 0,
            limit: 1,
        });
        if search.anchor == *from {
            return true;
        }
        search.steps += 1;
        if search.steps == search.limit {
            search.anchor = from.clone();
            search.steps = 0;
            search.limit *= 2;
        }
        false
    }
}

fn read(cursor: &Cursor) -> Option<Moment> {
    Moment::read(cursor.as_str())
}

/// Compares the moments of a version and a cursor, as far as both are written.
fn compare(version: &str, cursor: &Cursor) -> Option<Ordering> {
    moment::compare_coarsely(version, cursor.as_str())
}

/// Returns true if both name moments, in this order.
fn is_before(a: &Cursor, b: &Cursor) -> bool {
    read(a).zip(read(b)).is_some_and(|(a, b)| a < b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(versions: &[&str]) -> Vec<DocumentVersion> {
        versions
            .iter()
            .enumerate()
            .map(|(n, version)| DocumentVersion {
                id: n.to_string(),
                version: (*version).to_owned(),
                body: bytes::Bytes::new(),
            })
            .collect()
    }

    /// A pull of which each page is given.
    struct Pull {
        position: Position,
        largest_page: usize,
        gaps: Vec<FoundGap>,
        end: PageEnd,
    }

    impl Pull {
        fn from(from: Option<&str>) -> Self {
            Self {
                position: Position {
                    from: from.map(Cursor::new),
                    ..Position::default()
                },
                largest_page: 100,
                gaps: Vec::new(),
                end: PageEnd::More,
            }
        }

        /// Takes a page; returns the `from` of the next request.
        fn page(&mut self, versions: &[&str], next: Option<&str>) -> Option<String> {
            assert_eq!(self.end, PageEnd::More);
            let step = next_step(
                &self.position,
                self.largest_page,
                versions.len(),
                &documents(versions),
                next.map(Cursor::new),
            );
            self.end = step.end;
            self.gaps.extend(step.gaps);
            let previous = self.position.previous_next.take();
            self.position = Position {
                from: step.next_from.clone(),
                previous_next: step.cursor.or(previous),
                progress: step.progress,
            };
            step.next_from.map(|from| from.to_string())
        }

        fn cursor(&self) -> Option<&str> {
            self.position.previous_next.as_ref().map(Cursor::as_str)
        }

        /// Asserts that the queue ended at this cursor, with gaps for these reasons.
        fn ended(&self, cursor: Option<&str>, reasons: &[IncompleteReason]) {
            let found: Vec<_> = self.gaps.iter().map(|gap| gap.reason).collect();
            assert_eq!(
                (self.end, self.cursor(), found.as_slice()),
                (PageEnd::EndOfQueue, cursor, reasons)
            );
        }
    }

    const T0: &str = "2026-01-01T00:00:00.000Z";
    const T1: &str = "2026-01-01T00:00:01.000Z";
    const T2: &str = "2026-01-01T00:00:02.000Z";
    const T3: &str = "2026-01-01T00:00:03.000Z";
    const T4: &str = "2026-01-01T00:00:04.000Z";
    const STEPPED: &str = "2026-01-01T00:00:02.001Z";

    use IncompleteReason::{
        CursorCycle, EmptyPages, GroupCut, NextBack, NextStuck, PageSizeUnknown,
    };

    #[test]
    fn a_page_without_next_ends_the_pull_at_its_last_version() {
        let mut pull = Pull::from(Some(T1));
        assert_eq!(pull.page(&[T1, T2], None), None);
        pull.ended(Some(T2), &[]);
        let mut pull = Pull::from(None);
        pull.page(&[T1, T2], None);
        // It is not known that cursors are such texts.
        pull.ended(None, &[]);
    }

    #[test]
    fn an_empty_page_ends_the_pull() {
        for next in [Some(T1), None] {
            let mut pull = Pull::from(Some(T1));
            assert_eq!(pull.page(&[], next), None);
            pull.ended(next, &[]);
        }
    }

    #[test]
    fn a_group_is_whole_if_a_page_lists_it_and_something_later() {
        // Exclusive, then inclusive.
        for again in [&[T2, T2, T3][..], &[T1, T2, T2, T3]] {
            let mut pull = Pull::from(Some(T0));
            assert_eq!(pull.page(&[T1, T2], Some(T2)).as_deref(), Some(T1));
            assert_eq!(pull.page(again, Some(T3)).as_deref(), Some(T2));
            assert_eq!(pull.page(&[T3], Some(T3)).as_deref(), Some(T3));
            pull.page(&[], None);
            pull.ended(Some(T3), &[]);
        }
    }

    #[test]
    fn a_group_as_large_as_a_page_was_cut_if_more_follows() {
        let group = [T2; 100];
        let mut pull = Pull::from(Some(T1));
        assert_eq!(pull.page(&group, Some(T2)).as_deref(), Some(T2));
        assert_eq!(pull.page(&[T3], Some(T3)).as_deref(), Some(T3));
        pull.page(&[], None);
        pull.ended(Some(T3), &[GroupCut]);
        let gap = &pull.gaps[0];
        assert_eq!(
            (gap.from.clone(), gap.to.clone(), gap.entries),
            (Some(Cursor::new(T1)), Some(Cursor::new(T2)), 100)
        );
    }

    #[test]
    fn a_group_smaller_than_other_pages_was_not_cut() {
        let mut pull = Pull::from(Some(T1));
        assert_eq!(pull.page(&[T2; 99], Some(T2)).as_deref(), Some(T2));
        pull.page(&[], None);
        pull.ended(Some(T2), &[]);
    }

    #[test]
    fn a_group_is_as_large_as_the_newest_page_of_it() {
        let mut pull = Pull::from(None);
        let page = [&[T1][..], &[T2; 99]].concat();
        assert_eq!(pull.page(&page, Some(T2)).as_deref(), Some(T1));
        assert_eq!(pull.page(&[T2; 5], Some(T2)).as_deref(), Some(T2));
        pull.page(&[], None);
        pull.ended(Some(T2), &[]);
    }

    #[test]
    fn a_last_page_that_goes_back_does_not_move_the_cursor() {
        let mut pull = Pull::from(Some(T1));
        assert_eq!(pull.page(&[T2, T3], Some(T3)).as_deref(), Some(T2));
        assert_eq!(pull.page(&[T2], None), None);
        pull.ended(Some(T3), &[]);
    }

    #[test]
    fn a_last_group_on_the_largest_page_is_a_notice() {
        let mut pull = Pull::from(None);
        pull.largest_page = 5;
        assert_eq!(pull.page(&[T2; 30], Some(T2)).as_deref(), Some(T2));
        pull.page(&[], None);
        pull.ended(Some(T2), &[PageSizeUnknown]);
        // Nine documents of one moment are an ordinary day.
        let mut pull = Pull::from(None);
        pull.largest_page = 5;
        pull.page(&[T2; 9], Some(T2));
        pull.page(&[], None);
        pull.ended(Some(T2), &[]);
    }

    #[test]
    fn a_group_that_next_does_not_pass_is_stepped_over_once() {
        let group = [T2; 100];
        let mut pull = Pull::from(Some(T1));
        assert_eq!(pull.page(&group, Some(T2)).as_deref(), Some(T2));
        assert_eq!(pull.page(&group, Some(T2)).as_deref(), Some(STEPPED));
        assert_eq!(pull.page(&[T3], Some(T3)).as_deref(), Some(T3));
        pull.page(&[T3], Some(T3));
        pull.page(&[], None);
        pull.ended(Some(T3), &[GroupCut]);
        assert_eq!(pull.gaps[0].to, Some(Cursor::new(STEPPED)));
    }

    #[test]
    fn a_step_that_finds_nothing_does_not_move_the_cursor() {
        let mut pull = Pull::from(Some(T2));
        assert_eq!(pull.page(&[T2; 100], Some(T2)).as_deref(), Some(STEPPED));
        pull.page(&[], Some(STEPPED));
        pull.ended(Some(T2), &[PageSizeUnknown]);
        let mut pull = Pull::from(Some(T2));
        assert_eq!(pull.page(&[T2; 3], Some(T2)).as_deref(), Some(STEPPED));
        pull.page(&[], None);
        pull.ended(Some(T2), &[]);
        // Pages that end before a group that does not fit in.
        let mut pull = Pull::from(Some(T2));
        assert_eq!(pull.page(&[T2; 3], Some(T2)).as_deref(), Some(STEPPED));
        assert_eq!(pull.page(&[T3; 4], Some(T3)).as_deref(), Some(T3));
        assert!(pull.gaps.is_empty());
    }

    #[test]
    fn next_that_stays_although_documents_are_newer_is_a_gap() {
        let mut pull = Pull::from(Some(T1));
        assert_eq!(pull.page(&[T2, T3], Some(T1)).as_deref(), Some(T2));
        assert_eq!(pull.page(&[T3, T4], Some(T2)).as_deref(), Some(T3));
        assert_eq!(pull.page(&[T4], Some(T3)).as_deref(), Some(T4));
        pull.page(&[], None);
        pull.ended(Some(T4), &[NextStuck, NextStuck, NextStuck]);
    }

    #[test]
    fn next_that_goes_back_is_a_gap_and_the_cursor_stays() {
        let mut pull = Pull::from(Some(T3));
        assert!(pull.page(&[T3], Some(T2)).is_some());
        pull.page(&[], None);
        pull.ended(Some(T3), &[NextBack]);
        let mut pull = Pull::from(Some(T3));
        assert_eq!(pull.page(&[T4], Some(T2)).as_deref(), Some(T4));
        pull.page(&[], None);
        pull.ended(Some(T4), &[NextBack]);
    }

    #[test]
    fn a_next_that_writes_the_moment_differently_has_a_boundary() {
        let local = "2026-01-01T02:00:02.000+02:00";
        let mut pull = Pull::from(None);
        assert_eq!(pull.page(&[T1, T2], Some(local)).as_deref(), Some(T1));
        assert_eq!(pull.page(&[T2], Some(local)).as_deref(), Some(local));
        pull.page(&[], None);
        pull.ended(Some(local), &[]);
        let mut pull = Pull::from(None);
        let millis = pull.page(&[T1, T2], Some("1767225602000"));
        assert_eq!(millis.as_deref(), Some("1767225601000"));
    }

    #[test]
    fn a_group_whose_next_is_in_another_form_is_the_same() {
        let local = "2026-01-01T02:00:02.000+02:00";
        let mut pull = Pull::from(None);
        assert_eq!(pull.page(&[T1, T2], Some(T2)).as_deref(), Some(T1));
        assert_eq!(pull.page(&[T2], Some(local)).as_deref(), Some(local));
        assert_eq!(pull.page(&[], None), None);
        pull.ended(Some(local), &[]);
    }

    #[test]
    fn a_next_after_the_last_document_ends_in_no_group() {
        let mut pull = Pull::from(None);
        assert_eq!(pull.page(&[T1, T2], Some(T3)).as_deref(), Some(T3));
        assert_eq!(pull.page(&[T4], Some(T4)).as_deref(), Some(T4));
        pull.page(&[], None);
        pull.ended(Some(T4), &[]);
    }

    #[test]
    fn a_group_of_versions_coarser_than_next_may_be_cut() {
        // Of the second, nobody sees where in it the page ended.
        let second = "2026-01-01T00:00:02Z";
        let (middle, end) = ("2026-01-01T00:00:02.500Z", "2026-01-01T00:00:02.900Z");
        let mut pull = Pull::from(Some(T1));
        assert_eq!(
            pull.page(&[second; 100], Some(middle)).as_deref(),
            Some(middle)
        );
        assert_eq!(pull.page(&[second; 3], Some(end)).as_deref(), Some(end));
        pull.page(&[], None);
        pull.ended(Some(end), &[GroupCut]);
        assert_eq!(pull.gaps[0].to, Some(Cursor::new(middle)));
        // The page before it shows the whole second, and something later.
        let mut pull = Pull::from(Some(T0));
        let first = "2026-01-01T00:00:01Z";
        assert_eq!(
            pull.page(&[first, second], Some(middle)).as_deref(),
            Some(first)
        );
        assert_eq!(
            pull.page(&[second, second, T3], Some(T3)).as_deref(),
            Some(second)
        );
        assert!(pull.gaps.is_empty());
    }

    #[test]
    fn a_group_is_found_again_by_a_coarser_next() {
        let half = "2026-01-01T00:00:02.500Z";
        let [one, two, three] = ["1767225601", "1767225602", "1767225603"];
        let mut pull = Pull::from(Some(one));
        assert_eq!(pull.page(&[half; 100], Some(two)).as_deref(), Some(two));
        let next = pull.page(&[half, T3], Some(three));
        assert_eq!(next.as_deref(), Some(three));
        assert!(pull.gaps.is_empty(), "it is listed, with something later");
    }

    #[test]
    fn next_stuck_within_a_second_is_stepped_over_twice_only() {
        let second = "2026-01-01T00:00:02Z";
        let mut pull = Pull::from(Some(T2));
        assert_eq!(pull.page(&[second; 2], Some(T2)).as_deref(), Some(STEPPED));
        let third = "2026-01-01T00:00:03Z";
        assert_eq!(pull.page(&[second], Some(STEPPED)).as_deref(), Some(third));
        pull.page(&[], None);
        pull.ended(Some(STEPPED), &[NextStuck]);
    }

    #[test]
    fn a_page_that_ends_before_the_group_does_not_end_the_pull() {
        // Documents of T2 became visible meanwhile, or pages became smaller.
        let mut pull = Pull::from(None);
        assert_eq!(pull.page(&[T1, T2, T3], Some(T3)).as_deref(), Some(T2));
        assert_eq!(pull.page(&[T2, T2], Some(T2)).as_deref(), Some(T3));
        assert!(pull.page(&[T3], Some(T3)).is_some());
        pull.page(&[], None);
        pull.ended(Some(T3), &[]);
        let mut pull = Pull::from(None);
        pull.page(&[T1, T3], Some(T3));
        assert_eq!(pull.page(&[T2], Some(T2)).as_deref(), Some(T2));
        assert_eq!(pull.cursor(), Some(T3));
        let mut pull = Pull::from(None);
        pull.page(&[T1, T3], Some(T3));
        assert_eq!(pull.page(&[], None).as_deref(), Some(T3));
        // The large page tells nothing about another group.
        let mut pull = Pull::from(None);
        let page = [&[T1][..], &[T3; 99]].concat();
        assert_eq!(pull.page(&page, Some(T3)).as_deref(), Some(T1));
        assert_eq!(pull.page(&[T2], Some(T2)).as_deref(), Some(T2));
        assert_eq!(pull.page(&[T3, T4], Some(T4)).as_deref(), Some(T3));
        assert!(pull.gaps.is_empty());
    }

    #[test]
    fn an_opaque_next_is_sent_back_as_it_is() {
        let mut pull = Pull::from(None);
        assert_eq!(pull.page(&[T1, T2], Some("b2s=")).as_deref(), Some("b2s="));
        assert_eq!(pull.page(&[T2, T3], None), None);
        pull.ended(Some("b2s="), &[]);
    }

    #[test]
    fn an_opaque_next_that_is_stuck_fails_the_feed() {
        let mut pull = Pull::from(Some("b2s="));
        pull.page(&[T1; 100], Some("b2s="));
        assert_eq!(pull.end, PageEnd::Stopped { failing: true });
        assert_eq!(pull.gaps[0].reason, NextStuck);
        let mut pull = Pull::from(Some("b2s="));
        pull.page(&[], Some("b2s="));
        pull.ended(Some("b2s="), &[]);
    }

    #[test]
    fn cursors_that_come_round_end_the_pull() {
        let mut pull = Pull::from(None);
        let mut pages = 0;
        while pull.end == PageEnd::More {
            let cursor = ["a", "b", "c"][pages % 3];
            pull.page(&[T1], Some(cursor));
            pages += 1;
            assert!(pages < 12, "{pages}");
        }
        assert_eq!(pull.end, PageEnd::Stopped { failing: true });
        assert_eq!(pull.gaps[0].reason, CursorCycle);
        // However long the way round is.
        for length in [10, 100, 1000] {
            let mut pull = Pull::from(None);
            let mut pages = 0;
            while pull.end == PageEnd::More {
                pull.page(&[T1], Some(&format!("token-{}", pages % length)));
                pages += 1;
                assert!(pages <= 3 * length + 2, "{length}");
            }
            assert_eq!(pull.gaps[0].reason, CursorCycle);
        }
    }

    #[test]
    fn next_of_an_empty_page_is_followed_a_bounded_number_of_times() {
        let mut pull = Pull::from(None);
        assert_eq!(pull.page(&[], Some(T1)).as_deref(), Some(T1));
        assert_eq!(pull.page(&[T2], Some(T2)).as_deref(), Some(T2));
        pull.page(&[], Some(T2));
        pull.ended(Some(T2), &[]);
        // Which comes first is not known.
        for (from, next) in [(T2, "b2s="), ("b2s=", T1)] {
            let mut pull = Pull::from(Some(from));
            assert_eq!(pull.page(&[], Some(next)).as_deref(), Some(next));
        }
        let mut pull = Pull::from(None);
        let mut pages = 0;
        while pull.end == PageEnd::More {
            pull.page(&[], Some(&format!("token-{pages}")));
            pages += 1;
            assert!(pages <= MAX_EMPTY_PAGES + 1);
        }
        assert_eq!(pages, MAX_EMPTY_PAGES + 1);
        assert_eq!(pull.end, PageEnd::Stopped { failing: false });
        assert_eq!(pull.gaps[0].reason, EmptyPages);
    }
}
