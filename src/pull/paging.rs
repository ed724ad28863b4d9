//! Determines the next step of a pull from a page: the next request, or the end.
//!
//! The vendor documents two stop rules, and leaves open whether `from` is inclusive, whether
//! the last page has a `next`, and how documents with one timestamp are cut
//! (vendor-api U11, U13 to U15). The rules here are right in every case.

use crate::domain::{Cursor, DocumentVersion, Timestamp};
use crate::store::{PageEnd, Position};

/// Entries of a full page: "~100" (vendor-api, "The queues"). A page of this many documents
/// with one timestamp may have been cut among them.
const FULL_PAGE: usize = 100;

/// The step that follows a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextStep {
    /// The feed's new cursor, if this kind of pull may move it.
    pub cursor: Option<Cursor>,
    /// `from` of the next request.
    pub next_from: Option<Cursor>,
    /// The end of the pull, or more pages.
    pub end: PageEnd,
    /// True if the vendor's paging may have left documents out.
    pub gap: bool,
}

impl NextStep {
    fn up_to_date(cursor: Option<Cursor>) -> Self {
        Self {
            cursor,
            next_from: None,
            end: PageEnd::UpToDate,
            gap: false,
        }
    }
}

/// Returns the step that follows the page requested at `position`.
///
/// `entries` counts all entries of the page, `documents` are the readable ones.
pub fn next_step(
    position: &Position,
    entries: usize,
    documents: &[DocumentVersion],
    next: Option<Cursor>,
) -> NextStep {
    if let Some(offered) = stepped_back_from(position) {
        return after_boundary(position, entries, documents, next, offered);
    }
    let Some(next) = next else {
        // The last page may lack `next`: the version text of its last document replaces it.
        return NextStep::up_to_date(last_version(documents));
    };
    if entries == 0 {
        return NextStep::up_to_date(Some(next));
    }
    if position.from.as_ref() == Some(&next) {
        let gap = stuck(&next, documents);
        return NextStep {
            gap,
            ..NextStep::up_to_date(Some(next))
        };
    }
    if went_back(position.previous_next.as_ref(), &next) {
        return NextStep {
            gap: true,
            ..NextStep::up_to_date(position.previous_next.clone())
        };
    }
    continue_pull(position, entries, documents, next)
}

/// Returns the `next` that the vendor offered for this page, if this page was requested from
/// before the boundary of the previous one instead.
fn stepped_back_from(position: &Position) -> Option<&Cursor> {
    let offered = position.previous_next.as_ref()?;
    (position.from.as_ref() != Some(offered)).then_some(offered)
}

/// Continues after a page: requests the next one from before the page's boundary.
fn continue_pull(
    position: &Position,
    entries: usize,
    documents: &[DocumentVersion],
    next: Cursor,
) -> NextStep {
    let boundary = boundary(documents, &next);
    let next_from = boundary.filter(|boundary| position.from.as_ref() != Some(boundary));
    NextStep {
        next_from: Some(next_from.unwrap_or_else(|| next.clone())),
        // Such a page has no boundary to step back to, and `next` may skip the rest of the group.
        gap: entries >= FULL_PAGE && have_one_moment(&next, documents),
        cursor: Some(next),
        end: PageEnd::More,
    }
}

/// Continues after a page that was requested from before the boundary of the previous one,
/// whose `next` was `offered`.
///
/// If the page leads past `offered`, the pull continues from its `next`. Otherwise it continues
/// from `offered` itself: having stepped back proves nothing about the end of the queue. Such a
/// page may end before `offered` if documents of that group became visible meanwhile, or if
/// pages differ in size; and a vendor whose pages grow to hold a whole group may have ended
/// the page there although it was not cut.
fn after_boundary(
    position: &Position,
    entries: usize,
    documents: &[DocumentVersion],
    next: Option<Cursor>,
    offered: &Cursor,
) -> NextStep {
    let gap = match next {
        // The vendor says that nothing follows this page.
        None if entries > 0 => {
            let last = last_version(documents).filter(|last| !went_back(Some(offered), last));
            return NextStep::up_to_date(Some(last.unwrap_or_else(|| offered.clone())));
        }
        Some(next) if leads_past(&next, offered, position) => {
            return continue_pull(position, entries, documents, next);
        }
        // The group fills pages of this size: `offered` may skip the rest of it.
        Some(next) => {
            next == *offered
                && entries >= position.previous_entries
                && have_one_moment(&next, documents)
        }
        None => false,
    };
    NextStep {
        gap,
        next_from: Some(offered.clone()),
        cursor: Some(offered.clone()),
        end: PageEnd::More,
    }
}

