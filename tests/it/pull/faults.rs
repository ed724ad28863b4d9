//! A vendor in trouble: a clear state, no spinning, and nothing lost once it is over.

use std::time::Duration;

use ivesk_webhook::config::Config;
use ivesk_webhook::domain::Queue;
use ivesk_webhook::emulator::{Endpoint, Fault, FaultKind};
use ivesk_webhook::pull::PullOutcome;
use ivesk_webhook::store::{FeedPauseReason, TriggerKind};
use serde_json::json;

use crate::support::puller::{
    Bench, COMPANY, NEIGHBOUR, check_numbering, company, exported, hours, minutes, seconds, settle,
    stored, tally,
};

/// A hanging vendor costs each test that much real time for a request.
const TIMEOUT: Duration = Duration::from_millis(250);

fn both_companies(config: &mut Config) {
    let account = config.accounts.values_mut().next().expect("an account");
    account.companies.push(company(NEIGHBOUR));
}

/// What people see of a failure.
struct Seen {
    /// Words that the feed's row has.
    words: &'static str,
    /// Whether the feed is paused.
    paused: Option<FeedPauseReason>,
    /// Whether the whole account waits.
    account_waits: bool,
    /// Requests in the first 50 minutes at the most.
    requests: u64,
}

/// Puts a feed that is up to date in trouble, looks, ends the trouble, and looks again.
async fn is_clear_and_bounded_and_loses_nothing(kind: FaultKind, seen: Seen) {
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
    assert!(error.contains(seen.words), "{kind:?}: {error}");
    assert_eq!(account.last_error, row.last_error, "{kind:?}");
    assert_eq!(row.paused, seen.paused, "{kind:?}");
    assert_eq!(row.failures, 1, "{kind:?}");
    let account_waits = account.waits_until.is_some();
    assert_eq!(account_waits, seen.account_waits, "{kind:?}");
    assert!(account_waits || row.waits_until.is_some(), "{kind:?}");
    assert!(
        row.triggers.contains(&TriggerKind::Notification),
        "the hint is kept"
    );

    bench.pass(minutes(50)).await;
    assert!(
        bench.requests() <= seen.requests,
        "{kind:?}: {}",
        bench.requests()
    );
    bench.control.clear_faults();
    bench.pass(hours(2)).await;
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
    let seen = Seen {
        words: "could not be reached: timed out",
        paused: None,
        account_waits: true,
        requests: 13,
    };
    is_clear_and_bounded_and_loses_nothing(FaultKind::Hang, seen).await;
}

#[tokio::test]
async fn a_page_of_html_is_named_as_such() {
    let seen = Seen {
        words: "it is HTML or XML, not JSON",
        paused: None,
        account_waits: false,
        requests: 13,
    };
    is_clear_and_bounded_and_loses_nothing(FaultKind::HtmlPage, seen).await;
}

#[tokio::test]
async fn truncated_json_stores_nothing_of_the_page() {
    let seen = Seen {
        words: "the JSON ends after",
        paused: None,
        account_waits: false,
        requests: 13,
    };
    is_clear_and_bounded_and_loses_nothing(FaultKind::TruncatedJson, seen).await;
}

#[tokio::test]
async fn an_answer_that_is_cut_off_counts_as_unreachable() {
    let seen = Seen {
        words: "could not be reached",
        paused: None,
        account_waits: true,
        requests: 13,
    };
    is_clear_and_bounded_and_loses_nothing(FaultKind::BrokenBody, seen).await;
}

#[tokio::test]
async fn a_page_of_50_megabytes_is_not_read_and_retried_hourly() {
    let seen = Seen {
        words: "`api.max_page_bytes`",
        paused: None,
        account_waits: false,
        requests: 1,
    };
    let kind = FaultKind::HugePage { bytes: 50_000_000 };
    is_clear_and_bounded_and_loses_nothing(kind, seen).await;
}

#[tokio::test]
async fn refusals_pause_the_feed_and_it_is_retried_hourly() {
    for (code, reason) in [
        (401, FeedPauseReason::Unauthorized),
        (403, FeedPauseReason::Forbidden),
        (404, FeedPauseReason::NotFound),
    ] {
        let seen = Seen {
            words: &format!("answered {code}").leak()[..],
            paused: Some(reason),
            account_waits: false,
            requests: 1,
        };
        is_clear_and_bounded_and_loses_nothing(status(code), seen).await;
    }
}

