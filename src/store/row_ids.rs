//! Finding or adding the rows of accounts and feeds.

use std::collections::HashMap;

use super::engine::{Fragment, Sql, Tx};
use super::error::Result;
use super::trigger_kind::TriggerKind;
use crate::domain::{Account, Feed, Timestamp};

/// Returns the account's id; adds the account if it is new.
pub(super) async fn account_id<T: Tx>(tx: &mut T, account: &Account) -> Result<i64> {
    static FIND: Sql = Sql::new("SELECT id FROM account WHERE name = $1");
    static INSERT: Sql =
        Sql::new("INSERT INTO account (name) VALUES ($1) ON CONFLICT (name) DO NOTHING");
    if let Some(id) = tx.first(&FIND, &[account]).await? {
        return Ok(id);
    }
    tx.run(&INSERT, &[account]).await?;
    // This transaction's row, or one that another replica has committed meanwhile.
    tx.one(&FIND, &[account]).await
}

/// The feeds of three lists: accounts $1, queues $2, companies $3.
const WANTED: Fragment = Fragment::Differs(
    "(SELECT value AS account, $2 ->> key AS queue, $3 ->> key AS company FROM json_each($1)) AS v",
    "unnest($1, $2, $3) AS v (account, queue, company)",
);

/// Returns the feeds' ids; new feeds are added, due for reconciliation at `due_at`.
pub(super) async fn feed_ids<T: Tx>(
    tx: &mut T,
    feeds: impl IntoIterator<Item = Feed> + Send,
    due_at: Timestamp,
) -> Result<HashMap<Feed, i64>> {
    static ADD: Sql = Sql::with(
        "INSERT INTO feed (account_id, queue, company)
         SELECT a.id, v.queue, v.company FROM {wanted} JOIN account a ON a.name = v.account
         WHERE true ORDER BY a.name, v.queue, v.company
         ON CONFLICT (account_id, queue, company) DO NOTHING RETURNING id",
        &[("wanted", WANTED)],
    );
    static RAISE: Sql = Sql::new(
        "INSERT INTO feed_trigger (feed_id, kind, raised, due_at, account_id, queue, next_at)
         SELECT id, $2, 1, $3, account_id, queue, $3 FROM feed WHERE id IN ({elements}($1))",
    );
    let mut feeds: Vec<Feed> = feeds.into_iter().collect();
    // The same order everywhere prevents deadlocks.
    feeds.sort();
    feeds.dedup();
    let mut found = find_feeds(tx, &feeds).await?;
    feeds.retain(|feed| !found.contains_key(feed));
    if feeds.is_empty() {
        return Ok(found);
    }
    let mut accounts: Vec<&Account> = feeds.iter().map(|feed| &feed.account).collect();
    accounts.dedup();
    for account in accounts {
        account_id(tx, account).await?;
    }
    let [accounts, queues, companies] = lists(&feeds);
    let added: Vec<i64> = tx.all(&ADD, &[&accounts, &queues, &companies]).await?;
    tx.run(&RAISE, &[&added, &TriggerKind::Reconciliation, &due_at])
        .await?;
    found.extend(find_feeds(tx, &feeds).await?);
    Ok(found)
}

async fn find_feeds<T: Tx>(tx: &mut T, feeds: &[Feed]) -> Result<HashMap<Feed, i64>> {
    static SQL: Sql = Sql::with(
        "SELECT a.name, f.queue, f.company, f.id
         FROM {wanted} {then_join} account a ON a.name = v.account
         {then_join} feed f ON f.account_id = a.id AND f.queue = v.queue AND f.company = v.company",
        &[("wanted", WANTED)],
    );
    if feeds.is_empty() {
        return Ok(HashMap::new());
    }
    let [accounts, queues, companies] = lists(feeds);
    let found: Vec<(Feed, i64)> = tx.all(&SQL, &[&accounts, &queues, &companies]).await?;
    Ok(found.into_iter().collect())
}

/// Returns the lists of [`WANTED`].
fn lists(feeds: &[Feed]) -> [Vec<&str>; 3] {
    [
        feeds.iter().map(|feed| feed.account.as_str()).collect(),
        feeds.iter().map(|feed| feed.queue.as_str()).collect(),
        feeds.iter().map(|feed| feed.company.as_str()).collect(),
    ]
}
