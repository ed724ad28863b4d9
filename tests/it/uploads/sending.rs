//! Uploads, each content once and matched to its documents, and the drop folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ivesk_webhook::backoff::Backoff;
use ivesk_webhook::config::{ApiConfig, StoreUrl, UploadConfig, UploadOptions, default_account};
use ivesk_webhook::domain::{Clock, Correction, Queue, Timestamp};
use ivesk_webhook::emulator::faults::{Endpoint, Fault, FaultKind};
use ivesk_webhook::emulator::{Control, DEFAULT_KEY, Emulator, EmulatorSettings, Switches};
use ivesk_webhook::ivesk::Client;
use ivesk_webhook::store::{
    NewUpload, Settling, SharedStore, Store, StoreOptions, UploadEnd, UploadFilter, UploadRow,
    UploadState,
};
use ivesk_webhook::uploads::journal::{Claim, Journal, JournalError};
use ivesk_webhook::uploads::watch::{REFUSED, SENT, UNFINISHED_WAIT, Watcher};
use ivesk_webhook::uploads::{NoProgress, UploadOutcome, UploadReport, UploadSettings, Uploader};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::support::destinations::make_pipe;
use crate::support::emulator::{emulator, emulator_with};
use crate::support::process::{Installation, within};
use crate::support::stand_in::axum_serve;

const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// A vendor, a store and a drop folder, with one clock.
struct Office {
    emulator: Emulator,
    control: Control,
    clock: Clock,
    store: SharedStore,
    folder: tempfile::TempDir,
}

impl Office {
    async fn new(switches: &str) -> Self {
        let clock = Clock::manual(START);
        Self::at(clock.clone(), clock, switches).await
    }

    /// Creates one whose clock can be set ahead of the vendor's, and back.
    async fn with_correction() -> (Self, Correction) {
        let of_vendor = Clock::manual(START);
        let (clock, correction) = of_vendor.corrected();
        (Self::at(of_vendor, clock, "").await, correction)
    }

    async fn at(of_vendor: Clock, clock: Clock, switches: &str) -> Self {
        let settings = EmulatorSettings {
            switches: Switches::parse(switches).expect("switches that exist"),
            clock: of_vendor,
            ..EmulatorSettings::default()
        };
        let emulator = emulator_with(settings).await;
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(folder.path()).await;
        std::fs::create_dir(folder.path().join("outbox")).expect("created");
        Self {
            control: emulator.control(),
            emulator,
            clock,
            store,
            folder,
        }
    }

    fn uploader(&self) -> Uploader {
        self.uploader_with(|_| {})
    }

    /// Returns an uploader such as another process has.
    fn uploader_with(&self, change: impl FnOnce(&mut UploadSettings)) -> Uploader {
        self.uploader_over(Arc::new(Arc::clone(&self.store)), change)
    }

    fn uploader_over(
        &self,
        journal: Arc<dyn Journal>,
        change: impl FnOnce(&mut UploadSettings),
    ) -> Uploader {
        let config = ApiConfig::at(self.emulator.api_url().parse().expect("a URL"));
        let client = Client::new(&config, DEFAULT_KEY.to_owned().into()).expect("a client");
        let mut settings = UploadSettings {
            account: default_account(),
            options: UploadOptions::default(),
            force: false,
            backoff: Backoff {
                first: Duration::ZERO,
                longest: Duration::ZERO,
            },
        };
        change(&mut settings);
        let stop = CancellationToken::new();
        Uploader::new(client, journal, settings, self.clock.clone(), stop).expect("an uploader")
    }

    fn outbox(&self) -> PathBuf {
        self.folder.path().join("outbox")
    }

    fn put(&self, name: &str, content: &str) -> PathBuf {
        let path = self.outbox().join(name);
        std::fs::write(&path, content).expect("written");
        path
    }

    fn watcher(&self) -> Watcher {
        self.watcher_with(Duration::ZERO)
    }

    fn watcher_with(&self, quiet: Duration) -> Watcher {
        let watcher = Watcher::open(&self.outbox(), quiet, self.uploader());
        watcher.expect("the folder can be watched")
    }

    async fn rows(&self) -> Vec<UploadRow> {
        let filter = UploadFilter {
            limit: 100,
            ..UploadFilter::default()
        };
        self.store.uploads(filter).await.expect("rows")
    }

    /// Returns the names of the files that the vendor received.
    fn received(&self) -> Vec<String> {
        let uploads = self.control.uploads().into_iter();
        let received = uploads.filter(|upload| upload.bytes.is_some());
        let mut names: Vec<String> = received.map(|upload| upload.file_name).collect();
        names.sort();
        names
    }
}

/// A store that is down so many times when an upload has ended.
struct FailingJournal {
    store: SharedStore,
    failures: AtomicU32,
}

impl FailingJournal {
    fn of(office: &Office, failures: u32) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::clone(&office.store),
            failures: failures.into(),
        })
    }
}

#[async_trait]
impl Journal for FailingJournal {
    async fn begin(&self, upload: NewUpload) -> Result<Claim, JournalError> {
        Journal::begin(&self.store, upload).await
    }

    async fn keep_location(
        &self,
        id: i64,
        owner: String,
        location: Option<SecretString>,
    ) -> Result<(), JournalError> {
        Journal::keep_location(&self.store, id, owner, location).await
    }

    async fn end(
        &self,
        id: i64,
        owner: String,
        end: UploadEnd,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        let left = |left: u32| left.checked_sub(1);
        match self.failures.fetch_update(Relaxed, Relaxed, left) {
            Ok(_) => Err(JournalError("the store is down".to_owned())),
            Err(_) => Journal::end(&self.store, id, owner, end, now).await,
        }
    }
}

async fn open(folder: &Path) -> SharedStore {
    let options = StoreOptions {
        url: StoreUrl::Sqlite(folder.join("test.db")),
        queue: 64,
        quarantine_bytes: 0,
        ask: false,
        clock: Clock::system(),
        hooks: None,
    };
    Arc::new(Store::open(options).await.expect("a store"))
}

async fn upload(uploader: &Uploader, path: &Path) -> UploadReport {
    let report = uploader.upload(path, Arc::new(NoProgress)).await;
    report.expect("the rows are stored")
}

