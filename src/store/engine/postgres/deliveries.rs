//! Leasing versions for delivery, and recording the attempts.
//!
//! Leasing, settling and changing a destination lock its row first, then the rows that
//! belong to it, then rows of feeds.

use super::connection::{Pool, Transaction};
use super::delivery_rows::{DELIVERY_COLUMNS, account_names, company_codes, read_delivery};
use super::destinations;
use super::rows::{self, escape_nul};
use crate::domain::{Company, Timestamp};
use crate::store::deliveries::{
    LEASE_WINDOW, LINK_TIMEOUT, MAX_ATTEMPT_ROWS, NO_COMPANY, NO_MORE_LINKS,
};
use crate::store::links::request_fresh_link;
use crate::store::outcomes::DeliveryUpdate;
use crate::store::{
    Attempt, Delivery, DeliveryLease, DeliveryLeaseRequest, DeliveryLeased, DeliveryOutcome,
    LateOutcome, LeaseAction, NewImportError, StoreError,
};
use aws_lc_rs::digest::{SHA256, digest};

/// Unsettled versions in a window after the position (`$2` to `$3`) of a destination (`$1`).
const UNSETTLED: &str = "
    FROM document d
    JOIN destination_feed s ON s.destination_id = $1 AND s.feed_id = d.feed_id
    JOIN feed f ON f.id = d.feed_id
    JOIN account a ON a.id = f.account_id
    LEFT JOIN delivery h ON h.destination_id = $1 AND h.sequence = d.sequence
    LEFT JOIN document_link l ON l.sequence = d.sequence
    LEFT JOIN fresh_link_request w ON w.feed_id = d.feed_id
    WHERE d.sequence > $2 AND d.sequence <= $3
      AND NOT d.superseded AND d.body IS NOT NULL
      AND (s.everything
           OR (d.sequence > s.after_sequence AND (NOT d.first_pull OR coalesce(d.version_ms >= s.started_at, false)))
           OR coalesce(coalesce(d.version_ms, d.stored_at) >= s.since_ms, false))
      AND (h.sequence IS NULL OR h.state = 'pending')
      AND f.queue = $4
      AND (cardinality($5) = 0 OR a.name = ANY ($5))
      AND (cardinality($6) = 0 OR f.queue = 'digitized' OR f.company = ANY ($6))";

/// Restricts them to those that are ready at `$7`. `$8` is true if files are fetched; feeds
/// whose fresh links were requested before `$9` are not waited for any more.
const READY: &str = "
      AND (h.next_try_at IS NULL OR h.next_try_at <= $7 OR coalesce(l.listed_at >= h.changed_at, false))
      AND (NOT $8 OR w.requested_at IS NULL OR w.requested_at <= $9 OR coalesce(l.listed_at >= w.requested_at, false))";

/// The columns of a destination that leasing needs.
struct DestinationCandidate {
    id: i64,
    position: i64,
    failures: u32,
    paused: bool,
    waits_until: Option<Timestamp>,
    leased_until: Option<Timestamp>,
}

/// Leases a destination with the next versions for it.
pub(super) async fn lease(
    pool: &Pool,
    request: &DeliveryLeaseRequest,
) -> Result<DeliveryLeased, StoreError> {
    let transaction = pool.write().await?;
    let leased = choose(&transaction, request).await?;
    transaction.commit().await?;
    Ok(leased)
}

