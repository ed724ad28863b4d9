//! Accepted messages.

use serde::Serialize;

use super::columns::{event, message_id};
use super::debug::redacted;
use super::engine::{Column, Columns, Sql, Tx, operations, rows};
use super::error::Result;
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

/// Writes to every table that a message needs, to see that one could be stored. The
/// transaction must be rolled back.
pub(super) async fn rehearse_message<T: Tx>(tx: &mut T) -> Result<()> {
    static ACCOUNT: Sql = Sql::new("INSERT INTO account (name) VALUES ($1) RETURNING id");
    static FEED: Sql =
        Sql::new("INSERT INTO feed (account_id, queue, company) VALUES ($1, '', '') RETURNING id");
    static NOTIFICATION: Sql = Sql::new(
        "INSERT INTO notification (account_id, event, message_id, kind, received_at) VALUES ($1, 0, $2, '', 0)",
    );
    static TRIGGER: Sql = Sql::new(
        "INSERT INTO feed_trigger (feed_id, kind, raised, due_at, account_id, queue) VALUES ($1, 0, 1, 0, $2, '')",
    );
    static SUBSCRIPTION: Sql = Sql::new(
        "INSERT INTO subscription (account_id, event, state, created_at, changed_at) VALUES ($1, '', '', 0, 0)",
    );
    // No account has such a name.
    let account: i64 = tx.one(&ACCOUNT, &[&" rehearsal "]).await?;
    let feed: i64 = tx.one(&FEED, &[&account]).await?;
    tx.run(&NOTIFICATION, &[&account, &[0_u8].as_slice()])
        .await?;
    tx.run(&TRIGGER, &[&feed, &account]).await?;
    tx.run(&SUBSCRIPTION, &[&account]).await
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

redacted! { StoredNotification { row; body } }

operations! {
    /// Returns a stored notification with its body; `None` if the row does not exist.
    pub read notification(id: i64) -> Option<StoredNotification>;

    /// Lists at most `limit` stored notifications after row `after`, oldest first.
    pub read notifications(after: i64, limit: usize) -> Vec<NotificationRow>;
}

impl Column for NotificationRow {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            id: columns.get()?,
            account: columns.get()?,
            event: event(columns.get()?)?,
            kind: columns.get()?,
            message_id: message_id(&columns.get::<Vec<u8>>()?),
            received_at: columns.get()?,
        })
    }
}

rows! { StoredNotification { row, body } }

async fn notification<T: Tx>(tx: &mut T, id: i64) -> Result<Option<StoredNotification>> {
    static SQL: Sql = Sql::new(
        "SELECT n.id, a.name, n.event, n.kind, n.message_id, n.received_at, n.body
         FROM notification n JOIN account a ON a.id = n.account_id WHERE n.id = $1",
    );
    tx.first(&SQL, &[&id]).await
}

async fn notifications<T: Tx>(
    tx: &mut T,
    after: i64,
    limit: usize,
) -> Result<Vec<NotificationRow>> {
    static SQL: Sql = Sql::new(
        "SELECT n.id, a.name, n.event, n.kind, n.message_id, n.received_at
         FROM notification n JOIN account a ON a.id = n.account_id
         WHERE n.id > $1 ORDER BY n.id LIMIT $2",
    );
    tx.all(&SQL, &[&after, &limit]).await
}
