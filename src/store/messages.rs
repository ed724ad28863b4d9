//! Accepted messages.

use serde::Serialize;

use super::StoreError;
use super::columns;
use super::engine::{Operation, Row, Sql, Tx};
use crate::domain::{Account, Event, Feed, Timestamp};
use crate::sns::VerifiedMessage;

/// A verified message to be stored.
#[derive(Debug)]
pub struct AcceptedMessage {
    /// The account of the webhook that received it; proven by the path's token.
    pub account: Account,
    /// The event of the webhook that received it; proven by the path's token.
    pub event: Event,
    /// The message; only [`crate::sns::Verifier`] can make one.
    pub message: VerifiedMessage,
    /// When it was received.
    pub received_at: Timestamp,
    /// The feed that it triggers, if any.
    pub trigger: Option<Feed>,
}

/// Lengths of a process's write queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLengths {
    /// Messages that are not answered yet.
    pub messages: usize,
    /// Refused messages to be stored in the quarantine.
    pub refused: usize,
    /// Other changes; always 0 on PostgreSQL, which has no such queue.
    pub changes: usize,
}

/// The result of storing something that may arrive twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// It was stored.
    New,
    /// It was stored before; nothing changed.
    Duplicate,
}

/// A stored notification in a list.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct NotificationRow {
    /// Ascending in the order of arrival.
    pub id: i64,
    /// The account of the webhook that received it.
    pub account: Account,
    /// The event of the webhook that received it.
    pub event: Event,
    /// `Notification`, `SubscriptionConfirmation` or `UnsubscribeConfirmation`.
    pub kind: String,
    /// SNS's id.
    pub message_id: String,
    /// When it was received.
    pub received_at: Timestamp,
}

/// A stored notification, whole. Lists have [`NotificationRow`] alone.
#[derive(Clone)]
pub struct StoredNotification {
    /// Its row.
    pub row: NotificationRow,
    /// The body as received; `None` once retention removed it.
    pub body: Option<Vec<u8>>,
}

/// Lists at most `limit` stored notifications after row `after`, oldest first.
pub(super) struct ListNotifications {
    pub(super) after: i64,
    pub(super) limit: usize,
}

/// Reads a row from its columns.
fn read_row(row: &dyn Row) -> Result<NotificationRow, StoreError> {
    Ok(NotificationRow {
        id: row.get(0)?,
        account: row.get(1)?,
        event: columns::event(row.get(2)?)?,
        kind: row.get(3)?,
        message_id: columns::message_id(row.bytes(4)?),
        received_at: row.get(5)?,
    })
}

impl Operation for ListNotifications {
    type Output = Vec<NotificationRow>;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        static SQL: Sql = Sql::new(
            "SELECT n.id, a.name, n.event, n.kind, n.message_id, n.received_at
             FROM notification n JOIN account a ON a.id = n.account_id
             WHERE n.id > $1 ORDER BY n.id LIMIT $2",
        );
        tx.all(&SQL, &[&self.after, &self.limit], read_row).await
    }
}

/// Returns the notification of this row.
pub(super) struct FindNotification(pub(super) i64);

impl Operation for FindNotification {
    type Output = Option<StoredNotification>;

    async fn run<T: Tx>(self, tx: &mut T) -> Result<Self::Output, StoreError> {
        static SQL: Sql = Sql::new(
            "SELECT n.id, a.name, n.event, n.kind, n.message_id, n.received_at, n.body
             FROM notification n JOIN account a ON a.id = n.account_id WHERE n.id = $1",
        );
        tx.first(&SQL, &[&self.0], |row| {
            Ok(StoredNotification {
                row: read_row(row)?,
                body: row.get(6)?,
            })
        })
        .await
    }
}
