//! Confirms and approves SNS subscriptions, and restores those that ended.
//!
//! A verified SubscriptionConfirmation is stored before its SubscribeURL is visited. The
//! request that brought it confirms at once; a worker retries what failed. [`problems`] are
//! what a person should know of or decide.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::backoff;
use crate::domain::{Account, Clock, Event, Timestamp};
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::sns::{ConfirmError, Confirmer};
use crate::store::{
    IN_REQUEST, SharedStore, StoreError, SubscriptionChange, SubscriptionRow, SubscriptionState,
};

use self::problems::ProblemLog;
pub use self::problems::TOKEN_LIFE;
use self::topics::ApprovedTopics;
use crate::config::Config;

pub mod problems;
pub mod topics;

/// Interval at which the worker checks for due rows.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The outcome of one attempt to confirm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfirmOutcome {
    /// Nothing is due.
    Idle,
    /// This row's subscription is confirmed.
    Confirmed {
        /// The row.
        id: i64,
    },
    /// The visit of this row's SubscribeURL failed.
    Failed {
        /// The row.
        id: i64,
        /// The error, without the URL.
        error: ConfirmError,
        /// The time of the next attempt; `None` if it could not succeed.
        next_try_at: Option<Timestamp>,
    },
    /// Nothing was visited: the token had expired when a person approved its topic, which is
    /// allowed now.
    Expired {
        /// The row.
        id: i64,
        /// What to do.
        error: String,
    },
}

/// Confirms subscriptions that the store holds as pending.
pub struct Confirmations {
    store: SharedStore,
    confirmer: Confirmer,
    topics: Arc<ApprovedTopics>,
    metrics: Arc<Metrics>,
    clock: Clock,
    // One visit at a time: the second copy of a message finds its subscription confirmed.
    visiting: Mutex<()>,
    log: ProblemLog,
}

impl Confirmations {
    /// Creates the confirmations of `store`'s pending subscriptions.
    pub fn new(
        store: SharedStore,
        confirmer: Confirmer,
        topics: Arc<ApprovedTopics>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        Self {
            store,
            confirmer,
            topics,
            metrics,
            clock,
            visiting: Mutex::new(()),
            log: ProblemLog::default(),
        }
    }

