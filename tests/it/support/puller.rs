//! A puller on a real store against the emulated vendor, run step by step with a manual clock.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ivesk_webhook::config::{AccountConfig, Config, ExportedPath, Loopback, default_account};
use ivesk_webhook::domain::{
    Clock, Company, Correction, Cursor, Feed, Queue, Timestamp, version_key,
};
use ivesk_webhook::emulator::signer::Signer;
use ivesk_webhook::emulator::{
    Control, DEFAULT_KEY, Emulator, EmulatorSettings, Endpoint, Fault, Switches,
};
use ivesk_webhook::pull::{PullOutcome, Puller, configured_feeds};
use ivesk_webhook::service::{open_store, store_options};
use ivesk_webhook::store::{
    AccountRow, DocumentFilter, DocumentRow, FeedRow, SharedStore, Store, StoreOptions, Trigger,
    TriggerKind,
};

use crate::support::databases::Database;
use crate::support::emulator::emulator_with;
use crate::support::faults::Faults;

/// The company of most tests.
pub(crate) const COMPANY: &str = "302320404";
/// Another company of the same key.
pub(crate) const NEIGHBOR: &str = "304567894";

/// Number of steps after which a puller that still finds work is considered to spin.
const SPIN: usize = 5_000;

/// Returns the moment at which the tests' clocks start.
pub(crate) fn start_time() -> Timestamp {
    Timestamp::parse("2026-11-23T08:00:00.000Z").expect("a valid time")
}

/// Returns the signer that all tests share: generating a key takes longer than most tests.
pub(crate) fn signer() -> Arc<Signer> {
    static SIGNER: OnceLock<Arc<Signer>> = OnceLock::new();
    let day = Duration::from_secs(86_400);
    let signer = SIGNER.get_or_init(|| {
        let (from, to) = (start_time().before(day), start_time().after(day * 300));
        Arc::new(Signer::generate("sns.amazonaws.com", from, to).expect("a certificate"))
    });
    Arc::clone(signer)
}

pub(crate) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(crate) fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

pub(crate) fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

pub(crate) fn company(code: &str) -> Company {
    Company::parse(code).expect("a company code")
}

/// Returns the feed of one company's exported documents.
pub(crate) fn exported(code: &str) -> Feed {
    Feed::exported(default_account(), company(code))
}

/// Returns the feed of the digitized queue.
pub(crate) fn digitized() -> Feed {
    Feed::digitized(default_account())
}

/// Returns settings with a store in `dir` and an emulator's API, for [`COMPANY`]'s exported
/// queue only.
pub(crate) fn settings(dir: &Path, api_url: &str, key: &str, origin: &str) -> Config {
    let mut config = Config::for_loopback(Loopback {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        store: dir.join("test.db"),
        api_url: api_url.parse().expect("a URL"),
        api_key: key.to_owned().into(),
        local_origins: vec![origin.to_owned()],
        companies: vec![company(COMPANY)],
    });
    let account = config.accounts.get_mut(&default_account());
    account.expect("the account").digitized = false;
    config
}

/// Returns the settings of the only account.
pub(crate) fn account_settings(config: &mut Config) -> &mut AccountConfig {
    config.accounts.values_mut().next().expect("an account")
}

