//! Conversions between domain values and columns, for both databases.

use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::engine::{Column, Columns, rows, scalars};
use super::error::{Result, StoreError};
use crate::domain::{Account, Company, Cursor, DestinationName, Event, Feed, Queue};
use crate::hex::hex;

/// A column with a value that this version does not know: another program or a newer
/// version wrote it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("a row holds an unknown {0}; run the version of ivesk-webhook that wrote it")]
pub(super) struct UnknownValue(pub(super) &'static str);

impl From<UnknownValue> for StoreError {
    fn from(unknown: UnknownValue) -> Self {
        Self::Database(unknown.to_string())
    }
}

/// A name that no value has.
#[derive(Clone, Debug, thiserror::Error)]
#[error("`{name}` is none of {}", .known.join(", "))]
pub struct UnknownName {
    name: String,
    known: &'static [&'static str],
}

impl UnknownName {
    pub(super) fn new(name: &str, known: &'static [&'static str]) -> Self {
        Self {
            name: name.chars().filter(|c| !c.is_control()).take(60).collect(),
            known,
        }
    }
}

/// Defines an enum whose values have the same names in the store, in logs and in the API.
macro_rules! named {
    (
        $(#[$attribute:meta])*
        pub enum $rust:ident { $($(#[$of_value:meta])* $value:ident = $name:literal,)* }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $rust { $($(#[$of_value])* $value,)* }

        impl $rust {
            /// All values, in their order.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$value),*];

            /// Returns its name in the store, in logs and in the API.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $name,)* }
            }

            /// Returns the value with this name.
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|value| value.as_str() == name)
            }
        }

        impl std::str::FromStr for $rust {
            type Err = $crate::store::UnknownName;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                Self::parse(name).ok_or_else(|| $crate::store::UnknownName::new(name, &[$($name),*]))
            }
        }
    };
}
pub(super) use named;

/// Implements reading and writing for types whose column holds a name.
macro_rules! named_columns {
    ($($rust:ty: $what:literal, $name:ident => $parsed:expr;)*) => {
        $(impl $crate::store::engine::Column for $rust {
            fn read(
                columns: &mut $crate::store::engine::Columns<'_>,
            ) -> Result<Self, $crate::store::StoreError> {
                let $name = columns.text()?;
                Ok($parsed.ok_or($crate::store::columns::UnknownValue($what))?)
            }
        })*
        $crate::store::engine::scalars! { $($rust: Text, value => value.as_str();)* }
    };
}
pub(super) use named_columns;

named_columns! {
    Account: "account name", name => Self::parse(&name).ok();
    // Empty text is a feed that mixes them.
    Company: "company code", code => match &*code {
        "" => Some(Self::mixed()),
        code => Self::parse(code).ok(),
    };
    DestinationName: "destination name", name => Self::parse(&name).ok();
    Event: "event", name => Self::parse(&name);
    Queue: "queue", name => Self::parse(&name);
}

impl Column for Cursor {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self::new(columns.text()?))
    }
}

impl Column for SecretString {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(columns.get::<String>()?.into())
    }
}

// Three columns, of which the first is the account's name.
rows! { Feed { account, queue, company } }

scalars! {
    Cursor: Text, cursor => cursor.as_str();
    SecretString: Text, secret => secret.expose_secret();
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

/// Returns 16 random hexadecimal digits: a new epoch, or a name that nothing else has.
pub(super) fn random_hex() -> String {
    let mut random = [0_u8; 8];
    // On supported systems the random source never fails once it has started.
    getrandom::fill(&mut random).expect("the system provides random bytes");
    hex(&random)
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
