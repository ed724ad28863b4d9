//! Leasing feeds: the most urgent one, and the position of its pull.
//!
//! `feed_trigger.next_at` is when to look at a pending trigger again. Whoever raises a trigger sets
//! it, and whoever finds here that its feed can't be pulled yet moves it to when it can: so each
//! lease reads a few entries of an index, however many feeds are due, waiting or paused.

use std::ops::ControlFlow;
use std::time::Duration;

use futures_util::future::{try_join, try_join5};

use super::columns::UnknownValue;
use super::engine::{
    Column, Columns, Fragment, Param, Row, Sql, Statement, Tx, operations, params, rows,
};
use super::error::Result;
use super::feeds::{LeaseRequest, PageLease, Position, PullProgress};
use super::gaps::{StoredGap, earlier, earliest_provable, open_gaps};
use super::pulls::{SavedCursor, overlap_start, position_kind};
use super::trigger_kind::TriggerKind;
use super::{Store, StoreError};
use crate::backoff;
use crate::domain::{Account, Cursor, Feed, Queue, Timestamp};

/// True if the feed `f` is leased at $1. Its lease is over if it began later than $2, the latest
/// present: the clock was ahead.
const LEASED: Fragment =
    Fragment::Same("coalesce(f.leased_until > $1 AND f.last_leased_at <= $2, false)");

/// True if the account `a` is not removed and does not wait at $1, as by [`backoff::rest_since`]. A wait
/// is over if it began later than $2.
const OPEN: Fragment = Fragment::Same(
    "a.removed_at IS NULL
       AND NOT coalesce(a.waits_until > $1 AND (a.waits_since IS NULL OR a.waits_since <= $2), false)",
);

/// The feeds of the account `a` that are leased at $1.
const IN_FLIGHT: Fragment =
    Fragment::Same("FROM feed f WHERE f.account_id = a.id AND f.leased_until > $1 AND {leased}");

/// Queues of accounts: names $3, queues $4.
const QUEUES: Fragment = Fragment::Differs(
    "(SELECT value AS account, $4 ->> key AS queue FROM json_each($3)) AS q CROSS JOIN account a ON a.name = q.account",
    "unnest($3, $4) AS q (account, queue) JOIN account a ON a.name = q.account",
);

/// The kinds of triggers, most urgent first.
const KINDS: Fragment = Fragment::Same("(VALUES (0), (1), (2), (3), (4)) AS k");

/// The feeds of one queue and kind that are not leased, in the order of their turns.
const IN_TURN: Fragment = Fragment::Same(
    "FROM feed_trigger d {then_join} feed f ON f.id = d.feed_id
           WHERE d.account_id = a.id AND d.queue = q.queue AND d.kind = k.column1
             AND NOT {leased}",
);

operations! {
    /// Tries to lease the most urgent feed that may be pulled now, but none of `locked`; its pull
    /// starts or continues.
    write try_lease(request: LeaseRequest, locked: Vec<i64>) -> LeaseAttempt;

    /// Returns the moment when the next trigger is due; `None` if there is none.
    pub read_own next_due(request: LeaseRequest) -> Option<Timestamp>;
}

/// The result of one attempt to lease a feed.
enum LeaseAttempt {
    /// It is leased.
    Leased(Box<PageLease>),
    /// Nothing may be pulled now.
    Nothing,
    /// The feed can't be pulled yet; its triggers have moved.
    Moved,
    /// Another replica has locked the feed.
    Locked(i64),
}

/// Number of attempts to lease a feed in one call.
const MAX_LEASE_ATTEMPTS: usize = 1_000;

impl Store {
    /// Leases the most urgent feed that may be requested now.
    pub async fn lease_page(&self, request: LeaseRequest) -> Result<Option<PageLease>> {
        let mut locked = Vec::new();
        for _ in 0..MAX_LEASE_ATTEMPTS {
            match self.try_lease(request.clone(), locked.clone()).await? {
                LeaseAttempt::Leased(lease) => return Ok(Some(*lease)),
                LeaseAttempt::Nothing => break,
                LeaseAttempt::Moved => {}
                LeaseAttempt::Locked(feed) => locked.push(feed),
            }
        }
        Ok(None)
    }
}

