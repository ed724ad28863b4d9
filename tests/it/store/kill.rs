//! SIGKILL at random moments under load: nothing acknowledged is lost, nothing is doubled.

use std::time::{Duration, Instant};

use ivesk_webhook::domain::Event;
use ivesk_webhook::emulator::{Control, Endpoint};

use crate::support::checker::{Sent, Stored, broken_promises, differences};
use crate::support::emulator::emulator;
use crate::support::load::{Load, Rng, kills, seed};
use crate::support::process::{Installation, Server, within};

/// Shortens the half hour of SNS's retries to four seconds.
const SWITCHES: &str = "time_scale=0.002,page_size=7,delivery_timeout_ms=5000";

/// Waits for a random moment and describes it. The delays only vary the moment: nothing is
/// expected to have happened when they are over.
async fn random_moment(rng: &mut Rng, control: &Control, server: &mut Server) -> String {
    let jitter = |rng: &mut Rng, below_us| Duration::from_micros(rng.below(below_us));
    match rng.below(6) {
        0 => {
            let delay = jitter(rng, 60_000);
            tokio::time::sleep(delay).await;
            format!("{delay:?} after its start")
        }
        1 => {
            server.ready().await;
            "at its first line".to_owned()
        }
        2 | 3 => {
            let more = 1 + rng.below(40);
            let delay = jitter(rng, 3_000);
            server.ready().await;
            let expected = control.attempts().acknowledged + more;
            let reached = control.attempts_reached(|totals| totals.acknowledged >= expected);
            tokio::select! {
                _ = within("acknowledgements", reached) => {}
                () = control.idle() => {}
            }
            tokio::time::sleep(delay).await;
            format!("{delay:?} after {more} acknowledgements")
        }
        4 => {
            // Each start requests the pages of both companies.
            let pages = 1 + rng.below(2);
            let delay = jitter(rng, 8_000);
            let before = control.requests().count(Endpoint::Exported);
            server.ready().await;
            within(
                "pages",
                control.requests_reached(Endpoint::Exported, before + pages),
            )
            .await;
            tokio::time::sleep(delay).await;
            format!("{delay:?} after {pages} requested pages")
        }
        _ => {
            server.ready().await;
            within("the end of deliveries", control.idle()).await;
            let delay = jitter(rng, 5_000);
            tokio::time::sleep(delay).await;
            format!("{delay:?} after the last delivery")
        }
    }
}

/// Waits until the server has stored `versions` versions.
async fn until_stored(installation: &Installation, versions: usize) {
    within("the last document", async {
        loop {
            let feeds = installation.admin_json("/v1/feeds").await;
            let feeds = feeds["rows"].as_array().expect("a list");
            let stored: u64 = feeds.iter().filter_map(|f| f["documents"].as_u64()).sum();
            if stored >= versions as u64 {
                break;
            }
        }
    })
    .await;
}

fn integrity_check(database: &std::path::Path) -> String {
    let connection = rusqlite::Connection::open(database).expect("it opens");
    connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("it can be checked")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_at_any_moment_loses_and_doubles_nothing() {
    let (kills, seed) = (kills(12), seed());
    let mut rng = Rng(seed);
    let emulator = emulator(SWITCHES).await;
    let control = emulator.control();
    let installation = Installation::beside(&emulator, "", "");
    let mut server = installation.start().await;
    installation
        .subscribe(&control, &[Event::OnExported, Event::OnDigitized])
        .await;
    let mut load = Load::new(control.clone());
    let mut seen = Stored::default();
    let started = Instant::now();

    for kill in 1..=kills {
        load.burst(&mut rng);
        let when = random_moment(&mut rng, &control, &mut server).await;
        let log = server.kill().await;
        let messages = Sent::messages(&control);
        let store = installation.read_store().await;
        seen.read_more(store.as_ref()).await;
        store.close().await.expect("it closes");
        let broken = broken_promises(&messages, &load.forged, &seen);
        assert!(
            broken.is_empty() && !log.contains("panicked"),
            "seed {seed}, kill {kill} {when}: {broken:#?}\n{log}"
        );
        server = installation.spawn();
    }

    server.ready().await;
    control.retry_now();
    within("the end of deliveries", control.idle()).await;
    let sent = Sent::of(&control, &load.forged);
    until_stored(&installation, sent.versions()).await;
    server.terminate();
    let (status, log) = server.exited().await;
    let store = installation.read_store().await;
    let stored = Stored::all(store.as_ref()).await;
    let totals = control.attempts();
    eprintln!(
        "{kills} kills in {:.1?}, seed {seed}: {} messages sent, {} acknowledged, {} stored; {} versions stored; {totals:?}",
        started.elapsed(),
        sent.messages.len(),
        sent.acknowledged(),
        stored.notifications.len(),
        stored.documents.len(),
    );
    let broken = differences(&sent, &stored);
    assert!(broken.is_empty(), "seed {seed}: {broken:#?}\n{log}");
    assert!(
        stored.notifications.starts_with(&seen.notifications)
            && stored.documents.starts_with(&seen.documents),
        "seed {seed}: stored rows have changed"
    );
    assert_eq!(
        integrity_check(&installation.database()),
        "ok",
        "seed {seed}"
    );
    assert_eq!(status.code(), Some(0), "seed {seed}\n{log}");
    assert!(
        sent.acknowledged() > 0 && totals.unanswered > 0,
        "no load: {totals:?}"
    );
}
