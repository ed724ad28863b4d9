//! What the log and the metrics tell of pulling.

use std::sync::Arc;

use ivesk_webhook::emulator::Fault;
use ivesk_webhook::metrics::{Metrics, StoreSnapshot, TextFormat};
use ivesk_webhook::pull::Puller;
use serde_json::json;
use tracing::Level;

use crate::support::captured_log::{CapturedLog, in_own_process};
use crate::support::puller::{Bench, COMPANY, exported, hours, settle};

#[tokio::test]
async fn the_log_tells_what_each_page_brought_and_what_lacks() {
    in_own_process!(the_log_tells_what_each_page_brought_and_what_lacks);
    let captured = CapturedLog::new();
    let _guard = tracing::dispatcher::set_default(&captured.subscriber(Level::DEBUG));
    let feed = exported(COMPANY);
    let (missed, gaps) = ("missed notifications: ", "may be missing; see");

    let bench = Bench::caught_up("from=exclusive,page_edge=split,page_size=50").await;
    let log = captured.text();
    assert!(log.contains(&format!("nothing new in `{feed}`")), "{log}");
    assert!(!log.contains("new document versions"), "{log}");

    bench.export(COMPANY, 2).await;
    bench.settle().await;
    let log = captured.text();
    let stored = format!("stored 2 new document versions of `{feed}`");
    assert_eq!(log.matches("new document versions").count(), 1, "{log}");
    assert!(log.contains(&stored), "{log}");
    assert!(!log.contains(missed), "{log}");

    bench.export_unannounced(COMPANY, 3);
    bench.run_for(hours(2)).await;
    let log = captured.text();
    assert_eq!(log.matches(missed).count(), 1, "{log}");
    assert!(log.contains(&format!("{missed}3 documents of `{feed}`")));
    assert!(!log.contains(gaps) && !log.contains("is incomplete"));
    assert!(log.contains("up_to_date=true"), "{log}");
    let before = log.len();

    bench.switch("ties=60");
    bench.export(COMPANY, 60).await;
    bench.settle().await;
    let log = captured.text().split_off(before);
    assert_eq!(log.matches(gaps).count(), 1, "{log}");
    assert!(log.contains(&format!("`{feed}` is incomplete: ")), "{log}");
    assert!(!log.contains("up_to_date=true"), "{log}");
}

#[tokio::test]
async fn each_page_is_counted_by_its_trigger_and_outcome() {
    let bench = Bench::caught_up("").await;
    let metrics = Arc::new(Metrics::new());
    let puller = Puller::new(
        &bench.config,
        Arc::clone(bench.store()),
        bench.clock.clone(),
    );
    let puller = puller.expect("a puller").counted_in(Arc::clone(&metrics));
    let counted = async |outcome: &str| {
        let snapshot = StoreSnapshot::read(bench.store(), bench.clock.now()).await;
        let text = metrics.render(&snapshot.expect("the store"), TextFormat::OpenMetrics);
        let labels = format!("pull_pages_total{{kind=\"notification\",outcome=\"{outcome}\"}} ");
        let line = text.lines().find_map(|line| line.split_once(&labels));
        line.map_or(0, |(_, count)| count.parse().expect("a number"))
    };

    bench.export(COMPANY, 2).await;
    settle(&puller).await;
    assert_eq!(counted("new").await, 1);
    let nothing_new = counted("nothing_new").await;
    bench.notify(COMPANY).await;
    settle(&puller).await;
    assert_eq!(counted("new").await, 1);
    assert!(counted("nothing_new").await > nothing_new);
    assert_eq!(counted("failed").await, 0);

    bench.fault(Fault::status(500).times(1));
    bench.notify(COMPANY).await;
    settle(&puller).await;
    assert_eq!(counted("failed").await, 1);
}

#[tokio::test]
async fn a_low_disk_is_logged_once_when_it_begins_and_ends() {
    in_own_process!(a_low_disk_is_logged_once_when_it_begins_and_ends);
    let captured = CapturedLog::new();
    let _guard = tracing::dispatcher::set_default(&captured.subscriber(Level::INFO));
    let bench = Bench::caught_up("").await;
    let (faults, store, puller) = bench.reopen_with_faults().await;
    let logged = |what| captured.text().matches(what).count();
    for (free_bytes, stopped, continues) in [(1 << 40, 0, 0), (1_000, 1, 0), (1 << 40, 1, 1)] {
        faults.set_free_bytes(free_bytes);
        for _ in 0..3 {
            settle(&puller).await;
        }
        assert_eq!(logged("pulling has stopped"), stopped);
        assert_eq!(logged("pulling continues"), continues);
    }
    assert_eq!(logged("1000 bytes left"), 1, "{}", captured.text());
    store.close().await.expect("closed");
}

#[tokio::test]
async fn the_log_tells_which_entry_of_a_page_was_unreadable() {
    in_own_process!(the_log_tells_which_entry_of_a_page_was_unreadable);
    let captured = CapturedLog::new();
    let _guard = tracing::dispatcher::set_default(&captured.subscriber(Level::WARN));
    let bench = Bench::caught_up("").await;
    let exports = bench.control.export(COMPANY, 3).expect("exported");
    bench.amend(&exports[1].0, json!({ "id": null }));
    bench.notify(COMPANY).await;
    bench.settle().await;
    let log = captured.text();
    assert!(log.contains("stored entry 2 of 3 on a page of "), "{log}");
}
