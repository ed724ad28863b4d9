//! Pulls documents from the vendor's queues, page by page.
//!
//! [`Puller::pull_page`] is the one step: it leases the most urgent feed, requests one page
//! and stores it with its cursor. [`run`] decides when to call it. All state is in rows, so
//! a step may run on any replica, twice, and after a crash.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::field::Empty;
use tracing::{Instrument as _, Span, debug, debug_span, error, info, warn};

use crate::backoff;
use crate::config::{AccountConfig, ApiConfig, Config, PullConfig};
use crate::domain::{Account, Clock, Company, DocumentVersion, Feed, Queue, Timestamp};
use crate::ivesk::document::{Identity, Unreadable};
use crate::ivesk::{ApiError, Client, Entry, Page};
use crate::metrics::{Metrics, PageResult, StoreStep};
use crate::store::{
    COMPANY_FILTER_IGNORED, FreshLink, LeaseRequest, PageCommitted, PageLease, PageOutcome,
    PageToCommit, PullEnd, PullPlan, SharedStore, StoreError, TriggerKind, UnreadableEntry,
    UploadReturn,
};

pub mod failures;
#[cfg(test)]
mod histories;
pub mod paging;
mod workers;

pub use workers::{reconcile, run};

/// Times after a notification at which its feed is pulled again: a document may be visible later
/// than its notification (vendor-api U16).
const FOLLOW_UPS: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(5 * 60)];

/// Failures of a feed in a row after which a server error for a code that nobody has counts as the
/// answer for that code, and no longer as one of a vendor that is down for a moment.
const CODE_FAILURES: u32 = 2;

/// The result of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullOutcome {
    /// A page was stored.
    Page {
        /// The feed.
        feed: Feed,
        /// The trigger of the pull.
        kind: TriggerKind,
        /// Counts of what was stored.
        committed: PageCommitted,
    },
    /// The request failed, or the page was refused; the feed or its account waits.
    Failed {
        /// The feed.
        feed: Feed,
        /// The error. Contains no secrets.
        error: String,
        /// True if the vendor could not be reached at all.
        unreachable: bool,
    },
    /// Another worker took over the lease; nothing was written.
    Stale {
        /// The feed.
        feed: Feed,
    },
    /// Nothing may be requested now.
    Nothing,
}

/// A queue that can't be pulled until a setting is made. Its triggers are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedQueue {
    /// The account.
    pub account: Account,
    /// The queue.
    pub queue: Queue,
    /// The missing setting: `api_key` or `exported_path`.
    pub missing: &'static str,
}

impl BlockedQueue {
    /// Returns that it is not pulled, why, and what to do.
    pub fn cause_and_fix(&self) -> String {
        let (account, queue) = (&self.account, self.queue);
        let missing = match self.missing {
            "api_key" => format!(
                "the account has no API key. Fix: set IVESK_WEBHOOK_API_KEY or `accounts.{account}.api_key_file`, then \
                 restart `serve`"
            ),
            setting => format!(
                "`api.{setting}` is not set. Fix: set it (`ivesk-webhook doctor --company CODE` finds it), then restart `serve`"
            ),
        };
        format!("the {queue} queue of {account} is not pulled, since {missing}")
    }
}

/// Returns the queues that `config` lacks a setting for.
pub fn blocked_queues(config: &Config) -> Vec<BlockedQueue> {
    let mut blocked = Vec::new();
    for (account, settings) in &config.accounts {
        for queue in Queue::ALL {
            let missing = match queue {
                _ if settings.api_key.is_none() => "api_key",
                Queue::Exported if config.api.exported_path.is_none() => "exported_path",
                _ => continue,
            };
            blocked.push(BlockedQueue {
                account: account.clone(),
                queue,
                missing,
            });
        }
    }
    blocked
}

