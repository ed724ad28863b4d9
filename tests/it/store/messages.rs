//! Notifications: accepted once, queued, counted, quarantined and removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use ivesk_webhook::domain::{Account, Clock, Company, Event, Feed, Timestamp};
use ivesk_webhook::sns::{MessageType, Verifier};
use ivesk_webhook::store::{
    AcceptedMessage, Hooks, HourCount, Insertion, Quarantined, RefusedCount, Retention, Store,
    StoreError, StoreOptions, TriggerKind, Triggers,
};

use super::test_store::{HOUR, START, TestStore, account, company, last_page, retention};
use crate::support::databases::{Database, Options, on_both_stores};
use crate::support::process::within;
use crate::support::sns::{SIGNER, sns_url, unsigned, verifier_at, verify};

on_both_stores! {
    one_message_sent_eight_times_is_one_row_and_one_pull,
    each_part_of_an_identity_makes_another_message,
    a_confirmation_that_is_sent_again_later_is_a_duplicate,
    a_full_queue_answers_at_once_and_loses_nothing_queued,
    a_closed_store_says_so_and_has_stored_what_it_accepted,
    a_message_that_the_database_rejects_stops_only_itself,
    a_panic_while_a_message_is_stored_fails_the_probe,
    activity_is_counted_by_the_hour,
    the_quarantine_is_bounded_with_a_share_for_allowed_topics,
    the_quarantine_is_bounded_in_number_too,
    retention_removes_bodies_and_never_identities,
    an_unclear_notification_triggers_all_feeds_once_in_a_while,
}

/// A panic while a message is stored, once it is planted.
#[derive(Default)]
struct PlantedPanic(AtomicBool);

impl Hooks for PlantedPanic {
    fn statement(&self, sql: &str, _types: &[&str]) {
        if sql.starts_with("INSERT INTO notification ") && self.0.swap(false, Ordering::SeqCst) {
            panic!("planted");
        }
    }
}

async fn a_panic_while_a_message_is_stored_fails_the_probe(database: Database) {
    let hooks = Arc::new(PlantedPanic::default());
    let store = Store::open(StoreOptions {
        url: database.url(),
        queue: 8,
        quarantine_bytes: 1 << 20,
        ask: false,
        clock: Clock::manual(START),
        hooks: Some(hooks.clone()),
    });
    let store = store.await.expect("it opens");
    store.probe().await.expect("the store accepts messages");
    hooks.0.store(true, Ordering::SeqCst);

    let message = Messages::new().notification(1).await;
    let lost = store.accept(message).await;

    assert!(matches!(lost, Err(StoreError::Closed)), "{lost:?}");
    // The answer is dropped a moment before its task has ended.
    within("the probe to fail", async {
        while store.probe().await.is_ok() {}
    })
    .await;
    assert!(store.close().await.is_err(), "the panic is reported");
}

/// Verified messages of one topic.
pub(crate) struct Messages(Verifier);

impl Messages {
    pub(crate) fn new() -> Self {
        Self(verifier_at(Clock::manual(START)))
    }

    /// Returns message `number`, received at [`START`].
    pub(super) async fn message(
        &self,
        number: u32,
        message_type: MessageType,
        published: Timestamp,
    ) -> AcceptedMessage {
        let mut message = unsigned(message_type);
        message.message_id = message_id(number);
        message.timestamp = published.to_string();
        let body = SIGNER.sign(&message, 2, &sns_url(&SIGNER));
        let verified = verify(&self.0, &body).await;
        AcceptedMessage {
            account: account(),
            event: Event::OnExported,
            message: verified.expect("a genuine message"),
            received_at: START,
            triggers: Triggers::Nothing,
            needs_approval: false,
        }
    }

    /// Returns messages that are verified at a moment.
    pub(super) fn at(moment: Timestamp) -> Self {
        Self(verifier_at(Clock::manual(moment)))
    }

    /// Returns a notification that was signed at a moment.
    pub(super) async fn signed_at(&self, moment: Timestamp) -> AcceptedMessage {
        self.message(7, MessageType::Notification, moment).await
    }

