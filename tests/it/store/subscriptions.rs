//! Subscriptions: requested, offered, confirmed, heard, ended and refused.

use std::sync::Arc;
use std::time::Duration;

use ivesk_webhook::domain::{Account, Clock, Event, Timestamp};
use ivesk_webhook::emulator::signer::Unsigned;
use ivesk_webhook::sns::{Genuine, MessageType, Verifier};
use ivesk_webhook::store::{
    AcceptedMessage, IN_REQUEST, MAX_UNKNOWN_TOPICS, StoreError, SubscriptionChange,
    SubscriptionRow, SubscriptionState, Triggers, UnknownTopicOffer,
};
use secrecy::{ExposeSecret as _, SecretString};

use super::test_store::{HOUR, START, TestStore, account};
use crate::support::databases::{Database, on_both_stores};
use crate::support::sns::{
    SIGNER, STRANGERS_TOPIC, TOKEN, TOPIC, parse, sns_url, unsigned, verifier_at,
};

use SubscriptionState::{
    AwaitingApproval, Confirmed, Failed, Pending, Requested, UnknownTopic, Unsubscribed,
};

on_both_stores! {
    a_confirmation_is_pending_and_then_confirmed_once,
    repeated_requests_leave_one_waiting_row,
    a_refused_request_is_withdrawn_until_sns_has_answered,
    the_newest_offer_of_a_topic_waits_in_any_order,
    in_ask_mode_a_confirmation_waits_for_approval,
    only_the_subscription_that_is_named_ends,
    an_end_without_a_name_ends_the_only_one_it_can_mean,
    an_end_older_than_the_confirmation_is_ignored,
    a_later_notification_clears_the_end_in_any_order,
    a_later_notification_clears_the_end_in_one_group,
    ended_subscriptions_are_bounded,
    being_heard_is_written_once_a_minute,
    a_notification_of_an_unrecorded_subscription_records_it,
    a_target_that_is_subscribed_again_stays_one_row,
    an_end_that_overtakes_the_confirmation_counts,
    a_visit_changes_only_the_token_that_it_presented,
    a_failed_confirmation_has_a_way_out,
    unknown_topics_wait_within_a_bound,
    approving_an_unknown_topic_allows_exactly_it,
    an_unknown_topic_approved_too_late_must_be_requested_again,
    a_message_of_a_revoked_topic_is_not_stored,
}

/// A store that requests subscriptions and accepts SNS's answers.
struct Scene {
    test: TestStore,
    verifier: Verifier,
}

/// The ARN of the subscription with this id.
fn arn(id: &str) -> String {
    format!("{TOPIC}:{id}")
}

/// SNS's own words.
fn end_of(subscription_arn: &str) -> String {
    format!(
        "You have chosen to deactivate subscription {subscription_arn}.\nTo cancel this operation \
         and restore the subscription, visit the SubscribeURL included in this message."
    )
}

fn minutes(number: u64) -> Timestamp {
    START.after(Duration::from_secs(60 * number))
}

/// Returns a message that SNS sent at this moment; `number` identifies it.
fn sent(number: u32, message_type: MessageType, at: Timestamp) -> Unsigned {
    let message = unsigned(message_type);
    let token = format!("token{number}");
    Unsigned {
        message_id: format!("00000000-0000-4000-8000-{number:012}"),
        timestamp: at.to_string(),
        subscribe_url: message.subscribe_url.map(|url| url.replace(TOKEN, &token)),
        token: message.token.map(|_| token),
        ..message
    }
}

fn offer(number: u32, at: Timestamp) -> Unsigned {
    sent(number, MessageType::SubscriptionConfirmation, at)
}

fn notification(number: u32, at: Timestamp) -> Unsigned {
    sent(number, MessageType::Notification, at)
}

fn ended(number: u32, subscription_arn: &str, at: Timestamp) -> Unsigned {
    Unsigned {
        message: end_of(subscription_arn),
        ..sent(number, MessageType::UnsubscribeConfirmation, at)
    }
}

fn of_topic(message: Unsigned, topic_arn: &str) -> Unsigned {
    Unsigned {
        subscribe_url: message
            .subscribe_url
            .map(|url| url.replace(TOPIC, topic_arn)),
        topic_arn: topic_arn.to_owned(),
        ..message
    }
}

