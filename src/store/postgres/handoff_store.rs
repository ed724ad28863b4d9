//! Handing documents on: the trait's methods.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{PostgresStore, handoffs, reports, sinks};
use crate::domain::{Account, SinkName, Timestamp};
use crate::store::{
    Afterwards, HandoffFilter, HandoffLease, HandoffLeased, HandoffOutcome, HandoffRequest,
    HandoffRow, HandoffStore, HeldFeed, LaterVerdict, Offered, ReportEnd, ReportFilter,
    ReportLease, ReportRow, Settled, SinkChange, SinkRow, StoreError, Wants,
};

#[async_trait]
impl HandoffStore for PostgresStore {
    fn arrivals(&self) -> watch::Receiver<()> {
        self.arrivals.subscribe()
    }

    async fn make_sinks_known(
        &self,
        sinks: Vec<(SinkName, Wants)>,
        _now: Timestamp,
    ) -> Result<(), StoreError> {
        in_writing!(self, sinks::make_known(&sinks));
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

    async fn change_sink(
        &self,
        sink: SinkName,
        change: SinkChange,
        _now: Timestamp,
    ) -> Result<Option<usize>, StoreError> {
        let changed = in_writing!(self, sinks::change(&sink, &change));
        self.arrivals.send_replace(());
        Ok(changed)
    }

    async fn note_verdict(
        &self,
        sink: SinkName,
        sequence: i64,
        verdict: LaterVerdict,
        _now: Timestamp,
    ) -> Result<bool, StoreError> {
        let noted = in_writing!(
            self,
            handoffs::note_verdict(sink.as_str(), sequence, &verdict)
        );
        self.arrivals.send_replace(());
        Ok(noted)
    }

    async fn sinks(&self) -> Result<Vec<SinkRow>, StoreError> {
        in_reading!(self, sinks::list())
    }

    async fn held_feeds(&self, sink: SinkName, wants: Wants) -> Result<Vec<HeldFeed>, StoreError> {
        in_reading!(self, sinks::held_feeds(&sink, &wants))
    }

    async fn handoffs(&self, filter: HandoffFilter) -> Result<Vec<HandoffRow>, StoreError> {
        in_reading!(self, sinks::handoffs(&filter))
    }

    async fn offered(
        &self,
        sink: SinkName,
        after: i64,
        limit: usize,
        most_bytes: usize,
    ) -> Result<Vec<Offered>, StoreError> {
        in_reading!(self, sinks::offered(&sink, after, limit, most_bytes))
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
