//! Handing documents on: the trait's methods.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{SqliteStore, destinations, handoffs, reports};
use crate::domain::{Account, DestinationName, Timestamp};
use crate::store::{
    Afterwards, DestinationChange, DestinationRow, HandoffFilter, HandoffLease, HandoffLeased,
    HandoffOutcome, HandoffRequest, HandoffRow, HandoffStore, HeldFeed, LaterVerdict, Offered,
    ReportEnd, ReportFilter, ReportLease, ReportRow, Settled, StoreError, Wants,
};

#[async_trait]
impl HandoffStore for SqliteStore {
    fn arrivals(&self) -> watch::Receiver<()> {
        self.arrivals.subscribe()
    }

    async fn register_destinations(
        &self,
        destinations: Vec<(DestinationName, Wants)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.change(move |connection| destinations::register_feeds(connection, &destinations, now))
            .await
    }

    async fn lease_handoffs(&self, request: HandoffRequest) -> Result<HandoffLeased, StoreError> {
        self.change(move |connection| handoffs::lease(connection, &request))
            .await
    }

    async fn settle_handoffs(
        &self,
        lease: HandoffLease,
        settled: Vec<Settled>,
        afterwards: Afterwards,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let pulls = settled
            .iter()
            .any(|one| matches!(one.outcome, HandoffOutcome::LinkExpired));
        let rejected = settled
            .iter()
            .any(|one| matches!(one.outcome, HandoffOutcome::Rejected { .. }));
        let holds = self
            .write(move |transaction, path| {
                handoffs::settle(transaction, path, &lease, &settled, &afterwards, now)
            })
            .await?;
        if pulls {
            self.demand.notify_one();
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

    async fn note_verdict(
        &self,
        destination: DestinationName,
        sequence: i64,
        verdict: LaterVerdict,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let noted = self
            .change(move |connection| {
                handoffs::note_verdict(connection, destination.as_str(), sequence, &verdict, now)
            })
            .await?;
        self.arrivals.send_replace(());
        Ok(noted)
    }

    async fn destinations(&self) -> Result<Vec<DestinationRow>, StoreError> {
        self.read(|connection| destinations::list(connection)).await
    }

    async fn held_feeds(
        &self,
        destination: DestinationName,
        wants: Wants,
    ) -> Result<Vec<HeldFeed>, StoreError> {
        self.read(move |connection| destinations::held_feeds(connection, &destination, &wants))
            .await
    }

    async fn handoffs(&self, filter: HandoffFilter) -> Result<Vec<HandoffRow>, StoreError> {
        self.read(move |connection| destinations::handoffs(connection, &filter))
            .await
    }

    async fn offered(
        &self,
        destination: DestinationName,
        after: i64,
        limit: usize,
        most_bytes: usize,
    ) -> Result<Vec<Offered>, StoreError> {
        self.read(move |connection| {
            destinations::offered(connection, &destination, after, limit, most_bytes)
        })
        .await
    }

    async fn lease_report(
        &self,
        accounts: Vec<Account>,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<ReportLease>, StoreError> {
        self.change(move |connection| reports::lease(connection, &accounts, now, lease))
            .await
    }

    async fn end_report(
        &self,
        lease: ReportLease,
        end: ReportEnd,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(move |transaction, path| reports::end(transaction, path, &lease, &end, now))
            .await
    }

    async fn retry_report(&self, id: i64, now: Timestamp) -> Result<bool, StoreError> {
        let found = self
            .change(move |connection| reports::retry(connection, id, now))
            .await?;
        self.arrivals.send_replace(());
        Ok(found)
    }

    async fn reports(&self, filter: ReportFilter) -> Result<Vec<ReportRow>, StoreError> {
        self.read(move |connection| reports::list(connection, &filter))
            .await
    }
}
