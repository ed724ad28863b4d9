//! Subscriptions: requests, confirmations and their states.

use secrecy::{ExposeSecret, SecretString};

use super::allowed_topics::allow_topic;
use super::columns::{named, named_columns};
use super::engine::{Fragment, SUBSCRIPTIONS_LOCK, Sql, Tx, operations, params, rows};
use super::error::Result;
use super::row_ids::account_id;
use crate::domain::{Account, Event, Timestamp};

named! {
    /// The state of a subscription.
    pub enum SubscriptionState {
        /// It was requested from the vendor; no message of SNS has arrived yet.
        Requested = "requested",
        /// SNS sent a genuine confirmation request of a topic that is not allowed: a person
        /// must find out who owns it.
        UnknownTopic = "unknown_topic",
        /// SNS sent a confirmation request, which a person must approve.
        AwaitingApproval = "awaiting_approval",
        /// SNS sent a confirmation request; `SubscribeURL` is to be visited.
        Pending = "pending",
        /// `SubscribeURL` was visited and SNS returned the subscription's ARN, or notifications
        /// of its topic arrive.
        Confirmed = "confirmed",
        /// It could not be confirmed: SNS rejected its token, or the token has expired.
        Failed = "failed",
        /// SNS announced its end.
        Unsubscribed = "unsubscribed",
    }
}

named_columns! { SubscriptionState: "subscription state", name => Self::parse(&name); }

/// A subscription.
#[derive(Clone, Debug)]
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
    /// The subscription's ARN, once it is known.
    pub subscription_arn: Option<String>,
    /// Its state.
    pub state: SubscriptionState,
    /// When the row was added.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub changed_at: Timestamp,
    /// When SNS sent the message that the row reflects.
    pub last_message_at: Option<Timestamp>,
    /// When its topic last sent a notification; exact to a minute.
    pub last_heard_at: Option<Timestamp>,
    /// When the worker visits `SubscribeURL` next.
    pub next_try_at: Option<Timestamp>,
    /// Failed visits of `SubscribeURL`.
    pub attempts: u32,
    /// The last failure.
    pub last_error: Option<String>,
    /// The signed `SubscribeURL`; a secret.
    pub subscribe_url: Option<SecretString>,
    /// The signed `Token`; a secret.
    pub token: Option<SecretString>,
}

impl SubscriptionRow {
    /// Returns its topic if that is the other event's, and messages of it may arrive.
    pub fn other_topic(&self) -> Option<&str> {
        let is_over = matches!(
            self.state,
            SubscriptionState::UnknownTopic
                | SubscriptionState::Failed
                | SubscriptionState::Unsubscribed
        );
        let topic_arn = self.topic_arn.as_deref().filter(|_| !is_over)?;
        (!self.event.fits_topic(topic_arn)).then_some(topic_arn)
    }
}

/// A change of a subscription.
#[derive(Clone, Debug)]
pub enum SubscriptionChange {
    /// A person approved it, and by that exactly its topic: [`SubscriptionState::Pending`], due
    /// now; but [`SubscriptionState::Failed`] if it is of an unknown topic and its token has
    /// expired.
    Approved {
        /// Who approved it.
        by: String,
        /// When the oldest token that is still valid was sent.
        valid_since: Timestamp,
    },
    /// SNS confirmed it under this ARN.
    Confirmed {
        /// The token that was presented; another one has its own visit.
        token: SecretString,
        /// The subscription's ARN.
        subscription_arn: String,
    },
    /// Visiting `SubscribeURL` failed.
    AttemptFailed {
        /// The token that was presented; another one has its own visit.
        token: Option<SecretString>,
        /// The failure, without the URL.
        error: String,
        /// When it is retried; `None` if it is not: [`SubscriptionState::Failed`].
        next_try_at: Option<Timestamp>,
    },
    /// A person restored an ended or failed subscription: its `SubscribeURL` is due now.
    Restored,
}

