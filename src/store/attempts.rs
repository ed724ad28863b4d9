//! Attempts to deliver versions, and the outcomes that destinations report later.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use super::deliveries::{
    Attempt, DeliveryLease, DeliveryOutcome, DeliveryState, LateOutcome, LeaseAction,
};
use super::destinations;
use super::engine::{Sql, Tx, operations, params};
use super::erasure::{erased_among, keep_files, record_late_attempt};
use super::error::Result;
use super::import_errors::{IMPORT_ERROR_WAIT, ImportErrorState, NewImportError};
use super::links::request_fresh_link;
use super::list_places::add_places;
use super::{Store, StoreError};
use crate::domain::{DestinationName, Timestamp};

/// Maximum number of attempt rows per delivery; the first is kept, then the newest.
const MAX_ATTEMPT_ROWS: i64 = 50;

/// Time that a version waits after the link to its file has expired, unless a fresh link
/// arrives sooner.
pub(super) const LINK_RETRY_DELAY: Duration = Duration::from_secs(60);

/// The error of an import error that names no company and therefore can't be sent.
const NO_COMPANY: &str = "the document does not say which of your companies it belongs to, and Įvesk.lt requires \
     that; inform the accountant yourself";

operations! {
    write settle(lease: DeliveryLease, attempts: Vec<Attempt>, action: LeaseAction, now: Timestamp)
        -> bool;

    /// Records an outcome that a destination reports later; returns false if the version
    /// was never listed at or delivered to it, or a person has erased it.
    pub write record_outcome(
        destination: DestinationName,
        sequence: i64,
        outcome: LateOutcome,
        now: Timestamp,
    ) -> bool, then wake_deliveries;
}

impl Store {
    /// Records attempts with the import errors that follow, and applies `action` to the
    /// lease. Returns true if more attempts may begin under the lease: not once it is
    /// released, or a person has paused the destination. A pause leaves the lease with its
    /// owner, which finishes the attempts in flight and then releases it.
    ///
    /// # Errors
    ///
    /// [`StoreError::StaleLease`] if another worker has leased the destination since;
    /// nothing is recorded then.
    pub async fn settle_deliveries(
        &self,
        lease: DeliveryLease,
        attempts: Vec<Attempt>,
        action: LeaseAction,
        now: Timestamp,
    ) -> Result<bool> {
        let any = |is: fn(&DeliveryOutcome) -> bool| attempts.iter().any(|one| is(&one.outcome));
        let pulls = any(|outcome| matches!(outcome, DeliveryOutcome::LinkExpired));
        let rejects = any(|outcome| matches!(outcome, DeliveryOutcome::Rejected { .. }));
        let may_continue = self.settle(lease, attempts, action, now).await?;
        if pulls {
            self.wake_pullers();
        }
        if rejects {
            self.wake_deliveries();
        }
        Ok(may_continue)
    }
}

async fn settle<T: Tx>(
    tx: &mut T,
    lease: DeliveryLease,
    attempts: Vec<Attempt>,
    action: LeaseAction,
    now: Timestamp,
) -> Result<bool> {
    static OWN: Sql = Sql::new("SELECT 1 FROM destination WHERE id = $1 AND fence = $2{lock_rows}");
    let now = tx.now_or(now);
    let destination = lease.destination_id;
    let owned: Option<()> = tx.first(&OWN, &[&destination, &lease.fence]).await?;
    owned.ok_or(StoreError::StaleLease)?;
    let (attempts, action) = without_erased(tx, destination, attempts, action).await?;
    let of = |is: fn(&DeliveryOutcome) -> bool| -> Vec<i64> {
        let these = attempts.iter().filter(|one| is(&one.outcome));
        these.map(|one| one.sequence).collect()
    };
    let expired = of(|outcome| matches!(outcome, DeliveryOutcome::LinkExpired));
    let listed = of(|outcome| matches!(outcome, DeliveryOutcome::Listed));
    let delivered = of(|outcome| matches!(outcome, DeliveryOutcome::Delivered { .. }));
    let rejected = of(|outcome| matches!(outcome, DeliveryOutcome::Rejected { .. }));
    lock_feeds(tx, &expired).await?;
    for one in &attempts {
        record_attempt(tx, destination, one, now).await?;
    }
    assign_numbers(tx, destination, &listed).await?;
    if attempts.len() > expired.len() {
        record_success(tx, destination, [delivered.len(), rejected.len()], now).await?;
    }
    end_lease(tx, destination, &action, now).await
}

