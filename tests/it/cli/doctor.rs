//! `doctor`: each line right, from inside and from outside.

use ivesk_webhook::domain::{Clock, Event};
use ivesk_webhook::emulator::{DEFAULT_COMPANIES, EmulatorSettings, SubscriptionState};
use reqwest::Method;

use crate::support::databases::damage;
use crate::support::doctor::Report;
use crate::support::emulator::{emulator, emulator_with};
use crate::support::process::{Installation, Server, within};
use crate::support::stand_in::{Answer, StandIn};

#[tokio::test]
async fn where_all_is_well_every_check_passes() {
    let emulator = emulator("").await;
    let installation = Installation::beside(&emulator, "", "");
    let server = installation.start().await;
    let report = Report::of(&installation, &[]).await;
    for check in [
        "settings",
        "server",
        "store",
        "disk",
        "sns",
        "clock",
        "api",
        "large_body",
        "header_deadline",
        "body_deadline",
    ] {
        assert_eq!(report.results(check), ["pass"], "{}", report.words(check));
    }
    // One for each event.
    assert_eq!(report.results("public_address"), ["pass", "pass"]);
    assert_eq!(report.code, Some(0));

    let (_, quarantined, _) = installation.run(&["quarantine", "list", "--json"]).await;
    assert_eq!(quarantined.trim(), "[]", "a challenge is no message");
    assert_eq!(report.results("unexpected_requests"), ["pass"]);
    let log = server.log();
    for refused in ["refused", "no webhook", "a connection ended"] {
        assert!(
            !log.contains(refused),
            "its own requests are no faults: {log}"
        );
    }
    drop(server);
}

#[tokio::test]
async fn destinations_are_checked_as_serve_would_creating_nothing() {
    let emulator = emulator("").await;
    let sections = "[destinations.archive]\nkind = \"folder\"\npath = \"archive\"\n\
                    [destinations.books]\nkind = \"command\"\nprogram = \"missing.sh\"\n";
    let installation = Installation::beside(&emulator, "", sections);
    let report = Report::of(&installation, &[]).await;
    assert_eq!(report.results("destination"), ["note", "fail"]);
    assert!(report.words("destination").contains("missing.sh"));
    assert_eq!(report.results("import_error_path"), ["note"]);
    assert!(!installation.folder().join("archive").exists());
    assert_eq!(report.code, Some(1));
}

