//! How often the vendor is asked: under floods of notifications, and after failures.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ivesk_webhook::domain::{Feed, Queue};
use ivesk_webhook::emulator::{DEFAULT_KEY, Endpoint, Fault, FaultKind};
use ivesk_webhook::metrics::{Metrics, StoreSnapshot, TextFormat};
use ivesk_webhook::pull::{self, Puller};
use ivesk_webhook::store::{LeaseRequest, Trigger, TriggerKind};
use tokio_util::sync::CancellationToken;

use crate::support::process::within;
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

#[tokio::test]
async fn each_request_that_an_account_may_make_has_a_worker() {
    for (requests, workers) in [(1, 1), (3, 3), (20, 16)] {
        let bench = Bench::with("", |config| config.pull.requests_per_account = requests).await;
        assert_eq!(bench.puller().workers(), workers);
    }
}

/// Returns a puller of the bench's store, and what it counts.
fn counted_puller(bench: &Bench) -> (Arc<Puller>, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    let store = Arc::clone(bench.store());
    let puller = Puller::new(&bench.config, store, bench.clock.clone());
    let puller = puller.expect("a puller").counted_in(Arc::clone(&metrics));
    (Arc::new(puller), metrics)
}

/// Returns how often feeds were leased, or none was due.
async fn leases(bench: &Bench, metrics: &Metrics) -> u64 {
    let snapshot = StoreSnapshot::read(bench.store(), bench.clock.now()).await;
    let text = metrics.render(&snapshot.expect("the store"), TextFormat::OpenMetrics);
    let name = "store_operation_duration_seconds_count{operation=\"lease\"} ";
    let line = text.lines().find_map(|line| line.split_once(name));
    let (_, count) = line.unwrap_or_else(|| panic!("{text}"));
    count.parse().expect("a number")
}

#[tokio::test]
async fn idle_workers_do_not_ask_the_store_again_and_again() {
    let bench = Bench::with("", |config| config.pull.requests_per_account = 4).await;
    bench.settle().await;
    let (puller, metrics) = counted_puller(&bench);
    let leases = async || leases(&bench, &metrics).await;
    let shutdown = CancellationToken::new();
    let pulling = tokio::spawn(pull::run(puller, shutdown.clone()));
    bench.control.reset_requests();
    bench.export(COMPANY, 1).await;
    bench.control.requests_reached(Endpoint::Exported, 1).await;
    let before = leases().await;
    for _ in 0..300 {
        bench.store().feeds().await.expect("readable");
    }
    let asked = leases().await - before;
    assert!(asked <= 20, "{asked}");
    shutdown.cancel();
    pulling.await.expect("the workers end");
    bench.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feeds_that_are_due_together_are_pulled_together() {
    const REQUESTS: u64 = 3;
    let codes: Vec<String> = (0..10).map(|n| format!("7{n:08}")).collect();
    let bench = Bench::with("", |config| {
        config.pull.requests_per_account = u32::try_from(REQUESTS).expect("few");
        account_settings(config).companies = codes.iter().map(|code| company(code)).collect();
    })
    .await;
    let names: Vec<&str> = codes.iter().map(String::as_str).collect();
    bench.control.add_account(DEFAULT_KEY, &names);
    bench.settle().await;
    for code in &codes {
        bench.export_unannounced(code, 1);
    }
    bench.control.reset_requests();
    bench.fault(Fault::new(FaultKind::Hang));
    let (puller, metrics) = counted_puller(&bench);
    let shutdown = CancellationToken::new();
    let pulling = tokio::spawn(pull::run(puller, shutdown.clone()));
    within("idle workers", async {
        while leases(&bench, &metrics).await < REQUESTS {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Stored at once, which wakes one worker.
    let trigger = |code: &String| Trigger {
        feed: exported(code),
        kind: TriggerKind::Notification,
        due_at: bench.clock.now(),
        from: None,
    };
    let stored = bench.store().trigger(codes.iter().map(trigger).collect());
    stored.await.expect("the triggers are stored");
    let (control, all) = (&bench.control, REQUESTS);
    within(
        "requests in flight",
        control.requests_reached(Endpoint::Exported, all),
    )
    .await;
    bench.control.clear_faults();
    shutdown.cancel();
    pulling.await.expect("the workers end");
    bench.settle().await;
    for code in &codes {
        bench.assert_complete(&exported(code)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_worker_learns_what_another_must_wait_for() {
    let bench = Bench::with("", |config| {
        config.pull.requests_per_account = 4;
        config.pull.min_interval = seconds(1);
    })
    .await;
    bench.settle().await;
    let (puller, metrics) = counted_puller(&bench);
    let shutdown = CancellationToken::new();
    let pulling = tokio::spawn(pull::run(puller, shutdown.clone()));
    let until_leases = async |count: u64| {
        while leases(&bench, &metrics).await < count {
            tokio::task::yield_now().await;
        }
    };
    within("idle workers", until_leases(4)).await;
    // The feed has just been pulled, so each notification waits for a second. The worker that is woken
    // has waited the longest, and watches only the first time.
    for announced in 1..=3 {
        let before = leases(&bench, &metrics).await;
        bench.export(COMPANY, 1).await;
        within("a look at it", until_leases(before + 1)).await;
        bench.clock.advance(seconds(2));
        // Sooner than an idle worker reads the rows again by itself.
        let found = tokio::time::timeout(seconds(20), async {
            while bench.documents().await.len() < announced {
                tokio::task::yield_now().await;
            }
        });
        found.await.expect("it was pulled");
        let pulled = leases(&bench, &metrics).await;
        within("idle workers", until_leases(pulled + 1)).await;
    }
    shutdown.cancel();
    pulling.await.expect("the workers end");
}

/// Leases all feeds that are due; returns how many were.
async fn count_due(bench: &Bench, account: &Feed) -> usize {
    let request = LeaseRequest {
        now: bench.clock.now(),
        lease: hours(1),
        requests_per_account: 10_000,
        lookback: hours(1),
        min_interval: Duration::ZERO,
        reconcile_every: hours(1),
        queues: vec![(account.account.clone(), Queue::Exported)],
    };
    let mut count = 0;
    loop {
        let leased = bench.store().lease_page(request.clone()).await;
        match leased.expect("a lease") {
            Some(_) => count += 1,
            None => return count,
        }
    }
}

#[tokio::test]
async fn a_start_makes_all_feeds_due_unless_it_is_stopped() {
    let (bench, correction) = Bench::with_correction("").await;
    let feeds: Vec<Feed> = (0..1_200).map(|n| exported(&format!("7{n:08}"))).collect();
    let one = feeds[0].clone();
    // They are due later once the clock is right again.
    correction.set(3_600_000);
    let registered = bench.store().register_feeds(feeds, bench.clock.now());
    registered.await.expect("stored");
    correction.set(0);
    let stopped = CancellationToken::new();
    stopped.cancel();
    pull::reconcile(Arc::clone(bench.puller()), stopped).await;
    assert_eq!(count_due(&bench, &one).await, 0);

    pull::reconcile(Arc::clone(bench.puller()), CancellationToken::new()).await;
    let due = count_due(&bench, &one).await;
    assert!(due >= 1_200, "{due}");
}
