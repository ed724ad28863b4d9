//! Delivering documents: the trait's methods.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{SqliteStore, deliveries, destinations, import_errors};
use crate::domain::{Account, DestinationName, Timestamp};
use crate::store::{
    Attempt, DeliveryFilter, DeliveryLease, DeliveryLeaseRequest, DeliveryLeased, DeliveryOutcome,
    DeliveryRow, DeliveryStore, DestinationChange, DestinationFilter, DestinationRow, HeldFeed,
    ImportErrorFilter, ImportErrorLease, ImportErrorOutcome, ImportErrorRow, LateOutcome,
    LeaseAction, Listed, StoreError,
};

#[async_trait]
impl DeliveryStore for SqliteStore {
    fn arrivals(&self) -> watch::Receiver<()> {
        self.arrivals.subscribe()
    }

    async fn register_destinations(
        &self,
        destinations: Vec<(DestinationName, DestinationFilter)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.change(move |connection| destinations::register_feeds(connection, &destinations, now))
            .await
    }

    async fn lease_deliveries(
        &self,
        request: DeliveryLeaseRequest,
    ) -> Result<DeliveryLeased, StoreError> {
        self.change(move |connection| deliveries::lease(connection, &request))
            .await
    }

    async fn settle_deliveries(
        &self,
        lease: DeliveryLease,
        settled: Vec<Attempt>,
        afterwards: LeaseAction,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let pulls = settled
            .iter()
            .any(|one| matches!(one.outcome, DeliveryOutcome::LinkExpired));
        let rejected = settled
            .iter()
            .any(|one| matches!(one.outcome, DeliveryOutcome::Rejected { .. }));
        let holds = self
            .write(move |transaction, path| {
                deliveries::settle(transaction, path, &lease, &settled, &afterwards, now)
            })
            .await?;
        if pulls {
            self.trigger.notify_one();
        }
        if rejected {
            self.arrivals.send_replace(());
        }
        Ok(holds)
    }

    async fn change_destination(
        &self,
        destination: DestinationName,
        change: DestinationChange,
        now: Timestamp,
    ) -> Result<Option<usize>, StoreError> {
        let changed = self
            .change(move |connection| destinations::change(connection, &destination, &change, now))
            .await?;
        self.arrivals.send_replace(());
        Ok(changed)
    }

    async fn record_outcome(
        &self,
        destination: DestinationName,
        sequence: i64,
        verdict: LateOutcome,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let recorded = self
            .change(move |connection| {
                deliveries::record_outcome(
                    connection,
                    destination.as_str(),
                    sequence,
                    &verdict,
                    now,
                )
            })
            .await?;
        self.arrivals.send_replace(());
        Ok(recorded)
    }

    async fn destinations(&self) -> Result<Vec<DestinationRow>, StoreError> {
        self.read(|connection| destinations::list(connection)).await
    }

    async fn held_feeds(
        &self,
        destination: DestinationName,
        filter: DestinationFilter,
    ) -> Result<Vec<HeldFeed>, StoreError> {
        self.read(move |connection| destinations::held_feeds(connection, &destination, &filter))
            .await
    }

    async fn deliveries(&self, filter: DeliveryFilter) -> Result<Vec<DeliveryRow>, StoreError> {
        self.read(move |connection| destinations::deliveries(connection, &filter))
            .await
    }

    async fn listed(
        &self,
        destination: DestinationName,
        after: i64,
        limit: usize,
        most_bytes: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        self.read(move |connection| {
            destinations::listed(connection, &destination, after, limit, most_bytes)
        })
        .await
    }

    async fn lease_import_error(
        &self,
        accounts: Vec<Account>,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<ImportErrorLease>, StoreError> {
        self.change(move |connection| import_errors::lease(connection, &accounts, now, lease))
            .await
    }

    async fn end_import_error(
        &self,
        lease: ImportErrorLease,
        end: ImportErrorOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(move |transaction, path| {
            import_errors::end(transaction, path, &lease, &end, now)
        })
        .await
    }

    async fn retry_import_error(&self, id: i64, now: Timestamp) -> Result<bool, StoreError> {
        let found = self
            .change(move |connection| import_errors::retry(connection, id, now))
            .await?;
        self.arrivals.send_replace(());
        Ok(found)
    }

    async fn import_errors(
        &self,
        filter: ImportErrorFilter,
    ) -> Result<Vec<ImportErrorRow>, StoreError> {
        self.read(move |connection| import_errors::list(connection, &filter))
            .await
    }
}
