//! Paging, in each way that the vendor's documentation leaves open.

use ivesk_webhook::pull::PullOutcome;

use crate::support::puller::{
    Bench, COMPANY, assert_everything_arrives, exported, hours, minutes, seconds,
};

#[tokio::test]
async fn u11_all_arrives_with_or_without_next_on_the_last_page() {
    assert_everything_arrives("last_page_next=present,page_size=3").await;
    assert_everything_arrives("last_page_next=absent,page_size=3").await;
}

#[tokio::test]
async fn u11_a_last_page_without_next_is_not_downloaded_again() {
    let bench = Bench::caught_up("last_page_next=absent").await;
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

#[tokio::test]
async fn u14_250_documents_of_one_moment_arrive_where_pages_grow() {
    for from in ["inclusive", "exclusive"] {
        let bench = Bench::caught_up(&format!(
            "from={from},page_edge=whole,page_size=100,ties=250"
        ))
        .await;
        bench.control.reset_requests();
        bench.export(COMPANY, 250).await;
        bench.settle().await;
        bench.assert_complete(&exported(COMPANY)).await;
        assert_eq!(bench.documents().await.len(), 250, "{from}");
        assert!(bench.requests() <= 3, "{from}: {}", bench.requests());
    }
}

#[tokio::test]
async fn u14_250_documents_of_one_moment_cut_by_pages_leave_a_gap() {
    for from in ["inclusive", "exclusive"] {
        for earlier in [0, 30] {
            let bench = Bench::new(&format!("from={from},page_edge=split,page_size=100")).await;
            if earlier > 0 {
                bench.export_unannounced(COMPANY, earlier);
                bench.clock.advance(minutes(1));
            }
            bench.settle().await;
            bench.control.reset_requests();
            bench.switch("ties=250");
            bench.export(COMPANY, 250).await;
            bench.settle().await;
            let row = bench.feed(&exported(COMPANY)).await;
            assert!(row.gaps > 0, "{from} after {earlier}: {row:?}");
            assert!(bench.requests() <= 5, "{from}: {}", bench.requests());
            assert!(row.documents >= 100, "{row:?}");
            // The feed is pulled no more often than others.
            bench.control.reset_requests();
            bench.run_for(hours(1)).await;
            assert!(bench.requests() <= 20, "{from}: {}", bench.requests());
        }
    }
}

#[tokio::test]
async fn u15_a_stuck_next_stops_the_pull_and_loses_nothing_later() {
    for from in ["inclusive", "exclusive"] {
        let bench = Bench::new(&format!("from={from},page_size=10")).await;
        bench.export_unannounced(COMPANY, 5);
        bench.settle().await;
        bench.switch("stuck_next=on");
        bench.control.reset_requests();
        bench.clock.advance(minutes(1));
        bench.export(COMPANY, 40).await;
        bench.settle().await;
        let row = bench.feed(&exported(COMPANY)).await;
        assert!(row.gaps > 0, "{from}: {row:?}");
        assert!(bench.requests() <= 3, "{from}: {}", bench.requests());
        bench.run_for(hours(3)).await;
        assert!(bench.requests() <= 30, "{from}: {}", bench.requests());

        bench.switch("stuck_next=off");
        bench.run_for(hours(1)).await;
        bench.assert_complete(&exported(COMPANY)).await;
    }
}
