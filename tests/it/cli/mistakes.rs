//! What people do wrong at the command line, and what is told of it.

use ivesk_webhook::domain::Event;
use ivesk_webhook::emulator::DEFAULT_COMPANIES;
use serde_json::Value;

use crate::support::doctor::Report;
use crate::support::emulator::emulator;
use crate::support::process::{Installation, within};

const SUBSCRIBE_PATH: [(&str, &str); 1] = [("IVESK_WEBHOOK_API_SUBSCRIBE_PATH", "/subscriptions")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_names_what_is_not_pulled_and_why() {
    let emulator = emulator("").await;
    let installation = Installation::beside(&emulator, "", "");
    let server = installation.start().await;
    let company = DEFAULT_COMPANIES[0];
    let of_one = ["--company", company];
    let (code, _, errors) = installation
        .run(&[&["feeds", "pause"][..], &of_one].concat())
        .await;
    assert_eq!(code, Some(0), "{errors}");

    let (code, out, _) = installation.run(&[&["pull"][..], &of_one].concat()).await;
    assert_eq!(code, Some(1), "{out}");
    assert!(!out.contains("Requested"), "{out}");
    let reason = format!("default/exported/{company} is paused: a person paused it");
    assert!(out.contains(&reason), "{out}");
    let fix = format!("ivesk-webhook feeds resume --company {company}");
    assert!(out.contains(&fix), "{out}");

    let (code, out, _) = installation.run(&["pull"]).await;
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("Requested a pull of 2 feeds"), "{out}");
    assert!(out.contains("1 feed is not pulled:"), "{out}");
    let (code, out, _) = installation.run(&["pull", "--json"]).await;
    assert_eq!(code, Some(1), "{out}");
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(answer["not_pulled"][0]["company"], company, "{out}");
    drop(server);

    // Without a server and without a key.
    let (code, out, _) = Installation::alone("").run(&["pull"]).await;
    assert_eq!(code, Some(2), "a setting is missing: {out}");
    assert!(!out.contains("Nothing was due"), "{out}");
    assert!(out.contains("not pulled"), "{out}");
    assert!(out.contains("the account has no API key"), "{out}");
}

#[tokio::test]
async fn config_check_finds_programs_that_cannot_run() {
    let installation = Installation::alone(
        "[destinations.import]\nkind = \"command\"\nprogram = \"/nowhere/import\"\n",
    );
    let (code, out, errors) = installation.run(&["config", "check"]).await;
    assert_eq!(code, Some(2), "{out}{errors}");
    assert!(
        out.starts_with("`serve` does not start with these settings as this user:"),
        "{out}"
    );
    assert!(
        out.contains("`import`") && out.contains("/nowhere/import"),
        "{out}"
    );
    let (code, out, _) = installation.run(&["config", "check", "--json"]).await;
    assert_eq!(code, Some(2), "{out}");
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(report["valid"], false, "{out}");

    let mistaken = Installation::alone("[destination.import]\nkind = \"list\"\n");
    let (code, out, _) = mistaken.run(&["config", "check", "--json"]).await;
    assert_eq!(code, Some(2), "{out}");
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(report["valid"], false, "{out}");
    let problem = report["problems"][0].as_str().expect("text");
    assert!(
        problem.contains("did you mean `destinations.import.kind`?"),
        "{problem}"
    );
}

