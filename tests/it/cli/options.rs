//! Options of every command: width, colors, JSON, the log's level, and names that are not known.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::emulator::emulator;
use crate::support::process::{ADMIN_TOKEN, Installation};
use crate::support::terminal::on_terminal;

/// Returns the program with the settings of an installation.
fn command(installation: &Installation, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ivesk-webhook"));
    command
        .env_clear()
        .env("IVESK_WEBHOOK_CONFIG", installation.settings())
        .env("IVESK_WEBHOOK_ADMIN_TOKEN", ADMIN_TOKEN)
        .env("TERM", "xterm")
        .current_dir(installation.folder())
        .args(arguments);
    command
}

fn without_colors(text: &str) -> String {
    let mut plain = String::new();
    let mut parts = text.split('\u{1b}');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        plain.push_str(part.split_once('m').map_or("", |(_, rest)| rest));
    }
    plain
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_fit_the_terminal_unless_they_may_be_wide() {
    let emulator = emulator("status=401").await;
    let installation = Installation::beside(&emulator, "", "");
    let (code, _, errors) = installation.run(&["pull"]).await;
    assert_eq!(code, Some(1), "{errors}");
    let error = "the API key is invalid; make a new one at app.ivesk.lt/settings/general";
    let shown = |columns, arguments: &[&str]| {
        let finished = on_terminal(command(&installation, arguments), columns, &[]);
        assert!(finished.status.success(), "{}", finished.shown);
        finished.shown
    };
    for columns in [80, 100] {
        let narrow = shown(columns, &["-q", "feeds", "list"]);
        let plain = without_colors(&narrow);
        let table = plain.lines().take(4);
        for line in table {
            assert!(line.chars().count() <= usize::from(columns), "{line}");
        }
        assert!(plain.contains('…'), "{plain}");
        let first = plain.lines().nth(1).expect("a row");
        assert!(first.contains("paused"), "{plain}");
    }
    let wide = without_colors(&shown(100, &["-q", "feeds", "list", "--wide"]));
    let rows: Vec<&str> = wide.lines().take(4).collect();
    assert!(!rows.join("").contains('…'), "{wide}");
    let (_, piped, _) = installation.run(&["feeds", "list"]).await;
    assert!(piped.contains(error) && !piped.contains('…'), "{piped}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn colors_are_for_terminals_that_want_them() {
    let installation = Installation::alone("");
    let shown = on_terminal(command(&installation, &["status"]), 100, &[]).shown;
    assert!(shown.contains("\u{1b}["), "{shown:?}");
    let mut plain = command(&installation, &["status"]);
    plain.env("NO_COLOR", "1");
    let shown = on_terminal(plain, 100, &[]).shown;
    assert!(shown.starts_with("NOT READY"), "{shown:?}");
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    let (_, piped, _) = installation.run(&["status"]).await;
    assert!(!piped.contains('\u{1b}'), "{piped:?}");
}

#[test]
fn help_wraps_at_the_terminals_width() {
    let installation = Installation::alone("");
    for arguments in [
        &["--help"][..],
        &["serve", "--help"],
        &["doctor", "--help"],
        &["feeds", "resume", "--help"],
        &["subscriptions", "approve", "--help"],
        &["upload", "--help"],
        &["init", "--help"],
    ] {
        for columns in [60, 100] {
            let help = on_terminal(command(&installation, arguments), columns, &[]);
            assert!(help.status.success(), "{}", help.shown);
            for line in without_colors(&help.shown).lines() {
                let length = line.chars().count();
                let may_be_cut = line.trim().contains(' ');
                assert!(
                    length <= usize::from(columns) || !may_be_cut,
                    "{arguments:?} at {columns}: {line}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_result_can_be_json() {
    let emulator = emulator("").await;
    let books = "[destinations.books]\nkind = \"list\"\n";
    let installation = Installation::beside(&emulator, "", books);
    let server = installation.start().await;
    let companies = ["feeds", "pause", "--company", "302320404"];
    for arguments in [
        &["status"][..],
        &["doctor", "--quick"],
        &["config", "check"],
        &["config", "show"],
        &["audit", "list"],
        &["feeds", "list"],
        &["feeds", "gaps"],
        &companies,
        &["feeds", "resume", "--company", "302320404"],
        &["feeds", "resume"],
        &["feeds", "remove", "--company", "302320404"],
        &["feeds", "resume", "--company", "302320404"],
        &[
            "feeds",
            "start-at",
            "2026-01-01",
            "--company",
            "302320404",
            "--yes",
        ],
        &["destinations", "list"],
        &["destinations", "list", "books"],
        &["destinations", "start", "books", "--all", "--yes"],
        &["destinations", "stop", "books"],
        &["destinations", "pause", "books"],
        &["destinations", "resume", "books"],
        &["deliveries", "list"],
        &["deliveries", "retry", "books", "--state", "rejected"],
        &["deliveries", "skip", "books", "--state", "rejected"],
        &["import-errors", "list"],
        &["notifications", "list"],
        &["notifications", "export", "saved"],
        &["quarantine", "list"],
        &["quarantine", "export", "saved"],
        &["quarantine", "retry", "--all"],
        &["open"],
        &["pull"],
        &["subscriptions", "list"],
        &["subscriptions", "create", "--print"],
        &["tokens", "create", "--name", "a", "--rights", "read"],
        &["tokens", "list"],
        &["tokens", "revoke", "1"],
        &["uploads", "list"],
    ] {
        let option = &["--json"][..];
        for place in [[option, arguments].concat(), [arguments, option].concat()] {
            let (code, out, errors) = installation.run(&place).await;
            // What was done the first time may be refused the second.
            if code != Some(0) && out.is_empty() {
                assert_problem(code, &errors);
                continue;
            }
            let json: Result<Value, _> = serde_json::from_str(&out);
            assert!(json.is_ok(), "{place:?} printed\n{out}{errors}");
            assert_eq!(out.lines().count(), 1, "{place:?} printed\n{out}");
        }
    }
    drop(server);
}

/// Asserts that the last line on standard error is a problem of this exit code; returns it.
fn assert_problem(code: Option<i32>, errors: &str) -> Value {
    let last = errors.lines().last().unwrap_or_default();
    let problem: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{errors}"));
    assert_eq!(problem["exit_code"], json!(code), "{errors}");
    let name = problem["code"].as_str().expect("a code");
    assert_eq!(problem["type"], format!("urn:ivesk-webhook:error:{name}"));
    assert!(
        problem["title"]
            .as_str()
            .is_some_and(|title| title.len() > 10),
        "{errors}"
    );
    problem
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_json_an_error_is_a_problem_in_json() {
    let emulator = emulator("").await;
    let books = "[destinations.books]\nkind = \"list\"\n";
    let installation = Installation::beside(&emulator, "", books);
    let server = installation.start().await;
    for (arguments, expected, code, words) in [
        // The server's problems keep their codes.
        (
            &["destinations", "pause", "boks"][..],
            1,
            "unknown_row",
            "`books`",
        ),
        (&["tokens", "revoke", "77"], 1, "unknown_row", "tokens list"),
        (
            &["pull", "--company", "302320405"],
            1,
            "conflict",
            "302320404",
        ),
        // What this program finds itself, and what it can't read.
        (
            &["documents", "show", "nope"],
            1,
            "failed",
            "documents search",
        ),
        (
            &["-c", "missing.toml", "status"],
            2,
            "usage",
            "missing.toml",
        ),
        (&["feeds", "lst"], 2, "usage", "list"),
        (
            &["documents", "export", "--format", "csv"],
            2,
            "usage",
            "--format json",
        ),
        (&["verify", "missing.json"], 2, "usage", "missing.json"),
    ] {
        let arguments = [arguments, &["--json"]].concat();
        let (exit, out, errors) = installation.run(&arguments).await;
        assert_eq!(exit, Some(expected), "{arguments:?}: {out}{errors}");
        assert_eq!(out, "", "{arguments:?}");
        let problem = assert_problem(exit, &errors);
        assert_eq!(problem["code"], code, "{arguments:?}: {errors}");
        let title = problem["title"].as_str().expect("text");
        assert!(title.contains(words), "{arguments:?}: {title}");
    }
    // Help stays help.
    let (exit, out, _) = installation.run(&["feeds", "--help", "--json"]).await;
    assert_eq!(exit, Some(0));
    assert!(out.contains("Usage:"), "{out}");
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_leaves_out_and_verbose_adds() {
    let emulator = emulator("").await;
    let installation = Installation::beside(&emulator, "", "");
    let server = installation.start().await;
    let (_, link, told) = installation.run(&["open"]).await;
    assert!(
        link.starts_with("http") && told.contains("works once"),
        "{told}"
    );
    let (code, link, told) = installation.run(&["open", "--quiet"]).await;
    assert_eq!(code, Some(0));
    assert!(link.starts_with("http") && told.is_empty(), "{told}");
    let (code, _, errors) = installation
        .run(&["-q", "feeds", "pause", "--account", "x"])
        .await;
    assert_eq!(code, Some(2));
    assert!(errors.starts_with("error: "), "{errors}");
    drop(server);

    let installation = Installation::beside(&emulator, "", "");
    let (_, _, plain) = installation.run(&["pull"]).await;
    assert!(!plain.contains("DEBUG"), "{plain}");
    let (_, _, verbose) = installation.run(&["pull", "-v"]).await;
    assert!(verbose.contains("DEBUG"), "{verbose}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_name_answers_with_the_nearest_one() {
    let emulator = emulator("").await;
    let installation = Installation::beside(&emulator, "", "");
    let (code, _, errors) = installation.run(&["subscription", "list"]).await;
    assert_eq!(code, Some(2));
    assert!(errors.contains("subscriptions"), "{errors}");
    let server = installation.start().await;
    let (code, _, errors) = installation
        .run(&["feeds", "pause", "--account", "default2"])
        .await;
    assert_eq!(code, Some(2));
    assert!(errors.contains("did you mean `default`?"), "{errors}");
    // A code that is right, of another company.
    let (_, _, errors) = installation.run(&["pull", "--company", "302320405"]).await;
    assert!(errors.contains("did you mean `302320404`?"), "{errors}");
    let (_, _, errors) = installation.run(&["pull", "--account", "default1"]).await;
    assert!(errors.contains("did you mean `default`?"), "{errors}");
    drop(server);
}