async fn choose(
    transaction: &Transaction<'_>,
    request: &DeliveryLeaseRequest,
) -> Result<DeliveryLeased, StoreError> {
    let now = transaction.now();
    let Some(destination) = lock_candidate(transaction, request).await? else {
        return Ok(DeliveryLeased::Nothing { until: None });
    };
    if destination.paused {
        return Ok(DeliveryLeased::Nothing { until: None });
    }
    let busy = [destination.waits_until, destination.leased_until]
        .into_iter()
        .flatten();
    if let Some(until) = busy.filter(|until| *until > now).max() {
        return Ok(DeliveryLeased::Nothing { until: Some(until) });
    }
    // The counter is read first: what it has counted is committed and visible below.
    let row = transaction
        .query_one("SELECT epoch, last FROM sequence", &[])
        .await?;
    let (epoch, last): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
    let end = last.min(destination.position.saturating_add(LEASE_WINDOW));
    let first = first_unsettled(transaction, request, &destination, end).await?;
    let position = first.map_or(end, |first| first - 1);
    if position > destination.position {
        destinations::set_position(transaction, destination.id, position).await?;
    }
    let deliveries = match first {
        Some(_) => ready(transaction, request, &destination, end, &epoch).await?,
        None => Vec::new(),
    };
    if deliveries.is_empty() {
        let all_settled = first.is_none();
        if (all_settled && end < last)
            || destinations::start_automatically(transaction, destination.id, request).await?
        {
            return Ok(DeliveryLeased::Advanced);
        }
        return Ok(DeliveryLeased::Nothing {
            until: ready_at(transaction, request, &destination, end).await?,
        });
    }
    let row = transaction
        .query_one(
            "UPDATE destination SET fence = fence + 1, leased_until = $2 WHERE id = $1 RETURNING fence",
            &[&destination.id, &now.after(request.lease).as_millis()],
        )
        .await?;
    Ok(DeliveryLeased::Batch(DeliveryLease {
        destination_id: destination.id,
        destination: request.destination.clone(),
        fence: row.try_get(0)?,
        failures: destination.failures,
        deliveries,
    }))
}

/// Locks the destination's row; `None` also if another replica has locked it.
async fn lock_candidate(
    transaction: &Transaction<'_>,
    request: &DeliveryLeaseRequest,
) -> Result<Option<DestinationCandidate>, StoreError> {
    let row = transaction
        .query_opt(
            "SELECT id, position, failures, paused IS NOT NULL, waits_until, leased_until FROM destination
             WHERE name = $1 FOR NO KEY UPDATE SKIP LOCKED",
            &[&request.destination.as_str()],
        )
        .await?;
    row.map(|row| {
        Ok(DestinationCandidate {
            id: row.try_get(0)?,
            position: row.try_get(1)?,
            failures: rows::count(&row, 2)?,
            paused: row.try_get(3)?,
            waits_until: rows::optional_timestamp(&row, 4)?,
            leased_until: rows::optional_timestamp(&row, 5)?,
        })
    })
    .transpose()
}

async fn first_unsettled(
    transaction: &Transaction<'_>,
    request: &DeliveryLeaseRequest,
    destination: &DestinationCandidate,
    end: i64,
) -> Result<Option<i64>, StoreError> {
    let row = transaction
        .query_opt(
            &format!("SELECT d.sequence {UNSETTLED} ORDER BY d.sequence LIMIT 1"),
            &[
                &destination.id,
                &destination.position,
                &end,
                &request.filter.queue.as_str(),
                &account_names(&request.filter),
                &company_codes(&request.filter),
            ],
        )
        .await?;
    row.map(|row| Ok(row.try_get(0)?)).transpose()
}

async fn ready(
    transaction: &Transaction<'_>,
    request: &DeliveryLeaseRequest,
    destination: &DestinationCandidate,
    end: i64,
    epoch: &str,
) -> Result<Vec<Delivery>, StoreError> {
    let sql = format!(
        "SELECT * FROM (
             SELECT chosen.*, sum(octet_length(body)) OVER (ORDER BY sequence) - octet_length(body) AS before,
                    (SELECT n.note FROM document e JOIN delivery n ON n.sequence = e.sequence AND n.destination_id = $1
                     WHERE e.document_id = chosen.document_id AND e.feed_id = chosen.feed_id AND n.note IS NOT NULL
                     ORDER BY n.sequence DESC LIMIT 1) AS earlier_note
             FROM (SELECT {DELIVERY_COLUMNS}, d.feed_id, coalesce(w.requested_at <= $9, false) AS without_file {UNSETTLED} {READY}
                   ORDER BY d.sequence LIMIT $10) AS chosen) AS weighed
         WHERE before < $11 ORDER BY sequence"
    );
    let rows = transaction
        .query(
            &sql,
            &[
                &destination.id,
                &destination.position,
                &end,
                &request.filter.queue.as_str(),
                &account_names(&request.filter),
                &company_codes(&request.filter),
                &transaction.now().as_millis(),
                &request.files,
                &transaction.now().before(LINK_TIMEOUT).as_millis(),
                &i64::try_from(request.limit).unwrap_or(i64::MAX),
                &i64::try_from(request.limit_bytes).unwrap_or(i64::MAX),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let (delivery, without_file) = (read_delivery(row, epoch)?, row.try_get(12)?);
            Ok(Delivery {
                earlier_note: rows::optional_text(row, 14)?,
                link_tries: if without_file {
                    NO_MORE_LINKS
                } else {
                    delivery.link_tries
                },
                ..delivery
            })
        })
        .collect()
}

