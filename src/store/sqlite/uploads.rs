//! Files sent to the vendor, and the documents made of them.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{self, account_id};
use crate::domain::{Account, Timestamp};
use crate::store::{
    NewUpload, UploadBegun, UploadEnd, UploadFilter, UploadReturn, UploadRow, UploadState,
};

fn read(row: &Row<'_>) -> rusqlite::Result<UploadRow> {
    let documents: String = row.get(12)?;
    Ok(UploadRow {
        id: row.get(0)?,
        account: rows::account(row, 1)?,
        file_name: row.get(2)?,
        size_bytes: row.get(3)?,
        sha256: row.get(4)?,
        correlation: row.get(5)?,
        state: rows::upload_state(row, 6)?,
        attempts: row.get(7)?,
        created_at: rows::timestamp(row, 8)?,
        changed_at: rows::timestamp(row, 9)?,
        sent_at: rows::optional_timestamp(row, 10)?,
        last_error: row.get(11)?,
        documents: serde_json::from_str(&documents).unwrap_or_default(),
    })
}

/// Returns the query for rows that meet `condition`, which may use ?1 and following.
fn select(condition: &str) -> String {
    format!(
        "SELECT u.id, a.name, u.file_name, u.size_bytes, u.sha256, u.correlation, u.state, u.attempts,
             u.created_at, u.changed_at, u.sent_at, u.last_error,
             (SELECT json_group_array(d.document_id) FROM upload_document d WHERE d.upload_id = u.id)
         FROM upload u JOIN account a ON a.id = u.account_id WHERE {condition}"
    )
}

fn by_id(connection: &Connection, id: i64) -> rusqlite::Result<UploadRow> {
    connection
        .prepare_cached(&select("u.id = ?1"))?
        .query_row(params![id], read)
}

/// The newest upload of a content, which decides whether it is sent.
struct LatestUpload {
    id: i64,
    state: UploadState,
    owner: Option<String>,
    claimed_until: Option<Timestamp>,
}

fn latest(
    connection: &Connection,
    account: i64,
    sha256: &str,
) -> rusqlite::Result<Option<LatestUpload>> {
    connection
        .prepare_cached(
            "SELECT id, state, owner, claimed_until FROM upload
             WHERE account_id = ?1 AND sha256 = ?2 ORDER BY id DESC LIMIT 1",
        )?
        .query_row(params![account, sha256], |row| {
            Ok(LatestUpload {
                id: row.get(0)?,
                state: rows::upload_state(row, 1)?,
                owner: row.get(2)?,
                claimed_until: rows::optional_timestamp(row, 3)?,
            })
        })
        .optional()
}

pub(super) fn begin(connection: &Connection, upload: &NewUpload) -> rusqlite::Result<UploadBegun> {
    let account = account_id(connection, &upload.account)?;
    let latest = latest(connection, account, &upload.sha256)?;
    if let Some(latest) = &latest
        && latest.state == UploadState::Sending
        && latest.owner.as_deref() != Some(&upload.owner)
        && let Some(until) = latest.claimed_until.filter(|until| *until > upload.now)
    {
        return Ok(UploadBegun::Busy { until });
    }
    let id = match latest {
        Some(latest) if latest.state == UploadState::Sent && !upload.force => {
            return by_id(connection, latest.id).map(UploadBegun::Already);
        }
        Some(latest) if latest.state != UploadState::Sent => latest.id,
        _ => insert(connection, account, upload)?,
    };
    connection
        .prepare_cached(
            "UPDATE upload SET state = 'sending', owner = ?2, claimed_until = ?3, attempts = attempts + 1,
                 changed_at = ?4, file_name = ?5
             WHERE id = ?1",
        )?
        .execute(params![
            id,
            upload.owner,
            upload.now.after(upload.claim).as_millis(),
            upload.now.as_millis(),
            upload.file_name,
        ])?;
    by_id(connection, id).map(UploadBegun::Send)
}

fn insert(connection: &Connection, account: i64, upload: &NewUpload) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "INSERT INTO upload (account_id, correlation, sha256, size_bytes, file_name, state, created_at, changed_at)
             VALUES (?1, ?2, ?3, ?4, ?5, 'sending', ?6, ?6)",
        )?
        .execute(params![
            account,
            upload.correlation,
            upload.sha256,
            upload.size_bytes,
            upload.file_name,
            upload.now.as_millis(),
        ])?;
    Ok(connection.last_insert_rowid())
}

/// Records how an attempt ended; returns false if another process has claimed the file.
pub(super) fn end(
    connection: &Connection,
    id: i64,
    owner: &str,
    end: &UploadEnd,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let (state, error) = match end {
        UploadEnd::Sent => (UploadState::Sent, None),
        UploadEnd::Refused(error) => (UploadState::Refused, Some(error)),
        UploadEnd::Failed(error) => (UploadState::Failed, Some(error)),
    };
    let sent_at = (state == UploadState::Sent).then(|| now.as_millis());
    let changed = connection
        .prepare_cached(
            "UPDATE upload SET state = ?3, last_error = ?4, changed_at = ?5, sent_at = coalesce(?6, sent_at),
                 owner = NULL, claimed_until = NULL
             WHERE id = ?1 AND owner = ?2",
        )?
        .execute(params![id, owner, state.as_str(), error, now.as_millis(), sent_at])?;
    Ok(changed > 0)
}

/// Links the documents of a page to the files that they were made of.
pub(super) fn link_documents(
    connection: &Connection,
    account: &Account,
    returns: &[UploadReturn],
) -> rusqlite::Result<()> {
    if returns.is_empty() {
        return Ok(());
    }
    let account = account_id(connection, account)?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO upload_document (upload_id, document_id)
         SELECT id, ?3 FROM upload WHERE account_id = ?1 AND correlation = ?2
         ON CONFLICT DO NOTHING",
    )?;
    for one in returns {
        statement.execute(params![account, one.correlation, one.document_id])?;
    }
    Ok(())
}

pub(super) fn list(
    connection: &Connection,
    filter: &UploadFilter,
) -> rusqlite::Result<Vec<UploadRow>> {
    connection
        .prepare_cached(&select(
            "u.id > ?1 AND (?2 IS NULL OR (u.sent_at < ?2 AND NOT EXISTS
                 (SELECT 1 FROM upload_document d WHERE d.upload_id = u.id)))
             ORDER BY u.id LIMIT ?3",
        ))?
        .query_map(
            params![
                filter.after,
                filter.missing_since.map(Timestamp::as_millis),
                i64::try_from(filter.limit).unwrap_or(i64::MAX),
            ],
            read,
        )?
        .collect()
}

pub(super) fn newest_first(
    connection: &Connection,
    before: Option<i64>,
    limit: usize,
) -> rusqlite::Result<Vec<UploadRow>> {
    connection
        .prepare_cached(&select("u.id < ?1 ORDER BY u.id DESC LIMIT ?2"))?
        .query_map(
            params![
                before.unwrap_or(i64::MAX),
                i64::try_from(limit).unwrap_or(i64::MAX),
            ],
            read,
        )?
        .collect()
}
