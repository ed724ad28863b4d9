//! SIGTERM, a full disk and a damaged file.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ivesk_webhook::domain::{Clock, Event};
use ivesk_webhook::emulator::signer::{SNS_NAME, Signer, Unsigned};
use ivesk_webhook::emulator::{
    Control, DEFAULT_COMPANIES, Emulator, EmulatorSettings, Outcome, Publication, Switches,
};
use ivesk_webhook::sns::MessageType;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::checker::{Sent, Stored, broken_promises};
use crate::support::databases::open_file_for_reading;
use crate::support::emulator::{emulator, emulator_with};
use crate::support::process::{Installation, until_closed, within};

#[cfg(target_os = "linux")]
use crate::support::small_disk::SmallDisk;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Starts an emulator with a signer that the test shares.
async fn emulator_and_signer(switches: &str) -> (Emulator, Arc<Signer>) {
    let now = Clock::system().now();
    let signer = Signer::generate(SNS_NAME, now.before(DAY), now.after(DAY));
    let signer = Arc::new(signer.expect("a certificate"));
    let settings = EmulatorSettings {
        switches: Switches::parse(switches).expect("switches that exist"),
        signer: Some(Arc::clone(&signer)),
        ..EmulatorSettings::default()
    };
    (emulator_with(settings).await, signer)
}

/// A genuine request whose last byte is not sent yet.
struct UnfinishedRequest {
    connection: TcpStream,
    last: Vec<u8>,
    message_id: String,
}

