//! The service as a whole: state, activity, backup.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::from_rows;
use crate::domain::{Account, Event, Queue, Timestamp};
use crate::metrics::UnexpectedCount;
use crate::pull;
use crate::store::{self, AccountRow, FeedPauseReason, SequenceRow};
use crate::subscriptions::problems::Problem;

/// The state of the service.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The program's name.
    pub service: String,
    /// The program's version.
    pub version: String,
    /// The address at which this process expects messages of SNS.
    pub public_url: Option<String>,
    /// Digest of what the settings file said when this process was started.
    pub settings_digest: Option<String>,
    /// True if a message would be accepted now.
    pub ready: bool,
    /// The code of the refusal if it would not.
    pub reason: Option<String>,
    /// The store's fault and what to do, if no message can be stored.
    pub store_fault: Option<String>,
    /// The database's damage and what to do, if the last check found any.
    pub damage: Option<String>,
    /// The numbering of versions.
    pub sequence: Sequence,
    /// Free bytes on the store's disk; null if the store is a database server.
    pub free_bytes: Option<u64>,
    /// Every account.
    pub accounts: Vec<AccountStatus>,
    /// Queues that are not pulled until a setting is added.
    pub blocked: Vec<BlockedQueue>,
    /// The number of known feeds.
    pub feeds: u64,
    /// The number of removed feeds.
    pub removed_feeds: u64,
    /// The number of paused feeds.
    pub paused_feeds: u64,
    /// The number of feeds of which document versions may be missing.
    pub incomplete_feeds: u64,
    /// The number of subscriptions.
    pub subscriptions: usize,
    /// What a person should know of or decide about subscriptions, the most urgent first.
    pub subscription_problems: Vec<SubscriptionProblem>,
    /// Requests to the public listener of this process that reached no webhook, within a day.
    pub unexpected_requests: Vec<UnexpectedCount>,
    /// What needs a person now, the most urgent first.
    pub needs_person: Vec<NeedsPerson>,
}

/// The state of the numbering of versions.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Sequence {
    /// Changes whenever a backup is restored.
    pub epoch: String,
    /// The newest sequence number; 0 if nothing is stored.
    pub last: i64,
}

/// The state of an account.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AccountStatus {
    /// Its name.
    pub account: Account,
    /// The reason why it is paused.
    pub paused: Option<FeedPauseReason>,
    /// None of its feeds is pulled before this moment.
    pub waits_until: Option<Timestamp>,
    /// Failures since the last success.
    pub failures: u32,
    /// The last failure.
    pub last_error: Option<String>,
}

from_rows! {
    Sequence of SequenceRow { epoch, last }
    AccountStatus of AccountRow { account, paused, waits_until, failures, last_error }
}

/// A queue that can't be pulled until a setting is made. Its triggers are kept.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BlockedQueue {
    /// The account.
    pub account: Account,
    /// The queue.
    pub queue: Queue,
    /// The missing setting: `api_key` or `exported_path`.
    pub missing: String,
}

impl From<pull::BlockedQueue> for BlockedQueue {
    fn from(blocked: pull::BlockedQueue) -> Self {
        Self {
            account: blocked.account,
            queue: blocked.queue,
            missing: blocked.missing.to_owned(),
        }
    }
}

/// Something that needs a person.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NeedsPerson {
    /// Its kind: that of an alarm, or `subscription`.
    pub kind: String,
    /// What is affected, such as a feed.
    pub subject: String,
    /// The problem, and what to do.
    pub text: String,
}

/// Something that a person should know of or decide about subscriptions.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionProblem {
    /// The account.
    pub account: Account,
    /// The event.
    pub event: Event,
    /// The subscription's row; null if there is none.
    pub id: Option<i64>,
    /// What was found.
    pub found: String,
    /// What to do.
    pub fix: String,
}

impl From<&Problem<'_>> for SubscriptionProblem {
    fn from(problem: &Problem<'_>) -> Self {
        let (account, event) = problem.webhook();
        Self {
            account: account.clone(),
            event,
            id: problem.row().map(|row| row.id),
            found: problem.to_string(),
            fix: problem.fix(),
        }
    }
}

/// The count of one hour.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HourCount {
    /// The start of the hour.
    pub hour: Timestamp,
    /// The number of rows.
    pub count: u64,
}

/// The number of messages that one hour refused for one reason.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RefusedCount {
    /// The start of the hour.
    pub hour: Timestamp,
    /// The code of the refusal.
    pub reason: String,
    /// The number of messages.
    pub count: u64,
}

/// Counts since a moment, by hours in ascending order; hours without any are left out.
///
/// Counted from rows, so the same after a restart and on every replica. Messages without
/// a row are not counted: duplicates, and refused ones that the quarantine did not keep.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Activity {
    /// Accepted messages.
    pub accepted: Vec<HourCount>,
    /// Refused messages in the quarantine.
    pub refused: Vec<RefusedCount>,
    /// Stored versions of documents.
    pub documents: Vec<HourCount>,
}

impl From<store::Activity> for Activity {
    fn from(activity: store::Activity) -> Self {
        let hours = |counts: Vec<store::HourCount>| {
            let counts = counts.into_iter();
            counts
                .map(|store::HourCount { hour, count }| HourCount { hour, count })
                .collect()
        };
        let refused = activity.refused.into_iter();
        Self {
            accepted: hours(activity.accepted),
            refused: refused
                .map(|refused| RefusedCount {
                    hour: refused.hour,
                    reason: refused.reason,
                    count: refused.count,
                })
                .collect(),
            documents: hours(activity.documents),
        }
    }
}

/// The file to write a backup to.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupRequest {
    /// The name of a new file in the folder `store.backup_dir`, without a path.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
}

/// A complete backup.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BackedUp {
    /// The file on the server's machine.
    #[schema(value_type = String)]
    pub path: PathBuf,
}
