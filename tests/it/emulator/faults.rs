//! Faults on demand, and counters of requests.

use ivesk_webhook::domain::Queue;
use ivesk_webhook::emulator::{Endpoint, Fault, FaultKind};
use serde_json::json;

use super::*;

#[tokio::test]
async fn a_forced_status_answers_every_api_request() {
    let bench = Bench::start("").await;
    for status in [401, 403, 404, 429, 500] {
        let switch = format!("status={status}");
        bench.switch(&switch);
        assert_eq!(bench.get("/digitized").await.status, status);
        assert_eq!(bench.post("/errors", &json!({})).await.status, status);
    }
    bench.switch("status=none");
    assert_eq!(bench.get("/digitized").await.status, 200);
}

#[tokio::test]
async fn retry_after_is_sent_with_429_and_503_only() {
    let bench = Bench::start("retry_after=7").await;
    for (status, expected) in [(429, Some("7")), (503, Some("7")), (500, None)] {
        let switch = format!("status={status}");
        bench.switch(&switch);
        let answer = bench.get("/digitized").await;
        let header = answer.headers.get("retry-after");
        assert_eq!(header.map(|value| value.to_str().expect("ASCII")), expected);
    }
}

#[tokio::test]
async fn an_error_body_is_json_html_or_empty() {
    let bench = Bench::start("status=500").await;
    assert!(!bench.get("/digitized").await.message().is_empty());
    bench.switch("error_body=html");
    assert!(
        bench
            .get("/digitized")
            .await
            .text()
            .starts_with("<!DOCTYPE html>")
    );
    bench.switch("error_body=empty");
    assert!(bench.get("/digitized").await.body.is_empty());
}

#[tokio::test]
async fn a_slow_answer_arrives_no_sooner_than_it_should() {
    let bench = Bench::start("slow_ms=40").await;
    let before = std::time::Instant::now();
    assert_eq!(bench.get("/digitized").await.status, 200);
    assert!(before.elapsed() >= Duration::from_millis(40));

    bench.switch("slow_ms=0");
    bench
        .control
        .fault(Fault::new(FaultKind::Slow { slow_ms: 40 }).times(1));
    let before = std::time::Instant::now();
    assert_eq!(bench.get("/digitized").await.status, 200);
    assert!(before.elapsed() >= Duration::from_millis(40));
}

#[tokio::test]
async fn a_hanging_request_is_answered_once_the_switch_is_off() {
    let bench = Bench::start("hang=on").await;
    let (answer, ()) = tokio::join!(bench.get("/digitized"), async {
        bench.control.requests_reached(Endpoint::Digitized, 1).await;
        assert_eq!(bench.control.requests().in_flight, 1);
        bench.switch("hang=off");
    });
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_hanging_request_is_answered_once_the_faults_are_cleared() {
    let bench = Bench::start("").await;
    bench.control.fault(Fault::new(FaultKind::Hang).times(1));
    let (answer, ()) = tokio::join!(bench.get("/digitized"), async {
        bench.control.requests_reached(Endpoint::Digitized, 1).await;
        bench.control.clear_faults();
    });
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_client_that_disconnects_is_no_longer_in_flight() {
    let bench = Bench::start("hang=on").await;
    {
        let waiting = bench.get("/digitized");
        let arrived = bench.control.requests_reached(Endpoint::Digitized, 1);
        tokio::select! {
            _ = waiting => panic!("it hangs"),
            () = arrived => {}
        }
    }
    while bench.control.requests().in_flight > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.control.requests().max_in_flight, 1);
}

#[tokio::test]
async fn corrupt_bodies_are_corrupted_as_their_faults_say() {
    let bench = Bench::start("").await;
    bench.digitize(3);
    let whole = bench.get("/digitized").await.body.len();

    bench
        .control
        .fault(Fault::new(FaultKind::TruncatedJson).times(1));
    let half = bench.get("/digitized").await;
    assert_eq!((half.status, half.body.len()), (200, whole / 2));
    assert!(serde_json::from_slice::<Value>(&half.body).is_err());

    bench
        .control
        .fault(Fault::new(FaultKind::HtmlPage).times(1));
    let html = bench.get("/digitized").await;
    assert_eq!(html.status, 200);
    assert!(html.text().starts_with("<!DOCTYPE html>"));

    bench
        .control
        .fault(Fault::new(FaultKind::BrokenBody).times(1));
    let url = format!("{}/digitized", bench.emulator.api_url());
    let response = bench
        .http
        .get(url)
        .header("x-api-key", DEFAULT_KEY)
        .send()
        .await;
    let response = response.expect("a head");
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err(), "the body must break off");

    bench.control.fault(
        Fault::new(FaultKind::Redirect {
            location: "/elsewhere".to_owned(),
        })
        .times(1),
    );
    let redirect = bench.get("/digitized").await;
    assert_eq!(redirect.status, 302);
    assert_eq!(redirect.headers["location"], "/elsewhere");
}

