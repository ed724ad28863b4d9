//! The folder destination, with files of the emulated vendor and of a file host that fails.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use futures_util::future::join_all;
use futures_util::stream;
use ivesk_webhook::config::{
    Config, DestinationConfig, DestinationKind, ExportedPath, FileMode, FolderLayout,
};
use ivesk_webhook::delivery::{Delivery, Destination, DestinationResponse, open, remove_files};
use ivesk_webhook::domain::{Clock, Company, DestinationName, Feed, Queue, Timestamp};
use ivesk_webhook::emulator::{
    Control, DEFAULT_COMPANIES, DEFAULT_KEY, Emulator, EmulatorSettings, Endpoint, Switches,
    sample_pdf,
};
use ivesk_webhook::file_names::identity;
use ivesk_webhook::ivesk::{Client, Entry, document};
use ivesk_webhook::store::ErasedFile;
use proptest::prelude::*;
use serde_json::{Value, json};
use tracing::Level;
use tracing::instrument::WithSubscriber as _;

use crate::support::captured_log::{CapturedLog, in_own_process};
use crate::support::destinations::{
    AMPLE, COMPANY, VENDOR_API, config, delivered, delivery, destination_config, make_pipe,
    other_account, try_open, unavailable,
};
use crate::support::emulator::emulator_with;
use crate::support::process::within;
use crate::support::puller::{folder, signer};
use crate::support::stand_in::{Answer, StandIn};

/// A folder and the settings of its destination.
struct Archive {
    folder: tempfile::TempDir,
    layout: FolderLayout,
    files: bool,
    max_file_bytes: u64,
    file_mode: FileMode,
    config: Config,
}

impl Archive {
    fn at(api_url: &str) -> Self {
        let mut config = config(api_url);
        config.api.exported_path = Some(ExportedPath {
            template: "/exported/{company}".to_owned(),
        });
        Self {
            folder: folder(),
            layout: FolderLayout::Company,
            files: true,
            max_file_bytes: 1 << 20,
            file_mode: FileMode::default(),
            config,
        }
    }

    /// Returns an archive that fetches no files.
    fn of_json(layout: FolderLayout) -> Self {
        Self {
            layout,
            files: false,
            ..Self::at(VENDOR_API)
        }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    fn settings(&self) -> DestinationConfig {
        let kind = DestinationKind::Folder {
            path: self.root(),
            layout: self.layout,
            files: self.files,
            max_file_bytes: self.max_file_bytes,
            file_mode: self.file_mode,
        };
        destination_config(kind, AMPLE)
    }

    fn destination(&self) -> Box<dyn Destination> {
        try_open(&self.settings(), &self.config, &[]).expect("a destination")
    }

    async fn deliver(&self, document: &Delivery) -> DestinationResponse {
        within("a response", self.destination().deliver(document)).await
    }

    /// Files a document and returns the note.
    async fn file(&self, document: &Delivery) -> String {
        delivered(self.deliver(document).await).expect("a note")
    }

    /// Returns the visible files in the folder.
    fn files(&self) -> BTreeSet<String> {
        let all = names_below(&self.root());
        all.into_iter()
            .filter(|name| !name.starts_with(".files"))
            .collect()
    }

    /// Returns the files that are stored by their hash or being written.
    fn hidden_files(&self) -> BTreeSet<String> {
        names_below(&self.root().join(".files"))
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

/// Returns the relative paths of all files below a folder.
fn names_below(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below it");
                names.insert(name.to_str().expect("text").to_owned());
            }
        }
    }
    names
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

/// An archive and the emulated vendor.
struct Scene {
    archive: Archive,
    control: Control,
    client: Client,
    _emulator: Emulator,
}

impl Scene {
    async fn new(switches: &str) -> Self {
        let settings = EmulatorSettings {
            switches: Switches::parse(switches).expect("switches that exist"),
            signer: Some(signer()),
            ..EmulatorSettings::default()
        };
        let emulator = emulator_with(settings).await;
        let archive = Archive::at(&emulator.api_url());
        Self {
            client: Client::new(&archive.config.api, DEFAULT_KEY.into()).expect("a client"),
            control: emulator.control(),
            archive,
            _emulator: emulator,
        }
    }

    /// Exports a document and pulls it.
    async fn exported(&self) -> Delivery {
        let exported = self
            .control
            .export(DEFAULT_COMPANIES[0], 1)
            .expect("a company");
        self.pulled(&exported[0].0).await
    }

    /// Pulls the document from the exported queue.
    async fn pulled(&self, id: &str) -> Delivery {
        let company = Company::parse(DEFAULT_COMPANIES[0]).expect("a code");
        let page = self
            .client
            .page(Queue::Exported, &company, None)
            .await
            .expect("a page");
        let documents = page.documents.iter();
        let mut read = documents.map(|raw| document::read(Queue::Exported, raw));
        let found = read.rfind(|read| read.as_ref().is_ok_and(|read| read.id == id));
        let version = found.expect("it is listed").expect("it has an id");
        Delivery {
            version: version.version,
            body: version.body.to_vec(),
            ..delivery(id, json!({}))
        }
    }

    fn file_requests(&self) -> u64 {
        self.control.requests().count(Endpoint::File)
    }
}

#[tokio::test]
async fn a_document_is_filed_unchanged_with_its_pdf_beside_it() {
    let scene = Scene::new("").await;
    let document = scene.exported().await;
    let id = document.document_id.clone();
    let number = serde_json::from_slice::<Value>(&document.body).expect("JSON")["docnum"].clone();
    let number = number.as_str().expect("text");
    let stem = format!("{COMPANY}/{number}-{id}");

    let archive = &scene.archive;
    assert_eq!(archive.file(&document).await, format!("{stem}.json"));
    assert_eq!(
        archive.files(),
        set([&format!("{stem}.json"), &format!("{stem}.pdf")])
    );
    assert_eq!(archive.read(&format!("{stem}.json")), document.body);
    let pdf = archive.read(&format!("{stem}.pdf"));
    assert!(pdf.starts_with(b"%PDF-") && pdf.ends_with(b"%%EOF\n"));
    // Stored once, under its hash; nothing else is left.
    let stored: Vec<String> = archive.hidden_files().into_iter().collect();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &pdf);
    let hash: String = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(stored, [format!("{hash}.pdf")]);
    let metadata = std::fs::metadata(archive.root().join(format!("{stem}.pdf"))).expect("a file");
    assert_eq!(metadata.nlink(), 2);

