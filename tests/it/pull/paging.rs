//! Paging, in each way that the vendor's documentation leaves open.

use ivesk_webhook::pull::PullOutcome;
use ivesk_webhook::store::{GapFilter, IncompleteReason};

use crate::support::puller::{
    Bench, COMPANY, assert_everything_arrives, documents, exported, hours, minutes, seconds, settle,
};

#[tokio::test]
async fn u11_all_arrives_with_or_without_next_on_the_last_page() {
    assert_everything_arrives("last_page_next=present,page_size=3").await;
    assert_everything_arrives("last_page_next=absent,page_size=3").await;
}

#[tokio::test]
async fn u11_a_last_page_without_next_is_not_downloaded_again() {
    let bench = Bench::caught_up("last_page_next=absent,page_size=30").await;
    bench.export(COMPANY, 40).await;
    bench.settle().await;
    bench.control.reset_requests();
    bench.clock.advance(seconds(5));
    bench.export(COMPANY, 1).await;
    let steps = bench.settle().await;
    let Some(PullOutcome::Page { committed, .. }) = steps.first() else {
        panic!("{steps:?}");
    };
    assert_eq!((committed.new, committed.known), (1, 0));
}

#[tokio::test]
async fn u13_all_arrives_whether_from_is_inclusive_or_exclusive() {
    for edge in ["whole", "split"] {
        assert_everything_arrives(&format!("from=inclusive,page_size=3,page_edge={edge}")).await;
        assert_everything_arrives(&format!("from=exclusive,page_size=3,page_edge={edge}")).await;
    }
}

#[tokio::test]
async fn u14_ties_across_a_pages_edge_all_arrive_whole_or_split() {
    for from in ["inclusive", "exclusive"] {
        for last in ["present", "absent"] {
            for edge in ["whole", "split"] {
                let paging = format!("from={from},last_page_next={last},page_edge={edge}");
                assert_everything_arrives(&format!("{paging},ties=3,page_size=4")).await;
            }
        }
    }
}

#[tokio::test]
async fn u14_documents_after_an_oversized_group_are_found() {
    // The page that holds the group is longer than the one that begins with it, though more
    // follows: a page's length proves nothing.
    let bench = Bench::new("page_size=3,page_edge=whole").await;
    bench.switch("ties=1");
    bench.export_unannounced(COMPANY, 2);
    bench.clock.advance(seconds(1));
    bench.switch("ties=5");
    bench.export_unannounced(COMPANY, 5);
    bench.clock.advance(seconds(1));
    bench.switch("ties=1");
    bench.export_unannounced(COMPANY, 4);
    bench.settle().await;
    bench.assert_complete(&exported(COMPANY)).await;
    bench.clock.advance(seconds(1));
    bench.export_unannounced(COMPANY, 1);
    bench.run_for(hours(1)).await;
    bench.assert_complete(&exported(COMPANY)).await;
}

/// Exports one document later than all others, announced; asserts that it arrives.
async fn assert_later_ones_arrive(bench: &Bench) {
    bench.switch("ties=1");
    bench.clock.advance(minutes(1));
    let later = bench.control.export(COMPANY, 1).expect("exported");
    bench.notify(COMPANY).await;
    bench.settle().await;
    let stored = bench.stored(&exported(COMPANY)).await;
    assert!(stored.iter().any(|(id, _)| *id == later[0].0), "{later:?}");
}

#[tokio::test]
async fn u14_250_documents_of_one_moment_arrive_where_pages_grow() {
    for from in ["inclusive", "exclusive"] {
        let switches = format!("from={from},page_edge=whole,page_size=100,ties=250");
        let bench = Bench::caught_up(&switches).await;
        bench.control.reset_requests();
        bench.export(COMPANY, 250).await;
        bench.settle().await;
        bench.assert_complete(&exported(COMPANY)).await;
        assert_eq!(bench.documents().await.len(), 250, "{from}");
        assert!(bench.requests() <= 3, "{from}: {}", bench.requests());
        // How many documents a page may have is not known yet.
        let row = bench.feed(&exported(COMPANY)).await;
        assert_eq!(row.incomplete, Some(IncompleteReason::PageSizeUnknown));
        assert_later_ones_arrive(&bench).await;
        bench.assert_complete(&exported(COMPANY)).await;
    }
}

