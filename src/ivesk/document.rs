//! One document, parsed once: its identity, its companies, its file, and what people read of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use secrecy::SecretString;
use serde_json::value::RawValue;

use super::expected::LINES;
use super::fields::{self, Fields};
use crate::domain::{Company, DocumentVersion, Queue};

/// The greatest length of an `id` and of a version.
const MAX_KEY_BYTES: usize = 200;

/// An entry of a queue has no identity. It is kept as an unreadable entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is not a JSON object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// Its `id` is absent, empty, or neither text nor number.
    #[error("its `id` is missing")]
    NoId,
    /// Its `id` is too long or contains control characters.
    #[error("its `id` is longer than 200 bytes or contains control characters")]
    UnusableId,
    /// Its `exportedat` or `digitizedat` is too long or contains control characters.
    #[error(
        "its time of export or digitization is longer than 200 bytes or contains control characters"
    )]
    UnusableVersion,
    /// Its `id`, `exportedat` or `digitizedat` has bytes that are not UTF-8, or a backslash that begins no
    /// escape. Repairing them could make two of them equal.
    #[error("its `id` or its time of export or digitization was not valid JSON text")]
    NotValidText,
}

/// What identifies a version of a document in its feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `id`, text or number, trimmed.
    pub id: String,
    /// `exportedat` or `digitizedat` as written, empty if it is absent or neither text nor number.
    pub version: String,
}

/// The key of an upload's mark in its correlation data.
pub const UPLOAD_MARK: &str = "ivesk_webhook_upload";

/// A party of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The seller.
    Seller,
    /// The buyer.
    Buyer,
}

/// A party of a document that is the user's own company, or may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnParty {
    /// Its code, if the document has a usable one.
    pub company: Option<Company>,
    /// Its name, in ASCII letters if the document has it so.
    pub name: Option<String>,
}

impl Side {
    /// The fields with the party's name, in ASCII letters and as written.
    const fn names(self) -> [&'static str; 2] {
        match self {
            Self::Seller => ["sellernameascii", "sellername"],
            Self::Buyer => ["buyernameascii", "buyername"],
        }
    }

    /// Both sides, with the flag that marks the user's own company and the field with its code.
    const FIELDS: [(Self, &str, &str); 2] = [
        (Self::Seller, "sellerisfavorite", "sellercode"),
        (Self::Buyer, "buyerisfavorite", "buyercode"),
    ];
}

/// One entry of a queue, or a stored document. The text is parsed once; values are borrowed from it.
pub struct Entry<'a> {
    pub(super) fields: Fields<'a>,
}

impl<'a> Entry<'a> {
    /// Parses one JSON object; `None` if `raw` is anything else.
    pub fn parse(raw: &'a [u8]) -> Option<Self> {
        Fields::read(raw).map(|fields| Self { fields })
    }

