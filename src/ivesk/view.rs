//! A document's fields for tables that people read.

use serde::{Deserialize, Serialize};

use super::document::Entry;

/// The fields that a person recognizes a document by. Any of them may be absent or odd: their
/// names are known only from the vendor's clients and its XML export (vendor-api U21, U22), so no
/// decision depends on them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct View {
    /// `docnum`
    pub number: Option<String>,
    /// `date`, only the day if it begins with one.
    pub date: Option<String>,
    /// The seller's name, or its code.
    pub seller: Option<String>,
    /// The buyer's name, or its code.
    pub buyer: Option<String>,
    /// `total`, with its digits as written, not as a floating-point number.
    pub total: Option<String>,
    /// `currency`
    pub currency: Option<String>,
}

impl View {
    /// Parses the fields that exist; none if `raw` is not a JSON object.
    pub fn read(raw: &[u8]) -> Self {
        Entry::parse(raw)
            .map(|entry| entry.view())
            .unwrap_or_default()
    }
}

impl Entry<'_> {
    /// Returns what people recognize the document by. Control characters are removed, since a
    /// terminal would interpret them.
    pub fn view(&self) -> View {
        let field = |name: &str| {
            let text: String = self
                .fields
                .text(name)?
                .chars()
                .filter(|c| !c.is_control())
                .collect();
            let text = text.trim();
            (!text.is_empty()).then(|| text.to_owned())
        };
        let party = |party: &str| {
            ["name", "nameascii", "code"]
                .iter()
                .find_map(|leaf| field(&format!("{party}{leaf}")))
        };
        View {
            number: field("docnum"),
            date: field("date").map(day),
            seller: party("seller"),
            buyer: party("buyer"),
            total: field("total"),
            currency: field("currency"),
        }
    }
}

/// Returns the `YYYY-MM-DD` that `text` begins with, or all of it.
fn day(text: String) -> String {
    let is_day = |day: &str| {
        day.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
    };
    match text.get(..10) {
        Some(day) if is_day(day) => day.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_keeps_its_digits_whether_text_or_number() {
        let total = |raw: &str| View::read(raw.as_bytes()).total;
        assert_eq!(
            total(r#"{"total":1234567890123456.10}"#).as_deref(),
            Some("1234567890123456.10")
        );
        assert_eq!(total(r#"{"total":"121.00"}"#).as_deref(), Some("121.00"));
        assert_eq!(total(r#"{"total":null}"#), None);
        assert_eq!(total(r#"{"total":[1]}"#), None);
    }

    #[test]
    fn usable_fields_are_shown_and_odd_ones_are_not() {
        let view = View::read(
            r#"{"docnum":"AB\u001b[2J 1","date":"2019-11-26T00:00:00","sellername":"UAB \"Šarka\"",
                "sellernameascii":"UAB Sarka","buyername":"","buyernameascii":"UAB B","currency":"EUR"}"#
                .as_bytes(),
        );
        assert_eq!(view.number.as_deref(), Some("AB[2J 1"));
        assert_eq!(view.date.as_deref(), Some("2019-11-26"));
        assert_eq!(view.seller.as_deref(), Some("UAB \"Šarka\""));
        assert_eq!(view.buyer.as_deref(), Some("UAB B"));
        assert_eq!(view.total, None);
        assert_eq!(View::read(b"not json"), View::default());
        let odd = View::read("{\"date\":\"26 lapkričio 2019\"}".as_bytes());
        assert_eq!(odd.date.as_deref(), Some("26 lapkričio 2019"));
    }
}
