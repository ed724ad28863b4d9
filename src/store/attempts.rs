//! Attempts to deliver versions, and the outcomes that destinations report later.

use std::collections::{BTreeMap, HashSet};

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::future::{try_join, try_join3};

use super::Store;
use super::deliveries::{
    Attempt, DEFERRED_RETRY, DeliveryLease, DeliveryOutcome, DeliveryState, LINK_TIMEOUT,
    LateOutcome, LeaseAction,
};
use super::delivery_counts::{Counted, DestinationState, Version, lock_as_owner};
use super::destinations;
use super::engine::{Fragment, Sql, Tx, operations, params};
use super::erasure::{keep_files, record_late_attempt};
use super::error::Result;
use super::import_errors::{IMPORT_ERROR_WAIT, ImportErrorState, NewImportError, lock_paths};
use super::links::request_fresh_link;
use super::list_places::add_places;
use crate::backoff;
use crate::domain::{DestinationName, Timestamp};

/// Maximum number of attempt rows per delivery; the first is kept, then the newest.
const MAX_ATTEMPT_ROWS: i64 = 50;

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
    /// [`StoreError::StaleLease`](super::StoreError::StaleLease) if another worker has leased the
    /// destination since; nothing is recorded then.
    pub async fn settle_deliveries(
        &self,
        lease: DeliveryLease,
        attempts: Vec<Attempt>,
        action: LeaseAction,
        now: Timestamp,
    ) -> Result<bool> {
        let asks_for_links = asks_for_links(&attempts);
        let may_continue = self.settle(lease, attempts, action, now).await?;
        if asks_for_links {
            self.wake_pullers();
        }
        Ok(may_continue)
    }
}

/// Returns true if pullers have something to do once these attempts are recorded.
pub(super) fn asks_for_links(attempts: &[Attempt]) -> bool {
    let mut outcomes = attempts.iter().map(|one| &one.outcome);
    outcomes.any(|outcome| matches!(outcome, DeliveryOutcome::LinkExpired))
}

async fn settle<T: Tx>(
    tx: &T,
    lease: DeliveryLease,
    attempts: Vec<Attempt>,
    action: LeaseAction,
    now: Timestamp,
) -> Result<bool> {
    let (now, id) = (tx.now_or(now), lease.destination_id);
    // The destination is locked when the other runs.
    let (state, versions) = try_join(
        lock_as_owner(tx, &lease),
        attempted_versions(tx, id, &attempts),
    )
    .await?;
    record(tx, id, state, attempts, &versions, now).await?;
    end_lease(tx, id, &action, now).await
}

/// Records attempts at a locked destination; returns its state after them.
///
/// Rows are changed in the order of the table's names here: deliveries, lanes, the destination.
pub(super) async fn record<T: Tx>(
    tx: &T,
    destination: i64,
    state: DestinationState,
    mut attempts: Vec<Attempt>,
    versions: &BTreeMap<i64, Version>,
    now: Timestamp,
) -> Result<DestinationState> {
    let mut late = Vec::new();
    attempts.retain(|one| match versions.get(&one.sequence) {
        // It is recorded already; the worker did not get the store's answer.
        Some(version) if version.has_ended_as(&one.outcome) => false,
        Some(version) if !version.is_erased => true,
        _ => {
            late.push(one.clone());
            false
        }
    });
    for attempt in &late {
        record_late_attempt(tx, destination, attempt).await?;
    }
    if attempts.is_empty() {
        return Ok(state);
    }
    record_all(tx, destination, state, &attempts, versions, now).await
}

/// Returns the versions of attempts by their sequence numbers.
pub(super) async fn attempted_versions<T: Tx>(
    tx: &T,
    destination: i64,
    attempts: &[Attempt],
) -> Result<BTreeMap<i64, Version>> {
    static SQL: Sql = Sql::new(
        "SELECT d.sequence, d.feed_id, d.document_id, d.erased_at IS NOT NULL, d.superseded, h.state,
                coalesce(h.failures, 0), h.next_try_at IS NOT NULL, h.failing_since, h.changed_at, s.last_answer_at
         FROM document d {then_join} destination s ON s.id = $1
         {with_delivery}
         WHERE d.sequence IN ({elements}($2))",
    );
    let sequences: Vec<i64> = attempts.iter().map(|one| one.sequence).collect();
    if sequences.is_empty() {
        return Ok(BTreeMap::new());
    }
    let versions: Vec<Version> = tx.all(&SQL, &[&destination, &sequences]).await?;
    Ok(versions
        .into_iter()
        .map(|one| (one.sequence, one))
        .collect())
}

