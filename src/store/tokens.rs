//! Tokens of the admin listener.

use super::engine::{SESSIONS_LOCK, Sql, TOKENS_LOCK, Tx, operations, params, rows};
use super::error::Result;
use super::rights::Rights;
use super::sessions::end_sessions_of_token;
use crate::domain::Timestamp;

/// Maximum number of tokens.
pub const MAX_API_TOKENS: i64 = 64;

/// A token to be stored, without the token itself.
#[derive(Clone, Debug)]
pub struct NewApiToken {
    /// Its name; unique.
    pub name: String,
    /// The rights of its bearer.
    pub rights: Rights,
    /// The SHA-256 digest of the token.
    pub hash: [u8; 32],
    /// When it ends; `None` if it never does.
    pub expires_at: Option<Timestamp>,
    /// The present moment.
    pub now: Timestamp,
}

/// The result of storing a [`NewApiToken`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiTokenMade {
    /// It was stored as this row.
    Row(i64),
    /// Another token has the name.
    NameTaken,
    /// There are [`MAX_API_TOKENS`] already.
    TooMany,
}

/// A stored token.
#[derive(Clone, Debug)]
pub struct ApiTokenRow {
    /// The row; never used for another token.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// The rights of its bearer: `metrics`, `read`, `operate`, `admin` or `destination:NAME`.
    pub rights: Rights,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ends; null if it never does.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute; null if it never was.
    pub last_used_at: Option<Timestamp>,
}

operations! {
    /// Stores a token of the admin listener.
    pub write make_api_token(token: NewApiToken) -> ApiTokenMade;

    /// Lists the tokens of the admin listener, oldest first.
    pub read api_tokens() -> Vec<ApiTokenRow>;

    /// Returns the token with this SHA-256 digest.
    pub read api_token(hash: [u8; 32]) -> Option<ApiTokenRow>;

    /// Removes a token and ends its sessions; returns false if it does not exist.
    pub write revoke_api_token(id: i64) -> bool;
}

rows! { ApiTokenRow { id, name, rights, created_at, expires_at, last_used_at } }

async fn make_api_token<T: Tx>(tx: &T, token: NewApiToken) -> Result<ApiTokenMade> {
    static COUNT: Sql = Sql::new(
        "SELECT EXISTS (SELECT 1 FROM api_token WHERE name = $1), count(*) FROM api_token",
    );
    static INSERT: Sql = Sql::new(
        "INSERT INTO api_token (name, rights, hash, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5) RETURNING id",
    );
    // One at a time, so that the limit holds and a taken name is reported as such.
    tx.lock(TOKENS_LOCK).await?;
    let (is_taken, count): (bool, i64) = tx.one(&COUNT, &[&token.name]).await?;
    if is_taken {
        return Ok(ApiTokenMade::NameTaken);
    }
    if count >= MAX_API_TOKENS {
        return Ok(ApiTokenMade::TooMany);
    }
    let rights = token.rights.to_string();
    let params = params! { token.name, rights, token.hash, token.now, token.expires_at };
    Ok(ApiTokenMade::Row(tx.one(&INSERT, params).await?))
}

async fn api_tokens<T: Tx>(tx: &T) -> Result<Vec<ApiTokenRow>> {
    static SQL: Sql = Sql::new(
        "SELECT id, name, rights, created_at, expires_at, last_used_at FROM api_token ORDER BY id",
    );
    tx.all(&SQL, &[]).await
}

async fn api_token<T: Tx>(tx: &T, hash: [u8; 32]) -> Result<Option<ApiTokenRow>> {
    static SQL: Sql = Sql::new(
        "SELECT id, name, rights, created_at, expires_at, last_used_at FROM api_token WHERE hash = $1",
    );
    tx.first(&SQL, &[&hash]).await
}

async fn revoke_api_token<T: Tx>(tx: &T, id: i64) -> Result<bool> {
    static SQL: Sql = Sql::new("DELETE FROM api_token WHERE id = $1");
    tx.lock(SESSIONS_LOCK).await?;
    let exists = tx.execute(&SQL, &[&id]).await? > 0;
    end_sessions_of_token(tx, id).await?;
    Ok(exists)
}
