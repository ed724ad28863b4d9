//! Handing on as people and programs drive it: the whole service, its admin API, the
//! list that a program asks for, and the folder with the vendor's own links.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ivesk_webhook::config::{
    Config, DestinationConfig, DestinationKind, FolderLayout, HistoryMode, StoreUrl,
    default_account,
};
use ivesk_webhook::delivery::worker::{DestinationWorker, StepOutcome};
use ivesk_webhook::domain::Queue;
use ivesk_webhook::emulator::{Endpoint, sample_pdf};
use ivesk_webhook::service::Service;
use ivesk_webhook::store::{DestinationChange, ImportErrorFilter};
use reqwest::Method;
use serde_json::{Value, json};

use crate::delivery::worker::{all_of, destination_name, drain, step, worker};
use crate::support::ledger::{Ledger, Manner};
use crate::support::process::within;
use crate::support::puller::{Bench, COMPANY, NEIGHBOUR, company, folder, hours, minutes};

/// The service on a bench's store, with the bench's destinations. It has no API key, so the
/// bench pulls.
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
        let store = Arc::clone(bench.store());
        let service = Service::start_with(config, store, bench.clock.clone()).await;
        let service = service.expect("the service starts");
        Self {
            admin: service.admin_address(),
            client: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client"),
            service,
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let url = format!("http://{}{path}", self.admin);
        let mut request = self.client.request(method, url);
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

    async fn get(&self, path: &str) -> Value {
        let (status, value) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, value) = self.ask(Method::POST, path, Some(body)).await;
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    /// A destination as people see it.
    async fn destination(&self, name: &str) -> Value {
        let destinations = self.get("/v1/destinations").await;
        let destinations = destinations["rows"].as_array().expect("a list").iter();
        let mut named = destinations.filter(|destination| destination["name"] == name);
        named.next().expect("it is known").clone()
    }

    /// The list from `after` on until it ends: (document, version) of each entry.
    async fn list(&self, after: Option<&str>) -> (Vec<Value>, String) {
        let mut all = Vec::new();
        let mut next = after.map(str::to_owned);
        loop {
            let after = next.map_or(String::new(), |next| format!("&after={next}"));
            let page = self.get(&format!("/v1/documents?limit=2{after}")).await;
            all.extend(page["documents"].as_array().expect("a list").clone());
            let place = page["next"].as_str().expect("a place").to_owned();
            if page["more"] == false {
                return (all, place);
            }
            next = Some(place);
        }
    }

    /// [`Running::list`] once it has so many entries: the service offers them by itself.
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

fn destinations(config: &mut Config, destinations: Vec<(&str, DestinationConfig)>) {
    let destinations = destinations
        .into_iter()
        .map(|(name, destination)| (destination_name(name), destination));
    config.destinations = destinations.collect();
}

/// A destination that is held until a person starts it, as is the default.
fn held(ledger: &Ledger) -> DestinationConfig {
    DestinationConfig {
        history: HistoryMode::Hold,
        ..ledger.destination()
    }
}

async fn export(bench: &Bench, count: usize) -> Vec<String> {
    bench.clock.advance(minutes(1));
    let exported = bench.control.export(COMPANY, count).expect("exported");
    bench.hint(COMPANY).await;
    bench.settle().await;
    exported.into_iter().map(|(id, _)| id).collect()
}

async fn re_export(bench: &Bench, id: &str) {
    bench.clock.advance(minutes(1));
    bench.control.re_export(id).expect("a known document");
    bench.hint(COMPANY).await;
    bench.settle().await;
}

fn ids(ledger: &Ledger) -> Vec<String> {
    let delivered = ledger.delivered().into_iter();
    delivered.map(|entry| entry.document_id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_held_until_a_person_starts_it() {
    for from in ["all", "now", "since"] {
        let ledger = Ledger::open().await;
        let bench = Bench::with("", |config| {
            destinations(config, vec![("books", held(&ledger))])
        })
        .await;
        let old = bench.control.export(COMPANY, 2).expect("exported");
        bench.clock.advance(hours(24));
        let since = bench.clock.now();
        bench.clock.advance(minutes(1));
        let newer = bench.control.export(COMPANY, 2).expect("exported");
        bench.settle().await;
        let running = Running::on(&bench).await;
        let later = export(&bench, 1).await;
        // Another feed begins by itself there, so the destination is awake.
        let destination = running.destination("books").await;
        assert_eq!(destination["held"][0]["company"], COMPANY, "{destination}");
        assert_eq!(destination["held"][0]["documents"], 5);
        assert_eq!(ledger.requests(), 0);

        let moment = match from {
            "since" => since.to_string(),
            word => word.to_owned(),
        };
        let started = json!({ "from": moment, "company": COMPANY });
        let answer = running.post("/v1/destinations/books/start", started).await;
        assert_eq!(answer["changed"], 1);
        let last = export(&bench, 1).await;
        let of = |versions: &[(String, String)]| -> Vec<String> {
            versions.iter().map(|(id, _)| id.clone()).collect()
        };
        let wanted = match from {
            "all" => [of(&old), of(&newer), later, last].concat(),
            "now" => last,
            _ => [of(&newer), later, last].concat(),
        };
        ledger
            .until(from, |ledger| ledger.delivered().len() >= wanted.len())
            .await;
        assert_eq!(ids(&ledger), wanted, "{from}");
        let destination = running.destination("books").await;
        assert_eq!(destination["held"], json!([]), "{destination}");

        // Beginning earlier than it did gives what it has not had, and nothing twice.
        let from_all = json!({ "from": "all" });
        running.post("/v1/destinations/books/start", from_all).await;
        ledger
            .until("all of it", |ledger| ledger.delivered().len() == 6)
            .await;
        assert_eq!((ledger.repeats(), ledger.requests()), (0, 6), "{from}");
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_and_a_failing_destination_delay_no_other() {
    let (hangs, fails, works) = (
        Ledger::open().await,
        Ledger::open().await,
        Ledger::open().await,
    );
    let bench = Bench::with("", |config| {
        let all = vec![
            ("a-hangs", hangs.destination()),
            ("b-fails", fails.destination()),
            ("c-works", works.destination()),
        ];
        destinations(config, all);
    })
    .await;
    bench.settle().await;
    hangs.always(Manner::Hangs);
    fails.always(Manner::status(500));
    let running = Running::on(&bench).await;
    let exported = export(&bench, 50).await;
    works
        .until("all documents", |ledger| ledger.delivered().len() == 50)
        .await;
    hangs.until("its first", |l| l.requests() == 1).await;
    fails.until("its first", |l| l.requests() >= 1).await;
    assert_eq!(ids(&works), exported);
    assert!(hangs.delivered().is_empty() && fails.delivered().is_empty());

    fails.always(Manner::Books);
    running
        .post("/v1/destinations/b-fails/resume", json!({}))
        .await;
    fails
        .until("the rest", |ledger| ledger.delivered().len() == 50)
        .await;
    assert_eq!(ids(&fails), exported);
    // Nobody waits 30 seconds for what hangs.
    drop(running);
}

/// A bench with a destination of the kind `api`, and the service on it.
async fn with_list() -> (Bench, Running) {
    let bench = Bench::with("", |config| {
        config.api.import_error_path = Some("/errors".to_owned());
        destinations(config, vec![("erp", all_of(DestinationKind::List))]);
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
    assert_eq!(list[4]["state"], "listed");
    assert_eq!(list[4]["document"]["id"], exported[4]);

    let outcome = |sequence: &Value| format!("/v1/documents/{sequence}/outcome");
    let path = outcome(&list[0]["sequence"]);
    for _ in 0..2 {
        let said = running.post(&path, json!({ "outcome": "delivered" })).await;
        assert_eq!(said["changed"], 1, "saying it twice changes nothing");
    }
    let path = outcome(&list[1]["sequence"]);
    let (status, _) = running
        .ask(Method::POST, &path, Some(json!({ "outcome": "rejected" })))
        .await;
    assert_eq!(status, 400, "the accountant is to know why");
    let no = json!({ "outcome": "rejected", "message": "Nežinomas klientas\n    at X()" });
    for _ in 0..2 {
        running.post(&path, no.clone()).await;
    }
    let reports = bench.store().import_errors(ImportErrorFilter {
        limit: 10,
        ..ImportErrorFilter::default()
    });
    let reports = reports.await.expect("reports");
    assert_eq!(reports.len(), 1);
    assert!(reports[0].message.contains("nepriėmė: Nežinomas klientas."));
    let destination = running.destination("erp").await;
    assert_eq!(
        (&destination["delivered"], &destination["rejected"]),
        (&json!(1), &json!(1))
    );
    let (status, problem) = running
        .ask(
            Method::POST,
            "/v1/documents/9999/outcome",
            Some(json!({ "outcome": "delivered" })),
        )
        .await;
    assert_eq!(status, 409, "{problem}");

    // Its next version, and what is tried again, come at the end of the list.
    re_export(&bench, &exported[1]).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_started_late_is_appended_to_the_list() {
    let bench = Bench::with("", |config| {
        let account = config.accounts.get_mut(&default_account());
        account.expect("the account").companies = vec![company(COMPANY), company(NEIGHBOUR)];
        destinations(
            config,
            vec![("erp", DestinationConfig::of(DestinationKind::List))],
        );
    })
    .await;
    // One company has a past, which is held; the other begins by itself.
    bench.export_unheard(NEIGHBOUR, 3);
    bench.settle().await;
    let running = Running::on(&bench).await;
    export(&bench, 2).await;
    let (list, next) = running.list_of(2).await;
    assert!(list.iter().all(|one| one["company"] == COMPANY), "{list:?}");
    let start = json!({ "from": "all", "company": NEIGHBOUR });
    running.post("/v1/destinations/erp/start", start).await;
    let (all, _) = running.list_of(5).await;
    let numbers: Vec<_> = all.iter().map(|one| one["number"].as_i64()).collect();
    assert_eq!(numbers, (1..=5).map(Some).collect::<Vec<_>>());
    let (late, _) = running.list(Some(&next)).await;
    assert_eq!(late.len(), 3);
    assert!(late.iter().all(|one| one["company"] == NEIGHBOUR));
    // Their numbers in the store are lower than what came before them in the list.
    assert!(late[0]["sequence"].as_i64() < list[0]["sequence"].as_i64());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_backup_refuses_old_positions_and_keeps_keys() {
    let dir = folder();
    let file = dir.path().join("live.db");
    let at = StoreUrl::Sqlite(file.clone());
    let mut bench = Bench::with("", |config| {
        config.store.url = at;
        destinations(config, vec![("erp", all_of(DestinationKind::List))]);
    })
    .await;
    bench.settle().await;
    let running = Running::on(&bench).await;
    export(&bench, 3).await;
    running.list_of(3).await;
    let copy = dir.path().join("copy.db");
    bench.store().backup(copy.clone()).await.expect("a backup");
    export(&bench, 2).await;
    let (before, next) = running.list_of(5).await;
    running.stop().await;

    bench.restart_with(|_| restore(&copy, &file)).await;
    bench.settle().await;
    let running = Running::on(&bench).await;
    let path = format!("/v1/documents?after={next}");
    let (status, problem) = running.ask(Method::GET, &path, None).await;
    assert_eq!(status, 409, "{problem}");
    assert!(problem.to_string().contains("backup"), "{problem}");
    let (after, new) = running.list_of(5).await;
    assert_ne!(new.split(':').next(), next.split(':').next());
    let keys = |list: &[Value]| -> std::collections::BTreeSet<String> {
        list.iter().map(|one| one["key"].to_string()).collect()
    };
    assert_eq!(keys(&before), keys(&after));
    let (status, _) = running
        .ask(Method::GET, "/v1/documents?after=nonsense", None)
        .await;
    assert!(status == 400 || status == 409, "{status}");
    running.stop().await;
}

/// Puts a copy in the place of a store.
fn restore(copy: &Path, live: &Path) {
    for beside in ["-wal", "-shm"] {
        let name = format!("{}{beside}", live.display());
        let _ = std::fs::remove_file(name);
    }
    std::fs::copy(copy, live).expect("it is copied");
}

/// A bench with a folder destination that fetches files, and links that end after a minute.
struct Archive {
    bench: Bench,
    deliver: DestinationWorker,
    folder: tempfile::TempDir,
}

impl Archive {
    async fn new(switches: &str) -> Self {
        let folder = folder();
        let bench = Bench::caught_up(&format!("pdf_expires_ms=60000,{switches}")).await;
        let destination = all_of(DestinationKind::Folder {
            path: folder.path().to_owned(),
            layout: FolderLayout::Company,
            files: true,
            max_file_bytes: 1 << 20,
        });
        let deliver = worker(&bench, "archive", &destination).await;
        Self {
            bench,
            deliver,
            folder,
        }
    }

    /// Names of the files that people see, which end so.
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
    // The destination was paused, say, while the links ended.
    bench.clock.advance(minutes(5));
    drain(&archive.deliver).await;
    assert!(archive.files(".json").is_empty(), "the JSON waits for it");
    assert!(matches!(
        step(&archive.deliver).await,
        StepOutcome::Nothing { until: Some(_) }
    ));
    let pulled = bench.settle().await;
    assert!(!pulled.is_empty(), "nothing was pulled again");
    drain(&archive.deliver).await;
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
    change(bench, DestinationChange::Pause).await;
    export(bench, 3).await;
    // Further back than a reading that looks back anyway would go.
    for _ in 0..6 {
        bench.pass(hours(12)).await;
        export(bench, 2).await;
    }
    change(bench, DestinationChange::Resume).await;
    for _ in 0..10 {
        drain(&archive.deliver).await;
        bench.settle().await;
        bench.clock.advance(Duration::from_secs(30));
    }
    assert_eq!(archive.files(".json").len(), 15);
    assert_eq!(archive.files(".pdf").len(), 15);
    assert!(archive.files(".nopdf.txt").is_empty());
}

async fn change(bench: &Bench, change: DestinationChange) {
    let changed =
        bench
            .store()
            .change_destination(destination_name("archive"), change, bench.clock.now());
    assert_eq!(changed.await.expect("the store works"), Some(1));
}

#[tokio::test]
async fn a_pdf_that_never_arrives_is_omitted_after_five_links() {
    let archive = Archive::new("pdf=xml_error").await;
    let bench = &archive.bench;
    export(bench, 1).await;
    let mut rounds = 0;
    while archive.files(".json").is_empty() {
        drain(&archive.deliver).await;
        bench.settle().await;
        bench.clock.advance(minutes(2));
        rounds += 1;
        assert!(rounds < 20, "it waits for ever");
    }
    assert_eq!(archive.downloads(), 6, "once, and with five fresh links");
    assert!(archive.files(".pdf").is_empty());
    let note = archive.files(".nopdf.txt");
    assert_eq!(note.len(), 1);
    let note = std::fs::read_to_string(&note[0]).expect("text");
    assert!(note.contains("expired"), "{note}");
    // The next one is not held up by what it was.
    bench.switch("pdf=ok");
    export(bench, 1).await;
    drain(&archive.deliver).await;
    assert_eq!(archive.files(".json").len(), 2);
    assert_eq!(archive.files(".pdf").len(), 1);
}

#[tokio::test]
async fn a_document_that_waits_for_a_link_delays_no_other() {
    let archive = Archive::new("").await;
    let bench = &archive.bench;
    let destination = DestinationConfig {
        queue: Queue::Exported,
        ..all_of(DestinationKind::List)
    };
    let list = worker(bench, "list", &destination).await;
    export(bench, 2).await;
    bench.clock.advance(minutes(5));
    drain(&archive.deliver).await;
    drain(&list).await;
    let offered = bench
        .store()
        .listed(destination_name("list"), 0, 10, 1 << 20);
    assert_eq!(offered.await.expect("a list").len(), 2);
    // Pulled beside it, so their links are fresh.
    export(bench, 2).await;
    drain(&archive.deliver).await;
    assert_eq!(archive.files(".json").len(), 4);
    assert_eq!(archive.files(".pdf").len(), 4);
}
