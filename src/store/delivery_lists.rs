//! Lists of destinations and of their deliveries.

use std::collections::{BTreeMap, HashMap};

use super::deliveries::{
    AttemptRow, DeliveryFilter, DeliveryRow, DeliveryState, DestinationRow, ListEntry,
};
use super::delivery_leases::{COLUMNS, OF_CHOSEN};
use super::engine::{Column, Columns, Fragment, Param, Sql, Tx, operations, params, rows};
use super::error::Result;
use crate::domain::DestinationName;

/// Maximum number of versions or lanes in one state that are counted.
const MAX_COUNTED: i64 = 10_000;

/// Maximum number of versions that are read to count those that wait.
const MAX_WAITING: i64 = 1_000;

operations! {
    /// Lists all destinations that were ever registered.
    pub read destinations() -> Vec<DestinationRow>;

    /// Returns the number of destinations that were ever registered.
    pub read destination_count() -> usize;

    /// Lists deliveries with their attempts, in ascending sequence.
    pub read deliveries(filter: DeliveryFilter) -> Vec<DeliveryRow>;

    /// Returns at most `limit` entries of a destination's list after place `after`; none
    /// is added after `limit_bytes` of bodies.
    pub read listed(destination: DestinationName, after: i64, limit: usize, limit_bytes: usize)
        -> Vec<ListEntry>;
}

rows! {
    AttemptRow { began_at, ended_at, result, detail, times }
    ListEntry { number, state, delivery }
}

async fn destinations<T: Tx>(tx: &T) -> Result<Vec<DestinationRow>> {
    static SQL: Sql = Sql::with(
        "SELECT s.id, s.name,
                (SELECT coalesce(CAST(sum(o.held) AS {integer}), 0) FROM (SELECT l.held FROM lane l{by_held}
                     WHERE l.destination_id = s.id AND l.held > 0 AND l.removed_at IS NULL LIMIT 100000) AS o),
                (SELECT count(*) FROM (SELECT 1 FROM delivery h{by_state} WHERE h.destination_id = s.id
                     AND h.state = 'deferred' AND h.state <> 'delivered' LIMIT $1) AS o),
                (SELECT count(*) FROM (SELECT 1 FROM delivery h{by_state} WHERE h.destination_id = s.id
                     AND h.state = 'waiting_file' AND h.state <> 'delivered' LIMIT $1) AS o),
                (SELECT count(*) FROM (SELECT 1 FROM lane l{by_trouble} WHERE l.destination_id = s.id
                     AND (l.failures > 0 OR l.paused IS NOT NULL) AND l.paused IS NULL LIMIT $1) AS o),
                (SELECT min(o.failing_since) FROM (SELECT l.failing_since FROM lane l{by_trouble} WHERE l.destination_id = s.id
                     AND (l.failures > 0 OR l.paused IS NOT NULL) AND l.paused IS NULL LIMIT $1) AS o),
                (SELECT count(*) FROM (SELECT 1 FROM lane l{by_trouble} WHERE l.destination_id = s.id
                     AND (l.failures > 0 OR l.paused IS NOT NULL) AND l.paused IS NOT NULL LIMIT $1) AS o),
                (SELECT count(*) FROM (SELECT 1 FROM lane l{by_unknown} WHERE l.destination_id = s.id
                     AND l.begins_at IS NULL AND l.removed_at IS NULL AND l.history_from IS NULL LIMIT $1) AS o),
                (SELECT count(*) FROM (SELECT 1 FROM lane l{by_start} WHERE l.destination_id = s.id
                     AND l.history_from IS NOT NULL LIMIT $1) AS o),
                s.delivered, s.rejected,
                (SELECT count(*) FROM (SELECT h.sequence FROM delivery h{by_state} WHERE h.destination_id = s.id
                     AND h.state = 'rejected' AND h.state <> 'delivered' LIMIT $2) AS o
                 {then_join} document d ON d.sequence = o.sequence WHERE NOT d.superseded),
                s.paused, s.waits_until, s.failing_since, s.failures, s.last_error, s.stuck_at, s.last_success_at
         FROM destination s ORDER BY s.name{bytewise}",
        &[
            (
                "by_unknown",
                Fragment::Differs(" INDEXED BY lane_unknown", ""),
            ),
            ("by_start", Fragment::Differs(" INDEXED BY lane_started", "")),
            ("by_held", Fragment::Differs(" INDEXED BY lane_held", "")),
            ("integer", Fragment::Differs("INTEGER", "BIGINT")),
        ],
    );
    // Those that a lane is to deliver are the next after its position, for the most part. The order is
    // the index's, without which PostgreSQL may read all lanes to find the first. A paused lane is not due.
    static WAITING: Sql = Sql::with(
        "SELECT count(*), min(d.stored_at) FROM (
             SELECT * FROM (SELECT {version}, l.begins_at, l.history_from
                 FROM lane l{by_due} {then_join} document v ON v.feed_id = l.feed_id AND v.sequence > l.position
                 WHERE l.destination_id = $1 AND l.due_at IS NOT NULL ORDER BY l.due_at LIMIT $2) AS due
             UNION ALL
             SELECT * FROM (SELECT {version}, p.begins_at, p.history_from
                 FROM (SELECT l.feed_id, l.position, l.begins_at, l.history_from FROM lane l{by_trouble}
                     WHERE l.destination_id = $1 AND (l.failures > 0 OR l.paused IS NOT NULL) AND l.paused IS NOT NULL
                       AND l.removed_at IS NULL LIMIT $2) AS p
                 {then_join} document v ON v.feed_id = p.feed_id AND v.sequence > p.position LIMIT $2) AS paused) AS d
         {with_delivery}
         WHERE NOT d.superseded AND NOT d.bare AND CASE
             WHEN h.sequence IS NOT NULL AND h.state <> 'held' THEN h.state = 'pending' AND h.number IS NULL AND h.next_try_at IS NULL
             WHEN d.version_ms IS NULL THEN NOT d.first_pull OR coalesce(d.history_from = '', false)
             ELSE coalesce(d.version{bytewise} >= d.begins_at, false) OR coalesce(d.version{bytewise} >= d.history_from, false) END",
        &[(
            "version",
            Fragment::Same(
                "v.sequence, v.stored_at, v.superseded, v.version, v.version_ms, v.first_pull, v.body IS NULL AS bare",
            ),
        )],
    );
    let mut rows: Vec<(i64, DestinationRow)> = tx.all(&SQL, &[&MAX_COUNTED, &MAX_WAITING]).await?;
    for (id, row) in &mut rows {
        (row.waiting, row.waiting_since) = tx.one(&WAITING, &[id, &MAX_WAITING]).await?;
        row.waiting = row.waiting.min(MAX_WAITING.unsigned_abs());
    }
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

