//! The words of the project as types, and the clock. No I/O but reading the time.

use std::fmt;

use serde::{Deserialize, Serialize};
pub use sns_messages::time::{Clock, Correction, Timestamp};

/// What the vendor tells us about: the event of a subscription.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Event {
    /// An accountant exported documents of one company.
    OnExported,
    /// A document was digitized.
    OnDigitized,
}

impl Event {
    /// Both events.
    pub const ALL: [Self; 2] = [Self::OnExported, Self::OnDigitized];

    /// The vendor's spelling, also the path segment of the webhook.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnExported => "on_exported",
            Self::OnDigitized => "on_digitized",
        }
    }

    /// Reads the vendor's spelling.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == text)
    }

    /// The queue that holds what this event announces.
    pub const fn queue(self) -> Queue {
        match self {
            Self::OnExported => Queue::Exported,
            Self::OnDigitized => Queue::Digitized,
        }
    }
}

impl From<Event> for ivesk_emulator::Event {
    fn from(event: Event) -> Self {
        match event {
            Event::OnExported => Self::OnExported,
            Event::OnDigitized => Self::OnDigitized,
        }
    }
}

impl From<ivesk_emulator::Event> for Event {
    fn from(event: ivesk_emulator::Event) -> Self {
        match event {
            ivesk_emulator::Event::OnExported => Self::OnExported,
            ivesk_emulator::Event::OnDigitized => Self::OnDigitized,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One of the vendor's two lists of documents.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Queue {
    /// Documents that an accountant exported; one company in each answer.
    Exported,
    /// Documents as soon as they are digitized; companies mixed.
    Digitized,
}

impl Queue {
    /// Both queues.
    pub const ALL: [Self; 2] = [Self::Exported, Self::Digitized];

    /// The queue's name in the store, in logs and in the API's path.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Digitized => "digitized",
        }
    }

    /// Reads [`Queue::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|queue| queue.as_str() == text)
    }

    /// The document field that holds its version: `exportedat` or `digitizedat`.
    pub const fn version_field(self) -> &'static str {
        match self {
            Self::Exported => "exportedat",
            Self::Digitized => "digitizedat",
        }
    }
}

impl From<Queue> for ivesk_emulator::Queue {
    fn from(queue: Queue) -> Self {
        match queue {
            Queue::Exported => Self::Exported,
            Queue::Digitized => Self::Digitized,
        }
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is not one of ours: too long, empty, or with other characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct InvalidWord {
    text: String,
    expected: &'static str,
}

/// The name of one API key at the vendor, as the settings call it.
///
/// 1 to 40 of `a-z`, `0-9`, `-` and `_`, so that it stands in paths, logs and
/// environment variables as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[schema(pattern = "^[a-z0-9_-]{1,40}$")]
pub struct Account(String);

impl Account {
    /// Reads an account's name.
    pub fn parse(text: &str) -> Result<Self, InvalidWord> {
        let allowed =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if (1..=40).contains(&text.len()) && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidWord {
                text: text.chars().take(60).collect(),
                expected: "an account name (1 to 40 of a-z, 0-9, - and _)",
            })
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a place where documents are delivered, as the settings call it; spelt as
/// an [`Account`]'s.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
pub struct DestinationName(String);

impl DestinationName {
    /// Reads a destination's name.
    pub fn parse(text: &str) -> Result<Self, InvalidWord> {
        match Account::parse(text) {
            Ok(Account(name)) => Ok(Self(name)),
            Err(InvalidWord { text, .. }) => Err(InvalidWord {
                text,
                expected: "a destination's name (1 to 40 of a-z, 0-9, - and _)",
            }),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DestinationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A company's code, trimmed, leading zeros kept (`vendor-api` U17).
///
/// Empty for the one feed of an account's digitized queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[schema(max_length = 64)]
pub struct Company(String);

impl Company {
    /// Longest code that is taken, in bytes.
    pub const MAX_BYTES: usize = 64;

    /// Reads a company's code: 1 to [`Company::MAX_BYTES`] bytes once trimmed,
    /// no control characters.
    pub fn parse(text: &str) -> Result<Self, InvalidWord> {
        let code = text.trim();
        if (1..=Self::MAX_BYTES).contains(&code.len()) && !code.chars().any(char::is_control) {
            Ok(Self(code.to_owned()))
        } else {
            Err(InvalidWord {
                text: code.chars().filter(|c| !c.is_control()).take(60).collect(),
                expected: "a company code (1 to 64 characters)",
            })
        }
    }

    /// What stands for the company in the digitized queue, which mixes them.
    pub const fn mixed() -> Self {
        Self(String::new())
    }

    /// The code.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Company {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One list that is read with one cursor: (account, queue, company).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
pub struct Feed {
    /// Whose API key reads it.
    pub account: Account,
    /// Which list.
    pub queue: Queue,
    /// Whose documents; [`Company::mixed`] in the digitized queue.
    pub company: Company,
}

impl Feed {
    /// The feed of one company's exported documents.
    pub fn exported(account: Account, company: Company) -> Self {
        Self {
            account,
            queue: Queue::Exported,
            company,
        }
    }

    /// The one feed of an account's digitized queue.
    pub fn digitized(account: Account) -> Self {
        Self {
            account,
            queue: Queue::Digitized,
            company: Company::mixed(),
        }
    }
}

impl fmt::Display for Feed {
    /// `default/exported/302320404`, or `default/digitized`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.queue)?;
        if !self.company.as_str().is_empty() {
            write!(f, "/{}", self.company)?;
        }
        Ok(())
    }
}

/// Where a feed goes on, as the vendor wrote it: stored and sent back byte for
/// byte, never read and never computed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
pub struct Cursor(String);

impl Cursor {
    /// Wraps the vendor's text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The vendor's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A number with its word: `1 feed`, `2 feeds`.
pub(crate) fn counted(count: u64, word: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {word}{ending}")
}

/// Bytes that no log or error may show, as `Debug` writes them: their number alone.
pub(crate) struct Unseen<'a>(pub(crate) &'a [u8]);

impl fmt::Debug for Unseen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}

/// One version of one document, as the vendor's list gave it.
#[derive(Clone, PartialEq, Eq)]
pub struct DocumentVersion {
    /// The vendor's `id`.
    pub id: String,
    /// The vendor's `exportedat` or `digitizedat`, as written; empty where absent.
    pub version: String,
    /// The whole JSON object, byte for byte.
    pub body: Vec<u8>,
}

impl fmt::Debug for DocumentVersion {
    /// Without the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DocumentVersion")
            .field("id", &self.id)
            .field("version", &self.version)
            .field("body", &Unseen(&self.body))
            .finish()
    }
}

impl DocumentVersion {
    /// [`DocumentVersion::version`] as a moment, where it is one.
    pub fn version_time(&self) -> Option<Timestamp> {
        Timestamp::parse(&self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_company_code_keeps_leading_zeros_and_is_trimmed() {
        assert_eq!(
            Company::parse(" 00302320404 ").map(|c| c.to_string()),
            Ok("00302320404".to_owned())
        );
        assert!(Company::parse("  ").is_err());
        assert!(Company::parse("a\nb").is_err());
    }

    #[test]
    fn an_account_name_is_safe_in_a_path() {
        assert!(Account::parse("default").is_ok());
        for bad in ["", "A", "a/b", "a b", &"a".repeat(41)] {
            assert!(Account::parse(bad).is_err(), "{bad}");
        }
    }
}
