//! Lists of feeds, a page at a time, and their numbers.

use super::engine::{Fragment, Sql, Tx, operations, params, rows};
use super::error::Result;
use super::feeds::{FeedPauseReason, FeedRow};
use super::tallies::{Tally, counted};
use crate::domain::{Account, Company, Feed, Queue, Timestamp};

/// Largest number of feeds of a kind that are counted.
const MAX_COUNTED: i64 = 10_000;

/// What a person should know of a feed. Removed feeds have no trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedTrouble {
    /// It is paused.
    Paused,
    /// Its last pulls failed.
    Failing,
    /// Versions may be missing.
    Incomplete,
}

/// Numbers of feeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedCounts {
    /// Those that are not removed.
    pub known: u64,
    /// Those that a person removed.
    pub removed: u64,
    /// Those of no single company, removed or not, such as that of the digitized queue.
    pub mixed: u64,
    /// Those of them that a person removed.
    pub removed_mixed: u64,
    /// Paused ones, up to 10,000.
    pub paused: u64,
    /// Those of which versions may be missing, up to 10,000.
    pub incomplete: u64,
    /// Versions that no notification announced, of all feeds.
    pub missed_notifications: u64,
}

impl FeedCounts {
    /// Returns the number of feeds of one company that are not removed.
    pub fn of_companies(&self) -> u64 {
        let mixed = self.mixed.saturating_sub(self.removed_mixed);
        self.known.saturating_sub(mixed)
    }
}

/// A number of feeds that are paused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PausedFeeds {
    /// Their account.
    pub account: Account,
    /// The reason.
    pub reason: FeedPauseReason,
    /// Their number.
    pub feeds: u64,
}

operations! {
    /// Lists all feeds, also removed ones: for a person who changes all of them.
    pub read feeds() -> Vec<FeedRow>;

    /// Lists at most `limit` feeds by account, queue and company, also removed ones, after `after`.
    pub read feed_page(after: Option<[String; 3]>, limit: usize) -> Vec<FeedRow>;

    /// Returns these feeds, as far as they are known or removed.
    pub read these_feeds(feeds: Vec<Feed>) -> Vec<FeedRow>;

    /// Lists at most `limit` feeds with a trouble, those first that became known first.
    pub read feeds_in_trouble(trouble: FeedTrouble, limit: usize) -> Vec<FeedRow>;

    /// Lists at most `limit` feeds of a queue that are neither removed nor paused, and of which no
    /// pull has ended since `before`; the longest ago first.
    pub read feeds_not_pulled(account: Account, queue: Queue, before: Timestamp, limit: usize)
        -> Vec<FeedRow>;

    /// Returns numbers of feeds.
    pub read feed_counts() -> FeedCounts;

    /// Returns when the newest pull of any feed that is not removed ended, complete or not; none if no
    /// pull has ended yet. Of paused feeds it looks at 10,000.
    pub read last_pull() -> Option<Timestamp>;

    /// Counts paused feeds by account and reason, 10,000 at most.
    pub read paused_feeds() -> Vec<PausedFeeds>;

    /// Counts the feeds that are neither removed nor paused, and of which no pull has ended since
    /// `before`; 10,000 of each queue at most.
    pub read stale_feeds(before: Timestamp) -> u64;

    /// Counts the feeds of a queue that have a trigger waiting, 10,000 at most.
    pub read waiting_feeds(account: Account, queue: Queue) -> u64;
}

