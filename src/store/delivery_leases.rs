//! Leasing a destination with the next versions for it.

use super::StoreError;
use super::deliveries::{
    Delivery, DeliveryLease, DeliveryLeaseRequest, DeliveryLeased, LEASE_WINDOW, LINK_TIMEOUT,
};
use super::destinations::{MATCHING, start_automatically};
use super::documents::ReadSequence;
use super::engine::{Fragment, Operation, Param, Row, Sql, Tx};
use crate::domain::Timestamp;

/// The columns that [`Delivery::read`] reads: of a document `d`, its feed, its newer link `l`,
/// and a row `c` that chose it.
pub(super) const COLUMNS: Fragment = Fragment::Same(
    "d.sequence, a.name, f.queue, f.company, d.document_id, d.version, d.stored_at, d.body,
             c.link_tries, c.link_timed_out, l.url, l.listed_at",
);

/// Joins what [`COLUMNS`] needs to the rows `c`.
pub(super) const OF_CHOSEN: Fragment = Fragment::Same(
    "{then_join} document d ON d.sequence = c.sequence
         JOIN feed f ON f.id = d.feed_id
         JOIN account a ON a.id = f.account_id
         LEFT JOIN document_link l ON l.sequence = d.sequence",
);

impl Delivery {
    /// Reads [`COLUMNS`]; a note is in none of them.
    pub(super) fn read(row: &dyn Row, epoch: &str) -> Result<Self, StoreError> {
        Ok(Self {
            sequence: row.get(0)?,
            feed: row.get(1)?,
            document_id: row.get(4)?,
            version: row.get(5)?,
            stored_at: row.get(6)?,
            body: row.get(7)?,
            link_tries: row.get(8)?,
            link_timed_out: row.get(9)?,
            link: row.get(10)?,
            link_listed_at: row.get(11)?,
            earlier_note: None,
            epoch: epoch.to_owned(),
        })
    }
}

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

/// Those that are ready at $7: at most $10, and none after $11 bytes of bodies. $8 is true if
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
                 AND (h.next_try_at IS NULL OR h.next_try_at <= $7 OR coalesce(l.listed_at >= h.changed_at, false))
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

impl Operation for DeliveryLeaseRequest {
    type Output = DeliveryLeased;

    /// Leases the destination with the next versions for it.
    async fn run<T: Tx>(self, tx: &mut T) -> Result<DeliveryLeased, StoreError> {
        static LEASE: Sql = Sql::new(
            "UPDATE destination SET fence = fence + 1, leased_until = $2 WHERE id = $1 RETURNING fence",
        );
        static SET_POSITION: Sql = Sql::new("UPDATE destination SET position = $2 WHERE id = $1");
        let now = tx.now_or(self.now);
        let Some(destination) = lock_candidate(tx, &self).await? else {
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
        let sequence = ReadSequence.run(tx).await?;
        let end = sequence
            .last
            .min(destination.position.saturating_add(LEASE_WINDOW));
        let (queue, accounts) = (self.filter.queue.as_str(), self.filter.account_names());
        let companies = self.filter.company_codes();
        let link_timeout = now.before(LINK_TIMEOUT);
        let params: [&dyn Param; 11] = [
            &destination.id,
            &queue,
            &accounts,
            &companies,
            &destination.position,
            &end,
            &now,
            &self.files,
            &link_timeout,
            &self.limit,
            &self.limit_bytes,
        ];
        let first: Option<i64> = tx
            .first(&FIRST_UNSETTLED, &params[..6], |row| row.get(0))
            .await?;
        let position = first.map_or(end, |first| first - 1);
        if position > destination.position {
            tx.execute(&SET_POSITION, &[&destination.id, &position])
                .await?;
        }
        let mut deliveries = Vec::new();
        if first.is_some() {
            let read = |row: &dyn Row| {
                Ok(Delivery {
                    earlier_note: row.get(12)?,
                    ..Delivery::read(row, &sequence.epoch)?
                })
            };
            deliveries = tx.all(&READY, &params, read).await?;
            deliveries.sort_by_key(|delivery| delivery.sequence);
        }
        if deliveries.is_empty() {
            let all_settled = first.is_none();
            let (filter, history) = (&self.filter, self.deliver_history);
            if (all_settled && end < sequence.last)
                || start_automatically(tx, destination.id, filter, history, now).await?
            {
                return Ok(DeliveryLeased::Advanced);
            }
            let until = tx.one(&NEXT_TRY_AT, &params[..7], |row| row.get(0)).await?;
            return Ok(DeliveryLeased::Nothing { until });
        }
        let fence = tx
            .one(&LEASE, &[&destination.id, &now.after(self.lease)], |row| {
                row.get(0)
            })
            .await?;
        Ok(DeliveryLeased::Batch(DeliveryLease {
            destination_id: destination.id,
            destination: self.destination.clone(),
            fence,
            failures: destination.failures,
            deliveries,
        }))
    }
}

/// Locks the destination's row; `None` also if another replica has locked it.
async fn lock_candidate<T: Tx>(
    tx: &mut T,
    request: &DeliveryLeaseRequest,
) -> Result<Option<Candidate>, StoreError> {
    static SQL: Sql = Sql::with(
        "SELECT id, position, failures, paused IS NOT NULL, waits_until, leased_until FROM destination
         WHERE name = $1{skip_leased}",
        &[(
            "skip_leased",
            Fragment::Differs("", " FOR NO KEY UPDATE SKIP LOCKED"),
        )],
    );
    tx.first(&SQL, &[&request.destination.as_str()], |row| {
        Ok(Candidate {
            id: row.get(0)?,
            position: row.get(1)?,
            failures: row.get(2)?,
            paused: row.get(3)?,
            waits_until: row.get(4)?,
            leased_until: row.get(5)?,
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan_of;

    #[test]
    fn leasing_reads_along_the_sequence_and_through_indexes_only() {
        for sql in [&FIRST_UNSETTLED, &READY, &NEXT_TRY_AT] {
            let plan = plan_of(sql);
            for expected in [
                "SEARCH d USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
                "SEARCH h USING PRIMARY KEY (destination_id=? AND sequence=?)",
            ] {
                assert!(plan.contains(expected), "{expected}: {plan}");
            }
        }
        let plan = plan_of(&READY);
        for expected in [
            "SEARCH d USING INTEGER PRIMARY KEY (rowid=?)",
            "SEARCH e USING COVERING INDEX document_identity (document_id=?)",
            "SEARCH n USING PRIMARY KEY (destination_id=? AND sequence=?)",
        ] {
            assert!(plan.contains(expected), "{expected}: {plan}");
        }
        // The only sort is that of a document's own versions.
        assert_eq!(plan.matches("TEMP B-TREE").count(), 1, "{plan}");
    }
}