async fn record_all<T: Tx>(
    tx: &T,
    destination: i64,
    state: DestinationState,
    attempts: &[Attempt],
    versions: &BTreeMap<i64, Version>,
    now: Timestamp,
) -> Result<DestinationState> {
    let of = |is: fn(&DeliveryOutcome) -> bool| -> Vec<i64> {
        let these = attempts.iter().filter(|one| is(&one.outcome));
        these.map(|one| one.sequence).collect()
    };
    let expired = of(|outcome| matches!(outcome, DeliveryOutcome::LinkExpired));
    let listed = of(|outcome| matches!(outcome, DeliveryOutcome::Listed));
    lock_feeds(tx, &expired).await?;
    lock_paths_of_rejected(tx, attempts).await?;
    // Pages change deliveries in this order too.
    let mut sorted: Vec<&Attempt> = attempts.iter().collect();
    sorted.sort_by_key(|one| one.sequence);
    let mut seen = HashSet::new();
    let (first, others): (Vec<&Attempt>, Vec<&Attempt>) = sorted.into_iter().partition(|one| {
        let version = versions.get(&one.sequence);
        is_final(&one.outcome)
            && version.is_some_and(|version| version.state.is_none())
            && seen.insert(one.sequence)
    });
    let recorded = record_first(tx, destination, &first, now);
    let counted = Counted::read(tx, destination, state, versions, now);
    let mut counted = match others.as_slice() {
        [] => try_join(recorded, counted).await?.1,
        others => {
            recorded.await?;
            for one in others {
                record_attempt(tx, destination, one, versions.get(&one.sequence), now).await?;
            }
            counted.await?
        }
    };
    // The deliveries of the listed versions were just written, so this locks no other rows.
    assign_numbers(tx, destination, &listed).await?;
    for one in attempts {
        if let Some(version) = versions.get(&one.sequence) {
            counted.count(version, &one.outcome);
        }
    }
    counted.write(tx).await
}

/// Locks the feeds that are to be pulled for fresh links before their triggers are touched,
/// in the order in which a page's commit locks them.
#[expect(
    clippy::ptr_arg,
    reason = "only a type with a size is a value of a statement"
)]
async fn lock_feeds<T: Tx>(tx: &T, expired: &Vec<i64>) -> Result<()> {
    static SQL: Sql = Sql::new(
        "SELECT 1 FROM feed WHERE id IN (SELECT feed_id FROM document WHERE sequence IN ({elements}($1)))
         ORDER BY id{lock_rows}",
    );
    if !expired.is_empty() {
        tx.all::<()>(&SQL, &[expired]).await?;
    }
    Ok(())
}

/// Returns true for outcomes after which a version is never tried again by itself, and which concern
/// nothing but its own rows.
fn is_final(outcome: &DeliveryOutcome) -> bool {
    matches!(
        outcome,
        DeliveryOutcome::Delivered { .. }
            | DeliveryOutcome::Listed
            | DeliveryOutcome::Filtered { .. }
    )
}