/// The columns of a [`FeedRow`], of feeds `f` of accounts `a`.
const ROW: Fragment = Fragment::Same(
    "a.name, f.queue, f.company, f.known_at, f.cursor, f.last_page_at, f.pulled_at, f.up_to_date_at, f.first_complete_at,
     (SELECT g.reason FROM gap g WHERE g.feed_id = f.id AND g.closed_at IS NULL
      ORDER BY g.reason = 'page_size_unknown', g.id LIMIT 1),
     (SELECT g.found_at FROM gap g WHERE g.feed_id = f.id AND g.closed_at IS NULL
      ORDER BY g.reason = 'page_size_unknown', g.id LIMIT 1),
     f.documents, f.missed_notifications,
     (SELECT count(*) FROM gap g WHERE g.feed_id = f.id AND g.closed_at IS NULL),
     (SELECT count(*) FROM unreadable u WHERE u.feed_id = f.id),
     f.paused, f.waits_until, f.failures, f.last_error,
     (SELECT string_agg(CAST(d.kind AS TEXT), ',') FROM feed_trigger d
      LEFT JOIN feed_pull r ON r.feed_id = d.feed_id AND r.kind = d.kind
      WHERE d.feed_id = f.id AND d.raised > coalesce(r.completed, 0)),
     f.removed_at,
     coalesce((SELECT d.raised - coalesce(r.completed, 0) FROM feed_trigger d
      LEFT JOIN feed_pull r ON r.feed_id = d.feed_id AND r.kind = d.kind
      WHERE d.feed_id = f.id AND d.kind = 0), 0)",
);

rows! {
    FeedRow {
        feed, known_at, cursor, last_page_at, pulled_at, up_to_date_at, first_complete_at, incomplete,
        incomplete_since, documents, missed_notifications, gaps, unreadable, paused, waits_until, failures, last_error,
        triggers, removed_at, pending_notifications,
    }
    PausedFeeds { account, reason, feeds }
}

async fn feeds<T: Tx>(tx: &T) -> Result<Vec<FeedRow>> {
    static SQL: Sql = Sql::with(
        "SELECT {row} FROM feed f JOIN account a ON a.id = f.account_id
         ORDER BY a.name{bytewise}, f.queue, f.company",
        &[("row", ROW)],
    );
    tx.all(&SQL, &[]).await
}

async fn feed_page<T: Tx>(
    tx: &T,
    after: Option<[String; 3]>,
    limit: usize,
) -> Result<Vec<FeedRow>> {
    static ACCOUNTS: Sql =
        Sql::new("SELECT id, name FROM account WHERE name{bytewise} >= $1 ORDER BY name{bytewise}");
    static OF_ACCOUNT: Sql = Sql::with(
        "SELECT {row} FROM feed f {then_join} account a ON a.id = f.account_id
         WHERE f.account_id = $1 AND (f.queue, f.company) > ($2, $3) ORDER BY f.queue, f.company LIMIT $4",
        &[("row", ROW)],
    );
    let [first, queue, company] = after.unwrap_or_default();
    let accounts: Vec<(i64, String)> = tx.all(&ACCOUNTS, &[&first]).await?;
    let mut page: Vec<FeedRow> = Vec::new();
    for (id, name) in accounts {
        if page.len() >= limit {
            break;
        }
        let (queue, company) = match name == first {
            true => (queue.as_str(), company.as_str()),
            false => ("", ""),
        };
        let rest = limit - page.len();
        let rows: Vec<FeedRow> = tx
            .all(&OF_ACCOUNT, params! { id, queue, company, rest })
            .await?;
        page.extend(rows);
    }
    Ok(page)
}

async fn these_feeds<T: Tx>(tx: &T, feeds: Vec<Feed>) -> Result<Vec<FeedRow>> {
    static SQL: Sql = Sql::with(
        "SELECT {row} FROM account a {then_join} feed f ON f.account_id = a.id
         WHERE a.name = $1 AND f.queue = $2 AND f.company = $3",
        &[("row", ROW)],
    );
    let mut found = Vec::new();
    for feed in &feeds {
        let params = params! { feed.account, feed.queue, feed.company };
        found.extend(tx.first::<FeedRow>(&SQL, params).await?);
    }
    Ok(found)
}