    // A repeat, whose link no longer works, has nothing to fetch.
    scene
        .control
        .set_switches("pdf=xml_error")
        .expect("a switch");
    assert_eq!(archive.file(&document).await, format!("{stem}.json"));
    assert_eq!(scene.file_requests(), 1);
}

#[tokio::test]
async fn an_expired_link_requests_a_fresh_one_and_leaves_no_file() {
    let scene = Scene::new("").await;
    let document = scene.exported().await;
    scene.control.advance(Duration::from_secs(2 * 3600));
    assert_eq!(
        scene.archive.deliver(&document).await,
        DestinationResponse::LinkExpired
    );
    assert_eq!(scene.archive.files(), set([]));
    assert_eq!(scene.archive.hidden_files(), set([]));

    let listed = scene.pulled(&document.document_id).await;
    let fresh = Delivery {
        link: Entry::parse(&listed.body).and_then(|entry| entry.link()),
        ..document
    };
    scene.archive.file(&fresh).await;
    assert_eq!(scene.archive.files().len(), 2);

    let another = scene.exported().await;
    scene
        .control
        .set_switches("pdf=xml_error")
        .expect("a switch");
    assert_eq!(
        scene.archive.deliver(&another).await,
        DestinationResponse::LinkExpired
    );
}

#[tokio::test]
async fn a_file_that_is_cut_off_is_not_filed() {
    let scene = Scene::new("pdf=truncated").await;
    let document = scene.exported().await;
    let (error, _) = unavailable(scene.archive.deliver(&document).await);
    assert!(error.contains("failed to fetch"), "{error}");
    assert!(!error.contains("Signature"), "{error}");
    assert_eq!(scene.archive.files(), set([]));
    assert_eq!(scene.archive.hidden_files(), set([]));
    scene.control.set_switches("pdf=ok").expect("a switch");
    scene.archive.file(&document).await;
}

/// Starts a file host with this answer; returns it, an archive that may use it, and a document
/// with a link to it.
async fn file_host(answer: Answer) -> (StandIn, Archive, Delivery) {
    let store = StandIn::start([answer]).await;
    let archive = Archive::at(&store.url("/api/pub"));
    let document = delivery("a-1", json!({ "url": store.url("/f?Signature=planted") }));
    (store, archive, document)
}

const S3_ERROR: &str =
    "<?xml version=\"1.0\"?>\n<Error><Code>CODE</Code><Message>planted</Message></Error>";

#[tokio::test]
async fn each_answer_of_the_file_host_is_classified_without_the_key() {
    let error = |status, code: &str| Answer::status(status, S3_ERROR.replace("CODE", code));
    let pdf = || Answer::ok(sample_pdf("x"));
    for (answer, expected) in [
        (pdf(), "pdf"),
        // Readers of PDFs tolerate bytes before the header.
        (
            Answer::ok([&b"\xef\xbb\xbf\n"[..], &sample_pdf("x")].concat()),
            "pdf",
        ),
        (error(403, "AccessDenied"), "expired"),
        (error(400, "ExpiredToken"), "expired"),
        (error(404, "NoSuchKey"), "expired"),
        (Answer::status(410, ""), "expired"),
        (error(200, "AccessDenied"), "expired"),
        (Answer::ok("<html>log in</html>"), "note"),
        (Answer::ok(""), "note"),
        (Answer::ok(vec![b'x'; 2 << 20]), "note"),
        (
            error(503, "SlowDown").with("retry-after", "9"),
            "unavailable",
        ),
        (Answer::status(500, ""), "unavailable"),
        (Answer::status(429, ""), "unavailable"),
        (error(400, "BadRequest"), "unavailable"),
        (
            Answer::status(302, "").with("location", "/g?Signature=planted"),
            "unavailable",
        ),
        (Answer::status(206, sample_pdf("x")), "unavailable"),
    ] {
        let shown = format!("{answer:?}");
        let (store, archive, document) = file_host(answer).await;
        let response = archive.deliver(&document).await;
        assert!(
            !format!("{response:?} {document:?}").contains("planted"),
            "{response:?}"
        );
        let files = archive.files();
        match expected {
            "pdf" => {
                delivered(response);
                assert_eq!(
                    files,
                    set(["302320404/a-1.json", "302320404/a-1.pdf"]),
                    "{shown}"
                );
            }
            "note" => {
                delivered(response);
                let note = "302320404/a-1.nopdf.txt";
                assert_eq!(files, set(["302320404/a-1.json", note]), "{shown}");
                let note = String::from_utf8(archive.read(note)).expect("text");
                assert!(
                    note.contains("not a PDF") || note.contains("`max_file_bytes`"),
                    "{note}"
                );
            }
            "expired" => {
                assert_eq!(response, DestinationResponse::LinkExpired, "{shown}");
                assert_eq!(files, set([]), "{shown}");
            }
            _ => {
                let retry_after = unavailable(response).1;
                assert_eq!(
                    retry_after,
                    shown.contains("503").then_some(Duration::from_secs(9))
                );
                assert_eq!(files, set([]), "{shown}");
            }
        }
        assert!(
            archive
                .hidden_files()
                .iter()
                .all(|name| name.ends_with(".pdf")),
            "{shown}"
        );
        let requests = store.requests();
        assert_eq!(requests.len(), 1, "{shown}");
        assert!(requests[0].header("x-api-key").is_none());
    }
}