/// Returns the attempts and the action without versions that a person has erased meanwhile.
async fn without_erased<T: Tx>(
    tx: &mut T,
    destination: i64,
    attempts: Vec<Attempt>,
    action: LeaseAction,
) -> Result<(Vec<Attempt>, LeaseAction)> {
    let failed = match &action {
        LeaseAction::Wait { sequence, .. } => Some(*sequence),
        LeaseAction::Keep(_) | LeaseAction::Release => None,
    };
    let sequences = attempts.iter().map(|one| one.sequence).chain(failed);
    let erased = erased_among(tx, sequences.collect()).await?;
    if erased.is_empty() {
        return Ok((attempts, action));
    }
    let is_erased = |sequence: i64| erased.contains(&sequence);
    let (late, kept): (Vec<_>, Vec<_>) = attempts
        .into_iter()
        .partition(|one| is_erased(one.sequence));
    for attempt in &late {
        record_late_attempt(tx, destination, attempt).await?;
    }
    let action = match failed {
        Some(sequence) if is_erased(sequence) => LeaseAction::Release,
        _ => action,
    };
    Ok((kept, action))
}

/// Locks the feeds that are to be pulled for fresh links before their triggers are touched,
/// in the order in which a page's commit locks them.
#[expect(
    clippy::ptr_arg,
    reason = "only a type with a size is a value of a statement"
)]
async fn lock_feeds<T: Tx>(tx: &mut T, expired: &Vec<i64>) -> Result<()> {
    static SQL: Sql = Sql::new(
        "SELECT 1 FROM feed WHERE id IN (SELECT feed_id FROM document WHERE sequence IN ({elements}($1)))
         ORDER BY id{lock_rows}",
    );
    if !expired.is_empty() {
        tx.all::<()>(&SQL, &[expired]).await?;
    }
    Ok(())
}

async fn record_attempt<T: Tx>(
    tx: &mut T,
    destination: i64,
    one: &Attempt,
    now: Timestamp,
) -> Result<()> {
    let update = DeliveryUpdate::of(&one.outcome, now);
    write_delivery(tx, destination, one.sequence, one.began_at, now, &update).await?;
    match &one.outcome {
        DeliveryOutcome::Rejected { import_error, .. } => {
            add_import_error(tx, destination, one.sequence, import_error, now).await
        }
        DeliveryOutcome::LinkExpired => {
            request_fresh_link(tx, destination, one.sequence, now).await
        }
        DeliveryOutcome::Delivered { note: Some(note) } => keep_files(tx, destination, note).await,
        DeliveryOutcome::Delivered { note: None }
        | DeliveryOutcome::Listed
        | DeliveryOutcome::Filtered => Ok(()),
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
) -> Result<()> {
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
    let (state, note, next_try_at) = (update.state, update.note, update.next_try_at);
    let (result, detail) = (update.result, update.detail);
    let params = params! { destination, sequence, state, began_at, now, next_try_at, note, detail };
    tx.run(&DELIVERY, params).await?;
    let repeated = tx
        .execute(
            &REPEATED,
            &[&destination, &sequence, &now, &result, &detail],
        )
        .await?;
    if repeated > 0 {
        return Ok(());
    }
    let params = params! { destination, sequence, began_at, now, result, detail };
    let number: i64 = tx.one(&ATTEMPT, params).await?;
    if number > MAX_ATTEMPT_ROWS {
        let old = number - MAX_ATTEMPT_ROWS;
        tx.run(&REMOVE_OLD, &[&destination, &sequence, &old])
            .await?;
    }
    Ok(())
}

/// Adds an import error for the accountant, once for each (version, text), as that of the
/// destination's last rejection. It waits before it is sent, as the rejection may be withdrawn.
async fn add_import_error<T: Tx>(
    tx: &mut T,
    destination: i64,
    sequence: i64,
    import_error: &NewImportError,
    now: Timestamp,
) -> Result<()> {
    static SQL: Sql = Sql::new(
        "INSERT INTO import_error AS r (account_id, sequence, digest, company, message, state, created_at, next_try_at,
             last_error)
         SELECT f.account_id, d.sequence, $2, $3, $4, $5, $6, $7, $8
         FROM document d JOIN feed f ON f.id = d.feed_id WHERE d.sequence = $1
         ON CONFLICT (sequence, digest) DO UPDATE SET
             next_try_at = CASE WHEN r.state = 'withdrawn' THEN excluded.next_try_at ELSE r.next_try_at END,
             state = CASE WHEN r.state = 'withdrawn' THEN excluded.state ELSE r.state END
         RETURNING id",
    );
    static LAST: Sql = Sql::new(
        "UPDATE delivery SET import_error_id = $3 WHERE destination_id = $1 AND sequence = $2",
    );
    let NewImportError { company, message } = import_error;
    let digest = digest(&SHA256, message.as_bytes());
    let due_at = now.after(IMPORT_ERROR_WAIT);
    let (state, due_at, error) = match company {
        Some(_) => (ImportErrorState::Pending, Some(due_at), None),
        None => (ImportErrorState::Refused, None, Some(NO_COMPANY)),
    };
    let params = params! { sequence, digest.as_ref(), company, message, state, now, due_at, error };
    let id: i64 = tx.one(&SQL, params).await?;
    tx.run(&LAST, &[&destination, &sequence, &id]).await
}

