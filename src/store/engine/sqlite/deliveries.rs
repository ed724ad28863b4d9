//! Leasing versions for delivery, and recording the attempts.

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use rusqlite::{Connection, OptionalExtension, named_params, params};

use super::delivery_rows::{account_names, company_codes, read_delivery};
use super::destinations;
use super::error::explain;
use super::rows;
use super::tx::{SqliteTx, immediate};
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

/// Unsettled versions in a window after the position, and whether they are ready. The order
/// of joins and the indexes are fixed: SQLite would otherwise begin with the feeds and sort,
/// or scan all deliveries of the destination.
const UNSETTLED: &str = "
    SELECT d.sequence, a.name, f.queue, f.company, d.document_id, d.version, d.stored_at, d.body,
           CASE WHEN w.requested_at <= :link_timeout THEN :no_more_links ELSE coalesce(h.link_tries, 0) END, l.url, l.listed_at,
           (SELECT n.note FROM document e INDEXED BY document_identity
            CROSS JOIN delivery n ON n.sequence = e.sequence AND n.destination_id = :destination
            WHERE e.document_id = d.document_id AND e.feed_id = d.feed_id AND n.note IS NOT NULL
            ORDER BY n.sequence DESC LIMIT 1),
           (h.next_try_at IS NULL OR h.next_try_at <= :now OR coalesce(l.listed_at >= h.changed_at, 0))
               AND (NOT :files OR w.requested_at IS NULL OR w.requested_at <= :link_timeout
                    OR coalesce(l.listed_at >= w.requested_at, 0)) AS ready,
           h.next_try_at
    FROM document d
    CROSS JOIN destination_feed s ON s.destination_id = :destination AND s.feed_id = d.feed_id
    JOIN feed f ON f.id = d.feed_id
    JOIN account a ON a.id = f.account_id
    LEFT JOIN delivery h ON h.destination_id = :destination AND h.sequence = d.sequence
    LEFT JOIN document_link l ON l.sequence = d.sequence
    LEFT JOIN fresh_link_request w ON w.feed_id = d.feed_id
    WHERE d.sequence > :position AND d.sequence <= :end
      AND d.superseded = 0 AND d.body IS NOT NULL
      AND (s.everything
           OR (d.sequence > s.after_sequence AND (d.first_pull = 0 OR coalesce(d.version_ms >= s.started_at, 0)))
           OR coalesce(coalesce(d.version_ms, d.stored_at) >= s.since_ms, 0))
      AND (h.sequence IS NULL OR h.state = 'pending')
      AND f.queue = :queue
      AND (:accounts = '[]' OR a.name IN (SELECT value FROM json_each(:accounts)))
      AND (:companies = '[]' OR f.queue = 'digitized' OR f.company IN (SELECT value FROM json_each(:companies)))
    ORDER BY d.sequence";

/// The columns of a destination that leasing needs.
struct DestinationCandidate {
    id: i64,
    position: i64,
    failures: u32,
    paused: bool,
    waits_until: Option<Timestamp>,
    leased_until: Option<Timestamp>,
}

/// The unsettled versions of the window after the position.
#[derive(Default)]
struct WindowScan {
    deliveries: Vec<Delivery>,
    first_unsettled: Option<i64>,
    /// When the next version becomes ready.
    ready_at: Option<Timestamp>,
}

/// Leases a destination with the next versions for it.
pub(super) fn lease(
    connection: &Connection,
    request: &DeliveryLeaseRequest,
) -> rusqlite::Result<DeliveryLeased> {
    let Some(destination) = find_candidate(connection, request)? else {
        return Ok(DeliveryLeased::Nothing { until: None });
    };
    if destination.paused {
        return Ok(DeliveryLeased::Nothing { until: None });
    }
    let busy = [destination.waits_until, destination.leased_until]
        .into_iter()
        .flatten();
    if let Some(until) = busy.filter(|until| *until > request.now).max() {
        return Ok(DeliveryLeased::Nothing { until: Some(until) });
    }
    let (epoch, last): (String, i64) = connection
        .prepare_cached("SELECT epoch, last FROM sequence")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let end = last.min(destination.position.saturating_add(LEASE_WINDOW));
    let found = scan_window(connection, request, &destination, end, &epoch)?;
    let position = found.first_unsettled.map_or(end, |first| first - 1);
    if position > destination.position {
        destinations::set_position(connection, destination.id, position)?;
    }
    if found.deliveries.is_empty() {
        return nothing_ready(connection, request, &destination, &found, end < last);
    }
    let fence = connection
        .prepare_cached(
            "UPDATE destination SET fence = fence + 1, leased_until = ?2 WHERE id = ?1 RETURNING fence",
        )?
        .query_row(
            params![destination.id, request.now.after(request.lease).as_millis()],
            |row| row.get(0),
        )?;
    Ok(DeliveryLeased::Batch(DeliveryLease {
        destination_id: destination.id,
        destination: request.destination.clone(),
        fence,
        failures: destination.failures,
        deliveries: found.deliveries,
    }))
}