impl Scene {
    fn new(test: TestStore) -> Self {
        Self {
            test,
            verifier: verifier_at(Clock::manual(START)),
        }
    }

    async fn request(&self, name: &str) -> i64 {
        let store = &self.test.store;
        let requested =
            store.subscription_requested(account(), Event::OnExported, name.to_owned(), START);
        requested.await.expect("the request is recorded")
    }

    async fn genuine(&self, message: &Unsigned) -> (Genuine, Timestamp) {
        let at = Timestamp::parse(&message.timestamp).expect("a moment");
        let body = SIGNER.sign(message, 2, &sns_url(&SIGNER));
        let envelope = parse(&body).expect("well-formed");
        let genuine = self.verifier.classify_at(envelope, at).await;
        (genuine.expect("a genuine message"), at)
    }

    async fn verified(&self, account: Account, message: &Unsigned) -> AcceptedMessage {
        let (Genuine::Message(verified), received_at) = self.genuine(message).await else {
            panic!("its topic is not allowed");
        };
        AcceptedMessage {
            account,
            event: Event::OnExported,
            message: verified,
            received_at,
            triggers: Triggers::Nothing,
            needs_approval: false,
        }
    }

    async fn accept(&self, message: Unsigned) {
        self.accept_for(account(), message).await;
    }

    async fn accept_for(&self, account: Account, message: Unsigned) {
        let message = self.verified(account, &message).await;
        self.test.store.accept(message).await.expect("accepted");
    }

    async fn offer_unknown(&self, message: Unsigned) -> UnknownTopicOffer {
        let (Genuine::UnknownTopic(confirmation), at) = self.genuine(&message).await else {
            panic!("its topic is allowed");
        };
        let offered = self.test.store.offer_unknown_topic(
            account(),
            Event::OnExported,
            Arc::new(confirmation),
            at,
            at.before(48 * HOUR),
        );
        offered.await.expect("answered")
    }

    async fn try_change(&self, id: i64, change: SubscriptionChange) -> Option<SubscriptionRow> {
        let changed = self.test.store.change_subscription(id, change, START).await;
        changed.expect("answered")
    }

    async fn change(&self, id: i64, change: SubscriptionChange) -> SubscriptionRow {
        self.try_change(id, change).await.expect("allowed")
    }

    /// Confirms the pending subscription that has this token.
    async fn confirm(&self, token: &str, subscription_arn: &str) -> Option<SubscriptionRow> {
        let rows = self.rows().await;
        let row = rows.iter().find(|row| row.state == Pending)?;
        let confirmed = SubscriptionChange::Confirmed {
            token: token.to_owned().into(),
            subscription_arn: subscription_arn.to_owned(),
        };
        self.try_change(row.id, confirmed).await
    }

    async fn rows(&self) -> Vec<SubscriptionRow> {
        let rows = self.test.store.subscriptions().await;
        rows.expect("readable")
    }

    /// Returns each row's state and the id in its ARN.
    async fn states(&self) -> Vec<(SubscriptionState, Option<String>)> {
        let id = |row: &SubscriptionRow| {
            let arn = row.subscription_arn.as_deref()?;
            Some(arn.rsplit(':').next()?.to_owned())
        };
        let rows = self.rows().await;
        rows.iter().map(|row| (row.state, id(row))).collect()
    }
}

/// Returns a state with the id of an ARN, as [`Scene::states`] does.
fn known(state: SubscriptionState, id: &str) -> (SubscriptionState, Option<String>) {
    (state, Some(id.to_owned()))
}

fn token_of(row: &SubscriptionRow) -> Option<&str> {
    row.token.as_ref().map(|token| token.expose_secret())
}

fn approved() -> SubscriptionChange {
    SubscriptionChange::Approved {
        by: "user:1000".to_owned(),
        valid_since: Timestamp::from_millis(0),
    }
}

async fn a_confirmation_is_pending_and_then_confirmed_once(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    scene.request("hook").await;
    for _ in 0..2 {
        scene.accept(offer(1, START)).await;
    }
    let rows = scene.rows().await;
    assert_eq!(rows.len(), 1, "the requested row");
    assert_eq!(
        (rows[0].state, rows[0].name.as_deref()),
        (Pending, Some("hook"))
    );
    // Until then it is the request's, which visits SNS first.
    assert_eq!(rows[0].next_try_at, Some(START.after(IN_REQUEST)));
    let row = scene.confirm("token1", &arn("a")).await.expect("pending");
    assert_eq!((row.state, row.id), (Confirmed, rows[0].id));
    assert!(row.subscribe_url.is_none());
    assert_eq!(row.subscription_arn, Some(arn("a")));
}

