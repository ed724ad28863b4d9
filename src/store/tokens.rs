//! Tokens of the admin listener.

use serde::Serialize;

use super::StoreError;
use super::engine::{Operation, Row, SESSIONS_LOCK, Sql, TOKENS_LOCK, Tx};
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
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ApiTokenRow {
    /// The row; never used for another token.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// The rights of its bearer: `metrics`, `read`, `operate`, `admin` or `destination:NAME`.
    #[schema(value_type = String)]
    pub rights: Rights,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ends; null if it never does.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute; null if it never was.
    pub last_used_at: Option<Timestamp>,
}

impl ApiTokenRow {
    /// Reads a token from its columns.
    fn read(row: &dyn Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.get(0)?,
            name: row.get(1)?,
            rights: row.get(2)?,
            created_at: row.get(3)?,
            expires_at: row.get(4)?,
            last_used_at: row.get(5)?,
        })
    }
}

impl Operation for NewApiToken {
    type Output = ApiTokenMade;

    /// Stores the token.
    async fn run<T: Tx>(self, tx: &mut T) -> Result<ApiTokenMade, StoreError> {
        static COUNT: Sql = Sql::new(
            "SELECT EXISTS (SELECT 1 FROM api_token WHERE name = $1), count(*) FROM api_token",
        );
        static INSERT: Sql = Sql::new(
            "INSERT INTO api_token (name, rights, hash, created_at, expires_at) VALUES ($1, $2, $3, $4, $5) RETURNING id",
        );
        // One at a time, so that the limit holds and a taken name is reported as such.
        tx.lock(TOKENS_LOCK).await?;
        let (is_taken, count): (bool, i64) = tx
            .one(&COUNT, &[&self.name], |row| Ok((row.get(0)?, row.get(1)?)))
            .await?;
        if is_taken {
            return Ok(ApiTokenMade::NameTaken);
        }
        if count >= MAX_API_TOKENS {
            return Ok(ApiTokenMade::TooMany);
        }
        let id = tx
            .one(
                &INSERT,
                &[
                    &self.name,
                    &self.rights.to_string(),
                    &self.hash,
                    &self.now,
                    &self.expires_at,
                ],
                |row| row.get(0),
            )
            .await?;
        Ok(ApiTokenMade::Row(id))
    }
}

/// Lists the tokens, oldest first.
pub(super) struct ListApiTokens;

impl Operation for ListApiTokens {
    type Output = Vec<ApiTokenRow>;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        static SQL: Sql = Sql::new(
            "SELECT id, name, rights, created_at, expires_at, last_used_at FROM api_token ORDER BY id",
        );
        tx.all(&SQL, &[], ApiTokenRow::read).await
    }
}

/// Finds the token with this SHA-256 digest.
pub(super) struct FindApiToken(pub(super) [u8; 32]);

impl Operation for FindApiToken {
    type Output = Option<ApiTokenRow>;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        static SQL: Sql = Sql::new(
            "SELECT id, name, rights, created_at, expires_at, last_used_at FROM api_token WHERE hash = $1",
        );
        tx.first(&SQL, &[&self.0], ApiTokenRow::read).await
    }
}

/// Removes the token of this row and ends its sessions; returns false if it does not exist.
pub(super) struct RevokeApiToken(pub(super) i64);

impl Operation for RevokeApiToken {
    type Output = bool;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<bool, StoreError> {
        static SQL: Sql = Sql::new("DELETE FROM api_token WHERE id = $1");
        tx.lock(SESSIONS_LOCK).await?;
        let exists = tx.execute(&SQL, &[&self.0]).await? > 0;
        end_sessions_of_token(tx, self.0).await?;
        Ok(exists)
    }
}
