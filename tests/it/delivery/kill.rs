//! SIGKILL while documents are delivered: afterwards, the record of each destination is
//! compared with what the vendor exported and what the store says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ivesk_webhook::delivery::Delivery;
use ivesk_webhook::domain::{Event, Queue, Timestamp};
use ivesk_webhook::emulator::{Control, DEFAULT_COMPANIES, Selection};
use ivesk_webhook::store::{DeliveryFilter, DeliveryState, DocumentFilter, Store};
use serde_json::Value;

use crate::support::databases::Database;
use crate::support::deliveries::destination_name;
use crate::support::emulator::emulator;
use crate::support::ledger::{Entry, Ledger, Reaction, SECRET};
use crate::support::load::{Rng, kills, seed};
use crate::support::process::{ADMIN_TOKEN, Installation, Server, client, within, write_program};
use crate::support::puller;
use crate::support::replicas::{open_reader, sections, spawn_replica, subscribe_at};
use crate::support::wires::Balancer;

const SWITCHES: &str = "time_scale=0.002,page_size=7,delivery_timeout_ms=5000";

/// A document's id and the vendor's text of the version.
type Version = (String, String);

/// The final records of one destination.
#[derive(Clone, Debug, Default)]
struct Record {
    /// Versions that the vendor exported, with their keys.
    exported: BTreeMap<Version, String>,
    /// Versions that reached the destination, in order, with repeats.
    received: Vec<(Version, String)>,
    /// Versions that the destination accepted.
    accepted: BTreeSet<Version>,
    /// Versions that the destination rejected.
    rejected: BTreeSet<Version>,
    /// Versions delivered according to the store.
    stored_delivered: BTreeSet<Version>,
    /// Versions rejected according to the store.
    stored_rejected: BTreeSet<Version>,
}