    /// Returns notification `number` of a feed, sent and received at a moment.
    pub(crate) async fn announcement(
        number: u32,
        feed: Feed,
        moment: Timestamp,
    ) -> AcceptedMessage {
        let messages = Self::at(moment);
        let message = messages.message(number, MessageType::Notification, moment);
        AcceptedMessage {
            received_at: moment,
            triggers: Triggers::Feed(feed),
            ..message.await
        }
    }

    pub(crate) async fn notification(&self, number: u32) -> AcceptedMessage {
        self.message(number, MessageType::Notification, START).await
    }
}

fn message_id(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

async fn stored_notifications(test: &TestStore) -> usize {
    let rows = test.store.notifications(0, 100).await;
    rows.expect("readable").len()
}

async fn quarantined(test: &TestStore) -> usize {
    let rows = test.store.quarantine(0, 100).await;
    rows.expect("readable").len()
}

/// Waits for one round of the writer.
async fn write(test: &TestStore) {
    let written = test.store.trigger(Vec::new()).await;
    written.expect("the writer answers");
}

async fn one_message_sent_eight_times_is_one_row_and_one_pull(database: Database) {
    let test = TestStore::new(database).await;
    let messages = Messages::new();
    let mut copies = Vec::new();
    for _ in 0..8 {
        let mut copy = messages.notification(1).await;
        copy.triggers = Triggers::Feed(company("302320404"));
        copies.push(test.store.accept(copy));
    }
    let outcomes = join_all(copies).await;
    let new = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Ok(Insertion::New)))
        .count();
    assert_eq!(new, 1);
    assert_eq!(stored_notifications(&test).await, 1);
    let mut served = test.drain().await;
    served.retain(|kind| *kind == TriggerKind::Notification);
    assert_eq!(served.len(), 1);
}

async fn each_part_of_an_identity_makes_another_message(database: Database) {
    let test = TestStore::new(database).await;
    let messages = Messages::new();
    let earlier = START.before(Duration::from_millis(1));
    let all = async || {
        let first = messages.notification(1).await;
        let of_event = AcceptedMessage {
            event: Event::OnDigitized,
            ..messages.notification(1).await
        };
        let of_account = AcceptedMessage {
            account: Account::parse("other").expect("a valid name"),
            ..messages.notification(1).await
        };
        let published = messages.message(1, MessageType::Notification, earlier);
        let other_id = messages.notification(2).await;
        [first, of_event, of_account, published.await, other_id]
    };
    let [first, rest @ ..] = all().await;
    let outcome = test.store.accept(first).await;
    assert_eq!(outcome.ok(), Some(Insertion::New));
    // At once: the stored one among others that are new, and then each by itself.
    let [first, ..] = all().await;
    let mut group = Vec::from(rest);
    group.insert(2, first);
    let outcomes = join_all(group.into_iter().map(|one| test.store.accept(one))).await;
    let outcomes: Vec<Option<Insertion>> = outcomes.into_iter().map(Result::ok).collect();
    let (new, duplicate) = (Some(Insertion::New), Some(Insertion::Duplicate));
    assert_eq!(outcomes, [new, new, duplicate, new, new]);
    for one in all().await {
        assert_eq!(test.store.accept(one).await.ok(), duplicate);
    }
    assert_eq!(stored_notifications(&test).await, 5);
}

async fn a_confirmation_that_is_sent_again_later_is_a_duplicate(database: Database) {
    let test = TestStore::new(database).await;
    let messages = Messages::new();
    let earlier = START.before(Duration::from_secs(20));
    for (number, kind) in [
        (1, MessageType::SubscriptionConfirmation),
        (2, MessageType::UnsubscribeConfirmation),
    ] {
        for (sent_at, expected) in [(earlier, Insertion::New), (START, Insertion::Duplicate)] {
            let message = messages.message(number, kind, sent_at).await;
            let outcome = test.store.accept(message).await;
            assert_eq!(outcome.ok(), Some(expected), "{kind:?}");
        }
    }
}

