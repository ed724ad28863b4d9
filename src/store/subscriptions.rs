//! Subscriptions: requests, confirmations and their states.

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::StoreError;
use super::accounts::account_id;
use super::allowed_topics::allow_topic;
use super::engine::{Fragment, Operation, Row, SUBSCRIPTIONS_LOCK, Sql, Tx};
use crate::domain::{Account, Event, Timestamp};

/// The state of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// It was requested from the vendor; no message of SNS has arrived yet.
    Requested,
    /// SNS sent a genuine confirmation request of a topic that is not allowed: a person must
    /// find out who owns it.
    UnknownTopic,
    /// SNS sent a confirmation request, which a person must approve.
    AwaitingApproval,
    /// SNS sent a confirmation request; `SubscribeURL` is to be visited.
    Pending,
    /// `SubscribeURL` was visited and SNS returned the subscription's ARN, or notifications of
    /// its topic arrive.
    Confirmed,
    /// It could not be confirmed: SNS rejected its token, or the token has expired.
    Failed,
    /// SNS announced its end.
    Unsubscribed,
}

impl SubscriptionState {
    /// All states.
    pub const ALL: [Self; 7] = [
        Self::Requested,
        Self::UnknownTopic,
        Self::AwaitingApproval,
        Self::Pending,
        Self::Confirmed,
        Self::Failed,
        Self::Unsubscribed,
    ];

    /// Returns the state's name in the store and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::UnknownTopic => "unknown_topic",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
            Self::Failed => "failed",
            Self::Unsubscribed => "unsubscribed",
        }
    }
}

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
    /// A person approved it, and by that exactly its topic: [`SubscriptionState::Pending`], due
    /// now; but [`SubscriptionState::Failed`] if it is of an unknown topic and its token has
    /// expired.
    Approved {
        /// Who approved it.
        by: &'static str,
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

/// Selects the columns that [`SubscriptionRow::read`] reads.
const ROWS: Fragment = Fragment::Same(
    "SELECT s.id, a.name, s.event, s.name, s.topic_arn, s.subscription_arn, s.state, s.created_at,
         s.changed_at, s.last_message_at, s.last_heard_at, s.next_try_at, s.attempts, s.last_error, s.subscribe_url, s.token
     FROM subscription s JOIN account a ON a.id = s.account_id",
);

impl SubscriptionRow {
    fn read(row: &dyn Row) -> Result<Self, StoreError> {
        let secret = |column| -> Result<Option<SecretString>, StoreError> {
            let text: Option<String> = row.get(column)?;
            Ok(text.map(SecretString::from))
        };
        Ok(Self {
            id: row.get(0)?,
            account: row.get(1)?,
            event: row.get(2)?,
            name: row.get(3)?,
            topic_arn: row.get(4)?,
            subscription_arn: row.get(5)?,
            state: row.get(6)?,
            created_at: row.get(7)?,
            changed_at: row.get(8)?,
            last_message_at: row.get(9)?,
            last_heard_at: row.get(10)?,
            next_try_at: row.get(11)?,
            attempts: row.get(12)?,
            last_error: row.get(13)?,
            subscribe_url: secret(14)?,
            token: secret(15)?,
        })
    }
}

/// Lists all subscriptions.
pub(super) struct ListSubscriptions;

impl Operation for ListSubscriptions {
    type Output = Vec<SubscriptionRow>;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        static SQL: Sql = Sql::with("{rows} ORDER BY s.id", &[("rows", ROWS)]);
        tx.all(&SQL, &[], SubscriptionRow::read).await
    }
}

/// Records a request to the vendor. It becomes the row that already waits for the webhook, if
/// there is one, so that repeated requests leave one.
pub(super) struct RecordSubscriptionRequest {
    pub(super) account: Account,
    pub(super) event: Event,
    pub(super) name: String,
    pub(super) now: Timestamp,
}