/// Records the outcomes of versions that have no rows yet, all together: most versions are accepted at
/// once.
async fn record_first<T: Tx>(
    tx: &T,
    destination: i64,
    first: &[&Attempt],
    now: Timestamp,
) -> Result<()> {
    /// Their sequence numbers $3, states $4, results $5, beginnings $6, notes $7 and details $8.
    const FIRST: Fragment = Fragment::Differs(
        "(SELECT value AS sequence, $4 ->> key AS state, $5 ->> key AS result, $6 ->> key AS began_at,
                 $7 ->> key AS note, $8 ->> key AS detail FROM json_each($3)) AS v",
        "unnest($3, $4, $5, $6, $7, $8) AS v (sequence, state, result, began_at, note, detail)",
    );
    static DELIVERIES: Sql = Sql::with(
        "INSERT INTO delivery (destination_id, sequence, state, began_at, changed_at, note, detail)
         SELECT $1, v.sequence, v.state, v.began_at, $2, v.note, v.detail FROM {first}",
        &[("first", FIRST)],
    );
    static ATTEMPTS: Sql = Sql::with(
        "INSERT INTO delivery_attempt (destination_id, sequence, number, began_at, ended_at, result, detail, times)
         SELECT $1, v.sequence, 1, v.began_at, $2, v.result, v.detail, 1 FROM {first} WHERE v.result <> ''",
        &[("first", FIRST)],
    );
    if first.is_empty() {
        return Ok(());
    }
    let updates: Vec<DeliveryUpdate<'_>> = first
        .iter()
        .map(|one| DeliveryUpdate::of(&one.outcome, now))
        .collect();
    let sequences: Vec<i64> = first.iter().map(|one| one.sequence).collect();
    let states: Vec<&str> = updates.iter().map(|update| update.state).collect();
    let results: Vec<&str> = updates
        .iter()
        .map(|update| if update.is_attempt { update.result } else { "" })
        .collect();
    // The worker's clock may be ahead of the database's.
    let begun: Vec<Timestamp> = first.iter().map(|one| one.began_at.min(now)).collect();
    let notes: Vec<Option<&str>> = updates.iter().map(|update| update.note).collect();
    let details: Vec<Option<&str>> = updates.iter().map(|update| update.detail).collect();
    let params = params! {
        destination, now, sequences, states, results, begun, notes, details,
    };
    let written: Vec<&str> = notes.iter().flatten().copied().collect();
    let written = written.join("\n");
    try_join3(
        tx.run(&DELIVERIES, params),
        tx.run(&ATTEMPTS, params),
        keep_files(tx, destination, &written),
    )
    .await?;
    Ok(())
}

/// Locks the paths of the accounts whose documents were rejected, before their import errors.
async fn lock_paths_of_rejected<T: Tx>(tx: &T, attempts: &[Attempt]) -> Result<()> {
    static SQL: Sql = Sql::new(
        "SELECT DISTINCT f.account_id FROM document d {then_join} feed f ON f.id = d.feed_id
         WHERE d.sequence IN ({elements}($1))",
    );
    let rejected = attempts
        .iter()
        .filter(|one| matches!(one.outcome, DeliveryOutcome::Rejected { .. }));
    let rejected: Vec<i64> = rejected.map(|one| one.sequence).collect();
    if rejected.is_empty() {
        return Ok(());
    }
    let accounts: Vec<i64> = tx.all(&SQL, &[&rejected]).await?;
    lock_paths(tx, &accounts).await
}

async fn record_attempt<T: Tx>(
    tx: &T,
    destination: i64,
    one: &Attempt,
    version: Option<&Version>,
    now: Timestamp,
) -> Result<()> {
    let mut update = DeliveryUpdate::of(&one.outcome, now);
    if let Some(version) = version.filter(|_| update.is_failure) {
        if version.is_deferred_at(now) {
            update.state = DeliveryState::Deferred.as_str();
            update.next_try_at = Some(now.after(DEFERRED_RETRY));
        } else if version.is_apart {
            let wait = backoff::DELIVERY.delay(version.failures, backoff::jitter());
            update.next_try_at = Some(now.after(wait));
        }
    }
    // A newer version was stored while it was being delivered.
    let is_open = update.is_failure
        || matches!(
            one.outcome,
            DeliveryOutcome::Rejected { .. } | DeliveryOutcome::LinkExpired
        );
    if is_open && version.is_some_and(|version| version.is_superseded) {
        update.state = DeliveryState::Superseded.as_str();
        update.next_try_at = None;
    }
    write_delivery(tx, destination, one.sequence, one.began_at, now, &update).await?;
    match &one.outcome {
        DeliveryOutcome::Rejected { import_error, .. } => {
            add_import_error(tx, destination, one.sequence, import_error, now).await
        }
        // The newer version has a link of its own.
        DeliveryOutcome::LinkExpired if version.is_some_and(|version| version.is_superseded) => {
            Ok(())
        }
        DeliveryOutcome::LinkExpired => {
            request_fresh_link(tx, destination, one.sequence, now).await
        }
        DeliveryOutcome::Delivered { note: Some(note) } => keep_files(tx, destination, note).await,
        DeliveryOutcome::Delivered { note: None }
        | DeliveryOutcome::Listed
        | DeliveryOutcome::Filtered { .. }
        | DeliveryOutcome::Unavailable { .. }
        | DeliveryOutcome::Closed { .. } => Ok(()),
    }
}

