//! Lists of destinations and of their deliveries.

use super::StoreError;
use super::deliveries::{
    AttemptRow, Delivery, DeliveryFilter, DeliveryRow, DeliveryState, DestinationRow, LEASE_WINDOW,
    ListEntry,
};
use super::delivery_leases::{COLUMNS, OF_CHOSEN};
use super::documents::ReadSequence;
use super::engine::{Fragment, Operation, Param, Row, Sql, Tx};
use crate::domain::DestinationName;

/// Lists all destinations.
pub(super) struct ListDestinations;

impl Operation for ListDestinations {
    type Output = Vec<DestinationRow>;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        // SQLite would otherwise begin with the feeds, and sort.
        static SQL: Sql = Sql::new(
            "SELECT s.name, s.position, {greatest}(q.last - s.position, 0), s.delivered, s.rejected,
                    (SELECT count(*) FROM delivery h WHERE h.destination_id = s.id AND h.state = 'rejected'),
                    s.paused, s.waits_until, s.failing_since, s.failures, s.last_error, s.stuck_at, s.last_success_at,
                    (SELECT d.stored_at FROM document d
                     {then_join} destination_feed b ON b.destination_id = s.id AND b.feed_id = d.feed_id
                     WHERE d.sequence > s.position AND d.sequence <= s.position + $1 AND NOT d.superseded
                       AND (b.everything OR (d.sequence > b.after_sequence
                                AND (NOT d.first_pull OR coalesce(d.version_ms >= b.started_at, false)))
                            OR coalesce(coalesce(d.version_ms, d.stored_at) >= b.since_ms, false))
                       AND NOT EXISTS (SELECT 1 FROM delivery h WHERE h.destination_id = s.id AND h.sequence = d.sequence
                           AND h.state <> 'pending')
                     ORDER BY d.sequence LIMIT 1)
             FROM destination s, sequence q ORDER BY s.name{bytewise}",
        );
        tx.all(&SQL, &[&LEASE_WINDOW], |row| {
            Ok(DestinationRow {
                name: row.get(0)?,
                position: row.get(1)?,
                behind: row.get(2)?,
                delivered: row.get(3)?,
                rejected: row.get(4)?,
                rejected_now: row.get(5)?,
                paused: row.get(6)?,
                waits_until: row.get(7)?,
                failing_since: row.get(8)?,
                failures: row.get(9)?,
                last_error: row.get(10)?,
                stuck_at: row.get(11)?,
                last_success_at: row.get(12)?,
                waiting_since: row.get(13)?,
            })
        })
        .await
    }
}

impl DeliveryRow {
    /// Reads a delivery without its attempts, after the row of its destination.
    fn read(row: &dyn Row) -> Result<(i64, Self), StoreError> {
        Ok((
            row.get(0)?,
            Self {
                destination: row.get(1)?,
                sequence: row.get(2)?,
                state: row.get(3)?,
                began_at: row.get(4)?,
                changed_at: row.get(5)?,
                detail: row.get(6)?,
                attempts: Vec::new(),
            },
        ))
    }
}

/// Selects what [`DeliveryRow::read`] reads, after the sequence number $1 and by the name of
/// the destination $2.
const DELIVERIES: Fragment = Fragment::Same(
    "SELECT s.id, s.name, h.sequence, h.state, h.began_at, h.changed_at, coalesce(h.detail, h.note)
     FROM delivery h JOIN destination s ON s.id = h.destination_id
     WHERE h.sequence > $1 AND ($2 IS NULL OR s.name = $2)",
);

/// The order of deliveries, and their number $3.
const ORDER: Fragment = Fragment::Same("ORDER BY h.sequence, s.name{bytewise} LIMIT $3");

impl Operation for DeliveryFilter {
    type Output = Vec<DeliveryRow>;

    /// Lists deliveries with their attempts, in ascending sequence.
    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
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
        let after = self.after;
        let name = self.destination.as_ref().map(DestinationName::as_str);
        let limit = self.limit;
        let state = self.state.map(DeliveryState::as_str);
        let found = match (self.sequence, self.state) {
            (Some(sequence), _) => {
                tx.all(
                    &OF_VERSION,
                    &[&after, &name, &limit, &state, &sequence],
                    DeliveryRow::read,
                )
                .await?
            }
            (None, Some(DeliveryState::Rejected)) => {
                tx.all(&REJECTED, &[&after, &name, &limit], DeliveryRow::read)
                    .await?
            }
            (None, _) => {
                tx.all(&OF_ALL, &[&after, &name, &limit, &state], DeliveryRow::read)
                    .await?
            }
        };
        let mut deliveries = Vec::with_capacity(found.len());
        for (destination, mut delivery) in found {
            delivery.attempts = attempts(tx, destination, delivery.sequence).await?;
            deliveries.push(delivery);
        }
        Ok(deliveries)
    }
}

async fn attempts<T: Tx>(
    tx: &mut T,
    destination: i64,
    sequence: i64,
) -> Result<Vec<AttemptRow>, StoreError> {
    static SQL: Sql = Sql::new(
        "SELECT began_at, ended_at, result, detail, times FROM delivery_attempt
         WHERE destination_id = $1 AND sequence = $2 ORDER BY number",
    );
    tx.all(&SQL, &[&destination, &sequence], |row| {
        Ok(AttemptRow {
            began_at: row.get(0)?,
            ended_at: row.get(1)?,
            result: row.get(2)?,
            detail: row.get(3)?,
            times: row.get(4)?,
        })
    })
    .await
}

/// Reads the list of a destination after place `after`: at most `limit` entries, and none after
/// `limit_bytes` of bodies.
pub(super) struct ReadList {
    pub(super) destination: DestinationName,
    pub(super) after: i64,
    pub(super) limit: usize,
    pub(super) limit_bytes: usize,
}

impl Operation for ReadList {
    type Output = Vec<ListEntry>;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        static SQL: Sql = Sql::with(
            "SELECT {columns}, c.number, c.state
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
        let epoch = ReadSequence.run(tx).await?.epoch;
        let name = self.destination.as_str();
        let params: [&dyn Param; 4] = [&name, &self.after, &self.limit, &self.limit_bytes];
        let mut entries = tx
            .all(&SQL, &params, |row| {
                Ok(ListEntry {
                    delivery: Delivery::read(row, &epoch)?,
                    number: row.get(12)?,
                    state: row.get(13)?,
                })
            })
            .await?;
        entries.sort_by_key(|entry| entry.number);
        Ok(entries)
    }
}