#[tokio::test]
async fn an_unknown_name_or_number_is_told_with_the_nearest() {
    let installation = Installation::alone("[destinations.archives]\nkind = \"list\"\n");
    let server = installation.start().await;
    for arguments in [
        &["destinations", "list", "archive"][..],
        &["destinations", "start", "archive", "--all", "--yes"],
        &["destinations", "stop", "archive"],
        &["destinations", "pause", "archive"],
        &["destinations", "resume", "archive"],
        &["deliveries", "list", "--destination", "archive"],
        &["deliveries", "retry", "archive"],
        &["deliveries", "skip", "archive", "1"],
    ] {
        let (code, out, errors) = installation.run(arguments).await;
        assert_eq!(code, Some(1), "{arguments:?}: {out}{errors}");
        let words = "there is no destination `archive`; did you mean `archives`?";
        assert!(errors.contains(words), "{arguments:?}: {errors}");
    }
    for (arguments, list) in [
        (&["tokens", "revoke", "9"][..], "tokens list"),
        (&["subscriptions", "approve", "9"], "subscriptions list"),
        (&["subscriptions", "restore", "9"], "subscriptions list"),
        (&["quarantine", "retry", "9"], "quarantine list"),
        (&["uploads", "settle", "9", "--reason", "x"], "uploads list"),
    ] {
        let (code, _, errors) = installation.run(arguments).await;
        assert_eq!(code, Some(1), "{errors}");
        assert!(errors.contains(" 9; "), "{errors}");
        assert!(errors.contains(list), "{errors}");
    }
    for (arguments, list) in [
        (&["tokens", "revoke", "monitoring"][..], "tokens list"),
        (&["subscriptions", "approve", "abc"], "subscriptions list"),
        (
            &["uploads", "settle", "abc", "--reason", "x"],
            "uploads list",
        ),
    ] {
        let (code, _, errors) = installation.run(arguments).await;
        assert_eq!(code, Some(2), "{errors}");
        let words = format!("give a number of `ivesk-webhook {list}`");
        assert!(errors.contains(&words), "{errors}");
    }
    drop(server);
}

#[tokio::test]
async fn settings_that_changed_since_the_start_are_told() {
    let installation = Installation::alone("");
    let server = installation.start().await;
    let url = format!("http://127.0.0.1:{}/", installation.public_port());
    let written = std::fs::read_to_string(installation.settings()).expect("settings");
    let check = ["config", "check"];

    // A comment changes nothing.
    std::fs::write(installation.settings(), format!("# a comment\n{written}")).expect("a file");
    let words = "the settings file has changed since `serve` was started";
    let (_, out, _) = installation.run(&check).await;
    assert!(!out.contains(words), "{out}");

    let other = written.replace(
        "[public]\nurl = \"http://127.0.0.1",
        "[public]\nurl = \"http://127.0.0.2",
    );
    assert_ne!(other, written);
    std::fs::write(installation.settings(), other).expect("a file");
    let (_, out, _) = installation.run(&check).await;
    assert!(out.contains(words), "{out}");
    let (code, out, errors) = installation.run(&["status"]).await;
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains(words), "{out}{errors}");
    assert!(out.contains(&format!("accepts messages at {url}")), "{out}");
    let report = Report::of(&installation, &["--quick"]).await;
    assert!(
        report.words("settings").contains(words),
        "{}",
        report.words("settings")
    );
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_and_doctor_agree_on_what_is_retried() {
    let emulator = emulator("").await;
    let erp = "[destinations.erp]\nkind = \"http\"\nurl = \"http://127.0.0.1:1/\"\nhistory = \"deliver\"\nsecret_file = \"secret\"\n";
    let installation = Installation::beside(&emulator, "", erp);
    let secret = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlYw==";
    std::fs::write(installation.folder().join("secret"), secret).expect("a file");
    let server = installation.start().await;
    let control = emulator.control();
    installation.subscribe(&control, &Event::ALL).await;
    control.export(DEFAULT_COMPANIES[0], 1).expect("exported");
    within("the failure", async {
        loop {
            let (code, out, _) = installation.run(&["status"]).await;
            if out.contains("erp  failing") && out.contains("    last error: ") {
                assert!(out.contains("Nothing needs a person."), "{out}");
                assert_eq!(code, Some(0), "{out}");
                return;
            }
        }
    })
    .await;
    let report = Report::of(&installation, &["--quick"]).await;
    assert_eq!(
        report.results("delivery"),
        ["note"],
        "{}",
        report.words("delivery")
    );

    let (code, _, errors) = installation.run(&["destinations", "pause", "erp"]).await;
    assert_eq!(code, Some(0), "{errors}");
    let (code, out, _) = installation.run(&["status"]).await;
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("erp  paused (by hand)"), "{out}");
    let (_, out, _) = installation.run(&["destinations", "list"]).await;
    assert!(!out.contains("it is retried"), "{out}");
    let report = Report::of(&installation, &["--quick"]).await;
    assert_eq!(
        report.results("delivery"),
        ["note"],
        "{}",
        report.words("delivery")
    );
    drop(server);
}

