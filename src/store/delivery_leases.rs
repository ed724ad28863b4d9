//! Leasing a destination, and choosing the versions that it gets next.
//!
//! One worker at a time holds a destination, so that `max_concurrency` limits all replicas
//! together. It asks for more versions while others are in flight. Lanes take turns: those that
//! had none since they became due, the newest and the oldest first, and then those whose last
//! turn is the longest ago.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::future::{try_join, try_join_all, try_join3, try_join4};

use super::attempts::{asks_for_links, attempted_versions, end_lease, record};
use super::deliveries::{
    Attempt, Continued, DEFERRED_RETRY, Delivery, DeliveryLease, DeliveryLeaseRequest,
    DeliveryLeased, LINK_TIMEOUT, LeaseAction, NothingDue, longest_wait, rest,
};
use super::delivery_counts::{DEFERRED_AFTER_FAILURES, DEFERRED_AFTER_TIME, lock_as_owner};
use super::documents;
use super::engine::{Fragment, Sql, Tx, operations, params, rows};
use super::error::Result;
use super::lanes::add_lanes;
use crate::backoff;
use crate::domain::{DestinationName, Timestamp};

/// Versions of a lane that one look at it reads.
const SCAN_WINDOW: i64 = 1_000;

/// Maximum number of lanes that get a turn at once.
const MAX_TURNS: usize = 64;

/// Number of lanes whose next versions are read at once.
const TURNS_AT_ONCE: usize = 8;

/// Versions from which a lane chooses one to try beside another that keeps failing.
const BESIDE: usize = 8;

operations! {
    /// Leases a destination with the next versions for it.
    ///
    /// The lease covers the whole destination, so that a document is delivered by one worker at a
    /// time.
    pub write lease_deliveries(request: DeliveryLeaseRequest) -> DeliveryLeased;

    /// Records attempts, renews the lease and returns the next versions; none whose sequence
    /// numbers are in `taken`: those in flight, or read before. Releases the lease if there are none,
    /// and none is taken.
    ///
    /// # Errors
    ///
    /// [`StoreError::StaleLease`](super::StoreError::StaleLease) if another worker has leased the
    /// destination since; nothing is recorded then.
    write settle_and_continue(
        lease: DeliveryLease,
        attempts: Vec<Attempt>,
        taken: Vec<i64>,
        request: DeliveryLeaseRequest,
    ) -> Continued;
}

impl super::Store {
    /// Records attempts, renews the lease and returns the next versions; none whose sequence
    /// numbers are in `taken`: those in flight, or read before. Releases the lease if there are none,
    /// and none is taken.
    ///
    /// # Errors
    ///
    /// [`StoreError::StaleLease`](super::StoreError::StaleLease) if another worker has leased the
    /// destination since; nothing is recorded then.
    pub async fn continue_deliveries(
        &self,
        lease: DeliveryLease,
        attempts: Vec<Attempt>,
        taken: Vec<i64>,
        request: DeliveryLeaseRequest,
    ) -> Result<Continued> {
        let asks_for_links = asks_for_links(&attempts);
        let continued = self
            .settle_and_continue(lease, attempts, taken, request)
            .await?;
        if asks_for_links {
            self.wake_pullers();
        }
        Ok(continued)
    }
}

/// The columns of a [`Delivery`] but the earlier note, its last: of a document `d`, its feed,
/// its newer link `l`, and a row `c` that chose it.
pub(super) const COLUMNS: Fragment = Fragment::Same(
    "a.name, f.queue, f.company, d.document_id, d.version, (SELECT epoch FROM sequence), d.sequence,
             d.stored_at, d.body, l.url, l.listed_at, c.link_tries, c.link_timed_out",
);

rows! {
    Delivery {
        feed, document_id, version, epoch, sequence, stored_at, body, link, link_listed_at,
        link_tries, link_timed_out, earlier_note,
    }
    Leasable { id, paused, probing, waits_until, leased_at, leased_until }
    DueLane { feed, position, begins_at, history_from, arrivals, failures }
    Candidate { sequence, size, document_id, failures, failing_since }
    Apart { sequence, size, is_current, lane_runs }
}

