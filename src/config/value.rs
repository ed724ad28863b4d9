//! A value as the file or a variable holds it, and conversions to the setting's type.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::check;
use super::problem::Origin;

/// A value before any check.
#[derive(Clone, Debug)]
pub(super) enum RawValue {
    Text(String),
    Integer(i64),
    Switch(bool),
    List(Vec<RawValue>),
    Table(BTreeMap<String, RawValue>),
    Other(&'static str),
}

impl RawValue {
    /// Converts a TOML value.
    pub(super) fn read(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
                .map_or(Self::Other("too large a number"), Self::Integer),
            DeValue::Float(_) => Self::Other("a fraction"),
            DeValue::Boolean(switch) => Self::Switch(*switch),
            DeValue::Datetime(_) => Self::Other("a date"),
            DeValue::Array(items) => Self::List(
                items
                    .iter()
                    .map(|item| Self::read(item.get_ref()))
                    .collect(),
            ),
            DeValue::Table(table) => Self::Table(
                table
                    .iter()
                    .map(|(key, value)| (key.get_ref().to_string(), Self::read(value.get_ref())))
                    .collect(),
            ),
        }
    }

    /// Returns the kind of value, as messages name it.
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a number",
            Self::Switch(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }

    /// Returns the name in the first `${NAME}` that was not substituted.
    pub(super) fn placeholder(&self) -> Option<&str> {
        match self {
            Self::Text(text) => check::placeholder(text),
            Self::List(items) => items.iter().find_map(Self::placeholder),
            Self::Table(entries) => entries.values().find_map(Self::placeholder),
            Self::Integer(_) | Self::Switch(_) | Self::Other(_) => None,
        }
    }
}

/// A value and where it is set.
#[derive(Clone, Debug)]
pub(super) struct ConfigValue {
    pub(super) raw: RawValue,
    pub(super) origin: Origin,
}

impl ConfigValue {
    /// Returns true if a variable holds it: then it is text, whatever the setting's type.
    pub(super) fn is_variable(&self) -> bool {
        matches!(self.origin, Origin::Variable(_))
    }

    /// Returns a text without white space around it.
    pub(super) fn text(&self) -> Result<&str, String> {
        match &self.raw {
            RawValue::Text(text) if text.trim().is_empty() => {
                Err("is empty; write a value, or remove it".to_owned())
            }
            RawValue::Text(text) => Ok(text.trim()),
            other => Err(format!(
                "is {}; write text between double quotes",
                other.kind()
            )),
        }
    }

    /// Returns a whole number, not negative.
    pub(super) fn number(&self) -> Result<u64, String> {
        let invalid = || "is not a whole number; write digits only, such as 4096".to_owned();
        match &self.raw {
            RawValue::Integer(number) => u64::try_from(*number).map_err(|_| invalid()),
            RawValue::Text(text) if self.is_variable() => {
                text.trim().parse().map_err(|_| invalid())
            }
            RawValue::Text(_) => Err("is text; write the number without quotes".to_owned()),
            _ => Err(invalid()),
        }
    }

    /// Returns `true` or `false`.
    pub(super) fn switch(&self) -> Result<bool, String> {
        match &self.raw {
            RawValue::Switch(switch) => Ok(*switch),
            RawValue::Text(text) if self.is_variable() && text.trim() == "true" => Ok(true),
            RawValue::Text(text) if self.is_variable() && text.trim() == "false" => Ok(false),
            _ => Err("is neither true nor false; write one of them, without quotes".to_owned()),
        }
    }

    /// Returns a list of texts; in a variable, the texts between commas.
    pub(super) fn list(&self) -> Result<Vec<String>, String> {
        match &self.raw {
            RawValue::Text(text) if self.is_variable() => Ok(text
                .split(',')
                .map(|item| item.trim().to_owned())
                .filter(|item| !item.is_empty())
                .collect()),
            RawValue::List(items) => items
                .iter()
                .map(|item| match item {
                    RawValue::Text(text) => Ok(text.trim().to_owned()),
                    other => Err(format!(
                        "contains {}; write each entry as text between double quotes",
                        other.kind()
                    )),
                })
                .collect(),
            other => Err(format!(
                "is {}; write a list, such as [\"one\", \"two\"]",
                other.kind()
            )),
        }
    }
}