/// Sets the state of a delivery, and adds its attempt.
async fn write_delivery<T: Tx>(
    tx: &T,
    destination: i64,
    sequence: i64,
    began_at: Timestamp,
    now: Timestamp,
    update: &DeliveryUpdate<'_>,
) -> Result<()> {
    static DELIVERY: Sql = Sql::new(
        "INSERT INTO delivery AS h (destination_id, sequence, state, began_at, changed_at, next_try_at, note, detail,
             failures, failing_since)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, CASE WHEN $9 THEN 1 ELSE 0 END, CASE WHEN $9 THEN $5 END)
         ON CONFLICT (destination_id, sequence) DO UPDATE SET
             state = CASE WHEN h.state IN ('skipped', 'superseded') AND excluded.state IN ('pending', 'deferred', 'waiting_file')
                          THEN h.state ELSE excluded.state END,
             changed_at = excluded.changed_at,
             next_try_at = CASE WHEN h.state IN ('skipped', 'superseded') THEN NULL ELSE excluded.next_try_at END,
             failures = CASE WHEN $9 THEN h.failures + 1 ELSE 0 END,
             failing_since = CASE WHEN $9 THEN {least}(coalesce(h.failing_since, excluded.failing_since), excluded.failing_since) END,
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
    let (result, detail, is_failure) = (update.result, update.detail, update.is_failure);
    let params = params! {
        destination, sequence, state, began_at, now, next_try_at, note, detail, is_failure,
    };
    tx.run(&DELIVERY, params).await?;
    if !update.is_attempt {
        return Ok(());
    }
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
    tx: &T,
    destination: i64,
    sequence: i64,
    import_error: &NewImportError,
    now: Timestamp,
) -> Result<()> {
    static SQL: Sql = Sql::new(
        "INSERT INTO import_error AS r (account_id, sequence, digest, company, message, state, created_at, next_try_at,
             last_error, ended_at)
         SELECT f.account_id, d.sequence, $2, $3, $4, $5, $6, $7, $8, $9
         FROM document d JOIN feed f ON f.id = d.feed_id WHERE d.sequence = $1
         ON CONFLICT (sequence, digest) DO UPDATE SET
             next_try_at = CASE WHEN r.state = 'withdrawn' THEN excluded.next_try_at ELSE r.next_try_at END,
             ended_at = CASE WHEN r.state = 'withdrawn' THEN NULL ELSE r.ended_at END,
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
    let ended_at = error.map(|_| now);
    let params = params! {
        sequence, digest.as_ref(), company, message, state, now, due_at, error, ended_at,
    };
    let id: i64 = tx.one(&SQL, params).await?;
    tx.run(&LAST, &[&destination, &sequence, &id]).await
}

/// Assigns the next places in the destination's list to versions.
#[expect(
    clippy::ptr_arg,
    reason = "only a type with a size is a value of a statement"
)]
async fn assign_numbers<T: Tx>(tx: &T, destination: i64, listed: &Vec<i64>) -> Result<()> {
    static COUNT: Sql = Sql::new(
        "UPDATE destination SET last_number = last_number + $2 WHERE id = $1 RETURNING last_number - $2",
    );
    static ASSIGN: Sql = Sql::new(
        "WITH listed (sequence) AS ({elements}($2))
         UPDATE delivery AS h SET number = $3 + entry.place
         FROM (SELECT sequence, row_number() OVER (ORDER BY sequence) AS place FROM listed) AS entry
         WHERE h.destination_id = $1 AND h.sequence = entry.sequence",
    );
    if listed.is_empty() {
        return Ok(());
    }
    let before: i64 = tx.one(&COUNT, &[&destination, &listed.len()]).await?;
    add_places(tx, destination, before).await?;
    tx.run(&ASSIGN, &[&destination, listed, &before]).await
}

