//! Leasing feeds: the most urgent one, and the position of its pull.
//!
//! `feed_trigger.next_at` is when to look at a pending trigger again. Whoever raises a trigger sets
//! it, and whoever finds here that its feed can't be pulled yet moves it to when it can: so each
//! lease reads a few entries of an index, however many feeds are due, waiting or paused.

use std::time::Duration;

use super::columns::UnknownValue;
use super::engine::{Column, Columns, Fragment, Sql, Tx, operations, params, rows};
use super::error::Result;
use super::feeds::{LeaseRequest, PageLease, Position, PullProgress};
use super::gaps::{earlier, provable_start};
use super::pulls::{SavedCursor, overlap_start, position_kind};
use super::trigger_kind::TriggerKind;
use super::{Store, StoreError};
use crate::backoff;
use crate::domain::{Account, Cursor, Feed, Queue, Timestamp};

/// True if the feed `f` is leased at $1. Its lease is over if it began later than $2, the latest
/// present: the clock was ahead.
const LEASED: Fragment =
    Fragment::Same("coalesce(f.leased_until > $1 AND f.last_leased_at <= $2, false)");

/// Queues of accounts: ids $3, queues $4.
const QUEUES: Fragment = Fragment::Differs(
    "(SELECT value AS account_id, $4 ->> key AS queue FROM json_each($3)) AS q",
    "unnest($3, $4) AS q (account_id, queue)",
);

/// The kinds of triggers, most urgent first.
const KINDS: Fragment = Fragment::Same("(VALUES (0), (1), (2), (3), (4)) AS k");

/// The feeds of one queue and kind that are not leased, in the order of their turns.
const IN_TURN: Fragment = Fragment::Same(
    "FROM feed_trigger d {then_join} feed f ON f.id = d.feed_id
           WHERE d.account_id = q.account_id AND d.queue = q.queue AND d.kind = k.column1
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

/// An account whose feeds are pulled.
struct AccountState {
    id: i64,
    account: Account,
    is_removed: bool,
    waits_since: Option<Timestamp>,
    waits_until: Option<Timestamp>,
    in_flight: u32,
}

impl AccountState {
    fn wait(&self, now: Timestamp) -> Option<Timestamp> {
        backoff::rest_since(self.waits_since, self.waits_until, now)
    }

    fn is_open(&self, request: &LeaseRequest, now: Timestamp) -> bool {
        !self.is_removed
            && self.in_flight < request.requests_per_account
            && self.wait(now).is_none()
    }

    /// Returns the queues that the process can pull, beside the account's id for each.
    fn queues(&self, request: &LeaseRequest) -> (Vec<i64>, Vec<Queue>) {
        let queues = request.queues.iter();
        queues
            .filter(|(account, _)| *account == self.account)
            .map(|(_, queue)| (self.id, *queue))
            .unzip()
    }
}

/// Returns the accounts of these names.
async fn accounts<T: Tx>(
    tx: &T,
    names: &[&Account],
    now: Timestamp,
) -> Result<Vec<AccountState>> {
    static SQL: Sql = Sql::with(
        "SELECT a.id, a.name, a.removed_at IS NOT NULL,
             a.waits_since, a.waits_until,
             (SELECT count(*) FROM feed f WHERE f.account_id = a.id AND f.leased_until > $1 AND {leased})
         FROM account a WHERE a.name IN ({elements}($3))",
        &[("leased", LEASED)],
    );
    tx.all(&SQL, params! { now, backoff::latest_present(now), names })
        .await
}

async fn next_due<T: Tx>(tx: &T, request: LeaseRequest) -> Result<Option<Timestamp>> {
    static NEXT: Sql = Sql::with(
        "SELECT min(c.next_at) FROM (
             SELECT (SELECT d.next_at {in_turn} AND d.next_at IS NOT NULL ORDER BY d.next_at LIMIT 1) AS next_at
             FROM {queues} CROSS JOIN {kinds}) AS c",
        &[
            ("in_turn", IN_TURN),
            ("leased", LEASED),
            ("queues", QUEUES),
            ("kinds", KINDS),
        ],
    );
    static LEASED_UNTIL: Sql = Sql::with(
        "SELECT min(f.leased_until) FROM feed f
         WHERE f.account_id = $3 AND f.leased_until > $1 AND {leased}",
        &[("leased", LEASED)],
    );
    let now = tx.now_or(request.now);
    let present = backoff::latest_present(now);
    let mut due_at: Option<Timestamp> = None;
    for account in accounts(tx, &request.accounts(), now).await? {
        if account.is_removed {
            continue;
        }
        let (ids, queues) = account.queues(&request);
        let next: Option<Timestamp> = tx.one(&NEXT, params! { now, present, ids, queues }).await?;
        let leased: Option<Timestamp> = tx
            .one(&LEASED_UNTIL, params! { now, present, account.id })
            .await?;
        let next = next.into_iter().chain(leased).min();
        let next = next.map(|next| account.wait(now).map_or(next, |wait| wait.max(next)));
        due_at = due_at.into_iter().chain(next).min();
    }
    Ok(due_at)
}

