//! Alarms: problems that a person should know of, announced when they begin and when they end.

use std::time::Duration;

use serde::Serialize;

use crate::domain::{Account, Queue, Timestamp};

/// The subject matter of an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlarmKind {
    /// Documents are found without a notification, and no notification arrives.
    Silence,
    /// SNS announced that a subscription has ended.
    Unsubscribed,
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
    pub const ALL: [Self; 11] = [
        Self::Silence,
        Self::Unsubscribed,
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
    pub(super) fn ends(&self, kind: AlarmKind, subject: &str, seen_at: Timestamp) -> bool {
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
