//! Faults of the vendor: the state says what is wrong, requests are bounded, nothing is lost.

use std::time::Duration;

use ivesk_webhook::config::Config;
use ivesk_webhook::domain::{Cursor, Queue};
use ivesk_webhook::emulator::{DEFAULT_KEY, Endpoint, Fault, FaultKind};
use ivesk_webhook::pull::PullOutcome;
use ivesk_webhook::store::{FeedPauseReason, TriggerKind};
use serde_json::json;

use crate::support::puller::{
    Bench, COMPANY, NEIGHBOR, account_settings, canonical, check_numbering, company, digitized,
    exported, hours, minutes, seconds, settle, stored, tally,
};

/// Real time that each request to a hanging vendor takes.
const TIMEOUT: Duration = Duration::from_millis(250);

fn both_companies(config: &mut Config) {
    account_settings(config).companies.push(company(NEIGHBOR));
}

/// Expected effects of a fault.
struct Effects {
    /// Part of the feed's last error.
    error: String,
    /// Reason for which the feed is paused.
    paused: Option<FeedPauseReason>,
    /// True if the whole account waits.
    account_waits: bool,
    /// Most requests in the first 50 minutes.
    requests: u64,
}

impl Effects {
    /// An error after which the feed alone waits and is retried with backoff.
    fn feed_waits(error: &str) -> Self {
        Self {
            error: error.to_owned(),
            paused: None,
            account_waits: false,
            requests: 13,
        }
    }

    /// An error after which the whole account waits and is retried with backoff.
    fn account_waits(error: &str) -> Self {
        Self {
            account_waits: true,
            ..Self::feed_waits(error)
        }
    }
}

/// Causes a fault in a feed that is up to date, checks its effects, ends it, and asserts that
/// the feed recovers.
async fn assert_effects(kind: FaultKind, expected: Effects) {
    let bench = Bench::with("", |config| {
        config.api.timeout = TIMEOUT;
        config.api.max_page_bytes = 256 * 1024;
    })
    .await;
    bench.settle().await;
    bench.fault(Fault::new(kind.clone()));
    bench.control.reset_requests();
    bench.export(COMPANY, 30).await;
    let steps = bench.settle().await;
    assert_eq!(
        tally(&steps),
        (0, 1),
        "{kind:?}: one request, then it waits"
    );

    let row = bench.feed(&exported(COMPANY)).await;
    let account = bench.account().await;
    let error = row.last_error.clone().unwrap_or_default();
    assert!(error.contains(&expected.error), "{kind:?}: {error}");
    assert_eq!(account.last_error, row.last_error, "{kind:?}");
    assert_eq!(row.paused, expected.paused, "{kind:?}");
    assert_eq!(row.failures, 1, "{kind:?}");
    let account_waits = account.waits_until.is_some();
    assert_eq!(account_waits, expected.account_waits, "{kind:?}");
    assert!(account_waits || row.waits_until.is_some(), "{kind:?}");
    assert!(
        row.triggers.contains(&TriggerKind::Notification),
        "the trigger is kept"
    );

    bench.run_for(minutes(50)).await;
    assert!(
        bench.requests() <= expected.requests,
        "{kind:?}: {}",
        bench.requests()
    );
    bench.control.clear_faults();
    bench.run_for(hours(2)).await;
    bench.assert_complete(&exported(COMPANY)).await;
    let row = bench.feed(&exported(COMPANY)).await;
    assert_eq!(
        (row.last_error, row.paused, row.waits_until, row.failures),
        (None, None, None, 0),
        "{kind:?}"
    );
    let account = bench.account().await;
    assert_eq!((account.last_error, account.failures), (None, 0));
}

fn status(status: u16) -> FaultKind {
    FaultKind::Status {
        status,
        retry_after: None,
    }
}

#[tokio::test]
async fn a_vendor_that_hangs_is_asked_less_and_less_often() {
    let expected = Effects::account_waits("could not be reached: timed out");
    assert_effects(FaultKind::Hang, expected).await;
}

#[tokio::test]
async fn a_page_of_html_is_named_as_such() {
    let expected = Effects::feed_waits("it is HTML or XML, not JSON");
    assert_effects(FaultKind::HtmlPage, expected).await;
}

#[tokio::test]
async fn truncated_json_stores_nothing_of_the_page() {
    let expected = Effects::feed_waits("the JSON ends after");
    assert_effects(FaultKind::TruncatedJson, expected).await;
}

