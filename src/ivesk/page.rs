//! Parses one page of a queue.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::body::Body;
use super::error::ApiError;
use super::fields;
use super::repair::{RepairedText, repair};
use crate::domain::{Cursor, Redacted};

/// The most entries of a page, which the vendor fills with about 100 (vendor-api, "The queues"):
/// tiny entries would need far more memory than their text.
const MAX_ENTRIES: usize = 20_000;

/// One page of a queue.
#[derive(Default)]
pub struct Page {
    /// Each entry's JSON, byte for byte, in the vendor's order. All share the page's memory.
    pub documents: Vec<Bytes>,
    /// The vendor's `next`.
    pub next: Option<Cursor>,
    /// Entries that have been repaired, in the order of the entries.
    pub repaired: Vec<Repaired>,
    /// How many milliseconds the vendor's clock is ahead of ours, by the answer's `Date`.
    pub clock_offset: Option<i64>,
}

/// An entry that was JSON but for single characters: bytes that are not UTF-8, now U+FFFD, or control
/// characters in strings and backslashes that begin no escape, now escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// The index of the entry.
    pub entry: usize,
    /// The place of its first repaired character, in bytes.
    pub byte: usize,
}

impl fmt::Debug for Page {
    /// Prints no documents.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let documents: Vec<_> = self.documents.iter().map(|raw| Redacted(raw)).collect();
        f.debug_struct("Page")
            .field("documents", &documents)
            .field("next", &self.next)
            .field("repaired", &self.repaired)
            .finish()
    }
}

impl Page {
    /// Parses `{"documents": […], "next": …}`; other keys are ignored. If `documents` is null, or the
    /// answer has no key but `next`, the page is empty.
    ///
    /// `next` is none if it is absent, null or an empty text; a number's digits are kept as
    /// written.
    ///
    /// # Errors
    ///
    /// [`ApiError::Malformed`], without parts of the body.
    pub(super) fn read(body: Body) -> Result<Self, ApiError> {
        let other_encoding = body.other_encoding();
        let text = Bytes::from(body.bytes);
        let error = match Self::parse(&text) {
            Ok(page) => return Ok(page),
            Err(error) => error,
        };
        if let Some(encoding) = other_encoding {
            return Err(ApiError::Malformed(format!(
                "it is encoded in {encoding}, not in UTF-8; look for a proxy that changes answers, or \
                 report it to Įvesk.lt"
            )));
        }
        let Some(RepairedText {
            text: repaired,
            places,
        }) = repair(&text)
        else {
            return Err(error);
        };
        drop(text);
        let text = Bytes::from(repaired);
        let mut page = Self::parse(&text).map_err(|_| error)?;
        page.repaired = page.locate(&text, &places);
        Ok(page)
    }

    fn parse(text: &Bytes) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Answer<'a> {
            #[serde(borrow)]
            documents: Option<Entries<'a>>,
            #[serde(borrow)]
            next: Option<&'a RawValue>,
            message: Option<IgnoredAny>,
            error: Option<IgnoredAny>,
        }
        let answer: Answer<'_> = parse(text, "`documents` is not a list")?;
        if answer.documents.is_none() && (answer.message.is_some() || answer.error.is_some()) {
            return Err(ApiError::Malformed(
                "it has an error's message and no `documents`".to_owned(),
            ));
        }
        if answer.documents.is_none() {
            // An error in another form, or a page whose keys are written in another way, is not the queue's end.
            let keys: BTreeMap<Cow<'_, str>, IgnoredAny> = parse(text, "it is not an object")?;
            let is_known = |key: &Cow<'_, str>| matches!(&**key, "next" | "$schema");
            if !keys.contains_key("documents") && !keys.keys().all(is_known) {
                return Err(ApiError::Malformed("it has no `documents`".to_owned()));
            }
        }
        let entries = answer.documents.unwrap_or_default();
        if entries.count > MAX_ENTRIES {
            return Err(ApiError::Malformed(format!(
                "it has {} documents, and at most {MAX_ENTRIES} are read",
                entries.count
            )));
        }
        let next = match answer.next.map(RawValue::get) {
            None => None,
            Some(raw) => {
                let text = fields::text(raw).ok_or_else(|| {
                    ApiError::Malformed("`next` is neither text nor a number".to_owned())
                })?;
                (!text.is_empty()).then(|| Cursor::new(text))
            }
        };
        let documents = entries.list.iter();
        Ok(Self {
            documents: documents
                .map(|raw| text.slice_ref(raw.get().as_bytes()))
                .collect(),
            next,
            repaired: Vec::new(),
            clock_offset: None,
        })
    }

    /// Returns the entries in which the `places` of `text`, its text, are.
    fn locate(&self, text: &Bytes, places: &[usize]) -> Vec<Repaired> {
        let mut places = places.iter().copied().peekable();
        let mut repaired = Vec::new();
        for (entry, raw) in self.documents.iter().enumerate() {
            let start = raw.as_ptr().addr() - text.as_ptr().addr();
            let end = start + raw.len();
            while places.next_if(|place| *place < start).is_some() {}
            if let Some(place) = places.next_if(|place| *place < end) {
                repaired.push(Repaired {
                    entry,
                    byte: place - start,
                });
            }
        }
        repaired
    }
}

