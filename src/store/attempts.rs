//! Attempts to deliver versions, and the outcomes that destinations report later.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use super::StoreError;
use super::deliveries::{Attempt, DeliveryLease, DeliveryOutcome, LateOutcome, LeaseAction};
use super::destinations;
use super::engine::{Operation, Param, Sql, Tx};
use super::import_errors::NewImportError;
use super::links::request_fresh_link;
use crate::domain::{Company, DestinationName, Timestamp};

/// Maximum number of attempt rows per delivery; the first is kept, then the newest.
const MAX_ATTEMPT_ROWS: i64 = 50;

/// Time that a version waits after the link to its file has expired, unless a fresh link
/// arrives sooner.
const LINK_RETRY_DELAY: Duration = Duration::from_secs(60);

/// The error of an import error that names no company and therefore can't be sent.
const NO_COMPANY: &str = "the document does not say which of your companies it belongs to, and Įvesk.lt requires \
     that; inform the accountant yourself";

/// Records attempts with the import errors that follow, and applies an action to the lease;
/// returns true if more attempts may begin under it. Fails with [`StoreError::StaleLease`] if
/// another worker has leased the destination since.
pub(super) struct SettleDeliveries {
    pub(super) lease: DeliveryLease,
    pub(super) attempts: Vec<Attempt>,
    pub(super) action: LeaseAction,
    pub(super) now: Timestamp,
}

impl Operation for SettleDeliveries {
    type Output = bool;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<bool, StoreError> {
        static OWN: Sql =
            Sql::new("SELECT 1 FROM destination WHERE id = $1 AND fence = $2{lock_rows}");
        let now = tx.now_or(self.now);
        let destination = self.lease.destination_id;
        tx.first(&OWN, &[&destination, &self.lease.fence], |_| Ok(()))
            .await?
            .ok_or(StoreError::StaleLease)?;
        let of = |is: fn(&DeliveryOutcome) -> bool| -> Vec<i64> {
            let these = self.attempts.iter().filter(|one| is(&one.outcome));
            these.map(|one| one.sequence).collect()
        };
        let expired = of(|outcome| matches!(outcome, DeliveryOutcome::LinkExpired));
        let listed = of(|outcome| matches!(outcome, DeliveryOutcome::Listed));
        let delivered = of(|outcome| matches!(outcome, DeliveryOutcome::Delivered { .. }));
        let rejected = of(|outcome| matches!(outcome, DeliveryOutcome::Rejected { .. }));
        lock_feeds(tx, &expired).await?;
        for one in &self.attempts {
            record_attempt(tx, destination, one, now).await?;
        }
        assign_numbers(tx, destination, &listed).await?;
        if self.attempts.len() > expired.len() {
            record_success(tx, destination, [delivered.len(), rejected.len()], now).await?;
        }
        end_lease(tx, destination, &self.action, now).await
    }
}

/// Locks the feeds that are to be pulled for fresh links before their triggers are touched,
/// in the order in which a page's commit locks them.
async fn lock_feeds<T: Tx>(tx: &mut T, expired: &[i64]) -> Result<(), StoreError> {
    static SQL: Sql = Sql::new(
        "SELECT 1 FROM feed WHERE id IN (SELECT feed_id FROM document WHERE sequence IN ({elements}($1)))
         ORDER BY id{lock_rows}",
    );
    if !expired.is_empty() {
        tx.all(&SQL, &[&expired], |_| Ok(())).await?;
    }
    Ok(())
}

async fn record_attempt<T: Tx>(
    tx: &mut T,
    destination: i64,
    one: &Attempt,
    now: Timestamp,
) -> Result<(), StoreError> {
    let update = DeliveryUpdate::of(&one.outcome, now);
    write_delivery(tx, destination, one.sequence, one.began_at, now, &update).await?;
    match &one.outcome {
        DeliveryOutcome::Rejected { import_error, .. } => {
            add_import_error(tx, one.sequence, import_error, now).await
        }
        DeliveryOutcome::LinkExpired => {
            request_fresh_link(tx, destination, one.sequence, now).await
        }
        DeliveryOutcome::Delivered { .. } | DeliveryOutcome::Listed | DeliveryOutcome::Filtered => {
            Ok(())
        }
    }
}

