//! How often the vendor is asked: under floods of notifications, and after failures.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ivesk_webhook::emulator::{DEFAULT_KEY, Fault};
use ivesk_webhook::store::{Trigger, TriggerKind};

use crate::support::puller::{Bench, COMPANY, account_settings, company, exported, hours, seconds};

#[tokio::test]
async fn sixty_thousand_notifications_are_a_pull_a_second() {
    const TICKS: usize = 1_000;
    let bench = Bench::with("", |config| config.pull.min_interval = seconds(1)).await;
    bench.settle().await;
    bench.control.reset_requests();
    for tick in 0..TICKS {
        bench.clock.advance(Duration::from_millis(100));
        if tick + 1 == TICKS {
            bench.export_unannounced(COMPANY, 3);
        }
        let trigger = Trigger {
            feed: exported(COMPANY),
            kind: TriggerKind::Notification,
            due_at: bench.clock.now(),
            from: None,
        };
        let stored = bench.store().trigger(vec![trigger; 60_000 / TICKS]).await;
        stored.expect("the triggers are stored");
        bench.settle().await;
    }
    let requests = bench.requests();
    eprintln!("60,000 notifications of one company in 100 s: {requests} requests");
    assert!((95..=110).contains(&requests), "{requests}");
    // The last one was not dropped.
    bench.run_for(seconds(2)).await;
    bench.assert_complete(&exported(COMPANY)).await;
    bench.run_for(hours(1)).await;
    assert!(bench.requests() <= 125, "{}", bench.requests());
}

#[tokio::test]
async fn eight_requests_that_fail_together_wait_as_one() {
    let codes: Vec<String> = (0..8).map(|n| format!("7{n:08}")).collect();
    let bench = Bench::with("", |config| {
        config.pull.requests_per_account = 8;
        account_settings(config).companies = codes.iter().map(|code| company(code)).collect();
    })
    .await;
    let names: Vec<&str> = codes.iter().map(String::as_str).collect();
    bench.control.add_account(DEFAULT_KEY, &names);
    bench.settle().await;
    bench.control.reset_requests();
    bench.fault(Fault::status(429));
    for code in &codes {
        bench.export(code, 1).await;
    }
    for _ in 0..8 {
        let pullers = (0..8).map(|_| Arc::clone(bench.puller()));
        let pulls = pullers.map(|puller| async move { puller.pull_page().await });
        for step in join_all(pulls).await {
            step.expect("the store works");
        }
        bench.clock.advance(seconds(1));
    }
    assert!(bench.account().await.failures <= 2);
    bench.control.clear_faults();
    bench.run_for(seconds(12)).await;
    for code in &codes {
        bench.assert_complete(&exported(code)).await;
    }
}