/// Returns the feeds that `config` names.
pub fn configured_feeds(config: &Config) -> Vec<Feed> {
    let feeds_of = |(account, settings): (&Account, &AccountConfig)| {
        let exported = settings
            .companies
            .iter()
            .map(|company| config.api.exported_feed(account.clone(), company.clone()));
        let digitized = settings.digitized.then(|| Feed::digitized(account.clone()));
        let only = (config.api.has_one_exported_feed())
            .then(|| Feed::exported(account.clone(), Company::mixed()));
        exported.chain(only).chain(digitized).collect::<Vec<_>>()
    };
    config.accounts.iter().flat_map(feeds_of).collect()
}

/// Pulls pages of every account's feeds.
pub struct Puller {
    store: SharedStore,
    clients: BTreeMap<Account, Client>,
    config: PullConfig,
    lease: Duration,
    api: ApiConfig,
    min_free_bytes: u64,
    /// True while the disk has too little room for more documents.
    disk_nearly_full: AtomicBool,
    askable: Vec<(Account, Queue)>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Puller {
    /// Creates a puller for the accounts of `config`; [`blocked_queues`] keep their triggers.
    ///
    /// # Errors
    ///
    /// Fails if a key is not valid in a header, or the machine has no TLS roots.
    pub fn new(config: &Config, store: SharedStore, clock: Clock) -> Result<Self, ApiError> {
        let mut clients = BTreeMap::new();
        for (account, settings) in &config.accounts {
            if let Some(key) = &settings.api_key {
                clients.insert(
                    account.clone(),
                    Client::new(&config.api, key.clone())?.with_clock(clock.clone()),
                );
            }
        }
        let blocked = blocked_queues(config);
        let askable = config
            .accounts
            .keys()
            .flat_map(|account| Queue::ALL.map(|queue| (account.clone(), queue)))
            .filter(|(account, queue)| {
                !blocked
                    .iter()
                    .any(|row| row.account == *account && row.queue == *queue)
            })
            .collect();
        Ok(Self {
            store,
            clients,
            config: config.pull.clone(),
            lease: config.pull.lease,
            api: config.api.clone(),
            min_free_bytes: config.store.min_free_bytes,
            disk_nearly_full: AtomicBool::new(false),
            askable,
            clock,
            metrics: Arc::new(Metrics::new()),
        })
    }

    /// Pulls a feed again at once, as a person asks for it.
    #[must_use]
    pub fn without_interval(mut self) -> Self {
        self.config.min_interval = Duration::ZERO;
        self
    }

    /// Counts requests and pages in `metrics`.
    #[must_use]
    pub fn counted_in(self, metrics: Arc<Metrics>) -> Self {
        let observed = |client: Client| client.observed_by(Arc::clone(&metrics) as _);
        let clients = self.clients.into_iter();
        Self {
            clients: clients
                .map(|(account, client)| (account, observed(client)))
                .collect(),
            metrics,
            ..self
        }
    }

    /// Returns the number of workers: more than 16 would only wait for the store.
    pub fn workers(&self) -> usize {
        (self.clients.len() * self.config.requests_per_account as usize).clamp(1, 16)
    }

    /// Stores feeds; new ones are due for reconciliation at once. Exported feeds that do not fit
    /// `api.exported_path` are removed as long as they don't: they would list the same documents.
    pub async fn register_feeds(&self, feeds: Vec<Feed>) -> Result<(), StoreError> {
        let now = self.clock.now();
        if self.api.exported_path.is_some() {
            let one = self.api.has_one_exported_feed();
            self.store.fit_feeds(one, now).await?;
        }
        self.store.register_feeds(feeds, now).await
    }

    /// Makes known feeds due for reconciliation now: a batch of those with an id above `after`. Returns the
    /// last one's id; `None` if there is none.
    pub async fn reconcile_after(&self, after: i64) -> Result<Option<i64>, StoreError> {
        let now = self.clock.now();
        self.store.trigger_reconciliation(now, after).await
    }

    /// Leases the most urgent feed, requests one page of it and stores the page.
    ///
    /// # Errors
    ///
    /// Fails only if the store does; the vendor's errors are stored in the rows and returned
    /// as [`PullOutcome::Failed`].
    pub async fn pull_page(&self) -> Result<PullOutcome, StoreError> {
        match self.lease().await? {
            Some(lease) => self.pull(lease).await,
            None => Ok(PullOutcome::Nothing),
        }
    }

    /// Leases the most urgent feed; `None` if nothing may be requested now.
    async fn lease(&self) -> Result<Option<PageLease>, StoreError> {
        if self.is_disk_nearly_full().await? {
            return Ok(None);
        }
        let leased = self.store.lease_page(self.lease_request());
        self.metrics.timed(StoreStep::Lease, leased).await
    }

    /// Requests a page of a leased feed and stores it.
    async fn pull(&self, lease: PageLease) -> Result<PullOutcome, StoreError> {
        let span = debug_span!(
            "page",
            feed = %lease.feed,
            kind = lease.kind.as_str(),
            outcome = Empty,
        );
        self.pull_leased(lease).instrument(span).await
    }

    /// Returns true if the disk has less than `store.min_free_bytes`: like messages, documents are
    /// then not stored, so that room is left for what is under way.
    async fn is_disk_nearly_full(&self) -> Result<bool, StoreError> {
        let free = self.store.free_bytes().await?;
        let minimum = self.min_free_bytes;
        let nearly_full = free.is_some_and(|free| free < minimum);
        if self.disk_nearly_full.swap(nearly_full, Ordering::AcqRel) != nearly_full {
            let free = free.unwrap_or_default();
            if nearly_full {
                warn!(
                    free_bytes = free,
                    "pulling has stopped: the store's disk has {free} bytes left, less than `store.min_free_bytes` = {minimum}"
                );
            } else {
                info!(
                    free_bytes = free,
                    "pulling continues: the store's disk has enough free space again"
                );
            }
        }
        Ok(nearly_full)
    }

    async fn pull_leased(&self, lease: PageLease) -> Result<PullOutcome, StoreError> {
        let Some(client) = self.clients.get(&lease.feed.account) else {
            // Not reached: the lease request names only accounts with a client.
            self.store.release_page(lease).await?;
            return Ok(PullOutcome::Nothing);
        };
        let kind = lease.kind;
        let page = client
            .page(
                lease.feed.queue,
                &lease.feed.company,
                lease.position.from.as_ref(),
            )
            .await;
        let outcome = match page {
            Ok(page) => self.store_page(lease, page).await,
            Err(error) => self.store_failure(lease, &error).await,
        };
        if let Ok(outcome) = &outcome {
            self.count(kind, outcome);
        }
        outcome
    }

    fn count(&self, kind: TriggerKind, outcome: &PullOutcome) {
        let result = match outcome {
            PullOutcome::Page { committed, .. } if committed.new > 0 => PageResult::New,
            PullOutcome::Page { .. } => PageResult::NothingNew,
            PullOutcome::Failed { .. } => PageResult::Failed,
            PullOutcome::Stale { .. } => PageResult::Stale,
            PullOutcome::Nothing => return,
        };
        Span::current().record("outcome", result.as_str());
        self.metrics.count_page(kind, result);
    }

    /// Returns what to lease a feed with.
    pub fn lease_request(&self) -> LeaseRequest {
        LeaseRequest {
            now: self.clock.now(),
            lease: self.lease,
            requests_per_account: self.config.requests_per_account,
            lookback: self.config.lookback,
            min_interval: self.config.min_interval,
            reconcile_every: self.config.reconcile_every,
            queues: self.askable.clone(),
        }
    }

    fn plan(&self) -> PullPlan {
        PullPlan {
            now: self.clock.now(),
            follow_ups: FOLLOW_UPS,
            reconcile_every: self.config.reconcile_every,
            lookback: self.config.lookback,
        }
    }

    async fn store_page(&self, lease: PageLease, page: Page) -> Result<PullOutcome, StoreError> {
        let mut page = read_page(&lease, page);
        for company in &mut page.companies {
            let feed = self
                .api
                .exported_feed(lease.feed.account.clone(), company.clone());
            *company = feed.company;
        }
        match self.commit(lease.clone(), page).await {
            Ok(PageOutcome::Committed(committed)) => Ok(stored(&lease, committed)),
            Ok(PageOutcome::CompanyDoubted(page)) => self.check_company(lease, *page).await,
            Err(error) => stale(lease.feed, error),
        }
    }

    async fn commit(
        &self,
        lease: PageLease,
        page: PageToCommit,
    ) -> Result<PageOutcome, StoreError> {
        let committed = self.store.commit_page(lease, page, self.plan());
        self.metrics.timed(StoreStep::Page, committed).await
    }

    /// Finds out whether the vendor ignored the company in a request: if so, it gives the same
    /// answer for a code that nobody has. Otherwise the documents belong to both companies.
    async fn check_company(
        &self,
        lease: PageLease,
        page: PageToCommit,
    ) -> Result<PullOutcome, StoreError> {
        let feed = lease.feed.clone();
        let Some(client) = self.clients.get(&feed.account) else {
            // Not reached: the page came from this client.
            self.store.release_page(lease).await?;
            return Ok(PullOutcome::Nothing);
        };
        let from = lease.position.from.as_ref();
        let ignored = match client.page(feed.queue, &Company::nobody(), from).await {
            Ok(answer) => is_answer(&lease, answer, &page),
            Err(error) if is_for_code(&error, lease.feed_failures) => false,
            Err(error) => return self.store_failure(lease, &error).await,
        };
        if ignored {
            return match self.store.pause_for_ignored_company(lease).await {
                Ok(()) => {
                    let error = COMPANY_FILTER_IGNORED.to_owned();
                    error!(%feed, "paused `{feed}`: {error}");
                    Ok(PullOutcome::Failed {
                        feed,
                        error,
                        unreachable: false,
                    })
                }
                Err(error) => stale(feed, error),
            };
        }
        let page = PageToCommit {
            company_checked: true,
            ..page
        };
        match self.commit(lease.clone(), page).await {
            Ok(PageOutcome::Committed(committed)) => Ok(stored(&lease, committed)),
            Ok(PageOutcome::CompanyDoubted(_)) => Err(StoreError::Database(
                "a page was doubted again after its check".to_owned(),
            )),
            Err(error) => stale(feed, error),
        }
    }

    async fn store_failure(
        &self,
        lease: PageLease,
        error: &ApiError,
    ) -> Result<PullOutcome, StoreError> {
        let feed = lease.feed.clone();
        let unreachable = matches!(error, ApiError::Unreachable(_));
        let now = self.clock.now();
        let failure = failures::classify(error, &lease, now, backoff::jitter());
        let text = error.to_string();
        warn!(%feed, "failed to fetch a page of `{feed}`: {text}; {failure}");
        let failed = self.store.fail_page(lease, failure, text.clone(), now);
        match failed.await {
            Ok(()) => Ok(PullOutcome::Failed {
                feed,
                error: text,
                unreachable,
            }),
            Err(error) => stale(feed, error),
        }
    }

    /// Returns the time when a feed is next due.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.store.next_due(self.lease_request()).await
    }
}

