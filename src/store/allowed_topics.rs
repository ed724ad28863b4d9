//! Topics that a person allowed, beyond those that the settings allow.

use super::StoreError;
use super::engine::{Operation, Sql, Tx};
use crate::domain::Timestamp;

/// Allows exactly this topic; doing so again changes nothing.
pub(super) async fn allow_topic<T: Tx>(
    tx: &mut T,
    topic_arn: &str,
    by: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    static SQL: Sql = Sql::new(
        "INSERT INTO allowed_topic (topic_arn, allowed_at, allowed_by) VALUES ($1, $2, $3)
         ON CONFLICT (topic_arn) DO NOTHING",
    );
    tx.execute(&SQL, &[&topic_arn, &now, &by]).await?;
    Ok(())
}

/// Lists the topics, at most `limit`.
pub(super) struct ListAllowedTopics {
    pub(super) limit: usize,
}

impl Operation for ListAllowedTopics {
    type Output = Vec<String>;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        static SQL: Sql =
            Sql::new("SELECT topic_arn FROM allowed_topic ORDER BY topic_arn LIMIT $1");
        tx.all(&SQL, &[&self.limit], |row| row.get(0)).await
    }
}

/// Returns true if a person allowed this topic.
pub(super) struct IsTopicAllowed(pub(super) String);

impl Operation for IsTopicAllowed {
    type Output = bool;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<bool, StoreError> {
        static SQL: Sql = Sql::new("SELECT 1 FROM allowed_topic WHERE topic_arn = $1");
        let found: Option<i64> = tx.first(&SQL, &[&self.0], |row| row.get(0)).await?;
        Ok(found.is_some())
    }
}