    /// Logs what a person should know of: what is new at once, the rest rarely.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn log_problems(&self, config: &Config) -> Result<(), StoreError> {
        let rows = self.store.subscriptions().await?;
        self.topics.learn_subscriptions(&rows);
        let now = self.clock.now();
        self.log.write(&problems::all(config, &rows, now), now);
        Ok(())
    }

    /// Confirms the subscription of a SubscriptionConfirmation that was just stored.
    ///
    /// Does nothing if the subscription awaits approval, is confirmed already, or a newer
    /// message has replaced this one.
    ///
    /// # Errors
    ///
    /// [`Refusal::ConfirmationUnavailable`] if SNS did not answer within [`IN_REQUEST`];
    /// the worker retries. For others see [`Refusal::of_confirmation`].
    pub async fn confirm_message(
        &self,
        account: &Account,
        event: Event,
        topic_arn: &str,
        token: &SecretString,
    ) -> Result<(), Refusal> {
        let attempt = async {
            let _visiting = self.visiting.lock().await;
            let row = self.row_of(account, event, topic_arn, token).await?;
            match row {
                Some(row) if row.state == SubscriptionState::Pending => self.visit(&row).await,
                _ => Ok(ConfirmOutcome::Idle),
            }
        };
        match tokio::time::timeout(IN_REQUEST, attempt).await {
            Ok(Ok(
                ConfirmOutcome::Idle
                | ConfirmOutcome::Confirmed { .. }
                | ConfirmOutcome::Expired { .. },
            )) => Ok(()),
            // After a final rejection, sending the message again would change nothing.
            Ok(Ok(ConfirmOutcome::Failed { error, .. })) => {
                Refusal::of_confirmation(&error).map_or(Ok(()), Err)
            }
            Ok(Err(error)) => {
                error!("failed to read the pending subscription: {error}");
                Err(Refusal::StoreUnavailable)
            }
            Err(_) => Err(Refusal::ConfirmationUnavailable("timed out".to_owned())),
        }
    }

    async fn row_of(
        &self,
        account: &Account,
        event: Event,
        topic_arn: &str,
        token: &SecretString,
    ) -> Result<Option<SubscriptionRow>, StoreError> {
        let rows = self.store.subscriptions().await?;
        Ok(rows.into_iter().find(|row| {
            let row_token = row.token.as_ref().map(ExposeSecret::expose_secret);
            row.account == *account
                && row.event == event
                && row.topic_arn.as_deref() == Some(topic_arn)
                && row_token == Some(token.expose_secret())
        }))
    }

    /// Visits the SubscribeURL of the pending subscription that has waited longest.
    ///
    /// # Errors
    ///
    /// If the store fails; a failed visit is a [`ConfirmOutcome`].
    pub async fn confirm_next(&self) -> Result<ConfirmOutcome, StoreError> {
        let _visiting = self.visiting.lock().await;
        let now = self.clock.now();
        let rows = self.store.subscriptions().await?;
        let due = rows
            .into_iter()
            .filter(|row| row.state == SubscriptionState::Pending)
            .filter(|row| {
                let longest = backoff::CONFIRMATION.longest_wait(Duration::ZERO);
                row.next_try_at.is_some()
                    && backoff::rest_within(row.next_try_at, longest, now).is_none()
            })
            .min_by_key(|row| row.next_try_at);
        match due {
            Some(row) => self.visit(&row).await,
            None => Ok(ConfirmOutcome::Idle),
        }
    }

    /// Approves subscription `id`, and its topic if that is not known, and visits its
    /// SubscribeURL at once; `None` if its state does not allow that. `by` says who approved.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn approve(&self, id: i64, by: String) -> Result<Option<ConfirmOutcome>, StoreError> {
        let valid_since = self.clock.now().before(TOKEN_LIFE);
        let change = SubscriptionChange::Approved { by, valid_since };
        self.change(id, change).await
    }

    /// Restores subscription `id`, and visits its SubscribeURL at once; `None` if its state
    /// does not allow that.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn restore(&self, id: i64) -> Result<Option<ConfirmOutcome>, StoreError> {
        self.change(id, SubscriptionChange::Restored).await
    }

    async fn change(
        &self,
        id: i64,
        change: SubscriptionChange,
    ) -> Result<Option<ConfirmOutcome>, StoreError> {
        let _visiting = self.visiting.lock().await;
        let now = self.clock.now();
        match self.store.change_subscription(id, change, now).await? {
            Some(row) if row.state == SubscriptionState::Pending => {
                self.visit(&row).await.map(Some)
            }
            // Its token has expired.
            Some(row) => Ok(Some(ConfirmOutcome::Expired {
                id,
                error: row.last_error.unwrap_or_default(),
            })),
            None => Ok(None),
        }
    }

    /// Visits a row's SubscribeURL and stores the outcome.
    async fn visit(&self, row: &SubscriptionRow) -> Result<ConfirmOutcome, StoreError> {
        let visited = match (&row.topic_arn, &row.subscribe_url, &row.token) {
            (Some(topic_arn), Some(url), Some(token)) => {
                // Another replica may have approved it.
                self.topics.learn(topic_arn).await?;
                self.confirmer.confirm(topic_arn, url, token).await
            }
            // Only a message that has all three makes a row pending.
            _ => Err(ConfirmError::Untrusted),
        };
        self.metrics.confirmation_visit(visited.is_ok());
        match visited {
            Ok(subscription_arn) => self.record_confirmed(row, subscription_arn).await,
            Err(error) => self.record_failure(row, error).await,
        }
    }

    async fn record_confirmed(
        &self,
        row: &SubscriptionRow,
        subscription_arn: String,
    ) -> Result<ConfirmOutcome, StoreError> {
        let SubscriptionRow {
            id, account, event, ..
        } = row;
        info!(
            %account,
            %event,
            sns.subscription_arn = %subscription_arn,
            "confirmed the subscription of {account}/{event}"
        );
        self.topics.add_subscription(&subscription_arn);
        let change = SubscriptionChange::Confirmed {
            token: row.token.clone().unwrap_or_default(),
            subscription_arn,
        };
        self.store
            .change_subscription(*id, change, self.clock.now())
            .await?;
        Ok(ConfirmOutcome::Confirmed { id: *id })
    }

    async fn record_failure(
        &self,
        row: &SubscriptionRow,
        error: ConfirmError,
    ) -> Result<ConfirmOutcome, StoreError> {
        let SubscriptionRow {
            id, account, event, ..
        } = row;
        let now = self.clock.now();
        let next_try_at = match error {
            ConfirmError::Unavailable(_) => next_try(row, now),
            ConfirmError::TopicNotAllowed(_)
            | ConfirmError::Untrusted
            | ConfirmError::Rejected { .. } => None,
        };
        match next_try_at {
            Some(moment) => warn!(
                %account,
                %event,
                "failed to confirm the subscription of {account}/{event}: {error}; retrying at {moment}"
            ),
            None => error!(
                %account,
                %event,
                "failed to confirm the subscription of {account}/{event}: {error}; it will not be retried. \
                 Run `ivesk-webhook subscriptions create` to request a new one"
            ),
        }
        let expired = matches!(error, ConfirmError::Unavailable(_)) && next_try_at.is_none();
        let change = SubscriptionChange::AttemptFailed {
            token: row.token.clone(),
            error: if expired {
                format!("{error}, until its token expired after two days; subscribe again")
            } else {
                error.to_string()
            },
            next_try_at,
        };
        self.store.change_subscription(*id, change, now).await?;
        Ok(ConfirmOutcome::Failed {
            id: *id,
            error,
            next_try_at,
        })
    }
}