#[tokio::test]
async fn a_document_without_a_file_is_filed_with_a_note() {
    for (fields, status, why) in [
        (json!({}), 599, "no link"),
        (json!({ "url": null }), 599, "no link"),
        (json!({ "url": "soon" }), 599, "no link"),
        (
            json!({ "url": "http://127.0.0.1:1/old" }),
            404,
            "no longer has its file",
        ),
        (
            json!({ "url": "http://127.0.0.1:1/old" }),
            403,
            "no longer has its file",
        ),
    ] {
        let store = StandIn::start([Answer::status(status, "")]).await;
        let archive = Archive::at(&store.url("/api/pub"));
        let mut document = delivery("a-1", fields);
        // A link that was pulled just now.
        let refused = matches!(status, 403 | 404);
        document.link = refused.then(|| store.url("/new").into());
        document.link_listed_at = refused.then(|| Clock::system().now());
        archive.file(&document).await;
        let note = archive.read("302320404/a-1.nopdf.txt");
        let note = String::from_utf8(note).expect("text");
        assert!(note.contains(why), "{note}");
        assert_eq!(archive.read("302320404/a-1.json"), document.body);
    }
}

#[tokio::test]
async fn a_pdf_that_was_too_large_is_filed_once_the_limit_is_raised() {
    let store = StandIn::start([Answer::ok(sample_pdf("x")), Answer::ok(sample_pdf("x"))]).await;
    let mut archive = Archive::at(&store.url("/api/pub"));
    archive.max_file_bytes = 100;
    let document = delivery("a-1", json!({ "url": store.url("/f") }));
    archive.file(&document).await;
    assert_eq!(
        archive.files(),
        set(["302320404/a-1.json", "302320404/a-1.nopdf.txt"])
    );
    archive.max_file_bytes = 1 << 20;
    archive.file(&document).await;
    assert_eq!(
        archive.files(),
        set(["302320404/a-1.json", "302320404/a-1.pdf"])
    );
}

#[tokio::test]
async fn a_link_to_an_unlisted_host_is_never_followed() {
    let store = StandIn::start([]).await;
    // The API is at another host, so that this machine is not an allowed one.
    let mut archive = Archive::at(VENDOR_API);
    for (url, part) in [
        (store.url("/f?Signature=planted"), "plain https"),
        (
            "https://files.example.lt/f?Signature=planted".to_owned(),
            "files.example.lt",
        ),
        (
            "https://169.254.169.254/latest/meta-data".to_owned(),
            "169.254.169.254",
        ),
    ] {
        let response = archive
            .deliver(&delivery("a-1", json!({ "url": url })))
            .await;
        let (error, _) = unavailable(response);
        assert!(
            error.contains(part) && !error.contains("planted"),
            "{error}"
        );
        assert_eq!(archive.files(), set([]));
    }
    assert!(store.requests().is_empty());

    archive.files = false;
    archive
        .file(&delivery("a-1", json!({ "url": store.url("/f") })))
        .await;
    assert_eq!(archive.files(), set(["302320404/a-1.json"]));
    assert!(store.requests().is_empty());
}

#[tokio::test]
async fn the_archiver_layout_separates_purchases_and_sales_by_month() {
    let archive = Archive::of_json(FolderLayout::Archiver);
    let parties = json!({
        "date": "2026-02-03T00:00:00", "docnum": "AB/7", "sellername": "UAB „Ąžuolas“",
        "buyernameascii": "MB B: C", "sellercode": "111", "buyercode": COMPANY,
    });
    let note = archive.file(&delivery("a-1", parties.clone())).await;
    assert_eq!(
        note,
        "302320404/2026-02/Pirkimai/2026-02-03 AB_7 UAB „Ąžuolas“ a-1.json"
    );
    let mut sale = parties;
    (sale["sellercode"], sale["buyercode"]) = (COMPANY.into(), "111".into());
    let note = archive.file(&delivery("a-2", sale)).await;
    assert_eq!(
        note,
        "302320404/2026-02/Pardavimai/2026-02-03 AB_7 MB B_ C a-2.json"
    );
    let by_flag = json!({ "buyerisfavorite": true, "sellerisfavorite": false });
    let note = archive.file(&delivery("a-3", by_flag)).await;
    assert_eq!(
        note, "302320404/2026-01/Pirkimai/a-3.json",
        "the month of the version"
    );
    let mut odd = delivery("a-4", json!({ "date": "vasario 3 d.", "docnum": 12 }));
    odd.version = "x".to_owned();
    odd.stored_at = Timestamp::parse("2026-11-23T08:00:00Z").expect("a time");
    let note = archive.file(&odd).await;
    assert_eq!(note, "302320404/2026-11/Kiti/vasario 3 d 12 a-4.json");
    assert_eq!(archive.files().len(), 4);
}

/// Returns a document of the digitized queue, of which the buyer is ours, as the archiver sees it.
fn bought(id: &str, number: &str, url: &str) -> Delivery {
    let fields = json!({
        "date": "2026-02-03", "docnum": number, "sellernameascii": "MB B: C", "sellerisfavorite": false,
        "buyernameascii": "UAB Azuolas", "buyerisfavorite": true, "url": url,
    });
    Delivery {
        feed: Feed::digitized(ivesk_webhook::config::default_account()),
        ..delivery(id, fields)
    }
}

