//! The methods of [`AccessStore`].

use async_trait::async_trait;

use super::SqliteStore;
use crate::domain::Timestamp;
use crate::store::audit::ListAudit;
use crate::store::sessions::{EndSession, FindSession};
use crate::store::{
    AccessStore, AuditEntry, AuditRow, NewLoginLink, NewSession, SessionRow, StoreError,
    UseLoginLink, Used,
};

#[async_trait]
impl AccessStore for SqliteStore {
    async fn make_login_link(&self, link: NewLoginLink) -> Result<(), StoreError> {
        self.write(link).await
    }

    async fn use_login_link(&self, use_: UseLoginLink) -> Result<Option<SessionRow>, StoreError> {
        self.write(use_).await
    }

    async fn open_session(&self, session: NewSession) -> Result<bool, StoreError> {
        self.write(session).await
    }

    async fn session(
        &self,
        hash: [u8; 32],
        now: Timestamp,
    ) -> Result<Option<SessionRow>, StoreError> {
        self.read(FindSession { hash, now }).await
    }

    async fn end_session(&self, hash: [u8; 32]) -> Result<(), StoreError> {
        self.write(EndSession(hash)).await
    }

    async fn record_use(&self, used: Used) -> Result<(), StoreError> {
        self.write(used).await
    }

    async fn record_action(&self, action: AuditEntry) -> Result<(), StoreError> {
        self.write(action).await
    }

    async fn audit(&self, before: Option<i64>, limit: usize) -> Result<Vec<AuditRow>, StoreError> {
        self.read(ListAudit { before, limit }).await
    }
}