impl Operation for RecordSubscriptionRequest {
    type Output = i64;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<i64, StoreError> {
        static FIND: Sql = Sql::new(
            "SELECT id FROM subscription WHERE account_id = $1 AND event = $2
                 AND state IN ('requested', 'unknown_topic', 'awaiting_approval', 'pending', 'failed')
             ORDER BY state = 'requested' DESC, state = 'failed', id DESC LIMIT 1",
        );
        static RENAME: Sql = Sql::new("UPDATE subscription SET name = $2 WHERE id = $1");
        // A failed one begins anew; the message that answers may name another topic.
        static RESTART: Sql = Sql::new(
            "UPDATE subscription SET state = 'requested', changed_at = $2, topic_arn = NULL, subscription_arn = NULL,
                 last_message_at = NULL, next_try_at = NULL, attempts = 0, last_error = NULL, subscribe_url = NULL, token = NULL
             WHERE id = $1 AND state IN ('requested', 'failed')",
        );
        static INSERT: Sql = Sql::new(
            "INSERT INTO subscription (account_id, event, name, state, created_at, changed_at)
             VALUES ($1, $2, $3, 'requested', $4, $4) RETURNING id",
        );
        let Self {
            account,
            event,
            name,
            now,
        } = self;
        let account = account_id(tx, &account).await?;
        // Two replicas may change the same one at once.
        tx.lock(SUBSCRIPTIONS_LOCK).await?;
        let event = event.as_str();
        let waiting: Option<i64> = tx
            .first(&FIND, &[&account, &event], |row| row.get(0))
            .await?;
        let Some(id) = waiting else {
            return tx
                .one(&INSERT, &[&account, &event, &name, &now], |row| row.get(0))
                .await;
        };
        tx.execute(&RENAME, &[&id, &name]).await?;
        tx.execute(&RESTART, &[&id, &now]).await?;
        Ok(id)
    }
}

/// Changes a subscription; returns `None` if it does not exist or its state does not allow
/// the change.
pub(super) struct ChangeSubscription {
    pub(super) id: i64,
    pub(super) change: SubscriptionChange,
    pub(super) now: Timestamp,
}

/// Sets a new state, without earlier failures.
const SET_STATE: Fragment = Fragment::Same(
    "UPDATE subscription SET state = $2, changed_at = $3, next_try_at = $4, attempts = 0, last_error = NULL",
);

impl Operation for ChangeSubscription {
    type Output = Option<SubscriptionRow>;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        // Also retries by hand a subscription whose visits failed.
        static RESTORE: Sql = Sql::with(
            "{set_state} WHERE id = $1 AND state IN ('unsubscribed', 'pending', 'failed') AND subscribe_url IS NOT NULL",
            &[("set_state", SET_STATE)],
        );
        static FAIL: Sql = Sql::new(
            "UPDATE subscription SET attempts = attempts + 1, last_error = $2, next_try_at = $3, state = $4,
                 changed_at = $5
             WHERE id = $1",
        );
        let Self { id, change, now } = self;
        tx.lock(SUBSCRIPTIONS_LOCK).await?;
        let Some(row) = find(tx, id).await? else {
            return Ok(None);
        };
        let presented = |token: Option<&SecretString>| {
            let text =
                |token: Option<&SecretString>| token.map(|token| token.expose_secret().to_owned());
            row.state == SubscriptionState::Pending && text(token) == text(row.token.as_ref())
        };
        match change {
            SubscriptionChange::Approved { by, valid_since } => {
                if !approve(tx, &row, by, valid_since, now).await? {
                    return Ok(None);
                }
            }
            SubscriptionChange::Restored => {
                let pending = SubscriptionState::Pending.as_str();
                if tx.execute(&RESTORE, &[&id, &pending, &now, &now]).await? == 0 {
                    return Ok(None);
                }
            }
            SubscriptionChange::Confirmed {
                token,
                subscription_arn,
            } => {
                if !presented(Some(&token)) {
                    return Ok(None);
                }
                confirm(tx, &row, &subscription_arn, now).await?;
            }
            SubscriptionChange::AttemptFailed {
                token,
                error,
                next_try_at,
            } => {
                if !presented(token.as_ref()) {
                    return Ok(None);
                }
                let (state, changed_at) = match next_try_at {
                    Some(_) => (SubscriptionState::Pending, row.changed_at),
                    None => (SubscriptionState::Failed, now),
                };
                let state = state.as_str();
                tx.execute(&FAIL, &[&id, &error, &next_try_at, &state, &changed_at])
                    .await?;
            }
        }
        find(tx, id).await
    }
}