/// Joins what [`COLUMNS`] needs to the rows `c`.
pub(super) const OF_CHOSEN: Fragment = Fragment::Same(
    "{then_join} document d ON d.sequence = c.sequence
         JOIN feed f ON f.id = d.feed_id
         JOIN account a ON a.id = f.account_id
         LEFT JOIN document_link l ON l.sequence = d.sequence",
);

/// Versions `d` whose delivery `h` is to be attempted in the order of a lane that begins at
/// $3 and whose history is started from $4: those of its time, and those that were attempted.
const IN_ORDER: Fragment = Fragment::Same(
    "NOT d.superseded AND d.size IS NOT NULL AND CASE
             WHEN h.sequence IS NOT NULL AND h.state <> 'held'
                 THEN h.state = 'pending' AND h.next_try_at IS NULL AND h.number IS NULL
             WHEN d.version_ms IS NULL THEN NOT d.first_pull OR coalesce($4 = '', false)
             ELSE coalesce(d.version{bytewise} >= $3, false) OR coalesce(d.version{bytewise} >= $4, false) END",
);

/// The columns of a destination that leasing needs.
struct Leasable {
    id: i64,
    paused: bool,
    probing: bool,
    waits_until: Option<Timestamp>,
    leased_at: Option<Timestamp>,
    leased_until: Option<Timestamp>,
}

/// A lane that is due.
struct DueLane {
    feed: i64,
    position: i64,
    begins_at: Option<String>,
    history_from: Option<String>,
    arrivals: i64,
    failures: u32,
}

/// A version that a lane may deliver next.
struct Candidate {
    sequence: i64,
    size: usize,
    document_id: String,
    failures: u32,
    failing_since: Option<Timestamp>,
}

impl Candidate {
    /// Returns true if it has failed for so long that its lane tries another document.
    fn is_stuck(&self, now: Timestamp) -> bool {
        let since = self.failing_since;
        self.failures >= DEFERRED_AFTER_FAILURES
            && since.is_some_and(|since| now.since(since) >= DEFERRED_AFTER_TIME)
    }
}

/// A version that is due apart from the order of its lane.
struct Apart {
    sequence: i64,
    size: Option<usize>,
    is_current: bool,
    lane_runs: bool,
}

async fn lease_deliveries<T: Tx>(tx: &T, request: DeliveryLeaseRequest) -> Result<DeliveryLeased> {
    // None also if another replica has locked it.
    static LOCK: Sql = Sql::with(
        "SELECT id, paused IS NOT NULL, probing, waits_until, leased_at, leased_until FROM destination
         WHERE name = $1{skip_leased}",
        &[(
            "skip_leased",
            Fragment::Differs("", " FOR NO KEY UPDATE SKIP LOCKED"),
        )],
    );
    static LEASE: Sql = Sql::new(
        "UPDATE destination SET fence = fence + 1, leased_at = $2, leased_until = $3 WHERE id = $1
         RETURNING fence",
    );
    let now = tx.now_or(request.now);
    let nothing = |until| DeliveryLeased::Nothing(NothingDue { until, held: false });
    let found: Option<Leasable> = tx.first(&LOCK, &[&request.destination]).await?;
    let Some(destination) = found.filter(|destination| !destination.paused) else {
        return Ok(nothing(None));
    };
    // Another replica's leases may be longer than this one's.
    let lease = backoff::rest_since(destination.leased_at, destination.leased_until, now);
    let wait = rest(destination.waits_until, now);
    if let Some(until) = wait.into_iter().chain(lease).max() {
        return Ok(nothing(Some(until)));
    }
    let id = destination.id;
    let more_lanes = add_lanes(tx, id, &request.lanes, now).await?;
    let mut chosen = Choice::new(&request, destination.probing, &[], now);
    try_join(end_future_waits(tx, id, now), chosen.choose(tx, id)).await?;
    if chosen.is_empty() {
        if more_lanes || chosen.advanced {
            return Ok(DeliveryLeased::Advanced);
        }
        let nothing = chosen.nothing_due(tx, id).await?;
        return Ok(DeliveryLeased::Nothing(nothing));
    }
    let more = more_lanes || chosen.has_more();
    let leased = params! { id, now, now.after(request.lease) };
    let (deliveries, fence) = try_join(chosen.load(tx, id), tx.one(&LEASE, leased)).await?;
    Ok(DeliveryLeased::Batch(DeliveryLease {
        destination_id: id,
        destination: request.destination,
        fence,
        more,
        deliveries,
    }))
}