#[tokio::test]
async fn an_archive_of_the_archiver_goes_on_without_doubling() {
    in_own_process!(an_archive_of_the_archiver_goes_on_without_doubling);
    let captured = CapturedLog::new();
    let filing = async {
        let store = StandIn::start([]).await;
        let mut archive = Archive::at(&store.url("/api/pub"));
        archive.layout = FolderLayout::ArchiverNames;
        let file = async |id: &str, number: &str, pdf: &str| {
            store.then(Answer::ok(sample_pdf(pdf)));
            archive.file(&bought(id, number, &store.url("/f"))).await
        };
        // As archiver.js has filed them.
        let folder = "UAB Azuolas/2026-02/Pirkimai";
        std::fs::create_dir_all(archive.root().join(folder)).expect("a folder");
        let name = |number: &str| format!("{folder}/2026-02-03 {number} MB B: C");
        for (number, pdf) in [("AB_7", "one"), ("AB_8", "two")] {
            let path = archive.root().join(name(number) + ".pdf");
            std::fs::write(path, sample_pdf(pdf)).expect("a file");
        }
        let inode = |path: &str| {
            std::fs::metadata(archive.root().join(path))
                .expect("a file")
                .ino()
        };
        let before = inode(&(name("AB_7") + ".pdf"));

        // The same name and content: done.
        assert_eq!(file("a-1", "AB/7", "one").await, name("AB_7") + ".json");
        assert_eq!(inode(&(name("AB_7") + ".pdf")), before);
        assert_eq!(archive.hidden_files(), set([]));
        // The same name and other content: another name, and both files stay.
        assert_eq!(
            file("a-2", "AB|8", "other").await,
            name("AB_8") + " a-2.json"
        );
        assert_eq!(archive.read(&(name("AB_8") + ".pdf")), sample_pdf("two"));
        assert_eq!(
            archive.read(&(name("AB_8") + " a-2.pdf")),
            sample_pdf("other")
        );
        // Another document of the same name, even with the same content.
        assert_eq!(file("a-3", "AB/7", "one").await, name("AB_7") + " a-3.json");
        // Once more, as after a crash: nothing changes.
        let files = archive.files();
        for (id, number) in [("a-1", "AB/7"), ("a-2", "AB|8"), ("a-3", "AB/7")] {
            archive.file(&bought(id, number, &store.url("/f"))).await;
        }
        assert_eq!(archive.files(), files);
        assert_eq!(files.len(), 7, "{files:?}");

        // A newer version has the names of the older one.
        for (id, expected) in [("a-1", name("AB_7")), ("a-3", name("AB_7") + " a-3")] {
            store.then(Answer::ok(sample_pdf("newer")));
            let mut newer = bought(id, "AB/7", &store.url("/f"));
            newer.earlier_note = Some(format!("{expected}.json"));
            newer.body.push(b' ');
            assert_eq!(archive.file(&newer).await, expected.clone() + ".json");
            assert_eq!(archive.read(&(expected + ".pdf")), sample_pdf("newer"));
        }
        assert_eq!(archive.files(), files);
    };
    filing
        .with_subscriber(captured.subscriber(Level::WARN))
        .await;
    let log = captured.text();
    for (id, is_told) in [("a-1", false), ("a-2", true), ("a-3", true)] {
        let line = format!("document `{id}` is filed with its id in its name");
        assert_eq!(log.contains(&line), is_told, "{id}: {log}");
    }
}

#[tokio::test]
async fn the_files_of_another_document_are_left_alone() {
    let archive = Archive::of_json(FolderLayout::ArchiverNames);
    let (first, second) = (bought("a-1", "AB/7", ""), bought("a-2", "AB/7", ""));
    let note = archive.file(&first).await;
    // A program takes what is filed, and so the name is free.
    std::fs::remove_file(archive.root().join(&note)).expect("removed");
    assert_eq!(archive.file(&second).await, note);

    let mut newer = first;
    newer.earlier_note = Some(note.clone());
    newer.body.push(b' ');
    let own = note.replace(".json", " a-1.json");
    assert_eq!(archive.file(&newer).await, own);
    assert_eq!(archive.read(&note), second.body);

    // Both are erased, one after the other.
    let erase = async |id: &str, path: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, id.as_bytes());
        let digest = digest.as_ref().iter();
        let file = ErasedFile {
            path: path.to_owned(),
            document_digest: digest.map(|byte| format!("{byte:02x}")).collect(),
        };
        let removed = remove_files(&archive.settings(), vec![file], true).await;
        let removed = removed.expect("a folder");
        assert_eq!((removed.done.len(), removed.problem), (1, None));
        removed.files
    };
    assert_eq!(erase("a-1", &note).await, 0);
    assert_eq!(erase("a-1", &own).await, 1);
    assert_eq!(archive.files(), set([&note]));
    assert_eq!(erase("a-2", &note).await, 1);
    assert_eq!(archive.files(), set([]));
}

#[tokio::test]
async fn what_the_archiver_can_not_name_has_the_names_of_its_layout() {
    let archive = Archive::of_json(FolderLayout::ArchiverNames);
    let with = |id: &str, name: &str, value: Value| {
        let mut document = bought(id, "AB/7", "");
        let mut fields: Value = serde_json::from_slice(&document.body).expect("JSON");
        fields[name] = value;
        document.body = fields.to_string().into_bytes();
        document
    };
    for (name, value, expected) in [
        (
            "buyerisfavorite",
            json!(false),
            "digitized/2026-02/Kiti/2026-02-03 AB_7 MB B_ C",
        ),
        (
            "sellernameascii",
            json!("../../x"),
            "digitized/2026-02/Pirkimai/2026-02-03 AB_7 _._.._x",
        ),
        (
            "sellernameascii",
            json!("a\nb"),
            "digitized/2026-02/Pirkimai/2026-02-03 AB_7 ab",
        ),
        (
            "buyernameascii",
            json!(".files"),
            "digitized/2026-02/Pirkimai/2026-02-03 AB_7 MB B_ C",
        ),
        (
            "docnum",
            Value::Null,
            "digitized/2026-02/Pirkimai/2026-02-03 MB B_ C",
        ),
        (
            "date",
            Value::Null,
            "digitized/2026-01/Pirkimai/AB_7 MB B_ C",
        ),
    ] {
        let note = archive.file(&with("a-1", name, value)).await;
        assert_eq!(note, format!("{expected} a-1.json"), "{name}");
    }
    // Both parties are ours: two files, as of the archiver.
    let note = archive
        .file(&with("a-2", "sellerisfavorite", json!(true)))
        .await;
    assert_eq!(
        note,
        "MB B: C/2026-02/Pardavimai/2026-02-03 AB_7 UAB Azuolas.json\n\
         UAB Azuolas/2026-02/Pirkimai/2026-02-03 AB_7 MB B: C.json"
    );
    // The longest name is one that the id still fits behind.
    let long = "x".repeat(229);
    let note = archive
        .file(&with("a-3", "sellernameascii", json!(long)))
        .await;
    assert_eq!(
        note,
        format!("UAB Azuolas/2026-02/Pirkimai/2026-02-03 AB_7 {long}.json")
    );
    let note = archive
        .file(&with("a-4", "sellernameascii", json!(long)))
        .await;
    assert!(
        note.ends_with("x a-4.json") && !note.contains(&long),
        "{note}"
    );
}

