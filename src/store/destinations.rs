//! Destinations: registering and changing them, and starting the history of their lanes.

use super::deliveries::{
    DeliveryState, DestinationFilter, DestinationPauseReason, LanePauseReason,
};
use super::engine::{Fragment, Param, Sql, Tx, operations, params, rows};
use super::error::Result;
use super::held;
use crate::domain::{Account, Company, DestinationName, Feed, Moment, Timestamp};

/// The point from which a person starts the history of lanes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartFrom {
    /// Everything that is stored.
    All,
    /// Versions from this moment on, by the vendor's time. If a lane begins before it, it begins
    /// there from now on.
    Since(Moment),
}

impl StartFrom {
    /// Returns the text that orders like versions, empty for the beginning.
    fn as_str(&self) -> &str {
        match self {
            Self::All => "",
            Self::Since(moment) => moment.as_str(),
        }
    }
}

/// The lanes of a destination that a person changes: all, unless account or company are set.
#[derive(Clone, Debug, Default)]
pub struct LaneSelection {
    /// Only this account's.
    pub account: Option<Account>,
    /// Only this company's.
    pub company: Option<Company>,
}

/// The deliveries of a destination that a person changes.
#[derive(Clone, Debug)]
pub enum DeliverySelection {
    /// The one with this sequence number.
    One(i64),
    /// All in one state.
    InState {
        /// The state.
        state: DeliveryState,
        /// Only this company's.
        company: Option<Company>,
    },
}

/// A person's change of a destination.
#[derive(Clone, Debug)]
pub enum DestinationChange {
    /// Stops deliveries until [`DestinationChange::Resume`].
    Pause,
    /// Resumes deliveries at once, paused or waiting, and those of paused lanes.
    Resume,
    /// Starts the history of lanes, or moves their start to an earlier point; finished versions
    /// are not delivered again.
    Start {
        /// The lanes.
        lanes: LaneSelection,
        /// The starting point.
        from: StartFrom,
    },
    /// Holds the history of lanes again that is not delivered yet.
    Stop {
        /// The lanes.
        lanes: LaneSelection,
    },
    /// Delivers versions again, unless a newer version exists.
    Retry(DeliverySelection),
    /// Skips versions that are not finished.
    Skip(DeliverySelection),
}

/// One feed at one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneRow {
    /// The feed.
    pub feed: Feed,
    /// Versions before this moment, in the vendor's time, are history; null until an answer of
    /// the account has shown the vendor's clock.
    pub begins_at: Option<String>,
    /// History is delivered from this moment on: empty is from the beginning, null not at all.
    pub history_from: Option<String>,
    /// Versions that are held as history.
    pub held: u64,
    /// When it is looked at next; null if nothing waits.
    pub due_at: Option<Timestamp>,
    /// Failures since its last success.
    pub failures: u32,
    /// When the first of them was.
    pub failing_since: Option<Timestamp>,
    /// The last failure.
    pub last_error: Option<String>,
    /// The reason why it is paused.
    pub paused: Option<LanePauseReason>,
}

/// What a start would deliver of one feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartPreview {
    /// The feed.
    pub feed: Feed,
    /// Documents that would be delivered.
    pub documents: u64,
    /// Their oldest version.
    pub oldest: Option<String>,
    /// Their newest version.
    pub newest: Option<String>,
}

/// Feeds `f` of accounts `a` that match a filter: of the queue $2, the accounts $3 and the
/// companies $4.
pub(super) const MATCHING: Fragment = Fragment::Same(
    "f.queue = $2 AND ({length}($3) = 0 OR a.name IN ({elements}($3)))
         AND ({length}($4) = 0 OR f.company = '' OR f.company IN ({elements}($4)))",
);

/// What a lane that is removed no longer has: nothing of it is due, failing or paused.
pub(super) const WITHOUT_STATE: Fragment = Fragment::Same(
    "due_at = NULL, history_from = NULL, paused = NULL, failures = 0, failing_since = NULL, last_error = NULL,
     answers = 0, equal_rejections = 0, last_rejection = NULL",
);

