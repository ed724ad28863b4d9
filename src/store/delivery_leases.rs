//! Leasing a destination with the next versions for it.

use super::attempts::LINK_RETRY_DELAY;
use super::deliveries::{
    Delivery, DeliveryLease, DeliveryLeaseRequest, DeliveryLeased, LEASE_WINDOW, LINK_TIMEOUT,
};
use super::destinations::{MATCHING, start_automatically};
use super::documents;
use super::engine::{Fragment, Sql, Tx, operations, params, rows};
use super::error::Result;
use crate::backoff;
use crate::domain::Timestamp;

operations! {
    /// Leases a destination with the next versions for it.
    ///
    /// Feeds without history are started automatically here. The lease covers the whole
    /// destination, so that a document is delivered by one worker at a time.
    pub write lease_deliveries(request: DeliveryLeaseRequest) -> DeliveryLeased;
}

/// The columns of a [`Delivery`] but the earlier note, its last: of a document `d`, its feed,
/// its newer link `l`, and a row `c` that chose it.
pub(super) const COLUMNS: Fragment = Fragment::Same(
    "a.name, f.queue, f.company, d.document_id, d.version, (SELECT epoch FROM sequence), d.sequence,
             d.stored_at, d.body, l.url, l.listed_at, c.link_tries, c.link_timed_out",
);

rows! {
    Delivery {
        feed, document_id, version, epoch, sequence, stored_at, body, link, link_listed_at,
        link_tries, link_timed_out, earlier_note,
    }
    Candidate { id, position, failures, paused, waits_until, leased_until }
}

/// Joins what [`COLUMNS`] needs to the rows `c`.
pub(super) const OF_CHOSEN: Fragment = Fragment::Same(
    "{then_join} document d ON d.sequence = c.sequence
         JOIN feed f ON f.id = d.feed_id
         JOIN account a ON a.id = f.account_id
         LEFT JOIN document_link l ON l.sequence = d.sequence",
);

/// Unsettled versions of started feeds, after the position $5 of the destination $1 and up to
/// the sequence number $6. The order of joins is fixed: SQLite would otherwise begin with the
/// feeds, and sort.
const UNSETTLED: Fragment = Fragment::Same(
    "FROM document d
         {then_join} destination_feed s ON s.destination_id = $1 AND s.feed_id = d.feed_id
         JOIN feed f ON f.id = d.feed_id
         JOIN account a ON a.id = f.account_id
         LEFT JOIN delivery h ON h.destination_id = $1 AND h.sequence = d.sequence
         LEFT JOIN document_link l ON l.sequence = d.sequence
         LEFT JOIN fresh_link_request w ON w.feed_id = d.feed_id
         WHERE d.sequence > $5 AND d.sequence <= $6 AND NOT d.superseded AND d.body IS NOT NULL
           AND (s.everything
                OR (d.sequence > s.after_sequence
                    AND (NOT d.first_pull OR coalesce(d.version_ms >= s.started_at, false)))
                OR coalesce(coalesce(d.version_ms, d.stored_at) >= s.since_ms, false))
           AND (h.sequence IS NULL OR h.state = 'pending')",
);

static FIRST_UNSETTLED: Sql = Sql::with(
    "SELECT d.sequence {unsettled} AND {matching} ORDER BY d.sequence LIMIT 1",
    &[("unsettled", UNSETTLED), ("matching", MATCHING)],
);

/// Those that are ready at $7: at most $10, and none after $11 bytes of bodies. None waits longer than $12. $8 is true if
/// files are fetched; feeds whose links were requested by $9 are not waited for any more.
static READY: Sql = Sql::with(
    "SELECT {columns},
            (SELECT n.note FROM document e{by_identity}
             {then_join} delivery n ON n.sequence = e.sequence AND n.destination_id = $1
             WHERE e.document_id = d.document_id AND e.feed_id = d.feed_id AND n.note IS NOT NULL
             ORDER BY n.sequence DESC LIMIT 1)
     FROM (SELECT ready.*, sum(size) OVER (ORDER BY sequence) - size AS bytes_before FROM (
               SELECT d.sequence, length(d.body) AS size, coalesce(h.link_tries, 0) AS link_tries,
                      coalesce(w.requested_at <= $9, false) AS link_timed_out
               {unsettled} AND {matching}
                 AND (h.next_try_at IS NULL OR h.next_try_at <= $7 OR h.next_try_at > $12 OR coalesce(l.listed_at >= h.changed_at, false))
                 AND (NOT $8 OR w.requested_at IS NULL OR w.requested_at <= $9
                      OR coalesce(l.listed_at >= w.requested_at, false))
               ORDER BY d.sequence LIMIT $10) AS ready) AS c
     {of_chosen} WHERE c.bytes_before < $11",
    &[
        ("columns", COLUMNS),
        ("unsettled", UNSETTLED),
        ("matching", MATCHING),
        ("of_chosen", OF_CHOSEN),
    ],
);

