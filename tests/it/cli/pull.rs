//! `pull`, `documents` and `store backup` as a person or cron runs them.

use std::path::Path;
use std::process::{Command, Output};

use ivesk_webhook::domain::{Feed, Queue};
use ivesk_webhook::emulator::{
    Control, DEFAULT_KEY, Emulator, EmulatorSettings, Endpoint, Fault, Switches,
};
use ivesk_webhook::file_names::identity;
use ivesk_webhook::store::Store;
use ivesk_webhook::store::sqlite::SqliteStore;
use serde_json::Value;

use crate::support::puller::{COMPANY, NEIGHBOUR, exported, folder, signer, truth};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ivesk-webhook");

/// The program in a folder with settings, and the vendor that they name.
struct Desk {
    emulator: Option<Emulator>,
    control: Control,
    folder: tempfile::TempDir,
    api_url: String,
}

/// What a command did.
struct Done {
    code: i32,
    said: String,
    told: String,
}

impl Desk {
    async fn new(switches: &str) -> Self {
        let settings = EmulatorSettings {
            switches: Switches::parse(switches).expect("switches that exist"),
            signer: Some(signer()),
            ..EmulatorSettings::default()
        };
        let emulator = Emulator::start(settings, ([127, 0, 0, 1], 0).into()).await;
        let emulator = emulator.expect("a free port");
        let desk = Self {
            control: emulator.control(),
            api_url: emulator.api_url(),
            emulator: Some(emulator),
            folder: folder(),
        };
        desk.write_settings("exported_path = \"path\"");
        desk
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

    async fn run(&self, arguments: &[&str]) -> Done {
        self.run_with_key(DEFAULT_KEY, arguments).await
    }

    async fn run_with_key(&self, key: &str, arguments: &[&str]) -> Done {
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
        let done = Done {
            code: output.status.code().expect("it ends by itself"),
            said: text(&output.stdout),
            told: text(&output.stderr),
        };
        assert!(!done.said.contains(DEFAULT_KEY) && !done.told.contains(DEFAULT_KEY));
        done
    }

    /// Runs and expects success; gives what it said.
    async fn done(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments).await;
        assert_eq!(done.code, 0, "{arguments:?}: {}{}", done.said, done.told);
        done.said
    }

    fn export(&self, count: usize) {
        self.control.export(COMPANY, count).expect("exported");
    }

    async fn cursor(&self) -> Option<String> {
        let store = SqliteStore::open_for_reading(&self.path("store.db")).expect("a store");
        let feeds = store.feeds().await.expect("feeds");
        let row = feeds.into_iter().find(|row| row.feed == exported(COMPANY));
        let cursor = row.and_then(|row| row.cursor);
        store.close().await.expect("it closes");
        cursor.map(|cursor| cursor.as_str().to_owned())
    }

    async fn listed(&self) -> Vec<Value> {
        let said = self.done(&["documents", "list", "--json"]).await;
        said.lines()
            .map(|line| serde_json::from_str(line).expect("a JSON line"))
            .collect()
    }

