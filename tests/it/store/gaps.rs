//! Gaps of feeds: found, extended, closed by a pull, dismissed by a person.

use ivesk_webhook::domain::Cursor;
use ivesk_webhook::store::{
    FoundGap, GapFilter, GapRow, Group, IncompleteReason, PageCommitted, PageEnd, PageOutcome,
    PageToCommit, PullEnd, PullProgress, TriggerKind, UnreadableEntry,
};

use super::test_store::{HOUR, TestStore, company, last_page, page};
use crate::support::databases::{Database, on_both_stores};

on_both_stores! {
    a_gap_is_open_until_a_later_pull_reads_over_it,
    overlapping_gaps_are_one_row,
    a_dismissed_gap_vouches_for_the_page_size,
    an_unreadable_entry_is_a_gap_until_it_is_dismissed,
    an_unreadable_entry_that_is_read_again_stays_a_gap,
    an_unreadable_entry_without_room_is_a_gap_too,
    a_larger_page_lets_a_read_begin_before_an_old_gap,
    another_trigger_continues_a_first_read_as_it_was,
    a_first_read_that_another_ended_counts_from_its_start,
    a_stuck_opaque_cursor_makes_the_feed_failing,
    what_a_pull_has_seen_survives_a_restart,
    closed_gaps_are_bounded,
}

fn gap(from: Option<&str>, to: Option<&str>, reason: IncompleteReason) -> FoundGap {
    FoundGap {
        from: from.map(Cursor::new),
        to: to.map(Cursor::new),
        reason,
        entries: 30,
    }
}

/// Returns a last page, without documents, at which these gaps were found.
fn page_with(gaps: Vec<FoundGap>) -> PageToCommit {
    PageToCommit {
        gaps,
        ..last_page(&[], Some(T3))
    }
}

const T1: &str = "2026-09-21T14:00:01Z";
const T2: &str = "2026-09-21T14:00:02Z";
const T3: &str = "2026-09-21T14:00:03Z";
const T4: &str = "2026-09-21T14:00:04Z";

use IncompleteReason::{GroupCut, NextStuck, PageSizeUnknown};

async fn gaps(test: &TestStore, closed: bool) -> Vec<GapRow> {
    let filter = GapFilter {
        closed,
        after: 0,
        limit: 1_000,
    };
    test.store.gaps(filter).await.expect("readable")
}

fn committed(outcome: PageOutcome) -> PageCommitted {
    match outcome {
        PageOutcome::Committed(committed) => committed,
        PageOutcome::CompanyDoubted(_) => panic!("{outcome:?}"),
    }
}

async fn a_gap_is_open_until_a_later_pull_reads_over_it(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    let found = gap(Some(T1), Some(T2), GroupCut);
    let outcome = committed(test.pull(&feed, page_with(vec![found])).await);
    assert_eq!(outcome.ended, Some(PullEnd::Incomplete(GroupCut)));
    assert_eq!(outcome.new_gaps, 1);
    let row = test.feed(&feed).await;
    assert_eq!((row.gaps, row.incomplete), (1, Some(GroupCut)));
    assert_eq!(row.incomplete_since, Some(test.clock.now()));
    assert_eq!((row.up_to_date_at, row.first_complete_at), (None, None));
    assert_eq!(row.pulled_at, Some(test.clock.now()));

    // It begins after the gap.
    let outcome = committed(test.pull(&feed, last_page(&[], Some(T3))).await);
    assert_eq!(outcome.ended, Some(PullEnd::Incomplete(GroupCut)));
    assert_eq!(test.feed(&feed).await.up_to_date_at, None);

    // The next overlap read begins at the beginning.
    test.clock.advance(HOUR);
    let kinds = test.drain().await;
    assert!(kinds.contains(&TriggerKind::FollowUp), "{kinds:?}");
    let row = test.feed(&feed).await;
    assert_eq!((row.gaps, row.incomplete), (0, None));
    assert!(row.up_to_date_at.is_some() && row.first_complete_at.is_some());
    assert!(gaps(&test, false).await.is_empty());
    let closed = gaps(&test, true).await;
    assert_eq!((closed.len(), closed[0].dismissed_by.as_deref()), (1, None));
    assert_eq!(closed[0].feed, feed);
}

async fn overlapping_gaps_are_one_row(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    let found = vec![
        gap(Some(T1), Some(T2), GroupCut),
        gap(Some(T3), Some(T4), GroupCut),
        gap(Some(T2), Some(T3), GroupCut),
        gap(None, Some(T1), NextStuck),
    ];
    let outcome = committed(test.pull(&feed, page_with(found)).await);
    assert_eq!(outcome.new_gaps, 3);
    let open = gaps(&test, false).await;
    let stretches: Vec<_> = open
        .iter()
        .map(|gap| (gap.from.clone(), gap.to.clone(), gap.reason))
        .collect();
    assert_eq!(
        stretches,
        [
            (Some(Cursor::new(T1)), Some(Cursor::new(T4)), GroupCut),
            (None, Some(Cursor::new(T1)), NextStuck),
        ]
    );
}