fn nothing_ready(
    connection: &Connection,
    request: &DeliveryLeaseRequest,
    destination: &DestinationCandidate,
    found: &WindowScan,
    more: bool,
) -> rusqlite::Result<DeliveryLeased> {
    let all_settled = found.first_unsettled.is_none();
    if (all_settled && more)
        || destinations::start_automatically(connection, destination.id, request)?
    {
        return Ok(DeliveryLeased::Advanced);
    }
    Ok(DeliveryLeased::Nothing {
        until: found.ready_at,
    })
}

fn find_candidate(
    connection: &Connection,
    request: &DeliveryLeaseRequest,
) -> rusqlite::Result<Option<DestinationCandidate>> {
    connection
        .prepare_cached(
            "SELECT id, position, failures, paused IS NOT NULL, waits_until, leased_until FROM destination WHERE name = ?1",
        )?
        .query_row(params![request.destination.as_str()], |row| {
            Ok(DestinationCandidate {
                id: row.get(0)?,
                position: row.get(1)?,
                failures: row.get(2)?,
                paused: row.get(3)?,
                waits_until: rows::optional_timestamp(row, 4)?,
                leased_until: rows::optional_timestamp(row, 5)?,
            })
        })
        .optional()
}

fn scan_window(
    connection: &Connection,
    request: &DeliveryLeaseRequest,
    destination: &DestinationCandidate,
    end: i64,
    epoch: &str,
) -> rusqlite::Result<WindowScan> {
    let mut statement = connection.prepare_cached(UNSETTLED)?;
    let mut rows = statement.query(named_params! {
        ":destination": destination.id,
        ":now": request.now.as_millis(),
        ":files": request.files,
        ":link_timeout": request.now.before(LINK_TIMEOUT).as_millis(),
        ":no_more_links": NO_MORE_LINKS,
        ":position": destination.position,
        ":end": end,
        ":queue": request.filter.queue.as_str(),
        ":accounts": account_names(&request.filter),
        ":companies": company_codes(&request.filter),
    })?;
    let mut found = WindowScan::default();
    let mut bytes = 0;
    while found.deliveries.len() < request.limit && bytes < request.limit_bytes {
        let Some(row) = rows.next()? else {
            break;
        };
        found.first_unsettled.get_or_insert(row.get(0)?);
        if row.get(12)? {
            let delivery = read_delivery(row, epoch)?;
            bytes += delivery.body.len();
            found.deliveries.push(delivery);
        } else if let Some(ready_at) =
            rows::optional_timestamp(row, 13)?.filter(|at| *at > request.now)
        {
            found.ready_at = Some(found.ready_at.map_or(ready_at, |at| at.min(ready_at)));
        }
    }
    Ok(found)
}

/// Records attempts, and applies `action` to the lease.
pub(super) fn settle(
    transaction: &mut Connection,
    path: &Path,
    lease: &DeliveryLease,
    attempts: &[Attempt],
    action: &LeaseAction,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let explain = |error| explain(path, error);
    let fence: Option<i64> = transaction
        .query_row(
            "SELECT fence FROM destination WHERE id = ?1",
            params![lease.destination_id],
            |row| row.get(0),
        )
        .optional()
        .map_err(explain)?;
    if fence != Some(lease.fence) {
        return Err(StoreError::StaleLease);
    }
    for one in attempts {
        record_attempt(transaction, lease.destination_id, one, now).map_err(explain)?;
        if matches!(one.outcome, DeliveryOutcome::LinkExpired) {
            immediate(request_fresh_link(
                &mut SqliteTx::new(transaction, path),
                lease.destination_id,
                one.sequence,
                now,
            ))?;
        }
    }
    finish_lease(transaction, lease.destination_id, attempts, action, now).map_err(explain)
}

fn record_attempt(
    connection: &Connection,
    destination: i64,
    one: &Attempt,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let outcome = DeliveryUpdate::of(&one.outcome, now);
    write_delivery(
        connection,
        destination,
        one.sequence,
        one.began_at,
        now,
        &outcome,
    )?;
    match &one.outcome {
        DeliveryOutcome::Rejected { import_error, .. } => {
            write_import_error(connection, one.sequence, import_error, now)
        }
        DeliveryOutcome::Listed => {
            destinations::assign_number(connection, destination, one.sequence)
        }
        DeliveryOutcome::Delivered { .. }
        | DeliveryOutcome::Filtered
        | DeliveryOutcome::LinkExpired => Ok(()),
    }
}