/// Returns the names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn one_content_is_sent_once_under_any_name_unless_forced() {
    let office = Office::new("").await;
    let uploader = office.uploader();
    let first = office.put("a.pdf", "%PDF one");
    let twin = office.put("b.pdf", "%PDF one");

    // In parallel, as `upload` does.
    let (a, b) = tokio::join!(upload(&uploader, &first), upload(&uploader, &twin));
    let mut outcomes = [a.outcome, b.outcome];
    outcomes.sort_by_key(|outcome| matches!(outcome, UploadOutcome::AlreadySent { .. }));
    assert_eq!(
        outcomes,
        [
            UploadOutcome::Sent { id: 1 },
            UploadOutcome::AlreadySent { id: 1 }
        ]
    );
    assert_eq!(office.received().len(), 1);

    let again = upload(&office.uploader(), &first).await;
    assert_eq!(again.outcome, UploadOutcome::AlreadySent { id: 1 });
    let forced = office.uploader_with(|settings| settings.force = true);
    assert_eq!(
        upload(&forced, &first).await.outcome,
        UploadOutcome::Sent { id: 2 }
    );
    assert_eq!(office.received().len(), 2);
    let marks: Vec<String> = office
        .rows()
        .await
        .into_iter()
        .map(|row| row.correlation)
        .collect();
    assert_ne!(marks[0], marks[1], "each row has a mark of its own");
}

#[tokio::test]
async fn the_users_data_and_our_mark_go_with_the_file() {
    let office = Office::new("").await;
    let uploader = office.uploader_with(|settings| {
        let data = serde_json::json!({ "order": "ž-7" });
        settings.options.correlation = data.as_object().cloned();
    });
    upload(&uploader, &office.put("a.pdf", "%PDF")).await;
    let sent = office.control.uploads().remove(0);
    let data = STANDARD
        .decode(&sent.parameters["sourcedata"])
        .expect("base64");
    let data: serde_json::Value = serde_json::from_slice(&data).expect("JSON");
    let row = office.rows().await.remove(0);
    assert_eq!(data["order"], "ž-7");
    assert_eq!(data["ivesk_webhook_upload"], row.correlation);
    assert_eq!(sent.sha256.as_deref(), Some(row.sha256.as_str()));
}

