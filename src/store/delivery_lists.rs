//! Lists of destinations and of their deliveries.

use super::deliveries::{
    AttemptRow, DeliveryFilter, DeliveryRow, DeliveryState, DestinationRow, LEASE_WINDOW, ListEntry,
};
use super::delivery_leases::{COLUMNS, OF_CHOSEN};
use super::engine::{Column, Columns, Fragment, Param, Sql, Tx, operations, params, rows};
use super::error::Result;
use crate::domain::DestinationName;

operations! {
    /// Lists all destinations that were ever registered.
    pub read destinations() -> Vec<DestinationRow>;

    /// Lists deliveries with their attempts, in ascending sequence.
    pub read deliveries(filter: DeliveryFilter) -> Vec<DeliveryRow>;

    /// Returns at most `limit` entries of a destination's list after place `after`; none
    /// is added after `limit_bytes` of bodies.
    pub read listed(destination: DestinationName, after: i64, limit: usize, limit_bytes: usize)
        -> Vec<ListEntry>;
}

rows! {
    DestinationRow {
        name, position, behind, waiting_since, delivered, rejected, rejected_now, paused,
        waits_until, failing_since, failures, last_error, stuck_at, last_success_at,
    }
    AttemptRow { began_at, ended_at, result, detail, times }
    ListEntry { number, state, delivery }
}

async fn destinations<T: Tx>(tx: &mut T) -> Result<Vec<DestinationRow>> {
    // SQLite would otherwise begin with the feeds, and sort.
    static SQL: Sql = Sql::new(
        "SELECT s.name, s.position, {greatest}(q.last - s.position, 0),
                (SELECT d.stored_at FROM document d
                 {then_join} destination_feed b ON b.destination_id = s.id AND b.feed_id = d.feed_id
                 WHERE d.sequence > s.position AND d.sequence <= s.position + $1 AND NOT d.superseded
                   AND (b.everything OR (d.sequence > b.after_sequence
                            AND (NOT d.first_pull OR coalesce(d.version_ms >= b.started_at, false)))
                        OR coalesce(coalesce(d.version_ms, d.stored_at) >= b.since_ms, false))
                   AND NOT EXISTS (SELECT 1 FROM delivery h WHERE h.destination_id = s.id AND h.sequence = d.sequence
                       AND h.state <> 'pending')
                 ORDER BY d.sequence LIMIT 1),
                s.delivered, s.rejected,
                (SELECT count(*) FROM delivery h WHERE h.destination_id = s.id AND h.state = 'rejected'),
                s.paused, s.waits_until, s.failing_since, s.failures, s.last_error, s.stuck_at, s.last_success_at
         FROM destination s, sequence q ORDER BY s.name{bytewise}",
    );
    tx.all(&SQL, &[&LEASE_WINDOW]).await
}

impl Column for DeliveryRow {
    /// Reads a delivery without its attempts.
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            destination: columns.get()?,
            sequence: columns.get()?,
            state: columns.get()?,
            began_at: columns.get()?,
            changed_at: columns.get()?,
            detail: columns.get()?,
            attempts: Vec::new(),
        })
    }
}

async fn deliveries<T: Tx>(tx: &mut T, filter: DeliveryFilter) -> Result<Vec<DeliveryRow>> {
    /// Selects destinations' ids and deliveries, after the sequence number $1 and by the name
    /// of the destination $2.
    const DELIVERIES: Fragment = Fragment::Same(
        "SELECT s.id, s.name, h.sequence, h.state, h.began_at, h.changed_at, coalesce(h.detail, h.note)
         FROM delivery h JOIN destination s ON s.id = h.destination_id
         WHERE h.sequence > $1 AND ($2 IS NULL OR s.name = $2)",
    );
    /// The order of deliveries, and their number $3.
    const ORDER: Fragment = Fragment::Same("ORDER BY h.sequence, s.name{bytewise} LIMIT $3");
    // Each kind of query has an index of its own, which a bound state could not use.
    static OF_VERSION: Sql = Sql::with(
        "{deliveries} AND ($4 IS NULL OR h.state = $4) AND h.sequence = $5 {order}",
        &[("deliveries", DELIVERIES), ("order", ORDER)],
    );
    static REJECTED: Sql = Sql::with(
        "{deliveries} AND h.state = 'rejected' {order}",
        &[("deliveries", DELIVERIES), ("order", ORDER)],
    );
    static OF_ALL: Sql = Sql::with(
        "{deliveries} AND ($4 IS NULL OR h.state = $4) {order}",
        &[("deliveries", DELIVERIES), ("order", ORDER)],
    );
    static ATTEMPTS: Sql = Sql::new(
        "SELECT began_at, ended_at, result, detail, times FROM delivery_attempt
         WHERE destination_id = $1 AND sequence = $2 ORDER BY number",
    );
    let (state, sequence) = (filter.state, filter.sequence);
    let params = params! { filter.after, filter.destination, filter.limit, state, sequence };
    let found: Vec<(i64, DeliveryRow)> = match (sequence, state) {
        (Some(_), _) => tx.all(&OF_VERSION, params).await?,
        (None, Some(DeliveryState::Rejected)) => tx.all(&REJECTED, &params[..3]).await?,
        (None, _) => tx.all(&OF_ALL, &params[..4]).await?,
    };
    let mut deliveries = Vec::with_capacity(found.len());
    for (destination, mut delivery) in found {
        delivery.attempts = tx
            .all(&ATTEMPTS, &[&destination, &delivery.sequence])
            .await?;
        deliveries.push(delivery);
    }
    Ok(deliveries)
}

async fn listed<T: Tx>(
    tx: &mut T,
    destination: DestinationName,
    after: i64,
    limit: usize,
    limit_bytes: usize,
) -> Result<Vec<ListEntry>> {
    static SQL: Sql = Sql::with(
        "SELECT c.number, c.state, {columns}, NULL
         FROM (SELECT entry.*, sum(size) OVER (ORDER BY number) - size AS bytes_before FROM (
                   SELECT h.sequence, h.number, h.state, h.link_tries, false AS link_timed_out,
                          length(d.body) AS size
                   FROM delivery h JOIN document d ON d.sequence = h.sequence
                   WHERE h.destination_id = (SELECT id FROM destination WHERE name = $1)
                     AND h.number > $2 AND d.body IS NOT NULL
                   ORDER BY h.number LIMIT $3) AS entry) AS c
         {of_chosen} WHERE c.bytes_before < $4",
        &[("columns", COLUMNS), ("of_chosen", OF_CHOSEN)],
    );
    let params: [&dyn Param; 4] = [&destination, &after, &limit, &limit_bytes];
    let mut entries: Vec<ListEntry> = tx.all(&SQL, &params).await?;
    entries.sort_by_key(|entry| entry.number);
    Ok(entries)
}