/// Creates a folder, in memory if possible, where syncing takes no time.
pub(crate) fn folder() -> tempfile::TempDir {
    let in_memory = Path::new("/dev/shm");
    let created = match in_memory.is_dir() {
        true => tempfile::tempdir_in(in_memory),
        false => tempfile::tempdir(),
    };
    created.or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// A puller, its store, and the vendor that it pulls from.
pub(crate) struct Bench {
    emulator: Emulator,
    pub(crate) control: Control,
    pub(crate) clock: Clock,
    pub(crate) config: Config,
    store: Option<SharedStore>,
    puller: Option<Arc<Puller>>,
    _dir: tempfile::TempDir,
    _database: Option<Database>,
}

impl Bench {
    /// Starts a bench whose feed, [`COMPANY`]'s exported queue, was never pulled.
    pub(crate) async fn new(switches: &str) -> Self {
        Self::with(switches, |_| {}).await
    }

    /// [`Bench::new`] with other settings.
    pub(crate) async fn with(switches: &str, change: impl FnOnce(&mut Config)) -> Self {
        let clock = Clock::manual(start_time());
        Self::at(clock.clone(), clock, switches, change).await
    }

    /// [`Bench::caught_up`] with a clock that can be set ahead of the vendor's, and back.
    pub(crate) async fn with_correction(switches: &str) -> (Self, Correction) {
        let of_vendor = Clock::manual(start_time());
        let (clock, correction) = of_vendor.corrected();
        let bench = Self::at(of_vendor, clock, switches, |_| {}).await;
        bench.settle().await;
        (bench, correction)
    }

    async fn at(
        of_vendor: Clock,
        clock: Clock,
        switches: &str,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let emulator = emulator_with(EmulatorSettings {
            switches: Switches::parse(switches).expect("switches that exist"),
            clock: of_vendor,
            signer: Some(signer()),
            ..EmulatorSettings::default()
        })
        .await;
        let dir = folder();
        let mut config = settings(
            dir.path(),
            &emulator.api_url(),
            DEFAULT_KEY,
            &emulator.origin(),
        );
        let database = Database::of_the_suite().await;
        if let Some(database) = &database {
            config.store.url = database.url();
        }
        // Pulls of one moment follow each other.
        config.pull.min_interval = Duration::ZERO;
        change(&mut config);
        let mut bench = Self {
            _database: database,
            control: emulator.control(),
            emulator,
            clock,
            config,
            store: None,
            puller: None,
            _dir: dir,
        };
        bench.open().await;
        bench
    }

    /// Starts a bench whose feeds were pulled once, so that later reads overlap.
    pub(crate) async fn caught_up(switches: &str) -> Self {
        let bench = Self::new(switches).await;
        bench.settle().await;
        bench
    }

    async fn open(&mut self) {
        let store = open_store(&self.config, &self.clock).await;
        self.store = Some(store.expect("the store opens"));
        let puller = self.another_puller();
        let feeds = configured_feeds(&self.config);
        puller.register_feeds(feeds).await.expect("feeds are known");
        self.puller = Some(puller);
    }

    /// Returns a second puller on the same store, as another replica would have.
    pub(crate) fn another_puller(&self) -> Arc<Puller> {
        let puller = Puller::new(&self.config, Arc::clone(self.store()), self.clock.clone());
        Arc::new(puller.expect("a puller"))
    }

    /// Closes the store, and opens it again with faults and a puller of its own.
    pub(crate) async fn reopen_with_faults(&self) -> (Arc<Faults>, SharedStore, Puller) {
        self.store().close().await.expect("the store closes");
        let faults = Faults::none();
        let options = StoreOptions {
            hooks: Some(faults.clone()),
            ..store_options(&self.config, &self.clock)
        };
        let store = Arc::new(Store::open(options).await.expect("the store opens"));
        let puller = Puller::new(&self.config, Arc::clone(&store), self.clock.clone());
        (faults, store, puller.expect("a puller"))
    }

    /// Stops; [`Bench::restart`] starts again.
    pub(crate) async fn close(&mut self) {
        self.puller = None;
        if let Some(store) = self.store.take() {
            store.close().await.expect("the store closes");
        }
    }

    /// Stops and starts again, with settings changed by `change`.
    pub(crate) async fn restart_with(&mut self, change: impl FnOnce(&mut Config)) {
        self.close().await;
        change(&mut self.config);
        self.open().await;
        let due = self.puller().reconcile_after(0).await;
        due.expect("feeds are due at start");
    }

    /// Stops and starts again.
    pub(crate) async fn restart(&mut self) {
        self.restart_with(|_| {}).await;
    }

    pub(crate) fn store(&self) -> &SharedStore {
        self.store.as_ref().expect("the store is open")
    }

    pub(crate) fn puller(&self) -> &Arc<Puller> {
        self.puller.as_ref().expect("the puller is there")
    }

    pub(crate) fn origin(&self) -> String {
        self.emulator.origin()
    }

    /// Triggers the company's feed as a notification does.
    pub(crate) async fn notify(&self, code: &str) {
        self.trigger(exported(code), TriggerKind::Notification, None)
            .await;
    }

    pub(crate) async fn trigger(&self, feed: Feed, kind: TriggerKind, from: Option<Cursor>) {
        let trigger = Trigger {
            feed,
            kind,
            due_at: self.clock.now(),
            from,
        };
        let stored = self.store().trigger(vec![trigger]).await;
        stored.expect("the trigger is stored");
    }

    /// Exports documents at the vendor; their notification arrives.
    pub(crate) async fn export(&self, code: &str, count: usize) {
        self.control
            .export(code, count)
            .expect("the company exists");
        self.notify(code).await;
    }

    /// Exports documents at the vendor; their notification is lost.
    pub(crate) fn export_unannounced(&self, code: &str, count: usize) {
        self.control
            .export(code, count)
            .expect("the company exists");
    }

    /// Sets fields of a document at the vendor.
    pub(crate) fn amend(&self, id: &str, fields: serde_json::Value) {
        let fields = fields.as_object().expect("an object").clone();
        self.control.amend(id, fields).expect("a known document");
    }

    /// Runs one step.
    pub(crate) async fn step(&self) -> PullOutcome {
        self.puller().pull_page().await.expect("the store works")
    }

    /// Runs steps until nothing is due; returns their outcomes.
    pub(crate) async fn settle(&self) -> Vec<PullOutcome> {
        let mut outcomes = settle(self.puller()).await;
        // On PostgreSQL a service beside it may have locked a feed for a moment.
        for _ in 0..100 {
            let due = self.puller().next_due().await.expect("the store works");
            if due.is_none_or(|due| due > self.clock.now()) {
                break;
            }
            outcomes.extend(settle(self.puller()).await);
        }
        outcomes
    }

    /// Advances the clock by `time`, taking steps whenever they are due; returns their outcomes.
    pub(crate) async fn run_for(&self, time: Duration) -> Vec<PullOutcome> {
        run_for(self.puller(), &self.clock, time).await
    }

    pub(crate) async fn feed(&self, feed: &Feed) -> FeedRow {
        let rows = self.store().feeds().await.expect("feeds");
        let found = rows.into_iter().find(|row| row.feed == *feed);
        found.unwrap_or_else(|| panic!("`{feed}` is not known"))
    }

    pub(crate) async fn account(&self) -> AccountRow {
        let mut rows = self.store().accounts().await.expect("accounts");
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows.remove(0)
    }

    pub(crate) async fn documents(&self) -> Vec<DocumentRow> {
        documents(self.store()).await
    }

    /// Returns ids and versions stored for a feed, sorted.
    pub(crate) async fn stored(&self, feed: &Feed) -> Vec<(String, String)> {
        stored(&self.documents().await, feed)
    }

    /// Returns ids and versions that the vendor lists for a feed, sorted.
    pub(crate) fn truth(&self, feed: &Feed) -> Vec<(String, String)> {
        truth(&self.control, feed)
    }

    /// Asserts that the feed's stored versions are the vendor's, and the numbering is right.
    pub(crate) async fn assert_complete(&self, feed: &Feed) {
        let rows = self.documents().await;
        check_numbering(&rows).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(stored(&rows, feed), self.truth(feed), "{feed}");
    }

    /// Returns the number of requests for the exported queue since the last
    /// [`Control::reset_requests`].
    pub(crate) fn requests(&self) -> u64 {
        self.control.requests().count(Endpoint::Exported)
    }

    /// Returns the queries of [`Bench::requests`].
    pub(crate) fn queries(&self) -> Vec<String> {
        let counters = self.control.requests();
        let queries = counters.queries(Endpoint::Exported);
        queries.into_iter().map(str::to_owned).collect()
    }

    pub(crate) fn switch(&self, text: &str) {
        self.control
            .set_switches(text)
            .expect("switches that exist");
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.control.fault(fault);
    }
}

/// Sets the exported path to a preset of the emulator.
pub(crate) fn set_exported_path(config: &mut Config, company_in: &str) {
    let template = match company_in {
        "path" => "/exported/{company}",
        "query" => "/exported?companycode={company}",
        "prefix" => "/{company}/exported",
        "none" => "/exported",
        other => panic!("no preset `{other}`"),
    };
    config.api.exported_path = Some(ExportedPath {
        template: template.to_owned(),
    });
}

/// Runs steps until nothing is due; returns their outcomes.
pub(crate) async fn settle(puller: &Puller) -> Vec<PullOutcome> {
    let mut outcomes = Vec::new();
    loop {
        match puller.pull_page().await.expect("the store works") {
            PullOutcome::Nothing => return outcomes,
            pulled => outcomes.push(pulled),
        }
        assert!(outcomes.len() < SPIN, "the puller spins: {outcomes:?}");
    }
}

/// Advances the clock by `time`, taking steps whenever they are due; returns their outcomes.
pub(crate) async fn run_for(puller: &Puller, clock: &Clock, time: Duration) -> Vec<PullOutcome> {
    let end = clock.now().after(time);
    let mut outcomes = settle(puller).await;
    loop {
        let due = puller.next_due().await.expect("the store works");
        let Some(due) = due.filter(|due| *due <= end) else {
            break;
        };
        // A feed that is due and was not leased is under the lease of a dropped step.
        clock.advance(due.since(clock.now()).max(seconds(1)));
        outcomes.extend(settle(puller).await);
        assert!(outcomes.len() < SPIN, "the puller spins: {outcomes:?}");
    }
    clock.advance(end.since(clock.now()));
    outcomes.extend(settle(puller).await);
    outcomes
}

/// Returns all stored versions.
pub(crate) async fn documents(store: &SharedStore) -> Vec<DocumentRow> {
    let mut all = Vec::new();
    loop {
        let filter = DocumentFilter {
            after: all.last().map(|row: &DocumentRow| row.sequence),
            limit: 1_000,
            ..DocumentFilter::default()
        };
        let rows = store.documents(filter).await.expect("documents");
        if rows.is_empty() {
            return all;
        }
        all.extend(rows);
    }
}

/// Returns ids and versions of a feed's rows, sorted.
pub(crate) fn stored(rows: &[DocumentRow], feed: &Feed) -> Vec<(String, String)> {
    let of_feed = rows.iter().filter(|row| row.feed == *feed);
    let mut versions: Vec<_> = of_feed
        .map(|row| (row.document_id.clone(), row.version.clone()))
        .collect();
    versions.sort();
    versions
}

/// Returns ids and versions that the vendor lists for a feed, sorted.
pub(crate) fn truth(control: &Control, feed: &Feed) -> Vec<(String, String)> {
    let mut versions = match feed.queue {
        Queue::Exported => control.documents(Queue::Exported, feed.company.as_str()),
        Queue::Digitized => control.documents(Queue::Digitized, ""),
    };
    for (_, version) in &mut versions {
        *version = canonical(version);
    }
    versions.sort();
    versions
}

/// Returns a version of the vendor as the store identifies it.
pub(crate) fn canonical(version: &str) -> String {
    version_key(version)
}

/// Checks that sequences run from 1 without a gap, and that the newest version of each
/// document is the only current one.
pub(crate) fn check_numbering(rows: &[DocumentRow]) -> Result<(), String> {
    for (expected, row) in (1_i64..).zip(rows) {
        if row.sequence != expected {
            return Err(format!("sequence {expected} is missing: {}", row.sequence));
        }
    }
    let mut documents: BTreeMap<(String, &str), Vec<&DocumentRow>> = BTreeMap::new();
    for row in rows {
        let document = (row.feed.to_string(), row.document_id.as_str());
        documents.entry(document).or_default().push(row);
    }
    for (document, versions) in documents {
        let newest = versions.iter().map(|row| row.version.as_str()).max();
        let current: Vec<_> = versions
            .iter()
            .filter(|row| !row.superseded)
            .map(|row| row.version.as_str())
            .collect();
        if current.as_slice() != newest.as_slice() {
            return Err(format!(
                "{document:?}: current are {current:?}, newest is {newest:?}"
            ));
        }
    }
    Ok(())
}

/// Returns the number of new versions that the steps stored, and of steps that failed.
pub(crate) fn tally(steps: &[PullOutcome]) -> (usize, usize) {
    steps.iter().fold((0, 0), |(new, failed), step| match step {
        PullOutcome::Page { committed, .. } => (new + committed.new, failed),
        PullOutcome::Failed { .. } => (new, failed + 1),
        PullOutcome::Stale { .. } | PullOutcome::Nothing => (new, failed),
    })
}

/// Exports documents, with and without notifications, and asserts that all are stored.
pub(crate) async fn assert_everything_arrives(switches: &str) {
    let bench = Bench::caught_up(switches).await;
    bench.export(COMPANY, 7).await;
    bench.settle().await;
    bench.run_for(minutes(3)).await;
    bench.export(COMPANY, 4).await;
    bench.export_unannounced(COMPANY, 5);
    bench.run_for(hours(2)).await;
    bench.assert_complete(&exported(COMPANY)).await;
    let row = bench.feed(&exported(COMPANY)).await;
    assert_eq!((row.documents, row.last_error), (16, None), "{switches}");
    assert_eq!(row.gaps, 0, "{switches}");
}
