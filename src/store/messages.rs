//! Accepted messages.

use std::time::Duration;

use super::columns::{event, message_id, random_hex};
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
    /// The feeds that it triggers.
    pub triggers: Triggers,
    /// True if its topic is allowed only as long as a person approves it.
    pub needs_approval: bool,
}

/// The feeds that a message triggers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Triggers {
    /// None: it is no notification, or announces nothing.
    Nothing,
    /// One, which is added if it is new.
    Feed(Feed),
    /// All known exported feeds of its account, since its shape is not understood; at most once
    /// in [`UNCLEAR_INTERVAL`].
    AllFeeds,
}

impl Triggers {
    /// Returns the feed, if it is one.
    pub fn feed(&self) -> Option<&Feed> {
        match self {
            Self::Feed(feed) => Some(feed),
            Self::Nothing | Self::AllFeeds => None,
        }
    }
}

/// Time for which no further notification triggers all feeds of an account. It is kept in the
/// store: a restart or another replica would only repeat the requests. What is announced
/// meanwhile is found by the late follow-ups of those pulls, which come as long after them.
pub const UNCLEAR_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The notifications of an account whose shape is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnclearNotifications {
    /// The account.
    pub account: Account,
    /// Their number.
    pub total: u64,
    /// When the last one was received.
    pub last_at: Timestamp,
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

/// Writes to every table that messages with these bodies need, to see that they could be stored.
/// The transaction must be rolled back.
pub(super) async fn rehearse_messages<T: Tx>(tx: &T, bodies: &[&[u8]]) -> Result<()> {
    static ACCOUNT: Sql = Sql::new("INSERT INTO account (name) VALUES ($1) RETURNING id");
    static FEED: Sql = Sql::new(
        "INSERT INTO feed (account_id, queue, company, known_at) VALUES ($1, '', '', 0) RETURNING id",
    );
    static NOTIFICATION: Sql = Sql::new(
        "INSERT INTO notification (account_id, event, published_at, message_id, kind, received_at, body)
         VALUES ($1, 0, 0, $2, '', 0, $3)",
    );
    static TRIGGER: Sql = Sql::new(
        "INSERT INTO feed_trigger (feed_id, kind, raised, due_at, account_id, queue) VALUES ($1, 0, 1, 0, $2, '')",
    );
    static SUBSCRIPTION: Sql = Sql::new(
        "INSERT INTO subscription (account_id, event, state, created_at, changed_at) VALUES ($1, '', '', 0, 0)",
    );
    static TALLY: Sql =
        Sql::new("INSERT INTO tally (what, hour, part, count) VALUES ($1, 0, 0, 0)");
    // No account has such a name, and no two probes have the same: that of a replica which is
    // suspended must not delay those of others.
    let name = format!(" rehearsal {} ", random_hex());
    let account: i64 = tx.one(&ACCOUNT, &[&name]).await?;
    let feed: i64 = tx.one(&FEED, &[&account]).await?;
    for (number, body) in (0_u8..).zip(bodies) {
        let message_id = [number];
        tx.run(&NOTIFICATION, &[&account, &message_id.as_slice(), body])
            .await?;
    }
    tx.run(&TRIGGER, &[&feed, &account]).await?;
    tx.run(&TALLY, &[&name]).await?;
    tx.run(&SUBSCRIPTION, &[&account]).await
}

/// A stored notification in a list.
#[derive(Clone, Debug)]
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

    /// Lists the notifications whose shape is not understood, by account.
    pub read unclear_notifications() -> Vec<UnclearNotifications>;
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

rows! {
    StoredNotification { row, body }
    UnclearNotifications { account, total, last_at }
}

async fn unclear_notifications<T: Tx>(tx: &T) -> Result<Vec<UnclearNotifications>> {
    static SQL: Sql = Sql::new(
        "SELECT a.name, u.total, u.last_at FROM unclear_notification u
         JOIN account a ON a.id = u.account_id ORDER BY a.name{bytewise}",
    );
    tx.all(&SQL, &[]).await
}

async fn notification<T: Tx>(tx: &T, id: i64) -> Result<Option<StoredNotification>> {
    static SQL: Sql = Sql::new(
        "SELECT n.id, a.name, n.event, n.kind, n.message_id, n.received_at, n.body
         FROM notification n JOIN account a ON a.id = n.account_id WHERE n.id = $1",
    );
    tx.first(&SQL, &[&id]).await
}

async fn notifications<T: Tx>(tx: &T, after: i64, limit: usize) -> Result<Vec<NotificationRow>> {
    static SQL: Sql = Sql::new(
        "SELECT n.id, a.name, n.event, n.kind, n.message_id, n.received_at
         FROM notification n JOIN account a ON a.id = n.account_id
         WHERE n.id > $1 ORDER BY n.id LIMIT $2",
    );
    tx.all(&SQL, &[&after, &limit]).await
}
