//! `kill -9` while documents are delivered: in the end each destination's own record is held
//! against what the vendor exported and what the store believes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ivesk_webhook::delivery::Delivery;
use ivesk_webhook::domain::{Event, Queue, Timestamp};
use ivesk_webhook::emulator::{Control, DEFAULT_COMPANIES, Emulator, Selection};
use ivesk_webhook::store::{DeliveryFilter, DeliveryState, DocumentFilter, Store};
use serde_json::Value;

use crate::replicas::load;
use crate::store::kill::{Chance, emulator, number_from};
use crate::support::databases::Database;
use crate::support::ledger::{Ledger, Manner, SECRET};
use crate::support::process::{Installation, Server, within};
use crate::support::puller;
use crate::support::wires::Balancer;

/// Kills in the form that every run of the tests takes.
const KILLS: usize = 12;

const SWITCHES: &str = "time_scale=0.002,page_size=7,delivery_timeout_ms=5000";

/// The name of a version: the document's id and the vendor's version text.
type Version = (String, String);

/// All that is known of one destination in the end.
#[derive(Clone, Debug, Default)]
struct History {
    /// What the vendor exported, and the key that belongs to it.
    exported: BTreeMap<Version, String>,
    /// What reached the destination, as it came, with what it took twice.
    given: Vec<(Version, String)>,
    /// What the destination has by its own record.
    delivered: BTreeSet<Version>,
    /// What it rejected.
    rejected: BTreeSet<Version>,
    /// What the store says that it has, and that it rejected.
    stored_delivered: BTreeSet<Version>,
    stored_rejected: BTreeSet<Version>,
}

impl History {
    /// Every promise that it breaks.
    fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut newest: BTreeMap<&str, &str> = BTreeMap::new();
        for (document, version) in self.exported.keys() {
            let known = newest.entry(document).or_default();
            *known = (*known).max(version);
        }
        let mut last: BTreeMap<&str, &str> = BTreeMap::new();
        for ((document, version), key) in &self.given {
            let named = (document.clone(), version.clone());
            match self.exported.get(&named) {
                None => broken.push(format!("{named:?} was never exported")),
                Some(own) if own != key => {
                    broken.push(format!("{named:?} came under the key {key}, not {own}"));
                }
                Some(_) => {}
            }
            let before = last.insert(document, version);
            if before.is_some_and(|before| before > version.as_str()) {
                broken.push(format!("{named:?} came after {before:?}"));
            }
        }
        let is_newest = |(document, version): &Version| newest[document.as_str()] == version;
        for (document, version) in &newest {
            let named = ((*document).to_owned(), (*version).to_owned());
            if !self.delivered.contains(&named) && !self.rejected.contains(&named) {
                broken.push(format!("{named:?} is missing"));
            }
        }
        for (what, stored, own) in [
            ("delivered", &self.stored_delivered, &self.delivered),
            ("rejected", &self.stored_rejected, &self.rejected),
        ] {
            for named in stored.difference(own) {
                broken.push(format!("the store says that {named:?} is {what}"));
            }
            // What was taken unheard and then replaced is never asked for again.
            for named in own
                .difference(stored)
                .filter(|named| !self.exported.contains_key(*named) || is_newest(named))
            {
                broken.push(format!("the store does not say that {named:?} is {what}"));
            }
        }
        broken
    }
}

/// What the exported queues list, with the keys that follow from it.
fn exported(control: &Control) -> BTreeMap<Version, String> {
    let mut exported = BTreeMap::new();
    for code in DEFAULT_COMPANIES {
        for (document_id, version) in control.documents(Queue::Exported, code) {
            let item = Delivery {
                feed: puller::exported(code),
                document_id: document_id.clone(),
                version: version.clone(),
                epoch: String::new(),
                sequence: 0,
                stored_at: Timestamp::from_millis(0),
                body: Vec::new(),
                link: None,
                link_listed_at: None,
                link_tries: 0,
                earlier_note: None,
            };
            exported.insert((document_id, version), item.key());
        }
    }
    exported
}

