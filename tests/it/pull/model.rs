//! Random sequences of operations: in the end, the store holds exactly what the vendor lists,
//! each version once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ivesk_webhook::config::{Config, default_account};
use ivesk_webhook::domain::{Clock, Company, Feed, Queue};
use ivesk_webhook::emulator::{Control, Emulator, EmulatorSettings, Endpoint};
use ivesk_webhook::ivesk::notification::Announcement;
use ivesk_webhook::pull::{Puller, configured_feeds};
use ivesk_webhook::service::open_store;
use ivesk_webhook::store::{DocumentRow, SharedStore, Trigger, TriggerKind};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestCaseError, TestRunner};

use crate::pull::random_operations::{
    Notified, Operation, Positions, describe, operation, positions,
};
use crate::support::databases::Database;
use crate::support::puller::{
    canonical, check_numbering, company, digitized, documents, folder, hours, run_for,
    set_exported_path, settings, settle, signer, start_time, stored,
};

/// Number of sequences, unless `PULL_HISTORIES` sets another one; each takes half a second.
const HISTORIES: u32 = 24;
/// Real time that each request to a hanging vendor takes.
const TIMEOUT: Duration = Duration::from_millis(400);

/// The vendor of all runs; each has an account and companies of its own.
struct Vendor {
    emulator: Emulator,
    clock: Clock,
    runtime: tokio::runtime::Runtime,
    runs: std::cell::Cell<u32>,
}

impl Vendor {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let clock = Clock::manual(start_time());
        let settings = EmulatorSettings {
            clock: clock.clone(),
            signer: Some(signer()),
            ..EmulatorSettings::default()
        };
        let emulator = runtime.block_on(Emulator::start(settings, ([127, 0, 0, 1], 0).into()));
        Self {
            emulator: emulator.expect("a free port"),
            clock,
            runtime,
            runs: std::cell::Cell::new(0),
        }
    }
}

/// One sequence of operations while it runs.
struct Run {
    control: Control,
    clock: Clock,
    config: Config,
    positions: Positions,
    codes: Vec<String>,
    key: String,
    store: SharedStore,
    pullers: [Arc<Puller>; 2],
    exported: Vec<(String, String)>,
    /// Every version that was ever listed: with `re_export=moves`, some no longer are.
    ever_listed: BTreeSet<(String, String)>,
    late_notifications: Vec<Feed>,
    _folder: tempfile::TempDir,
    _database: Option<Database>,
}

impl Run {
    async fn begin(vendor: &Vendor, positions: Positions) -> Self {
        let number = vendor.runs.get();
        vendor.runs.set(number + 1);
        let key = format!("key-of-run-{number}");
        let codes: Vec<String> = (0..positions.companies())
            .map(|n| {
                format!(
                    "{}",
                    100_000_000 + number * 10 + u32::try_from(n).expect("few")
                )
            })
            .collect();
        let control = vendor.emulator.control();
        let codes_as_str: Vec<&str> = codes.iter().map(String::as_str).collect();
        control.add_account(&key, &codes_as_str);
        control.clear_faults();
        control
            .set_switches(&format!("{positions},visibility_lag_ms=0,ties=1"))
            .expect("switches that exist");
        control.reset_requests();
        let dir = folder();
        let mut config = settings(
            dir.path(),
            &vendor.emulator.api_url(),
            &key,
            &vendor.emulator.origin(),
        );
        let database = Database::of_the_suite().await;
        if let Some(database) = &database {
            config.store.url = database.url();
        }
        set_exported_path(&mut config, positions.of("company_in"));
        config.api.timeout = TIMEOUT;
        let account = config.accounts.get_mut(&default_account());
        let account = account.expect("the account");
        account.digitized = true;
        // Others become known through notifications and the digitized queue.
        account.companies = vec![company(&codes[0])];
        let (store, pullers) = open(&config, &vendor.clock).await;
        Self {
            control,
            clock: vendor.clock.clone(),
            config,
            positions,
            codes,
            key,
            store,
            pullers,
            exported: Vec::new(),
            ever_listed: BTreeSet::new(),
            late_notifications: Vec::new(),
            _folder: dir,
            _database: database,
        }
    }

