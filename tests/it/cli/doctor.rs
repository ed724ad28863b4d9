//! `doctor`: each line right, from inside and from outside.

use ivesk_webhook::emulator::switches::Switches;
use ivesk_webhook::emulator::{DEFAULT_COMPANIES, Emulator, EmulatorSettings};
use serde_json::Value;

use crate::support::process::Installation;
use crate::support::stand_in::{Answer, StandIn};

async fn emulator(switches: &str) -> Emulator {
    let settings = EmulatorSettings {
        switches: Switches::parse(switches).expect("switches that exist"),
        ..EmulatorSettings::default()
    };
    let started = Emulator::start(settings, ([127, 0, 0, 1], 0).into()).await;
    started.expect("a free port")
}

/// What `doctor --json` found: exit code, and result and words by check.
pub(crate) struct Report {
    pub(crate) code: Option<i32>,
    findings: Vec<Value>,
}

impl Report {
    pub(crate) async fn of(here: &Installation, arguments: &[&str]) -> Self {
        Self::with(here, arguments, &[]).await
    }

    pub(crate) async fn with(
        here: &Installation,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let arguments = [&["doctor", "--json"], arguments].concat();
        let (code, out, errors) = here.run_with(&arguments, variables).await;
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{errors}"));
        Self {
            code,
            findings: report["checks"].as_array().expect("a list").clone(),
        }
    }

    /// The results of one check, in order.
    pub(crate) fn results<'a>(&'a self, check: &'a str) -> Vec<&'a str> {
        self.of_check(check)
            .map(|finding| finding["result"].as_str().expect("a word"))
            .collect()
    }

    /// All that one check says.
    pub(crate) fn words(&self, check: &str) -> String {
        self.of_check(check).map(Value::to_string).collect()
    }

    fn of_check<'a>(&'a self, check: &'a str) -> impl Iterator<Item = &'a Value> {
        self.findings
            .iter()
            .filter(move |finding| finding["check"] == check)
    }

    /// Whatever is not ok says why it matters, unless it was only left out or tried.
    pub(crate) fn explains_itself(&self) {
        for finding in &self.findings {
            let result = finding["result"].as_str();
            if matches!(result, Some("fail" | "unreachable")) {
                assert!(finding["why"].is_string(), "{finding}");
            }
        }
    }
}

#[tokio::test]
async fn where_all_is_well_every_check_passes() {
    let emulator = emulator("").await;
    let here = Installation::beside(&emulator, "", "");
    let server = here.start().await;
    let report = Report::of(&here, &[]).await;
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

    let (_, quarantined, _) = here.run(&["quarantine", "list", "--json"]).await;
    assert_eq!(quarantined.trim(), "[]", "a challenge is no delivery");
    drop(server);
}