async fn a_dismissed_gap_vouches_for_the_page_size(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    let documents: Vec<_> = (0..30).map(|n| (n.to_string(), T2)).collect();
    let documents: Vec<_> = documents
        .iter()
        .map(|(id, at)| (id.as_str(), *at))
        .collect();
    let found = PageToCommit {
        gaps: vec![gap(None, Some(T2), PageSizeUnknown)],
        ..last_page(&documents, Some(T2))
    };
    test.pull(&feed, found.clone()).await;
    let open = gaps(&test, false).await;
    let dismiss = |id| {
        let by = "user:1".to_owned();
        test.store.dismiss_gap(id, by, test.clock.now())
    };
    assert!(!dismiss(open[0].id + 1).await.expect("answered"));
    assert!(dismiss(open[0].id).await.expect("dismissed"));
    // It is due for a pull, and a page of 30 is known not to be full.
    let lease = test.lease().await.expect("due at once");
    assert_eq!(lease.largest_page, Some(31));
    let outcome = test.commit(lease, found).await.expect("stored");
    assert_eq!(committed(outcome).ended, Some(PullEnd::Complete));
    assert!(test.feed(&feed).await.up_to_date_at.is_some());
    let all = gaps(&test, true).await;
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].dismissed_by.as_deref(), Some("user:1"));
}

async fn an_unreadable_entry_is_a_gap_until_it_is_dismissed(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    let unreadable = || PageToCommit {
        unreadable: vec![UnreadableEntry {
            dedup_key: b"7".to_vec(),
            body: b"7".as_slice().into(),
        }],
        ..last_page(&[("a", T1)], Some(T1))
    };
    let incomplete = Some(PullEnd::Incomplete(IncompleteReason::UnreadableEntry));
    for _ in 0..2 {
        let outcome = committed(test.pull(&feed, unreadable()).await);
        assert_eq!(outcome.ended, incomplete);
    }
    let open = gaps(&test, false).await;
    assert_eq!(open.len(), 1, "{open:?}");
    let by = "user:1".to_owned();
    let dismissed = test.store.dismiss_gap(open[0].id, by, test.clock.now());
    assert!(dismissed.await.expect("dismissed"));
    let outcome = committed(test.pull(&feed, unreadable()).await);
    assert_eq!(outcome.ended, Some(PullEnd::Complete), "it is known");
}

async fn a_stuck_opaque_cursor_makes_the_feed_failing(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    let stuck = PageToCommit {
        gaps: vec![gap(Some("b2s="), None, NextStuck)],
        end: PageEnd::Stopped { failing: true },
        ..page(&[("a", T1)], "b2s=")
    };
    let outcome = committed(test.pull(&feed, stuck).await);
    assert_eq!(outcome.ended, Some(PullEnd::Incomplete(NextStuck)));
    let row = test.feed(&feed).await;
    assert_eq!((row.failures, row.documents), (1, 1));
    let error = row.last_error.clone().expect("an error");
    assert!(error.contains("`next`"), "{error}");
    // The next good page ends it.
    test.pull(&feed, last_page(&[], Some("b2s="))).await;
    let row = test.feed(&feed).await;
    assert_eq!((row.failures, row.last_error), (0, None));
}

async fn what_a_pull_has_seen_survives_a_restart(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    let mut first = page(&[("a", T1), ("b", T2)], T2);
    first.progress.largest_page = 2;
    first.progress.stepped = true;
    let progress = first.progress.clone();
    test.pull(&feed, first).await;
    let test = test.reopen().await;
    let lease = test.lease().await.expect("the next page");
    let seen = &lease.position.progress;
    assert_eq!((seen.largest_page, seen.stepped), (2, true));
    let began = seen.began.as_ref().expect("it began");
    assert_eq!((began.from.as_ref(), began.fence), (None, lease.fence - 1));
    assert_eq!(progress.began, None, "the store sets it");
    assert_eq!(lease.largest_page, Some(2));
}

async fn closed_gaps_are_bounded(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    for number in 0..103 {
        let at = format!("token-{number}");
        let found = vec![gap(Some(&at), None, NextStuck)];
        test.pull(&feed, page_with(found)).await;
        let open = gaps(&test, false).await;
        let by = "user:1".to_owned();
        let dismissed = test.store.dismiss_gap(open[0].id, by, test.clock.now());
        assert!(dismissed.await.expect("dismissed"));
    }
    assert!(gaps(&test, true).await.len() <= 101);
}

