//! What attempts mean for their lanes and their destination: failures, waits and pauses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use super::deliveries::{
    DeliveryLease, DeliveryOutcome, DeliveryState, DestinationPauseReason, LanePauseReason, rest,
};
use super::engine::{Column, Columns, Fragment, Sql, Tx, params, rows};
use super::error::{Result, StoreError};
use crate::backoff;
use crate::domain::Timestamp;

/// Failures of a document, and the time since the first, after which its lane tries another.
pub(super) const DEFERRED_AFTER_FAILURES: u32 = 8;
pub(super) const DEFERRED_AFTER_TIME: Duration = Duration::from_secs(30 * 60);

/// Equal rejections in a row, and at once from the first answer on, that pause a lane.
const MAX_EQUAL_REJECTIONS: u32 = 20;
const MAX_FIRST_REJECTIONS: u32 = 5;

/// The number of answers of a lane that had another one than equal rejections.
const ANSWERED: u32 = 1_000;

/// Lanes paused for the same rejections that pause their destination.
const PAUSING_LANES: i64 = 2;

/// A version that was attempted.
pub(super) struct Version {
    pub(super) sequence: i64,
    pub(super) feed: i64,
    pub(super) document_id: String,
    pub(super) is_erased: bool,
    pub(super) is_superseded: bool,
    pub(super) state: Option<DeliveryState>,
    pub(super) failures: u32,
    /// True if it was tried apart from the order of its lane, which has gone on.
    pub(super) is_apart: bool,
    pub(super) failing_since: Option<Timestamp>,
    pub(super) changed_at: Option<Timestamp>,
    /// When the destination last accepted or rejected another.
    pub(super) last_answer_at: Option<Timestamp>,
}

rows! {
    Version {
        sequence, feed, document_id, is_erased, is_superseded, state, failures, is_apart, failing_since,
        changed_at, last_answer_at,
    }
}

impl Version {
    /// Returns true if this answer of the destination is that of its last attempt. One that a person lets try
    /// again is pending.
    pub(super) fn has_ended_as(&self, outcome: &DeliveryOutcome) -> bool {
        matches!(
            (self.state, outcome),
            (
                Some(DeliveryState::Delivered),
                DeliveryOutcome::Delivered { .. }
            ) | (
                Some(DeliveryState::Rejected),
                DeliveryOutcome::Rejected { .. }
            )
        )
    }

    /// Returns true if it is deferred by one more failure: it has failed for long, and another was
    /// accepted or rejected since its last attempt.
    pub(super) fn is_deferred_at(&self, now: Timestamp) -> bool {
        let since = self.failing_since;
        self.state == Some(DeliveryState::Deferred)
            || (self.failures + 1 >= DEFERRED_AFTER_FAILURES
                && since.is_some_and(|since| now.since(since) >= DEFERRED_AFTER_TIME)
                && self.last_answer_at > self.changed_at)
    }
}

/// A lane's answers and failures.
#[derive(Clone)]
struct LaneCount {
    feed: i64,
    due_at: Option<Timestamp>,
    failures: u32,
    failing_since: Option<Timestamp>,
    last_error: Option<String>,
    paused: Option<LanePauseReason>,
    answers: u32,
    equal_rejections: u32,
    last_rejection: Option<Vec<u8>>,
    position: i64,
    held: i64,
}

/// A destination's pause, wait, answers and failures.
pub(super) struct DestinationState {
    waits_until: Option<Timestamp>,
    failing_since: Option<Timestamp>,
    failures: u32,
    probing: bool,
    last_error: Option<String>,
    stuck_at: Option<i64>,
    /// The feed and the document of the version that failed last.
    stuck: Option<(i64, String)>,
    paused: Option<String>,
}

impl DestinationState {
    /// Returns true if no attempt may begin until a person resumes it.
    pub(super) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Returns true if an attempt may begin now.
    pub(super) fn may_start(&self, now: Timestamp) -> bool {
        !self.is_paused() && rest(self.waits_until, now).is_none()
    }

