//! The worker of one destination: what it asks of the store, and the attempt to deliver a document.

use std::time::Duration;

use tracing::{Span, debug, debug_span, error, info, warn};

use super::destination::{Destination, DestinationResponse};
use super::filter;
use super::texts;
use crate::config::{Config, DestinationConfig, HistoryMode, ImportErrorsConfig};
use crate::domain::{Clock, Company, DestinationName, Feed};
use crate::ivesk::Entry;
use crate::store::{
    Attempt, Delivery, DeliveryLeaseRequest, DeliveryOutcome, DestinationFilter, LanePlan,
    NewImportError, SharedStore,
};

/// Returns the filter that a destination's settings describe.
pub fn filter_of(config: &DestinationConfig) -> DestinationFilter {
    DestinationFilter {
        queue: config.queue,
        accounts: config.accounts.clone(),
        companies: config.companies.clone(),
    }
}

/// Returns how a destination's lanes are made.
pub fn lane_plan(config: &DestinationConfig, lookback: Duration) -> LanePlan {
    LanePlan {
        filter: filter_of(config),
        deliver_history: config.history == HistoryMode::Deliver,
        lookback,
    }
}

/// Returns the configured destinations with their filters.
pub fn configured_destinations(config: &Config) -> Vec<(DestinationName, DestinationFilter)> {
    let destinations = config.destinations.iter();
    destinations
        .map(|(name, destination)| (name.clone(), filter_of(destination)))
        .collect()
}

/// Delivers documents to one destination.
pub struct DestinationWorker {
    pub(super) name: DestinationName,
    config: DestinationConfig,
    /// `None` if a program fetches the documents itself.
    destination: Option<Box<dyn Destination>>,
    import_errors: ImportErrorsConfig,
    pub(super) store: SharedStore,
    pub(super) clock: Clock,
    /// How much longer than a document's timeout a lease is.
    pub(super) lease_margin: Duration,
    lookback: Duration,
}

impl DestinationWorker {
    /// Creates a worker for the destination `name`.
    ///
    /// `destination` is `None` if a program fetches the documents itself: the worker then
    /// appends them to its list. A destination waits at most `pull.lease` beyond its timeout for a
    /// replica that died.
    pub fn new(
        name: DestinationName,
        config: DestinationConfig,
        destination: Option<Box<dyn Destination>>,
        settings: &Config,
        store: SharedStore,
        clock: Clock,
    ) -> Self {
        Self {
            name,
            config,
            destination,
            import_errors: settings.import_errors.clone(),
            store,
            clock,
            lease_margin: settings.pull.lease,
            lookback: settings.pull.lookback,
        }
    }

    /// Returns a request for at most so many versions, with so many bytes of JSON.
    pub(super) fn request(&self, limit: usize, limit_bytes: usize) -> DeliveryLeaseRequest {
        DeliveryLeaseRequest {
            destination: self.name.clone(),
            lanes: lane_plan(&self.config, self.lookback),
            now: self.clock.now(),
            lease: self.lease(),
            limit,
            limit_bytes,
            earlier_notes: self
                .destination
                .as_ref()
                .is_some_and(|one| one.leaves_notes()),
        }
    }

    /// Returns the number of deliveries that may be in flight at once.
    pub(super) fn places(&self) -> usize {
        self.config.max_concurrency.max(1)
    }

    /// Returns the length of a lease. It is renewed at least after each document, so it must
    /// outlast one.
    fn lease(&self) -> Duration {
        self.config.timeout + self.lease_margin
    }

    pub(super) fn span(&self, delivery: &Delivery) -> Span {
        debug_span!(
            "delivery",
            destination = %self.name,
            feed = %delivery.feed,
            document.id = %delivery.document_id,
            sequence = delivery.sequence,
        )
    }

    /// Delivers one document.
    pub(super) async fn attempt(&self, delivery: Delivery) -> Attempt {
        let (sequence, began_at) = (delivery.sequence, self.clock.now());
        let outcome = if let Some(reason) = filter::exclusion(&self.config, &delivery) {
            DeliveryOutcome::Filtered { reason }
        } else if let Some(destination) = &self.destination {
            match destination.deliver(&delivery).await {
                DestinationResponse::Accepted { note } => DeliveryOutcome::Delivered { note },
                DestinationResponse::Rejected { message } => {
                    let (message, import_error) = rejection(
                        &self.import_errors,
                        &delivery.feed,
                        &delivery.body,
                        &message,
                    );
                    DeliveryOutcome::Rejected {
                        message,
                        import_error,
                    }
                }
                DestinationResponse::LinkExpired => DeliveryOutcome::LinkExpired,
                DestinationResponse::Unavailable { error, retry_after } => {
                    DeliveryOutcome::Unavailable { error, retry_after }
                }
                DestinationResponse::Closed { error } => DeliveryOutcome::Closed { error },
            }
        } else {
            DeliveryOutcome::Listed
        };
        self.log(&delivery, &outcome);
        Attempt {
            sequence,
            began_at,
            outcome,
        }
    }

    fn log(&self, delivery: &Delivery, outcome: &DeliveryOutcome) {
        let Delivery {
            document_id,
            sequence,
            feed,
            ..
        } = delivery;
        let destination = &self.name;
        match outcome {
            DeliveryOutcome::Delivered { .. } => {
                info!(%destination, %feed, document_id, sequence, "destination `{destination}` accepted document `{document_id}` of `{feed}`");
            }
            DeliveryOutcome::Rejected { message, .. } => {
                warn!(%destination, %feed, document_id, sequence, "destination `{destination}` rejected document `{document_id}` of `{feed}`: {message}");
            }
            DeliveryOutcome::Listed => {
                debug!(%destination, %feed, document_id, sequence, "listed document `{document_id}` of `{feed}` for destination `{destination}`");
            }
            DeliveryOutcome::Filtered { reason } => {
                debug!(%destination, %feed, document_id, sequence, "skipped document `{document_id}` of `{feed}` at destination `{destination}`: {reason}");
            }
            DeliveryOutcome::LinkExpired => {
                info!(%destination, %feed, document_id, sequence, "the link to the file of document `{document_id}` has expired; `{feed}` is pulled again for a new one");
            }
            DeliveryOutcome::Unavailable { error, .. } => {
                warn!(%destination, %feed, document_id, sequence, "destination `{destination}` did not accept document `{document_id}` of `{feed}`; it is retried: {error}");
            }
            DeliveryOutcome::Closed { error } => {
                error!(%destination, %feed, document_id, sequence, "destination `{destination}` is closed; delivery paused at document {sequence}: {error}. Fix: run `ivesk-webhook destinations resume {destination}` once the destination accepts documents again");
            }
        }
    }
}

/// Returns the message to store for a rejected document of `feed`, and the import error to
/// send to the accountant.
pub fn rejection(
    import_errors: &ImportErrorsConfig,
    feed: &Feed,
    body: &[u8],
    message: &str,
) -> (String, NewImportError) {
    let import_error = NewImportError {
        company: company(feed, body),
        message: texts::import_error(import_errors, message),
    };
    (texts::sanitize(message), import_error)
}

/// Returns the company that a document belongs to.
fn company(feed: &Feed, body: &[u8]) -> Option<Company> {
    if !feed.mixes_companies() {
        return Some(feed.company.clone());
    }
    Entry::parse(body)?.companies().into_iter().next()
}
