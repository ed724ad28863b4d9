//! What other replicas may have left for the workers of this process.

use futures_util::future::try_join;

use super::Store;
use super::delivery_leases::is_delivery_due;
use super::engine::{Tx, operations};
use super::error::Result;
use super::feeds::LeaseRequest;
use super::leases::next_due;
use crate::domain::DestinationName;

/// What may be done now.
struct Due {
    pulls: bool,
    deliveries: bool,
}

operations! {
    read_own due(request: LeaseRequest, destinations: Vec<DestinationName>) -> Due;
}

impl Store {
    /// Wakes the workers of this process if other replicas may have left them something to pull, or
    /// to deliver to one of the destinations: a look that costs less than their leases.
    pub async fn look_for_work(
        &self,
        request: LeaseRequest,
        destinations: Vec<DestinationName>,
    ) -> Result<()> {
        let due = self.due(request, destinations).await?;
        if due.pulls {
            self.wake_pullers();
        }
        if due.deliveries {
            self.wake_deliveries();
        }
        Ok(())
    }
}

async fn due<T: Tx>(
    tx: &T,
    request: LeaseRequest,
    destinations: Vec<DestinationName>,
) -> Result<Due> {
    let now = tx.now_or(request.now);
    let (next_pull, deliveries) = try_join(
        next_due(tx, request),
        is_delivery_due(tx, &destinations, now),
    )
    .await?;
    Ok(Due {
        pulls: next_pull.is_some_and(|at| at <= now),
        deliveries,
    })
}