/// Sets the state of a delivery, and adds its attempt.
async fn write_delivery<T: Tx>(
    tx: &mut T,
    destination: i64,
    sequence: i64,
    began_at: Timestamp,
    now: Timestamp,
    update: &DeliveryUpdate<'_>,
) -> Result<(), StoreError> {
    static DELIVERY: Sql = Sql::new(
        "INSERT INTO delivery AS h (destination_id, sequence, state, began_at, changed_at, next_try_at, note, detail)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (destination_id, sequence) DO UPDATE SET
             state = CASE WHEN h.state = 'skipped' AND excluded.state = 'pending' THEN 'skipped' ELSE excluded.state END,
             changed_at = excluded.changed_at, next_try_at = excluded.next_try_at,
             note = coalesce(excluded.note, h.note), detail = excluded.detail",
    );
    // An attempt with the same result as the last one is counted in its row.
    static REPEATED: Sql = Sql::new(
        "UPDATE delivery_attempt SET ended_at = $3, times = times + 1
         WHERE destination_id = $1 AND sequence = $2 AND result = $4 AND detail IS NOT DISTINCT FROM $5
           AND number = (SELECT max(number) FROM delivery_attempt WHERE destination_id = $1 AND sequence = $2)",
    );
    static ATTEMPT: Sql = Sql::new(
        "INSERT INTO delivery_attempt (destination_id, sequence, number, began_at, ended_at, result, detail, times)
         SELECT $1, $2, coalesce(max(number), 0) + 1, $3, $4, $5, $6, 1
         FROM delivery_attempt WHERE destination_id = $1 AND sequence = $2
         RETURNING number",
    );
    static REMOVE_OLD: Sql = Sql::new(
        "DELETE FROM delivery_attempt WHERE destination_id = $1 AND sequence = $2 AND number > 1 AND number <= $3",
    );
    // The worker's clock may be ahead of the database's.
    let began_at = began_at.min(now);
    let DeliveryUpdate {
        state,
        result,
        note,
        detail,
        next_try_at,
    } = update;
    let params: [&dyn Param; 8] = [
        &destination,
        &sequence,
        state,
        &began_at,
        &now,
        next_try_at,
        note,
        detail,
    ];
    tx.execute(&DELIVERY, &params).await?;
    let repeated = tx
        .execute(&REPEATED, &[&destination, &sequence, &now, result, detail])
        .await?;
    if repeated > 0 {
        return Ok(());
    }
    let params: [&dyn Param; 6] = [&destination, &sequence, &began_at, &now, result, detail];
    let number: i64 = tx.one(&ATTEMPT, &params, |row| row.get(0)).await?;
    if number > MAX_ATTEMPT_ROWS {
        let old = number - MAX_ATTEMPT_ROWS;
        tx.execute(&REMOVE_OLD, &[&destination, &sequence, &old])
            .await?;
    }
    Ok(())
}

/// Adds an import error for the accountant, once for each (version, text).
async fn add_import_error<T: Tx>(
    tx: &mut T,
    sequence: i64,
    import_error: &NewImportError,
    now: Timestamp,
) -> Result<(), StoreError> {
    static SQL: Sql = Sql::new(
        "INSERT INTO import_error (account_id, sequence, digest, company, message, state, created_at, next_try_at, last_error)
         SELECT f.account_id, d.sequence, $2, $3, $4, $5, $6, $7, $8
         FROM document d JOIN feed f ON f.id = d.feed_id WHERE d.sequence = $1
         ON CONFLICT (sequence, digest) DO NOTHING",
    );
    let digest = digest(&SHA256, import_error.message.as_bytes());
    let company = import_error.company.as_ref().map(Company::as_str);
    let (state, due_at, error) = match company {
        Some(_) => ("pending", Some(now), None),
        None => ("refused", None, Some(NO_COMPANY)),
    };
    let params: [&dyn Param; 8] = [
        &sequence,
        &digest.as_ref(),
        &company,
        &import_error.message,
        &state,
        &now,
        &due_at,
        &error,
    ];
    tx.execute(&SQL, &params).await?;
    Ok(())
}

