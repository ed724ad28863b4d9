//! Tokens of the admin listener.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows;
use crate::store::{ApiTokenMade, ApiTokenRow, MAX_API_TOKENS, NewApiToken};

fn read(row: &Row<'_>) -> rusqlite::Result<ApiTokenRow> {
    Ok(ApiTokenRow {
        id: row.get(0)?,
        name: row.get(1)?,
        rights: rows::rights(row, 2)?,
        created_at: rows::timestamp(row, 3)?,
    })
}

pub(super) fn make(connection: &Connection, token: &NewApiToken) -> rusqlite::Result<ApiTokenMade> {
    let (taken, count): (bool, i64) = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM api_token WHERE name = ?1), count(*) FROM api_token",
        params![token.name],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if taken {
        return Ok(ApiTokenMade::NameTaken);
    }
    if count >= MAX_API_TOKENS {
        return Ok(ApiTokenMade::TooMany);
    }
    connection.execute(
        "INSERT INTO api_token (name, rights, hash, created_at) VALUES (?1, ?2, ?3, ?4)",
        params![
            token.name,
            token.rights.as_str(),
            token.hash,
            token.now.as_millis()
        ],
    )?;
    Ok(ApiTokenMade::Row(connection.last_insert_rowid()))
}

pub(super) fn list(connection: &Connection) -> rusqlite::Result<Vec<ApiTokenRow>> {
    connection
        .prepare_cached("SELECT id, name, rights, created_at FROM api_token ORDER BY id")?
        .query_map([], read)?
        .collect()
}

pub(super) fn find(
    connection: &Connection,
    hash: &[u8; 32],
) -> rusqlite::Result<Option<ApiTokenRow>> {
    connection
        .prepare_cached("SELECT id, name, rights, created_at FROM api_token WHERE hash = ?1")?
        .query_row(params![hash], read)
        .optional()
}

pub(super) fn revoke(connection: &Connection, id: i64) -> rusqlite::Result<bool> {
    let removed = connection.execute("DELETE FROM api_token WHERE id = ?1", params![id])?;
    Ok(removed > 0)
}
