//! A puller on the real store against the emulated vendor, driven step by step on a
//! clock that stands until it is moved.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ivesk_webhook::config::{Config, ExportedPath, Loopback, default_account};
use ivesk_webhook::domain::{Clock, Company, Cursor, Feed, Queue, Timestamp};
use ivesk_webhook::emulator::signer::Signer;
use ivesk_webhook::emulator::{
    Control, DEFAULT_KEY, Emulator, EmulatorSettings, Endpoint, Fault, Switches,
};
use ivesk_webhook::pull::{PullOutcome, Puller, configured_feeds};
use ivesk_webhook::service::open_store;
use ivesk_webhook::store::{
    AccountRow, DocumentFilter, DocumentRow, FeedRow, SharedStore, Trigger, TriggerKind,
};

use crate::support::databases::Database;

/// The company that most tests are about, and another one of the same key.
pub(crate) const COMPANY: &str = "302320404";
pub(crate) const NEIGHBOUR: &str = "304567890";

/// Steps after which a puller that still finds work is said to spin.
const SPIN: usize = 5_000;

pub(crate) fn start_of_time() -> Timestamp {
    Timestamp::parse("2026-11-23T08:00:00.000Z").expect("a valid time")
}

/// One key for all tests: making one takes longer than most of them.
pub(crate) fn signer() -> Arc<Signer> {
    static SIGNER: OnceLock<Arc<Signer>> = OnceLock::new();
    let day = Duration::from_secs(86_400);
    let made = SIGNER.get_or_init(|| {
        let (from, to) = (
            start_of_time().before(day),
            start_of_time().after(day * 300),
        );
        Arc::new(Signer::generate("sns.amazonaws.com", from, to).expect("a certificate"))
    });
    Arc::clone(made)
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

/// The feed of one company's exported documents.
pub(crate) fn exported(code: &str) -> Feed {
    Feed::exported(default_account(), company(code))
}

/// The feed of the digitized queue.
pub(crate) fn digitized() -> Feed {
    Feed::digitized(default_account())
}

/// Settings for a store in `dir` and the emulator's API: [`COMPANY`]'s queue alone.
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

/// A folder of the test's own, in memory where the system offers that: what is synced
/// there counts as synced, and a disk's milliseconds aren't waited for.
pub(crate) fn folder() -> tempfile::TempDir {
    let in_memory = Path::new("/dev/shm");
    let made = match in_memory.is_dir() {
        true => tempfile::tempdir_in(in_memory),
        false => tempfile::tempdir(),
    };
    made.or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// One puller, its store, and the vendor that it pulls from.
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
    /// A bench whose feed, [`COMPANY`]'s exported queue, was never pulled.
    pub(crate) async fn new(switches: &str) -> Self {
        Self::with(switches, |_| {}).await
    }

    /// [`Bench::new`] under other settings.
    pub(crate) async fn with(switches: &str, change: impl FnOnce(&mut Config)) -> Self {
        let clock = Clock::manual(start_of_time());
        let settings_of_vendor = EmulatorSettings {
            switches: Switches::parse(switches).expect("switches that exist"),
            clock: clock.clone(),
            signer: Some(signer()),
            ..EmulatorSettings::default()
        };
        let emulator = Emulator::start(settings_of_vendor, ([127, 0, 0, 1], 0).into())
            .await
            .expect("a free port");
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

    /// A bench whose feeds have been pulled once, so that hints and overlap reads differ.
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

    /// Another worker on the same store, as a second thread or replica has one.
    pub(crate) fn another_puller(&self) -> Arc<Puller> {
        let puller = Puller::new(&self.config, Arc::clone(self.store()), self.clock.clone());
        Arc::new(puller.expect("a puller"))
    }

    /// Ends the process and starts it anew, under settings that `change` made.
    pub(crate) async fn restart_with(&mut self, change: impl FnOnce(&mut Config)) {
        self.puller = None;
        self.store().close().await.expect("the store closes");
        self.store = None;
        change(&mut self.config);
        self.open().await;
        let due = self.puller().reconcile_now().await;
        due.expect("feeds are due at start");
    }

    /// Ends the process and starts it anew.
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

    /// A notification for the company came.
    pub(crate) async fn hint(&self, code: &str) {
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
        let raised = self.store().trigger(vec![trigger]).await;
        raised.expect("the trigger is stored");
    }

    /// The accountant exports, and the notification arrives.
    pub(crate) async fn export(&self, code: &str, count: usize) {
        self.control
            .export(code, count)
            .expect("the company exists");
        self.hint(code).await;
    }

    /// The accountant exports, and the notification is lost.
    pub(crate) fn export_unheard(&self, code: &str, count: usize) {
        self.control
            .export(code, count)
            .expect("the company exists");
    }

    /// One step.
    pub(crate) async fn step(&self) -> PullOutcome {
        self.puller().pull_page().await.expect("the store works")
    }

    /// Steps until nothing may be asked for now; what they did.
    pub(crate) async fn settle(&self) -> Vec<PullOutcome> {
        settle(self.puller()).await
    }

    /// Lets time pass, working whenever something falls due; what the steps did.
    pub(crate) async fn pass(&self, time: Duration) -> Vec<PullOutcome> {
        pass(self.puller(), &self.clock, time).await
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

    /// Id and version of what is stored of a feed, sorted.
    pub(crate) async fn stored(&self, feed: &Feed) -> Vec<(String, String)> {
        stored(&self.documents().await, feed)
    }

    /// Id and version of what the vendor lists for a feed, sorted.
    pub(crate) fn truth(&self, feed: &Feed) -> Vec<(String, String)> {
        truth(&self.control, feed)
    }

    /// Holds the feed's rows against the vendor's, and the store's numbering.
    pub(crate) async fn assert_complete(&self, feed: &Feed) {
        let rows = self.documents().await;
        check_numbering(&rows).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(stored(&rows, feed), self.truth(feed), "{feed}");
    }

    /// Requests to the exported queue since the last [`Control::reset_requests`].
    pub(crate) fn requests(&self) -> u64 {
        self.control.requests().count(Endpoint::Exported)
    }

    /// The queries sent to the exported queue since then.
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

/// Sets the exported path as the emulator's preset of that name has it.
pub(crate) fn exported_path(config: &mut Config, company_in: &str) {
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

pub(crate) async fn settle(puller: &Puller) -> Vec<PullOutcome> {
    let mut done = Vec::new();
    loop {
        match puller.pull_page().await.expect("the store works") {
            PullOutcome::Nothing => return done,
            pulled => done.push(pulled),
        }
        assert!(done.len() < SPIN, "the puller spins: {:?}", done.last());
    }
}

pub(crate) async fn pass(puller: &Puller, clock: &Clock, time: Duration) -> Vec<PullOutcome> {
    let end = clock.now().after(time);
    let mut done = settle(puller).await;
    loop {
        let due = puller.next_due().await.expect("the store works");
        let Some(due) = due.filter(|due| *due <= end) else {
            break;
        };
        // What is due already is held by a lease that somebody dropped.
        clock.advance(due.since(clock.now()).max(seconds(1)));
        done.extend(settle(puller).await);
        assert!(done.len() < SPIN, "the puller spins: {:?}", done.last());
    }
    clock.advance(end.since(clock.now()));
    done.extend(settle(puller).await);
    done
}

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

pub(crate) fn stored(rows: &[DocumentRow], feed: &Feed) -> Vec<(String, String)> {
    let of_feed = rows.iter().filter(|row| row.feed == *feed);
    let mut versions: Vec<_> = of_feed
        .map(|row| (row.document_id.clone(), row.version.clone()))
        .collect();
    versions.sort();
    versions
}

pub(crate) fn truth(control: &Control, feed: &Feed) -> Vec<(String, String)> {
    let mut versions = match feed.queue {
        Queue::Exported => control.documents(Queue::Exported, feed.company.as_str()),
        Queue::Digitized => control.documents(Queue::Digitized, ""),
    };
    versions.sort();
    versions
}

/// Whether numbers run from 1 without a gap, and of each document the newest version,
/// and that alone, is current.
pub(crate) fn check_numbering(rows: &[DocumentRow]) -> Result<(), String> {
    for (expected, row) in (1_i64..).zip(rows) {
        if row.sequence != expected {
            return Err(format!("number {expected} is missing: {}", row.sequence));
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

/// How many new versions the steps stored, and how many steps failed.
pub(crate) fn tally(steps: &[PullOutcome]) -> (usize, usize) {
    steps.iter().fold((0, 0), |(new, failed), step| match step {
        PullOutcome::Page { committed, .. } => (new + committed.new, failed),
        PullOutcome::Failed { .. } => (new, failed + 1),
        PullOutcome::Stale { .. } | PullOutcome::Nothing => (new, failed),
    })
}

/// Exports in three clicks, two of them heard, and holds the outcome against the vendor.
pub(crate) async fn everything_arrives(switches: &str) {
    let bench = Bench::caught_up(switches).await;
    bench.export(COMPANY, 7).await;
    bench.settle().await;
    bench.pass(minutes(3)).await;
    bench.export(COMPANY, 4).await;
    bench.export_unheard(COMPANY, 5);
    bench.pass(hours(2)).await;
    bench.assert_complete(&exported(COMPANY)).await;
    let row = bench.feed(&exported(COMPANY)).await;
    assert_eq!((row.documents, row.last_error), (16, None), "{switches}");
    assert_eq!(row.gaps, 0, "{switches}");
}
