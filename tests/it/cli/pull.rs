//! `pull`, `documents` and `store backup`, as a person or cron runs them.

use std::path::Path;
use std::process::{Command, Output};

use ivesk_webhook::domain::{Feed, Queue};
use ivesk_webhook::emulator::{
    Control, DEFAULT_KEY, Emulator, EmulatorSettings, Endpoint, Fault, FaultKind, Switches,
};
use ivesk_webhook::file_names::identity;
use serde_json::Value;

use crate::support::databases::open_file_for_reading;
use crate::support::emulator::emulator_with;
use crate::support::puller::{COMPANY, NEIGHBOR, exported, folder, signer, truth};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ivesk-webhook");

/// A folder with settings, and the vendor that they name.
struct Scene {
    emulator: Option<Emulator>,
    control: Control,
    folder: tempfile::TempDir,
    api_url: String,
}

/// A finished command.
struct Finished {
    code: i32,
    out: String,
    errors: String,
}

impl Scene {
    async fn new(switches: &str) -> Self {
        let settings = EmulatorSettings {
            switches: Switches::parse(switches).expect("switches that exist"),
            signer: Some(signer()),
            ..EmulatorSettings::default()
        };
        let emulator = emulator_with(settings).await;
        let scene = Self {
            control: emulator.control(),
            api_url: emulator.api_url(),
            emulator: Some(emulator),
            folder: folder(),
        };
        scene.write_settings("exported_path = \"path\"");
        scene
    }

    fn write_settings(&self, api: &str) {
        let text = format!(
            "[public]\nurl = \"http://127.0.0.1:8080\"\n\
             [admin]\nlisten = \"127.0.0.1:9\"\n\
             [store]\nurl = \"sqlite://store.db\"\n\
             [api]\nurl = \"{}\"\n{api}\n\
             [accounts.default]\ncompanies = [\"{COMPANY}\"]\ndigitized = false\n",
            self.api_url
        );
        std::fs::write(self.path("ivesk-webhook.toml"), text).expect("settings");
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn run(&self, arguments: &[&str]) -> Finished {
        self.run_with_key(DEFAULT_KEY, arguments).await
    }

    async fn run_with_key(&self, key: &str, arguments: &[&str]) -> Finished {
        let folder = self.folder.path().to_owned();
        let (key, arguments) = (
            key.to_owned(),
            arguments
                .iter()
                .map(|argument| (*argument).to_owned())
                .collect::<Vec<_>>(),
        );
        let ran = tokio::task::spawn_blocking(move || output(&folder, &key, &arguments)).await;
        let output = ran.expect("the task ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let finished = Finished {
            code: output.status.code().expect("an exit code"),
            out: text(&output.stdout),
            errors: text(&output.stderr),
        };
        assert!(!finished.out.contains(DEFAULT_KEY) && !finished.errors.contains(DEFAULT_KEY));
        finished
    }

    /// Runs a command that succeeds; returns its standard output.
    async fn succeed(&self, arguments: &[&str]) -> String {
        let finished = self.run(arguments).await;
        assert_eq!(
            finished.code, 0,
            "{arguments:?}: {}{}",
            finished.out, finished.errors
        );
        finished.out
    }

    fn export(&self, count: usize) {
        self.control.export(COMPANY, count).expect("exported");
    }

    async fn cursor(&self) -> Option<String> {
        let store = open_file_for_reading(&self.path("store.db"))
            .await
            .expect("a store");
        let feeds = store.feeds().await.expect("feeds");
        let row = feeds.into_iter().find(|row| row.feed == exported(COMPANY));
        let cursor = row.and_then(|row| row.cursor);
        store.close().await.expect("it closes");
        cursor.map(|cursor| cursor.as_str().to_owned())
    }

    async fn listed(&self) -> Vec<Value> {
        let out = self.succeed(&["documents", "list", "--json"]).await;
        out.lines()
            .map(|line| serde_json::from_str(line).expect("a JSON line"))
            .collect()
    }

    /// Asserts that `documents list --json` shows what the vendor lists.
    async fn assert_complete(&self, feed: &Feed) {
        let lines = self.listed().await;
        for (expected, line) in (1_i64..).zip(&lines) {
            assert_eq!(line["sequence"], expected);
        }
        let text = |line: &Value, name: &str| line[name].as_str().expect("text").to_owned();
        let mut listed: Vec<_> = lines
            .iter()
            .filter(|line| line["company"] == feed.company.as_str())
            .map(|line| (text(line, "document_id"), text(line, "version")))
            .collect();
        listed.sort();
        assert_eq!(listed, truth(&self.control, feed));
    }
}

fn output(folder: &Path, key: &str, arguments: &[String]) -> Output {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("IVESK_WEBHOOK_") {
            command.env_remove(name);
        }
    }
    command
        .current_dir(folder)
        .env("IVESK_WEBHOOK_API_KEY", key)
        .args(arguments)
        .output()
        .expect("the program runs")
}