/// Returns the outcome of a stored page, and logs it.
fn stored(lease: &PageLease, committed: PageCommitted) -> PullOutcome {
    log_page(&lease.feed, lease.kind, committed);
    PullOutcome::Page {
        feed: lease.feed.clone(),
        kind: lease.kind,
        committed,
    }
}

/// Returns the outcome of a step whose lease another worker took over; other errors stay errors.
fn stale(feed: Feed, error: StoreError) -> Result<PullOutcome, StoreError> {
    let StoreError::StaleLease = error else {
        return Err(error);
    };
    debug!(%feed, "another worker took over the lease on `{feed}`; its page was dropped");
    Ok(PullOutcome::Stale { feed })
}

/// Returns true if a failed request for a code that nobody has shows that the vendor reads the
/// code: the same request for a company has just succeeded. `failures` are those of the feed in a
/// row.
fn is_for_code(error: &ApiError, failures: u32) -> bool {
    match error {
        ApiError::Unreachable(_)
        | ApiError::NotConfigured { .. }
        | ApiError::Status {
            retry_after: Some(_),
            ..
        }
        | ApiError::Status {
            status: 408 | 429, ..
        } => false,
        ApiError::Status { status: 500.., .. } => failures >= CODE_FAILURES,
        ApiError::Status { .. }
        | ApiError::TooLarge { .. }
        | ApiError::Compressed(_)
        | ApiError::Malformed(_) => true,
    }
}

