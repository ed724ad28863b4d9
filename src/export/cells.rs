//! One cell of a table, as a spreadsheet reads it.

use encoding_rs::{EncoderResult, WINDOWS_1257};
use serde::{Deserialize, Serialize};

use super::columns::CellKind;
use crate::ivesk;

/// The sign between a number's whole part and its decimals.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    clap::ValueEnum,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Decimal {
    /// A point, as in the JSON
    #[default]
    Point,
    /// A comma, as spreadsheets in Lithuanian expect
    Comma,
}

/// The encoding of a table.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    clap::ValueEnum,
    utoipa::ToSchema,
)]
pub enum Encoding {
    /// UTF-8
    #[default]
    #[serde(rename = "utf-8")]
    #[value(name = "utf-8")]
    Utf8,
    /// UTF-8 with a byte order mark, by which Excel recognizes it
    #[serde(rename = "utf-8-bom")]
    #[value(name = "utf-8-bom")]
    Utf8Bom,
    /// Windows-1257, for old Lithuanian programs; characters that it does not have become `?`
    #[serde(rename = "windows-1257")]
    #[value(name = "windows-1257")]
    Windows1257,
}

impl Encoding {
    /// Returns its name in a Content-Type.
    pub const fn charset(self) -> &'static str {
        match self {
            Self::Utf8 | Self::Utf8Bom => "utf-8",
            Self::Windows1257 => "windows-1257",
        }
    }

    /// Returns true if it has all characters.
    pub const fn is_complete(self) -> bool {
        matches!(self, Self::Utf8 | Self::Utf8Bom)
    }

    /// Replaces each character of `text` that the encoding does not have by `?`; returns their
    /// number.
    pub(super) fn replace(self, text: &mut String) -> u64 {
        if self.is_complete() || text.is_ascii() {
            return 0;
        }
        let mut replaced = 0;
        let fitting = text.chars().map(|c| {
            if is_of_windows_1257(c) {
                c
            } else {
                replaced += 1;
                '?'
            }
        });
        let fitting = fitting.collect();
        if replaced > 0 {
            *text = fitting;
        }
        replaced
    }

    /// Encodes text that [`Encoding::replace`] has made fit.
    pub(super) fn encode(self, text: &[u8]) -> Vec<u8> {
        match self {
            Self::Utf8 | Self::Utf8Bom => text.to_vec(),
            Self::Windows1257 => {
                let text = String::from_utf8_lossy(text);
                let (bytes, ..) = WINDOWS_1257.encode(&text);
                bytes.into_owned()
            }
        }
    }
}

fn is_of_windows_1257(c: char) -> bool {
    if c.is_ascii() {
        return true;
    }
    let mut utf8 = [0; 4];
    let mut byte = [0; 8];
    let mut encoder = WINDOWS_1257.new_encoder();
    let (result, ..) =
        encoder.encode_from_utf8_without_replacement(c.encode_utf8(&mut utf8), &mut byte, true);
    matches!(result, EncoderResult::InputEmpty)
}

/// Returns the text of a cell of CSV from its JSON.
///
/// Digits stay as they are in the document: a number never becomes binary. A text that a
/// spreadsheet would run as a formula gets a `'` in front.
pub(super) fn csv(raw: &str, kind: CellKind, decimal: Decimal) -> String {
    let first = raw.bytes().next().unwrap_or_default();
    match first {
        b'"' => {
            let text = ivesk::text(raw).unwrap_or_default();
            if kind == CellKind::Decimal && is_decimal(&text) {
                return with_sign(&text, decimal);
            }
            guarded(text)
        }
        // Numbers in a column of texts, such as a document's number, have no decimals.
        b'-' | b'0'..=b'9' if kind == CellKind::Text => raw.to_owned(),
        b'-' | b'0'..=b'9' => with_sign(raw, decimal),
        b'{' | b'[' if kind == CellKind::Any => raw.to_owned(),
        b't' | b'f' => raw.to_owned(),
        _ => String::new(),
    }
}

/// Returns the value of a cell of JSON; `None` if it is left out.
pub(super) fn json(raw: &str, kind: CellKind) -> Option<&str> {
    let is_nested = raw.starts_with(['{', '[']);
    (kind == CellKind::Any || !is_nested).then_some(raw)
}

/// Returns true for a decimal number as it is written in JSON.
fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    all_digits(whole) && all_digits(part)
}

fn with_sign(number: &str, decimal: Decimal) -> String {
    match decimal {
        Decimal::Point => number.to_owned(),
        Decimal::Comma => number.replacen('.', ",", 1),
    }
}