operations! {
    /// Lists all subscriptions.
    pub read subscriptions() -> Vec<SubscriptionRow>;

    /// Records that a subscription was requested from the vendor; returns its row. It becomes
    /// the row that already waits for the webhook, if there is one, so that repeated requests
    /// leave one.
    pub write subscription_requested(account: Account, event: Event, name: String, now: Timestamp)
        -> i64;

    /// Deletes a subscription that the vendor refused to make; false if it does not wait for SNS's
    /// first message.
    pub write withdraw_subscription(id: i64) -> bool;

    /// Changes a subscription; `None` if the row does not exist or its state does not
    /// allow the change.
    pub write change_subscription(id: i64, change: SubscriptionChange, now: Timestamp)
        -> Option<SubscriptionRow>;
}

async fn withdraw_subscription<T: Tx>(tx: &T, id: i64) -> Result<bool> {
    static SQL: Sql = Sql::new("DELETE FROM subscription WHERE id = $1 AND state = 'requested'");
    tx.lock(SUBSCRIPTIONS_LOCK).await?;
    Ok(tx.execute(&SQL, &[&id]).await? > 0)
}

/// Selects the columns of a [`SubscriptionRow`].
const ROWS: Fragment = Fragment::Same(
    "SELECT s.id, a.name, s.event, s.name, s.topic_arn, s.subscription_arn, s.state, s.created_at,
         s.changed_at, s.last_message_at, s.last_heard_at, s.next_try_at, s.attempts, s.last_error, s.subscribe_url, s.token
     FROM subscription s JOIN account a ON a.id = s.account_id",
);

rows! {
    SubscriptionRow {
        id, account, event, name, topic_arn, subscription_arn, state, created_at, changed_at,
        last_message_at, last_heard_at, next_try_at, attempts, last_error, subscribe_url, token,
    }
}

async fn subscriptions<T: Tx>(tx: &T) -> Result<Vec<SubscriptionRow>> {
    static SQL: Sql = Sql::with("{rows} ORDER BY s.id", &[("rows", ROWS)]);
    tx.all(&SQL, &[]).await
}

async fn subscription_requested<T: Tx>(
    tx: &T,
    account: Account,
    event: Event,
    name: String,
    now: Timestamp,
) -> Result<i64> {
    static FIND: Sql = Sql::new(
        "SELECT id FROM subscription WHERE account_id = $1 AND event = $2
             AND state IN ('requested', 'unknown_topic', 'awaiting_approval', 'pending', 'failed')
         ORDER BY state = 'requested' DESC, state = 'failed', id DESC LIMIT 1",
    );
    static RENAME: Sql = Sql::new("UPDATE subscription SET name = $2 WHERE id = $1");
    // A failed one begins again; the message that answers may name another topic.
    static RESTART: Sql = Sql::new(
        "UPDATE subscription SET state = 'requested', changed_at = $2, topic_arn = NULL, subscription_arn = NULL,
             last_message_at = NULL, next_try_at = NULL, attempts = 0, last_error = NULL, subscribe_url = NULL, token = NULL
         WHERE id = $1 AND state IN ('requested', 'failed')",
    );
    static INSERT: Sql = Sql::new(
        "INSERT INTO subscription (account_id, event, name, state, created_at, changed_at)
         VALUES ($1, $2, $3, 'requested', $4, $4) RETURNING id",
    );
    let account = account_id(tx, &account).await?;
    // Two replicas may change the same one at once.
    tx.lock(SUBSCRIPTIONS_LOCK).await?;
    let Some(id) = tx.first(&FIND, &[&account, &event]).await? else {
        return tx.one(&INSERT, &[&account, &event, &name, &now]).await;
    };
    tx.run(&RENAME, &[&id, &name]).await?;
    tx.run(&RESTART, &[&id, &now]).await?;
    Ok(id)
}

