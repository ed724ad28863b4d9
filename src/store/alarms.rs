//! Alarms: problems that a person should know of, announced when they begin and when they end.

use std::time::Duration;

use serde::Serialize;

use super::StoreError;
use super::engine::{Fragment, Operation, Row, Sql, Tx};
use super::limits::{RECENT_DOCUMENTS, RETENTION_BATCH};
use crate::domain::{Account, Queue, Timestamp};

/// The subject matter of an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlarmKind {
    /// Documents are found without a notification, and no notification arrives.
    Silence,
    /// SNS announced that a subscription has ended.
    Unsubscribed,
    /// A subscription could not be confirmed, or waits for a person.
    Unconfirmed,
    /// A feed or an account is paused until a person resumes it.
    Paused,
    /// A queue can't be pulled because a setting is missing.
    Blocked,
    /// A feed has not been up to date for long.
    Behind,
    /// Many messages were refused within a short time.
    RefusedStorm,
    /// A signing certificate expires soon and no newer one has been seen.
    Certificate,
    /// The store's disk is nearly full.
    Disk,
    /// Files were uploaded long ago, and no document of them has arrived.
    UploadsLate,
    /// A destination has been failing for long, or is closed.
    Destination,
    /// Documents are held at a destination until a person starts their feeds.
    Held,
}

impl AlarmKind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Silence,
        Self::Unsubscribed,
        Self::Unconfirmed,
        Self::Paused,
        Self::Blocked,
        Self::Behind,
        Self::RefusedStorm,
        Self::Certificate,
        Self::Disk,
        Self::UploadsLate,
        Self::Destination,
        Self::Held,
    ];

    /// Returns the kind's name in the store, in logs and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::Unsubscribed => "unsubscribed",
            Self::Unconfirmed => "unconfirmed",
            Self::Paused => "paused",
            Self::Blocked => "blocked",
            Self::Behind => "behind",
            Self::RefusedStorm => "refused_storm",
            Self::Certificate => "certificate",
            Self::Disk => "disk",
            Self::UploadsLate => "uploads_late",
            Self::Destination => "destination",
            Self::Held => "held",
        }
    }

    /// Returns the kind with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Returns how long an alarm stays active after it was last seen.
    ///
    /// Problems that are visible in the store end at once. Those that only one process
    /// knows of are invisible to the others, which must not end them early.
    pub const fn grace_period(self) -> Duration {
        match self {
            Self::RefusedStorm | Self::Blocked | Self::Disk => Duration::from_secs(10 * 60),
            Self::Silence
            | Self::Unsubscribed
            | Self::Unconfirmed
            | Self::Paused
            | Self::Behind
            | Self::Certificate
            | Self::UploadsLate
            | Self::Destination
            | Self::Held => Duration::ZERO,
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
        !is_active && seen_at.after(kind.grace_period()) <= self.now
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
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
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
    /// When the last notification arrived.
    pub notified_at: Option<Timestamp>,
    /// The number of documents, among the newest that are stored.
    pub documents: u64,
}

/// The columns that [`AlarmRow::read`] reads.
const COLUMNS: Fragment = Fragment::Same(
    "id, kind, subject, text, raised_at, seen_at, ended_at, notify_at, attempts, last_error",
);

impl AlarmRow {
    /// Reads an alarm; none if only a later version, which a replica may run, knows its kind.
    fn read(row: &dyn Row) -> Result<Option<Self>, StoreError> {
        let Some(kind) = AlarmKind::parse(&row.text(1)?) else {
            return Ok(None);
        };
        Ok(Some(Self {
            id: row.get(0)?,
            kind,
            subject: row.get(2)?,
            text: row.get(3)?,
            raised_at: row.get(4)?,
            seen_at: row.get(5)?,
            ended_at: row.get(6)?,
            notify_at: row.get(7)?,
            attempts: row.get(8)?,
            last_error: row.get(9)?,
        }))
    }
}

impl Operation for AlarmObservation {
    type Output = AlarmChanges;

    /// Raises, continues and ends alarms. Each change is returned by exactly one call.
    async fn run<T: Tx>(self, tx: &mut T) -> Result<AlarmChanges, StoreError> {
        let mut changes = AlarmChanges::default();
        for finding in &self.found {
            changes
                .raised
                .extend(record_finding(tx, &self, finding).await?);
        }
        let active = AlarmFilter {
            active: true,
            after: 0,
            limit: usize::MAX,
        };
        for alarm in active.run(tx).await? {
            if self.ends(alarm.kind, &alarm.subject, alarm.seen_at) {
                changes.ended.extend(end_alarm(tx, &self, alarm.id).await?);
            }
        }
        Ok(changes)
    }
}

/// Records a problem; returns the alarm if this raised it.
async fn record_finding<T: Tx>(
    tx: &mut T,
    observation: &AlarmObservation,
    finding: &Finding,
) -> Result<Option<AlarmRow>, StoreError> {
    static SEEN: Sql = Sql::new(
        "UPDATE alarm SET seen_at = {greatest}(seen_at, $3)
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
    let kind = finding.kind.as_str();
    let known = tx.execute(&SEEN, &[&kind, &finding.subject, &now]).await?;
    if known > 0 {
        return Ok(None);
    }
    let notify_at = observation.notify.then_some(now);
    let raised = tx
        .first(
            &RAISE,
            &[&kind, &finding.subject, &finding.text, &now, &notify_at],
            AlarmRow::read,
        )
        .await?;
    Ok(raised.flatten())
}

/// Ends an alarm; none if another replica has ended it.
async fn end_alarm<T: Tx>(
    tx: &mut T,
    observation: &AlarmObservation,
    id: i64,
) -> Result<Option<AlarmRow>, StoreError> {
    // The end is announced only to those who were sent the beginning.
    static SQL: Sql = Sql::with(
        "UPDATE alarm SET ended_at = $2,
             notify_at = CASE WHEN $3 AND notified = 1 THEN coalesce(notify_at, $2) ELSE notify_at END
         WHERE id = $1 AND ended_at IS NULL RETURNING {columns}",
        &[("columns", COLUMNS)],
    );
    let ended = tx
        .first(
            &SQL,
            &[&id, &observation.now, &observation.notify],
            AlarmRow::read,
        )
        .await?;
    Ok(ended.flatten())
}

impl Operation for AlarmFilter {
    type Output = Vec<AlarmRow>;

    /// Lists alarms in the order in which they were raised.
    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        static SQL: Sql = Sql::with(
            "SELECT {columns} FROM alarm WHERE id > $1 AND (NOT $2 OR ended_at IS NULL)
             ORDER BY id LIMIT $3",
            &[("columns", COLUMNS)],
        );
        let rows = tx
            .all(
                &SQL,
                &[&self.after, &self.active, &self.limit],
                AlarmRow::read,
            )
            .await?;
        Ok(rows.into_iter().flatten().collect())
    }
}

/// Leases the alarm whose notice is due first.
pub(super) struct LeaseNotice {
    pub(super) now: Timestamp,
    pub(super) lease: Duration,
}

impl Operation for LeaseNotice {
    type Output = Option<AlarmNotice>;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        static SQL: Sql = Sql::with(
            "UPDATE alarm SET notify_at = $2, fence = fence + 1
             WHERE id = (SELECT id FROM alarm WHERE notify_at <= $1 ORDER BY notify_at, id LIMIT 1{skip_locked})
             RETURNING {columns}, notified, fence",
            &[("columns", COLUMNS)],
        );
        let leased = tx
            .first(&SQL, &[&self.now, &self.now.after(self.lease)], |row| {
                let notified: i64 = row.get(10)?;
                let fence = row.get(11)?;
                Ok(AlarmRow::read(row)?.map(|alarm| AlarmNotice {
                    alarm,
                    over: notified > 0,
                    fence,
                }))
            })
            .await?;
        Ok(leased.flatten())
    }
}

