//! Faults of the store's file: each is seen in the answer to a message, `/readyz`, the log, an
//! alarm, `doctor` and the overview.

use std::path::{Path, PathBuf};

use ivesk_webhook::domain::Event;
use ivesk_webhook::emulator::{Control, DEFAULT_COMPANIES, Emulator, Publication};
use reqwest::Method;

use crate::support::databases::damage;
use crate::support::doctor::Report;
use crate::support::emulator::emulator;
use crate::support::process::{Installation, Server, within, write_program};
#[cfg(target_os = "linux")]
use crate::support::small_disk::SmallDisk;

/// A server with a subscription, whose alarms are appended to a file.
pub(super) struct Scene {
    pub(super) control: Control,
    pub(super) installation: Installation,
    server: Server,
    database: PathBuf,
    notices: tempfile::TempDir,
    _emulator: Emulator,
}

impl Scene {
    async fn start() -> Self {
        let scene = Self::prepare(None).await;
        scene.subscribed().await
    }

    /// Starts a server on a SQLite file, or in the installation's folder.
    async fn prepare(database: Option<&Path>) -> Self {
        let url = database.map(|path| format!("sqlite://{}", path.display()));
        let scene = Self::on(url.as_deref()).await;
        match database {
            Some(database) => Self {
                database: database.to_owned(),
                ..scene
            },
            None => scene,
        }
    }

    /// Starts a server on the store at `url`, or in the installation's folder.
    pub(super) async fn on(url: Option<&str>) -> Self {
        let emulator = emulator("time_scale=0.01").await;
        let notices = tempfile::tempdir().expect("a folder");
        let (program, file) = (
            notices.path().join("notify"),
            notices.path().join("notices"),
        );
        write_program(
            &program,
            &format!("#!/bin/sh\ncat >>{0}\necho >>{0}\n", file.display()),
        );
        let url = url.map(|url| format!("url = \"{url}\"\n"));
        let sections = format!(
            "[alarms]\ncommand = [\"{}\"]\n[store]\nmin_free_bytes = 0\n{}",
            program.display(),
            url.unwrap_or_default()
        );
        let installation = Installation::beside(&emulator, "", &sections);
        Self {
            control: emulator.control(),
            server: installation.start().await,
            database: installation.database(),
            installation,
            notices,
            _emulator: emulator,
        }
    }

    pub(super) async fn subscribed(self) -> Self {
        let events = [Event::OnExported];
        self.installation.subscribe(&self.control, &events).await;
        self
    }

    /// Publishes a message, and waits until an attempt to deliver it was answered 503.
    async fn message_is_answered_503(&self) {
        let failed = self.control.attempts().failed;
        let publication = Publication::exported(DEFAULT_COMPANIES[0]);
        self.control
            .notify(&publication)
            .expect("the account exists");
        let refused = self
            .control
            .attempts_reached(|totals| totals.failed > failed);
        within("an answer of 503", refused).await;
    }

