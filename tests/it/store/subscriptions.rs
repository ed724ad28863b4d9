//! Subscriptions: requested, confirmed, replaced and ended.

use std::time::Duration;

use ivesk_webhook::domain::{Event, Timestamp};
use ivesk_webhook::sns::MessageType;
use ivesk_webhook::store::{SubscriptionChange, SubscriptionRow, SubscriptionState};

use super::messages::Messages;
use super::test_store::{START, TestStore, account};
use crate::support::databases::{Database, on_both_stores};
use crate::support::sns::TOPIC;

const CONFIRMATION: MessageType = MessageType::SubscriptionConfirmation;
const UNSUBSCRIPTION: MessageType = MessageType::UnsubscribeConfirmation;

on_both_stores! {
    a_confirmation_is_pending_and_then_confirmed_once,
    subscribing_again_reuses_the_topics_row,
    in_ask_mode_a_confirmation_waits_for_approval,
    an_unsubscription_older_than_the_confirmation_is_ignored,
}

/// A store that requests subscriptions and accepts SNS's answers.
struct Scene {
    test: TestStore,
    messages: Messages,
}

impl Scene {
    fn new(test: TestStore) -> Self {
        Self {
            test,
            messages: Messages::new(),
        }
    }

    async fn request(&self, name: &str) {
        let store = &self.test.store;
        let requested =
            store.subscription_requested(account(), Event::OnExported, name.to_owned(), START);
        requested.await.expect("the request is recorded");
    }

    async fn accept(&self, number: u32, message_type: MessageType, published: Timestamp) {
        let message = self.messages.message(number, message_type, published).await;
        self.test.store.accept(message).await.expect("accepted");
    }

    async fn change(&self, id: i64, change: SubscriptionChange) -> SubscriptionRow {
        let changed = self.test.store.change_subscription(id, change, START).await;
        changed.expect("answered").expect("allowed")
    }

    async fn rows(&self) -> Vec<SubscriptionRow> {
        let rows = self.test.store.subscriptions().await;
        rows.expect("readable")
    }

    async fn states(&self) -> Vec<(SubscriptionState, Option<String>)> {
        let rows = self.rows().await.into_iter();
        rows.map(|row| (row.state, row.name)).collect()
    }
}

fn seconds(number: u64) -> Timestamp {
    START.after(Duration::from_secs(number))
}

async fn a_confirmation_is_pending_and_then_confirmed_once(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    scene.request("hook").await;
    for _ in 0..2 {
        scene.accept(1, CONFIRMATION, START).await;
    }
    let rows = scene.rows().await;
    assert_eq!(rows.len(), 1, "the requested row");
    assert_eq!(
        (rows[0].state, rows[0].name.as_deref()),
        (SubscriptionState::Pending, Some("hook"))
    );
    assert_eq!(rows[0].next_try_at, Some(START));
    let confirmed = SubscriptionChange::Confirmed {
        subscription_arn: format!("{TOPIC}:1"),
    };
    let row = scene.change(rows[0].id, confirmed).await;
    assert_eq!(row.state, SubscriptionState::Confirmed);
    assert!(row.subscribe_url.is_none());
}

async fn subscribing_again_reuses_the_topics_row(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    let named = |state, name: &str| (state, Some(name.to_owned()));
    scene.request("first").await;
    scene.accept(1, CONFIRMATION, seconds(1)).await;
    scene.request("second").await;
    scene.request("third").await;
    scene.accept(2, UNSUBSCRIPTION, seconds(2)).await;
    assert_eq!(
        scene.states().await,
        [
            named(SubscriptionState::Unsubscribed, "first"),
            named(SubscriptionState::Requested, "second"),
            named(SubscriptionState::Requested, "third"),
        ],
        "an unsubscription answers no request"
    );
    scene.accept(3, CONFIRMATION, seconds(3)).await;
    assert_eq!(
        scene.states().await,
        [
            named(SubscriptionState::Pending, "second"),
            named(SubscriptionState::Requested, "third"),
        ]
    );
    scene.accept(4, CONFIRMATION, seconds(4)).await;
    assert_eq!(
        scene.states().await,
        [named(SubscriptionState::Pending, "third")],
        "each confirmation answers one request"
    );
}

async fn in_ask_mode_a_confirmation_waits_for_approval(database: Database) {
    let test = TestStore::with(database, |options| options.ask = true).await;
    let scene = Scene::new(test);
    scene.accept(1, CONFIRMATION, START).await;
    let row = scene.rows().await.remove(0);
    assert_eq!(
        (row.state, row.next_try_at),
        (SubscriptionState::AwaitingApproval, None)
    );
    let row = scene.change(row.id, SubscriptionChange::Approved).await;
    assert_eq!(
        (row.state, row.next_try_at),
        (SubscriptionState::Pending, Some(START))
    );
}

async fn an_unsubscription_older_than_the_confirmation_is_ignored(database: Database) {
    let scene = Scene::new(TestStore::new(database).await);
    scene.accept(1, CONFIRMATION, seconds(60)).await;
    scene.accept(2, UNSUBSCRIPTION, START).await;
    assert_eq!(scene.rows().await[0].state, SubscriptionState::Pending);
    scene.accept(3, UNSUBSCRIPTION, seconds(120)).await;
    assert_eq!(scene.rows().await[0].state, SubscriptionState::Unsubscribed);
}