    /// Returns true if it gets one version at a time, until it accepts one.
    pub(super) fn is_probing(&self) -> bool {
        self.probing
    }
}

/// Locks the leased destination and returns its state. Fails with [`StoreError::StaleLease`] if another
/// worker has leased it since.
pub(super) async fn lock_as_owner<T: Tx>(
    tx: &T,
    lease: &DeliveryLease,
) -> Result<DestinationState> {
    static SQL: Sql = Sql::with(
        "SELECT s.waits_until, s.failing_since, s.failures, s.probing, s.last_error, s.stuck_at, s.paused,
                d.feed_id, d.document_id
         FROM destination s LEFT JOIN document d ON d.sequence = s.stuck_at
         WHERE s.id = $1 AND s.fence = $2{lock_destination}",
        &[(
            "lock_destination",
            Fragment::Differs("", " FOR NO KEY UPDATE OF s"),
        )],
    );
    let owner = params! { lease.destination_id, lease.fence };
    tx.first(&SQL, owner).await?.ok_or(StoreError::StaleLease)
}

rows! {
    LaneCount {
        feed, due_at, failures, failing_since, last_error, paused, answers, equal_rejections,
        last_rejection, position, held,
    }
}

/// What attempts mean for their lanes and their destination.
pub(super) struct Counted {
    destination: i64,
    now: Timestamp,
    delivered: usize,
    rejected: usize,
    answered: bool,
    changed: bool,
    of_destination: DestinationState,
    lanes: BTreeMap<i64, (LaneCount, bool)>,
    /// Lanes that are paused now, with the digest of the rejection.
    paused: Vec<Vec<u8>>,
}

impl Counted {
    /// Locks the lanes of these versions of a destination, which is locked.
    pub(super) async fn read<T: Tx>(
        tx: &T,
        destination: i64,
        state: DestinationState,
        versions: &BTreeMap<i64, Version>,
        now: Timestamp,
    ) -> Result<Self> {
        static LANES: Sql = Sql::new(
            "SELECT feed_id, due_at, failures, failing_since, last_error, paused, answers, equal_rejections, last_rejection,
                 position, held
             FROM lane WHERE destination_id = $1 AND feed_id IN ({elements}($2)) ORDER BY feed_id{lock_rows}",
        );
        let feeds: BTreeSet<i64> = versions.values().map(|one| one.feed).collect();
        let feeds: Vec<i64> = feeds.into_iter().collect();
        let lanes: Vec<LaneCount> = tx.all(&LANES, &[&destination, &feeds]).await?;
        Ok(Self {
            destination,
            now,
            delivered: 0,
            rejected: 0,
            answered: false,
            changed: false,
            of_destination: state,
            lanes: lanes
                .into_iter()
                .map(|one| (one.feed, (one, false)))
                .collect(),
            paused: Vec::new(),
        })
    }

    /// Counts the outcome of an attempt.
    pub(super) fn count(&mut self, version: &Version, outcome: &DeliveryOutcome) {
        self.release(version);
        match outcome {
            DeliveryOutcome::Delivered { .. } => {
                self.delivered += 1;
                self.answer(version.feed, None);
            }
            DeliveryOutcome::Listed => self.answer(version.feed, None),
            DeliveryOutcome::Rejected { message, .. } => {
                self.rejected += 1;
                self.answer(version.feed, Some(message));
            }
            DeliveryOutcome::Filtered { .. } | DeliveryOutcome::LinkExpired => {}
            // It failed while others were accepted, and says nothing of the present.
            DeliveryOutcome::Unavailable { .. } if version.is_deferred_at(self.now) => {}
            // A person has skipped it while it was being delivered.
            DeliveryOutcome::Unavailable { .. } | DeliveryOutcome::Closed { .. }
                if version.state == Some(DeliveryState::Skipped) => {}
            DeliveryOutcome::Unavailable { error, retry_after } => {
                self.fail(version, error, *retry_after);
            }
            DeliveryOutcome::Closed { error } => {
                self.fail(version, error, None);
                let paused = &mut self.of_destination.paused;
                paused.get_or_insert_with(|| DestinationPauseReason::Closed.as_str().to_owned());
                self.of_destination.waits_until = None;
            }
        }
    }