async fn settle_and_continue<T: Tx>(
    tx: &T,
    lease: DeliveryLease,
    attempts: Vec<Attempt>,
    taken: Vec<i64>,
    request: DeliveryLeaseRequest,
) -> Result<Continued> {
    let (now, id) = (tx.now_or(request.now), lease.destination_id);
    // The destination is locked before the rows of feeds, and those before its lanes.
    let locked = lock_as_owner(tx, &lease);
    let (state, more_lanes) = try_join(locked, add_lanes(tx, id, &request.lanes, now)).await?;
    let versions = attempted_versions(tx, id, &attempts).await?;
    let state = record(tx, id, state, attempts, &versions, now).await?;
    let keep = LeaseAction::Keep(request.lease);
    if !state.may_start(now) {
        end_lease(tx, id, &keep, now).await?;
        return Ok(Continued {
            may_continue: !state.is_paused(),
            more: false,
            deliveries: Vec::new(),
            ended: None,
        });
    }
    let mut chosen = Choice::new(&request, state.is_probing(), &taken, now);
    chosen.choose(tx, id).await?;
    let more = more_lanes || chosen.has_more();
    let has_looked = request.limit > 0 && taken.is_empty();
    let ended = match has_looked && chosen.is_empty() && !more {
        true => Some(chosen.nothing_due(tx, id).await?),
        false => None,
    };
    let action = match ended {
        Some(_) => LeaseAction::Release,
        None => keep,
    };
    let (_, deliveries) = try_join(end_lease(tx, id, &action, now), chosen.load(tx, id)).await?;
    Ok(Continued {
        may_continue: true,
        more,
        deliveries,
        ended,
    })
}

/// Makes versions due whose wait a clock that was ahead has set.
async fn end_future_waits<T: Tx>(tx: &T, destination: i64, now: Timestamp) -> Result<()> {
    static PENDING: Sql = Sql::new(
        "UPDATE delivery{by_retry} SET next_try_at = $3
         WHERE destination_id = $1 AND state = 'pending' AND next_try_at IS NOT NULL AND next_try_at > $2",
    );
    static ALL: Sql = Sql::new(
        "UPDATE delivery SET next_try_at = $3
         WHERE destination_id = $1 AND next_try_at IS NOT NULL AND next_try_at > $2",
    );
    let (latest_pending, latest) = (latest_pending(now), latest_retry(now));
    // Both are sent before what looks for versions that are due.
    try_join(
        tx.run(&PENDING, params! { destination, latest_pending, now }),
        tx.run(&ALL, params! { destination, latest, now }),
    )
    .await?;
    Ok(())
}

/// Returns the latest moment until which a version may wait.
fn latest_retry(now: Timestamp) -> Timestamp {
    backoff::latest_end(now, DEFERRED_RETRY.max(LINK_TIMEOUT))
}

/// Returns the latest moment until which a pending version may wait: one that failed, or that a person
/// tries again.
fn latest_pending(now: Timestamp) -> Timestamp {
    backoff::latest_end(now, backoff::DELIVERY.longest_wait(Duration::ZERO))
}