fn write_delivery(
    connection: &Connection,
    destination: i64,
    sequence: i64,
    began_at: Timestamp,
    now: Timestamp,
    outcome: &DeliveryUpdate<'_>,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO delivery (destination_id, sequence, state, began_at, changed_at, next_try_at, note, detail)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (destination_id, sequence) DO UPDATE SET
                 state = CASE WHEN delivery.state = 'skipped' AND excluded.state = 'pending' THEN 'skipped' ELSE excluded.state END,
                 changed_at = excluded.changed_at,
                 next_try_at = excluded.next_try_at, note = coalesce(excluded.note, note), detail = excluded.detail",
        )?
        .execute(params![
            destination,
            sequence,
            outcome.state,
            began_at.as_millis(),
            now.as_millis(),
            outcome.next_try_at.map(Timestamp::as_millis),
            outcome.note,
            outcome.detail,
        ])?;
    write_attempt(
        connection,
        destination,
        sequence,
        [began_at, now],
        outcome.result,
        outcome.detail,
    )
}

/// Adds an attempt, or counts it in the last one's row if the result is the same.
fn write_attempt(
    connection: &Connection,
    destination: i64,
    sequence: i64,
    [began_at, ended_at]: [Timestamp; 2],
    result: &str,
    detail: Option<&str>,
) -> rusqlite::Result<()> {
    let repeated = connection
        .prepare_cached(
            "UPDATE delivery_attempt SET ended_at = ?3, times = times + 1
             WHERE destination_id = ?1 AND sequence = ?2 AND result = ?4 AND detail IS ?5
               AND number = (SELECT max(number) FROM delivery_attempt WHERE destination_id = ?1 AND sequence = ?2)",
        )?
        .execute(params![destination, sequence, ended_at.as_millis(), result, detail])?;
    if repeated > 0 {
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT INTO delivery_attempt (destination_id, sequence, number, began_at, ended_at, result, detail, times)
             SELECT ?1, ?2, coalesce(max(number), 0) + 1, ?3, ?4, ?5, ?6, 1
             FROM delivery_attempt WHERE destination_id = ?1 AND sequence = ?2",
        )?
        .execute(params![
            destination,
            sequence,
            began_at.as_millis(),
            ended_at.as_millis(),
            result,
            detail
        ])?;
    connection
        .prepare_cached(
            "DELETE FROM delivery_attempt WHERE destination_id = ?1 AND sequence = ?2 AND number > 1
               AND number <= (SELECT max(number) FROM delivery_attempt WHERE destination_id = ?1 AND sequence = ?2) - ?3",
        )?
        .execute(params![destination, sequence, MAX_ATTEMPT_ROWS])?;
    Ok(())
}

/// Stores an import error for the accountant, once for each (version, text).
fn write_import_error(
    connection: &Connection,
    sequence: i64,
    import_error: &NewImportError,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let company = import_error.company.as_ref().map(Company::as_str);
    connection
        .prepare_cached(
            "INSERT INTO import_error (account_id, sequence, digest, company, message, state, created_at, next_try_at, last_error)
             SELECT f.account_id, d.sequence, ?2, ?3, ?4, iif(?3 IS NULL, 'refused', 'pending'), ?5,
                 iif(?3 IS NULL, NULL, ?5), iif(?3 IS NULL, ?6, NULL)
             FROM document d JOIN feed f ON f.id = d.feed_id WHERE d.sequence = ?1
             ON CONFLICT (sequence, digest) DO NOTHING",
        )?
        .execute(params![
            sequence,
            digest(&SHA256, import_error.message.as_bytes()).as_ref(),
            company,
            import_error.message,
            now.as_millis(),
            NO_COMPANY,
        ])?;
    Ok(())
}

