//! The project's words as types. No I/O; the clock only reads the time.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
pub use sns_messages::time::{Clock, Correction, Timestamp};

mod company_code;
pub mod moment;
pub mod search_text;

pub use self::company_code::CodeDoubt;
pub use self::moment::Moment;
pub use self::search_text::SearchText;
use crate::visible::shell_word;

/// The event that a subscription announces.
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

    /// Returns the vendor's spelling, also the path segment of the webhook.
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

    /// Returns false if a topic's name is that of the other event, such as `DPWebHook_onexport` for
    /// `on_digitized`.
    ///
    /// The name of the digitized topic is not known (vendor-api U10), so one that names
    /// neither event fits both.
    pub fn fits_topic(self, topic_arn: &str) -> bool {
        let name = topic_arn.rsplit(':').next().unwrap_or_default();
        let name = name.to_ascii_lowercase();
        let (own, other) = match self {
            Self::OnExported => ("export", "digiti"),
            Self::OnDigitized => ("digiti", "export"),
        };
        name.contains(own) || !name.contains(other)
    }

    /// Returns the queue of the documents that this event announces.
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
    /// Documents that an accountant exported; one company in each page.
    Exported,
    /// Documents as soon as they are digitized; companies mixed.
    Digitized,
}

impl Queue {
    /// Both queues.
    pub const ALL: [Self; 2] = [Self::Exported, Self::Digitized];

    /// Returns the queue's name in the store, in logs and in the API's path.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Digitized => "digitized",
        }
    }

    /// Parses [`Queue::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|queue| queue.as_str() == text)
    }

    /// Returns the document field that holds the version: `exportedat` or `digitizedat`.
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

/// A name that is empty, too long, or has characters that are not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct InvalidName {
    text: String,
    expected: &'static str,
}

/// The name of one API key at the vendor, as configured.
///
/// 1 to 40 of `a-z`, `0-9`, `-` and `_`, so that it needs no escaping in paths, logs and
/// environment variables.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[schema(pattern = "^[a-z0-9_-]{1,40}$")]
pub struct Account(String);

impl Account {
    /// Parses an account's name.
    ///
    /// # Errors
    ///
    /// Fails if the name is empty, longer than 40, or has other characters.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let allowed =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if (1..=40).contains(&text.len()) && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName {
                text: text.chars().take(60).collect(),
                expected: "an account name (1 to 40 of a-z, 0-9, - and _)",
            })
        }
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a destination, as configured; spelled like an [`Account`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
pub struct DestinationName(String);

impl DestinationName {
    /// Parses a destination's name.
    ///
    /// # Errors
    ///
    /// As [`Account::parse`].
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        match Account::parse(text) {
            Ok(Account(name)) => Ok(Self(name)),
            Err(InvalidName { text, .. }) => Err(InvalidName {
                text,
                expected: "a destination's name (1 to 40 of a-z, 0-9, - and _)",
            }),
        }
    }

    /// Returns the name.
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
    /// Longest code, in bytes.
    pub const MAX_BYTES: usize = 64;

    /// Parses a company's code: 1 to [`Company::MAX_BYTES`] bytes once trimmed, without
    /// control characters.
    ///
    /// # Errors
    ///
    /// Fails for any other text.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let code = text.trim();
        if (1..=Self::MAX_BYTES).contains(&code.len()) && !code.chars().any(char::is_control) {
            Ok(Self(code.to_owned()))
        } else {
            Err(InvalidName {
                text: code.chars().filter(|c| !c.is_control()).take(60).collect(),
                expected: "a company code (1 to 64 characters)",
            })
        }
    }

    /// Returns a code that nobody has: Lithuanian codes have seven or nine digits.
    pub fn nobody() -> Self {
        Self("990000000000099".to_owned())
    }

    /// Returns the empty code, used for the digitized queue, which mixes companies.
    pub const fn mixed() -> Self {
        Self(String::new())
    }

    /// Returns the code.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Company {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A list of documents with one cursor: (account, queue, company).
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
pub struct Feed {
    /// The account whose API key reads the feed.
    pub account: Account,
    /// The queue.
    pub queue: Queue,
    /// The company; [`Company::mixed`] in the digitized queue.
    pub company: Company,
}

impl Feed {
    /// Returns the feed of one company's exported documents.
    pub fn exported(account: Account, company: Company) -> Self {
        Self {
            account,
            queue: Queue::Exported,
            company,
        }
    }