    /// Holds what `documents list --json` says against the vendor's list.
    async fn assert_complete(&self, feed: &Feed) {
        let lines = self.listed().await;
        for (expected, line) in (1_i64..).zip(&lines) {
            assert_eq!(line["sequence"], expected);
        }
        let text = |line: &Value, name: &str| line[name].as_str().expect("text").to_owned();
        let mut kept: Vec<_> = lines
            .iter()
            .filter(|line| line["company"] == feed.company.as_str())
            .map(|line| (text(line, "document_id"), text(line, "version")))
            .collect();
        kept.sort();
        assert_eq!(kept, truth(&self.control, feed));
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
    let desk = Desk::new("page_size=10,ties=3").await;
    desk.export(24);
    let said = desk.done(&["pull"]).await;
    assert!(said.contains("up to date") && said.contains("24"), "{said}");
    desk.assert_complete(&exported(COMPANY)).await;
    desk.export(6);
    desk.done(&["pull"]).await;
    desk.assert_complete(&exported(COMPANY)).await;
    desk.done(&["pull"]).await;
    desk.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn pull_exits_with_1_if_a_feed_is_refused_and_pulls_others() {
    let desk = Desk::new("").await;
    desk.export(2);
    let done = desk.run(&["pull", "--company", "999999999"]).await;
    assert_eq!(done.code, 1, "{}", done.told);
    assert!(done.said.contains("404"), "{}", done.said);
    desk.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn pull_exits_with_2_and_names_a_missing_setting() {
    let desk = Desk::new("").await;
    desk.export(2);
    desk.write_settings("");
    let done = desk.run(&["pull"]).await;
    assert_eq!(done.code, 2, "{}", done.told);
    assert!(done.said.contains("`api.exported_path`"), "{}", done.said);
    assert_eq!(desk.control.requests().count(Endpoint::Exported), 0);

    desk.write_settings("exported_path = \"path\"");
    desk.done(&["pull"]).await;
    desk.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn pull_exits_with_3_if_nobody_answers_and_loses_nothing() {
    let mut desk = Desk::new("").await;
    desk.export(2);
    desk.control
        .fault(Fault::new(ivesk_webhook::emulator::FaultKind::BrokenBody));
    let done = desk.run(&["pull"]).await;
    assert_eq!(done.code, 3, "{}{}", done.said, done.told);
    assert!(done.said.contains("could not be reached"), "{}", done.said);
    desk.control.clear_faults();
    // Waiting is for a service; a person who frees the feeds need not.
    let said = desk.done(&["feeds", "resume"]).await;
    assert_eq!(said, "Resumed account `default`.\n");
    desk.done(&["pull"]).await;
    desk.assert_complete(&exported(COMPANY)).await;

    desk.emulator.take().expect("it runs").stop().await;
    let done = desk.run(&["pull"]).await;
    assert_eq!(done.code, 3, "{}{}", done.said, done.told);
}

#[tokio::test]
async fn feeds_are_listed_with_their_state_paused_and_resumed() {
    let desk = Desk::new("").await;
    desk.export(2);
    desk.done(&["pull"]).await;
    let listed = desk.done(&["feeds", "list"]).await;
    let name = exported(COMPANY).to_string();
    let line = listed.lines().find(|line| line.contains(&name));
    assert!(
        line.is_some_and(|line| line.contains(" active ")),
        "{listed}"
    );

    let paused = desk.done(&["feeds", "pause", "--company", COMPANY]).await;
    assert_eq!(paused, "Paused 1 feed of account `default`.\n");
    let listed = desk.done(&["feeds", "list"]).await;
    assert!(listed.contains("paused (by_hand)"), "{listed}");
    let pulled = desk.run(&["pull"]).await;
    assert_eq!(pulled.code, 1, "{}", pulled.told);
    assert!(pulled.said.contains("feeds resume"), "{}", pulled.said);

    let resumed = desk.done(&["feeds", "resume", "--company", COMPANY]).await;
    assert_eq!(resumed, "Resumed 1 feed of account `default`.\n");
    let listed = desk.done(&["feeds", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed[0]["state"], "active");
    assert_eq!(listed[0]["documents"], 2);
    let whole_queue = desk.run(&["feeds", "pause", "--queue", "exported"]).await;
    assert_eq!(whole_queue.code, 2, "{}", whole_queue.told);
}

#[tokio::test]
async fn a_dry_run_shows_new_documents_and_stores_nothing() {
    let desk = Desk::new("page_size=10").await;
    desk.export(25);
    let said = desk.done(&["pull", "--dry-run"]).await;
    assert!(
        said.contains("25") && said.contains("Nothing was stored"),
        "{said}"
    );
    assert!(!desk.path("store.db").exists());

    desk.done(&["pull"]).await;
    let cursor = desk.cursor().await;
    desk.export(4);
    let said = desk.done(&["pull", "--dry-run"]).await;
    assert!(said.contains(" 4 "), "{said}");
    assert_eq!(desk.listed().await.len(), 25);
    assert_eq!(desk.cursor().await, cursor);
    let said = desk
        .done(&["pull", "--dry-run", "--from", "2020-01-01T00:00:00.000Z"])
        .await;
    assert!(said.contains(" 4 ") && said.contains("25"), "{said}");
}

#[tokio::test]
async fn pull_from_rereads_an_old_stretch_and_keeps_the_cursor() {
    let desk = Desk::new("page_size=10").await;
    desk.export(12);
    desk.done(&["pull"]).await;
    let cursor = desk.cursor().await;
    assert!(cursor.is_some());
    desk.control.reset_requests();
    desk.done(&[
        "pull",
        "--company",
        COMPANY,
        "--from",
        "2020-01-01T00:00:00.000Z",
    ])
    .await;
    let counters = desk.control.requests();
    let queries = counters.queries(Endpoint::Exported);
    assert!(
        queries.contains(&"from=2020-01-01T00%3A00%3A00.000Z"),
        "{queries:?}"
    );
    assert_eq!(desk.cursor().await, cursor);
    desk.assert_complete(&exported(COMPANY)).await;
}

#[tokio::test]
async fn documents_are_exported_byte_for_byte_under_safe_names() {
    let desk = Desk::new("").await;
    let made = desk.control.export(COMPANY, 2).expect("exported");
    let odd = serde_json::json!({ "id": "../../a/b", "docnum": "x" });
    let fields = odd.as_object().expect("an object").clone();
    desk.control.amend(&made[1].0, fields).expect("amended");
    desk.done(&["pull"]).await;

    let shown = desk.done(&["documents", "show", &made[0].0]).await;
    let document: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(document["id"], made[0].0.as_str());
    let by_number = desk.done(&["documents", "show", "2"]).await;
    assert!(by_number.contains("../../a/b"), "{by_number}");

    desk.done(&["documents", "export", "out"]).await;
    let folder = desk.path("out").join(COMPANY);
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
            format!("1-{}.json", made[0].0).as_str(),
            format!("2-{odd}.json").as_str()
        ]
    );
    let file = std::fs::read_to_string(folder.join(&names[0])).expect("a file");
    assert!(file + "\n" == shown, "the bytes differ");

    let none = desk.run(&["documents", "show", "no-such"]).await;
    assert_eq!(none.code, 1);
    assert!(none.told.contains("documents list"), "{}", none.told);
}

#[tokio::test]
async fn a_backup_is_complete_and_replaces_a_file_only_if_asked() {
    let desk = Desk::new("").await;
    desk.export(7);
    desk.done(&["pull"]).await;
    let said = desk.done(&["store", "backup", "copy.db"]).await;
    assert!(said.contains('7'), "{said}");
    let again = desk.run(&["store", "backup", "copy.db"]).await;
    assert_eq!(again.code, 2);
    assert!(again.told.contains("--force"), "{}", again.told);
    desk.done(&["store", "backup", "--force", "copy.db"]).await;
    if desk.path("test.db").exists() {
        let itself = desk.run(&["store", "backup", "--force", "test.db"]).await;
        assert_eq!(itself.code, 2);
        assert!(itself.told.contains("the store itself"), "{}", itself.told);
    }

    let copy = SqliteStore::open_for_reading(&desk.path("copy.db")).expect("a store");
    assert_eq!(copy.sequence().await.expect("numbering").last, 7);
    copy.close().await.expect("it closes");
}

#[tokio::test]
async fn documents_list_filters_by_queue_and_company() {
    let desk = Desk::new("").await;
    desk.export(2);
    desk.control.export(NEIGHBOUR, 3).expect("exported");
    desk.done(&["pull"]).await;
    desk.done(&["pull", "--company", NEIGHBOUR]).await;
    desk.done(&["pull", "--queue", "digitized"]).await;
    desk.assert_complete(&exported(COMPANY)).await;
    desk.assert_complete(&exported(NEIGHBOUR)).await;
    let digitized = desk.control.documents(Queue::Digitized, "").len();
    assert_eq!(desk.listed().await.len(), 5 + digitized);
    let said = desk
        .done(&["documents", "list", "--json", "--company", NEIGHBOUR])
        .await;
    assert_eq!(said.lines().count(), 3, "{said}");
}