operations! {
    /// Adds destinations that are not known yet, and stores their filters.
    ///
    /// If the filter of a known one changes, lanes that no longer match are removed; should they
    /// return, they start over, as do newly matching ones.
    pub write register_destinations(
        destinations: Vec<(DestinationName, DestinationFilter)>,
        now: Timestamp,
    ) -> ();

    /// Changes a destination and returns the number of affected lanes or versions; `None`
    /// if the destination does not exist.
    pub write change_destination(
        destination: DestinationName,
        change: DestinationChange,
        now: Timestamp,
    ) -> Option<usize>, then wake_deliveries;

    /// Lists at most `limit` lanes of a destination, in the order of their feeds' rows, after the
    /// feed's row `after`; each with that row.
    pub read lanes(destination: DestinationName, after: i64, limit: usize) -> Vec<(i64, LaneRow)>;

    /// Returns what a start would deliver, feed by feed. Reads the history of all selected lanes.
    pub read preview_start(destination: DestinationName, lanes: LaneSelection, from: StartFrom)
        -> Vec<StartPreview>;
}

rows! {
    LaneRow {
        feed, begins_at, history_from, held, due_at, failures, failing_since, last_error, paused,
    }
    StartPreview { feed, documents, oldest, newest }
}

async fn register_destinations<T: Tx>(
    tx: &T,
    mut destinations: Vec<(DestinationName, DestinationFilter)>,
    now: Timestamp,
) -> Result<()> {
    static ADD: Sql = Sql::new(
        "INSERT INTO destination (name, known_at, filter) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
    );
    // All feeds are looked at once more, since its settings may say otherwise now.
    static LOOK_AGAIN: Sql =
        Sql::new("UPDATE destination SET lanes_to = 0 WHERE name = $1 AND lanes_to > 0");
    static CHANGE: Sql = Sql::new(
        "UPDATE destination SET filter = $2, known_at = $3, lanes_to = 0
         WHERE name = $1 AND filter <> $2 RETURNING id",
    );
    static REMOVE: Sql = Sql::with(
        "UPDATE lane SET removed_at = $5, {without_state}
         WHERE destination_id = $1 AND removed_at IS NULL AND feed_id NOT IN (
             SELECT f.id FROM feed f JOIN account a ON a.id = f.account_id WHERE {matching})",
        &[("without_state", WITHOUT_STATE), ("matching", MATCHING)],
    );
    let now = tx.now_or(now);
    // The same order everywhere prevents deadlocks.
    destinations.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (name, filter) in &destinations {
        let text = filter.to_json();
        tx.run(&ADD, &[name, &now, &text]).await?;
        tx.run(&LOOK_AGAIN, &[name]).await?;
        let changed: Option<i64> = tx.first(&CHANGE, &[name, &text, &now]).await?;
        if let Some(id) = changed {
            let params = [&of_filter(&id, filter)[..], &[&now as &dyn Param]].concat();
            tx.run(&REMOVE, &params).await?;
        }
    }
    Ok(())
}

/// Returns the parameters of [`MATCHING`], after $1.
fn of_filter<'a>(first: &'a dyn Param, filter: &'a DestinationFilter) -> [&'a dyn Param; 4] {
    [first, &filter.queue, &filter.accounts, &filter.companies]
}

async fn change_destination<T: Tx>(
    tx: &T,
    destination: DestinationName,
    change: DestinationChange,
    now: Timestamp,
) -> Result<Option<usize>> {
    static PAUSE: Sql =
        Sql::new("UPDATE destination SET paused = $2 WHERE id = $1 AND paused IS DISTINCT FROM $2");
    let now = tx.now_or(now);
    let Some(id) = lock(tx, &destination).await? else {
        return Ok(None);
    };
    let changed = match change {
        DestinationChange::Pause => {
            tx.execute(&PAUSE, &[&id, &DestinationPauseReason::ByHand])
                .await?
        }
        DestinationChange::Resume => resume(tx, id, now).await?,
        DestinationChange::Start { lanes, from } => start(tx, id, &lanes, &from, now).await?,
        DestinationChange::Stop { lanes } => stop(tx, id, &lanes).await?,
        DestinationChange::Retry(selection) => retry(tx, id, &selection, now).await?,
        DestinationChange::Skip(selection) => skip(tx, id, &selection, now).await?,
    };
    Ok(Some(changed))
}