    /// Returns the feed of an account's digitized queue.
    pub fn digitized(account: Account) -> Self {
        Self {
            account,
            queue: Queue::Digitized,
            company: Company::mixed(),
        }
    }

    /// Returns the options of a command that select it, such as `--company 302320404`.
    pub fn options(&self) -> String {
        // That of every installation with one API key.
        let account = match self.account.as_str() {
            "default" => String::new(),
            name => format!("--account {name} "),
        };
        if self.mixes_companies() {
            return format!("{account}--queue {}", self.queue);
        }
        let company = shell_word(self.company.as_str());
        format!("{account}--company {company}")
    }

    /// Returns true if only its documents tell which company they belong to.
    pub fn mixes_companies(&self) -> bool {
        self.company == Company::mixed()
    }
}

impl fmt::Display for Feed {
    /// Writes `default/exported/302320404`, or `default/digitized`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.queue)?;
        if !self.company.as_str().is_empty() {
            write!(f, "/{}", self.company)?;
        }
        Ok(())
    }
}

/// A position in a feed, as the vendor wrote it: stored and sent back byte for byte, never
/// parsed and never computed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Cursor(String);

impl Cursor {
    /// The word by which a person names the beginning of a queue, where there is no cursor.
    pub const BEGINNING: &str = "beginning";

    /// Wraps the vendor's text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the cursor that a person names; `None` is the beginning of the queue.
    pub fn named(text: String) -> Option<Self> {
        (text != Self::BEGINNING).then_some(Self(text))
    }

    /// Returns the vendor's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns what speaks against a cursor that a person names: it is no moment, or one to come.
    /// A `next` may be any text, so nothing proves it wrong.
    pub fn doubt(&self, now: Timestamp) -> Option<String> {
        let text = &self.0;
        let Some(moment) = Moment::read(text) else {
            return Some(format!(
                "`{text}` is no moment such as 2026-01-31T00:00:00Z; unless it is a `next` of Įvesk.lt, Įvesk.lt refuses it"
            ));
        };
        let is_to_come = moment.timestamp().is_some_and(|at| at > now);
        is_to_come.then(|| format!("`{text}` lies in the future"))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns a number with its noun: `1 feed`, `2 feeds`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

/// Bytes that no log or error may show: `Debug` writes only their number.
pub(crate) struct Redacted<'a>(pub(crate) &'a [u8]);

impl fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}

/// Returns the text that identifies a version: the moment's canonical text, or the vendor's text if
/// it is no moment.
pub fn version_key(version: &str) -> String {
    let moment = Moment::read(version);
    moment.map_or_else(|| version.to_owned(), |moment| moment.to_string())
}

/// One version of one document, as the vendor listed it.
#[derive(Clone, PartialEq, Eq)]
pub struct DocumentVersion {
    /// The vendor's `id`.
    pub id: String,
    /// The vendor's `exportedat` or `digitizedat`, as written; empty if absent.
    pub version: String,
    /// The whole JSON object, byte for byte; a part of its page.
    pub body: Bytes,
}

impl fmt::Debug for DocumentVersion {
    /// Writes all fields but the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DocumentVersion")
            .field("id", &self.id)
            .field("version", &self.version)
            .field("body", &Redacted(&self.body))
            .finish()
    }
}

impl DocumentVersion {
    /// Returns [`DocumentVersion::version`] as a moment, or `None` if it is not one.
    pub fn moment(&self) -> Option<Moment> {
        Moment::read(&self.version)
    }

    /// Returns [`version_key`] of its version.
    pub fn version_key(&self) -> String {
        version_key(&self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_fits_unless_it_is_named_like_the_other_event() {
        let arn = |name: &str| format!("arn:aws:sns:eu-west-1:007272210889:{name}");
        for (name, exported, digitized) in [
            ("DPWebHook_onexport", true, false),
            ("DPWebHook_on_exported", true, false),
            ("DPWebHook_ondigitize", false, true),
            ("DPWebHook_onDigitized", false, true),
            ("DPWebHook_queue", true, true),
            ("DPWebHook_digitized_and_exported", true, true),
        ] {
            assert_eq!(Event::OnExported.fits_topic(&arn(name)), exported, "{name}");
            assert_eq!(
                Event::OnDigitized.fits_topic(&arn(name)),
                digitized,
                "{name}"
            );
        }
    }

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
