//! Delivering documents: destinations, how far each has come, what became of each version, and
//! the import errors that are reported back.
//!
//! A destination has a *position*: every version at or below it is settled for that destination, as far
//! as the destination's feeds have been started. A version is settled when it was delivered,
//! rejected, offered, left out, or superseded by a newer one. So a destination that is paused
//! costs nothing, however much waits for it, and starting a feed later, or trying a
//! version again, only moves the position back: what is settled stays so.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::StoreError;
use crate::domain::{Account, Company, DestinationName, Feed, Queue, Timestamp};

/// How many versions after a destination's position one lease looks through.
pub(super) const WINDOW: i64 = 2_000;

/// Attempts that are told of one version at the most; the oldest but the first go.
pub(super) const ATTEMPTS: i64 = 50;

/// Why a report that names no company can't be sent.
pub(super) const NO_COMPANY: &str = "nothing says which of your companies the document belongs to, and Įvesk.lt filter to \
     know; tell the accountant yourself";

/// How long a feed is waited for that is to be read again for the sake of links. One that
/// can't be read for so long gives its documents without their files.
pub(super) const LINK_PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a version waits after its file's link was found to have expired, unless a
/// fresh one comes sooner.
pub(super) const LINK_WAIT: Duration = Duration::from_secs(60);

/// Which documents a destination takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DestinationFilter {
    /// From this queue.
    pub queue: Queue,
    /// Of these accounts; of all where it is empty.
    pub accounts: Vec<Account>,
    /// Of these companies; of all where it is empty. Of the digitized queue, which mixes
    /// companies, the store gives all.
    pub companies: Vec<Company>,
}

impl DestinationFilter {
    /// Every document of a queue.
    pub fn all_of(queue: Queue) -> Self {
        Self {
            queue,
            accounts: Vec::new(),
            companies: Vec::new(),
        }
    }
}

/// What a worker says when it asks for something to deliver.
#[derive(Clone, Debug)]
pub struct DeliveryLeaseRequest {
    /// For which destination.
    pub destination: DestinationName,
    /// Which documents it takes.
    pub filter: DestinationFilter,
    /// Whether feeds are started by themselves, from their beginning.
    pub deliver_history: bool,
    /// Whether it fetches files, so that versions whose links are being renewed wait.
    pub files: bool,
    /// The present moment.
    pub now: Timestamp,
    /// How long the lease holds unless it is renewed.
    pub lease: Duration,
    /// At most so many versions.
    pub most: usize,
    /// No more versions after so many bytes of them.
    pub most_bytes: usize,
}

/// What there is to do for a destination.
#[derive(Clone, Debug)]
pub enum DeliveryLeased {
    /// Hand these on.
    Batch(DeliveryLease),
    /// None of the versions that were looked through is to be delivered: ask again.
    Passed,
    /// Nothing may be delivered now; something that waits for its time may be from then on.
    Nothing {
        /// When to ask again at the latest, where that is known.
        until: Option<Timestamp>,
    },
}

/// One version of one document on its way to a destination.
#[derive(Clone)]
pub struct Delivery {
    /// Where it came from.
    pub feed: Feed,
    /// The vendor's id of the document.
    pub document_id: String,
    /// The vendor's version text.
    pub version: String,
    /// The store's epoch: numbers of different epochs don't compare.
    pub epoch: String,
    /// Our number of the version within the epoch.
    pub sequence: i64,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// The JSON as the vendor sent it.
    pub body: Vec<u8>,
    /// A link to the document's file that is newer than the one in [`Delivery::body`].
    pub link: Option<SecretString>,
    /// When the vendor listed [`Delivery::link`].
    pub link_listed_at: Option<Timestamp>,
    /// How often a fresh link was asked for in vain: a destination that has waited long enough
    /// goes on without the file.
    pub link_tries: u32,
    /// What this destination noted when it took an earlier version of the document
    /// ([`DeliveryOutcome::Delivered`]).
    pub earlier_note: Option<String>,
}

/// The right to hand a destination's documents on.
#[derive(Clone, Debug)]
pub struct DeliveryLease {
    /// The destination's row.
    pub destination_id: i64,
    /// The destination.
    pub destination: DestinationName,
    /// Rises with every lease of the destination; a stale owner's is refused.
    pub fence: i64,
    /// Failures of the destination since its last success.
    pub failures: u32,
    /// What is to be delivered, in the order of the numbers; at most one version of a
    /// document.
    pub deliveries: Vec<Delivery>,
}

