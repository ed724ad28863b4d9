//! Tokens of the admin listener.

use serde::{Deserialize, Serialize};

use super::engine::{Sql, TOKENS_LOCK, Tx, operations, params, rows};
use super::error::Result;
use crate::domain::Timestamp;

/// Maximum number of tokens.
pub const MAX_API_TOKENS: i64 = 64;

/// The rights of a token's bearer.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Rights {
    /// See everything, including message bodies, and change nothing
    Read,
    /// Change things as well
    Operate,
}

impl Rights {
    /// Both, the lesser one first.
    pub const ALL: [Self; 2] = [Self::Read, Self::Operate];

    /// Returns the right's name in the store, on the command line and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

/// A token to be stored, without the token itself.
#[derive(Clone, Debug)]
pub struct NewApiToken {
    /// Its name; unique.
    pub name: String,
    /// The rights of its bearer.
    pub rights: Rights,
    /// The SHA-256 digest of the token.
    pub hash: [u8; 32],
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
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ApiTokenRow {
    /// The row; never used for another token.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// The rights of its bearer.
    pub rights: Rights,
    /// When it was created.
    pub created_at: Timestamp,
}

operations! {
    /// Stores a token of the admin listener.
    pub write make_api_token(token: NewApiToken) -> ApiTokenMade;

    /// Lists the tokens of the admin listener, oldest first.
    pub read api_tokens() -> Vec<ApiTokenRow>;

    /// Returns the token with this SHA-256 digest.
    pub read api_token(hash: [u8; 32]) -> Option<ApiTokenRow>;

    /// Removes a token; returns false if it does not exist.
    pub write revoke_api_token(id: i64) -> bool;
}

rows! { ApiTokenRow { id, name, rights, created_at } }

async fn make_api_token<T: Tx>(tx: &mut T, token: NewApiToken) -> Result<ApiTokenMade> {
    static COUNT: Sql = Sql::new(
        "SELECT EXISTS (SELECT 1 FROM api_token WHERE name = $1), count(*) FROM api_token",
    );
    static INSERT: Sql = Sql::new(
        "INSERT INTO api_token (name, rights, hash, created_at) VALUES ($1, $2, $3, $4) RETURNING id",
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
    let params = params! { token.name, token.rights, token.hash, token.now };
    Ok(ApiTokenMade::Row(tx.one(&INSERT, params).await?))
}

async fn api_tokens<T: Tx>(tx: &mut T) -> Result<Vec<ApiTokenRow>> {
    static SQL: Sql = Sql::new("SELECT id, name, rights, created_at FROM api_token ORDER BY id");
    tx.all(&SQL, &[]).await
}

async fn api_token<T: Tx>(tx: &mut T, hash: [u8; 32]) -> Result<Option<ApiTokenRow>> {
    static SQL: Sql =
        Sql::new("SELECT id, name, rights, created_at FROM api_token WHERE hash = $1");
    tx.first(&SQL, &[&hash]).await
}

async fn revoke_api_token<T: Tx>(tx: &mut T, id: i64) -> Result<bool> {
    static SQL: Sql = Sql::new("DELETE FROM api_token WHERE id = $1");
    Ok(tx.execute(&SQL, &[&id]).await? > 0)
}
