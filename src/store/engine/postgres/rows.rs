//! Reading columns, and finding or adding the rows of accounts and feeds.

use std::collections::HashMap;

use tokio_postgres::Row;

use super::connection::Transaction;
use crate::domain::{Account, Feed, Timestamp};
use crate::store::columns::{self, kind_code};
use crate::store::{StoreError, TriggerKind};

/// Escapes NUL, which JSON can contain and PostgreSQL can't store. The escape is U+FFFF,
/// which is no character and is escaped too, so that different texts stay different.
pub(super) fn escape_nul(text: &str) -> String {
    if text.contains(['\0', '\u{ffff}']) {
        text.replace('\u{ffff}', "\u{ffff}f")
            .replace('\0', "\u{ffff}0")
    } else {
        text.to_owned()
    }
}

/// Reverses [`escape_nul`].
pub(super) fn unescape_nul(text: String) -> String {
    if text.contains('\u{ffff}') {
        text.replace("\u{ffff}0", "\0")
            .replace("\u{ffff}f", "\u{ffff}")
    } else {
        text
    }
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
    Ok(columns::feed(name, queue, company)?)
}

/// Returns the account's id; adds the account if it is new.
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
    // This transaction's row, or one that another replica has committed meanwhile.
    let row = transaction.query_one(FIND, &[&account.as_str()]).await?;
    Ok(row.try_get(0)?)
}

/// Returns the feeds' ids; new feeds are added, due for reconciliation at `due_at`.
pub(super) async fn feed_ids(
    transaction: &Transaction<'_>,
    feeds: impl IntoIterator<Item = Feed>,
    due_at: Timestamp,
) -> Result<HashMap<Feed, i64>, StoreError> {
    let mut feeds: Vec<Feed> = feeds.into_iter().collect();
    // The same order everywhere prevents deadlocks.
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
             FROM unnest($1, $2, $3) AS requested (name, queue, company)
             JOIN account a ON a.name = requested.name
             JOIN feed f ON f.account_id = a.id AND f.queue = requested.queue AND f.company = requested.company",
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
        fn any_text_survives_escaping(text in "[\0\u{ffff}0f\\PC]{0,20}") {
            let stored = escape_nul(&text);
            prop_assert!(!stored.contains('\0'));
            prop_assert_eq!(unescape_nul(stored), text);
        }
    }
}