async fn destination_count<T: Tx>(tx: &T) -> Result<usize> {
    static SQL: Sql = Sql::new("SELECT count(*) FROM destination");
    tx.one(&SQL, &[]).await
}

impl Column for DestinationRow {
    /// Reads a destination without the versions that wait.
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            waiting: 0,
            waiting_since: None,
            name: columns.get()?,
            held: columns.get()?,
            deferred: columns.get()?,
            waiting_file: columns.get()?,
            failing_lanes: columns.get()?,
            failing_lanes_since: columns.get()?,
            paused_lanes: columns.get()?,
            unknown_lanes: columns.get()?,
            started_lanes: columns.get()?,
            delivered: columns.get()?,
            rejected: columns.get()?,
            rejected_now: columns.get()?,
            paused: columns.get()?,
            waits_until: columns.get()?,
            failing_since: columns.get()?,
            failures: columns.get()?,
            last_error: columns.get()?,
            stuck_at: columns.get()?,
            last_success_at: columns.get()?,
        })
    }
}

impl Column for DeliveryRow {
    /// Reads a delivery without its attempts.
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            destination: columns.get()?,
            sequence: columns.get()?,
            feed: columns.get()?,
            document_id: columns.get()?,
            state: columns.get()?,
            number: columns.get()?,
            next_try_at: columns.get()?,
            began_at: columns.get()?,
            changed_at: columns.get()?,
            detail: columns.get()?,
            attempts: Vec::new(),
        })
    }
}

