//! Subscriptions: requests, confirmations and their states.

use secrecy::SecretString;
use serde::Serialize;

use super::StoreError;
use super::engine::{Fragment, Operation, Row, SUBSCRIPTIONS_LOCK, Sql, Tx};
use super::row_ids::account_id;
use crate::domain::{Account, Event, Timestamp};

/// The state of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// It was requested from the vendor; no message of SNS has arrived yet.
    Requested,
    /// SNS sent a confirmation request, which a person must approve.
    AwaitingApproval,
    /// SNS sent a confirmation request; `SubscribeURL` is to be visited.
    Pending,
    /// `SubscribeURL` was visited and SNS returned the subscription's ARN.
    Confirmed,
    /// SNS announced its end.
    Unsubscribed,
}

impl SubscriptionState {
    /// All states.
    pub const ALL: [Self; 5] = [
        Self::Requested,
        Self::AwaitingApproval,
        Self::Pending,
        Self::Confirmed,
        Self::Unsubscribed,
    ];

    /// Returns the state's name in the store and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
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

/// Selects the columns that [`SubscriptionRow::read`] reads.
const ROWS: Fragment = Fragment::Same(
    "SELECT s.id, a.name, s.event, s.name, s.topic_arn, s.subscription_arn, s.state, s.created_at,
         s.changed_at, s.next_try_at, s.attempts, s.last_error, s.subscribe_url, s.token
     FROM subscription s JOIN account a ON a.id = s.account_id",
);

impl SubscriptionRow {
    fn read(row: &dyn Row) -> Result<Self, StoreError> {
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
            next_try_at: row.get(9)?,
            attempts: row.get(10)?,
            last_error: row.get(11)?,
            subscribe_url: row.get(12)?,
            token: row.get(13)?,
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

/// Records a request to the vendor; repeated requests are one row until a message of SNS
/// arrives.
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
            "SELECT id FROM subscription WHERE account_id = $1 AND event = $2 AND name = $3 AND state = 'requested'",
        );
        static INSERT: Sql = Sql::new(
            "INSERT INTO subscription (account_id, event, name, state, created_at, changed_at)
             VALUES ($1, $2, $3, 'requested', $4, $4) RETURNING id",
        );
        // Two replicas may change the same one at once.
        tx.lock(SUBSCRIPTIONS_LOCK).await?;
        let account = account_id(tx, &self.account).await?;
        let event = self.event.as_str();
        let waiting = tx
            .first(&FIND, &[&account, &event, &self.name], |row| row.get(0))
            .await?;
        if let Some(id) = waiting {
            return Ok(id);
        }
        tx.one(&INSERT, &[&account, &event, &self.name, &self.now], |row| {
            row.get(0)
        })
        .await
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
        let Self { id, change, now } = self;
        tx.lock(SUBSCRIPTIONS_LOCK).await?;
        let pending = SubscriptionState::Pending.as_str();
        let changed = match change {
            SubscriptionChange::Approved => {
                tx.execute(&APPROVE, &[&id, &pending, &now, &now]).await?
            }
            SubscriptionChange::Restored => {
                tx.execute(&RESTORE, &[&id, &pending, &now, &now]).await?
            }
            SubscriptionChange::Confirmed { subscription_arn } => {
                let confirmed = SubscriptionState::Confirmed.as_str();
                tx.execute(
                    &CONFIRM,
                    &[&id, &confirmed, &now, &None::<Timestamp>, &subscription_arn],
                )
                .await?
            }
            SubscriptionChange::AttemptFailed { error, next_try_at } => {
                tx.execute(&FAIL, &[&id, &error, &next_try_at]).await?
            }
        };
        if changed == 0 {
            return Ok(None);
        }
        tx.first(&FIND, &[&id], SubscriptionRow::read).await
    }
}