/// Assigns the next places in the destination's list to versions.
async fn assign_numbers<T: Tx>(
    tx: &mut T,
    destination: i64,
    listed: &[i64],
) -> Result<(), StoreError> {
    static COUNT: Sql = Sql::new(
        "UPDATE destination SET last_number = last_number + $2 WHERE id = $1 RETURNING last_number - $2",
    );
    static ASSIGN: Sql = Sql::new(
        "UPDATE delivery AS h SET number = $3 + entry.place
         FROM (SELECT sequence, row_number() OVER (ORDER BY sequence) AS place FROM delivery
               WHERE destination_id = $1 AND sequence IN ({elements}($2))) AS entry
         WHERE h.destination_id = $1 AND h.sequence = entry.sequence",
    );
    if listed.is_empty() {
        return Ok(());
    }
    let before: i64 = tx
        .one(&COUNT, &[&destination, &listed.len()], |row| row.get(0))
        .await?;
    tx.execute(&ASSIGN, &[&destination, &listed, &before])
        .await?;
    Ok(())
}

/// Counts accepted and rejected versions, and ends a series of failures.
async fn record_success<T: Tx>(
    tx: &mut T,
    destination: i64,
    [delivered, rejected]: [usize; 2],
    now: Timestamp,
) -> Result<(), StoreError> {
    static SQL: Sql = Sql::new(
        "UPDATE destination SET delivered = delivered + $2, rejected = rejected + $3, last_success_at = $4,
             failures = 0, failing_since = NULL, last_error = NULL, stuck_at = NULL, waits_until = NULL
         WHERE id = $1",
    );
    tx.execute(&SQL, &[&destination, &delivered, &rejected, &now])
        .await?;
    Ok(())
}

/// Applies an action to a lease; returns true if more attempts may begin under it.
async fn end_lease<T: Tx>(
    tx: &mut T,
    destination: i64,
    action: &LeaseAction,
    now: Timestamp,
) -> Result<bool, StoreError> {
    static KEEP: Sql =
        Sql::new("UPDATE destination SET leased_until = $2 WHERE id = $1 RETURNING paused IS NULL");
    static RELEASE: Sql = Sql::new("UPDATE destination SET leased_until = NULL WHERE id = $1");
    static STATE: Sql =
        Sql::new("SELECT state FROM delivery WHERE destination_id = $1 AND sequence = $2");
    static WAIT: Sql = Sql::new(
        "UPDATE destination SET leased_until = NULL, failures = failures + 1,
             failing_since = coalesce(failing_since, $2), last_error = $3, stuck_at = $4, waits_until = $5,
             paused = CASE WHEN $5 IS NULL THEN coalesce(paused, 'closed') ELSE paused END
         WHERE id = $1",
    );
    match action {
        LeaseAction::Keep(lease) => {
            tx.one(&KEEP, &[&destination, &now.after(*lease)], |row| row.get(0))
                .await
        }
        LeaseAction::Release => {
            tx.execute(&RELEASE, &[&destination]).await?;
            Ok(false)
        }
        LeaseAction::Wait {
            sequence,
            began_at,
            error,
            until,
        } => {
            let update = DeliveryUpdate::unavailable(error, until.is_some());
            write_delivery(tx, destination, *sequence, *began_at, now, &update).await?;
            let state: String = tx
                .one(&STATE, &[&destination, sequence], |row| row.get(0))
                .await?;
            // A person may have skipped the version while it was being delivered.
            if state == "skipped" {
                tx.execute(&RELEASE, &[&destination]).await?;
            } else {
                tx.execute(&WAIT, &[&destination, &now, error, sequence, until])
                    .await?;
            }
            Ok(false)
        }
    }
}

