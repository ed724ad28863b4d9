//! Import errors for the vendor's accountant.

use std::time::Duration;

use super::StoreError;
use super::columns::{named, named_columns};
use super::engine::{Fragment, Param, Sql, Tx, operations, params, rows};
use super::error::Result;
use crate::backoff;
use crate::domain::{Account, Company, Timestamp};

/// An import error for the vendor's accountant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewImportError {
    /// The document's company; if unknown, the import error can't be sent.
    pub company: Option<Company>,
    /// The text for the accountant.
    pub message: String,
}

/// Selects import errors to list.
#[derive(Clone, Debug, Default)]
pub struct ImportErrorFilter {
    /// Only rows after this one.
    pub after: i64,
    /// Only of this version.
    pub sequence: Option<i64>,
    /// Only in this state.
    pub state: Option<ImportErrorState>,
    /// Maximum number of rows, oldest first.
    pub limit: usize,
}

named! {
    /// The state of an import error.
    pub enum ImportErrorState {
        /// It waits to be sent.
        Pending = "pending",
        /// The vendor accepted it.
        Sent = "sent",
        /// The vendor refused it, or it can't be sent.
        Refused = "refused",
        /// The destination no longer rejected the document when it was to be sent.
        Withdrawn = "withdrawn",
        /// A person decided that it is not sent.
        Discarded = "discarded",
    }
}

named_columns! { ImportErrorState: "import error state", name => Self::parse(&name); }

/// An import error; there is one for each (version, text).
#[derive(Clone, Debug)]
pub struct ImportErrorRow {
    /// The row.
    pub id: i64,
    /// The account whose key sends it.
    pub account: Account,
    /// The version's sequence number.
    pub sequence: i64,
    /// The vendor's id of the document.
    pub document_id: String,
    /// The document's company.
    pub company: Option<Company>,
    /// The text for the accountant.
    pub message: String,
    /// Its state.
    pub state: ImportErrorState,
    /// Attempts to send it.
    pub attempts: u32,
    /// When the destination rejected the version.
    pub created_at: Timestamp,
    /// When the vendor accepted it.
    pub sent_at: Option<Timestamp>,
    /// When it was refused, withdrawn or discarded.
    pub ended_at: Option<Timestamp>,
    /// When sending is attempted next.
    pub next_try_at: Option<Timestamp>,
    /// The last failure.
    pub last_error: Option<String>,
}

/// The path of an account's import errors, as the vendor answers there.
#[derive(Clone, Debug)]
pub struct ImportErrorPathRow {
    /// The account.
    pub account: Account,
    /// The path.
    pub path: String,
    /// Since when nothing is sent, since the vendor answered 404; `None` if it is not paused.
    pub paused_since: Option<Timestamp>,
    /// When one import error is tried again.
    pub retry_at: Option<Timestamp>,
    /// The vendor's answer.
    pub last_error: Option<String>,
}

impl ImportErrorPathRow {
    /// Returns what is wrong.
    pub fn found(&self) -> String {
        let Self { account, path, .. } = self;
        let error = self.last_error.as_deref().unwrap_or("HTTP 404");
        format!(
            "import errors of {account} are not sent: Įvesk.lt does not find `{path}` ({error})"
        )
    }

    /// Returns what to do about it.
    pub fn fix(&self) -> &'static str {
        "correct `api.import_error_path` and restart, or run `ivesk-webhook import-errors retry --all`"
    }
}

/// The result of asking for an import error to send.
#[derive(Clone, Debug)]
pub enum ImportErrorLeased {
    /// It is to be sent.
    Lease(ImportErrorLease),
    /// It is not sent, as the document is no longer rejected; there may be others.
    Withdrawn(ImportErrorRow),
    /// None is due.
    Nothing,
}

/// A lease on one import error.
#[derive(Clone, Debug)]
pub struct ImportErrorLease {
    /// The import error.
    pub row: ImportErrorRow,
    /// Rises with every lease; a stale owner's is refused.
    pub fence: i64,
}

