//! `serve`, `subscriptions create`, `replay`, and exports of messages.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use ivesk_webhook::domain::Event;

use crate::support::app::{PATH_TOKEN, TestApp};
use crate::support::fake_sns::{Message, STRANGER};

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ivesk-webhook"));
    command.env_clear();
    command
}

/// Runs a command on another thread, so that this one can answer it; returns exit code,
/// standard output and standard error.
async fn run(mut command: Command) -> (i32, String, String) {
    let output: Output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn write_settings(dir: &Path, more: &str) -> std::path::PathBuf {
    let path = dir.join("ivesk-webhook.toml");
    let settings = format!(
        "[public]\nurl = \"https://hooks.example.lt\"\nlisten = \"127.0.0.1:0\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n{more}\n\
         [accounts.default.tokens]\non_exported = [\"{PATH_TOKEN}-long-enough-to-be-taken-1\"]\n\
         on_digitized = [\"{PATH_TOKEN}-long-enough-to-be-taken-2\"]\n"
    );
    std::fs::write(&path, settings).unwrap();
    path
}

#[test]
fn serve_introduces_itself_and_stops_cleanly_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let settings = write_settings(dir.path(), "");
    let mut serve = binary()
        .arg("serve")
        .arg("--config")
        .arg(&settings)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(serve.stdout.take().unwrap()).lines();
    let mut introduction = String::new();
    // Missing settings are printed last.
    while !introduction.contains("API key of account") {
        match lines.next() {
            Some(line) => introduction.push_str(&(line.unwrap() + "\n")),
            None => break,
        }
    }

    let killed = Command::new("kill").arg(serve.id().to_string()).status();
    assert!(killed.unwrap().success());
    let output = serve.wait_with_output().unwrap();

    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{introduction}\n{log}");
    for expected in [
        "receives at 127.0.0.1:",
        "https://hooks.example.lt/webhooks/",
        "DPWebHook_* of AWS account 007272210889 in eu-west-1",
        "ivesk-webhook.db",
        "API key of account default",
    ] {
        assert!(
            introduction.contains(expected),
            "{expected}\n{introduction}"
        );
    }
    assert!(!introduction.contains(PATH_TOKEN), "{introduction}");
    assert!(!log.contains(PATH_TOKEN), "{log}");
}

#[tokio::test]
async fn subscribe_prints_what_to_send_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let settings = write_settings(dir.path(), "");
    let subscribe = |more: &[&str]| {
        let mut command = binary();
        command
            .args(["subscriptions", "create", "--config"])
            .arg(&settings);
        command.args(more);
        command
    };

    let (exit, printed, _) = run(subscribe(&["--print", "--event", "on_exported"])).await;
    assert_eq!(exit, 0);
    let target = format!(
        "https://hooks.example.lt/webhooks/default/on_exported/{PATH_TOKEN}-long-enough-to-be-taken-1"
    );
    assert!(
        printed.contains(&format!("target: {target}\n")),
        "{printed}"
    );
    let body = printed.lines().find(|line| line.starts_with('{')).unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let expected = serde_json::json!({
        "name": "ivesk-webhook-default-on_exported",
        "eventType": "on_exported",
        "target": target,
    });
    assert_eq!(body, expected);

    // Without the vendor's path, it prints the same, names the setting and fails.
    let (exit, printed, errors) = run(subscribe(&[])).await;
    assert_eq!(exit, 2);
    assert!(errors.contains("api.subscribe_path"), "{errors}");
    assert!(printed.contains("on_digitized"), "{printed}");
}

#[tokio::test]
async fn replay_sends_saved_messages_and_prints_each_answer() {
    let app = TestApp::spawn().await;
    let good = app.dir().join("good.json");
    let forged = app.dir().join("forged.json");
    std::fs::write(&good, Message::notification(&app.sns).body()).unwrap();
    let message = Message::notification(&app.sns).signed_by(&STRANGER);
    std::fs::write(&forged, message.body()).unwrap();
    let to = format!("http://{}{}", app.public(), app.webhook(Event::OnExported));
    let replay = |files: &[&Path], to: &str, more: &[&str]| {
        let mut command = binary();
        command
            .arg("replay")
            .args(files)
            .args(["--to", to])
            .args(more);
        command
    };

    let (exit, table, _) = run(replay(&[&good], &to, &["--count", "2"])).await;
    assert_eq!(exit, 0, "{table}");
    assert_eq!(table.matches("200").count(), 2, "{table}");
    assert_eq!(app.stored_ids().await.len(), 1);

    let (exit, table, _) = run(replay(&[&good, &forged], &to, &[])).await;
    assert_eq!(exit, 1, "{table}");
    assert!(table.contains("signature_mismatch"), "{table}");
    assert!(!table.contains(PATH_TOKEN), "{table}");

    let nobody = format!("http://127.0.0.1:9/{PATH_TOKEN}");
    let (exit, table, errors) = run(replay(&[&good], &nobody, &[])).await;
    assert_eq!(exit, 3, "{table}");
    assert!(
        !table.contains(PATH_TOKEN) && !errors.contains(PATH_TOKEN),
        "{table}{errors}"
    );

    let foreign = "https://hooks.example.lt/webhooks/default/on_exported/x";
    let (exit, _, errors) = run(replay(&[&good], foreign, &["--re-sign"])).await;
    assert_eq!(exit, 2, "{errors}");
}

#[tokio::test]
async fn exports_are_byte_for_byte() {
    let mut app = TestApp::spawn().await;
    let accepted = Message::notification(&app.sns).saying("ąžuolas \u{1f333}");
    let refused = Message::notification(&app.sns).signed_by(&STRANGER);
    app.deliver(&accepted).await;
    app.deliver(&refused).await;
    assert_eq!(app.quarantine().await.len(), 1);
    assert!(app.stop().await);

    let store = format!("[store]\nurl = \"{}\"", app.store_url());
    let settings = write_settings(app.dir(), &store);
    for (command, message) in [("notifications", &accepted), ("quarantine", &refused)] {
        let out = app.dir().join(command);
        let mut export = binary();
        export
            .arg("--config")
            .arg(&settings)
            .args([command, "export"])
            .arg(&out);
        let (exit, printed, errors) = run(export).await;
        assert_eq!(exit, 0, "{errors}");
        let file = Path::new(printed.trim());
        assert_eq!(file.parent(), Some(out.as_path()));
        assert_eq!(std::fs::read_to_string(file).unwrap(), message.body());
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(
            name.starts_with("2026-11-23T080000.000Z-on_exported-"),
            "{name}"
        );
    }
}