/// What became of one version at a destination.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its number.
    pub sequence: i64,
    /// When it was begun.
    pub began_at: Timestamp,
    /// How it ended.
    pub outcome: DeliveryOutcome,
}

/// How giving one version to a destination ended.
#[derive(Clone, Debug)]
pub enum DeliveryOutcome {
    /// The destination has it.
    Delivered {
        /// What it filter to be told at a later version.
        note: Option<String>,
    },
    /// The destination does not want it.
    Rejected {
        /// Why, as far as it may be kept and shown.
        message: String,
        /// What the accountant is told.
        report: NewImportError,
    },
    /// It is in the list that a program asks for.
    Listed,
    /// It is of a company that the destination doesn't take.
    Filtered,
    /// The link to its file has expired; a fresh pull is raised.
    LinkExpired,
}

/// An import error for the vendor's accountant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewImportError {
    /// Whose document; none where nothing says so, and then it can't be sent.
    pub company: Option<Company>,
    /// The text for the accountant.
    pub message: String,
}

/// What becomes of the lease once outcomes are noted.
#[derive(Clone, Debug)]
pub enum LeaseAction {
    /// It holds for so long again.
    Keep(Duration),
    /// It is given back.
    Release,
    /// It is given back, and the destination waits: it could take nothing.
    Wait {
        /// At which version.
        sequence: i64,
        /// When giving it that was begun.
        began_at: Timestamp,
        /// Why; nothing secret.
        error: String,
        /// When it is tried again; never by itself where it is none.
        until: Option<Timestamp>,
    },
}

/// Where a person lets the feeds of a destination begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFrom {
    /// Everything that is stored, and what will come.
    All,
    /// What comes from now on.
    Now,
    /// Versions from this moment on, by the vendor's time, and what will come.
    Since(Timestamp),
}

/// What a person changes at a destination.
#[derive(Clone, Debug)]
pub enum DestinationChange {
    /// Nothing is delivered until [`DestinationChange::Resume`].
    Pause,
    /// Goes on now, whatever it waited for.
    Resume,
    /// Lets feeds begin; those that have begun begin earlier where this says so, and
    /// nothing that is settled is delivered again.
    Start {
        /// Which documents the destination takes.
        filter: DestinationFilter,
        /// Only this account's feeds.
        account: Option<Account>,
        /// Only this company's feed.
        company: Option<Company>,
        /// From where.
        from: StartFrom,
    },
    /// Hands rejected versions on again, as far as no newer one has come.
    Retry {
        /// This one, whatever became of it; all rejected ones where it is none.
        sequence: Option<i64>,
    },
    /// Leaves a version out that was not settled.
    Skip {
        /// Its number.
        sequence: i64,
    },
}

/// What a program says of a version that it was offered, or a destination of one that it had.
#[derive(Clone, Debug)]
pub enum LateOutcome {
    /// It is delivered.
    Delivered,
    /// It is rejected.
    Rejected {
        /// Why.
        message: String,
        /// What the accountant is told.
        report: NewImportError,
    },
}

/// Where one version stands at one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It was tried, or is to be tried again.
    Pending,
    /// It is in the list that a program asks for; the program has not said what became of it.
    Listed,
    /// The destination has it.
    Delivered,
    /// The destination does not want it.
    Rejected,
    /// A person left it out.
    Skipped,
    /// It is of a company that the destination doesn't take.
    Filtered,
}

impl DeliveryState {
    /// All states.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Listed,
        Self::Delivered,
        Self::Rejected,
        Self::Skipped,
        Self::Filtered,
    ];

    /// The state's name in the store and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Listed => "listed",
            Self::Delivered => "delivered",
            Self::Rejected => "rejected",
            Self::Skipped => "skipped",
            Self::Filtered => "filtered",
        }
    }
}

/// Why a destination is given nothing until a person resumes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DestinationPauseReason {
    /// A person paused it.
    ByHand,
    /// It said that it filter nothing any more.
    Closed,
}

impl DestinationPauseReason {
    /// All reasons.
    pub const ALL: [Self; 2] = [Self::ByHand, Self::Closed];

    /// The reason's name in the store and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ByHand => "by_hand",
            Self::Closed => "closed",
        }
    }
}