/// The result of sending an import error.
#[derive(Clone, Debug)]
pub enum ImportErrorOutcome {
    /// The vendor accepted it.
    Sent,
    /// Sending failed and is retried.
    Failed {
        /// The reason; nothing secret.
        error: String,
        /// When it is retried.
        next_try_at: Timestamp,
        /// Until when the account's other import errors wait, which would fail alike.
        others_wait_until: Timestamp,
    },
    /// The vendor refused it.
    Refused {
        /// The reason; nothing secret.
        error: String,
    },
    /// The vendor knows the path or the document not: the path is paused until `retry_at`,
    /// unless it has accepted others meanwhile.
    NotFound {
        /// The reason; nothing secret.
        error: String,
        /// When one import error is tried again.
        retry_at: Timestamp,
    },
}

/// The effect of [`Store::end_import_error`](super::Store::end_import_error).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportErrorEnd {
    /// The result is recorded in its row.
    Recorded,
    /// The path is paused as well.
    PathPaused,
}

operations! {
    /// Lists import errors, oldest first.
    pub read import_errors(filter: ImportErrorFilter) -> Vec<ImportErrorRow>;

    /// Lists the newest import errors, before this row.
    pub read newest_import_errors(before: Option<i64>, limit: usize) -> Vec<ImportErrorRow>;

    /// Lists the paths of import errors that are paused.
    pub read paused_import_error_paths() -> Vec<ImportErrorPathRow>;

    /// Leases the import error of these accounts that is due next, the least often tried
    /// first; or withdraws it, if no destination rejects the document for this any more.
    pub write lease_import_error(accounts: Vec<Account>, now: Timestamp, lease: Duration)
        -> ImportErrorLeased;

    /// Records the result of sending an import error to `path`. That it was sent is recorded
    /// even if the lease has passed to another worker.
    ///
    /// # Errors
    ///
    /// [`StoreError::StaleLease`] if another worker has leased the import error since.
    pub write end_import_error(
        lease: ImportErrorLease,
        path: String,
        end: ImportErrorOutcome,
        now: Timestamp,
    ) -> ImportErrorEnd;

}

/// The time in which a rejection may still be withdrawn before the accountant is told.
pub const IMPORT_ERROR_WAIT: Duration = Duration::from_secs(60);

/// Selects the columns of an [`ImportErrorRow`].
const ROWS: Fragment = Fragment::Same(
    "SELECT r.id, a.name, r.sequence, d.document_id, nullif(r.company, ''), r.message, r.state, r.attempts,
            r.created_at, r.sent_at, r.ended_at, r.next_try_at, r.last_error
     FROM import_error r
     JOIN account a ON a.id = r.account_id
     JOIN document d ON d.sequence = r.sequence",
);

rows! {
    ImportErrorRow {
        id, account, sequence, document_id, company, message, state, attempts, created_at,
        sent_at, ended_at, next_try_at, last_error,
    }
    ImportErrorPathRow { account, path, paused_since, retry_at, last_error }
}

async fn import_errors<T: Tx>(tx: &T, filter: ImportErrorFilter) -> Result<Vec<ImportErrorRow>> {
    // Each kind of query has an index of its own.
    static OF_VERSION: Sql = Sql::with(
        "{rows} WHERE r.id > $1 AND ($2 IS NULL OR r.state = $2) AND r.sequence = $4
         ORDER BY r.id LIMIT $3",
        &[("rows", ROWS)],
    );
    static OF_ALL: Sql = Sql::with(
        "{rows} WHERE r.id > $1 AND ($2 IS NULL OR r.state = $2) ORDER BY r.id LIMIT $3",
        &[("rows", ROWS)],
    );
    let params = params! { filter.after, filter.state, filter.limit, filter.sequence };
    match filter.sequence {
        Some(_) => tx.all(&OF_VERSION, params).await,
        None => tx.all(&OF_ALL, &params[..3]).await,
    }
}

async fn newest_import_errors<T: Tx>(
    tx: &T,
    before: Option<i64>,
    limit: usize,
) -> Result<Vec<ImportErrorRow>> {
    static SQL: Sql = Sql::with(
        "{rows} WHERE r.id < $1 ORDER BY r.id DESC LIMIT $2",
        &[("rows", ROWS)],
    );
    tx.all(&SQL, &[&before.unwrap_or(i64::MAX), &limit]).await
}

