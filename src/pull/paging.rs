//! What a page means for the run: where it goes on, or that it has ended.
//!
//! The vendor gives two stop rules, and leaves open whether `from` is inclusive, whether
//! the last page has a `next`, and how documents with one timestamp are cut
//! (vendor-api U11, U13 to U15). The rules here are right under every answer.

use crate::domain::{Cursor, DocumentVersion, Timestamp};
use crate::store::{PageEnd, Position};

/// "~100" documents make a page (vendor-api, "The queues"): so many with one timestamp may be
/// a page that was cut within them.
const FULL_PAGE: usize = 100;

/// What follows a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextStep {
    /// What becomes the feed's cursor, where this kind of pull may move it.
    pub cursor: Option<Cursor>,
    /// What to send as `from` next.
    pub next_from: Option<Cursor>,
    /// Whether the run has ended.
    pub end: PageEnd,
    /// Whether the vendor's paging may have left documents out.
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

/// Judges the page that came for `position`.
///
/// `entries` counts all of the page's entries, `documents` are those with an id.
pub fn next_step(
    position: &Position,
    entries: usize,
    documents: &[DocumentVersion],
    next: Option<Cursor>,
) -> NextStep {
    if let Some(offered) = stepped_back_from(position) {
        return after_the_edge(position, entries, documents, next, offered);
    }
    let Some(next) = next else {
        // The last page may lack `next`: its last document's own text stands for it.
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
    go_on(position, entries, documents, next)
}

/// The `next` that the vendor offered and we have not taken yet: we asked from before
/// the edge of the last page instead.
fn stepped_back_from(position: &Position) -> Option<&Cursor> {
    let offered = position.previous_next.as_ref()?;
    (position.from.as_ref() != Some(offered)).then_some(offered)
}

/// A page that leads on: the next one is asked for from before its edge.
fn go_on(
    position: &Position,
    entries: usize,
    documents: &[DocumentVersion],
    next: Cursor,
) -> NextStep {
    let next_from = edge(documents, &next).filter(|edge| position.from.as_ref() != Some(edge));
    NextStep {
        next_from: Some(next_from.unwrap_or_else(|| next.clone())),
        // Such a page has no edge to go back to, and `next` may pass the rest of the group.
        gap: entries >= FULL_PAGE && of_one_moment(&next, documents),
        cursor: Some(next),
        end: PageEnd::More,
    }
}

/// A page asked for from before the edge of the last one, whose `next` was `offered`.
///
/// Where it leads past `offered`, the run goes on from it. Where it does not, the run
/// goes on from `offered` itself: that we stepped back proves nothing about the queue's
/// end. Such a page may end before `offered` when documents of that group became visible
/// meanwhile, or when pages differ in size; and one that was not cut within the group may
/// still have been ended there by a vendor whose pages grow to hold a group.
fn after_the_edge(
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
            return go_on(position, entries, documents, next);
        }
        // The group fills pages of this size: `offered` may pass the rest of it.
        Some(next) => {
            next == *offered
                && entries >= position.previous_entries
                && of_one_moment(&next, documents)
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

/// Whether all documents share the moment that `next` names.
fn of_one_moment(next: &Cursor, documents: &[DocumentVersion]) -> bool {
    documents.iter().all(|document| names(next, document))
}

/// Whether `next` names the moment of this document's version, also where the vendor
/// writes the two in different forms.
fn names(next: &Cursor, document: &DocumentVersion) -> bool {
    document.version == next.as_str()
        || document
            .version_time()
            .is_some_and(|version| Timestamp::parse(next.as_str()) == Some(version))
}

/// The newest version in the page before its last group of equal ones, where `next`
/// names the moment of that group.
///
/// Going on from there asks for the whole group again: documents of it that the page's
/// end cut off are not lost where `from` is exclusive.
fn edge(documents: &[DocumentVersion], next: &Cursor) -> Option<Cursor> {
    let last = documents.last()?;
    if !names(next, last) {
        return None;
    }
    let before = documents
        .iter()
        .rev()
        .find(|document| document.version != last.version)?;
    (!before.version.is_empty()).then(|| Cursor::new(before.version.clone()))
}

/// Whether `next` stays where it was though the queue goes on: documents newer than it,
/// or a whole page of documents that share its moment.
fn stuck(next: &Cursor, documents: &[DocumentVersion]) -> bool {
    let newer = documents
        .iter()
        .filter_map(DocumentVersion::version_time)
        .max()
        .zip(Timestamp::parse(next.as_str()))
        .is_some_and(|(newest, next)| newest > next);
    let ties = documents
        .iter()
        .filter(|document| names(next, document))
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
                body: Vec::new(),
            })
            .collect()
    }

    fn judge(
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
        let step = judge(Some(T1), None, &[T1, T2], None);
        assert_eq!(
            (step.end, step.cursor),
            (PageEnd::UpToDate, Some(Cursor::new(T2)))
        );
    }

    #[test]
    fn an_empty_page_ends_the_pull() {
        assert_eq!(judge(Some(T1), None, &[], Some(T1)).end, PageEnd::UpToDate);
        assert_eq!(judge(Some(T1), None, &[], None).cursor, None);
    }

    #[test]
    fn next_equal_to_from_ends_the_pull() {
        let step = judge(Some(T2), None, &[T2], Some(T2));
        assert_eq!((step.end, step.gap), (PageEnd::UpToDate, false));
    }

    #[test]
    fn a_stuck_next_with_newer_documents_is_a_gap() {
        let step = judge(Some(T1), None, &[T2, T3], Some(T1));
        assert_eq!((step.end, step.gap), (PageEnd::UpToDate, true));
    }

    #[test]
    fn a_full_page_of_one_moment_that_leads_nowhere_is_a_gap() {
        assert!(judge(Some(T1), None, &[T1; 100], Some(T1)).gap);
        assert!(!judge(Some(T1), None, &[T1; 3], Some(T1)).gap);
    }

    #[test]
    fn the_next_request_repeats_the_last_group_of_equal_moments() {
        let step = judge(None, None, &[T1, T2, T3, T3], Some(T3));
        assert_eq!(
            (step.next_from, step.cursor),
            (Some(Cursor::new(T2)), Some(Cursor::new(T3)))
        );
    }

    #[test]
    fn a_short_page_from_before_the_edge_is_passed_by_next() {
        let step = judge(Some(T2), Some((T3, 4)), &[T3, T3], Some(T3));
        assert_eq!(
            (step.end, step.gap, step.next_from),
            (PageEnd::More, false, Some(Cursor::new(T3)))
        );
    }

    #[test]
    fn a_full_page_of_one_moment_is_a_gap_even_if_next_moves() {
        assert!(judge(None, None, &[T1; 100], Some(T1)).gap);
        assert!(!judge(None, None, &[T1; 99], Some(T1)).gap);
    }

    #[test]
    fn a_group_larger_than_a_page_is_passed_by_next_and_logged() {
        let step = judge(Some(T2), Some((T3, 4)), &[T3; 4], Some(T3));
        assert_eq!(
            (step.end, step.gap, step.next_from),
            (PageEnd::More, true, Some(Cursor::new(T3)))
        );
    }

    #[test]
    fn a_next_in_another_notation_of_the_moment_has_an_edge_too() {
        let local = "2026-01-01T02:00:02.000+02:00";
        let step = judge(None, None, &[T1, T2], Some(local));
        assert_eq!(
            (step.next_from, step.cursor),
            (Some(Cursor::new(T1)), Some(Cursor::new(local)))
        );
    }

    #[test]
    fn a_page_from_before_the_edge_that_ends_before_it_ends_nothing() {
        // Pages of 100 and then 98, or documents of T2 that became visible meanwhile.
        for next in [Some(T2), Some(T1), None] {
            let entries: &[&str] = if next.is_some() { &[T2, T2] } else { &[] };
            let step = judge(Some(T2), Some((T3, 3)), entries, next);
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
    fn a_last_page_from_before_the_edge_never_moves_the_cursor_back() {
        let step = judge(Some(T1), Some((T3, 3)), &[T2], None);
        assert_eq!(
            (step.end, step.cursor),
            (PageEnd::UpToDate, Some(Cursor::new(T3)))
        );
        let step = judge(Some(T1), Some((T2, 3)), &[T2, T3], None);
        assert_eq!(
            (step.end, step.cursor),
            (PageEnd::UpToDate, Some(Cursor::new(T3)))
        );
    }

    #[test]
    fn an_opaque_next_is_sent_back_as_it_is() {
        let step = judge(None, None, &[T1, T2], Some("b2s="));
        assert_eq!(
            (step.next_from, step.cursor),
            (Some(Cursor::new("b2s=")), Some(Cursor::new("b2s=")))
        );
    }

    #[test]
    fn a_next_that_moves_back_ends_the_pull_and_keeps_the_cursor() {
        let step = judge(Some(T3), Some((T3, 1)), &[T1], Some(T2));
        assert_eq!(
            (step.end, step.gap, step.cursor),
            (PageEnd::UpToDate, true, Some(Cursor::new(T3)))
        );
    }
}
