//! Import errors for the vendor's accountant.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::engine::{Fragment, Operation, Row, Sql, Tx};
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

/// The state of an import error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImportErrorState {
    /// It waits to be sent.
    Pending,
    /// The vendor accepted it.
    Sent,
    /// The vendor refused it, or it can't be sent.
    Refused,
}

impl ImportErrorState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Sent, Self::Refused];

    /// Returns the state's name in the store and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Refused => "refused",
        }
    }
}

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

/// Selects the columns that [`ImportErrorRow::read`] reads.
const ROWS: Fragment = Fragment::Same(
    "SELECT r.id, a.name, r.sequence, d.document_id, r.company, r.message, r.state, r.attempts,
            r.created_at, r.sent_at, r.next_try_at, r.last_error
     FROM import_error r
     JOIN account a ON a.id = r.account_id
     JOIN document d ON d.sequence = r.sequence",
);

impl ImportErrorRow {
    fn read(row: &dyn Row) -> Result<Self, StoreError> {
        let company: Option<Company> = row.get(4)?;
        Ok(Self {
            id: row.get(0)?,
            account: row.get(1)?,
            sequence: row.get(2)?,
            document_id: row.get(3)?,
            company: company.filter(|company| *company != Company::mixed()),
            message: row.get(5)?,
            state: row.get(6)?,
            attempts: row.get(7)?,
            created_at: row.get(8)?,
            sent_at: row.get(9)?,
            next_try_at: row.get(10)?,
            last_error: row.get(11)?,
        })
    }
}

impl Operation for ImportErrorFilter {
    type Output = Vec<ImportErrorRow>;

    /// Lists import errors, oldest first.
    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        // Each kind of query has an index of its own.
        static OF_VERSION: Sql = Sql::with(
            "{rows} WHERE r.id > $1 AND r.sequence = $2 AND ($3 IS NULL OR r.state = $3)
             ORDER BY r.id LIMIT $4",
            &[("rows", ROWS)],
        );
        static OF_ALL: Sql = Sql::with(
            "{rows} WHERE r.id > $1 AND ($2 IS NULL OR r.state = $2) ORDER BY r.id LIMIT $3",
            &[("rows", ROWS)],
        );
        let state = self.state.map(ImportErrorState::as_str);
        match self.sequence {
            Some(sequence) => {
                tx.all(
                    &OF_VERSION,
                    &[&self.after, &sequence, &state, &self.limit],
                    ImportErrorRow::read,
                )
                .await
            }
            None => {
                tx.all(
                    &OF_ALL,
                    &[&self.after, &state, &self.limit],
                    ImportErrorRow::read,
                )
                .await
            }
        }
    }
}

/// Leases a pending import error of one of these accounts, the least often tried first.
pub(super) struct LeaseImportError {
    pub(super) accounts: Vec<Account>,
    pub(super) now: Timestamp,
    pub(super) lease: Duration,
}

impl Operation for LeaseImportError {
    type Output = Option<ImportErrorLease>;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        static FIND: Sql = Sql::with(
            "{rows} WHERE r.state = 'pending' AND r.next_try_at <= $1 AND coalesce(r.leased_until, 0) <= $1
               AND a.name IN ({elements}($2))
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
             RETURNING fence",
        );
        let now = tx.now_or(self.now);
        let names: Vec<&str> = self.accounts.iter().map(Account::as_str).collect();
        let found = tx
            .first(&FIND, &[&now, &names], ImportErrorRow::read)
            .await?;
        let Some(mut row) = found else {
            return Ok(None);
        };
        let fence = tx
            .one(&LEASE, &[&row.id, &now.after(self.lease)], |row| row.get(0))
            .await?;
        row.attempts += 1;
        Ok(Some(ImportErrorLease { row, fence }))
    }
}

/// Records the result of sending. Fails with [`StoreError::StaleLease`] if another process
/// has leased the import error since.
pub(super) struct EndImportError {
    pub(super) lease: ImportErrorLease,
    pub(super) end: ImportErrorOutcome,
    pub(super) now: Timestamp,
}

impl Operation for EndImportError {
    type Output = ();

    async fn run<T: Tx>(self, tx: &mut T) -> Result<(), StoreError> {
        static END: Sql = Sql::new(
            "UPDATE import_error SET state = $3, last_error = $4, next_try_at = $5, leased_until = NULL,
                 sent_at = CASE WHEN $3 = 'sent' THEN $6 ELSE sent_at END
             WHERE id = $1 AND fence = $2",
        );
        static DELAY_OTHERS: Sql = Sql::new(
            "WITH others AS (
                 SELECT id FROM import_error
                 WHERE state = 'pending' AND next_try_at < $2
                   AND account_id = (SELECT account_id FROM import_error WHERE id = $1)
                 ORDER BY id{lock_rows})
             UPDATE import_error AS r SET next_try_at = $2 FROM others WHERE r.id = others.id",
        );
        let ImportErrorLease { row, fence } = self.lease;
        let (state, error, next_try_at, others_wait_until) = match self.end {
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
        let now = tx.now_or(self.now);
        let changed = tx
            .execute(
                &END,
                &[&row.id, &fence, &state.as_str(), &error, &next_try_at, &now],
            )
            .await?;
        if changed == 0 {
            return Err(StoreError::StaleLease);
        }
        if let Some(until) = others_wait_until {
            // The account's others would fail alike.
            tx.execute(&DELAY_OTHERS, &[&row.id, &until]).await?;
        }
        Ok(())
    }
}

/// Makes an import error due now; returns false if it does not exist, was sent or can't be.
pub(super) struct RetryImportError {
    pub(super) id: i64,
    pub(super) now: Timestamp,
}

impl Operation for RetryImportError {
    type Output = bool;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<bool, StoreError> {
        static SQL: Sql = Sql::new(
            "UPDATE import_error SET state = 'pending', next_try_at = $2
             WHERE id = $1 AND state <> 'sent' AND company IS NOT NULL",
        );
        let now = tx.now_or(self.now);
        Ok(tx.execute(&SQL, &[&self.id, &now]).await? > 0)
    }
}
