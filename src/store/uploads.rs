//! Files sent to the vendor, and the documents made of them.

use std::time::Duration;

use secrecy::SecretString;

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
    Send {
        /// Its row.
        row: UploadRow,
        /// The location that an earlier attempt used, which may have the file already.
        location: Option<SecretString>,
    },
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
    /// Only those sent before this moment of which no document has arrived, and which no
    /// person has settled.
    pub missing_since: Option<Timestamp>,
    /// Maximum number of rows, oldest first.
    pub limit: usize,
}

/// A file that was sent to the vendor, or was to be.
#[derive(Clone, Debug)]
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
    /// When a person settled it: no document will come of it.
    pub settled_at: Option<Timestamp>,
    /// Why.
    pub settled_reason: Option<String>,
    /// The vendor's ids of the documents made of it.
    pub documents: Vec<String>,
}

impl UploadRow {
    /// Returns one word for its status: its state, `returned` once a document of it has
    /// arrived, `settled` if a person expects none, or `late` if it was sent before
    /// `late_before`.
    pub fn status(&self, late_before: Timestamp) -> &'static str {
        if !self.documents.is_empty() {
            return "returned";
        }
        match (self.state, self.sent_at) {
            _ if self.settled_at.is_some() => "settled",
            (UploadState::Sent, Some(sent_at)) if sent_at < late_before => "late",
            (state, _) => state.as_str(),
        }
    }

    /// Returns true if a person may settle it: it was sent, and no document of it has arrived.
    pub fn may_be_settled(&self) -> bool {
        self.state == UploadState::Sent && self.documents.is_empty() && self.settled_at.is_none()
    }
}

/// The effect of settling an upload.
#[derive(Clone, Debug)]
pub enum Settling {
    /// It is settled.
    Settled,
    /// Nothing was changed: it is not waiting for a document.
    NotWaiting(Box<UploadRow>),
    /// There is no such row.
    Unknown,
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

    /// Keeps the location to which `owner` is about to send the file, or forgets it; nothing
    /// is changed if it no longer owns the upload.
    pub write keep_upload_location(id: i64, owner: String, location: Option<SecretString>) -> ();

    /// Settles an upload: no document of it is expected any longer.
    pub write settle_upload(id: i64, reason: String, now: Timestamp) -> Settling;

    /// Records how `owner`'s attempt ended; returns false, with nothing changed, if it no
    /// longer owns the upload. The location is kept if the attempt failed.
    pub write end_upload(id: i64, owner: String, end: UploadEnd, now: Timestamp) -> bool;

    /// Lists at most `limit` uploads, newest first, from row `before` downwards if given.
    pub read newest_uploads(before: Option<i64>, limit: usize) -> Vec<UploadRow>;

    /// Lists uploads, oldest first.
    pub read uploads(filter: UploadFilter) -> Vec<UploadRow>;

    /// Lists the upload with this [`UploadRow::correlation`], or the newest of files with this name,
    /// at most `limit`.
    pub read uploads_named(name: String, limit: usize) -> Vec<UploadRow>;

    /// Lists the uploads of which a document was made, oldest first.
    pub read uploads_of_document(account: Account, document_id: String) -> Vec<UploadRow>;
}

/// Selects the columns of an [`UploadRow`].
const ROWS: Fragment = Fragment::Same(
    "SELECT u.id, a.name, u.file_name, u.size_bytes, u.sha256, u.correlation, u.state, u.attempts,
         u.created_at, u.changed_at, u.sent_at, u.last_error, u.settled_at, u.settled_reason,
         (SELECT {list}(d.document_id ORDER BY d.document_id) FROM upload_document d WHERE d.upload_id = u.id)
     FROM upload u{using} {then_join} account a ON a.id = u.account_id",
);

const ANY_INDEX: Fragment = Fragment::Same("");

rows! {
    UploadRow {
        id, account, file_name, size_bytes, sha256, correlation, state, attempts, created_at,
        changed_at, sent_at, last_error, settled_at, settled_reason, documents,
    }
}