fn finish_lease(
    connection: &Connection,
    destination: i64,
    attempts: &[Attempt],
    action: &LeaseAction,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let count =
        |is: fn(&DeliveryOutcome) -> bool| attempts.iter().filter(|s| is(&s.outcome)).count();
    let delivered = count(|outcome| matches!(outcome, DeliveryOutcome::Delivered { .. }));
    let rejected = count(|outcome| matches!(outcome, DeliveryOutcome::Rejected { .. }));
    if count(|outcome| !matches!(outcome, DeliveryOutcome::LinkExpired)) > 0 {
        connection
            .prepare_cached(
                "UPDATE destination SET delivered = delivered + ?2, rejected = rejected + ?3, last_success_at = ?4,
                     failures = 0, failing_since = NULL, last_error = NULL, stuck_at = NULL, waits_until = NULL
                 WHERE id = ?1",
            )?
            .execute(params![destination, delivered, rejected, now.as_millis()])?;
    }
    match action {
        LeaseAction::Keep(lease) => connection
            .prepare_cached(
                "UPDATE destination SET leased_until = ?2 WHERE id = ?1 RETURNING paused IS NULL",
            )?
            .query_row(params![destination, now.after(*lease).as_millis()], |row| {
                row.get(0)
            }),
        LeaseAction::Release => {
            connection
                .prepare_cached("UPDATE destination SET leased_until = NULL WHERE id = ?1")?
                .execute(params![destination])?;
            Ok(false)
        }
        LeaseAction::Wait {
            sequence,
            began_at,
            error,
            until,
        } => {
            let outcome = DeliveryUpdate::unavailable(error, until.is_some());
            write_delivery(connection, destination, *sequence, *began_at, now, &outcome)?;
            if is_skipped(connection, destination, *sequence)? {
                connection.execute(
                    "UPDATE destination SET leased_until = NULL WHERE id = ?1",
                    params![destination],
                )?;
                return Ok(false);
            }
            connection
                .prepare_cached(
                    "UPDATE destination SET leased_until = NULL, failures = failures + 1,
                         failing_since = coalesce(failing_since, ?2), last_error = ?3, stuck_at = ?4, waits_until = ?5,
                         paused = CASE WHEN ?5 IS NULL THEN coalesce(paused, 'closed') ELSE paused END
                     WHERE id = ?1",
                )?
                .execute(params![
                    destination,
                    now.as_millis(),
                    error,
                    sequence,
                    until.map(Timestamp::as_millis)
                ])?;
            Ok(false)
        }
    }
}

/// Returns true if a person skipped the version while it was being delivered.
fn is_skipped(connection: &Connection, destination: i64, sequence: i64) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT state = 'skipped' FROM delivery WHERE destination_id = ?1 AND sequence = ?2",
        params![destination, sequence],
        |row| row.get(0),
    )
}

/// Records an outcome that a destination reports later.
pub(super) fn record_outcome(
    connection: &Connection,
    destination: &str,
    sequence: i64,
    late_outcome: &LateOutcome,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let known: Option<(i64, String, Option<String>)> = connection
        .query_row(
            "SELECT h.destination_id, h.state, h.detail FROM delivery h JOIN destination s ON s.id = h.destination_id
             WHERE s.name = ?1 AND h.sequence = ?2 AND h.state IN ('listed', 'delivered', 'rejected')",
            params![destination, sequence],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let Some((destination, state, detail)) = known else {
        return Ok(false);
    };
    let outcome = DeliveryOutcome::from(late_outcome);
    let as_row = DeliveryUpdate::of(&outcome, now);
    if state == as_row.state && detail.as_deref() == as_row.detail {
        return Ok(true);
    }
    let attempt = Attempt {
        sequence,
        began_at: now,
        outcome,
    };
    record_attempt(connection, destination, &attempt, now)?;
    let delivered = matches!(late_outcome, LateOutcome::Delivered);
    connection.execute(
        "UPDATE destination SET delivered = delivered + ?2, rejected = rejected + ?3 WHERE id = ?1",
        params![destination, delivered, !delivered],
    )?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leasing_reads_along_the_sequence_and_through_indexes_only() {
        let folder = tempfile::tempdir().expect("created a folder");
        let path = folder.path().join("plan.db");
        let connection = super::super::schema::open_for_writing(&path).expect("created a store");
        let plan: Vec<String> = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {UNSETTLED}"))
            .and_then(|mut statement| {
                let parameters = vec![1; statement.parameter_count()];
                statement
                    .query_map(rusqlite::params_from_iter(parameters), |row| row.get(3))?
                    .collect()
            })
            .expect("explained the query");
        let plan = plan.join("; ");
        for expected in [
            "SEARCH d USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
            "SEARCH e USING COVERING INDEX document_identity (document_id=?)",
            "SEARCH n USING PRIMARY KEY (destination_id=? AND sequence=?)",
            "SEARCH h USING PRIMARY KEY (destination_id=? AND sequence=?)",
        ] {
            assert!(plan.contains(expected), "{expected}: {plan}");
        }
        // The only sort is that of a document's own versions.
        assert_eq!(plan.matches("TEMP B-TREE").count(), 1, "{plan}");
    }
}
