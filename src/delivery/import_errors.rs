//! Sends import errors to the vendor's accountant from an outbox, one at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::backoff;
use crate::config::Config;
use crate::domain::{Account, Clock};
use crate::ivesk::{ApiError, Client, Observer};
use crate::store::{
    ImportErrorEnd, ImportErrorLease, ImportErrorLeased, ImportErrorOutcome, SharedStore,
    StoreError,
};

/// Time that a lease holds beyond the request's timeout.
const LEASE_MARGIN: Duration = Duration::from_secs(60);

/// Longest time between two reads of the rows.
const MAX_IDLE: Duration = Duration::from_secs(10);

/// Pause after a store error.
const STORE_ERROR_DELAY: Duration = Duration::from_secs(5);

/// The result of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// The vendor accepted the import error.
    Sent,
    /// The vendor refused the import error; it is not retried.
    Refused {
        /// The error. Contains no secrets.
        error: String,
    },
    /// Sending failed and is retried later.
    Failed {
        /// The error. Contains no secrets.
        error: String,
    },
    /// Sending is paused, as the vendor answered 404.
    Paused {
        /// The error. Contains no secrets.
        error: String,
    },
    /// It was not sent: the document is no longer rejected.
    Withdrawn,
    /// Another worker took over the lease.
    Stale,
    /// Nothing is due.
    Nothing,
}

/// Sends import errors.
pub struct ImportErrorSender {
    store: SharedStore,
    clients: BTreeMap<Account, Client>,
    path: String,
    lease: Duration,
    clock: Clock,
    /// What the vendor has accepted and the store could not record: it is recorded before anything
    /// else is sent, and not sent again.
    unrecorded: Mutex<Option<ImportErrorLease>>,
}

impl ImportErrorSender {
    /// Creates a sender for the accounts that have an API key; `observer` receives every
    /// request.
    ///
    /// Returns `None` if `api.import_error_path` is not set: import errors then wait.
    ///
    /// # Errors
    ///
    /// Fails if a key is not valid in a header, or the machine has no TLS roots.
    pub fn new(
        config: &Config,
        store: SharedStore,
        clock: Clock,
        observer: Arc<dyn Observer>,
    ) -> Result<Option<Self>, ApiError> {
        let Some(path) = config.api.import_error_path.clone() else {
            return Ok(None);
        };
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
            path,
            lease: config.api.timeout + LEASE_MARGIN,
            clock,
            unrecorded: Mutex::new(None),
        }))
    }

    /// Sends the oldest import error that is due.
    ///
    /// # Errors
    ///
    /// Fails only if the store does; the vendor's errors are stored in the row.
    pub async fn step(&self) -> Result<SendOutcome, StoreError> {
        let accepted = self.lock_unrecorded().clone();
        if let Some(lease) = accepted {
            self.record(lease, ImportErrorOutcome::Sent).await?;
            return Ok(SendOutcome::Sent);
        }
        let accounts = self.clients.keys().cloned().collect();
        let leased = self
            .store
            .lease_import_error(accounts, self.clock.now(), self.lease)
            .await?;
        let lease = match leased {
            ImportErrorLeased::Lease(lease) => lease,
            ImportErrorLeased::Withdrawn(row) => {
                let (id, document_id, sequence) = (row.id, &row.document_id, row.sequence);
                info!(
                    id,
                    document_id,
                    sequence,
                    "did not send the import error of document `{document_id}`: it is no longer rejected"
                );
                return Ok(SendOutcome::Withdrawn);
            }
            ImportErrorLeased::Nothing => return Ok(SendOutcome::Nothing),
        };
        let (Some(client), Some(company)) =
            (self.clients.get(&lease.row.account), &lease.row.company)
        else {
            return Ok(SendOutcome::Nothing);
        };
        let row = &lease.row;
        let sent = client.send_import_error(&row.document_id, company, &row.message);
        let outcome = match sent.await {
            Ok(()) => ImportErrorOutcome::Sent,
            Err(error) => self.classify(&lease, &error),
        };
        if matches!(outcome, ImportErrorOutcome::Sent) {
            *self.lock_unrecorded() = Some(lease.clone());
        }
        match self.record(lease, outcome).await {
            Ok(outcome) => Ok(outcome),
            Err(StoreError::StaleLease) => Ok(SendOutcome::Stale),
            Err(error) => Err(error),
        }
    }

    fn lock_unrecorded(&self) -> std::sync::MutexGuard<'_, Option<ImportErrorLease>> {
        self.unrecorded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the result of sending an import error, and logs it.
    async fn record(
        &self,
        lease: ImportErrorLease,
        outcome: ImportErrorOutcome,
    ) -> Result<SendOutcome, StoreError> {
        let ended = self
            .store
            .end_import_error(
                lease.clone(),
                self.path.clone(),
                outcome.clone(),
                self.clock.now(),
            )
            .await?;
        self.lock_unrecorded().take();
        log(&lease, &outcome, ended);
        Ok(match outcome {
            ImportErrorOutcome::Sent => SendOutcome::Sent,
            ImportErrorOutcome::Failed { error, .. } => SendOutcome::Failed { error },
            ImportErrorOutcome::NotFound { error, .. } if ended == ImportErrorEnd::PathPaused => {
                SendOutcome::Paused { error }
            }
            ImportErrorOutcome::Refused { error } | ImportErrorOutcome::NotFound { error, .. } => {
                SendOutcome::Refused { error }
            }
        })
    }

    /// Retries what may have been lost on the way and what a setting or a key can fix; the
    /// vendor would refuse anything else again.
    fn classify(&self, lease: &ImportErrorLease, error: &ApiError) -> ImportErrorOutcome {
        let wait = match error {
            ApiError::Status {
                status: 408 | 429 | 500..,
                retry_after,
                ..
            } => Some(retry_after.unwrap_or_default()),
            ApiError::Status {
                status: 401 | 403, ..
            } => Some(backoff::IMPORT_ERROR.longest),
            // The path is a guess, or nearly: Įvesk.lt does not publish it.
            ApiError::Status { status: 404, .. } => {
                return ImportErrorOutcome::NotFound {
                    error: error.to_string(),
                    retry_at: self.clock.now().after(backoff::PAUSED),
                };
            }
            ApiError::Status { .. } => None,
            ApiError::Unreachable(_) | ApiError::NotConfigured { .. } => Some(Duration::ZERO),
            // The status was a success; the body does not matter.
            ApiError::TooLarge { .. } | ApiError::Compressed(_) => {
                return ImportErrorOutcome::Sent;
            }
            ApiError::Malformed(_) => None,
        };
        let error = error.to_string();
        let Some(wait) = wait else {
            return ImportErrorOutcome::Refused { error };
        };
        let failures = lease.row.attempts.saturating_sub(1);
        let backoff = backoff::IMPORT_ERROR.delay(failures, backoff::jitter());
        let now = self.clock.now();
        ImportErrorOutcome::Failed {
            error,
            next_try_at: now.after(wait.max(backoff)),
            others_wait_until: now.after(wait.max(backoff::IMPORT_ERROR.first)),
        }
    }
}