/// Sets a new state, without earlier failures.
const SET_STATE: Fragment = Fragment::Same(
    "UPDATE subscription SET state = $2, changed_at = $3, next_try_at = $4, attempts = 0, last_error = NULL",
);

async fn change_subscription<T: Tx>(
    tx: &T,
    id: i64,
    change: SubscriptionChange,
    now: Timestamp,
) -> Result<Option<SubscriptionRow>> {
    // Also retries by hand a subscription whose visits failed.
    static RESTORE: Sql = Sql::with(
        "{set_state} WHERE id = $1 AND state IN ('unsubscribed', 'pending', 'failed') AND subscribe_url IS NOT NULL",
        &[("set_state", SET_STATE)],
    );
    static FAIL: Sql = Sql::new(
        "UPDATE subscription SET attempts = attempts + 1, last_error = $2, next_try_at = $3, state = $4, changed_at = $5
         WHERE id = $1",
    );
    tx.lock(SUBSCRIPTIONS_LOCK).await?;
    let Some(row) = find(tx, id).await? else {
        return Ok(None);
    };
    let presented = |token: Option<&SecretString>| {
        let text =
            |token: Option<&SecretString>| token.map(|token| token.expose_secret().to_owned());
        row.state == SubscriptionState::Pending && text(token) == text(row.token.as_ref())
    };
    let changed = match change {
        SubscriptionChange::Approved { by, valid_since } => {
            approve(tx, &row, &by, valid_since, now).await?
        }
        SubscriptionChange::Restored => {
            let pending = SubscriptionState::Pending;
            tx.execute(&RESTORE, &[&id, &pending, &now, &now]).await? > 0
        }
        SubscriptionChange::Confirmed {
            token,
            subscription_arn,
        } if presented(Some(&token)) => {
            confirm(tx, &row, &subscription_arn, now).await?;
            true
        }
        SubscriptionChange::AttemptFailed {
            token,
            error,
            next_try_at,
        } if presented(token.as_ref()) => {
            let (state, changed_at) = match next_try_at {
                Some(_) => (SubscriptionState::Pending, row.changed_at),
                None => (SubscriptionState::Failed, now),
            };
            tx.run(&FAIL, &[&id, &error, &next_try_at, &state, &changed_at])
                .await?;
            true
        }
        SubscriptionChange::Confirmed { .. } | SubscriptionChange::AttemptFailed { .. } => false,
    };
    match changed {
        true => find(tx, id).await,
        false => Ok(None),
    }
}

async fn find<T: Tx>(tx: &T, id: i64) -> Result<Option<SubscriptionRow>> {
    static SQL: Sql = Sql::with("{rows} WHERE s.id = $1", &[("rows", ROWS)]);
    tx.first(&SQL, &[&id]).await
}

/// Makes a subscription that waits for a person pending, and allows its topic if it is not
/// known; returns false if it does not wait.
async fn approve<T: Tx>(
    tx: &T,
    row: &SubscriptionRow,
    by: &str,
    valid_since: Timestamp,
    now: Timestamp,
) -> Result<bool> {
    static APPROVE: Sql = Sql::with("{set_state} WHERE id = $1", &[("set_state", SET_STATE)]);
    static EXPIRE: Sql = Sql::new(
        "UPDATE subscription SET state = 'failed', changed_at = $2, last_error = $3, subscribe_url = NULL, token = NULL
         WHERE id = $1",
    );
    let expired = match (row.state, &row.topic_arn) {
        (SubscriptionState::AwaitingApproval, _) => false,
        (SubscriptionState::UnknownTopic, Some(topic_arn)) => {
            allow_topic(tx, topic_arn, by, now).await?;
            merge_request(tx, row.id).await?;
            row.last_message_at.is_none_or(|sent| sent < valid_since)
        }
        _ => return Ok(false),
    };
    if expired {
        tx.run(&EXPIRE, &[&row.id, &now, &TOKEN_EXPIRED]).await?;
    } else {
        let pending = SubscriptionState::Pending;
        tx.run(&APPROVE, &[&row.id, &pending, &now, &now]).await?;
    }
    Ok(true)
}