impl Record {
    /// Returns every violation.
    fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut newest: BTreeMap<&str, &str> = BTreeMap::new();
        for (document, version) in self.exported.keys() {
            let known = newest.entry(document).or_default();
            *known = (*known).max(version);
        }
        let mut last: BTreeMap<&str, &str> = BTreeMap::new();
        for ((document, version), key) in &self.received {
            let named = (document.clone(), version.clone());
            match self.exported.get(&named) {
                None => broken.push(format!("{named:?} was never exported")),
                Some(own) if own != key => {
                    broken.push(format!("{named:?} arrived with the key {key}, not {own}"));
                }
                Some(_) => {}
            }
            let before = last.insert(document, version);
            if before.is_some_and(|before| before > version.as_str()) {
                broken.push(format!("{named:?} arrived after {before:?}"));
            }
        }
        let is_newest = |(document, version): &Version| newest[document.as_str()] == version;
        for (document, version) in &newest {
            let named = ((*document).to_owned(), (*version).to_owned());
            if !self.accepted.contains(&named) && !self.rejected.contains(&named) {
                broken.push(format!("{named:?} is missing"));
            }
        }
        for (what, stored, own) in [
            ("delivered", &self.stored_delivered, &self.accepted),
            ("rejected", &self.stored_rejected, &self.rejected),
        ] {
            for named in stored.difference(own) {
                broken.push(format!("the store says that {named:?} is {what}"));
            }
            // A version that was accepted unheard and then superseded is not delivered again.
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

/// Returns the versions that the exported queue lists, with their keys.
fn exported(control: &Control) -> BTreeMap<Version, String> {
    let mut exported = BTreeMap::new();
    for code in DEFAULT_COMPANIES {
        for (document_id, version) in control.documents(Queue::Exported, code) {
            let version = puller::canonical(&version);
            let delivery = Delivery {
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
                link_timed_out: false,
                earlier_note: None,
            };
            exported.insert((document_id, version), delivery.key());
        }
    }
    exported
}

/// Returns a destination's versions that are in this state, according to the store.
async fn in_state(store: &Store, destination: &str, state: DeliveryState) -> BTreeSet<Version> {
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
            destination: Some(destination_name(destination)),
            state: Some(state),
            company: None,
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

/// Returns the record of the receiver behind the destination `http`.
async fn record_of(ledger: &Ledger, control: &Control, store: &Store) -> Record {
    let versions = |entries: Vec<Entry>| -> BTreeSet<Version> {
        let entries = entries.into_iter();
        entries.map(|one| (one.document_id, one.version)).collect()
    };
    Record {
        exported: exported(control),
        received: ledger
            .received()
            .into_iter()
            .map(|one| ((one.document_id, one.version), one.key))
            .collect(),
        accepted: versions(ledger.accepted()),
        rejected: versions(ledger.rejected()),
        stored_delivered: in_state(store, "http", DeliveryState::Delivered).await,
        stored_rejected: in_state(store, "http", DeliveryState::Rejected).await,
    }
}

/// Returns true if the receiver always rejects this key, false if it never does.
fn is_rejected(key: &str) -> bool {
    key.ends_with('7')
}

/// Makes the receiver fail at random.
fn fail_at_random(ledger: &Ledger, seed: u64) {
    let rng = Mutex::new(Rng(seed));
    ledger.react(move |entry| {
        let mut rng = rng.lock().expect("never poisoned");
        match rng.below(24) {
            0 => Reaction::Resets,
            1 => Reaction::status(500),
            2 | 3 if !is_rejected(&entry.key) => Reaction::AcceptsUnheard,
            4 => Reaction::with_header(429, "retry-after", "1"),
            _ if is_rejected(&entry.key) => Reaction::rejects("Nežinomas PVM kodas"),
            5..=9 => Reaction::AcceptsAfter(Duration::from_millis(rng.below(30))),
            _ => Reaction::Accepts,
        }
    });
}

/// Makes the receiver work.
fn recover(ledger: &Ledger) {
    ledger.react(|entry| match is_rejected(&entry.key) {
        true => Reaction::rejects("Nežinomas PVM kodas"),
        false => Reaction::Accepts,
    });
}

/// Accountants, who export documents and export them again, with or without notifications.
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

    fn work(&mut self, rng: &mut Rng) {
        for _ in 0..4 + rng.below(8) {
            let company = DEFAULT_COMPANIES[usize::from(rng.below(2) == 1)];
            match rng.below(8) {
                0..=2 => self.export(company, rng),
                3 => {
                    self.control.lose_next_notifications(1);
                    self.export(company, rng);
                }
                _ => self.re_export(rng),
            }
        }
    }

    fn export(&mut self, company: &str, rng: &mut Rng) {
        let exported = self
            .control
            .export(company, Selection::Next(1 + rng.index(3)));
        let exported = exported.expect("a known company");
        self.exported.extend(exported.into_iter().map(|(id, _)| id));
    }

    fn re_export(&self, rng: &mut Rng) {
        // One of the latest, which are likely to be in flight.
        let latest = self.exported.len().min(6);
        if latest > 0 {
            let id = &self.exported[self.exported.len() - 1 - rng.index(latest)];
            self.control.re_export(id).expect("a known document");
        }
    }
}

/// A person who uses the admin listeners of the servers.
struct Operator<'a> {
    client: reqwest::Client,
    installations: &'a [Installation],
}

impl<'a> Operator<'a> {
    fn of(installations: &'a [Installation]) -> Self {
        Self {
            client: client(),
            installations,
        }
    }

    /// Resumes every destination at every server that runs.
    async fn resume(&self, destinations: &[&str]) {
        for installation in self.installations {
            for destination in destinations {
                let path = format!("/v1/destinations/{destination}/resume");
                let resume = self.client.post(installation.admin_url(&path));
                let resume = resume.bearer_auth(ADMIN_TOKEN);
                let resume = resume.header("content-type", "application/json").body("{}");
                // The server may not run at this moment.
                let _ = resume.send().await;
            }
        }
    }

