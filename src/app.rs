//! The handles that the service, the admin listener and subcommands share.

use std::sync::Arc;

use async_trait::async_trait;
use tracing::warn;

use crate::config::Config;
use crate::domain::Clock;
use crate::egress::SetupError;
use crate::metrics::Metrics;
use crate::receiver::health::Health;
use crate::receiver::ingest::{Ingest, Parts};
use crate::sns::{CertificateStore, Confirmer, Verifier};
use crate::store::{CertificateRow, SharedStore};
use crate::subscriptions::Confirmations;
use crate::subscriptions::topics::ApprovedTopics;

/// The handles that the service, the admin listener and subcommands share.
pub struct App {
    /// The settings.
    pub config: Config,
    /// The store.
    pub store: SharedStore,
    /// Accepts messages.
    pub ingest: Arc<Ingest>,
    /// Verifies messages.
    pub verifier: Arc<Verifier>,
    /// Topics that a person approved.
    pub topics: Arc<ApprovedTopics>,
    /// Confirms subscriptions.
    pub confirmations: Arc<Confirmations>,
    /// Refuses messages while the service stops or the disk is nearly full.
    pub health: Arc<Health>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: Clock,
}

impl App {
    /// Creates the handles; nothing runs yet.
    ///
    /// # Errors
    ///
    /// If an HTTPS client can't be set up.
    pub fn assemble(
        config: Config,
        store: SharedStore,
        clock: Clock,
    ) -> Result<Arc<Self>, SetupError> {
        // Replicas that share a store must agree on the time.
        let clock = store.clock().unwrap_or(clock);
        let metrics = Arc::new(Metrics::new());
        let health = Arc::new(Health::default());
        let sns = config.sns.settings();
        let certificates = Arc::new(StoredCertificates {
            store: Arc::clone(&store),
            clock: clock.clone(),
        });
        let verifier = Arc::new(Verifier::new(&sns, certificates, clock.clone())?);
        let topics = Arc::new(ApprovedTopics::new(Arc::clone(&store), sns.known.clone()));
        let confirmations = Arc::new(Confirmations::new(
            Arc::clone(&store),
            Confirmer::new(&sns)?,
            Arc::clone(&topics),
            Arc::clone(&metrics),
            clock.clone(),
        ));
        let ingest = Arc::new(Ingest::new(
            &config,
            Parts {
                verifier: Arc::clone(&verifier),
                store: Arc::clone(&store),
                topics: Arc::clone(&topics),
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
            verifier,
            topics,
            confirmations,
            health,
            metrics,
            clock,
        }))
    }
}

/// Signing certificates in the store.
struct StoredCertificates {
    store: SharedStore,
    clock: Clock,
}

#[async_trait]
impl CertificateStore for StoredCertificates {
    async fn load(&self) -> Vec<(String, Vec<u8>)> {
        match self.store.certificates().await {
            Ok(rows) => rows.into_iter().map(|row| (row.url, row.pem)).collect(),
            Err(error) => {
                warn!(
                    "failed to read the stored certificates, which will be fetched again: {error}"
                );
                Vec::new()
            }
        }
    }

    async fn save(&self, url: &str, pem: &[u8]) {
        let row = CertificateRow {
            url: url.to_owned(),
            pem: pem.to_vec(),
            fetched_at: self.clock.now(),
        };
        if let Err(error) = self.store.keep_certificate(row).await {
            warn!("failed to store a certificate, which will be fetched again: {error}");
        }
    }
}
