//! Refused messages: kept within a bound that all replicas share, dropped when it is
//! reached.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::connection::{Pool, Transaction};
use super::rows::{self, keepable};
use crate::store::words::{self, QUARANTINE_QUEUE, row_limit};
use crate::store::{QuarantineRow, Quarantined, StoreError};

/// What the task that keeps is told.
pub(super) enum Offer {
    /// A refused message.
    Refused(Quarantined),
    /// Somebody who will look filter to hear when all before this was kept or dropped.
    Look(oneshot::Sender<()>),
}

/// Keeps what comes until nobody can send any more.
pub(super) async fn run(pool: Arc<Pool>, limit_bytes: u64, mut inbox: mpsc::Receiver<Offer>) {
    // Half is for messages that claim an allowed topic.
    let share_bytes = limit_bytes / 2;
    let mut arrived = Vec::new();
    while inbox.recv_many(&mut arrived, QUARANTINE_QUEUE).await > 0 {
        let (mut refused, mut lookers) = (Vec::new(), Vec::new());
        for offer in arrived.drain(..) {
            match offer {
                Offer::Refused(item) => refused.push(item),
                Offer::Look(looker) => lookers.push(looker),
            }
        }
        if !refused.is_empty()
            && let Err(error) = keep(&pool, share_bytes, &refused).await
        {
            tracing::warn!(%error, "refused messages could not be kept in the quarantine");
        }
        for looker in lookers {
            // It may have gone meanwhile.
            let _ = looker.send(());
        }
    }
}

/// Stores what fits; the rest is dropped. Replicas that do this in the same moment may
/// exceed the bound by what each was given then.
async fn keep(pool: &Pool, share_bytes: u64, items: &[Quarantined]) -> Result<(), StoreError> {
    let transaction = pool.write().await?;
    let mut kept_bytes = [0_u64; 2];
    let rows = transaction
        .query(
            "SELECT allowed_topic, sum(length(body) + octet_length(headers))::bigint FROM quarantine GROUP BY 1",
            &[],
        )
        .await?;
    for row in rows {
        kept_bytes[usize::from(row.try_get::<_, bool>(0)?)] = rows::count(&row, 1)?;
    }
    for item in items {
        let kept = &mut kept_bytes[usize::from(item.allowed_topic)];
        let size = (item.body.len() + item.headers.len()) as u64;
        if *kept + size > share_bytes {
            continue;
        }
        *kept += size;
        transaction
            .execute(
                "INSERT INTO quarantine (received_at, account, event, reason, allowed_topic, headers, body)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
                &[
                    &item.received_at.as_millis(),
                    &item.account.as_str(),
                    &item.event.as_str(),
                    &keepable(&item.reason),
                    &item.allowed_topic,
                    &keepable(&item.headers),
                    &item.body.as_ref(),
                ],
            )
            .await?;
    }
    transaction.commit().await
}

pub(super) async fn list(
    transaction: &Transaction<'_>,
    after: i64,
    limit: usize,
) -> Result<Vec<QuarantineRow>, StoreError> {
    let rows = transaction
        .query(
            "SELECT id, received_at, account, event, reason, headers, length(body)::bigint, body
             FROM quarantine WHERE id > $1 ORDER BY id LIMIT $2",
            &[&after, &row_limit(limit)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(QuarantineRow {
                id: row.try_get(0)?,
                received_at: rows::moment(row, 1)?,
                account: words::account(row.try_get(2)?)?,
                event: words::event_name(row.try_get(3)?)?,
                reason: rows::text(row, 4)?,
                headers: rows::text(row, 5)?,
                size_bytes: rows::count(row, 6)?,
                body: row.try_get(7)?,
            })
        })
        .collect()
}