/// Returns the text with a `'` in front if a spreadsheet would run it as a formula (OWASP, "CSV
/// Injection"). A negative number is none.
fn guarded(text: String) -> String {
    let visible = text.trim_start_matches([' ', '\u{a0}', '\u{feff}', '\u{200b}']);
    let runs = visible.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    let is_negative =
        visible.starts_with('-') && is_decimal(&visible.trim_end().replacen(',', ".", 1));
    if runs && !is_negative {
        return format!("'{text}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_amount_keeps_the_digits_of_its_document() {
        for (raw, point, comma) in [
            (
                "1234567890123456789.10",
                "1234567890123456789.10",
                "1234567890123456789,10",
            ),
            ("0.1", "0.1", "0,1"),
            ("-5.00", "-5.00", "-5,00"),
            ("1.5e3", "1.5e3", "1,5e3"),
            ("\"121.00\"", "121.00", "121,00"),
            ("\"-121.00\"", "-121.00", "-121,00"),
            ("\"121,00\"", "121,00", "121,00"),
            ("\"1 210.00\"", "1 210.00", "1 210.00"),
            ("null", "", ""),
            ("\"\"", "", ""),
        ] {
            assert_eq!(csv(raw, CellKind::Decimal, Decimal::Point), point, "{raw}");
            assert_eq!(csv(raw, CellKind::Decimal, Decimal::Comma), comma, "{raw}");
        }
    }

    #[test]
    fn a_text_keeps_its_zeros_and_points() {
        for (raw, text) in [
            ("\"000123\"", "000123"),
            ("\"1.50\"", "1.50"),
            ("1.50", "1.50"),
            ("true", "true"),
            ("\"\\u0160arka\"", "Šarka"),
            ("{\"a\":\"https://x\"}", ""),
            ("[1]", ""),
        ] {
            assert_eq!(csv(raw, CellKind::Text, Decimal::Comma), text, "{raw}");
        }
        assert_eq!(csv("[1.5]", CellKind::Any, Decimal::Comma), "[1.5]");
        assert_eq!(csv("1.5", CellKind::Any, Decimal::Comma), "1,5");
        assert_eq!(csv("\"1.5\"", CellKind::Any, Decimal::Comma), "1.5");
    }

    #[test]
    fn a_formula_is_guarded_and_a_negative_amount_is_not() {
        for formula in [
            "=1+1",
            "+37060000000",
            "-1+1",
            "-",
            "--1",
            "@SUM(A1)",
            "\t=1",
            "\r=1",
            "\n=1",
            " =1",
            "\u{feff}=1",
            "＝1",
            "-5.00=1",
        ] {
            assert_eq!(
                guarded(formula.to_owned()),
                format!("'{formula}"),
                "{formula:?}"
            );
        }
        for harmless in ["-5", "-5.00", "-5,00", "a=1", "UAB „A+B“", "1-2", ""] {
            assert_eq!(guarded(harmless.to_owned()), harmless);
        }
        let raw = "\"=HYPERLINK(1)\"";
        for kind in [CellKind::Text, CellKind::Decimal, CellKind::Any] {
            assert_eq!(csv(raw, kind, Decimal::Point), "'=HYPERLINK(1)");
        }
    }

    #[test]
    fn characters_that_the_encoding_lacks_are_replaced_and_counted() {
        let mut text = "UAB „Ąžuolo šaknys“ €, Łódź".to_owned();
        let before = text.clone();
        assert_eq!(Encoding::Windows1257.replace(&mut text), 0);
        assert_eq!(text, before);
        assert_eq!(
            Encoding::Windows1257.encode("ĄČĘĖĮŠŲŪŽ€".as_bytes()),
            b"\xc0\xc8\xc6\xcb\xc1\xd0\xd8\xdb\xde\x80"
        );

        let mut text = "ООО Šarka 🐦".to_owned();
        assert_eq!(Encoding::Windows1257.replace(&mut text), 4);
        assert_eq!(text, "??? Šarka ?");
        assert_eq!(
            Encoding::Windows1257.encode(text.as_bytes()),
            b"??? \xd0arka ?"
        );
        let mut text = "ООО".to_owned();
        assert_eq!(Encoding::Utf8.replace(&mut text), 0);
        assert_eq!(text, "ООО");
    }

    proptest! {
        /// What is left after the replacement is encoded without another one.
        #[test]
        fn any_text_is_encoded_once_it_is_replaced(mut text in "\\PC{0,20}") {
            Encoding::Windows1257.replace(&mut text);
            let (bytes, _, has_errors) = WINDOWS_1257.encode(&text);
            prop_assert!(!has_errors);
            prop_assert_eq!(bytes.len(), text.chars().count());
        }

        #[test]
        fn no_text_begins_like_a_formula(text in "[-=+@\t\r 0-9,.]{0,6}") {
            let cell = guarded(text);
            let runs = cell.trim_start().starts_with(['=', '+', '-', '@']);
            prop_assert!(!runs || is_decimal(&cell.trim().replacen(',', ".", 1)), "{cell:?}");
        }
    }
}