#[tokio::test]
async fn a_transient_failure_is_retried_until_the_file_is_sent() {
    let status = |status| FaultKind::Status {
        status,
        retry_after: None,
    };
    for (endpoint, kind, requested) in [
        (Endpoint::Upload, status(503), 1),
        // S3's answer for an expired link.
        (Endpoint::Upload, status(403), 3),
        (Endpoint::UploadLocation, status(500), 3),
        (Endpoint::UploadLocation, FaultKind::HtmlPage, 3),
    ] {
        let office = Office::new("").await;
        office.control.fault(fault(endpoint, kind.clone(), 2));
        let report = upload(&office.uploader(), &office.put("a.pdf", "%PDF")).await;
        assert_eq!(report.outcome, UploadOutcome::Sent { id: 1 }, "{kind:?}");
        let row = office.rows().await.remove(0);
        assert_eq!(
            (row.attempts, row.state),
            (3, UploadState::Sent),
            "{kind:?}"
        );
        let requests = office.control.requests();
        let locations = requests.count(Endpoint::UploadLocation);
        assert_eq!(locations, requested, "{kind:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_repeated_at_the_same_location() {
    let office = Office::new("").await;
    let lost = fault(Endpoint::Upload, FaultKind::LostAnswer, 1);
    office.control.fault(lost);
    let report = upload(&office.uploader(), &office.put("a.pdf", "%PDF")).await;
    assert_eq!(report.outcome, UploadOutcome::Sent { id: 1 });
    let requests = office.control.requests();
    assert_eq!(requests.count(Endpoint::Upload), 2);
    assert_eq!(requests.count(Endpoint::UploadLocation), 1);
    assert_eq!(office.received(), ["a.pdf"], "one file to the vendor");
    let queue = office.control.documents(Queue::Digitized, "");
    assert_eq!(queue.iter().filter(|(id, _)| is_of(&office, id)).count(), 1);
}

/// Returns true if a document was made of an uploaded file.
fn is_of(office: &Office, document: &str) -> bool {
    let uploads = office.control.uploads();
    uploads
        .iter()
        .any(|upload| upload.document_id.as_deref() == Some(document))
}

#[tokio::test]
async fn a_restart_repeats_a_lost_answer_at_the_same_location() {
    let office = Office::new("").await;
    let path = office.put("a.pdf", "%PDF");
    // Every attempt of the first process, and it is killed within one of the second's.
    let lost = fault(Endpoint::Upload, FaultKind::LostAnswer, 4);
    office.control.fault(lost);
    let report = upload(&office.uploader(), &path).await;
    assert!(
        matches!(
            &report.outcome,
            UploadOutcome::Failed {
                unreachable: true,
                ..
            }
        ),
        "{report:?}"
    );
    office
        .control
        .fault(fault(Endpoint::Upload, FaultKind::Hang, 1));
    {
        let killed = office.uploader();
        let hanging = killed.upload(&path, Arc::new(NoProgress));
        tokio::select! {
            _ = hanging => panic!("the storage hangs"),
            () = office.control.requests_reached(Endpoint::Upload, 5) => {}
        }
    }
    office.clock.advance(Duration::from_secs(600));
    let report = upload(&office.uploader(), &path).await;
    assert_eq!(report.outcome, UploadOutcome::Sent { id: 1 });
    let requests = office.control.requests();
    assert_eq!(requests.count(Endpoint::UploadLocation), 1);
    assert_eq!(office.received(), ["a.pdf"], "one file to the vendor");
}

#[tokio::test]
async fn a_location_that_has_expired_is_replaced_at_once() {
    let office = Office::new("upload_expires_ms=60000").await;
    let path = office.put("a.pdf", "%PDF");
    let lost = fault(Endpoint::Upload, FaultKind::LostAnswer, 4);
    office.control.fault(lost);
    upload(&office.uploader(), &path).await;
    office.clock.advance(Duration::from_secs(600));
    let report = upload(&office.uploader(), &path).await;
    assert_eq!(report.outcome, UploadOutcome::Sent { id: 1 });
    let row = office.rows().await.remove(0);
    assert_eq!(row.attempts, 5, "the new location is part of the attempt");
    let requests = office.control.requests();
    assert_eq!(requests.count(Endpoint::UploadLocation), 2);
}

#[tokio::test]
async fn what_could_not_be_recorded_as_sent_is_not_sent_again() {
    let office = Office::new("upload_expires_ms=60000").await;
    let path = office.put("a.pdf", "%PDF");
    let uploader = office.uploader_over(FailingJournal::of(&office, 2), |_| {});
    for _ in 0..2 {
        let report = uploader.upload(&path, Arc::new(NoProgress)).await;
        assert!(report.is_err(), "{report:?}");
        office.clock.advance(Duration::from_secs(600));
    }
    let report = upload(&uploader, &path).await;
    assert_eq!(report.outcome, UploadOutcome::Sent { id: 1 });
    assert_eq!(office.rows().await[0].state, UploadState::Sent);
    let requests = office.control.requests();
    assert_eq!(requests.count(Endpoint::UploadLocation), 1);
    assert_eq!(requests.count(Endpoint::Upload), 1);

    // A process that stops records it too.
    let path = office.put("b.pdf", "%PDF 2");
    let uploader = office.uploader_over(FailingJournal::of(&office, 1), |_| {});
    let report = uploader.upload(&path, Arc::new(NoProgress)).await;
    assert!(report.is_err(), "{report:?}");
    uploader.abandon().await.expect("rows");
    assert_eq!(office.rows().await[1].state, UploadState::Sent);
    assert_eq!(office.received(), ["a.pdf", "b.pdf"]);
}

#[tokio::test]
async fn the_upload_command_repeats_a_lost_answer_too() {
    let emulator = emulator("").await;
    let installation = Installation::beside(&emulator, "", "");
    std::fs::write(installation.folder().join("a.pdf"), "%PDF").expect("written");
    // Its rows are kept by the server.
    let server = installation.start().await;
    let lost = fault(Endpoint::Upload, FaultKind::LostAnswer, 1);
    emulator.control().fault(lost);
    let (code, lines, errors) = installation.run(&["upload", "a.pdf"]).await;
    assert_eq!(code, Some(0), "{lines}{errors}");
    assert_eq!(emulator.control().uploads().len(), 1);
    let requests = emulator.control().requests();
    assert_eq!(requests.count(Endpoint::Upload), 2);
    server.terminate();
    let (_, log) = server.exited().await;
    assert!(!log.contains("Signature="), "{log}");
}

#[tokio::test]
async fn every_form_of_a_location_takes_a_lithuanian_name() {
    for host in ["own", "s3"] {
        for keys in ["dashed", "camel"] {
            for disposition in ["raw", "rfc5987", "ascii"] {
                let switches =
                    format!("upload_host={host},header_keys={keys},disposition={disposition}");
                let office = Office::new(&switches).await;
                let path = office.put("sąskaita 100%.pdf", "%PDF");
                let report = upload(&office.uploader(), &path).await;
                assert_eq!(report.outcome, UploadOutcome::Sent { id: 1 }, "{switches}");
                assert_eq!(office.received(), ["sąskaita 100%.pdf"], "{switches}");
            }
        }
    }
}

#[tokio::test]
async fn an_unacceptable_file_is_refused_and_a_wrong_key_stops_all() {
    for (status, endpoint, refused) in [
        (413, Endpoint::Upload, true),
        (422, Endpoint::UploadLocation, true),
        (401, Endpoint::UploadLocation, false),
        (302, Endpoint::UploadLocation, false),
    ] {
        let office = Office::new("").await;
        let kind = FaultKind::Status {
            status,
            retry_after: None,
        };
        office.control.fault(fault(endpoint, kind, 9));
        let report = upload(&office.uploader(), &office.put("a.pdf", "%PDF")).await;
        let row = office.rows().await.remove(0);
        assert_eq!(row.attempts, 1, "{status}");
        assert!(row.last_error.is_some(), "{status}");
        match report.outcome {
            UploadOutcome::Refused { .. } => {
                assert!(refused, "{status}");
                assert_eq!(row.state, UploadState::Refused);
            }
            UploadOutcome::Stopped { .. } => {
                assert!(!refused, "{status}");
                assert_eq!(row.state, UploadState::Failed);
            }
            other => panic!("{status}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_name_without_location_stops_no_other_file() {
    for status in [403, 404] {
        let kind = || FaultKind::Status {
            status,
            retry_after: None,
        };
        let office = Office::new("").await;
        let uploader = office.uploader();
        office
            .control
            .fault(fault(Endpoint::UploadLocation, kind(), 2));
        let odd = office.put("100%.pdf", "%PDF odd");
        for _ in 0..2 {
            let outcome = upload(&uploader, &odd).await.outcome;
            assert!(
                matches!(outcome, UploadOutcome::NoLocation { .. }),
                "{status}: {outcome:?}"
            );
        }
        let other = upload(&uploader, &office.put("a.pdf", "%PDF a")).await;
        assert!(matches!(other.outcome, UploadOutcome::Sent { .. }));

        // Two different names in a row: it is not the name.
        office
            .control
            .fault(fault(Endpoint::UploadLocation, kind(), 2));
        let outcome = upload(&uploader, &odd).await.outcome;
        assert!(matches!(outcome, UploadOutcome::NoLocation { .. }));
        let outcome = upload(&uploader, &office.put("b.pdf", "%PDF b"))
            .await
            .outcome;
        assert!(
            matches!(outcome, UploadOutcome::Stopped { .. }),
            "{status}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn the_folder_goes_on_without_a_name_that_is_refused() {
    let office = Office::new("").await;
    let mut watcher = office.watcher();
    let kind = FaultKind::Status {
        status: 404,
        retry_after: None,
    };
    let odd = fault(Endpoint::UploadLocation, kind.clone(), 1);
    office.put("100%.pdf", "%PDF odd");
    watcher.scan().await.expect("a scan");
    for number in 0..3 {
        office.control.fault(odd.clone());
        assert_eq!(watcher.scan().await.expect("a scan").len(), 1);
        let name = format!("{number}.pdf");
        office.put(&name, &name);
        for _ in 0..2 {
            watcher.scan().await.expect("a scan");
        }
        assert_eq!(office.received().len(), number + 1, "it is sent at once");
        office.clock.advance(Duration::from_secs(15 * 60));
    }
    let refused = office.outbox().join(REFUSED);
    assert_eq!(names(&refused), ["100%.pdf", "100%.pdf.txt"]);
    let note = std::fs::read_to_string(refused.join("100%.pdf.txt")).expect("a note");
    assert!(note.contains("rename the file"), "{note}");

    // Two different names in a row pause the folder.
    office
        .control
        .fault(fault(Endpoint::UploadLocation, kind, 2));
    office.put("x.pdf", "%PDF x");
    office.put("y.pdf", "%PDF y");
    watcher.scan().await.expect("a scan");
    assert_eq!(watcher.scan().await.expect("a scan").len(), 2);
    office.put("z.pdf", "%PDF z");
    for _ in 0..3 {
        assert!(watcher.scan().await.expect("a scan").is_empty());
    }
    office.clock.advance(Duration::from_secs(300));
    watcher.scan().await.expect("a scan");
    assert_eq!(office.received().len(), 6);
}

#[tokio::test]
async fn two_names_that_are_refused_do_not_pause_the_folder_forever() {
    let office = Office::new("").await;
    let mut watcher = office.watcher();
    let refused = || names(&office.outbox().join(REFUSED));
    for name in ["100%.pdf", "50%.pdf"] {
        office.control.fault(Fault::status(403).file_name(name));
        office.put(name, name);
    }
    watcher.scan().await.expect("a scan");
    // Nothing else is sent: it may be the key, so no file is set aside.
    for _ in 0..5 {
        assert_eq!(watcher.scan().await.expect("a scan").len(), 2);
        assert!(watcher.scan().await.expect("a scan").is_empty());
        office.clock.advance(Duration::from_secs(300));
    }
    assert!(refused().is_empty());
    // A good file shows that it is not the key.
    office.put("a.jpg", "a");
    watcher.scan().await.expect("a scan");
    for _ in 0..2 {
        office.clock.advance(Duration::from_secs(300));
        watcher.scan().await.expect("a scan");
    }
    assert_eq!(office.received(), ["a.jpg"]);
    assert_eq!(
        refused(),
        ["100%.pdf", "100%.pdf.txt", "50%.pdf", "50%.pdf.txt"]
    );
    // Nothing pauses any longer.
    office.put("b.jpg", "b");
    for _ in 0..2 {
        watcher.scan().await.expect("a scan");
    }
    assert_eq!(office.received(), ["a.jpg", "b.jpg"]);
}

#[tokio::test]
async fn attempts_are_bounded_and_the_next_run_continues_the_row() {
    let office = Office::new("").await;
    let kind = FaultKind::Status {
        status: 503,
        retry_after: None,
    };
    office.control.fault(fault(Endpoint::Upload, kind, 4));
    let path = office.put("a.pdf", "%PDF");
    let report = upload(&office.uploader(), &path).await;
    let UploadOutcome::Failed {
        error, unreachable, ..
    } = report.outcome
    else {
        panic!("{report:?}");
    };
    assert!(error.contains("503") && !unreachable, "{error}");
    let report = upload(&office.uploader(), &path).await;
    assert_eq!(report.outcome, UploadOutcome::Sent { id: 1 });
    assert_eq!(office.rows().await[0].attempts, 5);
}

#[tokio::test]
async fn a_file_claimed_by_another_process_is_left_until_expiry() {
    let office = Office::new("").await;
    let path = office.put("a.pdf", "%PDF");
    office.control.set_switches("hang=on").expect("a switch");
    let killed = office.uploader();
    {
        // Dropped as by a killed process: its row stays as it is.
        let hanging = killed.upload(&path, Arc::new(NoProgress));
        tokio::select! {
            _ = hanging => panic!("the vendor hangs"),
            () = office.control.requests_reached(Endpoint::UploadLocation, 1) => {}
        }
    }
    office.control.set_switches("hang=off").expect("a switch");
    assert_eq!(office.rows().await[0].state, UploadState::Sending);

    let other = office.uploader();
    let UploadOutcome::Busy { until } = upload(&other, &path).await.outcome else {
        panic!("the claim holds");
    };
    assert!(until > START && until < START.after(Duration::from_secs(600)));
    office.clock.advance(until.since(START));
    assert_eq!(
        upload(&other, &path).await.outcome,
        UploadOutcome::Sent { id: 1 }
    );
    assert_eq!(office.received(), ["a.pdf"]);

    // An uploader that stops cleanly leaves no claim.
    let next = office.put("b.pdf", "%PDF 2");
    office.control.set_switches("hang=on").expect("a switch");
    {
        let hanging = killed.upload(&next, Arc::new(NoProgress));
        tokio::select! {
            _ = hanging => panic!("the vendor hangs"),
            () = office.control.requests_reached(Endpoint::UploadLocation, 3) => {}
        }
    }
    killed.abandon().await.expect("rows");
    office.control.set_switches("hang=off").expect("a switch");
    let outcome = upload(&other, &next).await.outcome;
    assert_eq!(outcome, UploadOutcome::Sent { id: 2 });
}

#[tokio::test]
async fn an_upload_without_a_document_is_late_in_working_hours() {
    let office = Office::new("digitize_uploads=manual").await;
    // A Friday, at four in the afternoon.
    let friday = Timestamp::parse("2026-10-23T16:00:00+03:00").expect("a time");
    office.clock.advance(friday.since(START));
    upload(&office.uploader(), &office.put("a.pdf", "%PDF")).await;
    let late = async || {
        let late_before = UploadConfig::default().late_before(office.clock.now());
        let filter = UploadFilter {
            missing_since: Some(late_before),
            limit: 10,
            ..UploadFilter::default()
        };
        let count = office.store.uploads(filter).await.expect("rows").len();
        (office.rows().await[0].status(late_before), count)
    };
    // Tuesday at ten, winter time by then.
    let tuesday = Timestamp::parse("2026-10-27T10:00:00+02:00").expect("a time");
    office.clock.advance(tuesday.since(friday));
    assert_eq!(late().await, ("sent", 0));
    office.clock.advance(Duration::from_millis(1));
    assert_eq!(late().await, ("late", 1));
    let reason = "no invoice".to_owned();
    let settled = office.store.settle_upload(1, reason, tuesday).await;
    assert!(matches!(settled, Ok(Settling::Settled)), "{settled:?}");
    assert_eq!(late().await, ("settled", 0));
}

fn fault(endpoint: Endpoint, kind: FaultKind, times: u32) -> Fault {
    Fault {
        endpoint: Some(endpoint),
        times: Some(times),
        ..Fault::new(kind)
    }
}

#[tokio::test]
async fn the_drop_folder_sends_complete_files_and_moves_them() {
    let office = Office::new("").await;
    let mut watcher = office.watcher();
    office.put("a.pdf", "%PDF a");
    office.put("half.pdf", "%PD");
    office.put("empty.pdf", "");
    office.put("c.pdf.part", "%PDF c");
    office.put(".hidden", "%PDF h");

    assert!(watcher.scan().await.expect("a scan").is_empty());
    office.put("half.pdf", "%PDF half");
    let reports = watcher.scan().await.expect("a scan");
    assert_eq!(reports.len(), 1, "a file that has grown waits");
    assert_eq!(names(&office.outbox().join(SENT)), ["a.pdf"]);
    watcher.scan().await.expect("a scan");
    assert_eq!(names(&office.outbox().join(SENT)), ["a.pdf", "half.pdf"]);
    assert_eq!(office.received(), ["a.pdf", "half.pdf"]);
    assert_eq!(
        names(&office.outbox()),
        [".hidden", "c.pdf.part", "empty.pdf", REFUSED, SENT]
    );
}

#[tokio::test]
async fn a_file_is_sent_once_it_is_quiet_for_the_set_time() {
    let office = Office::new("").await;
    let mut watcher = office.watcher_with(Duration::from_secs(10));
    // A scanner of another user that writes page by page, nine seconds apart.
    for pages in 1..=3 {
        office.put("a.jpg", &"page ".repeat(pages));
        for _ in 0..3 {
            assert!(watcher.scan().await.expect("a scan").is_empty());
            office.clock.advance(Duration::from_secs(3));
        }
    }
    assert!(watcher.scan().await.expect("a scan").is_empty());
    office.clock.advance(Duration::from_secs(3));
    assert_eq!(watcher.scan().await.expect("a scan").len(), 1);
    let sent = office.control.uploads().remove(0);
    assert_eq!(sent.bytes, Some(15));
}

#[tokio::test]
async fn a_pdf_without_its_end_waits_longer() {
    let office = Office::new("").await;
    let mut watcher = office.watcher();
    let page = "%PDF-1.4\n% page 1\n";
    office.put("a.pdf", page);
    office.put("b.pdf", page);
    watcher.scan().await.expect("a scan");
    for _ in 0..5 {
        office.clock.advance(Duration::from_secs(9));
        assert!(watcher.scan().await.expect("a scan").is_empty());
    }
    office.put("a.pdf", &format!("{page}trailer\n%%EOF\n"));
    watcher.scan().await.expect("a scan");
    watcher.scan().await.expect("a scan");
    assert_eq!(office.received(), ["a.pdf"]);
    // A program may write such files.
    office.clock.advance(UNFINISHED_WAIT);
    watcher.scan().await.expect("a scan");
    assert_eq!(office.received(), ["a.pdf", "b.pdf"]);
}

#[tokio::test]
async fn a_sent_file_that_changes_comes_back_and_is_sent_again() {
    use std::io::Write as _;

    let office = Office::new("").await;
    let mut watcher = office.watcher();
    let path = office.put("a.jpg", "page 1 ");
    watcher.scan().await.expect("a scan");
    watcher.scan().await.expect("a scan");
    let sent = office.outbox().join(SENT);
    assert_eq!(names(&sent), ["a.jpg"]);
    // Its program goes on writing to it.
    let writer = std::fs::File::options()
        .append(true)
        .open(sent.join("a.jpg"));
    writer
        .and_then(|mut file| file.write_all(b"page 2"))
        .expect("written");
    watcher.scan().await.expect("a scan");
    assert!(path.exists() && names(&sent).is_empty(), "it is back");
    watcher.scan().await.expect("a scan");
    assert_eq!(names(&sent), ["a.jpg"]);
    let mut sizes: Vec<_> = office
        .control
        .uploads()
        .iter()
        .map(|upload| upload.bytes)
        .collect();
    sizes.sort();
    assert_eq!(sizes, [Some(7), Some(13)]);

    // What somebody does there later is not looked at.
    office.clock.advance(Duration::from_secs(60 * 60));
    std::fs::write(sent.join("a.jpg"), "edited").expect("written");
    watcher.scan().await.expect("a scan");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_folder_that_somebody_removes_is_made_again() {
    let office = Office::new("").await;
    let mut watcher = office.watcher();
    for name in [SENT, REFUSED] {
        std::fs::remove_dir(office.outbox().join(name)).expect("removed");
    }
    office.put("a.pdf", "%PDF a");
    office.put("b\n.pdf", "%PDF b");
    watcher.scan().await.expect("a scan");
    watcher.scan().await.expect("a scan");
    assert_eq!(names(&office.outbox().join(SENT)), ["a.pdf"]);
    assert_eq!(names(&office.outbox().join(REFUSED)).len(), 2);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_that_another_program_writes_waits() {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    let office = Office::new("").await;
    let path = office.put("a.pdf", "%PDF half");
    // Opens the file, prints a line, and keeps it open until its input ends.
    let mut writer = Command::new("/bin/sh")
        .args(["-c", "exec 3>>\"$0\"; echo open; read line"])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut line = String::new();
    let output = writer.stdout.take().expect("it is piped");
    BufReader::new(output).read_line(&mut line).expect("a line");
    assert_eq!(line, "open\n");
    // A reader does not delay it.
    let _reader = std::fs::File::open(&path).expect("opened");

    let mut watcher = office.watcher();
    for _ in 0..3 {
        assert!(watcher.scan().await.expect("a scan").is_empty());
    }
    drop(writer.stdin.take());
    writer.wait().expect("it ends");
    assert_eq!(watcher.scan().await.expect("a scan").len(), 1);
    assert_eq!(office.received(), ["a.pdf"]);
}

#[tokio::test]
async fn a_file_sent_before_a_crash_is_moved_and_not_sent_again() {
    let office = Office::new("").await;
    let path = office.put("a.pdf", "%PDF a");
    upload(&office.uploader(), &path).await;
    // An older file of that name was sent long ago.
    let mut watcher = office.watcher();
    std::fs::write(office.outbox().join(SENT).join("a.pdf"), "old").expect("written");
    watcher.scan().await.expect("a scan");
    watcher.scan().await.expect("a scan");
    assert_eq!(names(&office.outbox().join(SENT)), ["a-2.pdf", "a.pdf"]);
    assert_eq!(office.received().len(), 1);
}

#[tokio::test]
async fn a_refused_file_is_set_aside_with_a_note() {
    let office = Office::new("").await;
    let mut watcher = office.watcher();
    office.put("a.pdf", "%PDF a");
    let kind = FaultKind::Status {
        status: 413,
        retry_after: None,
    };
    office.control.fault(fault(Endpoint::Upload, kind, 1));
    watcher.scan().await.expect("a scan");
    watcher.scan().await.expect("a scan");
    let refused = office.outbox().join(REFUSED);
    assert_eq!(names(&refused), ["a.pdf", "a.pdf.txt"]);
    let note = std::fs::read_to_string(refused.join("a.pdf.txt")).expect("a note");
    assert!(note.contains("413"), "{note}");

    // If it is put back, it is retried.
    std::fs::rename(refused.join("a.pdf"), office.outbox().join("a.pdf")).expect("moved");
    watcher.scan().await.expect("a scan");
    watcher.scan().await.expect("a scan");
    assert_eq!(office.received(), ["a.pdf"]);
}

#[tokio::test]
async fn only_a_regular_file_is_uploaded_and_none_is_waited_for() {
    let office = Office::new("").await;
    let at = |name: &str| office.folder.path().join(name);
    std::fs::write(at("secret"), "secret").expect("written");
    std::os::unix::fs::symlink(at("secret"), at("link.pdf")).expect("linked");
    make_pipe(&at("pipe.pdf"));
    let uploader = office.uploader();
    let device = PathBuf::from("/dev/zero");
    for path in [at("link.pdf"), at("pipe.pdf"), at("outbox"), device] {
        let report = within("a report", upload(&uploader, &path)).await;
        let UploadOutcome::Failed { error, .. } = report.outcome else {
            panic!("{}: {:?}", path.display(), report.outcome);
        };
        assert!(error.contains("not a regular file"), "{error}");
    }
    assert!(office.rows().await.is_empty());
    assert!(office.received().is_empty());
}

#[tokio::test]
async fn a_file_replaced_by_a_link_between_two_looks_is_not_sent() {
    let office = Office::new("").await;
    let secret = office.folder.path().join("secret");
    std::fs::write(&secret, "%PDF a").expect("written");
    let mut watcher = office.watcher();
    let path = office.put("a.pdf", "%PDF a");
    watcher.scan().await.expect("a scan");
    std::fs::remove_file(&path).expect("removed");
    std::os::unix::fs::symlink(&secret, &path).expect("linked");
    for _ in 0..3 {
        assert!(watcher.scan().await.expect("a scan").is_empty());
    }
    assert!(office.received().is_empty());
    assert!(path.is_symlink() && secret.exists());
}

#[tokio::test]
async fn a_folder_replaced_by_a_link_gets_no_file_and_no_note() {
    let office = Office::new("").await;
    let mut watcher = office.watcher();
    let outside = office.folder.path().join("outside");
    std::fs::create_dir(&outside).expect("created");
    for name in [SENT, REFUSED] {
        std::fs::remove_dir(office.outbox().join(name)).expect("removed");
        std::os::unix::fs::symlink(&outside, office.outbox().join(name)).expect("linked");
    }
    office.put("a.pdf", "%PDF a");
    office.put("b\n.pdf", "%PDF b");
    watcher.scan().await.expect("a scan");
    let error = watcher.scan().await.expect_err("nowhere to move them");
    assert!(error.to_string().contains("no link is followed"), "{error}");
    assert!(names(&outside).is_empty());

    // Without the links, the folders are made again, and nothing is sent twice.
    for name in [SENT, REFUSED] {
        std::fs::remove_file(office.outbox().join(name)).expect("removed");
    }
    watcher.scan().await.expect("a scan");
    assert_eq!(names(&office.outbox().join(SENT)), ["a.pdf"]);
    assert_eq!(names(&office.outbox().join(REFUSED)).len(), 2);
    assert_eq!(office.received(), ["a.pdf"]);
}

#[tokio::test]
async fn a_note_is_never_written_through_a_link() {
    let office = Office::new("").await;
    let mut watcher = office.watcher();
    let refused = office.outbox().join(REFUSED);
    let outside = office.folder.path().join("outside");
    std::os::unix::fs::symlink(&outside, refused.join("a\u{7}.pdf.txt")).expect("linked");
    office.put("a\u{7}.pdf", "%PDF a");
    watcher.scan().await.expect("a scan");
    watcher.scan().await.expect("a scan");
    assert!(!outside.exists());
    let found = names(&refused);
    assert_eq!(
        found,
        ["a\u{7}-2.pdf", "a\u{7}-2.pdf.txt", "a\u{7}.pdf.txt"]
    );
}

#[tokio::test]
async fn the_folders_for_sent_and_refused_are_open_to_the_same_people() {
    use std::os::unix::fs::PermissionsExt as _;

    let office = Office::new("").await;
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("allowed");
    };
    set(&office.outbox(), 0o770);
    let mut watcher = office.watcher();
    let refused = office.outbox().join(REFUSED);
    assert_eq!(
        (mode(&office.outbox().join(SENT)), mode(&refused)),
        (0o770, 0o770)
    );
    set(&office.put("b\n.pdf", "%PDF b"), 0o640);
    watcher.scan().await.expect("a scan");
    watcher.scan().await.expect("a scan");
    assert_eq!(mode(&refused.join("b\n.pdf.txt")), 0o640);
}

#[tokio::test]
async fn a_file_with_an_unusable_name_is_set_aside_with_a_note() {
    use std::os::unix::ffi::OsStrExt as _;

    let office = Office::new("").await;
    let mut watcher = office.watcher();
    office.put("a\n.pdf", "%PDF a");
    // `sąskaita` in cp1257.
    let baltic = std::ffi::OsStr::from_bytes(b"s\xe0skaita.pdf");
    std::fs::write(office.outbox().join(baltic), "%PDF b").expect("written");
    let long = format!("{}.pdf", "ž".repeat(124));
    assert_eq!(long.len(), 252);
    office.put(&long, "%PDF c");
    let kind = FaultKind::Status {
        status: 413,
        retry_after: None,
    };
    office.control.fault(fault(Endpoint::Upload, kind, 1));

    for _ in 0..4 {
        watcher.scan().await.expect("a scan");
    }
    let refused = office.outbox().join(REFUSED);
    let entries = std::fs::read_dir(&refused).expect("a folder");
    let entries: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert_eq!(entries.len(), 6, "{entries:?}");
    let note =
        std::fs::read_to_string(refused.join(std::ffi::OsStr::from_bytes(b"s\xe0skaita.pdf.txt")));
    assert!(note.expect("a note").contains("not UTF-8"));
    let note = refused.join(format!("{}.txt", "ž".repeat(124) + ".pd"));
    let note = std::fs::read_to_string(&note).expect("a note");
    assert!(note.contains("413"), "{note}");
    assert!(office.received().is_empty());
}

#[tokio::test]
async fn a_name_that_forges_a_log_line_is_escaped() {
    let emulator = emulator("").await;
    let installation = Installation::beside(
        &emulator,
        "",
        "[upload]\nwatch = \"outbox\"\nquiet_time = \"1s\"",
    );
    let outbox = installation.folder().join("outbox");
    std::fs::create_dir(&outbox).expect("created");
    let forged = "a\n2026-11-28T08:00:00Z  INFO all is well\u{1b}[2K\u{202e}.pdf";
    std::fs::write(outbox.join(forged), "%PDF a").expect("written");
    let server = installation.start().await;
    within("the refusal", async {
        while !server.log().contains("was refused") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.terminate();
    let (_, log) = server.exited().await;
    let about = |line: &&str| line.contains("all is well");
    let lines: Vec<&str> = log.lines().filter(about).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("WARN"), "{log}");
    assert!(
        lines[0].contains("`a\\n2026-11-28T08:00:00Z  INFO all is well\\u{1b}[2K\\u{202e}.pdf`"),
        "{log}"
    );
}

#[tokio::test]
async fn the_upload_command_escapes_names_and_does_not_hang() {
    let emulator = emulator("").await;
    let installation = Installation::beside(&emulator, "", "");
    make_pipe(&installation.folder().join("pipe\u{1b}[2J.pdf"));
    let (code, lines, errors) = installation.run(&["upload", "pipe\u{1b}[2J.pdf"]).await;
    assert_eq!(code, Some(1), "{errors}");
    assert!(lines.contains("not a regular file"), "{lines}");
    assert!(
        !lines.contains('\u{1b}') && !errors.contains('\u{1b}'),
        "{lines}{errors}"
    );
    // As `upload <(program)` does.
    let mut command = tokio::process::Command::new("/bin/bash");
    command
        .args(["-c", "exec \"$0\" upload <(echo %PDF)"])
        .arg(env!("CARGO_BIN_EXE_ivesk-webhook"))
        .current_dir(installation.folder())
        .env("IVESK_WEBHOOK_CONFIG", installation.settings())
        .env("IVESK_WEBHOOK_API_KEY", DEFAULT_KEY)
        .kill_on_drop(true);
    let output = within("the command", command.output())
        .await
        .expect("it runs");
    let lines = String::from_utf8_lossy(&output.stdout);
    assert!(lines.contains("not a regular file"), "{lines}");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn a_failed_file_waits_and_a_wrong_key_pauses_the_folder() {
    let office = Office::new("").await;
    let mut watcher = office.watcher();
    office.put("a.pdf", "%PDF a");
    let status = |status| FaultKind::Status {
        status,
        retry_after: None,
    };
    office
        .control
        .fault(fault(Endpoint::UploadLocation, status(500), 4));
    watcher.scan().await.expect("a scan");
    assert_eq!(watcher.scan().await.expect("a scan").len(), 1);
    assert!(watcher.scan().await.expect("a scan").is_empty());
    office.clock.advance(Duration::from_secs(30));
    office
        .control
        .fault(fault(Endpoint::UploadLocation, status(401), 1));
    let reports = watcher.scan().await.expect("a scan");
    assert!(matches!(
        reports[0].report.outcome,
        UploadOutcome::Stopped { .. }
    ));
    assert!(watcher.scan().await.expect("a scan").is_empty());
    assert_eq!(names(&office.outbox()), ["a.pdf", REFUSED, SENT]);
    office.clock.advance(Duration::from_secs(300));
    watcher.scan().await.expect("a scan");
    assert_eq!(office.received(), ["a.pdf"]);
}

#[tokio::test]
async fn a_long_retry_after_delays_its_file_alone() {
    let office = Office::new("").await;
    let backoff = Backoff {
        first: Duration::ZERO,
        longest: Duration::from_secs(16),
    };
    let uploader = office.uploader_with(|settings| settings.backoff = backoff);
    let mut watcher = Watcher::open(&office.outbox(), Duration::ZERO, uploader).expect("a folder");
    let kind = FaultKind::Status {
        status: 503,
        retry_after: Some("3600".to_owned()),
    };
    office
        .control
        .fault(fault(Endpoint::UploadLocation, kind, 1));
    office.put("a.jpg", "a");
    watcher.scan().await.expect("a scan");
    let reports = within("the scan", watcher.scan()).await.expect("a scan");
    let UploadOutcome::Failed { error, .. } = &reports[0].report.outcome else {
        panic!("{reports:?}");
    };
    assert!(error.contains("asks to retry in 1h"), "{error}");
    office.put("b.jpg", "b");
    watcher.scan().await.expect("a scan");
    assert_eq!(watcher.scan().await.expect("a scan").len(), 1);
    assert_eq!(office.received(), ["b.jpg"]);
    office.clock.advance(Duration::from_secs(3599));
    assert!(watcher.scan().await.expect("a scan").is_empty());
    office.clock.advance(Duration::from_secs(1));
    assert_eq!(watcher.scan().await.expect("a scan").len(), 1);
    assert_eq!(office.received(), ["a.jpg", "b.jpg"]);
}

#[tokio::test]
async fn a_clock_that_was_ahead_does_not_stop_the_drop_folder() {
    let (office, correction) = Office::with_correction().await;
    let mut watcher = office.watcher();
    // One pauses the folder, the other the file.
    for (status, times) in [(401, 1), (500, 4)] {
        let kind = FaultKind::Status {
            status,
            retry_after: None,
        };
        office
            .control
            .fault(fault(Endpoint::UploadLocation, kind, times));
        correction.set(2 * 86_400 * 1000);
        let name = format!("{status}.jpg");
        office.put(&name, &name);
        watcher.scan().await.expect("a scan");
        assert_eq!(watcher.scan().await.expect("a scan").len(), 1);
        assert!(watcher.scan().await.expect("a scan").is_empty(), "{status}");
        correction.set(0);
        assert_eq!(watcher.scan().await.expect("a scan").len(), 1, "{status}");
        assert!(office.received().contains(&name));
        // The next one begins later than this pause would have ended.
        office.clock.advance(Duration::from_secs(600));
    }
}

#[tokio::test]
async fn the_command_prints_a_line_for_each_file_and_its_document() {
    let emulator = emulator("").await;
    let installation = Installation::beside(&emulator, "", "");
    std::fs::create_dir(installation.folder().join("scans")).expect("created");
    for name in ["scans/a.pdf", "scans/b.pdf"] {
        std::fs::write(installation.folder().join(name), name).expect("written");
    }
    let (code, lines, errors) = installation
        .run(&[
            "upload", "scans", "--tags", "x,y", "--data", "order=7", "--json",
        ])
        .await;
    assert_eq!(code, Some(0), "{errors}");
    let outcomes: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes.iter().all(|line| line["outcome"] == "sent"));
    let sent = emulator.control().uploads();
    assert!(sent.iter().all(|file| file.parameters["tags"] == "x,y"));

    // Without the option it is text, in a pipe too.
    let (code, lines, _) = installation.run(&["upload", "scans/a.pdf"]).await;
    assert_eq!(code, Some(0));
    assert!(
        lines.contains("scans/a.pdf: sent before as upload"),
        "{lines}"
    );

    let (code, _, errors) = installation.run(&["pull", "--queue", "digitized"]).await;
    assert_eq!(code, Some(0), "{errors}");
    let (_, rows, _) = installation.run(&["uploads", "list", "--json"]).await;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&rows).expect("JSON");
    let known = emulator.control().documents(Queue::Digitized, "");
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(row["status"], "returned", "{row}");
        let document = row["documents"][0].as_str().expect("an id");
        assert!(known.iter().any(|(id, _)| id == document), "{row}");
    }

    let (code, _, errors) = installation.run(&["upload", "nothing.pdf"]).await;
    assert_eq!(code, Some(2));
    assert!(errors.contains("nothing.pdf"), "{errors}");
}

#[tokio::test]
async fn a_person_settles_an_upload_with_a_reason() {
    let emulator = emulator("digitize_uploads=manual").await;
    let installation = Installation::beside(&emulator, "", "");
    std::fs::write(installation.folder().join("a.pdf"), "%PDF").expect("written");
    let (code, _, errors) = installation.run(&["upload", "a.pdf"]).await;
    assert_eq!(code, Some(0), "{errors}");
    for (arguments, expected) in [
        (&["uploads", "settle", "1"][..], 2),
        (&["uploads", "settle", "1", "--reason", " "], 2),
        (&["uploads", "settle", "7", "--reason", "no invoice"], 1),
        (&["uploads", "settle", "1", "--reason", "no invoice"], 0),
        (&["uploads", "settle", "1", "--reason", "again"], 1),
    ] {
        let (code, lines, errors) = installation.run(arguments).await;
        assert_eq!(code, Some(expected), "{arguments:?}: {lines}{errors}");
    }
    let (_, rows, _) = installation.run(&["uploads", "list"]).await;
    assert!(
        rows.contains("settled") && rows.contains("no invoice"),
        "{rows}"
    );
    let (_, listed, _) = installation.run(&["audit", "list"]).await;
    let settled: Vec<&str> = listed
        .lines()
        .filter(|line| line.contains("uploads settle"))
        .collect();
    assert_eq!(settled.len(), 1, "{listed}");
    assert!(settled[0].contains("1 reason=no invoice"), "{listed}");
}

#[tokio::test]
async fn a_running_server_keeps_the_rows_and_empties_its_folder() {
    let emulator = emulator("").await;
    let installation = Installation::beside(
        &emulator,
        "",
        "[upload]\nwatch = \"outbox\"\nquiet_time = \"1s\"",
    );
    let outbox = installation.folder().join("outbox");
    std::fs::create_dir(&outbox).expect("created");
    std::fs::write(outbox.join("a.pdf"), "%PDF").expect("written");
    let server = installation.start().await;
    let twin = installation.folder().join("twin.pdf");
    within("the upload", async {
        emulator
            .control()
            .requests_reached(Endpoint::Upload, 1)
            .await;
    })
    .await;
    std::fs::write(&twin, "%PDF").expect("written");
    let (code, lines, errors) = installation.run(&["upload", "twin.pdf", "--json"]).await;
    let line: serde_json::Value = serde_json::from_str(&lines).expect("a line");
    let is_known = line["outcome"] == "already_sent" || line["outcome"] == "busy";
    assert!(is_known, "{code:?} {lines} {errors}");
    server.terminate();
    let (status, log) = server.exited().await;
    assert!(status.success(), "{log}");
    assert_eq!(names(&outbox.join(SENT)), ["a.pdf"], "{log}");
    assert_eq!(emulator.control().uploads().len(), 1);
}

/// Starts a vendor whose storage counts the bytes of a PUT; returns its origin, the count, and
/// true with it if the announced length was right.
async fn counting_vendor() -> (String, Arc<std::sync::Mutex<Option<(u64, bool)>>>) {
    use axum::body::Body;
    use axum::extract::Request;
    use axum::response::IntoResponse as _;
    use futures_util::StreamExt as _;

    let count = Arc::new(std::sync::Mutex::new(None));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    let (counted, url) = (Arc::clone(&count), format!("{origin}/put"));
    let router = axum::Router::new().fallback(move |request: Request<Body>| {
        let (counted, url) = (Arc::clone(&counted), url.clone());
        async move {
            if request.method() == axum::http::Method::GET {
                let location = serde_json::json!({
                    "url": url, "Content-Type": "application/pdf", "Content-Disposition": "x",
                });
                return location.to_string().into_response();
            }
            let headers = request.headers();
            let announced = headers["content-length"].to_str().expect("text").to_owned();
            let chunked = headers.contains_key("transfer-encoding");
            let mut body = request.into_body().into_data_stream();
            let mut bytes = 0;
            while let Some(Ok(chunk)) = body.next().await {
                bytes += chunk.len() as u64;
            }
            let as_announced = announced == bytes.to_string() && !chunked;
            *counted.lock().expect("unpoisoned") = Some((bytes, as_announced));
            ().into_response()
        }
    });
    tokio::spawn(axum_serve(listener, router));
    (origin, count)
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn two_gigabytes_are_sent_in_constant_memory() {
    const SIZE_BYTES: u64 = 2 << 30;
    let (origin, count) = counting_vendor().await;
    let installation = Installation::alone(&format!("[api]\nurl = \"{origin}\"\n"));
    // A sparse file of zeros.
    let file = std::fs::File::create(installation.folder().join("large.pdf")).expect("created");
    file.set_len(SIZE_BYTES).expect("extended");
    // The shell prints the peak of the program's memory in kilobytes.
    let script = "\"$0\" upload large.pdf & pid=$!; peak=0; \
                  while kill -0 $pid 2>/dev/null; do \
                    now=$(sed -n 's/^VmHWM:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$pid/status 2>/dev/null); \
                    [ -n \"$now\" ] && peak=$now; sleep 0.1; done; wait $pid; code=$?; echo \"peak $peak\"; exit $code";
    let mut command = tokio::process::Command::new("/bin/sh");
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_ivesk-webhook")])
        .current_dir(installation.folder())
        .env("IVESK_WEBHOOK_CONFIG", installation.settings())
        .env("IVESK_WEBHOOK_API_KEY", DEFAULT_KEY)
        .kill_on_drop(true);
    let output = within("the upload", command.output()).await;
    let output = output.expect("it runs");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}{errors}");
    assert_eq!(*count.lock().expect("unpoisoned"), Some((SIZE_BYTES, true)));
    let peak = printed.lines().find_map(|line| line.strip_prefix("peak "));
    let peak: u64 = peak.expect("a peak").parse().expect("a number");
    assert!((1..100_000).contains(&peak), "{peak} kB");
}