async fn repeated_requests_leave_one_waiting_row(database: Database) {
    let test = TestStore::with(database, |options| options.ask = true).await;
    let scene = Scene::new(test);
    let first = scene.request("first").await;
    assert_eq!(scene.request("second").await, first, "two names, one wish");
    scene.accept(offer(1, minutes(1))).await;
    assert_eq!(scene.states().await, [(AwaitingApproval, None)]);
    assert_eq!(scene.request("third").await, first);
    scene.accept(offer(2, minutes(2))).await;

    let rows = scene.rows().await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0].name.as_deref(), Some("third"));
    assert_eq!(token_of(&rows[0]), Some("token2"));
}

async fn a_refused_request_is_withdrawn_until_sns_has_answered(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    let withdraw = async |id| {
        let withdrawn = scene.test.store.withdraw_subscription(id).await;
        withdrawn.expect("answered")
    };
    let id = scene.request("refused").await;
    assert!(withdraw(id).await);
    assert!(scene.rows().await.is_empty());
    assert!(!withdraw(id).await, "a second time");

    let id = scene.request("answered").await;
    scene.accept(offer(1, START)).await;
    assert!(!withdraw(id).await);
    assert_eq!(scene.states().await.len(), 1);
}

async fn the_newest_offer_of_a_topic_waits_in_any_order(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    for number in [2, 3, 1, 3, 2] {
        scene.accept(offer(number, minutes(number.into()))).await;
    }
    let rows = scene.rows().await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(token_of(&rows[0]), Some("token3"));
    assert_eq!(rows[0].last_message_at, Some(minutes(3)));
}

async fn in_ask_mode_a_confirmation_waits_for_approval(database: Database) {
    let test = TestStore::with(database, |options| options.ask = true).await;
    let scene = Scene::new(test);
    scene.accept(offer(1, START)).await;
    let row = scene.rows().await.remove(0);
    assert_eq!((row.state, row.next_try_at), (AwaitingApproval, None));
    let row = scene.change(row.id, approved()).await;
    assert_eq!((row.state, row.next_try_at), (Pending, Some(START)));
    assert!(scene.try_change(row.id, approved()).await.is_none());
    let allowed = scene.test.store.allowed_topics(10).await;
    assert!(allowed.expect("readable").is_empty(), "it was known");
}

/// An older subscription of the same topic ends: the live one is not concerned.
async fn only_the_subscription_that_is_named_ends(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    for (number, id) in [(1, "a"), (2, "b")] {
        scene.accept(offer(number, minutes(number.into()))).await;
        let confirmed = scene.confirm(&format!("token{number}"), &arn(id)).await;
        confirmed.expect("pending");
    }
    scene.accept(ended(3, &arn("a"), minutes(3))).await;
    assert_eq!(
        scene.states().await,
        [known(Unsubscribed, "a"), known(Confirmed, "b")]
    );
    // One that this store never knew.
    scene.accept(ended(4, &arn("z"), minutes(4))).await;
    let states = scene.states().await;
    assert_eq!(
        states,
        [
            known(Unsubscribed, "a"),
            known(Confirmed, "b"),
            known(Unsubscribed, "z")
        ]
    );
    // Restoring visits the URL of the one that is wanted.
    let row = scene
        .change(scene.rows().await[0].id, SubscriptionChange::Restored)
        .await;
    assert_eq!((row.state, token_of(&row)), (Pending, Some("token3")));
    let url = row.subscribe_url.as_ref().map(|url| url.expose_secret());
    assert!(url.is_some_and(|url| url.ends_with("token3")), "{url:?}");
    let restored = scene.confirm("token3", &arn("a")).await.expect("pending");
    assert_eq!(restored.id, row.id);
    assert_eq!(scene.states().await[0], known(Confirmed, "a"));
}

