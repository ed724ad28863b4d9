//! Subscriptions: requests, confirmations and their states.

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::columns::{named, named_columns};
use super::engine::{Fragment, Param, SUBSCRIPTIONS_LOCK, Sql, Tx, operations, params, rows};
use super::error::Result;
use super::messages::AcceptedMessage;
use super::row_ids::account_id;
use crate::domain::{Account, Event, Timestamp};
use crate::sns::MessageType;

named! {
    /// The state of a subscription.
    pub enum SubscriptionState {
        /// It was requested from the vendor; no message of SNS has arrived yet.
        Requested = "requested",
        /// SNS sent a confirmation request, which a person must approve.
        AwaitingApproval = "awaiting_approval",
        /// SNS sent a confirmation request; `SubscribeURL` is to be visited.
        Pending = "pending",
        /// `SubscribeURL` was visited and SNS returned the subscription's ARN.
        Confirmed = "confirmed",
        /// SNS announced its end.
        Unsubscribed = "unsubscribed",
    }
}

named_columns! { SubscriptionState: "subscription state", name => Self::parse(&name); }

/// A subscription.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct SubscriptionRow {
    /// The row.
    pub id: i64,
    /// The webhook's account.
    pub account: Account,
    /// The webhook's event.
    pub event: Event,
    /// The name sent to the vendor, if this program requested it.
    pub name: Option<String>,
    /// The topic, once a message of SNS has arrived.
    pub topic_arn: Option<String>,
    /// The subscription's ARN, once confirmed.
    pub subscription_arn: Option<String>,
    /// Its state.
    pub state: SubscriptionState,
    /// When the row was added.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub changed_at: Timestamp,
    /// When `SubscribeURL` is visited next.
    pub next_try_at: Option<Timestamp>,
    /// Failed visits of `SubscribeURL`.
    pub attempts: u32,
    /// The last failure.
    pub last_error: Option<String>,
    /// The signed `SubscribeURL`; a secret.
    #[serde(skip)]
    pub subscribe_url: Option<SecretString>,
    /// The signed `Token`; a secret.
    #[serde(skip)]
    pub token: Option<SecretString>,
}

/// A change of a subscription.
#[derive(Clone, Debug)]
pub enum SubscriptionChange {
    /// A person approved it: [`SubscriptionState::Pending`], due now.
    Approved,
    /// SNS confirmed it under this ARN.
    Confirmed {
        /// The subscription's ARN.
        subscription_arn: String,
    },
    /// Visiting `SubscribeURL` failed.
    AttemptFailed {
        /// The failure, without the URL.
        error: String,
        /// When it is retried; `None` if it is not.
        next_try_at: Option<Timestamp>,
    },
    /// A person restored an ended subscription: its `SubscribeURL` is due now.
    Restored,
}

operations! {
    /// Lists all subscriptions.
    pub read subscriptions() -> Vec<SubscriptionRow>;

    /// Records that a subscription was requested from the vendor; returns its row. Repeated
    /// requests are one row until a message of SNS arrives.
    pub write subscription_requested(account: Account, event: Event, name: String, now: Timestamp)
        -> i64;

    /// Changes a subscription; `None` if the row does not exist or its state does not
    /// allow the change.
    pub write change_subscription(id: i64, change: SubscriptionChange, now: Timestamp)
        -> Option<SubscriptionRow>;
}

/// Selects the columns of a [`SubscriptionRow`].
const ROWS: Fragment = Fragment::Same(
    "SELECT s.id, a.name, s.event, s.name, s.topic_arn, s.subscription_arn, s.state, s.created_at,
         s.changed_at, s.next_try_at, s.attempts, s.last_error, s.subscribe_url, s.token
     FROM subscription s JOIN account a ON a.id = s.account_id",
);

rows! {
    SubscriptionRow {
        id, account, event, name, topic_arn, subscription_arn, state, created_at, changed_at,
        next_try_at, attempts, last_error, subscribe_url, token,
    }
}

async fn subscriptions<T: Tx>(tx: &mut T) -> Result<Vec<SubscriptionRow>> {
    static SQL: Sql = Sql::with("{rows} ORDER BY s.id", &[("rows", ROWS)]);
    tx.all(&SQL, &[]).await
}

async fn subscription_requested<T: Tx>(
    tx: &mut T,
    account: Account,
    event: Event,
    name: String,
    now: Timestamp,
) -> Result<i64> {
    static FIND: Sql = Sql::new(
        "SELECT id FROM subscription WHERE account_id = $1 AND event = $2 AND name = $3 AND state = 'requested'",
    );
    static INSERT: Sql = Sql::new(
        "INSERT INTO subscription (account_id, event, name, state, created_at, changed_at)
         VALUES ($1, $2, $3, 'requested', $4, $4) RETURNING id",
    );
    // Two replicas may change the same one at once.
    tx.lock(SUBSCRIPTIONS_LOCK).await?;
    let account = account_id(tx, &account).await?;
    match tx.first(&FIND, &[&account, &event, &name]).await? {
        Some(waiting) => Ok(waiting),
        None => tx.one(&INSERT, &[&account, &event, &name, &now]).await,
    }
}

/// Sets a new state, without earlier failures.
const SET_STATE: Fragment = Fragment::Same(
    "UPDATE subscription SET state = $2, changed_at = $3, next_try_at = $4, attempts = 0, last_error = NULL",
);