fn leads_past(next: &Cursor, offered: &Cursor, position: &Position) -> bool {
    next != offered && position.from.as_ref() != Some(next) && !went_back(Some(offered), next)
}

/// Returns true if all documents have the moment that `next` names.
fn have_one_moment(next: &Cursor, documents: &[DocumentVersion]) -> bool {
    documents
        .iter()
        .all(|document| is_moment_of(next, document))
}

/// Returns true if `next` names the moment of this document's version, even if the vendor
/// writes the two in different forms.
fn is_moment_of(next: &Cursor, document: &DocumentVersion) -> bool {
    document.version == next.as_str()
        || document
            .version_time()
            .is_some_and(|version| Timestamp::parse(next.as_str()) == Some(version))
}

/// Returns the newest version before the page's last group of equal versions, if `next` names
/// the moment of that group.
///
/// A request from there lists the whole group again: if `from` is exclusive, documents of the
/// group that the page's end cut off are not lost.
fn boundary(documents: &[DocumentVersion], next: &Cursor) -> Option<Cursor> {
    let last = documents.last()?;
    if !is_moment_of(next, last) {
        return None;
    }
    let before = documents
        .iter()
        .rev()
        .find(|document| document.version != last.version)?;
    (!before.version.is_empty()).then(|| Cursor::new(before.version.clone()))
}

/// Returns true if `next` does not move although the queue continues: the page has documents
/// newer than it, or a full page of documents with its moment.
fn stuck(next: &Cursor, documents: &[DocumentVersion]) -> bool {
    let newer = documents
        .iter()
        .filter_map(DocumentVersion::version_time)
        .max()
        .zip(Timestamp::parse(next.as_str()))
        .is_some_and(|(newest, next)| newest > next);
    let ties = documents
        .iter()
        .filter(|document| is_moment_of(next, document))
        .count();
    newer || ties >= FULL_PAGE
}

fn went_back(previous: Option<&Cursor>, next: &Cursor) -> bool {
    let previous = previous.and_then(|previous| Timestamp::parse(previous.as_str()));
    previous
        .zip(Timestamp::parse(next.as_str()))
        .is_some_and(|(previous, next)| next < previous)
}