/// Returns when to visit a row's SubscribeURL again; `None` once its token has expired.
///
/// A person may approve or restore a subscription long after its token was sent, so the token
/// may expire earlier than assumed here: at worst some attempts are in vain.
fn next_try(row: &SubscriptionRow, now: Timestamp) -> Option<Timestamp> {
    let next = now.after(backoff::CONFIRMATION.delay(row.attempts, 0.0));
    (next < row.changed_at.after(TOKEN_LIFE)).then_some(next)
}

/// Confirms due subscriptions and logs problems until `shutdown` is canceled; a visit in
/// progress is finished.
pub async fn run(confirmations: Arc<Confirmations>, config: Config, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        match confirmations.confirm_next().await {
            Ok(ConfirmOutcome::Idle) => {}
            // Already logged; the next one may be due as well.
            Ok(_) => continue,
            Err(error) => warn!("failed to read pending subscriptions: {error}"),
        }
        if let Err(error) = confirmations.log_problems(&config).await {
            warn!("failed to read the state of subscriptions: {error}");
        }
        shutdown
            .run_until_cancelled(tokio::time::sleep(CHECK_INTERVAL))
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(attempts: u32) -> SubscriptionRow {
        SubscriptionRow {
            id: 1,
            account: Account::parse("default").expect("a name"),
            event: Event::OnExported,
            name: None,
            topic_arn: None,
            subscription_arn: None,
            state: SubscriptionState::Pending,
            created_at: Timestamp::from_millis(0),
            changed_at: Timestamp::from_millis(0),
            last_message_at: None,
            last_heard_at: None,
            next_try_at: None,
            attempts,
            last_error: None,
            subscribe_url: None,
            token: None,
        }
    }

    #[test]
    fn the_backoff_doubles_up_to_half_an_hour_until_expiry() {
        let now = Timestamp::from_millis(0);
        assert_eq!(
            next_try(&row(0), now),
            Some(now.after(backoff::CONFIRMATION.first))
        );
        assert_eq!(
            next_try(&row(1), now),
            Some(now.after(backoff::CONFIRMATION.first * 2))
        );
        assert_eq!(
            next_try(&row(u32::MAX), now),
            Some(now.after(backoff::CONFIRMATION.longest))
        );
        let late = now.after(TOKEN_LIFE).before(Duration::from_secs(10));
        assert_eq!(next_try(&row(3), late), None);
    }
}