async fn change_subscription<T: Tx>(
    tx: &mut T,
    id: i64,
    change: SubscriptionChange,
    now: Timestamp,
) -> Result<Option<SubscriptionRow>> {
    static APPROVE: Sql = Sql::with(
        "{set_state} WHERE id = $1 AND state = 'awaiting_approval'",
        &[("set_state", SET_STATE)],
    );
    // Also retries by hand a pending subscription whose visits failed.
    static RESTORE: Sql = Sql::with(
        "{set_state} WHERE id = $1 AND state IN ('unsubscribed', 'pending') AND subscribe_url IS NOT NULL",
        &[("set_state", SET_STATE)],
    );
    static CONFIRM: Sql = Sql::with(
        "{set_state}, subscription_arn = $5, subscribe_url = NULL, token = NULL
         WHERE id = $1 AND state = 'pending'",
        &[("set_state", SET_STATE)],
    );
    static FAIL: Sql = Sql::new(
        "UPDATE subscription SET attempts = attempts + 1, last_error = $2, next_try_at = $3
         WHERE id = $1 AND state = 'pending'",
    );
    static FIND: Sql = Sql::with("{rows} WHERE s.id = $1", &[("rows", ROWS)]);
    tx.lock(SUBSCRIPTIONS_LOCK).await?;
    let (pending, confirmed) = (SubscriptionState::Pending, SubscriptionState::Confirmed);
    let changed = match change {
        SubscriptionChange::Approved => tx.execute(&APPROVE, &[&id, &pending, &now, &now]).await?,
        SubscriptionChange::Restored => tx.execute(&RESTORE, &[&id, &pending, &now, &now]).await?,
        SubscriptionChange::Confirmed { subscription_arn } => {
            let never = None::<Timestamp>;
            let params: [&dyn Param; 5] = [&id, &confirmed, &now, &never, &subscription_arn];
            tx.execute(&CONFIRM, &params).await?
        }
        SubscriptionChange::AttemptFailed { error, next_try_at } => {
            tx.execute(&FAIL, &[&id, &error, &next_try_at]).await?
        }
    };
    if changed == 0 {
        return Ok(None);
    }
    tx.first(&FIND, &[&id]).await
}

/// Sets the state of the subscription of a message that is none of notification, unless it
/// reflects a newer message.
///
/// A requested subscription has no topic until the first message of SNS arrives. If its
/// topic has a row already, as after subscribing again, the request is merged into that row.
pub(super) async fn record_subscription<T: Tx>(
    tx: &mut T,
    account: i64,
    incoming: &AcceptedMessage,
    ask: bool,
) -> Result<()> {
    static FIND: Sql = Sql::new(
        "SELECT id, last_message_at, topic_arn IS NOT NULL FROM subscription
         WHERE account_id = $1 AND event = $2 AND (topic_arn = $3 OR (topic_arn IS NULL AND state = 'requested'))
         ORDER BY topic_arn IS NULL, id DESC LIMIT 1",
    );
    static INSERT: Sql = Sql::new(
        "INSERT INTO subscription (account_id, event, state, created_at, changed_at)
         VALUES ($1, $2, $3, $4, $4) RETURNING id",
    );
    static UPDATE: Sql = Sql::new(
        "UPDATE subscription SET topic_arn = $2, state = $3, changed_at = $4, last_message_at = $5, next_try_at = $6,
             attempts = 0, last_error = NULL, subscribe_url = $7, token = $8
         WHERE id = $1",
    );
    let (message, event) = (&incoming.message, incoming.event);
    let state = match message.message_type() {
        MessageType::Notification => return Ok(()),
        MessageType::SubscriptionConfirmation if ask => SubscriptionState::AwaitingApproval,
        MessageType::SubscriptionConfirmation => SubscriptionState::Pending,
        MessageType::UnsubscribeConfirmation => SubscriptionState::Unsubscribed,
    };
    tx.lock(SUBSCRIPTIONS_LOCK).await?;
    let (topic, message_at) = (message.topic_arn(), message.timestamp());
    let now = incoming.received_at;
    let found: Option<(i64, Option<Timestamp>, bool)> =
        tx.first(&FIND, &[&account, &event, &topic]).await?;
    let id = match found {
        Some((_, Some(newer), _)) if newer > message_at => return Ok(()),
        Some((id, _, of_this_topic)) => {
            if of_this_topic && message.message_type() == MessageType::SubscriptionConfirmation {
                merge_request(tx, id, account, event).await?;
            }
            id
        }
        None => tx.one(&INSERT, &[&account, &event, &state, &now]).await?,
    };
    let next_try_at = (state == SubscriptionState::Pending).then_some(now);
    let params = params! {
        id, topic, state, now, message_at, next_try_at,
        message.subscribe_url().map(ExposeSecret::expose_secret),
        message.token().map(ExposeSecret::expose_secret),
    };
    tx.run(&UPDATE, params).await
}

/// Merges the oldest unanswered request into subscription `id`, which takes its name.
async fn merge_request<T: Tx>(tx: &mut T, id: i64, account: i64, event: Event) -> Result<()> {
    static REMOVE: Sql = Sql::new(
        "DELETE FROM subscription WHERE id = (
             SELECT id FROM subscription
             WHERE account_id = $1 AND event = $2 AND topic_arn IS NULL AND state = 'requested'
             ORDER BY id LIMIT 1)
         RETURNING name",
    );
    static NAME: Sql = Sql::new("UPDATE subscription SET name = coalesce($2, name) WHERE id = $1");
    let request: Option<Option<String>> = tx.first(&REMOVE, &[&account, &event]).await?;
    match request {
        Some(name) => tx.run(&NAME, &[&id, &name]).await,
        None => Ok(()),
    }
}
