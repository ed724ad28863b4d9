//! The methods of [`DeliveryStore`].

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::PostgresStore;
use crate::domain::{Account, DestinationName, Timestamp};
use crate::store::attempts::{RecordOutcome, SettleDeliveries};
use crate::store::delivery_lists::{ListDestinations, ReadList};
use crate::store::destinations::{ChangeDestination, ListHeldFeeds, RegisterDestinations};
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
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(RegisterDestinations { destinations, now }).await
    }

    async fn lease_deliveries(
        &self,
        request: DeliveryLeaseRequest,
    ) -> Result<DeliveryLeased, StoreError> {
        self.write(request).await
    }

    async fn settle_deliveries(
        &self,
        lease: DeliveryLease,
        attempts: Vec<Attempt>,
        action: LeaseAction,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let any = |is: fn(&DeliveryOutcome) -> bool| attempts.iter().any(|one| is(&one.outcome));
        let pulls = any(|outcome| matches!(outcome, DeliveryOutcome::LinkExpired));
        let rejected = any(|outcome| matches!(outcome, DeliveryOutcome::Rejected { .. }));
        let may_continue = self
            .write(SettleDeliveries {
                lease,
                attempts,
                action,
                now,
            })
            .await?;
        if pulls {
            self.trigger.notify_one();
        }
        if rejected {
            self.arrivals.send_replace(());
        }
        Ok(may_continue)
    }

    async fn change_destination(
        &self,
        destination: DestinationName,
        change: DestinationChange,
        now: Timestamp,
    ) -> Result<Option<usize>, StoreError> {
        let changed = self
            .write(ChangeDestination {
                destination,
                change,
                now,
            })
            .await?;
        self.arrivals.send_replace(());
        Ok(changed)
    }

    async fn record_outcome(
        &self,
        destination: DestinationName,
        sequence: i64,
        outcome: LateOutcome,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let recorded = self
            .write(RecordOutcome {
                destination,
                sequence,
                outcome,
                now,
            })
            .await?;
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
        self.read(ListHeldFeeds {
            destination,
            filter,
        })
        .await
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
        self.read(ReadList {
            destination,
            after,
            limit,
            limit_bytes,
        })
        .await
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
