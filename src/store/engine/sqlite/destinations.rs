//! Destinations: registering and changing them, and the list that a program reads.

use rusqlite::{Connection, OptionalExtension, named_params, params};

use super::delivery_rows::{account_names, company_codes, read_delivery};
use super::rows;
use crate::domain::{Account, Company, DestinationName, Timestamp};
use crate::store::columns::row_limit;
use crate::store::{
    DeliveryLeaseRequest, DestinationChange, DestinationFilter, DestinationPauseReason, HeldFeed,
    ListEntry, StartFrom,
};

/// Adds destinations that are not known yet, and stores their filters.
pub(super) fn register(
    connection: &Connection,
    destinations: &[(DestinationName, DestinationFilter)],
    now: Timestamp,
) -> rusqlite::Result<()> {
    for (destination, filter) in destinations {
        let text = serde_json::json!(filter).to_string();
        connection.execute(
            "INSERT INTO destination (name, created_at, filter, since_sequence, position)
             SELECT ?1, ?2, ?3, last, last FROM sequence WHERE true ON CONFLICT (name) DO NOTHING",
            params![destination.as_str(), now.as_millis(), text],
        )?;
        let changed: Option<i64> = connection
            .query_row(
                "UPDATE destination SET filter = ?2, since_sequence = (SELECT last FROM sequence)
                 WHERE name = ?1 AND filter <> ?2 RETURNING id",
                params![destination.as_str(), text],
                |row| row.get(0),
            )
            .optional()?;
        if let Some(id) = changed {
            remove_unmatched_feeds(connection, id, filter)?;
        }
    }
    Ok(())
}

/// Removes the starts of feeds that no longer match the filter.
fn remove_unmatched_feeds(
    connection: &Connection,
    destination: i64,
    filter: &DestinationFilter,
) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM destination_feed WHERE destination_id = ?1 AND feed_id NOT IN (
             SELECT f.id FROM feed f JOIN account a ON a.id = f.account_id
             WHERE f.queue = ?2
               AND (?3 = '[]' OR a.name IN (SELECT value FROM json_each(?3)))
               AND (?4 = '[]' OR f.queue = 'digitized' OR f.company IN (SELECT value FROM json_each(?4))))",
        params![
            destination,
            filter.queue.as_str(),
            account_names(filter),
            company_codes(filter)
        ],
    )?;
    Ok(())
}

/// Releases the leases of a process that ended: at the start no other process holds one.
pub(super) fn release_leases(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE destination SET leased_until = NULL", [])?;
    connection.execute("UPDATE import_error SET leased_until = NULL", [])?;
    Ok(())
}

pub(super) fn set_position(
    connection: &Connection,
    destination: i64,
    position: i64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE destination SET position = ?2 WHERE id = ?1")?
        .execute(params![destination, position])?;
    Ok(())
}

/// Assigns the next place in the destination's list to a version.
pub(super) fn assign_number(
    connection: &Connection,
    destination: i64,
    sequence: i64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE destination SET last_number = last_number + 1 WHERE id = ?1")?
        .execute(params![destination])?;
    connection
        .prepare_cached(
            "UPDATE delivery SET number = (SELECT last_number FROM destination WHERE id = ?1)
             WHERE destination_id = ?1 AND sequence = ?2",
        )?
        .execute(params![destination, sequence])?;
    Ok(())
}

/// Feeds that match the destination's filter and have not been started there.
const HELD: &str = "
    FROM feed f JOIN account a ON a.id = f.account_id
    WHERE f.queue = :queue
      AND (:accounts = '[]' OR a.name IN (SELECT value FROM json_each(:accounts)))
      AND (:companies = '[]' OR f.queue = 'digitized' OR f.company IN (SELECT value FROM json_each(:companies)))
      AND NOT EXISTS (SELECT 1 FROM destination_feed s WHERE s.destination_id = :destination AND s.feed_id = f.id)";

