//! Metrics, and the alert rules and the dashboard that use them.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use ivesk_webhook::config::default_account;
use ivesk_webhook::domain::{DestinationName, Queue};
use ivesk_webhook::emulator::signer::Signer;
use ivesk_webhook::store::{CertificateRow, DestinationFilter, PauseChange};
use serde_json::Value;

use crate::support::app::TestApp;
use crate::support::emulator::emulator;
use crate::support::fake_sns::{Message, SIGNER, start_time};
use crate::support::load::one_of_each;
use reqwest::Method;

use crate::support::process::{Installation, within};
use crate::support::puller::exported;
use crate::support::skip::skip;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns true if promtool is installed; else skips `test`.
fn has_promtool(test: &str) -> bool {
    let version = Command::new("promtool").arg("--version").output();
    let found = version.is_ok_and(|output| output.status.success());
    if !found {
        let why = "there is no promtool (Debian: prometheus)";
        skip(test, "IVESK_WEBHOOK_TEST_REQUIRE_PROMTOOL", why);
    }
    found
}

/// Runs promtool on `input`; returns true if it finds nothing wrong, and its output.
fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("promtool ends");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Requests `/metrics` with this `Accept` header; returns content type and text.
async fn scrape(installation: &Installation, accept: &str) -> (String, String) {
    let answer = installation
        .admin_request(Method::GET, "/metrics")
        .header("accept", accept)
        .send()
        .await
        .expect("an answer");
    let kind = answer.headers()["content-type"].to_str().expect("text");
    (kind.to_owned(), answer.text().await.expect("text"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_accepts_the_metrics_of_a_server_that_has_worked() {
    let emulator = emulator("page_size=7").await;
    let control = emulator.control();
    let installation = Installation::beside(&emulator, "", "[pull]\nmin_interval = \"1ms\"\n");
    let server = installation.start().await;
    one_of_each(&control, &installation).await;

    // The reconciliation of the start may be faster, and find the documents first.
    let notified = r#"ivesk_webhook_pull_pages_total{kind="notification","#;
    let (kind, text) = within("a page that a notification triggered", async {
        loop {
            let scraped = scrape(&installation, "*/*").await;
            if scraped.1.contains(notified) {
                break scraped;
            }
        }
    })
    .await;
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    for series in [
        r#"ivesk_webhook_messages_total{event="on_exported",outcome="duplicate",code=""}"#,
        r#"ivesk_webhook_messages_total{event="on_exported",outcome="refused",code="signature_mismatch"} 1"#,
        r#"ivesk_webhook_vendor_requests_total{endpoint="exported",status="2xx"}"#,
        r#"ivesk_webhook_vendor_request_duration_seconds_count{endpoint="digitized"}"#,
        r#"ivesk_webhook_store_operation_duration_seconds_count{operation="accept"}"#,
        r#"ivesk_webhook_store_operation_duration_seconds_count{operation="page"}"#,
        r#"ivesk_webhook_store_queue_length{kind="messages"} 0"#,
        r#"ivesk_webhook_store_queue_length{kind="refused"} 0"#,
        r#"ivesk_webhook_feed_age_seconds{account="default",queue="exported",company="302320404"}"#,
    ] {
        assert!(text.contains(series), "{series}\n{text}");
    }
    if has_promtool("the metrics of a server that has worked") {
        let (passes, output) = promtool(&["check", "metrics"], &text);
        assert!(passes && output.is_empty(), "{output}\n{text}");
    }

    let (kind, text) = scrape(&installation, "application/openmetrics-text;version=1.0.0").await;
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    server.terminate();
    assert!(server.exited().await.0.success());
}

#[tokio::test]
async fn the_latest_certificate_expiry_of_a_host_is_exposed() {
    let app = TestApp::spawn().await;
    let older = Signer::generate("sns.amazonaws.com", start_time(), start_time().after(DAY));
    let older = older.expect("a certificate");
    for (url, pem) in [
        (
            "https://sns.eu-west-1.amazonaws.com/new.pem",
            SIGNER.certificate_pem(),
        ),
        (
            "https://sns.eu-west-1.amazonaws.com/old.pem",
            older.certificate_pem(),
        ),
        (
            "https://sns.eu-west-2.amazonaws.com/nonsense.pem",
            "nonsense",
        ),
    ] {
        let row = CertificateRow {
            url: url.to_owned(),
            pem: pem.as_bytes().to_vec(),
            fetched_at: start_time(),
        };
        app.store.keep_certificate(row).await.expect("stored");
    }

    let text = app.metrics().await;

    let expiry = start_time()
        .after(Duration::from_secs(30 * 86_400))
        .as_millis()
        / 1000;
    let series = format!(
        "ivesk_webhook_certificate_expiry_timestamp_seconds{{host=\"sns.eu-west-1.amazonaws.com\"}} {expiry}\n"
    );
    assert!(text.contains(&series), "{text}");
    assert_eq!(
        text.matches("certificate_expiry_timestamp_seconds{")
            .count(),
        1
    );
}

#[tokio::test]
async fn more_companies_than_the_limit_add_no_series() {
    let app = TestApp::spawn().await;
    let feeds = (0..2_100).map(|number| exported(&format!("{number:09}")));
    let registered = app
        .store
        .register_feeds(feeds.collect(), start_time())
        .await;
    registered.expect("feeds are registered");

    let text = app.metrics().await;

    assert!(text.contains("\nivesk_webhook_feeds 2100\n"));
    assert_eq!(text.matches("ivesk_webhook_feed_documents{").count(), 2_000);
}

const RULES: &str = include_str!("../../../docs/alerts/ivesk-webhook.rules.yml");
const DASHBOARD: &str = include_str!("../../../docs/grafana-dashboard.json");

#[test]
fn the_alert_rules_are_valid_and_fire_when_they_should() {
    let names = RULES
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let tested = include_str!("../../../docs/alerts/ivesk-webhook.test.yml");
    for name in names {
        let test = format!("- name: {name}\n");
        assert_eq!(tested.matches(&test).count(), 1, "{name} is tested");
    }
    if !has_promtool("the alert rules") {
        return;
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/alerts/");
    for (what, file) in [
        ("check", "ivesk-webhook.rules.yml"),
        ("test", "ivesk-webhook.test.yml"),
    ] {
        let file = format!("{folder}{file}");
        let (passes, output) = promtool(&[what, "rules", &file], "");
        assert!(passes, "{output}");
    }
}

/// Returns every panel of the dashboard with its queries.
fn panels() -> Vec<(Value, Vec<String>)> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").clone();
    let queries = |panel: &Value| {
        let targets = panel["targets"].as_array().into_iter().flatten();
        let text = |target: &Value| target["expr"].as_str().expect("a query").to_owned();
        targets.map(text).collect()
    };
    panels
        .into_iter()
        .map(|panel| (queries(&panel), panel))
        .map(|(queries, panel)| (panel, queries))
        .collect()
}

#[test]
fn the_dashboards_panels_do_not_overlap_and_its_queries_parse() {
    let mut occupied = BTreeSet::new();
    let mut ids = BTreeSet::new();
    let mut rules = "groups: [{name: g, rules: [\n".to_owned();
    for (panel, queries) in panels() {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}");
        let side = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
        assert!(side("x") + side("w") <= 24, "{title}");
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                assert!(occupied.insert((x, y)), "{title} overlaps another panel");
            }
        }
        assert_eq!(panel["type"] == "row", queries.is_empty(), "{title}");
        for query in queries {
            let query = query
                .replace("$__rate_interval", "5m")
                .replace("$instance", ".*");
            let query = Value::from(query);
            rules.push_str(&format!("{{record: 'r{}', expr: {query}}},\n", rules.len()));
        }
    }
    rules.push_str("]}]");
    if !has_promtool("the dashboard's queries") {
        return;
    }
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(rules.as_bytes()).expect("written");
    let path = file.path().to_str().expect("text");
    let (passes, output) = promtool(&["check", "rules", path], "");
    assert!(passes, "{output}");
}