    async fn perform(&mut self, operation: Operation) {
        match operation {
            Operation::Export {
                company,
                count,
                ties,
                lag_s,
                notified,
            } => {
                let ties = ties.min(self.positions.most_ties());
                self.switch(&format!("ties={ties},visibility_lag_ms={}", lag_s * 1_000));
                let code = self.code(company);
                let exported = self.control.export(&code, count).expect("exported");
                self.switch("ties=1,visibility_lag_ms=0");
                self.exported.extend(exported.iter().cloned());
                self.ever_listed.extend(exported);
                self.notify(self.exported_feed(&code), notified).await;
            }
            Operation::ReExport { document, notified } => {
                if self.exported.is_empty() {
                    return;
                }
                let (id, _) = self.exported[document % self.exported.len()].clone();
                let again = self.control.re_export(&id).expect("it was exported");
                self.ever_listed
                    .extend(again.map(|version| (id.clone(), version)));
                let code = self.code_of(&id);
                self.notify(self.exported_feed(&code), notified).await;
            }
            Operation::Digitize {
                company,
                count,
                notified,
            } => {
                let code = self.code(company);
                let ids = self.control.digitize(&self.key, &code, count);
                ids.expect("the company exists");
                self.notify(digitized(), notified).await;
            }
            Operation::Notification { company } => {
                let code = self.code(company);
                self.notify(self.exported_feed(&code), Notified::AtOnce)
                    .await;
            }
            Operation::LateNotifications => {
                while let Some(feed) = self.late_notifications.pop() {
                    self.trigger(feed).await;
                }
            }
            Operation::Fault { fault, times } => {
                self.control.fault(fault.to_fault().times(times));
            }
            Operation::FaultsEnd => self.control.clear_faults(),
            Operation::Step => self.step(0).await,
            Operation::StepOfOther => self.step(1).await,
            Operation::DroppedStep => self.dropped_step().await,
            Operation::Settle => drop(settle(&self.pullers[0]).await),
            Operation::Restart => self.restart().await,
            Operation::PageSize { more } => {
                let page_size = self.positions.page_size + more;
                self.switch(&format!("page_size={page_size}"));
            }
            Operation::Pass { minutes } => {
                let time = Duration::from_secs(minutes * 60);
                run_for(&self.pullers[0], &self.clock, time).await;
            }
            Operation::Down { minutes } => {
                self.clock.advance(Duration::from_secs(minutes * 60));
                self.restart().await;
            }
        }
    }

    async fn step(&self, worker: usize) {
        let stepped = self.pullers[worker].pull_page().await;
        stepped.expect("the store works");
    }

    async fn dropped_step(&self) {
        self.control.reset_requests();
        let requested = async {
            tokio::select! {
                () = self.control.requests_reached(Endpoint::Exported, 1) => {}
                () = self.control.requests_reached(Endpoint::Digitized, 1) => {}
            }
        };
        tokio::select! {
            stepped = self.pullers[1].pull_page() => drop(stepped.expect("the store works")),
            () = requested => {}
        }
    }

    async fn restart(&mut self) {
        self.store.close().await.expect("the store closes");
        (self.store, self.pullers) = open(&self.config, &self.clock).await;
        let due = self.pullers[0].reconcile_after(0).await;
        assert!(due.expect("feeds are due at start").is_some());
    }

    async fn notify(&mut self, feed: Feed, notified: Notified) {
        match notified {
            Notified::AtOnce => self.trigger(feed).await,
            Notified::Twice => {
                self.trigger(feed.clone()).await;
                self.trigger(feed).await;
            }
            Notified::Late => self.late_notifications.push(feed),
            Notified::Never => {}
        }
    }

    async fn trigger(&self, feed: Feed) {
        let trigger = Trigger {
            feed,
            kind: TriggerKind::Notification,
            due_at: self.clock.now(),
            from: None,
        };
        let stored = self.store.trigger(vec![trigger]).await;
        stored.expect("the trigger is stored");
    }