async fn deliveries<T: Tx>(tx: &T, filter: DeliveryFilter) -> Result<Vec<DeliveryRow>> {
    /// Selects deliveries `h` with their destinations, documents and feeds. A version that a newer
    /// one has replaced before it was delivered is superseded.
    const DELIVERIES: Fragment = Fragment::Same(
        "SELECT s.id, s.name, h.sequence, a.name, f.queue, f.company, d.document_id,
                CASE WHEN d.superseded AND h.state IN ('pending', 'deferred', 'waiting_file', 'held', 'rejected')
                     THEN 'superseded' ELSE h.state END,
                h.number, h.next_try_at, h.began_at, h.changed_at, coalesce(h.detail, h.note)
         FROM delivery h{by_index} {then_join} destination s ON s.id = h.destination_id
         {then_join} document d ON d.sequence = h.sequence
         {then_join} feed f ON f.id = d.feed_id {then_join} account a ON a.id = f.account_id",
    );
    static DESTINATIONS: Sql = Sql::new(
        "SELECT id FROM destination WHERE $1 IS NULL OR name = $1 ORDER BY name{bytewise}",
    );
    static OF_VERSION: Sql = Sql::with(
        "{deliveries} WHERE h.destination_id = $1 AND h.sequence = $2 AND ($3 IS NULL OR h.state = $3)",
        &[("deliveries", DELIVERIES), ("by_index", Fragment::Same(""))],
    );
    // Those that a newer version has replaced are no longer in their own state.
    static IN_STATE: Sql = Sql::with(
        "{deliveries} WHERE h.destination_id = $1 AND h.state = $4 AND h.state <> 'delivered' AND h.sequence > $2
             AND (h.state NOT IN ('pending', 'deferred', 'waiting_file', 'held', 'rejected') OR NOT d.superseded)
             AND ($5 IS NULL OR f.company = $5)
         ORDER BY h.sequence LIMIT $3",
        &[("deliveries", DELIVERIES), ("by_index", Fragment::Same("{by_state}"))],
    );
    static OF_ALL: Sql = Sql::with(
        "{deliveries} WHERE h.destination_id = $1 AND h.sequence > $2 AND ($4 IS NULL OR h.state = $4)
         ORDER BY h.sequence LIMIT $3",
        &[("deliveries", DELIVERIES), ("by_index", Fragment::Same(""))],
    );
    // Along the documents of the company's feeds.
    static OF_COMPANY: Sql = Sql::with(
        "{deliveries} WHERE h.destination_id = $1 AND h.sequence IN (
             SELECT o.sequence FROM feed c {then_join} document o ON o.feed_id = c.id AND o.sequence > $2
             {then_join} delivery p ON p.destination_id = $1 AND p.sequence = o.sequence
             WHERE c.company = $5 AND ($4 IS NULL OR p.state = $4) ORDER BY o.sequence LIMIT $3)
         ORDER BY h.sequence{no_index} LIMIT $3",
        &[
            ("deliveries", DELIVERIES),
            ("by_index", Fragment::Same("")),
        ],
    );
    static ATTEMPTS: Sql = Sql::new(
        "SELECT sequence, began_at, ended_at, result, detail, times FROM delivery_attempt
         WHERE destination_id = $1 AND sequence IN ({elements}($2)) ORDER BY sequence, number",
    );
    let (state, after, limit) = (filter.state, filter.after, filter.limit);
    let mut found: Vec<(i64, DeliveryRow)> = Vec::new();
    let destinations: Vec<i64> = tx.all(&DESTINATIONS, &[&filter.destination]).await?;
    for id in destinations {
        let params = params! { id, after, limit, state, filter.company };
        let rows: Vec<(i64, DeliveryRow)> = match (filter.sequence, state) {
            (Some(sequence), _) => tx.all(&OF_VERSION, &[&id, &sequence, &state]).await?,
            (None, Some(one)) if one != DeliveryState::Delivered => {
                tx.all(&IN_STATE, params).await?
            }
            (None, _) if filter.company.is_some() => tx.all(&OF_COMPANY, params).await?,
            (None, _) => tx.all(&OF_ALL, &params[..4]).await?,
        };
        found.extend(rows);
    }
    // Those of one version stay in the order of their destinations.
    found.sort_by_key(|(_, row)| row.sequence);
    found.truncate(limit);
    let mut sequences: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (destination, delivery) in &found {
        let of_destination = sequences.entry(*destination).or_default();
        of_destination.push(delivery.sequence);
    }
    let mut attempts: HashMap<(i64, i64), Vec<AttemptRow>> = HashMap::new();
    for (destination, sequences) in sequences {
        let rows: Vec<(i64, AttemptRow)> = tx.all(&ATTEMPTS, &[&destination, &sequences]).await?;
        for (sequence, row) in rows {
            attempts
                .entry((destination, sequence))
                .or_default()
                .push(row);
        }
    }
    let with_attempts = found
        .into_iter()
        .map(|(destination, delivery)| DeliveryRow {
            attempts: attempts
                .remove(&(destination, delivery.sequence))
                .unwrap_or_default(),
            ..delivery
        });
    Ok(with_attempts.collect())
}

async fn listed<T: Tx>(
    tx: &T,
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