/// Returns true if the answer for a code that nobody has is the whole answer for this company.
fn is_answer(lease: &PageLease, answer: Page, page: &PageToCommit) -> bool {
    let answer = read_page(lease, answer);
    let identities = |page: &PageToCommit| {
        let of = |document: &DocumentVersion| (document.id.clone(), document.version_key());
        page.documents.iter().map(of).collect::<Vec<_>>()
    };
    !answer.documents.is_empty()
        && answer.entries() == page.entries()
        && identities(&answer) == identities(page)
}

/// Turns the vendor's page into rows, and determines the next step of the pull.
fn read_page(lease: &PageLease, page: Page) -> PageToCommit {
    let feed = &lease.feed;
    let queue = feed.queue;
    let entries = page.documents.len();
    let mut repaired = page.repaired.iter().peekable();
    let mut documents = Vec::with_capacity(entries);
    let mut unreadable = Vec::new();
    let mut companies = Vec::new();
    let mut uploads = Vec::new();
    let mut links = Vec::new();
    for (index, body) in page.documents.into_iter().enumerate() {
        let repaired = repaired.next_if(|repaired| repaired.entry == index);
        let number = index + 1;
        if let Some(repaired) = repaired {
            warn!(%feed, "repaired entry {number} of {entries} on a page of `{feed}`: byte {} of it was not UTF-8, or a control character or an invalid escape in a text", repaired.byte);
        }
        let entry = Entry::parse(&body);
        if let (Queue::Digitized, Some(entry)) = (queue, &entry) {
            companies.extend(entry.companies());
        }
        match identity(entry.as_ref(), queue, repaired.is_some()) {
            Ok(Identity { id, version }) => {
                let entry = entry.as_ref();
                let correlation = entry.and_then(Entry::upload);
                uploads.extend(correlation.map(|correlation| UploadReturn {
                    correlation,
                    document_id: id.clone(),
                }));
                links.extend(entry.and_then(Entry::link).map(|url| FreshLink {
                    document_id: id.clone(),
                    version: version.clone(),
                    url,
                }));
                documents.push(DocumentVersion { id, version, body });
            }
            Err(reason) => {
                warn!(%feed, "stored entry {number} of {entries} on a page of `{feed}` apart from its documents, as unreadable: {reason}");
                unreadable.push(UnreadableEntry {
                    dedup_key: entry.map_or_else(|| body.to_vec(), |entry| entry.dedup_key()),
                    body,
                });
            }
        }
    }
    companies.sort();
    companies.dedup();
    let largest = lease.largest_page.unwrap_or(0);
    let step = paging::next_step(&lease.position, largest, entries, &documents, page.next);
    PageToCommit {
        documents,
        unreadable,
        cursor: step.cursor,
        next_from: step.next_from,
        progress: step.progress,
        end: step.end,
        companies,
        gaps: step.gaps,
        company_checked: false,
        uploads,
        links,
        clock_offset: page.clock_offset,
    }
}

