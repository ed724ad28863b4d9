//! Destinations: registering and changing them, and the list that a program reads.

use super::connection::Transaction;
use super::delivery_rows::{DELIVERY_COLUMNS, account_names, company_codes, read_delivery};
use super::rows;
use crate::domain::{Account, Company, DestinationName};
use crate::store::columns::{self, row_limit};
use crate::store::{
    DeliveryLeaseRequest, DestinationChange, DestinationFilter, DestinationPauseReason, HeldFeed,
    ListEntry, StartFrom, StoreError,
};

/// Adds destinations that are not known yet, and stores their filters.
pub(super) async fn register(
    transaction: &Transaction<'_>,
    destinations: &[(DestinationName, DestinationFilter)],
) -> Result<(), StoreError> {
    let mut destinations: Vec<&(DestinationName, DestinationFilter)> =
        destinations.iter().collect();
    // The same order everywhere prevents deadlocks.
    destinations.sort_by_key(|(name, _)| name);
    for (destination, filter) in destinations {
        let text = serde_json::json!(filter).to_string();
        transaction
            .execute(
                "INSERT INTO destination (name, created_at, filter, since_sequence, position)
                 SELECT $1, $2, $3, last, last FROM sequence ON CONFLICT (name) DO NOTHING",
                &[&destination.as_str(), &transaction.now().as_millis(), &text],
            )
            .await?;
        let changed = transaction
            .query_opt(
                "UPDATE destination SET filter = $2, since_sequence = (SELECT last FROM sequence)
                 WHERE name = $1 AND filter <> $2 RETURNING id",
                &[&destination.as_str(), &text],
            )
            .await?;
        if let Some(row) = changed {
            remove_unmatched_feeds(transaction, row.try_get(0)?, filter).await?;
        }
    }
    Ok(())
}

/// Removes the starts of feeds that no longer match the filter.
async fn remove_unmatched_feeds(
    transaction: &Transaction<'_>,
    destination: i64,
    filter: &DestinationFilter,
) -> Result<(), StoreError> {
    transaction
        .execute(
            "DELETE FROM destination_feed WHERE destination_id = $1 AND feed_id NOT IN (
                 SELECT f.id FROM feed f JOIN account a ON a.id = f.account_id
                 WHERE f.queue = $2
                   AND (cardinality($3) = 0 OR a.name = ANY ($3))
                   AND (cardinality($4) = 0 OR f.queue = 'digitized' OR f.company = ANY ($4)))",
            &[
                &destination,
                &filter.queue.as_str(),
                &account_names(filter),
                &company_codes(filter),
            ],
        )
        .await?;
    Ok(())
}

pub(super) async fn set_position(
    transaction: &Transaction<'_>,
    destination: i64,
    position: i64,
) -> Result<(), StoreError> {
    transaction
        .execute(
            "UPDATE destination SET position = $2 WHERE id = $1",
            &[&destination, &position],
        )
        .await?;
    Ok(())
}

/// Assigns the next place in the destination's list to a version.
pub(super) async fn assign_number(
    transaction: &Transaction<'_>,
    destination: i64,
    sequence: i64,
) -> Result<(), StoreError> {
    transaction
        .execute(
            "WITH next AS (UPDATE destination SET last_number = last_number + 1 WHERE id = $1 RETURNING last_number)
             UPDATE delivery SET number = next.last_number FROM next WHERE destination_id = $1 AND sequence = $2",
            &[&destination, &sequence],
        )
        .await?;
    Ok(())
}

/// Feeds that match the filter of a destination (`$1`) and have not been started there.
const HELD: &str = "
    FROM feed f JOIN account a ON a.id = f.account_id
    WHERE f.queue = $2
      AND (cardinality($3) = 0 OR a.name = ANY ($3))
      AND (cardinality($4) = 0 OR f.queue = 'digitized' OR f.company = ANY ($4))
      AND NOT EXISTS (SELECT 1 FROM destination_feed s WHERE s.destination_id = $1 AND s.feed_id = f.id)";

/// Starts feeds without history: their first pull brought nothing, and nothing was stored
/// when the destination was registered. Starts all feeds if the request says so.
pub(super) async fn start_automatically(
    transaction: &Transaction<'_>,
    destination: i64,
    request: &DeliveryLeaseRequest,
) -> Result<bool, StoreError> {
    let found = transaction
        .query(
            &format!(
                "SELECT f.id {HELD} AND ($5 OR (f.first_complete_at IS NOT NULL AND NOT EXISTS (
                     SELECT 1 FROM document d WHERE d.feed_id = f.id
                       AND (d.first_pull OR d.sequence <= (SELECT since_sequence FROM destination WHERE id = $1)))))"
            ),
            &[
                &destination,
                &request.filter.queue.as_str(),
                &account_names(&request.filter),
                &company_codes(&request.filter),
                &request.deliver_history,
            ],
        )
        .await?;
    for row in &found {
        start_feed(transaction, destination, row.try_get(0)?, StartFrom::All).await?;
    }
    Ok(!found.is_empty())
}

