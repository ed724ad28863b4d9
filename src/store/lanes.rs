//! Lanes: one feed at one destination, its beginning and its place.

use std::time::Duration;

use super::deliveries::LanePlan;
use super::destinations::{MATCHING, WITHOUT_STATE, lock};
use super::engine::{Fragment, Sql, Tx, operations, params, rows};
use super::error::Result;
use crate::domain::{DestinationName, Moment, Timestamp};

/// Maximum number of feeds that get their lanes in one transaction.
const MAX_LANES: i64 = 500;

operations! {
    /// Makes lanes for feeds that became known; returns true if there may be more.
    pub write make_lanes(destination: DestinationName, plan: LanePlan, now: Timestamp) -> bool;
}

async fn make_lanes<T: Tx>(
    tx: &T,
    destination: DestinationName,
    plan: LanePlan,
    now: Timestamp,
) -> Result<bool> {
    let now = tx.now_or(now);
    match lock(tx, &destination).await? {
        Some(id) => add_lanes(tx, id, &plan, now).await,
        None => Ok(false),
    }
}

/// A feed that gets a lane.
struct NewLane {
    feed: i64,
    matches: bool,
    known_at: Timestamp,
    announced_at: Option<Timestamp>,
    begins_at: Option<String>,
    clock_offset: Option<i64>,
}

rows! { NewLane { feed, matches, known_at, announced_at, begins_at, clock_offset } }

/// Makes lanes for a batch of the feeds that became known since the last call, and lets those
/// begin that waited for the vendor's clock. Returns true if there may be more.
///
/// The destination's row is locked.
pub(super) async fn add_lanes<T: Tx>(
    tx: &T,
    destination: i64,
    plan: &LanePlan,
    now: Timestamp,
) -> Result<bool> {
    // Again from the first feed once an account has shown the vendor's clock.
    static STATE: Sql = Sql::new(
        "SELECT filter, known_at, CASE WHEN accounts_known = n.accounts THEN lanes_to ELSE 0 END, n.accounts
         FROM destination, (SELECT count(*) AS accounts FROM account WHERE clock_offset IS NOT NULL) AS n
         WHERE id = $1",
    );
    // The rows are locked, so that no page of these feeds is being stored that finds no lane.
    static FEEDS: Sql = Sql::with(
        "SELECT f.id, {matching}, f.known_at, f.announced_at, f.begins_at, a.clock_offset
         FROM feed f {then_join} account a ON a.id = f.account_id
         WHERE f.id > $1 ORDER BY f.id LIMIT $5{lock_feeds}",
        &[
            ("matching", MATCHING),
            (
                "lock_feeds",
                Fragment::Differs("", " FOR NO KEY UPDATE OF f"),
            ),
        ],
    );
    // One that was removed starts over.
    static ADD: Sql = Sql::new(
        "INSERT INTO lane AS l (destination_id, feed_id, begins_at, history_from, due_at)
         VALUES ($1, $2, $3, CASE WHEN $4 THEN '' END, CASE WHEN $4 OR $3 IS NOT NULL THEN $5 END)
         ON CONFLICT (destination_id, feed_id) DO UPDATE SET removed_at = NULL, turn = 0,
             begins_at = CASE WHEN l.removed_at IS NULL THEN coalesce(l.begins_at, excluded.begins_at) ELSE excluded.begins_at END,
             position = CASE WHEN $4 AND l.history_from IS DISTINCT FROM '' THEN 0 ELSE l.position END,
             held = CASE WHEN $4 AND l.history_from IS DISTINCT FROM '' THEN 0 ELSE l.held END,
             history_from = coalesce(excluded.history_from, l.history_from),
             due_at = CASE WHEN l.paused IS NULL THEN coalesce(l.due_at, excluded.due_at) END
         WHERE l.removed_at IS NOT NULL OR (l.begins_at IS NULL AND excluded.begins_at IS NOT NULL)
            OR ($4 AND l.history_from IS DISTINCT FROM '')",
    );
    static REMOVE: Sql = Sql::with(
        "UPDATE lane SET removed_at = $2, {without_state}
         WHERE destination_id = $1 AND removed_at IS NULL AND feed_id IN ({elements}($3))",
        &[("without_state", WITHOUT_STATE)],
    );
    static DONE: Sql =
        Sql::new("UPDATE destination SET lanes_to = $2, accounts_known = $3 WHERE id = $1");
    let (stored, known_at, lanes_to, accounts): (String, Timestamp, i64, i64) =
        tx.one(&STATE, &[&destination]).await?;
    let filter = &plan.filter;
    // Another replica has newer settings, and this one will be restarted with them: until then its own would bring
    // lanes back that are not wanted any more.
    if stored != filter.to_json() {
        return Ok(false);
    }
    let params = params! { lanes_to, filter.queue, filter.accounts, filter.companies, MAX_LANES };
    let feeds: Vec<NewLane> = tx.all(&FEEDS, params).await?;
    let Some(last) = feeds.last() else {
        return Ok(false);
    };
    tx.run(&DONE, &[&destination, &last.feed, &accounts])
        .await?;
    let unwanted = feeds.iter().filter(|one| !one.matches);
    let unwanted: Vec<i64> = unwanted.map(|one| one.feed).collect();
    if !unwanted.is_empty() {
        tx.run(&REMOVE, &[&destination, &now, &unwanted]).await?;
    }
    for one in feeds.iter().filter(|one| one.matches) {
        let begins_at = one.begins_at(known_at, plan.lookback, now);
        let params = params! { destination, one.feed, begins_at, plan.deliver_history, now };
        tx.run(&ADD, params).await?;
    }
    Ok(true)
}

