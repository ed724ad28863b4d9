//! Topics that a person allowed, beyond those that the settings allow.

use std::collections::BTreeSet;

use super::AcceptedMessage;
use super::engine::{SUBSCRIPTIONS_LOCK, Sql, Tx, operations, rows};
use super::error::{Result, StoreError};
use crate::domain::Timestamp;

/// A topic that a person allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedTopic {
    /// Its ARN.
    pub topic_arn: String,
    /// When it was allowed.
    pub allowed_at: Timestamp,
    /// Who allowed it, as in the audit list; `session of ` precedes the owner of a session.
    pub allowed_by: String,
}

operations! {
    /// Lists at most `limit` topics that a person allowed.
    pub read_own allowed_topics(limit: usize) -> Vec<AllowedTopic>;

    /// Returns true if a person allowed this topic.
    pub read is_topic_allowed(topic_arn: String) -> bool;

    /// Takes back that a person allowed this topic, and removes its subscriptions; returns
    /// their number, or `None` if nobody allowed it.
    pub write disallow_topic(topic_arn: String) -> Option<usize>;
}

rows! { AllowedTopic { topic_arn, allowed_at, allowed_by } }

/// Allows exactly this topic; doing so again changes nothing.
pub(super) async fn allow_topic<T: Tx>(
    tx: &T,
    topic_arn: &str,
    by: &str,
    now: Timestamp,
) -> Result<()> {
    static SQL: Sql = Sql::new(
        "INSERT INTO allowed_topic (topic_arn, allowed_at, allowed_by) VALUES ($1, $2, $3)
         ON CONFLICT (topic_arn) DO NOTHING",
    );
    tx.run(&SQL, &[&topic_arn, &now, &by]).await
}

async fn allowed_topics<T: Tx>(tx: &T, limit: usize) -> Result<Vec<AllowedTopic>> {
    static SQL: Sql = Sql::new(
        "SELECT topic_arn, allowed_at, allowed_by FROM allowed_topic ORDER BY topic_arn LIMIT $1",
    );
    tx.all(&SQL, &[&limit]).await
}

async fn is_topic_allowed<T: Tx>(tx: &T, topic_arn: String) -> Result<bool> {
    static SQL: Sql = Sql::new("SELECT 1 FROM allowed_topic WHERE topic_arn = $1");
    let found: Option<()> = tx.first(&SQL, &[&topic_arn]).await?;
    Ok(found.is_some())
}

async fn disallow_topic<T: Tx>(tx: &T, topic_arn: String) -> Result<Option<usize>> {
    static DISALLOW: Sql = Sql::new("DELETE FROM allowed_topic WHERE topic_arn = $1");
    // There are few subscriptions.
    static REMOVE: Sql = Sql::new("DELETE FROM subscription WHERE topic_arn = $1");
    tx.lock(SUBSCRIPTIONS_LOCK).await?;
    if tx.execute(&DISALLOW, &[&topic_arn]).await? == 0 {
        return Ok(None);
    }
    tx.execute(&REMOVE, &[&topic_arn]).await.map(Some)
}

/// Fails with [`StoreError::TopicNotAllowed`] if a message is of a topic that needs a person's
/// approval and has none: it may have been revoked at another replica.
pub(super) async fn check_approvals<T: Tx>(tx: &T, messages: &[AcceptedMessage]) -> Result<()> {
    static SQL: Sql =
        Sql::new("SELECT topic_arn FROM allowed_topic WHERE topic_arn IN ({elements}($1))");
    let needed: BTreeSet<&str> = messages
        .iter()
        .filter(|one| one.needs_approval)
        .map(|one| one.message.topic_arn())
        .collect();
    if needed.is_empty() {
        return Ok(());
    }
    let needed: Vec<&str> = needed.into_iter().collect();
    let allowed: Vec<String> = tx.all(&SQL, &[&needed]).await?;
    match allowed.len() == needed.len() {
        true => Ok(()),
        false => Err(StoreError::TopicNotAllowed),
    }
}