async fn an_end_without_a_name_ends_the_only_one_it_can_mean(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    let nameless = |number, at| sent(number, MessageType::UnsubscribeConfirmation, at);
    scene.accept(offer(1, START)).await;
    scene.confirm("token1", &arn("a")).await.expect("pending");
    scene.accept(nameless(2, minutes(1))).await;
    assert_eq!(scene.states().await, [known(Unsubscribed, "a")]);
    scene.accept(nameless(3, minutes(2))).await;
    assert_eq!(scene.states().await, [known(Unsubscribed, "a")]);
    // Of two live ones it could mean either.
    for (number, id) in [(4, "b"), (5, "c")] {
        scene.accept(offer(number, minutes(number.into()))).await;
        let token = format!("token{number}");
        scene.confirm(&token, &arn(id)).await.expect("pending");
    }
    scene.accept(nameless(6, minutes(6))).await;
    let states = scene.states().await;
    assert_eq!(
        states,
        [
            known(Unsubscribed, "a"),
            known(Confirmed, "b"),
            known(Confirmed, "c"),
            (Unsubscribed, None),
        ]
    );
}

async fn an_end_older_than_the_confirmation_is_ignored(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    let nameless = |number, at| sent(number, MessageType::UnsubscribeConfirmation, at);
    scene.accept(offer(1, minutes(1))).await;
    scene.accept(nameless(2, START)).await;
    assert_eq!(scene.states().await, [(Pending, None)]);
    scene.confirm("token1", &arn("a")).await.expect("pending");
    scene.accept(ended(3, &arn("a"), START)).await;
    assert_eq!(scene.states().await, [known(Confirmed, "a")]);
    scene.accept(ended(4, &arn("a"), minutes(2))).await;
    assert_eq!(scene.states().await, [known(Unsubscribed, "a")]);
}

/// Returns every order of these indexes.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in orders(count - 1) {
        for place in 0..count {
            let mut order = shorter.clone();
            order.insert(place, count - 1);
            all.push(order);
        }
    }
    all
}

async fn a_later_notification_clears_the_end_in_any_order(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    let mut number = 0;
    for order in orders(4) {
        // A webhook of its own.
        let account = Account::parse(&format!("account{number}")).expect("a name");
        let topic = format!("{TOPIC}{number}");
        let id = |id: &str| format!("{topic}:{id}");
        let accept = async |message| {
            let message = of_topic(message, &topic);
            scene.accept_for(account.clone(), message).await;
        };
        let states = async || {
            let mut rows = scene.rows().await;
            rows.retain(|row| row.account == account);
            rows.iter()
                .map(|row| (row.subscription_arn.clone(), row.state, row.last_heard_at))
                .collect::<Vec<_>>()
        };
        let first = number + 1;
        number += 10;
        accept(offer(first, START)).await;
        let confirmed = scene.confirm(&format!("token{first}"), &id("a")).await;
        confirmed.expect("pending");
        let messages = [
            notification(first + 1, minutes(2)),
            ended(first + 2, &id("a"), minutes(4)),
            notification(first + 3, minutes(6)),
            ended(first + 4, &id("z"), minutes(8)),
        ];
        for place in &order {
            for _ in 0..2 {
                accept(messages[*place].clone()).await;
            }
        }
        let heard = Some(minutes(6));
        let expected = [
            (Some(id("a")), Confirmed, heard),
            (Some(id("z")), Unsubscribed, None),
        ];
        let mut found = states().await;
        found.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(found, expected, "{order:?}");
        // It ends again, and only a notification from before follows.
        accept(ended(first + 5, &id("a"), minutes(9))).await;
        accept(notification(first + 6, minutes(7))).await;
        let ended = states().await;
        assert!(ended.iter().all(|row| row.1 == Unsubscribed), "{order:?}");
    }
}

/// The subscription was heard shortly before, so that the notification alone would change nothing.
async fn a_later_notification_clears_the_end_in_one_group(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    let second = |number: u64| START.after(Duration::from_secs(number));
    scene.accept(offer(1, START)).await;
    scene.confirm("token1", &arn("a")).await.expect("pending");
    scene.accept(notification(2, START)).await;
    // While the first is stored, the others gather.
    let messages = [
        scene.verified(account(), &notification(3, second(1))).await,
        scene
            .verified(account(), &ended(4, &arn("a"), second(2)))
            .await,
        scene.verified(account(), &notification(5, second(3))).await,
    ];
    let stored = messages.map(|message| scene.test.store.accept(message));
    for stored in futures_util::future::join_all(stored).await {
        stored.expect("accepted");
    }
    assert_eq!(scene.states().await, [known(Confirmed, "a")]);
    assert_eq!(scene.rows().await[0].last_heard_at, Some(second(3)));
}

