//! Destinations: registering and changing them, and starting their feeds.

use serde::Serialize;

use super::columns::{named, named_columns};
use super::engine::{Fragment, Param, Sql, Tx, operations, rows};
use super::error::Result;
use crate::domain::{Account, Company, DestinationName, Feed, Queue, Timestamp};

/// Selects the documents that a destination receives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DestinationFilter {
    /// Documents of this queue.
    pub queue: Queue,
    /// Documents of these accounts; of all accounts if empty.
    pub accounts: Vec<Account>,
    /// Documents of these companies; of all companies if empty. The store ignores this
    /// for the digitized queue, which mixes companies.
    pub companies: Vec<Company>,
}

impl DestinationFilter {
    /// Selects every document of a queue.
    pub fn all_of(queue: Queue) -> Self {
        Self {
            queue,
            accounts: Vec::new(),
            companies: Vec::new(),
        }
    }
}

/// The point from which a person starts the feeds of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFrom {
    /// Everything that is stored, and all later versions.
    All,
    /// Versions stored from now on.
    Now,
    /// Versions from this moment on, by the vendor's time, and all later versions.
    Since(Timestamp),
}

/// A person's change of a destination.
#[derive(Clone, Debug)]
pub enum DestinationChange {
    /// Stops deliveries until [`DestinationChange::Resume`].
    Pause,
    /// Resumes deliveries at once, paused or waiting.
    Resume,
    /// Starts feeds. Feeds that were started later than this are moved to the earlier
    /// start; settled versions are not delivered again.
    Start {
        /// The documents that the destination receives.
        filter: DestinationFilter,
        /// Only this account's feeds.
        account: Option<Account>,
        /// Only this company's feed.
        company: Option<Company>,
        /// The starting point.
        from: StartFrom,
    },
    /// Delivers rejected versions again, unless a newer version exists.
    Retry {
        /// Only this version, whatever its state; all rejected ones if none.
        sequence: Option<i64>,
    },
    /// Skips a version that is not settled.
    Skip {
        /// The version's sequence number.
        sequence: i64,
    },
}

named! {
    /// The reason why a destination is paused until a person resumes it.
    pub enum DestinationPauseReason {
        /// A person paused it.
        ByHand = "by_hand",
        /// It answered that it accepts nothing any more.
        Closed = "closed",
    }
}

named_columns! { DestinationPauseReason: "pause reason", name => Self::parse(&name); }

/// A feed that is held at a destination until a person starts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct HeldFeed {
    /// The feed.
    #[serde(flatten)]
    pub feed: Feed,
    /// Versions that are held.
    pub documents: u64,
    /// True if its first pull is complete.
    pub complete: bool,
}

/// Feeds `f` of accounts `a` that match a filter: of the queue $2, the accounts $3 and the
/// companies $4.
pub(super) const MATCHING: Fragment = Fragment::Same(
    "f.queue = $2 AND ({length}($3) = 0 OR a.name IN ({elements}($3)))
         AND ({length}($4) = 0 OR f.queue = 'digitized' OR f.company IN ({elements}($4)))",
);

/// Feeds that were not started at the destination $1.
const HELD: Fragment = Fragment::Same(
    "NOT EXISTS (SELECT 1 FROM destination_feed s WHERE s.destination_id = $1 AND s.feed_id = f.id)",
);

operations! {
    /// Adds destinations that are not known yet, and stores their filters.
    ///
    /// Versions that are stored already are history to a new destination. If the filter of
    /// a known one changes, feeds that no longer match have to be started again should they
    /// return, and versions stored so far of newly matching feeds are history.
    pub write register_destinations(
        destinations: Vec<(DestinationName, DestinationFilter)>,
        now: Timestamp,
    ) -> ();

    /// Changes a destination and returns the number of affected feeds or versions; `None`
    /// if the destination does not exist.
    pub write change_destination(
        destination: DestinationName,
        change: DestinationChange,
        now: Timestamp,
    ) -> Option<usize>, then wake_deliveries;

    /// Lists feeds that match `filter` and are held at `destination` until they are started.
    pub read held_feeds(destination: DestinationName, filter: DestinationFilter) -> Vec<HeldFeed>;
}

rows! { HeldFeed { feed, documents, complete } }

