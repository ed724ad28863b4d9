//! `verify`.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use ivesk_webhook::emulator::signer::Unsigned;
use ivesk_webhook::sns::MessageType;
use serde_json::{Value, json};

use crate::support::sns::*;

/// Writes messages into a folder, and their certificate into `certs`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let certs = folder.path().join("certs");
    std::fs::create_dir(&certs).unwrap();
    let name = SIGNER.certificate_path();
    std::fs::write(certs.join(&name[1..]), SIGNER.certificate_pem()).unwrap();
    let write = |name: &str, body: &str| std::fs::write(folder.path().join(name), body).unwrap();
    write("good.json", &signed(&notification()));
    write(
        "confirmation.json",
        &signed(&unsigned(MessageType::SubscriptionConfirmation)),
    );
    write(
        "tampered.json",
        &signed(&notification()).replace("302320404", "302320405"),
    );
    write(
        "stranger.json",
        &signed(&Unsigned {
            topic_arn: STRANGERS_TOPIC.to_owned(),
            ..notification()
        }),
    );
    write(
        "evil-subscribe-url.json",
        &signed(&Unsigned {
            subscribe_url: Some(subscribe_url("https://evil.example")),
            ..unsigned(MessageType::SubscriptionConfirmation)
        }),
    );
    write("text.json", "hello");
    folder
}

fn verify(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().unwrap()
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ivesk-webhook"));
    command
        .current_dir(folder)
        .env_clear()
        .args(["verify", "--certs", "certs", "--at", NOW])
        .args(args);
    command
}

fn lines(output: &Output) -> Vec<Value> {
    String::from_utf8(output.stdout.clone())
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn one_json_line_is_printed_for_each_file_in_order() {
    let folder = folder();
    let output = verify(
        folder.path(),
        &["--json", "good.json", "tampered.json", "text.json"],
    );

    let certificate = json!({
        "subject": "CN=sns.amazonaws.com",
        "not_before": "2026-01-01T00:00:00.000Z",
        "not_after": "2026-12-31T23:59:59.000Z",
    });
    assert_eq!(
        lines(&output),
        [
            json!({
                "file": "good.json", "verdict": "valid", "reason": null,
                "type": "Notification", "message_id": notification().message_id,
                "topic_arn": TOPIC, "certificate": certificate,
            }),
            json!({
                "file": "tampered.json", "verdict": "invalid", "reason": "signature_mismatch",
                "type": "Notification", "message_id": notification().message_id,
                "topic_arn": TOPIC, "certificate": certificate,
            }),
            json!({
                "file": "text.json", "verdict": "invalid", "reason": "malformed_json",
                "type": null, "message_id": null, "topic_arn": null, "certificate": null,
            }),
        ]
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn exit_codes_are_0_for_valid_1_for_invalid_2_for_unreadable() {
    let folder = folder();
    let exit = |args: &[&str]| verify(folder.path(), args).status.code();

    assert_eq!(exit(&["good.json", "confirmation.json"]), Some(0));
    assert_eq!(exit(&["good.json", "tampered.json"]), Some(1));
    assert_eq!(exit(&["good.json", "missing.json"]), Some(2));
    assert_eq!(exit(&["missing.json", "tampered.json"]), Some(2));
    assert_eq!(exit(&["."]), Some(2), "a folder is no file");
    assert_eq!(exit(&[]), Some(2));
    assert_eq!(exit(&["--at", "yesterday", "good.json"]), Some(2));
    let output = verify(folder.path(), &["--json", "missing.json", "good.json"]);
    assert_eq!(
        lines(&output).len(),
        1,
        "the others are verified nevertheless"
    );
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("missing.json"), "{message}");
}

#[test]
fn any_topic_lifts_the_allowlist_and_nothing_else() {
    let folder = folder();
    let reason = |args: &[&str]| {
        let output = verify(folder.path(), &[&["--json"], args].concat());
        lines(&output)[0]["reason"].clone()
    };

    assert_eq!(reason(&["stranger.json"]), json!("topic_not_allowed"));
    assert_eq!(reason(&["--any-topic", "stranger.json"]), json!(null));
    assert_eq!(
        reason(&["--any-topic", "tampered.json"]),
        json!("signature_mismatch")
    );
    assert_eq!(
        reason(&["--any-topic", "evil-subscribe-url.json"]),
        json!("untrusted_subscribe_url")
    );
}

#[test]
fn at_sets_the_clock_for_the_certificate_and_ignores_age() {
    let folder = folder();
    let reason = |at: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_ivesk-webhook"))
            .current_dir(folder.path())
            .env_clear()
            .args([
                "verify",
                "--json",
                "--certs",
                "certs",
                "--at",
                at,
                "good.json",
            ])
            .output()
            .unwrap();
        lines(&output)[0]["reason"].clone()
    };

    assert_eq!(reason("2026-12-31T00:00:00Z"), json!(null), "weeks later");
    assert_eq!(
        reason("2026-01-02T00:00:00Z"),
        json!(null),
        "before it was sent"
    );
    assert_eq!(reason("2027-01-02T00:00:00Z"), json!("certificate_dates"));
    assert_eq!(reason("2025-01-02T00:00:00Z"), json!("certificate_dates"));
}

#[test]
fn a_message_is_read_from_standard_input_too() {
    let folder = folder();
    let mut child = command(folder.path(), &["--json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(signed(&notification()).as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();

    assert_eq!(lines(&output)[0]["file"], "-");
    assert_eq!(lines(&output)[0]["verdict"], "valid");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_certificate_missing_from_the_folder_is_not_fetched() {
    let folder = folder();
    let body = OTHER_SIGNER.sign(&notification(), 1, &sns_url(&OTHER_SIGNER));
    std::fs::write(folder.path().join("other.json"), body).unwrap();

    let output = verify(folder.path(), &["--json", "other.json"]);
    assert_eq!(lines(&output)[0]["reason"], "certificate_unavailable");
    assert_eq!(lines(&output)[0]["certificate"], Value::Null);

    let output = verify(folder.path(), &["other.json"]);
    let table = String::from_utf8(output.stdout).unwrap();
    let path = OTHER_SIGNER.certificate_path();
    assert!(table.contains(&path[1..20]), "{table}");

    let output = Command::new(env!("CARGO_BIN_EXE_ivesk-webhook"))
        .current_dir(folder.path())
        .args(["verify", "--certs", "nowhere", "good.json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_file_that_is_too_large_is_not_read_to_its_end() {
    let folder = folder();
    let file = std::fs::File::create(folder.path().join("huge.json")).unwrap();
    file.set_len(50 * 1024 * 1024 * 1024).unwrap();

    let output = verify(folder.path(), &["--json", "huge.json"]);

    assert_eq!(lines(&output)[0]["reason"], "body_too_large");
}

#[test]
fn the_table_shows_the_reason() {
    let folder = folder();
    let output = verify(folder.path(), &["good.json", "tampered.json"]);
    let table = String::from_utf8(output.stdout).unwrap();

    assert!(
        table.contains("good.json") && table.contains("valid"),
        "{table}"
    );
    assert!(table.contains("signature_mismatch"), "{table}");
    assert!(table.contains("CN=sns.amazonaws.com"), "{table}");
}
