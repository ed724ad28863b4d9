//! Confirming subscriptions, and bringing back those that ended.
//!
//! A verified SubscriptionConfirmation is a row in the store before anything is
//! visited. The message itself tries to confirm at once; what did not work out
//! then, a worker tries again.

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
    SharedStore, StoreError, SubscriptionChange, SubscriptionRow, SubscriptionState,
};

/// How long a message waits for its confirmation; SNS gives up after 15 s.
pub const IN_REQUEST: Duration = Duration::from_secs(5);

/// How long SNS's confirmation tokens live (AWS, API_Subscribe).
pub const TOKEN_LIFE: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// How often the worker looks for rows that are due.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a step of the worker came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
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
        /// What went wrong, without the URL.
        error: ConfirmError,
        /// When it is tried again; `None` where that would be in vain.
        next_try_at: Option<Timestamp>,
    },
}

/// Confirms subscriptions that the store holds as pending.
pub struct Confirmations {
    store: SharedStore,
    confirmer: Confirmer,
    metrics: Arc<Metrics>,
    clock: Clock,
    // One visit at a time: copies of one confirmation then find it confirmed.
    turn: Mutex<()>,
}

impl Confirmations {
    /// Confirmations of what `store` holds.
    pub fn new(
        store: SharedStore,
        confirmer: Confirmer,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        Self {
            store,
            confirmer,
            metrics,
            clock,
            turn: Mutex::new(()),
        }
    }

    /// Confirms the subscription of a SubscriptionConfirmation that was just stored.
    ///
    /// Done where it waits for approval, is confirmed already, or a newer message
    /// has taken its place.
    ///
    /// # Errors
    ///
    /// [`Refusal::ConfirmationUnavailable`] where SNS could not be asked within
    /// [`IN_REQUEST`]; the row stays for the worker. Others as
    /// [`Refusal::of_confirmation`] says.
    pub async fn confirm_message(
        &self,
        account: &Account,
        event: Event,
        topic_arn: &str,
        token: &SecretString,
    ) -> Result<(), Refusal> {
        let attempt = async {
            let _turn = self.turn.lock().await;
            let row = self.row_of(account, event, topic_arn, token).await?;
            match row {
                Some(row) if row.state == SubscriptionState::Pending => self.visit(&row).await,
                _ => Ok(Outcome::Idle),
            }
        };
        match tokio::time::timeout(IN_REQUEST, attempt).await {
            Ok(Ok(Outcome::Idle | Outcome::Confirmed { .. })) => Ok(()),
            // Where SNS's no is final, sending the message again would change nothing.
            Ok(Ok(Outcome::Failed { error, .. })) => {
                Refusal::of_confirmation(&error).map_or(Ok(()), Err)
            }
            Ok(Err(error)) => {
                error!("the pending subscription could not be read: {error}");
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
    /// Where the store fails; a failed visit is an [`Outcome`].
    pub async fn confirm_next(&self) -> Result<Outcome, StoreError> {
        let _turn = self.turn.lock().await;
        let now = self.clock.now();
        let rows = self.store.subscriptions().await?;
        let due = rows
            .into_iter()
            .filter(|row| row.state == SubscriptionState::Pending)
            .filter(|row| row.next_try_at.is_some_and(|moment| moment <= now))
            .min_by_key(|row| row.next_try_at);
        match due {
            Some(row) => self.visit(&row).await,
            None => Ok(Outcome::Idle),
        }
    }

    /// Approves subscription `id`, or wants it back, and visits its SubscribeURL at
    /// once; `None` where its state does not allow it.
    ///
    /// # Errors
    ///
    /// Where the store fails.
    pub async fn change(
        &self,
        id: i64,
        change: SubscriptionChange,
    ) -> Result<Option<Outcome>, StoreError> {
        let _turn = self.turn.lock().await;
        let now = self.clock.now();
        match self.store.change_subscription(id, change, now).await? {
            Some(row) => self.visit(&row).await.map(Some),
            None => Ok(None),
        }
    }

    /// Visits a row's SubscribeURL and stores what came of it.
    async fn visit(&self, row: &SubscriptionRow) -> Result<Outcome, StoreError> {
        let visited = match (&row.topic_arn, &row.subscribe_url, &row.token) {
            (Some(topic_arn), Some(url), Some(token)) => {
                self.confirmer.confirm(topic_arn, url, token).await
            }
            // The store makes a row pending only by a message that has all three.
            _ => Err(ConfirmError::Untrusted),
        };
        self.metrics.confirmation_visit(visited.is_ok());
        match visited {
            Ok(subscription_arn) => self.note_confirmed(row, subscription_arn).await,
            Err(error) => self.note_failed(row, error).await,
        }
    }

    async fn note_confirmed(
        &self,
        row: &SubscriptionRow,
        subscription_arn: String,
    ) -> Result<Outcome, StoreError> {
        let SubscriptionRow {
            id, account, event, ..
        } = row;
        info!(
            %account,
            %event,
            sns.subscription_arn = %subscription_arn,
            "confirmed the subscription of {account}/{event}"
        );
        let change = SubscriptionChange::Confirmed { subscription_arn };
        self.store
            .change_subscription(*id, change, self.clock.now())
            .await?;
        Ok(Outcome::Confirmed { id: *id })
    }

    async fn note_failed(
        &self,
        row: &SubscriptionRow,
        error: ConfirmError,
    ) -> Result<Outcome, StoreError> {
        let SubscriptionRow {
            id, account, event, ..
        } = row;
        let now = self.clock.now();
        let next_try_at = match error {
            ConfirmError::Unavailable(_) => next_try(row, now),
            ConfirmError::Untrusted | ConfirmError::Rejected { .. } => None,
        };
        match next_try_at {
            Some(moment) => warn!(
                %account,
                %event,
                "the subscription of {account}/{event} could not be confirmed: {error}; next try at {moment}"
            ),
            None => error!(
                %account,
                %event,
                "the subscription of {account}/{event} could not be confirmed and is not tried again: {error}. \
                 `ivesk-webhook subscriptions create` asks Įvesk.lt for a new one"
            ),
        }
        let change = SubscriptionChange::AttemptFailed {
            error: error.to_string(),
            next_try_at,
        };
        self.store.change_subscription(*id, change, now).await?;
        Ok(Outcome::Failed {
            id: *id,
            error,
            next_try_at,
        })
    }
}

/// When to visit a row's SubscribeURL again; none once its token has run out.
///
/// A row's state last changed when its token came or later, so this errs on the
/// side of trying.
fn next_try(row: &SubscriptionRow, now: Timestamp) -> Option<Timestamp> {
    let next = now.after(backoff::CONFIRMATION.delay(row.attempts, 0.0));
    (next < row.changed_at.after(TOKEN_LIFE)).then_some(next)
}

/// Confirms what is due until `shutdown` is canceled; a visit under way is finished.
pub async fn run(confirmations: Arc<Confirmations>, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        match confirmations.confirm_next().await {
            Ok(Outcome::Idle) => {}
            // Told where it happened; the next one may be due as well.
            Ok(_) => continue,
            Err(error) => warn!("pending subscriptions could not be read: {error}"),
        }
        shutdown
            .run_until_cancelled(tokio::time::sleep(LOOK_EVERY))
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