async fn a_message_that_the_database_rejects_stops_only_itself(database: Database) {
    let test = TestStore::new(database).await;
    let ends_once = "CREATE UNIQUE INDEX planted ON notification (kind)
                     WHERE kind = 'UnsubscribeConfirmation'";
    test.database.run(ends_once).await;
    let messages = Messages::new();
    let mut accepts = Vec::new();
    for number in 0..50 {
        let message_type = match number {
            10 | 30 => MessageType::UnsubscribeConfirmation,
            _ => MessageType::Notification,
        };
        let message = messages.message(number, message_type, START).await;
        accepts.push(test.store.accept(message));
    }
    let mut outcomes = join_all(accepts).await;
    let rejected = outcomes.remove(30);
    assert!(
        matches!(rejected, Err(StoreError::Value(_))),
        "{rejected:?}"
    );
    let is_new = |outcome: &Result<Insertion, StoreError>| matches!(outcome, Ok(Insertion::New));
    assert!(outcomes.iter().all(is_new), "{outcomes:?}");
    assert_eq!(stored_notifications(&test).await, 49);
}

async fn a_full_queue_answers_at_once_and_loses_nothing_queued(database: Database) {
    let test = TestStore::with(database, |options| options.queue = 1).await;
    let messages = Messages::new();
    let mut accepts = Vec::new();
    for number in 0..50 {
        accepts.push(test.store.accept(messages.notification(number).await));
    }
    let outcomes = join_all(accepts).await;
    let accepted = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Ok(Insertion::New)))
        .count();
    assert!(accepted >= 1);
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Ok(_) | Err(StoreError::QueueFull)))
    );
    assert_eq!(stored_notifications(&test).await, accepted);
}

async fn a_closed_store_says_so_and_has_stored_what_it_accepted(database: Database) {
    let test = TestStore::new(database).await;
    test.trigger(&company("1"), TriggerKind::Notification).await;
    test.store.close().await.expect("it closes");
    let triggered = test.store.trigger(Vec::new()).await;
    assert!(matches!(triggered, Err(StoreError::Closed)));
    assert!(matches!(test.store.feeds().await, Err(StoreError::Closed)));
    let store = test.database.open(Options::at(test.clock.clone())).await;
    let store = store.expect("it opens again");
    assert_eq!(store.feeds().await.expect("readable").len(), 1);
}

async fn activity_is_counted_by_the_hour(database: Database) {
    let test = TestStore::new(database).await;
    let messages = Messages::new();
    for (number, hours_ago) in [(1, 3), (2, 1), (3, 1), (4, 30)] {
        let mut message = messages.notification(number).await;
        message.received_at = START.before(hours_ago * HOUR);
        test.store.accept(message).await.expect("accepted");
    }
    for reason in ["too_old", "too_old", "raw_delivery"] {
        assert!(test.store.offer_quarantine(Quarantined {
            received_at: START.before(2 * HOUR),
            account: account(),
            event: Event::OnExported,
            reason: reason.to_owned(),
            allowed_topic: false,
            headers: String::new(),
            body: Bytes::from_static(b"{}"),
        }));
        write(&test).await;
        quarantined(&test).await;
    }
    let page = last_page(&[("a", "2026-01-01"), ("b", "2026-01-01")], Some("x"));
    test.pull(&company("1"), page).await;

    let activity = test.store.activity(START.before(24 * HOUR)).await;
    let activity = activity.expect("readable");
    let hour = |hours_ago: u32| {
        let at = START.before(hours_ago * HOUR).as_millis();
        Timestamp::from_millis(at - at.rem_euclid(3_600_000))
    };
    let count = |hours_ago, count| HourCount {
        hour: hour(hours_ago),
        count,
    };
    assert_eq!(activity.accepted, [count(3, 1), count(1, 2)]);
    assert_eq!(activity.documents, [count(0, 2)]);
    let refused = |reason: &str, count| RefusedCount {
        hour: hour(2),
        reason: reason.to_owned(),
        count,
    };
    assert_eq!(
        activity.refused,
        [refused("raw_delivery", 1), refused("too_old", 2)]
    );
}

async fn the_quarantine_is_bounded_with_a_share_for_allowed_topics(database: Database) {
    let test = TestStore::with(database, |options| options.quarantine_bytes = 4000).await;
    let refused = |allowed_topic| Quarantined {
        received_at: START,
        account: account(),
        event: Event::OnExported,
        reason: "signature_mismatch".to_owned(),
        allowed_topic,
        headers: String::new(),
        body: Bytes::from(vec![b'x'; 900]),
    };
    for _ in 0..20 {
        test.store.offer_quarantine(refused(false));
    }
    for _ in 0..2 {
        test.store.offer_quarantine(refused(true));
    }
    // The writer stores offers no later than a change that follows them.
    while quarantined(&test).await < 4 {
        write(&test).await;
    }
    assert_eq!(quarantined(&test).await, 4);
    let later = Retention {
        quarantine_before: START.after(HOUR),
        ..retention()
    };
    assert_eq!(test.retain(later).await.quarantined, 4);
    assert!(test.store.offer_quarantine(refused(false)));
    while quarantined(&test).await == 0 {
        write(&test).await;
    }
}