#[tokio::test]
async fn u14_a_group_larger_than_a_page_is_a_gap_and_later_ones_arrive() {
    for (from, page_size, ties) in [
        ("inclusive", 99, 120),
        ("inclusive", 99, 150),
        ("exclusive", 50, 60),
        ("inclusive", 100, 280),
        ("exclusive", 100, 250),
        ("exclusive", 10, 30),
    ] {
        for earlier in [0, 30] {
            let case = format!("{from}, {ties} on pages of {page_size}, after {earlier}");
            let switches = format!("from={from},page_edge=split,page_size={page_size}");
            let bench = Bench::new(&switches).await;
            if earlier > 0 {
                bench.export_unannounced(COMPANY, earlier);
                bench.clock.advance(minutes(1));
            }
            bench.control.reset_requests();
            bench.switch(&format!("ties={ties}"));
            bench.export(COMPANY, ties).await;
            bench.settle().await;
            let row = bench.feed(&exported(COMPANY)).await;
            assert!(row.gaps > 0 && row.incomplete.is_some(), "{case}: {row:?}");
            assert_eq!(
                (row.up_to_date_at, row.first_complete_at),
                (None, None),
                "{case}"
            );
            assert!(row.pulled_at.is_some(), "{case}");
            assert!(bench.requests() <= 14, "{case}: {}", bench.requests());
            assert_later_ones_arrive(&bench).await;
            let row = bench.feed(&exported(COMPANY)).await;
            assert_eq!(row.incomplete, Some(IncompleteReason::GroupCut), "{case}");
            // The feed is pulled no more often than others.
            bench.control.reset_requests();
            bench.run_for(hours(1)).await;
            assert!(bench.requests() <= 40, "{case}: {}", bench.requests());
        }
    }
}

#[tokio::test]
async fn a_larger_page_proves_a_group_that_may_have_been_cut() {
    let bench = Bench::new("from=exclusive,page_edge=split,page_size=100,ties=30").await;
    bench.export(COMPANY, 30).await;
    bench.settle().await;
    let row = bench.feed(&exported(COMPANY)).await;
    assert_eq!(row.incomplete, Some(IncompleteReason::PageSizeUnknown));
    assert_eq!(row.up_to_date_at, None);
    bench.switch("ties=1");
    bench.clock.advance(minutes(1));
    bench.export(COMPANY, 31).await;
    bench.run_for(hours(2)).await;
    let row = bench.feed(&exported(COMPANY)).await;
    assert_eq!((row.incomplete, row.gaps), (None, 0));
    assert!(row.up_to_date_at.is_some() && row.first_complete_at.is_some());
    bench.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn a_dismissed_gap_is_not_found_again() {
    let bench = Bench::new("from=exclusive,page_edge=split,page_size=50,ties=60").await;
    bench.export(COMPANY, 60).await;
    bench.settle().await;
    assert_later_ones_arrive(&bench).await;
    let open = |closed| GapFilter {
        closed,
        after: 0,
        limit: 10,
    };
    let gaps = bench.store().gaps(open(false)).await.expect("gaps");
    let [gap] = gaps.as_slice() else {
        panic!("{gaps:?}");
    };
    assert_eq!(gap.reason, IncompleteReason::GroupCut);
    let dismiss = || {
        bench
            .store()
            .dismiss_gap(gap.id, "user:1".to_owned(), bench.clock.now())
    };
    assert!(dismiss().await.expect("dismissed"));
    assert!(!dismiss().await.expect("answered"), "it is closed already");
    bench.run_for(hours(3)).await;
    let row = bench.feed(&exported(COMPANY)).await;
    assert_eq!((row.incomplete, row.gaps), (None, 0), "{row:?}");
    assert!(row.up_to_date_at.is_some());
    let gaps = bench.store().gaps(open(true)).await.expect("gaps");
    assert!(gaps.iter().all(|gap| gap.closed_at.is_some()), "{gaps:?}");
    let by: Vec<_> = gaps
        .iter()
        .filter_map(|gap| gap.dismissed_by.as_deref())
        .collect();
    assert_eq!(by, ["user:1"]);
}

#[tokio::test]
async fn u15_a_stuck_next_stops_the_pull_and_loses_nothing_later() {
    for from in ["inclusive", "exclusive"] {
        let bench = Bench::new(&format!("from={from},page_size=10")).await;
        bench.export_unannounced(COMPANY, 5);
        bench.settle().await;
        bench.switch("stuck_next=on");
        bench.clock.advance(minutes(1));
        bench.export(COMPANY, 40).await;
        bench.settle().await;
        let row = bench.feed(&exported(COMPANY)).await;
        assert_eq!(row.incomplete, Some(IncompleteReason::NextStuck), "{from}");
        bench.control.reset_requests();
        bench.run_for(hours(3)).await;
        assert!(bench.requests() <= 120, "{from}: {}", bench.requests());
        assert_later_ones_arrive(&bench).await;

        bench.switch("stuck_next=off");
        bench.run_for(hours(2)).await;
        bench.assert_complete(&exported(COMPANY)).await;
        let row = bench.feed(&exported(COMPANY)).await;
        assert_eq!((row.incomplete, row.gaps), (None, 0), "{from}");
    }
}

#[tokio::test]
async fn a_low_disk_stops_pulling_until_there_is_room() {
    let bench = Bench::caught_up("").await;
    let (faults, store, puller) = bench.reopen_with_faults().await;
    let minimum = bench.config.store.min_free_bytes;
    faults.set_free_bytes(minimum - 1);
    bench.export_unannounced(COMPANY, 3);
    bench.clock.advance(hours(2));
    bench.control.reset_requests();
    assert!(settle(&puller).await.is_empty());
    assert_eq!(bench.requests(), 0);
    faults.set_free_bytes(minimum);
    assert!(!settle(&puller).await.is_empty());
    assert_eq!(documents(&store).await.len(), 3);
    store.close().await.expect("closed");
}