/// Assigns the next places in the destination's list to versions.
#[expect(
    clippy::ptr_arg,
    reason = "only a type with a size is a value of a statement"
)]
async fn assign_numbers<T: Tx>(tx: &mut T, destination: i64, listed: &Vec<i64>) -> Result<()> {
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
    let before: i64 = tx.one(&COUNT, &[&destination, &listed.len()]).await?;
    add_places(tx, destination, before).await?;
    tx.run(&ASSIGN, &[&destination, listed, &before]).await
}

/// Counts accepted and rejected versions, and ends a series of failures.
async fn record_success<T: Tx>(
    tx: &mut T,
    destination: i64,
    [delivered, rejected]: [usize; 2],
    now: Timestamp,
) -> Result<()> {
    static SQL: Sql = Sql::new(
        "UPDATE destination SET delivered = delivered + $2, rejected = rejected + $3, last_success_at = $4,
             failures = 0, failing_since = NULL, last_error = NULL, stuck_at = NULL, waits_until = NULL
         WHERE id = $1",
    );
    tx.run(&SQL, &[&destination, &delivered, &rejected, &now])
        .await
}

/// Applies an action to a lease; returns true if more attempts may begin under it.
async fn end_lease<T: Tx>(
    tx: &mut T,
    destination: i64,
    action: &LeaseAction,
    now: Timestamp,
) -> Result<bool> {
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
        LeaseAction::Keep(lease) => tx.one(&KEEP, &[&destination, &now.after(*lease)]).await,
        LeaseAction::Release => {
            tx.run(&RELEASE, &[&destination]).await?;
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
            let state: DeliveryState = tx.one(&STATE, &[&destination, sequence]).await?;
            // A person may have skipped the version while it was being delivered.
            if state == DeliveryState::Skipped {
                tx.run(&RELEASE, &[&destination]).await?;
            } else {
                tx.run(&WAIT, &[&destination, &now, error, sequence, until])
                    .await?;
            }
            Ok(false)
        }
    }
}

async fn record_outcome<T: Tx>(
    tx: &mut T,
    destination: DestinationName,
    sequence: i64,
    outcome: LateOutcome,
    now: Timestamp,
) -> Result<bool> {
    static FIND: Sql = Sql::new(
        "SELECT state, detail FROM delivery
         WHERE destination_id = $1 AND sequence = $2 AND state IN ('listed', 'delivered', 'rejected')
           AND NOT EXISTS (SELECT 1 FROM document d WHERE d.sequence = $2 AND d.erased_at IS NOT NULL)",
    );
    static COUNT: Sql = Sql::new(
        "UPDATE destination SET delivered = delivered + $2, rejected = rejected + $3 WHERE id = $1",
    );
    let now = tx.now_or(now);
    let Some(destination) = destinations::lock(tx, &destination).await? else {
        return Ok(false);
    };
    let found: Option<(String, Option<String>)> =
        tx.first(&FIND, &[&destination, &sequence]).await?;
    let Some((state, detail)) = found else {
        return Ok(false);
    };
    let delivered = i64::from(matches!(outcome, LateOutcome::Delivered));
    let outcome = DeliveryOutcome::from(outcome);
    let update = DeliveryUpdate::of(&outcome, now);
    if state == update.state && detail.as_deref() == update.detail {
        return Ok(true);
    }
    let attempt = Attempt {
        sequence,
        began_at: now,
        outcome,
    };
    record_attempt(tx, destination, &attempt, now).await?;
    tx.run(&COUNT, &[&destination, &delivered, &(1 - delivered)])
        .await?;
    Ok(true)
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

impl From<LateOutcome> for DeliveryOutcome {
    fn from(outcome: LateOutcome) -> Self {
        match outcome {
            LateOutcome::Delivered => Self::Delivered { note: None },
            LateOutcome::Rejected {
                message,
                import_error,
            } => Self::Rejected {
                message,
                import_error,
            },
        }
    }
}
