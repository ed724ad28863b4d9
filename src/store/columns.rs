//! Conversions between domain values and columns, for both databases.

use uuid::Uuid;

use super::engine::{Column, Row};
use super::{
    DeliveryState, DestinationPauseReason, FeedPauseReason, ImportErrorState, Rights, StoreError,
    SubscriptionState, TriggerKind, UploadState,
};
use crate::domain::{Account, Company, Cursor, DestinationName, Event, Feed, Queue};

/// A column with a value that this version does not know: another program or a newer
/// version wrote it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("a row holds an unknown {0}; run the version of ivesk-webhook that wrote it")]
pub(super) struct UnknownValue(&'static str);

impl From<UnknownValue> for StoreError {
    fn from(unknown: UnknownValue) -> Self {
        Self::Database(unknown.to_string())
    }
}

/// Implements [`Column`] for types whose column holds a name.
macro_rules! named_columns {
    ($($rust:ty: $parse:ident;)*) => {
        $(impl Column for $rust {
            fn read(row: &dyn Row, column: usize) -> Result<Self, StoreError> {
                Ok($parse(&row.text(column)?)?)
            }
        })*
    };
}

named_columns! {
    Account: account;
    Company: company;
    DeliveryState: delivery_state;
    DestinationName: destination;
    DestinationPauseReason: destination_pause_reason;
    Event: event_name;
    FeedPauseReason: feed_pause_reason;
    ImportErrorState: import_error_state;
    Queue: queue;
    Rights: rights;
    SubscriptionState: subscription_state;
    UploadState: upload_state;
}

impl Column for Cursor {
    fn read(row: &dyn Row, column: usize) -> Result<Self, StoreError> {
        Ok(Self::new(row.text(column)?))
    }
}

impl Column for Feed {
    /// Reads three columns: account name, queue, company.
    fn read(row: &dyn Row, column: usize) -> Result<Self, StoreError> {
        Ok(Self {
            account: row.get(column)?,
            queue: row.get(column + 1)?,
            company: row.get(column + 2)?,
        })
    }
}

impl Column for TriggerKind {
    fn read(row: &dyn Row, column: usize) -> Result<Self, StoreError> {
        Ok(kind(row.integer(column)?)?)
    }
}

impl Column for Vec<TriggerKind> {
    /// Reads a list of codes, such as `0,3`; NULL is empty.
    fn read(row: &dyn Row, column: usize) -> Result<Self, StoreError> {
        let codes: Option<String> = row.get(column)?;
        Ok(trigger_kinds(codes.as_deref().unwrap_or_default()))
    }
}

/// Returns the event's code in the notification table.
pub(super) const fn event_code(event: Event) -> i64 {
    match event {
        Event::OnExported => 1,
        Event::OnDigitized => 2,
    }
}

/// Returns the event with this code.
pub(super) fn event(code: i64) -> Result<Event, UnknownValue> {
    Event::ALL
        .into_iter()
        .find(|event| event_code(*event) == code)
        .ok_or(UnknownValue("event"))
}

/// Returns the event with this name.
pub(super) fn event_name(name: &str) -> Result<Event, UnknownValue> {
    Event::parse(name).ok_or(UnknownValue("event"))
}

/// Returns the kind's code, which orders kinds by urgency.
pub(super) const fn kind_code(kind: TriggerKind) -> i64 {
    match kind {
        TriggerKind::Notification => 0,
        TriggerKind::FollowUp => 1,
        TriggerKind::LateFollowUp => 2,
        TriggerKind::Reconciliation => 3,
        TriggerKind::Backfill => 4,
    }
}

/// Returns the kind with this code.
pub(super) fn kind(code: i64) -> Result<TriggerKind, UnknownValue> {
    TriggerKind::ALL
        .into_iter()
        .find(|kind| kind_code(*kind) == code)
        .ok_or(UnknownValue("kind of trigger"))
}

/// Parses a list of the kinds' codes, such as `0,3`.
fn trigger_kinds(codes: &str) -> Vec<TriggerKind> {
    TriggerKind::ALL
        .into_iter()
        .filter(|kind| {
            codes
                .split(',')
                .any(|code| code.parse() == Ok(kind_code(*kind)))
        })
        .collect()
}

/// Returns the account with this name.
pub(super) fn account(name: &str) -> Result<Account, UnknownValue> {
    Account::parse(name).map_err(|_| UnknownValue("account name"))
}

/// Returns the queue with this name.
pub(super) fn queue(name: &str) -> Result<Queue, UnknownValue> {
    Queue::parse(name).ok_or(UnknownValue("queue"))
}

/// Returns the feed with these three columns.
pub(super) fn feed(account_name: &str, queue: &str, company: &str) -> Result<Feed, UnknownValue> {
    Ok(Feed {
        account: account(account_name)?,
        queue: self::queue(queue)?,
        company: self::company(company)?,
    })
}

/// Returns the pause reason with this name.
fn feed_pause_reason(text: &str) -> Result<FeedPauseReason, UnknownValue> {
    FeedPauseReason::ALL
        .into_iter()
        .find(|reason| reason.as_str() == text)
        .ok_or(UnknownValue("pause reason"))
}

/// Returns the state of a subscription with this name.
fn subscription_state(text: &str) -> Result<SubscriptionState, UnknownValue> {
    SubscriptionState::ALL
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or(UnknownValue("subscription state"))
}

/// Returns the state of an upload with this name.
fn upload_state(text: &str) -> Result<UploadState, UnknownValue> {
    UploadState::ALL
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or(UnknownValue("upload state"))
}

/// Returns the state of a delivery with this name.
pub(super) fn delivery_state(text: &str) -> Result<DeliveryState, UnknownValue> {
    DeliveryState::ALL
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or(UnknownValue("delivery state"))
}

/// Returns the pause reason of a destination with this name.
fn destination_pause_reason(text: &str) -> Result<DestinationPauseReason, UnknownValue> {
    DestinationPauseReason::ALL
        .into_iter()
        .find(|reason| reason.as_str() == text)
        .ok_or(UnknownValue("pause reason"))
}

/// Returns the state of an import error with this name.
fn import_error_state(text: &str) -> Result<ImportErrorState, UnknownValue> {
    ImportErrorState::ALL
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or(UnknownValue("import error state"))
}

/// Returns the destination with this name.
fn destination(name: &str) -> Result<DestinationName, UnknownValue> {
    DestinationName::parse(name).map_err(|_| UnknownValue("destination name"))
}

/// Returns the company with this code; empty text is a feed that mixes them.
fn company(code: &str) -> Result<Company, UnknownValue> {
    if code.is_empty() {
        return Ok(Company::mixed());
    }
    Company::parse(code).map_err(|_| UnknownValue("company code"))
}

/// Returns the rights with this name.
pub(super) fn rights(text: &str) -> Result<Rights, UnknownValue> {
    text.parse().map_err(|_| UnknownValue("right"))
}

/// Returns the key of a message id: a UUID's 16 bytes, or more for any other text.
pub(super) fn message_key(id: &str) -> Vec<u8> {
    match Uuid::try_parse(id) {
        Ok(uuid) if uuid.hyphenated().to_string() == id => uuid.as_bytes().to_vec(),
        _ => [&[0; 16], id.as_bytes(), &[0]].concat(),
    }
}

/// Returns the message id with this key.
pub(super) fn message_id(key: &[u8]) -> String {
    match Uuid::from_slice(key) {
        Ok(uuid) => uuid.hyphenated().to_string(),
        Err(_) => {
            let end = key.len().saturating_sub(1);
            String::from_utf8_lossy(key.get(16..end).unwrap_or_default()).into_owned()
        }
    }
}

/// Returns a random epoch, unique to this store.
pub(super) fn new_epoch() -> String {
    let mut random = [0_u8; 8];
    // On supported systems the random source never fails once it has started.
    getrandom::fill(&mut random).expect("the system provides random bytes");
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Converts a limit to the signed number that databases expect.
pub(super) fn row_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_survives_the_round_trip_through_its_key() {
        for id in [
            "da41e39f-ea4d-435a-b922-c6aae3915ebe",
            "DA41E39F-EA4D-435A-B922-C6AAE3915EBE",
            "x",
            "",
            "ąžuolas",
        ] {
            assert_eq!(message_id(&message_key(id)), id);
        }
        assert_eq!(
            message_key("da41e39f-ea4d-435a-b922-c6aae3915ebe").len(),
            16
        );
    }
}
