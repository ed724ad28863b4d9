//! The admin API against its OpenAPI document.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use ivesk_webhook::admin;
use ivesk_webhook::api::Page;
use ivesk_webhook::api::alarms::Alarm;
use ivesk_webhook::api::audit::Action;
use ivesk_webhook::api::deliveries::Delivery;
use ivesk_webhook::api::destinations::{Destination, Lane, StartPlan};
use ivesk_webhook::api::documents::FoundDocuments;
use ivesk_webhook::api::feeds::{FeedStatus, Gap};
use ivesk_webhook::api::import_errors::ImportError;
use ivesk_webhook::api::messages::{Notification, QuarantinedMessage, WithBody};
use ivesk_webhook::api::status::{Activity, Status};
use ivesk_webhook::api::subscriptions::{ShownCertificate, Subscription};
use ivesk_webhook::api::tokens::Token;
use ivesk_webhook::api::uploads::Upload;
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::pages::{filled, reject};
use crate::support::app::{ADMIN_TOKEN, TestApp};
use crate::support::fake_sns::{FOREIGN_TOPIC, Message};
use crate::support::skip::skip;

async fn document(app: &TestApp) -> Value {
    let request = app.admin_request(Method::GET, "/v1/openapi.json");
    let answer = request.send().await.expect("an answer");
    serde_json::from_str(&answer.text().await.expect("text")).expect("JSON")
}

/// Returns the methods that the document lists for each path.
fn described(document: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let paths = document["paths"].as_object().expect("paths");
    paths
        .iter()
        .map(|(path, item)| {
            let methods = item.as_object().expect("an item").keys();
            (
                path.clone(),
                methods.map(|name| name.to_uppercase()).collect(),
            )
        })
        .collect()
}

/// Returns the router's paths, which only its debug text lists.
fn routed(app: &TestApp) -> BTreeSet<String> {
    let text = format!("{:?}", admin::router(app.service().app().clone()));
    let paths = text.split('"').filter(|part| part.starts_with('/'));
    // Pages are not part of the API.
    let is_api = |path: &&str| {
        path.starts_with("/v1/") || ["/metrics", "/healthz", "/readyz"].contains(path)
    };
    let ours = paths.filter(is_api);
    ours.map(str::to_owned).collect()
}

#[tokio::test]
async fn the_document_describes_exactly_the_routes() {
    let app = TestApp::spawn().await;
    let described = described(&document(&app).await);
    let routed = routed(&app);
    assert!(routed.len() > 20, "the router lists its paths: {routed:?}");
    let names: BTreeSet<String> = described.keys().cloned().collect();
    assert_eq!(names, routed);

    for (path, methods) in described {
        let path = path.replace("{id}", "0");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let known = Method::from_bytes(method.as_bytes()).expect("a method");
            let request = app.admin_request(known, &path).body("?");
            let status = request.send().await.expect("an answer").status();
            // The body is no JSON, so the request changes nothing.
            let is_allowed = status != 405;
            assert_eq!(
                is_allowed,
                methods.contains(method),
                "{method} {path}: {status}"
            );
        }
    }
}

#[tokio::test]
async fn every_operation_names_its_problems_answer_and_rights() {
    let app = TestApp::spawn().await;
    let document = document(&app).await;
    assert_eq!(document["openapi"], "3.1.0");
    let bearer = &document["components"]["securitySchemes"]["bearer"];
    assert_eq!(bearer["scheme"], "bearer", "{bearer}");
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            let responses = operation["responses"].as_object().expect("responses");
            let text = operation.to_string();
            assert!(
                !operation["summary"].as_str().unwrap_or_default().is_empty(),
                "{path}"
            );
            assert!(responses["200"]["content"].is_object(), "{path}: {text}");
            if path.ends_with('z') {
                continue;
            }
            let rights = operation["security"][0]["bearer"]
                .as_array()
                .expect("rights");
            assert_eq!(rights.len(), 1, "{path}");
            let mut expected = vec!["401", "403", "429", "503"];
            if method == "post" {
                expected.extend(["400", "408", "413", "415"]);
                assert!(operation["requestBody"].is_object(), "{path}");
            }
            if path.contains("{id}") {
                expected.extend(["400", "404"]);
            }
            for status in expected {
                let content = &responses[status]["content"];
                assert!(
                    content["application/problem+json"].is_object(),
                    "{path} {status}"
                );
            }
        }
    }
}

