//! Feeds: wishes to pull them, leases, pages, and how they stand.

use std::time::Duration;

use serde::Serialize;

use super::FreshLink;
use crate::domain::{Account, Company, Cursor, DocumentVersion, Feed, Queue, Timestamp};

/// Why pages are asked for, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TriggerKind {
    /// A notification, or a person who asked.
    Notification,
    /// The first of the two looks back after a hint.
    FollowUp,
    /// The second of them.
    LateFollowUp,
    /// At start and every hour.
    Reconciliation,
    /// A person's wish to read an old stretch again.
    Backfill,
}

impl TriggerKind {
    /// All kinds, most urgent first.
    pub const ALL: [Self; 5] = [
        Self::Notification,
        Self::FollowUp,
        Self::LateFollowUp,
        Self::Reconciliation,
        Self::Backfill,
    ];

    /// The kind's name in the store and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Notification => "notification",
            Self::FollowUp => "follow_up",
            Self::LateFollowUp => "late_follow_up",
            Self::Reconciliation => "reconciliation",
            Self::Backfill => "backfill",
        }
    }

    /// Whether it starts from an older cursor and keeps a position of its own.
    pub const fn overlaps(self) -> bool {
        !matches!(self, Self::Notification)
    }
}

/// A wish to have a feed pulled.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// What to pull; made known to the store where it is new.
    pub feed: Feed,
    /// Why.
    pub kind: TriggerKind,
    /// Not before this moment.
    pub due_at: Timestamp,
    /// Where a backfill starts; `None` is the beginning. Other kinds have none.
    pub from: Option<Cursor>,
}

/// What a worker says when it asks for something to do.
#[derive(Clone, Debug)]
pub struct LeaseRequest {
    /// The present moment.
    pub now: Timestamp,
    /// How long the lease holds.
    pub lease: Duration,
    /// Requests in flight at once for one account.
    pub requests_per_account: u32,
    /// How far overlap reads go back.
    pub lookback: Duration,
    /// (account, queue) pairs that this process can ask for: it has a key and knows the
    /// path. Wishes for others are kept, for when it can or for a replica that can.
    pub askable: Vec<(Account, Queue)>,
}

/// The right to ask for one page of one feed and to store it.
#[derive(Clone, Debug)]
pub struct PageLease {
    /// The feed's row.
    pub feed_id: i64,
    /// The feed.
    pub feed: Feed,
    /// Why it is pulled.
    pub kind: TriggerKind,
    /// Rises with every lease of the feed; a stale owner's is refused.
    pub fence: i64,
    /// Where the run stands.
    pub position: Position,
    /// Whether no run of this feed has come to its end yet.
    pub first_pull: bool,
    /// Failures of this feed since its last success.
    pub feed_failures: u32,
    /// Failures of its account since its last success.
    pub account_failures: u32,
    /// Whether a 401 here speaks of the key: this feed has given pages before, or no feed
    /// of its account ever has.
    pub speaks_of_key: bool,
}

/// Where a run of pages stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// What to send as `from`; `None` is the beginning of the queue.
    pub from: Option<Cursor>,
    /// The newest `next` that the vendor gave in this run.
    pub previous_next: Option<Cursor>,
    /// How many entries the run's page before this one held; 0 where there was none.
    pub previous_entries: usize,
}

/// A page on its way into the store.
#[derive(Clone, Debug, Default)]
pub struct PageToCommit {
    /// Its documents, in the vendor's order.
    pub documents: Vec<DocumentVersion>,
    /// Entries without a usable `id`, set aside.
    pub unreadable: Vec<UnreadableEntry>,
    /// The vendor's `next`, or what stands for it; becomes the feed's cursor as
    /// the kind of pull triggers. `None` leaves the cursor as it is.
    pub cursor: Option<Cursor>,
    /// What the run sends as `from` next.
    pub next_from: Option<Cursor>,
    /// What the caller concluded about the run's end.
    pub end: PageEnd,
    /// Companies seen in a page of the digitized queue: their exported feeds are
    /// made known and reconciled.
    pub companies: Vec<Company>,
    /// The vendor's paging may have left documents out here (vendor-api U14, U15).
    pub gap: bool,
    /// Documents that say which of our uploads they were made of.
    pub uploads: Vec<UploadReturn>,
    /// Links to the documents' files, kept where the feed is read for their sake.
    pub links: Vec<FreshLink>,
}

/// A document that carries the correlation data of a file that we uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadReturn {
    /// [`UploadRow::correlation`](super::UploadRow::correlation).
    pub correlation: String,
    /// The vendor's id of the document.
    pub document_id: String,
}

