//! The recorded messages and pages of `fixtures/`, and a user's own recordings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::RawQuery;
use axum::routing::get;
use ivesk_webhook::domain::Event;
use ivesk_webhook::emulator::{DEFAULT_COMPANIES, Publication, Tamper};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::net::TcpListener;

use crate::support::emulator::emulator;
use crate::support::process::{Installation, Port, program, within};

/// A moment at which the messages were recent.
const AT: &str = "2026-01-15T09:00:00Z";

fn fixtures(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(part)
}

/// Returns the paths of a folder's files whose names begin with `prefix`.
fn files(folder: &Path, prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut files: Vec<String> = entries
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path().to_string_lossy().into_owned())
        .collect();
    files.sort();
    files
}

fn json_of(file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(file).expect("a file")).expect("JSON")
}

/// Runs `verify --json`; returns the exit code and a verdict for each file.
async fn verify(arguments: &[&str], files: &[String]) -> (Option<i32>, Vec<Value>) {
    let mut command = program();
    command
        .args(["verify", "--json"])
        .args(arguments)
        .args(files);
    let output = within("the verdicts", command.output())
        .await
        .expect("it runs");
    let verdicts = String::from_utf8(output.stdout).expect("text");
    let verdicts = verdicts
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    (output.status.code(), verdicts.collect())
}

/// Runs `replay`; returns exit code and output.
async fn replay(to: &str, more: &[&str], files: &[String]) -> (Option<i32>, String) {
    let mut command = program();
    command.args(["replay", "--to", to]).args(more).args(files);
    let output = within("the answers", command.output())
        .await
        .expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("text"))
}

#[tokio::test]
async fn recorded_messages_of_all_types_are_genuine_at_their_time() {
    let files = files(&fixtures("notifications"), "");
    assert_eq!(files.len(), 13);
    let certs = fixtures("certs").to_string_lossy().into_owned();

    let (code, verdicts) = verify(&["--certs", &certs, "--at", AT], &files).await;

    assert_eq!(code, Some(0), "{verdicts:#?}");
    assert_eq!(verdicts.len(), files.len());
    let mut kinds = BTreeMap::new();
    for (file, verdict) in files.iter().zip(&verdicts) {
        assert_eq!(verdict["verdict"], "valid", "{file}");
        let version = json_of(file)["SignatureVersion"].to_string();
        *kinds
            .entry((verdict["type"].to_string(), version))
            .or_insert(0) += 1;
    }
    assert_eq!(
        kinds.len(),
        6,
        "three types, two signature versions: {kinds:?}"
    );
    // The certificate has expired by then.
    let later = ["--certs", &certs, "--at", "2027-06-01T00:00:00Z"];
    let (code, verdicts) = verify(&later, &files).await;
    assert_eq!(code, Some(1));
    assert!(
        verdicts
            .iter()
            .all(|verdict| verdict["verdict"] == "invalid")
    );
}

#[tokio::test]
async fn a_recorded_message_with_one_letter_changed_is_not_genuine() {
    let folder = tempfile::tempdir().expect("a folder");
    let certs = fixtures("certs").to_string_lossy().into_owned();
    let mut changed = Vec::new();
    for file in files(&fixtures("notifications"), "") {
        let body = std::fs::read_to_string(&file).expect("text");
        let at = body.find("\"Message\" : ").expect("a message") + 16;
        let letter = if &body[at..=at] == "x" { "y" } else { "x" };
        let mut body = body;
        body.replace_range(at..=at, letter);
        let name = Path::new(&file).file_name().expect("a name");
        let path = folder.path().join(name);
        std::fs::write(&path, body).expect("written");
        changed.push(path.to_string_lossy().into_owned());
    }

    let (code, verdicts) = verify(&["--certs", &certs, "--at", AT], &changed).await;

    assert_eq!(code, Some(1));
    assert!(
        verdicts
            .iter()
            .all(|verdict| verdict["verdict"] == "invalid"),
        "{verdicts:#?}"
    );
}

#[test]
fn the_sample_has_the_shape_of_the_vendors_own() {
    let sample = json_of(&fixtures("notifications/vendor-sample.json").to_string_lossy());
    assert_eq!(sample["SignatureVersion"], "1");
    assert_eq!(
        sample["TopicArn"],
        "arn:aws:sns:eu-west-1:007272210889:DPWebHook_onexport"
    );
    assert_eq!(sample["Message"], "{\"companyCode\":\"302320404\"}");
    let account = sample["MessageAttributes"]["account"]["Value"].as_str();
    assert!(uuid::Uuid::try_parse(account.expect("text")).is_ok());
}

