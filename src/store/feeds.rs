//! Feeds: their triggers, leases, pages and state.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::columns::{named, named_columns};
use super::debug::redacted;
use super::engine::{Sql, Tx, operations, rows};
use super::error::Result;
use super::gaps::{FoundGap, IncompleteReason};
use super::trigger_kind::TriggerKind;
use super::{FreshLink, UploadReturn};
use crate::domain::{Account, Company, Cursor, DocumentVersion, Feed, Queue, Timestamp};

/// A request to pull a feed.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// The feed; added to the store if it is new.
    pub feed: Feed,
    /// The kind of trigger.
    pub kind: TriggerKind,
    /// The pull starts no sooner than this.
    pub due_at: Timestamp,
    /// The cursor from which a backfill starts; `None` is the beginning. Other kinds have
    /// none.
    pub from: Option<Cursor>,
}

/// A worker's request for a feed to pull.
#[derive(Clone, Debug)]
pub struct LeaseRequest {
    /// The present moment.
    pub now: Timestamp,
    /// Duration of the lease.
    pub lease: Duration,
    /// Maximum number of requests in flight for one account.
    pub requests_per_account: u32,
    /// Duration that overlap reads go back.
    pub lookback: Duration,
    /// Shortest time from the beginning of a feed's pull to that of its next one.
    pub min_interval: Duration,
    /// Time from one reconciliation to the next.
    pub reconcile_every: Duration,
    /// (account, queue) pairs that this process can pull: it has a key and knows the path.
    /// Triggers of others are kept, for later or for a replica that can.
    pub queues: Vec<(Account, Queue)>,
}

/// A lease to request one page of a feed and to store it.
#[derive(Clone, Debug)]
pub struct PageLease {
    /// The feed's row.
    pub feed_id: i64,
    /// The row of its account.
    pub account_id: i64,
    /// The feed.
    pub feed: Feed,
    /// The kind of trigger.
    pub kind: TriggerKind,
    /// Rises with every lease of the feed; a stale owner's is refused.
    pub fence: i64,
    /// The position of the pull.
    pub position: Position,
    /// True if no pull of this feed was complete yet: what it finds is history.
    pub first_pull: bool,
    /// True if no pull of this feed has ended yet: there is nothing to overlap with.
    pub first_read: bool,
    /// Entries of the largest page that the account's queue has ever shown; `None` before its
    /// first page.
    pub largest_page: Option<usize>,
    /// Failures of this feed since its last success.
    pub feed_failures: u32,
    /// Failures of its account since its last success.
    pub account_failures: u32,
    /// True if a 401 for this feed means that the account's key is wrong: the feed has
    /// returned pages before, or no feed of its account ever has.
    pub key_at_fault: bool,
    /// True if another pull was due at the same time.
    pub others_due: bool,
}

/// The position of a pull.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The `from` of the next request; `None` is the beginning of the queue.
    pub from: Option<Cursor>,
    /// The newest `next` that the vendor returned in this pull.
    pub previous_next: Option<Cursor>,
    /// What the pages of the pull have shown so far.
    pub progress: PullProgress,
}

/// What the pages of a pull have shown so far. Its size is bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PullProgress {
    /// The `from` and the fence of its first request; `None` before that.
    pub began: Option<PullStart>,
    /// Entries of its largest page.
    pub largest_page: usize,
    /// Empty pages in a row.
    pub empty_pages: usize,
    /// The group of equal moments at the end of an earlier page, until a page shows that it is
    /// whole.
    pub group: Option<Group>,
    /// True if the request steps over that group.
    pub stepped: bool,
    /// For finding cursors that come round again.
    pub cycle: Option<CycleSearch>,
}

/// The beginning of a pull.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullStart {
    /// The `from` of its first request.
    pub from: Option<Cursor>,
    /// The feed's fence then.
    pub fence: i64,
}

/// A group of documents with equal moments at the end of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The cursor that names its moment.
    pub at: Cursor,
    /// A cursor before it.
    pub before: Option<Cursor>,
    /// Entries of the page.
    pub entries: usize,
}

/// Brent's search for a cycle: the cursors of a pull are compared with one of them, which is
/// replaced after 1, 2, 4, … steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CycleSearch {
    /// The cursor that others are compared with.
    pub anchor: Cursor,
    /// Steps since then.
    pub steps: u64,
    /// Steps after which it is replaced.
    pub limit: u64,
}

