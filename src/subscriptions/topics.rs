//! Topics that a person approved: kept in the store, and known to verifier and confirmer.

use std::time::Duration;

use tracing::warn;

use crate::sns::known_arns::MAX_KNOWN;
use crate::sns::{KnownArns, Verifier};
use crate::store::{SharedStore, StoreError, SubscriptionRow, SubscriptionState};

/// Longest time to ask the store whether a topic is approved.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Topics that a person approved, on whichever replica.
pub struct ApprovedTopics {
    store: SharedStore,
    known: KnownArns,
}

impl ApprovedTopics {
    /// Creates the approved topics of `store`; `known` is that of the verifier's settings.
    pub fn new(store: SharedStore, known: KnownArns) -> Self {
        Self { store, known }
    }

    /// Loads all topics and subscriptions, so that no message waits for that. What fails is
    /// learned when it is needed.
    pub async fn load(&self) {
        match self.store.allowed_topics(MAX_KNOWN).await {
            Ok(topics) => topics
                .iter()
                .for_each(|topic| self.known.approve_topic(&topic.topic_arn)),
            Err(error) => warn!("failed to read the approved topics: {error}"),
        }
        match self.store.subscriptions().await {
            Ok(rows) => self.learn_subscriptions(&rows),
            Err(error) => warn!("failed to read the subscriptions: {error}"),
        }
    }

    /// Asks the store whether this topic is approved, unless that is known; it is allowed from
    /// then on.
    ///
    /// # Errors
    ///
    /// If the store fails or takes longer than a few seconds.
    pub async fn learn(&self, topic_arn: &str) -> Result<(), StoreError> {
        if self.known.is_approved(topic_arn) {
            return Ok(());
        }
        let asked = self.store.is_topic_allowed(topic_arn.to_owned());
        let approved = tokio::time::timeout(ASK_TIMEOUT, asked)
            .await
            .map_err(|_| {
                StoreError::Database(format!(
                    "it did not answer within {ASK_TIMEOUT:?} whether a topic is approved"
                ))
            })??;
        if approved {
            self.known.approve_topic(topic_arn);
        }
        Ok(())
    }

    /// [`ApprovedTopics::learn`] for a topic that `verifier` does not allow.
    ///
    /// # Errors
    ///
    /// As [`ApprovedTopics::learn`].
    pub async fn learn_if_needed(
        &self,
        verifier: &Verifier,
        topic_arn: &str,
    ) -> Result<(), StoreError> {
        if verifier.allows_topic(topic_arn) {
            return Ok(());
        }
        self.learn(topic_arn).await
    }

    /// Revokes the approval of a topic; returns the number of its subscriptions, which are
    /// removed, or `None` if it was not approved.
    ///
    /// # Errors
    ///
    /// If the store fails; nothing is revoked then.
    pub async fn revoke(&self, topic_arn: &str) -> Result<Option<usize>, StoreError> {
        let revoked = self.store.disallow_topic(topic_arn.to_owned()).await?;
        self.forget(topic_arn);
        Ok(revoked)
    }

    /// Forgets a topic that is no longer approved.
    pub fn forget(&self, topic_arn: &str) {
        self.known.revoke_topic(topic_arn);
    }

    /// Adds a subscription that SNS has confirmed.
    pub fn add_subscription(&self, subscription_arn: &str) {
        self.known.add_subscription(subscription_arn);
    }

    /// Adds the confirmed subscriptions among `rows`, also those of other replicas.
    pub fn learn_subscriptions(&self, rows: &[SubscriptionRow]) {
        rows.iter()
            .filter(|row| row.state == SubscriptionState::Confirmed)
            .filter_map(|row| row.subscription_arn.as_deref())
            .for_each(|arn| self.known.add_subscription(arn));
    }
}