async fn ready_at(
    transaction: &Transaction<'_>,
    request: &DeliveryLeaseRequest,
    destination: &DestinationCandidate,
    end: i64,
) -> Result<Option<Timestamp>, StoreError> {
    let row = transaction
        .query_one(
            &format!("SELECT min(h.next_try_at) {UNSETTLED} AND h.next_try_at > $7"),
            &[
                &destination.id,
                &destination.position,
                &end,
                &request.filter.queue.as_str(),
                &account_names(&request.filter),
                &company_codes(&request.filter),
                &transaction.now().as_millis(),
            ],
        )
        .await?;
    rows::optional_timestamp(&row, 0)
}

/// Records attempts, and applies `action` to the lease.
pub(super) async fn settle(
    pool: &Pool,
    lease: &DeliveryLease,
    attempts: &[Attempt],
    action: &LeaseAction,
) -> Result<bool, StoreError> {
    let mut transaction = pool.write().await?;
    let owned = transaction
        .query_opt(
            "SELECT 1 FROM destination WHERE id = $1 AND fence = $2 FOR NO KEY UPDATE",
            &[&lease.destination_id, &lease.fence],
        )
        .await?;
    if owned.is_none() {
        transaction.roll_back().await?;
        return Err(StoreError::StaleLease);
    }
    lock_feeds_to_read(&transaction, attempts).await?;
    for one in attempts {
        record_attempt(&transaction, lease.destination_id, one).await?;
        if matches!(one.outcome, DeliveryOutcome::LinkExpired) {
            let now = transaction.now();
            request_fresh_link(&mut transaction, lease.destination_id, one.sequence, now).await?;
        }
    }
    let may_continue = finish_lease(&transaction, lease.destination_id, attempts, action).await?;
    transaction.commit().await?;
    Ok(may_continue)
}

/// Locks the feeds that are to be pulled for fresh links before their triggers are touched,
/// in the order in which a page's commit locks them.
async fn lock_feeds_to_read(
    transaction: &Transaction<'_>,
    attempts: &[Attempt],
) -> Result<(), StoreError> {
    let expired: Vec<i64> = attempts
        .iter()
        .filter(|one| matches!(one.outcome, DeliveryOutcome::LinkExpired))
        .map(|one| one.sequence)
        .collect();
    if expired.is_empty() {
        return Ok(());
    }
    transaction
        .query(
            "SELECT 1 FROM feed WHERE id IN (SELECT feed_id FROM document WHERE sequence = ANY ($1))
             ORDER BY id FOR NO KEY UPDATE",
            &[&expired],
        )
        .await?;
    Ok(())
}

async fn record_attempt(
    transaction: &Transaction<'_>,
    destination: i64,
    one: &Attempt,
) -> Result<(), StoreError> {
    let outcome = DeliveryUpdate::of(&one.outcome, transaction.now());
    write_delivery(
        transaction,
        destination,
        one.sequence,
        one.began_at,
        &outcome,
    )
    .await?;
    match &one.outcome {
        DeliveryOutcome::Rejected { import_error, .. } => {
            write_import_error(transaction, one.sequence, import_error).await
        }
        DeliveryOutcome::Listed => {
            destinations::assign_number(transaction, destination, one.sequence).await
        }
        DeliveryOutcome::Delivered { .. }
        | DeliveryOutcome::Filtered
        | DeliveryOutcome::LinkExpired => Ok(()),
    }
}

