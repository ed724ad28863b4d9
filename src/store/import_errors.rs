//! Import errors for the vendor's accountant.

use std::time::Duration;

use serde::Serialize;

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
    }
}

named_columns! { ImportErrorState: "import error state", name => Self::parse(&name); }

/// An import error; there is one for each (version, text).
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
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
    /// When sending is attempted next.
    pub next_try_at: Option<Timestamp>,
    /// The last failure.
    pub last_error: Option<String>,
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
}

operations! {
    /// Lists import errors, oldest first.
    pub read import_errors(filter: ImportErrorFilter) -> Vec<ImportErrorRow>;

    /// Leases the import error of these accounts that is due next, the least often tried
    /// first.
    pub write lease_import_error(accounts: Vec<Account>, now: Timestamp, lease: Duration)
        -> Option<ImportErrorLease>;

    /// Records the result of sending an import error.
    ///
    /// # Errors
    ///
    /// [`StoreError::StaleLease`] if another worker has leased the import error since.
    pub write end_import_error(lease: ImportErrorLease, end: ImportErrorOutcome, now: Timestamp)
        -> ();

    /// Makes a refused or waiting import error due now; returns false if there is none that
    /// can be sent.
    pub write retry_import_error(id: i64, now: Timestamp) -> bool, then wake_deliveries;
}

/// Selects the columns of an [`ImportErrorRow`].
const ROWS: Fragment = Fragment::Same(
    "SELECT r.id, a.name, r.sequence, d.document_id, nullif(r.company, ''), r.message, r.state, r.attempts,
            r.created_at, r.sent_at, r.next_try_at, r.last_error
     FROM import_error r
     JOIN account a ON a.id = r.account_id
     JOIN document d ON d.sequence = r.sequence",
);

rows! {
    ImportErrorRow {
        id, account, sequence, document_id, company, message, state, attempts, created_at,
        sent_at, next_try_at, last_error,
    }
}

async fn import_errors<T: Tx>(
    tx: &mut T,
    filter: ImportErrorFilter,
) -> Result<Vec<ImportErrorRow>> {
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

async fn lease_import_error<T: Tx>(
    tx: &mut T,
    accounts: Vec<Account>,
    now: Timestamp,
    lease: Duration,
) -> Result<Option<ImportErrorLease>> {
    static FIND: Sql = Sql::with(
        "{rows} WHERE r.state = 'pending' AND r.next_try_at > $4 AND r.next_try_at <= $5
           AND (coalesce(r.leased_until, 0) <= $1 OR r.leased_until > $3) AND a.name IN ({elements}($2))
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
        "UPDATE import_error SET fence = fence + 1, attempts = attempts + 1, leased_until = $2 WHERE id = $1
         RETURNING attempts, fence",
    );
    let now = tx.now_or(now);
    let latest_lease = backoff::latest_end(now, lease);
    let longest_wait = backoff::IMPORT_ERROR.longest_wait(backoff::LONGEST_VENDOR_RETRY_AFTER);
    let (first, last) = (Timestamp::from_millis(-1), Timestamp::from_millis(i64::MAX));
    let mut found: Option<ImportErrorRow> = None;
    // One whose time has come, or else one that was to wait for longer than any does.
    for (after, until) in [(first, now), (backoff::latest_end(now, longest_wait), last)] {
        if found.is_none() {
            let params = params! { now, accounts, latest_lease, after, until };
            found = tx.first(&FIND, params).await?;
        }
    }
    let Some(row) = found else {
        return Ok(None);
    };
    let (attempts, fence) = tx.one(&LEASE, &[&row.id, &now.after(lease)]).await?;
    let row = ImportErrorRow { attempts, ..row };
    Ok(Some(ImportErrorLease { row, fence }))
}

async fn end_import_error<T: Tx>(
    tx: &mut T,
    lease: ImportErrorLease,
    end: ImportErrorOutcome,
    now: Timestamp,
) -> Result<()> {
    static END: Sql = Sql::new(
        "UPDATE import_error SET state = $3, last_error = $4, next_try_at = $5, leased_until = NULL,
             sent_at = CASE WHEN $3 = 'sent' THEN $6 ELSE sent_at END
         WHERE id = $1 AND fence = $2",
    );
    // The account's others would fail alike.
    static DELAY_OTHERS: Sql = Sql::new(
        "WITH others AS (
             SELECT id FROM import_error
             WHERE state = 'pending' AND next_try_at < $2
               AND account_id = (SELECT account_id FROM import_error WHERE id = $1){lock_in_order})
         UPDATE import_error AS r SET next_try_at = $2 FROM others WHERE r.id = others.id",
    );
    let ImportErrorLease { row, fence } = lease;
    let (state, error, next_try_at, others_wait_until) = match end {
        ImportErrorOutcome::Sent => (ImportErrorState::Sent, None, None, None),
        ImportErrorOutcome::Failed {
            error,
            next_try_at,
            others_wait_until,
        } => (
            ImportErrorState::Pending,
            Some(error),
            Some(next_try_at),
            Some(others_wait_until),
        ),
        ImportErrorOutcome::Refused { error } => {
            (ImportErrorState::Refused, Some(error), None, None)
        }
    };
    let now = tx.now_or(now);
    let params: [&dyn Param; 6] = [&row.id, &fence, &state, &error, &next_try_at, &now];
    if tx.execute(&END, &params).await? == 0 {
        return Err(StoreError::StaleLease);
    }
    match others_wait_until {
        Some(until) => tx.run(&DELAY_OTHERS, &[&row.id, &until]).await,
        None => Ok(()),
    }
}

async fn retry_import_error<T: Tx>(tx: &mut T, id: i64, now: Timestamp) -> Result<bool> {
    static SQL: Sql = Sql::new(
        "UPDATE import_error SET state = 'pending', next_try_at = $2
         WHERE id = $1 AND state <> 'sent' AND company IS NOT NULL",
    );
    let now = tx.now_or(now);
    Ok(tx.execute(&SQL, &[&id, &now]).await? > 0)
}