pub(super) async fn next_due<T: Tx>(tx: &T, request: LeaseRequest) -> Result<Option<Timestamp>> {
    // The leases of an account are beside one kind of its triggers.
    static SQL: Sql = Sql::with(
        "SELECT a.waits_since, a.waits_until,
             (SELECT d.next_at {in_turn} AND d.next_at IS NOT NULL ORDER BY d.next_at LIMIT 1),
             CASE k.column1 WHEN 0 THEN (SELECT min(f.leased_until) {in_flight}) END
         FROM {queues} CROSS JOIN {kinds} WHERE a.removed_at IS NULL",
        &[
            ("in_turn", IN_TURN),
            ("in_flight", IN_FLIGHT),
            ("leased", LEASED),
            ("queues", QUEUES),
            ("kinds", KINDS),
        ],
    );
    type Moments = (
        Option<Timestamp>,
        Option<Timestamp>,
        Option<Timestamp>,
        Option<Timestamp>,
    );
    let now = tx.now_or(request.now);
    let (accounts, queues) = request.queues();
    let params = params! { now, backoff::latest_present(now), accounts, queues };
    let found: Vec<Moments> = tx.all(&SQL, params).await?;
    let next = found
        .into_iter()
        .filter_map(|(waits_since, waits_until, trigger, leased)| {
            let next = trigger.into_iter().chain(leased).min()?;
            let wait = backoff::rest_since(waits_since, waits_until, now);
            Some(wait.map_or(next, |wait| wait.max(next)))
        });
    Ok(next.min())
}

impl LeaseRequest {
    /// Returns the queues that the process can pull, beside the account of each.
    fn queues(&self) -> (Vec<&Account>, Vec<Queue>) {
        let queues = self.queues.iter();
        queues.map(|(account, queue)| (account, *queue)).unzip()
    }

    /// Returns the longest time for which a trigger may have to wait, apart from its account.
    fn longest_wait(&self, kind: TriggerKind) -> Duration {
        match kind {
            TriggerKind::Reconciliation => self.reconcile_every.max(backoff::PAUSED),
            _ => backoff::PAUSED,
        }
    }
}

