//! Deliveries of the whole service: its admin API, lists for programs, folders with files.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ivesk_webhook::config::{
    Config, DestinationConfig, DestinationKind, FileMode, FolderLayout, HistoryMode, StoreUrl,
    default_account,
};
use ivesk_webhook::delivery::steps::StepOutcome;
use ivesk_webhook::delivery::worker::DestinationWorker;
use ivesk_webhook::domain::Queue;
use ivesk_webhook::emulator::{Endpoint, sample_pdf};
use ivesk_webhook::service::Service;
use ivesk_webhook::store::{BackupFile, DestinationChange};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::deliveries::{destination_name, drain, step, with_history, worker};
use crate::support::ledger::{Ledger, Reaction};
use crate::support::process::{ADMIN_TOKEN, client, within};
use crate::support::puller::{Bench, COMPANY, NEIGHBOR, company, folder, hours, minutes};

/// The service on a bench's store, with the bench's destinations but no API key: the bench
/// pulls.
struct Running {
    service: Service,
    client: reqwest::Client,
    admin: SocketAddr,
}

impl Running {
    async fn on(bench: &Bench) -> Self {
        let mut config = bench.config.clone();
        let account = config.accounts.get_mut(&default_account());
        account.expect("the account").api_key = None;
        config.admin.token = Some(ADMIN_TOKEN.to_owned().into());
        let store = Arc::clone(bench.store());
        let service = Service::start_with(config, store, bench.clock.clone()).await;
        let service = service.expect("the service starts");
        Self {
            admin: service.admin_address(),
            client: client(),
            service,
        }
    }

    async fn request(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let url = format!("http://{}{path}", self.admin);
        let mut request = self.client.request(method, url).bearer_auth(ADMIN_TOKEN);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let answer = within("an answer", request.send())
            .await
            .expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        (status, serde_json::from_str(&text).expect("JSON"))
    }

    async fn status_with(&self, token: &str, path: &str) -> u16 {
        let url = format!("http://{}{path}", self.admin);
        let request = self.client.get(url).bearer_auth(token);
        let answer = within("an answer", request.send()).await;
        answer.expect("an answer").status().as_u16()
    }