/// Returns the identity of an entry.
fn identity(
    entry: Option<&Entry<'_>>,
    queue: Queue,
    is_repaired: bool,
) -> Result<Identity, Unreadable> {
    let identity = entry.ok_or(Unreadable::NotAnObject)?.identity(queue)?;
    let may_be_repaired = |text: &str| text.contains([char::REPLACEMENT_CHARACTER, '\\']);
    if is_repaired && (may_be_repaired(&identity.id) || may_be_repaired(&identity.version)) {
        return Err(Unreadable::NotValidText);
    }
    Ok(identity)
}

fn log_page(feed: &Feed, kind: TriggerKind, committed: PageCommitted) {
    let PageCommitted {
        new,
        known,
        ended,
        new_gaps,
        missed_notifications,
    } = committed;
    let kind = kind.as_str();
    let up_to_date = ended == Some(PullEnd::Complete);
    if new > 0 {
        info!(%feed, kind, new, known, up_to_date, "stored {new} new document versions of `{feed}`");
    } else {
        debug!(%feed, kind, known, up_to_date, "nothing new in `{feed}`");
    }
    if missed_notifications > 0 {
        warn!(%feed, missed_notifications, "missed notifications: {missed_notifications} documents of `{feed}` were not announced; check `ivesk-webhook subscriptions list`");
    }
    if new_gaps > 0 {
        warn!(%feed, new_gaps, "documents of `{feed}` may be missing; see `ivesk-webhook feeds gaps`");
    }
    if let Some(PullEnd::Incomplete(reason)) = ended {
        let (cause, fix) = reason.cause_and_fix();
        debug!(%feed, reason = reason.as_str(), "`{feed}` is incomplete: {cause}. Fix: {fix}");
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::failures::tests::lease;
    use super::*;
    use crate::ivesk::Repaired;

    /// Returns a page of documents with these ids; one without an id is unreadable.
    fn page(ids: &[&str]) -> Page {
        let document = |id: &&str| Bytes::from(format!(r#"{{"id":"{id}","exportedat":"a"}}"#));
        Page {
            documents: ids.iter().map(document).collect(),
            next: None,
            repaired: Vec::new(),
            clock_offset: None,
        }
    }

    #[test]
    fn only_the_whole_same_answer_shows_that_a_company_is_ignored() {
        let lease = lease(0, 0);
        let same = |answer: &[&str], ids: &[&str]| {
            is_answer(&lease, page(answer), &read_page(&lease, page(ids)))
        };
        assert!(same(&["a", "b"], &["a", "b"]));
        assert!(same(&["a", ""], &["a", ""]));
        assert!(!same(&[], &[]));
        assert!(!same(&[""], &[""]), "nothing that can be compared");
        assert!(!same(&["a"], &["a", "b"]));
        assert!(!same(&["a", "c"], &["a", "b"]));
        assert!(!same(&["a", ""], &["a"]));
    }

    #[test]
    fn a_server_error_answers_for_a_code_only_if_it_stays() {
        let status = |status, retry_after| ApiError::Status {
            status,
            message: None,
            retry_after,
        };
        let second = Some(Duration::from_secs(1));
        for (error, failures, expected) in [
            (status(404, None), 0, true),
            (status(500, None), 0, false),
            (status(503, None), 1, false),
            (status(500, None), 2, true),
            (status(599, None), 3, true),
            (status(503, second), 9, false),
            (status(408, None), 9, false),
            (status(429, None), 9, false),
            (ApiError::Unreachable("refused".to_owned()), 9, false),
            (ApiError::TooLarge { limit_bytes: 1 }, 0, true),
        ] {
            assert_eq!(is_for_code(&error, failures), expected, "{error}");
        }
    }

    #[test]
    fn of_a_repaired_entry_only_its_identity_must_be_whole() {
        let is_kept = |id: &str, version: &str, repaired| {
            let body = format!(r#"{{"id":"{id}","exportedat":"{version}"}}"#);
            let page = Page {
                documents: vec![Bytes::from(body)],
                repaired,
                ..page(&[])
            };
            read_page(&lease(0, 0), page).unreadable.is_empty()
        };
        let repaired = |entry| vec![Repaired { entry, byte: 7 }];
        assert!(is_kept("a", "b", repaired(0)));
        assert!(!is_kept("a\u{fffd}", "b", repaired(0)));
        assert!(!is_kept("a", "b\u{fffd}", repaired(0)));
        assert!(!is_kept(r"a\\x", "b", repaired(0)));
        assert!(!is_kept("a", r"b\\x", repaired(0)));
        // The vendor wrote it so.
        assert!(is_kept("a\u{fffd}", "b\u{fffd}", Vec::new()));
        assert!(is_kept("a\u{fffd}", "b", repaired(1)));
        assert!(is_kept(r"a\\x", r"b\\x", Vec::new()));
    }
}