/// An entry that has no usable `id`.
#[derive(Clone, PartialEq, Eq)]
pub struct UnreadableEntry {
    /// What stays the same whenever the vendor lists it: an entry like it is kept once.
    pub dedup_key: Vec<u8>,
    /// The entry, byte for byte.
    pub body: Vec<u8>,
}

/// Whether a page is its run's last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageEnd {
    /// More pages follow.
    #[default]
    More,
    /// The feed is up to date.
    UpToDate,
}

/// What storing a page did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCommitted {
    /// Versions that were not there before.
    pub new: usize,
    /// Versions that were.
    pub known: usize,
    /// Whether the run has come to its end.
    pub up_to_date: bool,
    /// New versions that this feed should have been told of, and was not.
    pub missed_notifications: usize,
}

/// What people are told of a feed whose company the vendor ignored: what happened, and
/// what to do.
pub const COMPANY_FILTER_IGNORED: &str = "Įvesk.lt gave another company's documents: it ignored the company in the \
     request. Check `api.exported_path`, then run `ivesk-webhook feeds resume`";

/// What storing a page came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageOutcome {
    /// It is stored.
    Committed(PageCommitted),
    /// Every document belongs to another company already: the vendor ignored the
    /// company filter. Nothing was stored, and the feed is paused.
    CompanyFilterIgnored,
}

/// What a failed request means for the work that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFailure {
    /// The whole account waits until then.
    AccountWaits(Timestamp),
    /// This feed alone waits until then.
    FeedWaits(Timestamp),
    /// A person should look at this feed; it is tried once more at `retry_at`.
    FeedPaused {
        /// Why.
        reason: FeedPauseReason,
        /// When it is tried again.
        retry_at: Timestamp,
    },
    /// A person should look at the whole account; it is tried once more at `retry_at`.
    AccountPaused {
        /// Why.
        reason: FeedPauseReason,
        /// When it is tried again.
        retry_at: Timestamp,
    },
}

/// Why a feed or an account is not pulled any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FeedPauseReason {
    /// The vendor answered 401: the key is wrong or withdrawn.
    Unauthorized,
    /// The vendor answered 403: the key may not read this.
    Forbidden,
    /// The vendor answered 404: no such company, or `api.exported_path` is wrong.
    NotFound,
    /// The vendor gave one company's documents for another.
    CompanyFilterIgnored,
    /// A person paused it.
    ByHand,
}

impl FeedPauseReason {
    /// All reasons.
    pub const ALL: [Self; 5] = [
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::CompanyFilterIgnored,
        Self::ByHand,
    ];

    /// The reason's name in the store, in logs and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::CompanyFilterIgnored => "company_filter_ignored",
            Self::ByHand => "by_hand",
        }
    }
}

/// A feed as people see it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct FeedRow {
    /// The feed.
    #[serde(flatten)]
    pub feed: Feed,
    /// Its cursor.
    pub cursor: Option<Cursor>,
    /// When a page of it was last stored.
    pub last_page_at: Option<Timestamp>,
    /// When it was last known to be up to date.
    pub up_to_date_at: Option<Timestamp>,
    /// When its first pull came to its end.
    pub first_complete_at: Option<Timestamp>,
    /// Versions stored.
    pub documents: u64,
    /// Versions that no notification told of: newer than the last one, and found when
    /// the feed was looked at anyway.
    pub missed_notifications: u64,
    /// Pages whose edge may have hidden documents.
    pub gaps: u64,
    /// Entries of its pages that have no usable `id`, set aside.
    pub unreadable: u64,
    /// Why it is not pulled.
    pub paused: Option<FeedPauseReason>,
    /// Not pulled before this moment.
    pub waits_until: Option<Timestamp>,
    /// Failures since the last success.
    pub failures: u32,
    /// What the last failure was.
    pub last_error: Option<String>,
    /// Kinds of pull that are due or under way.
    pub triggers: Vec<TriggerKind>,
}

/// An account's state as people see it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct AccountRow {
    /// Its name.
    pub account: Account,
    /// Why nothing of it is pulled.
    pub paused: Option<FeedPauseReason>,
    /// Nothing of it is asked for before this moment.
    pub waits_until: Option<Timestamp>,
    /// Failures since the last success.
    pub failures: u32,
    /// What the last failure was.
    pub last_error: Option<String>,
}

/// What follows a page that ends its run.
#[derive(Clone, Debug)]
pub struct PullPlan {
    /// The present moment.
    pub now: Timestamp,
    /// How long after a served hint the feed is looked at again.
    pub follow_ups: [Duration; 2],
    /// How long after a reconciliation the next one is due.
    pub reconcile_every: Duration,
    /// Cursors older than this are kept only as far as an overlap read needs one.
    pub lookback: Duration,
}