    /// Takes a version off the number that its lane holds, if a person has stopped its history while it
    /// was being delivered.
    fn release(&mut self, version: &Version) {
        let is_held = matches!(version.state, None | Some(DeliveryState::Held));
        let lane = self.lanes.get_mut(&version.feed);
        let lane = lane.filter(|(lane, _)| lane.position >= version.sequence && lane.held > 0);
        if let Some((lane, changed)) = lane.filter(|_| is_held && !version.is_superseded) {
            lane.held -= 1;
            *changed = true;
        }
    }

    /// Counts an acceptance, or a rejection with this text.
    fn answer(&mut self, feed: i64, rejection: Option<&String>) {
        self.answered = true;
        let of = &mut self.of_destination;
        of.failures = 0;
        of.probing = false;
        of.failing_since = None;
        of.last_error = None;
        of.stuck_at = None;
        of.stuck = None;
        of.waits_until = None;
        let Some((lane, changed)) = self.lanes.get_mut(&feed) else {
            return;
        };
        if lane.failures > 0 {
            lane.failures = 0;
            lane.failing_since = None;
            lane.last_error = None;
            lane.due_at = lane.due_at.map(|_| self.now);
            *changed = true;
        }
        let Some(text) = rejection else {
            if lane.answers != ANSWERED || lane.equal_rejections > 0 {
                lane.answers = ANSWERED;
                lane.equal_rejections = 0;
                lane.last_rejection = None;
                *changed = true;
            }
            return;
        };
        let text = digest(&SHA256, text.as_bytes());
        let is_equal = lane.last_rejection.as_deref() == Some(text.as_ref());
        lane.equal_rejections = if is_equal {
            lane.equal_rejections + 1
        } else {
            1
        };
        if lane.answers < ANSWERED {
            lane.answers += 1;
        }
        lane.last_rejection = Some(text.as_ref().to_vec());
        *changed = true;
        let equal = lane.equal_rejections;
        let are_first = equal >= MAX_FIRST_REJECTIONS && lane.answers == equal;
        if lane.paused.is_none() && (equal >= MAX_EQUAL_REJECTIONS || are_first) {
            lane.paused = Some(LanePauseReason::Rejections);
            lane.due_at = None;
            self.paused.push(text.as_ref().to_vec());
        }
    }

    fn fail(&mut self, version: &Version, error: &str, retry_after: Option<Duration>) {
        let now = self.now;
        let document = (version.feed, version.document_id.clone());
        self.changed = true;
        let of = &mut self.of_destination;
        of.probing |= of.stuck.as_ref().is_some_and(|stuck| *stuck != document);
        of.stuck = Some(document);
        of.stuck_at = Some(version.sequence);
        of.failing_since = earlier(of.failing_since, now);
        of.last_error = Some(error.to_owned());
        // Attempts that were in flight when a wait began belong to the same episode.
        let is_new = rest(of.waits_until, now).is_none();
        if is_new {
            of.failures += 1;
            let wait = backoff::DELIVERY.delay(of.failures - 1, backoff::jitter());
            let wait = match (of.probing, retry_after) {
                (false, None) => None,
                (true, None) => Some(wait),
                (_, Some(asked)) => Some(asked.max(wait)),
            };
            of.waits_until = wait.map(|wait| now.after(wait));
        }
        // The lane has gone on without a version that is tried apart from its order.
        let lane = self.lanes.get_mut(&version.feed);
        if let Some((lane, changed)) = lane.filter(|_| !version.is_apart) {
            let waits = lane.failures > 0 && rest(lane.due_at, now).is_some();
            if !waits {
                lane.failures += 1;
                lane.failing_since = earlier(lane.failing_since, now);
                // While the destination waits, its lanes need no waits of their own.
                let wait = backoff::DELIVERY.delay(lane.failures - 1, backoff::jitter());
                lane.due_at = lane.due_at.map(|_| match of.waits_until {
                    Some(_) => now,
                    None => now.after(wait),
                });
            }
            lane.last_error = Some(error.to_owned());
            *changed = true;
        }
    }