/// The locks are those of an UPDATE that does not change the key, so that ingest, whose rows
/// refer to these, never waits for them.
async fn try_lease<T: Tx>(tx: &T, request: LeaseRequest, locked: Vec<i64>) -> Result<LeaseAttempt> {
    // The account's serializes the counting of requests in flight.
    static LOCK: Sql = Sql::with(
        "SELECT 1 FROM feed f JOIN account a ON a.id = f.account_id WHERE f.id = $1{lock}",
        &[(
            "lock",
            Fragment::Differs(
                "",
                " FOR NO KEY UPDATE OF f SKIP LOCKED FOR NO KEY UPDATE OF a",
            ),
        )],
    );
    static FEED: Sql = Sql::with(
        "SELECT a.id, a.name, f.queue, f.company, f.cursor, f.first_complete_at IS NULL, f.pulled_at IS NULL,
                f.failures, a.failures,
                f.last_page_at IS NOT NULL OR NOT EXISTS (SELECT 1 FROM account_queue q WHERE q.account_id = a.id),
                f.removed_at IS NOT NULL OR coalesce(f.paused, '') IN ('by_hand', 'company_filter_ignored'),
                f.waits_since, f.waits_until,
                (SELECT q.largest_page FROM account_queue q WHERE q.account_id = a.id AND q.queue = f.queue)
         FROM feed f JOIN account a ON a.id = f.account_id
         WHERE f.id = $3 AND NOT {leased} AND {open} AND (SELECT count(*) {in_flight}) < $4",
        &[
            ("open", OPEN),
            ("in_flight", IN_FLIGHT),
            ("leased", LEASED),
        ],
    );
    static TRIGGERS: Sql = Sql::new(
        "SELECT kind, raised, due_at, next_at FROM feed_trigger WHERE feed_id = $1 ORDER BY kind",
    );
    static PULLS: Sql = Sql::new(
        "SELECT kind, target IS NULL, started_at, completed, position, previous_next, progress FROM feed_pull
         WHERE feed_id = $1",
    );
    // A trigger may have been raised meanwhile.
    static MOVE: Sql = Sql::new(
        "UPDATE feed_trigger SET next_at = $3 WHERE feed_id = $1 AND kind = $2 AND raised = $4",
    );
    static START: Sql = Sql::new(
        "INSERT INTO feed_pull (feed_id, kind, target, started_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (feed_id, kind) DO UPDATE SET target = excluded.target, started_at = excluded.started_at",
    );
    static START_AT: Sql = Sql::new(
        "INSERT INTO feed_pull (feed_id, kind, target, started_at, position, previous_next, progress)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (feed_id, kind) DO UPDATE SET target = excluded.target, started_at = excluded.started_at,
             position = excluded.position, previous_next = excluded.previous_next, progress = excluded.progress",
    );
    static LEASE: Sql = Sql::new(
        "UPDATE feed SET fence = fence + 1, leased_until = $2, last_leased_at = $3 WHERE id = $1
         RETURNING fence",
    );
    let now = tx.now_or(request.now);
    let present = backoff::latest_present(now);
    let Some((feed_id, kind, others_due)) = choose(tx, &request, &locked, now).await? else {
        return Ok(LeaseAttempt::Nothing);
    };
    // Read again after the locks: others may have committed since the choice, which saw an older
    // snapshot.
    let (lock, feed, triggers, pulls, overlap) = try_join5(
        tx.first::<()>(&LOCK, &[&feed_id]),
        tx.first::<LeasableFeed>(
            &FEED,
            params! { now, present, feed_id, request.requests_per_account },
        ),
        tx.all::<StoredTrigger>(&TRIGGERS, &[&feed_id]),
        tx.all::<StoredPull>(&PULLS, &[&feed_id]),
        Overlap::of(tx, feed_id, kind),
    )
    .await?;
    if lock.is_none() {
        return Ok(LeaseAttempt::Locked(feed_id));
    }
    let Some(feed) = feed else {
        return Ok(LeaseAttempt::Moved);
    };
    let triggers: Vec<PendingTrigger> = triggers
        .into_iter()
        .map(|trigger| trigger.with(&pulls))
        .collect();
    let next = feed.next(&triggers, &request, now);
    // A less urgent one of this feed has its turn among those of other feeds.
    let found = triggers.iter().position(|trigger| trigger.kind == kind);
    let chosen = next
        .iter()
        .position(|next| next.is_some_and(|at| at <= now));
    let chosen = chosen.filter(|chosen| found.is_some_and(|found| *chosen <= found));
    let mut moves = Vec::new();
    for (index, (trigger, next)) in triggers.iter().zip(next).enumerate() {
        let next = match next {
            // The end of the line: other feeds have their turns first.
            Some(_) if chosen == Some(index) => Some(now),
            Some(at) if at <= now => continue,
            next => next,
        };
        if trigger.next_at != next {
            moves.push((trigger, next));
        }
    }
    let moves: Vec<[&dyn Param; 4]> = moves
        .iter()
        .map(|(trigger, next)| -> [&dyn Param; 4] {
            [&feed_id, &trigger.kind, next, &trigger.raised]
        })
        .collect();
    let mut last: Vec<Statement<'_>> = moves
        .iter()
        .map(|values| (&MOVE, values.as_slice()))
        .collect();
    let mut fence = 0;
    let mut read_fence = |row: &dyn Row| {
        fence = row.integer(0)?;
        Ok(ControlFlow::Continue(()))
    };
    let Some(trigger) = chosen.map(|index| &triggers[index]) else {
        tx.last(&last, &mut read_fence).await?;
        return Ok(LeaseAttempt::Moved);
    };
    if triggers
        .iter()
        .any(|trigger| trigger.started_at > Some(present))
    {
        forget_future_starts(tx, feed_id, present).await?;
    }
    let last_read = last_overlap_read(pulls.iter().map(|pull| &pull.began), now);
    let position_kind = position_kind(trigger.kind, feed.first_read);
    let stored = pulls
        .into_iter()
        .find_map(|pull| (pull.began.kind == position_kind).then_some(pull.position));
    let stored = stored.unwrap_or_default();
    // A pull in progress goes on; a new one too, if a backfill was requested, or a pull of another kind
    // has begun the first read: with all that it has seen.
    let goes_on = trigger.in_progress || stored.from.is_some();
    let position = match goes_on {
        true => stored,
        false => Position {
            from: feed.start(trigger.kind, overlap, last_read.before(request.lookback)),
            ..Position::default()
        },
    };
    let progress = position.progress.to_json();
    let Position {
        from,
        previous_next,
        ..
    } = &position;
    let started = params! { feed_id, trigger.kind, trigger.raised, now };
    let started_at = params! {
        feed_id, trigger.kind, trigger.raised, now, from, previous_next, progress,
    };
    let saved = params! { feed_id, position_kind, from, previous_next, progress };
    let leased = params! { feed_id, now.after(request.lease), now };
    if !trigger.in_progress && position_kind == trigger.kind {
        last.push((&START_AT, started_at));
    } else if !trigger.in_progress {
        last.push((&START, started));
        if !goes_on {
            last.push((&SAVE_POSITION, saved));
        }
    }
    last.push((&LEASE, leased));
    tx.last(&last, &mut read_fence).await?;
    Ok(LeaseAttempt::Leased(Box::new(PageLease {
        feed_id,
        account_id: feed.account_id,
        feed: feed.feed,
        kind: trigger.kind,
        fence,
        position,
        first_pull: feed.first_pull,
        first_read: feed.first_read,
        largest_page: feed.largest_page,
        feed_failures: feed.feed_failures,
        account_failures: feed.account_failures,
        key_at_fault: feed.key_at_fault,
        others_due,
    })))
}