/// A page to be stored.
#[derive(Clone, Debug, Default)]
pub struct PageToCommit {
    /// Its documents, in the vendor's order.
    pub documents: Vec<DocumentVersion>,
    /// Unreadable entries: those without a usable `id`.
    pub unreadable: Vec<UnreadableEntry>,
    /// The vendor's `next` or its substitute; becomes the feed's cursor when the kind of
    /// pull requires it. `None` leaves the cursor unchanged.
    pub cursor: Option<Cursor>,
    /// The `from` of the pull's next request.
    pub next_from: Option<Cursor>,
    /// What the pages of the pull have shown so far.
    pub progress: PullProgress,
    /// The place of the page in its pull.
    pub end: PageEnd,
    /// Companies found in a page of the digitized queue: their exported feeds are added
    /// and reconciled.
    pub companies: Vec<Company>,
    /// Stretches in which the vendor's paging may have omitted documents (vendor-api U14, U15).
    pub gaps: Vec<FoundGap>,
    /// True if it is certain that the vendor obeyed the company in the request.
    pub company_checked: bool,
    /// Documents that name the uploads they were made of.
    pub uploads: Vec<UploadReturn>,
    /// Links to the documents' files, stored if fresh links were requested for the feed.
    pub links: Vec<FreshLink>,
    /// How many milliseconds the vendor's clock is ahead of ours, by the answer's `Date`.
    pub clock_offset: Option<i64>,
}

impl PageToCommit {
    /// Returns the number of entries, readable or not.
    pub fn entries(&self) -> usize {
        self.documents.len() + self.unreadable.len()
    }
}

/// An entry of a page without a usable `id`.
#[derive(Clone, PartialEq, Eq)]
pub struct UnreadableEntry {
    /// The part that is the same whenever the vendor lists the entry, so that it is stored
    /// once.
    pub dedup_key: Vec<u8>,
    /// The entry, byte for byte; a part of its page.
    pub body: Bytes,
}

redacted! { UnreadableEntry { ; dedup_key, body } }

/// The place of a page in its pull.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageEnd {
    /// More pages follow.
    #[default]
    More,
    /// The queue ends with it.
    EndOfQueue,
    /// The pull can't continue, although the queue may.
    Stopped {
        /// True if no later version arrives until the vendor's `next` moves again: the feed is
        /// failing.
        failing: bool,
    },
}

/// The error of a feed whose cursor does not lead on.
pub const CURSOR_LEADS_NOWHERE: &str = "Įvesk.lt's `next` does not lead on, and it names no moment that could be \
     stepped over: no later document arrives. Report it to Įvesk.lt; the feed is retried by itself";

/// Counts of a stored page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCommitted {
    /// Versions that were not stored before.
    pub new: usize,
    /// Versions that were stored before.
    pub known: usize,
    /// How the pull ended; `None` if more pages follow.
    pub ended: Option<PullEnd>,
    /// Gaps that were not known before.
    pub new_gaps: usize,
    /// New versions that a notification should have announced, but none did.
    pub missed_notifications: usize,
}

/// The end of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullEnd {
    /// The pages prove that the feed has every version.
    Complete,
    /// Versions may be missing.
    Incomplete(IncompleteReason),
}

/// The error of a feed whose company the vendor ignored, and what to do.
pub const COMPANY_FILTER_IGNORED: &str = "Įvesk.lt returned another company's documents: it ignored the company in the \
     request. Check `api.exported_path`, then run `ivesk-webhook feeds resume`; with --accept if the documents \
     are this company's after all";

/// The result of storing a page.
#[derive(Clone, Debug)]
pub enum PageOutcome {
    /// It is stored.
    Committed(PageCommitted),
    /// Nothing was stored, since every document is another company's too: the vendor may have
    /// ignored the company. The lease is kept, for the answer to that.
    CompanyDoubted(Box<PageToCommit>),
}

/// The consequence of a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFailure {
    /// The whole account waits until this moment.
    AccountWaits(Timestamp),
    /// This feed alone waits until this moment.
    FeedWaits(Timestamp),
    /// The feed is paused and needs a person; it is retried once at `retry_at`.
    FeedPaused {
        /// The reason.
        reason: FeedPauseReason,
        /// When it is retried.
        retry_at: Timestamp,
    },
    /// The whole account is paused and needs a person; it is retried once at `retry_at`.
    AccountPaused {
        /// The reason.
        reason: FeedPauseReason,
        /// When it is retried.
        retry_at: Timestamp,
    },
}

impl fmt::Display for PageFailure {
    /// Writes what follows from it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AccountWaits(until) => write!(f, "its account waits until {until}"),
            Self::FeedWaits(until) => write!(f, "it waits until {until}"),
            Self::FeedPaused { reason, .. } => write!(f, "it is paused ({})", reason.as_str()),
            Self::AccountPaused { reason, .. } => {
                write!(f, "its account is paused ({})", reason.as_str())
            }
        }
    }
}

named! {
    /// The reason why a feed or an account is paused.
    pub enum FeedPauseReason {
        /// The vendor answered 401: the key is wrong or withdrawn.
        Unauthorized = "unauthorized",
        /// The vendor answered 403: the key may not read this.
        Forbidden = "forbidden",
        /// The vendor answered 404: no such company, or `api.exported_path` is wrong.
        NotFound = "not_found",
        /// The vendor returned one company's documents for another.
        CompanyFilterIgnored = "company_filter_ignored",
        /// The vendor answered 400, several times in a row, to the feed's cursor.
        CursorRefused = "cursor_refused",
        /// A person paused it.
        ByHand = "by_hand",
    }
}

