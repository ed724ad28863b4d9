//! Answers of the server that are read, and printed as they came.

use std::ops::Deref;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error};
use serde::{Serialize, Serializer};
use serde_json::Value;

/// A value with the JSON that it was read from, which also has the fields of a newer server that
/// this version does not know.
pub(super) struct AsSent<T> {
    /// The JSON.
    pub(super) json: Value,
    read: T,
}

impl<T> Deref for AsSent<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.read
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for AsSent<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Value::deserialize(deserializer)?;
        let read = T::deserialize(&json).map_err(D::Error::custom)?;
        Ok(Self { json, read })
    }
}

impl<T> Serialize for AsSent<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}
