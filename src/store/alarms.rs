//! Alarms: problems that a person should know of, announced when they begin and when they end.

use std::time::Duration;

use super::columns::{named, named_columns};
use super::engine::{Fragment, Sql, Tx, operations, params, rows};
use super::error::Result;
use super::subscription_messages::HEARD_PRECISION;
use crate::backoff::{self, latest_present};
use crate::domain::{Account, Event, Queue, Timestamp};

/// Number of newest documents among which unannounced ones are counted.
const RECENT_DOCUMENTS: i64 = 1_000;

named! {
    /// The subject matter of an alarm.
    pub enum AlarmKind {
        /// Documents are found without a notification, and no notification arrives.
        Silence = "silence",
        /// SNS announced that a subscription has ended.
        Unsubscribed = "unsubscribed",
        /// A subscription could not be confirmed, or waits for a person.
        Unconfirmed = "unconfirmed",
        /// A webhook is subscribed to the topic of the other event.
        SwappedTargets = "swapped_targets",
        /// A feed or an account is paused until a person resumes it.
        Paused = "paused",
        /// A queue can't be pulled because a setting is missing.
        Blocked = "blocked",
        /// No pull of a feed has ended for long.
        Behind = "behind",
        /// Documents of a feed may be missing.
        Incomplete = "incomplete",
        /// Many messages were refused within a short time.
        RefusedStorm = "refused_storm",
        /// SNS sent requests that reached no webhook.
        UnexpectedRequests = "unexpected_requests",
        /// A signing certificate expires soon and no newer one has been seen.
        Certificate = "certificate",
        /// No message can be stored. The store can't keep this alarm, nor the next.
        Store = "store",
        /// The store's file is damaged.
        Damaged = "damaged",
        /// The store's disk is nearly full.
        Disk = "disk",
        /// No automatic backup was written for long.
        Backup = "backup",
        /// Files were uploaded long ago, and no document of them has arrived.
        UploadsLate = "uploads_late",
        /// A destination has been failing for long, is closed, or rejects everything.
        Destination = "destination",
        /// Import errors can't be sent: the vendor does not find their path.
        ImportErrors = "import_errors",
    }
}

named_columns! { AlarmKind: "kind of alarm", name => Self::parse(&name); }

impl AlarmKind {
    /// Returns how long an alarm stays active after it was last seen.
    ///
    /// Problems that are visible in the store end at once. Those that only one process
    /// knows of are invisible to the others, which must not end them early.
    pub const fn grace_period(self) -> Duration {
        match self {
            Self::RefusedStorm | Self::UnexpectedRequests | Self::Blocked | Self::Disk => {
                Duration::from_secs(10 * 60)
            }
            Self::Silence
            | Self::Unsubscribed
            | Self::Unconfirmed
            | Self::SwappedTargets
            | Self::Paused
            | Self::Behind
            | Self::Incomplete
            | Self::Certificate
            | Self::Store
            | Self::Damaged
            | Self::Backup
            | Self::UploadsLate
            | Self::Destination
            | Self::ImportErrors => Duration::ZERO,
        }
    }
}

/// A problem that exists now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The kind of alarm.
    pub kind: AlarmKind,
    /// The affected thing, such as a feed: a kind and subject have one alarm at a time.
    pub subject: String,
    /// The problem and what to do, for people; nothing secret.
    pub text: String,
}

/// All problems that exist at one moment.
#[derive(Clone, Debug)]
pub struct AlarmObservation {
    /// The moment.
    pub now: Timestamp,
    /// The problems.
    pub found: Vec<Finding>,
    /// True if alarms are also sent to configured targets.
    pub notify: bool,
}

impl AlarmObservation {
    /// Returns true if this observation ends an active alarm.
    fn ends(&self, kind: AlarmKind, subject: &str, seen_at: Timestamp) -> bool {
        let found = self.found.iter();
        let is_active = found
            .filter(|finding| finding.kind == kind)
            .any(|finding| finding.subject == subject);
        // A clock may have been ahead when it was seen.
        let seen_at = Some(seen_at).filter(|at| *at <= latest_present(self.now));
        !is_active && seen_at.is_none_or(|at| at.after(kind.grace_period()) <= self.now)
    }
}