    /// Waits until `versions` of the exported queue are stored and nothing waits for a destination.
    async fn until_delivered(&self, versions: usize, destinations: &[&str]) {
        within("the last delivery", async {
            loop {
                self.resume(destinations).await;
                if self.stored().await >= versions as u64 && self.waiting().await == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    async fn stored(&self) -> u64 {
        let feeds = self.installations[0].admin_json("/v1/feeds").await;
        let feeds = feeds["rows"].as_array().expect("a list").iter();
        feeds
            .filter(|feed| feed["queue"] == "exported")
            .filter_map(|feed| feed["documents"].as_u64())
            .sum()
    }

    async fn waiting(&self) -> u64 {
        let destinations = self.installations[0].admin_json("/v1/destinations").await;
        let destinations = destinations["rows"].as_array().expect("a list").iter();
        destinations
            .filter_map(|destination| destination["waiting"].as_u64())
            .sum()
    }
}

/// Returns the settings of the destination `http`.
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

/// A program that records its documents, and can be made to fail.
struct Program {
    folder: tempfile::TempDir,
}

impl Program {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let here = folder.path().display();
        let script = format!(
            "#!/bin/sh\ncat >/dev/null\nif [ -e {here}/fails ]; then exit 75; fi\n\
             printf '%s %s %s\\n' \"$IVESK_DOCUMENT_ID\" \"$IVESK_VERSION\" \"$IVESK_KEY\" >>{here}/record\n\
             if [ -e {here}/unheard ]; then exit 75; fi\n"
        );
        write_program(&folder.path().join("script"), &script);
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes it work or fail at random.
    fn change(&self, rng: &mut Rng) {
        self.recover();
        match rng.below(4) {
            0 => std::fs::write(self.path("fails"), "").expect("a file"),
            1 => std::fs::write(self.path("unheard"), "").expect("a file"),
            _ => {}
        }
    }

    fn recover(&self) {
        for fault in ["fails", "unheard"] {
            let _ = std::fs::remove_file(self.path(fault));
        }
    }

    async fn record(&self, control: &Control, store: &Store) -> Record {
        let record = std::fs::read_to_string(self.path("record")).expect("a record");
        let received: Vec<(Version, String)> = record
            .lines()
            .map(|line| {
                let mut words = line.split(' ').map(str::to_owned);
                let mut word = || words.next().expect("three words");
                ((word(), word()), word())
            })
            .collect();
        Record {
            exported: exported(control),
            accepted: received
                .iter()
                .map(|(version, _)| version.clone())
                .collect(),
            received,
            rejected: BTreeSet::new(),
            stored_delivered: in_state(store, "program", DeliveryState::Delivered).await,
            stored_rejected: in_state(store, "program", DeliveryState::Rejected).await,
        }
    }
}

/// Checks that the folder holds the newest version of each document only, whole, with its PDF.
fn check_folder(folder: &Path, control: &Control) -> Vec<String> {
    let mut broken = Vec::new();
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    for (document, version) in exported(control).into_keys() {
        let known = expected.entry(document).or_default();
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
            match expected.remove(id) {
                Some(version)
                    if document["exportedat"]
                        .as_str()
                        .is_some_and(|text| puller::canonical(text) == *version) => {}
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
    broken.extend(expected.keys().map(|id| format!("{id} is not filed")));
    broken
}

/// Waits for a random moment and describes it.
async fn random_moment(rng: &mut Rng, ledger: &Ledger, server: &mut Server) -> String {
    match rng.below(4) {
        0 => {
            let delay = Duration::from_micros(rng.below(60_000));
            tokio::time::sleep(delay).await;
            format!("{delay:?} after its start")
        }
        1 => {
            server.ready().await;
            let delay = Duration::from_micros(rng.below(300_000));
            tokio::time::sleep(delay).await;
            format!("{delay:?} after its first line")
        }
        _ => {
            server.ready().await;
            let more = 1 + rng.index(20);
            let expected = ledger.requests() + more;
            let delay = Duration::from_micros(rng.below(4_000));
            tokio::select! {
                () = ledger.until("requests", |ledger| ledger.requests() >= expected) => {}
                () = tokio::time::sleep(Duration::from_secs(3)) => {}
            }
            tokio::time::sleep(delay).await;
            format!("{delay:?} after {more} documents")
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_at_any_moment_delivers_every_newest_version_in_order() {
    let (seed, kills, started) = (seed(), kills(12), Instant::now());
    let mut rng = Rng(seed);
    let emulator = emulator(SWITCHES).await;
    let control = emulator.control();
    let (ledger, program) = (Ledger::start().await, Program::new());
    let archive = tempfile::tempdir().expect("a folder");
    let sections = format!(
        "{}[destinations.program]\nkind = \"command\"\nhistory = \"deliver\"\nprogram = \"{}\"\n\
         [destinations.archive]\nkind = \"folder\"\nhistory = \"deliver\"\npath = \"{}\"\n",
        http_section(&ledger, &write_secret(program.folder.path()), 1),
        program.path("script").display(),
        archive.path().display(),
    );
    let installation = Installation::beside(&emulator, "", &sections);
    let operator = Operator::of(std::slice::from_ref(&installation));
    let destinations = ["http", "program", "archive"];
    let mut server = installation.start().await;
    installation.subscribe(&control, &[Event::OnExported]).await;
    let mut accountants = Accountants::of(&control);
    fail_at_random(&ledger, seed);

    for kill in 1..=kills {
        accountants.work(&mut rng);
        program.change(&mut rng);
        let when = random_moment(&mut rng, &ledger, &mut server).await;
        let log = server.kill().await;
        assert!(
            !log.contains("panicked"),
            "seed {seed}, kill {kill} {when}\n{log}"
        );
        server = installation.spawn();
        if rng.below(2) == 0 {
            server.ready().await;
            operator.resume(&destinations).await;
        }
    }

    server.ready().await;
    recover(&ledger);
    program.recover();
    control.retry_now();
    within("the end of deliveries", control.idle()).await;
    let versions = exported(&control).len();
    operator.until_delivered(versions, &destinations).await;
    server.terminate();
    let (status, log) = server.exited().await;
    assert!(status.success() && !log.contains("panicked"), "{log}");
    let store = installation.read_store().await;
    let of_ledger = record_of(&ledger, &control, store.as_ref()).await;
    let of_program = program.record(&control, store.as_ref()).await;
    eprintln!(
        "{kills} kills in {:.1?}, seed {seed}: {versions} versions; the receiver got {}, accepted {} and rejected {}; \
         {} repeats; the program recorded {}",
        started.elapsed(),
        of_ledger.received.len(),
        of_ledger.accepted.len(),
        of_ledger.rejected.len(),
        ledger.repeats(),
        of_program.received.len(),
    );
    for (what, broken) in [
        ("http", of_ledger.broken()),
        ("program", of_program.broken()),
        ("archive", check_folder(archive.path(), &control)),
    ] {
        assert!(broken.is_empty(), "seed {seed}, {what}: {broken:#?}\n{log}");
    }
    // With a concurrency of 1, the versions of a company arrive in sequence.
    let mut sequences: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for one in ledger.accepted() {
        sequences.entry(one.company).or_default().push(one.sequence);
    }
    for (company, sequences) in sequences {
        assert!(
            sequences.is_sorted(),
            "seed {seed}, {company}: {sequences:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_killed_in_turn_deliver_every_newest_version() {
    let Some(database) = Database::postgres("replicas that deliver").await else {
        return;
    };
    let (seed, started) = (seed(), Instant::now());
    let mut rng = Rng(seed);
    let emulator = emulator(SWITCHES).await;
    let control = emulator.control();
    let ledger = Ledger::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let secret = write_secret(folder.path());
    let sections = format!(
        "{}{}",
        sections(&database.url_text()),
        http_section(&ledger, &secret, 4)
    );
    let replicas = [(); 2].map(|()| Installation::beside(&emulator, "", &sections));
    let mut servers: Vec<Server> = replicas.iter().map(spawn_replica).collect();
    for server in &mut servers {
        server.ready().await;
    }
    let ports = replicas.iter().map(Installation::public_port).collect();
    let balancer = Balancer::before(ports).await;
    subscribe_at(&control, balancer.address()).await;
    let operator = Operator::of(&replicas);
    let mut accountants = Accountants::of(&control);
    fail_at_random(&ledger, seed);

    for kill in 0..kills(12) {
        accountants.work(&mut rng);
        let victim = kill % 2;
        let when = random_moment(&mut rng, &ledger, &mut servers[victim]).await;
        let log = servers.remove(victim).kill().await;
        servers.insert(victim, spawn_replica(&replicas[victim]));
        assert!(
            !log.contains("panicked"),
            "seed {seed}, kill {kill} {when}\n{log}"
        );
        operator.resume(&["http"]).await;
    }

    for server in &mut servers {
        server.ready().await;
    }
    recover(&ledger);
    control.retry_now();
    within("the end of deliveries", control.idle()).await;
    let versions = exported(&control).len();
    operator.until_delivered(versions, &["http"]).await;
    let mut logs = String::new();
    for server in servers {
        server.terminate();
        let (_, log) = server.exited().await;
        logs.push_str(&log);
    }
    let store = open_reader(&database).await;
    let record = record_of(&ledger, &control, &store).await;
    eprintln!(
        "seed {seed}, {:.1?}: {versions} versions; received {}, accepted {}, rejected {}; {} repeats",
        started.elapsed(),
        record.received.len(),
        record.accepted.len(),
        record.rejected.len(),
        ledger.repeats()
    );
    let broken = record.broken();
    assert!(broken.is_empty(), "seed {seed}: {broken:#?}\n{logs}");
    assert!(!logs.contains("panicked"), "{logs}");
    let (_, overlaps) = ledger.concurrency();
    assert!(overlaps.is_empty(), "seed {seed}: {overlaps:?}");
    assert!(!record.accepted.is_empty());
}

/// Returns a version of the document `a`.
fn of_a(version: &str) -> Version {
    ("a".to_owned(), version.to_owned())
}

/// Returns a record without violations.
fn correct() -> Record {
    let received = |version: &str| (of_a(version), format!("key of {version}"));
    Record {
        exported: [received("1"), received("2"), received("3")]
            .into_iter()
            .collect(),
        received: vec![received("1"), received("1"), received("3")],
        accepted: [of_a("1"), of_a("3")].into(),
        rejected: BTreeSet::new(),
        stored_delivered: [of_a("3")].into(),
        stored_rejected: BTreeSet::new(),
    }
}

#[test]
fn the_checker_finds_every_kind_of_error() {
    assert_eq!(correct().broken(), Vec::<String>::new());
    let wrong = |change: fn(&mut Record)| {
        let mut record = correct();
        change(&mut record);
        assert_eq!(record.broken().len(), 1, "{:?}", record.broken());
    };
    // An older version after a newer one, first as a new version, then as a repeat.
    wrong(|record| record.received.push((of_a("1"), "key of 1".to_owned())));
    wrong(|record| record.received.swap(1, 2));
    // The newest version is missing.
    wrong(|record| {
        record.exported.insert(of_a("4"), "key of 4".to_owned());
    });
    // A version that was not exported, and one with a wrong key.
    wrong(|record| record.received.push((of_a("9"), "key of 9".to_owned())));
    wrong(|record| record.received[0].1 = "key of 2".to_owned());
    // Store and destination disagree.
    wrong(|record| {
        record.stored_delivered.insert(of_a("2"));
    });
    wrong(|record| record.stored_delivered.clear());
    wrong(|record| {
        record.stored_rejected.insert(of_a("1"));
    });
    wrong(|record| {
        record.accepted.remove(&of_a("3"));
        record.stored_delivered.clear();
        record.rejected.insert(of_a("3"));
    });
    // A rejected version is not missing.
    let mut rejected = correct();
    rejected.accepted.remove(&of_a("3"));
    rejected.stored_delivered.clear();
    rejected.rejected.insert(of_a("3"));
    rejected.stored_rejected.insert(of_a("3"));
    assert_eq!(rejected.broken(), Vec::<String>::new());
}