/// Returns the names of our metrics in `text`.
fn names(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_name(c));
    let ours = words.filter(|word| word.starts_with("ivesk_webhook_"));
    ours.map(str::to_owned).collect()
}

/// Returns the names of the samples in an answer of `/metrics`.
fn exposed(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.split(['{', ' ']).next())
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_rules_and_dashboard_is_exposed() {
    let emulator = emulator("page_size=7").await;
    let control = emulator.control();
    let installation = Installation::beside(&emulator, "", "");
    let _server = installation.start().await;
    one_of_each(&control, &installation).await;
    let mut exposed_names = exposed(&scrape(&installation, "*/*").await.1);

    // Metrics that such a server does not have.
    let app = TestApp::spawn().await;
    app.deliver(&Message::ended(&app.sns)).await;
    let certificate = CertificateRow {
        url: "https://sns.eu-west-1.amazonaws.com/one.pem".to_owned(),
        pem: SIGNER.certificate_pem().as_bytes().to_vec(),
        fetched_at: start_time(),
    };
    app.store
        .keep_certificate(certificate)
        .await
        .expect("stored");
    let destination = DestinationName::parse("books").expect("a name");
    app.store
        .register_destinations(
            vec![(destination, DestinationFilter::all_of(Queue::Exported))],
            start_time(),
        )
        .await
        .expect("registered");
    app.store
        .register_feeds(vec![exported("1")], start_time())
        .await
        .expect("registered");
    let paused = app
        .store
        .set_paused(default_account(), None, PauseChange::Pause)
        .await;
    paused.expect("paused");
    exposed_names.extend(exposed(&app.metrics().await));

    for (what, text) in [("rules", RULES), ("dashboard", DASHBOARD)] {
        let named = names(text);
        assert!(named.len() > 10, "{what}: {named:?}");
        let unknown: Vec<_> = named.difference(&exposed_names).collect();
        assert!(unknown.is_empty(), "{what}: {unknown:?}\n{exposed_names:?}");
    }
}

#[test]
fn the_docs_explain_every_metric_of_rules_and_dashboard() {
    let page = include_str!("../../../docs/operating.md");
    let documented = names(page);
    let used: BTreeSet<_> = names(RULES).union(&names(DASHBOARD)).cloned().collect();
    let base = |name: &String| {
        let name = name.strip_suffix("_bucket").unwrap_or(name);
        name.to_owned()
    };
    let used: BTreeSet<_> = used.iter().map(base).collect();
    let missing: Vec<_> = used.difference(&documented).collect();
    assert!(
        missing.is_empty(),
        "docs/operating.md does not explain {missing:?}"
    );
}