#[tokio::test]
async fn an_answer_that_is_cut_off_counts_as_unreachable() {
    let expected = Effects::account_waits("could not be reached");
    assert_effects(FaultKind::BrokenBody, expected).await;
}

#[tokio::test]
async fn a_page_of_50_megabytes_is_not_read_and_retried_hourly() {
    let expected = Effects {
        requests: 1,
        ..Effects::feed_waits("`api.max_page_bytes`")
    };
    let kind = FaultKind::HugePage { bytes: 50_000_000 };
    assert_effects(kind, expected).await;
}

#[tokio::test]
async fn refusals_pause_the_feed_and_it_is_retried_hourly() {
    for (code, reason) in [
        (401, FeedPauseReason::Unauthorized),
        (403, FeedPauseReason::Forbidden),
        (404, FeedPauseReason::NotFound),
    ] {
        let expected = Effects {
            paused: Some(reason),
            requests: 1,
            ..Effects::feed_waits(&format!("answered {code}"))
        };
        assert_effects(status(code), expected).await;
    }
}

#[tokio::test]
async fn a_refused_cursor_pauses_its_feed_until_it_is_another() {
    let bench = Bench::caught_up("").await;
    let feed = exported(COMPANY);
    bench.export(COMPANY, 2).await;
    bench.settle().await;
    let cursor = bench.feed(&feed).await.cursor.expect("a cursor");
    let start_at = async |cursor: Cursor| {
        let now = bench.clock.now();
        let started = bench.store().start_feed_at(feed.clone(), cursor, now);
        started.await.expect("the store works")
    };
    start_at(Cursor::new("bogus")).await;
    bench.control.reset_requests();
    bench.run_for(minutes(50)).await;
    let row = bench.feed(&feed).await;
    assert_eq!(row.paused, Some(FeedPauseReason::CursorRefused));
    assert_eq!(bench.requests(), 3, "retried hourly from then on");
    let fix = FeedPauseReason::CursorRefused.fix(&feed.account, Some(&feed));
    assert!(
        fix.contains(&format!("feeds start-at CURSOR --company {COMPANY}")),
        "{fix}"
    );

    start_at(cursor).await;
    bench.export(COMPANY, 3).await;
    bench.settle().await;
    let row = bench.feed(&feed).await;
    assert_eq!((row.paused, row.waits_until, row.failures), (None, None, 0));
    bench.assert_complete(&feed).await;
}

#[tokio::test]
async fn server_errors_are_waited_out() {
    for (code, account_waits) in [(500, false), (502, false), (429, true)] {
        let error = format!("answered {code}: This answer was requested");
        let expected = Effects {
            account_waits,
            ..Effects::feed_waits(&error)
        };
        assert_effects(status(code), expected).await;
    }
}

#[tokio::test]
async fn errors_without_json_are_named_by_their_status() {
    for body in ["html", "empty"] {
        let bench = Bench::caught_up(&format!("error_body={body}")).await;
        bench.fault(Fault::status(500).times(1));
        bench.export(COMPANY, 1).await;
        bench.settle().await;
        let row = bench.feed(&exported(COMPANY)).await;
        assert_eq!(row.last_error.as_deref(), Some("Įvesk.lt answered 500"));
    }
}

#[tokio::test]
async fn the_whole_account_obeys_retry_after_in_both_forms() {
    for retry_after in ["120", "Mon, 23 Nov 2026 08:02:00 GMT"] {
        let bench = Bench::with("", both_companies).await;
        bench.settle().await;
        bench.fault(Fault::status_retry_after(429, retry_after).times(1));
        bench.control.reset_requests();
        bench.export(COMPANY, 2).await;
        bench.export(NEIGHBOR, 2).await;
        bench.run_for(seconds(119)).await;
        assert_eq!(bench.requests(), 1, "{retry_after}");
        bench.run_for(seconds(1)).await;
        bench.assert_complete(&exported(COMPANY)).await;
        bench.assert_complete(&exported(NEIGHBOR)).await;
    }
}

