//! Login links and sessions of browsers, which every replica knows by the digests of their
//! secrets.

use std::time::Duration;

use super::engine::{SESSIONS_LOCK, Sql, Tx, operations, params, rows};
use super::error::Result;
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

operations! {
    /// Stores a login link; returns when it ends, or `None` if its creator's token has been revoked or has
    /// expired.
    pub write make_login_link(link: NewLoginLink) -> Option<Timestamp>;

    /// Uses up a login link and opens a session; `None` if the link is unknown, used up or
    /// too old.
    pub write use_login_link(used: UseLoginLink) -> Option<SessionRow>;

    /// Opens a session; returns false if its token has been revoked or has expired.
    pub write open_session(session: NewSession) -> bool;

    /// Returns the session with this digest, unless it has expired.
    pub read session(hash: [u8; 32], now: Timestamp) -> Option<SessionRow>;

    /// Ends a session.
    pub write end_session(hash: [u8; 32]) -> ();

    /// Records that a session or a token was used.
    pub write record_use(used: Used) -> ();
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
    /// The row of the stored token that created it; `None` for the configured one, and for users of the machine.
    pub token: Option<i64>,
    /// The present moment.
    pub now: Timestamp,
}

async fn make_login_link<T: Tx>(tx: &T, link: NewLoginLink) -> Result<Option<Timestamp>> {
    static EXPIRED: Sql = Sql::new("DELETE FROM login_link WHERE expires_at <= $1");
    static OLDEST: Sql = Sql::new(
        "DELETE FROM login_link WHERE hash IN (
             SELECT hash FROM login_link ORDER BY created_at DESC, hash LIMIT $2 OFFSET $1)",
    );
    static INSERT: Sql = Sql::new(
        "INSERT INTO login_link (hash, rights, created_by, created_at, expires_at, sessions_end_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
    );
    // Revoking a token waits for this lock, and then ends its links.
    tx.lock(SESSIONS_LOCK).await?;
    let now = tx.now_or(link.now);
    let end = now.after(LINK_LIFETIME);
    // Of a link that is used in its last moment.
    let sessions_end = end.after(SESSION_LIFETIME);
    let Some(sessions_end) = end_with_token(tx, link.token, sessions_end, now).await? else {
        return Ok(None);
    };
    let end = end.min(sessions_end);
    tx.run(&EXPIRED, &[&now]).await?;
    tx.run(&OLDEST, &[&(MAX_LOGIN_LINKS - 1), &MAX_LOGIN_LINKS])
        .await?;
    let rights = link.rights.to_string();
    let params = params! { link.hash, rights, link.created_by, now, end, sessions_end };
    tx.run(&INSERT, params).await?;
    Ok(Some(end))
}

