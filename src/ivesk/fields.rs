//! One JSON object of the vendor, parsed without regard to types and letter case.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of one JSON object, with their values as written.
pub(super) struct Fields<'a>(Vec<(Name<'a>, &'a RawValue)>);

/// The name of a field, borrowed unless it contains an escape.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Fields<'a> {
    /// Parses one object; `None` if `raw` is anything else.
    pub(super) fn read(raw: &'a [u8]) -> Option<Self> {
        let raw = raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(raw);
        serde_json::from_slice(raw).ok()
    }

    /// Returns a field's value as written. The exact name is preferred to one in another letter
    /// case; of duplicate names the last counts, as in JavaScript.
    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        let find = |same: &dyn Fn(&str) -> bool| {
            let mut fields = self.0.iter().rev();
            fields
                .find(|(Name(key), _)| same(key))
                .map(|(_, value)| value.get())
        };
        find(&|key| key == name).or_else(|| find(&|key| key.eq_ignore_ascii_case(name)))
    }

    /// Returns every name with its value as written, in the document's order.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0
            .iter()
            .map(|(Name(key), value)| (key.as_ref(), value.get()))
    }

    /// Returns the first field whose name `matches`, if it is text or a number.
    pub(super) fn text_where(&self, matches: impl Fn(&str) -> bool) -> Option<String> {
        let (_, value) = self.0.iter().find(|(Name(key), _)| matches(key))?;
        text(value.get())
    }

    /// Returns all fields but those of this name, in their order, one a line.
    pub(super) fn without(&self, name: &str) -> Vec<u8> {
        let mut text = String::new();
        for (Name(key), value) in &self.0 {
            if !key.eq_ignore_ascii_case(name) {
                // A key's debug form is escaped, so that different objects have different lines.
                text.push_str(&format!("{key:?}:{}\n", value.get()));
            }
        }
        text.into_bytes()
    }

    /// Returns a text, or a number's digits as written; `None` for any other type.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.raw(name).and_then(text)
    }

    /// Returns true if a flag is set, as a boolean, a text or a number.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.raw(name) == Some("true") || matches!(self.text(name).as_deref(), Some("true" | "1"))
    }
}

/// Returns a JSON text's content, or a number's digits as written; `None` for any other type.
pub fn text(raw: &str) -> Option<String> {
    match raw.bytes().next()? {
        b'"' => serde_json::from_str(raw).ok(),
        b'-' | b'0'..=b'9' => Some(raw.to_owned()),
        _ => None,
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    fields.push(entry);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}