/// Locks a destination and returns its row's id, if there is one.
///
/// Whatever changes a destination locks its row first, then the rows that belong to it, then
/// rows of feeds.
pub(super) async fn lock<T: Tx>(tx: &T, destination: &DestinationName) -> Result<Option<i64>> {
    static SQL: Sql = Sql::new("SELECT id FROM destination WHERE name = $1{lock_rows}");
    tx.first(&SQL, &[destination]).await
}

/// Resumes a destination and its paused lanes, and retries failing ones now.
async fn resume<T: Tx>(tx: &T, destination: i64, now: Timestamp) -> Result<usize> {
    static DESTINATION: Sql = Sql::new(
        "UPDATE destination SET paused = NULL, waits_until = NULL
         WHERE id = $1 AND (paused IS NOT NULL OR waits_until IS NOT NULL)",
    );
    static LANES: Sql = Sql::new(
        "UPDATE lane{by_trouble} SET paused = NULL, due_at = $2, equal_rejections = 0, last_rejection = NULL
         WHERE destination_id = $1 AND (failures > 0 OR paused IS NOT NULL) AND removed_at IS NULL",
    );
    let resumed = tx.execute(&DESTINATION, &[&destination]).await?;
    let lanes = tx.execute(&LANES, &[&destination, &now]).await?;
    Ok(usize::from(resumed + lanes > 0))
}

/// Lanes `l` of the destination $1 that a person selects: of the account $2, of the company $3.
const SELECTED: Fragment = Fragment::Same(
    "l.destination_id = $1 AND l.removed_at IS NULL AND EXISTS (
         SELECT 1 FROM feed o {then_join} account p ON p.id = o.account_id
         WHERE o.id = l.feed_id AND ($2 IS NULL OR p.name = $2) AND ($3 IS NULL OR o.company = $3))",
);

/// Starts the history of lanes, or lets lanes begin later; they are read from their beginning.
async fn start<T: Tx>(
    tx: &T,
    destination: i64,
    lanes: &LaneSelection,
    from: &StartFrom,
    now: Timestamp,
) -> Result<usize> {
    static START: Sql = Sql::with(
        "UPDATE lane AS l SET
             history_from = CASE WHEN l.begins_at{bytewise} < $4 THEN NULL
                                 WHEN l.history_from{bytewise} < $4 THEN l.history_from ELSE $4 END,
             begins_at = CASE WHEN l.begins_at{bytewise} < $4 THEN $4 ELSE l.begins_at END,
             position = 0, held = 0, turn = 0, arrivals = l.arrivals + 1,
             due_at = CASE WHEN l.paused IS NULL THEN $5 END
         WHERE {selected}",
        &[("selected", SELECTED)],
    );
    let (account, company, from) = (&lanes.account, &lanes.company, from.as_str());
    let params = params! { destination, account, company, from, now };
    tx.execute(&START, params).await
}

/// Holds what is not delivered yet of the history of lanes.
async fn stop<T: Tx>(tx: &T, destination: i64, lanes: &LaneSelection) -> Result<usize> {
    // Versions that were attempted are history again as well.
    static HOLD: Sql = Sql::with(
        "UPDATE delivery SET state = 'held', next_try_at = NULL
         WHERE destination_id = $1 AND state IN ('pending', 'deferred', 'waiting_file') AND state <> 'delivered'
           AND number IS NULL AND sequence IN (
               SELECT d.sequence FROM delivery h {then_join} document d ON d.sequence = h.sequence
               {then_join} lane l ON l.destination_id = $1 AND l.feed_id = d.feed_id
               WHERE h.destination_id = $1 AND h.state IN ('pending', 'deferred', 'waiting_file') AND h.state <> 'delivered'
                 AND {selected} AND l.history_from IS NOT NULL
                 AND CASE WHEN d.version_ms IS NULL THEN d.first_pull
                     ELSE l.begins_at IS NULL OR d.version{bytewise} < l.begins_at END)
         RETURNING sequence",
        &[("selected", SELECTED)],
    );
    // A lane without a beginning is read again from the start once it has one, and counts from zero.
    static STOP: Sql = Sql::with(
        "UPDATE lane AS l SET history_from = NULL, failures = 0, failing_since = NULL, last_error = NULL,
             position = CASE WHEN l.begins_at IS NULL THEN 0 ELSE l.position END,
             held = CASE WHEN l.begins_at IS NULL THEN 0 ELSE l.held END,
             due_at = CASE WHEN l.begins_at IS NULL THEN NULL ELSE l.due_at END
         WHERE {selected} AND l.history_from IS NOT NULL",
        &[("selected", SELECTED)],
    );
    let params = params! { destination, lanes.account, lanes.company };
    let held_now: Vec<i64> = tx.all(&HOLD, params).await?;
    let stopped = tx.execute(&STOP, params).await?;
    held::raise(tx, destination, &held_now).await?;
    Ok(stopped)
}

