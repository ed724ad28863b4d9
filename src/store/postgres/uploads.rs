//! Files sent to the vendor, and the documents made of them.

use tokio_postgres::Row;

use super::connection::Transaction;
use super::rows::{self, account_id, escape_nul};
use crate::domain::{Account, Timestamp};
use crate::store::columns;
use crate::store::{
    NewUpload, StoreError, UploadBegun, UploadEnd, UploadFilter, UploadReturn, UploadRow,
    UploadState,
};

fn read(row: &Row) -> Result<UploadRow, StoreError> {
    Ok(UploadRow {
        id: row.try_get(0)?,
        account: columns::account(row.try_get(1)?)?,
        file_name: row.try_get(2)?,
        size_bytes: rows::count(row, 3)?,
        sha256: row.try_get(4)?,
        correlation: row.try_get(5)?,
        state: columns::upload_state(row.try_get(6)?)?,
        attempts: rows::count(row, 7)?,
        created_at: rows::timestamp(row, 8)?,
        changed_at: rows::timestamp(row, 9)?,
        sent_at: rows::optional_timestamp(row, 10)?,
        last_error: rows::optional_text(row, 11)?,
        documents: row.try_get(12)?,
    })
}

/// Returns the query for rows that meet `condition`, which may use $1 and following.
fn select(condition: &str) -> String {
    format!(
        "SELECT u.id, a.name, u.file_name, u.size_bytes, u.sha256, u.correlation, u.state, u.attempts,
             u.created_at, u.changed_at, u.sent_at, u.last_error,
             ARRAY(SELECT d.document_id FROM upload_document d WHERE d.upload_id = u.id ORDER BY d.document_id)
         FROM upload u JOIN account a ON a.id = u.account_id WHERE {condition}"
    )
}

async fn by_id(transaction: &Transaction<'_>, id: i64) -> Result<UploadRow, StoreError> {
    read(&transaction.query_one(&select("u.id = $1"), &[&id]).await?)
}

/// Returns the number of the advisory lock for one content.
fn lock_number(sha256: &str) -> i64 {
    let digits = sha256.get(..16).unwrap_or_default();
    u64::from_str_radix(digits, 16)
        .unwrap_or_default()
        .cast_signed()
}

pub(super) async fn begin(
    transaction: &Transaction<'_>,
    upload: &NewUpload,
) -> Result<UploadBegun, StoreError> {
    let account = account_id(transaction, &upload.account).await?;
    transaction
        .query(
            "SELECT pg_advisory_xact_lock($1)",
            &[&lock_number(&upload.sha256)],
        )
        .await?;
    let newest = transaction
        .query_opt(
            "SELECT id, state, owner, claimed_until FROM upload
             WHERE account_id = $1 AND sha256 = $2 ORDER BY id DESC LIMIT 1",
            &[&account, &upload.sha256],
        )
        .await?;
    let newest = match newest {
        Some(row) => {
            let id: i64 = row.try_get(0)?;
            let state = columns::upload_state(row.try_get(1)?)?;
            let owner: Option<String> = row.try_get(2)?;
            let claim = rows::optional_timestamp(&row, 3)?.filter(|until| *until > upload.now);
            if state == UploadState::Sending
                && owner.as_deref() != Some(&upload.owner)
                && let Some(until) = claim
            {
                return Ok(UploadBegun::Busy { until });
            }
            Some((id, state))
        }
        None => None,
    };
    let id = match newest {
        Some((id, UploadState::Sent)) if !upload.force => {
            return by_id(transaction, id).await.map(UploadBegun::Already);
        }
        Some((id, state)) if state != UploadState::Sent => id,
        _ => insert(transaction, account, upload).await?,
    };
    transaction
        .execute(
            "UPDATE upload SET state = 'sending', owner = $2, claimed_until = $3, attempts = attempts + 1,
                 changed_at = $4, file_name = $5
             WHERE id = $1",
            &[
                &id,
                &escape_nul(&upload.owner),
                &upload.now.after(upload.claim).as_millis(),
                &upload.now.as_millis(),
                &escape_nul(&upload.file_name),
            ],
        )
        .await?;
    by_id(transaction, id).await.map(UploadBegun::Send)
}

