//! Import errors on their way to the vendor's accountant: an outbox, emptied one by one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::Config;
use crate::domain::{Account, Clock};
use crate::egress;
use crate::ivesk::{ApiError, Client, Observer};
use crate::store::{ReportEnd, ReportLease, SharedStore, StoreError};

/// What a lease holds beyond the request's own time limit.
const LEASE_MARGIN: Duration = Duration::from_secs(60);

/// The wait after a first failure, and the longest one.
const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// How often the rows are looked at where nothing wakes the worker.
const IDLE: Duration = Duration::from_secs(10);

/// The pause after the store failed.
const AFTER_STORE_ERROR: Duration = Duration::from_secs(5);

/// What one step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reported {
    /// The vendor has it.
    Sent,
    /// The vendor does not want it.
    Refused {
        /// Why; nothing secret.
        error: String,
    },
    /// It is tried again later.
    Failed {
        /// Why; nothing secret.
        error: String,
    },
    /// Another worker took it over.
    Stale,
    /// Nothing is due.
    Nothing,
}

/// Sends import error reports.
pub struct Reporter {
    store: SharedStore,
    clients: BTreeMap<Account, Client>,
    lease: Duration,
    clock: Clock,
}

impl Reporter {
    /// A reporter for the accounts that have a key; `None` where `api.error_report_path`
    /// is not set: reports wait then. `observer` is told of every request.
    ///
    /// # Errors
    ///
    /// Where a key can't stand in a header, or the machine offers no TLS.
    pub fn new(
        config: &Config,
        store: SharedStore,
        clock: Clock,
        observer: Arc<dyn Observer>,
    ) -> Result<Option<Self>, ApiError> {
        if config.api.error_report_path.is_none() {
            return Ok(None);
        }
        let mut clients = BTreeMap::new();
        for (account, settings) in &config.accounts {
            if let Some(key) = &settings.api_key {
                let client = Client::new(&config.api, key.clone())?
                    .with_clock(clock.clone())
                    .observed_by(Arc::clone(&observer));
                clients.insert(account.clone(), client);
            }
        }
        Ok(Some(Self {
            store,
            clients,
            lease: config.api.timeout + LEASE_MARGIN,
            clock,
        }))
    }

    /// Sends the report that has waited longest.
    ///
    /// # Errors
    ///
    /// Only the store's; the vendor's are noted in the row.
    pub async fn step(&self) -> Result<Reported, StoreError> {
        let accounts = self.clients.keys().cloned().collect();
        let leased = self
            .store
            .lease_report(accounts, self.clock.now(), self.lease)
            .await?;
        let Some(lease) = leased else {
            return Ok(Reported::Nothing);
        };
        let (Some(client), Some(company)) =
            (self.clients.get(&lease.row.account), &lease.row.company)
        else {
            return Ok(Reported::Nothing);
        };
        let row = &lease.row;
        let sent = client.report_error(&row.document_id, company, &row.message);
        let end = match sent.await {
            Ok(()) => ReportEnd::Sent,
            Err(error) => self.judge(&lease, &error),
        };
        tell(&lease, &end);
        let reported = match &end {
            ReportEnd::Sent => Reported::Sent,
            ReportEnd::Failed { error, .. } => Reported::Failed {
                error: error.clone(),
            },
            ReportEnd::Refused { error } => Reported::Refused {
                error: error.clone(),
            },
        };
        match self.store.end_report(lease, end, self.clock.now()).await {
            Ok(()) => Ok(reported),
            Err(StoreError::StaleLease) => Ok(Reported::Stale),
            Err(error) => Err(error),
        }
    }

    /// Tried again is what may have been lost on the way, and what waits for a setting or
    /// a key to be mended; the rest the vendor would refuse again.
    fn judge(&self, lease: &ReportLease, error: &ApiError) -> ReportEnd {
        let wait = match error {
            ApiError::Status {
                status: 408 | 429 | 500..,
                retry_after,
                ..
            } => Some(retry_after.unwrap_or_default()),
            ApiError::Status {
                status: 401 | 403, ..
            } => Some(LONGEST_WAIT),
            ApiError::Status { .. } => None,
            ApiError::Unreachable(_) | ApiError::NotConfigured { .. } => Some(Duration::ZERO),
            // It was taken; what the answer says does not matter.
            ApiError::TooLarge { .. } => return ReportEnd::Sent,
            ApiError::Malformed(_) => None,
        };
        let error = error.to_string();
        let Some(wait) = wait else {
            return ReportEnd::Refused { error };
        };
        let failures = lease.row.attempts.saturating_sub(1);
        let backoff = egress::backoff(FIRST_WAIT, LONGEST_WAIT, failures, egress::jitter());
        let now = self.clock.now();
        ReportEnd::Failed {
            error,
            next_try_at: now.after(wait.max(backoff)),
            others_wait_until: now.after(wait.max(FIRST_WAIT)),
        }
    }
}

fn tell(lease: &ReportLease, end: &ReportEnd) {
    let row = &lease.row;
    let (id, document_id, sequence) = (row.id, &row.document_id, row.sequence);
    match end {
        ReportEnd::Sent => {
            info!(
                id,
                document_id,
                sequence,
                "the import error of document `{document_id}` is reported to Įvesk.lt"
            );
        }
        ReportEnd::Failed {
            error, next_try_at, ..
        } => {
            warn!(
                id,
                document_id,
                sequence,
                "the import error of document `{document_id}` could not be reported: {error}; next try at {next_try_at}"
            );
        }
        ReportEnd::Refused { error } => {
            error!(
                id,
                document_id,
                sequence,
                "Įvesk.lt does not take the import error of document `{document_id}`: {error}. `ivesk-webhook report retry {id}` tries again"
            );
        }
    }
}

/// Sends reports until `shutdown`; one under way is finished first.
pub async fn run(reporter: Arc<Reporter>, shutdown: CancellationToken) {
    let mut arrivals = reporter.store.arrivals();
    while !shutdown.is_cancelled() {
        let pause = match reporter.step().await {
            Ok(Reported::Nothing) => IDLE,
            Ok(_) => continue,
            Err(error) => {
                error!(%error, "reporting import errors pauses for {AFTER_STORE_ERROR:?}: {error}");
                AFTER_STORE_ERROR
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = arrivals.changed() => {}
            () = shutdown.cancelled() => {}
        }
    }
}
