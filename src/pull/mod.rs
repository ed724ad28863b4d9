//! Reading the queues: scheduler, page step, reconciliation.
//!
//! [`Puller::pull_page`] is the one step: it leases the most urgent feed, asks the
//! vendor for one page and stores it with its cursor. [`run`] only decides when to
//! call it. What is to be done stands in rows, so the step may run anywhere, twice, and
//! after a crash.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::field::Empty;
use tracing::{Instrument as _, Span, debug, debug_span, error, info, warn};

use crate::config::{AccountConfig, Config, PullConfig};
use crate::domain::{Account, Clock, Feed, Queue, Timestamp};
use crate::egress;
use crate::ivesk::{self, ApiError, Client, Page};
use crate::metrics::{Metrics, PullEnd, StoreStep};
use crate::store::{
    COMPANY_FILTER_IGNORED, FreshLink, LeaseRequest, PageCommitted, PageLease, PageOutcome,
    PageToCommit, PullPlan, SharedStore, StoreError, TriggerKind, UnreadableEntry, UploadReturn,
};

pub mod failures;
pub mod paging;

/// The longest that a worker sleeps without looking at the rows.
const IDLE: Duration = Duration::from_secs(30);

/// How long a worker waits where all of an account's requests are in flight.
const A_TURN: Duration = Duration::from_secs(1);

/// The pause after the store failed.
const AFTER_STORE_ERROR: Duration = Duration::from_secs(5);

/// What one step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// A page was stored.
    Page {
        /// Its feed.
        feed: Feed,
        /// Why it was pulled.
        kind: TriggerKind,
        /// What storing it did.
        committed: PageCommitted,
    },
    /// The request failed, or the page was refused; the feed or its account waits.
    Failed {
        /// The feed.
        feed: Feed,
        /// What went wrong, for people; nothing secret.
        error: String,
        /// Whether the vendor could not be reached at all.
        unreachable: bool,
    },
    /// Another worker took the feed over; nothing was written.
    Stale {
        /// The feed.
        feed: Feed,
    },
    /// Nothing may be asked for now.
    Nothing,
}

/// A queue that can't be asked for until a setting is made. Its hints are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Blocked {
    /// Whose queue.
    pub account: Account,
    /// Which queue.
    pub queue: Queue,
    /// What is missing: `api_key` or `exported_path`.
    pub missing: &'static str,
}

/// The queues that `config` does not let us ask for.
pub fn blocked(config: &Config) -> Vec<Blocked> {
    let mut blocked = Vec::new();
    for (account, settings) in &config.accounts {
        for queue in Queue::ALL {
            let missing = match queue {
                _ if settings.api_key.is_none() => "api_key",
                Queue::Exported if config.api.exported_path.is_none() => "exported_path",
                _ => continue,
            };
            blocked.push(Blocked {
                account: account.clone(),
                queue,
                missing,
            });
        }
    }
    blocked
}

/// The feeds that `config` names itself.
pub fn configured_feeds(config: &Config) -> Vec<Feed> {
    let feeds_of = |(account, settings): (&Account, &AccountConfig)| {
        let exported = settings
            .companies
            .iter()
            .map(|company| Feed::exported(account.clone(), company.clone()));
        let digitized = settings.digitized.then(|| Feed::digitized(account.clone()));
        exported.chain(digitized).collect::<Vec<_>>()
    };
    config.accounts.iter().flat_map(feeds_of).collect()
}

/// Pulls pages of every account's feeds.
pub struct Puller {
    store: SharedStore,
    clients: BTreeMap<Account, Client>,
    config: PullConfig,
    askable: Vec<(Account, Queue)>,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Wakes another worker when there may be more to do.
    more: Notify,
}

