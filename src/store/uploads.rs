//! Files sent to the vendor, and the documents made of them.

use std::time::Duration;

use serde::Serialize;

use super::columns::{named, named_columns};
use super::engine::{Fragment, Param, Sql, Tx, operations, params, rows};
use super::error::Result;
use super::row_ids::account_id;
use crate::backoff;
use crate::domain::{Account, Timestamp};

/// A file that is about to be sent.
#[derive(Clone, Debug)]
pub struct NewUpload {
    /// The account whose key sends it.
    pub account: Account,
    /// SHA-256 of its content in lower-case hexadecimal digits, which identifies the file.
    pub sha256: String,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Its name, without folders.
    pub file_name: String,
    /// The [`UploadRow::correlation`] of a new row; unique.
    pub correlation: String,
    /// True if content that was sent before is sent again, as a row of its own.
    pub force: bool,
    /// The process that sends it; its own claim does not block it.
    pub owner: String,
    /// The present moment.
    pub now: Timestamp,
    /// Duration for which other processes leave the file to this one.
    pub claim: Duration,
}

/// The answer to a [`NewUpload`].
#[derive(Clone, Debug)]
pub enum UploadBegun {
    /// Send it, then record the result with [`end_upload`](super::Store::end_upload).
    Send(UploadRow),
    /// This content was sent before.
    Already(UploadRow),
    /// Another process is sending it, or was interrupted: ask again after its claim.
    Busy {
        /// When its claim ends.
        until: Timestamp,
    },
}

/// The result of an attempt to send a file.
#[derive(Clone, Debug)]
pub enum UploadEnd {
    /// The vendor's storage accepted it.
    Sent,
    /// The vendor refused this file, for this reason.
    Refused(String),
    /// Sending failed, for this reason; it may be retried.
    Failed(String),
}

named! {
    /// The state of an upload, as far as sending goes.
    pub enum UploadState {
        /// It is being sent, or its sender was interrupted.
        Sending = "sending",
        /// The vendor's storage accepted it.
        Sent = "sent",
        /// The vendor refused it.
        Refused = "refused",
        /// Sending failed.
        Failed = "failed",
    }
}

named_columns! { UploadState: "upload state", name => Self::parse(&name); }

/// Selects uploads to list.
#[derive(Clone, Debug, Default)]
pub struct UploadFilter {
    /// Only rows after this one.
    pub after: i64,
    /// Only those sent before this moment of which no document has arrived.
    pub missing_since: Option<Timestamp>,
    /// Maximum number of rows, oldest first.
    pub limit: usize,
}

/// A file that was sent to the vendor, or was to be.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct UploadRow {
    /// The row.
    pub id: i64,
    /// The account whose key sent it.
    pub account: Account,
    /// Its name, without folders.
    pub file_name: String,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// SHA-256 of its content in lower-case hexadecimal digits.
    pub sha256: String,
    /// Data sent with it, which the vendor returns in its documents.
    pub correlation: String,
    /// Its state.
    pub state: UploadState,
    /// The number of attempts to send it.
    pub attempts: u32,
    /// When the first attempt began.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub changed_at: Timestamp,
    /// When the vendor's storage accepted it.
    pub sent_at: Option<Timestamp>,
    /// The last failure.
    pub last_error: Option<String>,
    /// The vendor's ids of the documents made of it.
    pub documents: Vec<String>,
}

/// Time after which a sent file without a document is late. No source says how long
/// digitization takes; half a day lets a night pass without an alarm.
pub const LATE_AFTER: Duration = Duration::from_secs(12 * 60 * 60);

impl UploadRow {
    /// Returns one word for its status at `now`: its state, `returned` once a document of
    /// it has arrived, or `late` if none has within [`LATE_AFTER`].
    pub fn status(&self, now: Timestamp) -> &'static str {
        if !self.documents.is_empty() {
            return "returned";
        }
        match (self.state, self.sent_at) {
            (UploadState::Sent, Some(sent_at)) if sent_at.after(LATE_AFTER) < now => "late",
            (state, _) => state.as_str(),
        }
    }
}

/// A document with the correlation data of an uploaded file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadReturn {
    /// [`UploadRow::correlation`].
    pub correlation: String,
    /// The vendor's id of the document.
    pub document_id: String,
}

operations! {
    /// Claims a file's content for sending, or returns why it is not to be sent.
    pub write begin_upload(upload: NewUpload) -> UploadBegun;

    /// Records how `owner`'s attempt ended; returns false, with nothing changed, if it no
    /// longer owns the upload.
    pub write end_upload(id: i64, owner: String, end: UploadEnd, now: Timestamp) -> bool;

    /// Lists at most `limit` uploads, newest first, from row `before` downwards if given.
    pub read newest_uploads(before: Option<i64>, limit: usize) -> Vec<UploadRow>;

    /// Lists uploads, oldest first.
    pub read uploads(filter: UploadFilter) -> Vec<UploadRow>;
}

/// Selects the columns of an [`UploadRow`].
const ROWS: Fragment = Fragment::Same(
    "SELECT u.id, a.name, u.file_name, u.size_bytes, u.sha256, u.correlation, u.state, u.attempts,
         u.created_at, u.changed_at, u.sent_at, u.last_error,
         (SELECT {list}(d.document_id ORDER BY d.document_id) FROM upload_document d WHERE d.upload_id = u.id)
     FROM upload u JOIN account a ON a.id = u.account_id",
);

