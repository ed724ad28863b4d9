//! The quarantine of refused messages.

use bytes::Bytes;
use serde::Serialize;

use super::StoreError;
use super::engine::{Operation, Row, Sql, Tx};
use super::limits::RETENTION_BATCH;
use crate::domain::{Account, Event, Timestamp};

/// A refused message for the quarantine.
#[derive(Clone)]
pub struct Quarantined {
    /// When it was received.
    pub received_at: Timestamp,
    /// The account of the webhook that received it.
    pub account: Account,
    /// The event of the webhook that received it.
    pub event: Event,
    /// [`crate::refusal::Refusal::code`].
    pub reason: String,
    /// True if it claims an allowed topic: such messages have a share of their own.
    pub allowed_topic: bool,
    /// The SNS headers, `name: value` lines.
    pub headers: String,
    /// The body as received.
    pub body: Bytes,
}

/// A row of the quarantine.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct QuarantineRow {
    /// Ascending in the order of arrival.
    pub id: i64,
    /// When it was received.
    pub received_at: Timestamp,
    /// The account of the webhook that received it.
    pub account: Account,
    /// The event of the webhook that received it.
    pub event: Event,
    /// The reason for the refusal.
    pub reason: String,
    /// Length of the body in bytes.
    pub size_bytes: u64,
}

/// A message of the quarantine, whole. Lists have [`QuarantineRow`] alone: a page of large
/// messages would not fit into memory.
#[derive(Clone)]
pub struct QuarantinedMessage {
    /// Its row.
    pub row: QuarantineRow,
    /// The SNS headers, `name: value` lines.
    pub headers: String,
    /// The body as received.
    pub body: Vec<u8>,
}

/// Lists at most `limit` messages after row `after`, oldest first.
pub(super) struct ListQuarantined {
    pub(super) after: i64,
    pub(super) limit: usize,
}

/// Reads a row from its columns.
fn read_row(row: &dyn Row) -> Result<QuarantineRow, StoreError> {
    Ok(QuarantineRow {
        id: row.get(0)?,
        received_at: row.get(1)?,
        account: row.get(2)?,
        event: row.get(3)?,
        reason: row.get(4)?,
        size_bytes: row.get(5)?,
    })
}

impl Operation for ListQuarantined {
    type Output = Vec<QuarantineRow>;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        static SQL: Sql = Sql::new(
            "SELECT id, received_at, account, event, reason, length(body)
             FROM quarantine WHERE id > $1 ORDER BY id LIMIT $2",
        );
        tx.all(&SQL, &[&self.after, &self.limit], read_row).await
    }
}

/// Returns the message of this row.
pub(super) struct FindQuarantined(pub(super) i64);

impl Operation for FindQuarantined {
    type Output = Option<QuarantinedMessage>;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        static SQL: Sql = Sql::new(
            "SELECT id, received_at, account, event, reason, length(body), headers, body
             FROM quarantine WHERE id = $1",
        );
        tx.first(&SQL, &[&self.0], |row| {
            Ok(QuarantinedMessage {
                row: read_row(row)?,
                headers: row.get(6)?,
                body: row.get(7)?,
            })
        })
        .await
    }
}

/// Removes the message of this row.
pub(super) struct RemoveQuarantined(pub(super) i64);

impl Operation for RemoveQuarantined {
    type Output = ();

    async fn run<T: Tx>(self, tx: &mut T) -> Result<(), StoreError> {
        static SQL: Sql = Sql::new("DELETE FROM quarantine WHERE id = $1");
        tx.execute(&SQL, &[&self.0]).await?;
        Ok(())
    }
}

/// Removes a batch of the messages that were received before this moment; returns their
/// number.
pub(super) struct RemoveOldQuarantined(pub(super) Timestamp);

impl Operation for RemoveOldQuarantined {
    type Output = usize;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<usize, StoreError> {
        static SQL: Sql = Sql::new(
            "DELETE FROM quarantine WHERE id IN (
                 SELECT id FROM quarantine WHERE received_at < $1 ORDER BY id LIMIT $2{skip_locked})",
        );
        tx.execute(&SQL, &[&self.0, &RETENTION_BATCH]).await
    }
}