/// Records an outcome that a destination reports later; returns false if the version was
/// never listed at or delivered to it.
pub(super) struct RecordOutcome {
    pub(super) destination: DestinationName,
    pub(super) sequence: i64,
    pub(super) outcome: LateOutcome,
    pub(super) now: Timestamp,
}

impl Operation for RecordOutcome {
    type Output = bool;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<bool, StoreError> {
        static FIND: Sql = Sql::new(
            "SELECT state, detail FROM delivery
             WHERE destination_id = $1 AND sequence = $2 AND state IN ('listed', 'delivered', 'rejected')",
        );
        static COUNT: Sql = Sql::new(
            "UPDATE destination SET delivered = delivered + $2, rejected = rejected + $3 WHERE id = $1",
        );
        let now = tx.now_or(self.now);
        let Some(destination) = destinations::lock(tx, &self.destination).await? else {
            return Ok(false);
        };
        let found: Option<(String, Option<String>)> = tx
            .first(&FIND, &[&destination, &self.sequence], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .await?;
        let Some((state, detail)) = found else {
            return Ok(false);
        };
        let outcome = DeliveryOutcome::from(&self.outcome);
        let update = DeliveryUpdate::of(&outcome, now);
        if state == update.state && detail.as_deref() == update.detail {
            return Ok(true);
        }
        let attempt = Attempt {
            sequence: self.sequence,
            began_at: now,
            outcome,
        };
        record_attempt(tx, destination, &attempt, now).await?;
        let delivered = i64::from(matches!(self.outcome, LateOutcome::Delivered));
        tx.execute(&COUNT, &[&destination, &delivered, &(1 - delivered)])
            .await?;
        Ok(true)
    }
}

/// The columns of a delivery, and of its attempt, as an outcome sets them.
struct DeliveryUpdate<'a> {
    state: &'static str,
    result: &'static str,
    note: Option<&'a str>,
    detail: Option<&'a str>,
    next_try_at: Option<Timestamp>,
}

impl<'a> DeliveryUpdate<'a> {
    fn plain(state: &'static str) -> Self {
        Self {
            state,
            result: state,
            note: None,
            detail: None,
            next_try_at: None,
        }
    }

    /// Returns the columns of an outcome.
    fn of(outcome: &'a DeliveryOutcome, now: Timestamp) -> Self {
        match outcome {
            DeliveryOutcome::Delivered { note } => Self {
                note: note.as_deref(),
                ..Self::plain("delivered")
            },
            DeliveryOutcome::Rejected { message, .. } => Self {
                detail: Some(message),
                ..Self::plain("rejected")
            },
            DeliveryOutcome::Listed => Self::plain("listed"),
            DeliveryOutcome::Filtered => Self::plain("filtered"),
            DeliveryOutcome::LinkExpired => Self {
                result: "link_expired",
                next_try_at: Some(now.after(LINK_RETRY_DELAY)),
                ..Self::plain("pending")
            },
        }
    }

    /// Returns the columns of an attempt that found the destination unavailable, or closed
    /// if it is not retried.
    fn unavailable(error: &'a str, is_retried: bool) -> Self {
        Self {
            result: if is_retried { "unavailable" } else { "closed" },
            detail: Some(error),
            ..Self::plain("pending")
        }
    }
}

impl From<&LateOutcome> for DeliveryOutcome {
    fn from(outcome: &LateOutcome) -> Self {
        match outcome {
            LateOutcome::Delivered => Self::Delivered { note: None },
            LateOutcome::Rejected {
                message,
                import_error,
            } => Self::Rejected {
                message: message.clone(),
                import_error: import_error.clone(),
            },
        }
    }
}