static BY_ID: Sql = Sql::with(
    "{rows} WHERE u.id = $1",
    &[("rows", ROWS), ("using", ANY_INDEX)],
);

impl NewUpload {
    /// Returns the number of the lock for its content.
    fn lock(&self) -> i64 {
        let digits = self.sha256.get(..16).unwrap_or_default();
        u64::from_str_radix(digits, 16)
            .unwrap_or_default()
            .cast_signed()
    }

    async fn insert<T: Tx>(&self, tx: &T, account: i64) -> Result<i64> {
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

async fn begin_upload<T: Tx>(tx: &T, upload: NewUpload) -> Result<UploadBegun> {
    static LATEST: Sql = Sql::new(
        "SELECT id, state, owner, changed_at, claimed_until, location FROM upload
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
    let latest: Option<Latest> = tx.first(&LATEST, &[&account, &upload.sha256]).await?;
    if let Some(Latest {
        state: UploadState::Sending,
        owner,
        changed_at,
        claimed_until,
        ..
    }) = &latest
        && owner.as_ref() != Some(&upload.owner)
        && let Some(until) = backoff::rest_since(Some(*changed_at), *claimed_until, upload.now)
    {
        return Ok(UploadBegun::Busy { until });
    }
    let (id, location) = match latest {
        Some(latest) if latest.state == UploadState::Sent && !upload.force => {
            return tx
                .one(&BY_ID, &[&latest.id])
                .await
                .map(UploadBegun::Already);
        }
        Some(latest) if latest.state != UploadState::Sent => (latest.id, latest.location),
        _ => (upload.insert(tx, account).await?, None),
    };
    let until = upload.now.after(upload.claim);
    let params = params! { id, upload.owner, until, upload.now, upload.file_name };
    tx.run(&CLAIM, params).await?;
    let row = tx.one(&BY_ID, &[&id]).await?;
    Ok(UploadBegun::Send { row, location })
}

/// The newest upload of a content.
struct Latest {
    id: i64,
    state: UploadState,
    owner: Option<String>,
    changed_at: Timestamp,
    claimed_until: Option<Timestamp>,
    location: Option<SecretString>,
}

rows! { Latest { id, state, owner, changed_at, claimed_until, location } }

async fn keep_upload_location<T: Tx>(
    tx: &T,
    id: i64,
    owner: String,
    location: Option<SecretString>,
) -> Result<()> {
    static SQL: Sql = Sql::new("UPDATE upload SET location = $3 WHERE id = $1 AND owner = $2");
    tx.run(&SQL, &[&id, &owner, &location]).await
}

async fn settle_upload<T: Tx>(tx: &T, id: i64, reason: String, now: Timestamp) -> Result<Settling> {
    static SQL: Sql = Sql::new(
        "UPDATE upload SET settled_at = $2, settled_reason = $3
         WHERE id = $1 AND state = 'sent' AND settled_at IS NULL
           AND NOT EXISTS (SELECT 1 FROM upload_document d WHERE d.upload_id = $1)",
    );
    if tx.execute(&SQL, &[&id, &now, &reason]).await? > 0 {
        return Ok(Settling::Settled);
    }
    let row = tx.first(&BY_ID, &[&id]).await?;
    Ok(row.map_or(Settling::Unknown, |row| Settling::NotWaiting(Box::new(row))))
}

/// Removes a batch of locations that were last used before `before`, when they have expired; returns
/// their number.
pub(super) async fn remove_upload_locations<T: Tx>(
    tx: &T,
    before: Timestamp,
    limit: usize,
) -> Result<usize> {
    static SQL: Sql = Sql::new(
        "UPDATE upload SET location = NULL WHERE id IN (
             SELECT id FROM upload WHERE location IS NOT NULL AND changed_at < $1
             ORDER BY changed_at LIMIT $2{skip_locked})",
    );
    tx.execute(&SQL, &[&before, &limit]).await
}

async fn end_upload<T: Tx>(
    tx: &T,
    id: i64,
    owner: String,
    end: UploadEnd,
    now: Timestamp,
) -> Result<bool> {
    static SQL: Sql = Sql::new(
        "UPDATE upload SET state = $3, last_error = $4, changed_at = $5, sent_at = coalesce($6, sent_at),
             owner = NULL, claimed_until = NULL,
             location = CASE WHEN $3 = 'failed' THEN location END
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
    tx: &T,
    account: &Account,
    returns: &[UploadReturn],
) -> Result<()> {
    static SQL: Sql = Sql::new(
        "INSERT INTO upload_document (upload_id, document_id)
         SELECT id, $3 FROM upload WHERE account_id = $1 AND correlation = $2
         ON CONFLICT DO NOTHING",
    );
    static RETURNED: Sql = Sql::new(
        "UPDATE upload SET returned = true WHERE account_id = $1 AND correlation = $2 AND NOT returned",
    );
    if returns.is_empty() {
        return Ok(());
    }
    let account = account_id(tx, account).await?;
    // The same order everywhere prevents deadlocks: pages of two feeds may return the same uploads.
    let mut returns: Vec<&UploadReturn> = returns.iter().collect();
    returns.sort_by(|one, other| one.correlation.cmp(&other.correlation));
    for one in returns {
        tx.run(&SQL, &[&account, &one.correlation, &one.document_id])
            .await?;
        tx.run(&RETURNED, &[&account, &one.correlation]).await?;
    }
    Ok(())
}

async fn uploads<T: Tx>(tx: &T, filter: UploadFilter) -> Result<Vec<UploadRow>> {
    static ALL: Sql = Sql::with(
        "{rows} WHERE u.id > $1 ORDER BY u.id LIMIT $2",
        &[("rows", ROWS), ("using", ANY_INDEX)],
    );
    static MISSING: Sql = Sql::with(
        "{rows} WHERE u.id > $1 AND u.sent_at IS NOT NULL AND u.settled_at IS NULL AND NOT u.returned
             AND u.sent_at < $3 ORDER BY u.id LIMIT $2",
        &[
            ("rows", ROWS),
            ("using", Fragment::Differs(" INDEXED BY upload_missing", "")),
        ],
    );
    let params = params! { filter.after, filter.limit, filter.missing_since };
    match filter.missing_since {
        Some(_) => tx.all(&MISSING, params).await,
        None => tx.all(&ALL, &params[..2]).await,
    }
}

pub(super) async fn uploads_named<T: Tx>(
    tx: &T,
    name: String,
    limit: usize,
) -> Result<Vec<UploadRow>> {
    static OF_CORRELATION: Sql = Sql::with(
        "{rows} WHERE u.correlation = $1",
        &[("rows", ROWS), ("using", ANY_INDEX)],
    );
    // By the index in its order: all files may have the same name.
    static OF_FILE: Sql = Sql::with(
        "{rows} WHERE u.file_name >= $1 AND u.file_name <= $1 ORDER BY u.file_name DESC, u.id DESC LIMIT $2",
        &[("rows", ROWS), ("using", ANY_INDEX)],
    );
    let rows = tx.all(&OF_CORRELATION, &[&name]).await?;
    if !rows.is_empty() {
        return Ok(rows);
    }
    tx.all(&OF_FILE, &[&name, &limit]).await
}

async fn uploads_of_document<T: Tx>(
    tx: &T,
    account: Account,
    document_id: String,
) -> Result<Vec<UploadRow>> {
    static SQL: Sql = Sql::with(
        "{rows} WHERE a.name = $1
             AND u.id IN (SELECT upload_id FROM upload_document WHERE document_id = $2) ORDER BY u.id",
        &[("rows", ROWS), ("using", ANY_INDEX)],
    );
    tx.all(&SQL, &[&account, &document_id]).await
}

async fn newest_uploads<T: Tx>(
    tx: &T,
    before: Option<i64>,
    limit: usize,
) -> Result<Vec<UploadRow>> {
    static SQL: Sql = Sql::with(
        "{rows} WHERE u.id < $1 ORDER BY u.id DESC LIMIT $2",
        &[("rows", ROWS), ("using", ANY_INDEX)],
    );
    tx.all(&SQL, &[&before.unwrap_or(i64::MAX), &limit]).await
}
