//! `status`: one screen that is true, and reading commands that change nothing.

use ivesk_webhook::domain::Event;
use ivesk_webhook::emulator::DEFAULT_COMPANIES;
use serde_json::Value;

use crate::support::doctor::Report;
use crate::support::emulator::emulator;
use crate::support::process::{Installation, within};

async fn status(installation: &Installation) -> (Option<i32>, String) {
    let (code, out, errors) = installation.run(&["status"]).await;
    (code, out + &errors)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_is_well_status_shows_it_and_exits_with_0() {
    let emulator = emulator("").await;
    let installation = Installation::beside(
        &emulator,
        "",
        "[destinations.books]\nkind = \"list\"\nhistory = \"deliver\"\n",
    );
    let server = installation.start().await;
    let control = emulator.control();
    installation.subscribe(&control, &Event::ALL).await;
    control
        .export(DEFAULT_COMPANIES[0], 2)
        .expect("a company of the emulator's");
    within("the end of every first pull", async {
        loop {
            let (_, shown) = status(&installation).await;
            if !shown.contains("not pulled to its end yet")
                && shown.contains("302320404  active, 2 documents")
                && shown.contains("digitized           active, 2 documents")
                && shown.contains("0 delivered, 0 waiting")
            {
                return;
            }
        }
    })
    .await;
    let (_, shown) = status(&installation).await;
    assert!(shown.starts_with("READY "), "{shown}");
    for line in [
        "4 document versions",
        "MiB free on its disk",
        "  default/on_exported   confirmed, last heard ",
        "  default/exported/302320404  active, 2 documents, ",
        "  books  active, 0 delivered, ",
    ] {
        assert!(shown.contains(line), "{line} is missing in\n{shown}");
    }
    let (code, out, _) = installation.run(&["status", "--json"]).await;
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(report["running"], true);
    assert_eq!(report["ready"], true);
    assert_eq!(report["needs_person"], Value::Array(Vec::new()), "{out}");
    assert_eq!(report["status"]["sequence"]["last"], 4);
    assert_eq!(report["feeds"].as_array().map(Vec::len), Some(3));
    assert_eq!(code, Some(0), "{shown}");

    server.terminate();
    assert!(server.exited().await.0.success());
    let (code, shown) = status(&installation).await;
    assert_eq!(code, Some(1), "{shown}");
    assert!(!shown.contains("no message can be stored"), "{shown}");
    assert!(
        shown.starts_with("NOT READY ") && shown.contains("start `ivesk-webhook serve`"),
        "{shown}"
    );
    assert!(shown.contains("default/exported/302320404"), "{shown}");
    assert!(!shown.contains("Nothing needs a person"), "{shown}");
}

#[tokio::test]
async fn a_nearly_full_disk_is_named_with_what_to_do() {
    let installation = Installation::with_key("[store]\nmin_free_bytes = 1000000000000000\n");
    let server = installation.start().await;
    let (code, shown) = status(&installation).await;
    assert_eq!(code, Some(1), "{shown}");
    assert!(
        shown.starts_with("NOT READY ") && shown.contains("disk_nearly_full"),
        "{shown}"
    );
    let fix = "or lower `store.min_free_bytes`";
    assert!(shown.contains(fix), "{shown}");
    let report = Report::of(&installation, &["--quick"]).await;
    assert!(report.words("server").contains(fix));
    drop(server);
}

#[tokio::test]
async fn a_queue_without_a_key_needs_a_person() {
    let installation = Installation::alone("");
    let server = installation.start().await;
    let (code, shown) = status(&installation).await;
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.starts_with("READY "), "{shown}");
    assert!(shown.contains("Needs a person: 2"), "{shown}");
    assert!(
        shown.contains("the account has no API key. Fix: "),
        "{shown}"
    );
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_key_needs_a_person_at_once() {
    let emulator = emulator("status=401").await;
    let installation = Installation::beside(&emulator, "", "");
    let server = installation.start().await;
    within("the refusal of the key", async {
        loop {
            let (code, shown) = status(&installation).await;
            if shown.contains("refuses the API key (401)") {
                assert_eq!(code, Some(1), "{shown}");
                assert!(shown.contains("replace the API key"), "{shown}");
                return;
            }
        }
    })
    .await;
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_never_could_be_pulled_needs_a_person() {
    let emulator = emulator("status=500").await;
    let soon = "[pull]\nreconcile_every = \"1s\"\n[alarms]\nbehind_after = \"1s\"\n";
    let installation = Installation::beside(&emulator, "", soon);
    let server = installation.start().await;
    within("the alarm", async {
        loop {
            let (code, shown) = status(&installation).await;
            if shown.contains("no pull of `default/exported/302320404` has ended") {
                assert_eq!(code, Some(1), "{shown}");
                return;
            }
        }
    })
    .await;
    let report = Report::of(&installation, &["--quick"]).await;
    let results = report.results("failing");
    assert!(
        !results.is_empty() && results.iter().all(|result| *result == "fail"),
        "{results:?}"
    );
    assert_eq!(report.code, Some(1));
    report.assert_explained();
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_gone_is_not_ready() {
    let installation = Installation::with_key("");
    let server = installation.start().await;
    std::fs::remove_file(installation.database()).expect("removed");
    within("the fault", async {
        loop {
            let (code, shown) = status(&installation).await;
            if shown.starts_with("NOT READY ") {
                assert_eq!(code, Some(1), "{shown}");
                assert!(shown.contains("restart the service"), "{shown}");
                return;
            }
        }
    })
    .await;
    drop(server);
}

#[tokio::test]
async fn reading_commands_create_no_database() {
    let sections = "[destinations.books]\nkind = \"list\"\n";
    let installation = Installation::with_key(sections);
    for command in [
        "status",
        "doctor --quick",
        "audit list",
        "deliveries list",
        "destinations list",
        "documents list",
        "feeds list",
        "feeds gaps",
        "import-errors list",
        "notifications list",
        "quarantine list",
        "subscriptions list",
        "tokens list",
        "uploads list",
    ] {
        let arguments: Vec<&str> = command.split(' ').collect();
        let (code, out, errors) = installation.run(&arguments).await;
        assert_ne!(code, Some(0), "{command}: {out}{errors}");
        let entries = std::fs::read_dir(installation.folder()).expect("a folder");
        assert_eq!(entries.count(), 1, "{command} created something");
    }
    let (_, _, errors) = installation.run(&["subscriptions", "list"]).await;
    assert!(errors.contains("there is no database yet"), "{errors}");
    assert!(
        errors.contains("`ivesk-webhook serve` creates it"),
        "{errors}"
    );
}

#[tokio::test]
async fn a_list_without_a_server_resumes_nothing() {
    let emulator = emulator("status=401").await;
    let installation = Installation::beside(&emulator, "", "");
    let (code, _, _) = installation.run(&["pull"]).await;
    assert_eq!(code, Some(1));
    for _ in 0..2 {
        let (code, out, errors) = installation.run(&["feeds", "list"]).await;
        assert_eq!(code, Some(0), "{errors}");
        assert!(out.contains("is paused (unauthorized)"), "{out}");
    }
}
