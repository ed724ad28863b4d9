//! Topics that a person allowed, beyond those that the settings allow.

use super::engine::{Sql, Tx, operations};
use super::error::Result;
use crate::domain::Timestamp;

operations! {
    /// Lists at most `limit` topics that a person allowed.
    pub read allowed_topics(limit: usize) -> Vec<String>;

    /// Returns true if a person allowed this topic.
    pub read is_topic_allowed(topic_arn: String) -> bool;
}

/// Allows exactly this topic; doing so again changes nothing.
pub(super) async fn allow_topic<T: Tx>(
    tx: &mut T,
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

async fn allowed_topics<T: Tx>(tx: &mut T, limit: usize) -> Result<Vec<String>> {
    static SQL: Sql = Sql::new("SELECT topic_arn FROM allowed_topic ORDER BY topic_arn LIMIT $1");
    tx.all(&SQL, &[&limit]).await
}

async fn is_topic_allowed<T: Tx>(tx: &mut T, topic_arn: String) -> Result<bool> {
    static SQL: Sql = Sql::new("SELECT 1 FROM allowed_topic WHERE topic_arn = $1");
    let found: Option<()> = tx.first(&SQL, &[&topic_arn]).await?;
    Ok(found.is_some())
}