/// Returns feed and kind of the most urgent trigger to look at, and whether there is another: one
/// whose time has come, or else one that was to wait for longer than any does.
async fn choose<T: Tx>(
    tx: &T,
    request: &LeaseRequest,
    locked: &[i64],
    now: Timestamp,
) -> Result<Option<(i64, TriggerKind, bool)>> {
    // Of each kind PostgreSQL reads two, and SQLite one and whether there is another.
    static SQL: Sql = Sql::with(
        "SELECT c.feed_id, c.kind, count(*) OVER () > 1 OR c.is_followed FROM ({first_of_each}) AS c
         WHERE c.feed_id IS NOT NULL ORDER BY c.kind, c.next_at LIMIT 1",
        &[
            // SQLite knows no LATERAL, and PostgreSQL takes long to plan the other.
            (
                "first_of_each",
                Fragment::Differs(
                    "SELECT k.column1 AS kind,
                         (SELECT d.feed_id {waiting} LIMIT 1) AS feed_id,
                         (SELECT d.next_at {waiting} LIMIT 1) AS next_at,
                         (SELECT 1 {waiting} LIMIT 1 OFFSET 1) IS NOT NULL AS is_followed
                     FROM {queues} CROSS JOIN {kinds} WHERE {may_request}",
                    "SELECT k.column1 AS kind, w.feed_id, w.next_at, false AS is_followed
                     FROM {queues} CROSS JOIN {kinds}
                     CROSS JOIN LATERAL (SELECT d.feed_id, d.next_at {waiting} LIMIT 2) AS w
                     WHERE {may_request}",
                ),
            ),
            (
                "waiting",
                Fragment::Same(
                    "{in_turn} AND d.next_at > CASE WHEN k.column1 = 3 THEN $6 ELSE $5 END AND d.next_at <= $7
                       AND d.feed_id NOT IN ({elements}($8)) ORDER BY d.next_at",
                ),
            ),
            ("may_request", Fragment::Same("{open} AND (SELECT count(*) {in_flight}) < $9")),
            ("open", OPEN),
            ("in_flight", IN_FLIGHT),
            ("in_turn", IN_TURN),
            ("leased", LEASED),
            ("queues", QUEUES),
            ("kinds", KINDS),
        ],
    );
    let (accounts, queues) = request.queues();
    let (first, last) = (
        Timestamp::from_millis(i64::MIN),
        Timestamp::from_millis(i64::MAX),
    );
    let latest = [TriggerKind::Notification, TriggerKind::Reconciliation]
        .map(|kind| backoff::latest_end(now, request.longest_wait(kind)));
    let present = backoff::latest_present(now);
    for ([after, reconciled_after], until) in [([first, first], now), (latest, last)] {
        let params = params! {
            now, present, accounts, queues, after, reconciled_after, until, locked,
            request.requests_per_account,
        };
        let chosen = tx.first(&SQL, params).await?;
        if chosen.is_some() {
            return Ok(chosen);
        }
    }
    Ok(None)
}

/// A feed that may be leased.
struct LeasableFeed {
    account_id: i64,
    feed: Feed,
    cursor: Option<Cursor>,
    first_pull: bool,
    first_read: bool,
    feed_failures: u32,
    account_failures: u32,
    key_at_fault: bool,
    needs_person: bool,
    waits_since: Option<Timestamp>,
    waits_until: Option<Timestamp>,
    largest_page: Option<usize>,
}