    /// Returns the feed that a notification of `code` names.
    fn exported_feed(&self, code: &str) -> Feed {
        let message = match self.positions.of("company_code") {
            "number" => format!(r#"{{"companyCode":{code}}}"#),
            _ => format!(r#"{{"companyCode":"{code}"}}"#),
        };
        match Announcement::read(&message) {
            Announcement::Company(named) => self.config.api.exported_feed(default_account(), named),
            other => panic!("{message}: {other:?}"),
        }
    }

    fn switch(&self, text: &str) {
        let set = self.control.set_switches(text);
        set.expect("switches that exist");
    }

    fn code(&self, company: usize) -> String {
        self.codes[company % self.codes.len()].clone()
    }

    fn code_of(&self, id: &str) -> String {
        let has = |code: &&String| {
            let listed = self.control.documents(Queue::Exported, code);
            listed.iter().any(|(listed, _)| listed == id)
        };
        let found = self.codes.iter().find(has);
        found.expect("a company has it").clone()
    }

    /// Ends all faults, waits until everything was due, and compares.
    async fn finish(&self) -> Result<(), String> {
        self.control.clear_faults();
        // A pause lasts an hour; the pull after it finds what was listed meanwhile.
        run_for(&self.pullers[0], &self.clock, hours(4)).await;
        let rows = documents(&self.store).await;
        check_numbering(&rows)?;
        let feeds = self.store.feeds().await.expect("feeds");
        for row in &feeds {
            if let Some(error) = &row.last_error {
                return Err(format!("`{}` ends with: {error}", row.feed));
            }
            self.compare(&row.feed, &rows)?;
        }
        Ok(())
    }

    fn compare(&self, feed: &Feed, rows: &[DocumentRow]) -> Result<(), String> {
        let stored: Vec<_> = stored(rows, feed);
        let key = |(id, version): &(String, String)| (id.clone(), canonical(version));
        let ever_listed: BTreeSet<_> = self.ever_listed.iter().map(key).collect();
        let mut listed: Vec<_> = match feed.queue {
            Queue::Exported if feed.company == Company::mixed() => self
                .codes
                .iter()
                .flat_map(|code| self.control.documents(Queue::Exported, code))
                .collect(),
            Queue::Exported => self
                .control
                .documents(Queue::Exported, feed.company.as_str()),
            Queue::Digitized => self
                .codes
                .iter()
                .flat_map(|code| self.control.documents(Queue::Digitized, code))
                .collect(),
        };
        listed = listed.iter().map(key).collect();
        listed.sort();
        let lost: Vec<_> = listed.iter().filter(|at| !stored.contains(at)).collect();
        let moved_away = |at: &&(String, String)| {
            self.positions.of("re_export") == "moves" && ever_listed.contains(*at)
        };
        let invented: Vec<_> = stored
            .iter()
            .filter(|at| !listed.contains(at) && !moved_away(at))
            .collect();
        let twice = stored.windows(2).any(|pair| pair[0] == pair[1]);
        if lost.is_empty() && invented.is_empty() && !twice {
            return Ok(());
        }
        Err(format!(
            "`{feed}` of {} versions: lost {lost:?}, invented {invented:?}, twice: {twice}",
            listed.len()
        ))
    }
}

async fn open(config: &Config, clock: &Clock) -> (SharedStore, [Arc<Puller>; 2]) {
    let store = open_store(config, clock).await.expect("the store opens");
    let puller = || {
        let puller = Puller::new(config, Arc::clone(&store), clock.clone());
        Arc::new(puller.expect("a puller"))
    };
    let pullers = [puller(), puller()];
    let feeds = configured_feeds(config);
    pullers[0]
        .register_feeds(feeds)
        .await
        .expect("feeds are known");
    (store, pullers)
}

#[test]
fn after_any_history_each_version_is_stored_exactly_once() {
    let vendor = Vendor::start();
    let histories = std::env::var("PULL_HISTORIES").ok();
    let mut runner = TestRunner::new(Cases {
        cases: histories
            .and_then(|text| text.parse().ok())
            .unwrap_or(HISTORIES),
        max_shrink_iters: 300,
        failure_persistence: None,
        ..Cases::default()
    });
    let operations = (positions(), prop::collection::vec(operation(), 1..30));
    let outcome = runner.run(&operations, |(positions, operations)| {
        vendor.runtime.block_on(async {
            let mut run = Run::begin(&vendor, positions).await;
            for operation in &operations {
                run.perform(*operation).await;
            }
            let outcome = run.finish().await;
            run.store.close().await.expect("the store closes");
            outcome.map_err(|error| TestCaseError::fail(describe(positions, &operations, &error)))
        })
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