/// The entries of a page, of which no more than [`MAX_ENTRIES`] are kept.
#[derive(Default)]
struct Entries<'a> {
    list: Vec<&'a RawValue>,
    count: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut entries = Entries::default();
                while let Some(entry) = list.next_element()? {
                    entries.count += 1;
                    if entries.count <= MAX_ENTRIES {
                        entries.list.push(entry);
                    }
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_seq(List)
    }
}

/// Parses JSON of a known shape. serde's errors would quote the body, which may contain
/// documents or presigned addresses; `wrong_shape` replaces them.
pub(super) fn parse<'a, T: Deserialize<'a>>(
    body: &'a [u8],
    wrong_shape: &str,
) -> Result<T, ApiError> {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let start = text.trim_ascii_start();
    if start.starts_with(b"[") {
        // Of which serde would make an object.
        return Err(ApiError::Malformed(wrong_shape.to_owned()));
    }
    serde_json::from_slice(text).map_err(|error| {
        ApiError::Malformed(if start.is_empty() {
            "it is empty".to_owned()
        } else if start.starts_with(b"<") {
            "it is HTML or XML, not JSON; check that `api.url` is the API's address, and that no proxy \
             answers instead"
                .to_owned()
        } else {
            match error.classify() {
                Category::Eof => format!("the JSON ends after {} bytes, too early", body.len()),
                Category::Data => wrong_shape.to_owned(),
                Category::Syntax | Category::Io => format!(
                    "it is not JSON (line {}, column {})",
                    error.line(),
                    error.column()
                ),
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(body: impl AsRef<[u8]>) -> Result<Page, ApiError> {
        Page::read(Body::from(body.as_ref()))
    }

    fn next(text: &str) -> Option<String> {
        let body = format!(r#"{{"documents":[],"next":{text}}}"#);
        let page = read(body).expect("a page");
        page.next.map(|cursor| cursor.as_str().to_owned())
    }

    #[test]
    fn a_cursor_is_the_vendors_text_byte_for_byte() {
        for (raw, cursor) in [
            (
                r#""2019-11-26T12:30:47.370Z""#,
                Some("2019-11-26T12:30:47.370Z"),
            ),
            ("1574771447370", Some("1574771447370")),
            ("1.50", Some("1.50")),
            (r#"" \u0161""#, Some(" š")),
            (r#""""#, None),
            ("null", None),
        ] {
            assert_eq!(next(raw).as_deref(), cursor, "{raw}");
        }
        let absent = read(r#"{"documents":[]}"#).expect("a page");
        assert!(absent.next.is_none());
    }

    #[test]
    fn documents_keep_their_bytes() {
        let body = "\u{feff} {\"$schema\":\"x\",\"documents\":[ {\"id\" : 1.50 , \"x\":\"\\u0161\"} ,7,null]}";
        let page = read(body).expect("a page");
        assert_eq!(
            page.documents,
            [&b"{\"id\" : 1.50 , \"x\":\"\\u0161\"}"[..], b"7", b"null"]
        );
    }

    #[test]
    fn without_documents_a_page_is_empty() {
        for (body, next) in [
            ("{}", None),
            (r#"{"documents":null,"message":null}"#, None),
            (r#"{"documents":[]}"#, None),
            (r#"{"next":"a"}"#, Some("a")),
            (r#"{"$schema":"x","documents":null,"next":"a"}"#, Some("a")),
        ] {
            let page = read(body).expect(body);
            assert!(page.documents.is_empty(), "{body}");
            assert_eq!(page.next.as_ref().map(Cursor::as_str), next, "{body}");
        }
    }

    #[test]
    fn an_answer_of_another_form_is_no_empty_page() {
        for body in [
            r#"{"errorMessage":"Task timed out after 3.00 seconds"}"#,
            r#"{"Message":"x"}"#,
            r#"{"errors":[{"code":1}]}"#,
            r#"{"status":"error","next":"a"}"#,
            r#"{"Documents":[{"id":"a"}],"Next":"x"}"#,
        ] {
            let error = read(body).expect_err(body).to_string();
            assert!(error.contains("no `documents`"), "{error}");
        }
    }

    #[test]
    fn documents_share_the_memory_of_their_page() {
        let mut body = Body::from(&br#"{"documents":[{"id":1},{"id":2}]}"#[..]);
        body.bytes.shrink_to_fit();
        let start = body.bytes.as_ptr().addr();
        let page = Page::read(body).expect("a page");
        let places: Vec<_> = page
            .documents
            .iter()
            .map(|raw| raw.as_ptr().addr() - start)
            .collect();
        assert_eq!(places, [14, 23]);
    }

    #[test]
    fn one_bad_byte_or_control_character_costs_no_page() {
        let page = read(
            b"{\"documents\":[{\"id\":\"b1\"},{\"id\":\"b2\",\"docnum\":\"s\xff\"},7,{\"id\":\"b3\",\"a\":\"1\n\xc5\"}],\"next\":\"b\"}",
        )
        .expect("a page");
        assert_eq!(
            page.documents,
            [
                "{\"id\":\"b1\"}",
                "{\"id\":\"b2\",\"docnum\":\"s\u{fffd}\"}",
                "7",
                "{\"id\":\"b3\",\"a\":\"1\\u000a\u{fffd}\"}"
            ]
        );
        let places = [(1, 22), (3, 17)];
        assert_eq!(
            page.repaired,
            places.map(|(entry, byte)| Repaired { entry, byte })
        );
        assert_eq!(page.next, Some(Cursor::new("b")));
    }

    #[test]
    fn an_escape_that_json_does_not_have_costs_no_page() {
        let page = read(
            r#"{"documents":[{"id":"b1"},{"id":"b2","a":"\x41 O\'Neill"},{"id":"b3","a":"\u00"}],"next":"b"}"#,
        )
        .expect("a page");
        assert_eq!(
            page.documents,
            [
                r#"{"id":"b1"}"#,
                r#"{"id":"b2","a":"\\x41 O\\'Neill"}"#,
                r#"{"id":"b3","a":"\\u00"}"#
            ]
        );
        let places = [(1, 16), (2, 16)];
        assert_eq!(
            page.repaired,
            places.map(|(entry, byte)| Repaired { entry, byte })
        );
        assert_eq!(page.next, Some(Cursor::new("b")));
    }

    #[test]
    fn what_is_odd_in_one_entry_costs_no_page() {
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        for odd in [
            r#""\ud800""#,
            r#"{"\udc00":1,"a":1,"a":2}"#,
            "-1.50e9999",
            &deep,
        ] {
            let page = read(format!(r#"{{"documents":[{{"id":"b1"}},{odd}]}}"#)).expect(odd);
            assert_eq!(page.documents, [r#"{"id":"b1"}"#, odd]);
        }
    }

    #[test]
    fn another_encoding_is_named() {
        let text: Vec<u8> =
            r#"{"documents":[]}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let message = read(&text).expect_err("no page").to_string();
        assert!(message.contains("UTF-16"), "{message}");
    }

    #[test]
    fn a_page_of_too_many_entries_is_not_read() {
        let of = |count: usize| {
            let list = vec!["0"; count].join(",");
            read(format!("{{\"documents\":[{list}]}}"))
        };
        assert_eq!(of(MAX_ENTRIES).expect("a page").documents.len(), 20_000);
        let message = of(MAX_ENTRIES + 1).expect_err("no page").to_string();
        assert!(message.contains("20001 documents"), "{message}");
    }

    #[test]
    fn an_answer_that_is_no_page_is_not_quoted() {
        for (body, words) in [
            ("", "empty"),
            ("<!DOCTYPE html><p>secret", "HTML"),
            ("{\"documents\":[{\"id\":\"secret", "too early"),
            ("{\"documents\":[secret]}", "line 1"),
            ("{\"message\":\"secret\"}", "message"),
            ("{\"error\":{\"a\":\"secret\"}}", "message"),
            ("[]", "`documents`"),
            ("{\"documents\":\"secret\"}", "`documents`"),
            ("[\"secret\"]", "`documents`"),
            ("{\"documents\":[],\"next\":{\"a\":\"secret\"}}", "`next`"),
            ("{\"documents\":[],\"next\":false}", "`next`"),
            ("{\"documents\":[]} secret", "line 1"),
        ] {
            let message = read(body).expect_err(body).to_string();
            assert!(message.contains(words), "{body}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn pages_that_were_once_taken_wrong_are_taken_right() {
        for (folder, expected) in [("accepted", true), ("refused", false)] {
            let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/corpus/pages");
            let files = std::fs::read_dir(format!("{corpus}/{folder}")).expect("a folder");
            for file in files {
                let file = file.expect("a file").path();
                let body = std::fs::read(&file).expect("readable");
                assert_eq!(read(&body).is_ok(), expected, "{}", file.display());
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&body);
        }

        /// Entries keep their bytes, whatever is in them and between them.
        #[test]
        fn any_documents_keep_their_bytes(
            entries in proptest::collection::vec(
                ("[ \t\r\n]{0,2}", "\\PC{0,12}", any::<i64>(), "[ \t\r\n]{0,2}"),
                0..5,
            ),
            is_first in any::<bool>(),
        ) {
            let entries: Vec<String> = entries
                .into_iter()
                .map(|(before, text, number, after)| {
                    let text = serde_json::Value::from(text);
                    format!("{{{before}\"id\":{text},{after}\"total\" : {number}.50{before}}}")
                })
                .collect();
            let documents = format!("\"documents\":[{}]", entries.join(" ,\n"));
            let body = match is_first {
                true => format!("{{{documents},\"next\":\"a\"}}"),
                false => format!("{{\"next\":\"a\",{documents}}}"),
            };
            let page = read(&body).expect("a page");
            let expected: Vec<&[u8]> = entries.iter().map(String::as_bytes).collect();
            prop_assert_eq!(page.documents, expected);
            // A page that was cut is no page.
            prop_assert!(read(&body.as_bytes()[..body.len() - 1]).is_err());
        }

        /// Whatever a text of one entry holds but quotes, the other entries keep their bytes.
        #[test]
        fn any_text_of_one_entry_costs_no_other(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), proptest::sample::select(&b"\\\\ux0dF"[..])],
                0..40,
            ),
        ) {
            let bytes: Vec<u8> = bytes.into_iter().filter(|byte| *byte != b'"').collect();
            let body = [
                &br#"{"documents":[{"id":"a"},{"id":"b","x":""#[..],
                &bytes,
                br#"."},{"id":"c"}],"next":"n"}"#,
            ]
            .concat();
            let page = read(&body).expect("a page");
            prop_assert_eq!(page.documents.len(), 3);
            prop_assert_eq!(&page.documents[0][..], br#"{"id":"a"}"#);
            prop_assert_eq!(&page.documents[2][..], br#"{"id":"c"}"#);
            prop_assert!(page.repaired.iter().all(|repaired| repaired.entry == 1));
            prop_assert_eq!(page.next, Some(Cursor::new("n")));
        }

        #[test]
        fn any_cursor_round_trips(cursor in "\\PC{1,40}") {
            let body = serde_json::json!({ "documents": [], "next": cursor }).to_string();
            let page = read(&body).expect("a page");
            prop_assert_eq!(page.next, Some(Cursor::new(cursor)));
        }
    }
}