async fn feeds_in_trouble<T: Tx>(
    tx: &T,
    trouble: FeedTrouble,
    limit: usize,
) -> Result<Vec<FeedRow>> {
    static PAUSED: Sql = Sql::with(
        "SELECT {row} FROM (SELECT id FROM feed{paused} WHERE paused IS NOT NULL AND removed_at IS NULL
             ORDER BY account_id, paused, id LIMIT $1) AS o
         {then_join} feed f ON f.id = o.id {then_join} account a ON a.id = f.account_id ORDER BY f.id",
        &[
            ("row", ROW),
            ("paused", Fragment::Differs(" INDEXED BY feed_paused", "")),
        ],
    );
    static FAILING: Sql = Sql::with(
        "SELECT {row} FROM (SELECT id FROM feed{failing} WHERE failures > 0 AND removed_at IS NULL
             ORDER BY id LIMIT $1) AS o
         {then_join} feed f ON f.id = o.id {then_join} account a ON a.id = f.account_id ORDER BY f.id",
        &[
            ("row", ROW),
            ("failing", Fragment::Differs(" INDEXED BY feed_failing", "")),
        ],
    );
    static INCOMPLETE: Sql = Sql::with(
        "SELECT {row} FROM (SELECT DISTINCT feed_id FROM gap{open} WHERE closed_at IS NULL
             ORDER BY feed_id LIMIT $1) AS o
         {then_join} feed f ON f.id = o.feed_id {then_join} account a ON a.id = f.account_id
         WHERE f.removed_at IS NULL ORDER BY f.id",
        &[
            ("row", ROW),
            ("open", Fragment::Differs(" INDEXED BY gap_open", "")),
        ],
    );
    let sql = match trouble {
        FeedTrouble::Paused => &PAUSED,
        FeedTrouble::Failing => &FAILING,
        FeedTrouble::Incomplete => &INCOMPLETE,
    };
    tx.all(sql, &[&limit]).await
}

async fn account<T: Tx>(tx: &T, name: &Account) -> Result<Option<i64>> {
    static SQL: Sql = Sql::new("SELECT id FROM account WHERE name = $1");
    tx.first(&SQL, &[name]).await
}

async fn feeds_not_pulled<T: Tx>(
    tx: &T,
    name: Account,
    queue: Queue,
    before: Timestamp,
    limit: usize,
) -> Result<Vec<FeedRow>> {
    static SQL: Sql = Sql::with(
        "SELECT {row} FROM feed f{pulled} {then_join} account a ON a.id = f.account_id
         WHERE f.account_id = $1 AND f.queue = $2 AND coalesce(f.pulled_at, f.known_at) < $3 AND f.paused IS NULL AND f.removed_at IS NULL
         ORDER BY coalesce(f.pulled_at, f.known_at) LIMIT $4",
        &[("row", ROW), ("pulled", PULLED)],
    );
    match account(tx, &name).await? {
        Some(id) => tx.all(&SQL, params! { id, queue, before, limit }).await,
        None => Ok(Vec::new()),
    }
}

const PULLED: Fragment = Fragment::Differs(" INDEXED BY feed_pulled", "");

async fn feed_counts<T: Tx>(tx: &T) -> Result<FeedCounts> {
    static REMOVED: Sql = Sql::new("SELECT count(*) FROM feed WHERE removed_at IS NOT NULL");
    static PAUSED: Sql = Sql::new(
        "SELECT count(*) FROM (SELECT 1 FROM feed WHERE paused IS NOT NULL AND removed_at IS NULL LIMIT $1) AS o",
    );
    static INCOMPLETE: Sql = Sql::with(
        "SELECT count(*) FROM (SELECT DISTINCT feed_id FROM gap{open} WHERE closed_at IS NULL
             ORDER BY feed_id LIMIT $1) AS o
         {then_join} feed f ON f.id = o.feed_id WHERE f.removed_at IS NULL",
        &[("open", Fragment::Differs(" INDEXED BY gap_open", ""))],
    );
    static MIXED: Sql = Sql::new("SELECT count(*), count(removed_at) FROM feed WHERE company = $1");
    let removed: u64 = tx.one(&REMOVED, &[]).await?;
    let (mixed, removed_mixed): (u64, u64) = tx.one(&MIXED, &[&Company::mixed()]).await?;
    Ok(FeedCounts {
        known: counted(tx, Tally::Feeds).await?.saturating_sub(removed),
        removed,
        mixed,
        removed_mixed,
        paused: tx.one(&PAUSED, &[&MAX_COUNTED]).await?,
        incomplete: tx.one(&INCOMPLETE, &[&MAX_COUNTED]).await?,
        missed_notifications: counted(tx, Tally::MissedNotifications).await?,
    })
}

