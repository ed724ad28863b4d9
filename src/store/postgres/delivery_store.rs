//! Delivering documents: the trait's methods.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{PostgresStore, deliveries, destinations, import_errors};
use crate::domain::{Account, DestinationName, Timestamp};
use crate::store::{
    Attempt, DeliveryFilter, DeliveryLease, DeliveryLeaseRequest, DeliveryLeased, DeliveryOutcome,
    DeliveryRow, DeliveryStore, DestinationChange, DestinationFilter, DestinationRow, HeldFeed,
    ImportErrorFilter, ImportErrorLease, ImportErrorOutcome, ImportErrorRow, LateOutcome,
    LeaseAction, Listed, StoreError,
};

#[async_trait]
impl DeliveryStore for PostgresStore {
    fn arrivals(&self) -> watch::Receiver<()> {
        self.arrivals.subscribe()
    }

    async fn register_destinations(
        &self,
        destinations: Vec<(DestinationName, DestinationFilter)>,
        _now: Timestamp,
    ) -> Result<(), StoreError> {
        in_writing!(self, destinations::register_feeds(&destinations));
        Ok(())
    }

    async fn lease_deliveries(
        &self,
        request: DeliveryLeaseRequest,
    ) -> Result<DeliveryLeased, StoreError> {
        self.may_write()?;
        deliveries::lease(&self.pool, &request).await
    }

    async fn settle_deliveries(
        &self,
        lease: DeliveryLease,
        settled: Vec<Attempt>,
        afterwards: LeaseAction,
        _now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.may_write()?;
        let holds = deliveries::settle(&self.pool, &lease, &settled, &afterwards).await?;
        let pulls = |one: &Attempt| matches!(one.outcome, DeliveryOutcome::LinkExpired);
        let rejected = settled
            .iter()
            .any(|one| matches!(one.outcome, DeliveryOutcome::Rejected { .. }));
        if settled.iter().any(pulls) {
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
        _now: Timestamp,
    ) -> Result<Option<usize>, StoreError> {
        let changed = in_writing!(self, destinations::change(&destination, &change));
        self.arrivals.send_replace(());
        Ok(changed)
    }

    async fn record_outcome(
        &self,
        destination: DestinationName,
        sequence: i64,
        verdict: LateOutcome,
        _now: Timestamp,
    ) -> Result<bool, StoreError> {
        let recorded = in_writing!(
            self,
            deliveries::record_outcome(destination.as_str(), sequence, &verdict)
        );
        self.arrivals.send_replace(());
        Ok(recorded)
    }

    async fn destinations(&self) -> Result<Vec<DestinationRow>, StoreError> {
        in_reading!(self, destinations::list())
    }

    async fn held_feeds(
        &self,
        destination: DestinationName,
        filter: DestinationFilter,
    ) -> Result<Vec<HeldFeed>, StoreError> {
        in_reading!(self, destinations::held_feeds(&destination, &filter))
    }

    async fn deliveries(&self, filter: DeliveryFilter) -> Result<Vec<DeliveryRow>, StoreError> {
        in_reading!(self, destinations::deliveries(&filter))
    }

    async fn listed(
        &self,
        destination: DestinationName,
        after: i64,
        limit: usize,
        most_bytes: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        in_reading!(
            self,
            destinations::listed(&destination, after, limit, most_bytes)
        )
    }

    async fn lease_import_error(
        &self,
        accounts: Vec<Account>,
        _now: Timestamp,
        lease: Duration,
    ) -> Result<Option<ImportErrorLease>, StoreError> {
        Ok(in_writing!(self, import_errors::lease(&accounts, lease)))
    }

    async fn end_import_error(
        &self,
        lease: ImportErrorLease,
        end: ImportErrorOutcome,
        _now: Timestamp,
    ) -> Result<(), StoreError> {
        if in_writing!(self, import_errors::end(&lease, &end)) {
            Ok(())
        } else {
            Err(StoreError::StaleLease)
        }
    }

    async fn retry_import_error(&self, id: i64, _now: Timestamp) -> Result<bool, StoreError> {
        let found = in_writing!(self, import_errors::retry(id));
        self.arrivals.send_replace(());
        Ok(found)
    }

    async fn import_errors(
        &self,
        filter: ImportErrorFilter,
    ) -> Result<Vec<ImportErrorRow>, StoreError> {
        in_reading!(self, import_errors::list(&filter))
    }
}