/// A destination as people see it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct DestinationRow {
    /// Its name.
    pub name: DestinationName,
    /// Every version at or below this number is settled, as far as its feeds were started.
    pub position: i64,
    /// Versions that came after the position, of whatever feeds.
    pub behind: i64,
    /// When the oldest version that it has not been given was stored; looked for among the
    /// next 2,000 after the position.
    pub waiting_since: Option<Timestamp>,
    /// Versions that it took, since the store began.
    pub delivered: u64,
    /// Versions that it rejected, since the store began.
    pub rejected: u64,
    /// Versions that stand rejected now.
    pub rejected_now: u64,
    /// Why it is given nothing until a person resumes it.
    pub paused: Option<DestinationPauseReason>,
    /// It is given nothing before this moment.
    pub waits_until: Option<Timestamp>,
    /// Since when it has failed without a success.
    pub failing_since: Option<Timestamp>,
    /// Failures since the last success.
    pub failures: u32,
    /// What the last failure was.
    pub last_error: Option<String>,
    /// The version at which it failed.
    pub stuck_at: Option<i64>,
    /// When it last took something.
    pub last_success_at: Option<Timestamp>,
}

/// A feed of which a destination is given nothing until a person lets it begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct HeldFeed {
    /// The feed.
    #[serde(flatten)]
    pub feed: Feed,
    /// Versions that wait.
    pub documents: u64,
    /// Whether its first pull has come to its end.
    pub complete: bool,
}

/// One attempt to give a version to a destination; several in a row that ended alike are one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct AttemptRow {
    /// When the first of them began.
    pub began_at: Timestamp,
    /// When the last of them ended.
    pub ended_at: Timestamp,
    /// How they ended: a state's name, or `unavailable`, `closed` or `link_expired`.
    pub result: String,
    /// What the destination said.
    pub detail: Option<String>,
    /// How many they are.
    pub times: u64,
}

/// What became of one version at one destination.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct DeliveryRow {
    /// The destination.
    pub destination: DestinationName,
    /// The version's number.
    pub sequence: i64,
    /// Where it stands.
    pub state: DeliveryState,
    /// When it was first given to the destination.
    pub began_at: Timestamp,
    /// When its state last changed.
    pub changed_at: Timestamp,
    /// What the destination said, or noted.
    pub detail: Option<String>,
    /// Attempts, oldest first.
    pub attempts: Vec<AttemptRow>,
}

/// Which deliveries to list.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    /// Only this destination's.
    pub destination: Option<DestinationName>,
    /// Only in this state.
    pub state: Option<DeliveryState>,
    /// Only of this version.
    pub sequence: Option<i64>,
    /// Only of versions after this number.
    pub after: i64,
    /// At most so many, in ascending order of the numbers.
    pub limit: usize,
}

/// A version in the list that a program asks for.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its place in the destination's list, in the order of offering; none is given twice.
    pub number: i64,
    /// Where it stands.
    pub state: DeliveryState,
    /// The version.
    pub item: Delivery,
}

/// Which import errors to list.
#[derive(Clone, Debug, Default)]
pub struct ImportErrorFilter {
    /// Only those after this row.
    pub after: i64,
    /// Only of this version.
    pub sequence: Option<i64>,
    /// Only in this state.
    pub state: Option<ImportErrorState>,
    /// At most so many, oldest first.
    pub limit: usize,
}

/// Where an import error stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImportErrorState {
    /// It is to be sent.
    Pending,
    /// The vendor has it.
    Sent,
    /// The vendor does not want it, or it can't be sent.
    Refused,
}

impl ImportErrorState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Sent, Self::Refused];

    /// The state's name in the store and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Refused => "refused",
        }
    }
}

/// An import error as people see it: one for each (version, text).
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ImportErrorRow {
    /// The row.
    pub id: i64,
    /// Whose key sends it.
    pub account: Account,
    /// The version's number.
    pub sequence: i64,
    /// The vendor's id of the document.
    pub document_id: String,
    /// Whose document.
    pub company: Option<Company>,
    /// The text for the accountant.
    pub message: String,
    /// Where it stands.
    pub state: ImportErrorState,
    /// Attempts to send it.
    pub attempts: u32,
    /// When the destination rejected the version.
    pub created_at: Timestamp,
    /// When the vendor took it.
    pub sent_at: Option<Timestamp>,
    /// When it is tried (again).
    pub next_try_at: Option<Timestamp>,
    /// What the last failure was.
    pub last_error: Option<String>,
}

/// The right to send one report.
#[derive(Clone, Debug)]
pub struct ImportErrorLease {
    /// The report.
    pub row: ImportErrorRow,
    /// Rises with every lease; a stale owner's is refused.
    pub fence: i64,
}