/// Starts feeds without history: their first pull brought nothing, and nothing was stored
/// when the destination was registered. Starts all feeds if the request says so.
pub(super) fn start_automatically(
    connection: &Connection,
    destination: i64,
    request: &DeliveryLeaseRequest,
) -> rusqlite::Result<bool> {
    let feeds: Vec<i64> = connection
        .prepare_cached(&format!(
            "SELECT f.id {HELD} AND (:all OR (f.first_complete_at IS NOT NULL AND NOT EXISTS (
                 SELECT 1 FROM document d WHERE d.feed_id = f.id
                   AND (d.first_pull OR d.sequence <= (SELECT since_sequence FROM destination WHERE id = :destination)))))"
        ))?
        .query_map(
            named_params! {
                ":destination": destination,
                ":all": request.deliver_history,
                ":queue": request.filter.queue.as_str(),
                ":accounts": account_names(&request.filter),
                ":companies": company_codes(&request.filter),
            },
            |row| row.get(0),
        )?
        .collect::<rusqlite::Result<_>>()?;
    for feed in &feeds {
        start_feed(connection, destination, *feed, StartFrom::All, request.now)?;
    }
    Ok(!feeds.is_empty())
}

/// Starts a feed, or moves its start to an earlier point; settled versions stay settled.
fn start_feed(
    connection: &Connection,
    destination: i64,
    feed: i64,
    from: StartFrom,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let since = match from {
        StartFrom::Since(moment) => Some(moment.as_millis()),
        StartFrom::All | StartFrom::Now => None,
    };
    connection
        .prepare_cached(
            "INSERT INTO destination_feed (destination_id, feed_id, started_at, everything, after_sequence, since_ms)
             SELECT ?1, ?2, ?3, ?4, last, ?5 FROM sequence WHERE true
             ON CONFLICT (destination_id, feed_id) DO UPDATE SET everything = max(everything, excluded.everything),
                 since_ms = min(coalesce(since_ms, excluded.since_ms), coalesce(excluded.since_ms, since_ms))",
        )?
        .execute(params![
            destination,
            feed,
            now.as_millis(),
            from == StartFrom::All,
            since
        ])?;
    if from != StartFrom::Now {
        // Versions that the position has passed are read again.
        connection
            .prepare_cached(
                "UPDATE destination SET position = min(position, coalesce(
                     (SELECT sequence - 1 FROM document WHERE feed_id = ?2 ORDER BY sequence LIMIT 1), position))
                 WHERE id = ?1",
            )?
            .execute(params![destination, feed])?;
    }
    Ok(())
}

/// Changes a destination; `None` if it does not exist.
pub(super) fn change(
    connection: &Connection,
    destination: &DestinationName,
    change: &DestinationChange,
    now: Timestamp,
) -> rusqlite::Result<Option<usize>> {
    let Some(id) = id(connection, destination)? else {
        return Ok(None);
    };
    let changed = match change {
        DestinationChange::Pause => connection.execute(
            "UPDATE destination SET paused = ?2 WHERE id = ?1 AND paused IS NOT ?2",
            params![id, DestinationPauseReason::ByHand.as_str()],
        )?,
        DestinationChange::Resume => connection.execute(
            "UPDATE destination SET paused = NULL, waits_until = NULL
             WHERE id = ?1 AND (paused IS NOT NULL OR waits_until IS NOT NULL)",
            params![id],
        )?,
        DestinationChange::Start {
            filter,
            account,
            company,
            from,
        } => {
            let feeds = matching_feeds(connection, filter, account.as_ref(), company.as_ref())?;
            for feed in &feeds {
                start_feed(connection, id, *feed, *from, now)?;
            }
            feeds.len()
        }
        DestinationChange::Retry { sequence } => retry(connection, id, *sequence, now)?,
        DestinationChange::Skip { sequence } => skip(connection, id, *sequence, now)?,
    };
    Ok(Some(changed))
}

fn id(connection: &Connection, destination: &DestinationName) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT id FROM destination WHERE name = ?1")?
        .query_row(params![destination.as_str()], |row| row.get(0))
        .optional()
}

fn matching_feeds(
    connection: &Connection,
    filter: &DestinationFilter,
    account: Option<&Account>,
    company: Option<&Company>,
) -> rusqlite::Result<Vec<i64>> {
    connection
        .prepare_cached(
            "SELECT f.id FROM feed f JOIN account a ON a.id = f.account_id
             WHERE f.queue = ?1
               AND (?2 = '[]' OR a.name IN (SELECT value FROM json_each(?2)))
               AND (?3 = '[]' OR f.queue = 'digitized' OR f.company IN (SELECT value FROM json_each(?3)))
               AND (?4 IS NULL OR a.name = ?4)
               AND (?5 IS NULL OR f.company = ?5)",
        )?
        .query_map(
            params![
                filter.queue.as_str(),
                account_names(filter),
                company_codes(filter),
                account.map(Account::as_str),
                company.map(Company::as_str),
            ],
            |row| row.get(0),
        )?
        .collect()
}