#[tokio::test]
async fn a_missing_drop_folder_is_found_before_and_after_the_start() {
    let installation = Installation::with_key("[upload]\nwatch = \"outbox\"\n");
    let folder = installation.folder().join("outbox");
    let is_found = async || {
        let report = Report::of(&installation, &["--quick"]).await;
        assert_eq!(report.results("upload_folder"), ["fail"]);
        let words = report.words("upload_folder");
        assert!(
            words.contains("outbox, the folder of `upload.watch`"),
            "{words}"
        );
        assert!(words.contains("create it"), "{words}");
        report.assert_explained();
    };
    is_found().await;
    std::fs::write(&folder, "no folder").expect("written");
    is_found().await;
    std::fs::remove_file(&folder).expect("removed");

    std::fs::create_dir(&folder).expect("created");
    let server = installation.start().await;
    let report = Report::of(&installation, &["--quick"]).await;
    assert_eq!(report.results("upload_folder"), ["pass"]);
    std::fs::remove_dir_all(&folder).expect("removed");
    is_found().await;
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_documents_are_reported_with_a_fix() {
    let (clock, correction) = Clock::system().corrected();
    let emulator = emulator_with(EmulatorSettings {
        clock,
        ..EmulatorSettings::default()
    })
    .await;
    let installation =
        Installation::beside(&emulator, "", "[destinations.books]\nkind = \"list\"\n");
    let exported = emulator.control().export(DEFAULT_COMPANIES[0], 2);
    exported.expect("a company of the emulator's");
    // Clearly before the destination is known: the vendor tells its time in seconds.
    correction.set(60_000);
    let server = installation.start().await;
    let (code, _, errors) = installation.run(&["pull"]).await;
    assert_eq!(code, Some(0), "{errors}");
    let report = Report::of(&installation, &["--quick"]).await;
    assert_eq!(report.results("destination"), ["pass"]);
    assert_eq!(report.results("held"), ["note"], "{}", report.words("held"));
    let words = report.words("held");
    assert!(words.contains("2 documents held as history"), "{words}");
    assert!(words.contains("destinations start books"), "{words}");

    let (code, _, errors) = installation
        .run(&["destinations", "start", "books", "--all", "--yes"])
        .await;
    assert_eq!(code, Some(0), "{errors}");
    let report = Report::of(&installation, &["--quick"]).await;
    assert!(report.results("held").is_empty());
    assert!(report.results("delivery").is_empty());
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swapped_targets_are_shown_until_they_are_put_right() {
    let emulator = emulator("").await;
    let control = emulator.control();
    let installation = Installation::beside(&emulator, "", "");
    let server = installation.start().await;
    for (event, other) in [
        (Event::OnExported, Event::OnDigitized),
        (Event::OnDigitized, Event::OnExported),
    ] {
        let target = installation.webhook(other);
        control.subscribe(event, &target).expect("on this machine");
    }
    within("the confirmations", control.idle()).await;
    let subscriptions = control.subscriptions();
    for subscription in &subscriptions {
        assert_eq!(subscription.state, SubscriptionState::Confirmed);
    }

    let warning = "is to the other event's topic";
    let warned = async |server: &Server| {
        within("a warning for each", async {
            while server.log().matches(warning).count() < 2 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    warned(&server).await;
    let report = Report::of(&installation, &["--quick"]).await;
    let words = report.words("subscription");
    assert_eq!(words.matches(warning).count(), 2, "{words}");
    assert!(words.contains("DPWebHook_onexport"), "{words}");
    assert!(words.contains("subscriptions create"), "{words}");
    report.assert_explained();
    for path in ["/", "/subscriptions"] {
        let page = installation.admin_request(Method::GET, path).send().await;
        let page = page.expect("an answer").text().await.expect("text");
        let told = page.contains("other event's topic") || page.contains("other event&#39;s topic");
        assert!(told, "{path}: {page}");
    }
    let (_, list, _) = installation.run(&["subscriptions", "list"]).await;
    assert_eq!(
        list.matches("subscribe each event with its own target")
            .count(),
        2,
        "{list}"
    );
    server.terminate();
    assert!(server.exited().await.0.success());
    let server = installation.start().await;
    warned(&server).await;
    let active = async || {
        let rows = installation.admin_json("/v1/alarms?active=true").await;
        let rows = rows["rows"].as_array().expect("a list").clone();
        let swapped = rows.iter().filter(|row| row["kind"] == "swapped_targets");
        swapped.count()
    };
    within("an alarm for each", async { while active().await < 2 {} }).await;

    // SNS announces the end of each.
    for subscription in &subscriptions {
        assert!(control.unsubscribe(&subscription.subscription_arn));
    }
    within("the announcements", control.idle()).await;
    let report = Report::of(&installation, &["--quick"]).await;
    let words = report.words("subscription");
    assert!(!words.contains(warning), "{words}");
    let (_, list, _) = installation.run(&["subscriptions", "list"]).await;
    assert!(!list.contains("with its own target"), "{list}");
    server.terminate();
    assert!(server.exited().await.0.success());
    let server = installation.start().await;
    within("the end of the alarms", async {
        while active().await > 0 {}
    })
    .await;
    drop(server);
}

#[tokio::test]
async fn without_a_server_the_store_is_checked_and_nothing_created() {
    let emulator = emulator("").await;
    let installation = Installation::beside(&emulator, "", "");
    let report = Report::of(&installation, &[]).await;
    assert_eq!(report.results("store"), ["pass"]);
    assert_eq!(report.results("server"), ["fail"]);
    assert_eq!(report.code, Some(1));
    assert!(!installation.database().exists());
    report.assert_explained();

    std::fs::write(installation.database(), vec![b'x'; 5000]).expect("written");
    let report = Report::of(&installation, &[]).await;
    assert_eq!(report.results("store"), ["fail"]);
}

#[tokio::test]
async fn invalid_settings_are_named_and_exit_with_2() {
    let installation = Installation::alone("[publik]\nurl = \"x\"\n");
    let report = Report::of(&installation, &[]).await;
    assert_eq!(report.code, Some(2));
    assert!(report.words("settings").contains("publik"));
}

#[tokio::test]
async fn a_refused_key_and_an_unreachable_vendor_are_distinguished() {
    let refusing = emulator("status=401").await;
    let installation = Installation::beside(&refusing, "", "");
    let server = installation.start().await;
    let report = Report::of(&installation, &["--quick"]).await;
    assert_eq!(
        (report.results("api"), report.code),
        (vec!["fail"], Some(1))
    );
    assert!(report.words("api").contains("create a new key"));
    drop(server);

    let emulator = emulator("").await;
    let installation = Installation::beside(&emulator, "", "");
    let server = installation.start().await;
    emulator.stop().await;
    let report = Report::of(&installation, &["--quick"]).await;
    assert_eq!(report.results("api"), ["unreachable"]);
    assert_eq!(report.results("sns"), ["unreachable"]);
    assert_eq!(report.code, Some(3));
    report.assert_explained();
    drop(server);
}

#[tokio::test]
async fn the_exported_path_is_found_in_every_preset() {
    for (switch, preset) in [("path", "path"), ("query", "query"), ("prefix", "prefix")] {
        for unknown in ["404", "empty"] {
            let emulator =
                emulator(&format!("company_in={switch},unknown_company={unknown}")).await;
            emulator
                .control()
                .export(DEFAULT_COMPANIES[0], 2)
                .expect("exported");
            let installation = Installation::beside(&emulator, "", "");
            let report = Report::of(&installation, &["--company", DEFAULT_COMPANIES[0]]).await;
            let words = report.words("exported_path");
            if preset == "path" {
                assert_eq!(report.results("exported_path"), ["pass"], "{words}");
            } else {
                assert_eq!(report.results("exported_path"), ["fail"], "{words}");
                let fix = format!("api.exported_path = \\\"{preset}\\\"");
                assert!(words.contains(&fix), "{words}");
            }
        }
    }
}

#[tokio::test]
async fn an_address_that_ignores_the_company_is_never_accepted() {
    for switches in ["company_in=none", "company_filter=ignored"] {
        let emulator = emulator(switches).await;
        emulator
            .control()
            .export(DEFAULT_COMPANIES[0], 2)
            .expect("exported");
        let installation = Installation::beside(&emulator, "", "");
        let report = Report::of(&installation, &["--company", DEFAULT_COMPANIES[0]]).await;
        let words = report.words("exported_path");
        assert_eq!(report.results("exported_path"), ["fail"], "{words}");
        assert!(words.contains("no preset"), "{words}");
    }
}

/// Returns the report on a public address behind something that answers in place of the server.
async fn in_front(answer: impl Fn() -> Answer) -> String {
    let front = StandIn::start([answer(), answer()]).await;
    let emulator = emulator("").await;
    let installation = Installation::beside(&emulator, "", "");
    let settings = std::fs::read_to_string(installation.settings()).expect("settings");
    let own = format!("url = \"http://127.0.0.1:{}\"", installation.public_port());
    assert!(settings.contains(&own));
    let settings = settings.replace(&own, &format!("url = \"{}\"", front.url("")));
    std::fs::write(installation.settings(), settings).expect("written");
    let server = installation.start().await;
    let report = Report::of(&installation, &["--quick"]).await;
    assert_eq!(report.results("public_address"), ["fail", "fail"]);
    assert_eq!(report.results("large_body"), ["skipped"]);
    report.assert_explained();
    drop(server);
    report.words("public_address")
}

#[tokio::test]
async fn a_proxy_in_front_is_recognized() {
    let redirect =
        in_front(|| Answer::status(308, "").with("location", "https://login.example/?to=planted"))
            .await;
    assert!(redirect.contains("https://login.example"), "{redirect}");
    assert!(!redirect.contains("planted"), "{redirect}");
    let elsewhere =
        in_front(|| Answer::status(302, "").with("location", "https://login.example/")).await;
    assert!(elsewhere.contains("logins"), "{elsewhere}");
    let asked = in_front(|| Answer::status(401, "").with("www-authenticate", "Basic")).await;
    assert!(
        asked.contains("exempt /webhooks/ from the login"),
        "{asked}"
    );
    let login = in_front(|| Answer::ok("<html>").with("content-type", "text/html")).await;
    assert!(login.contains("login"), "{login}");
    let away = in_front(|| Answer::status(502, "")).await;
    assert!(away.contains("does not reach this process"), "{away}");
    let other = in_front(|| {
        Answer::status(404, r#"{"code":"unknown_path"}"#)
            .with("content-type", "application/problem+json")
    })
    .await;
    assert!(other.contains("another ivesk-webhook"), "{other}");
    let nothing = in_front(|| Answer::status(404, "")).await;
    assert!(nothing.contains("nothing is there"), "{nothing}");
}

#[tokio::test]
async fn a_company_without_a_key_is_told_what_is_missing() {
    let installation = Installation::alone("");
    let company = ["--quick", "--company", DEFAULT_COMPANIES[0]];
    let assert_told = |report: Report| {
        assert_eq!(report.results("exported_path_probe"), ["fail"]);
        let words = report.words("exported_path_probe");
        assert!(
            words.contains("the account `default` has no API key"),
            "{words}"
        );
        assert!(words.contains("IVESK_WEBHOOK_API_KEY"), "{words}");
        report.assert_explained();
    };
    assert_told(Report::of(&installation, &company).await);
    let server = installation.start().await;
    assert_told(Report::of(&installation, &company).await);
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_checks_with_a_key_that_only_it_has() {
    let emulator = emulator("").await;
    emulator
        .control()
        .export(DEFAULT_COMPANIES[0], 2)
        .expect("exported");
    let installation = Installation::beside(&emulator, "", "");
    let server = installation.start().await;
    let arguments = [
        "doctor",
        "--json",
        "--quick",
        "--company",
        DEFAULT_COMPANIES[0],
    ];
    let mut command = installation.command(&arguments);
    command.env_remove("IVESK_WEBHOOK_API_KEY");
    let output = within("the exit", command.output()).await.expect("it runs");
    let report = Report::read(&output);
    assert_eq!(report.results("api"), ["pass"]);
    assert!(
        report.results("api_key").is_empty(),
        "{}",
        report.words("api_key")
    );
    assert_eq!(report.results("exported_path"), ["pass"]);
    assert_eq!(report.code, Some(0));
    drop(server);
}

#[tokio::test]
async fn a_database_that_was_deleted_is_missed() {
    let installation = Installation::alone("");
    drop(installation.start().await);
    std::fs::remove_file(installation.database()).expect("removed");
    let report = Report::of(&installation, &["--quick"]).await;
    assert_eq!(report.results("store"), ["fail"]);
    let words = report.words("store");
    assert!(words.contains("is missing, but"), "{words}");
    assert!(words.contains("restore the newest backup"), "{words}");
    assert!(!installation.database().exists());
}

#[tokio::test]
async fn damage_is_found_without_a_server_too() {
    let installation = Installation::alone("");
    let server = installation.start().await;
    server.terminate();
    assert!(server.exited().await.0.success());
    damage(&installation.database(), "document_link");
    let report = Report::of(&installation, &["--quick"]).await;
    assert_eq!(report.results("store"), ["pass"], "the rest can be read");
    let report = Report::of(&installation, &[]).await;
    assert_eq!(report.results("store"), ["fail"]);
    let words = report.words("store");
    assert!(words.contains("is damaged"), "{words}");
    assert!(words.contains("restore the newest backup"), "{words}");
}

#[tokio::test]
async fn a_wrong_company_is_paused_or_never_listed() {
    // A company that exists, and that the key has no right to see.
    let companies = [("IVESK_WEBHOOK_ACCOUNTS_DEFAULT_COMPANIES", "110053842")];
    for (unknown, check, result, words) in [
        ("404", "paused", "fail", "if the company's code is mistyped"),
        ("403", "paused", "fail", "ask Įvesk.lt for the right"),
        ("empty", "never_listed", "note", "correct its code"),
    ] {
        let emulator = emulator(&format!("unknown_company={unknown}")).await;
        let installation = Installation::beside(&emulator, "", "");
        installation.run_with(&["pull"], &companies).await;
        let report = Report::with(&installation, &["--quick"], &companies).await;
        assert_eq!(report.results(check), [result], "{unknown}");
        let found = report.words(check);
        assert!(
            found.contains("110053842") && found.contains(words),
            "{found}"
        );
        report.assert_explained();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_never_accepted_anything_is_noted() {
    let emulator = emulator("").await;
    let sections = "[destinations.books]\nkind = \"list\"\nhistory = \"deliver\"\n";
    let installation = Installation::beside(&emulator, "", sections);
    let server = installation.start().await;
    let report = Report::of(&installation, &["--quick"]).await;
    assert!(
        report.results("never_accepted").is_empty(),
        "nothing is stored"
    );
    let exported = emulator.control().export(DEFAULT_COMPANIES[0], 2);
    exported.expect("a company of the emulator's");
    let (code, _, errors) = installation.run(&["pull"]).await;
    assert_eq!(code, Some(0), "{errors}");
    let report = within("the documents", async {
        loop {
            let report = Report::of(&installation, &["--quick"]).await;
            if !report.results("never_accepted").is_empty() {
                return report;
            }
        }
    })
    .await;
    assert_eq!(report.results("never_accepted"), ["note"]);
    let words = report.words("never_accepted");
    assert!(words.contains("has never accepted a document"), "{words}");
    assert!(words.contains("destination:books"), "{words}");
    drop(server);
}