#[tokio::test]
async fn half_a_pdf_is_not_filed() {
    let whole = [sample_pdf("x"), vec![b' '; 2_000], sample_pdf("x")].concat();
    let half = whole[..whole.len() - 20].to_vec();
    assert!(half.starts_with(b"%PDF-") && half.windows(5).any(|part| part == b"%%EOF"));
    // An answer that does not tell its length.
    let in_parts = || {
        let parts = [Ok::<_, std::io::Error>(half.clone())];
        Answer::ok(Body::from_stream(stream::iter(parts)))
    };
    let answers = [
        in_parts(),
        Answer::ok(whole.clone()),
        in_parts(),
        Answer::ok(half.clone()),
    ];
    let store = StandIn::start(answers).await;
    let archive = Archive::at(&store.url("/api/pub"));
    let mut document = delivery("a-1", json!({ "url": store.url("/f") }));
    assert_eq!(
        archive.deliver(&document).await,
        DestinationResponse::LinkExpired
    );
    assert_eq!(
        (archive.files(), archive.hidden_files()),
        (set([]), set([]))
    );
    archive.file(&document).await;
    assert_eq!(archive.read("302320404/a-1.pdf"), whole);
    // A new link has brought no other file; and the host says that it is whole, so a new one could not.
    for (id, link_tries) in [("a-2", 1), ("a-3", 0)] {
        document.document_id = id.to_owned();
        document.link_tries = link_tries;
        archive.file(&document).await;
        let note = archive.read(&format!("302320404/{id}.nopdf.txt"));
        let note = String::from_utf8(note).expect("text");
        assert!(note.contains("cut off") && note.contains("%%EOF"), "{note}");
    }
}

#[tokio::test]
async fn a_digitized_document_is_filed_for_each_of_our_companies() {
    let archive = Archive::of_json(FolderLayout::Archiver);
    let digitized = |id: &str, fields: Value| Delivery {
        feed: Feed::digitized(ivesk_webhook::config::default_account()),
        ..delivery(id, fields)
    };
    let both = json!({
        "date": "2026-02-03", "sellerisfavorite": true, "sellercode": "111",
        "buyerisfavorite": true, "buyercode": "222",
    });
    let note = archive.file(&digitized("a-1", both)).await;
    assert_eq!(
        note,
        "111/2026-02/Pardavimai/2026-02-03 222 a-1.json\n222/2026-02/Pirkimai/2026-02-03 111 a-1.json"
    );
    let note = archive
        .file(&digitized("a-2", json!({ "date": "2026-02-03" })))
        .await;
    assert_eq!(note, "digitized/2026-02/Kiti/2026-02-03 a-2.json");
    assert_eq!(archive.files().len(), 3);
}

#[tokio::test]
async fn equal_numbers_and_similar_ids_get_files_of_their_own() {
    for layout in [FolderLayout::Company, FolderLayout::Archiver] {
        let archive = Archive::of_json(layout);
        let destination = archive.destination();
        let ids = [
            "a/b",
            "a_b",
            "A_b",
            "a:b",
            "a_b.",
            "..",
            "con",
            "ąč",
            &"ž".repeat(100),
        ];
        for id in ids {
            let fields = json!({ "docnum": "7", "date": "2026-02-03", "sellername": "X" });
            delivered(destination.deliver(&delivery(id, fields)).await);
        }
        assert_eq!(archive.files().len(), ids.len(), "{:?}", archive.files());
    }
}

#[tokio::test]
async fn accounts_get_folders_of_their_own() {
    let mut archive = Archive::of_json(FolderLayout::Company);
    let account = archive
        .config
        .accounts
        .values()
        .next()
        .expect("one")
        .clone();
    archive.config.accounts.insert(other_account(), account);
    let mine = delivery("a-1", json!({ "of": "mine" }));
    let mut theirs = delivery("a-1", json!({ "of": "theirs" }));
    theirs.feed.account = other_account();
    archive.file(&mine).await;
    archive.file(&theirs).await;
    assert_eq!(
        archive.files(),
        set(["default/302320404/a-1.json", "other/302320404/a-1.json"])
    );
}

#[tokio::test]
async fn a_retry_after_a_crash_completes_pdf_and_json() {
    let scene = Scene::new("").await;
    let archive = &scene.archive;
    let document = scene.exported().await;
    let note = archive.file(&document).await;
    let json = archive.root().join(&note);
    // A crash leaves the PDF in its place, no JSON, and a temporary file.
    std::fs::remove_file(&json).expect("removed");
    std::fs::write(archive.root().join(".files/tmp/0af1"), "%PDF-half").expect("written");
    assert_eq!(archive.file(&document).await, note);
    assert_eq!(std::fs::read(&json).expect("there"), document.body);
    assert_eq!(
        archive.hidden_files().len(),
        2,
        "a recent temporary file may belong to another process"
    );
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 86_400);
    let leftover = std::fs::File::options()
        .write(true)
        .open(archive.root().join(".files/tmp/0af1"));
    leftover
        .expect("there")
        .set_modified(long_ago)
        .expect("set");
    drop(archive.destination());
    assert_eq!(archive.hidden_files().len(), 1);
}