    /// Returns a field's value as written, its name in any letter case; `None` if it is absent.
    pub fn raw(&self, name: &str) -> Option<&'a str> {
        self.fields.raw(name)
    }

    /// Returns every name with its value as written, in the document's order.
    pub fn all(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.fields.all()
    }

    /// Returns its lines as written: the elements of `line`, or its one object. None if they were
    /// not digitized.
    pub fn lines(&self) -> Vec<&'a str> {
        let lines = self.fields.raw(LINES).unwrap_or_default();
        match lines.bytes().next() {
            Some(b'[') => elements(lines),
            Some(b'{') => vec![lines],
            _ => Vec::new(),
        }
    }

    /// Returns its identity in `queue`.
    ///
    /// # Errors
    ///
    /// An [`Unreadable`] if it has none.
    pub fn identity(&self, queue: Queue) -> Result<Identity, Unreadable> {
        let id = self.fields.text("id").ok_or(Unreadable::NoId)?;
        let id = id.trim();
        if id.is_empty() {
            return Err(Unreadable::NoId);
        }
        if !is_usable(id) {
            return Err(Unreadable::UnusableId);
        }
        let version = self.fields.text(queue.version_field()).unwrap_or_default();
        // Truncation could make two versions equal.
        if !is_usable(&version) {
            return Err(Unreadable::UnusableVersion);
        }
        Ok(Identity {
            id: id.to_owned(),
            version,
        })
    }

    /// Returns the key of an entry without an identity: the whole entry except the link to its
    /// file, which the vendor signs again for each answer.
    pub fn dedup_key(&self) -> Vec<u8> {
        self.fields.without("url")
    }

    /// Returns the link to the document's file, which gives access to everybody who has it.
    pub fn link(&self) -> Option<SecretString> {
        let url = self.fields.text("url")?;
        let url = url.trim();
        (!url.is_empty()).then(|| url.into())
    }

    /// Returns the side of `company`: by its code, or else by the flag if only one party has it.
    /// `None` if neither decides.
    pub fn side(&self, company: &Company) -> Option<Side> {
        let single = |matches: &dyn Fn(&str, &str) -> bool| {
            let mut sides = Side::FIELDS
                .iter()
                .filter(|(_, flag, code)| matches(flag, code));
            match (sides.next(), sides.next()) {
                (Some((side, ..)), None) => Some(*side),
                _ => None,
            }
        };
        single(&|_, code| self.company(code).as_ref() == Some(company))
            .or_else(|| single(&|flag, _| self.fields.flag(flag)))
    }

    /// Returns the user's own companies of a document in the digitized queue, each once: the seller
    /// if `sellerisfavorite`, the buyer if `buyerisfavorite`.
    ///
    /// `sellercode` and `buyercode` are known only from the vendor's XML export (vendor-api, "What
    /// a document holds"); an absent or odd code is no company.
    pub fn companies(&self) -> Vec<Company> {
        let mut companies = Vec::new();
        for (_, flag, code) in Side::FIELDS {
            if self.fields.flag(flag) {
                let company = self.company(code);
                companies.extend(company.filter(|company| !companies.contains(company)));
            }
        }
        companies
    }

    /// Returns the document's type, trimmed; `None` if it has none.
    pub fn doctype(&self) -> Option<String> {
        let text = self.fields.text("doctype")?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Returns the parties whose document it is: those that are marked as the user's own and, if their
    /// mark is absent, those with a code, which may be.
    pub fn own_parties(&self) -> Vec<OwnParty> {
        let party = |(side, flag, code): (Side, &str, &str)| {
            let is_marked = self.fields.flag(flag);
            let is_unmarked = self.fields.raw(flag).is_none_or(|value| value == "null");
            let company = self.company(code);
            let name = side.names().iter().find_map(|name| self.fields.text(name));
            (is_marked || (is_unmarked && company.is_some())).then_some(OwnParty { company, name })
        };
        Side::FIELDS.into_iter().filter_map(party).collect()
    }

    /// Returns the parties that are marked as the user's own.
    pub fn favorites(&self) -> Vec<Side> {
        let sides = Side::FIELDS.into_iter();
        sides
            .filter(|(_, flag, _)| self.fields.flag(flag))
            .map(|(side, ..)| side)
            .collect()
    }

    fn company(&self, field: &str) -> Option<Company> {
        Company::parse(&self.fields.text(field)?).ok()
    }

    /// Returns the mark of the upload that the document was made from, if it has one.
    ///
    /// The vendor returns the data as `sourcedata` or `userdata` (vendor-api U4): as base64 of the
    /// JSON that was sent, as its text, or as an object.
    pub fn upload(&self) -> Option<String> {
        ["sourcedata", "userdata"]
            .iter()
            .filter_map(|name| self.fields.raw(name))
            .find_map(mark)
    }

    /// Returns the document's correlation data as text, decoded if it is base64.
    pub fn userdata(&self) -> Option<String> {
        let value = ["sourcedata", "userdata"]
            .iter()
            .find_map(|name| self.fields.raw(name).filter(|value| *value != "null"))?;
        let Some(text) = fields::text(value) else {
            return Some(value.to_owned());
        };
        let decoded = STANDARD.decode(text.trim()).ok();
        Some(
            decoded
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .unwrap_or(text),
        )
    }
}