/// Returns when what a token opens ends: with the token, and at `latest`. `None` if the token has been revoked or
/// has expired.
async fn end_with_token<T: Tx>(
    tx: &T,
    token: Option<i64>,
    latest: Timestamp,
    now: Timestamp,
) -> Result<Option<Timestamp>> {
    static TOKEN: Sql = Sql::new(
        "SELECT expires_at FROM api_token
         WHERE id = $1 AND (expires_at IS NULL OR expires_at > $2)",
    );
    let Some(id) = token else {
        return Ok(Some(latest));
    };
    let token: Option<TokenEnd> = tx.first(&TOKEN, &[&id, &now]).await?;
    Ok(token.map(|token| token.expires_at.unwrap_or(latest).min(latest)))
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

async fn use_login_link<T: Tx>(tx: &T, used: UseLoginLink) -> Result<Option<SessionRow>> {
    static REMOVE: Sql = Sql::new(
        "DELETE FROM login_link WHERE hash = $1 AND expires_at > $2
         RETURNING rights, created_by, sessions_end_at",
    );
    tx.lock(SESSIONS_LOCK).await?;
    let now = tx.now_or(used.now);
    let removed: Option<(Rights, String, Timestamp)> =
        tx.first(&REMOVE, &[&used.link, &now]).await?;
    let Some((rights, created_by, sessions_end)) = removed else {
        return Ok(None);
    };
    let session = SessionRow {
        rights,
        created_by,
        last_used_at: now,
    };
    let end = now.after(SESSION_LIFETIME).min(sessions_end);
    insert_session(tx, &used.session, &session, now, end).await?;
    Ok(Some(session))
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

async fn open_session<T: Tx>(tx: &T, session: NewSession) -> Result<bool> {
    // Revoking a token waits for this lock, and then ends its sessions.
    tx.lock(SESSIONS_LOCK).await?;
    let now = tx.now_or(session.now);
    let latest = now.after(SESSION_LIFETIME);
    let Some(expires_at) = end_with_token(tx, session.token, latest, now).await? else {
        return Ok(false);
    };
    let row = SessionRow {
        rights: session.rights,
        created_by: session.created_by,
        last_used_at: now,
    };
    insert_session(tx, &session.hash, &row, now, expires_at).await?;
    Ok(true)
}

/// When a token ends, if it does.
struct TokenEnd {
    expires_at: Option<Timestamp>,
}

rows! { TokenEnd { expires_at } }

/// Stores a session, after removing those that have expired and the oldest if there are too
/// many.
async fn insert_session<T: Tx>(
    tx: &T,
    hash: &[u8; 32],
    session: &SessionRow,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<()> {
    static EXPIRED: Sql = Sql::new("DELETE FROM session WHERE expires_at <= $1");
    static OLDEST: Sql = Sql::new(
        "DELETE FROM session WHERE hash IN (
             SELECT hash FROM session ORDER BY created_at DESC, hash LIMIT $2 OFFSET $1)",
    );
    static INSERT: Sql = Sql::new(
        "INSERT INTO session (hash, rights, created_by, created_at, last_used_at, expires_at)
         VALUES ($1, $2, $3, $4, $4, $5)",
    );
    tx.run(&EXPIRED, &[&now]).await?;
    tx.run(&OLDEST, &[&(MAX_SESSIONS - 1), &MAX_SESSIONS])
        .await?;
    let rights = session.rights.to_string();
    tx.run(
        &INSERT,
        &[hash, &rights, &session.created_by, &now, &expires_at],
    )
    .await
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

rows! { SessionRow { rights, created_by, last_used_at } }

async fn session<T: Tx>(tx: &T, hash: [u8; 32], now: Timestamp) -> Result<Option<SessionRow>> {
    static SQL: Sql = Sql::new(
        "SELECT rights, created_by, last_used_at FROM session WHERE hash = $1 AND expires_at > $2",
    );
    let now = tx.now_or(now);
    tx.first(&SQL, &[&hash, &now]).await
}

async fn end_session<T: Tx>(tx: &T, hash: [u8; 32]) -> Result<()> {
    static SQL: Sql = Sql::new("DELETE FROM session WHERE hash = $1");
    tx.run(&SQL, &[&hash]).await
}

/// Ends the sessions and links of the token of this row.
pub(super) async fn end_sessions_of_token<T: Tx>(tx: &T, id: i64) -> Result<()> {
    static SESSIONS: Sql = Sql::new("DELETE FROM session WHERE created_by LIKE $1");
    static LINKS: Sql = Sql::new("DELETE FROM login_link WHERE created_by LIKE $1");
    // The owner's text begins with the row, and `:` ends it.
    let pattern = format!("{}%", token_owner(id, ""));
    tx.run(&SESSIONS, &[&pattern]).await?;
    tx.run(&LINKS, &[&pattern]).await
}

/// The use of a token or a session.
#[derive(Clone, Copy, Debug)]
pub enum Used {
    /// The token of this row.
    Token(i64, Timestamp),
    /// The session with this digest.
    Session([u8; 32], Timestamp),
}

async fn record_use<T: Tx>(tx: &T, used: Used) -> Result<()> {
    static TOKEN: Sql = Sql::new("UPDATE api_token SET last_used_at = $2 WHERE id = $1");
    static SESSION: Sql = Sql::new("UPDATE session SET last_used_at = $2 WHERE hash = $1");
    match used {
        Used::Token(id, now) => {
            let now = tx.now_or(now);
            tx.run(&TOKEN, &[&id, &now]).await
        }
        Used::Session(hash, now) => {
            let now = tx.now_or(now);
            tx.run(&SESSION, &[&hash, &now]).await
        }
    }
}