/// A trigger of a feed, and its pull.
struct PendingTrigger {
    kind: TriggerKind,
    raised: i64,
    completed: i64,
    in_progress: bool,
    due_at: Timestamp,
    next_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
}

/// A trigger as it is stored.
struct StoredTrigger {
    kind: TriggerKind,
    raised: i64,
    due_at: Timestamp,
    next_at: Option<Timestamp>,
}

/// When the last pull for a kind of trigger began.
pub(super) struct PullBeginning {
    kind: TriggerKind,
    is_complete: bool,
    started_at: Option<Timestamp>,
}

/// The pull for a kind of trigger.
struct StoredPull {
    began: PullBeginning,
    completed: i64,
    position: Position,
}

impl StoredTrigger {
    /// Returns it with the pull of its kind.
    fn with(self, pulls: &[StoredPull]) -> PendingTrigger {
        let pull = pulls.iter().find(|pull| pull.began.kind == self.kind);
        PendingTrigger {
            kind: self.kind,
            raised: self.raised,
            completed: pull.map_or(0, |pull| pull.completed),
            in_progress: pull.is_some_and(|pull| !pull.began.is_complete),
            due_at: self.due_at,
            next_at: self.next_at,
            started_at: pull.and_then(|pull| pull.began.started_at),
        }
    }
}

/// What decides where a pull that overlaps earlier ones starts.
struct Overlap {
    /// Newest first.
    saved: Vec<SavedCursor>,
    gaps: Vec<StoredGap>,
}

impl Overlap {
    /// Reads what pulls of this kind and of less urgent ones need.
    async fn of<T: Tx>(tx: &T, feed: i64, kind: TriggerKind) -> Result<Option<Self>> {
        if !kind.overlaps() {
            return Ok(None);
        }
        let (saved, gaps) = try_join(saved_cursors(tx, feed), open_gaps(tx, feed)).await?;
        Ok(Some(Self { saved, gaps }))
    }
}

impl LeasableFeed {
    /// Returns where a new pull starts; `None` at the first entry of the queue. One that overlaps starts
    /// where an earlier one was at `old_enough`.
    fn start(
        &self,
        kind: TriggerKind,
        overlap: Option<Overlap>,
        old_enough: Timestamp,
    ) -> Option<Cursor> {
        if kind == TriggerKind::Backfill {
            return None;
        }
        let Some(overlap) = overlap.filter(|_| kind.overlaps()) else {
            return self.cursor.clone();
        };
        let start = overlap_start(overlap.saved, old_enough);
        match earliest_provable(&overlap.gaps, self.largest_page.unwrap_or(0)) {
            Some(gap) => earlier(start.as_ref(), gap.as_ref()).cloned(),
            None => start,
        }
    }

    /// Returns for each trigger when the feed may be pulled for it; `None` if it is not pending,
    /// or a person is needed.
    fn next(
        &self,
        triggers: &[PendingTrigger],
        request: &LeaseRequest,
        now: Timestamp,
    ) -> Vec<Option<Timestamp>> {
        let wait = backoff::rest_since(self.waits_since, self.waits_until, now);
        let began = triggers.iter().filter_map(|trigger| trigger.started_at);
        let last_began = began.filter(|at| *at <= backoff::latest_present(now)).max();
        let interval = last_began.map(|began| began.after(request.min_interval));
        let next = |trigger: &PendingTrigger| {
            if self.needs_person || trigger.raised <= trigger.completed {
                return None;
            }
            let longest = request.longest_wait(trigger.kind);
            let due = backoff::rest_within(Some(trigger.due_at), longest, now);
            let interval = interval.filter(|_| !trigger.in_progress);
            let next = [due, wait, interval].into_iter().flatten().max();
            // No wait is longer, lest it is found again and again.
            Some(next.unwrap_or(now).min(now.after(longest)))
        };
        triggers.iter().map(next).collect()
    }
}

rows! {
    LeasableFeed {
        account_id, feed, cursor, first_pull, first_read, feed_failures, account_failures, key_at_fault,
        needs_person, waits_since, waits_until, largest_page,
    }
    StoredTrigger { kind, raised, due_at, next_at }
    PullBeginning { kind, is_complete, started_at }
    StoredPull { began, completed, position }
    Position { from, previous_next, progress }
    SavedCursor { saved_at, cursor }
}