#[tokio::test]
async fn the_json_is_written_last() {
    let scene = Scene::new("").await;
    let archive = &scene.archive;
    let document = scene.exported().await;
    let note = archive.file(&document).await;
    let json = archive.root().join(&note);
    for name in archive.files() {
        std::fs::remove_file(archive.root().join(name)).expect("removed");
    }
    // No file can be renamed onto a folder that is not empty.
    std::fs::create_dir_all(json.join("in the way")).expect("created");
    unavailable(archive.deliver(&document).await);
    let pdf = json.with_extension("pdf");
    assert!(pdf.is_file(), "{:?}", archive.files());
    std::fs::remove_dir_all(&json).expect("removed");
    archive.file(&document).await;
    assert_eq!(archive.files().len(), 2);
}

#[tokio::test]
async fn a_newer_version_replaces_the_older_one_wherever_it_is() {
    let store = StandIn::start([]).await;
    let mut archive = Archive::at(&store.url("/api/pub"));
    archive.layout = FolderLayout::Archiver;
    let file = |number: &str, pdf: &str, earlier: Option<String>| {
        store.then(Answer::ok(sample_pdf(pdf)));
        let fields = json!({
            "docnum": number, "date": "2026-02-03", "buyercode": COMPANY, "url": store.url("/f"),
        });
        Delivery {
            earlier_note: earlier,
            ..delivery("a-1", fields)
        }
    };
    let first = archive.file(&file("7", "one", None)).await;
    // Another document has the same PDF and keeps it.
    let neighbor = Delivery {
        document_id: "a-2".to_owned(),
        ..file("9", "one", None)
    };
    archive.file(&neighbor).await;
    assert_eq!(archive.hidden_files().len(), 1);

    let second = archive.file(&file("8", "two", Some(first.clone()))).await;
    assert_ne!(first, second);
    let files = archive.files();
    assert_eq!(files.len(), 4, "{files:?}");
    assert!(!files.contains(&first) && files.contains(&second));
    assert_eq!(archive.hidden_files().len(), 2);

    // In the same place; the PDF that no document uses is removed.
    let changed = file("8", "three", Some(second.clone()));
    let changed = Delivery {
        body: [&changed.body[..], b" "].concat(),
        ..changed
    };
    assert_eq!(archive.file(&changed).await, second);
    assert_eq!(archive.read(&second), changed.body);
    let pdf = second.replace(".json", ".pdf");
    assert_eq!(archive.read(&pdf), sample_pdf("three"));
    assert_eq!(
        (archive.files().len(), archive.hidden_files().len()),
        (4, 2)
    );
}

#[tokio::test]
async fn an_earlier_pdf_stays_if_no_new_one_can_be_fetched() {
    let store = StandIn::start([Answer::ok(sample_pdf("one")), Answer::ok("<html>")]).await;
    let archive = Archive::at(&store.url("/api/pub"));
    let first = delivery("a-1", json!({ "url": store.url("/f") }));
    archive.file(&first).await;
    let second = delivery("a-1", json!({ "url": store.url("/f"), "total": 1 }));
    archive.file(&second).await;
    let files = [
        "302320404/a-1.json",
        "302320404/a-1.nopdf.txt",
        "302320404/a-1.pdf",
    ];
    assert_eq!(archive.files(), set(files));
    assert_eq!(archive.read(files[0]), second.body);
}

#[tokio::test]
async fn nothing_outside_the_folder_is_ever_removed() {
    let archive = Archive::of_json(FolderLayout::Company);
    drop(archive.destination());
    let outside = archive.folder.path().join("outside");
    std::fs::create_dir(&outside).expect("created");
    std::fs::write(outside.join("x.json"), "kept").expect("written");
    std::fs::write(archive.root().join(".files/x.json"), "kept").expect("written");
    std::os::unix::fs::symlink(&outside, archive.root().join("link")).expect("created");
    let absolute = outside.join("x.json");
    for note in [
        "../outside/x.json",
        "a/../../outside/x.json",
        "link/x.json",
        ".files/x.json",
        absolute.to_str().expect("text"),
        "missing/x.json",
        "",
        "\n\n",
    ] {
        let document = Delivery {
            earlier_note: Some(note.to_owned()),
            ..delivery("a-1", json!({}))
        };
        archive.file(&document).await;
        assert!(absolute.exists(), "{note}");
        assert!(archive.root().join(".files/x.json").exists(), "{note}");
    }
}

#[tokio::test]
async fn a_pipe_in_the_place_of_a_file_is_replaced_not_waited_for() {
    let archive = Archive::of_json(FolderLayout::Company);
    let pipe = archive.root().join("302320404/a-1.json");
    std::fs::create_dir_all(pipe.parent().expect("a folder")).expect("created");
    make_pipe(&pipe);
    let document = delivery("a-1", json!({}));
    archive.file(&document).await;
    assert_eq!(archive.read("302320404/a-1.json"), document.body);
}

#[tokio::test]
async fn of_documents_that_are_filed_at_once_only_the_bad_one_fails() {
    let archive = Archive::of_json(FolderLayout::Company);
    let destination = archive.destination();
    // Nothing can be written below a file.
    std::fs::write(archive.root().join("40000000"), "a file").expect("written");
    let companies = [COMPANY, "40000000", "50000000"];
    let document = |number: usize| {
        let company = Company::parse(companies[number % 3]).expect("a code");
        let mut document = delivery(&format!("a-{number}"), json!({ "number": number }));
        document.feed.company = company;
        document
    };
    let documents: Vec<Delivery> = (0..60).map(document).collect();
    let all = documents.iter().map(|one| destination.deliver(one));
    for (one, response) in documents.iter().zip(join_all(all).await) {
        if one.feed.company.as_str() == companies[1] {
            unavailable(response);
            continue;
        }
        let note = delivered(response).expect("a note");
        assert_eq!(archive.read(&note), one.body, "{note}");
    }
    assert!(archive.hidden_files().is_empty());
    // Once more, as after a crash that forgot the outcomes.
    let again = join_all(documents.iter().map(|one| destination.deliver(one))).await;
    let filed = again
        .iter()
        .filter(|one| matches!(one, DestinationResponse::Accepted { .. }));
    assert_eq!((filed.count(), archive.files().len()), (40, 41));
}