async fn an_unreadable_entry_without_room_is_a_gap_too(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    let page = |entries: std::ops::Range<usize>| PageToCommit {
        unreadable: entries
            .map(|number| UnreadableEntry {
                dedup_key: number.to_string().into_bytes(),
                body: number.to_string().into(),
            })
            .collect(),
        ..last_page(&[], Some(T1))
    };
    test.pull(&feed, page(0..1_000)).await;
    let open = gaps(&test, false).await;
    let by = "user:1".to_owned();
    let dismissed = test.store.dismiss_gap(open[0].id, by, test.clock.now());
    assert!(dismissed.await.expect("dismissed"));
    let outcome = committed(test.pull(&feed, page(0..1_000)).await);
    assert_eq!(outcome.ended, Some(PullEnd::Complete), "they are known");
    let outcome = committed(test.pull(&feed, page(1_000..1_001)).await);
    let incomplete = PullEnd::Incomplete(IncompleteReason::UnreadableEntry);
    assert_eq!(outcome.ended, Some(incomplete));
}

async fn another_trigger_continues_a_first_read_as_it_was(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    let registered = test
        .store
        .register_feeds(vec![feed.clone()], test.clock.now());
    registered.await.expect("stored");
    let lease = test.lease().await.expect("due");
    assert_eq!(lease.kind, TriggerKind::Reconciliation);
    let group = Group {
        at: Cursor::new(T2),
        before: None,
        entries: 100,
    };
    let page = PageToCommit {
        cursor: Some(Cursor::new(T2)),
        next_from: Some(Cursor::new(T2)),
        progress: PullProgress {
            group: Some(group.clone()),
            ..PullProgress::default()
        },
        end: PageEnd::More,
        ..page(&[("a", T2)], T2)
    };
    test.commit(lease, page).await.expect("stored");
    test.trigger(&feed, TriggerKind::Notification).await;
    let lease = test.lease().await.expect("due");
    assert_eq!(lease.kind, TriggerKind::Notification);
    assert_eq!(lease.position.progress.group, Some(group));
}

async fn a_first_read_that_another_ended_counts_from_its_start(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    let registered = test
        .store
        .register_feeds(vec![feed.clone()], test.clock.now());
    registered.await.expect("stored");
    let lease = test.lease().await.expect("due");
    let first = page(&[("a", T2)], T2);
    test.commit(lease, first).await.expect("stored");
    // Its first page was read longer ago than the lookback.
    test.clock.advance(30 * HOUR);
    test.trigger(&feed, TriggerKind::FollowUp).await;
    let lease = test.lease().await.expect("due");
    assert_eq!(lease.position.from, Some(Cursor::new(T2)), "it goes on");
    let last = last_page(&[("b", T3)], Some(T3));
    test.commit(lease, last).await.expect("stored");

    test.trigger(&feed, TriggerKind::LateFollowUp).await;
    let lease = test.lease().await.expect("due");
    assert_eq!(lease.kind, TriggerKind::LateFollowUp);
    let late = "versions that were listed since the first page are before its cursor";
    assert_eq!(lease.position.from, None, "{late}");
}

async fn an_unreadable_entry_that_is_read_again_stays_a_gap(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    let page = |keys: &[&str]| PageToCommit {
        unreadable: keys
            .iter()
            .map(|key| UnreadableEntry {
                dedup_key: key.as_bytes().to_vec(),
                body: (*key).to_owned().into(),
            })
            .collect(),
        ..last_page(&[("a", T1)], Some(T1))
    };
    test.pull(&feed, page(&["7"])).await;
    let incomplete = PullEnd::Incomplete(IncompleteReason::UnreadableEntry);
    for (keys, ended) in [(&["7"][..], incomplete), (&[][..], PullEnd::Complete)] {
        let lease = test.lease().await.expect("an overlap read is due");
        assert_eq!(lease.position.from, None, "it reads over the gap");
        let outcome = test.commit(lease, page(keys)).await.expect("stored");
        assert_eq!(committed(outcome).ended, Some(ended));
        test.clock.advance(HOUR);
    }
}

async fn a_larger_page_lets_a_read_begin_before_an_old_gap(database: Database) {
    let test = TestStore::new(database).await;
    let feed = company("1");
    let found = || page_with(vec![gap(Some(T1), Some(T2), GroupCut)]);
    test.pull(&feed, found()).await;
    for _ in 0..2 {
        // Whatever reads over it finds it again.
        while let Some(lease) = test.lease().await {
            test.commit(lease, found()).await.expect("stored");
        }
        test.clock.advance(50 * HOUR);
    }
    let lease = test.lease().await.expect("a reconciliation is due");
    let from = lease.position.from.clone();
    assert_eq!(from, Some(Cursor::new(T3)), "a day before the last read");
    // A page larger than the group.
    let ids: Vec<String> = (0..31).map(|number| number.to_string()).collect();
    let documents: Vec<_> = ids.iter().map(|id| (id.as_str(), T3)).collect();
    let page = last_page(&documents, Some(T3));
    test.commit(lease, page).await.expect("stored");
    test.clock.advance(HOUR);
    let lease = test.lease().await.expect("a reconciliation is due");
    assert_eq!(lease.position.from, Some(Cursor::new(T1)));
    let outcome = test.commit(lease, last_page(&[], Some(T3))).await;
    let outcome = committed(outcome.expect("stored"));
    assert_eq!(outcome.ended, Some(PullEnd::Complete), "it is proven");
}