async fn write_delivery(
    transaction: &Transaction<'_>,
    destination: i64,
    sequence: i64,
    began_at: Timestamp,
    outcome: &DeliveryUpdate<'_>,
) -> Result<(), StoreError> {
    // The worker's clock may be ahead of the database's.
    let began_at = began_at.min(transaction.now()).as_millis();
    let now = transaction.now().as_millis();
    let detail = outcome.detail.map(escape_nul);
    transaction
        .execute(
            "INSERT INTO delivery (destination_id, sequence, state, began_at, changed_at, next_try_at, note, detail)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (destination_id, sequence) DO UPDATE SET
                 state = CASE WHEN delivery.state = 'skipped' AND excluded.state = 'pending' THEN 'skipped' ELSE excluded.state END,
                 changed_at = excluded.changed_at,
                 next_try_at = excluded.next_try_at, note = coalesce(excluded.note, delivery.note),
                 detail = excluded.detail",
            &[
                &destination,
                &sequence,
                &outcome.state,
                &began_at,
                &now,
                &outcome.next_try_at.map(Timestamp::as_millis),
                &outcome.note.map(escape_nul),
                &detail,
            ],
        )
        .await?;
    // An attempt with the same result as the last one is counted in its row.
    let repeated = transaction
        .execute(
            "UPDATE delivery_attempt SET ended_at = $3, times = times + 1
             WHERE destination_id = $1 AND sequence = $2 AND result = $4 AND detail IS NOT DISTINCT FROM $5
               AND number = (SELECT max(number) FROM delivery_attempt WHERE destination_id = $1 AND sequence = $2)",
            &[&destination, &sequence, &now, &outcome.result, &detail],
        )
        .await?;
    if repeated > 0 {
        return Ok(());
    }
    transaction
        .execute(
            "WITH newest AS (
                 INSERT INTO delivery_attempt (destination_id, sequence, number, began_at, ended_at, result, detail, times)
                 SELECT $1, $2, coalesce(max(number), 0) + 1, $3, $4, $5, $6, 1
                 FROM delivery_attempt WHERE destination_id = $1 AND sequence = $2
                 RETURNING number)
             DELETE FROM delivery_attempt old USING newest
             WHERE old.destination_id = $1 AND old.sequence = $2 AND old.number > 1 AND old.number <= newest.number - $7",
            &[
                &destination,
                &sequence,
                &began_at,
                &now,
                &outcome.result,
                &detail,
                &MAX_ATTEMPT_ROWS,
            ],
        )
        .await?;
    Ok(())
}

/// Stores an import error for the accountant, once for each (version, text).
async fn write_import_error(
    transaction: &Transaction<'_>,
    sequence: i64,
    import_error: &NewImportError,
) -> Result<(), StoreError> {
    let company = import_error.company.as_ref().map(Company::as_str);
    let can_be_sent = company.is_some();
    let now = transaction.now().as_millis();
    transaction
        .execute(
            "INSERT INTO import_error (account_id, sequence, digest, company, message, state, created_at, next_try_at, last_error)
             SELECT f.account_id, d.sequence, $2, $3, $4, $5, $6, $7, $8
             FROM document d JOIN feed f ON f.id = d.feed_id WHERE d.sequence = $1
             ON CONFLICT (sequence, digest) DO NOTHING",
            &[
                &sequence,
                &digest(&SHA256, import_error.message.as_bytes()).as_ref(),
                &company,
                &escape_nul(&import_error.message),
                &if can_be_sent { "pending" } else { "refused" },
                &now,
                &can_be_sent.then_some(now),
                &(!can_be_sent).then_some(NO_COMPANY),
            ],
        )
        .await?;
    Ok(())
}

