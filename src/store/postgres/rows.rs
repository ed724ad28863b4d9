//! Reading our words from columns, and the rows that others refer to.

use std::collections::HashMap;

use tokio_postgres::Row;

use super::connection::Transaction;
use crate::domain::{Account, Feed, Timestamp};
use crate::store::words::{self, kind_code};
use crate::store::{StoreError, TriggerKind};

/// Text as PostgreSQL can keep it: it has no NUL, which JSON has. U+FFFF, which is no
/// character, marks what was changed, so that no two texts become one.
pub(super) fn keepable(text: &str) -> String {
    if text.contains(['\0', '\u{ffff}']) {
        text.replace('\u{ffff}', "\u{ffff}f")
            .replace('\0', "\u{ffff}0")
    } else {
        text.to_owned()
    }
}

/// The text that [`keepable`] was given.
pub(super) fn kept(text: String) -> String {
    if text.contains('\u{ffff}') {
        text.replace("\u{ffff}0", "\0")
            .replace("\u{ffff}f", "\u{ffff}")
    } else {
        text
    }
}

/// Reads text that [`keepable`] wrote.
pub(super) fn text(row: &Row, column: usize) -> Result<String, StoreError> {
    Ok(kept(row.try_get(column)?))
}

/// Reads such text that may be absent.
pub(super) fn maybe_text(row: &Row, column: usize) -> Result<Option<String>, StoreError> {
    Ok(row.try_get::<_, Option<String>>(column)?.map(kept))
}

/// Reads a moment.
pub(super) fn moment(row: &Row, column: usize) -> Result<Timestamp, StoreError> {
    Ok(Timestamp::from_millis(row.try_get(column)?))
}

/// Reads a moment that may be absent.
pub(super) fn maybe_moment(row: &Row, column: usize) -> Result<Option<Timestamp>, StoreError> {
    Ok(row
        .try_get::<_, Option<i64>>(column)?
        .map(Timestamp::from_millis))
}

/// Reads a number that is never negative.
pub(super) fn count<N: TryFrom<i64> + Default>(row: &Row, column: usize) -> Result<N, StoreError> {
    Ok(N::try_from(row.try_get::<_, i64>(column)?).unwrap_or_default())
}

/// Reads a feed from three columns: account name, queue, company.
pub(super) fn feed(row: &Row, first: usize) -> Result<Feed, StoreError> {
    let name: &str = row.try_get(first)?;
    let queue: &str = row.try_get(first + 1)?;
    let company: &str = row.try_get(first + 2)?;
    Ok(words::feed(name, queue, company)?)
}

/// The account's row, made where it is new.
pub(super) async fn account_id(
    transaction: &Transaction<'_>,
    account: &Account,
) -> Result<i64, StoreError> {
    const FIND: &str = "SELECT id FROM account WHERE name = $1";
    if let Some(row) = transaction.query_opt(FIND, &[&account.as_str()]).await? {
        return Ok(row.try_get(0)?);
    }
    transaction
        .execute(
            "INSERT INTO account (name) VALUES ($1) ON CONFLICT (name) DO NOTHING",
            &[&account.as_str()],
        )
        .await?;
    // Ours, or another replica's that was committed meanwhile.
    let row = transaction.query_one(FIND, &[&account.as_str()]).await?;
    Ok(row.try_get(0)?)
}

/// The feeds' rows; new ones are due for reconciliation at `due_at`.
pub(super) async fn feed_ids(
    transaction: &Transaction<'_>,
    feeds: impl IntoIterator<Item = Feed>,
    due_at: Timestamp,
) -> Result<HashMap<Feed, i64>, StoreError> {
    let mut feeds: Vec<Feed> = feeds.into_iter().collect();
    // In one order everywhere, so that no two transactions wait for each other.
    feeds.sort();
    feeds.dedup();
    let mut found = find_feeds(transaction, &feeds).await?;
    let missing: Vec<Feed> = feeds
        .into_iter()
        .filter(|feed| !found.contains_key(feed))
        .collect();
    if missing.is_empty() {
        return Ok(found);
    }
    let mut accounts = Vec::with_capacity(missing.len());
    let mut known: HashMap<&Account, i64> = HashMap::new();
    for feed in &missing {
        let id = match known.get(&feed.account) {
            Some(id) => *id,
            None => account_id(transaction, &feed.account).await?,
        };
        known.insert(&feed.account, id);
        accounts.push(id);
    }
    let queues: Vec<&str> = missing.iter().map(|feed| feed.queue.as_str()).collect();
    let companies: Vec<&str> = missing.iter().map(|feed| feed.company.as_str()).collect();
    transaction
        .execute(
            "WITH made AS (
                 INSERT INTO feed (account_id, queue, company)
                 SELECT * FROM unnest($1, $2, $3)
                 ON CONFLICT (account_id, queue, company) DO NOTHING
                 RETURNING id)
             INSERT INTO feed_trigger (feed_id, kind, raised, due_at) SELECT id, $4, 1, $5 FROM made",
            &[
                &accounts,
                &queues,
                &companies,
                &kind_code(TriggerKind::Reconciliation),
                &due_at.as_millis(),
            ],
        )
        .await?;
    found.extend(find_feeds(transaction, &missing).await?);
    Ok(found)
}

async fn find_feeds(
    transaction: &Transaction<'_>,
    feeds: &[Feed],
) -> Result<HashMap<Feed, i64>, StoreError> {
    if feeds.is_empty() {
        return Ok(HashMap::new());
    }
    let accounts: Vec<&str> = feeds.iter().map(|feed| feed.account.as_str()).collect();
    let queues: Vec<&str> = feeds.iter().map(|feed| feed.queue.as_str()).collect();
    let companies: Vec<&str> = feeds.iter().map(|feed| feed.company.as_str()).collect();
    let rows = transaction
        .query(
            "SELECT a.name, f.queue, f.company, f.id
             FROM unnest($1, $2, $3) AS wanted (name, queue, company)
             JOIN account a ON a.name = wanted.name
             JOIN feed f ON f.account_id = a.id AND f.queue = wanted.queue AND f.company = wanted.company",
            &[&accounts, &queues, &companies],
        )
        .await?;
    rows.iter()
        .map(|row| Ok((feed(row, 0)?, row.try_get(3)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_round_trips(text in "[\0\u{ffff}0f\\PC]{0,20}") {
            let stored = keepable(&text);
            prop_assert!(!stored.contains('\0'));
            prop_assert_eq!(kept(stored), text);
        }
    }
}
