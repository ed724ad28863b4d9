//! The audit list: what people and programs did.

use serde::Serialize;

use super::StoreError;
use super::engine::{Operation, Row, Sql, Tx};
use crate::domain::Timestamp;

/// Most rows of the audit list; the oldest make room for new ones.
pub const MAX_AUDIT_ROWS: i64 = 100_000;

/// An action for the audit list.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    /// When it happened.
    pub at: Timestamp,
    /// Who did it.
    pub actor: String,
    /// What was done, such as `feeds pause`.
    pub action: String,
    /// To what, such as `account=default`; may be empty.
    pub subject: String,
    /// More about it.
    pub detail: Option<String>,
}

/// A row of the audit list.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct AuditRow {
    /// Ascending in the order of the actions.
    pub id: i64,
    /// When it happened.
    pub at: Timestamp,
    /// Who did it: `user:1000` for a user of the machine, `token:3:monitoring` for a token,
    /// `token_file` for the configured token.
    pub actor: String,
    /// What was done, such as `feeds pause`.
    pub action: String,
    /// To what, such as `account=default`; may be empty.
    pub subject: String,
    /// More about it.
    pub detail: Option<String>,
}

impl AuditRow {
    /// Reads a row from its columns `id, at, actor, action, subject, detail`.
    fn read(row: &dyn Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.get(0)?,
            at: row.get(1)?,
            actor: row.get(2)?,
            action: row.get(3)?,
            subject: row.get(4)?,
            detail: row.get(5)?,
        })
    }
}

impl Operation for AuditEntry {
    type Output = ();

    /// Adds the action, and removes what is beyond [`MAX_AUDIT_ROWS`].
    async fn run<T: Tx>(self, tx: &mut T) -> Result<(), StoreError> {
        static INSERT: Sql = Sql::new(
            "INSERT INTO audit (at, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5) RETURNING id",
        );
        static REMOVE: Sql = Sql::new("DELETE FROM audit WHERE id <= $1");
        let at = tx.now_or(self.at);
        let id: i64 = tx
            .one(
                &INSERT,
                &[&at, &self.actor, &self.action, &self.subject, &self.detail],
                |row| row.get(0),
            )
            .await?;
        tx.execute(&REMOVE, &[&(id - MAX_AUDIT_ROWS)]).await?;
        Ok(())
    }
}

/// Lists at most `limit` actions before row `before`, newest first.
pub(super) struct ListAudit {
    pub(super) before: Option<i64>,
    pub(super) limit: usize,
}

impl Operation for ListAudit {
    type Output = Vec<AuditRow>;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        static SQL: Sql = Sql::new(
            "SELECT id, at, actor, action, subject, detail FROM audit
             WHERE id < $1 ORDER BY id DESC LIMIT $2",
        );
        let before = self.before.unwrap_or(i64::MAX);
        tx.all(&SQL, &[&before, &self.limit], AuditRow::read).await
    }
}
