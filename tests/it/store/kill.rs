//! `kill -9`, SIGTERM, a full disk and a damaged file, under load and against the real process.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ivesk_webhook::domain::Event;
use ivesk_webhook::emulator::{
    Control, DEFAULT_COMPANIES, DEFAULT_KEY, Emulator, EmulatorSettings, Endpoint, Publication,
    Selection, SubscriptionState, Switches, Tamper,
};
use serde_json::Value;

use crate::support::checker::{Sent, Stored, broken_promises, differences};
use crate::support::process::{Installation, Server, within};

/// Kills in the form that every run of the tests takes.
const KILLS: usize = 12;

/// The vendor's half hour of retries in four seconds.
const SWITCHES: &str = "time_scale=0.002,page_size=7,delivery_timeout_ms=5000";

/// A generator whose whole course follows from its seed (SplitMix64).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 to `below - 1`.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.next() % below
    }

    fn count(&mut self, below: u64) -> usize {
        usize::try_from(self.below(below)).expect("small")
    }
}

pub(crate) fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is no number")),
    )
}

pub(crate) async fn emulator(switches: &str) -> Emulator {
    let settings = EmulatorSettings {
        switches: Switches::parse(switches).expect("all exist"),
        ..EmulatorSettings::default()
    };
    Emulator::start(settings, ([127, 0, 0, 1], 0).into())
        .await
        .expect("a free port")
}

/// Subscribes both webhooks, which `server` confirms.
async fn subscribe(control: &Control, installation: &Installation) {
    for event in [Event::OnExported, Event::OnDigitized] {
        let target = installation.webhook(event);
        control.subscribe(event, &target).expect("on this machine");
    }
    within("the confirmations", control.idle()).await;
    let state = |wished| {
        let subscriptions = control.subscriptions();
        subscriptions.iter().filter(|s| s.state == wished).count()
    };
    assert_eq!(state(SubscriptionState::Confirmed), 2);
}

/// What the vendor, its accountants and strangers do, at random.
pub(crate) struct Load {
    control: Control,
    pub(crate) forged: BTreeSet<String>,
    exported: Vec<String>,
}

impl Load {
    pub(crate) fn new(control: Control) -> Self {
        Self {
            control,
            forged: BTreeSet::new(),
            exported: Vec::new(),
        }
    }

    /// A burst of everything that can happen.
    pub(crate) fn burst(&mut self, chance: &mut Chance) {
        for _ in 0..8 + chance.below(24) {
            self.happen(chance);
        }
    }

    fn happen(&mut self, chance: &mut Chance) {
        let company = DEFAULT_COMPANIES[chance.count(DEFAULT_COMPANIES.len() as u64)];
        match chance.below(12) {
            0..=3 => self.export(company, 1 + chance.count(4)),
            4..=6 => {
                let made = self
                    .control
                    .digitize(DEFAULT_KEY, company, 1 + chance.count(3));
                made.expect("a known company");
            }
            7 => {
                // An export of which nobody is told: reconciliation finds it.
                self.control.lose_next_notifications(1);
                self.export(company, 1);
            }
            8 => self.re_export(chance),
            9 | 10 => {
                let copies = Publication {
                    copies: 2 + chance.count(4),
                    ..Publication::exported(company)
                };
                self.control.notify(&copies).expect("the account exists");
            }
            _ => self.forge(company, chance),
        }
    }

    fn export(&mut self, company: &str, count: usize) {
        let exported = self.control.export(company, Selection::Next(count));
        let exported = exported.expect("a known company");
        self.exported.extend(exported.into_iter().map(|(id, _)| id));
    }

    fn re_export(&mut self, chance: &mut Chance) {
        if self.exported.is_empty() {
            return;
        }
        let id = &self.exported[chance.count(self.exported.len() as u64)];
        self.control.re_export(id).expect("a known document");
    }

    fn forge(&mut self, company: &str, chance: &mut Chance) {
        let plain = Publication::exported(company);
        let forged = match chance.below(3) {
            0 => Publication {
                tamper: Tamper::Signature,
                ..plain
            },
            1 => Publication {
                tamper: Tamper::Message,
                ..plain
            },
            _ => Publication {
                topic_arn: Some("arn:aws:sns:eu-west-1:111122223333:DPWebHook_onexport".to_owned()),
                ..plain
            },
        };
        let id = self.control.notify(&forged).expect("the account exists");
        self.forged.insert(id);
    }
}

