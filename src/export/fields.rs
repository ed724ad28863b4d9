//! Counts the fields that stored documents carry: their types and how often they are filled, and no
//! values.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::Queue;
use crate::ivesk::document::elements;
use crate::ivesk::{DOCUMENT_FIELDS, Entry, Evidence, ExpectedField, LINE_FIELDS, LINES};
use crate::store::{DocumentRow, DocumentSearch, Store, StoreError};

/// Versions that one call of the store reads.
const BATCH: u16 = 100;

/// Most names that are told of a queue. A vendor could make names of values.
const MAX_NAMES: usize = 300;

/// Longest name that is told, in bytes.
const MAX_NAME_BYTES: usize = 60;

/// Digits in a row from which on a name could be a code.
const MAX_DIGITS: usize = 4;

/// Hexadecimal digits from which on a name of nothing else could be a code.
const MAX_HEXADECIMAL: usize = 12;

/// The fields of the documents that were read.
#[derive(Clone, Debug, Default, Serialize, utoipa::ToSchema)]
pub struct FieldReport {
    /// The queues, each by itself.
    pub queues: Vec<QueueFields>,
    /// Versions whose JSON retention has removed, or a person has erased.
    pub without_contents: u64,
    /// True if older versions are stored that were not read.
    pub more: bool,
}

/// The fields of a queue's documents.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct QueueFields {
    /// The queue.
    pub queue: Queue,
    /// Versions of documents that were read.
    pub versions: u64,
    /// The fields that occurred, as they are written in the JSON: those of a document in the order of
    /// their names, and `NAME.NAME` of what is in a list or an object.
    pub fields: Vec<FieldCount>,
    /// The expected fields that never occurred.
    pub never: Vec<NeverSeen>,
    /// How many fields have a name that is not told, since it could be a value, or there are too many.
    pub other_names: u64,
}

/// A field that occurred.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct FieldCount {
    /// Its name.
    pub name: String,
    /// How the name is known; null if it was not expected.
    pub evidence: Option<Evidence>,
    /// How many documents, or elements of a list, could have it.
    pub of: u64,
    /// How many have it, also empty.
    pub present: u64,
    /// In how many it is not null and not empty.
    pub filled: u64,
    /// How many values are of which type: `text`, `number`, `boolean`, `object`, `list`, `null`.
    pub types: BTreeMap<&'static str, u64>,
}

/// An expected field that never occurred.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct NeverSeen {
    /// Its name.
    pub name: String,
    /// How the name is known.
    pub evidence: Evidence,
}

/// Counts the fields of the versions that `search` finds, newest first, and of at most `newest`.
///
/// # Errors
///
/// If the store can't be read.
pub async fn count(
    store: &Store,
    mut search: DocumentSearch,
    newest: Option<u64>,
) -> Result<FieldReport, StoreError> {
    let mut counts = Counts::default();
    let mut left = newest.unwrap_or(u64::MAX);
    let more = loop {
        search.versions = u16::try_from(left).unwrap_or(u16::MAX).min(BATCH);
        if search.versions == 0 {
            break true;
        }
        let found = store.search_documents(search.clone()).await?;
        for row in &found.rows {
            counts.add(row);
        }
        // A stretch that holds none of these documents costs as much as one that does.
        let read = u64::from(search.versions);
        left = left.saturating_sub(match search.company {
            Some(_) => found.rows.len() as u64,
            None => read,
        });
        search.before = found.next;
        if search.before.is_none() {
            break false;
        }
    };
    Ok(counts.report(more))
}

/// The counts of both queues.
#[derive(Default)]
struct Counts {
    queues: BTreeMap<Queue, QueueCounts>,
    without_contents: u64,
}

#[derive(Default)]
struct QueueCounts {
    versions: u64,
    fields: BTreeMap<String, Count>,
    /// The elements in lists and objects of each name.
    elements: BTreeMap<String, u64>,
    other_names: u64,
}

#[derive(Default)]
struct Count {
    present: u64,
    filled: u64,
    types: BTreeMap<&'static str, u64>,
}

impl Counts {
    fn add(&mut self, row: &DocumentRow) {
        let entry = row.body.as_deref().and_then(Entry::parse);
        let Some(entry) = entry else {
            self.without_contents += 1;
            return;
        };
        let counts = self.queues.entry(row.feed.queue).or_default();
        counts.versions += 1;
        for (name, raw) in entry.all() {
            if !is_name(name) || !counts.add(name, raw) {
                counts.other_names += 1;
                continue;
            }
            let inner = match raw.bytes().next() {
                Some(b'[') => elements(raw),
                Some(b'{') => vec![raw],
                _ => Vec::new(),
            };
            for element in inner {
                *counts.elements.entry(name.to_owned()).or_default() += 1;
                let element = Entry::parse(element.as_bytes());
                for (field, raw) in element.iter().flat_map(Entry::all) {
                    if !is_name(field) || !counts.add(&format!("{name}.{field}"), raw) {
                        counts.other_names += 1;
                    }
                }
            }
        }
    }

