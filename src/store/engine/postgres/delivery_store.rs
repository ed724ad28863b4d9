//! The methods of [`DeliveryStore`].

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{PostgresStore, deliveries, destinations};
use crate::domain::{Account, DestinationName, Timestamp};
use crate::store::delivery_lists::ListDestinations;
use crate::store::import_errors::{EndImportError, LeaseImportError, RetryImportError};
use crate::store::{
    Attempt, DeliveryFilter, DeliveryLease, DeliveryLeaseRequest, DeliveryLeased, DeliveryOutcome,
    DeliveryRow, DeliveryStore, DestinationChange, DestinationFilter, DestinationRow, HeldFeed,
    ImportErrorFilter, ImportErrorLease, ImportErrorOutcome, ImportErrorRow, LateOutcome,
    LeaseAction, ListEntry, StoreError,
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
        write_transaction!(self, destinations::register(&destinations));
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
        attempts: Vec<Attempt>,
        action: LeaseAction,
        _now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.may_write()?;
        let may_continue = deliveries::settle(&self.pool, &lease, &attempts, &action).await?;
        let any = |is: fn(&DeliveryOutcome) -> bool| attempts.iter().any(|one| is(&one.outcome));
        if any(|outcome| matches!(outcome, DeliveryOutcome::LinkExpired)) {
            self.trigger.notify_one();
        }
        if any(|outcome| matches!(outcome, DeliveryOutcome::Rejected { .. })) {
            self.arrivals.send_replace(());
        }
        Ok(may_continue)
    }

    async fn change_destination(
        &self,
        destination: DestinationName,
        change: DestinationChange,
        _now: Timestamp,
    ) -> Result<Option<usize>, StoreError> {
        let changed = write_transaction!(self, destinations::change(&destination, &change));
        self.arrivals.send_replace(());
        Ok(changed)
    }

    async fn record_outcome(
        &self,
        destination: DestinationName,
        sequence: i64,
        outcome: LateOutcome,
        _now: Timestamp,
    ) -> Result<bool, StoreError> {
        let recorded = write_transaction!(
            self,
            deliveries::record_outcome(destination.as_str(), sequence, &outcome)
        );
        self.arrivals.send_replace(());
        Ok(recorded)
    }

    async fn destinations(&self) -> Result<Vec<DestinationRow>, StoreError> {
        self.read(ListDestinations).await
    }

    async fn held_feeds(
        &self,
        destination: DestinationName,
        filter: DestinationFilter,
    ) -> Result<Vec<HeldFeed>, StoreError> {
        read_transaction!(self, destinations::held_feeds(&destination, &filter))
    }

    async fn deliveries(&self, filter: DeliveryFilter) -> Result<Vec<DeliveryRow>, StoreError> {
        self.read(filter).await
    }

    async fn listed(
        &self,
        destination: DestinationName,
        after: i64,
        limit: usize,
        limit_bytes: usize,
    ) -> Result<Vec<ListEntry>, StoreError> {
        read_transaction!(
            self,
            destinations::listed(&destination, after, limit, limit_bytes)
        )
    }

    async fn lease_import_error(
        &self,
        accounts: Vec<Account>,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<ImportErrorLease>, StoreError> {
        self.write(LeaseImportError {
            accounts,
            now,
            lease,
        })
        .await
    }

    async fn end_import_error(
        &self,
        lease: ImportErrorLease,
        end: ImportErrorOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(EndImportError { lease, end, now }).await
    }

    async fn retry_import_error(&self, id: i64, now: Timestamp) -> Result<bool, StoreError> {
        let found = self.write(RetryImportError { id, now }).await?;
        self.arrivals.send_replace(());
        Ok(found)
    }

    async fn import_errors(
        &self,
        filter: ImportErrorFilter,
    ) -> Result<Vec<ImportErrorRow>, StoreError> {
        self.read(filter).await
    }
}