async fn paused_import_error_paths<T: Tx>(tx: &T) -> Result<Vec<ImportErrorPathRow>> {
    static SQL: Sql = Sql::new(
        "SELECT a.name, p.path, p.paused_since, p.retry_at, p.last_error
         FROM import_error_path p JOIN account a ON a.id = p.account_id
         WHERE p.paused_since IS NOT NULL ORDER BY a.name{bytewise}",
    );
    tx.all(&SQL, &[]).await
}

async fn lease_import_error<T: Tx>(
    tx: &T,
    accounts: Vec<Account>,
    now: Timestamp,
    lease: Duration,
) -> Result<ImportErrorLeased> {
    // What waits for a paused path is not read.
    static OPEN: Sql = Sql::new(
        "SELECT a.id FROM account a WHERE a.name IN ({elements}($2))
           AND NOT EXISTS (SELECT 1 FROM import_error_path p WHERE p.account_id = a.id
               AND p.paused_since IS NOT NULL AND p.retry_at > $1 AND p.retry_at <= $3)",
    );
    static FIND: Sql = Sql::with(
        "{rows} WHERE r.state = 'pending' AND r.next_try_at > $4 AND r.next_try_at <= $5
           AND (coalesce(r.leased_until, 0) <= $1 OR r.leased_at > $3) AND r.account_id IN ({elements}($2))
         ORDER BY r.attempts, r.next_try_at, r.id LIMIT 1{skip_leased}",
        &[
            ("rows", ROWS),
            (
                "skip_leased",
                Fragment::Differs("", " FOR NO KEY UPDATE OF r SKIP LOCKED"),
            ),
        ],
    );
    static LEASE: Sql = Sql::new(
        "UPDATE import_error SET fence = fence + 1, attempts = attempts + 1, leased_at = $2, leased_until = $3
         WHERE id = $1 RETURNING attempts, fence",
    );
    static WITHDRAW: Sql = Sql::new(
        "UPDATE import_error SET state = 'withdrawn', fence = fence + 1, leased_until = NULL, next_try_at = NULL,
             ended_at = $2
         WHERE id = $1",
    );
    let now = tx.now_or(now);
    // Another replica's leases may be longer than this one's.
    let present = backoff::latest_present(now);
    let latest_pause = backoff::latest_end(now, backoff::PAUSED);
    let longest_wait = backoff::IMPORT_ERROR.longest_wait(backoff::LONGEST_VENDOR_RETRY_AFTER);
    let open: Vec<i64> = tx
        .all(&OPEN, params! { now, accounts, latest_pause })
        .await?;
    if open.is_empty() {
        return Ok(ImportErrorLeased::Nothing);
    }
    let (first, last) = (Timestamp::from_millis(-1), Timestamp::from_millis(i64::MAX));
    let mut found: Option<ImportErrorRow> = None;
    // One whose time has come, or else one that was to wait for longer than any does.
    for (after, until) in [(first, now), (backoff::latest_end(now, longest_wait), last)] {
        if found.is_none() {
            let params = params! { now, open, present, after, until };
            found = tx.first(&FIND, params).await?;
        }
    }
    let Some(row) = found else {
        return Ok(ImportErrorLeased::Nothing);
    };
    if !stands(tx, &row).await? {
        tx.run(&WITHDRAW, &[&row.id, &now]).await?;
        return Ok(ImportErrorLeased::Withdrawn(row));
    }
    let leased = params! { row.id, now, now.after(lease) };
    let (attempts, fence) = tx.one(&LEASE, leased).await?;
    let row = ImportErrorRow { attempts, ..row };
    Ok(ImportErrorLeased::Lease(ImportErrorLease { row, fence }))
}

/// Returns true if a destination still rejects the version for this reason and there is no newer
/// one, or a person wants it sent.
async fn stands<T: Tx>(tx: &T, row: &ImportErrorRow) -> Result<bool> {
    static SQL: Sql = Sql::new(
        "SELECT 1 FROM import_error r WHERE r.id = $1 AND (r.requested OR (
             NOT EXISTS (SELECT 1 FROM document d WHERE d.sequence = $2 AND d.superseded)
             AND EXISTS (SELECT 1 FROM delivery h WHERE h.sequence = $2 AND h.state = 'rejected'
                 AND h.import_error_id = $1)))",
    );
    let found: Option<()> = tx.first(&SQL, &[&row.id, &row.sequence]).await?;
    Ok(found.is_some())
}