    fn report(self, more: bool) -> FieldReport {
        let queues = self.queues.into_iter();
        FieldReport {
            queues: queues.map(|(queue, counts)| counts.report(queue)).collect(),
            without_contents: self.without_contents,
            more,
        }
    }
}

impl QueueCounts {
    /// Counts a value; returns false if there are too many names already.
    fn add(&mut self, name: &str, raw: &str) -> bool {
        if self.fields.len() >= MAX_NAMES && !self.fields.contains_key(name) {
            return false;
        }
        let count = self.fields.entry(name.to_owned()).or_default();
        let (kind, is_filled) = kind(raw);
        count.present += 1;
        count.filled += u64::from(is_filled);
        *count.types.entry(kind).or_default() += 1;
        true
    }

    fn report(self, queue: Queue) -> QueueFields {
        let expected = expected();
        let find = |name: &str| {
            let mut fields = expected.iter();
            fields.find(|(known, _)| known.eq_ignore_ascii_case(name))
        };
        let occurred = |name: &str| self.fields.keys().any(|key| key.eq_ignore_ascii_case(name));
        let other_version_field = Queue::ALL
            .iter()
            .find(|other| **other != queue)
            .map(|other| other.version_field());
        let never = expected
            .iter()
            .filter(|(name, _)| !occurred(name))
            // A queue has one of the two moments.
            .filter(|(name, _)| Some(name.as_str()) != other_version_field)
            .map(|(name, field)| NeverSeen {
                name: name.clone(),
                evidence: field.evidence,
            })
            .collect();
        let of = |name: &str| match name.split_once('.') {
            Some((outer, _)) => self.elements.get(outer).copied().unwrap_or_default(),
            None => self.versions,
        };
        let fields = self.fields.iter();
        QueueFields {
            queue,
            versions: self.versions,
            fields: fields
                .map(|(name, count)| FieldCount {
                    evidence: find(name).map(|(_, field)| field.evidence),
                    of: of(name),
                    name: name.clone(),
                    present: count.present,
                    filled: count.filled,
                    types: count.types.clone(),
                })
                .collect(),
            never,
            other_names: self.other_names,
        }
    }
}

/// Returns the expected fields with their full names.
fn expected() -> Vec<(String, ExpectedField)> {
    let of_document = DOCUMENT_FIELDS.map(|field| (field.name.to_owned(), field));
    let of_line = LINE_FIELDS.map(|field| (format!("{LINES}.{}", field.name), field));
    of_document.into_iter().chain(of_line).collect()
}

/// Returns true for a name that a programmer would give, rather than a value.
fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME_BYTES
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || "_$".contains(c))
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_$-".contains(c))
        && !is_code(text)
}

/// Returns true for what looks like a code, such as that of a company for VAT, an account number or a UUID.
fn is_code(text: &str) -> bool {
    let count = |is: fn(char) -> bool| text.chars().filter(|c| is(*c)).count();
    let digits = count(|c| c.is_ascii_digit());
    let letters = count(|c| c.is_ascii_alphabetic());
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    let is_hexadecimal = text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    digits > letters
        || parts.any(|part| part.len() >= MAX_DIGITS)
        || (is_hexadecimal && digits > 0 && digits + letters >= MAX_HEXADECIMAL)
}

/// Returns the type of a value, and whether it holds anything.
fn kind(raw: &str) -> (&'static str, bool) {
    match raw.bytes().next() {
        Some(b'"') => ("text", !raw.trim_matches('"').trim().is_empty()),
        Some(b'{') => ("object", raw[1..].trim_start() != "}"),
        Some(b'[') => ("list", raw[1..].trim_start() != "]"),
        Some(b't' | b'f') => ("boolean", true),
        Some(b'n') => ("null", false),
        _ => ("number", true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_be_a_value_is_not_told() {
        for name in [
            "docnum",
            "$schema",
            "sellerIsFavorite",
            "a_b-c",
            "report2isaf",
            "addedface",
        ] {
            assert!(is_name(name), "{name}");
        }
        for value in [
            "302320404",
            "UAB Šarka",
            "a b",
            "",
            "a@b.lt",
            "LT100001738313",
            "LT12 1000 0111 0100 1000",
            "LT121000011101001000",
            "AB-2026-17",
            "b1-22-33",
            "a987fbc9-4bed-3078-cf07-9141ba07c9f3",
            "abcdefab-cdef-4abc-8def-abcdefabcdef",
            &"a".repeat(61),
        ] {
            assert!(!is_name(value), "{value}");
        }
    }

    #[test]
    fn an_empty_value_is_not_filled() {
        for (raw, expected) in [
            ("\"\"", ("text", false)),
            ("\" \"", ("text", false)),
            ("\"a\"", ("text", true)),
            ("[ ]", ("list", false)),
            ("[1]", ("list", true)),
            ("{}", ("object", false)),
            ("null", ("null", false)),
            ("false", ("boolean", true)),
            ("-0.00", ("number", true)),
        ] {
            assert_eq!(kind(raw), expected, "{raw}");
        }
    }
}