/// Records how sending a notice ended; returns false if another process has leased it.
pub(super) struct EndNotice {
    pub(super) notice: AlarmNotice,
    pub(super) end: NoticeEnd,
    pub(super) now: Timestamp,
}

impl Operation for EndNotice {
    type Output = bool;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<bool, StoreError> {
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
        let (sql, at, error) = match self.end {
            NoticeEnd::TryAgain { at, error } => (&TRY_AGAIN, at, Some(error)),
            NoticeEnd::Sent => (&FINISH, self.now, None),
            NoticeEnd::GivenUp { error } => (&FINISH, self.now, Some(error)),
        };
        let AlarmNotice { alarm, fence, .. } = self.notice;
        let changed = tx.execute(sql, &[&alarm.id, &fence, &at, &error]).await?;
        Ok(changed > 0)
    }
}

/// Removes a batch of the alarms that ended before this moment; returns their number.
pub(super) struct RemoveOldAlarms(pub(super) Timestamp);

impl Operation for RemoveOldAlarms {
    type Output = usize;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<usize, StoreError> {
        static SQL: Sql = Sql::new(
            "DELETE FROM alarm WHERE id IN (
                 SELECT id FROM alarm WHERE ended_at < $1 ORDER BY id LIMIT $2{skip_locked})",
        );
        tx.execute(&SQL, &[&self.0, &RETENTION_BATCH]).await
    }
}

/// Counts documents, stored by this moment, that no notification announced since the last
/// one.
pub(super) struct CountUnannounced(pub(super) Timestamp);

impl Operation for CountUnannounced {
    type Output = Vec<UnannouncedDocuments>;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        static SQL: Sql = Sql::new(
            "WITH announced AS (
                 SELECT f.account_id, f.queue, max(coalesce(w.again_at, w.due_at)) AS at
                 FROM feed f LEFT JOIN feed_trigger w ON w.feed_id = f.id AND w.kind = 0
                 GROUP BY f.account_id, f.queue),
             recent AS (SELECT feed_id, version_ms, first_pull, found_by, stored_at
                 FROM document ORDER BY sequence DESC LIMIT $2)
             SELECT a.name, f.queue, announced.at, count(*)
             FROM recent d JOIN feed f ON f.id = d.feed_id JOIN account a ON a.id = f.account_id
                 JOIN announced ON announced.account_id = f.account_id AND announced.queue = f.queue
             WHERE d.found_by IN (1, 2, 3) AND NOT d.first_pull AND d.stored_at <= $1
                 AND d.version_ms > coalesce(announced.at, 0)
             GROUP BY a.name, f.queue, announced.at ORDER BY a.name{bytewise}, f.queue{bytewise}",
        );
        tx.all(&SQL, &[&self.0, &RECENT_DOCUMENTS], |row| {
            Ok(UnannouncedDocuments {
                account: row.get(0)?,
                queue: row.get(1)?,
                notified_at: row.get(2)?,
                documents: row.get(3)?,
            })
        })
        .await
    }
}