/// Makes versions pending again, unless a newer one exists, and moves the position back.
fn retry(
    connection: &Connection,
    destination: i64,
    sequence: Option<i64>,
    now: Timestamp,
) -> rusqlite::Result<usize> {
    let retried: Vec<i64> = connection
        .prepare_cached(
            "UPDATE delivery SET state = 'pending', next_try_at = NULL, link_tries = 0, number = NULL, changed_at = ?3
             WHERE destination_id = ?1 AND (sequence = ?2 OR (?2 IS NULL AND state = 'rejected'))
               AND EXISTS (SELECT 1 FROM document d WHERE d.sequence = delivery.sequence AND d.superseded = 0
                   AND d.body IS NOT NULL)
             RETURNING sequence",
        )?
        .query_map(params![destination, sequence, now.as_millis()], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    if let Some(first) = retried.iter().min() {
        connection.execute(
            "UPDATE destination SET position = min(position, ?2) WHERE id = ?1",
            params![destination, first - 1],
        )?;
    }
    Ok(retried.len())
}

fn skip(
    connection: &Connection,
    destination: i64,
    sequence: i64,
    now: Timestamp,
) -> rusqlite::Result<usize> {
    let skipped = connection.execute(
        "INSERT INTO delivery (destination_id, sequence, state, began_at, changed_at)
         SELECT ?1, sequence, 'skipped', ?3, ?3 FROM document WHERE sequence = ?2
         ON CONFLICT (destination_id, sequence) DO UPDATE SET state = 'skipped', changed_at = excluded.changed_at,
             next_try_at = NULL
         WHERE state = 'pending'",
        params![destination, sequence, now.as_millis()],
    )?;
    if skipped > 0 {
        connection.execute(
            "UPDATE destination SET waits_until = NULL, stuck_at = NULL WHERE id = ?1 AND stuck_at = ?2",
            params![destination, sequence],
        )?;
    }
    Ok(skipped)
}

pub(super) fn held_feeds(
    connection: &Connection,
    destination: &DestinationName,
    filter: &DestinationFilter,
) -> rusqlite::Result<Vec<HeldFeed>> {
    let Some(destination) = id(connection, destination)? else {
        return Ok(Vec::new());
    };
    connection
        .prepare_cached(&format!(
            "SELECT a.name, f.queue, f.company, f.documents, f.first_complete_at IS NOT NULL {HELD}
             ORDER BY a.name, f.company"
        ))?
        .query_map(
            named_params! {
                ":destination": destination,
                ":queue": filter.queue.as_str(),
                ":accounts": account_names(filter),
                ":companies": company_codes(filter),
            },
            |row| {
                Ok(HeldFeed {
                    feed: rows::feed(row, 0)?,
                    documents: row.get(3)?,
                    complete: row.get(4)?,
                })
            },
        )?
        .collect()
}

/// Returns entries of the list that a program reads.
pub(super) fn listed(
    connection: &Connection,
    destination: &DestinationName,
    after: i64,
    limit: usize,
    limit_bytes: usize,
) -> rusqlite::Result<Vec<ListEntry>> {
    let Some(destination) = id(connection, destination)? else {
        return Ok(Vec::new());
    };
    let epoch: String = connection.query_row("SELECT epoch FROM sequence", [], |row| row.get(0))?;
    let mut statement = connection.prepare_cached(
        "SELECT d.sequence, a.name, f.queue, f.company, d.document_id, d.version, d.stored_at, d.body,
                h.link_tries, l.url, l.listed_at, NULL, h.number, h.state
         FROM delivery h
         JOIN document d ON d.sequence = h.sequence
         JOIN feed f ON f.id = d.feed_id
         JOIN account a ON a.id = f.account_id
         LEFT JOIN document_link l ON l.sequence = d.sequence
         WHERE h.destination_id = ?1 AND h.number > ?2 AND d.body IS NOT NULL ORDER BY h.number LIMIT ?3",
    )?;
    let mut listed = statement.query(params![destination, after, row_limit(limit)])?;
    let mut entries = Vec::new();
    let mut bytes = 0;
    while bytes < limit_bytes {
        let Some(row) = listed.next()? else {
            break;
        };
        let delivery = read_delivery(row, &epoch)?;
        bytes += delivery.body.len();
        entries.push(ListEntry {
            number: row.get(12)?,
            state: rows::delivery_state(row, 13)?,
            delivery,
        });
    }
    Ok(entries)
}