rows! {
    UploadRow {
        id, account, file_name, size_bytes, sha256, correlation, state, attempts, created_at,
        changed_at, sent_at, last_error, documents,
    }
}

static BY_ID: Sql = Sql::with("{rows} WHERE u.id = $1", &[("rows", ROWS)]);

impl NewUpload {
    /// Returns the number of the lock for its content.
    fn lock(&self) -> i64 {
        let digits = self.sha256.get(..16).unwrap_or_default();
        u64::from_str_radix(digits, 16)
            .unwrap_or_default()
            .cast_signed()
    }

    async fn insert<T: Tx>(&self, tx: &mut T, account: i64) -> Result<i64> {
        static SQL: Sql = Sql::new(
            "INSERT INTO upload (account_id, correlation, sha256, size_bytes, file_name, state, created_at, changed_at)
             VALUES ($1, $2, $3, $4, $5, 'sending', $6, $6) RETURNING id",
        );
        let params = params! {
            account, self.correlation, self.sha256, self.size_bytes, self.file_name, self.now,
        };
        tx.one(&SQL, params).await
    }
}

async fn begin_upload<T: Tx>(tx: &mut T, upload: NewUpload) -> Result<UploadBegun> {
    static LATEST: Sql = Sql::new(
        "SELECT id, state, owner, claimed_until FROM upload
         WHERE account_id = $1 AND sha256 = $2 ORDER BY id DESC LIMIT 1",
    );
    static CLAIM: Sql = Sql::new(
        "UPDATE upload SET state = 'sending', owner = $2, claimed_until = $3, attempts = attempts + 1,
             changed_at = $4, file_name = $5
         WHERE id = $1",
    );
    let account = account_id(tx, &upload.account).await?;
    tx.lock(upload.lock()).await?;
    // The newest upload of the content decides whether it is sent.
    type Latest = (i64, UploadState, Option<String>, Option<Timestamp>);
    let latest: Option<Latest> = tx.first(&LATEST, &[&account, &upload.sha256]).await?;
    if let Some((_, UploadState::Sending, owner, claimed_until)) = &latest
        && owner.as_ref() != Some(&upload.owner)
        && let Some(until) = backoff::rest_within(*claimed_until, upload.claim, upload.now)
    {
        return Ok(UploadBegun::Busy { until });
    }
    let id = match latest {
        Some((id, UploadState::Sent, ..)) if !upload.force => {
            return tx.one(&BY_ID, &[&id]).await.map(UploadBegun::Already);
        }
        Some((id, state, ..)) if state != UploadState::Sent => id,
        _ => upload.insert(tx, account).await?,
    };
    let until = upload.now.after(upload.claim);
    let params = params! { id, upload.owner, until, upload.now, upload.file_name };
    tx.run(&CLAIM, params).await?;
    tx.one(&BY_ID, &[&id]).await.map(UploadBegun::Send)
}

async fn end_upload<T: Tx>(
    tx: &mut T,
    id: i64,
    owner: String,
    end: UploadEnd,
    now: Timestamp,
) -> Result<bool> {
    static SQL: Sql = Sql::new(
        "UPDATE upload SET state = $3, last_error = $4, changed_at = $5, sent_at = coalesce($6, sent_at),
             owner = NULL, claimed_until = NULL
         WHERE id = $1 AND owner = $2",
    );
    let (state, error) = match end {
        UploadEnd::Sent => (UploadState::Sent, None),
        UploadEnd::Refused(error) => (UploadState::Refused, Some(error)),
        UploadEnd::Failed(error) => (UploadState::Failed, Some(error)),
    };
    let sent_at = (state == UploadState::Sent).then_some(now);
    let params: [&dyn Param; 6] = [&id, &owner, &state, &error, &now, &sent_at];
    Ok(tx.execute(&SQL, &params).await? > 0)
}

/// Links the documents of a page to the files that they were made of.
pub(super) async fn link_documents<T: Tx>(
    tx: &mut T,
    account: &Account,
    returns: &[UploadReturn],
) -> Result<()> {
    static SQL: Sql = Sql::new(
        "INSERT INTO upload_document (upload_id, document_id)
         SELECT id, $3 FROM upload WHERE account_id = $1 AND correlation = $2
         ON CONFLICT DO NOTHING",
    );
    if returns.is_empty() {
        return Ok(());
    }
    let account = account_id(tx, account).await?;
    for one in returns {
        tx.run(&SQL, &[&account, &one.correlation, &one.document_id])
            .await?;
    }
    Ok(())
}

async fn uploads<T: Tx>(tx: &mut T, filter: UploadFilter) -> Result<Vec<UploadRow>> {
    static SQL: Sql = Sql::with(
        "{rows} WHERE u.id > $1 AND ($2 IS NULL OR (u.sent_at < $2
             AND (SELECT min(d.document_id) FROM upload_document d WHERE d.upload_id = u.id) IS NULL))
         ORDER BY u.id LIMIT $3",
        &[("rows", ROWS)],
    );
    let params = params! { filter.after, filter.missing_since, filter.limit };
    tx.all(&SQL, params).await
}

async fn newest_uploads<T: Tx>(
    tx: &mut T,
    before: Option<i64>,
    limit: usize,
) -> Result<Vec<UploadRow>> {
    static SQL: Sql = Sql::with(
        "{rows} WHERE u.id < $1 ORDER BY u.id DESC LIMIT $2",
        &[("rows", ROWS)],
    );
    tx.all(&SQL, &[&before.unwrap_or(i64::MAX), &limit]).await
}