    /// Stores what was counted; returns the state of the destination after it.
    pub(super) async fn write<T: Tx>(self, tx: &T) -> Result<DestinationState> {
        static LANE: Sql = Sql::new(
            "UPDATE lane SET due_at = $3, failures = $4, failing_since = $5, last_error = $6, paused = $7,
                 answers = $8, equal_rejections = $9, last_rejection = $10, held = $11
             WHERE destination_id = $1 AND feed_id = $2 AND removed_at IS NULL",
        );
        static DESTINATION: Sql = Sql::new(
            "UPDATE destination SET delivered = delivered + $2, rejected = rejected + $3,
                 last_answer_at = CASE WHEN $4 THEN $5 ELSE last_answer_at END,
                 last_success_at = CASE WHEN $2 > 0 THEN $5 ELSE last_success_at END, waits_until = $6,
                 failing_since = $7, failures = $8, probing = $9, last_error = $10, stuck_at = $11, paused = $12
             WHERE id = $1",
        );
        let destination = self.destination;
        for (lane, _) in self.lanes.values().filter(|(_, changed)| *changed) {
            let params = params! {
                destination, lane.feed, lane.due_at, lane.failures, lane.failing_since,
                lane.last_error, lane.paused, lane.answers, lane.equal_rejections,
                lane.last_rejection, lane.held,
            };
            tx.run(&LANE, params).await?;
        }
        let mut of = self.of_destination;
        for rejection in &self.paused {
            if of.paused.is_none() && is_agreed(tx, destination, rejection).await? {
                let reason = DestinationPauseReason::Rejections;
                of.paused = Some(reason.as_str().to_owned());
            }
        }
        if !(self.answered || self.changed) {
            return Ok(of);
        }
        let params = params! {
            destination, self.delivered, self.rejected, self.answered, self.now, of.waits_until,
            of.failing_since, of.failures, of.probing, of.last_error, of.stuck_at, of.paused,
        };
        tx.run(&DESTINATION, params).await?;
        Ok(of)
    }
}

impl Column for DestinationState {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        let mut count = Self {
            waits_until: columns.get()?,
            failing_since: columns.get()?,
            failures: columns.get()?,
            probing: columns.get()?,
            last_error: columns.get()?,
            stuck_at: columns.get()?,
            paused: columns.get()?,
            stuck: None,
        };
        let (feed, document_id): (Option<i64>, Option<String>) = (columns.get()?, columns.get()?);
        count.stuck = feed.zip(document_id);
        Ok(count)
    }
}

/// Returns since when something fails that fails now: a clock may have been ahead when it began.
fn earlier(since: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    Some(since.map_or(now, |since| since.min(now)))
}

/// Returns true if enough lanes are paused for the same rejection.
async fn is_agreed<T: Tx>(tx: &T, destination: i64, rejection: &[u8]) -> Result<bool> {
    static SQL: Sql = Sql::new(
        "SELECT count(*) FROM lane{by_trouble} WHERE destination_id = $1 AND (failures > 0 OR paused IS NOT NULL)
             AND paused IS NOT NULL AND last_rejection = $2",
    );
    let lanes: i64 = tx.one(&SQL, &[&destination, &rejection]).await?;
    Ok(lanes >= PAUSING_LANES)
}