#[tokio::test]
async fn resigned_recordings_are_accepted_and_old_ones_are_not() {
    let port = Port::reserve();
    let sign_port = port.number.to_string();
    // Confirmations wait for a person, so that Amazon's SubscribeURL is not requested.
    let installation = Installation::alone(&format!(
        "[sns]\nconfirm = \"ask\"\nlocal_origins = [\"http://127.0.0.1:{sign_port}\"]"
    ));
    let server = installation.start().await;
    let notifications = fixtures("notifications");
    let sign = ["--re-sign", "--sign-port", &sign_port];
    let fresh = ["--re-sign", "--sign-port", &sign_port, "--fresh"];

    for (event, prefixes) in [
        (Event::OnExported, ["on_exported-", "vendor-sample"]),
        (
            Event::OnDigitized,
            ["on_digitized-", "on_digitized-notification-v2"],
        ),
    ] {
        for prefix in prefixes {
            let files = files(&notifications, prefix);
            assert!(!files.is_empty());
            let (code, output) = replay(&installation.webhook(event), &fresh, &files).await;
            assert_eq!(code, Some(0), "{output}\n{}", server.log());
        }
    }
    let sample = files(&notifications, "vendor-sample");
    let (code, output) = replay(&installation.webhook(Event::OnExported), &sign, &sample).await;
    assert_eq!(code, Some(1), "it is older than `sns.max_age`: {output}");
    assert!(output.contains("403"), "{output}");

    let (code, listed, errors) = installation.run(&["notifications", "list", "--json"]).await;
    assert_eq!(code, Some(0), "{errors}");
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for row in listed.as_array().expect("a list") {
        *kinds
            .entry(format!("{} {}", row["event"], row["kind"]))
            .or_default() += 1;
    }
    let expected = [
        ("\"on_digitized\" \"Notification\"", 3),
        ("\"on_digitized\" \"SubscriptionConfirmation\"", 2),
        ("\"on_digitized\" \"UnsubscribeConfirmation\"", 2),
        ("\"on_exported\" \"Notification\"", 3),
        ("\"on_exported\" \"SubscriptionConfirmation\"", 2),
        ("\"on_exported\" \"UnsubscribeConfirmation\"", 2),
    ];
    let kinds: Vec<_> = kinds
        .iter()
        .map(|(kind, count)| (kind.as_str(), *count))
        .collect();
    assert_eq!(kinds, expected);
}

/// Returns a page of all documents after a `from` that names one of the first page.
fn rest(first: &str, last: &str, query: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        documents: Vec<&'a RawValue>,
        next: Option<String>,
    }
    let read = |page| serde_json::from_str::<Page<'_>>(page).expect("a page");
    let (_, from) =
        url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "from")?;
    let names = |document: &&RawValue| document.get().contains(&format!("\"{from}\""));
    let (first, last) = (read(first), read(last));
    let index = first.documents.iter().position(names)?;
    let documents = first.documents[index + 1..].iter().chain(&last.documents);
    let documents: Vec<&str> = documents.map(|document| document.get()).collect();
    let next = serde_json::to_string(&last.next).expect("JSON");
    Some(format!(
        "{{\"documents\":[{}],\"next\":{next}}}",
        documents.join(",")
    ))
}

/// Starts an Įvesk.lt that answers with recorded pages; returns its origin.
async fn recorded_vendor(last: &'static str) -> String {
    let page =
        |name: String| std::fs::read_to_string(fixtures("pages").join(name)).expect("a page");
    let answer = move |queue: &'static str| {
        let first = page(format!("{queue}-first.json"));
        let last = page(format!("{queue}-{last}.json"));
        let after = page(format!("{queue}-after-last.json"));
        get(move |RawQuery(query): RawQuery| {
            let from = query.unwrap_or_default();
            let follows = |page: &str| {
                let page: Value = serde_json::from_str(page).expect("JSON");
                let next = page["next"].as_str().map(str::to_owned);
                next.is_some_and(|next| {
                    let query = url::form_urlencoded::parse(from.as_bytes());
                    query
                        .into_iter()
                        .any(|(name, value)| name == "from" && value == next)
                })
            };
            let page = match from.as_str() {
                "" => first.clone(),
                _ if follows(&first) => last.clone(),
                _ => rest(&first, &last, &from).unwrap_or_else(|| after.clone()),
            };
            std::future::ready(([("content-type", "application/json")], page))
        })
    };
    let routes = Router::new()
        .route("/exported/302320404", answer("exported"))
        .route("/digitized", answer("digitized"));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let origin = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    origin
}