async fn insert(
    transaction: &Transaction<'_>,
    account: i64,
    upload: &NewUpload,
) -> Result<i64, StoreError> {
    let size_bytes = i64::try_from(upload.size_bytes).unwrap_or(i64::MAX);
    let row = transaction
        .query_one(
            "INSERT INTO upload (account_id, correlation, sha256, size_bytes, file_name, state, created_at, changed_at)
             VALUES ($1, $2, $3, $4, $5, 'sending', $6, $6) RETURNING id",
            &[
                &account,
                &escape_nul(&upload.correlation),
                &upload.sha256,
                &size_bytes,
                &escape_nul(&upload.file_name),
                &upload.now.as_millis(),
            ],
        )
        .await?;
    Ok(row.try_get(0)?)
}

/// Records how an attempt ended; returns false if another process has claimed the file.
pub(super) async fn end(
    transaction: &Transaction<'_>,
    id: i64,
    owner: &str,
    end: &UploadEnd,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let (state, error) = match end {
        UploadEnd::Sent => (UploadState::Sent, None),
        UploadEnd::Refused(error) => (UploadState::Refused, Some(escape_nul(error))),
        UploadEnd::Failed(error) => (UploadState::Failed, Some(escape_nul(error))),
    };
    let sent_at = (state == UploadState::Sent).then(|| now.as_millis());
    let changed = transaction
        .execute(
            "UPDATE upload SET state = $3, last_error = $4, changed_at = $5, sent_at = coalesce($6, sent_at),
                 owner = NULL, claimed_until = NULL
             WHERE id = $1 AND owner = $2",
            &[&id, &owner, &state.as_str(), &error, &now.as_millis(), &sent_at],
        )
        .await?;
    Ok(changed > 0)
}

/// Links the documents of a page to the files that they were made of.
pub(super) async fn link_documents(
    transaction: &Transaction<'_>,
    account: &Account,
    returns: &[UploadReturn],
) -> Result<(), StoreError> {
    if returns.is_empty() {
        return Ok(());
    }
    let account = account_id(transaction, account).await?;
    for one in returns {
        transaction
            .execute(
                "INSERT INTO upload_document (upload_id, document_id)
                 SELECT id, $3 FROM upload WHERE account_id = $1 AND correlation = $2
                 ON CONFLICT DO NOTHING",
                &[
                    &account,
                    &escape_nul(&one.correlation),
                    &escape_nul(&one.document_id),
                ],
            )
            .await?;
    }
    Ok(())
}

pub(super) async fn list(
    transaction: &Transaction<'_>,
    filter: &UploadFilter,
) -> Result<Vec<UploadRow>, StoreError> {
    let missing_since = filter.missing_since.map(Timestamp::as_millis);
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let rows = transaction
        .query(
            &select(
                "u.id > $1 AND ($2::bigint IS NULL OR (u.sent_at < $2 AND NOT EXISTS
                     (SELECT 1 FROM upload_document d WHERE d.upload_id = u.id)))
                 ORDER BY u.id LIMIT $3",
            ),
            &[&filter.after, &missing_since, &limit],
        )
        .await?;
    rows.iter().map(read).collect()
}

pub(super) async fn newest_first(
    transaction: &Transaction<'_>,
    before: Option<i64>,
    limit: usize,
) -> Result<Vec<UploadRow>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = transaction
        .query(
            &select("u.id < $1 ORDER BY u.id DESC LIMIT $2"),
            &[&before.unwrap_or(i64::MAX), &limit],
        )
        .await?;
    rows.iter().map(read).collect()
}
