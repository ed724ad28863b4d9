//! Login links and sessions of browsers, which every replica knows by the digests of their
//! secrets; and [`AccessStore`].

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use super::audit::{AuditEntry, AuditRow};
use super::engine::{Operation, SESSIONS_LOCK, Sql, Tx};
use super::rights::Rights;
use crate::domain::Timestamp;

/// Most login links at once; above it the oldest ends.
pub const MAX_LOGIN_LINKS: usize = 32;

/// Most sessions at once; above it the oldest ends.
pub const MAX_SESSIONS: usize = 256;

/// Lifetime of a login link.
pub const LINK_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// Lifetime of a session.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// The part of the store that knows who may use the admin API, and what they did.
#[async_trait]
pub trait AccessStore: Send + Sync {
    /// Stores a login link.
    async fn make_login_link(&self, link: NewLoginLink) -> Result<(), StoreError>;

    /// Uses up a login link and opens a session; `None` if the link is unknown, used up or
    /// too old.
    async fn use_login_link(&self, use_: UseLoginLink) -> Result<Option<SessionRow>, StoreError>;

    /// Opens a session; returns false if its token has been revoked or has expired.
    async fn open_session(&self, session: NewSession) -> Result<bool, StoreError>;

    /// Returns the session with this digest, unless it has expired.
    async fn session(
        &self,
        hash: [u8; 32],
        now: Timestamp,
    ) -> Result<Option<SessionRow>, StoreError>;

    /// Ends a session.
    async fn end_session(&self, hash: [u8; 32]) -> Result<(), StoreError>;

    /// Records that a session or a token was used.
    async fn record_use(&self, used: Used) -> Result<(), StoreError>;

    /// Adds an action to the audit list.
    async fn record_action(&self, action: AuditEntry) -> Result<(), StoreError>;

    /// Lists at most `limit` actions before row `before`, newest first.
    async fn audit(&self, before: Option<i64>, limit: usize) -> Result<Vec<AuditRow>, StoreError>;
}

/// Returns the text that stands for a token as the owner of a session, and in the audit list.
pub fn token_owner(id: i64, name: &str) -> String {
    format!("token:{id}:{name}")
}

/// A login link to be stored, without its secret.
#[derive(Clone, Debug)]
pub struct NewLoginLink {
    /// The SHA-256 digest of its secret.
    pub hash: [u8; 32],
    /// The rights of the session that it opens.
    pub rights: Rights,
    /// Who created it.
    pub created_by: String,
    /// The present moment.
    pub now: Timestamp,
}

impl Operation for NewLoginLink {
    type Output = ();

    async fn run<T: Tx>(self, tx: &mut T) -> Result<(), StoreError> {
        static EXPIRED: Sql = Sql::new("DELETE FROM login_link WHERE expires_at <= $1");
        static OLDEST: Sql = Sql::new(
            "DELETE FROM login_link WHERE hash IN (
                 SELECT hash FROM login_link ORDER BY created_at DESC, hash LIMIT $2 OFFSET $1)",
        );
        static INSERT: Sql = Sql::new(
            "INSERT INTO login_link (hash, rights, created_by, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5)",
        );
        tx.lock(SESSIONS_LOCK).await?;
        let now = tx.now_or(self.now);
        tx.execute(&EXPIRED, &[&now]).await?;
        tx.execute(&OLDEST, &[&(MAX_LOGIN_LINKS - 1), &MAX_LOGIN_LINKS])
            .await?;
        tx.execute(
            &INSERT,
            &[
                &self.hash,
                &self.rights.to_string(),
                &self.created_by,
                &now,
                &now.after(LINK_LIFETIME),
            ],
        )
        .await?;
        Ok(())
    }
}

/// The use of a login link.
#[derive(Clone, Debug)]
pub struct UseLoginLink {
    /// The SHA-256 digest of the link's secret.
    pub link: [u8; 32],
    /// The SHA-256 digest of the new session's secret.
    pub session: [u8; 32],
    /// The present moment.
    pub now: Timestamp,
}

impl Operation for UseLoginLink {
    type Output = Option<SessionRow>;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        static REMOVE: Sql = Sql::new(
            "DELETE FROM login_link WHERE hash = $1 AND expires_at > $2 RETURNING rights, created_by",
        );
        tx.lock(SESSIONS_LOCK).await?;
        let now = tx.now_or(self.now);
        let removed = tx
            .first(&REMOVE, &[&self.link, &now], |row| {
                Ok(SessionRow {
                    rights: row.get(0)?,
                    created_by: row.get(1)?,
                    last_used_at: now,
                })
            })
            .await?;
        let Some(session) = removed else {
            return Ok(None);
        };
        insert_session(
            tx,
            &self.session,
            &session,
            now,
            now.after(SESSION_LIFETIME),
        )
        .await?;
        Ok(Some(session))
    }
}

/// A session to be opened with a token.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The SHA-256 digest of its secret.
    pub hash: [u8; 32],
    /// Its rights.
    pub rights: Rights,
    /// Who opened it.
    pub created_by: String,
    /// The row of the stored token that opened it; `None` for the configured one.
    pub token: Option<i64>,
    /// The present moment.
    pub now: Timestamp,
}