/// Alarms that an observation changed.
#[derive(Clone, Debug, Default)]
pub struct AlarmChanges {
    /// Alarms that began.
    pub raised: Vec<AlarmRow>,
    /// Alarms that ended.
    pub ended: Vec<AlarmRow>,
}

/// An alarm.
#[derive(Clone, Debug)]
pub struct AlarmRow {
    /// Ascending in the order in which alarms began.
    pub id: i64,
    /// The kind of alarm.
    pub kind: AlarmKind,
    /// The affected thing.
    pub subject: String,
    /// The problem when it began, and what to do.
    pub text: String,
    /// When it began.
    pub raised_at: Timestamp,
    /// When it was last seen.
    pub seen_at: Timestamp,
    /// When it ended; `None` while it is active.
    pub ended_at: Option<Timestamp>,
    /// When its next notice is sent to the configured target; `None` if none is due.
    pub notify_at: Option<Timestamp>,
    /// Failed attempts to send the notice.
    pub attempts: u32,
    /// The last failure.
    pub last_error: Option<String>,
}

/// Selects alarms to list.
#[derive(Clone, Debug)]
pub struct AlarmFilter {
    /// Only active alarms.
    pub active: bool,
    /// Only rows after this one.
    pub after: i64,
    /// Maximum number of rows.
    pub limit: usize,
}

/// A lease on the next notice of one alarm.
#[derive(Clone, Debug)]
pub struct AlarmNotice {
    /// The alarm.
    pub alarm: AlarmRow,
    /// True if the notice announces the end of the alarm.
    pub over: bool,
    /// Rises with every attempt; a stale owner's is refused.
    pub fence: i64,
}

/// The result of sending a notice.
#[derive(Clone, Debug)]
pub enum NoticeEnd {
    /// The target accepted it.
    Sent,
    /// It failed and is tried again.
    TryAgain {
        /// When it is tried again.
        at: Timestamp,
        /// The failure; nothing secret.
        error: String,
    },
    /// It failed and is not tried again.
    GivenUp {
        /// The failure; nothing secret.
        error: String,
    },
}

/// Documents of one queue that no notification announced since the queue's last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnannouncedDocuments {
    /// The account.
    pub account: Account,
    /// The queue.
    pub queue: Queue,
    /// When the last notification was sent; exact to a minute.
    pub notified_at: Option<Timestamp>,
    /// The number of documents, among the newest that are stored.
    pub documents: u64,
}

operations! {
    /// Raises, continues and ends alarms according to an observation. Each change is
    /// returned by exactly one call, on whichever replica.
    pub write update_alarms(observation: AlarmObservation) -> AlarmChanges;

    /// Lists alarms in the order in which they were raised.
    pub read alarms(filter: AlarmFilter) -> Vec<AlarmRow>;

    /// Leases the alarm whose notice is due first; nobody else sends it until the lease
    /// expires.
    pub write lease_notice(now: Timestamp, lease: Duration) -> Option<AlarmNotice>;

    /// Records how sending a notice ended; returns false, with nothing changed, if another
    /// process has leased it since.
    pub write end_notice(notice: AlarmNotice, end: NoticeEnd, now: Timestamp) -> bool;

    /// Counts, per queue, documents stored by `stored_by` that no notification announced
    /// since the queue's last one; among the newest thousand documents.
    pub read unannounced_documents(stored_by: Timestamp) -> Vec<UnannouncedDocuments>;
}

/// The columns of an [`AlarmRow`].
const COLUMNS: Fragment = Fragment::Same(
    "id, kind, subject, text, raised_at, seen_at, ended_at, notify_at, attempts, last_error",
);

rows! {
    AlarmRow {
        id, kind, subject, text, raised_at, seen_at, ended_at, notify_at, attempts, last_error,
    }
}

async fn update_alarms<T: Tx>(tx: &T, observation: AlarmObservation) -> Result<AlarmChanges> {
    let mut changes = AlarmChanges::default();
    for finding in &observation.found {
        let raised = record_finding(tx, &observation, finding).await?;
        changes.raised.extend(raised);
    }
    let active = AlarmFilter {
        active: true,
        after: 0,
        limit: usize::MAX,
    };
    for alarm in alarms(tx, active).await? {
        if observation.ends(alarm.kind, &alarm.subject, alarm.seen_at) {
            let ended = end_alarm(tx, &observation, alarm.id).await?;
            changes.ended.extend(ended);
        }
    }
    Ok(changes)
}