/// Starts a feed, or moves its start to an earlier point; settled versions stay settled.
async fn start_feed(
    transaction: &Transaction<'_>,
    destination: i64,
    feed: i64,
    from: StartFrom,
) -> Result<(), StoreError> {
    let since = match from {
        StartFrom::Since(moment) => Some(moment.as_millis()),
        StartFrom::All | StartFrom::Now => None,
    };
    transaction
        .execute(
            "INSERT INTO destination_feed AS s (destination_id, feed_id, started_at, everything, after_sequence, since_ms)
             SELECT $1, $2, $3, $4, last, $5 FROM sequence
             ON CONFLICT (destination_id, feed_id) DO UPDATE SET everything = s.everything OR excluded.everything,
                 since_ms = least(s.since_ms, excluded.since_ms)",
            &[
                &destination,
                &feed,
                &transaction.now().as_millis(),
                &(from == StartFrom::All),
                &since,
            ],
        )
        .await?;
    if from != StartFrom::Now {
        // Versions that the position has passed are read again.
        transaction
            .execute(
                "UPDATE destination SET position = least(position,
                     (SELECT sequence - 1 FROM document WHERE feed_id = $2 ORDER BY sequence LIMIT 1))
                 WHERE id = $1",
                &[&destination, &feed],
            )
            .await?;
    }
    Ok(())
}

/// Changes a destination; `None` if it does not exist.
pub(super) async fn change(
    transaction: &Transaction<'_>,
    destination: &DestinationName,
    change: &DestinationChange,
) -> Result<Option<usize>, StoreError> {
    let row = transaction
        .query_opt(
            "SELECT id FROM destination WHERE name = $1 FOR NO KEY UPDATE",
            &[&destination.as_str()],
        )
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let id: i64 = row.try_get(0)?;
    let changed = match change {
        DestinationChange::Pause => transaction
            .execute(
                "UPDATE destination SET paused = $2 WHERE id = $1 AND paused IS DISTINCT FROM $2",
                &[&id, &DestinationPauseReason::ByHand.as_str()],
            )
            .await?,
        DestinationChange::Resume => {
            transaction
                .execute(
                    "UPDATE destination SET paused = NULL, waits_until = NULL
                     WHERE id = $1 AND (paused IS NOT NULL OR waits_until IS NOT NULL)",
                    &[&id],
                )
                .await?
        }
        DestinationChange::Start {
            filter,
            account,
            company,
            from,
        } => {
            let feeds =
                matching_feeds(transaction, filter, account.as_ref(), company.as_ref()).await?;
            for feed in &feeds {
                start_feed(transaction, id, *feed, *from).await?;
            }
            feeds.len()
        }
        DestinationChange::Retry { sequence } => retry(transaction, id, *sequence).await?,
        DestinationChange::Skip { sequence } => skip(transaction, id, *sequence).await?,
    };
    Ok(Some(changed))
}

