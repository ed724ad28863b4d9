//! Parses one page of a queue.

use std::fmt;

use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::error::ApiError;
use super::fields;
use crate::domain::{Cursor, Redacted};

/// One page of a queue.
#[derive(Default)]
pub struct Page {
    /// Each entry's JSON, byte for byte, in the vendor's order.
    pub documents: Vec<Vec<u8>>,
    /// The vendor's `next`.
    pub next: Option<Cursor>,
}

impl fmt::Debug for Page {
    /// Prints no documents.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let documents: Vec<_> = self.documents.iter().map(|raw| Redacted(raw)).collect();
        f.debug_struct("Page")
            .field("documents", &documents)
            .field("next", &self.next)
            .finish()
    }
}

impl Page {
    /// Parses `{"documents": […], "next": …}`; other keys are ignored.
    ///
    /// `next` is none if it is absent, null or an empty text; a number's digits are kept as
    /// written.
    ///
    /// # Errors
    ///
    /// [`ApiError::Malformed`], without parts of the body.
    pub(super) fn read(body: &[u8]) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Answer<'a> {
            #[serde(borrow)]
            documents: Vec<&'a RawValue>,
            #[serde(borrow, default)]
            next: Option<&'a RawValue>,
        }
        let answer: Answer<'_> = parse(body, "`documents` is missing or is not a list")?;
        let next = match answer.next.map(RawValue::get) {
            None => None,
            Some(raw) => {
                let text = fields::text(raw).ok_or_else(|| {
                    ApiError::Malformed("`next` is neither text nor a number".to_owned())
                })?;
                (!text.is_empty()).then(|| Cursor::new(text))
            }
        };
        let documents = answer.documents.iter();
        Ok(Self {
            documents: documents.map(|raw| raw.get().as_bytes().to_vec()).collect(),
            next,
        })
    }
}

/// Parses JSON of a known shape. serde's errors would quote the body, which may contain
/// documents or presigned addresses; `wrong_shape` replaces them.
pub(super) fn parse<'a, T: Deserialize<'a>>(
    body: &'a [u8],
    wrong_shape: &str,
) -> Result<T, ApiError> {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    serde_json::from_slice(text).map_err(|error| {
        let start = text.trim_ascii_start();
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

    fn next(text: &str) -> Option<String> {
        let body = format!(r#"{{"documents":[],"next":{text}}}"#);
        let page = Page::read(body.as_bytes()).expect("a page");
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
        let absent = Page::read(br#"{"documents":[]}"#).expect("a page");
        assert!(absent.next.is_none());
    }

    #[test]
    fn documents_keep_their_bytes() {
        let body = "\u{feff} {\"$schema\":\"x\",\"documents\":[ {\"id\" : 1.50 , \"x\":\"\\u0161\"} ,7,null]}";
        let page = Page::read(body.as_bytes()).expect("a page");
        assert_eq!(
            page.documents,
            [&b"{\"id\" : 1.50 , \"x\":\"\\u0161\"}"[..], b"7", b"null"]
        );
    }

    #[test]
    fn an_answer_that_is_no_page_is_not_quoted() {
        for (body, words) in [
            ("", "empty"),
            ("<!DOCTYPE html><p>secret", "HTML"),
            ("{\"documents\":[{\"id\":\"secret", "too early"),
            ("{\"documents\":[secret]}", "line 1"),
            ("{}", "`documents`"),
            ("{\"documents\":null}", "`documents`"),
            ("{\"documents\":\"secret\"}", "`documents`"),
            ("[\"secret\"]", "`documents`"),
            ("{\"documents\":[],\"next\":{\"a\":\"secret\"}}", "`next`"),
            ("{\"documents\":[],\"next\":false}", "`next`"),
            ("{\"documents\":[]} secret", "line 1"),
        ] {
            let message = Page::read(body.as_bytes()).expect_err(body).to_string();
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
                assert_eq!(Page::read(&body).is_ok(), expected, "{}", file.display());
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Page::read(&body);
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
            let page = Page::read(body.as_bytes()).expect("a page");
            let expected: Vec<&[u8]> = entries.iter().map(String::as_bytes).collect();
            prop_assert_eq!(page.documents, expected);
            // A page that was cut is no page.
            prop_assert!(Page::read(&body.as_bytes()[..body.len() - 1]).is_err());
        }

        #[test]
        fn any_cursor_round_trips(cursor in "\\PC{1,40}") {
            let body = serde_json::json!({ "documents": [], "next": cursor }).to_string();
            let page = Page::read(body.as_bytes()).expect("a page");
            prop_assert_eq!(page.next, Some(Cursor::new(cursor)));
        }
    }
}