/// The error of a subscription whose token ran out before it was approved.
const TOKEN_EXPIRED: &str =
    "its token has expired after two days; its topic is allowed now, so subscribe again";

/// Gives the oldest unanswered request of a subscription's webhook to that subscription, which
/// takes its name.
pub(super) async fn merge_request<T: Tx>(tx: &T, id: i64) -> Result<()> {
    static REQUEST: Sql = Sql::new(
        "SELECT r.id, r.name FROM subscription r JOIN subscription s
             ON s.account_id = r.account_id AND s.event = r.event
         WHERE s.id = $1 AND r.state = 'requested' ORDER BY r.id LIMIT 1",
    );
    static REMOVE: Sql = Sql::new("DELETE FROM subscription WHERE id = $1");
    static RENAME: Sql =
        Sql::new("UPDATE subscription SET name = coalesce($2, name) WHERE id = $1");
    let found: Option<(i64, Option<String>)> = tx.first(&REQUEST, &[&id]).await?;
    if let Some((request, name)) = found {
        tx.run(&REMOVE, &[&request]).await?;
        tx.run(&RENAME, &[&id, &name]).await?;
    }
    Ok(())
}

/// Marks a subscription as confirmed under this ARN. If another row has it, as after
/// subscribing a target again, the two become one; so does a row of the topic whose ARN is
/// not known.
async fn confirm<T: Tx>(
    tx: &T,
    row: &SubscriptionRow,
    subscription_arn: &str,
    now: Timestamp,
) -> Result<()> {
    static TWINS: Sql = Sql::with(
        "{rows} JOIN subscription mine ON mine.id = $2
         WHERE s.id <> mine.id AND (s.subscription_arn = $1 OR (s.subscription_arn IS NULL AND s.state = 'confirmed'
             AND s.account_id = mine.account_id AND s.event = mine.event AND s.topic_arn = mine.topic_arn))",
        &[("rows", ROWS)],
    );
    static REMOVE: Sql = Sql::new("DELETE FROM subscription WHERE id = $1");
    static CONFIRM: Sql = Sql::with(
        "{set_state}, subscription_arn = $5, name = coalesce(name, $6), last_heard_at = $7, subscribe_url = NULL,
             token = NULL
         WHERE id = $1",
        &[("set_state", SET_STATE)],
    );
    static END: Sql = Sql::with(
        "{set_state}, subscription_arn = $5, name = coalesce(name, $6), last_heard_at = $7, last_message_at = $8,
             subscribe_url = $9, token = $10
         WHERE id = $1",
        &[("set_state", SET_STATE)],
    );
    let twins: Vec<SubscriptionRow> = tx.all(&TWINS, &[&subscription_arn, &row.id]).await?;
    let mut name = None;
    let mut heard_at = row.last_heard_at;
    for twin in &twins {
        tx.run(&REMOVE, &[&twin.id]).await?;
        name = name.or(twin.name.as_deref());
        heard_at = heard_at.max(twin.last_heard_at);
    }
    // It ended after SNS had sent this token, and the message about that came first.
    let ended = twins.iter().find(|twin| {
        twin.state == SubscriptionState::Unsubscribed && twin.last_message_at > row.last_message_at
    });
    let never = None::<Timestamp>;
    match ended {
        None => {
            let confirmed = SubscriptionState::Confirmed;
            let params = params! {
                row.id, confirmed, now, never, subscription_arn, name, heard_at,
            };
            tx.run(&CONFIRM, params).await
        }
        Some(twin) => {
            let params = params! {
                row.id, twin.state, twin.changed_at, never, subscription_arn, name, heard_at,
                twin.last_message_at, twin.subscribe_url, twin.token,
            };
            tx.run(&END, params).await
        }
    }
}