impl Puller {
    /// A puller for the accounts of `config`; queues that are [`blocked`] keep their hints.
    ///
    /// # Errors
    ///
    /// Where a key can't stand in a header, or the machine offers no TLS.
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
        let blocked = blocked(config);
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
            askable,
            clock,
            metrics: Arc::new(Metrics::new()),
            more: Notify::new(),
        })
    }

    /// The same puller, counted in `metrics`.
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

    /// How many workers can be busy at once: more than 16 would only wait for the store.
    pub fn workers(&self) -> usize {
        (self.clients.len() * self.config.requests_per_account as usize).clamp(1, 16)
    }

    /// Makes feeds known; new ones are due for reconciliation at once.
    pub async fn register_feeds(&self, feeds: Vec<Feed>) -> Result<(), StoreError> {
        self.store.register_feeds(feeds, self.clock.now()).await
    }

    /// Makes every known feed due for reconciliation now, as at each start.
    pub async fn reconcile_now(&self) -> Result<usize, StoreError> {
        self.store.trigger_reconciliation(self.clock.now()).await
    }

    /// Leases the most urgent feed, asks for one page of it, and stores that.
    ///
    /// # Errors
    ///
    /// Only the store's; the vendor's are noted in the rows and come as
    /// [`Pulled::Failed`].
    pub async fn pull_page(&self) -> Result<Pulled, StoreError> {
        let leased = self.store.lease_page(self.lease_request());
        let Some(lease) = self.metrics.timed(StoreStep::Lease, leased).await? else {
            return Ok(Pulled::Nothing);
        };
        // The rest of the work is for another worker, if there is one.
        self.more.notify_one();
        let span = debug_span!(
            "page",
            feed = %lease.feed,
            kind = lease.kind.as_str(),
            outcome = Empty,
        );
        self.pull_leased(lease).instrument(span).await
    }

    async fn pull_leased(&self, lease: PageLease) -> Result<Pulled, StoreError> {
        let Some(client) = self.clients.get(&lease.feed.account) else {
            // Only what has a client is asked for.
            self.store.release_page(lease).await?;
            return Ok(Pulled::Nothing);
        };
        let kind = lease.kind;
        let asked = client
            .page(
                lease.feed.queue,
                &lease.feed.company,
                lease.position.from.as_ref(),
            )
            .await;
        let pulled = match asked {
            Ok(page) => self.store_page(lease, page).await,
            Err(error) => self.note_failure(lease, &error).await,
        };
        if let Ok(pulled) = &pulled {
            self.count(kind, pulled);
        }
        pulled
    }

    fn count(&self, kind: TriggerKind, pulled: &Pulled) {
        let end = match pulled {
            Pulled::Page { committed, .. } if committed.new > 0 => PullEnd::New,
            Pulled::Page { .. } => PullEnd::NothingNew,
            Pulled::Failed { .. } => PullEnd::Failed,
            Pulled::Stale { .. } => PullEnd::Stale,
            Pulled::Nothing => return,
        };
        Span::current().record("outcome", end.as_str());
        self.metrics.pulled(kind, end);
    }

    fn lease_request(&self) -> LeaseRequest {
        LeaseRequest {
            now: self.clock.now(),
            lease: self.config.lease,
            requests_per_account: self.config.requests_per_account,
            lookback: self.config.lookback,
            queues: self.askable.clone(),
        }
    }

    fn plan(&self) -> PullPlan {
        PullPlan {
            now: self.clock.now(),
            follow_ups: self.config.follow_ups,
            reconcile_every: self.config.reconcile_every,
            lookback: self.config.lookback,
        }
    }

    async fn store_page(&self, lease: PageLease, page: Page) -> Result<Pulled, StoreError> {
        let (feed, kind) = (lease.feed.clone(), lease.kind);
        let page = read_page(&lease, page);
        let gap = page.gap;
        let committed = self.store.commit_page(lease, page, self.plan());
        match self.metrics.timed(StoreStep::Page, committed).await {
            Ok(PageOutcome::Committed(committed)) => {
                report(&feed, kind, committed, gap);
                Ok(Pulled::Page {
                    feed,
                    kind,
                    committed,
                })
            }
            Ok(PageOutcome::CompanyFilterIgnored) => {
                let error = COMPANY_FILTER_IGNORED.to_owned();
                error!(%feed, "paused `{feed}`: {error}");
                Ok(Pulled::Failed {
                    feed,
                    error,
                    unreachable: false,
                })
            }
            Err(StoreError::StaleLease) => {
                debug!(%feed, "the lease on `{feed}` was taken over; its page was dropped");
                Ok(Pulled::Stale { feed })
            }
            Err(error) => Err(error),
        }
    }

    async fn note_failure(
        &self,
        lease: PageLease,
        error: &ivesk::ApiError,
    ) -> Result<Pulled, StoreError> {
        let feed = lease.feed.clone();
        let unreachable = matches!(error, ivesk::ApiError::Unreachable(_));
        let failure = failures::judge(error, &lease, self.clock.now(), egress::jitter());
        let text = error.to_string();
        warn!(%feed, ?failure, "a page of `{feed}` could not be had: {text}");
        match self.store.fail_page(lease, failure, text.clone()).await {
            Ok(()) => Ok(Pulled::Failed {
                feed,
                error: text,
                unreachable,
            }),
            Err(StoreError::StaleLease) => Ok(Pulled::Stale { feed }),
            Err(error) => Err(error),
        }
    }

    /// When something is next due.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.store.next_due(self.lease_request()).await
    }

    async fn idle(&self) {
        let now = self.clock.now();
        let pause = match self.next_due().await {
            // Due already, yet not leased: another worker holds the account's turn.
            Ok(Some(due_at)) => due_at.since(now).max(A_TURN).min(IDLE),
            Ok(None) => IDLE,
            Err(_) => AFTER_STORE_ERROR,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.store.triggered() => {}
            () = self.more.notified() => {}
        }
    }
}

