//! The quarantine of refused messages: bounded for all replicas together; once it is full,
//! messages are dropped.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::connection::Pool;
use super::rows::{self, escape_nul};
use crate::store::limits::{MAX_QUARANTINED, QUARANTINE_QUEUE};
use crate::store::{Quarantined, StoreError};

/// A command for the task that stores refused messages.
pub(super) enum QuarantineCommand {
    /// Stores a refused message.
    Store(Quarantined),
    /// Answers once all messages before this were stored or dropped.
    Flush(oneshot::Sender<()>),
}

/// Stores messages until all senders are gone.
pub(super) async fn run(
    pool: Arc<Pool>,
    limit_bytes: u64,
    mut inbox: mpsc::Receiver<QuarantineCommand>,
) {
    // One half is for messages that claim an allowed topic.
    let share_bytes = limit_bytes / 2;
    let mut arrived = Vec::new();
    while inbox.recv_many(&mut arrived, QUARANTINE_QUEUE).await > 0 {
        let (mut refused, mut flushes) = (Vec::new(), Vec::new());
        for offer in arrived.drain(..) {
            match offer {
                QuarantineCommand::Store(item) => refused.push(item),
                QuarantineCommand::Flush(done) => flushes.push(done),
            }
        }
        if !refused.is_empty()
            && let Err(error) = store(&pool, share_bytes, &refused).await
        {
            tracing::warn!(%error, "failed to store refused messages in the quarantine");
        }
        for done in flushes {
            // The receiver may be gone.
            let _ = done.send(());
        }
    }
}

/// Stores what fits; the rest is dropped. Replicas that do this at the same moment may
/// together exceed the bound by one batch each.
async fn store(pool: &Pool, share_bytes: u64, items: &[Quarantined]) -> Result<(), StoreError> {
    let transaction = pool.write().await?;
    let mut stored = [(0_u64, 0_u64); 2];
    let rows = transaction
        .query(
            "SELECT allowed_topic, count(*), sum(length(body) + octet_length(headers))::bigint FROM quarantine GROUP BY 1",
            &[],
        )
        .await?;
    for row in rows {
        let share = usize::from(row.try_get::<_, bool>(0)?);
        stored[share] = (rows::count(&row, 1)?, rows::count(&row, 2)?);
    }
    for item in items {
        let (messages, bytes) = &mut stored[usize::from(item.allowed_topic)];
        let size = (item.body.len() + item.headers.len()) as u64;
        if *messages >= MAX_QUARANTINED || *bytes + size > share_bytes {
            continue;
        }
        *messages += 1;
        *bytes += size;
        transaction
            .execute(
                "INSERT INTO quarantine (received_at, account, event, reason, allowed_topic, headers, body)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
                &[
                    &item.received_at.as_millis(),
                    &item.account.as_str(),
                    &item.event.as_str(),
                    &escape_nul(&item.reason),
                    &item.allowed_topic,
                    &escape_nul(&item.headers),
                    &item.body.as_ref(),
                ],
            )
            .await?;
    }
    transaction.commit().await
}