impl PullProgress {
    /// Returns the text of its column.
    fn to_json(&self) -> Option<String> {
        // It has nothing that JSON can't hold.
        (*self != Self::default()).then(|| serde_json::to_string(self).ok())?
    }
}

impl Column for PullProgress {
    /// NULL is the progress of a pull that has not begun.
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        let Some(json) = columns.get::<Option<String>>()? else {
            return Ok(Self::default());
        };
        let read = serde_json::from_str(&json);
        Ok(read.map_err(|_| UnknownValue("progress of a pull"))?)
    }
}

static SAVE_POSITION: Sql = Sql::new(
    "INSERT INTO feed_pull (feed_id, kind, position, previous_next, progress) VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (feed_id, kind) DO UPDATE SET position = excluded.position,
         previous_next = excluded.previous_next, progress = excluded.progress",
);

/// Saves the position of a pull.
pub(super) async fn save_position<T: Tx>(
    tx: &T,
    feed: i64,
    kind: TriggerKind,
    position: &Position,
) -> Result<()> {
    let Position {
        from,
        previous_next,
        progress,
    } = position;
    let progress = progress.to_json();
    tx.run(
        &SAVE_POSITION,
        &[&feed, &kind, from, previous_next, &progress],
    )
    .await
}

/// Forgets when the complete pulls of a feed began that seem to have begun later than `present`:
/// the clock was ahead, and once the right time has caught up, that could not be told any more.
async fn forget_future_starts<T: Tx>(tx: &T, feed: i64, present: Timestamp) -> Result<()> {
    static SQL: Sql = Sql::new(
        "UPDATE feed_pull SET started_at = 0 WHERE feed_id = $1 AND target IS NULL AND started_at > $2",
    );
    tx.run(&SQL, &[&feed, &present]).await
}

/// Returns when the last pull of each kind began.
pub(super) async fn pull_beginnings<T: Tx>(tx: &T, feed: i64) -> Result<Vec<PullBeginning>> {
    static SQL: Sql =
        Sql::new("SELECT kind, target IS NULL, started_at FROM feed_pull WHERE feed_id = $1");
    tx.all(&SQL, &[&feed]).await
}

/// Returns the moment when the newest complete overlap read of a feed began; the first pull counts
/// as one. Long ago, if the clock was ahead at each.
///
/// Overlap reads go back from this moment, not from the present: versions may have been
/// listed late while the service was down.
pub(super) fn last_overlap_read<'p>(
    pulls: impl Iterator<Item = &'p PullBeginning> + Clone,
    now: Timestamp,
) -> Timestamp {
    let present = backoff::latest_present(now);
    let long_ago = Timestamp::from_millis(0);
    let pulls = pulls.filter(|pull| pull.kind != TriggerKind::Backfill);
    let first = pulls.clone().filter_map(|pull| pull.started_at).min();
    let overlaps = pulls.filter(|pull| pull.kind.overlaps() && pull.is_complete);
    let last = overlaps
        .filter_map(|pull| pull.started_at)
        .map(|at| if at <= present { at } else { long_ago })
        .max();
    last.or(first).unwrap_or(now).min(now)
}

/// Returns the feed's saved cursors, newest first.
pub(super) async fn saved_cursors<T: Tx>(tx: &T, feed: i64) -> Result<Vec<SavedCursor>> {
    static SQL: Sql = Sql::new(
        "SELECT saved_at, cursor FROM feed_cursor WHERE feed_id = $1 ORDER BY saved_at DESC",
    );
    tx.all(&SQL, &[&feed]).await
}

/// Locks the lease's feed. Fails with [`StoreError::StaleLease`] if another worker has leased the feed
/// since.
pub(super) async fn lock_as_owner<T: Tx>(tx: &T, lease: &PageLease) -> Result<()> {
    match lock_if_owner(tx, lease).await? {
        true => Ok(()),
        false => Err(StoreError::StaleLease),
    }
}

/// Locks the lease's feed; returns false if another worker has leased the feed since.
pub(super) async fn lock_if_owner<T: Tx>(tx: &T, lease: &PageLease) -> Result<bool> {
    static SQL: Sql = Sql::new("SELECT 1 FROM feed WHERE id = $1 AND fence = $2{lock_rows}");
    let owned: Option<()> = tx.first(&SQL, &[&lease.feed_id, &lease.fence]).await?;
    Ok(owned.is_some())
}
