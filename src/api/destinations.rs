//! Destinations and their lanes.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{RunState, from_rows};
use crate::domain::{DestinationName, Feed, Timestamp};
use crate::store::{self, DestinationPauseReason, DestinationRow, LanePauseReason, LaneRow};

/// A destination and its state.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Destination {
    /// Its name.
    pub name: DestinationName,
    /// Its kind; null if it is no longer configured.
    pub kind: Option<String>,
    /// Its state.
    #[serde(flatten)]
    pub state: RunState,
    /// Versions that are to be delivered, up to 10,000; more are not counted.
    pub waiting: u64,
    /// When the oldest of them was stored.
    pub waiting_since: Option<Timestamp>,
    /// Versions that are held as history until a person starts it.
    pub held: u64,
    /// Versions that failed while others were accepted, and are retried daily.
    pub deferred: u64,
    /// Versions that wait for a fresh link to their file.
    pub waiting_file: u64,
    /// Lanes whose last attempt failed.
    pub failing_lanes: u64,
    /// Since when the one of them fails that has failed for the longest.
    pub failing_lanes_since: Option<Timestamp>,
    /// Lanes that are paused until a person resumes the destination.
    pub paused_lanes: u64,
    /// Lanes whose history a person, or the settings, started.
    pub started_lanes: u64,
    /// Lanes that wait for Įvesk.lt's clock: no answer of their account has shown it.
    pub unknown_lanes: u64,
    /// Versions that it accepted, since the store was created.
    pub delivered: u64,
    /// Versions that it rejected, since the store was created.
    pub rejected: u64,
    /// Versions that are rejected now; those that a newer one has superseded are left out.
    pub rejected_now: u64,
    /// The reason why it is paused.
    pub paused: Option<DestinationPauseReason>,
    /// Nothing is delivered before this moment.
    pub waits_until: Option<Timestamp>,
    /// When the current series of failures began.
    pub failing_since: Option<Timestamp>,
    /// Failures since the last success.
    pub failures: u32,
    /// The last failure.
    pub last_error: Option<String>,
    /// The version whose delivery failed.
    pub stuck_at: Option<i64>,
    /// When it last accepted a version.
    pub last_success_at: Option<Timestamp>,
}

impl Destination {
    /// Returns a destination with its state at `now`. `kind` is none if it is no longer configured.
    pub fn of(row: DestinationRow, kind: Option<&str>, now: Timestamp) -> Self {
        Self {
            kind: kind.map(str::to_owned),
            state: row.state(now).into(),
            name: row.name,
            waiting: row.waiting,
            waiting_since: row.waiting_since,
            held: row.held,
            deferred: row.deferred,
            waiting_file: row.waiting_file,
            failing_lanes: row.failing_lanes,
            failing_lanes_since: row.failing_lanes_since,
            paused_lanes: row.paused_lanes,
            started_lanes: row.started_lanes,
            unknown_lanes: row.unknown_lanes,
            delivered: row.delivered,
            rejected: row.rejected,
            rejected_now: row.rejected_now,
            paused: row.paused,
            waits_until: row.waits_until,
            failing_since: row.failing_since,
            failures: row.failures,
            last_error: row.last_error,
            stuck_at: row.stuck_at,
            last_success_at: row.last_success_at,
        }
    }
}

/// One feed at one destination.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Lane {
    /// The feed.
    #[serde(flatten)]
    pub feed: Feed,
    /// Versions before this moment, in Įvesk.lt's time, are history; null until an answer of
    /// the account has shown Įvesk.lt's clock.
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

/// The lanes that a start is for, and its point: all lanes of the destination, unless account or
/// company are set.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Start {
    /// `all`: everything that is stored. Or a moment (RFC 3339): versions since then, in the
    /// vendor's time; lanes that begin before it begin there from now on.
    pub from: String,
    /// Only this account's feeds.
    pub account: Option<String>,
    /// Only this company's feed.
    #[schema(max_length = 64)]
    #[param(max_length = 64)]
    pub company: Option<String>,
}

/// The lanes whose start is to be stopped: all of the destination, unless account or company
/// are set.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Only this account's feeds.
    pub account: Option<String>,
    /// Only this company's feed.
    #[schema(max_length = 64)]
    pub company: Option<String>,
}

/// What a start would deliver.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StartPlan {
    /// Documents in all.
    pub documents: u64,
    /// Those of each feed that has any.
    pub feeds: Vec<StartPreview>,
}

/// What a start would deliver of one feed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StartPreview {
    /// The feed.
    #[serde(flatten)]
    pub feed: Feed,
    /// Documents that would be delivered.
    pub documents: u64,
    /// Their oldest version.
    pub oldest: Option<String>,
    /// Their newest version.
    pub newest: Option<String>,
}

from_rows! {
    Lane of LaneRow {
        feed, begins_at, history_from, held, due_at, failures, failing_since, last_error, paused,
    }
}

impl From<Vec<store::StartPreview>> for StartPlan {
    fn from(feeds: Vec<store::StartPreview>) -> Self {
        let documents = feeds.iter().map(|feed| feed.documents).sum();
        let feeds = feeds.into_iter().map(|preview| StartPreview {
            feed: preview.feed,
            documents: preview.documents,
            oldest: preview.oldest,
            newest: preview.newest,
        });
        Self {
            documents,
            feeds: feeds.collect(),
        }
    }
}