async fn find<T: Tx>(tx: &mut T, id: i64) -> Result<Option<SubscriptionRow>, StoreError> {
    static FIND: Sql = Sql::with("{rows} WHERE s.id = $1", &[("rows", ROWS)]);
    tx.first(&FIND, &[&id], SubscriptionRow::read).await
}

/// Makes a subscription that waits for a person pending, and allows its topic if it is not
/// known; returns false if it does not wait.
async fn approve<T: Tx>(
    tx: &mut T,
    row: &SubscriptionRow,
    by: &str,
    valid_since: Timestamp,
    now: Timestamp,
) -> Result<bool, StoreError> {
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
        tx.execute(&EXPIRE, &[&row.id, &now, &TOKEN_EXPIRED])
            .await?;
    } else {
        let pending = SubscriptionState::Pending.as_str();
        tx.execute(&APPROVE, &[&row.id, &pending, &now, &now])
            .await?;
    }
    Ok(true)
}

/// The error of a subscription whose token ran out before it was approved.
const TOKEN_EXPIRED: &str =
    "its token has expired after two days; its topic is allowed now, so subscribe again";

/// Gives the oldest unanswered request of a subscription's webhook to that subscription, which
/// takes its name.
pub(super) async fn merge_request<T: Tx>(tx: &mut T, id: i64) -> Result<(), StoreError> {
    static REQUEST: Sql = Sql::new(
        "SELECT r.id, r.name FROM subscription r JOIN subscription s
             ON s.account_id = r.account_id AND s.event = r.event
         WHERE s.id = $1 AND r.state = 'requested' ORDER BY r.id LIMIT 1",
    );
    static REMOVE: Sql = Sql::new("DELETE FROM subscription WHERE id = $1");
    static RENAME: Sql =
        Sql::new("UPDATE subscription SET name = coalesce($2, name) WHERE id = $1");
    let request: Option<(i64, Option<String>)> = tx
        .first(&REQUEST, &[&id], |row| Ok((row.get(0)?, row.get(1)?)))
        .await?;
    if let Some((request, name)) = request {
        tx.execute(&REMOVE, &[&request]).await?;
        tx.execute(&RENAME, &[&id, &name]).await?;
    }
    Ok(())
}

/// Marks a subscription as confirmed under this ARN. If another row has it, as after
/// subscribing a target again, the two become one; so does a row of the topic whose ARN is
/// not known.
async fn confirm<T: Tx>(
    tx: &mut T,
    row: &SubscriptionRow,
    subscription_arn: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
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
    let twins = tx
        .all(&TWINS, &[&subscription_arn, &row.id], SubscriptionRow::read)
        .await?;
    let mut name = None;
    let mut heard_at = row.last_heard_at;
    for twin in &twins {
        tx.execute(&REMOVE, &[&twin.id]).await?;
        name = name.or(twin.name.as_deref());
        heard_at = heard_at.max(twin.last_heard_at);
    }
    // It ended after SNS had sent this token, and the message about that came first.
    let ended = twins.iter().find(|twin| {
        twin.state == SubscriptionState::Unsubscribed && twin.last_message_at > row.last_message_at
    });
    let none = None::<Timestamp>;
    match ended {
        None => {
            let state = SubscriptionState::Confirmed.as_str();
            tx.execute(
                &CONFIRM,
                &[
                    &row.id,
                    &state,
                    &now,
                    &none,
                    &subscription_arn,
                    &name,
                    &heard_at,
                ],
            )
            .await?;
        }
        Some(twin) => {
            let text = |secret: &Option<SecretString>| {
                secret
                    .as_ref()
                    .map(|secret| secret.expose_secret().to_owned())
            };
            tx.execute(
                &END,
                &[
                    &row.id,
                    &twin.state.as_str(),
                    &twin.changed_at,
                    &none,
                    &subscription_arn,
                    &name,
                    &heard_at,
                    &twin.last_message_at,
                    &text(&twin.subscribe_url),
                    &text(&twin.token),
                ],
            )
            .await?;
        }
    }
    Ok(())
}