#[tokio::test]
async fn nothing_is_written_through_a_link_in_the_folder() {
    use std::os::unix::fs::symlink;

    let store = StandIn::start([Answer::ok(sample_pdf("one"))]).await;
    let archive = Archive::at(&store.url("/api/pub"));
    let document = delivery("a-1", json!({ "url": store.url("/f") }));
    drop(archive.destination());
    let outside = archive.folder.path().join("outside");
    std::fs::create_dir(&outside).expect("created");

    // A company's folder.
    symlink(&outside, archive.root().join(COMPANY)).expect("linked");
    let (error, _) = unavailable(archive.deliver(&document).await);
    assert!(error.contains("no link is followed"), "{error}");
    std::fs::remove_file(archive.root().join(COMPANY)).expect("removed");

    // The folders of this service's own files.
    for own in [".files/tmp", ".files"] {
        let own = archive.root().join(own);
        let destination = archive.destination();
        std::fs::rename(&own, archive.folder.path().join("aside")).expect("moved");
        symlink(&outside, &own).expect("linked");
        let (error, _) = unavailable(destination.deliver(&document).await);
        assert!(error.contains("no link is followed"), "{error}");
        let reopened = try_open(&archive.settings(), &archive.config, &[]).err();
        assert!(reopened.is_some(), "a start fails too");
        std::fs::remove_file(&own).expect("removed");
        std::fs::rename(archive.folder.path().join("aside"), &own).expect("moved");
    }
    assert_eq!(names_below(&outside), set([]));

    // The names of the files themselves, which lead to files of somebody else.
    let folder = archive.root().join(COMPANY);
    std::fs::create_dir(&folder).expect("created");
    for ending in ["json", "pdf", "nopdf.txt"] {
        std::fs::write(outside.join(ending), document.body.clone()).expect("written");
        symlink(outside.join(ending), folder.join(format!("a-1.{ending}"))).expect("linked");
    }
    archive.file(&document).await;
    for name in ["a-1.json", "a-1.pdf"] {
        assert!(
            folder
                .join(name)
                .symlink_metadata()
                .expect("filed")
                .is_file()
        );
    }
    for ending in ["json", "pdf", "nopdf.txt"] {
        let kept = std::fs::read(outside.join(ending)).expect("not removed");
        assert_eq!(kept, document.body, "{ending}");
    }
}

#[tokio::test]
async fn the_permissions_of_what_is_filed_are_those_of_the_settings() {
    use std::os::unix::fs::PermissionsExt as _;

    for (mode, of_folders) in [("0600", 0o700), ("0640", 0o750), ("0664", 0o775)] {
        let store = StandIn::start([Answer::ok(sample_pdf("one")), Answer::ok("<html>")]).await;
        let mut archive = Archive::at(&store.url("/api/pub"));
        archive.file_mode = FileMode::parse(mode).expect("permissions");
        for id in ["a-1", "a-2"] {
            archive
                .file(&delivery(id, json!({ "url": store.url("/f") })))
                .await;
        }
        let of_files = u32::from_str_radix(mode, 8).expect("octal");
        let found = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o7777;
        assert_eq!(archive.files().len(), 4);
        for name in archive.files() {
            assert_eq!(found(&archive.root().join(&name)), of_files, "{name}");
        }
        for folder in [archive.root(), archive.root().join(COMPANY)] {
            assert_eq!(found(&folder), of_folders, "{}", folder.display());
        }
        assert_eq!(found(&archive.root().join(".files")), 0o700);
    }
}

#[tokio::test]
async fn an_unusable_folder_is_reported() {
    let archive = Archive::of_json(FolderLayout::Company);
    std::fs::write(archive.root(), "a file").expect("written");
    let error = try_open(&archive.settings(), &archive.config, &[]).err();
    let error = error.expect("no folder").to_string();
    assert!(error.contains("archive"), "{error}");

    std::fs::remove_file(archive.root()).expect("removed");
    let destination = archive.destination();
    delivered(destination.deliver(&delivery("a-1", json!({}))).await);
    // As if its disk were not mounted.
    std::fs::remove_dir_all(archive.root()).expect("removed");
    std::fs::create_dir(archive.root()).expect("created");
    let (error, _) = unavailable(destination.deliver(&delivery("a-2", json!({}))).await);
    assert!(error.contains("is its disk mounted?"), "{error}");
    assert_eq!(archive.files(), set([]));
}

/// Generates hostile texts, such as a seller may write.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[./\\\\:~ -]{0,12}",
        "(?i)(con|nul|aux|com1|lpt9)[ .]{0,3}[a-z]{0,3}",
        "[ąčęėįšųūž“„ .]{0,300}",
        "(\\.\\./){1,8}etc/passwd",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_name_of_the_archiver_stays_in_the_folder(
        number in text(), seller in text(), buyer in text(), date in text(), sold in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let archive = Archive::of_json(FolderLayout::ArchiverNames);
        let fields = json!({
            "docnum": number, "date": date, "sellernameascii": seller, "buyernameascii": buyer,
            "sellerisfavorite": sold, "buyerisfavorite": !sold,
        });
        let note = runtime.expect("a runtime").block_on(archive.file(&delivery("a-1", fields)));
        prop_assert_eq!(archive.files(), BTreeSet::from([note.clone()]));
        prop_assert_eq!(names_below(archive.folder.path()).len(), 1);
        prop_assert_eq!(note.split('/').count(), 4);
    }

    #[test]
    fn any_sellers_name_stays_in_the_folder_and_ends_with_the_id(
        number in text(), seller in text(), date in text(), company in text(),
        id in "[^\\p{Cc}]{1,50}", archiver in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let layout = if archiver { FolderLayout::Archiver } else { FolderLayout::Company };
        let archive = Archive::of_json(layout);
        let fields = json!({ "docnum": number, "sellername": seller, "date": date });
        let mut document = delivery(&id, fields);
        if let Ok(company) = Company::parse(&company) {
            document.feed.company = company;
        }
        let note = runtime.expect("a runtime").block_on(archive.file(&document));
        prop_assert_eq!(archive.files(), BTreeSet::from([note.clone()]));
        prop_assert_eq!(names_below(archive.folder.path()).len(), 1);
        let ending = format!("{}.json", identity(&id));
        prop_assert!(note.ends_with(&ending), "{} {}", note, ending);
        let depth = if archiver { 4 } else { 2 };
        prop_assert_eq!(note.split('/').count(), depth);
        prop_assert!(note.split('/').all(|name| name.len() <= 255));
    }
}