#[tokio::test]
async fn destinations_are_checked_as_serve_would_creating_nothing() {
    let emulator = emulator("").await;
    let sections = "[destinations.archive]\nkind = \"folder\"\npath = \"archive\"\n\
                    [destinations.books]\nkind = \"command\"\nprogram = \"missing.sh\"\n";
    let here = Installation::beside(&emulator, "", sections);
    let report = Report::of(&here, &[]).await;
    assert_eq!(report.results("destination"), ["note", "fail"]);
    assert!(report.words("destination").contains("missing.sh"));
    assert_eq!(report.results("import_error_path"), ["note"]);
    assert!(!here.folder().join("archive").exists());
    assert_eq!(report.code, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_documents_are_reported_with_a_fix() {
    let emulator = emulator("").await;
    let here = Installation::beside(&emulator, "", "[destinations.books]\nkind = \"list\"\n");
    let exported = emulator.control().export(DEFAULT_COMPANIES[0], 2);
    exported.expect("a company of the emulator's");
    let server = here.start().await;
    let (code, _, errors) = here.run(&["pull"]).await;
    assert_eq!(code, Some(0), "{errors}");
    let report = Report::of(&here, &["--quick"]).await;
    assert_eq!(report.results("destination"), ["pass"]);
    assert_eq!(report.results("held"), ["note"], "{}", report.words("held"));
    let words = report.words("held");
    assert!(words.contains("2 documents of 1 feed held"), "{words}");
    assert!(words.contains("destinations start books"), "{words}");

    let (code, _, errors) = here.run(&["destinations", "start", "books", "--all"]).await;
    assert_eq!(code, Some(0), "{errors}");
    let report = Report::of(&here, &["--quick"]).await;
    assert!(report.results("held").is_empty());
    assert!(report.results("delivery").is_empty());
    drop(server);
}

#[tokio::test]
async fn without_a_server_the_store_is_checked_and_nothing_created() {
    let emulator = emulator("").await;
    let here = Installation::beside(&emulator, "", "");
    let report = Report::of(&here, &[]).await;
    assert_eq!(report.results("store"), ["pass"]);
    assert_eq!(report.results("server"), ["fail"]);
    assert_eq!(report.code, Some(1));
    assert!(!here.database().exists());
    report.explains_itself();

    std::fs::write(here.database(), vec![b'x'; 5000]).expect("written");
    let report = Report::of(&here, &[]).await;
    assert_eq!(report.results("store"), ["fail"]);
}

#[tokio::test]
async fn invalid_settings_are_named_and_exit_with_2() {
    let here = Installation::alone("[publik]\nurl = \"x\"\n");
    let report = Report::of(&here, &[]).await;
    assert_eq!(report.code, Some(2));
    assert!(report.words("settings").contains("publik"));
}

#[tokio::test]
async fn a_refused_key_and_an_unreachable_vendor_are_distinguished() {
    let emulator = emulator("status=401").await;
    let here = Installation::beside(&emulator, "", "");
    let server = here.start().await;
    let report = Report::of(&here, &["--quick"]).await;
    assert_eq!(
        (report.results("api"), report.code),
        (vec!["fail"], Some(1))
    );
    assert!(report.words("api").contains("create a new key"));
    emulator.stop().await;
    let report = Report::of(&here, &["--quick"]).await;
    assert_eq!(report.results("api"), ["unreachable"]);
    assert_eq!(report.results("sns"), ["unreachable"]);
    assert_eq!(report.code, Some(3));
    report.explains_itself();
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
            let here = Installation::beside(&emulator, "", "");
            let report = Report::of(&here, &["--company", DEFAULT_COMPANIES[0]]).await;
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
        let here = Installation::beside(&emulator, "", "");
        let report = Report::of(&here, &["--company", DEFAULT_COMPANIES[0]]).await;
        let words = report.words("exported_path");
        assert_eq!(report.results("exported_path"), ["fail"], "{words}");
        assert!(words.contains("no preset"), "{words}");
    }
}

/// What `doctor` says of the public address where something in front of it answers so.
async fn in_front(answer: impl Fn() -> Answer) -> String {
    let front = StandIn::start([answer(), answer()]).await;
    let emulator = emulator("").await;
    let here = Installation::beside(&emulator, "", "");
    let settings = std::fs::read_to_string(here.settings()).expect("settings");
    let own = format!("url = \"http://127.0.0.1:{}\"", here.public_port());
    assert!(settings.contains(&own));
    let settings = settings.replace(&own, &format!("url = \"{}\"", front.url("")));
    std::fs::write(here.settings(), settings).expect("written");
    let server = here.start().await;
    let report = Report::of(&here, &["--quick"]).await;
    assert_eq!(report.results("public_address"), ["fail", "fail"]);
    assert_eq!(report.results("large_body"), ["skipped"]);
    report.explains_itself();
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
        Answer::status(404, r#"{"code":"unknown_token"}"#)
            .with("content-type", "application/problem+json")
    })
    .await;
    assert!(other.contains("another ivesk-webhook"), "{other}");
    let nothing = in_front(|| Answer::status(404, "")).await;
    assert!(nothing.contains("nothing is there"), "{nothing}");
}