async fn end_import_error<T: Tx>(
    tx: &T,
    lease: ImportErrorLease,
    path: String,
    end: ImportErrorOutcome,
    now: Timestamp,
) -> Result<ImportErrorEnd> {
    // The vendor has it, whoever holds the lease by now; that one can't write any more.
    static SENT: Sql = Sql::new(
        "UPDATE import_error SET state = 'sent', last_error = NULL, next_try_at = NULL, leased_until = NULL,
             sent_at = $2, fence = fence + 1
         WHERE id = $1 AND state <> 'sent'",
    );
    static END: Sql = Sql::new(
        "UPDATE import_error SET state = $3, last_error = $4, next_try_at = $5, leased_until = NULL, ended_at = $6
         WHERE id = $1 AND fence = $2",
    );
    static ACCOUNT: Sql = Sql::new("SELECT account_id FROM import_error WHERE id = $1");
    // The account's others would fail alike.
    static DELAY_OTHERS: Sql = Sql::new(
        "WITH others AS (
             SELECT id FROM import_error
             WHERE state = 'pending' AND next_try_at < $2
               AND account_id = (SELECT account_id FROM import_error WHERE id = $1){lock_in_order})
         UPDATE import_error AS r SET next_try_at = $2 FROM others WHERE r.id = others.id",
    );
    let ImportErrorLease { row, fence } = lease;
    let now = tx.now_or(now);
    let mut paused = ImportErrorEnd::Recorded;
    let account: Option<i64> = tx.first(&ACCOUNT, &[&row.id]).await?;
    lock_paths(tx, &account.into_iter().collect()).await?;
    let (state, error, next_try_at, others_wait_until) = match end {
        ImportErrorOutcome::Sent => {
            accept_path(tx, &row, &path).await?;
            tx.run(&SENT, &[&row.id, &now]).await?;
            return Ok(ImportErrorEnd::Recorded);
        }
        ImportErrorOutcome::Failed {
            error,
            next_try_at,
            others_wait_until,
        } => (
            ImportErrorState::Pending,
            error,
            Some(next_try_at),
            Some(others_wait_until),
        ),
        ImportErrorOutcome::Refused { error } => (ImportErrorState::Refused, error, None, None),
        ImportErrorOutcome::NotFound { error, retry_at } => {
            if doubts_path(tx, &row, &path).await? {
                paused = ImportErrorEnd::PathPaused;
                pause_path(tx, &row, &path, &error, now, retry_at).await?;
                (ImportErrorState::Pending, error, Some(now), None)
            } else {
                (ImportErrorState::Refused, error, None, None)
            }
        }
    };
    let ended_at = (state == ImportErrorState::Refused).then_some(now);
    let params: [&dyn Param; 6] = [&row.id, &fence, &state, &error, &next_try_at, &ended_at];
    if tx.execute(&END, &params).await? == 0 {
        return Err(StoreError::StaleLease);
    }
    if let Some(until) = others_wait_until {
        tx.run(&DELAY_OTHERS, &[&row.id, &until]).await?;
    }
    Ok(paused)
}

/// Locks the paths of accounts, given by their ids. Whatever changes several import errors of an account
/// locks its path first, so that their order does not matter.
#[expect(
    clippy::ptr_arg,
    reason = "only a type with a size is a value of a statement"
)]
pub(super) async fn lock_paths<T: Tx>(tx: &T, accounts: &Vec<i64>) -> Result<()> {
    static ADD: Sql = Sql::new(
        "INSERT INTO import_error_path (account_id, path, accepted)
         SELECT id, '', 0 FROM account WHERE id IN ({elements}($1)) ORDER BY id
         ON CONFLICT (account_id) DO NOTHING",
    );
    static LOCK: Sql = Sql::with(
        "SELECT account_id FROM import_error_path WHERE account_id IN ({elements}($1)){in_order}",
        &[(
            "in_order",
            Fragment::Differs("", " ORDER BY account_id FOR NO KEY UPDATE"),
        )],
    );
    if accounts.is_empty() {
        return Ok(());
    }
    tx.run(&ADD, &[accounts]).await?;
    let _: Vec<i64> = tx.all(&LOCK, &[accounts]).await?;
    Ok(())
}