impl UnfinishedRequest {
    /// Sends all but the last byte, once the server reads the body.
    async fn begin(control: &Control, signer: &Signer, port: u16) -> Self {
        let topic = "arn:aws:sns:eu-west-1:007272210889:DPWebHook_onexport";
        let message = Unsigned {
            message_type: MessageType::Notification,
            message_id: "5f2e1d0c-0000-4000-8000-00000000abcd".to_owned(),
            topic_arn: topic.to_owned(),
            subject: None,
            message: "{\"companyCode\":\"302320404\"}".to_owned(),
            timestamp: Clock::system().now().to_string(),
            token: None,
            subscribe_url: None,
            unsubscribe_url: None,
            attributes: serde_json::Map::new(),
        };
        let mut body = signer
            .sign(&message, 1, &control.certificate_url())
            .into_bytes();
        let length = body.len();
        let last = body.split_off(length - 1);
        let mut connection = TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("it listens");
        // The server answers 100 when it begins to read the body.
        let head = format!(
            "POST /webhooks/default/on_exported HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = [0; 25];
        within("100 Continue", connection.read_exact(&mut answer))
            .await
            .expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
        connection.write_all(&body).await.expect("sent");
        Self {
            connection,
            last,
            message_id: message.message_id,
        }
    }

    /// Sends the last byte; returns the status line.
    async fn finish(mut self) -> String {
        self.connection.write_all(&self.last).await.expect("sent");
        let mut answer = String::new();
        within("the answer", self.connection.read_to_string(&mut answer))
            .await
            .expect("an answer");
        answer.lines().next().unwrap_or_default().to_owned()
    }
}

fn publish(control: &Control, count: usize) {
    for number in 0..count {
        let company = DEFAULT_COMPANIES[number % DEFAULT_COMPANIES.len()];
        let publication = Publication::exported(company);
        control.notify(&publication).expect("the account exists");
    }
}

async fn stored(installation: &Installation) -> Stored {
    let store = installation.read_store().await;
    let stored = Stored::all(store.as_ref()).await;
    store.close().await.expect("it closes");
    stored
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_answers_requests_in_flight() {
    let (emulator, signer) = emulator_and_signer("time_scale=0.01").await;
    let control = emulator.control();
    // Longer than any wait of the test, so that it does not end the process.
    let installation = Installation::beside(&emulator, "drain_timeout = \"10m\"", "");
    let server = installation.start().await;
    installation.subscribe(&control, &[Event::OnExported]).await;
    publish(&control, 300);
    let some = control.attempts_reached(|totals| totals.acknowledged >= 50);
    within("acknowledgements", some).await;
    let unfinished = UnfinishedRequest::begin(&control, &signer, installation.public_port()).await;

    server.terminate();
    until_closed(installation.public_port()).await;
    let message_id = unfinished.message_id.clone();
    let status_line = unfinished.finish().await;
    let (status, log) = server.exited().await;

    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(status_line, "HTTP/1.1 200 OK", "{log}");
    let mut messages = Sent::messages(&control);
    messages.insert((Event::OnExported, message_id), true);
    let stored = stored(&installation).await;
    let broken = broken_promises(&messages, &BTreeSet::new(), &stored);
    assert!(broken.is_empty(), "{broken:#?}\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigterm_stops_at_once_and_loses_nothing() {
    let (emulator, signer) = emulator_and_signer("time_scale=0.01").await;
    let control = emulator.control();
    let installation = Installation::beside(&emulator, "drain_timeout = \"10m\"", "");
    let mut server = installation.start().await;
    installation.subscribe(&control, &[Event::OnExported]).await;
    publish(&control, 100);
    let some = control.attempts_reached(|totals| totals.acknowledged >= 50);
    within("acknowledgements", some).await;
    let unfinished = UnfinishedRequest::begin(&control, &signer, installation.public_port()).await;

    server.terminate();
    until_closed(installation.public_port()).await;
    // Repeated signals within the first half second count as one.
    within("the exit", async {
        while !server.exits_within(Duration::from_millis(100)).await {
            server.terminate();
        }
    })
    .await;
    let (status, log) = server.exited().await;

    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("stopped at once by a second signal"), "{log}");
    drop(unfinished);
    let messages = Sent::messages(&control);
    let broken = broken_promises(&messages, &BTreeSet::new(), &stored(&installation).await);
    assert!(broken.is_empty(), "{broken:#?}\n{log}");
}

/// Returns the size of the store's largest file.
fn largest_file(installation: &Installation) -> u64 {
    let files = std::fs::read_dir(installation.folder()).expect("a folder");
    files
        .map(|file| file.and_then(|file| file.metadata()).expect("a file").len())
        .max()
        .unwrap_or(0)
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_for_the_store_messages_get_503_until_there_is() {
    let emulator = emulator("time_scale=0.02").await;
    let control = emulator.control();
    let installation = Installation::beside(&emulator, "", "[store]\nmin_free_bytes = 0");
    let mut server = installation.spawn_with_file_limits();
    server.ready().await;
    installation.subscribe(&control, &[Event::OnExported]).await;
    publish(&control, 20);
    within("the first messages", control.idle()).await;

    let before = getrlimit(Resource::Fsize);
    let limit = Rlimit {
        current: Some(largest_file(&installation) + 16 * 1024),
        maximum: before.maximum,
    };
    prlimit(Some(server.pid()), Resource::Fsize, limit).expect("it is our child");
    for _ in 0..5 {
        let large = Publication::new(Event::OnExported, "x".repeat(100_000));
        control.notify(&large).expect("the account exists");
    }
    publish(&control, 20);
    let refused = control.attempts_reached(|totals| totals.failed >= 5);
    within("refusals", refused).await;
    let stored_so_far = stored(&installation).await;
    let messages = Sent::messages(&control);
    // Messages may have arrived since the store was read.
    assert!(
        stored_so_far
            .notifications
            .iter()
            .all(|message| messages.contains_key(message))
    );

    prlimit(Some(server.pid()), Resource::Fsize, before).expect("it is our child");
    within("the retries", control.idle()).await;
    server.terminate();
    let (status, log) = server.exited().await;

    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("limits on file sizes"), "{log}");
    assert_all_stored(&control, &stored(&installation).await, &log);
}

/// Asserts that every message was acknowledged and is stored.
fn assert_all_stored(control: &Control, stored: &Stored, log: &str) {
    let deliveries = control.deliveries();
    assert!(
        deliveries
            .iter()
            .all(|delivery| delivery.outcome == Outcome::Acknowledged),
        "{deliveries:#?}\n{log}"
    );
    let messages = Sent::messages(control);
    let broken = broken_promises(&messages, &BTreeSet::new(), stored);
    assert!(broken.is_empty(), "{broken:#?}\n{log}");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_messages_get_503_until_there_is_room() {
    let Some(disk) = SmallDisk::mount(2) else {
        eprintln!("skipped: this user may not mount; the test above limits file sizes instead");
        return;
    };
    let emulator = emulator("time_scale=0.02").await;
    let control = emulator.control();
    let database = disk.folder().join("store.db");
    let store = format!(
        "[store]\nmin_free_bytes = 0\nurl = \"sqlite://{}\"",
        database.display()
    );
    let installation = Installation::beside(&emulator, "", &store);
    let server = installation.start().await;
    installation.subscribe(&control, &[Event::OnExported]).await;
    publish(&control, 20);
    within("the first messages", control.idle()).await;

    let ballast = disk.fill();
    for _ in 0..5 {
        let large = Publication::new(Event::OnExported, "x".repeat(50_000));
        control.notify(&large).expect("the account exists");
    }
    let refused = control.attempts_reached(|totals| totals.failed >= 5);
    within("refusals", refused).await;
    std::fs::remove_file(ballast).expect("removed");
    within("the retries", control.idle()).await;
    server.terminate();
    let (status, log) = server.exited().await;

    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("is full; free some space"), "{log}");
    let store = open_file_for_reading(&database)
        .await
        .expect("it is readable");
    let stored = Stored::all(&store).await;
    assert_all_stored(&control, &stored, &log);
}

#[tokio::test]
async fn a_damaged_store_is_named_with_a_fix() {
    let installation = Installation::alone("");
    let server = installation.start().await;
    server.terminate();
    let (status, log) = server.exited().await;
    assert_eq!(status.code(), Some(0), "{log}");

    let path = installation.database();
    let length = std::fs::metadata(&path).expect("a file").len();
    std::fs::write(&path, vec![0x5a; usize::try_from(length).expect("small")]).expect("written");
    let (code, _, errors) = installation.run(&["serve"]).await;

    assert_eq!(code, Some(1), "{errors}");
    for part in ["ivesk-webhook.db", "damaged", "restore the newest backup"] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}