/// Turns the vendor's page into rows, and judges what follows it.
fn read_page(lease: &PageLease, page: Page) -> PageToCommit {
    let queue = lease.feed.queue;
    let entries = page.documents.len();
    let mut documents = Vec::with_capacity(entries);
    let mut unreadable = Vec::new();
    let mut companies = Vec::new();
    let mut uploads = Vec::new();
    let mut links = Vec::new();
    for body in page.documents {
        if queue == Queue::Digitized {
            companies.extend(ivesk::document::companies(&body));
        }
        match ivesk::document::read(queue, &body) {
            Ok(document) => {
                let correlation = ivesk::document::upload(&document.body);
                uploads.extend(correlation.map(|correlation| UploadReturn {
                    correlation,
                    document_id: document.id.clone(),
                }));
                links.extend(ivesk::document::link(&document.body).map(|url| FreshLink {
                    document_id: document.id.clone(),
                    version: document.version.clone(),
                    url,
                }));
                documents.push(document);
            }
            Err(reason) => {
                warn!(feed = %lease.feed, "an entry of `{}` was set aside: {reason}", lease.feed);
                unreadable.push(UnreadableEntry {
                    dedup_key: ivesk::document::dedup_key(&body),
                    body,
                });
            }
        }
    }
    companies.sort();
    companies.dedup();
    let step = paging::next_step(&lease.position, entries, &documents, page.next);
    PageToCommit {
        documents,
        unreadable,
        cursor: step.cursor,
        next_from: step.next_from,
        end: step.end,
        companies,
        gap: step.gap,
        uploads,
        links,
    }
}

fn report(feed: &Feed, kind: TriggerKind, committed: PageCommitted, gap: bool) {
    let PageCommitted {
        new,
        known,
        up_to_date,
        missed_notifications,
    } = committed;
    let kind = kind.as_str();
    if new > 0 {
        info!(%feed, kind, new, known, up_to_date, "stored {new} new document versions of `{feed}`");
    } else {
        debug!(%feed, kind, known, up_to_date, "nothing new in `{feed}`");
    }
    if missed_notifications > 0 {
        warn!(%feed, missed_notifications, "{missed_notifications} documents of `{feed}` came without a webhook; see `ivesk-webhook subscriptions list`");
    }
    if gap {
        error!(
            %feed,
            "the cursor of `{feed}` is stuck: Įvesk.lt's `next` did not pass a group of documents with one timestamp, \
             so some of them may be missing; ask Įvesk.lt how to page past them"
        );
    }
}

/// Pulls with [`Puller::workers`] at once until `shutdown`; pages under way are
/// finished first.
pub async fn run(puller: Arc<Puller>, shutdown: CancellationToken) {
    let tracker = TaskTracker::new();
    for _ in 0..puller.workers() {
        tracker.spawn(work(Arc::clone(&puller), shutdown.clone()));
    }
    tracker.close();
    tracker.wait().await;
}

async fn work(puller: Arc<Puller>, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        match puller.pull_page().await {
            Ok(Pulled::Nothing) => {
                shutdown.run_until_cancelled(puller.idle()).await;
            }
            Ok(Pulled::Page { .. } | Pulled::Failed { .. } | Pulled::Stale { .. }) => {}
            Err(error) => {
                error!(%error, "pulling pauses for {AFTER_STORE_ERROR:?}: {error}");
                shutdown
                    .run_until_cancelled(tokio::time::sleep(AFTER_STORE_ERROR))
                    .await;
            }
        }
    }
}