async fn register_destinations<T: Tx>(
    tx: &mut T,
    mut destinations: Vec<(DestinationName, DestinationFilter)>,
    now: Timestamp,
) -> Result<()> {
    static ADD: Sql = Sql::new(
        "INSERT INTO destination (name, created_at, filter, since_sequence, position)
         SELECT $1, $2, $3, last, last FROM sequence WHERE true ON CONFLICT (name) DO NOTHING",
    );
    static CHANGE: Sql = Sql::new(
        "UPDATE destination SET filter = $2, since_sequence = (SELECT last FROM sequence)
         WHERE name = $1 AND filter <> $2 RETURNING id",
    );
    // The starts of feeds that no longer match.
    static REMOVE_STARTS: Sql = Sql::with(
        "DELETE FROM destination_feed WHERE destination_id = $1 AND feed_id NOT IN (
             SELECT f.id FROM feed f JOIN account a ON a.id = f.account_id WHERE {matching})",
        &[("matching", MATCHING)],
    );
    let now = tx.now_or(now);
    // The same order everywhere prevents deadlocks.
    destinations.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (name, filter) in &destinations {
        let text = serde_json::json!(filter).to_string();
        tx.run(&ADD, &[name, &now, &text]).await?;
        let changed: Option<i64> = tx.first(&CHANGE, &[name, &text]).await?;
        if let Some(id) = changed {
            tx.run(&REMOVE_STARTS, &of_filter(&id, filter)).await?;
        }
    }
    Ok(())
}

/// Returns the parameters of [`MATCHING`], after $1.
fn of_filter<'a>(first: &'a dyn Param, filter: &'a DestinationFilter) -> [&'a dyn Param; 4] {
    [first, &filter.queue, &filter.accounts, &filter.companies]
}

async fn change_destination<T: Tx>(
    tx: &mut T,
    destination: DestinationName,
    change: DestinationChange,
    now: Timestamp,
) -> Result<Option<usize>> {
    static PAUSE: Sql =
        Sql::new("UPDATE destination SET paused = $2 WHERE id = $1 AND paused IS DISTINCT FROM $2");
    static RESUME: Sql = Sql::new(
        "UPDATE destination SET paused = NULL, waits_until = NULL
         WHERE id = $1 AND (paused IS NOT NULL OR waits_until IS NOT NULL)",
    );
    let now = tx.now_or(now);
    let Some(id) = lock(tx, &destination).await? else {
        return Ok(None);
    };
    let changed = match change {
        DestinationChange::Pause => {
            tx.execute(&PAUSE, &[&id, &DestinationPauseReason::ByHand])
                .await?
        }
        DestinationChange::Resume => tx.execute(&RESUME, &[&id]).await?,
        DestinationChange::Start {
            filter,
            account,
            company,
            from,
        } => {
            let feeds = matching_feeds(tx, &filter, &account, &company).await?;
            start(tx, id, &feeds, from, now).await?;
            feeds.len()
        }
        DestinationChange::Retry { sequence } => retry(tx, id, sequence, now).await?,
        DestinationChange::Skip { sequence } => skip(tx, id, sequence, now).await?,
    };
    Ok(Some(changed))
}

/// Locks a destination and returns its row's id, if there is one.
///
/// Whatever changes a destination locks its row first, then the rows that belong to it, then
/// rows of feeds.
pub(super) async fn lock<T: Tx>(tx: &mut T, destination: &DestinationName) -> Result<Option<i64>> {
    static SQL: Sql = Sql::new("SELECT id FROM destination WHERE name = $1{lock_rows}");
    tx.first(&SQL, &[destination]).await
}

async fn matching_feeds<T: Tx>(
    tx: &mut T,
    filter: &DestinationFilter,
    account: &Option<Account>,
    company: &Option<Company>,
) -> Result<Vec<i64>> {
    static SQL: Sql = Sql::with(
        "SELECT f.id FROM feed f JOIN account a ON a.id = f.account_id
         WHERE {matching} AND ($1 IS NULL OR a.name = $1) AND ($5 IS NULL OR f.company = $5)",
        &[("matching", MATCHING)],
    );
    let params = [&of_filter(account, filter)[..], &[company as &dyn Param]].concat();
    tx.all(&SQL, &params).await
}

/// Starts feeds without history: their first pull brought nothing, and nothing was stored
/// when the destination was registered. Starts all feeds if `history` is true. Returns true
/// if there was any.
pub(super) async fn start_automatically<T: Tx>(
    tx: &mut T,
    destination: i64,
    filter: &DestinationFilter,
    history: bool,
    now: Timestamp,
) -> Result<bool> {
    static SQL: Sql = Sql::with(
        "SELECT f.id FROM feed f JOIN account a ON a.id = f.account_id
         WHERE {matching} AND {held}
           AND ($5 OR (f.first_complete_at IS NOT NULL AND NOT EXISTS (
               SELECT 1 FROM document d WHERE d.feed_id = f.id
                 AND (d.first_pull OR d.sequence <= (SELECT since_sequence FROM destination WHERE id = $1)))))",
        &[("matching", MATCHING), ("held", HELD)],
    );
    let params = [
        &of_filter(&destination, filter)[..],
        &[&history as &dyn Param],
    ]
    .concat();
    let feeds: Vec<i64> = tx.all(&SQL, &params).await?;
    start(tx, destination, &feeds, StartFrom::All, now).await?;
    Ok(!feeds.is_empty())
}

