//! The vendor's events and queues.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The event that a subscription is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// An accountant exported documents of one company.
    OnExported,
    /// A document was digitized.
    OnDigitized,
}

impl Event {
    /// Both events.
    pub const ALL: [Self; 2] = [Self::OnExported, Self::OnDigitized];

    /// Returns the vendor's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnExported => "on_exported",
            Self::OnDigitized => "on_digitized",
        }
    }

    /// Parses the vendor's spelling.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == text)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One of the vendor's two lists of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Queue {
    /// Documents that accountants exported, by company.
    Exported,
    /// Documents that were digitized, of all companies.
    Digitized,
}