/// Records a problem; returns the alarm if this raised it.
async fn record_finding<T: Tx>(
    tx: &T,
    observation: &AlarmObservation,
    finding: &Finding,
) -> Result<Option<AlarmRow>> {
    static SEEN: Sql = Sql::new(
        "UPDATE alarm SET seen_at = CASE WHEN seen_at > $4 THEN $3 ELSE {greatest}(seen_at, $3) END
         WHERE kind = $1 AND subject = $2 AND ended_at IS NULL",
    );
    // Another replica may find it at the same moment: only one of the two raises it.
    static RAISE: Sql = Sql::with(
        "INSERT INTO alarm (kind, subject, text, raised_at, seen_at, notify_at)
         VALUES ($1, $2, $3, $4, $4, $5)
         ON CONFLICT (kind, subject) WHERE ended_at IS NULL DO NOTHING RETURNING {columns}",
        &[("columns", COLUMNS)],
    );
    let now = observation.now;
    let (kind, subject) = (finding.kind, &finding.subject);
    let present = latest_present(now);
    if tx.execute(&SEEN, &[&kind, subject, &now, &present]).await? > 0 {
        return Ok(None);
    }
    let notify_at = observation.notify.then_some(now);
    tx.first(
        &RAISE,
        params! { kind, subject, finding.text, now, notify_at },
    )
    .await
}

/// Ends an alarm; none if another replica has ended it.
async fn end_alarm<T: Tx>(
    tx: &T,
    observation: &AlarmObservation,
    id: i64,
) -> Result<Option<AlarmRow>> {
    // The end is announced only to those who were sent the beginning.
    static SQL: Sql = Sql::with(
        "UPDATE alarm SET ended_at = $2,
             notify_at = CASE WHEN $3 AND notified = 1 THEN coalesce(notify_at, $2) ELSE notify_at END
         WHERE id = $1 AND ended_at IS NULL RETURNING {columns}",
        &[("columns", COLUMNS)],
    );
    let AlarmObservation { now, notify, .. } = observation;
    tx.first(&SQL, &[&id, now, notify]).await
}

/// Lists alarms whose kind this version knows; a replica may run a later one.
async fn alarms<T: Tx>(tx: &T, filter: AlarmFilter) -> Result<Vec<AlarmRow>> {
    static ALL: Sql = Sql::with(
        "SELECT {columns} FROM alarm WHERE id > $1 AND kind IN ({elements}($3)) ORDER BY id LIMIT $2",
        &[("columns", COLUMNS)],
    );
    static ACTIVE: Sql = Sql::with(
        "SELECT {columns} FROM alarm{active} WHERE ended_at IS NULL AND kind IN ({elements}($3)) AND id > $1
         ORDER BY id{no_index} LIMIT $2",
        &[
            ("columns", COLUMNS),
            ("active", Fragment::Differs(" INDEXED BY alarm_active", "")),
        ],
    );
    let known = AlarmKind::ALL.to_vec();
    let sql = if filter.active { &ACTIVE } else { &ALL };
    tx.all(sql, params! { filter.after, filter.limit, known })
        .await
}

async fn lease_notice<T: Tx>(
    tx: &T,
    now: Timestamp,
    lease: Duration,
) -> Result<Option<AlarmNotice>> {
    static SQL: Sql = Sql::with(
        "UPDATE alarm SET notify_at = $2, fence = fence + 1
         WHERE id = (SELECT id FROM alarm WHERE notify_at > $4 AND notify_at <= $1 AND kind IN ({elements}($3))
                     ORDER BY notify_at, id LIMIT 1{skip_locked})
         RETURNING {columns}, notified, fence",
        &[("columns", COLUMNS)],
    );
    let until = now.after(lease);
    let known = AlarmKind::ALL.to_vec();
    let (first, last) = (Timestamp::from_millis(-1), Timestamp::from_millis(i64::MAX));
    let longest = backoff::ALARM.longest_wait(lease);
    let mut leased: Option<(AlarmRow, i64, i64)> = None;
    // One whose time has come, or else one that was to wait for longer than any does.
    for (after, by) in [(first, now), (backoff::latest_end(now, longest), last)] {
        if leased.is_none() {
            let params = params! { by, until, known, after };
            leased = tx.first(&SQL, params).await?;
        }
    }
    Ok(leased.map(|(alarm, notified, fence)| AlarmNotice {
        alarm,
        over: notified > 0,
        fence,
    }))
}

