//! What a person decides about import errors: to send them now, or never.

use super::Store;
use super::engine::{Fragment, Sql, Tx, operations, params};
use super::error::Result;
use super::import_errors::{ImportErrorState, lock_paths};
use crate::domain::{Account, Company, Timestamp};

/// Import errors that a person decides about: those that fit everything that is named here.
#[derive(Clone, Debug, Default)]
pub struct ImportErrorSelection {
    /// Only this one.
    pub id: Option<i64>,
    /// Only of this account.
    pub account: Option<Account>,
    /// Only of this company.
    pub company: Option<Company>,
    /// Only in this state; if none, those that are pending or refused, or `id` in any state.
    pub state: Option<ImportErrorState>,
}

/// A person's decision about import errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportErrorDecision {
    /// Sends them now: one that is named, withdrawn or discarded in any case, others if their
    /// document is still rejected.
    Retry,
    /// Never sends them.
    Discard,
}

operations! {
    /// Applies a person's decision to import errors that can still be sent; returns their number.
    /// Retrying also resumes their paths. At most [`DECISION_BATCH`] rows are read, those after
    /// `after`; returns the last one if there may be more.
    write decide_some(
        selection: ImportErrorSelection,
        decision: ImportErrorDecision,
        after: i64,
        now: Timestamp,
    ) -> (usize, Option<i64>), then wake_import_errors;
}

/// Import errors that one transaction reads for a person.
const DECISION_BATCH: i64 = 1_000;

impl Store {
    /// Applies a person's decision to import errors that can still be sent; returns their number.
    /// Retrying also resumes their paths.
    ///
    /// # Errors
    ///
    /// If the store fails; some may be changed then.
    pub async fn decide_import_errors(
        &self,
        selection: ImportErrorSelection,
        decision: ImportErrorDecision,
        now: Timestamp,
    ) -> Result<usize> {
        let (mut changed, mut after) = (0, Some(0));
        while let Some(row) = after {
            let (some, last) = self
                .decide_some(selection.clone(), decision, row, now)
                .await?;
            changed += some;
            after = last;
        }
        Ok(changed)
    }
}

async fn decide_some<T: Tx>(
    tx: &T,
    selection: ImportErrorSelection,
    decision: ImportErrorDecision,
    after: i64,
    now: Timestamp,
) -> Result<(usize, Option<i64>)> {
    static ONE: Sql = Sql::new(
        "SELECT r.id FROM import_error r JOIN account a ON a.id = r.account_id
         WHERE r.id = $1 AND r.state <> 'sent' AND ($2 IS NULL OR a.name = $2)
           AND ($3 IS NULL OR r.company = $3) AND r.state = coalesce($4, r.state)
           AND (r.company IS NOT NULL OR $5)",
    );
    // However few of them fit, a transaction reads a bounded number of rows.
    const WINDOW: Fragment = Fragment::Same(
        "SELECT id, account_id, company, state FROM import_error WHERE id > $1 ORDER BY id LIMIT $6",
    );
    static FIND: Sql = Sql::with(
        "SELECT r.id FROM ({window}) AS r {then_join} account a ON a.id = r.account_id
         WHERE r.state <> 'sent' AND ($2 IS NULL OR a.name = $2)
           AND ($3 IS NULL OR r.company = $3) AND r.state = coalesce($4, r.state)
           AND ($4 IS NOT NULL OR r.state IN ('pending', 'refused'))
           AND (r.company IS NOT NULL OR $5)
         ORDER BY r.id",
        &[("window", WINDOW)],
    );
    static LAST: Sql = Sql::new(
        "SELECT count(*), max(id) FROM (SELECT id FROM import_error WHERE id > $1 ORDER BY id LIMIT $2) AS r",
    );
    // Only one that a person names, or has chosen among those that are not to be sent, is sent
    // whatever became of its document.
    static RETRY: Sql = Sql::new(
        "UPDATE import_error SET requested = requested OR $3 OR state IN ('withdrawn', 'discarded'),
             state = 'pending', next_try_at = $2, ended_at = NULL
         WHERE id IN (SELECT id FROM import_error
             WHERE id IN ({elements}($1)) AND state <> 'sent'{lock_in_order})",
    );
    static PATHS: Sql = Sql::new(
        "SELECT account_id FROM import_error_path p JOIN account a ON a.id = p.account_id
         WHERE $1 IS NULL OR a.name = $1",
    );
    static PATHS_OF: Sql =
        Sql::new("SELECT DISTINCT account_id FROM import_error WHERE id IN ({elements}($1))");
    static RESUME: Sql = Sql::new(
        "UPDATE import_error_path SET paused_since = NULL, retry_at = NULL WHERE account_id IN ({elements}($1))",
    );
    // Its owner, if it is being sent, can only record that it was.
    static DISCARD: Sql = Sql::new(
        "UPDATE import_error SET state = 'discarded', next_try_at = NULL, leased_until = NULL, requested = false,
             fence = fence + 1, ended_at = $2
         WHERE id IN (SELECT id FROM import_error
             WHERE id IN ({elements}($1)) AND state <> 'sent'{lock_in_order})",
    );
    let now = tx.now_or(now);
    let ImportErrorSelection {
        id,
        account,
        company,
        state,
    } = selection;
    let discards = decision == ImportErrorDecision::Discard;
    let limit = DECISION_BATCH;
    let (found, last): (Vec<i64>, Option<i64>) = match id {
        Some(id) => {
            let params = params! { id, account, company, state, discards };
            (tx.all(&ONE, params).await?, None)
        }
        None => {
            let params = params! { after, account, company, state, discards, limit };
            let found = tx.all(&FIND, params).await?;
            let (count, last): (i64, Option<i64>) = tx.one(&LAST, &[&after, &limit]).await?;
            (found, last.filter(|_| count == limit))
        }
    };
    // A path is resumed though nothing waits for it, if its account or all are meant.
    let of_accounts = id.is_none() && company.is_none() && (account.is_some() || state.is_none());
    let mut paths: Vec<i64> = match of_accounts && !discards {
        true => tx.all(&PATHS, &[&account]).await?,
        false => tx.all(&PATHS_OF, &[&found]).await?,
    };
    paths.sort_unstable();
    lock_paths(tx, &paths).await?;
    let changed = match decision {
        ImportErrorDecision::Retry => {
            tx.run(&RESUME, &[&paths]).await?;
            tx.execute(&RETRY, &[&found, &now, &id.is_some()]).await?
        }
        ImportErrorDecision::Discard => tx.execute(&DISCARD, &[&found, &now]).await?,
    };
    Ok((changed, last))
}