impl NewLane {
    /// Returns the moment from which its versions are no history, in the vendor's time: the later
    /// of those when the destination and the feed became known, which is not later than `now`: a
    /// clock may have been ahead then. `None` if the vendor's clock is not known yet.
    fn begins_at(
        &self,
        destination_known_at: Timestamp,
        lookback: Duration,
        now: Timestamp,
    ) -> Option<String> {
        let offset = self.clock_offset?;
        let known = |at: Timestamp| vendor_moment(shifted(at.min(now), offset));
        let of_destination = known(destination_known_at)?;
        let of_feed = match (&self.begins_at, self.announced_at) {
            (Some(begins_at), _) => begins_at.clone(),
            (None, Some(announced_at)) => vendor_moment(announced_at.before(lookback))?,
            (None, None) => known(self.known_at)?,
        };
        Some(of_destination.max(of_feed))
    }
}

/// Returns a moment of our clock by the vendor's, which is `offset` milliseconds ahead.
pub(super) fn shifted(moment: Timestamp, offset: i64) -> Timestamp {
    Timestamp::from_millis(moment.as_millis().saturating_add(offset))
}

/// Returns the text of a moment, which orders like the versions of documents.
fn vendor_moment(moment: Timestamp) -> Option<String> {
    Moment::read(&moment.to_string()).map(|moment| moment.as_str().to_owned())
}

/// Makes the lanes of a feed due that has new versions. Paused lanes, and those whose beginning
/// is not known, cost nothing.
///
/// The feed's row is locked. The lanes are locked in the order of destinations, which prevents
/// deadlocks: a worker holds lanes of one destination only.
pub(super) async fn mark_due<T: Tx>(tx: &T, feed: i64, now: Timestamp) -> Result<()> {
    // A lane that is due already is marked too: its worker may be about to find nothing more.
    static SQL: Sql = Sql::new(
        "WITH chosen AS (
             SELECT destination_id FROM lane
             WHERE feed_id = $1 AND removed_at IS NULL AND paused IS NULL
               AND (begins_at IS NOT NULL OR history_from IS NOT NULL)
             ORDER BY destination_id{lock_rows})
         UPDATE lane AS l SET arrivals = l.arrivals + 1,
             turn = CASE WHEN l.due_at IS NULL THEN 0 ELSE l.turn END, due_at = coalesce(l.due_at, $2)
         FROM chosen WHERE l.destination_id = chosen.destination_id AND l.feed_id = $1",
    );
    tx.run(&SQL, &[&feed, &now]).await
}