/// Checks that the answer to a GET is the same once a command has read it as a `T`.
async fn reads_back<T: Serialize + DeserializeOwned>(app: &TestApp, path: &str) {
    let answer = app.admin(path).await;
    let has_rows = answer.get("rows").is_none_or(|rows| rows != &json!([]));
    // Nothing is missing.
    assert!(has_rows || path == "/v1/feeds/gaps", "{path}: {answer}");
    let read: T = serde_json::from_value(answer.clone())
        .unwrap_or_else(|error| panic!("{path}: {error}: {answer}"));
    assert_eq!(json!(read), answer, "{path}");
}

#[tokio::test]
async fn a_command_reads_every_answer_whole() {
    let app = filled(|_| {}).await;
    reject(&app, 3).await;
    let token = json!({"name": "monitoring", "rights": "metrics"});
    assert_eq!(app.admin_post("/v1/tokens", &token).await.0, 200);

    reads_back::<Status>(&app, "/v1/status").await;
    reads_back::<Activity>(&app, "/v1/activity").await;
    reads_back::<Page<FeedStatus>>(&app, "/v1/feeds").await;
    reads_back::<Page<Gap>>(&app, "/v1/feeds/gaps").await;
    reads_back::<Page<Subscription>>(&app, "/v1/subscriptions").await;
    reads_back::<Page<ShownCertificate>>(&app, "/v1/certificates").await;
    reads_back::<FoundDocuments>(&app, "/v1/documents/search").await;
    reads_back::<Page<Destination>>(&app, "/v1/destinations").await;
    reads_back::<Page<Lane>>(&app, "/v1/destinations/ledger/lanes").await;
    reads_back::<StartPlan>(&app, "/v1/destinations/ledger/start?from=all").await;
    reads_back::<Page<Delivery>>(&app, "/v1/deliveries").await;
    reads_back::<Page<ImportError>>(&app, "/v1/import-errors").await;
    reads_back::<Page<QuarantinedMessage>>(&app, "/v1/quarantine").await;
    reads_back::<WithBody<QuarantinedMessage>>(&app, "/v1/quarantine/1").await;
    reads_back::<Page<Notification>>(&app, "/v1/notifications").await;
    reads_back::<WithBody<Notification>>(&app, "/v1/notifications/1").await;
    reads_back::<Page<Upload>>(&app, "/v1/uploads").await;
    reads_back::<Page<Alarm>>(&app, "/v1/alarms").await;
    reads_back::<Page<Action>>(&app, "/v1/audit").await;
    reads_back::<Page<Token>>(&app, "/v1/tokens").await;
}

/// Returns schemathesis, which compares a running API with its document; skips the test and
/// returns `None` if it is not installed.
fn schemathesis() -> Option<PathBuf> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/bin/st");
    let configured = std::env::var_os("IVESK_WEBHOOK_TEST_SCHEMATHESIS").map(PathBuf::from);
    let program = configured.unwrap_or(installed);
    if program.is_file() {
        return Some(program);
    }
    let why = format!("there is no {}; .ci/run installs it", program.display());
    let required = "IVESK_WEBHOOK_TEST_REQUIRE_SCHEMATHESIS";
    skip("the API against its document", required, &why);
    None
}

#[tokio::test]
async fn answers_to_generated_requests_match_the_document() {
    let Some(program) = schemathesis() else {
        return;
    };
    let app = TestApp::spawn().await;
    // A row in each list.
    app.deliver(&Message::notification(&app.sns)).await;
    app.deliver(&Message::notification(&app.sns).of_topic(FOREIGN_TOPIC))
        .await;

    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/admin/schemathesis.toml");
    let address = app.config().admin.listen;
    let output = tokio::process::Command::new(program)
        .current_dir(app.dir())
        .arg("--config-file")
        .arg(settings)
        .arg("run")
        .arg(format!("http://{address}/v1/openapi.json"))
        .args(["--header", &format!("Authorization: Bearer {ADMIN_TOKEN}")])
        .env_remove("HTTP_PROXY")
        .env_remove("http_proxy")
        .stdin(Stdio::null())
        .output()
        .await
        .expect("it runs");
    let report = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}\n{errors}");
    let count = |what: &str| {
        let mut lines = report.lines();
        let line = lines.find_map(|line| line.trim().strip_prefix(what));
        line.map(|line| line.trim().to_owned())
    };
    let (tested, described) = (count("Tested:"), count("Selected:"));
    let tested: usize = tested.and_then(|text| text.parse().ok()).expect("a count");
    assert_eq!(described, Some(format!("{tested}/{tested}")), "{report}");
    assert!(tested > 20, "{report}");
}