impl LeaseRequest {
    /// Returns the accounts that the process can pull.
    fn accounts(&self) -> Vec<&Account> {
        let mut accounts: Vec<&Account> = self.queues.iter().map(|(account, _)| account).collect();
        accounts.sort();
        accounts.dedup();
        accounts
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
async fn try_lease<T: Tx>(
    tx: &T,
    request: LeaseRequest,
    locked: Vec<i64>,
) -> Result<LeaseAttempt> {
    static LOCK_FEED: Sql = Sql::with(
        "SELECT 1 FROM feed WHERE id = $1{skip_leased}",
        &[(
            "skip_leased",
            Fragment::Differs("", " FOR NO KEY UPDATE SKIP LOCKED"),
        )],
    );
    // Serializes the counting of requests in flight.
    static LOCK_ACCOUNT: Sql = Sql::new("SELECT name FROM account WHERE id = $1{lock_rows}");
    static FEED: Sql = Sql::with(
        "SELECT a.name, f.queue, f.company, f.cursor, f.first_complete_at IS NULL, f.pulled_at IS NULL,
                f.failures, a.failures,
                f.last_page_at IS NOT NULL OR NOT EXISTS (SELECT 1 FROM account_queue q WHERE q.account_id = a.id),
                f.removed_at IS NOT NULL OR coalesce(f.paused, '') IN ('by_hand', 'company_filter_ignored'),
                f.waits_since, f.waits_until,
                (SELECT q.largest_page FROM account_queue q WHERE q.account_id = a.id AND q.queue = f.queue)
         FROM feed f JOIN account a ON a.id = f.account_id WHERE f.id = $3 AND NOT {leased}",
        &[("leased", LEASED)],
    );
    static TRIGGERS: Sql = Sql::new(
        "SELECT d.kind, d.raised, coalesce(r.completed, 0), r.target IS NOT NULL, d.due_at, d.next_at, r.started_at
         FROM feed_trigger d LEFT JOIN feed_pull r ON r.feed_id = d.feed_id AND r.kind = d.kind
         WHERE d.feed_id = $1 ORDER BY d.kind",
    );
    static LEASE: Sql = Sql::new(
        "UPDATE feed SET fence = fence + 1, leased_until = $2, last_leased_at = $3 WHERE id = $1
         RETURNING fence",
    );
    let now = tx.now_or(request.now);
    let present = backoff::latest_present(now);
    let Some((feed_id, account, kind)) = choose(tx, &request, &locked, now).await? else {
        return Ok(LeaseAttempt::Nothing);
    };
    if tx.first::<()>(&LOCK_FEED, &[&feed_id]).await?.is_none() {
        return Ok(LeaseAttempt::Locked(feed_id));
    }
    let name: Account = tx.one(&LOCK_ACCOUNT, &[&account]).await?;
    // Read again: others may have committed between the choice, which saw an older snapshot,
    // and the locks.
    let accounts = accounts(tx, &[&name], now).await?;
    if !accounts
        .iter()
        .all(|account| account.is_open(&request, now))
    {
        return Ok(LeaseAttempt::Moved);
    }
    let feed: Option<LeasableFeed> = tx.first(&FEED, params! { now, present, feed_id }).await?;
    let Some(feed) = feed else {
        return Ok(LeaseAttempt::Moved);
    };
    let triggers: Vec<PendingTrigger> = tx.all(&TRIGGERS, &[&feed_id]).await?;
    let next = feed.next(&triggers, &request, now);
    // A less urgent one of this feed has its turn among those of other feeds.
    let found = triggers.iter().position(|trigger| trigger.kind == kind);
    let chosen = next
        .iter()
        .position(|next| next.is_some_and(|at| at <= now));
    let chosen = chosen.filter(|chosen| found.is_some_and(|found| *chosen <= found));
    for (index, (trigger, next)) in triggers.iter().zip(next).enumerate() {
        let next = match next {
            // The end of the line: other feeds have their turns first.
            Some(_) if chosen == Some(index) => Some(now),
            Some(at) if at <= now => continue,
            next => next,
        };
        move_trigger(tx, feed_id, trigger, next).await?;
    }
    let Some(trigger) = chosen.map(|index| &triggers[index]) else {
        return Ok(LeaseAttempt::Moved);
    };
    let candidate = Candidate {
        kind: trigger.kind,
        raised: trigger.raised,
        in_progress: trigger.in_progress,
        cursor: feed.cursor,
        first_read: feed.first_read,
        largest_page: feed.largest_page.unwrap_or(0),
    };
    if triggers
        .iter()
        .any(|trigger| trigger.started_at > Some(present))
    {
        forget_future_starts(tx, feed_id, present).await?;
    }
    let position = start_or_resume(tx, &request, feed_id, &candidate, now).await?;
    let fence = tx
        .one(&LEASE, &[&feed_id, &now.after(request.lease), &now])
        .await?;
    Ok(LeaseAttempt::Leased(Box::new(PageLease {
        feed_id,
        feed: feed.feed,
        kind: candidate.kind,
        fence,
        position,
        first_pull: feed.first_pull,
        first_read: feed.first_read,
        largest_page: feed.largest_page,
        feed_failures: feed.feed_failures,
        account_failures: feed.account_failures,
        key_at_fault: feed.key_at_fault,
    })))
}

/// Returns feed, account and kind of the most urgent trigger to look at: one whose time has come, or
/// else one that was to wait for longer than any does.
async fn choose<T: Tx>(
    tx: &T,
    request: &LeaseRequest,
    locked: &[i64],
    now: Timestamp,
) -> Result<Option<(i64, i64, TriggerKind)>> {
    static SQL: Sql = Sql::with(
        "SELECT c.feed_id, c.account_id, c.kind FROM ({first_of_each}) AS c
         WHERE c.feed_id IS NOT NULL ORDER BY c.kind, c.next_at LIMIT 1",
        &[
            // SQLite knows no LATERAL, and PostgreSQL takes long to plan the other.
            (
                "first_of_each",
                Fragment::Differs(
                    "SELECT q.account_id, k.column1 AS kind,
                         (SELECT d.feed_id {waiting}) AS feed_id, (SELECT d.next_at {waiting}) AS next_at
                     FROM {queues} CROSS JOIN {kinds}",
                    "SELECT q.account_id, k.column1 AS kind, w.feed_id, w.next_at
                     FROM {queues} CROSS JOIN {kinds} CROSS JOIN LATERAL (SELECT d.feed_id, d.next_at {waiting}) AS w",
                ),
            ),
            (
                "waiting",
                Fragment::Same(
                    "{in_turn} AND d.next_at > CASE WHEN k.column1 = 3 THEN $6 ELSE $5 END AND d.next_at <= $7
                       AND d.feed_id NOT IN ({elements}($8)) ORDER BY d.next_at LIMIT 1",
                ),
            ),
            ("in_turn", IN_TURN),
            ("leased", LEASED),
            ("queues", QUEUES),
            ("kinds", KINDS),
        ],
    );
    let open = accounts(tx, &request.accounts(), now).await?;
    let open = open.iter().filter(|account| account.is_open(request, now));
    let (ids, queues): (Vec<_>, Vec<_>) = open.map(|account| account.queues(request)).unzip();
    let (ids, queues) = (ids.concat(), queues.concat());
    if ids.is_empty() {
        return Ok(None);
    }
    let (first, last) = (
        Timestamp::from_millis(i64::MIN),
        Timestamp::from_millis(i64::MAX),
    );
    let latest = [TriggerKind::Notification, TriggerKind::Reconciliation]
        .map(|kind| backoff::latest_end(now, request.longest_wait(kind)));
    let present = backoff::latest_present(now);
    for ([after, reconciled_after], until) in [([first, first], now), (latest, last)] {
        let params = params! {
            now, present, ids, queues, after, reconciled_after, until, locked,
        };
        let chosen = tx.first(&SQL, params).await?;
        if chosen.is_some() {
            return Ok(chosen);
        }
    }
    Ok(None)
}

/// Sets when a trigger is looked at again.
async fn move_trigger<T: Tx>(
    tx: &T,
    feed_id: i64,
    trigger: &PendingTrigger,
    next: Option<Timestamp>,
) -> Result<()> {
    // It may have been raised meanwhile.
    static SQL: Sql = Sql::new(
        "UPDATE feed_trigger SET next_at = $3 WHERE feed_id = $1 AND kind = $2 AND raised = $4",
    );
    if trigger.next_at == next {
        return Ok(());
    }
    tx.run(
        &SQL,
        params! { feed_id, trigger.kind, next, trigger.raised },
    )
    .await
}

/// A feed that may be leased.
struct LeasableFeed {
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

impl LeasableFeed {
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

/// A trigger whose pull starts or continues.
struct Candidate {
    kind: TriggerKind,
    raised: i64,
    in_progress: bool,
    cursor: Option<Cursor>,
    first_read: bool,
    largest_page: usize,
}

rows! {
    AccountState { id, account, is_removed, waits_since, waits_until, in_flight }
    LeasableFeed {
        feed, cursor, first_pull, first_read, feed_failures, account_failures, key_at_fault,
        needs_person, waits_since, waits_until, largest_page,
    }
    PendingTrigger { kind, raised, completed, in_progress, due_at, next_at, started_at }
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

/// Returns the position of the pull; a new pull is recorded first.
async fn start_or_resume<T: Tx>(
    tx: &T,
    request: &LeaseRequest,
    feed_id: i64,
    candidate: &Candidate,
    now: Timestamp,
) -> Result<Position> {
    static POSITION: Sql = Sql::new(
        "SELECT position, previous_next, progress FROM feed_pull WHERE feed_id = $1 AND kind = $2",
    );
    static START: Sql = Sql::new(
        "INSERT INTO feed_pull (feed_id, kind, target, started_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (feed_id, kind) DO UPDATE SET target = excluded.target, started_at = excluded.started_at",
    );
    let kind = candidate.kind;
    let position_kind = position_kind(kind, candidate.first_read);
    let stored: Option<Position> = tx.first(&POSITION, &[&feed_id, &position_kind]).await?;
    let stored = stored.unwrap_or_default();
    if candidate.in_progress {
        return Ok(stored);
    }
    if stored.from.is_some() {
        // Set when a backfill was requested; or a pull of another kind has begun the first read, and
        // this one goes on, with all that it has seen.
        tx.run(&START, &[&feed_id, &kind, &candidate.raised, &now])
            .await?;
        return Ok(stored);
    }
    let start = match kind {
        TriggerKind::Backfill => None,
        kind if kind.overlaps() => {
            let saved = saved_cursors(tx, feed_id).await?;
            let last = last_overlap_read(tx, feed_id, now).await?;
            let start = overlap_start(saved, last.before(request.lookback));
            match provable_start(tx, feed_id, candidate.largest_page).await? {
                Some(gap) => earlier(start.as_ref(), gap.as_ref()).cloned(),
                None => start,
            }
        }
        _ => candidate.cursor.clone(),
    };
    let position = Position {
        from: start,
        ..Position::default()
    };
    tx.run(&START, &[&feed_id, &kind, &candidate.raised, &now])
        .await?;
    save_position(tx, feed_id, position_kind, &position).await?;
    Ok(position)
}

/// Saves the position of a pull.
pub(super) async fn save_position<T: Tx>(
    tx: &T,
    feed: i64,
    kind: TriggerKind,
    position: &Position,
) -> Result<()> {
    static SQL: Sql = Sql::new(
        "INSERT INTO feed_pull (feed_id, kind, position, previous_next, progress) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (feed_id, kind) DO UPDATE SET position = excluded.position,
             previous_next = excluded.previous_next, progress = excluded.progress",
    );
    let Position {
        from,
        previous_next,
        progress,
    } = position;
    let progress = progress.to_json();
    tx.run(&SQL, &[&feed, &kind, from, previous_next, &progress])
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

/// Returns the moment when the newest complete overlap read began; the first pull counts
/// as one. Long ago, if the clock was ahead at each.
///
/// Overlap reads go back from this moment, not from the present: versions may have been
/// listed late while the service was down.
pub(super) async fn last_overlap_read<T: Tx>(
    tx: &T,
    feed: i64,
    now: Timestamp,
) -> Result<Timestamp> {
    static SQL: Sql = Sql::new(
        "SELECT coalesce(
             (SELECT max(CASE WHEN started_at <= $6 THEN started_at ELSE 0 END) FROM feed_pull
              WHERE feed_id = $1 AND kind IN ($2, $3, $4) AND target IS NULL AND started_at IS NOT NULL),
             (SELECT min(started_at) FROM feed_pull WHERE feed_id = $1 AND kind <> $5))",
    );
    let params = params! {
        feed, TriggerKind::FollowUp, TriggerKind::LateFollowUp, TriggerKind::Reconciliation,
        TriggerKind::Backfill, backoff::latest_present(now),
    };
    let began_at: Option<Timestamp> = tx.one(&SQL, params).await?;
    Ok(began_at.unwrap_or(now).min(now))
}

/// Returns the feed's saved cursors, newest first.
pub(super) async fn saved_cursors<T: Tx>(tx: &T, feed: i64) -> Result<Vec<SavedCursor>> {
    static SQL: Sql = Sql::new(
        "SELECT saved_at, cursor FROM feed_cursor WHERE feed_id = $1 ORDER BY saved_at DESC",
    );
    tx.all(&SQL, &[&feed]).await
}

/// Locks the lease's feed and returns the row of its account. Fails with
/// [`StoreError::StaleLease`] if another worker has leased the feed since.
pub(super) async fn lock_as_owner<T: Tx>(tx: &T, lease: &PageLease) -> Result<i64> {
    static SQL: Sql =
        Sql::new("SELECT account_id FROM feed WHERE id = $1 AND fence = $2{lock_rows}");
    tx.first(&SQL, &[&lease.feed_id, &lease.fence])
        .await?
        .ok_or(StoreError::StaleLease)
}
