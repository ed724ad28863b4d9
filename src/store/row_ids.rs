//! Finding or adding the rows of accounts and feeds.

use std::collections::HashMap;

use super::engine::{FEEDS_LOCK, Fragment, Param, Sql, Tx};
use super::error::Result;
use super::tallies::{Tally, count};
use super::trigger_kind::TriggerKind;
use crate::domain::{Account, Feed, Timestamp};

/// Returns the account's id; adds the account if it is new.
pub(super) async fn account_id<T: Tx>(tx: &T, account: &Account) -> Result<i64> {
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

/// A feed that may be new.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NewFeed {
    pub(super) feed: Feed,
    /// When the vendor made it known, by its own time; `None` if a person named it.
    pub(super) announced_at: Option<Timestamp>,
}

impl From<Feed> for NewFeed {
    /// Returns a feed that a person named.
    fn from(feed: Feed) -> Self {
        Self {
            feed,
            announced_at: None,
        }
    }
}

/// The feeds of three lists: accounts $1, queues $2, companies $3.
const WANTED: Fragment = Fragment::Differs(
    "(SELECT value AS account, $2 ->> key AS queue, $3 ->> key AS company FROM json_each($1)) AS v",
    "unnest($1, $2, $3) AS v (account, queue, company)",
);

/// Returns the feeds' ids; new feeds are added, due for reconciliation at `due_at`.
pub(super) async fn feed_ids<T: Tx>(
    tx: &T,
    feeds: impl IntoIterator<Item = impl Into<NewFeed>> + Send,
    due_at: Timestamp,
) -> Result<HashMap<Feed, i64>> {
    static ADD: Sql = Sql::with(
        "INSERT INTO feed (account_id, queue, company, known_at, announced_at)
         SELECT a.id, v.queue, v.company, $5, v.announced_at FROM {announced} JOIN account a ON a.name = v.account
         WHERE true ORDER BY a.name, v.queue, v.company
         ON CONFLICT (account_id, queue, company) DO NOTHING RETURNING id",
        &[(
            "announced",
            Fragment::Differs(
                "(SELECT value AS account, $2 ->> key AS queue, $3 ->> key AS company, $4 ->> key AS announced_at
                  FROM json_each($1)) AS v",
                "unnest($1, $2, $3, $4) AS v (account, queue, company, announced_at)",
            ),
        )],
    );
    static RAISE: Sql = Sql::new(
        "INSERT INTO feed_trigger (feed_id, kind, raised, due_at, account_id, queue, next_at)
         SELECT id, $2, 1, $3, account_id, queue, $3 FROM feed WHERE id IN ({elements}($1))",
    );
    // The same order everywhere prevents deadlocks. Of several announcements the first counts.
    let mut new: Vec<NewFeed> = feeds.into_iter().map(Into::into).collect();
    new.sort();
    new.dedup_by(|later, one| later.feed == one.feed);
    let feeds: Vec<Feed> = new.iter().map(|one| one.feed.clone()).collect();
    let mut found = find_feeds(tx, &feeds).await?;
    new.retain(|one| !found.contains_key(&one.feed));
    if new.is_empty() {
        return Ok(found);
    }
    // Their ids become visible in ascending order, so that none is passed over by those who read
    // what is new.
    tx.lock(FEEDS_LOCK).await?;
    let feeds: Vec<Feed> = new.iter().map(|one| one.feed.clone()).collect();
    let mut accounts: Vec<&Account> = feeds.iter().map(|feed| &feed.account).collect();
    accounts.dedup();
    for account in accounts {
        account_id(tx, account).await?;
    }
    let [accounts, queues, companies] = lists(&feeds);
    let announced: Vec<Option<Timestamp>> = new.iter().map(|one| one.announced_at).collect();
    let params: [&dyn Param; 5] = [&accounts, &queues, &companies, &announced, &due_at];
    let added: Vec<i64> = tx.all(&ADD, &params).await?;
    tx.run(&RAISE, &[&added, &TriggerKind::Reconciliation, &due_at])
        .await?;
    count(tx, Tally::Feeds, added.len()).await?;
    found.extend(find_feeds(tx, &feeds).await?);
    Ok(found)
}

async fn find_feeds<T: Tx>(tx: &T, feeds: &[Feed]) -> Result<HashMap<Feed, i64>> {
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