#[tokio::test]
async fn a_huge_page_is_valid_json_of_the_requested_size() {
    let bench = Bench::start("").await;
    bench
        .control
        .fault(Fault::new(FaultKind::HugePage { bytes: 3_000_000 }).times(1));
    let answer = bench.get("/digitized").await;
    assert!(answer.body.len() >= 3_000_000);
    assert_eq!(answer.json()["documents"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_fault_hits_its_company_or_queue_as_often_as_it_says() {
    let bench = Bench::start("").await;
    let own = format!("/exported/{COMPANY}");
    let other = format!("/exported/{NEIGHBOR}");
    bench.control.fault(
        Fault::status_retry_after(429, "3")
            .company(COMPANY)
            .times(2),
    );
    assert_eq!(bench.get(&other).await.status, 200);
    assert_eq!(bench.get("/digitized").await.status, 200);
    let hit = bench.get(&own).await;
    assert_eq!(
        (hit.status, &hit.headers["retry-after"]),
        (429, &"3".parse().expect("a value"))
    );
    assert_eq!(bench.get(&own).await.status, 429);
    assert_eq!(bench.get(&own).await.status, 200);

    bench
        .control
        .fault(Fault::status(503).queue(Queue::Exported));
    assert_eq!(bench.get("/digitized").await.status, 200);
    assert_eq!(bench.get(&own).await.status, 503);
    assert_eq!(bench.get(&other).await.status, 503);
    bench.control.clear_faults();
    assert_eq!(bench.get(&other).await.status, 200);
}

#[tokio::test]
async fn requests_are_counted_with_exact_queries_but_no_keys() {
    let bench = Bench::start("").await;
    let query = "from=2026-11-23T08%3A00%3A00.000Z&doctype=invoice";
    bench.get(&format!("/digitized?{query}")).await;
    bench
        .get(&format!("/digitized?x-api-key={DEFAULT_KEY}"))
        .await;
    bench.api_as(STRANGER_KEY, "GET", "/digitized", None).await;

    let counters = bench.control.requests();
    assert_eq!(counters.count(Endpoint::Digitized), 3);
    assert_eq!(
        counters.queries(Endpoint::Digitized),
        [query, "x-api-key=(redacted)", ""]
    );
    assert_eq!(counters.log[0].status, Some(200));
    let account = bench.control.account_id(DEFAULT_KEY).expect("known");
    assert_eq!(counters.log[0].account, Some(account));
    let printed = format!("{counters:?} {:?}", bench.control);
    assert!(!printed.contains(DEFAULT_KEY));

    bench.control.reset_requests();
    assert_eq!(bench.control.requests().count(Endpoint::Digitized), 0);
}

#[tokio::test]
async fn the_most_requests_in_flight_are_counted_for_each_account() {
    let bench = Bench::start("hang=on").await;
    let stranger = || bench.api_as(STRANGER_KEY, "GET", "/digitized", None);
    let (first, second, third, ()) = tokio::join!(
        bench.get("/digitized"),
        bench.get("/digitized"),
        stranger(),
        async {
            bench.control.requests_reached(Endpoint::Digitized, 3).await;
            bench.switch("hang=off");
        }
    );
    assert!(
        [first, second, third]
            .iter()
            .all(|answer| answer.status == 200)
    );
    let counters = bench.control.requests();
    let most = |key| {
        let id = bench.control.account_id(key).expect("known");
        counters.max_in_flight_by_account[&id]
    };
    assert_eq!((most(DEFAULT_KEY), most(STRANGER_KEY)), (2, 1));
    assert_eq!((counters.max_in_flight, counters.in_flight), (3, 0));
}

#[tokio::test]
async fn one_request_more_in_flight_than_allowed_answers_429() {
    let bench = Bench::start("hang=on,max_in_flight=1").await;
    let (first, second) = tokio::join!(bench.get("/digitized"), async {
        bench.control.requests_reached(Endpoint::Digitized, 1).await;
        let second = bench.get("/digitized").await;
        bench.switch("hang=off");
        second
    });
    assert_eq!((first.status, second.status), (200, 429));
    assert_eq!(bench.get("/digitized").await.status, 200);
}

#[tokio::test]
async fn the_control_api_does_over_http_what_the_handle_does() {
    let bench = Bench::start("").await;
    let control = async |operation: &str, body: &Value| {
        let url = format!("{}/control/{operation}", bench.emulator.origin());
        read(bench.http.post(url).body(body.to_string())).await
    };
    let digitized = control(
        "digitize",
        &json!({ "key": DEFAULT_KEY, "company": COMPANY }),
    )
    .await;
    let ids = digitized.json()["ids"].clone();
    let exported = control("export", &json!({ "company": COMPANY, "documents": ids })).await;
    assert_eq!(exported.json()["documents"][0]["id"], ids[0]);
    let truth = control(
        "documents",
        &json!({ "queue": "exported", "company": COMPANY }),
    )
    .await;
    assert_eq!(truth.json(), exported.json());

    let set = control("set_switches", &json!({ "switches": "ties=2" })).await;
    assert_eq!(set.json()["switches"]["ties"], "2");
    let wrong = control("set_switches", &json!({ "switches": "tie=2" })).await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.message().contains("tie"));
    assert_eq!(
        control("export", &json!({ "company": "none" }))
            .await
            .status,
        404
    );
    assert_eq!(control("export", &json!({})).await.status, 400);
    assert_eq!(control("explode", &json!({})).await.status, 404);

    let fault = json!({ "kind": "status", "status": 500, "times": 1 });
    assert_eq!(control("fault", &fault).await.status, 200);
    assert_eq!(bench.get("/digitized").await.status, 500);
    let moved = control("advance", &json!({ "ms": 1000 })).await;
    assert_eq!(moved.json()["now"], "2026-11-23T08:00:01.000Z");
    let counted = control("requests", &json!({})).await;
    assert_eq!(counted.json()["by_endpoint"]["digitized"], 1);
}