#[tokio::test]
async fn a_document_is_written_by_one_attempt_at_a_time() {
    let store = StandIn::start([Answer::ok(sample_pdf("one"))]).await;
    let archive = Archive::at(&store.url("/api/pub"));
    let destination = archive.destination();
    // Reading the earlier PDF has no end before the test gives it one, as with a disk that hangs.
    let earlier = archive.root().join("302320404/a-1.pdf");
    std::fs::create_dir(earlier.parent().expect("a folder")).expect("created");
    let earlier = std::fs::File::create(earlier).expect("created");
    earlier.set_len(1 << 40).expect("a file with a hole");

    let (one, two) = (
        delivery("a-1", json!({ "url": store.url("/f") })),
        delivery("a-1", json!({ "total": 2 })),
    );
    let neighbor = delivery("a-2", json!({}));
    let mut first = destination.deliver(&one);
    let others = async {
        (
            destination.deliver(&two).await,
            destination.deliver(&neighbor).await,
        )
    };
    let (second, third) = tokio::select! {
        biased;
        response = &mut first => panic!("{response:?}"),
        others = others => others,
    };
    // Before any assertion: the reading thread would keep a failed test from ending.
    earlier.set_len(0).expect("the end");
    delivered(within("the first attempt", first).await);
    let (error, _) = unavailable(second);
    assert!(error.contains("still writing"), "{error}");
    delivered(third);
    delivered(destination.deliver(&two).await);
    assert_eq!(archive.read("302320404/a-1.json"), two.body);
}

#[tokio::test]
async fn equal_documents_delivered_at_once_share_one_file() {
    const COUNT: usize = 16;
    let answers = (0..COUNT).map(|_| Answer::ok(sample_pdf("x")));
    let store = StandIn::start(answers).await;
    let archive = Archive::at(&store.url("/api/pub"));
    let destination = archive.destination();
    let documents: Vec<Delivery> = (0..COUNT)
        .map(|number| delivery(&format!("a-{number}"), json!({ "url": store.url("/f") })))
        .collect();
    let responses = documents
        .iter()
        .map(|document| destination.deliver(document));
    for response in within("all responses", futures_util::future::join_all(responses)).await {
        delivered(response);
    }
    assert_eq!(archive.files().len(), 2 * COUNT);
    assert_eq!(archive.hidden_files().len(), 1);
    for name in archive.files().iter().filter(|name| name.ends_with(".pdf")) {
        assert_eq!(archive.read(name), sample_pdf("x"), "{name}");
    }
}

#[tokio::test]
async fn a_hanging_file_host_is_bounded_by_the_timeout() {
    // It accepts connections but never reads.
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.expect("a port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    let archive = Archive::at(&format!("{origin}/api/pub"));
    let settings = DestinationConfig {
        timeout: Duration::from_millis(300),
        ..archive.settings()
    };
    let destination = try_open(&settings, &archive.config, &[]).expect("a destination");
    let document = delivery("a-1", json!({ "url": format!("{origin}/f") }));
    unavailable(within("a response", destination.deliver(&document)).await);
    assert_eq!(
        (archive.files(), archive.hidden_files()),
        (set([]), set([]))
    );
}

#[test]
fn a_list_destination_is_sent_nothing() {
    let destination = DestinationConfig::of(DestinationKind::List);
    let name = DestinationName::parse("reports").expect("a name");
    let clock = Clock::system();
    let opened = open(
        &name,
        &destination,
        &config(VENDOR_API),
        &BTreeMap::new(),
        &clock,
    );
    assert!(opened.expect("nothing to open").is_none());
}

#[tokio::test]
async fn no_log_line_holds_a_link_or_a_document() {
    in_own_process!(no_log_line_holds_a_link_or_a_document);
    let captured = CapturedLog::new();
    // A document without its file, and a destination that fails.
    let deliveries = async {
        let answers = [Answer::ok("planted"), Answer::status(500, "planted")];
        let store = StandIn::start(answers).await;
        let archive = Archive::at(&store.url("/api/pub"));
        let document = delivery(
            "a-1",
            json!({ "url": store.url("/f?Signature=planted"), "sellername": "planted" }),
        );
        archive.file(&document).await;
        let kind = DestinationKind::Http {
            url: store.url("/in?key=planted").parse().expect("an address"),
            secrets: vec!["whsec_cGxhbnRlZHBsYW50ZWRwbGFudGVkcGxhbnRlZA==".into()],
        };
        let posting = try_open(&destination_config(kind, AMPLE), &archive.config, &[])
            .expect("a destination");
        unavailable(posting.deliver(&document).await);
        format!("{document:?} {:?}", archive.settings())
    };
    let shown = deliveries
        .with_subscriber(captured.subscriber(Level::TRACE))
        .await;
    let log = captured.text();
    assert!(log.contains("without its PDF"), "{log}");
    for text in [log, shown] {
        let line = text.lines().find(|line| line.contains("planted"));
        assert_eq!(line, None);
    }
}