/// Makes versions pending again, due now, unless a newer one exists.
async fn retry<T: Tx>(
    tx: &T,
    destination: i64,
    selection: &DeliverySelection,
    now: Timestamp,
) -> Result<usize> {
    const RETRY: Fragment = Fragment::Same(
        "UPDATE delivery{by_index} SET state = 'pending', next_try_at = $2, link_tries = 0, number = NULL, changed_at = $2,
             failures = 0, failing_since = NULL
         WHERE destination_id = $1 AND EXISTS (
             SELECT 1 FROM document d JOIN feed f ON f.id = d.feed_id
             WHERE d.sequence = delivery.sequence AND NOT d.superseded AND d.body IS NOT NULL",
    );
    static ONE: Sql = Sql::with(
        "{retry}) AND sequence = $3",
        &[("retry", RETRY), ("by_index", Fragment::Same(""))],
    );
    static IN_STATE: Sql = Sql::with(
        "{retry} AND ($4 IS NULL OR f.company = $4)) AND state = $3 AND state <> 'delivered'",
        &[("retry", RETRY), ("by_index", Fragment::Same("{by_state}"))],
    );
    let held_now = held_among(tx, destination, selection).await?;
    held::lower(tx, Some(destination), &held_now).await?;
    match selection {
        DeliverySelection::One(sequence) => tx.execute(&ONE, &[&destination, &now, sequence]).await,
        DeliverySelection::InState { state, company } => {
            tx.execute(&IN_STATE, &[&destination, &now, state, company])
                .await
        }
    }
}

/// Returns those of the selected versions that have a delivery, which is held.
async fn held_among<T: Tx>(
    tx: &T,
    destination: i64,
    selection: &DeliverySelection,
) -> Result<Vec<i64>> {
    static ONE: Sql = Sql::new(
        "SELECT sequence FROM delivery WHERE destination_id = $1 AND sequence = $2 AND state = 'held'",
    );
    static ALL: Sql = Sql::new(
        "SELECT sequence FROM delivery{by_state}
         WHERE destination_id = $1 AND state = 'held' AND state <> 'delivered'
           AND ($2 IS NULL OR EXISTS (SELECT 1 FROM document d JOIN feed f ON f.id = d.feed_id
               WHERE d.sequence = delivery.sequence AND f.company = $2))",
    );
    match selection {
        DeliverySelection::One(sequence) => tx.all(&ONE, &[&destination, sequence]).await,
        DeliverySelection::InState {
            state: DeliveryState::Held,
            company,
        } => tx.all(&ALL, &[&destination, company]).await,
        DeliverySelection::InState { .. } => Ok(Vec::new()),
    }
}

/// Skips versions, and lets the lanes go on that they delayed.
async fn skip<T: Tx>(
    tx: &T,
    destination: i64,
    selection: &DeliverySelection,
    now: Timestamp,
) -> Result<usize> {
    static ONE: Sql = Sql::new(
        "INSERT INTO delivery AS h (destination_id, sequence, state, began_at, changed_at)
         SELECT $1, sequence, 'skipped', $3, $3 FROM document WHERE sequence = $2
         ON CONFLICT (destination_id, sequence) DO UPDATE SET state = 'skipped', changed_at = excluded.changed_at,
             next_try_at = NULL
         WHERE h.state IN ('pending', 'deferred', 'waiting_file', 'held', 'rejected') RETURNING sequence",
    );
    static IN_STATE: Sql = Sql::new(
        "UPDATE delivery{by_state} SET state = 'skipped', changed_at = $2, next_try_at = NULL
         WHERE destination_id = $1 AND state = $3 AND state <> 'delivered'
           AND state IN ('pending', 'deferred', 'waiting_file', 'held', 'rejected')
           AND ($4 IS NULL OR EXISTS (SELECT 1 FROM document d JOIN feed f ON f.id = d.feed_id
               WHERE d.sequence = delivery.sequence AND f.company = $4)) RETURNING sequence",
    );
    static DESTINATION: Sql = Sql::new(
        "UPDATE destination SET waits_until = NULL, stuck_at = NULL WHERE id = $1 AND stuck_at IN ({elements}($2))",
    );
    static LANES: Sql = Sql::new(
        "UPDATE lane SET failures = 0, failing_since = NULL, last_error = NULL,
             due_at = CASE WHEN due_at IS NULL THEN NULL ELSE $3 END
         WHERE destination_id = $1 AND (failures > 0 OR paused IS NOT NULL) AND feed_id IN (
             SELECT feed_id FROM document WHERE sequence IN ({elements}($2)))",
    );
    let held_now = match selection {
        DeliverySelection::One(sequence) => vec![*sequence],
        DeliverySelection::InState { .. } => held_among(tx, destination, selection).await?,
    };
    held::lower(tx, Some(destination), &held_now).await?;
    let skipped: Vec<i64> = match selection {
        DeliverySelection::One(sequence) => tx.all(&ONE, &[&destination, sequence, &now]).await?,
        DeliverySelection::InState { state, company } => {
            tx.all(&IN_STATE, &[&destination, &now, state, company])
                .await?
        }
    };
    if !skipped.is_empty() {
        tx.run(&LANES, &[&destination, &skipped, &now]).await?;
        tx.run(&DESTINATION, &[&destination, &skipped]).await?;
    }
    Ok(skipped.len())
}

async fn lanes<T: Tx>(
    tx: &T,
    destination: DestinationName,
    after: i64,
    limit: usize,
) -> Result<Vec<(i64, LaneRow)>> {
    static SQL: Sql = Sql::new(
        "SELECT l.feed_id, a.name, f.queue, f.company, l.begins_at, l.history_from, l.held, l.due_at, l.failures,
                l.failing_since, l.last_error, l.paused
         FROM lane l {then_join} feed f ON f.id = l.feed_id {then_join} account a ON a.id = f.account_id
         WHERE l.destination_id = (SELECT id FROM destination WHERE name = $1) AND l.feed_id > $2
           AND l.removed_at IS NULL
         ORDER BY l.feed_id LIMIT $3",
    );
    tx.all(&SQL, &[&destination, &after, &limit]).await
}

async fn preview_start<T: Tx>(
    tx: &T,
    destination: DestinationName,
    lanes: LaneSelection,
    from: StartFrom,
) -> Result<Vec<StartPreview>> {
    static FIND: Sql = Sql::new("SELECT id FROM destination WHERE name = $1");
    static SQL: Sql = Sql::with(
        "SELECT a.name, f.queue, f.company, count(*), min(d.version{bytewise}), max(d.version{bytewise})
         FROM lane l {then_join} document d ON d.feed_id = l.feed_id
         JOIN feed f ON f.id = l.feed_id JOIN account a ON a.id = f.account_id
         LEFT JOIN delivery h ON h.destination_id = $1 AND h.sequence = d.sequence
         WHERE {selected} AND NOT d.superseded AND d.body IS NOT NULL AND (h.sequence IS NULL OR h.state = 'held')
           AND CASE WHEN d.version_ms IS NULL THEN d.first_pull AND $4 = ''
               ELSE d.version{bytewise} >= $4 AND (l.begins_at IS NULL OR d.version{bytewise} < l.begins_at)
                   AND (l.history_from IS NULL OR d.version{bytewise} < l.history_from) END
         GROUP BY a.name, f.queue, f.company
         ORDER BY a.name{bytewise}, f.queue{bytewise}, f.company{bytewise}",
        &[("selected", SELECTED)],
    );
    let id: Option<i64> = tx.first(&FIND, &[&destination]).await?;
    let from = from.as_str();
    match id {
        Some(id) => {
            let params = params! { id, lanes.account, lanes.company, from };
            tx.all(&SQL, params).await
        }
        None => Ok(Vec::new()),
    }
}
