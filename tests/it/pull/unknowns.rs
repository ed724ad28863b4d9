//! Unknowns of the vendor in each position (paging has a file of its own), triggers, leases
//! and cursors.

use std::time::Duration;

use ivesk_webhook::config::default_account;
use ivesk_webhook::domain::{Company, Cursor, Event, Feed, Queue, Timestamp};
use ivesk_webhook::emulator::{DEFAULT_KEY, Endpoint, Fault, FaultKind, Publication};
use ivesk_webhook::ivesk::notification::Announcement;
use ivesk_webhook::pull::PullOutcome;
use ivesk_webhook::store::{FeedPauseReason, PauseChange, TriggerKind};
use serde_json::{Value, json};

use crate::support::puller::{
    Bench, COMPANY, NEIGHBOR, account_settings, assert_everything_arrives, canonical,
    check_numbering, company, digitized, exported, hours, minutes, seconds, set_exported_path,
    settle, start_time, tally,
};

#[tokio::test]
async fn u16_a_document_listed_minutes_late_is_not_counted_as_missed() {
    let bench = Bench::caught_up("visibility_lag_ms=240000").await;
    bench.export(COMPANY, 3).await;
    let at_once = bench.settle().await;
    assert_eq!(tally(&at_once), (0, 0));
    bench.run_for(minutes(6)).await;
    bench.assert_complete(&exported(COMPANY)).await;
    let found_by: Vec<_> = bench
        .documents()
        .await
        .iter()
        .map(|row| row.found_by)
        .collect();
    assert_eq!(found_by, [TriggerKind::LateFollowUp; 3]);
    assert_eq!(bench.feed(&exported(COMPANY)).await.missed_notifications, 0);
}

#[tokio::test]
async fn u16_a_document_listed_behind_the_cursor_is_not_lost() {
    for from in ["inclusive", "exclusive"] {
        let bench = Bench::caught_up(&format!("from={from}")).await;
        bench.switch("visibility_lag_ms=60000");
        bench.export(COMPANY, 2).await;
        bench.clock.advance(seconds(10));
        bench.switch("visibility_lag_ms=0");
        bench.export(COMPANY, 2).await;
        bench.settle().await;
        assert_eq!(
            bench.documents().await.len(),
            2,
            "the cursor is past the other two"
        );
        bench.run_for(minutes(10)).await;
        bench.assert_complete(&exported(COMPANY)).await;
        assert_eq!(bench.feed(&exported(COMPANY)).await.missed_notifications, 0);
    }
}