/// Returns one entry of a queue, as in [`super::Page::documents`], as a version of a document.
///
/// # Errors
///
/// An [`Unreadable`] if the entry has no identity.
pub fn read(queue: Queue, raw: &Bytes) -> Result<DocumentVersion, Unreadable> {
    let entry = Entry::parse(raw).ok_or(Unreadable::NotAnObject)?;
    let Identity { id, version } = entry.identity(queue)?;
    Ok(DocumentVersion {
        id,
        version,
        body: raw.clone(),
    })
}

/// Returns the elements of a JSON list as written; none if `raw` is anything else.
pub fn elements(raw: &str) -> Vec<&str> {
    let list: Vec<&RawValue> = serde_json::from_str(raw).unwrap_or_default();
    list.into_iter().map(RawValue::get).collect()
}

fn is_usable(key: &str) -> bool {
    key.len() <= MAX_KEY_BYTES && !key.chars().any(char::is_control)
}

fn mark(value: &str) -> Option<String> {
    let found = |json: &[u8]| Fields::read(json)?.text(UPLOAD_MARK);
    if value.starts_with('{') {
        return found(value.as_bytes());
    }
    let text = fields::text(value)?;
    let decoded = STANDARD.decode(text.trim()).ok();
    let mark = decoded.and_then(|json| found(&json));
    mark.or_else(|| found(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(raw: &str) -> Entry<'_> {
        Entry::parse(raw.as_bytes()).expect("an object")
    }

    fn read(queue: Queue, raw: &[u8]) -> Result<DocumentVersion, Unreadable> {
        super::read(queue, &Bytes::copy_from_slice(raw))
    }

    #[test]
    fn an_id_is_text_or_number_and_the_body_stays_byte_for_byte() {
        let raw = br#"{ "id" : " a-1 ", "exportedat":"2019-11-26T12:30:47.370Z", "total": 1.50 }"#;
        let document = read(Queue::Exported, raw).expect("a document");
        assert_eq!(document.id, "a-1");
        assert_eq!(document.version, "2019-11-26T12:30:47.370Z");
        assert_eq!(document.body, &raw[..]);

        let raw = br#"{"id":12345678901234567890123,"digitizedat":null,"exportedat":"x"}"#;
        let document = read(Queue::Digitized, raw).expect("a document");
        assert_eq!(document.id, "12345678901234567890123");
        assert_eq!(document.version, "");
    }

    #[test]
    fn an_entry_equals_itself_under_another_link_only() {
        let like = |raw: &str| entry(raw).dedup_key();
        let first = like(r#"{"id":null,"url":"https://a?Signature=1","docnum":"1"}"#);
        assert_eq!(
            first,
            like(r#"{"id":null,"url":"https://a?Signature=2","docnum":"1"}"#)
        );
        for other in [
            r#"{"id":null,"url":"https://a?Signature=1","docnum":"2"}"#,
            r#"{"id":null,"url":"https://a?Signature=1","docnum":1}"#,
            r#"{"id":null}"#,
        ] {
            assert_ne!(first, like(other), "{other}");
        }
        assert_ne!(like(r#"{"a":1,"b":2}"#), like(r#"{"a":1,"b,":2}"#));
    }

    #[test]
    fn an_entry_without_an_identity_says_why() {
        let long = format!(r#"{{"id":"{}"}}"#, "a".repeat(201));
        let odd = r#"{"id":"1","exportedat":"a\u0000"}"#;
        for (raw, reason) in [
            ("", Unreadable::NotAnObject),
            ("null", Unreadable::NotAnObject),
            ("[1]", Unreadable::NotAnObject),
            (r#"{"id":"1""#, Unreadable::NotAnObject),
            ("{}", Unreadable::NoId),
            (r#"{"id":null}"#, Unreadable::NoId),
            (r#"{"id":"  "}"#, Unreadable::NoId),
            (r#"{"id":true}"#, Unreadable::NoId),
            (r#"{"id":"a\nb"}"#, Unreadable::UnusableId),
            (&long, Unreadable::UnusableId),
            (odd, Unreadable::UnusableVersion),
        ] {
            assert_eq!(read(Queue::Exported, raw.as_bytes()), Err(reason), "{raw}");
        }
    }

    #[test]
    fn an_uploads_mark_is_found_in_every_form() {
        let data = r#"{"order":7,"ivesk_webhook_upload":"u-1"}"#;
        let base64 = STANDARD.encode(data);
        let text = serde_json::to_string(data).expect("JSON");
        for body in [
            format!(r#"{{"sourcedata":"{base64}"}}"#),
            format!(r#"{{"sourcedata":null,"UserData":"{base64}"}}"#),
            format!(r#"{{"sourcedata":{text}}}"#),
            format!(r#"{{"userdata":{data}}}"#),
        ] {
            assert_eq!(entry(&body).upload().as_deref(), Some("u-1"), "{body}");
        }
        for none in [
            "{}",
            r#"{"sourcedata":"x"}"#,
            r#"{"sourcedata":"e30="}"#,
            r#"{"sourcedata":[1]}"#,
        ] {
            assert_eq!(entry(none).upload(), None, "{none}");
        }
    }

    #[test]
    fn only_favorites_are_our_companies() {
        let codes = |raw: &str| -> Vec<String> {
            let companies = entry(raw).companies();
            companies.iter().map(Company::to_string).collect()
        };
        assert_eq!(
            codes(
                r#"{"sellerisfavorite":true,"sellercode":"01","buyerisfavorite":false,"buyercode":"2"}"#
            ),
            ["01"]
        );
        assert_eq!(
            codes(
                r#"{"SellerIsFavorite":"true","SellerCode":1,"buyerisfavorite":1,"buyercode":" 2 "}"#
            ),
            ["1", "2"]
        );
        assert_eq!(
            codes(
                r#"{"sellerisfavorite":true,"sellercode":"1","buyerisfavorite":true,"buyercode":1}"#
            ),
            ["1"]
        );
        for none in ["{}", r#"{"sellerisfavorite":true}"#, r#"{"buyercode":"1"}"#] {
            assert!(codes(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn a_company_s_side_follows_its_code_or_else_a_flag() {
        let side = |raw: &str| {
            let company = Company::parse("7").expect("a code");
            entry(raw).side(&company)
        };
        for (raw, expected) in [
            (r#"{"sellercode":"7","buyercode":"8"}"#, Some(Side::Seller)),
            (
                r#"{"sellercode":8,"buyercode":" 7 ","sellerisfavorite":true}"#,
                Some(Side::Buyer),
            ),
            (
                r#"{"buyerisfavorite":true,"sellerisfavorite":false}"#,
                Some(Side::Buyer),
            ),
            (
                r#"{"sellerisfavorite":"true","buyercode":"8"}"#,
                Some(Side::Seller),
            ),
            (r#"{"sellerisfavorite":true,"buyerisfavorite":true}"#, None),
            (r#"{"sellercode":"7","buyercode":"7"}"#, None),
            ("{}", None),
        ] {
            assert_eq!(side(raw), expected, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(entry) = Entry::parse(&raw) {
                let _ = entry.identity(Queue::Exported);
                let _ = entry.side(&Company::mixed());
                let _ = entry.link();
                let _ = entry.companies();
                let _ = entry.upload();
                let _ = entry.dedup_key();
            }
        }

        #[test]
        fn any_usable_id_round_trips(id in "[^\\p{Cc}\\s]{1,40}") {
            let raw = serde_json::json!({ "id": id }).to_string();
            let document = read(Queue::Exported, raw.as_bytes());
            prop_assert_eq!(document.map(|d| d.id), Ok(id));
        }
    }
}