async fn last_pull<T: Tx>(tx: &T) -> Result<Option<Timestamp>> {
    static ACCOUNTS: Sql = Sql::new("SELECT id FROM account");
    static OF_QUEUE: Sql = Sql::with(
        "SELECT f.pulled_at FROM feed f{pulled}
         WHERE f.account_id = $1 AND f.queue = $2 AND f.paused IS NULL AND f.removed_at IS NULL AND f.pulled_at IS NOT NULL
         ORDER BY coalesce(f.pulled_at, f.known_at) DESC LIMIT 1",
        &[("pulled", PULLED)],
    );
    static OF_PAUSED: Sql = Sql::new(
        "SELECT o.pulled_at FROM (
             SELECT pulled_at FROM feed WHERE paused IS NOT NULL AND removed_at IS NULL LIMIT $1) AS o
         WHERE o.pulled_at IS NOT NULL ORDER BY o.pulled_at DESC LIMIT 1",
    );
    let mut last: Option<Timestamp> = tx.first(&OF_PAUSED, &[&MAX_COUNTED]).await?;
    let accounts: Vec<i64> = tx.all(&ACCOUNTS, &[]).await?;
    for account in accounts {
        for queue in Queue::ALL {
            last = last.max(tx.first(&OF_QUEUE, params! { account, queue }).await?);
        }
    }
    Ok(last)
}

async fn paused_feeds<T: Tx>(tx: &T) -> Result<Vec<PausedFeeds>> {
    static SQL: Sql = Sql::new(
        "SELECT a.name, o.paused, o.feeds FROM (
             SELECT account_id, paused, count(*) AS feeds FROM (
                 SELECT account_id, paused FROM feed WHERE paused IS NOT NULL AND removed_at IS NULL LIMIT $1) AS p
             GROUP BY account_id, paused) AS o
         {then_join} account a ON a.id = o.account_id ORDER BY a.name{bytewise}, o.paused{bytewise}",
    );
    tx.all(&SQL, &[&MAX_COUNTED]).await
}

async fn stale_feeds<T: Tx>(tx: &T, before: Timestamp) -> Result<u64> {
    static ACCOUNTS: Sql = Sql::new("SELECT id FROM account");
    static SQL: Sql = Sql::with(
        "SELECT count(*) FROM (SELECT 1 FROM feed f{pulled}
             WHERE f.account_id = $1 AND f.queue = $2 AND coalesce(f.pulled_at, f.known_at) < $3 AND f.paused IS NULL AND f.removed_at IS NULL
             LIMIT $4) AS o",
        &[("pulled", PULLED)],
    );
    let mut stale: u64 = 0;
    let accounts: Vec<i64> = tx.all(&ACCOUNTS, &[]).await?;
    for account in accounts {
        for queue in Queue::ALL {
            let params = params! { account, queue, before, MAX_COUNTED };
            let of_queue: u64 = tx.one(&SQL, params).await?;
            stale += of_queue;
        }
    }
    Ok(stale)
}

async fn waiting_feeds<T: Tx>(tx: &T, name: Account, queue: Queue) -> Result<u64> {
    static SQL: Sql = Sql::new(
        "SELECT count(DISTINCT feed_id) FROM (
             SELECT feed_id FROM feed_trigger
             WHERE account_id = $1 AND queue = $2 AND kind >= 0 AND next_at IS NOT NULL LIMIT $3) AS w",
    );
    match account(tx, &name).await? {
        Some(id) => tx.one(&SQL, params! { id, queue, MAX_COUNTED }).await,
        None => Ok(0),
    }
}