    /// Publishes messages, one after another, until an attempt to deliver one was answered 503;
    /// returns their number.
    pub(super) async fn publish_until_503(&self) -> usize {
        let before = self.control.attempts();
        let mut published = 0;
        within("an answer of 503", async {
            while self.control.attempts().failed == before.failed {
                published += 1;
                let publication = Publication::exported(DEFAULT_COMPANIES[0]);
                self.control
                    .notify(&publication)
                    .expect("the account exists");
                let count = before.acknowledged + before.failed + published;
                let answered = self
                    .control
                    .attempts_reached(move |totals| totals.acknowledged + totals.failed >= count);
                answered.await;
            }
        })
        .await;
        usize::try_from(published).expect("few")
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self
            .installation
            .admin_request(Method::GET, path)
            .send()
            .await;
        let answer = answer.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    /// Waits until `path` contains all of `parts`.
    pub(super) async fn shows(&self, path: &str, parts: &[&str]) {
        within(path, async {
            loop {
                let (_, text) = self.get(path).await;
                if parts.iter().all(|part| text.contains(part)) {
                    return;
                }
            }
        })
        .await;
    }

    /// Waits until a notice contains all of `parts`.
    async fn notice(&self, parts: &[&str]) {
        let file = self.notices.path().join("notices");
        within("a notice of the alarm", async {
            loop {
                let notices = tokio::fs::read_to_string(&file).await.unwrap_or_default();
                if notices
                    .lines()
                    .any(|line| parts.iter().all(|part| line.contains(part)))
                {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub(super) async fn logs(&self, part: &str) {
        within("a line of the log", async {
            while !self.server.log().contains(part) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Asserts that the fault is seen everywhere, with `text` and the refusal's `code`.
    pub(super) async fn sees(&self, code: &str, text: &str) {
        self.message_is_answered_503().await;
        self.is_seen(code, text).await;
    }

    /// Asserts the same, once a message has been answered 503.
    pub(super) async fn is_seen(&self, code: &str, text: &str) {
        self.shows("/readyz", &[code]).await;
        self.logs(text).await;
        self.notice(&["\"alarm\":\"store\"", "\"state\":\"raised\"", text])
            .await;
        self.shows("/", &[text]).await;
        let report = Report::of(&self.installation, &["--quick"]).await;
        assert_eq!(report.results("server"), ["fail"]);
        assert!(report.words("server").contains(text));
        report.assert_explained();
    }

    /// Asserts that everything is well again, and that the end of the alarm is told.
    pub(super) async fn recovers(&self) {
        self.shows("/readyz", &["ready"]).await;
        self.notice(&["\"alarm\":\"store\"", "\"state\":\"ended\""])
            .await;
        self.logs("messages can be stored again").await;
        within("the retries", self.control.idle()).await;
    }

    /// Stops the server, changes its files, and starts it again.
    async fn restart(self, change: impl FnOnce(&Path)) -> Self {
        self.server.terminate();
        let (_, log) = self.server.exited().await;
        assert!(!log.contains("panicked"), "{log}");
        change(&self.database);
        Self {
            server: self.installation.start().await,
            ..self
        }
    }

    pub(super) async fn stored_notifications(&self) -> usize {
        let (_, text) = self.get("/v1/notifications?limit=500").await;
        let page: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let rows = page["rows"].as_array().expect("a list");
        rows.iter()
            .filter(|row| row["kind"] == "Notification")
            .count()
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    PathBuf::from(format!("{}{ending}", path.display()))
}

/// Removes the log of a database that is gone.
fn remove_log(database: &Path) {
    for ending in ["-wal", "-shm"] {
        // The server itself removes them at its end if it can.
        let _ = std::fs::remove_file(beside(database, ending));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renamed_database_is_seen_until_it_is_put_back() {
    let scene = Scene::start().await;
    let aside = beside(&scene.database, ".aside");
    std::fs::rename(&scene.database, &aside).expect("renamed");
    scene
        .sees("store_unavailable", "was renamed or deleted")
        .await;
    scene
        .shows("/v1/alarms?active=true", &["\"store\"", "renamed"])
        .await;
    scene
        .shows("/metrics", &["ivesk_webhook_alarms{kind=\"store\"} 1"])
        .await;

    std::fs::rename(&aside, &scene.database).expect("renamed");
    scene.recovers().await;
    assert_eq!(
        scene.stored_notifications().await,
        1,
        "the retry is a duplicate"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_database_is_seen_and_used_after_a_restart() {
    let scene = Scene::start().await;
    let copy = scene.installation.folder().join("backups/copy.db");
    let backup = ["store", "backup", "copy.db"];
    let (code, _, errors) = scene.installation.run(&backup).await;
    assert_eq!(code, Some(0), "{errors}");
    std::fs::rename(&copy, &scene.database).expect("renamed");
    scene
        .sees("store_unavailable", "was replaced by another file")
        .await;

    let scene = scene.restart(remove_log).await;
    within("the retries", scene.control.idle()).await;
    assert_eq!(scene.stored_notifications().await, 1, "SNS sent it again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_database_is_seen() {
    let scene = Scene::start().await;
    std::fs::remove_file(&scene.database).expect("removed");
    scene
        .sees("store_unavailable", "was renamed or deleted")
        .await;

    let scene = scene.restart(remove_log).await;
    within("the retries", scene.control.idle()).await;
    assert_eq!(scene.stored_notifications().await, 1, "SNS sent it again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_log_of_the_database_is_seen() {
    let scene = Scene::start().await;
    std::fs::remove_file(beside(&scene.database, "-wal")).expect("removed");
    scene
        .sees("store_unavailable", "-wal was renamed or deleted")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_database_is_seen() {
    let scene = Scene::start().await;
    let file = std::fs::File::options().write(true).open(&scene.database);
    file.expect("a file").set_len(0).expect("truncated");
    scene.sees("store_unavailable", "was truncated").await;
}

/// The log of the file that was there belongs to no other, and a stop leaves it alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_copied_over_the_database_survives_the_stop() {
    let scene = Scene::start().await;
    let copy = scene.installation.folder().join("backups/copy.db");
    let backup = ["store", "backup", "copy.db"];
    let (code, _, errors) = scene.installation.run(&backup).await;
    assert_eq!(code, Some(0), "{errors}");
    let file = std::fs::File::options().write(true).open(&scene.database);
    file.expect("a file").set_len(0).expect("truncated");
    scene.sees("store_unavailable", "was truncated").await;
    std::fs::copy(&copy, &scene.database).expect("copied");
    let content = std::fs::read(&copy).expect("readable");
    let is_untouched = |database: &Path| {
        let found = std::fs::read(database).expect("readable");
        assert!(found == content, "{} bytes", found.len());
    };
    let scene = scene.restart(is_untouched).await;
    within("the retries", scene.control.idle()).await;
    assert_eq!(scene.stored_notifications().await, 1, "SNS sent it again");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_seen_whatever_the_settings() {
    let Some(disk) = SmallDisk::mount(2) else {
        eprintln!("skipped: this user may not mount");
        return;
    };
    let scene = Scene::prepare(Some(&disk.folder().join("store.db"))).await;
    let scene = scene.subscribed().await;
    let ballast = disk.fill();
    scene.shows("/readyz", &["disk_nearly_full"]).await;
    scene.logs("is full; free some space").await;
    scene
        .notice(&["\"alarm\":\"store\"", "\"state\":\"raised\"", "is full"])
        .await;
    scene.shows("/", &["is full; free some space"]).await;
    let report = Report::of(&scene.installation, &["--quick"]).await;
    assert!(report.words("server").contains("is full"));

    std::fs::remove_file(ballast).expect("removed");
    scene.recovers().await;
    let Scene { server, .. } = scene;
    server.terminate();
    server.exited().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_deep_in_the_file_is_seen_after_the_start() {
    // Nothing reads these at the start.
    for table in ["document_link", "unreadable"] {
        let scene = Scene::start().await;
        let scene = scene.restart(|database| damage(database, table)).await;

        scene.logs("is damaged").await;
        scene
            .notice(&[
                "\"alarm\":\"damaged\"",
                "\"state\":\"raised\"",
                "is damaged",
            ])
            .await;
        scene.shows("/", &["the database is damaged"]).await;
        scene
            .shows("/v1/alarms?active=true", &["\"damaged\""])
            .await;
        let report = Report::of(&scene.installation, &["--quick"]).await;
        assert_eq!(report.results("store"), ["fail"], "{table}");
        assert!(report.words("store").contains("is damaged"), "{table}");
        // Messages are still stored, and SNS need not retry them.
        scene.shows("/readyz", &["ready"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_another_name_of_the_file_is_refused() {
    let scene = Scene::start().await;
    let other = Installation::alone("");
    let link = other.folder().join("link.db");
    std::os::unix::fs::symlink(&scene.database, &link).expect("linked");
    let hard = scene.installation.folder().join("hard.db");
    std::fs::hard_link(&scene.database, &hard).expect("linked");
    let folder = other.folder().to_owned();
    for (name, reason) in [
        (&link, "hard links"),
        (&hard, "hard links"),
        (&folder, "it is a folder"),
    ] {
        let url = format!("sqlite://{}", name.display());
        let variables = [("IVESK_WEBHOOK_STORE_URL", url.as_str())];
        let (code, _, errors) = other.run_with(&["serve"], &variables).await;
        assert_eq!(code, Some(2), "{errors}");
        assert!(errors.contains(reason), "{errors}");
    }

    std::fs::remove_file(hard).expect("removed");
    let url = format!("sqlite://{}", link.display());
    let variables = [("IVESK_WEBHOOK_STORE_URL", url.as_str())];
    let (code, _, errors) = other.run_with(&["serve"], &variables).await;
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("in use by another"), "{errors}");
}