#[tokio::test]
async fn server_errors_are_waited_out() {
    for (code, account_waits) in [(500, false), (502, false), (429, true)] {
        let seen = Seen {
            words: &format!("answered {code}: This answer was requested").leak()[..],
            paused: None,
            account_waits,
            requests: 13,
        };
        is_clear_and_bounded_and_loses_nothing(status(code), seen).await;
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
        bench.export(NEIGHBOUR, 2).await;
        bench.pass(seconds(119)).await;
        assert_eq!(bench.requests(), 1, "{retry_after}");
        bench.pass(seconds(1)).await;
        bench.assert_complete(&exported(COMPANY)).await;
        bench.assert_complete(&exported(NEIGHBOUR)).await;
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
    bench.pass(seconds(599)).await;
    assert_eq!(bench.requests(), 0);
    bench.pass(seconds(1)).await;
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
    bench.fault(Fault::new(FaultKind::Hang).company(NEIGHBOUR).times(1));
    bench.fault(
        Fault::status_retry_after(429, "600")
            .company(COMPANY)
            .times(1),
    );
    bench.control.reset_requests();
    bench.export(NEIGHBOUR, 1).await;
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
    bench.pass(seconds(599)).await;
    assert_eq!(bench.requests(), 2);
    bench.pass(minutes(2)).await;
    bench.assert_complete(&exported(COMPANY)).await;
    bench.assert_complete(&exported(NEIGHBOUR)).await;
}

#[tokio::test]
async fn a_revoked_key_pauses_the_account_until_it_is_replaced() {
    let mut bench = Bench::with("", |config| {
        let account = config.accounts.values_mut().next().expect("an account");
        account.api_key = Some("withdrawn".to_owned().into());
        account.companies = (0..40).map(|n| company(&format!("5{n:08}"))).collect();
        account.companies.push(company(COMPANY));
    })
    .await;
    bench.export(COMPANY, 3).await;
    bench.pass(minutes(55)).await;
    assert!(bench.requests() <= 3, "{}", bench.requests());
    let account = bench.account().await;
    assert_eq!(account.paused, Some(FeedPauseReason::Unauthorized));
    let told = account.last_error.expect("an error");
    assert!(told.contains("401"), "{told}");

    bench
        .restart_with(|config| {
            let account = config.accounts.values_mut().next().expect("an account");
            let key = ivesk_webhook::emulator::DEFAULT_KEY.to_owned();
            account.api_key = Some(key.into());
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
    bench.fault(Fault::new(FaultKind::HtmlPage).company(NEIGHBOUR));
    for _ in 0..10 {
        bench.export(NEIGHBOUR, 1).await;
        bench.export(COMPANY, 1).await;
        bench.pass(minutes(3)).await;
    }
    bench.assert_complete(&exported(COMPANY)).await;
    bench.control.clear_faults();
    bench.pass(hours(1)).await;
    bench.assert_complete(&exported(NEIGHBOUR)).await;
}

#[tokio::test]
async fn an_unreadable_entry_does_not_keep_a_page_from_committing() {
    let bench = Bench::caught_up("page_size=10").await;
    let made = bench.control.export(COMPANY, 9).expect("exported");
    let id_of = |index: usize| made[index].0.as_str();
    for (index, odd) in [
        json!({ "id": null }),
        json!({ "id": { "x": [1] } }),
        json!({ "id": "" }),
        json!({ "id": "y".repeat(500) }),
    ]
    .into_iter()
    .enumerate()
    {
        let fields = odd.as_object().expect("an object").clone();
        bench.control.amend(id_of(index), fields).expect("amended");
    }
    // These are odd and have an identity nonetheless.
    let number = json!({ "id": 1_234_567, "docnum": { "a": 1 }, "line": "no list", "date": 7 });
    let fields = number.as_object().expect("an object").clone();
    bench.control.amend(id_of(4), fields).expect("amended");
    bench.hint(COMPANY).await;
    bench.settle().await;

    let rows = bench.documents().await;
    check_numbering(&rows).expect("numbering");
    let mut expected: Vec<_> = made[5..].to_vec();
    expected.push(("1234567".to_owned(), made[4].1.clone()));
    expected.sort();
    assert_eq!(stored(&rows, &exported(COMPANY)), expected);
    let row = bench.feed(&exported(COMPANY)).await;
    assert_eq!((row.unreadable, row.failures), (4, 0));
    // Read again and again, they are kept once.
    bench.pass(hours(3)).await;
    assert_eq!(bench.feed(&exported(COMPANY)).await.unreadable, 4);
    assert_eq!(bench.documents().await.len(), 5);
}

#[tokio::test]
async fn a_document_of_a_megabyte_is_stored_whole() {
    let bench = Bench::caught_up("").await;
    let made = bench.control.export(COMPANY, 3).expect("exported");
    let comment = "ąčęėįšųūž \"".repeat(60_000);
    let fields = json!({ "comment": comment });
    let fields = fields.as_object().expect("an object").clone();
    bench.control.amend(&made[1].0, fields).expect("amended");
    bench.hint(COMPANY).await;
    bench.settle().await;
    bench.assert_complete(&exported(COMPANY)).await;
    let rows = bench.documents().await;
    let body = rows[1].body.as_deref().expect("a body");
    assert!(body.len() > 1_000_000);
    let kept: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!(kept["comment"], comment.as_str());
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
    bench.pass(hours(1)).await;
    bench.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn the_queues_fail_apart_from_each_other() {
    let bench = Bench::with("", |config| {
        let account = config.accounts.values_mut().next().expect("an account");
        account.digitized = true;
    })
    .await;
    bench.fault(Fault::status(403).queue(Queue::Digitized));
    bench.export(COMPANY, 2).await;
    bench.settle().await;
    bench.assert_complete(&exported(COMPANY)).await;
    let row = bench.feed(&crate::support::puller::digitized()).await;
    assert_eq!(row.paused, Some(FeedPauseReason::Forbidden));
}

#[tokio::test]
async fn five_hundred_triggers_at_once_respect_the_accounts_limit() {
    const COMPANIES: usize = 500;
    const IN_FLIGHT: usize = 3;
    let bench = Bench::with("", |config| {
        let account = config.accounts.values_mut().next().expect("an account");
        account.companies.clear();
        config.pull.requests_per_account = u32::try_from(IN_FLIGHT).expect("few");
    })
    .await;
    let codes: Vec<String> = (0..COMPANIES).map(|n| format!("7{n:08}")).collect();
    let key = ivesk_webhook::emulator::DEFAULT_KEY;
    let as_str: Vec<&str> = codes.iter().map(String::as_str).collect();
    let account = bench.control.add_account(key, &as_str);
    for code in &codes {
        bench.export_unheard(code, 1);
        bench.hint(code).await;
    }
    // Held until all that may be in flight are.
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