async fn ended_subscriptions_are_bounded(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    for number in 1..40 {
        let id = format!("{number}");
        let at = minutes(number.into());
        scene.accept(ended(number, &arn(&id), at)).await;
    }
    let states = scene.states().await;
    assert_eq!(states.len(), 20);
    assert!(states.contains(&known(Unsubscribed, "39")));
    assert!(!states.contains(&known(Unsubscribed, "19")));
}

async fn being_heard_is_written_once_a_minute(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    scene.accept(offer(1, START)).await;
    scene.confirm("token1", &arn("a")).await.expect("pending");
    let seconds = |number: u64| START.after(Duration::from_secs(number));
    let heard = async || scene.rows().await[0].last_heard_at;
    assert_eq!(heard().await, None);
    for (number, at, expected) in [
        (2, 10, 10),
        (3, 69, 10),
        (4, 70, 70),
        // A retry of an old one.
        (5, 20, 70),
        (6, 200, 200),
    ] {
        scene.accept(notification(number, seconds(at))).await;
        assert_eq!(heard().await, Some(seconds(expected)), "{at}");
    }
    assert_eq!(scene.rows().await[0].changed_at, START);
}

async fn a_notification_of_an_unrecorded_subscription_records_it(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    scene.accept(notification(1, minutes(1))).await;
    scene.accept(notification(2, minutes(2))).await;
    assert_eq!(scene.states().await, [(Confirmed, None)]);
    // Once it is confirmed here too, it is one row with its ARN.
    scene.accept(offer(3, minutes(3))).await;
    scene.confirm("token3", &arn("a")).await.expect("pending");
    assert_eq!(scene.states().await, [known(Confirmed, "a")]);
    assert_eq!(scene.rows().await[0].last_heard_at, Some(minutes(2)));
}

async fn a_target_that_is_subscribed_again_stays_one_row(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    for number in 1..4 {
        let name = format!("hook{number}");
        scene.request(&name).await;
        scene.accept(offer(number, minutes(number.into()))).await;
        let token = format!("token{number}");
        let row = scene.confirm(&token, &arn("a")).await.expect("pending");
        assert_eq!(row.name, Some(name));
        assert_eq!(scene.states().await, [known(Confirmed, "a")]);
    }
}

/// The visit is answered, the subscription ends, and only then the visit is recorded.
async fn an_end_that_overtakes_the_confirmation_counts(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    scene.accept(offer(1, START)).await;
    scene.accept(ended(2, &arn("a"), minutes(1))).await;
    scene.confirm("token1", &arn("a")).await.expect("pending");
    assert_eq!(scene.states().await, [known(Unsubscribed, "a")]);
    let row = scene.rows().await.remove(0);
    assert_eq!(token_of(&row), Some("token2"), "it can be restored");
    scene.change(row.id, SubscriptionChange::Restored).await;
    scene.confirm("token2", &arn("a")).await.expect("pending");
    assert_eq!(scene.states().await, [known(Confirmed, "a")]);
}

async fn a_visit_changes_only_the_token_that_it_presented(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    scene.accept(offer(1, START)).await;
    let id = scene.rows().await[0].id;
    scene.accept(offer(2, minutes(1))).await;
    let failed = |token: &str| SubscriptionChange::AttemptFailed {
        token: Some(SecretString::from(token.to_owned())),
        error: "no".to_owned(),
        next_try_at: None,
    };
    assert!(scene.try_change(id, failed("token1")).await.is_none());
    assert!(scene.confirm("token1", &arn("a")).await.is_none());
    assert_eq!(scene.states().await, [(Pending, None)]);
    assert_eq!(scene.change(id, failed("token2")).await.state, Failed);
    // A second replica's visit of the same token comes too late.
    assert!(scene.try_change(id, failed("token2")).await.is_none());
}