/// The moment when the next of them is tried again.
static NEXT_TRY_AT: Sql = Sql::with(
    "SELECT min(h.next_try_at) {unsettled} AND {matching} AND h.next_try_at > $7",
    &[("unsettled", UNSETTLED), ("matching", MATCHING)],
);

/// The columns of a destination that leasing needs.
struct Candidate {
    id: i64,
    position: i64,
    failures: u32,
    paused: bool,
    waits_until: Option<Timestamp>,
    leased_until: Option<Timestamp>,
}

async fn lease_deliveries<T: Tx>(
    tx: &mut T,
    request: DeliveryLeaseRequest,
) -> Result<DeliveryLeased> {
    // None also if another replica has locked it.
    static LOCK: Sql = Sql::with(
        "SELECT id, position, failures, paused IS NOT NULL, waits_until, leased_until FROM destination
         WHERE name = $1{skip_leased}",
        &[(
            "skip_leased",
            Fragment::Differs("", " FOR NO KEY UPDATE SKIP LOCKED"),
        )],
    );
    static LEASE: Sql = Sql::new(
        "UPDATE destination SET fence = fence + 1, leased_until = $2 WHERE id = $1 RETURNING fence",
    );
    static SET_POSITION: Sql = Sql::new("UPDATE destination SET position = $2 WHERE id = $1");
    let now = tx.now_or(request.now);
    let found: Option<Candidate> = tx.first(&LOCK, &[&request.destination]).await?;
    let Some(destination) = found.filter(|destination| !destination.paused) else {
        return Ok(DeliveryLeased::Nothing { until: None });
    };
    let longest_wait = backoff::DELIVERY.longest_wait(backoff::LONGEST_RETRY_AFTER);
    let wait = backoff::rest_within(destination.waits_until, longest_wait, now);
    let lease = backoff::rest_within(destination.leased_until, request.lease, now);
    if let Some(until) = wait.into_iter().chain(lease).max() {
        return Ok(DeliveryLeased::Nothing { until: Some(until) });
    }
    let (id, position) = (destination.id, destination.position);
    // The counter is read first: what it has counted is committed and visible below.
    let last = documents::sequence(tx).await?.last;
    let end = last.min(position.saturating_add(LEASE_WINDOW));
    let filter = &request.filter;
    let link_timeout = now.before(LINK_TIMEOUT);
    let latest_try = backoff::latest_end(now, LINK_RETRY_DELAY);
    let params = params! {
        id, filter.queue, filter.accounts, filter.companies, position, end, now, request.files,
        link_timeout, request.limit, request.limit_bytes, latest_try,
    };
    let first: Option<i64> = tx.first(&FIRST_UNSETTLED, &params[..6]).await?;
    let settled_to = first.map_or(end, |first| first - 1);
    if settled_to > position {
        tx.run(&SET_POSITION, &[&id, &settled_to]).await?;
    }
    let mut deliveries: Vec<Delivery> = Vec::new();
    if first.is_some() {
        deliveries = tx.all(&READY, params).await?;
        deliveries.sort_by_key(|delivery| delivery.sequence);
    }
    if deliveries.is_empty() {
        let more_follow = first.is_none() && end < last;
        if more_follow || start_automatically(tx, id, filter, request.deliver_history, now).await? {
            return Ok(DeliveryLeased::Advanced);
        }
        let until = tx.one(&NEXT_TRY_AT, &params[..7]).await?;
        return Ok(DeliveryLeased::Nothing { until });
    }
    let fence = tx.one(&LEASE, &[&id, &now.after(request.lease)]).await?;
    Ok(DeliveryLeased::Batch(DeliveryLease {
        destination_id: id,
        destination: request.destination,
        fence,
        failures: destination.failures,
        deliveries,
    }))
}
