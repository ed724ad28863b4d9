//! Finding or adding the rows of accounts and feeds.

use std::collections::HashMap;

use super::StoreError;
use super::columns::kind_code;
use super::engine::{Fragment, Operation, Sql, Tx};
use super::feeds::{Trigger, TriggerKind};
use super::triggers::raise_all;
use crate::domain::{Account, Feed, Timestamp};

/// Returns the account's id; adds the account if it is new.
pub(super) async fn account_id<T: Tx>(tx: &mut T, account: &Account) -> Result<i64, StoreError> {
    static FIND: Sql = Sql::new("SELECT id FROM account WHERE name = $1");
    static INSERT: Sql =
        Sql::new("INSERT INTO account (name) VALUES ($1) ON CONFLICT (name) DO NOTHING");
    let name = account.as_str();
    if let Some(id) = tx.first(&FIND, &[&name], |row| row.get(0)).await? {
        return Ok(id);
    }
    tx.execute(&INSERT, &[&name]).await?;
    // This transaction's row, or one that another replica has committed meanwhile.
    tx.one(&FIND, &[&name], |row| row.get(0)).await
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
) -> Result<HashMap<Feed, i64>, StoreError> {
    static ADD: Sql = Sql::with(
        "INSERT INTO feed (account_id, queue, company)
         SELECT a.id, v.queue, v.company FROM {wanted} JOIN account a ON a.name = v.account
         WHERE true ORDER BY a.name, v.queue, v.company
         ON CONFLICT (account_id, queue, company) DO NOTHING RETURNING id",
        &[("wanted", WANTED)],
    );
    static RAISE: Sql = Sql::new(
        "INSERT INTO feed_trigger (feed_id, kind, raised, due_at)
         SELECT id, $2, 1, $3 FROM feed WHERE id IN ({elements}($1))",
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
    let added: Vec<i64> = tx
        .all(&ADD, &[&accounts, &queues, &companies], |row| row.get(0))
        .await?;
    let kind = kind_code(TriggerKind::Reconciliation);
    tx.execute(&RAISE, &[&added, &kind, &due_at]).await?;
    found.extend(find_feeds(tx, &feeds).await?);
    Ok(found)
}

async fn find_feeds<T: Tx>(tx: &mut T, feeds: &[Feed]) -> Result<HashMap<Feed, i64>, StoreError> {
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
    let found = tx
        .all(&SQL, &[&accounts, &queues, &companies], |row| {
            Ok((row.get(0)?, row.get(3)?))
        })
        .await?;
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

/// Adds feeds that are not known yet, due for reconciliation.
pub(super) struct RegisterFeeds {
    pub(super) feeds: Vec<Feed>,
    pub(super) now: Timestamp,
}

impl Operation for RegisterFeeds {
    type Output = ();

    async fn run<T: Tx>(self, tx: &mut T) -> Result<(), StoreError> {
        // A future moment of a caller's clock would delay work.
        let due_at = self.now.min(tx.now_or(self.now));
        feed_ids(tx, self.feeds, due_at).await?;
        Ok(())
    }
}

/// Raises triggers, adding feeds that are not known yet.
pub(super) struct RaiseTriggers(pub(super) Vec<Trigger>);

impl Operation for RaiseTriggers {
    type Output = ();

    async fn run<T: Tx>(self, tx: &mut T) -> Result<(), StoreError> {
        let Some(due_at) = self.0.iter().map(|trigger| trigger.due_at).min() else {
            return Ok(());
        };
        let feeds = self.0.iter().map(|trigger| trigger.feed.clone());
        let ids = feed_ids(tx, feeds, tx.now_or(due_at)).await?;
        let triggers = self.0.into_iter();
        let with_ids = triggers
            .filter_map(|trigger| Some((*ids.get(&trigger.feed)?, trigger)))
            .collect();
        raise_all(tx, with_ids).await
    }
}