    async fn get(&self, path: &str) -> Value {
        let (status, value) = self.request(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, value) = self.request(Method::POST, path, Some(body)).await;
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    /// Returns a destination as the admin API shows it.
    async fn destination(&self, name: &str) -> Value {
        let destinations = self.get("/v1/destinations").await;
        let destinations = destinations["rows"].as_array().expect("a list").iter();
        let mut named = destinations.filter(|destination| destination["name"] == name);
        named.next().expect("it is known").clone()
    }

    /// Reads the list from `after` to its end; returns its entries and the last position.
    async fn list(&self, after: Option<&str>) -> (Vec<Value>, String) {
        let mut all = Vec::new();
        let mut next = after.map(str::to_owned);
        loop {
            let after = next.map_or(String::new(), |next| format!("&after={next}"));
            let page = self.get(&format!("/v1/documents?limit=2{after}")).await;
            all.extend(page["documents"].as_array().expect("a list").clone());
            let position = page["next"].as_str().expect("a position").to_owned();
            if page["more"] == false {
                return (all, position);
            }
            next = Some(position);
        }
    }

    /// [`Running::list`] once it has `count` entries.
    async fn list_of(&self, count: usize) -> (Vec<Value>, String) {
        within("the list", async {
            loop {
                let (list, next) = self.list(None).await;
                if list.len() >= count {
                    return (list, next);
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }

    async fn stop(self) {
        assert!(self.service.stop().await);
    }
}

fn set_destinations(config: &mut Config, destinations: Vec<(&str, DestinationConfig)>) {
    let destinations = destinations
        .into_iter()
        .map(|(name, destination)| (destination_name(name), destination));
    config.destinations = destinations.collect();
}

/// Returns a destination whose history is held, as is the default.
fn held(ledger: &Ledger) -> DestinationConfig {
    DestinationConfig {
        history: HistoryMode::Hold,
        ..ledger.destination()
    }
}

/// Exports documents a minute later and pulls them; returns their ids.
async fn export(bench: &Bench, count: usize) -> Vec<String> {
    bench.clock.advance(minutes(1));
    bench.export_and_pull(COMPANY, count).await
}

fn ids(ledger: &Ledger) -> Vec<String> {
    let accepted = ledger.accepted().into_iter();
    accepted.map(|entry| entry.document_id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_held_until_a_person_starts_it() {
    for from in ["all", "since"] {
        let ledger = Ledger::start().await;
        let bench = Bench::with("", |config| {
            set_destinations(config, vec![("books", held(&ledger))])
        })
        .await;
        let old = bench.control.export(COMPANY, 2).expect("exported");
        bench.clock.advance(hours(24));
        let since = bench.clock.now();
        bench.clock.advance(minutes(1));
        let newer = bench.control.export(COMPANY, 2).expect("exported");
        bench.settle().await;
        bench.clock.advance(minutes(1));
        let running = Running::on(&bench).await;
        let later = export(&bench, 1).await;
        ledger
            .until("what is new", |ledger| ledger.accepted().len() == 1)
            .await;
        assert_eq!(ids(&ledger), later, "{from}");
        let destination = running.destination("books").await;
        assert_eq!(destination["held"], 4, "{destination}");

        let moment = match from {
            "since" => since.to_string(),
            word => word.to_owned(),
        };
        let start = json!({ "from": moment, "company": COMPANY });
        let answer = running.post("/v1/destinations/books/start", start).await;
        assert_eq!(answer["changed"], 1);
        let last = export(&bench, 1).await;
        let of = |versions: &[(String, String)]| -> Vec<String> {
            versions.iter().map(|(id, _)| id.clone()).collect()
        };
        let mut expected = match from {
            "all" => [of(&old), of(&newer), later, last].concat(),
            _ => [of(&newer), later, last].concat(),
        };
        ledger
            .until(from, |ledger| ledger.accepted().len() >= expected.len())
            .await;
        let mut delivered = ids(&ledger);
        delivered.sort();
        expected.sort();
        assert_eq!(delivered, expected, "{from}");

        // An earlier start delivers the rest of the history, and nothing twice.
        let from_all = json!({ "from": "all" });
        running.post("/v1/destinations/books/start", from_all).await;
        ledger
            .until("the history", |ledger| ledger.accepted().len() == 6)
            .await;
        assert_eq!((ledger.repeats(), ledger.requests()), (0, 6), "{from}");
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_and_a_failing_destination_delay_no_other() {
    let (hangs, fails, works) = (
        Ledger::start().await,
        Ledger::start().await,
        Ledger::start().await,
    );
    let bench = Bench::with("", |config| {
        let all = vec![
            ("a-hangs", hangs.destination()),
            ("b-fails", fails.destination()),
            ("c-works", works.destination()),
        ];
        set_destinations(config, all);
    })
    .await;
    bench.settle().await;
    hangs.always(Reaction::Hangs);
    fails.always(Reaction::status(500));
    let running = Running::on(&bench).await;
    let exported = export(&bench, 50).await;
    works
        .until("all documents", |ledger| ledger.accepted().len() == 50)
        .await;
    hangs.until("its first", |l| l.requests() == 1).await;
    fails.until("its first", |l| l.requests() >= 1).await;
    assert_eq!(ids(&works), exported);
    assert!(hangs.accepted().is_empty() && fails.accepted().is_empty());

    fails.always(Reaction::Accepts);
    running
        .post("/v1/destinations/b-fails/resume", json!({}))
        .await;
    fails
        .until("the rest", |ledger| ledger.accepted().len() == 50)
        .await;
    assert_eq!(ids(&fails), exported);
    // Not stopped, which would wait 30 seconds for the hanging destination.
    drop(running);
}

/// Starts a bench with a list destination, and the service on it.
async fn with_list() -> (Bench, Running) {
    let bench = Bench::with("", |config| {
        config.api.import_error_path = Some("/errors".to_owned());
        set_destinations(config, vec![("erp", with_history(DestinationKind::List))]);
    })
    .await;
    bench.settle().await;
    let running = Running::on(&bench).await;
    (bench, running)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_lists_documents_in_pages_and_reports_outcomes() {
    let (bench, running) = with_list().await;
    let exported = export(&bench, 5).await;
    let (list, next) = running.list_of(5).await;
    let listed: Vec<_> = list
        .iter()
        .map(|one| one["document_id"].as_str().expect("an id"))
        .collect();
    assert_eq!(listed, exported);
    assert_eq!(list[4]["number"], 5);
    assert_eq!(list[4]["state"], "pending");
    assert_eq!(list[4]["document"]["id"], exported[4]);

    let outcome = |sequence: &Value| format!("/v1/documents/{sequence}/outcome");
    let path = outcome(&list[0]["sequence"]);
    for _ in 0..2 {
        let answer = running.post(&path, json!({ "outcome": "delivered" })).await;
        assert_eq!(answer["changed"], 1, "a repeated report is accepted");
    }
    let path = outcome(&list[1]["sequence"]);
    let (status, _) = running
        .request(Method::POST, &path, Some(json!({ "outcome": "rejected" })))
        .await;
    assert_eq!(status, 400, "the accountant needs a message");
    let rejection = json!({ "outcome": "rejected", "message": "Nežinomas klientas\n    at X()" });
    for _ in 0..2 {
        running.post(&path, rejection.clone()).await;
    }
    let errors = bench.import_errors().await;
    assert_eq!(errors.len(), 1);
    assert!(errors[0].message.contains("nepriėmė: Nežinomas klientas."));
    let destination = running.destination("erp").await;
    assert_eq!(
        (&destination["delivered"], &destination["rejected"]),
        (&json!(1), &json!(1))
    );
    let (status, problem) = running
        .request(
            Method::POST,
            "/v1/documents/9999/outcome",
            Some(json!({ "outcome": "delivered" })),
        )
        .await;
    assert_eq!(status, 409, "{problem}");

    // Its next version and what is retried are appended to the list.
    bench.re_export_and_pull(COMPANY, &exported[1]).await;
    running.list_of(6).await;
    let again = json!({ "sequence": list[2]["sequence"] });
    running.post("/v1/destinations/erp/retry", again).await;
    let more = within("the end of the list", async {
        loop {
            let (more, _) = running.list(Some(&next)).await;
            if more.len() == 2 {
                return more;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(more[0]["document_id"], exported[1]);
    assert_ne!(more[0]["key"], list[1]["key"]);
    assert_eq!(more[1]["document_id"], exported[2]);
    assert_eq!(
        more[1]["key"], list[2]["key"],
        "the same version, so the same key"
    );
    running.stop().await;
}

/// Returns the answer to a list's request after a place.
async fn list_after(running: &Running, after: &str) -> (u16, Value) {
    let path = format!("/v1/documents?after={after}");
    running.request(Method::GET, &path, None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_that_the_list_does_not_have_is_a_conflict() {
    let (bench, running) = with_list().await;
    export(&bench, 3).await;
    let (list, next) = running.list_of(3).await;
    let (status, page) = list_after(&running, &next).await;
    assert_eq!((status, &page["documents"]), (200, &json!([])), "{page}");
    let parts: Vec<&str> = next.split(':').collect();
    let [epoch, number, check] = parts[..] else {
        panic!("{next}");
    };
    assert_eq!(number, "3");
    let wrong = [
        format!("{epoch}:4:{check}"),
        format!("{epoch}:999999:{check}"),
        format!("{epoch}:{number}:0123456789abcdef"),
        format!("{epoch}:{number}:"),
        format!("{epoch}:0:{check}"),
        format!("{}:{number}:{check}", "0af2"),
    ];
    for after in wrong {
        let (status, problem) = list_after(&running, &after).await;
        assert_eq!(status, 409, "{after}: {problem}");
        let text = problem.to_string();
        assert!(
            text.contains("Start without") && text.contains("`key`"),
            "{text}"
        );
    }
    for after in [
        "",
        "1",
        &format!("{epoch}:{number}"),
        &format!("{epoch}:-1:{check}"),
    ] {
        assert_eq!(list_after(&running, after).await.0, 400, "{after}");
    }
    // A version that is retried leaves its place, and the consumer that stood there goes on.
    let again = json!({ "sequence": list[2]["sequence"] });
    running.post("/v1/destinations/erp/retry", again).await;
    let more = within("the retried version", async {
        loop {
            let (more, _) = running.list(Some(&next)).await;
            if !more.is_empty() {
                return more;
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(more.await[0]["key"], list[2]["key"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_a_list_reads_it_and_nothing_else() {
    let (bench, running) = with_list().await;
    export(&bench, 1).await;
    running.list_of(1).await;
    let token = list_token(&running).await;
    for (path, expected) in [
        ("/v1/documents", 200),
        ("/v1/documents?destination=other", 403),
        ("/v1/destinations", 403),
        ("/v1/import-errors", 403),
    ] {
        assert_eq!(running.status_with(&token, path).await, expected, "{path}");
    }
    running.stop().await;
}

/// Creates a token that reads the list of `erp`.
async fn list_token(running: &Running) -> String {
    let new = json!({ "name": "erp", "rights": "destination:erp" });
    let created = running.post("/v1/tokens", new).await;
    created["token"].as_str().expect("a token").to_owned()
}

/// Runs the example consumer; returns the documents in its books, in the order of booking.
async fn consume(running: &Running, token: &str, folder: &Path) -> Vec<String> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/receivers/list_consumer.py");
    let (books, token_file) = (folder.join("books.db"), folder.join("token.txt"));
    std::fs::write(&token_file, token).expect("written");
    let output = tokio::process::Command::new("python3")
        .arg(example)
        .env("IVESK_ADMIN", format!("http://{}", running.admin))
        .env("IVESK_TOKEN_FILE", &token_file)
        .env("BOOKS", &books)
        .env("COMPANIES", format!("1,{COMPANY}"))
        .kill_on_drop(true)
        .output();
    let output = within("the consumer", output).await.expect("Python runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let books = rusqlite::Connection::open(books).expect("books");
    let mut rows = books
        .prepare("SELECT document_id FROM booked ORDER BY rowid")
        .expect("a table");
    let ids = rows.query_map([], |row| row.get(0)).expect("rows");
    ids.collect::<Result<_, _>>().expect("ids")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_crashed_reports_its_outcomes_later() {
    let (bench, running) = with_list().await;
    let consumer = folder();
    let token = list_token(&running).await;
    let mut expected = export(&bench, 2).await;
    let (list, _) = running.list_of(2).await;
    assert_eq!(consume(&running, &token, consumer.path()).await, expected);
    assert_eq!(running.destination("erp").await["delivered"], 2);
    // It ended after it had booked: nothing of it was reported. One version has no place any more.
    let again = json!({ "sequence": list[0]["sequence"] });
    running.post("/v1/destinations/erp/retry", again).await;
    expected.extend(export(&bench, 1).await);
    running.list_of(3).await;
    let books = rusqlite::Connection::open(consumer.path().join("books.db")).expect("books");
    let stored = "INSERT INTO outcome VALUES (?1, ?2)";
    for sequence in [list[0]["sequence"].as_i64().expect("a number"), 9_999] {
        books
            .execute(stored, (sequence, r#"{"outcome": "delivered"}"#))
            .expect("stored");
    }
    drop(books);
    assert_eq!(consume(&running, &token, consumer.path()).await, expected);
    let destination = running.destination("erp").await;
    assert_eq!(
        destination["delivered"], 4,
        "one of them twice: {destination}"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_of_a_store_that_was_rolled_back_is_told() {
    let (mut bench, running) = with_list().await;
    let consumer = folder();
    let mut expected = export(&bench, 2).await;
    running.list_of(2).await;
    let token = list_token(&running).await;
    assert_eq!(consume(&running, &token, consumer.path()).await, expected);
    running.stop().await;
    // A file is what a snapshot of a disk puts back.
    let StoreUrl::Sqlite(file) = bench.config.store.url.clone() else {
        return;
    };
    bench.close().await;
    let snapshot = file.with_extension("snapshot");
    std::fs::copy(&file, &snapshot).expect("copied");
    bench.restart().await;
    let running = Running::on(&bench).await;
    expected.extend(export(&bench, 3).await);
    let (_, next) = running.list_of(5).await;
    assert_eq!(consume(&running, &token, consumer.path()).await, expected);
    running.stop().await;

    bench.close().await;
    std::fs::copy(&snapshot, &file).expect("put back");
    bench.restart().await;
    let running = Running::on(&bench).await;
    let (status, problem) = list_after(&running, &next).await;
    assert_eq!(status, 409, "beyond the end: {problem}");
    // The vendor is read again from the older cursor, so the same places are given again.
    expected.extend(export(&bench, 2).await);
    let (list, _) = running.list_of(7).await;
    let listed: Vec<&str> = list
        .iter()
        .filter_map(|one| one["document_id"].as_str())
        .collect();
    assert_eq!(listed, expected, "without `after` all of them are there");
    let (status, problem) = list_after(&running, &next).await;
    assert_eq!(status, 409, "not the same place: {problem}");
    // The example starts over, and books nothing twice.
    assert_eq!(consume(&running, &token, consumer.path()).await, expected);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_started_late_is_appended_to_the_list() {
    let bench = Bench::with("", |config| {
        let account = config.accounts.get_mut(&default_account());
        account.expect("the account").companies = vec![company(COMPANY), company(NEIGHBOR)];
        set_destinations(
            config,
            vec![("erp", DestinationConfig::of(DestinationKind::List))],
        );
    })
    .await;
    // One company has history, which is held.
    bench.export_unannounced(NEIGHBOR, 3);
    bench.settle().await;
    bench.clock.advance(minutes(1));
    let running = Running::on(&bench).await;
    export(&bench, 2).await;
    let (list, next) = running.list_of(2).await;
    assert!(list.iter().all(|one| one["company"] == COMPANY), "{list:?}");
    let start = json!({ "from": "all", "company": NEIGHBOR });
    running.post("/v1/destinations/erp/start", start).await;
    let (all, _) = running.list_of(5).await;
    let numbers: Vec<_> = all.iter().map(|one| one["number"].as_i64()).collect();
    assert_eq!(numbers, (1..=5).map(Some).collect::<Vec<_>>());
    let (late, _) = running.list(Some(&next)).await;
    assert_eq!(late.len(), 3);
    assert!(late.iter().all(|one| one["company"] == NEIGHBOR));
    // Their sequences are lower than those of earlier entries.
    assert!(late[0]["sequence"].as_i64() < list[0]["sequence"].as_i64());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_backup_refuses_old_positions_and_keeps_keys() {
    let dir = folder();
    let file = dir.path().join("live.db");
    let url = StoreUrl::Sqlite(file.clone());
    let mut bench = Bench::with("", |config| {
        config.store.url = url;
        set_destinations(config, vec![("erp", with_history(DestinationKind::List))]);
    })
    .await;
    bench.settle().await;
    let running = Running::on(&bench).await;
    export(&bench, 3).await;
    running.list_of(3).await;
    let copy = BackupFile::named(dir.path(), "copy.db", false).expect("a name");
    bench.store().backup(copy.clone()).await.expect("a backup");
    export(&bench, 2).await;
    let (before, next) = running.list_of(5).await;
    running.stop().await;

    bench.restart_with(|_| restore(&copy.path(), &file)).await;
    bench.settle().await;
    let running = Running::on(&bench).await;
    let path = format!("/v1/documents?after={next}");
    let (status, problem) = running.request(Method::GET, &path, None).await;
    assert_eq!(status, 409, "{problem}");
    assert!(problem.to_string().contains("backup"), "{problem}");
    let (after, new) = running.list_of(5).await;
    assert_ne!(new.split(':').next(), next.split(':').next());
    let keys = |list: &[Value]| -> std::collections::BTreeSet<String> {
        list.iter().map(|one| one["key"].to_string()).collect()
    };
    assert_eq!(keys(&before), keys(&after));
    let (status, _) = running
        .request(Method::GET, "/v1/documents?after=nonsense", None)
        .await;
    assert!(status == 400 || status == 409, "{status}");
    running.stop().await;
}

/// Replaces a store by a copy.
fn restore(copy: &Path, live: &Path) {
    for beside in ["-wal", "-shm"] {
        let name = format!("{}{beside}", live.display());
        let _ = std::fs::remove_file(name);
    }
    std::fs::copy(copy, live).expect("copied");
}

/// A bench with a folder destination that fetches files, and links that expire after a minute.
struct Archive {
    bench: Bench,
    worker: DestinationWorker,
    folder: tempfile::TempDir,
}

impl Archive {
    async fn new(switches: &str) -> Self {
        let folder = folder();
        let bench = Bench::caught_up(&format!("pdf_expires_ms=60000,{switches}")).await;
        let destination = with_history(DestinationKind::Folder {
            path: folder.path().to_owned(),
            layout: FolderLayout::Company,
            files: true,
            max_file_bytes: 1 << 20,
            file_mode: FileMode::default(),
        });
        let worker = worker(&bench, "archive", &destination).await;
        Self {
            bench,
            worker,
            folder,
        }
    }

    /// Returns the company's files whose names end with `ending`.
    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let company = self.folder.path().join(COMPANY);
        let Ok(names) = std::fs::read_dir(company) else {
            return Vec::new();
        };
        let paths = names.map(|name| name.expect("a name").path());
        paths
            .filter(|path| path.to_string_lossy().ends_with(ending))
            .collect()
    }

    fn downloads(&self) -> u64 {
        self.bench.control.requests().count(Endpoint::File)
    }
}

#[tokio::test]
async fn an_expired_link_triggers_a_pull_and_the_pdf_is_filed() {
    let archive = Archive::new("").await;
    let bench = &archive.bench;
    export(bench, 3).await;
    // Long enough for the links to expire.
    bench.clock.advance(minutes(5));
    drain(&archive.worker).await;
    assert!(
        archive.files(".json").is_empty(),
        "the JSON waits for the PDF"
    );
    assert!(matches!(
        step(&archive.worker).await,
        StepOutcome::Nothing(nothing) if nothing.until.is_some()
    ));
    let pulled = bench.settle().await;
    assert!(!pulled.is_empty(), "nothing was pulled again");
    drain(&archive.worker).await;
    assert_eq!(archive.files(".json").len(), 3);
    let pdfs = archive.files(".pdf");
    assert_eq!(pdfs.len(), 3);
    for pdf in pdfs {
        let bytes = std::fs::read(pdf).expect("a file");
        assert!(bytes.starts_with(&sample_pdf("")[..5]));
    }
    assert!(archive.files(".nopdf.txt").is_empty());
    let rows = bench.store().destinations().await.expect("destinations");
    assert_eq!((rows[0].delivered, rows[0].failures), (3, 0));
    assert_eq!(bench.documents().await.len(), 3, "no version is new");
}

#[tokio::test]
async fn long_expired_links_are_renewed_by_a_pull_from_the_start() {
    let archive = Archive::new("page_size=4").await;
    let bench = &archive.bench;
    bench
        .change_destination("archive", DestinationChange::Pause)
        .await;
    export(bench, 3).await;
    // Further back than the overlap of a pull.
    for _ in 0..6 {
        bench.run_for(hours(12)).await;
        export(bench, 2).await;
    }
    bench
        .change_destination("archive", DestinationChange::Resume)
        .await;
    for _ in 0..10 {
        drain(&archive.worker).await;
        bench.settle().await;
        bench.clock.advance(Duration::from_secs(30));
    }
    assert_eq!(archive.files(".json").len(), 15);
    assert_eq!(archive.files(".pdf").len(), 15);
    assert!(archive.files(".nopdf.txt").is_empty());
}

#[tokio::test]
async fn a_pdf_that_never_arrives_is_omitted_after_five_links() {
    let archive = Archive::new("pdf=xml_error").await;
    let bench = &archive.bench;
    export(bench, 1).await;
    let mut rounds = 0;
    while archive.files(".json").is_empty() {
        drain(&archive.worker).await;
        bench.settle().await;
        bench.clock.advance(minutes(2));
        rounds += 1;
        assert!(rounds < 20, "it waits forever");
    }
    assert_eq!(archive.downloads(), 6, "the first link and five fresh ones");
    assert!(archive.files(".pdf").is_empty());
    let note = archive.files(".nopdf.txt");
    assert_eq!(note.len(), 1);
    let note = std::fs::read_to_string(&note[0]).expect("text");
    assert!(note.contains("expired"), "{note}");
    // The next document is not affected.
    bench.switch("pdf=ok");
    export(bench, 1).await;
    drain(&archive.worker).await;
    assert_eq!(archive.files(".json").len(), 2);
    assert_eq!(archive.files(".pdf").len(), 1);
}

#[tokio::test]
async fn a_document_that_waits_for_a_link_delays_no_other() {
    let archive = Archive::new("").await;
    let bench = &archive.bench;
    let destination = DestinationConfig {
        queue: Queue::Exported,
        ..with_history(DestinationKind::List)
    };
    let list = worker(bench, "list", &destination).await;
    export(bench, 2).await;
    bench.clock.advance(minutes(5));
    drain(&archive.worker).await;
    drain(&list).await;
    let offered = bench
        .store()
        .listed(destination_name("list"), 0, 10, 1 << 20);
    assert_eq!(offered.await.expect("a list").len(), 2);
    // Their pull renews the expired links too.
    export(bench, 2).await;
    drain(&archive.worker).await;
    assert_eq!(archive.files(".json").len(), 4);
    assert_eq!(archive.files(".pdf").len(), 4);
}
