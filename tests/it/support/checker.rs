//! What was sent, what was acknowledged, what is stored: and whether they agree.
//!
//! The checker knows nothing of how a history came about. It is itself tested at the
//! end of this file, with histories that are wrong.

use std::collections::{BTreeMap, BTreeSet};

use ivesk_webhook::domain::{Event, Queue};
use ivesk_webhook::emulator::{Control, DEFAULT_COMPANIES, Outcome};
use ivesk_webhook::store::{DocumentFilter, Store};

/// What the outside knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    /// Every message on its way to a webhook, and whether it was answered with a 200.
    pub(crate) messages: BTreeMap<(Event, String), bool>,
    /// Messages that were spoilt: none may be stored, whatever was answered.
    pub(crate) forged: BTreeSet<String>,
    /// What each feed lists: ids with their versions.
    pub(crate) truth: BTreeMap<(Queue, String), Vec<(String, String)>>,
}

impl Sent {
    /// The emulator's knowledge.
    pub(crate) fn of(control: &Control, forged: &BTreeSet<String>) -> Self {
        let mut truth = BTreeMap::new();
        truth.insert(
            (Queue::Digitized, String::new()),
            control.documents(Queue::Digitized, ""),
        );
        for company in DEFAULT_COMPANIES {
            truth.insert(
                (Queue::Exported, company.to_owned()),
                control.documents(Queue::Exported, company),
            );
        }
        Self {
            messages: Self::messages(control),
            forged: forged.clone(),
            truth,
        }
    }

    /// The messages alone; one of several copies that was acknowledged is enough.
    pub(crate) fn messages(control: &Control) -> BTreeMap<(Event, String), bool> {
        let mut messages = BTreeMap::new();
        for record in control.deliveries() {
            *messages
                .entry((record.event.into(), record.message_id))
                .or_default() |= record.outcome == Outcome::Acknowledged;
        }
        messages
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.messages.values().filter(|acked| **acked).count()
    }

    pub(crate) fn versions(&self) -> usize {
        self.truth.values().map(Vec::len).sum()
    }
}

/// A stored version of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredVersion {
    pub(crate) sequence: i64,
    pub(crate) feed: (Queue, String),
    pub(crate) id: String,
    pub(crate) version: String,
}

/// What the store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) notifications: Vec<(Event, String)>,
    pub(crate) documents: Vec<StoredVersion>,
    last_notification: i64,
}

impl Stored {
    /// Everything in `store`.
    pub(crate) async fn all(store: &dyn Store) -> Self {
        let mut stored = Self::default();
        stored.read_on(store).await;
        stored
    }

    /// Adds what came after what is known already.
    pub(crate) async fn read_on(&mut self, store: &dyn Store) {
        const PAGE: usize = 1000;
        loop {
            let rows = store.notifications(self.last_notification, PAGE).await;
            let rows = rows.expect("notifications can be read");
            let Some(last) = rows.last() else { break };
            self.last_notification = last.id;
            self.notifications
                .extend(rows.into_iter().map(|row| (row.event, row.message_id)));
        }
        loop {
            let after = self.documents.last().map(|document| document.sequence);
            let filter = DocumentFilter {
                after,
                limit: PAGE,
                ..DocumentFilter::default()
            };
            let rows = store
                .documents(filter)
                .await
                .expect("documents can be read");
            if rows.is_empty() {
                break;
            }
            self.documents
                .extend(rows.into_iter().map(|row| StoredVersion {
                    sequence: row.sequence,
                    feed: (row.feed.queue, row.feed.company.as_str().to_owned()),
                    id: row.document_id,
                    version: row.version,
                }));
        }
    }
}

/// Every way in which `stored` breaks what was promised to the outside at any moment.
pub(crate) fn broken_promises(
    messages: &BTreeMap<(Event, String), bool>,
    forged: &BTreeSet<String>,
    stored: &Stored,
) -> Vec<String> {
    let mut broken = Vec::new();
    let mut times: BTreeMap<&(Event, String), usize> = BTreeMap::new();
    for message in &stored.notifications {
        *times.entry(message).or_default() += 1;
        if !messages.contains_key(message) {
            broken.push(format!("{message:?} is stored and was never sent"));
        }
        if forged.contains(&message.1) {
            broken.push(format!("{message:?} is stored and was forged"));
        }
    }
    for (message, count) in &times {
        if *count > 1 {
            broken.push(format!("{message:?} is stored {count} times"));
        }
    }
    for (message, acknowledged) in messages {
        if *acknowledged && forged.contains(&message.1) {
            broken.push(format!("{message:?} was acknowledged and was forged"));
        }
        if *acknowledged && !times.contains_key(message) {
            broken.push(format!("{message:?} was acknowledged and is not stored"));
        }
    }
    for (expected, document) in (1..).zip(&stored.documents) {
        if document.sequence != expected {
            let found = document.sequence;
            broken.push(format!("sequence {found} stands where {expected} belongs"));
            break;
        }
    }
    broken
}