/// What a store says of a destination: the versions in this state.
async fn in_state(store: &dyn Store, destination: &str, state: DeliveryState) -> BTreeSet<Version> {
    let mut names = BTreeMap::new();
    let mut after = None;
    loop {
        let filter = DocumentFilter {
            after,
            limit: 500,
            ..DocumentFilter::default()
        };
        let rows = store.documents(filter).await.expect("documents");
        let Some(last) = rows.last() else {
            break;
        };
        after = Some(last.sequence);
        names.extend(
            rows.into_iter()
                .map(|row| (row.sequence, (row.document_id, row.version))),
        );
    }
    let mut found = BTreeSet::new();
    let mut after = 0;
    loop {
        let filter = DeliveryFilter {
            destination: Some(crate::delivery::worker::destination_name(destination)),
            state: Some(state),
            sequence: None,
            after,
            limit: 500,
        };
        let rows = store.deliveries(filter).await.expect("deliveries");
        let Some(last) = rows.last() else {
            return found;
        };
        after = last.sequence;
        found.extend(rows.iter().map(|row| names[&row.sequence].clone()));
    }
}

/// The history of the receiver behind the destination `http`.
async fn of_ledger(ledger: &Ledger, control: &Control, store: &dyn Store) -> History {
    let named = |entries: Vec<crate::support::ledger::Entry>| -> BTreeSet<Version> {
        let entries = entries.into_iter();
        entries.map(|one| (one.document_id, one.version)).collect()
    };
    History {
        exported: exported(control),
        given: ledger
            .given()
            .into_iter()
            .map(|one| ((one.document_id, one.version), one.key))
            .collect(),
        delivered: named(ledger.delivered()),
        rejected: named(ledger.rejected()),
        stored_delivered: in_state(store, "http", DeliveryState::Delivered).await,
        stored_rejected: in_state(store, "http", DeliveryState::Rejected).await,
    }
}

/// Whether a receiver rejects this key: always, or never.
fn is_rejected(key: &str) -> bool {
    key.ends_with('7')
}

/// Has the receiver fail as receivers do.
fn fail_at_random(ledger: &Ledger, seed: u64) {
    let chance = Mutex::new(Chance(seed));
    ledger.takes(move |entry| {
        let mut chance = chance.lock().expect("never poisoned");
        match chance.below(24) {
            0 => Manner::Resets,
            1 => Manner::status(500),
            2 | 3 if !is_rejected(&entry.key) => Manner::BooksUnheard,
            4 => Manner::with_header(429, "retry-after", "1"),
            _ if is_rejected(&entry.key) => Manner::rejects("Nežinomas PVM kodas"),
            5..=9 => Manner::BooksAfter(Duration::from_millis(chance.below(30))),
            _ => Manner::Books,
        }
    });
}

/// Has the receiver take what it filter to have, and say so.
fn recover(ledger: &Ledger) {
    ledger.takes(|entry| match is_rejected(&entry.key) {
        true => Manner::rejects("Nežinomas PVM kodas"),
        false => Manner::Books,
    });
}

/// What accountants do: exports, some of them unheard, and exports of the same again.
struct Accountants {
    control: Control,
    exported: Vec<String>,
}

impl Accountants {
    fn of(control: &Control) -> Self {
        Self {
            control: control.clone(),
            exported: Vec::new(),
        }
    }

    fn work(&mut self, chance: &mut Chance) {
        for _ in 0..4 + chance.below(8) {
            let company = DEFAULT_COMPANIES[usize::from(chance.below(2) == 1)];
            match chance.below(8) {
                0..=2 => self.export(company, chance),
                3 => {
                    self.control.lose_next_notifications(1);
                    self.export(company, chance);
                }
                _ => self.export_again(chance),
            }
        }
    }

    fn export(&mut self, company: &str, chance: &mut Chance) {
        let count = usize::try_from(1 + chance.below(3)).expect("small");
        let exported = self.control.export(company, Selection::Next(count));
        let exported = exported.expect("a known company");
        self.exported.extend(exported.into_iter().map(|(id, _)| id));
    }