fn last_version(documents: &[DocumentVersion]) -> Option<Cursor> {
    let last = documents.last()?;
    (!last.version.is_empty()).then(|| Cursor::new(last.version.clone()))
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

    fn step_after(
        from: Option<&str>,
        previous: Option<(&str, usize)>,
        versions: &[&str],
        next: Option<&str>,
    ) -> NextStep {
        let position = Position {
            from: from.map(Cursor::new),
            previous_next: previous.map(|(next, _)| Cursor::new(next)),
            previous_entries: previous.map_or(0, |(_, entries)| entries),
        };
        next_step(
            &position,
            versions.len(),
            &documents(versions),
            next.map(Cursor::new),
        )
    }

    const T1: &str = "2026-01-01T00:00:01.000Z";
    const T2: &str = "2026-01-01T00:00:02.000Z";
    const T3: &str = "2026-01-01T00:00:03.000Z";

    #[test]
    fn a_page_without_next_ends_the_pull_at_its_last_version() {
        let step = step_after(Some(T1), None, &[T1, T2], None);
        assert_eq!(
            (step.end, step.cursor),
            (PageEnd::UpToDate, Some(Cursor::new(T2)))
        );
    }

    #[test]
    fn an_empty_page_ends_the_pull() {
        assert_eq!(
            step_after(Some(T1), None, &[], Some(T1)).end,
            PageEnd::UpToDate
        );
        assert_eq!(step_after(Some(T1), None, &[], None).cursor, None);
    }

    #[test]
    fn next_equal_to_from_ends_the_pull() {
        let step = step_after(Some(T2), None, &[T2], Some(T2));
        assert_eq!((step.end, step.gap), (PageEnd::UpToDate, false));
    }

    #[test]
    fn next_that_stays_although_documents_are_newer_is_a_gap() {
        let step = step_after(Some(T1), None, &[T2, T3], Some(T1));
        assert_eq!((step.end, step.gap), (PageEnd::UpToDate, true));
    }

    #[test]
    fn a_full_page_of_one_timestamp_that_leads_nowhere_is_a_gap() {
        assert!(step_after(Some(T1), None, &[T1; 100], Some(T1)).gap);
        assert!(!step_after(Some(T1), None, &[T1; 3], Some(T1)).gap);
    }

    #[test]
    fn the_last_group_of_equal_timestamps_is_requested_again() {
        let step = step_after(None, None, &[T1, T2, T3, T3], Some(T3));
        assert_eq!(
            (step.next_from, step.cursor),
            (Some(Cursor::new(T2)), Some(Cursor::new(T3)))
        );
    }

    #[test]
    fn after_a_shorter_page_the_pull_continues_from_next() {
        let step = step_after(Some(T2), Some((T3, 4)), &[T3, T3], Some(T3));
        assert_eq!(
            (step.end, step.gap, step.next_from),
            (PageEnd::More, false, Some(Cursor::new(T3)))
        );
    }

    #[test]
    fn a_full_page_of_one_timestamp_is_a_gap_even_if_next_moves() {
        assert!(step_after(None, None, &[T1; 100], Some(T1)).gap);
        assert!(!step_after(None, None, &[T1; 99], Some(T1)).gap);
    }

    #[test]
    fn a_group_larger_than_a_page_is_a_gap() {
        let step = step_after(Some(T2), Some((T3, 4)), &[T3; 4], Some(T3));
        assert_eq!(
            (step.end, step.gap, step.next_from),
            (PageEnd::More, true, Some(Cursor::new(T3)))
        );
    }

    #[test]
    fn a_next_that_writes_the_moment_differently_has_a_boundary() {
        let local = "2026-01-01T02:00:02.000+02:00";
        let step = step_after(None, None, &[T1, T2], Some(local));
        assert_eq!(
            (step.next_from, step.cursor),
            (Some(Cursor::new(T1)), Some(Cursor::new(local)))
        );
    }

    #[test]
    fn a_page_that_ends_before_the_boundary_does_not_end_the_pull() {
        // Pages of 100 and then 98, or documents of T2 that became visible meanwhile.
        for next in [Some(T2), Some(T1), None] {
            let entries: &[&str] = if next.is_some() { &[T2, T2] } else { &[] };
            let step = step_after(Some(T2), Some((T3, 3)), entries, next);
            assert_eq!(
                (step.end, step.next_from, step.cursor, step.gap),
                (
                    PageEnd::More,
                    Some(Cursor::new(T3)),
                    Some(Cursor::new(T3)),
                    false
                ),
                "{next:?}"
            );
        }
    }

    #[test]
    fn a_last_page_never_moves_the_cursor_back() {
        let step = step_after(Some(T1), Some((T3, 3)), &[T2], None);
        assert_eq!(
            (step.end, step.cursor),
            (PageEnd::UpToDate, Some(Cursor::new(T3)))
        );
        let step = step_after(Some(T1), Some((T2, 3)), &[T2, T3], None);
        assert_eq!(
            (step.end, step.cursor),
            (PageEnd::UpToDate, Some(Cursor::new(T3)))
        );
    }

    #[test]
    fn an_opaque_next_is_sent_back_as_it_is() {
        let step = step_after(None, None, &[T1, T2], Some("b2s="));
        assert_eq!(
            (step.next_from, step.cursor),
            (Some(Cursor::new("b2s=")), Some(Cursor::new("b2s=")))
        );
    }

    #[test]
    fn next_that_goes_back_ends_the_pull_and_keeps_the_cursor() {
        let step = step_after(Some(T3), Some((T3, 1)), &[T1], Some(T2));
        assert_eq!(
            (step.end, step.gap, step.cursor),
            (PageEnd::UpToDate, true, Some(Cursor::new(T3)))
        );
    }
}