/// Waits for a moment that chance picks. The delays are the moment itself: nothing is
/// expected to have happened when they are over.
async fn moment_to_kill(chance: &mut Chance, control: &Control, server: &mut Server) -> String {
    let jitter = |chance: &mut Chance, below_us| Duration::from_micros(chance.below(below_us));
    match chance.below(6) {
        0 => {
            let delay = jitter(chance, 60_000);
            tokio::time::sleep(delay).await;
            format!("{delay:?} after its start")
        }
        1 => {
            server.receiving().await;
            "at its first line".to_owned()
        }
        2 | 3 => {
            let more = 1 + chance.below(40);
            let delay = jitter(chance, 3_000);
            server.receiving().await;
            let wished = control.attempts().acknowledged + more;
            let reached = control.attempts_reached(|totals| totals.acknowledged >= wished);
            tokio::select! {
                _ = within("acknowledgements", reached) => {}
                () = control.idle() => {}
            }
            tokio::time::sleep(delay).await;
            format!("{delay:?} after {more} acknowledgements")
        }
        4 => {
            // Each start reads both companies' lists, so these come.
            let pages = 1 + chance.below(2);
            let delay = jitter(chance, 8_000);
            let before = control.requests().count(Endpoint::Exported);
            server.receiving().await;
            within(
                "pages",
                control.requests_reached(Endpoint::Exported, before + pages),
            )
            .await;
            tokio::time::sleep(delay).await;
            format!("{delay:?} after {pages} pages were asked for")
        }
        _ => {
            server.receiving().await;
            within("the end of deliveries", control.idle()).await;
            let delay = jitter(chance, 5_000);
            tokio::time::sleep(delay).await;
            format!("{delay:?} after the last delivery")
        }
    }
}

/// Asks the running server until it has stored `versions` of documents.
async fn pulled(installation: &Installation, versions: usize) {
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let url = installation.admin_url("/v1/feeds");
    within("the last document", async {
        loop {
            let answer = client.get(&url).send().await.expect("an answer");
            let text = answer.text().await.expect("a body");
            let feeds: Value = serde_json::from_str(&text).expect("JSON");
            let feeds = feeds["rows"].as_array().expect("a list");
            let stored: u64 = feeds.iter().filter_map(|f| f["documents"].as_u64()).sum();
            if stored >= versions as u64 {
                break;
            }
        }
    })
    .await;
}

fn sound(database: &std::path::Path) -> String {
    let connection = rusqlite::Connection::open(database).expect("it opens");
    connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("it can be checked")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_at_any_moment_loses_and_doubles_nothing() {
    let kills = number_from("IVESK_WEBHOOK_TEST_KILLS").map_or(KILLS, |n| n as usize);
    let seed = number_from("IVESK_WEBHOOK_TEST_SEED")
        .unwrap_or_else(|| getrandom::u64().expect("random bytes"));
    let mut chance = Chance(seed);
    let emulator = emulator(SWITCHES).await;
    let control = emulator.control();
    let installation = Installation::beside(&emulator, "", "");
    let mut server = installation.start().await;
    subscribe(&control, &installation).await;
    let mut load = Load::new(control.clone());
    let mut seen = Stored::default();
    let started = Instant::now();

    for kill in 1..=kills {
        load.burst(&mut chance);
        let when = moment_to_kill(&mut chance, &control, &mut server).await;
        let log = server.kill().await;
        let messages = Sent::messages(&control);
        let store = installation.read_store();
        seen.read_on(store.as_ref()).await;
        store.close().await.expect("it closes");
        let broken = broken_promises(&messages, &load.forged, &seen);
        assert!(
            broken.is_empty() && !log.contains("panicked"),
            "seed {seed}, kill {kill} {when}: {broken:#?}\n{log}"
        );
        server = installation.spawn();
    }

    server.receiving().await;
    control.retry_now();
    within("the end of deliveries", control.idle()).await;
    let sent = Sent::of(&control, &load.forged);
    pulled(&installation, sent.versions()).await;
    server.terminate();
    let (status, log) = server.ended().await;
    let store = installation.read_store();
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
        "seed {seed}: what was stored once has changed"
    );
    assert_eq!(sound(&installation.database()), "ok", "seed {seed}");
    assert_eq!(status.code(), Some(0), "seed {seed}\n{log}");
    assert!(
        sent.acknowledged() > 0 && totals.unanswered > 0,
        "no load: {totals:?}"
    );
}
