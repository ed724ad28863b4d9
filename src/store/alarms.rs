//! Alarms: what a person should know of, once when it begins and once when it is over.

use std::time::Duration;

use serde::Serialize;

use crate::domain::{Account, Queue, Timestamp};

/// What an alarm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlarmKind {
    /// Documents are found without a notification, and none comes.
    Silence,
    /// SNS says that a subscription has ended.
    Unsubscribed,
    /// A feed or an account is not pulled until a person has looked.
    Paused,
    /// A queue that should be pulled can't be, for want of a setting.
    Blocked,
    /// A feed has not been up to date for long.
    Behind,
    /// Many messages were refused within a short while.
    RefusedStorm,
    /// A signing certificate ends soon and no newer one has come.
    Certificate,
    /// The store's disk is nearly full.
    Disk,
    /// No document has come of files that were uploaded long ago.
    UploadsLate,
    /// A destination takes nothing for long, or filter nothing any more.
    Destination,
    /// Documents are held at a destination until a person lets their feeds begin.
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

    /// The kind's name in the store, in logs and in answers.
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

    /// The kind of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// How long an alarm goes on after it was last seen.
    ///
    /// What stands in the store is over when it stands there no more. What one process
    /// knows by itself another doesn't see, so there it takes a while.
    pub const fn lingers(self) -> Duration {
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

/// Something that is wrong now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub kind: AlarmKind,
    /// Of what, such as a feed: of one kind and subject there is one alarm at a time.
    pub subject: String,
    /// What is wrong and what to do, for people; nothing secret.
    pub text: String,
}

/// All that one look found wrong.
#[derive(Clone, Debug)]
pub struct AlarmObservation {
    /// The moment.
    pub now: Timestamp,
    /// What is wrong.
    pub found: Vec<Finding>,
    /// Whether alarms are to be told elsewhere too.
    pub tell: bool,
}

impl AlarmObservation {
    /// Whether an alarm that is on is over by this look.
    pub(super) fn ends(&self, kind: AlarmKind, subject: &str, seen_at: Timestamp) -> bool {
        let found = self.found.iter();
        let is_on = found
            .filter(|finding| finding.kind == kind)
            .any(|finding| finding.subject == subject);
        !is_on && seen_at.after(kind.lingers()) <= self.now
    }
}

/// What a look changed.
#[derive(Clone, Debug, Default)]
pub struct AlarmChanges {
    /// Alarms that began.
    pub raised: Vec<AlarmRow>,
    /// Alarms that are over.
    pub ended: Vec<AlarmRow>,
}

/// An alarm.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct AlarmRow {
    /// Ascending in the order in which they began.
    pub id: i64,
    /// What it is about.
    pub kind: AlarmKind,
    /// Of what.
    pub subject: String,
    /// What was wrong when it began, and what to do.
    pub text: String,
    /// When it began.
    pub raised_at: Timestamp,
    /// When it was last seen.
    pub seen_at: Timestamp,
    /// When it was over; `None` while it is on.
    pub ended_at: Option<Timestamp>,
    /// When it is told next to whom the settings name; `None` where that is done.
    pub tell_at: Option<Timestamp>,
    /// Attempts to tell it that failed.
    pub attempts: u32,
    /// What the last failure was.
    pub last_error: Option<String>,
}

/// Which alarms to list.
#[derive(Clone, Debug)]
pub struct AlarmFilter {
    /// Only those that are on.
    pub active: bool,
    /// Only rows after this one.
    pub after: i64,
    /// At most so many.
    pub limit: usize,
}

/// The right to tell one alarm, for a while.
#[derive(Clone, Debug)]
pub struct AlarmNotice {
    /// The alarm.
    pub alarm: AlarmRow,
    /// Whether it is to be told that it is over.
    pub over: bool,
    /// Rises with every attempt; a stale owner's is refused.
    pub fence: i64,
}

/// How telling ended.
#[derive(Clone, Debug)]
pub enum NoticeEnd {
    /// It was taken.
    Told,
    /// It was not, and is tried again.
    TryAgain {
        /// When.
        at: Timestamp,
        /// What went wrong; nothing secret.
        error: String,
    },
    /// It was not, and is not tried again.
    GivenUp {
        /// What went wrong; nothing secret.
        error: String,
    },
}

/// Documents of one queue that were found without a notification since the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnannouncedDocuments {
    /// Whose.
    pub account: Account,
    /// Which queue.
    pub queue: Queue,
    /// When the last notification came.
    pub notified_at: Option<Timestamp>,
    /// How many documents, among the newest that are stored.
    pub documents: u64,
}
