//! The audit list.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::from_rows;
use crate::domain::Timestamp;
use crate::store::AuditRow;

/// What a person or a program did.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Action {
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

from_rows! { Action of AuditRow { id, at, actor, action, subject, detail } }
