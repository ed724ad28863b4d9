//! Repairs text that would be JSON but for single characters in its strings.

/// The most characters that are repaired in one text: more are no accident, and each makes the text
/// longer.
const MAX_REPAIRS: usize = 10_000;

/// A text that was repaired.
pub(super) struct RepairedText {
    /// The text.
    pub(super) text: Vec<u8>,
    /// The places in it that were repaired, ascending.
    pub(super) places: Vec<usize>,
}

/// Replaces each sequence that is not UTF-8 by U+FFFD, and escapes control characters in strings, and
/// backslashes that begin no escape of JSON, such as that of `\x`.
///
/// Returns `None` if there is nothing to repair, or too much.
pub(super) fn repair(text: &[u8]) -> Option<RepairedText> {
    let mut repaired = RepairedText {
        text: Vec::with_capacity(text.len() + 1024),
        places: Vec::new(),
    };
    let (mut in_string, mut escaped) = (false, false);
    for chunk in text.utf8_chunks() {
        let valid = chunk.valid().as_bytes();
        let mut copied = 0;
        for (at, byte) in valid.iter().enumerate() {
            if repaired.places.len() > MAX_REPAIRS {
                return None;
            }
            if !in_string {
                in_string = *byte == b'"';
            } else if *byte < b' ' {
                repaired.text.extend_from_slice(&valid[copied..at]);
                copied = at + 1;
                repaired.replace(escaped, format!("\\u{byte:04x}").as_bytes());
                escaped = false;
            } else if escaped {
                escaped = false;
                if !is_escape(&valid[at..]) {
                    // The backslash, which stands for itself.
                    repaired.text.extend_from_slice(&valid[copied..at]);
                    copied = at;
                    repaired.places.push(repaired.text.len() - 1);
                    repaired.text.push(b'\\');
                }
            } else {
                escaped = *byte == b'\\';
                in_string = *byte != b'"';
            }
        }
        repaired.text.extend_from_slice(&valid[copied..]);
        if !chunk.invalid().is_empty() {
            repaired.replace(escaped, "\u{fffd}".as_bytes());
            escaped = false;
        }
        if repaired.places.len() > MAX_REPAIRS {
            return None;
        }
    }
    (!repaired.places.is_empty()).then_some(repaired)
}

/// Returns true if an escape of JSON (RFC 8259, section 7) goes on like this after its backslash. A lone
/// surrogate is one: reading it costs no more than its value.
fn is_escape(rest: &[u8]) -> bool {
    match rest {
        [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => true,
        [b'u', digits @ ..] => digits
            .first_chunk::<4>()
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)),
        _ => false,
    }
}

impl RepairedText {
    /// Adds a replacement. `escaped` is true after a backslash, which then stands for itself.
    fn replace(&mut self, escaped: bool, replacement: &[u8]) {
        if escaped {
            self.text.push(b'\\');
        }
        self.places.push(self.text.len());
        self.text.extend_from_slice(replacement);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    fn repaired(text: &[u8]) -> Option<(String, Vec<usize>)> {
        let repaired = repair(text)?;
        let text = String::from_utf8(repaired.text).expect("UTF-8");
        Some((text, repaired.places))
    }

    #[test]
    fn bad_bytes_are_replaced_and_control_characters_escaped() {
        assert_eq!(
            repaired(b"{\"a\":\"s\xfe\xffb\"}"),
            Some(("{\"a\":\"s\u{fffd}\u{fffd}b\"}".to_owned(), vec![7, 10]))
        );
        assert_eq!(
            repaired(b"{\n\"a\":\"1\n2\t\"}"),
            Some(("{\n\"a\":\"1\\u000a2\\u0009\"}".to_owned(), vec![8, 15]))
        );
        assert_eq!(
            repaired(b"[\"\\\"\x01\",\"\\\n\"]"),
            Some(("[\"\\\"\\u0001\",\"\\\\\\u000a\"]".to_owned(), vec![4, 15]))
        );
        // A character that was cut in the middle.
        assert_eq!(
            repaired(b"[\"\xc5\"]"),
            Some(("[\"\u{fffd}\"]".to_owned(), vec![2]))
        );
    }

    #[test]
    fn a_backslash_that_begins_no_escape_stands_for_itself() {
        let of = |text: &str| repaired(text.as_bytes());
        assert_eq!(
            of(r#"["\x\'","C:\temp","\u00zz\u12"]"#),
            Some((
                r#"["\\x\\'","C:\temp","\\u00zz\\u12"]"#.to_owned(),
                vec![2, 5, 21, 28]
            ))
        );
        // Before a character of several bytes, and before one that is cut.
        assert_eq!(
            repaired(b"[\"\\\xc5\xa1\\u00\xc5\"]"),
            Some(("[\"\\\\š\\\\u00\u{fffd}\"]".to_owned(), vec![2, 6, 11]))
        );
    }

    #[test]
    fn good_text_and_hopeless_text_are_left_alone() {
        assert!(repair(b"{\n \"a\" : \"\\u0001 \xc5\xa1\"\t}").is_none());
        assert!(repair(br#"{"a":"\"\\\/\b\f\n\r\t\u00aF \ud800"}"#).is_none());
        for bad in [&b"\xff"[..], b"\n", b"\\x"] {
            let hopeless = [&b"[\""[..], &bad.repeat(MAX_REPAIRS + 1), b"\"]"].concat();
            assert!(repair(&hopeless).is_none(), "{bad:?}");
        }
    }

    proptest! {
        /// Whatever bytes are in a string, it becomes JSON, and is not repaired twice.
        #[test]
        fn any_string_becomes_json(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), proptest::sample::select(&b"\\\\\\ux0dF'n"[..])],
                0..40,
            ),
        ) {
            // Without quotes, which have a meaning, also after the last backslash.
            let bytes: Vec<u8> = bytes.into_iter().filter(|byte| *byte != b'"').collect();
            let text = [&b"[\""[..], &bytes, b".\"]"].concat();
            let text = repair(&text).map_or(text, |repaired| repaired.text);
            prop_assert!(serde_json::from_slice::<Vec<&RawValue>>(&text).is_ok());
            prop_assert!(repair(&text).is_none());
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = repair(&bytes);
        }
    }
}
