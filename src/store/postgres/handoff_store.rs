//! Handing documents on: the trait's methods.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{PostgresStore, destinations, handoffs, reports};
use crate::domain::{Account, DestinationName, Timestamp};
use crate::store::{
    Afterwards, DestinationChange, DestinationRow, HandoffFilter, HandoffLease, HandoffLeased,
    HandoffOutcome, HandoffRequest, HandoffRow, HandoffStore, HeldFeed, LaterVerdict, Offered,
    ReportEnd, ReportFilter, ReportLease, ReportRow, Settled, StoreError, Wants,
};

#[async_trait]
impl HandoffStore for PostgresStore {
    fn arrivals(&self) -> watch::Receiver<()> {
        self.arrivals.subscribe()
    }

    async fn register_destinations(
        &self,
        destinations: Vec<(DestinationName, Wants)>,
        _now: Timestamp,
    ) -> Result<(), StoreError> {
        in_writing!(self, destinations::register_feeds(&destinations));
        Ok(())
    }

    async fn lease_handoffs(&self, request: HandoffRequest) -> Result<HandoffLeased, StoreError> {
        self.may_write()?;
        handoffs::lease(&self.pool, &request).await
    }

    async fn settle_handoffs(
        &self,
        lease: HandoffLease,
        settled: Vec<Settled>,
        afterwards: Afterwards,
        _now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.may_write()?;
        let holds = handoffs::settle(&self.pool, &lease, &settled, &afterwards).await?;
        let pulls = |one: &Settled| matches!(one.outcome, HandoffOutcome::LinkExpired);
        let rejected = settled
            .iter()
            .any(|one| matches!(one.outcome, HandoffOutcome::Rejected { .. }));
        if settled.iter().any(pulls) {
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
        _now: Timestamp,
    ) -> Result<Option<usize>, StoreError> {
        let changed = in_writing!(self, destinations::change(&destination, &change));
        self.arrivals.send_replace(());
        Ok(changed)
    }

    async fn note_verdict(
        &self,
        destination: DestinationName,
        sequence: i64,
        verdict: LaterVerdict,
        _now: Timestamp,
    ) -> Result<bool, StoreError> {
        let noted = in_writing!(
            self,
            handoffs::note_verdict(destination.as_str(), sequence, &verdict)
        );
        self.arrivals.send_replace(());
        Ok(noted)
    }

    async fn destinations(&self) -> Result<Vec<DestinationRow>, StoreError> {
        in_reading!(self, destinations::list())
    }

    async fn held_feeds(
        &self,
        destination: DestinationName,
        wants: Wants,
    ) -> Result<Vec<HeldFeed>, StoreError> {
        in_reading!(self, destinations::held_feeds(&destination, &wants))
    }

    async fn handoffs(&self, filter: HandoffFilter) -> Result<Vec<HandoffRow>, StoreError> {
        in_reading!(self, destinations::handoffs(&filter))
    }

    async fn offered(
        &self,
        destination: DestinationName,
        after: i64,
        limit: usize,
        most_bytes: usize,
    ) -> Result<Vec<Offered>, StoreError> {
        in_reading!(
            self,
            destinations::offered(&destination, after, limit, most_bytes)
        )
    }

    async fn lease_report(
        &self,
        accounts: Vec<Account>,
        _now: Timestamp,
        lease: Duration,
    ) -> Result<Option<ReportLease>, StoreError> {
        Ok(in_writing!(self, reports::lease(&accounts, lease)))
    }

    async fn end_report(
        &self,
        lease: ReportLease,
        end: ReportEnd,
        _now: Timestamp,
    ) -> Result<(), StoreError> {
        if in_writing!(self, reports::end(&lease, &end)) {
            Ok(())
        } else {
            Err(StoreError::StaleLease)
        }
    }

    async fn retry_report(&self, id: i64, _now: Timestamp) -> Result<bool, StoreError> {
        let found = in_writing!(self, reports::retry(id));
        self.arrivals.send_replace(());
        Ok(found)
    }

    async fn reports(&self, filter: ReportFilter) -> Result<Vec<ReportRow>, StoreError> {
        in_reading!(self, reports::list(&filter))
    }
}