/// Records that the vendor accepted an import error at `path`.
async fn accept_path<T: Tx>(tx: &T, row: &ImportErrorRow, path: &str) -> Result<()> {
    static SQL: Sql = Sql::new(
        "INSERT INTO import_error_path AS p (account_id, path, accepted)
         SELECT account_id, $2, 1 FROM import_error WHERE id = $1
         ON CONFLICT (account_id) DO UPDATE SET path = excluded.path,
             accepted = CASE WHEN p.path = excluded.path THEN p.accepted ELSE 0 END + 1, not_found = NULL,
             paused_since = NULL, retry_at = NULL, last_error = NULL",
    );
    tx.run(&SQL, &[&row.id, &path]).await
}

/// Returns true if a 404 means that the path is wrong rather than the document: the vendor has
/// accepted nothing there yet, or does not find a second document in a row. A document that it did
/// not find before and after it accepted another one there says nothing about the path.
async fn doubts_path<T: Tx>(tx: &T, row: &ImportErrorRow, path: &str) -> Result<bool> {
    static FIRST_OF_PATH: Sql = Sql::new(
        "INSERT INTO import_error_path AS p (account_id, path, accepted)
         SELECT account_id, $2, 0 FROM import_error WHERE id = $1
         ON CONFLICT (account_id) DO UPDATE SET path = excluded.path,
             accepted = CASE WHEN p.path = excluded.path THEN p.accepted ELSE 0 END,
             not_found = CASE WHEN p.path = excluded.path THEN p.not_found END
         RETURNING accepted, not_found",
    );
    static EARLIER: Sql = Sql::new("SELECT id, not_found_after FROM import_error WHERE id = $1");
    static NOT_FOUND_AFTER: Sql =
        Sql::new("UPDATE import_error SET not_found_after = $2 WHERE id = $1");
    static NOT_FOUND: Sql = Sql::new(
        "UPDATE import_error_path SET not_found = $1
         WHERE account_id = (SELECT account_id FROM import_error WHERE id = $1)",
    );
    let (accepted, not_found): (i64, Option<i64>) =
        tx.one(&FIRST_OF_PATH, &[&row.id, &path]).await?;
    let earlier: Option<(i64, Option<i64>)> = tx.first(&EARLIER, &[&row.id]).await?;
    let earlier = earlier.and_then(|(_, accepted)| accepted);
    if earlier.is_some_and(|earlier| accepted > earlier) {
        return Ok(false);
    }
    tx.run(&NOT_FOUND_AFTER, &[&row.id, &accepted]).await?;
    let is_document = accepted > 0 && not_found.is_none_or(|other| other == row.id);
    if is_document {
        tx.run(&NOT_FOUND, &[&row.id]).await?;
    }
    Ok(!is_document)
}

/// Pauses a path until `retry_at`; the import error that was refused for it waits again.
async fn pause_path<T: Tx>(
    tx: &T,
    row: &ImportErrorRow,
    path: &str,
    error: &str,
    now: Timestamp,
    retry_at: Timestamp,
) -> Result<()> {
    static WAIT_AGAIN: Sql = Sql::new(
        "UPDATE import_error SET state = 'pending', next_try_at = $2, ended_at = NULL
         WHERE state = 'refused' AND id = (
             SELECT p.not_found FROM import_error_path p JOIN import_error r ON r.account_id = p.account_id
             WHERE r.id = $1)",
    );
    static PAUSE: Sql = Sql::new(
        "UPDATE import_error_path SET path = $2, last_error = $3, paused_since = coalesce(paused_since, $4),
             retry_at = $5
         WHERE account_id = (SELECT account_id FROM import_error WHERE id = $1)",
    );
    tx.run(&WAIT_AGAIN, &[&row.id, &now]).await?;
    let params = params! { row.id, path, error, now, retry_at };
    tx.run(&PAUSE, params).await
}
