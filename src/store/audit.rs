//! The audit list: what people and programs did.

use super::engine::{Sql, Tx, operations, rows};
use super::error::Result;
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
#[derive(Clone, Debug)]
pub struct AuditRow {
    /// Ascending in the order of the actions.
    pub id: i64,
    /// When it happened.
    pub at: Timestamp,
    /// Who did it: `user:1000:ona` for a user of the machine, `token:3:monitoring` for a token,
    /// `token_file` for the configured token.
    pub actor: String,
    /// What was done, such as `feeds pause`.
    pub action: String,
    /// To what, such as `account=default`; may be empty.
    pub subject: String,
    /// More about it.
    pub detail: Option<String>,
}

operations! {
    /// Adds an action to the audit list, and removes what is beyond [`MAX_AUDIT_ROWS`].
    pub write record_action(action: AuditEntry) -> ();

    /// Lists at most `limit` actions before row `before`, newest first.
    pub read audit(before: Option<i64>, limit: usize) -> Vec<AuditRow>;
}

rows! { AuditRow { id, at, actor, action, subject, detail } }

async fn record_action<T: Tx>(tx: &T, entry: AuditEntry) -> Result<()> {
    static INSERT: Sql = Sql::new(
        "INSERT INTO audit (at, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5) RETURNING id",
    );
    static REMOVE: Sql = Sql::new("DELETE FROM audit WHERE id <= $1");
    let AuditEntry {
        at,
        actor,
        action,
        subject,
        detail,
    } = entry;
    let at = tx.now_or(at);
    let id: i64 = tx
        .one(&INSERT, &[&at, &actor, &action, &subject, &detail])
        .await?;
    tx.run(&REMOVE, &[&(id - MAX_AUDIT_ROWS)]).await
}

async fn audit<T: Tx>(tx: &T, before: Option<i64>, limit: usize) -> Result<Vec<AuditRow>> {
    static SQL: Sql = Sql::new(
        "SELECT id, at, actor, action, subject, detail FROM audit
         WHERE id < $1 ORDER BY id DESC LIMIT $2",
    );
    let before = before.unwrap_or(i64::MAX);
    tx.all(&SQL, &[&before, &limit]).await
}
