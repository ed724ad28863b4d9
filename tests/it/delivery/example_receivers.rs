//! The receivers in `examples/receivers/`, behind their destinations.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use ivesk_webhook::config::DestinationKind;
use ivesk_webhook::delivery::{Delivery, Destination};
use ivesk_webhook::domain::Company;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::support::destinations::{
    AMPLE, COMPANY, VENDOR_API, config, delivered, delivery, destination_config, rejected,
    try_open, unavailable,
};
use crate::support::process::within;
use crate::support::python::python_with;

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const OTHER: &str = "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/receivers")
        .join(name)
}

fn open_destination(kind: DestinationKind) -> Box<dyn Destination> {
    let api = config(VENDOR_API);
    let path = std::env::var("PATH").expect("a path");
    try_open(&destination_config(kind, AMPLE), &api, &[("PATH", &path)]).expect("a destination")
}

fn of_company(code: &str, mut delivery: Delivery) -> Delivery {
    delivery.feed.company = Company::parse(code).expect("a code");
    delivery
}

/// Returns a later version of a document.
fn next_version(delivery: &Delivery) -> Delivery {
    Delivery {
        version: "2026-02-01T00:00:00.000Z".to_owned(),
        sequence: delivery.sequence + 1,
        ..delivery.clone()
    }
}

/// The Flask receiver.
struct Receiver {
    _process: Child,
    address: String,
    books: PathBuf,
    _folder: tempfile::TempDir,
}

impl Receiver {
    async fn start(python: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let books = folder.path().join("books.db");
        let mut process = Command::new(python)
            .args(["-m", "flask", "--app"])
            .arg(example("flask_receiver.py"))
            .args(["run", "--port", "0"])
            .env("IVESK_SECRETS", format!("{OTHER} {SECRET}"))
            .env("BOOKS", &books)
            .env("COMPANIES", format!("1,{COMPANY}"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Python runs");
        let mut lines = BufReader::new(process.stderr.take().expect("piped")).lines();
        let address = within("its address", async {
            loop {
                let line = lines.next_line().await.expect("text");
                let line = line.expect("it still runs");
                if let Some((_, address)) = line.split_once("Running on ") {
                    return address.trim().to_owned();
                }
            }
        });
        let address = address.await;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            _process: process,
            address,
            books,
            _folder: folder,
        }
    }

    fn destination(&self, secrets: &[&str]) -> Box<dyn Destination> {
        let url = format!("{}/ivesk", self.address);
        open_destination(DestinationKind::Http {
            url: url.parse().expect("an address"),
            secrets: secrets.iter().map(|secret| (*secret).into()).collect(),
        })
    }

    /// Returns the keys in its books, in order.
    fn booked(&self) -> Vec<String> {
        let books = rusqlite::Connection::open(&self.books).expect("books");
        let mut rows = books
            .prepare("SELECT key FROM booked ORDER BY rowid")
            .expect("a table");
        let keys = rows.query_map([], |row| row.get(0)).expect("rows");
        keys.collect::<Result<_, _>>().expect("keys")
    }
}

#[tokio::test]
async fn the_flask_receiver_books_once_and_rejects_with_a_message() {
    let Some(python) = python_with("receivers", &example("requirements.txt")) else {
        return;
    };
    let receiver = within("a start", Receiver::start(&python)).await;
    let destination = receiver.destination(&[SECRET]);
    let first = delivery("a-1", json!({ "docnum": "Ąž 1" }));
    let second = next_version(&first);
    for document in [&first, &first, &second, &first] {
        delivered(within("a response", destination.deliver(document)).await);
    }
    assert_eq!(receiver.booked(), [first.key(), second.key()]);

    let foreign = of_company("999", delivery("a-2", json!({})));
    let message = rejected(within("a response", destination.deliver(&foreign)).await);
    assert_eq!(message, "Įmonės 999 apskaita čia netvarkoma");
    assert_eq!(receiver.booked().len(), 2);

    // During a change of the secret, one known signature is enough.
    let stranger = "whsec_c3RyYW5nZXJzdHJhbmdlcnN0cmFuZ2Vyc3RyYW5nZXI=";
    let changing = receiver.destination(&[stranger, OTHER]);
    delivered(within("a response", changing.deliver(&delivery("a-3", json!({})))).await);
    let unknown = receiver.destination(&[stranger]);
    let response = within("a response", unknown.deliver(&delivery("a-4", json!({})))).await;
    let (error, _) = unavailable(response);
    assert!(error.contains("401"), "{error}");
    assert_eq!(receiver.booked().len(), 3);
}

#[tokio::test]
async fn the_shell_script_files_once_and_rejects_with_a_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = folder.path().join("in a box").join(COMPANY);
    std::fs::create_dir_all(&ours).expect("created");
    let destination_into = |folder: PathBuf| {
        open_destination(DestinationKind::Command {
            program: example("file_into_folder.sh"),
            arguments: vec![folder.to_str().expect("text").to_owned()],
            environment: Vec::new(),
            folder: std::env::temp_dir(),
        })
    };
    let destination = destination_into(folder.path().join("in a box"));
    let first = delivery("../a 1", json!({ "docnum": "$(rm -rf /)" }));
    let second = next_version(&first);
    for document in [&first, &first, &second] {
        delivered(within("a response", destination.deliver(document)).await);
    }
    let mut files: Vec<String> = std::fs::read_dir(&ours)
        .expect("a folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    files.sort();
    let mut expected = [&first, &second].map(|document| format!("{}.json", document.key()));
    expected.sort();
    assert_eq!(files, expected);
    let written = std::fs::read(ours.join(format!("{}.json", first.key()))).expect("written");
    let json = first.to_json().expect("JSON");
    assert_eq!(written, [&json[..], b"\n"].concat());

    for (code, part) in [("999", "netvarkoma"), ("../..", "netinkamas")] {
        let foreign = of_company(code, delivery("a-2", json!({})));
        let message = rejected(within("a response", destination.deliver(&foreign)).await);
        assert!(
            message.contains(code) && message.contains(part),
            "{message}"
        );
    }
    let missing = destination_into(folder.path().join("missing"));
    let (error, _) = unavailable(within("a response", missing.deliver(&first)).await);
    assert!(
        error.contains("75") && error.contains("is its disk mounted?"),
        "{error}"
    );
}