/// Applies an action to a lease; returns true if more attempts may begin under it.
pub(super) async fn end_lease<T: Tx>(
    tx: &T,
    destination: i64,
    action: &LeaseAction,
    now: Timestamp,
) -> Result<bool> {
    static KEEP: Sql = Sql::new(
        "UPDATE destination SET leased_at = $2, leased_until = $3 WHERE id = $1
         RETURNING paused IS NULL",
    );
    static RELEASE: Sql = Sql::new("UPDATE destination SET leased_until = NULL WHERE id = $1");
    match action {
        LeaseAction::Keep(lease) => {
            let until = now.after(*lease);
            tx.one(&KEEP, &[&destination, &now, &until]).await
        }
        LeaseAction::Release => {
            tx.run(&RELEASE, &[&destination]).await?;
            Ok(false)
        }
    }
}

async fn record_outcome<T: Tx>(
    tx: &T,
    destination: DestinationName,
    sequence: i64,
    outcome: LateOutcome,
    now: Timestamp,
) -> Result<bool> {
    static FIND: Sql = Sql::new(
        "SELECT state, detail FROM delivery
         WHERE destination_id = $1 AND sequence = $2 AND (number IS NOT NULL OR state IN ('delivered', 'rejected'))
           AND NOT EXISTS (SELECT 1 FROM document d WHERE d.sequence = $2 AND d.erased_at IS NOT NULL)",
    );
    static COUNT: Sql = Sql::new(
        "UPDATE destination SET delivered = delivered + $2, rejected = rejected + $3,
             last_success_at = CASE WHEN $2 > 0 THEN $4 ELSE last_success_at END WHERE id = $1",
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
    record_attempt(tx, destination, &attempt, None, now).await?;
    tx.run(&COUNT, &[&destination, &delivered, &(1 - delivered), &now])
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
    is_failure: bool,
    /// False if the destination was not asked.
    is_attempt: bool,
}

impl<'a> DeliveryUpdate<'a> {
    fn plain(state: DeliveryState) -> Self {
        Self {
            state: state.as_str(),
            result: state.as_str(),
            note: None,
            detail: None,
            next_try_at: None,
            is_failure: false,
            is_attempt: true,
        }
    }

    /// Returns the columns of an outcome.
    fn of(outcome: &'a DeliveryOutcome, now: Timestamp) -> Self {
        let failed = |result, error| Self {
            result,
            detail: Some(error),
            is_failure: true,
            ..Self::plain(DeliveryState::Pending)
        };
        match outcome {
            DeliveryOutcome::Delivered { note } => Self {
                note: note.as_deref(),
                ..Self::plain(DeliveryState::Delivered)
            },
            DeliveryOutcome::Rejected { message, .. } => Self {
                detail: Some(message),
                ..Self::plain(DeliveryState::Rejected)
            },
            DeliveryOutcome::Listed => Self {
                result: "listed",
                ..Self::plain(DeliveryState::Pending)
            },
            DeliveryOutcome::Filtered { reason } => Self {
                detail: Some(reason),
                is_attempt: false,
                ..Self::plain(DeliveryState::Skipped)
            },
            // Sooner, once a pull has brought a fresh link.
            DeliveryOutcome::LinkExpired => Self {
                result: "link_expired",
                next_try_at: Some(now.after(LINK_TIMEOUT)),
                ..Self::plain(DeliveryState::WaitingFile)
            },
            DeliveryOutcome::Unavailable { error, .. } => failed("unavailable", error),
            DeliveryOutcome::Closed { error } => failed("closed", error),
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