/// How sending a report ended.
#[derive(Clone, Debug)]
pub enum ImportErrorOutcome {
    /// The vendor has it.
    Sent,
    /// It is tried again.
    Failed {
        /// Why; nothing secret.
        error: String,
        /// When.
        next_try_at: Timestamp,
        /// Until when the account's other reports wait: what kept this one from the vendor
        /// keeps them too.
        others_wait_until: Timestamp,
    },
    /// The vendor does not want it.
    Refused {
        /// Why; nothing secret.
        error: String,
    },
}

/// A link to a document's file, newer than the one that is stored with the document.
#[derive(Clone, Debug)]
pub struct FreshLink {
    /// The vendor's id of the document.
    pub document_id: String,
    /// The vendor's version text.
    pub version: String,
    /// The link; a secret.
    pub url: SecretString,
}

/// What is kept of delivering documents. All methods may be called twice.
#[async_trait]
pub trait DeliveryStore: Send + Sync + 'static {
    /// Changes whenever documents may have been stored, or a destination been changed, by this
    /// process: a hint to look at the rows, never the work itself.
    fn arrivals(&self) -> watch::Receiver<()>;

    /// Makes destinations known, and what they take. What is stored already counts as held for a
    /// new one. Where a known one takes other documents than before, feeds that it takes
    /// no more have to be started anew if they come back, and those that it takes now
    /// don't begin by themselves with what is stored already.
    async fn register_destinations(
        &self,
        destinations: Vec<(DestinationName, DestinationFilter)>,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Leases a destination with the next versions for it.
    ///
    /// Feeds without a first pull to hold begin by themselves here. The lease is one for
    /// the whole destination, so that a document is in one pair of hands at a time.
    async fn lease_deliveries(
        &self,
        request: DeliveryLeaseRequest,
    ) -> Result<DeliveryLeased, StoreError>;

    /// Notes what became of leased versions, with the reports that follow from it, and
    /// what becomes of the lease. Gives whether more may be begun under it: not where it
    /// was given back, or a person has paused the destination meanwhile. A pause leaves the lease
    /// with its owner, who may have documents in flight and gives it back after them.
    ///
    /// # Errors
    ///
    /// [`StoreError::StaleLease`] where somebody leased the destination since: nothing is noted.
    async fn settle_deliveries(
        &self,
        lease: DeliveryLease,
        settled: Vec<Attempt>,
        afterwards: LeaseAction,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Changes a destination, and gives how many feeds or versions that was about; `None` where
    /// there is no such destination.
    async fn change_destination(
        &self,
        destination: DestinationName,
        change: DestinationChange,
        now: Timestamp,
    ) -> Result<Option<usize>, StoreError>;

    /// Notes what a program says of a version that its destination was given; false where the
    /// destination was not given it.
    async fn record_outcome(
        &self,
        destination: DestinationName,
        sequence: i64,
        verdict: LateOutcome,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Every destination that was ever known.
    async fn destinations(&self) -> Result<Vec<DestinationRow>, StoreError>;

    /// The feeds that `destination`, which takes `filter`, is given nothing of until they are started.
    async fn held_feeds(
        &self,
        destination: DestinationName,
        filter: DestinationFilter,
    ) -> Result<Vec<HeldFeed>, StoreError>;

    /// What became of versions at destinations, with every attempt.
    async fn deliveries(&self, filter: DeliveryFilter) -> Result<Vec<DeliveryRow>, StoreError>;

    /// The list that a program asks for: at most `limit` after place `after`, and none
    /// after `most_bytes` of them.
    async fn listed(
        &self,
        destination: DestinationName,
        after: i64,
        limit: usize,
        most_bytes: usize,
    ) -> Result<Vec<Listed>, StoreError>;

    /// Leases the report that has waited longest, of one of these accounts.
    async fn lease_import_error(
        &self,
        accounts: Vec<Account>,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<ImportErrorLease>, StoreError>;

    /// Notes how sending a report ended.
    ///
    /// # Errors
    ///
    /// [`StoreError::StaleLease`].
    async fn end_import_error(
        &self,
        lease: ImportErrorLease,
        end: ImportErrorOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Makes a report that was refused, or waits, due now; false where there is none such.
    async fn retry_import_error(&self, id: i64, now: Timestamp) -> Result<bool, StoreError>;

    /// Import error reports.
    async fn import_errors(
        &self,
        filter: ImportErrorFilter,
    ) -> Result<Vec<ImportErrorRow>, StoreError>;
}