    fn export_again(&self, chance: &mut Chance) {
        // The latest ones, which are likely to be on their way.
        let latest = self.exported.len().min(6);
        if latest > 0 {
            let back = usize::try_from(chance.below(latest as u64)).expect("small");
            let id = &self.exported[self.exported.len() - 1 - back];
            self.control.re_export(id).expect("a known document");
        }
    }
}

/// Speaks with the private listeners of some servers.
struct People {
    client: reqwest::Client,
    urls: Vec<String>,
}

impl People {
    fn of(installations: &[&Installation]) -> Self {
        let client = reqwest::Client::builder().no_proxy();
        Self {
            client: client.build().expect("a client"),
            urls: installations.iter().map(|one| one.admin_url("")).collect(),
        }
    }

    /// Resumes every destination, where a server is there to be told.
    async fn resume(&self, destinations: &[&str]) {
        for url in &self.urls {
            for destination in destinations {
                let resume = self
                    .client
                    .post(format!("{url}/v1/destinations/{destination}/resume"));
                let resume = resume.header("content-type", "application/json").body("{}");
                // It may be dead just now.
                let _ = resume.send().await;
            }
        }
    }

    /// Waits until `versions` are stored and every destination has had what it is to have.
    async fn all_delivered(&self, versions: usize, destinations: &[&str]) {
        within("the end of delivering", async {
            loop {
                self.resume(destinations).await;
                if self.stored().await >= versions as u64 && self.behind().await == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    async fn get(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.urls[0]);
        let answer = self.client.get(url).send().await.expect("an answer");
        let text = answer.text().await.expect("a body");
        serde_json::from_str(&text).expect("JSON")
    }

    async fn stored(&self) -> u64 {
        let feeds = self.get("/v1/feeds").await;
        let feeds = feeds["rows"].as_array().expect("a list").iter();
        feeds.filter_map(|feed| feed["documents"].as_u64()).sum()
    }

    async fn behind(&self) -> u64 {
        let destinations = self.get("/v1/destinations").await;
        let destinations = destinations["rows"].as_array().expect("a list").iter();
        destinations
            .filter_map(|destination| destination["behind"].as_u64())
            .sum()
    }
}

/// The settings of the destination `http`.
fn http_section(ledger: &Ledger, secret: &Path, max_concurrency: usize) -> String {
    format!(
        "[destinations.http]\nkind = \"http\"\nhistory = \"deliver\"\nmax_concurrency = {max_concurrency}\ntimeout = \"2s\"\n\
         url = \"{}\"\nsecret_file = \"{}\"\n",
        ledger.url(),
        secret.display()
    )
}

fn write_secret(folder: &Path) -> PathBuf {
    let path = folder.join("secret");
    std::fs::write(&path, SECRET).expect("a file");
    path
}

/// A program that notes what it is given, and the moods that it may be in.
struct Program {
    folder: tempfile::TempDir,
}

impl Program {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let here = folder.path().display();
        let script = format!(
            "#!/bin/sh\ncat >/dev/null\nif [ -e {here}/refuses ]; then exit 75; fi\n\
             printf '%s %s %s\\n' \"$IVESK_DOCUMENT_ID\" \"$IVESK_VERSION\" \"$IVESK_KEY\" >>{here}/record\n\
             if [ -e {here}/unheard ]; then exit 75; fi\n"
        );
        let program = Self { folder };
        std::fs::write(program.path("script"), script).expect("a file");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(program.path("script"), executable).expect("allowed");
        program
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn change_mood(&self, chance: &mut Chance) {
        self.recover();
        match chance.below(4) {
            0 => std::fs::write(self.path("refuses"), "").expect("a file"),
            1 => std::fs::write(self.path("unheard"), "").expect("a file"),
            _ => {}
        }
    }

    fn recover(&self) {
        for mood in ["refuses", "unheard"] {
            let _ = std::fs::remove_file(self.path(mood));
        }
    }

    async fn history(&self, control: &Control, store: &dyn Store) -> History {
        let record = std::fs::read_to_string(self.path("record")).expect("a record");
        let given: Vec<(Version, String)> = record
            .lines()
            .map(|line| {
                let mut words = line.split(' ').map(str::to_owned);
                let mut word = || words.next().expect("three words");
                ((word(), word()), word())
            })
            .collect();
        History {
            exported: exported(control),
            delivered: given.iter().map(|(version, _)| version.clone()).collect(),
            given,
            rejected: BTreeSet::new(),
            stored_delivered: in_state(store, "program", DeliveryState::Delivered).await,
            stored_rejected: in_state(store, "program", DeliveryState::Rejected).await,
        }
    }
}

/// The folder holds of each document the newest version alone, whole, with its PDF.
fn check_folder(folder: &Path, control: &Control) -> Vec<String> {
    let mut broken = Vec::new();
    let mut wanted: BTreeMap<String, String> = BTreeMap::new();
    for (document, version) in exported(control).into_keys() {
        let known = wanted.entry(document).or_default();
        *known = (*known).clone().max(version);
    }
    for code in DEFAULT_COMPANIES {
        let names = std::fs::read_dir(folder.join(code)).expect("a folder");
        for name in names {
            let path = name.expect("a name").path();
            if path.extension().is_none_or(|ending| ending != "json") {
                continue;
            }
            let text = std::fs::read(&path).expect("a file");
            let Ok(document) = serde_json::from_slice::<Value>(&text) else {
                broken.push(format!("{} is no JSON", path.display()));
                continue;
            };
            let id = document["id"].as_str().unwrap_or_default();
            match wanted.remove(id) {
                Some(version) if document["exportedat"] == *version => {}
                other => broken.push(format!(
                    "{} is of {}, not {other:?}",
                    path.display(),
                    document["exportedat"]
                )),
            }
            if !path.with_extension("pdf").exists() {
                broken.push(format!("{} has no PDF", path.display()));
            }
        }
    }
    broken.extend(wanted.keys().map(|id| format!("{id} is not filed")));
    broken
}

/// Waits for a moment that chance picks: the delays are the moment itself.
async fn moment_to_kill(chance: &mut Chance, ledger: &Ledger, server: &mut Server) -> String {
    match chance.below(4) {
        0 => {
            let delay = Duration::from_micros(chance.below(60_000));
            tokio::time::sleep(delay).await;
            format!("{delay:?} after its start")
        }
        1 => {
            server.receiving().await;
            let delay = Duration::from_micros(chance.below(300_000));
            tokio::time::sleep(delay).await;
            format!("{delay:?} after its first line")
        }
        _ => {
            server.receiving().await;
            let more = 1 + usize::try_from(chance.below(20)).expect("small");
            let wished = ledger.requests() + more;
            let delay = Duration::from_micros(chance.below(4_000));
            tokio::select! {
                () = ledger.until("requests", |ledger| ledger.requests() >= wished) => {}
                () = tokio::time::sleep(Duration::from_secs(3)) => {}
            }
            tokio::time::sleep(delay).await;
            format!("{delay:?} after {more} documents")
        }
    }
}

fn seed() -> u64 {
    number_from("IVESK_WEBHOOK_TEST_SEED").unwrap_or_else(|| getrandom::u64().expect("random"))
}

fn kills() -> usize {
    number_from("IVESK_WEBHOOK_TEST_KILLS").map_or(KILLS, |n| n as usize)
}

async fn subscribe(control: &Control, installation: &Installation) {
    let target = installation.webhook(Event::OnExported);
    let subscribed = control.subscribe(Event::OnExported, &target);
    subscribed.expect("on this machine");
    within("the confirmation", control.idle()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_at_any_moment_delivers_every_newest_version_in_order() {
    let (seed, kills, started) = (seed(), kills(), Instant::now());
    let mut chance = Chance(seed);
    let emulator: Emulator = emulator(SWITCHES).await;
    let control = emulator.control();
    let (ledger, program) = (Ledger::open().await, Program::new());
    let archive = tempfile::tempdir().expect("a folder");
    let sections = format!(
        "{}[destinations.program]\nkind = \"command\"\nhistory = \"deliver\"\nprogram = \"{}\"\n\
         [destinations.archive]\nkind = \"folder\"\nhistory = \"deliver\"\npath = \"{}\"\n",
        http_section(&ledger, &write_secret(program.folder.path()), 1),
        program.path("script").display(),
        archive.path().display(),
    );
    let installation = Installation::beside(&emulator, "", &sections);
    let people = People::of(&[&installation]);
    let destinations = ["http", "program", "archive"];
    let mut server = installation.start().await;
    subscribe(&control, &installation).await;
    let mut accountants = Accountants::of(&control);
    fail_at_random(&ledger, seed);

    for kill in 1..=kills {
        accountants.work(&mut chance);
        program.change_mood(&mut chance);
        let when = moment_to_kill(&mut chance, &ledger, &mut server).await;
        let log = server.kill().await;
        assert!(
            !log.contains("panicked"),
            "seed {seed}, kill {kill} {when}\n{log}"
        );
        server = installation.spawn();
        if chance.below(2) == 0 {
            server.receiving().await;
            people.resume(&destinations).await;
        }
    }

    server.receiving().await;
    recover(&ledger);
    program.recover();
    control.retry_now();
    within("the end of deliveries", control.idle()).await;
    let versions = exported(&control).len();
    people.all_delivered(versions, &destinations).await;
    server.terminate();
    let (status, log) = server.ended().await;
    assert!(status.success() && !log.contains("panicked"), "{log}");
    let store = installation.read_store();
    let of_ledger = of_ledger(&ledger, &control, store.as_ref()).await;
    let of_program = program.history(&control, store.as_ref()).await;
    eprintln!(
        "{kills} kills in {:.1?}, seed {seed}: {versions} versions; the receiver was given {}, booked {} and rejected {}; \
         {} repeats; the program noted {}",
        started.elapsed(),
        of_ledger.given.len(),
        of_ledger.delivered.len(),
        of_ledger.rejected.len(),
        ledger.repeats(),
        of_program.given.len(),
    );
    for (what, broken) in [
        ("http", of_ledger.broken()),
        ("program", of_program.broken()),
        ("archive", check_folder(archive.path(), &control)),
    ] {
        assert!(broken.is_empty(), "seed {seed}, {what}: {broken:#?}\n{log}");
    }
    // One after the other, and so in the order of their numbers.
    let sequences: Vec<i64> = ledger.delivered().iter().map(|one| one.sequence).collect();
    assert!(sequences.is_sorted(), "seed {seed}: {sequences:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_killed_in_turn_deliver_every_newest_version() {
    let Some(database) = Database::postgres("replicas that deliver").await else {
        return;
    };
    let (seed, started) = (seed(), Instant::now());
    let mut chance = Chance(seed);
    let emulator = emulator(SWITCHES).await;
    let control = emulator.control();
    let ledger = Ledger::open().await;
    let folder = tempfile::tempdir().expect("a folder");
    let secret = write_secret(folder.path());
    let sections = format!(
        "{}{}",
        load::sections(&database.url_text()),
        http_section(&ledger, &secret, 4)
    );
    let replicas = [(); 2].map(|()| Installation::beside(&emulator, "", &sections));
    let spawn = |replica: usize| {
        let mut command = replicas[replica].command(&["serve"]);
        command.env("IVESK_WEBHOOK_API_TIMEOUT", "2s");
        Server::spawn(command)
    };
    let mut servers = vec![spawn(0), spawn(1)];
    for server in &mut servers {
        server.receiving().await;
    }
    let ports = replicas.iter().map(Installation::public_port).collect();
    let balancer = Balancer::before(ports).await;
    load::subscribe(&control, balancer.address()).await;
    let people = People::of(&[&replicas[0], &replicas[1]]);
    let mut accountants = Accountants::of(&control);
    fail_at_random(&ledger, seed);

    for kill in 0..kills() {
        accountants.work(&mut chance);
        let victim = kill % 2;
        let when = moment_to_kill(&mut chance, &ledger, &mut servers[victim]).await;
        let log = servers.remove(victim).kill().await;
        servers.insert(victim, spawn(victim));
        assert!(
            !log.contains("panicked"),
            "seed {seed}, kill {kill} {when}\n{log}"
        );
        people.resume(&["http"]).await;
    }

    for server in &mut servers {
        server.receiving().await;
    }
    recover(&ledger);
    control.retry_now();
    within("the end of deliveries", control.idle()).await;
    let versions = exported(&control).len();
    people.all_delivered(versions, &["http"]).await;
    let mut logs = String::new();
    for server in servers {
        server.terminate();
        let (_, log) = server.ended().await;
        logs.push_str(&log);
    }
    let store = load::reader(&database).await;
    let history = of_ledger(&ledger, &control, &store).await;
    eprintln!(
        "seed {seed}, {:.1?}: {versions} versions; given {}, booked {}, rejected {}; {} repeats",
        started.elapsed(),
        history.given.len(),
        history.delivered.len(),
        history.rejected.len(),
        ledger.repeats()
    );
    let broken = history.broken();
    assert!(broken.is_empty(), "seed {seed}: {broken:#?}\n{logs}");
    assert!(!logs.contains("panicked"), "{logs}");
    let (_, overlaps) = ledger.side_by_side();
    assert!(overlaps.is_empty(), "seed {seed}: {overlaps:?}");
    assert!(!history.delivered.is_empty());
}

/// A version of the document `a`.
fn of_a(version: &str) -> Version {
    ("a".to_owned(), version.to_owned())
}

/// A history that keeps every promise.
fn right() -> History {
    let given = |version: &str| (of_a(version), format!("key of {version}"));
    History {
        exported: [given("1"), given("2"), given("3")].into_iter().collect(),
        given: vec![given("1"), given("1"), given("3")],
        delivered: [of_a("1"), of_a("3")].into(),
        rejected: BTreeSet::new(),
        stored_delivered: [of_a("3")].into(),
        stored_rejected: BTreeSet::new(),
    }
}

#[test]
fn the_checker_finds_every_kind_of_error() {
    assert_eq!(right().broken(), Vec::<String>::new());
    let wrong = |change: fn(&mut History)| {
        let mut history = right();
        change(&mut history);
        assert_eq!(history.broken().len(), 1, "{:?}", history.broken());
    };
    // An older version after a newer one, also where it is a repeat.
    wrong(|history| history.given.push((of_a("1"), "key of 1".to_owned())));
    wrong(|history| history.given.swap(1, 2));
    // The newest version is missing.
    wrong(|history| {
        history.exported.insert(of_a("4"), "key of 4".to_owned());
    });
    // One that nobody exported, and one under another key.
    wrong(|history| history.given.push((of_a("9"), "key of 9".to_owned())));
    wrong(|history| history.given[0].1 = "key of 2".to_owned());
    // The store believes what is not so, or does not know what is.
    wrong(|history| {
        history.stored_delivered.insert(of_a("2"));
    });
    wrong(|history| history.stored_delivered.clear());
    wrong(|history| {
        history.stored_rejected.insert(of_a("1"));
    });
    wrong(|history| {
        history.delivered.remove(&of_a("3"));
        history.stored_delivered.clear();
        history.rejected.insert(of_a("3"));
    });
    // What was rejected is not missing.
    let mut rejected = right();
    rejected.delivered.remove(&of_a("3"));
    rejected.stored_delivered.clear();
    rejected.rejected.insert(of_a("3"));
    rejected.stored_rejected.insert(of_a("3"));
    assert_eq!(rejected.broken(), Vec::<String>::new());
}