fn log(lease: &ImportErrorLease, outcome: &ImportErrorOutcome, ended: ImportErrorEnd) {
    let row = &lease.row;
    let (id, document_id, sequence) = (row.id, &row.document_id, row.sequence);
    match outcome {
        ImportErrorOutcome::Sent => {
            info!(
                id,
                document_id,
                sequence,
                "sent the import error of document `{document_id}` to Įvesk.lt"
            );
        }
        ImportErrorOutcome::Failed {
            error, next_try_at, ..
        } => {
            warn!(
                id,
                document_id,
                sequence,
                "failed to send the import error of document `{document_id}` to Įvesk.lt; next attempt at {next_try_at}: {error}"
            );
        }
        ImportErrorOutcome::NotFound { error, retry_at } if ended == ImportErrorEnd::PathPaused => {
            error!(
                id,
                document_id,
                sequence,
                "import errors are paused, one is tried again at {retry_at}: Įvesk.lt does not find `api.import_error_path`: {error}. Fix: correct it and restart, or run `ivesk-webhook import-errors retry --all`"
            );
        }
        ImportErrorOutcome::Refused { error } | ImportErrorOutcome::NotFound { error, .. } => {
            error!(
                id,
                document_id,
                sequence,
                "Įvesk.lt refused the import error of document `{document_id}`: {error}. Fix: correct the cause, then run `ivesk-webhook import-errors retry {id}`, or `ivesk-webhook import-errors discard {id}`"
            );
        }
    }
}

/// Sends import errors until `shutdown`; one in flight is finished first.
pub async fn run(sender: Arc<ImportErrorSender>, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        let pause = match sender.step().await {
            Ok(SendOutcome::Nothing) => MAX_IDLE,
            Ok(_) => continue,
            Err(error) => {
                error!(%error, "sending import errors failed on a store error; retrying in {STORE_ERROR_DELAY:?}: {error}");
                STORE_ERROR_DELAY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = sender.store.import_error_due() => {}
            () = shutdown.cancelled() => {}
        }
    }
}