#[tokio::test]
async fn a_restart_does_not_shorten_a_retry_after() {
    let mut bench = Bench::caught_up("").await;
    bench.fault(Fault::status_retry_after(429, "600").times(1));
    bench.export(COMPANY, 2).await;
    bench.settle().await;
    bench.control.reset_requests();
    bench.restart().await;
    bench.run_for(seconds(599)).await;
    assert_eq!(bench.requests(), 0);
    bench.run_for(seconds(1)).await;
    bench.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn a_failure_in_flight_does_not_shorten_a_retry_after() {
    let bench = Bench::with("", |config| {
        both_companies(config);
        config.api.timeout = TIMEOUT;
        config.pull.requests_per_account = 2;
    })
    .await;
    bench.settle().await;
    bench.fault(Fault::new(FaultKind::Hang).company(NEIGHBOR).times(1));
    bench.fault(
        Fault::status_retry_after(429, "600")
            .company(COMPANY)
            .times(1),
    );
    bench.control.reset_requests();
    bench.export(NEIGHBOR, 1).await;
    let hanging = bench.another_puller();
    let hanging = tokio::spawn(async move { hanging.pull_page().await });
    bench.control.requests_reached(Endpoint::Exported, 1).await;
    bench.export(COMPANY, 1).await;
    let refused = bench.step().await;
    let timed_out = hanging.await.expect("the task ends").expect("the store");
    for step in [&refused, &timed_out] {
        assert!(matches!(step, PullOutcome::Failed { .. }), "{step:?}");
    }
    let waits_until = bench.account().await.waits_until;
    assert_eq!(waits_until, Some(bench.clock.now().after(seconds(600))));
    bench.control.clear_faults();
    bench.run_for(seconds(599)).await;
    assert_eq!(bench.requests(), 2);
    bench.run_for(minutes(2)).await;
    bench.assert_complete(&exported(COMPANY)).await;
    bench.assert_complete(&exported(NEIGHBOR)).await;
}

#[tokio::test]
async fn a_revoked_key_pauses_the_account_until_it_is_replaced() {
    let mut bench = Bench::with("", |config| {
        let account = account_settings(config);
        account.api_key = Some("revoked".to_owned().into());
        account.companies = (0..40).map(|n| company(&format!("5{n:08}"))).collect();
        account.companies.push(company(COMPANY));
    })
    .await;
    bench.export(COMPANY, 3).await;
    bench.run_for(minutes(55)).await;
    assert!(bench.requests() <= 3, "{}", bench.requests());
    let account = bench.account().await;
    assert_eq!(account.paused, Some(FeedPauseReason::Unauthorized));
    let error = account.last_error.expect("an error");
    assert!(error.contains("401"), "{error}");

    bench
        .restart_with(|config| {
            account_settings(config).api_key = Some(DEFAULT_KEY.to_owned().into());
        })
        .await;
    bench.settle().await;
    bench.assert_complete(&exported(COMPANY)).await;
    assert_eq!(bench.account().await.paused, None);
}

#[tokio::test]
async fn one_company_in_trouble_delays_no_other() {
    let bench = Bench::with("", both_companies).await;
    bench.settle().await;
    bench.fault(Fault::new(FaultKind::HtmlPage).company(NEIGHBOR));
    for _ in 0..10 {
        bench.export(NEIGHBOR, 1).await;
        bench.export(COMPANY, 1).await;
        bench.run_for(minutes(3)).await;
    }
    bench.assert_complete(&exported(COMPANY)).await;
    bench.control.clear_faults();
    bench.run_for(hours(1)).await;
    bench.assert_complete(&exported(NEIGHBOR)).await;
}

#[tokio::test]
async fn an_unreadable_entry_does_not_keep_a_page_from_committing() {
    let bench = Bench::caught_up("page_size=10").await;
    let exports = bench.control.export(COMPANY, 9).expect("exported");
    let id_of = |index: usize| exports[index].0.as_str();
    for (index, odd) in [
        json!({ "id": null }),
        json!({ "id": { "x": [1] } }),
        json!({ "id": "" }),
        json!({ "id": "y".repeat(500) }),
    ]
    .into_iter()
    .enumerate()
    {
        bench.amend(id_of(index), odd);
    }
    // An odd entry that has an identity.
    let number = json!({ "id": 1_234_567, "docnum": { "a": 1 }, "line": "no list", "date": 7 });
    bench.amend(id_of(4), number);
    bench.notify(COMPANY).await;
    bench.settle().await;

    let rows = bench.documents().await;
    check_numbering(&rows).expect("numbering");
    let mut expected: Vec<_> = exports[5..].to_vec();
    expected.push(("1234567".to_owned(), exports[4].1.clone()));
    for (_, version) in &mut expected {
        *version = canonical(version);
    }
    expected.sort();
    assert_eq!(stored(&rows, &exported(COMPANY)), expected);
    let row = bench.feed(&exported(COMPANY)).await;
    assert_eq!((row.unreadable, row.failures), (4, 0));
    // However often they are read, they are stored once.
    bench.run_for(hours(3)).await;
    assert_eq!(bench.feed(&exported(COMPANY)).await.unreadable, 4);
    assert_eq!(bench.documents().await.len(), 5);
}

#[tokio::test]
async fn a_document_of_a_megabyte_is_stored_whole() {
    let bench = Bench::caught_up("").await;
    let exports = bench.control.export(COMPANY, 3).expect("exported");
    let comment = "ąčęėįšųūž \"".repeat(60_000);
    bench.amend(&exports[1].0, json!({ "comment": comment }));
    bench.notify(COMPANY).await;
    bench.settle().await;
    bench.assert_complete(&exported(COMPANY)).await;
    let rows = bench.documents().await;
    let body = rows[1].body.as_deref().expect("a body");
    assert!(body.len() > 1_000_000);
    let stored: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!(stored["comment"], comment.as_str());
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_key_goes_nowhere_else() {
    let other = Bench::new("").await;
    let bench = Bench::caught_up("").await;
    let location = format!("{}/api/pub/exported/{COMPANY}", other.origin());
    bench.fault(Fault::new(FaultKind::Redirect { location }));
    bench.control.reset_requests();
    bench.export(COMPANY, 1).await;
    bench.settle().await;
    assert_eq!(bench.requests(), 1);
    assert_eq!(other.control.requests().log, []);
    let row = bench.feed(&exported(COMPANY)).await;
    let error = row.last_error.expect("an error");
    assert!(error.contains("302") && !error.contains("http"), "{error}");
    bench.control.clear_faults();
    bench.run_for(hours(1)).await;
    bench.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn the_queues_fail_apart_from_each_other() {
    let bench = Bench::with("", |config| {
        let account = account_settings(config);
        account.digitized = true;
    })
    .await;
    bench.fault(Fault::status(403).queue(Queue::Digitized));
    bench.export(COMPANY, 2).await;
    bench.settle().await;
    bench.assert_complete(&exported(COMPANY)).await;
    let row = bench.feed(&digitized()).await;
    assert_eq!(row.paused, Some(FeedPauseReason::Forbidden));
}

#[tokio::test]
async fn five_hundred_triggers_at_once_respect_the_accounts_limit() {
    const COMPANIES: usize = 500;
    const IN_FLIGHT: usize = 3;
    let bench = Bench::with("", |config| {
        let account = account_settings(config);
        account.companies.clear();
        config.pull.requests_per_account = u32::try_from(IN_FLIGHT).expect("few");
    })
    .await;
    let codes: Vec<String> = (0..COMPANIES).map(|n| format!("7{n:08}")).collect();
    let as_str: Vec<&str> = codes.iter().map(String::as_str).collect();
    let account = bench.control.add_account(DEFAULT_KEY, &as_str);
    for code in &codes {
        bench.export_unannounced(code, 1);
        bench.notify(code).await;
    }
    // Held until as many are in flight as the account allows.
    bench.fault(Fault::new(FaultKind::Hang));
    let workers: Vec<_> = (0..IN_FLIGHT + 3)
        .map(|_| {
            let puller = bench.another_puller();
            tokio::spawn(async move { settle(&puller).await.len() })
        })
        .collect();
    let all = u64::try_from(IN_FLIGHT).expect("few");
    bench
        .control
        .requests_reached(Endpoint::Exported, all)
        .await;
    assert_eq!(bench.step().await, PullOutcome::Nothing);
    bench.control.clear_faults();
    for worker in workers {
        worker.await.expect("a worker ends");
    }
    bench.settle().await;

    let counters = bench.control.requests();
    assert_eq!(counters.max_in_flight_by_account[&account], IN_FLIGHT);
    assert!(
        counters.log.iter().all(|record| record.status == Some(200)),
        "the vendor refused some"
    );
    assert_eq!(bench.documents().await.len(), COMPANIES);
    for code in codes.iter().step_by(50) {
        bench.assert_complete(&exported(code)).await;
    }
}