async fn the_quarantine_is_bounded_in_number_too(database: Database) {
    let test = TestStore::new(database).await;
    let refused = |allowed_topic| Quarantined {
        received_at: START,
        account: account(),
        event: Event::OnExported,
        reason: "malformed_json".to_owned(),
        allowed_topic,
        headers: String::new(),
        body: Bytes::from_static(b"{}"),
    };
    let count = async || {
        let rows = test.store.quarantine(0, 20_000).await;
        rows.expect("readable").len()
    };
    // Far below the limit in bytes.
    let mut offered = 0;
    while offered < 5_200 {
        if test.store.offer_quarantine(refused(false)) {
            offered += 1;
        } else {
            write(&test).await;
        }
    }
    while !test.store.offer_quarantine(refused(true)) {
        write(&test).await;
    }
    for _ in 0..3 {
        write(&test).await;
        count().await;
    }
    while count().await < 5_001 {
        write(&test).await;
    }
    assert_eq!(count().await, 5_001, "the other share has room");
}

async fn retention_removes_bodies_and_never_identities(database: Database) {
    let test = TestStore::new(database).await;
    let messages = Messages::new();
    for number in 0..3 {
        let message = messages.notification(number).await;
        test.store.accept(message).await.expect("accepted");
    }
    let later = Retention {
        notifications_before: START.after(HOUR),
        ..retention()
    };
    assert_eq!(test.retain(later.clone()).await.notification_bodies, 3);
    assert_eq!(test.retain(later).await.notification_bodies, 0);
    let rows = test.store.notifications(0, 10).await.expect("readable");
    for row in &rows {
        let stored = test.store.notification(row.id).await.expect("readable");
        assert!(stored.expect("the row is kept").body.is_none());
    }
    assert_eq!(rows[2].message_id, message_id(2));
    let again = messages.notification(1).await;
    let accepted = test.store.accept(again).await;
    assert_eq!(accepted.expect("answered"), Insertion::Duplicate);
}

async fn an_unclear_notification_triggers_all_feeds_once_in_a_while(database: Database) {
    let mut test = TestStore::new(database).await;
    let messages = Messages::new();
    let stranger = Feed::exported(
        Account::parse("another").expect("a name"),
        Company::parse("1").expect("a code"),
    );
    let feeds = vec![
        company("1"),
        company("2"),
        Feed::digitized(account()),
        stranger,
    ];
    let registered = test.store.register_feeds(feeds, START);
    registered.await.expect("stored");
    test.drain().await;
    let pulled = async |test: &TestStore, number| {
        let mut message = messages.notification(number).await;
        message.triggers = Triggers::AllFeeds;
        test.store.accept(message).await.expect("accepted");
        let mut served = test.drain().await;
        served.retain(|kind| *kind == TriggerKind::Notification);
        served.len()
    };
    assert_eq!(pulled(&test, 1).await, 2, "both feeds of its event");
    assert_eq!(pulled(&test, 2).await, 0);
    // A restart does not forget it.
    test = test.reopen().await;
    assert_eq!(pulled(&test, 3).await, 0);
    let later =
        |by: &str| format!("UPDATE unclear_notification SET triggered_at = triggered_at {by}");
    test.database.run(&later("- 299000")).await;
    assert_eq!(pulled(&test, 4).await, 0);
    test.database.run(&later("- 1001")).await;
    assert_eq!(pulled(&test, 5).await, 2);
    // A clock that was ahead for a moment does not silence it for long.
    test.database.run(&later("+ 86400000")).await;
    assert_eq!(pulled(&test, 6).await, 2);
    let counts = test.store.unclear_notifications().await.expect("readable");
    assert_eq!((counts.len(), counts[0].total), (1, 6));
}