#[tokio::test]
async fn commands_without_a_server_log_nothing_of_their_own() {
    let emulator = emulator("").await;
    let installation =
        Installation::beside(&emulator, "", "[destinations.books]\nkind = \"list\"\n");
    installation.run(&["pull"]).await;
    for arguments in [
        &["status"][..],
        &["feeds", "list"],
        &["feeds", "pause", "--queue", "digitized"],
        &["destinations", "pause", "books"],
        &["tokens", "list"],
        &["audit", "list"],
    ] {
        let (_, _, errors) = installation.run(arguments).await;
        assert_eq!(errors, "", "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_is_requested_once_and_leaves_no_ghost() {
    let emulator = emulator("").await;
    let installation = Installation::beside(&emulator, "", "");
    let create = ["subscriptions", "create"];
    let (code, _, errors) = installation.run_with(&create, &SUBSCRIBE_PATH).await;
    assert_eq!(code, Some(1), "{errors}");
    assert!(
        errors.contains("start `ivesk-webhook serve` first"),
        "{errors}"
    );
    assert!(emulator.control().subscriptions().is_empty());

    let server = installation.start().await;
    let wrong_key = [SUBSCRIBE_PATH[0], ("IVESK_WEBHOOK_API_KEY", "wrong")];
    let (code, _, errors) = installation.run_with(&create, &wrong_key).await;
    assert_eq!(code, Some(1), "{errors}");
    let (_, out, _) = installation.run(&["subscriptions", "list"]).await;
    assert!(out.contains("No subscriptions yet"), "{out}");

    let (code, _, errors) = installation.run_with(&create, &SUBSCRIBE_PATH).await;
    assert_eq!(code, Some(0), "{errors}");
    within("the confirmations", emulator.control().idle()).await;
    let (code, out, errors) = installation.run_with(&create, &SUBSCRIBE_PATH).await;
    assert_eq!(code, Some(0), "{errors}");
    assert!(!out.contains("Requested"), "{out}");
    assert!(
        errors.contains("on_exported of account default is confirmed already (subscription 1)"),
        "{errors}"
    );
    assert_eq!(emulator.control().subscriptions().len(), 2);
    drop(server);
}

#[tokio::test]
async fn a_first_start_beside_the_emulator_logs_no_error() {
    let emulator = emulator("").await;
    let installation = Installation::beside(&emulator, "", "");
    let server = installation.start().await;
    within("the log's line about subscriptions", async {
        while !server.log().contains("has no subscription") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let log = server.log();
    assert!(!log.contains("ERROR"), "{log}");
    assert!(
        log.contains("Fix: run `ivesk-webhook subscriptions create`"),
        "{log}"
    );
    drop(server);
}

#[tokio::test]
async fn a_second_serve_and_a_second_demo_say_what_is_in_the_way() {
    let installation = Installation::alone("");
    let server = installation.start().await;
    let (code, _, errors) = installation.run(&["serve"]).await;
    assert_eq!(code, Some(2), "{errors}");
    drop(server);

    let folder = installation.folder().to_str().expect("text");
    let (code, _, errors) = installation.run(&["demo", "--once", "--dir", folder]).await;
    assert_eq!(code, Some(2), "{errors}");
    assert!(
        errors.contains("holds the database of an earlier demo; name an empty folder"),
        "{errors}"
    );
}

#[tokio::test]
async fn a_missing_choice_is_named_with_all_its_options() {
    let installation = Installation::alone("");
    for (arguments, choice) in [
        (&["documents", "export"][..], "<DIR|--format <FORMAT>>"),
        (&["documents", "show"], "<DOCUMENT|--sequence <N>>"),
        (&["documents", "trace"], "<DOCUMENT|--sequence <N>>"),
        (
            &["documents", "erase"],
            "<--company <CODE>|--document <ID>>",
        ),
        (&["quarantine", "retry"], "<ID|--all>"),
        (
            &["deliveries", "skip", "books"],
            "<SEQUENCE|--state <STATE>>",
        ),
    ] {
        let (code, _, errors) = installation.run(arguments).await;
        assert_eq!(code, Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(choice), "{arguments:?}: {errors}");
    }
    let retry = ["import-errors", "retry"];
    let (_, _, errors) = installation.run(&retry).await;
    assert!(errors.contains("--all"), "{errors}");
    // What the pages can't do with it is wrong use.
    let (code, _, errors) = installation.run(&["open", "--rights", "metrics"]).await;
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("`read`, `operate` and `admin`"), "{errors}");
    let (code, _, errors) = installation.run(&["replay", "x", "--to", "notaurl"]).await;
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("from http:// or https:// on"), "{errors}");
}

#[tokio::test]
async fn an_unknown_account_is_answered_with_the_nearest_one() {
    let installation = Installation::with_key("");
    installation.start().await.stop_and_read().await;
    for command in [
        "documents list",
        "documents search x",
        "documents export --format csv",
        "documents fields",
        "feeds pause",
        "pull",
        "pull --dry-run",
    ] {
        let command = format!("{command} --account default2");
        let arguments: Vec<&str> = command.split(' ').collect();
        let (code, out, errors) = installation.run(&arguments).await;
        assert_ne!(code, Some(0), "{command}: {out}");
        assert!(
            errors.contains("did you mean `default`?"),
            "{command}: {errors}"
        );
    }
    let (code, _, errors) = installation
        .run(&["documents", "list", "--account", "default"])
        .await;
    assert_eq!(code, Some(0), "{errors}");
}

#[tokio::test]
async fn the_emulator_takes_no_empty_key() {
    let installation = Installation::alone("");
    for key in ["", "a b", "ą"] {
        let (code, _, errors) = installation.run(&["emulator", "--key", key]).await;
        assert_eq!(code, Some(2), "{errors}");
        assert!(errors.contains("visible ASCII characters"), "{errors}");
    }
}

#[tokio::test]
async fn what_prints_text_alone_refuses_json() {
    let installation = Installation::alone("");
    for arguments in [&["demo", "--once", "--json"][..], &["emulator", "--json"]] {
        let (code, out, errors) = installation.run(arguments).await;
        assert_eq!((code, out.as_str()), (Some(2), ""), "{errors}");
        let error: Value = serde_json::from_str(&errors).expect("JSON");
        let title = error["title"].as_str().expect("text");
        assert!(title.contains("leave `--json` out"), "{title}");
    }
}

#[tokio::test]
async fn a_token_says_what_is_wrong_with_its_name_or_end() {
    let installation = Installation::alone("");
    let create = ["tokens", "create", "--rights", "read", "--name"];
    for (arguments, problem) in [
        (
            &["a", "--expires", "99999999999999d"][..],
            "is after the year 9999",
        ),
        (&["a", "--expires", "soon"], "is neither a time such as 90d"),
        (
            &["a\nb"],
            "contains a line feed or another control character",
        ),
        (&[""], "must have 1 to 60 characters"),
    ] {
        let arguments = [&create[..], arguments].concat();
        let (code, _, errors) = installation.run(&arguments).await;
        assert_ne!(code, Some(0), "{arguments:?}");
        assert!(errors.contains(problem), "{arguments:?}: {errors}");
    }
}