#[tokio::test]
async fn a_batch_pull_stores_all_and_exits_with_0_twice() {
    let scene = Scene::new("page_size=10,ties=3").await;
    scene.export(24);
    let out = scene.succeed(&["pull"]).await;
    assert!(out.contains("up to date") && out.contains("24"), "{out}");
    scene.assert_complete(&exported(COMPANY)).await;
    scene.export(6);
    scene.succeed(&["pull"]).await;
    scene.assert_complete(&exported(COMPANY)).await;
    scene.succeed(&["pull"]).await;
    scene.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn pull_exits_with_1_if_a_feed_is_refused_and_pulls_others() {
    let scene = Scene::new("").await;
    scene.export(2);
    let finished = scene
        .run(&["pull", "--company", "999999999", "--new"])
        .await;
    assert_eq!(finished.code, 1, "{}", finished.errors);
    assert!(finished.out.contains("404"), "{}", finished.out);
    scene.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn a_mistyped_company_makes_no_feed() {
    let scene = Scene::new("").await;
    scene.export(2);
    scene.succeed(&["pull"]).await;
    for (code, words) in [
        ("999999999", "its last digit does not fit the others"),
        (
            "LT302320404",
            "did you mean `302320404`? If the code is right",
        ),
        ("UAB Pavyzdys", "is no number of nine digits"),
        // A code that looks right, of a company that nobody has named.
        ("110053842", "has no feed. If the code is right"),
        ("1", "The company code `1` has 1 digit; "),
    ] {
        for arguments in [
            &["pull"][..],
            &["feeds", "start-at", "2026-01-01T00:00:00Z"],
        ] {
            let arguments = [arguments, &["--company", code]].concat();
            let finished = scene.run(&arguments).await;
            assert_eq!(finished.code, 1, "{arguments:?}: {}", finished.errors);
            assert!(finished.errors.contains(words), "{}", finished.errors);
            assert!(finished.errors.contains("--new"), "{}", finished.errors);
        }
    }
    let listed = scene.succeed(&["feeds", "list"]).await;
    assert_eq!(listed.lines().count(), 2, "{listed}");

    // Somebody insists.
    let finished = scene
        .run(&["pull", "--company", "LT302320404", "--new"])
        .await;
    assert!(
        finished
            .errors
            .contains("warning: company code `LT302320404`"),
        "{}",
        finished.errors
    );
    let removed = ["feeds", "remove", "--company", "LT302320404"];
    scene.succeed(&removed).await;
    let listed = scene.succeed(&["feeds", "list"]).await;
    let line = listed.lines().find(|line| line.contains("/LT302320404"));
    assert!(
        line.is_some_and(|line| line.contains("removed since")),
        "{listed}"
    );
    let pulled = scene.succeed(&["pull"]).await;
    assert!(!pulled.contains("/LT302320404"), "{pulled}");
    let finished = scene.run(&["pull", "--company", "LT302320404"]).await;
    assert!(
        finished.errors.contains("feeds resume"),
        "{}",
        finished.errors
    );
    assert_eq!(scene.run(&removed).await.code, 1, "a second time");
    let whole_account = scene.run(&["feeds", "remove"]).await;
    assert_eq!(whole_account.code, 2, "{}", whole_account.errors);
    let resumed = scene
        .succeed(&["feeds", "resume", "--company", "LT302320404"])
        .await;
    assert_eq!(resumed, "Resumed 1 feed of account `default`.\n");
}

#[tokio::test]
async fn a_feed_continues_where_another_program_has_stopped() {
    let scene = Scene::new("page_size=10").await;
    let first = scene.control.export(COMPANY, 5).expect("exported");
    let stopped_at = first[4].1.clone();
    scene.export(7);
    let started = scene
        .succeed(&["feeds", "start-at", &stopped_at, "--company", COMPANY])
        .await;
    assert!(
        started.contains("from the beginning on, is recorded as a gap"),
        "{started}"
    );
    // The gap is open until its stretch is pulled, or a person dismisses it.
    let pulled = scene.run(&["pull"]).await;
    assert_eq!(pulled.code, 1, "{}", pulled.errors);
    assert!(
        pulled.out.contains("incomplete (start at)"),
        "{}",
        pulled.out
    );
    assert!(pulled.out.contains("feeds gaps"), "{}", pulled.out);
    let listed: Vec<String> = scene
        .listed()
        .await
        .iter()
        .map(|line| line["version"].as_str().expect("text").to_owned())
        .collect();
    assert!(!listed.is_empty());
    assert!(
        listed.iter().all(|version| *version > stopped_at),
        "{listed:?}"
    );
    for (wrong, code) in [("", 2), ("a\u{7}b", 1), ("beginning", 1)] {
        let arguments = ["feeds", "start-at", wrong, "--company", COMPANY, "--yes"];
        let finished = scene.run(&arguments).await;
        assert_eq!(finished.code, code, "{}", finished.errors);
    }

    let from_beginning = ["pull", "--company", COMPANY, "--from", "beginning"];
    let tried = scene
        .succeed(&[&from_beginning[..], &["--dry-run"]].concat())
        .await;
    assert!(tried.contains("Nothing was stored"), "{tried}");
    assert_eq!(scene.listed().await.len(), listed.len());
    let pulled = scene.succeed(&from_beginning).await;
    assert!(pulled.contains("up to date"), "{pulled}");
    assert_eq!(scene.listed().await.len(), 12, "each version once");
    let gaps = scene.succeed(&["feeds", "gaps"]).await;
    assert!(gaps.contains("No gaps"), "{gaps}");
}

#[tokio::test]
async fn a_cursor_is_doubted_and_told_with_the_way_back() {
    let scene = Scene::new("").await;
    scene.export(2);
    scene.succeed(&["pull"]).await;
    let cursor = scene.cursor().await.expect("a cursor");
    let wrong = ["feeds", "start-at", "bogus", "--company", COMPANY];
    let asked = scene.run(&wrong).await;
    assert_eq!(asked.code, 2, "{}", asked.out);
    let words = "warning: `bogus` is no moment";
    assert!(asked.errors.contains(words), "{}", asked.errors);
    assert!(asked.errors.contains("add --yes"), "{}", asked.errors);
    assert_eq!(scene.cursor().await.as_ref(), Some(&cursor), "unchanged");

    let moved = scene.run(&[&wrong[..], &["--yes"]].concat()).await;
    assert!(moved.errors.contains(words), "{}", moved.errors);
    let back = format!("feeds start-at {cursor} --company {COMPANY}");
    assert!(
        moved
            .out
            .contains(&format!("To go back: `ivesk-webhook {back}`")),
        "{}",
        moved.out
    );
    assert_eq!(scene.run(&["pull"]).await.code, 1);
    let status = scene.run(&["status"]).await.out;
    assert!(
        status.contains("last error: Įvesk.lt answered 400"),
        "{status}"
    );

    let arguments: Vec<&str> = back.split(' ').chain(["--yes"]).collect();
    scene.succeed(&arguments).await;
    scene.export(3);
    let pulled = scene.run(&["pull"]).await;
    assert!(!pulled.out.contains("is paused"), "{}", pulled.out);
    scene.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn a_document_is_shown_by_its_number() {
    let scene = Scene::new("").await;
    scene.export(2);
    scene.succeed(&["pull"]).await;
    let listed = scene.succeed(&["documents", "list"]).await;
    let mut words = listed.split_whitespace();
    let number = words.find(|word| word.starts_with("SĄSK-"));
    let number = number.unwrap_or_else(|| panic!("{listed}"));
    let shown = scene.succeed(&["documents", "show", number]).await;
    assert!(shown.contains(number), "{shown}");
    let missing = scene.run(&["documents", "show", "SĄSK-"]).await;
    assert_eq!(
        missing.code, 1,
        "a part of a number is none: {}",
        missing.out
    );
}

#[tokio::test]
async fn pull_exits_with_2_and_names_a_missing_setting() {
    let scene = Scene::new("").await;
    scene.export(2);
    scene.write_settings("");
    let finished = scene.run(&["pull"]).await;
    assert_eq!(finished.code, 2, "{}", finished.errors);
    assert!(
        finished.out.contains("`api.exported_path`"),
        "{}",
        finished.out
    );
    assert_eq!(scene.control.requests().count(Endpoint::Exported), 0);

    scene.write_settings("exported_path = \"path\"");
    scene.succeed(&["pull"]).await;
    scene.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn pull_exits_with_3_if_nobody_answers_and_loses_nothing() {
    let mut scene = Scene::new("").await;
    scene.export(2);
    scene.control.fault(Fault::new(FaultKind::BrokenBody));
    let finished = scene.run(&["pull"]).await;
    assert_eq!(finished.code, 3, "{}{}", finished.out, finished.errors);
    assert!(
        finished.out.contains("could not be reached"),
        "{}",
        finished.out
    );
    scene.control.clear_faults();
    // A person need not wait for the backoff.
    let out = scene.succeed(&["feeds", "resume"]).await;
    assert!(out.starts_with("Resumed "), "{out}");
    scene.succeed(&["pull"]).await;
    scene.assert_complete(&exported(COMPANY)).await;

    scene.emulator.take().expect("it runs").stop().await;
    let finished = scene.run(&["pull"]).await;
    assert_eq!(finished.code, 3, "{}{}", finished.out, finished.errors);
}

#[tokio::test]
async fn feeds_are_listed_with_their_state_paused_and_resumed() {
    let scene = Scene::new("").await;
    scene.export(2);
    scene.succeed(&["pull"]).await;
    let listed = scene.succeed(&["feeds", "list"]).await;
    let name = exported(COMPANY).to_string();
    let line = listed.lines().find(|line| line.contains(&name));
    assert!(
        line.is_some_and(|line| line.contains(" active ")),
        "{listed}"
    );

    let paused = scene
        .succeed(&["feeds", "pause", "--company", COMPANY])
        .await;
    assert_eq!(paused, "Paused 1 feed of account `default`.\n");
    let listed = scene.succeed(&["feeds", "list"]).await;
    assert!(listed.contains("paused (by hand)"), "{listed}");
    let pulled = scene.run(&["pull"]).await;
    assert_eq!(pulled.code, 1, "{}", pulled.errors);
    assert!(pulled.out.contains("feeds resume"), "{}", pulled.out);

    let resumed = scene
        .succeed(&["feeds", "resume", "--company", COMPANY])
        .await;
    assert_eq!(resumed, "Resumed 1 feed of account `default`.\n");
    let listed = scene.succeed(&["feeds", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed[0]["state"], "active");
    assert_eq!(listed[0]["documents"], 2);
    let whole_queue = scene.run(&["feeds", "pause", "--queue", "exported"]).await;
    assert_eq!(whole_queue.code, 2, "{}", whole_queue.errors);
}

#[tokio::test]
async fn feeds_gaps_shows_stretches_and_dismisses_them() {
    let scene = Scene::new("from=exclusive,page_edge=split,page_size=20,ties=30").await;
    scene.succeed(&["pull"]).await;
    let none = scene.succeed(&["feeds", "gaps"]).await;
    assert!(none.starts_with("No gaps"), "{none}");
    scene.export(30);
    scene.run(&["pull"]).await;
    let shown = scene.succeed(&["feeds", "gaps"]).await;
    let line = shown.lines().nth(1).expect("a row");
    for part in [
        "1",
        "default/exported/302320404",
        "page_size_unknown",
        "the beginning",
    ] {
        assert!(line.contains(part), "{part}: {shown}");
    }
    let listed = scene.succeed(&["feeds", "list"]).await;
    assert!(listed.contains("page_size_unknown"), "{listed}");
    let doctor = scene.run(&["doctor", "--quick"]).await;
    assert!(
        doctor.out.contains("note      incomplete: "),
        "{}",
        doctor.out
    );

    let dismissed = scene.succeed(&["feeds", "gaps", "--dismiss", "1"]).await;
    assert!(dismissed.starts_with("Dismissed gap 1"), "{dismissed}");
    let again = scene.run(&["feeds", "gaps", "--dismiss", "1"]).await;
    assert_ne!(again.code, 0, "{}", again.out);
    assert!(again.errors.contains("closed already"), "{}", again.errors);
    scene.succeed(&["pull"]).await;
    let json = scene.succeed(&["feeds", "list", "--json"]).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&json[0]["incomplete"], &json[0]["gaps"]),
        (&Value::Null, &Value::from(0))
    );
    let closed = scene
        .succeed(&["feeds", "gaps", "--closed", "--json"])
        .await;
    let closed: Value = serde_json::from_str(&closed).expect("JSON");
    assert!(closed[0]["dismissed_by"].is_string(), "{closed}");
}

#[tokio::test]
async fn a_dry_run_shows_new_documents_and_stores_nothing() {
    let scene = Scene::new("page_size=10").await;
    scene.export(25);
    let out = scene.succeed(&["pull", "--dry-run"]).await;
    assert!(
        out.contains("25") && out.contains("Nothing was stored"),
        "{out}"
    );
    assert!(!scene.path("store.db").exists());

    scene.succeed(&["pull"]).await;
    let cursor = scene.cursor().await;
    scene.export(4);
    let out = scene.succeed(&["pull", "--dry-run"]).await;
    assert!(out.contains(" 4 "), "{out}");
    assert_eq!(scene.listed().await.len(), 25);
    assert_eq!(scene.cursor().await, cursor);
    let out = scene
        .succeed(&["pull", "--dry-run", "--from", "2020-01-01T00:00:00.000Z"])
        .await;
    assert!(out.contains(" 4 ") && out.contains("25"), "{out}");
}

#[tokio::test]
async fn pull_from_rereads_an_old_stretch_and_keeps_the_cursor() {
    let scene = Scene::new("page_size=10").await;
    scene.export(12);
    scene.succeed(&["pull"]).await;
    let cursor = scene.cursor().await;
    assert!(cursor.is_some());
    scene.control.reset_requests();
    scene
        .succeed(&[
            "pull",
            "--company",
            COMPANY,
            "--from",
            "2020-01-01T00:00:00.000Z",
        ])
        .await;
    let counters = scene.control.requests();
    let queries = counters.queries(Endpoint::Exported);
    assert!(
        queries.contains(&"from=2020-01-01T00%3A00%3A00.000Z"),
        "{queries:?}"
    );
    assert_eq!(scene.cursor().await, cursor);
    scene.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn documents_are_exported_byte_for_byte_under_safe_names() {
    let scene = Scene::new("").await;
    let exports = scene.control.export(COMPANY, 2).expect("exported");
    let odd = serde_json::json!({ "id": "../../a/b", "docnum": "x" });
    let fields = odd.as_object().expect("an object").clone();
    scene.control.amend(&exports[1].0, fields).expect("amended");
    scene.succeed(&["pull"]).await;

    let shown = scene.succeed(&["documents", "show", &exports[0].0]).await;
    let document: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(document["id"], exports[0].0.as_str());
    let by_number = scene.succeed(&["documents", "show", "X"]).await;
    assert!(by_number.contains("../../a/b"), "{by_number}");
    let by_sequence = scene
        .succeed(&["documents", "show", "--sequence", "2"])
        .await;
    assert_eq!(by_sequence, by_number);
    assert_eq!(scene.run(&["documents", "show", "2"]).await.code, 1);

    scene.succeed(&["documents", "export", "out"]).await;
    let folder = scene.path("out").join(COMPANY);
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .expect("the company's folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    let odd = identity("../../a/b");
    assert!(odd.starts_with("_._.._a_b"), "{odd}");
    assert_eq!(
        names,
        [
            format!("1-{}.json", exports[0].0).as_str(),
            format!("2-{odd}.json").as_str()
        ]
    );
    let file = std::fs::read_to_string(folder.join(&names[0])).expect("a file");
    assert_eq!(file + "\n", shown);

    let none = scene.run(&["documents", "show", "no-such"]).await;
    assert_eq!(none.code, 1);
    assert!(none.errors.contains("documents search"), "{}", none.errors);
}

#[tokio::test]
async fn a_table_and_the_fields_are_printed_from_the_store() {
    let scene = Scene::new("").await;
    scene.export(3);
    scene.succeed(&["pull"]).await;
    let bodies: Vec<Value> = scene.listed().await;

    let ran = scene.run(&["documents", "export", "--format", "csv"]).await;
    assert_eq!(ran.code, 0, "{}", ran.errors);
    assert!(
        ran.errors.contains("3 rows of 3 documents."),
        "{}",
        ran.errors
    );
    let mut reader = csv::Reader::from_reader(ran.out.as_bytes());
    let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.expect("a row")).collect();
    let names = reader.headers().expect("names").clone();
    let cell = |row: usize, name: &str| {
        let column = names.iter().position(|column| column == name);
        rows[row][column.expect(name)].to_owned()
    };
    assert_eq!(rows.len(), 3);
    for (row, line) in bodies.iter().enumerate() {
        assert_eq!(cell(row, "document_id"), line["document_id"]);
        assert_eq!(cell(row, "company"), COMPANY);
        assert_eq!(cell(row, "docnum"), line["document"]["docnum"]);
    }
    let lines = scene
        .succeed(&[
            "documents",
            "export",
            "--format",
            "json",
            "--columns",
            "id",
            "--after",
            "2",
        ])
        .await;
    assert_eq!(
        lines,
        format!("{{\"id\":{}}}\n", bodies[2]["document"]["id"])
    );

    for wrong in [
        &["documents", "export"][..],
        &["documents", "export", "dir", "--format", "csv"],
        &["documents", "export", "dir", "--columns", "id"],
        &[
            "documents",
            "export",
            "--format",
            "csv",
            "--columns",
            "nothing",
        ],
        &["documents", "export", "--format", "csv", "--since", "now"],
        &["documents", "fields", "--newest", "0"],
    ] {
        assert_eq!(scene.run(wrong).await.code, 2, "{wrong:?}");
    }

    let fields = scene.succeed(&["documents", "fields"]).await;
    let row = fields
        .lines()
        .find(|line| line.trim_start().starts_with("docnum "));
    let row: Vec<&str> = row.expect("a row").split_whitespace().collect();
    assert_eq!(
        row,
        ["docnum", "proven", "100.0", "%", "100.0", "%", "text", "3"]
    );
    let report = scene
        .succeed(&["documents", "fields", "--json", "--newest", "2"])
        .await;
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["queues"][0]["versions"], 2);
    assert_eq!(report["more"], true);
}

#[tokio::test]
async fn a_backup_is_complete_and_replaces_a_file_only_if_asked() {
    let scene = Scene::new("").await;
    scene.export(7);
    scene.succeed(&["pull"]).await;
    let out = scene.succeed(&["store", "backup", "copy.db"]).await;
    assert!(out.contains('7'), "{out}");
    let again = scene.run(&["store", "backup", "copy.db"]).await;
    assert_eq!(again.code, 2);
    assert!(again.errors.contains("--force"), "{}", again.errors);
    let out = scene
        .succeed(&["store", "backup", "--force", "--json", "copy.db"])
        .await;
    let backup: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(backup["last_sequence"], 7);
    let path = backup["path"].as_str().expect("a path");
    assert!(path.ends_with("backups/copy.db"), "{out}");

    let copy = open_file_for_reading(&scene.path("backups/copy.db"))
        .await
        .expect("a store");
    assert_eq!(copy.sequence().await.expect("numbering").last, 7);
    copy.close().await.expect("it closes");
}

#[tokio::test]
async fn a_backup_by_the_cli_leaves_its_folder_in_no_way() {
    let scene = Scene::new("").await;
    scene.succeed(&["pull"]).await;
    let store = std::fs::read(scene.path("store.db")).expect("a store");
    for name in ["../store.db", "/tmp/copy.db", "sub/copy.db", "..", ".x"] {
        let refused = scene.run(&["store", "backup", "--force", name]).await;
        assert_eq!(refused.code, 2, "{name}");
        assert!(
            refused.errors.contains("store.backup_dir"),
            "{}",
            refused.errors
        );
    }
    // Somebody has put a link there that leads to the store.
    std::fs::create_dir(scene.path("backups")).expect("a folder");
    std::os::unix::fs::symlink(scene.path("store.db"), scene.path("backups/copy.db"))
        .expect("a link");
    let refused = scene.run(&["store", "backup", "--force", "copy.db"]).await;
    assert_eq!(refused.code, 2, "{}", refused.errors);
    assert!(
        refused.errors.contains("the store itself"),
        "{}",
        refused.errors
    );
    assert_eq!(
        std::fs::read(scene.path("store.db")).expect("a store"),
        store
    );
}

#[tokio::test]
async fn a_stretch_from_a_refused_cursor_gives_way_to_another() {
    let scene = Scene::new("").await;
    scene.export(2);
    scene.succeed(&["pull"]).await;
    let reread = async |cursor: &str| {
        let arguments = ["pull", "--company", COMPANY, "--from", cursor];
        scene.run(&arguments).await
    };
    let refused = reread("bogus").await;
    assert_eq!(refused.code, 1, "{}{}", refused.out, refused.errors);
    assert!(refused.out.contains("400"), "{}", refused.out);
    let pending = async || {
        let feeds = scene.succeed(&["feeds", "list", "--json"]).await;
        feeds.contains("\"backfill\"")
    };
    assert!(pending().await, "it is tried again and again");
    let other = reread("2020-01-01T00:00:00.000Z").await;
    let given_up = "whose pulls failed, is given up for this one";
    assert!(
        other.errors.contains(given_up),
        "{}{}",
        other.out,
        other.errors
    );
    // Its waits are over once a person says so.
    scene.succeed(&["feeds", "resume"]).await;
    scene.succeed(&["pull"]).await;
    assert!(!pending().await);
    scene.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn documents_list_filters_by_queue_and_company() {
    let scene = Scene::new("").await;
    scene.export(2);
    scene.control.export(NEIGHBOR, 3).expect("exported");
    scene.succeed(&["pull"]).await;
    scene
        .succeed(&["pull", "--company", NEIGHBOR, "--new"])
        .await;
    scene.succeed(&["pull", "--queue", "digitized"]).await;
    scene.assert_complete(&exported(COMPANY)).await;
    scene.assert_complete(&exported(NEIGHBOR)).await;
    let digitized = scene.control.documents(Queue::Digitized, "").len();
    assert_eq!(scene.listed().await.len(), 5 + digitized);
    let out = scene
        .succeed(&["documents", "list", "--json", "--company", NEIGHBOR])
        .await;
    assert_eq!(out.lines().count(), 3, "{out}");
}