/// [`broken_promises`], and every difference to the truth once everything has come.
pub(crate) fn differences(sent: &Sent, stored: &Stored) -> Vec<String> {
    let mut broken = broken_promises(&sent.messages, &sent.forged, stored);
    let mut left: BTreeMap<_, BTreeMap<_, i64>> = BTreeMap::new();
    for (feed, versions) in &sent.truth {
        for version in versions {
            *left
                .entry(feed.clone())
                .or_default()
                .entry(version.clone())
                .or_default() += 1;
        }
    }
    for document in &stored.documents {
        let version = (document.id.clone(), document.version.clone());
        *left
            .entry(document.feed.clone())
            .or_default()
            .entry(version)
            .or_default() -= 1;
    }
    for (feed, versions) in left {
        for (version, count) in versions {
            match count {
                0 => {}
                1.. => broken.push(format!("{feed:?} lacks {version:?}")),
                _ => broken.push(format!(
                    "{feed:?} has {version:?} {} times too often",
                    -count
                )),
            }
        }
    }
    broken
}

fn message(id: &str) -> (Event, String) {
    (Event::OnExported, id.to_owned())
}

fn feed() -> (Queue, String) {
    (Queue::Exported, "1".to_owned())
}

fn version(sequence: i64, id: &str) -> StoredVersion {
    StoredVersion {
        sequence,
        feed: feed(),
        id: id.to_owned(),
        version: "v".to_owned(),
    }
}

fn a_sound_history() -> (Sent, Stored) {
    let mut sent = Sent::default();
    sent.messages.insert(message("acknowledged"), true);
    sent.messages.insert(message("lost on the way"), false);
    sent.forged.insert("forged".to_owned());
    let listed = ["a", "b"].map(|id| (id.to_owned(), "v".to_owned()));
    sent.truth.insert(feed(), listed.to_vec());
    let stored = Stored {
        notifications: vec![message("acknowledged")],
        documents: vec![version(1, "a"), version(2, "b")],
        last_notification: 1,
    };
    (sent, stored)
}

#[test]
fn the_checker_accepts_a_sound_history() {
    let (sent, mut stored) = a_sound_history();
    assert_eq!(differences(&sent, &stored), Vec::<String>::new());
    // Its answer was lost: stored, and nobody knows.
    stored.notifications.push(message("lost on the way"));
    assert_eq!(differences(&sent, &stored), Vec::<String>::new());
}

#[test]
fn the_checker_finds_every_kind_of_error() {
    type Wrong = fn(&mut Sent, &mut Stored);
    let wrongs: [(&str, Wrong); 9] = [
        ("was acknowledged and is not stored", |_, stored| {
            stored.notifications.clear();
        }),
        ("is stored 2 times", |_, stored| {
            stored.notifications.push(message("acknowledged"));
        }),
        ("was never sent", |_, stored| {
            stored.notifications.push(message("invented"));
        }),
        ("was forged", |sent, stored| {
            sent.messages.insert(message("forged"), false);
            stored.notifications.push(message("forged"));
        }),
        ("was acknowledged and was forged", |sent, _| {
            sent.messages.insert(message("forged"), true);
        }),
        ("lacks", |_, stored| {
            stored.documents.pop();
        }),
        ("times too often", |_, stored| {
            stored.documents.push(version(3, "b"));
        }),
        ("times too often", |_, stored| {
            stored.documents.push(version(3, "invented"));
        }),
        ("sequence 3 stands where 2 belongs", |_, stored| {
            stored.documents[1].sequence = 3;
        }),
    ];
    for (said, wrong) in wrongs {
        let (mut sent, mut stored) = a_sound_history();
        wrong(&mut sent, &mut stored);
        let found = differences(&sent, &stored);
        assert!(
            found.iter().any(|line| line.contains(said)),
            "{said}: {found:?}"
        );
    }
}