async fn a_failed_confirmation_has_a_way_out(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    scene.accept(offer(1, START)).await;
    let id = scene.rows().await[0].id;
    let failed = |token: &str, next_try_at| SubscriptionChange::AttemptFailed {
        token: Some(SecretString::from(token.to_owned())),
        error: "SNS rejected it".to_owned(),
        next_try_at,
    };
    let row = scene.change(id, failed("token1", Some(minutes(1)))).await;
    assert_eq!((row.state, row.attempts), (Pending, 1));
    let row = scene.change(id, failed("token1", None)).await;
    assert_eq!((row.state, row.next_try_at), (Failed, None));
    assert_eq!(row.last_error.as_deref(), Some("SNS rejected it"));
    // By hand, with the same token.
    let row = scene.change(id, SubscriptionChange::Restored).await;
    assert_eq!(
        (row.state, row.attempts, row.last_error),
        (Pending, 0, None)
    );
    scene.change(id, failed("token1", None)).await;
    // By subscribing again.
    assert_eq!(scene.request("again").await, id);
    assert_eq!(scene.states().await, [(Requested, None)]);
    scene.accept(offer(2, minutes(2))).await;
    let row = scene.confirm("token2", &arn("a")).await.expect("pending");
    assert_eq!((row.id, row.name.as_deref()), (id, Some("again")));
    assert_eq!(scene.states().await, [known(Confirmed, "a")]);

    // Or it turns out to live.
    scene.accept(offer(3, minutes(3))).await;
    let id = scene.rows().await[1].id;
    scene.change(id, failed("token3", None)).await;
    scene.accept(ended(4, &arn("a"), minutes(4))).await;
    scene.accept(notification(5, minutes(5))).await;
    let states = scene.states().await;
    assert_eq!(states, [known(Confirmed, "a"), (Failed, None)]);
}

async fn unknown_topics_wait_within_a_bound(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    let strangers =
        |number: u32, at| of_topic(offer(number, at), &format!("{STRANGERS_TOPIC}{number}"));
    scene.request("hook").await;
    let first = scene.offer_unknown(strangers(1, START)).await;
    let UnknownTopicOffer::New(id) = first else {
        panic!("{first:?}");
    };
    let again = scene.offer_unknown(strangers(1, START)).await;
    assert_eq!(again, UnknownTopicOffer::Known(id));
    let rows = scene.rows().await;
    assert_eq!(rows.len(), 1, "the request's row");
    assert_eq!(rows[0].name.as_deref(), Some("hook"));
    assert_eq!((rows[0].state, rows[0].next_try_at), (UnknownTopic, None));
    let bound = u32::try_from(MAX_UNKNOWN_TOPICS).expect("a small number");
    for number in 2..bound + 10 {
        let offered = scene.offer_unknown(strangers(number, START)).await;
        let has_room = number <= bound;
        assert_eq!(
            matches!(offered, UnknownTopicOffer::New(_)),
            has_room,
            "{number}"
        );
        assert_eq!(offered == UnknownTopicOffer::TooMany, !has_room);
    }
    assert_eq!(scene.rows().await.len(), bound as usize);
    // One that waits already still takes a newer token, and an older one changes nothing.
    let newer = of_topic(offer(100, minutes(5)), &format!("{STRANGERS_TOPIC}1"));
    let older = of_topic(offer(101, minutes(2)), &format!("{STRANGERS_TOPIC}1"));
    for message in [newer, older] {
        scene.offer_unknown(message).await;
        assert_eq!(token_of(&scene.rows().await[0]), Some("token100"));
    }
    // Those whose token has expired make room.
    let later = START.after(49 * HOUR);
    let offered = scene.offer_unknown(strangers(200, later)).await;
    assert!(matches!(offered, UnknownTopicOffer::New(_)), "{offered:?}");
    let rows = scene.rows().await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(token_of(&rows[0]), Some("token200"));
    // They never become messages.
    let notifications = scene.test.store.notifications(0, 10).await;
    assert!(notifications.expect("readable").is_empty());
}