/// Returns true if there may be something to deliver to one of the destinations now.
pub(super) async fn is_delivery_due<T: Tx>(
    tx: &T,
    destinations: &[DestinationName],
    now: Timestamp,
) -> Result<bool> {
    static SQL: Sql = Sql::new(
        "SELECT 1 FROM destination s WHERE s.name IN ({elements}($1)) AND s.paused IS NULL
             AND coalesce(s.waits_until <= $2 OR s.waits_until > $3, true)
             AND coalesce(s.leased_until <= $2 OR s.leased_at > $6, true)
             AND (EXISTS (SELECT 1 FROM lane l WHERE l.destination_id = s.id AND l.due_at IS NOT NULL AND l.due_at <= $2)
                 OR EXISTS (SELECT 1 FROM lane l WHERE l.destination_id = s.id AND l.due_at IS NOT NULL AND l.due_at > $3)
                 OR EXISTS (SELECT 1 FROM delivery h
                     WHERE h.destination_id = s.id AND h.next_try_at IS NOT NULL AND h.next_try_at <= $2)
                 OR EXISTS (SELECT 1 FROM delivery h
                     WHERE h.destination_id = s.id AND h.next_try_at IS NOT NULL AND h.next_try_at > $4)
                 OR EXISTS (SELECT 1 FROM delivery h{by_retry}
                     WHERE h.destination_id = s.id AND h.state = 'pending' AND h.next_try_at IS NOT NULL
                         AND h.next_try_at > $5)
                 OR s.lanes_to < coalesce((SELECT max(id) FROM feed), 0)
                 OR s.accounts_known <> (SELECT count(*) FROM account WHERE clock_offset IS NOT NULL))
         LIMIT 1",
    );
    let latest = backoff::latest_end(now, longest_wait());
    let (retry, pending) = (latest_retry(now), latest_pending(now));
    let params =
        params! { destinations, now, latest, retry, pending, backoff::latest_present(now) };
    let due: Option<()> = tx.first(&SQL, params).await?;
    Ok(due.is_some())
}

/// Returns the moment after `now` when the next lane or version is due.
async fn next_due<T: Tx>(tx: &T, destination: i64, now: Timestamp) -> Result<Option<Timestamp>> {
    static LANE: Sql = Sql::new(
        "SELECT min(due_at) FROM lane WHERE destination_id = $1 AND due_at IS NOT NULL AND due_at > $2",
    );
    static VERSION: Sql = Sql::new(
        "SELECT min(next_try_at) FROM delivery WHERE destination_id = $1 AND next_try_at IS NOT NULL AND next_try_at > $2",
    );
    let params = params! { destination, now };
    let (lane, version): (Option<Timestamp>, Option<Timestamp>) =
        try_join(tx.one(&LANE, params), tx.one(&VERSION, params)).await?;
    Ok(lane.into_iter().chain(version).min())
}

/// The versions that a destination gets next.
struct Choice<'r> {
    now: Timestamp,
    taken: &'r [i64],
    /// The number of versions that are still wanted, and bytes of their bodies.
    wanted: usize,
    bytes: usize,
    /// True if the notes on earlier versions are read too.
    earlier_notes: bool,
    sequences: Vec<i64>,
    chosen: HashSet<i64>,
    /// True if a lane has read as much as it may at once and may have more to read, or if there
    /// may be more lanes than had a turn.
    advanced: bool,
    /// True if a lane that was due has nothing left.
    emptied: bool,
    /// True if there may be more to choose than what was chosen.
    is_cut: bool,
    /// The number of versions that were passed as history.
    held: i64,
}