#[tokio::test]
async fn u16_a_document_listed_late_is_found_after_a_weekend_down() {
    let mut bench = Bench::caught_up("").await;
    bench.switch("visibility_lag_ms=60000");
    bench.export(COMPANY, 1).await;
    bench.clock.advance(seconds(10));
    bench.switch("visibility_lag_ms=0");
    bench.export(COMPANY, 1).await;
    bench.settle().await;
    bench.clock.advance(hours(64));
    bench.restart().await;
    bench.settle().await;
    bench.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn u16_a_document_listed_late_is_found_after_a_clock_ahead() {
    let (mut bench, correction) = Bench::with_correction("").await;
    correction.set(2 * 86_400 * 1000);
    bench.notify(COMPANY).await;
    // All that follows a notification, and reconciliations.
    bench.run_for(hours(2)).await;
    correction.set(0);
    bench.run_for(hours(2)).await;
    bench.switch("visibility_lag_ms=60000");
    bench.export(COMPANY, 1).await;
    bench.clock.advance(seconds(10));
    bench.switch("visibility_lag_ms=0");
    bench.export(COMPANY, 1).await;
    bench.settle().await;
    bench.clock.advance(hours(64));
    bench.restart().await;
    bench.settle().await;
    bench.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn u16_a_document_listed_late_is_found_after_a_cut_off_pull() {
    let mut bench = Bench::new("").await;
    bench.switch("visibility_lag_ms=60000");
    bench.export_unannounced(COMPANY, 1);
    bench.clock.advance(seconds(10));
    bench.switch("visibility_lag_ms=0");
    bench.export(COMPANY, 1).await;
    bench.step().await;
    assert_eq!(bench.documents().await.len(), 1);
    bench.clock.advance(hours(64));
    bench.restart().await;
    bench.settle().await;
    bench.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn u16_a_late_document_that_reconciliation_finds_is_not_missed() {
    let bench = Bench::caught_up("").await;
    bench.run_for(minutes(58)).await;
    bench.switch("visibility_lag_ms=60000");
    bench.export(COMPANY, 1).await;
    bench.run_for(minutes(2)).await;
    bench.assert_complete(&exported(COMPANY)).await;
    assert_eq!(bench.feed(&exported(COMPANY)).await.missed_notifications, 0);
}

#[tokio::test]
async fn a_missed_notification_is_made_up_for_and_counted() {
    let bench = Bench::with("", |config| {
        let account = account_settings(config);
        account.companies.push(company(NEIGHBOR));
    })
    .await;
    bench.settle().await;
    bench.export_unannounced(COMPANY, 3);
    bench.export(NEIGHBOR, 2).await;
    bench.settle().await;
    assert_eq!(bench.documents().await.len(), 2);
    bench.run_for(hours(1)).await;
    bench.assert_complete(&exported(COMPANY)).await;
    assert_eq!(bench.feed(&exported(COMPANY)).await.missed_notifications, 3);
    assert_eq!(
        bench.feed(&exported(NEIGHBOR)).await.missed_notifications,
        0
    );
}

#[tokio::test]
async fn u18_a_document_exported_again_is_a_new_current_version() {
    for re_export in ["adds", "moves", "keeps"] {
        let bench = Bench::caught_up(&format!("re_export={re_export}")).await;
        let exports = bench.control.export(COMPANY, 2).expect("exported");
        bench.notify(COMPANY).await;
        bench.settle().await;
        bench.clock.advance(minutes(1));
        let again = bench.control.re_export(&exports[0].0).expect("a document");
        bench.notify(COMPANY).await;
        bench.settle().await;
        let rows = bench.documents().await;
        check_numbering(&rows).expect("numbering");
        let mut expected: Vec<_> = exports.clone();
        expected.extend(again.clone().map(|version| (exports[0].0.clone(), version)));
        for (_, version) in &mut expected {
            *version = canonical(version);
        }
        expected.sort();
        assert_eq!(
            bench.stored(&exported(COMPANY)).await,
            expected,
            "{re_export}"
        );
        assert_eq!(again.is_none(), re_export == "keeps");
        for current in bench.truth(&exported(COMPANY)) {
            assert!(expected.contains(&current));
        }
    }
}

#[tokio::test]
async fn u21_unknown_fields_and_numbers_survive_byte_for_byte() {
    for money in ["number", "text"] {
        let bench = Bench::caught_up(&format!("money={money}")).await;
        let exports = bench.control.export(COMPANY, 1).expect("exported");
        let odd = json!({ "naujas_laukas": { "ą": [1, 2.50, "1.10"] }, "docnum": "../../š" });
        bench.amend(&exports[0].0, odd);
        bench.notify(COMPANY).await;
        bench.settle().await;
        let listed = listed(&bench).await;
        let rows = bench.documents().await;
        let body = rows[0].body.clone().expect("a body");
        assert_eq!(String::from_utf8(body), Ok(listed), "{money}");
    }
}

/// Returns the only document of the list as the vendor's bytes.
async fn listed(bench: &Bench) -> String {
    let http = ivesk_webhook::egress::client(None, seconds(30)).expect("a client");
    let url = format!("{}/api/pub/exported/{COMPANY}", bench.origin());
    let request = http.get(url).header("x-api-key", DEFAULT_KEY);
    let page = request.send().await.expect("an answer");
    let page = page.text().await.expect("text");
    let start = page.find("\"documents\":[").expect("documents") + "\"documents\":[".len();
    let end = page.rfind("],\"next\"").expect("next");
    page[start..end].to_owned()
}

#[tokio::test]
async fn u22_documents_with_null_fields_are_stored_like_others() {
    assert_everything_arrives("null_fields=on,page_size=4").await;
    assert_everything_arrives("null_fields=off,page_size=4").await;
}

#[tokio::test]
async fn u23_documents_that_look_alike_differ_by_their_id() {
    let bench = Bench::caught_up("ties=2").await;
    let exports = bench.control.export(COMPANY, 2).expect("exported");
    for (id, _) in &exports {
        let twin = json!({ "docnum": "1", "date": "2026-01-01", "sellername": "X", "line": [] });
        bench.amend(id, twin);
    }
    bench.notify(COMPANY).await;
    bench.settle().await;
    bench.assert_complete(&exported(COMPANY)).await;
    assert_eq!(bench.documents().await.len(), 2);
}

#[tokio::test]
async fn u24_a_first_pull_starts_at_the_beginning_and_marks_history() {
    let bench = Bench::new("page_size=10").await;
    bench.export_unannounced(COMPANY, 25);
    bench.clock.advance(hours(24 * 400));
    bench.settle().await;
    assert_eq!(bench.queries().first().map(String::as_str), Some(""));
    bench.export(COMPANY, 1).await;
    bench.settle().await;
    bench.assert_complete(&exported(COMPANY)).await;
    let marks: Vec<_> = bench
        .documents()
        .await
        .iter()
        .map(|row| row.first_pull)
        .collect();
    assert_eq!(marks, [[true; 25].as_slice(), &[false]].concat());
    assert_eq!(bench.feed(&exported(COMPANY)).await.missed_notifications, 0);
}

#[tokio::test]
async fn u25_an_unreadable_company_is_paused_and_others_continue() {
    for (answer, reason) in [
        ("403", Some(FeedPauseReason::Forbidden)),
        ("404", Some(FeedPauseReason::NotFound)),
        ("empty", None),
    ] {
        let bench = Bench::caught_up(&format!("unknown_company={answer}")).await;
        bench.notify("999999999").await;
        bench.export(COMPANY, 2).await;
        bench.settle().await;
        bench.assert_complete(&exported(COMPANY)).await;
        assert_eq!(bench.feed(&exported("999999999")).await.paused, reason);
        let account = bench.account().await;
        assert_eq!((account.paused, account.waits_until), (None, None));
        // It is retried hourly.
        bench.control.reset_requests();
        bench.run_for(minutes(59)).await;
        let counters = bench.control.requests();
        let retries = counters
            .log
            .iter()
            .filter(|record| record.path.ends_with("999999999"));
        let allowed = if reason.is_some() { 0 } else { 4 };
        assert!(retries.count() <= allowed, "{answer}");
    }
}

#[tokio::test]
async fn u1_each_request_has_one_from_and_its_presets_query() {
    let at = start_time().to_string().replace(':', "%3A");
    for (company_in, path, company_part) in [
        ("path", format!("/api/pub/exported/{COMPANY}"), ""),
        (
            "query",
            "/api/pub/exported".to_owned(),
            "companycode=302320404",
        ),
        ("prefix", format!("/api/pub/{COMPANY}/exported"), ""),
        ("none", "/api/pub/exported".to_owned(), ""),
    ] {
        let bench = Bench::with(&format!("company_in={company_in}"), |config| {
            set_exported_path(config, company_in);
        })
        .await;
        bench.export_unannounced(COMPANY, 1);
        bench.settle().await;
        let from = format!("from={at}");
        let second = match company_part {
            "" => from,
            part => format!("{part}&{from}"),
        };
        assert_eq!(bench.queries(), [company_part.to_owned(), second]);
        let paths: Vec<_> = bench
            .control
            .requests()
            .log
            .into_iter()
            .map(|record| record.path)
            .collect();
        assert_eq!(paths, [path.clone(), path], "{company_in}");
        let of_company = company(COMPANY);
        let feed = bench
            .config
            .api
            .exported_feed(default_account(), of_company);
        bench.assert_complete(&feed).await;
    }
}

#[tokio::test]
async fn no_request_of_a_long_pull_repeats_its_from() {
    let bench = Bench::new("page_size=7,ties=3").await;
    bench.export_unannounced(COMPANY, 60);
    bench.run_for(hours(1)).await;
    for query in bench.queries() {
        assert!(query.matches("from=").count() <= 1, "{query}");
    }
    bench.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn a_backfill_rereads_an_old_stretch_and_keeps_the_cursor() {
    let bench = Bench::caught_up("page_size=5").await;
    bench.export(COMPANY, 12).await;
    bench.settle().await;
    let before = bench.feed(&exported(COMPANY)).await.cursor;
    bench.control.reset_requests();
    let from = Cursor::new("2020-01-01T00:00:00.000Z");
    bench
        .trigger(exported(COMPANY), TriggerKind::Backfill, Some(from))
        .await;
    let steps = bench.settle().await;
    assert_eq!(tally(&steps), (0, 0));
    assert_eq!(
        bench.queries().first().map(String::as_str),
        Some("from=2020-01-01T00%3A00%3A00.000Z")
    );
    let row = bench.feed(&exported(COMPANY)).await;
    assert_eq!((row.cursor, row.missed_notifications), (before, 0));
    bench.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn two_hours_without_a_receiver_are_made_up_for_and_counted() {
    let mut bench = Bench::caught_up("").await;
    bench.export(COMPANY, 2).await;
    bench.settle().await;
    for _ in 0..8 {
        bench.clock.advance(minutes(15));
        bench.export_unannounced(COMPANY, 3);
    }
    bench.restart().await;
    bench.settle().await;
    bench.assert_complete(&exported(COMPANY)).await;
    assert_eq!(
        bench.feed(&exported(COMPANY)).await.missed_notifications,
        24
    );
}

#[tokio::test]
async fn a_restart_reads_again_at_once_what_was_not_announced() {
    let mut bench = Bench::caught_up("").await;
    bench.run_for(minutes(10)).await;
    bench.export_unannounced(COMPANY, 2);
    assert_eq!(tally(&bench.settle().await), (0, 0), "it is not due yet");
    bench.restart().await;
    assert_eq!(tally(&bench.settle().await), (2, 0));
}

#[tokio::test]
async fn triggers_wait_until_the_exported_path_is_set() {
    let mut bench = Bench::with("", |config| config.api.exported_path = None).await;
    let blocked = ivesk_webhook::pull::blocked_queues(&bench.config);
    assert_eq!(blocked.len(), 1);
    assert_eq!(blocked[0].missing, "exported_path");
    bench.export(COMPANY, 3).await;
    bench.run_for(hours(3)).await;
    assert_eq!(bench.control.requests().log, []);
    let row = bench.feed(&exported(COMPANY)).await;
    assert!(row.triggers.contains(&TriggerKind::Notification), "{row:?}");
    assert_eq!((row.failures, row.paused), (0, None));

    bench
        .restart_with(|config| set_exported_path(config, "path"))
        .await;
    bench.settle().await;
    bench.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn a_vendor_that_ignores_the_company_pauses_the_feed() {
    let bench = Bench::caught_up("company_filter=ignored").await;
    bench.export(COMPANY, 3).await;
    bench.settle().await;
    let stored = bench.documents().await.len();
    bench.notify(NEIGHBOR).await;
    let steps = bench.settle().await;
    let failed = steps.iter().find_map(|step| match step {
        PullOutcome::Failed { feed, error, .. } => Some((feed.clone(), error.clone())),
        _ => None,
    });
    let (feed, error) = failed.expect("the step fails");
    assert_eq!(feed, exported(NEIGHBOR));
    assert!(error.contains("api.exported_path") && error.contains("feeds resume"));
    let row = bench.feed(&exported(NEIGHBOR)).await;
    assert_eq!(row.paused, Some(FeedPauseReason::CompanyFilterIgnored));
    assert_eq!((row.documents, row.cursor), (0, None));
    let error = row.last_error.expect("an error");
    assert!(error.contains("api.exported_path"), "{error}");
    assert_eq!(bench.documents().await.len(), stored);
    // Only a person resumes it.
    bench.control.reset_requests();
    bench.run_for(hours(30)).await;
    let counters = bench.control.requests();
    let requests = counters
        .log
        .iter()
        .filter(|record| record.path.ends_with(NEIGHBOR));
    assert_eq!(requests.count(), 0);
}

#[tokio::test]
async fn a_document_between_two_companies_is_stored_for_both() {
    // What the vendor answers for a code that nobody has.
    let answers = ["404", "403", "401", "500", "empty"];
    let answers = answers.map(|unknown| ("path", unknown));
    let presets = ["prefix", "query"].map(|preset| (preset, "404"));
    for (preset, unknown) in answers.into_iter().chain(presets) {
        let switches = format!("company_in={preset},unknown_company={unknown}");
        let bench = Bench::with(&switches, |config| set_exported_path(config, preset)).await;
        let of_both = [COMPANY, NEIGHBOR].map(|code| {
            let exported = bench.control.export(code, 1).expect("exported");
            let both = json!({ "id": "both", "exportedat": "2026-11-23T08:00:00Z" });
            bench.amend(&exported[0].0, both);
            code
        });
        for code in of_both {
            bench.notify(code).await;
            match unknown {
                // It may be down for a moment: that is retried first.
                "500" => bench.run_for(minutes(1)).await,
                _ => bench.settle().await,
            };
            let row = bench.feed(&exported(code)).await;
            assert_eq!(
                (row.documents, row.paused),
                (1, None),
                "{preset}, {unknown}: {row:?}"
            );
        }
        assert_eq!(bench.documents().await.len(), 2, "{preset}, {unknown}");
        let account = bench.account().await;
        assert_eq!((account.paused, account.failures), (None, 0), "{unknown}");
    }
}

#[tokio::test]
async fn a_vendor_down_for_a_moment_does_not_confirm_a_company() {
    let bench = Bench::caught_up("company_filter=ignored").await;
    bench.export(COMPANY, 3).await;
    bench.settle().await;
    let kind = FaultKind::Status {
        status: 502,
        retry_after: None,
    };
    bench.fault(Fault {
        company: Some(Company::nobody().as_str().to_owned()),
        times: Some(2),
        ..Fault::new(kind)
    });
    bench.notify(NEIGHBOR).await;
    bench.run_for(minutes(10)).await;
    let row = bench.feed(&exported(NEIGHBOR)).await;
    assert_eq!(row.paused, Some(FeedPauseReason::CompanyFilterIgnored));
    assert_eq!(row.documents, 0);
}

#[tokio::test]
async fn a_person_vouches_for_a_feed_whatever_it_waits_for() {
    let bench = Bench::caught_up("company_filter=ignored").await;
    bench.export(COMPANY, 3).await;
    bench.settle().await;
    // The check of the company never succeeds.
    let kind = FaultKind::Status {
        status: 503,
        retry_after: Some("60".to_owned()),
    };
    bench.fault(Fault {
        company: Some(Company::nobody().as_str().to_owned()),
        ..Fault::new(kind)
    });
    bench.notify(NEIGHBOR).await;
    bench.run_for(hours(2)).await;
    let feed = exported(NEIGHBOR);
    let row = bench.feed(&feed).await;
    assert_eq!((row.documents, row.paused), (0, None), "{row:?}");
    let change = PauseChange::Resume { accept: true };
    let account = feed.account.clone();
    let resumed = bench
        .store()
        .set_paused(account, Some(feed.clone()), change);
    assert_eq!(resumed.await.expect("resumed"), 1);
    bench.run_for(hours(2)).await;
    let row = bench.feed(&feed).await;
    assert_eq!((row.documents, row.last_error), (3, None));
}

#[tokio::test]
async fn a_path_without_a_company_is_one_feed_for_each_key() {
    let bench = Bench::with("company_in=none", |config| {
        set_exported_path(config, "none");
        let account = account_settings(config);
        account.companies = vec![company(COMPANY), company(NEIGHBOR)];
        account.digitized = true;
    })
    .await;
    bench.settle().await;
    let only = Feed::exported(default_account(), Company::mixed());
    assert_eq!(only.to_string(), "default/exported");
    bench.export_unannounced(COMPANY, 3);
    bench.export_unannounced(NEIGHBOR, 2);
    // Companies of the digitized queue are in the same feed.
    bench.run_for(hours(2)).await;
    let mut feeds: Vec<_> = bench.store().feeds().await.expect("feeds");
    feeds.retain(|row| row.feed.queue == Queue::Exported);
    let names: Vec<_> = feeds.iter().map(|row| row.feed.to_string()).collect();
    assert_eq!(names, ["default/exported"]);
    assert_eq!((feeds[0].documents, feeds[0].paused), (5, None));
}

#[tokio::test]
async fn a_person_vouches_for_the_documents_of_a_company() {
    let bench = Bench::caught_up("company_filter=ignored").await;
    bench.export(COMPANY, 3).await;
    bench.settle().await;
    bench.notify(NEIGHBOR).await;
    bench.settle().await;
    let feed = exported(NEIGHBOR);
    assert!(bench.feed(&feed).await.paused.is_some());
    let account = feed.account.clone();
    let change = PauseChange::Resume { accept: true };
    let resumed = bench
        .store()
        .set_paused(account, Some(feed.clone()), change);
    assert_eq!(resumed.await.expect("resumed"), 1);
    bench.run_for(hours(2)).await;
    let row = bench.feed(&feed).await;
    assert_eq!((row.documents, row.paused), (3, None));
}

#[tokio::test]
async fn one_moment_in_other_digits_or_zones_is_one_version() {
    let bench = Bench::caught_up("").await;
    let exports = bench.control.export(COMPANY, 1).expect("exported");
    let id = exports[0].0.as_str();
    for version in [
        "2026-11-01T00:00:01.12Z",
        "2026-11-01T00:00:01.120Z",
        "2026-11-01 02:00:01.12 +0200",
        "2026-11-01T00:00:01.12",
    ] {
        bench.amend(id, json!({ "exportedat": version }));
        bench.notify(COMPANY).await;
        bench.settle().await;
        bench.run_for(minutes(10)).await;
    }
    let rows = bench.documents().await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0].version, "2026-11-01T00:00:01.12");
    let body = rows[0].body.as_deref().expect("a body");
    let body: Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!(body["exportedat"], "2026-11-01T00:00:01.12Z", "as written");
    // A finer moment is another version, and the newer one.
    bench.amend(id, json!({ "exportedat": "2026-11-01T00:00:01.1200001Z" }));
    bench.run_for(hours(2)).await;
    bench.amend(id, json!({ "exportedat": "2026-11-01T00:00:01.12000009Z" }));
    bench.run_for(hours(2)).await;
    let rows = bench.documents().await;
    let current: Vec<_> = rows
        .iter()
        .filter(|row| !row.superseded)
        .map(|row| &*row.version)
        .collect();
    assert_eq!(
        (rows.len(), current),
        (3, vec!["2026-11-01T00:00:01.1200001"])
    );
}

#[tokio::test]
async fn companies_of_the_digitized_queue_become_exported_feeds() {
    for null_fields in ["off", "on"] {
        let bench = Bench::with(&format!("null_fields={null_fields}"), |config| {
            let account = account_settings(config);
            account.companies.clear();
            account.digitized = true;
        })
        .await;
        bench.export_unannounced(COMPANY, 4);
        bench.export_unannounced(NEIGHBOR, 3);
        bench.settle().await;
        bench.assert_complete(&digitized()).await;
        let feeds = bench.store().feeds().await.expect("feeds").len();
        if null_fields == "on" {
            // The documents name no company then.
            assert_eq!(feeds, 1);
        } else {
            assert_eq!(feeds, 3);
            bench.assert_complete(&exported(COMPANY)).await;
            bench.assert_complete(&exported(NEIGHBOR)).await;
        }
    }
}

#[tokio::test]
async fn the_digitized_queue_is_requested_without_a_company() {
    let bench = Bench::with("page_size=4", |config| {
        let account = account_settings(config);
        account.digitized = true;
    })
    .await;
    for code in [COMPANY, NEIGHBOR, COMPANY] {
        let digitized = bench.control.digitize(DEFAULT_KEY, code, 5);
        digitized.expect("a known company");
    }
    bench.settle().await;
    bench.assert_complete(&digitized()).await;
    let counters = bench.control.requests();
    let queries = counters.queries(Endpoint::Digitized);
    assert!(queries.len() > 2, "{queries:?}");
    for (index, query) in queries.into_iter().enumerate() {
        assert_eq!(query.starts_with("from="), index > 0, "{query}");
        assert!(!query.contains('&'), "{query}");
    }
}

#[test]
fn u17_a_company_code_is_read_in_every_form() {
    for message in [
        json!({ "companyCode": COMPANY }),
        json!({ "companycode": COMPANY }),
        json!({ "companyCode": 302_320_404 }),
        json!({ "COMPANYCODE": format!(" {COMPANY} "), "more": Value::Null }),
    ] {
        let read = Announcement::read(&message.to_string());
        assert_eq!(read, Announcement::Company(company(COMPANY)), "{message}");
    }
    let event = Publication::exported(COMPANY).event;
    assert_eq!(Event::from(event), Event::OnExported);
}

#[tokio::test]
async fn a_worker_that_outlives_its_lease_writes_nothing() {
    let bench = Bench::caught_up("").await;
    bench.export(COMPANY, 5).await;
    bench.control.reset_requests();
    bench.fault(Fault::new(FaultKind::Hang));
    let slow = bench.another_puller();
    let slow_step = tokio::spawn(async move { slow.pull_page().await });
    bench.control.requests_reached(Endpoint::Exported, 1).await;
    bench.clock.advance(bench.config.pull.lease + seconds(1));
    let second = bench.another_puller();
    let mut quick = tokio::spawn(async move { settle(&second).await });
    tokio::select! {
        _ = &mut quick => panic!("the second request does not hang"),
        () = bench.control.requests_reached(Endpoint::Exported, 2) => {}
    }
    bench.control.clear_faults();
    let slow_outcome = slow_step.await.expect("the task ends").expect("the store");
    quick.await.expect("the task ends");
    assert!(
        matches!(slow_outcome, PullOutcome::Stale { .. }),
        "{slow_outcome:?}"
    );
    bench.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn a_dropped_step_is_repeated_once_its_lease_expires() {
    let bench = Bench::caught_up("").await;
    bench.export(COMPANY, 5).await;
    bench.fault(Fault::new(FaultKind::Hang));
    bench.control.reset_requests();
    tokio::select! {
        pulled = bench.step() => panic!("{pulled:?}"),
        () = bench.control.requests_reached(Endpoint::Exported, 1) => {}
    }
    bench.control.clear_faults();
    assert_eq!(
        bench.step().await,
        PullOutcome::Nothing,
        "the lease still holds"
    );
    bench.clock.advance(bench.config.pull.lease);
    bench.settle().await;
    bench.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn reconciliation_starts_at_a_saved_cursor_a_day_old() {
    let bench = Bench::caught_up("").await;
    for _ in 0..30 {
        bench.export(COMPANY, 1).await;
        bench.run_for(hours(1)).await;
    }
    bench.control.reset_requests();
    bench.run_for(hours(1)).await;
    let queries = bench.queries();
    let from = queries[0].strip_prefix("from=").expect("a cursor");
    let from = Timestamp::parse(&from.replace("%3A", ":")).expect("a time");
    let age = bench.clock.now().since(from);
    assert!(age >= hours(24) && age <= hours(26), "{age:?}");
    bench.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn a_day_of_quiet_costs_a_bounded_number_of_requests() {
    let bench = Bench::caught_up("").await;
    bench.export(COMPANY, 250).await;
    bench.run_for(hours(30)).await;
    bench.control.reset_requests();
    bench.run_for(Duration::from_secs(24 * 3600)).await;
    assert!(bench.requests() <= 24 * 3, "{}", bench.requests());
}
