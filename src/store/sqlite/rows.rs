//! How our words are written in the tables, and the rows that others refer to.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::domain::{Account, Company, Event, Feed, Queue, Timestamp};
use crate::store::{ParkReason, PullKind, SubscriptionState, UploadState};

/// 1 or 2, as in the notification table.
pub(super) const fn event_code(event: Event) -> i64 {
    match event {
        Event::OnExported => 1,
        Event::OnDigitized => 2,
    }
}

/// 0 to 4, the order of urgency.
pub(super) const fn kind_code(kind: PullKind) -> i64 {
    match kind {
        PullKind::Hint => 0,
        PullKind::FollowUp => 1,
        PullKind::LateFollowUp => 2,
        PullKind::Reconciliation => 3,
        PullKind::Backfill => 4,
    }
}

/// The account's row, made where it is new.
pub(super) fn account_id(connection: &Connection, account: &Account) -> rusqlite::Result<i64> {
    let found = connection
        .prepare_cached("SELECT id FROM account WHERE name = ?1")?
        .query_row(params![account.as_str()], |row| row.get(0))
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    connection.execute(
        "INSERT INTO account (name) VALUES (?1)",
        params![account.as_str()],
    )?;
    Ok(connection.last_insert_rowid())
}

/// The feed's row; a new one is due for reconciliation at once.
pub(super) fn feed_id(
    connection: &Connection,
    feed: &Feed,
    now: Timestamp,
) -> rusqlite::Result<i64> {
    let account = account_id(connection, &feed.account)?;
    let found = connection
        .prepare_cached(
            "SELECT id FROM feed WHERE account_id = ?1 AND queue = ?2 AND company = ?3",
        )?
        .query_row(
            params![account, feed.queue.as_str(), feed.company.as_str()],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    connection.execute(
        "INSERT INTO feed (account_id, queue, company) VALUES (?1, ?2, ?3)",
        params![account, feed.queue.as_str(), feed.company.as_str()],
    )?;
    let id = connection.last_insert_rowid();
    connection.execute(
        "INSERT INTO feed_demand (feed_id, kind, wanted, due_at) VALUES (?1, ?2, 1, ?3)",
        params![id, kind_code(PullKind::Reconciliation), now.as_millis()],
    )?;
    Ok(id)
}

/// A column whose text or number is none of ours: another program wrote the file.
fn foreign(column: usize, what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, what.to_owned().into())
}

/// Reads an account's name.
pub(super) fn account(row: &Row<'_>, column: usize) -> rusqlite::Result<Account> {
    Account::parse(&row.get::<_, String>(column)?)
        .map_err(|error| foreign(column, &error.to_string()))
}

/// Reads an event's number.
pub(super) fn event(row: &Row<'_>, column: usize) -> rusqlite::Result<Event> {
    let code: i64 = row.get(column)?;
    Event::ALL
        .into_iter()
        .find(|event| event_code(*event) == code)
        .ok_or_else(|| foreign(column, "no event"))
}

/// Reads an event's name.
pub(super) fn event_name(row: &Row<'_>, column: usize) -> rusqlite::Result<Event> {
    Event::parse(&row.get::<_, String>(column)?).ok_or_else(|| foreign(column, "no event"))
}

/// Reads a kind of pull.
pub(super) fn kind(row: &Row<'_>, column: usize) -> rusqlite::Result<PullKind> {
    let code: i64 = row.get(column)?;
    PullKind::ALL
        .into_iter()
        .find(|kind| kind_code(*kind) == code)
        .ok_or_else(|| foreign(column, "no kind of pull"))
}

/// Reads a moment.
pub(super) fn moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Ok(Timestamp::from_millis(row.get(column)?))
}

/// Reads a moment that may be absent.
pub(super) fn maybe_moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row
        .get::<_, Option<i64>>(column)?
        .map(Timestamp::from_millis))
}

/// Reads why something is parked.
pub(super) fn park_reason(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<ParkReason>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| {
        ParkReason::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| foreign(column, "no reason for parking"))
    })
    .transpose()
}

/// Reads where a subscription stands.
pub(super) fn subscription_state(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<SubscriptionState> {
    let text: String = row.get(column)?;
    SubscriptionState::ALL
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| foreign(column, "no state of a subscription"))
}

/// Reads where an upload stands.
pub(super) fn upload_state(row: &Row<'_>, column: usize) -> rusqlite::Result<UploadState> {
    let text: String = row.get(column)?;
    UploadState::ALL
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| foreign(column, "no state of an upload"))
}

/// Reads a feed from three columns: account name, queue, company.
pub(super) fn feed(row: &Row<'_>, first: usize) -> rusqlite::Result<Feed> {
    let queue: String = row.get(first + 1)?;
    let company: String = row.get(first + 2)?;
    Ok(Feed {
        account: account(row, first)?,
        queue: Queue::parse(&queue).ok_or_else(|| foreign(first + 1, "no queue"))?,
        company: if company.is_empty() {
            Company::mixed()
        } else {
            Company::parse(&company).map_err(|error| foreign(first + 2, &error.to_string()))?
        },
    })
}
