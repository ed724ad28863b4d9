//! How our words are written in the tables of either database.

use uuid::Uuid;

use super::{
    DeliveryState, DestinationPauseReason, FeedPauseReason, ImportErrorState, Rights, StoreError,
    SubscriptionState, TriggerKind, UploadState,
};
use crate::domain::{Account, Company, DestinationName, Event, Feed, Queue};

/// Certificates kept at the most.
pub(super) const CERTIFICATES: i64 = 32;

/// Rows that one retention step changes at the most, so that ingest never waits long.
pub(super) const RETENTION_STEP: i64 = 2_000;

/// Entries without an id kept for one feed at the most.
pub(super) const UNREADABLE: i64 = 1000;

/// Documents, the newest, among which those are looked for that nothing told of.
pub(super) const LATELY_STORED: i64 = 1_000;

/// Messages that share one commit at the most.
pub(super) const GROUP: usize = 1024;

/// Refused messages that may wait for a place in the quarantine.
pub(super) const QUARANTINE_QUEUE: usize = 64;

/// A column holds a text or number that is none of ours: another program wrote it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("a row holds no {0} that this version knows")]
pub(super) struct Foreign(&'static str);

impl From<Foreign> for StoreError {
    fn from(foreign: Foreign) -> Self {
        Self::Database(foreign.to_string())
    }
}

/// 1 or 2, as in the notification table.
pub(super) const fn event_code(event: Event) -> i64 {
    match event {
        Event::OnExported => 1,
        Event::OnDigitized => 2,
    }
}

/// The event of a code.
pub(super) fn event(code: i64) -> Result<Event, Foreign> {
    Event::ALL
        .into_iter()
        .find(|event| event_code(*event) == code)
        .ok_or(Foreign("event"))
}

/// The event of a name.
pub(super) fn event_name(name: &str) -> Result<Event, Foreign> {
    Event::parse(name).ok_or(Foreign("event"))
}

/// 0 to 4, the order of urgency.
pub(super) const fn kind_code(kind: TriggerKind) -> i64 {
    match kind {
        TriggerKind::Notification => 0,
        TriggerKind::FollowUp => 1,
        TriggerKind::LateFollowUp => 2,
        TriggerKind::Reconciliation => 3,
        TriggerKind::Backfill => 4,
    }
}

/// The kind of pull of a code.
pub(super) fn kind(code: i64) -> Result<TriggerKind, Foreign> {
    TriggerKind::ALL
        .into_iter()
        .find(|kind| kind_code(*kind) == code)
        .ok_or(Foreign("kind of pull"))
}

/// Reads `0,3`: the kinds' codes.
pub(super) fn trigger_kinds(codes: &str) -> Vec<TriggerKind> {
    TriggerKind::ALL
        .into_iter()
        .filter(|kind| {
            codes
                .split(',')
                .any(|code| code.parse() == Ok(kind_code(*kind)))
        })
        .collect()
}

/// The account of a name.
pub(super) fn account(name: &str) -> Result<Account, Foreign> {
    Account::parse(name).map_err(|_| Foreign("account's name"))
}

/// The queue of a name.
pub(super) fn queue(name: &str) -> Result<Queue, Foreign> {
    Queue::parse(name).ok_or(Foreign("queue"))
}

/// The feed of three columns.
pub(super) fn feed(account_name: &str, queue: &str, company: &str) -> Result<Feed, Foreign> {
    Ok(Feed {
        account: account(account_name)?,
        queue: self::queue(queue)?,
        company: if company.is_empty() {
            Company::mixed()
        } else {
            Company::parse(company).map_err(|_| Foreign("company's code"))?
        },
    })
}

/// Why something is paused.
pub(super) fn feed_pause_reason(text: Option<&str>) -> Result<Option<FeedPauseReason>, Foreign> {
    let Some(text) = text else {
        return Ok(None);
    };
    FeedPauseReason::ALL
        .into_iter()
        .find(|reason| reason.as_str() == text)
        .map(Some)
        .ok_or(Foreign("reason for pausing"))
}

/// Where a subscription stands.
pub(super) fn subscription_state(text: &str) -> Result<SubscriptionState, Foreign> {
    SubscriptionState::ALL
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or(Foreign("state of a subscription"))
}

/// Where an upload stands.
pub(super) fn upload_state(text: &str) -> Result<UploadState, Foreign> {
    UploadState::ALL
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or(Foreign("state of an upload"))
}

/// Where a version stands at a destination.
pub(super) fn delivery_state(text: &str) -> Result<DeliveryState, Foreign> {
    DeliveryState::ALL
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or(Foreign("state of a delivery"))
}

/// Why a destination is paused.
pub(super) fn destination_pause_reason(
    text: Option<&str>,
) -> Result<Option<DestinationPauseReason>, Foreign> {
    let Some(text) = text else {
        return Ok(None);
    };
    DestinationPauseReason::ALL
        .into_iter()
        .find(|reason| reason.as_str() == text)
        .map(Some)
        .ok_or(Foreign("reason for pausing"))
}

/// Where an import error stands.
pub(super) fn import_error_state(text: &str) -> Result<ImportErrorState, Foreign> {
    ImportErrorState::ALL
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or(Foreign("state of a report"))
}

/// The destination of a name.
pub(super) fn destination(name: &str) -> Result<DestinationName, Foreign> {
    DestinationName::parse(name).map_err(|_| Foreign("destination's name"))
}

/// A company that may be absent; empty text is none.
pub(super) fn maybe_company(code: Option<&str>) -> Result<Option<Company>, Foreign> {
    code.filter(|code| !code.is_empty())
        .map(|code| Company::parse(code).map_err(|_| Foreign("company's code")))
        .transpose()
}

/// What a token's bearer may do.
pub(super) fn rights(text: &str) -> Result<Rights, Foreign> {
    Rights::ALL
        .into_iter()
        .find(|rights| rights.as_str() == text)
        .ok_or(Foreign("right of a token"))
}

/// The key of a message id: a UUID's 16 bytes; anything else is longer than that.
pub(super) fn message_key(id: &str) -> Vec<u8> {
    match Uuid::try_parse(id) {
        Ok(uuid) if uuid.hyphenated().to_string() == id => uuid.as_bytes().to_vec(),
        _ => [&[0; 16], id.as_bytes(), &[0]].concat(),
    }
}

/// The message id of a key.
pub(super) fn message_id(key: &[u8]) -> String {
    match Uuid::from_slice(key) {
        Ok(uuid) => uuid.hyphenated().to_string(),
        Err(_) => {
            let end = key.len().saturating_sub(1);
            String::from_utf8_lossy(key.get(16..end).unwrap_or_default()).into_owned()
        }
    }
}

/// An epoch that no other store has.
pub(super) fn new_epoch() -> String {
    let mut random = [0_u8; 8];
    // The system's random source fails on no supported system once it has started.
    getrandom::fill(&mut random).expect("the system gives random bytes");
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Databases count rows in signed numbers.
pub(super) fn row_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_round_trips_through_its_key() {
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