impl Operation for NewSession {
    type Output = bool;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<bool, StoreError> {
        static TOKEN: Sql = Sql::new("SELECT expires_at FROM api_token WHERE id = $1");
        // Revoking a token waits for this lock, and then ends its sessions.
        tx.lock(SESSIONS_LOCK).await?;
        let now = tx.now_or(self.now);
        let mut expires_at = now.after(SESSION_LIFETIME);
        if let Some(id) = self.token {
            let token: Option<Option<Timestamp>> =
                tx.first(&TOKEN, &[&id], |row| row.get(0)).await?;
            match token {
                None => return Ok(false),
                Some(Some(end)) if end <= now => return Ok(false),
                Some(Some(end)) => expires_at = expires_at.min(end),
                Some(None) => {}
            }
        }
        let session = SessionRow {
            rights: self.rights,
            created_by: self.created_by,
            last_used_at: now,
        };
        insert_session(tx, &self.hash, &session, now, expires_at).await?;
        Ok(true)
    }
}

/// Stores a session, after removing those that have expired and the oldest if there are too
/// many.
async fn insert_session<T: Tx>(
    tx: &mut T,
    hash: &[u8; 32],
    session: &SessionRow,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<(), StoreError> {
    static EXPIRED: Sql = Sql::new("DELETE FROM session WHERE expires_at <= $1");
    static OLDEST: Sql = Sql::new(
        "DELETE FROM session WHERE hash IN (
             SELECT hash FROM session ORDER BY created_at DESC, hash LIMIT $2 OFFSET $1)",
    );
    static INSERT: Sql = Sql::new(
        "INSERT INTO session (hash, rights, created_by, created_at, last_used_at, expires_at)
         VALUES ($1, $2, $3, $4, $4, $5)",
    );
    tx.execute(&EXPIRED, &[&now]).await?;
    tx.execute(&OLDEST, &[&(MAX_SESSIONS - 1), &MAX_SESSIONS])
        .await?;
    let rights = session.rights.to_string();
    tx.execute(
        &INSERT,
        &[hash, &rights, &session.created_by, &now, &expires_at],
    )
    .await?;
    Ok(())
}

/// A session of a browser.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// Its rights.
    pub rights: Rights,
    /// Who opened it.
    pub created_by: String,
    /// When it was last used, to the minute.
    pub last_used_at: Timestamp,
}

/// Finds a session that has not expired.
pub(super) struct FindSession {
    pub(super) hash: [u8; 32],
    pub(super) now: Timestamp,
}

impl Operation for FindSession {
    type Output = Option<SessionRow>;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        static SQL: Sql = Sql::new(
            "SELECT rights, created_by, last_used_at FROM session WHERE hash = $1 AND expires_at > $2",
        );
        let now = tx.now_or(self.now);
        tx.first(&SQL, &[&self.hash, &now], |row| {
            Ok(SessionRow {
                rights: row.get(0)?,
                created_by: row.get(1)?,
                last_used_at: row.get(2)?,
            })
        })
        .await
    }
}

/// Ends a session.
pub(super) struct EndSession(pub(super) [u8; 32]);

impl Operation for EndSession {
    type Output = ();

    async fn run<T: Tx>(self, tx: &mut T) -> Result<(), StoreError> {
        static SQL: Sql = Sql::new("DELETE FROM session WHERE hash = $1");
        tx.execute(&SQL, &[&self.0]).await?;
        Ok(())
    }
}

/// Ends the sessions and links of the token of this row.
pub(super) async fn end_sessions_of_token<T: Tx>(tx: &mut T, id: i64) -> Result<(), StoreError> {
    static SESSIONS: Sql = Sql::new("DELETE FROM session WHERE created_by LIKE $1");
    static LINKS: Sql = Sql::new("DELETE FROM login_link WHERE created_by LIKE $1");
    // The owner's text begins with the row, and `:` ends it.
    let pattern = format!("{}%", token_owner(id, ""));
    tx.execute(&SESSIONS, &[&pattern]).await?;
    tx.execute(&LINKS, &[&pattern]).await?;
    Ok(())
}

/// The use of a token or a session.
#[derive(Clone, Copy, Debug)]
pub enum Used {
    /// The token of this row.
    Token(i64, Timestamp),
    /// The session with this digest.
    Session([u8; 32], Timestamp),
}

impl Operation for Used {
    type Output = ();

    async fn run<T: Tx>(self, tx: &mut T) -> Result<(), StoreError> {
        static TOKEN: Sql = Sql::new("UPDATE api_token SET last_used_at = $2 WHERE id = $1");
        static SESSION: Sql = Sql::new("UPDATE session SET last_used_at = $2 WHERE hash = $1");
        match self {
            Self::Token(id, now) => tx.execute(&TOKEN, &[&id, &tx.now_or(now)]).await?,
            Self::Session(hash, now) => tx.execute(&SESSION, &[&hash, &tx.now_or(now)]).await?,
        };
        Ok(())
    }
}