impl FeedPauseReason {
    /// Returns the cause of a pause; `None` if a person paused the feed.
    pub const fn cause(self) -> Option<&'static str> {
        match self {
            Self::ByHand => None,
            Self::Unauthorized => Some("Įvesk.lt refuses the API key (401)"),
            Self::Forbidden => Some("the API key has no right to read this (403)"),
            Self::NotFound => Some("Įvesk.lt has no such queue (404)"),
            Self::CompanyFilterIgnored => Some("Įvesk.lt listed another company's documents"),
            Self::CursorRefused => Some("Įvesk.lt refuses the feed's cursor (400)"),
        }
    }

    /// Returns what to do about a pause of an account, or of `feed`.
    pub fn fix(self, account: &Account, feed: Option<&Feed>) -> String {
        let options = match feed {
            Some(feed) => feed.options(),
            None => format!("--account {account}"),
        };
        let resume = format!("`ivesk-webhook feeds resume {options}`");
        match self {
            Self::ByHand => format!("run {resume} once it is to be pulled again"),
            Self::Unauthorized => {
                "replace the API key and restart `serve`, which resumes it".to_owned()
            }
            Self::Forbidden => format!(
                "ask Įvesk.lt for the right, then run {resume}, or else `ivesk-webhook feeds remove {options}`"
            ),
            Self::NotFound => format!(
                "if the company's code is mistyped, run `ivesk-webhook feeds remove {options}`; otherwise correct \
                 `api.exported_path` and restart `serve`, which resumes it"
            ),
            Self::CompanyFilterIgnored => format!(
                "check `api.exported_path` with `ivesk-webhook doctor --company`, then run {resume}, with --accept if the \
                 documents are this company's after all"
            ),
            Self::CursorRefused => format!(
                "run `ivesk-webhook feeds start-at CURSOR {options}` with the cursor before, or with the time of a document"
            ),
        }
    }
}

named_columns! { FeedPauseReason: "pause reason", name => Self::parse(&name); }

/// The state of a feed.
#[derive(Clone, Debug)]
pub struct FeedRow {
    /// The feed.
    pub feed: Feed,
    /// When it became known.
    pub known_at: Timestamp,
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
    /// Why it is incomplete; `None` if nothing is known to be missing.
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

impl FeedRow {
    /// Returns true unless a person removed it.
    pub fn is_known(&self) -> bool {
        self.removed_at.is_none()
    }

    /// Returns when a pull of it last ended, complete or not; if none has, when it became known.
    pub fn quiet_since(&self) -> Timestamp {
        let ended_at = self.pulled_at.max(self.up_to_date_at);
        ended_at.unwrap_or(self.known_at)
    }
}

/// The state of an account.
#[derive(Clone, Debug)]
pub struct AccountRow {
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

/// Times of the triggers that follow a pull.
#[derive(Clone, Debug)]
pub struct PullPlan {
    /// The present moment.
    pub now: Timestamp,
    /// Delays of the two overlap reads after a notification's pull.
    pub follow_ups: [Duration; 2],
    /// Time from one reconciliation to the next.
    pub reconcile_every: Duration,
    /// Cursors older than this are kept only as far as an overlap read needs one.
    pub lookback: Duration,
}

operations! {
    /// Lists all accounts.
    pub read accounts() -> Vec<AccountRow>;
}

rows! {
    AccountRow { account, paused, waits_until, failures, last_error }
}

async fn accounts<T: Tx>(tx: &T) -> Result<Vec<AccountRow>> {
    static SQL: Sql = Sql::new(
        "SELECT name, paused, waits_until, failures, last_error FROM account ORDER BY name{bytewise}",
    );
    tx.all(&SQL, &[]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pause_but_a_persons_has_a_cause_and_all_have_a_fix() {
        let account = Account::parse("default").expect("a name");
        let company = Company::parse("302320404").expect("a code");
        let feed = Feed::exported(account.clone(), company);
        for reason in FeedPauseReason::ALL {
            let cause = reason.cause();
            assert_eq!(cause.is_none(), reason == FeedPauseReason::ByHand);
            assert!(cause.is_none_or(|cause| cause.contains("Įvesk.lt") || cause.contains("key")));
            for feed in [None, Some(&feed)] {
                let fix = reason.fix(&account, feed);
                let command = match reason {
                    FeedPauseReason::Unauthorized => "restart `serve`",
                    _ => "ivesk-webhook feeds ",
                };
                assert!(fix.contains(command), "{fix}");
            }
        }
    }

    #[test]
    fn a_failure_tells_who_waits_and_why() {
        let until = Timestamp::from_millis(0);
        let (reason, retry_at) = (FeedPauseReason::Forbidden, until);
        for (failure, text) in [
            (
                PageFailure::AccountWaits(until),
                "its account waits until 1970-01-01T",
            ),
            (PageFailure::FeedWaits(until), "it waits until 1970-01-01T"),
            (
                PageFailure::FeedPaused { reason, retry_at },
                "it is paused (forbidden)",
            ),
            (
                PageFailure::AccountPaused { reason, retry_at },
                "its account is paused (forbidden)",
            ),
        ] {
            assert!(failure.to_string().starts_with(text), "{failure}");
        }
    }
}