async fn end_notice<T: Tx>(
    tx: &T,
    notice: AlarmNotice,
    end: NoticeEnd,
    now: Timestamp,
) -> Result<bool> {
    static TRY_AGAIN: Sql = Sql::new(
        "UPDATE alarm SET notify_at = $3, attempts = attempts + 1, last_error = $4
         WHERE id = $1 AND fence = $2",
    );
    // The notice of the alarm's end is due at once if it has ended.
    static FINISH: Sql = Sql::new(
        "UPDATE alarm SET notified = notified + 1, attempts = 0, last_error = $4,
             notify_at = CASE WHEN notified = 0 AND ended_at IS NOT NULL THEN $3 END
         WHERE id = $1 AND fence = $2",
    );
    let (sql, at, error) = match end {
        NoticeEnd::TryAgain { at, error } => (&TRY_AGAIN, at, Some(error)),
        NoticeEnd::Sent => (&FINISH, now, None),
        NoticeEnd::GivenUp { error } => (&FINISH, now, Some(error)),
    };
    let AlarmNotice { alarm, fence, .. } = notice;
    Ok(tx.execute(sql, &[&alarm.id, &fence, &at, &error]).await? > 0)
}

/// Removes a batch of the alarms that ended before this moment; returns their number.
pub(super) async fn remove_old_alarms<T: Tx>(
    tx: &T,
    before: Timestamp,
    limit: usize,
) -> Result<usize> {
    static SQL: Sql = Sql::new(
        "DELETE FROM alarm WHERE id IN (
             SELECT id FROM alarm WHERE ended_at < $1 ORDER BY ended_at LIMIT $2{skip_locked})",
    );
    tx.execute(&SQL, &[&before, &limit]).await
}

/// The documents `d` after number $2 that a pull without a notification found, with their feeds and
/// accounts. The number is a value, so that PostgreSQL knows how few there are.
const UNANNOUNCED: Fragment = Fragment::Same(
    "FROM document d {then_join} feed f ON f.id = d.feed_id {then_join} account a ON a.id = f.account_id
     WHERE d.sequence > $2 AND d.found_by IN (1, 2, 3) AND NOT d.first_pull
         AND d.stored_at <= $1",
);

async fn unannounced_documents<T: Tx>(
    tx: &T,
    stored_by: Timestamp,
) -> Result<Vec<UnannouncedDocuments>> {
    static QUEUES: Sql = Sql::with(
        "SELECT DISTINCT a.id, a.name, f.queue {unannounced} AND d.version_ms IS NOT NULL",
        &[("unannounced", UNANNOUNCED)],
    );
    static NOTIFIED: Sql = Sql::new(
        "SELECT max(last_heard_at) FROM subscription WHERE account_id = $1 AND event = $2",
    );
    static COUNT: Sql = Sql::with(
        "SELECT count(*) {unannounced} AND a.id = $3 AND f.queue = $4 AND d.version_ms > $5",
        &[("unannounced", UNANNOUNCED)],
    );
    static LAST: Sql = Sql::new("SELECT last FROM sequence");
    let last: i64 = tx.one(&LAST, &[]).await?;
    let after = last - RECENT_DOCUMENTS;
    let mut queues: Vec<(i64, Account, Queue)> = tx.all(&QUEUES, &[&stored_by, &after]).await?;
    queues.sort_by(|(_, one, queue), (_, other, later)| (one, queue).cmp(&(other, later)));
    let mut found = Vec::new();
    for (id, account, queue) in queues {
        let mut notified_at: Option<Timestamp> = None;
        for event in Event::ALL
            .into_iter()
            .filter(|event| event.queue() == queue)
        {
            let newest = tx.one(&NOTIFIED, &[&id, &event]).await?;
            notified_at = notified_at.max(newest);
        }
        let since = notified_at.map_or(Timestamp::from_millis(0), |at| at.after(HEARD_PRECISION));
        let params = params! { stored_by, after, id, queue, since };
        let documents = tx.one(&COUNT, params).await?;
        if documents > 0 {
            found.push(UnannouncedDocuments {
                account,
                queue,
                notified_at,
                documents,
            });
        }
    }
    Ok(found)
}
