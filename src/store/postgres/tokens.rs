//! Tokens of the admin listener.

use tokio_postgres::Row;

use super::connection::Transaction;
use super::rows::{self, escape_nul};
use crate::store::columns;
use crate::store::{ApiTokenMade, ApiTokenRow, MAX_API_TOKENS, NewApiToken, StoreError};

fn read(row: &Row) -> Result<ApiTokenRow, StoreError> {
    Ok(ApiTokenRow {
        id: row.try_get(0)?,
        name: rows::text(row, 1)?,
        rights: columns::rights(row.try_get(2)?)?,
        created_at: rows::timestamp(row, 3)?,
    })
}

pub(super) async fn make(
    transaction: &Transaction<'_>,
    token: &NewApiToken,
) -> Result<ApiTokenMade, StoreError> {
    // One at a time, so that the limit holds and a taken name is reported as such.
    transaction
        .script("LOCK TABLE api_token IN EXCLUSIVE MODE")
        .await?;
    let name = escape_nul(&token.name);
    let row = transaction
        .query_one(
            "SELECT EXISTS (SELECT 1 FROM api_token WHERE name = $1), count(*) FROM api_token",
            &[&name],
        )
        .await?;
    if row.try_get(0)? {
        return Ok(ApiTokenMade::NameTaken);
    }
    if row.try_get::<_, i64>(1)? >= MAX_API_TOKENS {
        return Ok(ApiTokenMade::TooMany);
    }
    let row = transaction
        .query_one(
            "INSERT INTO api_token (name, rights, hash, created_at) VALUES ($1, $2, $3, $4) RETURNING id",
            &[
                &name,
                &token.rights.as_str(),
                &token.hash.to_vec(),
                &token.now.as_millis(),
            ],
        )
        .await?;
    Ok(ApiTokenMade::Row(row.try_get(0)?))
}

pub(super) async fn list(transaction: &Transaction<'_>) -> Result<Vec<ApiTokenRow>, StoreError> {
    let rows = transaction
        .query(
            "SELECT id, name, rights, created_at FROM api_token ORDER BY id",
            &[],
        )
        .await?;
    rows.iter().map(read).collect()
}

pub(super) async fn find(
    transaction: &Transaction<'_>,
    hash: &[u8; 32],
) -> Result<Option<ApiTokenRow>, StoreError> {
    let row = transaction
        .query_opt(
            "SELECT id, name, rights, created_at FROM api_token WHERE hash = $1",
            &[&hash.to_vec()],
        )
        .await?;
    row.as_ref().map(read).transpose()
}

pub(super) async fn revoke(transaction: &Transaction<'_>, id: i64) -> Result<bool, StoreError> {
    let removed = transaction
        .execute("DELETE FROM api_token WHERE id = $1", &[&id])
        .await?;
    Ok(removed > 0)
}