async fn matching_feeds(
    transaction: &Transaction<'_>,
    filter: &DestinationFilter,
    account: Option<&Account>,
    company: Option<&Company>,
) -> Result<Vec<i64>, StoreError> {
    let found = transaction
        .query(
            "SELECT f.id FROM feed f JOIN account a ON a.id = f.account_id
             WHERE f.queue = $1
               AND (cardinality($2) = 0 OR a.name = ANY ($2))
               AND (cardinality($3) = 0 OR f.queue = 'digitized' OR f.company = ANY ($3))
               AND ($4 IS NULL OR a.name = $4)
               AND ($5 IS NULL OR f.company = $5)",
            &[
                &filter.queue.as_str(),
                &account_names(filter),
                &company_codes(filter),
                &account.map(Account::as_str),
                &company.map(Company::as_str),
            ],
        )
        .await?;
    found.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Makes versions pending again, unless a newer one exists, and moves the position back.
async fn retry(
    transaction: &Transaction<'_>,
    destination: i64,
    sequence: Option<i64>,
) -> Result<usize, StoreError> {
    let retried = transaction
        .query(
            "UPDATE delivery h SET state = 'pending', next_try_at = NULL, link_tries = 0, number = NULL, changed_at = $3
             FROM document d
             WHERE h.destination_id = $1 AND (h.sequence = $2 OR ($2 IS NULL AND h.state = 'rejected'))
               AND d.sequence = h.sequence AND NOT d.superseded AND d.body IS NOT NULL
             RETURNING h.sequence",
            &[&destination, &sequence, &transaction.now().as_millis()],
        )
        .await?;
    let mut first: Option<i64> = None;
    for row in &retried {
        let sequence: i64 = row.try_get(0)?;
        first = Some(first.map_or(sequence, |first| first.min(sequence)));
    }
    if let Some(first) = first {
        transaction
            .execute(
                "UPDATE destination SET position = least(position, $2) WHERE id = $1",
                &[&destination, &(first - 1)],
            )
            .await?;
    }
    Ok(retried.len())
}

async fn skip(
    transaction: &Transaction<'_>,
    destination: i64,
    sequence: i64,
) -> Result<usize, StoreError> {
    let skipped = transaction
        .execute(
            "INSERT INTO delivery AS h (destination_id, sequence, state, began_at, changed_at)
             SELECT $1, sequence, 'skipped', $3, $3 FROM document WHERE sequence = $2
             ON CONFLICT (destination_id, sequence) DO UPDATE SET state = 'skipped', changed_at = excluded.changed_at,
                 next_try_at = NULL
             WHERE h.state = 'pending'",
            &[&destination, &sequence, &transaction.now().as_millis()],
        )
        .await?;
    if skipped > 0 {
        transaction
            .execute(
                "UPDATE destination SET waits_until = NULL, stuck_at = NULL WHERE id = $1 AND stuck_at = $2",
                &[&destination, &sequence],
            )
            .await?;
    }
    Ok(skipped)
}

pub(super) async fn held_feeds(
    transaction: &Transaction<'_>,
    destination: &DestinationName,
    filter: &DestinationFilter,
) -> Result<Vec<HeldFeed>, StoreError> {
    let Some(destination) = id(transaction, destination).await? else {
        return Ok(Vec::new());
    };
    let found = transaction
        .query(
            &format!(
                "SELECT a.name, f.queue, f.company, f.documents, f.first_complete_at IS NOT NULL {HELD}
                 ORDER BY a.name, f.company"
            ),
            &[
                &destination,
                &filter.queue.as_str(),
                &account_names(filter),
                &company_codes(filter),
            ],
        )
        .await?;
    found
        .iter()
        .map(|row| {
            Ok(HeldFeed {
                feed: rows::feed(row, 0)?,
                documents: rows::count(row, 3)?,
                complete: row.try_get(4)?,
            })
        })
        .collect()
}

async fn id(
    transaction: &Transaction<'_>,
    destination: &DestinationName,
) -> Result<Option<i64>, StoreError> {
    let row = transaction
        .query_opt(
            "SELECT id FROM destination WHERE name = $1",
            &[&destination.as_str()],
        )
        .await?;
    row.map(|row| Ok(row.try_get(0)?)).transpose()
}

/// Returns entries of the list that a program reads.
pub(super) async fn listed(
    transaction: &Transaction<'_>,
    destination: &DestinationName,
    after: i64,
    limit: usize,
    limit_bytes: usize,
) -> Result<Vec<ListEntry>, StoreError> {
    let Some(destination) = id(transaction, destination).await? else {
        return Ok(Vec::new());
    };
    let row = transaction
        .query_one("SELECT epoch FROM sequence", &[])
        .await?;
    let epoch: String = row.try_get(0)?;
    let found = transaction
        .query(
            &format!(
                "SELECT * FROM (
                     SELECT chosen.*, sum(octet_length(body)) OVER (ORDER BY number) - octet_length(body) AS before
                     FROM (SELECT {DELIVERY_COLUMNS}, h.number, h.state
                           FROM delivery h
                           JOIN document d ON d.sequence = h.sequence
                           JOIN feed f ON f.id = d.feed_id
                           JOIN account a ON a.id = f.account_id
                           LEFT JOIN document_link l ON l.sequence = d.sequence
                           WHERE h.destination_id = $1 AND h.number > $2 AND d.body IS NOT NULL
                           ORDER BY h.number LIMIT $3) AS chosen) AS weighed
                 WHERE before < $4 ORDER BY number"
            ),
            &[
                &destination,
                &after,
                &row_limit(limit),
                &i64::try_from(limit_bytes).unwrap_or(i64::MAX),
            ],
        )
        .await?;
    found
        .iter()
        .map(|row| {
            Ok(ListEntry {
                delivery: read_delivery(row, &epoch)?,
                number: row.try_get(11)?,
                state: columns::delivery_state(row.try_get(12)?)?,
            })
        })
        .collect()
}
