//! What every room shares.

use std::sync::Arc;

use async_trait::async_trait;
use tracing::warn;

use crate::config::Config;
use crate::domain::Clock;
use crate::metrics::Metrics;
use crate::receiver::health::Health;
use crate::receiver::ingest::{Ingest, Parts};
use crate::sns::{CertificateShelf, Confirmer, Verifier};
use crate::store::{CertificateRow, SharedStore};
use crate::subscriptions::Confirmations;

/// An HTTPS client can't be set up.
#[derive(Debug, thiserror::Error)]
#[error("the HTTPS client can't be set up: {0}")]
pub struct ClientError(#[from] reqwest::Error);

/// What every room shares.
pub struct App {
    /// The settings.
    pub config: Config,
    /// What is kept.
    pub store: SharedStore,
    /// The way of messages.
    pub ingest: Arc<Ingest>,
    /// The way of subscriptions.
    pub confirmations: Arc<Confirmations>,
    /// Whether messages are taken.
    pub health: Arc<Health>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
}

impl App {
    /// Puts the rooms together; nothing runs yet.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn assemble(
        config: Config,
        store: SharedStore,
        clock: Clock,
    ) -> Result<Arc<Self>, ClientError> {
        // Replicas that share a store must agree on the time.
        let clock = store.clock().unwrap_or(clock);
        let metrics = Arc::new(Metrics::new());
        let health = Arc::new(Health::default());
        let shelf = Arc::new(StoreShelf {
            store: Arc::clone(&store),
            clock: clock.clone(),
        });
        let verifier = Arc::new(Verifier::new(&config.sns, shelf, clock.clone())?);
        let confirmations = Arc::new(Confirmations::new(
            Arc::clone(&store),
            Confirmer::new(&config.sns)?,
            Arc::clone(&metrics),
            clock.clone(),
        ));
        let ingest = Arc::new(Ingest::new(
            &config,
            Parts {
                verifier,
                store: Arc::clone(&store),
                confirmations: Arc::clone(&confirmations),
                health: Arc::clone(&health),
                metrics: Arc::clone(&metrics),
                clock: clock.clone(),
            },
        ));
        Ok(Arc::new(Self {
            config,
            store,
            ingest,
            confirmations,
            health,
            metrics,
            clock,
        }))
    }
}

/// The store as the place where good certificates are kept.
struct StoreShelf {
    store: SharedStore,
    clock: Clock,
}

#[async_trait]
impl CertificateShelf for StoreShelf {
    async fn load(&self) -> Vec<(String, Vec<u8>)> {
        match self.store.certificates().await {
            Ok(rows) => rows.into_iter().map(|row| (row.url, row.pem)).collect(),
            Err(error) => {
                warn!("kept certificates could not be read and will be fetched anew: {error}");
                Vec::new()
            }
        }
    }

    async fn keep(&self, url: &str, pem: &[u8]) {
        let row = CertificateRow {
            url: url.to_owned(),
            pem: pem.to_vec(),
            fetched_at: self.clock.now(),
        };
        if let Err(error) = self.store.keep_certificate(row).await {
            warn!("a certificate could not be kept and will be fetched anew: {error}");
        }
    }
}