#[tokio::test]
async fn recorded_pages_are_pulled_with_and_without_a_last_next() {
    for last in ["last", "last-without-next"] {
        let origin = recorded_vendor(last).await;
        let installation = Installation::with_key(&format!(
            "[api]\nurl = \"{origin}\"\nexported_path = \"path\"\n[accounts.default]\ncompanies = [\"302320404\"]"
        ));
        // The second pull finds nothing new.
        for _ in 0..2 {
            let (code, output, log) = installation.run(&["pull"]).await;
            assert_eq!(code, Some(0), "{last}: {output}{log}");
        }

        let (code, listed, errors) = installation.run(&["documents", "list", "--json"]).await;
        assert_eq!(code, Some(0), "{errors}");
        let rows: Vec<Value> = listed
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let stored: BTreeSet<(String, String)> = rows
            .iter()
            .map(|row| (row["queue"].to_string(), row["document_id"].to_string()))
            .collect();
        let mut recorded = BTreeSet::new();
        for queue in ["exported", "digitized"] {
            for name in ["first", last] {
                let file = fixtures("pages").join(format!("{queue}-{name}.json"));
                let page = json_of(&file.to_string_lossy());
                for document in page["documents"].as_array().expect("a list") {
                    recorded.insert((format!("\"{queue}\""), document["id"].to_string()));
                }
            }
        }
        assert_eq!(recorded.len(), 10);
        assert_eq!(stored, recorded, "{last}");
        assert_eq!(rows.len(), 10, "{last}: each once");
    }
}

/// Exports `what` into a folder; returns the files that were printed, one a line.
async fn export(installation: &Installation, what: &str, folder: &str) -> Vec<String> {
    let folder = installation.folder().join(folder);
    let folder = folder.to_string_lossy();
    let (code, printed, errors) = installation.run(&[what, "export", &folder]).await;
    assert_eq!(code, Some(0), "{errors}");
    printed.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_users_recordings_can_be_verified_and_replayed() {
    let emulator = emulator("").await;
    let control = emulator.control();
    let installation = Installation::beside(&emulator, "", "");
    let _server = installation.start().await;
    installation.subscribe(&control, &[Event::OnExported]).await;
    let company = DEFAULT_COMPANIES[0];
    let sent = Publication::exported(company);
    let mut ids = vec![control.notify(&sent).expect("sent")];
    let signature_version = Some(2);
    let second = Publication {
        signature_version,
        ..sent.clone()
    };
    ids.push(control.notify(&second).expect("sent"));
    let tamper = Tamper::Message;
    control
        .notify(&Publication {
            tamper,
            ..sent.clone()
        })
        .expect("sent");
    let stranger = "arn:aws:sns:eu-west-1:111122223333:DPWebHook_onexport".to_owned();
    control
        .notify(&Publication {
            topic_arn: Some(stranger),
            ..sent
        })
        .expect("sent");
    within("the messages", control.idle()).await;

    let good = export(&installation, "notifications", "good").await;
    let bad = export(&installation, "quarantine", "bad").await;
    assert_eq!((good.len(), bad.len()), (3, 2), "one is the confirmation");

    // Verified with the same settings, while the certificate is still served.
    let settings = installation.settings().to_string_lossy().into_owned();
    let (code, verdicts) = verify(&["--config", &settings], &good).await;
    assert_eq!(code, Some(0), "{verdicts:#?}");
    let (code, verdicts) = verify(&["--config", &settings], &bad).await;
    assert_eq!(code, Some(1));
    let reasons: BTreeSet<String> = verdicts.iter().map(|v| v["reason"].to_string()).collect();
    assert_eq!(reasons.len(), 2, "{verdicts:#?}");

    // Replayed to another server that trusts the same SNS.
    let other = Installation::beside(&emulator, "", "");
    let _other_server = other.start().await;
    let notifications: Vec<String> = good
        .iter()
        .filter(|file| json_of(file)["Type"] == "Notification")
        .cloned()
        .collect();
    let (code, output) = replay(&other.webhook(Event::OnExported), &[], &notifications).await;
    assert_eq!(code, Some(0), "{output}");
    let (code, output) = replay(&other.webhook(Event::OnExported), &[], &bad).await;
    assert_eq!(code, Some(1), "{output}");
    for reason in reasons {
        let reason = reason.trim_matches('"');
        assert!(output.contains(reason), "{reason}: {output}");
    }
    let (_, listed, _) = other.run(&["notifications", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let rows = listed.as_array().expect("a list");
    let mut stored: Vec<&str> = rows
        .iter()
        .filter_map(|row| row["message_id"].as_str())
        .collect();
    stored.sort_unstable();
    ids.sort_unstable();
    assert_eq!(stored, ids);
}