async fn finish_lease(
    transaction: &Transaction<'_>,
    destination: i64,
    attempts: &[Attempt],
    action: &LeaseAction,
) -> Result<bool, StoreError> {
    let now = transaction.now();
    let count = |is: fn(&DeliveryOutcome) -> bool| {
        let count = attempts.iter().filter(|one| is(&one.outcome)).count();
        i64::try_from(count).unwrap_or(i64::MAX)
    };
    let delivered = count(|outcome| matches!(outcome, DeliveryOutcome::Delivered { .. }));
    let rejected = count(|outcome| matches!(outcome, DeliveryOutcome::Rejected { .. }));
    if count(|outcome| !matches!(outcome, DeliveryOutcome::LinkExpired)) > 0 {
        transaction
            .execute(
                "UPDATE destination SET delivered = delivered + $2, rejected = rejected + $3, last_success_at = $4,
                     failures = 0, failing_since = NULL, last_error = NULL, stuck_at = NULL, waits_until = NULL
                 WHERE id = $1",
                &[&destination, &delivered, &rejected, &now.as_millis()],
            )
            .await?;
    }
    match action {
        LeaseAction::Keep(lease) => {
            let row = transaction
                .query_one(
                    "UPDATE destination SET leased_until = $2 WHERE id = $1 RETURNING paused IS NULL",
                    &[&destination, &now.after(*lease).as_millis()],
                )
                .await?;
            Ok(row.try_get(0)?)
        }
        LeaseAction::Release => {
            transaction
                .execute(
                    "UPDATE destination SET leased_until = NULL WHERE id = $1",
                    &[&destination],
                )
                .await?;
            Ok(false)
        }
        LeaseAction::Wait {
            sequence,
            began_at,
            error,
            until,
        } => {
            let outcome = DeliveryUpdate::unavailable(error, until.is_some());
            write_delivery(transaction, destination, *sequence, *began_at, &outcome).await?;
            if is_skipped(transaction, destination, *sequence).await? {
                transaction
                    .execute(
                        "UPDATE destination SET leased_until = NULL WHERE id = $1",
                        &[&destination],
                    )
                    .await?;
                return Ok(false);
            }
            transaction
                .execute(
                    "UPDATE destination SET leased_until = NULL, failures = failures + 1,
                         failing_since = coalesce(failing_since, $2), last_error = $3, stuck_at = $4, waits_until = $5,
                         paused = CASE WHEN $5 IS NULL THEN coalesce(paused, 'closed') ELSE paused END
                     WHERE id = $1",
                    &[
                        &destination,
                        &now.as_millis(),
                        &escape_nul(error),
                        sequence,
                        &until.map(Timestamp::as_millis),
                    ],
                )
                .await?;
            Ok(false)
        }
    }
}

/// Returns true if a person skipped the version while it was being delivered.
async fn is_skipped(
    transaction: &Transaction<'_>,
    destination: i64,
    sequence: i64,
) -> Result<bool, StoreError> {
    let row = transaction
        .query_one(
            "SELECT state = 'skipped' FROM delivery WHERE destination_id = $1 AND sequence = $2",
            &[&destination, &sequence],
        )
        .await?;
    Ok(row.try_get(0)?)
}

/// Records an outcome that a destination reports later.
pub(super) async fn record_outcome(
    transaction: &Transaction<'_>,
    destination: &str,
    sequence: i64,
    late_outcome: &LateOutcome,
) -> Result<bool, StoreError> {
    let known = transaction
        .query_opt(
            "SELECT s.id FROM destination s WHERE s.name = $1 FOR NO KEY UPDATE",
            &[&destination],
        )
        .await?;
    let Some(row) = known else {
        return Ok(false);
    };
    let destination: i64 = row.try_get(0)?;
    let delivery = transaction
        .query_opt(
            "SELECT state, detail FROM delivery
             WHERE destination_id = $1 AND sequence = $2 AND state IN ('listed', 'delivered', 'rejected')",
            &[&destination, &sequence],
        )
        .await?;
    let Some(row) = delivery else {
        return Ok(false);
    };
    let outcome = DeliveryOutcome::from(late_outcome);
    let as_row = DeliveryUpdate::of(&outcome, transaction.now());
    let state: String = row.try_get(0)?;
    if state == as_row.state && rows::optional_text(&row, 1)?.as_deref() == as_row.detail {
        return Ok(true);
    }
    let attempt = Attempt {
        sequence,
        began_at: transaction.now(),
        outcome,
    };
    record_attempt(transaction, destination, &attempt).await?;
    let delivered = i64::from(matches!(late_outcome, LateOutcome::Delivered));
    transaction
        .execute(
            "UPDATE destination SET delivered = delivered + $2, rejected = rejected + $3 WHERE id = $1",
            &[&destination, &delivered, &(1 - delivered)],
        )
        .await?;
    Ok(true)
}