impl<'r> Choice<'r> {
    fn new(
        request: &DeliveryLeaseRequest,
        probing: bool,
        taken: &'r [i64],
        now: Timestamp,
    ) -> Self {
        let wanted = match probing {
            true => 1_usize.saturating_sub(taken.len()),
            false => request.limit,
        };
        Self {
            now,
            taken,
            wanted,
            bytes: request.limit_bytes,
            earlier_notes: request.earlier_notes,
            sequences: Vec::new(),
            chosen: HashSet::new(),
            advanced: false,
            emptied: false,
            is_cut: false,
            held: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Returns true if there is more to read: ask again.
    fn has_more(&self) -> bool {
        let is_full = self.wanted == 0 || self.bytes == 0;
        self.advanced || (!self.is_empty() && (self.is_cut || is_full))
    }

    /// Returns what is known if nothing was chosen.
    async fn nothing_due<T: Tx>(&self, tx: &T, destination: i64) -> Result<NothingDue> {
        Ok(NothingDue {
            until: next_due(tx, destination, self.now).await?,
            held: self.held > 0,
        })
    }

    /// Adds a version, unless there is no room for it or it is taken; one fits always. Returns true if it
    /// was added.
    fn add(&mut self, sequence: i64, size: usize) -> bool {
        if self.wanted == 0 || self.bytes == 0 || self.taken.contains(&sequence) {
            return false;
        }
        let is_new = self.chosen.insert(sequence);
        if is_new {
            self.sequences.push(sequence);
            self.wanted -= 1;
            self.bytes = self.bytes.saturating_sub(size);
        }
        is_new
    }

    async fn choose<T: Tx>(&mut self, tx: &T, destination: i64) -> Result<()> {
        static TURN: Sql =
            Sql::new("UPDATE destination SET turn = turn + 1 WHERE id = $1 RETURNING turn");
        if self.wanted == 0 {
            return Ok(());
        }
        // The counter is read after the lanes' arrivals, so that a page committed between the two
        // keeps its lane due. What it has counted is committed and visible below.
        let (turn, due, sequence, apart) = try_join4(
            tx.one::<i64>(&TURN, params! { destination }),
            DueLanes::read(tx, destination, self.wanted.min(MAX_TURNS), self.now),
            documents::sequence(tx),
            self.due_apart(tx, destination),
        )
        .await?;
        // If there is room for one only, they take turns.
        let lanes_first = self.wanted == 1 && turn % 2 == 0;
        if lanes_first {
            self.take_turns(tx, destination, due, turn, sequence.last)
                .await?;
            if self.wanted > 0 {
                self.add_apart(tx, destination, apart).await?;
            }
        } else {
            self.add_apart(tx, destination, apart).await?;
            self.take_turns(tx, destination, due, turn, sequence.last)
                .await?;
        }
        Ok(())
    }

    /// Adds the next versions of the lanes whose turns they are.
    async fn take_turns<T: Tx>(
        &mut self,
        tx: &T,
        destination: i64,
        due: DueLanes,
        turn: i64,
        last: i64,
    ) -> Result<()> {
        let turns = self.wanted.min(MAX_TURNS);
        let lanes = due.in_turn(turns, turn);
        let each = self.wanted.div_ceil(lanes.len().max(1));
        for some in lanes.chunks(TURNS_AT_ONCE) {
            if self.wanted == 0 || self.bytes == 0 {
                break;
            }
            let found = some
                .iter()
                .map(|lane| self.candidates(tx, destination, lane, each, last));
            let found = try_join_all(found).await?;
            let mut moves = Vec::new();
            for (lane, found) in some.iter().zip(&found) {
                if self.wanted == 0 || self.bytes == 0 {
                    break;
                }
                self.add_candidates(lane, found, each);
                moves.push(found.move_lane(tx, destination, lane, turn, last));
            }
            for moved in try_join_all(moves).await? {
                self.is_cut |= moved.is_cut;
                self.emptied |= moved.is_empty;
                self.advanced |= moved.has_advanced;
                self.held += moved.held;
            }
        }
        self.is_cut |= lanes.len() == turns;
        self.advanced |= self.emptied && lanes.len() == turns;
        Ok(())
    }

    /// Reads versions that are due apart from the order of their lanes.
    async fn due_apart<T: Tx>(&self, tx: &T, destination: i64) -> Result<Vec<Apart>> {
        static SQL: Sql = Sql::new(
            "SELECT h.sequence, length(d.body), NOT d.superseded AND d.erased_at IS NULL,
                    l.feed_id IS NOT NULL AND l.paused IS NULL AND l.removed_at IS NULL
             FROM delivery h {then_join} document d ON d.sequence = h.sequence
             LEFT JOIN lane l ON l.destination_id = $1 AND l.feed_id = d.feed_id
             WHERE h.destination_id = $1 AND h.next_try_at IS NOT NULL AND h.next_try_at <= $2
             ORDER BY h.next_try_at LIMIT $3",
        );
        tx.all(&SQL, params! { destination, self.now, self.limit_apart() })
            .await
    }

    /// Returns the maximum number of versions that [`Choice::due_apart`] reads.
    fn limit_apart(&self) -> usize {
        self.wanted.div_ceil(2) + self.taken.len()
    }

    /// Adds versions that are due apart from the order of their lanes: half of all at most, so
    /// that neither waits for the other.
    async fn add_apart<T: Tx>(&mut self, tx: &T, destination: i64, due: Vec<Apart>) -> Result<()> {
        static SUPERSEDED: Sql = Sql::new(
            "UPDATE delivery SET state = 'superseded', next_try_at = NULL
             WHERE destination_id = $1 AND sequence IN ({elements}($2))",
        );
        // The lane is paused, or removed.
        static LATER: Sql = Sql::new(
            "UPDATE delivery SET next_try_at = $3 WHERE destination_id = $1 AND sequence IN ({elements}($2))",
        );
        let mut room = self.wanted.div_ceil(2);
        let may_be_more = due.len() == self.limit_apart();
        let (mut superseded, mut later) = (Vec::new(), Vec::new());
        for one in due {
            match one.size {
                Some(size) if one.is_current && one.lane_runs => {
                    if room > 0 && self.add(one.sequence, size) {
                        room -= 1;
                    }
                }
                Some(_) if one.is_current => later.push(one.sequence),
                _ => superseded.push(one.sequence),
            }
        }
        self.is_cut |= may_be_more || room == 0;
        self.advanced |= may_be_more && !(superseded.is_empty() && later.is_empty());
        if !superseded.is_empty() {
            tx.run(&SUPERSEDED, &[&destination, &superseded]).await?;
        }
        if !later.is_empty() {
            let at = self.now.after(backoff::DELIVERY.longest);
            tx.run(&LATER, &[&destination, &later, &at]).await?;
        }
        Ok(())
    }

    /// Reads the next versions of a lane, of which it gets at most `each`.
    async fn candidates<T: Tx>(
        &self,
        tx: &T,
        destination: i64,
        lane: &DueLane,
        each: usize,
        last: i64,
    ) -> Result<Found> {
        static SQL: Sql = Sql::with(
            "SELECT d.sequence, d.size, d.document_id, coalesce(h.failures, 0), h.failing_since
             FROM (SELECT sequence, document_id, version, version_ms, superseded, first_pull, length(body) AS size
                   FROM document WHERE feed_id = $2 AND sequence > $5 AND sequence <= $6
                   ORDER BY sequence LIMIT $7) AS d
             {with_delivery}
             WHERE {in_order} ORDER BY d.sequence LIMIT $8",
            &[("in_order", IN_ORDER)],
        );
        let limit = each.max(BESIDE + 1) + self.taken.len();
        let params = params! {
            destination, lane.feed, lane.begins_at, lane.history_from, lane.position, last, SCAN_WINDOW, limit,
        };
        let candidates: Vec<Candidate> = tx.all(&SQL, params).await?;
        Ok(Found {
            is_cut: candidates.len() == limit,
            candidates,
        })
    }

    /// Adds versions of a lane in order; of one that fails only the first, or now and then
    /// another document beside one that keeps failing.
    fn add_candidates(&mut self, lane: &DueLane, found: &Found, each: usize) {
        self.is_cut |= found.is_cut;
        let found = &found.candidates;
        let Some(first) = found.first() else {
            return;
        };
        if lane.failures == 0 {
            let mut room = each;
            for one in found {
                if room == 0 {
                    self.is_cut = true;
                    break;
                }
                if self.add(one.sequence, one.size) {
                    room -= 1;
                }
            }
            return;
        }
        let mut next = first;
        if first.is_stuck(self.now) && lane.failures % 2 == 1 {
            let others = found.iter().skip(1).take(BESIDE);
            let others = others.filter(|one| one.document_id != first.document_id);
            next = others.min_by_key(|one| one.failures).unwrap_or(first);
        }
        self.add(next.sequence, next.size);
    }

    /// Returns the chosen versions.
    async fn load<T: Tx>(self, tx: &T, destination: i64) -> Result<Vec<Delivery>> {
        static LOAD: Sql = Sql::with(
            "SELECT {columns},
                    CASE WHEN $5 THEN (SELECT p.note FROM (
                         SELECT e.sequence, (SELECT n.note FROM delivery n
                                             WHERE n.destination_id = $1 AND n.sequence = e.sequence) AS note
                         FROM document e{by_identity}
                         WHERE e.document_id = d.document_id AND e.feed_id{no_index} = d.feed_id) AS p
                     WHERE p.note IS NOT NULL ORDER BY p.sequence{no_index} DESC LIMIT 1) END
             FROM (SELECT d.sequence, coalesce(h.link_tries, 0) AS link_tries,
                          coalesce(w.requested_at <= $3 OR w.requested_at > $4, false) AS link_timed_out
                   FROM document d {with_delivery}
                   LEFT JOIN fresh_link_request w ON w.feed_id = d.feed_id
                   WHERE d.sequence IN ({elements}($2))) AS c
             {of_chosen}",
            &[("columns", COLUMNS), ("of_chosen", OF_CHOSEN)],
        );
        if self.sequences.is_empty() {
            return Ok(Vec::new());
        }
        let (timeout, latest) = (
            self.now.before(LINK_TIMEOUT),
            backoff::latest_present(self.now),
        );
        let params = params! { destination, self.sequences, timeout, latest, self.earlier_notes };
        let mut loaded: Vec<Delivery> = tx.all(&LOAD, params).await?;
        let places: HashMap<i64, usize> = self
            .sequences
            .iter()
            .enumerate()
            .map(|(place, sequence)| (*sequence, place))
            .collect();
        loaded.sort_by_key(|delivery| places.get(&delivery.sequence).copied());
        Ok(loaded)
    }
}

/// The next versions of a lane.
struct Found {
    candidates: Vec<Candidate>,
    /// True if there may be more.
    is_cut: bool,
}

/// A lane whose position has moved.
struct Moved {
    /// True if it may have more versions than were looked at.
    is_cut: bool,
    /// True if it has nothing left.
    is_empty: bool,
    /// True if it has none among the many that were looked at, and may have more.
    has_advanced: bool,
    /// The number of versions that were passed as history.
    held: i64,
}

impl Found {
    /// Moves the position of the lane to before the first of them, or else to the end of what was looked
    /// at.
    async fn move_lane<T: Tx>(
        &self,
        tx: &T,
        destination: i64,
        lane: &DueLane,
        turn: i64,
        last: i64,
    ) -> Result<Moved> {
        static WINDOW: Sql = Sql::new(
            "SELECT count(*), max(sequence) FROM (
                 SELECT sequence FROM document WHERE feed_id = $1 AND sequence > $2 AND sequence <= $3
                 ORDER BY sequence LIMIT $4) AS w",
        );
        // A page that was stored meanwhile keeps the lane due.
        static MOVE: Sql = Sql::new(
            "UPDATE lane SET position = $3, turn = $4,
                 due_at = CASE WHEN $5 AND arrivals = $6 THEN NULL ELSE due_at END
             WHERE destination_id = $1 AND feed_id = $2",
        );
        static HELD: Sql = Sql::new(
            "SELECT count(*) FROM document d {with_delivery}
             WHERE d.feed_id = $2 AND d.sequence > $3 AND d.sequence <= $4
                 AND NOT d.superseded AND d.body IS NOT NULL AND coalesce(h.state, 'held') = 'held'",
        );
        static ADD_HELD: Sql =
            Sql::new("UPDATE lane SET held = held + $3 WHERE destination_id = $1 AND feed_id = $2");
        let (feed, position) = (lane.feed, lane.position);
        let (mut end, mut is_window) = (last, false);
        if !self.is_cut {
            let params = params! { feed, position, last, SCAN_WINDOW };
            let (count, newest): (i64, Option<i64>) = tx.one(&WINDOW, params).await?;
            if count == SCAN_WINDOW {
                is_window = true;
                end = newest.unwrap_or(last);
            }
        }
        if let Some(first) = self.candidates.first() {
            end = end.min(first.sequence - 1);
        }
        let end = end.max(position);
        let has_none = self.candidates.is_empty();
        let is_empty = has_none && !is_window;
        let passed = params! { destination, feed, position, end };
        let passed = async {
            match end > position {
                true => tx.one(&HELD, passed).await,
                false => Ok(0),
            }
        };
        let moved = params! { destination, feed, end, turn, is_empty, lane.arrivals };
        // Counted once the lane is locked: a page that replaces one of them comes before or after.
        let ((), held) = try_join(tx.run(&MOVE, moved), passed).await?;
        if held > 0 {
            tx.run(&ADD_HELD, params! { destination, feed, held })
                .await?;
        }
        Ok(Moved {
            is_cut: is_window,
            is_empty,
            has_advanced: has_none && is_window,
            held,
        })
    }
}

/// The lanes that may take the next turns: those without one since they became due, the newest and the
/// oldest first, and the others.
struct DueLanes {
    newest: Vec<DueLane>,
    others: Vec<DueLane>,
    oldest: Vec<DueLane>,
}

impl DueLanes {
    /// Reads them for at most `limit` turns.
    async fn read<T: Tx>(tx: &T, destination: i64, limit: usize, now: Timestamp) -> Result<Self> {
        const LANES: Fragment = Fragment::Same(
            "SELECT feed_id, position, begins_at, history_from, arrivals, failures FROM lane{by_turn}
             WHERE destination_id = $1 AND due_at IS NOT NULL AND (due_at <= $2 OR due_at > $3)",
        );
        const BY_TURN: Fragment = Fragment::Differs(" INDEXED BY lane_turn", "");
        static NEWEST: Sql = Sql::with(
            "{lanes} AND turn = 0 ORDER BY due_at DESC LIMIT $4",
            &[("lanes", LANES), ("by_turn", BY_TURN)],
        );
        static OLDEST: Sql = Sql::with(
            "{lanes} AND turn = 0 ORDER BY due_at LIMIT $4",
            &[("lanes", LANES), ("by_turn", BY_TURN)],
        );
        static OTHERS: Sql = Sql::with(
            "{lanes} AND turn > 0 ORDER BY turn, due_at LIMIT $4",
            &[("lanes", LANES), ("by_turn", BY_TURN)],
        );
        let latest = backoff::latest_end(now, longest_wait());
        let params = params! { destination, now, latest, limit };
        let (newest, others, oldest) = try_join3(
            tx.all(&NEWEST, params),
            tx.all(&OTHERS, params),
            tx.all(&OLDEST, params),
        )
        .await?;
        Ok(Self {
            newest,
            others,
            oldest,
        })
    }

    /// Returns those that take these turns, in their order.
    ///
    /// Neither many new lanes nor many old ones keep the others waiting: they alternate.
    fn in_turn(self, turns: usize, turn: i64) -> Vec<DueLane> {
        let mut sources = [self.newest, self.others, self.oldest].map(Vec::into_iter);
        let first = usize::try_from(turn.rem_euclid(3)).unwrap_or(0);
        let (mut lanes, mut seen) = (Vec::new(), HashSet::new());
        for place in 0..turns * 3 {
            let lane = sources[(first + place) % 3].next();
            lanes.extend(lane.filter(|lane| seen.insert(lane.feed)));
        }
        lanes.truncate(turns);
        lanes
    }
}
