//! Compares what was sent, what was acknowledged and what is stored.
//!
//! The tests at the end of this file check that it finds faults.

use std::collections::{BTreeMap, BTreeSet};

use ivesk_webhook::domain::{Event, Queue};
use ivesk_webhook::emulator::{Control, DEFAULT_COMPANIES, Outcome};
use ivesk_webhook::store::{DocumentFilter, Store};

use crate::support::puller::canonical;

/// Documents and messages of the vendor and SNS.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    /// Every message sent to a webhook; true if it was answered with 200.
    pub(crate) messages: BTreeMap<(Event, String), bool>,
    /// Forged messages, of which none may be stored.
    pub(crate) forged: BTreeSet<String>,
    /// Ids and versions that each feed lists.
    pub(crate) truth: BTreeMap<(Queue, String), Vec<(String, String)>>,
}

impl Sent {
    /// Reads it from the emulator.
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

    /// Reads the messages; one acknowledged copy of several is enough.
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

/// The contents of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) notifications: Vec<(Event, String)>,
    pub(crate) documents: Vec<StoredVersion>,
    last_notification: i64,
}

impl Stored {
    /// Reads everything in `store`.
    pub(crate) async fn all(store: &Store) -> Self {
        let mut stored = Self::default();
        stored.read_more(store).await;
        stored
    }

    /// Adds the rows that were stored since the last call.
    pub(crate) async fn read_more(&mut self, store: &Store) {
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

/// Returns every violation of what holds at any moment.
pub(crate) fn broken_promises(
    messages: &BTreeMap<(Event, String), bool>,
    forged: &BTreeSet<String>,
    stored: &Stored,
) -> Vec<String> {
    let mut broken = Vec::new();
    let mut counts: BTreeMap<&(Event, String), usize> = BTreeMap::new();
    for message in &stored.notifications {
        *counts.entry(message).or_default() += 1;
        if !messages.contains_key(message) {
            broken.push(format!("{message:?} is stored and was never sent"));
        }
        if forged.contains(&message.1) {
            broken.push(format!("{message:?} is stored and was forged"));
        }
    }
    for (message, count) in &counts {
        if *count > 1 {
            broken.push(format!("{message:?} is stored {count} times"));
        }
    }
    for (message, acknowledged) in messages {
        if *acknowledged && forged.contains(&message.1) {
            broken.push(format!("{message:?} was acknowledged and was forged"));
        }
        if *acknowledged && !counts.contains_key(message) {
            broken.push(format!("{message:?} was acknowledged and is not stored"));
        }
    }
    for (expected, document) in (1..).zip(&stored.documents) {
        if document.sequence != expected {
            let found = document.sequence;
            broken.push(format!("sequence is {found} where {expected} belongs"));
            break;
        }
    }
    broken
}

/// Returns [`broken_promises`], and every difference from the truth once all is stored.
pub(crate) fn differences(sent: &Sent, stored: &Stored) -> Vec<String> {
    let mut broken = broken_promises(&sent.messages, &sent.forged, stored);
    let mut missing: BTreeMap<_, BTreeMap<_, i64>> = BTreeMap::new();
    for (feed, versions) in &sent.truth {
        for version in versions {
            *missing
                .entry(feed.clone())
                .or_default()
                .entry((version.0.clone(), canonical(&version.1)))
                .or_default() += 1;
        }
    }
    for document in &stored.documents {
        let version = (document.id.clone(), canonical(&document.version));
        *missing
            .entry(document.feed.clone())
            .or_default()
            .entry(version)
            .or_default() -= 1;
    }
    for (feed, versions) in missing {
        for (version, count) in versions {
            match count {
                0 => {}
                1.. => broken.push(format!("{feed:?} lacks {version:?}")),
                _ => broken.push(format!(
                    "{feed:?} has {version:?} {} times too many",
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

fn correct_history() -> (Sent, Stored) {
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
fn the_checker_accepts_a_correct_history() {
    let (sent, mut stored) = correct_history();
    assert_eq!(differences(&sent, &stored), Vec::<String>::new());
    // A message is stored whose answer was lost.
    stored.notifications.push(message("lost on the way"));
    assert_eq!(differences(&sent, &stored), Vec::<String>::new());
}

#[test]
fn the_checker_finds_every_kind_of_error() {
    type Mistake = fn(&mut Sent, &mut Stored);
    let mistakes: [(&str, Mistake); 9] = [
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
        ("times too many", |_, stored| {
            stored.documents.push(version(3, "b"));
        }),
        ("times too many", |_, stored| {
            stored.documents.push(version(3, "invented"));
        }),
        ("sequence is 3 where 2 belongs", |_, stored| {
            stored.documents[1].sequence = 3;
        }),
    ];
    for (expected, mistake) in mistakes {
        let (mut sent, mut stored) = correct_history();
        mistake(&mut sent, &mut stored);
        let found = differences(&sent, &stored);
        assert!(
            found.iter().any(|line| line.contains(expected)),
            "{expected}: {found:?}"
        );
    }
}