/// Starts feeds, or moves their start to an earlier point; settled versions stay settled.
#[expect(
    clippy::ptr_arg,
    reason = "only a type with a size is a value of a statement"
)]
async fn start<T: Tx>(
    tx: &mut T,
    destination: i64,
    feeds: &Vec<i64>,
    from: StartFrom,
    now: Timestamp,
) -> Result<()> {
    static START: Sql = Sql::new(
        "INSERT INTO destination_feed AS s (destination_id, feed_id, started_at, everything, after_sequence, since_ms)
         SELECT $1, f.id, $3, $4, q.last, $5 FROM sequence q, feed f WHERE f.id IN ({elements}($2))
         ON CONFLICT (destination_id, feed_id) DO UPDATE SET everything = s.everything OR excluded.everything,
             since_ms = {least}(coalesce(s.since_ms, excluded.since_ms), coalesce(excluded.since_ms, s.since_ms))",
    );
    // Versions that the position has passed are read again.
    static MOVE_BACK: Sql = Sql::new(
        "UPDATE destination SET position = {least}(position, coalesce((
             SELECT min(first.sequence) - 1 FROM (
                 SELECT (SELECT d.sequence FROM document d WHERE d.feed_id = f.id ORDER BY d.sequence LIMIT 1) AS sequence
                 FROM feed f WHERE f.id IN ({elements}($2))) AS first), position))
         WHERE id = $1",
    );
    if feeds.is_empty() {
        return Ok(());
    }
    let since = match from {
        StartFrom::Since(moment) => Some(moment),
        StartFrom::All | StartFrom::Now => None,
    };
    let everything = from == StartFrom::All;
    tx.run(&START, &[&destination, feeds, &now, &everything, &since])
        .await?;
    match from {
        StartFrom::Now => Ok(()),
        _ => tx.run(&MOVE_BACK, &[&destination, feeds]).await,
    }
}

/// Makes versions pending again, unless a newer one exists, and moves the position back.
async fn retry<T: Tx>(
    tx: &mut T,
    destination: i64,
    sequence: Option<i64>,
    now: Timestamp,
) -> Result<usize> {
    const RETRY: Fragment = Fragment::Same(
        "UPDATE delivery SET state = 'pending', next_try_at = NULL, link_tries = 0, number = NULL, changed_at = $2
         WHERE destination_id = $1 AND EXISTS (
             SELECT 1 FROM document d WHERE d.sequence = delivery.sequence AND NOT d.superseded AND d.body IS NOT NULL)",
    );
    static ONE: Sql = Sql::with(
        "{retry} AND sequence = $3 RETURNING sequence",
        &[("retry", RETRY)],
    );
    // In words that the index of rejected versions has.
    static REJECTED: Sql = Sql::with(
        "{retry} AND state = 'rejected' RETURNING sequence",
        &[("retry", RETRY)],
    );
    static MOVE_BACK: Sql =
        Sql::new("UPDATE destination SET position = {least}(position, $2 - 1) WHERE id = $1");
    let retried: Vec<i64> = match sequence {
        Some(sequence) => tx.all(&ONE, &[&destination, &now, &sequence]).await?,
        None => tx.all(&REJECTED, &[&destination, &now]).await?,
    };
    if let Some(first) = retried.iter().min() {
        tx.run(&MOVE_BACK, &[&destination, first]).await?;
    }
    Ok(retried.len())
}

async fn skip<T: Tx>(tx: &mut T, destination: i64, sequence: i64, now: Timestamp) -> Result<usize> {
    static SKIP: Sql = Sql::new(
        "INSERT INTO delivery AS h (destination_id, sequence, state, began_at, changed_at)
         SELECT $1, sequence, 'skipped', $3, $3 FROM document WHERE sequence = $2
         ON CONFLICT (destination_id, sequence) DO UPDATE SET state = 'skipped', changed_at = excluded.changed_at,
             next_try_at = NULL
         WHERE h.state = 'pending'",
    );
    static CONTINUE: Sql = Sql::new(
        "UPDATE destination SET waits_until = NULL, stuck_at = NULL WHERE id = $1 AND stuck_at = $2",
    );
    let skipped = tx.execute(&SKIP, &[&destination, &sequence, &now]).await?;
    if skipped > 0 {
        tx.run(&CONTINUE, &[&destination, &sequence]).await?;
    }
    Ok(skipped)
}

async fn held_feeds<T: Tx>(
    tx: &mut T,
    destination: DestinationName,
    filter: DestinationFilter,
) -> Result<Vec<HeldFeed>> {
    static FIND: Sql = Sql::new("SELECT id FROM destination WHERE name = $1");
    static SQL: Sql = Sql::with(
        "SELECT a.name, f.queue, f.company, f.documents, f.first_complete_at IS NOT NULL
         FROM feed f JOIN account a ON a.id = f.account_id WHERE {matching} AND {held}
         ORDER BY a.name{bytewise}, f.company{bytewise}",
        &[("matching", MATCHING), ("held", HELD)],
    );
    let id: Option<i64> = tx.first(&FIND, &[&destination]).await?;
    match id {
        Some(id) => tx.all(&SQL, &of_filter(&id, &filter)).await,
        None => Ok(Vec::new()),
    }
}