async fn approving_an_unknown_topic_allows_exactly_it(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    let offered = scene
        .offer_unknown(of_topic(offer(1, START), STRANGERS_TOPIC))
        .await;
    let UnknownTopicOffer::New(id) = offered else {
        panic!("{offered:?}");
    };
    let other = scene
        .offer_unknown(of_topic(offer(2, START), &format!("{STRANGERS_TOPIC}2")))
        .await;
    assert!(
        scene
            .try_change(id, SubscriptionChange::Restored)
            .await
            .is_none()
    );
    let stores = [&scene.test.store, &scene.test.store];
    // Two people at once.
    let approvals = stores.map(|store| store.change_subscription(id, approved(), START));
    let approved = futures_util::future::join_all(approvals).await;
    let rows: Vec<_> = approved
        .into_iter()
        .filter_map(|row| row.expect("answered"))
        .collect();
    assert_eq!(rows.len(), 1, "one of them approved it");
    assert_eq!((rows[0].state, rows[0].next_try_at), (Pending, Some(START)));

    let store = &scene.test.store;
    let allowed = store.allowed_topics(10).await.expect("readable");
    assert_eq!(allowed.len(), 1, "{allowed:?}");
    assert_eq!(allowed[0].topic_arn, STRANGERS_TOPIC);
    assert_eq!(allowed[0].allowed_by, "user:1000");
    for (topic, expected) in [
        (STRANGERS_TOPIC.to_owned(), true),
        (format!("{STRANGERS_TOPIC}2"), false),
        (TOPIC.to_owned(), false),
    ] {
        let is_allowed = store.is_topic_allowed(topic.clone()).await;
        assert_eq!(is_allowed.expect("readable"), expected, "{topic}");
    }
    let rows = scene.rows().await;
    assert_eq!(rows[1].state, UnknownTopic);
    assert_eq!(UnknownTopicOffer::New(rows[1].id), other);
    // It is kept.
    let Scene { test, .. } = scene;
    let test = test.reopen().await;
    let allowed = test.store.allowed_topics(10).await.expect("readable");
    assert_eq!(allowed.len(), 1, "{allowed:?}");
}

async fn an_unknown_topic_approved_too_late_must_be_requested_again(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    let offered = scene
        .offer_unknown(of_topic(offer(1, START), STRANGERS_TOPIC))
        .await;
    let UnknownTopicOffer::New(id) = offered else {
        panic!("{offered:?}");
    };
    let too_late = SubscriptionChange::Approved {
        by: "user:1000".to_owned(),
        valid_since: minutes(1),
    };
    let row = scene.change(id, too_late).await;
    assert_eq!(row.state, Failed);
    assert!(
        row.last_error
            .is_some_and(|error| error.contains("subscribe again"))
    );
    assert!(row.token.is_none());
    let allowed = scene
        .test
        .store
        .is_topic_allowed(STRANGERS_TOPIC.to_owned());
    assert!(allowed.await.expect("readable"));
}

async fn a_message_of_a_revoked_topic_is_not_stored(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    let offered = scene
        .offer_unknown(of_topic(offer(1, START), STRANGERS_TOPIC))
        .await;
    let UnknownTopicOffer::New(id) = offered else {
        panic!("{offered:?}");
    };
    scene.change(id, approved()).await;
    // The store knows topics by their ARN alone, so one that the verifier allows stands in.
    let store = &scene.test.store;
    let allow = || store.change_subscription(id, approved(), START);
    assert!(allow().await.expect("answered").is_none(), "it is allowed");
    let of = async |number, needs_approval| AcceptedMessage {
        needs_approval,
        ..scene
            .verified(account(), &notification(number, START))
            .await
    };
    let refused = store.accept(of(2, true).await).await;
    assert!(
        matches!(refused, Err(StoreError::TopicNotAllowed)),
        "{refused:?}"
    );
    // Others of its group are stored.
    let (one, another) = futures_util::future::join(
        store.accept(of(3, true).await),
        store.accept(of(4, false).await),
    )
    .await;
    assert!(matches!(one, Err(StoreError::TopicNotAllowed)), "{one:?}");
    another.expect("it needs no approval");
    assert_eq!(store.notifications(0, 10).await.expect("readable").len(), 1);

    let revoked = store.disallow_topic(STRANGERS_TOPIC.to_owned()).await;
    assert_eq!(revoked.expect("answered"), Some(1), "its subscription");
    let again = store.disallow_topic(STRANGERS_TOPIC.to_owned()).await;
    assert_eq!(again.expect("answered"), None);
    let allowed = store.is_topic_allowed(STRANGERS_TOPIC.to_owned()).await;
    assert!(!allowed.expect("readable"));
    let rows = scene.rows().await;
    assert!(
        rows.iter()
            .all(|row| row.topic_arn.as_deref() != Some(STRANGERS_TOPIC)),
        "{rows:?}"
    );
}
