//! Feeds and their gaps.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{RunState, from_rows};
use crate::domain::{Cursor, Feed, Queue, Timestamp};
use crate::store;
use crate::store::{FeedPauseReason, FeedRow, GapRow, IncompleteReason, TriggerKind};

/// A feed and its state.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FeedStatus {
    /// The feed.
    #[serde(flatten)]
    pub feed: Feed,
    /// Its state.
    #[serde(flatten)]
    pub state: RunState,
    /// Its cursor.
    pub cursor: Option<Cursor>,
    /// When a page of it was last stored.
    pub last_page_at: Option<Timestamp>,
    /// When a pull of it last ended, complete or not.
    pub pulled_at: Option<Timestamp>,
    /// When a pull of it was last complete.
    pub up_to_date_at: Option<Timestamp>,
    /// When a pull of it was first complete.
    pub first_complete_at: Option<Timestamp>,
    /// Why it is incomplete; null if nothing is known to be missing.
    pub incomplete: Option<IncompleteReason>,
    /// When that was found.
    pub incomplete_since: Option<Timestamp>,
    /// Stored versions.
    pub documents: u64,
    /// Versions that no notification announced: newer than the last notification, and
    /// found by an overlap read.
    pub missed_notifications: u64,
    /// Open gaps: stretches in which versions may be missing.
    pub gaps: u64,
    /// Unreadable entries of its pages.
    pub unreadable: u64,
    /// The reason why it is paused.
    pub paused: Option<FeedPauseReason>,
    /// It is not pulled before this moment.
    pub waits_until: Option<Timestamp>,
    /// Failures since the last success.
    pub failures: u32,
    /// The last failure.
    pub last_error: Option<String>,
    /// Kinds of triggers that are pending or being pulled.
    pub triggers: Vec<TriggerKind>,
    /// When a person removed it.
    pub removed_at: Option<Timestamp>,
    /// Notifications that no pull has taken up yet.
    pub pending_notifications: u64,
}

impl From<(FeedRow, store::RunState)> for FeedStatus {
    fn from((row, state): (FeedRow, store::RunState)) -> Self {
        Self {
            feed: row.feed,
            state: state.into(),
            cursor: row.cursor,
            last_page_at: row.last_page_at,
            pulled_at: row.pulled_at,
            up_to_date_at: row.up_to_date_at,
            first_complete_at: row.first_complete_at,
            incomplete: row.incomplete,
            incomplete_since: row.incomplete_since,
            documents: row.documents,
            missed_notifications: row.missed_notifications,
            gaps: row.gaps,
            unreadable: row.unreadable,
            paused: row.paused,
            waits_until: row.waits_until,
            failures: row.failures,
            last_error: row.last_error,
            triggers: row.triggers,
            removed_at: row.removed_at,
            pending_notifications: row.pending_notifications,
        }
    }
}

/// The feeds to pull; absent fields mean all.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PullRequest {
    /// Only those of this account.
    pub account: Option<String>,
    /// Only those of this queue.
    pub queue: Option<Queue>,
    /// Only those of this company.
    #[schema(max_length = 64)]
    pub company: Option<String>,
    /// True to add the company's exported feed if it is not known.
    #[serde(default)]
    pub new: bool,
    /// The cursor from which to pull an earlier stretch again, or `beginning`; the feed's own cursor
    /// stays.
    pub from: Option<String>,
}

/// The feeds whose pull was requested.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Triggered {
    /// The feeds.
    pub feeds: Vec<Feed>,
    /// Those of them that are not pulled now; the request is kept until they can be.
    #[serde(default)]
    pub not_pulled: Vec<NotPulled>,
    /// What is probably wrong.
    pub warnings: Vec<String>,
}

/// A feed that is not pulled although a pull of it was requested.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NotPulled {
    /// The feed.
    #[serde(flatten)]
    pub feed: Feed,
    /// Why, and what to do.
    pub reason: String,
}

/// One feed, or all feeds of an account if `queue` and `company` are absent.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FeedSelection {
    /// The account.
    #[schema(pattern = "^[a-z0-9_-]{1,40}$", examples("default"))]
    pub account: String,
    /// The queue.
    pub queue: Option<Queue>,
    /// The company; absent for the digitized queue.
    #[schema(max_length = 64)]
    pub company: Option<String>,
}

/// The feeds to resume.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// The account.
    #[schema(pattern = "^[a-z0-9_-]{1,40}$", examples("default"))]
    pub account: String,
    /// The queue.
    pub queue: Option<Queue>,
    /// The company; absent for the digitized queue.
    #[schema(max_length = 64)]
    pub company: Option<String>,
    /// True if the documents are the company's own, although they are another company's too: the
    /// feed is not paused for that again.
    #[serde(default)]
    pub accept: bool,
}

/// A feed, and the cursor at which it continues.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FeedStart {
    /// The account.
    #[schema(pattern = "^[a-z0-9_-]{1,40}$", examples("default"))]
    pub account: String,
    /// The queue.
    pub queue: Option<Queue>,
    /// The company; absent for the digitized queue.
    #[schema(max_length = 64)]
    pub company: Option<String>,
    /// The cursor: a `next` of Įvesk.lt, or the time of a document.
    #[schema(min_length = 1, max_length = 1000)]
    pub cursor: String,
    /// True to add the feed if it is not known.
    #[serde(default)]
    pub new: bool,
}

/// The feed that was set to a cursor.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FeedStarted {
    /// The feed.
    pub feed: Feed,
    /// Its old cursor; null if it had none.
    pub previous: Option<Cursor>,
    /// True if what lies between was recorded as a gap: the new cursor is not known to be the
    /// earlier one.
    pub gap: bool,
    /// What is probably wrong.
    pub warnings: Vec<String>,
}

/// A gap of a feed: a stretch in which versions may be missing.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Gap {
    /// Ascending in the order in which gaps were found.
    pub id: i64,
    /// The feed.
    #[serde(flatten)]
    pub feed: Feed,
    /// The cursor after which it begins; null is the beginning of the queue.
    pub from: Option<Cursor>,
    /// The cursor at which it ends; null if that is not known.
    pub to: Option<Cursor>,
    /// The reason.
    pub reason: IncompleteReason,
    /// When it was found.
    pub found_at: Timestamp,
    /// When it was closed; null while it is open.
    pub closed_at: Option<Timestamp>,
    /// The person who dismissed it; null if a pull closed it.
    pub dismissed_by: Option<String>,
}

from_rows! {
    Gap of GapRow { id, feed, from, to, reason, found_at, closed_at, dismissed_by }
}

/// The gaps that are requested.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct GapQuery {
    /// True for closed gaps too.
    #[serde(default)]
    pub closed: bool,
    /// `next` of the previous page; absent for the first page.
    #[param(max_length = 400)]
    pub after: Option<String>,
    /// Most rows on the page.
    #[param(minimum = 1, maximum = 500, default = 100)]
    pub limit: Option<usize>,
}
